/* Resources of organizations in the state (SPEC RTE-03), and intents that are an organization's or about a
 * service: who is told, that each node's signed part moves exactly when what it says does, what is refused. */
#include "lib/fsm_fixture.h"

#include "authority/fsm_cut.h"
#include "wire/cmd.h"

#include <setjmp.h>
#include <cmocka.h>

static int setup(void **state)
{
    struct fsm_world *w = xcalloc(1, sizeof *w);
    fsm_world_init(w);
    fsm_world_raise(w);
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

static void assign(struct fsm_world *w, struct uuid node, uint32_t id, const char *org)
{
    assert_int_equal(fsm_do(w, CMD_ROLE_ASSIGN,
                            &(struct role_assign){.assignment_id = fsm_fake_id(5, id),
                                                  .node_id = node,
                                                  .role = blob_str("audit-sink"),
                                                  .organization_id = blob_str(org)}),
                     0);
}

/* What one node is told. */
struct seen {
    uint64_t index;
    uint32_t resources, intents;
    struct snapshot_resource first; /* of the resources; without its texts */
    struct snapshot_intent intent;  /* the first; likewise */
    struct uuid destination;        /* its first one */
    char name[64], service[33];
};

static struct seen look(struct fsm_world *w, struct uuid node)
{
    struct cut c;
    struct mp_reader r;
    struct seen s = {.index = 0};
    cut_init(&c);
    assert_int_equal(cut_node(fsm_db(w->fsm), fsm_level(w->fsm), &node, &c), 0);
    s.index = c.config_index;
    s.resources = c.body.resources.count;
    s.intents = c.body.intents.count;
    if (s.resources > 0) {
        mp_reader_init(&r, c.body.resources.raw);
        assert_int_equal(
            msg_decode(&snapshot_resource_desc, MSG_STRICT, mp_get_bin(&r, 4096), &s.first), 0);
        (void)snprintf(s.name, sizeof s.name, "%.*s/%.*s", (int)s.first.organization_id.len,
                       (const char *)s.first.organization_id.data, (int)s.first.name.len,
                       (const char *)s.first.name.data);
    }
    if (s.intents > 0) {
        mp_reader_init(&r, c.body.intents.raw);
        assert_int_equal(
            msg_decode(&snapshot_intent_desc, MSG_STRICT, mp_get_bin(&r, 65536), &s.intent), 0);
        (void)snprintf(s.service, sizeof s.service, "%.*s", (int)s.intent.service_class.len,
                       s.intent.service_class.len == 0 ? ""
                                                       : (const char *)s.intent.service_class.data);
        if (s.intent.destinations.count > 0) {
            mp_reader_init(&r, s.intent.destinations.raw);
            s.destination = mp_get_uuid(&r);
        }
    }
    cut_fini(&c);
    return s;
}

static struct resource_create resource(uint32_t n, const char *org, struct uuid node)
{
    return (struct resource_create){.resource_id = fsm_fake_id(8, n),
                                    .organization_id = blob_str(org),
                                    .name = blob_str("db"),
                                    .protocol = blob_str("ssh"),
                                    .target_ref = blob_str("10.1.2.3:22"),
                                    .node_id = node,
                                    .credential_ref = blob_str("vault:db")};
}

static void pool(struct fsm_world *w, uint32_t n, const char *name, const char *org)
{
    assert_int_equal(fsm_do(w, CMD_POOL_CREATE,
                            &(struct pool_create){.pool_id = fsm_fake_id(7, n),
                                                  .name = blob_str(name),
                                                  .organization_id = blob_str(org)}),
                     0);
}

static void test_a_resource_is_known_to_its_organization_and_nobody_else(void **state)
{
    struct fsm_world *w = *state;
    struct uuid a = fsm_make_node(w, 21, "alpha");
    struct uuid b = fsm_make_node(w, 22, "beta");
    struct uuid x = fsm_make_node(w, 23, "exit");
    assign(w, a, 1, "acme");
    assign(w, b, 2, "zeta");
    uint64_t others = look(w, b).index;
    uint64_t server = look(w, x).index;
    struct resource_create c = resource(1, "acme", x);
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), 0);
    struct seen s = look(w, a);
    assert_int_equal(s.index, w->index);
    assert_int_equal(s.resources, 1);
    assert_string_equal(s.name, "acme/db");
    assert_true(uuid_equal(&s.first.node_id, &x));
    assert_true(uuid_is_nil(&s.first.pool_id));
    assert_int_equal(look(w, b).resources, 0);
    assert_int_equal(look(w, b).index, others);
    assert_int_equal(look(w, x).resources, 0); /* who serves it need not be of the organization */
    assert_int_equal(look(w, x).index, server);

    /* A name is an organization's; the same one elsewhere is another thing. */
    c.resource_id = fsm_fake_id(8, 2);
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), -ERR_NAME_TAKEN);
    c.organization_id = blob_str("zeta");
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), 0);
    assert_string_equal(look(w, b).name, "zeta/db");
    assert_int_equal(look(w, a).resources, 1);

    /* It moves behind a pool, and is told so. */
    pool(w, 1, "exits", "acme");
    pool(w, 2, "others", "zeta");
    pool(w, 3, "all", "");
    struct resource_set to = {.resource_id = fsm_fake_id(8, 1),
                              .protocol = blob_str("rdp"),
                              .egress_pool_id = fsm_fake_id(7, 2)};
    assert_int_equal(fsm_do(w, CMD_RESOURCE_SET, &to), -ERR_SCOPE); /* acme knows no such pool */
    to.egress_pool_id = fsm_fake_id(7, 1);
    others = look(w, b).index;
    assert_int_equal(fsm_do(w, CMD_RESOURCE_SET, &to), 0);
    s = look(w, a);
    assert_int_equal(s.index, w->index);
    assert_true(uuid_is_nil(&s.first.node_id));
    assert_true(uuid_equal(&s.first.pool_id, &to.egress_pool_id));
    assert_int_equal(look(w, b).index, others);
    const struct pool_delete drop = {.pool_id = to.egress_pool_id};
    assert_int_equal(fsm_do(w, CMD_POOL_DELETE, &drop), -ERR_CONFLICT); /* it serves the resource */
    to.egress_pool_id = fsm_fake_id(7, 3);
    assert_int_equal(fsm_do(w, CMD_RESOURCE_SET, &to), 0);
    assert_int_equal(fsm_do(w, CMD_POOL_DELETE, &drop), 0);

    /* A role gained is a resource gained, and the other way round. */
    assign(w, x, 3, "acme");
    assert_int_equal(look(w, x).resources, 1);
    assert_int_equal(fsm_do(w, CMD_ROLE_UNASSIGN,
                            &(struct role_unassign){.node_id = x,
                                                    .role = blob_str("audit-sink"),
                                                    .organization_id = blob_str("acme")}),
                     0);
    assert_int_equal(look(w, x).resources, 0);
    const struct resource_delete gone = {.resource_id = fsm_fake_id(8, 1)};
    assert_int_equal(fsm_do(w, CMD_RESOURCE_DELETE, &gone), 0);
    s = look(w, a);
    assert_int_equal(s.index, w->index);
    assert_int_equal(s.resources, 0);
    assert_int_equal(fsm_do(w, CMD_RESOURCE_DELETE, &gone), -ERR_NOT_FOUND);
    assert_int_equal(fsm_do(w, CMD_RESOURCE_SET, &to), -ERR_NOT_FOUND);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM cluster_audit_events WHERE event_type"
                                  " LIKE 'resource_%' AND high_risk = 1 AND organization_id ="
                                  " 'acme'"),
                     4);
}

