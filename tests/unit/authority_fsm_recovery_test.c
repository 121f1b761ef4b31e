/* Recoveries, reports and merges in the replicated state (docs/decisions/0007). */
#include "lib/fsm_fixture.h"
#include "lib/pki_fixture.h"
#include "pki/statement.h"
#include "wire/node_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

struct owned {
    struct fsm_world w;
    struct test_ca ca;
};

static void owned_init(struct owned *o)
{
    test_ca_init(&o->ca, 1, 2);
    fsm_world_init_owned(&o->w, &o->ca);
    fsm_world_raise_to(&o->w, LEVEL_MEMBERS); /* make-believe authorities */
    (void)fsm_make_authority(&o->w, 2, "second");
    (void)fsm_make_authority(&o->w, 3, "third");
}

static void owned_fini(struct owned *o)
{
    fsm_world_fini(&o->w);
    test_ca_fini(&o->ca);
}

/* The statement that fits, before `change` spoils it. */
static int start_epoch(struct owned *o, uint64_t epoch,
                       void (*change)(struct recovery_statement *s), const struct pki_key *signer)
{
    struct fsm_position pos;
    struct fsm_fake second;
    struct buf voters;
    struct buf bytes;
    struct mp_writer w;
    fsm_position(o->w.fsm, &pos);
    fsm_fake(2, &second);
    buf_init(&voters, 64);
    buf_init(&bytes, SIGNED_RECOVERY_MAX);
    mp_writer_init(&w, &voters);
    mp_put_uuid(&w, &second.id);
    struct recovery_statement s = {
        .version = 1,
        .cluster_id = o->ca.cluster_id,
        .epoch = epoch,
        .kind = RECOVERY_RECOVER,
        .base_index = o->w.index,
        .base_term = o->w.term,
        .base_digest = blob_of(pos.digest, sizeof pos.digest),
        .voters = {.raw = buf_blob(&voters), .count = 1},
        .time_ms = o->w.now_ms,
    };
    if (change != NULL) {
        change(&s);
    }
    assert_int_equal(statement_sign(signer, &s, &bytes), 0);
    struct cmd c = fsm_envelope(&o->w, CMD_EPOCH_START);
    c.actor_kind = blob_str(ACTOR_OWNER);
    int rc = fsm_do_cmd(&o->w, c, &(struct epoch_start){.statement = buf_blob(&bytes)});
    buf_fini(&voters);
    buf_fini(&bytes);
    return rc;
}

static uint64_t epoch_of(struct owned *o)
{
    struct fsm_position pos;
    fsm_position(o->w.fsm, &pos);
    return pos.epoch;
}

static void test_epoch_starts_with_one_voter_and_everybody_else_joining(void **state)
{
    (void)state;
    struct owned o;
    owned_init(&o);
    assert_int_equal(start_epoch(&o, 2, NULL, o.ca.root_key), 0);
    assert_int_equal(epoch_of(&o), 2);
    assert_int_equal(fsm_count(&o.w, "SELECT count(*) FROM cluster_authorities a JOIN nodes n"
                                     " ON n.id = a.node_id WHERE a.status = 'voter'"
                                     " AND n.name = 'second'"),
                     1);
    assert_int_equal(
        fsm_count(&o.w, "SELECT count(*) FROM cluster_authorities WHERE status = 'joining'"), 2);
    assert_int_equal(fsm_count(&o.w, "SELECT count(*) FROM cluster_recoveries WHERE epoch = 2"), 1);
    assert_int_equal(fsm_count(&o.w, "SELECT count(*) FROM cluster_audit_events WHERE"
                                     " event_type = 'authority_recovered'"),
                     1);
    assert_int_equal(fsm_count(&o.w, "SELECT count(*) FROM cluster_authority_terms"
                                     " WHERE ended_at IS NULL"),
                     0);
    assert_int_equal(start_epoch(&o, 3, NULL, o.ca.root_key), 0); /* and again */
    owned_fini(&o);
}

static void another_base(struct recovery_statement *s)
{
    s->base_index--;
}

static void another_digest(struct recovery_statement *s)
{
    static const uint8_t digest[32] = {9};
    s->base_digest = blob_of(digest, sizeof digest);
}

