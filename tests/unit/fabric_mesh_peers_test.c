/* Which peers are kept (SPEC PEER-01..04). */
#include "fabric/mesh_peers.h"

#include <setjmp.h>
#include <cmocka.h>

#define RELAYS 40

struct world {
    struct mesh_peers p;
    struct mesh_directory_entry dir[RELAYS];
    size_t count;
    uint64_t now_ms;
    bool kept[RELAYS];
    int order[256]; /* in which they were tried */
    size_t tried;
    struct mesh_peers_todo todo;
};

static struct uuid id_of(size_t i)
{
    struct uuid u = UUID_NIL;
    u.b[0] = 1;
    u.b[15] = (uint8_t)i;
    return u;
}

static void step(struct world *w, struct mesh_peers_event ev)
{
    ev.now_ms = w->now_ms;
    ev.random = w->now_ms * 0x9e3779b97f4a7c15ULL;
    mesh_peers_step(&w->p, &ev, &w->todo);
    for (unsigned k = 0; k < w->todo.count; k++) {
        int i = w->todo.change[k].id.b[15];
        assert_int_not_equal(w->kept[i], w->todo.change[k].keep);
        w->kept[i] = w->todo.change[k].keep;
        if (w->kept[i] && w->tried < ARRAY_SIZE(w->order)) {
            w->order[w->tried++] = i;
        }
    }
}

static void tick(struct world *w, uint64_t ms)
{
    for (uint64_t end = w->now_ms + ms; w->now_ms < end; w->now_ms += 50) {
        step(w, (struct mesh_peers_event){.kind = MESH_PEERS_TICK});
    }
}

static void give_directory(struct world *w)
{
    step(w, (struct mesh_peers_event){
                .kind = MESH_PEERS_DIRECTORY, .entries = w->dir, .count = w->count});
}

static void link_is(struct world *w, size_t i, bool up)
{
    step(w, (struct mesh_peers_event){.kind = up ? MESH_PEERS_LINK_UP : MESH_PEERS_LINK_DOWN,
                                      .id = id_of(i)});
}

static void sample(struct world *w, size_t i, uint32_t latency_us, uint8_t load, bool full)
{
    step(w, (struct mesh_peers_event){.kind = MESH_PEERS_SAMPLE,
                                      .id = id_of(i),
                                      .latency_us = latency_us,
                                      .load = load,
                                      .full = full});
}

/* Whoever is tried answers, for ms. */
static void live(struct world *w, uint64_t ms)
{
    for (uint64_t end = w->now_ms + ms; w->now_ms < end; w->now_ms += 50) {
        step(w, (struct mesh_peers_event){.kind = MESH_PEERS_TICK});
        for (size_t i = 0; i < w->count; i++) {
            const struct mesh_peer *m = mesh_peers_find(&w->p, &w->dir[i].id);
            if (m != NULL && m->up != w->kept[i]) {
                link_is(w, i, w->kept[i]);
                if (m->up) {
                    sample(w, i, 1000 * (uint32_t)(i + 1), 0, false);
                }
            }
        }
    }
}

static struct world *start(void **state, enum mesh_node_kind kind, size_t relays)
{
    struct world *w = *state;
    struct uuid self = id_of(255);
    mesh_peers_init(&w->p, &self, kind);
    w->now_ms = 1000;
    w->count = relays;
    for (size_t i = 0; i < relays; i++) {
        w->dir[i] = (struct mesh_directory_entry){.id = id_of(i),
                                                  .relay = true,
                                                  .core = true,
                                                  .region = 1,
                                                  .trust = 100,
                                                  .bandwidth_mbps = 1024};
    }
    w->p.own_region = 1;
    give_directory(w);
    return w;
}

static int setup(void **state)
{
    *state = xcalloc(1, sizeof(struct world));
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    mesh_peers_fini(&w->p);
    free(w);
    return 0;
}

static size_t count_kept(const struct world *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->count; i++) {
        n += w->kept[i];
    }
    return n;
}

