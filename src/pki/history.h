/* An append-only log of hashes with one root for each length (RFC 9162 section 2.1): who holds the
 * root at one length and is shown a later one can be given a proof, of about log2(n) hashes, that
 * nothing before was changed. The entries are the hashes of the audit chain (DESIGN D12).
 *
 * Keeps the hash of every complete subtree: 64 bytes an entry. */
#ifndef RAP_PKI_HISTORY_H
#define RAP_PKI_HISTORY_H

#include "pki/pki.h"

#define HISTORY_LEVELS 48
#define HISTORY_PROOF_MAX (2 * HISTORY_LEVELS * PKI_HASH_BYTES)

struct history {
    uint64_t size;
    struct buf level[HISTORY_LEVELS]; /* level[k]: subtrees of 2^k entries, in order */
};

void history_init(struct history *h);
void history_fini(struct history *h);
void history_add(struct history *h, const uint8_t entry[PKI_HASH_BYTES]);
/* The root when the log had `size` entries (at most what it has now). Of none: SHA-256 of nothing. */
void history_root(const struct history *h, uint64_t size, uint8_t ret[PKI_HASH_BYTES]);
/* Appends the proof that the log of `from` entries is the beginning of that of `size`, 0 < from <= size
 * <= what it has. Empty when they are equal. */
void history_prove(const struct history *h, uint64_t from, uint64_t size, struct buf *out);

/* Pure. 0 when root `to` continues root `from`; -ERR_BAD_PROOF: no such proof. */
int history_check(uint64_t from_size, const uint8_t from[PKI_HASH_BYTES], uint64_t to_size,
                  const uint8_t to[PKI_HASH_BYTES], struct blob proof);

#endif
