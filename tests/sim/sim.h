/* A cluster of authorities in one process: real core, raft_io, raft_msg and fsm over a clock, a
 * network and disks that one seed decides. A run is a function of its seed.
 *
 *   world.c   event queue, nodes coming and going        faults.c  what goes wrong, and when
 *   disk.c    raft_store: loses what is not synced       check.c   the invariants (reliability.md 3)
 *   net.c     raft_net: loses, repeats, overtakes, cuts  client.c  what people ask, and retry
 *   members.c who is in the group, and who changes it
 *   main.c    many seeds, planted bugs, the report       request.c how a question looks in the log */
#ifndef RAP_TESTS_SIM_H
#define RAP_TESTS_SIM_H

#include "authority/core.h"
#include "base/rng.h"

#define SIM_NODES_MAX 8
#define SIM_CLIENTS 5
#define HEARTBEAT_MS 50
#define ELECTION_MS 500
#define MS 1000ull /* the world counts microseconds */
#define SEC (1000 * MS)
/* The last part of a run has no faults: L1 and L2. */
#define CALM_US (25 * SEC)
#define FIRST_ACK_US (5 * SEC)
#define CLIENTS_STOP_US (12 * SEC)

struct world;

/* --- log records, shared by the lists of one disk --- */
struct rec {
    uint32_t refs;
    uint16_t type;
    uint64_t index, term;
    uint64_t sum; /* of everything here and data */
    size_t len;
    uint8_t data[];
};
struct rec_list {
    uint64_t first; /* index of items[0] */
    struct rec **items;
    size_t count, cap;
};
struct rec *rec_new(uint64_t index, uint64_t term, uint16_t type, struct blob data);
uint64_t rec_sum(const struct rec *r);
void rec_list_push(struct rec_list *l, struct rec *r); /* takes a reference */
void rec_list_truncate(struct rec_list *l, uint64_t index);
void rec_list_drop_before(struct rec_list *l, uint64_t index);
void rec_list_clear(struct rec_list *l);
struct rec *rec_list_at(const struct rec_list *l, uint64_t index);

/* --- disk --- */
struct snap {
    uint32_t refs;
    uint64_t index, term, conf_index;
    struct buf conf, image;
};
struct disk_op;
struct disk {
    struct raft_store store;
    struct world *w;
    int node;
    uint64_t term, vote;
    struct rec_list durable;
    struct rec_list view; /* durable and what is on its way */
    struct snap *snap;    /* NULL: none */
    struct disk_op *first, *last;
    size_t ops_count;
    uint64_t busy_until_us;
    uint32_t generation; /* of the events it waits for */
    bool slow;
    bool fail_next;
    bool failed; /* an append failed since the node started */
    struct rec *corrupted;
    size_t corrupted_at;
};
void disk_init(struct disk *d, struct world *w, int node);
void disk_fini(struct disk *d);
void disk_boot(struct disk *d); /* before a node starts */
void disk_event(struct disk *d, uint32_t generation);
/* Power goes: some of what is on its way may have arrived, in order. */
void disk_crash(struct disk *d);
bool disk_corrupt(struct disk *d);
void disk_repair(struct disk *d);

/* --- network --- */
struct net_port {
    struct raft_net net;
    struct world *w;
    int node;
    uint64_t large_until_us[SIM_NODES_MAX];
};
struct net {
    bool cut[SIM_NODES_MAX][SIM_NODES_MAX];
    uint64_t last_us[SIM_NODES_MAX][SIM_NODES_MAX];
    uint32_t loss, dup, reorder; /* per mille */
    uint64_t delay_us;
};
void net_port_init(struct net_port *p, struct world *w, int node);

/* --- nodes --- */
struct deferred {
    void (*cb)(void *arg);
    void *arg;
};
struct node {
    struct world *w;
    int i;
    struct uuid id;
    raft_id raft_id;
    struct prng rng;
    struct disk disk;
    struct net_port port;
    bool old;     /* of the version before: knows one schema level */
    bool in_play; /* a host of the owner's; others are not there yet */
    bool up;
    bool broken; /* refuses to start: corrupt */
    bool flush_wanted;
    bool failed;
    bool closed;
    char why[160];
    uint32_t generation;
    uint64_t paused_until_us;
    int64_t wall_offset_ms;
    int32_t wall_drift_ppm; /* since: */
    uint64_t wall_drift_since_us;
    uint64_t wall_strobe_until_us;  /* the clock jumps to and fro until then */
    uint32_t voters, voters_before; /* of its configuration, and of the one before (masks) */
    struct deferred deferred[64];
    size_t deferred_count;
    struct raft_io_env io_env;
    struct core_env core_env;
    struct raft_io io;
    struct fsm *fsm;
    struct core *core;
    int64_t last_time_ms;
};

enum event_kind { EV_TICK, EV_MSG, EV_DISK, EV_CLIENT, EV_FAULT, EV_START, EV_KILL, EV_OWNER };
struct event {
    uint64_t at_us, seq;
    uint32_t generation;
    uint8_t kind;
    int8_t node, from;
    uint32_t len;
    uint8_t *bytes;
};

