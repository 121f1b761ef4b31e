#include "base/addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct addr must_parse(const char *text)
{
    struct addr a;
    struct errmsg em = ERRMSG_INIT;
    if (addr_parse(text, &a, &em) != 0) {
        fail_msg("%s: %s", text, em.text);
    }
    return a;
}

static void test_addresses_round_trip(void **state)
{
    (void)state;
    static const char *const texts[] = {"10.0.0.1:7400", "0.0.0.0:0", "255.255.255.255:65535",
                                        "[::1]:7400",    "[::]:1",    "[fd00::1:2]:65535"};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        char text[ADDR_TEXT_MAX];
        struct addr a = must_parse(texts[i]);
        addr_format(&a, text);
        assert_string_equal(text, texts[i]);
    }
}

static void test_other_texts_are_no_addresses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        ":",
        "10.0.0.1",
        "10.0.0.1:",
        ":7400",
        "::1",
        "::1:7400",
        "[::1]",
        "[::1]:",
        "[::1:7400",
        "::1]:7400",
        "10.0.0.1:65536",
        "10.0.0.1:123456",
        "10.0.0.1:-1",
        "10.0.0.1:+1",
        "10.0.0.1: 1",
        "10.0.0.1:1x",
        "10.0.0.1:http",
        "localhost:1",
        "node.example:1",
        "10.0.0:1x",
        "[::g]:1",
        "[10.0.0.1:1",
        "10.0.0.1 :1",
        "256.0.0.1:1",
        "[]:1",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct addr a = {.len = 77};
        struct errmsg em = ERRMSG_INIT;
        if (addr_parse(bad[i], &a, &em) != -ERR_INVALID) {
            fail_msg("\"%s\" is taken as an address", bad[i]);
        }
        assert_int_equal(a.len, 77);
        assert_true(em.text[0] != '\0');
    }
    char large[400];
    memset(large, 'a', sizeof large - 3);
    memcpy(large + sizeof large - 3, ":1", 3);
    struct addr a;
    assert_int_equal(addr_parse(large, &a, NULL), -ERR_INVALID);
    assert_int_equal(addr_resolve(large, &a, NULL), -ERR_INVALID);
}

static void test_numeric_hosts_resolve_without_asking_anybody(void **state)
{
    (void)state;
    struct addr a;
    struct addr b = must_parse("127.0.0.1:7400");
    assert_int_equal(addr_resolve("127.0.0.1:7400", &a, NULL), 0);
    assert_true(addr_equal(&a, &b));
}

static void test_equal(void **state)
{
    (void)state;
    static const char *const texts[] = {"10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1",
                                        "[::1]:1",    "[::1]:2",    "[::2]:1"};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(texts); k++) {
            struct addr a = must_parse(texts[i]);
            struct addr b = must_parse(texts[k]);
            assert_int_equal(addr_equal(&a, &b), i == k);
        }
    }
    const struct addr none = {.len = 0};
    struct addr a = must_parse("10.0.0.1:1");
    assert_false(addr_equal(&none, &none));
    assert_false(addr_equal(&none, &a));
    char text[ADDR_TEXT_MAX];
    addr_format(&none, text);
    assert_string_equal(text, "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_round_trip),
        cmocka_unit_test(test_other_texts_are_no_addresses),
        cmocka_unit_test(test_numeric_hosts_resolve_without_asking_anybody),
        cmocka_unit_test(test_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
