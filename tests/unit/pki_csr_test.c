/* A request proves a key and asks for nothing (reliability.md section 6, "CSR/key"). The refused ones
 * are made with OpenSSL, as an attacker would. */
#include "pki/pki.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_round_trip_gives_the_key(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    struct buf der;
    uint8_t want[PKI_KEY_BYTES];
    uint8_t got[PKI_KEY_BYTES] = {0};
    buf_init(&der, CSR_DER_MAX);
    assert_int_equal(pki_csr_build(k, &der), 0);
    assert_int_equal(pki_csr_parse(buf_blob(&der), got, NULL), 0);
    pki_key_public(k, want);
    assert_memory_equal(got, want, sizeof want);
    buf_fini(&der);
    pki_key_free(k);
}

static void test_every_changed_bit_is_refused(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    struct buf der;
    uint8_t key[PKI_KEY_BYTES];
    uint8_t untouched[PKI_KEY_BYTES];
    memset(key, 0x55, sizeof key);
    memset(untouched, 0x55, sizeof untouched);
    buf_init(&der, CSR_DER_MAX);
    assert_int_equal(pki_csr_build(k, &der), 0);
    for (size_t bit = 0; bit < 8 * der.len; bit++) {
        der.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(pki_csr_parse(buf_blob(&der), key, NULL), -ERR_BAD_CSR);
        der.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_memory_equal(key, untouched, sizeof key);
    buf_fini(&der);
    pki_key_free(k);
}

static void test_truncated_or_longer_is_refused(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    struct buf der;
    uint8_t key[PKI_KEY_BYTES];
    buf_init(&der, 2 * CSR_DER_MAX);
    assert_int_equal(pki_csr_build(k, &der), 0);
    size_t len = der.len;
    for (size_t n = 0; n < len; n++) {
        /* A copy of exactly this size, so that reading past its end is seen. */
        uint8_t *copy = xmalloc(n);
        if (n > 0) {
            memcpy(copy, der.data, n);
        }
        assert_int_equal(pki_csr_parse(blob_of(copy, n), key, NULL), -ERR_BAD_CSR);
        free(copy);
    }
    buf_add(&der, "\0", 1);
    assert_int_equal(pki_csr_parse(buf_blob(&der), key, NULL), -ERR_BAD_CSR);
    while (der.len <= CSR_DER_MAX) {
        buf_add(&der, "\0", 1);
    }
    assert_int_equal(pki_csr_parse(buf_blob(&der), key, NULL), -ERR_BAD_CSR);
    buf_fini(&der);
    pki_key_free(k);
}

/* --- forged requests --- */

static void nothing(X509_REQ *r)
{
    (void)r;
}

static void add_extension(X509_REQ *r, int nid, const char *value)
{
    STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    (void)sk_X509_EXTENSION_push(list, ext);
    assert_int_equal(X509_REQ_add_extensions(r, list), 1);
    sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
}

static void add_subject(X509_REQ *r, const char *name, int len)
{
    assert_int_equal(X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(r), "CN", MBSTRING_UTF8,
                                                (const unsigned char *)name, len, -1, 0),
                     1);
}

static void ask_ca(X509_REQ *r)
{
    add_extension(r, NID_basic_constraints, "critical,CA:TRUE");
}

static void ask_key_usage(X509_REQ *r)
{
    add_extension(r, NID_key_usage, "critical,keyCertSign");
}

static void ask_foreign_san(X509_REQ *r)
{
    add_extension(r, NID_subject_alt_name,
                  "URI:rap://11111111-1111-1111-1111-111111111111/authority/"
                  "22222222-2222-2222-2222-222222222222");
}

static void ask_wildcard_san(X509_REQ *r)
{
    add_extension(r, NID_subject_alt_name, "DNS:*.example.org");
}

static void ask_many_sans(X509_REQ *r)
{
    char text[2048] = "";
    size_t n = 0;
    for (int i = 0; i < 100; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "%sDNS:h%d.example", i == 0 ? "" : ",", i);
    }
    add_extension(r, NID_subject_alt_name, text);
}

static void ask_common_name(X509_REQ *r)
{
    add_subject(r, "authority", -1);
}

static void ask_name_with_nul(X509_REQ *r)
{
    add_subject(r, "node\0.evil", 10);
}

static void ask_challenge(X509_REQ *r)
{
    assert_int_equal(X509_REQ_add1_attr_by_NID(r, NID_pkcs9_challengePassword, MBSTRING_ASC,
                                               (const unsigned char *)"secret", -1),
                     1);
}

