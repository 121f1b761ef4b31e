/* Join requests (DESIGN section 5). Every check is made here again, against the entry's own stamp:
 * what the leader saw when it proposed may be over by now.
 *
 *     (none) --join_submit--> pending --join_approve--> approved      + node, identity, membership
 *                                |-----join_reject----> rejected
 *                                '-----join_expire----> expired        never pending again */
#include "authority/fsm_impl.h"

struct token {
    char id[UUID_TEXT_MAX];
    int64_t expires_at;
    int64_t max_uses, used_count;
    bool revoked;
    char scope_roles[JSON_LIST_MAX]; /* "" any */
    char scope_name[NAME_MAX_BYTES + 1];
};

static int token_by_hash(struct fsm_ctx *x, struct blob hash, struct token *ret)
{
    char hex[HEX32];
    struct db_stmt *st = db_prepare(x->db,
                                    "SELECT id, expires_at, max_uses, used_count, revoked_at,"
                                    " json_extract(scope, '$.roles') AS scope_roles,"
                                    " json_extract(scope, '$.name') AS scope_name"
                                    " FROM node_join_tokens WHERE token_hash = ?");
    db_bind_text(st, fsm_hex(hash, hex));
    int rc = db_step(st);
    if (rc == 1) {
        *ret = (struct token){
            .expires_at = db_col_int(st, "expires_at"),
            .max_uses = db_col_int(st, "max_uses"),
            .used_count = db_col_int(st, "used_count"),
            .revoked = !db_col_is_null(st, "revoked_at"),
        };
        (void)snprintf(ret->id, sizeof ret->id, "%s", db_col_text(st, "id"));
        (void)snprintf(ret->scope_roles, sizeof ret->scope_roles, "%s",
                       db_col_text(st, "scope_roles"));
        (void)snprintf(ret->scope_name, sizeof ret->scope_name, "%s",
                       db_col_text(st, "scope_name"));
    }
    db_done(st);
    if (rc == 0) {
        return fsm_refuse(x, -ERR_TOKEN_UNKNOWN,
                          "this cluster gave out no such token: ask its admin for a new one");
    }
    return rc < 0 ? rc : 0;
}

/* TOK-03: validity, then scope. */
static int token_allows(struct fsm_ctx *x, const struct token *t, const struct join_submit *b)
{
    if (t->revoked && !PLANTED("revoked_token_used")) {
        return fsm_refuse(x, -ERR_TOKEN_REVOKED, "the token was revoked: ask for a new one");
    }
    if (t->expires_at <= x->now_ms && !PLANTED("expired_token_used")) {
        return fsm_refuse(x, -ERR_TOKEN_EXPIRED, "the token has expired: ask for a new one");
    }
    if (t->used_count >= t->max_uses && !PLANTED("token_overused")) {
        return fsm_refuse(x, -ERR_TOKEN_USED,
                          "all %lld uses of the token are taken: ask for a "
                          "new one",
                          (long long)t->max_uses);
    }
    if (t->scope_name[0] != '\0' && !blob_equal(b->node_name, blob_str(t->scope_name))) {
        return fsm_refuse(x, -ERR_TOKEN_SCOPE, "the token is for a node named %s", t->scope_name);
    }
    struct mp_reader r;
    mp_reader_init(&r, b->requested_roles.raw);
    for (uint32_t i = 0; t->scope_roles[0] != '\0' && i < b->requested_roles.count; i++) {
        struct blob role = mp_get_str(&r, SIZE_MAX);
        if (!fsm_words_have(t->scope_roles, role)) {
            return fsm_refuse(x, -ERR_TOKEN_SCOPE, "the token does not allow asking for role %.*s",
                              (int)role.len, (const char *)role.data);
        }
    }
    return 0;
}

static int key_is_new(struct fsm_ctx *x, const char *fingerprint)
{
    struct db_stmt *st = db_prepare(x->db, "SELECT name FROM nodes WHERE fingerprint = ?");
    db_bind_text(st, fingerprint);
    int rc = fsm_exists(st);
    if (rc == 1) {
        return fsm_refuse(x, -ERR_KEY_KNOWN,
                          "this key belongs to an enrolled node: a host joins a cluster once");
    }
    return rc;
}

