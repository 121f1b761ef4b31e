/* The edges of core.h: proposals, quorum, reads, closing. */
#include "lib/core_asked.h"

/* --- proposals --- */

static void test_only_voter_leads_at_once_and_commits(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a;
    core_cluster_init(&c, 1, 1);
    core_cluster_run(&c, 20); /* no election timeout is waited for */
    assert_int_equal(core_cluster_status(&c, 0).role, CORE_LEADER);
    assert_int_equal(propose(&c, 0, &a, 1), 0);
    assert_int_equal(a.calls, 0); /* never inside the call */
    core_cluster_run(&c, 50);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.rc, 0);
    core_cluster_fini(&c);
}

static void test_command_is_answered_when_a_majority_has_it(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a;
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    /* One follower's disk does not answer: two of three do. */
    c.nodes[other(leader)].disk_stuck = true;
    assert_int_equal(propose(&c, leader, &a, 1), 0);
    core_cluster_run(&c, 200);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.rc, 0);
    /* With both stuck nothing is answered, whatever was sent. */
    c.nodes[3 - leader - other(leader)].disk_stuck = true;
    assert_int_equal(propose(&c, leader, &a, 2), 0);
    core_cluster_run(&c, 400);
    assert_int_equal(a.calls, 0);
    c.nodes[3 - leader - other(leader)].disk_stuck = false;
    core_cluster_run(&c, 200);
    assert_int_equal(a.calls, 1);
    c.nodes[other(leader)].disk_stuck = false;
    core_cluster_fini(&c);
}

static void test_follower_refuses_at_once(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a;
    core_cluster_init(&c, 3, 3);
    int follower = other(core_cluster_elect(&c));
    assert_int_equal(propose(&c, follower, &a, 1), -ERR_NOT_LEADER);
    assert_int_equal(read_index(&c, follower, &a), -ERR_NOT_LEADER);
    assert_int_equal(core_add(c.nodes[follower].core, &a.ch, 99, "x", was_changed),
                     -ERR_NOT_LEADER);
    core_cluster_run(&c, 500);
    assert_int_equal(a.calls, 0);
    core_cluster_fini(&c);
}

static void test_commands_of_one_turn_share_an_entry_and_each_gets_its_own_result(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a[20];
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    uint64_t before = last_index(&c, leader);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(propose(&c, leader, &a[i], i), 0);
    }
    core_cluster_run(&c, 200);
    assert_int_equal(last_index(&c, leader), before + 1);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(a[i].calls, 1);
        assert_int_equal(a[i].rc, 0);
        assert_int_equal(a[i].id.b[2], i);
    }
    core_cluster_fini(&c);
}

static void test_at_most_two_entries_are_in_flight(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    static struct asked a[8];
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    uint64_t before = last_index(&c, leader);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(propose(&c, leader, &a[i], i), 0);
        core_flush(c.nodes[leader].core); /* a turn each */
    }
    assert_int_equal(last_index(&c, leader), before + 2);
    core_cluster_run(&c, 200);
    assert_int_equal(last_index(&c, leader), before + 3); /* the other six in one */
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(a[i].rc, 0);
    }
    core_cluster_fini(&c);
}

static void test_too_much_is_refused_not_queued(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    size_t max = 4 * CMD_BATCH_MAX;
    struct asked *a = xcalloc(max, sizeof *a);
    struct asked one;
    uint8_t *huge = xcalloc(1, CMD_BODY_MAX * 2);
    core_cluster_init(&c, 1, 1);
    core_cluster_run(&c, 50);
    for (size_t i = 0; i < max; i++) {
        assert_int_equal(propose(&c, 0, &a[i], (uint32_t)i), 0);
    }
    assert_int_equal(propose(&c, 0, &one, 1), -ERR_BUSY);
    core_cluster_run(&c, 200);
    for (size_t i = 0; i < max; i++) {
        assert_int_equal(a[i].calls, 1);
        assert_int_equal(a[i].rc, 0);
    }
    assert_int_equal(
        core_propose(c.nodes[0].core, &one.p, blob_of(huge, CMD_BODY_MAX * 2), proposed),
        -ERR_TOO_LARGE);
    assert_int_equal(core_propose(c.nodes[0].core, &one.p, blob_of(huge, 0), proposed),
                     -ERR_TOO_LARGE);
    core_cluster_fini(&c);
    free(huge);
    free(a);
}

/* --- quorum --- */

