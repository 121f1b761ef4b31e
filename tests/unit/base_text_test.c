/* Text codecs, ids, names, checksums and seeded numbers: what has known answers. */
#include "base/text.h"

#include "base/crc32c.h"
#include "base/err.h"
#include "base/id.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_hex(void **state)
{
    (void)state;
    const uint8_t bytes[] = {0x00, 0x7f, 0x80, 0xff};
    char text[9];
    uint8_t back[4] = {1, 2, 3, 4};
    hex_encode(bytes, 4, text);
    assert_string_equal(text, "007f80ff");
    assert_int_equal(hex_decode("007F80fF", back, 4), 0);
    assert_memory_equal(back, bytes, 4);
    static const char *const bad[] = {"",         "007f80f",  "007f80fff", "007f80fg",
                                      " 07f80ff", "0x7f80ff", "007f80f\n"};
    memset(back, 9, sizeof back);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(hex_decode(bad[i], back, 4), -ERR_INVALID);
        assert_int_equal(back[0], 9);
    }
    assert_int_equal(hex_decode("", back, 0), 0);
}

/* RFC 4648 section 10, without padding, and the two characters that differ from plain base64. */
static void test_base64url_known_answers(void **state)
{
    (void)state;
    static const struct {
        const char *plain, *coded;
    } cases[] = {
        {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},          {"foo", "Zm9v"},
        {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}, {"\xfb\xff\xfe", "-__-"}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct buf out;
        buf_init(&out, 64);
        b64url_encode(blob_str(cases[i].plain), &out);
        assert_string_equal(buf_cstr(&out), cases[i].coded);
        buf_clear(&out);
        assert_int_equal(b64url_decode(cases[i].coded, strlen(cases[i].coded), &out), 0);
        assert_string_equal(buf_cstr(&out), cases[i].plain);
        buf_fini(&out);
    }
}

static void test_base64url_has_one_spelling(void **state)
{
    (void)state;
    static const char *const bad[] = {"A",  "AAAAA", "Zg==", "Zg=",  "Zh",    "Zm9",     "Z g",
                                      "+A", "/A",    "AA\n", "\nAA", "Zm9v*", "\xc3\xa9"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct buf out;
        buf_init(&out, 64);
        assert_int_equal(b64url_decode(bad[i], strlen(bad[i]), &out), -ERR_INVALID);
        assert_int_equal(out.len, 0);
        buf_fini(&out);
    }
    struct buf out;
    buf_init(&out, 64);
    assert_int_equal(b64url_decode("A\0AA", 4, &out), -ERR_INVALID);
    buf_fini(&out);
    buf_init(&out, 2);
    assert_int_equal(b64url_decode("Zm9v", 4, &out), -ERR_TOO_LARGE);
    buf_fini(&out);
}

static void test_base64url_round_trip(void **state)
{
    (void)state;
    struct prng p;
    prng_seed(&p, 1);
    for (size_t n = 0; n < 100; n++) {
        uint8_t bytes[100];
        struct buf text;
        struct buf back;
        prng_bytes(&p, bytes, n);
        buf_init(&text, 200);
        buf_init(&back, 100);
        b64url_encode(blob_of(bytes, n), &text);
        assert_int_equal(text.len, (n * 8 + 5) / 6);
        assert_int_equal(b64url_decode((const char *)text.data, text.len, &back), 0);
        assert_true(blob_equal(buf_blob(&back), blob_of(bytes, n)));
        buf_fini(&text);
        buf_fini(&back);
    }
}

static void test_clean_text(void **state)
{
    (void)state;
    static const char *const clean[] = {"",
                                        "plain",
                                        "\xc3\xa9",
                                        "\xe2\x82\xac",
                                        "\xf0\x9f\x94\x91",
                                        "\xc2\xa0",
                                        "\xed\x9f\xbf",
                                        "\xee\x80\x80",
                                        "\xf4\x8f\xbf\xbf",
                                        "\xe0\xa0\x80",
                                        "\xf0\x90\x80\x80"};
    static const char *const dirty[] = {
        "\x01",
        "a\x1f",
        "\n",
        "\x7f",
        "\xc2\x80",
        "\xc2\x9f", /* controls */
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xe0\x9f\xbf",
        "\xf0\x8f\xbf\xbf", /* overlong */
        "\xed\xa0\x80",
        "\xed\xbf\xbf", /* surrogates */
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff", /* beyond */
        "\xc3",
        "\xe2\x82",
        "\xf0\x9f\x94",
        "\xc3(",
        "\xe2\x28\xac",
        "\xe2\x82(", /* cut, broken */
    };
    for (size_t i = 0; i < ARRAY_SIZE(clean); i++) {
        assert_true(text_is_clean(clean[i], strlen(clean[i])));
    }
    for (size_t i = 0; i < ARRAY_SIZE(dirty); i++) {
        if (text_is_clean(dirty[i], strlen(dirty[i]))) {
            fail_msg("case %zu is called clean", i);
        }
    }
    assert_false(text_is_clean("a\0b", 3));
}

