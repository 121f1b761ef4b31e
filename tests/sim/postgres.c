/* PostgreSQL, as far as the mirror can tell: one row that names position and claim, and what entries have
 * been written, of which history. A request is a transaction; it arrives after those sent before it on the
 * same connection, and its answer may get lost on the way.
 *
 * S13: who was outranked moves nothing. S14: what is there is the entries of one history up to the
 * position, each once. Both are checked with every commit, whatever the row's conditions let through. */
#include "sim.h"

#define KILL_BEFORE 6 /* connections cut, per mille of groups: before, and */
#define KILL_AFTER 6  /* after the commit */
#define STALL 200     /* ways of who has just claimed */
#define FAIL 10       /* groups that are undone by an error of the server, the connection staying up */

struct rows {
    uint64_t claim, writer_epoch, writer_term;
    uint64_t index, epoch, rebuilds;
    bool sealed; /* written as a whole once, and signed since */
    uint8_t digest[32];
    const struct oracle *oracle; /* history of the rows; NULL: none yet */
};

struct pg {
    struct rows now, backup;
    bool down, has_backup;
    uint64_t frozen_until_us;
    bool *dead; /* connections, by number */
    size_t conns, conns_cap;
    uint64_t to_us[SIM_NODES_MAX], from_us[SIM_NODES_MAX];
    uint64_t last_conn[SIM_NODES_MAX];
    uint64_t highest_epoch, highest_term; /* ever claimed; a restore forgets it */
    /* mirror_settings of the newest history */
    bool alarmed;
    uint64_t rebuilds;
};

struct pg *pg_new(void)
{
    return xcalloc(1, sizeof(struct pg));
}

void pg_free(struct pg *pg)
{
    if (pg != NULL) {
        free(pg->dead);
        free(pg);
    }
}

uint64_t pg_connection(struct world *w)
{
    struct pg *pg = w->pg;
    if (pg->conns == pg->conns_cap) {
        pg->conns_cap = pg->conns_cap == 0 ? 64 : 2 * pg->conns_cap;
        pg->dead = xrealloc(pg->dead, pg->conns_cap * sizeof *pg->dead);
    }
    pg->dead[pg->conns] = false;
    return pg->conns++;
}

static uint64_t in_order(struct world *w, uint64_t *last_us, uint64_t delay_us)
{
    uint64_t at = w->now_us + delay_us;
    at = at > *last_us ? at : *last_us;
    *last_us = at;
    return at - w->now_us;
}

void pg_send(struct world *w, const struct pg_request *r)
{
    uint64_t takes = between(w, 200, 3 * MS);
    takes += r->what == PG_RESYNC ? between(w, 5 * MS, 400 * MS) : 0;
    takes += chance(w, 30) ? between(w, 0, 300 * MS) : 0;
    w->pg->last_conn[r->node] = r->conn;
    (void)world_send(w, in_order(w, &w->pg->to_us[r->node], takes), EV_PG, r->node, r, sizeof *r);
}

static void answer(struct world *w, int node, const struct pg_reply *r)
{
    uint64_t takes = between(w, 100, 2 * MS);
    (void)world_send(w, in_order(w, &w->pg->from_us[node], takes), EV_PG_ANSWER, node, r,
                     sizeof *r);
}

static void kill_connection(struct world *w, int node, uint64_t conn)
{
    if (!w->pg->dead[conn]) {
        w->pg->dead[conn] = true;
        answer(w, node, &(struct pg_reply){.conn = conn, .lost = true});
    }
}

static void kill_all(struct world *w)
{
    for (int i = 0; i < w->n; i++) {
        if (w->pg->last_conn[i] < w->pg->conns) {
            kill_connection(w, i, w->pg->last_conn[i]);
        }
    }
}

/* --- transactions --- */

static bool ranks_below(const struct rows *r, uint64_t epoch, uint64_t term)
{
    return r->writer_epoch > epoch || (r->writer_epoch == epoch && r->writer_term > term);
}

/* What it sends from now on arrives when the stall ends, if the process is still there or not. */
static void stall(struct world *w, int node, uint64_t most_us)
{
    w->pg->to_us[node] = w->now_us + between(w, 200 * MS, most_us);
}

