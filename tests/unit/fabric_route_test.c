/* Route tables that talk to each other over a lossy, ordered-or-not set of links. */
#include "fabric/route_impl.h"

#include <setjmp.h>
#include <cmocka.h>

#define NODES 8
#define QUEUE 4096

struct packet {
    int from, to;
    uint64_t at_ms;
    size_t len;
    uint8_t data[MESH_MSG_MAX];
};

struct net {
    struct route_table *t[NODES];
    bool relay[NODES];
    uint32_t cost[NODES][NODES]; /* 0: no link */
    uint64_t token[NODES][NODES];
    uint64_t tokens;
    uint64_t next_ms[NODES];
    uint64_t now_ms;
    struct packet *queue;
    size_t count;
    uint64_t sent;
    unsigned lose_each; /* every n-th message; 0: none */
    struct uuid revoked;
};

static struct uuid id_of(int n)
{
    struct uuid u = UUID_NIL;
    u.b[0] = 1;
    u.b[15] = (uint8_t)n;
    return u;
}

static int index_of(const struct uuid *id)
{
    return id->b[15];
}

static enum route_refusal judge(void *data, const struct uuid *dst, const struct uuid *via)
{
    struct net *w = data;
    return uuid_equal(dst, &w->revoked) || uuid_equal(via, &w->revoked) ? ROUTE_REVOKED
                                                                        : ROUTE_NONE;
}

static void step(struct net *w, int i, struct route_event ev)
{
    static struct route_todo todo;
    ev.now_ms = w->now_ms;
    do {
        route_step(w->t[i], &ev, &todo);
        for (unsigned k = 0; k < todo.send_count; k++) {
            w->sent++;
            if (w->lose_each != 0 && w->sent % w->lose_each == 0) {
                continue;
            }
            assert_true(w->count < QUEUE);
            struct packet *p = &w->queue[w->count++];
            p->from = i;
            p->to = index_of(&todo.send[k].to);
            p->at_ms = w->now_ms + 5;
            p->len = todo.send[k].len;
            memcpy(p->data, todo.send[k].data, p->len);
        }
        w->next_ms[i] = todo.next_ms;
        ev.kind = ROUTE_TICK;
    } while (todo.next_ms <= w->now_ms);
}

static void start_node(struct net *w, int i)
{
    struct route_config c = {.self = id_of(i),
                             .relay = w->relay[i],
                             .first_seqno = 100,
                             .now_ms = w->now_ms,
                             .data = w,
                             .judge = judge};
    w->t[i] = route_new(&c);
    w->next_ms[i] = w->now_ms;
}

static void link_nodes(struct net *w, int a, int b, uint32_t cost)
{
    w->cost[a][b] = w->cost[b][a] = cost;
    w->token[a][b] = ++w->tokens;
    w->token[b][a] = ++w->tokens;
    for (int k = 0; k < 2; k++) {
        int from = k == 0 ? a : b;
        int to = k == 0 ? b : a;
        step(w, from,
             (struct route_event){.kind = ROUTE_LINK_UP,
                                  .neighbour = id_of(to),
                                  .token = w->token[from][to],
                                  .peer_token = w->token[to][from],
                                  .cost = cost,
                                  .relay = w->relay[to]});
    }
}

static void cut_one(struct net *w, int from, int to)
{
    step(w, from, (struct route_event){.kind = ROUTE_LINK_DOWN, .neighbour = id_of(to)});
}

static void cut(struct net *w, int a, int b)
{
    w->cost[a][b] = w->cost[b][a] = 0;
    cut_one(w, a, b);
    cut_one(w, b, a);
}

static int next_hop(struct net *w, int from, int dst)
{
    struct uuid next;
    struct uuid d = id_of(dst);
    return route_next_hop(w->t[from], &d, NULL, &next) == ROUTE_NONE ? index_of(&next) : -1;
}

/* -1: no way; the cost of the path else. Fails on a loop. */
static int64_t path_cost(struct net *w, int from, int dst)
{
    int64_t sum = 0;
    int at = from;
    for (int hops = 0; at != dst; hops++) {
        assert_true(hops <= NODES); /* a loop */
        int next = next_hop(w, at, dst);
        if (next < 0) {
            return -1;
        }
        sum += w->cost[at][next];
        at = next;
    }
    return sum;
}

