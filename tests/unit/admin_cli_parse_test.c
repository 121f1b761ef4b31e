/* The command line without a daemon: parsing, help, generated files, and the commands that work on
 * the host itself. */
#include "lib/run_cli.h"

#include "admin/json.h"
#include "admin/out.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "wire/token.h"

#include <setjmp.h>
#include <unistd.h>

#include <cmocka.h>

static struct cli_outcome o;
static struct cli_init last_init;
static struct cli_run last_run;
static struct cli_join last_join;
static char seen[512];
static int op_rc;
static bool op_pending;

static int fake_init(const struct cli_init *in, struct cli_init_result *ret, struct errmsg *em)
{
    last_init = *in;
    (void)snprintf(seen, sizeof seen, "%s|%s|%s|%s|%s|%s", in->data_dir, in->cluster, in->listen,
                   in->name == NULL ? "-" : in->name, in->owner_dir == NULL ? "-" : in->owner_dir,
                   in->passphrase == NULL ? "-" : in->passphrase);
    ret->cluster_id.b[0] = 1;
    ret->node_id.b[0] = 2;
    (void)snprintf(ret->root_fingerprint, sizeof ret->root_fingerprint, "ffff");
    (void)snprintf(ret->owner_dir, sizeof ret->owner_dir, "/own");
    return op_rc == 0 ? 0 : errmsg_set(em, op_rc, "told why");
}

static int fake_run(const struct cli_run *in, struct errmsg *em)
{
    last_run = *in;
    return op_rc == 0 ? 0 : errmsg_set(em, op_rc, "told why");
}

static int fake_join(const struct cli_join *in, bool *ret_pending, struct uuid *ret_node_id,
                     struct errmsg *em)
{
    last_join = *in;
    (void)snprintf(seen, sizeof seen, "%.*s", (int)in->token_len, in->token);
    in->progress(in->data, CLI_JOIN_CONNECTING, "", "", "h:1");
    in->progress(in->data, CLI_JOIN_SUBMITTED, "0123456789abcdef0123", "jid", NULL);
    in->progress(in->data, CLI_JOIN_PENDING, "", "", NULL);
    in->progress(in->data, CLI_JOIN_PENDING, "", "", NULL);
    *ret_pending = op_pending;
    ret_node_id->b[0] = op_pending ? 0 : 7;
    return op_rc == 0 ? 0 : errmsg_set(em, op_rc, "told why");
}

static int fake_migrate(const struct cli_migrate *in, struct cli_migrated *ret, struct errmsg *em)
{
    (void)snprintf(seen, sizeof seen, "%s %s %d", in->dsn, in->role, in->dry_run);
    *ret = (struct cli_migrated){.from = 0, .to = 1, .role_made = true};
    return op_rc == 0 ? 0 : errmsg_set(em, op_rc, "told why");
}

static const struct cli_ops ops = {
    .init = fake_init, .run = fake_run, .join = fake_join, .migrate = fake_migrate};

static int setup(void **state)
{
    (void)state;
    o = (struct cli_outcome){0};
    op_rc = 0;
    op_pending = false;
    seen[0] = '\0';
    unsetenv("RAP_DATA_DIR");
    unsetenv("RAP_OUTPUT");
    unsetenv("RAP_TIMEOUT");
    unsetenv("RAP_OWNER_PASSPHRASE");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    run_cli_free(&o);
    return 0;
}

static int rap_in(const char *input, const char *words)
{
    run_cli_free(&o);
    o = run_cli(&ops, input, words);
    return o.code;
}

static int rap(const char *words)
{
    return rap_in(NULL, words);
}

static void contains(const char *text, const char *what)
{
    if (strstr(text, what) == NULL) {
        fail_msg("\"%s\" is not in:\n%s", what, text);
    }
}

