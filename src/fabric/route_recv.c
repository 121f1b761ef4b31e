/* What neighbours say. The session has told us who each is; what they may say depends on the role that
 * our own snapshot gives them. Everything refused is counted by its reason. */
#include "fabric/route_impl.h"

/* Of this life of the link, both ways. */
static bool current(struct route_table *t, const struct route_neighbour *n, uint64_t token,
                    uint64_t peer_token)
{
    if (token == n->peer_token && peer_token == n->token) {
        return true;
    }
    t->counters.drop_token++;
    return false;
}

static void count_error(struct route_table *t, int rc)
{
    if (rc == -ERR_UNSUPPORTED) {
        t->counters.drop_version++;
    } else {
        t->counters.drop_malformed++;
    }
}

/* --- routes --- */

/* NONE: believe it. Else what it said before does not count either. */
static enum route_refusal judge_entry(struct route_table *t, const struct route_neighbour *n,
                                      const struct mesh_route_entry *e)
{
    enum route_refusal why = t->cfg.judge == NULL || PLANTED("policy_ignored")
                                 ? ROUTE_NONE
                                 : t->cfg.judge(t->cfg.data, &e->dst, &n->id);
    if (why == ROUTE_REVOKED) {
        t->counters.drop_revoked++;
    } else if (why != ROUTE_NONE) {
        t->counters.drop_policy++;
    } else if (!uuid_equal(&e->dst, &n->id) &&
               (e->hops >= MESH_HOPS_MAX || e->metric > ROUTE_METRIC_MAX) &&
               e->metric != MESH_METRIC_INFINITE) {
        t->counters.drop_hop_limit++;
        why = ROUTE_HOP_LIMIT;
    }
    return why;
}

/* Makes room by forgetting the worst that is not in use and no better than the new one. */
static struct route *add_route(struct route_table *t, struct route_destination *d,
                               struct route_neighbour *n, uint32_t metric)
{
    if (d->count == ROUTE_PER_DESTINATION_MAX) {
        struct route *worst = NULL;
        for (uint32_t i = 0; i < d->count; i++) {
            struct route *r = &d->route[i];
            if (r->via != d->next && (worst == NULL || route_total(r) > route_total(worst))) {
                worst = r;
            }
        }
        if (worst == NULL || route_total(worst) <= metric + n->cost) {
            t->counters.drop_table_full++;
            return NULL;
        }
        *worst = d->route[--d->count];
    }
    if (d->count == d->cap) {
        d->cap = d->cap == 0 ? 2 : d->cap * 2;
        d->route = xrealloc(d->route, d->cap * sizeof *d->route);
    }
    struct route *r = &d->route[d->count++];
    *r = (struct route){.via = n};
    return r;
}

/* False: not taken because of the neighbour's role, which may be about to change; a withdrawal is
 * always taken. */
static bool take_entry(struct route_table *t, struct route_neighbour *n,
                       const struct mesh_route_entry *e)
{
    bool own = uuid_equal(&e->dst, &n->id);
    if (uuid_equal(&e->dst, &t->cfg.self)) {
        t->counters.drop_own += e->metric != MESH_METRIC_INFINITE;
        return true;
    }
    if (!own && !n->relay && e->metric != MESH_METRIC_INFINITE && !PLANTED("leaf_believed")) {
        t->counters.drop_role++;
        return false;
    }
    bool gone = judge_entry(t, n, e) != ROUTE_NONE || e->metric == MESH_METRIC_INFINITE;
    struct route_destination *d = route_destination_find(t, &e->dst);
    struct route *r = d == NULL ? NULL : route_find(d, n);
    if (gone) {
        if (r != NULL) {
            route_remove(t, d, r);
        }
        return true;
    }
    struct route_pair said = {.seqno = e->seqno, .metric = own ? 0 : e->metric};
    if (r != NULL && mesh_seqno_newer(r->best.seqno, said.seqno)) {
        t->counters.drop_seqno++;
        return true;
    }
    if (d == NULL) {
        d = route_destination_get(t, &e->dst);
    }
    if (d == NULL) {
        return true; /* full */
    }
    if (r == NULL) {
        r = add_route(t, d, n, said.metric);
        if (r == NULL) {
            return true;
        }
        r->best = said;
    } else if (route_pair_better(said, r->best)) {
        r->best = said;
    }
    uint8_t hops = own ? 0 : e->hops;
    route_note_move(t, d, r, said, hops);
    r->last = said;
    r->hops = hops;
    r->heard_ms = t->now_ms;
    t->counters.infeasible += !own && !route_feasible(d, r);
    route_select(t, d);
    return true;
}

