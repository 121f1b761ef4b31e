/* Splits in the replicated state (SPEC AUTH-05, SEED-02, docs/decisions/0022): who may begin one, what it
 * waits for, who leaves in which order, and what is refused meanwhile. */
#include "authority/split.h"
#include "lib/fsm_fixture.h"
#include "lib/pki_fixture.h"
#include "pki/statement.h"
#include "wire/node_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

struct lab {
    struct fsm_world w;
    struct test_ca old, new, other; /* roots: of the old cluster, of the new one, of a third */
    struct fsm_fake n1, n2;         /* who leaves, n1 the seed */
    struct uuid split_id;
};

static void lab_init(struct lab *l)
{
    test_ca_init(&l->old, 1, 2);
    test_ca_init(&l->new, 3, 4);
    test_ca_init(&l->other, 5, 6);
    fsm_world_init_owned(&l->w, &l->old);
    fsm_world_raise(&l->w);
    (void)fsm_make_node(&l->w, 2, "n1");
    (void)fsm_make_node(&l->w, 3, "n2");
    (void)fsm_make_node(&l->w, 4, "n3");
    fsm_fake(2, &l->n1);
    fsm_fake(3, &l->n2);
    l->split_id = fsm_fake_id(9, 1);
}

static void lab_fini(struct lab *l)
{
    fsm_world_fini(&l->w);
    test_ca_fini(&l->old);
    test_ca_fini(&l->new);
    test_ca_fini(&l->other);
}

static void pin_of(const struct test_ca *ca, uint8_t ret[PKI_HASH_BYTES])
{
    uint8_t key[PKI_KEY_BYTES];
    pki_key_public(ca->root_key, key);
    pki_fingerprint(key, ret);
}

struct begin {
    const struct pki_key *signer; /* NULL: the owner */
    const struct uuid *cluster;   /* NULL: this one */
    uint32_t nodes[4];            /* fsm_fake numbers up to 0; none: n1 and n2 */
};

static int begin(struct lab *l, struct begin how)
{
    uint8_t pin[PKI_HASH_BYTES];
    uint8_t sig[PKI_SIG_BYTES];
    struct buf nodes, bytes;
    struct mp_writer w;
    uint32_t count = 0;
    if (how.nodes[0] == 0) {
        how.nodes[0] = 2;
        how.nodes[1] = 3;
    }
    buf_init(&nodes, 256);
    buf_init(&bytes, SPLIT_TERMS_MAX);
    mp_writer_init(&w, &nodes);
    for (; how.nodes[count] != 0; count++) {
        struct fsm_fake node;
        fsm_fake(how.nodes[count], &node);
        mp_put_uuid(&w, &node.id);
    }
    pin_of(&l->new, pin);
    const struct split_terms t = {
        .cluster_id = how.cluster == NULL ? l->old.cluster_id : *how.cluster,
        .split_id = l->split_id,
        .name = blob_str("site-b"),
        .new_cluster_id = l->new.cluster_id,
        .root_pin = blob_of(pin, sizeof pin),
        .seed_id = l->n1.id,
        .nodes = {.raw = buf_blob(&nodes), .count = count},
    };
    msg_encode(&split_terms_desc, &t, &bytes);
    assert_int_equal(bytes.err, 0);
    split_terms_sign(how.signer == NULL ? l->old.root_key : how.signer, buf_blob(&bytes), sig);
    int rc = fsm_do(
        &l->w, CMD_SPLIT_BEGIN,
        &(struct split_begin){.terms = buf_blob(&bytes), .signature = blob_of(sig, sizeof sig)});
    buf_fini(&nodes);
    buf_fini(&bytes);
    return rc;
}

/* A report without gaps, and what spoils it. */
struct report {
    struct split_report r;
    struct split_report_node nodes[3];
    uint32_t nodes_count;
    struct split_report_role role;
    const struct pki_key *root;   /* of the new cluster */
    const struct pki_key *signer; /* of the end; the owner */
};

static struct report good_report(struct lab *l)
{
    return (struct report){
        .r = {.version = SPLIT_REPORT_VERSION,
              .cluster_id = l->new.cluster_id,
              .cluster_name = blob_str("site-b"),
              .time_ms = l->w.now_ms,
              .voters = 3,
              .voters_in_contact = 2,
              .admin_name = blob_str("n2")},
        .nodes = {{.name = blob_str("n1"), .healthy = true, .votes = true, .current = true},
                  {.name = blob_str("n2"), .healthy = true, .votes = true, .current = true}},
        .nodes_count = 2,
        .role = {.role = blob_str("relay-node"), .holders = 1},
        .root = l->new.root_key,
        .signer = l->old.root_key,
    };
}

