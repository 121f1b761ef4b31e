#include "node/overlay_impl.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"

#define TICK_MIN_MS 2 /* between two looks at what is due */
#define SYNC_US 250000 /* how often the sessions are looked through */
#define SAVE_US 60000000
#define REFUSED_REPORT 40 /* of its messages: ten seconds, as each is repeated */
#define LOAD_FULL_BYTES (16u << 20) /* waiting in relay queues: as much as there may be */

uint64_t overlay_now_us(void)
{
    return clock_mono_ns() / 1000;
}

static uint8_t own_load(const struct overlay *o)
{
    struct fabric_overlay_counters c;
    fabric_overlay_counters(o->cfg.fabric, &c);
    size_t percent = c.queued_bytes / (LOAD_FULL_BYTES / 100);
    return (uint8_t)(percent < 100 ? percent : 100);
}

static void on_timer(uv_timer_t *timer);

/* When something is due. Probes and updates that wait for the next tick of a fixed rhythm would make every
 * pause longer by one or two of them. */
static void arm(struct overlay *o)
{
    if (o->closing) {
        return;
    }
    uint64_t now_us = overlay_now_us();
    uint64_t at_us = o->todo.next_us < o->next_sync_us ? o->todo.next_us : o->next_sync_us;
    at_us = o->next_save_us < at_us ? o->next_save_us : at_us;
    uint64_t wait_ms = at_us > now_us ? (at_us - now_us + 999) / 1000 : 0;
    wait_ms = wait_ms < TICK_MIN_MS || o->want_count > 0 ? TICK_MIN_MS : wait_ms;
    CHECK(uv_timer_start(&o->timer, on_timer, wait_ms, 0) == 0);
}

static void log_links(const struct mesh_todo *todo)
{
    for (size_t i = 0; log_enabled(LOG_DEBUG) && i < todo->news_count; i++) {
        const struct mesh_link_news *n = &todo->news[i];
        char id[UUID_TEXT_MAX];
        uuid_format(&n->id, id);
        log_debug(LOG_FABRIC, "link", "peer=%s state=%s one_way=%d", id,
                  mesh_link_state_text(n->state), (int)n->one_way);
    }
}

void overlay_step(struct overlay *o, struct mesh_event *ev)
{
    CHECK(!o->stepping);
    o->stepping = true;
    ev->now_us = overlay_now_us();
    ev->random = rng_u64();
    ev->own_load = own_load(o);
    mesh_step(o->mesh, ev, &o->todo);
    log_links(&o->todo);
    for (size_t i = 0; i < o->todo.send_count; i++) {
        const struct route_send *s = &o->todo.send[i];
        /* What is lost here is lost as on the wire: probes and updates cope. */
        (void)fabric_datagram_send(o->cfg.fabric, &s->to, blob_of(s->data, s->len));
    }
    for (size_t i = 0; i < o->todo.change_count; i++) {
        const struct mesh_peers_change *c = &o->todo.change[i];
        fabric_overlay_keep(o->cfg.fabric, &c->id, c->keep);
    }
    o->stepping = false;
    arm(o);
    if (route_generation(mesh_routes(o->mesh)) != o->generation) {
        o->generation = route_generation(mesh_routes(o->mesh));
        log_debug(LOG_FABRIC, "next hops have changed", "%s", "");
        fabric_overlay_changed(o->cfg.fabric);
    }
}

/* --- sessions --- */

struct seen {
    struct uuid *id;
    size_t count, cap;
};

static void note_session(void *data, const struct fabric_session_info *info)
{
    struct seen *s = data;
    if (info->relayed || info->bulk || !info->peer.authenticated) {
        return;
    }
    if (s->count == s->cap) {
        s->cap = s->cap == 0 ? 16 : s->cap * 2;
        s->id = xrealloc(s->id, s->cap * sizeof *s->id);
    }
    s->id[s->count++] = info->peer.identity.node_id;
}

static int by_id(const void *a, const void *b)
{
    const struct uuid *x = a;
    const struct uuid *y = b;
    return memcmp(x->b, y->b, sizeof x->b);
}

