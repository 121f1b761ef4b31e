#include "pki/pki.h"

#include "base/file.h"
#include "pki/pki_internal.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static char path[96];

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/rap-pki-key-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/node.key", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlink(path);
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

static struct pki_key *must_load(const char *passphrase)
{
    struct errmsg em = ERRMSG_INIT;
    struct pki_key *k = NULL;
    if (pki_key_load(path, passphrase, &k, &em) != 0) {
        fail_msg("load: %s", em.text);
    }
    return k;
}

static void assert_same_key(const struct pki_key *a, const struct pki_key *b)
{
    uint8_t x[PKI_KEY_BYTES];
    uint8_t y[PKI_KEY_BYTES];
    pki_key_public(a, x);
    pki_key_public(b, y);
    assert_memory_equal(x, y, sizeof x);
    uint8_t sig[PKI_SIG_BYTES];
    pki_sign(b, "d", blob_str("m"), sig);
    assert_int_equal(pki_verify(x, "d", blob_str("m"), blob_of(sig, sizeof sig)), 0);
}

static void test_plain_key_round_trip_is_private(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    (void)umask(0);
    assert_int_equal(pki_key_save(k, path, NULL, NULL), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    struct pki_key *again = must_load(NULL);
    assert_same_key(k, again);
    pki_key_free(again);
    again = must_load("a passphrase that is not needed");
    pki_key_free(again);
    pki_key_free(k);
}

static void test_passphrase_right_wrong_missing(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    struct pki_key *k = pki_key_generate();
    struct pki_key *none = NULL;
    assert_int_equal(pki_key_save(k, path, "correct horse", &em), 0);
    struct buf text;
    buf_init(&text, 4096);
    assert_int_equal(file_read(path, &text, NULL), 0);
    assert_non_null(strstr(buf_cstr(&text), "BEGIN ENCRYPTED PRIVATE KEY"));
    buf_fini(&text);
    struct pki_key *again = must_load("correct horse");
    assert_same_key(k, again);
    assert_int_equal(pki_key_load(path, "correct hors", &none, &em), -ERR_DENIED);
    assert_int_equal(pki_key_load(path, "", &none, &em), -ERR_DENIED);
    assert_int_equal(pki_key_load(path, NULL, &none, &em), -ERR_DENIED);
    assert_null(none);
    assert_null(strstr(em.text, "correct"));
    pki_key_free(again);
    pki_key_free(k);
}

static void test_empty_passphrase_is_refused(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    assert_int_equal(pki_key_save(k, path, "", NULL), -ERR_INVALID);
    assert_false(file_exists(path));
    pki_key_free(k);
}

/* Two saves of one key share neither salt nor cipher text. */
static void test_encryption_is_salted(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    struct buf a;
    struct buf b;
    buf_init(&a, 4096);
    buf_init(&b, 4096);
    assert_int_equal(pki_key_save(k, path, "p", NULL), 0);
    assert_int_equal(file_read(path, &a, NULL), 0);
    assert_int_equal(pki_key_save(k, path, "p", NULL), 0);
    assert_int_equal(file_read(path, &b, NULL), 0);
    assert_false(blob_equal(buf_blob(&a), buf_blob(&b)));
    buf_fini(&a);
    buf_fini(&b);
    pki_key_free(k);
}

static void test_key_that_others_can_read_is_refused(void **state)
{
    (void)state;
    static const mode_t modes[] = {0644, 0640, 0604, 0620, 0610, 0601, 0660};
    struct errmsg em = ERRMSG_INIT;
    struct pki_key *k = pki_key_generate();
    struct pki_key *none = NULL;
    assert_int_equal(pki_key_save(k, path, NULL, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_int_equal(pki_key_load(path, NULL, &none, &em), -ERR_DENIED);
    }
    assert_int_equal(chmod(path, 0400), 0);
    struct pki_key *again = must_load(NULL);
    pki_key_free(again);
    pki_key_free(k);
}

static void test_missing_file_and_strange_files(void **state)
{
    (void)state;
    struct pki_key *none = NULL;
    assert_int_equal(pki_key_load(path, NULL, &none, NULL), -ERR_NOT_FOUND);
    assert_int_equal(pki_key_load("/dev/null", NULL, &none, NULL), -ERR_MALFORMED);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(pki_key_load(path, NULL, &none, NULL), -ERR_MALFORMED);
    (void)unlink(path);
    assert_null(none);
}

static void write_text(struct blob text)
{
    assert_int_equal(file_write_atomic(path, text, 0600, NULL), 0);
}

static void test_damaged_key_is_malformed(void **state)
{
    (void)state;
    struct pki_key *none = NULL;
    write_text(blob_of(NULL, 0));
    assert_int_equal(pki_key_load(path, NULL, &none, NULL), -ERR_MALFORMED);
    write_text(blob_str("-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"));
    assert_int_equal(pki_key_load(path, NULL, &none, NULL), -ERR_MALFORMED);
    char *large = xmalloc(8192);
    memset(large, 'A', 8192);
    write_text(blob_of(large, 8192));
    free(large);
    assert_int_equal(pki_key_load(path, NULL, &none, NULL), -ERR_MALFORMED);
    /* Every prefix of a good file. */
    struct pki_key *k = pki_key_generate();
    struct buf text;
    buf_init(&text, 4096);
    assert_int_equal(pki_key_save(k, path, NULL, NULL), 0);
    assert_int_equal(file_read(path, &text, NULL), 0);
    for (size_t n = 0; n + 2 < text.len; n += 3) {
        write_text(blob_of(text.data, n));
        assert_int_equal(pki_key_load(path, NULL, &none, NULL), -ERR_MALFORMED);
    }
    buf_fini(&text);
    pki_key_free(k);
    assert_null(none);
}

static void write_foreign_key(EVP_PKEY *pkey, bool traditional)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (traditional) {
        assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, pkey, NULL, NULL, 0, NULL, NULL),
                         1);
    } else {
        assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
    }
    char *text;
    long len = BIO_get_mem_data(bio, &text);
    write_text(blob_of(text, (size_t)len));
    BIO_free(bio);
}

