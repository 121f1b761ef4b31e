/* What the rows in PostgreSQL add up to, table by table (decision 0013): a set hash and a count, moved on
 * by each group of changes and written with it. The seal signs the hash of all of them, so whoever has
 * the rows and the root can tell whether they are what an authority wrote, to the row.
 *
 * A row counts as the SHA-256 input: name of its table, a NUL, the row as fsm_track.c writes it. */
#ifndef RAP_AUTHORITY_MIRROR_SUMS_H
#define RAP_AUTHORITY_MIRROR_SUMS_H

#include "authority/mirror_rows.h"
#include "pki/set_hash.h"

struct mirror_sum {
    struct set_hash hash;
    uint64_t rows;
    uint8_t digest[PKI_HASH_BYTES]; /* of hash, when it is not touched */
    bool touched;                   /* since it was sent */
};
struct mirror_sums {
    const struct mirror_tables *tables;
    struct mirror_sum *list; /* of the same places */
};

/* Of no rows at all. tables must stay. */
void mirror_sums_init(struct mirror_sums *s, const struct mirror_tables *tables);
/* NULL-safe parts: also of one that was never initialised (all zero). */
void mirror_sums_fini(struct mirror_sums *s);
void mirror_sums_clear(struct mirror_sums *s);
void mirror_sums_add(struct mirror_sums *s, const struct mirror_table *t, struct blob row);
/* All changes of one entry; before: its old rows (fsm_keep_before). -ERR_CORRUPT: they do not fit. */
int mirror_sums_entry(struct mirror_sums *s, struct blob changes, struct blob before);
/* One number for all tables that have rows. */
void mirror_sums_hash(struct mirror_sums *s, uint8_t ret[PKI_HASH_BYTES]);
bool mirror_sums_equal(const struct mirror_sum *a, const struct mirror_sum *b);
/* As PostgreSQL has it: hex is "\x" and digits. false: damaged. A table that is not known is skipped. */
bool mirror_sums_read(struct mirror_sums *s, const char *table, int64_t rows, const char *hex);
#define MIRROR_SUMS_SELECT \
    "SELECT \"table_name\", \"rows\", \"sum\" FROM rap.mirror_sums WHERE \"cluster_id\" = $1"
/* Sends those that were touched, in one statement with tag. */
void mirror_sums_send(struct mirror_sums *s, struct pg_link *l, unsigned tag,
                      const char *cluster_id);

#endif
