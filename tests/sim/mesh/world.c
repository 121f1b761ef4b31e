#include "sim_mesh.h"

/* As the fabric: a dial sends its first packet again after 300 ms, 900 ms, 2.1 s (RFC 9002's probe
 * timeout doubles), and a session without a sign of life ends after 4 s. */
static const uint64_t dial_after_us[] = {0, 300 * MS, 900 * MS, 2100 * MS};
#define SESSION_DEAD_US (4 * SEC)
#define SESSION_IDLE_US (5 * SEC)

uint64_t world_below(struct world *w, uint64_t n)
{
    return prng_below(&w->rng, n);
}

/* --- the queue --- */

static bool sooner(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->seq < b->seq);
}

struct sim_event *world_push(struct world *w, uint64_t at_us, enum sim_event_kind kind, int a,
                             int b)
{
    if (w->count == w->cap) {
        w->cap = w->cap == 0 ? 4096 : w->cap * 2;
        w->queue = xrealloc(w->queue, w->cap * sizeof *w->queue);
    }
    struct sim_event e = {.at_us = at_us, .seq = w->seq++, .kind = kind, .a = a, .b = b};
    size_t i = w->count++;
    while (i > 0 && sooner(&e, &w->queue[(i - 1) / 2])) {
        w->queue[i] = w->queue[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->queue[i] = e;
    return &w->queue[i];
}

static struct sim_event pop(struct world *w)
{
    struct sim_event top = w->queue[0];
    struct sim_event last = w->queue[--w->count];
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= w->count) {
            break;
        }
        c += c + 1 < w->count && sooner(&w->queue[c + 1], &w->queue[c]);
        if (!sooner(&w->queue[c], &last)) {
            break;
        }
        w->queue[i] = w->queue[c];
        i = c;
    }
    w->queue[i] = last;
    return top;
}

/* --- who is who --- */

static struct uuid id_of(int i)
{
    struct uuid u = UUID_NIL;
    uint32_t mixed = (uint32_t)i * 2654435761u; /* so that the order of ids says nothing */
    memcpy(u.b, &mixed, sizeof mixed);
    u.b[6] = 0x70;
    u.b[14] = (uint8_t)(i >> 8);
    u.b[15] = (uint8_t)i;
    return u;
}

int world_index(const struct world *w, const struct uuid *id)
{
    int i = id->b[14] << 8 | id->b[15];
    CHECK(i < w->n);
    return i;
}

struct sim_session *world_session(struct world *w, int a, int b)
{
    return &w->session[a < b ? a * w->n + b : b * w->n + a];
}

bool world_usable(const struct world *w, int a, int b)
{
    return !w->cut[a * w->n + b] && !w->cut[b * w->n + a];
}

static uint64_t delay_us(struct world *w, int a, int b)
{
    uint64_t base = w->latency_100us[a * w->n + b] * 100ull;
    return base + world_below(w, base / 4 + 200);
}

/* --- nodes --- */

static void queue_tick(struct world *w, int i, uint64_t next_us)
{
    struct sim_node *x = &w->node[i];
    if (next_us == UINT64_MAX) {
        return;
    }
    uint64_t at = next_us > w->now_us ? next_us : w->now_us + 1;
    at = (at - x->phase_us + TICK_US - 1) / TICK_US * TICK_US + x->phase_us;
    if (x->tick_us <= w->now_us || at < x->tick_us) {
        x->tick_us = at;
        world_push(w, at, SIM_TICK, i, 0);
    }
}

/* The node that lies tells everybody that it is next to everybody. */
static size_t lie(struct world *w, uint8_t *data, size_t len)
{
    struct mesh_routes m;
    if (mesh_routes_decode(blob_of(data, len), &m) != 0) {
        return len;
    }
    for (int i = 0; i < w->n && m.count < MESH_ROUTES_ENTRIES_MAX; i += 3) {
        m.entry[m.count++] = (struct mesh_route_entry){
            .dst = w->node[i].id, .seqno = 0x40000000, .metric = 1, .hops = 1};
    }
    return mesh_routes_encode(&m, data);
}

