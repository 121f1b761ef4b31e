/* What counts as signed by a majority of the authority, and who the authority is (DESIGN D16). */
#include "pki/witness.h"

#include "lib/pki_fixture.h"
#include "wire/node_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MEMBERS 5

struct world {
    struct uuid cluster;
    struct pki_key *root;
    uint8_t root_key[PKI_KEY_BYTES];
    struct pki_key *key[MEMBERS];
    struct witness_member member[MEMBERS];
};

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    w->cluster = test_uuid(1);
    w->root = pki_key_generate();
    pki_key_public(w->root, w->root_key);
    for (size_t i = 0; i < MEMBERS; i++) {
        w->key[i] = pki_key_generate();
        w->member[i].node_id = test_uuid((uint8_t)(10 + i));
        pki_key_public(w->key[i], w->member[i].public_key);
    }
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < MEMBERS; i++) {
        pki_key_free(w->key[i]);
    }
    pki_key_free(w->root);
    free(w);
    return 0;
}

/* who: bit i member i signs, bit 7 the root does. */
static void sign_set(const struct world *w, struct blob statement, unsigned who, struct buf *out)
{
    struct buf list;
    uint32_t count = 0;
    buf_init(&list, SIGNED_SET_MAX);
    for (size_t i = 0; i < 8; i++) {
        uint8_t sig[PKI_SIG_BYTES];
        struct set_signature s = {.signature = blob_of(sig, sizeof sig)};
        if ((who & 1u << i) == 0) {
            continue;
        }
        if (i < MEMBERS) {
            s.node_id = w->member[i].node_id;
        }
        pki_sign(i < MEMBERS ? w->key[i] : w->root, AUTHORITY_SET_SIGN_DOMAIN, statement, sig);
        msg_list_add(&set_signature_desc, &s, &list, &count);
    }
    struct signed_set msg = {.statement = statement,
                             .signatures = {.raw = buf_blob(&list), .count = count}};
    buf_clear(out);
    msg_encode(&signed_set_desc, &msg, out);
    assert_int_equal(out->err, 0);
    buf_fini(&list);
}

#define ROOT 0x80u

/* The link after `held` that makes the first n members the set. */
static void make_link(const struct world *w, const struct witness_set *held, uint64_t epoch,
                      size_t n, unsigned who, struct buf *out)
{
    struct buf statement;
    buf_init(&statement, AUTHORITY_SET_MAX);
    witness_set_build(held, &w->cluster, epoch, w->member, n, &statement);
    sign_set(w, buf_blob(&statement), who, out);
    buf_fini(&statement);
}

static int advance(const struct world *w, struct witness_set *set, const struct buf *link)
{
    struct witness_set before = *set;
    struct errmsg em = ERRMSG_INIT;
    int rc = witness_set_advance(set, &w->cluster, w->root_key, buf_blob(link), &em);
    assert_true((rc == 0) == (em.text[0] == '\0'));
    if (rc != 0) {
        assert_memory_equal(set, &before, sizeof before);
    }
    return rc;
}

static struct witness_set rooted(const struct world *w, size_t n)
{
    struct witness_set set = {.known = false};
    struct buf link;
    buf_init(&link, SIGNED_SET_MAX);
    make_link(w, &set, 1, n, ROOT, &link);
    assert_int_equal(advance(w, &set, &link), 0);
    buf_fini(&link);
    return set;
}

static void test_chain_begins_with_the_root_and_goes_on_by_majority(void **state)
{
    struct world *w = *state;
    struct witness_set set = {.known = false};
    struct buf link;
    buf_init(&link, SIGNED_SET_MAX);
    make_link(w, &set, 1, 1, 1u, &link); /* nobody can vouch for himself */
    assert_int_equal(advance(w, &set, &link), -ERR_BAD_SET);
    make_link(w, &set, 1, 1, ROOT, &link);
    assert_int_equal(advance(w, &set, &link), 0);
    assert_true(set.known && set.seq == 1 && set.count == 1);
    for (size_t n = 2; n <= MEMBERS; n++) {
        unsigned majority = (1u << ((n - 1) / 2 + 1)) - 1; /* of the n - 1 before */
        unsigned fewer = majority >> 1;
        make_link(w, &set, 1, n, fewer | 1u << (n - 1), &link); /* the new one does not count */
        assert_int_equal(advance(w, &set, &link), -ERR_BAD_SET);
        make_link(w, &set, 1, n, majority, &link);
        assert_int_equal(advance(w, &set, &link), 0);
        assert_int_equal(set.count, n);
        assert_int_equal(set.seq, n);
    }
    buf_fini(&link);
}

