#include "pki/history.h"

static void hash_entry(const uint8_t entry[PKI_HASH_BYTES], uint8_t ret[PKI_HASH_BYTES])
{
    static const uint8_t tag = 0;
    const struct blob parts[] = {blob_of(&tag, 1), blob_of(entry, PKI_HASH_BYTES)};
    pki_sha256_parts(parts, ARRAY_SIZE(parts), ret);
}

static void hash_pair(const uint8_t left[PKI_HASH_BYTES], const uint8_t right[PKI_HASH_BYTES],
                      uint8_t ret[PKI_HASH_BYTES])
{
    static const uint8_t tag = 1;
    const struct blob parts[] = {blob_of(&tag, 1), blob_of(left, PKI_HASH_BYTES),
                                 blob_of(right, PKI_HASH_BYTES)};
    pki_sha256_parts(parts, ARRAY_SIZE(parts), ret);
}

void history_init(struct history *h)
{
    *h = (struct history){.size = 0};
    for (size_t i = 0; i < HISTORY_LEVELS; i++) {
        buf_init(&h->level[i], SIZE_MAX);
    }
}

void history_fini(struct history *h)
{
    for (size_t i = 0; i < HISTORY_LEVELS; i++) {
        buf_fini(&h->level[i]);
    }
    h->size = 0;
}

void history_add(struct history *h, const uint8_t entry[PKI_HASH_BYTES])
{
    uint8_t hash[PKI_HASH_BYTES];
    hash_entry(entry, hash);
    uint64_t at = h->size++;
    for (size_t k = 0;; k++, at /= 2) {
        struct buf *level = &h->level[k];
        CHECK(k < HISTORY_LEVELS);
        buf_add(level, hash, sizeof hash);
        if (at % 2 == 0) {
            return;
        }
        hash_pair(level->data + level->len - 2 * sizeof hash, hash, hash);
    }
}

/* The largest power of two below n, for n > 1. */
static uint64_t split(uint64_t n)
{
    uint64_t k = 1;
    while (k * 2 < n) {
        k *= 2;
    }
    return k;
}

/* MTH(D[first : first + n]), where first is a multiple of the power of two that n is below or at. */
static void subtree(const struct history *h, uint64_t first, uint64_t n,
                    uint8_t ret[PKI_HASH_BYTES])
{
    if ((n & (n - 1)) == 0) {
        size_t k = (size_t)__builtin_ctzll(n);
        memcpy(ret, h->level[k].data + (first >> k) * PKI_HASH_BYTES, PKI_HASH_BYTES);
        return;
    }
    uint8_t left[PKI_HASH_BYTES];
    uint8_t right[PKI_HASH_BYTES];
    uint64_t k = split(n);
    subtree(h, first, k, left);
    subtree(h, first + k, n - k, right);
    hash_pair(left, right, ret);
}

void history_root(const struct history *h, uint64_t size, uint8_t ret[PKI_HASH_BYTES])
{
    CHECK(size <= h->size);
    if (size == 0) {
        pki_sha256(blob_of(NULL, 0), ret);
    } else {
        subtree(h, 0, size, ret);
    }
}

/* SUBPROOF(m, D[first : first + n], whole) of RFC 9162 section 2.1.4.1. */
static void subproof(const struct history *h, uint64_t m, uint64_t first, uint64_t n, bool whole,
                     struct buf *out)
{
    uint8_t hash[PKI_HASH_BYTES];
    if (m == n) {
        if (!whole) {
            subtree(h, first, n, hash);
            buf_add(out, hash, sizeof hash);
        }
        return;
    }
    uint64_t k = split(n);
    if (m <= k) {
        subproof(h, m, first, k, whole, out);
        subtree(h, first + k, n - k, hash);
    } else {
        subproof(h, m - k, first + k, n - k, false, out);
        subtree(h, first, k, hash);
    }
    buf_add(out, hash, sizeof hash);
}

void history_prove(const struct history *h, uint64_t from, uint64_t size, struct buf *out)
{
    CHECK(from > 0 && from <= size && size <= h->size);
    subproof(h, from, 0, size, true, out);
}

/* RFC 9162 section 2.1.4.2. */
int history_check(uint64_t from_size, const uint8_t from[PKI_HASH_BYTES], uint64_t to_size,
                  const uint8_t to[PKI_HASH_BYTES], struct blob proof)
{
    size_t left = proof.len / PKI_HASH_BYTES;
    const uint8_t *next = proof.data;
    uint8_t a[PKI_HASH_BYTES]; /* grows into `from` */
    uint8_t b[PKI_HASH_BYTES]; /* grows into `to` */
    if (from_size == 0 || from_size > to_size || proof.len > HISTORY_PROOF_MAX ||
        proof.len % PKI_HASH_BYTES != 0) {
        return -ERR_BAD_PROOF;
    }
    if (from_size == to_size) {
        return left == 0 && memcmp(from, to, PKI_HASH_BYTES) == 0 ? 0 : -ERR_BAD_PROOF;
    }
    uint64_t fn = from_size - 1;
    uint64_t sn = to_size - 1;
    bool power = (from_size & (from_size - 1)) == 0;
    if (left == 0) {
        return -ERR_BAD_PROOF;
    }
    memcpy(a, power ? from : next, sizeof a);
    if (!power) {
        next += PKI_HASH_BYTES;
        left--;
    }
    memcpy(b, a, sizeof b);
    while ((fn & 1) != 0) {
        fn >>= 1;
        sn >>= 1;
    }
    for (; left > 0; left--, next += PKI_HASH_BYTES) {
        if (sn == 0) {
            return -ERR_BAD_PROOF;
        }
        if ((fn & 1) != 0 || fn == sn) {
            hash_pair(next, a, a);
            hash_pair(next, b, b);
            while ((fn & 1) == 0 && fn != 0) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            hash_pair(b, next, b);
        }
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 && memcmp(a, from, sizeof a) == 0 && memcmp(b, to, sizeof b) == 0
               ? 0
               : -ERR_BAD_PROOF;
}
