/* The tree and the chain of authority sets in the replicated state (decision 0008). */
#include "authority/fsm_cut.h"
#include "base/text.h"

#include "lib/fsm_fixture.h"
#include "lib/pki_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct fix {
    struct fsm_world w;
    struct test_ca ca;
    struct pki_key *key; /* of the one authority */
    struct witness_member self;
    uint8_t root_key[PKI_KEY_BYTES];
};

/* A cluster like any other, but with a root and an authority that can sign. */
static int set_up(void **state)
{
    struct fix *x = xcalloc(1, sizeof *x);
    struct pki_cert root;
    struct buf cert;
    uint8_t serial[16] = {1};
    uint8_t issuer[32];
    char issuer_der[32];
    fsm_world_init_empty(&x->w);
    test_ca_init(&x->ca, 1, 2);
    assert_int_equal(pki_cert_parse(buf_blob(&x->ca.root_der), &root, NULL), 0);
    memcpy(x->root_key, root.public_key, sizeof x->root_key);
    x->key = pki_key_generate();
    x->self.node_id = x->ca.authority_id;
    pki_key_public(x->key, x->self.public_key);
    pki_fingerprint(x->self.public_key, x->self.fingerprint);
    fsm_fake_issuer_fingerprint(1, issuer);
    buf_init(&cert, CMD_CERT_MAX);
    msg_encode(&cmd_cert_desc,
               &(struct cmd_cert){.der = blob_str("leaf"),
                                  .serial = blob_of(serial, sizeof serial),
                                  .not_before_ms = FSM_T0,
                                  .not_after_ms = FSM_T0 + PKI_LEAF_LIFE_MS,
                                  .public_key = blob_of(x->self.public_key, 32),
                                  .fingerprint = blob_of(x->self.fingerprint, 32),
                                  .issuer_der = fsm_fake_issuer(1, issuer_der)},
               &cert);
    struct cmd c = fsm_envelope(&x->w, CMD_CLUSTER_INIT);
    c.actor_kind = blob_str(ACTOR_OWNER);
    assert_int_equal(fsm_do_cmd(&x->w, c,
                                &(struct cluster_init){
                                    .cluster_id = x->ca.cluster_id,
                                    .name = blob_str("lab"),
                                    .root_der = buf_blob(&x->ca.root_der),
                                    .root_fingerprint = blob_of(root.fingerprint, 32),
                                    .node_id = x->self.node_id,
                                    .node_name = blob_str("seed"),
                                    .address = blob_str("127.0.0.1:7401"),
                                    .cert = buf_blob(&cert),
                                    .issuer_fingerprint = blob_of(issuer, sizeof issuer),
                                }),
                     0);
    buf_fini(&cert);
    *state = x;
    return 0;
}

static int tear_down(void **state)
{
    struct fix *x = *state;
    pki_key_free(x->key);
    test_ca_fini(&x->ca);
    fsm_world_fini(&x->w);
    free(x);
    return 0;
}

static int propose_set(struct fix *x, const struct witness_set *held, uint64_t epoch,
                       const struct witness_member *m, size_t n, const struct pki_key *signer,
                       const struct uuid *signer_id)
{
    struct buf statement;
    struct buf list;
    struct buf bytes;
    uint32_t count = 0;
    uint8_t sig[PKI_SIG_BYTES];
    buf_init(&statement, AUTHORITY_SET_MAX);
    buf_init(&list, SIGNED_SET_MAX);
    buf_init(&bytes, SIGNED_SET_MAX);
    witness_set_build(held, &x->ca.cluster_id, epoch, m, n, &statement);
    pki_sign(signer, AUTHORITY_SET_SIGN_DOMAIN, buf_blob(&statement), sig);
    msg_list_add(
        &set_signature_desc,
        &(struct set_signature){.node_id = *signer_id, .signature = blob_of(sig, sizeof sig)},
        &list, &count);
    msg_encode(&signed_set_desc,
               &(struct signed_set){.statement = buf_blob(&statement),
                                    .signatures = {.raw = buf_blob(&list), .count = count}},
               &bytes);
    int rc = fsm_do(&x->w, CMD_AUTHORITY_SET_NEXT,
                    &(struct authority_set_next){.signed_set = buf_blob(&bytes)});
    buf_fini(&statement);
    buf_fini(&list);
    buf_fini(&bytes);
    return rc;
}

static void begin(struct fix *x)
{
    fsm_world_raise(&x->w);
    assert_int_equal(propose_set(x, &(struct witness_set){.known = false}, 1, &x->self, 1,
                                 x->ca.root_key, &UUID_NIL),
                     0);
}

