/* Refusals on their way to the audit: told at once, then together; bounded whatever comes. */
#include "authority/refusals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NOW 1800000000000LL

static struct refusal join_from(const char *source, int rc)
{
    struct refusal r = {.what = REFUSAL_JOIN, .rc = rc};
    (void)snprintf(r.source, sizeof r.source, "%s", source);
    return r;
}

static unsigned rows(struct refusals *t, int64_t now_ms)
{
    struct refusal r;
    unsigned n = 0;
    while (refusals_due(t, now_ms, &r)) {
        n++;
    }
    return n;
}

static void test_the_first_is_told_at_once_and_the_rest_together(void **state)
{
    (void)state;
    struct refusals t = {.notes = 0};
    struct refusal got;
    struct refusal a = join_from("192.0.2.1:1000", -ERR_TOKEN_UNKNOWN);
    refusals_note(&t, &a, NOW);
    assert_true(refusals_due(&t, NOW, &got));
    assert_int_equal(got.count, 1);
    assert_int_equal(got.since_ms, NOW);
    for (int i = 0; i < 500; i++) {
        /* Another port, name and key do not make it another party. */
        (void)snprintf(a.source, sizeof a.source, "192.0.2.1:%d", 2000 + i);
        (void)snprintf(a.subject, sizeof a.subject, "n%d", i);
        a.fingerprint[0] = (uint8_t)i;
        refusals_note(&t, &a, NOW + 10);
    }
    assert_false(refusals_due(&t, NOW + REFUSALS_QUIET_MS - 1, &got));
    assert_true(refusals_due(&t, NOW + REFUSALS_QUIET_MS, &got));
    assert_int_equal(got.count, 500);
    assert_int_equal(got.since_ms, NOW + 10);
    assert_false(refusals_due(&t, NOW + 2 * REFUSALS_QUIET_MS, &got));
}

static void test_parties_and_reasons_are_told_apart(void **state)
{
    (void)state;
    struct refusals t = {.notes = 0};
    struct refusal a = join_from("192.0.2.1:1", -ERR_TOKEN_UNKNOWN);
    struct refusal b = join_from("192.0.2.2:1", -ERR_TOKEN_UNKNOWN);
    struct refusal c = join_from("192.0.2.1:1", -ERR_BAD_CSR);
    struct refusal d = join_from("192.0.2.1:1", -ERR_TOKEN_USED);
    struct refusal e = d;
    d.has_token = e.has_token = true;
    e.token_hash[0] = 1;
    struct refusal f = {.what = REFUSAL_SERVICE, .rc = -ERR_NOT_AUTHORITY, .subject = "op"};
    struct refusal g = {.what = REFUSAL_SERVICE, .rc = -ERR_NOT_AUTHORITY, .subject = "raft"};
    struct refusal h = g;
    h.node_id.b[0] = 1;
    struct refusal i = {.what = REFUSAL_HANDSHAKE, .rc = -ERR_REVOKED};
    struct refusal j = {.what = REFUSAL_COMMAND, .rc = -ERR_DECIDED, .actor_id = "uid:0"};
    struct refusal k = {.what = REFUSAL_COMMAND, .rc = -ERR_DECIDED, .actor_id = "uid:1"};
    const struct refusal *all[] = {&a, &b, &c, &d, &e, &f, &g, &h, &i, &j, &k};
    for (int round = 0; round < 2; round++) {
        for (size_t n = 0; n < ARRAY_SIZE(all); n++) {
            refusals_note(&t, all[n], NOW);
        }
    }
    assert_int_equal(rows(&t, NOW), ARRAY_SIZE(all));
}

static void test_rows_leave_at_a_bounded_rate(void **state)
{
    (void)state;
    struct refusals t = {.notes = 0};
    unsigned written = 0;
    for (int64_t ms = 0; ms < 600000; ms += 10) { /* 100 new addresses a second, for 10 minutes */
        char source[ADDR_TEXT_MAX];
        (void)snprintf(source, sizeof source, "10.%d.%d.%d:1", (int)(ms >> 16),
                       (int)(ms >> 8 & 255), (int)(ms & 255));
        struct refusal a = join_from(source, -ERR_TOKEN_UNKNOWN);
        refusals_note(&t, &a, NOW + ms);
        written += rows(&t, NOW + ms);
    }
    assert_in_range(written, 600, REFUSALS_BURST + 600);
}

static void test_who_keeps_knocking_is_told_ever_less_often(void **state)
{
    (void)state;
    struct refusals t = {.notes = 0};
    struct refusal r = {.what = REFUSAL_HANDSHAKE, .rc = -ERR_REVOKED};
    struct refusal got;
    uint64_t told = 0;
    unsigned written = 0;
    const int64_t day = 86400000;
    for (int64_t ms = 0; ms < day; ms += 5000) {
        refusals_note(&t, &r, NOW + ms);
        while (refusals_due(&t, NOW + ms, &got)) {
            told += got.count;
            written++;
        }
    }
    assert_in_range(written, 24, 32);
    assert_true(told > day / 5000 - 3600 / 5 - 1);
    /* It was gone for long, and comes again: told at once. */
    assert_true(refusals_due(&t, NOW + day + REFUSALS_QUIET_MAX_MS, &got));
    int64_t later = NOW + day + 4LL * REFUSALS_QUIET_MAX_MS;
    refusals_note(&t, &r, later);
    assert_true(refusals_due(&t, later, &got));
    assert_int_equal(got.count, 1);
}

static void test_nothing_is_lost_without_a_trace(void **state)
{
    (void)state;
    struct refusals t = {.notes = 0};
    struct refusal got;
    uint64_t told = 0;
    for (int i = 0; i < 5000; i++) {
        char source[ADDR_TEXT_MAX];
        (void)snprintf(source, sizeof source, "10.0.%d.%d:1", i >> 8, i & 255);
        struct refusal a = join_from(source, -ERR_TOKEN_UNKNOWN);
        refusals_note(&t, &a, NOW);
    }
    bool unlisted = false;
    for (int64_t ms = 0; ms < 300000; ms += 100) {
        while (refusals_due(&t, NOW + ms, &got)) {
            told += got.count;
            unlisted = unlisted || got.what == REFUSAL_UNLISTED;
        }
    }
    assert_true(unlisted);
    assert_int_equal(told, 5000);
}

static void test_what_could_not_be_written_comes_back(void **state)
{
    (void)state;
    struct refusals t = {.notes = 0};
    struct refusal got;
    struct refusal a = join_from("192.0.2.1:1", -ERR_TOKEN_USED);
    refusals_note(&t, &a, NOW);
    refusals_note(&t, &a, NOW);
    assert_true(refusals_due(&t, NOW, &got));
    refusals_note(&t, &got, NOW + 5000); /* no quorum */
    assert_true(refusals_due(&t, NOW + REFUSALS_QUIET_MS, &got));
    assert_int_equal(got.count, 2);
    assert_int_equal(got.since_ms, NOW);
    /* A clock that steps back holds nothing up. */
    refusals_note(&t, &a, NOW);
    assert_true(refusals_due(&t, NOW - 3600000, &got));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_is_told_at_once_and_the_rest_together),
        cmocka_unit_test(test_parties_and_reasons_are_told_apart),
        cmocka_unit_test(test_rows_leave_at_a_bounded_rate),
        cmocka_unit_test(test_who_keeps_knocking_is_told_ever_less_often),
        cmocka_unit_test(test_nothing_is_lost_without_a_trace),
        cmocka_unit_test(test_what_could_not_be_written_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
