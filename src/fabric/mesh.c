#include "fabric/mesh.h"

#include <uthash.h>

#define LEAVES_DEFAULT 256
#define LEFT_US (2 * MESH_DEAD_US) /* a link that neither end keeps is dead by then */
#define NEIGHBOURS_MAX (ROUTE_NEIGHBOURS_MAX + 64) /* some are only looked at */

struct mesh_neighbour {
    UT_hash_handle hh;
    struct uuid id;
    struct mesh_link link;
    bool routed;      /* the route table knows it */
    bool refused;     /* a leaf too many: the link is there, routes are not */
    bool wanted;      /* by mesh_peers */
    bool looking;     /* ... only to measure it */
    bool leaving;     /* not any more: the link lives on for a second, at a price */
    uint64_t left_us; /* ... since */
    struct mesh_neighbour *news_next;
    bool in_news, news_change, news_sample; /* what mesh_peers has yet to hear */
};

struct mesh {
    struct mesh_config cfg;
    uint64_t now_us;
    uint64_t random;
    uint8_t own_load;
    bool own_revoked;
    struct mesh_peers peers;
    uint64_t peers_next_ms;
    const struct mesh_intents *policy;
    struct route_table *routes;
    uint64_t routes_next_ms;
    struct mesh_neighbour *neighbours;
    struct mesh_neighbour *news;
    struct mesh_counters counters;
};

static enum route_refusal judge(void *data, const struct uuid *dst, const struct uuid *via)
{
    const struct mesh *m = data;
    const struct mesh_peer *d = mesh_peers_find(&m->peers, dst);
    const struct mesh_peer *v = mesh_peers_find(&m->peers, via);
    if ((d != NULL && d->entry.revoked) || (v != NULL && v->entry.revoked)) {
        return ROUTE_REVOKED;
    }
    bool forbidden = (d != NULL && d->entry.policy == MESH_POLICY_FORBID) ||
                     (v != NULL && v->entry.policy == MESH_POLICY_FORBID);
    return forbidden ? ROUTE_POLICY : ROUTE_NONE;
}

/* Asked for every packet: where nothing is wanted, nothing is looked up. */
static bool has_intents(const struct mesh *m)
{
    return m->policy != NULL && m->policy->count > 0;
}

struct mesh_verdict mesh_judge_way(const struct mesh *m, const struct uuid *dst,
                                   const struct uuid *next)
{
    if (!has_intents(m)) {
        return (struct mesh_verdict){.intent = NULL};
    }
    const struct mesh_peer *relay = mesh_peers_find(&m->peers, next);
    const struct mesh_way way = {.dst = *dst,
                                 .next = *next,
                                 .dst_relays = mesh_peers_is_relay(&m->peers, dst),
                                 .next_region = relay == NULL ? 0 : relay->entry.region};
    return mesh_intents_judge(m->policy, &way);
}

const struct mesh_intent *mesh_denies_service(const struct mesh *m, const struct uuid *peer,
                                              struct blob service)
{
    return !has_intents(m) ? NULL
                           : mesh_intents_deny_service(
                                 m->policy, peer, mesh_peers_is_relay(&m->peers, peer), service);
}

enum overlay_class mesh_class_to(const struct mesh *m, const struct uuid *dst)
{
    return !has_intents(m)
               ? OVERLAY_BULK
               : mesh_intents_class(m->policy, dst, mesh_peers_is_relay(&m->peers, dst));
}

static uint32_t dislike(void *data, const struct uuid *dst, const struct uuid *via)
{
    struct mesh_verdict v = mesh_judge_way(data, dst, via);
    return v.refused ? ROUTE_COST_REFUSED : v.cost_us;
}

