/* What a node remembers of the packets that came to it: duplicates (SPEC RTE-08), and how much
 * control traffic each source sends. Pure; one table for all neighbours, bounded, the flow that was
 * quiet longest makes room.
 *
 * A flow is (neighbour, source, class): what one neighbour claims about a source says nothing about
 * what another brings from it. Its window is that of RFC 4303 section 3.4.3: older than the window,
 * or seen already, is a duplicate. */
#ifndef RAP_FABRIC_RELAY_GUARD_H
#define RAP_FABRIC_RELAY_GUARD_H

#include "fabric/overlay.h"

#include <uthash.h>

#define RELAY_FLOWS_MAX 4096
#define RELAY_WINDOW 2048 /* packets; a multiple of 64 */

struct relay_flow_key {
    struct uuid neighbour, from;
    uint32_t class;
};

struct relay_flow {
    UT_hash_handle hh; /* in the order of use: the first was quiet longest */
    struct relay_flow_key key;
    uint64_t top; /* highest sequence seen */
    uint64_t seen[RELAY_WINDOW / 64];
    uint64_t tokens, filled_ns; /* bytes of control traffic it may still send */
};

struct relay_guard {
    struct relay_flow *flows;
};

void relay_guard_fini(struct relay_guard *g);
/* The flow p belongs to, or NULL: p is a duplicate. Valid until the next call. */
struct relay_flow *relay_guard_pass(struct relay_guard *g, const struct uuid *neighbour,
                                    const struct overlay_packet *p, uint64_t now_ns);
/* Control packets have the neighbours' control connections to themselves, which must never carry
 * bulk: false when this one is more than a control conversation needs, or more than a neighbour may
 * bring of all sources together, for it can name as many as it likes. `flow` is what
 * relay_guard_pass gave; it is not valid any more afterwards. */
bool relay_guard_is_control(struct relay_guard *g, struct relay_flow *flow, size_t len,
                            uint64_t now_ns);
void relay_guard_forget(struct relay_guard *g, const struct uuid *neighbour);

#endif
