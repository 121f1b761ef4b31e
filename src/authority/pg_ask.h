/* One question after the other to PostgreSQL, for who may wait: the owner's offline commands, and libuv's
 * pool. No wait is without an end, and each can be given up, for a server may be frozen. */
#ifndef RAP_AUTHORITY_PG_ASK_H
#define RAP_AUTHORITY_PG_ASK_H

#include "base/err.h"

#define PG_ASK_CONNECT_MS 10000
#define PG_ASK_ANSWER_MS 60000 /* without a byte from the server */

struct pg_conn;
struct pg_result;
struct pg_ask {
    struct pg_conn *conn;
    bool (*go_on)(void *data); /* asked several times a second while waiting; NULL: always */
    void *data;
    struct errmsg *em;
};

/* Opens a->conn. -ERR_UNREACHABLE, -ERR_CANCELED (go_on said no). */
int pg_ask_open(struct pg_ask *a, const char *dsn, const char *application_name);
/* Parameters are text. 0 and a result for PQclear; -ERR_SCHEMA (no such table or column), -ERR_UNREACHABLE,
 * -ERR_CANCELED. After an error the connection is good for closing only. */
int pg_ask(struct pg_ask *a, const char *sql, int count, const char *const *params,
           struct pg_result **ret);
/* NULL-safe. */
void pg_ask_close(struct pg_ask *a);

#endif
