/* HTTP on the local socket, and for metrics on a loopback port: libmicrohttpd driven by a uv loop of
 * its own (with http_guard.c the only file that knows that library).
 *
 * A request:  on_uri (made) -> on_request: guard -> body -> api_parse -> dispatch, suspended
 *             -> http_answer, resumed -> on_request: response -> on_completed (freed)
 * Ends early: guard or api_parse refuse it; the body is over the limit; the connection's deadline
 *             passes (shutdown); the answer does not come in time (504, and the call is forgotten);
 *             http_stop (503).
 *
 * libmicrohttpd 0.9.75 counts only idleness against its timeout: hence the deadline (reference:
 * ecosystem.md section 1). */
#include "admin/api.h"
#include "admin/http_guard.h"
#include "admin/json.h"
#include "admin/listen.h"
#include "admin/server.h"
#include "base/log.h"
#include "base/prom.h"
#include "wire/mp.h"

#include <microhttpd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>
#include <uv.h>

#define HEADERS_MAX_BYTES 16384
#define ANSWER_GRACE_MS 2000u
#define STOP_GRACE_MS 1000u
#define METRICS_CONNECTIONS_MAX 16

/* A listening socket: the API's, or the one of metrics, where anybody on this host may come and
 * nothing else is served. */
struct door {
    struct http *http;
    struct MHD_Daemon *daemon; /* NULL: not open */
    uv_poll_t poll;
    bool metrics;
};
#define DOORS 2

struct http {
    struct http_config config;
    char *socket_path;
    uv_loop_t loop;
    uv_async_t wake;
    struct door doors[DOORS];
    uv_timer_t timer;      /* libmicrohttpd's own */
    uv_timer_t stop_timer; /* after http_stop: how long answers may still drain */
    bool stopping, stopped;
    struct request *requests;
};

/* A connection, and its deadline: for a whole request to arrive and a whole answer to be taken; and
 * in between, while a call is under way, for the call. */
struct conn {
    struct http *http;
    uv_timer_t deadline;
    int fd;
    unsigned uid;
    bool known; /* uid is */
    bool metrics;
    struct request *request;
};

enum request_state { REQUEST_NEW, REQUEST_BODY, REQUEST_WAITING, REQUEST_ANSWERED };

struct request {
    struct http *http;
    struct conn *conn;
    struct MHD_Connection *mhd;
    char *target; /* NULL: over API_TARGET_MAX */
    enum request_state state;
    struct buf body;
    struct api_request api;
    struct call *call; /* while WAITING */
    int status;
    struct buf out;
    char allow[40];
    int64_t index, last_contact_ms; /* -1: not said */
    struct request *prev, *next;
};

static void pump(struct http *h);

/* --- answers --- */

static void set_problem(struct request *r, const struct api_problem *problem)
{
    struct api_problem p = *problem;
    char path[256];
    (void)snprintf(path, sizeof path, "%.*s", r->target == NULL ? 0 : (int)strcspn(r->target, "?"),
                   r->target == NULL ? "" : r->target);
    p.path = path;
    p.request_id = r->api.request_id;
    r->status = p.status;
    buf_clear(&r->out);
    api_problem(&p, &r->out);
    r->state = REQUEST_ANSWERED;
}

static void set_error(struct request *r, int rc, const char *detail)
{
    struct api_problem p = {.status = api_status(rc), .code = err_slug(rc), .detail = detail};
    set_problem(r, &p);
}

static int64_t header_value(struct blob doc, const char *key)
{
    return mp_find(doc, key).len > 0 ? mp_find_int(doc, key) : -1;
}

static void set_answer(struct request *r, int rc, struct blob doc)
{
    if (rc != 0) {
        struct api_problem p = {.status = api_status(rc), .code = err_slug(rc), .doc = doc};
        set_problem(r, &p);
        return;
    }
    r->index = header_value(doc, "_index");
    r->last_contact_ms = header_value(doc, "_last_contact_ms");
    r->status = r->api.route->ok_status;
    buf_clear(&r->out);
    if (r->api.route->kind == API_TEXT) {
        struct mp_reader text;
        mp_reader_init(&text, mp_find(doc, "text"));
        struct blob b = mp_get_bin(&text, SERVER_DOC_MAX);
        buf_add(&r->out, b.data, b.len);
    } else if (r->api.route->kind == API_READY) {
        bool ready = api_status_ready(doc);
        r->status = ready ? 200 : 503;
        buf_add_str(&r->out, ready ? "{\"ready\":true}" : "{\"ready\":false}");
    } else if (doc.len == 0) {
        buf_add_str(&r->out, "{}");
    } else if (json_from_doc(doc, JSON_HIDE, &r->out) != 0) {
        set_error(r, -ERR_CORRUPT, "the answer does not read as a document: this is a bug of rap");
    }
    r->state = REQUEST_ANSWERED;
}

