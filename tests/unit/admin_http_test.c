/* The HTTP server over a real UNIX socket, byte by byte, against canned answers. */
#include "lib/fake_admin.h"

#include "admin/listen.h"
#include "base/prom.h"

#include "base/clock.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static int dial(struct fake_admin *f)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    (void)snprintf(sa.sun_path, sizeof sa.sun_path, "%s", fake_admin_socket(f));
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static void put(int fd, const char *text)
{
    size_t done = 0, len = strlen(text);
    while (done < len) {
        ssize_t n = send(fd, text + done, len - done, MSG_NOSIGNAL);
        if (n <= 0) {
            return; /* the server closed: what it said is still to be read */
        }
        done += (size_t)n;
    }
}

/* All the server says until it closes. */
static void drain(int fd, char *out, size_t size)
{
    size_t n = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 20000), 1);
        ssize_t got = recv(fd, out + n, size - 1 - n, 0);
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
    }
    out[n] = '\0';
    close(fd);
}

static char reply[1 << 18];

/* Sends text (which says Connection: close) and returns the status; reply has the whole answer. */
static int ask(struct fake_admin *f, const char *text)
{
    int fd = dial(f);
    put(fd, text);
    drain(fd, reply, sizeof reply);
    return strncmp(reply, "HTTP/1.1 ", 9) == 0 ? (int)strtol(reply + 9, NULL, 10) : 0;
}

static int get(struct fake_admin *f, const char *method, const char *target)
{
    char text[8192];
    (void)snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                   method, target);
    return ask(f, text);
}

static int post(struct fake_admin *f, const char *target, const char *headers, const char *body)
{
    char text[8192];
    (void)snprintf(text, sizeof text,
                   "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                   "Content-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n%s",
                   target, strlen(body), headers, body);
    return ask(f, text);
}

static bool said(const char *what)
{
    return strstr(reply, what) != NULL;
}

static void test_read_answers_document_and_headers(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    char call[256], actor[64], expected[64];
    (void)state;
    fake_admin_rule(f, "status", 0,
                    "{\"node_id\":\"n\",\"_index\":42,\"_last_contact_ms\":7,\"quorum\":true}", 0);
    assert_int_equal(get(f, "GET", "/v1/status?stale=true"), 200);
    assert_true(said("\r\nRap-Index: 42\r\n"));
    assert_true(said("\r\nRap-Last-Contact-Ms: 7\r\n"));
    assert_true(said("\r\nContent-Type: application/json\r\n"));
    assert_true(said("\r\n\r\n{\"node_id\":\"n\",\"quorum\":true}"));
    fake_admin_call(f, 0, call, sizeof call);
    assert_string_equal(call, "status {} stale");
    struct uuid id = fake_admin_request_id(f, 0);
    assert_true(uuid_is_nil(&id));
    fake_admin_actor(f, 0, actor, sizeof actor);
    (void)snprintf(expected, sizeof expected, "admin uid:%u", (unsigned)getuid());
    assert_string_equal(actor, expected);
    fake_admin_close(f);
}

