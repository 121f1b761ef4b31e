/* The overlay packet: golden bytes, round trip, and what decoding refuses. */
#include "fabric/overlay.h"

#include <setjmp.h>
#include <cmocka.h>

static struct uuid id_of(uint8_t first)
{
    struct uuid u;
    for (int i = 0; i < 16; i++) {
        u.b[i] = (uint8_t)(first + i);
    }
    return u;
}

static size_t make(uint8_t *out, const struct overlay_packet *p)
{
    overlay_put_header(p, out);
    memcpy(out + OVERLAY_HEADER_BYTES, p->payload.data, p->payload.len);
    return OVERLAY_HEADER_BYTES + p->payload.len;
}

static const struct overlay_packet *sample(void)
{
    static struct overlay_packet p;
    p = (struct overlay_packet){.class = OVERLAY_BULK,
                                .hops = 8,
                                .path = 3,
                                .sequence = 0x0102030405060708,
                                .to = id_of(0x10),
                                .from = id_of(0x40),
                                .payload = blob_str("quic")};
    return &p;
}

static void test_bytes_are_golden(void **state)
{
    (void)state;
    static const uint8_t golden[] = {0x01, 0x13, 0x08, 0x03, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06,
                                     0x07, 0x08, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
                                     0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x40, 0x41,
                                     0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b,
                                     0x4c, 0x4d, 0x4e, 0x4f, 'q',  'u',  'i',  'c'};
    uint8_t out[64];
    size_t len = make(out, sample());
    assert_int_equal(len, sizeof golden);
    assert_memory_equal(out, golden, sizeof golden);
    struct overlay_packet got;
    assert_int_equal(overlay_decode(blob_of(golden, sizeof golden), &got), 0);
    assert_int_equal(got.class, OVERLAY_BULK);
    assert_int_equal(got.hops, 8);
    assert_int_equal(got.path, 3);
    assert_true(got.sequence == sample()->sequence);
    assert_true(uuid_equal(&got.to, &sample()->to) && uuid_equal(&got.from, &sample()->from));
    assert_true(blob_equal(got.payload, blob_str("quic")));
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    uint8_t out[64];
    struct overlay_packet got;
    (void)make(out, sample());
    for (size_t len = 0; len <= OVERLAY_HEADER_BYTES; len++) {
        assert_int_equal(overlay_decode(blob_of(out, len), &got), -ERR_MALFORMED);
    }
}

static void test_wrong_fields_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        int rc;
    } cases[] = {
        {0, 0x00, -ERR_MALFORMED},   {0, 0x02, -ERR_MALFORMED},   {1, 0x03, -ERR_UNSUPPORTED},
        {1, 0x23, -ERR_UNSUPPORTED}, {1, 0xf3, -ERR_UNSUPPORTED}, {1, 0x15, -ERR_MALFORMED},
        {1, 0x1f, -ERR_MALFORMED},   {2, 0x00, -ERR_MALFORMED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t out[64];
        struct overlay_packet got;
        size_t len = make(out, sample());
        out[cases[i].at] = cases[i].value;
        assert_int_equal(overlay_decode(blob_of(out, len), &got), cases[i].rc);
    }
}

static void test_ids_must_be_two_nodes(void **state)
{
    (void)state;
    uint8_t out[64];
    struct overlay_packet got;
    struct overlay_packet p = *sample();
    p.to = UUID_NIL;
    assert_int_equal(overlay_decode(blob_of(out, make(out, &p)), &got), -ERR_MALFORMED);
    p = *sample();
    p.from = UUID_NIL;
    assert_int_equal(overlay_decode(blob_of(out, make(out, &p)), &got), -ERR_MALFORMED);
    p = *sample();
    p.from = p.to;
    assert_int_equal(overlay_decode(blob_of(out, make(out, &p)), &got), -ERR_MALFORMED);
}

static void test_payload_is_bounded(void **state)
{
    (void)state;
    static uint8_t payload[OVERLAY_PAYLOAD_MAX + 1];
    static uint8_t out[OVERLAY_HEADER_BYTES + sizeof payload];
    struct overlay_packet got;
    struct overlay_packet p = *sample();
    p.payload = blob_of(payload, OVERLAY_PAYLOAD_MAX);
    assert_int_equal(overlay_decode(blob_of(out, make(out, &p)), &got), 0);
    p.payload.len++;
    assert_int_equal(overlay_decode(blob_of(out, make(out, &p)), &got), -ERR_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_are_golden),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_wrong_fields_are_refused),
        cmocka_unit_test(test_ids_must_be_two_nodes),
        cmocka_unit_test(test_payload_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
