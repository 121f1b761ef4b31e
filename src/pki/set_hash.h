/* The hash of a set of byte strings that is kept up to date string by string: adding and removing
 * cost the same whatever is in the set, and the order does not matter. LtHash with 1024 lanes of 16
 * bits (Bellare and Micciancio 1997, "A New Paradigm for Collision-Free Hashing"; Lewi, Kim, Maykov and
 * Weis 2019, "Securing Update Propagation with Homomorphic Hashing", section 3): each string is
 * expanded to a vector, the hash is the sum of the vectors. Two different sets of one hash are as hard
 * to find as a short vector in a lattice; a sum of plain 256-bit hashes is not (Wagner 2002).
 *
 * A string that is in the set twice counts twice. Removing what was not added gives the hash of no set. */
#ifndef RAP_PKI_SET_HASH_H
#define RAP_PKI_SET_HASH_H

#include "pki/pki.h"

#define SET_HASH_LANES 1024
#define SET_HASH_BYTES (2 * SET_HASH_LANES)

struct set_hash {
    uint16_t lane[SET_HASH_LANES]; /* all zero: the empty set */
};

#define SET_HASH_PARTS_MAX 4
/* The string is the concatenation of parts. */
void set_hash_add(struct set_hash *h, const struct blob *parts, size_t count);
void set_hash_remove(struct set_hash *h, const struct blob *parts, size_t count);
/* Lanes in little-endian order. */
void set_hash_encode(const struct set_hash *h, uint8_t ret[SET_HASH_BYTES]);
void set_hash_decode(const uint8_t bytes[SET_HASH_BYTES], struct set_hash *ret);

#endif
