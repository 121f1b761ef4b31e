#include "authority/pg_link.h"

#include "authority/pg_hosts.h"
#include "base/log.h"

#include <libpq-fe.h>
#include <netdb.h>
#include <sys/queue.h>

#define PARAMS_MAX 64

struct sent {
    unsigned tag;
    bool sync;
    bool answered; /* its result came; libpq's end of it has not */
    STAILQ_ENTRY(sent) link;
};

struct pg_link {
    struct pg_link_config config;
    char *dsn, *name;
    PGconn *conn;
    uv_poll_t poll;
    uv_timer_t later; /* lost, on a later turn */
    bool poll_live;   /* initialised and not closed */
    bool poll_closing;
    bool connecting, up, down, closing;
    int want; /* uv events while connecting */
    char why[512];

    uv_getaddrinfo_t lookup;
    bool looking;
    struct pg_hosts given; /* as the string has them, */
    size_t next;           /* the first of them that was not looked at, */
    struct pg_hosts found; /* and where they are */
    struct pg_lists lists; /* for libpq */

    STAILQ_HEAD(, sent) sent;
    size_t sent_count;
    int open_handles;
    void (*close_cb)(void *data);
    void *close_data;
};

static void on_poll(uv_poll_t *h, int status, int events);
static void watch(struct pg_link *l);

/* --- ending --- */

static void one_line(const char *from, char *to, size_t size)
{
    size_t n = 0;
    for (; *from != '\0' && n + 1 < size; from++) {
        bool space = (unsigned char)*from < 0x20 || *from == ' ' || *from == '"';
        if (!space) {
            to[n++] = *from;
        } else if (n > 0 && to[n - 1] != ' ') {
            to[n++] = ' ';
        }
    }
    while (n > 0 && to[n - 1] == ' ') {
        n--;
    }
    to[n] = '\0';
}

static void on_later(uv_timer_t *t)
{
    struct pg_link *l = t->data;
    if (!l->closing) {
        l->config.lost(l->config.data, l->why);
    }
}

static void lose(struct pg_link *l, const char *why)
{
    if (l->down || l->closing) {
        return;
    }
    l->down = true;
    l->up = false;
    one_line(why == NULL || why[0] == '\0' ? "connection lost" : why, l->why, sizeof l->why);
    if (l->poll_live) {
        (void)uv_poll_stop(&l->poll);
    }
    (void)uv_timer_start(&l->later, on_later, 0, 0);
}

static void finish_close(struct pg_link *l)
{
    if (l->open_handles > 0 || l->looking) {
        return;
    }
    PQfinish(l->conn);
    struct sent *s;
    while ((s = STAILQ_FIRST(&l->sent)) != NULL) {
        STAILQ_REMOVE_HEAD(&l->sent, link);
        free(s);
    }
    pg_lists_fini(&l->lists);
    free(l->dsn);
    free(l->name);
    if (l->close_cb != NULL) {
        l->close_cb(l->close_data);
    }
    free(l);
}

static void on_closed(uv_handle_t *h)
{
    struct pg_link *l = h->data;
    l->open_handles--;
    if (h == (uv_handle_t *)&l->poll) {
        l->poll_closing = false;
        if (!l->closing) {
            watch(l); /* libpq has moved on to another socket */
            return;
        }
    }
    if (l->closing) {
        finish_close(l);
    }
}

static void close_poll(struct pg_link *l)
{
    if (l->poll_live) {
        l->poll_live = false;
        l->poll_closing = true;
        uv_close((uv_handle_t *)&l->poll, on_closed);
    }
}

void pg_link_close(struct pg_link *l, void (*cb)(void *data), void *data)
{
    if (l == NULL) {
        return;
    }
    CHECK(!l->closing);
    l->closing = true;
    l->close_cb = cb;
    l->close_data = data;
    if (l->looking) {
        (void)uv_cancel((uv_req_t *)&l->lookup);
    }
    close_poll(l);
    uv_close((uv_handle_t *)&l->later, on_closed);
}

/* --- connecting --- */

/* While it connects, libpq changes its socket from one address to the next. The old descriptor is
 * closed by then, and the number may be the same one again, so the handle is made anew each time. */
static void watch(struct pg_link *l)
{
    if (l->closing || l->down || l->poll_closing) {
        return;
    }
    int fd = PQsocket(l->conn);
    if (fd < 0) {
        lose(l, PQerrorMessage(l->conn));
        return;
    }
    if (!l->poll_live) {
        if (uv_poll_init(l->config.loop, &l->poll, fd) != 0) {
            lose(l, "the socket cannot be watched");
            return;
        }
        l->poll.data = l;
        l->poll_live = true;
        l->open_handles++;
    }
    (void)uv_poll_start(&l->poll, l->want, on_poll);
}

static void became_up(struct pg_link *l)
{
    if (PQsetnonblocking(l->conn, 1) != 0 || PQenterPipelineMode(l->conn) != 1) {
        lose(l, PQerrorMessage(l->conn));
        return;
    }
    l->connecting = false;
    l->up = true;
    l->want = UV_READABLE;
    watch(l);
    l->config.up(l->config.data);
}

