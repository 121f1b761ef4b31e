/* raft_io.h between libraft and its disk. */
#include "lib/raft_io_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

static void appended(struct raft_io_append *req, int status)
{
    struct fixture *f = req->data;
    f->append_status = status;
    f->append_done++;
}

/* --- G6 --- */

static void test_term_that_does_not_change_is_not_written_again(void **state)
{
    (void)state;
    struct fixture f;
    fx_setup(&f);
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
    fx_teardown(&f);
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
    fx_setup(&f);
    /* libraft asks for (50, term 4), meanwhile the store has (60, term 5): libraft corrects the
     * index only. */
    struct raft_message m = fx_install(5, 50, 4, &conf);
    assert_int_equal(f.io.snapshot_get(&f.io, &req, got), 0);
    f.get->has_snapshot = true;
    f.get->snapshot_index = 60;
    f.get->snapshot_term = 5;
    f.get->snapshot_conf_index = 1;
    raft_msg_conf_encode(&conf, &f.get->snapshot_conf);
    buf_add(&f.get->snapshot_image, fx_image, sizeof fx_image);
    fx_complete(&f, 0);
    assert_int_equal(s->index, 60);
    m.install_snapshot.last_index = s->index;
    fx_send(&f, &m);
    struct raft_message back = fx_decode_sent(&f, 0);
    assert_int_equal(back.install_snapshot.last_index, 60);
    assert_int_equal(back.install_snapshot.last_term, 5);
    raft_msg_release(&back);
    free_snapshot(s);
    raft_configuration_close(&conf);
    fx_teardown(&f);
}

static void test_snapshot_that_cannot_be_read_ends_the_process_and_is_not_sent(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_snapshot *s = NULL;
    struct raft_io_snapshot_get req = {.data = &s};
    fx_setup(&f);
    assert_int_equal(f.io.snapshot_get(&f.io, &req, got), 0);
    fx_complete(&f, -ERR_CORRUPT);
    assert_int_equal(f.fatals, 1);
    assert_non_null(s); /* libraft would read uninitialised memory otherwise */
    assert_int_equal(s->bufs[0].len, 0);
    free_snapshot(s);
    fx_teardown(&f);
}

/* --- the store --- */

static void append_one(struct fixture *f, struct raft_io_append *req, unsigned type)
{
    struct raft_entry e;
    fx_entry(&e, type, 5, (struct raft_buffer){0}, fx_bytes);
    *req = (struct raft_io_append){.data = f};
    assert_int_equal(f->io.append(&f->io, req, &e, 1, appended), 0);
}

static void test_failed_append_ends_the_process_and_is_never_reported_stored(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_io_append req;
    fx_setup(&f);
    append_one(&f, &req, RAFT_COMMAND);
    fx_complete(&f, -ERR_IO);
    assert_int_equal(f.fatals, 1);
    assert_non_null(strstr(f.why, "appending"));
    assert_int_equal(f.append_done, 1);
    assert_int_not_equal(f.append_status, 0);
    /* S22: nothing leaves it afterwards. */
    struct raft_message m = fx_heartbeat(5, 0, 0);
    fx_send(&f, &m);
    assert_int_equal(f.sent_count, 0);
    assert_int_equal(fx_receive(&f, &m), -ERR_CLOSED);
    assert_int_not_equal(f.io.set_vote(&f.io, PEER), 0);
    fx_teardown(&f);
}

static void test_failed_term_or_vote_ends_the_process(void **state)
{
    (void)state;
    for (int vote = 0; vote < 2; vote++) {
        struct fixture f;
        fx_setup(&f);
        f.store_rc = -ERR_IO;
        assert_int_not_equal(vote ? f.io.set_vote(&f.io, PEER) : f.io.set_term(&f.io, 9), 0);
        assert_int_equal(f.fatals, 1);
        fx_teardown(&f);
    }
}

