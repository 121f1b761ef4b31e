/* Memberships switched off, groups, verified capabilities, observations (SPEC MEM-05, GRP, CAP-02, HB,
 * CLU). */
#include "authority/fsm_cut.h"
#include "authority/fsm_impl.h"
#include "lib/fsm_fixture.h"
#include "wire/node_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void world(struct fsm_world *w)
{
    fsm_world_init(w);
    fsm_world_raise_to(w, LEVEL_MEMBERS); /* make-believe authorities */
}

static int set_disabled(struct fsm_world *w, const struct uuid *id, bool disabled)
{
    return fsm_do(w, CMD_MEMBERSHIP_SET,
                  &(struct membership_set){
                      .node_id = *id, .disabled = disabled, .reason = blob_str("because")});
}

static int assign(struct fsm_world *w, const struct uuid *id, const char *role, uint32_t n)
{
    return fsm_do(w, CMD_ROLE_ASSIGN,
                  &(struct role_assign){
                      .assignment_id = fsm_fake_id(7, n), .node_id = *id, .role = blob_str(role)});
}

static uint32_t roles_told(struct fsm_world *w, const struct uuid *id, const char *membership)
{
    struct cut c;
    cut_init(&c);
    assert_int_equal(cut_node(fsm_db(w->fsm), fsm_level(w->fsm), id, &c), 0);
    assert_true(blob_equal(c.body.membership_status, blob_str(membership)));
    uint32_t n = c.body.roles.count;
    cut_fini(&c);
    return n;
}

static uint32_t disabled_told(struct fsm_world *w)
{
    struct cut c;
    cut_init(&c);
    assert_int_equal(cut_cluster(fsm_db(w->fsm), fsm_level(w->fsm), &c), 0);
    uint32_t n = c.body.disabled_keys.count;
    cut_fini(&c);
    return n;
}

static void test_disabled_membership_authorizes_nothing_until_enabled(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    struct uuid n2 = fsm_make_node(&w, 2, "n2");
    assert_int_equal(assign(&w, &n2, "relay-node", 1), 0);
    assert_int_equal(roles_told(&w, &n2, "active"), 1);
    assert_int_equal(set_disabled(&w, &n2, false), -ERR_DECIDED);
    assert_int_equal(set_disabled(&w, &n2, true), 0);
    assert_int_equal(set_disabled(&w, &n2, true), -ERR_DECIDED);
    assert_int_equal(roles_told(&w, &n2, "disabled"), 0);
    assert_int_equal(disabled_told(&w), 1);
    assert_int_equal(assign(&w, &n2, "core-mesh", 2), -ERR_SUSPENDED);
    const struct node_health health = {.node_id = n2, .health = blob_str("healthy")};
    assert_int_equal(fsm_do(&w, CMD_NODE_HEALTH, &health), -ERR_SUSPENDED);
    const struct cert_renew renew = {
        .node_id = n2,
        .cert = fsm_fake_cert(&(struct fsm_fake_cert){.key = 2, .issuer = 1, .serial = 900001})};
    assert_int_equal(fsm_do(&w, CMD_CERT_RENEW, &renew), -ERR_SUSPENDED);
    assert_int_equal(set_disabled(&w, &n2, false), 0);
    assert_int_equal(roles_told(&w, &n2, "active"), 1);
    assert_int_equal(disabled_told(&w), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events WHERE high_risk = 1"
                                   " AND event_type IN ('membership_disabled',"
                                   " 'membership_enabled')"),
                     2);
    fsm_world_fini(&w);
}

static void test_authority_and_revoked_node_cannot_be_disabled(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    struct uuid a2 = fsm_make_authority(&w, 2, "a2");
    struct uuid n3 = fsm_make_node(&w, 3, "n3");
    assert_int_equal(set_disabled(&w, &a2, true), -ERR_CONFLICT);
    assert_int_equal(
        fsm_do(&w, CMD_NODE_REVOKE, &(struct node_revoke){.node_id = n3, .reason = blob_str("x")}),
        0);
    assert_int_equal(set_disabled(&w, &n3, true), -ERR_REVOKED);
    /* A disabled node may still be revoked, for good. */
    struct uuid n4 = fsm_make_node(&w, 4, "n4");
    assert_int_equal(set_disabled(&w, &n4, true), 0);
    assert_int_equal(
        fsm_do(&w, CMD_NODE_REVOKE, &(struct node_revoke){.node_id = n4, .reason = blob_str("x")}),
        0);
    assert_int_equal(set_disabled(&w, &n4, false), -ERR_REVOKED);
    fsm_world_fini(&w);
}

