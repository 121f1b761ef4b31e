/* Our raft_io: what libraft needs of a disk and a network, over two small interfaces, so that the
 * product (SQLite, fabric) and the simulator (memory, virtual time) share all the rules of
 * reference raft.md that are easy to get wrong:
 *   - G1 send never returns an error        - G4 no InstallSnapshot while our own snapshot is taken
 *   - G2 entries are padded to 8 bytes      - G6 a term that does not change is not written again
 *   - G7 an InstallSnapshot still in flight to a peer is not sent again
 *   - G9 a configuration entry is the first of the AppendEntries that libraft sees: it notes the
 *     index of the first entry for that of the configuration
 *   - G10 the rejection of an old term carries no uninitialised last_log_index
 *   - G11 a vote result reaches candidates only: libraft reads candidate state without asking
 *   - G12 no AppendEntries or InstallSnapshot of our own term while we lead, none that contradicts
 *     what is committed here: libraft would corrupt or free twice
 *   - G13 a rejection of what that member already stored is out of date and dropped
 *   - G14 entries at or below our snapshot are skipped, not rejected
 *   - G15 no second InstallSnapshot while one is being stored: libraft would leak it
 *   - G16, G17 (core_snapshot.c) no snapshot with another configuration than that of its index
 *   - G18 a follower refuses votes for the sake of its leader only while it hears it
 *   - G19 entries that a silent member did not answer are not sent to it again and again, all of them
 *   - G20 a lone voter starts in a new term: libraft would let it lead again in the one it stopped in
 *   - G21 a member that does not vote yet gives its vote to who counts it already
 *   - G22 a member that lost its log, and votes with it, gives no vote before its new one holds what took it
 *     out of the vote
 *   - G23 a member that is to lose its vote gets the change that takes it when it is committed
 *   - the buffer of a snapshot of our own holds no bytes: its base is the struct db_image that
 *     raft_fsm.snapshot made; all others hold a packed image
 *   - messages of another epoch never reach libraft, nor those of a voter whose store has lost what it
 *     acknowledged (docs/decisions/0007)
 *   - every message is decoded by raft_msg (bounded) and its sender taken from the session
 *   - an error of the store ends the process through `fatal`: libraft's asserts are compiled out */
#ifndef RAP_AUTHORITY_RAFT_IO_H
#define RAP_AUTHORITY_RAFT_IO_H

#include "authority/raft_msg.h"
#include "base/db_pages.h"

/* One stored log entry; data is a view. */
struct raft_store_entry {
    uint64_t index, term;
    uint16_t type; /* RAFT_COMMAND, RAFT_BARRIER, RAFT_CHANGE */
    struct blob data;
};

struct raft_store_loaded {
    uint64_t term;
    uint64_t vote;
    bool has_snapshot;
    uint64_t snapshot_index, snapshot_term, snapshot_conf_index;
    struct buf snapshot_conf;  /* raft_msg-encoded configuration */
    struct buf snapshot_image; /* packed (raft_image.h) */
    uint64_t silent_until;     /* gives no vote before the log reaches this index; 0: it may */
    uint64_t epoch;            /* 0 as 1 */
    struct buf statement;      /* that began it, signed; empty in the first epoch */
    struct raft_store_entry *entries; /* data owned by this struct */
    size_t entries_count;
};
void raft_store_loaded_fini(struct raft_store_loaded *l);

/* A snapshot to store. Its image is our own state, which the store reads and packs while commands go on
 * being applied, or, from a leader, packed. */
struct raft_store_snapshot {
    uint64_t index, term, conf_index;
    struct blob conf;        /* raft_msg-encoded configuration */
    struct db_image *frozen; /* or NULL and */
    struct blob packed;
    unsigned trailing; /* entries to keep before index; 0: it replaces the log (from a leader) */
};

