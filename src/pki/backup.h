/* A backup file: magic, length of signed_backup (4 bytes, big-endian), signed_backup, packed image
 * (wire/recovery_msg.h). The authority that made it signed the head, and the head has the hash of the
 * image. */
#ifndef RAP_PKI_BACKUP_H
#define RAP_PKI_BACKUP_H

#include "pki/pki.h"
#include "wire/recovery_msg.h"

#define BACKUP_SIGN_DOMAIN "rap-backup"
#define SEAL_SIGN_DOMAIN "rap-mirror-seal"
#define BACKUP_PREFIX_BYTES (BACKUP_MAGIC_BYTES + 4)

/* Appends everything before the image. chain: leaf, issuing CA, root of the signer. */
int backup_head(const struct pki_key *signer, const struct blob chain[3],
                const struct backup_header *h, struct buf *out);

struct backup_file { /* views into the bytes it was opened from */
    struct backup_header header;
    struct blob packed, root_der;
    uint8_t root_fingerprint[PKI_HASH_BYTES];
};
/* Checks shape, sizes, hash and the chain of the signer up to the root in the file, at the time the
 * file says. root_der, when not empty, must be that root: else anybody's root will do, and the caller
 * shows its fingerprint. -ERR_MALFORMED (no backup, or damaged), -ERR_CORRUPT (truncated, or the image
 * is not what was signed), -ERR_SCHEMA (a newer format), -ERR_BAD_CERT, -ERR_BAD_SIGNATURE,
 * -ERR_WRONG_CLUSTER. */
int backup_open(struct blob bytes, struct blob root_der, struct backup_file *ret,
                struct errmsg *em);

/* --- the seal of a mirror (decision 0013): the same head without an image. packed_sha256 is what the rows
 * in PostgreSQL add up to (authority/mirror_sums.h); image_bytes and packed_bytes are zero. --- */
int seal_make(const struct pki_key *signer, const struct blob chain[3],
              const struct backup_header *h, struct buf *out);
/* As backup_open; ret->packed is empty. */
int seal_open(struct blob bytes, struct blob root_der, struct backup_file *ret, struct errmsg *em);

#endif