static void transmit(struct world *w, int from, const struct route_send *s)
{
    int to = world_index(w, &s->to);
    struct sim_session *ss = world_session(w, from, to);
    w->stats.datagrams++;
    if (!ss->exists || !ss->at[from > to] || w->cut[from * w->n + to] ||
        world_below(w, 100) < w->loss_percent[from * w->n + to]) {
        w->stats.lost++;
        return;
    }
    uint8_t *data = xmalloc(MESH_MSG_MAX);
    memcpy(data, s->data, s->len);
    size_t len = w->node[from].liar ? lie(w, data, s->len) : s->len;
    /* A few come very late, when their connection is not the only one between the two any more. */
    bool late = !w->calm && world_below(w, 200) == 0;
    uint64_t delay = delay_us(w, from, to) + (late ? world_below(w, 3 * SEC) : 0);
    struct sim_event *e = world_push(w, w->now_us + delay, SIM_DATAGRAM, from, to);
    e->life = w->node[to].life; /* another process has other keys */
    e->len = len;
    e->data = data;
}

static void dial_once(struct world *w, int a, int b)
{
    struct sim_session *ss = world_session(w, a, b);
    /* A session that only the other end still knows (we have restarted) is replaced by a new one. */
    bool has = ss->exists && ss->at[a > b];
    if (!w->node[a].keep[b] || has || w->node[a].mesh == NULL || w->node[b].mesh == NULL ||
        w->node[a].frozen || w->node[b].frozen || w->node[a].revoked || w->node[b].revoked ||
        !world_usable(w, a, b) || world_below(w, 100) < w->loss_percent[a * w->n + b] ||
        world_below(w, 100) < w->loss_percent[b * w->n + a]) {
        return;
    }
    bool other = ss->exists && ss->at[b > a];
    *ss = (struct sim_session){.exists = true, .life = ++w->lives, .quiet_us = w->now_us};
    ss->at[b > a] = other;
    w->stats.sessions++;
    uint64_t rtt = delay_us(w, a, b) + delay_us(w, b, a);
    world_push(w, w->now_us + rtt, SIM_SESSION_UP, b, a)->life = ss->life;
    world_push(w, w->now_us + rtt + rtt / 2, SIM_SESSION_UP, a, b)->life = ss->life;
    world_push(w, w->now_us + SESSION_DEAD_US, SIM_SESSION_END, a, b)->life = ss->life;
}

static void change_keep(struct world *w, int a, const struct mesh_peers_change *c)
{
    int b = world_index(w, &c->id);
    w->node[a].keep[b] = c->keep;
    w->node[a].dial_life[b] = ++w->lives;
    for (size_t k = 0; c->keep && k < ARRAY_SIZE(dial_after_us); k++) {
        world_push(w, w->now_us + dial_after_us[k], SIM_DIAL, a, b)->life = w->node[a].dial_life[b];
    }
}

void world_step(struct world *w, int i, struct mesh_event *ev)
{
    struct sim_node *x = &w->node[i];
    if (x->mesh == NULL) {
        return;
    }
    CHECK(!x->frozen);
    ev->now_us = w->now_us;
    ev->random = prng_u64(&w->rng);
    mesh_step(x->mesh, ev, &x->todo);
    for (size_t k = 0; k < x->todo.send_count; k++) {
        transmit(w, i, &x->todo.send[k]);
    }
    for (size_t k = 0; k < x->todo.change_count; k++) {
        change_keep(w, i, &x->todo.change[k]);
    }
    queue_tick(w, i, x->todo.next_us);
    check_node(w, i);
}

void world_want(struct world *w, int i, int dst)
{
    struct mesh_event ev = {.kind = MESH_WANT, .peer = w->node[dst].id};
    world_step(w, i, &ev);
}

/* Of ordinary nodes every second has a rule, of relays one in ten: those in the middle restrict everybody. */
static struct sim_rule rule_of(const struct world *w, int i, int taste)
{
    static const enum mesh_intent_via vias[] = {MESH_VIA_ANY, MESH_VIA_DIRECT, MESH_VIA_NODE,
                                                MESH_VIA_REGION};
    unsigned roll = (unsigned)taste * 2654435761u >> 8;
    struct sim_rule r = {.exists = roll % (w->node[i].relay ? 10 : 2) == 0,
                         .kind = roll / 16 % 2 == 0 ? MESH_INTENT_DENY : MESH_INTENT_REQUIRE,
                         .via = vias[roll / 32 % 4],
                         .node = (int)(roll / 128 % (unsigned)w->relays),
                         .region = roll / 64 % 3 + 1,
                         .about = (int)(roll / 512 % RULE_SHARE)};
    return r;
}

