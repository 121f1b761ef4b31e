#include "pki/der.h"

size_t der_begin(struct buf *out, uint8_t tag)
{
    buf_add(out, &tag, 1);
    return out->len;
}

void der_end(struct buf *out, size_t at)
{
    if (out->err != 0) {
        return;
    }
    size_t len = out->len - at;
    CHECK(len <= 0xffff);
    uint8_t head[3];
    size_t head_len;
    if (len < 0x80) {
        head[0] = (uint8_t)len;
        head_len = 1;
    } else if (len <= 0xff) {
        head[0] = 0x81;
        head[1] = (uint8_t)len;
        head_len = 2;
    } else {
        head[0] = 0x82;
        head[1] = (uint8_t)(len >> 8);
        head[2] = (uint8_t)len;
        head_len = 3;
    }
    if (buf_grow(out, head_len) != NULL) {
        memmove(out->data + at + head_len, out->data + at, len);
        memcpy(out->data + at, head, head_len);
    }
}

void der_put(struct buf *out, uint8_t tag, struct blob content)
{
    size_t at = der_begin(out, tag);
    buf_add(out, content.data, content.len);
    der_end(out, at);
}

void der_put_raw(struct buf *out, struct blob encoded)
{
    buf_add(out, encoded.data, encoded.len);
}

void der_reader_init(struct der_reader *r, struct blob in)
{
    *r = (struct der_reader){.p = in.data, .end = in.len == 0 ? in.data : in.data + in.len};
}

bool der_at_end(const struct der_reader *r)
{
    return r->p == r->end;
}

uint8_t der_peek(const struct der_reader *r)
{
    return der_at_end(r) ? 0 : *r->p;
}

static struct blob fail(struct der_reader *r)
{
    r->bad = true;
    r->p = r->end;
    return blob_of(NULL, 0);
}

/* The content of the next value; *ret_start is where its head begins. */
static struct blob take(struct der_reader *r, const uint8_t **ret_start)
{
    size_t left = (size_t)(r->end - r->p);
    *ret_start = r->p;
    if (left < 2 || (r->p[0] & 0x1f) == 0x1f) {
        return fail(r);
    }
    size_t len = r->p[1];
    size_t head = 2;
    if (len >= 0x80) {
        size_t width = len & 0x7f;
        if (width < 1 || width > 2 || left < 2 + width) {
            return fail(r);
        }
        len = width == 1 ? r->p[2] : (size_t)r->p[2] << 8 | r->p[3];
        if (len < (width == 1 ? 0x80u : 0x100u)) {
            return fail(r);
        }
        head += width;
    }
    if (len > left - head) {
        return fail(r);
    }
    struct blob content = blob_of(r->p + head, len);
    r->p += head + len;
    return content;
}

struct blob der_take(struct der_reader *r, uint8_t tag)
{
    const uint8_t *start;
    return der_peek(r) == tag ? take(r, &start) : fail(r);
}

struct blob der_take_any(struct der_reader *r)
{
    const uint8_t *start;
    (void)take(r, &start);
    return r->bad ? blob_of(NULL, 0) : blob_of(start, (size_t)(r->p - start));
}

struct der_reader der_enter(struct der_reader *r, uint8_t tag)
{
    struct der_reader inner;
    der_reader_init(&inner, der_take(r, tag));
    inner.bad = r->bad;
    return inner;
}
