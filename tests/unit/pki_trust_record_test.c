/* The owner's records of which roots count: a rotation, step by step and back, and everybody who is
 * not the owner (SPEC IDN-05; S7, S9). */
#include "lib/pki_fixture.h"
#include "wire/node_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Two roots of one cluster; the issuing CA key is the same under both. */
struct world {
    struct test_ca old;
    struct pki_key *new_key;
    struct buf new_root, new_issuer;
    struct pki_trust *trust;
    struct pki_key *node_key;
    struct buf leaf;
    struct buf record;
};

static void make_root(const struct pki_key *key, const struct uuid *cluster_id, struct buf *out)
{
    struct errmsg em = ERRMSG_INIT;
    struct pki_cert spec = {.kind = PKI_ROOT,
                            .cluster_id = *cluster_id,
                            .not_before_ms = TEST_NOW_MS - 1000,
                            .not_after_ms = TEST_NOW_MS + PKI_ROOT_LIFE_MS};
    pki_key_public(key, spec.public_key);
    test_serial(spec.serial);
    buf_init(out, CERT_DER_MAX);
    assert_int_equal(pki_cert_issue(&spec, key, blob_of(NULL, 0), out, &em), 0);
}

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    struct errmsg em = ERRMSG_INIT;
    test_ca_init(&w->old, 1, 2);
    w->new_key = pki_key_generate();
    make_root(w->new_key, &w->old.cluster_id, &w->new_root);
    struct pki_cert spec;
    assert_int_equal(pki_cert_parse(buf_blob(&w->old.issuer_der), &spec, &em), 0);
    test_serial(spec.serial);
    buf_init(&w->new_issuer, CERT_DER_MAX);
    assert_int_equal(pki_cert_issue(&spec, w->new_key, buf_blob(&w->new_root), &w->new_issuer, &em),
                     0);
    w->trust = pki_trust_new(&w->old.cluster_id);
    assert_int_equal(pki_trust_set_root(w->trust, buf_blob(&w->old.root_der), &em), 0);
    w->node_key = pki_key_generate();
    struct pki_cert leaf = test_leaf_spec(&w->old, 3, w->node_key);
    test_issue(&w->old, &leaf, &w->leaf);
    buf_init(&w->record, TRUST_SIGNED_MAX);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    buf_fini(&w->record);
    buf_fini(&w->leaf);
    buf_fini(&w->new_root);
    buf_fini(&w->new_issuer);
    pki_key_free(w->node_key);
    pki_key_free(w->new_key);
    pki_trust_free(w->trust);
    test_ca_fini(&w->old);
    free(w);
    return 0;
}

/* Statuses of the old and the new root; 0: not listed. Signed by the keys given. */
struct say {
    uint64_t seq, old, new;
    bool by_old, by_new;
};

static int adopt_by(struct world *w, struct pki_trust *t, const struct say *s, struct errmsg *em)
{
    struct buf roots;
    uint32_t count = 0;
    const struct pki_key *keys[2];
    size_t signers = 0;
    buf_init(&roots, TRUST_RECORD_MAX);
    if (s->old != 0) {
        msg_list_add(&trust_root_desc,
                     &(struct trust_root){.der = buf_blob(&w->old.root_der), .status = s->old},
                     &roots, &count);
    }
    if (s->new != 0) {
        msg_list_add(&trust_root_desc,
                     &(struct trust_root){.der = buf_blob(&w->new_root), .status = s->new}, &roots,
                     &count);
    }
    if (s->by_old) {
        keys[signers++] = w->old.root_key;
    }
    if (s->by_new) {
        keys[signers++] = w->new_key;
    }
    const struct trust_record record = {.seq = s->seq,
                                        .cluster_id = w->old.cluster_id,
                                        .roots = {.raw = buf_blob(&roots), .count = count},
                                        .issued_at_ms = TEST_NOW_MS};
    buf_clear(&w->record);
    assert_int_equal(pki_trust_record_sign(&record, keys, signers, &w->record, em), 0);
    buf_fini(&roots);
    return pki_trust_adopt(t, buf_blob(&w->record), em);
}