static void test_usage_errors_exit_2_and_say_what_next(void **state)
{
    static const struct {
        const char *words, *says;
    } cases[] = {
        {"frobnicate", "rap help"},
        {"nod", "did you mean `rap node`?"},
        {"statsu", "did you mean `rap status`?"},
        {"node lst", "did you mean `rap node list`?"},
        {"node", "list, show, rename, revoke, remove, ping"},
        {"node frobnicate", "one of: list"},
        {"node show", "missing: N"},
        {"node show a b", "too many operands"},
        {"node rename a", "missing: N NAME"},
        {"node revoke a", "missing: --reason TEXT"},
        {"node list --limt 3", "did you mean --limit?"},
        {"node list --frobnicate", "rap help node list"},
        {"node list -x", "unknown option -x"},
        {"node list --limit", "--limit needs a value"},
        {"node list --limit 1 --limit 2", "--limit twice"},
        {"node list --stale=true", "--stale takes no value"},
        {"node list --dry-run", "unknown option --dry-run"},
        {"node rename a b --stale", "unknown option --stale"},
        {"node list -o yaml", "-o json"},
        {"node list --timeout soon", "not a timeout"},
        {"--stale node list", "unknown option --stale"},
        {"token create --uses 0", "not a whole number"},
        {"token create --uses 1x", "not a whole number"},
        {"token create --ttl 1", "not a duration"},
        {"token create --ttl 31d", "1s to 30d"},
        {"init --cluster c", "missing: --listen"},
        {"agent run --log-level loud", "--log-level"},
        {"agent run --heartbeat 2h", "1ms to 1h"},
        {"status extra", "takes no operands"},
        {"completion tcsh", "bash, zsh or fish"},
        {"join --listen 1.2.3.4:5", "missing: --token-file"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (rap(cases[i].words) != CLI_USAGE || strstr(o.err, cases[i].says) == NULL) {
            fail_msg("rap %s: %d\n%s", cases[i].words, o.code, o.err);
        }
        assert_string_equal(o.out, "");
    }
    assert_int_equal(rap("node lst -o json"), CLI_USAGE);
    assert_int_equal(rap("-o json node lst"), CLI_USAGE);
    contains(o.err, "\"code\": \"usage\"");
}

static void test_help_keeps_within_the_terminal(void **state)
{
    (void)state;
    assert_int_equal(rap("help split begin"), 0);
    const char *line = strstr(o.out, "Make the new cluster first");
    assert_non_null(line);
    while (*line != '\n') { /* to the end of the paragraph */
        size_t len = strcspn(line, "\n");
        assert_in_range(len, 1, 96);
        assert_int_not_equal(line[len - 1], ' ');
        line += len + 1;
    }
    contains(o.out, "OPERATIONS, Splitting"); /* nothing is lost at the end of a line */
}

static void test_no_arguments_shows_help_as_an_error(void **state)
{
    (void)state;
    assert_int_equal(rap(""), CLI_USAGE);
    contains(o.err, "Commands:");
    assert_int_equal(rap("--help"), 0);
    contains(o.out, "Commands:");
    assert_string_equal(o.err, "");
}

static void test_help_for_each_command(void **state)
{
    (void)state;
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        char words[128];
        (void)snprintf(words, sizeof words, "%s%s%s --help", cmd->noun,
                       cmd->verb == NULL ? "" : " ", cmd->verb == NULL ? "" : cmd->verb);
        assert_int_equal(rap(words), 0);
        contains(o.out, cmd->summary[0] == 'h' && cmd->run == cli_run_help ? "rap" : cmd->summary);
    }
    assert_int_equal(rap("help node"), 0);
    contains(o.out, "rap node revoke");
    assert_int_equal(rap("node --help"), 0);
    contains(o.out, "rap node revoke");
    assert_int_equal(rap("help nodde"), CLI_USAGE);
}

/* Options before the command, --name=value, "--", and environment below options. */
static void test_ways_to_write_options(void **state)
{
    (void)state;
    assert_int_equal(setenv("RAP_DATA_DIR", "/env", 1), 0);
    assert_int_equal(setenv("RAP_OUTPUT", "json", 1), 0);
    assert_int_equal(rap("init --cluster=c --listen 1.2.3.4:5"), 0);
    assert_string_equal(seen, "/env|c|1.2.3.4:5|-|-|-");
    contains(o.out, "{");
    assert_int_equal(rap("--data-dir /flag -o table init --listen=1.2.3.4:5 --cluster c --name n"),
                     0);
    assert_string_equal(seen, "/flag|c|1.2.3.4:5|n|-|-");
    contains(o.out, "root_fingerprint");
    assert_int_equal(setenv("RAP_OUTPUT", "xml", 1), 0);
    assert_int_equal(rap("version"), CLI_USAGE);
    unsetenv("RAP_OUTPUT");
    unsetenv("RAP_DATA_DIR");
    assert_int_equal(rap("init --cluster c --listen 1.2.3.4:5 --"), 0);
    assert_string_equal(seen, "/var/lib/rap|c|1.2.3.4:5|-|-|-");
    assert_int_equal(rap("version --"), 0);
    assert_int_equal(rap("version -- --help"), CLI_USAGE);
}