/* --- groups --- */

static int group(struct fsm_world *w, uint32_t n, uint32_t parent, const char *name)
{
    return fsm_do(
        w, CMD_GROUP_CREATE,
        &(struct group_create){.group_id = fsm_fake_id(8, n),
                               .parent_group_id = parent == 0 ? UUID_NIL : fsm_fake_id(8, parent),
                               .name = blob_str(name)});
}

static int move(struct fsm_world *w, uint32_t n, uint32_t parent, const char *name)
{
    return fsm_do(
        w, CMD_GROUP_MOVE,
        &(struct group_move){.group_id = fsm_fake_id(8, n),
                             .parent_group_id = parent == 0 ? UUID_NIL : fsm_fake_id(8, parent),
                             .name = blob_str(name)});
}

static void test_groups_nest_without_cycles_and_not_too_deep(void **state)
{
    struct fsm_world w;
    char name[16];
    (void)state;
    world(&w);
    assert_int_equal(group(&w, 1, 0, "one"), 0);
    for (uint32_t i = 2; i <= GROUP_DEPTH_MAX; i++) {
        (void)snprintf(name, sizeof name, "g%u", i);
        assert_int_equal(group(&w, i, i - 1, name), 0);
    }
    assert_int_equal(group(&w, 50, GROUP_DEPTH_MAX, "deep"), -ERR_TOO_LARGE);
    assert_int_equal(group(&w, 50, 99, "lost"), -ERR_NOT_FOUND);
    assert_int_equal(group(&w, 50, 1, "g2"), -ERR_NAME_TAKEN);
    assert_int_equal(group(&w, 50, 0, "Not a name"), -ERR_INVALID);
    for (uint32_t i = 1; i <= GROUP_DEPTH_MAX; i++) {
        assert_int_equal(move(&w, 1, i, "one"), -ERR_CONFLICT);
    }
    /* A subtree that would hang too deep with all that is below it. */
    assert_int_equal(group(&w, 60, 0, "other"), 0);
    assert_int_equal(move(&w, 1, 60, "one"), -ERR_TOO_LARGE);
    assert_int_equal(move(&w, 3, 60, "three"), 0);
    assert_int_equal(
        fsm_do(&w, CMD_GROUP_DELETE, &(struct group_delete){.group_id = fsm_fake_id(8, 60)}),
        -ERR_CONFLICT);
    fsm_world_fini(&w);
}

static void test_node_is_in_one_group_and_that_changes_no_snapshot(void **state)
{
    struct fsm_world w;
    struct fsm_position before;
    struct fsm_position after;
    (void)state;
    world(&w);
    struct uuid n2 = fsm_make_node(&w, 2, "n2");
    assert_int_equal(group(&w, 1, 0, "one"), 0);
    assert_int_equal(group(&w, 2, 0, "two"), 0);
    fsm_position(w.fsm, &before);
    int64_t node_index = fsm_count(&w, "SELECT max(config_index) FROM nodes");
    for (uint32_t g = 1; g <= 2; g++) {
        const struct group_assign body = {.node_id = n2, .group_id = fsm_fake_id(8, g)};
        assert_int_equal(fsm_do(&w, CMD_GROUP_ASSIGN, &body), 0);
    }
    const struct group_assign lost = {.node_id = n2, .group_id = fsm_fake_id(8, 9)};
    assert_int_equal(fsm_do(&w, CMD_GROUP_ASSIGN, &lost), -ERR_NOT_FOUND);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_memberships m JOIN node_groups g"
                                   " ON g.id = m.group_id WHERE g.name = 'two'"),
                     1);
    assert_int_equal(
        fsm_do(&w, CMD_GROUP_DELETE, &(struct group_delete){.group_id = fsm_fake_id(8, 2)}),
        -ERR_CONFLICT);
    assert_int_equal(
        fsm_do(&w, CMD_GROUP_DELETE, &(struct group_delete){.group_id = fsm_fake_id(8, 1)}), 0);
    fsm_position(w.fsm, &after);
    assert_int_equal(before.config_index, after.config_index);
    assert_int_equal(node_index, fsm_count(&w, "SELECT max(config_index) FROM nodes"));
    fsm_world_fini(&w);
}

