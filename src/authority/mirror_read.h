/* A cluster out of PostgreSQL alone (decision 0013): every row is read in one snapshot of the database, and
 * believed only if the rows add up to what an authority signed for that position.
 *
 * Blocks: for the owner's offline commands, and in libuv's pool. */
#ifndef RAP_AUTHORITY_MIRROR_READ_H
#define RAP_AUTHORITY_MIRROR_READ_H

#include "base/id.h"
#include "pki/backup.h"

struct mirror_read {
    const char *dsn;
    const char *cluster_id; /* NULL: the only one there */
    struct blob root_der;   /* of the owner; empty: whatever root the seal stands on */
    /* Whether to go on (-ERR_CANCELED if not): asked after each page of rows, and several times a second
     * while PostgreSQL lets wait. NULL: always. */
    bool (*go_on)(void *data);
    void *data;
    unsigned pause_ms; /* after each page */
};

/* What was read; views into it are valid until mirror_copy_free. */
struct mirror_copy {
    /* The head that the seal signed, completed: the state as the image of a backup. */
    struct backup_file backup;
    uint64_t rows;
    struct buf seal, packed;
    uint8_t packed_sha256[PKI_HASH_BYTES];
    char cluster_name[NAME_MAX_BYTES + 1];
};

/* Rows, sums, seal, signature up to the root; then the state is built from the rows and its audit chain
 * recomputed. -ERR_UNREACHABLE, -ERR_NOT_FOUND (no such cluster, or several), -ERR_SCHEMA (older or newer
 * than this program), -ERR_CORRUPT (rows differ from what was signed: em names the table), -ERR_BAD_SIGNATURE
 * and the other errors of seal_open. */
int mirror_read(const struct mirror_read *o, struct mirror_copy **ret, struct errmsg *em);
void mirror_copy_free(struct mirror_copy *c);

/* Only whether rows, sums and seal agree. Nothing is built. index: of which position; root: that the seal
 * stands on, appended, which the caller has to know. */
int mirror_read_check(const struct mirror_read *o, uint64_t *ret_index, uint64_t *ret_rows,
                      struct buf *root, struct errmsg *em);

#endif
