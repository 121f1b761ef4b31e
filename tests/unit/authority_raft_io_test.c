/* The guards of raft_io.h between libraft and its peers, one test each. */
#include "lib/raft_io_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

static void put_done(struct raft_io_snapshot_put *req, int status)
{
    (void)req;
    (void)status;
}

/* --- G1 --- */

static void test_send_never_fails(void **state)
{
    (void)state;
    struct fixture f;
    fx_setup(&f);
    struct raft_message unknown = {.type = (enum raft_message_type)99};
    fx_send(&f, &unknown);
    assert_int_equal(f.sends_done, 1);
    assert_int_equal(f.sent_count, 0);
    struct raft_message m = fx_heartbeat(5, 0, 0);
    fx_send(&f, &m);
    assert_int_equal(f.sends_done, 2);
    assert_int_equal(f.sent_count, 1);
    fx_teardown(&f);
}

/* --- G4 --- */

static void test_install_snapshot_is_dropped_while_our_own_is_stored(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    fx_setup(&f);
    struct raft_message m = fx_install(5, 50, 4, &conf);
    struct raft_buffer image = {.base = fx_image, .len = sizeof fx_image};
    struct raft_snapshot snap = {.index = 9,
                                 .term = 3,
                                 .configuration = conf,
                                 .configuration_index = 1,
                                 .bufs = &image,
                                 .n_bufs = 1};
    struct raft_io_snapshot_put put = {.data = &f};
    assert_int_equal(f.io.snapshot_put(&f.io, 2048, &put, &snap, put_done), 0);
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 0);
    fx_complete(&f, 0);
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    raft_configuration_close(&conf);
    fx_teardown(&f);
}

/* --- G15 --- */

static void test_second_install_snapshot_is_dropped_while_one_is_stored(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    fx_setup(&f);
    struct raft_message m = fx_install(5, 50, 4, &conf);
    f.raft.snapshot.installing = true;
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 0);
    f.raft.snapshot.installing = false;
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    raft_configuration_close(&conf);
    fx_teardown(&f);
}

/* --- G7 --- */

static void test_install_snapshot_in_flight_is_not_sent_again(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    fx_setup(&f);
    struct raft_message m = fx_install(5, 50, 4, &conf);
    fx_send(&f, &m);
    assert_int_equal(f.sent_count, 1);
    f.in_flight = true;
    fx_send(&f, &m);
    assert_int_equal(f.sent_count, 1);
    assert_int_equal(f.sends_done, 2);
    struct raft_message h = fx_heartbeat(5, 0, 0); /* heartbeats go on */
    fx_send(&f, &h);
    assert_int_equal(f.sent_count, 2);
    raft_configuration_close(&conf);
    fx_teardown(&f);
}

/* --- G9 --- */

static void test_each_configuration_starts_a_message(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    struct raft_buffer encoded;
    struct raft_entry entries[5];
    static uint8_t data[5][8] = {"0", "1", "2", "3", "4"};
    fx_setup(&f);
    (void)fx_install(5, 1, 1, &conf);
    assert_int_equal(raft_configuration_encode(&conf, &encoded), 0);
    static const unsigned types[] = {RAFT_COMMAND, RAFT_CHANGE, RAFT_COMMAND, RAFT_CHANGE,
                                     RAFT_CHANGE};
    for (size_t i = 0; i < 5; i++) {
        fx_entry(&entries[i], types[i], 3 + i / 3, encoded, data[i]);
    }
    struct raft_message m = fx_heartbeat(5, 10, 3);
    m.append_entries.entries = entries;
    m.append_entries.n_entries = 5;
    m.append_entries.leader_commit = 12;
    assert_int_equal(fx_receive(&f, &m), 0);
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
    fx_teardown(&f);
}

static void test_configuration_before_a_new_one_counts_as_committed(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    struct raft_buffer encoded;
    struct raft_entry e;
    static const uint64_t terms[] = {3, 3, 3};
    fx_setup(&f);
    fx_set_log(&f, 10, terms, 3);
    f.raft.commit_index = 9;
    (void)fx_install(5, 1, 1, &conf);
    assert_int_equal(raft_configuration_encode(&conf, &encoded), 0);
    assert_int_equal(raft_configuration_add(&f.raft.configuration, SELF, "a", RAFT_VOTER), 0);
    f.raft.configuration_uncommitted_index = 11;
    fx_entry(&e, RAFT_CHANGE, 5, encoded, NULL);
    struct raft_message m = fx_heartbeat(5, 12, 4); /* not what we hold at 12: proves nothing */
    m.append_entries.entries = &e;
    m.append_entries.n_entries = 1;
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.raft.configuration_uncommitted_index, 11);
    m.append_entries.prev_log_term = 3;
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.raft.configuration_uncommitted_index, 0);
    assert_int_equal(f.raft.configuration_committed_index, 11);
    assert_int_equal(f.raft.configuration_committed.n, 1);
    raft_configuration_close(&f.raft.configuration);
    raft_configuration_close(&f.raft.configuration_committed);
    raft_free(encoded.base);
    raft_configuration_close(&conf);
    fx_teardown(&f);
}

