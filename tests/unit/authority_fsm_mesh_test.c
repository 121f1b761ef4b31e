/* The overlay's configuration in the state: who is told whose address, and that each node's signed part
 * moves exactly when what it says does. */
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

static int assign(struct fsm_world *w, struct uuid node, uint32_t id, const char *org)
{
    return fsm_do(w, CMD_ROLE_ASSIGN,
                  &(struct role_assign){.assignment_id = fsm_fake_id(5, id),
                                        .node_id = node,
                                        .role = blob_str("audit-sink"),
                                        .organization_id = blob_str(org)});
}

static int report(struct fsm_world *w, struct uuid node, const char *address)
{
    return fsm_do(w, CMD_NODE_HEALTH,
                  &(struct node_health){.node_id = node,
                                        .health = blob_str("healthy"),
                                        .address = blob_str(address)});
}

/* What one node is told: its peers' addresses, comma-separated, and the index it is of. */
static uint64_t told(struct fsm_world *w, struct uuid node, char out[8192], uint32_t *ret_count)
{
    struct cut c;
    struct mp_reader r;
    cut_init(&c);
    assert_int_equal(cut_node(fsm_db(w->fsm), fsm_level(w->fsm), &node, &c), 0);
    mp_reader_init(&r, c.body.peers.raw);
    out[0] = '\0';
    for (uint32_t i = 0; i < c.body.peers.count; i++) {
        struct snapshot_peer p;
        size_t len = strlen(out);
        assert_int_equal(msg_decode(&snapshot_peer_desc, MSG_STRICT, mp_get_bin(&r, 4096), &p), 0);
        (void)snprintf(out + len, 8192 - len, "%s%.*s", len > 0 ? "," : "", (int)p.address.len,
                       (const char *)p.address.data);
    }
    if (ret_count != NULL) {
        *ret_count = c.body.peers.count;
    }
    uint64_t index = c.config_index;
    cut_fini(&c);
    return index;
}

static void test_those_of_one_organization_know_each_other(void **state)
{
    struct fsm_world *w = *state;
    char text[8192];
    fsm_world_raise(w);
    struct uuid a = fsm_make_node(w, 21, "alpha");
    struct uuid b = fsm_make_node(w, 22, "beta");
    struct uuid c = fsm_make_node(w, 23, "gamma");
    assert_int_equal(report(w, a, "192.0.2.1:7400"), 0);
    assert_int_equal(report(w, b, "192.0.2.2:7400"), 0);
    assert_int_equal(report(w, c, "192.0.2.3:7400"), 0);
    assert_int_equal(assign(w, a, 1, "acme"), 0);
    assert_int_equal(assign(w, c, 2, "zeta"), 0);
    (void)told(w, a, text, NULL);
    assert_string_equal(text, "");
    uint64_t before = told(w, a, text, NULL);
    assert_int_equal(assign(w, b, 3, "acme"), 0);
    assert_true(told(w, a, text, NULL) > before);
    assert_string_equal(text, "192.0.2.2:7400");
    (void)told(w, b, text, NULL);
    assert_string_equal(text, "192.0.2.1:7400");
    (void)told(w, c, text, NULL);
    assert_string_equal(text, "");

    before = told(w, a, text, NULL);
    uint64_t other = told(w, c, text, NULL);
    assert_int_equal(report(w, b, "192.0.2.9:7400"), 0); /* it moves */
    assert_true(told(w, a, text, NULL) > before);
    assert_string_equal(text, "192.0.2.9:7400");
    assert_int_equal(told(w, c, text, NULL), other); /* not gamma's business */

    before = told(w, a, text, NULL);
    const struct membership_set off = {
        .node_id = b, .disabled = true, .reason = blob_str("moving house")};
    assert_int_equal(fsm_do(w, CMD_MEMBERSHIP_SET, &off), 0);
    assert_true(told(w, a, text, NULL) > before);
    assert_string_equal(text, "");
    (void)told(w, b, text, NULL);
    assert_string_equal(text, ""); /* who is disabled is told of nobody */

    const struct membership_set on = {.node_id = b};
    assert_int_equal(fsm_do(w, CMD_MEMBERSHIP_SET, &on), 0);
    before = told(w, a, text, NULL);
    assert_string_equal(text, "192.0.2.9:7400");
    assert_int_equal(fsm_do(w, CMD_NODE_REVOKE,
                            &(struct node_revoke){.node_id = b, .reason = blob_str("stolen")}),
                     0);
    assert_true(told(w, a, text, NULL) > before);
    assert_string_equal(text, "");
}