static void another_voter(struct recovery_statement *s)
{
    static const uint8_t raw[18] = {0xc4, 16, 1, 2, 3};
    s->voters.raw = blob_of(raw, sizeof raw);
}

static void test_epoch_is_not_started_by_a_statement_that_does_not_fit(void **state)
{
    (void)state;
    struct owned o;
    owned_init(&o);
    assert_int_equal(start_epoch(&o, 2, NULL, o.ca.issuer_key), -ERR_BAD_SIGNATURE);
    assert_int_equal(start_epoch(&o, 3, NULL, o.ca.root_key), -ERR_CONFLICT);
    assert_int_equal(start_epoch(&o, 2, another_base, o.ca.root_key), -ERR_CONFLICT);
    assert_int_equal(start_epoch(&o, 2, another_digest, o.ca.root_key), -ERR_CONFLICT);
    assert_int_equal(start_epoch(&o, 2, another_voter, o.ca.root_key), -ERR_NOT_FOUND);
    assert_int_equal(epoch_of(&o), 1);
    assert_int_equal(
        fsm_count(&o.w, "SELECT count(*) FROM cluster_authorities WHERE status = 'voter'"), 3);
    owned_fini(&o);
}

/* --- reports and merges --- */

static int report(struct owned *o, uint64_t total, uint64_t first, uint32_t rows, const char *actor)
{
    struct fsm_fake third;
    struct buf raw;
    struct buf bytes;
    uint32_t count = 0;
    fsm_fake(3, &third);
    buf_init(&raw, CMD_BODY_MAX);
    buf_init(&bytes, CMD_BODY_MAX);
    for (uint32_t i = 0; i < rows; i++) {
        struct divergence_row row = {.log_index = 50 + first + i,
                                     .log_term = 3,
                                     .kind = blob_str("token_create"),
                                     .request_id = fsm_fake_id(4, i + 1)};
        msg_list_add(&divergence_row_desc, &row, &raw, &count);
    }
    struct divergence_report r = {.node_id = third.id,
                                  .epoch = 2,
                                  .from_epoch = 1,
                                  .common_index = 40,
                                  .last_index = 90,
                                  .last_term = 3,
                                  .rows_total = total,
                                  .first_row = first,
                                  .rows = {.raw = buf_blob(&raw), .count = count}};
    msg_encode(&divergence_report_desc, &r, &bytes);
    struct cmd c = fsm_envelope(&o->w, CMD_DIVERGENCE_REPORTED);
    c.actor_kind = blob_str(ACTOR_NODE);
    c.actor_id = blob_str(actor == NULL ? third.id_text : actor);
    int rc = fsm_do_cmd(&o->w, c, &(struct divergence_reported){.report = buf_blob(&bytes)});
    buf_fini(&raw);
    buf_fini(&bytes);
    return rc;
}

static int merge(struct owned *o, uint64_t rows, const struct pki_key *signer)
{
    struct fsm_fake third;
    uint8_t sig[PKI_SIG_BYTES];
    fsm_fake(3, &third);
    struct merge_consent consent = {
        .cluster_id = o->ca.cluster_id, .node_id = third.id, .epoch = 2, .rows = rows};
    consent_sign(signer, &consent, sig);
    return fsm_do(
        &o->w, CMD_PARTITION_MERGE,
        &(struct partition_merge){
            .node_id = third.id, .epoch = 2, .rows = rows, .signature = blob_of(sig, sizeof sig)});
}

