/* The owner's signed statements: with the root key, for one purpose each (wire/recovery_msg.h). */
#ifndef RAP_PKI_STATEMENT_H
#define RAP_PKI_STATEMENT_H

#include "pki/pki.h"
#include "wire/recovery_msg.h"

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

/* The key of a root certificate. */
int root_public_key(struct blob root_der, uint8_t ret[PKI_KEY_BYTES], struct errmsg *em);

#endif
