/* Feasibility, choice, advertisement. The invariant that makes loops impossible (route.h) is kept by
 * three lines here: route_feasible, the CHECK in advertise, and fd being raised nowhere. */
#include "fabric/route_impl.h"

/* Another next hop must be better by an eighth and a millisecond, or the flow would follow noise. The
 * same for telling others. */
#define MARGIN(metric) ((metric) / 8 + 1000)

bool route_pair_better(struct route_pair a, struct route_pair b)
{
    return mesh_seqno_newer(a.seqno, b.seqno) || (a.seqno == b.seqno && a.metric < b.metric);
}

uint32_t route_total(const struct route *r)
{
    return r->last.metric + r->via->cost; /* neither is above ROUTE_METRIC_MAX */
}

bool route_direct(const struct route_destination *d, const struct route *r)
{
    return uuid_equal(&d->id, &r->via->id);
}

bool route_feasible(const struct route_destination *d, const struct route *r)
{
    if (PLANTED("feasibility_ignored")) {
        return true;
    }
    if (PLANTED("seqno_not_compared")) {
        return !d->has_fd || r->best.metric < d->fd.metric || r->best.seqno != d->fd.seqno;
    }
    return !d->has_fd || route_pair_better(r->best, d->fd);
}

uint32_t route_dislike(const struct route_table *t, const struct route_destination *d,
                       const struct route *r)
{
    return t->cfg.dislike == NULL ? 0 : t->cfg.dislike(t->cfg.data, &d->id, &r->via->id);
}

/* What we choose by. Others are told route_total: what we like is nothing to them, and distances that
 * keep to the way as it is keep the order that rules loops out. */
static uint64_t choice_cost(const struct route_table *t, const struct route_destination *d,
                            const struct route *r)
{
    return (uint64_t)route_total(r) + route_dislike(t, d, r);
}

enum route_refusal route_judge(const struct route_table *t, const struct route_destination *d,
                               const struct route *r)
{
    if (t->cfg.judge != NULL && !PLANTED("policy_ignored")) {
        enum route_refusal why = t->cfg.judge(t->cfg.data, &d->id, &r->via->id);
        if (why != ROUTE_NONE) {
            return why;
        }
    }
    if (route_dislike(t, d, r) == ROUTE_COST_REFUSED && !PLANTED("refusal_ignored")) {
        return ROUTE_POLICY;
    }
    if (route_direct(d, r)) {
        return ROUTE_NONE; /* the end of the path: no loop can hang on it */
    }
    if (!r->via->relay && !PLANTED("leaf_believed")) {
        return ROUTE_NO_ROLE;
    }
    if (r->hops >= MESH_HOPS_MAX) {
        return ROUTE_HOP_LIMIT;
    }
    if ((t->hold_until_ms != 0 && !PLANTED("start_hold_skipped")) || !route_feasible(d, r)) {
        return ROUTE_NO_ROUTE;
    }
    return ROUTE_NONE;
}

struct route *route_selected(const struct route_destination *d)
{
    for (uint32_t i = 0; i < d->count; i++) {
        if (d->route[i].via == d->next) {
            return &d->route[i];
        }
    }
    return NULL;
}

/* --- what we say --- */

static void withdraw(struct route_table *t, struct route_destination *d)
{
    if (d->adv.metric != MESH_METRIC_INFINITE) {
        d->adv.metric = MESH_METRIC_INFINITE;
        if (!PLANTED("withdrawal_lost")) {
            route_mark_all(t, d);
        }
    }
}

/* switched: others are told though the metric is much the same, for what was sent the old way may be lost. */
static void advertise(struct route_table *t, struct route_destination *d, const struct route *r,
                      bool switched)
{
    struct route_pair now = {.seqno = r->last.seqno, .metric = route_total(r)};
    uint32_t moved = now.metric > d->adv.metric ? now.metric - d->adv.metric
                                                : d->adv.metric - now.metric;
    if (d->adv.metric != MESH_METRIC_INFINITE && d->adv.seqno == now.seqno &&
        d->adv_hops == r->hops + 1 && moved <= MARGIN(d->adv.metric) && !switched) {
        return;
    }
    d->adv = now;
    d->adv_hops = (uint8_t)(r->hops + 1);
    if (!d->has_fd || route_pair_better(now, d->fd)) {
        d->has_fd = true;
        d->fd = now;
    }
    CHECK(route_direct(d, r) || route_feasible(d, r));
    route_mark_all(t, d);
}

/* --- choice --- */

static void switch_to(struct route_table *t, struct route_destination *d, struct route_neighbour *n)
{
    if (d->next == n) {
        return;
    }
    t->generation++;
    t->counters.switched += n != NULL && d->next != NULL;
    if (n == NULL) {
        t->counters.lost++;
        d->lost_ms = t->now_ms;
        route_ask_soon(t, d);
        if (PLANTED("distance_forgotten")) {
            d->has_fd = false;
        }
    }
    /* A next hop is told "not through me", the old one again the metric. */
    if (d->next != NULL) {
        route_mark(t, d->next, d);
    }
    if (n != NULL) {
        route_mark(t, n, d);
    }
    d->next = n;
}

void route_note_move(struct route_table *t, const struct route_destination *d,
                     const struct route *r, struct route_pair said, uint8_t hops)
{
    /* Small changes are told only when there is another way (advertise). */
    t->generation += r->via == d->next && (said.metric != r->last.metric || hops != r->hops);
}

/* Where a newer sequence number would help: no way but infeasible ones, a much better infeasible one,
 * or a direct neighbour that counts from below what others have heard of it. */
static void ask_newer(struct route_table *t, struct route_destination *d, const struct route *now)
{
    if (!d->has_fd) {
        return;
    }
    bool ask = now != NULL && mesh_seqno_newer(d->fd.seqno, now->last.seqno);
    for (uint32_t i = 0; i < d->count && !ask; i++) {
        const struct route *r = &d->route[i];
        ask = r->via->relay && !route_direct(d, r) && !route_feasible(d, r) &&
              route_dislike(t, d, r) != ROUTE_COST_REFUSED &&
              (now == NULL ||
               choice_cost(t, d, r) + MARGIN(route_total(r)) < choice_cost(t, d, now));
    }
    ask = ask || (now == NULL && d->count == 0 && t->cfg.relay);
    if (ask) {
        route_request(t, d, d->fd.seqno + 1);
    }
}

void route_select(struct route_table *t, struct route_destination *d)
{
    if (d == t->self) {
        return;
    }
    struct route *best = NULL;
    struct route *current = NULL;
    for (uint32_t i = 0; i < d->count; i++) {
        struct route *r = &d->route[i];
        if (route_judge(t, d, r) != ROUTE_NONE) {
            continue;
        }
        current = r->via == d->next ? r : current;
        best = best == NULL || choice_cost(t, d, r) < choice_cost(t, d, best) ? r : best;
    }
    if (current != NULL &&
        choice_cost(t, d, best) + MARGIN(route_total(best)) >= choice_cost(t, d, current)) {
        best = current;
    }
    const struct route_neighbour *was = d->next;
    switch_to(t, d, best == NULL ? NULL : best->via);
    if (best != NULL && t->cfg.relay) {
        advertise(t, d, best, was != NULL && was != best->via);
    } else {
        withdraw(t, d);
    }
    if (best != NULL || was != NULL || d->count > 0) {
        ask_newer(t, d, best);
    }
}

void route_select_all(struct route_table *t)
{
    for (size_t i = 0; i < t->slot_count; i++) {
        if (t->slot[i] != NULL) {
            route_select(t, t->slot[i]);
        }
    }
}