static void ask_version_2(X509_REQ *r)
{
    assert_int_equal(X509_REQ_set_version(r, 1), 1);
}

static int parse_forged(void (*forge)(X509_REQ *r), EVP_PKEY *key, EVP_PKEY *signer,
                        struct errmsg *em)
{
    uint8_t public_key[PKI_KEY_BYTES];
    uint8_t *der = NULL;
    X509_REQ *r = X509_REQ_new();
    assert_int_equal(X509_REQ_set_pubkey(r, key), 1);
    forge(r);
    const EVP_MD *md = EVP_PKEY_is_a(signer, "RSA") ? EVP_sha256() : NULL;
    assert_true(X509_REQ_sign(r, signer, md) > 0);
    int len = i2d_X509_REQ(r, &der);
    assert_true(len > 0);
    int rc = pki_csr_parse(blob_of(der, (size_t)len), public_key, em);
    OPENSSL_free(der);
    X509_REQ_free(r);
    return rc;
}

static void test_request_that_asks_for_anything_is_refused(void **state)
{
    (void)state;
    static const struct {
        void (*forge)(X509_REQ *r);
        const char *why;
    } cases[] = {
        {ask_ca, "attributes"},
        {ask_key_usage, "attributes"},
        {ask_foreign_san, "attributes"},
        {ask_wildcard_san, "attributes"},
        {ask_many_sans, "over 1024 bytes"},
        {ask_challenge, "attributes"},
        {ask_common_name, "subject"},
        {ask_name_with_nul, "subject"},
        {ask_version_2, "version"},
    };
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(parse_forged(nothing, key, key, &em), 0); /* the forge itself is sound */
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int rc = parse_forged(cases[i].forge, key, key, &em);
        if (rc != -ERR_BAD_CSR || strstr(em.text, cases[i].why) == NULL) {
            fail_msg("case %zu: rc %d, \"%s\" says nothing of \"%s\"", i, rc, em.text,
                     cases[i].why);
        }
    }
    EVP_PKEY_free(key);
}

static void test_other_keys_are_refused(void **state)
{
    (void)state;
    EVP_PKEY *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    EVP_PKEY *ed448 = EVP_PKEY_Q_keygen(NULL, NULL, "ED448");
    EVP_PKEY *rsa = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)1024);
    EVP_PKEY *rsa_huge = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)3072);
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(parse_forged(nothing, rsa, rsa, &em), -ERR_BAD_CSR);
    assert_non_null(strstr(em.text, "not Ed25519"));
    assert_int_equal(parse_forged(nothing, rsa_huge, rsa_huge, &em), -ERR_BAD_CSR);
    assert_int_equal(parse_forged(nothing, ed448, ed448, &em), -ERR_BAD_CSR);
    assert_int_equal(parse_forged(nothing, ed, rsa, &em), -ERR_BAD_CSR);
    EVP_PKEY_free(ed);
    EVP_PKEY_free(ed448);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(rsa_huge);
}

static void test_request_signed_with_another_key_is_refused(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    EVP_PKEY *other = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(parse_forged(nothing, key, other, &em), -ERR_BAD_CSR);
    assert_non_null(strstr(em.text, "no proof"));
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

/* The identity element as a key, with the signature that verifies for every message. */
static void test_weak_key_is_refused_though_its_signature_verifies(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    struct buf der;
    uint8_t key[PKI_KEY_BYTES];
    struct errmsg em = ERRMSG_INIT;
    buf_init(&der, CSR_DER_MAX);
    assert_int_equal(pki_csr_build(k, &der), 0);
    pki_key_public(k, key);
    uint8_t *at = memmem(der.data, der.len, key, sizeof key);
    assert_non_null(at);
    memset(at, 0, PKI_KEY_BYTES);
    at[0] = 1;
    memset(der.data + der.len - PKI_SIG_BYTES, 0, PKI_SIG_BYTES);
    der.data[der.len - PKI_SIG_BYTES] = 1;
    assert_int_equal(pki_csr_parse(buf_blob(&der), key, &em), -ERR_BAD_CSR);
    assert_non_null(strstr(em.text, "weak"));
    buf_fini(&der);
    pki_key_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_gives_the_key),
        cmocka_unit_test(test_every_changed_bit_is_refused),
        cmocka_unit_test(test_truncated_or_longer_is_refused),
        cmocka_unit_test(test_request_that_asks_for_anything_is_refused),
        cmocka_unit_test(test_other_keys_are_refused),
        cmocka_unit_test(test_request_signed_with_another_key_is_refused),
        cmocka_unit_test(test_weak_key_is_refused_though_its_signature_verifies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
