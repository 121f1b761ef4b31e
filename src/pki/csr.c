/* Certificate requests (RFC 2986): a key and the proof that its owner holds it. What a certificate
 * will say is the authority's to decide, so a request that asks for anything is refused. */
#include "pki/der.h"
#include "pki/pki_internal.h"

static const uint8_t version_0[] = {DER_INTEGER, 0x01, 0x00};
static const uint8_t empty_subject[] = {DER_SEQUENCE, 0x00};
static const uint8_t no_attributes[] = {DER_CONTEXT_CONSTRUCTED(0), 0x00};

int pki_csr_build(const struct pki_key *k, struct buf *out_der)
{
    uint8_t public_key[PKI_KEY_BYTES];
    uint8_t spki[PKI_SPKI_BYTES];
    uint8_t bits[1 + PKI_SIG_BYTES] = {0};
    struct buf info;
    buf_init(&info, CSR_DER_MAX);
    pki_key_public(k, public_key);
    pki_spki(public_key, spki);
    size_t seq = der_begin(&info, DER_SEQUENCE);
    der_put_raw(&info, blob_of(version_0, sizeof version_0));
    der_put_raw(&info, blob_of(empty_subject, sizeof empty_subject));
    der_put_raw(&info, blob_of(spki, sizeof spki));
    der_put_raw(&info, blob_of(no_attributes, sizeof no_attributes));
    der_end(&info, seq);
    CHECK(info.err == 0);
    pki_sign_raw(k, buf_blob(&info), bits + 1);
    seq = der_begin(out_der, DER_SEQUENCE);
    der_put_raw(out_der, buf_blob(&info));
    der_put_raw(out_der, pki_ed25519_alg());
    der_put(out_der, DER_BIT_STRING, blob_of(bits, sizeof bits));
    der_end(out_der, seq);
    buf_fini(&info);
    return out_der->err;
}

/* NULL, or what is wrong. */
static const char *read_request(struct blob der, uint8_t public_key[PKI_KEY_BYTES])
{
    struct der_reader input;
    der_reader_init(&input, der);
    struct der_reader outer = der_enter(&input, DER_SEQUENCE);
    if (outer.bad || !der_at_end(&input)) {
        return "not one DER value";
    }
    struct blob info_der = der_take_any(&outer);
    struct blob alg = der_take_any(&outer);
    struct blob bits = der_take(&outer, DER_BIT_STRING);
    if (outer.bad || !der_at_end(&outer)) {
        return "not three DER values";
    }
    struct der_reader whole;
    der_reader_init(&whole, info_der);
    struct der_reader info = der_enter(&whole, DER_SEQUENCE);
    if (!blob_equal(der_take_any(&info), blob_of(version_0, sizeof version_0))) {
        return "unknown version";
    }
    if (!blob_equal(der_take_any(&info), blob_of(empty_subject, sizeof empty_subject))) {
        return "asks for a subject: the authority gives the name";
    }
    if (!pki_spki_read(der_take_any(&info), public_key)) {
        return "key is not Ed25519";
    }
    if (!blob_equal(der_take_any(&info), blob_of(no_attributes, sizeof no_attributes))) {
        return "asks for attributes or extensions";
    }
    if (info.bad || !der_at_end(&info)) {
        return "trailing fields";
    }
    if (!blob_equal(alg, pki_ed25519_alg()) || bits.len != 1 + PKI_SIG_BYTES || bits.data[0] != 0) {
        return "not signed with Ed25519";
    }
    if (!pki_public_key_is_sound(public_key)) {
        return "weak key";
    }
    if (!pki_verify_raw(public_key, info_der, blob_of(bits.data + 1, PKI_SIG_BYTES))) {
        return "signature does not verify: no proof of the private key";
    }
    return NULL;
}

int pki_csr_parse(struct blob der, uint8_t ret_public_key[PKI_KEY_BYTES], struct errmsg *em)
{
    uint8_t public_key[PKI_KEY_BYTES];
    if (der.len > CSR_DER_MAX) {
        return errmsg_set(em, -ERR_BAD_CSR, "request is over %d bytes", CSR_DER_MAX);
    }
    const char *why = read_request(der, public_key);
    if (why != NULL) {
        return errmsg_set(em, -ERR_BAD_CSR, "request: %s", why);
    }
    memcpy(ret_public_key, public_key, PKI_KEY_BYTES);
    return 0;
}
