/* The edges of core.h: membership, snapshots, replicas that differ. */
#include "lib/core_asked.h"

#include "authority/core_impl.h"
#include "authority/fsm_impl.h"

/* --- membership --- */

static void change_ok(struct core_cluster *c, struct asked *a, int rc)
{
    assert_int_equal(rc, 0);
    core_cluster_run(c, 600);
    assert_int_equal(a->calls, 1);
    assert_int_equal(a->rc, 0);
    *a = (struct asked){.rc = UNSET};
}

static void add_voter(struct core_cluster *c, int leader, int node)
{
    struct asked a = {.rc = UNSET};
    struct core *core = c->nodes[leader].core;
    raft_id id = c->nodes[node].raft_id;
    char address[UUID_TEXT_MAX];
    uuid_format(&c->nodes[node].id, address);
    change_ok(c, &a, core_add(core, &a.ch, id, address, was_changed));
    assert_int_equal(core_add(core, &a.ch, id, address, was_changed), -ERR_EXISTS);
    change_ok(c, &a, core_assign(core, &a.ch, id, RAFT_STANDBY, was_changed));
    /* It has the log before it votes. */
    assert_int_equal(core_cluster_status(c, node).applied_index,
                     core_cluster_status(c, leader).applied_index);
    change_ok(c, &a, core_assign(core, &a.ch, id, RAFT_VOTER, was_changed));
}

static void transferred(void *data, int rc)
{
    struct asked *a = data;
    a->calls++;
    a->rc = rc;
}

/* G9: it gets the new configuration amid commands, in one message. Were that configuration noted
 * under the index of the first of them, it would stay "uncommitted" there for ever. */
static void test_member_that_missed_a_change_can_lead_and_change_again(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a;
    struct asked ch = {.rc = UNSET};
    core_cluster_init(&c, 4, 3);
    int leader = core_cluster_elect(&c);
    int away = other(leader);
    core_cluster_isolate(&c, away, true);
    assert_int_equal(propose(&c, leader, &a, 1), 0);
    core_cluster_run(&c, 100);
    change_ok(&c, &ch,
              core_add(c.nodes[leader].core, &ch.ch, c.nodes[3].raft_id, "n3", was_changed));
    assert_int_equal(propose(&c, leader, &a, 2), 0);
    core_cluster_run(&c, 100);
    core_cluster_isolate(&c, away, false);
    core_cluster_run(&c, 1000);
    a = (struct asked){.rc = UNSET};
    assert_int_equal(core_transfer(c.nodes[leader].core, c.nodes[away].raft_id, transferred, &a),
                     0);
    core_cluster_run(&c, 1000);
    assert_int_equal(a.rc, 0);
    assert_int_equal(core_cluster_elect(&c), away);
    change_ok(&c, &ch, core_remove(c.nodes[away].core, &ch.ch, c.nodes[3].raft_id, was_changed));
    core_cluster_fini(&c);
}

static void test_member_added_from_nothing_catches_up_votes_leads_and_adds_another(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a;
    core_cluster_init(&c, 3, 1);
    assert_int_equal(core_cluster_elect(&c), 0);
    for (uint32_t i = 0; i < 50; i++) {
        assert_int_equal(propose(&c, 0, &a, i), 0);
        core_cluster_run(&c, 30);
    }
    add_voter(&c, 0, 1);
    assert_int_equal(core_cluster_status(&c, 1).voters, 2);
    a = (struct asked){.rc = UNSET};
    assert_int_equal(core_transfer(c.nodes[0].core, c.nodes[1].raft_id, transferred, &a), 0);
    core_cluster_run(&c, 1000);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.rc, 0);
    assert_int_equal(core_cluster_elect(&c), 1);
    add_voter(&c, 1, 2);
    assert_int_equal(core_cluster_status(&c, 2).voters, 3);
    /* And the first one may go: two are left, and they decide. */
    struct asked r = {.rc = UNSET};
    change_ok(&c, &r, core_remove(c.nodes[1].core, &r.ch, c.nodes[0].raft_id, was_changed));
    core_cluster_stop(&c, 0);
    assert_int_equal(propose(&c, 1, &a, 60), 0);
    core_cluster_run(&c, 300);
    assert_int_equal(a.rc, 0);
    core_cluster_fini(&c);
}

static void test_new_voter_that_does_not_answer_is_given_up(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a = {.rc = UNSET};
    core_cluster_init(&c, 2, 1);
    assert_int_equal(core_cluster_elect(&c), 0);
    struct core *core = c.nodes[0].core;
    core_cluster_stop(&c, 1);
    change_ok(&c, &a, core_add(core, &a.ch, c.nodes[1].raft_id, "n1", was_changed));
    assert_int_equal(core_assign(core, &a.ch, c.nodes[1].raft_id, RAFT_VOTER, was_changed), 0);
    struct asked second = {.rc = UNSET};
    assert_int_equal(core_remove(core, &second.ch, c.nodes[1].raft_id, was_changed), -ERR_BUSY);
    core_cluster_run(&c, 8000);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.rc, -ERR_TIMEOUT);
    /* Nothing is stuck. */
    a = (struct asked){.rc = UNSET};
    change_ok(&c, &a, core_remove(core, &a.ch, c.nodes[1].raft_id, was_changed));
    core_cluster_fini(&c);
}

