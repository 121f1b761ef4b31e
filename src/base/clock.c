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

uint64_t clock_mono_ms(void)
{
    return clock_mono_ns() / 1000000;
}

int64_t clock_wall_ms(void)
{
    struct timespec ts;
    CHECK(clock_gettime(CLOCK_REALTIME, &ts) == 0);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static char *put_number(char *p, int v, int digits, char after)
{
    for (int i = digits; i-- > 0; v /= 10) {
        p[i] = (char)('0' + v % 10);
    }
    p[digits] = after;
    return p + digits + 1;
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
    /* By hand: each answer and each log line holds some, and strftime costs ten times as much. */
    char *p = put_number(out, tm.tm_year + 1900, 4, '-');
    p = put_number(p, tm.tm_mon + 1, 2, '-');
    p = put_number(p, tm.tm_mday, 2, 'T');
    p = put_number(p, tm.tm_hour, 2, ':');
    p = put_number(p, tm.tm_min, 2, ':');
    p = put_number(p, tm.tm_sec, 2, '.');
    p = put_number(p, (int)(wall_ms % 1000), 3, 'Z');
    *p = '\0';
}

/* Exactly `count` digits and the character after them. */
static bool take_number(const char **p, int count, char after, int *ret)
{
    int v = 0;
    for (int i = 0; i < count; i++) {
        if (**p < '0' || **p > '9') {
            return false;
        }
        v = 10 * v + (*(*p)++ - '0');
    }
    *ret = v;
    return after == '\0' || *(*p)++ == after;
}

int clock_parse(const char *text, int64_t *ret_wall_ms)
{
    struct tm tm = {0};
    const char *p = text;
    if (!take_number(&p, 4, '-', &tm.tm_year) || !take_number(&p, 2, '-', &tm.tm_mon) ||
        !take_number(&p, 2, 'T', &tm.tm_mday) || !take_number(&p, 2, ':', &tm.tm_hour) ||
        !take_number(&p, 2, ':', &tm.tm_min) || !take_number(&p, 2, '\0', &tm.tm_sec)) {
        return -ERR_INVALID;
    }
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    /* timegm would turn 30 February into 2 March. */
    struct tm given = tm;
    int64_t secs = (int64_t)timegm(&tm);
    if (secs < 0 || tm.tm_mon != given.tm_mon || tm.tm_mday != given.tm_mday ||
        tm.tm_hour != given.tm_hour || tm.tm_min != given.tm_min || tm.tm_sec != given.tm_sec) {
        return -ERR_INVALID;
    }
    int64_t ms = 0;
    if (*p == '.') {
        p++;
        int digits = 0;
        int64_t scale = 100;
        while (*p >= '0' && *p <= '9' && digits < 9) {
            ms += (*p - '0') * scale;
            scale /= 10;
            p++;
            digits++;
        }
        if (digits == 0) {
            return -ERR_INVALID;
        }
    }
    if (strcmp(p, "Z") != 0) {
        return -ERR_INVALID;
    }
    *ret_wall_ms = secs * 1000 + ms;
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
