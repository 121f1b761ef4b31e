/* Join tokens (SPEC TOK). Only the hash of a token is ever here. */
#include "authority/fsm_impl.h"

/* The document of a row just inserted without a scope, as FSM_SQL_TOKEN reads it (a test compares them): a
 * look at the row costs a tenth of the whole command. */
static void put_unscoped(struct fsm_ctx *x, const struct token_create *b, const char *id)
{
    struct mp_writer *w = &x->doc;
    mp_put_map(w, 11);
    mp_put_str(w, "id");
    mp_put_str(w, id);
    mp_put_str(w, "cluster_id");
    mp_put_str(w, x->cluster_id);
    mp_put_str(w, "scope");
    mp_put_str(w, "{}");
    mp_put_str(w, "scope_roles");
    mp_put_nil(w);
    mp_put_str(w, "scope_name");
    mp_put_nil(w);
    mp_put_str(w, "expires_at");
    fsm_doc_time(w, b->expires_at_ms);
    mp_put_str(w, "max_uses");
    mp_put_i64(w, (int64_t)b->max_uses);
    mp_put_str(w, "used_count");
    mp_put_i64(w, 0);
    mp_put_str(w, "created_by_user_id");
    if (x->actor_id.len == 0) {
        mp_put_nil(w);
    } else {
        mp_put_strn(w, (const char *)x->actor_id.data, x->actor_id.len);
    }
    mp_put_str(w, "created_at");
    fsm_doc_time(w, x->now_ms);
    mp_put_str(w, "revoked_at");
    mp_put_nil(w);
}

int fsm_token_create(struct fsm_ctx *x, const struct token_create *b)
{
    if (b->expires_at_ms <= x->now_ms || b->expires_at_ms - x->now_ms > TOKEN_TTL_MAX_MS) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a token lives between a moment and 30 days: choose another --ttl");
    }
    if (b->max_uses > TOKEN_USES_MAX) {
        return fsm_refuse(x, -ERR_INVALID, "a token has at most %d uses", TOKEN_USES_MAX);
    }
    if (b->scope_name.len > 0 &&
        !text_is_name((const char *)b->scope_name.data, b->scope_name.len)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a name is 1 to 63 of a-z, 0-9 and -, with no - at either end");
    }
    char roles[JSON_LIST_MAX];
    int rc = fsm_words(x, &b->scope_roles, FSM_ROLES, roles);
    if (rc != 0) {
        return rc;
    }
    struct fsm_json scope;
    fsm_json_begin(&scope);
    if (b->scope_name.len > 0) {
        fsm_json_str(&scope, "name", b->scope_name);
    }
    if (b->scope_roles.count > 0) {
        fsm_json_raw(&scope, "roles", roles);
    }
    struct blob scope_json = fsm_json_end(&scope);
    char id[UUID_TEXT_MAX];
    char hash[HEX32];
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO node_join_tokens (id, cluster_id, token_hash, scope, expires_at,"
               " max_uses, used_count, created_by_user_id, created_at)"
               " VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)");
    db_bind_text(st, fsm_id(&b->token_id, id));
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, fsm_hex(b->token_hash, hash));
    db_bind_textn(st, (const char *)scope_json.data, scope_json.len);
    db_bind_int(st, b->expires_at_ms);
    db_bind_int(st, (int64_t)b->max_uses);
    db_bind_opt(st, x->actor_id);
    db_bind_int(st, x->now_ms);
    rc = db_run(st);
    fsm_json_fini(&scope);
    if (rc != 0) {
        return rc;
    }
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_int(&j, "max_uses", (int64_t)b->max_uses);
    fsm_json_int(&j, "expires_at", b->expires_at_ms);
    const struct fsm_audit a = {
        .event = "token_created", .subject_type = "join_token", .subject_id = id};
    rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    if (rc == 0 && b->scope_name.len == 0 && b->scope_roles.count == 0) {
        put_unscoped(x, b, id);
        return 0;
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_TOKEN " WHERE t.id = ?", id);
}

int fsm_token_revoke(struct fsm_ctx *x, const struct token_revoke *b)
{
    char id[UUID_TEXT_MAX];
    struct db_stmt *st = db_prepare(
        x->db, "SELECT revoked_at IS NOT NULL AS revoked FROM node_join_tokens WHERE id = ?");
    db_bind_text(st, fsm_id(&b->token_id, id));
    int64_t revoked = 0;
    int rc = fsm_one_int(st, &revoked);
    if (rc < 0) {
        return rc;
    }
    if (rc == 0) {
        return fsm_refuse(x, -ERR_NOT_FOUND, "there is no token %s: see `rap token list`", id);
    }
    if (revoked) {
        return fsm_refuse(x, -ERR_DECIDED, "token %s is revoked already", id);
    }
    st = db_prepare(x->db, "UPDATE node_join_tokens SET revoked_at = ? WHERE id = ?");
    db_bind_int(st, x->now_ms);
    db_bind_text(st, id);
    rc = db_run(st);
    if (rc == 0) {
        rc = fsm_audit_simple(x, "token_revoked", "join_token", id, NULL, blob_of(NULL, 0));
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_TOKEN " WHERE t.id = ?", id);
}
