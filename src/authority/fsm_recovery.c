/* Recoveries by the owner and what they leave behind (DESIGN section 7, docs/decisions/0007):
 *
 *     epoch_start           the log goes on from a point with one voter; everybody else re-joins
 *     divergence_reported   what an authority of an older epoch decided and nobody believes
 *     partition_merge       the owner has seen that and lets it come back without
 *     authority_fenced      a log behind what it acknowledged votes no more
 *     partition_seen        whom the leader hears: rows of cluster_partitions */
#include "authority/fsm_impl.h"

#include "pki/statement.h"

/* --- the start of an epoch --- */

/* Nobody proposes it: whoever holds the statement writes it into the log, so all is checked here. */
static int check_statement(struct fsm_ctx *x, struct blob in, struct recovery_statement *ret)
{
    uint8_t key[PKI_KEY_BYTES];
    struct uuid cluster_id;
    struct errmsg em = ERRMSG_INIT;
    struct recovery_statement s;
    int rc = fsm_root_key(x, key);
    if (rc != 0) {
        return rc;
    }
    CHECK(uuid_parse(x->cluster_id, &cluster_id) == 0);
    rc = statement_verify(in, key, &cluster_id, &s, &em);
    if (rc != 0) {
        return fsm_refuse(x, rc, "%s", em.text);
    }
    bool follows = s.kind == RECOVERY_RESTORE ? s.epoch > x->v->epoch : s.epoch == x->v->epoch + 1;
    if (!follows) {
        return fsm_refuse(x, -ERR_CONFLICT, "epoch %llu cannot follow epoch %llu",
                          (unsigned long long)s.epoch, (unsigned long long)x->v->epoch);
    }
    if (x->index != s.base_index + 1 ||
        !blob_equal(s.base_digest, blob_of(x->f->digest, sizeof x->f->digest))) {
        return fsm_refuse(x, -ERR_CONFLICT,
                          "the statement is about another history than the one before entry %llu",
                          (unsigned long long)x->index);
    }
    if (s.voters.count != 1) {
        return fsm_refuse(x, -ERR_UNSUPPORTED, "an epoch starts with one voter; others re-join");
    }
    *ret = s;
    return 0;
}

/* A host that is new to the cluster takes the restored state over. */
static int insert_voter(struct fsm_ctx *x, const struct epoch_start *b, const char *node_id)
{
    struct cmd_cert cert;
    int rc = fsm_cert_decode(x, b->cert, &cert);
    if (rc == 0) {
        rc = fsm_name_free(x, b->node_name, NULL, NULL);
    }
    if (rc == 0) {
        rc = fsm_node_insert(x, &(struct fsm_new_node){.id = node_id,
                                                       .name = b->node_name,
                                                       .fingerprint = cert.fingerprint,
                                                       .address = b->address});
    }
    if (rc == 0) {
        rc = fsm_identity_insert(x, node_id, &cert);
    }
    if (rc == 0) {
        rc = fsm_authority_insert(
            x, &(struct fsm_new_authority){.node_id = node_id,
                                           .address = b->address,
                                           .issuer_der = cert.issuer_der,
                                           .issuer_fingerprint = b->issuer_fingerprint,
                                           .status = "voter"});
    }
    return rc != 0 ? rc : fsm_audit_cert(x, "certificate_issued", node_id, &cert);
}

static int set_status(struct fsm_ctx *x, const char *node_id, const char *status)
{
    struct db_stmt *st = db_prepare(x->db,
                                    "UPDATE cluster_authorities SET status = ? WHERE node_id = ?");
    db_bind_text(st, status);
    db_bind_text(st, node_id);
    return db_run(st);
}