/* A session can turn from direct to relayed and back without coming or going, so they are looked
 * through instead of waiting to be told. */
static void sync_sessions(struct overlay *o)
{
    struct seen now = {.id = NULL};
    fabric_sessions(o->cfg.fabric, note_session, &now);
    if (now.count > 0) {
        qsort(now.id, now.count, sizeof *now.id, by_id);
    }
    size_t unique = 0;
    for (size_t i = 0; i < now.count; i++) {
        if (unique == 0 || !uuid_equal(&now.id[unique - 1], &now.id[i])) {
            now.id[unique++] = now.id[i];
        }
    }
    size_t was = 0;
    size_t is = 0;
    while (was < o->up_count || is < unique) {
        int order = was == o->up_count ? 1 : is == unique ? -1 : by_id(&o->up[was], &now.id[is]);
        if (order == 0) {
            was++;
            is++;
            continue;
        }
        struct mesh_event ev = {.kind = order < 0 ? MESH_SESSION_DOWN : MESH_SESSION_UP,
                                .peer = order < 0 ? o->up[was++] : now.id[is++]};
        overlay_step(o, &ev);
    }
    free(o->up);
    o->up = now.id;
    o->up_count = unique;
    o->up_cap = now.cap;
}

static void on_datagram(void *data, const struct fabric_peer *from, struct blob payload)
{
    struct overlay *o = data;
    const struct uuid *id = &from->identity.node_id;
    if (o->closing) {
        return;
    }
    if (o->up_count == 0 || bsearch(id, o->up, o->up_count, sizeof *o->up, by_id) == NULL) {
        sync_sessions(o); /* its first word comes right behind the handshake */
    }
    struct mesh_event ev = {.kind = MESH_DATAGRAM, .peer = *id, .payload = payload};
    uint64_t refused = route_refused_from(mesh_routes(o->mesh), id);
    overlay_step(o, &ev);
    if (refused < REFUSED_REPORT &&
        route_refused_from(mesh_routes(o->mesh), id) >= REFUSED_REPORT) {
        o->cfg.liar(o->cfg.data, from);
    }
}

/* --- what the fabric asks --- */

static void want(struct overlay *o, const struct uuid *to)
{
    for (size_t i = 0; i < o->want_count; i++) {
        if (uuid_equal(&o->want[i], to)) {
            return;
        }
    }
    if (o->want_count < OVERLAY_WANTS_MAX) { /* the mesh must not be stepped from in here */
        o->want[o->want_count++] = *to;
        arm(o);
    }
}

struct best_relay {
    const struct mesh *mesh;
    const struct uuid *not_this;
    uint64_t cost_us; /* of the one found, with what the owner would rather not */
    const struct mesh_link_info *found;
    struct mesh_link_info info;
};

static void consider(void *data, const struct mesh_link_info *info)
{
    struct best_relay *b = data;
    struct mesh_verdict v = mesh_judge_way(b->mesh, b->not_this, &info->id);
    uint64_t cost_us = (uint64_t)info->cost_us + v.cost_us;
    if (info->relay && !info->refused && info->link->state == MESH_LINK_UP && !v.refused &&
        !uuid_equal(&info->id, b->not_this) && (b->found == NULL || cost_us < b->cost_us)) {
        b->info = *info;
        b->found = &b->info;
        b->cost_us = cost_us;
    }
}

/* The direct path to a neighbour has gone silent, but the table still has it: a link is dead after a
 * second, and a leaf has asked for no other way yet. Any relay may know one, and one that does not drops
 * the packet. */
static int way_around(struct overlay *o, const struct uuid *to, struct uuid *ret)
{
    struct best_relay best = {.mesh = o->mesh, .not_this = to};
    want(o, to);
    mesh_links(o->mesh, overlay_now_us(), consider, &best);
    if (best.found == NULL) {
        return -ERR_UNREACHABLE;
    }
    *ret = best.info.id;
    return 0;
}

