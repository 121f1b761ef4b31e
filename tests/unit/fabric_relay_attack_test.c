/* What a relay, or a node beside one, may try (SPEC RTE-08; RFC 9000 section 21). */
#include "lib/fabric_relays.h"

#include "base/clock.h"

#include <setjmp.h>
#include <cmocka.h>

static void test_nothing_is_relayed_where_it_is_off(void **state)
{
    struct relay_line *l = *state;
    struct fabric_stream *s;
    struct fabric_stream_to to = {.node_id = l->b->n->id, .service = "echo"};
    fabric_set_overlay(l->a->n->f, NULL);
    struct echo_end e = {0};
    assert_int_equal(fabric_stream_open(l->a->n->f, &to, &echo_client_vtab, &e, &s),
                     -ERR_UNREACHABLE);
    fabric_set_overlay(l->r->n->f, NULL);
    echo_open(&e, l->b->n, l->a->n);
    fabric_world_run(&l->w->e.w, echo_closed, &e);
    assert_true(relay_drops(l->r, FABRIC_DROP_OFF) > 0);
    assert_int_equal(relay_counters(l->r).forwarded, 0);
}

/* From the moment its own configuration says so: nothing goes any more, not even for live sessions. */
static void test_relay_that_loses_its_role_stops_at_once(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    talk_open(&t, l->a, l->b);
    talk_run_for_more(&t);
    l->r->lost_role = true; /* a and b still believe in it */
    uint64_t before = relay_counters(l->r).forwarded;
    unsigned got = t.got;
    while (relay_drops(l->r, FABRIC_DROP_NO_ROLE) == 0) {
        (void)fabric_world_turn(&l->w->e.w);
    }
    assert_int_equal(relay_counters(l->r).forwarded, before);
    assert_true(t.got - got <= 1); /* what it had queued */
    fabric_stream_reset(t.s, -ERR_CANCELED);
}

struct seen_packets {
    uint8_t *data;
    size_t len, cap, count;
    uint8_t last[2048];
    size_t last_len;
    struct blob want_from; /* keep the last packet of this source */
};

static void watch(void *data, struct blob packet)
{
    struct seen_packets *s = data;
    if (s->len + packet.len <= s->cap) {
        memcpy(s->data + s->len, packet.data, packet.len);
        s->len += packet.len;
    }
    s->count++;
    struct overlay_packet p;
    assert_int_equal(overlay_decode(packet, &p), 0);
    if (memcmp(p.from.b, s->want_from.data, 16) == 0 && packet.len <= sizeof s->last) {
        memcpy(s->last, packet.data, packet.len);
        s->last_len = packet.len;
    }
}

static void watch_start(struct seen_packets *s, struct relay_node *r, struct relay_node *from)
{
    *s = (struct seen_packets){.cap = 8u << 20, .want_from = blob_of(from->n->id.b, 16)};
    s->data = xmalloc(s->cap);
    r->n->f->relay.watch = watch;
    r->n->f->relay.watch_data = s;
}

static void watch_stop(struct seen_packets *s, struct relay_node *r)
{
    r->n->f->relay.watch = NULL;
    free(s->data);
}

static void test_relay_sees_nothing_of_what_is_said(void **state)
{
    struct relay_line *l = *state;
    static const char marker[] = "a marker that nobody but the two ends may see";
    struct seen_packets s;
    watch_start(&s, l->r, l->a);
    struct echo_end e;
    struct fabric_stream_to to = {.node_id = l->b->n->id, .service = "echo"};
    e = (struct echo_end){0};
    assert_int_equal(fabric_stream_open(l->a->n->f, &to, &echo_client_vtab, &e, &e.s), 0);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(fabric_stream_send(e.s, blob_str(marker)), 0);
    }
    while (e.got < 50) {
        assert_false(e.closed);
        (void)fabric_world_turn(&l->w->e.w);
    }
    assert_true(s.count > 10);
    assert_null(memmem(s.data, s.len, marker, sizeof marker - 1));
    assert_null(memmem(s.data, s.len, marker, 12));
    /* And the name of the service, and the certificates' cluster id. */
    assert_null(memmem(s.data, s.len, "echo", 4));
    assert_non_null(memmem(s.data, s.len, l->b->n->id.b, 16)); /* the watch does see */
    fabric_stream_close(e.s);
    watch_stop(&s, l->r);
}

/* --- a relay that lies --- */

static void send_raw(struct relay_node *from, struct relay_node *to, struct blob packet)
{
    assert_int_equal(fabric_datagram_send(from->n->f, &to->n->id, packet), 0);
}

struct delivered {
    struct relay_node *n;
    uint64_t packets;
};

