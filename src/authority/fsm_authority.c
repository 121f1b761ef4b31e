/* The members of the authority. The owner's root key makes one (AUTHORITY_ADD carries the CA that
 * it signed); the Raft configuration follows.
 *
 *     (none) --authority_add--> joining --> standby <--> voter
 *                                  '---------+----------'--authority_remove, _expire--> removed
 *
 * A standby becomes a voter by itself when it has caught up, unless it is not meant to vote
 * (authority_vote). */
#include "authority/fsm_impl.h"

static const char joining[] = "joining";
static const char standby[] = "standby";
static const char voter[] = "voter";

int fsm_authority_waits(struct fsm_ctx *x, const char *node_id, bool waits)
{
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE cluster_authorities SET waiting_since = ? WHERE node_id = ?");
    if (waits) {
        db_bind_int(st, x->now_ms);
    } else {
        db_bind_null(st);
    }
    db_bind_text(st, node_id);
    return db_run(st);
}

int fsm_authority_insert(struct fsm_ctx *x, const struct fsm_new_authority *a)
{
    char issuer[HEX32];
    char assignment[UUID_TEXT_MAX];
    struct db_stmt *st = db_prepare(x->db,
                                    "INSERT INTO cluster_authorities (cluster_id, node_id, address,"
                                    " issuer_certificate, issuer_fingerprint, status, added_at)"
                                    " VALUES (?, ?, ?, ?, ?, ?, ?)");
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, a->node_id);
    db_bind_textn(st, (const char *)a->address.data, a->address.len);
    db_bind_blob(st, a->issuer_der);
    db_bind_text(st, fsm_hex(a->issuer_fingerprint, issuer));
    db_bind_text(st, a->status);
    db_bind_int(st, x->now_ms);
    int rc = db_run(st);
    if (rc != 0) {
        return rc;
    }
    if (x->v->level >= LEVEL_MODEL) {
        st = db_prepare(x->db, "UPDATE cluster_authorities SET root_id = (SELECT root_id FROM"
                               " cluster_trust_roots WHERE status = 'active') WHERE node_id = ?");
        db_bind_text(st, a->node_id);
        rc = db_run(st);
    }
    if (rc == 0 && x->v->level >= LEVEL_VOTES) {
        rc = fsm_authority_waits(x, a->node_id, strcmp(a->status, voter) != 0);
    }
    if (rc != 0) {
        return rc;
    }
    /* The command names no id for the role that goes with it: one of its stamp and key. */
    struct uuid u = uuid_make(x->now_ms, a->issuer_fingerprint.data);
    return fsm_role_insert(x, fsm_id(&u, assignment), a->node_id, blob_str("authority"),
                           blob_of(NULL, 0), blob_of(NULL, 0));
}

static int count_present(struct fsm_ctx *x, const char *sql, int64_t *ret)
{
    int rc = fsm_one_int(db_prepare(x->db, sql), ret);
    return rc < 0 ? rc : 0;
}

static int add_checks(struct fsm_ctx *x, const struct authority_add *b, const struct fsm_node *n,
                      const struct cmd_cert *cert)
{
    char issuer[HEX32];
    if (n->authority[0] != '\0') {
        return fsm_refuse(x, -ERR_EXISTS, "node %s is an authority already (%s)", n->name,
                          n->authority);
    }
    if (!blob_equal(cert->issuer_der, b->issuer_der)) {
        return fsm_refuse(x, -ERR_BAD_CERT, "the leaf of %s is not under its own CA", n->name);
    }
    int rc = fsm_is_banned(x, fsm_hex(b->issuer_fingerprint, issuer));
    if (rc == 1) {
        return fsm_refuse(x, -ERR_KEY_REVOKED, "the key of this CA was revoked: make a new one");
    }
    if (rc < 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "SELECT 1 FROM cluster_authorities WHERE issuer_fingerprint = ?");
    db_bind_text(st, issuer);
    rc = fsm_exists(st);
    if (rc == 1) {
        return fsm_refuse(x, -ERR_KEY_KNOWN, "another authority has this CA key");
    }
    int64_t present = 0;
    if (rc == 0) {
        rc = count_present(x, "SELECT count(*) FROM cluster_authorities WHERE status <> 'removed'",
                           &present);
    }
    if (rc == 0 && present >= AUTHORITIES_MAX) {
        return fsm_refuse(x, -ERR_TOO_LARGE, "there are %d authorities: remove one first",
                          AUTHORITIES_MAX);
    }
    return rc;
}

