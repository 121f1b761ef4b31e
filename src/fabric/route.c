#include "fabric/route_impl.h"

const char *route_refusal_text(enum route_refusal r)
{
    switch (r) {
#define ROUTE_REFUSAL_TEXT_(name, text) \
    case ROUTE_##name:                  \
        return text;
        ROUTE_REFUSALS(ROUTE_REFUSAL_TEXT_)
#undef ROUTE_REFUSAL_TEXT_
    }
    return "unknown";
}

/* --- neighbours, destinations, routes --- */

struct route_neighbour *route_neighbour_find(const struct route_table *t, const struct uuid *id)
{
    struct route_neighbour *n = NULL;
    HASH_FIND(hh, t->neighbours, id->b, sizeof id->b, n);
    return n;
}

struct route_destination *route_destination_find(const struct route_table *t, const struct uuid *id)
{
    struct route_destination *d = NULL;
    HASH_FIND(hh, t->destinations, id->b, sizeof id->b, d);
    return d;
}

struct route_destination *route_destination_get(struct route_table *t, const struct uuid *id)
{
    struct route_destination *d = route_destination_find(t, id);
    if (d != NULL) {
        return d;
    }
    if (t->destination_count == ROUTE_DESTINATIONS_MAX) {
        t->counters.drop_table_full++;
        return NULL;
    }
    size_t slot = 0;
    while (slot < t->slot_count && t->slot[slot] != NULL) {
        slot++;
    }
    d = xcalloc(1, sizeof *d);
    d->id = *id;
    d->slot = (uint16_t)slot;
    d->adv.metric = MESH_METRIC_INFINITE;
    d->lost_ms = t->now_ms;
    t->slot[slot] = d;
    t->slot_count = slot < t->slot_count ? t->slot_count : slot + 1;
    t->destination_count++;
    HASH_ADD(hh, t->destinations, id.b, sizeof d->id.b, d);
    return d;
}

static void destination_free(struct route_table *t, struct route_destination *d)
{
    struct route_neighbour *n;
    struct route_neighbour *next;
    HASH_ITER(hh, t->neighbours, n, next)
    {
        route_unmark(n, d);
        bit_set(n->told, d->slot, false);
        bit_set(n->interest[0], d->slot, false);
        bit_set(n->interest[1], d->slot, false);
    }
    HASH_DELETE(hh, t->destinations, d);
    t->slot[d->slot] = NULL;
    t->destination_count--;
    free(d->route);
    free(d);
}

struct route *route_find(struct route_destination *d, const struct route_neighbour *via)
{
    for (uint32_t i = 0; i < d->count; i++) {
        if (d->route[i].via == via) {
            return &d->route[i];
        }
    }
    return NULL;
}

void route_remove(struct route_table *t, struct route_destination *d, struct route *r)
{
    *r = d->route[--d->count];
    route_select(t, d);
}

static void neighbour_free(struct route_table *t, struct route_neighbour *n)
{
    HASH_DELETE(hh, t->neighbours, n);
    t->neighbour_count--;
    if (!route_neighbour_settled(n)) {
        t->unsettled_until_ms = t->now_ms +
                                ROUTE_START_HOLD_MS; /* it may not know that it lost us */
    }
    for (size_t i = 0; i < t->slot_count; i++) {
        struct route_destination *d = t->slot[i];
        struct route *r = d == NULL ? NULL : route_find(d, n);
        if (r != NULL) {
            route_remove(t, d, r);
        }
    }
    free(n);
}

/* --- the table --- */

struct route_table *route_new(const struct route_config *config)
{
    struct route_table *t = xcalloc(1, sizeof *t);
    t->cfg = *config;
    t->now_ms = config->now_ms;
    t->hold_until_ms = config->relay ? config->now_ms + ROUTE_START_HOLD_MS : 0;
    t->upkeep_ms = config->now_ms + ROUTE_UPKEEP_MS;
    t->refresh_ms = config->now_ms + ROUTE_REFRESH_MS;
    t->interest_ms = config->now_ms + ROUTE_WANT_MS;
    t->request_next_ms = NO_TIME;
    t->self = route_destination_get(t, &config->self);
    t->self->adv = (struct route_pair){.seqno = config->first_seqno, .metric = 0};
    return t;
}

