#include "admin/client.h"

#include "admin/json.h"
#include "base/clock.h"
#include "base/file.h"
#include "wire/limits.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <sys/un.h>
#include <time.h>

#define SERVER_TIMEOUT_MAX_MS 120000u
#define GRACE_MS 4000u

static void escape(struct buf *out, const char *s)
{
    for (; *s != '\0'; s++) {
        unsigned char ch = (unsigned char)*s;
        if (isalnum(ch) || ch == '-' || ch == '.' || ch == '_' || ch == '~') {
            buf_add(out, &ch, 1);
        } else {
            buf_addf(out, "%%%02X", ch);
        }
    }
}

void client_segment(struct buf *path, const char *value)
{
    escape(path, value);
}

void client_query(struct buf *path, const char *key, const char *value)
{
    if (value != NULL) {
        buf_add_str(path, strchr(buf_cstr(path), '?') == NULL ? "?" : "&");
        buf_add_str(path, key);
        buf_add_str(path, "=");
        escape(path, value);
    }
}

static size_t on_body(char *data, size_t size, size_t count, void *out)
{
    struct buf *b = out;
    buf_add(b, data, size * count);
    return b->err == 0 ? size * count : 0;
}

/* No HTTP answer: why, in our terms. */
static int transport_error(CURLcode code, long os_errno)
{
    if (code == CURLE_COULDNT_CONNECT) {
        return os_errno == EACCES || os_errno == EPERM ? -ERR_DENIED : -ERR_UNREACHABLE;
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        return -ERR_TIMEOUT;
    }
    return code == CURLE_WRITE_ERROR ? -ERR_TOO_LARGE : -ERR_CLOSED;
}

static int read_answer(long status, struct buf *text, struct buf *doc)
{
    struct errmsg em = ERRMSG_INIT;
    char slug[64];
    int rc = json_to_doc(buf_blob(text), doc, &em);
    if (status >= 200 && status < 300) {
        return rc;
    }
    mp_find_str(buf_blob(doc), "code", slug, sizeof slug);
    rc = err_from_slug(slug);
    if (status == 503 && rc == -ERR_INVALID) {
        rc = -ERR_UNREACHABLE;
    }
    return rc;
}

struct exchange {
    CURL *curl;
    struct curl_slist *headers;
    struct buf text;
};

static void exchange_header(struct exchange *x, const char *fmt, const char *value)
{
    char *line = xasprintf("%s: %s", fmt, value);
    struct curl_slist *longer = curl_slist_append(x->headers, line);
    CHECK(longer != NULL);
    x->headers = longer;
    free(line);
}

#define SETOPT(x, option, value) CHECK(curl_easy_setopt((x)->curl, option, value) == CURLE_OK)

static void exchange_prepare(struct exchange *x, const char *socket_path, const char *method,
                             const char *url, uint32_t timeout_ms)
{
    SETOPT(x, CURLOPT_UNIX_SOCKET_PATH, socket_path);
    SETOPT(x, CURLOPT_URL, url);
    SETOPT(x, CURLOPT_PROXY, ""); /* http_proxy is about another world */
    SETOPT(x, CURLOPT_CUSTOMREQUEST, method);
    SETOPT(x, CURLOPT_NOSIGNAL, 1L);
    SETOPT(x, CURLOPT_FOLLOWLOCATION, 0L);
    SETOPT(x, CURLOPT_TIMEOUT_MS, (long)timeout_ms + (long)GRACE_MS);
    SETOPT(x, CURLOPT_WRITEFUNCTION, on_body);
    SETOPT(x, CURLOPT_WRITEDATA, &x->text);
    SETOPT(x, CURLOPT_HTTPHEADER, x->headers);
}

