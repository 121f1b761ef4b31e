/* The link to one neighbour: is it alive, how good is it (DESIGN section 8).
 *
 * Pure: time and random words come in the event, probes to send go out in the todo. The owner (mesh.c)
 * calls it for every session event, probe and tick; next_us says when the next tick is due.
 *
 * An *active* end sends a probe every 250 ms; the other end answers each, and sends one of its own
 * with it, so that both know. A probe whose answer is overdue is followed by the next after 100 ms instead
 * of 250, so a lost packet and a dead link are soon told apart. Three probes without answer make the link
 * *suspect*, and two when nothing was lost before and the other end still probes us after it should have
 * answered: then what we send is lost, and nothing else explains it (the check of both directions, as in
 * RFC 5880 and in Babel's IHU, RFC 8966 section 3.4.2). An end that has merely not run for a while sends no
 * probes either, and what we did not run ourselves is at most one probe: the next goes out when we do.
 * With the last answered one sent more than a second ago (plus the round trip, at most half a second) the
 * link is down. That bound is exact and hard: the routes' safety after a restart rests on it (route.h).
 *
 * Estimators: round trip and its mean deviation as RFC 6298 section 2 (alpha 1/8, beta 1/4), begun anew
 * when the link comes up, with the smallest of the first few: an end that was frozen answers what lay in
 * its socket, and seconds of that would take as long again to be forgotten; loss as
 * the share of unanswered among the last 64 probes; loss on the way out from the count of arrivals
 * that the other end reports.
 *
 * A link that failed comes back at once when it answers, but costs a second more until it has held
 * for a while, doubling with each failure of the recent minutes: so a flapping link is used only where
 * there is no other way, instead of moving everybody's routes with it. One that was only suspect stays as
 * dear as it was for a second. */
#ifndef RAP_FABRIC_MESH_LINK_H
#define RAP_FABRIC_MESH_LINK_H

#include "wire/mesh_msg.h"

#define MESH_PROBE_US 250000ULL
#define MESH_REPROBE_US 100000ULL /* instead, while an answer is overdue */
#define MESH_DEAD_US 1000000ULL
#define MESH_DEAD_RTT_MAX_US 500000ULL /* how much the round trip may add to it */
#define MESH_MISSED_SUSPECT 3
#define MESH_MISSED_ONE_WAY 2
#define MESH_RTT_YOUNG 4 /* samples of a new life of the link, of which the smallest counts */
#define MESH_WARY_US 1000000ULL  /* after a suspicion that was wrong */
#define MESH_HOLD_MIN_US 2000000ULL
#define MESH_HOLD_MAX_US 64000000ULL
#define MESH_FLAP_FORGET_US 60000000ULL /* one failure is forgotten each minute */
#define MESH_COST_HELD_US 1000000u      /* added to the cost while held after a failure */

/*   DOWN --session up--> TRYING --answer--> UP --3 missed--> SUSPECT --answer--> UP
 *     ^                    ^ ^               |                 |
 *     |                    | '---restarted---+-----------------+
 *     |                    '-----silent------+-----------------'
 *     '--session down-- (any)
 * DOWN: no session, no token.  TRYING: probes go out, nobody counts on it.  UP, SUSPECT: peer_token is
 * known and the other end knows ours. */
enum mesh_link_state { MESH_LINK_DOWN, MESH_LINK_TRYING, MESH_LINK_UP, MESH_LINK_SUSPECT };

enum mesh_link_event_kind {
    MESH_LINK_SESSION_UP,   /* random */
    MESH_LINK_SESSION_DOWN, /* the last session ended */
    MESH_LINK_PROBE,        /* probe: one or an answer arrived */
    MESH_LINK_ACTIVE,       /* active: whether we want to know all the time */
    MESH_LINK_TICK,
};

struct mesh_link_event {
    enum mesh_link_event_kind kind;
    uint64_t now_us; /* monotonic; never falls */
    uint64_t random;
    const struct mesh_probe *probe;
    bool active;
    uint8_t own_load; /* told in probes */
    bool own_full;
};

enum mesh_link_change {
    MESH_LINK_SAME,
    MESH_LINK_CAME_UP,
    MESH_LINK_WENT_DOWN, /* everything that was learned over it is void */
};

struct mesh_link_todo {
    struct mesh_probe send[2];
    unsigned send_count;
    enum mesh_link_change change;
    bool suspected;  /* became suspect in this step */
    bool cost_moved; /* by more than an eighth since it last did */
};

struct mesh_link_sent {
    uint64_t at_us;
    uint32_t seq;
    bool open; /* neither answered nor missed yet */
};

struct mesh_link {
    enum mesh_link_state state;
    bool active;
    uint64_t token, peer_token;
    uint32_t next_seq;
    uint64_t next_probe_us, last_probe_us;
    struct mesh_link_sent sent[16];
    uint64_t heard_us;  /* when the answered probe that was sent last had been sent */
    uint64_t probed_us; /* the other end's last probe */
    uint64_t look_us;   /* when the last probe should have its answer */
    uint32_t srtt_us, jitter_us;
    unsigned rtt_samples; /* in this life; stops at MESH_RTT_YOUNG */
    uint64_t outcomes;    /* bit set: missed; the newest is bit 0 */
    unsigned outcomes_count;
    uint32_t received; /* probes of the other end */
    struct {
        uint32_t seq, received;
    } anchor[2]; /* for the loss on the way out; [0] the older */
    uint32_t out_loss_permille;
    unsigned flaps;
    uint64_t flap_us; /* when the last was counted or forgotten */
    uint64_t held_until_us, wary_until_us;
    bool one_way; /* went down although the other end was heard */
    uint8_t peer_load;
    bool peer_full;
    uint32_t cost_told;
    uint64_t random_state;
};

void mesh_link_init(struct mesh_link *l);
void mesh_link_step(struct mesh_link *l, const struct mesh_link_event *ev,
                    struct mesh_link_todo *todo);
/* When to tick next; UINT64_MAX: not before something happens. */
uint64_t mesh_link_next_us(const struct mesh_link *l);

/* Whether packets may go this way now. Exact between ticks too. */
bool mesh_link_usable(const struct mesh_link *l, uint64_t now_us);
uint32_t mesh_link_loss_permille(const struct mesh_link *l);
/* What a packet pays to go over it, in microseconds; at least 1 (the weights are in mesh_link.c). */
uint32_t mesh_link_cost_us(const struct mesh_link *l, uint64_t now_us);
const char *mesh_link_state_text(enum mesh_link_state s);

#endif
