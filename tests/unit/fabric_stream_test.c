/* Streams, datagrams and bounds (DESIGN section 8). */
#include "lib/fabric_pair.h"

#include "base/rng.h"

#include <setjmp.h>
#include <cmocka.h>

#define BIG (6u << 20)

struct end { /* one side of a stream */
    struct fabric_stream *s;
    struct world *w;
    struct blob *expect; /* frames in order, then the end */
    size_t expect_count;
    size_t got;
    uint64_t bytes;
    bool closed, drained, close_when_done, echo, mute;
    unsigned opened;
    int rc;
    struct prng order; /* of the frames it compares with */
};

struct world {
    struct fabric_world w;
    struct fabric_node *a, *b;
    struct end accepted[8];
    size_t accepted_count;
    bool accepted_mute;
    unsigned datagrams;
    uint8_t datagram[64];
    size_t datagram_len;
    struct uuid datagram_from;
};

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct end *e = data;
    assert_ptr_equal(e->s, s);
    assert_false(e->closed);
    if (e->expect != NULL) {
        assert_true(e->got < e->expect_count);
        assert_true(blob_equal(e->expect[e->got], frame));
    }
    e->got++;
    e->bytes += frame.len;
    if (e->echo) {
        assert_int_equal(fabric_stream_send(s, frame), 0);
    }
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    struct end *e = data;
    assert_ptr_equal(e->s, s);
    assert_false(e->closed);
    e->closed = true;
    e->rc = rc;
}

static void on_drained(struct fabric_stream *s, void *data)
{
    (void)s;
    ((struct end *)data)->drained = true;
}

static void on_opened(struct fabric_stream *s, void *data)
{
    struct end *e = data;
    assert_ptr_equal(e->s, s);
    assert_false(e->closed);
    assert_int_equal(e->got, 0);
    assert_true(fabric_stream_peer(s)->authenticated);
    e->opened++;
}

static const struct fabric_stream_vtab vtab = {
    .frame = on_frame, .closed = on_closed, .drained = on_drained, .opened = on_opened};

static void accept_echo(void *data, struct fabric_stream *s)
{
    struct world *w = data;
    assert_true(w->accepted_count < ARRAY_SIZE(w->accepted));
    struct end *e = &w->accepted[w->accepted_count++];
    e->s = s;
    e->echo = !w->accepted_mute;
    assert_non_null(fabric_stream_peer(s));
    fabric_stream_accept(s, &vtab, e);
}

static void accept_close(void *data, struct fabric_stream *s)
{
    (void)data;
    fabric_stream_close(s);
}

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    *state = w;
    fabric_world_init(&w->w);
    w->a = fabric_world_node(&w->w, &(struct fabric_node_opts){.authority = true});
    w->b = fabric_world_node(&w->w, &(struct fabric_node_opts){.issuer = w->a});
    fabric_world_introduce(w->a, w->b);
    for (size_t i = 0; i < w->w.count; i++) {
        struct fabric *f = w->w.node[i]->f;
        fabric_serve(f,
                     &(struct fabric_service){
                         .name = "echo", .frame_max_bytes = BIG, .data = w, .stream = accept_echo});
        fabric_serve(f,
                     &(struct fabric_service){.name = "close", .data = w, .stream = accept_close});
        fabric_serve(
            f, &(struct fabric_service){
                   .name = "small", .frame_max_bytes = 100, .data = w, .stream = accept_echo});
    }
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    fabric_world_fini(&w->w);
    free(w);
    return 0;
}

static void open_stream(struct end *e, struct fabric_node *from, struct fabric_node *to,
                        const char *service, bool bulk, size_t frame_max)
{
    *e = (struct end){.s = NULL};
    struct fabric_stream_to t = {
        .node_id = to->id, .service = service, .bulk = bulk, .frame_max_bytes = frame_max};
    assert_int_equal(fabric_stream_open(from->f, &t, &vtab, e, &e->s), 0);
    assert_false(e->closed);
}

static bool is_closed(void *data)
{
    return ((struct end *)data)->closed;
}

static bool has_drained(void *data)
{
    return ((struct end *)data)->drained;
}

static bool got_all(void *data)
{
    struct end *e = data;
    return e->got == e->expect_count;
}

