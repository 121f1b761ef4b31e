#include "fabric/mesh_peers.h"

#define BACKBONE 3
#define WARM_MAX_NORMAL 5
#define WARM_MAX_RELAY 10

struct mesh_peers_range mesh_peers_range(enum mesh_node_kind kind)
{
    switch (kind) {
        case MESH_NODE_NORMAL:
            return (struct mesh_peers_range){.min = 3, .want = 4, .max = 5};
        case MESH_NODE_RELAY:
        case MESH_NODE_CORE:
            return (struct mesh_peers_range){.min = 8, .want = 10, .max = 20};
        case MESH_NODE_THIN:
            return (struct mesh_peers_range){.min = 1, .want = 2, .max = 3};
    }
    return (struct mesh_peers_range){0};
}

void mesh_peers_init(struct mesh_peers *p, const struct uuid *self, enum mesh_node_kind kind)
{
    *p = (struct mesh_peers){.self = *self, .kind = kind};
}

void mesh_peers_fini(struct mesh_peers *p)
{
    free(p->peer);
    p->peer = NULL;
    p->count = p->cap = 0;
}

/* FNV-1a over both ids; the same from either end. */
static uint64_t pair_hash(const struct uuid *a, const struct uuid *b)
{
    bool swap = memcmp(a->b, b->b, sizeof a->b) > 0;
    const struct uuid *both[2] = {swap ? b : a, swap ? a : b};
    uint64_t h = 14695981039346656037ULL;
    for (size_t i = 0; i < 32; i++) {
        h = (h ^ both[i / 16]->b[i % 16]) * 1099511628211ULL;
    }
    return h ^ h >> 32;
}