static void test_other_algorithms_are_unsupported(void **state)
{
    (void)state;
    struct pki_key *none = NULL;
    EVP_PKEY *rsa = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)1024);
    EVP_PKEY *ed448 = EVP_PKEY_Q_keygen(NULL, NULL, "ED448");
    EVP_PKEY *x25519 = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    EVP_PKEY *const all[] = {rsa, ed448, x25519};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        write_foreign_key(all[i], false);
        assert_int_equal(pki_key_load(path, NULL, &none, NULL), -ERR_UNSUPPORTED);
    }
    write_foreign_key(rsa, true);
    assert_int_equal(pki_key_load(path, NULL, &none, NULL), -ERR_UNSUPPORTED);
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        EVP_PKEY_free(all[i]);
    }
    assert_null(none);
}

static void test_der_is_a_pkcs8_key_of_48_bytes(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    struct buf der;
    uint8_t mine[PKI_KEY_BYTES];
    uint8_t theirs[PKI_KEY_BYTES];
    size_t len = sizeof theirs;
    buf_init(&der, 64);
    assert_int_equal(pki_key_der(k, &der), 0);
    assert_int_equal(der.len, 48);
    const uint8_t *p = der.data;
    EVP_PKEY *pkey = d2i_AutoPrivateKey(NULL, &p, (long)der.len);
    assert_non_null(pkey);
    assert_int_equal(EVP_PKEY_get_raw_public_key(pkey, theirs, &len), 1);
    pki_key_public(k, mine);
    assert_memory_equal(mine, theirs, sizeof mine);
    EVP_PKEY_free(pkey);
    buf_wipe(&der);
    pki_key_free(k);
}

/* SHA-256 of the SubjectPublicKeyInfo as OpenSSL writes it. */
static void test_fingerprint_is_the_hash_of_the_spki(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    uint8_t public_key[PKI_KEY_BYTES];
    uint8_t fingerprint[PKI_HASH_BYTES];
    uint8_t want[PKI_HASH_BYTES];
    uint8_t *spki = NULL;
    pki_key_public(k, public_key);
    pki_fingerprint(public_key, fingerprint);
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key,
                                                 sizeof public_key);
    int len = i2d_PUBKEY(pkey, &spki);
    assert_true(len > 0);
    pki_sha256(blob_of(spki, (size_t)len), want);
    assert_memory_equal(fingerprint, want, sizeof want);
    OPENSSL_free(spki);
    EVP_PKEY_free(pkey);
    pki_key_free(k);
}

static void test_signature_counts_in_its_domain_only(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    uint8_t public_key[PKI_KEY_BYTES];
    uint8_t sig[PKI_SIG_BYTES];
    struct blob s = blob_of(sig, sizeof sig);
    pki_key_public(k, public_key);
    pki_sign(k, "rap-a", blob_str("message"), sig);
    assert_int_equal(pki_verify(public_key, "rap-a", blob_str("message"), s), 0);
    assert_int_equal(pki_verify(public_key, "rap-b", blob_str("message"), s), -ERR_BAD_SIGNATURE);
    assert_int_equal(pki_verify(public_key, "rap-", blob_of("a\0message", 9), s),
                     -ERR_BAD_SIGNATURE);
    assert_int_equal(pki_verify(public_key, "", blob_of("rap-a\0message", 13), s),
                     -ERR_BAD_SIGNATURE);
    assert_int_equal(pki_verify(public_key, "rap-a", blob_str("messag"), s), -ERR_BAD_SIGNATURE);
    assert_int_equal(pki_verify(public_key, "rap-a", blob_of(NULL, 0), s), -ERR_BAD_SIGNATURE);
    /* Not a signature of the bare message, nor the other way round. */
    assert_false(pki_verify_raw(public_key, blob_str("message"), s));
    pki_sign_raw(k, blob_str("message"), sig);
    assert_true(pki_verify_raw(public_key, blob_str("message"), s));
    assert_int_equal(pki_verify(public_key, "rap-a", blob_str("message"), s), -ERR_BAD_SIGNATURE);
    pki_key_free(k);
}

