/* Who is believed (DESIGN section 4; reliability.md section 6, "Certificates"; S21). */
#include "pki/pki.h"

#include "lib/pki_fixture.h"
#include "pki/pki_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct world {
    struct test_ca ca; /* cluster 1, authority 2 */
    struct pki_trust *trust;
    struct pki_key *key; /* of node 3 */
    struct pki_cert spec;
    struct buf leaf;
};

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    struct errmsg em = ERRMSG_INIT;
    test_ca_init(&w->ca, 1, 2);
    w->trust = pki_trust_new(&w->ca.cluster_id);
    assert_int_equal(pki_trust_set_root(w->trust, buf_blob(&w->ca.root_der), &em), 0);
    w->key = pki_key_generate();
    w->spec = test_leaf_spec(&w->ca, 3, w->key);
    test_issue(&w->ca, &w->spec, &w->leaf);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    buf_fini(&w->leaf);
    pki_key_free(w->key);
    pki_trust_free(w->trust);
    test_ca_fini(&w->ca);
    free(w);
    return 0;
}

static int verify(const struct pki_trust *t, const struct buf *leaf, const struct test_ca *ca,
                  bool show_root, int64_t now_ms, struct pki_identity *id)
{
    const struct blob chain[] = {buf_blob(leaf), buf_blob(&ca->issuer_der),
                                 buf_blob(&ca->root_der)};
    struct errmsg em = ERRMSG_INIT;
    int rc = pki_chain_verify(t, chain, show_root ? 3 : 2, now_ms, id, &em);
    assert_true((rc == 0) == (em.text[0] == '\0'));
    return rc;
}

static void assert_verifies(const struct world *w, int want)
{
    struct pki_identity id;
    assert_int_equal(verify(w->trust, &w->leaf, &w->ca, false, TEST_NOW_MS, &id), want);
    assert_int_equal(verify(w->trust, &w->leaf, &w->ca, true, TEST_NOW_MS, &id), want);
}

static void test_good_chain_tells_who_it_is(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct pki_cert issuer;
    assert_int_equal(verify(w->trust, &w->leaf, &w->ca, false, TEST_NOW_MS, &id), 0);
    assert_int_equal(pki_cert_parse(buf_blob(&w->ca.issuer_der), &issuer, NULL), 0);
    assert_true(uuid_equal(&id.cluster_id, &w->ca.cluster_id));
    assert_true(uuid_equal(&id.node_id, &w->spec.node_id));
    assert_true(uuid_equal(&id.issuer_id, &w->ca.authority_id));
    assert_false(id.authority);
    assert_memory_equal(id.serial, w->spec.serial, sizeof id.serial);
    assert_memory_equal(id.public_key, w->spec.public_key, sizeof id.public_key);
    assert_memory_equal(id.fingerprint, w->spec.fingerprint, sizeof id.fingerprint);
    assert_memory_equal(id.issuer_fingerprint, issuer.fingerprint, sizeof issuer.fingerprint);
    assert_int_equal(id.not_after_ms, w->spec.not_after_ms);
    assert_verifies(w, 0);
}

static void test_authority_leaf_counts_under_its_own_ca(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct buf leaf;
    struct pki_cert spec = test_leaf_spec(&w->ca, 2, w->key);
    spec.authority = true;
    test_issue(&w->ca, &spec, &leaf);
    assert_int_equal(verify(w->trust, &leaf, &w->ca, false, TEST_NOW_MS, &id), 0);
    assert_true(id.authority);
    buf_fini(&leaf);
}

/* An ordinary leaf may be under any CA of the cluster, the node's own included. */
static void test_node_leaf_counts_under_every_ca_of_the_cluster(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct test_ca second;
    struct buf leaf;
    test_ca_init_second(&second, &w->ca, 4);
    for (uint8_t node = 2; node <= 4; node++) {
        struct pki_cert spec = test_leaf_spec(&second, node, w->key);
        test_issue(&second, &spec, &leaf);
        assert_int_equal(verify(w->trust, &leaf, &second, false, TEST_NOW_MS, &id), 0);
        assert_false(id.authority);
        assert_true(uuid_equal(&id.issuer_id, &second.authority_id));
        buf_fini(&leaf);
    }
    test_ca_fini(&second);
}

