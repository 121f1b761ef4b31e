/* SipHash-1-3 (Aumasson, Bernstein, "SipHash: a fast short-input PRF"): for hash tables whose keys a
 * stranger chooses. Without the key nobody can make entries that collide. */
#ifndef RAP_BASE_SIPHASH_H
#define RAP_BASE_SIPHASH_H

#include "base/base.h"

struct siphash_key {
    uint64_t k[2]; /* random, one per table or process */
};

unsigned siphash(const struct siphash_key *key, const uint8_t *p, size_t len);

#endif
