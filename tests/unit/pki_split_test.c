/* Reports and terms of splits, decoded: what is not acceptable, one thing at a time. */
#include "pki/statement.h"
#include "wire/node_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

struct made {
    struct split_report r;
    struct buf nodes, roles, body;
};

static void made_init(struct made *m)
{
    uint32_t count = 0;
    const struct split_report_node node = {
        .name = blob_str("n1"), .healthy = true, .held_version = 7};
    const struct split_report_role role = {.role = blob_str("relay-node"), .holders = 2};
    *m = (struct made){.r = {.version = SPLIT_REPORT_VERSION,
                             .cluster_id = {.b = {1}},
                             .cluster_name = blob_str("site-b"),
                             .time_ms = 5,
                             .voters = 3,
                             .voters_in_contact = 3,
                             .admin_name = blob_str("n1")}};
    buf_init(&m->nodes, 65536);
    buf_init(&m->roles, 65536);
    buf_init(&m->body, 65536);
    msg_list_add(&split_report_node_desc, &node, &m->nodes, &count);
    m->r.nodes = (struct mp_list){.raw = buf_blob(&m->nodes), .count = count};
    count = 0;
    msg_list_add(&split_report_role_desc, &role, &m->roles, &count);
    m->r.roles = (struct mp_list){.raw = buf_blob(&m->roles), .count = count};
}

static void made_fini(struct made *m)
{
    buf_fini(&m->nodes);
    buf_fini(&m->roles);
    buf_fini(&m->body);
}

static int decode(struct made *m, struct split_report *ret)
{
    buf_clear(&m->body);
    msg_encode(&split_report_desc, &m->r, &m->body);
    assert_int_equal(m->body.err, 0);
    return split_report_decode(buf_blob(&m->body), ret);
}

static void test_report_says_what_was_put_in(void **state)
{
    (void)state;
    struct made m;
    struct split_report r;
    struct split_report_node nodes[SPLIT_NODES_MAX];
    made_init(&m);
    assert_int_equal(decode(&m, &r), 0);
    assert_int_equal(split_report_nodes(&r, nodes), 1);
    assert_true(blob_equal(nodes[0].name, blob_str("n1")) && nodes[0].healthy && !nodes[0].votes);
    assert_int_equal(nodes[0].held_version, 7);
    assert_int_equal(split_report_holders(&r, blob_str("relay-node")), 2);
    assert_int_equal(split_report_holders(&r, blob_str("core-mesh")), 0);
    made_fini(&m);
}

static void test_reports_that_are_not_acceptable_are_refused(void **state)
{
    (void)state;
    struct made m;
    struct split_report r;
#define REFUSED(change, rc)                     \
    do {                                        \
        made_init(&m);                          \
        change;                                 \
        assert_int_equal(decode(&m, &r), (rc)); \
        made_fini(&m);                          \
    } while (0)
    REFUSED(m.r.version = SPLIT_REPORT_VERSION + 1, -ERR_SCHEMA);
    REFUSED(m.r.version = 0, -ERR_MALFORMED);
    REFUSED(m.r.time_ms = -1, -ERR_MALFORMED);
    REFUSED(m.r.voters = AUTHORITIES_MAX + 1, -ERR_MALFORMED);
    REFUSED(m.r.voters_in_contact = 4, -ERR_MALFORMED);
    REFUSED(m.r.admin_name = blob_str("N 1"), -ERR_MALFORMED);
    REFUSED(m.r.cluster_name = blob_str("-"), -ERR_MALFORMED);
    REFUSED(m.r.nodes.raw.len--, -ERR_MALFORMED);
    REFUSED(m.nodes.data[m.nodes.len - 1] ^= 0x80, -ERR_MALFORMED);
    REFUSED(m.r.roles = m.r.nodes, -ERR_MALFORMED); /* one message in the place of another */
#undef REFUSED
    assert_int_equal(split_report_decode(blob_of(NULL, 0), &r), -ERR_MALFORMED);
}

static void test_report_of_too_many_nodes_is_refused(void **state)
{
    (void)state;
    struct made m;
    struct split_report r;
    made_init(&m);
    uint32_t count = 1;
    const struct split_report_node node = {.name = blob_str("x")};
    while (count <= SPLIT_NODES_MAX) {
        msg_list_add(&split_report_node_desc, &node, &m.nodes, &count);
    }
    m.r.nodes = (struct mp_list){.raw = buf_blob(&m.nodes), .count = count};
    buf_clear(&m.body);
    msg_encode(&split_report_desc, &m.r, &m.body);
    assert_true(m.body.err != 0 || split_report_decode(buf_blob(&m.body), &r) == -ERR_TOO_LARGE);
    made_fini(&m);
}

