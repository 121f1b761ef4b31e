/* What the files of this module share. Nobody outside includes it. */
#ifndef RAP_AUTHORITY_AUTHORITY_IMPL_H
#define RAP_AUTHORITY_AUTHORITY_IMPL_H

#include "authority/authority.h"
#include "authority/core.h"
#include "authority/fence.h"
#include "authority/mesh_live.h"
#include "authority/query.h"
#include "authority/quorum.h"
#include "authority/raft_io.h"
#include "authority/refusals.h"

#include <sys/queue.h>
#include <uthash.h>

#define TICK_MS 50
#define RECONCILE_MS 200
#define FORWARD_TIMEOUT_MS 3000

/* --- raft over the fabric (raft_net.c) --- */
struct raft_peer {
    struct authority *a;
    raft_id id;
    struct uuid node_id;
    struct fabric_stream *streams[2]; /* ours to it, [1] for images; NULL until needed */
    struct fabric_stream *in[2]; /* its to us, likewise; a new one takes the place of the old */
    uint64_t image_until_ms;     /* one is believed in flight until then */
    bool other_epoch;            /* it spoke of one since we last asked it */
    UT_hash_handle hh;
};
struct raft_net_fabric {
    struct raft_net base;
    struct authority *a;
    struct raft_peer *peers;
    struct raft_image_work *preparing; /* raft_net_image.c; NULL: nothing */
    struct raft_peer *image_from;      /* whose image is on its way to us: one at a time */
};

/* --- config subscriptions (push.c) --- */
struct subscriber {
    struct authority *a;
    struct fabric_stream *stream;
    struct uuid node_id;
    uint64_t held_version; /* what it has, as far as we know */
    uint64_t node_config;  /* last change of its own part */
    struct snapshot_held held;
    int64_t sent_at_ms;
    LIST_ENTRY(subscriber) link;
};
LIST_HEAD(subscriber_list, subscriber);

/* --- what a majority signs (witness.c) --- */
struct collection {
    bool active;
    bool of_set;     /* an authority set, not a statement */
    uint64_t serial; /* answers to earlier ones are not counted */
    uint64_t began_ms;
    struct buf bytes;
    struct fsm_witness what; /* of a statement: what it says, and the tree of that index */
    struct merkle *tree;
    size_t needed, count;
    struct {
        struct uuid node_id;
        int64_t at_ms;
        uint8_t signature[PKI_SIG_BYTES];
    } got[AUTHORITIES_MAX];
};
/* The newest statement that a majority signed. */
struct witnessed {
    bool have;
    struct fsm_witness what;
    struct merkle *tree;
    struct buf statement, signatures;
    uint32_t count;
    int64_t signed_at_ms; /* the oldest of the signatures */
};
TAILQ_HEAD(waiting_list, waiting);
struct witnessing {
    struct collection statement, set;
    struct witnessed done;
    struct waiting_list waiting; /* others' questions about what is not applied here yet */
    size_t waiting_count;
    bool set_busy; /* the command that changes the set is under way */
};

/* --- enrolling hosts that wait for a decision (enroll.c) --- */
struct enrolling {
    struct authority *a;
    struct fabric_stream *stream;
    struct uuid join_id; /* nil until submitted */
    char node_name[NAME_MAX_BYTES + 1];
    bool has_token;
    uint8_t token_hash[PKI_HASH_BYTES];
    uint64_t began_ms; /* monotonic */
    bool submitting;
    bool gone; /* the stream ended while a call was under way */
    LIST_ENTRY(enrolling) link;
};
LIST_HEAD(enrolling_list, enrolling);

/* --- live health on the leader (health.c) --- */
struct live_node {
    struct uuid node_id;
    int64_t seen_ms;                /* wall clock; and */
    uint64_t seen_mono_ms;          /* what staleness is reckoned from: no clock that is set */
    uint64_t config_version;        /* of the snapshot it said it holds */
    char committed[16];             /* health the state has */
    uint8_t report[PKI_HASH_BYTES]; /* of what it says of itself, as committed */
    bool report_known;
    bool heard; /* a heartbeat of its own came in this leadership: */
    char version[33];
    int64_t observed_ms; /* by its clock */
    int64_t sampled_ms;  /* when it was last observed for the log */
    bool proposing;      /* a change is under way: */
    char next_health[16];
    uint8_t next_report[PKI_HASH_BYTES];
    bool next_report_known;
    struct mesh_report *mesh; /* of its last heartbeat; NULL: it has no overlay */
    int64_t mesh_ms;
    bool mesh_changed; /* since it was compared with the state */
    UT_hash_handle hh;
};

