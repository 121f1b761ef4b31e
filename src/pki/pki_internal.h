/* What the files of this module share and nobody else sees. */
#ifndef RAP_PKI_PKI_INTERNAL_H
#define RAP_PKI_PKI_INTERNAL_H

#include "pki/pki.h"

#define PKI_KEY_ID_BYTES 20
/* The longest SubjectPublicKeyInfo we know: RFC 8410 section 4. */
#define PKI_SPKI_BYTES 44

/* SubjectPublicKeyInfo and AlgorithmIdentifier of Ed25519, as DER. */
void pki_spki(const uint8_t public_key[PKI_KEY_BYTES], uint8_t out[PKI_SPKI_BYTES]);
struct blob pki_ed25519_alg(void);
/* Takes the key out of a SubjectPublicKeyInfo; false when it is not exactly an Ed25519 key. */
bool pki_spki_read(struct blob spki, uint8_t ret_public_key[PKI_KEY_BYTES]);
/* False for encodings that no honest generator makes: a point of small order (anybody can sign for
 * it) or a second spelling of a point (RFC 8032 section 5.1.3). */
bool pki_public_key_is_sound(const uint8_t public_key[PKI_KEY_BYTES]);
/* Plain Ed25519 without our domain prefix: X.509 signs the bytes themselves. */
void pki_sign_raw(const struct pki_key *k, struct blob msg, uint8_t out[PKI_SIG_BYTES]);
bool pki_verify_raw(const uint8_t public_key[PKI_KEY_BYTES], struct blob msg, struct blob sig);
struct evp_pkey_st *pki_key_evp(const struct pki_key *k);
/* RFC 7093 method 1: the first 20 bytes of the SHA-256 of the key. */
void pki_key_id(const uint8_t public_key[PKI_KEY_BYTES], uint8_t out[PKI_KEY_ID_BYTES]);

/* A certificate as it is on the wire: what pki_cert tells, and what ties it to its issuer. */
struct pki_cert_wire {
    struct pki_cert cert;
    struct uuid issuer_id;                   /* of the authority above a leaf; nil elsewhere */
    uint8_t issuer_key_id[PKI_KEY_ID_BYTES]; /* zero on a root */
    struct blob tbs;                         /* views into the input */
    struct blob signature;
};
/* TBSCertificate of c->cert, c->issuer_id, c->issuer_key_id. Writes what it is told: the rules are
 * pki_cert_issue's. */
void pki_cert_write_tbs(const struct pki_cert_wire *c, struct buf *out);
/* Certificate = tbs + signature. */
void pki_cert_write(struct blob tbs, const uint8_t signature[PKI_SIG_BYTES], struct buf *out);
int pki_cert_read(struct blob der, struct pki_cert_wire *ret, struct errmsg *em);
/* A root of this cluster that signed itself. */
int pki_root_read(const struct uuid *cluster_id, struct blob der, struct pki_cert *ret,
                  struct errmsg *em);

/* --- trust_record.c: the roots of a cluster --- */
struct trust_root_held {
    struct pki_cert cert;
    struct buf der;
    enum trust_root_status status;
};
struct trust_roots {
    uint64_t seq;   /* of the record they come from; 0: none */
    uint64_t epoch; /* that it confirms */
    size_t count;
    struct trust_root_held list[TRUST_ROOTS_MAX];
};
void trust_roots_clear(struct trust_roots *r);
/* Copies der. There must be room. */
void trust_roots_add(struct trust_roots *r, const struct pki_cert *cert, struct blob der,
                     enum trust_root_status status);
const struct trust_root_held *trust_roots_find(const struct trust_roots *r,
                                               const uint8_t fingerprint[PKI_HASH_BYTES]);
const struct trust_root_held *trust_roots_above(const struct trust_roots *r,
                                                const uint8_t key_id[PKI_KEY_ID_BYTES]);
/* The roots a signed_trust lists, as pki_trust_adopt checks it against those held. */
int trust_record_read(const struct uuid *cluster_id, const struct trust_roots *held,
                      struct blob signed_trust, struct trust_roots *ret, struct errmsg *em);
/* The same, as views into a record that was read. */
void trust_record_view(const struct trust_roots *listed, struct blob signed_trust,
                       struct pki_trust_view *ret);

#endif
