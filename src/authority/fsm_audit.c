/* The audit chain (DESIGN D12, S16): seq without gaps, hash = SHA-256 over the hash before it and
 * every column of the row. The id is made of stamp and hash, so it cannot be changed either. */
#include "authority/fsm_impl.h"

#include "pki/audit_row.h"

#define DETAILS_MAX 16384

static struct blob opt(const char *s)
{
    return s == NULL ? blob_of(NULL, 0) : blob_str(s);
}

static int audit_insert(struct fsm_ctx *x, const struct fsm_audit *a, struct blob details)
{
    struct fsm_vars *v = x->v;
    struct audit_row row = {
        .seq = v->audit_seq + 1,
        .cluster_id = blob_str(x->cluster_id),
        .organization_id = opt(a->organization_id),
        .actor_kind = x->actor_kind,
        .actor_id = x->actor_id,
        .event_type = blob_str(a->event),
        .subject_type = blob_str(a->subject_type),
        .subject_id = opt(a->subject_id),
        .high_risk = cmd_kind_high_risk(x->cmd->kind),
        .details = details,
        .term = x->term,
        .index = x->index,
        .created_at = x->now_ms,
    };
    uint8_t hash[32];
    audit_row_hash(v->audit_head, &row, hash);

    char id[UUID_TEXT_MAX];
    char prev_hex[HEX32];
    char hash_hex[HEX32];
    struct uuid u = uuid_make(x->now_ms, hash);
    uuid_format(&u, id);
    hex_encode(v->audit_head, 32, prev_hex);
    hex_encode(hash, 32, hash_hex);
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO cluster_audit_events (seq, id, cluster_id, organization_id, actor_kind,"
               " actor_id, event_type, subject_type, subject_id, high_risk, details,"
               " authority_term, authority_index, created_at, prev_hash, hash)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    db_bind_int(st, (int64_t)row.seq);
    db_bind_text(st, id);
    db_bind_text(st, x->cluster_id);
    db_bind_opt(st, row.organization_id);
    db_bind_textn(st, (const char *)row.actor_kind.data, row.actor_kind.len);
    db_bind_opt(st, row.actor_id);
    db_bind_text(st, a->event);
    db_bind_text(st, a->subject_type);
    db_bind_opt(st, row.subject_id);
    db_bind_int(st, row.high_risk);
    db_bind_textn(st, (const char *)details.data, details.len);
    db_bind_int(st, (int64_t)row.term);
    db_bind_int(st, (int64_t)row.index);
    db_bind_int(st, row.created_at);
    db_bind_text(st, prev_hex);
    db_bind_text(st, hash_hex);
    int rc = db_run(st);
    if (rc == 0) {
        v->audit_seq = row.seq;
        memcpy(v->audit_head, hash, 32);
        fsm_witness_audit(x->f, row.seq, hash);
    }
    return rc;
}

/* Whose word it is that the actor asked: an authority that passed the call on (cmd.h, via). */
static struct blob with_via(const struct fsm_ctx *x, struct blob details, struct buf *out)
{
    char id[UUID_TEXT_MAX];
    if (uuid_is_nil(&x->cmd->via) || details.len < 2) {
        return details;
    }
    buf_add(out, details.data, details.len - 1);
    buf_addf(out, "%s\"via\":\"%s\"}", details.len == 2 ? "" : ",", fsm_id(&x->cmd->via, id));
    return buf_blob(out);
}

int fsm_audit_add(struct fsm_ctx *x, const struct fsm_audit *a, struct blob details)
{
    struct buf more;
    buf_init(&more, DETAILS_MAX + 64);
    int rc = audit_insert(x, a, with_via(x, details, &more));
    buf_fini(&more);
    return rc;
}

void fsm_json_begin(struct fsm_json *j)
{
    *j = (struct fsm_json){.any = false};
    buf_init(&j->out, DETAILS_MAX);
    buf_add_str(&j->out, "{");
}

static void json_string(struct buf *out, struct blob v)
{
    buf_add_str(out, "\"");
    size_t start = 0;
    for (size_t i = 0; i <= v.len; i++) {
        /* Control characters cannot occur: commands hold clean text only (text_is_clean). */
        if (i == v.len || v.data[i] == '"' || v.data[i] == '\\') {
            if (i > start) {
                buf_add(out, v.data + start, i - start);
            }
            if (i < v.len) {
                buf_add_str(out, "\\");
            }
            start = i;
        }
    }
    buf_add_str(out, "\"");
}

static void json_key(struct fsm_json *j, const char *key)
{
    buf_add_str(&j->out, j->any ? ",\"" : "\"");
    buf_add_str(&j->out, key);
    buf_add_str(&j->out, "\":");
    j->any = true;
}

void fsm_json_str(struct fsm_json *j, const char *key, struct blob v)
{
    json_key(j, key);
    json_string(&j->out, v);
}

void fsm_json_text(struct fsm_json *j, const char *key, const char *v)
{
    fsm_json_str(j, key, blob_str(v));
}

void fsm_json_int(struct fsm_json *j, const char *key, int64_t v)
{
    json_key(j, key);
    buf_add_int(&j->out, v);
}

void fsm_json_raw(struct fsm_json *j, const char *key, const char *v)
{
    json_key(j, key);
    buf_add_str(&j->out, v);
}

struct blob fsm_json_end(struct fsm_json *j)
{
    buf_add_str(&j->out, "}");
    CHECK(j->out.err == 0);
    return buf_blob(&j->out);
}

void fsm_json_fini(struct fsm_json *j)
{
    buf_fini(&j->out);
}

int fsm_audit_simple(struct fsm_ctx *x, const char *event, const char *subject_type,
                     const char *subject_id, const char *key, struct blob value)
{
    struct fsm_json j;
    fsm_json_begin(&j);
    if (key != NULL) {
        fsm_json_str(&j, key, value);
    }
    const struct fsm_audit a = {
        .event = event, .subject_type = subject_type, .subject_id = subject_id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_audit_cert(struct fsm_ctx *x, const char *event, const char *node_id,
                   const struct cmd_cert *c)
{
    char serial[HEX16];
    char fingerprint[HEX32];
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_text(&j, "certificate_serial", fsm_hex(c->serial, serial));
    fsm_json_text(&j, "fingerprint", fsm_hex(c->fingerprint, fingerprint));
    fsm_json_int(&j, "certificate_not_after", c->not_after_ms);
    const struct fsm_audit a = {.event = event, .subject_type = "node", .subject_id = node_id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

static int check_row(struct db_stmt *st, uint64_t seq, const uint8_t prev[32], uint8_t ret_hash[32],
                     struct errmsg *em)
{
    const struct audit_row row = {
        .seq = (uint64_t)db_col_int(st, "seq"),
        .cluster_id = blob_str(db_col_text(st, "cluster_id")),
        .organization_id = blob_str(db_col_text(st, "organization_id")),
        .actor_kind = blob_str(db_col_text(st, "actor_kind")),
        .actor_id = blob_str(db_col_text(st, "actor_id")),
        .event_type = blob_str(db_col_text(st, "event_type")),
        .subject_type = blob_str(db_col_text(st, "subject_type")),
        .subject_id = blob_str(db_col_text(st, "subject_id")),
        .high_risk = db_col_int(st, "high_risk") != 0,
        .details = blob_str(db_col_text(st, "details")),
        .term = (uint64_t)db_col_int(st, "authority_term"),
        .index = (uint64_t)db_col_int(st, "authority_index"),
        .created_at = db_col_int(st, "created_at"),
    };
    if (row.seq != seq) {
        return errmsg_set(em, -ERR_CORRUPT, "audit row %llu is missing", (unsigned long long)seq);
    }
    audit_row_hash(prev, &row, ret_hash);
    char id[UUID_TEXT_MAX];
    char prev_hex[HEX32];
    char hash_hex[HEX32];
    struct uuid u = uuid_make(row.created_at, ret_hash);
    uuid_format(&u, id);
    hex_encode(prev, 32, prev_hex);
    hex_encode(ret_hash, 32, hash_hex);
    if (strcmp(prev_hex, db_col_text(st, "prev_hash")) != 0 ||
        strcmp(hash_hex, db_col_text(st, "hash")) != 0 || strcmp(id, db_col_text(st, "id")) != 0) {
        return errmsg_set(em, -ERR_CORRUPT, "audit row %llu does not match its hash",
                          (unsigned long long)seq);
    }
    return 0;
}

int fsm_audit_verify(struct fsm *f, struct mp_writer *doc, struct errmsg *em)
{
    struct db_stmt *st = db_prepare(f->db, "SELECT * FROM cluster_audit_events ORDER BY seq");
    uint8_t head[32] = {0};
    uint64_t rows = 0;
    int rc;
    while ((rc = db_step(st)) == 1) {
        uint8_t next[32];
        rc = check_row(st, rows + 1, head, next, em);
        if (rc != 0) {
            break;
        }
        memcpy(head, next, 32);
        rows++;
    }
    db_done(st);
    if (rc == 0 && (rows != f->vars.audit_seq || memcmp(head, f->vars.audit_head, 32) != 0)) {
        rc = errmsg_set(em, -ERR_CORRUPT, "audit row %llu is missing at the end",
                        (unsigned long long)rows + 1);
    }
    if (doc != NULL) {
        struct mp_doc d;
        mp_doc_begin(doc, &d);
        mp_doc_int(doc, &d, "rows", (int64_t)rows);
        mp_doc_hex(doc, &d, "head", blob_of(head, 32));
        mp_doc_bool(doc, &d, "ok", rc == 0);
        mp_doc_end(doc, &d);
    }
    return rc;
}
