/* Checking that a majority of the authority signed something (DESIGN D16, docs/decisions/0008). Pure:
 * no clock, no state but what is handed in. The formats are in wire/witness_msg.h. */
#ifndef RAP_PKI_WITNESS_H
#define RAP_PKI_WITNESS_H

#include "pki/merkle.h"
#include "pki/pki.h"
#include "wire/witness_msg.h"

/* --- who the authority is --- */
struct witness_member {
    struct uuid node_id;
    uint8_t public_key[PKI_KEY_BYTES];
    uint8_t fingerprint[PKI_HASH_BYTES];
};
/* The newest set that was proved. All zero: none is known. */
struct witness_set {
    bool known;
    struct uuid cluster_id;
    uint64_t epoch, seq;
    uint8_t hash[PKI_HASH_BYTES]; /* of its statement */
    size_t count;
    struct witness_member members[AUTHORITIES_MAX];
};

/* What an authority_set says, without asking who signed it: for one that was checked before. Strict:
 * members rise by id, keys are sound and distinct. -ERR_MALFORMED. */
int witness_set_read(struct blob statement, struct witness_set *ret, struct errmsg *em);
/* The statement that makes these members (in any order; names in node_id and public_key) the set after
 * `held` (which may be unknown). */
void witness_set_build(const struct witness_set *held, const struct uuid *cluster_id,
                       uint64_t epoch, const struct witness_member *members, size_t count,
                       struct buf *out);
/* A signed_set with the root's signature and no other. */
void witness_set_sign_root(const struct pki_key *root_key, struct blob statement, struct buf *out);
/* What a link says: its authority_set; empty when it does not decode. A link is a signed_set, or a
 * signed_recovery (decision 0007) whose statement has an authority set in it. */
struct blob witness_link_statement(struct blob link);
bool witness_link_is_of_root(struct blob link);
/* Moves `set` along one link. The link must come next and be signed by more than half of the members of
 * `set`, or be newer and signed by the root. One that is older changes nothing (0). -ERR_BAD_SET: a
 * gap, another chain, too few signatures; -ERR_WRONG_CLUSTER; -ERR_MALFORMED. */
int witness_set_advance(struct witness_set *set, const struct uuid *cluster_id,
                        const uint8_t root_key[PKI_KEY_BYTES], struct blob link, struct errmsg *em);
const struct witness_member *witness_set_find(const struct witness_set *set,
                                              const struct uuid *node_id);
/* How many signatures it takes. */
size_t witness_majority(const struct witness_set *set);

/* --- statements --- */
/* Valid as long as the bytes it was read from. */
struct witness {
    struct witness_statement statement;
    int64_t
        signed_at_ms; /* when the oldest of the signatures that count was made: each member's own
                             clock, and of the newest majority */
};
/* Signatures that do not verify, or of no member, or a second one of a member, do not count.
 * -ERR_NOT_WITNESSED: fewer than a majority; or the statement is for another set or epoch than
 * `set`. -ERR_WRONG_CLUSTER, -ERR_MALFORMED. */
int witness_verify(const struct witness_set *set, const struct uuid *cluster_id,
                   struct blob statement, struct mp_list signatures, struct witness *ret,
                   struct errmsg *em);
void witness_sign(const struct pki_key *key, int64_t at_ms, struct blob statement,
                  uint8_t ret[PKI_SIG_BYTES]);
bool witness_signed_by(const uint8_t public_key[PKI_KEY_BYTES], int64_t at_ms,
                       struct blob statement, struct blob signature);

/* --- what the tree holds --- */
/* The two parts of a snapshot's body that are decided: what every node's says, and this node's own.
 * Neither covers times and positions, which the statement carries. */
enum witness_part { WITNESS_CLUSTER_PART, WITNESS_NODE_PART };
/* SHA-256 over the fields of that part, as they are encoded, so that a field this binary does not know
 * counts too: keys 64 to 127 are every node's, 128 and above in neither part. -ERR_MALFORMED. */
int witness_part_hash(struct blob snapshot_body, enum witness_part part,
                      uint8_t ret[PKI_HASH_BYTES]);
void witness_cluster_key(uint8_t ret[PKI_HASH_BYTES]);
void witness_node_key(const struct uuid *node_id, uint8_t ret[PKI_HASH_BYTES]);
/* The value of a node's item: SHA-256 of this leaf. */
void witness_node_value(const struct node_leaf *leaf, uint8_t ret[PKI_HASH_BYTES]);
/* -ERR_BAD_PROOF unless the item is in the tree with that root. */
int witness_item_check(struct blob root, const uint8_t key[PKI_HASH_BYTES],
                       const uint8_t value[PKI_HASH_BYTES], struct blob path);

#endif
