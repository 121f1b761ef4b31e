/* Routes by an opaque id (SPEC RTE-03, RTE-01): a caller names a node, an egress pool of which any node will
 * do, or a resource of an organization that this node serves, and gets a number. What it stands for - which
 * node, over which relays - is this node's business and may change under it: a member of a pool that is out of
 * reach is replaced by another at the next use, and so is whoever served a resource. */
#ifndef RAP_NODE_ROUTE_ID_H
#define RAP_NODE_ROUTE_ID_H

#include "node/node_impl.h"

#define ROUTE_ID_PREFIX "route:"

/* pool:... or resource:... */
bool route_is_selector(const char *text);
/* The node that pool:NAME, resource:NAME or resource:ORG/NAME (or their ids) leads to now. *now: the one in
 * use, or nil; it stays while it is about as good as the best. service: its class, or a service of it; "": any.
 * -ERR_INVALID, -ERR_NOT_FOUND (no such pool or resource that this node may use, or nobody to serve it),
 * -ERR_AMBIGUOUS (a resource of more than one organization), -ERR_SCOPE (of an organization that this node does
 * not serve, or it serves none), -ERR_CONFLICT (it serves it itself), -ERR_DENIED (an intent forbids it). */
int route_choose(struct node *n, const char *selector, const char *service, struct uuid *now,
                 struct errmsg *em);

/* selector: node:ID, or as for route_choose, whose errors it has too; -ERR_BUSY (ROUTE_IDS_MAX are open). */
int route_id_open(struct node *n, const char *selector, struct uuid *ret_route,
                  int64_t *ret_expires_ms, struct errmsg *em);
/* The node to talk to now, for this service; the route lives on for another ROUTE_ID_LIFE_MS. -ERR_NOT_FOUND:
 * none of that id, or expired; and what route_choose says. */
int route_id_resolve(struct node *n, const struct uuid *route, const char *service,
                     struct uuid *ret_node, struct errmsg *em);
int route_id_close(struct node *n, const struct uuid *route, struct errmsg *em);

#endif
