/* Errors as HTTP: the one switch from our codes to statuses, and RFC 9457 bodies. */
#include "admin/api.h"

#include "admin/json.h"
#include "wire/mp.h"

int api_status(int rc)
{
    switch ((enum err)(-rc)) {
        case ERR_INVALID:
        case ERR_MALFORMED:
        case ERR_BAD_CSR:
        case ERR_BAD_CERT:
        case ERR_BAD_SIGNATURE:
        case ERR_ROLE_UNKNOWN:
        case ERR_BAD_NAME:
            return 400;
        case ERR_DENIED:
        case ERR_NOT_AUTHORITY:
        case ERR_SCOPE:
        case ERR_TOKEN_SCOPE:
        case ERR_REVOKED:
        case ERR_CERT_EXPIRED:
        case ERR_NOT_WITNESSED:
        case ERR_BAD_PROOF:
        case ERR_BAD_SET:
        case ERR_HISTORY:
        case ERR_NO_CERT:
        case ERR_SUSPENDED:
            return 403;
        case ERR_NOT_FOUND:
        case ERR_TOKEN_UNKNOWN:
            return 404;
        case ERR_CONFLICT:
        case ERR_EXISTS:
        case ERR_AMBIGUOUS:
        case ERR_FENCED:
        case ERR_WRONG_CLUSTER:
        case ERR_WRONG_NODE:
        case ERR_ROLLBACK:
        case ERR_EXPIRED:
        case ERR_TOKEN_EXPIRED:
        case ERR_TOKEN_REVOKED:
        case ERR_TOKEN_USED:
        case ERR_KEY_KNOWN:
        case ERR_KEY_REVOKED:
        case ERR_NAME_TAKEN:
        case ERR_FINGERPRINT:
        case ERR_DECIDED:
        case ERR_REJECTED:
        case ERR_CAPABILITY:
        case ERR_LAST_VOTER:
        case ERR_SPLIT_NOT_READY:
        case ERR_ADDRESS_TAKEN:
            return 409;
        case ERR_TOO_LARGE:
            return 413;
        case ERR_REUSED_ID:
            return 422;
        case ERR_RATE_LIMITED:
            return 429;
        case ERR_IO:
        case ERR_CORRUPT:
        case ERR_SCHEMA:
        case ERR_CRYPTO:
        case ERR_DIVERGED:
            return 500;
        case ERR_UNSUPPORTED:
            return 501;
        case ERR_BUSY:
        case ERR_CANCELED:
        case ERR_CLOSED:
        case ERR_UNREACHABLE:
        case ERR_NO_QUORUM:
        case ERR_NOT_LEADER:
        case ERR_OUTCOME_UNKNOWN:
        case ERR_NO_SERVICE:
        case ERR_MIRROR_UNAVAILABLE:
            return 503;
        case ERR_TIMEOUT:
            return 504;
    }
    return 500; /* a number from a newer peer */
}

bool api_retry_later(int status)
{
    return status == 503 || status == 429;
}

static const char *status_title(int status)
{
    switch (status) {
        case 400:
            return "Bad Request";
        case 403:
            return "Forbidden";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 409:
            return "Conflict";
        case 413:
            return "Content Too Large";
        case 415:
            return "Unsupported Media Type";
        case 422:
            return "Unprocessable Content";
        case 429:
            return "Too Many Requests";
        case 501:
            return "Not Implemented";
        case 503:
            return "Service Unavailable";
        case 504:
            return "Gateway Timeout";
        default:
            return "Internal Server Error";
    }
}

static bool is_reserved(struct blob key)
{
    static const char *const names[] = {"type",     "title", "status",     "detail",
                                        "instance", "code",  "request_id", "errors"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (blob_equal(key, blob_str(names[i]))) {
            return true;
        }
    }
    return false;
}

static void put_members(struct mp_writer *w, struct mp_doc *d, struct blob doc)
{
    struct mp_reader r;
    mp_reader_init(&r, doc);
    uint32_t n = mp_get_map(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n; i++) {
        struct blob key = mp_get_str(&r, 64);
        struct blob value = mp_skip(&r);
        if (r.err != 0) {
            return;
        }
        if (!is_reserved(key)) {
            d->count++;
            mp_put_strn(w, (const char *)key.data, key.len);
            mp_put_raw(w, value);
        }
    }
}

void api_problem(const struct api_problem *p, struct buf *out)
{
    char type[80];
    char detail[512];
    mp_find_str(p->doc, "detail", detail, sizeof detail);
    if (p->detail != NULL) {
        (void)snprintf(detail, sizeof detail, "%s", p->detail);
    } else if (detail[0] == '\0') {
        (void)snprintf(detail, sizeof detail, "%s", err_text(err_from_slug(p->code)));
    }
    (void)snprintf(type, sizeof type, "urn:rap:problem:%s", p->code);

    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 1u << 20);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_str(&w, &d, "type", type);
    mp_doc_str(&w, &d, "title", status_title(p->status));
    mp_doc_int(&w, &d, "status", p->status);
    mp_doc_str(&w, &d, "detail", detail);
    mp_doc_str(&w, &d, "instance", p->path);
    mp_doc_str(&w, &d, "code", p->code);
    if (!uuid_is_nil(&p->request_id)) {
        mp_doc_uuid(&w, &d, "request_id", &p->request_id);
    }
    if (p->pointer != NULL && p->pointer[0] != '\0') {
        struct mp_doc e;
        mp_doc_key(&w, &d, "errors");
        mp_put_array(&w, 1);
        mp_doc_begin(&w, &e);
        mp_doc_str(&w, &e, "pointer", p->pointer);
        mp_doc_str(&w, &e, "code", p->code);
        mp_doc_str(&w, &e, "detail", detail);
        mp_doc_end(&w, &e);
    }
    put_members(&w, &d, p->doc);
    mp_doc_end(&w, &d);
    size_t start = out->len;
    if (doc.err != 0 || json_from_doc(buf_blob(&doc), JSON_HIDE, out) != 0) {
        /* The core's own document does not read: a problem without its members. */
        out->len = start;
        out->err = 0;
        buf_addf(out, "{\"type\":\"urn:rap:problem:%s\",\"status\":%d,\"code\":\"%s\"}", p->code,
                 p->status, p->code);
    }
    buf_fini(&doc);
}

bool api_status_ready(struct blob doc)
{
    return mp_find_bool(doc, mp_find(doc, "ready").len > 0 ? "ready" : "quorum");
}
