/* What changed of the overlay's links and routes, from the leader's memory into the log: coarsely, as health
 * is (DESIGN D11). A node's report is compared with the state only when it differs from the one before;
 * what does not fit into an entry waits for the next. */
#include "authority/authority_impl.h"

#include "wire/cmd_mesh.h"

#define AGAIN_INTERVALS 4 /* a link that flaps is written once in so many reports: a minute */

struct changes {
    struct authority *a;
    int64_t now_ms, again_ms;
    struct buf links, routes;
    uint32_t link_count, route_count;
    bool full, early; /* some did not fit; some were written too lately */
};

/* What the state has of a pair: "" and 0 when nothing. */
struct stored {
    char status[17], path[UUID_TEXT_MAX], intent[UUID_TEXT_MAX];
    int64_t reported_at_ms;
};

static void read_stored(struct changes *c, bool route, const char *from, const char *to,
                        struct stored *ret)
{
    struct db_stmt *st = db_prepare(
        state_db(c->a),
        route ? "SELECT health AS status, coalesce(path, '') AS path, intent_id, reported_at"
                " FROM mesh_routes WHERE id = ?1 || '.' || ?2"
              : "SELECT status, '' AS path, '' AS intent_id, reported_at FROM mesh_links"
                " WHERE from_node_id = ?1 AND to_node_id = ?2");
    *ret = (struct stored){.status = ""};
    db_bind_text(st, from);
    db_bind_text(st, to);
    if (db_step(st) == 1) {
        (void)snprintf(ret->status, sizeof ret->status, "%s", db_col_text(st, "status"));
        (void)snprintf(ret->path, sizeof ret->path, "%s", db_col_text(st, "path"));
        (void)snprintf(ret->intent, sizeof ret->intent, "%s", db_col_text(st, "intent_id"));
        ret->reported_at_ms = db_col_int(st, "reported_at");
    }
    db_done(st);
}

/* Whether it may be written now; else it is looked at again. */
static bool may_write(struct changes *c, const struct stored *held, uint32_t count)
{
    if (count == MESH_CHANGES_MAX) {
        c->full = true;
        return false;
    }
    if (held->reported_at_ms != 0 && c->now_ms - held->reported_at_ms < c->again_ms) {
        c->early = true;
        return false;
    }
    return true;
}

static void put_link(struct changes *c, const struct live_node *n, const char *from,
                     const struct uuid *peer, const struct live_link *l)
{
    struct stored held;
    char to[UUID_TEXT_MAX];
    const char *status = l == NULL ? "down" : l->status;
    uuid_format(peer, to);
    read_stored(c, false, from, to, &held);
    if (strcmp(held.status, status) == 0 || !may_write(c, &held, c->link_count)) {
        return;
    }
    const struct mesh_link_seen m = {
        .from_node_id = n->node_id,
        .to_node_id = *peer,
        .status = blob_str(status),
        .rtt_us = l == NULL ? 0 : l->rtt_us,
        .loss_permille = l == NULL ? 1000 : l->loss_permille,
        .reported_at_ms = c->now_ms,
    };
    msg_list_add(&mesh_link_seen_desc, &m, &c->links, &c->link_count);
}

static const struct live_link *reported(const struct live_node *n, const struct uuid *to)
{
    for (uint32_t i = 0; n->mesh != NULL && i < n->mesh->links; i++) {
        if (uuid_equal(&n->mesh->link[i].to, to)) {
            return &n->mesh->link[i];
        }
    }
    return NULL;
}

/* Those that the state has and the node reports no more are down. */
static void put_lost(struct changes *c, const struct live_node *n, const char *from)
{
    struct uuid lost[MESH_LINKS_KEPT];
    size_t count = 0;
    struct db_stmt *st = db_prepare(state_db(c->a),
                                    "SELECT to_node_id FROM mesh_links WHERE from_node_id = ?"
                                    " AND status <> 'down'");
    db_bind_text(st, from);
    while (count < ARRAY_SIZE(lost) && db_step(st) == 1) {
        if (uuid_parse(db_col_text(st, "to_node_id"), &lost[count]) == 0 &&
            reported(n, &lost[count]) == NULL) {
            count++;
        }
    }
    db_done(st);
    for (size_t i = 0; i < count; i++) {
        put_link(c, n, from, &lost[i], NULL);
    }
}

