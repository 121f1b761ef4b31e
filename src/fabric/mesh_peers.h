/* Which peers a node keeps sessions with (SPEC PEER-01..04). Pure: see mesh_peers_step.
 *
 * Candidates are the relays that the signed snapshot lists. Each is in one set:
 *     active   a session is kept and probed; routes go over it. Few: 3-5 for an ordinary node, 8-20 for
 *              a relay or core node, 1-3 for a thin one - never a full mesh
 *     warm     measured not long ago, no session: the first to take an active one's place
 *     cold     the rest: known from an earlier run (cached), or from the snapshot alone (bootstrap)
 * What is lost is replaced in that order: warm by score, cached by score, cold in an order of this
 * node's own (a hash of both ids), so that nodes that lost the same relay do not all turn to the next
 * one of a list.
 *
 * A score is what a peer costs, in microseconds: the sum of the ten inputs of PEER-03 by the weights of
 * MESH_PEER_WEIGHTS. A warm peer takes an active one's place only when better by a quarter and 5 ms,
 * one at a time, every 10 s or so. Relays keep three peers whatever their score, those with the
 * highest hash of both ids: near ones alone would leave regions apart. */
#ifndef RAP_FABRIC_MESH_PEERS_H
#define RAP_FABRIC_MESH_PEERS_H

#include "base/err.h"
#include "base/id.h"

#define MESH_PEERS_MAX 512
#define MESH_PEERS_CHANGES_MAX 32
#define MESH_RACE 8               /* tried beside the range's max while below its min */
#define MESH_DIAL_MS 1000         /* a try that has no link by then has failed */
#define MESH_RETRY_MIN_MS 250     /* doubled for each failure in a row ... */
#define MESH_RETRY_SHORT_MS 1000  /* ... up to this while peers are missing */
#define MESH_RETRY_MAX_MS 60000   /* ... and to this while there are enough */
#define MESH_REFRESH_MS 10000     /* choose anew; a quarter of it is jitter */
#define MESH_MEASURE_MS 3000      /* a look at a candidate */
#define MESH_WARM_MS 300000       /* measured longer ago: cold, but cached */
#define MESH_FULL_MS 30000        /* a relay that refused us is left alone */
#define MESH_FAILURE_FORGET_MS 30000

/*   X(name, cost of one unit in us, unit) */
#define MESH_PEER_WEIGHTS(X)                                                             \
    X(latency, 1, "us one way")                                                          \
    X(loss, 400, "permille of probes")                                                   \
    X(reliability, 60, "permille of tries that failed")                                  \
    X(region, 15000, "0 same, 1 unknown, 2 other")                                       \
    X(load, 400, "percent above half of its capacity")                                   \
    X(bandwidth, 3000, "halvings below 1024 Mbit/s; unknown counts 2")                   \
    X(role, 10000, "0 core for a relay or a relay for others, 1 the other of the two")   \
    X(policy, 100000, "0 allowed, 1 to be avoided")                                      \
    X(trust, 300, "100 - trust level")                                                   \
    X(failures, 20000, "failures of the last half minutes")

/* CORE: as many as a relay keeps, but it forwards nothing. */
enum mesh_node_kind { MESH_NODE_NORMAL, MESH_NODE_RELAY, MESH_NODE_THIN, MESH_NODE_CORE };
enum mesh_policy { MESH_POLICY_ALLOW, MESH_POLICY_AVOID, MESH_POLICY_FORBID };

struct mesh_peers_range {
    unsigned min, want, max;
};
struct mesh_peers_range mesh_peers_range(enum mesh_node_kind kind);

/* One node of the signed snapshot. */
struct mesh_directory_entry {
    struct uuid id;
    uint32_t scope;          /* of its role: 0 all, else the organization it relays for */
    uint32_t region;         /* 0: unknown */
    uint32_t bandwidth_mbps; /* 0: unknown */
    enum mesh_policy policy;
    uint8_t trust; /* 0 - 100 */
    bool relay;    /* has the role relay-node */
    bool core;     /* has the role core-mesh */
    bool revoked;
};