static int finish(struct lab *l, struct report how)
{
    uint8_t sig[PKI_SIG_BYTES];
    uint8_t hash[PKI_HASH_BYTES];
    struct buf nodes, roles, bytes;
    uint32_t count = 0;
    buf_init(&nodes, 4096);
    buf_init(&roles, 4096);
    buf_init(&bytes, SIGNED_SPLIT_REPORT_MAX);
    for (uint32_t i = 0; i < how.nodes_count; i++) {
        msg_list_add(&split_report_node_desc, &how.nodes[i], &nodes, &count);
    }
    how.r.nodes = (struct mp_list){.raw = buf_blob(&nodes), .count = count};
    count = 0;
    msg_list_add(&split_report_role_desc, &how.role, &roles, &count);
    how.r.roles = (struct mp_list){.raw = buf_blob(&roles), .count = count};
    assert_int_equal(split_report_sign(how.root, &how.r, &bytes), 0);
    pki_sha256(buf_blob(&bytes), hash);
    const struct split_end e = {.cluster_id = l->old.cluster_id,
                                .split_id = l->split_id,
                                .outcome = SPLIT_FINISHED,
                                .report_hash = blob_of(hash, sizeof hash)};
    split_end_sign(how.signer, &e, sig);
    int rc = fsm_do(&l->w, CMD_SPLIT_FINISH,
                    &(struct split_finish){.split_id = l->split_id,
                                           .report = buf_blob(&bytes),
                                           .signature = blob_of(sig, sizeof sig)});
    buf_fini(&nodes);
    buf_fini(&roles);
    buf_fini(&bytes);
    return rc;
}

static int cancel(struct lab *l, const struct pki_key *signer, uint64_t outcome)
{
    uint8_t sig[PKI_SIG_BYTES];
    const struct split_end e = {
        .cluster_id = l->old.cluster_id, .split_id = l->split_id, .outcome = outcome};
    split_end_sign(signer, &e, sig);
    return fsm_do(&l->w, CMD_SPLIT_CANCEL,
                  &(struct split_cancel){.split_id = l->split_id,
                                         .reason = blob_str("another day"),
                                         .signature = blob_of(sig, sizeof sig)});
}

/* Refused for this reason, and it changes nothing. */
static void gap(struct lab *l, struct report how, const char *which)
{
    assert_int_equal(finish(l, how), -ERR_SPLIT_NOT_READY);
    if (strstr(fsm_doc_text(&l->w, "detail"), which) == NULL) {
        fail_msg("no gap %s in: %s", which, fsm_doc_text(&l->w, "detail"));
    }
    assert_int_equal(fsm_count(&l->w, "SELECT count(*) FROM cluster_memberships"
                                      " WHERE membership_status <> 'active'"),
                     0);
    assert_int_equal(fsm_count(&l->w, "SELECT count(*) FROM cluster_splits WHERE status <> 'open'"),
                     0);
}

static void test_only_the_owner_begins_a_split_of_his_own_cluster(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l);
    assert_int_equal(begin(&l, (struct begin){.signer = l.new.root_key}), -ERR_DENIED);
    assert_int_equal(begin(&l, (struct begin){.cluster = &l.other.cluster_id}), -ERR_WRONG_CLUSTER);
    /* A list without the seed, in another order, with a stranger, with an authority. */
    assert_int_equal(begin(&l, (struct begin){.nodes = {3}}), -ERR_MALFORMED);
    assert_int_equal(begin(&l, (struct begin){.nodes = {3, 2}}), -ERR_MALFORMED);
    assert_int_equal(begin(&l, (struct begin){.nodes = {2, 77}}), -ERR_NOT_FOUND);
    assert_int_equal(begin(&l, (struct begin){.nodes = {1, 2}}), -ERR_CONFLICT);
    assert_int_equal(fsm_count(&l.w, "SELECT count(*) FROM cluster_splits"), 0);
    assert_int_equal(begin(&l, (struct begin){0}), 0);
    assert_int_equal(begin(&l, (struct begin){0}), -ERR_DECIDED);
    l.split_id = fsm_fake_id(9, 2);
    assert_int_equal(begin(&l, (struct begin){0}), -ERR_EXISTS); /* of this name */
    assert_int_equal(fsm_count(&l.w, "SELECT count(*) FROM cluster_audit_events WHERE"
                                     " event_type = 'split_begun' AND actor_kind = 'owner'"
                                     " AND high_risk = 1"),
                     1);
    lab_fini(&l);
}

