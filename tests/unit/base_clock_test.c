#include "base/clock.h"

#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_times_round_trip(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1, "1970-01-01T00:00:00.001Z"},
        {951782400999, "2000-02-29T00:00:00.999Z"},
        {1769860800123, "2026-01-31T12:00:00.123Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[CLOCK_TEXT_MAX];
        int64_t back = -1;
        clock_format(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
        assert_int_equal(clock_parse(text, &back), 0);
        assert_true(back == cases[i].ms);
    }
}

static void test_times_out_of_range_are_clamped(void **state)
{
    (void)state;
    char text[CLOCK_TEXT_MAX];
    clock_format(-1, text);
    assert_string_equal(text, "1970-01-01T00:00:00.000Z");
    clock_format(INT64_MIN, text);
    assert_string_equal(text, "1970-01-01T00:00:00.000Z");
    clock_format(253402300800000, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999Z");
    clock_format(INT64_MAX, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999Z");
}

static void test_fraction_is_optional_and_cut_to_milliseconds(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {{"1970-01-01T00:00:01Z", 1000},
                 {"1970-01-01T00:00:01.5Z", 1500},
                 {"1970-01-01T00:00:01.05Z", 1050},
                 {"1970-01-01T00:00:01.0009Z", 1000},
                 {"1970-01-01T00:00:01.123456789Z", 1123}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int64_t ms = -1;
        assert_int_equal(clock_parse(cases[i].text, &ms), 0);
        assert_true(ms == cases[i].ms);
    }
}

static void test_other_texts_are_no_times(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00:00Z",
        " 2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z ",
        "2026-1-31T12:00:00Z",
        "2026-01- 1T12:00:00Z",
        "26-01-31T12:00:00Z",
        "12026-01-31T12:00:00Z",
        "+026-01-31T12:00:00Z",
        "2026-02-29T12:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-13-01T12:00:00Z",
        "2026-00-01T12:00:00Z",
        "2026-01-00T12:00:00Z",
        "2026-01-32T12:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:60:00Z",
        "2026-01-31T12:00:60Z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00.1234567890Z",
        "2026-01-31T12:00:00,1Z",
        "2026-01-31T12:00:00+00:00",
        "2026-01-31T12:00:00z",
        "1969-12-31T23:59:59Z",
        "2026-01-31T12:00:0",
    };
    int64_t ms = 77;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (clock_parse(bad[i], &ms) != -ERR_INVALID) {
            fail_msg("\"%s\" is taken as a time", bad[i]);
        }
    }
    assert_int_equal(ms, 77);
}

static void test_durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"0s", 0},
                {"250ms", 250},
                {"30s", 30000},
                {"15m", 900000},
                {"1h", 3600000},
                {"7d", 604800000},
                {"9223372036854775807ms", INT64_MAX}};
    static const char *const bad[] = {"",
                                      "5",
                                      "s",
                                      "-1s",
                                      "+1s",
                                      " 1s",
                                      "1 s",
                                      "1s ",
                                      "1.5s",
                                      "1S",
                                      "1w",
                                      "1h30m",
                                      "0x1s",
                                      "106751991168d",
                                      "9223372036854775808ms",
                                      "99999999999999999999s"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        int64_t ms = -1;
        assert_int_equal(clock_parse_duration(good[i].text, &ms), 0);
        assert_true(ms == good[i].ms);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        int64_t ms = 77;
        if (clock_parse_duration(bad[i], &ms) != -ERR_INVALID || ms != 77) {
            fail_msg("\"%s\" is taken as a duration", bad[i]);
        }
    }
}

static void test_monotonic_clock_does_not_go_back(void **state)
{
    (void)state;
    uint64_t last = clock_mono_ns();
    for (int i = 0; i < 1000; i++) {
        uint64_t now = clock_mono_ns();
        assert_true(now >= last);
        last = now;
    }
    assert_true(clock_wall_ms() > 1700000000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times_round_trip),
        cmocka_unit_test(test_times_out_of_range_are_clamped),
        cmocka_unit_test(test_fraction_is_optional_and_cut_to_milliseconds),
        cmocka_unit_test(test_other_texts_are_no_times),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_monotonic_clock_does_not_go_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