struct mesh *mesh_new(const struct mesh_config *config)
{
    struct mesh *m = xcalloc(1, sizeof *m);
    m->cfg = *config;
    m->cfg.leaves_max = config->leaves_max == 0 ? LEAVES_DEFAULT : config->leaves_max;
    m->now_us = config->now_us;
    m->peers_next_ms = UINT64_MAX;
    m->routes_next_ms = config->now_us / 1000;
    mesh_peers_init(&m->peers, &config->self, config->kind);
    struct route_config rc = {.self = config->self,
                              .relay = config->kind == MESH_NODE_RELAY,
                              .first_seqno = config->first_seqno,
                              .now_ms = config->now_us / 1000,
                              .data = m,
                              .judge = judge,
                              .dislike = dislike};
    m->routes = route_new(&rc);
    return m;
}

void mesh_free(struct mesh *m)
{
    if (m == NULL) {
        return;
    }
    struct mesh_neighbour *n;
    struct mesh_neighbour *next;
    HASH_ITER(hh, m->neighbours, n, next)
    {
        HASH_DELETE(hh, m->neighbours, n);
        free(n);
    }
    route_free(m->routes);
    mesh_peers_fini(&m->peers);
    free(m);
}

void mesh_todo_fini(struct mesh_todo *todo)
{
    free(todo->send);
    free(todo->change);
    free(todo->news);
    *todo = (struct mesh_todo){0};
}

static struct mesh_neighbour *find(const struct mesh *m, const struct uuid *id)
{
    struct mesh_neighbour *n = NULL;
    HASH_FIND(hh, m->neighbours, id->b, sizeof id->b, n);
    return n;
}

static bool idle(const struct mesh_neighbour *n)
{
    return n->link.state == MESH_LINK_DOWN && !n->wanted && !n->in_news;
}

/* One that is remembered only for its failures. */
static bool evict(struct mesh *m)
{
    struct mesh_neighbour *n;
    struct mesh_neighbour *next;
    HASH_ITER(hh, m->neighbours, n, next)
    {
        if (idle(n)) {
            HASH_DELETE(hh, m->neighbours, n);
            free(n);
            return true;
        }
    }
    return false;
}

static struct mesh_neighbour *get(struct mesh *m, const struct uuid *id)
{
    struct mesh_neighbour *n = find(m, id);
    if (n != NULL) {
        return n;
    }
    if (HASH_COUNT(m->neighbours) >= NEIGHBOURS_MAX && !evict(m)) {
        return NULL;
    }
    n = xcalloc(1, sizeof *n);
    n->id = *id;
    mesh_link_init(&n->link);
    HASH_ADD(hh, m->neighbours, id.b, sizeof n->id.b, n);
    return n;
}

static struct route_send *add_send(struct mesh_todo *todo, const struct uuid *to)
{
    if (todo->send_count == todo->send_cap) {
        todo->send_cap = todo->send_cap == 0 ? 8 : todo->send_cap * 2;
        todo->send = xrealloc(todo->send, todo->send_cap * sizeof *todo->send);
    }
    struct route_send *s = &todo->send[todo->send_count++];
    s->to = *to;
    return s;
}

/* --- routes --- */

static void step_routes(struct mesh *m, struct route_event *ev, struct mesh_todo *todo)
{
    struct route_todo out;
    ev->now_ms = m->now_us / 1000;
    do {
        route_step(m->routes, ev, &out);
        for (unsigned i = 0; i < out.send_count; i++) {
            struct route_send *s = add_send(todo, &out.send[i].to);
            s->len = out.send[i].len;
            memcpy(s->data, out.send[i].data, s->len);
        }
        ev->kind = ROUTE_TICK;
    } while (out.send_count > 0 && out.next_ms <= ev->now_ms);
    m->routes_next_ms = out.next_ms;
}

static void tell_routes(struct mesh *m, struct mesh_neighbour *n, enum route_event_kind kind,
                        struct mesh_todo *todo)
{
    struct route_event ev = {.kind = kind,
                             .neighbour = n->id,
                             .token = n->link.token,
                             .peer_token = n->link.peer_token,
                             .cost = mesh_link_cost_us(&n->link, m->now_us) +
                                     (n->leaving ? MESH_COST_HELD_US : 0),
                             .leaving = n->leaving,
                             .relay = mesh_peers_is_relay(&m->peers, &n->id)};
    step_routes(m, &ev, todo);
}

