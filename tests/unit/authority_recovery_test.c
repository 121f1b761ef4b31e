/* Recovery by the owner: what is believed of a statement, what becomes of the log, what a fenced
 * authority finds in its own (docs/decisions/0007). */
#include "authority/divergence.h"
#include "authority/heal.h"
#include "authority/raft_log.h"
#include "lib/fsm_fixture.h"
#include "lib/pki_fixture.h"
#include "lib/raft_log_fixture.h"
#include "pki/statement.h"
#include "wire/node_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

/* --- statements --- */

struct draft {
    struct recovery_statement s;
    uint8_t digest[32];
    struct buf voters, trail;
};

static void draft_init(struct draft *d, const struct uuid *cluster_id, uint64_t epoch)
{
    struct mp_writer w;
    *d = (struct draft){.digest = {1}};
    buf_init(&d->voters, 256);
    buf_init(&d->trail, 2048);
    mp_writer_init(&w, &d->voters);
    struct uuid voter = test_uuid(7);
    mp_put_uuid(&w, &voter);
    d->s = (struct recovery_statement){
        .version = RECOVERY_STATEMENT_VERSION,
        .cluster_id = *cluster_id,
        .epoch = epoch,
        .kind = RECOVERY_PROMOTE,
        .base_index = 100,
        .base_term = 5,
        .base_digest = blob_of(d->digest, sizeof d->digest),
        .voters = {.raw = buf_blob(&d->voters), .count = 1},
        .time_ms = TEST_NOW_MS,
    };
}

static void draft_run(struct draft *d, uint64_t term, uint64_t first)
{
    struct recovery_run run = {.term = term, .first_index = first};
    msg_list_add(&recovery_run_desc, &run, &d->trail, &d->s.trail.count);
    d->s.trail.raw = buf_blob(&d->trail);
}

static void draft_fini(struct draft *d)
{
    buf_fini(&d->voters);
    buf_fini(&d->trail);
}

static int verify(const struct recovery_statement *s, const struct pki_key *signer,
                  const struct test_ca *ca, struct recovery_statement *ret)
{
    static struct buf bytes;
    uint8_t key[PKI_KEY_BYTES];
    struct errmsg em = ERRMSG_INIT;
    buf_fini(&bytes);
    buf_init(&bytes, SIGNED_RECOVERY_MAX);
    assert_int_equal(statement_sign(signer, s, &bytes), 0);
    pki_key_public(ca->root_key, key);
    int rc = statement_verify(buf_blob(&bytes), key, &ca->cluster_id, ret, &em);
    if (ret->epoch == 0) {
        buf_fini(&bytes);
    }
    return rc;
}

static void test_only_the_owner_of_this_cluster_is_believed(void **state)
{
    (void)state;
    struct test_ca ca;
    struct draft d;
    struct recovery_statement got = {0};
    struct buf bytes;
    uint8_t key[PKI_KEY_BYTES];
    test_ca_init(&ca, 1, 2);
    draft_init(&d, &ca.cluster_id, 2);
    assert_int_equal(verify(&d.s, ca.root_key, &ca, &got), 0);
    assert_int_equal(got.epoch, 2);
    assert_int_equal(verify(&d.s, ca.issuer_key, &ca, &got), -ERR_BAD_SIGNATURE);
    d.s.cluster_id = test_uuid(9);
    assert_int_equal(verify(&d.s, ca.root_key, &ca, &got), -ERR_WRONG_CLUSTER);
    /* Every byte that is changed is noticed. */
    d.s.cluster_id = ca.cluster_id;
    buf_init(&bytes, SIGNED_RECOVERY_MAX);
    assert_int_equal(statement_sign(ca.root_key, &d.s, &bytes), 0);
    pki_key_public(ca.root_key, key);
    for (size_t i = 0; i < bytes.len; i++) {
        bytes.data[i] ^= 1;
        assert_int_not_equal(statement_verify(buf_blob(&bytes), key, &ca.cluster_id, &got, NULL),
                             0);
        bytes.data[i] ^= 1;
    }
    for (size_t n = 0; n < bytes.len; n++) {
        assert_int_not_equal(
            statement_verify(blob_of(bytes.data, n), key, &ca.cluster_id, &got, NULL), 0);
    }
    buf_fini(&bytes);
    got.epoch = 0;
    (void)verify(&d.s, ca.issuer_key, &ca, &got); /* frees what it keeps */
    draft_fini(&d);
    test_ca_fini(&ca);
}