static bool is_open(void *data)
{
    return ((struct end *)data)->opened > 0;
}

static void test_opener_is_told_once_when_the_session_is_there(void **state)
{
    struct world *w = *state;
    struct end first;
    struct end second;
    struct blob frame = blob_str("x");
    open_stream(&first, w->b, w->a, "echo", false, 0);
    assert_int_equal(first.opened, 0);
    fabric_world_run(&w->w, is_open, &first);
    open_stream(&second, w->b, w->a, "echo", false, 0); /* there is a session already */
    assert_int_equal(second.opened, 0);
    fabric_world_run(&w->w, is_open, &second);
    second.expect = &frame;
    second.expect_count = 1;
    assert_int_equal(fabric_stream_send(second.s, frame), 0);
    fabric_world_run(&w->w, got_all, &second);
    assert_int_equal(first.opened, 1);
    assert_int_equal(second.opened, 1);
    for (size_t i = 0; i < w->accepted_count; i++) {
        assert_int_equal(w->accepted[i].opened, 0);
    }
    fabric_stream_close(first.s);
    fabric_stream_close(second.s);
}

static void test_opener_that_gave_up_is_not_told(void **state)
{
    struct world *w = *state;
    struct end gone;
    struct end other;
    open_stream(&gone, w->b, w->a, "echo", false, 0);
    fabric_stream_reset(gone.s, -ERR_CANCELED);
    open_stream(&other, w->b, w->a, "echo", false, 0);
    fabric_world_run(&w->w, is_open, &other);
    assert_int_equal(gone.opened, 0);
    fabric_stream_close(other.s);
}

static void echo_frames(struct world *w, bool bulk)
{
    static const size_t sizes[] = {0,        1,        3,    4,     5,     100,   1200,
                                   1452,     4092,     4096, 65535, 65536, 70000, 300000,
                                   1u << 20, 5u << 20, BIG,  0,     0,     7};
    struct blob frames[ARRAY_SIZE(sizes)];
    uint8_t *bytes = xmalloc(BIG + 1);
    rng_bytes(bytes, BIG + 1);
    struct end e;
    open_stream(&e, w->b, w->a, "echo", bulk, 0);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        frames[i] = blob_of(bytes + i % 2, sizes[i]);
    }
    e.expect = frames;
    e.expect_count = ARRAY_SIZE(sizes);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        int rc;
        while ((rc = fabric_stream_send(e.s, frames[i])) == -ERR_BUSY) {
            e.drained = false;
            fabric_world_run(&w->w, has_drained, &e);
        }
        assert_int_equal(rc, 0);
        if (i % 3 == 0) {
            fabric_world_spin(&w->w, 3);
        }
    }
    fabric_world_run(&w->w, got_all, &e);
    assert_int_equal(w->accepted[0].got, ARRAY_SIZE(sizes));
    fabric_stream_close(e.s);
    fabric_world_run(&w->w, is_closed, &w->accepted[0]);
    assert_int_equal(w->accepted[0].rc, 0);
    free(bytes);
}

static void test_frames_of_every_size_come_back_in_order(void **state)
{
    echo_frames(*state, false);
}

static void test_frames_of_every_size_come_back_in_order_on_bulk(void **state)
{
    echo_frames(*state, true);
}

static void test_frames_sent_before_the_session_is_up_arrive_after_close(void **state)
{
    struct world *w = *state;
    w->accepted_mute = true;
    struct end e;
    open_stream(&e, w->b, w->a, "echo", false, 0);
    assert_null(fabric_stream_peer(e.s));
    for (int i = 0; i < 10; i++) {
        assert_int_equal(fabric_stream_send(e.s, blob_str("early")), 0);
    }
    fabric_stream_close(e.s);
    w->accepted[0].expect_count = 10;
    fabric_world_run(&w->w, is_closed, &w->accepted[0]);
    assert_int_equal(w->accepted[0].got, 10);
    assert_int_equal(w->accepted[0].rc, 0);
    assert_false(e.closed);
}

static void test_peer_that_finishes_closes_us_with_zero(void **state)
{
    struct world *w = *state;
    struct end e;
    open_stream(&e, w->b, w->a, "close", false, 0);
    fabric_world_run(&w->w, is_closed, &e);
    assert_int_equal(e.rc, 0);
}

