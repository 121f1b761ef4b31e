/* What the mutations about tokens and join requests become (ops.c). */
#include "authority/ops_impl.h"

#include "base/rng.h"
#include "base/text.h"
#include "wire/token.h"

#define DEFAULT_TTL_MS (3600LL * 1000)

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

/* --- tokens --- */

static struct set_pin pin_of(const struct witness_set *set)
{
    struct set_pin pin = {.epoch = 0};
    if (set->known) {
        pin = (struct set_pin){.epoch = set->epoch, .seq = set->seq};
        memcpy(pin.hash, set->hash, sizeof pin.hash);
    }
    return pin;
}

int op_token_create(struct prepare *p)
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
    const struct set_pin pin = pin_of(fsm_authority_set(p->a->fsm));
    if (pin.seq != 0) {
        char text[SET_PIN_TEXT_MAX];
        set_pin_format(&pin, text);
        mp_doc_str(&w, &d, "authority_set_pin", text);
    }
    if (ours) {
        struct join_token t = {.cluster_id = p->a->cfg.cluster_id, .pin = pin};
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

int op_token_revoke(struct prepare *p)
{
    struct token_revoke body;
    int rc = op_arg_id(p, "tokens", &body.token_id);
    if (rc == 0) {
        op_put_body(p, CMD_TOKEN_REVOKE, &body);
    }
    return rc;
}

/* --- joining --- */

int op_join_submit(struct prepare *p)
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

int op_join_approve(struct prepare *p)
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

int op_join_reject(struct prepare *p)
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

int op_join_expire(struct prepare *p)
{
    op_put_body(p, CMD_JOIN_EXPIRE, &(struct join_expire){.before_ms = p->now_ms});
    return 0;
}
