/* What one address may do to an authority, over the real endpoint: attempts to enrol are paid for
 * before the handshake's signature, failures cost most, members are let in all the same; and who is
 * told of a peer that was turned away. */
#include "base/clock.h"
#include "fabric/fabric_impl.h"
#include "lib/fabric_echo.h"
#include "lib/fabric_forge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct attempt {
    struct fabric_stream *s;
    bool echoed, closed;
    int rc;
    uint32_t retry_ms;
};

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    (void)s;
    (void)frame;
    ((struct attempt *)data)->echoed = true;
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    struct attempt *a = data;
    a->closed = true;
    a->rc = rc;
    a->retry_ms = fabric_stream_retry_ms(s);
}

static const struct fabric_stream_vtab vtab = {.frame = on_frame, .closed = on_closed};

static bool ended(void *data)
{
    struct attempt *a = data;
    return a->echoed || a->closed;
}

/* One try to enrol: 0, or how it ended. */
static int enroll(struct echo_world *w, struct fabric_node *from, struct fabric_node *to,
                  uint32_t *ret_retry_ms)
{
    struct attempt a = {.s = NULL};
    struct fabric_stream_to t = {.enroll_addr = to->addr, .service = "enroll"};
    assert_int_equal(fabric_stream_open(from->f, &t, &vtab, &a, &a.s), 0);
    assert_int_equal(fabric_stream_send(a.s, blob_str("x")), 0);
    fabric_world_run(&w->w, ended, &a);
    if (!a.closed) {
        fabric_stream_close(a.s);
    }
    *ret_retry_ms = a.retry_ms;
    return a.closed ? a.rc : 0;
}

/* An authority that takes one attempt a second from an address, and 64 at once. */
static struct fabric_node *strict_authority(struct echo_world *w)
{
    return echo_add(w, (struct fabric_node_opts){.authority = true,
                                                 .serve_enroll = true,
                                                 .keepalive_ms = 50,
                                                 .dead_ms = 400,
                                                 .limits.enroll_per_second = 1});
}

static struct fabric_counters counters(struct fabric_node *n)
{
    struct fabric_counters c;
    fabric_counters(n->f, &c);
    return c;
}

static void spend(struct fabric_node *n, int failures)
{
    struct addr loopback;
    assert_int_equal(addr_parse("127.0.0.1:9", &loopback, NULL), 0);
    for (int i = 0; i < failures; i++) {
        fabric_enroll_failed(n->f, &loopback);
    }
}

static void test_a_source_that_failed_too_often_waits_as_told(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = strict_authority(w);
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    uint32_t retry_ms;
    assert_int_equal(enroll(w, j, s, &retry_ms), 0);
    assert_int_equal(retry_ms, 0);
    spend(s, 3);
    uint64_t opened = counters(s).sessions_opened;
    assert_int_equal(enroll(w, j, s, &retry_ms), -ERR_RATE_LIMITED);
    assert_in_range(retry_ms, 1, 66000);
    struct fabric_counters c = counters(s);
    /* It proved its address and was sent away without a session. */
    assert_int_equal(c.rate_limited, 1);
    assert_int_equal(c.retries_sent, 1);
    assert_int_equal(c.sessions_opened, opened);
    assert_int_equal(c.half_open, 0);
    assert_int_equal(c.auth_refused, 0);
}

static void test_members_behind_the_same_address_are_let_in(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = strict_authority(w);
    struct fabric_node *m = echo_add(w, (struct fabric_node_opts){.issuer = w->a});
    struct fabric_node *late = echo_add(w, (struct fabric_node_opts){.issuer = w->a});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    uint32_t retry_ms;
    fabric_world_introduce(m, s);
    fabric_world_introduce(late, s);
    assert_int_equal(echo_try(m, s), 0);
    spend(s, 3);
    assert_int_equal(enroll(w, j, s, &retry_ms), -ERR_RATE_LIMITED);
    assert_in_range(retry_ms, 1, 66000);
    assert_int_equal(echo_try(late, s), 0);
    assert_int_equal(counters(s).rate_limited, 1);
}

/* Every handshake that a stranger fails is a failure of its source. */
static void test_refused_certificates_count(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = strict_authority(w);
    struct fabric_node *x = echo_add(
        w, (struct fabric_node_opts){.issuer = w->a, .leaf_life_ms = -3600 * 1000});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    uint32_t retry_ms;
    fabric_peer_set(x->f, &s->id, &s->addr, 1);
    assert_int_equal(enroll(w, j, s, &retry_ms), 0);
    assert_int_equal(echo_try(x, s), -ERR_CERT_EXPIRED);
    assert_int_equal(enroll(w, j, s, &retry_ms), -ERR_RATE_LIMITED);
}