static void test_impossible_changes_are_refused_before_libraft_sees_them(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a = {.rc = UNSET};
    core_cluster_init(&c, 1, 1);
    core_cluster_run(&c, 100);
    struct core *core = c.nodes[0].core;
    raft_id self = c.nodes[0].raft_id;
    assert_int_equal(core_remove(core, &a.ch, self, was_changed), -ERR_LAST_VOTER);
    assert_int_equal(core_assign(core, &a.ch, self, RAFT_SPARE, was_changed), -ERR_LAST_VOTER);
    assert_int_equal(core_assign(core, &a.ch, self, RAFT_VOTER, was_changed), -ERR_CONFLICT);
    assert_int_equal(core_assign(core, &a.ch, 42, RAFT_VOTER, was_changed), -ERR_NOT_FOUND);
    assert_int_equal(core_remove(core, &a.ch, 42, was_changed), -ERR_NOT_FOUND);
    assert_int_equal(core_add(core, &a.ch, 0, "x", was_changed), -ERR_INVALID);
    assert_int_equal(core_add(core, &a.ch, 42, "", was_changed), -ERR_INVALID);
    assert_int_equal(core_transfer(core, 42, transferred, &a), -ERR_NOT_FOUND);
    assert_int_equal(core_transfer(core, 0, transferred, &a), -ERR_NOT_FOUND);
    core_cluster_run(&c, 500);
    assert_int_equal(a.calls, 0);
    core_cluster_fini(&c);
}

static void test_transfer_to_a_voter_that_is_away_fails_and_leadership_stays(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a = {.rc = UNSET};
    struct asked p;
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    int away = other(leader);
    core_cluster_isolate(&c, away, true);
    core_cluster_run(&c, 50);
    assert_int_equal(core_transfer(c.nodes[leader].core, c.nodes[away].raft_id, transferred, &a),
                     0);
    assert_int_equal(propose(&c, leader, &p, 1), -ERR_NOT_LEADER); /* handing over */
    core_cluster_run(&c, 1500);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.rc, -ERR_TIMEOUT);
    assert_int_equal(core_cluster_status(&c, leader).role, CORE_LEADER);
    assert_int_equal(propose(&c, leader, &p, 1), 0);
    core_cluster_run(&c, 300);
    assert_int_equal(p.rc, 0);
    core_cluster_fini(&c);
}

/* --- snapshots --- */

/* G16, G17. What a restart does to libraft is done to it by hand: the configuration it takes for
 * committed is above what is applied, or one that is committed is not noted as such yet. */
static void no_snapshot_while(bool above)
{
    struct core_cluster c = {.threshold = 20, .trailing = 5};
    struct asked a;
    core_cluster_init(&c, 1, 1);
    assert_int_equal(core_cluster_elect(&c), 0);
    struct cluster_node *n = &c.nodes[0];
    uint64_t conf_index = n->core->raft.configuration_committed_index;
    if (above) {
        n->core->raft.configuration_committed_index = 1000;
    } else {
        n->core->raft.configuration_uncommitted_index = 2;
    }
    for (uint32_t i = 0; i < 30; i++) {
        assert_int_equal(propose(&c, 0, &a, i), 0);
        core_cluster_run(&c, 30);
    }
    assert_int_equal(n->snapshot_index, 0);
    n->core->raft.configuration_committed_index = conf_index;
    n->core->raft.configuration_uncommitted_index = 0;
    assert_int_equal(propose(&c, 0, &a, 30), 0);
    core_cluster_run(&c, 100);
    assert_true(n->snapshot_index > 30);
    core_cluster_fini(&c);
}

static void test_no_snapshot_below_its_own_configuration(void **state)
{
    (void)state;
    no_snapshot_while(true);
}

static void test_no_snapshot_while_a_committed_configuration_is_not_noted(void **state)
{
    (void)state;
    no_snapshot_while(false);
}

static void test_member_that_was_away_for_long_comes_back_by_snapshot(void **state)
{
    (void)state;
    struct core_cluster c = {.threshold = 20, .trailing = 5};
    struct asked a;
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    int away = other(leader);
    core_cluster_stop(&c, away);
    for (uint32_t i = 0; i < 60; i++) {
        assert_int_equal(propose(&c, leader, &a, i), 0);
        core_cluster_run(&c, 50);
        assert_int_equal(a.rc, 0);
    }
    assert_true(c.nodes[leader].snapshot_index > 40);
    assert_true(c.nodes[leader].log[0].index > 30);
    core_cluster_start(&c, away);
    core_cluster_run(&c, 2000);
    assert_true(c.nodes[away].snapshot_index > 40);
    struct fsm_position x;
    struct fsm_position y;
    fsm_position(c.nodes[leader].fsm, &x);
    fsm_position(c.nodes[away].fsm, &y);
    assert_int_equal(x.index, y.index);
    assert_memory_equal(x.digest, y.digest, sizeof x.digest);
    /* And from its own disk, after another restart. */
    core_cluster_stop(&c, away);
    core_cluster_start(&c, away);
    core_cluster_run(&c, 1000);
    fsm_position(c.nodes[away].fsm, &y);
    assert_memory_equal(x.digest, y.digest, sizeof x.digest);
    core_cluster_fini(&c);
}

