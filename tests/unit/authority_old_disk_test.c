/* A member of another epoch, and one whose store holds less than it acknowledged, are not heard
 * (docs/decisions/0007). */
#include "lib/raft_io_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

/* A heartbeat of a leader, or to us as leader an acknowledgement. */
static int receive_as(struct fixture *f, const struct raft_digest *d)
{
    struct raft_message m = fx_heartbeat(5, 0, 0);
    if (f->raft.state == RAFT_LEADER) {
        m = (struct raft_message){.type = RAFT_APPEND_ENTRIES_RESULT,
                                  .append_entries_result = {.version = 2, .term = 5}};
    }
    struct buf bytes;
    buf_init(&bytes, RAFT_FRAME_MAX);
    assert_int_equal(raft_msg_encode(&m, d, &bytes), 0);
    int rc = raft_io_receive(&f->io, PEER, buf_blob(&bytes));
    buf_fini(&bytes);
    return rc;
}

static unsigned others_heard;
static struct raft_old_disk old_disk;

static void on_other_epoch(void *data, raft_id from, uint64_t epoch)
{
    (void)data;
    assert_int_equal(from, PEER);
    assert_int_equal(epoch, 2);
    others_heard++;
}

static bool is_accused(const struct fixture *f)
{
    return raft_io_has_old_disk(&f->io, PEER, &old_disk);
}

static void test_message_of_another_epoch_never_reaches_libraft(void **state)
{
    (void)state;
    struct fixture f;
    fx_setup(&f);
    others_heard = 0;
    f.env.other_epoch = on_other_epoch;
    struct raft_digest d = {.epoch = 2, .lineage = {1}};
    assert_int_equal(receive_as(&f, &d), 0);
    assert_int_equal(f.seen_count, 0);
    assert_int_equal(others_heard, 1);
    assert_int_equal(raft_io_heard_ms(&f.io, PEER), 0);
    d = (struct raft_digest){.epoch = 1};
    assert_int_equal(receive_as(&f, &d), 0);
    assert_int_equal(f.seen_count, 1);
    raft_io_fence(&f.io);
    assert_int_equal(receive_as(&f, &d), 0);
    assert_int_equal(f.seen_count, 1);
    fx_teardown(&f);
}

static uint64_t now_ms;

static uint64_t later(void *data)
{
    (void)data;
    return now_ms;
}

/* Says the same n times over this long; how many of the messages reached libraft. */
static size_t keep_talking(struct fixture *f, const struct raft_digest *d, unsigned n, uint64_t ms)
{
    size_t before = f->seen_count;
    for (unsigned i = 0; i < n; i++) {
        now_ms += ms / n;
        assert_int_equal(receive_as(f, d), 0);
    }
    return f->seen_count - before;
}

static void test_voter_that_starts_below_a_term_it_acted_in_is_not_heard(void **state)
{
    (void)state;
    struct fixture f;
    fx_setup(&f);
    now_ms = 1000;
    f.env.mono_ms = later;
    assert_int_equal(raft_configuration_add(&f.raft.configuration, PEER, "peer", RAFT_VOTER), 0);
    const struct raft_digest good = {.boot = 11, .boot_term = 3, .boot_index = 9};
    const struct raft_digest old = {.boot = 12, .boot_term = 4, .boot_index = 9};
    assert_int_equal(keep_talking(&f, &good, 1, 1), 1); /* acts in term 5 */
    assert_int_equal(keep_talking(&f, &old, 6, 600), 0);
    assert_false(is_accused(&f)); /* it may be a straggler of an earlier start */
    assert_int_equal(keep_talking(&f, &good, 1, 1), 1);
    assert_int_equal(keep_talking(&f, &old, 20, 2400), 0);
    assert_false(is_accused(&f)); /* what came before the other was heard does not count */
    assert_int_equal(keep_talking(&f, &old, 4, 800), 0);
    assert_true(is_accused(&f));
    assert_int_equal(old_disk.acked_term, 5);
    assert_int_equal(old_disk.shown_term, 4);
    /* A straggler of the start before neither clears it nor is heard. */
    assert_int_equal(keep_talking(&f, &good, 1, 1), 0);
    assert_int_equal(keep_talking(&f, &old, 20, 5000), 0);
    assert_true(is_accused(&f));
    /* Out of the vote it may catch up, and its word counts anew. */
    f.raft.configuration.servers[0].role = RAFT_SPARE;
    assert_int_equal(keep_talking(&f, &old, 1, 1), 1);
    assert_false(is_accused(&f));
    raft_configuration_close(&f.raft.configuration);
    raft_configuration_init(&f.raft.configuration);
    fx_teardown(&f);
}

static void stored(struct raft_io_append *req, int status)
{
    (void)req;
    assert_int_equal(status, 0);
}

/* A configuration in which PEER has this role is stored, and so in force. Nothing of PEER is heard meanwhile. */
static void configure(struct fixture *f, int role)
{
    struct raft_buffer encoded;
    struct raft_entry e;
    struct raft_io_append req = {.data = f};
    f->raft.configuration.servers[0].role = role;
    assert_int_equal(raft_configuration_encode(&f->raft.configuration, &encoded), 0);
    fx_entry(&e, RAFT_CHANGE, 5, encoded, NULL);
    assert_int_equal(f->io.append(&f->io, &req, &e, 1, stored), 0);
    fx_complete(f, 0);
    raft_free(encoded.base);
}