static void test_one_source_has_half_of_the_enrolling_sessions(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = echo_add(w, (struct fabric_node_opts){.authority = true,
                                                                  .serve_enroll = true,
                                                                  .limits.enroll_sessions_max = 4});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    struct attempt held[2] = {{.s = NULL}};
    struct fabric_stream_to t = {.enroll_addr = s->addr, .service = "enroll"};
    uint32_t retry_ms;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fabric_stream_open(j->f, &t, &vtab, &held[i], &held[i].s), 0);
        assert_int_equal(fabric_stream_send(held[i].s, blob_str("x")), 0);
        fabric_world_run(&w->w, ended, &held[i]);
        assert_true(held[i].echoed);
    }
    assert_int_equal(enroll(w, j, s, &retry_ms), -ERR_RATE_LIMITED);
    assert_int_equal(retry_ms, 1000);
    /* Another address is not concerned. */
    struct fabric_node *k = echo_add(
        w, (struct fabric_node_opts){.no_identity = true, .listen = "127.0.0.2:0"});
    assert_int_equal(enroll(w, k, s, &retry_ms), 0);
    fabric_stream_close(held[0].s);
    fabric_stream_close(held[1].s);
    fabric_world_run(&w->w, echo_no_sessions, s);
    assert_int_equal(enroll(w, j, s, &retry_ms), 0);
}

