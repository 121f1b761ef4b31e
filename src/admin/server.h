/* Between the two halves of the edge: admin.c on the core loop's thread, http.c on its own. */
#ifndef RAP_ADMIN_SERVER_H
#define RAP_ADMIN_SERVER_H

#include "admin/admin.h"
#include "base/buf.h"

#define SERVER_DOC_MAX (16u << 20) /* one answer: a page of 500 rows fits many times over */
#define SERVER_CONNECTIONS_MAX 128
#define SERVER_DEADLINE_MS 15000u

struct http;
struct request;

/* One call on its way. The http thread makes it; from then on whoever has it in hand owns it,
 * except that `request` belongs to the http thread always. */
struct call {
    struct admin_call pub;
    struct admin *admin;
    struct request *request; /* NULL: nobody waits for the answer any more */
    struct buf args;
    int rc;
    struct buf doc;
    struct call *next;
};

struct call_queue {
    struct call *head, *tail;
};
void call_queue_push(struct call_queue *q, struct call *c);
struct call *call_queue_pop(struct call_queue *q);
void call_free(struct call *c);

/* --- http.c, called on the core thread before the thread starts and after it ended --- */
struct http_config {
    const char *socket_path;
    const char *metrics; /* as in admin_config */
    uint32_t deadline_ms;
    void *data;
    void (*dispatch)(void *data, struct call *c); /* http thread: hands c to the core loop */
    void (*wake)(void *data);                     /* http thread: somebody called http_wake */
    void (*ending)(void *data);                   /* http thread: no http_wake after this */
};
int http_open(const struct http_config *config, struct http **ret, struct errmsg *em);
/* The thread's body: until http_stop has run its course. */
void http_run(struct http *h);
void http_free(struct http *h);

/* --- http thread, from config.wake --- */
void http_answer(struct http *h, struct call *c); /* takes c */
void http_stop(struct http *h);
/* Any thread, until config.ending. */
void http_wake(struct http *h);

#endif
