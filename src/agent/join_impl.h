/* The parts of a join that need no network. */
#ifndef RAP_AGENT_JOIN_IMPL_H
#define RAP_AGENT_JOIN_IMPL_H

#include "agent/join.h"
#include "wire/limits.h"
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

/* Which address of the token is tried when (RFC 8305, section 5): the next one starts when the last
 * gave no answer for JOIN_RACE_MS, or as soon as one fails, so at most all are under way. The first
 * that shows an authority of ours wins, the others go back to the line. An address that failed
 * waits for the next round. */
#define JOIN_RACE_MS 250

enum join_lane { LANE_IDLE, LANE_UNDER_WAY, LANE_FAILED };

struct join_race {
    size_t count, from; /* from: whose turn is next */
    enum join_lane lane[AUTHORITIES_MAX];
    int last_rc[AUTHORITIES_MAX]; /* how the last attempt ended; 0: not ended */
};

/* count: at most AUTHORITIES_MAX. */
void join_race_init(struct join_race *r, size_t count);
/* false: none is left to start. */
bool join_race_next(const struct join_race *r, size_t *ret);
void join_race_start(struct join_race *r, size_t i);
void join_race_failed(struct join_race *r, size_t i, int rc);
/* The others under way are idle again: their attempts end now, and not because they failed. */
void join_race_won(struct join_race *r, size_t i);
/* A new round: what failed is idle again. */
void join_race_again(struct join_race *r);
/* Between three and five quarters of JOIN_RACE_MS. */
uint64_t join_race_delay_ms(uint64_t random);

/* Whether an attempt that ended like this found somebody who is no authority of the token's cluster. */
bool join_is_stranger(int rc);
/* When none is left to start: 0 go on, or the error to end with. last_rc: how the last attempt at
 * each ended, 0 if it did not yet. acked: an authority acknowledged the request once, so it is worth
 * waiting. */
int join_verdict(const int *last_rc, size_t count, bool acked, uint64_t waited_ms);

#endif
