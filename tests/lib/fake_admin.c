#include "lib/fake_admin.h"

#include "admin/json.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#define RULES_MAX 64
#define CALLS_MAX 256

struct rule {
    char method[48];
    int rc;
    char *json;
    int left; /* -1: for ever */
    bool hold;
};

struct record {
    char text[2048];
    struct uuid request_id;
    char actor[160];
};

struct fake_admin {
    uv_loop_t loop;
    uv_async_t wake;
    pthread_t thread;
    struct admin *admin;
    char dir[64];
    char socket[96];
    char metrics[32];
    uint16_t metrics_port;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct rule rules[RULES_MAX];
    size_t rules_count;
    struct record *calls;
    size_t calls_count;
    struct admin_call *held;
    bool release, want_close, closing, ended;
    int release_rc;
    char *release_json;
};

static void answer(struct admin_call *c, int rc, const char *json)
{
    struct buf doc;
    struct errmsg em = ERRMSG_INIT;
    buf_init(&doc, 4u << 20);
    if (rc == 0 && strcmp(c->method, "metrics") == 0) { /* text, which JSON has no type for */
        struct mp_writer w;
        struct mp_doc d;
        mp_writer_init(&w, &doc);
        mp_doc_begin(&w, &d);
        mp_doc_key(&w, &d, "text");
        mp_put_bin(&w, blob_str(json));
        mp_doc_end(&w, &d);
    } else if (json != NULL && json[0] != '\0') {
        CHECK(json_to_doc(blob_str(json), &doc, &em) == 0);
    }
    admin_answer(c, rc, buf_blob(&doc));
    buf_fini(&doc);
}

static void record_call(struct fake_admin *f, const struct admin_call *c)
{
    CHECK(f->calls_count < CALLS_MAX);
    struct record *r = &f->calls[f->calls_count++];
    struct buf text;
    buf_init(&text, sizeof r->text);
    CHECK(json_from_doc(c->args, 0, &text) == 0);
    (void)snprintf(r->text, sizeof r->text, "%s %s%s%s", c->method, buf_cstr(&text),
                   c->stale ? " stale" : "", c->dry_run ? " dry_run" : "");
    buf_fini(&text);
    r->request_id = c->request_id;
    (void)snprintf(r->actor, sizeof r->actor, "%s %s", c->actor_kind, c->actor_id);
}

static void on_call(void *data, struct admin_call *c)
{
    struct fake_admin *f = data;
    int rc = -ERR_UNSUPPORTED;
    char *json = NULL;
    bool hold = false;
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    record_call(f, c);
    for (size_t i = 0; i < f->rules_count; i++) {
        struct rule *r = &f->rules[i];
        if (strcmp(r->method, c->method) == 0 && r->left != 0) {
            r->left -= r->left > 0;
            rc = r->rc;
            json = r->json == NULL ? NULL : xstrdup(r->json);
            hold = r->hold;
            break;
        }
    }
    if (hold) {
        CHECK(f->held == NULL);
        f->held = c;
        CHECK(pthread_cond_broadcast(&f->changed) == 0);
    }
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
    if (!hold) {
        answer(c, rc, json);
    }
    free(json);
}

static void on_closed(void *data)
{
    struct fake_admin *f = data;
    f->ended = true;
    uv_close((uv_handle_t *)&f->wake, NULL);
}

static void on_wake(uv_async_t *w)
{
    struct fake_admin *f = w->data;
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    struct admin_call *held = f->release ? f->held : NULL;
    char *json = f->release_json;
    int rc = f->release_rc;
    bool close = f->want_close && !f->closing;
    if (held != NULL) {
        f->held = NULL;
        f->release = false;
        f->release_json = NULL;
    }
    f->closing = f->closing || close;
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
    if (close) {
        admin_close(f->admin, on_closed, f);
    }
    if (held != NULL) {
        answer(held, rc, json);
        free(json);
    }
}

static void *run(void *data)
{
    struct fake_admin *f = data;
    CHECK(uv_run(&f->loop, UV_RUN_DEFAULT) == 0);
    return NULL;
}

/* One that is free now. */
static uint16_t free_port(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&sa, len) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&sa, &len) == 0);
    close(fd);
    return ntohs(sa.sin_port);
}

