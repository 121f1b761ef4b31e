/* Egress pools (SPEC RTE-03) and what queues of relays do (SPEC QOS-01). */
#include "authority/fsm_intent.h"
#include "authority/fsm_peers.h"

struct pool_row {
    char id[UUID_TEXT_MAX];
    char name[NAME_MAX_BYTES + 1];
};

static int get_pool(struct fsm_ctx *x, const struct uuid *pool_id, struct pool_row *ret)
{
    struct db_stmt *st = db_prepare(x->db, "SELECT name FROM egress_pools WHERE id = ?");
    db_bind_text(st, fsm_id(pool_id, ret->id));
    int rc = db_step(st);
    (void)snprintf(ret->name, sizeof ret->name, "%s", rc == 1 ? db_col_text(st, "name") : "");
    db_done(st);
    return rc == 0
               ? fsm_refuse(x, -ERR_NOT_FOUND, "there is no pool %s: see `rap pool list`", ret->id)
           : rc < 0 ? rc
                    : 0;
}

int fsm_pool_create(struct fsm_ctx *x, const struct pool_create *b)
{
    char id[UUID_TEXT_MAX];
    int64_t count = 0;
    if (!text_is_name((const char *)b->name.data, b->name.len)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a pool name is 1 to 63 of a-z, 0-9 and -, with no - at either end");
    }
    struct db_stmt *st = db_prepare(x->db, "SELECT 1 FROM egress_pools WHERE name = ?");
    db_bind_textn(st, (const char *)b->name.data, b->name.len);
    int rc = fsm_exists(st);
    if (rc == 1) {
        return fsm_refuse(x, -ERR_NAME_TAKEN, "there is a pool %.*s already", (int)b->name.len,
                          (const char *)b->name.data);
    }
    rc = rc < 0 ? rc : fsm_one_int(db_prepare(x->db, "SELECT count(*) FROM egress_pools"), &count);
    if (rc < 0) {
        return rc;
    }
    if (count >= POOLS_MAX) {
        return fsm_refuse(x, -ERR_TOO_LARGE, "there are %d pools: delete one first", POOLS_MAX);
    }
    st = db_prepare(x->db, "INSERT INTO egress_pools (id, cluster_id, name, organization_id,"
                           " created_at) VALUES (?, ?, ?, ?, ?)");
    db_bind_text(st, fsm_id(&b->pool_id, id));
    db_bind_text(st, x->cluster_id);
    db_bind_textn(st, (const char *)b->name.data, b->name.len);
    db_bind_opt(st, b->organization_id);
    db_bind_int(st, x->now_ms);
    rc = db_run(st);
    rc = rc != 0 ? rc : fsm_intents_pool(x, id);
    rc = rc != 0 ? rc : fsm_audit_simple(x, "egress_pool_created", "pool", id, "name", b->name);
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_POOL " WHERE p.id = ?", id);
}

static int not_needed(struct fsm_ctx *x, const struct pool_row *pool)
{
    if (x->v->level < LEVEL_RESOURCES) {
        return 0;
    }
    struct db_stmt *st = db_prepare(x->db, "SELECT 1 FROM organization_resources"
                                           " WHERE egress_pool_id = ?");
    db_bind_text(st, pool->id);
    int rc = fsm_exists(st);
    return rc == 1 ? fsm_refuse(x, -ERR_CONFLICT,
                                "a resource is served by pool %s: `rap resource set` or `rap "
                                "resource delete` it first",
                                pool->name)
                   : rc;
}

int fsm_pool_delete(struct fsm_ctx *x, const struct pool_delete *b)
{
    struct pool_row pool;
    int rc = get_pool(x, &b->pool_id, &pool);
    if (rc != 0) {
        return rc;
    }
    rc = fsm_intents_none_about(x, "pool", pool.id, pool.name);
    rc = rc != 0 ? rc : not_needed(x, &pool);
    rc = rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_POOL " WHERE p.id = ?", pool.id);
    rc = rc != 0 ? rc : fsm_intents_pool(x, pool.id);
    static const char *const sql[] = {"DELETE FROM egress_pool_members WHERE pool_id = ?",
                                      "DELETE FROM egress_pools WHERE id = ?"};
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(sql); i++) {
        struct db_stmt *st = db_prepare(x->db, sql[i]);
        db_bind_text(st, pool.id);
        rc = db_run(st);
    }
    return rc != 0 ? rc
                   : fsm_audit_simple(x, "egress_pool_deleted", "pool", pool.id, "name",
                                      blob_str(pool.name));
}

