/* What somebody on the way, or a member gone bad, can do with packets (reliability.md section 6, QUIC): the
 * session lives, nobody else notices, and a victim gets little.
 *
 *     b <-> `near` [middle] `far` <-> a          third: an address of somebody else's */
#include "lib/fabric_echo.h"

#include "fabric/fabric_impl.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
/* after those above */
#include <cmocka.h>

#define PACKET_MAX 2048

struct middle {
    struct echo_world *w;
    int near, far, third;
    struct sockaddr_storage a, b;
    socklen_t a_len, b_len;
    uint8_t first[PACKET_MAX]; /* b's first packet: its Initial */
    size_t first_len;
    bool divert; /* b's next packet goes to a from the third address */
    size_t diverted, to_third;
};

static int bound(struct addr *ret)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t len = sizeof ret->ss;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&in, sizeof in) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&ret->ss, &len), 0);
    ret->len = len;
    return fd;
}

static void send_to_a(struct middle *m, int from, const uint8_t *p, size_t len)
{
    (void)sendto(from, p, len, 0, (struct sockaddr *)&m->a, m->a_len);
}

static void pump(struct middle *m)
{
    uint8_t p[65536];
    ssize_t n;
    m->b_len = sizeof m->b;
    while ((n = recvfrom(m->near, p, sizeof p, 0, (struct sockaddr *)&m->b, &m->b_len)) >= 0) {
        if (m->first_len == 0) {
            m->first_len = (size_t)n;
            memcpy(m->first, p, (size_t)n);
        }
        if (m->divert && (p[0] & 0x80) == 0) { /* a short header */
            m->divert = false;
            m->diverted += (size_t)n;
            send_to_a(m, m->third, p, (size_t)n);
        } else {
            send_to_a(m, m->far, p, (size_t)n);
        }
    }
    while ((n = recv(m->far, p, sizeof p, 0)) >= 0) {
        (void)sendto(m->near, p, (size_t)n, 0, (struct sockaddr *)&m->b, m->b_len);
    }
    while ((n = recv(m->third, p, sizeof p, 0)) >= 0) {
        m->to_third += (size_t)n;
    }
}

static void turns(struct middle *m, int n)
{
    for (int i = 0; i < n; i++) {
        pump(m);
        (void)fabric_world_turn(&m->w->w);
    }
}

/* b and a, who meet only through the middle. */
static void setup(struct middle *m, struct echo_world *w)
{
    struct addr near;
    struct addr unused;
    *m = (struct middle){.w = w};
    m->near = bound(&near);
    m->far = bound(&unused);
    m->third = bound(&unused);
    *w = (struct echo_world){.accepted_count = 0};
    fabric_world_init(&w->w);
    w->a = echo_add(w, (struct fabric_node_opts){.authority = true, .keepalive_ms = 200});
    w->b = echo_add(w, (struct fabric_node_opts){.issuer = w->a, .keepalive_ms = 200});
    m->a = w->a->addr.ss;
    m->a_len = (socklen_t)w->a->addr.len;
    fabric_peer_set(w->b->f, &w->a->id, &near, 1);
}

static void teardown(struct middle *m)
{
    (void)close(m->near);
    (void)close(m->far);
    (void)close(m->third);
    fabric_world_fini(&m->w->w);
}

/* An echo from b through the middle. */
static void echo(struct middle *m)
{
    struct echo_end e;
    echo_open(&e, m->w->b, m->w->a);
    for (int i = 0; i < 4000 && !echo_ended(&e); i++) {
        turns(m, 1);
    }
    assert_true(echo_ended(&e));
    assert_false(e.closed);
    fabric_stream_close(e.s);
    turns(m, 5);
}

static struct session *session_of(struct fabric_node *n)
{
    return container_of(n->f->sessions.next, struct session, link);
}

