/* How long the core loop works between two waits: what comes in waits as long at most. Costs two readings
 * of the clock a turn. */
#ifndef RAP_NODE_LOOP_WATCH_H
#define RAP_NODE_LOOP_WATCH_H

#include "base/histogram.h"

#include <uv.h>

struct loop_watch {
    uv_prepare_t prepare;
    uint64_t at_ns, idle_ns;
    struct histogram turns;
    uint64_t longest_us; /* since loop_watch_longest_us was last asked */
};

/* Before anything else is on the loop, so that it looks after all others. Does not keep the loop alive. */
void loop_watch_open(struct loop_watch *w, uv_loop_t *loop);
/* The struct must stay until the loop has run once more. */
void loop_watch_close(struct loop_watch *w);
uint64_t loop_watch_longest_us(struct loop_watch *w);

#endif
