/* Reading accepts what issuing writes and nothing else. The forged certificates are ours, changed
 * and signed again by OpenSSL with the right key: only their contents are wrong. */
#include "pki/pki.h"

#include "lib/pki_fixture.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void assert_same_cert(const struct pki_cert *a, const struct pki_cert *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_true(uuid_equal(&a->cluster_id, &b->cluster_id));
    assert_true(uuid_equal(&a->node_id, &b->node_id));
    assert_int_equal(a->authority, b->authority);
    assert_memory_equal(a->serial, b->serial, sizeof a->serial);
    assert_int_equal(a->not_before_ms, b->not_before_ms);
    assert_int_equal(a->not_after_ms, b->not_after_ms);
    assert_memory_equal(a->public_key, b->public_key, sizeof a->public_key);
    assert_memory_equal(a->fingerprint, b->fingerprint, sizeof a->fingerprint);
}

static void test_each_kind_reads_as_it_was_issued(void **state)
{
    (void)state;
    struct test_ca ca;
    struct pki_cert got;
    struct buf der;
    test_ca_init(&ca, 1, 2);
    struct pki_key *k = pki_key_generate();
    for (int authority = 0; authority < 2; authority++) {
        struct pki_cert spec = test_leaf_spec(&ca, 2, k);
        spec.authority = authority == 1;
        test_issue(&ca, &spec, &der);
        assert_int_equal(pki_cert_parse(buf_blob(&der), &got, NULL), 0);
        assert_same_cert(&got, &spec);
        assert_int_equal(got.kind, PKI_LEAF);
        buf_fini(&der);
    }
    assert_int_equal(pki_cert_parse(buf_blob(&ca.issuer_der), &got, NULL), 0);
    assert_int_equal(got.kind, PKI_ISSUER);
    assert_true(uuid_equal(&got.node_id, &ca.authority_id));
    assert_int_equal(pki_cert_parse(buf_blob(&ca.root_der), &got, NULL), 0);
    assert_int_equal(got.kind, PKI_ROOT);
    assert_true(uuid_is_nil(&got.node_id));
    pki_key_free(k);
    test_ca_fini(&ca);
}

static void test_serials_and_times_at_their_edges(void **state)
{
    (void)state;
    static const struct {
        uint8_t serial[PKI_SERIAL_BYTES];
        int64_t before, after;
    } cases[] = {
        {{0x7f, 0xff}, 0, 1000},
        {{0x00, 0x80}, 0, 253402300799000LL},             /* a leading zero that must stay */
        {{0x00, 0x7f}, 2524607999000LL, 2524608000000LL}, /* UTCTime, then GeneralizedTime */
        {{[15] = 1}, 951782400000LL, 951868800000LL},     /* 29 February 2000 */
        {{[14] = 0x80}, 1, 1999},                         /* rounded down: 0 and 1 s */
    };
    struct test_ca ca;
    struct pki_cert got;
    struct buf der;
    test_ca_init(&ca, 1, 2);
    struct pki_key *k = pki_key_generate();
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct pki_cert spec = test_leaf_spec(&ca, 3, k);
        memcpy(spec.serial, cases[i].serial, sizeof spec.serial);
        spec.not_before_ms = cases[i].before;
        spec.not_after_ms = cases[i].after;
        test_issue(&ca, &spec, &der);
        assert_int_equal(spec.not_before_ms, cases[i].before / 1000 * 1000);
        assert_int_equal(pki_cert_parse(buf_blob(&der), &got, NULL), 0);
        assert_same_cert(&got, &spec);
        buf_fini(&der);
    }
    pki_key_free(k);
    test_ca_fini(&ca);
}