static void test_reset_carries_its_reason(void **state)
{
    struct world *w = *state;
    struct end e;
    open_stream(&e, w->b, w->a, "echo", false, 0);
    assert_int_equal(fabric_stream_send(e.s, blob_str("x")), 0);
    e.expect_count = 1;
    fabric_world_run(&w->w, got_all, &e);
    fabric_stream_reset(w->accepted[0].s, -ERR_DENIED);
    fabric_world_run(&w->w, is_closed, &e);
    assert_int_equal(e.rc, -ERR_DENIED);
    assert_false(w->accepted[0].closed);
}

static void test_unknown_service_ends_the_stream(void **state)
{
    struct world *w = *state;
    struct end e;
    open_stream(&e, w->b, w->a, "nothing", false, 0);
    fabric_world_run(&w->w, is_closed, &e);
    assert_int_equal(e.rc, -ERR_NO_SERVICE);
}

static bool b_is_down(void *data)
{
    return ((struct world *)data)->b->downs > 0;
}

static void test_oversize_frame_closes_the_session(void **state)
{
    struct world *w = *state;
    struct end e;
    open_stream(&e, w->b, w->a, "small", false, 1000);
    uint8_t frame[101] = {0};
    assert_int_equal(fabric_stream_send(e.s, blob_of(frame, 100)), 0);
    e.expect_count = 1;
    fabric_world_run(&w->w, got_all, &e);
    assert_int_equal(fabric_stream_send(e.s, blob_of(frame, 101)), 0);
    fabric_world_run(&w->w, is_closed, &e);
    assert_int_equal(e.rc, -ERR_MALFORMED);
    assert_true(w->accepted[0].closed);
    fabric_world_run(&w->w, b_is_down, w);
    assert_int_equal(w->b->last_down_rc, -ERR_MALFORMED);
}

static void test_frame_over_our_own_bound_is_refused(void **state)
{
    struct world *w = *state;
    struct end e;
    open_stream(&e, w->b, w->a, "small", false, 0);
    uint8_t frame[101] = {0};
    assert_int_equal(fabric_stream_send(e.s, blob_of(frame, 101)), -ERR_TOO_LARGE);
    fabric_stream_reset(e.s, -ERR_CANCELED);
}

static void test_full_queue_is_busy_and_drains(void **state)
{
    struct world *w = *state;
    struct end e;
    w->accepted_mute = true;
    open_stream(&e, w->b, w->a, "echo", true, 0);
    uint8_t *frame = xcalloc(1, 1u << 20);
    unsigned sent = 0;
    int rc;
    while ((rc = fabric_stream_send(e.s, blob_of(frame, 1u << 20))) == 0) {
        sent++;
        assert_true(sent < 20);
    }
    assert_int_equal(rc, -ERR_BUSY);
    assert_true(sent >= 6);
    fabric_world_run(&w->w, has_drained, &e);
    assert_int_equal(fabric_stream_send(e.s, blob_of(frame, 1u << 20)), 0);
    fabric_stream_close(e.s);
    fabric_world_run(&w->w, is_closed, &w->accepted[0]);
    assert_int_equal(w->accepted[0].got, sent + 1);
    free(frame);
}

static bool five_accepted(void *data)
{
    return ((struct world *)data)->accepted_count == 5;
}

/* Streams over the session's limit wait for one to end; they are not lost. */
static void test_streams_over_the_limit_wait_their_turn(void **state)
{
    struct world *w = *state;
    struct fabric_node *c = fabric_world_node(
        &w->w, &(struct fabric_node_opts){.issuer = w->a, .limits.streams_per_session = 2});
    fabric_serve(c->f, &(struct fabric_service){.name = "echo", .data = w, .stream = accept_echo});
    fabric_world_introduce(c, w->b);
    struct end e[5];
    for (int i = 0; i < 5; i++) {
        open_stream(&e[i], w->b, c, "echo", false, 0);
        assert_int_equal(fabric_stream_send(e[i].s, blob_str("x")), 0);
        e[i].expect_count = 1;
    }
    for (int i = 0; i < 5; i++) {
        fabric_world_run(&w->w, got_all, &e[i]);
        assert_true(w->accepted_count <= (size_t)i + 2);
        fabric_stream_close(e[i].s);
    }
    fabric_world_run(&w->w, five_accepted, w);
}

