/* Making an authority on its own host (DESIGN section 4): only what the root signed for our key, node
 * and cluster is installed. */
#include "agent/issuer.h"
#include "base/file.h"
#include "lib/fake_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

struct fixture {
    char *dir;
    struct fake_cluster cluster;
    struct fake_node authority; /* who enrolled us */
    struct member *m;
    uint8_t issuer_key[PKI_KEY_BYTES];
    struct buf ca;
    struct buf leaf;
};

static void enrol(struct fixture *f)
{
    const struct uuid node_id = uuid_new();
    const struct member_settings s = {
        .node_name = "n1", .listen = "127.0.0.1:7400", .cluster_id = f->cluster.id};
    struct pki_key *key;
    uint8_t public_key[PKI_KEY_BYTES];
    struct buf leaf;
    buf_init(&leaf, CERT_DER_MAX);
    assert_int_equal(member_create(f->dir, &s, &f->m, NULL), 0);
    assert_int_equal(member_key(f->m, &key, NULL), 0);
    pki_key_public(key, public_key);
    pki_key_free(key);
    fake_issue(&f->cluster, &f->authority, &node_id, public_key, FAKE_NOW_MS - PKI_BACKDATE_MS,
               FAKE_NOW_MS + PKI_LEAF_LIFE_MS, &leaf);
    const struct member_approval ap = {
        .node_id = node_id,
        .cluster_name = "prod",
        .chain = {buf_blob(&leaf), buf_blob(&f->authority.issuer_der),
                  buf_blob(&f->cluster.root_der)},
        .snapshot = blob_str("x"),
    };
    assert_int_equal(member_approve(f->m, &ap, NULL), 0);
    buf_fini(&leaf);
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    f->dir = fake_tmpdir();
    fake_cluster_init(&f->cluster, FAKE_NOW_MS);
    fake_node_init(&f->authority, &f->cluster, true, FAKE_NOW_MS);
    buf_init(&f->ca, CERT_DER_MAX);
    buf_init(&f->leaf, CERT_DER_MAX);
    enrol(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    member_free(f->m);
    buf_fini(&f->ca);
    buf_fini(&f->leaf);
    fake_node_fini(&f->authority);
    fake_cluster_fini(&f->cluster);
    fake_rmdir(f->dir);
    free(f);
    return 0;
}

static void prepare(struct fixture *f)
{
    struct buf csr;
    buf_init(&csr, CSR_DER_MAX);
    assert_int_equal(issuer_prepare(f->m, &csr, NULL), 0);
    assert_int_equal(pki_csr_parse(buf_blob(&csr), f->issuer_key, NULL), 0);
    buf_fini(&csr);
}

static int install(struct fixture *f, bool *changed)
{
    buf_clear(&f->leaf);
    return issuer_install(f->m, f->cluster.trust, buf_blob(&f->ca),
                          &(struct issuer_time){.now_ms = FAKE_NOW_MS}, changed, &f->leaf, NULL);
}

static bool is_authority_now(struct fixture *f)
{
    struct buf chain[3];
    struct pki_identity id;
    for (int i = 0; i < 3; i++) {
        buf_init(&chain[i], CERT_DER_MAX);
    }
    assert_int_equal(member_load_chain(f->m, chain, NULL), 0);
    const struct blob views[3] = {buf_blob(&chain[0]), buf_blob(&chain[1]), buf_blob(&chain[2])};
    assert_int_equal(pki_chain_verify(f->cluster.trust, views, 3, FAKE_NOW_MS, &id, NULL), 0);
    assert_true(uuid_equal(&id.node_id, &f->m->node_id));
    for (int i = 0; i < 3; i++) {
        buf_fini(&chain[i]);
    }
    return id.authority;
}

static void test_prepare_keeps_its_key(void **state)
{
    struct fixture *f = *state;
    uint8_t first[PKI_KEY_BYTES];
    struct stat st;
    prepare(f);
    memcpy(first, f->issuer_key, sizeof first);
    prepare(f);
    assert_memory_equal(first, f->issuer_key, sizeof first);
    char *path = member_path(f->m, "issuer.key");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    free(path);
}

static void test_install_makes_an_authority_and_repeats_its_answer(void **state)
{
    struct fixture *f = *state;
    bool changed = false;
    prepare(f);
    fake_issue_ca(&f->cluster, &f->m->node_id, f->issuer_key, FAKE_NOW_MS, &f->ca);
    assert_false(is_authority_now(f));
    assert_int_equal(install(f, &changed), 0);
    assert_true(changed);
    assert_true(is_authority_now(f));

    uint8_t first[CERT_DER_MAX];
    size_t len = f->leaf.len;
    memcpy(first, f->leaf.data, len);
    assert_int_equal(install(f, &changed), 0);
    assert_false(changed);
    assert_int_equal(f->leaf.len, len);
    assert_memory_equal(f->leaf.data, first, len);
}

static void test_install_without_prepare_refused(void **state)
{
    struct fixture *f = *state;
    bool changed;
    pki_key_public(f->authority.issuer_key, f->issuer_key);
    fake_issue_ca(&f->cluster, &f->m->node_id, f->issuer_key, FAKE_NOW_MS, &f->ca);
    assert_int_equal(install(f, &changed), -ERR_CONFLICT);
}

static void test_certificates_that_do_not_fit_are_refused_and_change_nothing(void **state)
{
    struct fixture *f = *state;
    struct fake_cluster other;
    struct fake_node foreign;
    const struct uuid somebody = uuid_new();
    uint8_t other_key[PKI_KEY_BYTES];
    bool changed = false;
    prepare(f);
    fake_cluster_init(&other, FAKE_NOW_MS);
    fake_node_init(&foreign, &other, true, FAKE_NOW_MS);
    pki_key_public(foreign.key, other_key);

    fake_issue_ca(&f->cluster, &somebody, f->issuer_key, FAKE_NOW_MS, &f->ca);
    assert_int_equal(install(f, &changed), -ERR_WRONG_NODE);

    buf_clear(&f->ca);
    fake_issue_ca(&f->cluster, &f->m->node_id, other_key, FAKE_NOW_MS, &f->ca);
    assert_int_equal(install(f, &changed), -ERR_BAD_CERT);

    buf_clear(&f->ca);
    fake_issue_ca(&other, &f->m->node_id, f->issuer_key, FAKE_NOW_MS, &f->ca);
    assert_int_equal(install(f, &changed), -ERR_WRONG_CLUSTER);

    buf_clear(&f->ca); /* our names, but signed by a root that is not ours */
    struct fake_cluster forged = other;
    forged.id = f->cluster.id;
    struct pki_cert root = {.kind = PKI_ROOT,
                            .cluster_id = forged.id,
                            .serial = {0x41},
                            .not_before_ms = FAKE_NOW_MS - PKI_BACKDATE_MS,
                            .not_after_ms = FAKE_NOW_MS + PKI_ROOT_LIFE_MS};
    pki_key_public(forged.root_key, root.public_key);
    buf_init(&forged.root_der, CERT_DER_MAX);
    assert_int_equal(
        pki_cert_issue(&root, forged.root_key, blob_of(NULL, 0), &forged.root_der, NULL), 0);
    fake_issue_ca(&forged, &f->m->node_id, f->issuer_key, FAKE_NOW_MS, &f->ca);
    assert_int_not_equal(install(f, &changed), 0);
    buf_fini(&forged.root_der);

    buf_clear(&f->ca); /* a leaf is no CA */
    fake_issue(&f->cluster, &f->authority, &f->m->node_id, f->issuer_key, FAKE_NOW_MS,
               FAKE_NOW_MS + PKI_LEAF_LIFE_MS, &f->ca);
    assert_int_equal(install(f, &changed), -ERR_BAD_CERT);

    buf_clear(&f->ca);
    buf_add_str(&f->ca, "nonsense");
    assert_int_equal(install(f, &changed), -ERR_BAD_CERT);

    char *path = member_path(f->m, "issuer.crt");
    assert_false(file_exists(path));
    free(path);
    assert_false(is_authority_now(f));
    assert_false(changed);
    fake_node_fini(&foreign);
    fake_cluster_fini(&other);
}

static void test_authority_renews_its_own_leaf(void **state)
{
    struct fixture *f = *state;
    bool changed;
    prepare(f);
    fake_issue_ca(&f->cluster, &f->m->node_id, f->issuer_key, FAKE_NOW_MS, &f->ca);
    assert_int_equal(install(f, &changed), 0);
    int64_t later = FAKE_NOW_MS + 20LL * 86400 * 1000;
    assert_int_equal(
        issuer_renew_leaf(f->m, f->cluster.trust, &(struct issuer_time){.now_ms = later}, NULL), 0);
    struct buf chain[3];
    struct pki_cert leaf;
    for (int i = 0; i < 3; i++) {
        buf_init(&chain[i], CERT_DER_MAX);
    }
    assert_int_equal(member_load_chain(f->m, chain, NULL), 0);
    assert_int_equal(pki_cert_parse(buf_blob(&chain[0]), &leaf, NULL), 0);
    assert_true(leaf.authority);
    assert_int_equal(leaf.not_after_ms, later + PKI_LEAF_LIFE_MS);
    for (int i = 0; i < 3; i++) {
        buf_fini(&chain[i]);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_prepare_keeps_its_key),
        T(test_install_makes_an_authority_and_repeats_its_answer),
        T(test_install_without_prepare_refused),
        T(test_certificates_that_do_not_fit_are_refused_and_change_nothing),
        T(test_authority_renews_its_own_leaf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