/* The tree is what the rows say, and the last record is about the tree. */
static void assert_follows(struct fix *x)
{
    uint8_t kept[32];
    uint8_t made[32];
    struct fsm_witness last;
    struct fsm_position pos;
    merkle_root(fsm_tree(x->w.fsm), kept);
    fsm_witness_rebuilt(x->w.fsm, made);
    assert_memory_equal(kept, made, sizeof kept);
    assert_true(fsm_witness_last(x->w.fsm, &last));
    assert_memory_equal(last.root, kept, sizeof kept);
    fsm_position(x->w.fsm, &pos);
    assert_int_equal(fsm_history(x->w.fsm)->size, pos.audit_seq);
    assert_true(last.index <= pos.index && last.audit_seq <= pos.audit_seq);
    struct history h;
    history_init(&h);
    struct db_stmt *st = db_prepare(fsm_db(x->w.fsm),
                                    "SELECT hash FROM cluster_audit_events ORDER BY seq");
    while (db_step(st) == 1) {
        uint8_t hash[32];
        assert_int_equal(hex_decode(db_col_text(st, "hash"), hash, sizeof hash), 0);
        history_add(&h, hash);
    }
    db_done(st);
    history_root(&h, h.size, made);
    history_root(fsm_history(x->w.fsm), h.size, kept);
    assert_memory_equal(kept, made, sizeof kept);
    history_fini(&h);
}

static uint64_t last_index(struct fix *x)
{
    struct fsm_witness last;
    return fsm_witness_last(x->w.fsm, &last) ? last.index : 0;
}

static void test_without_a_set_there_is_nothing(void **state)
{
    struct fix *x = *state;
    struct fsm_witness last;
    assert_false(fsm_witness_last(x->w.fsm, &last));
    assert_false(fsm_authority_set(x->w.fsm)->known);
    assert_null(fsm_tree(x->w.fsm));
    /* Nor is the command known below its level. */
    assert_int_equal(propose_set(x, &(struct witness_set){.known = false}, 1, &x->self, 1,
                                 x->ca.root_key, &UUID_NIL),
                     -ERR_UNSUPPORTED);
    begin(x);
    assert_true(fsm_authority_set(x->w.fsm)->known);
    assert_int_equal(last_index(x), x->w.index);
    assert_follows(x);
}

static void test_tree_follows_every_change(void **state)
{
    struct fix *x = *state;
    struct fsm_world *w = &x->w;
    begin(x);
    struct uuid a = fsm_make_node(w, 21, "alpha");
    assert_int_equal(last_index(x), w->index);
    assert_follows(x);
    struct uuid b = fsm_make_node(w, 22, "beta");
    assert_follows(x);
    const struct role_assign role = {
        .assignment_id = fsm_fake_id(7, 1), .node_id = a, .role = blob_str("relay-node")};
    assert_int_equal(fsm_do(w, CMD_ROLE_ASSIGN, &role), 0);
    assert_int_equal(last_index(x), w->index);
    assert_follows(x);
    uint64_t before = last_index(x);
    (void)fsm_make_token(w, 5, 1); /* of no snapshot */
    assert_int_equal(fsm_do(w, CMD_NODE_HEALTH,
                            &(struct node_health){.node_id = a, .health = blob_str("stale")}),
                     0);
    assert_int_equal(last_index(x), before);
    assert_follows(x);
    assert_int_equal(
        fsm_do(w, CMD_NODE_RENAME, &(struct node_rename){.node_id = b, .name = blob_str("gamma")}),
        0);
    assert_follows(x);
    assert_int_equal(fsm_do(w, CMD_ROLE_UNASSIGN,
                            &(struct role_unassign){.node_id = a, .role = blob_str("relay-node")}),
                     0);
    assert_follows(x);
    assert_int_equal(
        fsm_do(w, CMD_NODE_REVOKE, &(struct node_revoke){.node_id = b, .reason = blob_str("lost")}),
        0);
    assert_follows(x);
    uint8_t key[32];
    witness_node_key(&b, key);
    assert_null(merkle_get(fsm_tree(w->fsm), key));
    witness_node_key(&a, key);
    assert_non_null(merkle_get(fsm_tree(w->fsm), key));
    assert_int_equal(fsm_do(w, CMD_NODE_REMOVE, &(struct node_remove){.node_id = b}), 0);
    assert_follows(x);
}

