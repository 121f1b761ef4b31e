/* Every refusal of SPEC SNAP-01, invariants S9, S17, S21. */
#include "agent/config.h"
#include "lib/fake_cluster.h"
#include "pki/statement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct fixture {
    struct fake_cluster cluster;
    struct fake_cluster foreign;
    struct fake_node authority, other_authority, plain, stranger;
    struct uuid node_id;
    struct fake_snapshot s;
    struct config_expect expect;
    struct buf bytes;
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    fake_cluster_init(&f->cluster, FAKE_NOW_MS);
    fake_cluster_init(&f->foreign, FAKE_NOW_MS);
    fake_node_init(&f->authority, &f->cluster, true, FAKE_NOW_MS);
    fake_node_init(&f->other_authority, &f->cluster, true, FAKE_NOW_MS);
    fake_node_init(&f->plain, &f->cluster, false, FAKE_NOW_MS);
    fake_node_init(&f->stranger, &f->foreign, true, FAKE_NOW_MS);
    f->node_id = uuid_new();
    fake_snapshot_init(&f->s, &f->cluster, &f->authority, &f->node_id, 10, FAKE_NOW_MS);
    f->expect = (struct config_expect){
        .trust = f->cluster.trust,
        .cluster_id = f->cluster.id,
        .node_id = f->node_id,
        .now_ms = FAKE_NOW_MS + 1000,
    };
    buf_init(&f->bytes, CONFIG_SIGNED_MAX);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    buf_fini(&f->bytes);
    fake_node_fini(&f->authority);
    fake_node_fini(&f->other_authority);
    fake_node_fini(&f->plain);
    fake_node_fini(&f->stranger);
    fake_cluster_fini(&f->cluster);
    fake_cluster_fini(&f->foreign);
    free(f);
    return 0;
}

static int verify_bytes(struct fixture *f)
{
    struct config *c = NULL;
    struct errmsg em = ERRMSG_INIT;
    int rc = config_verify(buf_blob(&f->bytes), &f->expect, &c, &em);
    assert_true((rc == 0) == (c != NULL));
    assert_true((rc == 0) == (em.text[0] == '\0'));
    config_free(c);
    return rc;
}

static int verify(struct fixture *f)
{
    buf_clear(&f->bytes);
    fake_sign(&f->s, &f->bytes);
    return verify_bytes(f);
}

static void test_good_snapshot_accepted_and_readable(void **state)
{
    struct fixture *f = *state;
    struct config *c;
    f->s.roles[0] = "relay-node";
    f->s.scopes[1] = "relay-node";
    f->s.revoked[0] = f->plain.fingerprint;
    f->s.retired[0] = f->other_authority.issuer_fingerprint;
    fake_sign(&f->s, &f->bytes);
    assert_int_equal(config_verify(buf_blob(&f->bytes), &f->expect, &c, NULL), 0);
    assert_int_equal(c->body.config_version, 10);
    assert_true(uuid_equal(&c->signer.node_id, &f->authority.id));
    assert_true(config_has_role(c, "relay-node"));
    assert_false(config_has_role(c, "relay"));
    assert_true(config_revokes(c, f->plain.fingerprint));
    assert_false(config_revokes(c, f->authority.fingerprint));
    assert_true(config_retires(c, f->other_authority.issuer_fingerprint));
    assert_false(config_retires(c, f->plain.fingerprint));
    config_free(c);
}

/* One change to a good snapshot or to what is expected, and what comes of it. */
struct refusal {
    const char *name;
    void (*change)(struct fixture *f);
    int rc;
};

