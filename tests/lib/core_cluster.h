/* A few members in one process over memory and a clock that moves when told to. Nothing fails unless
 * a test makes it: the simulator is for that.
 *
 *     struct core_cluster c;
 *     core_cluster_init(&c, 3, 3);               // nodes, of which the first three vote
 *     int leader = core_cluster_elect(&c);
 *     ... core_propose(c.nodes[leader].core, ...);
 *     core_cluster_run(&c, 500);
 *     core_cluster_fini(&c);
 */
#ifndef TESTS_LIB_CORE_CLUSTER_H
#define TESTS_LIB_CORE_CLUSTER_H

#include "authority/core.h"
#include "base/rng.h"

#define CLUSTER_NODES 4

struct core_cluster;

struct cluster_op {
    struct cluster_op *next;
    raft_store_cb cb;
    void *data;
    struct raft_store_loaded *get;
};
struct cluster_entry {
    uint64_t index, term;
    uint16_t type;
    struct buf data;
};
struct cluster_message {
    struct cluster_message *next;
    int from, to;
    struct buf bytes;
};

struct cluster_node {
    struct core_cluster *c;
    int i;
    struct uuid id;
    raft_id raft_id;
    struct prng rng;
    struct raft_store store;
    struct raft_net net;
    struct raft_io io;
    struct raft_io_env io_env;
    struct core_env core_env;
    struct fsm *fsm;
    const struct db_migration *schema; /* NULL: as the product; read when it starts */
    struct core *core;                 /* NULL while it is down */
    /* What is stored; writes take effect at once and are reported a step later. */
    uint64_t term, vote;
    struct cluster_entry *log;
    size_t log_count;
    uint64_t snapshot_index, snapshot_term, snapshot_conf_index;
    struct buf snapshot_conf, snapshot_image;
    struct cluster_op *ops, **ops_end;
    bool disk_stuck; /* reports nothing */
    bool flush_wanted;
    unsigned fatals;
    char why[256];
    unsigned role_changes;
    void (*deferred)(void *arg);
    void *deferred_arg;
    bool closed;
};

struct core_cluster {
    int n;
    uint64_t now_ms;
    uint32_t threshold, trailing; /* 0: as the product */
    struct cluster_node nodes[CLUSTER_NODES];
    bool cut[CLUSTER_NODES][CLUSTER_NODES];
    struct cluster_message *first, **end;
};

/* Nodes of which the first `voters` are in the configuration of entry 1; the others are empty. */
void core_cluster_init(struct core_cluster *c, int nodes, int voters);
void core_cluster_fini(struct core_cluster *c);
/* One step is 10 ms. */
void core_cluster_run(struct core_cluster *c, uint64_t ms);
/* Until somebody leads and has started its term; its number. */
int core_cluster_elect(struct core_cluster *c);
/* Messages to and from this node are lost, or arrive again. */
void core_cluster_isolate(struct core_cluster *c, int node, bool alone);
void core_cluster_stop(struct core_cluster *c, int node);
void core_cluster_start(struct core_cluster *c, int node);
struct core_status core_cluster_status(struct core_cluster *c, int node);
/* A command whose request id is `number`; bytes valid until the next call. */
struct blob core_cluster_command(struct core_cluster *c, uint32_t number);

#endif
