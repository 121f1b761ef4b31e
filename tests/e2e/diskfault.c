/* A disk that fails on demand: preloaded into a `rap` process, it makes writes or syncs of chosen files
 * fail. $DISKFAULT names a file of lines "OP ERRNO PART" - OP write or sync, ERRNO ENOSPC or EIO, PART a
 * part of the path - looked at before each call, so that a test can let a disk fail and recover under a
 * running process. "OP KILL PART N" ends the process, as kill -9 does, before the Nth such call since the line
 * is there. Without lines nothing happens. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static void count_down(unsigned nth)
{
    static atomic_uint calls;
    if (atomic_fetch_add(&calls, 1) + 1 >= nth) {
        (void)raise(SIGKILL);
    }
}

/* The error for this operation on this file, or 0. */
static int fault(const char *op, int fd)
{
    const char *control = getenv("DISKFAULT");
    if (control == NULL) {
        return 0;
    }
    int saved = errno;
    FILE *f = fopen(control, "re");
    int found = 0;
    if (f != NULL) {
        char link[64];
        char path[4096];
        char line[512];
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path - 1);
        path[n < 0 ? 0 : n] = '\0';
        while (found == 0 && fgets(line, sizeof line, f) != NULL) {
            char what[16];
            char error[16];
            char part[400];
            char nth[12] = "1";
            if (sscanf(line, "%15s %15s %399s %11s", what, error, part, nth) >= 3 &&
                strcmp(what, op) == 0 && strstr(path, part) != NULL) {
                if (strcmp(error, "KILL") == 0) {
                    count_down((unsigned)strtoul(nth, NULL, 10));
                } else {
                    found = strcmp(error, "ENOSPC") == 0 ? ENOSPC : EIO;
                }
            }
        }
        (void)fclose(f);
    }
    errno = saved;
    return found;
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

#define FAIL_IF(op, fd)          \
    do {                         \
        int e_ = fault(op, fd);  \
        if (e_ != 0) {           \
            errno = e_;          \
            return -1;           \
        }                        \
    } while (0)

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    FAIL_IF("write", fd);
    return REAL(ssize_t, "pwrite", int, const void *, size_t, off_t)(fd, buf, n, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
    FAIL_IF("write", fd);
    return REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t)(fd, buf, n, offset);
}

ssize_t write(int fd, const void *buf, size_t n)
{
    FAIL_IF("write", fd);
    return REAL(ssize_t, "write", int, const void *, size_t)(fd, buf, n);
}

int fsync(int fd)
{
    FAIL_IF("sync", fd);
    return REAL(int, "fsync", int)(fd);
}

int fdatasync(int fildes)
{
    FAIL_IF("sync", fildes);
    return REAL(int, "fdatasync", int)(fildes);
}
