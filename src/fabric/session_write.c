/* Turning queued streams and datagrams into packets. */
#include "fabric/fabric_impl.h"

#define BURST_BYTES (128u << 10)
#define DATAGRAM_OVERHEAD 32
#define VEC_MAX 16

void session_max_datagram(const struct session *ss, size_t *ret)
{
    size_t path = ngtcp2_conn_get_path_max_tx_udp_payload_size(ss->conn);
    *ret = path > DATAGRAM_OVERHEAD ? path - DATAGRAM_OVERHEAD : 0;
}

int session_datagram(struct session *ss, struct blob payload)
{
    size_t max;
    session_max_datagram(ss, &max);
    const ngtcp2_transport_params *tp = ngtcp2_conn_get_remote_transport_params(ss->conn);
    if (payload.len == 0) {
        return -ERR_INVALID;
    }
    if (tp == NULL || tp->max_datagram_frame_size < payload.len + 9 || payload.len > max) {
        return -ERR_TOO_LARGE;
    }
    if (ss->datagram_count >= DATAGRAMS_QUEUED_MAX) {
        ss->f->counters.dropped_limit++;
        return -ERR_BUSY;
    }
    struct datagram *d = xmalloc(sizeof *d + payload.len);
    d->len = payload.len;
    memcpy(d->data, payload.data, payload.len);
    list_add(&ss->datagrams, &d->link);
    ss->datagram_count++;
    session_dirty(ss);
    return 0;
}

/* One round of the write loop adds a datagram or a piece of a stream to the packet under
 * construction, or finishes it. Until it is finished no other call into the library is allowed. */
struct writer {
    struct session *ss;
    ngtcp2_path_storage ps;
    uint8_t *out;
    size_t cap;
    bool no_streams;         /* only what the connection itself must say */
    struct fabric_stream *s; /* what this round offered */
    bool fin;
    size_t offered;
    ngtcp2_ssize taken;
};

static ngtcp2_ssize write_datagram(struct writer *w)
{
    struct session *ss = w->ss;
    struct datagram *d = container_of(ss->datagrams.next, struct datagram, link);
    ngtcp2_vec vec = {.base = d->data, .len = d->len};
    int accepted = 0;
    ngtcp2_ssize n = ngtcp2_conn_writev_datagram(ss->conn, &w->ps.path, NULL, w->out, w->cap,
                                                 &accepted, NGTCP2_WRITE_DATAGRAM_FLAG_MORE, 0,
                                                 &vec, 1, ss->f->now_ns);
    if (accepted != 0 || n == NGTCP2_ERR_INVALID_ARGUMENT || n == NGTCP2_ERR_INVALID_STATE) {
        list_del(&d->link);
        free(d);
        ss->datagram_count--;
        ss->f->counters.datagrams_out += accepted != 0;
        if (n == NGTCP2_ERR_INVALID_ARGUMENT || n == NGTCP2_ERR_INVALID_STATE) {
            n = NGTCP2_ERR_WRITE_MORE;
        }
    }
    return n;
}

/* A datagram that no longer fits the path would be refused with 0 for ever. */
static bool drop_misfit(struct session *ss)
{
    struct datagram *d = container_of(ss->datagrams.next, struct datagram, link);
    size_t max;
    session_max_datagram(ss, &max);
    if (list_empty(&ss->datagrams) || d->len <= max) {
        return false;
    }
    list_del(&d->link);
    free(d);
    ss->datagram_count--;
    ss->f->counters.dropped_limit++;
    return true;
}

/* One packet of a relayed session, for the neighbour this connection leads to. */
static ngtcp2_ssize write_relayed(struct writer *w)
{
    struct session *ss = w->ss;
    struct relay_packet *p = relay_take(ss);
    size_t max;
    session_max_datagram(ss, &max);
    if (p != NULL && p->len > max) {
        relay_drop(ss->f, FABRIC_DROP_TOO_LARGE);
        free(p);
        p = ss->relay_head = NULL;
    }
    if (p == NULL) {
        return NGTCP2_ERR_WRITE_MORE;
    }
    ngtcp2_vec vec = {.base = p->data, .len = p->len};
    int accepted = 0;
    ngtcp2_ssize n = ngtcp2_conn_writev_datagram(ss->conn, &w->ps.path, NULL, w->out, w->cap,
                                                 &accepted, NGTCP2_WRITE_DATAGRAM_FLAG_MORE, 0,
                                                 &vec, 1, ss->f->now_ns);
    bool refused = n == NGTCP2_ERR_INVALID_ARGUMENT || n == NGTCP2_ERR_INVALID_STATE;
    if (accepted != 0 || refused) {
        free(p);
        ss->relay_head = NULL;
        ss->f->counters.datagrams_out += accepted != 0;
    }
    return refused ? NGTCP2_ERR_WRITE_MORE : n;
}

static ngtcp2_ssize write_stream(struct writer *w)
{
    struct session *ss = w->ss;
    ngtcp2_vec vec[VEC_MAX];
    size_t count = 0;
    int64_t id = -1;
    uint32_t flags = 0;
    w->s = NULL;
    while (!w->no_streams && !list_empty(&ss->sendq)) {
        struct fabric_stream *s = container_of(ss->sendq.next, struct fabric_stream, send_link);
        if (stream_has_data(s)) {
            w->s = s;
            count = stream_vec(s, vec, VEC_MAX, &w->fin);
            id = s->id;
            flags = NGTCP2_WRITE_STREAM_FLAG_MORE | (w->fin ? NGTCP2_WRITE_STREAM_FLAG_FIN : 0);
            break;
        }
        list_del(&s->send_link);
    }
    w->offered = 0;
    for (size_t i = 0; i < count; i++) {
        w->offered += vec[i].len;
    }
    w->taken = -1;
    return ngtcp2_conn_writev_stream(ss->conn, &w->ps.path, NULL, w->out, w->cap, &w->taken, flags,
                                     id, vec, count, ss->f->now_ns);
}

