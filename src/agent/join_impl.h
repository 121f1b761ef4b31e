/* The parts of a join that need no network. */
#ifndef RAP_AGENT_JOIN_IMPL_H
#define RAP_AGENT_JOIN_IMPL_H

#include "agent/join.h"
#include "wire/node_msg.h"
#include "wire/token.h"

/* A pending membership for this token: the one there is, when its token is the same, or a new one.
 * *ret_token is what member/join.token holds now. Errors: join_run's. */
int join_prepare(const struct join_options *o, struct member **ret, struct join_token *ret_token,
                 struct errmsg *em);
/* An authority has acknowledged the request: from now on it is never changed. */
int join_mark_acked(struct member *m);
bool join_is_acked(struct member *m);
/* Appends the encoded enroll_request: the stored one, or one for the present options, stored before
 * it is ever sent (without the secret), so that a resumed join is the same request. */
int join_request(const struct join_options *o, struct member *m, const struct join_token *token,
                 struct buf *out, struct errmsg *em);
/* Checks everything an approval brings against the token and our key, then stores it as one. */
int join_accept(struct member *m, const struct join_token *token, const struct enroll_status *st,
                int64_t now_ms, struct errmsg *em);

/* Whether an attempt that ended like this found somebody who is no authority of the token's cluster. */
bool join_is_stranger(int rc);
/* After every address was tried once more: 0 go on, or the error to end with. last_rc: how the last
 * attempt at each ended. acked: an authority acknowledged the request once, so it is worth waiting. */
int join_verdict(const int *last_rc, size_t count, bool acked, uint64_t waited_ms);

#endif
