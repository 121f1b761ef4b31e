/* The fabric: authenticated, encrypted QUIC between nodes (DESIGN section 8). The only user of
 * ngtcp2 and GnuTLS.
 *
 * A *peer* is another node, known by id. A *session* is a live connection to it with mutual TLS;
 * its identity comes from the verified leaf of the very chain TLS verified (pki_chain_verify). Two
 * connections per pair at most: control (small, latency-critical) and bulk. A *stream* carries
 * length-prefixed frames both ways, in order; it opens with a header that names a service. An *rpc*
 * is a stream with one request and one answer, and a deadline.
 *
 * One thread: everything here runs on the loop given to fabric_open. Callbacks never run inside the
 * call that asked for them. Views passed to callbacks are valid during the callback only. */
#ifndef RAP_FABRIC_FABRIC_H
#define RAP_FABRIC_FABRIC_H

#include "base/addr.h"
#include "base/err.h"
#include "base/id.h"
#include "fabric/overlay.h"
#include "pki/pki.h"

#include <uv.h>

struct fabric;
struct fabric_stream;
struct fabric_request;

/* Who is at the other end of a stream or request. */
struct fabric_peer {
    bool authenticated;           /* false: an enrolling host, which showed no certificate */
    struct pki_identity identity; /* when authenticated */
    struct addr address;          /* through relays: none that could be dialled */
};

/* Application close codes, seen by the peer as the reason of a close (RFC 9000 section 19.19). */
enum fabric_close_code {
    FABRIC_CLOSE_SHUTDOWN = 1, /* the node stops */
    FABRIC_CLOSE_REVOKED = 2,  /* your identity is revoked */
    FABRIC_CLOSE_REPLACED = 3, /* a newer connection of the same node took over */
    FABRIC_CLOSE_PROTOCOL = 4, /* malformed header or frame */
    FABRIC_CLOSE_LIMIT = 5,    /* a bound was reached */
    FABRIC_CLOSE_IDLE = 6,
    FABRIC_CLOSE_EXPIRED = 7,  /* certificate expired */
    FABRIC_CLOSE_UNPROVEN = 8, /* no proof that the key is that of the node it names */
    FABRIC_CLOSE_POLICY = 9,   /* the owner wants no session between these two */
};

struct fabric_limits {            /* 0 = default */
    uint32_t sessions_max;        /* 20000 */
    uint32_t half_open_max;       /* unfinished handshakes; 1024; from one address, once it had to
                                     prove itself, an eighth of them */
    uint32_t retry_above;         /* half-open handshakes above which Retry is sent; 64 */
    uint32_t streams_per_session; /* concurrent, opened by the peer; 256 */
    uint32_t handshakes_per_turn; /* new connections accepted in one loop turn, which takes 0.6 ms
                                     for each, while everybody else waits; 1 */
    uint32_t enroll_sessions_max; /* 2048; from one source address at most half of them */
    uint32_t enroll_per_second;   /* attempts to enrol from one source address: this many, and 64
                                     times as many at once; a failed one counts as 64
                                     (source_limit.h); 64 */
    size_t queue_bytes_max;       /* unsent bytes of one stream before -ERR_BUSY; 8 MiB, or one
                                      frame of the service's maximum when that is more */
    uint32_t stream_window_max;   /* flow-control window of a stream grows up to this; larger:
                                      more speed on long paths, more delay beside a bulk stream;
                                      2 MiB */
    uint16_t udp_payload_max;     /* largest datagram the path is probed for; 8952 */
};

/* rc -ERR_REVOKED, -ERR_CERT_EXPIRED, or -ERR_WRONG_NODE (it says it is this node): the handshake, service
 * is ""; -ERR_NOT_AUTHORITY: a service. The
 * peer holds the private key of a certificate that the cluster's CAs signed. -ERR_RATE_LIMITED: nobody
 * known, but an address that was proven. */
struct fabric_refusal {
    struct fabric_peer peer;
    int rc;
    char service[33];
};

/* The peer's certificate is good, but whoever made it may not speak for that node: it has to show a proof
 * before anything passes, either way. */