static void test_statements_that_contradict_themselves_are_refused(void **state)
{
    (void)state;
    struct uuid cluster = test_uuid(1);
    struct {
        const char *what;
        uint64_t version, epoch, kind, base_index, base_term;
        uint32_t voters;
        uint64_t runs[3][2];
        int rc;
    } cases[] = {
        {"fine", 1, 2, 1, 100, 5, 1, {{3, 1}, {5, 60}}, 0},
        {"no trail", 1, 2, 1, 100, 5, 1, {{0}}, 0},
        {"a newer version", 2, 2, 1, 100, 5, 1, {{0}}, -ERR_SCHEMA},
        {"the first epoch", 1, 1, 1, 100, 5, 1, {{0}}, -ERR_MALFORMED},
        {"an epoch that wraps", 1, UINT64_MAX, 1, 100, 5, 1, {{0}}, -ERR_MALFORMED},
        {"no such kind", 1, 2, 4, 100, 5, 1, {{0}}, -ERR_MALFORMED},
        {"no base", 1, 2, 1, 0, 5, 1, {{0}}, -ERR_MALFORMED},
        {"no voters", 1, 2, 1, 100, 5, 0, {{0}}, -ERR_MALFORMED},
        {"more voters than there are", 1, 2, 1, 100, 5, 2, {{0}}, -ERR_MALFORMED},
        {"a trail that ends in another term",
         1,
         2,
         1,
         100,
         5,
         1,
         {{3, 1}, {4, 60}},
         -ERR_MALFORMED},
        {"a trail beyond the base", 1, 2, 1, 100, 5, 1, {{5, 101}}, -ERR_MALFORMED},
        {"terms that fall", 1, 2, 1, 100, 5, 1, {{6, 1}, {5, 60}}, -ERR_MALFORMED},
        {"indexes that fall", 1, 2, 1, 100, 5, 1, {{3, 60}, {5, 1}}, -ERR_MALFORMED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct draft d;
        struct recovery_statement got;
        struct buf body;
        draft_init(&d, &cluster, cases[i].epoch);
        d.s.version = cases[i].version;
        d.s.kind = cases[i].kind;
        d.s.base_index = cases[i].base_index;
        d.s.base_term = cases[i].base_term;
        d.s.voters.count = cases[i].voters == 0 ? 0 : 1;
        for (size_t k = 0; k < 3 && cases[i].runs[k][0] != 0; k++) {
            draft_run(&d, cases[i].runs[k][0], cases[i].runs[k][1]);
        }
        buf_init(&body, RECOVERY_BODY_MAX);
        msg_encode(&recovery_statement_desc, &d.s, &body);
        assert_int_equal(body.err, 0);
        int rc = cases[i].voters == 2 ? -ERR_MALFORMED /* the encoder cannot write it */
                                      : recovery_statement_decode(buf_blob(&body), &got);
        /* A required list that is empty is not encoded. */
        if (rc != cases[i].rc) {
            fail_msg("%s: %s", cases[i].what, err_text(rc));
        }
        buf_fini(&body);
        draft_fini(&d);
    }
}

static void test_trail_tells_the_term_of_each_index(void **state)
{
    (void)state;
    struct draft d;
    struct uuid cluster = test_uuid(1);
    draft_init(&d, &cluster, 2);
    draft_run(&d, 2, 10);
    draft_run(&d, 5, 60);
    static const uint64_t want[][2] = {{9, 0}, {10, 2}, {59, 2}, {60, 5}, {100, 5}, {101, 0}};
    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        assert_int_equal(recovery_trail_term(&d.s, want[i][0]), want[i][1]);
    }
    draft_fini(&d);
}

/* --- divergence --- */

struct part_log {
    struct raft_store_loaded l;
    struct fsm_entry entries[16];
    struct buf bytes[16];
};

