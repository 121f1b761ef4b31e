/* Log lines as a machine reads them. Standard error goes to a pipe for the length of one call. */
#include "base/log.h"

#include "base/text.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

static char line[16384];

static int pipe_fds[2];
static int saved_stderr;

static void capture_begin(void)
{
    assert_int_equal(pipe2(pipe_fds, O_NONBLOCK), 0);
    saved_stderr = dup(STDERR_FILENO);
    assert_true(dup2(pipe_fds[1], STDERR_FILENO) >= 0);
}

/* What was written, in `line`; its length. */
static size_t capture_end(void)
{
    (void)dup2(saved_stderr, STDERR_FILENO);
    (void)close(saved_stderr);
    (void)close(pipe_fds[1]);
    ssize_t n = read(pipe_fds[0], line, sizeof line - 1);
    (void)close(pipe_fds[0]);
    line[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

#define LOGGED(...)          \
    (capture_begin(),        \
     log_warn(__VA_ARGS__), \
     capture_end())

static int set_up(void **state)
{
    (void)state;
    log_set_level(LOG_INFO);
    log_set_format(LOG_LOGFMT);
    log_set_node("");
    return 0;
}

/* The line as JSON; fails when it is not. */
static json_t *parsed(void)
{
    json_error_t why;
    size_t len = strlen(line);
    assert_true(len > 0 && line[len - 1] == '\n');
    assert_ptr_equal(strchr(line, '\n'), line + len - 1);
    json_t *j = json_loads(line, JSON_REJECT_DUPLICATES, &why);
    if (j == NULL) {
        fail_msg("%s: %s", why.text, line);
    }
    return j;
}

static const char *member(json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s == NULL ? "(absent)" : s;
}

static void test_logfmt_line(void **state)
{
    (void)state;
    (void)LOGGED(LOG_FABRIC, "peer up", "peer=%s rtt_ms=%u", "a1", 7u);
    assert_memory_equal(line, "time=20", 7);
    assert_non_null(strstr(line, "Z level=warn module=fabric msg=\"peer up\" peer=a1 rtt_ms=7\n"));
    log_set_node("n1");
    (void)LOGGED(LOG_PKI, "bare", "%s", "");
    assert_non_null(strstr(line, "module=pki node=n1 msg=\"bare\"\n"));
}

static void test_json_line(void **state)
{
    (void)state;
    log_set_format(LOG_JSON);
    log_set_node("n1");
    (void)LOGGED(LOG_AUTHORITY, "vote", "term=%d peer=\"%s\" empty= last=x", 4, "two words");
    json_t *j = parsed();
    assert_string_equal(member(j, "level"), "warn");
    assert_string_equal(member(j, "module"), "authority");
    assert_string_equal(member(j, "msg"), "vote");
    assert_string_equal(member(j, "node"), "n1");
    assert_string_equal(member(j, "term"), "4");
    assert_string_equal(member(j, "peer"), "two words");
    assert_string_equal(member(j, "empty"), "");
    assert_string_equal(member(j, "last"), "x");
    json_decref(j);
}

static void test_level_is_respected(void **state)
{
    (void)state;
    capture_begin();
    log_debug(LOG_BASE, "quiet", "%s", "");
    assert_int_equal(capture_end(), 0);
    log_set_level(LOG_ERROR);
    capture_begin();
    log_warn(LOG_BASE, "quiet", "%s", "");
    assert_int_equal(capture_end(), 0);
    assert_false(log_enabled(LOG_WARN));
    assert_true(log_enabled(LOG_ERROR));
    log_set_level(LOG_DEBUG);
    capture_begin();
    log_debug(LOG_BASE, "loud", "%s", "");
    assert_true(capture_end() > 0);
}

/* A peer's text can neither start a line of its own nor move the cursor. */
static void test_control_characters_do_not_get_out(void **state)
{
    (void)state;
    for (int format = 0; format < 2; format++) {
        log_set_format(format == 0 ? LOG_LOGFMT : LOG_JSON);
        for (int c = 1; c < 256; c++) {
            char value[4] = {'a', (char)c, 'b', '\0'};
            size_t n = LOGGED(LOG_BASE, "x", "v=%s", value);
            assert_true(n > 0);
            assert_true(text_is_clean(line, n - 1));
        }
        size_t n = LOGGED(LOG_BASE, "x", "v=%s",
                          "\xc2\x9b"
                          "31m\x1b[0m\r\nlevel=error");
        assert_true(text_is_clean(line, n - 1));
    }
}

static void test_utf8_passes(void **state)
{
    (void)state;
    log_set_format(LOG_JSON);
    (void)LOGGED(LOG_BASE, "x", "v=%s", "z\xc3\xbcrich-\xe2\x82\xac-\xf0\x9f\x94\x91");
    json_t *j = parsed();
    assert_string_equal(member(j, "v"), "z\xc3\xbcrich-\xe2\x82\xac-\xf0\x9f\x94\x91");
    json_decref(j);
}

/* However long and however much of it must be escaped, the JSON is whole. */
static void test_long_values_are_cut_but_stay_json(void **state)
{
    (void)state;
    static char value[5000];
    static const char *const fillers[] = {"a", "\\", "\xe2\x82\xac", "\x01", "\xff", "= ", "k=v "};
    log_set_format(LOG_JSON);
    for (size_t f = 0; f < ARRAY_SIZE(fillers); f++) {
        for (size_t n = 1400; n < 1700; n += 7) {
            size_t len = 0;
            while (len + 4 < n) {
                memcpy(value + len, fillers[f], strlen(fillers[f]));
                len += strlen(fillers[f]);
            }
            value[len] = '\0';
            (void)LOGGED(LOG_BASE, "x", "%s%s", f >= 5 ? "" : "v=", value);
            json_error_t why;
            json_t *j = json_loads(line, 0, &why);
            if (j == NULL) {
                fail_msg("filler %zu, length %zu: %s", f, n, why.text);
            }
            json_decref(j);
        }
    }
}

static void test_limit_lets_a_burst_through(void **state)
{
    (void)state;
    struct log_limit limit = {0};
    unsigned let = 0;
    for (int i = 0; i < 100; i++) {
        let += log_allow(&limit, 10);
    }
    assert_int_equal(let, 10);
    assert_int_equal(limit.suppressed, 90);
}

#define LOG_TEST(f) cmocka_unit_test_setup(f, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_logfmt_line),
        LOG_TEST(test_json_line),
        LOG_TEST(test_level_is_respected),
        LOG_TEST(test_control_characters_do_not_get_out),
        LOG_TEST(test_utf8_passes),
        LOG_TEST(test_long_values_are_cut_but_stay_json),
        LOG_TEST(test_limit_lets_a_burst_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