/* Everybody but the voter begins anew, in the order of their ids on every replica. others: JSON. */
static int others_rejoin(struct fsm_ctx *x, const char *voter, char others[JSON_LIST_MAX])
{
    char ids[AUTHORITIES_MAX][UUID_TEXT_MAX];
    size_t n = 0;
    size_t at = 1;
    struct db_stmt *st = db_prepare(x->db,
                                    "SELECT node_id FROM cluster_authorities"
                                    " WHERE status <> 'removed' AND node_id <> ? ORDER BY node_id");
    db_bind_text(st, voter);
    int rc;
    while ((rc = db_step(st)) == 1 && n < AUTHORITIES_MAX) {
        (void)snprintf(ids[n++], UUID_TEXT_MAX, "%s", db_col_text(st, "node_id"));
    }
    db_done(st);
    (void)snprintf(others, JSON_LIST_MAX, "[");
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        rc = set_status(x, ids[i], "joining");
        at += (size_t)snprintf(others + at, JSON_LIST_MAX - at, "%s\"%s\"", i == 0 ? "" : ",",
                               ids[i]);
    }
    (void)snprintf(others + at, JSON_LIST_MAX - at, "]");
    return rc < 0 ? rc : set_status(x, voter, "voter");
}

static const char *resolution_of(uint64_t kind)
{
    switch ((enum recovery_kind)kind) {
        case RECOVERY_RECOVER:
            return "recovered";
        case RECOVERY_PROMOTE:
            return "promoted";
        case RECOVERY_RESTORE:
            return "restored";
    }
    return "recovered";
}

/* The row that a leader could not write for want of a majority, or the end of the one it wrote. */
static int resolve_partition(struct fsm_ctx *x, const struct recovery_statement *s,
                             const char *voter, const char *others)
{
    struct db_stmt *st = db_prepare(x->db, "UPDATE cluster_partitions SET status = 'resolved',"
                                           " resolved_at = ?, resolution = ?, resolved_by = 'root'"
                                           " WHERE status = 'open'");
    db_bind_int(st, x->now_ms);
    db_bind_text(st, resolution_of(s->kind));
    int rc = db_run(st);
    if (rc != 0 || strcmp(others, "[]") == 0) {
        return rc;
    }
    char id[UUID_TEXT_MAX];
    char self[UUID_TEXT_MAX + 8];
    /* The statement has no id of its own; its time and digest make one. */
    struct uuid u = uuid_make(s->time_ms, s->base_digest.data);
    (void)snprintf(self, sizeof self, "[\"%s\"]", voter);
    st = db_prepare(x->db, "INSERT INTO cluster_partitions (id, cluster_id, members, reachable,"
                           " has_quorum, status, detected_at, resolved_at, resolution, resolved_by)"
                           " VALUES (?, ?, ?, ?, 0, 'resolved', ?, ?, ?, 'root')");
    db_bind_text(st, fsm_id(&u, id));
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, others);
    db_bind_text(st, self);
    db_bind_int(st, s->time_ms < x->now_ms ? s->time_ms : x->now_ms);
    db_bind_int(st, x->now_ms);
    db_bind_text(st, resolution_of(s->kind));
    return db_run(st);
}

