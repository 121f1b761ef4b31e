/* Links and routes of the overlay as observations (SPEC RTE-09): written when they changed, not audited, for
 * nothing was decided. Whoever is no active member is left out. */
#include "authority/fsm_impl.h"

static int is_member(struct fsm_ctx *x, const char *node_id)
{
    struct db_stmt *st = db_prepare(x->db, "SELECT 1 FROM cluster_memberships WHERE node_id = ?"
                                           " AND membership_status = 'active'");
    db_bind_text(st, node_id);
    return fsm_exists(st);
}

static int both_members(struct fsm_ctx *x, const struct uuid *from, const struct uuid *to,
                        char from_text[UUID_TEXT_MAX], char to_text[UUID_TEXT_MAX])
{
    int rc = is_member(x, fsm_id(from, from_text));
    return rc == 1 ? is_member(x, fsm_id(to, to_text)) : rc;
}

/* The oldest of a node's rows go when there are too many. */
static int keep_few(struct fsm_ctx *x, const char *sql, const char *from, int64_t kept)
{
    struct db_stmt *st = db_prepare(x->db, sql);
    db_bind_text(st, from);
    db_bind_int(st, kept);
    return db_run(st);
}

static int put_link(struct fsm_ctx *x, const struct mesh_link_seen *c)
{
    static const char *const states[] = {"up", "suspect", "trying", "down", NULL};
    char from[UUID_TEXT_MAX];
    char to[UUID_TEXT_MAX];
    int rc = both_members(x, &c->from_node_id, &c->to_node_id, from, to);
    if (rc != 1 || word_number(states, c->status) == 0) {
        return rc < 0 ? rc : 0;
    }
    struct db_stmt *st = db_prepare(
        x->db,
        "INSERT INTO mesh_links (cluster_id, from_node_id, to_node_id, status, latency, loss,"
        " reported_at) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " status = excluded.status, latency = excluded.latency, loss = excluded.loss,"
        " reported_at = excluded.reported_at");
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, from);
    db_bind_text(st, to);
    db_bind_textn(st, (const char *)c->status.data, c->status.len);
    db_bind_int(st, (int64_t)(c->rtt_us < UINT32_MAX ? c->rtt_us : UINT32_MAX));
    db_bind_int(st, (int64_t)(c->loss_permille < 1000 ? c->loss_permille : 1000));
    db_bind_int(st, c->reported_at_ms);
    rc = db_run(st);
    return rc != 0 ? rc
                   : keep_few(x,
                              "DELETE FROM mesh_links WHERE (from_node_id, to_node_id) IN"
                              " (SELECT from_node_id, to_node_id FROM mesh_links"
                              "  WHERE from_node_id = ? ORDER BY status = 'down', reported_at DESC,"
                              "  to_node_id LIMIT 1 OFFSET ?)",
                              from, MESH_LINKS_KEPT);
}

static int put_route(struct fsm_ctx *x, const struct mesh_route_seen *c)
{
    char from[UUID_TEXT_MAX];
    char to[UUID_TEXT_MAX];
    char intent[UUID_TEXT_MAX];
    char hop[UUID_TEXT_MAX];
    char id[2 * UUID_TEXT_MAX];
    int rc = both_members(x, &c->from_node_id, &c->to_node_id, from, to);
    if (rc != 1) {
        return rc < 0 ? rc : 0;
    }
    (void)snprintf(id, sizeof id, "%s.%s", from, to);
    if (uuid_is_nil(&c->intent_id)) { /* no intent decides any more */
        struct db_stmt *st = db_prepare(x->db, "DELETE FROM mesh_routes WHERE id = ?");
        db_bind_text(st, id);
        return db_run(st);
    }
    bool usable = !uuid_is_nil(&c->next_hop_id);
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO mesh_routes (id, cluster_id, from_node_id, to_node_id, intent_id, path,"
               " path_kind, score, health, reported_at, expires_at)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
               " ON CONFLICT (id) DO UPDATE SET intent_id = excluded.intent_id,"
               " path = excluded.path, path_kind = excluded.path_kind, score = excluded.score,"
               " health = excluded.health, reported_at = excluded.reported_at,"
               " expires_at = excluded.expires_at");
    const char *kind = uuid_equal(&c->next_hop_id, &c->to_node_id) ? "direct" : "relayed";
    db_bind_text(st, id);
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, from);
    db_bind_text(st, to);
    db_bind_text(st, fsm_id(&c->intent_id, intent));
    db_bind_opt(st, usable ? blob_str(fsm_id(&c->next_hop_id, hop)) : blob_of(NULL, 0));
    db_bind_opt(st, usable ? blob_str(kind) : blob_of(NULL, 0));
    db_bind_int(st, (int64_t)(c->metric_us < UINT32_MAX ? c->metric_us : UINT32_MAX));
    db_bind_textn(st, (const char *)c->health.data, c->health.len);
    db_bind_int(st, c->reported_at_ms);
    db_bind_int(st, c->reported_at_ms + MESH_ROUTE_LIFE_MS);
    rc = db_run(st);
    return rc != 0 ? rc
                   : keep_few(x,
                              "DELETE FROM mesh_routes WHERE id IN (SELECT id FROM mesh_routes"
                              "  WHERE from_node_id = ? ORDER BY reported_at DESC, id"
                              "  LIMIT 1 OFFSET ?)",
                              from, ROUTE_SAMPLES_MAX);
}

int fsm_mesh_log(struct fsm_ctx *x, const struct mesh_log *b)
{
    struct mp_reader r;
    int rc = 0;
    mp_reader_init(&r, b->links.raw);
    for (uint32_t i = 0; rc == 0 && i < b->links.count; i++) {
        struct mesh_link_seen c;
        if (msg_decode(&mesh_link_seen_desc, MSG_STRICT, mp_get_bin(&r, SIZE_MAX), &c) != 0) {
            /* Not a reason to stop: whoever leads could then stop everybody. */
            return fsm_refuse(x, -ERR_MALFORMED, "an observation does not decode");
        }
        rc = put_link(x, &c);
    }
    mp_reader_init(&r, b->routes.raw);
    for (uint32_t i = 0; rc == 0 && i < b->routes.count; i++) {
        struct mesh_route_seen c;
        if (msg_decode(&mesh_route_seen_desc, MSG_STRICT, mp_get_bin(&r, SIZE_MAX), &c) != 0) {
            return fsm_refuse(x, -ERR_MALFORMED, "an observation does not decode");
        }
        rc = put_route(x, &c);
    }
    if (rc == 0) {
        struct mp_doc d;
        mp_doc_begin(&x->doc, &d);
        mp_doc_int(&x->doc, &d, "links", b->links.count);
        mp_doc_int(&x->doc, &d, "routes", b->routes.count);
        mp_doc_end(&x->doc, &d);
    }
    return rc;
}

int fsm_mesh_forget_node(struct fsm_ctx *x, const char *node_id)
{
    /* By one index each: rows must change in one order whatever SQLite's version. */
    static const char *const sql[] = {
        "DELETE FROM mesh_links WHERE from_node_id = ?",
        "DELETE FROM mesh_links INDEXED BY mesh_links_by_end WHERE to_node_id = ?",
        "DELETE FROM mesh_routes INDEXED BY mesh_routes_by_from WHERE from_node_id = ?",
        "DELETE FROM mesh_routes INDEXED BY mesh_routes_by_end WHERE to_node_id = ?"};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(sql); i++) {
        struct db_stmt *st = db_prepare(x->db, sql[i]);
        db_bind_text(st, node_id);
        rc = db_run(st);
    }
    return rc;
}
