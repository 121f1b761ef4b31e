/* Test traffic between two nodes (SPEC SYN-01, SYN-02), and nothing but that: an echo, and a stream that
 * is counted and thrown away. Served only when the signed configuration or
 * `rap agent run --synthetic` turns it on; bounded in size and rate.
 *
 * `rap node ping` is its client: the call node.ping {id, via, count, size, bytes} of the API. */
#ifndef RAP_NODE_SYNTHETIC_H
#define RAP_NODE_SYNTHETIC_H

#include "node/node_impl.h"

#define SYNTHETIC_ECHO "synthetic.echo"
#define SYNTHETIC_BULK "synthetic.bulk"

/* Registers the services. */
void synthetic_serve(struct node *n);
/* node.ping: answers c later, exactly once. */
void synthetic_ping(struct node *n, struct admin_call *c);

#endif