static void no_loops(struct net *w)
{
    for (int a = 0; a < NODES; a++) {
        for (int b = 0; b < NODES; b++) {
            if (w->t[a] != NULL && w->t[b] != NULL) {
                (void)path_cost(w, a, b);
            }
        }
    }
}

static void run(struct net *w, uint64_t ms)
{
    for (uint64_t end = w->now_ms + ms; w->now_ms < end; w->now_ms++) {
        for (size_t i = 0; i < w->count;) {
            if (w->queue[i].at_ms > w->now_ms) {
                i++;
                continue;
            }
            struct packet p = w->queue[i];
            memmove(&w->queue[i], &w->queue[i + 1], (w->count - i - 1) * sizeof p);
            w->count--;
            if (w->t[p.to] != NULL && w->cost[p.from][p.to] != 0) {
                step(w, p.to,
                     (struct route_event){.kind = ROUTE_MESSAGE,
                                          .neighbour = id_of(p.from),
                                          .message = blob_of(p.data, p.len)});
                no_loops(w);
            }
        }
        for (int i = 0; i < NODES; i++) {
            if (w->t[i] != NULL && w->now_ms >= w->next_ms[i]) {
                step(w, i, (struct route_event){.kind = ROUTE_TICK});
                no_loops(w);
            }
        }
    }
}

static int setup(void **state)
{
    struct net *w = xcalloc(1, sizeof *w);
    w->queue = xcalloc(QUEUE, sizeof *w->queue);
    w->now_ms = 1000;
    for (int i = 0; i < NODES; i++) {
        w->relay[i] = true;
    }
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct net *w = *state;
    for (int i = 0; i < NODES; i++) {
        route_free(w->t[i]);
    }
    free(w->queue);
    free(w);
    return 0;
}

/* Nodes 0 .. n-1, past their start. */
static void start(struct net *w, int n)
{
    for (int i = 0; i < n; i++) {
        start_node(w, i);
    }
    run(w, ROUTE_START_HOLD_MS + 10);
}

static struct route_counters counters(struct net *w, int i)
{
    struct route_counters c;
    route_counters(w->t[i], &c);
    return c;
}

static void test_chain_of_relays_learns_the_far_end(void **state)
{
    struct net *w = *state;
    start(w, 5);
    for (int i = 0; i + 1 < 5; i++) {
        link_nodes(w, i, i + 1, 1000);
    }
    run(w, 500);
    assert_int_equal(path_cost(w, 0, 4), 4000);
    assert_int_equal(path_cost(w, 4, 0), 4000);
}

static void test_cheapest_path_is_chosen_not_the_shortest(void **state)
{
    struct net *w = *state;
    start(w, 4);
    link_nodes(w, 0, 3, 90000);
    link_nodes(w, 0, 1, 5000);
    link_nodes(w, 1, 2, 5000);
    link_nodes(w, 2, 3, 5000);
    run(w, 500);
    assert_int_equal(path_cost(w, 0, 3), 15000);
}

static void test_cut_moves_traffic_and_a_newer_seqno_is_asked_for(void **state)
{
    struct net *w = *state;
    start(w, 4);
    link_nodes(w, 0, 3, 5000);
    link_nodes(w, 0, 1, 5000);
    link_nodes(w, 1, 2, 5000);
    link_nodes(w, 2, 3, 50000);
    run(w, 500);
    assert_int_equal(path_cost(w, 1, 3), 10000);
    cut(w, 0, 3); /* what is left is worse than what 1 and 0 have advertised: infeasible as it is */
    run(w, 1000);
    assert_int_equal(path_cost(w, 0, 3), 60000);
    assert_int_equal(path_cost(w, 1, 3), 55000);
    assert_true(counters(w, 0).requests_out + counters(w, 1).requests_out > 0);
    cut(w, 2, 3);
    run(w, 1000);
    assert_int_equal(path_cost(w, 0, 3), -1);
    link_nodes(w, 0, 3, 5000);
    run(w, 1000);
    assert_int_equal(path_cost(w, 2, 3), 15000);
}

static void test_a_slightly_better_path_does_not_move_traffic(void **state)
{
    struct net *w = *state;
    start(w, 4);
    link_nodes(w, 0, 1, 10000);
    link_nodes(w, 1, 3, 10000);
    run(w, 300);
    link_nodes(w, 0, 2, 9500);
    link_nodes(w, 2, 3, 9500);
    run(w, 500);
    assert_int_equal(next_hop(w, 0, 3), 1);
    step(w, 0, (struct route_event){.kind = ROUTE_LINK_COST, .neighbour = id_of(2), .cost = 1000});
    run(w, 100);
    assert_int_equal(next_hop(w, 0, 3), 2);
}

