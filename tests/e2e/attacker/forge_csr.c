/* Certificate requests as nobody honest makes them. */
#include "attacker.h"
#include "pki/der.h"
#include "pki/pki_internal.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

/* Where the 32 bytes of the key are: behind the fixed head of an Ed25519 SubjectPublicKeyInfo. */
static uint8_t *key_in(struct buf *csr)
{
    static const uint8_t head[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                   0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
    uint8_t *at = memmem(csr->data, csr->len, head, sizeof head);
    CHECK(at != NULL);
    return at + sizeof head;
}

static void put_request(X509_REQ *rq, struct buf *out)
{
    unsigned char *der = NULL;
    int len = i2d_X509_REQ(rq, &der);
    CHECK(len > 0);
    buf_add(out, der, (size_t)len);
    OPENSSL_free(der);
}

/* With a subject (NULL: none), an extension by its configuration text (NULL: none), signed by evp. */
static void request(EVP_PKEY *evp, const char *common_name, int nid, const char *extension,
                    struct buf *out)
{
    X509_REQ *rq = X509_REQ_new();
    CHECK(rq != NULL && X509_REQ_set_pubkey(rq, evp) == 1);
    if (common_name != NULL) {
        CHECK(X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(rq), "CN", MBSTRING_UTF8,
                                         (const unsigned char *)common_name, -1, -1, 0) == 1);
    }
    if (extension != NULL) {
        X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, extension);
        CHECK(e != NULL);
        STACK_OF(X509_EXTENSION) *all = sk_X509_EXTENSION_new_null();
        CHECK(sk_X509_EXTENSION_push(all, e) > 0 && X509_REQ_add_extensions(rq, all) == 1);
        sk_X509_EXTENSION_pop_free(all, X509_EXTENSION_free);
    }
    const EVP_MD *md = EVP_PKEY_get_base_id(evp) == EVP_PKEY_ED25519 ? NULL : EVP_sha256();
    CHECK(X509_REQ_sign(rq, evp, md) > 0);
    put_request(rq, out);
    X509_REQ_free(rq);
}

/* A DNS name with a zero byte in it: some parsers stop there (CVE-2009-2408). */
static void request_with_nul(EVP_PKEY *evp, struct buf *out)
{
    static const unsigned char name[] = "a1\0.example.org";
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    GENERAL_NAME *one = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    CHECK(ASN1_STRING_set(text, name, sizeof name - 1) == 1);
    GENERAL_NAME_set0_value(one, GEN_DNS, text);
    CHECK(sk_GENERAL_NAME_push(names, one) > 0);
    X509_REQ *rq = X509_REQ_new();
    STACK_OF(X509_EXTENSION) *all = NULL;
    CHECK(X509V3_add1_i2d(&all, NID_subject_alt_name, names, 0, 0) == 1);
    CHECK(X509_REQ_set_pubkey(rq, evp) == 1 && X509_REQ_add_extensions(rq, all) == 1);
    CHECK(X509_REQ_sign(rq, evp, NULL) > 0);
    put_request(rq, out);
    sk_X509_EXTENSION_pop_free(all, X509_EXTENSION_free);
    GENERAL_NAMES_free(names);
    X509_REQ_free(rq);
}

static void request_with_names(EVP_PKEY *evp, size_t count, struct buf *out)
{
    struct buf text;
    buf_init(&text, 1u << 20);
    for (size_t i = 0; i < count; i++) {
        buf_addf(&text, "%sDNS:h%zu.example.org", i == 0 ? "" : ",", i);
    }
    request(evp, NULL, NID_subject_alt_name, buf_cstr(&text), out);
    buf_fini(&text);
}

