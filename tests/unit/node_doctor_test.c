/* What `rap doctor` makes of what its probes found. */
#include "node/doctor_path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NOW 1800000000000
static const struct uuid authority = {.b = {1}}, other = {.b = {2}};

struct found {
    const char *check, *code;
    enum cli_check_result result;
};

static void judge(const struct doctor_path *p, bool connected, const struct found *want, size_t n)
{
    struct doctor_target t = {.connected = connected};
    struct cli_check got[DOCTOR_PATH_CHECKS];
    t.authority.node_id = authority;
    (void)snprintf(t.authority.name, sizeof t.authority.name, "a1");
    (void)snprintf(t.authority.address, sizeof t.authority.address, "10.0.0.1:7400");
    size_t count = doctor_judge(&t, p, got);
    assert_int_equal(count, n);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(got[i].check, want[i].check);
        assert_string_equal(got[i].code, want[i].code);
        assert_int_equal(got[i].result, want[i].result);
        assert_string_equal(got[i].subject, "a1 (10.0.0.1:7400)");
        assert_true(got[i].text[0] != '\0');
        assert_true((got[i].next[0] != '\0') == (want[i].result != CLI_CHECK_PASS));
    }
}

#define JUDGE(path, connected, ...)                                                \
    judge(path, connected, (const struct found[]){__VA_ARGS__},                    \
          sizeof((const struct found[]){__VA_ARGS__}) / sizeof(struct found))

static struct doctor_path good(void)
{
    return (struct doctor_path){.passed = {true, true, true, true},
                                .found = authority,
                                .now_ms = NOW,
                                .not_after_ms = NOW + 1000000,
                                .clock_known = true,
                                .clock_within_ms = 2};
}

static struct doctor_path silent(void)
{
    return (struct doctor_path){.handshake_rc = -ERR_TIMEOUT, .now_ms = NOW};
}

#define PASS(check) {check, "ok", CLI_CHECK_PASS}
#define FAIL(check, code) {check, code, CLI_CHECK_FAIL}
#define WARN(check, code) {check, code, CLI_CHECK_WARN}

static void test_a_good_path_passes(void **state)
{
    struct doctor_path p = good();
    (void)state;
    JUDGE(&p, false, PASS("path"), PASS("mtu"), PASS("identity"), PASS("clock"));
    p.clock_known = false; /* an authority that does not tell */
    JUDGE(&p, false, PASS("path"), PASS("mtu"), PASS("identity"));
    p.passed[0] = p.passed[1] = p.passed[2] = p.passed[3] = false; /* it sends no resets just now */
    JUDGE(&p, false, PASS("path"), PASS("mtu"), PASS("identity"));
}

static void test_silence_is_told_apart(void **state)
{
    struct doctor_path p = silent();
    (void)state;
    JUDGE(&p, false, FAIL("path", "unreachable_authority"));
    p.tcp_answered = true;
    JUDGE(&p, false, FAIL("path", "udp_blocked"));
    p = silent();
    p.refused = p.tcp_answered = true; /* ICMP says more than the silence of UDP */
    JUDGE(&p, false, FAIL("path", "unreachable_authority"));
    p = silent();
    p.denied = true;
    JUDGE(&p, false, FAIL("path", "udp_blocked"));
    p = silent();
    p.no_route = true;
    JUDGE(&p, false, FAIL("path", "unreachable_authority"));
    p = silent();
    p.resolve_rc = -ERR_UNREACHABLE;
    JUDGE(&p, false, FAIL("path", "unreachable_authority"));
}

static void test_a_hole_is_told_from_a_small_path(void **state)
{
    struct doctor_path p = silent();
    (void)state;
    p.passed[0] = true; /* there */
    JUDGE(&p, false, PASS("path"), FAIL("mtu", "mtu_black_hole"));
    p.passed[1] = p.passed[2] = true; /* and back */
    JUDGE(&p, false, PASS("path"), FAIL("mtu", "mtu_black_hole"));
    p = good();
    p.passed[2] = p.passed[3] = false;
    JUDGE(&p, false, PASS("path"), WARN("mtu", "mtu_small"), PASS("identity"), PASS("clock"));
    p.passed[2] = true;
    JUDGE(&p, false, PASS("path"), PASS("mtu"), PASS("identity"), PASS("clock"));
}

static void test_who_answers_is_judged(void **state)
{
    static const int strangers[] = {-ERR_BAD_CERT, -ERR_WRONG_CLUSTER, -ERR_BAD_SIGNATURE,
                                    -ERR_NOT_AUTHORITY};
    struct doctor_path p = good();
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(strangers); i++) {
        p.handshake_rc = strangers[i];
        JUDGE(&p, false, PASS("path"), PASS("mtu"), FAIL("identity", "wrong_pin"));
        JUDGE(&p, true, PASS("path"), PASS("mtu"), WARN("identity", "other_root"));
    }
    p.handshake_rc = -ERR_RATE_LIMITED;
    JUDGE(&p, false, PASS("path"), PASS("mtu"), WARN("identity", "rate_limited"));
    p.handshake_rc = -ERR_UNSUPPORTED;
    JUDGE(&p, false, PASS("path"), PASS("mtu"), FAIL("identity", "handshake_failed"));
    p = good();
    p.found = other;
    JUDGE(&p, false, PASS("path"), PASS("mtu"), WARN("identity", "wrong_node"), PASS("clock"));
    p = good();
    p.not_after_ms = NOW - 1;
    JUDGE(&p, false, PASS("path"), PASS("mtu"), FAIL("identity", "certificate_expired"),
          PASS("clock"));
    p.clock_ahead_ms = 3600000; /* by the authority's clock it has not */
    JUDGE(&p, false, PASS("path"), PASS("mtu"), PASS("identity"), FAIL("clock", "clock_skew"));
}

static void test_clocks_are_compared_as_exactly_as_known(void **state)
{
    static const struct {
        int64_t ahead_ms, within_ms;
        enum cli_check_result want;
    } cases[] = {
        {0, 1, CLI_CHECK_PASS},      {10000, 1, CLI_CHECK_PASS},    {10002, 1, CLI_CHECK_WARN},
        {-10002, 1, CLI_CHECK_WARN}, {60001, 1, CLI_CHECK_WARN},    {60002, 1, CLI_CHECK_FAIL},
        {-60002, 1, CLI_CHECK_FAIL}, {60002, 2000, CLI_CHECK_WARN}, {10002, 2000, CLI_CHECK_PASS},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct doctor_path p = good();
        p.clock_ahead_ms = cases[i].ahead_ms;
        p.clock_within_ms = cases[i].within_ms;
        JUDGE(&p, false, PASS("path"), PASS("mtu"), PASS("identity"),
              {"clock", cases[i].want == CLI_CHECK_PASS ? "ok" : "clock_skew", cases[i].want});
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_path_passes),
        cmocka_unit_test(test_silence_is_told_apart),
        cmocka_unit_test(test_a_hole_is_told_from_a_small_path),
        cmocka_unit_test(test_who_answers_is_judged),
        cmocka_unit_test(test_clocks_are_compared_as_exactly_as_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
