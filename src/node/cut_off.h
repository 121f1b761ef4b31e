/* What may continue while a node is cut off from the authority (SPEC AUTH-04). The owner says for how long: `rap mesh
 * set --cut-off-after T`, in the signed configuration of every node; by default for ever. After that, services of nodes
 * for one another are neither answered nor asked for, and streams of them end; they begin again with the first word
 * of an authority. Links, routes and relayed packets go on: they are the way back.
 *
 * Cut off is a node whose heartbeats no authority answers, which needs a leader with a majority, and an authority
 * that sees no majority. The time is the monotonic clock's; a start counts as a word, for who was off served nobody. */
#ifndef RAP_NODE_CUT_OFF_H
#define RAP_NODE_CUT_OFF_H

#include "base/err.h"

#include <uv.h>

struct node;

struct cut_off {
    uint64_t limit_ms;   /* 0: none */
    uint64_t contact_ms; /* when an authority was last heard, monotonic */
    bool is;
    uv_timer_t timer;
};

/* Pure: contact_ms is what is known of the last word now. True when it changed whether services are to end. */
bool cut_off_step(struct cut_off *c, uint64_t contact_ms, uint64_t now_ms);

void cut_off_open(struct node *n);
void cut_off_close(struct node *n);
/* With a configuration in force. */
void cut_off_limit(struct node *n, uint64_t limit_ms);

#define CUT_OFF_TEXT                                                                         \
    "this node is cut off from the authority, for longer than services may go on (`rap mesh show`)"

#endif