static enum MHD_Result send_response(struct request *r)
{
    char text[32];
    struct MHD_Response *resp = MHD_create_response_from_buffer(
        r->out.len, r->out.len == 0 ? (void *)"" : r->out.data, MHD_RESPMEM_MUST_COPY);
    if (resp == NULL) {
        return MHD_NO;
    }
    bool problem = r->status >= 400 && (r->api.route == NULL || r->api.route->kind != API_READY);
    bool plain = !problem && r->api.route != NULL && r->api.route->kind == API_TEXT;
    (void)MHD_add_response_header(resp, "Content-Type",
                                  problem ? "application/problem+json"
                                  : plain ? PROM_CONTENT_TYPE
                                          : "application/json");
    (void)MHD_add_response_header(resp, "Cache-Control", "no-store");
    (void)MHD_add_response_header(resp, "X-Content-Type-Options", "nosniff");
    if (r->allow[0] != '\0') {
        (void)MHD_add_response_header(resp, "Allow", r->allow);
    }
    if (api_retry_later(r->status)) {
        (void)MHD_add_response_header(resp, "Retry-After", "1");
    }
    if (r->index >= 0) {
        (void)snprintf(text, sizeof text, "%lld", (long long)r->index);
        (void)MHD_add_response_header(resp, "Rap-Index", text);
    }
    if (r->last_contact_ms >= 0) {
        (void)snprintf(text, sizeof text, "%lld", (long long)r->last_contact_ms);
        (void)MHD_add_response_header(resp, "Rap-Last-Contact-Ms", text);
    }
    if (!uuid_is_nil(&r->api.request_id)) {
        char id[UUID_TEXT_MAX];
        uuid_format(&r->api.request_id, id);
        (void)MHD_add_response_header(resp, "Rap-Request-Id", id);
    }
    enum MHD_Result ok = MHD_queue_response(r->mhd, (unsigned)r->status, resp);
    MHD_destroy_response(resp);
    return ok;
}

static void on_deadline(uv_timer_t *t);

static void restart_deadline(struct conn *c, uint64_t ms)
{
    CHECK(uv_timer_start(&c->deadline, on_deadline, ms, 0) == 0);
}

/* The call, if any, goes on without us. */
static void forget_call(struct request *r)
{
    if (r->call != NULL) {
        r->call->request = NULL;
        r->call = NULL;
    }
}

static void resume(struct request *r)
{
    restart_deadline(r->conn, r->http->config.deadline_ms);
    MHD_resume_connection(r->mhd);
}

static void on_deadline(uv_timer_t *t)
{
    struct conn *c = container_of(t, struct conn, deadline);
    struct request *r = c->request;
    if (r != NULL && r->state == REQUEST_WAITING) {
        forget_call(r);
        set_error(r, -ERR_TIMEOUT, "no answer in time; whether it was carried out is not known");
        resume(r);
    } else {
        (void)shutdown(c->fd, SHUT_RDWR);
    }
    pump(c->http);
}

/* --- requests --- */

static void dispatch(struct request *r)
{
    struct http *h = r->http;
    const struct api_route *route = r->api.route;
    if (route->kind == API_LIVE) {
        r->status = route->ok_status;
        buf_add_str(&r->out, "{\"live\":true}");
        r->state = REQUEST_ANSWERED;
        return;
    }
    if (h->stopping) {
        set_error(r, -ERR_CANCELED, "the node is stopping");
        return;
    }
    if (!r->conn->known && !r->conn->metrics) {
        set_error(r, -ERR_DENIED, "cannot tell which user is connected");
        return;
    }
    struct call *c = xcalloc(1, sizeof *c);
    c->request = r;
    c->args = r->api.args;
    r->api.args = (struct buf){.max = 0};
    (void)snprintf(c->pub.method, sizeof c->pub.method, "%s", route->call);
    if (r->conn->metrics) {
        (void)snprintf(c->pub.actor_kind, sizeof c->pub.actor_kind, "metrics");
    } else {
        (void)snprintf(c->pub.actor_kind, sizeof c->pub.actor_kind, "admin");
        (void)snprintf(c->pub.actor_id, sizeof c->pub.actor_id, "uid:%u", r->conn->uid);
    }
    c->pub.args = buf_blob(&c->args);
    c->pub.request_id = r->api.request_id;
    /* Readiness is about this node, whether or not others can be reached. */
    c->pub.stale = r->api.stale || route->kind == API_READY;
    c->pub.dry_run = r->api.dry_run;
    c->pub.timeout_ms = r->api.timeout_ms;
    r->call = c;
    r->state = REQUEST_WAITING;
    restart_deadline(r->conn, (uint64_t)r->api.timeout_ms + ANSWER_GRACE_MS);
    MHD_suspend_connection(r->mhd);
    h->config.dispatch(h->config.data, c);
}

