#include "admin/api.h"

#include "admin/json.h"
#include "base/clock.h"
#include "base/text.h"
#include "wire/limits.h"
#include "wire/mp.h"

static int fault_set(struct api_fault *f, int rc, int status, const char *pointer, const char *fmt,
                     ...) PRINTF_LIKE(5, 6);
static int fault_set(struct api_fault *f, int rc, int status, const char *pointer, const char *fmt,
                     ...)
{
    va_list ap;
    f->status = status;
    f->code = err_slug(rc);
    (void)snprintf(f->pointer, sizeof f->pointer, "%s", pointer);
    va_start(ap, fmt);
    (void)vsnprintf(f->em.text, sizeof f->em.text, fmt, ap);
    va_end(ap);
    return rc;
}

/* RFC 3986 section 2.1, and what comes out must be clean text. false: refuse. */
static bool unescape(struct blob in, bool plus_is_space, char *out, size_t out_size)
{
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        char c = (char)in.data[i];
        if (c == '%') {
            if (in.len - i < 3) {
                return false;
            }
            char pair[3] = {(char)in.data[i + 1], (char)in.data[i + 2], '\0'};
            uint8_t byte;
            if (hex_decode(pair, &byte, 1) != 0) {
                return false;
            }
            c = (char)byte;
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (n + 1 >= out_size) {
            return false;
        }
        out[n++] = c;
    }
    out[n] = '\0';
    return text_is_clean(out, n);
}

enum fit { FITS, FITS_BADLY, FITS_NOT };

/* Puts the value of "{id}" in ret_id. FITS_BADLY: the path has the shape, but that value is not
 * acceptable. */
static enum fit path_fit(const char *template, struct blob path, char *ret_id, size_t size)
{
    const char *p = (const char *)path.data;
    const char *end = p + path.len;
    enum fit fit = FITS;
    while (*template != '\0') {
        if (*template != '{') {
            if (p == end || *p != *template) {
                return FITS_NOT;
            }
            p++;
            template ++;
            continue;
        }
        const char *stop = memchr(p, '/', (size_t)(end - p));
        stop = stop == NULL ? end : stop;
        if (stop == p) {
            return FITS_NOT;
        }
        if (!unescape(blob_of(p, (size_t)(stop - p)), false, ret_id, size)) {
            fit = FITS_BADLY;
        }
        p = stop;
        template = strchr(template, '}') + 1;
    }
    return p == end ? fit : FITS_NOT;
}

static bool method_is(const struct api_route *r, const char *method)
{
    /* HEAD is GET without the body, which the server leaves out by itself (RFC 9110 9.3.2). */
    return strcmp(method, strcmp(method, "HEAD") == 0 && strcmp(r->method, "GET") == 0
                              ? "HEAD"
                              : r->method) == 0;
}

static int find_route(const char *method, struct blob path, const struct api_route **ret, char *id,
                      size_t id_size, struct api_fault *f)
{
    bool any = false;
    f->allow[0] = '\0';
    for (const struct api_route *r = api_routes; r->method != NULL; r++) {
        enum fit fit = path_fit(r->path, path, id, id_size);
        if (fit == FITS_NOT) {
            continue;
        }
        if (fit == FITS_BADLY) {
            return fault_set(f, -ERR_INVALID, 400, "", "the path is not properly encoded text");
        }
        if (method_is(r, method)) {
            *ret = r;
            return 0;
        }
        any = true;
        size_t n = strlen(f->allow);
        (void)snprintf(f->allow + n, sizeof f->allow - n, "%s%s", n == 0 ? "" : ", ",
                       strcmp(r->method, "GET") == 0 ? "GET, HEAD" : r->method);
    }
    if (!any) {
        return fault_set(f, -ERR_NOT_FOUND, 404, "", "there is no such path");
    }
    (void)fault_set(f, -ERR_UNSUPPORTED, 405, "", "%.16s is not possible here; possible: %s",
                    method, f->allow);
    f->code = "method_not_allowed";
    return -ERR_UNSUPPORTED;
}

/* Reading one request: what was said of each parameter so far, and the document being written. */
struct parse {
    struct api_request *req;
    struct api_fault *fault;
    struct mp_writer w;
    struct mp_doc doc;
    bool seen[API_PARAMS_MAX];
};