/* Signs whatever c says, rules or not, with this key. */
static void forge(const struct pki_cert_wire *c, const struct pki_key *signer, struct buf *out)
{
    struct buf tbs;
    uint8_t sig[PKI_SIG_BYTES];
    buf_init(&tbs, CERT_DER_MAX);
    buf_init(out, CERT_DER_MAX);
    pki_cert_write_tbs(c, &tbs);
    pki_sign_raw(signer, buf_blob(&tbs), sig);
    pki_cert_write(buf_blob(&tbs), sig, out);
    buf_fini(&tbs);
}

/* A stolen authority host cannot make another authority: not under its own name, not by claiming
 * that the other's CA was the issuer. */
static void test_authority_cannot_mint_another_authority(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct test_ca second;
    struct buf leaf;
    test_ca_init_second(&second, &w->ca, 4);
    struct pki_cert_wire c = {.cert = test_leaf_spec(&w->ca, 4, w->key),
                              .issuer_id = w->ca.authority_id};
    uint8_t issuer_key[PKI_KEY_BYTES];
    pki_key_public(w->ca.issuer_key, issuer_key);
    pki_key_id(issuer_key, c.issuer_key_id);

    forge(&c, w->ca.issuer_key, &leaf); /* without the name it is an ordinary leaf */
    assert_int_equal(verify(w->trust, &leaf, &w->ca, false, TEST_NOW_MS, &id), 0);
    buf_fini(&leaf);

    c.cert.authority = true;
    forge(&c, w->ca.issuer_key, &leaf);
    assert_int_equal(verify(w->trust, &leaf, &w->ca, false, TEST_NOW_MS, &id), -ERR_BAD_CERT);
    buf_fini(&leaf);

    c.issuer_id = second.authority_id; /* "issued by 4", signed by 2 */
    forge(&c, w->ca.issuer_key, &leaf);
    assert_int_equal(verify(w->trust, &leaf, &w->ca, false, TEST_NOW_MS, &id), -ERR_BAD_CERT);
    assert_int_equal(verify(w->trust, &leaf, &second, false, TEST_NOW_MS, &id), -ERR_BAD_SIGNATURE);
    pki_key_public(second.issuer_key, issuer_key);
    pki_key_id(issuer_key, c.issuer_key_id);
    buf_fini(&leaf);
    forge(&c, w->ca.issuer_key, &leaf);
    assert_int_equal(verify(w->trust, &leaf, &second, false, TEST_NOW_MS, &id), -ERR_BAD_SIGNATURE);
    buf_fini(&leaf);
    test_ca_fini(&second);
}

/* A node that signs with its own key, naming itself a CA or not. */
static void test_node_cannot_issue(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct errmsg em = ERRMSG_INIT;
    struct pki_key *k = pki_key_generate();
    struct buf leaf;
    struct buf ca;
    uint8_t key_id[PKI_KEY_ID_BYTES];
    pki_key_id(w->spec.public_key, key_id);

    /* Under its leaf. */
    struct pki_cert_wire c = {.cert = test_leaf_spec(&w->ca, 5, k), .issuer_id = w->spec.node_id};
    memcpy(c.issuer_key_id, key_id, sizeof key_id);
    forge(&c, w->key, &leaf);
    const struct blob under_leaf[] = {buf_blob(&leaf), buf_blob(&w->leaf)};
    assert_int_equal(pki_chain_verify(w->trust, under_leaf, 2, TEST_NOW_MS, &id, &em),
                     -ERR_BAD_CERT);

    /* Under a CA certificate it signed for itself. */
    struct pki_cert_wire self = {.cert = w->spec};
    self.cert.kind = PKI_ISSUER;
    uint8_t root_key[PKI_KEY_BYTES];
    pki_key_public(w->ca.root_key, root_key);
    pki_key_id(root_key, self.issuer_key_id);
    forge(&self, w->key, &ca);
    const struct blob under_self[] = {buf_blob(&leaf), buf_blob(&ca)};
    assert_int_equal(pki_chain_verify(w->trust, under_self, 2, TEST_NOW_MS, &id, &em),
                     -ERR_BAD_SIGNATURE);
    buf_fini(&leaf);
    buf_fini(&ca);
    pki_key_free(k);
}