static void test_issue_refuses_what_a_reader_would(void **state)
{
    (void)state;
    struct test_ca ca;
    struct test_ca foreign;
    struct buf out;
    struct errmsg em = ERRMSG_INIT;
    test_ca_init(&ca, 1, 2);
    test_ca_init(&foreign, 9, 2);
    struct pki_key *k = pki_key_generate();
    const struct pki_cert good = test_leaf_spec(&ca, 3, k);
    struct blob issuer = buf_blob(&ca.issuer_der);
    buf_init(&out, CERT_DER_MAX);
#define REFUSED(rc, key, issuer_der, ...)                                             \
    do {                                                                              \
        struct pki_cert spec = good;                                                  \
        __VA_ARGS__;                                                                  \
        assert_int_equal(pki_cert_issue(&spec, key, issuer_der, &out, &em), -(rc));   \
        assert_int_equal(out.len, 0);                                                 \
    } while (0)
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, spec.serial[0] = 0x80);
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, memset(spec.serial, 0, sizeof spec.serial));
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, spec.not_after_ms = spec.not_before_ms);
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, spec.not_before_ms = -1000);
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, spec.not_after_ms = INT64_MAX);
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, spec.node_id = UUID_NIL);
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, memset(spec.public_key, 0, PKI_KEY_BYTES));
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, pki_key_public(ca.issuer_key, spec.public_key));
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, spec.authority = true);  /* node 3 under CA of 2 */
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, spec.kind = PKI_ISSUER); /* a CA under a CA */
    REFUSED(ERR_INVALID, ca.issuer_key, issuer, spec.kind = PKI_ROOT);
    REFUSED(ERR_INVALID, ca.root_key, buf_blob(&ca.root_der), (void)0); /* a leaf under the root */
    REFUSED(ERR_INVALID, ca.root_key, issuer, (void)0);                 /* not the CA's key */
    REFUSED(ERR_WRONG_CLUSTER, foreign.issuer_key, buf_blob(&foreign.issuer_der), (void)0);
    REFUSED(ERR_BAD_CERT, ca.issuer_key, blob_of(NULL, 0), (void)0);
    pki_key_free(k);
    test_ca_fini(&ca);
    test_ca_fini(&foreign);
}

static void test_truncated_or_longer_is_refused(void **state)
{
    (void)state;
    struct test_ca ca;
    struct pki_cert got;
    test_ca_init(&ca, 1, 2);
    const struct buf *const both[] = {&ca.root_der, &ca.issuer_der};
    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        for (size_t n = 0; n < both[i]->len; n++) {
            uint8_t *copy = xmalloc(n);
            if (n > 0) {
                memcpy(copy, both[i]->data, n);
            }
            assert_int_equal(pki_cert_parse(blob_of(copy, n), &got, NULL), -ERR_BAD_CERT);
            free(copy);
        }
    }
    struct buf longer;
    buf_init(&longer, CERT_DER_MAX + 1);
    buf_add(&longer, ca.root_der.data, ca.root_der.len);
    while (longer.len <= CERT_DER_MAX) {
        buf_add(&longer, "\0", 1);
        assert_int_equal(pki_cert_parse(buf_blob(&longer), &got, NULL), -ERR_BAD_CERT);
    }
    buf_fini(&longer);
    test_ca_fini(&ca);
}

/* A changed bit either is refused, or is in one of the few places that may vary, and then reads as
 * another certificate that signature or name checks refuse (see pki_trust_test). */
static void test_changed_bit_is_refused_or_read_as_something_else(void **state)
{
    (void)state;
    struct test_ca ca;
    struct pki_cert was;
    struct pki_cert got;
    unsigned accepted = 0;
    test_ca_init(&ca, 1, 2);
    assert_int_equal(pki_cert_parse(buf_blob(&ca.issuer_der), &was, NULL), 0);
    size_t body = ca.issuer_der.len - PKI_SIG_BYTES;
    for (size_t bit = 0; bit < 8 * body; bit++) {
        ca.issuer_der.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int rc = pki_cert_parse(buf_blob(&ca.issuer_der), &got, NULL);
        ca.issuer_der.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (rc == 0) {
            accepted++;
            assert_int_equal(got.kind, PKI_ISSUER);
            continue;
        }
        assert_int_equal(rc, -ERR_BAD_CERT);
    }
    /* Serial, the digits of two times, and the key identifier of the issuer. The subject's own key
     * identifier and both names appear twice, so one bit there is always refused. */
    assert_in_range(accepted, 8 * 35, 8 * 60);
    test_ca_fini(&ca);
}