/* A relay takes so many leaves and no more: the others see FULL and go elsewhere. */
static void admit(struct mesh *m, struct mesh_neighbour *n, struct mesh_todo *todo)
{
    bool leaf = !mesh_peers_is_relay(&m->peers, &n->id);
    if (n->looking || n->routed) {
        return;
    }
    n->refused = leaf && m->peers.kind == MESH_NODE_RELAY &&
                 route_leaf_count(m->routes) >= m->cfg.leaves_max;
    if (n->refused) {
        m->counters.leaves_refused++;
        return;
    }
    n->routed = true;
    tell_routes(m, n, ROUTE_LINK_UP, todo);
}

/* Before it goes, others are told how to reach us without it, and we look for ways without it. */
static void set_leaving(struct mesh *m, struct mesh_neighbour *n, bool leaving,
                        struct mesh_todo *todo)
{
    if (n->routed && n->leaving != leaving) {
        n->leaving = leaving;
        n->left_us = m->now_us;
        if (leaving) {
            tell_routes(m, n, ROUTE_RENEW, todo);
        }
        tell_routes(m, n, ROUTE_LINK_COST, todo);
    }
}

static void leave_routes(struct mesh *m, struct mesh_neighbour *n, struct mesh_todo *todo)
{
    if (n->routed) {
        n->routed = n->leaving = false;
        tell_routes(m, n, ROUTE_LINK_DOWN, todo);
    }
}

/* --- links --- */

static void note_news(struct mesh *m, struct mesh_neighbour *n)
{
    if (!n->in_news) {
        n->in_news = true;
        n->news_next = m->news;
        m->news = n;
    }
}

static uint8_t relay_load(const struct mesh *m)
{
    size_t leaves = route_leaf_count(m->routes) * 100 / m->cfg.leaves_max;
    return leaves > m->own_load ? (uint8_t)(leaves < 100 ? leaves : 100) : m->own_load;
}

static void add_news(const struct mesh_neighbour *n, struct mesh_todo *todo)
{
    if (todo->news_count == todo->news_cap) {
        todo->news_cap = todo->news_cap == 0 ? 8 : todo->news_cap * 2;
        todo->news = xrealloc(todo->news, todo->news_cap * sizeof *todo->news);
    }
    todo->news[todo->news_count++] = (struct mesh_link_news){
        .id = n->id, .state = n->link.state, .one_way = n->link.one_way};
}

static void step_link(struct mesh *m, struct mesh_neighbour *n, struct mesh_link_event *ev,
                      struct mesh_todo *todo)
{
    enum mesh_link_state was = n->link.state;
    struct mesh_link_todo out;
    ev->now_us = m->now_us;
    ev->random = m->random += 0x9e3779b97f4a7c15ULL;
    ev->own_load = relay_load(m);
    ev->own_full = n->refused;
    bool full = n->link.peer_full;
    mesh_link_step(&n->link, ev, &out);
    if (n->link.state != was) {
        add_news(n, todo);
    }
    for (unsigned i = 0; i < out.send_count; i++) {
        struct route_send *s = add_send(todo, &n->id);
        s->len = mesh_probe_encode(&out.send[i], s->data);
        m->counters.probes_out += out.send[i].type == MESH_PROBE;
    }
    m->counters.links_suspect += out.suspected;
    switch (out.change) {
        case MESH_LINK_SAME:
            break;
        case MESH_LINK_CAME_UP:
            m->counters.links_up++;
            n->news_change = true;
            admit(m, n, todo);
            break;
        case MESH_LINK_WENT_DOWN:
            m->counters.links_down++;
            m->counters.links_one_way += n->link.one_way;
            n->news_change = true;
            n->refused = false;
            leave_routes(m, n, todo);
            break;
    }
    if (out.cost_moved && out.change != MESH_LINK_CAME_UP && n->routed) {
        tell_routes(m, n, ROUTE_LINK_COST, todo);
    }
    n->news_sample = n->news_sample || out.cost_moved || full != n->link.peer_full;
    if (n->news_change || n->news_sample) {
        note_news(m, n);
    }
}