/* --- G10 --- */

static struct fixture *answering;
static void answer_stale(struct raft_io *io, struct raft_message *m)
{
    /* What libraft 0.22.1 answers to an old leader: last_log_index is whatever was on the stack. */
    struct raft_message r = {.type = RAFT_APPEND_ENTRIES_RESULT,
                             .append_entries_result = {.version = 2,
                                                       .term = 6,
                                                       .rejected = m->append_entries.prev_log_index,
                                                       .last_log_index = 123456}};
    (void)io;
    raft_msg_release(m);
    fx_send(answering, &r);
}

static void test_answer_to_an_old_leader_has_no_garbage(void **state)
{
    (void)state;
    struct fixture f;
    fx_setup(&f);
    answering = &f;
    f.raft.current_term = 6;
    assert_int_equal(f.io.start(&f.io, 50, fx_on_tick, answer_stale), 0);
    struct raft_message m = fx_heartbeat(5, 0, 0);
    assert_int_equal(fx_receive(&f, &m), 0);
    m = fx_heartbeat(5, 9, 4);
    assert_int_equal(fx_receive(&f, &m), 0);
    struct raft_message a = fx_decode_sent(&f, 0);
    assert_int_equal(a.append_entries_result.last_log_index, 0);
    a = fx_decode_sent(&f, 1);
    assert_int_equal(a.append_entries_result.rejected, 9);
    assert_int_equal(a.append_entries_result.last_log_index, 8);
    /* An answer that belongs to no old message is sent as it is. */
    struct raft_message r = {
        .type = RAFT_APPEND_ENTRIES_RESULT,
        .append_entries_result = {.version = 2, .term = 6, .last_log_index = 77}};
    fx_send(&f, &r);
    a = fx_decode_sent(&f, 2);
    assert_int_equal(a.append_entries_result.last_log_index, 77);
    fx_teardown(&f);
}

/* --- G11 --- */

static void test_vote_result_reaches_candidates_only(void **state)
{
    (void)state;
    struct fixture f;
    fx_setup(&f);
    struct raft_message m = {
        .type = RAFT_REQUEST_VOTE_RESULT,
        .request_vote_result = {.version = 2, .term = 9, .vote_granted = true}};
    assert_int_equal(fx_receive(&f, &m), 0);
    f.raft.state = RAFT_LEADER;
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 0);
    f.raft.state = RAFT_CANDIDATE;
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    fx_teardown(&f);
}

static void test_vote_is_asked_for_by_the_candidate_itself(void **state)
{
    (void)state;
    struct fixture f;
    fx_setup(&f);
    struct raft_message m = {.type = RAFT_REQUEST_VOTE,
                             .request_vote = {.version = 2, .term = 9, .candidate_id = 3}};
    assert_int_equal(fx_receive(&f, &m), -ERR_MALFORMED);
    assert_int_equal(f.seen_count, 0);
    assert_int_equal(raft_io_heard_ms(&f.io, PEER), 0);
    m.request_vote.candidate_id = PEER;
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    assert_int_equal(f.seen[0].m.server_id, PEER);
    assert_int_equal(raft_io_heard_ms(&f.io, PEER), 5000);
    fx_teardown(&f);
}

/* --- G12 --- */

static void test_leader_refuses_another_leader_of_its_term(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    fx_setup(&f);
    f.raft.state = RAFT_LEADER;
    struct raft_message m = fx_heartbeat(5, 0, 0);
    assert_int_equal(fx_receive(&f, &m), -ERR_MALFORMED);
    struct raft_message s = fx_install(5, 50, 4, &conf);
    assert_int_equal(fx_receive(&f, &s), -ERR_MALFORMED);
    assert_int_equal(f.seen_count, 0);
    m.append_entries.term = 6;
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    raft_configuration_close(&conf);
    fx_teardown(&f);
}

