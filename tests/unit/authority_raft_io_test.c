/* The guards of raft_io.h, one test each: a store and a network that only remember, and a libraft
 * that is nothing but its public fields. */
#include "authority/raft_io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

#define SELF 1ull
#define PEER 2ull
#define RECORDS_MAX 8

struct seen {
    struct raft_message m; /* pointers in it are gone */
    unsigned first_type;
    uint8_t first_byte;
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
    unsigned term_writes, vote_writes, truncates, sends_done;
    uint64_t term, vote;
    int store_rc;
    raft_store_cb pending_cb;
    void *pending_data;
    struct raft_store_entry appended;
    struct raft_store_loaded *get;
    unsigned fatals;
    char why[200];
    void (*deferred)(void *arg);
    void *deferred_arg;
    unsigned closes;
    int append_status;
    unsigned append_done;
};

static struct fixture *of_store(struct raft_store *s)
{
    return container_of(s, struct fixture, store);
}

static struct fixture *of_net(struct raft_net *n)
{
    return container_of(n, struct fixture, net);
}

static struct raft_store_loaded to_load;

static int op_load(struct raft_store *s, struct raft_store_loaded *ret, struct errmsg *em)
{
    (void)s;
    (void)em;
    buf_fini(&ret->snapshot_conf);
    buf_fini(&ret->snapshot_image);
    *ret = to_load;
    return 0;
}

static int op_set_term(struct raft_store *s, uint64_t term, struct errmsg *em)
{
    (void)em;
    of_store(s)->term_writes++;
    of_store(s)->term = term;
    of_store(s)->vote = 0;
    return of_store(s)->store_rc;
}

static int op_set_vote(struct raft_store *s, uint64_t vote, struct errmsg *em)
{
    (void)em;
    of_store(s)->vote_writes++;
    of_store(s)->vote = vote;
    return of_store(s)->store_rc;
}

static void op_append(struct raft_store *s, const struct raft_store_entry *e, size_t n,
                      raft_store_cb cb, void *data)
{
    assert_true(n > 0);
    of_store(s)->appended = e[0];
    of_store(s)->pending_cb = cb;
    of_store(s)->pending_data = data;
}

static void op_truncate(struct raft_store *s, uint64_t index)
{
    (void)index;
    of_store(s)->truncates++;
}

static void op_put(struct raft_store *s, uint64_t index, uint64_t term, uint64_t conf_index,
                   struct blob conf, struct blob image, unsigned trailing, raft_store_cb cb,
                   void *data)
{
    (void)index;
    (void)term;
    (void)conf_index;
    (void)conf;
    (void)image;
    (void)trailing;
    of_store(s)->pending_cb = cb;
    of_store(s)->pending_data = data;
}

static void op_get(struct raft_store *s, struct raft_store_loaded *ret, raft_store_cb cb,
                   void *data)
{
    of_store(s)->get = ret;
    of_store(s)->pending_cb = cb;
    of_store(s)->pending_data = data;
}

static const struct raft_store_ops store_ops = {
    .load = op_load,
    .set_term = op_set_term,
    .set_vote = op_set_vote,
    .append = op_append,
    .truncate = op_truncate,
    .put_snapshot = op_put,
    .get_snapshot = op_get,
};

static void op_send(struct raft_net *n, raft_id to, struct blob bytes)
{
    struct fixture *f = of_net(n);
    assert_int_equal(to, PEER);
    assert_true(f->sent_count < RECORDS_MAX);
    buf_init(&f->sent[f->sent_count], SIZE_MAX);
    buf_add(&f->sent[f->sent_count++], bytes.data, bytes.len);
}

static bool op_in_flight(struct raft_net *n, raft_id to)
{
    (void)to;
    return of_net(n)->in_flight;
}

static const struct raft_net_ops net_ops = {.send = op_send, .snapshot_in_flight = op_in_flight};

static uint64_t mono_ms(void *data)
{
    (void)data;
    return 5000;
}

static uint64_t random_u64(void *data)
{
    (void)data;
    return UINT64_MAX;
}

static void on_fatal(void *data, const char *why)
{
    struct fixture *f = data;
    f->fatals++;
    (void)snprintf(f->why, sizeof f->why, "%s", why);
}

static void defer(void *data, void (*cb)(void *arg), void *arg)
{
    struct fixture *f = data;
    f->deferred = cb;
    f->deferred_arg = arg;
}