/* However large an organization is, a node is told of PEERS_MAX others, and a change of one node concerns
 * as many; whoever's list does not change keeps its configuration. */
static void test_a_large_organization_is_a_ring(void **state)
{
    enum { NODES = PEERS_MAX + 20 };
    struct fsm_world *w = *state;
    static struct uuid node[NODES];
    static char before[NODES][8192];
    static uint64_t index[NODES];
    char text[8192];
    fsm_world_raise(w);
    for (uint32_t i = 0; i < NODES; i++) {
        char name[16];
        char address[32];
        (void)snprintf(name, sizeof name, "n%u", i);
        (void)snprintf(address, sizeof address, "192.0.2.%u:7400", i);
        node[i] = fsm_make_node(w, 100 + i, name);
        assert_int_equal(report(w, node[i], address), 0);
        assert_int_equal(assign(w, node[i], 100 + i, "acme"), 0);
    }
    for (uint32_t i = 0; i < NODES; i++) {
        uint32_t count;
        index[i] = told(w, node[i], before[i], &count);
        assert_int_equal(count, PEERS_MAX);
    }
    assert_int_equal(report(w, node[7], "198.51.100.7:7400"), 0);
    unsigned changed = 0;
    for (uint32_t i = 0; i < NODES; i++) {
        uint64_t now = told(w, node[i], text, NULL);
        bool other = strcmp(text, before[i]) != 0;
        assert_int_equal(other, now != index[i]);
        changed += other;
    }
    assert_int_equal(changed, PEERS_MAX);
    for (uint32_t i = 0; i < NODES; i++) {
        index[i] = told(w, node[i], before[i], NULL);
    }
    assert_int_equal(fsm_do(w, CMD_ROLE_UNASSIGN,
                            &(struct role_unassign){.node_id = node[7],
                                                    .role = blob_str("audit-sink"),
                                                    .organization_id = blob_str("acme")}),
                     0);
    for (uint32_t i = 0; i < NODES; i++) {
        if (strcmp((told(w, node[i], text, NULL), text), before[i]) != 0) {
            assert_true(told(w, node[i], text, NULL) > index[i]);
        }
    }
}

static void test_an_older_state_tells_of_nobody_and_then_all_at_once(void **state)
{
    struct fsm_world *w = *state;
    char text[8192];
    struct uuid a = fsm_make_node(w, 21, "alpha");
    struct uuid b = fsm_make_node(w, 22, "beta");
    assert_int_equal(report(w, a, "192.0.2.1:7400"), 0);
    assert_int_equal(report(w, b, "192.0.2.2:7400"), 0);
    assert_int_equal(assign(w, a, 1, "acme"), 0);
    assert_int_equal(assign(w, b, 2, "acme"), 0);
    uint64_t before = told(w, a, text, NULL);
    assert_string_equal(text, "");
    const struct mesh_set early = {.overlay = SWITCH_ON};
    assert_int_equal(fsm_do(w, CMD_MESH_SET, &early), -ERR_UNSUPPORTED);
    fsm_world_raise(w);
    assert_true(told(w, a, text, NULL) > before);
    assert_string_equal(text, "192.0.2.2:7400");
}