/* One command an entry, its request id telling the index. */
static void part_log_add(struct part_log *p, uint64_t index, uint64_t term)
{
    size_t i = p->l.entries_count++;
    struct token_revoke body = {.token_id = fsm_fake_id(3, (uint32_t)index)};
    struct cmd c = {.kind = CMD_TOKEN_REVOKE,
                    .request_id = fsm_fake_id(4, (uint32_t)index),
                    .time_ms = FSM_T0,
                    .actor_kind = blob_str(ACTOR_ADMIN),
                    .actor_id = blob_str("uid:0")};
    fsm_entry_begin(&p->entries[i], term);
    fsm_entry_add(&p->entries[i], c, &body);
    struct blob b = fsm_entry_end(&p->entries[i]);
    buf_init(&p->bytes[i], RAFT_MSG_DATA_MAX);
    buf_add(&p->bytes[i], b.data, b.len);
    raft_msg_pad(&p->bytes[i]);
    p->l.entries[i] = (struct raft_store_entry){
        .index = index, .term = term, .type = RAFT_COMMAND, .data = buf_blob(&p->bytes[i])};
}

static void part_log_fini(struct part_log *p)
{
    for (size_t i = 0; i < p->l.entries_count; i++) {
        fsm_entry_fini(&p->entries[i]);
        buf_fini(&p->bytes[i]);
    }
    free(p->l.entries);
}

static void test_divergence_begins_after_the_last_entry_both_share(void **state)
{
    (void)state;
    struct draft d;
    struct divergence v;
    struct uuid cluster = test_uuid(1);
    struct part_log p = {.l = {.entries = xcalloc(16, sizeof(struct raft_store_entry))}};
    draft_init(&d, &cluster, 2);
    d.s.base_index = 12;
    d.s.base_term = 4;
    draft_run(&d, 2, 8);
    draft_run(&d, 4, 11);
    /* ours: 8..10 of term 2 are shared, 11..13 of term 3 are not */
    for (uint64_t i = 8; i <= 13; i++) {
        part_log_add(&p, i, i <= 10 ? 2 : 3);
    }
    divergence_find(&p.l, &d.s, 12, &v);
    assert_int_equal(v.common_index, 10);
    assert_int_equal(v.last_index, 13);
    assert_int_equal(v.rows_total, 3);
    struct buf raw;
    struct mp_reader r;
    buf_init(&raw, 65536);
    assert_int_equal(divergence_part(&v, 1, 64, &raw), 2);
    mp_reader_init(&r, buf_blob(&raw));
    for (uint32_t i = 12; i <= 13; i++) {
        struct divergence_row row;
        struct uuid request = fsm_fake_id(4, i);
        struct uuid subject = fsm_fake_id(3, i);
        assert_int_equal(msg_decode(&divergence_row_desc, MSG_STRICT, mp_get_bin(&r, 4096), &row),
                         0);
        assert_int_equal(row.log_index, i);
        assert_int_equal(row.committed, i <= 12);
        assert_true(uuid_equal(&row.request_id, &request));
        assert_true(uuid_equal(&row.subject_id, &subject));
        assert_true(blob_equal(row.kind, blob_str("token_revoke")));
        assert_true(blob_equal(row.actor_id, blob_str("uid:0")));
    }
    buf_fini(&raw);
    divergence_fini(&v);
    part_log_fini(&p);
    draft_fini(&d);
}

static void test_log_that_is_a_beginning_of_the_new_history_has_nothing_to_report(void **state)
{
    (void)state;
    struct draft d;
    struct divergence v;
    struct uuid cluster = test_uuid(1);
    struct part_log p = {.l = {.entries = xcalloc(16, sizeof(struct raft_store_entry))}};
    draft_init(&d, &cluster, 2);
    draft_run(&d, 5, 1);
    for (uint64_t i = 3; i <= 9; i++) {
        part_log_add(&p, i, 5);
    }
    divergence_find(&p.l, &d.s, 9, &v);
    assert_int_equal(v.common_index, 9);
    assert_int_equal(v.rows_total, 0);
    divergence_fini(&v);
    part_log_fini(&p);
    draft_fini(&d);
}

/* --- the log --- */

static struct raft_log_restart restart_at(uint64_t index, uint64_t first_term)
{
    return (struct raft_log_restart){.index = index,
                                     .term = 1,
                                     .image = blob_str("the state as bytes"),
                                     .id = 77,
                                     .address = "me",
                                     .epoch = 2,
                                     .statement = blob_str("signed"),
                                     .first_term = first_term,
                                     .first_entry = blob_str("\x81\x01\x01")};
}