static void test_counts_stay_in_the_range_of_the_kind(void **state)
{
    static const struct {
        enum mesh_node_kind kind;
        unsigned min, max;
    } rows[] = {{MESH_NODE_NORMAL, 3, 5}, {MESH_NODE_RELAY, 8, 20}, {MESH_NODE_THIN, 1, 3}};
    for (size_t r = 0; r < ARRAY_SIZE(rows); r++) {
        struct world *w = start(state, rows[r].kind, RELAYS);
        for (int k = 0; k < 120; k++) {
            live(w, 1000);
            assert_in_range(mesh_peers_active(&w->p), rows[r].min, rows[r].max);
        }
        /* No full mesh: what is open beside the active ones is at most one look. */
        assert_true(count_kept(w) <= rows[r].max + 1);
        memset(w->kept, 0, sizeof w->kept);
        mesh_peers_fini(&w->p);
    }
}

static void test_few_relays_are_all_kept(void **state)
{
    struct world *w = start(state, MESH_NODE_NORMAL, 2);
    live(w, 5000);
    assert_int_equal(mesh_peers_active(&w->p), 2);
}

/* Two peers, equal but for one input: the better one has the lower score, by that input's weight. */
static void test_each_input_flips_the_choice(void **state)
{
    struct world *w = start(state, MESH_NODE_NORMAL, 2);
    struct mesh_peer base = *mesh_peers_find(&w->p, &w->dir[0].id);
    base.latency_us = 10000;
    base.tries = 10;
    struct mesh_peer worse[10];
    for (size_t i = 0; i < ARRAY_SIZE(worse); i++) {
        worse[i] = base;
    }
    worse[0].latency_us = 12000;
    worse[1].loss_permille = 3;
    worse[2].failed = 5;
    worse[3].entry.region = 2;
    worse[4].load = 60;
    worse[5].entry.bandwidth_mbps = 512;
    worse[6].entry.relay = false;
    worse[7].entry.policy = MESH_POLICY_AVOID;
    worse[8].entry.trust = 90;
    worse[9].failures = 1;
    static const int64_t by[] = {1000, 1200, 30000, 30000, 4000, 3000, 10000, 100000, 3000, 20000};
    for (size_t i = 0; i < ARRAY_SIZE(worse); i++) {
        assert_int_equal(mesh_peer_score(&w->p, &worse[i]) - mesh_peer_score(&w->p, &base), by[i]);
    }
    /* For a relay it is the core role that suits. */
    struct mesh_peer edge = base;
    edge.entry.core = false;
    w->p.kind = MESH_NODE_RELAY;
    assert_int_equal(mesh_peer_score(&w->p, &edge) - mesh_peer_score(&w->p, &base), 10000);
}

/* The same through the machine: of five warm peers, the one that is worse by one input stays out. */
static void test_choice_follows_the_score(void **state)
{
    for (int input = 0; input < 5; input++) {
        struct world *w = start(state, MESH_NODE_NORMAL, 5);
        size_t bad = (size_t)input;
        w->dir[bad].region = input == 1 ? 2 : 1;
        w->dir[bad].trust = input == 2 ? 10 : 100;
        w->dir[bad].policy = input == 3 ? MESH_POLICY_AVOID : MESH_POLICY_ALLOW;
        w->dir[bad].bandwidth_mbps = input == 4 ? 1 : 1024;
        give_directory(w);
        for (size_t i = 0; i < 5; i++) {
            sample(w, i, input == 0 && i == bad ? 90000 : 1000, 0, false);
            link_is(w, i, w->kept[i]);
        }
        for (int k = 0; k < 100; k++) { /* all are measured, one after the other */
            tick(w, 500);
            for (size_t i = 0; i < 5; i++) {
                const struct mesh_peer *m = mesh_peers_find(&w->p, &w->dir[i].id);
                if (m->up != w->kept[i]) {
                    link_is(w, i, w->kept[i]);
                }
                sample(w, i, input == 0 && i == bad ? 90000 : 1000, 0, false);
            }
        }
        const struct mesh_peer *m = mesh_peers_find(&w->p, &w->dir[bad].id);
        assert_int_not_equal(m->set, MESH_PEER_ACTIVE);
        assert_int_equal(mesh_peers_active(&w->p), 4);
        memset(w->kept, 0, sizeof w->kept);
        mesh_peers_fini(&w->p);
    }
}

