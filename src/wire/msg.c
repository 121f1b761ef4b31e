#include "wire/msg.h"

#include "base/text.h"

static const void *at(const void *msg, const struct msg_field *f)
{
    return (const char *)msg + f->offset;
}

static bool field_is_zero(const struct msg_field *f, const void *p)
{
    switch ((enum msg_type)f->type) {
        case MSG_U64:
            return *(const uint64_t *)p == 0;
        case MSG_I64:
            return *(const int64_t *)p == 0;
        case MSG_FLAG:
            return !*(const bool *)p;
        case MSG_STR:
        case MSG_BIN:
        case MSG_FIX:
            return ((const struct blob *)p)->len == 0;
        case MSG_ID:
            return uuid_is_nil(p);
        case MSG_LIST:
            return ((const struct mp_list *)p)->count == 0;
    }
    CHECK(false);
    return true;
}

void msg_encode(const struct msg_desc *d, const void *msg, struct buf *out)
{
    struct mp_writer w;
    mp_writer_init(&w, out);
    uint32_t count = 0;
    for (size_t i = 0; i < d->count; i++) {
        count += !field_is_zero(&d->fields[i], at(msg, &d->fields[i]));
    }
    mp_put_map(&w, count);
    for (size_t i = 0; i < d->count; i++) {
        const struct msg_field *f = &d->fields[i];
        const void *p = at(msg, f);
        if (field_is_zero(f, p)) {
            continue;
        }
        mp_put_u64(&w, f->key);
        switch ((enum msg_type)f->type) {
            case MSG_U64:
                mp_put_u64(&w, *(const uint64_t *)p);
                break;
            case MSG_I64:
                mp_put_i64(&w, *(const int64_t *)p);
                break;
            case MSG_FLAG:
                mp_put_bool(&w, true);
                break;
            case MSG_STR: {
                const struct blob *b = p;
                mp_put_strn(&w, (const char *)b->data, b->len);
                break;
            }
            case MSG_BIN:
            case MSG_FIX:
                mp_put_bin(&w, *(const struct blob *)p);
                break;
            case MSG_ID:
                mp_put_uuid(&w, p);
                break;
            case MSG_LIST: {
                const struct mp_list *l = p;
                mp_put_array(&w, l->count);
                mp_put_raw(&w, l->raw);
                break;
            }
        }
    }
}

static void read_field(struct mp_reader *r, const struct msg_field *f, void *p)
{
    switch ((enum msg_type)f->type) {
        case MSG_U64:
            *(uint64_t *)p = mp_get_u64(r);
            return;
        case MSG_I64:
            *(int64_t *)p = mp_get_i64(r);
            return;
        case MSG_FLAG:
            *(bool *)p = mp_get_bool(r);
            return;
        case MSG_STR: {
            struct blob b = mp_get_str(r, f->max);
            if (!text_is_clean((const char *)b.data, b.len)) {
                mp_fail(r, -ERR_MALFORMED);
            }
            *(struct blob *)p = b;
            return;
        }
        case MSG_BIN:
            *(struct blob *)p = mp_get_bin(r, f->max);
            return;
        case MSG_FIX: {
            struct blob b = mp_get_bin(r, f->max);
            if (r->err == 0 && b.len != f->max && b.len != 0) {
                mp_fail(r, -ERR_MALFORMED);
            }
            *(struct blob *)p = b;
            return;
        }
        case MSG_ID:
            *(struct uuid *)p = mp_get_uuid(r);
            return;
        case MSG_LIST: {
            struct mp_list *l = p;
            l->count = mp_get_array(r, (uint32_t)f->max);
            const uint8_t *start = r->p;
            for (uint32_t i = 0; i < l->count && r->err == 0; i++) {
                (void)mp_skip(r);
            }
            l->raw = blob_of(start, r->err == 0 ? (size_t)(r->p - start) : 0);
            return;
        }
    }
    CHECK(false);
}

int msg_decode(const struct msg_desc *d, enum msg_mode mode, struct blob in, void *msg)
{
    memset(msg, 0, d->size);
    struct mp_reader r;
    mp_reader_init(&r, in);
    uint32_t n = mp_get_map(&r, 256);
    int64_t last = -1;
    size_t next = 0; /* fields before this one are read or absent */
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        uint64_t key = mp_get_u64(&r);
        if (r.err != 0) {
            break;
        }
        if (key > 255 || (int64_t)key <= last) {
            mp_fail(&r, -ERR_MALFORMED);
            break;
        }
        last = (int64_t)key;
        while (next < d->count && d->fields[next].key < key) {
            next++;
        }
        if (next < d->count && d->fields[next].key == key) {
            read_field(&r, &d->fields[next], (char *)msg + d->fields[next].offset);
        } else if (mode == MSG_STRICT) {
            mp_fail(&r, -ERR_UNSUPPORTED);
        } else {
            (void)mp_skip(&r);
        }
    }
    int rc = mp_reader_finish(&r);
    for (size_t i = 0; rc == 0 && i < d->count; i++) {
        const struct msg_field *f = &d->fields[i];
        if ((f->flags & MSG_REQUIRED) != 0 && field_is_zero(f, at(msg, f))) {
            rc = -ERR_MALFORMED;
        }
    }
    if (rc != 0) {
        memset(msg, 0, d->size);
    }
    return rc;
}

bool msg_equal(const struct msg_desc *d, const void *a, const void *b)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct msg_field *f = &d->fields[i];
        const void *x = at(a, f);
        const void *y = at(b, f);
        bool same = false;
        switch ((enum msg_type)f->type) {
            case MSG_U64:
            case MSG_I64:
                same = memcmp(x, y, 8) == 0;
                break;
            case MSG_FLAG:
                same = *(const bool *)x == *(const bool *)y;
                break;
            case MSG_STR:
            case MSG_BIN:
            case MSG_FIX:
                same = blob_equal(*(const struct blob *)x, *(const struct blob *)y);
                break;
            case MSG_ID:
                same = uuid_equal(x, y);
                break;
            case MSG_LIST: {
                const struct mp_list *l = x;
                const struct mp_list *m = y;
                same = l->count == m->count && blob_equal(l->raw, m->raw);
                break;
            }
        }
        if (!same) {
            return false;
        }
    }
    return true;
}
