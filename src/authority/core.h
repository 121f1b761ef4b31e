/* The Raft member: drives libraft over a raft_io, batches commands into entries, applies what is
 * committed, and knows whether a majority can be reached. Drivers give it time, randomness, disk and
 * network; it has none of its own, so the simulator runs it unchanged (DESIGN D8).
 *
 *   propose ──> pending ──flush──> raft_apply (one entry, <= 2 in flight) ──commit──> fsm_apply
 *                  │ not leader / no quorum: refused at once, nothing is queued for later
 *                  └ leadership lost while in flight: -ERR_OUTCOME_UNKNOWN
 */
#ifndef RAP_AUTHORITY_CORE_H
#define RAP_AUTHORITY_CORE_H

#include "authority/fsm.h"
#include "authority/raft_io.h"
#include "base/histogram.h"

#include <raft.h>

struct core;

/* A member's raft id is made from its node id (the first 8 bytes of its SHA-256, top bit cleared),
 * and its raft address is the node id as text: no table of ids is needed, and no id is reused. */
raft_id core_raft_id(const struct uuid *node_id);

struct core_env {
    void *data;
    int64_t (*wall_ms)(void *data);
    uint64_t (*mono_ms)(void *data);
    /* For core_stats alone; NULL: nothing is timed. */
    uint64_t (*mono_us)(void *data);
    void (*random)(void *data, void *out, size_t len);
    /* Asks for core_flush on this turn of the loop, after the current callbacks. */
    void (*want_flush)(void *data);
    /* Something about the role changed: leader known or lost, became leader, stepped down. Called
     * on a later turn (from core_flush or core_tick). May be NULL. */
    void (*role_changed)(void *data);
    /* An entry was applied. Called from inside apply, once an entry: take note, do nothing. May be
     * NULL. */
    void (*applied)(void *data, uint64_t index);
    /* This replica must stop: it differs from the majority, or an entry does not apply. Does not
     * return in the product; the simulator takes the node down. */
    void (*fatal)(void *data, const char *why);
};

struct core_config {
    raft_id id;
    struct uuid node_id;
    struct raft_io *io;
    struct fsm *fsm;
    const struct core_env *env;
    uint32_t heartbeat_ms;       /* 50 */
    uint32_t election_ms;        /* 500 */
    uint32_t snapshot_threshold; /* entries, more of them when the state is large; 0 = 8192 */
    uint32_t snapshot_trailing;  /* 0 = 4096; at least 2048 (reference: raft.md) */
    bool short_trailing;         /* simulation only: allows less */
};

/* -ERR_INVALID: timeouts or trailing out of range. The io must have been through raft_io_init;
 * io, fsm and env must outlive the core. */
int core_new(const struct core_config *config, struct core **ret, struct errmsg *em);
/* Loads term, vote, snapshot and log through the io and starts. */
int core_start(struct core *c, struct errmsg *em);
/* cb once, on a later turn; pending proposals and reads end with -ERR_CANCELED first. Then
 * core_free. */
void core_close(struct core *c, void (*cb)(void *data), void *data);
void core_free(struct core *c);

/* The state that a packed image of the leader's leads to, made beforehand: adopted when that very image is to
 * be restored, dropped when another one comes. Both are taken over. */
void core_prepared(struct core *c, struct buf *packed, struct fsm_prepared *state);

void core_flush(struct core *c); /* on want_flush */
void core_tick(struct core *c);  /* every heartbeat_ms; ticks the io too */

/* --- proposals --- */
struct core_proposal;
typedef void (*core_proposal_cb)(struct core_proposal *p, int rc, const struct fsm_result *result);
struct core_proposal {
    void *data;
    core_proposal_cb cb;
    struct blob cmd; /* core's copy */
    uint64_t began_us;
    void *impl;
    struct core_proposal *next;
};
/* cmd: bytes of one struct cmd (copied). 0: cb runs exactly once: rc 0 with the result when the
 * command was committed and applied (the result may itself be a refusal), -ERR_OUTCOME_UNKNOWN when
 * leadership was lost in between, -ERR_NOT_LEADER when it was lost before the command went into the
 * log, -ERR_CANCELED on close. Otherwise cb never runs and nothing was proposed: -ERR_NOT_LEADER,
 * -ERR_NO_QUORUM (leader without a majority in contact), -ERR_BUSY, -ERR_TOO_LARGE, -ERR_CLOSED,
 * -ERR_FENCED.
 *
 * In contact is who was heard within half an election timeout (at least 3 heartbeats): followers
 * answer each heartbeat, and libraft itself steps down after a whole election timeout. */
