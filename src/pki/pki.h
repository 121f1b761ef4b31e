/* Keys, certificates and signatures (DESIGN section 4). The only user of OpenSSL.
 *
 *     root (10 y) -> issuing CA, one per authority (pathlen 0, 1 y) -> node leaf (30 d)
 *
 * All keys are Ed25519 (RFC 8032, RFC 8410). Names are SAN URIs:
 *     root     rap://<cluster-id>/root
 *     issuer   rap://<cluster-id>/authority/<node-id>
 *     leaf     rap://<cluster-id>/node/<node-id>, and for an authority's own leaf also
 *              rap://<cluster-id>/authority/<node-id>
 * An authority name on a leaf counts only when the CA above it carries the same authority name: so
 * the owner's root key, and nothing else, makes an authority, and one authority cannot make
 * another.
 *
 * Parsing is strict: what this module did not write itself is refused (-ERR_BAD_CERT,
 * -ERR_BAD_CSR), whatever OpenSSL would put up with. */
#ifndef RAP_PKI_PKI_H
#define RAP_PKI_PKI_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "wire/limits.h"
#include "wire/trust_msg.h"

#define PKI_KEY_BYTES 32
#define PKI_SIG_BYTES 64
#define PKI_HASH_BYTES 32
#define PKI_SERIAL_BYTES 16
#define PKI_BACKDATE_MS (5LL * 60 * 1000)
/* How far before now a leaf's validity begins, for clocks that are behind: little of a short life. */
static inline int64_t pki_leaf_backdate_ms(int64_t life_ms)
{
    return life_ms / 10 < PKI_BACKDATE_MS ? life_ms / 10 : PKI_BACKDATE_MS;
}
#define PKI_ROOT_LIFE_MS (3652LL * 86400 * 1000)
#define PKI_ISSUER_LIFE_MS (365LL * 86400 * 1000)
#define PKI_LEAF_LIFE_MS (30LL * 86400 * 1000)

void pki_sha256(struct blob in, uint8_t out[PKI_HASH_BYTES]);
/* Over the concatenation of parts. */
void pki_sha256_parts(const struct blob *parts, size_t count, uint8_t out[PKI_HASH_BYTES]);
void pki_hmac_sha256(struct blob key, struct blob in, uint8_t out[PKI_HASH_BYTES]);
/* Constant time in the content (not in the length). */
bool pki_equal(struct blob a, struct blob b);
void pki_wipe(void *p, size_t len);

/* --- keys --- */
struct pki_key; /* a private key */
struct pki_key *pki_key_generate(void);
/* Wipes and frees. NULL-safe. */
void pki_key_free(struct pki_key *k);
void pki_key_public(const struct pki_key *k, uint8_t out[PKI_KEY_BYTES]);
/* SHA-256 of the SubjectPublicKeyInfo, as shown to people in hex: what an approver compares. */
void pki_fingerprint(const uint8_t public_key[PKI_KEY_BYTES], uint8_t out[PKI_HASH_BYTES]);
/* PKCS#8 PEM, mode 0600, atomic. passphrase NULL: unencrypted; else AES-256-CBC with scrypt. */
int pki_key_save(const struct pki_key *k, const char *path, const char *passphrase,
                 struct errmsg *em);
/* -ERR_NOT_FOUND, -ERR_DENIED (encrypted, passphrase missing or wrong; or the file is readable by
 * others), -ERR_MALFORMED, -ERR_UNSUPPORTED (not Ed25519). */
int pki_key_load(const char *path, const char *passphrase, struct pki_key **ret, struct errmsg *em);
/* Unencrypted PKCS#8 DER for the TLS library; the caller wipes it. */
int pki_key_der(const struct pki_key *k, struct buf *out);

/* Detached Ed25519 over "rap-sig-v1" || 0 || domain || 0 || message: a signature made for one
 * purpose never verifies for another. */
void pki_sign(const struct pki_key *k, const char *domain, struct blob msg,
              uint8_t out[PKI_SIG_BYTES]);
/* 0 or -ERR_BAD_SIGNATURE. */
int pki_verify(const uint8_t public_key[PKI_KEY_BYTES], const char *domain, struct blob msg,
               struct blob sig);