static void test_links_that_do_not_follow_are_refused(void **state)
{
    struct world *w = *state;
    struct witness_set one = rooted(w, 3);
    struct witness_set two = one;
    struct witness_set three;
    struct witness_set set;
    struct buf link;
    struct buf fork;
    buf_init(&link, SIGNED_SET_MAX);
    buf_init(&fork, SIGNED_SET_MAX);
    make_link(w, &one, 1, 4, 3u, &link);
    assert_int_equal(advance(w, &two, &link), 0);
    three = two;
    make_link(w, &two, 1, 5, 7u, &link);
    assert_int_equal(advance(w, &three, &link), 0);

    set = one; /* a gap, though a majority of the set held signed it */
    assert_int_equal(advance(w, &set, &link), -ERR_BAD_SET);
    set = one; /* the root may leave links out */
    make_link(w, &two, 1, 5, ROOT, &link);
    assert_int_equal(advance(w, &set, &link), 0);
    assert_int_equal(set.seq, 3);
    set = three; /* what was passed already changes nothing */
    make_link(w, &one, 1, 4, 3u, &link);
    assert_int_equal(advance(w, &set, &link), 0);
    assert_memory_equal(&set, &three, sizeof set);
    set = two; /* another second set, even by the root */
    make_link(w, &one, 1, 2, ROOT | 7u, &fork);
    assert_int_equal(advance(w, &set, &fork), -ERR_BAD_SET);
    set = two; /* the right number after another one before */
    struct witness_set other = one;
    assert_int_equal(advance(w, &other, &fork), 0);
    make_link(w, &other, 1, 3, 3u, &link);
    assert_int_equal(advance(w, &set, &link), -ERR_BAD_SET);
    set = one; /* an epoch is for the root to raise */
    make_link(w, &one, 2, 3, 7u, &link);
    assert_int_equal(advance(w, &set, &link), -ERR_BAD_SET);
    make_link(w, &one, 2, 3, ROOT, &link);
    assert_int_equal(advance(w, &set, &link), 0);
    assert_int_equal(set.epoch, 2);
    make_link(w, &set, 1, 3, ROOT, &link); /* and none goes back */
    struct witness_set before = set;
    assert_int_equal(advance(w, &set, &link), 0);
    assert_memory_equal(&set, &before, sizeof set);
    w->cluster = test_uuid(9);
    assert_int_equal(advance(w, &set, &link), -ERR_WRONG_CLUSTER);
    buf_fini(&link);
    buf_fini(&fork);
}

static void test_same_member_twice_is_one_signature(void **state)
{
    struct world *w = *state;
    struct witness_set set = rooted(w, 3);
    struct buf statement;
    struct buf list;
    struct buf link;
    uint32_t count = 0;
    buf_init(&statement, AUTHORITY_SET_MAX);
    buf_init(&list, SIGNED_SET_MAX);
    buf_init(&link, SIGNED_SET_MAX);
    witness_set_build(&set, &w->cluster, 1, w->member, 4, &statement);
    uint8_t sig[PKI_SIG_BYTES];
    pki_sign(w->key[0], AUTHORITY_SET_SIGN_DOMAIN, buf_blob(&statement), sig);
    for (int i = 0; i < 3; i++) {
        /* Also under another member's name. */
        struct set_signature s = {.node_id = w->member[i == 2].node_id,
                                  .signature = blob_of(sig, sizeof sig)};
        msg_list_add(&set_signature_desc, &s, &list, &count);
    }
    msg_encode(&signed_set_desc,
               &(struct signed_set){.statement = buf_blob(&statement),
                                    .signatures = {.raw = buf_blob(&list), .count = count}},
               &link);
    assert_int_equal(advance(w, &set, &link), -ERR_BAD_SET);
    buf_fini(&statement);
    buf_fini(&list);
    buf_fini(&link);
}

