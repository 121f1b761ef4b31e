/* Real packets to one authority.
 *
 * Happy path: name -> UDP probes by size -> fabric without identity -> stream "clock" over ALPN
 * rap-enroll/1: opened says who is there, the answer what time it is -> fabric closed -> done.
 * Else: the timer ends the wait; what ended it is in handshake_rc. Nothing is sent that an authority
 * could hold against this host: no token, no certificate. */
#include "node/doctor_path.h"

#include "base/addr.h"
#include "base/clock.h"
#include "base/rng.h"
#include "fabric/fabric.h"
#include "wire/node_msg.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#define TRIES 3
#define TRY_MS 250
#define TCP_MS 1000
#define HANDSHAKE_MS 2000

/* --- UDP and TCP --- */

static void note_errno(struct doctor_path *ret)
{
    ret->denied = ret->denied || errno == EPERM || errno == EACCES;
    ret->no_route = ret->no_route || errno == ENETUNREACH || errno == EHOSTUNREACH;
    ret->refused = ret->refused || errno == ECONNREFUSED;
}

static bool readable(int fd, int events, int ms)
{
    struct pollfd p = {.fd = fd, .events = (short)events};
    return poll(&p, 1, ms) == 1;
}

/* A short header with the fixed bit (RFC 9000 section 17.3.1), the rest is noise. */
static bool ask(int fd, unsigned size, struct doctor_path *ret)
{
    uint8_t packet[1500];
    uint8_t answer[1500];
    CHECK(size <= sizeof packet);
    for (int i = 0; i < TRIES; i++) {
        rng_bytes(packet, size);
        packet[0] = (uint8_t)(0x40 | (packet[0] & 0x3f));
        if (send(fd, packet, size, 0) < 0) {
            note_errno(ret);
            if (errno == EMSGSIZE) {
                return false; /* of this host's own interface */
            }
        }
        if (readable(fd, POLLIN, TRY_MS)) {
            if (recv(fd, answer, sizeof answer, 0) > 0) {
                return true;
            }
            note_errno(ret);
        }
    }
    return false;
}

/* Fragments would hide what the path carries. */
static void forbid_fragments(int fd, int family)
{
    int v4 = IP_PMTUDISC_PROBE;
    int v6 = IPV6_PMTUDISC_PROBE;
    if (family == AF_INET) {
        (void)setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &v4, sizeof v4);
    } else {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &v6, sizeof v6);
    }
}

