/* An authority whose raft.db does not load, while the others are a majority (docs/decisions/0014).
 *
 *   damaged ──asks the leader──> which commits authority_damaged: this member leaves the Raft configuration
 *           ──"come", with the leader's term and commit index──> a note beside raft.db, and a restart
 *   restart ──heal_prepare──> the damaged file is put aside; an empty log begins in that term, and gives
 *             no vote before it reaches that index: it catches up like one that was just added
 *   a majority is damaged ──> ends, and names the runbook: nothing was changed
 *
 * Meanwhile this host is a node like any other. It has no authority object: nothing of Raft runs. */
#ifndef RAP_AUTHORITY_HEAL_H
#define RAP_AUTHORITY_HEAL_H

#include "fabric/fabric.h"
#include "wire/limits.h"

struct heal_member {
    struct uuid node_id;
    bool voter;
};

struct heal_config {
    uv_loop_t *loop;
    struct fabric *fabric;
    const struct pki_trust *trust;
    struct uuid cluster_id, node_id;
    const char *dir; /* holds raft.db; copied */
    /* What this node's own signed configuration says: who the authorities are, this one among them, and the
     * epoch. Copied. */
    const struct heal_member *members;
    size_t members_count;
    uint64_t epoch;
    struct blob statement;
    void *data;
    /* The log may begin anew: end everything, and open the authority again. */
    void (*restart)(void *data);
    /* Too many are damaged; does not return. */
    void (*fatal)(void *data, const char *why);
};

struct heal;

/* em: why the log does not load, kept for whoever asks. -ERR_CORRUPT, with em as it was: without this member
 * the others are no majority, so nobody can help. */
int heal_open(const struct heal_config *config, struct heal **ret, struct errmsg *em);
/* Before the fabric is closed; heal_free after. */
void heal_close(struct heal *h);
void heal_free(struct heal *h);
const char *heal_why(const struct heal *h);

/* Whether those that may still have their log are a majority of the voters. */
bool heal_majority_left(unsigned voters, unsigned damaged);

/* At start, before raft.db is opened: does what a note of an earlier start is for. Killed at any moment, it
 * is done again or was not begun. */
int heal_prepare(const char *dir, const struct pki_trust *trust, const struct uuid *cluster_id,
                 struct errmsg *em);

#endif
