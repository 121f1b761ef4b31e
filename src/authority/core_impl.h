/* Shared by the core_*.c files. */
#ifndef RAP_AUTHORITY_CORE_IMPL_H
#define RAP_AUTHORITY_CORE_IMPL_H

#include "authority/core.h"
#include "authority/raft_peek.h"

#define CORE_INFLIGHT_MAX 2
#define CORE_PENDING_MAX ((size_t)4 * CMD_BATCH_MAX)
#define CORE_PENDING_BYTES_MAX (4 * (size_t)ENTRY_MAX_BYTES)
#define CORE_COMMAND_MAX (CMD_BODY_MAX + 512)

/* Singly linked, in order of arrival. */
struct proposal_list {
    struct core_proposal *first;
    struct core_proposal *last;
    size_t count;
    size_t bytes; /* of the commands */
};
struct read_list {
    struct core_read *first;
    struct core_read *last;
};

/* One entry on its way through the log. */
struct core_batch {
    struct raft_apply req;
    struct core *core;
    bool used;
    uint64_t term;
    struct proposal_list proposals;
    /* What apply said, in order of the proposals; copied, for it is delivered later. */
    struct fsm_result *results;
    size_t results_count;
    uint8_t *docs;
};

struct core_peer {
    raft_id id;
    uint64_t agreed_index; /* highest index at which its digest was ours */
    bool contradicts;
    unsigned level; /* schema level it knows; 0 not heard */
};

/* What the log has grown by since the last snapshot, which a restart would have to apply again. */
struct core_growth {
    uint64_t entries;
    uint64_t log_bytes;
    uint64_t image_bytes; /* of the last snapshot, unpacked */
    uint32_t threshold;   /* entries */
};

struct core {
    struct core_config config;
    const struct core_env *env;
    struct fsm *fsm;
    struct raft raft;
    struct raft_fsm raft_fsm;
    struct buf prepared_of;        /* packed image, of: */
    struct fsm_prepared *prepared; /* NULL: none */
    void (*close_cb)(void *data);
    void *close_data;

    /* As last seen by update_role. */
    raft_id leader;
    uint64_t leader_term; /* 0: not the leader */
    struct core_proposal term_start;
    struct core_proposal level_raise;

    struct proposal_list pending;
    struct core_batch batches[CORE_INFLIGHT_MAX];

    struct read_list reads_waiting; /* for the next barrier */
    struct read_list reads_running; /* for the barrier that runs */
    struct read_list reads_ready;   /* cb at the next flush */
    struct read_list waiters;       /* core_wait_applied */
    struct raft_barrier barrier;

    struct core_change *change;
    struct raft_transfer transfer;
    void (*transfer_cb)(void *data, int rc);
    void *transfer_data;

    struct core_peer peers[RAFT_MSG_SERVERS_MAX];
    size_t peers_count;
    uint64_t agreed_index;
    uint8_t agreed[32];

    struct core_stats stats;
    struct core_growth growth;
    uint64_t no_snapshot_before; /* index; the last attempt failed */

    unsigned role; /* as `leader` */
    bool started;
    bool closing;
    bool closed;
    bool failed;
    bool fenced;
    bool flush_wanted;
    bool flushing;
    bool term_started; /* this term's TERM_START is applied */
    bool term_start_active;
    bool level_raise_active;
    bool level_refused;
    bool barrier_active;
    bool transfer_active;
};

void core_want_flush(struct core *c);
/* The replica must stop. */
void core_fail(struct core *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Leader, not handing over, not closing: 0, -ERR_NOT_LEADER, -ERR_CLOSED; and -ERR_NO_QUORUM. */
int core_check_leader(const struct core *c);
bool core_in_contact(const struct core *c, raft_id id, uint64_t window_ms);
uint64_t core_contact_window_ms(const struct core *c);

/* core_propose.c */
void core_propose_term_start(struct core *c);
/* As leader: raises the state's level to what every member knows, if that is more. */
void core_propose_level(struct core *c);
void core_submit(struct core *c);
void core_fail_pending(struct core *c, int rc);
/* From apply: keeps the results for the batch at this index, if it is ours. */
void core_keep_results(struct core *c, uint64_t index, size_t n, const struct fsm_result *results);
void core_propose_fini(struct core *c);

/* core_read.c */
void core_reads_start(struct core *c);
void core_reads_finish(struct core *c);
void core_reads_fail(struct core *c, int rc);
void core_waiters_fail(struct core *c, int rc);

/* core_snapshot.c */
void core_snapshot_init(struct core *c);
/* An entry was applied. */
void core_snapshot_grow(struct core *c, uint64_t index, size_t entry_bytes);
bool core_snapshot_due(const struct core_growth *g);
/* For libraft (struct raft_fsm). */
int core_take_snapshot(struct raft_fsm *rf, struct raft_buffer *bufs[], unsigned *n_bufs);
int core_finish_snapshot(struct raft_fsm *rf, struct raft_buffer *bufs[], unsigned *n_bufs);
int core_restore(struct raft_fsm *rf, struct raft_buffer *buf);

/* core_digest.c */
extern const struct raft_io_digest_ops core_digest_ops;
void core_digest_reset(struct core *c);
/* The schema level that every member of the configuration knows, as far as they have told this
 * leader. */
unsigned core_level_of_all(const struct core *c);

#endif