static void on_tick(struct raft_io *io)
{
    (void)io;
}

static void on_recv(struct raft_io *io, struct raft_message *m)
{
    struct fixture *f = container_of(io, struct fixture, io);
    assert_true(f->seen_count < RECORDS_MAX);
    struct seen *s = &f->seen[f->seen_count++];
    *s = (struct seen){.m = *m};
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
        s->first_type = m->append_entries.entries[0].type;
        s->first_byte = *(uint8_t *)m->append_entries.entries[0].buf.base;
        for (unsigned i = 0; i < m->append_entries.n_entries; i++) {
            assert_ptr_equal(m->append_entries.entries[i].batch,
                             m->append_entries.entries[0].buf.base);
        }
    }
    raft_msg_release(m);
}

/* A log of `terms[i]` at index first + i. */
static void set_log(struct fixture *f, uint64_t first, const uint64_t *terms, size_t n)
{
    struct raft_trail *t = &f->raft.trail;
    assert_true(n <= RECORDS_MAX);
    for (size_t i = 0; i < n; i++) {
        f->records[i].index = first + i;
        f->records[i].term = terms[i];
    }
    t->records = (void *)f->records;
    t->size = RECORDS_MAX + 1;
    t->front = 0;
    t->back = (unsigned)n;
    t->offset = first - 1;
}

static void setup(struct fixture *f)
{
    *f = (struct fixture){.store = {.ops = &store_ops}, .net = {.ops = &net_ops}};
    f->env = (struct raft_io_env){
        .data = f, .mono_ms = mono_ms, .random = random_u64, .fatal = on_fatal, .defer = defer};
    assert_int_equal(raft_io_init(&f->io, &f->store, &f->net, &f->env), 0);
    f->raft.id = SELF;
    f->raft.state = RAFT_FOLLOWER;
    f->raft.current_term = 5;
    f->io.data = &f->raft;
    assert_int_equal(f->io.start(&f->io, 50, on_tick, on_recv), 0);
}

static void teardown(struct fixture *f)
{
    for (size_t i = 0; i < f->sent_count; i++) {
        buf_fini(&f->sent[i]);
    }
    raft_io_fini(&f->io);
}

static int receive(struct fixture *f, const struct raft_message *m)
{
    struct buf out;
    buf_init(&out, RAFT_FRAME_MAX);
    assert_int_equal(raft_msg_encode(m, NULL, &out), 0);
    int rc = raft_io_receive(&f->io, PEER, buf_blob(&out));
    buf_fini(&out);
    return rc;
}

static void sent(struct raft_io_send *req, int status)
{
    (void)status;
    ((struct fixture *)req->data)->sends_done++;
}

static void send(struct fixture *f, struct raft_message *m)
{
    struct raft_io_send req = {.data = f};
    m->server_id = PEER;
    assert_int_equal(f->io.send(&f->io, &req, m, sent), 0);
}

static struct raft_message decode_sent(struct fixture *f, size_t i)
{
    struct raft_message m;
    struct raft_digest d;
    assert_true(i < f->sent_count);
    assert_int_equal(raft_msg_decode(buf_blob(&f->sent[i]), &m, &d), 0);
    return m;
}

static void appended(struct raft_io_append *req, int status)
{
    struct fixture *f = req->data;
    f->append_status = status;
    f->append_done++;
}

static void put_done(struct raft_io_snapshot_put *req, int status)
{
    (void)req;
    (void)status;
}

static void complete(struct fixture *f, int rc)
{
    raft_store_cb cb = f->pending_cb;
    f->pending_cb = NULL;
    assert_non_null(cb);
    cb(f->pending_data, rc);
}

/* --- messages --- */

static uint8_t bytes[64];

static struct raft_message heartbeat(uint64_t term, uint64_t prev, uint64_t prev_term)
{
    return (struct raft_message){
        .type = RAFT_APPEND_ENTRIES,
        .append_entries = {.term = term, .prev_log_index = prev, .prev_log_term = prev_term}};
}

static struct raft_message install(uint64_t term, uint64_t index, uint64_t index_term,
                                   struct raft_configuration *conf)
{
    raft_configuration_init(conf);
    assert_int_equal(raft_configuration_add(conf, SELF, "a", RAFT_VOTER), 0);
    return (struct raft_message){.type = RAFT_INSTALL_SNAPSHOT,
                                 .install_snapshot = {.term = term,
                                                      .last_index = index,
                                                      .last_term = index_term,
                                                      .conf = *conf,
                                                      .conf_index = 1,
                                                      .data = {.base = bytes, .len = 16}}};
}

