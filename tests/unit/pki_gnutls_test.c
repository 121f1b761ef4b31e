/* The TLS layer is GnuTLS: it must be able to read, verify and use what we issue. */
#include "pki/pki.h"

#include "lib/pki_fixture.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static gnutls_x509_crt_t import(const struct buf *der)
{
    gnutls_x509_crt_t crt;
    const gnutls_datum_t d = {der->data, (unsigned)der->len};
    assert_int_equal(gnutls_x509_crt_init(&crt), 0);
    assert_int_equal(gnutls_x509_crt_import(crt, &d, GNUTLS_X509_FMT_DER), 0);
    return crt;
}

static void test_gnutls_verifies_the_chain(void **state)
{
    (void)state;
    struct test_ca ca;
    struct buf leaf;
    unsigned status = ~0u;
    test_ca_init(&ca, 1, 2);
    struct pki_key *k = pki_key_generate();
    struct pki_cert spec = test_leaf_spec(&ca, 2, k);
    spec.authority = true;
    test_issue(&ca, &spec, &leaf);
    gnutls_x509_crt_t chain[] = {import(&leaf), import(&ca.issuer_der), import(&ca.root_der)};
    assert_int_equal(gnutls_x509_crt_list_verify(chain, 2, &chain[2], 1, NULL, 0,
                                                 GNUTLS_VERIFY_DISABLE_TIME_CHECKS, &status),
                     0);
    assert_int_equal(status, 0);

    char name[256];
    size_t size = sizeof name;
    assert_int_equal(gnutls_x509_crt_get_subject_alt_name(chain[0], 0, name, &size, NULL),
                     GNUTLS_SAN_URI);
    assert_int_equal(size, strlen("rap:///node/") + 72);
    assert_memory_equal(name,
                        "rap://01010101-0101-0101-0101-010101010101/node/"
                        "02020202-0202-0202-0202-020202020202",
                        size);
    size = sizeof name;
    assert_int_equal(gnutls_x509_crt_get_subject_alt_name(chain[0], 1, name, &size, NULL),
                     GNUTLS_SAN_URI);
    assert_memory_equal(name,
                        "rap://01010101-0101-0101-0101-010101010101/authority/"
                        "02020202-0202-0202-0202-020202020202",
                        size);

    unsigned critical = 0;
    unsigned is_ca = 2;
    int pathlen = 99;
    assert_int_equal(gnutls_x509_crt_get_basic_constraints(chain[0], &critical, &is_ca, &pathlen),
                     0);
    assert_int_equal(is_ca, 0);
    assert_int_equal(critical, 1);
    assert_true(gnutls_x509_crt_get_basic_constraints(chain[1], &critical, &is_ca, &pathlen) >= 0);
    assert_int_equal(is_ca, 1);
    assert_int_equal(pathlen, 0);
    for (size_t i = 0; i < ARRAY_SIZE(chain); i++) {
        gnutls_x509_crt_deinit(chain[i]);
    }
    buf_fini(&leaf);
    pki_key_free(k);
    test_ca_fini(&ca);
}

static void test_gnutls_takes_the_key(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    struct buf der;
    gnutls_x509_privkey_t key;
    gnutls_ecc_curve_t curve;
    gnutls_datum_t x;
    uint8_t public_key[PKI_KEY_BYTES];
    buf_init(&der, 64);
    assert_int_equal(pki_key_der(k, &der), 0);
    const gnutls_datum_t d = {der.data, (unsigned)der.len};
    assert_int_equal(gnutls_x509_privkey_init(&key), 0);
    assert_int_equal(
        gnutls_x509_privkey_import_pkcs8(key, &d, GNUTLS_X509_FMT_DER, NULL, GNUTLS_PKCS_PLAIN), 0);
    assert_int_equal(gnutls_x509_privkey_export_ecc_raw(key, &curve, &x, NULL, NULL), 0);
    assert_int_equal(curve, GNUTLS_ECC_CURVE_ED25519);
    pki_key_public(k, public_key);
    assert_int_equal(x.size, sizeof public_key);
    assert_memory_equal(x.data, public_key, sizeof public_key);
    gnutls_free(x.data);
    gnutls_x509_privkey_deinit(key);
    buf_wipe(&der);
    pki_key_free(k);
}

static void test_gnutls_accepts_the_request(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    struct buf der;
    gnutls_x509_crq_t crq;
    buf_init(&der, CSR_DER_MAX);
    assert_int_equal(pki_csr_build(k, &der), 0);
    const gnutls_datum_t d = {der.data, (unsigned)der.len};
    assert_int_equal(gnutls_x509_crq_init(&crq), 0);
    assert_int_equal(gnutls_x509_crq_import(crq, &d, GNUTLS_X509_FMT_DER), 0);
    assert_int_equal(gnutls_x509_crq_verify(crq, 0), 0);
    gnutls_x509_crq_deinit(crq);
    buf_fini(&der);
    pki_key_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gnutls_verifies_the_chain),
        cmocka_unit_test(test_gnutls_takes_the_key),
        cmocka_unit_test(test_gnutls_accepts_the_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