int core_propose(struct core *c, struct core_proposal *p, struct blob cmd, core_proposal_cb cb);

/* --- linearizable reads --- */
struct core_read;
typedef void (*core_read_cb)(struct core_read *r, int rc, uint64_t index);
struct core_read {
    void *data;
    core_read_cb cb;
    uint64_t index;
    struct core_read *next;
};
/* On the leader: confirms leadership with a majority, then cb with the index at which a read here
 * is linearizable (already applied). Concurrent reads share one confirmation. Errors as propose. */
int core_read_index(struct core *c, struct core_read *r, core_read_cb cb);
/* On any member: cb when `index` is applied here. -ERR_TIMEOUT is the caller's business. Fails only
 * with -ERR_CLOSED. */
int core_wait_applied(struct core *c, struct core_read *r, uint64_t index, core_read_cb cb);
/* cb will not run. Harmless when it has. */
void core_read_cancel(struct core *c, struct core_read *r);

/* --- membership: one change at a time, leader only ---
 * 0: cb runs exactly once, on a later turn: 0, -ERR_OUTCOME_UNKNOWN (leadership lost), -ERR_TIMEOUT
 * (a new voter did not catch up), -ERR_CANCELED. Otherwise nothing happened: -ERR_NOT_LEADER,
 * -ERR_NO_QUORUM, -ERR_BUSY (another change, or the term has only begun), -ERR_EXISTS,
 * -ERR_NOT_FOUND, -ERR_CONFLICT (has that role), -ERR_LAST_VOTER, -ERR_TOO_LARGE (members). */
struct core_change;
typedef void (*core_change_cb)(struct core_change *ch, int rc);
struct core_change {
    void *data;
    core_change_cb cb;
    struct raft_change raft;
};
int core_add(struct core *c, struct core_change *ch, raft_id id, const char *address,
             core_change_cb cb);
int core_assign(struct core *c, struct core_change *ch, raft_id id, int raft_role,
                core_change_cb cb);
int core_remove(struct core *c, struct core_change *ch, raft_id id, core_change_cb cb);
/* Hands leadership over; cb when this node is no longer leader (0) or the attempt failed
 * (-ERR_TIMEOUT). id 0: any voter. -ERR_NOT_LEADER, -ERR_BUSY, -ERR_NOT_FOUND. */
int core_transfer(struct core *c, raft_id id, void (*cb)(void *data, int rc), void *data);

/* A higher epoch exists: no traffic, no proposals (-ERR_FENCED), no reads, until it starts anew. */
void core_fence(struct core *c);

/* --- status --- */
enum core_role { CORE_FOLLOWER, CORE_CANDIDATE, CORE_LEADER };
struct core_member {
    raft_id id;
    struct uuid node_id;
    int raft_role; /* RAFT_VOTER, RAFT_STANDBY, RAFT_SPARE */
    bool in_contact;
    uint64_t match_index; /* leader only */
};
struct core_status {
    enum core_role role;
    raft_id leader; /* 0 unknown */
    uint64_t term, commit_index, applied_index, last_index, last_term;
    /* Voters, those in contact (this one included), and how many make a majority. On a follower,
     * which hears only its leader and candidates, in contact means within two election timeouts. */
    unsigned voters, seen, needed;
    bool quorum;                /* as leader: majority in contact; as follower: leader in contact */
    uint64_t leader_contact_ms; /* since the leader was last heard; 0 as leader */
    bool configuration_committed; /* the members below; else a change is under way */
    size_t members_count;
    struct core_member members[16];
};
void core_status(const struct core *c, struct core_status *ret);
/* What happened since core_new, for people. */
enum core_outcome {
    CORE_OK,
    CORE_REFUSED,
    CORE_REPLAYED /* seen before: its first result again */
};
#define CORE_OUTCOMES 3
struct core_stats {
    uint64_t commands[CMD_KIND_MAX + 1][CORE_OUTCOMES]; /* applied here, by kind */
    uint64_t lost_proposals;                            /* -ERR_OUTCOME_UNKNOWN */
    struct histogram commit;                            /* of proposals made here: until applied */
};
const struct core_stats *core_stats(const struct core *c);
/* Of the last snapshot; 0: none. */
uint64_t core_snapshot_index(const struct core *c);
/* The same without the members: for each call, where core_status would read their ids out of text. */
void core_status_brief(const struct core *c, struct core_status *ret);

#endif
