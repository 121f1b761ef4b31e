/* What each mutation becomes. Everything here runs on the leader, reads only applied state and the
 * call's arguments, and decides what the command must carry: times, ids, certificates. Apply checks
 * all of it again. */
#include "authority/ops_impl.h"

#include "base/clock.h"
#include "base/rng.h"
#include "base/text.h"
#include "wire/token.h"

#define DEFAULT_TTL_MS (3600LL * 1000)

struct uuid op_fresh_id(const struct prepare *p)
{
    uint8_t random[10];
    rng_bytes(random, sizeof random);
    return uuid_make(p->now_ms, random);
}

void op_put_body(struct prepare *p, enum cmd_kind kind, const void *body)
{
    p->out->kind = kind;
    msg_encode(cmd_body_desc(kind), body, &p->out->body);
}

struct blob op_arg_text(const struct prepare *p, const char *key)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(p->in->args, key));
    return mp_peek(&r) == MP_STR ? mp_get_str(&r, SIZE_MAX) : blob_of(NULL, 0);
}

/* A list of texts, as a message list. */
static struct mp_list arg_list(const struct prepare *p, const char *key)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(p->in->args, key));
    struct mp_list l = {.count = 0};
    if (mp_peek(&r) == MP_ARRAY) {
        l.count = mp_get_array(&r, 1024);
        l.raw = blob_of(r.p, (size_t)(r.end - r.p));
    }
    return l;
}

int op_arg_id(struct prepare *p, const char *kind, struct uuid *ret)
{
    char text[128];
    mp_find_str(p->in->args, "id", text, sizeof text);
    return op_resolve(p->a, kind, text, ret, p->em);
}

int op_arg_reason(struct prepare *p, struct blob *ret)
{
    *ret = op_arg_text(p, "reason");
    if (ret->len == 0) {
        return errmsg_set(p->em, -ERR_INVALID, "a reason is required: add --reason TEXT");
    }
    if (ret->len > REASON_MAX_BYTES) {
        return errmsg_set(p->em, -ERR_TOO_LARGE, "a reason has at most %d bytes", REASON_MAX_BYTES);
    }
    return 0;
}

int op_resolve(struct authority *a, const char *kind, const char *text, struct uuid *ret,
               struct errmsg *em)
{
    if (text[0] == '\0') {
        return errmsg_set(em, -ERR_INVALID, "which one? give a name, an id or a unique prefix");
    }
    struct buf doc;
    buf_init(&doc, RPC_FRAME_MAX);
    struct mp_writer w;
    mp_writer_init(&w, &doc);
    int rc = query_run(a->fsm, kind, &(struct query_args){.id = text}, &w, em);
    if (rc == 0) {
        char id[UUID_TEXT_MAX];
        mp_find_str(buf_blob(&doc), "id", id, sizeof id);
        if (id[0] == '\0') {
            mp_find_str(buf_blob(&doc), "node_id", id, sizeof id);
        }
        rc = uuid_parse(id, ret);
    }
    buf_fini(&doc);
    return rc;
}

void op_load_addresses(struct authority *a)
{
    struct buf *out = &a->voter_addresses;
    struct db_stmt *st = db_prepare(state_db(a), "SELECT address FROM cluster_authorities"
                                                 " WHERE status = 'voter' ORDER BY node_id");
    buf_clear(out);
    while (db_step(st) == 1) {
        buf_addf(out, "%s%s", out->len == 0 ? "" : ",", db_col_text(st, "address"));
    }
    db_done(st);
}

/* --- tokens --- */

