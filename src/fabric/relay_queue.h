/* What waits in a relay for one next hop: five classes, each fair among sources, all bounded. Pure.
 *
 * Within a class: FlowQueue-CoDel (RFC 8290) - sources are hashed into buckets, buckets take turns
 * by deficit round robin, and CoDel (RFC 8289) drops early from a bucket whose packets wait too
 * long, so that a slow last hop slows its senders instead of filling the relay. When a class is
 * full, the longest bucket pays. A packet older than its class allows is of no use to anybody and
 * goes (the expiry guard of SPEC RTE-08).
 *
 * Between classes: strict priority with a floor. While a better class is served, each worse one that
 * waits earns a part of those bytes (overlay_qos.floor_permille, first a sixteenth); what it has earned
 * comes first. A class with a rate is policed where it comes in: what is above is dropped, and its senders
 * slow down. */
#ifndef RAP_FABRIC_RELAY_QUEUE_H
#define RAP_FABRIC_RELAY_QUEUE_H

#include "fabric/overlay.h"

#define RELAY_BUCKETS 16

/* What the classes of all queues of a relay are like. */
struct relay_policy {
    struct overlay_qos class[OVERLAY_CLASSES];
    uint8_t order[OVERLAY_CLASSES]; /* by priority, the best first */
};
/* NULL: as it is by default. */
void relay_policy_set(struct relay_policy *p, const struct overlay_qos qos[OVERLAY_CLASSES]);

struct relay_packet {
    struct relay_packet *next;
    uint64_t queued_ns;
    uint64_t source; /* a hash of the sender: packets of one share a bucket */
    size_t len;
    uint8_t data[]; /* an overlay packet */
};
struct relay_packet *relay_packet_new(struct blob data);

struct relay_bucket {
    struct relay_packet *first, *last;
    struct relay_bucket *next_active;
    size_t bytes;
    int64_t deficit;
    bool active, dropping;
    uint64_t above_since_ns, drop_next_ns; /* CoDel */
    uint32_t drops;                        /* CoDel: since it began to drop */
};

struct relay_class {
    struct relay_bucket bucket[RELAY_BUCKETS];
    struct relay_bucket *first, *last; /* active, in turn */
    size_t bytes;
    uint64_t owed;                /* bytes of its floor */
    uint64_t allowed, allowed_ns; /* bytes of its rate, as of then */
};

struct relay_queue {
    struct relay_class class[OVERLAY_CLASSES];
    size_t bytes;
    uint64_t salt;
    const struct relay_policy *policy;
    uint64_t dropped_full, dropped_early, dropped_expired;
};

/* salt: a stranger must not choose its bucket. policy: outlives the queue, and may change. */
void relay_queue_init(struct relay_queue *q, uint64_t salt, const struct relay_policy *policy);
void relay_queue_fini(struct relay_queue *q);
/* Takes p over; it, or older ones, may be dropped at once. */
void relay_queue_push(struct relay_queue *q, enum overlay_class class, struct relay_packet *p,
                      uint64_t now_ns);
/* The next packet among the classes in mask (bit 1 << class), the caller's to free; NULL: none. */
struct relay_packet *relay_queue_pop(struct relay_queue *q, unsigned mask, uint64_t now_ns);
/* Whether a class has bytes waiting. Some of them may be expired. */
bool relay_queue_waits(const struct relay_queue *q, unsigned mask);
/* Less than half full: its sender may go on. */
bool relay_queue_has_room(const struct relay_queue *q, enum overlay_class class);

#endif
