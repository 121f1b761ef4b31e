/* Sessions through relays, over real sockets (DESIGN section 8; SPEC RTE-06, RTE-08). */
#include "lib/fabric_relays.h"

#include <setjmp.h>
#include <cmocka.h>

static void test_stream_reaches_a_node_without_a_direct_path(void **state)
{
    struct relay_line *l = *state;
    struct echo_end e;
    echo_open(&e, l->a->n, l->b->n);
    fabric_world_run(&l->w->e.w, echo_ended, &e);
    assert_false(e.closed);
    /* End to end: the peer is b itself, by its certificate. */
    assert_true(uuid_equal(&e.peer.identity.node_id, &l->b->n->id));
    struct relay_found f = relay_session_to(l->a, l->b);
    assert_int_equal(f.count, 1);
    assert_true(f.info.relayed);
    assert_true(uuid_equal(&f.info.via, &l->r->n->id));
    assert_true(relay_counters(l->r).forwarded > 0);
    assert_int_equal(relay_counters(l->r).delivered, 0);
    assert_true(relay_counters(l->b).delivered > 0);
    fabric_stream_close(e.s);
}

/* --- moving --- */

static void test_live_session_leaves_a_dead_direct_path_and_returns_to_it(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    fabric_world_introduce(l->a->n, l->b->n);
    talk_open(&t, l->a, l->b);
    talk_run_until_on(&t, false);
    talk_run_for_more(&t);
    relay_world_cut(l->a, l->b);
    relay_world_cut(l->b, l->a);
    talk_run_until_on(&t, true);
    talk_run_for_more(&t);
    assert_int_equal(relay_counters(l->a).moved_to_relay, 1);
    relay_world_mend(l->w);
    talk_run_until_on(&t, false);
    talk_run_for_more(&t);
    assert_int_equal(relay_counters(l->a).moved_to_direct, 1);
    assert_int_equal(relay_session_to(l->b, l->a).count, 1);
    fabric_stream_close(t.s);
}

/* As after long silence of the direct way: the next try by itself is a minute away. */
static struct session *relayed_for_a_minute(struct talk *t)
{
    struct relay_line *l = t->l;
    fabric_world_introduce(l->a->n, l->b->n);
    relay_world_cut(l->a, l->b);
    relay_world_cut(l->b, l->a);
    talk_open(t, l->a, l->b);
    talk_run_until_on(t, true);
    struct session *ss = peer_find(l->a->n->f, &l->b->n->id)->up[0][1];
    ss->path.shortcut_failures = 6;
    ss->path.shortcut_at_ns = ss->f->now_ns + 60000 * NS_PER_MS;
    relay_world_mend(l->w);
    return ss;
}

/* A relay that was gone for long is a neighbour again as soon as the overlay wants it: its own tries come and
 * go, and in a pause between two of them the session had put off its next try for a minute. */
static void test_overlay_that_wants_a_neighbour_has_the_direct_way_tried_at_once(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    struct session *ss = relayed_for_a_minute(&t);
    fabric_overlay_keep(l->a->n->f, &l->b->n->id, true);
    talk_run_until_on(&t, false);
    assert_true(ss->f->now_ns - ss->up_ns < 30000 * NS_PER_MS);
    talk_run_for_more(&t);
    fabric_stream_close(t.s);
}

/* Only the dialler moves a session, but the other end's bulk connection shows it that the way is there. */
static void test_direct_connection_of_the_other_end_brings_a_relayed_session_back(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    struct session *ss = relayed_for_a_minute(&t);
    struct fabric_stream_to to = {.node_id = l->a->n->id, .service = "echo", .bulk = true};
    struct echo_end e = {.got = 0};
    timer_stop(ss->f, &ss->f->sweep); /* at once, not when it is looked at next */
    assert_int_equal(fabric_stream_open(l->b->n->f, &to, &echo_client_vtab, &e, &e.s), 0);
    while (ss->path.relayed && ss->f->now_ns - ss->up_ns < 30000 * NS_PER_MS) {
        (void)fabric_world_turn(&l->w->e.w);
    }
    assert_false(ss->path.relayed);
    fabric_stream_close(e.s);
    talk_run_for_more(&t);
    fabric_stream_close(t.s);
}