static bool link_alive(const struct mesh_neighbour *n)
{
    return n->link.state == MESH_LINK_UP || n->link.state == MESH_LINK_SUSPECT;
}

/* --- peers --- */

static void step_peers(struct mesh *m, struct mesh_peers_event *ev, struct mesh_todo *todo)
{
    struct mesh_peers_todo out;
    ev->now_ms = m->now_us / 1000;
    ev->random = m->random += 0x9e3779b97f4a7c15ULL;
    mesh_peers_step(&m->peers, ev, &out);
    m->peers_next_ms = out.next_ms;
    for (unsigned i = 0; i < out.count; i++) {
        if (todo->change_count == todo->change_cap) {
            todo->change_cap = todo->change_cap == 0 ? 8 : todo->change_cap * 2;
            todo->change = xrealloc(todo->change, todo->change_cap * sizeof *todo->change);
        }
        todo->change[todo->change_count++] = out.change[i];
        struct mesh_neighbour *n = get(m, &out.change[i].id);
        if (n != NULL) {
            n->wanted = out.change[i].keep;
            n->looking = out.change[i].look;
            set_leaving(m, n, !n->wanted, todo);
            struct mesh_link_event active = {.kind = MESH_LINK_ACTIVE, .active = n->wanted};
            step_link(m, n, &active, todo);
            if (n->wanted && link_alive(n)) { /* the other end had it up already */
                n->news_change = true;
                note_news(m, n);
                admit(m, n, todo);
            }
        }
    }
}

/* What links have to tell; telling may bring more. */
static void tell_peers(struct mesh *m, struct mesh_todo *todo)
{
    while (m->news != NULL) {
        struct mesh_neighbour *n = m->news;
        m->news = n->news_next;
        n->in_news = false;
        if (n->news_change) {
            n->news_change = false;
            struct mesh_peers_event ev = {
                .kind = link_alive(n) ? MESH_PEERS_LINK_UP : MESH_PEERS_LINK_DOWN, .id = n->id};
            step_peers(m, &ev, todo);
        }
        if (n->news_sample) {
            n->news_sample = false;
            struct mesh_peers_event ev = {.kind = MESH_PEERS_SAMPLE,
                                          .id = n->id,
                                          .latency_us = n->link.srtt_us,
                                          .loss_permille = mesh_link_loss_permille(&n->link),
                                          .load = n->link.peer_load,
                                          .full = n->link.peer_full};
            step_peers(m, &ev, todo);
        }
    }
}

/* --- events --- */

static void forget_if_idle(struct mesh *m, struct mesh_neighbour *n)
{
    if (idle(n) && n->link.flaps == 0) {
        HASH_DELETE(hh, m->neighbours, n);
        free(n);
    }
}

static void on_datagram(struct mesh *m, const struct mesh_event *ev, struct mesh_todo *todo)
{
    struct mesh_neighbour *n = find(m, &ev->peer);
    if (n == NULL || n->link.state == MESH_LINK_DOWN) {
        m->counters.drop_unknown_peer++;
        return;
    }
    uint8_t type = ev->payload.len > 0 ? ev->payload.data[0] : 0;
    if (type == MESH_PROBE || type == MESH_PROBE_ANSWER) {
        struct mesh_probe probe;
        if (mesh_probe_decode(ev->payload, &probe) != 0) {
            m->counters.drop_malformed++;
            return;
        }
        m->counters.probes_in += probe.type == MESH_PROBE;
        struct mesh_link_event le = {.kind = MESH_LINK_PROBE, .probe = &probe};
        step_link(m, n, &le, todo);
        return;
    }
    if (!n->routed) {
        m->counters.drop_unknown_peer++;
        return;
    }
    struct route_event re = {.kind = ROUTE_MESSAGE, .neighbour = ev->peer, .message = ev->payload};
    step_routes(m, &re, todo);
}

