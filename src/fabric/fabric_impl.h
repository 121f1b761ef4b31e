/* The fabric's insides, shared by the files of this folder and by the tests that feed them bytes.
 *
 *     fabric.c    open, close, one turn of work, timers, services, counters
 *     endpoint.c  the UDP socket: batches in and out
 *     demux.c     connection ids, reset tokens; packets of strangers: accept, Retry, resets
 *     session.c   one QUIC connection: dial, accept, timers, closing (session_glue.c: what the
 *                 library calls; session_write.c: packets out)
 *     tls.c       credentials, verification, ALPN
 *     stream.c    how a stream begins and ends, frames in, credit (stream_send.c: what it has to
 *                 send, until that is acknowledged)
 *     frame.c     cutting a byte stream into frames (pure)
 *     rpc.c       one request, one answer, a deadline
 *     peer.c      who is where, dialling, back-off
 *     path.c      direct or relayed: virtual addresses, moving a live session between the two
 *     relay.c     overlay packets: sending, forwarding, delivering
 *     overlay.c, relay_queue.c, relay_guard.c   their format, queues, duplicates (pure)
 *
 * A turn. The library calls us back from inside ngtcp2_conn_read_pkt and _writev_stream; there we
 * only note what happened and post an *event*. The loop's prepare phase runs the posted events -
 * from there, and from timers, users are called - and then writes every dirty session. So a user's
 * callback never runs inside its own call, nor under the library's feet.
 *
 * Time. The library aborts when time goes backwards, so all of one batch carries f->now_ns, which
 * only fabric_tick moves. */
#ifndef RAP_FABRIC_IMPL_H
#define RAP_FABRIC_IMPL_H

#include "base/rng.h"
#include "base/siphash.h"
#include "fabric/fabric.h"
#include "fabric/relay_guard.h"
#include "fabric/relay_queue.h"
#include "fabric/source_limit.h"
#include "wire/msg.h"

#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <uthash.h>

#define NS_PER_MS 1000000ULL
#define OWN_CID_BYTES 8
#define RX_SLOTS 16
#define RX_SLOT_BYTES 65536
#define TX_BYTES (512 * 1024)
#define TX_GROUPS 64
#define TX_PACKET_MAX 9000
#define STREAM_WINDOW_START (512u << 10)
#define HEADER_FRAME_MAX 128
#define ENROLL_FRAME_MAX (64u << 10) /* what a host without a certificate may send at once */
#define ENROLL_STREAMS_MAX 2
#define PEER_ADDRS_MAX 8
#define PEER_WAITING_MAX 4096   /* streams waiting for a session to one peer */
#define DATAGRAMS_QUEUED_MAX 1024
#define REFUSALS_QUEUED_MAX 64
#define RPC_ANSWER_PREFIX 2     /* big-endian enum err, in front of an answer's body */

/* --- intrusive list --- */
struct link {
    struct link *prev, *next;
};

static inline void list_init(struct link *l)
{
    l->prev = l->next = l;
}

static inline bool list_empty(const struct link *l)
{
    return l->next == l;
}

static inline void list_add(struct link *head, struct link *l)
{
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}

/* Also when l is in no list. */
static inline void list_del(struct link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    list_init(l);
}

static inline void list_splice(struct link *head, struct link *from)
{
    if (!list_empty(from)) {
        from->next->prev = head->prev;
        head->prev->next = from->next;
        from->prev->next = head;
        head->prev = from->prev;
        list_init(from);
    }
}

/* --- events and timers --- */
#define STRANGERS_NS (50 * 1000ULL) /* of a turn for handshakes, and as much for guests */
struct event {
    struct link link;
    void (*run)(struct event *e);
    bool of_guest; /* of a host that showed no certificate: run after the others, so many a turn */
};

struct timer {
    uint64_t at_ns;
    size_t pos;   /* 1-based place in the heap; 0: not armed */
    bool precise; /* the loop's milliseconds are too coarse */
    void (*run)(struct timer *t);
};

struct timer_heap {
    struct timer **item;
    size_t count, cap;
};

/* --- frames (pure) --- */
struct frame_reader {
    uint8_t *data;
    size_t head, len, cap;
    size_t max; /* a frame's body */
    bool used;  /* since the last sweep */
};