static void test_what_contradicts_committed_entries_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration conf;
    struct raft_entry e;
    static const uint64_t terms[] = {2, 2, 3, 3}; /* 10..13 */
    fx_setup(&f);
    fx_set_log(&f, 10, terms, 4);
    f.raft.commit_index = 12;
    fx_entry(&e, RAFT_COMMAND, 5, (struct raft_buffer){0}, fx_bytes);
    struct raft_message m = fx_heartbeat(5, 11, 1); /* before: we hold term 2 */
    assert_int_equal(fx_receive(&f, &m), -ERR_DIVERGED);
    m = fx_heartbeat(5, 11, 2); /* entry 12 of term 5: we committed one of term 3 */
    m.append_entries.entries = &e;
    m.append_entries.n_entries = 1;
    assert_int_equal(fx_receive(&f, &m), -ERR_DIVERGED);
    m.append_entries.prev_log_index = 12; /* 13 is not committed: libraft replaces it */
    m.append_entries.prev_log_term = 3;
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    struct raft_message s = fx_install(5, 12, 4, &conf);
    assert_int_equal(fx_receive(&f, &s), -ERR_DIVERGED);
    s.install_snapshot.last_term = 3;
    assert_int_equal(fx_receive(&f, &s), 0);
    assert_int_equal(f.seen_count, 2);
    raft_configuration_close(&conf);
    fx_teardown(&f);
}

/* --- G13 --- */

static void test_rejection_of_what_a_member_already_stored_is_dropped(void **state)
{
    (void)state;
    struct fixture f;
    uint64_t progress[64]; /* libraft's own struct: whatever it looks at in there is a 7 */
    fx_setup(&f);
    for (size_t i = 0; i < ARRAY_SIZE(progress); i++) {
        progress[i] = 7;
    }
    assert_int_equal(raft_configuration_add(&f.raft.configuration, PEER, "b", RAFT_VOTER), 0);
    f.raft.state = RAFT_LEADER;
    f.raft.leader_state.progress = (void *)progress;
    struct raft_message m = {
        .type = RAFT_APPEND_ENTRIES_RESULT,
        .append_entries_result = {.version = 2, .term = 5, .rejected = 7, .last_log_index = 6}};
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 0);
    m.append_entries_result.rejected = 12;
    m.append_entries_result.last_log_index = 3; /* it stored 7 since */
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    assert_int_equal(f.seen[0].m.append_entries_result.last_log_index, 7);
    raft_configuration_close(&f.raft.configuration);
    fx_teardown(&f);
}

/* --- G14 --- */

static void test_entries_below_our_snapshot_are_skipped(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_entry entries[4];
    static uint8_t data[4][8] = {"a", "b", "c", "d"};
    static const uint64_t terms[] = {4};
    fx_setup(&f);
    fx_set_log(&f, 10, terms, 1); /* 10 is what is left; 1..9 are in the snapshot at 10 */
    f.raft.trail.snapshot.index = 10;
    f.raft.trail.snapshot.term = 4;
    f.raft.commit_index = 10;
    for (size_t i = 0; i < 4; i++) {
        fx_entry(&entries[i], RAFT_COMMAND, 4, (struct raft_buffer){0}, data[i]);
    }
    struct raft_message m = fx_heartbeat(5, 7, 3);
    m.append_entries.entries = entries; /* 8..11 */
    m.append_entries.n_entries = 4;
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    assert_int_equal(f.seen[0].m.append_entries.prev_log_index, 10);
    assert_int_equal(f.seen[0].m.append_entries.prev_log_term, 4);
    assert_int_equal(f.seen[0].m.append_entries.n_entries, 1);
    assert_int_equal(f.seen[0].first_byte, 'd');
    m.append_entries.n_entries = 2; /* 8, 9: nothing new */
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen[1].m.append_entries.prev_log_index, 10);
    assert_int_equal(f.seen[1].m.append_entries.n_entries, 0);
    m = fx_heartbeat(5, 10, 4); /* within the log: as it is */
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen[2].m.append_entries.prev_log_index, 10);
    fx_teardown(&f);
}

/* --- G18 --- */

static int receive_from(struct fixture *f, raft_id from, const struct raft_message *m)
{
    struct buf out;
    buf_init(&out, RAFT_FRAME_MAX);
    assert_int_equal(raft_msg_encode(m, NULL, &out), 0);
    int rc = raft_io_receive(&f->io, from, buf_blob(&out));
    buf_fini(&out);
    return rc;
}

/* Whether a follower whose leader was last heard so long ago would still refuse its vote for the
 * leader's sake. */