static void test_a_resource_whose_node_is_shut_out_is_served_by_nobody(void **state)
{
    struct fsm_world *w = *state;
    struct uuid a = fsm_make_node(w, 21, "alpha");
    struct uuid x = fsm_make_node(w, 23, "exit");
    assign(w, a, 1, "acme");
    struct resource_create c = resource(1, "acme", x);
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), 0);
    assert_int_equal(fsm_do(w, CMD_NODE_REVOKE,
                            &(struct node_revoke){.node_id = x, .reason = blob_str("stolen")}),
                     0);
    struct seen s = look(w, a);
    assert_int_equal(s.index, w->index);
    assert_int_equal(s.resources, 1);
    assert_true(uuid_is_nil(&s.first.node_id) && uuid_is_nil(&s.first.pool_id));
    c.resource_id = fsm_fake_id(8, 2);
    c.name = blob_str("files");
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), -ERR_REVOKED);
}

static void test_bad_resources_are_refused(void **state)
{
    struct fsm_world *w = *state;
    struct uuid x = fsm_make_node(w, 23, "exit");
    pool(w, 1, "exits", "");
    const struct resource_create good = resource(1, "acme", x);
    struct resource_create c = good;
    const struct {
        struct blob *field;
        const char *bad;
    } words[] = {{&c.name, "Not A Name"}, {&c.name, "acme/db"}, {&c.protocol, "R D P"}};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        c = good;
        *words[i].field = blob_str(words[i].bad);
        assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), -ERR_INVALID);
    }
    c = good;
    c.organization_id = blob_str("");
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), -ERR_INVALID);
    c = good;
    c.egress_pool_id = fsm_fake_id(7, 1); /* and a node */
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), -ERR_INVALID);
    c.node_id = UUID_NIL;
    c.egress_pool_id = UUID_NIL;
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), -ERR_INVALID);
    c.egress_pool_id = fsm_fake_id(7, 9);
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), -ERR_NOT_FOUND);
    c = good;
    c.node_id = fsm_fake_id(9, 9);
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), -ERR_NOT_FOUND);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM organization_resources"), 0);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM cluster_audit_events WHERE event_type"
                                  " LIKE 'resource_%'"),
                     0);
}