static void test_init_prints_the_promised_json(void **state)
{
    struct buf doc;
    struct errmsg em = ERRMSG_INIT;
    char text[64];
    (void)state;
    assert_int_equal(setenv("RAP_OWNER_PASSPHRASE", "pass phrase", 1), 0);
    assert_int_equal(
        rap("init --cluster c --listen 1.2.3.4:5 --owner-dir /o --data-dir /d -o json"), 0);
    assert_string_equal(seen, "/d|c|1.2.3.4:5|-|/o|pass phrase");
    buf_init(&doc, 8192);
    assert_int_equal(json_to_doc(blob_str(o.out), &doc, &em), 0);
    mp_find_str(buf_blob(&doc), "cluster_id", text, sizeof text);
    assert_string_equal(text, "01000000-0000-0000-0000-000000000000");
    mp_find_str(buf_blob(&doc), "node_id", text, sizeof text);
    assert_string_equal(text, "02000000-0000-0000-0000-000000000000");
    mp_find_str(buf_blob(&doc), "owner_dir", text, sizeof text);
    assert_string_equal(text, "/own");
    contains(o.out, "\"rap agent run --data-dir /d\"");
    buf_fini(&doc);
    op_rc = -ERR_EXISTS;
    assert_int_equal(rap("init --cluster c --listen 1.2.3.4:5"), CLI_CONFLICT);
    contains(o.err, "told why");
    op_rc = -ERR_BUSY; /* a daemon holds the data directory */
    assert_int_equal(rap("init --cluster c --listen 1.2.3.4:5"), CLI_CONFLICT);
    contains(o.err, "told why");
}

static void test_passphrase_comes_from_a_file(void **state)
{
    char path[] = "/tmp/rap-pass-XXXXXX";
    char words[128];
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "from file\n", 10), 10);
    close(fd);
    (void)snprintf(words, sizeof words, "init --cluster c --listen 1:2 --passphrase-file %s", path);
    assert_int_equal(rap(words), 0);
    contains(seen, "|from file");
    unlink(path);
    assert_int_equal(rap(words), CLI_NOT_FOUND);
}

static void test_agent_run_passes_its_intervals(void **state)
{
    (void)state;
    assert_int_equal(rap("agent run --heartbeat 20ms --election 1s --agent-heartbeat 2s"), 0);
    assert_int_equal(last_run.heartbeat_ms, 20);
    assert_int_equal(last_run.election_ms, 1000);
    assert_int_equal(last_run.agent_heartbeat_ms, 2000);
    assert_int_equal(rap("agent run"), 0);
    assert_int_equal(last_run.heartbeat_ms, 0);
    op_rc = -ERR_NOT_FOUND;
    assert_int_equal(rap("agent run"), CLI_NOT_FOUND);
    contains(o.err, "rap join");
}

/* A token with known parts, as text. */
static void make_token(char out[TOKEN_TEXT_MAX])
{
    struct join_token t = {.addresses = "h:1"};
    struct buf text;
    t.cluster_id.b[0] = 9;
    buf_init(&text, TOKEN_TEXT_MAX);
    token_format(&t, &text);
    (void)snprintf(out, TOKEN_TEXT_MAX, "%s", buf_cstr(&text));
    buf_fini(&text);
}

static void test_join_reads_the_token_and_reports(void **state)
{
    char token[TOKEN_TEXT_MAX], input[TOKEN_TEXT_MAX + 8];
    (void)state;
    make_token(token);
    (void)snprintf(input, sizeof input, " %s \n", token);
    assert_int_equal(
        rap_in(input, "join --token-file - --listen 1.2.3.4:5 --role a --role b -o json"), 0);
    contains(seen, token);
    assert_true(last_join.wait);
    assert_int_equal(last_join.timeout_ms, 0); /* a person decides: no 60 s here */
    contains(o.out, "\"state\": \"approved\"");
    contains(o.out, "\"join_id\": \"jid\"");
    contains(o.out, "\"fingerprint\": \"0123456789abcdef0123\"");
    contains(o.out, "\"cluster_id\": \"09000000-0000-0000-0000-000000000000\"");
    contains(o.err, "rap request approve jid --fingerprint 0123456789abcdef\n");
    char *first = strstr(o.err, "waiting for the decision");
    assert_non_null(first);
    assert_null(strstr(first + 1, "waiting for the decision"));
    assert_null(strstr(o.err, token));

    op_pending = true;
    assert_int_equal(
        rap_in(input, "join --token-file - --listen 1:2 --no-wait --timeout 3s -o json"), 0);
    assert_false(last_join.wait);
    assert_int_equal(last_join.timeout_ms, 3000);
    contains(o.out, "\"state\": \"pending\"");
    contains(o.out, "\"node_id\": null");
}

