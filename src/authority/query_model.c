/* What is laid over rows of the state from other rows: whose capability is verified, what became of a
 * role, what a cluster lacks. Derived each time, never stored. */
#include "authority/query_impl.h"

static void put_words(struct mp_writer *w, struct db_stmt *st)
{
    size_t at = mp_list_begin(w);
    uint32_t n = 0;
    while (db_step(st) == 1) {
        mp_put_str(w, db_col_text(st, "word"));
        n++;
    }
    db_done(st);
    mp_list_end(w, at, n);
}

void query_node_more(struct fsm *f, const char *node_id, struct mp_writer *w, struct mp_doc *d)
{
    struct db *db = fsm_db(f);
    struct db_stmt *st = db_prepare(db, "SELECT capability AS word FROM node_capabilities"
                                        " WHERE node_id = ? AND verified = 0 ORDER BY capability");
    db_bind_text(st, node_id);
    mp_doc_key(w, d, "unverified_capabilities");
    put_words(w, st);
    st = db_prepare(db, "SELECT test_telemetry FROM nodes WHERE id = ?");
    db_bind_text(st, node_id);
    mp_doc_bool(w, d, "test_telemetry", db_step(st) == 1 && db_col_int(st, "test_telemetry") != 0);
    db_done(st);
    query_node_mesh(f, node_id, w, d);
    if (fsm_level(f) < LEVEL_MEMBERS) {
        return;
    }
    st = db_prepare(db, "SELECT m.disabled_at, m.disabled_reason, m.group_id, g.name AS group_name"
                        " FROM cluster_memberships m LEFT JOIN node_groups g ON g.id = m.group_id"
                        " WHERE m.node_id = ?");
    db_bind_text(st, node_id);
    if (db_step(st) == 1) {
        bool grouped = !db_col_is_null(st, "group_id");
        mp_doc_str(w, d, "group_id", grouped ? db_col_text(st, "group_id") : NULL);
        mp_doc_str(w, d, "group_name", grouped ? db_col_text(st, "group_name") : NULL);
        if (!db_col_is_null(st, "disabled_at")) {
            mp_doc_time(w, d, "disabled_at", db_col_int(st, "disabled_at"));
            mp_doc_str(w, d, "disabled_reason", db_col_text(st, "disabled_reason"));
        }
    }
    db_done(st);
}

const char *query_role_state(struct db *db, const char *node_id, const char *role)
{
    const char *capability = role_capability(blob_str(role));
    const char *state = "effective";
    struct db_stmt *st = db_prepare(db, "SELECT membership_status FROM cluster_memberships"
                                        " WHERE node_id = ?");
    db_bind_text(st, node_id);
    if (db_step(st) == 1 && strcmp(db_col_text(st, "membership_status"), "active") != 0) {
        state = "ineffective";
    }
    db_done(st);
    if (capability[0] == '\0' || strcmp(state, "effective") != 0) {
        return state;
    }
    st = db_prepare(db, "SELECT verified FROM node_capabilities WHERE node_id = ?"
                        " AND capability = ?");
    db_bind_text(st, node_id);
    db_bind_text(st, capability);
    int rc = db_step(st);
    state = rc != 1 ? "capability_gone" : db_col_int(st, "verified") == 0 ? "unverified" : state;
    db_done(st);
    return state;
}

/* --- the cluster --- */

static void put_counts(struct mp_writer *w, struct db_stmt *st)
{
    struct mp_doc d;
    mp_doc_begin(w, &d);
    while (db_step(st) == 1) {
        mp_doc_int(w, &d, db_col_text(st, "word"), db_col_int(st, "n"));
    }
    db_done(st);
    mp_doc_end(w, &d);
}

void query_role_holders(struct db *db, const char *role, int64_t *ret_assigned,
                        int64_t *ret_effective)
{
    const char *capability = role_capability(blob_str(role));
    struct db_stmt *st = db_prepare(
        db, "SELECT count(DISTINCT r.node_id) AS assigned,"
            " count(DISTINCT CASE WHEN m.membership_status = 'active' AND r.status = 'active'"
            "  AND n.health_status NOT IN ('stale', 'unhealthy') AND (?2 = '' OR EXISTS"
            "  (SELECT 1 FROM node_capabilities c WHERE c.node_id = r.node_id"
            "   AND c.capability = ?2)) THEN r.node_id END) AS effective"
            " FROM node_role_assignments r JOIN nodes n ON n.id = r.node_id"
            " JOIN cluster_memberships m ON m.node_id = r.node_id"
            " WHERE r.role = ?1 AND r.status <> 'removed'");
    db_bind_text(st, role);
    db_bind_text(st, capability);
    *ret_assigned = *ret_effective = 0;
    if (db_step(st) == 1) {
        *ret_assigned = db_col_int(st, "assigned");
        *ret_effective = db_col_int(st, "effective");
    }
    db_done(st);
}

