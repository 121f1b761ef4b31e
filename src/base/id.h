/* UUIDv7 (RFC 9562 section 5.7): ids sort by the time they were made. */
#ifndef RAP_BASE_ID_H
#define RAP_BASE_ID_H

#include "base/base.h"

struct uuid {
    uint8_t b[16];
};

#define UUID_TEXT_MAX 37
#define UUID_NIL ((struct uuid){.b = {0}})

/* Pure: the caller gives the time and 10 random bytes. */
struct uuid uuid_make(int64_t wall_ms, const uint8_t random[10]);
/* Drivers only: clock and getrandom. */
struct uuid uuid_new(void);
/* Lower case, 8-4-4-4-12. */
void uuid_format(const struct uuid *u, char out[UUID_TEXT_MAX]);
/* Strict: lower-case hex and dashes in place, nothing else. -ERR_INVALID. */
int uuid_parse(const char *text, struct uuid *ret);

static inline bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->b, b->b, 16) == 0;
}

static inline bool uuid_is_nil(const struct uuid *u)
{
    return uuid_equal(u, &UUID_NIL);
}

#endif
