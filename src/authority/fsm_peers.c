/* Who is told whose address (SPEC SNAP-02, SNAP-03, PEER-04). Nodes that serve one organization know each
 * other, but no more than PEERS_MAX each: those that follow a node in the ring of its organization's
 * node ids. So a change of one node concerns PEERS_MAX others, however large an organization is. Relays
 * and authorities are told to everybody, apart from this. */
#include "authority/fsm_peers.h"

#include "authority/fsm_intent.h"

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void add(struct node_ids *ids, const char *id)
{
    if (ids->count == ids->cap) {
        ids->cap = ids->cap == 0 ? 64 : ids->cap * 2;
        ids->id = xrealloc(ids->id, ids->cap * sizeof ids->id[0]);
    }
    (void)snprintf(ids->id[ids->count++], UUID_TEXT_MAX, "%s", id);
}

int node_ids_read(struct db_stmt *st, const char *column, struct node_ids *ret)
{
    int rc;
    while ((rc = db_step(st)) == 1) {
        add(ret, db_col_text(st, column));
    }
    db_done(st);
    return rc;
}

static int collect(struct db_stmt *st, struct node_ids *ret)
{
    return node_ids_read(st, "node_id", ret);
}

static void sort_unique(struct node_ids *ids)
{
    size_t n = 0;
    if (ids->count > 0) {
        qsort(ids->id, ids->count, sizeof ids->id[0], by_text);
    }
    for (size_t i = 0; i < ids->count; i++) {
        if (n == 0 || strcmp(ids->id[n - 1], ids->id[i]) != 0) {
            memmove(ids->id[n++], ids->id[i], UUID_TEXT_MAX);
        }
    }
    ids->count = n;
}

void node_ids_fini(struct node_ids *ids)
{
    free(ids->id);
    *ids = (struct node_ids){0};
}

/* PEERS_MAX steps along the ring of one organization, from a node on. */
static int walk(struct db *state, const char *organization, const char *node_id, bool forward,
                struct node_ids *ret)
{
    static const char *const steps[2][2] = {
        {"SELECT DISTINCT node_id FROM node_role_assignments WHERE organization_id = ?1 AND"
         " status = 'active' AND node_id < ?2 ORDER BY node_id DESC LIMIT ?3",
         "SELECT DISTINCT node_id FROM node_role_assignments WHERE organization_id = ?1 AND"
         " status = 'active' AND node_id > ?2 ORDER BY node_id DESC LIMIT ?3"},
        {"SELECT DISTINCT node_id FROM node_role_assignments WHERE organization_id = ?1 AND"
         " status = 'active' AND node_id > ?2 ORDER BY node_id LIMIT ?3",
         "SELECT DISTINCT node_id FROM node_role_assignments WHERE organization_id = ?1 AND"
         " status = 'active' AND node_id < ?2 ORDER BY node_id LIMIT ?3"}};
    size_t before = ret->count;
    int rc = 0;
    for (int part = 0; rc == 0 && part < 2; part++) {
        struct db_stmt *st = db_prepare(state, steps[forward][part]);
        db_bind_text(st, organization);
        db_bind_text(st, node_id);
        db_bind_int(st, (int64_t)(PEERS_MAX - (ret->count - before)));
        rc = collect(st, ret);
    }
    return rc;
}

/* Along the rings of all its organizations. */
static int ring(struct db *state, const char *node_id, bool forward, struct node_ids *ret)
{
    char organization[ROLES_MAX][65];
    size_t count = 0;
    int rc;
    struct db_stmt *st = db_prepare(
        state, "SELECT DISTINCT organization_id FROM node_role_assignments WHERE node_id = ?"
               " AND status = 'active' AND organization_id IS NOT NULL ORDER BY organization_id");
    db_bind_text(st, node_id);
    while ((rc = db_step(st)) == 1 && count < ROLES_MAX) {
        (void)snprintf(organization[count++], sizeof organization[0], "%s",
                       db_col_text(st, "organization_id"));
    }
    db_done(st);
    rc = rc < 0 ? rc : 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = walk(state, organization[i], node_id, forward, ret);
    }
    sort_unique(ret);
    return rc;
}