static void on_routes(struct route_table *t, struct route_neighbour *n, struct blob message,
                      struct route_todo *todo)
{
    struct mesh_routes m;
    int rc = mesh_routes_decode(message, &m);
    if (rc != 0) {
        count_error(t, rc);
        return;
    }
    if (!current(t, n, m.token, m.peer_token)) {
        return;
    }
    if (m.number <= n->last_in) {
        t->counters.drop_old++; /* its entries come again in a later message, as it has no answer */
        return;
    }
    n->last_in = m.number;
    t->counters.updates_in++;
    bool all = true;
    for (uint32_t i = 0; i < m.count; i++) {
        all = take_entry(t, n, &m.entry[i]) && all;
    }
    n->refused += !all;
    /* Without an answer it is said again - until our directory calls it a relay, or its own does not. */
    struct route_send *s = all ? route_send_slot(todo, n) : NULL;
    if (s != NULL) {
        struct mesh_routes_ack ack = {
            .token = n->token, .peer_token = n->peer_token, .number = m.number};
        s->len = mesh_routes_ack_encode(&ack, s->data);
    }
}

/* --- requests --- */

static void on_route_request(struct route_table *t, struct route_neighbour *n,
                             const struct mesh_request_entry *e)
{
    struct route_destination *d = route_destination_find(t, &e->dst);
    if (d == NULL || !t->cfg.relay) {
        return; /* it asks again */
    }
    bit_set(n->interest[0], d->slot, true);
    route_mark(t, n, d);
}

/* RFC 8966 section 3.8.1.2: the destination raises its number; who has a new enough route says so; others
 * pass the request on, once in a while, not back. */
static void on_seqno_request(struct route_table *t, struct route_neighbour *n,
                             const struct mesh_request_entry *e)
{
    if (uuid_equal(&e->dst, &t->cfg.self)) {
        if (mesh_seqno_newer(e->seqno, t->self->adv.seqno) && !PLANTED("request_not_answered")) {
            t->self->adv.seqno = e->seqno;
        }
        route_mark_all(t, t->self);
        return;
    }
    struct route_destination *d = route_destination_find(t, &e->dst);
    if (!t->cfg.relay || !n->relay) {
        t->counters.drop_role++;
        return;
    }
    if (d == NULL) {
        return;
    }
    if (d->next != NULL && d->next != n && d->adv.metric != MESH_METRIC_INFINITE &&
        !mesh_seqno_newer(e->seqno, d->adv.seqno)) {
        route_mark(t, n, d);
        return;
    }
    if (e->hops == 0 ||
        (t->now_ms < d->passed_until_ms && !mesh_seqno_newer(e->seqno, d->passed_seqno))) {
        t->counters.drop_duplicate++;
        return;
    }
    struct route *to = NULL;
    for (uint32_t i = 0; i < d->count; i++) {
        struct route *r = &d->route[i];
        if (r->via != n && (r->via == d->next || to == NULL ||
                            (to->via != d->next && route_total(r) < route_total(to)))) {
            to = r;
        }
    }
    if (to != NULL) {
        struct mesh_request_entry passed = *e;
        passed.hops--;
        route_request_to(to->via, &passed);
        d->passed_seqno = e->seqno;
        d->passed_until_ms = t->now_ms + ROUTE_REQUEST_MS / 2;
    }
}

static void on_requests(struct route_table *t, struct route_neighbour *n, struct blob message)
{
    struct mesh_requests m;
    int rc = mesh_requests_decode(message, &m);
    if (rc != 0) {
        count_error(t, rc);
        return;
    }
    if (!current(t, n, m.token, m.peer_token)) {
        return;
    }
    t->counters.requests_in++;
    for (uint32_t i = 0; i < m.count; i++) {
        if (m.entry[i].kind == MESH_REQUEST_ROUTE) {
            on_route_request(t, n, &m.entry[i]);
        } else {
            on_seqno_request(t, n, &m.entry[i]);
        }
    }
}

void route_receive(struct route_table *t, struct route_neighbour *n, struct blob message,
                   struct route_todo *todo)
{
    struct mesh_routes_ack ack;
    switch (message.len > 0 ? message.data[0] : 0) {
        case MESH_ROUTES:
            on_routes(t, n, message, todo);
            break;
        case MESH_REQUESTS:
            on_requests(t, n, message);
            break;
        case MESH_ROUTES_ACK: {
            int rc = mesh_routes_ack_decode(message, &ack);
            if (rc != 0) {
                count_error(t, rc);
            } else if (current(t, n, ack.token, ack.peer_token)) {
                route_ack(n, ack.number);
            }
            break;
        }
        default:
            t->counters.drop_malformed++;
            break;
    }
}