/* --- certificate requests: a proof of possession and nothing else --- */
/* PKCS#10, empty subject, no attributes. */
int pki_csr_build(const struct pki_key *k, struct buf *out_der);
/* Strict: DER without trailing bytes, at most CSR_DER_MAX, a sound Ed25519 key, good self-signature,
 * empty subject, no extensions asked for. -ERR_BAD_CSR with the reason in em. */
int pki_csr_parse(struct blob der, uint8_t ret_public_key[PKI_KEY_BYTES], struct errmsg *em);

/* --- certificates --- */
enum pki_cert_kind { PKI_ROOT, PKI_ISSUER, PKI_LEAF };

/* What a certificate says, and all it says. */
struct pki_cert {
    enum pki_cert_kind kind;
    struct uuid cluster_id;
    struct uuid node_id;              /* issuer: the authority; root: nil */
    bool authority;                   /* leaf: carries the authority name too */
    uint8_t serial[PKI_SERIAL_BYTES]; /* first bit clear, not zero */
    int64_t not_before_ms;            /* whole seconds */
    int64_t not_after_ms;
    uint8_t public_key[PKI_KEY_BYTES];
    uint8_t fingerprint[PKI_HASH_BYTES]; /* of public_key; filled by parse and issue */
};

/* A fresh random serial of the required form: positive, and 16 bytes long in DER. */
void pki_serial_new(uint8_t ret_serial[PKI_SERIAL_BYTES]);

/* Builds the certificate from spec, never from a request. Root: issuer and issuer_key are the
 * subject's own. issuer_der may be empty for a root. Basic constraints, key usage, EKU (clientAuth
 * and serverAuth on leaves), SKI, AKI are set by kind. Times are rounded down to seconds, in spec too.
 * -ERR_INVALID when spec asks for what a reader would refuse, also for an authority name under
 * another authority's CA; -ERR_BAD_CERT, -ERR_WRONG_CLUSTER for the issuer. */
int pki_cert_issue(struct pki_cert *spec, const struct pki_key *issuer_key, struct blob issuer_der,
                   struct buf *out_der, struct errmsg *em);
/* Strict reading of one certificate of ours: -ERR_BAD_CERT for anything pki_cert_issue would not
 * have written. Does not check signature or time. */
int pki_cert_parse(struct blob der, struct pki_cert *ret, struct errmsg *em);

/* Strict RFC 7468: lines of 64, nothing between, before or after the blocks. */
int pki_pem_add(struct blob der, struct buf *out_pem);
/* Every certificate of a PEM text, in order, as DER: one initialised buffer (max CERT_DER_MAX) for
 * each of max_count. -ERR_MALFORMED (also for an empty text), -ERR_TOO_LARGE. On error the buffers
 * hold whatever was read. */
int pki_pem_read(struct blob pem, struct buf *out_der, size_t max_count, size_t *ret_count,
                 struct errmsg *em);

/* --- trust --- */
/* What a node believes: the root (by certificate or, before it has it, by pin; two while the owner
 * rotates it) and what is banned.
 * A set of fingerprints of public keys, node keys and issuing-CA keys alike. For one thread. */
struct pki_trust;
struct pki_trust *pki_trust_new(const struct uuid *cluster_id);
void pki_trust_free(struct pki_trust *t);
/* The certificate must be a root of this cluster. It replaces what was trusted. */
int pki_trust_set_root(struct pki_trust *t, struct blob root_der, struct errmsg *em);
/* The public key of the active root; false when none is set. */
bool pki_trust_root_key(const struct pki_trust *t, uint8_t ret[PKI_KEY_BYTES]);
/* Which roots there are from now on, as the owner signed it (wire/trust_msg.h, a signed_trust): while
 * the root is rotated there are two. Believed when every root it lists has signed it, one that is
 * trusted now among them. Nothing changes on an error: -ERR_ROLLBACK (not newer than the record that
 * is in force), -ERR_BAD_SIGNATURE, -ERR_WRONG_CLUSTER, -ERR_BAD_CERT, -ERR_MALFORMED. */
