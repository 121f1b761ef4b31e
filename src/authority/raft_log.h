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

/* The file is created when absent (an authority that is about to join). Closed through its ops.
 * -ERR_CORRUPT, -ERR_SCHEMA, -ERR_BUSY (another process has it), -ERR_IO. Whether the log is whole
 * is checked by load. */
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

#endif