#define FABRIC_ADMIT_PROVE 1
#define FABRIC_PROOF_MAX (64u << 10)

struct fabric_config {
    uv_loop_t *loop;
    struct addr listen; /* port 0: any; see fabric_local_addr */
    struct uuid cluster_id;
    const struct pki_trust *trust; /* the caller's; may change between loop turns, then call
                                      fabric_recheck */
    uint8_t reset_secret[32];      /* persisted by the caller: stateless resets (RFC 9000 10.3) and
                                      Retry tokens survive a restart */
    uint32_t keepalive_ms;         /* own probes on idle sessions; 0 = 1000 */
    uint32_t dead_ms;              /* no answer for this long = session dead; 0 = 4000 */
    struct fabric_limits limits;
    void *data;
    /* A control session came up or went; may be NULL. rc: why it ended (-ERR_CLOSED, -ERR_REVOKED,
     * -ERR_TIMEOUT ...). */
    void (*session_up)(void *data, const struct fabric_peer *peer);
    void (*session_down)(void *data, const struct fabric_peer *peer, int rc);
    /* Chains are looked at as of when all of them had begun, so that an expired one still shows who is there.
     * Only for a diagnosis that tells its peers nothing (`rap doctor`). */
    bool any_time;
    /* More to ask of a peer than a good chain: 0, FABRIC_ADMIT_PROVE, or an error, with which the
     * handshake is refused. Runs inside the handshake, and for live sessions inside fabric_recheck
     * (which goes on with what was proven once): takes note, calls nothing of the fabric. May be NULL. */
    int (*admit)(void *data, const struct pki_identity *who, struct errmsg *em);
    /* Proofs (proof.c); both NULL: there are none. Ours, appended for a peer that asks; and whether
     * what a peer showed proves that its key is that of the node it names (rc: -ERR_* when it showed
     * nothing). 0, or an error, with which its session is closed. Called between callbacks of the
     * library, call nothing of the fabric. */
    int (*own_proof)(void *data, struct buf *out);
    int (*prove)(void *data, const struct pki_identity *who, int rc, struct blob proof,
                 struct errmsg *em);
    /* A peer that proved who, or where, it is was turned away; may be NULL. */
    void (*refused)(void *data, const struct fabric_refusal *refusal);
};

int fabric_open(const struct fabric_config *config, struct fabric **ret, struct errmsg *em);
/* Closes every session with a SHUTDOWN reason, ends pending requests with -ERR_CANCELED, then calls
 * cb once on a later turn; the fabric is freed when cb returns. cb may be NULL. */
void fabric_close(struct fabric *f, void (*cb)(void *data), void *data);

/* Our own certificate chain (leaf, issuing CA, root) and key. Without it the fabric can only dial
 * for enrolment. Replacing it keeps live sessions; new handshakes use the new one. */
int fabric_set_identity(struct fabric *f, const struct blob *chain, size_t count,
                        const struct pki_key *key, struct errmsg *em);
/* Trust changed: sessions whose peer is now banned close with FABRIC_CLOSE_REVOKED. Returns how
 * many. Sessions of authorities whose CA was retired close too, and those under a root that is no
 * longer trusted, to be judged anew. Also runs by itself when a peer's certificate expires. */
size_t fabric_recheck(struct fabric *f);
void fabric_local_addr(const struct fabric *f, struct addr *ret);

/* --- directory and sessions --- */
/* Where a peer listens; replaces what was known. Nothing is dialled until it is needed. */
void fabric_peer_set(struct fabric *f, const struct uuid *id, const struct addr *addrs, size_t n);
/* Closes its sessions and forgets its addresses. */
void fabric_peer_forget(struct fabric *f, const struct uuid *id);
/* Keep a session to it open, reconnecting with jittered exponential back-off (100 ms - 5 s). */
void fabric_peer_keep(struct fabric *f, const struct uuid *id, bool keep);
bool fabric_peer_connected(const struct fabric *f, const struct uuid *id);