static const char *header(struct request *r, const char *name)
{
    return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

/* At the door of metrics. A browser on this host can be led here by a name that its owner points at
 * 127.0.0.1; the name is in Host then. */
static const char *not_metrics(struct request *r, const char *method)
{
    const char *host = header(r, "Host");
    if (host != NULL && !listen_host_is_local(host)) {
        return "Host must be localhost or a loopback address";
    }
    return strcmp(method, "GET") == 0 && r->target != NULL && strcmp(r->target, "/metrics") == 0
               ? NULL
               : "only GET /metrics is served here: the API is on the local socket";
}

/* Headers are here, the body is not. */
static void begin_request(struct request *r, const char *method)
{
    const char *why = http_ambiguous(r->mhd);
    const char *not_here = r->conn->metrics ? not_metrics(r, method) : NULL;
    const char *length = header(r, "Content-Length");
    r->state = REQUEST_BODY;
    if (why != NULL) {
        set_error(r, -ERR_MALFORMED, why);
    } else if (r->target == NULL) {
        set_error(r, -ERR_TOO_LARGE, "the request target is too long");
    } else if (length != NULL && (strlen(length) > 7 || strtoul(length, NULL, 10) > API_BODY_MAX)) {
        set_error(r, -ERR_TOO_LARGE, "the body is over 1 MiB");
    } else if (strlen(method) >= 16) {
        set_error(r, -ERR_MALFORMED, "no such method");
    } else if (not_here != NULL) {
        set_error(r, -ERR_NOT_FOUND, not_here);
    }
}

static void finish_request(struct request *r, const char *method)
{
    struct api_fault fault;
    if (r->body.err != 0) {
        set_error(r, -ERR_TOO_LARGE, "the body is over 1 MiB");
        return;
    }
    struct api_input in = {
        .method = method,
        .target = r->conn->metrics ? "/v1/metrics" : r->target,
        .content_type = header(r, "Content-Type"),
        .idempotency_key = header(r, "Idempotency-Key"),
        .body = buf_blob(&r->body),
    };
    if (api_parse(&in, &r->api, &fault) != 0) {
        struct api_problem p = {.status = fault.status,
                                .code = fault.code,
                                .detail = fault.em.text,
                                .pointer = fault.pointer};
        if (fault.status == 405) {
            (void)snprintf(r->allow, sizeof r->allow, "%s", fault.allow);
        }
        set_problem(r, &p);
        return;
    }
    if (r->api.route->kind == API_MUTATION && uuid_is_nil(&r->api.request_id)) {
        r->api.request_id = uuid_new();
    }
    buf_wipe(&r->body);
    dispatch(r);
}

static enum MHD_Result on_request(void *data, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **ctx)
{
    struct request *r = *ctx;
    (void)data;
    (void)mhd;
    (void)url;
    (void)version;
    if (r->state == REQUEST_NEW) {
        begin_request(r, method);
        return r->state == REQUEST_ANSWERED ? send_response(r) : MHD_YES;
    }
    if (r->state == REQUEST_BODY) {
        if (*upload_len > 0) {
            buf_add(&r->body, upload, *upload_len); /* over the limit: sticky, and dropped */
            *upload_len = 0;
            return MHD_YES;
        }
        finish_request(r, method);
    }
    return r->state == REQUEST_ANSWERED ? send_response(r) : MHD_YES;
}

static void *on_uri(void *data, const char *uri, struct MHD_Connection *mhd)
{
    struct http *h = ((struct door *)data)->http;
    struct request *r = xcalloc(1, sizeof *r);
    r->http = h;
    r->mhd = mhd;
    r->conn = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    r->conn->request = r;
    r->index = r->last_contact_ms = -1;
    r->target = strlen(uri) <= API_TARGET_MAX ? xstrdup(uri) : NULL;
    buf_init(&r->body, API_BODY_MAX);
    buf_init(&r->out, (size_t)2 * SERVER_DOC_MAX);
    DL_APPEND(h->requests, r);
    return r;
}

static void on_completed(void *data, struct MHD_Connection *mhd, void **ctx,
                         enum MHD_RequestTerminationCode why)
{
    struct http *h = ((struct door *)data)->http;
    struct request *r = *ctx;
    (void)mhd;
    (void)why;
    if (r == NULL) {
        return;
    }
    forget_call(r);
    r->conn->request = NULL;
    restart_deadline(r->conn, h->config.deadline_ms);
    DL_DELETE(h->requests, r);
    buf_wipe(&r->body);
    buf_wipe(&r->out);
    api_request_fini(&r->api);
    free(r->target);
    free(r);
    *ctx = NULL;
}

static void on_conn_freed(uv_handle_t *t)
{
    free(container_of((uv_timer_t *)t, struct conn, deadline));
}

static void on_connection(void *data, struct MHD_Connection *mhd, void **socket_ctx,
                          enum MHD_ConnectionNotificationCode what)
{
    struct door *d = data;
    struct http *h = d->http;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        struct conn *c = *socket_ctx;
        uv_close((uv_handle_t *)&c->deadline, on_conn_freed);
        *socket_ctx = NULL;
        return;
    }
    struct conn *c = xcalloc(1, sizeof *c);
    c->http = h;
    c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    c->metrics = d->metrics;
    c->known = !d->metrics && listen_peer_uid(c->fd, &c->uid) == 0;
    CHECK(uv_timer_init(&h->loop, &c->deadline) == 0);
    restart_deadline(c, h->config.deadline_ms);
    *socket_ctx = c;
}