static void on_datagram(void *data, const struct fabric_peer *from, struct blob payload)
{
    struct world *w = data;
    w->datagrams++;
    w->datagram_from = from->identity.node_id;
    w->datagram_len = payload.len;
    memcpy(w->datagram, payload.data, payload.len < 64 ? payload.len : 64);
}

static bool datagram_came(void *data)
{
    return ((struct world *)data)->datagrams > 0;
}

static bool b_sees_a(void *data)
{
    struct world *w = data;
    return fabric_peer_connected(w->b->f, &w->a->id) && fabric_peer_connected(w->a->f, &w->b->id);
}

static void test_datagram_arrives_with_its_sender(void **state)
{
    struct world *w = *state;
    fabric_on_datagram(w->a->f, on_datagram, w);
    assert_int_equal(fabric_datagram_send(w->b->f, &w->a->id, blob_str("ping")), -ERR_CLOSED);
    fabric_peer_keep(w->b->f, &w->a->id, true);
    fabric_world_run(&w->w, b_sees_a, w);
    assert_int_equal(fabric_datagram_send(w->b->f, &w->a->id, blob_str("ping")), 0);
    fabric_world_run(&w->w, datagram_came, w);
    assert_memory_equal(w->datagram, "ping", 4);
    assert_memory_equal(w->datagram_from.b, w->b->id.b, 16);
    uint8_t big[9000] = {0};
    assert_int_equal(fabric_datagram_send(w->b->f, &w->a->id, blob_of(big, sizeof big)),
                     -ERR_TOO_LARGE);
    w->datagrams = 0;
    assert_int_equal(fabric_datagram_send(w->b->f, &w->a->id, blob_of(big, 1100)), 0);
    fabric_world_run(&w->w, datagram_came, w);
    assert_int_equal(w->datagram_len, 1100);
    int rc = 0;
    for (int i = 0; i < 100000 && rc == 0; i++) {
        rc = fabric_datagram_send(w->b->f, &w->a->id, blob_of(big, 100));
    }
    assert_int_equal(rc, -ERR_BUSY);
}

/* close after N turns, for every N: nothing leaks and every closed() comes exactly once. */
static void test_close_after_any_number_of_turns_leaves_nothing(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 40; n++) {
        struct world *w;
        assert_int_equal(setup((void **)&w), 0);
        struct end e[3];
        uint8_t frame[5000] = {0};
        for (int i = 0; i < 3; i++) {
            open_stream(&e[i], i == 1 ? w->a : w->b, i == 1 ? w->b : w->a, "echo", i == 2, 0);
            assert_int_equal(fabric_stream_send(e[i].s, blob_of(frame, sizeof frame)), 0);
        }
        fabric_peer_keep(w->a->f, &w->b->id, true);
        for (unsigned i = 0; i < n; i++) {
            (void)fabric_world_turn(&w->w);
            if (n % 3 == 1 && i == n / 2) {
                fabric_stream_close(e[0].s);
                e[0].closed = true;
            }
        }
        fabric_node_close(n % 2 == 0 ? w->a : w->b, n % 5 == 0);
        fabric_world_spin(&w->w, 2);
        fabric_node_close(n % 2 == 0 ? w->b : w->a, false);
        for (int i = 0; i < 3; i++) {
            assert_true(e[i].closed);
        }
        assert_int_equal(teardown((void **)&w), 0);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_opener_is_told_once_when_the_session_is_there),
        T(test_opener_that_gave_up_is_not_told),
        T(test_frames_of_every_size_come_back_in_order),
        T(test_frames_of_every_size_come_back_in_order_on_bulk),
        T(test_frames_sent_before_the_session_is_up_arrive_after_close),
        T(test_peer_that_finishes_closes_us_with_zero),
        T(test_reset_carries_its_reason),
        T(test_unknown_service_ends_the_stream),
        T(test_oversize_frame_closes_the_session),
        T(test_frame_over_our_own_bound_is_refused),
        T(test_full_queue_is_busy_and_drains),
        T(test_streams_over_the_limit_wait_their_turn),
        T(test_datagram_arrives_with_its_sender),
        cmocka_unit_test(test_close_after_any_number_of_turns_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