/* Work for the end of this loop turn, in order. */
struct deferred {
    void (*cb)(void *arg);
    void *arg;
    STAILQ_ENTRY(deferred) link;
};
STAILQ_HEAD(deferred_list, deferred);

/* What this authority answered to the last attempts to finish a split (split_tries.c). */
#define SPLIT_TRIES 4
struct split_try {
    char split_id[UUID_TEXT_MAX];
    char text[256];
    int64_t at_ms;
};
struct split_tries {
    struct split_try item[SPLIT_TRIES];
    size_t next; /* the place of the next split, in a ring */
};

struct mirror;
struct authority {
    struct authority_config cfg;
    char *dir;
    struct pki_key *issuer_key;
    struct buf issuer_der;                /* our issuing CA */
    struct buf leaf_der, leaf_issuer_der; /* what signs snapshots */
    /* From applied state, read again when who decides changes: */
    struct buf root_der; /* of the cluster */
    uint8_t root_fingerprint[PKI_HASH_BYTES];
    struct buf voter_addresses; /* text, comma-separated */

    struct mirror *mirror;
    struct mirror_check *mirror_check; /* under way */
    uint64_t mirror_check_at_ms;
    struct raft_store *store;
    struct raft_net_fabric net;
    struct raft_io_env io_env;
    struct raft_io io;
    struct core_env core_env;
    struct core *core;
    struct fsm *fsm;
    struct fence fence;
    struct {
        bool busy;       /* one is being packed */
        struct buf file; /* the last one made; empty: none */
        struct uuid id;
        uint64_t used_ms; /* monotonic */
    } backup;

    uv_timer_t tick;
    uv_prepare_t flush; /* end of each loop turn: core_flush and what waits for applied state */
    uv_idle_t spin;     /* keeps the loop from blocking while a flush is wanted */
    bool flush_wanted;
    bool applied_dirty;   /* entries were applied since the last flush */
    bool joins_dirty;     /* a join request was decided since the last flush */
    bool push_wanted;     /* some subscriber may be due */
    bool self_changed;    /* our own snapshot says something else since the daemon got it */
    int64_t self_told_ms; /* when it got it */
    uint64_t config_seen; /* config_index that directory and daemon know of */
    uint64_t node_config_seen;
    uint64_t quorum_seen_ms; /* monotonic: when a majority was last behind us */
    uint64_t sent_away_ms;   /* when subscribers were last sent to other authorities */
    uint64_t last_reconcile_ms;
    uint64_t leader_since_ms; /* monotonic; 0 when not leader */
    int64_t last_expire_ms;
    uint64_t last_expiry_look_ms; /* monotonic */
    uint64_t mesh_log_ms;         /* monotonic: when the last mesh_log went */

    struct witnessing witness;
    int64_t forgery_window_ms;
    uint32_t forgery_budget; /* reports still taken in this window */

    /* Our own calls that are under way: */
    bool sampling;       /* a heartbeat_log is under way */
    bool mesh_logging;   /* a mesh_log is */
    bool self_busy;      /* self_call is */
    bool change_busy;    /* change is */
    bool partition_busy; /* a command of partitions.c is under way */
    bool damaged_busy;   /* one of heal_grant.c is */
    struct subscriber_list subscribers;
    struct enrolling_list enrolling;
    struct live_node *live;
    struct fabric_call self_call; /* our own heartbeat to the leader */
    uint64_t self_report_at_ms;
    int64_t self_asked_ms;             /* our wall clock when the heartbeat under way was sent */
    int64_t clock_ahead_ms;            /* how far our clock is ahead of the leader's */
    uint8_t seen_hash[PKI_HASH_BYTES]; /* who was out of contact at the last look, */
    uint64_t seen_since_ms;            /* and since when */
    struct core_change change;

    LIST_HEAD(, pending_call) calls;
    struct deferred_list deferred;
    struct refusals refusals; /* on their way to the audit */
    struct split_tries split_tries;
    uint64_t refused[REFUSAL_UNLISTED]; /* since start, by enum refusal_what less 1 */
    struct authority_counts counts;     /* as of: */
    uint64_t counted_ms;                /* monotonic; 0 never */

    uint64_t leave_by_ms;
    bool leaving; /* authority_close was called */
    bool closing; /* leadership was handed over, if we had it */
    int open_handles;
    void (*close_cb)(void *data);
    void *close_data;
};

