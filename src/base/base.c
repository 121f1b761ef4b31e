#include "base/base.h"

#include "base/log.h"

#include <malloc.h>

#include <sys/prctl.h>
#include <sys/resource.h>

#ifdef RAP_PLANTED_BUGS
const char *planted_bug;
#endif

void check_failed(const char *expr, const char *file, int line)
{
    log_error(LOG_BASE, "check failed", "expr=\"%s\" at=%s:%d", expr, file, line);
    abort();
}

void fatal(const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_error(LOG_BASE, "stopping", "why=\"%s\"", text);
    /* Not exit(): no handler may run and flush something half done. */
    _Exit(70);
}

void process_keep_memory_private(void)
{
    /* The limit alone does not bind a handler that /proc/sys/kernel/core_pattern pipes cores to. */
    const struct rlimit none = {0, 0};
    if (prctl(PR_SET_DUMPABLE, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0) {
        fatal("core dumps cannot be switched off");
    }
}

void *xmalloc(size_t size)
{
    void *p = malloc(size == 0 ? 1 : size);
    if (p == NULL) {
        fatal("out of memory allocating %zu bytes", size);
    }
    return p;
}

void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count == 0 ? 1 : count, size == 0 ? 1 : size);
    if (p == NULL) {
        fatal("out of memory allocating %zu x %zu bytes", count, size);
    }
    return p;
}

void *xrealloc(void *ptr, size_t size)
{
    void *p = realloc(ptr, size == 0 ? 1 : size);
    if (p == NULL) {
        fatal("out of memory allocating %zu bytes", size);
    }
    return p;
}

void heap_keep(void)
{
    (void)mallopt(M_TRIM_THRESHOLD, 4 << 20);
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 20); /* glibc adjusts neither once one is set */
}

char *xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = xmalloc(n);
    memcpy(p, s, n);
    return p;
}

char *xasprintf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    char *p = xmalloc((size_t)n + 1);
    va_start(ap, fmt);
    (void)vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return p;
}