static void test_leader_without_a_majority_refuses_and_says_how_many_it_sees(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a;
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    struct core_status s = core_cluster_status(&c, leader);
    assert_true(s.quorum);
    assert_int_equal(s.seen, 3);
    core_cluster_isolate(&c, leader, true);
    core_cluster_run(&c, 300); /* half an election timeout is 250 ms */
    s = core_cluster_status(&c, leader);
    assert_int_equal(s.role, CORE_LEADER);
    assert_false(s.quorum);
    assert_int_equal(s.seen, 1);
    assert_int_equal(s.needed, 2);
    assert_int_equal(s.voters, 3);
    assert_int_equal(propose(&c, leader, &a, 1), -ERR_NO_QUORUM);
    assert_int_equal(read_index(&c, leader, &a), -ERR_NO_QUORUM);
    core_cluster_run(&c, 2000);
    s = core_cluster_status(&c, leader);
    assert_int_not_equal(s.role, CORE_LEADER);
    assert_false(s.quorum);
    assert_int_equal(propose(&c, leader, &a, 1), -ERR_NOT_LEADER);
    core_cluster_fini(&c);
}

static void test_follower_knows_whether_its_leader_is_there(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    int follower = other(leader);
    struct core_status s = core_cluster_status(&c, follower);
    assert_true(s.quorum);
    assert_int_equal(s.leader, c.nodes[leader].raft_id);
    assert_in_range(s.leader_contact_ms, 0, 100);
    core_cluster_isolate(&c, follower, true);
    core_cluster_run(&c, 3000);
    s = core_cluster_status(&c, follower);
    assert_false(s.quorum);
    assert_int_equal(s.leader, 0);
    assert_int_equal(s.seen, 1);
    /* Pre-vote: its term did not run away, so it disturbs nobody when it is back. */
    assert_int_equal(s.term, core_cluster_status(&c, leader).term);
    core_cluster_isolate(&c, follower, false);
    core_cluster_run(&c, 500);
    assert_int_equal(core_cluster_status(&c, leader).role, CORE_LEADER);
    assert_true(core_cluster_status(&c, follower).quorum);
    core_cluster_fini(&c);
}

static void test_lost_leadership_ends_in_flight_unknown_and_pending_untouched(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a[3];
    struct asked r;
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    core_cluster_isolate(&c, leader, true);
    uint64_t before = last_index(&c, leader);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(propose(&c, leader, &a[i], i), 0);
        core_flush(c.nodes[leader].core);
    }
    assert_int_equal(read_index(&c, leader, &r), 0);
    assert_int_equal(last_index(&c, leader), before + 2);
    core_cluster_run(&c, 2000);
    assert_int_equal(a[0].rc, -ERR_OUTCOME_UNKNOWN);
    assert_int_equal(a[1].rc, -ERR_OUTCOME_UNKNOWN);
    assert_int_equal(a[2].rc, -ERR_NOT_LEADER); /* never went into the log */
    assert_int_equal(r.rc, -ERR_NOT_LEADER);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(a[i].calls, 1);
    }
    /* The others go on, and what it had alone is replaced. */
    int next = core_cluster_elect(&c);
    assert_int_not_equal(next, leader);
    core_cluster_isolate(&c, leader, false);
    core_cluster_run(&c, 1000);
    assert_int_equal(core_cluster_status(&c, leader).applied_index,
                     core_cluster_status(&c, next).applied_index);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(a[i].calls, 1);
    }
    core_cluster_fini(&c);
}

/* --- reads --- */

static void test_reads_that_come_together_share_one_confirmation(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked r[4];
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    uint64_t before = last_index(&c, leader);
    assert_int_equal(read_index(&c, leader, &r[0]), 0);
    core_flush(c.nodes[leader].core); /* its barrier runs */
    for (size_t i = 1; i < 4; i++) {
        assert_int_equal(read_index(&c, leader, &r[i]), 0);
        core_flush(c.nodes[leader].core);
    }
    assert_int_equal(last_index(&c, leader), before + 1);
    core_cluster_run(&c, 300);
    assert_int_equal(last_index(&c, leader), before + 2); /* one for the three that came later */
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(r[i].calls, 1);
        assert_int_equal(r[i].rc, 0);
        assert_true(r[i].index >= before + 1);
    }
    assert_true(r[3].index >= before + 2);
    core_cluster_fini(&c);
}

