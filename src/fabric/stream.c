/* Streams: frames of a u32 big-endian length and that many bytes. The opener's first frame is a
 * header that names the service. A refusal travels as RESET_STREAM and STOP_SENDING whose
 * application error is the enum err number.
 *
 * Happy path, opening side: fabric_stream_open -> WAITING -> (session up) stream_bind -> OPEN,
 * frames both ways, fabric_stream_close -> fin -> the library lets go -> freed.
 * Happy path, accepting side: stream_incoming -> HEADER -> dispatch -> the service accepts -> OPEN.
 * Ways to end early: the session ends (stream_session_gone), the peer resets or stops
 * (stream_on_reset, stream_on_gone), no session can be had (stream_end), a bad frame (the session
 * is closed). All of them lead to closed(), once, from the event. */
#include "fabric/fabric_impl.h"

#define FRAMES_PER_TURN 256
#define BYTES_PER_TURN (4u << 20)

static void stream_run(struct event *e);

struct fabric_stream *stream_new(struct fabric *f, bool local, bool bulk)
{
    struct fabric_stream *s = xcalloc(1, sizeof *s);
    s->f = f;
    s->local = local;
    s->bulk = bulk;
    s->id = -1;
    s->state = local ? STREAM_WAITING : STREAM_HEADER;
    s->qs_gone = local;
    list_init(&s->link);
    list_init(&s->send_link);
    list_add(&f->streams, &s->all_link);
    event_init(&s->event, stream_run);
    frame_reader_init(&s->rx, local ? RPC_FRAME_MAX : HEADER_FRAME_MAX);
    s->frame_max = RPC_FRAME_MAX;
    s->tx_bound = f->cfg.limits.queue_bytes_max;
    return s;
}

static void set_frame_max(struct fabric_stream *s, size_t in_max, size_t out_max)
{
    s->rx.max = in_max;
    s->frame_max = out_max;
    if (s->tx_bound < out_max + 4) {
        s->tx_bound = out_max + 4;
    }
}

/* Gives the library back the window for what was consumed. */
static void credit(struct fabric_stream *s, size_t n)
{
    struct session *ss = s->ss;
    s->rx_uncredited -= n;
    if (n == 0 || ss == NULL || ss->state != SESSION_UP) {
        return;
    }
    if (!s->qs_gone) {
        (void)ngtcp2_conn_extend_max_stream_offset(ss->conn, s->id, n);
    }
    /* Also when the stream is gone: or the connection would stall in the end. */
    ngtcp2_conn_extend_max_offset(ss->conn, n);
    session_dirty(ss);
}

static void stream_maybe_free(struct fabric_stream *s)
{
    if (s->in_user || !s->silent || s->state == STREAM_WAITING || (!s->qs_gone && s->ss != NULL)) {
        return;
    }
    struct session *ss = s->ss;
    credit(s, s->rx_uncredited);
    event_cancel(&s->event);
    list_del(&s->link);
    list_del(&s->send_link);
    list_del(&s->all_link);
    if (ss != NULL) {
        ss->stream_count--;
        ss->idle_since_ns = s->f->now_ns;
        if (ss->state == SESSION_UP && !s->local) {
            ngtcp2_conn_extend_max_streams_bidi(ss->conn, 1);
            session_dirty(ss);
        }
    }
    frame_reader_fini(&s->rx);
    stream_free_chunks(s);
    free(s);
    if (ss != NULL && ss->kind == KIND_ENROLL && ss->dialled && ss->stream_count == 0) {
        session_close(ss, FABRIC_CLOSE_SHUTDOWN, -ERR_CLOSED);
    }
}

static void leave_peer(struct fabric_stream *s)
{
    if (s->peer != NULL) {
        s->peer->waiting_count--;
        s->peer = NULL;
        list_del(&s->link);
    }
}

/* --- inside the library's callbacks --- */

struct fabric_stream *stream_incoming(struct session *ss, int64_t id)
{
    struct fabric_stream *s = stream_new(ss->f, false, ss->kind == KIND_BULK);
    s->ss = ss;
    s->id = id;
    s->event.of_guest = ss->kind == KIND_ENROLL;
    list_add(&ss->streams, &s->link);
    ss->stream_count++;
    (void)ngtcp2_conn_set_stream_user_data(ss->conn, id, s);
    return s;
}

