/* What one authority alone cannot make a node believe (DESIGN D16, SPEC SNAP-01, AUD-02, S16, S17). */
#include "lib/fake_witness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SEEN 40 /* events of the audit that the node saw before */

struct fixture {
    struct fake_cluster cluster, foreign;
    struct fake_node members[FAKE_MEMBERS], stranger;
    struct uuid node_id;
    struct fake_snapshot s, decided;
    struct fake_witness w, foreign_w;
    struct config_expect expect;
    struct set_pin pin;
    struct buf bytes;
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    uint8_t own[PKI_HASH_BYTES] = {42};
    const struct fake_node *members[FAKE_MEMBERS];
    fake_cluster_init(&f->cluster, FAKE_NOW_MS);
    fake_cluster_init_as(&f->foreign, &f->cluster.id, FAKE_NOW_MS); /* the same id, another root */
    for (size_t i = 0; i < FAKE_MEMBERS; i++) {
        fake_node_init(&f->members[i], &f->cluster, true, FAKE_NOW_MS);
        members[i] = &f->members[i];
    }
    fake_node_init(&f->stranger, &f->cluster, true, FAKE_NOW_MS);
    f->node_id = uuid_new();
    fake_snapshot_init(&f->s, &f->cluster, &f->members[0], &f->node_id, 10, FAKE_NOW_MS);
    fake_witness_init(&f->w, &f->cluster, members, own, FAKE_NOW_MS);
    fake_witness_init(&f->foreign_w, &f->foreign, members, own, FAKE_NOW_MS);
    f->w.history_from = SEEN;
    f->expect = (struct config_expect){
        .trust = f->cluster.trust,
        .cluster_id = f->cluster.id,
        .node_id = f->node_id,
        .now_ms = FAKE_NOW_MS + 1000,
        .epoch = 1,
        .version = 5,
        .set = &f->w.set,
        .audit_seq = SEEN,
    };
    memcpy(f->expect.fingerprint, own, sizeof own);
    history_root(&f->w.history, SEEN, f->expect.history);
    buf_init(&f->bytes, CONFIG_SIGNED_MAX);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    buf_fini(&f->bytes);
    for (size_t i = 0; i < FAKE_MEMBERS; i++) {
        fake_node_fini(&f->members[i]);
    }
    fake_node_fini(&f->stranger);
    fake_witness_fini(&f->w);
    fake_witness_fini(&f->foreign_w);
    fake_cluster_fini(&f->cluster);
    fake_cluster_fini(&f->foreign);
    free(f);
    return 0;
}

static int verify(struct fixture *f, struct config **ret)
{
    struct config *c = NULL;
    struct errmsg em = ERRMSG_INIT;
    if (f->bytes.len == 0) {
        fake_witness_sign(&f->w, &f->s, &f->bytes);
    }
    int rc = config_verify(buf_blob(&f->bytes), &f->expect, &c, &em);
    assert_true((rc == 0) == (c != NULL));
    assert_true((rc == 0) == (em.text[0] == '\0'));
    if (ret != NULL) {
        *ret = c;
    } else {
        config_free(c);
    }
    return rc;
}

/* --- one change to what is good, and what comes of it --- */