static void test_entries_are_numbered_and_truncated_only_when_there_is_something(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_io_append req;
    fx_setup(&f);
    memset(fx_bytes, 0x7f, sizeof fx_bytes);
    append_one(&f, &req, RAFT_COMMAND);
    assert_int_equal(f.appended.index, 1);
    fx_complete(&f, 0);
    assert_int_equal(f.append_status, 0);
    assert_int_equal(f.io.truncate(&f.io, 2), 0); /* libraft asks before each append */
    assert_int_equal(f.truncates, 0);
    append_one(&f, &req, RAFT_BARRIER);
    assert_int_equal(f.appended.index, 2);
    assert_memory_equal(f.appended.data.data, "\0\0\0\0\0\0\0\0", 8);
    fx_complete(&f, 0);
    assert_int_equal(f.io.truncate(&f.io, 2), 0);
    assert_int_equal(f.truncates, 1);
    append_one(&f, &req, RAFT_COMMAND);
    assert_int_equal(f.appended.index, 2);
    fx_complete(&f, 0);
    fx_teardown(&f);
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
    fx_setup(&f);
    append_one(&f, &req, RAFT_COMMAND);
    f.io.close(&f.io, on_closed);
    assert_null(f.deferred);
    fx_complete(&f, 0);
    assert_int_equal(f.append_status, RAFT_CANCELED);
    assert_int_equal(f.closes, 0); /* on a later turn */
    assert_non_null(f.deferred);
    f.deferred(f.deferred_arg);
    assert_int_equal(f.closes, 1);
    fx_teardown(&f);
}

static raft_term term_loaded;

static int load_with(uint64_t term, struct raft_store_entry *entries, size_t n, uint64_t snapshot)
{
    struct fixture f;
    raft_id vote;
    struct raft_snapshot *s = NULL;
    raft_index start;
    struct raft_entry *loaded = NULL;
    size_t count = 0;
    fx_setup(&f);
    fx_to_load = (struct raft_store_loaded){.term = term, .entries_count = n};
    buf_init(&fx_to_load.snapshot_conf, RAFT_MSG_CONF_MAX);
    buf_init(&fx_to_load.snapshot_image, 1000);
    fx_to_load.entries = xcalloc(n, sizeof *entries);
    for (size_t i = 0; i < n; i++) {
        uint8_t *copy = xmalloc(entries[i].data.len);
        memcpy(copy, entries[i].data.data, entries[i].data.len);
        fx_to_load.entries[i] = entries[i];
        fx_to_load.entries[i].data.data = copy;
    }
    if (snapshot != 0) {
        struct raft_configuration conf;
        (void)fx_install(5, 1, 1, &conf);
        fx_to_load.has_snapshot = true;
        fx_to_load.snapshot_index = snapshot;
        fx_to_load.snapshot_term = 2;
        fx_to_load.snapshot_conf_index = 1;
        raft_msg_conf_encode(&conf, &fx_to_load.snapshot_conf);
        buf_add(&fx_to_load.snapshot_image, fx_bytes, 8);
        raft_configuration_close(&conf);
    }
    int rv = f.io.load(&f.io, &term_loaded, &vote, &s, &start, &loaded, &count);
    if (rv == 0 && count > 0) {
        raft_free(loaded[0].batch);
        raft_free(loaded);
    }
    if (rv == 0 && s != NULL) {
        free_snapshot(s);
    }
    fx_teardown(&f);
    return rv;
}