static void test_join_failures_have_their_codes(void **state)
{
    static const struct {
        int rc, code;
        const char *says;
    } cases[] = {
        {-ERR_TIMEOUT, CLI_TIMED_OUT, "run the same command again"},
        {-ERR_TOKEN_USED, CLI_DENIED, "new token"},
        {-ERR_REJECTED, CLI_DENIED, "administrator"},
        {-ERR_NAME_TAKEN, CLI_CONFLICT, "--name"},
        {-ERR_EXISTS, CLI_CONFLICT, "rap agent run"},
        {-ERR_UNREACHABLE, CLI_UNREACHABLE, "UDP"},
    };
    char token[TOKEN_TEXT_MAX];
    (void)state;
    make_token(token);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        op_rc = cases[i].rc;
        assert_int_equal(rap_in(token, "join --token-file - --listen 1:2"), cases[i].code);
        contains(o.err, cases[i].says);
        assert_int_equal(rap_in(token, "join --token-file - --listen 1:2 -o json"), cases[i].code);
        contains(o.err, err_slug(cases[i].rc));
    }
    seen[0] = '\0';
    assert_int_equal(rap_in("rapj1_nonsense", "join --token-file - --listen 1:2"), CLI_FAILED);
    assert_int_equal(rap("join --token-file /nowhere/t --listen 1:2"), CLI_NOT_FOUND);
    assert_string_equal(seen, ""); /* not even tried */
}

static void test_completions_know_every_command_and_option(void **state)
{
    static const char *const shells[] = {"bash", "zsh", "fish"};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(shells); i++) {
        char words[32];
        (void)snprintf(words, sizeof words, "completion %s", shells[i]);
        assert_int_equal(rap(words), 0);
        for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
            contains(o.out, cmd->noun);
            contains(o.out, cmd->verb == NULL ? cmd->noun : cmd->verb);
            for (size_t k = 0; k < CLI_OPTS_MAX && cmd->opts[k].name != NULL; k++) {
                contains(o.out, cmd->opts[k].name);
            }
        }
    }
    assert_int_equal(rap("completion man"), 0);
    contains(o.out, ".TH RAP 1");
    contains(o.out, ".SS rap authority add N\n");
}

/* A shell must be able to read what we generate. */
static void test_bash_completion_completes(void **state)
{
    char path[] = "/tmp/rap-comp-XXXXXX";
    char cmd[512], line[256] = "";
    (void)state;
    assert_int_equal(rap("completion bash"), 0);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, o.out, strlen(o.out)), strlen(o.out));
    close(fd);
    (void)snprintf(cmd, sizeof cmd,
                   "bash -c '. %s; COMP_WORDS=(rap node re); COMP_CWORD=2; _rap; "
                   "echo \"${COMPREPLY[@]}\"; COMP_WORDS=(rap token create --us); COMP_CWORD=3; "
                   "_rap; echo \"${COMPREPLY[@]}\"'",
                   path);
    FILE *p = popen(cmd, "r");
    assert_non_null(p);
    assert_non_null(fgets(line, sizeof line, p));
    assert_string_equal(line, "rename revoke remove\n");
    assert_non_null(fgets(line, sizeof line, p));
    assert_string_equal(line, "--uses\n");
    assert_int_equal(pclose(p), 0);
    unlink(path);
}

