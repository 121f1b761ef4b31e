/* What a fenced authority hands over, and the owner's consent that it comes back without
 * (docs/decisions/0007):
 *
 *     (none) --first part--> receiving --last part--> reported --partition_merge--> merged */
#include "authority/fsm_impl.h"

#include "pki/statement.h"

struct stored_report {
    bool exists;
    uint64_t total, stored;
    char status[16];
};

static int get_report(struct fsm_ctx *x, const char *node_id, uint64_t epoch,
                      struct stored_report *ret)
{
    *ret = (struct stored_report){.exists = false};
    struct db_stmt *st = db_prepare(x->db, "SELECT rows_total, rows_stored, status"
                                           " FROM divergence_reports"
                                           " WHERE node_id = ? AND epoch = ?");
    db_bind_text(st, node_id);
    db_bind_int(st, (int64_t)epoch);
    int rc = db_step(st);
    if (rc == 1) {
        ret->exists = true;
        ret->total = (uint64_t)db_col_int(st, "rows_total");
        ret->stored = (uint64_t)db_col_int(st, "rows_stored");
        (void)snprintf(ret->status, sizeof ret->status, "%s", db_col_text(st, "status"));
    }
    db_done(st);
    return rc < 0 ? rc : 0;
}

static int check_report(struct fsm_ctx *x, const struct divergence_report *r,
                        const struct fsm_node *n, const struct stored_report *have)
{
    int rc = fsm_node_is_actor(x, n);
    if (rc != 0) {
        return rc;
    }
    if (n->authority[0] == '\0' || strcmp(n->authority, "removed") == 0) {
        return fsm_refuse(x, -ERR_NOT_AUTHORITY, "node %s is not an authority", n->name);
    }
    if (r->epoch != x->v->epoch || r->from_epoch >= r->epoch) {
        return fsm_refuse(x, -ERR_FENCED, "this is epoch %llu, the report is for %llu",
                          (unsigned long long)x->v->epoch, (unsigned long long)r->epoch);
    }
    if (r->last_index > EPOCH_MAX || r->commit_index > r->last_index ||
        r->common_index > r->last_index || r->rows_total > EPOCH_MAX || r->last_term > EPOCH_MAX) {
        return fsm_refuse(x, -ERR_INVALID, "the report contradicts itself");
    }
    if (have->exists && have->total != r->rows_total) {
        return fsm_refuse(x, -ERR_CONFLICT, "another report of %s began before", n->name);
    }
    uint64_t most = r->rows_total < DIVERGENCE_ROWS_MAX ? r->rows_total : DIVERGENCE_ROWS_MAX;
    if (r->first_row != have->stored || have->stored + r->rows.count > most ||
        (r->rows.count == 0 && most > 0)) {
        return fsm_refuse(x, -ERR_CONFLICT, "row %llu was expected next",
                          (unsigned long long)have->stored);
    }
    return 0;
}

