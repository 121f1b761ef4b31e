#include "authority/pg_ask.h"

#include "base/clock.h"

#include <libpq-fe.h>
#include <poll.h>

#define SLICE_MS 100

static int fail(struct pg_ask *a, int rc, const char *what, const char *text)
{
    (void)errmsg_set(a->em, rc, "%s%s", what, text);
    if (a->em != NULL) {
        a->em->text[strcspn(a->em->text, "\n")] = '\0';
    }
    return rc;
}

/* Until the socket is ready. */
static int wait_for(struct pg_ask *a, short events, uint64_t limit_ms)
{
    uint64_t end = clock_mono_ms() + limit_ms;
    for (;;) {
        struct pollfd fd = {.fd = PQsocket(a->conn), .events = events};
        if (poll(&fd, 1, SLICE_MS) > 0) {
            return 0;
        }
        if (a->go_on != NULL && !a->go_on(a->data)) {
            return fail(a, -ERR_CANCELED, "ended", "");
        }
        if (clock_mono_ms() >= end) {
            return fail(a, -ERR_UNREACHABLE, "PostgreSQL does not answer", "");
        }
    }
}

int pg_ask_open(struct pg_ask *a, const char *dsn, const char *application_name)
{
    const char *keys[] = {"dbname", "application_name", "client_encoding", NULL};
    const char *values[] = {dsn, application_name, "UTF8", NULL};
    a->conn = PQconnectStartParams(keys, values, 1);
    if (a->conn == NULL || PQstatus(a->conn) == CONNECTION_BAD) {
        return fail(a, -ERR_UNREACHABLE,
                    "connect: ", a->conn == NULL ? "out of memory" : PQerrorMessage(a->conn));
    }
    PostgresPollingStatusType step = PGRES_POLLING_WRITING;
    int rc = 0;
    while (rc == 0 && step != PGRES_POLLING_OK) {
        rc = wait_for(a, step == PGRES_POLLING_READING ? POLLIN : POLLOUT, PG_ASK_CONNECT_MS);
        step = rc == 0 ? PQconnectPoll(a->conn) : step;
        if (step == PGRES_POLLING_FAILED) {
            rc = fail(a, -ERR_UNREACHABLE, "connect: ", PQerrorMessage(a->conn));
        }
    }
    return rc;
}

/* Until libpq can hand out the next result without waiting. */
static int wait_result(struct pg_ask *a)
{
    int rc = 0;
    while (rc == 0 && PQisBusy(a->conn) == 1) {
        rc = wait_for(a, POLLIN, PG_ASK_ANSWER_MS);
        if (rc == 0 && PQconsumeInput(a->conn) != 1) {
            rc = fail(a, -ERR_UNREACHABLE, "", PQerrorMessage(a->conn));
        }
    }
    return rc;
}

static int check(struct pg_ask *a, const PGresult *r)
{
    ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
        return 0;
    }
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    bool schema = state != NULL && (strcmp(state, "42P01") == 0 || strcmp(state, "42703") == 0 ||
                                    strcmp(state, "3F000") == 0);
    text = text == NULL ? PQerrorMessage(a->conn) : text;
    return schema ? errmsg_set(a->em, -ERR_SCHEMA,
                               "%s; a mirror this program can read has a schema made by its `rap "
                               "mirror migrate`",
                               text)
                  : fail(a, -ERR_UNREACHABLE, "", text);
}

int pg_ask(struct pg_ask *a, const char *sql, int count, const char *const *params, PGresult **ret)
{
    if (PQsendQueryParams(a->conn, sql, count, NULL, params, NULL, NULL, 0) != 1) {
        return fail(a, -ERR_UNREACHABLE, "", PQerrorMessage(a->conn));
    }
    int rc = wait_result(a);
    if (rc != 0) {
        return rc;
    }
    PGresult *r = PQgetResult(a->conn);
    rc = check(a, r);
    rc = rc != 0 ? rc : wait_result(a); /* the NULL that ends the answer may be a packet away */
    if (rc == 0) {
        PQclear(PQgetResult(a->conn));
        *ret = r;
    } else {
        PQclear(r);
    }
    return rc;
}

void pg_ask_close(struct pg_ask *a)
{
    PQfinish(a->conn);
    a->conn = NULL;
}