static int check_member(struct fsm_ctx *x, const struct pool_row *pool, const struct fsm_node *n,
                        bool removed)
{
    int64_t count = 0;
    struct db_stmt *st = db_prepare(x->db, "SELECT 1 FROM egress_pool_members WHERE pool_id = ?"
                                           " AND node_id = ?");
    db_bind_text(st, pool->id);
    db_bind_text(st, n->id);
    int rc = fsm_exists(st);
    if (rc < 0) {
        return rc;
    }
    if ((rc == 1) != removed) {
        return fsm_refuse(x, -ERR_DECIDED, "node %s is %s pool %s already", n->name,
                          removed ? "not in" : "in", pool->name);
    }
    st = db_prepare(x->db, "SELECT count(*) FROM egress_pool_members WHERE pool_id = ?");
    db_bind_text(st, pool->id);
    rc = fsm_one_int(st, &count);
    if (rc >= 0 && !removed && count >= POOL_MEMBERS_MAX) {
        return fsm_refuse(x, -ERR_TOO_LARGE, "pool %s has %d nodes: remove one first", pool->name,
                          POOL_MEMBERS_MAX);
    }
    return rc < 0 ? rc : 0;
}

int fsm_pool_member(struct fsm_ctx *x, const struct pool_member *b)
{
    struct pool_row pool;
    struct fsm_node n;
    int rc = get_pool(x, &b->pool_id, &pool);
    if (rc == 0) {
        rc = b->removed ? fsm_node_get(x, &b->node_id, &n)
                        : fsm_node_get_active(x, &b->node_id, &n);
    }
    rc = rc != 0 ? rc : check_member(x, &pool, &n, b->removed);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, b->removed ? "DELETE FROM egress_pool_members WHERE pool_id = ?1 AND node_id = ?2"
                          : "INSERT INTO egress_pool_members (pool_id, node_id, cluster_id,"
                            " added_at) VALUES (?1, ?2, ?3, ?4)");
    db_bind_text(st, pool.id);
    db_bind_text(st, n.id);
    if (!b->removed) {
        db_bind_text(st, x->cluster_id);
        db_bind_int(st, x->now_ms);
    }
    rc = db_run(st);
    rc = rc != 0 ? rc : fsm_intents_pool(x, pool.id);
    rc = rc != 0
             ? rc
             : fsm_audit_simple(x,
                                b->removed ? "egress_pool_node_removed" : "egress_pool_node_added",
                                "pool", pool.id, "node_id", blob_str(n.id));
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_POOL " WHERE p.id = ?", pool.id);
}

int fsm_pool_forget_node(struct fsm_ctx *x, const char *node_id)
{
    struct node_ids pools = {0};
    struct db_stmt *st = db_prepare(x->db, "SELECT pool_id FROM egress_pool_members"
                                           " WHERE node_id = ? ORDER BY pool_id");
    db_bind_text(st, node_id);
    int rc = node_ids_read(st, "pool_id", &pools);
    for (size_t i = 0; rc == 0 && i < pools.count; i++) {
        st = db_prepare(x->db, "DELETE FROM egress_pool_members WHERE pool_id = ?"
                               " AND node_id = ?");
        db_bind_text(st, pools.id[i]);
        db_bind_text(st, node_id);
        rc = db_run(st);
        rc = rc != 0 ? rc : fsm_intents_pool(x, pools.id[i]);
    }
    node_ids_fini(&pools);
    return rc;
}

/* --- queues --- */

