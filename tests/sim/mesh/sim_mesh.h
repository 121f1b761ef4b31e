/* A mesh in one process: the real peers, links and routes (fabric/mesh.h) of many nodes over a network
 * that one seed decides. A run is a function of its seed.
 *
 *   world.c   event queue, nodes, sessions, datagrams      faults.c  what goes wrong, and when
 *   check.c   no loop ever, no refused way, bounds, everybody reachable
 *   main.c    many seeds, planted bugs, report */
#ifndef RAP_TESTS_SIM_MESH_H
#define RAP_TESTS_SIM_MESH_H

#include "base/rng.h"
#include "fabric/mesh.h"

#define MESH_NODES_MAX 512
#define MS 1000ull /* the world counts microseconds */
#define SEC (1000 * MS)
#define TICK_US (50 * MS) /* as the node's timer */
#define SETTLE_US (3 * SEC) /* the promise: reachable this long after the last change */

enum sim_event_kind {
    SIM_TICK,        /* a */
    SIM_DATAGRAM,    /* a -> b */
    SIM_DIAL,        /* a tries b once more */
    SIM_SESSION_UP,  /* b at a */
    SIM_SESSION_END, /* of a and b: both learn of it */
    SIM_DIRECTORY,   /* a gets the present one */
    SIM_FAULT,
    SIM_WAKE, /* a, which was frozen */
};

struct sim_event {
    uint64_t at_us, seq;
    enum sim_event_kind kind;
    int a, b;
    uint64_t life; /* of the session or the node it belongs to */
    size_t len;
    uint8_t *data;
};

struct sim_session {
    bool exists;
    bool at[2];        /* the lower, the higher node has been told that it is up */
    uint64_t life;     /* 0: never */
    uint64_t quiet_us; /* when a datagram last arrived, either way */
};

/* What an owner forbids, or demands, of the ways to some: one hard intent, as the check reads it. */
struct sim_rule {
    bool exists;
    enum mesh_intent_kind kind; /* deny or require */
    enum mesh_intent_via via;
    int node;
    uint32_t region;
    int about; /* destinations k with k % RULE_SHARE == about */
};
#define RULE_SHARE 5

struct sim_node {
    struct mesh *mesh; /* NULL: dead */
    struct mesh_todo todo;
    struct uuid id;
    uint64_t life;
    bool relay, revoked, liar;
    uint64_t phase_us; /* of its timer */
    uint64_t tick_us;  /* the tick that is queued; 0: none */
    bool frozen;
    uint64_t directory_version;
    struct mesh_intents intents[2]; /* those in force, and those before */
    unsigned intents_at;
    struct sim_rule rule; /* in force */
    bool keep[MESH_NODES_MAX];
    uint64_t dial_life[MESH_NODES_MAX];
    uint16_t next[MESH_NODES_MAX]; /* as last seen by the check; NO_NODE: none */
    uint64_t generation;
    /* Received while frozen. */
    struct sim_event *held;
    size_t held_count, held_cap;
};

#define NO_NODE UINT16_MAX

struct sim_stats {
    uint64_t events, datagrams, lost, faults, switches, sessions, loops_checked, pairs, owed,
        reached, refused, updates, requests, ruled, obeyed;
};

struct world {
    uint64_t seed;
    struct prng rng;
    uint64_t now_us, seq, lives;
    int n, relays;
    struct sim_node *node;
    /* [from * n + to] */
    bool *cut;
    uint16_t *latency_100us;
    uint8_t *loss_percent;
    struct sim_session *session; /* [low * n + high] */
    struct sim_event *queue;     /* a heap */
    size_t count, cap;
    uint64_t directory_version;
    bool calm; /* no more faults */
    uint64_t last_change_us;
    uint64_t hash;
    struct sim_stats stats;
    bool violated;
    char what[300];
};

/* world.c */
void world_run(struct world *w, uint64_t seed, int n, uint64_t seconds);
void world_fini(struct world *w);
struct sim_event *world_push(struct world *w, uint64_t at_us, enum sim_event_kind kind, int a,
                             int b);
void world_step(struct world *w, int i, struct mesh_event *ev);
void world_crash(struct world *w, int i);
void world_start(struct world *w, int i);
void world_want(struct world *w, int i, int dst);
void world_push_directory(struct world *w);
int world_index(const struct world *w, const struct uuid *id);
struct sim_session *world_session(struct world *w, int a, int b);
bool world_usable(const struct world *w, int a, int b); /* both ways */
uint64_t world_below(struct world *w, uint64_t n);

/* faults.c */
void faults_build(struct world *w);
void fault_next(struct world *w);
void faults_end(struct world *w);

/* A node's region in everybody's directory. */
static inline uint32_t world_region(int i)
{
    return (uint32_t)i % 3 + 1;
}

/* check.c */
void violated(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
void check_node(struct world *w, int i); /* after each step of i */
void check_wants(struct world *w);       /* every node asks for what check_end looks at */
void check_end(struct world *w);

#endif