static void claim(struct world *w, const struct pg_request *q, struct pg_reply *a)
{
    struct pg *pg = w->pg;
    struct rows *r = &pg->now;
    a->ok = !ranks_below(r, q->epoch, q->term);
    if (!a->ok) {
        return;
    }
    r->claim++;
    r->writer_epoch = q->epoch;
    r->writer_term = q->term;
    if (q->epoch > pg->highest_epoch ||
        (q->epoch == pg->highest_epoch && q->term > pg->highest_term)) {
        pg->highest_epoch = q->epoch;
        pg->highest_term = q->term;
    }
    a->claim = r->claim;
    a->index = r->index;
    a->rebuilds = r->rebuilds;
    a->sealed = r->sealed;
    memcpy(a->digest, r->digest, sizeof a->digest);
    if (w->now_us < w->calm_us && chance(w, STALL)) {
        stall(w, q->node, 3 * SEC); /* it holds the claim, and is slow to use it */
    }
    /* Those before us are ended, unless what they hang in does not notice. */
    for (int i = 0; i < w->n && chance(w, 500); i++) {
        if (i != q->node && pg->last_conn[i] < pg->conns) {
            kill_connection(w, i, pg->last_conn[i]);
        }
    }
}

/* The condition of sql_fence (src/authority/mirror_sql.c). */
static bool fence_holds(const struct rows *r, const struct pg_request *q)
{
    return (r->claim == q->claim || PLANTED("mirror_claim_ignored")) &&
           (!ranks_below(r, q->epoch, q->term) || PLANTED("mirror_claim_ignored")) &&
           (r->index == q->prev || PLANTED("mirror_previous_ignored"));
}

/* Each entry of that history behind the position, in order, and none twice. */
static bool follows(const struct rows *r, const struct pg_request *q)
{
    const struct oracle *o = q->oracle;
    uint64_t at = r->index;
    /* The rows of another history are good as far as both are one. */
    if (r->oracle != NULL && r->oracle != o && at > 0) {
        const struct oracle *later = r->oracle > o ? r->oracle : o;
        const struct oracle *earlier = r->oracle > o ? o : r->oracle;
        for (const struct oracle *k = earlier + 1; k <= later; k++) {
            if (at > k->base) {
                return false;
            }
        }
    }
    for (uint32_t i = 0; i < q->count; i++) {
        for (at++; at < q->index[i]; at++) {
            if (o->log[at].changes != 0) {
                return false;
            }
        }
        if (at != q->index[i] || o->log[at].changes != q->changes[i]) {
            return false;
        }
    }
    return true;
}

static void commit(struct world *w, const struct pg_request *q, struct pg_reply *a)
{
    struct pg *pg = w->pg;
    struct rows *r = &pg->now;
    a->ok = fence_holds(r, q) && (w->now_us >= w->calm_us || !chance(w, FAIL));
    if (!a->ok) {
        w->stats.pg_refused++;
        return;
    }
    if (q->epoch < pg->highest_epoch ||
        (q->epoch == pg->highest_epoch && q->term < pg->highest_term)) {
        violate(w,
                "S13: node %d writes to PostgreSQL in term %llu of epoch %llu, outranked by %llu "
                "of %llu",
                q->node, (unsigned long long)q->term, (unsigned long long)q->epoch,
                (unsigned long long)pg->highest_term, (unsigned long long)pg->highest_epoch);
        return;
    }
    if (q->what == PG_GROUP && !follows(r, q)) {
        violate(w, "S14: node %d writes entries to %llu behind %llu, and they do not follow",
                q->node, (unsigned long long)q->to.index, (unsigned long long)r->index);
        return;
    }
    w->stats.pg_commits++;
    w->stats.pg_resyncs += q->what == PG_RESYNC;
    r->index = q->to.index;
    r->epoch = q->epoch;
    r->rebuilds = q->rebuilds;
    r->oracle = q->oracle;
    r->sealed = r->sealed || q->what == PG_RESYNC;
    memcpy(r->digest, q->to.digest, sizeof r->digest);
    world_trace(w, r->index << 8 | (uint64_t)q->node);
}

static void settings_changed(struct world *w)
{
    for (int i = 0; i < w->n; i++) {
        if (w->nodes[i].up && w->nodes[i].mirror != NULL) {
            node_mirror_settings(&w->nodes[i]);
        }
    }
}

