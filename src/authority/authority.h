/* An authority node: a member of the Raft group, the services other nodes ask of it, and the answers
 * to the owner's calls. Composed by the daemon; runs on the fabric's loop. */
#ifndef RAP_AUTHORITY_AUTHORITY_H
#define RAP_AUTHORITY_AUTHORITY_H

#include "base/histogram.h"
#include "fabric/fabric.h"
#include "wire/cmd.h"
#include "wire/node_msg.h"

struct authority;

/* DESIGN D13: the last line of one that ends by itself says where to read on. */
#define AUTHORITY_RUNBOOK "docs/OPERATIONS.md#an-authority-that-ended-by-itself"

struct authority_config {
    uv_loop_t *loop;
    struct fabric *fabric;
    const struct pki_trust *trust;
    struct uuid cluster_id, node_id;
    const char *dir;                    /* holds issuer.key, issuer.crt, raft.db */
    const struct pki_key *node_key;     /* signs snapshots; must outlive the authority */
    uint32_t heartbeat_ms, election_ms; /* Raft; 0 = 50, 500 */
    uint32_t agent_heartbeat_ms;        /* what nodes are told; 0 = 15000 */
    uint32_t mirror_check_ms; /* the leader reads the whole mirror this often; 0 = an hour */
    struct heartbeat self;    /* what this node says of itself; views must outlive the authority */
    void *data;
    /* Something a node's snapshot says has changed and is applied here; also once after start. The
     * daemon hands this node's own snapshot to its agent. And when this authority is fenced: its word
     * is old. */
    void (*config_changed)(void *data);
    /* The log is to be given up: end this authority and open it anew. */
    void (*restart)(void *data);
    /* How this node's own signed configuration proves its epoch; empty: it does not. Valid during
     * authority_open. */
    struct blob statement;
    /* Set when authority_open fails because raft.db does not verify, and for nothing else: heal.h. Then it
     * names no runbook: the others may help. */
    bool *log_damaged;
    /* The owner's record of roots, when there is one: its own signatures say whether to believe it, so
     * it need not wait for a snapshot. May be NULL. */
    void (*roots_changed)(void *data, struct blob signed_trust);
    /* The owner certified our issuing CA anew: the daemon has the agent store it (issuer.crt, and a
     * leaf under it), then calls authority_issuer_installed. 0, or it is tried again with the next
     * change. */
    int (*issuer_changed)(void *data, struct blob issuer_der, struct errmsg *em);
    /* This node's own links and routes, for its heartbeat: fills them in with what it appends to the two
     * buffers. May be NULL. */
    void (*mesh_report)(void *data, struct heartbeat *hb, struct buf *links, struct buf *routes);
};

int authority_open(const struct authority_config *config, struct authority **ret,
                   struct errmsg *em);
/* A leader hands over first, for an election timeout at most. Pending calls end with -ERR_CANCELED; cb on
 * a later turn. The fabric still names the authority as a
 * service, and gets -ERR_CLOSED from it: authority_free after the fabric is closed. */
void authority_close(struct authority *a, void (*cb)(void *data), void *data);
void authority_free(struct authority *a);

/* The leaf snapshots are signed with, and the CA above it. Call before the first snapshot and after
 * each renewal. Copied. */
void authority_set_leaf(struct authority *a, struct blob leaf, struct blob issuer);
/* As authority_set_leaf, for a leaf this authority has just renewed itself: the state is to record
 * it. */
void authority_leaf_renewed(struct authority *a, struct blob leaf, struct blob issuer);

/* issuer.key and issuer.crt were replaced, the leaf with them: reads them again, and has the state
 * record the leaf. */
int authority_issuer_installed(struct authority *a, struct blob leaf, struct blob issuer,
                               struct errmsg *em);

/* --- calls (admin/admin.h lists methods and arguments) --- */
typedef void (*authority_call_cb)(void *data, int rc, struct blob doc);
struct authority_call {
    const char *method;
    struct blob args; /* msgpack document; valid until cb */
    struct uuid request_id;
    const char *actor_kind, *actor_id; /* valid until cb */
    const struct fabric_peer
        *via; /* the authority that passed the call on; NULL: none did. Copied */
    bool stale, dry_run;
    uint32_t timeout_ms;
    authority_call_cb cb;
    void *data;
};
/* cb exactly once, never inside this call. The struct is copied. rc as admin_answer; a call that
 * needs a majority and cannot have one gets -ERR_NO_QUORUM with a document {epoch, term, seen,
 * needed, outcome: "none" | "unknown", detail}. */
