#include "lib/pki_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct uuid test_uuid(uint8_t n)
{
    struct uuid u;
    memset(u.b, n, sizeof u.b);
    return u;
}

void test_serial(uint8_t out[PKI_SERIAL_BYTES])
{
    static uint32_t last;
    last++;
    memset(out, 0x11, PKI_SERIAL_BYTES);
    memcpy(out + 4, &last, sizeof last);
}

static void issue(struct pki_cert *spec, const struct pki_key *key, struct blob issuer,
                  struct buf *out)
{
    struct errmsg em = ERRMSG_INIT;
    buf_init(out, CERT_DER_MAX);
    if (pki_cert_issue(spec, key, issuer, out, &em) != 0) {
        fail_msg("issue: %s", em.text);
    }
}

static void make_issuer(struct test_ca *ca)
{
    struct pki_cert spec = {.kind = PKI_ISSUER,
                            .cluster_id = ca->cluster_id,
                            .node_id = ca->authority_id,
                            .not_before_ms = TEST_NOW_MS - PKI_BACKDATE_MS,
                            .not_after_ms = TEST_NOW_MS + PKI_ISSUER_LIFE_MS};
    ca->issuer_key = pki_key_generate();
    test_serial(spec.serial);
    pki_key_public(ca->issuer_key, spec.public_key);
    issue(&spec, ca->root_key, buf_blob(&ca->root_der), &ca->issuer_der);
}

void test_ca_init(struct test_ca *ca, uint8_t cluster, uint8_t authority)
{
    *ca = (struct test_ca){.cluster_id = test_uuid(cluster), .authority_id = test_uuid(authority)};
    struct pki_cert spec = {.kind = PKI_ROOT,
                            .cluster_id = ca->cluster_id,
                            .not_before_ms = TEST_NOW_MS - PKI_BACKDATE_MS,
                            .not_after_ms = TEST_NOW_MS + PKI_ROOT_LIFE_MS};
    ca->root_key = pki_key_generate();
    test_serial(spec.serial);
    pki_key_public(ca->root_key, spec.public_key);
    issue(&spec, ca->root_key, blob_of(NULL, 0), &ca->root_der);
    make_issuer(ca);
}

void test_ca_init_second(struct test_ca *ca, const struct test_ca *first, uint8_t authority)
{
    *ca = (struct test_ca){.cluster_id = first->cluster_id, .authority_id = test_uuid(authority)};
    buf_init(&ca->root_der, CERT_DER_MAX);
    buf_add(&ca->root_der, first->root_der.data, first->root_der.len);
    ca->root_key = first->root_key;
    make_issuer(ca);
    ca->root_key = NULL; /* the first one's to free */
}

void test_ca_fini(struct test_ca *ca)
{
    pki_key_free(ca->root_key);
    pki_key_free(ca->issuer_key);
    buf_fini(&ca->root_der);
    buf_fini(&ca->issuer_der);
}

struct pki_cert test_leaf_spec(const struct test_ca *ca, uint8_t node, const struct pki_key *key)
{
    struct pki_cert spec = {.kind = PKI_LEAF,
                            .cluster_id = ca->cluster_id,
                            .node_id = test_uuid(node),
                            .not_before_ms = TEST_NOW_MS - PKI_BACKDATE_MS,
                            .not_after_ms = TEST_NOW_MS + PKI_LEAF_LIFE_MS};
    test_serial(spec.serial);
    pki_key_public(key, spec.public_key);
    return spec;
}

void test_issue(const struct test_ca *ca, struct pki_cert *spec, struct buf *out)
{
    issue(spec, ca->issuer_key, buf_blob(&ca->issuer_der), out);
}
