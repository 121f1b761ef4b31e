/* The image in a snapshot: the bytes of the replicated state as one zstd frame that tells their number. It is
 * packed once, where the state is, and then stored, sent and received as it is. */
#ifndef RAP_AUTHORITY_RAFT_IMAGE_H
#define RAP_AUTHORITY_RAFT_IMAGE_H

#include "base/buf.h"
#include "base/db_pages.h"
#include "wire/limits.h"

/* Of one that does not compress at all. */
#define IMAGE_PACKED_MAX (IMAGE_MAX_BYTES + (IMAGE_MAX_BYTES >> 7))

/* Appends the packed image. Runs on any thread; reads each page of `frozen` once. -ERR_TOO_LARGE. */
int raft_image_pack(struct db_image *frozen, struct buf *out);
int raft_image_pack_bytes(struct blob raw, struct buf *out);
/* How many bytes it says it unpacks to: 1 to IMAGE_MAX_BYTES. -ERR_MALFORMED, -ERR_TOO_LARGE. */
int raft_image_size(struct blob packed, size_t *ret);
/* Whether it unpacks to that many. -ERR_MALFORMED, -ERR_TOO_LARGE. */
int raft_image_check(struct blob packed);
/* Into an empty buffer with a maximum. Errors as above. */
int raft_image_unpack(struct blob packed, struct buf *ret);

#endif
