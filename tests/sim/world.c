/* Time, events, and nodes that come and go. */
#include "sim.h"

#include "authority/fsm_impl.h"

#define WALL_START_MS 1767225600000ll
#define STROBE_MS 120000
#define SETTLE_MAX 10000

bool chance(struct world *w, uint32_t per_mille)
{
    return per_mille > 0 && prng_below(&w->rng, 1000) < per_mille;
}

uint64_t between(struct world *w, uint64_t low, uint64_t high)
{
    return low + prng_below(&w->rng, high - low + 1);
}

uint64_t hash_bytes(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t h = 0x9e3779b97f4a7c15u ^ len;
    while (len > 0) {
        uint64_t v = 0;
        size_t n = len < 8 ? len : 8;
        memcpy(&v, p, n);
        h = (h ^ v) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
        p += n;
        len -= n;
    }
    return h;
}

void world_trace(struct world *w, uint64_t v)
{
    w->hash = (w->hash ^ v) * 0xff51afd7ed558ccdu;
    w->hash ^= w->hash >> 29;
}

/* --- events: a binary heap by time, then by order of scheduling --- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->seq < b->seq);
}

static size_t sift_up(struct world *w, size_t i)
{
    while (i > 0 && before(&w->heap[i], &w->heap[(i - 1) / 2])) {
        struct event t = w->heap[i];
        w->heap[i] = w->heap[(i - 1) / 2];
        w->heap[(i - 1) / 2] = t;
        i = (i - 1) / 2;
    }
    return i;
}

static struct event *push_event(struct world *w, const struct event *e)
{
    if (w->heap_count == w->heap_cap) {
        w->heap_cap = w->heap_cap == 0 ? 256 : 2 * w->heap_cap;
        w->heap = xrealloc(w->heap, w->heap_cap * sizeof *w->heap);
    }
    w->heap[w->heap_count] = *e;
    return &w->heap[sift_up(w, w->heap_count++)];
}

struct event *world_schedule(struct world *w, uint64_t delay_us, enum event_kind kind, int node)
{
    struct event e = {.at_us = w->now_us + delay_us,
                      .seq = ++w->seq,
                      .kind = (uint8_t)kind,
                      .node = (int8_t)node};
    return push_event(w, &e);
}

struct event *world_send(struct world *w, uint64_t delay_us, enum event_kind kind, int node,
                         const void *bytes, size_t len)
{
    struct event *e = world_schedule(w, delay_us, kind, node);
    e->len = (uint32_t)len;
    e->bytes = xmalloc(len);
    memcpy(e->bytes, bytes, len);
    return e;
}

static struct event pop_event(struct world *w)
{
    struct event top = w->heap[0];
    w->heap[0] = w->heap[--w->heap_count];
    size_t i = 0;
    for (;;) {
        size_t least = i;
        for (size_t k = 2 * i + 1; k <= 2 * i + 2 && k < w->heap_count; k++) {
            if (before(&w->heap[k], &w->heap[least])) {
                least = k;
            }
        }
        if (least == i) {
            return top;
        }
        struct event t = w->heap[i];
        w->heap[i] = w->heap[least];
        w->heap[least] = t;
        i = least;
    }
}

/* --- what a node's core and io ask of the world --- */

uint64_t node_mono_ms(const struct node *n)
{
    return 1000 + n->w->now_us / MS;
}

int64_t node_wall_ms(const struct node *n)
{
    uint64_t now = n->w->now_us;
    int64_t drift = (int64_t)(now - n->wall_drift_since_us) / 1000000 * n->wall_drift_ppm / 1000;
    bool strobe = now < n->wall_strobe_until_us && now / (50 * MS) % 2 == 1;
    return WALL_START_MS + (int64_t)(now / MS) + n->wall_offset_ms + drift +
           (strobe ? STROBE_MS : 0);
}

/* The disks of this world lose what was not synced and nothing else, so whoever is said to have lost
 * more is accused wrongly (docs/decisions/0007). */
static void check_accusations(const struct node *n)
{
    for (int i = 0; i < n->w->n; i++) {
        struct raft_old_disk why;
        raft_id id = n->w->nodes[i].raft_id;
        if (raft_io_lost_tail(&n->io, id)) {
            violate(n->w, "S2: node %d takes %d for one that lost what it stored", n->i, i);
        }
        if (raft_io_has_old_disk(&n->io, id, &why)) {
            violate(n->w,
                    "S2: node %d takes %llu for one with an old disk: acknowledged %llu in term "
                    "%llu, shows %llu in term %llu",
                    n->i, (unsigned long long)id, (unsigned long long)why.acked_index,
                    (unsigned long long)why.acked_term, (unsigned long long)why.shown_index,
                    (unsigned long long)why.shown_term);
        }
    }
}