static int adopt(struct world *w, const struct say *s)
{
    struct errmsg em = ERRMSG_INIT;
    return adopt_by(w, w->trust, s, &em);
}

static const struct say prepare = {1, TRUST_ROOT_ACTIVE, TRUST_ROOT_PREPARED, true, true};
static const struct say activate = {2, TRUST_ROOT_RETIRING, TRUST_ROOT_ACTIVE, true, true};
static const struct say retire = {3, 0, TRUST_ROOT_ACTIVE, false, true};

static int chain(const struct world *w, const struct buf *issuer, const struct buf *root)
{
    struct pki_identity id;
    struct errmsg em = ERRMSG_INIT;
    const struct blob c[] = {buf_blob(&w->leaf), buf_blob(issuer),
                             root == NULL ? blob_of(NULL, 0) : buf_blob(root)};
    return pki_chain_verify(w->trust, c, root == NULL ? 2 : 3, TEST_NOW_MS, &id, &em);
}

static void assert_chains(const struct world *w, int under_old, int under_new)
{
    assert_int_equal(chain(w, &w->old.issuer_der, NULL), under_old);
    assert_int_equal(chain(w, &w->new_issuer, NULL), under_new);
    assert_int_equal(chain(w, &w->old.issuer_der, &w->old.root_der) == 0, under_old == 0);
    assert_int_equal(chain(w, &w->new_issuer, &w->new_root) == 0, under_new == 0);
}

static bool active(const struct world *w, const struct buf *root)
{
    struct pki_cert c;
    assert_int_equal(pki_cert_parse(buf_blob(root), &c, NULL), 0);
    return pki_trust_root_is_active(w->trust, c.fingerprint);
}

static void test_rotation_trusts_both_roots_until_the_old_one_is_retired(void **state)
{
    struct world *w = *state;
    assert_int_equal(pki_trust_seq(w->trust), 0);
    assert_chains(w, 0, -ERR_BAD_SIGNATURE);
    assert_int_equal(adopt(w, &prepare), 0);
    assert_chains(w, 0, 0);
    assert_true(active(w, &w->old.root_der) && !active(w, &w->new_root));
    assert_int_equal(adopt(w, &activate), 0);
    assert_chains(w, 0, 0);
    assert_true(!active(w, &w->old.root_der) && active(w, &w->new_root));
    assert_true(blob_equal(pki_trust_root_above(w->trust, buf_blob(&w->new_issuer)),
                           buf_blob(&w->new_root)));
    assert_int_equal(adopt(w, &retire), 0);
    assert_chains(w, -ERR_BAD_SIGNATURE, 0);
    assert_int_equal(pki_trust_seq(w->trust), 3);
    assert_int_equal(pki_trust_root_above(w->trust, buf_blob(&w->old.issuer_der)).len, 0);
}

static void test_rollback_goes_back_until_the_old_root_is_retired(void **state)
{
    struct world *w = *state;
    assert_int_equal(adopt(w, &prepare), 0);
    assert_int_equal(adopt(w, &activate), 0);
    assert_int_equal(adopt(w, &(struct say){3, TRUST_ROOT_ACTIVE, TRUST_ROOT_PREPARED, true, true}),
                     0);
    assert_true(active(w, &w->old.root_der));
    assert_int_equal(adopt(w, &(struct say){4, TRUST_ROOT_ACTIVE, 0, true, false}), 0);
    assert_chains(w, 0, -ERR_BAD_SIGNATURE);
    /* Retired is for ever: the old root can speak no more. */
    assert_int_equal(adopt(w, &(struct say){5, TRUST_ROOT_ACTIVE, TRUST_ROOT_PREPARED, true, true}),
                     0);
    assert_int_equal(adopt(w, &(struct say){6, 0, TRUST_ROOT_ACTIVE, false, true}), 0);
    assert_int_equal(adopt(w, &(struct say){7, TRUST_ROOT_ACTIVE, 0, true, false}),
                     -ERR_BAD_SIGNATURE);
    assert_chains(w, -ERR_BAD_SIGNATURE, 0);
}