/* S21 and "right name in other cluster": everything says cluster 1, but another root signed. */
static void test_same_names_under_another_root_are_refused(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct test_ca twin;
    struct buf leaf;
    test_ca_init(&twin, 1, 2);
    struct pki_cert spec = test_leaf_spec(&twin, 3, w->key);
    test_issue(&twin, &spec, &leaf);
    assert_int_equal(verify(w->trust, &leaf, &twin, false, TEST_NOW_MS, &id), -ERR_BAD_SIGNATURE);
    assert_int_equal(verify(w->trust, &leaf, &twin, true, TEST_NOW_MS, &id), -ERR_BAD_CERT);
    /* The twin's leaf with our issuer in between. */
    assert_int_equal(verify(w->trust, &leaf, &w->ca, false, TEST_NOW_MS, &id), -ERR_BAD_SIGNATURE);
    buf_fini(&leaf);
    test_ca_fini(&twin);
}

static void test_other_cluster_is_refused(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct test_ca other;
    struct buf leaf;
    test_ca_init(&other, 9, 2);
    struct pki_cert spec = test_leaf_spec(&other, 3, w->key);
    test_issue(&other, &spec, &leaf);
    assert_int_equal(verify(w->trust, &leaf, &other, false, TEST_NOW_MS, &id), -ERR_WRONG_CLUSTER);
    assert_int_equal(verify(w->trust, &leaf, &w->ca, false, TEST_NOW_MS, &id), -ERR_WRONG_CLUSTER);
    assert_int_equal(verify(w->trust, &w->leaf, &other, false, TEST_NOW_MS, &id),
                     -ERR_WRONG_CLUSTER);
    assert_int_equal(pki_trust_set_root(w->trust, buf_blob(&other.root_der), NULL),
                     -ERR_WRONG_CLUSTER);
    assert_verifies(w, 0); /* and nothing of it stuck */
    buf_fini(&leaf);
    test_ca_fini(&other);
}

static void test_validity_is_checked_to_the_second(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    const int64_t from = w->spec.not_before_ms;
    const int64_t to = w->spec.not_after_ms;
    assert_int_equal(verify(w->trust, &w->leaf, &w->ca, false, from - 1, &id), -ERR_CERT_EXPIRED);
    assert_int_equal(verify(w->trust, &w->leaf, &w->ca, false, from, &id), 0);
    assert_int_equal(verify(w->trust, &w->leaf, &w->ca, false, to, &id), 0);
    assert_int_equal(verify(w->trust, &w->leaf, &w->ca, false, to + 1, &id), -ERR_CERT_EXPIRED);
}

/* A leaf that outlives what is above it does not outlive its trust. */
static void test_expired_issuer_or_root_is_refused(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct buf leaf;
    struct pki_cert spec = test_leaf_spec(&w->ca, 3, w->key);
    spec.not_after_ms = TEST_NOW_MS + 20 * PKI_ISSUER_LIFE_MS;
    test_issue(&w->ca, &spec, &leaf);
    int64_t issuer_end = TEST_NOW_MS + PKI_ISSUER_LIFE_MS;
    assert_int_equal(verify(w->trust, &leaf, &w->ca, false, issuer_end, &id), 0);
    assert_int_equal(verify(w->trust, &leaf, &w->ca, false, issuer_end + 1, &id),
                     -ERR_CERT_EXPIRED);
    buf_fini(&leaf);

    struct pki_cert_wire issuer;
    assert_int_equal(pki_cert_read(buf_blob(&w->ca.issuer_der), &issuer, NULL), 0);
    issuer.cert.not_after_ms = spec.not_after_ms;
    buf_fini(&w->ca.issuer_der);
    forge(&issuer, w->ca.root_key, &w->ca.issuer_der);
    test_issue(&w->ca, &spec, &leaf);
    int64_t root_end = TEST_NOW_MS + PKI_ROOT_LIFE_MS;
    assert_int_equal(verify(w->trust, &leaf, &w->ca, false, root_end, &id), 0);
    assert_int_equal(verify(w->trust, &leaf, &w->ca, false, root_end + 1, &id), -ERR_CERT_EXPIRED);
    buf_fini(&leaf);
}

static void test_banned_leaf_issuer_or_root_is_revoked(void **state)
{
    struct world *w = *state;
    const struct buf *const certs[] = {&w->leaf, &w->ca.issuer_der, &w->ca.root_der};
    for (size_t i = 0; i < ARRAY_SIZE(certs); i++) {
        struct pki_cert c;
        assert_int_equal(pki_cert_parse(buf_blob(certs[i]), &c, NULL), 0);
        assert_false(pki_trust_is_banned(w->trust, c.fingerprint));
        pki_trust_ban(w->trust, c.fingerprint);
        pki_trust_ban(w->trust, c.fingerprint);
        assert_true(pki_trust_is_banned(w->trust, c.fingerprint));
        assert_verifies(w, -ERR_REVOKED);
        pki_trust_clear_bans(w->trust);
        assert_false(pki_trust_is_banned(w->trust, c.fingerprint));
        assert_verifies(w, 0);
    }
}