static void add_rule(const struct world *w, const struct sim_rule *r, struct mesh_intents *to)
{
    struct mesh_intent hard = {.kind = r->kind,
                               .destination = xcalloc((size_t)w->n, sizeof(struct uuid)),
                               .via = r->via,
                               .via_node = w->node[r->node].id,
                               .via_region = r->region};
    for (int k = r->about; k < w->n; k += RULE_SHARE) {
        hard.destination[hard.count++] = w->node[k].id;
    }
    mesh_intents_add(to, &hard);
}

static void give_directory(struct world *w, int i)
{
    static struct mesh_directory_entry entries[MESH_NODES_MAX];
    size_t count = 0;
    for (int k = 0; k < w->n; k++) {
        /* Relays, and what is revoked: as the snapshot. */
        if (w->node[k].relay || w->node[k].revoked) {
            entries[count++] = (struct mesh_directory_entry){.id = w->node[k].id,
                                                             .relay = w->node[k].relay,
                                                             .revoked = w->node[k].revoked,
                                                             .region = world_region(k),
                                                             .trust = 100};
        }
    }
    /* What its owner likes differs from node to node and from one configuration to the next. */
    int taste = i * 7 + (int)w->directory_version;
    struct mesh_intents *liked = &w->node[i].intents[w->node[i].intents_at ^= 1];
    mesh_intents_fini(liked);
    if (taste % 3 != 0) {
        struct mesh_intent wish = {.kind = taste % 2 == 0 ? MESH_INTENT_AVOID : MESH_INTENT_PREFER,
                                   .any_destination = true,
                                   .via = taste % 4 < 2 ? MESH_VIA_REGION : MESH_VIA_DIRECT,
                                   .via_region = (uint32_t)(taste / 3) % 3 + 1};
        mesh_intents_add(liked, &wish);
    }
    w->node[i].rule = rule_of(w, i, taste);
    if (w->node[i].rule.exists) {
        add_rule(w, &w->node[i].rule, liked);
    }
    w->node[i].directory_version = w->directory_version;
    w->node[i].generation = UINT64_MAX; /* look at all its next hops again */
    struct mesh_event ev = {.kind = MESH_DIRECTORY,
                            .own = {.revoked = w->node[i].revoked, .region = world_region(i)},
                            .own_kind = w->node[i].relay ? MESH_NODE_RELAY : MESH_NODE_NORMAL,
                            .entries = entries,
                            .policy = liked,
                            .count = count};
    world_step(w, i, &ev);
}

void world_push_directory(struct world *w)
{
    w->directory_version++;
    for (int i = 0; i < w->n; i++) {
        world_push(w, w->now_us + world_below(w, 1500 * MS), SIM_DIRECTORY, i, 0);
    }
}

void world_start(struct world *w, int i)
{
    struct sim_node *x = &w->node[i];
    CHECK(x->mesh == NULL);
    struct mesh_config c = {.self = x->id,
                            .kind = x->relay ? MESH_NODE_RELAY : MESH_NODE_NORMAL,
                            /* A clock that may have gone back. */
                            .first_seqno = (uint32_t)(w->now_us / SEC + world_below(w, 10)),
                            .now_us = w->now_us};
    x->mesh = mesh_new(&c);
    x->life = ++w->lives;
    x->generation = UINT64_MAX;
    x->phase_us = world_below(w, TICK_US);
    x->tick_us = 0;
    give_directory(w, i);
}

