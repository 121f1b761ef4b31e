/* Randomness: the kernel's for anything that must not be guessed, a seeded generator for
 * simulation and jitter in tests. */
#ifndef RAP_BASE_RNG_H
#define RAP_BASE_RNG_H

#include "base/base.h"

/* getrandom(2); ends the process if the kernel has none. */
void rng_bytes(void *out, size_t len);
uint64_t rng_u64(void);

/* SplitMix64 (Steele, Lea, Flood 2014). Same seed, same numbers, on every machine. */
struct prng {
    uint64_t state;
};
void prng_seed(struct prng *p, uint64_t seed);
uint64_t prng_u64(struct prng *p);
/* Uniform in [0, n), n > 0. */
uint64_t prng_below(struct prng *p, uint64_t n);
void prng_bytes(struct prng *p, void *out, size_t len);

#endif