void pg_event(struct world *w, const struct event *e)
{
    struct pg *pg = w->pg;
    struct pg_request q;
    memcpy(&q, e->bytes, sizeof q);
    struct pg_reply a = {.what = q.what, .conn = q.conn, .ok = true};
    if (q.what == PG_SETTINGS) {
        pg->alarmed = false; /* the owner looked, and rebuilds */
        pg->rebuilds++;
        settings_changed(w);
        return;
    }
    if (pg->frozen_until_us > w->now_us) {
        (void)world_send(w, pg->frozen_until_us - w->now_us, EV_PG, q.node, &q, sizeof q);
        return;
    }
    if (pg->dead[q.conn]) {
        return;
    }
    bool loses = w->now_us < w->calm_us && chance(w, KILL_BEFORE);
    if (pg->down || loses) {
        kill_connection(w, q.node, q.conn);
        return;
    }
    switch (q.what) {
        case PG_CONNECT:
        case PG_SETTINGS:
            break;
        case PG_CLAIM:
            claim(w, &q, &a);
            break;
        case PG_GROUP:
        case PG_RESYNC:
            commit(w, &q, &a);
            break;
    }
    if (w->now_us < w->calm_us && chance(w, KILL_AFTER)) {
        kill_connection(w, q.node, q.conn); /* done, and nobody is told */
        return;
    }
    answer(w, q.node, &a);
}

/* --- what goes wrong --- */

void pg_fault(struct world *w)
{
    struct pg *pg = w->pg;
    struct node *leader = members_leader(w);
    switch (between(w, 0, 4)) {
        case 0: /* it dies, or is back */
            pg->down = !pg->down;
            kill_all(w);
            break;
        case 1: /* it hangs, with what is on its way */
            pg->frozen_until_us = w->now_us + between(w, 100 * MS, 8 * SEC);
            break;
        case 2:
            pg->backup = pg->now;
            pg->has_backup = true;
            break;
        case 3: /* the leader's way stalls, and it is gone before what it sent arrives */
            if (leader != NULL) {
                stall(w, leader->i, 6 * SEC);
                world_schedule(w, between(w, 0, 2 * SEC), EV_KILL, leader->i)
                    ->generation = leader->generation;
            }
            break;
        default:
            if (pg->has_backup && chance(w, 400)) {
                kill_all(w);
                pg->now = pg->backup;
                pg->highest_epoch = pg->now.writer_epoch;
                pg->highest_term = pg->now.writer_term;
                w->stats.pg_restores++;
            } else {
                kill_all(w);
            }
            break;
    }
}

void pg_calm(struct world *w)
{
    w->pg->down = false;
    w->pg->frozen_until_us = 0;
}

/* --- settings, alarms --- */

struct mirror_settings pg_settings(const struct node *n)
{
    const struct pg *pg = n->w->pg;
    bool newest = n->oracle == n->w->newest;
    return (struct mirror_settings){.enabled = true,
                                    .max_lag_ms = 2000,
                                    .version = 1,
                                    .alarmed = newest && pg->alarmed,
                                    .rebuilds = newest ? pg->rebuilds : 0};
}

/* Whether PostgreSQL holds what the newest history does not. */
static bool holds_another_history(const struct world *w)
{
    const struct rows *r = &w->pg->now;
    for (const struct oracle *o = r->oracle; o != NULL && o < w->newest; o++) {
        if (r->index > (o + 1)->base) {
            return true;
        }
    }
    return false;
}

void pg_alarm(struct node *n, enum mirror_alarm alarm)
{
    struct world *w = n->w;
    if (n->oracle != w->newest || w->pg->alarmed) {
        return; /* nobody listens to it, or heard it already */
    }
    if (!holds_another_history(w)) {
        violate(w, "S14: node %d calls the mirror %s, which holds its own history", n->i,
                mirror_alarm_name(alarm));
        return;
    }
    w->pg->alarmed = true;
    settings_changed(w);
    const struct pg_request owner = {.what = PG_SETTINGS, .node = n->i};
    (void)world_send(w, between(w, 200 * MS, 3 * SEC), EV_PG, n->i, &owner, sizeof owner);
}

/* L6, S14. */
void pg_check_end(struct world *w, const struct fsm_position *at)
{
    const struct rows *r = &w->pg->now;
    if (r->oracle != w->newest || r->index != at->index ||
        memcmp(r->digest, at->digest, sizeof r->digest) != 0) {
        violate(w, "S14: PostgreSQL ends at %llu of epoch %llu, the log at %llu of %llu",
                (unsigned long long)r->index, (unsigned long long)r->epoch,
                (unsigned long long)at->index, (unsigned long long)w->newest->epoch);
    }
}
