/* Recoveries by the owner and what they leave behind (DESIGN section 7, docs/decisions/0007):
 *
 *     epoch_start           the log goes on from a point with one voter; everybody else re-joins
 *     authority_fenced      a log behind what it acknowledged votes no more
 *     authority_damaged     nor one that does not verify
 * What others hand over is in fsm_divergence.c, whom the leader hears in fsm_partition.c. */
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

static int replace_rows(struct fsm_ctx *x, const char *node_id, const struct epoch_start *b,
                        const struct cmd_cert *cert)
{
    char fingerprint[HEX32];
    char issuer[HEX32];
    struct db_stmt *st = db_prepare(x->db, "UPDATE nodes SET fingerprint = ?, address = ?,"
                                           " config_index = ? WHERE id = ?");
    db_bind_text(st, fsm_hex(cert->fingerprint, fingerprint));
    db_bind_textn(st, (const char *)b->address.data, b->address.len);
    db_bind_int(st, (int64_t)x->index);
    db_bind_text(st, node_id);
    int rc = db_run(st);
    if (rc == 0) {
        st = db_prepare(x->db,
                        "UPDATE node_identities SET identity_status = 'revoked',"
                        " revoked_at = ? WHERE node_id = ? AND identity_status <> 'revoked'");
        db_bind_int(st, x->now_ms);
        db_bind_text(st, node_id);
        rc = db_run(st);
    }
    if (rc == 0) {
        st = db_prepare(x->db, "UPDATE cluster_authorities SET address = ?, issuer_certificate = ?,"
                               " issuer_fingerprint = ? WHERE node_id = ?");
        db_bind_textn(st, (const char *)b->address.data, b->address.len);
        db_bind_blob(st, cert->issuer_der);
        db_bind_text(st, fsm_hex(b->issuer_fingerprint, issuer));
        db_bind_text(st, node_id);
        rc = db_run(st);
    }
    return rc == 0 ? fsm_identity_insert(x, node_id, cert) : rc;
}

/* A host takes the place of an authority whose own is lost: its id and name, so that nodes find it
 * without being told, with keys of its own. The lost key is banned. */
static int replace_voter(struct fsm_ctx *x, const struct epoch_start *b, const struct fsm_node *n)
{
    struct cmd_cert cert;
    int64_t not_after = 0;
    if (n->authority[0] == '\0' || strcmp(n->authority, "removed") == 0 || !n->enrolled) {
        return fsm_refuse(x, -ERR_NOT_AUTHORITY, "node %s is not an authority", n->name);
    }
    int rc = fsm_cert_decode(x, b->cert, &cert);
    if (rc == 0) {
        rc = fsm_node_last_expiry(x, n->id, &not_after);
    }
    if (rc == 0) {
        rc = fsm_ban(x, n->fingerprint, blob_str("restored elsewhere"), not_after);
    }
    if (rc == 0) {
        rc = replace_rows(x, n->id, b, &cert);
    }
    if (rc == 0) {
        rc = fsm_audit_simple(x, "certificate_revoked", "node", n->id, "fingerprint",
                              blob_str(n->fingerprint));
    }
    return rc != 0 ? rc : fsm_audit_cert(x, "certificate_issued", n->id, &cert);
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
    int rc = db_run(st);
    if (rc != 0 || x->v->level < LEVEL_VOTES) {
        return rc;
    }
    if (strcmp(status, "voter") != 0) {
        return fsm_authority_waits(x, node_id, true);
    }
    /* Who goes on alone votes, whatever was meant before. */
    st = db_prepare(x->db, "UPDATE cluster_authorities SET votes = 1, waiting_since = NULL"
                           " WHERE node_id = ?");
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
    if (s.kind == RECOVERY_RESTORE) {
        struct fsm_node n;
        rc = b->node_name.len > 0 ? insert_voter(x, b, node_id) : fsm_node_get(x, &voter, &n);
        rc = rc == 0 && b->node_name.len == 0 ? replace_voter(x, b, &n) : rc;
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
    if (rc == 0) {
        rc = fsm_authority_set_recovered(x, b->statement);
    }
    if (rc != 0) {
        return rc;
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "epoch", (int64_t)s.epoch);
    mp_doc_int(&x->doc, &d, "base_index", (int64_t)s.base_index);
    mp_doc_str(&x->doc, &d, "node_id", node_id);
    mp_doc_end(&x->doc, &d);
    return rc;
}

/* --- a log that went back, or is lost --- */

/* members.c follows: the member leaves the Raft configuration, and comes in again as one that catches up. */
static int leave_vote(struct fsm_ctx *x, const struct uuid *node_id, struct fsm_node *ret)
{
    int64_t voters = 0;
    int rc = fsm_node_get(x, node_id, ret);
    if (rc != 0) {
        return rc;
    }
    if (strcmp(ret->authority, "voter") != 0) {
        return fsm_refuse(x, -ERR_CONFLICT, "%s is not a voter", ret->name);
    }
    rc = fsm_one_int(
        db_prepare(x->db, "SELECT count(*) FROM cluster_authorities WHERE status = 'voter'"),
        &voters);
    if (rc < 0) {
        return rc;
    }
    if (voters <= 1) {
        return fsm_refuse(x, -ERR_LAST_VOTER, "%s is the last voter", ret->name);
    }
    x->config_changed = true;
    return set_status(x, ret->id, "joining");
}

static int audit_left(struct fsm_ctx *x, const char *event, const struct fsm_node *n,
                      struct fsm_json *details)
{
    const struct fsm_audit a = {.event = event, .subject_type = "node", .subject_id = n->id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(details));
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_AUTHORITY " WHERE a.node_id = ?", n->id);
}

int fsm_authority_fenced(struct fsm_ctx *x, const struct authority_fenced *b)
{
    struct fsm_node n;
    int rc = leave_vote(x, &b->node_id, &n);
    if (rc == 0) {
        struct fsm_json j;
        fsm_json_begin(&j);
        fsm_json_int(&j, "acknowledged_index", (int64_t)b->acked_index);
        fsm_json_int(&j, "shown_index", (int64_t)b->shown_index);
        fsm_json_int(&j, "acknowledged_term", (int64_t)b->acked_term);
        fsm_json_int(&j, "shown_term", (int64_t)b->shown_term);
        rc = audit_left(x, "authority_fenced", &n, &j);
        fsm_json_fini(&j);
    }
    return rc;
}

int fsm_authority_damaged(struct fsm_ctx *x, const struct authority_damaged *b)
{
    struct fsm_node n;
    int rc = leave_vote(x, &b->node_id, &n);
    if (rc == 0) {
        struct fsm_json j;
        fsm_json_begin(&j);
        fsm_json_str(&j, "why", b->why);
        rc = audit_left(x, "authority_damaged", &n, &j);
        fsm_json_fini(&j);
    }
    return rc;
}
