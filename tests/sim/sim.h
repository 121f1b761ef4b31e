/* A cluster of authorities in one process: real core, raft_io, raft_msg and fsm over a clock, a
 * network and disks that one seed decides. A run is a function of its seed.
 *
 *   world.c   event queue, nodes coming and going        faults.c  what goes wrong, and when
 *   disk.c    raft_store: loses what is not synced       check.c   the invariants (reliability.md 3)
 *   net.c     raft_net: loses, repeats, overtakes, cuts  client.c  what people ask, and retry
 *   members.c who is in the group, and who changes it    request.c how a question looks in the log
 *   recovery.c the owner goes on from a survivor         fence.c   what becomes of the others
 *   mirror.c  each node's mirror_core and its connection postgres.c the server they write to
 *   main.c    many seeds, planted bugs, the report
 *
 * There is one history until the owner recovers; then there are two, and each node is of one of them
 * (node.oracle). What is checked is checked within a history; at the end only the newest may be left. */
#ifndef RAP_TESTS_SIM_H
#define RAP_TESTS_SIM_H

#include "authority/core.h"
#include "authority/divergence.h"
#include "authority/mirror_core.h"
#include "authority/mirror_ring.h"
#include "base/rng.h"
#include "pki/pki.h"

#define SIM_NODES_MAX 8
#define SIM_CLIENTS 5
#define SIM_HISTORIES 3
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
    uint64_t silent_until;
    uint64_t epoch;
    struct buf statement; /* that began it */
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
/* Waits, as a load in the product does, until what was queued is durable; callbacks run in their time. */
void disk_wait(struct disk *d);
/* Power goes: some of what is on its way may have arrived, in order. */
void disk_crash(struct disk *d);
bool disk_corrupt(struct disk *d);
void disk_repair(struct disk *d);
/* Begins anew as raft_log_restart does; data: the disk, whose node is down. */
struct raft_log_restart;
int disk_restart(void *data, const struct raft_log_restart *r, struct errmsg *em);
/* As raft_log_begin_empty, in the epoch it was in. */
void disk_begin_empty(struct disk *d, uint64_t term, uint64_t vote, uint64_t silent_until);
/* As raft_log_give_up. */
void disk_give_up(struct disk *d, uint64_t epoch, struct blob statement);

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
    bool severed[SIM_NODES_MAX][SIM_NODES_MAX]; /* until the owner's cable is back (recovery.c) */
    uint32_t loss, dup, reorder;                /* per mille */
    uint64_t delay_us;
};
void net_port_init(struct net_port *p, struct world *w, int node);
/* Both ways, now. */
bool net_reaches(const struct world *w, int a, int b);

/* --- nodes --- */
struct deferred {
    void (*cb)(void *arg);
    void *arg;
};
struct oracle;
struct node_mirror;

/* A node that a higher epoch fences (fence.c). */
struct fenced {
    int heard; /* that speaks of another epoch; -1 nobody */
    bool is, has_divergence;
    struct oracle *by; /* history it will come back into */
    uint64_t commit_index;
    uint64_t log_end; /* when it was fenced: this much is its own history, and nothing more */
    struct divergence divergence;
    uint64_t busy_until_us;
};

