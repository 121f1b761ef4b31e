/* What the owner wants of ways from this node (SPEC RTE-09): the intents of the signed snapshot, and what
 * they say of one way to one destination. Pure.
 *
 *     deny     a way that matches is not taken; matching any way, the destination is out of reach
 *     require  only ways that match are taken
 *     avoid    a way that matches counts as MESH_INTENT_COST_US longer
 *     prefer   every way that does not match does
 *
 * An intent about a service is no matter of ways: streams of it are not opened, and not accepted.
 *
 * A way is the direct one, or by its first relay: what lies behind that is the relays' business. Several
 * intents on one destination all hold; costs add up. The set of usable ways only shrinks and distances are
 * told to others as they are, so nothing here can close a loop (route.h).
 *
 * Authorities and relays are reached as they can be, whatever an intent says: a node that its owner cut off
 * from the authority by mistake would never hear of the mistake's correction. */
#ifndef RAP_FABRIC_MESH_INTENTS_H
#define RAP_FABRIC_MESH_INTENTS_H

#include "base/err.h"
#include "base/id.h"
#include "fabric/overlay.h"

#define MESH_INTENT_COST_US 100000
#define MESH_INTENT_NAME_MAX 64

enum mesh_intent_kind {
    MESH_INTENT_PREFER,
    MESH_INTENT_AVOID,
    MESH_INTENT_REQUIRE,
    MESH_INTENT_DENY
};
enum mesh_intent_via { MESH_VIA_ANY, MESH_VIA_DIRECT, MESH_VIA_NODE, MESH_VIA_REGION };

struct mesh_intent {
    struct uuid id;
    char name[MESH_INTENT_NAME_MAX];
    enum mesh_intent_kind kind;
    bool any_destination;
    struct uuid *destination; /* rising */
    size_t count;
    enum mesh_intent_via via;
    struct uuid via_node;
    uint32_t via_region;      /* not 0 */
    char service[33];         /* about streams of this class of services only; "": about ways */
    bool classed;             /* traffic there is of this class: */
    enum overlay_class class; /* not control */
};

struct mesh_intents {
    struct mesh_intent *intent;
    size_t count, cap;
    struct uuid *authority; /* whom no intent is about */
    size_t authorities;
};

/* A way to dst, by its next hop. */
struct mesh_way {
    struct uuid dst, next;
    bool dst_relays;      /* dst is a relay */
    uint32_t next_region; /* of a relay; 0: not known */
};
struct mesh_verdict {
    bool refused;
    bool absolute; /* ... and every other way there just so */
    uint32_t cost_us;
    const struct mesh_intent *intent; /* the first that matters, or the absolute one; NULL: none */
};

/* Takes over the intent's destinations, and sorts them. */
void mesh_intents_add(struct mesh_intents *p, const struct mesh_intent *intent);
void mesh_intents_add_authority(struct mesh_intents *p, const struct uuid *id);
void mesh_intents_fini(struct mesh_intents *p);
/* p may be NULL: nothing is wanted. */
struct mesh_verdict mesh_intents_judge(const struct mesh_intents *p, const struct mesh_way *way);
/* The intent that keeps a service from passing between us and dst, whatever way there is: one that denies its
 * class (synthetic denies synthetic.echo). NULL: none. */
const struct mesh_intent *mesh_intents_deny_service(const struct mesh_intents *p,
                                                    const struct uuid *dst, bool dst_relays,
                                                    struct blob service);
/* The class of streams' packets to dst: that of the first intent that names one, else bulk. */
enum overlay_class mesh_intents_class(const struct mesh_intents *p, const struct uuid *dst,
                                      bool dst_relays);

#endif
