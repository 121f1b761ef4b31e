/* What an authority decided after its history and the one of a higher epoch parted, found in its own
 * log. Pure. */
#ifndef RAP_AUTHORITY_DIVERGENCE_H
#define RAP_AUTHORITY_DIVERGENCE_H

#include "authority/raft_io.h"
#include "wire/recovery_msg.h"

struct divergence {
    uint64_t common_index; /* the last entry both histories share; 0: none that the log still has */
    uint64_t last_index, last_term, commit_index;
    uint64_t rows_total; /* commands after common_index */
    struct buf rows;     /* encoded: of bin, divergence_row; the first DIVERGENCE_ROWS_MAX */
};

/* commit_index: what is known to have been committed on this side. */
void divergence_find(const struct raft_store_loaded *log, const struct recovery_statement *s,
                     uint64_t commit_index, struct divergence *ret);
void divergence_fini(struct divergence *d);

/* Appends at most `most` encoded rows from the `first`th on; returns how many. */
uint32_t divergence_part(const struct divergence *d, uint64_t first, uint32_t most,
                         struct buf *raw);
/* Appends the part of the report that begins with r->first_row, encoded. r: whose it is, the epochs and
 * first_row are the caller's, the rest is filled in; rows is its, and holds what r points into. */
void divergence_put(const struct divergence *d, struct divergence_report *r, struct buf *rows,
                    struct buf *out);

#endif
