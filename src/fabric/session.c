/* One QUIC connection.
 *
 * Dialled: session_dial -> (confirmed) session_up -> ... -> session_close -> closing period -> freed.
 * Accepted: session_accept -> (completed) session_up -> ... the same.
 * Ways to end early: verification refuses the peer, the handshake times out, the peer closes or
 * resets, nothing is heard for dead_ms, the library finds a packet it cannot accept. All lead to
 * session_end, once, which tells the streams and the peer table; the struct goes at the end of a
 * turn, never under a callback. */
#include "fabric/fabric_impl.h"

#include "base/clock.h"

#define CONN_WINDOW_START (1u << 20)
#define CONN_WINDOW_MAX (16u << 20)
#define IDLE_TIMEOUT_MIN_MS 30000 /* a backstop; dead_ms comes first */
#define ACCEPT_TIMEOUT_MS 5000
#define INITIAL_RTT_NS (50 * NS_PER_MS)
#define ENROLL_IDLE_NS (10000 * NS_PER_MS)
#define RETRY_HINT_MAX_MS 120000
/* Of connections without bulk, both ways. The library keeps a buffer of the largest packet that has arrived,
 * rounded up to a power of two: where jumbo frames pass, 16 KiB in each of many idle connections. */
#define CONTROL_PAYLOAD_MAX 4096

/* --- birth --- */

/* What the dialler says holds for both ends: who accepts does not know yet what the connection is for. */
static size_t payload_max(const struct session *ss)
{
    size_t max = ss->f->cfg.limits.udp_payload_max;
    bool control = ss->dialled && ss->kind != KIND_BULK;
    return control && max > CONTROL_PAYLOAD_MAX ? CONTROL_PAYLOAD_MAX : max;
}

static void fill_settings(struct session *ss, ngtcp2_settings *st, uint32_t timeout_ms)
{
    /* What carries a relayed handshake; a relayed session's largest; Ethernet; jumbo frames. */
    static const uint16_t probes[] = {1280, OVERLAY_PAYLOAD_MAX, 1452,
                                      1472, CONTROL_PAYLOAD_MAX, 8952};
    ngtcp2_settings_default(st);
    st->cc_algo = NGTCP2_CC_ALGO_CUBIC;
    st->initial_ts = ss->f->now_ns;
    st->initial_rtt = INITIAL_RTT_NS;
    st->handshake_timeout = timeout_ms * NS_PER_MS;
    st->max_tx_udp_payload_size = payload_max(ss);
    /* Never no_pmtud: 1.11 asserts it is off when a peer migrates back to where it came from
     * (conn_recv_non_probing_pkt_on_new_path). Probes above the largest are skipped. */
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
    if (ss->dialled && ss->kind != KIND_BULK) {
        tp->max_udp_payload_size = CONTROL_PAYLOAD_MAX;
    }
    tp->initial_max_streams_bidi = enrol ? 0 : f->cfg.limits.streams_per_session;
    uint64_t idle_ms = f->cfg.dead_ms * 2ULL;
    tp->max_idle_timeout = (idle_ms > IDLE_TIMEOUT_MIN_MS ? idle_ms : IDLE_TIMEOUT_MIN_MS) *
                           NS_PER_MS;
    tp->max_datagram_frame_size = enrol ? 0 : 65535;
    tp->active_connection_id_limit =
        8; /* each migration takes one, and none come while it is dark */
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
    path_init(ss, remote);
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
    path_fill(ss, &remote, &ps);
    if (ngtcp2_conn_client_new(&ss->conn, &dcid, &scid, &ps.path, NGTCP2_PROTO_VER_V1,
                               &session_callbacks, &st, &tp, NULL, ss) != 0 ||
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
    ss->proven = odcid != NULL;
    ss->half_open = true;
    if (ss->path.relayed) {
        /* Where we have no way of our own, or are allowed none, it hears of it the way it came. */
        ss->path.came = f->relay.bringing;
    }
    f->half_open++;
    ss->path.half_open = ss->path.relayed;
    f->relay.half_open += ss->path.half_open;
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
    tp.stateless_reset_token_present = ngtcp2_crypto_generate_stateless_reset_token(
                                           tp.stateless_reset_token, f->cfg.reset_secret,
                                           sizeof f->cfg.reset_secret, &scid) == 0;
    ngtcp2_path_storage ps;
    path_fill(ss, from, &ps);
    if (ngtcp2_conn_server_new(&ss->conn, &hd->scid, &scid, &ps.path, hd->version,
                               &session_callbacks, &st, &tp, NULL, ss) != 0 ||
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
        if (ss->opening) {
            ss->opening = false;
            source_limit_opened(ss->f->sources, &ss->who.address, fabric_now_ms(ss->f));
        }
    }
    if (ss->path.half_open) {
        ss->path.half_open = false;
        ss->f->relay.half_open--;
    }
}

size_t session_limit_reason(uint32_t wait_ms, char out[LIMIT_REASON_MAX])
{
    return (size_t)snprintf(out, LIMIT_REASON_MAX, "%s %u", err_slug(-ERR_RATE_LIMITED), wait_ms);
}

/* The other way round; 0 when it says nothing of the kind. */
static uint32_t limit_from_reason(const ngtcp2_ccerr *e)
{
    char text[LIMIT_REASON_MAX] = "";
    const char *slug = err_slug(-ERR_RATE_LIMITED);
    size_t slug_len = strlen(slug);
    size_t len = e->reasonlen < sizeof text - 1 ? e->reasonlen : sizeof text - 1;
    if (len <= slug_len) {
        return 0;
    }
    memcpy(text, e->reason, len);
    if (memcmp(text, slug, slug_len) != 0 || text[slug_len] != ' ') {
        return 0;
    }
    unsigned long wait_ms = strtoul(text + slug_len + 1, NULL, 10); /* no number: 0 */
    return wait_ms < RETRY_HINT_MAX_MS ? (uint32_t)wait_ms : RETRY_HINT_MAX_MS;
}

static int rc_for_close(const ngtcp2_ccerr *e)
{
    if (e->type == NGTCP2_CCERR_TYPE_TRANSPORT && e->error_code == NGTCP2_CONNECTION_REFUSED) {
        return -ERR_RATE_LIMITED;
    }
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
            case FABRIC_CLOSE_UNPROVEN:
                return -ERR_NOT_WITNESSED;
            case FABRIC_CLOSE_POLICY:
                return -ERR_DENIED;
            default:
                return -ERR_CLOSED;
        }
    }
    if ((e->error_code & ~0xffULL) == NGTCP2_CRYPTO_ERROR) {
        return tls_rc_for_alert((uint8_t)e->error_code);
    }
    return -ERR_CLOSED;
}

