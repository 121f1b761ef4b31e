/* What shows a peer that a key is a node's, and what does not (decision 0018). */
#include "agent/leaf_proof.h"
#include "lib/fake_witness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const uint8_t key_fingerprint[PKI_HASH_BYTES] = {42};

struct fixture {
    struct fake_cluster cluster, foreign;
    struct fake_node members[FAKE_MEMBERS], stranger;
    struct fake_snapshot s;
    struct fake_witness w;
    struct leaf_expect e;
    struct witness_set set; /* believed */
    struct buf snapshot, proof, links;
    struct mp_list sent; /* links in the proof */
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    const struct fake_node *members[FAKE_MEMBERS];
    static uint8_t root_key[PKI_KEY_BYTES];
    struct uuid node_id = uuid_new();
    fake_cluster_init(&f->cluster, FAKE_NOW_MS);
    fake_cluster_init_as(&f->foreign, &f->cluster.id, FAKE_NOW_MS);
    for (size_t i = 0; i < FAKE_MEMBERS; i++) {
        fake_node_init(&f->members[i], &f->cluster, true, FAKE_NOW_MS);
        members[i] = &f->members[i];
    }
    fake_node_init(&f->stranger, &f->cluster, true, FAKE_NOW_MS);
    fake_snapshot_init(&f->s, &f->cluster, &f->members[0], &node_id, 10, FAKE_NOW_MS);
    fake_witness_init(&f->w, &f->cluster, members, key_fingerprint, FAKE_NOW_MS);
    f->w.show_link = true;
    f->set = f->w.set;
    assert_true(pki_trust_root_key(f->cluster.trust, root_key));
    f->e = (struct leaf_expect){.cluster_id = f->cluster.id,
                                .node_id = node_id,
                                .set = &f->set,
                                .root_key = root_key,
                                .now_ms = FAKE_NOW_MS + 1000};
    memcpy(f->e.fingerprint, key_fingerprint, PKI_HASH_BYTES);
    buf_init(&f->snapshot, 1u << 20);
    buf_init(&f->proof, 1u << 16);
    buf_init(&f->links, 1u << 16);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    buf_fini(&f->snapshot);
    buf_fini(&f->proof);
    buf_fini(&f->links);
    for (size_t i = 0; i < FAKE_MEMBERS; i++) {
        fake_node_fini(&f->members[i]);
    }
    fake_node_fini(&f->stranger);
    fake_witness_fini(&f->w);
    fake_cluster_fini(&f->cluster);
    fake_cluster_fini(&f->foreign);
    free(f);
    return 0;
}

static void prove(struct fixture *f)
{
    buf_clear(&f->snapshot);
    buf_clear(&f->proof);
    fake_witness_sign(&f->w, &f->s, &f->snapshot);
    assert_int_equal(leaf_proof_make(buf_blob(&f->snapshot), key_fingerprint, f->sent, &f->proof),
                     0);
}

static int check(struct fixture *f)
{
    struct errmsg em = ERRMSG_INIT;
    int rc = leaf_proof_check(buf_blob(&f->proof), &f->e, &em);
    assert_true((rc == 0) == (em.text[0] == '\0'));
    return rc;
}

static void test_own_proof_holds(void **state)
{
    struct fixture *f = *state;
    prove(f);
    assert_true(f->proof.len < 4096);
    assert_int_equal(check(f), 0);
}

/* A thief shows the proof of the node whose id its certificate carries. */
static void test_proof_of_another_key_does_not_hold(void **state)
{
    struct fixture *f = *state;
    prove(f);
    f->e.fingerprint[31] ^= 1;
    assert_int_equal(check(f), -ERR_FINGERPRINT);
}

static void test_proof_of_another_node_does_not_hold(void **state)
{
    struct fixture *f = *state;
    prove(f);
    f->e.node_id = uuid_new();
    assert_int_equal(check(f), -ERR_WRONG_NODE);
}

/* One stolen authority can sign whatever it likes. */
static void test_one_signature_is_none(void **state)
{
    struct fixture *f = *state;
    f->w.who = 1;
    prove(f);
    assert_int_equal(check(f), -ERR_NOT_WITNESSED);
}

static void test_leaf_that_the_tree_does_not_hold(void **state)
{
    struct fixture *f = *state;
    f->w.other_root = true;
    prove(f);
    assert_int_equal(check(f), -ERR_BAD_PROOF);
    f->w.other_root = false;
    f->w.no_node_path = true;
    prove(f);
    assert_int_equal(check(f), -ERR_BAD_PROOF);
}

static void test_proof_counts_as_long_as_its_signatures(void **state)
{
    struct fixture *f = *state;
    prove(f);
    f->e.now_ms = FAKE_NOW_MS + SNAPSHOT_LIFE_MS;
    assert_int_equal(check(f), 0);
    f->e.now_ms = FAKE_NOW_MS + SNAPSHOT_LIFE_MS + 1;
    assert_int_equal(check(f), -ERR_EXPIRED);
}

static void test_proof_of_another_cluster(void **state)
{
    struct fixture *f = *state;
    prove(f);
    f->e.cluster_id = uuid_new();
    assert_int_equal(check(f), -ERR_WRONG_CLUSTER);
}