/* From its first packet on, not from the next sweep: until then silence would be noticed after 2.2 s. */
static void test_relayed_session_in_use_is_missed_soon(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    l->a->n->f->cfg.keepalive_ms = l->b->n->f->cfg.keepalive_ms = 1000;
    timer_stop(l->a->n->f, &l->a->n->f->sweep);
    talk_open(&t, l->a, l->b);
    talk_run_for_more(&t);
    struct session *ss = peer_find(l->a->n->f, &l->b->n->id)->up[0][1];
    assert_true(ss->path.relayed);
    assert_int_equal(ss->path.keepalive_ms, 250);
    fabric_stream_close(t.s);
}

/* What this process slept does not count as silence; what was silent before it and after it does. */
static void test_own_pause_is_taken_from_the_silence_and_no_more(void **state)
{
    struct relay_line *l = *state;
    struct fabric *f = l->a->n->f;
    struct session *ss = relay_carrier(peer_find(f, &l->r->n->id), false);
    uint64_t start_ns = f->now_ns;
    uint64_t now_ns = start_ns + 10000 * NS_PER_MS;
    ngtcp2_conn_info ci;
    ngtcp2_conn_get_conn_info(ss->conn, &ci);
    uint64_t silence_ns = (2 * 50 + 200) * NS_PER_MS +
                          3 * ci.smoothed_rtt; /* keep-alives, margin */
    ss->last_rx_ns = ss->path.progress_ns = now_ns;
    f->now_ns = now_ns + 600 * NS_PER_MS;
    fabric_note_pause(f, 500 * NS_PER_MS);
    assert_int_equal(fabric_slept_since(f, now_ns), 500 * NS_PER_MS);
    assert_int_equal(fabric_slept_since(f, now_ns + 400 * NS_PER_MS), 200 * NS_PER_MS);
    assert_int_equal(fabric_slept_since(f, f->now_ns), 0);
    f->now_ns = now_ns + 500 * NS_PER_MS + silence_ns - 1;
    assert_false(path_is_suspect(ss));
    f->now_ns = now_ns + 500 * NS_PER_MS + silence_ns;
    assert_true(path_is_suspect(ss));
    memset(f->pauses, 0, sizeof f->pauses);
    f->woke_ns = f->grace_until_ns = 0;
    fabric_tick(f);
    ss->last_rx_ns = ss->path.progress_ns = f->now_ns;
}

/* Seven spare connection ids, and none comes while the way is dark: they must last. */
static void test_tries_of_a_dark_session_are_further_apart_each_time(void **state)
{
    uint64_t last_ns = 0;
    (void)state;
    for (unsigned tries = 1; tries < 7; tries++) {
        uint64_t pause_ns = path_retreat_pause_ns(tries);
        assert_true(pause_ns <= (tries <= 4 ? 300 : 2400) * NS_PER_MS);
        last_ns += pause_ns;
    }
    assert_true(last_ns >= 3000 * NS_PER_MS);
    assert_int_equal(path_retreat_pause_ns(1000), path_retreat_pause_ns(100));
}

/* One of two connections is up, so the peer is there: the other is not dialled at the end of its back-off. */
static void test_connection_that_comes_up_ends_the_back_off_of_the_other(void **state)
{
    struct relay_line *l = *state;
    struct peer *p = peer_find(l->a->n->f, &l->r->n->id);
    struct session *bulk = relay_carrier(p, true);
    while (bulk == NULL) {
        (void)fabric_world_turn(&l->w->e.w);
        bulk = relay_carrier(p, true);
    }
    session_drop(p->up[0][1], -ERR_TIMEOUT);
    p->failures[0] = 6;
    p->next_dial_ns[0] = l->a->n->f->now_ns + 60000 * NS_PER_MS;
    session_drop(bulk, -ERR_TIMEOUT);
    p->next_dial_ns[1] = 0;
    uint64_t start_ns = l->a->n->f->now_ns;
    peer_want(p, true);
    while (relay_carrier(p, false) == NULL) {
        (void)fabric_world_turn(&l->w->e.w);
        assert_true(l->a->n->f->now_ns - start_ns < 20000 * NS_PER_MS);
    }
}