void stream_on_data(struct fabric_stream *s, struct blob in, bool fin)
{
    s->rx_fin = s->rx_fin || fin;
    s->rx_uncredited += in.len;
    if (s->silent || s->state == STREAM_ENDED) {
        credit(s, in.len);
    } else {
        frame_reader_add(&s->rx, in);
    }
    event_post(s->f, &s->event);
}

void stream_on_open(struct fabric_stream *s)
{
    if (s->vtab.opened != NULL && !s->silent) {
        s->want_opened = true;
        event_post(s->f, &s->event);
    }
}

static int rc_for_code(uint64_t code)
{
    return code == 0 || code > 4096 ? -ERR_CLOSED : -(int)code;
}

void stream_on_reset(struct fabric_stream *s, uint64_t code)
{
    stream_end(s, rc_for_code(code));
}

/* A peer that stops us (STOP_SENDING) is not announced; the library resets our side and tells here,
 * with the peer's code. */
void stream_on_gone(struct fabric_stream *s, uint64_t code)
{
    s->qs_gone = true;
    if (code != 0 || !s->rx_fin || s->rx_done) {
        stream_end(s, rc_for_code(code));
    }
    event_post(s->f, &s->event);
}

/* --- ending --- */

void stream_end(struct fabric_stream *s, int rc)
{
    if (s->state == STREAM_ENDED) {
        return;
    }
    leave_peer(s);
    s->state = STREAM_ENDED;
    s->rc = rc;
    event_post(s->f, &s->event);
}

void stream_session_gone(struct fabric_stream *s, int rc)
{
    /* What came complete before the session went is complete. */
    bool finished = s->rx_fin && s->local;
    s->retry_ms = s->ss->retry_ms;
    s->ss = NULL;
    s->qs_gone = true;
    s->tx_shut = true;
    list_del(&s->send_link);
    if (!finished) {
        stream_end(s, rc);
    }
    event_post(s->f, &s->event);
}

static void shut_library(struct fabric_stream *s, int rc)
{
    s->tx_shut = true;
    list_del(&s->send_link);
    if (s->ss != NULL && !s->qs_gone && s->ss->state == SESSION_UP) {
        (void)ngtcp2_conn_shutdown_stream(s->ss->conn, 0, s->id, (uint64_t)-rc);
        session_dirty(s->ss);
    }
}

static void detach_request(struct fabric_stream *s)
{
    if (s->rq != NULL) {
        s->rq->s = NULL;
        s->rq = NULL;
    }
}

void stream_refuse(struct fabric_stream *s, int rc)
{
    s->silent = true;
    detach_request(s);
    shut_library(s, rc);
    s->state = STREAM_ENDED;
    event_post(s->f, &s->event);
}

void stream_forget(struct fabric_stream *s)
{
    s->silent = true;
    if (s->ss != NULL && !s->qs_gone && !s->rx_fin && s->ss->state == SESSION_UP) {
        (void)ngtcp2_conn_shutdown_stream_read(s->ss->conn, 0, s->id, 0);
        session_dirty(s->ss);
    }
    stream_finish(s);
    event_post(s->f, &s->event);
}

/* --- receiving --- */

static void request_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    (void)data;
    if (s->rq != NULL || s->svc == NULL) {
        stream_refuse(s, -ERR_MALFORMED);
        return;
    }
    rpc_request(s, frame);
}

static void request_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)data;
    (void)rc;
    detach_request(s);
}

static const struct fabric_stream_vtab request_vtab = {.frame = request_frame,
                                                       .closed = request_closed};

static int service_for(struct fabric_stream *s, const struct stream_header *h,
                       const struct fabric_service **ret)
{
    const struct fabric_service *svc = fabric_service_find(s->f, h->service);
    bool enrolling = s->ss->kind == KIND_ENROLL;
    if (enrolling && s->ss->stream_count > ENROLL_STREAMS_MAX) {
        return -ERR_BUSY;
    }
    if (svc == NULL || enrolling != ((svc->flags & FABRIC_SVC_ENROLL) != 0) ||
        ((h->flags & STREAM_HEADER_RPC) != 0) != (svc->request != NULL)) {
        return -ERR_NO_SERVICE;
    }
    if ((svc->flags & FABRIC_SVC_AUTHORITY) != 0 && !s->ss->who.identity.authority) {
        return -ERR_NOT_AUTHORITY;
    }
    if (s->ss->suspended && (svc->flags & FABRIC_SVC_SUSPENDED) == 0) {
        return -ERR_SUSPENDED;
    }
    if (!enrolling && !peer_may_use(s->f, &s->ss->who.identity.node_id, h->service)) {
        s->f->counters.streams_denied++;
        return -ERR_DENIED;
    }
    *ret = svc;
    return 0;
}

