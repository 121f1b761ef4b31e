/* An rpc is a stream: header, one request frame, fin; one answer frame, fin. The answer begins with
 * the error number, two bytes big-endian.
 *
 * Ends of a call: the answer (on_frame), the stream ends without one (on_closed), the deadline
 * (on_deadline), fabric_call_cancel (on_cancel). Each runs finish(), which calls back once. */
#include "fabric/fabric_impl.h"

struct rpc_call {
    struct fabric *f;
    struct fabric_call *call;
    struct fabric_stream *s;
    struct timer deadline;
    struct event canceled;
};

static void finish(struct rpc_call *c, int rc, struct blob body)
{
    struct fabric_call *call = c->call;
    timer_stop(c->f, &c->deadline);
    event_cancel(&c->canceled);
    free(c);
    call->impl = NULL;
    call->cb(call, rc, body);
}

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct rpc_call *c = data;
    if (c == NULL) {
        return;
    }
    s->data = NULL;
    if (frame.len < RPC_ANSWER_PREFIX) {
        fabric_stream_reset(s, -ERR_MALFORMED);
        finish(c, -ERR_MALFORMED, blob_of(NULL, 0));
        return;
    }
    int number = (frame.data[0] << 8) | frame.data[1];
    if (!s->rx_fin) {
        fabric_stream_close(s);
    }
    finish(c, -number, blob_of(frame.data + RPC_ANSWER_PREFIX, frame.len - RPC_ANSWER_PREFIX));
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    struct rpc_call *c = data;
    s->data = NULL;
    if (c != NULL) {
        finish(c, rc == 0 ? -ERR_CLOSED : rc, blob_of(NULL, 0));
    }
}

static const struct fabric_stream_vtab call_vtab = {.frame = on_frame, .closed = on_closed};

static void on_deadline(struct timer *t)
{
    struct rpc_call *c = container_of(t, struct rpc_call, deadline);
    c->s->data = NULL;
    fabric_stream_reset(c->s, -ERR_TIMEOUT);
    c->s = NULL;
    finish(c, -ERR_TIMEOUT, blob_of(NULL, 0));
}

static void on_cancel(struct event *e)
{
    struct rpc_call *c = container_of(e, struct rpc_call, canceled);
    finish(c, -ERR_CANCELED, blob_of(NULL, 0));
}

/* The stream with its request in it, not on its way yet. */
static struct rpc_call *call_new(struct fabric *f, struct fabric_call *call, const char *service,
                                 struct blob body, size_t max, uint32_t deadline_ms,
                                 fabric_call_cb cb)
{
    struct rpc_call *c = xcalloc(1, sizeof *c);
    struct fabric_stream *s = stream_new(f, true, false);
    *c = (struct rpc_call){.f = f, .call = call, .s = s};
    s->vtab = call_vtab;
    s->data = c;
    s->rx.max = max + RPC_ANSWER_PREFIX;
    stream_put_header(s, service, STREAM_HEADER_RPC, deadline_ms);
    stream_put_frame(s, blob_of(NULL, 0), body);
    stream_finish(s);
    c->deadline.run = on_deadline;
    event_init(&c->canceled, on_cancel);
    call->cb = cb;
    return c;
}

static void call_started(struct rpc_call *c, uint32_t deadline_ms)
{
    struct fabric *f = c->f;
    c->call->impl = c;
    fabric_tick(f);
    timer_set(f, &c->deadline, f->now_ns + deadline_ms * NS_PER_MS);
    f->counters.rpcs_made++;
}

void rpc_call_on(struct session *ss, struct fabric_call *call, const char *service, size_t max,
                 uint32_t deadline_ms, fabric_call_cb cb)
{
    struct rpc_call *c = call_new(ss->f, call, service, blob_of(NULL, 0), max, deadline_ms, cb);
    stream_bind(c->s, ss);
    call_started(c, deadline_ms);
}

int fabric_call_start(struct fabric *f, struct fabric_call *call, const struct uuid *to,
                      const char *service, struct blob body, uint32_t deadline_ms,
                      fabric_call_cb cb)
{
    if (f->closing) {
        return -ERR_CLOSED;
    }
    if (strlen(service) > 32 || (f->has_identity && uuid_equal(to, &f->node_id))) {
        return -ERR_INVALID;
    }
    if (!f->has_identity) {
        return -ERR_UNREACHABLE;
    }
    const struct fabric_service *svc = fabric_service_find(f, blob_str(service));
    size_t max = svc != NULL && svc->frame_max_bytes > RPC_FRAME_MAX ? svc->frame_max_bytes
                                                                     : RPC_FRAME_MAX;
    if (body.len > max) {
        return -ERR_TOO_LARGE;
    }
    if (!peer_may_use(f, to, blob_str(service))) {
        return -ERR_DENIED;
    }
    struct rpc_call *c = call_new(f, call, service, body, max, deadline_ms, cb);
    int rc = stream_start(c->s, to);
    if (rc != 0) {
        fabric_stream_reset(c->s, rc);
        free(c);
        return rc;
    }
    call_started(c, deadline_ms);
    return 0;
}

void fabric_call_cancel(struct fabric_call *call)
{
    struct rpc_call *c = call->impl;
    if (c == NULL || c->s == NULL) {
        return;
    }
    c->s->data = NULL;
    fabric_stream_reset(c->s, -ERR_CANCELED);
    c->s = NULL;
    timer_stop(c->f, &c->deadline);
    event_post(c->f, &c->canceled);
}

/* --- serving --- */

void rpc_request(struct fabric_stream *s, struct blob body)
{
    struct fabric_request *rq = xcalloc(1, sizeof *rq);
    rq->s = s;
    rq->peer = s->ss != NULL ? s->ss->who : (struct fabric_peer){0};
    rq->deadline_ns = s->deadline_ns;
    s->rq = rq;
    s->f->counters.rpcs_served++;
    s->svc->request(s->svc->data, rq, body);
}

const struct fabric_peer *fabric_request_peer(const struct fabric_request *rq)
{
    return &rq->peer;
}

uint32_t fabric_request_left_ms(const struct fabric_request *rq)
{
    if (rq->s == NULL) {
        return 0;
    }
    if (rq->deadline_ns == 0) {
        return UINT32_MAX;
    }
    uint64_t now = rq->s->f->now_ns;
    return rq->deadline_ns <= now ? 0 : (uint32_t)((rq->deadline_ns - now) / NS_PER_MS);
}

void fabric_answer(struct fabric_request *rq, int rc, struct blob body)
{
    struct fabric_stream *s = rq->s;
    free(rq);
    if (s == NULL) {
        return;
    }
    s->rq = NULL;
    if (body.len > s->frame_max) {
        rc = -ERR_TOO_LARGE;
        body.len = 0;
    }
    uint8_t prefix[RPC_ANSWER_PREFIX] = {(uint8_t)(-rc >> 8), (uint8_t)-rc};
    stream_put_frame(s, blob_of(prefix, sizeof prefix), body);
    stream_forget(s);
}