/* What a node remembers of a peer from run to run (node.db). */
struct mesh_peer_fact {
    struct uuid id;
    uint32_t latency_us, loss_permille;
    uint32_t tries, failed;
};

enum mesh_peer_set { MESH_PEER_COLD, MESH_PEER_WARM, MESH_PEER_ACTIVE };

struct mesh_peer {
    struct mesh_directory_entry entry;
    bool listed; /* in the latest directory */
    enum mesh_peer_set set;
    uint64_t hash;     /* of both ids: an order of this node's own */
    bool backbone;     /* a relay keeps it whatever it costs, and never stops trying */
    bool kept;         /* a session is wanted: active, or a look is being taken */
    bool measuring;    /* ... a look */
    bool up;           /* the link is */
    uint64_t since_ms; /* kept since; down since, when it was up */
    uint64_t next_try_ms;
    unsigned failures_in_row, failures; /* failures: recent ones */
    uint64_t failure_ms;
    uint64_t measured_ms; /* 0: never in this run */
    bool cached;          /* known from an earlier run */
    uint32_t latency_us, loss_permille;
    uint32_t tries, failed;
    uint8_t load;
    uint64_t full_until_ms;
};

enum mesh_peers_event_kind {
    MESH_PEERS_DIRECTORY, /* entries, count; replaces the earlier one */
    MESH_PEERS_CACHED,    /* facts, fact_count: once, at start */
    MESH_PEERS_LINK_UP,   /* id */
    MESH_PEERS_LINK_DOWN, /* id */
    MESH_PEERS_SAMPLE,    /* id, latency_us, loss_permille, load, full */
    MESH_PEERS_KIND,      /* node_kind */
    MESH_PEERS_TICK,
};

struct mesh_peers_event {
    enum mesh_peers_event_kind kind;
    uint64_t now_ms;
    uint64_t random;
    struct uuid id;
    const struct mesh_directory_entry *entries;
    size_t count;
    const struct mesh_peer_fact *facts;
    size_t fact_count;
    uint32_t latency_us, loss_permille;
    uint8_t load;
    bool full;
    enum mesh_node_kind node_kind;
};

struct mesh_peers_change {
    struct uuid id;
    bool keep; /* keep a session and probe it; or let it go */
    bool look; /* only to measure it: no routes */
};
struct mesh_peers_todo {
    struct mesh_peers_change change[MESH_PEERS_CHANGES_MAX];
    unsigned count;
    uint64_t next_ms; /* tick no later */
};

struct mesh_peers {
    struct uuid self;
    uint32_t own_scope, own_region;
    enum mesh_node_kind kind;
    struct mesh_peer *peer; /* by id; at most MESH_PEERS_MAX */
    size_t count, cap;
    uint64_t refresh_ms;
    uint64_t dropped; /* entries over the bound */
};

void mesh_peers_init(struct mesh_peers *p, const struct uuid *self, enum mesh_node_kind kind);
void mesh_peers_fini(struct mesh_peers *p);
void mesh_peers_step(struct mesh_peers *p, const struct mesh_peers_event *ev,
                     struct mesh_peers_todo *todo);

const struct mesh_peer *mesh_peers_find(const struct mesh_peers *p, const struct uuid *id);
/* Whether it may forward for us, by our snapshot. */
bool mesh_peers_is_relay(const struct mesh_peers *p, const struct uuid *id);
/* Active ones whose link is up. */
unsigned mesh_peers_active(const struct mesh_peers *p);
/* Active ones, up or being tried: never above the range's max while enough are up. */
unsigned mesh_peers_kept(const struct mesh_peers *p);
int64_t mesh_peer_score(const struct mesh_peers *p, const struct mesh_peer *peer);
/* Adds the units of each input times its weight; for people. */
struct mesh_peer_inputs {
#define MESH_PEER_INPUT_(name, weight, unit) uint32_t name;
    MESH_PEER_WEIGHTS(MESH_PEER_INPUT_)
#undef MESH_PEER_INPUT_
};
struct mesh_peer_inputs mesh_peer_inputs(const struct mesh_peers *p, const struct mesh_peer *peer);

#endif
