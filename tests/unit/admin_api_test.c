/* Requests to calls, without a socket; and that docs/openapi.yaml tells the same story. */
#include "admin/api.h"
#include "admin/json.h"
#include "base/file.h"
#include "wire/mp.h"

#include <ctype.h>
#include <setjmp.h>

#include <cmocka.h>

static struct api_request req;
static struct api_fault fault;

static int parse(const char *method, const char *target, const char *body)
{
    struct api_input in = {.method = method,
                           .target = target,
                           .content_type = body == NULL ? NULL : "application/json",
                           .body = body == NULL ? blob_of(NULL, 0) : blob_str(body)};
    return api_parse(&in, &req, &fault);
}

static void args_are(const char *expected)
{
    struct buf out;
    buf_init(&out, 1 << 16);
    assert_int_equal(json_from_doc(buf_blob(&req.args), 0, &out), 0);
    assert_string_equal(buf_cstr(&out), expected);
    buf_fini(&out);
}

static void test_requests_become_calls(void **state)
{
    static const struct {
        const char *method, *target, *body, *call, *args;
    } cases[] = {
        {"GET", "/v1/status", NULL, "status", "{}"},
        {"HEAD", "/v1/status?", NULL, "status", "{}"},
        {"GET", "/v1/nodes?limit=5&cursor=a+b%2Bc", NULL, "node.list",
         "{\"limit\":5,\"cursor\":\"a b+c\"}"},
        {"GET", "/v1/nodes/web-1", NULL, "node.show", "{\"id\":\"web-1\"}"},
        {"GET", "/v1/nodes/a%2Fb+c", NULL, "node.show", "{\"id\":\"a/b+c\"}"},
        {"PATCH", "/v1/nodes/n", "{\"name\":\"m\"}", "node.rename",
         "{\"id\":\"n\",\"name\":\"m\"}"},
        {"POST", "/v1/nodes/n/revoke", "{\"reason\":\"r\"}", "node.revoke",
         "{\"id\":\"n\",\"reason\":\"r\"}"},
        {"DELETE", "/v1/authorities/prepare", NULL, "authority.remove", "{\"id\":\"prepare\"}"},
        {"DELETE", "/v1/authorities/a?reason=old%20host", NULL, "authority.remove",
         "{\"id\":\"a\",\"reason\":\"old host\"}"},
        {"POST", "/v1/authorities/prepare", "{\"node\":\"n\"}", "authority.prepare",
         "{\"id\":\"n\"}"},
        {"POST", "/v1/authorities/transfer", NULL, "authority.transfer", "{}"},
        {"POST", "/v1/tokens", "{\"ttl\":\"90m\",\"max_uses\":2,\"roles\":[],\"name\":null}",
         "token.create", "{\"ttl_ms\":5400000,\"uses\":2,\"roles\":[]}"},
        {"GET", "/v1/audit?event_type=e&subject_id=s&&limit=500", NULL, "audit.list",
         "{\"event_type\":\"e\",\"subject_id\":\"s\",\"limit\":500}"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int rc = parse(cases[i].method, cases[i].target, cases[i].body);
        if (rc != 0) {
            fail_msg("%s %s: %s", cases[i].method, cases[i].target, fault.em.text);
        }
        assert_string_equal(req.route->call, cases[i].call);
        args_are(cases[i].args);
        api_request_fini(&req);
    }
}

static void test_common_parameters(void **state)
{
    (void)state;
    assert_int_equal(parse("GET", "/v1/nodes?stale=true&timeout=5s", NULL), 0);
    assert_true(req.stale && !req.dry_run);
    assert_int_equal(req.timeout_ms, 5000);
    api_request_fini(&req);
    assert_int_equal(parse("DELETE", "/v1/nodes/n?dry_run=true", NULL), 0);
    assert_true(!req.stale && req.dry_run);
    assert_int_equal(req.timeout_ms, API_TIMEOUT_DEFAULT_MS);
    api_request_fini(&req);
}

static void test_bad_requests_are_refused(void **state)
{
    static const struct {
        const char *method, *target, *body;
        int status;
        const char *pointer;
    } cases[] = {
        {"GET", "/", NULL, 404, ""},
        {"GET", "", NULL, 404, ""},
        {"GET", "*", NULL, 404, ""},
        {"GET", "http://localhost/v1/status", NULL, 404, ""},
        {"GET", "/v1/status/", NULL, 404, ""},
        {"GET", "/v1/nodes/", NULL, 404, ""},
        {"GET", "/v1/nodes/a/b", NULL, 404, ""},
        {"GET", "/v1//nodes", NULL, 404, ""},
        {"POST", "/v1/nodes", NULL, 405, ""},
        {"get", "/v1/nodes", NULL, 405, ""},
        {"HEAD", "/v1/roles/unassign", NULL, 405, ""},
        {"GET", "/v1/nodes/%zz", NULL, 400, ""},
        {"GET", "/v1/nodes/%2", NULL, 400, ""},
        {"GET", "/v1/nodes/%0a", NULL, 400, ""},
        {"GET", "/v1/nodes/%ff", NULL, 400, ""},
        {"GET", "/v1/nodes?x=1", NULL, 400, "?x"},
        {"GET", "/v1/nodes?limit=1&limit=2", NULL, 400, "?limit"},
        {"GET", "/v1/nodes?stale=true&stale=true", NULL, 400, "?stale"},
        {"GET", "/v1/nodes?stale=1", NULL, 400, "?stale"},
        {"GET", "/v1/nodes?dry_run=true", NULL, 400, "?dry_run"},
        {"GET", "/v1/nodes?limit=0", NULL, 400, "?limit"},
        {"GET", "/v1/nodes?limit=-1", NULL, 400, "?limit"},
        {"GET", "/v1/nodes?limit=9999999999", NULL, 400, "?limit"},
        {"GET", "/v1/nodes?limit=501", NULL, 400, "?limit"},
        {"GET", "/v1/nodes?timeout=0s", NULL, 400, "?timeout"},
        {"GET", "/v1/nodes?timeout=1d", NULL, 400, "?timeout"},
        {"GET", "/v1/nodes?cursor=%", NULL, 400, "?"},
        {"GET", "/v1/nodes", "{}", 400, ""},
        {"DELETE", "/v1/nodes/n?stale=true", NULL, 400, "?stale"},
        {"POST", "/v1/roles", NULL, 400, "/node"},
        {"POST", "/v1/roles", "{\"node\":\"n\"}", 400, "/role"},
        {"POST", "/v1/roles", "{\"node\":\"n\",\"role\":7}", 400, "/role"},
        {"POST", "/v1/tokens", "{\"max_uses\":\"3\"}", 400, "/max_uses"},
        {"POST", "/v1/tokens", "{\"max_uses\":-1}", 400, "/max_uses"},
        {"POST", "/v1/tokens", "{\"max_uses\":4294967296}", 400, "/max_uses"},
        {"POST", "/v1/tokens", "{\"ttl\":60}", 400, "/ttl"},
        {"POST", "/v1/tokens", "{\"ttl\":\"60\"}", 400, "/ttl"},
        {"POST", "/v1/tokens", "{\"roles\":\"x\"}", 400, "/roles"},
        {"POST", "/v1/tokens", "{\"roles\":[1]}", 400, "/roles"},
        {"POST", "/v1/tokens", "{\"a\\nb\":1}", 400, "/"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int rc = parse(cases[i].method, cases[i].target, cases[i].body);
        if (rc == 0 || fault.status != cases[i].status ||
            strcmp(fault.pointer, cases[i].pointer) != 0) {
            fail_msg("%s %s %s: rc %d, status %d, pointer \"%s\"", cases[i].method, cases[i].target,
                     cases[i].body == NULL ? "" : cases[i].body, rc, fault.status, fault.pointer);
        }
        assert_true(fault.em.text[0] != '\0');
    }
}

static void test_long_values_are_refused(void **state)
{
    char *target = xmalloc(API_VALUE_MAX + 64);
    (void)state;
    (void)snprintf(target, 64, "/v1/nodes/");
    memset(target + 10, 'a', API_VALUE_MAX - 1);
    target[10 + API_VALUE_MAX - 1] = '\0';
    assert_int_equal(parse("GET", target, NULL), 0);
    api_request_fini(&req);
    target[10 + API_VALUE_MAX - 1] = 'a';
    target[10 + API_VALUE_MAX] = '\0';
    assert_int_equal(parse("GET", target, NULL), -ERR_INVALID);
    free(target);
}

static void test_media_type_is_checked(void **state)
{
    static const struct {
        const char *type;
        int status;
    } cases[] = {{"application/json; charset=utf-8", 0},
                 {"Application/JSON", 0},
                 {"application/jsonp", 415},
                 {"text/plain", 415},
                 {NULL, 415}};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct api_input in = {.method = "POST",
                               .target = "/v1/tokens",
                               .content_type = cases[i].type,
                               .body = blob_str("{}")};
        int rc = api_parse(&in, &req, &fault);
        assert_int_equal(rc == 0 ? 0 : fault.status, cases[i].status);
        if (rc == 0) {
            api_request_fini(&req);
        }
    }
}

/* Every error we have maps to a status that fits its meaning, and 503 exactly where asking again
 * helps. */
static void test_every_error_has_a_status(void **state)
{
    (void)state;
#define CHECK_STATUS_(name, num, slug, text, retry)                              \
    {                                                                            \
        int status = api_status(-ERR_##name);                                    \
        assert_true(status >= 400 && status < 600);                              \
        if (retry) {                                                             \
            assert_true(status == 429 || status == 503 || status == 504);        \
        }                                                                        \
    }
    ERR_TABLE(CHECK_STATUS_)
#undef CHECK_STATUS_
    assert_int_equal(api_status(-ERR_NOT_FOUND), 404);
    assert_int_equal(api_status(-ERR_DENIED), 403);
    assert_int_equal(api_status(-ERR_DECIDED), 409);
    assert_int_equal(api_status(-ERR_FINGERPRINT), 409);
    assert_int_equal(api_status(-ERR_REUSED_ID), 422);
    assert_int_equal(api_status(-ERR_NO_QUORUM), 503);
    assert_int_equal(api_status(-ERR_TIMEOUT), 504);
    assert_int_equal(api_status(-12345), 500);
}

static void test_problem_survives_a_damaged_document(void **state)
{
    struct buf out;
    (void)state;
    buf_init(&out, 4096);
    struct api_problem p = {.status = 500,
                            .code = "io",
                            .path = "/v1/x",
                            .doc = blob_of("\x82\xa1"
                                           "a\xc1",
                                           4)};
    api_problem(&p, &out);
    assert_non_null(strstr(buf_cstr(&out), "\"code\":\"io\""));
    assert_non_null(strstr(buf_cstr(&out), "\"detail\":\"input/output error\""));
    buf_fini(&out);
}

static void test_readiness(void **state)
{
    static const struct {
        const char *json;
        bool ready;
    } cases[] = {{"{\"ready\":true,\"quorum\":false}", true},
                 {"{\"ready\":false,\"quorum\":true}", false},
                 {"{\"quorum\":true}", true},
                 {"{\"quorum\":null}", false},
                 {"{\"ready\":1}", false},
                 {"{}", false}};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct buf doc;
        struct errmsg em = ERRMSG_INIT;
        buf_init(&doc, 4096);
        assert_int_equal(json_to_doc(blob_str(cases[i].json), &doc, &em), 0);
        assert_true(api_status_ready(buf_blob(&doc)) == cases[i].ready);
        buf_fini(&doc);
    }
}

/* --- docs/openapi.yaml --- */

static struct buf yaml;

static void read_yaml(void)
{
    struct errmsg em = ERRMSG_INIT;
    buf_init(&yaml, 1 << 20);
    assert_int_equal(file_read(RAP_SOURCE_DIR "/docs/openapi.yaml", &yaml, &em), 0);
}

/* The text of one operation; NULL when the document does not have it. Caller frees. */
static char *operation(const char *path, const char *method)
{
    char line[160];
    (void)snprintf(line, sizeof line, "\n  %s:\n", path);
    const char *at = strstr(buf_cstr(&yaml), line);
    if (at == NULL) {
        return NULL;
    }
    at += strlen(line);
    size_t len = 0; /* to the next key at the paths' own level, or above */
    while (at[len] != '\0' && (strncmp(at + len, "    ", 4) == 0 || at[len] == '\n')) {
        len += strcspn(at + len, "\n") + 1;
    }
    char *item = xasprintf("\n%.*s", (int)len, at);
    size_t n = 0;
    (void)snprintf(line, sizeof line, "\n    %s:\n", method);
    for (char *c = line; *c != '\0'; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
    char *found = strstr(item, line);
    char *text = NULL;
    if (found != NULL) {
        found += strlen(line);
        while (strncmp(found + n, "      ", 6) == 0) {
            n += strcspn(found + n, "\n") + 1;
        }
        text = xasprintf("%.*s", (int)n, found);
    }
    free(item);
    return text;
}

static void has(const struct api_route *r, const char *text, const char *what)
{
    if (strstr(text, what) == NULL) {
        fail_msg("openapi.yaml: %s %s lacks %s", r->method, r->path, what);
    }
}

static void test_openapi_has_every_route(void **state)
{
    size_t routes = 0, operations = 0;
    (void)state;
    read_yaml();
    for (const struct api_route *r = api_routes; r->method != NULL; r++, routes++) {
        char *text = operation(r->path, r->method);
        char line[128];
        if (text == NULL) {
            fail_msg("openapi.yaml lacks %s %s", r->method, r->path);
            return;
        }
        (void)snprintf(line, sizeof line, "        '%d':\n", r->ok_status);
        has(r, text, line);
        for (size_t i = 0; i < API_PARAMS_MAX && r->params[i].name != NULL; i++) {
            if (r->params[i].in != API_BODY) {
                (void)snprintf(line, sizeof line, "parameters/%s'", r->params[i].name);
                has(r, text, line);
            }
        }
        if (r->kind == API_MUTATION) {
            has(r, text, "parameters/idempotency_key'");
            has(r, text, "parameters/dry_run'");
        }
        if (r->kind == API_READ) {
            has(r, text, "parameters/stale'");
        }
        free(text);
    }
    /* And nothing else: every operation has an operationId, and there are as many as routes. */
    for (const char *p = buf_cstr(&yaml); (p = strstr(p, "\n      operationId:")) != NULL; p++) {
        operations++;
    }
    assert_int_equal(routes, operations);
    buf_fini(&yaml);
}

static void test_openapi_bodies_name_the_members(void **state)
{
    (void)state;
    read_yaml();
    for (const struct api_route *r = api_routes; r->method != NULL; r++) {
        char *text = operation(r->path, r->method);
        const char *schema = NULL;
        bool body = false;
        assert_non_null(text);
        char *at = strstr(text, "requestBody:");
        if (at != NULL) {
            schema = strstr(at, "#/components/schemas/") + strlen("#/components/schemas/");
        }
        for (size_t i = 0; i < API_PARAMS_MAX && r->params[i].name != NULL; i++) {
            char line[128];
            if (r->params[i].in != API_BODY) {
                continue;
            }
            body = true;
            assert_non_null(schema);
            (void)snprintf(line, sizeof line, "\n    %.*s:\n", (int)strcspn(schema, "'"), schema);
            const char *def = strstr(buf_cstr(&yaml), line);
            assert_non_null(def);
            def += strlen(line);
            size_t len = 0;
            while (strncmp(def + len, "      ", 6) == 0) {
                len += strcspn(def + len, "\n") + 1;
            }
            char *members = xasprintf("%.*s", (int)len, def);
            (void)snprintf(line, sizeof line, "%s: {", r->params[i].name);
            bool inline_form = strstr(members, line) != NULL;
            (void)snprintf(line, sizeof line, " %s:\n", r->params[i].name);
            if (!inline_form && strstr(members, line) == NULL) {
                fail_msg("openapi.yaml: the body of %s %s lacks %s", r->method, r->path,
                         r->params[i].name);
            }
            free(members);
        }
        assert_true(body == (schema != NULL));
        free(text);
    }
    buf_fini(&yaml);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_become_calls),
        cmocka_unit_test(test_common_parameters),
        cmocka_unit_test(test_bad_requests_are_refused),
        cmocka_unit_test(test_long_values_are_refused),
        cmocka_unit_test(test_media_type_is_checked),
        cmocka_unit_test(test_every_error_has_a_status),
        cmocka_unit_test(test_problem_survives_a_damaged_document),
        cmocka_unit_test(test_readiness),
        cmocka_unit_test(test_openapi_has_every_route),
        cmocka_unit_test(test_openapi_bodies_name_the_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