static int check_qos(struct fsm_ctx *x, const struct qos_set *b)
{
    bool control = blob_equal(b->channel_class, blob_str("control"));
    if (word_number(qos_class_names, b->channel_class) == 0) {
        return fsm_refuse(x, -ERR_INVALID,
                          "classes: control, interactive, reliable, bulk, droppable");
    }
    if (b->reset) {
        return 0;
    }
    if (b->priority > QOS_PRIORITY_MAX || b->floor_permille > QOS_FLOOR_PERMILLE_MAX ||
        b->rate_kbps > QOS_RATE_KBPS_MAX || b->limit_kib < QOS_LIMIT_KIB_MIN ||
        b->limit_kib > QOS_LIMIT_KIB_MAX || b->life_ms < QOS_LIFE_MS_MIN ||
        b->life_ms > QOS_LIFE_MS_MAX) {
        return fsm_refuse(x, -ERR_INVALID,
                          "priority 0 to %d, floor 0 to %d permille, rate up to %u kbit/s, limit "
                          "%d to %d KiB, life %d to %d ms",
                          QOS_PRIORITY_MAX, QOS_FLOOR_PERMILLE_MAX, QOS_RATE_KBPS_MAX,
                          QOS_LIMIT_KIB_MIN, QOS_LIMIT_KIB_MAX, QOS_LIFE_MS_MIN, QOS_LIFE_MS_MAX);
    }
    if (control && (b->priority != 0 || b->rate_kbps != 0 || b->droppable)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "control keeps priority 0, has no rate and is not droppable: the cluster "
                          "is run over it");
    }
    return 0;
}

static int write_qos(struct fsm_ctx *x, const struct qos_set *b)
{
    if (b->reset) {
        struct db_stmt *st = db_prepare(x->db, "DELETE FROM qos_policies WHERE channel_class = ?");
        db_bind_textn(st, (const char *)b->channel_class.data, b->channel_class.len);
        return db_run(st);
    }
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO qos_policies (channel_class, cluster_id, priority, rate, droppable,"
               " floor_permille, limit_kib, life_ms, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
               " ON CONFLICT DO UPDATE SET priority = excluded.priority, rate = excluded.rate,"
               " droppable = excluded.droppable, floor_permille = excluded.floor_permille,"
               " limit_kib = excluded.limit_kib, life_ms = excluded.life_ms,"
               " updated_at = excluded.updated_at");
    db_bind_textn(st, (const char *)b->channel_class.data, b->channel_class.len);
    db_bind_text(st, x->cluster_id);
    db_bind_int(st, (int64_t)b->priority);
    if (b->rate_kbps == 0) {
        db_bind_null(st);
    } else {
        db_bind_int(st, (int64_t)b->rate_kbps);
    }
    db_bind_int(st, b->droppable);
    db_bind_int(st, (int64_t)b->floor_permille);
    db_bind_int(st, (int64_t)b->limit_kib);
    db_bind_int(st, (int64_t)b->life_ms);
    db_bind_int(st, x->now_ms);
    return db_run(st);
}

int fsm_qos_set(struct fsm_ctx *x, const struct qos_set *b)
{
    char class[17];
    int rc = check_qos(x, b);
    rc = rc != 0 ? rc : write_qos(x, b);
    if (rc != 0) {
        return rc;
    }
    x->config_changed = true; /* any node may come to relay */
    (void)snprintf(class, sizeof class, "%.*s", (int)b->channel_class.len,
                   (const char *)b->channel_class.data);
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_int(&j, "priority", (int64_t)b->priority);
    fsm_json_int(&j, "rate_kbps", (int64_t)b->rate_kbps);
    fsm_json_int(&j, "droppable", b->droppable);
    fsm_json_int(&j, "floor_permille", (int64_t)b->floor_permille);
    fsm_json_int(&j, "limit_kib", (int64_t)b->limit_kib);
    fsm_json_int(&j, "life_ms", (int64_t)b->life_ms);
    const struct fsm_audit a = {.event = b->reset ? "qos_policy_reset" : "qos_policy_set",
                                .subject_type = "qos_class",
                                .subject_id = class};
    rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    if (rc == 0 && b->reset) {
        struct mp_doc d;
        mp_doc_begin(&x->doc, &d);
        mp_doc_str(&x->doc, &d, "channel_class", class);
        mp_doc_bool(&x->doc, &d, "reset", true);
        mp_doc_end(&x->doc, &d);
        return 0;
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_QOS " WHERE q.channel_class = ?", class);
}