/* The CA of a removed authority makes no authority any more; the nodes it enrolled stay. */
static void test_retired_ca_makes_no_authority(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct pki_cert issuer;
    struct buf authority;
    struct pki_cert spec = test_leaf_spec(&w->ca, 2, w->key);
    spec.authority = true;
    test_issue(&w->ca, &spec, &authority);
    assert_int_equal(pki_cert_parse(buf_blob(&w->ca.issuer_der), &issuer, NULL), 0);
    pki_trust_retire(w->trust, issuer.fingerprint);
    assert_true(pki_trust_is_retired(w->trust, issuer.fingerprint));
    assert_false(pki_trust_is_banned(w->trust, issuer.fingerprint));
    assert_int_equal(verify(w->trust, &authority, &w->ca, false, TEST_NOW_MS, &id), -ERR_REVOKED);
    assert_verifies(w, 0);
    /* A ban is more than that, whichever came first. */
    pki_trust_ban(w->trust, issuer.fingerprint);
    pki_trust_retire(w->trust, issuer.fingerprint);
    assert_true(pki_trust_is_banned(w->trust, issuer.fingerprint));
    assert_verifies(w, -ERR_REVOKED);
    pki_trust_clear_bans(w->trust);
    assert_false(pki_trust_is_retired(w->trust, issuer.fingerprint));
    assert_int_equal(verify(w->trust, &authority, &w->ca, false, TEST_NOW_MS, &id), 0);
    buf_fini(&authority);
}

/* A ban is of the key: a renewed certificate does not bring it back. */
static void test_ban_outlives_renewal(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct buf renewed;
    pki_trust_ban(w->trust, w->spec.fingerprint);
    struct pki_cert spec = test_leaf_spec(&w->ca, 3, w->key);
    test_issue(&w->ca, &spec, &renewed);
    assert_int_equal(verify(w->trust, &renewed, &w->ca, false, TEST_NOW_MS, &id), -ERR_REVOKED);
    buf_fini(&renewed);
}

static void test_many_bans(void **state)
{
    struct world *w = *state;
    uint8_t fingerprint[PKI_HASH_BYTES] = {0};
    for (uint32_t i = 0; i < 20000; i++) {
        memcpy(fingerprint, &i, sizeof i);
        pki_trust_ban(w->trust, fingerprint);
    }
    for (uint32_t i = 0; i < 20000; i++) {
        memcpy(fingerprint, &i, sizeof i);
        assert_true(pki_trust_is_banned(w->trust, fingerprint));
    }
    assert_verifies(w, 0);
}

static void test_chain_of_another_length_is_refused(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct errmsg em = ERRMSG_INIT;
    struct blob chain[50];
    for (size_t i = 0; i < ARRAY_SIZE(chain); i++) {
        chain[i] = buf_blob(i == 0 ? &w->leaf : i == 1 ? &w->ca.issuer_der : &w->ca.root_der);
    }
    static const size_t lengths[] = {0, 1, 4, 50};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        assert_int_equal(pki_chain_verify(w->trust, chain, lengths[i], TEST_NOW_MS, &id, &em),
                         -ERR_BAD_CERT);
    }
}

static void test_certificates_out_of_place_are_refused(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct errmsg em = ERRMSG_INIT;
    const struct blob leaf = buf_blob(&w->leaf);
    const struct blob issuer = buf_blob(&w->ca.issuer_der);
    const struct blob root = buf_blob(&w->ca.root_der);
    const struct blob chains[][3] = {
        {issuer, leaf, root}, {leaf, root, root},   {leaf, leaf, root},   {issuer, issuer, root},
        {root, issuer, leaf}, {issuer, root, root}, {leaf, issuer, leaf}, {root, root, root},
    };
    for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
        assert_int_equal(pki_chain_verify(w->trust, chains[i], 3, TEST_NOW_MS, &id, &em),
                         -ERR_BAD_CERT);
    }
    /* A self-signed certificate alone, twice. */
    const struct blob self[] = {root, root};
    assert_int_equal(pki_chain_verify(w->trust, self, 2, TEST_NOW_MS, &id, &em), -ERR_BAD_CERT);
}