/* Only one direction fails: a hears b, b does not hear a. Silence alone would not tell a. */
static void test_live_session_leaves_a_path_that_is_dead_one_way(void **state)
{
    struct relay_line *l = *state;
    for (int way = 0; way < 2; way++) {
        struct talk t = {.l = l};
        fabric_world_introduce(l->a->n, l->b->n);
        talk_open(&t, l->a, l->b);
        talk_run_until_on(&t, false);
        talk_run_for_more(&t);
        relay_world_cut(way == 0 ? l->a : l->b, way == 0 ? l->b : l->a);
        talk_run_until_on(&t, true);
        talk_run_for_more(&t);
        relay_world_mend(l->w);
        fabric_stream_close(t.s);
        talk_run_until_on(&t, false);
    }
}

static void test_direct_address_that_does_not_answer_falls_back_to_the_relay(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    relay_world_cut(l->a, l->b);
    fabric_world_introduce(l->a->n, l->b->n);
    talk_open(&t, l->a, l->b);
    /* After the head start, not after the dial's time-out: until then the first dial goes on. */
    struct peer *b = peer_find(l->a->n->f, &l->b->n->id);
    while (b->dialling_relayed[0] == NULL) {
        assert_non_null(b->dialling[0]);
        (void)fabric_world_turn(&l->w->e.w);
    }
    talk_run_until_on(&t, true);
    talk_run_for_more(&t);
    fabric_stream_close(t.s);
}

static void test_direct_path_that_answers_is_used_alone(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    fabric_world_introduce(l->a->n, l->b->n);
    talk_open(&t, l->a, l->b);
    talk_run_for_more(&t);
    assert_false(relay_session_to(l->a, l->b).info.relayed);
    assert_int_equal(relay_counters(l->a).sent, 0);
    assert_int_equal(relay_session_to(l->b, l->a).count, 1);
    fabric_stream_close(t.s);
}

/* --- several relays --- */

static bool fills_and_drains(void *data);

struct transfer { /* bulk frames one way, answered by their count */
    struct fabric_stream *s;
    unsigned target, got;
    bool closed;
    int rc;
};

static uint8_t bulk_frame[64u << 10];

static void transfer_fill(struct fabric_stream *s, void *data)
{
    struct transfer *t = data;
    (void)t;
    while (fabric_stream_send(s, blob_of(bulk_frame, sizeof bulk_frame)) == 0) {
    }
}

static void transfer_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct transfer *t = data;
    (void)s;
    assert_int_equal(frame.len, sizeof bulk_frame);
    assert_memory_equal(frame.data, bulk_frame, frame.len);
    t->got++;
}

static void transfer_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    ((struct transfer *)data)->closed = true;
    ((struct transfer *)data)->rc = rc;
}

static void transfer_start(struct transfer *t, struct relay_node *from, struct relay_node *to)
{
    static const struct fabric_stream_vtab vtab = {
        .frame = transfer_frame, .closed = transfer_closed, .drained = transfer_fill};
    struct fabric_stream_to sto = {
        .node_id = to->n->id, .service = "echo", .bulk = true, .frame_max_bytes = 1u << 20};
    assert_int_equal(fabric_stream_open(from->n->f, &sto, &vtab, t, &t->s), 0);
    transfer_fill(t->s, t);
}

static bool fills_and_drains(void *data)
{
    struct transfer *t = data;
    assert_false(t->closed);
    return t->got >= t->target;
}

static void transfer_run(struct relay_world *w, struct transfer *t, unsigned frames)
{
    t->target = t->got + frames;
    fabric_world_run(&w->e.w, fills_and_drains, t);
}

static size_t largest_packet(struct relay_node *from, struct relay_node *to)
{
    struct peer *p = peer_find(from->n->f, &to->n->id);
    struct session *ss = p != NULL ? peer_session(p, true) : NULL;
    return ss != NULL ? ngtcp2_conn_get_path_max_tx_udp_payload_size(ss->conn) : 0;
}