static void test_a_node_that_left_already_is_no_part_of_a_split(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l);
    assert_int_equal(fsm_do(&l.w, CMD_MEMBERSHIP_SET,
                            &(struct membership_set){.node_id = l.n2.id, .disabled = true}),
                     0);
    assert_int_equal(begin(&l, (struct begin){0}), -ERR_CONFLICT);
    lab_fini(&l);
}

static void test_each_gap_keeps_the_nodes(void **state)
{
    (void)state;
    struct lab l;
    struct report r;
    lab_init(&l);
    assert_int_equal(fsm_do(&l.w, CMD_ROLE_ASSIGN,
                            &(struct role_assign){.assignment_id = fsm_fake_id(8, 1),
                                                  .node_id = l.n2.id,
                                                  .role = blob_str("audit-sink")}),
                     0);
    assert_int_equal(begin(&l, (struct begin){0}), 0);
    r = good_report(&l);
    gap(&l, r, "role_uncovered audit-sink");
    r.role.role = blob_str("audit-sink");
    r.role.holders = 0;
    gap(&l, r, "role_uncovered audit-sink");
#define GAP(change, which)                       \
    do {                                         \
        r = good_report(&l);                     \
        r.role.role = blob_str("audit-sink");    \
        change;                                  \
        gap(&l, r, which);                       \
    } while (0)
    GAP(r.root = l.other.root_key, "wrong_root");
    GAP(r.r.cluster_id = l.other.cluster_id, "wrong_cluster");
    GAP(r.r.time_ms -= SPLIT_REPORT_LIFE_MS + FSM_HOUR, "stale_report");
    GAP(r.r.time_ms += SPLIT_REPORT_AHEAD_MS + FSM_HOUR, "stale_report");
    GAP(r.nodes_count = 1, "not_joined n2");
    GAP(r.nodes[1].name = blob_str("n22"), "not_joined n2");
    GAP(r.nodes[0].healthy = false, "not_healthy n1");
    GAP(r.nodes[1].current = false, "no_snapshot n2");
    GAP(r.nodes[1].votes = false, "no_authority");
    GAP(r.nodes[1].healthy = false, "no_authority");
    GAP(r.r.voters_in_contact = 1, "no_quorum");
    GAP(r.r.admin_name = blob_str("n1"), "no_admin_ingress");
    GAP(r.r.admin_name = blob_of(NULL, 0), "no_admin_ingress");
#undef GAP
    r = good_report(&l);
    r.role.role = blob_str("audit-sink");
    r.signer = l.new.root_key; /* the new cluster's owner alone does not take nodes away */
    assert_int_equal(finish(&l, r), -ERR_DENIED);
    r.signer = l.old.root_key;
    assert_int_equal(finish(&l, r), 0);
    lab_fini(&l);
}

static void test_nodes_leave_at_once_and_the_seed_last(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l);
    assert_int_equal(begin(&l, (struct begin){0}), 0);
    assert_int_equal(finish(&l, good_report(&l)), 0);
    assert_string_equal(fsm_doc_text(&l.w, "status"), "finished");
    assert_int_equal(fsm_count(&l.w, "SELECT count(*) FROM cluster_memberships m JOIN nodes n"
                                     " ON n.id = m.node_id WHERE n.name IN ('n1', 'n2') AND"
                                     " m.membership_status = 'disabled' AND m.disabled_reason LIKE"
                                     " 'moved to cluster site-b%'"),
                     2);
    assert_int_equal(fsm_count(&l.w, "SELECT count(*) FROM cluster_memberships"
                                     " WHERE membership_status = 'active'"),
                     2);
    assert_int_equal(fsm_count(&l.w,
                               "SELECT (SELECT seq FROM cluster_audit_events e JOIN nodes n"
                               " ON n.id = e.subject_id WHERE n.name = 'n1' AND"
                               " event_type = 'membership_disabled') > (SELECT seq FROM"
                               " cluster_audit_events e JOIN nodes n ON n.id = e.subject_id"
                               " WHERE n.name = 'n2' AND event_type = 'membership_disabled')"),
                     1);
    assert_int_equal(fsm_count(&l.w, "SELECT length(report) > 100 FROM cluster_splits"), 1);
    assert_int_equal(finish(&l, good_report(&l)), -ERR_DECIDED);
    assert_int_equal(cancel(&l, l.old.root_key, SPLIT_CANCELLED), -ERR_DECIDED);
    lab_fini(&l);
}

