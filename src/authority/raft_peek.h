/* What libraft 0.22.1 keeps in its public structs but exports no function for. Its version is
 * pinned by a static check, because these fields are not a contract. */
#ifndef RAP_AUTHORITY_RAFT_PEEK_H
#define RAP_AUTHORITY_RAFT_PEEK_H

#include "base/base.h"

#include <raft.h>

/* Term of the entry at index, or of the snapshot there; 0 when this member does not hold it. */
uint64_t raft_peek_term(const struct raft *r, uint64_t index);
/* Entries up to here are gone from the log (they are in the snapshot); 0 when none are. */
uint64_t raft_peek_offset(const struct raft *r);

/* A follower that has a leader forgets it. */
void raft_peek_forget_leader(struct raft *r);

/* Requests that libraft has finished wait in a queue that only its own uv backend fires. Calls each
 * one's callback, those that the callbacks finish included. */
void raft_peek_fire(struct raft *r);

#endif
