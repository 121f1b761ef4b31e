/* The log of audit hashes that only grows (DESIGN D12, SPEC AUD-02). */
#include "pki/history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define N 70

static void entry_of(unsigned i, uint8_t ret[PKI_HASH_BYTES])
{
    pki_sha256(blob_of(&i, sizeof i), ret);
}

/* MTH as RFC 9162 section 2.1.1 writes it, over entries of which `changed` is another one. */
static void plain_root(unsigned first, unsigned n, int changed, uint8_t ret[PKI_HASH_BYTES])
{
    uint8_t bytes[1 + 2 * PKI_HASH_BYTES];
    if (n == 0) {
        pki_sha256(blob_of(NULL, 0), ret);
        return;
    }
    if (n == 1) {
        bytes[0] = 0;
        entry_of((int)first == changed ? first + 1000 : first, bytes + 1);
        pki_sha256(blob_of(bytes, 1 + PKI_HASH_BYTES), ret);
        return;
    }
    unsigned k = 1;
    while (k * 2 < n) {
        k *= 2;
    }
    bytes[0] = 1;
    plain_root(first, k, changed, bytes + 1);
    plain_root(first + k, n - k, changed, bytes + 1 + PKI_HASH_BYTES);
    pki_sha256(blob_of(bytes, sizeof bytes), ret);
}

static void fill(struct history *h)
{
    history_init(h);
    for (unsigned i = 0; i < N; i++) {
        uint8_t entry[PKI_HASH_BYTES];
        entry_of(i, entry);
        history_add(h, entry);
    }
}

static void test_root_at_every_length_is_that_of_the_rfc(void **state)
{
    (void)state;
    struct history h;
    fill(&h);
    for (unsigned n = 0; n <= N; n++) {
        uint8_t got[PKI_HASH_BYTES];
        uint8_t want[PKI_HASH_BYTES];
        history_root(&h, n, got);
        plain_root(0, n, -1, want);
        assert_memory_equal(got, want, sizeof got);
    }
    history_fini(&h);
}

static void test_every_beginning_is_proved(void **state)
{
    (void)state;
    struct history h;
    fill(&h);
    for (unsigned n = 1; n <= N; n++) {
        uint8_t to[PKI_HASH_BYTES];
        history_root(&h, n, to);
        for (unsigned m = 1; m <= n; m++) {
            uint8_t from[PKI_HASH_BYTES];
            struct buf proof;
            history_root(&h, m, from);
            buf_init(&proof, HISTORY_PROOF_MAX);
            history_prove(&h, m, n, &proof);
            assert_int_equal(proof.err, 0);
            assert_int_equal(history_check(m, from, n, to, buf_blob(&proof)), 0);
            /* The proof is of these two and of no others. */
            from[5] ^= 1;
            assert_int_equal(history_check(m, from, n, to, buf_blob(&proof)), -ERR_BAD_PROOF);
            from[5] ^= 1;
            to[5] ^= 1;
            assert_int_equal(history_check(m, from, n, to, buf_blob(&proof)), -ERR_BAD_PROOF);
            to[5] ^= 1;
            for (size_t i = 0; i < proof.len; i += PKI_HASH_BYTES) {
                proof.data[i] ^= 1;
                assert_int_equal(history_check(m, from, n, to, buf_blob(&proof)), -ERR_BAD_PROOF);
                proof.data[i] ^= 1;
            }
            if (proof.len > 0) {
                struct blob less = blob_of(proof.data, proof.len - PKI_HASH_BYTES);
                assert_int_equal(history_check(m, from, n, to, less), -ERR_BAD_PROOF);
            }
            buf_fini(&proof);
        }
    }
    history_fini(&h);
}

/* What a node is there to notice: one entry of the past is another one now. */
static void test_no_proof_joins_a_rewritten_history(void **state)
{
    (void)state;
    struct history h;
    fill(&h);
    for (unsigned m = 1; m < N; m++) {
        uint8_t seen[PKI_HASH_BYTES];
        uint8_t now[PKI_HASH_BYTES];
        struct buf proof;
        plain_root(0, m, (int)(m / 2), seen);
        history_root(&h, N, now);
        buf_init(&proof, HISTORY_PROOF_MAX);
        history_prove(&h, m, N, &proof);
        assert_int_equal(history_check(m, seen, N, now, buf_blob(&proof)), -ERR_BAD_PROOF);
        buf_fini(&proof);
    }
    history_fini(&h);
}

static void test_bad_proofs_are_refused(void **state)
{
    (void)state;
    uint8_t a[PKI_HASH_BYTES] = {1};
    static uint8_t proof[HISTORY_PROOF_MAX + PKI_HASH_BYTES];
    static const struct {
        uint64_t from, to;
        size_t len;
    } rows[] = {
        {0, 1, 0},       {2, 1, 0},           {1, 2, 0},
        {1, 2, 1},       {3, 7, 33},          {5, 9, sizeof proof},
        {5, 5, 32},      {UINT64_MAX, 1, 32}, {1, UINT64_MAX, 32},
        {7, 8, 32 * 40},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(history_check(rows[i].from, a, rows[i].to, a, blob_of(proof, rows[i].len)),
                         -ERR_BAD_PROOF);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_root_at_every_length_is_that_of_the_rfc),
        cmocka_unit_test(test_every_beginning_is_proved),
        cmocka_unit_test(test_no_proof_joins_a_rewritten_history),
        cmocka_unit_test(test_bad_proofs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