static void test_a_slightly_better_peer_does_not_push_another_out(void **state)
{
    struct world *w = start(state, MESH_NODE_NORMAL, 6);
    live(w, 100000);
    bool before[6];
    memcpy(before, w->kept, sizeof before);
    for (size_t i = 0; i < 6; i++) { /* all alike, but for a little */
        sample(w, i, 20000 - 500 * (uint32_t)i, 0, false);
    }
    live(w, 60);
    for (int k = 0; k < 60; k++) {
        tick(w, 1000);
        for (size_t i = 0; i < 6; i++) {
            const struct mesh_peer *m = mesh_peers_find(&w->p, &w->dir[i].id);
            if (m->up != w->kept[i]) {
                link_is(w, i, w->kept[i]);
            }
        }
    }
    for (size_t i = 0; i < 6; i++) {
        const struct mesh_peer *m = mesh_peers_find(&w->p, &w->dir[i].id);
        assert_int_equal(m->set == MESH_PEER_ACTIVE, before[i]);
    }
}

static void test_blackout_recovers_warm_then_cached_then_cold(void **state)
{
    struct world *w = start(state, MESH_NODE_NORMAL, 12);
    struct mesh_peer_fact fact = {.id = id_of(11), .latency_us = 500, .tries = 4};
    step(w, (struct mesh_peers_event){.kind = MESH_PEERS_CACHED, .facts = &fact, .fact_count = 1});
    live(w, 12000);
    /* As it stands: active ones up; make one other warm, 11 cached, the rest cold. */
    for (size_t i = 0; i < 12; i++) {
        struct mesh_peer *m = (struct mesh_peer *)(uintptr_t)mesh_peers_find(&w->p, &w->dir[i].id);
        if (m->set == MESH_PEER_ACTIVE) {
            continue;
        }
        m->set = MESH_PEER_COLD;
        m->measured_ms = 0;
        m->cached = i == 11;
        m->next_try_ms = 0;
    }
    size_t warm = 12;
    for (size_t i = 0; i < 11 && warm == 12; i++) {
        struct mesh_peer *m = (struct mesh_peer *)(uintptr_t)mesh_peers_find(&w->p, &w->dir[i].id);
        if (m->set == MESH_PEER_COLD && !m->kept) {
            m->set = MESH_PEER_WARM;
            m->measured_ms = w->now_ms;
            warm = i;
        }
    }
    assert_true(warm < 12);
    assert_false(w->kept[11]);
    w->tried = 0;
    for (size_t i = 0; i < 12; i++) {
        if (w->kept[i]) {
            link_is(w, i, false); /* the blackout */
        }
    }
    tick(w, 100);
    assert_true(w->tried >= 3);
    assert_int_equal(w->order[0], (int)warm);
    assert_int_equal(w->order[1], 11);
    assert_false(mesh_peers_find(&w->p, &w->dir[w->order[2]].id)->cached);
}

static void test_a_full_relay_is_left_alone_for_a_while(void **state)
{
    struct world *w = start(state, MESH_NODE_NORMAL, 6);
    live(w, 1000);
    size_t full = 0;
    while (!w->kept[full]) {
        full++;
    }
    sample(w, full, 1000, 100, true);
    assert_false(w->kept[full]);
    uint64_t until = w->now_ms + MESH_FULL_MS - 100;
    while (w->now_ms < until) {
        live(w, 100);
        assert_false(w->kept[full]);
    }
    assert_int_equal(mesh_peers_active(&w->p), 4);
}