static int key_not_banned(struct fsm_ctx *x, const char *fingerprint)
{
    int rc = fsm_is_banned(x, fingerprint);
    if (rc == 1 && PLANTED("banned_key_joins")) {
        return 0;
    }
    if (rc == 1) {
        return fsm_refuse(x, -ERR_KEY_REVOKED,
                          "this key was revoked and stays revoked: make a new "
                          "one by joining from an empty data directory");
    }
    return rc;
}

/* A pending request of the same key. Through the same token it is the same request, asked for
 * again; through another it is refused. 1: *ret_id is the request. */
static int pending_of_key(struct fsm_ctx *x, const char *fingerprint, const struct token *t,
                          char ret_id[UUID_TEXT_MAX])
{
    struct db_stmt *st = db_prepare(
        x->db, "SELECT id, join_token_id FROM node_join_requests WHERE node_fingerprint = ?"
               " AND status = 'pending'");
    db_bind_text(st, fingerprint);
    int rc = db_step(st);
    bool same = rc == 1 && strcmp(db_col_text(st, "join_token_id"), t->id) == 0;
    if (rc == 1) {
        (void)snprintf(ret_id, UUID_TEXT_MAX, "%s", db_col_text(st, "id"));
    }
    db_done(st);
    if (rc == 1 && !same) {
        return fsm_refuse(x, -ERR_EXISTS,
                          "a request with this key is waiting already, under another token: %s",
                          ret_id);
    }
    return rc;
}

/* What checking a submission found out. */
struct submission {
    struct token token;
    char fingerprint[HEX32];
    char capabilities[JSON_LIST_MAX];
    char roles[JSON_LIST_MAX];
};

static int submit_insert(struct fsm_ctx *x, const struct join_submit *b, const char *id,
                         const struct submission *s)
{
    int64_t last = x->now_ms + JOIN_PENDING_MAX_MS;
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO node_join_requests (id, cluster_id, node_name, node_fingerprint,"
               " public_key, reported_capabilities, reported_facts, requested_roles, status,"
               " source_address, address, join_token_id, created_at, expires_at)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?)");
    db_bind_text(st, id);
    db_bind_text(st, x->cluster_id);
    db_bind_textn(st, (const char *)b->node_name.data, b->node_name.len);
    db_bind_text(st, s->fingerprint);
    db_bind_blob(st, b->public_key);
    db_bind_text(st, s->capabilities);
    db_bind_opt(st, b->facts);
    db_bind_text(st, s->roles);
    db_bind_opt(st, b->source_address);
    db_bind_opt(st, b->address);
    db_bind_text(st, s->token.id);
    db_bind_int(st, x->now_ms);
    db_bind_int(st, b->expires_at_ms < last ? b->expires_at_ms : last);
    int rc = db_run(st);
    if (rc != 0) {
        return rc;
    }
    st = db_prepare(x->db, "UPDATE node_join_tokens SET used_count = used_count + 1 WHERE id = ?"
                           " AND used_count < max_uses");
    db_bind_text(st, s->token.id);
    return db_run(st);
}

