/* The test traffic's services (SPEC SYN-01, SYN-02): what they answer, and what they refuse. */
#include "node/synthetic.h"

#include "lib/fabric_echo.h"

#include <setjmp.h>
#include <cmocka.h>

struct world {
    struct echo_world *e;
    struct node node; /* the fabric and the counters of a node; nothing else of it is used */
};

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    void *e;
    (void)echo_setup(&e);
    w->e = e;
    w->node.fabric = w->e->b->f;
    w->node.synthetic.on = true;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    void *e = w->e;
    (void)echo_teardown(&e);
    free(w);
    return 0;
}

struct asked {
    struct fabric_call call;
    bool done;
    int rc;
    size_t len;
};

static void on_answer(struct fabric_call *call, int rc, struct blob body)
{
    struct asked *a = container_of(call, struct asked, call);
    a->done = true;
    a->rc = rc;
    a->len = body.len;
}

static bool is_done(void *data)
{
    return ((struct asked *)data)->done;
}

static void put(struct buf *out, const char *kind, size_t len)
{
    static const uint8_t zeros[SYNTHETIC_BODY_MAX];
    struct synthetic m = {.kind = blob_str(kind), .sequence = 7, .body = blob_of(zeros, len)};
    buf_init(out, SYNTHETIC_BODY_MAX + 256);
    msg_encode(&synthetic_desc, &m, out);
    assert_int_equal(out->err, 0);
}

static int ask(struct world *w, struct blob body, size_t *ret_len)
{
    struct asked a = {.done = false};
    int rc = fabric_call_start(w->e->a->f, &a.call, &w->e->b->id, SYNTHETIC_ECHO, body, 5000,
                               on_answer);
    if (rc != 0) {
        return rc;
    }
    fabric_world_run(&w->e->w, is_done, &a);
    *ret_len = a.len;
    return a.rc;
}

static void test_echo_comes_back_as_it_went(void **state)
{
    struct world *w = *state;
    struct buf b;
    size_t len;
    synthetic_serve(&w->node);
    put(&b, SYNTHETIC_KIND, 1000);
    assert_int_equal(ask(w, buf_blob(&b), &len), 0);
    assert_int_equal(len, b.len);
    buf_fini(&b);
}

static void test_it_is_off_until_turned_on(void **state)
{
    struct world *w = *state;
    struct buf b;
    size_t len;
    w->node.synthetic.on = false;
    synthetic_serve(&w->node);
    put(&b, SYNTHETIC_KIND, 10);
    assert_int_equal(ask(w, buf_blob(&b), &len), -ERR_NO_SERVICE);
    buf_fini(&b);
}

static void test_other_payload_is_refused(void **state)
{
    struct world *w = *state;
    static const char *const kinds[] = {"rdp", "vpn", "workload", "synthetic2"};
    struct buf b;
    size_t len;
    synthetic_serve(&w->node);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        put(&b, kinds[i], 10);
        assert_int_equal(ask(w, buf_blob(&b), &len), -ERR_SCOPE);
        buf_fini(&b);
    }
    assert_int_equal(ask(w, blob_str("not a message"), &len), -ERR_MALFORMED);
}

static void test_size_is_bounded(void **state)
{
    struct world *w = *state;
    static uint8_t large[SYNTHETIC_BODY_MAX + 200];
    size_t len;
    synthetic_serve(&w->node);
    /* The frame is longer than the service takes: that ends the session. */
    int rc = ask(w, blob_of(large, sizeof large), &len);
    assert_true(rc == -ERR_CLOSED || rc == -ERR_MALFORMED || rc == -ERR_TOO_LARGE);
}

/* As many as the clock's second allows, whenever that began. */
static void test_rate_is_bounded(void **state)
{
    struct world *w = *state;
    struct buf b;
    size_t len;
    synthetic_serve(&w->node);
    put(&b, SYNTHETIC_KIND, 1);
    assert_int_equal(ask(w, buf_blob(&b), &len), 0);
    int refused = 0;
    for (int i = 0; i < 20 && refused == 0; i++) {
        w->node.synthetic.requests = 1000000;
        refused = ask(w, buf_blob(&b), &len);
    }
    assert_int_equal(refused, -ERR_BUSY);
    buf_fini(&b);
}

struct flow {
    struct fabric_stream *s;
    uint64_t acked, acks;
    bool closed;
    int rc;
};

static void on_ack(struct fabric_stream *s, void *data, struct blob frame)
{
    struct flow *f = data;
    struct synthetic_ack ack;
    (void)s;
    assert_int_equal(msg_decode(&synthetic_ack_desc, MSG_STRICT, frame, &ack), 0);
    f->acked = ack.bytes;
    f->acks++;
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    ((struct flow *)data)->closed = true;
    ((struct flow *)data)->rc = rc;
}

static bool has_ten_acks(void *data)
{
    struct flow *f = data;
    return f->closed || f->acks == 10;
}