static void keep_connecting(struct pg_link *l)
{
    switch (PQconnectPoll(l->conn)) {
        case PGRES_POLLING_OK:
            became_up(l);
            return;
        case PGRES_POLLING_READING:
            l->want = UV_READABLE;
            break;
        case PGRES_POLLING_WRITING:
            l->want = UV_WRITABLE;
            break;
        case PGRES_POLLING_FAILED:
        case PGRES_POLLING_ACTIVE:
            lose(l, PQerrorMessage(l->conn));
            return;
    }
    close_poll(l);
}

static void ignore_notice(void *arg, const char *message)
{
    (void)arg;
    (void)message; /* libpq would print it on stderr */
}

static void start_connect(struct pg_link *l)
{
    pg_hosts_join(&l->found, l->config.first, &l->lists);
    const char *addresses = l->lists.has_addresses ? buf_cstr(&l->lists.addresses) : NULL;
    const char *ports = l->lists.has_ports ? buf_cstr(&l->lists.ports) : NULL;
    /* What stands later wins: our defaults, the string with all it says, and what is not its to say. */
    const char *keys[] = {"connect_timeout",
                          "tcp_user_timeout",
                          "keepalives_idle",
                          "dbname",
                          "host",
                          "hostaddr",
                          "port",
                          "application_name",
                          "client_encoding",
                          "gssencmode",
                          NULL};
    const char *values[] = {"5",       "10000", "5",     l->dsn, buf_cstr(&l->lists.hosts),
                            addresses, ports,   l->name, "UTF8", "disable",
                            NULL};
    l->conn = PQconnectStartParams(keys, values, 1);
    if (l->conn == NULL || PQstatus(l->conn) == CONNECTION_BAD) {
        lose(l, l->conn == NULL ? "out of memory" : PQerrorMessage(l->conn));
        return;
    }
    (void)PQsetNoticeProcessor(l->conn, ignore_notice, NULL);
    l->connecting = true;
    l->want = UV_WRITABLE;
    watch(l);
}

/* --- names to addresses, in the pool: libpq would block the loop --- */

static bool address_text(const struct addrinfo *ai, char *out, size_t size)
{
    if (ai->ai_family == AF_INET) {
        return uv_ip4_name((struct sockaddr_in *)(void *)ai->ai_addr, out, size) == 0;
    }
    return ai->ai_family == AF_INET6 &&
           uv_ip6_name((struct sockaddr_in6 *)(void *)ai->ai_addr, out, size) == 0;
}

static void look_up_next(struct pg_link *l);

static void found(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct pg_link *l = req->data;
    l->looking = false;
    if (l->closing) {
        uv_freeaddrinfo(res);
        finish_close(l);
        return;
    }
    /* A name that is not known keeps nobody from the other hosts. */
    size_t count = 0;
    for (const struct addrinfo *ai = status == 0 ? res : NULL;
         ai != NULL && count < PG_ADDRESSES_MAX; ai = ai->ai_next) {
        char text[64];
        if (address_text(ai, text, sizeof text)) {
            pg_hosts_add(&l->found, &l->given.list[l->next - 1], text);
            count++;
        }
    }
    uv_freeaddrinfo(res);
    look_up_next(l);
}

static void look_up_next(struct pg_link *l)
{
    while (l->next < l->given.count) {
        const struct pg_place *p = &l->given.list[l->next++];
        if (!pg_place_is_name(p)) {
            pg_hosts_add(&l->found, p, NULL);
            continue;
        }
        struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
        l->lookup.data = l;
        if (uv_getaddrinfo(l->config.loop, &l->lookup, found, p->host, NULL, &hints) != 0) {
            lose(l, "the host name of PostgreSQL cannot be looked up");
            return;
        }
        l->looking = true;
        return;
    }
    if (l->found.count == 0) {
        lose(l, "the host name of PostgreSQL does not resolve");
        return;
    }
    start_connect(l);
}

static void look_up_hosts(struct pg_link *l)
{
    struct errmsg em = ERRMSG_INIT;
    if (pg_dsn_hosts(l->dsn, &l->given, &em) != 0) {
        lose(l, em.text);
        return;
    }
    look_up_next(l);
}

static void on_start(uv_timer_t *t)
{
    struct pg_link *l = t->data;
    if (!l->closing) {
        look_up_hosts(l);
    }
}

struct pg_link *pg_link_open(const struct pg_link_config *config)
{
    struct pg_link *l = xcalloc(1, sizeof *l);
    l->config = *config;
    l->dsn = xstrdup(config->dsn);
    l->name = xstrdup(config->application_name);
    STAILQ_INIT(&l->sent);
    CHECK(uv_timer_init(config->loop, &l->later) == 0);
    l->later.data = l;
    l->open_handles = 1;
    CHECK(uv_timer_start(&l->later, on_start, 0, 0) == 0);
    return l;
}

/* --- sending --- */