static void test_no_proof_at_all(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(check(f), -ERR_MALFORMED);
    prove(f);
    for (size_t len = 0; len < f->proof.len; len += 7) {
        struct errmsg em = ERRMSG_INIT;
        assert_int_not_equal(leaf_proof_check(blob_of(f->proof.data, len), &f->e, &em), 0);
    }
}

/* --- the two ends have not seen the same authority sets --- */

/* The set that follows the fixture's, the stranger in it, signed by the root. */
static void next_set(struct fixture *f, const struct fake_cluster *by, struct witness_set *ret,
                     struct buf *ret_link)
{
    struct witness_member m[FAKE_MEMBERS];
    struct buf statement;
    uint8_t root_key[PKI_KEY_BYTES];
    uint64_t before = f->w.set.seq;
    memcpy(m, f->w.set.members, sizeof m);
    if (witness_set_find(&f->w.set, &f->stranger.id) == NULL) {
        m[2].node_id = f->stranger.id;
        pki_key_public(f->stranger.key, m[2].public_key);
    }
    buf_init(&statement, AUTHORITY_SET_MAX);
    buf_init(ret_link, SIGNED_SET_MAX);
    witness_set_build(&f->w.set, &f->cluster.id, 1, m, FAKE_MEMBERS, &statement);
    witness_set_sign_root(by->root_key, buf_blob(&statement), ret_link);
    *ret = f->w.set;
    assert_true(pki_trust_root_key(by->trust, root_key));
    assert_int_equal(witness_set_advance(ret, &f->cluster.id, root_key, buf_blob(ret_link), NULL),
                     0);
    assert_int_equal(ret->seq, before + 1);
    buf_fini(&statement);
}

static struct mp_list list_of(struct fixture *f, struct blob link)
{
    struct mp_writer w;
    buf_clear(&f->links);
    mp_writer_init(&w, &f->links);
    mp_put_bin(&w, link);
    return leaf_proof_links_of(buf_blob(&f->links));
}

static void test_peer_that_is_behind_is_believed_by_the_set_before(void **state)
{
    struct fixture *f = *state;
    struct buf link;
    next_set(f, &f->cluster, &f->set, &link);
    prove(f);
    assert_int_equal(check(f), -ERR_NOT_WITNESSED);
    f->e.links = list_of(f, buf_blob(&f->w.link));
    assert_int_equal(check(f), 0);
    buf_fini(&link);
}

static void test_peer_that_is_ahead_brings_the_links(void **state)
{
    struct fixture *f = *state;
    struct witness_set next;
    struct buf link;
    next_set(f, &f->cluster, &next, &link);
    f->w.set_seq = next.seq; /* the same members sign, for the next set */
    f->w.who = 7;
    prove(f);
    assert_int_equal(check(f), -ERR_NOT_WITNESSED);
    f->sent = list_of(f, buf_blob(&link));
    prove(f);
    assert_int_equal(check(f), 0);
    buf_fini(&link);
    /* Links that nobody signed lead nowhere. */
    next_set(f, &f->foreign, &next, &link);
    f->sent = list_of(f, buf_blob(&link));
    prove(f);
    assert_int_equal(check(f), -ERR_NOT_WITNESSED);
    buf_fini(&link);
}

static void test_links_are_kept_newest_last_and_bounded(void **state)
{
    struct fixture *f = *state;
    struct buf raw;
    struct mp_list list = {.count = 0};
    buf_init(&raw, 1u << 17);
    prove(f);
    assert_true(leaf_proof_links(buf_blob(&f->snapshot), &list, &raw));
    assert_int_equal(list.count, 1);
    assert_false(leaf_proof_links(buf_blob(&f->snapshot), &list, &raw));
    for (unsigned i = 0; i < LEAF_PROOF_LINKS_MAX + 3; i++) {
        struct buf link;
        next_set(f, &f->cluster, &f->w.set, &link);
        buf_fini(&f->w.link);
        f->w.link = link;
        prove(f);
        assert_true(leaf_proof_links(buf_blob(&f->snapshot), &list, &raw));
    }
    assert_int_equal(list.count, LEAF_PROOF_LINKS_MAX);
    assert_int_equal(leaf_proof_links_of(buf_blob(&raw)).count, LEAF_PROOF_LINKS_MAX);
    assert_int_equal(leaf_proof_links_of(blob_of(raw.data, raw.len - 1)).count, 0);
    buf_fini(&raw);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_own_proof_holds),
        T(test_proof_of_another_key_does_not_hold),
        T(test_proof_of_another_node_does_not_hold),
        T(test_one_signature_is_none),
        T(test_leaf_that_the_tree_does_not_hold),
        T(test_proof_counts_as_long_as_its_signatures),
        T(test_proof_of_another_cluster),
        T(test_no_proof_at_all),
        T(test_peer_that_is_behind_is_believed_by_the_set_before),
        T(test_peer_that_is_ahead_brings_the_links),
        T(test_links_are_kept_newest_last_and_bounded),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
