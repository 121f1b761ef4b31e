#include "agent/agent.h"
#include "agent/host.h"
#include "agent/join_impl.h"
#include "base/file.h"
#include "wire/cmd.h"

#include <unistd.h>

#define ACKED_KEY "join_acked"
#define REQUEST_KEY "join_request"

/* --- join.token --- */

static int load_token(const struct member *m, struct join_token *ret, struct errmsg *em)
{
    struct buf text;
    char *path = member_path(m, "join.token");
    buf_init(&text, TOKEN_TEXT_MAX);
    int rc = file_read(path, &text, em);
    if (rc == 0) {
        rc = token_parse((const char *)text.data, text.len, ret, em);
    }
    buf_wipe(&text);
    free(path);
    return rc;
}

static int save_token(const struct member *m, const struct join_token *token, struct errmsg *em)
{
    struct buf text;
    char *path = member_path(m, "join.token");
    buf_init(&text, TOKEN_TEXT_MAX);
    token_format(token, &text);
    int rc = text.err != 0 ? errmsg_set(em, text.err, "the token has too many addresses")
                           : file_write_atomic(path, buf_blob(&text), 0600, em);
    buf_wipe(&text);
    free(path);
    return rc;
}

static bool same_secret(const struct join_token *a, const struct join_token *b)
{
    return uuid_equal(&a->cluster_id, &b->cluster_id) &&
           memcmp(a->root_fingerprint, b->root_fingerprint, sizeof a->root_fingerprint) == 0 &&
           pki_equal(blob_of(a->secret, sizeof a->secret), blob_of(b->secret, sizeof b->secret));
}

/* --- the pending membership --- */

static const char *wanted_name(const struct join_options *o, char buf[NAME_MAX_BYTES + 1])
{
    if (o->name != NULL) {
        return o->name;
    }
    struct host_facts f;
    host_facts_probe(&f);
    host_node_name(f.hostname, buf);
    return buf;
}

static int create(const struct join_options *o, const struct join_token *token, struct member **ret,
                  struct errmsg *em)
{
    char name[NAME_MAX_BYTES + 1];
    const struct member_settings s = {
        .cluster_name = "",
        .node_name = wanted_name(o, name),
        .listen = o->listen,
        .advertise = o->advertise,
        .cluster_id = token->cluster_id,
        .node_id = UUID_NIL,
    };
    int rc = member_create(o->data_dir, &s, ret, em);
    if (rc == 0) {
        rc = save_token(*ret, token, em);
        if (rc != 0) {
            member_free(*ret);
            *ret = NULL;
        }
    }
    return rc;
}

/* Where this host listens may change between two attempts; its name only until somebody saw it. */
static int update(const struct join_options *o, struct member *m, struct errmsg *em)
{
    char name[NAME_MAX_BYTES + 1];
    int rc = 0;
    if (o->listen != NULL) {
        rc = member_set_addresses(m, o->listen, o->advertise, em);
    }
    if (rc == 0 && o->name != NULL && !join_is_acked(m)) {
        rc = member_set_node_name(m, wanted_name(o, name), em);
    }
    return rc;
}

enum found { FOUND_SAME, FOUND_OTHER, FOUND_HALF };

/* What the pending membership is to this token. */
static enum found compare(const struct member *m, const struct join_token *token,
                          struct join_token *held)
{
    if (load_token(m, held, NULL) != 0) {
        return uuid_equal(&m->cluster_id, &token->cluster_id) ? FOUND_HALF : FOUND_OTHER;
    }
    return same_secret(held, token) ? FOUND_SAME : FOUND_OTHER;
}

