/* The tree that a majority signs the root of (DESIGN D16). */
#include "pki/merkle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define N 200

static void key_of(unsigned i, uint8_t ret[PKI_HASH_BYTES])
{
    pki_sha256(blob_of(&i, sizeof i), ret);
}

static void value_of(unsigned i, unsigned version, uint8_t ret[PKI_HASH_BYTES])
{
    const unsigned both[] = {i, version};
    pki_sha256(blob_of(both, sizeof both), ret);
}

static struct merkle *put(struct merkle *t, unsigned i, unsigned version)
{
    uint8_t key[PKI_HASH_BYTES];
    uint8_t value[PKI_HASH_BYTES];
    key_of(i, key);
    value_of(i, version, value);
    return merkle_put(t, key, value);
}

static struct merkle *drop(struct merkle *t, unsigned i)
{
    uint8_t key[PKI_HASH_BYTES];
    key_of(i, key);
    return merkle_drop(t, key);
}

static void assert_same_root(const struct merkle *a, const struct merkle *b)
{
    uint8_t x[PKI_HASH_BYTES];
    uint8_t y[PKI_HASH_BYTES];
    merkle_root(a, x);
    merkle_root(b, y);
    assert_memory_equal(x, y, sizeof x);
}

static void test_hashes_are_those_of_the_rfc(void **state)
{
    (void)state;
    uint8_t root[PKI_HASH_BYTES];
    uint8_t want[PKI_HASH_BYTES] = {0};
    uint8_t bytes[1 + 2 * PKI_HASH_BYTES] = {0};
    uint8_t leaf[2][PKI_HASH_BYTES];
    merkle_root(NULL, root);
    assert_memory_equal(root, want, sizeof root);
    /* Two keys that differ in the first bit. */
    struct merkle *t = NULL;
    for (unsigned i = 0; i < 2; i++) {
        uint8_t key[PKI_HASH_BYTES] = {(uint8_t)(i << 7)};
        uint8_t value[PKI_HASH_BYTES] = {7};
        bytes[0] = 0;
        memcpy(bytes + 1, key, sizeof key);
        memcpy(bytes + 1 + sizeof key, value, sizeof value);
        pki_sha256(blob_of(bytes, sizeof bytes), leaf[i]);
        t = merkle_put(t, key, value);
    }
    bytes[0] = 1;
    memcpy(bytes + 1, leaf, sizeof leaf);
    pki_sha256(blob_of(bytes, sizeof bytes), want);
    merkle_root(t, root);
    assert_memory_equal(root, want, sizeof root);
    merkle_unref(t);
}

static void test_root_does_not_depend_on_the_order(void **state)
{
    (void)state;
    struct merkle *up = NULL;
    struct merkle *down = NULL;
    struct merkle *detour = NULL;
    for (unsigned i = 0; i < N; i++) {
        up = put(up, i, 1);
        down = put(down, N - 1 - i, 1);
        /* With others that come and go, and values that change. */
        detour = put(detour, N + i, 9);
        detour = put(detour, i, 5);
    }
    for (unsigned i = 0; i < N; i++) {
        detour = drop(detour, N + i);
        detour = put(detour, i, 1);
    }
    assert_same_root(up, down);
    assert_same_root(up, detour);
    for (unsigned i = 0; i < N; i++) {
        up = drop(up, i);
    }
    assert_null(up);
    merkle_unref(down);
    merkle_unref(detour);
}

static void test_old_tree_stays_as_it_was(void **state)
{
    (void)state;
    struct merkle *t = NULL;
    for (unsigned i = 0; i < N; i++) {
        t = put(t, i, 1);
    }
    struct merkle *old = merkle_ref(t);
    uint8_t before[PKI_HASH_BYTES];
    uint8_t after[PKI_HASH_BYTES];
    merkle_root(old, before);
    t = put(t, 3, 2);
    t = drop(t, 4);
    t = put(t, N, 1);
    merkle_root(old, after);
    assert_memory_equal(before, after, sizeof before);
    uint8_t key[PKI_HASH_BYTES];
    uint8_t value[PKI_HASH_BYTES];
    key_of(4, key);
    assert_null(merkle_get(t, key));
    assert_non_null(merkle_get(old, key));
    key_of(3, key);
    value_of(3, 1, value);
    assert_memory_equal(merkle_get(old, key), value, sizeof value);
    merkle_unref(t);
    merkle_unref(old);
}