/* --- services --- */
enum fabric_service_flags {
    FABRIC_SVC_ENROLL = 1,    /* reachable by hosts without a certificate (and only by them), which
                                 nobody else lets in: ALPN rap-enroll/1 */
    FABRIC_SVC_AUTHORITY = 2, /* only for peers with an authority name */
    FABRIC_SVC_SUSPENDED = 4, /* also for members that are disabled (pki_trust_suspend) */
};

struct fabric_service {
    const char *name; /* at most 32 bytes; must outlive the fabric */
    unsigned flags;
    size_t frame_max_bytes;  /* larger incoming frames close the session; 0 = RPC_FRAME_MAX */
    size_t answer_max_bytes; /* larger frames of ours are refused; 0 = frame_max_bytes */
    void *data;
    /* Exactly one of the two is set. */
    /* rpc: answer exactly once, now or later, with fabric_answer. */
    void (*request)(void *data, struct fabric_request *rq, struct blob body);
    /* long-lived: call fabric_stream_accept on it during the call, or fabric_stream_close. */
    void (*stream)(void *data, struct fabric_stream *s);
};
/* The struct is copied. A peer that asks for an unknown service gets -ERR_NO_SERVICE, one that may
 * not use it -ERR_NOT_AUTHORITY. */
void fabric_serve(struct fabric *f, const struct fabric_service *svc);

const struct fabric_peer *fabric_request_peer(const struct fabric_request *rq);
/* Milliseconds the caller is still going to wait; 0 when its deadline has passed. */
uint32_t fabric_request_left_ms(const struct fabric_request *rq);
/* rc 0 with a body, or an error with a body (its details) or none. Frees rq; a caller that has gone
 * away meanwhile is no problem. */
void fabric_answer(struct fabric_request *rq, int rc, struct blob body);

/* --- rpc --- */
/* rc is the answer's, or -ERR_TIMEOUT, -ERR_CLOSED, -ERR_UNREACHABLE (it may or may not have been
 * executed), -ERR_NO_SERVICE, -ERR_CANCELED. */
struct fabric_call;
typedef void (*fabric_call_cb)(struct fabric_call *call, int rc, struct blob body);
struct fabric_call {
    void *data;        /* the caller's */
    fabric_call_cb cb; /* set by fabric_call_start */
    void *impl;        /* the fabric's */
};
/* 0: cb runs exactly once, on a later turn; call belongs to the fabric until then. Otherwise cb
 * never runs (-ERR_UNREACHABLE: no address known; -ERR_TOO_LARGE; -ERR_DENIED: policy). The body is copied. Dials when
 * there is no session. */
int fabric_call_start(struct fabric *f, struct fabric_call *call, const struct uuid *to,
                      const char *service, struct blob body, uint32_t deadline_ms,
                      fabric_call_cb cb);
/* cb runs with -ERR_CANCELED on a later turn, unless it was about to run anyway. */
void fabric_call_cancel(struct fabric_call *call);

/* --- streams --- */
struct fabric_stream_vtab {
    void (*frame)(struct fabric_stream *s, void *data, struct blob frame);
    /* Once; afterwards the stream is gone. rc 0: the peer finished it, or -ERR_CLOSED,
     * -ERR_TIMEOUT, -ERR_NO_SERVICE, -ERR_NOT_AUTHORITY, -ERR_REVOKED, -ERR_BUSY (limit) ...
     * Not called after fabric_stream_close. */
    void (*closed)(struct fabric_stream *s, void *data, int rc);
    /* The unsent queue fell below half its bound after a -ERR_BUSY; may be NULL. */
    void (*drained)(struct fabric_stream *s, void *data);
    /* A stream opened here has its session: fabric_stream_peer says who was authenticated. Once,
     * before anything else; what was sent before may be on its way already. May be NULL. */
    void (*opened)(struct fabric_stream *s, void *data);
};

