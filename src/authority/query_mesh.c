/* What the owner configured of the overlay. */
#include "authority/query_impl.h"
#include "fabric/overlay.h"

static int mesh(struct db *db, const char *sql, struct mp_writer *w, struct errmsg *em)
{
    struct db_stmt *st = db_prepare(db, sql);
    int rc = db_step(st);
    if (rc == 1) {
        fsm_doc_row(st, w);
    }
    db_done(st);
    return rc == 1 ? 0 : errmsg_set(em, -ERR_NOT_FOUND, "there is no cluster yet");
}

int query_mesh(struct db *db, const struct query_args *args, struct mp_writer *w, struct errmsg *em)
{
    (void)args;
    return mesh(db, FSM_SQL_MESH " LIMIT 1", w, em);
}

/* Below LEVEL_CUT_OFF. */
int query_mesh_before(struct db *db, const struct query_args *args, struct mp_writer *w,
                      struct errmsg *em)
{
    (void)args;
    return mesh(db, FSM_SQL_MESH_BEFORE " LIMIT 1", w, em);
}

void query_node_mesh(struct fsm *f, const char *node_id, struct mp_writer *w, struct mp_doc *d)
{
    if (fsm_level(f) < LEVEL_MESH) {
        return;
    }
    struct db_stmt *st = db_prepare(fsm_db(f), FSM_SQL_NODE_MESH " WHERE m.node_id = ?");
    db_bind_text(st, node_id);
    mp_doc_key(w, d, "mesh");
    if (db_step(st) == 1) {
        fsm_doc_row(st, w);
    } else {
        mp_put_nil(w); /* as the cluster says */
    }
    db_done(st);
}

static const struct query_finder intent_finder = {
    .noun = "intent",
    .list = "rap intent list",
    .by_id = "SELECT id FROM cluster_route_intents WHERE id = ?",
    .by_name = "SELECT id FROM cluster_route_intents WHERE name = ?",
    .by_range = "SELECT id FROM cluster_route_intents WHERE id >= ? AND id < ? LIMIT 2",
};
static const struct query_finder pool_finder = {
    .noun = "pool",
    .list = "rap pool list",
    .by_id = "SELECT id FROM egress_pools WHERE id = ?",
    .by_name = "SELECT id FROM egress_pools WHERE name = ?",
    .by_range = "SELECT id FROM egress_pools WHERE id >= ? AND id < ? LIMIT 2",
};

/* Names are an organization's: ORG/NAME tells two of them apart. */
static const struct query_finder resource_finder = {
    .noun = "resource",
    .list = "rap resource list",
    .by_id = "SELECT id FROM organization_resources WHERE id = ?",
    .by_name = "SELECT id FROM organization_resources WHERE organization_id || '/' || name = ?",
    .by_name2 = "SELECT id FROM organization_resources WHERE name = ? LIMIT 2",
    .by_range = "SELECT id FROM organization_resources WHERE id >= ? AND id < ? LIMIT 2",
};

int query_intents(struct db *db, const struct query_args *args, struct mp_writer *w,
                  struct errmsg *em)
{
    return query_list_or_one(db, &intent_finder, FSM_SQL_INTENT " WHERE i.id = ?",
                             FSM_SQL_INTENT " WHERE i.id > ?1 ORDER BY i.id LIMIT ?2", args, w, em);
}

int query_intents_bare(struct db *db, const struct query_args *args, struct mp_writer *w,
                       struct errmsg *em)
{
    return query_list_or_one(db, &intent_finder, FSM_SQL_INTENT_BARE " WHERE i.id = ?",
                             FSM_SQL_INTENT_BARE " WHERE i.id > ?1 ORDER BY i.id LIMIT ?2", args, w,
                             em);
}

int query_resources(struct db *db, const struct query_args *args, struct mp_writer *w,
                    struct errmsg *em)
{
    return query_list_or_one(db, &resource_finder, FSM_SQL_RESOURCE " WHERE r.id = ?",
                             FSM_SQL_RESOURCE " WHERE r.id > ?1 ORDER BY r.id LIMIT ?2", args, w,
                             em);
}

int query_pools(struct db *db, const struct query_args *args, struct mp_writer *w,
                struct errmsg *em)
{
    return query_list_or_one(db, &pool_finder, FSM_SQL_POOL " WHERE p.id = ?",
                             FSM_SQL_POOL " WHERE p.id > ?1 ORDER BY p.id LIMIT ?2", args, w, em);
}

/* What is in force, a class without a row of its own included. */
int query_qos(struct db *db, const struct query_args *args, struct mp_writer *w, struct errmsg *em)
{
    struct overlay_qos def[OVERLAY_CLASSES];
    struct mp_doc d;
    (void)args;
    (void)em;
    overlay_qos_default(def);
    mp_doc_begin(w, &d);
    mp_doc_key(w, &d, "items");
    mp_put_array(w, OVERLAY_CLASSES);
    for (int i = 0; i < OVERLAY_CLASSES; i++) {
        struct mp_doc item;
        struct db_stmt *st = db_prepare(db, FSM_SQL_QOS " WHERE q.channel_class = ?");
        db_bind_text(st, qos_class_names[i]);
        bool own = db_step(st) == 1;
        int64_t rate = own ? db_col_int(st, "rate") : def[i].rate_kbps;
        mp_doc_begin(w, &item);
        mp_doc_str(w, &item, "channel_class", qos_class_names[i]);
        mp_doc_bool(w, &item, "configured", own);
        mp_doc_int(w, &item, "priority", own ? db_col_int(st, "priority") : def[i].priority);
        mp_doc_key(w, &item, "rate");
        if (rate == 0) {
            mp_put_nil(w);
        } else {
            mp_put_i64(w, rate);
        }
        mp_doc_bool(w, &item, "droppable", own ? db_col_int(st, "droppable") != 0 : def[i].early);
        mp_doc_int(w, &item, "floor_permille",
                   own ? db_col_int(st, "floor_permille") : def[i].floor_permille);
        mp_doc_int(w, &item, "limit_kib",
                   own ? db_col_int(st, "limit_kib") : def[i].limit_bytes >> 10);
        mp_doc_int(w, &item, "life_ms", own ? db_col_int(st, "life_ms") : def[i].life_ms);
        mp_doc_end(w, &item);
        db_done(st);
    }
    mp_doc_str(w, &d, "next_cursor", NULL);
    mp_doc_end(w, &d);
    return 0;
}