/* --- G1 --- */

static void test_send_never_fails(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct raft_message unknown = {.type = (enum raft_message_type)99};
    send(&f, &unknown);
    assert_int_equal(f.sends_done, 1);
    assert_int_equal(f.sent_count, 0);
    struct raft_message m = heartbeat(5, 0, 0);
    send(&f, &m);
    assert_int_equal(f.sends_done, 2);
    assert_int_equal(f.sent_count, 1);
    teardown(&f);
}

/* --- G4 --- */

static void test_install_snapshot_is_dropped_while_our_own_is_stored(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    setup(&f);
    struct raft_message m = install(5, 50, 4, &conf);
    struct raft_buffer image = {.base = bytes, .len = 16};
    struct raft_snapshot snap = {.index = 9, .term = 3, .configuration = conf,
                                 .configuration_index = 1, .bufs = &image, .n_bufs = 1};
    struct raft_io_snapshot_put put = {.data = &f};
    assert_int_equal(f.io.snapshot_put(&f.io, 2048, &put, &snap, put_done), 0);
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 0);
    complete(&f, 0);
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    raft_configuration_close(&conf);
    teardown(&f);
}

/* --- G15 --- */

static void test_second_install_snapshot_is_dropped_while_one_is_stored(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    setup(&f);
    struct raft_message m = install(5, 50, 4, &conf);
    f.raft.snapshot.installing = true;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 0);
    f.raft.snapshot.installing = false;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    raft_configuration_close(&conf);
    teardown(&f);
}

/* --- G6 --- */

static void test_term_that_does_not_change_is_not_written_again(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    assert_int_equal(f.io.set_term(&f.io, 7), 0);
    assert_int_equal(f.io.set_vote(&f.io, PEER), 0);
    assert_int_equal(f.io.set_term(&f.io, 7), 0); /* a second RequestVote of that candidate */
    assert_int_equal(f.io.set_vote(&f.io, PEER), 0);
    assert_int_equal(f.term_writes, 1);
    assert_int_equal(f.vote, PEER); /* never forgotten in between */
    assert_int_equal(f.io.set_term(&f.io, 8), 0);
    assert_int_equal(f.term_writes, 2);
    /* A new term has no vote: the same candidate's is written again. */
    assert_int_equal(f.io.set_vote(&f.io, PEER), 0);
    assert_int_equal(f.vote, PEER);
    assert_int_equal(f.vote_writes, 2);
    teardown(&f);
}

/* --- G7 --- */

static void test_install_snapshot_in_flight_is_not_sent_again(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    setup(&f);
    struct raft_message m = install(5, 50, 4, &conf);
    send(&f, &m);
    assert_int_equal(f.sent_count, 1);
    f.in_flight = true;
    send(&f, &m);
    assert_int_equal(f.sent_count, 1);
    assert_int_equal(f.sends_done, 2);
    struct raft_message h = heartbeat(5, 0, 0); /* heartbeats go on */
    send(&f, &h);
    assert_int_equal(f.sent_count, 2);
    raft_configuration_close(&conf);
    teardown(&f);
}

static void got(struct raft_io_snapshot_get *req, struct raft_snapshot *s, int status)
{
    struct raft_snapshot **ret = req->data;
    assert_int_equal(status, 0);
    *ret = s;
}

static void free_snapshot(struct raft_snapshot *s)
{
    raft_configuration_close(&s->configuration);
    raft_free(s->bufs[0].base);
    raft_free(s->bufs);
    raft_free(s);
}

static void test_sent_snapshot_carries_the_term_of_what_was_read(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    struct raft_snapshot *s = NULL;
    struct raft_io_snapshot_get req = {.data = &s};
    setup(&f);
    /* libraft asks for (50, term 4), meanwhile the store has (60, term 5): libraft corrects the
     * index only. */
    struct raft_message m = install(5, 50, 4, &conf);
    assert_int_equal(f.io.snapshot_get(&f.io, &req, got), 0);
    f.get->has_snapshot = true;
    f.get->snapshot_index = 60;
    f.get->snapshot_term = 5;
    f.get->snapshot_conf_index = 1;
    raft_msg_conf_encode(&conf, &f.get->snapshot_conf);
    buf_add(&f.get->snapshot_image, bytes, 16);
    complete(&f, 0);
    assert_int_equal(s->index, 60);
    m.install_snapshot.last_index = s->index;
    send(&f, &m);
    struct raft_message back = decode_sent(&f, 0);
    assert_int_equal(back.install_snapshot.last_index, 60);
    assert_int_equal(back.install_snapshot.last_term, 5);
    raft_msg_release(&back);
    free_snapshot(s);
    raft_configuration_close(&conf);
    teardown(&f);
}

