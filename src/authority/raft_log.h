/* raft.db: the durable raft_store (raft_io.h). One writer thread owns the database and does nothing
 * but write, sync, and checkpoint (SQLite's WAL-reset bug needs it to be the only one):
 *
 *   loop thread:  append, truncate, put_snapshot -> queue (bounded)          completions
 *                 set_term, set_vote, load: wait for theirs                       ^
 *   writer:       takes all that is queued -> one transaction, one fsync ---------+ uv_async
 *
 * After the first failed write every later one fails with the same error and nothing more is
 * written: a page that failed to sync reads back as clean (S22). */
#ifndef RAP_AUTHORITY_RAFT_LOG_H
#define RAP_AUTHORITY_RAFT_LOG_H

#include "authority/raft_io.h"

#include <uv.h>

/* The file is created when absent (an authority that is about to join), and read as a whole: the first load
 * hands over what was found. Closed through its ops. -ERR_CORRUPT (whatever does not verify), -ERR_SCHEMA,
 * -ERR_BUSY (another process has it), -ERR_IO: then no handle is open. */
int raft_log_open(uv_loop_t *loop, const char *path, struct raft_store **ret, struct errmsg *em);

/* Makes the log of a new cluster (`rap init`): term 1; entry 1, the configuration with one voter;
 * entry 2, the command, padded with zeros to 8 bytes as libraft wants. -ERR_EXISTS when the file
 * already holds anything. */
struct raft_log_bootstrap {
    raft_id id;
    const char *address;
    struct blob command;
};
int raft_log_bootstrap(const char *path, const struct raft_log_bootstrap *b, struct errmsg *em);

/* --- recovery (raft_log_restart.c): each changes the file in one transaction, so that a kill at any
 * moment leaves the log of before or the log of after; nobody else may have it open --- */

/* All that is stored; *ret is ended by raft_store_loaded_fini, also on errors. -ERR_NOT_FOUND when
 * there is no file, else as raft_log_open. */
int raft_log_read(const char *path, struct raft_store_loaded *ret, struct errmsg *em);

/* The log begins anew behind a snapshot, with one voter, in another epoch: entry index + 1 is the
 * command that says so (a whole cmd_entry, padded here), in a term above any the log has seen. */
struct raft_log_restart {
    uint64_t index, term; /* of the snapshot */
    struct blob image;
    raft_id id;
    const char *address;
    uint64_t epoch;
    struct blob statement;
    uint64_t first_term;
    struct blob first_entry;
};
/* -ERR_INVALID: the terms or the epoch do not rise. */
int raft_log_restart(const char *path, const struct raft_log_restart *r, struct errmsg *em);

/* Empties the log of a member that is no voter any more, term and vote with it, in the epoch given.
 * What was there is kept beside it as <path>.<epoch it was of>, once. */
int raft_log_give_up(const char *path, uint64_t epoch, struct blob statement, struct errmsg *em);

/* Puts what is at path aside under the other name, unless that is taken, and makes an empty log in its place.
 * Killed at any moment, it can be done again until what it made is used. */
struct raft_log_empty {
    uint64_t term, vote;
    uint64_t silent_until; /* raft_store_loaded */
    uint64_t epoch;
    struct blob statement;
};
int raft_log_begin_empty(const char *path, const char *aside, const struct raft_log_empty *e,
                         struct errmsg *em);

#endif