static void test_log_that_libraft_would_believe_is_checked_at_start(void **state)
{
    (void)state;
    struct raft_configuration conf;
    struct raft_buffer b;
    (void)fx_install(5, 1, 1, &conf);
    assert_int_equal(raft_configuration_encode(&conf, &b), 0);
    raft_configuration_close(&conf);
    const struct raft_store_entry good[] = {
        {.index = 1, .term = 1, .type = RAFT_CHANGE, .data = blob_of(b.base, b.len)},
        {.index = 2, .term = 2, .type = RAFT_COMMAND, .data = blob_of(fx_bytes, 8)},
        {.index = 3, .term = 2, .type = RAFT_BARRIER, .data = blob_of(fx_bytes, 8)},
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
    fx_setup(&f);
    for (size_t i = 0; i < 5; i++) {
        entries[i] = (struct raft_entry){
            .term = 2 + i / 4, .type = RAFT_COMMAND, .buf = {.base = big, .len = sizeof big}};
    }
    struct raft_message m = fx_heartbeat(5, 10, 2);
    m.append_entries.entries = entries;
    m.append_entries.n_entries = 5;
    fx_send(&f, &m);
    assert_int_equal(f.sent_count, 3);
    static const struct {
        uint64_t prev, prev_term;
        unsigned n;
    } want[] = {{10, 2, 2}, {12, 2, 2}, {14, 2, 1}};
    for (size_t i = 0; i < 3; i++) {
        struct raft_message part = fx_decode_sent(&f, i);
        assert_int_equal(part.append_entries.prev_log_index, want[i].prev);
        assert_int_equal(part.append_entries.prev_log_term, want[i].prev_term);
        assert_int_equal(part.append_entries.n_entries, want[i].n);
        raft_msg_release(&part);
    }
    fx_teardown(&f);
}

/* --- G20 --- */

static raft_term term_after_start(const int *roles, size_t n)
{
    struct raft_configuration conf;
    struct raft_buffer b;
    raft_configuration_init(&conf);
    for (size_t i = 0; i < n; i++) {
        char address[] = "a";
        address[0] = (char)('a' + i);
        assert_int_equal(raft_configuration_add(&conf, SELF + i, address, roles[i]), 0);
    }
    assert_int_equal(raft_configuration_encode(&conf, &b), 0);
    raft_configuration_close(&conf);
    struct raft_store_entry e[] = {
        {.index = 1, .term = 1, .type = RAFT_CHANGE, .data = blob_of(b.base, b.len)},
        {.index = 2, .term = 2, .type = RAFT_COMMAND, .data = blob_of(fx_bytes, 8)},
    };
    assert_int_equal(load_with(7, e, 2, 0), 0);
    raft_free(b.base);
    return term_loaded;
}

static void test_lone_voter_starts_in_a_new_term(void **state)
{
    (void)state;
    assert_int_equal(term_after_start((int[]){RAFT_VOTER}, 1), 8);
    assert_int_equal(term_after_start((int[]){RAFT_VOTER, RAFT_STANDBY}, 2), 8);
    assert_int_equal(term_after_start((int[]){RAFT_VOTER, RAFT_VOTER}, 2), 7);
    assert_int_equal(term_after_start((int[]){RAFT_STANDBY, RAFT_VOTER}, 2), 7);
}

/* --- G22 --- */

static struct raft_message asks_for_a_vote(void)
{
    return (struct raft_message){.type = RAFT_REQUEST_VOTE,
                                 .request_vote = {.version = 2,
                                                  .term = 9,
                                                  .candidate_id = PEER,
                                                  .last_log_index = 50,
                                                  .last_log_term = 7}};
}

static void test_member_without_its_log_gives_no_vote_before_it_has_caught_up(void **state)
{
    (void)state;
    struct fixture f;
    raft_term term;
    raft_id vote;
    struct raft_snapshot *s = NULL;
    raft_index start;
    struct raft_entry *entries = NULL;
    size_t n;
    fx_setup(&f);
    fx_to_load = (struct raft_store_loaded){.term = 7, .vote = PEER, .silent_until = 1};
    assert_int_equal(f.io.load(&f.io, &term, &vote, &s, &start, &entries, &n), 0);
    assert_int_equal(vote, PEER);
    struct raft_message m = asks_for_a_vote();
    assert_int_equal(fx_receive(&f, &m), 0);
    struct raft_message now = {.type = RAFT_TIMEOUT_NOW,
                               .timeout_now = {.version = 1, .term = 7, .last_log_index = 0}};
    assert_int_equal(fx_receive(&f, &now), 0);
    assert_int_equal(f.seen_count, 0);
    struct raft_io_append append;
    append_one(&f, &append, RAFT_COMMAND);
    fx_complete(&f, 0);
    m = asks_for_a_vote();
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    fx_teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_term_that_does_not_change_is_not_written_again),
        cmocka_unit_test(test_sent_snapshot_carries_the_term_of_what_was_read),
        cmocka_unit_test(test_snapshot_that_cannot_be_read_ends_the_process_and_is_not_sent),
        cmocka_unit_test(test_failed_append_ends_the_process_and_is_never_reported_stored),
        cmocka_unit_test(test_failed_term_or_vote_ends_the_process),
        cmocka_unit_test(test_entries_are_numbered_and_truncated_only_when_there_is_something),
        cmocka_unit_test(test_close_waits_for_what_the_store_still_works_on),
        cmocka_unit_test(test_log_that_libraft_would_believe_is_checked_at_start),
        cmocka_unit_test(test_large_append_entries_go_as_several_messages),
        cmocka_unit_test(test_lone_voter_starts_in_a_new_term),
        cmocka_unit_test(test_member_without_its_log_gives_no_vote_before_it_has_caught_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
