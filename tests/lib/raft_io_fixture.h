/* A raft_io under test: a store and a network that only remember, and a libraft that is nothing but
 * its public fields. */
#ifndef TESTS_LIB_RAFT_IO_FIXTURE_H
#define TESTS_LIB_RAFT_IO_FIXTURE_H

#include "authority/raft_io.h"

#define SELF 1ull
#define PEER 2ull
#define RECORDS_MAX 8

struct seen {
    struct raft_message m; /* pointers in it are gone */
    unsigned first_type;
    uint8_t first_byte;
    int own_role; /* in the configuration libraft had then */
};

struct fixture {
    struct raft_io io;
    struct raft_store store;
    struct raft_net net;
    struct raft_io_env env;
    struct raft raft;
    struct {
        raft_index index;
        raft_term term;
    } records[RECORDS_MAX + 1];
    struct seen seen[RECORDS_MAX];
    size_t seen_count;
    struct buf sent[RECORDS_MAX];
    size_t sent_count;
    bool in_flight;
    bool unreachable; /* sending says so */
    unsigned term_writes, vote_writes, truncates, sends_done;
    uint64_t term, vote;
    int store_rc;
    raft_store_cb pending_cb;
    void *pending_data;
    struct raft_store_entry appended;
    struct raft_store_loaded *get;
    uint64_t now_ms;
    unsigned fatals;
    char why[200];
    void (*deferred)(void *arg);
    void *deferred_arg;
    unsigned closes;
    int append_status;
    unsigned append_done;
};

/* What the store's load gives. */
extern struct raft_store_loaded fx_to_load;
extern uint8_t fx_bytes[64];
extern uint8_t fx_image[16]; /* packed */

void fx_setup(struct fixture *f);
void fx_teardown(struct fixture *f);
/* A log of `terms[i]` at index first + i. */
void fx_set_log(struct fixture *f, uint64_t first, const uint64_t *terms, size_t n);
/* As if PEER had sent it. */
int fx_receive(struct fixture *f, const struct raft_message *m);
/* As libraft would, to PEER; fails the test when the io refuses. */
void fx_send(struct fixture *f, struct raft_message *m);
struct raft_message fx_decode_sent(struct fixture *f, size_t i);
/* The store reports its last operation. */
void fx_complete(struct fixture *f, int rc);

struct raft_message fx_heartbeat(uint64_t term, uint64_t prev, uint64_t prev_term);
/* conf is made here and the caller's. */
struct raft_message fx_install(uint64_t term, uint64_t index, uint64_t index_term,
                               struct raft_configuration *conf);
void fx_entry(struct raft_entry *e, unsigned type, uint64_t term, struct raft_buffer conf,
              uint8_t *data);
void fx_on_tick(struct raft_io *io);

#endif