int pki_trust_adopt(struct pki_trust *t, struct blob signed_trust, struct errmsg *em);
/* What such a record says, checked as for pki_trust_adopt; der is a view into the record. */
struct pki_trust_view {
    uint64_t seq, epoch;
    size_t count;
    struct {
        struct pki_cert cert;
        struct blob der;
        enum trust_root_status status;
    } roots[TRUST_ROOTS_MAX];
};
int pki_trust_check(const struct pki_trust *t, struct blob signed_trust, struct pki_trust_view *ret,
                    struct errmsg *em);
/* An issuing CA by itself: of this cluster, under a trusted root, valid now, not banned. Errors as
 * pki_chain_verify. */
int pki_issuer_verify(const struct pki_trust *t, struct blob issuer_der, int64_t now_ms,
                      struct pki_cert *ret, uint8_t ret_root[PKI_HASH_BYTES], struct errmsg *em);
/* Of the record in force; 0: the root was never rotated. */
uint64_t pki_trust_seq(const struct pki_trust *t);
/* An epoch up to this needs no other proof: the owner confirmed it with the record. 0: none. */
uint64_t pki_trust_epoch(const struct pki_trust *t);
/* The certificate of the trusted root above an issuing CA; a view until the trust changes, empty when
 * there is none. */
struct blob pki_trust_root_above(const struct pki_trust *t, struct blob issuer_der);
bool pki_trust_has_root(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES]);
/* Whether new certificates are made under this root: the others are on their way in or out. */
bool pki_trust_root_is_active(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES]);
/* The owner's side: a signed_trust of this trust_record, signed by each key (in the order of the
 * record's roots). */
int pki_trust_record_sign(const struct trust_record *record, const struct pki_key *const *keys,
                          size_t count, struct buf *out, struct errmsg *em);
/* Believe any root whose public key has this fingerprint (a joining host, from its token). Counts
 * only while no root is set. */
void pki_trust_set_pin(struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES]);
void pki_trust_ban(struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES]);
/* The issuing CA of a removed authority: no authority name under it counts any more. Ordinary leaves
 * it signed stay valid, so that removing an authority does not cut off the nodes it enrolled; they
 * renew elsewhere at once. */
void pki_trust_retire(struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES]);
bool pki_trust_is_retired(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES]);
/* A member that is disabled for a while: its certificate verifies, and its sessions reach only the
 * services that say so (FABRIC_SVC_SUSPENDED). A ban is stronger. */
void pki_trust_suspend(struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES]);
bool pki_trust_is_suspended(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES]);
/* Forgets bans, suspensions and retired CAs. */
void pki_trust_clear_bans(struct pki_trust *t);
bool pki_trust_is_banned(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES]);

/* Who a verified chain says the peer is. */
struct pki_identity {
    struct uuid cluster_id;
    struct uuid node_id;
    struct uuid issuer_id; /* the authority that signed the leaf */
    bool authority;
    uint8_t serial[PKI_SERIAL_BYTES];
    uint8_t public_key[PKI_KEY_BYTES];
    uint8_t fingerprint[PKI_HASH_BYTES];
    uint8_t issuer_fingerprint[PKI_HASH_BYTES];
    uint8_t root_fingerprint[PKI_HASH_BYTES];
    int64_t not_after_ms;
};

/* chain[0] leaf, chain[1] issuing CA, optionally chain[2] root (needed when only a pin is known).
 * Checks signatures, names, kinds, validity at now_ms, pathlen, bans, the authority rule above, and
 * that all three are of the trusted cluster. Distinct errors: -ERR_BAD_CERT, -ERR_CERT_EXPIRED,
 * -ERR_REVOKED, -ERR_WRONG_CLUSTER, -ERR_BAD_SIGNATURE. With -ERR_REVOKED and -ERR_CERT_EXPIRED the
 * signatures were good and *ret is filled in all the same: it says who was turned away. */
int pki_chain_verify(const struct pki_trust *t, const struct blob *chain, size_t count,
                     int64_t now_ms, struct pki_identity *ret, struct errmsg *em);

#endif
