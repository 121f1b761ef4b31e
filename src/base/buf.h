/* A growing byte buffer that is born with its maximum. Growing past it sets a sticky error and
 * drops the write, so a run of appends is checked once, at the end. */
#ifndef RAP_BASE_BUF_H
#define RAP_BASE_BUF_H

#include "base/base.h"

struct buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    size_t max;
    int err; /* 0 or -ERR_TOO_LARGE */
};

/* No allocation until the first byte. */
void buf_init(struct buf *b, size_t max);
/* Frees and leaves an empty buffer with the same maximum. NULL-safe. */
void buf_fini(struct buf *b);
/* As buf_fini, after overwriting what was there. For keys and tokens. */
void buf_wipe(struct buf *b);
void buf_clear(struct buf *b);
void buf_add(struct buf *b, const void *data, size_t len);
void buf_add_int(struct buf *b, int64_t v); /* decimal text */
void buf_add_str(struct buf *b, const char *s);
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Room for len bytes at the end, counted at once; NULL when over the maximum. */
uint8_t *buf_grow(struct buf *b, size_t len);
/* NUL-terminated view of the text so far (the NUL is not counted); valid until the next write. */
const char *buf_cstr(struct buf *b);

static inline struct blob buf_blob(const struct buf *b)
{
    return (struct blob){.data = b->data, .len = b->len};
}

#endif