static void test_names(void **state)
{
    (void)state;
    static const char longest[] = "a23456789-123456789-123456789-123456789-123456789-123456789-123";
    assert_int_equal(strlen(longest), 63);
    static const char *const good[] = {"a", "0", "relay-1", "a--b", longest};
    static const char *const bad[] = {"",    "-a",  "a-",  "-",        "A",
                                      "a_b", "a.b", "a b", "\xc3\xa9", "*"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_true(text_is_name(good[i], strlen(good[i])));
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_false(text_is_name(bad[i], strlen(bad[i])));
    }
    assert_false(
        text_is_name("a23456789-123456789-123456789-123456789-123456789-123456789-1234", 64));
    assert_false(text_is_name("a\0b", 3));
}

/* RFC 9562 appendix A.6. */
static void test_uuid_known_answer(void **state)
{
    (void)state;
    const uint8_t random[10] = {0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f};
    struct uuid u = uuid_make(0x017f22e279b0, random);
    char text[UUID_TEXT_MAX];
    uuid_format(&u, text);
    assert_string_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    struct uuid back;
    assert_int_equal(uuid_parse(text, &back), 0);
    assert_true(uuid_equal(&u, &back));
    assert_false(uuid_is_nil(&u));
    assert_true(uuid_is_nil(&UUID_NIL));
}

static void test_uuids_sort_by_time_and_differ(void **state)
{
    (void)state;
    const uint8_t high[10] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const uint8_t low[10] = {0};
    struct uuid a = uuid_make(1000, high);
    struct uuid b = uuid_make(1001, low);
    assert_true(memcmp(a.b, b.b, 16) < 0);
    struct uuid c = uuid_new();
    struct uuid d = uuid_new();
    assert_false(uuid_equal(&c, &d));
    assert_int_equal(c.b[6] >> 4, 7);
    assert_int_equal(c.b[8] >> 6, 2);
}

static void test_uuid_parse_is_strict(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398ff",
        "017F22E2-79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e279b07cc398c4dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4_dc0c0c07398f",
        "017f22e-279b0-7cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
        "017f22e2-79b0-7cc3--8c4-dc0c0c07398f",
        "{17f22e2-79b0-7cc3-98c4-dc0c0c07398}",
    };
    struct uuid u = {.b = {5}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(uuid_parse(bad[i], &u), -ERR_INVALID);
        assert_int_equal(u.b[0], 5);
    }
}

/* RFC 3720 appendix B.4. */
static void test_crc32c_known_answers(void **state)
{
    (void)state;
    uint8_t b[32];
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(0, NULL, 0), 0);
    memset(b, 0, sizeof b);
    assert_int_equal(crc32c(0, b, sizeof b), 0x8a9136aa);
    memset(b, 0xff, sizeof b);
    assert_int_equal(crc32c(0, b, sizeof b), 0x62a8ab43);
    for (size_t i = 0; i < sizeof b; i++) {
        b[i] = (uint8_t)i;
    }
    assert_int_equal(crc32c(0, b, sizeof b), 0x46dd794e);
    for (size_t cut = 0; cut <= sizeof b; cut++) {
        assert_int_equal(crc32c(crc32c(0, b, cut), b + cut, sizeof b - cut), 0x46dd794e);
    }
}

/* The published sequence of SplitMix64 for this seed. */
static void test_seeded_numbers_known_answers(void **state)
{
    (void)state;
    static const uint64_t want[] = {6457827717110365317u, 3203168211198807973u,
                                    9817491932198370423u, 4593380528125082431u,
                                    16408922859458223821u};
    struct prng p;
    prng_seed(&p, 1234567);
    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        assert_true(prng_u64(&p) == want[i]);
    }
}

static void test_seeded_numbers_stay_below(void **state)
{
    (void)state;
    struct prng p;
    unsigned seen[7] = {0};
    prng_seed(&p, 3);
    for (int i = 0; i < 7000; i++) {
        seen[prng_below(&p, 7)]++;
    }
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
        assert_in_range(seen[i], 800, 1200);
    }
    for (int i = 0; i < 100; i++) {
        assert_int_equal(prng_below(&p, 1), 0);
        assert_true(prng_below(&p, UINT64_MAX) < UINT64_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_base64url_known_answers),
        cmocka_unit_test(test_base64url_has_one_spelling),
        cmocka_unit_test(test_base64url_round_trip),
        cmocka_unit_test(test_clean_text),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_uuid_known_answer),
        cmocka_unit_test(test_uuids_sort_by_time_and_differ),
        cmocka_unit_test(test_uuid_parse_is_strict),
        cmocka_unit_test(test_crc32c_known_answers),
        cmocka_unit_test(test_seeded_numbers_known_answers),
        cmocka_unit_test(test_seeded_numbers_stay_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
