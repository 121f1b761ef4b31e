/* What the owner denies is denied at the accepting end too, whatever the other end thinks of it (SPEC RTE-02,
 * RTE-09). */
#include "lib/fabric_relays.h"

#include <setjmp.h>
#include <cmocka.h>

static int setup(void **state)
{
    (void)relay_line_setup(state);
    struct relay_line *l = *state;
    relay_world_be_patient(l->w); /* a busy machine is not what is tested */
    relay_world_settle(l->w);
    return 0;
}

static struct fabric_counters counters(const struct relay_node *n)
{
    struct fabric_counters c;
    fabric_counters(n->n->f, &c);
    return c;
}

/* Opens a stream from a to b, which is refused; why. */
static int refused(struct relay_line *l)
{
    struct echo_end e;
    echo_open(&e, l->a->n, l->b->n);
    fabric_world_run(&l->w->e.w, echo_closed, &e);
    assert_int_equal(e.got, 0); /* nothing passed before */
    return e.rc;
}

static void test_direct_session_that_the_accepting_end_denies_is_closed(void **state)
{
    struct relay_line *l = *state;
    fabric_world_introduce(l->a->n, l->b->n);
    l->b->denied = l->a;
    assert_int_equal(refused(l), -ERR_DENIED);
    assert_true(counters(l->b).sessions_denied > 0);
    assert_int_equal(relay_session_to(l->b, l->a).count, 0);
    /* Allowed again, it is there again. */
    struct echo_end e;
    l->b->denied = NULL;
    echo_open(&e, l->a->n, l->b->n);
    fabric_world_run(&l->w->e.w, echo_ended, &e);
    assert_false(e.closed);
    fabric_stream_close(e.s);
}

static void test_relayed_session_that_the_accepting_end_denies_is_closed(void **state)
{
    struct relay_line *l = *state;
    l->b->denied = l->a;
    assert_int_equal(refused(l), -ERR_DENIED);
    assert_true(counters(l->b).sessions_denied > 0);
    assert_int_equal(counters(l->a).sessions_denied, 0); /* it opened it */
    assert_int_equal(relay_session_to(l->b, l->a).count, 0);
    /* The relay between them is nobody's enemy. */
    assert_int_equal(relay_session_to(l->b, l->r).count > 0, true);
}

static void live_session_ends(struct relay_line *l, struct relay_node *who, struct relay_node *whom)
{
    struct echo_end e;
    echo_open(&e, l->a->n, l->b->n);
    fabric_world_run(&l->w->e.w, echo_ended, &e);
    assert_false(e.closed);
    who->denied = whom;
    fabric_world_run(&l->w->e.w, echo_closed, &e);
    assert_int_equal(e.rc, -ERR_DENIED);
}

static void test_live_session_ends_when_the_accepting_end_comes_to_deny_it(void **state)
{
    struct relay_line *l = *state;
    live_session_ends(l, l->b, l->a);
    assert_true(counters(l->b).sessions_denied > 0);
}

static void test_live_session_ends_when_its_dialler_comes_to_deny_it(void **state)
{
    struct relay_line *l = *state;
    live_session_ends(l, l->a, l->b);
    assert_int_equal(counters(l->a).sessions_denied, 0);
}

static void test_denied_service_is_neither_accepted_nor_opened_and_others_go_on(void **state)
{
    struct relay_line *l = *state;
    l->b->denied_service = "echo";
    assert_int_equal(refused(l), -ERR_DENIED);
    assert_int_equal(counters(l->b).streams_denied, 1);
    assert_int_equal(counters(l->b).sessions_denied, 0);
    assert_int_equal(relay_session_to(l->a, l->b).count, 1); /* the session is good */
    l->b->denied_service = NULL;
    l->a->denied_service = "echo";
    struct fabric_stream *s;
    struct echo_end e = {.s = NULL};
    const struct fabric_stream_to to = {.node_id = l->b->n->id, .service = "echo"};
    assert_int_equal(fabric_stream_open(l->a->n->f, &to, &echo_client_vtab, &e, &s), -ERR_DENIED);
    struct fabric_call call;
    assert_int_equal(
        fabric_call_start(l->a->n->f, &call, &l->b->n->id, "echo", blob_of(NULL, 0), 1000, NULL),
        -ERR_DENIED);
    l->a->denied_service = "other";
    echo_open(&e, l->a->n, l->b->n);
    fabric_world_run(&l->w->e.w, echo_ended, &e);
    assert_false(e.closed);
    fabric_stream_close(e.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define LINE(t) cmocka_unit_test_setup_teardown(t, setup, relay_line_teardown)
        LINE(test_direct_session_that_the_accepting_end_denies_is_closed),
        LINE(test_relayed_session_that_the_accepting_end_denies_is_closed),
        LINE(test_live_session_ends_when_the_accepting_end_comes_to_deny_it),
        LINE(test_live_session_ends_when_its_dialler_comes_to_deny_it),
        LINE(test_denied_service_is_neither_accepted_nor_opened_and_others_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