static void end_session(struct world *w, int a, int b)
{
    struct sim_session *ss = world_session(w, a, b);
    *ss = (struct sim_session){.exists = false, .life = ++w->lives};
    for (int k = 0; k < 2; k++) {
        int i = k == 0 ? a : b;
        int other = k == 0 ? b : a;
        struct mesh_event ev = {.kind = MESH_SESSION_DOWN, .peer = w->node[other].id};
        if (!w->node[i].frozen) {
            world_step(w, i, &ev);
        }
        if (w->node[i].mesh != NULL && w->node[i].keep[other]) { /* the fabric dials again */
            struct mesh_peers_change again = {.id = w->node[other].id, .keep = true};
            change_keep(w, i, &again);
        }
    }
}

void world_crash(struct world *w, int i)
{
    struct sim_node *x = &w->node[i];
    mesh_free(x->mesh);
    mesh_todo_fini(&x->todo);
    x->mesh = NULL;
    x->frozen = false;
    for (size_t k = 0; k < x->held_count; k++) {
        free(x->held[k].data);
    }
    x->held_count = 0;
    for (int k = 0; k < w->n; k++) {
        x->keep[k] = false;
        x->next[k] = NO_NODE;
        struct sim_session *ss = world_session(w, i, k);
        if (i != k && ss->exists) {
            ss->at[i > k] = false;
        }
    }
}

/* --- events --- */

static void hold(struct sim_node *x, const struct sim_event *e)
{
    if (x->held_count == 256) { /* its socket buffer */
        free(e->data);
        return;
    }
    if (x->held_count == x->held_cap) {
        x->held_cap = x->held_cap == 0 ? 16 : x->held_cap * 2;
        x->held = xrealloc(x->held, x->held_cap * sizeof *x->held);
    }
    x->held[x->held_count++] = *e;
}

static void on_datagram(struct world *w, struct sim_event *e)
{
    struct sim_node *x = &w->node[e->b];
    struct sim_session *ss = world_session(w, e->a, e->b);
    if (x->mesh != NULL && x->frozen) {
        hold(x, e);
        return;
    }
    if (ss->exists && x->life == e->life && ss->at[e->b > e->a] && x->mesh != NULL) {
        ss->quiet_us = w->now_us;
        struct mesh_event ev = {
            .kind = MESH_DATAGRAM, .peer = w->node[e->a].id, .payload = blob_of(e->data, e->len)};
        world_step(w, e->b, &ev);
    } else if (x->mesh != NULL && ss->exists && !ss->at[e->b > e->a]) {
        /* It has restarted and knows no such session: a stateless reset. */
        world_push(w, w->now_us + delay_us(w, e->b, e->a), SIM_SESSION_END, e->a, e->b)
            ->life = ss->life | 1ull << 63;
    }
    free(e->data);
}

static void on_session_end(struct world *w, const struct sim_event *e)
{
    struct sim_session *ss = world_session(w, e->a, e->b);
    bool reset = e->life >> 63 != 0;
    if (!ss->exists || ss->life != (e->life & ~(1ull << 63))) {
        return;
    }
    bool wanted = w->node[e->a].keep[e->b] || w->node[e->b].keep[e->a];
    uint64_t limit = wanted ? SESSION_DEAD_US : SESSION_IDLE_US;
    uint64_t quiet = w->now_us - ss->quiet_us;
    bool gone = w->node[e->a].revoked || w->node[e->b].revoked;
    if (reset || gone || quiet >= limit) {
        end_session(w, e->a, e->b);
    } else {
        world_push(w, w->now_us + 500 * MS, SIM_SESSION_END, e->a, e->b)->life = ss->life;
    }
}

static void on_wake(struct world *w, int i)
{
    struct sim_node *x = &w->node[i];
    if (x->mesh == NULL || !x->frozen) {
        return;
    }
    x->frozen = false;
    size_t count = x->held_count;
    struct sim_event *held = x->held;
    x->held = NULL;
    x->held_count = x->held_cap = 0;
    for (size_t k = 0; k < count; k++) {
        on_datagram(w, &held[k]);
    }
    free(held);
    for (int k = 0; k < w->n; k++) { /* what its fabric finds out now */
        struct sim_session *ss = world_session(w, i, k);
        if (k != i && !ss->exists) {
            struct mesh_event ev = {.kind = MESH_SESSION_DOWN, .peer = w->node[k].id};
            world_step(w, i, &ev);
        }
    }
    queue_tick(w, i, w->now_us);
}