static void test_a_record_nobody_entitled_signed_changes_nothing(void **state)
{
    struct world *w = *state;
    static const struct {
        struct say say;
        int want;
    } bad[] = {
        {{1, TRUST_ROOT_ACTIVE, TRUST_ROOT_PREPARED, false, true}, -ERR_BAD_SIGNATURE},
        {{1, TRUST_ROOT_ACTIVE, TRUST_ROOT_PREPARED, true, false}, -ERR_BAD_SIGNATURE},
        {{1, 0, TRUST_ROOT_ACTIVE, false, true}, -ERR_BAD_SIGNATURE}, /* its own root, unasked */
        {{1, 0, TRUST_ROOT_ACTIVE, true, true}, -ERR_BAD_SIGNATURE},  /* not listed, so no vote */
        {{1, TRUST_ROOT_ACTIVE, TRUST_ROOT_ACTIVE, true, true}, -ERR_MALFORMED},
        {{1, TRUST_ROOT_RETIRING, TRUST_ROOT_PREPARED, true, true}, -ERR_MALFORMED},
        {{1, TRUST_ROOT_ACTIVE, 9, true, true}, -ERR_MALFORMED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(adopt(w, &bad[i].say), bad[i].want);
        assert_chains(w, 0, -ERR_BAD_SIGNATURE);
        assert_int_equal(pki_trust_seq(w->trust), 0);
    }
}

static void test_an_older_record_is_no_news(void **state)
{
    struct world *w = *state;
    assert_int_equal(adopt(w, &prepare), 0);
    assert_int_equal(adopt(w, &prepare), -ERR_ROLLBACK);
    assert_int_equal(adopt(w, &activate), 0);
    assert_int_equal(adopt(w, &retire), 0);
    assert_int_equal(adopt(w, &activate), -ERR_ROLLBACK);
    assert_chains(w, -ERR_BAD_SIGNATURE, 0);
}

/* A node that holds either root takes the record of the middle phases: whoever was away, and whoever
 * joined in between. */
static void test_record_is_believed_from_either_root(void **state)
{
    struct world *w = *state;
    struct errmsg em = ERRMSG_INIT;
    struct pki_trust *joined = pki_trust_new(&w->old.cluster_id);
    assert_int_equal(pki_trust_set_root(joined, buf_blob(&w->new_root), &em), 0);
    assert_int_equal(adopt_by(w, joined, &activate, &em), 0);
    assert_int_equal(adopt_by(w, w->trust, &activate, &em), 0);
    pki_trust_free(joined);
}

static void test_record_of_another_cluster_is_refused(void **state)
{
    struct world *w = *state;
    struct errmsg em = ERRMSG_INIT;
    const struct uuid other_id = test_uuid(9);
    struct pki_trust *other = pki_trust_new(&other_id);
    struct buf root;
    make_root(w->old.root_key, &other_id, &root);
    assert_int_equal(pki_trust_set_root(other, buf_blob(&root), &em), 0);
    assert_int_equal(adopt_by(w, other, &prepare, &em), -ERR_WRONG_CLUSTER);
    buf_fini(&root);
    pki_trust_free(other);
}

static void test_changed_and_cut_records_are_refused(void **state)
{
    struct world *w = *state;
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(adopt(w, &prepare), 0);
    struct pki_trust *t = pki_trust_new(&w->old.cluster_id);
    assert_int_equal(pki_trust_set_root(t, buf_blob(&w->old.root_der), &em), 0);
    for (size_t i = 0; i < w->record.len; i++) {
        assert_int_not_equal(pki_trust_adopt(t, blob_of(w->record.data, i), &em), 0);
        w->record.data[i] ^= 1;
        assert_int_not_equal(pki_trust_adopt(t, buf_blob(&w->record), &em), 0);
        w->record.data[i] ^= 1;
    }
    assert_int_equal(pki_trust_adopt(t, buf_blob(&w->record), &em), 0);
    pki_trust_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        T(test_rotation_trusts_both_roots_until_the_old_one_is_retired),
        T(test_rollback_goes_back_until_the_old_root_is_retired),
        T(test_a_record_nobody_entitled_signed_changes_nothing),
        T(test_an_older_record_is_no_news),
        T(test_record_is_believed_from_either_root),
        T(test_record_of_another_cluster_is_refused),
        T(test_changed_and_cut_records_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
