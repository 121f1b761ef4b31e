/* What mirror.c and mirror_sql.c share. */
#ifndef RAP_AUTHORITY_MIRROR_IMPL_H
#define RAP_AUTHORITY_MIRROR_IMPL_H

#include "authority/mirror.h"
#include "authority/mirror_ring.h"
#include "authority/mirror_scan.h"
#include "base/text.h"

#define MIRROR_NAME_MAX 64

/* A group on its way. */
struct mirror_sent {
    uint64_t to;
    uint64_t rows;
};

struct mirror {
    struct fsm *fsm;
    struct uuid node_id;
    char node_id_text[UUID_TEXT_MAX];
    struct mirror_env env;
    struct mirror_core core;
    struct mirror_ring ring;
    uint64_t generation; /* of the state, that ring and tables are of */
    bool feeding;
    bool settings_dirty;
    bool tables_loaded; /* tables are of that state */
    bool sums_damaged;
    uint64_t applied_told; /* index that the core knows */

    char cluster_id[UUID_TEXT_MAX];
    char dsn[MIRROR_DSN_MAX + 1];
    char mode[16], alarm[32], alarm_detail[MIRROR_DETAIL_MAX + 1];
    int64_t alarm_at_ms;

    struct mirror_tables tables;
    struct mirror_group group;
    struct mirror_sums sums;                   /* of what was sent */
    struct buf seal;                           /* as the claim found it */
    char found_digest[2 * PKI_HASH_BYTES + 1]; /* of the position */
    bool group_was_full;                       /* the last one sent left entries behind */

    struct pg_link *link; /* of now; closed ones go by themselves */
    int links_closing;
    bool came_up;      /* the link of now, or the one before */
    bool failed_round; /* a statement of the round under way failed */
    bool outranked;
    size_t first_host; /* where the next one begins: one further after each that did not come up */
    uint64_t claim;
    struct mirror_found found;
    struct mirror_sent sent[MIRROR_INFLIGHT_MAX];
    size_t sent_first, sent_count;

    struct db *copy;
    struct copying *copying; /* its bytes are read in the pool; NULL: no longer wanted */
    enum { SCAN_NONE, SCAN_COMPARE, SCAN_REPAIR } scan_wanted; /* as soon as it is there */
    unsigned copy_level;
    struct fsm_position copy_at;
    uint64_t mirror_index; /* as a comparison found it */
    struct mirror_scan *scan;
    mirror_verify_cb verify_cb;
    void *verify_data;
    struct buf verified; /* the last comparison's document */
    int64_t verified_at_ms;

    char last_error[512];
    int64_t last_error_at_ms;
    int server_version;
    uint64_t rows, groups, resyncs;
    uint64_t rate_rows, rate_at_ms; /* rows a second, over a second or more */
    uint64_t rows_per_s;

    bool closing;
    void (*close_cb)(void *data);
    void *close_data;
};

/* --- mirror.c --- */
uint64_t mirror_now_ms(struct mirror *m);
/* Tells the core, with the time, and does what it says. The connection may be another one, or none,
 * afterwards. */
void mirror_happened(struct mirror *m, struct mirror_input e);
void mirror_note_error(struct mirror *m, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* --- mirror_write.c --- */
/* As many groups of entries as there are and may go. */
void mirror_write_groups(struct mirror *m);
void mirror_write_done(struct mirror *m); /* the oldest one is committed */
void mirror_take_copy(struct mirror *m);
void mirror_drop_copy(struct mirror *m);
void mirror_start_scan(struct mirror *m, bool repair);
void mirror_scan_step(struct mirror *m);
void mirror_scan_done(struct mirror *m);

/* --- mirror_seal.c --- */
/* Sums and seal of the rows that were sent, for the position they lead to. Errors of env.seal. */
int mirror_seal_send(struct mirror *m, const struct fsm_position *to, unsigned level,
                     struct errmsg *em);
/* What the claim's round read, when it is complete: m->found.sealed or .forged (why in m->alarm_detail).
 * m->sums are those of PostgreSQL then. */
void mirror_seal_check(struct mirror *m);

/* --- mirror_answer.c --- */
void mirror_open_link(struct mirror *m);
void mirror_close_link(struct mirror *m);
void mirror_link_closed(void *data);

/* --- mirror_sql.c --- */
/* First round: session, version, columns. Ends with a sync MIRROR_TAG_SCHEMA. */
void mirror_sql_schema(struct mirror *m);
/* Second round: take the mirror over; or only look. Ends with a sync MIRROR_TAG_READY. */
void mirror_sql_claim(struct mirror *m);
void mirror_sql_look(struct mirror *m);
/* The position of an entry, if it was at prev and nobody else claimed it. */
void mirror_sql_fence(struct mirror *m, const struct fsm_position *to, unsigned level,
                      uint64_t prev, uint64_t rebuilds);
/* Why a schema is not fit, in words; false: it is. */
bool mirror_sql_unfit_version(const struct pg_answer *a, char *out, size_t size);
/* What to do about an error of the server. */
const char *mirror_sql_advice(const char *sqlstate);

#endif