static void test_short_trailing_is_refused_outside_of_tests(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct errmsg em = ERRMSG_INIT;
    struct core *core = NULL;
    core_cluster_init(&c, 1, 1);
    struct cluster_node *n = &c.nodes[0];
    struct core_config config = {.id = 1,
                                 .node_id = n->id,
                                 .io = &n->io,
                                 .fsm = n->fsm,
                                 .env = &n->core_env,
                                 .heartbeat_ms = 50,
                                 .election_ms = 500,
                                 .snapshot_trailing = 2047};
    assert_int_equal(core_new(&config, &core, &em), -ERR_INVALID);
    config.snapshot_trailing = 0;
    config.election_ms = 50;
    assert_int_equal(core_new(&config, &core, &em), -ERR_INVALID);
    assert_null(core);
    core_cluster_fini(&c);
}

/* --- S15 --- */

static void test_follower_whose_state_differs_stops_itself(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a;
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    int odd = other(leader);
    c.nodes[odd].fsm->digest[5] ^= 1;
    assert_int_equal(propose(&c, leader, &a, 1), 0);
    core_cluster_run(&c, 500);
    assert_int_equal(a.rc, 0);
    assert_int_equal(c.nodes[odd].fatals, 1);
    assert_non_null(strstr(c.nodes[odd].why, "DIFFERS"));
    assert_int_equal(c.nodes[leader].fatals, 0);
    assert_int_equal(c.nodes[3 - leader - odd].fatals, 0);
    core_cluster_fini(&c);
}

static void test_leader_that_a_majority_contradicts_stops_itself(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a;
    core_cluster_init(&c, 3, 3);
    int leader = core_cluster_elect(&c);
    c.nodes[leader].fsm->digest[5] ^= 1;
    assert_int_equal(propose(&c, leader, &a, 1), 0);
    core_cluster_run(&c, 500);
    assert_int_equal(c.nodes[leader].fatals, 1);
    assert_non_null(strstr(c.nodes[leader].why, "DIFFERS"));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(c.nodes[i].fatals, i == leader);
    }
    /* The others elect one of themselves. */
    core_cluster_isolate(&c, leader, true);
    assert_int_not_equal(core_cluster_elect(&c), leader);
    core_cluster_fini(&c);
}

static void test_entry_that_does_not_apply_stops_the_replica(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    struct asked a = {.rc = UNSET};
    struct buf bad;
    struct mp_writer w;
    core_cluster_init(&c, 1, 1);
    core_cluster_run(&c, 100);
    buf_init(&bad, 100);
    mp_writer_init(&w, &bad);
    mp_put_map(&w, 0); /* no command at all */
    assert_int_equal(core_propose(c.nodes[0].core, &a.p, buf_blob(&bad), proposed), 0);
    core_cluster_run(&c, 100);
    assert_int_equal(c.nodes[0].fatals, 1);
    assert_non_null(strstr(c.nodes[0].why, "does not apply"));
    assert_int_equal(a.calls, 0); /* S22: no answer from a broken replica */
    buf_fini(&bad);
    core_cluster_fini(&c);
    assert_int_equal(a.rc, -ERR_CANCELED);
}

static void test_raft_id_comes_from_the_node_id(void **state)
{
    (void)state;
    struct uuid zero = UUID_NIL;
    struct uuid one = {.b = {1}};
    /* SHA-256 of 16 zero bytes begins 374708fff7719dd5. */
    assert_true(core_raft_id(&zero) == 0x374708fff7719dd5ull);
    assert_true(core_raft_id(&one) != core_raft_id(&zero));
    for (int i = 0; i < 64; i++) {
        one.b[3] = (uint8_t)i;
        assert_int_equal(core_raft_id(&one) >> 63, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_member_that_missed_a_change_can_lead_and_change_again),
        cmocka_unit_test(test_member_added_from_nothing_catches_up_votes_leads_and_adds_another),
        cmocka_unit_test(test_new_voter_that_does_not_answer_is_given_up),
        cmocka_unit_test(test_impossible_changes_are_refused_before_libraft_sees_them),
        cmocka_unit_test(test_transfer_to_a_voter_that_is_away_fails_and_leadership_stays),
        cmocka_unit_test(test_no_snapshot_below_its_own_configuration),
        cmocka_unit_test(test_no_snapshot_while_a_committed_configuration_is_not_noted),
        cmocka_unit_test(test_member_that_was_away_for_long_comes_back_by_snapshot),
        cmocka_unit_test(test_short_trailing_is_refused_outside_of_tests),
        cmocka_unit_test(test_follower_whose_state_differs_stops_itself),
        cmocka_unit_test(test_leader_that_a_majority_contradicts_stops_itself),
        cmocka_unit_test(test_entry_that_does_not_apply_stops_the_replica),
        cmocka_unit_test(test_raft_id_comes_from_the_node_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
