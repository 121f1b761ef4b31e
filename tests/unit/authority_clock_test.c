/* The rpc "clock", which strangers may ask, over real endpoints; and a fabric that looks at chains at any
 * time, as `rap doctor` does. */
#include "authority/authority_impl.h"
#include "base/clock.h"
#include "lib/fabric_echo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct authority authority; /* what clock_serve needs of it */

struct asked {
    struct fabric_stream *s;
    bool opened, answered, closed;
    int rc;
    struct clock_answer answer;
};

static void on_opened(struct fabric_stream *s, void *data)
{
    (void)s;
    ((struct asked *)data)->opened = true;
}

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct asked *a = data;
    (void)s;
    assert_int_equal(msg_decode(&clock_answer_desc, MSG_STRICT, frame, &a->answer), 0);
    a->answered = true;
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    struct asked *a = data;
    (void)s;
    a->closed = true;
    a->rc = rc;
}

static const struct fabric_stream_vtab vtab = {
    .frame = on_frame, .closed = on_closed, .opened = on_opened};

static bool closed(void *data)
{
    return ((struct asked *)data)->closed;
}

static struct asked ask(struct echo_world *w, struct fabric_node *from,
                        const struct fabric_stream_to *to, struct blob body)
{
    struct asked a = {.s = NULL};
    assert_int_equal(fabric_stream_open(from->f, to, &vtab, &a, &a.s), 0);
    assert_int_equal(fabric_stream_send(a.s, body), 0);
    fabric_world_run(&w->w, closed, &a);
    return a;
}

static struct fabric_node *serving(struct echo_world *w, struct fabric_node_opts o)
{
    o.authority = true;
    o.serve_enroll = true;
    struct fabric_node *n = echo_add(w, o);
    authority.cfg.fabric = n->f;
    clock_serve(&authority);
    return n;
}

static struct buf request(int64_t sent_at_ms)
{
    struct buf b;
    buf_init(&b, 64);
    msg_encode(&clock_request_desc, &(struct clock_request){.sent_at_ms = sent_at_ms}, &b);
    return b;
}

static void test_a_stranger_is_told_the_time(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = serving(w, (struct fabric_node_opts){.authority = true});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    const struct fabric_stream_to to = {.enroll_addr = s->addr, .service = "clock"};
    struct buf b = request(4711);
    int64_t before = clock_wall_ms();
    struct asked a = ask(w, j, &to, buf_blob(&b));
    assert_true(a.opened && a.answered);
    assert_int_equal(a.rc, 0);
    assert_int_equal(a.answer.sent_at_ms, 4711);
    assert_in_range(a.answer.wall_ms, before, clock_wall_ms());
    buf_fini(&b);
}

static void test_nonsense_is_not_answered(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = serving(w, (struct fabric_node_opts){.authority = true});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    const struct fabric_stream_to to = {.enroll_addr = s->addr, .service = "clock"};
    uint8_t large[65] = {0};
    struct asked a = ask(w, j, &to, blob_str("?"));
    assert_false(a.answered);
    assert_int_not_equal(a.rc, 0);
    a = ask(w, j, &to, blob_of(large, sizeof large)); /* over its bound */
    assert_false(a.answered);
    assert_int_not_equal(a.rc, 0);
}

/* It is for those without a certificate: members compare clocks by their heartbeats. */
static void test_a_member_has_no_such_service(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = serving(w, (struct fabric_node_opts){.authority = true});
    struct buf b = request(1);
    fabric_world_introduce(w->b, s);
    const struct fabric_stream_to to = {.node_id = s->id, .service = "clock"};
    struct asked a = ask(w, w->b, &to, buf_blob(&b));
    assert_false(a.answered);
    assert_int_equal(a.rc, -ERR_NO_SERVICE);
    buf_fini(&b);
}

static void test_an_expired_authority_is_known_only_at_any_time(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = serving(w, (struct fabric_node_opts){.leaf_life_ms = -1000});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    struct fabric_node *d = echo_add(
        w, (struct fabric_node_opts){.no_identity = true, .manual = true});
    const struct fabric_stream_to to = {.enroll_addr = s->addr, .service = "clock"};
    struct buf b = request(1);
    struct asked a = ask(w, j, &to, buf_blob(&b));
    assert_false(a.opened);
    assert_int_equal(a.rc, -ERR_CERT_EXPIRED);
    d->config.any_time = true;
    fabric_node_open(d);
    a = ask(w, d, &to, buf_blob(&b));
    assert_true(a.opened && a.answered);
    buf_fini(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, echo_setup, echo_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_stranger_is_told_the_time),
        TEST(test_nonsense_is_not_answered),
        TEST(test_a_member_has_no_such_service),
        TEST(test_an_expired_authority_is_known_only_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