static bool has_leader_after(uint64_t silent_ms, bool installing)
{
    struct fixture f;
    fx_setup(&f);
    f.raft.follower_state.current_leader.id = PEER;
    f.raft.follower_state.current_leader.address = raft_malloc(8);
    f.raft.snapshot.installing = installing;
    struct raft_message heartbeat = fx_heartbeat(5, 0, 0);
    assert_int_equal(fx_receive(&f, &heartbeat), 0);
    f.now_ms += silent_ms;
    struct raft_message vote = {
        .type = RAFT_REQUEST_VOTE,
        .request_vote = {.version = 2, .term = 6, .candidate_id = PEER + 1, .pre_vote = true}};
    assert_int_equal(receive_from(&f, PEER + 1, &vote), 0);
    assert_int_equal(f.seen_count, 2);
    bool has = f.raft.follower_state.current_leader.id == PEER;
    assert_true(has == (f.raft.follower_state.current_leader.address != NULL));
    raft_free(f.raft.follower_state.current_leader.address);
    fx_teardown(&f);
    return has;
}

static void test_leader_counts_against_a_vote_only_while_it_is_heard(void **state)
{
    (void)state;
    assert_true(has_leader_after(0, false));
    assert_true(has_leader_after(449, false));
    assert_false(has_leader_after(450, false));
    assert_false(has_leader_after(900, false));
    assert_true(has_leader_after(900, true)); /* it votes for nobody then */
}

/* --- G21 --- */

static void test_member_that_does_not_vote_yet_answers_who_counts_its_vote(void **state)
{
    (void)state;
    struct fixture f;
    fx_setup(&f);
    assert_int_equal(raft_configuration_add(&f.raft.configuration, SELF, "self", RAFT_STANDBY), 0);
    assert_int_equal(raft_configuration_add(&f.raft.configuration, PEER, "peer", RAFT_VOTER), 0);
    struct raft_message m = {.type = RAFT_REQUEST_VOTE,
                             .request_vote = {.version = 2, .term = 9, .candidate_id = PEER}};
    assert_int_equal(fx_receive(&f, &m), 0);
    assert_int_equal(f.seen_count, 1);
    assert_int_equal(f.seen[0].own_role, RAFT_VOTER); /* as libraft saw it */
    assert_int_equal(f.raft.configuration.servers[0].role, RAFT_STANDBY);
    struct raft_message heartbeat = fx_heartbeat(9, 0, 0);
    assert_int_equal(fx_receive(&f, &heartbeat), 0);
    assert_int_equal(f.seen[1].own_role, RAFT_STANDBY); /* for nothing else */
    raft_configuration_close(&f.raft.configuration);
    fx_teardown(&f);
}

/* --- G19 --- */

static unsigned entries_sent(struct fixture *f)
{
    unsigned n = 0;
    for (size_t i = 0; i < f->sent_count; i++) {
        struct raft_message m = fx_decode_sent(f, i);
        n += m.append_entries.n_entries;
        raft_msg_release(&m);
        buf_fini(&f->sent[i]);
    }
    f->sent_count = 0;
    return n;
}

/* Four entries of 40 KiB behind `prev`. */
static unsigned send_four(struct fixture *f, uint64_t prev)
{
    static uint8_t data[40 << 10];
    struct raft_entry e[4];
    for (size_t i = 0; i < ARRAY_SIZE(e); i++) {
        fx_entry(&e[i], RAFT_COMMAND, 5, (struct raft_buffer){0}, data);
        e[i].buf.len = sizeof data;
    }
    struct raft_message m = fx_heartbeat(5, prev, 4);
    m.append_entries.entries = e;
    m.append_entries.n_entries = 4;
    fx_send(f, &m);
    return entries_sent(f);
}

static void test_entries_a_silent_member_did_not_answer_are_not_all_sent_again(void **state)
{
    (void)state;
    struct fixture f;
    fx_setup(&f);
    assert_int_equal(send_four(&f, 10), 4);
    f.now_ms += 50;
    assert_int_equal(send_four(&f, 10), 1);
    f.now_ms += 50;
    assert_int_equal(send_four(&f, 10), 1);
    struct raft_message heartbeat = fx_heartbeat(5, 0, 0);
    assert_int_equal(fx_receive(&f, &heartbeat), 0);
    assert_int_equal(send_four(&f, 10), 4); /* it is back */
    f.now_ms += 50;
    assert_int_equal(send_four(&f, 14), 4); /* goes on from another place */
    fx_teardown(&f);
}

