/* Requests and answers between two nodes (DESIGN section 8). */
#include "lib/fabric_pair.h"

#include "fabric/fabric_impl.h"

#include <setjmp.h>
#include <cmocka.h>

struct pair {
    struct fabric_world w;
    struct fabric_node *a; /* an authority */
    struct fabric_node *b; /* an ordinary node */
    struct fabric_request *held;
    unsigned served;
    struct uuid seen_peer;
    bool seen_authority;
};

struct outcome {
    struct fabric_call call;
    bool done;
    int rc;
    struct buf body;
};

static void on_answer(struct fabric_call *call, int rc, struct blob body)
{
    struct outcome *o = call->data;
    assert_false(o->done);
    o->done = true;
    o->rc = rc;
    buf_init(&o->body, 8u << 20);
    if (body.len > 0) {
        buf_add(&o->body, body.data, body.len);
    }
}

static bool is_done(void *data)
{
    return ((struct outcome *)data)->done;
}

static void serve_echo(void *data, struct fabric_request *rq, struct blob body)
{
    struct pair *p = data;
    p->served++;
    p->seen_peer = fabric_request_peer(rq)->identity.node_id;
    p->seen_authority = fabric_request_peer(rq)->identity.authority;
    fabric_answer(rq, 0, body);
}

static void serve_fail(void *data, struct fabric_request *rq, struct blob body)
{
    (void)data;
    fabric_answer(rq, -ERR_CONFLICT, body);
}

static void serve_hold(void *data, struct fabric_request *rq, struct blob body)
{
    (void)body;
    struct pair *p = data;
    p->held = rq;
}

static int setup(void **state)
{
    struct pair *p = xcalloc(1, sizeof *p);
    *state = p;
    fabric_world_init(&p->w);
    p->a = fabric_world_node(&p->w, &(struct fabric_node_opts){.authority = true});
    p->b = fabric_world_node(&p->w, &(struct fabric_node_opts){.issuer = p->a});
    fabric_world_introduce(p->a, p->b);
    for (size_t i = 0; i < p->w.count; i++) {
        struct fabric *f = p->w.node[i]->f;
        fabric_serve(f, &(struct fabric_service){.name = "echo", .data = p, .request = serve_echo});
        fabric_serve(f, &(struct fabric_service){.name = "fail", .data = p, .request = serve_fail});
        fabric_serve(f, &(struct fabric_service){.name = "hold", .data = p, .request = serve_hold});
        fabric_serve(f, &(struct fabric_service){.name = "core",
                                                 .flags = FABRIC_SVC_AUTHORITY,
                                                 .data = p,
                                                 .request = serve_echo});
        fabric_serve(
            f, &(struct fabric_service){
                   .name = "join", .flags = FABRIC_SVC_ENROLL, .data = p, .request = serve_echo});
    }
    return 0;
}

static int teardown(void **state)
{
    struct pair *p = *state;
    fabric_world_fini(&p->w);
    if (p->held != NULL) {
        fabric_answer(p->held, 0, blob_of(NULL, 0));
    }
    free(p);
    return 0;
}

static void start(struct outcome *o, struct fabric_node *from, struct fabric_node *to,
                  const char *service, struct blob body, uint32_t deadline_ms)
{
    *o = (struct outcome){.call.data = o};
    assert_int_equal(
        fabric_call_start(from->f, &o->call, &to->id, service, body, deadline_ms, on_answer), 0);
    assert_false(o->done);
}

static void finish(struct outcome *o, struct fabric_node *n)
{
    fabric_world_run(n->w, is_done, o);
}

static void test_call_is_answered_with_identity_of_verified_leaf(void **state)
{
    struct pair *p = *state;
    struct outcome o;
    start(&o, p->b, p->a, "echo", blob_str("hello"), 10000);
    finish(&o, p->b);
    assert_int_equal(o.rc, 0);
    assert_int_equal(o.body.len, 5);
    assert_memory_equal(o.body.data, "hello", 5);
    assert_memory_equal(p->seen_peer.b, p->b->id.b, 16);
    assert_false(p->seen_authority);
    buf_fini(&o.body);
    start(&o, p->a, p->b, "echo", blob_of(NULL, 0), 10000);
    finish(&o, p->a);
    assert_int_equal(o.rc, 0);
    assert_int_equal(o.body.len, 0);
    assert_memory_equal(p->seen_peer.b, p->a->id.b, 16);
    assert_true(p->seen_authority);
    buf_fini(&o.body);
}

static void call(struct outcome *o, struct fabric_node *from, struct fabric_node *to,
                 const char *service)
{
    start(o, from, to, service, blob_str("x"), 10000);
    finish(o, from);
}

static void test_error_answer_carries_its_number_and_body(void **state)
{
    struct pair *p = *state;
    struct outcome o;
    start(&o, p->b, p->a, "fail", blob_str("details"), 10000);
    finish(&o, p->b);
    assert_int_equal(o.rc, -ERR_CONFLICT);
    assert_int_equal(o.body.len, 7);
    buf_fini(&o.body);
}

