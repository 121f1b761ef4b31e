/* The owner's signed statements: with the root key, for one purpose each (wire/recovery_msg.h,
 * wire/split_msg.h). */
#ifndef RAP_PKI_STATEMENT_H
#define RAP_PKI_STATEMENT_H

#include "pki/pki.h"
#include "wire/recovery_msg.h"
#include "wire/split_msg.h"

/* Appends a signed_recovery. */
int statement_sign(const struct pki_key *root, const struct recovery_statement *s, struct buf *out);
/* Whether the owner of this cluster signed it. ret is a view into `in`. -ERR_MALFORMED, -ERR_SCHEMA,
 * -ERR_BAD_SIGNATURE, -ERR_WRONG_CLUSTER. */
int statement_verify(struct blob in, const uint8_t root_key[PKI_KEY_BYTES],
                     const struct uuid *cluster_id, struct recovery_statement *ret,
                     struct errmsg *em);
/* What tells two recoveries of one epoch apart: SHA-256 of the signed bytes; all zero for none. */
void statement_lineage(struct blob in, uint8_t ret[PKI_HASH_BYTES]);

void consent_sign(const struct pki_key *root, const struct merge_consent *c,
                  uint8_t ret[PKI_SIG_BYTES]);
/* 0 or -ERR_BAD_SIGNATURE. */
int consent_verify(const struct merge_consent *c, struct blob signature,
                   const uint8_t root_key[PKI_KEY_BYTES]);

/* terms: an encoded split_terms. */
void split_terms_sign(const struct pki_key *root, struct blob terms, uint8_t ret[PKI_SIG_BYTES]);
/* Signed by this key, and acceptable. ret holds views into terms. -ERR_DENIED: another's signature;
 * -ERR_MALFORMED, -ERR_UNSUPPORTED. */
int split_terms_verify(struct blob terms, struct blob signature,
                       const uint8_t root_key[PKI_KEY_BYTES], struct split_terms *ret);
void split_end_sign(const struct pki_key *root, const struct split_end *e,
                    uint8_t ret[PKI_SIG_BYTES]);
/* 0 or -ERR_DENIED. */
int split_end_verify(const struct split_end *e, struct blob signature,
                     const uint8_t root_key[PKI_KEY_BYTES]);
/* Appends a signed_split_report; root is the new cluster's. -ERR_TOO_LARGE. */
int split_report_sign(const struct pki_key *root, const struct split_report *r, struct buf *out);
/* What a report says, signed by whichever root it names: the caller compares ret_pin, the fingerprint of
 * that root's key, with the one it expects. ret holds views into `in`. -ERR_MALFORMED, -ERR_SCHEMA,
 * -ERR_UNSUPPORTED, -ERR_BAD_SIGNATURE. */
int split_report_verify(struct blob in, struct split_report *ret, uint8_t ret_pin[PKI_HASH_BYTES],
                        struct errmsg *em);

/* The key of a root certificate. */
int root_public_key(struct blob root_der, uint8_t ret[PKI_KEY_BYTES], struct errmsg *em);

#endif
