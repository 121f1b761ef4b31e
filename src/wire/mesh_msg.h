/* What neighbours of the overlay tell each other, one message a QUIC datagram (RFC 9221) of their
 * session: probes of the link, routes, and requests for routes. The session says who the sender is,
 * so no message names it. Datagrams may be lost, doubled or reordered; nothing here relies on order.
 *
 * A compact fixed layout, big-endian, because every probe and every route of a large mesh goes
 * through it. The first byte is the type, the second the version of the layout; a receiver drops a
 * version that it does not know (and counts it), so a new layout is a new version.
 *
 *     probe, probe answer   type version token8 peer_token8 seq4 received4 load1 flags1       = 28
 *     routes                type version token8 peer_token8 number4 count1 {id16 seqno4 metric4 hops1}
 *     routes ack            type version token8 peer_token8 number4                           = 22
 *     requests              type version token8 peer_token8 count1 {id16 seqno4 hops1 kind1}
 *
 * Tokens. Each end draws a token when a link comes up and says it in its probes; `peer_token` is the
 * other's as last heard, 0 while unknown. A route message counts only when both tokens are those of
 * the present: so what was said before a restart, or on a link that has been down since, is never
 * believed. */
#ifndef RAP_WIRE_MESH_MSG_H
#define RAP_WIRE_MESH_MSG_H

#include "base/err.h"
#include "base/id.h"

/* First byte of every overlay datagram. SESSION is a packet of an end-to-end session. */
enum mesh_msg_type {
    MESH_SESSION = 1,
    MESH_PROBE = 2,
    MESH_PROBE_ANSWER = 3,
    MESH_ROUTES = 4,
    MESH_ROUTES_ACK = 5,
    MESH_REQUESTS = 6,
};

#define MESH_MSG_VERSION 1
/* Fits the smallest QUIC packet (1200 bytes of UDP payload) with its headers. */
#define MESH_MSG_MAX 1140
#define MESH_ROUTES_ENTRIES_MAX 44
#define MESH_REQUESTS_ENTRIES_MAX 48
#define MESH_METRIC_INFINITE UINT32_MAX
#define MESH_HOPS_MAX 16

enum mesh_probe_flags {
    MESH_PROBE_FULL = 1, /* takes no further neighbours: use another relay */
    MESH_PROBE_FLAGS_ALL = 1,
};

struct mesh_probe {
    enum mesh_msg_type type; /* MESH_PROBE or MESH_PROBE_ANSWER */
    uint64_t token, peer_token;
    uint32_t seq;      /* of the probe; an answer repeats it */
    uint32_t received; /* probes of the other end that have arrived since the link came up: what is
                          missing was lost on the way here */
    uint8_t load;      /* percent of the sender's capacity as a relay */
    uint8_t flags;
};

struct mesh_route_entry {
    struct uuid dst;
    uint32_t seqno;  /* of the destination; serial arithmetic (RFC 1982) */
    uint32_t metric; /* MESH_METRIC_INFINITE: withdrawn */
    uint8_t hops;
};

struct mesh_routes {
    uint64_t token, peer_token;
    uint32_t number; /* rises with every message of this link */
    uint32_t count;
    struct mesh_route_entry entry[MESH_ROUTES_ENTRIES_MAX];
};

struct mesh_routes_ack {
    uint64_t token, peer_token;
    uint32_t number;
};

enum mesh_request_kind {
    MESH_REQUEST_ROUTE = 1, /* a leaf asks its relay; seqno is 0 */
    MESH_REQUEST_SEQNO = 2, /* RFC 8966 section 3.8.1.2: a route at least this new */
};

struct mesh_request_entry {
    struct uuid dst;
    uint32_t seqno;
    uint8_t hops; /* how far it may still travel */
    enum mesh_request_kind kind;
};

struct mesh_requests {
    uint64_t token, peer_token;
    uint32_t count;
    struct mesh_request_entry entry[MESH_REQUESTS_ENTRIES_MAX];
};

/* Write to out (MESH_MSG_MAX bytes); return the length. The struct is ours: out of range is a bug. */
size_t mesh_probe_encode(const struct mesh_probe *m, uint8_t *out);
size_t mesh_routes_encode(const struct mesh_routes *m, uint8_t *out);
size_t mesh_routes_ack_encode(const struct mesh_routes_ack *m, uint8_t *out);
size_t mesh_requests_encode(const struct mesh_requests *m, uint8_t *out);

/* 0, -ERR_UNSUPPORTED (another version) or -ERR_MALFORMED: the length is not exactly what the type
 * and count say, a count of none or over the maximum, a nil id, a flag, kind or hop count out of
 * range, a zero token. *ret is untouched on error. */
int mesh_probe_decode(struct blob in, struct mesh_probe *ret);
int mesh_routes_decode(struct blob in, struct mesh_routes *ret);
int mesh_routes_ack_decode(struct blob in, struct mesh_routes_ack *ret);
int mesh_requests_decode(struct blob in, struct mesh_requests *ret);

/* RFC 1982: whether a is newer than b. */
static inline bool mesh_seqno_newer(uint32_t a, uint32_t b)
{
    return a != b && (uint32_t)(a - b) < 0x80000000u;
}

#endif