static void test_socket_is_private(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    struct stat st;
    (void)state;
    assert_int_equal(stat(fake_admin_socket(f), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    fake_admin_close(f);
}

static void test_mutation_maps_path_and_body(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    char call[512];
    (void)state;
    fake_admin_rule(f, "request.reject", 0, "{\"status\":\"rejected\"}", 0);
    fake_admin_rule(f, "token.create", 0, "{\"id\":\"t\"}", 0);
    assert_int_equal(post(f, "/v1/requests/a%20b/reject?dry_run=true", "", "{\"reason\":\"no\"}"),
                     200);
    fake_admin_call(f, 0, call, sizeof call);
    assert_string_equal(call, "request.reject {\"id\":\"a b\",\"reason\":\"no\"} dry_run");
    assert_int_equal(post(f, "/v1/tokens", "", "{\"ttl\":\"2h\",\"max_uses\":3,\"roles\":[\"x\"]}"),
                     201);
    fake_admin_call(f, 1, call, sizeof call);
    assert_string_equal(call, "token.create {\"ttl_ms\":7200000,\"uses\":3,\"roles\":[\"x\"]}");
    fake_admin_close(f);
}

static void test_idempotency_key_passes_through(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    struct uuid a, b;
    const char *key = "Idempotency-Key: 018f0000-0000-7000-8000-000000000001\r\n";
    (void)state;
    fake_admin_rule(f, "token.create", 0, "{\"id\":\"t\"}", 0);
    assert_int_equal(post(f, "/v1/tokens", key, "{}"), 201);
    assert_int_equal(post(f, "/v1/tokens", key, "{}"), 201);
    assert_true(said("\r\nRap-Request-Id: 018f0000-0000-7000-8000-000000000001\r\n"));
    assert_int_equal(uuid_parse("018f0000-0000-7000-8000-000000000001", &a), 0);
    for (size_t i = 0; i < 2; i++) {
        b = fake_admin_request_id(f, i);
        assert_true(uuid_equal(&a, &b));
    }
    /* Without a key the server makes one, a new one each time. */
    assert_int_equal(post(f, "/v1/tokens", "", "{}"), 201);
    assert_int_equal(post(f, "/v1/tokens", "", "{}"), 201);
    a = fake_admin_request_id(f, 2);
    b = fake_admin_request_id(f, 3);
    assert_false(uuid_is_nil(&a));
    assert_false(uuid_equal(&a, &b));
    assert_int_equal(post(f, "/v1/tokens", "Idempotency-Key: x\r\n", "{}"), 400);
    assert_int_equal(fake_admin_calls(f), 4);
    fake_admin_close(f);
}

static void test_refusal_is_a_problem_with_its_members(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    fake_admin_rule(f, "request.approve", -ERR_NO_QUORUM,
                    "{\"detail\":\"1 of 3\",\"epoch\":1,\"term\":9,\"seen\":1,\"needed\":2,"
                    "\"status\":\"lies\"}",
                    0);
    assert_int_equal(post(f, "/v1/requests/r/approve", "", "{\"fingerprint\":\"ff\"}"), 503);
    assert_true(said("\r\nContent-Type: application/problem+json\r\n"));
    assert_true(said("\r\nRetry-After: 1\r\n"));
    assert_true(said("\"type\":\"urn:rap:problem:no_quorum\""));
    assert_true(said("\"status\":503"));
    assert_true(said("\"detail\":\"1 of 3\""));
    assert_true(said("\"instance\":\"/v1/requests/r/approve\""));
    assert_true(said("\"code\":\"no_quorum\""));
    assert_true(said("\"epoch\":1,\"term\":9,\"seen\":1,\"needed\":2"));
    assert_false(said("lies"));
    fake_admin_close(f);
}

static void test_unknown_path_and_wrong_method(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    assert_int_equal(get(f, "GET", "/v1/nothing"), 404);
    assert_int_equal(get(f, "DELETE", "/v1/status"), 405);
    assert_true(said("\r\nAllow: GET, HEAD\r\n"));
    assert_int_equal(get(f, "PUT", "/v1/nodes/x"), 405);
    assert_true(said("\r\nAllow: GET, HEAD, PATCH, DELETE\r\n"));
    assert_int_equal(get(f, "GET", "/v1/nodes/%"), 400);
    assert_int_equal(get(f, "GET", "/v1/nodes/%00"), 400);
    assert_int_equal(get(f, "GET", "/v1/nodes?limit=501"), 400);
    assert_true(said("\"pointer\":\"?limit\""));
    assert_int_equal(fake_admin_calls(f), 0);
    fake_admin_close(f);
}

/* ecosystem.md section 1: what libmicrohttpd 0.9.75 would let through. */
static void test_ambiguous_requests_are_refused(void **state)
{
    static const char *const requests[] = {
        "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 7\r\n\r\n{}",
        "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        "2\r\n{}\r\n0\r\n\r\n",
        "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: gzip\r\n\r\n{}",
        "GET /v1/status HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n",
        "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Idempotency-Key: 018f0000-0000-7000-8000-000000000001\r\n"
        "Idempotency-Key: 018f0000-0000-7000-8000-000000000002\r\n\r\n",
    };
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    fake_admin_rule(f, "token.create", 0, "{}", 0);
    fake_admin_rule(f, "status", 0, "{}", 0);
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        int status = ask(f, requests[i]);
        if (status != 400) {
            fail_msg("request %zu: %d", i, status);
        }
    }
    assert_int_equal(fake_admin_calls(f), 0);
    /* Chunked alone is plain HTTP/1.1. */
    assert_int_equal(ask(f, "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                            "2\r\n{}\r\n0\r\n\r\n"),
                     201);
    fake_admin_close(f);
}

static void test_bad_bodies_are_refused(void **state)
{
    static const struct {
        const char *body;
        int status;
        const char *said;
    } cases[] = {
        {"{", 400, "not JSON"},
        {"[]", 400, "not a JSON object"},
        {"{\"reason\":\"a\",\"reason\":\"b\"}", 400, "duplicate"},
        {"{\"reason\":\"a\"} x", 400, "not JSON"},
        {"{\"reason\":1}", 400, "\"pointer\":\"/reason\""},
        {"{\"reason\":1.5}", 400, "fraction"},
        {"{\"reason\":\"a\\u0000b\"}", 400, "not JSON"},
        {"{\"reason\":\"a\\nb\"}", 400, "control characters"},
        {"{\"other\":\"a\"}", 400, "\"pointer\":\"/other\""},
        {"{}", 400, "reason is missing"},
        {"{\"reason\":null}", 400, "reason is missing"},
    };
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int status = post(f, "/v1/requests/r/reject", "", cases[i].body);
        if (status != cases[i].status || !said(cases[i].said)) {
            fail_msg("%s: %d %s", cases[i].body, status, reply);
        }
    }
    assert_int_equal(ask(f, "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                            "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}"),
                     415);
    assert_int_equal(fake_admin_calls(f), 0);
    fake_admin_close(f);
}

static void test_oversized_body_is_refused(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    assert_int_equal(ask(f, "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                            "Content-Type: application/json\r\nContent-Length: 1048577\r\n\r\n"),
                     413);
    assert_true(said("\"code\":\"too_large\""));
    /* Chunked, the size is only known when it is there. */
    int fd = dial(f);
    put(fd, "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    char *chunk = xmalloc(65536 + 16);
    (void)snprintf(chunk, 65536 + 16, "10000\r\n%65536s\r\n", "");
    for (int i = 0; i < 17; i++) {
        put(fd, chunk);
    }
    put(fd, "0\r\n\r\n");
    free(chunk);
    drain(fd, reply, sizeof reply);
    assert_true(strncmp(reply, "HTTP/1.1 413", 12) == 0);
    assert_int_equal(fake_admin_calls(f), 0);
    fake_admin_close(f);
}

/* One byte now and then keeps an idle timeout happy for ever; ours counts from the start. */
static void test_slow_body_is_cut_off(void **state)
{
    struct fake_admin *f = fake_admin_open(300);
    (void)state;
    int fd = dial(f);
    put(fd, "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    uint64_t start = clock_mono_ns();
    bool cut = false;
    for (int i = 0; i < 400 && !cut; i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char byte;
        put(fd, " ");
        cut = poll(&p, 1, 50) == 1 && recv(fd, &byte, 1, 0) <= 0;
    }
    assert_true(cut);
    assert_true(clock_mono_ns() - start >= 250000000u);
    close(fd);
    assert_int_equal(fake_admin_calls(f), 0);
    fake_admin_close(f);
}

static void test_half_a_request_leaks_nothing(void **state)
{
    static const char half_body[] = "POST /v1/tokens HTTP/1.1\r\nHost: x\r\n"
                                    "Content-Length: 10\r\n\r\n{\"a";
    static const char *const parts[] = {"",
                                        "G",
                                        "GET /v1/status HTTP/1.1\r\n",
                                        "GET /v1/status HTTP/1.1\r\nHost: x\r\n",
                                        half_body,
                                        "\x01\x02\x03\r\n\r\n"};
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    fake_admin_rule(f, "status", 0, "{}", 0);
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        int fd = dial(f);
        put(fd, parts[i]);
        close(fd);
    }
    assert_int_equal(get(f, "GET", "/v1/status"), 200); /* and it still serves */
    fake_admin_close(f);
}

static void test_answer_that_does_not_come_is_a_timeout(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    fake_admin_hold(f, "status");
    fake_admin_rule(f, "status", 0, "{}", 0);
    assert_int_equal(get(f, "GET", "/v1/status?timeout=1ms"), 504); /* after the grace of 2 s */
    assert_true(said("\"code\":\"timeout\""));
    fake_admin_release(f, 0, "{\"late\":true}");
    assert_int_equal(get(f, "GET", "/v1/status"), 200);
    assert_false(said("late"));
    fake_admin_close(f);
}

static void test_client_that_leaves_loses_only_its_answer(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    fake_admin_hold(f, "status");
    fake_admin_rule(f, "status", 0, "{}", 0);
    int fd = dial(f);
    put(fd, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    fake_admin_wait_held(f);
    close(fd);
    fake_admin_release(f, 0, "{}");
    assert_int_equal(get(f, "GET", "/v1/status"), 200);
    fake_admin_close(f);
}

static void test_close_cancels_waiting_clients(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    fake_admin_hold(f, "status");
    int fd = dial(f);
    put(fd, "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    fake_admin_wait_held(f);
    fake_admin_begin_close(f);
    drain(fd, reply, sizeof reply); /* answered although the handler still holds the call */
    assert_true(strncmp(reply, "HTTP/1.1 503", 12) == 0);
    assert_true(said("\"code\":\"canceled\""));
    fake_admin_close(f);
}

static void test_close_with_idle_connections(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    int fds[8];
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = dial(f);
        put(fds[i], i % 2 == 0 ? "" : "GET /v1/sta");
    }
    fake_admin_close(f);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        close(fds[i]);
    }
}

static void test_keep_alive_serves_many(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    fake_admin_rule(f, "status", 0, "{\"n\":1}", 0);
    int fd = dial(f);
    for (int i = 0; i < 3; i++) {
        put(fd, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    put(fd, "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    drain(fd, reply, sizeof reply);
    size_t n = 0;
    for (const char *p = reply; (p = strstr(p, "{\"n\":1}")) != NULL; p++) {
        n++;
    }
    assert_int_equal(n, 4);
    assert_int_equal(fake_admin_calls(f), 4);
    fake_admin_close(f);
}

static void test_probes(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    (void)state;
    fake_admin_rule(f, "status", 0, "{\"ready\":false,\"quorum\":true}", 1);
    fake_admin_rule(f, "status", 0, "{\"quorum\":true}", 1);
    assert_int_equal(get(f, "GET", "/livez"), 200);
    assert_int_equal(fake_admin_calls(f), 0);
    assert_int_equal(get(f, "GET", "/readyz"), 503);
    assert_int_equal(get(f, "GET", "/readyz"), 200);
    fake_admin_close(f);
}

static void test_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    struct errmsg em = ERRMSG_INIT;
    struct admin *second = NULL;
    uv_loop_t loop;
    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    struct admin_config config = {.core_loop = &loop, .socket_path = fake_admin_socket(f)};
    assert_int_equal(admin_open(&config, &second, &em), -ERR_BUSY);

    /* A socket file whose process died. */
    char path[100];
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    (void)snprintf(path, sizeof path, "%s/old.sock", fake_admin_dir(f));
    (void)snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    close(fd);
    config.socket_path = path;
    assert_int_equal(admin_open(&config, &second, &em), 0);
    admin_close(second, NULL, NULL);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_not_equal(access(path, F_OK), 0);

    /* Anything else is left alone. */
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(admin_open(&config, &second, &em), -ERR_EXISTS);
    assert_int_equal(access(path, F_OK), 0);
    unlink(path);
    assert_int_equal(uv_loop_close(&loop), 0);
    fake_admin_close(f);
}

/* --- metrics --- */

static int scrape(struct fake_admin *f, const char *request)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons(fake_admin_metrics_port(f))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    put(fd, request);
    drain(fd, reply, sizeof reply);
    return strncmp(reply, "HTTP/1.1 ", 9) == 0 ? (int)strtol(reply + 9, NULL, 10) : 0;
}

static void test_metrics_are_text_on_the_port_and_on_the_socket(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    char actor[160];
    (void)state;
    fake_admin_rule(f, "metrics", 0, "rap_x 1\n", 0);
    assert_int_equal(
        scrape(f, "GET /metrics HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n"), 200);
    assert_non_null(strstr(reply, "Content-Type: " PROM_CONTENT_TYPE "\r\n"));
    assert_string_equal(strstr(reply, "\r\n\r\n"), "\r\n\r\nrap_x 1\n");
    fake_admin_actor(f, 0, actor, sizeof actor);
    assert_string_equal(actor, "metrics ");
    assert_int_equal(get(f, "GET", "/v1/metrics"), 200);
    assert_string_equal(strstr(reply, "\r\n\r\n"), "\r\n\r\nrap_x 1\n");
    fake_admin_close(f);
}

/* Whoever comes to the port is nobody: no other path, no other method, no name of somewhere else. */
static void test_the_metrics_port_serves_nothing_else(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    static const char *const requests[] = {
        "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /v1/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "POST /v1/tokens HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        "POST /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        "Content-Length: 0\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\nConnection: close\r\n\r\n",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        assert_int_equal(scrape(f, requests[i]), 404);
    }
    assert_int_equal(fake_admin_calls(f), 0);
    fake_admin_close(f);
}

static void test_metrics_listen_on_loopback_only(void **state)
{
    static const char *const bad[] = {"0.0.0.0:9464", "10.0.0.1:9464", "[::]:9464", "128.0.0.1:1",
                                      "localhost:1",  "127.0.0.1",     "",          "[::2]:1"};
    static const char *const good[] = {"127.0.0.1:9464", "127.9.9.9:1", "[::1]:9464"};
    static const char *const hosts[] = {"localhost",    "LOCALHOST:9464", "127.0.0.1",
                                        "127.0.0.1:80", "[::1]",          "[::1]:9464"};
    static const char *const strange[] = {"",         "evil",         "localhost.evil",
                                          "10.0.0.1", "[::2]",        "127.0.0.1:80x",
                                          "[::1",     "localhost:1:2"};
    struct addr a;
    struct errmsg em = ERRMSG_INIT;
    int fd = -1;
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(listen_parse_loopback(bad[i], &a, &em), -ERR_INVALID);
        assert_int_equal(listen_loopback(bad[i], &fd, &em), -ERR_INVALID);
    }
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(listen_parse_loopback(good[i], &a, &em), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        assert_true(listen_host_is_local(hosts[i]));
    }
    for (size_t i = 0; i < ARRAY_SIZE(strange); i++) {
        assert_false(listen_host_is_local(strange[i]));
    }
}

static void test_a_metrics_port_in_use_is_told(void **state)
{
    struct fake_admin *f = fake_admin_open(0);
    char at[32];
    char path[100];
    struct errmsg em = ERRMSG_INIT;
    struct admin *second = NULL;
    uv_loop_t loop;
    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    (void)snprintf(at, sizeof at, "127.0.0.1:%u", fake_admin_metrics_port(f));
    (void)snprintf(path, sizeof path, "%s/two.sock", fake_admin_dir(f));
    struct admin_config config = {.core_loop = &loop, .socket_path = path, .metrics = at};
    assert_int_equal(admin_open(&config, &second, &em), -ERR_BUSY);
    assert_non_null(strstr(em.text, "in use"));
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
    fake_admin_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_answers_document_and_headers),
        cmocka_unit_test(test_socket_is_private),
        cmocka_unit_test(test_mutation_maps_path_and_body),
        cmocka_unit_test(test_idempotency_key_passes_through),
        cmocka_unit_test(test_refusal_is_a_problem_with_its_members),
        cmocka_unit_test(test_unknown_path_and_wrong_method),
        cmocka_unit_test(test_ambiguous_requests_are_refused),
        cmocka_unit_test(test_bad_bodies_are_refused),
        cmocka_unit_test(test_oversized_body_is_refused),
        cmocka_unit_test(test_slow_body_is_cut_off),
        cmocka_unit_test(test_half_a_request_leaks_nothing),
        cmocka_unit_test(test_answer_that_does_not_come_is_a_timeout),
        cmocka_unit_test(test_client_that_leaves_loses_only_its_answer),
        cmocka_unit_test(test_close_cancels_waiting_clients),
        cmocka_unit_test(test_close_with_idle_connections),
        cmocka_unit_test(test_keep_alive_serves_many),
        cmocka_unit_test(test_probes),
        cmocka_unit_test(test_stale_socket_is_replaced_and_a_live_one_is_not),
        cmocka_unit_test(test_metrics_are_text_on_the_port_and_on_the_socket),
        cmocka_unit_test(test_the_metrics_port_serves_nothing_else),
        cmocka_unit_test(test_metrics_listen_on_loopback_only),
        cmocka_unit_test(test_a_metrics_port_in_use_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
