/* Probes, routes and requests on the wire: fixed bytes, round trips, what is refused. */
#include "wire/mesh_msg.h"

#include "base/file.h"
#include "base/rng.h"
#include "base/text.h"

#include <setjmp.h>
#include <cmocka.h>

static struct uuid id_of(uint8_t n)
{
    struct uuid u = UUID_NIL;
    u.b[0] = 0x01;
    u.b[15] = n;
    return u;
}

static struct mesh_probe probe_sample(enum mesh_msg_type type)
{
    return (struct mesh_probe){.type = type,
                               .token = 0x0102030405060708,
                               .peer_token = 0x1112131415161718,
                               .seq = 0x21222324,
                               .received = 0x31323334,
                               .load = 42,
                               .flags = MESH_PROBE_FULL};
}

static struct mesh_routes routes_sample(void)
{
    return (struct mesh_routes){
        .token = 1,
        .peer_token = 2,
        .number = 3,
        .count = 2,
        .entry = {{.dst = id_of(7), .seqno = 0xfffffffe, .metric = 1500, .hops = 2},
                  {.dst = id_of(8), .metric = MESH_METRIC_INFINITE}}};
}

static struct mesh_requests requests_sample(void)
{
    return (struct mesh_requests){
        .token = 1,
        .peer_token = 2,
        .count = 2,
        .entry = {{.dst = id_of(7), .seqno = 9, .hops = 16, .kind = MESH_REQUEST_SEQNO},
                  {.dst = id_of(8), .kind = MESH_REQUEST_ROUTE}}};
}

static void expect_hex(const uint8_t *data, size_t len, const char *hex)
{
    char text[2 * MESH_MSG_MAX + 1];
    hex_encode(data, len, text);
    assert_string_equal(text, hex);
}

/* --- the bytes, spelled out: they are what other versions read --- */

static void test_bytes_of_each_message_are_fixed(void **state)
{
    (void)state;
    uint8_t out[MESH_MSG_MAX];
    struct mesh_probe p = probe_sample(MESH_PROBE);
    struct mesh_routes r = routes_sample();
    struct mesh_requests q = requests_sample();
    struct mesh_routes_ack a = {.token = 1, .peer_token = 2, .number = 0x01020304};
    expect_hex(out, mesh_probe_encode(&p, out),
               "02010102030405060708111213141516171821222324313233342a01");
    p = probe_sample(MESH_PROBE_ANSWER);
    expect_hex(out, mesh_probe_encode(&p, out),
               "03010102030405060708111213141516171821222324313233342a01");
    expect_hex(out, mesh_routes_encode(&r, out),
               "0401000000000000000100000000000000020000000302"
               "01000000000000000000000000000007fffffffe000005dc02"
               "0100000000000000000000000000000800000000ffffffff00");
    expect_hex(out, mesh_routes_ack_encode(&a, out),
               "05010000000000000001000000000000000201020304");
    expect_hex(out, mesh_requests_encode(&q, out),
               "06010000000000000001000000000000000202"
               "01000000000000000000000000000007000000091002"
               "01000000000000000000000000000008000000000001");
}

static void test_full_messages_fit_a_datagram_and_come_back(void **state)
{
    (void)state;
    static uint8_t out[MESH_MSG_MAX];
    static struct mesh_routes r;
    static struct mesh_routes r2;
    static struct mesh_requests q;
    static struct mesh_requests q2;
    struct prng rng;
    prng_seed(&rng, 1);
    r = (struct mesh_routes){.token = 1, .peer_token = 2, .count = MESH_ROUTES_ENTRIES_MAX};
    q = (struct mesh_requests){.token = 1, .peer_token = 2, .count = MESH_REQUESTS_ENTRIES_MAX};
    for (uint32_t i = 0; i < r.count; i++) {
        prng_bytes(&rng, r.entry[i].dst.b, 16);
        r.entry[i].seqno = (uint32_t)prng_u64(&rng);
        r.entry[i].metric = (uint32_t)prng_u64(&rng);
        r.entry[i].hops = (uint8_t)prng_below(&rng, MESH_HOPS_MAX + 1);
    }
    for (uint32_t i = 0; i < q.count; i++) {
        prng_bytes(&rng, q.entry[i].dst.b, 16);
        q.entry[i].seqno = (uint32_t)prng_u64(&rng);
        q.entry[i].hops = (uint8_t)prng_below(&rng, MESH_HOPS_MAX + 1);
        q.entry[i].kind = prng_below(&rng, 2) == 0 ? MESH_REQUEST_ROUTE : MESH_REQUEST_SEQNO;
    }
    size_t len = mesh_routes_encode(&r, out);
    assert_true(len <= MESH_MSG_MAX);
    assert_int_equal(mesh_routes_decode(blob_of(out, len), &r2), 0);
    assert_int_equal(r2.count, r.count);
    for (uint32_t i = 0; i < r.count; i++) {
        assert_true(uuid_equal(&r.entry[i].dst, &r2.entry[i].dst));
        assert_int_equal(r.entry[i].seqno, r2.entry[i].seqno);
        assert_int_equal(r.entry[i].metric, r2.entry[i].metric);
        assert_int_equal(r.entry[i].hops, r2.entry[i].hops);
    }
    len = mesh_requests_encode(&q, out);
    assert_true(len <= MESH_MSG_MAX);
    assert_int_equal(mesh_requests_decode(blob_of(out, len), &q2), 0);
    assert_int_equal(q2.count, q.count);
    assert_int_equal(q2.entry[47].seqno, q.entry[47].seqno);
    assert_int_equal(q2.entry[47].kind, q.entry[47].kind);
}

/* --- what is refused --- */

