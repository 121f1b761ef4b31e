/* How long things took, as counts in fixed classes: what a histogram of Prometheus holds. Adding is a
 * search among a few bounds, so it may stand on hot paths. Pure. */
#ifndef RAP_BASE_HISTOGRAM_H
#define RAP_BASE_HISTOGRAM_H

#include "base/base.h"

#define HISTOGRAM_BOUNDS 16
/* Upper bounds in microseconds, inclusive: 100 us to 10 s, 2.5, 2 and 2 apart. */
extern const uint32_t histogram_bounds_us[HISTOGRAM_BOUNDS];

struct histogram {
    uint64_t count[HISTOGRAM_BOUNDS + 1]; /* of each class alone; the last: above every bound */
    uint64_t sum_us;
};
void histogram_add(struct histogram *h, uint64_t us);

#endif
