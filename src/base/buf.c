#include "base/buf.h"

#include "base/err.h"

/* Holds most messages: growing through smaller sizes costs more than the bytes. */
#define FIRST_CAP ((size_t)256)

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_fini(struct buf *b)
{
    if (b != NULL) {
        free(b->data);
        *b = (struct buf){.max = b->max};
    }
}

void buf_wipe(struct buf *b)
{
    if (b->data != NULL) {
        explicit_bzero(b->data, b->cap);
    }
    buf_fini(b);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->err = 0;
}

static int reserve(struct buf *b, size_t extra)
{
    if (b->err != 0) {
        return b->err;
    }
    if (extra < b->cap - b->len && extra <= b->max - b->len) {
        return 0;
    }
    if (extra > b->max - b->len) {
        b->err = -ERR_TOO_LARGE;
        return b->err;
    }
    size_t need = b->len + extra + 1; /* room for buf_cstr */
    if (need > b->cap) {
        size_t cap = b->cap < FIRST_CAP ? FIRST_CAP : b->cap;
        while (cap < need) {
            cap *= 2;
        }
        b->data = xrealloc(b->data, cap);
        b->cap = cap;
    }
    return 0;
}

uint8_t *buf_grow(struct buf *b, size_t len)
{
    if (reserve(b, len) != 0) {
        return NULL;
    }
    uint8_t *p = b->data + b->len;
    b->len += len;
    return p;
}

void buf_add(struct buf *b, const void *data, size_t len)
{
    uint8_t *p = buf_grow(b, len);
    if (p != NULL && len > 0) {
        memcpy(p, data, len);
    }
}

void buf_add_int(struct buf *b, int64_t v)
{
    char text[24];
    char *p = text + sizeof text;
    uint64_t left = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do {
        *--p = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    if (v < 0) {
        *--p = '-';
    }
    buf_add(b, p, (size_t)(text + sizeof text - p));
}

void buf_add_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    if (reserve(b, (size_t)n) != 0) {
        return;
    }
    va_start(ap, fmt);
    (void)vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

const char *buf_cstr(struct buf *b)
{
    if (b->data == NULL) {
        return "";
    }
    b->data[b->len] = '\0';
    return (const char *)b->data;
}