static void test_snapshot_that_cannot_be_read_ends_the_process_and_is_not_sent(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_snapshot *s = NULL;
    struct raft_io_snapshot_get req = {.data = &s};
    setup(&f);
    assert_int_equal(f.io.snapshot_get(&f.io, &req, got), 0);
    complete(&f, -ERR_CORRUPT);
    assert_int_equal(f.fatals, 1);
    assert_non_null(s); /* libraft would read uninitialised memory otherwise */
    assert_int_equal(s->bufs[0].len, 0);
    free_snapshot(s);
    teardown(&f);
}

/* --- G9 --- */

static void entry(struct raft_entry *e, unsigned type, uint64_t term, struct raft_buffer conf,
                  uint8_t *data)
{
    *e = (struct raft_entry){.term = term, .type = (enum raft_entry_type)type};
    e->buf = type == RAFT_CHANGE ? conf : (struct raft_buffer){.base = data, .len = 8};
}

static void test_each_configuration_starts_a_message(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    struct raft_buffer encoded;
    struct raft_entry entries[5];
    static uint8_t data[5][8] = {"0", "1", "2", "3", "4"};
    setup(&f);
    (void)install(5, 1, 1, &conf);
    assert_int_equal(raft_configuration_encode(&conf, &encoded), 0);
    static const unsigned types[] = {RAFT_COMMAND, RAFT_CHANGE, RAFT_COMMAND, RAFT_CHANGE,
                                     RAFT_CHANGE};
    for (size_t i = 0; i < 5; i++) {
        entry(&entries[i], types[i], 3 + i / 3, encoded, data[i]);
    }
    struct raft_message m = heartbeat(5, 10, 3);
    m.append_entries.entries = entries;
    m.append_entries.n_entries = 5;
    m.append_entries.leader_commit = 12;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 4);
    static const struct {
        uint64_t prev, prev_term;
        unsigned n, first;
    } want[] = {{10, 3, 1, RAFT_COMMAND},
                {11, 3, 2, RAFT_CHANGE},
                {13, 3, 1, RAFT_CHANGE},
                {14, 4, 1, RAFT_CHANGE}};
    for (size_t i = 0; i < 4; i++) {
        const struct raft_append_entries *a = &f.seen[i].m.append_entries;
        assert_int_equal(a->prev_log_index, want[i].prev);
        assert_int_equal(a->prev_log_term, want[i].prev_term);
        assert_int_equal(a->n_entries, want[i].n);
        assert_int_equal(a->leader_commit, 12);
        assert_int_equal(f.seen[i].first_type, want[i].first);
    }
    raft_free(encoded.base);
    raft_configuration_close(&conf);
    teardown(&f);
}

static void test_configuration_before_a_new_one_counts_as_committed(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    struct raft_buffer encoded;
    struct raft_entry e;
    static const uint64_t terms[] = {3, 3, 3};
    setup(&f);
    set_log(&f, 10, terms, 3);
    f.raft.commit_index = 9;
    (void)install(5, 1, 1, &conf);
    assert_int_equal(raft_configuration_encode(&conf, &encoded), 0);
    assert_int_equal(raft_configuration_add(&f.raft.configuration, SELF, "a", RAFT_VOTER), 0);
    f.raft.configuration_uncommitted_index = 11;
    entry(&e, RAFT_CHANGE, 5, encoded, NULL);
    struct raft_message m = heartbeat(5, 12, 4); /* not what we hold at 12: proves nothing */
    m.append_entries.entries = &e;
    m.append_entries.n_entries = 1;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.raft.configuration_uncommitted_index, 11);
    m.append_entries.prev_log_term = 3;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.raft.configuration_uncommitted_index, 0);
    assert_int_equal(f.raft.configuration_committed_index, 11);
    assert_int_equal(f.raft.configuration_committed.n, 1);
    raft_configuration_close(&f.raft.configuration);
    raft_configuration_close(&f.raft.configuration_committed);
    raft_free(encoded.base);
    raft_configuration_close(&conf);
    teardown(&f);
}

