#include "base/clock.h"

#include "base/err.h"

#include <errno.h>
#include <time.h>

#define YEAR_9999_MS 253402300799999LL

uint64_t clock_mono_ns(void)
{
    struct timespec ts;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int64_t clock_wall_ms(void)
{
    struct timespec ts;
    CHECK(clock_gettime(CLOCK_REALTIME, &ts) == 0);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void clock_format(int64_t wall_ms, char out[CLOCK_TEXT_MAX])
{
    if (wall_ms < 0) {
        wall_ms = 0;
    }
    if (wall_ms > YEAR_9999_MS) {
        wall_ms = YEAR_9999_MS;
    }
    time_t secs = (time_t)(wall_ms / 1000);
    struct tm tm;
    CHECK(gmtime_r(&secs, &tm) != NULL);
    size_t n = strftime(out, CLOCK_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out + n, CLOCK_TEXT_MAX - n, ".%03dZ", (int)(wall_ms % 1000));
}

int clock_parse(const char *text, int64_t *ret_wall_ms)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest == NULL) {
        return -ERR_INVALID;
    }
    int64_t ms = 0;
    if (*rest == '.') {
        rest++;
        int digits = 0;
        int64_t scale = 100;
        while (*rest >= '0' && *rest <= '9' && digits < 9) {
            ms += (*rest - '0') * scale;
            scale /= 10;
            rest++;
            digits++;
        }
        if (digits == 0) {
            return -ERR_INVALID;
        }
    }
    if (strcmp(rest, "Z") != 0) {
        return -ERR_INVALID;
    }
    *ret_wall_ms = (int64_t)timegm(&tm) * 1000 + ms;
    return 0;
}

int clock_parse_duration(const char *text, int64_t *ret_ms)
{
    if (text[0] < '0' || text[0] > '9') {
        return -ERR_INVALID;
    }
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno != 0) {
        return -ERR_INVALID;
    }
    int64_t unit;
    if (strcmp(end, "ms") == 0) {
        unit = 1;
    } else if (strcmp(end, "s") == 0) {
        unit = 1000;
    } else if (strcmp(end, "m") == 0) {
        unit = 60000;
    } else if (strcmp(end, "h") == 0) {
        unit = 3600000;
    } else if (strcmp(end, "d") == 0) {
        unit = 86400000;
    } else {
        return -ERR_INVALID;
    }
    int64_t ms;
    if (__builtin_mul_overflow((int64_t)n, unit, &ms)) {
        return -ERR_INVALID;
    }
    *ret_ms = ms;
    return 0;
}