/* The way moves behind the next hop, which stays: whoever waits for an acknowledgement is told by the
 * generation. Noise tells nobody. */
static void test_way_that_moves_behind_the_next_hop_is_noticed(void **state)
{
    struct net *w = *state;
    start(w, 5);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 1, 2, 1000);
    link_nodes(w, 2, 4, 1000);
    link_nodes(w, 1, 3, 1200);
    link_nodes(w, 3, 4, 1000);
    run(w, 1000);
    assert_int_equal(path_cost(w, 0, 4), 3000);
    uint64_t before = route_generation(w->t[0]);
    step(w, 1, (struct route_event){.kind = ROUTE_LINK_COST, .neighbour = id_of(2), .cost = 1100});
    run(w, 100);
    assert_int_equal(route_generation(w->t[0]), before);
    cut(w, 1, 2); /* told, though the other way is as long and costs much the same */
    run(w, 100);
    assert_int_equal(next_hop(w, 1, 4), 3);
    assert_int_equal(next_hop(w, 0, 4), 1);
    const struct uuid far_end = id_of(4);
    assert_int_equal(route_destination_find(w->t[0], &far_end)->route[0].last.metric, 2200);
    assert_true(route_generation(w->t[0]) > before);
    before = route_generation(w->t[0]);
    step(w, 1, (struct route_event){.kind = ROUTE_LINK_COST, .neighbour = id_of(3), .cost = 90000});
    run(w, 100);
    assert_int_equal(next_hop(w, 0, 4), 1);
    assert_true(route_generation(w->t[0]) > before);
}

static void test_lost_messages_are_repeated(void **state)
{
    struct net *w = *state;
    w->lose_each = 3;
    start(w, 5);
    for (int i = 0; i + 1 < 5; i++) {
        link_nodes(w, i, i + 1, 1000);
    }
    run(w, 3000);
    assert_int_equal(path_cost(w, 0, 4), 4000);
    cut(w, 3, 4);
    run(w, 3000);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(next_hop(w, i, 4), -1); /* every withdrawal arrived */
    }
    assert_true(counters(w, 0).retries + counters(w, 1).retries + counters(w, 2).retries > 0);
}

static void test_leaf_asks_and_learns_and_is_told_no_more(void **state)
{
    struct net *w = *state;
    w->relay[0] = w->relay[3] = false;
    start(w, 4);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 1, 2, 1000);
    link_nodes(w, 2, 3, 1000);
    run(w, 500);
    assert_int_equal(next_hop(w, 0, 3), -1);
    assert_int_equal(route_destination_count(w->t[0]), 1); /* its relay, nothing else */
    step(w, 0, (struct route_event){.kind = ROUTE_WANT, .dst = id_of(3)});
    run(w, 500);
    assert_int_equal(path_cost(w, 0, 3), 3000);
    assert_int_equal(next_hop(w, 0, 2), -1);
    cut(w, 2, 3);
    run(w, 500);
    assert_int_equal(next_hop(w, 0, 3), -1); /* it is told of changes */
}

/* The new neighbour's end of the link comes up a moment later than ours, and it drops what we ask first. */
static void test_leaf_asks_a_new_relay_again_when_it_has_a_way_already(void **state)
{
    struct net *w = *state;
    w->relay[0] = w->relay[3] = false;
    start(w, 4);
    link_nodes(w, 0, 1, 50000);
    link_nodes(w, 1, 3, 1000);
    link_nodes(w, 2, 3, 1000);
    step(w, 0, (struct route_event){.kind = ROUTE_WANT, .dst = id_of(3)});
    run(w, 2000);
    assert_int_equal(next_hop(w, 0, 3), 1);
    uint64_t asked = counters(w, 0).requests_out;
    link_nodes(w, 0, 2, 1000);
    w->count = 0; /* all of it is lost */
    run(w, 1500);
    assert_int_equal(next_hop(w, 0, 3), 2);
    run(w, 10000);
    assert_true(counters(w, 0).requests_out - asked <= 2 * ROUTE_WANT_TRIES); /* two relays */
}