static void test_changed_signature_does_not_verify(void **state)
{
    (void)state;
    struct pki_key *k = pki_key_generate();
    struct pki_key *other = pki_key_generate();
    uint8_t public_key[PKI_KEY_BYTES];
    uint8_t sig[PKI_SIG_BYTES + 1] = {0};
    pki_key_public(k, public_key);
    pki_sign(k, "d", blob_of(NULL, 0), sig);
    assert_int_equal(pki_verify(public_key, "d", blob_of(NULL, 0), blob_of(sig, 64)), 0);
    for (size_t bit = 0; bit < 8 * PKI_SIG_BYTES; bit++) {
        sig[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(pki_verify(public_key, "d", blob_of(NULL, 0), blob_of(sig, 64)),
                         -ERR_BAD_SIGNATURE);
        sig[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(pki_verify(public_key, "d", blob_of(NULL, 0), blob_of(sig, 63)),
                     -ERR_BAD_SIGNATURE);
    assert_int_equal(pki_verify(public_key, "d", blob_of(NULL, 0), blob_of(sig, 65)),
                     -ERR_BAD_SIGNATURE);
    assert_int_equal(pki_verify(public_key, "d", blob_of(NULL, 0), blob_of(NULL, 0)),
                     -ERR_BAD_SIGNATURE);
    pki_key_public(other, public_key);
    assert_int_equal(pki_verify(public_key, "d", blob_of(NULL, 0), blob_of(sig, 64)),
                     -ERR_BAD_SIGNATURE);
    pki_key_free(other);
    pki_key_free(k);
}

/* With a key of small order anybody can sign: R = identity, S = 0 verifies for a share of all
 * messages (and for all of them when the key is the identity itself). */
static void test_key_of_small_order_is_never_believed(void **state)
{
    (void)state;
    uint8_t identity[PKI_KEY_BYTES] = {1};
    uint8_t sig[PKI_SIG_BYTES] = {1};
    assert_true(pki_verify_raw(identity, blob_str("anything"), blob_of(sig, sizeof sig)));
    assert_int_equal(pki_verify(identity, "d", blob_str("anything"), blob_of(sig, sizeof sig)),
                     -ERR_BAD_SIGNATURE);
    static const uint8_t weak[][2] = {{0x00, 0x00}, {0x01, 0x00}, {0xec, 0x7f}, {0xed, 0x7f},
                                      {0xff, 0x7f}, {0xec, 0xff}, {0xee, 0xff}, {0x01, 0x80}};
    for (size_t i = 0; i < ARRAY_SIZE(weak); i++) {
        uint8_t key[PKI_KEY_BYTES];
        memset(key, (weak[i][1] & 0x7f) != 0 ? 0xff : 0x00, sizeof key);
        key[0] = weak[i][0];
        key[31] = weak[i][1];
        assert_false(pki_public_key_is_sound(key));
    }
    for (int i = 0; i < 100; i++) {
        struct pki_key *k = pki_key_generate();
        uint8_t key[PKI_KEY_BYTES];
        pki_key_public(k, key);
        assert_true(pki_public_key_is_sound(key));
        pki_key_free(k);
    }
}

#define FILE_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(test_plain_key_round_trip_is_private),
        FILE_TEST(test_passphrase_right_wrong_missing),
        FILE_TEST(test_empty_passphrase_is_refused),
        FILE_TEST(test_encryption_is_salted),
        FILE_TEST(test_key_that_others_can_read_is_refused),
        FILE_TEST(test_missing_file_and_strange_files),
        FILE_TEST(test_damaged_key_is_malformed),
        FILE_TEST(test_other_algorithms_are_unsupported),
        cmocka_unit_test(test_der_is_a_pkcs8_key_of_48_bytes),
        cmocka_unit_test(test_fingerprint_is_the_hash_of_the_spki),
        cmocka_unit_test(test_signature_counts_in_its_domain_only),
        cmocka_unit_test(test_changed_signature_does_not_verify),
        cmocka_unit_test(test_key_of_small_order_is_never_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