void route_free(struct route_table *t)
{
    if (t == NULL) {
        return;
    }
    struct route_neighbour *n;
    struct route_neighbour *next;
    HASH_ITER(hh, t->neighbours, n, next)
    {
        HASH_DELETE(hh, t->neighbours, n);
        free(n);
    }
    for (size_t i = 0; i < t->slot_count; i++) {
        if (t->slot[i] != NULL) {
            destination_free(t, t->slot[i]);
        }
    }
    free(t);
}

static void link_up(struct route_table *t, const struct route_event *ev)
{
    struct route_neighbour *n = route_neighbour_find(t, &ev->neighbour);
    if (n != NULL) {
        neighbour_free(t, n); /* what it said in an earlier life is void */
    } else if (t->neighbour_count == ROUTE_NEIGHBOURS_MAX) {
        t->counters.drop_table_full++;
        return;
    }
    n = xcalloc(1, sizeof *n);
    n->id = ev->neighbour;
    n->relay = ev->relay;
    n->token = ev->token;
    n->peer_token = ev->peer_token;
    n->cost = ev->cost < ROUTE_METRIC_MAX ? ev->cost : ROUTE_METRIC_MAX;
    n->cost += n->cost == 0;
    HASH_ADD(hh, t->neighbours, id.b, sizeof n->id.b, n);
    t->neighbour_count++;
    for (size_t i = 0; i < t->slot_count; i++) {
        if (t->slot[i] != NULL && t->slot[i]->adv.metric != MESH_METRIC_INFINITE) {
            route_mark(t, n, t->slot[i]);
        }
        if (t->slot[i] != NULL && n->relay) {
            route_ask_soon(t, t->slot[i]); /* it may know a better way */
        }
    }
}

static void select_via(struct route_table *t, const struct route_neighbour *n)
{
    for (size_t i = 0; i < t->slot_count; i++) {
        if (t->slot[i] != NULL && route_find(t->slot[i], n) != NULL) {
            route_select(t, t->slot[i]);
        }
    }
}

static void set_own_role(struct route_table *t, bool relay)
{
    if (t->cfg.relay == relay) {
        return;
    }
    t->cfg.relay = relay;
    t->role_ms = t->now_ms;
    route_select_all(t);
}

/* A node that is no relay any more has withdrawn everything. When that has been heard, and links that
 * did not hear it have died, nobody goes through it, and the feasibility distances of its earlier life
 * only stand in its way. */
static void drop_distance(struct route_table *t, struct route_destination *d)
{
    if (!t->cfg.relay && d->has_fd && d->adv.metric == MESH_METRIC_INFINITE &&
        t->now_ms - t->role_ms >= ROUTE_START_HOLD_MS && route_settled(t, d)) {
        d->has_fd = d->requesting = false;
        route_ask_soon(t, d);
        route_select(t, d);
    }
}

static void set_neighbour_role(struct route_table *t, struct route_neighbour *n, bool relay)
{
    if (n->relay == relay) {
        return;
    }
    n->relay = relay;
    select_via(t, n);
    for (size_t i = 0; i < t->slot_count && relay; i++) { /* it needs to know everything now */
        if (t->slot[i] != NULL && t->slot[i]->adv.metric != MESH_METRIC_INFINITE) {
            route_mark(t, n, t->slot[i]);
        }
    }
}

static void want(struct route_table *t, const struct uuid *dst)
{
    if (uuid_equal(dst, &t->cfg.self)) {
        return;
    }
    struct route_destination *d = route_destination_get(t, dst);
    if (d == NULL) {
        return;
    }
    bool first = d->want_until_ms <= t->now_ms;
    d->want_until_ms = t->now_ms + ROUTE_WANT_MS;
    if (first) {
        route_ask_soon(t, d);
    }
}