int client_once(struct cli *c, const char *method, const char *path, struct blob body,
                const char *key, uint32_t timeout_ms, struct buf *doc)
{
    struct exchange x = {.curl = curl_easy_init()};
    struct buf json;
    CHECK(x.curl != NULL);
    buf_init(&x.text, CLIENT_DOC_MAX);
    buf_init(&json, CLIENT_DOC_MAX);
    buf_clear(doc);
    char *socket_path = path_join(c->data_dir, "rap.sock");
    struct buf url;
    buf_init(&url, 16384);
    buf_addf(&url, "http://localhost%s", path);
    if (timeout_ms > SERVER_TIMEOUT_MAX_MS) {
        timeout_ms = SERVER_TIMEOUT_MAX_MS;
    }
    char ms[32];
    (void)snprintf(ms, sizeof ms, "%ums", timeout_ms < 100 ? 100 : timeout_ms);
    client_query(&url, "timeout", ms);
    int rc;
    if (strlen(socket_path) >= sizeof((struct sockaddr_un *)0)->sun_path) {
        rc = -ERR_UNREACHABLE; /* the daemon could not listen there either */
        goto out;
    }
    if (key != NULL) {
        exchange_header(&x, "Idempotency-Key", key);
    }
    exchange_header(&x, "Expect", "");
    if (body.len > 0) {
        CHECK(json_from_doc(body, 0, &json) == 0);
        exchange_header(&x, "Content-Type", "application/json");
        SETOPT(&x, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)json.len);
        SETOPT(&x, CURLOPT_POSTFIELDS, buf_cstr(&json));
    }
    exchange_prepare(&x, socket_path, method, buf_cstr(&url), timeout_ms);
    CURLcode code = curl_easy_perform(x.curl);
    long status = 0, os_errno = 0;
    (void)curl_easy_getinfo(x.curl, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(x.curl, CURLINFO_OS_ERRNO, &os_errno);
    rc = code == CURLE_OK ? read_answer(status, &x.text, doc) : transport_error(code, os_errno);
out:
    curl_slist_free_all(x.headers);
    curl_easy_cleanup(x.curl);
    buf_fini(&x.text);
    buf_wipe(&json);
    buf_fini(&url);
    free(socket_path);
    return rc;
}

bool client_again(int rc, struct blob problem, bool contacted, int64_t since_ms, int64_t timeout_ms)
{
    char outcome[16];
    if (rc == 0 || !err_retryable(rc) || since_ms >= timeout_ms) {
        return false;
    }
    if (rc == -ERR_UNREACHABLE && problem.len == 0) {
        return contacted; /* a daemon that was never there will not come by waiting */
    }
    if (rc == -ERR_NO_QUORUM) {
        mp_find_str(problem, "outcome", outcome, sizeof outcome);
        return strcmp(outcome, "unknown") == 0 || since_ms < CLIENT_NO_QUORUM_MS;
    }
    return true;
}

/* Refusals that say nothing was begun: these may be repeated even without an Idempotency-Key. */
static bool nothing_begun(int rc, struct blob problem)
{
    return problem.len > 0 && (rc == -ERR_NOT_LEADER || rc == -ERR_NO_QUORUM || rc == -ERR_BUSY);
}

static int64_t now_ms(void)
{
    return (int64_t)clock_mono_ms();
}

static void pause_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&ts, NULL);
}

static int exchange_until(struct cli *c, const char *method, struct buf *path, struct blob body,
                          const char *key, bool repeatable, struct buf *doc)
{
    int64_t start = now_ms();
    bool contacted = false;
    unsigned wait_ms = 50;
    for (;;) {
        int64_t since = now_ms() - start;
        int64_t left = (int64_t)c->timeout_ms > since ? (int64_t)c->timeout_ms - since : 1;
        int rc = client_once(c, method, buf_cstr(path), body, key, (uint32_t)left, doc);
        if (rc == 0) {
            return CLI_OK;
        }
        since = now_ms() - start;
        bool may = repeatable || nothing_begun(rc, buf_blob(doc));
        if (!may || !client_again(rc, buf_blob(doc), contacted, since, c->timeout_ms)) {
            return cli_problem(c, rc, buf_blob(doc));
        }
        if (wait_ms == 50) {
            unsigned most = rc == -ERR_NO_QUORUM && c->timeout_ms > CLIENT_NO_QUORUM_MS
                                ? CLIENT_NO_QUORUM_MS
                                : c->timeout_ms;
            cli_note(c, "waiting: %s; trying again for up to %us", err_text(rc),
                     (most + 999) / 1000);
        }
        contacted = contacted || rc != -ERR_UNREACHABLE || doc->len > 0;
        pause_ms(wait_ms);
        wait_ms = wait_ms < 400 ? wait_ms * 2 : 400;
    }
}

int client_get(struct cli *c, struct buf *path, struct buf *doc)
{
    client_query(path, "stale", c->stale ? "true" : NULL);
    return exchange_until(c, "GET", path, blob_of(NULL, 0), NULL, true, doc);
}

int client_send(struct cli *c, const char *method, struct buf *path, struct blob body,
                struct buf *doc)
{
    struct uuid id = uuid_new();
    char key[UUID_TEXT_MAX];
    uuid_format(&id, key);
    client_query(path, "dry_run", c->dry_run ? "true" : NULL);
    return exchange_until(c, method, path, body, key, true, doc);
}

int client_act(struct cli *c, const char *method, struct buf *path, struct blob body,
               struct buf *doc)
{
    return exchange_until(c, method, path, body, NULL, false, doc);
}
