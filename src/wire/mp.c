#include "wire/mp.h"

#include "base/clock.h"
#include "base/text.h"

#include <msgpack/pack.h>

static int sink(void *data, const char *bytes, size_t len)
{
    buf_add(data, bytes, len);
    return 0; /* the buffer's own sticky error is what callers check */
}

static msgpack_packer packer(struct mp_writer *w)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, w->out, sink);
    return pk;
}

void mp_writer_init(struct mp_writer *w, struct buf *out)
{
    w->out = out;
}

void mp_put_nil(struct mp_writer *w)
{
    msgpack_packer pk = packer(w);
    (void)msgpack_pack_nil(&pk);
}

void mp_put_bool(struct mp_writer *w, bool v)
{
    msgpack_packer pk = packer(w);
    (void)(v ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk));
}

void mp_put_u64(struct mp_writer *w, uint64_t v)
{
    msgpack_packer pk = packer(w);
    (void)msgpack_pack_uint64(&pk, v);
}

void mp_put_i64(struct mp_writer *w, int64_t v)
{
    msgpack_packer pk = packer(w);
    (void)msgpack_pack_int64(&pk, v);
}

void mp_put_strn(struct mp_writer *w, const char *s, size_t len)
{
    if (len < 32) {
        /* Most strings: a fixstr, without the packer's detour over its callback. */
        uint8_t *p = buf_grow(w->out, 1 + len);
        if (p != NULL) {
            p[0] = (uint8_t)(0xa0 | len);
            memcpy(p + 1, s, len);
        }
        return;
    }
    msgpack_packer pk = packer(w);
    (void)msgpack_pack_str(&pk, len);
    (void)msgpack_pack_str_body(&pk, s, len);
}

void mp_put_str(struct mp_writer *w, const char *s)
{
    mp_put_strn(w, s, strlen(s));
}

void mp_put_bin(struct mp_writer *w, struct blob v)
{
    msgpack_packer pk = packer(w);
    (void)msgpack_pack_bin(&pk, v.len);
    (void)msgpack_pack_bin_body(&pk, v.data, v.len);
}

void mp_put_uuid(struct mp_writer *w, const struct uuid *u)
{
    mp_put_bin(w, blob_of(u->b, sizeof u->b));
}

void mp_put_array(struct mp_writer *w, uint32_t count)
{
    msgpack_packer pk = packer(w);
    (void)msgpack_pack_array(&pk, count);
}

void mp_put_map(struct mp_writer *w, uint32_t count)
{
    msgpack_packer pk = packer(w);
    (void)msgpack_pack_map(&pk, count);
}

void mp_put_raw(struct mp_writer *w, struct blob encoded)
{
    buf_add(w->out, encoded.data, encoded.len);
}

/* A 32-bit container header, filled in later. */
static size_t header_begin(struct mp_writer *w, uint8_t tag)
{
    size_t at = w->out->len;
    uint8_t head[5] = {tag, 0, 0, 0, 0};
    buf_add(w->out, head, sizeof head);
    return at;
}

static void header_end(struct mp_writer *w, size_t at, uint32_t count)
{
    if (w->out->err == 0) {
        for (int i = 0; i < 4; i++) {
            w->out->data[at + 1 + (size_t)i] = (uint8_t)(count >> (24 - 8 * i));
        }
    }
}

void mp_doc_begin(struct mp_writer *w, struct mp_doc *d)
{
    *d = (struct mp_doc){.at = header_begin(w, 0xdf)};
}

void mp_doc_key(struct mp_writer *w, struct mp_doc *d, const char *key)
{
    d->count++;
    mp_put_str(w, key);
}

void mp_doc_str(struct mp_writer *w, struct mp_doc *d, const char *key, const char *v)
{
    mp_doc_key(w, d, key);
    if (v == NULL) {
        mp_put_nil(w);
    } else {
        mp_put_str(w, v);
    }
}

void mp_doc_int(struct mp_writer *w, struct mp_doc *d, const char *key, int64_t v)
{
    mp_doc_key(w, d, key);
    mp_put_i64(w, v);
}

void mp_doc_bool(struct mp_writer *w, struct mp_doc *d, const char *key, bool v)
{
    mp_doc_key(w, d, key);
    mp_put_bool(w, v);
}

void mp_doc_uuid(struct mp_writer *w, struct mp_doc *d, const char *key, const struct uuid *u)
{
    char text[UUID_TEXT_MAX];
    uuid_format(u, text);
    mp_doc_str(w, d, key, uuid_is_nil(u) ? NULL : text);
}

void mp_doc_hex(struct mp_writer *w, struct mp_doc *d, const char *key, struct blob v)
{
    char *text = xmalloc(2 * v.len + 1);
    hex_encode(v.data, v.len, text);
    mp_doc_str(w, d, key, text);
    free(text);
}

void mp_doc_time(struct mp_writer *w, struct mp_doc *d, const char *key, int64_t wall_ms)
{
    char text[CLOCK_TEXT_MAX];
    clock_format(wall_ms, text);
    mp_doc_str(w, d, key, wall_ms == 0 ? NULL : text);
}

