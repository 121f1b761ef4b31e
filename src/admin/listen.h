/* Where the API listens: the local UNIX socket, and a loopback port for metrics. */
#ifndef RAP_ADMIN_LISTEN_H
#define RAP_ADMIN_LISTEN_H

#include "base/addr.h"

/* Mode 0600; a socket nobody listens on is replaced. -ERR_BUSY when somebody does, -ERR_EXISTS when
 * the path is something else, -ERR_TOO_LARGE, -ERR_IO. */
int listen_unix(const char *path, int *ret_fd, struct errmsg *em);
/* "127.0.0.1:9464" or "[::1]:9464". -ERR_INVALID, also for an address that others can reach: what is
 * served there asks nobody who they are. */
int listen_parse_loopback(const char *text, struct addr *ret, struct errmsg *em);
/* The same, and a socket that listens there. -ERR_BUSY when the port is taken, -ERR_IO. */
int listen_loopback(const char *text, int *ret_fd, struct errmsg *em);
/* Whether a Host header names this very host: "localhost", 127.x.x.x, [::1], with or without a port. */
bool listen_host_is_local(const char *host);
/* Who is at the other end. -ERR_DENIED when the kernel does not say. */
int listen_peer_uid(int fd, unsigned *ret_uid);

#endif
