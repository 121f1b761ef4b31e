/* UDP addresses as text. */
#ifndef RAP_BASE_ADDR_H
#define RAP_BASE_ADDR_H

#include "base/err.h"

#include <sys/socket.h>

#define ADDR_TEXT_MAX 64
/* Longest "host:port" we keep: a DNS name is at most 253 octets (RFC 1035 section 2.3.4). */
#define HOSTPORT_MAX 260

struct addr {
    struct sockaddr_storage ss;
    socklen_t len;
};

/* "10.0.0.1:7400", "[::1]:7400": numeric only, no look-up. -ERR_INVALID. */
int addr_parse(const char *text, struct addr *ret, struct errmsg *em);
/* "host:port", where host may be a name: blocking look-up, so not on the core loop unless the
 * host is numeric. -ERR_UNREACHABLE when it does not resolve. */
int addr_resolve(const char *text, struct addr *ret, struct errmsg *em);
void addr_format(const struct addr *a, char out[ADDR_TEXT_MAX]);
bool addr_equal(const struct addr *a, const struct addr *b);

#endif
