/* Epochs between running authorities (DESIGN section 7, docs/decisions/0007).
 *
 *   in force ──a statement of a higher epoch, signed by the owner──> fenced: no Raft, no decisions
 *   fenced   ──its divergence report is stored on the new side; without rows, or with the owner's
 *              consent──> gives up its log, starts anew: a member that catches up from nothing
 *
 * The statement is kept beside raft.db before anything else happens, so that a restart stays fenced. */
#ifndef RAP_AUTHORITY_FENCE_H
#define RAP_AUTHORITY_FENCE_H

#include "authority/divergence.h"
#include "fabric/fabric.h"

struct authority;

struct fence {
    bool fenced;
    bool leaving;           /* a restart was asked for */
    uint64_t restart_at_ms; /* monotonic: a promotion waits for the restart; 0 none */
    struct buf believed;    /* a statement of a higher epoch, verified; empty: none */
    uint64_t epoch;         /* of it */
    bool rival;             /* a peer has another statement of our epoch */
    uint64_t commit_index;
    struct divergence divergence;
    /* The one question under way. */
    struct fabric_call call;
    bool busy;
    raft_id asked;    /* last */
    uint64_t next_ms; /* monotonic */
};

void fence_init(struct authority *a);
void fence_fini(struct authority *a);
/* Before raft.db is opened: finishes what a restart was for. statement: what this node's own signed
 * configuration says of the epoch; empty ok. */
int fence_prepare(struct authority *a, struct blob statement, struct errmsg *em);
/* After the log is loaded: a note of an earlier start takes effect. */
int fence_resume(struct authority *a, struct errmsg *em);
void fence_serve(struct authority *a);
void fence_tick(struct authority *a, uint64_t now_ms);
/* From raft_io: a message of another epoch was dropped. */
void fence_other_epoch(struct authority *a, raft_id from, uint64_t epoch);
/* The epoch of the log. */
uint64_t authority_epoch(const struct authority *a);

#endif