static const struct api_param *param_of(const struct api_route *r, enum api_in in, struct blob name,
                                        size_t *ret_index)
{
    for (size_t i = 0; i < API_PARAMS_MAX && r->params[i].name != NULL; i++) {
        if (r->params[i].in == in && blob_equal(name, blob_str(r->params[i].name))) {
            *ret_index = i;
            return &r->params[i];
        }
    }
    return NULL;
}

static void pointer_to(const char *lead, struct blob name, char out[96])
{
    int len = name.len > 60 || !text_is_clean((const char *)name.data, name.len) ? 0
                                                                                 : (int)name.len;
    (void)snprintf(out, 96, "%s%.*s", lead, len, (const char *)name.data);
}

static int parse_uint(const char *text, uint64_t *ret)
{
    uint64_t v = 0;
    if (text[0] == '\0' || strlen(text) > 9) {
        return -ERR_INVALID;
    }
    for (const char *c = text; *c != '\0'; c++) {
        if (*c < '0' || *c > '9') {
            return -ERR_INVALID;
        }
        v = v * 10 + (uint64_t)(*c - '0');
    }
    *ret = v;
    return 0;
}

/* A value that came as text: path, query, or a string in the body. */
static int put_text(struct parse *p, const struct api_param *param, const char *pointer,
                    const char *text)
{
    uint64_t number;
    int64_t ms;
    switch (param->type) {
        case API_STR:
            mp_doc_str(&p->w, &p->doc, param->key, text);
            return 0;
        case API_UINT:
            if (param->in != API_QUERY || parse_uint(text, &number) != 0) {
                return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s: not a whole number",
                                 param->name);
            }
            if (strcmp(param->name, "limit") == 0 && (number == 0 || number > PAGE_MAX)) {
                return fault_set(p->fault, -ERR_INVALID, 400, pointer, "limit: 1 to %d", PAGE_MAX);
            }
            mp_doc_int(&p->w, &p->doc, param->key, (int64_t)number);
            return 0;
        case API_DURATION:
            if (clock_parse_duration(text, &ms) != 0) {
                return fault_set(p->fault, -ERR_INVALID, 400, pointer,
                                 "%s: not a duration such as \"30s\", \"15m\", \"1h\"",
                                 param->name);
            }
            mp_doc_int(&p->w, &p->doc, param->key, ms);
            return 0;
        case API_STRS:
            return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s: not a list", param->name);
        case API_BOOL:
            break;
    }
    return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s: true or false", param->name);
}

/* Copies a text of the body; false when it is too long or has control characters. */
static bool body_text(struct mp_reader *r, char out[API_VALUE_MAX])
{
    struct blob s = mp_get_str(r, API_VALUE_MAX - 1);
    if (r->err != 0 || !text_is_clean((const char *)s.data, s.len)) {
        return false;
    }
    memcpy(out, s.data, s.len);
    out[s.len] = '\0';
    return true;
}

static int put_list(struct parse *p, const struct api_param *param, const char *pointer,
                    struct mp_reader *r)
{
    char text[API_VALUE_MAX];
    uint32_t n = mp_get_array(r, 64);
    if (r->err != 0) {
        return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s: not a list of at most 64",
                         param->name);
    }
    mp_doc_key(&p->w, &p->doc, param->key);
    mp_put_array(&p->w, n);
    for (uint32_t i = 0; i < n; i++) {
        if (!body_text(r, text)) {
            return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s: not a list of texts",
                             param->name);
        }
        mp_put_str(&p->w, text);
    }
    return 0;
}

static int put_body_value(struct parse *p, const struct api_param *param, const char *pointer,
                          struct mp_reader *r)
{
    char text[API_VALUE_MAX];
    enum mp_type type = mp_peek(r);
    if (type == MP_UINT && param->type == API_UINT) {
        uint64_t number = mp_get_u64(r);
        if (number > INT32_MAX) {
            return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s: too large", param->name);
        }
        mp_doc_int(&p->w, &p->doc, param->key, (int64_t)number);
        return 0;
    }
    if (type == MP_BOOL && param->type == API_BOOL) {
        mp_doc_int(&p->w, &p->doc, param->key, mp_get_bool(r));
        return 0;
    }
    if (type == MP_ARRAY && param->type == API_STRS) {
        return put_list(p, param, pointer, r);
    }
    if (type != MP_STR) {
        return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s: not of the right type",
                         param->name);
    }
    if (!body_text(r, text)) {
        return fault_set(p->fault, -ERR_INVALID, 400, pointer,
                         "%s: longer than %d bytes or with control characters", param->name,
                         API_VALUE_MAX - 1);
    }
    return put_text(p, param, pointer, text);
}