static void test_replayed_initial_makes_no_session_and_is_worth_no_answer(void **state)
{
    struct middle m;
    struct echo_world w;
    struct fabric_counters before;
    struct fabric_counters after;
    (void)state;
    setup(&m, &w);
    echo(&m);
    fabric_counters(w.a->f, &before);
    for (int i = 0; i < 200; i++) {
        send_to_a(&m, m.third, m.first, m.first_len);
        send_to_a(&m, m.far, m.first, m.first_len);
        turns(&m, 1);
    }
    turns(&m, 20);
    fabric_counters(w.a->f, &after);
    assert_int_equal(after.sessions, 1);
    assert_int_equal(after.sessions_opened, before.sessions_opened);
    assert_true(m.to_third <= 3 * 200 * m.first_len);
    assert_true(after.half_open <= 1);
    echo(&m);
    teardown(&m);
}

/* RFC 9000 section 9.3: who moves a session's packets to a victim's address has little sent there. */
static void test_session_moved_to_a_victim_sends_it_little_and_comes_back(void **state)
{
    struct middle m;
    struct echo_world w;
    (void)state;
    setup(&m, &w);
    echo(&m);
    for (int i = 0; i < 20; i++) {
        m.divert = true;
        echo(&m);
    }
    assert_true(m.diverted > 0);
    /* Path challenges are padded to 1200 bytes, and limited to three times what came from there. */
    assert_true(m.to_third <= 3 * m.diverted);
    assert_int_equal(w.b->ups, 1);
    teardown(&m);
}

static void test_key_update_storm_is_worth_nothing(void **state)
{
    struct middle m;
    struct echo_world w;
    int updates = 0;
    (void)state;
    setup(&m, &w);
    echo(&m);
    for (int i = 0; i < 2000; i++) {
        struct session *ss = session_of(w.b);
        fabric_tick(w.b->f);
        updates += ngtcp2_conn_initiate_key_update(ss->conn, w.b->f->now_ns) == 0;
        session_dirty(ss);
        turns(&m, 1);
        if (i % 200 == 0) {
            echo(&m);
        }
    }
    assert_true(updates >= 2);
    echo(&m);
    assert_int_equal(w.b->ups, 1);
    teardown(&m);
}

static void test_reset_flood_leaves_nothing_behind(void **state)
{
    struct middle m;
    struct echo_world w;
    (void)state;
    setup(&m, &w);
    echo(&m);
    size_t most = 0;
    for (int i = 0; i < 3000; i++) {
        struct echo_end e;
        echo_open(&e, w.b, w.a);
        fabric_stream_reset(e.s, -ERR_CANCELED);
        if (i % 20 == 0) {
            turns(&m, 1);
            most = session_of(w.a)->stream_count > most ? session_of(w.a)->stream_count : most;
            w.accepted_count = 0;
        }
    }
    turns(&m, 50);
    assert_true(most <= 256 + 20);
    assert_true(session_of(w.a)->stream_count <= 1);
    w.accepted_count = 0;
    echo(&m);
    assert_int_equal(w.b->ups, 1);
    teardown(&m);
}

static void test_empty_datagrams_and_noise_are_no_news(void **state)
{
    struct middle m;
    struct echo_world w;
    struct fabric_counters c;
    uint8_t noise[1200] = {0x40};
    (void)state;
    setup(&m, &w);
    echo(&m);
    for (int i = 0; i < 1000; i++) {
        send_to_a(&m, m.third, noise, 0);
        send_to_a(&m, m.far, noise, 0);
        noise[1] = (uint8_t)i;
        send_to_a(&m, m.far, noise, 1 + (size_t)i); /* no connection id of ours */
        turns(&m, 1);
    }
    fabric_counters(w.a->f, &c);
    assert_int_equal(c.sessions, 1);
    assert_int_equal(c.half_open, 0);
    assert_int_equal(m.to_third, 0);
    echo(&m);
    assert_int_equal(w.b->ups, 1);
    teardown(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replayed_initial_makes_no_session_and_is_worth_no_answer),
        cmocka_unit_test(test_session_moved_to_a_victim_sends_it_little_and_comes_back),
        cmocka_unit_test(test_key_update_storm_is_worth_nothing),
        cmocka_unit_test(test_reset_flood_leaves_nothing_behind),
        cmocka_unit_test(test_empty_datagrams_and_noise_are_no_news),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