static void test_malformed_sets_are_refused(void **state)
{
    struct world *w = *state;
    static const char *const what[] = {"descending", "same id", "same key", "unsound key",
                                       "version",    "short",   "empty"};
    for (size_t k = 0; k < ARRAY_SIZE(what); k++) {
        uint8_t key[2][PKI_KEY_BYTES];
        memcpy(key[0], w->member[0].public_key, PKI_KEY_BYTES);
        memcpy(key[1], w->member[1].public_key, PKI_KEY_BYTES);
        struct authority_set_member m[2] = {
            {.node_id = test_uuid(10), .public_key = blob_of(key[0], PKI_KEY_BYTES)},
            {.node_id = test_uuid(11), .public_key = blob_of(key[1], PKI_KEY_BYTES)},
        };
        struct authority_set msg = {
            .version = WITNESS_VERSION, .cluster_id = w->cluster, .epoch = 1, .seq = 1};
        if (k == 0) {
            m[0].node_id = test_uuid(12);
        } else if (k == 1) {
            m[1].node_id = test_uuid(10);
        } else if (k == 2) {
            memcpy(key[1], key[0], PKI_KEY_BYTES);
        } else if (k == 3) {
            memset(key[1], 0, PKI_KEY_BYTES);
        } else if (k == 4) {
            msg.version = 2;
        }
        struct buf list;
        struct buf statement;
        struct buf link;
        struct witness_set set = {.known = false};
        uint32_t count = 0;
        buf_init(&list, AUTHORITY_SET_MAX);
        buf_init(&statement, AUTHORITY_SET_MAX);
        buf_init(&link, SIGNED_SET_MAX);
        for (size_t i = 0; i < 2 && k != 6; i++) {
            msg_list_add(&authority_set_member_desc, &m[i], &list, &count);
        }
        msg.members = (struct mp_list){.raw = buf_blob(&list), .count = count};
        msg_encode(&authority_set_desc, &msg, &statement);
        if (k == 5) {
            statement.len--;
        }
        sign_set(w, buf_blob(&statement), ROOT, &link);
        if (advance(w, &set, &link) != -ERR_MALFORMED) {
            fail_msg("%s was not refused", what[k]);
        }
        buf_fini(&list);
        buf_fini(&statement);
        buf_fini(&link);
    }
}

/* --- statements --- */

static void make_statement(const struct world *w, const struct witness_set *set, struct buf *out)
{
    uint8_t hash[PKI_HASH_BYTES] = {3};
    struct blob h = blob_of(hash, sizeof hash);
    msg_encode(&witness_statement_desc,
               &(struct witness_statement){.version = WITNESS_VERSION,
                                           .cluster_id = w->cluster,
                                           .epoch = set->epoch,
                                           .index = 77,
                                           .root = h,
                                           .audit_seq = 5,
                                           .audit_head = h,
                                           .history = h,
                                           .set_seq = set->seq},
               out);
}

struct signing {
    unsigned who;
    int64_t at_ms[MEMBERS];
    unsigned wrong;  /* bit i: member i's signature is damaged */
    unsigned repeat; /* member 0 so many times more */
};

static int verify(const struct world *w, const struct witness_set *set, struct blob statement,
                  const struct signing *s, int64_t *ret_at_ms)
{
    struct buf list;
    uint32_t count = 0;
    struct witness got;
    struct errmsg em = ERRMSG_INIT;
    buf_init(&list, 8192);
    for (unsigned n = 0; n < MEMBERS + s->repeat; n++) {
        unsigned i = n < MEMBERS ? n : 0;
        uint8_t sig[PKI_SIG_BYTES];
        if ((s->who & 1u << i) == 0) {
            continue;
        }
        witness_sign(w->key[i], s->at_ms[i], statement, sig);
        sig[9] ^= (uint8_t)(s->wrong >> i & 1u);
        msg_list_add(&witness_signature_desc,
                     &(struct witness_signature){.node_id = w->member[i].node_id,
                                                 .signed_at_ms = s->at_ms[i],
                                                 .signature = blob_of(sig, sizeof sig)},
                     &list, &count);
    }
    int rc = witness_verify(set, &w->cluster, statement,
                            (struct mp_list){.raw = buf_blob(&list), .count = count}, &got, &em);
    assert_true((rc == 0) == (em.text[0] == '\0'));
    if (rc == 0) {
        assert_int_equal(got.statement.index, 77);
        *ret_at_ms = got.signed_at_ms;
    }
    buf_fini(&list);
    return rc;
}