static bool cluster_overlay(struct fsm_world *w, struct snapshot_relay *ret_relay)
{
    struct cut c;
    struct mp_reader r;
    cut_init(&c);
    assert_int_equal(cut_cluster(fsm_db(w->fsm), fsm_level(w->fsm), &c), 0);
    bool on = c.body.overlay;
    *ret_relay = (struct snapshot_relay){.roles = 0};
    mp_reader_init(&r, c.body.relays.raw);
    if (c.body.relays.count > 0) {
        assert_int_equal(
            msg_decode(&snapshot_relay_desc, MSG_STRICT, mp_get_bin(&r, 4096), ret_relay), 0);
    }
    cut_fini(&c);
    return on;
}

static uint64_t cut_off_told(struct fsm_world *w)
{
    struct cut c;
    cut_init(&c);
    assert_int_equal(cut_cluster(fsm_db(w->fsm), fsm_level(w->fsm), &c), 0);
    uint64_t ms = c.body.cut_off_after_ms;
    cut_fini(&c);
    return ms;
}

/* AUTH-04. */
static void test_how_long_services_go_on_is_told_to_every_node(void **state)
{
    struct fsm_world *w = *state;
    struct fsm_position pos;
    const struct mesh_set set = {.cut_off_after_ms = 60000};
    const struct mesh_set synthetic = {.synthetic = SWITCH_ON};
    const struct mesh_set never = {.cut_off_after_ms = CUT_OFF_NEVER};
    fsm_world_raise_to(w, LEVEL_CUT_OFF - 1);
    assert_int_equal(fsm_do(w, CMD_MESH_SET, &set), -ERR_UNSUPPORTED);
    assert_int_equal(fsm_do(w, CMD_MESH_SET, &synthetic), 0);
    assert_int_equal(cut_off_told(w), 0);
    fsm_world_raise(w);
    assert_int_equal(cut_off_told(w), 0);
    assert_int_equal(fsm_do(w, CMD_MESH_SET, &set), 0);
    fsm_position(w->fsm, &pos);
    assert_int_equal(pos.config_index, w->index);
    assert_int_equal(cut_off_told(w), 60000);
    assert_int_equal(fsm_count(w, "SELECT synthetic FROM mesh_settings"), 1);
    assert_int_equal(fsm_do(w, CMD_MESH_SET, &synthetic), 0);
    assert_int_equal(cut_off_told(w), 60000); /* what is not given stays */
    static const uint64_t bad[] = {2, CUT_OFF_MS_MIN - 1, CUT_OFF_MS_MAX + 1, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        const struct mesh_set wrong = {.cut_off_after_ms = bad[i]};
        assert_int_equal(fsm_do(w, CMD_MESH_SET, &wrong), -ERR_INVALID);
    }
    assert_int_equal(cut_off_told(w), 60000);
    assert_int_equal(fsm_do(w, CMD_MESH_SET, &never), 0);
    assert_int_equal(cut_off_told(w), 0);
}

