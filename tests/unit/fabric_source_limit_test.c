/* Token buckets per source: what is allowed, what a failure costs, and that the table stays small. */
#include "fabric/source_limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define RATE 10
#define BURST (RATE * SOURCE_BURST_SECONDS)

static struct source_limit *limit_new(uint32_t sources_max)
{
    return source_limit_new(&(struct source_limit_config){.per_second = RATE,
                                                          .sessions_max = 4,
                                                          .half_open_max = 2,
                                                          .sources_max = sources_max,
                                                          .key = {{1, 2}}});
}

static struct addr at(const char *text)
{
    struct addr a;
    assert_int_equal(addr_parse(text, &a, NULL), 0);
    return a;
}

static void test_a_burst_is_allowed_and_then_the_rate(void **state)
{
    (void)state;
    struct source_limit *t = limit_new(8);
    struct addr a = at("192.0.2.1:1000");
    for (int i = 0; i < BURST; i++) {
        assert_int_equal(source_limit_wait_ms(t, &a, 5), 0);
        source_limit_charge(t, &a, 1, 5);
    }
    /* The hint is when the next attempt is paid for, to the millisecond. */
    assert_int_equal(source_limit_wait_ms(t, &a, 5), 1000 / RATE);
    assert_int_equal(source_limit_wait_ms(t, &a, 5 + 1000 / RATE - 1), 1);
    assert_int_equal(source_limit_wait_ms(t, &a, 5 + 1000 / RATE), 0);
    source_limit_free(t);
}

static void test_failures_cost_many_attempts_and_the_debt_is_bounded(void **state)
{
    (void)state;
    struct source_limit *t = limit_new(8);
    struct addr a = at("192.0.2.1:1000");
    int failures = 0;
    while (source_limit_wait_ms(t, &a, 0) == 0) {
        source_limit_charge(t, &a, SOURCE_FAILURE_COST, 0);
        failures++;
    }
    assert_int_equal(failures, BURST / SOURCE_FAILURE_COST);
    for (int i = 0; i < 10000; i++) {
        source_limit_charge(t, &a, SOURCE_FAILURE_COST, 0);
    }
    uint32_t wait_ms = source_limit_wait_ms(t, &a, 0);
    assert_in_range(wait_ms, SOURCE_BURST_SECONDS * 1000, SOURCE_BURST_SECONDS * 1000 + 1000);
    assert_int_equal(source_limit_wait_ms(t, &a, wait_ms), 0);
    source_limit_free(t);
}

static void test_a_full_balance_does_not_grow(void **state)
{
    (void)state;
    struct source_limit *t = limit_new(8);
    struct addr a = at("192.0.2.1:1000");
    source_limit_charge(t, &a, 1, 0);
    uint64_t late = UINT64_MAX / 2; /* no overflow either */
    for (int i = 0; i < BURST; i++) {
        assert_int_equal(source_limit_wait_ms(t, &a, late), 0);
        source_limit_charge(t, &a, 1, late);
    }
    assert_int_not_equal(source_limit_wait_ms(t, &a, late), 0);
    /* A clock that steps back refills nothing and takes nothing. */
    assert_int_equal(source_limit_wait_ms(t, &a, 0), 1000 / RATE);
    source_limit_free(t);
}

static void test_a_source_is_an_ipv4_address_or_an_ipv6_64(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } rows[] = {
        {"192.0.2.1:1000", "192.0.2.1:2000", true},
        {"192.0.2.1:1000", "192.0.2.2:1000", false},
        {"192.0.2.1:1000", "[::ffff:192.0.2.1]:1000", true},
        {"[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:1", false},
        {"[2001:db8:0:1::1]:1", "[2001:db8:0:1:ffff::9]:7", true},
        {"[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", false},
        {"[::1]:1", "192.0.2.1:1", false},
        {"[::1]:1", "[::ffff:192.0.2.1]:1", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct source_limit *t = limit_new(8);
        struct addr a = at(rows[i].a);
        struct addr b = at(rows[i].b);
        source_limit_charge(t, &a, BURST, 0);
        assert_int_not_equal(source_limit_wait_ms(t, &a, 0), 0);
        assert_int_equal(source_limit_wait_ms(t, &b, 0) != 0, rows[i].same);
        source_limit_free(t);
    }
}