/* A refused command, also one whose changes were undone, leaves the history as the rows are. */
static void test_history_follows_an_entry_that_ran_twice(void **state)
{
    struct fix *x = *state;
    struct fsm_world *w = &x->w;
    struct fsm_entry e;
    begin(x);
    struct uuid a = fsm_make_node(w, 21, "alpha");
    (void)fsm_make_token(w, 6, 1);
    const struct role_assign role = {
        .assignment_id = fsm_fake_id(7, 1), .node_id = a, .role = blob_str("relay-node")};
    const struct join_approve same_id = {
        .join_id = fsm_make_request(w, 22, "beta", 6),
        .node_id = a, /* in use: noticed when rows were written already */
        .cert = fsm_fake_cert(&(struct fsm_fake_cert){.key = 22, .issuer = 1, .serial = 22}),
    };
    fsm_entry_begin(&e, w->term);
    fsm_entry_add(&e, fsm_envelope(w, CMD_ROLE_ASSIGN), &role);
    fsm_entry_add(&e, fsm_envelope(w, CMD_JOIN_APPROVE), &same_id);
    fsm_world_apply(w, &e, NULL, NULL);
    fsm_entry_fini(&e);
    assert_follows(x);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM cluster_audit_events"
                                  " WHERE event_type IN ('role_assigned', 'command_refused')"),
                     2);
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(fsm_audit_verify(w->fsm, NULL, &em), 0);
}

static void test_restored_state_says_the_same(void **state)
{
    struct fix *x = *state;
    struct fsm_world *w = &x->w;
    struct fsm_witness before;
    struct fsm_witness after;
    struct buf image;
    struct buf s1;
    struct buf s2;
    struct errmsg em = ERRMSG_INIT;
    begin(x);
    (void)fsm_make_node(w, 21, "alpha");
    assert_true(fsm_witness_last(w->fsm, &before));
    (void)fsm_make_token(w, 5, 1); /* audited, after the last change of configuration */
    buf_init(&image, IMAGE_MAX_BYTES);
    assert_int_equal(fsm_image(w->fsm, &image), 0);
    struct fsm *other;
    assert_int_equal(fsm_new(&other, &em), 0);
    assert_int_equal(fsm_restore(other, buf_blob(&image), &em), 0);
    assert_true(fsm_witness_last(other, &after));
    buf_init(&s1, WITNESS_STATEMENT_MAX);
    buf_init(&s2, WITNESS_STATEMENT_MAX);
    fsm_witness_statement(w->fsm, &before, &s1);
    fsm_witness_statement(other, &after, &s2);
    assert_int_equal(s1.err, 0);
    assert_true(blob_equal(buf_blob(&s1), buf_blob(&s2)));
    fsm_free(other);
    buf_fini(&image);
    buf_fini(&s1);
    buf_fini(&s2);
}

/* What a node will be able to check: its own snapshot's parts lead to the root. */
static void test_snapshot_parts_are_proved(void **state)
{
    struct fix *x = *state;
    struct fsm_world *w = &x->w;
    struct fsm_witness last;
    struct cut c;
    struct buf body;
    struct buf path;
    uint8_t key[32];
    uint8_t value[32];
    uint8_t config[32];
    begin(x);
    struct uuid a = fsm_make_node(w, 21, "alpha");
    assert_true(fsm_witness_last(w->fsm, &last));
    struct blob root = blob_of(last.root, sizeof last.root);
    cut_init(&c);
    assert_int_equal(cut_node(fsm_db(w->fsm), fsm_level(w->fsm), &a, &c), 0);
    assert_int_equal(cut_cluster(fsm_db(w->fsm), fsm_level(w->fsm), &c), 0);
    c.body.epoch = 1;
    c.body.config_version = last.index;
    c.body.issued_at_ms = 5;
    c.body.expires_at_ms = 6;
    buf_init(&body, SNAPSHOT_MAX_BYTES);
    buf_init(&path, MERKLE_PATH_MAX);
    msg_encode(&snapshot_body_desc, &c.body, &body);
    assert_int_equal(witness_part_hash(buf_blob(&body), WITNESS_CLUSTER_PART, value), 0);
    witness_cluster_key(key);
    assert_int_equal(merkle_path(fsm_tree(w->fsm), key, &path), 0);
    assert_int_equal(witness_item_check(root, key, value, buf_blob(&path)), 0);
    value[0] ^= 1;
    assert_int_equal(witness_item_check(root, key, value, buf_blob(&path)), -ERR_BAD_PROOF);
    assert_int_equal(witness_part_hash(buf_blob(&body), WITNESS_NODE_PART, config), 0);
    witness_node_value(&(struct node_leaf){.node_id = a,
                                           .fingerprint = blob_of(c.fingerprint, 32),
                                           .membership_status = blob_str("active"),
                                           .config = blob_of(config, 32)},
                       value);
    witness_node_key(&a, key);
    buf_clear(&path);
    assert_int_equal(merkle_path(fsm_tree(w->fsm), key, &path), 0);
    assert_int_equal(witness_item_check(root, key, value, buf_blob(&path)), 0);
    cut_fini(&c);
    buf_fini(&body);
    buf_fini(&path);
}