static void test_settings_reach_whom_they_concern(void **state)
{
    struct fsm_world *w = *state;
    struct snapshot_relay relay;
    struct fsm_position pos;
    char text[8192];
    fsm_world_raise(w);
    struct uuid a = fsm_make_node(w, 21, "alpha");
    assert_int_equal(report(w, a, "192.0.2.1:7400"), 0);
    assert_false(cluster_overlay(w, &relay));
    const struct mesh_set on = {.overlay = SWITCH_ON};
    assert_int_equal(fsm_do(w, CMD_MESH_SET, &on), 0);
    assert_true(cluster_overlay(w, &relay));
    fsm_position(w->fsm, &pos);
    assert_int_equal(pos.config_index, w->index);
    const struct mesh_set nothing = {.overlay = SWITCH_KEEP};
    assert_int_equal(fsm_do(w, CMD_MESH_SET, &nothing), -ERR_INVALID);

    struct node_mesh_set row = {.node_id = a,
                                .overlay = blob_str("off"),
                                .synthetic = blob_str("inherit"),
                                .kind = blob_str("auto"),
                                .region = blob_str("eu-west"),
                                .bandwidth_mbps = 100,
                                .trust = 70};
    assert_int_equal(fsm_do(w, CMD_NODE_MESH_SET, &row), 0);
    assert_int_equal(told(w, a, text, NULL), w->index);
    fsm_position(w->fsm, &pos);
    assert_true(pos.config_index < w->index); /* no relay: nobody else's business */
    assert_int_equal(fsm_do(w, CMD_ROLE_ASSIGN,
                            &(struct role_assign){.assignment_id = fsm_fake_id(5, 1),
                                                  .node_id = a,
                                                  .role = blob_str("relay-node")}),
                     0);
    (void)cluster_overlay(w, &relay);
    assert_int_equal(relay.distrust, 30);
    assert_int_equal(relay.bandwidth_mbps, 100);
    assert_int_equal(relay.region.len, strlen("eu-west"));
    row.kind = blob_str("thin");
    assert_int_equal(fsm_do(w, CMD_NODE_MESH_SET, &row), 0);
    fsm_position(w->fsm, &pos);
    assert_int_equal(pos.config_index, w->index);
    (void)cluster_overlay(w, &relay);
    assert_int_equal(relay.roles, 0); /* not listed */

    const struct {
        struct blob *field;
        const char *bad;
    } bad[] = {{&row.kind, "huge"},
               {&row.overlay, "perhaps"},
               {&row.synthetic, ""},
               {&row.region, "Not a name"}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct blob good = *bad[i].field;
        *bad[i].field = blob_str(bad[i].bad[0] == '\0' ? "x" : bad[i].bad);
        assert_int_equal(fsm_do(w, CMD_NODE_MESH_SET, &row), -ERR_INVALID);
        *bad[i].field = good;
    }
    row.trust = TRUST_LEVEL_MAX + 1;
    assert_int_equal(fsm_do(w, CMD_NODE_MESH_SET, &row), -ERR_INVALID);
    row.trust = 70;
    row.node_id = fsm_fake_id(9, 9);
    assert_int_equal(fsm_do(w, CMD_NODE_MESH_SET, &row), -ERR_NOT_FOUND);

    /* The row ends with the node. */
    assert_int_equal(fsm_do(w, CMD_NODE_REVOKE,
                            &(struct node_revoke){.node_id = a, .reason = blob_str("stolen")}),
                     0);
    assert_int_equal(fsm_do(w, CMD_NODE_REMOVE, &(struct node_remove){.node_id = a}), 0);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM node_mesh_settings"), 0);
}

/* --- intents and pools --- */

/* How many intents and pools the node is told of, apart from those that everybody is; the index. */
static uint64_t concerned(struct fsm_world *w, struct uuid node, uint32_t *ret_intents,
                          uint32_t *ret_pools)
{
    struct cut c;
    cut_init(&c);
    assert_int_equal(cut_node(fsm_db(w->fsm), fsm_level(w->fsm), &node, &c), 0);
    *ret_intents = c.body.intents.count;
    *ret_pools = c.body.pools.count;
    uint64_t index = c.config_index;
    cut_fini(&c);
    return index;
}

static struct intent_create intent(uint32_t n, const char *name, const char *from, const char *ref)
{
    return (struct intent_create){.intent_id = fsm_fake_id(6, n),
                                  .name = blob_str(name),
                                  .policy = blob_str("deny"),
                                  .source_kind = blob_str(from),
                                  .source_ref = blob_str(ref),
                                  .destination_kind = blob_str("any"),
                                  .via_kind = blob_str("direct")};
}