static void env_other_epoch(void *data, raft_id from, uint64_t epoch)
{
    struct node *n = data;
    (void)epoch; /* a number is no proof: it will ask */
    for (int i = 0; i < n->w->n; i++) {
        if (n->w->nodes[i].raft_id == from) {
            n->fence.heard = i;
        }
    }
}

static uint64_t env_mono(void *data)
{
    return node_mono_ms(data);
}

static int64_t env_wall(void *data)
{
    return node_wall_ms(data);
}

static uint64_t env_random_u64(void *data)
{
    struct node *n = data;
    return prng_u64(&n->rng);
}

static void env_random(void *data, void *out, size_t len)
{
    struct node *n = data;
    prng_bytes(&n->rng, out, len);
}

static void env_want_flush(void *data)
{
    ((struct node *)data)->flush_wanted = true;
}

static void env_fatal(void *data, const char *why)
{
    struct node *n = data;
    n->failed = true;
    (void)snprintf(n->why, sizeof n->why, "%s", why);
}

static void env_defer(void *data, void (*cb)(void *arg), void *arg)
{
    struct node *n = data;
    CHECK(n->deferred_count < ARRAY_SIZE(n->deferred));
    n->deferred[n->deferred_count++] = (struct deferred){cb, arg};
}

static void env_role_changed(void *data)
{
    check_role(data);
}

static void env_applied(void *data, uint64_t index)
{
    check_applied(data, index);
}

static void run_deferred(struct node *n)
{
    struct deferred mine[ARRAY_SIZE(n->deferred)];
    size_t count = n->deferred_count;
    memcpy(mine, n->deferred, count * sizeof mine[0]);
    n->deferred_count = 0;
    for (size_t i = 0; i < count; i++) {
        mine[i].cb(mine[i].arg);
    }
}

/* --- life of a node --- */

#define LEVELS_MAX 64
static struct db_migration schema_old[2];
static struct db_migration schema_product[LEVELS_MAX + 1];
static struct db_migration schema_new[LEVELS_MAX + 2];

/* The versions of this world: one that knows the first level, one that knows all of the product's
 * and one more (not where the owner recovers: what he recovers with is the product's). */
static void make_schemas(void)
{
    size_t n = 0;
    for (; migrations_state[n].name != NULL; n++) {
        CHECK(n < LEVELS_MAX);
        schema_new[n] = schema_product[n] = migrations_state[n];
    }
    schema_new[n] = (struct db_migration){"sim",
                                          "ALTER TABLE nodes ADD COLUMN sim INTEGER;"
                                          "CREATE TABLE sim (id TEXT PRIMARY KEY NOT NULL) STRICT;"
                                          "INSERT INTO sim (id) SELECT id FROM nodes ORDER BY id;"};
    schema_old[0] = migrations_state[0];
}

static const struct db_migration *schema_of(const struct node *n)
{
    return n->old ? schema_old : recovery_begins(n->w) ? schema_product : schema_new;
}

static void core_gone(void *data)
{
    ((struct node *)data)->closed = true;
}

static void take_down(struct node *n)
{
    n->closed = false;
    core_close(n->core, core_gone, n);
    disk_crash(&n->disk);
    run_deferred(n);
    CHECK(n->closed);
    fence_gone(n);
    node_mirror_gone(n);
    core_free(n->core);
    raft_io_fini(&n->io);
    fsm_free(n->fsm);
    n->core = NULL;
    n->fsm = NULL;
    n->up = false;
    n->down_since_us = n->w->now_us;
    n->flush_wanted = false;
    n->generation++;
}

void node_start(struct node *n)
{
    struct world *w = n->w;
    if (n->up || n->lost || n->heals) {
        return;
    }
    struct errmsg em = ERRMSG_INIT;
    n->failed = false;
    n->why[0] = '\0';
    n->generation++;
    n->last_time_ms = 0;
    n->paused_until_us = 0;
    disk_boot(&n->disk);
    /* A rolling upgrade, at each start perhaps. */
    n->old = n->old && n->oracle == w->oracles && !chance(w, 200);
    CHECK(fsm_new_of(schema_of(n), &n->fsm, &em) == 0);
    CHECK(raft_io_init(&n->io, &n->disk.store, &n->port.net, &n->io_env) == 0);
    struct core_config config = {
        .id = n->raft_id,
        .node_id = n->id,
        .io = &n->io,
        .fsm = n->fsm,
        .env = &n->core_env,
        .heartbeat_ms = HEARTBEAT_MS,
        .election_ms = ELECTION_MS,
        .snapshot_threshold = w->snapshot_threshold,
        .snapshot_trailing = w->snapshot_trailing,
        .short_trailing = true,
    };
    CHECK(core_new(&config, &n->core, &em) == 0);
    fence_boot(n);
    node_mirror_boot(n);
    n->up = true;
    w->stats.starts++;
    int rc = core_start(n->core, &em);
    check_started(n, rc, &em);
    if (rc != 0) {
        take_down(n);
        n->broken = true;
        return;
    }
    check_restored(n);
    fence_resume(n);
    struct event *e = world_schedule(w, between(w, 0, HEARTBEAT_MS * MS), EV_TICK, n->i);
    e->generation = n->generation;
}