void frame_reader_init(struct frame_reader *r, size_t max);
void frame_reader_fini(struct frame_reader *r);
/* The caller bounds what it adds (flow control does). */
void frame_reader_add(struct frame_reader *r, struct blob in);
/* Now and then: a stream that has been idle since the last time holds no buffer. */
void frame_reader_sweep(struct frame_reader *r);
/* 1 and a view valid until the next add; 0 when more is needed; -ERR_TOO_LARGE. */
int frame_reader_next(struct frame_reader *r, struct blob *ret);
static inline size_t frame_reader_left(const struct frame_reader *r)
{
    return r->len - r->head;
}

#define STREAM_HEADER_FIELDS(X, T)               \
    X(T, 1, STR, service, 32, MSG_REQUIRED)      \
    X(T, 2, U64, flags, 0, 0)                    \
    X(T, 3, U64, deadline_ms, 0, 0) /* rpc: from now */
MSG_DECLARE(stream_header, STREAM_HEADER_FIELDS)
enum stream_header_flags { STREAM_HEADER_RPC = 1 };

/* --- tls --- */
struct tls_gen { /* one generation of credentials; sessions keep theirs */
    unsigned refs;
    gnutls_certificate_credentials_t cred;
};

enum session_kind { KIND_CONTROL, KIND_BULK, KIND_ENROLL };

struct session;
int tls_init(struct fabric *f, struct errmsg *em);
void tls_fini(struct fabric *f);
int tls_set_identity(struct fabric *f, const struct blob *chain, size_t count,
                     const struct pki_key *key, struct errmsg *em);
int tls_session_open(struct session *ss);
void tls_session_close(struct session *ss);
/* Counts a peer turned away in its handshake, and logs it at a bounded rate. */
void tls_log_refusal(struct session *ss, int rc, const char *detail);
/* The alert that tells the peer why we refused it, and back. */
uint8_t tls_alert_for(int rc);
int tls_rc_for_alert(uint8_t alert);

/* --- streams --- */
enum stream_mode { STREAM_USER, STREAM_CALL, STREAM_REQUEST };

/* One stretch of outgoing bytes. It does not move while the library may resend it. */
struct chunk {
    struct chunk *next;
    uint64_t end; /* stream offset behind its last byte */
    size_t len, cap;
    uint8_t data[];
};

/*   WAITING --bind--> OPEN --end--> ENDED          a stream we open
 *   HEADER --dispatch--> OPEN --end--> ENDED       a stream the peer opens
 * WAITING: no session, or the session's stream limit is reached.  HEADER: first frame not complete.
 * ENDED: rc is set and will be told (closed) unless `silent`. The struct goes when it is ENDED or
 * silent, told, and the library has let go of it (qs_gone). */
enum stream_state { STREAM_WAITING, STREAM_HEADER, STREAM_OPEN, STREAM_ENDED };

struct fabric_stream {
    struct fabric *f;
    struct session *ss;    /* NULL: none yet, or gone */
    struct peer *peer;     /* while WAITING without a session */
    struct link link;      /* in session->streams, session->unopened or peer->waiting */
    struct link send_link; /* in session->sendq or ->blocked */
    struct link all_link;  /* in fabric->streams */
    struct event event;
    int64_t id;
    enum stream_state state;
    uint32_t retry_ms; /* -ERR_RATE_LIMITED: what the peer said */
    bool local;        /* we opened it */
    bool bulk;
    bool silent;          /* the user is not to be called again */
    bool held;            /* waits, or has waited, for its session's proof */
    bool in_user;         /* a callback of the user is running: do not free */
    bool qs_gone;         /* the library has no such stream (any more) */
    bool rx_fin, rx_done; /* end received; end or reset handled */
    bool tx_fin, tx_fin_sent, tx_shut;
    bool want_drained;
    bool want_opened;
    int rc;
    struct fabric_stream_vtab vtab;
    void *data;
    struct frame_reader rx;
    size_t rx_uncredited;
    struct chunk *tx_first, *tx_cur, *tx_last; /* oldest unacked; next to send */
    size_t tx_cur_off;
    uint64_t tx_offset; /* end of all queued */
    size_t tx_unsent;
    size_t tx_bound;
    size_t frame_max;
    const struct fabric_service *svc;
    struct fabric_request *rq;
    uint64_t deadline_ns; /* of a request; 0: none */
};