static void test_leaf_that_advertises_others_is_ignored_and_counted(void **state)
{
    struct net *w = *state;
    start(w, 3);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 1, 2, 1000);
    /* For node 0's snapshot, node 1 is an ordinary node. */
    step(w, 0,
         (struct route_event){.kind = ROUTE_NEIGHBOUR_ROLE, .neighbour = id_of(1), .relay = false});
    run(w, 500);
    assert_int_equal(next_hop(w, 0, 2), -1);
    assert_int_equal(next_hop(w, 0, 1), 1);
    assert_true(counters(w, 0).drop_role > 0);
    struct uuid liar = id_of(1);
    uint64_t refused = route_refused_from(w->t[0], &liar);
    assert_true(refused > 0);
    run(w, 2000); /* it is not acknowledged, so it insists */
    assert_true(route_refused_from(w->t[0], &liar) > refused);
}

static void test_leaf_does_not_forward(void **state)
{
    struct net *w = *state;
    struct uuid next;
    struct uuid two = id_of(2);
    struct uuid one = id_of(1);
    w->relay[0] = false;
    start(w, 3);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 0, 2, 1000);
    run(w, 500);
    assert_int_equal(route_next_hop(w->t[0], &two, NULL, &next), ROUTE_NONE);
    assert_int_equal(route_next_hop(w->t[0], &two, &one, &next), ROUTE_NO_ROLE);
    assert_int_equal(next_hop(w, 1, 2), -1); /* nor does 1 go through it */
}

static void test_packets_never_go_back(void **state)
{
    struct net *w = *state;
    struct uuid next;
    struct uuid two = id_of(2);
    struct uuid from = id_of(1);
    start(w, 3);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 1, 2, 1000);
    run(w, 500);
    assert_int_equal(route_next_hop(w->t[0], &two, &from, &next), ROUTE_NO_ROUTE);
    from = id_of(0);
    assert_int_equal(route_next_hop(w->t[1], &two, &from, &next), ROUTE_NONE);
}

static void test_revoked_node_is_named_and_not_routed_to(void **state)
{
    struct net *w = *state;
    struct uuid next;
    struct uuid dst = id_of(3);
    start(w, 4);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 1, 3, 1000);
    link_nodes(w, 1, 2, 1000);
    run(w, 500);
    assert_int_equal(path_cost(w, 0, 3), 2000);
    w->revoked = dst;
    step(w, 0, (struct route_event){.kind = ROUTE_POLICY_CHANGED});
    assert_int_equal(route_next_hop(w->t[0], &dst, NULL, &next), ROUTE_REVOKED);
    step(w, 1, (struct route_event){.kind = ROUTE_POLICY_CHANGED});
    run(w, 500);
    assert_int_equal(next_hop(w, 2, 3), -1);
    /* And a revoked relay carries nothing. */
    w->revoked = id_of(1);
    for (int i = 0; i < 4; i++) {
        step(w, i, (struct route_event){.kind = ROUTE_POLICY_CHANGED});
    }
    assert_int_equal(next_hop(w, 0, 2), -1);
}

static void test_restarted_relay_waits_until_nobody_counts_on_it(void **state)
{
    struct net *w = *state;
    start(w, 4);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 1, 2, 1000);
    link_nodes(w, 0, 2, 100000);
    link_nodes(w, 2, 3, 1000);
    run(w, 1000);
    assert_int_equal(next_hop(w, 0, 3), 1);
    route_free(
        w->t[1]); /* it dies and is back at once, with nothing; the others have not noticed */
    start_node(w, 1);
    link_nodes(w, 0, 1, 1000); /* 0 has; 2 has not: its table still goes through 1 for 0 */
    run(w, 200);
    assert_int_equal(next_hop(w, 1, 3), -1);
    link_nodes(w, 1, 2, 1000);
    run(w, ROUTE_START_HOLD_MS + 1000);
    assert_int_equal(path_cost(w, 0, 3), 3000);
}

static void test_messages_of_an_earlier_life_are_dropped(void **state)
{
    struct net *w = *state;
    start(w, 3);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 1, 2, 1000);
    run(w, 1); /* routes are on the wire */
    assert_true(w->count > 0);
    link_nodes(w, 0, 1, 1000); /* a new life: new tokens */
    run(w, 10);
    assert_true(counters(w, 0).drop_token > 0);
    run(w, 500);
    assert_int_equal(path_cost(w, 0, 2), 2000);
}

