/* The set hash: order does not matter, removing undoes adding, and one bit anywhere shows. */
#include "pki/set_hash.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void add(struct set_hash *h, const char *text)
{
    struct blob part = blob_str(text);
    set_hash_add(h, &part, 1);
}

static void drop(struct set_hash *h, const char *text)
{
    struct blob part = blob_str(text);
    set_hash_remove(h, &part, 1);
}

static bool equal(const struct set_hash *a, const struct set_hash *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void test_order_does_not_matter_and_content_does(void **state)
{
    (void)state;
    struct set_hash a = {{0}};
    struct set_hash b = {{0}};
    add(&a, "one");
    add(&a, "two");
    add(&a, "three");
    add(&b, "three");
    add(&b, "one");
    assert_false(equal(&a, &b));
    add(&b, "two");
    assert_true(equal(&a, &b));
    add(&b, "two"); /* twice is not once */
    assert_false(equal(&a, &b));
}

static void test_removing_undoes_adding_and_empty_is_zero(void **state)
{
    (void)state;
    const struct set_hash empty = {{0}};
    struct set_hash h = {{0}};
    char text[16];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(text, sizeof text, "row %d", i);
        add(&h, text);
    }
    assert_false(equal(&h, &empty));
    for (int i = 99; i >= 0; i--) {
        (void)snprintf(text, sizeof text, "row %d", i);
        drop(&h, text);
    }
    assert_true(equal(&h, &empty));
}

static void test_parts_are_their_concatenation(void **state)
{
    (void)state;
    const struct blob parts[] = {blob_str("no"), blob_str("des")};
    struct set_hash a = {{0}};
    struct set_hash b = {{0}};
    set_hash_add(&a, parts, 2);
    add(&b, "nodes");
    assert_true(equal(&a, &b));
}

/* Known answer: the sums in a database must still be those after an upgrade. */
static void test_known_answer_survives_encoding(void **state)
{
    (void)state;
    struct set_hash h = {{0}};
    struct set_hash back;
    uint8_t bytes[SET_HASH_BYTES];
    uint8_t digest[PKI_HASH_BYTES];
    char hex[2 * PKI_HASH_BYTES + 1];
    add(&h, "abc");
    add(&h, "def");
    set_hash_encode(&h, bytes);
    set_hash_decode(bytes, &back);
    assert_true(equal(&h, &back));
    pki_sha256(blob_of(bytes, sizeof bytes), digest);
    hex_encode(digest, sizeof digest, hex);
    assert_string_equal(hex, "87266cbeb746e08249ff705f0bde948f505c261f01e7e2e025f0bde1d57d8ece");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_does_not_matter_and_content_does),
        cmocka_unit_test(test_removing_undoes_adding_and_empty_is_zero),
        cmocka_unit_test(test_parts_are_their_concatenation),
        cmocka_unit_test(test_known_answer_survives_encoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