static int next_hop(void *data, const struct uuid *to, enum overlay_class class,
                    const struct uuid *avoid, struct uuid *ret)
{
    struct overlay *o = data;
    struct uuid next;
    (void)class;
    switch (mesh_next_hop(o->mesh, to, NULL, overlay_now_us(), &next)) {
        case ROUTE_NONE:
            if (avoid != NULL && uuid_equal(&next, avoid)) {
                return uuid_equal(to, avoid) ? way_around(o, to, ret) : -ERR_UNREACHABLE;
            }
            *ret = next;
            return 0;
        case ROUTE_REVOKED:
            return -ERR_REVOKED;
        case ROUTE_POLICY:
        case ROUTE_NO_ROLE:
            return -ERR_DENIED;
        case ROUTE_NO_ROUTE:
        case ROUTE_HOP_LIMIT:
        case ROUTE_UDP_BLOCKED:
            break;
    }
    want(o, to);
    return -ERR_UNREACHABLE;
}

static bool may_relay(void *data, const struct uuid *node)
{
    const struct overlay *o = data;
    return uuid_equal(node, &o->cfg.member->node_id)
               ? o->relay
               : mesh_peers_is_relay(mesh_peers(o->mesh), node);
}

static bool may_direct(void *data, const struct uuid *to)
{
    const struct overlay *o = data;
    return !mesh_judge_way(o->mesh, to, to).refused;
}

static bool may_talk(void *data, const struct uuid *peer)
{
    const struct overlay *o = data;
    return !mesh_judge_way(o->mesh, peer, peer).absolute;
}

static bool may_use(void *data, const struct uuid *peer, struct blob service)
{
    const struct overlay *o = data;
    return mesh_denies_service(o->mesh, peer, service) == NULL;
}

static enum overlay_class data_class(void *data, const struct uuid *to)
{
    const struct overlay *o = data;
    return mesh_class_to(o->mesh, to);
}

/* --- time --- */

static void on_timer(uv_timer_t *timer)
{
    struct overlay *o = timer->data;
    uint64_t now_us = overlay_now_us();
    if (o->closing) {
        return;
    }
    if (now_us >= o->next_sync_us) {
        o->next_sync_us = now_us + SYNC_US;
        sync_sessions(o);
    }
    for (size_t i = 0; i < o->want_count; i++) {
        struct mesh_event ev = {.kind = MESH_WANT, .peer = o->want[i]};
        overlay_step(o, &ev);
    }
    o->want_count = 0;
    if (now_us >= o->next_save_us) {
        o->next_save_us = now_us + SAVE_US;
        overlay_store_save(o);
    }
    if (now_us >= o->todo.next_us) {
        struct mesh_event ev = {.kind = MESH_TICK};
        overlay_step(o, &ev);
    }
    arm(o);
}

/* --- the directory --- */

static enum mesh_node_kind kind_of(struct blob kind, bool relay)
{
    return blob_equal(kind, blob_str("thin"))   ? MESH_NODE_THIN
           : relay                              ? MESH_NODE_RELAY
           : blob_equal(kind, blob_str("core")) ? MESH_NODE_CORE
                                                : MESH_NODE_NORMAL;
}