static inline struct db *state_db(const struct authority *a)
{
    return fsm_db(a->fsm);
}

int64_t authority_now_ms(const struct authority *a);
/* Whether this is the key the applied state lists for this node, with an active membership: a
 * certificate alone, whoever signed it, is not enough to be served. */
bool authority_knows(struct authority *a, const struct fabric_peer *peer);
/* The same, or disabled: it may hear what it is. */
bool authority_tells(struct authority *a, const struct fabric_peer *peer);
uint64_t authority_mono_ms(void);

/* raft_net.c */
void raft_net_fabric_init(struct raft_net_fabric *n, struct authority *a);
void raft_net_fabric_fini(struct raft_net_fabric *n);
/* The member ids and addresses the applied state knows: directory, sessions, id map. */
void raft_net_refresh(struct authority *a);
void raft_net_members(struct authority *a);
const struct uuid *raft_net_node(const struct authority *a, raft_id id);
void raft_net_serve(struct authority *a);
/* A message arrived. The sender is who the session says, whatever the message says. */
void raft_net_received(struct authority *a, const struct fabric_peer *peer, struct blob frame,
                       bool unpacked, int *ret_rc);
/* raft_net_image.c: takes a message with an image, whose state is made off the loop first. False: it is to
 * be received as any other. */
bool raft_net_image(struct authority *a, const struct fabric_peer *peer, struct blob frame);
void raft_net_image_fini(struct raft_net_fabric *n);

/* call.c */
struct pending_call;
/* Refusal when no majority can be had: appends the document of -ERR_NO_QUORUM. */
void call_no_quorum_doc(const struct authority *a, const char *outcome, struct buf *out);
void call_serve(struct authority *a); /* call_serve.c */
void call_cancel_all(struct authority *a);
void call_tick(struct authority *a);
/* A call the leader makes to itself or to the leader, in the name of `actor`. */
void call_internal(struct authority *a, const char *method, struct blob args,
                   const struct uuid *request_id, const char *actor_kind, const char *actor_id,
                   authority_call_cb cb, void *data);

/* ops.c: what each mutation becomes. */
struct op_prepared {
    uint64_t kind;
    struct buf body;  /* encoded command body */
    struct buf extra; /* document merged into the answer, or empty */
    struct buf more;  /* document merged into a refusal by the preparation, or empty */
};
struct op_input {
    struct blob args;
    const char *method;
    const char *actor_kind;
    const char *actor_id;
};
/* The refusal of a method that this program has never heard of; by it a member knows a leader that is older. */
#define NO_METHOD_TEXT "no method "
/* On the leader: reads the applied state and the arguments, decides times, ids and certificates.
 * -ERR_NOT_FOUND for a method that is no mutation. */
int op_prepare(struct authority *a, const struct op_input *in, struct op_prepared *ret,
               struct errmsg *em);
/* Whether this caller may ask for this method (0 or -ERR_DENIED): the one place where that is decided.
 * via: the authority that passed the call on, by its certificate; NULL: none did. */
int op_admits(const struct op_input *in, const struct uuid *via, struct errmsg *em);
/* Every method that op_admits knows, by number; NULL after the last. */
const char *op_method_at(size_t i);
/* It means something on the leader alone, and is not passed on. */
bool op_is_for_leader(const char *method);
bool op_is_mutation(const char *method);
/* The command a method becomes; 0 for one that becomes none. */
uint64_t op_kind(const char *method);
/* A name, id or unique prefix to an id. kind as query.h. */
int op_resolve(struct authority *a, const char *kind, const char *text, struct uuid *ret,
               struct errmsg *em);
/* The addresses of all voters, comma-separated. */
void op_load_addresses(struct authority *a);

/* authority_ops.c: adding and removing authorities, which talks to the node first. */
int authority_op_prepare(struct authority *a, struct pending_call *pc, struct errmsg *em);

/* issue.c */
int issue_leaf(struct authority *a, const struct uuid *node_id,
               const uint8_t public_key[PKI_KEY_BYTES], struct buf *ret_cmd_cert,
               struct errmsg *em);