static void flush(struct pg_link *l)
{
    if (!l->up) {
        return;
    }
    int left = PQflush(l->conn);
    if (left < 0) {
        lose(l, PQerrorMessage(l->conn));
        return;
    }
    int want = UV_READABLE | (left > 0 ? UV_WRITABLE : 0);
    if (want != l->want) {
        l->want = want;
        watch(l);
    }
}

static void note(struct pg_link *l, unsigned tag, bool sync, int ok)
{
    if (ok != 1) {
        lose(l, PQerrorMessage(l->conn));
        return;
    }
    struct sent *s = xcalloc(1, sizeof *s);
    s->tag = tag;
    s->sync = sync;
    STAILQ_INSERT_TAIL(&l->sent, s, link);
    l->sent_count++;
}

void pg_prepare(struct pg_link *l, unsigned tag, const char *name, const char *sql)
{
    if (l->up) {
        note(l, tag, false, PQsendPrepare(l->conn, name, sql, 0, NULL));
    }
}

void pg_query(struct pg_link *l, unsigned tag, const char *sql, int count,
              const char *const *params)
{
    if (l->up) {
        note(l, tag, false, PQsendQueryParams(l->conn, sql, count, NULL, params, NULL, NULL, 0));
    }
}

void pg_run(struct pg_link *l, unsigned tag, const char *name, int count, const char *const *params)
{
    if (l->up) {
        note(l, tag, false, PQsendQueryPrepared(l->conn, name, count, params, NULL, NULL, 0));
    }
}

void pg_sync(struct pg_link *l, unsigned tag)
{
    if (l->up) {
        note(l, tag, true, PQpipelineSync(l->conn));
        flush(l);
    }
}

size_t pg_pending(const struct pg_link *l)
{
    return l->sent_count;
}

int pg_server_version(const struct pg_link *l)
{
    return l->up ? PQserverVersion(l->conn) : 0;
}

/* --- receiving --- */

const char *pg_value(const struct pg_answer *a, int row, int column, size_t *ret_len)
{
    const PGresult *r = a->impl;
    if (column >= PQnfields(r) || PQgetisnull(r, row, column)) {
        return NULL;
    }
    if (ret_len != NULL) {
        *ret_len = (size_t)PQgetlength(r, row, column);
    }
    return PQgetvalue(r, row, column);
}

int64_t pg_int(const struct pg_answer *a, int row, int column)
{
    const char *text = pg_value(a, row, column, NULL);
    return text == NULL ? 0 : strtoll(text, NULL, 10);
}

static void deliver(struct pg_link *l, unsigned tag, PGresult *r)
{
    char message[256] = "";
    struct pg_answer a = {.tag = tag, .message = message, .impl = r};
    switch (PQresultStatus(r)) {
        case PGRES_TUPLES_OK:
            a.status = PG_ROWS;
            a.rows = PQntuples(r);
            break;
        case PGRES_COMMAND_OK:
        case PGRES_EMPTY_QUERY:
            a.status = PG_DONE;
            break;
        case PGRES_PIPELINE_ABORTED:
            a.status = PG_SKIPPED;
            break;
        case PGRES_PIPELINE_SYNC:
            a.status = PG_SYNCED;
            break;
        default: { /* libpq's list is open-ended */
            const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
            const char *text = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
            a.status = PG_FAILED;
            (void)snprintf(a.sqlstate, sizeof a.sqlstate, "%s", state == NULL ? "" : state);
            one_line(text == NULL ? PQresultErrorMessage(r) : text, message, sizeof message);
        }
    }
    l->config.answer(l->config.data, &a);
}

/* A statement answers with a result and then libpq's NULL, a sync with one result. */
static void drain(struct pg_link *l)
{
    while (l->up && !l->closing && !STAILQ_EMPTY(&l->sent) && PQisBusy(l->conn) == 0) {
        struct sent *s = STAILQ_FIRST(&l->sent);
        PGresult *r = PQgetResult(l->conn);
        if (r == NULL && !s->answered) {
            break; /* nothing yet */
        }
        bool over = r == NULL || s->sync;
        unsigned tag = s->tag;
        s->answered = true;
        if (over) {
            STAILQ_REMOVE_HEAD(&l->sent, link);
            l->sent_count--;
            free(s);
        }
        if (r != NULL) {
            deliver(l, tag, r);
            PQclear(r);
        }
    }
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct pg_link *l = h->data;
    if (l->closing || l->down) {
        return;
    }
    if (l->connecting) {
        keep_connecting(l);
        return;
    }
    if (status < 0) {
        lose(l, uv_strerror(status));
        return;
    }
    if ((events & UV_READABLE) != 0) {
        if (PQconsumeInput(l->conn) != 1) {
            drain(l); /* what came before the end, such as the reason for it */
            if (!l->closing) {
                lose(l, PQerrorMessage(l->conn));
            }
            return;
        }
        drain(l);
    }
    if (!l->closing && !l->down) {
        flush(l);
    }
    if (!l->closing && !l->down && PQstatus(l->conn) == CONNECTION_BAD) {
        lose(l, PQerrorMessage(l->conn));
    }
}
