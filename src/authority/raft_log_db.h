/* The tables of raft.db, for one thread: rows, their checksums, and what makes a log whole. Changes
 * happen between db_begin and db_commit, which are the caller's; raft_log.c drives this from the
 * writer thread. */
#ifndef RAP_AUTHORITY_RAFT_LOG_DB_H
#define RAP_AUTHORITY_RAFT_LOG_DB_H

#include "authority/raft_io.h"
#include "base/db.h"

/* The hard_state row: term, vote and the bounds of the log. */
struct raft_log_state {
    uint64_t term, vote;
    uint64_t first, last; /* first == last + 1: empty */
};

struct raft_log_db {
    struct db *db;
    struct raft_log_state state; /* as in the open transaction */
};

/* -ERR_CORRUPT, -ERR_SCHEMA, -ERR_BUSY (another process has it), -ERR_IO. */
int raft_log_db_open(struct raft_log_db *d, const char *path, struct errmsg *em);
void raft_log_db_close(struct raft_log_db *d);

/* Writes the row. */
int raft_log_db_set_state(struct raft_log_db *d, const struct raft_log_state *state);
/* -ERR_INVALID when they do not follow the last entry. */
int raft_log_db_append(struct raft_log_db *d, const struct raft_store_entry *e, size_t n);
int raft_log_db_truncate(struct raft_log_db *d, uint64_t index);

/* A snapshot being stored, a part a transaction. */
struct raft_log_put {
    uint64_t index, term, conf_index;
    unsigned trailing; /* 0: the snapshot replaces the log */
    struct blob conf, packed;
    uint64_t image_size; /* unpacked */
    uint8_t sha256[32];
    uint32_t next_part;
};
/* Over all columns; conf and packed stay the caller's. Any thread. -ERR_MALFORMED, -ERR_TOO_LARGE: packed
 * is no image. */
int raft_log_put_init(struct raft_log_put *p, const struct raft_store_snapshot *s,
                      struct blob packed);
/* One transaction's worth. After the last (*ret_done) it is the snapshot that load finds, and the log
 * begins where it says; before, nothing of it is seen. */
int raft_log_db_put_step(struct raft_log_db *d, struct raft_log_put *p, bool *ret_done);
/* Deletes some of what is left of older snapshots and of the log before its beginning. Not while a
 * snapshot is being stored. */
int raft_log_db_clean(struct raft_log_db *d, bool *ret_more);

/* Fills the snapshot fields of ret; has_snapshot is false when there is none. */
int raft_log_db_get_snapshot(struct raft_log_db *d, struct raft_store_loaded *ret,
                             struct errmsg *em);
/* The epoch and the statement that began it. */
int raft_log_db_set_epoch(struct raft_log_db *d, uint64_t epoch, struct blob statement);

/* raft_store_loaded.silent_until */
int raft_log_db_set_silence(struct raft_log_db *d, uint64_t until_index);

/* Everything, verified: each checksum, that no row is missing, that nothing contradicts. What does
 * not verify is -ERR_CORRUPT and named, never dropped: it may be committed (S22). */
int raft_log_db_load(struct raft_log_db *d, struct raft_store_loaded *ret, struct errmsg *em);

#endif
