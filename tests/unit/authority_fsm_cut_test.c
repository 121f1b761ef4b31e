/* What every node is told about relays: the list, and that it moves when it should - a majority signs it,
 * so it may change with the cluster's config_version only. */
#include "lib/fsm_fixture.h"

#include "authority/fsm_cut.h"
#include "wire/cmd.h"

#include <setjmp.h>
#include <cmocka.h>

static int setup(void **state)
{
    struct fsm_world *w = xcalloc(1, sizeof *w);
    fsm_world_init(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct fsm_world *w = *state;
    fsm_world_fini(w);
    free(w);
    return 0;
}

static uint64_t config_index(struct fsm_world *w)
{
    struct fsm_position pos;
    fsm_position(w->fsm, &pos);
    return pos.config_index;
}

/* The relays that a snapshot lists now; ret: the first. */
static uint32_t relays(struct fsm_world *w, struct snapshot_relay *ret, char address[64])
{
    struct cut c;
    struct mp_reader r;
    cut_init(&c);
    assert_int_equal(cut_cluster(fsm_db(w->fsm), fsm_level(w->fsm), &c), 0);
    uint32_t count = c.body.relays.count;
    mp_reader_init(&r, c.body.relays.raw);
    if (count > 0) {
        assert_int_equal(msg_decode(&snapshot_relay_desc, MSG_STRICT, mp_get_bin(&r, 4096), ret),
                         0);
        (void)snprintf(address, 64, "%.*s", (int)ret->address.len, (const char *)ret->address.data);
    }
    cut_fini(&c);
    return count;
}

static int assign(struct fsm_world *w, struct uuid node, uint32_t id, const char *role,
                  const char *org)
{
    return fsm_do(w, CMD_ROLE_ASSIGN,
                  &(struct role_assign){.assignment_id = fsm_fake_id(5, id),
                                        .node_id = node,
                                        .role = blob_str(role),
                                        .organization_id = blob_str(org)});
}

static int report(struct fsm_world *w, struct uuid node, const char *address)
{
    return fsm_do(w, CMD_NODE_HEALTH,
                  &(struct node_health){.node_id = node,
                                        .health = blob_str("healthy"),
                                        .address = blob_str(address)});
}

static void test_relays_are_listed_and_move_the_clusters_version(void **state)
{
    struct fsm_world *w = *state;
    struct snapshot_relay relay;
    char address[64] = "";
    fsm_world_raise(w);
    struct uuid n = fsm_make_node(w, 21, "alpha");
    assert_int_equal(report(w, n, "192.0.2.1:7400"), 0);
    uint64_t before = config_index(w);
    assert_int_equal(relays(w, &relay, address), 0);
    assert_int_equal(assign(w, n, 1, "relay-node", ""), 0);
    assert_true(config_index(w) > before);
    assert_int_equal(relays(w, &relay, address), 1);
    assert_true(uuid_equal(&relay.node_id, &n));
    assert_string_equal(address, "192.0.2.1:7400");
    assert_int_equal(relay.roles, SNAPSHOT_RELAY_NODE);
    before = config_index(w);
    assert_int_equal(report(w, n, "192.0.2.2:7400"), 0);
    assert_true(config_index(w) > before);
    assert_int_equal(relays(w, &relay, address), 1);
    assert_string_equal(address, "192.0.2.2:7400");
    before = config_index(w);
    assert_int_equal(fsm_do(w, CMD_ROLE_UNASSIGN,
                            &(struct role_unassign){.node_id = n, .role = blob_str("relay-node")}),
                     0);
    assert_true(config_index(w) > before);
    assert_int_equal(relays(w, &relay, address), 0);
}

static void test_a_relay_for_everybody_is_not_narrowed_by_one_for_an_organization(void **state)
{
    struct fsm_world *w = *state;
    struct snapshot_relay relay;
    char address[64];
    fsm_world_raise(w);
    struct uuid n = fsm_make_node(w, 21, "alpha");
    assert_int_equal(report(w, n, "192.0.2.1:7400"), 0);
    assert_int_equal(assign(w, n, 1, "relay-node", "acme"), 0);
    assert_int_equal(relays(w, &relay, address), 1);
    assert_int_equal(relay.organization_id.len, 4);
    assert_int_equal(assign(w, n, 2, "core-mesh", ""), 0);
    assert_int_equal(relays(w, &relay, address), 1);
    assert_int_equal(relay.organization_id.len, 0);
    assert_int_equal(relay.roles, SNAPSHOT_RELAY_NODE | SNAPSHOT_CORE_MESH);
}

static void test_a_revoked_relay_is_not_listed(void **state)
{
    struct fsm_world *w = *state;
    struct snapshot_relay relay;
    char address[64];
    fsm_world_raise(w);
    struct uuid n = fsm_make_node(w, 21, "alpha");
    assert_int_equal(report(w, n, "192.0.2.1:7400"), 0);
    assert_int_equal(assign(w, n, 1, "relay-node", ""), 0);
    assert_int_equal(relays(w, &relay, address), 1);
    assert_int_equal(fsm_do(w, CMD_NODE_REVOKE,
                            &(struct node_revoke){.node_id = n, .reason = blob_str("stolen")}),
                     0);
    assert_int_equal(relays(w, &relay, address), 0);
}

static void test_an_older_state_says_nothing_of_relays(void **state)
{
    struct fsm_world *w = *state;
    struct snapshot_relay relay;
    char address[64];
    struct uuid n = fsm_make_node(w, 21, "alpha");
    assert_int_equal(report(w, n, "192.0.2.1:7400"), 0);
    uint64_t before = config_index(w);
    assert_int_equal(assign(w, n, 1, "relay-node", ""), 0);
    assert_int_equal(config_index(w), before);
    assert_int_equal(relays(w, &relay, address), 0);
    fsm_world_raise(w); /* and then it does, for everybody at once */
    assert_true(config_index(w) > before);
    assert_int_equal(relays(w, &relay, address), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_relays_are_listed_and_move_the_clusters_version),
        T(test_a_relay_for_everybody_is_not_narrowed_by_one_for_an_organization),
        T(test_a_revoked_relay_is_not_listed),
        T(test_an_older_state_says_nothing_of_relays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