/* Notes what the round took; false on an error that ends the connection. */
static bool settle_stream(struct writer *w, ngtcp2_ssize n)
{
    struct session *ss = w->ss;
    struct fabric_stream *s = w->s;
    if (s == NULL) {
        return n >= 0;
    }
    if (w->taken >= 0) {
        stream_sent(s, (size_t)w->taken, w->fin && (size_t)w->taken == w->offered);
        list_del(&s->send_link);
        if (stream_has_data(s)) {
            list_add(&ss->sendq, &s->send_link);
        }
    }
    if (n >= 0 || n == NGTCP2_ERR_WRITE_MORE) {
        return true;
    }
    if (n == NGTCP2_ERR_STREAM_DATA_BLOCKED) {
        list_del(&s->send_link);
        list_add(&ss->blocked, &s->send_link);
        return true;
    }
    if (n == NGTCP2_ERR_STREAM_SHUT_WR || n == NGTCP2_ERR_STREAM_NOT_FOUND) {
        s->tx_shut = true;
        list_del(&s->send_link);
        return true;
    }
    return false;
}

static void commit_packet(struct writer *w, size_t len)
{
    struct session *ss = w->ss;
    struct addr to = {.len = w->ps.path.remote.addrlen};
    memcpy(&to.ss, w->ps.path.remote.addr, w->ps.path.remote.addrlen);
    ss->bytes_out += len;
    if (path_is_virtual(&to.ss)) {
        relay_send(ss->f, ss, &to, blob_of(w->out, len));
        return;
    }
    bool probe = len > ngtcp2_conn_get_path_max_tx_udp_payload_size(ss->conn);
    endpoint_commit(ss->f, &to, &ss->src, len, probe);
}

/* A neighbour's connection carries relayed packets and its own streams in turn. */
static bool relayed_next(struct session *ss)
{
    if (!relay_pending(ss)) {
        return false;
    }
    ss->relay_turn = !ss->relay_turn || list_empty(&ss->sendq);
    return ss->relay_turn;
}

bool session_write(struct session *ss)
{
    struct fabric *f = ss->f;
    struct writer w = {.ss = ss, .cap = TX_PACKET_MAX};
    ngtcp2_path_storage_zero(&w.ps);
    size_t budget = BURST_BYTES;
    bool room = true;
    bool more = false;
    w.out = endpoint_reserve(f, TX_PACKET_MAX);
    room = w.out != NULL;
    if (ss->path.relayed && ss->state == SESSION_UP && !relay_has_room(ss)) {
        w.no_streams = true;
        budget = 1;
    }
    while (room) {
        ngtcp2_ssize n;
        bool ok = true;
        if (!list_empty(&ss->datagrams) && !w.no_streams) {
            n = write_datagram(&w);
            ok = n >= 0 || n == NGTCP2_ERR_WRITE_MORE;
            if (n == 0 && drop_misfit(ss)) {
                continue;
            }
        } else if (relayed_next(ss)) {
            w.s = NULL;
            n = write_relayed(&w);
            ok = n >= 0 || n == NGTCP2_ERR_WRITE_MORE;
        } else {
            n = write_stream(&w);
            ok = settle_stream(&w, n);
        }
        if (!ok) {
            session_failed(ss, (int)n);
            return true;
        }
        if (n < 0) {
            continue;
        }
        if (n == 0) {
            break;
        }
        commit_packet(&w, (size_t)n);
        if ((size_t)n >= budget) {
            more = !w.no_streams; /* else it waits for room: relay_has_room */
            break;
        }
        budget -= (size_t)n;
        w.out = endpoint_reserve(f, TX_PACKET_MAX);
        room = w.out != NULL;
    }
    ngtcp2_conn_update_pkt_tx_time(ss->conn, f->now_ns);
    if (!room) {
        return false;
    }
    /* Pacing often expires within the write itself; waiting for a timer would cost a third. */
    if (ngtcp2_conn_get_expiry(ss->conn) <= f->now_ns) {
        int rv = ngtcp2_conn_handle_expiry(ss->conn, f->now_ns);
        if (rv != 0) {
            session_failed(ss, rv);
            return true;
        }
        more = true;
    }
    if (more) {
        session_dirty(ss);
    }
    path_settle(ss);
    session_arm(ss);
    return true;
}

void session_open_streams(struct session *ss)
{
    while (ss->state == SESSION_UP && !list_empty(&ss->unopened)) {
        struct fabric_stream *s = container_of(ss->unopened.next, struct fabric_stream, link);
        int64_t id;
        if (ngtcp2_conn_open_bidi_stream(ss->conn, &id, s) != 0) {
            return;
        }
        list_del(&s->link);
        list_add(&ss->streams, &s->link);
        s->id = id;
        s->state = s->state == STREAM_WAITING ? STREAM_OPEN : s->state;
        s->qs_gone = false;
        stream_wake(s);
        stream_on_open(s);
    }
}

uint64_t session_lost(struct session *ss)
{
    uint64_t n = ss->lost;
    for (struct link *l = ss->streams.next; l != &ss->streams; l = l->next) {
        struct fabric_stream *s = container_of(l, struct fabric_stream, link);
        n += s->qs_gone ? 0 : ngtcp2_conn_get_stream_loss_count(ss->conn, s->id);
    }
    return n;
}