/* --- forged --- */

static EVP_PKEY *to_evp(const struct pki_key *k)
{
    struct buf der;
    buf_init(&der, 64);
    assert_int_equal(pki_key_der(k, &der), 0);
    const uint8_t *p = der.data;
    EVP_PKEY *pkey = d2i_AutoPrivateKey(NULL, &p, (long)der.len);
    assert_non_null(pkey);
    buf_wipe(&der);
    return pkey;
}

static void nothing(X509 *x)
{
    (void)x;
}

static X509_EXTENSION *make_extension(int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    return ext;
}

/* In the same place; value NULL takes it out. */
static void replace_extension(X509 *x, int nid, const char *value)
{
    int at = X509_get_ext_by_NID(x, nid, -1);
    assert_true(at >= 0);
    X509_EXTENSION_free(X509_delete_ext(x, at));
    if (value != NULL) {
        X509_EXTENSION *ext = make_extension(nid, value);
        assert_int_equal(X509_add_ext(x, ext, at), 1);
        X509_EXTENSION_free(ext);
    }
}

static void append_extension(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *ext = make_extension(nid, value);
    assert_int_equal(X509_add_ext(x, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

#define ID1 "01010101-0101-0101-0101-010101010101"
#define ID3 "03030303-0303-0303-0303-030303030303"
#define GOOD_SAN "URI:rap://" ID1 "/node/" ID3

static void same_san(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, GOOD_SAN);
}
static void ca_true(X509 *x)
{
    replace_extension(x, NID_basic_constraints, "critical,CA:TRUE");
}
static void ca_true_pathlen(X509 *x)
{
    replace_extension(x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
}
static void constraints_not_critical(X509 *x)
{
    replace_extension(x, NID_basic_constraints, "CA:FALSE");
}
static void no_constraints(X509 *x)
{
    replace_extension(x, NID_basic_constraints, NULL);
}
static void usage_cert_sign(X509 *x)
{
    replace_extension(x, NID_key_usage, "critical,digitalSignature,keyCertSign");
}
static void usage_not_critical(X509 *x)
{
    replace_extension(x, NID_key_usage, "digitalSignature");
}
static void no_usage(X509 *x)
{
    replace_extension(x, NID_key_usage, NULL);
}
static void eku_client_only(X509 *x)
{
    replace_extension(x, NID_ext_key_usage, "clientAuth");
}
static void eku_server_only(X509 *x)
{
    replace_extension(x, NID_ext_key_usage, "serverAuth");
}
static void eku_any(X509 *x)
{
    replace_extension(x, NID_ext_key_usage, "anyExtendedKeyUsage");
}
static void eku_third(X509 *x)
{
    replace_extension(x, NID_ext_key_usage, "serverAuth,clientAuth,codeSigning");
}
static void eku_swapped(X509 *x)
{
    replace_extension(x, NID_ext_key_usage, "clientAuth,serverAuth");
}
static void no_eku(X509 *x)
{
    replace_extension(x, NID_ext_key_usage, NULL);
}
static void no_san(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, NULL);
}
static void san_dns(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, "DNS:node.example");
}
static void san_wildcard(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, "URI:rap://" ID1 "/node/*");
}
static void san_extra_dns(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, GOOD_SAN ",DNS:*");
}
static void san_twice(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, GOOD_SAN "," GOOD_SAN);
}
static void san_other_authority(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, GOOD_SAN ",URI:rap://" ID1 "/authority/" ID1);
}
/* What the authority with id 2 must not be able to say of node 3. */
static void san_authority(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, GOOD_SAN ",URI:rap://" ID1 "/authority/" ID3);
}
static void san_other_node(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, "URI:rap://" ID1 "/node/" ID1);
}
static void san_other_cluster(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, "URI:rap://" ID3 "/node/" ID3);
}
static void san_upper_case(X509 *x)
{
    replace_extension(x, NID_subject_alt_name, "URI:RAP://" ID1 "/node/" ID3);
}
static void san_second_extension(X509 *x)
{
    append_extension(x, NID_subject_alt_name, GOOD_SAN);
}
static void unknown_extension(X509 *x)
{
    append_extension(x, NID_netscape_comment, "hello");
}
static void unknown_critical_extension(X509 *x)
{
    append_extension(x, NID_policy_constraints, "critical,requireExplicitPolicy:0");
}
static void san_with_nul(X509 *x)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    GENERAL_NAME *first = sk_GENERAL_NAME_value(names, 0);
    const ASN1_IA5STRING *old = first->d.uniformResourceIdentifier;
    char text[256] = {0};
    int len = ASN1_STRING_length(old);
    memcpy(text, ASN1_STRING_get0_data(old), (size_t)len);
    ASN1_STRING_set(first->d.uniformResourceIdentifier, text, len + 6); /* zeros behind it */
    assert_int_equal(X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, X509V3_ADD_REPLACE), 1);
    GENERAL_NAMES_free(names);
}
static void subject_second_name(X509 *x)
{
    X509_NAME *name = X509_NAME_dup(X509_get_subject_name(x));
    (void)X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)"authority",
                                     -1, -1, 0);
    assert_int_equal(X509_set_subject_name(x, name), 1);
    X509_NAME_free(name);
}
static void subject_printable(X509 *x)
{
    X509_NAME *name = X509_NAME_new();
    (void)X509_NAME_add_entry_by_txt(name, "O", V_ASN1_PRINTABLESTRING, (const unsigned char *)ID1,
                                     -1, -1, 0);
    (void)X509_NAME_add_entry_by_txt(name, "CN", V_ASN1_PRINTABLESTRING,
                                     (const unsigned char *)"node " ID3, -1, -1, 0);
    assert_int_equal(X509_set_subject_name(x, name), 1);
    X509_NAME_free(name);
}
static void no_subject(X509 *x)
{
    X509_NAME *name = X509_NAME_new();
    assert_int_equal(X509_set_subject_name(x, name), 1);
    X509_NAME_free(name);
}
static void version_1(X509 *x)
{
    assert_int_equal(X509_set_version(x, X509_VERSION_1), 1);
}
static void serial_from_hex(X509 *x, const char *hex)
{
    BIGNUM *bn = NULL;
    assert_true(BN_hex2bn(&bn, hex) > 0);
    ASN1_INTEGER *n = BN_to_ASN1_INTEGER(bn, NULL);
    assert_int_equal(X509_set_serialNumber(x, n), 1);
    ASN1_INTEGER_free(n);
    BN_free(bn);
}
static void serial_zero(X509 *x)
{
    serial_from_hex(x, "0");
}
static void serial_negative(X509 *x)
{
    serial_from_hex(x, "-11223344");
}
static void serial_too_long(X509 *x)
{
    serial_from_hex(x, "0122334455667788990011223344556677");
}
static void serial_first_bit_set(X509 *x)
{
    serial_from_hex(x, "81223344556677889900112233445566");
}
static void generalized_time_too_early(X509 *x)
{
    ASN1_TIME *t = ASN1_TIME_new();
    assert_int_equal(ASN1_STRING_set(t, "20270115000000Z", -1), 1);
    t->type = V_ASN1_GENERALIZEDTIME;
    assert_int_equal(X509_set1_notBefore(x, t), 1);
    ASN1_TIME_free(t);
}
static void impossible_date(X509 *x)
{
    ASN1_TIME *t = ASN1_TIME_new();
    assert_int_equal(ASN1_STRING_set(t, "270230000000Z", -1), 1);
    t->type = V_ASN1_UTCTIME;
    assert_int_equal(X509_set1_notAfter(x, t), 1);
    ASN1_TIME_free(t);
}
static void time_zone(X509 *x)
{
    ASN1_TIME *t = ASN1_TIME_new();
    assert_int_equal(ASN1_STRING_set(t, "280115000000+0100", -1), 1);
    t->type = V_ASN1_UTCTIME;
    assert_int_equal(X509_set1_notAfter(x, t), 1);
    ASN1_TIME_free(t);
}
static void rsa_key(X509 *x)
{
    EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)1024);
    assert_int_equal(X509_set_pubkey(x, k), 1);
    EVP_PKEY_free(k);
}
static void ed448_key(X509 *x)
{
    EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "ED448");
    assert_int_equal(X509_set_pubkey(x, k), 1);
    EVP_PKEY_free(k);
}
static void other_ed25519_key(X509 *x) /* no longer what the key identifier says */
{
    EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    assert_int_equal(X509_set_pubkey(x, k), 1);
    EVP_PKEY_free(k);
}