static int prepare_token_create(struct prepare *p)
{
    int64_t ttl_ms = mp_find_int(p->in->args, "ttl_ms");
    int64_t uses = mp_find_int(p->in->args, "uses");
    ttl_ms = ttl_ms == 0 ? DEFAULT_TTL_MS : ttl_ms;
    uses = uses == 0 ? 1 : uses;
    if (ttl_ms < 1000 || ttl_ms > TOKEN_TTL_MAX_MS) {
        return errmsg_set(p->em, -ERR_INVALID, "a token lives between 1s and 30d");
    }
    if (uses < 1 || uses > TOKEN_USES_MAX) {
        return errmsg_set(p->em, -ERR_INVALID, "a token has between 1 and %d uses", TOKEN_USES_MAX);
    }
    struct mp_list roles = arg_list(p, "roles");
    struct mp_reader r;
    mp_reader_init(&r, roles.raw);
    if (roles.count > ROLES_MAX) {
        return errmsg_set(p->em, -ERR_TOO_LARGE, "at most %d roles", ROLES_MAX);
    }
    for (uint32_t i = 0; i < roles.count; i++) {
        if (!role_is_known(mp_get_str(&r, ROLE_MAX_BYTES))) {
            return errmsg_set(p->em, -ERR_ROLE_UNKNOWN, "unknown role among the token's roles");
        }
    }
    struct blob name = op_arg_text(p, "name");
    if (name.len > 0 && !text_is_name((const char *)name.data, name.len)) {
        return errmsg_set(p->em, -ERR_BAD_NAME,
                          "a node name is 1-63 of a-z, 0-9 and -, no - at either end");
    }

    uint8_t secret[32];
    uint8_t hash[PKI_HASH_BYTES];
    char hash_hex[2 * PKI_HASH_BYTES + 1];
    mp_find_str(p->in->args, "secret_hash", hash_hex, sizeof hash_hex);
    bool ours = hash_hex[0] == '\0';
    if (ours) {
        rng_bytes(secret, sizeof secret);
        pki_sha256(blob_of(secret, sizeof secret), hash);
    } else if (hex_decode(hash_hex, hash, sizeof hash) != 0) {
        return errmsg_set(p->em, -ERR_INVALID, "secret_hash is not a SHA-256 in hex");
    }
    struct token_create body = {
        .token_id = op_fresh_id(p),
        .token_hash = blob_of(hash, sizeof hash),
        .expires_at_ms = p->now_ms + ttl_ms,
        .max_uses = (uint64_t)uses,
        .scope_roles = roles,
        .scope_name = name,
    };
    op_put_body(p, CMD_TOKEN_CREATE, &body);

    /* What a caller needs to write the token down; the secret only when we made it, and then it is
     * in this one answer and nowhere else. */
    struct mp_writer w;
    struct mp_doc d;
    mp_writer_init(&w, &p->out->extra);
    mp_doc_begin(&w, &d);
    mp_doc_uuid(&w, &d, "cluster_id", &p->a->cfg.cluster_id);
    const char *addresses = buf_cstr(&p->a->voter_addresses);
    mp_doc_hex(&w, &d, "root_fingerprint", blob_of(p->a->root_fingerprint, PKI_HASH_BYTES));
    mp_doc_str(&w, &d, "addresses", addresses);
    if (ours) {
        struct join_token t = {.cluster_id = p->a->cfg.cluster_id};
        struct buf text;
        buf_init(&text, TOKEN_TEXT_MAX);
        memcpy(t.root_fingerprint, p->a->root_fingerprint, sizeof t.root_fingerprint);
        memcpy(t.secret, secret, sizeof t.secret);
        (void)snprintf(t.addresses, sizeof t.addresses, "%s", addresses);
        token_format(&t, &text);
        mp_doc_str(&w, &d, "token", buf_cstr(&text));
        buf_wipe(&text);
        pki_wipe(&t, sizeof t);
        pki_wipe(secret, sizeof secret);
    }
    mp_doc_end(&w, &d);
    return 0;
}

static int prepare_token_revoke(struct prepare *p)
{
    struct token_revoke body;
    int rc = op_arg_id(p, "tokens", &body.token_id);
    if (rc == 0) {
        op_put_body(p, CMD_TOKEN_REVOKE, &body);
    }
    return rc;
}

/* --- joining --- */