int fsm_authority_add(struct fsm_ctx *x, const struct authority_add *b)
{
    struct fsm_node n;
    struct cmd_cert cert;
    int rc = fsm_node_get_active(x, &b->node_id, &n);
    if (rc == 0) {
        rc = fsm_cert_decode(x, b->cert, &cert);
    }
    if (rc == 0) {
        rc = add_checks(x, b, &n, &cert);
    }
    if (rc == 0) {
        rc = fsm_owner_made_authority(x, b, &cert);
    }
    if (rc == 0) {
        rc = fsm_cert_rotate(x, &n, &cert);
    }
    if (rc == 0) {
        rc = fsm_authority_insert(x, &(struct fsm_new_authority){
                                         .node_id = n.id,
                                         .address = b->address,
                                         .issuer_der = b->issuer_der,
                                         .issuer_fingerprint = b->issuer_fingerprint,
                                         .status = joining,
                                     });
    }
    if (rc == 0) {
        x->config_changed = true;
        rc = fsm_audit_simple(x, "authority_added", "node", n.id, "address", b->address);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_AUTHORITY " WHERE a.node_id = ?", n.id);
}

static int voters(struct fsm_ctx *x, int64_t *ret)
{
    return count_present(x, "SELECT count(*) FROM cluster_authorities WHERE status = 'voter'", ret);
}

int fsm_authority_get(struct fsm_ctx *x, const struct uuid *id, struct fsm_node *ret)
{
    struct fsm_node n;
    int rc = fsm_node_get(x, id, &n);
    if (rc == 0 && (n.authority[0] == '\0' || strcmp(n.authority, "removed") == 0)) {
        return fsm_refuse(x, -ERR_NOT_FOUND,
                          "node %s is not an authority: see `rap authority list`", n.name);
    }
    if (rc == 0) {
        *ret = n;
    }
    return rc;
}

static int keep_a_voter(struct fsm_ctx *x, const struct fsm_node *n)
{
    int64_t count;
    if (strcmp(n->authority, voter) != 0) {
        return 0;
    }
    int rc = voters(x, &count);
    if (rc == 0 && count <= 1) {
        return fsm_refuse(x, -ERR_LAST_VOTER, "%s is the last voter: add another authority first",
                          n->name);
    }
    return rc;
}

static bool move_allowed(const char *from, const char *to)
{
    static const struct {
        const char *from, *to;
    } moves[] = {{joining, standby}, {standby, voter}, {voter, standby}};
    for (size_t i = 0; i < ARRAY_SIZE(moves); i++) {
        if (strcmp(from, moves[i].from) == 0 && strcmp(to, moves[i].to) == 0) {
            return true;
        }
    }
    return false;
}

static int is_to_vote(struct fsm_ctx *x, const char *node_id, bool *ret)
{
    struct db_stmt *st = db_prepare(x->db,
                                    "SELECT votes FROM cluster_authorities WHERE node_id = ?");
    db_bind_text(st, node_id);
    int rc = db_step(st);
    *ret = rc == 1 && db_col_int(st, "votes") != 0;
    db_done(st);
    return rc < 0 ? rc : 0;
}

