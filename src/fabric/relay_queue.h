/* What waits in a relay for one next hop: five classes, each fair among sources, all bounded. Pure.
 *
 * Within a class: FlowQueue-CoDel (RFC 8290) - sources are hashed into buckets, buckets take turns
 * by deficit round robin, and CoDel (RFC 8289) drops early from a bucket whose packets wait too
 * long, so that a slow last hop slows its senders instead of filling the relay. When a class is
 * full, the longest bucket pays. A packet older than its class allows is of no use to anybody and
 * goes (the expiry guard of SPEC RTE-08).
 *
 * Between classes: strict priority with a floor. While a higher class is served, each lower one
 * that waits earns a sixteenth of those bytes; what it has earned comes first. */
#ifndef RAP_FABRIC_RELAY_QUEUE_H
#define RAP_FABRIC_RELAY_QUEUE_H

#include "fabric/overlay.h"

#define RELAY_BUCKETS 16

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
    uint64_t owed; /* bytes of its floor */
};

struct relay_queue {
    struct relay_class class[OVERLAY_CLASSES];
    size_t bytes;
    uint64_t salt;
    uint64_t dropped_full, dropped_early, dropped_expired;
};

/* salt: a stranger must not choose its bucket. */
void relay_queue_init(struct relay_queue *q, uint64_t salt);
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