static int prepare_join_submit(struct prepare *p)
{
    /* args is the encoded join_submit of the authority that took the request (enroll.c); only the
     * id and the time limit are decided here. */
    struct join_submit body;
    int rc = msg_decode(&join_submit_desc, MSG_STRICT, p->in->args, &body);
    if (rc != 0) {
        return rc;
    }
    body.join_id = op_fresh_id(p);
    body.expires_at_ms = p->now_ms + JOIN_PENDING_MAX_MS;
    rc = fsm_check_join(p->a->fsm, &body, p->now_ms, p->em);
    if (rc == 0) {
        op_put_body(p, CMD_JOIN_SUBMIT, &body);
    }
    return rc;
}

/* The key of a join request: what the approver saw must be what gets the certificate (S7). */
static int request_key(struct prepare *p, const struct uuid *join_id, const char *fingerprint,
                       uint8_t ret_key[PKI_KEY_BYTES])
{
    char id[UUID_TEXT_MAX];
    uuid_format(join_id, id);
    struct db_stmt *st = db_prepare(
        state_db(p->a), "SELECT status, node_fingerprint, public_key FROM node_join_requests"
                        " WHERE id = ?");
    db_bind_text(st, id);
    int rc = 0;
    if (db_step(st) != 1) {
        rc = errmsg_set(p->em, -ERR_NOT_FOUND, "no join request %s", id);
    } else if (strcmp(db_col_text(st, "status"), "pending") != 0) {
        rc = errmsg_set(p->em, -ERR_DECIDED, "join request %s is %s", id,
                        db_col_text(st, "status"));
    } else if (strcmp(db_col_text(st, "node_fingerprint"), fingerprint) != 0) {
        rc = errmsg_set(p->em, -ERR_FINGERPRINT,
                        "the request's key is %s: compare it with what the host printed",
                        db_col_text(st, "node_fingerprint"));
    } else {
        struct blob key = db_col_blob(st, "public_key");
        if (key.len == PKI_KEY_BYTES) {
            memcpy(ret_key, key.data, PKI_KEY_BYTES);
        } else {
            rc = -ERR_CORRUPT;
        }
    }
    db_done(st);
    return rc;
}

static int prepare_join_approve(struct prepare *p)
{
    char fingerprint[2 * PKI_HASH_BYTES + 1];
    struct join_approve body = {.node_id = op_fresh_id(p)};
    uint8_t key[PKI_KEY_BYTES];
    mp_find_str(p->in->args, "fingerprint", fingerprint, sizeof fingerprint);
    int rc = op_arg_id(p, "requests", &body.join_id);
    if (rc == 0) {
        rc = request_key(p, &body.join_id, fingerprint, key);
    }
    if (rc != 0) {
        return rc;
    }
    struct buf cert;
    buf_init(&cert, CMD_CERT_MAX);
    rc = issue_leaf(p->a, &body.node_id, key, &cert, p->em);
    if (rc == 0) {
        body.cert = buf_blob(&cert);
        op_put_body(p, CMD_JOIN_APPROVE, &body);
    }
    buf_fini(&cert);
    return rc;
}

static int prepare_join_reject(struct prepare *p)
{
    struct join_reject body;
    int rc = op_arg_reason(p, &body.reason);
    if (rc == 0) {
        rc = op_arg_id(p, "requests", &body.join_id);
    }
    if (rc == 0) {
        op_put_body(p, CMD_JOIN_REJECT, &body);
    }
    return rc;
}

static int prepare_join_expire(struct prepare *p)
{
    op_put_body(p, CMD_JOIN_EXPIRE, &(struct join_expire){.before_ms = p->now_ms});
    return 0;
}

/* --- nodes --- */

static int prepare_node_rename(struct prepare *p)
{
    struct node_rename body = {.name = op_arg_text(p, "name")};
    if (!text_is_name((const char *)body.name.data, body.name.len)) {
        return errmsg_set(p->em, -ERR_BAD_NAME,
                          "a node name is 1-63 of a-z, 0-9 and -, no - at either end");
    }
    int rc = op_arg_id(p, "nodes", &body.node_id);
    if (rc == 0) {
        op_put_body(p, CMD_NODE_RENAME, &body);
    }
    return rc;
}