static void test_intents_reach_their_sources_and_nobody_else(void **state)
{
    struct fsm_world *w = *state;
    uint32_t intents;
    uint32_t pools;
    char a_text[UUID_TEXT_MAX];
    fsm_world_raise(w);
    struct uuid a = fsm_make_node(w, 21, "alpha");
    struct uuid b = fsm_make_node(w, 22, "beta");
    uuid_format(&a, a_text);
    assert_int_equal(assign(w, a, 1, "acme"), 0);
    const struct node_mesh_set place = {.node_id = a,
                                        .overlay = blob_str("inherit"),
                                        .synthetic = blob_str("inherit"),
                                        .kind = blob_str("auto"),
                                        .region = blob_str("eu"),
                                        .trust = 100};
    assert_int_equal(fsm_do(w, CMD_NODE_MESH_SET, &place), 0);
    static const char *const kinds[] = {"node", "role", "region", "organization"};
    const char *refs[] = {a_text, "audit-sink", "eu", "acme"};
    uint64_t others = concerned(w, b, &intents, &pools);
    for (uint32_t i = 0; i < 4; i++) {
        struct intent_create c = intent(i, kinds[i], kinds[i], refs[i]);
        assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &c), 0);
        assert_int_equal(concerned(w, a, &intents, &pools), w->index);
        assert_int_equal(intents, i + 1);
        assert_int_equal(concerned(w, b, &intents, &pools), others);
        assert_int_equal(intents, 0);
    }
    /* What a node is can change: then what concerns it does. */
    assert_int_equal(assign(w, b, 2, "acme"), 0);
    (void)concerned(w, b, &intents, &pools);
    assert_int_equal(intents, 2); /* by its role and its organization */
    const struct intent_set off = {.intent_id = fsm_fake_id(6, 3), .disabled = true};
    assert_int_equal(fsm_do(w, CMD_INTENT_SET, &off), 0);
    assert_int_equal(concerned(w, b, &intents, &pools), w->index);
    assert_int_equal(intents, 1);
    assert_int_equal(fsm_do(w, CMD_INTENT_SET, &off), -ERR_DECIDED);
    const struct intent_delete gone = {.intent_id = fsm_fake_id(6, 1)};
    assert_int_equal(fsm_do(w, CMD_INTENT_DELETE, &gone), 0);
    assert_int_equal(concerned(w, b, &intents, &pools), w->index);
    assert_int_equal(intents, 0);
    assert_int_equal(concerned(w, a, &intents, &pools), w->index);
    assert_int_equal(intents, 2);
    assert_int_equal(fsm_do(w, CMD_INTENT_DELETE, &gone), -ERR_NOT_FOUND);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM cluster_audit_events WHERE event_type"
                                  " LIKE 'route_intent_%' AND high_risk = 1"),
                     6);

    /* One for everybody is in everybody's part. */
    struct fsm_position pos;
    struct intent_create all = intent(9, "all", "any", "");
    others = concerned(w, b, &intents, &pools);
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &all), 0);
    fsm_position(w->fsm, &pos);
    assert_int_equal(pos.config_index, w->index);
    assert_int_equal(concerned(w, b, &intents, &pools), others);
}

static int member(struct fsm_world *w, uint32_t pool, struct uuid node, bool removed)
{
    const struct pool_member m = {
        .pool_id = fsm_fake_id(7, pool), .node_id = node, .removed = removed};
    return fsm_do(w, CMD_POOL_MEMBER, &m);
}