/* pathlen: a CA under a CA, each rightly signed by the one above. */
static void test_issuing_ca_cannot_make_a_ca(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct test_ca below;
    struct buf leaf;
    test_ca_init_second(&below, &w->ca, 4);
    struct pki_cert_wire c;
    uint8_t above[PKI_KEY_BYTES];
    assert_int_equal(pki_cert_read(buf_blob(&below.issuer_der), &c, NULL), 0);
    pki_key_public(w->ca.issuer_key, above);
    pki_key_id(above, c.issuer_key_id);
    buf_fini(&below.issuer_der);
    forge(&c, w->ca.issuer_key, &below.issuer_der);
    struct pki_cert spec = test_leaf_spec(&below, 5, w->key);
    test_issue(&below, &spec, &leaf);
    assert_int_equal(verify(w->trust, &leaf, &below, false, TEST_NOW_MS, &id), -ERR_BAD_SIGNATURE);
    struct errmsg em = ERRMSG_INIT;
    const struct blob chain[] = {buf_blob(&leaf), buf_blob(&below.issuer_der),
                                 buf_blob(&w->ca.issuer_der), buf_blob(&w->ca.root_der)};
    assert_int_equal(pki_chain_verify(w->trust, chain, 3, TEST_NOW_MS, &id, &em), -ERR_BAD_CERT);
    assert_int_equal(pki_chain_verify(w->trust, chain, 4, TEST_NOW_MS, &id, &em), -ERR_BAD_CERT);
    buf_fini(&leaf);
    test_ca_fini(&below);
}

static void test_every_changed_bit_of_a_chain_is_refused(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct buf *const certs[] = {&w->leaf, &w->ca.issuer_der, &w->ca.root_der};
    for (size_t i = 0; i < ARRAY_SIZE(certs); i++) {
        for (size_t bit = 0; bit < 8 * certs[i]->len; bit += 3) {
            certs[i]->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            int rc = verify(w->trust, &w->leaf, &w->ca, true, TEST_NOW_MS, &id);
            certs[i]->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (rc == 0) {
                fail_msg("certificate %zu, bit %zu", i, bit);
            }
        }
    }
    assert_verifies(w, 0);
}

/* A CA that was verified once is remembered for the root that signed it and for no other, in the very
 * bytes that were verified. */
static void test_remembered_issuer_counts_under_its_root_only(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct test_ca twin;
    struct buf leaf;
    test_ca_init(&twin, 1, 2);
    struct pki_cert spec = test_leaf_spec(&twin, 3, w->key);
    test_issue(&twin, &spec, &leaf);
    assert_int_equal(pki_trust_set_root(w->trust, buf_blob(&twin.root_der), NULL), 0);
    assert_int_equal(verify(w->trust, &leaf, &twin, false, TEST_NOW_MS, &id), 0);
    assert_int_equal(pki_trust_set_root(w->trust, buf_blob(&w->ca.root_der), NULL), 0);
    assert_int_equal(verify(w->trust, &leaf, &twin, false, TEST_NOW_MS, &id), -ERR_BAD_SIGNATURE);
    assert_verifies(w, 0);
    w->ca.issuer_der.data[w->ca.issuer_der.len - 1] ^= 1;
    assert_verifies(w, -ERR_BAD_SIGNATURE);
    w->ca.issuer_der.data[w->ca.issuer_der.len - 1] ^= 1;
    buf_fini(&leaf);
    test_ca_fini(&twin);
    /* More of them than are remembered. */
    for (uint8_t i = 0; i < 40; i++) {
        struct test_ca other;
        test_ca_init_second(&other, &w->ca, (uint8_t)(10 + i));
        spec = test_leaf_spec(&other, 3, w->key);
        test_issue(&other, &spec, &leaf);
        assert_int_equal(verify(w->trust, &leaf, &other, false, TEST_NOW_MS, &id), 0);
        buf_fini(&leaf);
        test_ca_fini(&other);
    }
    assert_verifies(w, 0);
}

static void test_nothing_is_believed_without_a_root(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct pki_trust *t = pki_trust_new(&w->ca.cluster_id);
    assert_int_equal(verify(t, &w->leaf, &w->ca, true, TEST_NOW_MS, &id), -ERR_BAD_CERT);
    pki_trust_free(t);
    pki_trust_free(NULL);
}