static struct intent_create intent(uint32_t n, const char *name)
{
    return (struct intent_create){.intent_id = fsm_fake_id(6, n),
                                  .name = blob_str(name),
                                  .policy = blob_str("deny"),
                                  .source_kind = blob_str("any"),
                                  .destination_kind = blob_str("any"),
                                  .via_kind = blob_str("any")};
}

static void test_an_intent_about_a_resource_follows_it(void **state)
{
    struct fsm_world *w = *state;
    char id[UUID_TEXT_MAX];
    struct uuid a = fsm_make_node(w, 21, "alpha");
    struct uuid b = fsm_make_node(w, 22, "beta");
    struct uuid x = fsm_make_node(w, 23, "exit");
    struct uuid y = fsm_make_node(w, 24, "other");
    assign(w, a, 1, "acme");
    assign(w, b, 2, "zeta");
    struct resource_create c = resource(1, "acme", x);
    assert_int_equal(fsm_do(w, CMD_RESOURCE_CREATE, &c), 0);
    uuid_format(&c.resource_id, id);
    uint64_t others = look(w, b).index;
    struct intent_create i = intent(1, "closed");
    i.destination_kind = blob_str("resource");
    i.destination_ref = blob_str(id);
    i.organization_id = blob_str("zeta");
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &i), -ERR_SCOPE);
    i.organization_id = blob_str(""); /* it is acme's, for the resource is */
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &i), 0);
    struct seen s = look(w, a);
    assert_int_equal(s.index, w->index);
    assert_int_equal(s.intents, 1);
    assert_true(uuid_equal(&s.destination, &x));
    assert_int_equal(look(w, b).intents, 0);
    assert_int_equal(look(w, b).index, others);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM cluster_route_intents WHERE"
                                  " organization_id = 'acme' AND source_kind = 'organization'"),
                     1);

    const struct resource_delete gone = {.resource_id = c.resource_id};
    assert_int_equal(fsm_do(w, CMD_RESOURCE_DELETE, &gone), -ERR_CONFLICT);
    struct resource_set to = {
        .resource_id = c.resource_id, .protocol = blob_str("ssh"), .node_id = y};
    assert_int_equal(fsm_do(w, CMD_RESOURCE_SET, &to), 0);
    s = look(w, a);
    assert_int_equal(s.index, w->index);
    assert_true(uuid_equal(&s.destination, &y));
    /* Behind a pool, it is about whoever is in it. */
    pool(w, 1, "exits", "");
    to.node_id = UUID_NIL;
    to.egress_pool_id = fsm_fake_id(7, 1);
    assert_int_equal(fsm_do(w, CMD_RESOURCE_SET, &to), 0);
    assert_int_equal(look(w, a).intent.destinations.count, 0);
    assert_int_equal(fsm_do(w, CMD_POOL_MEMBER,
                            &(struct pool_member){.pool_id = to.egress_pool_id, .node_id = x}),
                     0);
    s = look(w, a);
    assert_int_equal(s.index, w->index);
    assert_true(uuid_equal(&s.destination, &x));

    /* A grant of addresses, to whoever serves it. */
    struct intent_create grant = intent(2, "grant");
    grant.policy = blob_str("direct");
    grant.source_kind = blob_str("organization");
    grant.source_ref = blob_str("acme");
    grant.destination_kind = blob_str("resource");
    grant.destination_ref = blob_str(id);
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &grant), 0);
    const struct node_health moved = {
        .node_id = x, .health = blob_str("healthy"), .address = blob_str("192.0.2.3:7400")};
    assert_int_equal(fsm_do(w, CMD_NODE_HEALTH, &moved), 0);
    assert_int_equal(look(w, a).index, w->index);
    struct cut cut;
    cut_init(&cut);
    assert_int_equal(cut_node(fsm_db(w->fsm), fsm_level(w->fsm), &a, &cut), 0);
    assert_int_equal(cut.body.peers.count, 1);
    cut_fini(&cut);
}