static int resume(const struct join_options *o, struct member *m, const struct join_token *token,
                  struct member **ret, struct errmsg *em)
{
    struct join_token held;
    int rc = 0;
    enum found found = compare(m, token, &held);
    explicit_bzero(&held, sizeof held);
    if (found == FOUND_OTHER) {
        if (join_is_acked(m)) {
            rc = errmsg_set(em, -ERR_CONFLICT,
                            "a join with another token is pending: finish it, or remove %s",
                            m->dir);
            member_free(m);
            return rc;
        }
        rc = member_discard(m, em);
        return rc != 0 ? rc : create(o, token, ret, em);
    }
    rc = save_token(m, token, em); /* its addresses may be newer */
    if (rc == 0) {
        rc = update(o, m, em);
    }
    if (rc != 0) {
        member_free(m);
        return rc;
    }
    *ret = m;
    return 0;
}

static int resume_without_token(const struct join_options *o, struct member *m,
                                struct join_token *ret_token, struct errmsg *em)
{
    int rc = load_token(m, ret_token, em);
    return rc == 0 ? update(o, m, em) : errmsg_wrap(em, rc, "no join to resume");
}

/* The lock is held: by the daemon of a member, or by another join? */
static bool looks_complete(const char *data_dir)
{
    char *path = xasprintf("%s/member/node.crt", data_dir);
    bool complete = file_exists(path);
    free(path);
    return complete;
}

int join_prepare(const struct join_options *o, struct member **ret, struct join_token *ret_token,
                 struct errmsg *em)
{
    struct join_token token;
    struct member *m = NULL;
    int rc = o->token == NULL ? 0 : token_parse(o->token, o->token_len, &token, em);
    if (rc == 0) {
        rc = member_open(o->data_dir, &m, em);
    }
    if (rc == -ERR_NOT_FOUND && o->token != NULL) {
        rc = o->listen == NULL ? errmsg_set(em, -ERR_INVALID, "an address to listen on is needed")
                               : create(o, &token, ret, em);
    } else if ((rc == 0 && !member_is_pending(m)) ||
               (rc == -ERR_BUSY && looks_complete(o->data_dir))) {
        member_free(m);
        rc = errmsg_set(em, -ERR_EXISTS, "%s is a member of a cluster already", o->data_dir);
    } else if (rc == 0 && o->token == NULL) {
        rc = resume_without_token(o, m, &token, em);
        if (rc == 0) {
            *ret = m;
        } else {
            member_free(m);
        }
    } else if (rc == 0) {
        rc = resume(o, m, &token, ret, em);
    }
    if (rc == 0) {
        *ret_token = token;
    }
    explicit_bzero(&token, sizeof token);
    return rc;
}

/* --- the request --- */

int join_mark_acked(struct member *m)
{
    return member_put(m, ACKED_KEY, blob_str("1"), NULL);
}

bool join_is_acked(struct member *m)
{
    struct buf b;
    buf_init(&b, 16);
    int rc = member_get(m, ACKED_KEY, &b);
    buf_fini(&b);
    return rc == 0;
}

static int put_roles(const char *const *roles, struct buf *raw, uint32_t *count, struct errmsg *em)
{
    struct mp_writer w;
    mp_writer_init(&w, raw);
    for (; roles != NULL && *roles != NULL; roles++) {
        if (!role_is_known(blob_str(*roles))) {
            return errmsg_set(em, -ERR_ROLE_UNKNOWN, "no such role: %.64s", *roles);
        }
        mp_put_str(&w, *roles);
        (*count)++;
    }
    return *count <= ROLES_MAX ? 0 : errmsg_set(em, -ERR_TOO_LARGE, "too many roles");
}

/* The secret's place is kept with zeros: node.db never holds it. */
static const uint8_t no_secret[32];