/* --- time --- */

static void expire_routes(struct route_table *t, struct route_destination *d)
{
    for (uint32_t i = d->count; i-- > 0;) {
        if (t->now_ms - d->route[i].heard_ms >= ROUTE_EXPIRE_MS) {
            route_remove(t, d, &d->route[i]);
        }
    }
}

/* The last word has been heard by all, and nobody here wants it: with it goes the feasibility
 * distance, which nobody can hold a route by any more. */
static bool forgettable(const struct route_table *t, const struct route_destination *d)
{
    return d != t->self && d->count == 0 && !d->requesting &&
           d->adv.metric == MESH_METRIC_INFINITE && t->now_ms - d->lost_ms >= ROUTE_GC_MS &&
           d->want_until_ms <= t->now_ms && route_settled(t, d);
}

static void upkeep(struct route_table *t)
{
    t->upkeep_ms = t->now_ms + ROUTE_UPKEEP_MS;
    for (size_t i = 0; i < t->slot_count; i++) {
        struct route_destination *d = t->slot[i];
        if (d == NULL) {
            continue;
        }
        expire_routes(t, d);
        drop_distance(t, d);
        if (forgettable(t, d)) {
            destination_free(t, d);
        } else if (t->now_ms >= t->refresh_ms && d->adv.metric != MESH_METRIC_INFINITE) {
            route_mark_all(t, d);
        }
    }
    if (t->now_ms >= t->refresh_ms) {
        t->refresh_ms = t->now_ms + ROUTE_REFRESH_MS;
    }
    if (t->now_ms >= t->interest_ms) {
        struct route_neighbour *n;
        struct route_neighbour *next;
        t->interest_ms = t->now_ms + ROUTE_WANT_MS;
        HASH_ITER(hh, t->neighbours, n, next)
        {
            memcpy(n->interest[1], n->interest[0], BITMAP_BYTES);
            memset(n->interest[0], 0, BITMAP_BYTES);
        }
    }
}

static void pass_time(struct route_table *t, uint64_t now_ms)
{
    CHECK(now_ms >= t->now_ms);
    t->now_ms = now_ms;
    if (t->hold_until_ms != 0 && now_ms >= t->hold_until_ms) {
        t->hold_until_ms = 0;
        route_select_all(t);
    }
    if (now_ms >= t->upkeep_ms) {
        upkeep(t);
    }
}

void route_step(struct route_table *t, const struct route_event *ev, struct route_todo *todo)
{
    todo->send_count = 0;
    pass_time(t, ev->now_ms);
    struct route_neighbour *n = route_neighbour_find(t, &ev->neighbour);
    switch (ev->kind) {
        case ROUTE_LINK_UP:
            link_up(t, ev);
            break;
        case ROUTE_LINK_COST:
            if (n != NULL && ev->cost > 0) {
                n->cost = ev->cost < ROUTE_METRIC_MAX ? ev->cost : ROUTE_METRIC_MAX;
                if (n->leaving && !ev->leaving) {
                    n->leaving = false;
                    route_mark(t, n, t->self);
                }
                select_via(t, n);
            }
            break;
        case ROUTE_LINK_DOWN:
            if (n != NULL) {
                neighbour_free(t, n);
            }
            break;
        case ROUTE_NEIGHBOUR_ROLE:
            if (n != NULL) {
                set_neighbour_role(t, n, ev->relay);
            }
            break;
        case ROUTE_OWN_ROLE:
            set_own_role(t, ev->relay);
            break;
        case ROUTE_POLICY_CHANGED:
            route_select_all(t);
            break;
        case ROUTE_MESSAGE:
            if (n != NULL) {
                route_receive(t, n, ev->message, todo);
            } else {
                t->counters.drop_no_link++;
            }
            break;
        case ROUTE_WANT:
            want(t, &ev->dst);
            break;
        case ROUTE_RENEW:
            t->self->adv.seqno++;
            route_mark_all(t, t->self);
            if (n != NULL) {
                n->leaving = true;
                route_unmark(n, t->self);
            }
            break;
        case ROUTE_TICK:
            break;
    }
    uint64_t next = route_flush(t, todo);
    next = t->upkeep_ms < next ? t->upkeep_ms : next;
    next = t->hold_until_ms != 0 && t->hold_until_ms < next ? t->hold_until_ms : next;
    todo->next_ms = next < t->now_ms ? t->now_ms : next;
}