static void test_signed_report_is_believed_as_it_was_signed_only(void **state)
{
    (void)state;
    struct made m;
    struct split_report r;
    struct errmsg em = ERRMSG_INIT;
    struct buf out, text, back;
    uint8_t pin[PKI_HASH_BYTES], expected[PKI_HASH_BYTES], key[PKI_KEY_BYTES];
    struct pki_key *root = pki_key_generate();
    made_init(&m);
    buf_init(&out, SIGNED_SPLIT_REPORT_MAX);
    buf_init(&text, SPLIT_REPORT_TEXT_MAX + 8);
    buf_init(&back, SIGNED_SPLIT_REPORT_MAX);
    assert_int_equal(split_report_sign(root, &m.r, &out), 0);
    pki_key_public(root, key);
    pki_fingerprint(key, expected);
    assert_int_equal(split_report_verify(buf_blob(&out), &r, pin, &em), 0);
    assert_memory_equal(pin, expected, sizeof pin);
    /* As text, with white space around it. */
    buf_add_str(&text, " \n");
    split_report_format(buf_blob(&out), &text);
    buf_add_str(&text, "\r\n");
    assert_int_equal(split_report_parse(buf_blob(&text), &back), 0);
    assert_true(blob_equal(buf_blob(&back), buf_blob(&out)));
    assert_int_equal(split_report_parse(blob_str("rapr1_"), &back), -ERR_MALFORMED);
    assert_int_equal(split_report_parse(blob_str("rapj1_AAAA"), &back), -ERR_MALFORMED);
    assert_int_equal(split_report_parse(blob_str("rapr1_A*A"), &back), -ERR_MALFORMED);
    assert_int_equal(split_report_parse(blob_str(""), &back), -ERR_MALFORMED);
    /* No bit of it may change. */
    for (size_t i = 0; i < out.len; i++) {
        out.data[i] ^= 1;
        assert_int_not_equal(split_report_verify(buf_blob(&out), &r, pin, &em), 0);
        out.data[i] ^= 1;
    }
    assert_int_not_equal(split_report_verify(blob_of(out.data, out.len - 1), &r, pin, &em), 0);
    buf_fini(&out);
    buf_fini(&text);
    buf_fini(&back);
    made_fini(&m);
    pki_key_free(root);
}

static int terms_of(const struct uuid *ids, uint32_t count, void (*change)(struct split_terms *t))
{
    uint8_t pin[32] = {7};
    struct buf nodes, bytes;
    struct mp_writer w;
    struct split_terms again;
    buf_init(&nodes, 4096);
    buf_init(&bytes, 65536);
    mp_writer_init(&w, &nodes);
    for (uint32_t i = 0; i < count; i++) {
        mp_put_uuid(&w, &ids[i]);
    }
    struct split_terms t = {
        .cluster_id = {.b = {1}},
        .split_id = {.b = {2}},
        .name = blob_str("site-b"),
        .new_cluster_id = {.b = {3}},
        .root_pin = blob_of(pin, sizeof pin),
        .seed_id = {.b = {5}},
        .nodes = {.raw = buf_blob(&nodes), .count = count},
    };
    if (change != NULL) {
        change(&t);
    }
    msg_encode(&split_terms_desc, &t, &bytes);
    int rc = bytes.err != 0 ? bytes.err : split_terms_decode(buf_blob(&bytes), &again);
    buf_fini(&nodes);
    buf_fini(&bytes);
    return rc;
}

static void no_name(struct split_terms *t)
{
    t->name = blob_str("Site B");
}

static void into_itself(struct split_terms *t)
{
    t->new_cluster_id = t->cluster_id;
}

static void test_terms_name_each_node_once_and_the_seed_among_them(void **state)
{
    (void)state;
    const struct uuid good[] = {{.b = {4}}, {.b = {5}}, {.b = {6}}};
    const struct uuid twice[] = {{.b = {5}}, {.b = {5}}};
    const struct uuid falling[] = {{.b = {6}}, {.b = {5}}};
    const struct uuid seedless[] = {{.b = {4}}, {.b = {6}}};
    assert_int_equal(terms_of(good, 3, NULL), 0);
    assert_int_equal(terms_of(twice, 2, NULL), -ERR_MALFORMED);
    assert_int_equal(terms_of(falling, 2, NULL), -ERR_MALFORMED);
    assert_int_equal(terms_of(seedless, 2, NULL), -ERR_MALFORMED);
    assert_int_equal(terms_of(good, 0, NULL), -ERR_MALFORMED);
    assert_int_equal(terms_of(good, 3, no_name), -ERR_MALFORMED);
    assert_int_equal(terms_of(good, 3, into_itself), -ERR_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report_says_what_was_put_in),
        cmocka_unit_test(test_reports_that_are_not_acceptable_are_refused),
        cmocka_unit_test(test_report_of_too_many_nodes_is_refused),
        cmocka_unit_test(test_signed_report_is_believed_as_it_was_signed_only),
        cmocka_unit_test(test_terms_name_each_node_once_and_the_seed_among_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