static int build(const struct join_options *o, struct member *m, struct buf *out, struct errmsg *em)
{
    struct buf csr;
    struct buf facts;
    struct buf capabilities;
    struct buf roles;
    struct pki_key *key = NULL;
    struct enroll_request rq = {
        .token_secret = blob_of(no_secret, sizeof no_secret),
        .node_name = blob_str(m->node_name),
        .address = blob_str(m->advertise),
        .agent_version = blob_str(RAP_VERSION),
        .request_id = uuid_new(),
    };
    buf_init(&csr, CSR_DER_MAX);
    buf_init(&facts, FACTS_MAX_BYTES);
    buf_init(&capabilities, FACTS_MAX_BYTES);
    buf_init(&roles, FACTS_MAX_BYTES);
    int rc = put_roles(o->roles, &roles, &rq.requested_roles.count, em);
    if (rc == 0) {
        rc = member_key(m, &key, em);
    }
    if (rc == 0) {
        rc = pki_csr_build(key, &csr);
    }
    if (rc == 0) {
        agent_facts(&facts);
        host_report_capabilities(m->data_dir, &capabilities, &rq.capabilities.count);
        rq.csr = buf_blob(&csr);
        rq.facts = buf_blob(&facts);
        rq.capabilities.raw = buf_blob(&capabilities);
        rq.requested_roles.raw = buf_blob(&roles);
        msg_encode(&enroll_request_desc, &rq, out);
        rc = out->err;
    }
    pki_key_free(key);
    buf_fini(&roles);
    buf_fini(&capabilities);
    buf_fini(&facts);
    buf_fini(&csr);
    return rc;
}

/* A request that nobody acknowledged may still be another one than the last time. */
static bool still_fits(const struct join_options *o, struct member *m, struct blob stored)
{
    struct enroll_request rq;
    struct buf roles;
    uint32_t count = 0;
    if (msg_decode(&enroll_request_desc, MSG_LENIENT, stored, &rq) != 0) {
        return false;
    }
    if (join_is_acked(m)) {
        return true;
    }
    buf_init(&roles, FACTS_MAX_BYTES);
    bool same = put_roles(o->roles, &roles, &count, NULL) == 0 &&
                rq.requested_roles.count == count &&
                blob_equal(rq.requested_roles.raw, buf_blob(&roles)) &&
                blob_equal(rq.node_name, blob_str(m->node_name)) &&
                blob_equal(rq.address, blob_str(m->advertise));
    buf_fini(&roles);
    return same;
}

int join_request(const struct join_options *o, struct member *m, const struct join_token *token,
                 struct buf *out, struct errmsg *em)
{
    struct enroll_request rq;
    struct buf stored;
    buf_init(&stored, RPC_FRAME_MAX);
    int rc = member_get(m, REQUEST_KEY, &stored);
    if (rc != 0 || !still_fits(o, m, buf_blob(&stored))) {
        buf_clear(&stored);
        rc = build(o, m, &stored, em);
        if (rc == 0) {
            rc = member_put(m, REQUEST_KEY, buf_blob(&stored), em);
        }
    }
    if (rc == 0) {
        rc = msg_decode(&enroll_request_desc, MSG_LENIENT, buf_blob(&stored), &rq);
    }
    if (rc == 0) {
        rq.token_secret = blob_of(token->secret, sizeof token->secret);
        msg_encode(&enroll_request_desc, &rq, out);
        rc = out->err;
    }
    buf_fini(&stored);
    return rc;
}

/* --- giving up --- */

bool join_is_stranger(int rc)
{
    static const int all[] = {
        -ERR_BAD_CERT,   -ERR_BAD_SIGNATURE, -ERR_CERT_EXPIRED, -ERR_WRONG_CLUSTER,
        -ERR_WRONG_NODE, -ERR_NOT_AUTHORITY, -ERR_REVOKED,      -ERR_CRYPTO,
        -ERR_MALFORMED,  -ERR_EXPIRED,       -ERR_SCHEMA,       -ERR_SCOPE,
        -ERR_NO_SERVICE,
    };
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        if (rc == all[i]) {
            return true;
        }
    }
    return false;
}

int join_verdict(const int *last_rc, size_t count, bool acked, uint64_t waited_ms)
{
    size_t strangers = 0;
    int rc = -ERR_UNREACHABLE;
    for (size_t i = 0; i < count; i++) {
        if (join_is_stranger(last_rc[i])) {
            strangers++;
            rc = last_rc[i];
        }
    }
    return strangers == count || (!acked && waited_ms >= JOIN_GIVE_UP_MS) ? rc : 0;
}