static void test_bulk_goes_over_one_relay_in_packets_that_fit(void **state)
{
    struct relay_line *l = *state;
    struct transfer t = {0};
    /* Nothing dies here: what the machine takes away from us must not look like it, or the probes for
     * the packet size go with the neighbour. */
    relay_world_be_patient(l->w);
    transfer_start(&t, l->a, l->b);
    transfer_run(l->w, &t, 300);
    assert_int_equal(largest_packet(l->a, l->b), OVERLAY_PAYLOAD_MAX);
    assert_int_equal(relay_drops(l->r, FABRIC_DROP_TOO_LARGE), 0);
    /* Bulk never uses the control connection. */
    struct peer *p = peer_find(l->r->n->f, &l->b->n->id);
    assert_true(peer_session(p, false)->bytes_out < 1u << 20);
    assert_true(peer_session(p, true)->bytes_out > 16u << 20);
    fabric_stream_reset(t.s, -ERR_CANCELED);
}

/* a - r1 - r2 - b, and a - r3 - b besides. */
struct mesh {
    struct relay_world *w;
    struct relay_node *a, *r1, *r2, *r3, *b;
};

static int mesh_setup(void **state)
{
    struct mesh *m = xcalloc(1, sizeof *m);
    struct relay_world *w = m->w = relay_world_new();
    m->a = relay_world_add(w, false);
    m->r1 = relay_world_add(w, true);
    m->r2 = relay_world_add(w, true);
    m->r3 = relay_world_add(w, true);
    m->b = relay_world_add(w, false);
    relay_world_link(m->a, m->r1);
    relay_world_link(m->r1, m->r2);
    relay_world_link(m->b, m->r2);
    relay_world_route(m->a, m->b, m->r1);
    relay_world_route(m->r1, m->b, m->r2);
    relay_world_route(m->r2, m->a, m->r1);
    relay_world_route(m->b, m->a, m->r2);
    relay_world_settle(w);
    *state = m;
    return 0;
}

static int mesh_teardown(void **state)
{
    struct mesh *m = *state;
    relay_world_free(m->w);
    free(m);
    return 0;
}

static void add_second_way(struct mesh *m)
{
    relay_world_link(m->a, m->r3);
    relay_world_link(m->b, m->r3);
    relay_world_route(m->a, m->b, m->r3);
    relay_world_route(m->b, m->a, m->r3);
    relay_world_settle(m->w);
}

static void test_bulk_goes_over_two_relays(void **state)
{
    struct mesh *m = *state;
    struct transfer t = {0};
    relay_world_be_patient(m->w);
    transfer_start(&t, m->a, m->b);
    transfer_run(m->w, &t, 300);
    assert_true(relay_counters(m->r1).forwarded > 1000);
    assert_true(relay_counters(m->r2).forwarded > 1000);
    assert_int_equal(largest_packet(m->a, m->b), OVERLAY_PAYLOAD_MAX);
    fabric_stream_reset(t.s, -ERR_CANCELED);
}

/* The relay in use dies without a word; a second one leads there too. */
static void test_transfer_survives_the_death_of_its_relay(void **state)
{
    struct mesh *m = *state;
    struct transfer t = {0};
    add_second_way(m);
    transfer_start(&t, m->a, m->b);
    transfer_run(m->w, &t, 100);
    assert_int_equal(relay_counters(m->r3).forwarded, 0);
    fabric_node_close(m->r1->n, true);
    transfer_run(m->w, &t, 300); /* more than was under way */
    assert_true(relay_counters(m->r3).forwarded > 100);
    fabric_stream_reset(t.s, -ERR_CANCELED);
}

static struct session *dialled_to(struct relay_node *from, struct relay_node *to, bool bulk)
{
    return peer_find(from->n->f, &to->n->id)->up[bulk][1];
}

/* Nothing passes r1 any more, in neither direction. */
static void lose_first_way(struct mesh *m)
{
    relay_world_cut(m->a, m->r1);
    relay_world_cut(m->r1, m->a);
}

static void run_ms(struct mesh *m, uint64_t ms)
{
    uint64_t start_ns = m->a->n->f->now_ns;
    while (m->a->n->f->now_ns - start_ns < ms * NS_PER_MS) {
        (void)fabric_world_turn(&m->w->e.w);
    }
}

/* The routes move before the session would have noticed by itself: it follows by a migration. One that is
 * acknowledged has no reason to. The other end, which would send along the dead way for ten seconds, answers
 * the challenge along the way it came by. */
