/* The routes of /v1 as a table, and what a request line and body mean by it. Pure: no socket, no
 * clock. docs/openapi.yaml describes the same table (a test compares them). */
#ifndef RAP_ADMIN_API_H
#define RAP_ADMIN_API_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"

#define API_TARGET_MAX 4096      /* request target, in bytes */
#define API_VALUE_MAX 4096       /* one path, query or body value */
#define API_BODY_MAX (1u << 20)
#define API_ARGS_MAX (64u << 10) /* the document made of them */
#define API_TIMEOUT_DEFAULT_MS 30000u
#define API_TIMEOUT_MAX_MS 120000u
#define API_PARAMS_MAX 8

enum api_in { API_PATH, API_QUERY, API_BODY };
enum api_type { API_STR, API_UINT, API_DURATION, API_STRS, API_BOOL /* body only; 0 or 1 */ };

struct api_param {
    const char *name; /* in the path, the query or the body */
    const char *key;  /* in the arguments' document */
    enum api_in in;
    enum api_type type;
    bool required;
};

enum api_kind {
    API_READ,     /* takes ?stale */
    API_MUTATION, /* has a request id; takes ?dry_run */
    API_ACTION,   /* does something, but not by a replicated command: no request id, no dry run */
    API_LIVE,     /* answered without the core loop */
    API_TEXT,     /* the answer is no JSON but the "text" of the document */
    API_READY,    /* 200 or 503 by the answer of `call` */
};

struct api_route {
    const char *method;
    const char *path; /* "{id}" stands for one segment */
    const char *call; /* admin.h's method; NULL for API_LIVE */
    enum api_kind kind;
    int ok_status;
    struct api_param params[API_PARAMS_MAX]; /* up to the first without a name */
};
extern const struct api_route api_routes[]; /* ends with a NULL method */

/* What is wrong with a request, before anybody acted on it. */
struct api_fault {
    int status;
    const char *code; /* slug */
    char allow[40];   /* with 405: the methods there are */
    char pointer[96]; /* where: "/name" in the body, "?limit" in the query, "" elsewhere */
    struct errmsg em;
};

struct api_request {
    const struct api_route *route;
    struct buf args; /* document */
    struct uuid request_id;
    bool stale, dry_run;
    uint32_t timeout_ms;
};

struct api_input {
    const char *method;
    const char *target;          /* as it came: path, '?', query, both percent-encoded */
    const char *content_type;    /* NULL = none */
    const char *idempotency_key; /* NULL = none: the caller fills request_id in */
    struct blob body;
};

/* 0 and *ret (end it with api_request_fini), or -ERR_X and *fault. */
int api_parse(const struct api_input *in, struct api_request *ret, struct api_fault *fault);
void api_request_fini(struct api_request *r);

/* HTTP status of an error that came back from the core. */
int api_status(int rc);
/* Whether the same request may succeed a moment later (Retry-After). */
bool api_retry_later(int status);

/* RFC 9457: appends the problem as JSON. doc, if any, is admin_answer's. */
struct api_problem {
    int status;
    const char *code;
    const char *detail;  /* NULL: doc's "detail", else a text by status */
    const char *pointer; /* NULL or "": none */
    const char *path;    /* of the request */
    struct uuid request_id;
    struct blob doc;
};
void api_problem(const struct api_problem *p, struct buf *out);

/* "ready" of a status document; without that key, whether there is a quorum. */
bool api_status_ready(struct blob doc);

#endif