/* --- G10 --- */

static struct fixture *answering;
static void answer_stale(struct raft_io *io, struct raft_message *m)
{
    /* What libraft 0.22.1 answers to an old leader: last_log_index is whatever was on the stack. */
    struct raft_message r = {.type = RAFT_APPEND_ENTRIES_RESULT,
                             .append_entries_result = {
                                 .version = 2,
                                 .term = 6,
                                 .rejected = m->append_entries.prev_log_index,
                                 .last_log_index = 123456}};
    (void)io;
    raft_msg_release(m);
    send(answering, &r);
}

static void test_answer_to_an_old_leader_has_no_garbage(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    answering = &f;
    f.raft.current_term = 6;
    assert_int_equal(f.io.start(&f.io, 50, on_tick, answer_stale), 0);
    struct raft_message m = heartbeat(5, 0, 0);
    assert_int_equal(receive(&f, &m), 0);
    m = heartbeat(5, 9, 4);
    assert_int_equal(receive(&f, &m), 0);
    struct raft_message a = decode_sent(&f, 0);
    assert_int_equal(a.append_entries_result.last_log_index, 0);
    a = decode_sent(&f, 1);
    assert_int_equal(a.append_entries_result.rejected, 9);
    assert_int_equal(a.append_entries_result.last_log_index, 8);
    /* An answer that belongs to no old message is sent as it is. */
    struct raft_message r = {
        .type = RAFT_APPEND_ENTRIES_RESULT,
        .append_entries_result = {.version = 2, .term = 6, .last_log_index = 77}};
    send(&f, &r);
    a = decode_sent(&f, 2);
    assert_int_equal(a.append_entries_result.last_log_index, 77);
    teardown(&f);
}

/* --- G11 --- */

static void test_vote_result_reaches_candidates_only(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct raft_message m = {
        .type = RAFT_REQUEST_VOTE_RESULT,
        .request_vote_result = {.version = 2, .term = 9, .vote_granted = true}};
    assert_int_equal(receive(&f, &m), 0);
    f.raft.state = RAFT_LEADER;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 0);
    f.raft.state = RAFT_CANDIDATE;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    teardown(&f);
}

static void test_vote_is_asked_for_by_the_candidate_itself(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    struct raft_message m = {.type = RAFT_REQUEST_VOTE,
                             .request_vote = {.version = 2, .term = 9, .candidate_id = 3}};
    assert_int_equal(receive(&f, &m), -ERR_MALFORMED);
    assert_int_equal(f.seen_count, 0);
    assert_int_equal(raft_io_heard_ms(&f.io, PEER), 0);
    m.request_vote.candidate_id = PEER;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    assert_int_equal(f.seen[0].m.server_id, PEER);
    assert_int_equal(raft_io_heard_ms(&f.io, PEER), 5000);
    teardown(&f);
}

/* --- G12 --- */

static void test_leader_refuses_another_leader_of_its_term(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    setup(&f);
    f.raft.state = RAFT_LEADER;
    struct raft_message m = heartbeat(5, 0, 0);
    assert_int_equal(receive(&f, &m), -ERR_MALFORMED);
    struct raft_message s = install(5, 50, 4, &conf);
    assert_int_equal(receive(&f, &s), -ERR_MALFORMED);
    assert_int_equal(f.seen_count, 0);
    m.append_entries.term = 6;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    raft_configuration_close(&conf);
    teardown(&f);
}

static void test_what_contradicts_committed_entries_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    struct raft_entry e;
    static const uint64_t terms[] = {2, 2, 3, 3}; /* 10..13 */
    setup(&f);
    set_log(&f, 10, terms, 4);
    f.raft.commit_index = 12;
    entry(&e, RAFT_COMMAND, 5, (struct raft_buffer){0}, bytes);
    struct raft_message m = heartbeat(5, 11, 1); /* before: we hold term 2 */
    assert_int_equal(receive(&f, &m), -ERR_DIVERGED);
    m = heartbeat(5, 11, 2); /* entry 12 of term 5: we committed one of term 3 */
    m.append_entries.entries = &e;
    m.append_entries.n_entries = 1;
    assert_int_equal(receive(&f, &m), -ERR_DIVERGED);
    m.append_entries.prev_log_index = 12; /* 13 is not committed: libraft replaces it */
    m.append_entries.prev_log_term = 3;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    struct raft_message s = install(5, 12, 4, &conf);
    assert_int_equal(receive(&f, &s), -ERR_DIVERGED);
    s.install_snapshot.last_term = 3;
    assert_int_equal(receive(&f, &s), 0);
    assert_int_equal(f.seen_count, 2);
    raft_configuration_close(&conf);
    teardown(&f);
}