void mp_doc_copy(struct mp_writer *w, struct mp_doc *d, struct blob doc)
{
    struct mp_reader r;
    mp_reader_init(&r, doc);
    uint32_t n = doc.len == 0 ? 0 : mp_get_map(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob k = mp_skip(&r);
        struct blob v = mp_skip(&r);
        if (r.err == 0) {
            d->count++;
            mp_put_raw(w, k);
            mp_put_raw(w, v);
        }
    }
}

void mp_doc_end(struct mp_writer *w, struct mp_doc *d)
{
    header_end(w, d->at, d->count);
}

size_t mp_list_begin(struct mp_writer *w)
{
    return header_begin(w, 0xdd);
}

void mp_list_end(struct mp_writer *w, size_t at, uint32_t count)
{
    header_end(w, at, count);
}

void mp_reader_init(struct mp_reader *r, struct blob in)
{
    *r = (struct mp_reader){.p = in.data, .end = in.data == NULL ? NULL : in.data + in.len};
}

void mp_fail(struct mp_reader *r, int rc)
{
    if (r->err == 0) {
        r->err = rc;
    }
    r->p = r->end;
}

static size_t left(const struct mp_reader *r)
{
    return (size_t)(r->end - r->p);
}

/* The head of a value: its type and its number (integer value, or length of a body). */
struct head {
    enum mp_type type;
    size_t size; /* bytes of the head itself */
    uint64_t n;
    int64_t i; /* for MP_INT */
};

static uint64_t big_endian(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t k = 0; k < n; k++) {
        v = v << 8 | p[k];
    }
    return v;
}

static int64_t sign_extend(uint64_t n, size_t width)
{
    switch (width) {
        case 1:
            return (int8_t)n;
        case 2:
            return (int16_t)n;
        case 4:
            return (int32_t)n;
        default:
            return (int64_t)n;
    }
}

static struct head read_head(const struct mp_reader *r)
{
    const struct head bad = {.type = MP_BAD};
    if (r->err != 0 || r->p == NULL || left(r) == 0) {
        return bad;
    }
    uint8_t t = *r->p;
    if (t <= 0x7f) {
        return (struct head){.type = MP_UINT, .size = 1, .n = t};
    }
    if (t >= 0xe0) {
        return (struct head){.type = MP_INT, .size = 1, .i = (int8_t)t};
    }
    if (t <= 0x8f) {
        return (struct head){.type = MP_MAP, .size = 1, .n = t & 0x0fu};
    }
    if (t <= 0x9f) {
        return (struct head){.type = MP_ARRAY, .size = 1, .n = t & 0x0fu};
    }
    if (t <= 0xbf) {
        return (struct head){.type = MP_STR, .size = 1, .n = t & 0x1fu};
    }
    if (t == 0xc0) {
        return (struct head){.type = MP_NIL, .size = 1};
    }
    if (t == 0xc2 || t == 0xc3) {
        return (struct head){.type = MP_BOOL, .size = 1, .n = t & 1u};
    }
    size_t width;
    enum mp_type type;
    if (t >= 0xc4 && t <= 0xc6) {
        type = MP_BIN;
        width = (size_t)1 << (t - 0xc4);
    } else if (t >= 0xcc && t <= 0xcf) {
        type = MP_UINT;
        width = (size_t)1 << (t - 0xcc);
    } else if (t >= 0xd0 && t <= 0xd3) {
        type = MP_INT;
        width = (size_t)1 << (t - 0xd0);
    } else if (t >= 0xd9 && t <= 0xdb) {
        type = MP_STR;
        width = (size_t)1 << (t - 0xd9);
    } else if (t == 0xdc || t == 0xdd) {
        type = MP_ARRAY;
        width = t == 0xdc ? 2 : 4;
    } else if (t == 0xde || t == 0xdf) {
        type = MP_MAP;
        width = t == 0xde ? 2 : 4;
    } else {
        return bad;
    }
    if (left(r) - 1 < width) {
        return bad;
    }
    uint64_t n = big_endian(r->p + 1, width);
    struct head h = {.type = type, .size = 1 + width, .n = n};
    if (type == MP_INT) {
        /* A non-negative value is called what it is. */
        h.i = sign_extend(n, width);
        if (h.i >= 0) {
            h.type = MP_UINT;
            h.n = (uint64_t)h.i;
        }
    }
    return h;
}

enum mp_type mp_peek(const struct mp_reader *r)
{
    return read_head(r).type;
}

/* Takes the head when it has the wanted type. */
static bool take(struct mp_reader *r, enum mp_type want, struct head *h)
{
    *h = read_head(r);
    if (h->type != want) {
        mp_fail(r, -ERR_MALFORMED);
        *h = (struct head){.type = MP_BAD};
        return false;
    }
    r->p += h->size;
    return true;
}

void mp_get_nil(struct mp_reader *r)
{
    struct head h;
    (void)take(r, MP_NIL, &h);
}

bool mp_get_bool(struct mp_reader *r)
{
    struct head h;
    return take(r, MP_BOOL, &h) && h.n != 0;
}

uint64_t mp_get_u64(struct mp_reader *r)
{
    struct head h;
    return take(r, MP_UINT, &h) ? h.n : 0;
}