/* --- capabilities --- */

static int64_t verified(struct fsm_world *w)
{
    return fsm_count(w, "SELECT count(*) FROM node_capabilities c JOIN nodes n ON n.id = c.node_id"
                        " WHERE n.name = 'n2' AND c.verified = 1");
}

static void test_capability_is_verified_only_as_far_as_it_is_reported(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    struct uuid n2 = fsm_make_node(&w, 2, "n2"); /* reports two */
    struct capability_verify v = {
        .node_id = n2, .capability = blob_str("can_run_vpn_exit"), .verified = true};
    assert_int_equal(fsm_do(&w, CMD_CAPABILITY_VERIFY, &v), -ERR_CAPABILITY);
    v.capability = blob_str("can_route_mesh");
    assert_int_equal(fsm_do(&w, CMD_CAPABILITY_VERIFY, &v), 0);
    assert_int_equal(verified(&w), 1);
    /* It is gone when it is no longer reported, and comes back unverified. */
    struct node_health h = {.node_id = n2,
                            .health = blob_str("healthy"),
                            .capabilities = FSM_LIST("can_accept_client_ingress")};
    assert_int_equal(fsm_do(&w, CMD_NODE_HEALTH, &h), 0);
    h.capabilities = FSM_LIST("can_route_mesh", "can_accept_client_ingress");
    assert_int_equal(fsm_do(&w, CMD_NODE_HEALTH, &h), 0);
    assert_int_equal(verified(&w), 0);
    fsm_world_fini(&w);
}

static void test_policy_verifies_what_is_there_and_what_comes(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    struct uuid n2 = fsm_make_node(&w, 2, "n2");
    struct capability_policy p = {.capability = blob_str("can_fly"), .automatic = true};
    assert_int_equal(fsm_do(&w, CMD_CAPABILITY_POLICY, &p), -ERR_INVALID);
    p.capability = blob_str("can_route_mesh");
    assert_int_equal(fsm_do(&w, CMD_CAPABILITY_POLICY, &p), 0);
    assert_int_equal(fsm_do(&w, CMD_CAPABILITY_POLICY, &p), -ERR_DECIDED);
    assert_int_equal(verified(&w), 1);
    struct node_health h = {.node_id = n2,
                            .health = blob_str("healthy"),
                            .capabilities = FSM_LIST("can_egress_internet")};
    assert_int_equal(fsm_do(&w, CMD_NODE_HEALTH, &h), 0);
    assert_int_equal(verified(&w), 0);
    h.capabilities = FSM_LIST("can_route_mesh");
    assert_int_equal(fsm_do(&w, CMD_NODE_HEALTH, &h), 0);
    assert_int_equal(verified(&w), 1);
    p.automatic = false;
    assert_int_equal(fsm_do(&w, CMD_CAPABILITY_POLICY, &p), 0);
    assert_int_equal(verified(&w), 1); /* what somebody vouched for stays */
    fsm_world_fini(&w);
}

/* --- observations --- */

static int observe(struct fsm_world *w, const struct uuid *id, int64_t at_ms, const char *health)
{
    struct buf list;
    uint32_t count = 0;
    buf_init(&list, CMD_BODY_MAX);
    msg_list_add(&heartbeat_sample_desc,
                 &(struct heartbeat_sample){.node_id = *id,
                                            .received_at_ms = at_ms,
                                            .health = blob_str(health),
                                            .config_version = 7},
                 &list, &count);
    struct cmd c = fsm_envelope(w, CMD_HEARTBEAT_LOG);
    c.actor_kind = blob_str(ACTOR_SYSTEM);
    int rc = fsm_do_cmd(
        w, c, &(struct heartbeat_log){.samples = {.raw = buf_blob(&list), .count = count}});
    buf_fini(&list);
    return rc;
}