static int prepare_node_revoke(struct prepare *p)
{
    struct node_revoke body;
    int rc = op_arg_reason(p, &body.reason);
    if (rc == 0) {
        rc = op_arg_id(p, "nodes", &body.node_id);
    }
    if (rc == 0) {
        op_put_body(p, CMD_NODE_REVOKE, &body);
    }
    return rc;
}

static int prepare_node_remove(struct prepare *p)
{
    struct node_remove body;
    int rc = op_arg_id(p, "nodes", &body.node_id);
    if (rc == 0) {
        op_put_body(p, CMD_NODE_REMOVE, &body);
    }
    return rc;
}

static int prepare_node_renew(struct prepare *p)
{
    struct renew_request rq;
    uint8_t key[PKI_KEY_BYTES];
    int rc = msg_decode(&renew_request_desc, MSG_LENIENT, p->in->args, &rq);
    if (rc == 0) {
        rc = pki_csr_parse(rq.csr, key, p->em);
    }
    if (rc != 0) {
        return rc;
    }
    struct buf cert;
    buf_init(&cert, CMD_CERT_MAX);
    rc = issue_leaf(p->a, &rq.node_id, key, &cert, p->em);
    if (rc == 0) {
        struct cert_renew body = {.node_id = rq.node_id, .cert = buf_blob(&cert)};
        op_put_body(p, CMD_CERT_RENEW, &body);
    }
    buf_fini(&cert);
    return rc;
}

/* --- roles --- */

static int role_args(struct prepare *p, struct uuid *ret_node, struct blob *ret_role,
                     struct blob *ret_org)
{
    *ret_role = op_arg_text(p, "role");
    *ret_org = op_arg_text(p, "organization_id");
    if (!role_is_known(*ret_role)) {
        return errmsg_set(p->em, -ERR_ROLE_UNKNOWN,
                          "no role \"%.*s\"; roles are listed in "
                          "`rap role assign --help`",
                          (int)ret_role->len, (const char *)ret_role->data);
    }
    return op_arg_id(p, "nodes", ret_node);
}

static int prepare_role_assign(struct prepare *p)
{
    struct role_assign body = {.assignment_id = op_fresh_id(p)};
    int rc = role_args(p, &body.node_id, &body.role, &body.organization_id);
    if (rc == 0) {
        op_put_body(p, CMD_ROLE_ASSIGN, &body);
    }
    return rc;
}

static int prepare_role_unassign(struct prepare *p)
{
    struct role_unassign body;
    int rc = role_args(p, &body.node_id, &body.role, &body.organization_id);
    if (rc == 0) {
        op_put_body(p, CMD_ROLE_UNASSIGN, &body);
    }
    return rc;
}

/* --- authorities --- */

static int prepare_authority_remove(struct prepare *p)
{
    struct authority_remove body = {.reason = op_arg_text(p, "reason")};
    int rc = op_arg_id(p, "authorities", &body.node_id);
    if (rc == 0) {
        op_put_body(p, CMD_AUTHORITY_REMOVE, &body);
    }
    return rc;
}

/* --- recovery --- */

static int prepare_partition_merge(struct prepare *p)
{
    char hex[2 * PKI_SIG_BYTES + 1];
    uint8_t signature[PKI_SIG_BYTES];
    struct partition_merge body = {
        .epoch = (uint64_t)mp_find_int(p->in->args, "epoch"),
        .rows = (uint64_t)mp_find_int(p->in->args, "rows"),
        .signature = blob_of(signature, sizeof signature),
    };
    mp_find_str(p->in->args, "signature", hex, sizeof hex);
    if (hex_decode(hex, signature, sizeof signature) != 0) {
        return errmsg_set(p->em, -ERR_INVALID, "signature is not an Ed25519 signature in hex");
    }
    int rc = op_arg_id(p, "authorities", &body.node_id);
    if (rc == 0) {
        op_put_body(p, CMD_PARTITION_MERGE, &body);
    }
    return rc;
}

