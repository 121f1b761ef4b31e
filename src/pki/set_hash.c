#include "pki/set_hash.h"

#include <openssl/evp.h>
#include <pthread.h>

static const char domain[] = "rap-set-v1";

static EVP_CIPHER *chacha;
static pthread_once_t chacha_once = PTHREAD_ONCE_INIT;

static void chacha_fetch(void)
{
    chacha = EVP_CIPHER_fetch(NULL, "ChaCha20", NULL);
    CHECK(chacha != NULL);
}

/* The vector of a string: its SHA-256 is the key of a ChaCha20 stream (RFC 8439 section 2.4). */
static void expand(const struct blob *parts, size_t count, uint8_t ret[SET_HASH_BYTES])
{
    static const uint8_t zeros[SET_HASH_BYTES];
    static const uint8_t iv[16];
    struct blob keyed[SET_HASH_PARTS_MAX + 1] = {blob_of(domain, sizeof domain)};
    uint8_t key[PKI_HASH_BYTES];
    int len = 0;
    CHECK(count <= SET_HASH_PARTS_MAX);
    memcpy(keyed + 1, parts, count * sizeof *parts);
    pki_sha256_parts(keyed, count + 1, key);
    (void)pthread_once(&chacha_once, chacha_fetch);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    CHECK(ctx != NULL && EVP_EncryptInit_ex2(ctx, chacha, key, iv, NULL) == 1);
    CHECK(EVP_EncryptUpdate(ctx, ret, &len, zeros, sizeof zeros) == 1 && len == SET_HASH_BYTES);
    EVP_CIPHER_CTX_free(ctx);
}

static uint16_t lane_at(const uint8_t bytes[SET_HASH_BYTES], size_t i)
{
    return (uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8);
}

void set_hash_decode(const uint8_t bytes[SET_HASH_BYTES], struct set_hash *ret)
{
    for (size_t i = 0; i < SET_HASH_LANES; i++) {
        ret->lane[i] = lane_at(bytes, i);
    }
}

void set_hash_encode(const struct set_hash *h, uint8_t ret[SET_HASH_BYTES])
{
    for (size_t i = 0; i < SET_HASH_LANES; i++) {
        ret[2 * i] = (uint8_t)h->lane[i];
        ret[2 * i + 1] = (uint8_t)(h->lane[i] >> 8);
    }
}

void set_hash_add(struct set_hash *h, const struct blob *parts, size_t count)
{
    uint8_t bytes[SET_HASH_BYTES];
    expand(parts, count, bytes);
    for (size_t i = 0; i < SET_HASH_LANES; i++) {
        h->lane[i] = (uint16_t)(h->lane[i] + lane_at(bytes, i));
    }
}

void set_hash_remove(struct set_hash *h, const struct blob *parts, size_t count)
{
    uint8_t bytes[SET_HASH_BYTES];
    expand(parts, count, bytes);
    for (size_t i = 0; i < SET_HASH_LANES; i++) {
        h->lane[i] = (uint16_t)(h->lane[i] - lane_at(bytes, i));
    }
}