/* --- what the log says, known from the first replica that applied it --- */
struct committed {
    uint64_t term;
    uint64_t sum; /* 0: no command here */
    bool has_digest;
    uint8_t digest[32];
};
struct request_row {
    struct uuid id;
    uint64_t index; /* where it was first applied; 0 not yet */
    bool answered;
    int rc;
    uint64_t doc_sum;
};

struct oracle {
    struct committed *log; /* by index */
    size_t log_count;
    struct request_row *rows; /* open addressing */
    size_t rows_cap, rows_count;
    int leader_of[4096]; /* by term; node + 1 */
    uint64_t max_acked_index;
    struct uuid last_acked_id;
    uint8_t last_acked_hash[32];
    uint64_t audit_expected;
    uint64_t conf_index; /* highest configuration that some node knows to be committed */
};

struct faults {
    uint64_t cut_until_us, noisy_until_us, slow_until_us[SIM_NODES_MAX];
    bool calm, first_ack_checked;
    uint64_t calm_acks;
};

/* --- clients --- */
struct client;
struct things;
struct members;

struct stats {
    uint64_t acks, refusals, reads, unknown, elections, crashes, starts, messages, commits;
    uint64_t snapshots_taken, snapshots_installed, faults, disk_errors, corruptions, changes;
};

struct world {
    uint64_t seed;
    struct prng rng;
    uint64_t now_us, end_us, calm_us, seq;
    struct event *heap;
    size_t heap_count, heap_cap;
    int n; /* hosts there may be; which of them are members is members.c's business */
    uint32_t snapshot_threshold, snapshot_trailing;
    struct node nodes[SIM_NODES_MAX];
    struct net net;
    struct oracle oracle;
    struct faults faults;
    struct client *clients[SIM_CLIENTS];
    struct things *things;
    struct members *members;
    struct stats stats;
    uint64_t hash;
    bool violated;
    char what[400];
};

/* world.c */
void world_run(struct world *w, uint64_t seed, int nodes, uint64_t seconds);
void world_fini(struct world *w);
struct event *world_schedule(struct world *w, uint64_t delay_us, enum event_kind kind, int node);
/* One value into the hash that a replay must reproduce. */
void world_trace(struct world *w, uint64_t v);
uint64_t hash_bytes(const void *data, size_t len);
void node_start(struct node *n);
void node_crash(struct node *n);
int64_t node_wall_ms(const struct node *n);
uint64_t node_mono_ms(const struct node *n);
/* Chance of `per_mille` in 1000. */
bool chance(struct world *w, uint32_t per_mille);
uint64_t between(struct world *w, uint64_t low, uint64_t high);

/* check.c */
void violate(struct world *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
void check_boot(struct world *w);
void check_applied(struct node *n, uint64_t index);
void check_restored(struct node *n);
void check_role(struct node *n);
void check_ack(struct node *n, const struct uuid *id, const uint8_t hash[32], uint64_t floor,
               const struct fsm_result *r);
void check_read(struct node *n, uint64_t floor, const struct uuid *acked_id,
                const uint8_t acked_hash[32], uint64_t index);
void check_started(struct node *n, int rc, const struct errmsg *em);
void check_end(struct world *w);
void check_fini(struct world *w);

/* faults.c */
void faults_schedule(struct world *w);
void faults_event(struct world *w);
/* Something became durable on this node: a moment to kill it, with this chance in 1000, and start it
 * again so soon that what was said to it before still arrives. */
void faults_durable(struct node *n, uint32_t per_mille);

/* members.c */
void members_new(struct world *w, int voters);
void members_free(struct world *w);
void members_event(struct world *w);
/* Voters of the configuration this node goes by, as a mask of node numbers. */
uint32_t members_voters(const struct node *n);
/* Whether node i gets the log, by this leader's configuration. */
/* Index of the configuration that this node knows to be committed, and of the one it goes by. */
uint64_t members_committed_conf(const struct node *n);
uint64_t members_latest_conf(const struct node *n);
bool members_replicates(const struct node *leader, int i);
struct node *members_leader(struct world *w);

/* client.c */
void clients_new(struct world *w);
void clients_event(struct world *w, int client, uint32_t generation);
void clients_free(struct world *w);

/* request.c: the things clients know of, and commands about them */
enum ask { ASK_TOKEN, ASK_REVOKE, ASK_JOIN, ASK_APPROVE, ASK_REJECT, ASK_ASSIGN, ASK_UNASSIGN };
struct made {
    struct uuid id;
    uint8_t hash[32];
};
struct request {
    enum ask ask;
    struct uuid id;
    uint8_t hash[32];
    size_t token, join, member;
    uint8_t role;
    uint8_t key[32];
    char name[24];
    uint32_t max_uses;
    uint32_t ttl_ms;
    struct made made[16]; /* what each attempt would create */
    size_t made_count;
};
struct things *things_new(void);
void things_free(struct things *t);
void request_new(struct world *w, struct request *q);
/* The command of one attempt: another id for what it creates, the same request id. */
void request_encode(struct node *n, struct request *q, struct buf *out);
void request_answered(struct world *w, struct node *n, struct request *q,
                      const struct fsm_result *r);
/* Counts what attempts of one request made: S4. */
void requests_check(struct world *w, struct node *n);
void cluster_init_encode(struct world *w, struct buf *out);

#endif
