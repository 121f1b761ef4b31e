/* The audit row of what was refused outside the log. */
#include "authority/fsm_impl.h"
#include "base/clock.h"

static const struct {
    const char *event, *subject_type, *subject_key;
} kinds[] = {
    [REFUSAL_JOIN] = {"join_denied", "join_request", "node_name"},
    [REFUSAL_HANDSHAKE] = {"handshake_refused", "node", "service"},
    [REFUSAL_SERVICE] = {"service_refused", "node", "service"},
    [REFUSAL_COMMAND] = {"command_refused", "command", "command"},
    [REFUSAL_UNLISTED] = {"refusals_unlisted", "cluster", "service"},
};

static void text_if_any(struct fsm_json *j, const char *key, struct blob v)
{
    if (v.len > 0) {
        fsm_json_str(j, key, v);
    }
}

/* Which token it was, for people: its id. */
static int put_token(struct fsm_ctx *x, struct fsm_json *j, struct blob hash)
{
    char hex[HEX32];
    if (hash.len == 0) {
        return 0;
    }
    struct db_stmt *st = db_prepare(x->db, "SELECT id FROM node_join_tokens WHERE token_hash = ?");
    db_bind_text(st, fsm_hex(hash, hex));
    int rc = db_step(st);
    if (rc == 1) {
        fsm_json_text(j, "join_token_id", db_col_text(st, "id"));
    }
    db_done(st);
    return rc < 0 ? rc : 0;
}

static int put_details(struct fsm_ctx *x, const struct refusal_noted *b, struct fsm_json *j)
{
    char fingerprint[HEX32];
    char since[CLOCK_TEXT_MAX];
    if (b->error != 0) {
        fsm_json_text(j, "error", err_slug(b->error <= INT32_MAX ? -(int)b->error : 0));
    }
    fsm_json_int(j, "count", b->count <= INT64_MAX ? (int64_t)b->count : INT64_MAX);
    clock_format(b->since_ms, since);
    fsm_json_text(j, "since", since);
    text_if_any(j, kinds[b->what].subject_key, b->subject);
    text_if_any(j, "source_address", b->source_address);
    text_if_any(j, "detail", b->detail);
    if (b->fingerprint.len > 0) {
        fsm_json_text(j, "node_fingerprint", fsm_hex(b->fingerprint, fingerprint));
    }
    return put_token(x, j, b->token_hash);
}

int fsm_refusal_noted(struct fsm_ctx *x, const struct refusal_noted *b)
{
    char node_id[UUID_TEXT_MAX];
    if (b->what == 0 || b->what >= ARRAY_SIZE(kinds)) {
        return fsm_refuse(x, -ERR_INVALID, "no such kind of refusal");
    }
    struct fsm_json j;
    fsm_json_begin(&j);
    int rc = put_details(x, b, &j);
    const struct fsm_audit a = {
        .event = kinds[b->what].event,
        .subject_type = kinds[b->what].subject_type,
        .subject_id = uuid_is_nil(&b->node_id) ? NULL : fsm_id(&b->node_id, node_id),
    };
    if (b->actor_kind.len > 0) {
        x->actor_kind = b->actor_kind;
        x->actor_id = b->actor_id;
    }
    if (rc == 0) {
        rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    }
    fsm_json_fini(&j);
    if (rc != 0) {
        return rc;
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "audit_seq", (int64_t)x->v->audit_seq);
    mp_doc_end(&x->doc, &d);
    return 0;
}

/* Byte for byte what the versions did that proposed it: replicas compare. */
int fsm_join_denied(struct fsm_ctx *x, const struct join_denied *b)
{
    char fingerprint[HEX32];
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_text(&j, "error", err_slug(b->error <= INT32_MAX ? -(int)b->error : 0));
    fsm_json_str(&j, "source_address", b->source_address);
    fsm_json_str(&j, "node_name", b->node_name);
    fsm_json_text(&j, "node_fingerprint", fsm_hex(b->fingerprint, fingerprint));
    const struct fsm_audit a = {.event = "join_denied", .subject_type = "join_request"};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    if (rc != 0) {
        return rc;
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "audit_seq", (int64_t)x->v->audit_seq);
    mp_doc_end(&x->doc, &d);
    return 0;
}
