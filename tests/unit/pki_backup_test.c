/* Backup files: what is believed of one. */
#include "lib/pki_fixture.h"
#include "pki/backup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

struct maker {
    struct test_ca ca;
    struct pki_key *key;
    struct buf leaf, file;
    struct backup_header h;
    uint8_t hash[PKI_HASH_BYTES], digest[32];
};

static const char image[] = "a packed image, as far as this file is concerned";

static void make(struct maker *m)
{
    const struct blob chain[3] = {buf_blob(&m->leaf), buf_blob(&m->ca.issuer_der),
                                  buf_blob(&m->ca.root_der)};
    buf_fini(&m->file);
    buf_init(&m->file, 1u << 20);
    assert_int_equal(backup_head(m->key, chain, &m->h, &m->file), 0);
    buf_add(&m->file, image, sizeof image);
}

static void maker_init(struct maker *m, bool authority)
{
    *m = (struct maker){.digest = {7}};
    test_ca_init(&m->ca, 1, 2);
    m->key = pki_key_generate();
    struct pki_cert spec = test_leaf_spec(&m->ca, 2, m->key);
    spec.authority = authority;
    test_issue(&m->ca, &spec, &m->leaf);
    pki_sha256(blob_of(image, sizeof image), m->hash);
    m->h = (struct backup_header){
        .version = BACKUP_VERSION,
        .cluster_id = m->ca.cluster_id,
        .node_id = m->ca.authority_id,
        .epoch = 1,
        .term = 2,
        .index = 3,
        .level = 1,
        .time_ms = TEST_NOW_MS,
        .digest = blob_of(m->digest, sizeof m->digest),
        .image_bytes = 4096,
        .packed_bytes = sizeof image,
        .packed_sha256 = blob_of(m->hash, sizeof m->hash),
    };
    make(m);
}

static void maker_fini(struct maker *m)
{
    pki_key_free(m->key);
    buf_fini(&m->leaf);
    buf_fini(&m->file);
    test_ca_fini(&m->ca);
}

static int open_made(struct maker *m)
{
    struct backup_file f;
    struct errmsg em = ERRMSG_INIT;
    make(m);
    return backup_open(buf_blob(&m->file), blob_of(NULL, 0), &f, &em);
}

static void test_good_one_opens(void **state)
{
    (void)state;
    struct maker m;
    struct test_ca other;
    struct backup_file f;
    maker_init(&m, true);
    assert_int_equal(backup_open(buf_blob(&m.file), buf_blob(&m.ca.root_der), &f, NULL), 0);
    assert_int_equal(f.header.index, 3);
    assert_true(blob_equal(f.packed, blob_of(image, sizeof image)));
    test_ca_init(&other, 9, 9);
    assert_int_equal(backup_open(buf_blob(&m.file), buf_blob(&other.root_der), &f, NULL),
                     -ERR_WRONG_CLUSTER);
    test_ca_fini(&other);
    maker_fini(&m);
}

static void test_every_changed_or_missing_byte_is_noticed(void **state)
{
    (void)state;
    struct maker m;
    struct backup_file f;
    maker_init(&m, true);
    for (size_t i = 0; i < m.file.len; i++) {
        m.file.data[i] ^= 1;
        assert_int_not_equal(backup_open(buf_blob(&m.file), buf_blob(&m.ca.root_der), &f, NULL), 0);
        m.file.data[i] ^= 1;
    }
    for (size_t n = 0; n < m.file.len; n++) {
        assert_int_not_equal(backup_open(blob_of(m.file.data, n), blob_of(NULL, 0), &f, NULL), 0);
    }
    maker_fini(&m);
}

static void test_heads_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct maker m;
    maker_init(&m, true);
    m.h.version = 2;
    assert_int_equal(open_made(&m), -ERR_SCHEMA);
    m.h.version = 1;
    m.h.index = 0;
    assert_int_equal(open_made(&m), -ERR_MALFORMED);
    m.h.index = 3;
    m.h.image_bytes = IMAGE_MAX_BYTES + 1ull;
    assert_int_equal(open_made(&m), -ERR_MALFORMED);
    m.h.image_bytes = 4096;
    m.h.packed_bytes = sizeof image + 1;
    assert_int_equal(open_made(&m), -ERR_CORRUPT);
    m.h.packed_bytes = sizeof image;
    m.h.node_id = test_uuid(3);
    assert_int_equal(open_made(&m), -ERR_NOT_AUTHORITY);
    m.h.node_id = m.ca.authority_id;
    assert_int_equal(open_made(&m), 0);
    maker_fini(&m);
}

static void test_ordinary_node_makes_no_backup(void **state)
{
    (void)state;
    struct maker m;
    maker_init(&m, false);
    assert_int_equal(open_made(&m), -ERR_NOT_AUTHORITY);
    maker_fini(&m);
}