static void test_pools_are_known_to_their_organization_and_grants_to_their_sources(void **state)
{
    struct fsm_world *w = *state;
    uint32_t intents;
    uint32_t pools;
    char text[8192];
    char a_text[UUID_TEXT_MAX];
    char pool_text[UUID_TEXT_MAX];
    fsm_world_raise(w);
    struct uuid a = fsm_make_node(w, 21, "alpha");
    struct uuid b = fsm_make_node(w, 22, "beta");
    struct uuid x = fsm_make_node(w, 23, "exit");
    uuid_format(&a, a_text);
    assert_int_equal(report(w, x, "192.0.2.3:7400"), 0);
    assert_int_equal(assign(w, a, 1, "acme"), 0);
    const struct pool_create pool = {.pool_id = fsm_fake_id(7, 1),
                                     .name = blob_str("exits"),
                                     .organization_id = blob_str("acme")};
    assert_int_equal(fsm_do(w, CMD_POOL_CREATE, &pool), 0);
    assert_int_equal(concerned(w, a, &intents, &pools), w->index);
    assert_int_equal(pools, 1);
    (void)concerned(w, b, &intents, &pools);
    assert_int_equal(pools, 0);
    assert_int_equal(fsm_do(w, CMD_POOL_CREATE, &pool), -ERR_NAME_TAKEN);

    /* A grant: alpha is told where the pool's nodes are, and of whoever comes and goes. */
    uuid_format(&pool.pool_id, pool_text);
    struct intent_create grant = intent(1, "grant", "node", a_text);
    grant.policy = blob_str("direct");
    grant.via_kind = blob_str("any");
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &grant), -ERR_INVALID); /* to anybody */
    grant.destination_kind = blob_str("pool");
    grant.destination_ref = blob_str(pool_text);
    assert_int_equal(fsm_do(w, CMD_INTENT_CREATE, &grant), 0);
    assert_int_equal(member(w, 1, x, false), 0);
    assert_int_equal(told(w, a, text, NULL), w->index);
    assert_string_equal(text, "192.0.2.3:7400");
    assert_int_equal(report(w, x, "192.0.2.4:7400"), 0);
    assert_int_equal(told(w, a, text, NULL), w->index);
    assert_string_equal(text, "192.0.2.4:7400");
    (void)told(w, b, text, NULL);
    assert_string_equal(text, "");
    assert_int_equal(member(w, 1, x, false), -ERR_DECIDED);
    const struct pool_delete drop = {.pool_id = pool.pool_id};
    assert_int_equal(fsm_do(w, CMD_POOL_DELETE, &drop), -ERR_CONFLICT); /* the grant names it */
    assert_int_equal(fsm_do(w, CMD_NODE_REVOKE,
                            &(struct node_revoke){.node_id = x, .reason = blob_str("stolen")}),
                     0);
    assert_int_equal(told(w, a, text, NULL), w->index);
    assert_string_equal(text, "");
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM egress_pool_members"), 0);
    const struct intent_delete gone = {.intent_id = grant.intent_id};
    assert_int_equal(fsm_do(w, CMD_INTENT_DELETE, &gone), 0);
    /* Without a grant too, who may use the pool hears that a node has left it. */
    assert_int_equal(member(w, 1, b, false), 0);
    assert_int_equal(concerned(w, a, &intents, &pools), w->index);
    assert_int_equal(fsm_do(w, CMD_NODE_REVOKE,
                            &(struct node_revoke){.node_id = b, .reason = blob_str("stolen")}),
                     0);
    assert_int_equal(concerned(w, a, &intents, &pools), w->index);
    assert_int_equal(fsm_do(w, CMD_POOL_DELETE, &drop), 0);
    assert_int_equal(concerned(w, a, &intents, &pools), w->index);
    assert_int_equal(pools, 0);
}

static void test_queues_are_bounded(void **state)
{
    struct fsm_world *w = *state;
    fsm_world_raise(w);
    struct qos_set q = {.channel_class = blob_str("bulk"),
                        .priority = 3,
                        .floor_permille = 62,
                        .limit_kib = 4096,
                        .life_ms = 2000};
    assert_int_equal(fsm_do(w, CMD_QOS_SET, &q), 0);
    struct fsm_position pos;
    fsm_position(w->fsm, &pos);
    assert_int_equal(pos.config_index, w->index);
    const struct {
        uint64_t *field;
        uint64_t bad;
    } bad[] = {
        {&q.priority, QOS_PRIORITY_MAX + 1},      {&q.floor_permille, QOS_FLOOR_PERMILLE_MAX + 1},
        {&q.rate_kbps, QOS_RATE_KBPS_MAX + 1ull}, {&q.limit_kib, QOS_LIMIT_KIB_MIN - 1},
        {&q.limit_kib, QOS_LIMIT_KIB_MAX + 1},    {&q.life_ms, QOS_LIFE_MS_MIN - 1},
        {&q.life_ms, QOS_LIFE_MS_MAX + 1}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t good = *bad[i].field;
        *bad[i].field = bad[i].bad;
        assert_int_equal(fsm_do(w, CMD_QOS_SET, &q), -ERR_INVALID);
        *bad[i].field = good;
    }
    q.channel_class = blob_str("control");
    assert_int_equal(fsm_do(w, CMD_QOS_SET, &q), -ERR_INVALID); /* not after others */
    q.channel_class = blob_str("express");
    assert_int_equal(fsm_do(w, CMD_QOS_SET, &q), -ERR_INVALID);
    q = (struct qos_set){.channel_class = blob_str("bulk"), .reset = true};
    assert_int_equal(fsm_do(w, CMD_QOS_SET, &q), 0);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM qos_policies"), 0);
}