static void test_unknown_service_is_refused(void **state)
{
    struct pair *p = *state;
    struct outcome o;
    call(&o, p->b, p->a, "nonsense");
    assert_int_equal(o.rc, -ERR_NO_SERVICE);
}

static void test_authority_service_is_refused_to_an_ordinary_node(void **state)
{
    struct pair *p = *state;
    struct outcome o;
    call(&o, p->b, p->a, "core");
    assert_int_equal(o.rc, -ERR_NOT_AUTHORITY);
    assert_int_equal(p->served, 0);
    call(&o, p->a, p->b, "core");
    assert_int_equal(o.rc, 0);
    assert_int_equal(p->served, 1);
    buf_fini(&o.body);
}

static void test_enroll_service_is_refused_to_a_host_with_a_certificate(void **state)
{
    struct pair *p = *state;
    struct outcome o;
    call(&o, p->b, p->a, "join");
    assert_int_equal(o.rc, -ERR_NO_SERVICE);
    assert_int_equal(p->served, 0);
}

static void test_call_times_out_when_the_service_keeps_silent(void **state)
{
    struct pair *p = *state;
    struct outcome o;
    start(&o, p->b, p->a, "hold", blob_str("x"), 200);
    finish(&o, p->b);
    assert_int_equal(o.rc, -ERR_TIMEOUT);
    assert_non_null(p->held);
}

static bool is_held(void *data)
{
    return ((struct pair *)data)->held != NULL;
}

static bool caller_is_gone(void *data)
{
    return fabric_request_left_ms(((struct pair *)data)->held) == 0;
}

static void test_canceled_call_reports_so_later_and_its_answer_is_dropped(void **state)
{
    struct pair *p = *state;
    struct outcome o;
    start(&o, p->b, p->a, "hold", blob_str("x"), 60000);
    fabric_world_run(&p->w, is_held, p);
    assert_true(fabric_request_left_ms(p->held) > 1000);
    fabric_call_cancel(&o.call);
    fabric_call_cancel(&o.call);
    assert_false(o.done);
    finish(&o, p->b);
    assert_int_equal(o.rc, -ERR_CANCELED);
    fabric_world_run(&p->w, caller_is_gone, p);
    fabric_answer(p->held, 0, blob_str("late"));
    p->held = NULL;
    call(&o, p->b, p->a, "echo");
    assert_int_equal(o.rc, 0);
    buf_fini(&o.body);
}

static void test_call_to_an_unknown_peer_or_oneself_is_refused_at_once(void **state)
{
    struct pair *p = *state;
    struct outcome o = {.call.data = &o};
    struct uuid nobody = uuid_new();
    assert_int_equal(
        fabric_call_start(p->a->f, &o.call, &nobody, "echo", blob_str("x"), 1000, on_answer),
        -ERR_UNREACHABLE);
    assert_int_equal(
        fabric_call_start(p->a->f, &o.call, &p->a->id, "echo", blob_str("x"), 1000, on_answer),
        -ERR_INVALID);
    fabric_world_spin(&p->w, 10);
    assert_false(o.done);
}

static void test_call_body_is_bounded(void **state)
{
    struct pair *p = *state;
    struct outcome o = {.call.data = &o};
    uint8_t *big = xcalloc(1, RPC_FRAME_MAX + 1);
    assert_int_equal(fabric_call_start(p->a->f, &o.call, &p->b->id, "echo",
                                       blob_of(big, RPC_FRAME_MAX + 1), 1000, on_answer),
                     -ERR_TOO_LARGE);
    memset(big, 7, RPC_FRAME_MAX);
    start(&o, p->a, p->b, "echo", blob_of(big, RPC_FRAME_MAX), 20000);
    finish(&o, p->a);
    assert_int_equal(o.rc, 0);
    assert_int_equal(o.body.len, RPC_FRAME_MAX);
    assert_memory_equal(o.body.data, big, RPC_FRAME_MAX);
    buf_fini(&o.body);
    free(big);
}

static void test_call_to_a_silent_address_fails_as_unreachable(void **state)
{
    struct pair *p = *state;
    struct outcome o;
    fabric_node_close(p->a, true);
    start(&o, p->b, p->a, "echo", blob_str("x"), 20000);
    finish(&o, p->b);
    assert_int_equal(o.rc, -ERR_UNREACHABLE);
}

/* More calls than the peer allows streams at once, each with a body: neither the stream limit nor
 * the windows leak (reference quic.md, pitfall 5). */