static void test_majority_of_distinct_members_is_needed(void **state)
{
    struct world *w = *state;
    struct witness_set set = rooted(w, 3);
    struct buf statement;
    int64_t at_ms = 0;
    static const struct {
        struct signing s;
        int rc;
    } rows[] = {
        {{.who = 0}, -ERR_NOT_WITNESSED},
        {{.who = 1}, -ERR_NOT_WITNESSED},
        {{.who = 1, .repeat = 5}, -ERR_NOT_WITNESSED},
        {{.who = 1u | 8u | 16u}, -ERR_NOT_WITNESSED}, /* 3 and 4 are no members */
        {{.who = 3, .wrong = 2}, -ERR_NOT_WITNESSED},
        {{.who = 3}, 0},
        {{.who = 7, .wrong = 1}, 0},
        {{.who = 31}, 0},
    };
    buf_init(&statement, WITNESS_STATEMENT_MAX);
    make_statement(w, &set, &statement);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct signing s = rows[i].s;
        for (size_t k = 0; k < MEMBERS; k++) {
            s.at_ms[k] = 1;
        }
        if (verify(w, &set, buf_blob(&statement), &s, &at_ms) != rows[i].rc) {
            fail_msg("row %zu", i);
        }
    }
    buf_fini(&statement);
}

/* A thief who can date a signature as he likes does not make a statement younger. */
static void test_age_is_that_of_the_newest_majority(void **state)
{
    struct world *w = *state;
    struct witness_set set = rooted(w, 5);
    struct buf statement;
    int64_t at_ms = 0;
    buf_init(&statement, WITNESS_STATEMENT_MAX);
    make_statement(w, &set, &statement);
    struct signing s = {.who = 31, .at_ms = {10, 20, 30, 40, INT64_MAX}};
    assert_int_equal(verify(w, &set, buf_blob(&statement), &s, &at_ms), 0);
    assert_int_equal(at_ms, 30);
    s.who = 19; /* 10, 20 and the far future */
    assert_int_equal(verify(w, &set, buf_blob(&statement), &s, &at_ms), 0);
    assert_int_equal(at_ms, 10);
    buf_fini(&statement);
}

static void test_statement_of_another_set_epoch_or_cluster_is_refused(void **state)
{
    struct world *w = *state;
    struct witness_set set = rooted(w, 3);
    struct buf statement;
    struct signing s = {.who = 7, .at_ms = {1, 1, 1}};
    int64_t at_ms;
    for (int k = 0; k < 4; k++) {
        struct witness_set other = set;
        other.seq += k == 0;
        other.epoch += k == 1;
        buf_init(&statement, WITNESS_STATEMENT_MAX);
        struct uuid cluster = w->cluster;
        w->cluster = k == 2 ? test_uuid(8) : cluster;
        make_statement(w, &other, &statement);
        w->cluster = cluster;
        if (k == 3) {
            statement.len--;
        }
        assert_int_equal(verify(w, &set, buf_blob(&statement), &s, &at_ms),
                         k < 2    ? -ERR_NOT_WITNESSED
                         : k == 2 ? -ERR_WRONG_CLUSTER
                                  : -ERR_MALFORMED);
        buf_fini(&statement);
    }
    struct witness_set none = {.known = false};
    buf_init(&statement, WITNESS_STATEMENT_MAX);
    make_statement(w, &set, &statement);
    assert_int_equal(verify(w, &none, buf_blob(&statement), &s, &at_ms), -ERR_NOT_WITNESSED);
    buf_fini(&statement);
}

/* --- the two parts of a snapshot --- */

static void part(const struct snapshot_body *b, enum witness_part p, uint8_t ret[PKI_HASH_BYTES])
{
    struct buf bytes;
    buf_init(&bytes, 8192);
    msg_encode(&snapshot_body_desc, b, &bytes);
    assert_int_equal(witness_part_hash(buf_blob(&bytes), p, ret), 0);
    buf_fini(&bytes);
}