/* Making a real key of 16384 bits takes minutes; its size is what the attack is. */
static void request_huge_rsa(struct buf *out)
{
    struct buf n;
    struct buf spki;
    buf_init(&n, 4096);
    buf_init(&spki, 8192);
    uint8_t *p = buf_grow(&n, 2049);
    memset(p, 0xa5, 2049);
    p[0] = 0;
    static const uint8_t e[] = {1, 0, 1};
    static const uint8_t alg[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                  0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00};
    static const uint8_t version[] = {DER_INTEGER, 1, 0};
    struct buf key;
    buf_init(&key, 8192);
    uint8_t zero = 0;
    buf_add(&key, &zero, 1);
    size_t seq = der_begin(&key, DER_SEQUENCE);
    der_put(&key, DER_INTEGER, buf_blob(&n));
    der_put(&key, DER_INTEGER, blob_of(e, sizeof e));
    der_end(&key, seq);
    seq = der_begin(&spki, DER_SEQUENCE);
    der_put_raw(&spki, blob_of(alg, sizeof alg));
    der_put(&spki, DER_BIT_STRING, buf_blob(&key));
    der_end(&spki, seq);
    size_t whole = der_begin(out, DER_SEQUENCE);
    size_t info = der_begin(out, DER_SEQUENCE);
    der_put_raw(out, blob_of(version, sizeof version));
    der_put(out, DER_SEQUENCE, blob_of(NULL, 0));
    der_put_raw(out, buf_blob(&spki));
    der_put(out, DER_CONTEXT_CONSTRUCTED(0), blob_of(NULL, 0));
    der_end(out, info);
    der_put_raw(out, blob_of(alg, sizeof alg));
    der_put(out, DER_BIT_STRING, buf_blob(&n));
    der_end(out, whole);
    buf_fini(&n);
    buf_fini(&key);
    buf_fini(&spki);
}

static void generated(const char *type, size_t bits, struct buf *out)
{
    EVP_PKEY *evp = strcmp(type, "RSA") == 0  ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", bits)
                    : strcmp(type, "EC") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256")
                                              : NULL;
    CHECK(evp != NULL);
    request(evp, NULL, 0, NULL, out);
    EVP_PKEY_free(evp);
}

static void with_key_bytes(const struct pki_key *key, uint8_t first, uint8_t last, uint8_t fill,
                           struct buf *out)
{
    CHECK(pki_csr_build(key, out) == 0);
    uint8_t *k = key_in(out);
    memset(k, fill, PKI_KEY_BYTES);
    k[0] = first;
    k[PKI_KEY_BYTES - 1] = last;
}

static void signed_by_another(const struct pki_key *key, struct buf *out)
{
    struct pki_key *other = pki_key_generate();
    CHECK(pki_csr_build(other, out) == 0);
    pki_key_public(key, key_in(out));
    pki_key_free(other);
}

int forge_csr(const char *kind, const struct pki_key *key, struct buf *out)
{
    EVP_PKEY *evp = pki_key_evp(key);
    static const struct {
        const char *kind, *common_name, *extension;
        int nid;
    } requests[] = {
        {"ca", NULL, "critical,CA:TRUE", NID_basic_constraints},
        {"keyusage", NULL, "critical,keyCertSign,cRLSign", NID_key_usage},
        {"san", NULL, "URI:rap://0190b7a2-0000-7000-8000-000000000001/authority/x",
         NID_subject_alt_name},
        {"wildcard", NULL, "DNS:*.example.org", NID_subject_alt_name},
        {"cn", "a1", NULL, 0},
        {"cn_wildcard", "*", NULL, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        if (strcmp(kind, requests[i].kind) == 0) {
            request(evp, requests[i].common_name, requests[i].nid, requests[i].extension, out);
            return 0;
        }
    }
    if (strcmp(kind, "good") == 0) {
        return pki_csr_build(key, out);
    } else if (strcmp(kind, "nul") == 0) {
        request_with_nul(evp, out);
    } else if (strcmp(kind, "sans_10k") == 0) {
        request_with_names(evp, 10000, out);
    } else if (strcmp(kind, "sans_30") == 0) {
        request_with_names(evp, 30, out);
    } else if (strcmp(kind, "rsa_2048") == 0) {
        generated("RSA", 2048, out);
    } else if (strcmp(kind, "rsa_16k") == 0) {
        request_huge_rsa(out);
    } else if (strcmp(kind, "p256") == 0) {
        generated("EC", 0, out);
    } else if (strcmp(kind, "small_order") == 0) {
        with_key_bytes(key, 1, 0, 0, out); /* the neutral element */
    } else if (strcmp(kind, "noncanonical") == 0) {
        with_key_bytes(key, 0xee, 0x7f, 0xff, out); /* y = p + 1: another spelling of 1 */
    } else if (strcmp(kind, "bad_signature") == 0) {
        CHECK(pki_csr_build(key, out) == 0);
        out->data[out->len - 1] ^= 1;
    } else if (strcmp(kind, "other_signer") == 0) {
        signed_by_another(key, out);
    } else if (strcmp(kind, "trailing") == 0) {
        CHECK(pki_csr_build(key, out) == 0);
        buf_add(out, "\0", 1);
    } else if (strcmp(kind, "cut") == 0) {
        CHECK(pki_csr_build(key, out) == 0);
        out->len--;
    } else {
        return -ERR_NOT_FOUND;
    }
    return 0;
}