/* Inside the library's callbacks. */
struct fabric_stream *stream_incoming(struct session *ss, int64_t id);
void stream_on_data(struct fabric_stream *s, struct blob in, bool fin);
/* The session took a stream of ours. */
void stream_on_open(struct fabric_stream *s);
void stream_on_reset(struct fabric_stream *s, uint64_t code);
/* code: the peer's, or 0. */
void stream_on_gone(struct fabric_stream *s, uint64_t code);
/* Outside them. */
struct fabric_stream *stream_new(struct fabric *f, bool local, bool bulk);
/* Puts a new stream on a session, or on the way to one. */
void stream_bind(struct fabric_stream *s, struct session *ss);
int stream_start(struct fabric_stream *s, const struct uuid *to);
void stream_end(struct fabric_stream *s, int rc);
void stream_session_gone(struct fabric_stream *s, int rc);
/* As stream_finish, and no more callbacks. */
void stream_forget(struct fabric_stream *s);
void stream_refuse(struct fabric_stream *s, int rc);

/* stream_send.c: what users queue, */
void stream_put_frame(struct fabric_stream *s, struct blob prefix, struct blob frame);
void stream_put_header(struct fabric_stream *s, const char *service, uint64_t flags,
                       uint32_t deadline_ms);
void stream_finish(struct fabric_stream *s); /* fin behind what is queued */
void stream_wake(struct fabric_stream *s);
/* the session takes, and the peer acknowledges (inside the library's callback). */
bool stream_has_data(const struct fabric_stream *s);
size_t stream_vec(struct fabric_stream *s, ngtcp2_vec *vec, size_t max, bool *ret_fin);
void stream_sent(struct fabric_stream *s, size_t len, bool fin);
void stream_on_acked(struct fabric_stream *s, uint64_t end);
void stream_free_chunks(struct fabric_stream *s);

/* --- rpc --- */
struct fabric_request {
    struct fabric_stream *s; /* NULL: the caller has gone */
    struct fabric_peer peer;
    uint64_t deadline_ns;
};
void rpc_request(struct fabric_stream *s, struct blob body);
/* fabric_call_start with an empty body, on this session and no other. */
void rpc_call_on(struct session *ss, struct fabric_call *call, const char *service, size_t max,
                 uint32_t deadline_ms, fabric_call_cb cb);

/* --- sessions --- */
/*   HANDSHAKE --confirmed--> UP --close--> CLOSING --3 PTO--> (freed)
 *       |                     |--peer closed--> DRAINING --3 PTO--> (freed)
 *       '--refused, timeout--> either of the two      a dead one is freed on the next turn
 * Streams exist in UP only. */
enum session_state {
    SESSION_HANDSHAKE,
    SESSION_UP,
    SESSION_CLOSING,
    SESSION_DRAINING,
    SESSION_DEAD
};

struct source { /* which of our addresses the peer talks to (wildcard sockets) */
    int family; /* 0: let the kernel choose */
    uint8_t ip[16];
    unsigned ifindex;
};

struct cid_entry {
    UT_hash_handle hh;
    struct session *ss;
    struct link link; /* in session->cids */
    uint8_t len;
    uint8_t cid[NGTCP2_MAX_CIDLEN];
};

struct token_entry {
    UT_hash_handle hh;
    struct session *ss;
    struct link link; /* in session->tokens */
    uint64_t seq;
    uint8_t token[NGTCP2_STATELESS_RESET_TOKENLEN];
};

struct datagram {
    struct link link;
    struct fabric_peer from; /* incoming */
    size_t len;
    uint8_t data[];
};

/* Who brought a relayed packet, and its place among those of its class that its source has sent. */
struct relay_arrival {
    struct uuid by;
    enum overlay_class class;
    uint64_t sequence;
};