/* One with an old disk left the vote and came in again, still in the start that showed less. A member that heard
 * nothing of it in between, and knew it from before, must not accuse it once more when it hears it as leader. */
static void test_healed_voter_is_not_accused_by_an_old_memory(void **state)
{
    (void)state;
    static const struct raft_digest good = {.boot = 11, .boot_term = 3, .boot_index = 9};
    static const struct raft_digest old = {.boot = 12, .boot_term = 4, .boot_index = 9};
    for (int accused_before = 0; accused_before < 2; accused_before++) {
        struct fixture f;
        fx_setup(&f);
        now_ms = 1000;
        f.env.mono_ms = later;
        assert_int_equal(raft_configuration_add(&f.raft.configuration, PEER, "peer", RAFT_VOTER),
                         0);
        assert_int_equal(keep_talking(&f, &good, 1, 1), 1);
        if (accused_before) {
            assert_int_equal(keep_talking(&f, &old, 20, 5000), 0);
            assert_true(is_accused(&f));
        }
        configure(&f, RAFT_STANDBY);
        assert_false(is_accused(&f));
        configure(&f, RAFT_VOTER);
        f.seen_count = 0;
        assert_int_equal(keep_talking(&f, &old, 4, 5000), 4);
        assert_false(is_accused(&f));
        /* From here on it is held to what it says now. */
        const struct raft_digest older = {.boot = 13, .boot_term = 4, .boot_index = 9};
        assert_int_equal(keep_talking(&f, &older, 20, 5000), 0);
        assert_true(is_accused(&f));
        raft_configuration_close(&f.raft.configuration);
        raft_configuration_init(&f.raft.configuration);
        fx_teardown(&f);
    }
}

/* A torn write at its log's end: it would wait for that entry for ever, which the leader takes for stored (G13). */
static void test_last_acknowledged_entry_is_missed_before_the_member_speaks_of_it_again(
    void **state)
{
    (void)state;
    static const struct raft_digest good = {.boot = 11, .boot_term = 5, .boot_index = 3};
    static const struct raft_digest torn = {.boot = 12, .boot_term = 5, .boot_index = 6};
    static const struct raft_digest whole = {.boot = 13, .boot_term = 5, .boot_index = 7};
    uint64_t progress[64]; /* libraft's own struct: whatever it looks at in there is a 7 */
    struct fixture f;
    fx_setup(&f);
    for (size_t i = 0; i < ARRAY_SIZE(progress); i++) {
        progress[i] = 7;
    }
    now_ms = 1000;
    f.env.mono_ms = later;
    assert_int_equal(raft_configuration_add(&f.raft.configuration, PEER, "peer", RAFT_VOTER), 0);
    f.raft.state = RAFT_LEADER;
    f.raft.commit_index = 6;
    f.raft.leader_state.progress = (void *)progress;
    assert_int_equal(keep_talking(&f, &good, 1, 1), 1);
    assert_int_equal(keep_talking(&f, &torn, 20, 5000), 0);
    assert_true(is_accused(&f));
    assert_int_equal(old_disk.acked_index, 7);
    assert_int_equal(old_disk.shown_index, 6);
    assert_int_equal(keep_talking(&f, &whole, 1, 1), 1);
    assert_false(is_accused(&f));
    /* Without a vote it is heard, and known to need another start in the configuration. */
    f.raft.configuration.servers[0].role = RAFT_STANDBY;
    assert_false(raft_io_lost_tail(&f.io, PEER));
    const struct raft_digest again = {.boot = 14, .boot_term = 5, .boot_index = 6};
    f.seen_count = 0;
    assert_int_equal(keep_talking(&f, &again, 4, 5000), 4);
    assert_true(raft_io_lost_tail(&f.io, PEER));
    assert_false(is_accused(&f));
    f.raft.current_term++; /* what it had in another term of ours is gone with that */
    assert_false(raft_io_lost_tail(&f.io, PEER));
    f.raft.state = RAFT_FOLLOWER;
    raft_configuration_close(&f.raft.configuration);
    raft_configuration_init(&f.raft.configuration);
    fx_teardown(&f);
}

static void test_restart_without_a_loss_is_none(void **state)
{
    (void)state;
    struct fixture f;
    fx_setup(&f);
    assert_int_equal(raft_configuration_add(&f.raft.configuration, PEER, "peer", RAFT_VOTER), 0);
    struct raft_digest d = {.boot = 11, .boot_term = 3, .boot_index = 9};
    assert_int_equal(receive_as(&f, &d), 0);
    d = (struct raft_digest){.boot = 12, .boot_term = 5, .boot_index = 9};
    assert_int_equal(receive_as(&f, &d), 0);
    assert_int_equal(f.seen_count, 2);
    assert_false(is_accused(&f));
    raft_configuration_close(&f.raft.configuration);
    raft_configuration_init(&f.raft.configuration);
    fx_teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_of_another_epoch_never_reaches_libraft),
        cmocka_unit_test(test_voter_that_starts_below_a_term_it_acted_in_is_not_heard),
        cmocka_unit_test(test_healed_voter_is_not_accused_by_an_old_memory),
        cmocka_unit_test(
            test_last_acknowledged_entry_is_missed_before_the_member_speaks_of_it_again),
        cmocka_unit_test(test_restart_without_a_loss_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
