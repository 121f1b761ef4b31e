#include "wire/token.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct join_token sample(const char *addresses)
{
    struct join_token t = {.cluster_id = {.b = {1, 2, 3}}};
    memset(t.root_fingerprint, 0xaa, sizeof t.root_fingerprint);
    memset(t.secret, 0xbb, sizeof t.secret);
    (void)snprintf(t.addresses, sizeof t.addresses, "%s", addresses);
    return t;
}

static void assert_round_trip(const struct join_token *t)
{
    struct buf text;
    struct join_token got;
    buf_init(&text, TOKEN_TEXT_MAX);
    token_format(t, &text);
    assert_int_equal(text.err, 0);
    assert_int_equal(token_parse((const char *)text.data, text.len, &got, NULL), 0);
    assert_memory_equal(got.cluster_id.b, t->cluster_id.b, 16);
    assert_memory_equal(got.root_fingerprint, t->root_fingerprint, 32);
    assert_memory_equal(got.secret, t->secret, 32);
    assert_string_equal(got.addresses, t->addresses);
    buf_fini(&text);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char *const addresses[] = {"10.0.0.1:7400", "a:1,[::1]:2,host.example:65535", "x"};
    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
        struct join_token t = sample(addresses[i]);
        assert_round_trip(&t);
    }
}

static void test_longest_addresses_fit(void **state)
{
    (void)state;
    struct join_token t = sample("");
    memset(t.addresses, 'a', TOKEN_ADDRESSES_MAX);
    t.addresses[TOKEN_ADDRESSES_MAX] = '\0';
    assert_round_trip(&t);
}

static void test_white_space_around_is_ignored(void **state)
{
    (void)state;
    struct join_token t = sample("h:1");
    struct join_token got;
    struct buf text;
    buf_init(&text, TOKEN_TEXT_MAX);
    buf_add_str(&text, " \t\n");
    token_format(&t, &text);
    buf_add_str(&text, " \r\n");
    assert_int_equal(token_parse((const char *)text.data, text.len, &got, NULL), 0);
    assert_string_equal(got.addresses, "h:1");
    buf_fini(&text);
}

static int parse_raw(struct blob raw, struct join_token *got, struct errmsg *em)
{
    struct buf text;
    buf_init(&text, 8192);
    buf_add_str(&text, TOKEN_PREFIX);
    b64url_encode(raw, &text);
    int rc = token_parse((const char *)text.data, text.len, got, em);
    buf_fini(&text);
    return rc;
}

static void test_damaged_token_is_malformed(void **state)
{
    (void)state;
    struct join_token t = sample("10.0.0.1:7400");
    struct join_token got;
    struct buf text;
    struct errmsg em = ERRMSG_INIT;
    buf_init(&text, TOKEN_TEXT_MAX);
    token_format(&t, &text);
    /* Cut anywhere up to the first address byte. */
    for (size_t n = 0; n <= strlen(TOKEN_PREFIX) + 80 * 4 / 3; n++) {
        assert_int_equal(token_parse((const char *)text.data, n, &got, &em), -ERR_MALFORMED);
    }
    static const char *const bad[] = {"",           "   ",  "rapj1_",     "rapj2_AAAA",
                                      "RAPJ1_AAAA", "AAAA", "rapj1_====", "rapj1_A A"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(token_parse(bad[i], strlen(bad[i]), &got, &em), -ERR_MALFORMED);
        assert_true(em.text[0] != '\0');
    }
    /* A character in the middle that is not of the alphabet. */
    for (size_t i = strlen(TOKEN_PREFIX); i < text.len; i += 7) {
        uint8_t old = text.data[i];
        text.data[i] = '+';
        assert_int_equal(token_parse((const char *)text.data, text.len, &got, &em), -ERR_MALFORMED);
        /* What was pasted is a secret, damaged or not. */
        assert_null(strstr(em.text, "rapj1_A"));
        text.data[i] = old;
    }
    buf_fini(&text);
}

static void test_addresses_are_clean_and_bounded(void **state)
{
    (void)state;
    uint8_t raw[80 + TOKEN_ADDRESSES_MAX + 1];
    struct join_token got;
    memset(raw, 'a', sizeof raw);
    assert_int_equal(parse_raw(blob_of(raw, 80), &got, NULL), -ERR_MALFORMED); /* none */
    assert_int_equal(parse_raw(blob_of(raw, 81), &got, NULL), 0);
    assert_int_equal(parse_raw(blob_of(raw, sizeof raw - 1), &got, NULL), 0);
    assert_int_equal(parse_raw(blob_of(raw, sizeof raw), &got, NULL), -ERR_MALFORMED);
    static const uint8_t bad[] = {0x00, 0x0a, 0x1b, 0x7f, 0x80, 0xff};
    for (size_t i = 0; i < sizeof bad; i++) {
        raw[85] = bad[i];
        assert_int_equal(parse_raw(blob_of(raw, 100), &got, NULL), -ERR_MALFORMED);
    }
}

/* The authority set that a joining host is to believe. */
static void test_pin_goes_along(void **state)
{
    static const char hash[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    static const struct {
        const char *before;
        bool hash;
        const char *after;
    } bad[] = {
        {"a:1,#", false, ""},
        {"a:1,#1", false, ""},
        {"a:1,#1.", false, ""},
        {"a:1,#1.2", false, ""},
        {"a:1,#1.2.", false, ""},
        {"a:1,#0.2.", true, ""},
        {"a:1,#1.0.", true, ""},
        {"a:1,#1.-2.", true, ""},
        {"a:1,#1.2.", true, "0"},
        {"a:1,# 1.2.", true, ""},
        {"a:1,#1.99999999999999999999.", true, ""},
    };
    (void)state;
    struct join_token t = sample("a:1,b:2");
    struct join_token got;
    struct buf text;
    t.pin = (struct set_pin){.epoch = 3, .seq = 7, .hash = {0xab}};
    buf_init(&text, TOKEN_TEXT_MAX);
    token_format(&t, &text);
    assert_int_equal(token_parse((const char *)text.data, text.len, &got, NULL), 0);
    assert_string_equal(got.addresses, "a:1,b:2");
    assert_int_equal(got.pin.epoch, 3);
    assert_int_equal(got.pin.seq, 7);
    assert_memory_equal(got.pin.hash, t.pin.hash, 32);
    buf_fini(&text);
    memset(t.addresses, 'a', TOKEN_ADDRESSES_MAX); /* the longest, with one */
    t.addresses[TOKEN_ADDRESSES_MAX] = '\0';
    assert_round_trip(&t);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint8_t raw[300] = {1};
        int n = snprintf((char *)raw + 80, sizeof raw - 80, "%s%s%s", bad[i].before,
                         bad[i].hash ? hash : "", bad[i].after);
        assert_int_equal(parse_raw(blob_of(raw, 80 + (size_t)n), &got, NULL), -ERR_MALFORMED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_longest_addresses_fit),
        cmocka_unit_test(test_white_space_around_is_ignored),
        cmocka_unit_test(test_damaged_token_is_malformed),
        cmocka_unit_test(test_addresses_are_clean_and_bounded),
        cmocka_unit_test(test_pin_goes_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