/* Which way a session goes, and what is known of that way (path.c). */
struct path_state {
    bool relayed;
    bool half_open;            /* counted among the relayed handshakes */
    uint8_t generation;        /* dialled: of our virtual address */
    struct uuid remote;        /* relayed: the other end's id */
    struct uuid via;           /* relayed: where our packets went last; nil: nowhere yet */
    struct relay_arrival came; /* relayed: the first packet, then the last genuine one */
    bool waiting;              /* for an acknowledgement */
    bool genuine;              /* the packet being read had something in it */
    struct link parked;        /* in relay->parked: its queue is full */
    uint64_t since_ns;        /* judge this way by what came later: it, or its keep-alive, is new */
    uint64_t progress_ns;     /* something of ours was acknowledged, or nothing was under way */
    uint64_t carried_ns;      /* last packet relayed over it */
    uint64_t active_ns;       /* last data of a stream, or its acknowledgement */
    struct uuid asked_by;     /* accepted: who brought the last packet of another generation, */
    uint8_t asked_generation; /* which may be a challenge, and no proof that it is genuine */
    struct uuid shunned;      /* accepted: nothing of ours arrives over this one */
    uint64_t shortcut_at_ns, retreat_at_ns;
    uint64_t routes_ns; /* the routes moved then, and nothing has been acknowledged since; 0: no */
    uint64_t tried_ns;  /* the last retreat */
    unsigned tries;     /* retreats since something of ours was acknowledged */
    unsigned shortcut_failures;
    uint32_t keepalive_ms;
};

struct session {
    struct fabric *f;
    struct link link;       /* in fabric->sessions */
    struct link dirty_link; /* in fabric->dirty */
    struct event up_event, direct_event;
    struct timer timer; /* the library's and our own deadlines in one */
    ngtcp2_conn *conn;
    ngtcp2_crypto_conn_ref ref;
    gnutls_session_t tls; /* NULL after the handshake: not needed for key updates */
    struct tls_gen *gen;
    enum session_kind kind;
    enum session_state state;
    bool dialled;
    bool half_open;
    bool proven;         /* accepted: the peer does receive at its address */
    bool entered;        /* counted in its source's sessions, */
    bool opening;        /* and in its unfinished handshakes */
    bool suspended;      /* the peer's membership is disabled */
    bool unproven;       /* not a peer's yet: proof.c */
    struct proof *proof; /* the question that is under way */
    bool reported;       /* counted in its peer's up count */
    bool mute_close;     /* nobody listens: send no close */
    struct peer *peer;   /* dialled: whom; accepted: who it turned out to be, once UP */
    struct fabric_peer who;
    int verify_rc;     /* why verification refused the peer */
    uint32_t retry_ms; /* verify_rc or end_rc -ERR_RATE_LIMITED */
    int end_rc;
    struct source src;
    struct link cids, tokens;
    struct link streams, unopened, sendq, blocked;
    struct link datagrams;
    size_t datagram_count;
    size_t stream_count; /* in streams or unopened */
    uint64_t last_rx_ns, up_ns, idle_since_ns;
    int64_t up_wall_ms;
    uint64_t gone_at_ns; /* CLOSING, DRAINING */
    uint8_t *close_packet;
    size_t close_len;
    unsigned close_rx; /* packets since; the close is repeated at powers of two */
    uint64_t bytes_in, bytes_out;
    uint64_t lost; /* packets with data of streams that are gone */
    struct path_state path;
    struct relay_packet *relay_head; /* a neighbour's: taken from its queue, not yet sent */
    bool relay_turn;                 /* a relayed packet is next, or a piece of a stream */
};

/* The reason phrase of a close with CONNECTION_REFUSED: "rate_limited 1500". Returns its length. */
#define LIMIT_REASON_MAX 32
size_t session_limit_reason(uint32_t wait_ms, char out[LIMIT_REASON_MAX]);
struct session *session_dial(struct fabric *f, enum session_kind kind, const struct addr *to,
                             struct peer *peer, uint32_t timeout_ms);
struct session *session_accept(struct fabric *f, const ngtcp2_pkt_hd *hd, const ngtcp2_cid *odcid,
                               const struct addr *from, const struct source *src);
void session_read(struct session *ss, const struct addr *from, const struct source *src,
                  struct blob packet);
/* false: the socket is full, stay dirty. */
bool session_write(struct session *ss);
void session_dirty(struct session *ss);
/* Tells the peer, ends the streams with rc. */
void session_close(struct session *ss, enum fabric_close_code code, int rc);
/* Without telling the peer. */
void session_drop(struct session *ss, int rc);
void session_free(struct session *ss);
/* What the library said about a packet, a write or a timer: ends the session accordingly. */
void session_failed(struct session *ss, int rv);
void session_arm(struct session *ss);
extern const ngtcp2_callbacks session_callbacks;
void session_max_datagram(const struct session *ss, size_t *ret);
int session_datagram(struct session *ss, struct blob payload);
void session_open_streams(struct session *ss);
uint64_t session_lost(struct session *ss);
/* Once a second. */
void session_sweep(struct session *ss, int64_t wall_ms);
void peer_sweep(struct fabric *f);