static void on_directory(struct mesh *m, const struct mesh_event *ev, struct mesh_todo *todo)
{
    m->own_revoked = ev->own.revoked;
    m->policy = ev->policy;
    m->peers.own_scope = ev->own.scope;
    m->peers.own_region = ev->own.region;
    if (m->peers.kind != ev->own_kind) {
        struct mesh_peers_event pe = {.kind = MESH_PEERS_KIND, .node_kind = ev->own_kind};
        step_peers(m, &pe, todo);
    }
    struct mesh_peers_event pe = {
        .kind = MESH_PEERS_DIRECTORY, .entries = ev->entries, .count = ev->count};
    step_peers(m, &pe, todo);
    struct route_event re = {.kind = ROUTE_OWN_ROLE,
                             .relay = ev->own_kind == MESH_NODE_RELAY && !ev->own.revoked};
    step_routes(m, &re, todo);
    struct mesh_neighbour *n;
    struct mesh_neighbour *next;
    HASH_ITER(hh, m->neighbours, n, next)
    {
        if (n->routed) {
            tell_routes(m, n, ROUTE_NEIGHBOUR_ROLE, todo);
        }
    }
    re = (struct route_event){.kind = ROUTE_POLICY_CHANGED};
    step_routes(m, &re, todo);
}

static void tick(struct mesh *m, struct mesh_todo *todo)
{
    struct mesh_neighbour *n;
    struct mesh_neighbour *next;
    HASH_ITER(hh, m->neighbours, n, next)
    {
        if (m->now_us >= mesh_link_next_us(&n->link)) {
            struct mesh_link_event le = {.kind = MESH_LINK_TICK};
            step_link(m, n, &le, todo);
        }
        if (n->leaving && m->now_us - n->left_us >= LEFT_US) {
            set_leaving(m, n, false, todo); /* the other end holds on to it: so it is not going */
        }
    }
    if (m->now_us / 1000 >= m->routes_next_ms) {
        struct route_event re = {.kind = ROUTE_TICK};
        step_routes(m, &re, todo);
    }
    if (m->now_us / 1000 >= m->peers_next_ms) {
        struct mesh_peers_event pe = {.kind = MESH_PEERS_TICK};
        step_peers(m, &pe, todo);
    }
}

static uint64_t next_us(const struct mesh *m)
{
    uint64_t next = m->routes_next_ms < m->peers_next_ms ? m->routes_next_ms : m->peers_next_ms;
    next = next < UINT64_MAX / 1000 ? next * 1000 : UINT64_MAX;
    struct mesh_neighbour *n;
    struct mesh_neighbour *after;
    HASH_ITER(hh, m->neighbours, n, after)
    {
        uint64_t at = mesh_link_next_us(&n->link);
        next = at < next ? at : next;
        next = n->leaving && n->left_us + LEFT_US < next ? n->left_us + LEFT_US : next;
    }
    return next;
}

void mesh_step(struct mesh *m, const struct mesh_event *ev, struct mesh_todo *todo)
{
    CHECK(ev->now_us >= m->now_us);
    todo->send_count = todo->change_count = todo->news_count = 0;
    m->now_us = ev->now_us;
    m->random ^= ev->random;
    m->own_load = ev->own_load;
    tick(m, todo); /* what time has brought comes before the event */
    struct mesh_neighbour *n;
    switch (ev->kind) {
        case MESH_SESSION_UP:
            n = get(m, &ev->peer);
            if (n != NULL && n->link.state == MESH_LINK_DOWN) {
                struct mesh_link_event le = {.kind = MESH_LINK_SESSION_UP};
                step_link(m, n, &le, todo);
            }
            break;
        case MESH_SESSION_DOWN:
            n = find(m, &ev->peer);
            if (n != NULL) {
                struct mesh_link_event le = {.kind = MESH_LINK_SESSION_DOWN};
                step_link(m, n, &le, todo);
                tell_peers(m, todo);
                forget_if_idle(m, n);
            }
            break;
        case MESH_DATAGRAM:
            on_datagram(m, ev, todo);
            break;
        case MESH_DIRECTORY:
            on_directory(m, ev, todo);
            break;
        case MESH_FACTS: {
            struct mesh_peers_event pe = {
                .kind = MESH_PEERS_CACHED, .facts = ev->facts, .fact_count = ev->fact_count};
            step_peers(m, &pe, todo);
            break;
        }
        case MESH_WANT: {
            struct route_event re = {.kind = ROUTE_WANT, .dst = ev->peer};
            step_routes(m, &re, todo);
            break;
        }
        case MESH_TICK:
            break;
    }
    tell_peers(m, todo);
    todo->next_us = next_us(m);
}