/* Damaged, it must not start: it heals then, or somebody restores the record. */
static void start_again(struct node *n)
{
    struct world *w = n->w;
    if (n->up || n->heals) {
        return; /* as healing it is not there as an authority */
    }
    if (n->broken) {
        n->broken = false;
        disk_repair(&n->disk);
    }
    bool damaged = n->disk.corrupted != NULL;
    node_start(n);
    if (damaged && !w->violated && n->broken && !heal_begins(n)) {
        (void)world_schedule(w, between(w, 1 * SEC, 5 * SEC), EV_START, n->i);
    }
}

void node_crash(struct node *n)
{
    if (n->up) {
        n->w->stats.crashes++;
        take_down(n);
    }
}

/* Until no node has anything more to do at this instant. */
static void settle(struct world *w)
{
    bool again = true;
    for (int turns = 0; again && !w->violated; turns++) {
        again = false;
        for (int i = 0; i < w->n; i++) {
            struct node *n = &w->nodes[i];
            if (n->up && n->failed) {
                bool disk = n->disk.failed;
                if (!disk) {
                    violate(w, "node %d stopped itself: %s", i, n->why);
                    return;
                }
                node_crash(n);
                (void)world_schedule(w, between(w, 1 * SEC, 4 * SEC), EV_START, i);
            }
            if (n->up && n->deferred_count > 0) {
                run_deferred(n);
                again = true;
            }
            if (n->up && n->flush_wanted) {
                n->flush_wanted = false;
                core_flush(n->core);
                again = true;
            }
            if (n->up && n->mirror != NULL) {
                node_mirror_turn(n);
            }
            if (n->up && n->voters != members_voters(n)) {
                n->voters_before = n->voters;
                n->voters = members_voters(n);
            }
            if (n->up && members_committed_conf(n) > n->oracle->conf_index) {
                n->oracle->conf_index = members_committed_conf(n);
                n->oracle->conf_voters = members_committed_voters(n);
            }
        }
        if (turns > SETTLE_MAX) {
            violate(w, "L1: a node never comes to rest");
        }
    }
}

static void dispatch(struct world *w, struct event *e)
{
    struct node *n = e->node >= 0 && e->node < w->n ? &w->nodes[e->node] : NULL;
    switch ((enum event_kind)e->kind) {
        case EV_TICK:
            if (n->up && e->generation == n->generation) {
                core_tick(n->core);
                node_mirror_tick(n);
                check_accusations(n);
                struct event *next = world_schedule(w, HEARTBEAT_MS * MS, EV_TICK, n->i);
                next->generation = n->generation;
            }
            break;
        case EV_MSG:
            w->stats.messages++;
            world_trace(w, hash_bytes(e->bytes, e->len));
            if (n->up) {
                int rc = raft_io_receive(&n->io, w->nodes[(int)e->from].raft_id,
                                         blob_of(e->bytes, e->len));
                if (rc != 0) {
                    violate(w, "node %d refuses a message of node %d: %s", n->i, e->from,
                            err_text(rc));
                }
            }
            free(e->bytes);
            break;
        case EV_DISK:
            disk_event(&n->disk, e->generation);
            break;
        case EV_CLIENT:
            clients_event(w, e->from, e->generation);
            break;
        case EV_FAULT:
            faults_event(w);
            break;
        case EV_KILL:
            if (n->up && e->generation == n->generation && w->now_us < w->calm_us) {
                node_crash(n);
                (void)world_schedule(w, between(w, 1 * MS, 30 * MS), EV_START, n->i);
            }
            break;
        case EV_OWNER:
            members_event(w);
            break;
        case EV_RECOVERY:
            recovery_event(w);
            break;
        case EV_FENCE:
            fence_event(w);
            break;
        case EV_PG:
            pg_event(w, e);
            free(e->bytes);
            break;
        case EV_PG_ANSWER:
            if (n->up) {
                node_mirror_answer(n, e);
            }
            free(e->bytes);
            break;
        case EV_START:
            start_again(n);
            break;
        case EV_HEAL:
            heal_event(n, e);
            if (e->len > 0) {
                free(e->bytes);
            }
            break;
    }
}

/* A paused process sees everything that happened when it goes on. */
static bool held_back(struct world *w, struct event *e)
{
    bool of_node = e->kind == EV_TICK || e->kind == EV_MSG || e->kind == EV_DISK ||
                   e->kind == EV_PG_ANSWER;
    if (!of_node || w->nodes[(int)e->node].paused_until_us <= w->now_us) {
        return false;
    }
    e->at_us = w->nodes[(int)e->node].paused_until_us;
    e->seq = ++w->seq;
    (void)push_event(w, e);
    return true;
}

