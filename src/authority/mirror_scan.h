/* The whole state beside the whole mirror, table by table in the order of the primary keys, a page at
 * a time: to name what differs, or to write what PostgreSQL lacks (mirror.c holds the transaction).
 *
 *   mirror_scan_next ─sends─> [writes of the last page] page query, pg_sync
 *   answer MIRROR_TAG_PAGE ──> mirror_scan_page (merges it with the state's rows)
 *   answer of the sync ──────> mirror_scan_next, until it says that there is no more */
#ifndef RAP_AUTHORITY_MIRROR_SCAN_H
#define RAP_AUTHORITY_MIRROR_SCAN_H

#include "authority/mirror_sums.h"

enum mirror_tag {
    MIRROR_TAG_NONE,
    MIRROR_TAG_SETUP,  /* prepare, session settings, taking over the old writer's connection */
    MIRROR_TAG_SCHEMA, /* version, then what it lacks */
    MIRROR_TAG_LACKS,
    MIRROR_TAG_CLAIM,
    MIRROR_TAG_HOLDER, /* who has it, when the claim was refused */
    MIRROR_TAG_SEAL,   /* what the rows there add up to */
    MIRROR_TAG_SUMS,
    MIRROR_TAG_READY, /* sync after these */
    MIRROR_TAG_FENCE, /* of a group */
    MIRROR_TAG_ROWS,
    MIRROR_TAG_GROUP, /* sync: the group is in */
    MIRROR_TAG_BEGIN, /* of a scan */
    MIRROR_TAG_PAGE,
    MIRROR_TAG_STEP, /* sync within a scan */
    MIRROR_TAG_END,
    MIRROR_TAG_ENDED, /* sync after END */
};

struct mirror_difference {
    const char *table; /* of the tables given */
    const char *what;  /* missing, extra, differs */
    char key[128];
    char columns[128]; /* that differ */
};
struct mirror_table_result {
    uint64_t state_rows, mirror_rows, differences;
    uint8_t state_digest[PKI_HASH_BYTES], mirror_digest[PKI_HASH_BYTES];
};
struct mirror_scan {
    const struct mirror_tables *tables;
    struct db *state;
    char cluster_id[UUID_TEXT_MAX];
    bool repair;
    struct mirror_sums *sums; /* of the state's rows, when repairing; the caller's */

    size_t table; /* number */
    struct db_stmt *local;
    bool local_row; /* it stands on one */
    struct buf row; /* that row, msgpack */
    struct buf last_key[MIRROR_COLUMNS_MAX];
    bool paged, last_page;
    struct mirror_group group;
    int err; /* a row cannot be written: em says which */
    struct errmsg em;

    uint64_t changed;                    /* rows that differed: written, when repairing */
    struct mirror_table_result *results; /* a table */
    struct mirror_difference list[MIRROR_DIFFERENCES_MAX];
    size_t list_count;
};

/* The row a statement (mirror_table.local) stands on, as fsm_track.c writes it, instead of what is in
 * out. */
void mirror_scan_row(struct db_stmt *st, const struct mirror_table *t, struct buf *out);

/* state is the scan's from now on. tables must stay. sums: what PostgreSQL lacks is written, and they
 * become those of the state's rows; NULL: only compare. */
struct mirror_scan *mirror_scan_new(struct db *state, const struct mirror_tables *tables,
                                    const char *cluster_id, struct mirror_sums *sums);
void mirror_scan_free(struct mirror_scan *s);
/* Sends the next step; false: all was read (and written), nothing was sent. */
bool mirror_scan_next(struct mirror_scan *s, struct pg_link *l);
void mirror_scan_page(struct mirror_scan *s, const struct pg_answer *a);
/* {"differences", "tables": [{"table", "state_rows", "mirror_rows", "state_digest", "mirror_digest",
 * "differences"}], "rows": [{"table", "key", "what", "columns"}]} */
void mirror_scan_doc(const struct mirror_scan *s, struct mp_writer *w, struct mp_doc *d);

#endif