static void wrong_cluster_body(struct fixture *f)
{
    f->s.cluster_id = f->foreign.id;
}
static void wrong_node(struct fixture *f)
{
    f->s.node_id = uuid_new();
}
static void foreign_signer(struct fixture *f)
{
    f->s.signer = &f->stranger;
}
static void plain_signer(struct fixture *f)
{
    f->s.signer = &f->plain;
}
static void unlisted_signer(struct fixture *f)
{
    f->s.unlisted = true;
    f->s.second = &f->other_authority;
}
static void same_version(struct fixture *f)
{
    f->expect.epoch = 1;
    f->expect.version = 10;
}
static void older_version(struct fixture *f)
{
    f->expect.epoch = 1;
    f->expect.version = 11;
}
static void older_epoch(struct fixture *f)
{
    f->expect.epoch = 2;
    f->expect.version = 1;
}
static void expired(struct fixture *f)
{
    f->expect.now_ms = f->s.expires_at_ms;
}
static void unknown_schema(struct fixture *f)
{
    f->s.schema = SNAPSHOT_SCHEMA + 1;
}
static void no_scope(struct fixture *f)
{
    f->s.scopes[0] = NULL;
}
static void scope_of_a_role_not_held(struct fixture *f)
{
    f->s.scopes[1] = "entry-node";
}
static void authority_scope_for_plain_node(struct fixture *f)
{
    f->s.scopes[1] = "authority";
}
static void role_scope_without_node_scope(struct fixture *f)
{
    f->s.roles[0] = "relay-node";
    f->s.scopes[0] = "relay-node";
}
static void signer_banned(struct fixture *f)
{
    pki_trust_ban(f->cluster.trust, f->authority.fingerprint);
}
static void signers_ca_banned(struct fixture *f)
{
    pki_trust_ban(f->cluster.trust, f->authority.issuer_fingerprint);
}
static void revokes_own_signer(struct fixture *f)
{
    f->s.revoked[0] = f->authority.fingerprint;
}
static void retires_own_signers_ca(struct fixture *f)
{
    f->s.retired[0] = f->authority.issuer_fingerprint;
}
static void signers_ca_retired_before(struct fixture *f)
{
    pki_trust_retire(f->cluster.trust, f->authority.issuer_fingerprint);
}
static void expires_before_issued(struct fixture *f)
{
    f->s.expires_at_ms = f->s.issued_at_ms;
}
static void version_beyond_store(struct fixture *f)
{
    f->s.version = (uint64_t)INT64_MAX + 1;
}
static void chain_not_yet_valid(struct fixture *f)
{
    f->expect.now_ms = FAKE_NOW_MS - PKI_BACKDATE_MS - 5000;
}
static void chain_expired(struct fixture *f)
{
    f->s.expires_at_ms = FAKE_NOW_MS + 2 * PKI_LEAF_LIFE_MS;
    f->expect.now_ms = FAKE_NOW_MS + PKI_LEAF_LIFE_MS + 5000;
}
static void other_trust(struct fixture *f)
{
    /* Same cluster id, another root: what a forger with a copy of our ids could make. */
    struct pki_key *key = pki_key_generate();
    struct pki_cert spec = {.kind = PKI_ROOT,
                            .cluster_id = f->cluster.id,
                            .serial = {0x40},
                            .not_before_ms = FAKE_NOW_MS - PKI_BACKDATE_MS,
                            .not_after_ms = FAKE_NOW_MS + PKI_ROOT_LIFE_MS};
    struct buf der;
    buf_init(&der, CERT_DER_MAX);
    pki_key_public(key, spec.public_key);
    assert_int_equal(pki_cert_issue(&spec, key, blob_of(NULL, 0), &der, NULL), 0);
    assert_int_equal(pki_trust_set_root(f->cluster.trust, buf_blob(&der), NULL), 0);
    buf_fini(&der);
    pki_key_free(key);
}

static void test_each_refusal_has_its_own_error(void **state)
{
    static const struct refusal table[] = {
        {"wrong cluster", wrong_cluster_body, -ERR_WRONG_CLUSTER},
        {"signed in another cluster", foreign_signer, -ERR_WRONG_CLUSTER},
        {"wrong node", wrong_node, -ERR_WRONG_NODE},
        {"signed by an ordinary node", plain_signer, -ERR_NOT_AUTHORITY},
        {"signer not listed", unlisted_signer, -ERR_NOT_AUTHORITY},
        {"equal version", same_version, -ERR_ROLLBACK},
        {"older version", older_version, -ERR_ROLLBACK},
        {"older epoch", older_epoch, -ERR_ROLLBACK},
        {"expired to the millisecond", expired, -ERR_EXPIRED},
        {"unknown schema", unknown_schema, -ERR_SCHEMA},
        {"no scope", no_scope, -ERR_SCOPE},
        {"scope of a role not held", scope_of_a_role_not_held, -ERR_SCOPE},
        {"authority scope", authority_scope_for_plain_node, -ERR_SCOPE},
        {"no node scope", role_scope_without_node_scope, -ERR_SCOPE},
        {"signer banned", signer_banned, -ERR_REVOKED},
        {"signer's CA banned", signers_ca_banned, -ERR_REVOKED},
        {"revokes its own signer", revokes_own_signer, -ERR_REVOKED},
        {"retires its own signer's CA", retires_own_signers_ca, -ERR_REVOKED},
        {"signer's CA retired before", signers_ca_retired_before, -ERR_REVOKED},
        {"expires before issued", expires_before_issued, -ERR_MALFORMED},
        {"version 2^63", version_beyond_store, -ERR_MALFORMED},
        {"chain not valid yet", chain_not_yet_valid, -ERR_CERT_EXPIRED},
        {"chain expired", chain_expired, -ERR_CERT_EXPIRED},
        {"not our root", other_trust, -ERR_BAD_CERT},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        void *fresh;
        (void)setup(&fresh);
        struct fixture *f = fresh;
        assert_int_equal(verify(f), 0); /* only the change makes the difference */
        table[i].change(f);
        int rc = verify(f);
        if (rc != table[i].rc) {
            fail_msg("%s: got %s, expected %s", table[i].name, err_slug(rc), err_slug(table[i].rc));
        }
        (void)teardown(&fresh);
    }
}