/* Every field of a snapshot is in exactly one part, but for its times and positions. */
static void test_each_field_of_a_snapshot_is_in_one_part(void **state)
{
    (void)state;
    static const uint8_t fix[PKI_HASH_BYTES] = {1};
    static const uint8_t one_item[] = {0xa1, 'x'};
    uint8_t cluster[PKI_HASH_BYTES];
    uint8_t node[PKI_HASH_BYTES];
    struct snapshot_body empty = {.schema = 1};
    part(&empty, WITNESS_CLUSTER_PART, cluster);
    part(&empty, WITNESS_NODE_PART, node);
    for (size_t i = 1; i < snapshot_body_desc.count; i++) {
        const struct msg_field *f = &snapshot_body_desc.fields[i];
        struct snapshot_body b = empty;
        uint8_t c[PKI_HASH_BYTES];
        uint8_t n[PKI_HASH_BYTES];
        void *at = (char *)&b + f->offset;
        switch ((enum msg_type)f->type) {
            case MSG_U64:
            case MSG_I64:
                *(uint64_t *)at = 5;
                break;
            case MSG_FLAG:
                *(bool *)at = true;
                break;
            case MSG_STR:
            case MSG_BIN:
                *(struct blob *)at = blob_str("x");
                break;
            case MSG_FIX:
                *(struct blob *)at = blob_of(fix, f->max);
                break;
            case MSG_ID:
                *(struct uuid *)at = test_uuid(4);
                break;
            case MSG_LIST:
                *(struct mp_list *)at = (struct mp_list){.raw = blob_of(one_item, sizeof one_item),
                                                         .count = 1};
                break;
        }
        part(&b, WITNESS_CLUSTER_PART, c);
        part(&b, WITNESS_NODE_PART, n);
        bool in_cluster = memcmp(c, cluster, sizeof c) != 0;
        bool in_node = memcmp(n, node, sizeof n) != 0;
        bool position = (f->key >= 4 && f->key <= 7) || f->key == 13 || f->key == 14 ||
                        f->key == 30;
        if (in_cluster + in_node != !position) {
            fail_msg("%s is in %d parts", f->name, in_cluster + in_node);
        }
    }
}

static void test_field_of_a_later_version_counts(void **state)
{
    (void)state;
    static const struct {
        uint8_t body[5];
        bool cluster, node;
    } rows[] = {
        {{0x82, 0x01, 0x01, 0x32, 0x07}, false, true}, /* key 50 */
        {{0x82, 0x01, 0x01, 0x40, 0x07}, true, false}, /* key 64 */
        {{0x82, 0x01, 0x01, 0x7f, 0x07}, true, false}, /* key 127 */
    };
    static const uint8_t plain[] = {0x81, 0x01, 0x01};
    static const uint8_t far_key[] = {0x82, 0x01, 0x01, 0xcc, 0x80, 0x07}; /* key 128 */
    uint8_t base[2][PKI_HASH_BYTES];
    uint8_t got[PKI_HASH_BYTES];
    for (int p = 0; p < 2; p++) {
        assert_int_equal(
            witness_part_hash(blob_of(plain, sizeof plain), (enum witness_part)p, base[p]), 0);
        assert_int_equal(
            witness_part_hash(blob_of(far_key, sizeof far_key), (enum witness_part)p, got), 0);
        assert_memory_equal(got, base[p], sizeof got);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
            assert_int_equal(witness_part_hash(blob_of(rows[i].body, 5), (enum witness_part)p, got),
                             0);
            bool changed = memcmp(got, base[p], sizeof got) != 0;
            assert_int_equal(changed, p == WITNESS_CLUSTER_PART ? rows[i].cluster : rows[i].node);
        }
    }
    static const uint8_t negative[] = {0x81, 0xff, 0x01};
    assert_int_equal(witness_part_hash(blob_of(negative, 3), WITNESS_NODE_PART, got),
                     -ERR_MALFORMED);
    assert_int_equal(witness_part_hash(blob_of(plain, 2), WITNESS_NODE_PART, got), -ERR_MALFORMED);
    assert_int_equal(witness_part_hash(blob_of(NULL, 0), WITNESS_NODE_PART, got), -ERR_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_chain_begins_with_the_root_and_goes_on_by_majority,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_links_that_do_not_follow_are_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_same_member_twice_is_one_signature, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_malformed_sets_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_majority_of_distinct_members_is_needed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_age_is_that_of_the_newest_majority, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_statement_of_another_set_epoch_or_cluster_is_refused,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_each_field_of_a_snapshot_is_in_one_part, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_field_of_a_later_version_counts, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