void authority_call(struct authority *a, const struct authority_call *call);

/* What the one who gets a snapshot holds already: 0 when nothing. */
struct snapshot_held {
    uint64_t audit_seq;          /* of the last statement */
    uint64_t set_epoch, set_seq; /* of the authority set */
};
/* A node's signed snapshot, from applied state. -ERR_NOT_FOUND while the state does not know the node
 * (yet, or any more); -ERR_BUSY while no majority has signed what is applied. */
int authority_snapshot(struct authority *a, const struct uuid *node_id,
                       const struct snapshot_held *held, struct buf *out, struct errmsg *em);

/* Whether the applied state lists this key as this node's, with a membership that is not over. */
bool authority_lists(struct authority *a, const struct pki_identity *who);

/* The fabric turned a peer away (fabric_config.refused): to the audit, at a bounded rate. */
void authority_refused(struct authority *a, const struct fabric_refusal *refusal);

/* An encoded forgery_report of this node itself. */
void authority_forgery(struct authority *a, struct blob report);

struct authority_state {
    const char *state;     /* healthy, no_quorum, recovering (catching up), fenced */
    const char *raft_role; /* leader, follower, candidate */
    bool quorum;
    bool member;        /* the applied state lists this node as an authority */
    struct uuid leader; /* nil: unknown */
    uint64_t epoch, term, index, commit_index;
    unsigned voters, seen, needed;
    uint64_t leader_contact_ms;
    int64_t clock_ahead_ms; /* how far our clock is ahead of the leader's, by the last heartbeat */
    uint64_t forgeries;     /* reported in the last 24 hours */
    uint64_t fenced_by;     /* the higher epoch; 0: not fenced */
    uint64_t divergence_rows;
    bool epoch_rival; /* somebody else began this very epoch, with another statement */
    /* The recovery that began the epoch: NULL in the first. */
    const char *recovery_kind;
    uint64_t base_index, base_term;
    int64_t recovered_at_ms;
    unsigned alarms;             /* certificates about to run out, or run out */
    unsigned level, level_known; /* of the state's schema, and the highest of this binary */
    uint8_t digest[32];
};
void authority_state(const struct authority *a, struct authority_state *ret);

/* Rows of the state by what they are; counted again every few seconds at most, for that is a scan. */
#define AUTHORITY_JOINS(X) X(pending) X(approved) X(rejected) X(expired)
#define AUTHORITY_HEALTHS(X) X(unknown) X(healthy) X(degraded) X(unhealthy) X(stale)
struct authority_counts {
#define AUTHORITY_COUNT_(name) uint64_t name;
    struct {
        AUTHORITY_JOINS(AUTHORITY_COUNT_)
    } joins; /* requests by status */
    struct {
        AUTHORITY_HEALTHS(AUTHORITY_COUNT_)
    } nodes; /* enrolled ones by health */
#undef AUTHORITY_COUNT_
};

/* Numbers for whoever watches. Views are valid until the next turn of the loop. */
struct authority_stats {
    bool leads;
    uint64_t last_index, snapshot_index;
    size_t members_count;
    struct {
        struct uuid node_id;
        bool self, voter, in_contact;
        uint64_t match_index; /* as the leader knows it; 0 elsewhere */
    } members[AUTHORITIES_MAX + 1];
    const uint64_t (*commands)[3]; /* by kind up to CMD_KIND_MAX: ok, refused, seen before */
    const struct histogram *commit;
    uint64_t lost_proposals; /* leadership went while they were decided */
    uint64_t state_bytes,
        log_bytes; /* of the state in memory, of raft.db and its write-ahead log */
    uint64_t audit_seq;
    const uint64_t *refused; /* by enum refusal_what less 1, without REFUSAL_UNLISTED */
    uint64_t subscribers, enrolling;
    struct authority_counts counts;
    bool mirror_enabled, mirror_required, mirror_following, mirror_alarm, mirror_available;
    bool mirror_position_known; /* only who leads knows how far PostgreSQL is */
    const char *mirror_state;
    uint64_t mirror_index, mirror_lag_entries, mirror_lag_ms, mirror_rows;
};
void authority_stats(struct authority *a, struct authority_stats *ret);

#endif
