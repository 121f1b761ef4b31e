/* A wall clock that is wrong on demand: preloaded into a `rap` process. $CLOCKSKEW names a file with the
 * number of seconds by which it is ahead, looked at every few milliseconds, so that a test can let a clock
 * jump under a running process. The monotonic clock is right, as on a host whose time is set. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#define LOOK_EVERY_NS 5000000

static int real_clock(clockid_t id, struct timespec *ret)
{
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) {
        void *p = dlsym(RTLD_NEXT, "clock_gettime");
        memcpy(&real, &p, sizeof real);
    }
    return real(id, ret);
}

static long long skew_s(void)
{
    static _Atomic long long value;
    static _Atomic long long looked_ns;
    struct timespec now;
    int saved = errno;
    const char *path = getenv("CLOCKSKEW");
    (void)real_clock(CLOCK_MONOTONIC, &now);
    long long now_ns = now.tv_sec * 1000000000LL + now.tv_nsec;
    if (path != NULL && (looked_ns == 0 || now_ns - looked_ns >= LOOK_EVERY_NS)) {
        FILE *f = fopen(path, "re");
        char line[32] = "";
        looked_ns = now_ns;
        if (f != NULL) {
            value = fgets(line, sizeof line, f) == NULL ? 0 : strtoll(line, NULL, 10);
            (void)fclose(f);
        } else {
            value = 0;
        }
    }
    errno = saved;
    return value;
}

/* Parameters are named as in libc's headers. */
int clock_gettime(clockid_t clock_id, struct timespec *tp)
{
    int rv = real_clock(clock_id, tp);
    if (rv == 0 && (clock_id == CLOCK_REALTIME || clock_id == CLOCK_REALTIME_COARSE)) {
        tp->tv_sec += skew_s();
    }
    return rv;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec ts;
    (void)tz;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *timer)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    if (timer != NULL) {
        *timer = ts.tv_sec;
    }
    return ts.tv_sec;
}