static void test_sessions_at_once_are_bounded(void **state)
{
    (void)state;
    struct source_limit *t = limit_new(8);
    struct addr a = at("192.0.2.1:1000");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(source_limit_wait_ms(t, &a, 0), 0);
        source_limit_enter(t, &a, 0);
    }
    assert_int_not_equal(source_limit_wait_ms(t, &a, 0), 0);
    source_limit_leave(t, &a, 0);
    assert_int_equal(source_limit_wait_ms(t, &a, 0), 0);
    source_limit_free(t);
}

static void test_unfinished_handshakes_are_bounded(void **state)
{
    (void)state;
    struct source_limit *t = limit_new(1);
    struct addr a = at("192.0.2.1:1000");
    struct addr b = at("192.0.2.2:1000");
    assert_true(source_limit_open(t, &a, 0));
    assert_true(source_limit_open(t, &a, 0));
    assert_false(source_limit_open(t, &a, 0));
    assert_true(source_limit_open(t, &b, 0));
    /* Handshakes are no attempts to enrol. */
    assert_int_equal(source_limit_wait_ms(t, &a, 0), 0);
    source_limit_opened(t, &a, 0);
    assert_true(source_limit_open(t, &a, 0));
    for (int i = 0; i < 2; i++) {
        source_limit_opened(t, &a, 0);
    }
    source_limit_opened(t, &b, 0);
    assert_int_equal(source_limit_count(t), 1);
    source_limit_free(t);
}

static void test_a_flood_of_addresses_does_not_grow_the_table(void **state)
{
    (void)state;
    struct source_limit *t = limit_new(16);
    struct addr busy = at("192.0.2.1:1");
    struct addr recent = at("192.0.2.2:1");
    source_limit_enter(t, &busy, 0);
    source_limit_charge(t, &busy, BURST, 0);
    for (unsigned i = 0; i < 10000; i++) {
        char text[ADDR_TEXT_MAX];
        (void)snprintf(text, sizeof text, "[2001:db8:%x:%x::1]:1", i >> 8, i & 0xff);
        struct addr a = at(text);
        source_limit_charge(t, &a, BURST, 0);
        source_limit_charge(t, &recent, BURST, 0);
        assert_true(source_limit_count(t) <= 17);
    }
    /* Who is here, or was just here, is not forgotten for those who came by once. */
    assert_int_not_equal(source_limit_wait_ms(t, &busy, 0), 0);
    assert_int_not_equal(source_limit_wait_ms(t, &recent, 0), 0);
    source_limit_leave(t, &busy, 0);
    assert_true(source_limit_count(t) <= 16);
    source_limit_free(t);
}

static void test_members_are_known_for_a_while(void **state)
{
    (void)state;
    struct source_limit *t = limit_new(8);
    struct addr a = at("192.0.2.1:1");
    assert_false(source_limit_has_members(t, &a, 10));
    source_limit_member(t, &a, 10);
    assert_true(source_limit_has_members(t, &a, 10 + SOURCE_KNOWN_MS - 1));
    assert_false(source_limit_has_members(t, &a, 10 + SOURCE_KNOWN_MS));
    source_limit_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_burst_is_allowed_and_then_the_rate),
        cmocka_unit_test(test_failures_cost_many_attempts_and_the_debt_is_bounded),
        cmocka_unit_test(test_a_full_balance_does_not_grow),
        cmocka_unit_test(test_a_source_is_an_ipv4_address_or_an_ipv6_64),
        cmocka_unit_test(test_sessions_at_once_are_bounded),
        cmocka_unit_test(test_unfinished_handshakes_are_bounded),
        cmocka_unit_test(test_a_flood_of_addresses_does_not_grow_the_table),
        cmocka_unit_test(test_members_are_known_for_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
