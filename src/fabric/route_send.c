/* What we tell neighbours: each has a bit for each destination that it has yet to learn the last word
 * about. A message takes up to 44 of them; without an acknowledgement in time the bits come back, and
 * the next message carries what is true by then. */
#include "fabric/route_impl.h"

void route_mark(struct route_table *t, struct route_neighbour *n, struct route_destination *d)
{
    if (bit_get(n->dirty, d->slot) || uuid_equal(&n->id, &d->id) || (n->leaving && d == t->self)) {
        return;
    }
    /* A leaf hears what it asked for - and the end of what it was told, when it was a relay perhaps. */
    if (!n->relay && d != t->self && !bit_get(n->told, d->slot) &&
        !bit_get(n->interest[0], d->slot) && !bit_get(n->interest[1], d->slot)) {
        return;
    }
    bit_set(n->dirty, d->slot, true);
    n->dirty_count++;
}

void route_unmark(struct route_neighbour *n, const struct route_destination *d)
{
    n->dirty_count -= bit_get(n->dirty, d->slot);
    bit_set(n->dirty, d->slot, false);
}

void route_mark_all(struct route_table *t, struct route_destination *d)
{
    struct route_neighbour *n;
    struct route_neighbour *next;
    HASH_ITER(hh, t->neighbours, n, next)
    {
        route_mark(t, n, d);
    }
}

bool route_neighbour_settled(const struct route_neighbour *n)
{
    bool settled = n->dirty_count == 0;
    for (size_t i = 0; i < ROUTE_FLIGHT_MAX; i++) {
        settled = settled && n->flight[i].count == 0;
    }
    return settled;
}

bool route_settled(const struct route_table *t, const struct route_destination *d)
{
    if (t->now_ms < t->unsettled_until_ms) {
        return false;
    }
    struct route_neighbour *n;
    struct route_neighbour *next;
    HASH_ITER(hh, t->neighbours, n, next)
    {
        if (bit_get(n->dirty, d->slot)) {
            return false;
        }
        for (size_t i = 0; i < ROUTE_FLIGHT_MAX; i++) {
            if (n->flight[i].count > 0) {
                return false;
            }
        }
    }
    return true;
}

void route_ack(struct route_neighbour *n, uint32_t number)
{
    for (size_t i = 0; i < ROUTE_FLIGHT_MAX; i++) {
        if (n->flight[i].count > 0 && n->flight[i].number == number) {
            n->flight[i].count = 0;
        }
    }
}

struct route_send *route_send_slot(struct route_todo *todo, const struct route_neighbour *to)
{
    if (todo->send_count == ROUTE_TODO_SENDS) {
        return NULL;
    }
    struct route_send *s = &todo->send[todo->send_count++];
    s->to = to->id;
    return s;
}

/* --- updates --- */

static uint64_t retry_ms(const struct route_neighbour *n)
{
    uint64_t path_ms = n->cost / 1000u * 2u;
    return ROUTE_RETRY_MS + (path_ms < 1000 ? path_ms : 1000);
}

static void retry(struct route_table *t, struct route_neighbour *n)
{
    for (size_t i = 0; i < ROUTE_FLIGHT_MAX; i++) {
        struct route_flight *f = &n->flight[i];
        if (f->count == 0 || t->now_ms < f->sent_ms + retry_ms(n)) {
            continue;
        }
        for (uint32_t k = 0; k < f->count; k++) {
            struct route_destination *d = t->slot[f->slot[k]];
            if (d != NULL && !PLANTED("update_not_repeated")) {
                route_mark(t, n, d);
            }
        }
        f->count = 0;
        t->counters.retries++;
    }
}

static struct route_flight *free_flight(struct route_neighbour *n)
{
    for (size_t i = 0; i < ROUTE_FLIGHT_MAX; i++) {
        if (n->flight[i].count == 0) {
            return &n->flight[i];
        }
    }
    return NULL;
}