/* Whom an intent lets it reach directly. */
static int granted(struct db *state, unsigned level, const char *node_id, struct node_ids *ret)
{
    static const char *const sql[] = {
        "SELECT i.destination_ref AS node_id FROM cluster_route_intents i"
        " WHERE i.policy = 'direct' AND i.status = 'active'"
        " AND i.destination_kind = 'node' AND " INTENT_CONCERNS
        " UNION SELECT m.node_id FROM cluster_route_intents i JOIN egress_pool_members m"
        " ON m.pool_id = i.destination_ref WHERE i.policy = 'direct'"
        " AND i.status = 'active' AND i.destination_kind = 'pool' AND " INTENT_CONCERNS,
        "SELECT r.node_id FROM cluster_route_intents i JOIN organization_resources r"
        " ON r.id = i.destination_ref WHERE i.policy = 'direct' AND i.status = 'active'"
        " AND i.destination_kind = 'resource' AND r.node_id IS NOT NULL AND " INTENT_CONCERNS
        " UNION SELECT m.node_id FROM cluster_route_intents i JOIN organization_resources r"
        " ON r.id = i.destination_ref JOIN egress_pool_members m ON m.pool_id = r.egress_pool_id"
        " WHERE i.policy = 'direct' AND i.status = 'active'"
        " AND i.destination_kind = 'resource' AND " INTENT_CONCERNS};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < (level >= LEVEL_RESOURCES ? 2u : 1u); i++) {
        struct db_stmt *st = db_prepare(state, sql[i]);
        db_bind_text(st, node_id);
        rc = collect(st, ret);
    }
    return rc;
}

/* Those of an intent come first: the owner named them. */
int peers_of(struct db *state, unsigned level, const char *node_id, struct node_ids *ret)
{
    struct node_ids more = {0};
    *ret = (struct node_ids){0};
    int rc = level >= LEVEL_INTENTS ? granted(state, level, node_id, ret) : 0;
    sort_unique(ret);
    ret->count = ret->count > PEERS_MAX ? PEERS_MAX : ret->count;
    size_t room = PEERS_MAX - ret->count;
    rc = rc != 0 ? rc : ring(state, node_id, true, &more);
    for (size_t i = 0; rc == 0 && i < more.count && room > 0; i++) {
        bool known = false;
        for (size_t k = 0; k < ret->count; k++) {
            known = known || strcmp(ret->id[k], more.id[i]) == 0;
        }
        if (!known) {
            add(ret, more.id[i]);
            room--;
        }
    }
    node_ids_fini(&more);
    sort_unique(ret);
    return rc;
}

int fsm_nodes_config(struct fsm_ctx *x, struct db_stmt *ids)
{
    struct node_ids all = {0};
    int rc = collect(ids, &all);
    sort_unique(&all);
    /* One by one: rows must change in one order whatever SQLite's version. */
    for (size_t i = 0; rc == 0 && i < all.count; i++) {
        rc = fsm_node_config(x, all.id[i]);
    }
    node_ids_fini(&all);
    return rc;
}

int fsm_peers_changed(struct fsm_ctx *x, const char *node_id)
{
    struct node_ids all = {0};
    if (x->v->level < LEVEL_MESH) {
        return 0;
    }
    int rc = ring(x->db, node_id, false, &all);
    for (size_t i = 0; rc == 0 && i < all.count; i++) {
        rc = fsm_node_config(x, all.id[i]);
    }
    node_ids_fini(&all);
    return rc != 0 || x->v->level < LEVEL_INTENTS ? rc : fsm_intents_grant(x, node_id);
}

int fsm_peers_begin(struct fsm_ctx *x)
{
    return fsm_nodes_config(
        x, db_prepare(x->db, "SELECT DISTINCT node_id FROM node_role_assignments"
                             " WHERE organization_id IS NOT NULL AND status = 'active'"));
}