static int audit_submitted(struct fsm_ctx *x, const struct join_submit *b, const char *id,
                           const struct submission *s)
{
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_str(&j, "node_name", b->node_name);
    fsm_json_text(&j, "node_fingerprint", s->fingerprint);
    fsm_json_text(&j, "join_token_id", s->token.id);
    fsm_json_str(&j, "source_address", b->source_address);
    const struct fsm_audit a = {
        .event = "join_submitted", .subject_type = "join_request", .subject_id = id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

static int submit_checks(struct fsm_ctx *x, const struct join_submit *b, const struct token *t,
                         const char *fingerprint)
{
    int rc = token_allows(x, t, b);
    if (rc == 0) {
        rc = key_is_new(x, fingerprint);
    }
    if (rc == 0) {
        rc = fsm_name_free(x, b->node_name, NULL, NULL);
    }
    if (rc != 0) {
        return rc;
    }
    if (b->expires_at_ms <= x->now_ms) {
        return fsm_refuse(x, -ERR_EXPIRED,
                          "the request was over before it was recorded: try again");
    }
    if (x->v->pending_requests >= JOIN_PENDING_MAX) {
        return fsm_refuse(x, -ERR_BUSY, "%d join requests are waiting: decide some, or try later",
                          JOIN_PENDING_MAX);
    }
    return 0;
}

/* Everything that can be wrong. 1: the same request is waiting already, ret_id is its. */
static int join_checks(struct fsm_ctx *x, const struct join_submit *b, struct submission *ret,
                       char ret_id[UUID_TEXT_MAX])
{
    uint8_t own[PKI_HASH_BYTES];
    pki_fingerprint(b->public_key.data, own);
    if (!blob_equal(b->fingerprint, blob_of(own, sizeof own))) {
        return fsm_refuse(x, -ERR_FINGERPRINT, "the fingerprint is not that of the key");
    }
    (void)fsm_hex(b->fingerprint, ret->fingerprint);
    int rc = token_by_hash(x, b->token_hash, &ret->token);
    if (rc == 0) {
        rc = key_not_banned(x, ret->fingerprint);
    }
    if (rc == 0) {
        rc = pending_of_key(x, ret->fingerprint, &ret->token, ret_id);
    }
    if (rc == 0) {
        rc = submit_checks(x, b, &ret->token, ret->fingerprint);
    }
    if (rc == 0) {
        rc = fsm_words(x, &b->capabilities, FSM_CAPABILITIES, ret->capabilities);
    }
    return rc != 0 ? rc : fsm_words(x, &b->requested_roles, FSM_ROLES, ret->roles);
}

int fsm_check_join(struct fsm *f, const struct join_submit *b, int64_t now_ms, struct errmsg *em)
{
    struct fsm_ctx x = {.f = f,
                        .db = f->db,
                        .v = &f->vars,
                        .now_ms = now_ms > f->vars.time_ms ? now_ms : f->vars.time_ms};
    struct submission s;
    char id[UUID_TEXT_MAX];
    int rc = join_checks(&x, b, &s, id);
    return rc < 0 ? errmsg_set(em, rc, "%s", x.refused ? x.detail : err_text(rc)) : 0;
}

int fsm_join_submit(struct fsm_ctx *x, const struct join_submit *b)
{
    char id[UUID_TEXT_MAX];
    struct submission s;
    int rc = join_checks(x, b, &s, id);
    if (rc == 1) {
        return fsm_doc_put(x, FSM_SQL_REQUEST " WHERE r.id = ?", id);
    }
    (void)fsm_id(&b->join_id, id);
    if (rc == 0) {
        rc = submit_insert(x, b, id, &s);
    }
    if (rc == 0) {
        x->v->pending_requests++;
        rc = audit_submitted(x, b, id, &s);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_REQUEST " WHERE r.id = ?", id);
}

/* --- decisions --- */

struct request {
    char id[UUID_TEXT_MAX];
    char name[NAME_MAX_BYTES + 1];
    char fingerprint[HEX32];
    char address[ADDRESS_MAX_BYTES + 1];
    char *facts;             /* owned */
    struct buf capabilities; /* msgpack strings */
    uint32_t capabilities_count;
    uint8_t public_key[PKI_KEY_BYTES];
};

static void request_fini(struct request *q)
{
    free(q->facts);
    buf_fini(&q->capabilities);
}

static void words_to_list(const char *json, struct request *q)
{
    struct mp_writer w;
    mp_writer_init(&w, &q->capabilities);
    const char *p = json;
    while ((p = strchr(p, '"')) != NULL) {
        const char *end = strchr(p + 1, '"');
        if (end == NULL) {
            break;
        }
        mp_put_strn(&w, p + 1, (size_t)(end - p - 1));
        q->capabilities_count++;
        p = end + 1;
    }
}

/* Refused: -ERR_NOT_FOUND, -ERR_DECIDED, -ERR_EXPIRED. */
static int request_pending(struct fsm_ctx *x, const struct uuid *id, struct request *ret)
{
    char text[UUID_TEXT_MAX];
    char status[16] = "";
    bool over = false;
    struct db_stmt *st = db_prepare(
        x->db, "SELECT status, node_name, node_fingerprint, address, reported_facts,"
               " reported_capabilities, public_key, expires_at FROM node_join_requests"
               " WHERE id = ?");
    db_bind_text(st, fsm_id(id, text));
    int rc = db_step(st);
    if (rc == 1) {
        (void)snprintf(status, sizeof status, "%s", db_col_text(st, "status"));
        over = db_col_int(st, "expires_at") <= x->now_ms;
        (void)snprintf(ret->id, sizeof ret->id, "%s", text);
        (void)snprintf(ret->name, sizeof ret->name, "%s", db_col_text(st, "node_name"));
        (void)snprintf(ret->fingerprint, sizeof ret->fingerprint, "%s",
                       db_col_text(st, "node_fingerprint"));
        (void)snprintf(ret->address, sizeof ret->address, "%s", db_col_text(st, "address"));
        ret->facts = xstrdup(db_col_text(st, "reported_facts"));
        words_to_list(db_col_text(st, "reported_capabilities"), ret);
        struct blob key = db_col_blob(st, "public_key");
        if (key.len == sizeof ret->public_key) {
            memcpy(ret->public_key, key.data, sizeof ret->public_key);
        }
    }
    db_done(st);
    if (rc == 0) {
        return fsm_refuse(x, -ERR_NOT_FOUND, "there is no join request %s: see `rap request list`",
                          text);
    }
    if (rc < 0) {
        return rc;
    }
    if (strcmp(status, "pending") != 0 && !PLANTED("decided_twice")) {
        return fsm_refuse(x, -ERR_DECIDED, "join request %s is %s already", text, status);
    }
    if (over) {
        return fsm_refuse(x, -ERR_EXPIRED, "join request %s has expired: the host must join again",
                          text);
    }
    return 0;
}

static int decide(struct fsm_ctx *x, const char *id, const char *status, const char *node_id,
                  struct blob reason)
{
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE node_join_requests SET status = ?, reviewed_at = ?,"
               " reviewed_by_user_id = ?, approved_node_id = ?, rejection_reason = ?"
               " WHERE id = ?");
    db_bind_text(st, status);
    db_bind_int(st, x->now_ms);
    db_bind_opt(st, x->actor_id);
    db_bind_text(st, node_id);
    db_bind_opt(st, reason);
    db_bind_text(st, id);
    int rc = db_run(st);
    if (rc == 0 && x->v->pending_requests > 0) {
        x->v->pending_requests--;
    }
    return rc;
}

static int admit(struct fsm_ctx *x, const struct request *q, const char *node_id,
                 const struct cmd_cert *cert)
{
    int rc = fsm_node_insert(x, &(struct fsm_new_node){
                                    .id = node_id,
                                    .name = blob_str(q->name),
                                    .fingerprint = cert->fingerprint,
                                    .address = blob_str(q->address),
                                    .facts = blob_str(q->facts),
                                });
    if (rc == 0) {
        rc = fsm_identity_insert(x, node_id, cert);
    }
    bool changed;
    const struct mp_list capabilities = {.raw = buf_blob(&q->capabilities),
                                         .count = q->capabilities_count};
    if (rc == 0) {
        rc = fsm_capabilities_set(x, node_id, &capabilities, &changed);
    }
    if (rc == 0) {
        rc = fsm_audit_simple(x, "join_approved", "join_request", q->id, "node_id",
                              blob_str(node_id));
    }
    if (rc == 0) {
        rc = fsm_audit_cert(x, "certificate_issued", node_id, cert);
    }
    if (rc == 0) {
        rc = fsm_node_config(x, node_id);
    }
    return rc;
}

static int approve_checks(struct fsm_ctx *x, const struct request *q, const struct cmd_cert *cert)
{
    if (!blob_equal(cert->public_key, blob_of(q->public_key, sizeof q->public_key)) &&
        !PLANTED("key_not_compared")) {
        return fsm_refuse(x, -ERR_FINGERPRINT,
                          "the certificate is for another key than the request %s", q->id);
    }
    int rc = key_not_banned(x, q->fingerprint);
    if (rc == 0) {
        rc = key_is_new(x, q->fingerprint);
    }
    if (rc == 0) {
        rc = fsm_name_free(x, blob_str(q->name), NULL, q->id);
    }
    return rc != 0 ? rc : fsm_cert_issuer_known(x, cert);
}

static int put_approved(struct fsm_ctx *x, const char *node_id, const char *join_id)
{
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_str(&x->doc, &d, "id", join_id);
    mp_doc_str(&x->doc, &d, "status", "approved");
    mp_doc_str(&x->doc, &d, "approved_node_id", node_id);
    mp_doc_key(&x->doc, &d, "node");
    int rc = fsm_doc_put(x, FSM_SQL_NODE " WHERE n.id = ?", node_id);
    mp_doc_end(&x->doc, &d);
    return rc;
}

int fsm_join_approve(struct fsm_ctx *x, const struct join_approve *b)
{
    char node_id[UUID_TEXT_MAX];
    struct request q = {0};
    struct cmd_cert cert;
    buf_init(&q.capabilities, JSON_LIST_MAX);
    (void)fsm_id(&b->node_id, node_id);
    int rc = request_pending(x, &b->join_id, &q);
    if (rc == 0) {
        rc = fsm_cert_decode(x, b->cert, &cert);
    }
    if (rc == 0) {
        rc = approve_checks(x, &q, &cert);
    }
    if (rc == 0) {
        rc = decide(x, q.id, "approved", node_id, blob_of(NULL, 0));
    }
    if (rc == 0) {
        rc = admit(x, &q, node_id, &cert);
    }
    if (rc == 0) {
        rc = put_approved(x, node_id, q.id);
    }
    request_fini(&q);
    return rc;
}

int fsm_join_reject(struct fsm_ctx *x, const struct join_reject *b)
{
    struct request q = {0};
    buf_init(&q.capabilities, JSON_LIST_MAX);
    int rc = request_pending(x, &b->join_id, &q);
    if (rc == 0) {
        rc = decide(x, q.id, "rejected", NULL, b->reason);
    }
    if (rc == 0) {
        rc = fsm_audit_simple(x, "join_rejected", "join_request", q.id, "reason", b->reason);
    }
    if (rc == 0) {
        rc = fsm_doc_put(x, FSM_SQL_REQUEST " WHERE r.id = ?", q.id);
    }
    request_fini(&q);
    return rc;
}

/* One step: a flood of abandoned requests must not make one entry long. */
int fsm_join_expire(struct fsm_ctx *x, const struct join_expire *b)
{
    int64_t until = b->before_ms < x->now_ms ? b->before_ms : x->now_ms;
    uint32_t n = 0;
    int rc = 0;
    bool more = false;
    while (rc == 0) {
        char id[UUID_TEXT_MAX];
        struct db_stmt *st = db_prepare(
            x->db, "SELECT id FROM node_join_requests INDEXED BY node_join_requests_ending"
                   " WHERE status = 'pending'"
                   " AND expires_at <= ? ORDER BY expires_at, id LIMIT 1");
        db_bind_int(st, until);
        rc = db_step(st);
        (void)snprintf(id, sizeof id, "%s", rc == 1 ? db_col_text(st, "id") : "");
        db_done(st);
        if (rc <= 0) {
            break;
        }
        if (n == FSM_EXPIRE_STEP) {
            more = true;
            rc = 0;
            break;
        }
        rc = decide(x, id, "expired", NULL, blob_of(NULL, 0));
        if (rc == 0) {
            rc = fsm_audit_simple(x, "join_expired", "join_request", id, NULL, blob_of(NULL, 0));
        }
        n++;
    }
    if (rc != 0) {
        return rc;
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "expired", n);
    mp_doc_bool(&x->doc, &d, "more", more);
    mp_doc_end(&x->doc, &d);
    return 0;
}
