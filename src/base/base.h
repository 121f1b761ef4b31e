/* Ground rules every file shares: assertions that stay on, allocation that cannot fail, and the
 * libc calls we do not use. Include this first. */
#ifndef RAP_BASE_BASE_H
#define RAP_BASE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((uintptr_t)(ptr) - offsetof(type, member)))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define NODISCARD __attribute__((warn_unused_result))

/* A failed CHECK is a bug of ours and ends the process, in release builds too. What came from a
 * peer, a disk or an operator is tested with `if` and answered with an error. */
#define CHECK(x) ((x) ? (void)0 : check_failed(#x, __FILE__, __LINE__))
__attribute__((noreturn)) void check_failed(const char *expr, const char *file, int line);

/* Ends the process because continuing would acknowledge something that is not true (DESIGN D13). */
__attribute__((noreturn)) void fatal(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* From here on no core of this process is written, whatever the limits and the system's handler are, and
 * nobody but root reads its memory: it holds keys (SPEC S20). */
void process_keep_memory_private(void);

/* Abort on out-of-memory. Sizes that a peer chooses are bounded before they get here. */
void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *ptr, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2) __attribute__((returns_nonnull));

/* For processes that run for long and allocate in bursts, as packets come: what a burst has freed stays with
 * the process, up to 4 MiB. glibc would give it back above 128 KiB, and the next burst fault each page in
 * anew (mallopt(3), M_TRIM_THRESHOLD). */
void heap_keep(void);

/* A view of bytes that somebody else owns. */
struct blob {
    const uint8_t *data;
    size_t len;
};

static inline struct blob blob_of(const void *data, size_t len)
{
    return (struct blob){.data = data, .len = len};
}

static inline struct blob blob_str(const char *s)
{
    return (struct blob){.data = (const uint8_t *)s, .len = strlen(s)};
}

/* Not constant time: never for secrets (see pki_equal). */
static inline bool blob_equal(struct blob a, struct blob b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Planted bugs: each is a way of being wrong that the simulation must notice. They exist only in
 * the binary built for that test (-DRAP_PLANTED_BUGS); everywhere else the condition is 0. */
#ifdef RAP_PLANTED_BUGS
extern const char *planted_bug;
#define PLANTED(name) (planted_bug != NULL && strcmp(planted_bug, name) == 0)
#else
#define PLANTED(name) 0
#endif

#define RAP_BANNED(fn) sorry_##fn##_is_banned
#undef strcpy
#define strcpy(d, s) RAP_BANNED(strcpy)
#undef strcat
#define strcat(d, s) RAP_BANNED(strcat)
#undef strncpy
#define strncpy(d, s, n) RAP_BANNED(strncpy)
#undef strncat
#define strncat(d, s, n) RAP_BANNED(strncat)
#undef strtok
#define strtok(s, d) RAP_BANNED(strtok)
#undef sprintf
#define sprintf(...) RAP_BANNED(sprintf)
#undef vsprintf
#define vsprintf(...) RAP_BANNED(vsprintf)
#undef atoi
#define atoi(s) RAP_BANNED(atoi)

#endif
