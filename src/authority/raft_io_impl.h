/* Shared by raft_io.c (towards the disk), raft_io_send.c (towards the network) and raft_io_recv.c (what may
 * reach libraft). */
#ifndef RAP_AUTHORITY_RAFT_IO_IMPL_H
#define RAP_AUTHORITY_RAFT_IO_IMPL_H

#include "authority/raft_io.h"
#include "pki/pki.h"

struct raft_io_peer {
    raft_id id;
    uint64_t heard_ms;
    /* Of its start that we last heard from; 0 none yet. */
    uint64_t boot, boot_before;
    bool old_disk; /* that start shows less than the starts before acknowledged: */
    struct raft_old_disk why;
    uint64_t
        lost_term; /* in which we led and counted more than this start holds, of one without a vote */
    /* A start that shows less, heard since suspect_ms and not refuted by `boot` in between. */
    uint64_t suspect, suspect_ms;
    unsigned suspect_count;
    uint64_t term;      /* the highest it acted in */
    uint64_t acked;     /* the highest committed index it acknowledged while we led */
    uint64_t sent_prev; /* prev_log_index of the last entries sent to it */
    uint64_t sent_ms;
};

struct raft_io_impl {
    struct raft_io *io;
    struct raft_store *store;
    struct raft_net *net;
    const struct raft_io_env *env;
    const struct raft_io_digest_ops *digest_ops;
    void *digest_data;

    raft_io_tick_cb tick_cb; /* NULL until raft_start */
    raft_io_recv_cb recv_cb;
    raft_io_close_cb close_cb;
    size_t pending; /* operations of the store without their callback yet */
    bool closing;
    bool close_deferred;
    bool failed; /* fatal was called and, in a simulation, returned */

    uint64_t term; /* as stored */
    uint64_t vote;
    uint64_t last_index; /* of the stored log, writes on their way included */
    bool taking;         /* our own snapshot is being stored */
    bool installing;     /* the leader's is */
    /* What get_snapshot last read: libraft corrects the index it announces but not the term. */
    uint64_t got_index;
    uint64_t got_term;
    uint64_t silent_until; /* G22 */
    bool was_silent;       /* at start, and nothing was sent since it ended */
    uint64_t epoch;
    uint8_t lineage[PKI_HASH_BYTES];
    struct buf statement;                 /* that began the epoch */
    uint64_t boot, boot_term, boot_index; /* this start, as raft_digest says it */
    bool fenced;
    /* Term of the leader's message in libraft's hands, 0 outside. */
    uint64_t handling_term;

    struct raft_io_peer peers[RAFT_MSG_SERVERS_MAX];
    size_t next_peer; /* slot to reuse when all are taken */
    struct buf out;
};

/* G22. An image that is being stored is not there yet; entries are before any vote given after them. */
static inline bool raft_io_is_silent(const struct raft_io_impl *im)
{
    return im->last_index < im->silent_until || (im->silent_until != 0 && im->installing);
}

static inline struct raft_io_impl *raft_io_impl_of(const struct raft_io *io)
{
    return io->impl;
}

/* Its slot; one is made for a member without one. */
struct raft_io_peer *raft_io_peer_of(struct raft_io_impl *im, raft_id from);
void raft_io_fail(struct raft_io_impl *im, const char *what, int rc);
/* raft_io_send.c: struct raft_io's `send`. */
int raft_io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
                 raft_io_send_cb cb);
bool raft_io_votes(const struct raft_configuration *c, raft_id id);
/* A configuration came: what was heard of members before it took their vote is void. */
void raft_io_forget_non_voters(struct raft_io_impl *im);
/* Of all: configurations may have come and gone unseen. */
void raft_io_forget_what_was_acked(struct raft_io_impl *im);

/* raft_io_start.c. -ERR_CORRUPT: not what we wrote, whatever the checksums say. */
int raft_io_check_loaded(const struct raft_store_loaded *l, struct errmsg *em);
/* G20: takes effect in *l too. */
int raft_io_begin_lone_term(struct raft_io_impl *im, struct raft_store_loaded *l,
                            struct errmsg *em);

#endif