/* --- what certificates stand on --- */

static int prepare_trust_policy(struct prepare *p)
{
    const struct cert_policy body = {.leaf_life_ms = mp_find_int(p->in->args, "leaf_life_ms")};
    if (body.leaf_life_ms < LEAF_LIFE_MIN_MS || body.leaf_life_ms > LEAF_LIFE_MAX_MS) {
        return errmsg_set(p->em, -ERR_INVALID, "a node certificate lives between 1m and 90d");
    }
    op_put_body(p, CMD_CERT_POLICY, &body);
    return 0;
}

static const struct {
    const char *method;
    bool public; /* a person may ask for it; the rest come from nodes and the leader itself */
    int (*prepare)(struct prepare *p); /* NULL: the arguments are the encoded body */
    enum cmd_kind kind;                /* what it becomes */
    unsigned level;                    /* schema level it needs; 0: there from the first */
} ops[] = {
    {"token.create", true, prepare_token_create, CMD_TOKEN_CREATE, 0},
    {"token.revoke", true, prepare_token_revoke, CMD_TOKEN_REVOKE, 0},
    {"request.approve", true, prepare_join_approve, CMD_JOIN_APPROVE, 0},
    {"request.reject", true, prepare_join_reject, CMD_JOIN_REJECT, 0},
    {"node.rename", true, prepare_node_rename, CMD_NODE_RENAME, 0},
    {"node.revoke", true, prepare_node_revoke, CMD_NODE_REVOKE, 0},
    {"node.remove", true, prepare_node_remove, CMD_NODE_REMOVE, 0},
    {"role.assign", true, prepare_role_assign, CMD_ROLE_ASSIGN, 0},
    {"role.unassign", true, prepare_role_unassign, CMD_ROLE_UNASSIGN, 0},
    {"authority.remove", true, prepare_authority_remove, CMD_AUTHORITY_REMOVE, 0},
    {"mirror.enable", true, prepare_mirror_enable, CMD_MIRROR_SET, LEVEL_MIRROR},
    {"mirror.disable", true, prepare_mirror_disable, CMD_MIRROR_SET, LEVEL_MIRROR},
    {"mirror.rebuild", true, prepare_mirror_rebuild, CMD_MIRROR_REBUILD, LEVEL_MIRROR},
    {"mirror.event", false, prepare_mirror_event, CMD_MIRROR_EVENT, LEVEL_MIRROR},
    {"join.submit", false, prepare_join_submit, CMD_JOIN_SUBMIT, 0},
    {"refusal.noted", false, NULL, CMD_REFUSAL_NOTED, LEVEL_WITNESS},
    {"join.expire", false, prepare_join_expire, CMD_JOIN_EXPIRE, 0},
    {"node.renew", false, prepare_node_renew, CMD_CERT_RENEW, 0},
    {"node.health", false, NULL, CMD_NODE_HEALTH, 0},
    {"authority.renewed", false, NULL, CMD_CERT_RENEW, 0},
    {"authority.commit", false, NULL, CMD_AUTHORITY_ADD, 0},
    {"authority.status", false, NULL, CMD_AUTHORITY_STATUS, 0},
    {"authority.fenced", false, NULL, CMD_AUTHORITY_FENCED, LEVEL_RECOVERY},
    {"divergence.report", false, NULL, CMD_DIVERGENCE_REPORTED, LEVEL_RECOVERY},
    {"partition.seen", false, NULL, CMD_PARTITION_SEEN, LEVEL_RECOVERY},
    {"partition.merge", true, prepare_partition_merge, CMD_PARTITION_MERGE, LEVEL_RECOVERY},
    {"authority.set_next", false, NULL, CMD_AUTHORITY_SET_NEXT, LEVEL_WITNESS},
    {"node.forgery", false, NULL, CMD_FORGERY_REPORTED, LEVEL_WITNESS},
    {"trust.policy", true, prepare_trust_policy, CMD_CERT_POLICY, LEVEL_MODEL},
    {"certificate.alarm", false, NULL, CMD_CERT_ALARM, LEVEL_MODEL},
    {"node.disable", true, op_node_disable, CMD_MEMBERSHIP_SET, LEVEL_MEMBERS},
    {"node.enable", true, op_node_enable, CMD_MEMBERSHIP_SET, LEVEL_MEMBERS},
    {"node.update", true, op_node_update, CMD_NODE_UPDATE, LEVEL_MEMBERS},
    {"node.group", true, op_node_group, CMD_GROUP_ASSIGN, LEVEL_MEMBERS},
    {"node.verify", true, op_node_verify, CMD_CAPABILITY_VERIFY, LEVEL_MEMBERS},
    {"capability.policy", true, op_capability_policy, CMD_CAPABILITY_POLICY, LEVEL_MEMBERS},
    {"cluster.update", true, op_cluster_update, CMD_CLUSTER_UPDATE, LEVEL_MEMBERS},
    {"role.require", true, op_role_require, CMD_ROLE_REQUIRE, LEVEL_MEMBERS},
    {"group.create", true, op_group_create, CMD_GROUP_CREATE, LEVEL_MEMBERS},
    {"group.move", true, op_group_move, CMD_GROUP_MOVE, LEVEL_MEMBERS},
    {"group.delete", true, op_group_delete, CMD_GROUP_DELETE, LEVEL_MEMBERS},
    {"heartbeat.log", false, NULL, CMD_HEARTBEAT_LOG, LEVEL_MEMBERS},
};