static void test_revoked_forbidden_and_unlisted_are_let_go(void **state)
{
    struct world *w = start(state, MESH_NODE_NORMAL, 4);
    live(w, 1000);
    assert_int_equal(mesh_peers_active(&w->p), 4);
    w->dir[0].revoked = true;
    w->dir[1].policy = MESH_POLICY_FORBID;
    w->dir[2].relay = w->dir[2].core = false;
    step(w, (struct mesh_peers_event){.kind = MESH_PEERS_DIRECTORY, .entries = w->dir, .count = 4});
    for (size_t i = 0; i < 3; i++) {
        assert_false(w->kept[i]);
        assert_false(mesh_peers_is_relay(&w->p, &w->dir[i].id));
    }
    assert_true(w->kept[3]);
    step(w, (struct mesh_peers_event){.kind = MESH_PEERS_DIRECTORY, .entries = w->dir, .count = 3});
    assert_false(w->kept[3]);
}

static void test_relay_of_one_organization_serves_its_members_only(void **state)
{
    struct world *w = start(state, MESH_NODE_NORMAL, 3);
    w->dir[0].scope = 7;
    give_directory(w);
    assert_false(mesh_peers_is_relay(&w->p, &w->dir[0].id));
    w->p.own_scope = 7;
    assert_true(mesh_peers_is_relay(&w->p, &w->dir[0].id));
    w->p.kind = MESH_NODE_RELAY; /* and is no part of anybody's path */
    assert_false(mesh_peers_is_relay(&w->p, &w->dir[0].id));
}

static void test_dead_peers_are_tried_again_with_back_off(void **state)
{
    struct world *w = start(state, MESH_NODE_NORMAL, 3);
    tick(w, 20000); /* nobody answers */
    assert_in_range(w->tried, 3 * 6, 3 * 16);
    live(w, 3000);
    assert_int_equal(mesh_peers_active(&w->p), 3);
}

static void test_nodes_that_lose_a_relay_do_not_all_go_to_the_same_one(void **state)
{
    unsigned first[RELAYS] = {0};
    for (unsigned node = 0; node < 200; node++) {
        struct world *w = *state;
        memset(w->kept, 0, sizeof w->kept);
        w->tried = 0;
        struct uuid self = UUID_NIL;
        self.b[0] = 9;
        self.b[1] = (uint8_t)node;
        mesh_peers_init(&w->p, &self, MESH_NODE_THIN);
        w->count = 20;
        for (size_t i = 0; i < w->count; i++) {
            w->dir[i] = (struct mesh_directory_entry){.id = id_of(i), .relay = true};
        }
        give_directory(w);
        first[w->order[0]]++;
        mesh_peers_fini(&w->p);
    }
    for (size_t i = 0; i < 20; i++) {
        assert_in_range(first[i], 1, 30); /* 10 each in the mean */
    }
}

static void test_a_flood_of_entries_stops_at_the_bound(void **state)
{
    struct world *w = *state;
    struct uuid self = id_of(255);
    static struct mesh_directory_entry many[MESH_PEERS_MAX + 50];
    mesh_peers_init(&w->p, &self, MESH_NODE_NORMAL);
    for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
        many[i].id = id_of(0);
        many[i].id.b[3] = (uint8_t)(i >> 8);
        many[i].id.b[4] = (uint8_t)i;
    }
    step(w, (struct mesh_peers_event){
                .kind = MESH_PEERS_DIRECTORY, .entries = many, .count = ARRAY_SIZE(many)});
    assert_int_equal(w->p.count, MESH_PEERS_MAX);
    assert_int_equal(w->p.dropped, 50);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_counts_stay_in_the_range_of_the_kind),
        T(test_few_relays_are_all_kept),
        T(test_each_input_flips_the_choice),
        T(test_choice_follows_the_score),
        T(test_a_slightly_better_peer_does_not_push_another_out),
        T(test_blackout_recovers_warm_then_cached_then_cold),
        T(test_a_full_relay_is_left_alone_for_a_while),
        T(test_revoked_forbidden_and_unlisted_are_let_go),
        T(test_relay_of_one_organization_serves_its_members_only),
        T(test_dead_peers_are_tried_again_with_back_off),
        T(test_nodes_that_lose_a_relay_do_not_all_go_to_the_same_one),
        T(test_a_flood_of_entries_stops_at_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
