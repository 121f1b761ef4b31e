/* Recovery by the owner (DESIGN section 7, docs/decisions/0007): what a log holds, the statement that
 * would go on from it, and going on. For an authority whose raft.db nobody has open.
 *
 * Whatever was in the log counts, committed or not: what was acknowledged with this member's help is
 * there, and what was not may have been by the ones that are lost. */
#ifndef RAP_AUTHORITY_RECOVER_H
#define RAP_AUTHORITY_RECOVER_H

#include "authority/raft_io.h"
#include "pki/backup.h"
#include "wire/cmd.h"
#include "wire/recovery_msg.h"

struct raft_log_restart; /* raft_log.h */
struct recovery_plan;

/* Reads <dir>/raft.db and computes the state at its end. -ERR_NOT_FOUND, -ERR_CORRUPT, -ERR_SCHEMA,
 * -ERR_CONFLICT: the log is empty. */
int recovery_plan_open(const char *dir, const struct uuid *node_id, struct recovery_plan **ret,
                       struct errmsg *em);
/* The same of what was loaded already; takes it over. */
int recovery_plan_of(struct raft_store_loaded *loaded, const struct uuid *node_id,
                     struct recovery_plan **ret, struct errmsg *em);
/* Of the image of a backup, for a host whose log is empty. -ERR_CORRUPT: it is no state, or not the one
 * the head speaks of. */
int recovery_plan_of_backup(const struct backup_file *f, const struct uuid *node_id,
                            struct recovery_plan **ret, struct errmsg *em);
/* The id of an authority by name or id, as the state at the end of the log has it. -ERR_NOT_FOUND. */
int recovery_plan_find(const struct recovery_plan *p, const char *text, struct uuid *ret,
                       char ret_name[NAME_MAX_BYTES + 1]);
void recovery_plan_set_node(struct recovery_plan *p, const struct uuid *node_id);
void recovery_plan_free(struct recovery_plan *p);

/* What it would be, as a document: cluster_id, cluster_name, node_id, node_name, kind, epoch,
 * new_epoch, base_index, base_term, log_term, authorities [{node_id, name, address, status}], and
 * "statement": the body to sign, in hex. */
struct recovery_terms {
    enum recovery_kind kind;
    int64_t now_ms;
    struct blob reason;
    uint64_t epoch;         /* 0: the next */
    const char *address;    /* of a host that is new to the cluster; NULL */
    struct blob issuer_key; /* to be certified with it; or empty */
    struct blob node_key;   /* public key of the host that goes on; empty: the one in the state */
};
int recovery_plan_doc(const struct recovery_plan *p, const struct recovery_terms *t,
                      struct mp_writer *w);

/* Whether the signed statement is the owner's and goes on from this very log. */
int recovery_plan_check(const struct recovery_plan *p, struct blob statement, struct errmsg *em);
/* Goes on as the signed statement says, in one transaction; start has more than the statement only in a
 * restore. -ERR_CONFLICT: the statement is about
 * another log or epoch; errors of statement_verify; what the state has against it. */
int recovery_plan_apply(const struct recovery_plan *p, const char *dir,
                        const struct epoch_start *start, struct errmsg *em);

/* The same into another log than <dir>/raft.db: `write` does what raft_log_restart does. */
typedef int (*recovery_write_fn)(void *data, const struct raft_log_restart *r, struct errmsg *em);
int recovery_plan_write(const struct recovery_plan *p, const struct epoch_start *start,
                        recovery_write_fn write, void *data, struct errmsg *em);

/* At start, before anybody opens raft.db: does what a statement left in <dir>/recovery says. One
 * that does not fit the log (any more) is dropped with an error in the log. */
int recovery_finish_pending(const char *dir, const struct uuid *node_id, struct errmsg *em);
int recovery_set_pending(const char *dir, struct blob statement, struct errmsg *em);

#endif