/* Many hosts start in the same second: none is sent away to come back with its next timeout. */
static void test_more_handshakes_than_a_turn_accepts_wait_for_the_next(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = echo_add(w, (struct fabric_node_opts){.authority = true,
                                                                  .serve_enroll = true,
                                                                  .limits.handshakes_per_turn = 2});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    static struct attempt held[60];
    struct fabric_stream_to t = {.enroll_addr = s->addr, .service = "enroll"};
    for (size_t i = 0; i < ARRAY_SIZE(held); i++) {
        held[i] = (struct attempt){.s = NULL};
        assert_int_equal(fabric_stream_open(j->f, &t, &vtab, &held[i], &held[i].s), 0);
        assert_int_equal(fabric_stream_send(held[i].s, blob_str("x")), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(held); i++) {
        fabric_world_run(&w->w, ended, &held[i]);
        assert_true(held[i].echoed);
        fabric_stream_close(held[i].s);
    }
    assert_int_equal(counters(s).dropped_limit, 0);
}

struct served { /* a call over a live session, and how many handshakes went first */
    struct fabric_node *s;
    unsigned served, done;
    size_t before;
};

static void count_before(void *data, struct fabric_request *rq, struct blob body)
{
    struct served *c = data;
    (void)body;
    c->served++;
    c->before = c->s->f->half_open;
    fabric_answer(rq, 0, blob_of(NULL, 0));
}

static void on_answer(struct fabric_call *call, int rc, struct blob body)
{
    struct served *c = call->data;
    (void)body;
    assert_int_equal(rc, 0);
    c->done++;
}

static bool is_done(void *data)
{
    return ((struct served *)data)->done > 0;
}

static void put_on_the_wire(struct fabric *f)
{
    while (!list_empty(&f->dirty)) {
        struct session *ss = container_of(f->dirty.next, struct session, dirty_link);
        list_del(&ss->dirty_link);
        assert_true(session_write(ss));
    }
    endpoint_flush(f);
}

/* Twenty handshakes arrive in front of it, and not one is begun before it is answered. */
static void test_call_of_a_live_session_is_served_before_the_handshakes_that_came_first(
    void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = echo_add(
        w, (struct fabric_node_opts){.authority = true, .serve_enroll = true});
    struct fabric_node *b = echo_add(w, (struct fabric_node_opts){.issuer = s});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    static struct attempt flood[20];
    struct served c = {.s = s};
    struct fabric_call call = {.data = &c};
    fabric_serve(s->f,
                 &(struct fabric_service){.name = "count", .data = &c, .request = count_before});
    fabric_world_introduce(b, s);
    assert_int_equal(echo_try(b, s), 0); /* they have a session */
    for (size_t i = 0; i < ARRAY_SIZE(flood); i++) {
        struct fabric_stream_to t = {.enroll_addr = s->addr, .service = "enroll"};
        flood[i] = (struct attempt){.s = NULL};
        assert_int_equal(fabric_stream_open(j->f, &t, &vtab, &flood[i], &flood[i].s), 0);
        assert_int_equal(fabric_stream_send(flood[i].s, blob_str("x")), 0);
    }
    put_on_the_wire(j->f); /* before the call is made */
    assert_int_equal(
        fabric_call_start(b->f, &call, &s->id, "count", blob_of(NULL, 0), 5000, on_answer), 0);
    fabric_world_run(&w->w, is_done, &c);
    assert_int_equal(c.served, 1);
    assert_int_equal(c.before, 0);
    for (size_t i = 0; i < ARRAY_SIZE(flood); i++) { /* and all of them get their turn */
        fabric_world_run(&w->w, ended, &flood[i]);
        assert_true(flood[i].echoed);
        fabric_stream_close(flood[i].s);
    }
}

/* Where enrolling hosts are served, a millisecond each. */
struct desk {
    struct fabric_node *s;
    unsigned served, this_turn, most_in_a_turn;
    uint64_t turn_ms; /* the loop's time stands still during a turn */
    unsigned served_before_the_call;
};

static void serve_slowly(struct fabric_stream *s, void *data, struct blob frame)
{
    struct desk *d = data;
    uint64_t turn_ms = uv_now(d->s->f->loop);
    d->this_turn = turn_ms == d->turn_ms ? d->this_turn + 1 : 1;
    d->turn_ms = turn_ms;
    d->most_in_a_turn = MAX(d->most_in_a_turn, d->this_turn);
    d->served++;
    for (uint64_t end_ns = clock_mono_ns() + NS_PER_MS; clock_mono_ns() < end_ns;) {
    }
    (void)fabric_stream_send(s, frame);
}

static void left(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    (void)data;
    (void)rc;
}

static void come_to_the_desk(void *data, struct fabric_stream *s)
{
    static const struct fabric_stream_vtab slow = {.frame = serve_slowly, .closed = left};
    fabric_stream_accept(s, &slow, data);
}

static void note_who_was_served(void *data, struct fabric_request *rq, struct blob body)
{
    struct desk *d = data;
    (void)body;
    d->served_before_the_call = d->served;
    fabric_answer(rq, 0, blob_of(NULL, 0));
}

/* Twenty hosts without a certificate ask in front of it. */
static void test_call_of_a_member_is_served_before_the_hosts_that_asked_first(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = echo_add(w, (struct fabric_node_opts){.authority = true});
    struct fabric_node *b = echo_add(w, (struct fabric_node_opts){.issuer = s});
    struct fabric_node *j = echo_add(w, (struct fabric_node_opts){.no_identity = true});
    static struct attempt hosts[20];
    struct desk d = {.s = s};
    struct served c = {.s = s};
    struct fabric_call call = {.data = &c};
    fabric_serve(s->f, &(struct fabric_service){.name = "enroll",
                                                .flags = FABRIC_SVC_ENROLL,
                                                .data = &d,
                                                .stream = come_to_the_desk});
    fabric_serve(
        s->f, &(struct fabric_service){.name = "note", .data = &d, .request = note_who_was_served});
    fabric_world_introduce(b, s);
    assert_int_equal(echo_try(b, s), 0);
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        struct fabric_stream_to t = {.enroll_addr = s->addr, .service = "enroll"};
        hosts[i] = (struct attempt){.s = NULL};
        assert_int_equal(fabric_stream_open(j->f, &t, &vtab, &hosts[i], &hosts[i].s), 0);
        assert_int_equal(fabric_stream_send(hosts[i].s, blob_str("x")), 0);
        fabric_world_run(&w->w, ended, &hosts[i]);
        assert_true(hosts[i].echoed);
        hosts[i].echoed = false;
    }
    d = (struct desk){.s = s};
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        assert_int_equal(fabric_stream_send(hosts[i].s, blob_str("y")), 0);
    }
    put_on_the_wire(j->f);
    assert_int_equal(
        fabric_call_start(b->f, &call, &s->id, "note", blob_of(NULL, 0), 5000, on_answer), 0);
    put_on_the_wire(b->f);
    fabric_world_run(&w->w, is_done, &c);
    assert_int_equal(d.served_before_the_call, 0);
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) { /* and none of them is forgotten */
        fabric_world_run(&w->w, ended, &hosts[i]);
        assert_true(hosts[i].echoed);
        fabric_stream_close(hosts[i].s);
    }
    assert_int_equal(d.served, ARRAY_SIZE(hosts));
    assert_int_equal(d.most_in_a_turn, 1); /* it took longer than a turn has for them */
}

