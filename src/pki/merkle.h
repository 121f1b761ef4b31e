/* A set of (key, value) hashes with one root, in which one item is proved by the path to it.
 *
 * A binary trie over the bits of the key, most significant first; a subtree of one item is that item
 * itself (as in the Jellyfish Merkle tree, Gao et al. 2021), so a path has about log2(n) steps, keys
 * being hashes. The root is a function of the items alone, never of the order in which they came: two
 * replicas that hold the same items have the same root. Hashing is that of RFC 9162 section 2.1, with
 * its separation of leaves and nodes:
 *
 *     leaf  SHA-256(0x00 || key || value)      node  SHA-256(0x01 || left || right)
 *     nothing: 32 zero bytes
 *
 * Trees are immutable and share their unchanged parts: put and drop return a new tree and leave the
 * old one as it was, so that items can still be proved against a root that is being signed while the
 * state moves on. */
#ifndef RAP_PKI_MERKLE_H
#define RAP_PKI_MERKLE_H

#include "pki/pki.h"

#define MERKLE_DEPTH_MAX 256
#define MERKLE_PATH_MAX (MERKLE_DEPTH_MAX * PKI_HASH_BYTES)

struct merkle; /* NULL is the empty tree */

struct merkle *merkle_ref(struct merkle *t);
void merkle_unref(struct merkle *t);
/* Takes over the reference to t. */
struct merkle *merkle_put(struct merkle *t, const uint8_t key[PKI_HASH_BYTES],
                          const uint8_t value[PKI_HASH_BYTES]);
/* Takes over the reference to t; a key that is not there changes nothing. */
struct merkle *merkle_drop(struct merkle *t, const uint8_t key[PKI_HASH_BYTES]);
void merkle_root(const struct merkle *t, uint8_t ret[PKI_HASH_BYTES]);
/* NULL when the key is not there. Valid as long as the tree. */
const uint8_t *merkle_get(const struct merkle *t, const uint8_t key[PKI_HASH_BYTES]);
/* Appends the siblings from the root down, 32 bytes each. -ERR_NOT_FOUND. */
int merkle_path(const struct merkle *t, const uint8_t key[PKI_HASH_BYTES], struct buf *out);

/* Pure: the root of a tree in which this item has this path. -ERR_BAD_PROOF: no path. */
int merkle_path_root(const uint8_t key[PKI_HASH_BYTES], const uint8_t value[PKI_HASH_BYTES],
                     struct blob path, uint8_t ret_root[PKI_HASH_BYTES]);

#endif
