#include "fabric/fabric_impl.h"

#define KEEP_MAX (1u << 20)

MSG_DEFINE(stream_header, STREAM_HEADER_FIELDS)

void frame_reader_init(struct frame_reader *r, size_t max)
{
    *r = (struct frame_reader){.max = max};
}

void frame_reader_fini(struct frame_reader *r)
{
    free(r->data);
    *r = (struct frame_reader){.max = r->max};
}

void frame_reader_add(struct frame_reader *r, struct blob in)
{
    if (in.len == 0) {
        return;
    }
    size_t left = r->len - r->head;
    /* Moving what is left is cheap when it is little; a small buffer rather grows. */
    if (r->head > 0 && r->cap - r->len < in.len && (r->cap >= KEEP_MAX || left < r->cap / 4)) {
        memmove(r->data, r->data + r->head, left);
        r->len = left;
        r->head = 0;
    }
    r->used = true;
    if (r->cap - r->len < in.len) {
        size_t cap = r->cap == 0 ? 512 : r->cap;
        while (cap - r->len < in.len) {
            cap *= 2;
        }
        r->data = xrealloc(r->data, cap);
        r->cap = cap;
    }
    memcpy(r->data + r->len, in.data, in.len);
    r->len += in.len;
}

void frame_reader_sweep(struct frame_reader *r)
{
    if (!r->used && r->len == r->head) {
        frame_reader_fini(r);
    }
    r->used = false;
}

int frame_reader_next(struct frame_reader *r, struct blob *ret)
{
    size_t left = r->len - r->head;
    if (left == 0) {
        r->head = r->len = 0;
        return 0;
    }
    if (left < 4) {
        return 0;
    }
    const uint8_t *p = r->data + r->head;
    size_t len = ((size_t)p[0] << 24) | ((size_t)p[1] << 16) | ((size_t)p[2] << 8) | p[3];
    if (len > r->max) {
        return -ERR_TOO_LARGE;
    }
    if (left - 4 < len) {
        return 0;
    }
    *ret = blob_of(p + 4, len);
    r->head += 4 + len;
    return 1;
}