static int parse_forged(struct blob der, void (*forge)(X509 *x), EVP_PKEY *signer,
                        struct errmsg *em)
{
    const uint8_t *p = der.data;
    uint8_t *out = NULL;
    struct pki_cert got;
    X509 *x = d2i_X509(NULL, &p, (long)der.len);
    assert_non_null(x);
    forge(x);
    const EVP_MD *md = EVP_PKEY_is_a(signer, "RSA") ? EVP_sha256() : NULL;
    assert_true(X509_sign(x, signer, md) > 0);
    int len = i2d_X509(x, &out);
    assert_true(len > 0);
    int rc = pki_cert_parse(blob_of(out, (size_t)len), &got, em);
    OPENSSL_free(out);
    X509_free(x);
    return rc;
}

static void test_forged_leaf_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        void (*forge)(X509 *x);
    } cases[] = {
#define CASE(f) {#f, f}
        CASE(ca_true),
        CASE(ca_true_pathlen),
        CASE(constraints_not_critical),
        CASE(no_constraints),
        CASE(usage_cert_sign),
        CASE(usage_not_critical),
        CASE(no_usage),
        CASE(eku_client_only),
        CASE(eku_server_only),
        CASE(eku_any),
        CASE(eku_third),
        CASE(eku_swapped),
        CASE(no_eku),
        CASE(no_san),
        CASE(san_dns),
        CASE(san_wildcard),
        CASE(san_extra_dns),
        CASE(san_twice),
        CASE(san_other_authority),
        CASE(san_authority),
        CASE(san_other_node),
        CASE(san_other_cluster),
        CASE(san_upper_case),
        CASE(san_second_extension),
        CASE(san_with_nul),
        CASE(unknown_extension),
        CASE(unknown_critical_extension),
        CASE(subject_second_name),
        CASE(subject_printable),
        CASE(no_subject),
        CASE(version_1),
        CASE(serial_zero),
        CASE(serial_negative),
        CASE(serial_too_long),
        CASE(serial_first_bit_set),
        CASE(generalized_time_too_early),
        CASE(impossible_date),
        CASE(time_zone),
        CASE(rsa_key),
        CASE(ed448_key),
        CASE(other_ed25519_key),
    };
    struct test_ca ca;
    struct buf der;
    test_ca_init(&ca, 1, 2);
    struct pki_key *k = pki_key_generate();
    struct pki_cert spec = test_leaf_spec(&ca, 3, k);
    test_issue(&ca, &spec, &der);
    EVP_PKEY *signer = to_evp(ca.issuer_key);
    struct errmsg em = ERRMSG_INIT;
    /* Going through OpenSSL unchanged is accepted: the refusals below are of the change. */
    assert_int_equal(parse_forged(buf_blob(&der), nothing, signer, &em), 0);
    assert_int_equal(parse_forged(buf_blob(&der), same_san, signer, &em), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (parse_forged(buf_blob(&der), cases[i].forge, signer, &em) != -ERR_BAD_CERT) {
            fail_msg("%s is accepted", cases[i].name);
        }
    }
    EVP_PKEY *rsa = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)1024);
    assert_int_equal(parse_forged(buf_blob(&der), nothing, rsa, &em), -ERR_BAD_CERT);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(signer);
    buf_fini(&der);
    pki_key_free(k);
    test_ca_fini(&ca);
}

