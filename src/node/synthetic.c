/* The serving side. Each request is answered at once and kept nowhere. */
#include "node/synthetic.h"

#include "base/clock.h"

#define REQUESTS_PER_S 2000 /* of all sources together */
#define STREAMS_MAX 8
#define STREAM_BYTES_MAX (8ULL << 30)
#define FRAME_MAX (SYNTHETIC_BODY_MAX + 128)

/* Strict: a message with anything unknown in it is not test traffic. */
static int check(struct blob in, struct synthetic *ret)
{
    int rc = msg_decode(&synthetic_desc, MSG_STRICT, in, ret);
    if (rc == 0 && !blob_equal(ret->kind, blob_str(SYNTHETIC_KIND))) {
        rc = -ERR_SCOPE;
    }
    return rc;
}

static bool within_rate(struct synthetic_server *s)
{
    uint64_t second = clock_mono_ns() / 1000000000ULL;
    if (second != s->second) {
        s->second = second;
        s->requests = 0;
    }
    return s->requests++ < REQUESTS_PER_S;
}

static void on_echo(void *data, struct fabric_request *rq, struct blob body)
{
    struct node *n = data;
    struct synthetic m;
    int rc = !n->synthetic.on ? -ERR_NO_SERVICE : n->cut_off.is ? -ERR_DENIED : check(body, &m);
    if (rc == 0 && !within_rate(&n->synthetic)) {
        rc = -ERR_BUSY;
    }
    fabric_answer(rq, rc, rc == 0 ? body : blob_of(NULL, 0));
}

struct bulk { /* one stream that is counted */
    struct node *node;
    uint64_t bytes;
};

static void on_bulk_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct bulk *b = data;
    struct synthetic m;
    struct buf out;
    int rc = b->node->cut_off.is ? -ERR_DENIED : check(frame, &m);
    if (rc == 0 && b->bytes + m.body.len > STREAM_BYTES_MAX) {
        rc = -ERR_TOO_LARGE;
    }
    if (rc == 0) {
        b->bytes += m.body.len;
        struct synthetic_ack ack = {.sequence = m.sequence, .bytes = b->bytes};
        buf_init(&out, 64);
        msg_encode(&synthetic_ack_desc, &ack, &out);
        rc = out.err != 0 ? out.err : fabric_stream_send(s, buf_blob(&out));
        buf_fini(&out);
    }
    if (rc != 0) {
        b->node->synthetic.streams--;
        free(b);
        fabric_stream_reset(s, rc);
    }
}

static void on_bulk_closed(struct fabric_stream *s, void *data, int rc)
{
    struct bulk *b = data;
    (void)s;
    (void)rc;
    b->node->synthetic.streams--;
    free(b);
}

static void on_bulk(void *data, struct fabric_stream *s)
{
    static const struct fabric_stream_vtab vtab = {.frame = on_bulk_frame,
                                                   .closed = on_bulk_closed};
    struct node *n = data;
    int rc = !n->synthetic.on                      ? -ERR_NO_SERVICE
             : n->cut_off.is                       ? -ERR_DENIED
             : n->synthetic.streams >= STREAMS_MAX ? -ERR_BUSY
                                                   : 0;
    if (rc != 0) {
        fabric_stream_reset(s, rc);
        return;
    }
    n->synthetic.streams++;
    struct bulk *b = xcalloc(1, sizeof *b);
    b->node = n;
    fabric_stream_accept(s, &vtab, b);
}

void synthetic_serve(struct node *n)
{
    fabric_serve(n->fabric, &(struct fabric_service){.name = SYNTHETIC_ECHO,
                                                     .frame_max_bytes = FRAME_MAX,
                                                     .data = n,
                                                     .request = on_echo});
    fabric_serve(n->fabric, &(struct fabric_service){.name = SYNTHETIC_BULK,
                                                     .frame_max_bytes = FRAME_MAX,
                                                     .data = n,
                                                     .stream = on_bulk});
}