/* --- proof.c --- */
#define FABRIC_SVC_UNPROVEN 0x100u /* answers who has not proved itself yet */
void proof_init(struct fabric *f);
/* In place of peer_session_up, which it calls when the peer has proved itself. */
void proof_begin(struct session *ss);
/* The session ends. */
void proof_gone(struct session *ss);
/* What this stream asks for has to wait; or it was refused, for too many do. */
bool proof_holds(struct fabric_stream *s);

/* --- peers --- */
struct peer {
    UT_hash_handle hh;
    struct fabric *f;
    struct uuid id;
    struct addr addrs[PEER_ADDRS_MAX];
    size_t addr_count, addr_next;
    unsigned keep;            /* KEEP_USER, KEEP_OVERLAY: who wants a session all the time */
    struct session *up[2][2]; /* [kind][dialled] */
    struct session *dialling[2];
    struct link waiting[2];
    size_t waiting_count;
    unsigned failures[2]; /* in a row */
    unsigned tried[2];    /* addresses tried since the first of this round */
    uint64_t next_dial_ns[2];
    struct timer timer;
    int up_count; /* control sessions reported up */
    /* Over relays, beside the direct attempt. */
    struct session *dialling_relayed[2];
    unsigned relayed_failures[2];
    uint64_t next_relayed_ns[2];
    struct uuid pin;           /* the only relay to use, and no direct way; nil: free choice */
    struct relay_queue *relay; /* what waits to go over it as a neighbour; NULL until needed */
    bool carries;              /* it brings us relayed packets: keep a data connection to it */
};

enum peer_keep { KEEP_USER = 1, KEEP_OVERLAY = 2 };
struct peer *peer_find(struct fabric *f, const struct uuid *id);
struct peer *peer_get(struct fabric *f, const struct uuid *id);
/* The session new streams should use, or NULL. */
struct session *peer_session(struct peer *p, bool bulk);
/* Whether the owner lets the direct way to it be taken. */
bool peer_may_direct(const struct peer *p);
/* What the owner allows at all: sessions with it, and streams of a service. */
bool peer_may_talk(const struct peer *p);
bool peer_may_use(struct fabric *f, const struct uuid *id, struct blob service);
/* Neither directly nor over a relay: it is not a matter of waiting. */
bool peer_is_forbidden(struct peer *p);
/* Sees to it that there is, or will be, a session. */
void peer_want(struct peer *p, bool bulk);
void peer_session_up(struct session *ss);
void peer_session_end(struct session *ss, int rc);
/* Frees it when nothing is left that needs it. */
void peer_release(struct peer *p);
void peer_clear_all(struct fabric *f);
/* A neighbour leads to it. */
bool peer_has_relay(struct peer *p);
/* An identity, or a route, has come: dial what was wanted before. */
void peer_kick_all(struct fabric *f);

/* --- endpoint --- */
struct tx_group { /* equal-sized packets to one place; the last may be shorter */
    struct addr to;
    struct source src;
    size_t off, len, segment;
    size_t count;
    bool full;
};

struct waiting_list {
    struct link head;
    size_t count;
};

struct endpoint {
    int fd;
    uv_poll_t poll;
    struct addr local;
    bool wildcard;
    bool gso, blocked;
    int polled; /* the events the handle waits for */
    uint8_t *rx;
    uint8_t *tx;
    size_t tx_used;
    struct tx_group group[TX_GROUPS];
    size_t group_first, group_count;
    struct cid_entry *cids;
    struct token_entry *tokens;
    struct siphash_key hash_key;
    uint64_t resets_window_ns;
    uint32_t resets_in_window;
    uint32_t accepted_this_turn;
    struct waiting_list begun;   /* packets of handshakes that we accepted */
    struct waiting_list backlog; /* Initials of others */
    size_t stream_window;
};

int endpoint_open(struct fabric *f, struct errmsg *em);
/* Frees all but the handle, which the caller closes. */
void endpoint_fini(struct fabric *f);
int endpoint_map(struct fabric *f, const struct addr *to, struct addr *ret);
void endpoint_unmap(struct addr *a);
void endpoint_read(struct fabric *f);
/* One UDP datagram, from anyone. */
void endpoint_receive(struct fabric *f, const struct addr *from, const struct source *src,
                      struct blob packet);