static void pathlen_1(X509 *x)
{
    replace_extension(x, NID_basic_constraints, "critical,CA:TRUE,pathlen:1");
}
static void ca_false(X509 *x)
{
    replace_extension(x, NID_basic_constraints, "critical,CA:FALSE");
}
static void usage_digital_signature(X509 *x)
{
    replace_extension(x, NID_key_usage, "critical,keyCertSign,digitalSignature");
}
static void with_eku(X509 *x)
{
    append_extension(x, NID_ext_key_usage, "serverAuth,clientAuth");
}
static void issued_by_itself(X509 *x)
{
    assert_int_equal(X509_set_issuer_name(x, X509_get_subject_name(x)), 1);
}
static void no_issuer_key_id(X509 *x)
{
    replace_extension(x, NID_authority_key_identifier, NULL);
}

static void test_forged_issuer_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        void (*forge)(X509 *x);
    } cases[] = {
        CASE(ca_true),          CASE(pathlen_1),
        CASE(ca_false),         CASE(usage_digital_signature),
        CASE(with_eku),         CASE(issued_by_itself),
        CASE(no_issuer_key_id),
    };
    struct test_ca ca;
    test_ca_init(&ca, 1, 2);
    EVP_PKEY *signer = to_evp(ca.root_key);
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(parse_forged(buf_blob(&ca.issuer_der), nothing, signer, &em), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (parse_forged(buf_blob(&ca.issuer_der), cases[i].forge, signer, &em) != -ERR_BAD_CERT) {
            fail_msg("%s is accepted", cases[i].name);
        }
    }
    EVP_PKEY_free(signer);
    test_ca_fini(&ca);
}