/* What a handshake that came to nothing costs its source. One that the client itself gave up costs
 * little: a joining host tries several authorities and goes on with the first. */
static void leave_source(struct session *ss, bool was_up, int rc)
{
    struct fabric *f = ss->f;
    if (ss->entered) {
        ss->entered = false;
        source_limit_leave(f->sources, &ss->who.address, fabric_now_ms(f));
    }
    if (!was_up && ss->proven && !ss->dialled && !ss->path.relayed && f->enroll_served &&
        rc != -ERR_RATE_LIMITED && rc != -ERR_BUSY && rc != -ERR_CANCELED) {
        source_limit_charge(f->sources, &ss->who.address,
                            rc == -ERR_CLOSED ? 1 : SOURCE_FAILURE_COST, fabric_now_ms(f));
    }
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
    f->counters.packets_lost += session_lost(ss);
    event_cancel(&ss->up_event);
    event_cancel(&ss->direct_event);
    if (!was_up) {
        f->counters.handshakes_failed++;
    }
    count_opened(ss);
    if (was_up && ss->kind == KIND_ENROLL) {
        f->enroll_count--;
    }
    leave_source(ss, was_up, rc);
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
    relay_session_gone(ss);
    proof_gone(ss);
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
    if (path_is_virtual(&to.ss)) {
        relay_send(ss->f, ss, &to, blob_of(p, ss->close_len));
    } else {
        endpoint_commit(ss->f, &to, &ss->src, ss->close_len, false);
    }
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
void session_failed(struct session *ss, int rv)
{
    if (ss->state != SESSION_HANDSHAKE && ss->state != SESSION_UP) {
        return;
    }
    ngtcp2_ccerr e;
    ngtcp2_ccerr_default(&e);
    switch (rv) {
        case NGTCP2_ERR_DRAINING:
            if (!ss->mute_close) {
                ss->retry_ms = limit_from_reason(ngtcp2_conn_get_ccerr(ss->conn));
            }
            session_end(ss, ss->mute_close ? SESSION_DEAD : SESSION_DRAINING,
                        ss->mute_close ? -ERR_CLOSED
                                       : rc_for_close(ngtcp2_conn_get_ccerr(ss->conn)));
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
    char reason[LIMIT_REASON_MAX];
    if (ss->verify_rc == -ERR_RATE_LIMITED) {
        size_t len = session_limit_reason(ss->retry_ms, reason);
        ngtcp2_ccerr_set_transport_error(&e, NGTCP2_CONNECTION_REFUSED, (const uint8_t *)reason,
                                         len);
        rc = ss->verify_rc;
    } else if (ss->verify_rc != 0) {
        ngtcp2_ccerr_set_tls_alert(&e, tls_alert_for(ss->verify_rc), NULL, 0);
        rc = ss->verify_rc;
    } else if (rv == NGTCP2_ERR_CRYPTO) {
        uint8_t alert = ngtcp2_conn_get_tls_alert(ss->conn);
        ngtcp2_ccerr_set_tls_alert(&e, alert, NULL, 0);
        rc = tls_rc_for_alert(alert);
        tls_log_refusal(ss, rc, "the TLS library ended it");
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
    event_cancel(&ss->direct_event);
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
    if (!ss->who.authenticated && (ss->dialled || ss->kind != KIND_ENROLL)) {
        /* Verification must have run; should the TLS library ever skip it, nobody gets in. */
        session_close(ss, FABRIC_CLOSE_PROTOCOL, -ERR_BAD_CERT);
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
        } else {
            ss->entered = true;
            source_limit_enter(f->sources, &ss->who.address, fabric_now_ms(f));
            source_limit_charge(f->sources, &ss->who.address, 1, fabric_now_ms(f));
        }
        return;
    }
    if (!ss->dialled && !ss->path.relayed && f->enroll_served) {
        source_limit_member(f->sources, &ss->who.address, fabric_now_ms(f));
    }
    if (ss->unproven) {
        proof_begin(ss);
    } else {
        peer_session_up(ss);
    }
}

static bool goes_to(const struct session *ss, const struct addr *remote)
{
    const ngtcp2_addr *now = &ngtcp2_conn_get_path(ss->conn)->remote;
    return now->addrlen == remote->len && memcmp(now->addr, &remote->ss, remote->len) == 0;
}

void session_read(struct session *ss, const struct addr *from, const struct source *src,
                  struct blob packet)
{
    struct fabric *f = ss->f;
    bool relayed = path_is_virtual(&from->ss);
    if (relayed) {
        struct uuid id;
        path_virtual_id(&from->ss, &id);
        if (ss->who.authenticated ? !uuid_equal(&id, &ss->who.identity.node_id)
                                  : !ss->path.relayed || !uuid_equal(&id, &ss->path.remote)) {
            /* The library would believe that its peer has moved there. */
            relay_drop(f, FABRIC_DROP_SPOOFED);
            return;
        }
    }
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
    if (relayed) {
        ss->path.asked_by = f->relay.bringing.by;
        ss->path.asked_generation = path_virtual_generation(&from->ss);
    }
    ngtcp2_path_storage ps;
    path_fill(ss, from, &ps);
    ngtcp2_pkt_info pi = {0};
    ss->path.genuine = false;
    bool stood = relayed && goes_to(ss, from);
    int rv = ngtcp2_conn_read_pkt(ss->conn, &ps.path, &pi, packet.data, packet.len, f->now_ns);
    if (rv != 0) {
        session_failed(ss, rv);
        return;
    }
    ss->last_rx_ns = f->now_ns;
    /* The library follows a peer to another address only by a packet that proved to be the peer's. */
    ss->path.genuine = ss->path.genuine || (relayed && !stood && goes_to(ss, from));
    if (relayed && ss->path.genuine) {
        path_came(ss, &f->relay.bringing);
    } else if (!relayed) {
        ss->src = *src;
    }
    path_settle(ss);
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

void session_arm(struct session *ss)
{
    uint64_t at = ngtcp2_conn_get_expiry(ss->conn);
    uint64_t own = own_deadline(ss);
    at = own < at ? own : at;
    own = path_deadline(ss);
    at = own < at ? own : at;
    /* What waits for its pacing interval should not wait for a millisecond. */
    ss->timer.precise = !list_empty(&ss->sendq) || !list_empty(&ss->datagrams) || relay_pending(ss);
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
    path_tick(ss);
    if (ngtcp2_conn_get_expiry(ss->conn) <= f->now_ns) {
        int rv = ngtcp2_conn_handle_expiry(ss->conn, f->now_ns);
        if (rv != 0) {
            session_failed(ss, rv);
            return;
        }
        session_dirty(ss);
    } else {
        session_arm(ss);
    }
}

/* Nothing has come of it so far: no stream, or none whose header is complete. */
static bool is_unused(const struct session *ss)
{
    for (struct link *l = ss->streams.next; l != &ss->streams; l = l->next) {
        if (container_of(l, struct fabric_stream, link)->svc != NULL) {
            return false;
        }
    }
    return true;
}

void session_sweep(struct session *ss, int64_t wall_ms)
{
    if (ss->state != SESSION_UP) {
        return;
    }
    for (struct link *l = ss->streams.next; l != &ss->streams; l = l->next) {
        frame_reader_sweep(&container_of(l, struct fabric_stream, link)->rx);
    }
    if (ss->who.authenticated && ss->who.identity.not_after_ms <= wall_ms && !ss->f->cfg.any_time) {
        session_close(ss, FABRIC_CLOSE_EXPIRED, -ERR_CERT_EXPIRED);
    } else if (ss->kind == KIND_ENROLL && !ss->dialled && is_unused(ss) &&
               ss->f->now_ns - ss->idle_since_ns > ENROLL_IDLE_NS) {
        session_close(ss, FABRIC_CLOSE_IDLE, -ERR_CLOSED);
    }
}
