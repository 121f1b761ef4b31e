/* Whole overlay nodes on a perfect wire: who is admitted, where packets go, and why not. */
#include "fabric/mesh.h"

#include <setjmp.h>
#include <cmocka.h>

#define NODES 8
#define RELAYS 2 /* nodes 0 and 1 */

struct node {
    struct mesh *mesh;
    struct mesh_todo todo;
    bool keep[NODES];
};

struct net {
    struct node node[NODES];
    int count;
    bool up[NODES][NODES];
    bool dead[NODES];
    uint64_t now_us;
    struct {
        int from, to;
        size_t len;
        uint8_t data[MESH_MSG_MAX];
    } *queue;
    size_t queued;
};

static struct uuid id_of(int n)
{
    struct uuid u = UUID_NIL;
    u.b[0] = 1;
    u.b[15] = (uint8_t)n;
    return u;
}

static void step(struct net *w, int i, struct mesh_event ev)
{
    struct node *x = &w->node[i];
    ev.now_us = w->now_us;
    ev.random = w->now_us * 2654435761u + (uint64_t)i;
    mesh_step(x->mesh, &ev, &x->todo);
    for (size_t k = 0; k < x->todo.send_count; k++) {
        assert_true(w->queued < 4096);
        w->queue[w->queued].from = i;
        w->queue[w->queued].to = x->todo.send[k].to.b[15];
        w->queue[w->queued].len = x->todo.send[k].len;
        memcpy(w->queue[w->queued++].data, x->todo.send[k].data, x->todo.send[k].len);
    }
    for (size_t k = 0; k < x->todo.change_count; k++) {
        x->keep[x->todo.change[k].id.b[15]] = x->todo.change[k].keep;
    }
}

static void sessions(struct net *w)
{
    for (int a = 0; a < w->count; a++) {
        for (int b = a + 1; b < w->count; b++) {
            bool want = (w->node[a].keep[b] || w->node[b].keep[a]) && !w->dead[a] && !w->dead[b];
            if (want == w->up[a][b]) {
                continue;
            }
            w->up[a][b] = w->up[b][a] = want;
            enum mesh_event_kind kind = want ? MESH_SESSION_UP : MESH_SESSION_DOWN;
            if (!w->dead[a]) {
                step(w, a, (struct mesh_event){.kind = kind, .peer = id_of(b)});
            }
            if (!w->dead[b]) {
                step(w, b, (struct mesh_event){.kind = kind, .peer = id_of(a)});
            }
        }
    }
}

static void run(struct net *w, uint64_t ms)
{
    for (uint64_t end = w->now_us + ms * 1000; w->now_us < end; w->now_us += 10000) {
        sessions(w);
        size_t n = w->queued;
        for (size_t k = 0; k < n; k++) {
            int to = w->queue[k].to;
            if (w->up[w->queue[k].from][to]) {
                step(w, to,
                     (struct mesh_event){.kind = MESH_DATAGRAM,
                                         .peer = id_of(w->queue[k].from),
                                         .payload = blob_of(w->queue[k].data, w->queue[k].len)});
            }
        }
        memmove(w->queue, w->queue + n, (w->queued - n) * sizeof *w->queue);
        w->queued -= n;
        for (int i = 0; i < w->count; i++) {
            if (!w->dead[i] && w->now_us >= w->node[i].todo.next_us) {
                step(w, i, (struct mesh_event){.kind = MESH_TICK});
            }
        }
    }
}

static void give_directory(struct net *w, int i, bool revoked)
{
    struct mesh_directory_entry e[RELAYS];
    for (int r = 0; r < RELAYS; r++) {
        e[r] = (struct mesh_directory_entry){.id = id_of(r), .relay = true, .trust = 100};
    }
    step(w, i,
         (struct mesh_event){.kind = MESH_DIRECTORY,
                             .own = {.revoked = revoked},
                             .own_kind = i < RELAYS ? MESH_NODE_RELAY : MESH_NODE_NORMAL,
                             .entries = e,
                             .count = RELAYS});
}

/* leaves_max: of relay 0. */
static void start(struct net *w, int count, uint32_t leaves_max)
{
    w->count = count;
    for (int i = 0; i < count; i++) {
        struct mesh_config c = {.self = id_of(i),
                                .kind = i < RELAYS ? MESH_NODE_RELAY : MESH_NODE_NORMAL,
                                .leaves_max = i == 0 ? leaves_max : 0,
                                .now_us = w->now_us};
        w->node[i].mesh = mesh_new(&c);
        give_directory(w, i, false);
    }
}

static int setup(void **state)
{
    struct net *w = xcalloc(1, sizeof *w);
    w->queue = xcalloc(4096, sizeof *w->queue);
    w->now_us = 1000000;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct net *w = *state;
    for (int i = 0; i < w->count; i++) {
        mesh_free(w->node[i].mesh);
        mesh_todo_fini(&w->node[i].todo);
    }
    free(w->queue);
    free(w);
    return 0;
}

static enum route_refusal hop(struct net *w, int from, int dst, int came_from, int *ret)
{
    struct uuid next;
    struct uuid d = id_of(dst);
    struct uuid f = id_of(came_from);
    enum route_refusal why = mesh_next_hop(w->node[from].mesh, &d, came_from < 0 ? NULL : &f,
                                           w->now_us, &next);
    *ret = why == ROUTE_NONE ? next.b[15] : -1;
    return why;
}

static void want(struct net *w, int i, int dst)
{
    step(w, i, (struct mesh_event){.kind = MESH_WANT, .peer = id_of(dst)});
}

