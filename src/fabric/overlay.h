/* The overlay packet: one packet of an end-to-end session, on its way through relays (DESIGN section
 * 8). It is the payload of a DATAGRAM frame between two neighbours; what it carries is a QUIC packet
 * that only the two ends can read or make.
 *
 *     0        type       OVERLAY_SESSION; other values belong to probes and routes
 *     1        version (high four bits) and class (low four)
 *     2        hop limit  lowered by each relay; a packet that arrives with 1 is for its receiver only
 *     3        path       which of its virtual addresses the source speaks from (path.c)
 *     4        sequence   64 bits, rising for each (source, class), across restarts too
 *     12       destination node id
 *     28       source node id
 *     44       the QUIC packet
 *
 * Everything here is authenticated by the neighbour that sent it, and by nobody else: a relay can
 * change it, and then the packet reaches a node that cannot decrypt it. Pure. */
#ifndef RAP_FABRIC_OVERLAY_H
#define RAP_FABRIC_OVERLAY_H

#include "base/err.h"
#include "base/id.h"

#define OVERLAY_SESSION 0x01
#define OVERLAY_VERSION 1
#define OVERLAY_HEADER_BYTES 44
#define OVERLAY_HOPS 8 /* what a source starts with */
/* The largest packet of a relayed session: it fits behind the header into a DATAGRAM frame of a
 * connection whose packets have 1452 bytes, what an Ethernet path carries. Larger ones are not tried,
 * even where the first hop could carry them: the next relay may not. */
#define OVERLAY_PAYLOAD_MAX 1376

/* In the order of their priority (SPEC QOS-01). */
enum overlay_class {
    OVERLAY_CONTROL,
    OVERLAY_INTERACTIVE,
    OVERLAY_RELIABLE,
    OVERLAY_BULK,
    OVERLAY_DROPPABLE,
};
#define OVERLAY_CLASSES 5

/* How a relay treats what waits for one next hop (relay_queue.h). */
struct overlay_qos {
    uint8_t priority; /* smaller first; equal: in the order of the classes */
    uint16_t
        floor_permille;   /* of what better classes get: so much comes before them nevertheless */
    uint32_t rate_kbps;   /* what is above is dropped; 0: as much as there is */
    uint32_t limit_bytes; /* waiting at once */
    uint32_t life_ms;     /* what waited longer is of no use to anybody */
    bool early;           /* dropped early, by CoDel, when it stands too long */
};
/* What holds where the owner says nothing. */
void overlay_qos_default(struct overlay_qos ret[OVERLAY_CLASSES]);

struct overlay_packet {
    enum overlay_class class;
    uint8_t hops; /* at least 1 */
    uint8_t path;
    uint64_t sequence;
    struct uuid to, from;
    struct blob payload; /* a view; never empty */
};

/* Writes the header; the payload follows it in the same buffer, the caller's business. */
void overlay_put_header(const struct overlay_packet *p, uint8_t out[OVERLAY_HEADER_BYTES]);
/* -ERR_MALFORMED, or -ERR_UNSUPPORTED: a version this node does not speak. */
int overlay_decode(struct blob in, struct overlay_packet *ret);

const char *overlay_class_name(enum overlay_class class);

#endif
