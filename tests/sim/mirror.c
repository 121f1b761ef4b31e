/* What mirror.c and mirror_write.c of the authority do around mirror_core and mirror_ring, with the
 * connection of postgres.c instead of libpq. */
#include "sim.h"

#include "authority/core_impl.h"

#define RING_ENTRIES 96 /* few: a leader may come too late for what PostgreSQL lacks */
#define NO_CONNECTION UINT64_MAX

struct node_mirror {
    struct node *n;
    struct mirror_core core;
    struct mirror_ring ring;
    uint64_t generation, told;
    uint64_t conn, claim;
    struct mirror_found found;
    struct fsm_position copy_at;
    uint64_t sent[MIRROR_INFLIGHT_MAX]; /* ends of groups on their way */
    size_t sent_first, sent_count;
};

static void happened(struct node_mirror *m, struct mirror_input e);

void mirrors_new(struct world *w)
{
    if (!chance(w, 600) && (w->has & WORLD_MIRRORS) == 0) {
        return;
    }
    w->pg = pg_new();
    for (int i = 0; i < w->n; i++) {
        w->nodes[i].mirror = xcalloc(1, sizeof *w->nodes[i].mirror);
        w->nodes[i].mirror->n = &w->nodes[i];
    }
}

void mirrors_free(struct world *w)
{
    for (int i = 0; i < w->n; i++) {
        free(w->nodes[i].mirror);
    }
    pg_free(w->pg);
}

/* --- entries --- */

static void follow_generation(struct node_mirror *m, uint64_t index)
{
    if (m->generation == fsm_generation(m->n->fsm)) {
        return;
    }
    m->generation = fsm_generation(m->n->fsm);
    mirror_ring_reset(&m->ring, index);
    if (m->conn != NO_CONNECTION) {
        happened(m, (struct mirror_input){.kind = MIRROR_EV_LOST});
    }
}

static void on_entry(void *data, const struct fsm_position *at, struct blob changes,
                     struct blob before)
{
    struct node_mirror *m = data;
    check_changes(m->n, at, changes);
    if (m->generation != fsm_generation(m->n->fsm)) {
        follow_generation(m, at->index);
    } else {
        mirror_ring_push(&m->ring, at, changes, before, node_mono_ms(m->n));
    }
}

/* --- doing what the core says --- */

static uint64_t oldest_ms(const struct node_mirror *m, uint64_t index)
{
    const struct mirror_entry *e = mirror_ring_after(&m->ring, index);
    return e == NULL ? 0 : e->applied_ms;
}

static struct pg_request request(const struct node_mirror *m, enum pg_what what)
{
    return (struct pg_request){.what = what,
                               .node = m->n->i,
                               .conn = m->conn,
                               .epoch = m->core.epoch,
                               .term = m->core.term,
                               .claim = m->claim,
                               .rebuilds = m->core.settings.rebuilds,
                               .oracle = m->n->oracle};
}

static bool send_group(struct node_mirror *m, uint64_t limit)
{
    const struct mirror_entry *e = mirror_ring_after(&m->ring, m->core.sent);
    if (e == NULL || e->at.index > limit) {
        return false;
    }
    if (e->prev != m->core.sent) {
        happened(m, (struct mirror_input){.kind = MIRROR_EV_GAP});
        return false;
    }
    struct pg_request q = request(m, PG_GROUP);
    q.prev = m->core.sent;
    while (e != NULL && e->at.index <= limit && q.count < PG_GROUP_MAX) {
        q.index[q.count] = e->at.index;
        q.changes[q.count++] = hash_bytes(e->changes, e->len) | 1;
        q.to = e->at;
        e = mirror_ring_after(&m->ring, e->at.index);
    }
    m->sent[(m->sent_first + m->sent_count++) % MIRROR_INFLIGHT_MAX] = q.to.index;
    pg_send(m->n->w, &q);
    happened(m, (struct mirror_input){.kind = MIRROR_EV_SENT, .index = q.to.index});
    return true;
}

static void act(struct node_mirror *m, const struct mirror_todo *t)
{
    uint64_t limit;
    if (t->close) {
        m->conn = NO_CONNECTION;
        m->sent_count = 0;
    }
    if (t->alarm != MIRROR_ALARM_NONE) {
        pg_alarm(m->n, t->alarm);
    }
    if (t->open) {
        m->conn = pg_connection(m->n->w);
        struct pg_request q = request(m, PG_CONNECT);
        pg_send(m->n->w, &q);
    }
    if (t->check) {
        struct pg_request q = request(m, PG_CLAIM);
        pg_send(m->n->w, &q);
    }
    if (t->copy) {
        fsm_position(m->n->fsm, &m->copy_at);
    }
    if (t->resync) {
        struct pg_request q = request(m, PG_RESYNC);
        q.prev = m->found.index;
        q.to = m->copy_at;
        pg_send(m->n->w, &q);
    }
    if (t->pump) {
        while (m->conn != NO_CONNECTION && mirror_core_room(&m->core, &limit) &&
               send_group(m, limit)) {
        }
    }
}

