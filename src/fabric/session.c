/* One QUIC connection. */
#include "fabric/fabric_impl.h"

#include "base/clock.h"
#include "base/rng.h"

#define STREAM_WINDOW_START (512u << 10)
#define CONN_WINDOW_START (1u << 20)
#define CONN_WINDOW_MAX (16u << 20)
#define ENROLL_WINDOW (128u << 10)
#define IDLE_TIMEOUT_NS (30000 * NS_PER_MS)
#define ACCEPT_TIMEOUT_MS 5000
#define INITIAL_RTT_NS (50 * NS_PER_MS)
#define BURST_BYTES (128u << 10)
#define ENROLL_IDLE_NS (30000 * NS_PER_MS)
#define DATAGRAM_OVERHEAD 32
#define VEC_MAX 16

/* --- the library's callbacks: note, post, return --- */

static void rand_cb(uint8_t *dest, size_t len, const ngtcp2_rand_ctx *ctx)
{
    (void)ctx;
    rng_bytes(dest, len);
}

static int new_cid_cb(ngtcp2_conn *conn, ngtcp2_cid *cid, uint8_t *token, size_t len, void *user)
{
    (void)conn;
    struct session *ss = user;
    uint8_t bytes[NGTCP2_MAX_CIDLEN];
    if (len > sizeof bytes) {
        return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    rng_bytes(bytes, len);
    ngtcp2_cid_init(cid, bytes, len);
    if (ngtcp2_crypto_generate_stateless_reset_token(token, ss->f->cfg.reset_secret,
                                                     sizeof ss->f->cfg.reset_secret, cid) != 0) {
        return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    endpoint_add_cid(ss, cid);
    return 0;
}

static int remove_cid_cb(ngtcp2_conn *conn, const ngtcp2_cid *cid, void *user)
{
    (void)conn;
    endpoint_del_cid(user, cid);
    return 0;
}

static int dcid_status_cb(ngtcp2_conn *conn, ngtcp2_connection_id_status_type type, uint64_t seq,
                          const ngtcp2_cid *cid, const uint8_t *token, void *user)
{
    (void)conn;
    (void)cid;
    if (type == NGTCP2_CONNECTION_ID_STATUS_TYPE_ACTIVATE) {
        if (token != NULL) {
            endpoint_add_token(user, seq, token);
        }
    } else {
        endpoint_del_token(user, seq);
    }
    return 0;
}

static int crypto_data_cb(ngtcp2_conn *conn, ngtcp2_encryption_level level, uint64_t offset,
                          const uint8_t *data, size_t len, void *user)
{
    struct session *ss = user;
    if (ss->tls == NULL) {
        return 0;
    }
    return ngtcp2_crypto_recv_crypto_data_cb(conn, level, offset, data, len, user);
}

/* The server has judged the client's certificate when its handshake completes. */
static int completed_cb(ngtcp2_conn *conn, void *user)
{
    (void)conn;
    struct session *ss = user;
    if (!ss->dialled) {
        event_post(ss->f, &ss->up_event);
    }
    return 0;
}

/* A client's handshake completes before the server has seen its certificate (RFC 8446 section 2):
 * only the server's confirmation tells that we are in. */
static int confirmed_cb(ngtcp2_conn *conn, void *user)
{
    (void)conn;
    struct session *ss = user;
    if (ss->dialled) {
        event_post(ss->f, &ss->up_event);
    }
    return 0;
}

static int stream_open_cb(ngtcp2_conn *conn, int64_t id, void *user)
{
    (void)conn;
    (void)stream_incoming(user, id);
    return 0;
}

static int stream_data_cb(ngtcp2_conn *conn, uint32_t flags, int64_t id, uint64_t offset,
                          const uint8_t *data, size_t len, void *user, void *stream_user)
{
    (void)conn;
    (void)offset;
    struct fabric_stream *s = stream_user != NULL ? stream_user : stream_incoming(user, id);
    stream_on_data(s, blob_of(data, len), (flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0);
    return 0;
}

static int acked_cb(ngtcp2_conn *conn, int64_t id, uint64_t offset, uint64_t len, void *user,
                    void *stream_user)
{
    (void)conn;
    (void)id;
    (void)user;
    if (stream_user != NULL) {
        stream_on_acked(stream_user, offset + len);
    }
    return 0;
}

static int stream_close_cb(ngtcp2_conn *conn, uint32_t flags, int64_t id, uint64_t code, void *user,
                           void *stream_user)
{
    (void)user;
    if (stream_user != NULL) {
        stream_on_gone(stream_user,
                       (flags & NGTCP2_STREAM_CLOSE_FLAG_APP_ERROR_CODE_SET) != 0 ? code : 0);
    } else if (!ngtcp2_conn_is_local_stream(conn, id)) {
        ngtcp2_conn_extend_max_streams_bidi(conn, 1);
    }
    return 0;
}

static int stream_reset_cb(ngtcp2_conn *conn, int64_t id, uint64_t final_size, uint64_t code,
                           void *user, void *stream_user)
{
    (void)conn;
    (void)final_size;
    struct fabric_stream *s = stream_user != NULL ? stream_user : stream_incoming(user, id);
    stream_on_reset(s, code);
    return 0;
}

static int unblock_cb(ngtcp2_conn *conn, int64_t id, uint64_t max, void *user, void *stream_user)
{
    (void)conn;
    (void)id;
    (void)max;
    (void)user;
    if (stream_user != NULL) {
        stream_wake(stream_user);
    }
    return 0;
}

static int more_streams_cb(ngtcp2_conn *conn, uint64_t max, void *user)
{
    (void)conn;
    (void)max;
    session_open_streams(user);
    return 0;
}

static int datagram_cb(ngtcp2_conn *conn, uint32_t flags, const uint8_t *data, size_t len,
                       void *user)
{
    (void)conn;
    (void)flags;
    struct session *ss = user;
    struct fabric *f = ss->f;
    f->counters.datagrams_in++;
    if (!ss->who.authenticated || f->datagram_cb == NULL ||
        f->datagram_count >= DATAGRAMS_QUEUED_MAX) {
        f->counters.dropped_limit++;
        return 0;
    }
    struct datagram *d = xmalloc(sizeof *d + len);
    d->from = ss->who;
    d->len = len;
    if (len > 0) {
        memcpy(d->data, data, len);
    }
    list_add(&f->datagrams, &d->link);
    f->datagram_count++;
    event_post(f, &f->datagram_event);
    return 0;
}

static int reset_cb(ngtcp2_conn *conn, const ngtcp2_pkt_stateless_reset *sr, void *user)
{
    (void)conn;
    (void)sr;
    ((struct session *)user)->mute_close = true;
    return 0;
}

static const ngtcp2_callbacks callbacks = {
    .client_initial = ngtcp2_crypto_client_initial_cb,
    .recv_client_initial = ngtcp2_crypto_recv_client_initial_cb,
    .recv_crypto_data = crypto_data_cb,
    .encrypt = ngtcp2_crypto_encrypt_cb,
    .decrypt = ngtcp2_crypto_decrypt_cb,
    .hp_mask = ngtcp2_crypto_hp_mask_cb,
    .recv_retry = ngtcp2_crypto_recv_retry_cb,
    .rand = rand_cb,
    .get_new_connection_id = new_cid_cb,
    .remove_connection_id = remove_cid_cb,
    .update_key = ngtcp2_crypto_update_key_cb,
    .delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb,
    .delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb,
    .get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb,
    .version_negotiation = ngtcp2_crypto_version_negotiation_cb,
    .dcid_status = dcid_status_cb,
    .handshake_completed = completed_cb,
    .handshake_confirmed = confirmed_cb,
    .stream_open = stream_open_cb,
    .recv_stream_data = stream_data_cb,
    .acked_stream_data_offset = acked_cb,
    .stream_close = stream_close_cb,
    .stream_reset = stream_reset_cb,
    .extend_max_stream_data = unblock_cb,
    .extend_max_local_streams_bidi = more_streams_cb,
    .recv_datagram = datagram_cb,
    .recv_stateless_reset = reset_cb,
};

/* --- birth --- */

static void fill_settings(struct session *ss, ngtcp2_settings *st, uint32_t timeout_ms)
{
    static const uint16_t probes[] = {1452, 1472, 8952};
    ngtcp2_settings_default(st);
    st->cc_algo = NGTCP2_CC_ALGO_CUBIC;
    st->initial_ts = ss->f->now_ns;
    st->initial_rtt = INITIAL_RTT_NS;
    st->handshake_timeout = timeout_ms * NS_PER_MS;
    st->max_tx_udp_payload_size = probes[ARRAY_SIZE(probes) - 1];
    st->pmtud_probes = probes;
    st->pmtud_probeslen = ARRAY_SIZE(probes);
    st->max_window = CONN_WINDOW_MAX;
    st->max_stream_window = ss->f->ep.stream_window;
}

static void fill_params(struct session *ss, ngtcp2_transport_params *tp)
{
    struct fabric *f = ss->f;
    ngtcp2_transport_params_default(tp);
    bool enrol = ss->dialled && ss->kind == KIND_ENROLL;
    tp->initial_max_stream_data_bidi_local = STREAM_WINDOW_START;
    tp->initial_max_stream_data_bidi_remote = enrol ? 0 : STREAM_WINDOW_START;
    tp->initial_max_data = CONN_WINDOW_START;
    tp->initial_max_streams_bidi = enrol ? 0 : f->cfg.limits.streams_per_session;
    tp->max_idle_timeout = IDLE_TIMEOUT_NS;
    tp->max_datagram_frame_size = enrol ? 0 : 65535;
    tp->active_connection_id_limit = 4;
}

static struct session *session_new(struct fabric *f, const struct addr *remote)
{
    struct session *ss = xcalloc(1, sizeof *ss);
    ss->f = f;
    ss->state = SESSION_HANDSHAKE;
    ss->who.address = *remote;
    endpoint_unmap(&ss->who.address);
    list_init(&ss->link);
    list_init(&ss->dirty_link);
    list_init(&ss->cids);
    list_init(&ss->tokens);
    list_init(&ss->streams);
    list_init(&ss->unopened);
    list_init(&ss->sendq);
    list_init(&ss->blocked);
    list_init(&ss->datagrams);
    ss->last_rx_ns = f->now_ns;
    return ss;
}

static void session_timer(struct timer *t);
static void session_up(struct event *e);

static void enlist(struct session *ss)
{
    struct fabric *f = ss->f;
    list_add(&f->sessions, &ss->link);
    f->session_count++;
    event_init(&ss->up_event, session_up);
    ss->timer.run = session_timer;
}

static void make_path(struct fabric *f, const struct addr *remote, ngtcp2_path_storage *ps)
{
    ngtcp2_path_storage_init(ps, (const ngtcp2_sockaddr *)&f->ep.local.ss, f->ep.local.len,
                             (const ngtcp2_sockaddr *)&remote->ss, remote->len, NULL);
}

struct session *session_dial(struct fabric *f, enum session_kind kind, const struct addr *to,
                             struct peer *peer, uint32_t timeout_ms)
{
    struct addr remote;
    if (endpoint_map(f, to, &remote) != 0 || f->session_count >= f->cfg.limits.sessions_max) {
        return NULL;
    }
    fabric_tick(f);
    struct session *ss = session_new(f, &remote);
    ss->dialled = true;
    ss->kind = kind;
    ss->peer = peer;
    enlist(ss);
    ngtcp2_settings st;
    ngtcp2_transport_params tp;
    fill_settings(ss, &st, timeout_ms);
    fill_params(ss, &tp);
    uint8_t random[16];
    rng_bytes(random, sizeof random);
    ngtcp2_cid dcid;
    ngtcp2_cid scid;
    ngtcp2_cid_init(&dcid, random, sizeof random);
    endpoint_new_cid(&scid);
    ngtcp2_path_storage ps;
    make_path(f, &remote, &ps);
    if (ngtcp2_conn_client_new(&ss->conn, &dcid, &scid, &ps.path, NGTCP2_PROTO_VER_V1, &callbacks,
                               &st, &tp, NULL, ss) != 0 ||
        tls_session_open(ss) != 0) {
        session_free(ss);
        return NULL;
    }
    endpoint_add_cid(ss, &scid);
    session_dirty(ss);
    return ss;
}

struct session *session_accept(struct fabric *f, const ngtcp2_pkt_hd *hd, const ngtcp2_cid *odcid,
                               const struct addr *from, const struct source *src)
{
    struct session *ss = session_new(f, from);
    ss->src = *src;
    ss->half_open = true;
    f->half_open++;
    enlist(ss);
    ngtcp2_settings st;
    ngtcp2_transport_params tp;
    fill_settings(ss, &st, ACCEPT_TIMEOUT_MS);
    fill_params(ss, &tp);
    ngtcp2_cid scid;
    endpoint_new_cid(&scid);
    if (odcid != NULL) {
        tp.original_dcid = *odcid;
        tp.retry_scid = hd->dcid;
        tp.retry_scid_present = 1;
        st.token = hd->token;
        st.tokenlen = hd->tokenlen;
        st.token_type = NGTCP2_TOKEN_TYPE_RETRY;
    } else {
        tp.original_dcid = hd->dcid;
    }
    tp.original_dcid_present = 1;
    tp.stateless_reset_token_present =
        ngtcp2_crypto_generate_stateless_reset_token(tp.stateless_reset_token, f->cfg.reset_secret,
                                                     sizeof f->cfg.reset_secret, &scid) == 0;
    ngtcp2_path_storage ps;
    make_path(f, from, &ps);
    if (ngtcp2_conn_server_new(&ss->conn, &hd->scid, &scid, &ps.path, hd->version, &callbacks, &st,
                               &tp, NULL, ss) != 0 ||
        tls_session_open(ss) != 0) {
        session_free(ss);
        return NULL;
    }
    endpoint_add_cid(ss, &scid);
    endpoint_add_cid(ss, &hd->dcid);
    return ss;
}

/* --- end --- */

static void count_opened(struct session *ss)
{
    if (ss->half_open) {
        ss->half_open = false;
        ss->f->half_open--;
    }
}

static int rc_for_close(const ngtcp2_ccerr *e)
{
    if (e->type == NGTCP2_CCERR_TYPE_APPLICATION) {
        switch (e->error_code) {
        case FABRIC_CLOSE_REVOKED:
            return -ERR_REVOKED;
        case FABRIC_CLOSE_PROTOCOL:
            return -ERR_MALFORMED;
        case FABRIC_CLOSE_LIMIT:
            return -ERR_BUSY;
        case FABRIC_CLOSE_EXPIRED:
            return -ERR_CERT_EXPIRED;
        default:
            return -ERR_CLOSED;
        }
    }
    if ((e->error_code & ~0xffULL) == NGTCP2_CRYPTO_ERROR) {
        return tls_rc_for_alert((uint8_t)e->error_code);
    }
    return -ERR_CLOSED;
}

/* Everything that hangs on it learns the reason; the library's object stays for the closing
 * period (RFC 9000 section 10.2). */
static void session_end(struct session *ss, enum session_state state, int rc)
{
    struct fabric *f = ss->f;
    bool was_up = ss->state == SESSION_UP;
    CHECK(ss->state == SESSION_HANDSHAKE || was_up);
    ss->state = state;
    ss->end_rc = rc;
    event_cancel(&ss->up_event);
    if (!was_up) {
        f->counters.handshakes_failed++;
    }
    count_opened(ss);
    if (was_up && ss->kind == KIND_ENROLL) {
        f->enroll_count--;
    }
    if (was_up) {
        f->counters.sessions--;
    }
    struct link ended;
    list_init(&ended);
    list_splice(&ended, &ss->streams);
    list_splice(&ended, &ss->unopened);
    while (!list_empty(&ended)) {
        struct fabric_stream *s = container_of(ended.next, struct fabric_stream, link);
        list_del(&s->link);
        stream_session_gone(s, rc);
    }
    while (!list_empty(&ss->datagrams)) {
        struct datagram *d = container_of(ss->datagrams.next, struct datagram, link);
        list_del(&d->link);
        free(d);
    }
    ss->datagram_count = 0;
    peer_session_end(ss, rc);
    ss->peer = NULL;
    list_del(&ss->dirty_link);
    if (state == SESSION_DEAD) {
        endpoint_forget(ss);
        list_del(&ss->link);
        list_add(&f->dead, &ss->link);
        timer_stop(f, &ss->timer);
        return;
    }
    ngtcp2_duration pto = ngtcp2_conn_get_pto(ss->conn);
    if (pto > 200 * NS_PER_MS) {
        pto = 200 * NS_PER_MS;
    }
    ss->gone_at_ns = f->now_ns + 3 * pto;
    timer_set(f, &ss->timer, ss->gone_at_ns);
}

static void send_close_packet(struct session *ss)
{
    uint8_t *p = endpoint_reserve(ss->f, ss->close_len);
    if (p == NULL) {
        return;
    }
    memcpy(p, ss->close_packet, ss->close_len);
    const ngtcp2_path *path = ngtcp2_conn_get_path(ss->conn);
    struct addr to = {.len = path->remote.addrlen};
    memcpy(&to.ss, path->remote.addr, path->remote.addrlen);
    endpoint_commit(ss->f, &to, &ss->src, ss->close_len, false);
}

static void session_finish(struct session *ss, const ngtcp2_ccerr *ccerr, int rc)
{
    if (ss->state != SESSION_HANDSHAKE && ss->state != SESSION_UP) {
        return;
    }
    uint8_t packet[NGTCP2_MAX_UDP_PAYLOAD_SIZE];
    ngtcp2_path_storage ps;
    ngtcp2_path_storage_zero(&ps);
    ngtcp2_ssize n = 0;
    if (!ss->mute_close && !ss->f->mute) {
        n = ngtcp2_conn_write_connection_close(ss->conn, &ps.path, NULL, packet, sizeof packet,
                                               ccerr, ss->f->now_ns);
    }
    if (n <= 0) {
        session_end(ss, SESSION_DEAD, rc);
        return;
    }
    ss->close_packet = xmalloc((size_t)n);
    ss->close_len = (size_t)n;
    memcpy(ss->close_packet, packet, (size_t)n);
    send_close_packet(ss);
    session_end(ss, SESSION_CLOSING, rc);
}

void session_close(struct session *ss, enum fabric_close_code code, int rc)
{
    fabric_tick(ss->f);
    ngtcp2_ccerr e;
    ngtcp2_ccerr_default(&e);
    ngtcp2_ccerr_set_application_error(&e, code, NULL, 0);
    session_finish(ss, &e, rc);
}

void session_drop(struct session *ss, int rc)
{
    if (ss->state == SESSION_HANDSHAKE || ss->state == SESSION_UP) {
        session_end(ss, SESSION_DEAD, rc);
    }
}

/* What the library said about a packet, a write or a timer. */
static void session_failed(struct session *ss, int rv)
{
    if (ss->state != SESSION_HANDSHAKE && ss->state != SESSION_UP) {
        return;
    }
    ngtcp2_ccerr e;
    ngtcp2_ccerr_default(&e);
    switch (rv) {
    case NGTCP2_ERR_DRAINING:
        session_end(ss, ss->mute_close ? SESSION_DEAD : SESSION_DRAINING,
                    ss->mute_close ? -ERR_CLOSED : rc_for_close(ngtcp2_conn_get_ccerr(ss->conn)));
        return;
    case NGTCP2_ERR_IDLE_CLOSE:
    case NGTCP2_ERR_HANDSHAKE_TIMEOUT:
        session_end(ss, SESSION_DEAD,
                    ss->state == SESSION_UP ? -ERR_TIMEOUT : -ERR_UNREACHABLE);
        return;
    case NGTCP2_ERR_DROP_CONN:
    case NGTCP2_ERR_RETRY:
    case NGTCP2_ERR_CLOSING:
        session_end(ss, SESSION_DEAD, -ERR_CLOSED);
        return;
    case NGTCP2_ERR_RECV_VERSION_NEGOTIATION:
        session_end(ss, SESSION_DEAD, -ERR_UNSUPPORTED);
        return;
    default:
        break;
    }
    int rc = -ERR_MALFORMED;
    if (ss->verify_rc != 0) {
        ngtcp2_ccerr_set_tls_alert(&e, tls_alert_for(ss->verify_rc), NULL, 0);
        rc = ss->verify_rc;
    } else if (rv == NGTCP2_ERR_CRYPTO) {
        ngtcp2_ccerr_set_tls_alert(&e, ngtcp2_conn_get_tls_alert(ss->conn), NULL, 0);
        rc = -ERR_CRYPTO;
    } else {
        ngtcp2_ccerr_set_liberr(&e, rv, NULL, 0);
    }
    session_finish(ss, &e, rc);
}

void session_free(struct session *ss)
{
    struct fabric *f = ss->f;
    timer_stop(f, &ss->timer);
    event_cancel(&ss->up_event);
    endpoint_forget(ss);
    list_del(&ss->link);
    list_del(&ss->dirty_link);
    count_opened(ss);
    f->session_count--;
    if (ss->conn != NULL) {
        ngtcp2_conn_del(ss->conn);
    }
    tls_session_close(ss);
    free(ss->close_packet);
    free(ss);
}

/* --- life --- */

static void session_up(struct event *e)
{
    struct session *ss = container_of(e, struct session, up_event);
    struct fabric *f = ss->f;
    if (ss->state != SESSION_HANDSHAKE) {
        return;
    }
    count_opened(ss);
    ss->state = SESSION_UP;
    ss->up_ns = ss->idle_since_ns = f->now_ns;
    ss->up_wall_ms = clock_wall_ms();
    f->counters.sessions++;
    f->counters.sessions_opened++;
    /* TLS is done with: the library keeps the traffic secrets itself. 11 KB a session. */
    tls_session_close(ss);
    ngtcp2_conn_set_keep_alive_timeout(ss->conn, f->cfg.keepalive_ms * NS_PER_MS);
    session_dirty(ss);
    if (ss->kind == KIND_ENROLL) {
        f->enroll_count++;
        if (ss->dialled) {
            session_open_streams(ss);
        }
        return;
    }
    peer_session_up(ss);
}

void session_read(struct session *ss, const struct addr *from, const struct source *src,
                  struct blob packet)
{
    struct fabric *f = ss->f;
    if (ss->state == SESSION_CLOSING) {
        ss->close_rx++;
        if ((ss->close_rx & (ss->close_rx - 1)) == 0) {
            send_close_packet(ss);
        }
        return;
    }
    if (ss->state != SESSION_HANDSHAKE && ss->state != SESSION_UP) {
        return;
    }
    ss->bytes_in += packet.len;
    ngtcp2_path_storage ps;
    make_path(f, from, &ps);
    ngtcp2_pkt_info pi = {0};
    int rv = ngtcp2_conn_read_pkt(ss->conn, &ps.path, &pi, packet.data, packet.len, f->now_ns);
    if (rv != 0) {
        session_failed(ss, rv);
        return;
    }
    ss->last_rx_ns = f->now_ns;
    ss->src = *src;
    /* The library does not say when the connection's window grows: try the blocked ones again. */
    list_splice(&ss->sendq, &ss->blocked);
    session_dirty(ss);
}

void session_dirty(struct session *ss)
{
    if (list_empty(&ss->dirty_link) &&
        (ss->state == SESSION_HANDSHAKE || ss->state == SESSION_UP)) {
        list_add(&ss->f->dirty, &ss->dirty_link);
    }
}

static uint64_t own_deadline(const struct session *ss)
{
    if (ss->state != SESSION_UP) {
        return UINT64_MAX;
    }
    return ss->last_rx_ns + ss->f->cfg.dead_ms * NS_PER_MS;
}

static void arm(struct session *ss)
{
    uint64_t at = ngtcp2_conn_get_expiry(ss->conn);
    uint64_t own = own_deadline(ss);
    at = own < at ? own : at;
    if (at != UINT64_MAX) {
        timer_set(ss->f, &ss->timer, at);
    } else {
        timer_stop(ss->f, &ss->timer);
    }
}

static void session_timer(struct timer *t)
{
    struct session *ss = container_of(t, struct session, timer);
    struct fabric *f = ss->f;
    if (ss->state == SESSION_CLOSING || ss->state == SESSION_DRAINING) {
        ss->state = SESSION_DEAD;
        endpoint_forget(ss);
        list_del(&ss->link);
        list_add(&f->dead, &ss->link);
        return;
    }
    if (own_deadline(ss) <= f->now_ns) {
        if (f->now_ns < f->grace_until_ns) {
            /* We were asleep ourselves; its answers may lie in the socket. */
            timer_set(f, t, f->grace_until_ns);
            return;
        }
        ss->mute_close = true;
        session_end(ss, SESSION_DEAD, -ERR_TIMEOUT);
        return;
    }
    if (ngtcp2_conn_get_expiry(ss->conn) <= f->now_ns) {
        int rv = ngtcp2_conn_handle_expiry(ss->conn, f->now_ns);
        if (rv != 0) {
            session_failed(ss, rv);
            return;
        }
        session_dirty(ss);
    } else {
        arm(ss);
    }
}

/* --- writing --- */

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

static ngtcp2_ssize write_stream(struct writer *w)
{
    struct session *ss = w->ss;
    ngtcp2_vec vec[VEC_MAX];
    size_t count = 0;
    int64_t id = -1;
    uint32_t flags = 0;
    w->s = NULL;
    while (!list_empty(&ss->sendq)) {
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
    bool probe = len > ngtcp2_conn_get_path_max_tx_udp_payload_size(ss->conn);
    endpoint_commit(ss->f, &to, &ss->src, len, probe);
    ss->bytes_out += len;
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
    while (room) {
        ngtcp2_ssize n;
        bool ok = true;
        if (!list_empty(&ss->datagrams)) {
            n = write_datagram(&w);
            ok = n >= 0 || n == NGTCP2_ERR_WRITE_MORE;
            if (n == 0 && drop_misfit(ss)) {
                continue;
            }
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
            more = true;
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
    arm(ss);
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
        ss->stream_count++;
        stream_wake(s);
    }
}

void session_sweep(struct session *ss, int64_t wall_ms)
{
    if (ss->state != SESSION_UP) {
        return;
    }
    if (ss->who.authenticated && ss->who.identity.not_after_ms <= wall_ms) {
        session_close(ss, FABRIC_CLOSE_EXPIRED, -ERR_CERT_EXPIRED);
    } else if (ss->kind == KIND_ENROLL && !ss->dialled && ss->stream_count == 0 &&
               ss->f->now_ns - ss->idle_since_ns > ENROLL_IDLE_NS) {
        session_close(ss, FABRIC_CLOSE_IDLE, -ERR_CLOSED);
    }
}
