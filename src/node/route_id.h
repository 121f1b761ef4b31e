/* Routes by an opaque id (SPEC RTE-03, RTE-01): a caller names a node, or an egress pool of which any node
 * will do, and gets a number. What it stands for - which node, over which relays - is this node's business
 * and may change under it: a member of a pool that is out of reach is replaced by another at the next use. */
#ifndef RAP_NODE_ROUTE_ID_H
#define RAP_NODE_ROUTE_ID_H

#include "node/node_impl.h"

#define ROUTE_ID_PREFIX "route:"

/* selector: node:ID or pool:NAME (or its id). -ERR_INVALID, -ERR_NOT_FOUND (no such pool that this node may
 * use, or an empty one), -ERR_DENIED (an intent forbids it), -ERR_BUSY (ROUTE_IDS_MAX are open). */
int route_id_open(struct node *n, const char *selector, struct uuid *ret_route,
                  int64_t *ret_expires_ms, struct errmsg *em);
/* The node to talk to now; the route lives on for another ROUTE_ID_LIFE_MS. -ERR_NOT_FOUND: none of that
 * id, or expired; -ERR_DENIED. */
int route_id_resolve(struct node *n, const struct uuid *route, struct uuid *ret_node,
                     struct errmsg *em);
int route_id_close(struct node *n, const struct uuid *route, struct errmsg *em);

#endif
