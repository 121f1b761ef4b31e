/* One connection to PostgreSQL on the core loop, always in pipeline mode: libpq without a blocking
 * call (DESIGN D8). Host names are resolved in libuv's pool before libpq sees them.
 *
 * Happy path: pg_link_open -> up -> any number of pg_prepare, pg_query, pg_run, pg_sync, whose results
 * come in order, each with the tag it was sent with -> pg_link_close.
 * Failure paths: it does not come up, or the server goes away: lost, once, with the reason. What was
 * sent and not answered has an unknown outcome. After lost only pg_link_close is allowed.
 *
 * Statements up to one pg_sync are one transaction unless they say BEGIN. After an error the server
 * skips what follows up to the next pg_sync; those come back as PG_SKIPPED. */
#ifndef RAP_AUTHORITY_PG_LINK_H
#define RAP_AUTHORITY_PG_LINK_H

#include "base/buf.h"
#include "base/err.h"

#include <uv.h>

/* --- connection strings (libpq's own: "host=... dbname=..." or postgresql://) --- */

/* Checks a string that is to be replicated: only known parameters, no secret in it (-ERR_DENIED), and
 * a verified TLS connection unless the server is on this host or allow_insecure. out gets it in one
 * canonical form. */
int pg_dsn_check(const char *dsn, bool allow_insecure, struct buf *out, struct errmsg *em);

struct pg_hosts;
/* The servers a string names (pg_hosts.h). -ERR_INVALID with words in em. */
int pg_dsn_hosts(const char *dsn, struct pg_hosts *ret, struct errmsg *em);

/* --- the link --- */
struct pg_link;

enum pg_status {
    PG_ROWS,    /* rows, maybe none */
    PG_DONE,    /* a statement without rows, or one that was prepared */
    PG_FAILED,  /* sqlstate and message */
    PG_SKIPPED, /* an earlier statement of the same transaction failed */
    PG_SYNCED,  /* pg_sync: what was before it is committed, unless it failed */
};

struct pg_answer {
    enum pg_status status;
    unsigned tag;
    int rows;
    char sqlstate[6];
    const char *message; /* one line */
    void *impl;
};
/* Valid during the callback. NULL for SQL's NULL. */
const char *pg_value(const struct pg_answer *a, int row, int column, size_t *ret_len);
int64_t pg_int(const struct pg_answer *a, int row, int column);

struct pg_link_config {
    uv_loop_t *loop;
    const char *dsn; /* copied */
    const char *application_name;
    size_t first; /* of the string's servers, where to begin, counted round */
    void *data;
    /* On later turns. All may call pg_link_close. */
    void (*up)(void *data);
    void (*lost)(void *data, const char *why);
    void (*answer)(void *data, const struct pg_answer *a);
};

/* Never fails at once: lost comes later. */
struct pg_link *pg_link_open(const struct pg_link_config *config);
/* No callback runs afterwards but cb, on a later turn, when the memory is gone. NULL ok. */
void pg_link_close(struct pg_link *l, void (*cb)(void *data), void *data);

/* Parameters are text; NULL is SQL's NULL. They are copied. */
void pg_prepare(struct pg_link *l, unsigned tag, const char *name, const char *sql);
/* One statement of SQL with parameters. */
void pg_query(struct pg_link *l, unsigned tag, const char *sql, int count,
              const char *const *params);
/* A prepared one. */
void pg_run(struct pg_link *l, unsigned tag, const char *name, int count,
            const char *const *params);
void pg_sync(struct pg_link *l, unsigned tag);
/* Sent and not answered yet. */
size_t pg_pending(const struct pg_link *l);
/* "150020" as libpq counts it; 0 before up. */
int pg_server_version(const struct pg_link *l);

#endif