static void assert_old_log(struct rlog_world *w, uint64_t last)
{
    struct raft_store_loaded l;
    assert_int_equal(raft_log_read(w->path, &l, NULL), 0);
    assert_int_equal(l.epoch, 1);
    assert_false(l.has_snapshot);
    rlog_assert_entries(&l, 1, last, 1);
    raft_store_loaded_fini(&l);
}

static void test_log_begins_anew_behind_the_base(void **state)
{
    struct rlog_world *w = *state;
    struct raft_configuration conf;
    struct raft_store_loaded l;
    struct errmsg em = ERRMSG_INIT;
    rlog_make(w, 10);
    struct raft_log_restart r = restart_at(10, 2);
    assert_int_equal(raft_log_restart(w->path, &r, &em), 0);
    assert_int_equal(raft_log_read(w->path, &l, &em), 0);
    assert_int_equal(l.epoch, 2);
    assert_true(blob_equal(buf_blob(&l.statement), blob_str("signed")));
    assert_int_equal(l.term, 2);
    assert_int_equal(l.vote, 0);
    assert_int_equal(l.snapshot_index, 10);
    assert_int_equal(l.entries_count, 1);
    assert_int_equal(l.entries[0].index, 11);
    assert_int_equal(l.entries[0].term, 2);
    assert_int_equal(raft_msg_conf_decode(buf_blob(&l.snapshot_conf), &conf), 0);
    assert_int_equal(conf.n, 1);
    assert_int_equal(conf.servers[0].id, 77);
    assert_int_equal(conf.servers[0].role, RAFT_VOTER);
    raft_configuration_close(&conf);
    raft_store_loaded_fini(&l);
}

static void test_snapshot_of_the_same_index_does_not_bring_its_voters_back(void **state)
{
    struct rlog_world *w = *state;
    struct raft_configuration conf;
    struct raft_store_loaded l;
    rlog_open(w);
    rlog_set_term(w, 1);
    rlog_append_range(w, 1, 10);
    w->done = 0;
    rlog_put_snapshot(w, 10, 2048, "the state as bytes");
    rlog_run_until_done(w, 1);
    rlog_close(w);
    struct raft_log_restart r = restart_at(10, 2);
    assert_int_equal(raft_log_restart(w->path, &r, NULL), 0);
    assert_int_equal(raft_log_read(w->path, &l, NULL), 0);
    assert_int_equal(raft_msg_conf_decode(buf_blob(&l.snapshot_conf), &conf), 0);
    assert_int_equal(conf.servers[0].id, 77);
    raft_configuration_close(&conf);
    raft_store_loaded_fini(&l);
}

static void test_restart_that_does_not_follow_changes_nothing(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 10);
    struct raft_log_restart r = restart_at(10, 1); /* a term the log has seen */
    assert_int_equal(raft_log_restart(w->path, &r, NULL), -ERR_INVALID);
    r = restart_at(10, 2);
    r.epoch = 1;
    assert_int_equal(raft_log_restart(w->path, &r, NULL), -ERR_INVALID);
    assert_old_log(w, 10);
}

static void test_restart_whose_sync_fails_leaves_the_old_log(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 10);
    struct raft_log_restart r = restart_at(10, 2);
    sync_gate_set(false, true);
    assert_int_not_equal(raft_log_restart(w->path, &r, NULL), 0);
    sync_gate_set(false, false);
    assert_old_log(w, 10);
    assert_int_equal(raft_log_restart(w->path, &r, NULL), 0);
}

static void test_log_that_is_given_up_is_empty_and_kept_aside(void **state)
{
    struct rlog_world *w = *state;
    struct raft_store_loaded l;
    struct errmsg em = ERRMSG_INIT;
    char *aside = xasprintf("%s.1", w->path);
    rlog_make(w, 10);
    assert_int_equal(raft_log_give_up(w->path, 3, blob_str("signed"), &em), 0);
    assert_int_equal(raft_log_read(w->path, &l, &em), 0);
    assert_int_equal(l.epoch, 3);
    assert_int_equal(l.term, 0);
    assert_false(l.has_snapshot);
    assert_int_equal(l.entries_count, 0);
    raft_store_loaded_fini(&l);
    assert_int_equal(raft_log_read(aside, &l, &em), 0);
    rlog_assert_entries(&l, 1, 10, 1);
    raft_store_loaded_fini(&l);
    /* Killed before its note was gone, it is given up again. */
    assert_int_equal(raft_log_give_up(w->path, 3, blob_str("signed"), &em), 0);
    (void)remove(aside);
    free(aside);
}