static void test_signature_for_another_purpose_refused(void **state)
{
    struct fixture *f = *state;
    struct buf body;
    struct buf sigs;
    uint32_t count = 0;
    buf_init(&body, SNAPSHOT_MAX_BYTES);
    buf_init(&sigs, SNAPSHOT_MAX_BYTES);
    fake_body(&f->s, &body);
    fake_signature(&f->authority, "rap-something-else", buf_blob(&body), &sigs, &count);
    fake_signed(buf_blob(&body), buf_blob(&sigs), count, &f->bytes);
    assert_int_equal(verify_bytes(f), -ERR_BAD_SIGNATURE);
    buf_fini(&sigs);
    buf_fini(&body);
}

/* The list of DESIGN D16: one good signature is enough, whatever stands before it. */
static void test_invalid_signature_ignored_beside_valid_one(void **state)
{
    struct fixture *f = *state;
    struct buf body;
    struct buf sigs;
    uint32_t count = 0;
    buf_init(&body, SNAPSHOT_MAX_BYTES);
    buf_init(&sigs, SNAPSHOT_MAX_BYTES);
    fake_body(&f->s, &body);
    fake_signature(&f->plain, SNAPSHOT_SIGN_DOMAIN, buf_blob(&body), &sigs, &count);
    fake_signed(buf_blob(&body), buf_blob(&sigs), count, &f->bytes);
    assert_int_equal(verify_bytes(f), -ERR_NOT_AUTHORITY);

    fake_signature(&f->authority, SNAPSHOT_SIGN_DOMAIN, buf_blob(&body), &sigs, &count);
    buf_clear(&f->bytes);
    fake_signed(buf_blob(&body), buf_blob(&sigs), count, &f->bytes);
    assert_int_equal(verify_bytes(f), 0);
    buf_fini(&sigs);
    buf_fini(&body);
}

static void test_every_flipped_byte_refused(void **state)
{
    struct fixture *f = *state;
    fake_sign(&f->s, &f->bytes);
    for (size_t i = 0; i < f->bytes.len; i++) {
        f->bytes.data[i] ^= 0x01;
        assert_int_not_equal(verify_bytes(f), 0);
        f->bytes.data[i] ^= 0x01;
    }
    assert_int_equal(verify_bytes(f), 0);
}

static void test_every_truncation_is_malformed(void **state)
{
    struct fixture *f = *state;
    fake_sign(&f->s, &f->bytes);
    size_t whole = f->bytes.len;
    for (size_t len = 0; len < whole; len++) {
        f->bytes.len = len;
        assert_int_equal(verify_bytes(f), -ERR_MALFORMED);
    }
    f->bytes.len = whole;
}

static void test_over_long_input_refused(void **state)
{
    struct fixture *f = *state;
    struct config *c;
    uint8_t *big = xcalloc(1, CONFIG_SIGNED_MAX + 1);
    assert_int_equal(config_verify(blob_of(big, CONFIG_SIGNED_MAX + 1), &f->expect, &c, NULL),
                     -ERR_TOO_LARGE);
    free(big);
}

