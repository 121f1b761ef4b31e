/* Sessions through relays, over real sockets (DESIGN section 8; SPEC RTE-06, RTE-08). */
#include "lib/fabric_relays.h"

#include <setjmp.h>
#include <cmocka.h>

static int setup(void **state)
{
    struct relay_line *l = xcalloc(1, sizeof *l);
    relay_line_init(l);
    *state = l;
    return 0;
}

static int teardown(void **state)
{
    struct relay_line *l = *state;
    relay_world_free(l->w);
    free(l);
    return 0;
}

struct found {
    const struct uuid *id;
    struct fabric_session_info info;
    unsigned count;
};

static void find_session(void *data, const struct fabric_session_info *info)
{
    struct found *f = data;
    if (uuid_equal(&info->peer.identity.node_id, f->id)) {
        f->info = *info;
        f->count++;
    }
}

static struct found session_to(struct relay_node *n, struct relay_node *peer)
{
    struct found f = {.id = &peer->n->id};
    fabric_sessions(n->n->f, find_session, &f);
    return f;
}

static struct fabric_overlay_counters counters(struct relay_node *n)
{
    struct fabric_overlay_counters c;
    fabric_overlay_counters(n->n->f, &c);
    return c;
}

static void test_stream_reaches_a_node_without_a_direct_path(void **state)
{
    struct relay_line *l = *state;
    struct echo_end e;
    echo_open(&e, l->a->n, l->b->n);
    fabric_world_run(&l->w->e.w, echo_ended, &e);
    assert_false(e.closed);
    /* End to end: the peer is b itself, by its certificate. */
    assert_true(uuid_equal(&e.peer.identity.node_id, &l->b->n->id));
    struct found f = session_to(l->a, l->b);
    assert_int_equal(f.count, 1);
    assert_true(f.info.relayed);
    assert_true(uuid_equal(&f.info.via, &l->r->n->id));
    assert_true(counters(l->r).forwarded > 0);
    assert_int_equal(counters(l->r).delivered, 0);
    assert_true(counters(l->b).delivered > 0);
    fabric_stream_close(e.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_stream_reaches_a_node_without_a_direct_path, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