static void test_observations_are_bounded_and_the_latest_is_seen(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    struct uuid n2 = fsm_make_node(&w, 2, "n2");
    const struct node_health health = {.node_id = n2, .health = blob_str("healthy")};
    assert_int_equal(fsm_do(&w, CMD_NODE_HEALTH, &health), 0);
    for (int i = 0; i < 3 * HEARTBEATS_KEPT; i++) {
        assert_int_equal(observe(&w, &n2, FSM_T0 + 1000 * i, "healthy"), 0);
    }
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_heartbeats"), HEARTBEATS_KEPT);
    int64_t last = FSM_T0 + 1000 * (3 * HEARTBEATS_KEPT - 1);
    assert_int_equal(fsm_count(&w, "SELECT max(received_at) FROM node_heartbeats"), last);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_latest_state"), 1);
    assert_int_equal(fsm_count(&w, "SELECT last_seen_at FROM cluster_memberships m JOIN nodes n"
                                   " ON n.id = m.node_id WHERE n.name = 'n2'"),
                     last);
    /* Nobody's, and what does not decode: neither kept, nor a reason to stop. */
    struct uuid nobody = fsm_fake_id(1, 77);
    assert_int_equal(observe(&w, &nobody, FSM_T0, "healthy"), 0);
    assert_int_equal(observe(&w, &n2, FSM_T0, ""), -ERR_MALFORMED);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_heartbeats"), HEARTBEATS_KEPT);
    fsm_world_fini(&w);
}

static void test_cluster_takes_what_is_given_and_keeps_the_rest(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    struct cluster_update u = {.region = blob_str("eu"), .test_telemetry = SWITCH_ON};
    assert_int_equal(fsm_do(&w, CMD_CLUSTER_UPDATE, &u), 0);
    u = (struct cluster_update){.name = blob_str("renamed")};
    assert_int_equal(fsm_do(&w, CMD_CLUSTER_UPDATE, &u), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM clusters WHERE name = 'renamed'"
                                   " AND slug = 'lab' AND region = 'eu' AND test_telemetry = 1"),
                     1);
    u = (struct cluster_update){.name = blob_str("No!")};
    assert_int_equal(fsm_do(&w, CMD_CLUSTER_UPDATE, &u), -ERR_INVALID);
    u = (struct cluster_update){.test_telemetry = 9};
    assert_int_equal(fsm_do(&w, CMD_CLUSTER_UPDATE, &u), -ERR_INVALID);
    u = (struct cluster_update){.heartbeat_sample_ms = 1};
    assert_int_equal(fsm_do(&w, CMD_CLUSTER_UPDATE, &u), -ERR_INVALID);
    struct role_require r = {.role = blob_str("relay-node"), .required = true};
    assert_int_equal(fsm_do(&w, CMD_ROLE_REQUIRE, &r), 0);
    assert_int_equal(fsm_do(&w, CMD_ROLE_REQUIRE, &r), -ERR_DECIDED);
    r.role = blob_str("pilot");
    assert_int_equal(fsm_do(&w, CMD_ROLE_REQUIRE, &r), -ERR_ROLE_UNKNOWN);
    fsm_world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disabled_membership_authorizes_nothing_until_enabled),
        cmocka_unit_test(test_authority_and_revoked_node_cannot_be_disabled),
        cmocka_unit_test(test_groups_nest_without_cycles_and_not_too_deep),
        cmocka_unit_test(test_node_is_in_one_group_and_that_changes_no_snapshot),
        cmocka_unit_test(test_capability_is_verified_only_as_far_as_it_is_reported),
        cmocka_unit_test(test_policy_verifies_what_is_there_and_what_comes),
        cmocka_unit_test(test_observations_are_bounded_and_the_latest_is_seen),
        cmocka_unit_test(test_cluster_takes_what_is_given_and_keeps_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