struct node {
    struct world *w;
    int i;
    struct oracle *oracle; /* of the history it is in */
    struct fenced fence;
    struct node_mirror *mirror; /* NULL: there is none in this world */
    struct uuid id;
    raft_id raft_id;
    struct prng rng;
    struct disk disk;
    struct net_port port;
    bool old;     /* of the version before: knows one schema level */
    bool in_play; /* a host of the owner's; others are not there yet */
    bool up;
    bool lost;   /* for good: nobody will start it again */
    bool broken; /* refuses to start: corrupt, */
    bool heals;  /* and asks to begin anew (heal.c) */
    uint64_t down_since_us;
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

enum event_kind {
    EV_TICK,
    EV_MSG,
    EV_DISK,
    EV_CLIENT,
    EV_FAULT,
    EV_START,
    EV_KILL,
    EV_OWNER,
    EV_RECOVERY,  /* the owner's next step */
    EV_FENCE,     /* nodes ask each other about epochs */
    EV_PG,        /* something arrives at PostgreSQL */
    EV_PG_ANSWER, /* and something from there */
    EV_HEAL,      /* a damaged member asks, or is answered */
};
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
    uint64_t sum;     /* 0: no command here */
    uint64_t audit;   /* rows the audit has by then, at least */
    uint64_t changes; /* hash of its row changes; 0: not known */
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
    uint64_t epoch, base;  /* the history before has the same entries up to base */
    struct buf statement;  /* that began it */
    struct committed *log; /* by index */
    size_t log_count;
    struct request_row *rows; /* open addressing */
    size_t rows_cap, rows_count;
    int leader_of[4096]; /* by term; node + 1 */
    uint64_t max_acked_index;
    struct uuid last_acked_id;
    uint8_t last_acked_hash[32];
    uint64_t audit_expected;
    uint64_t conf_index;  /* highest configuration that some node knows to be committed, */
    uint32_t conf_voters; /* and who votes in it */
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
    uint64_t recoveries, reported, forged, pg_commits, pg_resyncs, pg_refused, pg_restores;
    uint64_t healed;
};

struct world {
    uint64_t seed;
    unsigned has;
    struct prng rng;
    uint64_t now_us, end_us, calm_us, seq;
    struct event *heap;
    size_t heap_count, heap_cap;
    int n; /* hosts there may be; which of them are members is members.c's business */
    uint32_t snapshot_threshold, snapshot_trailing;
    struct node nodes[SIM_NODES_MAX];
    struct net net;
    struct oracle oracles[SIM_HISTORIES];
    struct oracle *newest; /* the one that is believed */
    struct faults faults;
    struct pg *pg; /* NULL: no PostgreSQL in this world */
    struct recovery *recovery;
    struct client *clients[SIM_CLIENTS];
    struct things *things;
    struct members *members;
    struct stats stats;
    uint64_t hash;
    bool violated;
    char what[400];
};

/* world.c */
#define WORLD_RECOVERS 1u /* what it has in any case, whatever its seed */
#define WORLD_MIRRORS 2u
struct world_options {
    int nodes; /* voters at first; 0: 3 or 5 */
    uint64_t seconds;
    unsigned has;
};
void world_run(struct world *w, uint64_t seed, const struct world_options *o);
void world_fini(struct world *w);
struct event *world_schedule(struct world *w, uint64_t delay_us, enum event_kind kind, int node);
/* One value into the hash that a replay must reproduce. */
void world_trace(struct world *w, uint64_t v);
uint64_t hash_bytes(const void *data, size_t len);
/* An event with a copy of these bytes. */
struct event *world_send(struct world *w, uint64_t delay_us, enum event_kind kind, int node,
                         const void *bytes, size_t len);
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
/* A history goes on from another one behind entry `end` of this node's log of before (old); the node has
 * just started in it. */
void check_branched(struct node *n, const struct oracle *from, const struct rec_list *old,
                    uint64_t end);
/* Row changes of an entry, as this node has them. */
void check_changes(struct node *n, const struct fsm_position *at, struct blob changes);
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
bool members_gone(const struct world *w, int i); /* the owner wants none of it, or lost it */
void members_survivor(struct world *w, int i);   /* the owner wants this one after all */
/* This host will not come back, and the owner wants none of it. */
void members_lost(struct world *w, int i);
struct node *members_leader(struct world *w);
/* Without these, in any configuration that is or may come to be in force. */
bool members_majority_without(const struct world *w, uint32_t lost);
/* r, a change of the configuration, goes to its disk. */
void members_check_stored(struct node *n, const struct rec *r);
/* It takes one of its own state. */
void members_check_snapshot(struct node *n, const struct snap *s);
/* Its log is to begin anew, without what it acknowledged. */
void members_check_emptied(struct node *n);
uint32_t members_committed_voters(const struct node *n);
/* It has lost its log: out, and in again as one that catches up. */
void members_damaged(struct world *w, int i);

