/* The local socket: only its owner (and root) may connect, and what a dead process left is
 * replaced. */
#include "admin/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int sys_error(struct errmsg *em, const char *what, const char *path)
{
    return errmsg_set(em, -ERR_IO, "%s %s: %s", what, path, strerror(errno));
}

/* Removes a socket nobody listens on. */
static int clear_stale(int fd, const struct sockaddr_un *sa, struct errmsg *em)
{
    struct stat st;
    if (lstat(sa->sun_path, &st) != 0) {
        return errno == ENOENT ? 0 : sys_error(em, "stat", sa->sun_path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return errmsg_set(em, -ERR_EXISTS, "%s exists and is not a socket", sa->sun_path);
    }
    if (connect(fd, (const struct sockaddr *)sa, sizeof *sa) == 0 || errno != ECONNREFUSED) {
        return errmsg_set(em, -ERR_BUSY, "%s is served by another process", sa->sun_path);
    }
    return unlink(sa->sun_path) == 0 ? 0 : sys_error(em, "unlink", sa->sun_path);
}

int listen_unix(const char *path, int *ret_fd, struct errmsg *em)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sa.sun_path) {
        return errmsg_set(em, -ERR_TOO_LARGE,
                          "socket path %s is over %zu bytes: choose a shorter data directory", path,
                          sizeof sa.sun_path - 1);
    }
    memcpy(sa.sun_path, path, strlen(path));
    int rc = 0;
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0 || fd < 0) {
        rc = sys_error(em, "socket for", path);
        goto out;
    }
    rc = clear_stale(probe, &sa, em);
    if (rc != 0) {
        goto out;
    }
    /* Nobody can connect between bind and listen, so the mode is right before it matters. */
    if (bind(fd, (const struct sockaddr *)&sa, sizeof sa) != 0) {
        rc = sys_error(em, "bind", path);
        goto out;
    }
    if (chmod(path, 0600) != 0 || listen(fd, 128) != 0) {
        rc = sys_error(em, "listen on", path);
        (void)unlink(path);
        goto out;
    }
    *ret_fd = fd;
    fd = -1;
out:
    if (probe >= 0) {
        (void)close(probe);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return rc;
}

static bool is_loopback(const struct addr *a)
{
    if (a->ss.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&a->ss;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->ss;
    return a->ss.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

int listen_parse_loopback(const char *text, struct addr *ret, struct errmsg *em)
{
    struct addr a;
    int rc = addr_parse(text, &a, em);
    if (rc != 0) {
        return rc;
    }
    if (!is_loopback(&a)) {
        return errmsg_set(
            em, -ERR_INVALID,
            "%s can be reached from other hosts, and metrics ask nobody who they are: "
            "use 127.0.0.1:PORT, and carry them out by what authenticates",
            text);
    }
    *ret = a;
    return 0;
}

int listen_loopback(const char *text, int *ret_fd, struct errmsg *em)
{
    struct addr a;
    int on = 1;
    int rc = listen_parse_loopback(text, &a, em);
    if (rc != 0) {
        return rc;
    }
    int fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return sys_error(em, "socket for", text);
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&a.ss, a.len) != 0 || listen(fd, 16) != 0) {
        rc = errno == EADDRINUSE
                 ? errmsg_set(em, -ERR_BUSY, "%s is in use: choose another port", text)
                 : sys_error(em, "listen on", text);
        (void)close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

bool listen_host_is_local(const char *host)
{
    char name[64];
    struct addr a;
    struct errmsg em = ERRMSG_INIT;
    size_t len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    if (len > strlen(host) || len >= sizeof name - 2) {
        return false;
    }
    const char *port = host + len;
    if (*port != '\0' && (*port != ':' || strspn(port + 1, "0123456789") != strlen(port + 1))) {
        return false;
    }
    (void)snprintf(name, sizeof name, "%.*s:1", (int)len, host);
    return strcasecmp(name, "localhost:1") == 0 ||
           (addr_parse(name, &a, &em) == 0 && is_loopback(&a));
}

int listen_peer_uid(int fd, unsigned *ret_uid)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) {
        return -ERR_DENIED;
    }
    *ret_uid = cred.uid;
    return 0;
}