static int parse_body(struct parse *p, const struct api_input *in)
{
    struct buf doc;
    buf_init(&doc, (size_t)4 * API_BODY_MAX);
    struct errmsg em = ERRMSG_INIT;
    int rc = json_to_doc(in->body, &doc, &em);
    if (rc != 0) {
        rc = fault_set(p->fault, rc, api_status(rc), "", "body: %s", em.text);
        goto out;
    }
    struct mp_reader r;
    mp_reader_init(&r, buf_blob(&doc));
    uint32_t n = mp_get_map(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n; i++) {
        struct blob name = mp_get_str(&r, SIZE_MAX);
        char pointer[96];
        size_t at = 0;
        pointer_to("/", name, pointer);
        const struct api_param *param = param_of(p->req->route, API_BODY, name, &at);
        if (param == NULL) {
            rc = fault_set(p->fault, -ERR_INVALID, 400, pointer, "the body has an unknown member");
            goto out;
        }
        if (mp_peek(&r) == MP_NIL) { /* null is the same as absent */
            mp_get_nil(&r);
            continue;
        }
        p->seen[at] = true;
        rc = put_body_value(p, param, pointer, &r);
        if (rc != 0) {
            goto out;
        }
    }
out:
    buf_fini(&doc);
    return rc;
}

static int parse_flag(struct parse *p, const char *pointer, const char *text, bool *ret)
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
        return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s: true or false", pointer + 1);
    }
    *ret = text[0] == 't';
    return 0;
}

static int query_value(struct parse *p, const char *name, const char *value, uint32_t *seen_common)
{
    static const char *const common[] = {"stale", "dry_run", "timeout"};
    enum api_kind kind = p->req->route->kind;
    char pointer[96];
    size_t at = 0;
    int64_t ms;
    pointer_to("?", blob_str(name), pointer);
    for (uint32_t i = 0; i < ARRAY_SIZE(common); i++) {
        if (strcmp(name, common[i]) != 0) {
            continue;
        }
        if ((*seen_common & 1u << i) != 0) {
            return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s twice", name);
        }
        *seen_common |= 1u << i;
        if (i == 0 && kind == API_READ) {
            return parse_flag(p, pointer, value, &p->req->stale);
        }
        if (i == 1 && kind == API_MUTATION) {
            return parse_flag(p, pointer, value, &p->req->dry_run);
        }
        if (i == 2) {
            if (clock_parse_duration(value, &ms) != 0 || ms < 1 || ms > API_TIMEOUT_MAX_MS) {
                return fault_set(p->fault, -ERR_INVALID, 400, pointer,
                                 "timeout: a duration up to %us", API_TIMEOUT_MAX_MS / 1000);
            }
            p->req->timeout_ms = (uint32_t)ms;
            return 0;
        }
    }
    const struct api_param *param = param_of(p->req->route, API_QUERY, blob_str(name), &at);
    if (param == NULL) {
        return fault_set(p->fault, -ERR_INVALID, 400, pointer, "unknown query parameter");
    }
    if (p->seen[at]) {
        return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s twice", param->name);
    }
    p->seen[at] = true;
    return put_text(p, param, pointer, value);
}

static int parse_query(struct parse *p, const char *query)
{
    uint32_t seen_common = 0;
    while (*query != '\0') {
        size_t len = strcspn(query, "&");
        const char *eq = memchr(query, '=', len);
        size_t name_len = eq == NULL ? len : (size_t)(eq - query);
        char name[64];
        char value[API_VALUE_MAX];
        value[0] = '\0';
        if (len > 0) {
            if (!unescape(blob_of(query, name_len), true, name, sizeof name) ||
                (eq != NULL &&
                 !unescape(blob_of(eq + 1, len - name_len - 1), true, value, sizeof value))) {
                return fault_set(p->fault, -ERR_INVALID, 400, "?",
                                 "the query is not properly encoded text");
            }
            int rc = query_value(p, name, value, &seen_common);
            if (rc != 0) {
                return rc;
            }
        }
        query += len;
        query += *query == '&';
    }
    return 0;
}

