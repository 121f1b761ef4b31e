/* `rap doctor`, the command: what it makes of the daemon's own words, what it hands down, what it prints. */
#include "lib/fake_admin.h"
#include "lib/run_cli.h"

#include "wire/token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct fake_admin *fake;
static struct cli_outcome o;
static struct cli_doctor asked; /* what the probes were given */
static bool token_given;
static const struct cli_check *report; /* what they find; NULL: nothing */

static void fake_doctor(const struct cli_doctor *d)
{
    asked = *d;
    token_given = d->token != NULL;
    asked.token = NULL; /* the command's own */
    if (report != NULL) {
        d->found(d->data, report);
    }
}

static const struct cli_ops ops = {.doctor = fake_doctor};

static int setup(void **state)
{
    (void)state;
    fake = fake_admin_open(0);
    o = (struct cli_outcome){0};
    report = NULL;
    assert_int_equal(setenv("RAP_DATA_DIR", fake_admin_dir(fake), 1), 0);
    unsetenv("RAP_OUTPUT");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    run_cli_free(&o);
    fake_admin_close(fake);
    return 0;
}

static int rap(const char *words)
{
    run_cli_free(&o);
    o = run_cli(&ops, NULL, words);
    return o.code;
}

static void contains(const char *text, const char *what)
{
    if (strstr(text, what) == NULL) {
        fail_msg("\"%s\" is not in:\n%s", what, text);
    }
}

#define VOTER "\"version\":\"" RAP_VERSION "\",\"voters\":3,\"needed\":2,\"level\":7,\"level_known\":7,"

static void test_the_daemons_words_become_checks(void **state)
{
    static const struct {
        const char *status, *mirror, *code, *result;
        int exit;
    } cases[] = {
        {VOTER "\"authority_state\":\"healthy\",\"quorum\":true,\"seen\":3", NULL, "ok", "pass", 0},
        {VOTER
         "\"authority_state\":\"healthy\",\"quorum\":true,\"seen\":2,\"raft_role\":\"leader\"",
         NULL, "voter_out", "warn", 0},
        {VOTER
         "\"authority_state\":\"healthy\",\"quorum\":true,\"seen\":2,\"raft_role\":\"follower\"",
         NULL, "ok", "pass", 0},
        {VOTER "\"authority_state\":\"no_quorum\",\"quorum\":false,\"seen\":1", NULL, "no_quorum",
         "fail", CLI_DEGRADED},
        {VOTER "\"authority_state\":\"fenced\",\"quorum\":false,\"seen\":1", NULL, "fenced", "fail",
         CLI_DEGRADED},
        {VOTER "\"authority_state\":\"recovering\",\"quorum\":true,\"seen\":3", NULL, "recovering",
         "warn", 0},
        {"\"authority_state\":\"none\",\"version\":\"" RAP_VERSION "\",\"connected\":false", NULL,
         "cut_off", "fail", CLI_DEGRADED},
        {"\"authority_state\":\"none\",\"version\":\"" RAP_VERSION
         "\",\"connected\":true,\"health\":\"revoked\"",
         NULL, "revoked", "fail", CLI_DEGRADED},
        {"\"authority_state\":\"none\",\"version\":\"" RAP_VERSION
         "\",\"connected\":true,\"health\":\"disabled\"",
         NULL, "disabled", "fail", CLI_DEGRADED},
        {"\"authority_state\":\"none\",\"version\":\"0.0.9\",\"connected\":true", NULL,
         "version_skew", "warn", 0},
        {"\"version\":\"" RAP_VERSION "\",\"level\":6,\"level_known\":7,\"authority_state\":"
         "\"healthy\",\"quorum\":true,\"voters\":3,\"seen\":3",
         NULL, "version_skew", "warn", 0},
        {VOTER "\"authority_state\":\"healthy\",\"quorum\":true,\"seen\":3",
         "\"mode\":\"async\",\"state\":\"following\",\"available\":true,\"lag_ms\":10001",
         "mirror_lagging", "warn", 0},
        {VOTER "\"authority_state\":\"healthy\",\"quorum\":true,\"seen\":3",
         "\"mode\":\"async\",\"state\":\"waiting\",\"available\":true,\"lag_ms\":5",
         "mirror_lagging", "warn", 0},
        {VOTER "\"authority_state\":\"healthy\",\"quorum\":true,\"seen\":3",
         "\"mode\":\"required\",\"state\":\"waiting\",\"available\":false", "mirror_unavailable",
         "fail", CLI_DEGRADED},
        {VOTER "\"authority_state\":\"healthy\",\"quorum\":true,\"seen\":3",
         "\"mode\":\"async\",\"state\":\"failed\",\"available\":true,\"alarm\":\"edited\"",
         "mirror_alarm", "fail", CLI_DEGRADED},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char *status = xasprintf("{%s}", cases[i].status);
        char *mirror = xasprintf("{%s}", cases[i].mirror == NULL
                                             ? "\"mode\":\"disabled\",\"state\":\"disabled\""
                                             : cases[i].mirror);
        char want[96];
        fake_admin_rule(fake, "status", 0, status, 1);
        fake_admin_rule(fake, "mirror.status", 0, mirror, 1);
        int code = rap("doctor -o json");
        (void)snprintf(want, sizeof want, "\"result\": \"%s\",\n      \"code\": \"%s\"",
                       cases[i].result, cases[i].code);
        contains(o.out, want);
        assert_int_equal(code, cases[i].exit);
        assert_string_equal(o.err, "");
        free(status);
        free(mirror);
        teardown(NULL); /* no rule is left over for the next */
        setup(NULL);
    }
}

