/* Whether the group survives a step that takes the vote of a member. Pure: the leader asks it before the step is
 * committed (authority_ops.c) and again before Raft's configuration follows (members.c), the simulator's owner
 * too.
 *
 * A member that is away counts as lost, for nobody knows yet what is left of it. One that is to vote and does not -
 * joining, healing from a damaged log, promoted and not caught up - is counted twice: as no member, which is what
 * it is to Raft today, and as a voter that is away, which is what the owner has when it does not come. */
#ifndef RAP_AUTHORITY_QUORUM_H
#define RAP_AUTHORITY_QUORUM_H

#include "base/base.h"

#include <raft.h>

struct quorum_member {
    raft_id id;
    bool votes; /* by the Raft configuration; else it is to */
    bool live;  /* votes, and is in contact */
};

enum quorum_verdict {
    QUORUM_SAFE,
    QUORUM_LESS, /* survives fewer losses than before: for --force */
    QUORUM_LOST, /* those that are left and live are no majority of those that are left: never */
};

struct quorum_counts {
    unsigned voters, live;
    int slack; /* so many more may be lost; below 0: the majority is */
};

struct quorum_step {
    struct quorum_counts now, after; /* by the Raft configuration */
    /* With those that are to vote, so many, and away. */
    struct quorum_counts expected_now, expected_after;
    unsigned coming;
};

enum quorum_verdict quorum_judge(const struct quorum_member *m, size_t n, raft_id leaves,
                                 struct quorum_step *ret);

#endif