static void test_log_begun_without_the_old_one_is_empty_and_silent(void **state)
{
    struct rlog_world *w = *state;
    struct raft_store_loaded l;
    struct errmsg em = ERRMSG_INIT;
    const struct raft_log_empty e = {
        .term = 7, .vote = 3, .silent_until = 40, .epoch = 2, .statement = blob_str("signed")};
    char *aside = xasprintf("%s.damaged-1", w->path);
    rlog_make(w, 10);
    rlog_raw_sql(w, "UPDATE log_entries SET data = x'00' WHERE log_index = 7");
    /* Killed before its note was gone, it is begun again: what is aside stays there. */
    for (unsigned again = 0; again < 2; again++) {
        assert_int_equal(raft_log_begin_empty(w->path, aside, &e, &em), 0);
        assert_int_equal(raft_log_read(w->path, &l, &em), 0);
        assert_int_equal(l.term, 7);
        assert_int_equal(l.vote, 3);
        assert_int_equal(l.silent_until, 40);
        assert_int_equal(l.epoch, 2);
        assert_true(blob_equal(buf_blob(&l.statement), blob_str("signed")));
        assert_false(l.has_snapshot);
        assert_int_equal(l.entries_count, 0);
        raft_store_loaded_fini(&l);
        assert_int_equal(raft_log_read(aside, &l, &em), -ERR_CORRUPT);
        assert_non_null(strstr(em.text, "index 7"));
        raft_store_loaded_fini(&l);
    }
    rlog_raw_sql(w, "UPDATE silence SET until_index = 1");
    assert_int_equal(raft_log_read(w->path, &l, &em), -ERR_CORRUPT);
    raft_store_loaded_fini(&l);
    (void)remove(aside);
    free(aside);
}

static void test_majority_is_counted_without_those_that_are_damaged(void **state)
{
    static const struct {
        unsigned voters, damaged;
        bool left;
    } rows[] = {{1, 0, true},  {1, 1, false}, {2, 1, false}, {3, 1, true},
                {3, 2, false}, {4, 1, true},  {4, 2, false}, {5, 2, true},
                {5, 3, false}, {3, 3, false}, {0, 0, false}, {1, 2, false}};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(heal_majority_left(rows[i].voters, rows[i].damaged), rows[i].left);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_owner_of_this_cluster_is_believed),
        cmocka_unit_test(test_statements_that_contradict_themselves_are_refused),
        cmocka_unit_test(test_trail_tells_the_term_of_each_index),
        cmocka_unit_test(test_divergence_begins_after_the_last_entry_both_share),
        cmocka_unit_test(test_log_that_is_a_beginning_of_the_new_history_has_nothing_to_report),
        cmocka_unit_test_setup_teardown(test_log_begins_anew_behind_the_base, rlog_set_up,
                                        rlog_tear_down),
        cmocka_unit_test_setup_teardown(
            test_snapshot_of_the_same_index_does_not_bring_its_voters_back, rlog_set_up,
            rlog_tear_down),
        cmocka_unit_test_setup_teardown(test_restart_that_does_not_follow_changes_nothing,
                                        rlog_set_up, rlog_tear_down),
        cmocka_unit_test_setup_teardown(test_restart_whose_sync_fails_leaves_the_old_log,
                                        rlog_set_up, rlog_tear_down),
        cmocka_unit_test_setup_teardown(test_log_that_is_given_up_is_empty_and_kept_aside,
                                        rlog_set_up, rlog_tear_down),
        cmocka_unit_test_setup_teardown(test_log_begun_without_the_old_one_is_empty_and_silent,
                                        rlog_set_up, rlog_tear_down),
        cmocka_unit_test(test_majority_is_counted_without_those_that_are_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