static void test_restarted_destination_with_an_older_seqno_is_reachable_again(void **state)
{
    struct net *w = *state;
    start(w, 3);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 1, 2, 1000);
    run(w, 500);
    /* 2 raised its number since: it was asked. */
    struct route_destination *d = route_destination_find(w->t[1], &w->t[2]->cfg.self);
    route_request(w->t[1], d, 500);
    step(w, 1, (struct route_event){.kind = ROUTE_TICK});
    run(w, 500);
    assert_int_equal(w->t[2]->self->adv.seqno, 500);
    cut(w, 1, 2);
    route_free(w->t[2]);
    start_node(w, 2);
    link_nodes(w, 1, 2, 1000);
    run(w, 2000);
    assert_int_equal(path_cost(w, 0, 2), 2000);
    assert_int_equal(w->t[2]->self->adv.seqno, 501);
}

static void inject(struct net *w, int from, int to, struct mesh_routes m)
{
    uint8_t out[MESH_MSG_MAX];
    m.token = w->token[from][to];
    m.peer_token = w->token[to][from];
    m.number = 1000 + (uint32_t)w->now_ms;
    size_t len = mesh_routes_encode(&m, out);
    step(w, to,
         (struct route_event){
             .kind = ROUTE_MESSAGE, .neighbour = id_of(from), .message = blob_of(out, len)});
    w->now_ms++;
}

static void test_what_cannot_be_is_dropped_by_its_reason(void **state)
{
    struct net *w = *state;
    start(w, 2);
    link_nodes(w, 0, 1, 1000);
    run(w, 100);
    struct mesh_routes m = {.count = 1, .entry = {{.dst = id_of(9), .seqno = 1, .metric = 5}}};
    inject(w, 1, 0, m);
    assert_int_equal(next_hop(w, 0, 9), 1);
    m.entry[0].seqno = 0;
    inject(w, 1, 0, m);
    assert_int_equal(counters(w, 0).drop_seqno, 1);
    m.entry[0] = (struct mesh_route_entry){.dst = id_of(9), .seqno = 2, .hops = MESH_HOPS_MAX};
    inject(w, 1, 0, m);
    assert_int_equal(counters(w, 0).drop_hop_limit, 1);
    assert_int_equal(next_hop(w, 0, 9), -1);
    m.entry[0] = (struct mesh_route_entry){.dst = id_of(9), .metric = MESH_METRIC_INFINITE - 1};
    inject(w, 1, 0, m); /* would wrap around with the cost of the link */
    assert_int_equal(counters(w, 0).drop_hop_limit, 2);
    m.entry[0] = (struct mesh_route_entry){.dst = id_of(0), .seqno = 9};
    inject(w, 1, 0, m);
    assert_int_equal(counters(w, 0).drop_own, 1);
    step(w, 0,
         (struct route_event){.kind = ROUTE_MESSAGE,
                              .neighbour = id_of(1),
                              .message = blob_str("\x04\x01 rubbish")});
    assert_int_equal(counters(w, 0).drop_malformed, 1);
    step(w, 0,
         (struct route_event){
             .kind = ROUTE_MESSAGE, .neighbour = id_of(7), .message = blob_str("\x04")});
    assert_int_equal(counters(w, 0).drop_no_link, 1);
}

static void test_a_flood_of_destinations_stops_at_the_bound(void **state)
{
    struct net *w = *state;
    start(w, 2);
    link_nodes(w, 0, 1, 1000);
    run(w, 100);
    for (int i = 0; i < ROUTE_DESTINATIONS_MAX / MESH_ROUTES_ENTRIES_MAX + 3; i++) {
        struct mesh_routes m = {.count = MESH_ROUTES_ENTRIES_MAX};
        for (uint32_t k = 0; k < m.count; k++) {
            m.entry[k].dst = id_of(0);
            m.entry[k].dst.b[0] = 2;
            m.entry[k].dst.b[4] = (uint8_t)k;
            m.entry[k].dst.b[5] = (uint8_t)i;
        }
        inject(w, 1, 0, m);
    }
    assert_int_equal(route_destination_count(w->t[0]), ROUTE_DESTINATIONS_MAX - 1);
    assert_true(counters(w, 0).drop_table_full > 0);
    assert_int_equal(next_hop(w, 0, 1), 1); /* what was known stays */
    cut(w, 0, 1);
    run(w, ROUTE_GC_MS + 20000);
    assert_int_equal(route_destination_count(w->t[0]), 0);
}

