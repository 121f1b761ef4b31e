#include "base/buf.h"

#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_pieces_join(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    assert_string_equal(buf_cstr(&b), "");
    buf_add(&b, "ab\0c", 4);
    buf_add(&b, NULL, 0);
    buf_add_str(&b, "de");
    buf_addf(&b, "%d-%s", 42, "x");
    assert_int_equal(b.len, 10);
    assert_memory_equal(b.data, "ab\0cde42-x", 10);
    assert_string_equal(buf_cstr(&b) + 3, "cde42-x");
    buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_string_equal(buf_cstr(&b), "");
    buf_fini(&b);
    buf_fini(&b);
    buf_fini(NULL);
}

static void test_maximum_is_exact(void **state)
{
    (void)state;
    for (size_t max = 0; max < 200; max++) {
        struct buf b;
        buf_init(&b, max);
        for (size_t i = 0; i < max; i++) {
            buf_add(&b, "x", 1);
        }
        assert_int_equal(b.err, 0);
        assert_int_equal(b.len, max);
        assert_int_equal(strlen(buf_cstr(&b)), max);
        buf_add(&b, "y", 1);
        assert_int_equal(b.err, -ERR_TOO_LARGE);
        assert_int_equal(b.len, max);
        buf_fini(&b);
    }
}

/* A run of appends is checked once: after the first that did not fit nothing else is taken, or the
 * content would have a hole. */
static void test_error_sticks_until_cleared(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 4);
    buf_add_str(&b, "abc");
    buf_add_str(&b, "too long");
    buf_add_str(&b, "d");
    buf_addf(&b, "e");
    assert_null(buf_grow(&b, 0));
    assert_int_equal(b.err, -ERR_TOO_LARGE);
    assert_int_equal(b.len, 3);
    buf_clear(&b);
    buf_add_str(&b, "abcd");
    assert_int_equal(b.err, 0);
    buf_fini(&b);
    assert_int_equal(b.max, 4);
    buf_addf(&b, "%s", "12345");
    assert_int_equal(b.err, -ERR_TOO_LARGE);
    buf_fini(&b);
    buf_add_str(&b, "1234");
    assert_int_equal(b.err, 0);
    buf_fini(&b);
}

static void test_huge_request_does_not_wrap(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    buf_add_str(&b, "abc");
    assert_null(buf_grow(&b, SIZE_MAX));
    assert_int_equal(b.err, -ERR_TOO_LARGE);
    buf_clear(&b);
    assert_null(buf_grow(&b, SIZE_MAX - 2));
    buf_fini(&b);
}

static void test_grow_gives_room(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1u << 20);
    for (size_t i = 0; i < 1000; i++) {
        uint8_t *p = buf_grow(&b, 1000);
        assert_non_null(p);
        memset(p, (int)(i & 0xff), 1000);
    }
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(b.data[i * 1000 + 999], i & 0xff);
    }
    buf_wipe(&b);
    assert_null(b.data);
    buf_wipe(&b);
}

static void test_integers_are_decimal(void **state)
{
    (void)state;
    static const int64_t values[] = {0, 7, -7, 1784, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        struct buf a;
        struct buf b;
        buf_init(&a, 100);
        buf_init(&b, 100);
        buf_add_int(&a, values[i]);
        buf_addf(&b, "%lld", (long long)values[i]);
        assert_string_equal(buf_cstr(&a), buf_cstr(&b));
        buf_fini(&a);
        buf_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_join),
        cmocka_unit_test(test_maximum_is_exact),
        cmocka_unit_test(test_error_sticks_until_cleared),
        cmocka_unit_test(test_huge_request_does_not_wrap),
        cmocka_unit_test(test_grow_gives_room),
        cmocka_unit_test(test_integers_are_decimal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