static void test_nothing_more_is_encoded_for_a_member_that_cannot_be_reached(void **state)
{
    (void)state;
    static uint8_t data[3 << 20];
    struct fixture f;
    struct raft_entry e[4];
    fx_setup(&f);
    for (size_t i = 0; i < ARRAY_SIZE(e); i++) {
        fx_entry(&e[i], RAFT_COMMAND, 5, (struct raft_buffer){0}, data);
        e[i].buf.len = sizeof data;
    }
    struct raft_message m = fx_heartbeat(5, 10, 4);
    m.append_entries.entries = e;
    m.append_entries.n_entries = 4;
    fx_send(&f, &m);
    assert_int_equal(f.sent_count, 2);
    assert_int_equal(entries_sent(&f), 4);
    f.unreachable = true;
    m.append_entries.prev_log_index = 14;
    fx_send(&f, &m);
    assert_int_equal(f.sent_count, 1);
    assert_int_equal(entries_sent(&f), 2);
    fx_teardown(&f);
}

/* --- G23 --- */

/* Of what follows on 10: a command, a change after which PEER has this role (RAFT_SPARE: it is no member), and a
 * command. */
static unsigned sent_with_change(struct fixture *f, int role, uint64_t commit)
{
    struct raft_configuration conf;
    struct raft_buffer encoded;
    struct raft_entry e[3];
    static uint8_t data[2][8];
    raft_configuration_init(&conf);
    assert_int_equal(raft_configuration_add(&conf, SELF, "a", RAFT_VOTER), 0);
    if (role != RAFT_SPARE) {
        assert_int_equal(raft_configuration_add(&conf, PEER, "b", role), 0);
    }
    assert_int_equal(raft_configuration_encode(&conf, &encoded), 0);
    fx_entry(&e[0], RAFT_COMMAND, 5, encoded, data[0]);
    fx_entry(&e[1], RAFT_CHANGE, 5, encoded, NULL);
    fx_entry(&e[2], RAFT_COMMAND, 5, encoded, data[1]);
    struct raft_message m = fx_heartbeat(5, 10, 4);
    m.append_entries.entries = e;
    m.append_entries.n_entries = 3;
    m.append_entries.leader_commit = commit;
    fx_send(f, &m);
    assert_int_equal(f->sent_count, 1); /* a heartbeat at least */
    raft_free(encoded.base);
    raft_configuration_close(&conf);
    return entries_sent(f);
}

static void test_who_loses_its_vote_hears_of_it_when_it_is_committed(void **state)
{
    (void)state;
    struct fixture f;
    struct raft_configuration *conf = &f.raft.configuration_committed;
    fx_setup(&f);
    raft_configuration_init(conf);
    assert_int_equal(raft_configuration_add(conf, SELF, "a", RAFT_VOTER), 0);
    assert_int_equal(raft_configuration_add(conf, PEER, "b", RAFT_VOTER), 0);
    assert_int_equal(sent_with_change(&f, RAFT_STANDBY, 11), 1);
    assert_int_equal(sent_with_change(&f, RAFT_SPARE, 11), 1);
    assert_int_equal(sent_with_change(&f, RAFT_STANDBY, 12), 3);
    assert_int_equal(sent_with_change(&f, RAFT_VOTER, 11), 3);
    conf->servers[1].role = RAFT_STANDBY; /* it has no vote to lose */
    assert_int_equal(sent_with_change(&f, RAFT_STANDBY, 11), 3);
    raft_configuration_close(conf);
    fx_teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_loses_its_vote_hears_of_it_when_it_is_committed),
        cmocka_unit_test(test_entries_a_silent_member_did_not_answer_are_not_all_sent_again),
        cmocka_unit_test(test_nothing_more_is_encoded_for_a_member_that_cannot_be_reached),
        cmocka_unit_test(test_leader_counts_against_a_vote_only_while_it_is_heard),
        cmocka_unit_test(test_send_never_fails),
        cmocka_unit_test(test_install_snapshot_is_dropped_while_our_own_is_stored),
        cmocka_unit_test(test_second_install_snapshot_is_dropped_while_one_is_stored),
        cmocka_unit_test(test_install_snapshot_in_flight_is_not_sent_again),
        cmocka_unit_test(test_each_configuration_starts_a_message),
        cmocka_unit_test(test_configuration_before_a_new_one_counts_as_committed),
        cmocka_unit_test(test_answer_to_an_old_leader_has_no_garbage),
        cmocka_unit_test(test_vote_result_reaches_candidates_only),
        cmocka_unit_test(test_vote_is_asked_for_by_the_candidate_itself),
        cmocka_unit_test(test_member_that_does_not_vote_yet_answers_who_counts_its_vote),
        cmocka_unit_test(test_leader_refuses_another_leader_of_its_term),
        cmocka_unit_test(test_what_contradicts_committed_entries_is_refused),
        cmocka_unit_test(test_rejection_of_what_a_member_already_stored_is_dropped),
        cmocka_unit_test(test_entries_below_our_snapshot_are_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