static void test_sets_that_do_not_follow_are_refused(void **state)
{
    struct fix *x = *state;
    struct fsm_world *w = &x->w;
    struct witness_set none = {.known = false};
    struct pki_key *thief = pki_key_generate();
    struct witness_member two[2] = {x->self, {.node_id = test_uuid(3)}};
    pki_key_public(thief, two[1].public_key);
    fsm_world_raise(w);
    /* Not the root. */
    assert_int_equal(propose_set(x, &none, 1, &x->self, 1, x->key, &x->self.node_id), -ERR_BAD_SET);
    assert_int_equal(propose_set(x, &none, 1, &x->self, 1, thief, &UUID_NIL), -ERR_BAD_SET);
    /* The root, but with a member that is no authority, or with another key than it has. */
    assert_int_equal(propose_set(x, &none, 1, two, 2, x->ca.root_key, &UUID_NIL),
                     -ERR_NOT_AUTHORITY);
    two[1].node_id = x->self.node_id;
    assert_int_equal(propose_set(x, &none, 1, &two[1], 1, x->ca.root_key, &UUID_NIL),
                     -ERR_NOT_AUTHORITY);
    assert_int_equal(propose_set(x, &none, 2, &x->self, 1, x->ca.root_key, &UUID_NIL),
                     -ERR_BAD_SET);
    assert_false(fsm_authority_set(w->fsm)->known);
    assert_int_equal(propose_set(x, &none, 1, &x->self, 1, x->ca.root_key, &UUID_NIL), 0);
    assert_int_equal(propose_set(x, &none, 1, &x->self, 1, x->ca.root_key, &UUID_NIL),
                     -ERR_DECIDED);
    /* The next by the majority (one of one), then one by a stranger in its name. */
    struct witness_set held = *fsm_authority_set(w->fsm);
    assert_int_equal(propose_set(x, &held, 1, &x->self, 1, x->key, &x->self.node_id), 0);
    held = *fsm_authority_set(w->fsm);
    assert_int_equal(held.seq, 2);
    assert_int_equal(propose_set(x, &held, 1, &x->self, 1, thief, &x->self.node_id), -ERR_BAD_SET);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM authority_sets"), 2);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM cluster_audit_events"
                                  " WHERE event_type = 'authority_set_changed'"),
                     2);
    pki_key_free(thief);
}

static void test_forgery_report_is_audited(void **state)
{
    struct fix *x = *state;
    struct fsm_world *w = &x->w;
    begin(x);
    struct uuid a = fsm_make_node(w, 21, "alpha");
    char id[UUID_TEXT_MAX];
    struct forgery_reported report = {.node_id = a,
                                      .kind = blob_str("snapshot"),
                                      .error = blob_str("not_witnessed"),
                                      .detail = blob_str("signed by 1 of the 3"),
                                      .offender_id = x->self.node_id};
    struct cmd c = fsm_envelope(w, CMD_FORGERY_REPORTED);
    c.actor_kind = blob_str(ACTOR_NODE);
    uuid_format(&x->self.node_id, id);
    c.actor_id = blob_str(id); /* in another's name */
    assert_int_equal(fsm_do_cmd(w, c, &report), -ERR_WRONG_NODE);
    uuid_format(&a, id);
    c = fsm_envelope(w, CMD_FORGERY_REPORTED);
    c.actor_kind = blob_str(ACTOR_NODE);
    c.actor_id = blob_str(id);
    assert_int_equal(fsm_do_cmd(w, c, &report), 0);
    assert_int_equal(fsm_count(w, "SELECT count(*) FROM cluster_audit_events"
                                  " WHERE event_type = 'forgery_reported' AND high_risk = 1"
                                  " AND subject_id = '02020202-0202-0202-0202-020202020202'"
                                  " AND json_extract(details, '$.reported_by_name') = 'alpha'"),
                     1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_without_a_set_there_is_nothing),
        T(test_tree_follows_every_change),
        T(test_history_follows_an_entry_that_ran_twice),
        T(test_restored_state_says_the_same),
        T(test_snapshot_parts_are_proved),
        T(test_sets_that_do_not_follow_are_refused),
        T(test_forgery_report_is_audited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
