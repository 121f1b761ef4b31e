/* What a stream has to send: a list of chunks, written by frames at its end. The library takes views of
 * them and keeps those until they are acknowledged, so a chunk is freed when its last byte is. `tx_cur` and
 * `tx_cur_off` are where the library has got to; bounded by tx_bound, above which the caller is told
 * -ERR_BUSY, and `drained` when half of it went out. */
#include "fabric/fabric_impl.h"

#define CHUNK_MIN (4096 - sizeof(struct chunk))
#define CHUNK_MAX ((64 << 10) - sizeof(struct chunk))

void stream_free_chunks(struct fabric_stream *s)
{
    while (s->tx_first != NULL) {
        struct chunk *c = s->tx_first;
        s->tx_first = c->next;
        free(c);
    }
    s->tx_cur = s->tx_last = NULL;
}

void stream_on_acked(struct fabric_stream *s, uint64_t end)
{
    while (s->tx_first != NULL && s->tx_first->end <= end) {
        struct chunk *c = s->tx_first;
        s->tx_first = c->next;
        if (c == s->tx_cur) {
            s->tx_cur = c->next;
            s->tx_cur_off = 0;
        }
        if (c == s->tx_last) {
            s->tx_last = NULL;
        }
        free(c);
    }
}

bool stream_has_data(const struct fabric_stream *s)
{
    return s->id >= 0 && s->ss != NULL && !s->tx_shut && !s->qs_gone &&
           (s->tx_unsent > 0 || (s->tx_fin && !s->tx_fin_sent));
}

void stream_wake(struct fabric_stream *s)
{
    if (stream_has_data(s)) {
        list_del(&s->send_link);
        list_add(&s->ss->sendq, &s->send_link);
        session_dirty(s->ss);
    }
}

static void put_bytes(struct fabric_stream *s, const uint8_t *p, size_t len, size_t total)
{
    while (len > 0) {
        struct chunk *c = s->tx_last;
        if (c == NULL || c->len == c->cap) {
            size_t cap = total < CHUNK_MIN ? CHUNK_MIN : total > CHUNK_MAX ? CHUNK_MAX : total;
            c = xmalloc(sizeof *c + cap);
            c->next = NULL;
            c->len = 0;
            c->cap = cap;
            if (s->tx_last != NULL) {
                s->tx_last->next = c;
            } else {
                s->tx_first = c;
            }
            s->tx_last = c;
            if (s->tx_cur == NULL) {
                s->tx_cur = c;
                s->tx_cur_off = 0;
            }
        }
        size_t n = c->cap - c->len < len ? c->cap - c->len : len;
        memcpy(c->data + c->len, p, n);
        c->len += n;
        p += n;
        len -= n;
        total -= n;
        s->tx_offset += n;
        s->tx_unsent += n;
        c->end = s->tx_offset;
    }
}

void stream_put_frame(struct fabric_stream *s, struct blob prefix, struct blob frame)
{
    size_t len = prefix.len + frame.len;
    uint8_t head[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                       (uint8_t)len};
    size_t total = 4 + len;
    put_bytes(s, head, 4, total);
    put_bytes(s, prefix.data, prefix.len, total - 4);
    put_bytes(s, frame.data, frame.len, frame.len);
    stream_wake(s);
}

void stream_put_header(struct fabric_stream *s, const char *service, uint64_t flags,
                       uint32_t deadline_ms)
{
    struct stream_header h = {
        .service = blob_str(service), .flags = flags, .deadline_ms = deadline_ms};
    struct buf b;
    buf_init(&b, HEADER_FRAME_MAX);
    msg_encode(&stream_header_desc, &h, &b);
    CHECK(b.err == 0);
    stream_put_frame(s, blob_of(NULL, 0), buf_blob(&b));
    buf_fini(&b);
}

void stream_finish(struct fabric_stream *s)
{
    s->tx_fin = true;
    stream_wake(s);
}

size_t stream_vec(struct fabric_stream *s, ngtcp2_vec *vec, size_t max, bool *ret_fin)
{
    while (s->tx_cur != NULL && s->tx_cur_off == s->tx_cur->len && s->tx_cur->next != NULL) {
        s->tx_cur = s->tx_cur->next;
        s->tx_cur_off = 0;
    }
    size_t n = 0;
    size_t bytes = 0;
    size_t off = s->tx_cur_off;
    /* No more than a packet takes, for it is asked for at each packet. */
    for (struct chunk *c = s->tx_cur; c != NULL && n < max && bytes < TX_PACKET_MAX; c = c->next) {
        if (c->len > off) {
            vec[n++] = (ngtcp2_vec){.base = c->data + off, .len = c->len - off};
            bytes += c->len - off;
        }
        off = 0;
    }
    *ret_fin = s->tx_fin && bytes == s->tx_unsent;
    return n;
}

void stream_sent(struct fabric_stream *s, size_t len, bool fin)
{
    s->tx_fin_sent = s->tx_fin_sent || fin;
    s->tx_unsent -= len;
    while (len > 0) {
        size_t left = s->tx_cur->len - s->tx_cur_off;
        size_t n = left < len ? left : len;
        s->tx_cur_off += n;
        len -= n;
        if (s->tx_cur_off == s->tx_cur->len && s->tx_cur->next != NULL) {
            s->tx_cur = s->tx_cur->next;
            s->tx_cur_off = 0;
        }
    }
    if (s->want_drained && s->tx_unsent < s->tx_bound / 2) {
        event_post(s->f, &s->event);
    }
}

int fabric_stream_send(struct fabric_stream *s, struct blob frame)
{
    if (s->silent || s->state == STREAM_ENDED || s->tx_shut || s->tx_fin) {
        return -ERR_CLOSED;
    }
    if (frame.len > s->frame_max) {
        return -ERR_TOO_LARGE;
    }
    if (s->tx_unsent > 0 && s->tx_unsent + 4 + frame.len > s->tx_bound) {
        s->want_drained = true;
        return -ERR_BUSY;
    }
    stream_put_frame(s, blob_of(NULL, 0), frame);
    return 0;
}