struct raft_store;
typedef void (*raft_store_cb)(void *data, int rc);
struct raft_store_ops {
    int (*load)(struct raft_store *s, struct raft_store_loaded *ret, struct errmsg *em);
    /* Synchronous: durable when they return. */
    int (*set_term)(struct raft_store *s, uint64_t term, struct errmsg *em); /* clears the vote */
    int (*set_vote)(struct raft_store *s, uint64_t vote, struct errmsg *em);
    /* Asynchronous, in order: cb on the loop when durable. Entry data stays valid until cb. */
    void (*append)(struct raft_store *s, const struct raft_store_entry *e, size_t n,
                   raft_store_cb cb, void *data);
    /* Drops entries >= index, ordered with appends. */
    void (*truncate)(struct raft_store *s, uint64_t index);
    /* Stores a snapshot, then drops the entries it makes superfluous. Not ordered: appends that come
     * after it may be durable before it. What it points to stays valid until cb. One at a time. */
    void (*put_snapshot)(struct raft_store *s, const struct raft_store_snapshot *snap,
                         raft_store_cb cb, void *data);
    /* Reads the last snapshot: ret is filled before cb. */
    void (*get_snapshot)(struct raft_store *s, struct raft_store_loaded *ret, raft_store_cb cb,
                         void *data);
    /* By whoever opened it, after core_close: the io only waits for its own operations. */
    void (*close)(struct raft_store *s, void (*cb)(void *data), void *data);
};
struct raft_store {
    const struct raft_store_ops *ops;
};

struct raft_net;
struct raft_net_ops {
    /* Best effort, in order per peer; bytes are copied. false: they will not arrive. */
    bool (*send)(struct raft_net *n, raft_id to, struct blob bytes);
    /* An InstallSnapshot, tens of megabytes perhaps: in no order with other messages, and never in their
     * way. */
    bool (*send_image)(struct raft_net *n, raft_id to, struct blob bytes);
    /* True while an earlier image to this peer is unsent or unacknowledged. */
    bool (*snapshot_in_flight)(struct raft_net *n, raft_id to);
};
struct raft_net {
    const struct raft_net_ops *ops;
};

/* Why a member's word is not taken: its store held less when it started than it had acknowledged. */
struct raft_old_disk {
    uint64_t acked_term, shown_term;
    uint64_t acked_index, shown_index;
};

struct raft_io_env {
    void *data;
    uint64_t (*mono_ms)(void *data);
    uint64_t (*random)(void *data);
    /* Does not return in the product. */
    void (*fatal)(void *data, const char *why);
    /* Runs cb on a later turn of the loop. */
    void (*defer)(void *data, void (*cb)(void *arg), void *arg);
    /* From inside raft_io_receive: take note, do nothing. May be NULL. A message of another epoch (or another
     * recovery of ours) came and was dropped. */
    void (*other_epoch)(void *data, raft_id from, uint64_t epoch);
};

/* What core puts into every message and takes out of it (S15). */
struct raft_io_digest_ops {
    void (*out)(void *data, struct raft_digest *ret);
    void (*in)(void *data, raft_id from, const struct raft_digest *digest);
};

/* Fills *io; store, net and env must outlive it. */
int raft_io_init(struct raft_io *io, struct raft_store *store, struct raft_net *net,
                 const struct raft_io_env *env);
void raft_io_fini(struct raft_io *io);
void raft_io_tick(struct raft_io *io); /* every heartbeat_ms */
/* Bytes from a peer whose identity says it is member `from`. Nothing happened when it returns
 * -ERR_MALFORMED, -ERR_TOO_LARGE, -ERR_DIVERGED (contradicts what is committed here) or
 * -ERR_CLOSED. A message that is merely out of date is dropped and counts as 0. */
int raft_io_receive(struct raft_io *io, raft_id from, struct blob bytes);
/* The same for a message whose image was unpacked before. */
int raft_io_receive_unpacked(struct raft_io *io, raft_id from, struct blob bytes);
/* Ends all traffic, both ways: a fenced member decides nothing and helps nobody decide. */
void raft_io_fence(struct raft_io *io);
/* Of the log as it was loaded; statement is a view. */
uint64_t raft_io_epoch(const struct raft_io *io);
struct blob raft_io_statement(const struct raft_io *io);
/* Whether this voter shows an old disk: its messages are dropped until it starts again or is no voter. Whoever leads
 * has to take it out of the vote. */
bool raft_io_has_old_disk(const struct raft_io *io, raft_id id, struct raft_old_disk *ret);
/* As leader: whether this member, which has no vote, started with less than we count it for. libraft sends it
 * nothing more until it is out of the configuration and in again. */
bool raft_io_lost_tail(const struct raft_io *io, raft_id id);
/* When a well-formed message of this member last came (mono_ms); 0 never. */
uint64_t raft_io_heard_ms(const struct raft_io *io, raft_id from);
/* Core registers itself here; NULL takes it away. */
void raft_io_on_digest(struct raft_io *io, const struct raft_io_digest_ops *ops, void *data);

#endif