int fsm_authority_vote(struct fsm_ctx *x, const struct authority_vote *b)
{
    struct fsm_node n;
    bool votes = false;
    int rc = fsm_authority_get(x, &b->node_id, &n);
    rc = rc != 0 ? rc : is_to_vote(x, n.id, &votes);
    if (rc == 0 && votes == b->votes) {
        return fsm_refuse(x, -ERR_DECIDED, "authority %s is %s already", n.name,
                          votes ? "to vote" : "demoted");
    }
    if (rc == 0 && !b->votes) {
        rc = keep_a_voter(x, &n);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(x->db,
                                    "UPDATE cluster_authorities SET votes = ? WHERE node_id = ?");
    db_bind_int(st, b->votes);
    db_bind_text(st, n.id);
    rc = db_run(st);
    rc = rc != 0 ? rc : fsm_authority_waits(x, n.id, b->votes);
    if (rc == 0) {
        rc = fsm_audit_simple(x, b->votes ? "authority_promoted" : "authority_demoted", "node",
                              n.id, "reason", b->reason);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_AUTHORITY " WHERE a.node_id = ?", n.id);
}

int fsm_authority_status(struct fsm_ctx *x, const struct authority_status *b)
{
    struct fsm_node n;
    char to[17];
    (void)snprintf(to, sizeof to, "%.*s", (int)b->status.len, (const char *)b->status.data);
    int rc = fsm_authority_get(x, &b->node_id, &n);
    if (rc != 0) {
        return rc;
    }
    if (!move_allowed(n.authority, to)) {
        return fsm_refuse(x, -ERR_CONFLICT, "authority %s cannot go from %s to %s", n.name,
                          n.authority, to);
    }
    bool votes = true;
    if (strcmp(to, voter) != 0) {
        rc = keep_a_voter(x, &n);
    } else if (x->v->level >= LEVEL_VOTES) {
        rc = is_to_vote(x, n.id, &votes);
        if (rc == 0 && !votes) {
            return fsm_refuse(x, -ERR_CONFLICT, "authority %s was demoted", n.name);
        }
        rc = rc != 0 ? rc : fsm_authority_waits(x, n.id, false);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(x->db,
                                    "UPDATE cluster_authorities SET status = ? WHERE node_id = ?");
    db_bind_text(st, to);
    db_bind_text(st, n.id);
    rc = db_run(st);
    if (rc == 0) {
        x->config_changed = true;
        rc = fsm_audit_simple(x, "authority_status_changed", "node", n.id, "status", b->status);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_AUTHORITY " WHERE a.node_id = ?", n.id);
}

static int take_out(struct fsm_ctx *x, const struct fsm_node *node, struct blob reason)
{
    const struct fsm_node n = *node;
    char issuer[HEX32] = "";
    struct db_stmt *st = db_prepare(
        x->db, "SELECT issuer_fingerprint FROM cluster_authorities WHERE node_id = ?");
    db_bind_text(st, n.id);
    int rc = db_step(st);
    (void)snprintf(issuer, sizeof issuer, "%s",
                   rc == 1 ? db_col_text(st, "issuer_fingerprint") : "");
    db_done(st);
    if (rc < 0) {
        return rc;
    }
    st = db_prepare(x->db, "UPDATE cluster_authorities SET status = 'removed', removed_at = ?"
                           " WHERE node_id = ?");
    db_bind_int(st, x->now_ms);
    db_bind_text(st, n.id);
    rc = db_run(st);
    if (rc == 0) {
        rc = fsm_ban(x, issuer, reason, 0);
    }
    if (rc == 0) {
        rc = fsm_node_shut_out(x, &n, reason);
    }
    if (rc == 0) {
        x->config_changed = true;
        rc = fsm_audit_simple(x, "authority_removed", "node", n.id, "reason", reason);
    }
    if (rc == 0) {
        rc = fsm_audit_simple(x, "certificate_revoked", "node", n.id, "issuer_fingerprint",
                              blob_str(issuer));
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_AUTHORITY " WHERE a.node_id = ?", n.id);
}

int fsm_authority_remove(struct fsm_ctx *x, const struct authority_remove *b)
{
    struct fsm_node n;
    int rc = fsm_authority_get(x, &b->node_id, &n);
    rc = rc != 0 ? rc : keep_a_voter(x, &n);
    rc = rc != 0 ? rc : fsm_split_holds(x, &n, b->force);
    return rc != 0 ? rc
                   : take_out(x, &n, b->reason.len > 0 ? b->reason : blob_str("authority removed"));
}

int fsm_authority_expire(struct fsm_ctx *x, const struct authority_expire *b)
{
    struct fsm_node n;
    int64_t since = 0;
    int rc = fsm_authority_get(x, &b->node_id, &n);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "SELECT coalesce(waiting_since, 0) FROM cluster_authorities WHERE node_id = ?");
    db_bind_text(st, n.id);
    rc = fsm_one_int(st, &since);
    if (rc < 0) {
        return rc;
    }
    if (since == 0 || x->now_ms - since < AUTHORITY_WAIT_MAX_MS ||
        strcmp(n.authority, voter) == 0) {
        return fsm_refuse(x, -ERR_CONFLICT, "authority %s has time to catch up", n.name);
    }
    return take_out(x, &n, blob_str("never caught up"));
}