/* The place of id, or where it would be. */
static size_t place_of(const struct mesh_peers *p, const struct uuid *id)
{
    size_t low = 0;
    size_t high = p->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (memcmp(p->peer[mid].entry.id.b, id->b, sizeof id->b) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static struct mesh_peer *find(const struct mesh_peers *p, const struct uuid *id)
{
    size_t at = place_of(p, id);
    return at < p->count && uuid_equal(&p->peer[at].entry.id, id) ? &p->peer[at] : NULL;
}

const struct mesh_peer *mesh_peers_find(const struct mesh_peers *p, const struct uuid *id)
{
    return find(p, id);
}

static struct mesh_peer *get(struct mesh_peers *p, const struct uuid *id)
{
    size_t at = place_of(p, id);
    if (at < p->count && uuid_equal(&p->peer[at].entry.id, id)) {
        return &p->peer[at];
    }
    if (p->count == MESH_PEERS_MAX) {
        p->dropped++;
        return NULL;
    }
    if (p->count == p->cap) {
        p->cap = p->cap == 0 ? 16 : p->cap * 2;
        p->peer = xrealloc(p->peer, p->cap * sizeof *p->peer);
    }
    memmove(&p->peer[at + 1], &p->peer[at], (p->count - at) * sizeof *p->peer);
    p->peer[at] = (struct mesh_peer){.entry.id = *id, .hash = pair_hash(&p->self, id)};
    p->count++;
    return &p->peer[at];
}

bool mesh_peers_is_relay(const struct mesh_peers *p, const struct uuid *id)
{
    const struct mesh_peer *m = find(p, id);
    if (m == NULL || !m->listed || m->entry.revoked || m->entry.policy == MESH_POLICY_FORBID) {
        return false;
    }
    /* A relay for one organization serves its members, and is no part of anybody else's path. */
    bool in_scope = m->entry.scope == 0 ||
                    (m->entry.scope == p->own_scope && p->kind != MESH_NODE_RELAY);
    return (m->entry.relay || m->entry.core) && in_scope;
}

unsigned mesh_peers_active(const struct mesh_peers *p)
{
    unsigned n = 0;
    for (size_t i = 0; i < p->count; i++) {
        n += p->peer[i].set == MESH_PEER_ACTIVE && p->peer[i].up;
    }
    return n;
}

unsigned mesh_peers_kept(const struct mesh_peers *p)
{
    unsigned n = 0;
    for (size_t i = 0; i < p->count; i++) {
        n += p->peer[i].set == MESH_PEER_ACTIVE;
    }
    return n;
}

/* --- scores --- */

struct mesh_peer_inputs mesh_peer_inputs(const struct mesh_peers *p, const struct mesh_peer *peer)
{
    const struct mesh_directory_entry *e = &peer->entry;
    struct mesh_peer_inputs in = {
        .latency = peer->latency_us / 2,
        .loss = peer->loss_permille,
        .reliability = peer->tries == 0 ? 0 : peer->failed * 1000u / peer->tries,
        .region = e->region == 0 || p->own_region == 0 ? 1
                  : e->region == p->own_region         ? 0
                                                       : 2,
        .load = peer->load > 50 ? peer->load - 50u : 0,
        .role = p->kind == MESH_NODE_RELAY ? !e->core : !e->relay,
        .policy = e->policy == MESH_POLICY_AVOID,
        .trust = e->trust < 100 ? 100u - e->trust : 0,
        .failures = peer->failures,
    };
    in.bandwidth = e->bandwidth_mbps == 0 ? 2 : 0;
    for (uint32_t b = e->bandwidth_mbps; b != 0 && b < 1024; b *= 2) {
        in.bandwidth++;
    }
    return in;
}

int64_t mesh_peer_score(const struct mesh_peers *p, const struct mesh_peer *peer)
{
    struct mesh_peer_inputs in = mesh_peer_inputs(p, peer);
    int64_t sum = 0;
#define ADD_(name, weight, unit) sum += (int64_t)(weight) * (int64_t)in.name;
    MESH_PEER_WEIGHTS(ADD_)
#undef ADD_
    return sum;
}

/* --- candidates --- */

static bool candidate(const struct mesh_peers *p, const struct mesh_peer *m)
{
    return mesh_peers_is_relay(p, &m->entry.id) && !uuid_equal(&m->entry.id, &p->self);
}

static void choose_backbone(struct mesh_peers *p)
{
    for (size_t i = 0; i < p->count; i++) {
        p->peer[i].backbone = false;
    }
    for (int k = 0; k < BACKBONE && p->kind == MESH_NODE_RELAY; k++) {
        struct mesh_peer *best = NULL;
        for (size_t i = 0; i < p->count; i++) {
            struct mesh_peer *m = &p->peer[i];
            if (!m->backbone && candidate(p, m) && (best == NULL || m->hash > best->hash)) {
                best = m;
            }
        }
        if (best != NULL) {
            best->backbone = true;
        }
    }
}

/* Lower is tried sooner (SPEC PEER-04): backbone, warm, cached, cold. */
static unsigned tier(const struct mesh_peer *m)
{
    if (m->backbone) {
        return 0;
    }
    return m->set == MESH_PEER_WARM ? 1 : m->measured_ms != 0 || m->cached ? 2 : 3;
}

static bool before(const struct mesh_peers *p, const struct mesh_peer *a, const struct mesh_peer *b)
{
    unsigned ta = tier(a);
    unsigned tb = tier(b);
    if (ta != tb) {
        return ta < tb;
    }
    if (ta == 3) {
        /* Those that have failed less often first, so that none is tried for ever before the rest. */
        if (a->failures_in_row != b->failures_in_row) {
            return a->failures_in_row < b->failures_in_row;
        }
        return a->hash > b->hash;
    }
    return mesh_peer_score(p, a) < mesh_peer_score(p, b);
}

/* When it may be tried again: after long while there are enough peers, soon when there are not. */
static uint64_t try_ms(const struct mesh_peers *p, const struct mesh_peer *m)
{
    uint64_t at = m->next_try_ms;
    uint64_t soon = m->failure_ms + MESH_RETRY_SHORT_MS;
    if (at > soon && mesh_peers_active(p) < mesh_peers_range(p->kind).min) {
        at = soon;
    }
    return at > m->full_until_ms ? at : m->full_until_ms;
}

static struct mesh_peer *best_idle(const struct mesh_peers *p, uint64_t now_ms)
{
    struct mesh_peer *best = NULL;
    for (size_t i = 0; i < p->count; i++) {
        struct mesh_peer *m = &p->peer[i];
        if (!m->kept && candidate(p, m) && now_ms >= try_ms(p, m) &&
            (best == NULL || before(p, m, best))) {
            best = m;
        }
    }
    return best;
}

/* --- keeping and letting go --- */

static bool change(struct mesh_peers_todo *todo, const struct uuid *id, bool keep, bool look)
{
    if (todo->count == MESH_PEERS_CHANGES_MAX) {
        return false;
    }
    todo->change[todo->count++] = (struct mesh_peers_change){.id = *id, .keep = keep, .look = look};
    return true;
}

static void keep(struct mesh_peer *m, bool measuring, uint64_t now_ms, struct mesh_peers_todo *todo)
{
    if (change(todo, &m->entry.id, true, measuring)) {
        m->kept = true;
        m->measuring = measuring;
        m->set = measuring ? m->set : MESH_PEER_ACTIVE;
        m->since_ms = now_ms;
        m->tries++;
    }
}

static bool let_go(struct mesh_peer *m, uint64_t now_ms, struct mesh_peers_todo *todo)
{
    if (!change(todo, &m->entry.id, false, false)) {
        return false;
    }
    m->kept = m->measuring = false;
    m->set = m->measured_ms != 0 && now_ms - m->measured_ms < MESH_WARM_MS &&
                     m->failures_in_row == 0
                 ? MESH_PEER_WARM
                 : MESH_PEER_COLD;
    return true;
}

static void count_failure(struct mesh_peers *p, struct mesh_peer *m,
                          const struct mesh_peers_event *ev)
{
    bool enough = mesh_peers_active(p) >= mesh_peers_range(p->kind).min;
    uint64_t longest = enough && !m->backbone ? MESH_RETRY_MAX_MS : MESH_RETRY_SHORT_MS;
    uint64_t wait = MESH_RETRY_MIN_MS << (m->failures_in_row < 10 ? m->failures_in_row : 10);
    wait = wait < longest ? wait : longest;
    m->failed++;
    m->failures += m->failures < 100;
    m->failures_in_row++;
    m->failure_ms = ev->now_ms;
    m->next_try_ms = ev->now_ms + wait / 2 + ev->random % (wait / 2 + 1);
    if (m->tries > 1000) { /* so that the past fades */
        m->tries /= 2;
        m->failed /= 2;
    }
}

/* --- the directory --- */

static void set_directory(struct mesh_peers *p, const struct mesh_peers_event *ev)
{
    for (size_t i = 0; i < p->count; i++) {
        p->peer[i].listed = false;
    }
    for (size_t i = 0; i < ev->count; i++) {
        struct mesh_peer *m = get(p, &ev->entries[i].id);
        if (m != NULL) {
            m->entry = ev->entries[i];
            m->listed = true;
        }
    }
    for (size_t i = p->count; i-- > 0;) { /* what is neither listed nor in use goes */
        if (!p->peer[i].listed && !p->peer[i].kept) {
            memmove(&p->peer[i], &p->peer[i + 1], (p->count - i - 1) * sizeof *p->peer);
            p->count--;
        }
    }
    choose_backbone(p);
}

static void set_facts(struct mesh_peers *p, const struct mesh_peers_event *ev)
{
    for (size_t i = 0; i < ev->fact_count; i++) {
        const struct mesh_peer_fact *f = &ev->facts[i];
        struct mesh_peer *m = find(p, &f->id);
        if (m != NULL && m->measured_ms == 0 && f->failed <= f->tries) {
            m->cached = true;
            m->latency_us = f->latency_us;
            m->loss_permille = f->loss_permille < 1000 ? f->loss_permille : 1000;
            m->tries = f->tries;
            m->failed = f->failed;
        }
    }
}

/* --- choice --- */

static void drop_failed(struct mesh_peers *p, const struct mesh_peers_event *ev,
                        struct mesh_peers_todo *todo)
{
    for (size_t i = 0; i < p->count; i++) {
        struct mesh_peer *m = &p->peer[i];
        if (m->failures > 0 && ev->now_ms - m->failure_ms >= MESH_FAILURE_FORGET_MS) {
            m->failures--;
            m->failure_ms += MESH_FAILURE_FORGET_MS;
        }
        if (m->set == MESH_PEER_WARM && ev->now_ms - m->measured_ms >= MESH_WARM_MS) {
            m->set = MESH_PEER_COLD;
        }
        if (!m->kept) {
            continue;
        }
        uint64_t kept_ms = ev->now_ms - m->since_ms;
        bool unwanted = !candidate(p, m) || ev->now_ms < m->full_until_ms;
        bool silent = !unwanted && !m->up && kept_ms >= MESH_DIAL_MS;
        bool measured = m->measuring && m->up && kept_ms >= MESH_MEASURE_MS;
        if (silent) {
            count_failure(p, m, ev);
        }
        if (unwanted || silent || measured) {
            (void)let_go(m, ev->now_ms, todo);
        }
    }
}

/* The one to give up first: what does not answer, then the worst by score. */
static struct mesh_peer *worst_active(const struct mesh_peers *p)
{
    struct mesh_peer *worst = NULL;
    for (size_t i = 0; i < p->count; i++) {
        struct mesh_peer *m = &p->peer[i];
        if (m->set != MESH_PEER_ACTIVE || m->backbone) {
            continue;
        }
        bool worse = worst == NULL || (!m->up && worst->up) ||
                     (m->up == worst->up && mesh_peer_score(p, m) > mesh_peer_score(p, worst));
        worst = worse ? m : worst;
    }
    return worst;
}

static void fill(struct mesh_peers *p, const struct mesh_peers_event *ev,
                 struct mesh_peers_todo *todo)
{
    struct mesh_peers_range range = mesh_peers_range(p->kind);
    unsigned up = mesh_peers_active(p);
    unsigned kept = mesh_peers_kept(p);
    /* Short of the minimum, more are tried at once than are missing, for some will not answer. */
    unsigned goal = up >= range.min ? range.want : range.max + MESH_RACE;
    while (kept < goal && todo->count < MESH_PEERS_CHANGES_MAX) {
        struct mesh_peer *m = best_idle(p, ev->now_ms);
        if (m == NULL) {
            break;
        }
        keep(m, false, ev->now_ms, todo);
        kept++;
    }
    while (kept > range.max && (up >= range.min || kept > range.max + MESH_RACE)) {
        struct mesh_peer *m = worst_active(p);
        if (m == NULL || !let_go(m, ev->now_ms, todo)) {
            break;
        }
        kept--; /* those that do not answer first: so never more than max are up */
    }
}

/* Every refresh: give up what is above the wanted number, let one better peer in, look at one more. */
static void refresh(struct mesh_peers *p, const struct mesh_peers_event *ev,
                    struct mesh_peers_todo *todo)
{
    struct mesh_peers_range range = mesh_peers_range(p->kind);
    struct mesh_peer *worst = worst_active(p);
    p->refresh_ms = ev->now_ms + MESH_REFRESH_MS - MESH_REFRESH_MS / 4 +
                    ev->random % (MESH_REFRESH_MS / 4);
    while (worst != NULL && mesh_peers_active(p) > range.want && let_go(worst, ev->now_ms, todo)) {
        worst = worst_active(p);
    }
    struct mesh_peer *best = NULL;
    struct mesh_peer *look = NULL;
    unsigned warm = 0;
    for (size_t i = 0; i < p->count; i++) {
        struct mesh_peer *m = &p->peer[i];
        if (!candidate(p, m) || m->kept || ev->now_ms < m->next_try_ms ||
            ev->now_ms < m->full_until_ms) {
            continue;
        }
        warm += m->set == MESH_PEER_WARM;
        if (m->set == MESH_PEER_WARM &&
            (best == NULL || mesh_peer_score(p, m) < mesh_peer_score(p, best))) {
            best = m;
        }
        if (look == NULL || m->measured_ms < look->measured_ms) {
            look = m;
        }
    }
    if (best != NULL && worst != NULL && mesh_peers_active(p) >= range.want) {
        int64_t score = mesh_peer_score(p, best);
        if (score + score / 4 + 5000 < mesh_peer_score(p, worst) &&
            let_go(worst, ev->now_ms, todo)) {
            keep(best, false, ev->now_ms, todo);
            return;
        }
    }
    unsigned enough = p->kind == MESH_NODE_RELAY ? WARM_MAX_RELAY : WARM_MAX_NORMAL;
    bool stale = look != NULL && ev->now_ms - look->measured_ms > MESH_WARM_MS / 2;
    if (look != NULL && (warm < enough || stale) && mesh_peers_active(p) >= range.min) {
        keep(look, true, ev->now_ms, todo);
    }
}

/* --- events --- */

static void on_link(struct mesh_peers *p, const struct mesh_peers_event *ev, bool up)
{
    struct mesh_peer *m = find(p, &ev->id);
    if (m == NULL || m->up == up) {
        return;
    }
    m->up = up;
    m->since_ms = ev->now_ms;
    if (up) {
        m->failures_in_row = 0;
        m->next_try_ms = 0;
    } else if (m->kept) {
        m->failures += m->failures < 100;
        m->failure_ms = ev->now_ms;
    }
}

static void on_sample(struct mesh_peers *p, const struct mesh_peers_event *ev)
{
    struct mesh_peer *m = find(p, &ev->id);
    if (m == NULL) {
        return;
    }
    m->measured_ms = ev->now_ms;
    m->latency_us = ev->latency_us;
    m->loss_permille = ev->loss_permille;
    m->load = ev->load;
    if (ev->full && m->kept) {
        m->full_until_ms = ev->now_ms + MESH_FULL_MS + ev->random % MESH_FULL_MS;
    }
}

static uint64_t next_ms(const struct mesh_peers *p, uint64_t now_ms)
{
    uint64_t next = p->refresh_ms;
    bool missing = mesh_peers_kept(p) < mesh_peers_range(p->kind).want;
    for (size_t i = 0; i < p->count; i++) {
        const struct mesh_peer *m = &p->peer[i];
        uint64_t at = UINT64_MAX;
        if (m->kept && !m->up) {
            at = m->since_ms + MESH_DIAL_MS;
        } else if (m->measuring) {
            at = m->since_ms + MESH_MEASURE_MS;
        } else if (!m->kept && missing && candidate(p, m)) {
            at = try_ms(p, m);
        }
        next = at < next ? at : next;
    }
    return next < now_ms ? now_ms : next;
}

void mesh_peers_step(struct mesh_peers *p, const struct mesh_peers_event *ev,
                     struct mesh_peers_todo *todo)
{
    todo->count = 0;
    switch (ev->kind) {
        case MESH_PEERS_DIRECTORY:
            set_directory(p, ev);
            break;
        case MESH_PEERS_CACHED:
            set_facts(p, ev);
            break;
        case MESH_PEERS_LINK_UP:
            on_link(p, ev, true);
            break;
        case MESH_PEERS_LINK_DOWN:
            on_link(p, ev, false);
            break;
        case MESH_PEERS_SAMPLE:
            on_sample(p, ev);
            break;
        case MESH_PEERS_KIND:
            p->kind = ev->node_kind;
            choose_backbone(p);
            break;
        case MESH_PEERS_TICK:
            break;
    }
    drop_failed(p, ev, todo);
    fill(p, ev, todo);
    if (ev->now_ms >= p->refresh_ms) {
        refresh(p, ev, todo);
    }
    todo->next_ms = next_ms(p, ev->now_ms);
}