static int record_recovery(struct fsm_ctx *x, const struct recovery_statement *s,
                           struct blob statement, const char *voter)
{
    char digest[HEX32];
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO cluster_recoveries (cluster_id, epoch, kind, base_index, base_term,"
               " base_digest, node_id, reason, statement, created_at)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    db_bind_text(st, x->cluster_id);
    db_bind_int(st, (int64_t)s->epoch);
    db_bind_text(st, recovery_kind_name(s->kind));
    db_bind_int(st, (int64_t)s->base_index);
    db_bind_int(st, (int64_t)s->base_term);
    db_bind_text(st, fsm_hex(s->base_digest, digest));
    db_bind_text(st, voter);
    db_bind_opt(st, s->reason);
    db_bind_blob(st, statement);
    db_bind_int(st, x->now_ms);
    int rc = db_run(st);
    if (rc == 0) {
        st = db_prepare(x->db,
                        "UPDATE cluster_authority_terms SET ended_at = ? WHERE ended_at IS NULL");
        db_bind_int(st, x->now_ms);
        rc = db_run(st);
    }
    return rc;
}

static int audit_epoch(struct fsm_ctx *x, const struct recovery_statement *s, const char *voter,
                       const char *others)
{
    static const char *const events[] = {NULL, "authority_recovered", "partition_promoted",
                                         "authority_restored"};
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_int(&j, "epoch", (int64_t)s->epoch);
    fsm_json_int(&j, "base_index", (int64_t)s->base_index);
    fsm_json_int(&j, "base_term", (int64_t)s->base_term);
    fsm_json_raw(&j, "rejoin", others);
    if (s->reason.len > 0) {
        fsm_json_str(&j, "reason", s->reason);
    }
    const struct fsm_audit a = {
        .event = events[s->kind], .subject_type = "node", .subject_id = voter};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_epoch_start(struct fsm_ctx *x, const struct epoch_start *b)
{
    struct recovery_statement s;
    struct uuid voter;
    char node_id[UUID_TEXT_MAX];
    char others[JSON_LIST_MAX];
    int rc = check_statement(x, b->statement, &s);
    if (rc != 0) {
        return rc;
    }
    CHECK(recovery_voter(&s, 0, &voter));
    (void)fsm_id(&voter, node_id);
    if (b->node_name.len > 0) {
        rc = s.kind == RECOVERY_RESTORE
                 ? insert_voter(x, b, node_id)
                 : fsm_refuse(x, -ERR_INVALID, "only a restore brings a new authority");
    } else {
        struct fsm_node n;
        rc = fsm_node_get_active(x, &voter, &n);
        if (rc == 0 && (n.authority[0] == '\0' || strcmp(n.authority, "removed") == 0)) {
            rc = fsm_refuse(x, -ERR_NOT_AUTHORITY, "node %s is not an authority", n.name);
        }
    }
    if (rc == 0) {
        rc = others_rejoin(x, node_id, others);
    }
    if (rc == 0) {
        rc = record_recovery(x, &s, b->statement, node_id);
    }
    if (rc == 0) {
        rc = resolve_partition(x, &s, node_id, others);
    }
    if (rc != 0) {
        return rc;
    }
    x->v->epoch = s.epoch;
    x->config_changed = true;
    rc = audit_epoch(x, &s, node_id, others);
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "epoch", (int64_t)s.epoch);
    mp_doc_int(&x->doc, &d, "base_index", (int64_t)s.base_index);
    mp_doc_str(&x->doc, &d, "node_id", node_id);
    mp_doc_end(&x->doc, &d);
    return rc;
}

/* --- reports --- */

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

/* --- an old disk --- */

int fsm_authority_fenced(struct fsm_ctx *x, const struct authority_fenced *b)
{
    struct fsm_node n;
    int64_t voters = 0;
    int rc = fsm_node_get(x, &b->node_id, &n);
    if (rc != 0) {
        return rc;
    }
    if (strcmp(n.authority, "voter") != 0) {
        return fsm_refuse(x, -ERR_CONFLICT, "%s is not a voter", n.name);
    }
    rc = fsm_one_int(
        db_prepare(x->db, "SELECT count(*) FROM cluster_authorities WHERE status = 'voter'"),
        &voters);
    if (rc < 0) {
        return rc;
    }
    if (voters <= 1) {
        return fsm_refuse(x, -ERR_LAST_VOTER, "%s is the last voter", n.name);
    }
    rc = set_status(x, n.id, "joining");
    if (rc == 0) {
        struct fsm_json j;
        fsm_json_begin(&j);
        fsm_json_int(&j, "acknowledged_index", (int64_t)b->acked_index);
        fsm_json_int(&j, "shown_index", (int64_t)b->shown_index);
        fsm_json_int(&j, "acknowledged_term", (int64_t)b->acked_term);
        fsm_json_int(&j, "shown_term", (int64_t)b->shown_term);
        const struct fsm_audit a = {
            .event = "authority_fenced", .subject_type = "node", .subject_id = n.id};
        rc = fsm_audit_add(x, &a, fsm_json_end(&j));
        fsm_json_fini(&j);
    }
    x->config_changed = true;
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_AUTHORITY " WHERE a.node_id = ?", n.id);
}

/* --- whom the leader hears --- */

static int ids_json(struct fsm_ctx *x, const struct mp_list *list, char out[JSON_LIST_MAX])
{
    struct mp_reader r;
    size_t at = 1;
    char id[UUID_TEXT_MAX];
    mp_reader_init(&r, list->raw);
    (void)snprintf(out, JSON_LIST_MAX, "[");
    for (uint32_t i = 0; i < list->count; i++) {
        struct uuid u = mp_get_uuid(&r);
        if (r.err != 0) {
            return fsm_refuse(x, -ERR_MALFORMED, "an id of an authority does not decode");
        }
        at += (size_t)snprintf(out + at, JSON_LIST_MAX - at, "%s\"%s\"", i == 0 ? "" : ",",
                               fsm_id(&u, id));
    }
    (void)snprintf(out + at, JSON_LIST_MAX - at, "]");
    return 0;
}