static void on_log(void *data, const char *fmt, va_list ap)
{
    char text[256];
    (void)data;
    (void)vsnprintf(text, sizeof text, fmt, ap);
    text[strcspn(text, "\r\n\"")] = '\0';
    log_debug(LOG_ADMIN, "http", "text=\"%s\"", text);
}

/* --- the loop --- */

static void close_handles(struct http *h)
{
    uv_close((uv_handle_t *)&h->wake, NULL);
    for (size_t i = 0; i < DOORS; i++) {
        if (h->doors[i].http != NULL) {
            uv_close((uv_handle_t *)&h->doors[i].poll, NULL);
        }
    }
    uv_close((uv_handle_t *)&h->timer, NULL);
    uv_close((uv_handle_t *)&h->stop_timer, NULL);
}

static void finish_stop(struct http *h)
{
    h->stopped = true;
    h->config.ending(h->config.data);
    for (size_t i = 0; i < DOORS; i++) {
        if (h->doors[i].daemon != NULL) {
            CHECK(uv_poll_stop(&h->doors[i].poll) == 0);
            MHD_stop_daemon(h->doors[i].daemon);
            h->doors[i].daemon = NULL;
        }
    }
    close_handles(h);
}

static void on_mhd_timer(uv_timer_t *t)
{
    pump(container_of(t, struct http, timer));
}

static void pump(struct http *h)
{
    MHD_UNSIGNED_LONG_LONG ms, soonest = UINT64_MAX;
    if (h->stopped) {
        return;
    }
    for (size_t i = 0; i < DOORS; i++) {
        struct MHD_Daemon *daemon = h->doors[i].daemon;
        if (daemon != NULL && MHD_run(daemon) == MHD_YES &&
            MHD_get_timeout(daemon, &ms) == MHD_YES && ms < soonest) {
            soonest = ms;
        }
    }
    if (soonest != UINT64_MAX) {
        CHECK(uv_timer_start(&h->timer, on_mhd_timer, soonest, 0) == 0);
    } else {
        CHECK(uv_timer_stop(&h->timer) == 0);
    }
    if (h->stopping && h->requests == NULL) {
        finish_stop(h);
    }
}

static void on_poll(uv_poll_t *p, int status, int events)
{
    (void)status;
    (void)events;
    pump(container_of(p, struct door, poll)->http);
}

static void on_wake(uv_async_t *w)
{
    struct http *h = container_of(w, struct http, wake);
    if (!h->stopped) {
        h->config.wake(h->config.data);
        pump(h);
    }
}