static void test_waiting_session_migrates_when_the_routes_move(void **state)
{
    struct mesh *m = *state;
    struct transfer t = {0};
    add_second_way(m);
    relay_world_be_patient(m->w);
    transfer_start(&t, m->a, m->b);
    transfer_run(m->w, &t, 100);
    struct session *ss = dialled_to(m->a, m->b, true);
    uint8_t generation = ss->path.generation;
    fabric_overlay_changed(ss->f);
    run_ms(m, 500);
    assert_int_equal(ss->path.generation, generation); /* acknowledgements come all the time */
    lose_first_way(m);
    run_ms(m, 2500);
    assert_int_equal(ss->path.generation, generation); /* nobody has told it */
    m->a->routes = 0;
    relay_world_route(m->a, m->b, m->r3);
    fabric_overlay_changed(ss->f);
    assert_int_equal(ss->path.generation, (uint8_t)(generation + 1));
    fabric_overlay_changed(ss->f);
    assert_int_equal(ss->path.generation,
                     (uint8_t)(generation + 1)); /* its challenge is on the way */
    uint64_t moved_ns = ss->f->now_ns;
    transfer_run(m->w, &t, 300);
    assert_true(ss->f->now_ns - moved_ns < 8000 * NS_PER_MS);
    fabric_stream_reset(t.s, -ERR_CANCELED);
}

/* An idle session has nothing to show but its challenge. The other end, whose own way is the dead one, answers
 * along the way the challenge came by, and follows. */
static void test_challenge_is_answered_along_the_way_it_came_by(void **state)
{
    struct mesh *m = *state;
    add_second_way(m);
    relay_world_be_patient(m->w);
    fabric_peer_keep(m->a->n->f, &m->b->n->id, true);
    struct session *ss = NULL;
    while ((ss = dialled_to(m->a, m->b, false)) == NULL || !ss->path.relayed) {
        (void)fabric_world_turn(&m->w->e.w);
    }
    run_ms(m, 1000);
    lose_first_way(m);
    m->a->routes = 0;
    relay_world_route(m->a, m->b, m->r3);
    run_ms(m, 500);
    fabric_overlay_changed(ss->f);
    run_ms(m, 3000);
    assert_int_equal(ss->path.generation, 1);
    assert_true(ss->f->now_ns - ss->path.progress_ns < 1000 * NS_PER_MS);
    struct session *other = peer_find(m->b->n->f, &m->a->n->id)->up[0][0];
    assert_true(uuid_equal(&other->path.via, &m->r3->n->id));
}

/* They move when it has waited for a moment only: it gives the old way that moment, and no more. */
static void test_session_follows_the_routes_when_it_has_waited_long_enough(void **state)
{
    struct mesh *m = *state;
    struct transfer t = {0};
    add_second_way(m);
    relay_world_be_patient(m->w);
    transfer_start(&t, m->a, m->b);
    transfer_run(m->w, &t, 100);
    struct session *ss = dialled_to(m->a, m->b, true);
    uint8_t generation = ss->path.generation;
    lose_first_way(m);
    fabric_overlay_changed(ss->f);
    assert_int_equal(ss->path.generation, generation);
    assert_true(path_deadline(ss) - ss->f->now_ns < 2000 * NS_PER_MS);
    run_ms(m, 2500);
    assert_int_equal(ss->path.generation,
                     (uint8_t)(generation + 1)); /* once: that was all there was */
    fabric_stream_reset(t.s, -ERR_CANCELED);
}

/* Packets that were under way when the dialler left a dead way come in last. Answers do not go back for them,
 * unless what is newer leads nowhere. */
static void test_late_packet_does_not_bring_the_old_way_back(void **state)
{
    struct mesh *m = *state;
    struct transfer t = {0};
    add_second_way(m);
    relay_world_be_patient(m->w);
    transfer_start(&t, m->a, m->b);
    transfer_run(m->w, &t, 100);
    struct session *ss = peer_find(m->b->n->f, &m->a->n->id)->up[1][0];
    struct relay_arrival old = ss->path.came;
    assert_true(uuid_equal(&old.by, &m->r2->n->id));
    struct relay_arrival newer = {
        .by = m->r3->n->id, .class = old.class, .sequence = old.sequence + 10};
    ss->path.progress_ns = ss->path.since_ns = 1;
    assert_true(path_is_stalled(ss));
    path_came(ss, &newer);
    assert_true(uuid_equal(&ss->path.came.by, &m->r3->n->id));
    assert_false(path_is_stalled(ss)); /* or it would shun the new way for the old one's silence */
    old.sequence += 9;
    path_came(ss, &old);
    assert_true(uuid_equal(&ss->path.came.by, &m->r3->n->id));
    ss->path.shunned = m->r3->n->id;
    path_came(ss, &old);
    assert_true(uuid_equal(&ss->path.came.by, &m->r2->n->id));
    fabric_stream_reset(t.s, -ERR_CANCELED);
}