static void test_thousands_of_calls_pass_through_bounded_streams(void **state)
{
    struct pair *p = *state;
    enum { BATCH = 600, ROUNDS = 5 };
    struct outcome *o = xcalloc(BATCH, sizeof *o);
    uint8_t body[3000];
    memset(body, 9, sizeof body);
    for (int r = 0; r < ROUNDS; r++) {
        for (int i = 0; i < BATCH; i++) {
            start(&o[i], p->b, p->a, i % 7 == 3 ? "nonsense" : "echo", blob_of(body, sizeof body),
                  30000);
        }
        for (int i = 0; i < BATCH; i++) {
            finish(&o[i], p->b);
            assert_int_equal(o[i].rc, i % 7 == 3 ? -ERR_NO_SERVICE : 0);
            buf_fini(&o[i].body);
        }
    }
    free(o);
    struct fabric_counters c;
    fabric_counters(p->a->f, &c);
    assert_int_equal(c.sessions_opened, 1);
}

/* What our own client never does. The first request may be held by its service for long. */
static void test_second_frame_on_a_request_is_refused_and_harms_nobody(void **state)
{
    struct pair *p = *state;
    static const struct fabric_stream_vtab none = {.frame = NULL};
    struct fabric_stream *s = stream_new(p->b->f, true, false);
    s->vtab = none;
    stream_put_header(s, "hold", STREAM_HEADER_RPC, 60000);
    stream_put_frame(s, blob_of(NULL, 0), blob_str("one"));
    assert_int_equal(stream_start(s, &p->a->id), 0);
    fabric_world_run(&p->w, is_held, p);
    assert_false(caller_is_gone(p));
    stream_put_frame(s, blob_of(NULL, 0), blob_str("two"));
    fabric_world_run(&p->w, caller_is_gone, p);
    fabric_answer(p->held, 0, blob_of(NULL, 0));
    p->held = NULL;
    struct outcome o;
    call(&o, p->b, p->a, "echo");
    assert_int_equal(o.rc, 0);
    buf_fini(&o.body);
}

static void add_lost(void *data, const struct fabric_session_info *info)
{
    assert_true(info->rtt_us > 0);
    *(uint64_t *)data += info->packets_lost;
}

/* Calls over a path that loses a twentieth of all packets, both ways. */
static void test_calls_survive_packet_loss(void **state)
{
    struct pair *p = *state;
    enum { CALLS = 200 };
    for (size_t i = 0; i < 2; i++) {
        struct fabric *f = p->w.node[i]->f;
        prng_seed(&f->drop_prng, 7 + i);
        f->drop_permille = 50;
    }
    struct outcome *o = xcalloc(CALLS, sizeof *o);
    uint8_t *body = xcalloc(1, 20000);
    for (int i = 0; i < CALLS; i++) {
        start(&o[i], p->b, p->a, "echo", blob_of(body, (size_t)i * 100), 60000);
    }
    for (int i = 0; i < CALLS; i++) {
        finish(&o[i], p->b);
        assert_int_equal(o[i].rc, 0);
        assert_int_equal(o[i].body.len, i * 100);
        buf_fini(&o[i].body);
    }
    free(body);
    free(o);
    uint64_t lost = 0;
    fabric_sessions(p->b->f, add_lost, &lost);
    assert_true(lost > 0);
}

static void test_closing_ends_calls_as_canceled(void **state)
{
    struct pair *p = *state;
    struct outcome o;
    start(&o, p->b, p->a, "hold", blob_str("x"), 60000);
    fabric_world_run(&p->w, is_held, p);
    fabric_node_close(p->b, false);
    assert_true(o.done);
    assert_int_equal(o.rc, -ERR_CANCELED);
    assert_null(o.call.impl);
    fabric_world_run(&p->w, caller_is_gone, p);
}

static void test_server_closing_ends_calls_as_closed(void **state)
{
    struct pair *p = *state;
    struct outcome o;
    start(&o, p->b, p->a, "hold", blob_str("x"), 60000);
    fabric_world_run(&p->w, is_held, p);
    fabric_node_close(p->a, false);
    finish(&o, p->b);
    assert_int_equal(o.rc, -ERR_CLOSED);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_call_is_answered_with_identity_of_verified_leaf),
        T(test_error_answer_carries_its_number_and_body),
        T(test_unknown_service_is_refused),
        T(test_authority_service_is_refused_to_an_ordinary_node),
        T(test_enroll_service_is_refused_to_a_host_with_a_certificate),
        T(test_call_times_out_when_the_service_keeps_silent),
        T(test_canceled_call_reports_so_later_and_its_answer_is_dropped),
        T(test_call_to_an_unknown_peer_or_oneself_is_refused_at_once),
        T(test_call_body_is_bounded),
        T(test_call_to_a_silent_address_fails_as_unreachable),
        T(test_thousands_of_calls_pass_through_bounded_streams),
        T(test_second_frame_on_a_request_is_refused_and_harms_nobody),
        T(test_calls_survive_packet_loss),
        T(test_closing_ends_calls_as_canceled),
        T(test_server_closing_ends_calls_as_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
