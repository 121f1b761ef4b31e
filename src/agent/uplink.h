/* Which authority the agent talks to, when, and when to try another: pure (DESIGN D8). Time is the
 * monotonic clock in ms and randomness comes in the event.
 *
 *            authorities known            stream opened, first heartbeat sent
 *   IDLE ────────set/TICK────────> WAIT ────────────TICK────────────> TRYING
 *     ^                             ^ ^                                  │ │
 *     │ set (none), LOCAL           │ └──CLOSED, FAILED, BAD_CONFIG──────┘ │ ACKED
 *     └──── from every state        └─────CLOSED, FAILED twice, BAD_CONFIG──UP
 *
 *   IDLE    nothing to talk to: no authority is known, or this node is one itself
 *   WAIT    no stream; retry_ms says when to open the next one
 *   TRYING  a stream and a heartbeat are out to `current`, nothing came back yet
 *   UP      `current` acknowledged a heartbeat */
#ifndef RAP_AGENT_UPLINK_H
#define RAP_AGENT_UPLINK_H

#include "base/err.h"
#include "base/id.h"
#include "wire/limits.h"

#define UPLINK_RETRY_MIN_MS 200
#define UPLINK_RETRY_MAX_MS 10000
#define UPLINK_BARRED_RETRY_MS 60000 /* our identity is refused: ask rarely */
#define UPLINK_HEARTBEAT_MIN_MS 100
#define UPLINK_HEARTBEAT_MAX_MS 300000
#define UPLINK_MISSES_DEGRADED 3 /* heartbeats */

enum uplink_state { UPLINK_IDLE, UPLINK_WAIT, UPLINK_TRYING, UPLINK_UP };

struct uplink {
    enum uplink_state state;
    struct uuid authorities[AUTHORITIES_MAX];
    size_t count;
    size_t current;        /* index of the one tried or used */
    struct uuid last_good; /* tried first; nil: none yet */
    bool local;
    bool barred;    /* our identity was refused */
    bool in_flight; /* a heartbeat is out */
    uint32_t interval_ms;
    uint32_t failures; /* since the last ACKED */
    uint32_t misses;   /* heartbeats refused in a row while UP */
    uint64_t retry_ms, heartbeat_ms, contact_ms;
};

enum uplink_event_kind {
    UPLINK_EV_TICK,
    UPLINK_EV_CLOSED,     /* the stream ended; rc says why */
    UPLINK_EV_ACKED,      /* a heartbeat was answered; interval_ms is the authority's wish */
    UPLINK_EV_FAILED,     /* a heartbeat was not; rc says why */
    UPLINK_EV_BAD_CONFIG, /* it sent a snapshot that does not verify */
    UPLINK_EV_BARRED,     /* a verified snapshot revokes us */
    UPLINK_EV_LOCAL,      /* this node is an authority from now on */
    UPLINK_EV_REMOTE,     /* it is not any more */
};

struct uplink_event {
    enum uplink_event_kind kind;
    uint64_t now_ms;
    uint64_t random;
    int rc;
    uint64_t interval_ms;
};

/* In this order. */
struct uplink_todo {
    bool close;     /* drop the stream and the heartbeat that is out */
    bool open;      /* a stream to `to` */
    bool heartbeat; /* to `to` */
    struct uuid to;
    uint64_t wake_ms; /* TICK then at the latest; 0 = nothing to wait for */
};

void uplink_init(struct uplink *u, uint32_t interval_ms, const struct uuid *last_good,
                 uint64_t now_ms);
/* The authorities other than this node, as the snapshot lists them. */
void uplink_set_authorities(struct uplink *u, const struct uuid *ids, size_t count, uint64_t now_ms,
                            uint64_t random, struct uplink_todo *todo);
void uplink_step(struct uplink *u, const struct uplink_event *ev, struct uplink_todo *todo);
/* The next heartbeat goes out at this time if it was due later: there is something to tell. */
void uplink_report_by(struct uplink *u, uint64_t at_ms);
/* No authority acknowledged anything for UPLINK_MISSES_DEGRADED heartbeats. */
bool uplink_is_cut_off(const struct uplink *u, uint64_t now_ms);

/* Exponential from min to max, times 0.5 to 1.5: a thousand nodes that lost the same authority
 * must not come back in the same moment. */
uint64_t backoff_delay_ms(uint32_t failures, uint64_t min_ms, uint64_t max_ms, uint64_t random);

#endif