static void nothing(struct fixture *f)
{
    (void)f;
}
static void without_witness(struct fixture *f)
{
    fake_sign(&f->s, &f->bytes);
}
static void one_signature(struct fixture *f)
{
    f->w.who = 1;
}
static void nobody(struct fixture *f)
{
    f->w.who = 0;
}
static void strangers_sign(struct fixture *f)
{
    f->w.members[1] = f->w.members[2] = &f->stranger;
    f->w.who = 7;
}
static void role_given(struct fixture *f)
{
    f->decided = f->s;
    f->w.decided = &f->decided;
    f->s.roles[0] = "relay-node";
}
static void role_taken(struct fixture *f)
{
    f->decided = f->s;
    f->decided.roles[0] = "relay-node";
    f->w.decided = &f->decided;
}
static void other_authorities(struct fixture *f)
{
    f->decided = f->s;
    f->w.decided = &f->decided;
    f->s.second = &f->stranger;
}
static void bans_left_out(struct fixture *f)
{
    f->decided = f->s;
    f->decided.revoked[0] = f->stranger.fingerprint;
    f->w.decided = &f->decided;
}
static void for_another_node(struct fixture *f)
{
    f->decided = f->s;
    f->decided.node_id = uuid_new();
    f->w.decided = &f->decided;
    f->w.no_node_path = true;
}
static void for_another_key(struct fixture *f)
{
    f->expect.fingerprint[0] ^= 1;
}
static void other_root(struct fixture *f)
{
    f->w.other_root = true;
}
static void no_cluster_path(struct fixture *f)
{
    f->w.no_cluster_path = true;
}
static void version_raised(struct fixture *f)
{
    f->w.index = f->s.version;
    f->s.version += 100;
}
static void version_lowered(struct fixture *f)
{
    f->w.index = f->s.version;
    f->s.version -= 1;
}
static void epoch_raised(struct fixture *f)
{
    f->w.epoch = 1;
    f->s.epoch = 2;
}
static void epoch_raised_by_a_majority(struct fixture *f)
{
    f->s.epoch = 2;
}
static void audit_of_another(struct fixture *f)
{
    f->w.audit_seq = 99;
}
static void older_set(struct fixture *f)
{
    f->w.set_seq = 7;
}
static void lives_too_long(struct fixture *f)
{
    f->s.expires_at_ms++;
}
static void signatures_too_old(struct fixture *f)
{
    f->w.signed_at_ms -= SNAPSHOT_LIFE_MS / 2;
}
static void set_of_another_root(struct fixture *f)
{
    f->expect.set = NULL;
    buf_clear(&f->w.link);
    buf_add(&f->w.link, f->foreign_w.link.data, f->foreign_w.link.len);
}
static void set_of_another_root_beside_ours(struct fixture *f)
{
    /* Same seq, other statement: even a majority of our members signs below it. */
    f->w.members[2] = &f->stranger;
    const struct fake_node *m[FAKE_MEMBERS] = {&f->members[0], &f->stranger, &f->members[1]};
    struct fake_witness other;
    fake_witness_init(&other, &f->foreign, m, f->expect.fingerprint, FAKE_NOW_MS);
    buf_clear(&f->w.link);
    buf_add(&f->w.link, other.link.data, other.link.len);
    fake_witness_fini(&other);
}
static void no_root_known(struct fixture *f)
{
    f->expect.set = NULL;
    f->w.show_link = false;
}
static void garbage(struct fixture *f)
{
    f->w.garbage = true;
}
static void shorter_history(struct fixture *f)
{
    f->s.audit_seq = SEEN - 1;
    f->w.history_from = 0;
}
static void rewritten_history(struct fixture *f)
{
    f->expect.history[7] ^= 1;
}
static void rewritten_last_event(struct fixture *f)
{
    f->s.audit_seq = SEEN;
    f->expect.history[7] ^= 1;
}
static void proof_for_another(struct fixture *f)
{
    f->w.history_from = SEEN - 3;
}
static void no_proof(struct fixture *f)
{
    f->w.history_from = 0;
}

/* A host that joins knows no set, but its token names one. */
static void joins_with_a_token(struct fixture *f)
{
    f->expect.set = NULL;
    f->expect.audit_seq = 0;
    f->w.show_link = true;
    f->w.history_from = 0;
    f->pin = (struct set_pin){.epoch = f->w.set.epoch, .seq = f->w.set.seq};
    memcpy(f->pin.hash, f->w.set.hash, sizeof f->pin.hash);
    f->expect.pin = &f->pin;
}
static void joins_and_sees_an_older_set(struct fixture *f)
{
    joins_with_a_token(f);
    f->pin.seq++;
}
static void joins_and_sees_a_fork(struct fixture *f)
{
    joins_with_a_token(f);
    f->pin.hash[0] ^= 1;
}
static void joins_with_a_token_from_before(struct fixture *f)
{
    joins_with_a_token(f);
    f->pin.epoch--;
    f->pin.hash[0] ^= 1;
}
static void joins_and_sees_no_set(struct fixture *f)
{
    joins_with_a_token(f);
    fake_sign(&f->s, &f->bytes);
}