static int audit_partition(struct fsm_ctx *x, const char *event, const char *id,
                           const char *members)
{
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_raw(&j, "members", members);
    const struct fsm_audit a = {.event = event, .subject_type = "partition", .subject_id = id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

/* Those who were out and are no authorities any more did not come back: they were removed. */
static int resolution_seen(struct fsm_ctx *x, const char *members, const char **ret)
{
    int64_t present = 0;
    struct db_stmt *st = db_prepare(x->db, "SELECT count(*) FROM cluster_authorities a"
                                           " WHERE a.status <> 'removed' AND EXISTS (SELECT 1 FROM"
                                           " json_each(?) j WHERE j.value = a.node_id)");
    db_bind_text(st, members);
    int rc = fsm_one_int(st, &present);
    *ret = present > 0 ? "healed" : "removed";
    return rc < 0 ? rc : 0;
}

static int partition_open(struct fsm_ctx *x, const struct partition_seen *b, const char *out,
                          const char *in)
{
    char id[UUID_TEXT_MAX];
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO cluster_partitions (id, cluster_id, members, reachable, has_quorum,"
               " status, detected_at) VALUES (?, ?, ?, ?, ?, 'open', ?)");
    db_bind_text(st, fsm_id(&b->partition_id, id));
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, out);
    db_bind_text(st, in);
    db_bind_int(st, b->quorum);
    db_bind_int(st, x->now_ms);
    int rc = db_run(st);
    return rc != 0 ? rc : audit_partition(x, "partition_detected", id, out);
}

static int partition_move(struct fsm_ctx *x, const char *id, const struct partition_seen *b,
                          const char *out, const char *in)
{
    struct db_stmt *st = db_prepare(x->db, "UPDATE cluster_partitions SET members = ?,"
                                           " reachable = ?, has_quorum = ? WHERE id = ?");
    db_bind_text(st, out);
    db_bind_text(st, in);
    db_bind_int(st, b->quorum);
    db_bind_text(st, id);
    int rc = db_run(st);
    return rc != 0 ? rc : audit_partition(x, "partition_changed", id, out);
}

static int partition_close(struct fsm_ctx *x, const char *id, const char *members)
{
    const char *resolution;
    int rc = resolution_seen(x, members, &resolution);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE cluster_partitions SET status = 'resolved',"
               " resolved_at = ?, resolution = ?, resolved_by = ? WHERE id = ?");
    db_bind_int(st, x->now_ms);
    db_bind_text(st, resolution);
    db_bind_text(st, "system");
    db_bind_text(st, id);
    rc = db_run(st);
    return rc != 0 ? rc : audit_partition(x, "partition_resolved", id, members);
}

int fsm_partition_seen(struct fsm_ctx *x, const struct partition_seen *b)
{
    char out[JSON_LIST_MAX];
    char in[JSON_LIST_MAX];
    char id[UUID_TEXT_MAX] = "";
    char members[JSON_LIST_MAX] = "";
    int rc = ids_json(x, &b->out, out);
    if (rc == 0) {
        rc = ids_json(x, &b->in, in);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "SELECT id, members FROM cluster_partitions WHERE status = 'open' LIMIT 1");
    int open = db_step(st);
    if (open == 1) {
        (void)snprintf(id, sizeof id, "%s", db_col_text(st, "id"));
        (void)snprintf(members, sizeof members, "%s", db_col_text(st, "members"));
    }
    db_done(st);
    if (open < 0) {
        return open;
    }
    if (open == 0 && b->out.count > 0) {
        rc = partition_open(x, b, out, in);
    } else if (open == 1 && b->out.count == 0) {
        rc = partition_close(x, id, members);
    } else if (open == 1 && strcmp(members, out) != 0) {
        rc = partition_move(x, id, b, out, in);
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "out", b->out.count);
    mp_doc_end(&x->doc, &d);
    return rc;
}