/* heal.c */
bool heal_begins(struct node *n); /* it does not start: corrupt */
void heal_event(struct node *n, const struct event *e);

/* recovery.c */
void recovery_new(struct world *w);
void recovery_free(struct world *w);
void recovery_event(struct world *w);
bool recovery_begins(const struct world *w); /* whether this world's owner recovers at all */
bool recovery_severs(const struct world *w); /* and everybody comes back */
const uint8_t *recovery_root_key(const struct world *w);
struct blob recovery_root_der(const struct world *w);
const struct uuid *recovery_cluster(const struct world *w);
/* The owner lets this node come back without what it reported. */
void recovery_consent(struct world *w, struct node *leader, struct node *n, uint64_t rows);

/* fence.c */
void fence_boot(struct node *n);
void fence_resume(struct node *n); /* has started */
void fence_gone(struct node *n);
void fence_event(struct world *w);
/* Somebody shows a statement. */
void fence_shown(struct node *n, struct blob statement);
void fence_check_end(struct world *w);
/* Proposes a command of which only the world hears. */
void world_propose(struct node *leader, const struct cmd *cmd, const void *body);

/* mirror.c */
void mirrors_new(struct world *w);
void mirrors_free(struct world *w);
void node_mirror_boot(struct node *n);
void node_mirror_gone(struct node *n);
void node_mirror_turn(struct node *n);
void node_mirror_tick(struct node *n);
void node_mirror_answer(struct node *n, const struct event *e);
void node_mirror_settings(struct node *n);

/* postgres.c */
#define PG_GROUP_MAX 24
enum pg_what { PG_CONNECT, PG_CLAIM, PG_GROUP, PG_RESYNC, PG_SETTINGS };
struct pg_request {
    enum pg_what what;
    int node;
    uint64_t conn;
    uint64_t epoch, term, claim, prev, rebuilds;
    struct fsm_position to;
    const struct oracle *oracle; /* what the rows are of */
    uint32_t count;
    uint64_t index[PG_GROUP_MAX], changes[PG_GROUP_MAX];
};
struct pg_reply {
    enum pg_what what;
    uint64_t conn;
    bool lost, ok, sealed;
    uint64_t claim, index, rebuilds;
    uint8_t digest[32];
};
struct pg *pg_new(void);
void pg_free(struct pg *pg);
uint64_t pg_connection(struct world *w); /* a number for a new one */
void pg_send(struct world *w, const struct pg_request *r);
void pg_event(struct world *w, const struct event *e);
void pg_fault(struct world *w);
void pg_calm(struct world *w);
/* What the state says of the mirror, as this node knows it. */
struct mirror_settings pg_settings(const struct node *n);
void pg_alarm(struct node *n, enum mirror_alarm alarm);
void pg_check_end(struct world *w, const struct fsm_position *at);

/* client.c */
void clients_new(struct world *w);
void clients_event(struct world *w, int client, uint32_t generation);
void clients_free(struct world *w);

/* request.c: the things clients know of, and commands about them */
enum ask {
    ASK_TOKEN,
    ASK_REVOKE,
    ASK_JOIN,
    ASK_APPROVE,
    ASK_REJECT,
    ASK_ASSIGN,
    ASK_UNASSIGN,
    ASK_RENEW, /* by a member, its certificate */
    ASK_EXPEL, /* a member and its key, for ever */
};
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
    bool remove; /* ASK_EXPEL of who was expelled: out of every list */
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
/* The cluster, and every host of the owner's as an authority of it. */
void cluster_init_encode(struct world *w, struct buf *out);

#endif
