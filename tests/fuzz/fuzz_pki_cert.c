/* A certificate, and a chain: certificates one after another, each with two bytes of length. */
#include "fuzz/fuzz.h"

#include "pki/pki.h"

#define NOW_MS 1800000000000LL

static void one(struct blob der)
{
    struct pki_cert c;
    struct errmsg em;
    if (pki_cert_parse(der, &c, &em) == 0) {
        CHECK(der.len <= CERT_DER_MAX);
        CHECK((c.serial[0] & 0x80) == 0);
        CHECK(c.not_before_ms >= 0 && c.not_before_ms < c.not_after_ms);
        CHECK(!uuid_is_nil(&c.cluster_id));
        CHECK(uuid_is_nil(&c.node_id) == (c.kind == PKI_ROOT));
    }
}

static void chain(struct blob in)
{
    struct blob certs[CHAIN_MAX];
    size_t count = 0;
    while (count < CHAIN_MAX && in.len >= 2) {
        size_t n = (size_t)in.data[0] << 8 | in.data[1];
        n = n < in.len - 2 ? n : in.len - 2;
        certs[count++] = blob_of(in.data + 2, n);
        in = blob_of(in.data + 2 + n, in.len - 2 - n);
    }
    if (count == 0) {
        return;
    }
    /* Trust whatever root is shown, so that the rest of the checks is reached. */
    struct pki_cert root;
    struct pki_identity id;
    struct errmsg em;
    if (pki_cert_parse(certs[count - 1], &root, &em) != 0) {
        return;
    }
    struct pki_trust *t = pki_trust_new(&root.cluster_id);
    pki_trust_set_pin(t, root.fingerprint);
    if (pki_chain_verify(t, certs, count, NOW_MS, &id, &em) == 0) {
        CHECK(uuid_equal(&id.cluster_id, &root.cluster_id));
        CHECK(!id.authority || uuid_equal(&id.node_id, &id.issuer_id));
    }
    pki_trust_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    one(blob_of(data, size));
    chain(blob_of(data, size));
    return 0;
}