static void test_report_comes_in_order_and_only_from_the_authority_itself(void **state)
{
    (void)state;
    struct owned o;
    struct fsm_fake second;
    owned_init(&o);
    fsm_fake(2, &second);
    assert_int_equal(report(&o, 3, 0, 2, NULL), -ERR_FENCED); /* it is still epoch 1 */
    assert_int_equal(start_epoch(&o, 2, NULL, o.ca.root_key), 0);
    assert_int_equal(report(&o, 3, 0, 2, second.id_text), -ERR_WRONG_NODE);
    assert_int_equal(report(&o, 3, 1, 2, NULL), -ERR_CONFLICT); /* a row is missing */
    assert_int_equal(report(&o, 3, 0, 2, NULL), 0);
    assert_int_equal(report(&o, 4, 2, 1, NULL), -ERR_CONFLICT);    /* another total */
    assert_int_equal(report(&o, 3, 2, 2, NULL), -ERR_CONFLICT);    /* more than announced */
    assert_int_equal(merge(&o, 3, o.ca.root_key), -ERR_NOT_FOUND); /* not complete */
    assert_int_equal(report(&o, 3, 2, 1, NULL), 0);
    assert_int_equal(fsm_count(&o.w, "SELECT count(*) FROM divergence_entries"), 3);
    assert_int_equal(fsm_count(&o.w, "SELECT count(*) FROM cluster_audit_events WHERE"
                                     " event_type = 'divergence_reported'"),
                     1);
    owned_fini(&o);
}

static void test_merge_needs_the_owner_and_the_report_that_was_shown(void **state)
{
    (void)state;
    struct owned o;
    owned_init(&o);
    assert_int_equal(start_epoch(&o, 2, NULL, o.ca.root_key), 0);
    assert_int_equal(merge(&o, 2, o.ca.root_key), -ERR_NOT_FOUND);
    assert_int_equal(report(&o, 2, 0, 2, NULL), 0);
    assert_int_equal(merge(&o, 2, o.ca.issuer_key), -ERR_BAD_SIGNATURE);
    assert_int_equal(merge(&o, 1, o.ca.root_key), -ERR_CONFLICT);
    assert_int_equal(merge(&o, 2, o.ca.root_key), 0);
    assert_int_equal(merge(&o, 2, o.ca.root_key), -ERR_DECIDED);
    owned_fini(&o);
}

/* S22, docs/decisions/0014 */
static void test_voter_without_its_log_votes_no_more_and_is_audited(void **state)
{
    (void)state;
    struct owned o;
    struct fsm_fake third;
    struct fsm_fake second;
    struct fsm_fake first;
    owned_init(&o);
    fsm_world_raise(&o.w);
    fsm_fake(1, &first);
    fsm_fake(2, &second);
    fsm_fake(3, &third);
    struct authority_damaged b = {.node_id = third.id, .why = blob_str("entry 7")};
    struct cmd c = fsm_envelope(&o.w, CMD_AUTHORITY_DAMAGED);
    c.actor_kind = blob_str(ACTOR_SYSTEM);
    assert_int_equal(fsm_do_cmd(&o.w, c, &b), 0);
    assert_int_equal(fsm_count(&o.w, "SELECT count(*) FROM cluster_authorities a JOIN nodes n"
                                     " ON n.id = a.node_id WHERE a.status = 'joining'"
                                     " AND n.name = 'third'"),
                     1);
    assert_int_equal(fsm_count(&o.w, "SELECT count(*) FROM cluster_audit_events WHERE event_type ="
                                     " 'authority_damaged' AND details LIKE '%entry 7%'"),
                     1);
    c = fsm_envelope(&o.w, CMD_AUTHORITY_DAMAGED);
    c.actor_kind = blob_str(ACTOR_SYSTEM);
    assert_int_equal(fsm_do_cmd(&o.w, c, &b), -ERR_CONFLICT); /* it votes no more */
    b.node_id = second.id;
    c = fsm_envelope(&o.w, CMD_AUTHORITY_DAMAGED);
    c.actor_kind = blob_str(ACTOR_SYSTEM);
    assert_int_equal(fsm_do_cmd(&o.w, c, &b), 0);
    b.node_id = first.id;
    c = fsm_envelope(&o.w, CMD_AUTHORITY_DAMAGED);
    c.actor_kind = blob_str(ACTOR_SYSTEM);
    assert_int_equal(fsm_do_cmd(&o.w, c, &b), -ERR_LAST_VOTER);
    owned_fini(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epoch_starts_with_one_voter_and_everybody_else_joining),
        cmocka_unit_test(test_epoch_is_not_started_by_a_statement_that_does_not_fit),
        cmocka_unit_test(test_report_comes_in_order_and_only_from_the_authority_itself),
        cmocka_unit_test(test_merge_needs_the_owner_and_the_report_that_was_shown),
        cmocka_unit_test(test_voter_without_its_log_votes_no_more_and_is_audited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