/* A command is found under its name, and none of its options hides a common one. */
static void test_table_is_consistent(void **state)
{
    (void)state;
    for (const struct cli_cmd *a = cli_commands; a->noun != NULL; a++) {
        assert_non_null(a->run);
        assert_ptr_equal(cli_find(a->noun, a->verb), a);
        for (size_t i = 0; i < CLI_OPTS_MAX && a->opts[i].name != NULL; i++) {
            for (const struct cli_opt *c = cli_common; c->name != NULL; c++) {
                assert_string_not_equal(a->opts[i].name, c->name);
            }
            for (size_t k = 0; cli_flag_opt(a->flags, k) != NULL; k++) {
                assert_string_not_equal(a->opts[i].name, cli_flag_opt(a->flags, k)->name);
            }
        }
    }
}

static void cell_is(const char *json, enum out_format format, const char *expected)
{
    struct buf doc, out;
    struct errmsg em = ERRMSG_INIT;
    int64_t now;
    char *text = xasprintf("{\"v\":%s}", json);
    buf_init(&doc, 65536);
    buf_init(&out, 4096);
    assert_int_equal(clock_parse("2026-01-31T12:00:00Z", &now), 0);
    assert_int_equal(json_to_doc(blob_str(text), &doc, &em), 0);
    out_cell(mp_find(buf_blob(&doc), "v"), format, now, &out);
    assert_string_equal(buf_cstr(&out), expected);
    buf_fini(&doc);
    buf_fini(&out);
    free(text);
}

static void test_cells(void **state)
{
    (void)state;
    cell_is("null", OUT_TEXT, "-");
    cell_is("\"\"", OUT_TEXT, "-");
    cell_is("true", OUT_TEXT, "yes");
    cell_is("-5", OUT_TEXT, "-5");
    cell_is("[\"a\",\"b\"]", OUT_TEXT, "a,b");
    cell_is("[]", OUT_TEXT, "-");
    cell_is("\"[\\\"a\\\",\\\"b\\\"]\"", OUT_TEXT, "a,b"); /* a list kept as text */
    cell_is("{\"a\":1}", OUT_TEXT, "{\"a\":1}");
    cell_is("\"0123456789abcdef0123\"", OUT_SHORT, "0123456789abcdef");
    cell_is("\"2026-01-31T11:59:30Z\"", OUT_AGE, "30s ago");
    cell_is("\"2026-01-31T12:00:00Z\"", OUT_AGE, "now");
    cell_is("\"2026-01-31T14:00:00Z\"", OUT_AGE, "in 2h");
    cell_is("\"2026-01-01T12:00:00Z\"", OUT_AGE, "30d ago");
    cell_is("\"yesterday\"", OUT_AGE, "yesterday");
    /* What a node calls itself must not drive our terminal. */
    cell_is("\"a\\u001b[2Jb\\u009bc\\td\"", OUT_TEXT, "a?[2Jb?c?d");
    cell_is("\"h\xc3\xa4\"", OUT_TEXT, "h\xc3\xa4");
}

static void test_exit_codes(void **state)
{
    (void)state;
#define CHECK_EXIT_(name, num, slug, text, retry)                                       \
    {                                                                                   \
        int code = cli_exit_of(-ERR_##name);                                            \
        assert_true(code >= CLI_FAILED && code <= CLI_TIMED_OUT);                       \
        if (retry) {                                                                    \
            assert_true(code == CLI_UNREACHABLE || code == CLI_TIMED_OUT);              \
        }                                                                               \
    }
    ERR_TABLE(CHECK_EXIT_)
#undef CHECK_EXIT_
    assert_int_equal(cli_exit_of(-ERR_NO_QUORUM), CLI_UNREACHABLE);
    assert_int_equal(cli_exit_of(-ERR_FINGERPRINT), CLI_CONFLICT);
    assert_int_equal(cli_exit_of(-9999), CLI_FAILED);
}

#define HERE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HERE(test_usage_errors_exit_2_and_say_what_next),
        HERE(test_help_keeps_within_the_terminal),
        HERE(test_no_arguments_shows_help_as_an_error),
        HERE(test_help_for_each_command),
        HERE(test_ways_to_write_options),
        HERE(test_init_prints_the_promised_json),
        HERE(test_passphrase_comes_from_a_file),
        HERE(test_agent_run_passes_its_intervals),
        HERE(test_join_reads_the_token_and_reports),
        HERE(test_join_failures_have_their_codes),
        HERE(test_completions_know_every_command_and_option),
        HERE(test_bash_completion_completes),
        HERE(test_table_is_consistent),
        HERE(test_cells),
        HERE(test_exit_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