/* DESIGN section 6: refreshed at half life; S17: nothing else may come under the same version. */
static void test_refresh_of_equal_version_accepted_only_when_it_says_the_same(void **state)
{
    struct fixture *f = *state;
    struct config *held;
    fake_sign(&f->s, &f->bytes);
    assert_int_equal(config_verify(buf_blob(&f->bytes), &f->expect, &held, NULL), 0);
    f->expect.epoch = 1;
    f->expect.version = 10;
    f->expect.held = held;
    assert_int_equal(verify(f), -ERR_ROLLBACK); /* the very same again */
    f->s.issued_at_ms += 1000;
    f->s.expires_at_ms += 1000;
    assert_int_equal(verify(f), 0);
    f->s.revoked[0] = f->plain.fingerprint;
    assert_int_equal(verify(f), -ERR_ROLLBACK);
    config_free(held);
}

static void test_stored_snapshot_accepted_again_also_after_expiry(void **state)
{
    struct fixture *f = *state;
    f->expect.epoch = 1;
    f->expect.version = 10;
    f->expect.again = true;
    assert_int_equal(verify(f), 0);
    f->expect.now_ms = FAKE_NOW_MS + 3 * PKI_LEAF_LIFE_MS; /* signer's certificate is over, too */
    assert_int_equal(verify(f), -ERR_CERT_EXPIRED);
    f->expect.allow_expired = true;
    assert_int_equal(verify(f), 0);
    f->expect.version = 11;
    assert_int_equal(verify(f), -ERR_ROLLBACK);
}

/* DESIGN section 7: a higher epoch is believed by the owner's statement, not by the number. */
static int verify_in_epoch(struct fixture *f, uint64_t epoch, uint64_t stated,
                           const struct pki_key *signer, const struct uuid *cluster_id)
{
    static const uint8_t digest[32] = {1};
    struct buf voters;
    struct buf bytes;
    struct mp_writer w;
    buf_init(&voters, 64);
    buf_init(&bytes, SIGNED_RECOVERY_MAX);
    mp_writer_init(&w, &voters);
    mp_put_uuid(&w, &f->authority.id);
    const struct recovery_statement s = {
        .version = 1,
        .cluster_id = *cluster_id,
        .epoch = stated,
        .kind = RECOVERY_RECOVER,
        .base_index = 9,
        .base_term = 2,
        .base_digest = blob_of(digest, sizeof digest),
        .voters = {.raw = buf_blob(&voters), .count = 1},
        .time_ms = FAKE_NOW_MS,
    };
    assert_int_equal(statement_sign(signer, &s, &bytes), 0);
    f->s.epoch = epoch;
    f->s.recovery = buf_blob(&bytes);
    int rc = verify(f);
    f->s.recovery = blob_of(NULL, 0);
    buf_fini(&voters);
    buf_fini(&bytes);
    return rc;
}

static void test_higher_epoch_needs_the_owners_statement(void **state)
{
    struct fixture *f = *state;
    const struct pki_key *root = f->cluster.root_key;
    f->s.epoch = 2;
    assert_int_equal(verify(f), -ERR_BAD_SIGNATURE);
    assert_int_equal(verify_in_epoch(f, 2, 2, f->foreign.root_key, &f->cluster.id),
                     -ERR_BAD_SIGNATURE);
    assert_int_equal(verify_in_epoch(f, 2, 3, root, &f->cluster.id), -ERR_BAD_SIGNATURE);
    assert_int_equal(verify_in_epoch(f, 2, 2, root, &f->foreign.id), -ERR_WRONG_CLUSTER);
    assert_int_equal(verify_in_epoch(f, 2, 2, root, &f->cluster.id), 0);
    /* What was held in the epoch before is older, whatever its version. */
    f->expect.epoch = 1;
    f->expect.version = 1000;
    assert_int_equal(verify_in_epoch(f, 2, 2, root, &f->cluster.id), 0);
    f->expect.epoch = 3;
    f->expect.version = 1;
    assert_int_equal(verify_in_epoch(f, 2, 2, root, &f->cluster.id), -ERR_ROLLBACK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_good_snapshot_accepted_and_readable, setup, teardown),
        cmocka_unit_test(test_each_refusal_has_its_own_error),
        cmocka_unit_test_setup_teardown(test_signature_for_another_purpose_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_invalid_signature_ignored_beside_valid_one, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_every_flipped_byte_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_truncation_is_malformed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_over_long_input_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_refresh_of_equal_version_accepted_only_when_it_says_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(test_higher_epoch_needs_the_owners_statement, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_stored_snapshot_accepted_again_also_after_expiry,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
