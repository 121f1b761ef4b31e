/* A raft.db in a directory of its own, with the disk under control: linking this takes the place of
 * fsync and fdatasync for the whole process, libsqlite3 included. */
#ifndef RAP_TESTS_RAFT_LOG_FIXTURE_H
#define RAP_TESTS_RAFT_LOG_FIXTURE_H

#include "authority/raft_log.h"

/* Syncs wait while hold is set, and fail with EIO while fail is set. */
void sync_gate_set(bool hold, bool fail);
void sync_gate_wait_until_held(void);
/* Pretend to sync until the test ends: for tests without a crash that open thousands of files. */
void sync_gate_skip(void);
unsigned sync_gate_count(void);

struct rlog_world {
    char dir[64];
    char path[80];
    uv_loop_t loop;
    struct raft_store *s;
    bool closed;
    unsigned done; /* callbacks that ran */
    int last_rc;   /* of the last one */
    unsigned failed;
};

int rlog_set_up(void **state);
/* The log must be closed. */
int rlog_tear_down(void **state);
void rlog_remove_files(const struct rlog_world *w);

void rlog_open(struct rlog_world *w);
void rlog_close(struct rlog_world *w);
void rlog_on_closed(void *data);
void rlog_run_until_closed(struct rlog_world *w);
/* A raft_store_cb that counts. */
void rlog_on_done(void *data, int rc);
void rlog_run_until_done(struct rlog_world *w, unsigned count);

/* The data of every entry tells its index and term. Valid for ever in term 1, else until the next
 * call. */
struct blob rlog_entry_data(uint64_t index, uint64_t term);
/* Starts one append. */
void rlog_append(struct rlog_world *w, uint64_t index, uint64_t term);
/* Appends of term 1, all done. */
void rlog_append_range(struct rlog_world *w, uint64_t first, uint64_t last);
void rlog_set_term(struct rlog_world *w, uint64_t term);
struct raft_store_loaded rlog_load(struct rlog_world *w);
void rlog_assert_entries(const struct raft_store_loaded *l, uint64_t first, uint64_t last,
                         uint64_t term);
void rlog_put_snapshot(struct rlog_world *w, uint64_t index, unsigned trailing, const char *image);
void rlog_assert_image(const struct raft_store_loaded *l, struct blob want);
/* A log of term 1 with entries 1..last, closed. */
void rlog_make(struct rlog_world *w, uint64_t last);
/* SQL behind the back of the log, while it is closed. */
void rlog_raw_sql(struct rlog_world *w, const char *sql);

#endif