static void protocol_error(struct fabric_stream *s)
{
    if (s->ss != NULL && s->ss->state == SESSION_UP) {
        if (s->ss->kind == KIND_ENROLL && !s->ss->dialled) {
            fabric_enroll_failed(s->f, &s->ss->who.address);
        }
        session_close(s->ss, FABRIC_CLOSE_PROTOCOL, -ERR_MALFORMED);
    }
    stream_end(s, -ERR_MALFORMED);
}

static void dispatch(struct fabric_stream *s, struct blob frame)
{
    struct stream_header h;
    if (msg_decode(&stream_header_desc, MSG_LENIENT, frame, &h) != 0) {
        s->silent = true;
        protocol_error(s);
        return;
    }
    const struct fabric_service *svc = NULL;
    int rc = service_for(s, &h, &svc);
    if (rc == -ERR_NOT_AUTHORITY) {
        fabric_note_refusal(s->f, &s->ss->who, rc, h.service);
    }
    if (rc != 0) {
        stream_refuse(s, rc);
        return;
    }
    size_t max = svc->frame_max_bytes != 0 ? svc->frame_max_bytes : RPC_FRAME_MAX;
    bool enrolling = s->ss->kind == KIND_ENROLL;
    set_frame_max(s, enrolling && max > ENROLL_FRAME_MAX ? ENROLL_FRAME_MAX : max,
                  svc->answer_max_bytes != 0 ? svc->answer_max_bytes : max);
    s->svc = svc;
    s->state = STREAM_OPEN;
    if (svc->request != NULL) {
        s->vtab = request_vtab;
        uint64_t ms = h.deadline_ms > UINT32_MAX ? UINT32_MAX : h.deadline_ms;
        s->deadline_ns = ms == 0 ? 0 : s->f->now_ns + ms * NS_PER_MS;
        return;
    }
    svc->stream(svc->data, s);
    if (!s->silent && s->vtab.closed == NULL) {
        stream_refuse(s, -ERR_NO_SERVICE);
    }
}

/* true: stopped by the turn's budget with more to deliver. */
static bool deliver(struct fabric_stream *s)
{
    size_t frames = 0;
    size_t bytes = 0;
    struct blob frame;
    while (!s->silent) {
        if (frames >= FRAMES_PER_TURN || bytes >= BYTES_PER_TURN) {
            return true;
        }
        int rv = frame_reader_next(&s->rx, &frame);
        if (rv == 0) {
            break;
        }
        if (rv < 0) {
            protocol_error(s);
            frame_reader_fini(&s->rx);
            break;
        }
        frames++;
        bytes += frame.len;
        if (s->state == STREAM_HEADER) {
            dispatch(s, frame);
        } else if (s->vtab.frame != NULL) {
            s->vtab.frame(s, s->data, frame);
        }
    }
    return false;
}

static void tell_closed(struct fabric_stream *s, int rc)
{
    s->silent = true;
    if (s->vtab.closed != NULL) {
        s->vtab.closed(s, s->data, rc);
    }
    if (rc == 0) {
        stream_finish(s);
    } else {
        shut_library(s, rc);
    }
}

static void stream_run(struct event *e)
{
    struct fabric_stream *s = container_of(e, struct fabric_stream, event);
    s->in_user = true;
    if (s->want_opened && !s->silent && s->state == STREAM_OPEN) {
        s->vtab.opened(s, s->data);
    }
    s->want_opened = false;
    if (!s->silent && proof_holds(s)) {
        s->in_user = false; /* its window is not given back meanwhile */
        return;
    }
    bool more = deliver(s);
    if (!more && !s->silent) {
        if (s->state == STREAM_ENDED) {
            tell_closed(s, s->rc);
        } else if (s->rx_fin && !s->rx_done) {
            s->rx_done = true;
            if (frame_reader_left(&s->rx) > 0 || s->state == STREAM_HEADER) {
                s->state = STREAM_ENDED;
                tell_closed(s, -ERR_MALFORMED);
            } else if (s->svc == NULL || s->svc->request == NULL) {
                s->state = STREAM_ENDED;
                tell_closed(s, 0);
            }
        }
    }
    if (!s->silent && s->want_drained && s->tx_unsent < s->tx_bound / 2) {
        s->want_drained = false;
        if (s->vtab.drained != NULL) {
            s->vtab.drained(s, s->data);
        }
    }
    s->in_user = false;
    size_t left = frame_reader_left(&s->rx);
    if (s->silent) {
        frame_reader_fini(&s->rx);
        credit(s, s->rx_uncredited);
    } else if (!more) {
        /* An incomplete frame can only complete if all of it may come. */
        credit(s, s->rx_uncredited);
    } else {
        credit(s, s->rx_uncredited > left ? s->rx_uncredited - left : 0);
        event_post(s->f, &s->event);
    }
    stream_maybe_free(s);
}