/* --- the seal of a mirror: the same head under another domain --- */

static void make_seal(struct maker *m, struct buf *out)
{
    const struct blob chain[3] = {buf_blob(&m->leaf), buf_blob(&m->ca.issuer_der),
                                  buf_blob(&m->ca.root_der)};
    m->h.image_bytes = m->h.packed_bytes = 0;
    buf_init(out, SIGNED_BACKUP_MAX);
    assert_int_equal(seal_make(m->key, chain, &m->h, out), 0);
}

static void test_seal_opens_for_its_root_only(void **state)
{
    (void)state;
    struct maker m;
    struct test_ca other;
    struct backup_file f;
    struct buf seal;
    maker_init(&m, true);
    test_ca_init(&other, 9, 8);
    make_seal(&m, &seal);
    assert_int_equal(seal_open(buf_blob(&seal), buf_blob(&m.ca.root_der), &f, NULL), 0);
    assert_int_equal(f.header.index, 3);
    assert_true(blob_equal(f.header.packed_sha256, blob_of(m.hash, sizeof m.hash)));
    assert_int_equal(seal_open(buf_blob(&seal), buf_blob(&other.root_der), &f, NULL),
                     -ERR_WRONG_CLUSTER);
    buf_fini(&seal);
    test_ca_fini(&other);
    maker_fini(&m);
}

static void test_seal_with_any_bit_flipped_is_refused(void **state)
{
    (void)state;
    struct maker m;
    struct backup_file f;
    struct buf seal;
    maker_init(&m, true);
    make_seal(&m, &seal);
    for (size_t i = 0; i < seal.len; i += 7) {
        seal.data[i] ^= 4;
        assert_int_not_equal(seal_open(buf_blob(&seal), buf_blob(&m.ca.root_der), &f, NULL), 0);
        seal.data[i] ^= 4;
    }
    for (size_t len = 0; len < seal.len; len += 11) {
        assert_int_not_equal(seal_open(blob_of(seal.data, len), buf_blob(&m.ca.root_der), &f, NULL),
                             0);
    }
    assert_int_equal(seal_open(buf_blob(&seal), buf_blob(&m.ca.root_der), &f, NULL), 0);
    buf_fini(&seal);
    maker_fini(&m);
}

static void test_seal_is_no_backup_and_a_backups_head_no_seal(void **state)
{
    (void)state;
    struct maker m;
    struct backup_file f;
    struct buf seal;
    struct buf file;
    maker_init(&m, true);
    /* The head of a backup, without the magic in front: signed for another purpose. */
    struct blob head = blob_of(m.file.data + BACKUP_PREFIX_BYTES,
                               m.file.len - BACKUP_PREFIX_BYTES - sizeof image);
    assert_int_equal(seal_open(head, blob_of(NULL, 0), &f, NULL), -ERR_BAD_SIGNATURE);
    make_seal(&m, &seal);
    const uint8_t len[4] = {0, 0, (uint8_t)(seal.len >> 8), (uint8_t)seal.len};
    buf_init(&file, 1u << 16);
    buf_add(&file, BACKUP_MAGIC, BACKUP_MAGIC_BYTES);
    buf_add(&file, len, sizeof len);
    buf_add(&file, seal.data, seal.len);
    assert_int_not_equal(backup_open(buf_blob(&file), blob_of(NULL, 0), &f, NULL), 0);
    buf_fini(&file);
    buf_fini(&seal);
    maker_fini(&m);
}

static void test_seal_outlives_a_wrong_clock_and_needs_an_authority(void **state)
{
    (void)state;
    struct maker m;
    struct backup_file f;
    struct buf seal;
    maker_init(&m, true);
    m.h.time_ms = TEST_NOW_MS + 400LL * 86400 * 1000; /* a leader's clock was a year ahead */
    make_seal(&m, &seal);
    assert_int_equal(seal_open(buf_blob(&seal), blob_of(NULL, 0), &f, NULL), 0);
    buf_fini(&seal);
    maker_fini(&m);
    maker_init(&m, false); /* an ordinary node's key */
    make_seal(&m, &seal);
    assert_int_equal(seal_open(buf_blob(&seal), blob_of(NULL, 0), &f, NULL), -ERR_NOT_AUTHORITY);
    buf_fini(&seal);
    maker_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_one_opens),
        cmocka_unit_test(test_every_changed_or_missing_byte_is_noticed),
        cmocka_unit_test(test_heads_that_cannot_be_are_refused),
        cmocka_unit_test(test_ordinary_node_makes_no_backup),
        cmocka_unit_test(test_seal_opens_for_its_root_only),
        cmocka_unit_test(test_seal_with_any_bit_flipped_is_refused),
        cmocka_unit_test(test_seal_is_no_backup_and_a_backups_head_no_seal),
        cmocka_unit_test(test_seal_outlives_a_wrong_clock_and_needs_an_authority),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