struct fabric_stream_to {
    struct uuid node_id;     /* a peer of the directory, or nil to enrol: */
    struct addr enroll_addr; /* ALPN rap-enroll/1 to this address; the server must show an
                                *authority* name under the trusted (or pinned) root */
    const char *service;
    bool bulk;              /* use the bulk connection */
    size_t frame_max_bytes; /* 0: as the service of this name here, else RPC_FRAME_MAX */
};
/* The stream is usable at once; frames wait for the session. Failure to connect ends it through
 * closed(). */
int fabric_stream_open(struct fabric *f, const struct fabric_stream_to *to,
                       const struct fabric_stream_vtab *vtab, void *data,
                       struct fabric_stream **ret);
void fabric_stream_accept(struct fabric_stream *s, const struct fabric_stream_vtab *vtab,
                          void *data);
/* In the call that offers it: no frame may be longer, below the service's maximum. */
void fabric_stream_limit(struct fabric_stream *s, size_t frame_max_bytes);
/* It came over the bulk connection. */
bool fabric_stream_is_bulk(const struct fabric_stream *s);
/* Copies the frame. -ERR_BUSY: the queue is full, nothing was taken. -ERR_TOO_LARGE. */
int fabric_stream_send(struct fabric_stream *s, struct blob frame);
/* Sends what is queued, then the end (fin), and forgets the stream: no more callbacks. */
void fabric_stream_close(struct fabric_stream *s);
/* Drops what is queued and resets the stream. No more callbacks. */
void fabric_stream_reset(struct fabric_stream *s, int rc);
/* Who is there; NULL until the session is up. */
const struct fabric_peer *fabric_stream_peer(const struct fabric_stream *s);
/* During closed() with -ERR_RATE_LIMITED: in how many milliseconds to try again; else 0. */
uint32_t fabric_stream_retry_ms(const struct fabric_stream *s);

/* --- enrolment's limit for each source address (source_limit.h) --- */
/* 0: a request from there may be looked at; else in how many milliseconds it may come again. */
uint32_t fabric_enroll_wait_ms(const struct fabric *f, const struct addr *from);
/* What came from there was refused. */
void fabric_enroll_failed(struct fabric *f, const struct addr *from);

/* --- datagrams (RFC 9221): small, unordered, may be lost; between neighbours, over their direct
 * connection only --- */
typedef void (*fabric_datagram_cb)(void *data, const struct fabric_peer *from, struct blob payload);
void fabric_on_datagram(struct fabric *f, fabric_datagram_cb cb, void *data);
/* -ERR_CLOSED without a live direct session, -ERR_TOO_LARGE, -ERR_BUSY (queue full: dropped, counted). */
int fabric_datagram_send(struct fabric *f, const struct uuid *to, struct blob payload);

/* --- sessions over relays (DESIGN section 8, D5) --- */
/* Who decides where packets of relayed sessions go. The fabric asks and delivers. Called for packets
 * and from the library's callbacks: answer from tables, call nothing of the fabric but
 * fabric_is_neighbour. */
struct fabric_overlay {
    void *data;
    /* The neighbour on the way to `to`, which may be `to` itself, but not `avoid` (NULL: any will
     * do). Or a reason: -ERR_UNREACHABLE, -ERR_DENIED (policy), -ERR_REVOKED. */
    int (*next_hop)(void *data, const struct uuid *to, enum overlay_class class,
                    const struct uuid *avoid, struct uuid *ret);
    /* It has a role that relays (relay-node, core-mesh) in our verified configuration and is not
     * revoked. Asked about this node too. */
    bool (*may_relay)(void *data, const struct uuid *node);
    /* What the owner wants of ways to it: whether the direct one may be taken, and of which class the
     * streams' packets are on a relayed one (not control). Either may be NULL: yes, and bulk. */
    bool (*may_direct)(void *data, const struct uuid *to);
    enum overlay_class (*data_class)(void *data, const struct uuid *to);
    /* Whether there may be a session with it at all, whoever dials; and streams of this service, whoever
     * opens them. Either may be NULL: yes. */
    bool (*may_talk)(void *data, const struct uuid *peer);
    bool (*may_use)(void *data, const struct uuid *peer, struct blob service);
};
/* NULL, the default: nothing is relayed, neither for us nor by us (SPEC RTE-04). Copied. */
void fabric_set_overlay(struct fabric *f, const struct fabric_overlay *o);
/* How queues of relayed packets are served from now on; NULL: as by default. */
void fabric_set_qos(struct fabric *f, const struct overlay_qos qos[OVERLAY_CLASSES]);
/* The routes have changed: streams that wait for a way get another try. */
void fabric_overlay_changed(struct fabric *f);
/* As fabric_peer_keep, apart from it: the overlay's own wish, tried at once. */
void fabric_overlay_keep(struct fabric *f, const struct uuid *id, bool keep);
/* Sessions to it go over this relay and no other way, for tests of a path (SPEC RTE-06); nil ends
 * that. Live ones are moved. -ERR_CONFLICT: the other end opened the session, so only it can move it;
 * -ERR_UNREACHABLE: via is no neighbour that relays. */