static bool is_closed(void *data)
{
    return ((struct flow *)data)->closed;
}

static void test_bulk_is_counted_and_refuses_other_payload(void **state)
{
    struct world *w = *state;
    static const struct fabric_stream_vtab vtab = {.frame = on_ack, .closed = on_closed};
    struct fabric_stream_to to = {.node_id = w->e->b->id,
                                  .service = SYNTHETIC_BULK,
                                  .bulk = true,
                                  .frame_max_bytes = SYNTHETIC_BODY_MAX + 128};
    struct flow f = {.acked = 0};
    struct buf b;
    synthetic_serve(&w->node);
    assert_int_equal(fabric_stream_open(w->e->a->f, &to, &vtab, &f, &f.s), 0);
    put(&b, SYNTHETIC_KIND, 5000);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(fabric_stream_send(f.s, buf_blob(&b)), 0);
    }
    buf_fini(&b);
    fabric_world_run(&w->e->w, has_ten_acks, &f);
    assert_int_equal(f.acked, 50000);
    assert_int_equal(w->node.synthetic.streams, 1);
    put(&b, "vpn", 10);
    assert_int_equal(fabric_stream_send(f.s, buf_blob(&b)), 0);
    buf_fini(&b);
    fabric_world_run(&w->e->w, is_closed, &f);
    assert_int_equal(f.rc, -ERR_SCOPE);
    assert_int_equal(w->node.synthetic.streams, 0);
}

/* --- cut off from the authority (AUTH-04) --- */

static void test_services_end_while_cut_off_and_begin_again(void **state)
{
    struct world *w = *state;
    static const struct fabric_stream_vtab vtab = {.frame = on_ack, .closed = on_closed};
    struct fabric_stream_to to = {.node_id = w->e->b->id,
                                  .service = SYNTHETIC_BULK,
                                  .bulk = true,
                                  .frame_max_bytes = SYNTHETIC_BODY_MAX + 128};
    struct flow f = {.acked = 0};
    struct flow late = {.acked = 0};
    struct buf b;
    size_t len;
    synthetic_serve(&w->node);
    put(&b, SYNTHETIC_KIND, 5000);
    assert_int_equal(fabric_stream_open(w->e->a->f, &to, &vtab, &f, &f.s), 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(fabric_stream_send(f.s, buf_blob(&b)), 0);
    }
    fabric_world_run(&w->e->w, has_ten_acks, &f);
    w->node.cut_off.is = true;
    assert_int_equal(ask(w, buf_blob(&b), &len), -ERR_DENIED);
    assert_int_equal(fabric_stream_send(f.s, buf_blob(&b)), 0);
    fabric_world_run(&w->e->w, is_closed, &f);
    assert_int_equal(f.rc, -ERR_DENIED);
    assert_int_equal(fabric_stream_open(w->e->a->f, &to, &vtab, &late, &late.s), 0);
    fabric_world_run(&w->e->w, is_closed, &late);
    assert_int_equal(late.rc, -ERR_DENIED);
    assert_int_equal(w->node.synthetic.streams, 0);
    w->node.cut_off.is = false;
    assert_int_equal(ask(w, buf_blob(&b), &len), 0);
    buf_fini(&b);
}

static void test_cut_off_is_who_was_not_answered_for_so_long(void **state)
{
    (void)state;
    static const struct {
        uint64_t limit_ms, contact_ms, now_ms;
        bool changed, is;
    } steps[] = {
        {0, 1000, 900000, false, false},  /* no limit: never */
        {2000, 1000, 2999, false, false}, /* not yet */
        {2000, 1000, 3000, true, true},   /* now */
        {2000, 1000, 4000, false, true},  /* still */
        {2000, 500, 4000, false, true},   /* a contact of before is no news */
        {2000, 4000, 4000, true, false},  /* one of now is */
        {2000, 0, 5999, false, false},    /* without a majority the last contact counts */
        {2000, 0, 6000, true, true},      /* */
        {3000, 0, 6000, true, false},     /* the owner allows more, */
        {1000, 0, 6000, true, true},      /* or less, */
        {0, 0, 6000, true, false},        /* or for ever */
        {2000, 7000, 6500, false, false}, /* clocks of two reads may cross */
    };
    struct cut_off c = {.contact_ms = 1000};
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        c.limit_ms = steps[i].limit_ms;
        assert_int_equal(cut_off_step(&c, steps[i].contact_ms, steps[i].now_ms), steps[i].changed);
        assert_int_equal(c.is, steps[i].is);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
        T(test_echo_comes_back_as_it_went),
        T(test_it_is_off_until_turned_on),
        T(test_other_payload_is_refused),
        T(test_size_is_bounded),
        T(test_rate_is_bounded),
        T(test_bulk_is_counted_and_refuses_other_payload),
        T(test_services_end_while_cut_off_and_begin_again),
        cmocka_unit_test(test_cut_off_is_who_was_not_answered_for_so_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