static const struct {
    const char *name;
    void (*change)(struct fixture *f);
    int rc;
} rows[] = {
    {"joining, the set of the token", joins_with_a_token, 0},
    {"joining, a later epoch than the token's", joins_with_a_token_from_before, 0},
    {"joining, an older set than the token's", joins_and_sees_an_older_set, -ERR_BAD_SET},
    {"joining, a fork of the chain", joins_and_sees_a_fork, -ERR_BAD_SET},
    {"joining, no set at all", joins_and_sees_no_set, -ERR_NOT_WITNESSED},
    {"as it is", nothing, 0},
    {"without a witness", without_witness, -ERR_NOT_WITNESSED},
    {"one signature of three", one_signature, -ERR_NOT_WITNESSED},
    {"nobody's signature", nobody, -ERR_MALFORMED},
    {"signatures of strangers", strangers_sign, -ERR_NOT_WITNESSED},
    {"a role nobody decided", role_given, -ERR_BAD_PROOF},
    {"a role left out", role_taken, -ERR_BAD_PROOF},
    {"another list of authorities", other_authorities, -ERR_BAD_PROOF},
    {"a ban left out", bans_left_out, -ERR_BAD_PROOF},
    {"made from another node's", for_another_node, -ERR_BAD_PROOF},
    {"for another key of this node", for_another_key, -ERR_BAD_PROOF},
    {"another root", other_root, -ERR_BAD_PROOF},
    {"no path for the cluster's part", no_cluster_path, -ERR_BAD_PROOF},
    {"a later version than was signed", version_raised, -ERR_BAD_PROOF},
    {"an earlier version than was signed", version_lowered, -ERR_BAD_PROOF},
    {"a later epoch than was signed", epoch_raised, -ERR_BAD_PROOF},
    {"a later epoch than the root's", epoch_raised_by_a_majority, -ERR_NOT_WITNESSED},
    {"another position of the audit", audit_of_another, -ERR_BAD_PROOF},
    {"of another set", older_set, -ERR_NOT_WITNESSED},
    {"outliving its signatures", lives_too_long, -ERR_NOT_WITNESSED},
    {"reissued with old signatures", signatures_too_old, -ERR_NOT_WITNESSED},
    {"a first set by another root", set_of_another_root, -ERR_BAD_SET},
    {"another set by another root", set_of_another_root_beside_ours, -ERR_BAD_SET},
    {"no set held and none shown", no_root_known, -ERR_NOT_WITNESSED},
    {"a witness that does not decode", garbage, -ERR_MALFORMED},
    {"a shorter audit", shorter_history, -ERR_HISTORY},
    {"a rewritten audit", rewritten_history, -ERR_HISTORY},
    {"a rewritten last event", rewritten_last_event, -ERR_HISTORY},
    {"a proof from elsewhere", proof_for_another, -ERR_ROLLBACK},
    {"no proof", no_proof, -ERR_ROLLBACK},
};

static void test_every_forgery_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        void *one;
        setup(&one);
        struct fixture *f = one;
        rows[i].change(f);
        int rc = verify(f, NULL);
        if (rc != rows[i].rc) {
            fail_msg("%s: %s, not %s", rows[i].name, err_slug(rc), err_slug(rows[i].rc));
        }
        teardown(&one);
    }
}

static void test_first_set_is_learnt_and_kept(void **state)
{
    struct fixture *f = *state;
    struct config *c;
    struct witness_set stored;
    f->expect.set = NULL;
    f->expect.audit_seq = 0;
    f->w.history_from = 0;
    assert_int_equal(verify(f, &c), 0);
    assert_true(c->witnessed);
    assert_int_equal(c->set.seq, 1);
    assert_int_equal(c->witness.statement.audit_seq, 100);
    /* What goes into node.db brings the same set back. */
    assert_int_equal(witness_set_read(c->set_statement, &stored, NULL), 0);
    assert_memory_equal(&stored, &f->w.set, sizeof stored);
    config_free(c);
    f->expect.set = &f->w.set;
    assert_int_equal(verify(f, &c), 0);
    assert_int_equal(c->set_statement.len, 0); /* nothing new to store */
    config_free(c);
}

/* A cluster from before there were authority sets; and one that has them may not go back. */
static void test_without_a_set_one_authority_suffices_as_before(void **state)
{
    struct fixture *f = *state;
    struct config *c;
    struct witness_set none = {.known = false};
    f->expect.set = &none;
    fake_sign(&f->s, &f->bytes);
    assert_int_equal(verify(f, &c), 0);
    assert_false(c->witnessed || c->set.known);
    config_free(c);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_forgery_is_refused),
        T(test_first_set_is_learnt_and_kept),
        T(test_without_a_set_one_authority_suffices_as_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