/* --- G13 --- */

static void test_rejection_of_what_a_member_already_stored_is_dropped(void **state)
{
    (void)state;
    struct fixture f;
    uint64_t progress[64]; /* libraft's own struct: whatever it looks at in there is a 7 */
    setup(&f);
    for (size_t i = 0; i < ARRAY_SIZE(progress); i++) {
        progress[i] = 7;
    }
    assert_int_equal(raft_configuration_add(&f.raft.configuration, PEER, "b", RAFT_VOTER), 0);
    f.raft.state = RAFT_LEADER;
    f.raft.leader_state.progress = (void *)progress;
    struct raft_message m = {
        .type = RAFT_APPEND_ENTRIES_RESULT,
        .append_entries_result = {.version = 2, .term = 5, .rejected = 7, .last_log_index = 6}};
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 0);
    m.append_entries_result.rejected = 12;
    m.append_entries_result.last_log_index = 3; /* it stored 7 since */
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    assert_int_equal(f.seen[0].m.append_entries_result.last_log_index, 7);
    raft_configuration_close(&f.raft.configuration);
    teardown(&f);
}

/* --- G14 --- */

static void test_entries_below_our_snapshot_are_skipped(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_entry entries[4];
    static uint8_t data[4][8] = {"a", "b", "c", "d"};
    static const uint64_t terms[] = {4};
    setup(&f);
    set_log(&f, 10, terms, 1); /* 10 is what is left; 1..9 are in the snapshot at 10 */
    f.raft.trail.snapshot.index = 10;
    f.raft.trail.snapshot.term = 4;
    f.raft.commit_index = 10;
    for (size_t i = 0; i < 4; i++) {
        entry(&entries[i], RAFT_COMMAND, 4, (struct raft_buffer){0}, data[i]);
    }
    struct raft_message m = heartbeat(5, 7, 3);
    m.append_entries.entries = entries; /* 8..11 */
    m.append_entries.n_entries = 4;
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    assert_int_equal(f.seen[0].m.append_entries.prev_log_index, 10);
    assert_int_equal(f.seen[0].m.append_entries.prev_log_term, 4);
    assert_int_equal(f.seen[0].m.append_entries.n_entries, 1);
    assert_int_equal(f.seen[0].first_byte, 'd');
    m.append_entries.n_entries = 2; /* 8, 9: nothing new */
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen[1].m.append_entries.prev_log_index, 10);
    assert_int_equal(f.seen[1].m.append_entries.n_entries, 0);
    m = heartbeat(5, 10, 4); /* within the log: as it is */
    assert_int_equal(receive(&f, &m), 0);
    assert_int_equal(f.seen[2].m.append_entries.prev_log_index, 10);
    teardown(&f);
}

/* --- the store --- */

static void append_one(struct fixture *f, struct raft_io_append *req, unsigned type)
{
    struct raft_entry e;
    entry(&e, type, 5, (struct raft_buffer){0}, bytes);
    *req = (struct raft_io_append){.data = f};
    assert_int_equal(f->io.append(&f->io, req, &e, 1, appended), 0);
}

static void test_failed_append_ends_the_process_and_is_never_reported_stored(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_io_append req;
    setup(&f);
    append_one(&f, &req, RAFT_COMMAND);
    complete(&f, -ERR_IO);
    assert_int_equal(f.fatals, 1);
    assert_non_null(strstr(f.why, "appending"));
    assert_int_equal(f.append_done, 1);
    assert_int_not_equal(f.append_status, 0);
    /* S22: nothing leaves it afterwards. */
    struct raft_message m = heartbeat(5, 0, 0);
    send(&f, &m);
    assert_int_equal(f.sent_count, 0);
    assert_int_equal(receive(&f, &m), -ERR_CLOSED);
    assert_int_not_equal(f.io.set_vote(&f.io, PEER), 0);
    teardown(&f);
}

static void test_failed_term_or_vote_ends_the_process(void **state)
{
    (void)state;
    for (int vote = 0; vote < 2; vote++) {
        struct fixture f;
        setup(&f);
        f.store_rc = -ERR_IO;
        assert_int_not_equal(vote ? f.io.set_vote(&f.io, PEER) : f.io.set_term(&f.io, 9), 0);
        assert_int_equal(f.fatals, 1);
        teardown(&f);
    }
}

