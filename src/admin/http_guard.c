#include "admin/http_guard.h"

#include <microhttpd.h>
#include <strings.h>

struct header_count {
    unsigned length, encoding, host, key, type;
    bool chunked;
};

static enum MHD_Result count_header(void *data, enum MHD_ValueKind kind, const char *name,
                                    const char *value)
{
    struct header_count *n = data;
    (void)kind;
    n->length += strcasecmp(name, "Content-Length") == 0;
    n->host += strcasecmp(name, "Host") == 0;
    n->key += strcasecmp(name, "Idempotency-Key") == 0;
    n->type += strcasecmp(name, "Content-Type") == 0;
    if (strcasecmp(name, "Transfer-Encoding") == 0) {
        n->encoding++;
        n->chunked = value != NULL && strcasecmp(value, "chunked") == 0;
    }
    return MHD_YES;
}

const char *http_ambiguous(struct MHD_Connection *mhd)
{
    struct header_count n = {0};
    (void)MHD_get_connection_values(mhd, MHD_HEADER_KIND, count_header, &n);
    if (n.length > 1 || n.encoding > 1 || n.host > 1 || n.key > 1 || n.type > 1) {
        return "a header that may be there once is there twice";
    }
    if (n.encoding == 1 && (n.length == 1 || !n.chunked)) {
        return "Transfer-Encoding other than chunked, or together with Content-Length";
    }
    return NULL;
}
