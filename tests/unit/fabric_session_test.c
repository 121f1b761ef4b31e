/* What happens when a session goes, and how it comes back (DESIGN section 8; SPEC CHN-01: health and reconnection). */
#include "lib/fabric_echo.h"

#include "base/clock.h"
#include "fabric/fabric_impl.h"

#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

static bool b_lost_a(void *data)
{
    return ((struct echo_world *)data)->b->downs > 0;
}

static void keep_each_other(struct echo_world *w)
{
    fabric_peer_keep(w->b->f, &w->a->id, true);
    fabric_world_run(&w->w, echo_connected, w);
}

static void test_dead_peer_is_noticed_and_reconnected_when_it_is_back(void **state)
{
    struct echo_world *w = *state;
    keep_each_other(w);
    assert_int_equal(w->b->ups, 1);
    fabric_node_close(w->a, true);
    fabric_world_run(&w->w, b_lost_a, w);
    assert_int_equal(w->b->last_down_rc, -ERR_TIMEOUT);
    assert_false(fabric_peer_connected(w->b->f, &w->a->id));
    fabric_node_open(w->a);
    echo_serve(w, w->a);
    fabric_world_run(&w->w, echo_connected, w);
    assert_int_equal(w->b->ups, 2);
    assert_int_equal(echo_try(w->b, w->a), 0);
}

static void test_stopping_peer_is_noticed_at_once(void **state)
{
    struct echo_world *w = *state;
    keep_each_other(w);
    fabric_node_close(w->a, false);
    fabric_world_run(&w->w, b_lost_a, w);
    assert_int_equal(w->b->last_down_rc, -ERR_CLOSED);
}

/* RFC 9000 section 10.3: the restarted peer's first answer ends the old session; no time-out. */
static void test_restarted_peer_resets_the_old_session(void **state)
{
    struct echo_world *w = *state;
    w->b->f->cfg.dead_ms = 60000;
    keep_each_other(w);
    struct echo_end e;
    echo_open(&e, w->b, w->a);
    fabric_world_run(&w->w, echo_ended, &e);
    fabric_node_close(w->a, true);
    fabric_node_open(w->a);
    echo_serve(w, w->a);
    assert_int_equal(fabric_stream_send(e.s, blob_str("x")), 0);
    fabric_world_run(&w->w, echo_closed, &e);
    assert_int_equal(e.rc, -ERR_CLOSED);
    struct fabric_counters c;
    fabric_counters(w->a->f, &c);
    assert_true(c.resets_sent >= 1);
    fabric_world_run(&w->w, echo_connected, w);
}

static void test_new_connection_of_a_restarted_dialler_replaces_the_old(void **state)
{
    struct echo_world *w = *state;
    w->a->f->cfg.dead_ms = 60000;
    keep_each_other(w);
    struct echo_end e;
    echo_open(&e, w->a, w->b);
    fabric_world_run(&w->w, echo_ended, &e);
    fabric_node_close(w->b, true);
    fabric_node_open(w->b);
    echo_serve(w, w->b);
    fabric_world_introduce(w->a, w->b);
    fabric_peer_keep(w->b->f, &w->a->id, true);
    fabric_world_run(&w->w, echo_closed, &e);
    assert_int_equal(e.rc, -ERR_CLOSED);
    fabric_world_run(&w->w, echo_connected, w);
    assert_int_equal(w->a->downs, 0);
    assert_int_equal(echo_try(w->a, w->b), 0);
}

static bool one_session_each(void *data)
{
    struct echo_world *w = data;
    return echo_sessions(w->a) == 1 && echo_sessions(w->b) == 1;
}

static void test_simultaneous_dials_converge_to_one_session_without_a_gap(void **state)
{
    struct echo_world *w = *state;
    fabric_peer_keep(w->a->f, &w->b->id, true);
    fabric_peer_keep(w->b->f, &w->a->id, true);
    fabric_world_run(&w->w, echo_connected, w);
    assert_int_equal(echo_try(w->a, w->b), 0);
    assert_int_equal(echo_try(w->b, w->a), 0);
    fabric_world_run(&w->w, one_session_each, w);
    assert_int_equal(w->a->downs, 0);
    assert_int_equal(w->b->downs, 0);
    assert_int_equal(w->a->ups, 1);
    assert_int_equal(w->b->ups, 1);
    assert_int_equal(echo_try(w->a, w->b), 0);
    assert_int_equal(echo_try(w->b, w->a), 0);
    struct fabric_counters c;
    fabric_counters(w->a->f, &c);
    assert_int_equal(c.sessions_opened, 2);
}