static void test_authorities_of_the_daemon_are_handed_down(void **state)
{
    (void)state;
    fake_admin_rule(fake, "status", 0,
                    "{\"authority_state\":\"none\",\"connected\":true,\"version\":\"" RAP_VERSION
                    "\",\"connected_to\":\"018f0000-0000-7000-8000-00000000000a\"}",
                    0);
    fake_admin_rule(fake, "config.show", 0,
                    "{\"issued_at\":\"2026-01-01T00:00:00.000Z\","
                    "\"expires_at\":\"2026-01-02T00:00:00.000Z\",\"authorities\":[{\"node_id\":"
                    "\"018f0000-0000-7000-8000-00000000000a\",\"name\":\"a1\",\"address\":"
                    "\"10.0.0.1:7400\"},{\"node_id\":\"?\",\"name\":5,\"address\":\"b:1\"}]}",
                    0);
    assert_int_equal(rap("doctor"), 0);
    assert_true(asked.running);
    assert_int_equal(asked.authorities, 2);
    assert_string_equal(asked.authority[0].address, "10.0.0.1:7400");
    assert_true(uuid_equal(&asked.authority[0].node_id, &asked.connected_to));
    assert_true(uuid_is_nil(&asked.authority[1].node_id));
    assert_int_equal(asked.config_expires_ms - asked.config_issued_ms, 86400000);
}

static void test_without_a_daemon_the_probes_decide(void **state)
{
    static const struct cli_check bad = {.check = "path",
                                         .result = CLI_CHECK_FAIL,
                                         .code = "udp_blocked",
                                         .subject = "a1 (10.0.0.1:7400)",
                                         .text = "no UDP packet comes back",
                                         .next = "open that port"};
    static const struct cli_check poor = {.check = "disk",
                                          .result = CLI_CHECK_WARN,
                                          .code = "disk_nearly_full",
                                          .text = "little room"};
    (void)state;
    assert_int_equal(rap("doctor --data-dir /nowhere -o json"), 0);
    assert_false(asked.running);
    contains(o.out, "\"result\": \"pass\"");
    report = &poor;
    assert_int_equal(rap("doctor --data-dir /nowhere -o json"), 0);
    contains(o.out, "\"result\": \"warn\"");
    report = &bad;
    assert_int_equal(rap("doctor --data-dir /nowhere -o json"), CLI_DEGRADED);
    contains(o.out, "\"subject\": \"a1 (10.0.0.1:7400)\"");
    assert_int_equal(rap("doctor --data-dir /nowhere"), CLI_DEGRADED);
    contains(
        o.out,
        "fail  path        no UDP packet comes back  udp_blocked\n      next: open that port\n");
}

static void test_a_token_is_read_or_refused(void **state)
{
    (void)state;
    assert_int_equal(rap("doctor --data-dir /nowhere --token-file /nowhere/t"), CLI_NOT_FOUND);
    run_cli_free(&o);
    o = run_cli(&ops, "rapj1_nonsense\n", "doctor --data-dir /nowhere --token-file -");
    assert_int_not_equal(o.code, 0);
    contains(o.err, "next:");
    struct join_token t = {.addresses = "10.0.0.1:7400"};
    struct buf text;
    buf_init(&text, TOKEN_TEXT_MAX);
    token_format(&t, &text);
    run_cli_free(&o);
    o = run_cli(&ops, buf_cstr(&text), "doctor --data-dir /nowhere --token-file -");
    assert_int_equal(o.code, 0);
    assert_true(token_given);
    buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_daemons_words_become_checks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_authorities_of_the_daemon_are_handed_down, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_without_a_daemon_the_probes_decide, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_token_is_read_or_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
