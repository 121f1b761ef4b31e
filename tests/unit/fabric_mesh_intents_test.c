/* Intents: which ways each lets through, what it makes dear, and whom none is about. */
#include "fabric/mesh_intents.h"

#include <setjmp.h>
#include <cmocka.h>

static struct uuid id(uint8_t n)
{
    struct uuid u = {.b = {n}};
    return u;
}

enum { DST = 10, OTHER, RELAY = 20, FAR_RELAY, AUTHORITY = 30 };

static void add(struct mesh_intents *p, enum mesh_intent_kind kind, enum mesh_intent_via via,
                uint8_t node, uint32_t region, bool any)
{
    struct mesh_intent i = {.id = id((uint8_t)(100 + p->count)),
                            .kind = kind,
                            .any_destination = any,
                            .via = via,
                            .via_node = id(node),
                            .via_region = region};
    (void)snprintf(i.name, sizeof i.name, "i%zu", p->count);
    if (!any) { /* out of order: they are sorted */
        i.destination = xcalloc(2, sizeof *i.destination);
        i.destination[0] = id(DST + 5);
        i.destination[1] = id(DST);
        i.count = 2;
    }
    mesh_intents_add(p, &i);
}

static struct mesh_verdict judge(const struct mesh_intents *p, uint8_t dst, uint8_t next)
{
    const struct mesh_way way = {.dst = id(dst),
                                 .next = id(next),
                                 .dst_relays = dst == RELAY || dst == FAR_RELAY,
                                 .next_region = next == RELAY       ? 1
                                                : next == FAR_RELAY ? 2
                                                                    : 0};
    return mesh_intents_judge(p, &way);
}

static void test_each_policy_on_each_way(void **state)
{
    (void)state;
    static const struct {
        enum mesh_intent_kind kind;
        enum mesh_intent_via via;
        bool refused[3]; /* direct, over RELAY in region 1, over FAR_RELAY in region 2 */
        bool dear[3];
    } rows[] = {
        {MESH_INTENT_DENY, MESH_VIA_ANY, {true, true, true}, {false}},
        {MESH_INTENT_DENY, MESH_VIA_DIRECT, {true, false, false}, {false}},
        {MESH_INTENT_DENY, MESH_VIA_NODE, {false, true, false}, {false}},
        {MESH_INTENT_DENY, MESH_VIA_REGION, {false, true, false}, {false}},
        {MESH_INTENT_REQUIRE, MESH_VIA_DIRECT, {false, true, true}, {false}},
        {MESH_INTENT_REQUIRE, MESH_VIA_NODE, {true, false, true}, {false}},
        {MESH_INTENT_REQUIRE, MESH_VIA_REGION, {true, false, true}, {false}},
        {MESH_INTENT_AVOID, MESH_VIA_DIRECT, {false}, {true, false, false}},
        {MESH_INTENT_AVOID, MESH_VIA_NODE, {false}, {false, true, false}},
        {MESH_INTENT_PREFER, MESH_VIA_DIRECT, {false}, {false, true, true}},
        {MESH_INTENT_PREFER, MESH_VIA_REGION, {false}, {true, false, true}},
    };
    static const uint8_t next[3] = {DST, RELAY, FAR_RELAY};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct mesh_intents p = {.count = 0};
        add(&p, rows[i].kind, rows[i].via, RELAY, 1, false);
        for (size_t k = 0; k < 3; k++) {
            struct mesh_verdict v = judge(&p, DST, next[k]);
            assert_int_equal(v.refused, rows[i].refused[k]);
            assert_int_equal(v.cost_us, rows[i].dear[k] ? MESH_INTENT_COST_US : 0);
            assert_int_equal(v.intent != NULL, rows[i].refused[k] || rows[i].dear[k]);
            v = judge(&p, OTHER, next[k] == DST ? OTHER : next[k]);
            assert_false(v.refused || v.cost_us > 0 || v.intent != NULL);
        }
        mesh_intents_fini(&p);
    }
}

