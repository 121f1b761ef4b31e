/* The core loop's half of the edge.
 *
 *   http thread                    core loop
 *   dispatch ── to_core ─────────> on_core_wake ──> config.call
 *   on_http_wake <── to_http ───── admin_answer
 *
 * Closing: admin_close sets `stop` and wakes the http thread, which cancels its clients, ends and
 * wakes us; we join it, and when the handler holds no call any more, close our handle. */
#include "admin/admin.h"

#include "admin/server.h"
#include "base/log.h"

#include <pthread.h>
#include <signal.h>

struct admin {
    struct admin_config config;
    struct http *http;
    pthread_t thread;
    uv_async_t wake;

    pthread_mutex_t lock;
    struct call_queue to_core, to_http; /* under lock */
    bool stop;                          /* under lock */
    bool ended;                         /* under lock: the http thread takes no answers any more */

    /* Core loop only: */
    bool closing;
    bool joined;
    size_t held; /* calls in the handler's hands */
    void (*close_cb)(void *data);
    void *close_data;
};

void call_queue_push(struct call_queue *q, struct call *c)
{
    c->next = NULL;
    if (q->tail == NULL) {
        q->head = c;
    } else {
        q->tail->next = c;
    }
    q->tail = c;
}

struct call *call_queue_pop(struct call_queue *q)
{
    struct call *c = q->head;
    if (c != NULL) {
        q->head = c->next;
        if (q->head == NULL) {
            q->tail = NULL;
        }
        c->next = NULL;
    }
    return c;
}

void call_free(struct call *c)
{
    if (c != NULL) {
        buf_wipe(&c->args);
        buf_wipe(&c->doc); /* token.create may answer with a token */
        free(c);
    }
}

static void lock(struct admin *a)
{
    CHECK(pthread_mutex_lock(&a->lock) == 0);
}

static void unlock(struct admin *a)
{
    CHECK(pthread_mutex_unlock(&a->lock) == 0);
}

/* --- http thread --- */

static void dispatch(void *data, struct call *c)
{
    struct admin *a = data;
    c->admin = a;
    lock(a);
    call_queue_push(&a->to_core, c);
    unlock(a);
    CHECK(uv_async_send(&a->wake) == 0);
}

static void on_http_wake(void *data)
{
    struct admin *a = data;
    lock(a);
    struct call_queue answers = a->to_http;
    a->to_http = (struct call_queue){NULL, NULL};
    bool stop = a->stop;
    unlock(a);
    struct call *c;
    while ((c = call_queue_pop(&answers)) != NULL) {
        http_answer(a->http, c);
    }
    if (stop) {
        http_stop(a->http);
    }
}

/* From here on admin_answer frees the calls itself, and does not touch the http loop. */
static void on_http_ending(void *data)
{
    struct admin *a = data;
    lock(a);
    a->ended = true;
    struct call_queue late = a->to_http;
    a->to_http = (struct call_queue){NULL, NULL};
    unlock(a);
    struct call *c;
    while ((c = call_queue_pop(&late)) != NULL) {
        call_free(c);
    }
}

static void *thread_main(void *data)
{
    struct admin *a = data;
    http_run(a->http);
    CHECK(uv_async_send(&a->wake) == 0);
    return NULL;
}

/* --- core loop --- */

static void on_closed(uv_handle_t *h)
{
    struct admin *a = h->data;
    void (*cb)(void *) = a->close_cb;
    void *data = a->close_data;
    CHECK(pthread_mutex_destroy(&a->lock) == 0);
    free(a);
    if (cb != NULL) {
        cb(data);
    }
}

static void maybe_closed(struct admin *a)
{
    if (a->joined && a->held == 0 && !uv_is_closing((uv_handle_t *)&a->wake)) {
        uv_close((uv_handle_t *)&a->wake, on_closed);
    }
}

static void on_core_wake(uv_async_t *h)
{
    struct admin *a = h->data;
    lock(a);
    struct call_queue calls = a->to_core;
    a->to_core = (struct call_queue){NULL, NULL};
    bool ended = a->ended;
    unlock(a);
    struct call *c;
    while ((c = call_queue_pop(&calls)) != NULL) {
        a->held++;
        if (a->closing) {
            admin_answer(&c->pub, -ERR_CANCELED, blob_of(NULL, 0));
        } else {
            a->config.call(a->config.data, &c->pub);
        }
    }
    if (a->closing && ended && !a->joined) {
        CHECK(pthread_join(a->thread, NULL) == 0);
        a->joined = true;
        http_free(a->http);
        a->http = NULL;
    }
    maybe_closed(a);
}

void admin_answer(struct admin_call *c, int rc, struct blob doc)
{
    struct call *call = container_of(c, struct call, pub);
    struct admin *a = call->admin;
    CHECK(a->held > 0);
    a->held--;
    call->rc = rc;
    buf_init(&call->doc, SERVER_DOC_MAX);
    buf_add(&call->doc, doc.data, doc.len);
    if (call->doc.err != 0) {
        call->rc = call->doc.err;
        buf_clear(&call->doc);
    }
    lock(a);
    bool ended = a->ended;
    if (!ended) {
        call_queue_push(&a->to_http, call);
        http_wake(a->http); /* under the lock: `ended` is set before that loop closes its handles */
    }
    unlock(a);
    if (ended) {
        call_free(call);
    }
    if (a->closing) {
        maybe_closed(a);
    }
}

int admin_open(const struct admin_config *config, struct admin **ret, struct errmsg *em)
{
    struct admin *a = xcalloc(1, sizeof *a);
    a->config = *config;
    CHECK(pthread_mutex_init(&a->lock, NULL) == 0);
    struct http_config hc = {
        .socket_path = config->socket_path,
        .metrics = config->metrics,
        .deadline_ms = config->request_deadline_ms,
        .data = a,
        .dispatch = dispatch,
        .wake = on_http_wake,
        .ending = on_http_ending,
    };
    int rc = http_open(&hc, &a->http, em);
    if (rc != 0) {
        CHECK(pthread_mutex_destroy(&a->lock) == 0);
        free(a);
        return errmsg_wrap(em, rc, "admin");
    }
    CHECK(uv_async_init(config->core_loop, &a->wake, on_core_wake) == 0);
    a->wake.data = a;
    /* Signals belong to the core loop. */
    sigset_t all, old;
    CHECK(sigfillset(&all) == 0);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, &old) == 0);
    CHECK(pthread_create(&a->thread, NULL, thread_main, a) == 0);
    CHECK(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
    log_info(LOG_ADMIN, "api listening", "socket=%s metrics=%s", config->socket_path,
             config->metrics == NULL ? "off" : config->metrics);
    *ret = a;
    return 0;
}

void admin_close(struct admin *a, void (*cb)(void *data), void *data)
{
    CHECK(!a->closing);
    a->closing = true;
    a->close_cb = cb;
    a->close_data = data;
    lock(a);
    a->stop = true;
    if (!a->ended) {
        http_wake(a->http);
    }
    unlock(a);
}