/* An answered challenge is an acknowledgement: the session does not leave the way it has just found. */
static void test_validated_path_is_progress(void **state)
{
    struct mesh *m = *state;
    struct transfer t = {0};
    add_second_way(m);
    relay_world_be_patient(m->w);
    transfer_start(&t, m->a, m->b);
    transfer_run(m->w, &t, 100);
    struct session *ss = dialled_to(m->a, m->b, true);
    ss->path.progress_ns = 1;
    assert_int_equal(session_callbacks.path_validation(ss->conn, 0, ngtcp2_conn_get_path(ss->conn),
                                                       NULL, NGTCP2_PATH_VALIDATION_RESULT_FAILURE,
                                                       ss),
                     0);
    assert_int_equal(ss->path.progress_ns, 1);
    assert_int_equal(session_callbacks.path_validation(ss->conn, 0, ngtcp2_conn_get_path(ss->conn),
                                                       NULL, NGTCP2_PATH_VALIDATION_RESULT_SUCCESS,
                                                       ss),
                     0);
    assert_int_equal(ss->path.progress_ns, ss->f->now_ns);
    fabric_stream_reset(t.s, -ERR_CANCELED);
}

/* Routes that go round in a ring, which no table should have: the hop limit ends them. */
static void test_ring_of_routes_is_ended_by_the_hop_limit(void **state)
{
    struct mesh *m = *state;
    relay_world_link(m->r1, m->r3);
    relay_world_link(m->r2, m->r3);
    relay_world_settle(m->w);
    struct relay_node *ghost = m->b;
    fabric_node_close(m->b->n, false);
    m->r1->routes = m->r2->routes = 0;
    relay_world_route(m->r1, ghost, m->r2);
    relay_world_route(m->r2, ghost, m->r3);
    relay_world_route(m->r3, ghost, m->r1);
    struct echo_end e;
    echo_open(&e, m->a->n, m->b->n);
    fabric_world_run(&m->w->e.w, echo_closed, &e);
    uint64_t ended = relay_drops(m->r1, FABRIC_DROP_HOP_LIMIT) +
                     relay_drops(m->r2, FABRIC_DROP_HOP_LIMIT) +
                     relay_drops(m->r3, FABRIC_DROP_HOP_LIMIT);
    uint64_t stopped = relay_drops(m->r1, FABRIC_DROP_DUPLICATE) +
                       relay_drops(m->r2, FABRIC_DROP_DUPLICATE) +
                       relay_drops(m->r3, FABRIC_DROP_DUPLICATE);
    assert_true(ended + stopped > 0);
    /* Each of a's packets was forwarded at most as often as its limit says. */
    assert_true(relay_counters(m->r1).forwarded + relay_counters(m->r2).forwarded +
                    relay_counters(m->r3).forwarded <=
                relay_counters(m->a).sent * (OVERLAY_HOPS - 1));
}

/* --- the rest of QUIC over virtual addresses --- */

static void test_retry_works_through_a_relay(void **state)
{
    struct relay_line *l = *state;
    l->b->n->f->cfg.limits.retry_above = 0;
    assert_int_equal(echo_try(l->a->n, l->b->n), 0);
    struct fabric_counters c;
    fabric_counters(l->b->n->f, &c);
    assert_true(c.retries_sent > 0);
}