static int insert_row(struct fsm_ctx *x, const char *node_id, const struct divergence_report *r,
                      uint64_t seq, const struct divergence_row *row)
{
    char request[UUID_TEXT_MAX];
    char subject[UUID_TEXT_MAX];
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO divergence_entries (node_id, epoch, seq, log_index, log_term,"
               " committed, kind, request_id, actor_kind, actor_id, subject_id, created_at)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    db_bind_text(st, node_id);
    db_bind_int(st, (int64_t)r->epoch);
    db_bind_int(st, (int64_t)seq);
    db_bind_int(st, (int64_t)row->log_index);
    db_bind_int(st, (int64_t)row->log_term);
    db_bind_int(st, row->committed);
    db_bind_textn(st, (const char *)row->kind.data, row->kind.len);
    db_bind_text(st, fsm_id(&row->request_id, request));
    db_bind_textn(st, (const char *)row->actor_kind.data, row->actor_kind.len);
    db_bind_opt(st, row->actor_id);
    db_bind_text(st, uuid_is_nil(&row->subject_id) ? NULL : fsm_id(&row->subject_id, subject));
    db_bind_int(st, row->time_ms);
    return db_run(st);
}

static int insert_rows(struct fsm_ctx *x, const char *node_id, const struct divergence_report *r)
{
    struct mp_reader reader;
    int rc = 0;
    mp_reader_init(&reader, r->rows.raw);
    for (uint32_t i = 0; rc == 0 && i < r->rows.count; i++) {
        struct divergence_row row;
        if (msg_decode(&divergence_row_desc, MSG_STRICT, mp_get_bin(&reader, CMD_BODY_MAX), &row) !=
                0 ||
            row.log_index > EPOCH_MAX || row.log_term > EPOCH_MAX) {
            return fsm_refuse(x, -ERR_MALFORMED, "row %u of the report does not decode", i);
        }
        rc = insert_row(x, node_id, r, r->first_row + i, &row);
    }
    return rc;
}

static int put_report(struct fsm_ctx *x, const char *node_id, const struct divergence_report *r,
                      const struct stored_report *have, bool complete)
{
    uint64_t stored = have->stored + r->rows.count;
    const char *status = complete ? "reported" : "receiving";
    struct db_stmt *st;
    if (have->exists) {
        st = db_prepare(x->db, "UPDATE divergence_reports SET rows_stored = ?, status = ?"
                               " WHERE node_id = ? AND epoch = ?");
        db_bind_int(st, (int64_t)stored);
        db_bind_text(st, status);
        db_bind_text(st, node_id);
        db_bind_int(st, (int64_t)r->epoch);
        return db_run(st);
    }
    st = db_prepare(x->db,
                    "INSERT INTO divergence_reports (cluster_id, node_id, epoch, from_epoch,"
                    " common_index, last_index, last_term, commit_index, rows_total, rows_stored,"
                    " status, reported_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, node_id);
    db_bind_int(st, (int64_t)r->epoch);
    db_bind_int(st, (int64_t)r->from_epoch);
    db_bind_int(st, (int64_t)r->common_index);
    db_bind_int(st, (int64_t)r->last_index);
    db_bind_int(st, (int64_t)r->last_term);
    db_bind_int(st, (int64_t)r->commit_index);
    db_bind_int(st, (int64_t)r->rows_total);
    db_bind_int(st, (int64_t)stored);
    db_bind_text(st, status);
    db_bind_int(st, x->now_ms);
    return db_run(st);
}

static int audit_report(struct fsm_ctx *x, const char *node_id, const struct divergence_report *r)
{
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_int(&j, "from_epoch", (int64_t)r->from_epoch);
    fsm_json_int(&j, "common_index", (int64_t)r->common_index);
    fsm_json_int(&j, "last_index", (int64_t)r->last_index);
    fsm_json_int(&j, "rows", (int64_t)r->rows_total);
    const struct fsm_audit a = {
        .event = "divergence_reported", .subject_type = "node", .subject_id = node_id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_divergence_reported(struct fsm_ctx *x, const struct divergence_reported *b)
{
    struct divergence_report r;
    struct fsm_node n;
    struct stored_report have;
    int rc = msg_decode(&divergence_report_desc, MSG_STRICT, b->report, &r);
    if (rc != 0) {
        return fsm_refuse(x, rc, "the report does not decode");
    }
    rc = fsm_node_get_active(x, &r.node_id, &n);
    if (rc == 0) {
        rc = get_report(x, n.id, r.epoch, &have);
    }
    if (rc == 0) {
        rc = check_report(x, &r, &n, &have);
    }
    if (rc == 0) {
        rc = insert_rows(x, n.id, &r);
    }
    if (rc != 0) {
        return rc;
    }
    uint64_t stored = have.stored + r.rows.count;
    bool complete = stored >= r.rows_total || stored >= DIVERGENCE_ROWS_MAX;
    rc = put_report(x, n.id, &r, &have, complete);
    if (rc == 0 && complete) {
        rc = audit_report(x, n.id, &r);
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "rows_stored", (int64_t)stored);
    mp_doc_end(&x->doc, &d);
    return rc;
}

/* --- merge --- */

static int check_consent(struct fsm_ctx *x, const struct partition_merge *b,
                         const struct fsm_node *n, const struct stored_report *have)
{
    if (!have->exists || strcmp(have->status, "receiving") == 0) {
        return fsm_refuse(x, -ERR_NOT_FOUND,
                          "%s has not handed over its report: see "
                          "`rap partition list`",
                          n->name);
    }
    if (strcmp(have->status, "merged") == 0) {
        return fsm_refuse(x, -ERR_DECIDED, "%s was merged already", n->name);
    }
    uint8_t key[PKI_KEY_BYTES];
    struct merge_consent c = {.node_id = b->node_id, .epoch = b->epoch, .rows = b->rows};
    CHECK(uuid_parse(x->cluster_id, &c.cluster_id) == 0);
    int rc = fsm_root_key(x, key);
    if (rc != 0) {
        return rc;
    }
    if (b->rows != have->total) {
        return fsm_refuse(x, -ERR_CONFLICT, "the report of %s has %llu rows: look at it again",
                          n->name, (unsigned long long)have->total);
    }
    if (consent_verify(&c, b->signature, key) != 0) {
        return fsm_refuse(x, -ERR_BAD_SIGNATURE,
                          "the consent is not signed with this cluster's root key");
    }
    return 0;
}

int fsm_partition_merge(struct fsm_ctx *x, const struct partition_merge *b)
{
    struct fsm_node n;
    struct stored_report have;
    int rc = fsm_node_get(x, &b->node_id, &n);
    if (rc == 0) {
        rc = get_report(x, n.id, b->epoch, &have);
    }
    if (rc == 0) {
        rc = check_consent(x, b, &n, &have);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(x->db,
                                    "UPDATE divergence_reports SET status = 'merged', merged_at = ?"
                                    " WHERE node_id = ? AND epoch = ?");
    db_bind_int(st, x->now_ms);
    db_bind_text(st, n.id);
    db_bind_int(st, (int64_t)b->epoch);
    rc = db_run(st);
    if (rc == 0) {
        struct fsm_json j;
        fsm_json_begin(&j);
        fsm_json_int(&j, "epoch", (int64_t)b->epoch);
        fsm_json_int(&j, "rows_given_up", (int64_t)b->rows);
        const struct fsm_audit a = {
            .event = "partition_merged", .subject_type = "node", .subject_id = n.id};
        rc = fsm_audit_add(x, &a, fsm_json_end(&j));
        fsm_json_fini(&j);
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_str(&x->doc, &d, "node_id", n.id);
    mp_doc_str(&x->doc, &d, "name", n.name);
    mp_doc_int(&x->doc, &d, "epoch", (int64_t)b->epoch);
    mp_doc_int(&x->doc, &d, "rows", (int64_t)b->rows);
    mp_doc_end(&x->doc, &d);
    return rc;
}