static void on_stop_timer(uv_timer_t *t)
{
    struct http *h = container_of(t, struct http, stop_timer);
    if (!h->stopped) {
        finish_stop(h); /* a client does not take its answer */
    }
}

void http_answer(struct http *h, struct call *c)
{
    struct request *r = c->request;
    (void)h;
    if (r != NULL) {
        r->call = NULL;
        set_answer(r, c->rc, buf_blob(&c->doc));
        resume(r);
    }
    call_free(c);
}

void http_stop(struct http *h)
{
    if (h->stopping) {
        return;
    }
    h->stopping = true;
    (void)unlink(h->socket_path);
    for (size_t i = 0; i < DOORS; i++) {
        int fd = h->doors[i].daemon == NULL ? -1 : MHD_quiesce_daemon(h->doors[i].daemon);
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    struct request *r = NULL;
    DL_FOREACH(h->requests, r)
    {
        if (r->state == REQUEST_WAITING) {
            forget_call(r);
            set_error(r, -ERR_CANCELED, "the node is stopping");
            resume(r);
        }
    }
    CHECK(uv_timer_start(&h->stop_timer, on_stop_timer, STOP_GRACE_MS, 0) == 0);
}

void http_wake(struct http *h)
{
    CHECK(uv_async_send(&h->wake) == 0);
}

void http_run(struct http *h)
{
    CHECK(uv_run(&h->loop, UV_RUN_DEFAULT) == 0);
}

void http_free(struct http *h)
{
    CHECK(uv_loop_close(&h->loop) == 0);
    free(h->socket_path);
    free(h);
}

/* Takes fd, also on an error. */
static int open_door(struct http *h, struct door *d, int fd, struct errmsg *em)
{
    unsigned most = d->metrics ? METRICS_CONNECTIONS_MAX : SERVER_CONNECTIONS_MAX;
    d->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, h,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, h, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_CONNECTION_LIMIT, most,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)2 * HEADERS_MAX_BYTES,
        MHD_OPTION_URI_LOG_CALLBACK, on_uri, d, MHD_OPTION_NOTIFY_COMPLETED, on_completed, d,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, d, MHD_OPTION_END);
    if (d->daemon == NULL) {
        (void)close(fd);
        return errmsg_set(em, -ERR_IO, "the HTTP library does not start");
    }
    d->http = h;
    int epoll_fd = MHD_get_daemon_info(d->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    CHECK(uv_poll_init(&h->loop, &d->poll, epoll_fd) == 0);
    CHECK(uv_poll_start(&d->poll, UV_READABLE, on_poll) == 0);
    return 0;
}

int http_open(const struct http_config *config, struct http **ret, struct errmsg *em)
{
    struct http *h = xcalloc(1, sizeof *h);
    int fd = -1;
    int metrics_fd = -1;
    int rc = listen_unix(config->socket_path, &fd, em);
    if (rc == 0 && config->metrics != NULL) {
        rc = listen_loopback(config->metrics, &metrics_fd, em);
    }
    if (rc != 0) {
        if (fd >= 0) {
            (void)close(fd);
            (void)unlink(config->socket_path);
        }
        free(h);
        return rc;
    }
    h->config = *config;
    if (h->config.deadline_ms == 0) {
        h->config.deadline_ms = SERVER_DEADLINE_MS;
    }
    h->socket_path = xstrdup(config->socket_path);
    CHECK(uv_loop_init(&h->loop) == 0);
    CHECK(uv_async_init(&h->loop, &h->wake, on_wake) == 0);
    CHECK(uv_timer_init(&h->loop, &h->timer) == 0);
    CHECK(uv_timer_init(&h->loop, &h->stop_timer) == 0);
    h->doors[1].metrics = true;
    rc = open_door(h, &h->doors[0], fd, em);
    if (rc == 0 && metrics_fd >= 0) {
        rc = open_door(h, &h->doors[1], metrics_fd, em);
    } else if (metrics_fd >= 0) {
        (void)close(metrics_fd);
    }
    if (rc != 0) {
        finish_stop(h);
        (void)unlink(config->socket_path);
        (void)uv_run(&h->loop, UV_RUN_DEFAULT);
        http_free(h);
        return rc;
    }
    /* Connections waiting since listen(2): the first pump arms libmicrohttpd's epoll set. */
    CHECK(uv_timer_start(&h->timer, on_mhd_timer, 0, 0) == 0);
    *ret = h;
    return 0;
}