/* False: not worth a word. A neighbour we go through is told that we have no way ourselves. */
static bool describe(struct route_neighbour *n, const struct route_destination *d,
                     struct mesh_route_entry *ret)
{
    *ret = (struct mesh_route_entry){
        .dst = d->id, .seqno = d->adv.seqno, .metric = d->adv.metric, .hops = d->adv_hops};
    if (d->next == n) {
        ret->metric = MESH_METRIC_INFINITE;
    }
    bool finite = ret->metric != MESH_METRIC_INFINITE;
    if (!finite && !bit_get(n->told, d->slot)) {
        return false;
    }
    if (finite) {
        bit_set(n->told, d->slot, true);
    }
    return true;
}

/* One message with as many entries as fit; false: nothing to say. */
static bool send_update(struct route_table *t, struct route_neighbour *n, struct route_flight *f,
                        struct route_todo *todo)
{
    struct mesh_routes m = {.token = n->token, .peer_token = n->peer_token};
    for (size_t byte = 0; byte < (t->slot_count + 7) / 8; byte++) {
        for (unsigned bit = 0; n->dirty[byte] != 0 && bit < 8; bit++) {
            uint16_t slot = (uint16_t)(byte * 8 + bit);
            if (!bit_get(n->dirty, slot)) {
                continue;
            }
            if (m.count == MESH_ROUTES_ENTRIES_MAX) {
                goto full;
            }
            bit_set(n->dirty, slot, false);
            n->dirty_count--;
            if (t->slot[slot] != NULL && describe(n, t->slot[slot], &m.entry[m.count])) {
                f->slot[m.count++] = slot;
            }
        }
    }
full:
    if (m.count == 0) {
        return false;
    }
    m.number = ++n->last_out;
    f->number = m.number;
    f->sent_ms = t->now_ms;
    f->count = m.count;
    struct route_send *s = route_send_slot(todo, n);
    CHECK(s != NULL);
    s->len = mesh_routes_encode(&m, s->data);
    t->counters.updates_out++;
    return true;
}

/* --- requests --- */

void route_request_to(struct route_neighbour *n, const struct mesh_request_entry *e)
{
    for (uint32_t i = 0; i < n->request_count; i++) {
        if (uuid_equal(&n->request[i].dst, &e->dst) && n->request[i].kind == e->kind) {
            if (mesh_seqno_newer(e->seqno, n->request[i].seqno)) {
                n->request[i] = *e;
            }
            return;
        }
    }
    if (n->request_count < MESH_REQUESTS_ENTRIES_MAX) { /* else asked again later */
        n->request[n->request_count++] = *e;
    }
}

static void send_requests(struct route_table *t, struct route_neighbour *n, struct route_todo *todo)
{
    struct route_send *s = route_send_slot(todo, n);
    struct mesh_requests m = {
        .token = n->token, .peer_token = n->peer_token, .count = n->request_count};
    CHECK(s != NULL);
    memcpy(m.entry, n->request, n->request_count * sizeof m.entry[0]);
    s->len = mesh_requests_encode(&m, s->data);
    n->request_count = 0;
    t->counters.requests_out++;
}

void route_request(struct route_table *t, struct route_destination *d, uint32_t seqno)
{
    if (d->requesting && !mesh_seqno_newer(seqno, d->request_seqno)) {
        return;
    }
    d->requesting = true;
    d->request_seqno = seqno;
    d->request_tries = 0;
    d->request_next_ms = t->now_ms;
    t->request_next_ms = t->now_ms < t->request_next_ms ? t->now_ms : t->request_next_ms;
}

void route_ask_soon(struct route_table *t, struct route_destination *d)
{
    if (!t->cfg.relay && d->want_until_ms > t->now_ms) {
        d->request_next_ms = t->now_ms;
        d->request_tries = 0;
        t->request_next_ms = t->now_ms;
    }
}

/* To the neighbours that know a way (ours may be infeasible, the request goes along it all the same:
 * hops bound it), else to all relays. */
