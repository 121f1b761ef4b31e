#include "pki/pki_internal.h"

#include <openssl/err.h>
#include <openssl/evp.h>

void pki_sign_raw(const struct pki_key *k, struct blob msg, uint8_t out[PKI_SIG_BYTES])
{
    size_t len = PKI_SIG_BYTES;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CHECK(ctx != NULL);
    CHECK(EVP_DigestSignInit(ctx, NULL, NULL, NULL, pki_key_evp(k)) == 1);
    CHECK(EVP_DigestSign(ctx, out, &len, msg.data, msg.len) == 1 && len == PKI_SIG_BYTES);
    EVP_MD_CTX_free(ctx);
}

bool pki_verify_raw(const uint8_t public_key[PKI_KEY_BYTES], struct blob msg, struct blob sig)
{
    if (sig.len != PKI_SIG_BYTES) {
        return false;
    }
    bool good = false;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, PKI_KEY_BYTES);
    CHECK(ctx != NULL);
    if (pkey != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1) {
        good = EVP_DigestVerify(ctx, sig.data, sig.len, msg.data, msg.len) == 1;
    }
    EVP_PKEY_free(pkey);
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return good;
}

/* Ed25519 takes its message in one piece. Certificates and requests begin with 0x30, so the prefix
 * also keeps these signatures apart from theirs. */
static struct blob in_domain(const char *domain, struct blob msg, uint8_t **ret_memory)
{
    static const char prefix[] = "rap-sig-v1";
    size_t domain_len = strlen(domain) + 1;
    size_t len = sizeof prefix + domain_len + msg.len;
    uint8_t *p = xmalloc(len);
    memcpy(p, prefix, sizeof prefix);
    memcpy(p + sizeof prefix, domain, domain_len);
    if (msg.len > 0) {
        memcpy(p + sizeof prefix + domain_len, msg.data, msg.len);
    }
    *ret_memory = p;
    return blob_of(p, len);
}

void pki_sign(const struct pki_key *k, const char *domain, struct blob msg,
              uint8_t out[PKI_SIG_BYTES])
{
    uint8_t *memory;
    pki_sign_raw(k, in_domain(domain, msg, &memory), out);
    free(memory);
}

int pki_verify(const uint8_t public_key[PKI_KEY_BYTES], const char *domain, struct blob msg,
               struct blob sig)
{
    uint8_t *memory;
    struct blob whole = in_domain(domain, msg, &memory);
    bool good = pki_public_key_is_sound(public_key) && pki_verify_raw(public_key, whole, sig);
    free(memory);
    return good ? 0 : -ERR_BAD_SIGNATURE;
}