static void probe_udp(const struct addr *to, struct doctor_path *ret)
{
    int fd = socket(to->ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    forbid_fragments(fd, to->ss.ss_family);
    if (connect(fd, (const struct sockaddr *)&to->ss, to->len) != 0) {
        note_errno(ret);
    } else {
        bool pass = true;
        for (size_t i = 0; i < DOCTOR_SIZES && pass; i++) {
            pass = ask(fd, doctor_sizes[i], ret);
            ret->passed[i] = pass;
        }
    }
    (void)close(fd);
}

/* Any answer will do: an open port, or a refusal. */
static bool tcp_answers(const struct addr *to)
{
    int error = 0;
    socklen_t len = sizeof error;
    int fd = socket(to->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    bool answered = false;
    if (connect(fd, (const struct sockaddr *)&to->ss, to->len) == 0 || errno == ECONNREFUSED) {
        answered = true;
    } else if (errno == EINPROGRESS && readable(fd, POLLOUT, TCP_MS)) {
        answered = getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 &&
                   (error == 0 || error == ECONNREFUSED);
    }
    (void)close(fd);
    return answered;
}

/* --- QUIC --- */

struct handshake {
    struct doctor_path *ret;
    uv_loop_t loop;
    uv_timer_t timer;
    struct fabric *fabric;
    struct fabric_stream *stream;
    int64_t sent_ms;
    bool over;
};

static void on_fabric_closed(void *data)
{
    struct handshake *h = data;
    h->fabric = NULL;
}

static void on_end(uv_timer_t *t)
{
    struct handshake *h = container_of(t, struct handshake, timer);
    if (h->stream != NULL) {
        fabric_stream_reset(h->stream, -ERR_CANCELED);
        h->stream = NULL;
    }
    fabric_close(h->fabric, on_fabric_closed, h);
    uv_close((uv_handle_t *)&h->timer, NULL);
}

static void end(struct handshake *h)
{
    h->over = true;
    CHECK(uv_timer_start(&h->timer, on_end, 0, 0) == 0);
}

static void on_opened(struct fabric_stream *s, void *data)
{
    struct handshake *h = data;
    struct buf body;
    const struct fabric_peer *peer = fabric_stream_peer(s);
    h->ret->handshake_rc = 0;
    h->ret->found = peer->identity.node_id;
    h->ret->not_after_ms = peer->identity.not_after_ms;
    h->sent_ms = clock_wall_ms();
    buf_init(&body, 64);
    msg_encode(&clock_request_desc, &(struct clock_request){.sent_at_ms = h->sent_ms}, &body);
    (void)fabric_stream_send(s, buf_blob(&body));
    buf_fini(&body);
}

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct handshake *h = data;
    struct clock_answer answer;
    int64_t now = clock_wall_ms();
    (void)s;
    if (!h->over && msg_decode(&clock_answer_desc, MSG_LENIENT, frame, &answer) == 0 &&
        answer.sent_at_ms == h->sent_ms && now >= h->sent_ms) {
        int64_t took = now - h->sent_ms; /* it looked at its clock somewhere within */
        h->ret->clock_known = true;
        h->ret->clock_ahead_ms = h->sent_ms + took / 2 - answer.wall_ms;
        h->ret->clock_within_ms = took / 2 + 1;
        end(h);
    }
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    struct handshake *h = data;
    (void)s;
    h->stream = NULL;
    if (!h->over) {
        if (h->ret->handshake_rc != 0) { /* never opened */
            h->ret->handshake_rc = rc == 0                  ? -ERR_CLOSED
                                   : rc == -ERR_UNREACHABLE ? -ERR_TIMEOUT
                                                            : rc;
        }
        end(h);
    }
}

static int open_fabric(struct handshake *h, const struct doctor_target *t, const struct addr *to)
{
    struct errmsg em = ERRMSG_INIT;
    struct fabric_config fc = {
        .loop = &h->loop, .cluster_id = t->cluster_id, .trust = t->trust, .any_time = true};
    rng_bytes(fc.reset_secret, sizeof fc.reset_secret);
    int rc = addr_parse(to->ss.ss_family == AF_INET ? "0.0.0.0:0" : "[::]:0", &fc.listen, &em);
    return rc == 0 ? fabric_open(&fc, &h->fabric, &em) : rc;
}

static void probe_quic(const struct doctor_target *t, const struct addr *to,
                       struct doctor_path *ret)
{
    static const struct fabric_stream_vtab vtab = {
        .frame = on_frame, .closed = on_closed, .opened = on_opened};
    struct handshake h = {.ret = ret};
    ret->handshake_rc = -ERR_TIMEOUT;
    CHECK(uv_loop_init(&h.loop) == 0);
    int rc = open_fabric(&h, t, to);
    if (rc == 0) {
        const struct fabric_stream_to there = {
            .node_id = UUID_NIL, .enroll_addr = *to, .service = "clock"};
        CHECK(uv_timer_init(&h.loop, &h.timer) == 0);
        rc = fabric_stream_open(h.fabric, &there, &vtab, &h, &h.stream);
        CHECK(uv_timer_start(&h.timer, on_end, rc == 0 ? HANDSHAKE_MS : 0, 0) == 0);
        (void)uv_run(&h.loop, UV_RUN_DEFAULT);
    }
    if (rc != 0) {
        ret->handshake_rc = rc;
    }
    CHECK(uv_loop_close(&h.loop) == 0);
}

void doctor_probe(const struct doctor_target *t, struct doctor_path *ret)
{
    struct addr to;
    struct errmsg em = ERRMSG_INIT;
    *ret = (struct doctor_path){.now_ms = clock_wall_ms(), .handshake_rc = -ERR_TIMEOUT};
    ret->resolve_rc = addr_resolve(t->authority.address, &to, &em);
    if (ret->resolve_rc != 0) {
        return;
    }
    probe_udp(&to, ret);
    if (!ret->denied && !ret->no_route && !(ret->refused && !ret->passed[0])) {
        probe_quic(t, &to, ret); /* a busy authority sends few resets, and still does this */
    }
    if (!ret->passed[0] && ret->handshake_rc != 0) {
        ret->tcp_answered = tcp_answers(&to);
    }
}