static void test_a_forgotten_destination_was_withdrawn_everywhere(void **state)
{
    struct net *w = *state;
    start(w, 3);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 1, 2, 1000);
    run(w, 500);
    assert_int_equal(route_destination_count(w->t[0]), 2);
    w->cost[1][0] = 0; /* what 1 says to 0 is lost; both think the link is fine */
    cut(w, 1, 2);
    run(w, ROUTE_GC_MS + 5000);
    assert_int_equal(next_hop(w, 0, 2), 1); /* 0 does not know, so 1 remembers */
    assert_non_null(route_destination_find(w->t[1], &w->t[2]->cfg.self));
    w->cost[1][0] = 1000;
    run(w, 5000);
    assert_int_equal(next_hop(w, 0, 2), -1);
    assert_null(route_destination_find(w->t[1], &w->t[2]->cfg.self));
}

struct shown {
    int count, selected, next[NODES];
    enum route_refusal refusal[NODES];
};

static void note_path(void *data, const struct route_path *p)
{
    struct shown *s = data;
    s->selected = p->selected ? index_of(&p->next) : s->selected;
    s->refusal[s->count] = p->refusal;
    s->next[s->count++] = p->metric == MESH_METRIC_INFINITE ? -1 : index_of(&p->next);
}

static void test_paths_are_explained(void **state)
{
    struct net *w = *state;
    struct uuid dst = id_of(3);
    struct shown s = {.selected = -1};
    start(w, 4);
    link_nodes(w, 0, 1, 1000);
    link_nodes(w, 0, 2, 50000);
    link_nodes(w, 1, 3, 1000);
    link_nodes(w, 2, 3, 50000);
    run(w, 1000);
    route_paths(w->t[0], &dst, note_path, &s);
    assert_int_equal(s.count, 2);
    assert_int_equal(s.selected, 1);
    assert_int_equal(s.next[0], 1); /* the one in use comes first */
    assert_int_equal(s.refusal[0], ROUTE_NONE);
    /* Worse than what we have advertised: it could lead back to us. */
    assert_int_equal(s.next[1], 2);
    assert_int_equal(s.refusal[1], ROUTE_NO_ROUTE);
    s = (struct shown){.selected = -1};
    route_list(w->t[0], note_path, &s);
    assert_int_equal(s.count, 3);
    cut(w, 1, 3);
    cut(w, 2, 3);
    run(w, 2000);
    s = (struct shown){.selected = -1};
    route_list(w->t[0], note_path, &s);
    int none = 0;
    for (int i = 0; i < s.count; i++) {
        none += s.next[i] == -1 && s.refusal[i] == ROUTE_NO_ROUTE;
    }
    assert_int_equal(none, 1);
    for (int r = ROUTE_NONE; r <= ROUTE_UDP_BLOCKED; r++) {
        assert_string_not_equal(route_refusal_text((enum route_refusal)r), "unknown");
    }
    assert_string_equal(route_refusal_text(ROUTE_HOP_LIMIT), "hop_limit");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_chain_of_relays_learns_the_far_end),
        T(test_cheapest_path_is_chosen_not_the_shortest),
        T(test_cut_moves_traffic_and_a_newer_seqno_is_asked_for),
        T(test_a_slightly_better_path_does_not_move_traffic),
        T(test_way_that_moves_behind_the_next_hop_is_noticed),
        T(test_lost_messages_are_repeated),
        T(test_leaf_asks_and_learns_and_is_told_no_more),
        T(test_leaf_asks_a_new_relay_again_when_it_has_a_way_already),
        T(test_leaf_that_advertises_others_is_ignored_and_counted),
        T(test_leaf_does_not_forward),
        T(test_packets_never_go_back),
        T(test_revoked_node_is_named_and_not_routed_to),
        T(test_restarted_relay_waits_until_nobody_counts_on_it),
        T(test_messages_of_an_earlier_life_are_dropped),
        T(test_restarted_destination_with_an_older_seqno_is_reachable_again),
        T(test_what_cannot_be_is_dropped_by_its_reason),
        T(test_a_flood_of_destinations_stops_at_the_bound),
        T(test_a_forgotten_destination_was_withdrawn_everywhere),
        T(test_paths_are_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