struct fake_admin *fake_admin_open(uint32_t deadline_ms)
{
    struct fake_admin *f = xcalloc(1, sizeof *f);
    struct errmsg em = ERRMSG_INIT;
    f->calls = xcalloc(CALLS_MAX, sizeof *f->calls);
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/rap-admin-XXXXXX");
    CHECK(mkdtemp(f->dir) != NULL);
    (void)snprintf(f->socket, sizeof f->socket, "%s/rap.sock", f->dir);
    f->metrics_port = free_port();
    (void)snprintf(f->metrics, sizeof f->metrics, "127.0.0.1:%u", f->metrics_port);
    CHECK(pthread_mutex_init(&f->lock, NULL) == 0);
    CHECK(pthread_cond_init(&f->changed, NULL) == 0);
    CHECK(uv_loop_init(&f->loop) == 0);
    CHECK(uv_async_init(&f->loop, &f->wake, on_wake) == 0);
    f->wake.data = f;
    struct admin_config config = {.core_loop = &f->loop,
                                  .socket_path = f->socket,
                                  .metrics = f->metrics,
                                  .request_deadline_ms = deadline_ms,
                                  .data = f,
                                  .call = on_call};
    CHECK(admin_open(&config, &f->admin, &em) == 0);
    CHECK(pthread_create(&f->thread, NULL, run, f) == 0);
    return f;
}

void fake_admin_begin_close(struct fake_admin *f)
{
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    f->want_close = true;
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
    CHECK(uv_async_send(&f->wake) == 0);
}

void fake_admin_close(struct fake_admin *f)
{
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    bool begun = f->want_close;
    f->want_close = true;
    if (f->held != NULL && !f->release) {
        f->release = true;
        f->release_rc = -ERR_CANCELED;
    }
    bool wake = !begun || f->release;
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
    if (wake) {
        CHECK(uv_async_send(&f->wake) == 0);
    }
    CHECK(pthread_join(f->thread, NULL) == 0);
    CHECK(f->ended);
    CHECK(uv_loop_close(&f->loop) == 0);
    CHECK(pthread_mutex_destroy(&f->lock) == 0);
    CHECK(pthread_cond_destroy(&f->changed) == 0);
    CHECK(access(f->socket, F_OK) != 0); /* closing takes the socket away */
    for (size_t i = 0; i < f->rules_count; i++) {
        free(f->rules[i].json);
    }
    (void)rmdir(f->dir);
    free(f->release_json);
    free(f->calls);
    free(f);
}

const char *fake_admin_dir(const struct fake_admin *f)
{
    return f->dir;
}

const char *fake_admin_socket(const struct fake_admin *f)
{
    return f->socket;
}

uint16_t fake_admin_metrics_port(const struct fake_admin *f)
{
    return f->metrics_port;
}

static void add_rule(struct fake_admin *f, const char *method, const struct rule *rule)
{
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    CHECK(f->rules_count < RULES_MAX);
    struct rule *r = &f->rules[f->rules_count++];
    *r = *rule;
    (void)snprintf(r->method, sizeof r->method, "%s", method);
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
}

void fake_admin_rule(struct fake_admin *f, const char *method, int rc, const char *json, int times)
{
    struct rule r = {
        .rc = rc, .json = json == NULL ? NULL : xstrdup(json), .left = times == 0 ? -1 : times};
    add_rule(f, method, &r);
}

void fake_admin_hold(struct fake_admin *f, const char *method)
{
    struct rule r = {.left = 1, .hold = true};
    add_rule(f, method, &r);
}

void fake_admin_wait_held(struct fake_admin *f)
{
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    while (f->held == NULL) {
        CHECK(pthread_cond_wait(&f->changed, &f->lock) == 0);
    }
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
}

void fake_admin_release(struct fake_admin *f, int rc, const char *json)
{
    fake_admin_wait_held(f);
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    f->release = true;
    f->release_rc = rc;
    f->release_json = json == NULL ? NULL : xstrdup(json);
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
    CHECK(uv_async_send(&f->wake) == 0);
}

size_t fake_admin_calls(struct fake_admin *f)
{
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    size_t n = f->calls_count;
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
    return n;
}

void fake_admin_call(struct fake_admin *f, size_t i, char *out, size_t size)
{
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    (void)snprintf(out, size, "%s", i < f->calls_count ? f->calls[i].text : "");
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
}

struct uuid fake_admin_request_id(struct fake_admin *f, size_t i)
{
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    struct uuid id = i < f->calls_count ? f->calls[i].request_id : UUID_NIL;
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
    return id;
}

void fake_admin_actor(struct fake_admin *f, size_t i, char *out, size_t size)
{
    CHECK(pthread_mutex_lock(&f->lock) == 0);
    (void)snprintf(out, size, "%s", i < f->calls_count ? f->calls[i].actor : "");
    CHECK(pthread_mutex_unlock(&f->lock) == 0);
}