static void run_event(struct world *w, struct sim_event *e)
{
    struct sim_node *x = &w->node[e->a];
    switch (e->kind) {
        case SIM_TICK:
            if (x->mesh != NULL && !x->frozen && x->tick_us == e->at_us) {
                struct mesh_event ev = {.kind = MESH_TICK};
                x->tick_us = 0;
                world_step(w, e->a, &ev);
            }
            break;
        case SIM_DATAGRAM:
            on_datagram(w, e);
            break;
        case SIM_DIAL:
            if (x->dial_life[e->b] == e->life) {
                dial_once(w, e->a, e->b);
            }
            break;
        case SIM_SESSION_UP: {
            struct sim_session *ss = world_session(w, e->a, e->b);
            if (ss->exists && ss->life == e->life && x->mesh != NULL && !x->frozen) {
                struct mesh_event ev = {.kind = MESH_SESSION_UP, .peer = w->node[e->b].id};
                ss->at[e->a > e->b] = true;
                world_step(w, e->a, &ev);
            }
            break;
        }
        case SIM_SESSION_END:
            on_session_end(w, e);
            break;
        case SIM_DIRECTORY:
            if (x->mesh != NULL && x->frozen) {
                world_push(w, w->now_us + 200 * MS, SIM_DIRECTORY, e->a, 0);
            } else if (x->mesh != NULL && x->directory_version < w->directory_version) {
                give_directory(w, e->a);
            }
            break;
        case SIM_FAULT:
            fault_next(w);
            break;
        case SIM_WAKE:
            on_wake(w, e->a);
            break;
    }
}

/* Runs until `until_us`, or the first violation. */
static void run_until(struct world *w, uint64_t until_us)
{
    while (!w->violated && w->count > 0 && w->queue[0].at_us <= until_us) {
        struct sim_event e = pop(w);
        CHECK(e.at_us >= w->now_us);
        w->now_us = e.at_us;
        w->stats.events++;
        w->hash = (w->hash ^ (e.at_us << 8) ^ ((uint64_t)e.kind << 4) ^ (uint64_t)e.a ^ e.len) *
                  1099511628211u;
        run_event(w, &e);
    }
    w->now_us = w->violated ? w->now_us : until_us;
}

void world_run(struct world *w, uint64_t seed, int n, uint64_t seconds)
{
    *w = (struct world){.seed = seed, .n = n, .hash = 14695981039346656037ULL};
    prng_seed(&w->rng, seed);
    size_t pairs = (size_t)n * (size_t)n;
    w->node = xcalloc((size_t)n, sizeof *w->node);
    w->cut = xcalloc(pairs, sizeof *w->cut);
    w->latency_100us = xcalloc(pairs, sizeof *w->latency_100us);
    w->loss_percent = xcalloc(pairs, sizeof *w->loss_percent);
    w->session = xcalloc(pairs, sizeof *w->session);
    w->now_us = SEC;
    for (int i = 0; i < n; i++) {
        w->node[i].id = id_of(i);
        memset(w->node[i].next, 0xff, sizeof w->node[i].next);
    }
    faults_build(w);
    for (int i = 0; i < n; i++) {
        world_start(w, i);
    }
    world_push(w, w->now_us + 2 * SEC, SIM_FAULT, 0, 0);
    run_until(w, w->now_us + seconds * SEC);
    faults_end(w);
    run_until(w, w->last_change_us);
    if (!w->violated) {
        check_wants(w);
        run_until(w, w->last_change_us + SETTLE_US);
    }
    if (!w->violated) {
        check_end(w);
    }
}

void world_fini(struct world *w)
{
    for (int i = 0; i < w->n; i++) {
        world_crash(w, i);
        free(w->node[i].held);
        mesh_intents_fini(&w->node[i].intents[0]);
        mesh_intents_fini(&w->node[i].intents[1]);
    }
    for (size_t i = 0; i < w->count; i++) {
        free(w->queue[i].data);
    }
    free(w->queue);
    free(w->node);
    free(w->cut);
    free(w->latency_100us);
    free(w->loss_percent);
    free(w->session);
}