/* Handshakes: as many of the packets that wait as a turn has time for, one at least. */
void endpoint_serve_waiting(struct fabric *f);
bool endpoint_has_waiting(const struct endpoint *ep);
void endpoint_forget_waiting(struct fabric *f);
uint8_t *endpoint_reserve(struct fabric *f, size_t len);
/* alone: a path probe, which must not share its system call. */
void endpoint_commit(struct fabric *f, const struct addr *to, const struct source *src, size_t len,
                     bool alone);
void endpoint_send_copy(struct fabric *f, const struct addr *to, const struct source *src,
                        const uint8_t *data, size_t len);
void endpoint_flush(struct fabric *f);
void endpoint_add_cid(struct session *ss, const ngtcp2_cid *cid);
void endpoint_del_cid(struct session *ss, const ngtcp2_cid *cid);
void endpoint_add_token(struct session *ss, uint64_t seq, const uint8_t *token);
void endpoint_del_token(struct session *ss, uint64_t seq);
void endpoint_forget(struct session *ss);
void endpoint_new_cid(ngtcp2_cid *cid);

/* --- paths --- */
/* A virtual address: the node id as an IPv6 address, marked by a flow label the kernel never gives. */
void path_virtual(const struct uuid *id, uint8_t generation, struct addr *ret);
bool path_is_virtual(const void *sockaddr);
void path_virtual_id(const void *sockaddr, struct uuid *ret);
uint8_t path_virtual_generation(const void *sockaddr);
void path_fill(struct session *ss, const struct addr *remote, ngtcp2_path_storage *ps);
void path_init(struct session *ss, const struct addr *remote);
/* At debug level: what has become of its path. */
void path_log(const struct session *ss, const char *phrase);
/* After the library read a packet, wrote some, or moved. */
void path_settle(struct session *ss);
/* Silence, or nothing acknowledged, for longer than a live path could be. */
bool path_is_suspect(const struct session *ss);
/* Nothing of ours is acknowledged; what comes from the other end may be as lively as ever. */
bool path_is_stalled(const struct session *ss);
/* Leave the direct way now, healthy or not. */
bool path_leave_direct(struct session *ss);
/* When path_tick wants to run next. */
uint64_t path_deadline(const struct session *ss);
/* After so many tries to leave a way that is dark, the next is so much later. */
uint64_t path_retreat_pause_ns(unsigned tries);
/* From the session's timer: leave a path that has died. */
void path_tick(struct session *ss);
/* The overlay's routes are others now. A relayed session that waits for an acknowledgement tries the new
 * way at once, instead of when its next probe is due: each is twice as far away as the one before. */
void path_routes_moved(struct session *ss);
/* A packet of the session has come so, and was the peer's. Accepted: answers go where the last came from. */
void path_came(struct session *ss, const struct relay_arrival *now);
/* Somebody wants the direct way now: the pauses between our own tries may be long by now. */
void path_want_direct(struct session *ss);
/* The direct way works for this session, so it is there for the peer's others. */
void path_direct_works(struct session *ss);
/* Once a second: try the direct way again, choose the keep-alive. */
void path_sweep(struct session *ss);
void path_validated(struct session *ss, const ngtcp2_path *path, bool ok);

/* --- relaying --- */
struct relay {
    struct relay_policy policy; /* of every queue */
    bool on;
    struct fabric_overlay vtab;
    struct relay_guard guard;
    uint64_t sequence[OVERLAY_CLASSES];
    struct link inbound; /* for us, not yet read */
    size_t inbound_bytes;
    struct relay_arrival bringing; /* of the packet that is being read */
    struct link parked;
    size_t half_open;
    size_t queued_bytes;
    struct fabric_overlay_counters counters;
    /* Tests: sees every packet this node relays. */
    void (*watch)(void *data, struct blob packet);
    void *watch_data;
};

