#include "pki/pki.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>

/* Fetched once: an implicit fetch costs more than hashing a short message. */
static EVP_MD *sha256;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void sha256_fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    CHECK(sha256 != NULL);
}

void pki_sha256(struct blob in, uint8_t out[PKI_HASH_BYTES])
{
    pki_sha256_parts(&in, 1, out);
}

void pki_sha256_parts(const struct blob *parts, size_t count, uint8_t out[PKI_HASH_BYTES])
{
    (void)pthread_once(&sha256_once, sha256_fetch);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned len = 0;
    CHECK(ctx != NULL && EVP_DigestInit_ex2(ctx, sha256, NULL) == 1);
    for (size_t i = 0; i < count; i++) {
        CHECK(EVP_DigestUpdate(ctx, parts[i].data, parts[i].len) == 1);
    }
    CHECK(EVP_DigestFinal_ex(ctx, out, &len) == 1 && len == PKI_HASH_BYTES);
    EVP_MD_CTX_free(ctx);
}

void pki_hmac_sha256(struct blob key, struct blob in, uint8_t out[PKI_HASH_BYTES])
{
    /* OpenSSL reads a NULL key as "keep the last one". */
    const void *key_data = key.len == 0 ? (const void *)"" : key.data;
    size_t len = 0;
    CHECK(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key_data, key.len, in.data, in.len, out,
                    PKI_HASH_BYTES, &len) != NULL);
    CHECK(len == PKI_HASH_BYTES);
}

bool pki_equal(struct blob a, struct blob b)
{
    return a.len == b.len && (a.len == 0 || CRYPTO_memcmp(a.data, b.data, a.len) == 0);
}

void pki_wipe(void *p, size_t len)
{
    if (p != NULL) {
        OPENSSL_cleanse(p, len);
    }
}