/* --- observations --- */

static int log_link(struct fsm_world *w, struct uuid from, struct uuid to, const char *status)
{
    struct buf list;
    uint32_t count = 0;
    const struct mesh_link_seen seen = {.from_node_id = from,
                                        .to_node_id = to,
                                        .status = blob_str(status),
                                        .rtt_us = 900,
                                        .reported_at_ms = w->now_ms++};
    buf_init(&list, 4096);
    msg_list_add(&mesh_link_seen_desc, &seen, &list, &count);
    int rc = fsm_do(w, CMD_MESH_LOG,
                    &(struct mesh_log){.links = {.raw = buf_blob(&list), .count = count}});
    buf_fini(&list);
    return rc;
}

static void test_observations_are_of_members_few_and_no_events(void **state)
{
    struct fsm_world *w = *state;
    fsm_world_raise(w);
    struct uuid a = fsm_make_node(w, 21, "alpha");
    struct uuid peer[MESH_LINKS_KEPT + 3];
    for (uint32_t i = 0; i < ARRAY_SIZE(peer); i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "p%u", i);
        peer[i] = fsm_make_node(w, 100 + i, name);
    }
    const char *person = w->actor_kind;
    assert_int_equal(log_link(w, a, peer[0], "up"), -ERR_DENIED); /* the leader's to say */
    int64_t events = fsm_count(w, "SELECT count(*) FROM cluster_audit_events");
    w->actor_kind = ACTOR_SYSTEM;
    for (uint32_t i = 0; i < ARRAY_SIZE(peer); i++) {
        assert_int_equal(log_link(w, a, peer[i], "up"), 0);
    }
    /* The oldest went; one that is down would have gone first. */
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM mesh_links"), MESH_LINKS_KEPT);
    assert_int_equal(log_link(w, a, peer[10], "down"), 0);
    assert_int_equal(log_link(w, a, peer[0], "up"), 0);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM mesh_links WHERE status = 'down'"), 0);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM mesh_links"), MESH_LINKS_KEPT);
    assert_int_equal(log_link(w, a, fsm_fake_id(9, 9), "up"), 0);
    assert_int_equal(log_link(w, a, peer[5], "excellent"), 0);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM mesh_links WHERE status = 'up'"),
                     MESH_LINKS_KEPT);
    struct buf bad;
    struct mp_writer mw;
    buf_init(&bad, 64);
    mp_writer_init(&mw, &bad);
    mp_put_bin(&mw, blob_str("nonsense"));
    assert_int_equal(
        fsm_do(w, CMD_MESH_LOG, &(struct mesh_log){.links = {.raw = buf_blob(&bad), .count = 1}}),
        -ERR_MALFORMED);
    buf_fini(&bad);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM cluster_audit_events"), events);
    w->actor_kind = person;
    assert_int_equal(fsm_do(w, CMD_NODE_REVOKE,
                            &(struct node_revoke){.node_id = a, .reason = blob_str("stolen")}),
                     0);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM mesh_links"), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_those_of_one_organization_know_each_other),
        T(test_a_large_organization_is_a_ring),
        T(test_an_older_state_tells_of_nobody_and_then_all_at_once),
        T(test_how_long_services_go_on_is_told_to_every_node),
        T(test_settings_reach_whom_they_concern),
        T(test_intents_reach_their_sources_and_nobody_else),
        T(test_pools_are_known_to_their_organization_and_grants_to_their_sources),
        T(test_queues_are_bounded),
        T(test_observations_are_of_members_few_and_no_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