static void test_intents_add_up_and_a_refusal_is_the_one_that_is_named(void **state)
{
    (void)state;
    struct mesh_intents p = {.count = 0};
    add(&p, MESH_INTENT_AVOID, MESH_VIA_NODE, RELAY, 0, true);
    add(&p, MESH_INTENT_PREFER, MESH_VIA_REGION, 0, 2, false);
    struct mesh_verdict v = judge(&p, DST, RELAY);
    assert_int_equal(v.cost_us, 2 * MESH_INTENT_COST_US);
    assert_string_equal(v.intent->name, "i0");
    add(&p, MESH_INTENT_DENY, MESH_VIA_NODE, RELAY, 0, false);
    v = judge(&p, DST, RELAY);
    assert_true(v.refused && !v.absolute);
    assert_string_equal(v.intent->name, "i2");
    add(&p, MESH_INTENT_DENY, MESH_VIA_ANY, 0, 0, false); /* says more than i2 */
    v = judge(&p, DST, RELAY);
    assert_true(v.refused && v.absolute);
    assert_string_equal(v.intent->name, "i3");
    assert_true(judge(&p, DST, DST).absolute);
    assert_false(judge(&p, OTHER, OTHER).absolute);
    mesh_intents_fini(&p);
}

static void test_no_intent_is_about_authorities_and_relays(void **state)
{
    (void)state;
    struct mesh_intents p = {.count = 0};
    struct uuid authority = id(AUTHORITY);
    add(&p, MESH_INTENT_DENY, MESH_VIA_ANY, 0, 0, true);
    assert_true(judge(&p, AUTHORITY, AUTHORITY).refused);
    mesh_intents_add_authority(&p, &authority);
    assert_false(judge(&p, AUTHORITY, AUTHORITY).refused);
    assert_false(judge(&p, FAR_RELAY, RELAY).refused);
    assert_true(judge(&p, DST, DST).refused);
    mesh_intents_fini(&p);
    assert_false(judge(NULL, DST, DST).refused);
}

static void test_class_of_traffic_is_the_first_that_is_named(void **state)
{
    (void)state;
    struct mesh_intents p = {.count = 0};
    struct uuid dst = id(DST);
    struct uuid other = id(OTHER);
    assert_int_equal(mesh_intents_class(&p, &dst, false), OVERLAY_BULK);
    add(&p, MESH_INTENT_PREFER, MESH_VIA_ANY, 0, 0, false);
    add(&p, MESH_INTENT_PREFER, MESH_VIA_ANY, 0, 0, true);
    p.intent[0].classed = p.intent[1].classed = true;
    p.intent[0].class = OVERLAY_INTERACTIVE;
    p.intent[1].class = OVERLAY_DROPPABLE;
    assert_int_equal(mesh_intents_class(&p, &dst, false), OVERLAY_INTERACTIVE);
    assert_int_equal(mesh_intents_class(&p, &other, false), OVERLAY_DROPPABLE);
    assert_int_equal(mesh_intents_class(&p, &other, true), OVERLAY_BULK);
    mesh_intents_fini(&p);
}

static void test_an_intent_about_a_service_is_no_matter_of_ways(void **state)
{
    (void)state;
    struct mesh_intents p = {.count = 0};
    struct uuid b = id(2);
    struct uuid authority = id(9);
    struct mesh_intent i = {.id = id(100),
                            .kind = MESH_INTENT_DENY,
                            .via = MESH_VIA_ANY,
                            .any_destination = true,
                            .service = "synthetic"};
    assert_null(mesh_intents_deny_service(NULL, &b, false, blob_str("synthetic.echo")));
    mesh_intents_add(&p, &i);
    mesh_intents_add_authority(&p, &authority);
    assert_false(judge(&p, 2, 2).refused);
    assert_null(judge(&p, 2, 2).intent);
    static const struct {
        const char *service;
        bool denied;
    } rows[] = {{"synthetic.echo", true},
                {"synthetic.bulk", true},
                {"synthetic", true},
                {"synthetics", false},
                {"synth", false},
                {"remote_workspace", false},
                {"", false}};
    for (size_t k = 0; k < ARRAY_SIZE(rows); k++) {
        assert_int_equal(mesh_intents_deny_service(&p, &b, false, blob_str(rows[k].service)) !=
                             NULL,
                         rows[k].denied);
    }
    /* Authorities and relays are reached whatever intents say. */
    assert_null(mesh_intents_deny_service(&p, &authority, false, blob_str("synthetic.echo")));
    assert_null(mesh_intents_deny_service(&p, &b, true, blob_str("synthetic.echo")));
    mesh_intents_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_policy_on_each_way),
        cmocka_unit_test(test_intents_add_up_and_a_refusal_is_the_one_that_is_named),
        cmocka_unit_test(test_no_intent_is_about_authorities_and_relays),
        cmocka_unit_test(test_an_intent_about_a_service_is_no_matter_of_ways),
        cmocka_unit_test(test_class_of_traffic_is_the_first_that_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
