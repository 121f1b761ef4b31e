/* The local UNIX socket. */
#ifndef RAP_ADMIN_LISTEN_H
#define RAP_ADMIN_LISTEN_H

#include "base/err.h"

/* Mode 0600; a socket nobody listens on is replaced. -ERR_BUSY when somebody does, -ERR_EXISTS when
 * the path is something else, -ERR_TOO_LARGE, -ERR_IO. */
int listen_unix(const char *path, int *ret_fd, struct errmsg *em);
/* Who is at the other end. -ERR_DENIED when the kernel does not say. */
int listen_peer_uid(int fd, unsigned *ret_uid);

#endif
