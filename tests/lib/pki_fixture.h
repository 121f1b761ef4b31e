/* A root, an authority and node certificates at a fixed time, for tests of pki and of what stands on
 * it. Failures to make them fail the test. */
#ifndef RAP_TESTS_PKI_FIXTURE_H
#define RAP_TESTS_PKI_FIXTURE_H

#include "pki/pki.h"

#define TEST_NOW_MS 1800000000000LL /* 2027-01-15 */

struct test_ca {
    struct uuid cluster_id;
    struct uuid authority_id;
    struct pki_key *root_key, *issuer_key;
    struct buf root_der, issuer_der;
};

/* The id whose every byte is n. */
struct uuid test_uuid(uint8_t n);
/* A serial that no other call returned. */
void test_serial(uint8_t out[PKI_SERIAL_BYTES]);

/* One cluster with one authority; ids from test_uuid. */
void test_ca_init(struct test_ca *ca, uint8_t cluster, uint8_t authority);
/* Another authority of the same cluster: same root key, its own issuing CA. */
void test_ca_init_second(struct test_ca *ca, const struct test_ca *first, uint8_t authority);
void test_ca_fini(struct test_ca *ca);

/* What a leaf of this node says, valid around TEST_NOW_MS. */
struct pki_cert test_leaf_spec(const struct test_ca *ca, uint8_t node, const struct pki_key *key);
/* Issues spec under the authority; out is initialised here. */
void test_issue(const struct test_ca *ca, struct pki_cert *spec, struct buf *out);

#endif
