/* Routes of the overlay: which neighbour is the next hop to a node. Pure: see `route_step`.
 *
 * A distance-vector protocol after Babel (RFC 8966), with these differences:
 *
 * - One source a destination: a node announces itself, with a sequence number that only it raises.
 *   So routing loops are impossible at every instant, not only in the long run. The argument, with
 *   FD(n) the feasibility distance of node n for a destination, a pair (seqno, metric) ordered as RFC
 *   8966 section 3.5.1 (newer seqno first, then smaller metric): FD(n) is the best pair n has ever
 *   advertised; n uses neighbour a only while a has advertised a pair better than FD(n). What a
 *   advertised is no better than FD(a). So FD falls strictly along every chain of next hops
 *   (Garcia-Luna-Aceves 1993), whatever messages are lost or late.
 * - The best pair a neighbour has advertised in the present life of the link is kept beside its
 *   latest one: feasibility looks at the former (it bounds FD(a)), preference at the latter. So a
 *   metric that rises does not cut a route off; a newer sequence number is asked for meanwhile.
 * - Updates are acknowledged and repeated until they are, per neighbour, so a lost withdrawal is
 *   repaired in a quarter of a second, and a quiet mesh is quiet (a slow full refresh remains).
 * - A relay that has just started has forgotten its FD. Until no neighbour can still use it by what
 *   it said in an earlier life (mesh_link.h: a bound on how long a silent link lives), it uses direct
 *   links only.
 * - Leaves (nodes without a relay role) announce themselves and nothing else; what else they say is
 *   dropped and counted. Relays tell a leaf only about the destinations it asked for.
 *
 * Bounds: neighbours, destinations, routes a destination, messages under way. At a bound news are
 * dropped and counted, and what is known stays. */
#ifndef RAP_FABRIC_ROUTE_H
#define RAP_FABRIC_ROUTE_H

#include "wire/mesh_msg.h"

#define ROUTE_NEIGHBOURS_MAX 1024
#define ROUTE_DESTINATIONS_MAX 4096
#define ROUTE_PER_DESTINATION_MAX 24
#define ROUTE_FLIGHT_MAX 8             /* unacknowledged messages to one neighbour */
#define ROUTE_START_HOLD_MS 1750       /* > MESH_DEAD_US + MESH_DEAD_RTT_MAX_US */
#define ROUTE_TRIGGER_MIN_MS 50        /* between bursts of updates to one neighbour */
#define ROUTE_RETRY_MS 250             /* an unacknowledged update is sent again */
#define ROUTE_REQUEST_MS 400           /* between requests for one destination */
#define ROUTE_REQUEST_TRIES 8
#define ROUTE_WANT_TRIES 3             /* of a leaf that has a way: its relay may see the link later */
#define ROUTE_REFRESH_MS 60000         /* everything is told again */
#define ROUTE_EXPIRE_MS 200000         /* not told again: forgotten */
#define ROUTE_GC_MS 20000              /* a destination without a route, all acknowledged */
#define ROUTE_COST_REFUSED UINT32_MAX
#define ROUTE_WANT_MS 60000            /* a leaf's interest in a destination */

/* Why there is no next hop. The texts are part of the command line. */
#define ROUTE_REFUSALS(X)                                                    \
    X(NONE, "none")                                                          \
    X(NO_ROLE, "no_role")         /* we may not forward, or it may not */    \
    X(NO_ROUTE, "no_route")                                                  \
    X(POLICY, "policy")                                                      \
    X(HOP_LIMIT, "hop_limit")                                                \
    X(REVOKED, "revoked")                                                    \
    X(UDP_BLOCKED, "udp_blocked") /* no peer answers at all */
enum route_refusal {
#define ROUTE_REFUSAL_ENUM_(name, text) ROUTE_##name,
    ROUTE_REFUSALS(ROUTE_REFUSAL_ENUM_)
#undef ROUTE_REFUSAL_ENUM_
};
const char *route_refusal_text(enum route_refusal r);

/* Why something of a neighbour was not believed, and what happened. */
#define ROUTE_COUNTERS(X)                                                          \
    X(updates_in) X(updates_out) X(requests_in) X(requests_out) X(retries)         \
    X(switched)          /* another next hop was chosen */                         \
    X(lost)              /* the last usable route went */                          \
    X(drop_malformed) X(drop_version)                                              \
    X(drop_no_link)      /* no such neighbour */                                   \
    X(drop_token)        /* of another life of the link */                         \
    X(drop_old)          /* overtaken by a later message */                        \
    X(drop_role)         /* a leaf advertised somebody else */                     \
    X(drop_revoked) X(drop_policy) X(drop_hop_limit)                               \
    X(drop_seqno)        /* older than what the same neighbour said before */      \
    X(drop_table_full) X(drop_own)  /* somebody else's word about ourselves */     \
    X(drop_duplicate)    /* a request that was just passed on */                   \
    X(infeasible)        /* could have closed a loop */
