/* A cluster's keys, certificates and signed snapshots, without an authority behind them. */
#ifndef RAP_TESTS_FAKE_CLUSTER_H
#define RAP_TESTS_FAKE_CLUSTER_H

#include "agent/config.h"
#include "pki/pki.h"
#include "wire/node_msg.h"

#define FAKE_NOW_MS 1790000000000LL /* for tests with a clock of their own */

struct fake_cluster {
    struct uuid id;
    struct pki_key *root_key;
    struct buf root_der;
    uint8_t root_fingerprint[PKI_HASH_BYTES];
    struct pki_trust *trust; /* the root, no bans */
};
void fake_cluster_init(struct fake_cluster *c, int64_t now_ms);
void fake_cluster_init_as(struct fake_cluster *c, const struct uuid *id, int64_t now_ms);
void fake_cluster_fini(struct fake_cluster *c);

/* A node with its own issuing CA and a leaf under it. */
struct fake_node {
    struct uuid id;
    struct pki_key *key, *issuer_key;
    struct buf leaf_der, issuer_der;
    uint8_t fingerprint[PKI_HASH_BYTES], issuer_fingerprint[PKI_HASH_BYTES];
};
void fake_node_init(struct fake_node *n, const struct fake_cluster *c, bool authority,
                    int64_t now_ms);
void fake_node_init_as(struct fake_node *n, const struct fake_cluster *c, const struct uuid *id,
                       bool authority, int64_t now_ms);
void fake_node_fini(struct fake_node *n);
/* A leaf for somebody else, under this node's CA. */
void fake_issue(const struct fake_cluster *c, const struct fake_node *issuer,
                const struct uuid *node_id, const uint8_t public_key[PKI_KEY_BYTES],
                int64_t not_before_ms, int64_t not_after_ms, struct buf *ret_der);
/* A CA certificate by the root for this key. */
void fake_issue_ca(const struct fake_cluster *c, const struct uuid *node_id,
                   const uint8_t public_key[PKI_KEY_BYTES], int64_t now_ms, struct buf *ret_der);

struct fake_snapshot {
    const struct fake_node *signer; /* listed as an authority unless `unlisted` */
    const struct fake_node *second; /* also listed, when set */
    const char *second_address;
    bool unlisted;
    const char *address;
    struct uuid cluster_id, node_id;
    uint64_t schema, epoch, version;
    struct blob recovery; /* the owner's statement, for epochs after the first; a view */
    int64_t issued_at_ms, expires_at_ms;
    const char *scopes[4];
    const char *roles[4];
    const uint8_t *revoked[4];
    const uint8_t *retired[4]; /* CAs */
    uint64_t audit_seq;
    uint8_t audit_head[PKI_HASH_BYTES]; /* with audit_seq */
};
/* Good defaults for this node. */
void fake_snapshot_init(struct fake_snapshot *s, const struct fake_cluster *c,
                        const struct fake_node *signer, const struct uuid *node_id,
                        uint64_t version, int64_t now_ms);
/* The encoded body, and a signed message of a body and signatures. */
void fake_body(const struct fake_snapshot *s, struct buf *out);
void fake_signature(const struct fake_node *signer, const char *domain, struct blob body,
                    struct buf *raw, uint32_t *count);
void fake_signed(struct blob body, struct blob signatures, uint32_t count, struct buf *out);
/* All of it. */
void fake_sign(const struct fake_snapshot *s, struct buf *out);

/* A fresh directory; fake_rmdir removes it with everything in it. */
char *fake_tmpdir(void);
void fake_rmdir(char *path);

#endif