static void test_restarted_node_resets_relayed_sessions(void **state)
{
    struct relay_line *l = *state;
    l->a->n->f->cfg.dead_ms = 60000;
    struct talk t = {.l = l};
    talk_open(&t, l->a, l->b);
    talk_run_for_more(&t);
    fabric_node_close(l->b->n, true);
    fabric_node_open(l->b->n);
    echo_serve(&l->w->e, l->b->n);
    fabric_set_overlay(l->b->n->f, &l->a->n->f->relay.vtab);
    l->b->n->f->relay.vtab.data = l->b;
    fabric_world_introduce(l->b->n, l->r->n);
    fabric_peer_keep(l->b->n->f, &l->r->n->id, true);
    while (!t.closed) {
        (void)fabric_world_turn(&l->w->e.w);
    }
    assert_int_equal(t.rc, -ERR_CLOSED);
    assert_int_equal(echo_try(l->a->n, l->b->n), 0);
}

static void test_banned_node_loses_its_relayed_sessions(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    talk_open(&t, l->a, l->b);
    talk_run_for_more(&t);
    pki_trust_ban(l->b->n->trust, l->a->n->leaf.fingerprint);
    assert_int_equal(fabric_recheck(l->b->n->f), 1);
    while (!t.closed) {
        (void)fabric_world_turn(&l->w->e.w);
    }
    assert_int_equal(t.rc, -ERR_REVOKED);
}

static void test_closing_in_the_middle_of_relayed_traffic_leaks_nothing(void **state)
{
    struct relay_line *l = *state;
    for (unsigned n = 0; n < 40; n++) {
        struct transfer t = {0};
        relay_world_settle(l->w); /* a busy machine may have cost it a neighbour */
        transfer_start(&t, l->a, l->b);
        fabric_world_spin(&l->w->e.w, n);
        fabric_stream_reset(t.s, -ERR_CANCELED);
    }
    struct relay_node *closing[] = {l->r, l->b, l->a};
    struct transfer t = {0};
    relay_world_settle(l->w);
    transfer_start(&t, l->a, l->b);
    transfer_run(l->w, &t, 10);
    for (size_t i = 0; i < ARRAY_SIZE(closing); i++) {
        fabric_node_close(closing[i]->n, i == 0);
    }
    assert_true(t.closed);
}

int main(void)
{
    for (size_t i = 0; i < sizeof bulk_frame; i++) {
        bulk_frame[i] = (uint8_t)(i * 7 + i / 251);
    }
    const struct CMUnitTest tests[] = {
#define LINE(t) cmocka_unit_test_setup_teardown(t, relay_line_setup, relay_line_teardown)
#define MESH(t) cmocka_unit_test_setup_teardown(t, mesh_setup, mesh_teardown)
        LINE(test_stream_reaches_a_node_without_a_direct_path),
        LINE(test_live_session_leaves_a_dead_direct_path_and_returns_to_it),
        LINE(test_overlay_that_wants_a_neighbour_has_the_direct_way_tried_at_once),
        LINE(test_direct_connection_of_the_other_end_brings_a_relayed_session_back),
        LINE(test_relayed_session_in_use_is_missed_soon),
        LINE(test_own_pause_is_taken_from_the_silence_and_no_more),
        LINE(test_connection_that_comes_up_ends_the_back_off_of_the_other),
        cmocka_unit_test(test_tries_of_a_dark_session_are_further_apart_each_time),
        LINE(test_live_session_leaves_a_path_that_is_dead_one_way),
        LINE(test_direct_address_that_does_not_answer_falls_back_to_the_relay),
        LINE(test_direct_path_that_answers_is_used_alone),
        LINE(test_bulk_goes_over_one_relay_in_packets_that_fit),
        MESH(test_bulk_goes_over_two_relays),
        MESH(test_transfer_survives_the_death_of_its_relay),
        MESH(test_waiting_session_migrates_when_the_routes_move),
        MESH(test_challenge_is_answered_along_the_way_it_came_by),
        MESH(test_session_follows_the_routes_when_it_has_waited_long_enough),
        MESH(test_late_packet_does_not_bring_the_old_way_back),
        MESH(test_validated_path_is_progress),
        MESH(test_ring_of_routes_is_ended_by_the_hop_limit),
        LINE(test_retry_works_through_a_relay),
        LINE(test_restarted_node_resets_relayed_sessions),
        LINE(test_banned_node_loses_its_relayed_sessions),
        LINE(test_closing_in_the_middle_of_relayed_traffic_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