void relay_init(struct fabric *f);
void relay_fini(struct fabric *f);
/* An overlay packet came from a neighbour. Inside the library's callback. */
void relay_receive(struct session *from, struct blob packet);
/* Reads what came for this node. */
void relay_deliver(struct fabric *f);
/* A packet of session ss (NULL: of none, e.g. a Retry) to the virtual address `to`. */
void relay_send(struct fabric *f, struct session *ss, const struct addr *to, struct blob packet);
/* The neighbour that carries it: the table's answer, checked. */
int relay_next_hop(struct fabric *f, const struct uuid *to, enum overlay_class class,
                   const struct uuid *avoid, struct uuid *ret);
/* The same for a session of ours to a peer: never the peer itself; its pin decides first. */
int relay_way_to(struct peer *p, enum overlay_class class, struct uuid *ret);
/* The neighbour's queue takes more; else the session is told when it does. */
bool relay_has_room(struct session *ss);
/* The direct connection to a neighbour that carries what is not (or is) control; NULL: none. */
struct session *relay_carrier(struct peer *p, bool bulk);
/* For a neighbour's connection: is there something to carry, and what. */
bool relay_pending(struct session *ss);
struct relay_packet *relay_take(struct session *ss);
void relay_session_gone(struct session *ss);
void relay_peer_gone(struct peer *p);
void relay_drop(struct fabric *f, enum fabric_drop why);
/* Relayed handshakes are bounded for each source, and together. */
bool relay_may_accept(struct fabric *f, const struct uuid *from);

/* --- the fabric --- */
struct own_pause { /* this process was not run, for so long, until then */
    uint64_t woke_ns, slept_ns;
};
#define OWN_PAUSES 4

struct fabric {
    struct fabric_config cfg;
    uv_loop_t *loop;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_timer_t timer;
    uv_poll_t fine; /* a timerfd, for what cannot wait for the loop's next millisecond */
    int fine_fd;
    unsigned open_handles;
    bool closing, mute;
    uint32_t drop_permille; /* tests: of incoming datagrams */
    struct prng drop_prng;
    bool (*cut)(void *data, const struct addr *from); /* tests: true drops what comes from there */
    void *cut_data;
    uint64_t suspect_margin_ns; /* silence beyond two keep-alives that is no sign yet */
    void (*close_cb)(void *data);
    void *close_data;
    uint64_t now_ns, last_turn_ns, grace_until_ns, woke_ns;
    struct own_pause pauses[OWN_PAUSES]; /* the latest, in a ring */
    unsigned pause_count;
    struct timer_heap timers;
    uint64_t armed_ns;
    bool armed_precise;
    struct link events, guest_events;
    struct link sessions, dirty, dead, streams;
    struct endpoint ep;
    gnutls_priority_t priority;
    struct tls_gen *gen, *anon;
    bool has_identity;
    struct uuid node_id;
    struct peer *peers;
    struct fabric_service services[64];
    size_t service_count;
    fabric_datagram_cb datagram_cb;
    void *datagram_data;
    struct link datagrams;
    size_t datagram_count;
    struct event datagram_event;
    struct fabric_refusal refusals[REFUSALS_QUEUED_MAX]; /* to be told */
    size_t refusal_count;
    struct event refusal_event;
    struct source_limit *sources;
    bool enroll_served; /* a service for hosts without a certificate is registered */
    struct timer sweep;
    size_t session_count, half_open, enroll_count;
    struct fabric_counters counters;
    struct relay relay;
};

void fabric_tick(struct fabric *f);
void fabric_note_pause(struct fabric *f, uint64_t slept_ns);
/* How much of the time from then on this process did not run: no silence of anybody else. */
uint64_t fabric_slept_since(const struct fabric *f, uint64_t from_ns);
void event_init(struct event *e, void (*run)(struct event *e));
void event_post(struct fabric *f, struct event *e);
void event_cancel(struct event *e);
/* Arms or moves. */
void timer_set(struct fabric *f, struct timer *t, uint64_t at_ns);
void timer_stop(struct fabric *f, struct timer *t);
static inline uint64_t fabric_now_ms(const struct fabric *f)
{
    return f->now_ns / NS_PER_MS;
}
/* Tells the user of a peer turned away, on a later turn; what does not fit is only counted. */
void fabric_note_refusal(struct fabric *f, const struct fabric_peer *peer, int rc,
                         struct blob service);
const struct fabric_service *fabric_service_find(const struct fabric *f, struct blob name);
/* For tests: as if the process had died. Nothing is sent any more; fabric_close still frees. */
void fabric_kill(struct fabric *f);

#endif
