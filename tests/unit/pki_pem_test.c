#include "pki/pki.h"

#include "lib/pki_fixture.h"

#include <openssl/pem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct buf slots[CHAIN_MAX];

static int read_pem(struct blob pem, size_t max, size_t *ret_count)
{
    for (size_t i = 0; i < CHAIN_MAX; i++) {
        buf_fini(&slots[i]);
        buf_init(&slots[i], CERT_DER_MAX);
    }
    return pki_pem_read(pem, slots, max, ret_count, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < CHAIN_MAX; i++) {
        buf_fini(&slots[i]);
    }
    return 0;
}

static void test_chain_round_trip(void **state)
{
    (void)state;
    struct test_ca ca;
    struct buf pem;
    size_t count = 0;
    test_ca_init(&ca, 1, 2);
    buf_init(&pem, 16384);
    assert_int_equal(pki_pem_add(buf_blob(&ca.issuer_der), &pem), 0);
    assert_int_equal(pki_pem_add(buf_blob(&ca.root_der), &pem), 0);
    assert_int_equal(read_pem(buf_blob(&pem), CHAIN_MAX, &count), 0);
    assert_int_equal(count, 2);
    assert_true(blob_equal(buf_blob(&slots[0]), buf_blob(&ca.issuer_der)));
    assert_true(blob_equal(buf_blob(&slots[1]), buf_blob(&ca.root_der)));
    buf_fini(&pem);
    test_ca_fini(&ca);
}

/* Every length of the last line. */
static void test_every_length_round_trips(void **state)
{
    (void)state;
    uint8_t data[200];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 37);
    }
    for (size_t n = 1; n <= sizeof data; n++) {
        struct buf pem;
        size_t count = 0;
        buf_init(&pem, 1024);
        assert_int_equal(pki_pem_add(blob_of(data, n), &pem), 0);
        assert_int_equal(read_pem(buf_blob(&pem), 1, &count), 0);
        assert_int_equal(count, 1);
        assert_true(blob_equal(buf_blob(&slots[0]), blob_of(data, n)));
        buf_fini(&pem);
    }
}

static void test_openssl_reads_and_writes_the_same_text(void **state)
{
    (void)state;
    struct test_ca ca;
    struct buf pem;
    test_ca_init(&ca, 1, 2);
    buf_init(&pem, 8192);
    assert_int_equal(pki_pem_add(buf_blob(&ca.root_der), &pem), 0);
    BIO *in = BIO_new_mem_buf(pem.data, (int)pem.len);
    X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);
    assert_non_null(x);
    BIO *out = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509(out, x), 1);
    char *text;
    long len = BIO_get_mem_data(out, &text);
    assert_true(blob_equal(blob_of(text, (size_t)len), buf_blob(&pem)));
    BIO_free(in);
    BIO_free(out);
    X509_free(x);
    buf_fini(&pem);
    test_ca_fini(&ca);
}

#define B "-----BEGIN CERTIFICATE-----\n"
#define E "-----END CERTIFICATE-----\n"
#define LINE64 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"

static void test_anything_but_clean_blocks_is_malformed(void **state)
{
    (void)state;
    static const char *const good[] = {B "AAAA\n" E, B LINE64 E, B LINE64 "AA==\n" E,
                                       B "AAA=\n" E B "AAAA\n" E};
    static const char *const bad[] = {
        "",
        "\n",
        " " B "AAAA\n" E,
        "comment\n" B "AAAA\n" E,
        B "AAAA\n" E "\n",
        B "AAAA\n" E "x",
        B "AAAA\n" E "\n" B "AAAA\n" E,
        B E,
        B "\n" E,
        B "AAAA" E,
        B "AAAA\n",
        B "AAAA\n-----END CERTIFICATE-----",
        B "AAAA\r\n" E,
        B "AAA\n" E,
        B "A===\n" E,
        B "====\n" E,
        B "AA=A\n" E,
        B "AAB=\n" E, /* spare bits that are not zero */
        B "AB==\n" E,
        B "AA A\n" E,
        B " AAA\n" E,
        B "AA*A\n" E,
        B "AA-_\n" E,
        B "AAAA\nAAAA\n" E, /* a short line that is not the last */
        B "AAA=\nAAAA\n" E,
        B LINE64 "\n" E,
        B "AAAA" LINE64 E, /* longer than 64 */
        B B "AAAA\n" E,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE-----\r\nAAAA\r\n-----END CERTIFICATE-----\r\n",
    };
    size_t count = 77;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        if (read_pem(blob_str(good[i]), CHAIN_MAX, &count) != 0) {
            fail_msg("refused: %s", good[i]);
        }
    }
    count = 77;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (read_pem(blob_str(bad[i]), CHAIN_MAX, &count) != -ERR_MALFORMED) {
            fail_msg("case %zu accepted: %s", i, bad[i]);
        }
    }
    assert_int_equal(count, 77);
    assert_int_equal(read_pem(blob_of(B "AA\0A\n" E, sizeof(B "AA\0A\n" E) - 1), 1, &count),
                     -ERR_MALFORMED);
}

static void test_bounds_are_kept(void **state)
{
    (void)state;
    struct buf pem;
    size_t count = 0;
    uint8_t large[CERT_DER_MAX + 1] = {0};
    buf_init(&pem, 65536);
    for (int i = 0; i < CHAIN_MAX + 1; i++) {
        assert_int_equal(pki_pem_add(blob_of(large, 10), &pem), 0);
    }
    assert_int_equal(read_pem(buf_blob(&pem), CHAIN_MAX, &count), -ERR_TOO_LARGE);
    buf_clear(&pem);
    assert_int_equal(pki_pem_add(blob_of(large, CERT_DER_MAX), &pem), 0);
    assert_int_equal(read_pem(buf_blob(&pem), 1, &count), 0);
    buf_clear(&pem);
    assert_int_equal(pki_pem_add(blob_of(large, sizeof large), &pem), 0);
    assert_int_equal(read_pem(buf_blob(&pem), 1, &count), -ERR_TOO_LARGE);
    buf_fini(&pem);
    buf_init(&pem, 20);
    assert_int_equal(pki_pem_add(blob_of(large, 10), &pem), -ERR_TOO_LARGE);
    buf_fini(&pem);
}

#define PEM_TEST(f) cmocka_unit_test_teardown(f, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PEM_TEST(test_chain_round_trip),
        PEM_TEST(test_every_length_round_trips),
        PEM_TEST(test_openssl_reads_and_writes_the_same_text),
        PEM_TEST(test_anything_but_clean_blocks_is_malformed),
        PEM_TEST(test_bounds_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
