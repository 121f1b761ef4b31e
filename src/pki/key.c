#include "pki/pki_internal.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

/* scrypt of RFC 7914; N is the largest that OpenSSL's default memory bound (32 MiB) takes. */
#define SCRYPT_N 16384
#define SCRYPT_R 8
#define SCRYPT_P 5
#define SALT_BYTES 16
#define KEY_FILE_MAX 4096
#define PASSPHRASE_MAX 1024

struct pki_key {
    EVP_PKEY *pkey;
    uint8_t public_key[PKI_KEY_BYTES];
};

/* Takes pkey over. */
static struct pki_key *key_wrap(EVP_PKEY *pkey)
{
    struct pki_key *k = xcalloc(1, sizeof *k);
    size_t len = sizeof k->public_key;
    k->pkey = pkey;
    CHECK(EVP_PKEY_get_raw_public_key(pkey, k->public_key, &len) == 1 && len == PKI_KEY_BYTES);
    return k;
}

struct pki_key *pki_key_generate(void)
{
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    CHECK(pkey != NULL);
    return key_wrap(pkey);
}

void pki_key_free(struct pki_key *k)
{
    if (k != NULL) {
        EVP_PKEY_free(k->pkey); /* cleanses the private half */
        free(k);
    }
}

void pki_key_public(const struct pki_key *k, uint8_t out[PKI_KEY_BYTES])
{
    memcpy(out, k->public_key, PKI_KEY_BYTES);
}

EVP_PKEY *pki_key_evp(const struct pki_key *k)
{
    return k->pkey;
}