static void ask_around(struct route_table *t, struct route_destination *d)
{
    struct mesh_request_entry e = {.dst = d->id,
                                   .seqno = d->requesting ? d->request_seqno : 0,
                                   .hops = MESH_HOPS_MAX,
                                   .kind = d->requesting ? MESH_REQUEST_SEQNO : MESH_REQUEST_ROUTE};
    bool asked = false;
    for (uint32_t i = 0; i < d->count && d->requesting; i++) {
        struct route *r = &d->route[i];
        if (r->via->relay || route_direct(d, r)) {
            route_request_to(r->via, &e);
            asked = true;
        }
    }
    struct route_neighbour *n;
    struct route_neighbour *next;
    HASH_ITER(hh, t->neighbours, n, next)
    {
        if (!asked && n->relay) {
            route_request_to(n, &e);
        }
    }
}

/* Whether a request of d is still of use. */
static bool wanting(const struct route_table *t, struct route_destination *d)
{
    if (d->requesting) {
        const struct route *r = route_selected(d);
        bool met = r != NULL && !mesh_seqno_newer(d->request_seqno, r->last.seqno);
        /* With ways that are all infeasible there is no giving up, only a slower pace. */
        bool starved = d->next == NULL && d->count > 0;
        d->requesting = !met && (starved || d->request_tries < ROUTE_REQUEST_TRIES);
    }
    return d->requesting || (!t->cfg.relay && d->want_until_ms > t->now_ms);
}

static void make_requests(struct route_table *t)
{
    if (t->now_ms < t->request_next_ms) {
        return;
    }
    t->request_next_ms = NO_TIME;
    for (size_t i = 0; i < t->slot_count; i++) {
        struct route_destination *d = t->slot[i];
        if (d == NULL || d == t->self || !wanting(t, d)) {
            continue;
        }
        if (t->now_ms >= d->request_next_ms) {
            ask_around(t, d);
            d->request_tries++;
            /* A leaf that has its route refreshes its interest at half of its life; one that waits
             * long for it asks less often. Nobody acknowledges a request, and a new neighbour may have
             * dropped it, for its end of the link comes up later: hence a few. */
            uint64_t pause = d->request_tries < ROUTE_REQUEST_TRIES ? ROUTE_REQUEST_MS : 1000;
            bool asking = d->requesting || d->next == NULL || d->request_tries < ROUTE_WANT_TRIES;
            d->request_next_ms = t->now_ms + (asking ? pause : ROUTE_WANT_MS / 2);
        }
        t->request_next_ms = d->request_next_ms < t->request_next_ms ? d->request_next_ms
                                                                     : t->request_next_ms;
    }
}

/* --- all of it --- */

static uint64_t flush_neighbour(struct route_table *t, struct route_neighbour *n,
                                struct route_todo *todo)
{
    uint64_t next = NO_TIME;
    retry(t, n);
    if (n->request_count > 0) {
        if (todo->send_count == ROUTE_TODO_SENDS) {
            return t->now_ms;
        }
        send_requests(t, n, todo);
    }
    if (n->dirty_count > 0 && t->now_ms >= n->next_send_ms) {
        struct route_flight *f;
        bool sent = false;
        while (n->dirty_count > 0 && (f = free_flight(n)) != NULL) {
            if (todo->send_count == ROUTE_TODO_SENDS) {
                return t->now_ms;
            }
            sent = send_update(t, n, f, todo) || sent;
        }
        n->next_send_ms = sent ? t->now_ms + ROUTE_TRIGGER_MIN_MS : n->next_send_ms;
    }
    if (n->dirty_count > 0 && free_flight(n) != NULL) {
        next = n->next_send_ms;
    }
    for (size_t i = 0; i < ROUTE_FLIGHT_MAX; i++) {
        if (n->flight[i].count > 0 && n->flight[i].sent_ms + retry_ms(n) < next) {
            next = n->flight[i].sent_ms + retry_ms(n);
        }
    }
    return next;
}

uint64_t route_flush(struct route_table *t, struct route_todo *todo)
{
    struct route_neighbour *n;
    struct route_neighbour *after;
    make_requests(t);
    uint64_t next = t->request_next_ms;
    HASH_ITER(hh, t->neighbours, n, after)
    {
        uint64_t due = flush_neighbour(t, n, todo);
        next = due < next ? due : next;
    }
    return next;
}