/* --- who is told --- */

struct told {
    unsigned count;
    struct fabric_refusal last;
};

static void on_refused(void *data, const struct fabric_refusal *r)
{
    struct fabric_node *n = data;
    struct told *t = n->data;
    t->count++;
    t->last = *r;
}

static bool was_told(void *data)
{
    return ((struct told *)data)->count > 0;
}

static void listen_for(struct fabric_node *n, struct told *t)
{
    *t = (struct told){.count = 0};
    n->data = t;
    n->f->cfg.refused = on_refused;
}

static void test_a_revoked_peer_is_named_to_the_user(void **state)
{
    struct echo_world *w = *state;
    struct told t;
    listen_for(w->a, &t);
    pki_trust_ban(w->a->trust, w->b->leaf.fingerprint);
    assert_int_equal(echo_try(w->b, w->a), -ERR_REVOKED);
    fabric_world_run(&w->w, was_told, &t);
    assert_int_equal(t.last.rc, -ERR_REVOKED);
    assert_string_equal(t.last.service, "");
    assert_memory_equal(t.last.peer.identity.node_id.b, w->b->id.b, 16);
}

/* A certificate is public: shown without its key it names nobody. */
static void test_a_copied_certificate_without_its_key_accuses_nobody(void **state)
{
    struct echo_world *w = *state;
    struct told t;
    listen_for(w->a, &t);
    pki_trust_ban(w->a->trust, w->b->leaf.fingerprint);
    struct fabric_node *x = echo_add(w, (struct fabric_node_opts){.issuer = w->a});
    const struct blob chain[2] = {buf_blob(&w->b->leaf_der), buf_blob(&w->b->issuer_der)};
    assert_true(fabric_forge_identity(x->f, chain, 2, x->key));
    fabric_peer_set(x->f, &w->a->id, &w->a->addr, 1);
    int rc = echo_try(x, w->a);
    assert_int_not_equal(rc, 0);
    assert_int_not_equal(rc, -ERR_REVOKED);
    fabric_world_spin(&w->w, 20);
    assert_int_equal(t.count, 0);
    assert_int_equal(counters(w->a).auth_refused, 1);
    assert_int_equal(w->a->ups, 0);
}

static void never(void *data, struct fabric_stream *s)
{
    (void)data;
    (void)s;
    fail();
}

static void test_an_ordinary_node_that_calls_an_authority_service_is_named(void **state)
{
    struct echo_world *w = *state;
    struct told t;
    listen_for(w->a, &t);
    fabric_serve(w->a->f,
                 &(struct fabric_service){
                     .name = "secret", .flags = FABRIC_SVC_AUTHORITY, .data = w, .stream = never});
    struct echo_end e = {.s = NULL};
    struct fabric_stream_to to = {.node_id = w->a->id, .service = "secret"};
    assert_int_equal(fabric_stream_open(w->b->f, &to, &echo_client_vtab, &e, &e.s), 0);
    fabric_world_run(&w->w, echo_closed, &e);
    assert_int_equal(e.rc, -ERR_NOT_AUTHORITY);
    fabric_world_run(&w->w, was_told, &t);
    assert_int_equal(t.last.rc, -ERR_NOT_AUTHORITY);
    assert_string_equal(t.last.service, "secret");
    assert_memory_equal(t.last.peer.identity.node_id.b, w->b->id.b, 16);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, echo_setup, echo_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_source_that_failed_too_often_waits_as_told),
        TEST(test_members_behind_the_same_address_are_let_in),
        TEST(test_refused_certificates_count),
        TEST(test_one_source_has_half_of_the_enrolling_sessions),
        TEST(test_more_handshakes_than_a_turn_accepts_wait_for_the_next),
        TEST(test_call_of_a_live_session_is_served_before_the_handshakes_that_came_first),
        TEST(test_call_of_a_member_is_served_before_the_hosts_that_asked_first),
        TEST(test_a_revoked_peer_is_named_to_the_user),
        TEST(test_a_copied_certificate_without_its_key_accuses_nobody),
        TEST(test_an_ordinary_node_that_calls_an_authority_service_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
