/* PostgreSQL follows the log (DESIGN D2, D10; docs/decisions/0006). Every authority keeps what recent
 * entries changed; the leader alone writes, off the apply path: rows and position of consecutive
 * entries in one transaction that the database itself refuses to a writer who was superseded.
 *
 *   mirror_core.h  when to connect, write, compare, stop (pure)
 *   mirror_ring.h  what recent entries changed
 *   mirror_rows.h  row changes as SQL            mirror_sql.c  claim, fence, checks
 *   mirror_sums.h  what the rows add up to       mirror_seal.c what an authority signs of it
 *   mirror_scan.h  the state beside the mirror   pg_link.h     one connection
 *   mirror_write.c groups and scans              mirror_answer.c  what comes back
 *   mirror.c       puts them together on the core loop */
#ifndef RAP_AUTHORITY_MIRROR_H
#define RAP_AUTHORITY_MIRROR_H

#include "authority/fsm.h"
#include "authority/mirror_core.h"
#include "pki/backup.h"

#include <uv.h>

struct mirror;

struct mirror_env {
    uv_loop_t *loop;
    void *data;
    uint64_t (*mono_ms)(void *data);
    /* Something an owner must be able to find later: propose it as a mirror_event command. event:
     * mirror_alarm (kind: mirror_alarm_name), mirror_rewound, mirror_rebuilt. Called from mirror_tick
     * or a connection's callback. */
    void (*report)(void *data, const char *event, const char *kind, const char *detail);
    /* Signs h as this authority (its id is filled in) into out: pki/backup.h, seal_make. */
    int (*seal)(void *data, struct backup_header *h, struct buf *out);
};

/* env is copied. Feeds itself by fsm_on_entry from now on. */
struct mirror *mirror_new(struct fsm *fsm, const struct uuid *node_id,
                          const struct mirror_env *env);
/* Pending verifications end with -ERR_CANCELED; cb on a later turn, then mirror_free. */
void mirror_close(struct mirror *m, void (*cb)(void *data), void *data);
void mirror_free(struct mirror *m);

void mirror_lead(struct mirror *m, uint64_t epoch, uint64_t term);
void mirror_unlead(struct mirror *m);
/* After entries were applied, and every now and then. */
void mirror_applied(struct mirror *m);
void mirror_tick(struct mirror *m);

/* 0, or -ERR_MIRROR_UNAVAILABLE with the lag and the last error in em: a high-risk request is not to be
 * decided now. takes_away: it only takes rights away, for which there is a reserve. As leader only. */
int mirror_check_available(struct mirror *m, bool takes_away, struct errmsg *em);
/* State, positions, lag, last error, speed. */
void mirror_status_doc(struct mirror *m, struct mp_writer *w, struct mp_doc *d);

struct mirror_stats {
    bool enabled, required, alarmed, available, position_known;
    enum mirror_state state;
    uint64_t acked, lag_entries, lag_ms, rows;
};
void mirror_stats(struct mirror *m, struct mirror_stats *ret);

/* Compares state and mirror at one index. cb exactly once, maybe inside: 0 and a document (mirror_scan.h
 * with "index", "mirror_index", "preview"); -ERR_MIRROR_UNAVAILABLE, -ERR_BUSY, -ERR_CANCELED and one
 * with "detail". preview: differences raise no alarm, and a mirror under alarm is compared too, whatever
 * its index is. */
typedef void (*mirror_verify_cb)(void *data, int rc, struct blob doc);
void mirror_verify(struct mirror *m, bool preview, mirror_verify_cb cb, void *data);

/* The connection string while PostgreSQL is followed and believed; else NULL. */
const char *mirror_followed(const struct mirror *m);
/* What a reader of its own (mirror_read_check) found: 0 and the root the seal stands on, or an error with its
 * detail. What only an edit explains raises the alarm. Returns what it comes to. */
int mirror_checked(struct mirror *m, int rc, struct blob root_der, const char *detail);

/* --- owners' commands, on a connection of an administrator (pg_admin.c); these block --- */
struct mirror_migrate {
    const char *dsn;
    const char *role;       /* the authorities' database role: made when missing, gets its rights */
    const char *cluster_id; /* it is bound to this cluster's rows; NULL: stays as it is */
    bool dry_run;
};
struct mirror_migrated {
    int from, to; /* schema versions */
    bool role_made;
};
int mirror_migrate(const struct mirror_migrate *o, struct mirror_migrated *ret, struct errmsg *em);

#endif