static void test_read_sees_what_was_answered_before_it_began(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a;
    struct asked r;
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    assert_int_equal(propose(&c, leader, &a, 1), 0);
    core_cluster_run(&c, 200);
    uint64_t acked = core_cluster_status(&c, leader).applied_index;
    assert_int_equal(read_index(&c, leader, &r), 0);
    core_cluster_run(&c, 200);
    assert_int_equal(r.rc, 0);
    assert_true(r.index >= acked);
    core_cluster_fini(&c);
}

static void test_deposed_leader_answers_no_read(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked r;
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    core_cluster_isolate(&c, leader, true);
    assert_int_equal(read_index(&c, leader, &r), 0); /* it cannot know yet */
    core_cluster_run(&c, 2000);
    assert_int_equal(r.calls, 1);
    assert_int_equal(r.rc, -ERR_NOT_LEADER);
    core_cluster_fini(&c);
}

static void test_wait_applied_on_a_follower_and_cancel(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a;
    struct asked w = {.rc = UNSET};
    struct asked never = {.rc = UNSET};
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    struct core *follower = c.nodes[other(leader)].core;
    uint64_t next = last_index(&c, leader) + 1;
    assert_int_equal(core_wait_applied(follower, &w.r, next, was_read), 0);
    assert_int_equal(core_wait_applied(follower, &never.r, next, was_read), 0);
    core_read_cancel(follower, &never.r);
    core_cluster_run(&c, 200);
    assert_int_equal(w.calls, 0);
    assert_int_equal(propose(&c, leader, &a, 1), 0);
    core_cluster_run(&c, 300);
    assert_int_equal(w.calls, 1);
    assert_int_equal(w.rc, 0);
    assert_true(w.index >= next);
    assert_int_equal(never.calls, 0);
    core_read_cancel(follower, &w.r); /* harmless */
    core_cluster_fini(&c);
}

/* --- closing --- */

static void test_close_at_any_moment_ends_everything_once(void **state)
{
    (void)state;
    for (uint64_t steps = 0; steps < 12; steps++) {
        struct core_cluster c = {0};
        struct asked a[5];
        struct asked r[2];
        struct asked w = {.rc = UNSET};
        core_cluster_init(&c, 3, 3);
        int leader = core_cluster_elect(&c);
        struct core *core = c.nodes[leader].core;
        assert_int_equal(core_wait_applied(core, &w.r, 1000000, was_read), 0);
        assert_int_equal(read_index(&c, leader, &r[0]), 0);
        for (uint32_t i = 0; i < 5; i++) {
            assert_int_equal(propose(&c, leader, &a[i], i), 0);
            if (i < 4) {
                core_flush(core);
            }
        }
        assert_int_equal(read_index(&c, leader, &r[1]), 0);
        core_cluster_run(&c, 10 * steps);
        core_cluster_stop(&c, leader);
        for (size_t i = 0; i < 5; i++) {
            assert_int_equal(a[i].calls, 1);
            assert_true(a[i].rc == 0 || a[i].rc == -ERR_CANCELED);
        }
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(r[i].calls, 1);
            assert_true(r[i].rc == 0 || r[i].rc == -ERR_CANCELED);
        }
        assert_int_equal(w.calls, 1);
        assert_int_equal(w.rc, -ERR_CANCELED);
        if (steps == 0) {
            assert_int_equal(a[0].rc, -ERR_CANCELED);
        }
        core_cluster_fini(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_voter_leads_at_once_and_commits),
        cmocka_unit_test(test_command_is_answered_when_a_majority_has_it),
        cmocka_unit_test(test_follower_refuses_at_once),
        cmocka_unit_test(test_commands_of_one_turn_share_an_entry_and_each_gets_its_own_result),
        cmocka_unit_test(test_at_most_two_entries_are_in_flight),
        cmocka_unit_test(test_too_much_is_refused_not_queued),
        cmocka_unit_test(test_leader_without_a_majority_refuses_and_says_how_many_it_sees),
        cmocka_unit_test(test_follower_knows_whether_its_leader_is_there),
        cmocka_unit_test(test_lost_leadership_ends_in_flight_unknown_and_pending_untouched),
        cmocka_unit_test(test_reads_that_come_together_share_one_confirmation),
        cmocka_unit_test(test_read_sees_what_was_answered_before_it_began),
        cmocka_unit_test(test_deposed_leader_answers_no_read),
        cmocka_unit_test(test_wait_applied_on_a_follower_and_cancel),
        cmocka_unit_test(test_close_at_any_moment_ends_everything_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