static void put_route(struct changes *c, const struct live_node *n, const char *from,
                      const struct live_route *r)
{
    struct stored held;
    char to[UUID_TEXT_MAX];
    char hop[UUID_TEXT_MAX] = "";
    char intent[UUID_TEXT_MAX] = "";
    uuid_format(&r->to, to);
    if (!uuid_is_nil(&r->next_hop)) {
        uuid_format(&r->next_hop, hop);
    }
    if (!uuid_is_nil(&r->intent)) {
        uuid_format(&r->intent, intent);
    }
    read_stored(c, true, from, to, &held);
    bool same = strcmp(held.intent, intent) == 0 &&
                (intent[0] == '\0' ||
                 (strcmp(held.status, r->status) == 0 && strcmp(held.path, hop) == 0));
    if (same || !may_write(c, &held, c->route_count)) {
        return;
    }
    const struct mesh_route_seen m = {
        .from_node_id = n->node_id,
        .to_node_id = r->to,
        .intent_id = r->intent,
        .next_hop_id = r->next_hop,
        .metric_us = r->metric_us,
        .health = blob_str(r->status),
        .reported_at_ms = c->now_ms,
    };
    msg_list_add(&mesh_route_seen_desc, &m, &c->routes, &c->route_count);
}

static void compare(struct changes *c, struct live_node *n)
{
    char from[UUID_TEXT_MAX];
    uuid_format(&n->node_id, from);
    c->early = false;
    put_lost(c, n, from);
    for (uint32_t i = 0; n->mesh != NULL && i < n->mesh->links; i++) {
        if (n->mesh->link[i].relay) { /* others are seen from their own end */
            put_link(c, n, from, &n->mesh->link[i].to, &n->mesh->link[i]);
        }
    }
    for (uint32_t i = 0; n->mesh != NULL && i < n->mesh->routes; i++) {
        put_route(c, n, from, &n->mesh->route[i]);
    }
    n->mesh_changed = c->full || c->early;
}

static void logged(void *data, int rc, struct blob doc)
{
    struct authority *a = data;
    (void)rc; /* the next comparison finds it again */
    (void)doc;
    a->mesh_logging = false;
}

void mesh_log_tick(struct authority *a)
{
    uint64_t now = authority_mono_ms();
    uint32_t interval_ms = health_interval_ms(a);
    if (a->mesh_logging || now < a->mesh_log_ms + interval_ms / 3 ||
        fsm_level(a->fsm) < LEVEL_MESH_LOG) {
        return;
    }
    struct changes c = {
        .a = a, .now_ms = authority_now_ms(a), .again_ms = (int64_t)interval_ms * AGAIN_INTERVALS};
    buf_init(&c.links, CMD_BODY_MAX);
    buf_init(&c.routes, CMD_BODY_MAX);
    for (struct live_node *n = a->live; n != NULL && !c.full; n = n->hh.next) {
        if (n->mesh_changed) {
            compare(&c, n);
        }
    }
    a->mesh_log_ms = now;
    if (c.link_count > 0 || c.route_count > 0) {
        const struct mesh_log body = {
            .links = {.raw = buf_blob(&c.links), .count = c.link_count},
            .routes = {.raw = buf_blob(&c.routes), .count = c.route_count}};
        struct buf args;
        buf_init(&args, CMD_BODY_MAX);
        msg_encode(&mesh_log_desc, &body, &args);
        a->mesh_logging = true;
        call_internal(a, "mesh.log", buf_blob(&args), NULL, ACTOR_SYSTEM, "", logged, a);
        buf_fini(&args);
    }
    buf_fini(&c.links);
    buf_fini(&c.routes);
}