/* SEED-02: early removal is refused, other nodes go as they always did. */
static void test_the_seed_of_an_open_split_stays_unless_forced(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l);
    assert_int_equal(begin(&l, (struct begin){0}), 0);
    struct membership_set disable = {.node_id = l.n1.id, .disabled = true};
    struct node_revoke revoke = {.node_id = l.n1.id, .reason = blob_str("stolen")};
    assert_int_equal(fsm_do(&l.w, CMD_MEMBERSHIP_SET, &disable), -ERR_SPLIT_NOT_READY);
    assert_non_null(strstr(fsm_doc_text(&l.w, "detail"), "rap split finish site-b"));
    assert_int_equal(fsm_do(&l.w, CMD_NODE_REVOKE, &revoke), -ERR_SPLIT_NOT_READY);
    /* What is already gone does not keep the others. */
    assert_int_equal(
        fsm_do(&l.w, CMD_NODE_REVOKE,
               &(struct node_revoke){.node_id = l.n2.id, .reason = blob_str("broken")}),
        0);
    struct report r = good_report(&l);
    r.nodes[1].name = blob_str("n9");
    r.r.admin_name = blob_str("n9");
    revoke.force = true;
    assert_int_equal(fsm_do(&l.w, CMD_NODE_REVOKE, &revoke), 0);
    assert_int_equal(finish(&l, r), 0);
    lab_fini(&l);
}

static void test_a_cancelled_split_lets_everybody_stay_and_the_seed_go(void **state)
{
    (void)state;
    struct lab l;
    lab_init(&l);
    assert_int_equal(cancel(&l, l.old.root_key, SPLIT_CANCELLED), -ERR_NOT_FOUND);
    assert_int_equal(begin(&l, (struct begin){0}), 0);
    assert_int_equal(cancel(&l, l.new.root_key, SPLIT_CANCELLED), -ERR_DENIED);
    /* What was signed for one end is worth nothing for the other. */
    assert_int_equal(cancel(&l, l.old.root_key, SPLIT_FINISHED), -ERR_DENIED);
    assert_int_equal(cancel(&l, l.old.root_key, SPLIT_CANCELLED), 0);
    assert_string_equal(fsm_doc_text(&l.w, "reason"), "another day");
    assert_int_equal(fsm_do(&l.w, CMD_MEMBERSHIP_SET,
                            &(struct membership_set){.node_id = l.n1.id, .disabled = true}),
                     0);
    l.split_id = fsm_fake_id(9, 3);
    assert_int_equal(begin(&l, (struct begin){.nodes = {2, 3}}),
                     -ERR_CONFLICT); /* n1 is disabled */
    lab_fini(&l);
}

/* --- as many as may leave at once --- */

enum { FIRST = 100 }; /* their fsm_fake numbers */

/* SPLIT_NODES_MAX nodes with names of that length, the first the seed; their ids, encoded. */
static void make_many(struct lab *l, size_t name_len, char (*names)[NAME_MAX_BYTES + 1],
                      struct buf *ids)
{
    struct mp_writer w;
    buf_init(ids, SPLIT_TERMS_MAX);
    mp_writer_init(&w, ids);
    for (uint32_t i = 0; i < SPLIT_NODES_MAX; i++) {
        struct fsm_fake node;
        fsm_fake(FIRST + i, &node);
        memset(names[i], 'n', name_len);
        names[i][name_len] = '\0';
        (void)snprintf(names[i] + name_len - 3, 4, "%03u", i);
        (void)fsm_make_node(&l->w, FIRST + i, names[i]);
        mp_put_uuid(&w, &node.id);
    }
}

static struct split_terms terms_of(struct lab *l, const struct buf *ids, const uint8_t *pin)
{
    struct fsm_fake seed;
    fsm_fake(FIRST, &seed);
    return (struct split_terms){.cluster_id = l->old.cluster_id,
                                .split_id = l->split_id,
                                .name = blob_str("site-b"),
                                .new_cluster_id = l->new.cluster_id,
                                .root_pin = blob_of(pin, PKI_HASH_BYTES),
                                .seed_id = seed.id,
                                .nodes = {.raw = buf_blob(ids), .count = SPLIT_NODES_MAX}};
}