static void test_item_is_proved_by_its_path_and_no_other_is(void **state)
{
    (void)state;
    struct merkle *t = NULL;
    uint8_t root[PKI_HASH_BYTES];
    for (unsigned i = 0; i < N; i++) {
        t = put(t, i, 1);
    }
    merkle_root(t, root);
    for (unsigned i = 0; i < N; i++) {
        uint8_t key[PKI_HASH_BYTES];
        uint8_t value[PKI_HASH_BYTES];
        uint8_t got[PKI_HASH_BYTES];
        struct buf path;
        buf_init(&path, MERKLE_PATH_MAX);
        key_of(i, key);
        value_of(i, 1, value);
        assert_int_equal(merkle_path(t, key, &path), 0);
        assert_true(path.len <= 24 * PKI_HASH_BYTES);
        assert_int_equal(merkle_path_root(key, value, buf_blob(&path), got), 0);
        assert_memory_equal(got, root, sizeof root);
        value[0] ^= 1;
        assert_int_equal(merkle_path_root(key, value, buf_blob(&path), got), 0);
        assert_memory_not_equal(got, root, sizeof root);
        value[0] ^= 1;
        key[31] ^= 1; /* the same way down, another key */
        assert_int_equal(merkle_path_root(key, value, buf_blob(&path), got), 0);
        assert_memory_not_equal(got, root, sizeof root);
        key[31] ^= 1;
        path.data[path.len - 1] ^= 1;
        assert_int_equal(merkle_path_root(key, value, buf_blob(&path), got), 0);
        assert_memory_not_equal(got, root, sizeof root);
        buf_fini(&path);
    }
    uint8_t key[PKI_HASH_BYTES];
    struct buf path;
    buf_init(&path, MERKLE_PATH_MAX);
    key_of(N, key);
    assert_int_equal(merkle_path(t, key, &path), -ERR_NOT_FOUND);
    buf_fini(&path);
    merkle_unref(t);
}

static void test_path_of_a_bad_length_is_refused(void **state)
{
    (void)state;
    uint8_t key[PKI_HASH_BYTES] = {0};
    uint8_t got[PKI_HASH_BYTES];
    static uint8_t path[MERKLE_PATH_MAX + PKI_HASH_BYTES];
    static const struct {
        size_t len;
        int rc;
    } rows[] = {{0, 0},
                {1, -ERR_BAD_PROOF},
                {33, -ERR_BAD_PROOF},
                {MERKLE_PATH_MAX, 0},
                {sizeof path, -ERR_BAD_PROOF}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(merkle_path_root(key, key, blob_of(path, rows[i].len), got), rows[i].rc);
    }
}

/* Keys that share all but their last bit: the deepest tree there is. */
static void test_deepest_tree(void **state)
{
    (void)state;
    uint8_t key[2][PKI_HASH_BYTES] = {{0}, {0}};
    uint8_t root[PKI_HASH_BYTES];
    uint8_t got[PKI_HASH_BYTES];
    struct buf path;
    key[1][31] = 1;
    struct merkle *t = merkle_put(merkle_put(NULL, key[0], key[0]), key[1], key[1]);
    merkle_root(t, root);
    buf_init(&path, MERKLE_PATH_MAX);
    assert_int_equal(merkle_path(t, key[1], &path), 0);
    assert_int_equal(path.len, MERKLE_PATH_MAX);
    assert_int_equal(merkle_path_root(key[1], key[1], buf_blob(&path), got), 0);
    assert_memory_equal(root, got, sizeof root);
    t = merkle_drop(t, key[1]);
    struct merkle *one = merkle_put(NULL, key[0], key[0]);
    assert_same_root(t, one);
    merkle_unref(one);
    merkle_unref(t);
    buf_fini(&path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hashes_are_those_of_the_rfc),
        cmocka_unit_test(test_root_does_not_depend_on_the_order),
        cmocka_unit_test(test_old_tree_stays_as_it_was),
        cmocka_unit_test(test_item_is_proved_by_its_path_and_no_other_is),
        cmocka_unit_test(test_path_of_a_bad_length_is_refused),
        cmocka_unit_test(test_deepest_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