/* An encoded body from a node, an authority or the leader itself, who decided all of it. */
static int pass_on(struct prepare *p, uint64_t kind)
{
    union {
#define MEMBER_(NAME, num, name, ...) struct name name;
        CMD_KINDS(MEMBER_)
#undef MEMBER_
    } body;
    int rc = msg_decode(cmd_body_desc(kind), MSG_STRICT, p->in->args, &body);
    if (rc == 0) {
        op_put_body(p, (enum cmd_kind)kind, &body);
    }
    return rc;
}

static int find(const char *method)
{
    for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
        if (strcmp(ops[i].method, method) == 0) {
            return (int)i;
        }
    }
    return -1;
}

bool op_is_mutation(const char *method)
{
    return find(method) >= 0;
}

uint64_t op_kind(const char *method)
{
    int i = find(method);
    if (i < 0) {
        /* Asks the node first, then commits (authority_ops.c). */
        return strcmp(method, "authority.add") == 0 ? CMD_AUTHORITY_ADD : trust_op_kind(method);
    }
    return ops[i].kind;
}

int op_prepare(struct authority *a, const struct op_input *in, struct op_prepared *ret,
               struct errmsg *em)
{
    int i = find(in->method);
    if (i < 0) {
        return errmsg_set(em, -ERR_NOT_FOUND, "no method %s", in->method);
    }
    /* Only nodes, by the services they may use, reach the rest; never a person's call. */
    if (!ops[i].public && strcmp(in->actor_kind, ACTOR_ADMIN) == 0) {
        return errmsg_set(em, -ERR_DENIED, "%s is not for callers", in->method);
    }
    if (ops[i].level > fsm_level(a->fsm)) {
        return errmsg_set(em, -ERR_UNSUPPORTED, FSM_LEVEL_TEXT, fsm_level(a->fsm), in->method,
                          ops[i].level);
    }
    struct fsm_position pos;
    fsm_position(a->fsm, &pos);
    int64_t now_ms = authority_now_ms(a);
    struct prepare p = {
        .a = a,
        .in = in,
        .now_ms = now_ms > pos.time_ms ? now_ms : pos.time_ms,
        .out = ret,
        .em = em,
    };
    int rc = ops[i].prepare != NULL ? ops[i].prepare(&p) : pass_on(&p, ops[i].kind);
    return rc != 0 ? rc : ret->body.err != 0 ? ret->body.err : mirror_allows(&p);
}
