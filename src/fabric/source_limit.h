/* How much one source address may try to enrol (pure: time comes from the caller). A token bucket
 * (ITU-T I.371's leaky bucket as a meter) for each source, an IPv4 address or an IPv6 /64, since
 * whoever has one address of a /64 has all of them.
 *
 *     balance:  +per_second up to per_second * BURST_SECONDS
 *               -1 for an attempt, -FAILURE_COST for one that failed
 *     allowed:  balance of at least one attempt, and fewer than sessions_max at once; and of anything
 *               fewer than half_open_max handshakes that are not finished
 *
 * Mass enrolment behind one NAT succeeds and so costs little; guessing fails and costs much. A debt
 * is at most one burst, so a source is itself again after BURST_SECONDS.
 *
 * The table is bounded: the source that did nothing for longest is forgotten first, and with it its
 * balance. Those with live sessions stay; there are at most as many as sessions. Only addresses that
 * were *proven* (by a Retry, or by a handshake that came back) may be charged, or anybody could spend
 * another's balance. */
#ifndef RAP_FABRIC_SOURCE_LIMIT_H
#define RAP_FABRIC_SOURCE_LIMIT_H

#include "base/addr.h"
#include "base/siphash.h"

#define SOURCE_BURST_SECONDS 64
#define SOURCE_FAILURE_COST 64
#define SOURCE_KNOWN_MS 3600000 /* how long an address is one of members after it showed one */

struct source_limit_config {
    uint32_t per_second;    /* attempts that refill, from each source */
    uint32_t sessions_max;  /* at once, from each source */
    uint32_t half_open_max; /* handshakes from each source that proved its address */
    uint32_t sources_max;   /* remembered without a live session */
    struct siphash_key key;
};

struct source_limit;
struct source_limit *source_limit_new(const struct source_limit_config *c);
/* NULL-safe. */
void source_limit_free(struct source_limit *t);

/* 0: it may try. Else in how many milliseconds it may, at the earliest. */
uint32_t source_limit_wait_ms(const struct source_limit *t, const struct addr *from,
                              uint64_t now_ms);
void source_limit_charge(struct source_limit *t, const struct addr *from, uint32_t attempts,
                         uint64_t now_ms);
/* A session began, and ended: each pair with the same address. */
void source_limit_enter(struct source_limit *t, const struct addr *from, uint64_t now_ms);
void source_limit_leave(struct source_limit *t, const struct addr *from, uint64_t now_ms);
/* The same for a handshake. false: too many are not finished, this one does not begin. */
bool source_limit_open(struct source_limit *t, const struct addr *from, uint64_t now_ms);
void source_limit_opened(struct source_limit *t, const struct addr *from, uint64_t now_ms);
/* Failures have used up more than it had. */
bool source_limit_in_debt(const struct source_limit *t, const struct addr *from, uint64_t now_ms);
/* A member of the cluster showed its certificate from there. */
void source_limit_member(struct source_limit *t, const struct addr *from, uint64_t now_ms);
/* Whether one did in the last SOURCE_KNOWN_MS. */
bool source_limit_has_members(const struct source_limit *t, const struct addr *from,
                              uint64_t now_ms);
/* Sources in the table. */
size_t source_limit_count(const struct source_limit *t);

#endif
