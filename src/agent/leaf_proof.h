/* A leaf_proof (wire/witness_msg.h), checked: that a majority of the authority lists this key as this
 * node's (decisions 0008, 0018). Pure: the time is an argument. */
#ifndef RAP_AGENT_LEAF_PROOF_H
#define RAP_AGENT_LEAF_PROOF_H

#include "pki/witness.h"

struct leaf_expect {
    struct uuid cluster_id, node_id;     /* who the certificate says it is, */
    uint8_t fingerprint[PKI_HASH_BYTES]; /* and its key */
    const struct witness_set *set;       /* the newest authority set that is believed here */
    struct mp_list links;    /* the sets seen last, each checked when it came: a peer that is
                                             a little behind is believed too */
    const uint8_t *root_key; /* for links that the peer brings; NULL: none is known */
    int64_t now_ms;
};

/* 0, or
 *   -ERR_MALFORMED      it does not decode
 *   -ERR_WRONG_CLUSTER
 *   -ERR_WRONG_NODE     it is about another node
 *   -ERR_FINGERPRINT    the node has another key: the certificate is not the node's
 *   -ERR_REVOKED        the node is no active member
 *   -ERR_NOT_WITNESSED  no majority of a set that is believed, or can be, has signed it
 *   -ERR_EXPIRED        they signed it longer than SNAPSHOT_LIFE_MS ago
 *   -ERR_BAD_PROOF      they signed something else */
int leaf_proof_check(struct blob proof, const struct leaf_expect *e, struct errmsg *em);

/* Ours, out of the signed_snapshot in force. -ERR_NOT_FOUND: it carries no witness. */
int leaf_proof_make(struct blob signed_snapshot, const uint8_t fingerprint[PKI_HASH_BYTES],
                    struct mp_list links, struct buf *out);

/* The newest LEAF_PROOF_LINKS_MAX of the links in `list` and then those in the snapshot's witness, older
 * and equal ones left out; list->raw is a view into `raw`, which is written anew. true: there are new ones. */
bool leaf_proof_links(struct blob signed_snapshot, struct mp_list *list, struct buf *raw);
/* How many links there are in what was stored. */
struct mp_list leaf_proof_links_of(struct blob raw);

#endif
