/* Clients: one thing at a time each, tried again elsewhere under the same request id until it is
 * answered or given up. An answer that comes late is checked all the same. */
#include "sim.h"

#define ATTEMPTS_MAX 14

struct client {
    struct world *w;
    int i;
    uint32_t token; /* of the one event it waits for */
    uint64_t op;    /* rises with each thing asked */
    bool busy, reading;
    bool waiting; /* for the callback of an attempt */
    int attempts;
    int node; /* that answered last */
    struct request q;
    const struct oracle *of; /* history in which this was so when it began: */
    uint64_t floor;
    struct uuid seen_id;
    uint8_t seen_hash[32];
};

struct attempt {
    struct core_proposal p;
    struct core_read r;
    struct client *c;
    struct node *n;
    uint64_t op;
    int number;
    struct uuid id;
    uint8_t hash[32];
    const struct oracle *of;
    uint64_t floor;
    struct uuid seen_id;
    uint8_t seen_hash[32];
};

static void wake(struct client *c, uint64_t delay_us)
{
    struct event *e = world_schedule(c->w, delay_us, EV_CLIENT, -1);
    e->from = (int8_t)c->i;
    e->generation = ++c->token;
}

static bool is_current(const struct attempt *a)
{
    return a->c->busy && a->c->op == a->op && a->c->attempts == a->number;
}

static void next_op(struct client *c, int node)
{
    c->busy = false;
    c->waiting = false;
    c->node = node;
    wake(c, between(c->w, 200 * MS, 1700 * MS));
}

static void again(struct client *c)
{
    c->waiting = false;
    c->node = -1;
    wake(c, between(c->w, 20 * MS, 300 * MS));
}

/* What was acknowledged in another history is not promised by this one. */
static uint64_t floor_of(const struct attempt *a)
{
    return a->of == a->n->oracle ? a->floor : 0;
}

static void answered(struct core_proposal *p, int rc, const struct fsm_result *result)
{
    struct attempt *a = container_of(p, struct attempt, p);
    struct client *c = a->c;
    world_trace(c->w, (uint64_t)rc + 1000);
    if (rc == 0) {
        check_ack(a->n, &a->id, a->hash, floor_of(a), result);
        if (is_current(a) && !c->w->violated) {
            request_answered(c->w, a->n, &c->q, result);
            next_op(c, a->n->i);
        }
    } else {
        c->w->stats.unknown += rc == -ERR_OUTCOME_UNKNOWN;
        if (is_current(a)) {
            again(c);
        }
    }
    free(a);
}

static void read_done(struct core_read *r, int rc, uint64_t index)
{
    struct attempt *a = container_of(r, struct attempt, r);
    struct client *c = a->c;
    if (rc == 0) {
        const struct uuid none = UUID_NIL;
        check_read(a->n, floor_of(a), a->of == a->n->oracle ? &a->seen_id : &none, a->seen_hash,
                   index);
        if (is_current(a)) {
            next_op(c, a->n->i);
        }
    } else if (is_current(a)) {
        again(c);
    }
    free(a);
}

static void begin_op(struct client *c)
{
    struct world *w = c->w;
    c->busy = true;
    c->op++;
    c->attempts = 0;
    c->reading = chance(w, 150);
    c->of = w->newest;
    c->floor = c->of->max_acked_index;
    c->seen_id = c->of->last_acked_id;
    memcpy(c->seen_hash, c->of->last_acked_hash, sizeof c->seen_hash);
    if (!c->reading) {
        request_new(w, &c->q);
    }
}

static int submit(struct client *c, struct node *n, struct attempt *a)
{
    if (c->reading) {
        return core_read_index(n->core, &a->r, read_done);
    }
    struct core_status s;
    core_status(n->core, &s);
    if (s.role != CORE_LEADER) {
        return -ERR_NOT_LEADER;
    }
    struct buf cmd;
    buf_init(&cmd, SIZE_MAX);
    request_encode(n, &c->q, &cmd);
    int rc = core_propose(n->core, &a->p, buf_blob(&cmd), answered);
    buf_fini(&cmd);
    return rc;
}

static void attempt(struct client *c)
{
    struct world *w = c->w;
    int i = c->node >= 0 ? c->node : (int)between(w, 0, (uint64_t)w->n - 1);
    struct node *n = &w->nodes[i];
    c->attempts++;
    if (!n->up || n->failed || n->paused_until_us > w->now_us) {
        again(c);
        return;
    }
    struct attempt *a = xcalloc(1, sizeof *a);
    a->c = c;
    a->n = n;
    a->op = c->op;
    a->number = c->attempts;
    a->id = c->q.id;
    memcpy(a->hash, c->q.hash, sizeof a->hash);
    a->of = c->of;
    a->floor = c->floor;
    a->seen_id = c->seen_id;
    memcpy(a->seen_hash, c->seen_hash, sizeof a->seen_hash);
    if (submit(c, n, a) != 0) {
        free(a);
        again(c);
        return;
    }
    c->waiting = true;
    wake(c, between(w, 800 * MS, 3 * SEC)); /* patience */
}

void clients_event(struct world *w, int client, uint32_t generation)
{
    struct client *c = w->clients[client];
    if (generation != c->token || w->now_us + CLIENTS_STOP_US > w->end_us) {
        return;
    }
    if (c->busy && c->waiting) {
        c->waiting = false; /* gave up waiting: the outcome is unknown */
        c->node = -1;
    }
    if (c->busy && c->attempts >= ATTEMPTS_MAX) {
        c->busy = false;
    }
    if (!c->busy) {
        begin_op(c);
    }
    attempt(c);
}

void clients_new(struct world *w)
{
    w->things = things_new();
    for (int i = 0; i < SIM_CLIENTS; i++) {
        struct client *c = xcalloc(1, sizeof *c);
        c->w = w;
        c->i = i;
        c->node = -1;
        w->clients[i] = c;
        wake(c, between(w, 1 * SEC, 2 * SEC));
    }
}

void clients_free(struct world *w)
{
    for (int i = 0; i < SIM_CLIENTS; i++) {
        free(w->clients[i]);
    }
    things_free(w->things);
}