static bool has_delivered(void *data)
{
    struct delivered *d = data;
    struct fabric_overlay_counters c = relay_counters(d->n);
    uint64_t total = c.delivered;
    for (size_t i = 0; i < FABRIC_DROP_COUNT; i++) {
        total += c.drops[i];
    }
    return total >= d->packets;
}

static uint64_t handled(struct relay_node *n)
{
    struct fabric_overlay_counters c = relay_counters(n);
    uint64_t total = c.delivered;
    for (size_t i = 0; i < FABRIC_DROP_COUNT; i++) {
        total += c.drops[i];
    }
    return total;
}

/* Sends it and waits until `to` has dealt with it. */
static void lie(struct relay_line *l, struct relay_node *from, struct relay_node *to,
                struct blob packet)
{
    struct delivered d = {.n = to, .packets = handled(to) + 1};
    send_raw(from, to, packet);
    fabric_world_run(&l->w->e.w, has_delivered, &d);
}

static uint64_t get_sequence(const uint8_t *packet)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) {
        v = v << 8 | packet[4 + i];
    }
    return v;
}

static void put_sequence(uint8_t *packet, uint64_t v)
{
    for (int i = 0; i < 8; i++) {
        packet[4 + i] = (uint8_t)(v >> (56 - 8 * i));
    }
}

static void test_replayed_packet_is_dropped_and_the_session_lives(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    struct seen_packets s;
    watch_start(&s, l->r, l->a);
    talk_open(&t, l->a, l->b);
    talk_run_for_more(&t);
    /* r resends a's last packet over its control connection, where a's small ones went. */
    lie(l, l->r, l->b, blob_of(s.last, s.last_len));
    assert_true(relay_drops(l->b, FABRIC_DROP_DUPLICATE) > 0);
    /* With a new sequence number it reaches the session, which knows it (RFC 9001 section 5.5). */
    put_sequence(s.last, get_sequence(s.last) + 1000);
    lie(l, l->r, l->b, blob_of(s.last, s.last_len));
    talk_run_for_more(&t);
    assert_int_equal(relay_session_to(l->b, l->a).count, 1);
    fabric_stream_close(t.s);
    watch_stop(&s, l->r);
}

static void test_changed_or_invented_packet_does_not_disturb_the_session(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    struct seen_packets s;
    watch_start(&s, l->r, l->a);
    talk_open(&t, l->a, l->b);
    talk_run_for_more(&t);
    struct prng r;
    prng_seed(&r, 1);
    for (int i = 0; i < 200; i++) {
        uint8_t copy[2048];
        size_t len = s.last_len;
        memcpy(copy, s.last, len); /* the last one: what is said goes on meanwhile */
        put_sequence(copy, get_sequence(copy) + 1000); /* one the guard has not seen */
        /* Behind the connection id: the protected part. */
        size_t at = OVERLAY_HEADER_BYTES + 9 + prng_below(&r, len - OVERLAY_HEADER_BYTES - 9);
        copy[at] ^= (uint8_t)(1 + prng_below(&r, 255));
        lie(l, l->r, l->b, blob_of(copy, len));
    }
    talk_run_for_more(&t);
    fabric_stream_close(t.s);
    watch_stop(&s, l->r);
}

/* r says that a's packets come from somebody else: to the library that would be a's migration, and b
 * would send what is for a to a stranger. */
static void test_packet_under_another_source_is_not_taken_for_a_migration(void **state)
{
    struct relay_line *l = *state;
    struct talk t = {.l = l};
    struct seen_packets s;
    watch_start(&s, l->r, l->a);
    talk_open(&t, l->a, l->b);
    talk_run_for_more(&t);
    uint64_t before = relay_drops(l->b, FABRIC_DROP_SPOOFED);
    struct uuid other = uuid_new();
    /* Held back, so that the session has not seen it yet: the next packet of a, changed. */
    memcpy(s.last + 28, other.b, 16);
    lie(l, l->r, l->b, blob_of(s.last, s.last_len));
    assert_int_equal(relay_drops(l->b, FABRIC_DROP_SPOOFED), before + 1);
    talk_run_for_more(&t);
    struct relay_found f = relay_session_to(l->b, l->a);
    assert_true(f.info.relayed);
    assert_true(uuid_equal(&f.info.via, &l->r->n->id));
    fabric_stream_close(t.s);
    watch_stop(&s, l->r);
}