static void test_ban_cuts_the_session_on_recheck(void **state)
{
    struct echo_world *w = *state;
    struct echo_end e;
    echo_open(&e, w->b, w->a);
    fabric_world_run(&w->w, echo_ended, &e);
    assert_int_equal(fabric_recheck(w->a->f), 0);
    pki_trust_ban(w->a->trust, w->b->leaf.fingerprint);
    assert_int_equal(fabric_recheck(w->a->f), 1);
    assert_false(w->accepted[0].closed);
    fabric_world_run(&w->w, echo_closed, &e);
    assert_int_equal(e.rc, -ERR_REVOKED);
    assert_true(w->accepted[0].closed);
    assert_int_equal(w->accepted[0].rc, -ERR_REVOKED);
    assert_false(fabric_peer_connected(w->a->f, &w->b->id));
}

static void test_ban_of_the_issuer_cuts_the_session(void **state)
{
    struct echo_world *w = *state;
    struct echo_end e;
    echo_open(&e, w->b, w->a);
    fabric_world_run(&w->w, echo_ended, &e);
    uint8_t key[32];
    uint8_t fp[32];
    pki_key_public(w->a->issuer_key, key);
    pki_fingerprint(key, fp);
    pki_trust_ban(w->a->trust, fp);
    assert_int_equal(fabric_recheck(w->a->f), 1);
    fabric_world_run(&w->w, echo_closed, &e);
    assert_int_equal(e.rc, -ERR_REVOKED);
}

static void test_session_ends_when_the_certificate_expires(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *x = echo_add(
        w, (struct fabric_node_opts){.issuer = w->a, .leaf_life_ms = 2000});
    fabric_world_introduce(w->a, x);
    struct echo_end e;
    echo_open(&e, x, w->a);
    fabric_world_run(&w->w, echo_ended, &e);
    assert_false(e.closed);
    fabric_world_run(&w->w, echo_closed, &e);
    assert_int_equal(e.rc, -ERR_CERT_EXPIRED);
}

static void test_identity_swap_keeps_sessions_and_shows_the_new_one_to_the_next(void **state)
{
    struct echo_world *w = *state;
    struct echo_end e;
    echo_open(&e, w->b, w->a);
    fabric_world_run(&w->w, echo_ended, &e);
    fabric_node_issue(w->b, w->a, PKI_LEAF_LIFE_MS);
    fabric_node_identify(w->b);
    e.got = 0;
    assert_int_equal(fabric_stream_send(e.s, blob_str("y")), 0);
    fabric_world_run(&w->w, echo_ended, &e);
    assert_false(e.closed);
    assert_memory_not_equal(w->accepted[0].peer.identity.serial, w->b->leaf.serial, 16);
    fabric_peer_forget(w->b->f, &w->a->id);
    fabric_world_run(&w->w, echo_closed, &e);
    fabric_peer_set(w->b->f, &w->a->id, &w->a->addr, 1);
    w->accepted_count = 0;
    assert_int_equal(echo_try(w->b, w->a), 0);
    assert_memory_equal(w->accepted[0].peer.identity.serial, w->b->leaf.serial, 16);
}

static bool two_half_open(void *data)
{
    struct fabric_counters c;
    fabric_counters(((struct fabric_node *)data)->f, &c);
    return c.half_open == 2;
}

static void test_half_open_load_brings_retry_and_honest_peers_still_connect(void **state)
{
    struct echo_world *w = *state;
    struct fabric_node *s = echo_add(
        w,
        (struct fabric_node_opts){.issuer = w->a, .serve_enroll = true, .limits.retry_above = 2});
    fabric_world_introduce(w->b, s);
    /* Dials whose client never goes on. */
    struct fabric_node *x = echo_add(w, (struct fabric_node_opts){.issuer = w->a});
    for (int i = 0; i < 4; i++) {
        assert_non_null(session_dial(x->f, KIND_ENROLL, &s->addr, NULL, 10000));
    }
    fabric_world_spin(&w->w, 1);
    fabric_kill(x->f);
    struct fabric_counters c;
    fabric_world_run(&w->w, two_half_open, s);
    assert_int_equal(echo_try(w->b, s), 0);
    fabric_counters(s->f, &c);
    assert_int_equal(c.half_open, 2);
    assert_true(c.retries_sent >= 1);
    assert_int_equal(c.sessions, 1);
}