/* A joining host knows the hash of the root's key from its token. */
static void test_pinned_root_must_be_shown_and_match(void **state)
{
    struct world *w = *state;
    struct pki_identity id;
    struct pki_cert root;
    struct test_ca twin;
    struct buf twin_leaf;
    struct pki_trust *t = pki_trust_new(&w->ca.cluster_id);
    assert_int_equal(pki_cert_parse(buf_blob(&w->ca.root_der), &root, NULL), 0);
    pki_trust_set_pin(t, root.fingerprint);
    assert_int_equal(verify(t, &w->leaf, &w->ca, true, TEST_NOW_MS, &id), 0);
    assert_int_equal(verify(t, &w->leaf, &w->ca, false, TEST_NOW_MS, &id), -ERR_BAD_CERT);
    test_ca_init(&twin, 1, 2);
    struct pki_cert spec = test_leaf_spec(&twin, 3, w->key);
    test_issue(&twin, &spec, &twin_leaf);
    assert_int_equal(verify(t, &twin_leaf, &twin, true, TEST_NOW_MS, &id), -ERR_BAD_CERT);
    /* Our root on top of the twin's chain. */
    struct errmsg em = ERRMSG_INIT;
    const struct blob mixed[] = {buf_blob(&twin_leaf), buf_blob(&twin.issuer_der),
                                 buf_blob(&w->ca.root_der)};
    assert_int_equal(pki_chain_verify(t, mixed, 3, TEST_NOW_MS, &id, &em), -ERR_BAD_SIGNATURE);
    /* Once the root itself is known, the pin is history. */
    assert_int_equal(pki_trust_set_root(t, buf_blob(&twin.root_der), NULL), 0);
    assert_int_equal(verify(t, &twin_leaf, &twin, false, TEST_NOW_MS, &id), 0);
    assert_int_equal(verify(t, &w->leaf, &w->ca, true, TEST_NOW_MS, &id), -ERR_BAD_CERT);
    buf_fini(&twin_leaf);
    test_ca_fini(&twin);
    pki_trust_free(t);
}

static void test_what_is_no_root_is_not_taken_as_one(void **state)
{
    struct world *w = *state;
    struct pki_trust *t = pki_trust_new(&w->ca.cluster_id);
    assert_int_equal(pki_trust_set_root(t, buf_blob(&w->leaf), NULL), -ERR_BAD_CERT);
    assert_int_equal(pki_trust_set_root(t, buf_blob(&w->ca.issuer_der), NULL), -ERR_BAD_CERT);
    assert_int_equal(pki_trust_set_root(t, blob_of(NULL, 0), NULL), -ERR_BAD_CERT);
    w->ca.root_der.data[w->ca.root_der.len - 1] ^= 1;
    assert_int_equal(pki_trust_set_root(t, buf_blob(&w->ca.root_der), NULL), -ERR_BAD_SIGNATURE);
    pki_trust_free(t);
}

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_good_chain_tells_who_it_is),
        WORLD_TEST(test_authority_leaf_counts_under_its_own_ca),
        WORLD_TEST(test_node_leaf_counts_under_every_ca_of_the_cluster),
        WORLD_TEST(test_authority_cannot_mint_another_authority),
        WORLD_TEST(test_node_cannot_issue),
        WORLD_TEST(test_same_names_under_another_root_are_refused),
        WORLD_TEST(test_other_cluster_is_refused),
        WORLD_TEST(test_validity_is_checked_to_the_second),
        WORLD_TEST(test_expired_issuer_or_root_is_refused),
        WORLD_TEST(test_banned_leaf_issuer_or_root_is_revoked),
        WORLD_TEST(test_retired_ca_makes_no_authority),
        WORLD_TEST(test_ban_outlives_renewal),
        WORLD_TEST(test_many_bans),
        WORLD_TEST(test_chain_of_another_length_is_refused),
        WORLD_TEST(test_certificates_out_of_place_are_refused),
        WORLD_TEST(test_issuing_ca_cannot_make_a_ca),
        WORLD_TEST(test_every_changed_bit_of_a_chain_is_refused),
        WORLD_TEST(test_remembered_issuer_counts_under_its_root_only),
        WORLD_TEST(test_nothing_is_believed_without_a_root),
        WORLD_TEST(test_pinned_root_must_be_shown_and_match),
        WORLD_TEST(test_what_is_no_root_is_not_taken_as_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
