#include "pki/pki.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void assert_hex(const uint8_t *got, const char *want)
{
    char text[2 * PKI_HASH_BYTES + 1];
    hex_encode(got, PKI_HASH_BYTES, text);
    assert_string_equal(text, want);
}

static void test_sha256_known_answers(void **state)
{
    (void)state;
    uint8_t out[PKI_HASH_BYTES];
    pki_sha256(blob_of(NULL, 0), out);
    assert_hex(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    pki_sha256(blob_str("abc"), out);
    assert_hex(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void test_sha256_of_parts_is_that_of_their_concatenation(void **state)
{
    (void)state;
    const struct blob parts[] = {blob_str("a"), blob_of(NULL, 0), blob_str("bc")};
    uint8_t out[PKI_HASH_BYTES];
    pki_sha256_parts(parts, ARRAY_SIZE(parts), out);
    assert_hex(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    pki_sha256_parts(NULL, 0, out);
    assert_hex(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

/* RFC 4231 section 4.3, and an empty key. */
static void test_hmac_known_answers(void **state)
{
    (void)state;
    uint8_t out[PKI_HASH_BYTES];
    pki_hmac_sha256(blob_str("Jefe"), blob_str("what do ya want for nothing?"), out);
    assert_hex(out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    pki_hmac_sha256(blob_of(NULL, 0), blob_of(NULL, 0), out);
    assert_hex(out, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void test_equal_compares_length_and_content(void **state)
{
    (void)state;
    assert_true(pki_equal(blob_str("same"), blob_str("same")));
    assert_true(pki_equal(blob_of(NULL, 0), blob_of("x", 0)));
    assert_false(pki_equal(blob_str("same"), blob_str("sama")));
    assert_false(pki_equal(blob_str("same"), blob_str("sam")));
}

static void test_wipe_clears(void **state)
{
    (void)state;
    uint8_t secret[16];
    uint8_t zero[16] = {0};
    memset(secret, 7, sizeof secret);
    pki_wipe(secret, sizeof secret);
    assert_memory_equal(secret, zero, sizeof secret);
    pki_wipe(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_known_answers),
        cmocka_unit_test(test_sha256_of_parts_is_that_of_their_concatenation),
        cmocka_unit_test(test_hmac_known_answers),
        cmocka_unit_test(test_equal_compares_length_and_content),
        cmocka_unit_test(test_wipe_clears),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
