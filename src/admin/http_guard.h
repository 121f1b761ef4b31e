/* What libmicrohttpd 0.9.75 lets through: doubled Content-Length and Host, and Content-Length together
 * with Transfer-Encoding (reference: ecosystem.md section 1). */
#ifndef RAP_ADMIN_HTTP_GUARD_H
#define RAP_ADMIN_HTTP_GUARD_H

#include "base/base.h"

struct MHD_Connection;

/* Requests that two readers could understand in two ways (RFC 9112 section 11.2). NULL: fine; else
 * what is wrong, a constant. */
const char *http_ambiguous(struct MHD_Connection *mhd);

#endif