/* --- starting --- */

void stream_bind(struct fabric_stream *s, struct session *ss)
{
    leave_peer(s);
    s->ss = ss;
    ss->stream_count++;
    list_add(&ss->unopened, &s->link);
    session_open_streams(ss);
}

int stream_start(struct fabric_stream *s, const struct uuid *to)
{
    struct peer *p = s->f->relay.on ? peer_get(s->f, to) : peer_find(s->f, to);
    if (p == NULL) {
        return -ERR_UNREACHABLE;
    }
    struct session *ss = peer_session(p, s->bulk);
    if (ss != NULL) {
        stream_bind(s, ss);
        return 0;
    }
    if (p->addr_count == 0 && !peer_has_relay(p)) {
        peer_release(p);
        return -ERR_UNREACHABLE;
    }
    if (p->waiting_count >= PEER_WAITING_MAX) {
        s->f->counters.dropped_limit++;
        return -ERR_BUSY;
    }
    s->peer = p;
    p->waiting_count++;
    list_add(&p->waiting[s->bulk], &s->link);
    peer_want(p, s->bulk);
    return 0;
}

/* Undoes stream_new for a stream that never started. */
static void discard(struct fabric_stream *s)
{
    s->silent = true;
    s->state = STREAM_ENDED;
    stream_maybe_free(s);
}

static int start_enroll(struct fabric_stream *s, const struct addr *to)
{
    struct session *ss = session_dial(s->f, KIND_ENROLL, to, NULL, 10000);
    if (ss == NULL) {
        return -ERR_UNREACHABLE;
    }
    s->ss = ss;
    ss->stream_count++;
    list_add(&ss->unopened, &s->link);
    return 0;
}

int fabric_stream_open(struct fabric *f, const struct fabric_stream_to *to,
                       const struct fabric_stream_vtab *vtab, void *data,
                       struct fabric_stream **ret)
{
    bool enroll = uuid_is_nil(&to->node_id);
    if (f->closing) {
        return -ERR_CLOSED;
    }
    if (strlen(to->service) > 32 ||
        (!enroll && f->has_identity && uuid_equal(&to->node_id, &f->node_id))) {
        return -ERR_INVALID;
    }
    if (!enroll && !f->has_identity) {
        return -ERR_UNREACHABLE;
    }
    if (!enroll && !peer_may_use(f, &to->node_id, blob_str(to->service))) {
        return -ERR_DENIED;
    }
    struct fabric_stream *s = stream_new(f, true, to->bulk);
    s->vtab = *vtab;
    s->data = data;
    const struct fabric_service *svc = fabric_service_find(f, blob_str(to->service));
    size_t max = to->frame_max_bytes;
    if (max == 0) {
        max = svc != NULL && svc->frame_max_bytes != 0 ? svc->frame_max_bytes : RPC_FRAME_MAX;
    }
    set_frame_max(s, max, max);
    stream_put_header(s, to->service, 0, 0);
    int rc = enroll ? start_enroll(s, &to->enroll_addr) : stream_start(s, &to->node_id);
    if (rc != 0) {
        discard(s);
        return rc;
    }
    *ret = s;
    return 0;
}

void fabric_stream_accept(struct fabric_stream *s, const struct fabric_stream_vtab *vtab,
                          void *data)
{
    CHECK(!s->local && s->vtab.closed == NULL && vtab->closed != NULL);
    s->vtab = *vtab;
    s->data = data;
}

void fabric_stream_close(struct fabric_stream *s)
{
    if (s->silent) {
        return;
    }
    stream_forget(s);
}

void fabric_stream_reset(struct fabric_stream *s, int rc)
{
    if (s->silent) {
        return;
    }
    s->silent = true;
    leave_peer(s);
    shut_library(s, rc == 0 ? -ERR_CANCELED : rc);
    s->state = STREAM_ENDED;
    if (s->id < 0 && s->ss != NULL) {
        list_del(&s->link);
        list_add(&s->ss->streams, &s->link);
    }
    event_post(s->f, &s->event);
}