static void test_an_intent_of_an_organization_is_obeyed_by_its_nodes_alone(void **state)
{
    struct fsm_world *w = *state;
    struct uuid a = fsm_make_node(w, 21, "alpha");
    struct uuid b = fsm_make_node(w, 22, "beta");
    assign(w, a, 1, "acme");
    assign(w, b, 2, "zeta");
    uint64_t others = look(w, b).index;
    struct fsm_position before;
    struct fsm_position after;
    fsm_position(w->fsm, &before);
    struct intent_create i = intent(1, "ours");
    i.organization_id = blob_str("acme");
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &i), 0);
    fsm_position(w->fsm, &after);
    assert_int_equal(after.config_index, before.config_index); /* it is not everybody's */
    assert_int_equal(look(w, a).intents, 1);
    assert_int_equal(look(w, a).index, w->index);
    assert_int_equal(look(w, b).intents, 0);
    assert_int_equal(look(w, b).index, others);
    /* A source that is wider than the organization is narrowed by it. */
    i = intent(2, "sinks");
    i.source_kind = blob_str("role");
    i.source_ref = blob_str("audit-sink");
    i.organization_id = blob_str("zeta");
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &i), 0);
    assert_int_equal(look(w, a).intents, 1);
    assert_int_equal(look(w, b).intents, 1);
    assign(w, b, 3, "acme"); /* another organization, another intent */
    assert_int_equal(look(w, b).intents, 2);
    /* What belongs to one organization is no other's destination. */
    pool(w, 1, "exits", "acme");
    char id[UUID_TEXT_MAX];
    struct uuid pool_id = fsm_fake_id(7, 1);
    uuid_format(&pool_id, id);
    i = intent(3, "theirs");
    i.destination_kind = blob_str("pool");
    i.destination_ref = blob_str(id);
    i.organization_id = blob_str("zeta");
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &i), -ERR_SCOPE);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM cluster_audit_events WHERE event_type ="
                                  " 'route_intent_created' AND organization_id IS NOT NULL"),
                     2);
}

static void test_an_intent_about_a_service_denies_it_and_nothing_else(void **state)
{
    struct fsm_world *w = *state;
    char id[UUID_TEXT_MAX];
    struct uuid a = fsm_make_node(w, 21, "alpha");
    uuid_format(&a, id);
    struct intent_create good = intent(1, "no-tests");
    good.source_kind = blob_str("node");
    good.source_ref = blob_str(id);
    good.service_class = blob_str("synthetic");
    struct intent_create i = good;
    i.service_class = blob_str("raft");
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &i), -ERR_INVALID);
    i = good;
    i.policy = blob_str("avoid");
    i.via_kind = blob_str("direct");
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &i), -ERR_INVALID);
    i = good;
    i.qos_class = blob_str("bulk");
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &i), -ERR_INVALID);
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &good), 0);
    struct seen s = look(w, a);
    assert_int_equal(s.intents, 1);
    assert_string_equal(s.service, "synthetic");
    /* A node that does not know of services leaves it out, for it knows no such policy. */
    assert_int_equal(s.intent.policy, SNAPSHOT_INTENT_DENY_SERVICE);
}

static void test_below_their_level_there_is_none_of_it(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    fsm_world_raise_to(&w, LEVEL_RESOURCES - 1);
    struct uuid a = fsm_make_node(&w, 21, "alpha");
    struct uuid x = fsm_make_node(&w, 23, "exit");
    assign(&w, a, 1, "acme");
    struct resource_create c = resource(1, "acme", x);
    assert_int_equal(fsm_do(&w, CMD_RESOURCE_CREATE, &c), -ERR_UNSUPPORTED);
    struct intent_create i = intent(1, "ours");
    i.organization_id = blob_str("acme");
    assert_int_equal(fsm_do(&w, CMD_INTENT_CREATE, &i), -ERR_UNSUPPORTED);
    i = intent(1, "ours");
    i.service_class = blob_str("synthetic");
    assert_int_equal(fsm_do(&w, CMD_INTENT_CREATE, &i), -ERR_UNSUPPORTED);
    i = intent(1, "plain");
    i.source_kind = blob_str("organization");
    i.source_ref = blob_str("acme");
    assert_int_equal(fsm_do(&w, CMD_INTENT_CREATE, &i), 0);
    assert_int_equal(look(&w, a).intents, 1);
    /* What there was is still there at the level that brings them. */
    fsm_world_raise(&w);
    assert_int_equal(look(&w, a).intents, 1);
    assert_int_equal(fsm_do(&w, CMD_RESOURCE_CREATE, &c), 0);
    assert_int_equal(look(&w, a).resources, 1);
    fsm_world_fini(&w);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_a_resource_is_known_to_its_organization_and_nobody_else),
        T(test_a_resource_whose_node_is_shut_out_is_served_by_nobody),
        T(test_bad_resources_are_refused),
        T(test_an_intent_about_a_resource_follows_it),
        T(test_an_intent_of_an_organization_is_obeyed_by_its_nodes_alone),
        T(test_an_intent_about_a_service_denies_it_and_nothing_else),
        cmocka_unit_test(test_below_their_level_there_is_none_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