static bool is_required(struct fsm *f, const char *role)
{
    if (fsm_level(f) < LEVEL_MEMBERS) {
        return false;
    }
    struct db_stmt *st = db_prepare(fsm_db(f),
                                    "SELECT 1 AS yes FROM required_roles WHERE role = ?");
    db_bind_text(st, role);
    bool required = db_step(st) == 1;
    db_done(st);
    return required;
}

/* A gap: somebody should do it and nobody can. */
static uint32_t put_coverage(struct fsm *f, struct mp_writer *w)
{
    uint32_t gaps = 0;
    uint32_t rows = 0;
    size_t at = mp_list_begin(w);
    for (const char *const *role = role_names; *role != NULL; role++) {
        int64_t assigned;
        int64_t effective;
        struct mp_doc d;
        bool required = is_required(f, *role);
        query_role_holders(fsm_db(f), *role, &assigned, &effective);
        if (assigned == 0 && !required) {
            continue;
        }
        bool gap = effective == 0;
        mp_doc_begin(w, &d);
        mp_doc_str(w, &d, "role", *role);
        mp_doc_bool(w, &d, "required", required);
        mp_doc_int(w, &d, "assigned", assigned);
        mp_doc_int(w, &d, "effective", effective);
        mp_doc_bool(w, &d, "gap", gap);
        mp_doc_end(w, &d);
        gaps += gap;
        rows++;
    }
    mp_list_end(w, at, rows);
    return gaps;
}

static int64_t count(struct db *db, const char *sql)
{
    struct db_stmt *st = db_prepare(db, sql);
    int64_t n = db_step(st) == 1 ? db_col_int(st, "n") : 0;
    db_done(st);
    return n;
}

void query_cluster_more(struct fsm *f, struct mp_writer *w, struct mp_doc *d)
{
    struct db *db = fsm_db(f);
    struct db_stmt *st = db_prepare(db, "SELECT metadata FROM clusters LIMIT 1");
    bool has = db_step(st) == 1 && !db_col_is_null(st, "metadata");
    mp_doc_str(w, d, "metadata", has ? db_col_text(st, "metadata") : NULL);
    db_done(st);
    mp_doc_key(w, d, "nodes_by_health");
    put_counts(w, db_prepare(db, "SELECT n.health_status AS word, count(*) AS n FROM nodes n"
                                 " JOIN cluster_memberships m ON m.node_id = n.id"
                                 " WHERE m.membership_status = 'active'"
                                 " GROUP BY n.health_status ORDER BY n.health_status"));
    mp_doc_key(w, d, "memberships");
    put_counts(w, db_prepare(db, "SELECT membership_status AS word, count(*) AS n"
                                 " FROM cluster_memberships GROUP BY membership_status"
                                 " ORDER BY membership_status"));
    mp_doc_key(w, d, "role_coverage");
    uint32_t gaps = put_coverage(f, w);
    int64_t partitions = fsm_level(f) < LEVEL_RECOVERY
                             ? 0
                             : count(db, "SELECT count(*) AS n FROM cluster_partitions"
                                         " WHERE resolved_at IS NULL");
    int64_t alarms = fsm_level(f) < LEVEL_MODEL
                         ? 0
                         : count(db, "SELECT count(*) AS n FROM certificate_alarms");
    int64_t unwell = count(db, "SELECT count(*) AS n FROM nodes n JOIN cluster_memberships m"
                               " ON m.node_id = n.id WHERE m.membership_status = 'active'"
                               " AND n.health_status IN ('stale', 'unhealthy', 'degraded')");
    mp_doc_int(w, d, "role_gaps", gaps);
    mp_doc_int(w, d, "open_partitions", partitions);
    mp_doc_int(w, d, "certificate_alarms", alarms);
    mp_doc_str(w, d, "health",
               partitions > 0                         ? "partitioned"
               : gaps > 0 || alarms > 0 || unwell > 0 ? "degraded"
                                                      : "healthy");
}

/* --- splits --- */

static const struct query_finder split_finder = {
    .noun = "split",
    .list = "rap split list",
    .by_id = "SELECT id FROM cluster_splits WHERE id = ?",
    .by_name = "SELECT id FROM cluster_splits WHERE name = ? AND status = 'open'",
    /* None is open: the last one of the name is meant. */
    .by_name2 =
        "SELECT id FROM cluster_splits WHERE name = ? ORDER BY begun_at DESC, id DESC LIMIT 1",
    .by_range = "SELECT id FROM cluster_splits WHERE id >= ? AND id < ? LIMIT 2",
};

int query_splits(struct db *db, const struct query_args *args, struct mp_writer *w,
                 struct errmsg *em)
{
    return query_list_or_one(db, &split_finder, FSM_SQL_SPLIT " WHERE s.id = ?",
                             FSM_SQL_SPLIT " WHERE s.id > ?1 ORDER BY s.id LIMIT ?2", args, w, em);
}