static void test_as_many_nodes_as_may_leave_in_one_command(void **state)
{
    (void)state;
    static char names[SPLIT_NODES_MAX][NAME_MAX_BYTES + 1];
    struct lab l;
    struct buf ids, bytes, nodes;
    uint8_t pin[PKI_HASH_BYTES], sig[PKI_SIG_BYTES], hash[PKI_HASH_BYTES];
    uint32_t count = 0;
    lab_init(&l);
    make_many(&l, 32, names, &ids);
    pin_of(&l.new, pin);
    struct split_terms t = terms_of(&l, &ids, pin);
    assert_int_equal(split_names_fit(fsm_db(l.w.fsm), &t, NULL), 0);
    buf_init(&bytes, SPLIT_TERMS_MAX);
    msg_encode(&split_terms_desc, &t, &bytes);
    assert_int_equal(bytes.err, 0);
    split_terms_sign(l.old.root_key, buf_blob(&bytes), sig);
    assert_int_equal(fsm_do(&l.w, CMD_SPLIT_BEGIN,
                            &(struct split_begin){.terms = buf_blob(&bytes),
                                                  .signature = blob_of(sig, sizeof sig)}),
                     0);
    buf_fini(&bytes);
    buf_init(&bytes, SIGNED_SPLIT_REPORT_MAX);
    buf_init(&nodes, SPLIT_REPORT_BODY_MAX);
    for (uint32_t i = 0; i < SPLIT_NODES_MAX; i++) {
        const struct split_report_node row = {.name = blob_str(names[i]),
                                              .healthy = true,
                                              .votes = i < 3,
                                              .current = true,
                                              .held_version = UINT64_MAX};
        msg_list_add(&split_report_node_desc, &row, &nodes, &count);
    }
    struct report good = good_report(&l);
    good.r.admin_name = blob_str(names[1]);
    good.r.nodes = (struct mp_list){.raw = buf_blob(&nodes), .count = count};
    assert_int_equal(split_report_sign(l.new.root_key, &good.r, &bytes), 0);
    pki_sha256(buf_blob(&bytes), hash);
    const struct split_end e = {.cluster_id = l.old.cluster_id,
                                .split_id = l.split_id,
                                .outcome = SPLIT_FINISHED,
                                .report_hash = blob_of(hash, sizeof hash)};
    split_end_sign(l.old.root_key, &e, sig);
    assert_int_equal(fsm_do(&l.w, CMD_SPLIT_FINISH,
                            &(struct split_finish){.split_id = l.split_id,
                                                   .report = buf_blob(&bytes),
                                                   .signature = blob_of(sig, sizeof sig)}),
                     0);
    assert_int_equal(fsm_count(&l.w, "SELECT count(*) FROM cluster_memberships"
                                     " WHERE membership_status = 'disabled'"),
                     SPLIT_NODES_MAX);
    buf_fini(&ids);
    buf_fini(&bytes);
    buf_fini(&nodes);
    lab_fini(&l);
}

/* Such a split could be begun, but no report of it could ever be made. */
static void test_names_that_no_report_has_room_for(void **state)
{
    (void)state;
    static char names[SPLIT_NODES_MAX][NAME_MAX_BYTES + 1];
    struct lab l;
    struct buf ids;
    struct errmsg em = ERRMSG_INIT;
    uint8_t pin[PKI_HASH_BYTES];
    lab_init(&l);
    make_many(&l, NAME_MAX_BYTES, names, &ids);
    pin_of(&l.new, pin);
    struct split_terms t = terms_of(&l, &ids, pin);
    assert_int_equal(split_names_fit(fsm_db(l.w.fsm), &t, &em), -ERR_TOO_LARGE);
    assert_non_null(strstr(em.text, "split in steps"));
    buf_fini(&ids);
    lab_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_owner_begins_a_split_of_his_own_cluster),
        cmocka_unit_test(test_a_node_that_left_already_is_no_part_of_a_split),
        cmocka_unit_test(test_each_gap_keeps_the_nodes),
        cmocka_unit_test(test_nodes_leave_at_once_and_the_seed_last),
        cmocka_unit_test(test_the_seed_of_an_open_split_stays_unless_forced),
        cmocka_unit_test(test_a_cancelled_split_lets_everybody_stay_and_the_seed_go),
        cmocka_unit_test(test_as_many_nodes_as_may_leave_in_one_command),
        cmocka_unit_test(test_names_that_no_report_has_room_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