static void test_leaves_reach_each_other_through_a_relay(void **state)
{
    struct net *w = *state;
    int next;
    start(w, 4, 0);
    run(w, 3000);
    assert_int_equal(hop(w, 2, 3, -1, &next), ROUTE_NO_ROUTE); /* not asked for */
    want(w, 2, 3);
    run(w, 1000);
    assert_int_equal(hop(w, 2, 3, -1, &next), ROUTE_NONE);
    assert_in_range(next, 0, RELAYS - 1);
    int relay = next;
    assert_int_equal(hop(w, relay, 3, 2, &next), ROUTE_NONE);
    assert_int_equal(next, 3);
    /* What never goes: back, from a stranger, through an ordinary node. */
    assert_int_equal(hop(w, relay, 3, 3, &next), ROUTE_NO_ROUTE);
    assert_int_equal(hop(w, relay, 3, 7, &next), ROUTE_NO_ROLE);
    assert_int_equal(hop(w, 2, 3, relay, &next), ROUTE_NO_ROLE);
}

static void test_dead_relay_is_left_on_time_and_silence_has_a_name(void **state)
{
    struct net *w = *state;
    int next;
    start(w, 4, 0);
    want(w, 2, 3);
    run(w, 4000);
    assert_int_equal(hop(w, 2, 3, -1, &next), ROUTE_NONE);
    int first = next;
    w->dead[first] = true;
    w->up[first][2] = w->up[2][first] = false; /* nobody tells 2: only the silence does */
    w->up[first][3] = w->up[3][first] = false;
    w->up[0][1] = w->up[1][0] = false;
    run(w, 1700);
    assert_int_equal(hop(w, 2, 3, -1, &next), ROUTE_NONE);
    assert_int_equal(next, 1 - first);
    w->dead[1 - first] = true;
    w->up[1 - first][2] = w->up[2][1 - first] = false;
    run(w, 1700);
    assert_int_equal(hop(w, 2, 3, -1, &next), ROUTE_UDP_BLOCKED);
}

static void test_a_relay_takes_so_many_leaves_and_the_others_go_elsewhere(void **state)
{
    struct net *w = *state;
    struct mesh_counters c;
    start(w, 8, 4);
    w->dead[1] = true; /* all six leaves turn to relay 0 */
    run(w, 3000);
    assert_int_equal(route_leaf_count(mesh_routes(w->node[0].mesh)), 4);
    mesh_counters(w->node[0].mesh, &c);
    assert_true(c.leaves_refused >= 2);
    int out = 0;
    for (int i = RELAYS; i < 8; i++) {
        out += mesh_peers_active(mesh_peers(w->node[i].mesh)) == 0;
    }
    assert_int_equal(out, 2);
    w->dead[1] = false; /* another relay comes: they are taken in */
    run(w, 4000);
    for (int i = RELAYS; i < 8; i++) {
        assert_true(mesh_peers_active(mesh_peers(w->node[i].mesh)) > 0);
    }
    assert_int_equal(route_leaf_count(mesh_routes(w->node[0].mesh)), 4);
}

static void test_a_revoked_node_sends_nothing_anywhere(void **state)
{
    struct net *w = *state;
    int next;
    start(w, 4, 0);
    want(w, 2, 3);
    run(w, 3000);
    assert_int_equal(hop(w, 2, 3, -1, &next), ROUTE_NONE);
    give_directory(w, 2, true);
    assert_int_equal(hop(w, 2, 3, -1, &next), ROUTE_REVOKED);
}

static void test_rubbish_is_counted_and_changes_nothing(void **state)
{
    struct net *w = *state;
    struct mesh_counters before;
    struct mesh_counters after;
    start(w, 3, 0);
    run(w, 2000);
    mesh_counters(w->node[0].mesh, &before);
    const struct {
        int from;
        const char *bytes;
        size_t len;
    } rows[] = {
        {2, "", 0}, {2, "\x02", 1}, {2, "\x03\x01 short", 8}, {2, "\xff", 1}, {7, "\x02\x01", 2}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        step(w, 0,
             (struct mesh_event){.kind = MESH_DATAGRAM,
                                 .peer = id_of(rows[i].from),
                                 .payload = blob_of(rows[i].bytes, rows[i].len)});
    }
    mesh_counters(w->node[0].mesh, &after);
    struct route_counters rc;
    route_counters(mesh_routes(w->node[0].mesh), &rc);
    assert_int_equal(after.drop_malformed - before.drop_malformed, 2);
    assert_int_equal(after.drop_unknown_peer - before.drop_unknown_peer, 1);
    assert_int_equal(rc.drop_malformed, 2);
    assert_int_equal(after.links_down, before.links_down);
}

struct seen {
    int links, relays;
    struct uuid last;
};

static void note_link(void *data, const struct mesh_link_info *info)
{
    struct seen *s = data;
    assert_true(s->links == 0 || memcmp(s->last.b, info->id.b, 16) < 0); /* in order */
    s->last = info->id;
    s->links++;
    s->relays += info->relay;
    assert_int_equal(info->link->state, MESH_LINK_UP);
    assert_true(info->cost_us > 0);
}

static void test_links_are_listed_in_order(void **state)
{
    struct net *w = *state;
    struct seen s = {0};
    start(w, 5, 0);
    run(w, 3000);
    mesh_links(w->node[0].mesh, w->now_us, note_link, &s);
    assert_int_equal(s.links, 4);
    assert_int_equal(s.relays, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_leaves_reach_each_other_through_a_relay),
        T(test_dead_relay_is_left_on_time_and_silence_has_a_name),
        T(test_a_relay_takes_so_many_leaves_and_the_others_go_elsewhere),
        T(test_a_revoked_node_sends_nothing_anywhere),
        T(test_rubbish_is_counted_and_changes_nothing),
        T(test_links_are_listed_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