struct route_counters {
#define ROUTE_COUNTER_MEMBER_(name) uint64_t name;
    ROUTE_COUNTERS(ROUTE_COUNTER_MEMBER_)
#undef ROUTE_COUNTER_MEMBER_
};

struct route_table;

struct route_config {
    struct uuid self;
    bool relay; /* may forward for others */
    uint32_t
        first_seqno; /* rises from run to run if it can (wall clock seconds); repaired if not */
    uint64_t now_ms; /* of the start */
    void *data;
    /* Whether this destination may be reached through this neighbour: NONE, REVOKED or POLICY. Pure:
     * the same answer until a ROUTE_POLICY_CHANGED event. NULL: always NONE. */
    enum route_refusal (*judge)(void *data, const struct uuid *dst, const struct uuid *via);
    /* What this node would rather not: a cost for its own choice, told to nobody, or ROUTE_COST_REFUSED.
     * The route stays known meanwhile. As pure as judge. NULL: 0. */
    uint32_t (*dislike)(void *data, const struct uuid *dst, const struct uuid *via);
};

enum route_event_kind {
    ROUTE_LINK_UP,        /* neighbour, token, peer_token, cost, relay */
    ROUTE_LINK_COST,      /* neighbour, cost, leaving */
    ROUTE_LINK_DOWN,      /* neighbour */
    ROUTE_NEIGHBOUR_ROLE, /* neighbour, relay: our snapshot says so now */
    ROUTE_OWN_ROLE,       /* relay */
    ROUTE_POLICY_CHANGED, /* judge may answer otherwise */
    ROUTE_MESSAGE,        /* neighbour, message: MESH_ROUTES, _ROUTES_ACK, _REQUESTS */
    ROUTE_WANT,           /* dst: somebody here wants to reach it */
    ROUTE_RENEW,          /* neighbour: we are about to leave it; a new number of ours, which it
                             is not told, lets it choose another way to us before this one goes */
    ROUTE_TICK,
};

struct route_event {
    enum route_event_kind kind;
    uint64_t now_ms; /* monotonic; never falls */
    struct uuid neighbour;
    uint64_t token, peer_token;
    uint32_t cost; /* > 0 */
    bool relay;
    bool leaving; /* as after ROUTE_RENEW; false: we stay after all */
    struct blob message;
    struct uuid dst;
};

struct route_send {
    struct uuid to;
    size_t len;
    uint8_t data[MESH_MSG_MAX];
};

/* What one step wants sent. What did not fit is sent by the next: next_ms is then now. */
#define ROUTE_TODO_SENDS 16
struct route_todo {
    struct route_send send[ROUTE_TODO_SENDS];
    unsigned send_count;
    uint64_t next_ms; /* tick no later */
};

struct route_table *route_new(const struct route_config *config);
void route_free(struct route_table *t);
void route_step(struct route_table *t, const struct route_event *ev, struct route_todo *todo);

/* The neighbour that packets for dst go to now, or why none. `from`: the neighbour they came from (they
 * never go back there), NULL for our own. */
enum route_refusal route_next_hop(const struct route_table *t, const struct uuid *dst,
                                  const struct uuid *from, struct uuid *ret_next);

/* Whether it is a destination here, reachable or not. */
bool route_has(const struct route_table *t, const struct uuid *dst);
/* Rises when any next hop may have changed, or the way behind one. */
uint64_t route_generation(const struct route_table *t);
void route_counters(const struct route_table *t, struct route_counters *ret);
size_t route_destination_count(const struct route_table *t);
size_t route_neighbour_count(const struct route_table *t);
size_t route_leaf_count(const struct route_table *t);
/* Messages of this neighbour, in this life of the link, that advertised others without the role. A few
 * after a change of roles mean that our configuration is the older one. */
uint64_t route_refused_from(const struct route_table *t, const struct uuid *neighbour);

/* --- for people --- */
struct route_path {
    struct uuid dst, next;
    uint32_t seqno;
    uint32_t metric; /* ours, the link included */
    uint8_t hops;
    uint32_t dislike; /* added by this node's own choice; ROUTE_COST_REFUSED */
    bool selected, feasible, direct;
    enum route_refusal refusal; /* why it cannot be used, NONE when it could */
};
/* Calls fn for every path to dst, the selected one first. */
void route_paths(const struct route_table *t, const struct uuid *dst,
                 void (*fn)(void *data, const struct route_path *p), void *data);
/* Calls fn once for every destination: its selected path, or one with a refusal. */
void route_list(const struct route_table *t, void (*fn)(void *data, const struct route_path *p),
                void *data);

#endif