/* AlgorithmIdentifier { id-Ed25519 } (RFC 8410 section 3). */
static const uint8_t alg[] = {0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70};
static const uint8_t spki_head[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                    0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
/* PrivateKeyInfo of RFC 8410 section 7 up to the 32 bytes of the key. */
static const uint8_t pkcs8_head[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                     0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};

struct blob pki_ed25519_alg(void)
{
    return blob_of(alg, sizeof alg);
}

void pki_spki(const uint8_t public_key[PKI_KEY_BYTES], uint8_t out[PKI_SPKI_BYTES])
{
    memcpy(out, spki_head, sizeof spki_head);
    memcpy(out + sizeof spki_head, public_key, PKI_KEY_BYTES);
}

bool pki_spki_read(struct blob spki, uint8_t ret_public_key[PKI_KEY_BYTES])
{
    if (spki.len != PKI_SPKI_BYTES || memcmp(spki.data, spki_head, sizeof spki_head) != 0) {
        return false;
    }
    memcpy(ret_public_key, spki.data + sizeof spki_head, PKI_KEY_BYTES);
    return true;
}

bool pki_public_key_is_sound(const uint8_t public_key[PKI_KEY_BYTES])
{
    /* y of the points of order 1, 2, 4 and 8, little endian; the top bit is the sign of x. */
    static const uint8_t small_order[][PKI_KEY_BYTES] = {
        {0},
        {1},
        {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4,
         0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6,
         0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
        {0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b,
         0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39,
         0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
    };
    uint8_t y[PKI_KEY_BYTES];
    memcpy(y, public_key, sizeof y);
    y[31] &= 0x7f;
    for (size_t i = 0; i < ARRAY_SIZE(small_order); i++) {
        if (memcmp(y, small_order[i], sizeof y) == 0) {
            return false;
        }
    }
    /* y >= p = 2^255 - 19 spells a point a second time: a ban of the first would miss it. */
    bool all_ones = y[31] == 0x7f;
    for (size_t i = 1; i < 31; i++) {
        all_ones = all_ones && y[i] == 0xff;
    }
    return !(all_ones && y[0] >= 0xed);
}

void pki_fingerprint(const uint8_t public_key[PKI_KEY_BYTES], uint8_t out[PKI_HASH_BYTES])
{
    uint8_t spki[PKI_SPKI_BYTES];
    pki_spki(public_key, spki);
    pki_sha256(blob_of(spki, sizeof spki), out);
}

void pki_key_id(const uint8_t public_key[PKI_KEY_BYTES], uint8_t out[PKI_KEY_ID_BYTES])
{
    uint8_t hash[PKI_HASH_BYTES];
    pki_sha256(blob_of(public_key, PKI_KEY_BYTES), hash);
    memcpy(out, hash, PKI_KEY_ID_BYTES);
}

int pki_key_der(const struct pki_key *k, struct buf *out)
{
    uint8_t secret[PKI_KEY_BYTES];
    size_t len = sizeof secret;
    CHECK(EVP_PKEY_get_raw_private_key(k->pkey, secret, &len) == 1 && len == sizeof secret);
    buf_add(out, pkcs8_head, sizeof pkcs8_head);
    buf_add(out, secret, sizeof secret);
    pki_wipe(secret, sizeof secret);
    return out->err;
}

/* PKCS#8 with PBES2: scrypt and AES-256-CBC, both salted by OpenSSL. */
static int write_encrypted(BIO *bio, const struct pki_key *k, const char *passphrase)
{
    int rc = -ERR_CRYPTO;
    X509_SIG *sealed = NULL;
    X509_ALGOR *pbe = PKCS5_pbe2_set_scrypt(EVP_aes_256_cbc(), NULL, SALT_BYTES, NULL, SCRYPT_N,
                                            SCRYPT_R, SCRYPT_P);
    PKCS8_PRIV_KEY_INFO *plain = EVP_PKEY2PKCS8(k->pkey);
    if (pbe == NULL || plain == NULL) {
        goto out;
    }
    sealed = PKCS8_set0_pbe(passphrase, (int)strlen(passphrase), plain, pbe);
    if (sealed == NULL) {
        goto out;
    }
    pbe = NULL; /* sealed owns it */
    if (PEM_write_bio_PKCS8(bio, sealed) == 1) {
        rc = 0;
    }
out:
    X509_SIG_free(sealed);
    X509_ALGOR_free(pbe);
    PKCS8_PRIV_KEY_INFO_free(plain);
    return rc;
}

int pki_key_save(const struct pki_key *k, const char *path, const char *passphrase,
                 struct errmsg *em)
{
    int rc = -ERR_CRYPTO;
    BIO *bio = BIO_new(BIO_s_secmem());
    if (passphrase != NULL && (*passphrase == '\0' || strlen(passphrase) > PASSPHRASE_MAX)) {
        rc = errmsg_set(em, -ERR_INVALID, "a passphrase has 1 to %d bytes", PASSPHRASE_MAX);
        goto out;
    }
    if (bio == NULL) {
        goto crypto;
    }
    if (passphrase != NULL) {
        rc = write_encrypted(bio, k, passphrase);
    } else {
        rc = PEM_write_bio_PKCS8PrivateKey(bio, k->pkey, NULL, NULL, 0, NULL, NULL) == 1
                 ? 0
                 : -ERR_CRYPTO;
    }
    if (rc != 0) {
        goto crypto;
    }
    char *text;
    long len = BIO_get_mem_data(bio, &text);
    CHECK(len > 0);
    rc = file_write_atomic(path, blob_of(text, (size_t)len), 0600, em);
    goto out;
crypto:
    rc = errmsg_set(em, -ERR_CRYPTO, "%s: cannot encode the key", path);
    ERR_clear_error();
out:
    BIO_free(bio);
    return rc;
}

/* The file as it is, refused when others could have read it. */
static int read_private(const char *path, struct buf *out, struct errmsg *em)
{
    int rc = 0;
    struct stat st;
    /* O_NONBLOCK: a FIFO in its place must not hang us. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errmsg_set(em, errno == ENOENT ? -ERR_NOT_FOUND : -ERR_IO, "open %s: %s", path,
                          strerror(errno));
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        rc = errmsg_set(em, -ERR_MALFORMED, "%s is not a regular file", path);
        goto out;
    }
    if ((st.st_mode & 077) != 0) {
        rc = errmsg_set(em, -ERR_DENIED, "%s is accessible to others (mode %03o): chmod 600 it",
                        path, (unsigned)(st.st_mode & 0777));
        goto out;
    }
    for (;;) {
        uint8_t chunk[1024];
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            rc = errmsg_set(em, -ERR_IO, "read %s: %s", path, strerror(errno));
            goto out;
        }
        if (n == 0) {
            break;
        }
        buf_add(out, chunk, (size_t)n);
        pki_wipe(chunk, sizeof chunk);
    }
    if (out->err != 0) {
        rc = errmsg_set(em, -ERR_MALFORMED, "%s is too large for a key", path);
    }
out:
    (void)close(fd);
    return rc;
}

static PKCS8_PRIV_KEY_INFO *unseal(struct blob der, const char *passphrase)
{
    const uint8_t *p = der.data;
    X509_SIG *sealed = d2i_X509_SIG(NULL, &p, (long)der.len);
    PKCS8_PRIV_KEY_INFO *plain = NULL;
    if (sealed != NULL && p == der.data + der.len) {
        plain = PKCS8_decrypt(sealed, passphrase, (int)strlen(passphrase));
    }
    X509_SIG_free(sealed);
    return plain;
}

static int key_decode(struct blob pem, const char *path, const char *passphrase,
                      struct pki_key **ret, struct errmsg *em)
{
    int rc = -ERR_MALFORMED;
    char *name = NULL;
    char *header = NULL;
    unsigned char *der = NULL;
    long der_len = 0;
    PKCS8_PRIV_KEY_INFO *plain = NULL;
    EVP_PKEY *pkey = NULL;
    BIO *bio = BIO_new_mem_buf(pem.data == NULL ? (const void *)"" : pem.data, (int)pem.len);
    CHECK(bio != NULL);
    if (PEM_read_bio(bio, &name, &header, &der, &der_len) != 1 || *header != '\0') {
        rc = errmsg_set(em, -ERR_MALFORMED, "%s is not a PEM private key", path);
        goto out;
    }
    if (strcmp(name, PEM_STRING_PKCS8) == 0) {
        if (passphrase == NULL) {
            rc = errmsg_set(em, -ERR_DENIED, "%s is encrypted: a passphrase is needed", path);
            goto out;
        }
        plain = unseal(blob_of(der, (size_t)der_len), passphrase);
        if (plain == NULL) {
            rc = errmsg_set(em, -ERR_DENIED, "%s: wrong passphrase", path);
            goto out;
        }
    } else if (strcmp(name, PEM_STRING_PKCS8INF) == 0) {
        const unsigned char *p = der;
        plain = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, der_len);
        if (plain == NULL || p != der + der_len) {
            rc = errmsg_set(em, -ERR_MALFORMED, "%s: damaged private key", path);
            goto out;
        }
    } else {
        rc = errmsg_set(em, -ERR_UNSUPPORTED, "%s holds \"%.32s\", not a PKCS#8 key", path, name);
        goto out;
    }
    pkey = EVP_PKCS82PKEY(plain);
    if (pkey == NULL) {
        rc = errmsg_set(em, -ERR_MALFORMED, "%s: damaged private key", path);
        goto out;
    }
    if (!EVP_PKEY_is_a(pkey, "ED25519")) {
        rc = errmsg_set(em, -ERR_UNSUPPORTED, "%s is not an Ed25519 key", path);
        goto out;
    }
    *ret = key_wrap(pkey);
    pkey = NULL;
    rc = 0;
out:
    EVP_PKEY_free(pkey);
    PKCS8_PRIV_KEY_INFO_free(plain);
    OPENSSL_clear_free(der, (size_t)der_len);
    OPENSSL_free(header);
    OPENSSL_free(name);
    BIO_free(bio);
    ERR_clear_error();
    return rc;
}

int pki_key_load(const char *path, const char *passphrase, struct pki_key **ret, struct errmsg *em)
{
    struct buf pem;
    buf_init(&pem, KEY_FILE_MAX);
    int rc = read_private(path, &pem, em);
    if (rc == 0) {
        rc = key_decode(buf_blob(&pem), path, passphrase, ret, em);
    }
    buf_wipe(&pem);
    return rc;
}