static bool is_json(const char *content_type)
{
    static const char json[] = "application/json";
    if (content_type == NULL || strncasecmp(content_type, json, strlen(json)) != 0) {
        return false;
    }
    char after = content_type[strlen(json)];
    return after == '\0' || after == ';' || after == ' ';
}

static int check_body(const struct api_input *in, const struct api_route *route,
                      struct api_fault *f)
{
    if (in->body.len == 0) {
        return 0;
    }
    if (in->body.len > API_BODY_MAX) {
        return fault_set(f, -ERR_TOO_LARGE, 413, "", "the body is over %u bytes", API_BODY_MAX);
    }
    if (route->kind == API_READ || route->kind == API_LIVE || route->kind == API_READY ||
        route->kind == API_TEXT) {
        return fault_set(f, -ERR_INVALID, 400, "", "a read has no body");
    }
    if (!is_json(in->content_type)) {
        (void)fault_set(f, -ERR_UNSUPPORTED, 415, "", "the body must be application/json");
        f->code = "unsupported_media_type";
        return -ERR_UNSUPPORTED;
    }
    return 0;
}

static int check_required(struct parse *p)
{
    const struct api_param *params = p->req->route->params;
    for (size_t i = 0; i < API_PARAMS_MAX && params[i].name != NULL; i++) {
        if (params[i].required && !p->seen[i]) {
            char pointer[96];
            pointer_to(params[i].in == API_BODY ? "/" : "?", blob_str(params[i].name), pointer);
            return fault_set(p->fault, -ERR_INVALID, 400, pointer, "%s is missing", params[i].name);
        }
    }
    return 0;
}

int api_parse(const struct api_input *in, struct api_request *ret, struct api_fault *fault)
{
    *fault = (struct api_fault){.status = 0};
    *ret = (struct api_request){.timeout_ms = API_TIMEOUT_DEFAULT_MS};
    buf_init(&ret->args, API_ARGS_MAX);
    char id[API_VALUE_MAX];
    id[0] = '\0';
    struct parse p = {.req = ret, .fault = fault};
    mp_writer_init(&p.w, &ret->args);

    const char *query = strchr(in->target, '?');
    size_t path_len = query == NULL ? strlen(in->target) : (size_t)(query - in->target);
    int rc = find_route(in->method, blob_of(in->target, path_len), &ret->route, id, sizeof id,
                        fault);
    if (rc == 0) {
        rc = check_body(in, ret->route, fault);
    }
    if (rc == 0 && in->idempotency_key != NULL && ret->route->kind == API_MUTATION &&
        (uuid_parse(in->idempotency_key, &ret->request_id) != 0 || uuid_is_nil(&ret->request_id))) {
        rc = fault_set(fault, -ERR_INVALID, 400, "",
                       "Idempotency-Key must be a UUID in lower case");
    }
    if (rc != 0) {
        goto out;
    }
    mp_doc_begin(&p.w, &p.doc);
    for (size_t i = 0; i < API_PARAMS_MAX && ret->route->params[i].name != NULL; i++) {
        if (ret->route->params[i].in == API_PATH) {
            mp_doc_str(&p.w, &p.doc, ret->route->params[i].key, id);
            p.seen[i] = true;
        }
    }
    rc = parse_query(&p, query == NULL ? "" : query + 1);
    if (rc == 0 && in->body.len > 0) {
        rc = parse_body(&p, in);
    }
    if (rc == 0) {
        rc = check_required(&p);
    }
    mp_doc_end(&p.w, &p.doc);
    if (rc == 0 && ret->args.err != 0) {
        rc = fault_set(fault, -ERR_TOO_LARGE, 413, "", "the arguments are over %u bytes",
                       API_ARGS_MAX);
    }
out:
    if (rc != 0) {
        api_request_fini(ret);
    }
    return rc;
}

void api_request_fini(struct api_request *r)
{
    buf_fini(&r->args);
}