/* Every shortened and every lengthened form of a message. */
static void refuse_other_lengths(const uint8_t *good, size_t len, int (*decode)(struct blob in))
{
    uint8_t longer[MESH_MSG_MAX + 1] = {0};
    memcpy(longer, good, len);
    assert_int_equal(decode(blob_of(longer, len)), 0);
    assert_int_equal(decode(blob_of(longer, len + 1)), -ERR_MALFORMED);
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(decode(blob_of(longer, i)), -ERR_MALFORMED);
    }
}

static int decode_probe(struct blob in)
{
    struct mesh_probe m;
    return mesh_probe_decode(in, &m);
}

static int decode_routes(struct blob in)
{
    struct mesh_routes m;
    return mesh_routes_decode(in, &m);
}

static int decode_ack(struct blob in)
{
    struct mesh_routes_ack m;
    return mesh_routes_ack_decode(in, &m);
}

static int decode_requests(struct blob in)
{
    struct mesh_requests m;
    return mesh_requests_decode(in, &m);
}

static void test_other_lengths_are_malformed(void **state)
{
    (void)state;
    uint8_t out[MESH_MSG_MAX];
    struct mesh_probe p = probe_sample(MESH_PROBE);
    struct mesh_routes r = routes_sample();
    struct mesh_requests q = requests_sample();
    struct mesh_routes_ack a = {.token = 1, .peer_token = 2, .number = 3};
    refuse_other_lengths(out, mesh_probe_encode(&p, out), decode_probe);
    refuse_other_lengths(out, mesh_routes_encode(&r, out), decode_routes);
    refuse_other_lengths(out, mesh_routes_ack_encode(&a, out), decode_ack);
    refuse_other_lengths(out, mesh_requests_encode(&q, out), decode_requests);
}

static void test_bytes_out_of_range_are_malformed(void **state)
{
    (void)state;
    static const struct {
        enum mesh_msg_type type;
        size_t at;
        uint8_t value;
        int rc;
    } rows[] = {
        {MESH_PROBE, 0, MESH_ROUTES, -ERR_MALFORMED},
        {MESH_PROBE, 1, 2, -ERR_UNSUPPORTED},
        {MESH_PROBE, 26, 101, -ERR_MALFORMED}, /* load */
        {MESH_PROBE, 27, 2, -ERR_MALFORMED},   /* flags */
        {MESH_ROUTES, 0, MESH_PROBE, -ERR_MALFORMED},
        {MESH_ROUTES, 1, 0, -ERR_UNSUPPORTED},
        {MESH_ROUTES, 22, 0, -ERR_MALFORMED}, /* count */
        {MESH_ROUTES, 22, 3, -ERR_MALFORMED},
        {MESH_ROUTES, 22, 255, -ERR_MALFORMED},
        {MESH_ROUTES, 47, MESH_HOPS_MAX + 1, -ERR_MALFORMED},
        {MESH_REQUESTS, 18, 0, -ERR_MALFORMED}, /* count */
        {MESH_REQUESTS, 18, 49, -ERR_MALFORMED},
        {MESH_REQUESTS, 39, MESH_HOPS_MAX + 1, -ERR_MALFORMED},
        {MESH_REQUESTS, 40, 0, -ERR_MALFORMED}, /* kind */
        {MESH_REQUESTS, 40, 3, -ERR_MALFORMED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint8_t out[MESH_MSG_MAX];
        struct mesh_probe p = probe_sample(MESH_PROBE);
        struct mesh_routes r = routes_sample();
        struct mesh_requests q = requests_sample();
        bool probe = rows[i].type == MESH_PROBE;
        bool routes = rows[i].type == MESH_ROUTES;
        size_t len = probe    ? mesh_probe_encode(&p, out)
                     : routes ? mesh_routes_encode(&r, out)
                              : mesh_requests_encode(&q, out);
        out[rows[i].at] = rows[i].value;
        struct blob in = blob_of(out, len);
        int rc = probe ? decode_probe(in) : routes ? decode_routes(in) : decode_requests(in);
        assert_int_equal(rc, rows[i].rc);
    }
}

static void test_nil_destination_and_zero_token_are_malformed(void **state)
{
    (void)state;
    uint8_t out[MESH_MSG_MAX];
    struct mesh_routes r = routes_sample();
    r.entry[1].dst = UUID_NIL;
    assert_int_equal(decode_routes(blob_of(out, mesh_routes_encode(&r, out))), -ERR_MALFORMED);
    struct mesh_requests q = requests_sample();
    q.entry[0].dst = UUID_NIL;
    assert_int_equal(decode_requests(blob_of(out, mesh_requests_encode(&q, out))), -ERR_MALFORMED);
    struct mesh_probe p = probe_sample(MESH_PROBE);
    p.token = 0;
    assert_int_equal(decode_probe(blob_of(out, mesh_probe_encode(&p, out))), -ERR_MALFORMED);
}

static void test_seqno_order_wraps(void **state)
{
    (void)state;
    assert_true(mesh_seqno_newer(1, 0));
    assert_true(mesh_seqno_newer(0, UINT32_MAX));
    assert_false(mesh_seqno_newer(UINT32_MAX, 0));
    assert_false(mesh_seqno_newer(5, 5));
    assert_true(mesh_seqno_newer(0x7fffffff, 0));
    assert_false(mesh_seqno_newer(0x80000000, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_of_each_message_are_fixed),
        cmocka_unit_test(test_full_messages_fit_a_datagram_and_come_back),
        cmocka_unit_test(test_other_lengths_are_malformed),
        cmocka_unit_test(test_bytes_out_of_range_are_malformed),
        cmocka_unit_test(test_nil_destination_and_zero_token_are_malformed),
        cmocka_unit_test(test_seqno_order_wraps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