static void happened(struct node_mirror *m, struct mirror_input e)
{
    struct mirror_todo todo;
    e.now_ms = node_mono_ms(m->n);
    mirror_step(&m->core, &e, &todo);
    act(m, &todo);
}

/* --- what PostgreSQL answers --- */

static void on_position(struct node_mirror *m, const struct pg_reply *a)
{
    uint8_t ours[32];
    const struct mirror_entry *e = mirror_ring_find(&m->ring, a->index);
    bool known = e != NULL || fsm_digest_at(m->n->fsm, a->index, ours);
    m->claim = a->claim;
    m->found = (struct mirror_found){
        .index = a->index,
        .rebuilds = a->rebuilds,
        .reached = mirror_ring_reaches(&m->ring, a->index),
        .sealed = a->sealed,
        .digest_known = known && a->index > 0,
        .digest_same = known && memcmp(e != NULL ? e->at.digest : ours, a->digest, 32) == 0,
    };
    happened(m, (struct mirror_input){.kind = MIRROR_EV_CHECKED, .found = m->found});
}

void node_mirror_answer(struct node *n, const struct event *e)
{
    struct node_mirror *m = n->mirror;
    struct pg_reply a;
    memcpy(&a, e->bytes, sizeof a);
    if (a.conn != m->conn) {
        return; /* of a connection before this one, or of the process before */
    }
    if (a.lost) {
        happened(m, (struct mirror_input){.kind = MIRROR_EV_LOST});
        return;
    }
    switch (a.what) {
        case PG_CONNECT:
            happened(m, (struct mirror_input){.kind = MIRROR_EV_UP});
            return;
        case PG_CLAIM:
            if (a.ok) {
                on_position(m, &a);
            } else {
                happened(m, (struct mirror_input){.kind = MIRROR_EV_OUTRANKED});
            }
            return;
        case PG_GROUP: {
            uint64_t to = m->sent[m->sent_first];
            if (!a.ok) {
                happened(m, (struct mirror_input){.kind = MIRROR_EV_REFUSED});
                return;
            }
            m->sent_first = (m->sent_first + 1) % MIRROR_INFLIGHT_MAX;
            m->sent_count--;
            happened(m, (struct mirror_input){
                            .kind = MIRROR_EV_ACKED, .index = to, .oldest_ms = oldest_ms(m, to)});
            return;
        }
        case PG_RESYNC:
            if (!a.ok) {
                happened(m, (struct mirror_input){.kind = MIRROR_EV_REFUSED});
                return;
            }
            happened(m, (struct mirror_input){.kind = MIRROR_EV_SCANNED,
                                              .index = m->copy_at.index,
                                              .oldest_ms = oldest_ms(m, m->copy_at.index)});
            return;
        case PG_SETTINGS:
            return;
    }
}

/* --- life --- */

void node_mirror_settings(struct node *n)
{
    happened(n->mirror,
             (struct mirror_input){.kind = MIRROR_EV_SETTINGS, .settings = pg_settings(n)});
}

void node_mirror_boot(struct node *n)
{
    struct node_mirror *m = n->mirror;
    if (m == NULL) {
        return;
    }
    *m = (struct node_mirror){.n = n, .conn = NO_CONNECTION, .generation = fsm_generation(n->fsm)};
    mirror_core_init(&m->core);
    mirror_ring_init_of(&m->ring, 0, RING_ENTRIES);
    fsm_on_entry(n->fsm, on_entry, m);
    node_mirror_settings(n);
}

void node_mirror_gone(struct node *n)
{
    if (n->mirror != NULL) {
        fsm_on_entry(n->fsm, NULL, NULL);
        mirror_ring_fini(&n->mirror->ring);
        n->mirror->conn = NO_CONNECTION;
    }
}

void node_mirror_turn(struct node *n)
{
    struct node_mirror *m = n->mirror;
    const struct raft *r = &n->core->raft;
    bool leads = r->state == RAFT_LEADER && !n->core->fenced && !n->failed;
    if (leads && (!m->core.leading || m->core.term != r->current_term)) {
        happened(m, (struct mirror_input){.kind = MIRROR_EV_LEAD,
                                          .epoch = raft_io_epoch(&n->io),
                                          .term = r->current_term});
    } else if (!leads && m->core.leading) {
        happened(m, (struct mirror_input){.kind = MIRROR_EV_UNLEAD});
    }
    if (m->told == r->last_applied) {
        return;
    }
    struct fsm_position at;
    fsm_position(n->fsm, &at);
    m->told = r->last_applied;
    follow_generation(m, at.index);
    happened(m,
             (struct mirror_input){.kind = MIRROR_EV_APPLIED, .index = at.index, .term = at.term});
}

void node_mirror_tick(struct node *n)
{
    if (n->mirror != NULL) {
        node_mirror_turn(n);
        happened(n->mirror, (struct mirror_input){.kind = MIRROR_EV_TICK});
    }
}
