/* A request as text: method, target and body, each ended by a newline (the body by the end). What
 * is accepted is a well-formed document for a route of the table; what is not has a status and a
 * text. */
#include "admin/api.h"
#include "admin/json.h"
#include "wire/mp.h"

#include "fuzz/fuzz.h"

static char *take_line(const uint8_t **p, size_t *left)
{
    const uint8_t *nl = *left == 0 ? NULL : memchr(*p, '\n', *left);
    size_t n = nl == NULL ? *left : (size_t)(nl - *p);
    char *line = xmalloc(n + 1);
    memcpy(line, *left == 0 ? (const uint8_t *)"" : *p, n);
    line[n] = '\0';
    n += nl != NULL;
    *p += n;
    *left -= n;
    return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct api_request req;
    struct api_fault fault;
    char *method = take_line(&data, &size);
    char *target = take_line(&data, &size);
    struct api_input in = {.method = method,
                           .target = target,
                           .content_type = "application/json",
                           .body = blob_of(data, size)};
    if (api_parse(&in, &req, &fault) == 0) {
        struct buf text;
        CHECK(req.route != NULL && req.timeout_ms > 0 && req.timeout_ms <= API_TIMEOUT_MAX_MS);
        buf_init(&text, 1u << 20);
        CHECK(json_from_doc(buf_blob(&req.args), 0, &text) == 0);
        buf_fini(&text);
        api_request_fini(&req);
    } else {
        struct buf text;
        CHECK(fault.status >= 400 && fault.code != NULL && fault.em.text[0] != '\0');
        struct api_problem p = {.status = fault.status,
                                .code = fault.code,
                                .detail = fault.em.text,
                                .pointer = fault.pointer,
                                .path = target};
        buf_init(&text, 1u << 20);
        api_problem(&p, &text);
        CHECK(text.err == 0 && text.len > 0);
        buf_fini(&text);
    }
    free(method);
    free(target);
    return 0;
}
