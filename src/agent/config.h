/* A signed snapshot, checked (SPEC SNAP-01). Pure: the time is an argument. */
#ifndef RAP_AGENT_CONFIG_H
#define RAP_AGENT_CONFIG_H

#include "pki/witness.h"
#include "wire/node_msg.h"
#include "wire/token.h"

struct config {
    struct buf bytes;          /* the signed message, owned */
    struct snapshot_body body; /* views into bytes; every list in it decodes */
    struct pki_identity signer;
    /* What it showed of the authority: */
    struct witness_set set;    /* the newest that is believed now */
    struct blob set_statement; /* its statement, when it is newer than the one held before */
    bool witnessed;            /* a majority signed it: */
    struct witness witness;
};

struct config_expect {
    const struct pki_trust *trust;
    struct uuid cluster_id, node_id;
    /* What is held; 0 when nothing is. An equal (epoch, version) is accepted only when `again`, or
     * as a refresh of `held`. */
    uint64_t epoch, version;
    const struct config *held; /* may be NULL. A refresh says the same and was issued later. */
    bool again;                /* re-reading the stored one at start */
    bool allow_expired; /* at offline start: kept, but the node is degraded. The signer's chain is
                           then checked at the time of issue, for it ends in time too. */
    int64_t now_ms;
    /* The authority set believed; NULL or unknown: none yet, and a snapshot without a witness is
     * accepted still. Whoever has one asks for a majority from then on. */
    const struct witness_set *set;
    /* While none is known: the set that must be on the way to the one that signed, or an earlier one than the
     * root's word that leads there. A snapshot without a witness is refused then. NULL: nothing is asked. */
    const struct set_pin *pin;
    uint8_t fingerprint[PKI_HASH_BYTES]; /* of our own key */
    /* The audit when we last looked; 0 never. */
    uint64_t audit_seq;
    uint8_t history[PKI_HASH_BYTES];
};

/* The longest signed_snapshot we look at. */
#define CONFIG_SIGNED_MAX                                                      \
    (SNAPSHOT_MAX_BYTES + AUTHORITIES_MAX * (2 * CERT_DER_MAX + 128) + 64 + TRUST_SIGNED_MAX + \
     SNAPSHOT_WITNESS_MAX)

/* Verifies and decodes. On success *ret owns everything (config_free). Refusals, each distinct:
 *   -ERR_TOO_LARGE      longer than CONFIG_SIGNED_MAX
 *   -ERR_MALFORMED      does not decode, or says what cannot be (expires before it is issued)
 *   -ERR_SCHEMA         a schema this binary does not know
 *   -ERR_BAD_SIGNATURE  tampered with, or signed for another purpose
 *   -ERR_BAD_CERT       the signer's chain does not lead to the root
 *   -ERR_CERT_EXPIRED   the signer's chain is outside its validity
 *   -ERR_NOT_AUTHORITY  the signer is no authority, or not one that the body lists
 *   -ERR_REVOKED        the signer is banned, by what we hold or by this very body
 *   -ERR_WRONG_CLUSTER, -ERR_WRONG_NODE
 *   -ERR_ROLLBACK       not newer than what is held
 *   -ERR_EXPIRED
 *   -ERR_SCOPE          not for an ordinary "node", or with a part this node has no claim to:
 *                       "authority" is for nodes that the body lists as such, every other scope is
 *                       the name of a role that the body gives to the node
 *   -ERR_NOT_WITNESSED  a set is believed, and no majority of it signed, or too long ago
 *   -ERR_BAD_SET        an authority set that does not follow from the one believed
 *   -ERR_BAD_PROOF      it says something else than what the majority signed
 *   -ERR_HISTORY        the audit does not continue the one seen before
 * Of the signatures of the body itself one valid authority's suffices: it vouches for the times only.
 * Others in the list are then ignored. With none, the error is that of the first. */
int config_verify(struct blob signed_snapshot, const struct config_expect *expect,
                  struct config **ret, struct errmsg *em);
void config_free(struct config *c);
/* The record of roots beside a snapshot: a view, empty when there is none. The caller has trust adopt
 * it before config_verify, for the snapshot may be signed under a root that it brings in. */
struct blob config_trust(struct blob signed_snapshot);
bool config_has_role(const struct config *c, const char *role);
bool config_revokes(const struct config *c, const uint8_t fingerprint[PKI_HASH_BYTES]);
/* Whether this is the CA of a removed authority. */
bool config_retires(const struct config *c, const uint8_t issuer_fingerprint[PKI_HASH_BYTES]);

/* Our own membership is disabled: we do nothing until it is enabled again. */
bool config_is_disabled(const struct config *c);
bool config_lists_authority(const struct config *c, const struct uuid *node_id);

/* What it says of this node's overlay: the node's own row, and what follows for the switches from it and
 * the cluster's. Views into the config. */
struct config_mesh {
    struct snapshot_mesh own;
    bool overlay, synthetic;
    uint64_t cut_off_after_ms; /* 0: never */
};
void config_mesh(const struct config *c, struct config_mesh *ret);

/* Walks a list of the body: 1 an item, 0 the end. */
struct config_iter {
    struct mp_reader r;
    uint32_t left;
};
void config_iter_init(struct config_iter *it, struct mp_list list);
int config_next_authority(struct config_iter *it, struct snapshot_authority *ret);
int config_next_role(struct config_iter *it, struct snapshot_role *ret);
int config_next_peer(struct config_iter *it, struct snapshot_peer *ret);
int config_next_intent(struct config_iter *it, struct snapshot_intent *ret);
int config_next_qos(struct config_iter *it, struct snapshot_qos *ret);
int config_next_pool(struct config_iter *it, struct snapshot_pool *ret);
int config_next_resource(struct config_iter *it, struct snapshot_resource *ret);
int config_next_relay(struct config_iter *it, struct snapshot_relay *ret);
/* Of revocations or retired_issuers. */
int config_next_fingerprint(struct config_iter *it, const uint8_t **ret);

#endif