int64_t mp_get_i64(struct mp_reader *r)
{
    struct head h = read_head(r);
    if (h.type == MP_INT) {
        r->p += h.size;
        return h.i;
    }
    if (h.type != MP_UINT || h.n > INT64_MAX) {
        mp_fail(r, -ERR_MALFORMED);
        return 0;
    }
    r->p += h.size;
    return (int64_t)h.n;
}

static struct blob body(struct mp_reader *r, enum mp_type type, size_t max)
{
    struct head h;
    if (!take(r, type, &h)) {
        return blob_of(NULL, 0);
    }
    if (h.n > left(r)) {
        mp_fail(r, -ERR_MALFORMED);
        return blob_of(NULL, 0);
    }
    if (h.n > max) {
        mp_fail(r, -ERR_TOO_LARGE);
        return blob_of(NULL, 0);
    }
    struct blob b = blob_of(r->p, (size_t)h.n);
    r->p += h.n;
    return b;
}

struct blob mp_get_str(struct mp_reader *r, size_t max)
{
    return body(r, MP_STR, max);
}

struct blob mp_get_bin(struct mp_reader *r, size_t max)
{
    return body(r, MP_BIN, max);
}

struct uuid mp_get_uuid(struct mp_reader *r)
{
    struct uuid u = UUID_NIL;
    struct blob b = mp_get_bin(r, sizeof u.b);
    if (b.len == sizeof u.b) {
        memcpy(u.b, b.data, sizeof u.b);
    } else {
        mp_fail(r, -ERR_MALFORMED);
    }
    return u;
}

static uint32_t container(struct mp_reader *r, enum mp_type type, uint32_t max, size_t per_item)
{
    struct head h;
    if (!take(r, type, &h)) {
        return 0;
    }
    /* Each item takes at least one byte: a count the input cannot hold is refused before anybody
     * loops over it. */
    if (h.n > left(r) / per_item) {
        mp_fail(r, -ERR_MALFORMED);
        return 0;
    }
    if (h.n > max) {
        mp_fail(r, -ERR_TOO_LARGE);
        return 0;
    }
    return (uint32_t)h.n;
}

uint32_t mp_get_array(struct mp_reader *r, uint32_t max)
{
    return container(r, MP_ARRAY, max, 1);
}

uint32_t mp_get_map(struct mp_reader *r, uint32_t max)
{
    return container(r, MP_MAP, max, 2);
}

struct blob mp_skip(struct mp_reader *r)
{
    const uint8_t *start = r->p;
    uint64_t open[MP_DEPTH_MAX + 1]; /* values still to read at each level */
    int depth = 0;
    open[0] = 1;
    while (depth >= 0) {
        if (open[depth] == 0) {
            depth--;
            continue;
        }
        open[depth]--;
        struct head h = read_head(r);
        if (h.type == MP_BAD) {
            mp_fail(r, -ERR_MALFORMED);
            return blob_of(NULL, 0);
        }
        r->p += h.size;
        if (h.type == MP_STR || h.type == MP_BIN) {
            if (h.n > left(r)) {
                mp_fail(r, -ERR_MALFORMED);
                return blob_of(NULL, 0);
            }
            r->p += h.n;
        } else if (h.type == MP_ARRAY || h.type == MP_MAP) {
            if (h.n > left(r) || depth == MP_DEPTH_MAX) {
                mp_fail(r, -ERR_MALFORMED);
                return blob_of(NULL, 0);
            }
            open[++depth] = h.type == MP_MAP ? 2 * h.n : h.n;
        }
    }
    return blob_of(start, (size_t)(r->p - start));
}

int mp_reader_finish(const struct mp_reader *r)
{
    if (r->err != 0) {
        return r->err;
    }
    return left(r) == 0 ? 0 : -ERR_MALFORMED;
}

struct blob mp_find(struct blob in, const char *key)
{
    struct mp_reader r;
    mp_reader_init(&r, in);
    uint32_t n = mp_get_map(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob k = mp_get_str(&r, SIZE_MAX);
        struct blob v = mp_skip(&r);
        if (r.err == 0 && blob_equal(k, blob_str(key))) {
            return v;
        }
    }
    return blob_of(NULL, 0);
}

void mp_find_str(struct blob in, const char *key, char *out, size_t out_size)
{
    CHECK(out_size > 0);
    struct mp_reader r;
    mp_reader_init(&r, mp_find(in, key));
    struct blob s = mp_peek(&r) == MP_STR ? mp_get_str(&r, SIZE_MAX) : blob_of(NULL, 0);
    size_t n = s.len < out_size ? s.len : out_size - 1;
    if (n > 0) {
        memcpy(out, s.data, n);
    }
    out[n] = '\0';
}

int64_t mp_find_int(struct blob in, const char *key)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(in, key));
    enum mp_type t = mp_peek(&r);
    return t == MP_UINT || t == MP_INT ? mp_get_i64(&r) : 0;
}

bool mp_find_bool(struct blob in, const char *key)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(in, key));
    return mp_peek(&r) == MP_BOOL && mp_get_bool(&r);
}
