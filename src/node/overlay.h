/* The overlay on a running node (SPEC RTE): drives fabric/mesh.h with the fabric's sessions, datagrams and
 * a timer, gives it the directory of the signed snapshot, and answers the fabric's question where
 * relayed packets go. Off unless the signed configuration or `rap agent run --overlay` says otherwise
 * (RTE-04): then nothing of it exists, no probe is sent and none is answered. */
#ifndef RAP_NODE_OVERLAY_H
#define RAP_NODE_OVERLAY_H

#include "agent/agent.h"
#include "wire/mp.h"

struct mesh;
struct overlay;

struct overlay_config {
    uv_loop_t *loop;
    struct fabric *fabric;
    struct member *member; /* measured facts about peers are kept in its node.db */
    void *data;
    /* A node without a relay role goes on advertising routes to others: for a while, not for the moment
     * that a change of roles takes. Once a life of its link. */
    void (*liar)(void *data, const struct fabric_peer *who);
};

struct overlay *overlay_open(const struct overlay_config *config);
/* A snapshot is in force; cfg may be NULL (none yet). */
void overlay_directory(struct overlay *o, const struct config *cfg);
/* No more of it reaches the fabric or comes from it; it is freed on a later turn. Before fabric_close.
 * NULL-safe. */
void overlay_close(struct overlay *o);

/* To look at. */
const struct mesh *overlay_mesh(const struct overlay *o);
bool overlay_is_relay(const struct overlay *o);

/* The links and routes of this node, for its heartbeat: at most LINKS_MAX, those to relays first, and
 * ROUTE_SAMPLES_MAX. A relay reports its ways to other relays only; there are many to others. */
void overlay_report(struct overlay *o, struct heartbeat *hb, struct buf *links, struct buf *routes);

/* What the way to it costs, the owner's likes included. -ERR_DENIED: an intent forbids every way;
 * -ERR_UNREACHABLE: none is known now, and it is asked for. */
int overlay_cost(struct overlay *o, const struct uuid *dst, uint64_t *ret_us);

/* Whether an intent keeps this service, or all of its class, from passing between here and there. Whether
 * there is a way at all is not asked. */
bool overlay_denies(const struct overlay *o, const struct uuid *peer, const char *service);

/* route.list and route.explain; text: a node id, or the beginning of one that this node has heard of. */
void overlay_list_doc(struct overlay *o, struct mp_writer *w);
int overlay_explain_doc(struct overlay *o, const char *text, struct mp_writer *w,
                        struct errmsg *em);

#endif