int fabric_peer_pin(struct fabric *f, const struct uuid *id, const struct uuid *via);
/* There is a direct connection to it, and it answers. */
bool fabric_is_neighbour(const struct fabric *f, const struct uuid *id);

/*   X(NAME, "slug") why a packet was dropped */
#define FABRIC_DROPS(X)                                                          \
    X(OFF, "off")               /* relaying is not enabled here */               \
    X(MALFORMED, "malformed")                                                    \
    X(VERSION, "version")                                                        \
    X(SPOOFED, "spoofed")       /* the neighbour may not bring what others sent */ \
    X(LOOP, "loop")             /* it is ours */                                 \
    X(DUPLICATE, "duplicate")                                                    \
    X(NO_ROLE, "no_role")       /* not ours to relay */                          \
    X(HOP_LIMIT, "hop_limit")                                                    \
    X(NO_ROUTE, "no_route")                                                      \
    X(POLICY, "policy")                                                          \
    X(REVOKED, "revoked")                                                        \
    X(BACKTRACK, "backtrack")   /* the way leads back where it came from */      \
    X(TOO_LARGE, "too_large")   /* for the next hop's path */                    \
    X(FULL, "full")                                                              \
    X(EARLY, "early")           /* so that senders slow down */                  \
    X(EXPIRED, "expired")       /* waited longer than its class allows */
enum fabric_drop {
#define FABRIC_DROP_ENUM_(name, slug) FABRIC_DROP_##name,
    FABRIC_DROPS(FABRIC_DROP_ENUM_)
#undef FABRIC_DROP_ENUM_
        FABRIC_DROP_COUNT
};
extern const char *const fabric_drop_slugs[FABRIC_DROP_COUNT];

struct fabric_overlay_counters {
    uint64_t sent, forwarded, delivered; /* packets */
    uint64_t moved_to_direct, moved_to_relay;
    uint64_t drops[FABRIC_DROP_COUNT];
    size_t queued_bytes;
};
void fabric_overlay_counters(const struct fabric *f, struct fabric_overlay_counters *ret);

/* --- counters --- */
struct fabric_counters {
    uint64_t sessions, sessions_opened, handshakes_failed, retries_sent, resets_sent, half_open,
        dropped_limit, datagrams_in, datagrams_out, bytes_in, bytes_out, packets_in, packets_out,
        rpcs_served, rpcs_made, auth_refused, rate_limited;
    uint64_t sessions_denied, streams_denied; /* that the other end opened, by policy */
    uint64_t packets_lost; /* of sessions that have ended; live ones: fabric_sessions */
};
void fabric_counters(const struct fabric *f, struct fabric_counters *ret);
struct fabric_session_info {
    struct fabric_peer peer;
    bool dialled, bulk;
    bool relayed;
    struct uuid via; /* relayed: the neighbour our packets go to */
    uint32_t rtt_us;
    uint64_t bytes_in, bytes_out, packets_lost; /* lost: of those that carried stream data */
    int64_t up_since_ms;                        /* wall clock */
};
/* Calls fn for each live session. */
void fabric_sessions(const struct fabric *f,
                     void (*fn)(void *data, const struct fabric_session_info *info), void *data);

#endif