/* --- look-ups --- */

enum route_refusal route_next_hop(const struct route_table *t, const struct uuid *dst,
                                  const struct uuid *from, struct uuid *ret_next)
{
    const struct route_destination *d = route_destination_find(t, dst);
    if (from != NULL && !t->cfg.relay) {
        return ROUTE_NO_ROLE;
    }
    if (d == NULL || d->next == NULL) {
        enum route_refusal why = ROUTE_NO_ROUTE;
        for (uint32_t i = 0; d != NULL && i < d->count && why == ROUTE_NO_ROUTE; i++) {
            why = route_judge(t, d, &d->route[i]);
        }
        return why == ROUTE_NONE ? ROUTE_NO_ROUTE : why;
    }
    if (from != NULL && uuid_equal(&d->next->id, from)) {
        return ROUTE_NO_ROUTE;
    }
    *ret_next = d->next->id;
    return ROUTE_NONE;
}

bool route_has(const struct route_table *t, const struct uuid *dst)
{
    return route_destination_find(t, dst) != NULL;
}

uint64_t route_generation(const struct route_table *t)
{
    return t->generation;
}

void route_counters(const struct route_table *t, struct route_counters *ret)
{
    *ret = t->counters;
}

size_t route_destination_count(const struct route_table *t)
{
    return t->destination_count - 1; /* ourselves */
}

size_t route_neighbour_count(const struct route_table *t)
{
    return t->neighbour_count;
}

uint64_t route_refused_from(const struct route_table *t, const struct uuid *neighbour)
{
    const struct route_neighbour *n = route_neighbour_find(t, neighbour);
    return n == NULL ? 0 : n->refused;
}

size_t route_leaf_count(const struct route_table *t)
{
    size_t count = 0;
    struct route_neighbour *n;
    struct route_neighbour *next;
    HASH_ITER(hh, t->neighbours, n, next)
    {
        count += !n->relay;
    }
    return count;
}

static struct route_path path_of(const struct route_table *t, const struct route_destination *d,
                                 const struct route *r)
{
    return (struct route_path){.dst = d->id,
                               .next = r->via->id,
                               .seqno = r->last.seqno,
                               .metric = route_total(r),
                               .dislike = route_dislike(t, d, r),
                               .hops = (uint8_t)(r->hops + 1),
                               .selected = r->via == d->next,
                               .feasible = route_direct(d, r) || route_feasible(d, r),
                               .direct = route_direct(d, r),
                               .refusal = route_judge(t, d, r)};
}

void route_paths(const struct route_table *t, const struct uuid *dst,
                 void (*fn)(void *data, const struct route_path *p), void *data)
{
    const struct route_destination *d = route_destination_find(t, dst);
    for (int selected = 1; d != NULL && selected >= 0; selected--) {
        for (uint32_t i = 0; i < d->count; i++) {
            struct route_path p = path_of(t, d, &d->route[i]);
            if (p.selected == (selected == 1)) {
                fn(data, &p);
            }
        }
    }
}

void route_list(const struct route_table *t, void (*fn)(void *data, const struct route_path *p),
                void *data)
{
    for (size_t i = 0; i < t->slot_count; i++) {
        const struct route_destination *d = t->slot[i];
        if (d == NULL || d == t->self) {
            continue;
        }
        const struct route *r = route_selected(d);
        struct route_path p = {.dst = d->id, .metric = MESH_METRIC_INFINITE};
        if (r != NULL) {
            p = path_of(t, d, r);
        } else {
            p.refusal = route_next_hop(t, &d->id, NULL, &p.next);
        }
        fn(data, &p);
    }
}