static void test_entries_are_numbered_and_truncated_only_when_there_is_something(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_io_append req;
    setup(&f);
    memset(bytes, 0x7f, sizeof bytes);
    append_one(&f, &req, RAFT_COMMAND);
    assert_int_equal(f.appended.index, 1);
    complete(&f, 0);
    assert_int_equal(f.append_status, 0);
    assert_int_equal(f.io.truncate(&f.io, 2), 0); /* libraft asks before each append */
    assert_int_equal(f.truncates, 0);
    append_one(&f, &req, RAFT_BARRIER);
    assert_int_equal(f.appended.index, 2);
    assert_memory_equal(f.appended.data.data, "\0\0\0\0\0\0\0\0", 8);
    complete(&f, 0);
    assert_int_equal(f.io.truncate(&f.io, 2), 0);
    assert_int_equal(f.truncates, 1);
    append_one(&f, &req, RAFT_COMMAND);
    assert_int_equal(f.appended.index, 2);
    complete(&f, 0);
    teardown(&f);
}

static void on_closed(struct raft_io *io)
{
    container_of(io, struct fixture, io)->closes++;
}

static void test_close_waits_for_what_the_store_still_works_on(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_io_append req;
    setup(&f);
    append_one(&f, &req, RAFT_COMMAND);
    f.io.close(&f.io, on_closed);
    assert_null(f.deferred);
    complete(&f, 0);
    assert_int_equal(f.append_status, RAFT_CANCELED);
    assert_int_equal(f.closes, 0); /* on a later turn */
    assert_non_null(f.deferred);
    f.deferred(f.deferred_arg);
    assert_int_equal(f.closes, 1);
    teardown(&f);
}

static int load_with(uint64_t term, struct raft_store_entry *entries, size_t n, uint64_t snapshot)
{
    struct fixture f;
    raft_term t;
    raft_id vote;
    struct raft_snapshot *s = NULL;
    raft_index start;
    struct raft_entry *loaded = NULL;
    size_t count = 0;
    setup(&f);
    to_load = (struct raft_store_loaded){.term = term, .entries_count = n};
    buf_init(&to_load.snapshot_conf, RAFT_MSG_CONF_MAX);
    buf_init(&to_load.snapshot_image, 1000);
    to_load.entries = xcalloc(n, sizeof *entries);
    for (size_t i = 0; i < n; i++) {
        uint8_t *copy = xmalloc(entries[i].data.len);
        memcpy(copy, entries[i].data.data, entries[i].data.len);
        to_load.entries[i] = entries[i];
        to_load.entries[i].data.data = copy;
    }
    if (snapshot != 0) {
        struct raft_configuration conf;
        (void)install(5, 1, 1, &conf);
        to_load.has_snapshot = true;
        to_load.snapshot_index = snapshot;
        to_load.snapshot_term = 2;
        to_load.snapshot_conf_index = 1;
        raft_msg_conf_encode(&conf, &to_load.snapshot_conf);
        buf_add(&to_load.snapshot_image, bytes, 8);
        raft_configuration_close(&conf);
    }
    int rv = f.io.load(&f.io, &t, &vote, &s, &start, &loaded, &count);
    if (rv == 0 && count > 0) {
        raft_free(loaded[0].batch);
        raft_free(loaded);
    }
    if (rv == 0 && s != NULL) {
        free_snapshot(s);
    }
    teardown(&f);
    return rv;
}

