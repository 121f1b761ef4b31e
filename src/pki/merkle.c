#include "pki/merkle.h"

/* Either a leaf (key and value) or a node with two subtrees, one of which may be empty: then the
 * other is a node, for a lone item moves up. */
struct merkle {
    uint32_t refs;
    bool leaf;
    uint8_t hash[PKI_HASH_BYTES];
    union {
        struct {
            uint8_t key[PKI_HASH_BYTES];
            uint8_t value[PKI_HASH_BYTES];
        };
        struct merkle *child[2];
    };
};

static unsigned bit_of(const uint8_t key[PKI_HASH_BYTES], unsigned depth)
{
    return (unsigned)(key[depth / 8] >> (7 - depth % 8)) & 1u;
}

static void hash_leaf(const uint8_t key[PKI_HASH_BYTES], const uint8_t value[PKI_HASH_BYTES],
                      uint8_t ret[PKI_HASH_BYTES])
{
    static const uint8_t tag = 0;
    const struct blob parts[] = {blob_of(&tag, 1), blob_of(key, PKI_HASH_BYTES),
                                 blob_of(value, PKI_HASH_BYTES)};
    pki_sha256_parts(parts, ARRAY_SIZE(parts), ret);
}

static void hash_node(const uint8_t left[PKI_HASH_BYTES], const uint8_t right[PKI_HASH_BYTES],
                      uint8_t ret[PKI_HASH_BYTES])
{
    static const uint8_t tag = 1;
    const struct blob parts[] = {blob_of(&tag, 1), blob_of(left, PKI_HASH_BYTES),
                                 blob_of(right, PKI_HASH_BYTES)};
    pki_sha256_parts(parts, ARRAY_SIZE(parts), ret);
}

struct merkle *merkle_ref(struct merkle *t)
{
    if (t != NULL) {
        t->refs++;
    }
    return t;
}

void merkle_unref(struct merkle *t)
{
    if (t == NULL || --t->refs > 0) {
        return;
    }
    if (!t->leaf) { /* no deeper than the keys are long */
        merkle_unref(t->child[0]);
        merkle_unref(t->child[1]);
    }
    free(t);
}

void merkle_root(const struct merkle *t, uint8_t ret[PKI_HASH_BYTES])
{
    if (t == NULL) {
        memset(ret, 0, PKI_HASH_BYTES);
    } else {
        memcpy(ret, t->hash, PKI_HASH_BYTES);
    }
}

static struct merkle *new_leaf(const uint8_t key[PKI_HASH_BYTES],
                               const uint8_t value[PKI_HASH_BYTES])
{
    struct merkle *t = xcalloc(1, sizeof *t);
    t->refs = 1;
    t->leaf = true;
    memcpy(t->key, key, PKI_HASH_BYTES);
    memcpy(t->value, value, PKI_HASH_BYTES);
    hash_leaf(key, value, t->hash);
    return t;
}

/* Takes over both references. */
static struct merkle *new_node(struct merkle *left, struct merkle *right)
{
    uint8_t hash[2][PKI_HASH_BYTES];
    struct merkle *t = xcalloc(1, sizeof *t);
    t->refs = 1;
    t->child[0] = left;
    t->child[1] = right;
    merkle_root(left, hash[0]);
    merkle_root(right, hash[1]);
    hash_node(hash[0], hash[1], t->hash);
    return t;
}

/* A node with `mine` on the side of the key and `other` beside it. Takes over both references. */
static struct merkle *join(const uint8_t key[PKI_HASH_BYTES], unsigned depth, struct merkle *mine,
                           struct merkle *other)
{
    return bit_of(key, depth) == 0 ? new_node(mine, other) : new_node(other, mine);
}

/* The subtree at depth with this leaf in it. Takes over the reference to leaf, not to t. */
static struct merkle *put(struct merkle *t, unsigned depth, struct merkle *leaf)
{
    if (t == NULL || (t->leaf && memcmp(t->key, leaf->key, PKI_HASH_BYTES) == 0)) {
        return leaf;
    }
    CHECK(depth < MERKLE_DEPTH_MAX);
    unsigned side = bit_of(leaf->key, depth);
    if (!t->leaf) {
        return join(leaf->key, depth, put(t->child[side], depth + 1, leaf),
                    merkle_ref(t->child[1 - side]));
    }
    if (bit_of(t->key, depth) == side) {
        return join(leaf->key, depth, put(t, depth + 1, leaf), NULL);
    }
    return join(leaf->key, depth, leaf, merkle_ref(t));
}

struct merkle *merkle_put(struct merkle *t, const uint8_t key[PKI_HASH_BYTES],
                          const uint8_t value[PKI_HASH_BYTES])
{
    struct merkle *made = put(t, 0, new_leaf(key, value));
    merkle_unref(t);
    return made;
}

/* The subtree without the key, which is in it. Borrows t. */
static struct merkle *drop(struct merkle *t, unsigned depth, const uint8_t key[PKI_HASH_BYTES])
{
    if (t->leaf) {
        return NULL;
    }
    unsigned side = bit_of(key, depth);
    struct merkle *mine = drop(t->child[side], depth + 1, key);
    struct merkle *other = merkle_ref(t->child[1 - side]);
    /* A lone item stands for its whole subtree. */
    if (mine == NULL && (other == NULL || other->leaf)) {
        return other;
    }
    if (other == NULL && mine->leaf) {
        return mine;
    }
    return join(key, depth, mine, other);
}

const uint8_t *merkle_get(const struct merkle *t, const uint8_t key[PKI_HASH_BYTES])
{
    for (unsigned depth = 0; t != NULL && !t->leaf; depth++) {
        t = t->child[bit_of(key, depth)];
    }
    return t != NULL && memcmp(t->key, key, PKI_HASH_BYTES) == 0 ? t->value : NULL;
}

struct merkle *merkle_drop(struct merkle *t, const uint8_t key[PKI_HASH_BYTES])
{
    if (merkle_get(t, key) == NULL) {
        return t;
    }
    struct merkle *made = drop(t, 0, key);
    merkle_unref(t);
    return made;
}

int merkle_path(const struct merkle *t, const uint8_t key[PKI_HASH_BYTES], struct buf *out)
{
    if (merkle_get(t, key) == NULL) {
        return -ERR_NOT_FOUND;
    }
    for (unsigned depth = 0; !t->leaf; depth++) {
        uint8_t sibling[PKI_HASH_BYTES];
        unsigned side = bit_of(key, depth);
        merkle_root(t->child[1 - side], sibling);
        buf_add(out, sibling, sizeof sibling);
        t = t->child[side];
    }
    return out->err;
}

int merkle_path_root(const uint8_t key[PKI_HASH_BYTES], const uint8_t value[PKI_HASH_BYTES],
                     struct blob path, uint8_t ret_root[PKI_HASH_BYTES])
{
    uint8_t hash[PKI_HASH_BYTES];
    if (path.len > MERKLE_PATH_MAX || path.len % PKI_HASH_BYTES != 0) {
        return -ERR_BAD_PROOF;
    }
    hash_leaf(key, value, hash);
    for (size_t depth = path.len / PKI_HASH_BYTES; depth-- > 0;) {
        const uint8_t *sibling = path.data + depth * PKI_HASH_BYTES;
        bool right = bit_of(key, (unsigned)depth) != 0;
        hash_node(right ? sibling : hash, right ? hash : sibling, hash);
    }
    memcpy(ret_root, hash, PKI_HASH_BYTES);
    return 0;
}
