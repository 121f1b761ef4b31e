#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int io_error(struct errmsg *em, const char *what, const char *path)
{
    int e = errno;
    return errmsg_set(em, e == ENOENT ? -ERR_NOT_FOUND : -ERR_IO, "%s %s: %s", what, path,
                      strerror(e));
}

char *path_join(const char *dir, const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

int file_sync_dir(const char *path, struct errmsg *em)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return io_error(em, "open", path);
    }
    int rc = fsync(fd) == 0 ? 0 : io_error(em, "fsync", path);
    (void)close(fd);
    return rc;
}

static int sync_parent(const char *path, struct errmsg *em)
{
    char *dir = xstrdup(path);
    char *slash = strrchr(dir, '/');
    int rc;
    if (slash == NULL) {
        rc = file_sync_dir(".", em);
    } else {
        *(slash == dir ? slash + 1 : slash) = '\0';
        rc = file_sync_dir(dir, em);
    }
    free(dir);
    return rc;
}

static int write_all(int fd, struct blob content)
{
    size_t done = 0;
    while (done < content.len) {
        ssize_t n = write(fd, content.data + done, content.len - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

int file_write_atomic(const char *path, struct blob content, int mode, struct errmsg *em)
{
    char *tmp = xasprintf("%s.tmp", path);
    int rc = 0;
    (void)unlink(tmp);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        rc = io_error(em, "create", tmp);
        goto out;
    }
    if (fchmod(fd, (mode_t)mode) != 0 || write_all(fd, content) != 0 || fsync(fd) != 0) {
        rc = io_error(em, "write", tmp);
        goto out;
    }
    if (rename(tmp, path) != 0) {
        rc = io_error(em, "rename", path);
        goto out;
    }
    rc = sync_parent(path, em);
out:
    if (fd >= 0) {
        (void)close(fd);
    }
    if (rc != 0) {
        (void)unlink(tmp);
    }
    free(tmp);
    return rc;
}

int file_read(const char *path, struct buf *out, struct errmsg *em)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return io_error(em, "open", path);
    }
    int rc = 0;
    for (;;) {
        uint8_t chunk[8192];
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            rc = io_error(em, "read", path);
            break;
        }
        if (n == 0) {
            break;
        }
        buf_add(out, chunk, (size_t)n);
        explicit_bzero(chunk, sizeof chunk); /* keys are read this way too */
        if (out->err != 0) {
            rc = errmsg_set(em, out->err, "%s is larger than %zu bytes", path, out->max);
            break;
        }
    }
    (void)close(fd);
    return rc;
}

static bool is_dir(const char *path)
{
    struct stat st;
    int e = errno;
    bool yes = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    errno = e;
    return yes;
}

int file_mkdirs(const char *path, struct errmsg *em)
{
    if (*path == '\0') {
        return errmsg_set(em, -ERR_INVALID, "empty directory name");
    }
    char *p = xstrdup(path);
    int rc = 0;
    for (char *c = p + 1; rc == 0; c++) {
        char old = *c;
        if (old != '/' && old != '\0') {
            continue;
        }
        *c = '\0';
        if (mkdir(p, 0700) == 0) {
            rc = sync_parent(p, em);
        } else if (errno != EEXIST || !is_dir(p)) {
            rc = io_error(em, "mkdir", p);
        }
        *c = old;
        if (old == '\0') {
            break;
        }
    }
    free(p);
    return rc;
}

int file_lock(const char *path, int *ret_fd, struct errmsg *em)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return io_error(em, "open", path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int rc = errno == EWOULDBLOCK
                     ? errmsg_set(em, -ERR_BUSY, "%s is in use by another process", path)
                     : io_error(em, "lock", path);
        (void)close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}