/* BER that means the same is not DER. */
static void test_other_spellings_of_a_length_are_refused(void **state)
{
    (void)state;
    struct test_ca ca;
    struct pki_cert got;
    test_ca_init(&ca, 1, 2);
    size_t len = ca.root_der.len;
    uint8_t *p = ca.root_der.data;
    assert_int_equal(p[1], 0x82); /* two length bytes */
    uint8_t *ber = xmalloc(len + 4);
    ber[0] = p[0];
    ber[1] = 0x83; /* three, the first of them zero */
    ber[2] = 0;
    memcpy(ber + 3, p + 2, len - 2);
    assert_int_equal(pki_cert_parse(blob_of(ber, len + 1), &got, NULL), -ERR_BAD_CERT);
    ber[1] = 0x80; /* indefinite, ended by two zeros */
    memcpy(ber + 2, p + 4, len - 4);
    memset(ber + len - 2, 0, 2);
    assert_int_equal(pki_cert_parse(blob_of(ber, len), &got, NULL), -ERR_BAD_CERT);
    ber[1] = 0xff;
    assert_int_equal(pki_cert_parse(blob_of(ber, len), &got, NULL), -ERR_BAD_CERT);
    free(ber);
    test_ca_fini(&ca);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_reads_as_it_was_issued),
        cmocka_unit_test(test_serials_and_times_at_their_edges),
        cmocka_unit_test(test_issue_refuses_what_a_reader_would),
        cmocka_unit_test(test_truncated_or_longer_is_refused),
        cmocka_unit_test(test_changed_bit_is_refused_or_read_as_something_else),
        cmocka_unit_test(test_forged_leaf_is_refused),
        cmocka_unit_test(test_forged_issuer_is_refused),
        cmocka_unit_test(test_other_spellings_of_a_length_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