static void make_node(struct world *w, int i)
{
    struct node *n = &w->nodes[i];
    *n = (struct node){.w = w, .i = i, .oracle = w->oracles};
    uint8_t random[10];
    prng_bytes(&w->rng, random, sizeof random);
    n->id = uuid_make(WALL_START_MS - 1000 + i, random);
    n->raft_id = core_raft_id(&n->id);
    prng_seed(&n->rng, prng_u64(&w->rng));
    disk_init(&n->disk, w, i);
    net_port_init(&n->port, w, i);
    n->io_env = (struct raft_io_env){.data = n,
                                     .mono_ms = env_mono,
                                     .random = env_random_u64,
                                     .fatal = env_fatal,
                                     .defer = env_defer,
                                     .other_epoch = env_other_epoch};
    n->core_env = (struct core_env){
        .data = n,
        .wall_ms = env_wall,
        .mono_ms = env_mono,
        .random = env_random,
        .want_flush = env_want_flush,
        .role_changed = env_role_changed,
        .applied = env_applied,
        .fatal = env_fatal,
    };
}

/* Entry 1: who votes. Entry 2: the cluster. Both durable everywhere before anybody starts. */
static void write_first_log(struct world *w, int voters)
{
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    for (int i = 0; i < voters; i++) {
        char address[UUID_TEXT_MAX];
        uuid_format(&w->nodes[i].id, address);
        CHECK(raft_configuration_add(&conf, w->nodes[i].raft_id, address, RAFT_VOTER) == 0);
    }
    struct raft_buffer change;
    CHECK(raft_configuration_encode(&conf, &change) == 0);
    raft_configuration_close(&conf);
    struct buf init;
    buf_init(&init, ENTRY_MAX_BYTES);
    cluster_init_encode(w, &init);
    for (int i = 0; i < voters; i++) {
        struct disk *d = &w->nodes[i].disk;
        d->term = 1;
        rec_list_push(&d->durable, rec_new(1, 1, RAFT_CHANGE, blob_of(change.base, change.len)));
        rec_list_push(&d->durable, rec_new(2, 1, RAFT_COMMAND, buf_blob(&init)));
    }
    raft_free(change.base);
    buf_fini(&init);
}

void world_run(struct world *w, uint64_t seed, const struct world_options *o)
{
    static const uint32_t thresholds[] = {60, 150, 500};
    static const uint32_t trailings[] = {8, 64, 2048};
    *w = (struct world){.seed = seed, .has = o->has};
    prng_seed(&w->rng, seed * 2 + 1);
    int voters = o->nodes != 0 ? o->nodes : (chance(w, 300) ? 5 : 3);
    w->n = voters + (chance(w, 600) ? (int)between(w, 1, SIM_NODES_MAX - 5) : 0);
    w->end_us = o->seconds * SEC;
    w->calm_us = w->end_us > CALM_US ? w->end_us - CALM_US : 0;
    w->snapshot_threshold = thresholds[between(w, 0, 2)];
    w->snapshot_trailing = trailings[between(w, 0, 2)];
    make_schemas();
    for (int i = 0; i < w->n; i++) {
        make_node(w, i);
    }
    bool upgrade = chance(w, 500);
    for (int i = 0; i < voters; i++) {
        w->nodes[i].old = upgrade;
    }
    check_boot(w);
    recovery_new(w);
    mirrors_new(w);
    write_first_log(w, voters);
    members_new(w, voters);
    for (int i = 0; i < voters && !w->violated; i++) {
        node_start(&w->nodes[i]);
    }
    clients_new(w);
    faults_schedule(w);
    while (w->heap_count > 0 && !w->violated) {
        struct event e = pop_event(w);
        if (e.at_us > w->end_us) {
            free(e.bytes);
            break;
        }
        w->now_us = e.at_us;
        if (held_back(w, &e)) {
            continue;
        }
        world_trace(w, e.at_us << 16 ^ (uint64_t)e.kind << 8 ^ (uint8_t)e.node);
        dispatch(w, &e);
        settle(w);
    }
    if (!w->violated) {
        w->now_us = w->end_us;
        check_end(w);
    }
}

void world_fini(struct world *w)
{
    for (int i = 0; i < w->n; i++) {
        struct node *n = &w->nodes[i];
        if (n->up) {
            take_down(n);
        }
        disk_fini(&n->disk);
    }
    for (size_t i = 0; i < w->heap_count; i++) {
        free(w->heap[i].bytes);
    }
    free(w->heap);
    clients_free(w);
    members_free(w);
    mirrors_free(w);
    recovery_free(w);
    check_fini(w);
}