/* authority_trust.c: the owner's changes of roots and CAs, and following them. */
int trust_op_prepare(struct authority *a, struct pending_call *pc, struct errmsg *em);
/* The command it becomes; 0: no call of these. */
uint64_t trust_op_kind(const char *method);
/* The policy's; 0: the default. */
int64_t authority_leaf_life_ms(struct authority *a);
/* The owner's record of roots in force; a copy is appended, nothing when there was no rotation. */
void trust_record_now(struct authority *a, struct buf *out);
/* Installs our own CA certificate when the state has a newer one. */
void trust_follow(struct authority *a);

/* expiry.c: on the leader, tells the state what runs out. */
void expiry_tick(struct authority *a);
/* How many alarms stand. */
unsigned expiry_alarms(const struct authority *a);

/* push.c */
void push_serve(struct authority *a);
/* Looks at the state for nodes whose own part changed: this one, subscribers. */
void push_note(struct authority *a);
void push_changed(struct authority *a);
void push_tick(struct authority *a);
void push_close(struct authority *a);
/* Whether a snapshot for this node can be made that says what is applied: at once without an authority
 * set, and with one when a majority has signed that far. */
bool push_is_ready(struct authority *a, const struct uuid *node_id);

/* witness.c */
void witness_init(struct authority *a);
void witness_fini(struct authority *a);
void witness_serve(struct authority *a);
void witness_applied(struct authority *a);
void witness_tick(struct authority *a);
void witness_close(struct authority *a);

/* push_witness.c: whether these bytes of a body are what the majority signed. They always are, unless
 * rows that a snapshot is cut from can change without the config index that goes with them: then
 * nobody gets it, rather than that every node reports a forgery. */
bool push_is_decided(const struct authority *a, const struct snapshot_body *b,
                     const uint8_t fingerprint[PKI_HASH_BYTES], struct blob body);
/* An encoded snapshot_witness for a node; push_is_ready must hold. */
int push_put_witness(struct authority *a, const struct uuid *node_id,
                     const struct snapshot_held *held, struct buf *out, struct errmsg *em);

/* forgery.c: what nodes report */
void forgery_serve(struct authority *a);
uint64_t forgery_count(const struct authority *a);

/* clock_serve.c */
void clock_serve(struct authority *a);

/* enroll.c */
void enroll_serve(struct authority *a);
void enroll_applied(struct authority *a);
void enroll_tick(struct authority *a);
void enroll_close(struct authority *a);

/* refused.c: what was refused, to the audit. */
void refused_note(struct authority *a, const struct refusal *r);
/* An attempt to enrol. The token named by its hash counts only when there is one. */
void refused_join(struct authority *a, struct refusal *r);
/* An authority passed on what it may not. */
void refused_forward(struct authority *a, const struct fabric_peer *via, const char *method);
/* Of a peer by its certificate. */
void refused_peer(struct authority *a, enum refusal_what what, const struct fabric_peer *peer,
                  const char *service, int rc);
/* On the leader: a call that was refused before it became a command. Notes what the audit should
 * have: high-risk ones and attempts to join. */
void refused_call(struct authority *a, const struct op_input *call, int rc, const char *detail);
void refused_tick(struct authority *a);

/* health.c */
void health_serve(struct authority *a);
/* How often nodes report. */
uint32_t health_interval_ms(const struct authority *a);
void health_tick(struct authority *a);
void health_became_leader(struct authority *a);
void health_fini(struct authority *a);
/* What the leader knows now; 0 when it has not heard of the node. */
int64_t health_last_seen(const struct authority *a, const struct uuid *node_id);
uint64_t health_config_version(const struct authority *a, const struct uuid *node_id);
void health_seen(struct authority *a, const struct heartbeat *hb);

/* Keeps the authority from being closed under work of another thread. */
void authority_hold(struct authority *a);
void authority_release(struct authority *a);
/* --- authority_mirror.c --- */
void authority_mirror_open(struct authority *a);
void authority_mirror_tick(struct authority *a);
/* A check that is under way ends soon. */
void authority_mirror_stop(struct authority *a);

/* backup.c */
void backup_tick(struct authority *a, uint64_t now_ms);

/* partitions.c */
void partitions_tick(struct authority *a);

/* heal_grant.c: enum recovery_verdict for a member without a log; s: with its members. */
uint64_t heal_verdict(struct authority *a, const struct core_status *s, const struct uuid *from,
                      struct blob why);

/* members.c: makes the Raft configuration follow the committed list of authorities. */
void members_reconcile(struct authority *a);
/* As leader: of the voters, and of those that are to vote by the list, without this one. */
enum quorum_verdict members_judge(struct authority *a, raft_id leaves, struct quorum_step *ret);

#endif