/* --- look-ups --- */

bool mesh_is_neighbour(const struct mesh *m, const struct uuid *id, uint64_t now_us)
{
    const struct mesh_neighbour *n = find(m, id);
    return n != NULL && n->routed && mesh_link_usable(&n->link, now_us) &&
           judge((void *)(uintptr_t)m, id, id) == ROUTE_NONE;
}

static bool any_link(const struct mesh *m, uint64_t now_us)
{
    const struct mesh_neighbour *n;
    for (n = m->neighbours; n != NULL; n = n->hh.next) {
        if (mesh_link_usable(&n->link, now_us)) {
            return true;
        }
    }
    return false;
}

enum route_refusal mesh_next_hop(const struct mesh *m, const struct uuid *dst,
                                 const struct uuid *from, uint64_t now_us, struct uuid *ret_next)
{
    if (m->own_revoked) {
        return ROUTE_REVOKED;
    }
    if (from != NULL && !mesh_is_neighbour(m, from, now_us)) {
        return ROUTE_NO_ROLE;
    }
    if (mesh_judge_way(m, dst, dst).absolute) {
        return ROUTE_POLICY; /* whether there is a way or not */
    }
    struct uuid next;
    enum route_refusal why = route_next_hop(m->routes, dst, from, &next);
    if (why == ROUTE_NONE) {
        const struct mesh_neighbour *n = find(m, &next);
        why = n != NULL && mesh_link_usable(&n->link, now_us) ? ROUTE_NONE : ROUTE_NO_ROUTE;
    }
    if (why == ROUTE_NONE) {
        *ret_next = next;
    } else if (why == ROUTE_NO_ROUTE && mesh_peers_kept(&m->peers) > 0 && !any_link(m, now_us)) {
        why = ROUTE_UDP_BLOCKED; /* peers are being tried and not one answers */
    }
    return why;
}

const struct route_table *mesh_routes(const struct mesh *m)
{
    return m->routes;
}

const struct mesh_peers *mesh_peers(const struct mesh *m)
{
    return &m->peers;
}

static int by_id(const void *a, const void *b)
{
    const struct mesh_neighbour *const *x = a;
    const struct mesh_neighbour *const *y = b;
    return memcmp((*x)->id.b, (*y)->id.b, sizeof(*x)->id.b);
}

void mesh_links(const struct mesh *m, uint64_t now_us,
                void (*fn)(void *data, const struct mesh_link_info *info), void *data)
{
    size_t count = 0;
    const struct mesh_neighbour **all = xcalloc(NEIGHBOURS_MAX, sizeof(void *));
    for (const struct mesh_neighbour *n = m->neighbours; n != NULL; n = n->hh.next) {
        if (n->link.state != MESH_LINK_DOWN) {
            all[count++] = n;
        }
    }
    qsort(all, count, sizeof(void *), by_id);
    for (size_t i = 0; i < count; i++) {
        const struct mesh_neighbour *n = all[i];
        struct mesh_link_info info = {.id = n->id,
                                      .link = &n->link,
                                      .cost_us = mesh_link_cost_us(&n->link, now_us),
                                      .loss_permille = mesh_link_loss_permille(&n->link),
                                      .relay = mesh_peers_is_relay(&m->peers, &n->id),
                                      .refused = n->refused,
                                      .peer = mesh_peers_find(&m->peers, &n->id)};
        fn(data, &info);
    }
    free((void *)all);
}

void mesh_counters(const struct mesh *m, struct mesh_counters *ret)
{
    *ret = m->counters;
}