static void test_second_address_is_tried_when_the_first_is_dead(void **state)
{
    struct echo_world *w = *state;
    struct addr addrs[2];
    struct errmsg em;
    assert_int_equal(addr_parse("127.0.0.1:9", &addrs[0], &em), 0);
    addrs[1] = w->a->addr;
    fabric_peer_set(w->b->f, &w->a->id, addrs, 2);
    assert_int_equal(echo_try(w->b, w->a), 0);
}

static void test_forgotten_peer_ends_streams_and_is_unknown(void **state)
{
    struct echo_world *w = *state;
    struct echo_end e;
    echo_open(&e, w->b, w->a);
    fabric_world_run(&w->w, echo_ended, &e);
    fabric_peer_forget(w->b->f, &w->a->id);
    assert_false(e.closed);
    fabric_world_run(&w->w, echo_closed, &e);
    assert_int_equal(e.rc, -ERR_CLOSED);
    struct fabric_stream_to t = {.node_id = w->a->id, .service = "echo"};
    assert_int_equal(fabric_stream_open(w->b->f, &t, &echo_client_vtab, &e, &e.s),
                     -ERR_UNREACHABLE);
}

static void test_session_without_traffic_stays_up(void **state)
{
    struct echo_world *w = *state;
    keep_each_other(w);
    uint64_t end = clock_mono_ns() + 1500 * NS_PER_MS;
    while (clock_mono_ns() < end) {
        (void)fabric_world_turn(&w->w);
    }
    assert_int_equal(w->b->downs, 0);
    assert_int_equal(w->a->downs, 0);
    assert_true(echo_connected(w));
}

static size_t packet_size(const struct fabric_node *n, const struct fabric_node *to, bool bulk)
{
    struct peer *p = peer_find(n->f, &to->id);
    struct session *ss = p != NULL ? peer_session(p, bulk) : NULL;
    return ss != NULL ? ngtcp2_conn_get_path_max_tx_udp_payload_size(ss->conn) : 0;
}

static bool bulk_packets_are_large(void *data)
{
    struct echo_world *w = data;
    return packet_size(w->a, w->b, true) == 8952 && packet_size(w->b, w->a, true) == 8952 &&
           packet_size(w->a, w->b, false) > 1472 && packet_size(w->b, w->a, false) > 1472;
}

/* A large packet costs who receives it a buffer of its size for the connection's life. */
static void test_only_bulk_connections_find_room_for_large_packets(void **state)
{
    struct echo_world *w = *state;
    struct fabric_stream_to to = {.node_id = w->a->id, .service = "echo", .bulk = true};
    struct echo_end e = {.got = 0};
    keep_each_other(w);
    assert_int_equal(fabric_stream_open(w->b->f, &to, &echo_client_vtab, &e, &e.s), 0);
    fabric_world_run(&w->w, bulk_packets_are_large, w);
    fabric_world_spin(&w->w, 100);
    assert_int_equal(packet_size(w->a, w->b, false), 4096);
    assert_int_equal(packet_size(w->b, w->a, false), 4096);
    fabric_stream_close(e.s);
}

/* A stopped process (SIGSTOP, a paused machine) must not take its own silence for the peer's. */
static void test_own_pause_is_not_taken_for_the_death_of_the_peer(void **state)
{
    struct echo_world *w = *state;
    keep_each_other(w);
    (void)usleep(900 * 1000);
    for (int i = 0; i < 20; i++) {
        (void)fabric_world_turn(&w->w);
    }
    assert_int_equal(w->b->downs, 0);
    assert_int_equal(w->a->downs, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, echo_setup, echo_teardown)
    const struct CMUnitTest tests[] = {
        T(test_dead_peer_is_noticed_and_reconnected_when_it_is_back),
        T(test_stopping_peer_is_noticed_at_once),
        T(test_restarted_peer_resets_the_old_session),
        T(test_new_connection_of_a_restarted_dialler_replaces_the_old),
        T(test_simultaneous_dials_converge_to_one_session_without_a_gap),
        T(test_ban_cuts_the_session_on_recheck),
        T(test_ban_of_the_issuer_cuts_the_session),
        T(test_session_ends_when_the_certificate_expires),
        T(test_identity_swap_keeps_sessions_and_shows_the_new_one_to_the_next),
        T(test_half_open_load_brings_retry_and_honest_peers_still_connect),
        T(test_second_address_is_tried_when_the_first_is_dead),
        T(test_forgotten_peer_ends_streams_and_is_unknown),
        T(test_session_without_traffic_stays_up),
        T(test_only_bulk_connections_find_room_for_large_packets),
        T(test_own_pause_is_not_taken_for_the_death_of_the_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