static size_t forge(uint8_t *out, struct relay_node *from, struct relay_node *to, uint64_t sequence,
                    struct blob payload)
{
    struct overlay_packet p = {.class = OVERLAY_CONTROL,
                               .hops = OVERLAY_HOPS,
                               .sequence = sequence,
                               .from = from->n->id,
                               .to = to->n->id};
    overlay_put_header(&p, out);
    memcpy(out + OVERLAY_HEADER_BYTES, payload.data, payload.len);
    return OVERLAY_HEADER_BYTES + payload.len;
}

static void test_ordinary_node_may_speak_only_for_itself(void **state)
{
    struct relay_line *l = *state;
    uint8_t out[256];
    size_t len = forge(out, l->a, l->b, 1, blob_str("not quic"));
    lie(l, l->b, l->r, blob_of(out, len)); /* b speaks as a */
    assert_int_equal(relay_drops(l->r, FABRIC_DROP_SPOOFED), 1);
    /* An ordinary node does not relay either. */
    len = forge(out, l->r, l->a, 1, blob_str("not quic"));
    lie(l, l->r, l->b, blob_of(out, len));
    assert_int_equal(relay_drops(l->b, FABRIC_DROP_NO_ROLE), 1);
    /* Our own packet comes back. */
    len = forge(out, l->b, l->a, 1, blob_str("not quic"));
    lie(l, l->r, l->b, blob_of(out, len));
    assert_int_equal(relay_drops(l->b, FABRIC_DROP_LOOP), 1);
    /* Its way leads back where it came from. */
    len = forge(out, l->r, l->a, 2, blob_str("not quic"));
    l->a->relays = true;
    memcpy(out + 12, l->b->n->id.b, 16);
    memcpy(out + 28, l->a->n->id.b, 16);
    out[2] = 1;
    lie(l, l->a, l->r, blob_of(out, len));
    assert_int_equal(relay_drops(l->r, FABRIC_DROP_HOP_LIMIT), 1);
}

static void test_malformed_packets_are_counted(void **state)
{
    struct relay_line *l = *state;
    uint8_t out[256];
    size_t len = forge(out, l->a, l->b, 1, blob_str("not quic"));
    lie(l, l->a, l->r, blob_of(out, OVERLAY_HEADER_BYTES));
    assert_int_equal(relay_drops(l->r, FABRIC_DROP_MALFORMED), 1);
    out[1] = 0x20;
    lie(l, l->a, l->r, blob_of(out, len));
    assert_int_equal(relay_drops(l->r, FABRIC_DROP_VERSION), 1);
}

/* Somebody who makes b begin handshakes and never goes on with them. */
static void test_half_open_handshakes_are_bounded_for_each_source(void **state)
{
    struct relay_line *l = *state;
    struct fabric *f = l->a->n->f;
    struct addr to;
    path_virtual(&l->b->n->id, 0, &to);
    struct peer *p = peer_get(f, &l->b->n->id);
    p->keep = true;
    /* A first stream gets through: the way to the relay knows what it carries. */
    struct talk t = {.l = l};
    talk_open(&t, l->a, l->b);
    talk_run_for_more(&t);
    fabric_stream_reset(t.s, -ERR_CANCELED);
    struct session *dialled[20];
    for (size_t i = 0; i < ARRAY_SIZE(dialled); i++) {
        dialled[i] = session_dial(f, KIND_CONTROL, &to, p, 5000);
        assert_non_null(dialled[i]);
    }
    /* a sends its first packets and hears nothing back. */
    relay_world_cut(l->r, l->a);
    uint64_t end = clock_mono_ns() + 300 * NS_PER_MS;
    while (clock_mono_ns() < end) {
        (void)fabric_world_turn(&l->w->e.w);
        assert_true(l->b->n->f->half_open <= 8);
    }
    assert_int_equal(l->b->n->f->relay.half_open, 8);
    struct fabric_counters c;
    fabric_counters(l->b->n->f, &c);
    assert_true(c.dropped_limit > 0);
    for (size_t i = 0; i < ARRAY_SIZE(dialled); i++) {
        session_drop(dialled[i], -ERR_CANCELED);
    }
    p->keep = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define LINE(t) cmocka_unit_test_setup_teardown(t, relay_line_setup, relay_line_teardown)
        LINE(test_nothing_is_relayed_where_it_is_off),
        LINE(test_relay_that_loses_its_role_stops_at_once),
        LINE(test_relay_sees_nothing_of_what_is_said),
        LINE(test_replayed_packet_is_dropped_and_the_session_lives),
        LINE(test_changed_or_invented_packet_does_not_disturb_the_session),
        LINE(test_packet_under_another_source_is_not_taken_for_a_migration),
        LINE(test_ordinary_node_may_speak_only_for_itself),
        LINE(test_malformed_packets_are_counted),
        LINE(test_half_open_handshakes_are_bounded_for_each_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