void overlay_directory(struct overlay *o, const struct config *cfg)
{
    static struct mesh_directory_entry entries[RELAYS_MAX];
    struct mesh_event ev = {.kind = MESH_DIRECTORY,
                            .own = {.id = o->cfg.member->node_id, .trust = TRUST_LEVEL_MAX},
                            .own_kind = MESH_NODE_NORMAL,
                            .entries = entries};
    struct config_iter it;
    struct snapshot_relay relay;
    struct snapshot_role role;
    struct config_mesh mesh;
    if (o->closing || cfg == NULL) {
        return;
    }
    config_mesh(cfg, &mesh);
    config_iter_init(&it, cfg->body.relays);
    while (ev.count < RELAYS_MAX && config_next_relay(&it, &relay) == 1) {
        uint64_t distrust = relay.distrust < TRUST_LEVEL_MAX ? relay.distrust : TRUST_LEVEL_MAX;
        entries[ev.count++] = (struct mesh_directory_entry){
            .id = relay.node_id,
            .relay = (relay.roles & SNAPSHOT_RELAY_NODE) != 0,
            .core = (relay.roles & SNAPSHOT_CORE_MESH) != 0,
            .scope = overlay_word_hash(relay.organization_id),
            .region = overlay_word_hash(relay.region),
            .bandwidth_mbps = relay.bandwidth_mbps < BANDWIDTH_MBPS_MAX
                                  ? (uint32_t)relay.bandwidth_mbps
                                  : BANDWIDTH_MBPS_MAX,
            .trust = (uint8_t)(TRUST_LEVEL_MAX - distrust),
        };
    }
    config_iter_init(&it, cfg->body.roles);
    while (config_next_role(&it, &role) == 1) {
        if (ev.own.scope == 0) {
            ev.own.scope = overlay_word_hash(role.organization_id);
        }
    }
    ev.own.region = overlay_word_hash(mesh.own.region);
    bool role_relays = config_has_role(cfg, "relay-node") || config_has_role(cfg, "core-mesh");
    ev.own_kind = kind_of(mesh.own.kind, role_relays);
    o->relay = ev.own_kind == MESH_NODE_RELAY;
    struct mesh_intents before = o->policy;
    struct overlay_qos qos[OVERLAY_CLASSES];
    o->policy = (struct mesh_intents){.count = 0};
    overlay_read_policy(cfg, &o->policy);
    overlay_read_qos(cfg, qos);
    ev.policy = &o->policy;
    overlay_step(o, &ev);
    mesh_intents_fini(&before);
    fabric_set_qos(o->cfg.fabric, qos);
    if (!o->loaded) { /* facts are about peers of the directory */
        o->loaded = true;
        overlay_store_load(o);
    }
}

/* --- open, close --- */

const struct mesh *overlay_mesh(const struct overlay *o)
{
    return o->mesh;
}

bool overlay_is_relay(const struct overlay *o)
{
    return o->relay;
}

struct overlay *overlay_open(const struct overlay_config *config)
{
    struct overlay *o = xcalloc(1, sizeof *o);
    o->cfg = *config;
    struct mesh_config mc = {.self = config->member->node_id,
                             .kind = MESH_NODE_NORMAL,
                             .first_seqno = (uint32_t)(clock_wall_ms() / 1000),
                             .now_us = overlay_now_us()};
    o->mesh = mesh_new(&mc);
    o->next_save_us = mc.now_us + SAVE_US;
    CHECK(uv_timer_init(config->loop, &o->timer) == 0);
    o->timer.data = o;
    arm(o);
    fabric_on_datagram(config->fabric, on_datagram, o);
    fabric_set_overlay(config->fabric, &(struct fabric_overlay){.data = o,
                                                                .next_hop = next_hop,
                                                                .may_relay = may_relay,
                                                                .may_direct = may_direct,
                                                                .data_class = data_class,
                                                                .may_talk = may_talk,
                                                                .may_use = may_use});
    log_info(LOG_FABRIC, "overlay is on", "%s", "next=\"rap route list\"");
    return o;
}

static void on_timer_closed(uv_handle_t *h)
{
    struct overlay *o = h->data;
    mesh_free(o->mesh);
    mesh_intents_fini(&o->policy);
    mesh_todo_fini(&o->todo);
    free(o->up);
    free(o);
}

void overlay_close(struct overlay *o)
{
    if (o == NULL) {
        return;
    }
    overlay_store_save(o);
    o->closing = true;
    const struct mesh_peers *p = mesh_peers(o->mesh);
    for (size_t i = 0; i < p->count; i++) {
        fabric_overlay_keep(o->cfg.fabric, &p->peer[i].entry.id, false);
    }
    fabric_set_overlay(o->cfg.fabric, NULL);
    fabric_set_qos(o->cfg.fabric, NULL);
    fabric_on_datagram(o->cfg.fabric, NULL, NULL);
    uv_close((uv_handle_t *)&o->timer, on_timer_closed);
    log_info(LOG_FABRIC, "overlay is off", "%s", "");
}
