/* Closed-loop load: K clients, each with one request under way, for a fixed time after a warm-up. */
#ifndef RAP_BENCH_LOAD_H
#define RAP_BENCH_LOAD_H

#include "base/base.h"

struct load {
    unsigned clients;
    uint64_t start_ns, measure_ns, end_ns; /* monotonic; results before measure_ns are warm-up */
    uint64_t done, failed;
    uint64_t last_ns, gap_ns; /* the longest time without an answer */
    uint64_t *latency_ns;     /* of measured requests, up to a bound */
    size_t latency_count, latency_cap;
};

void load_init(struct load *l, unsigned clients, double warm_up_s, double measure_s);
void load_fini(struct load *l);
bool load_over(const struct load *l);
/* One request ended. */
void load_note(struct load *l, uint64_t began_ns, bool ok);
/* {"system":..., "clients":K, "ops_per_s":..., "p50_ms":..., "p99_ms":..., "gap_ms":..., "failed":N} */
void load_print(struct load *l, const char *system);

#endif