static void test_log_that_libraft_would_believe_is_checked_at_start(void **state)
{
    (void)state;
    struct raft_configuration conf;
    struct raft_buffer b;
    (void)install(5, 1, 1, &conf);
    assert_int_equal(raft_configuration_encode(&conf, &b), 0);
    raft_configuration_close(&conf);
    const struct raft_store_entry good[] = {
        {.index = 1, .term = 1, .type = RAFT_CHANGE, .data = blob_of(b.base, b.len)},
        {.index = 2, .term = 2, .type = RAFT_COMMAND, .data = blob_of(bytes, 8)},
        {.index = 3, .term = 2, .type = RAFT_BARRIER, .data = blob_of(bytes, 8)},
    };
    struct raft_store_entry e[3];
#define FRESH() memcpy(e, good, sizeof e)
    FRESH();
    assert_int_equal(load_with(2, e, 3, 0), 0);
    assert_int_equal(load_with(0, NULL, 0, 0), 0);
    e[2].index = 4; /* a hole */
    assert_int_equal(load_with(2, e, 3, 0), RAFT_CORRUPT);
    FRESH();
    e[2].term = 1; /* terms fall */
    assert_int_equal(load_with(2, e, 3, 0), RAFT_CORRUPT);
    FRESH();
    assert_int_equal(load_with(1, e, 3, 0), RAFT_CORRUPT); /* newer than the stored term */
    e[1].type = 7;
    assert_int_equal(load_with(2, e, 3, 0), RAFT_CORRUPT);
    FRESH();
    e[1].data.len = 7;
    assert_int_equal(load_with(2, e, 3, 0), RAFT_CORRUPT);
    FRESH();
    assert_int_equal(load_with(2, e + 1, 2, 0), RAFT_CORRUPT); /* no beginning */
    assert_int_equal(load_with(2, e + 1, 2, 2), 0);            /* it is in the snapshot */
    e[1].index = 9;
    e[2].index = 10;
    assert_int_equal(load_with(2, e + 1, 2, 5), RAFT_CORRUPT); /* a hole after the snapshot */
    FRESH();
    assert_int_equal(load_with(2, e, 3, 50), 0); /* all older than the snapshot: not needed */
    raft_free(b.base);
}

/* --- large messages --- */

static void test_large_append_entries_go_as_several_messages(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_entry entries[5];
    static uint8_t big[3u << 20];
    setup(&f);
    for (size_t i = 0; i < 5; i++) {
        entries[i] = (struct raft_entry){
            .term = 2 + i / 4, .type = RAFT_COMMAND, .buf = {.base = big, .len = sizeof big}};
    }
    struct raft_message m = heartbeat(5, 10, 2);
    m.append_entries.entries = entries;
    m.append_entries.n_entries = 5;
    send(&f, &m);
    assert_int_equal(f.sent_count, 3);
    static const struct {
        uint64_t prev, prev_term;
        unsigned n;
    } want[] = {{10, 2, 2}, {12, 2, 2}, {14, 2, 1}};
    for (size_t i = 0; i < 3; i++) {
        struct raft_message part = decode_sent(&f, i);
        assert_int_equal(part.append_entries.prev_log_index, want[i].prev);
        assert_int_equal(part.append_entries.prev_log_term, want[i].prev_term);
        assert_int_equal(part.append_entries.n_entries, want[i].n);
        raft_msg_release(&part);
    }
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_send_never_fails),
        cmocka_unit_test(test_install_snapshot_is_dropped_while_our_own_is_stored),
        cmocka_unit_test(test_second_install_snapshot_is_dropped_while_one_is_stored),
        cmocka_unit_test(test_term_that_does_not_change_is_not_written_again),
        cmocka_unit_test(test_install_snapshot_in_flight_is_not_sent_again),
        cmocka_unit_test(test_sent_snapshot_carries_the_term_of_what_was_read),
        cmocka_unit_test(test_snapshot_that_cannot_be_read_ends_the_process_and_is_not_sent),
        cmocka_unit_test(test_each_configuration_starts_a_message),
        cmocka_unit_test(test_configuration_before_a_new_one_counts_as_committed),
        cmocka_unit_test(test_answer_to_an_old_leader_has_no_garbage),
        cmocka_unit_test(test_vote_result_reaches_candidates_only),
        cmocka_unit_test(test_vote_is_asked_for_by_the_candidate_itself),
        cmocka_unit_test(test_leader_refuses_another_leader_of_its_term),
        cmocka_unit_test(test_what_contradicts_committed_entries_is_refused),
        cmocka_unit_test(test_rejection_of_what_a_member_already_stored_is_dropped),
        cmocka_unit_test(test_entries_below_our_snapshot_are_skipped),
        cmocka_unit_test(test_failed_append_ends_the_process_and_is_never_reported_stored),
        cmocka_unit_test(test_failed_term_or_vote_ends_the_process),
        cmocka_unit_test(test_entries_are_numbered_and_truncated_only_when_there_is_something),
        cmocka_unit_test(test_close_waits_for_what_the_store_still_works_on),
        cmocka_unit_test(test_log_that_libraft_would_believe_is_checked_at_start),
        cmocka_unit_test(test_large_append_entries_go_as_several_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
