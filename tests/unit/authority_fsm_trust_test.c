/* Roots in rotation, renewed CAs, alarms about what runs out (SPEC IDN-04, IDN-05, AUD-01). */
#include "authority/expiry.h"
#include "authority/fsm_impl.h"
#include "lib/fsm_fixture.h"
#include "wire/node_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Root number n: 1 is that of the fixture's cluster. */
static void root_id(uint32_t n, uint8_t ret[32])
{
    char text[32];
    (void)snprintf(text, sizeof text, n == 1 ? "root" : "root %u", n);
    pki_sha256(blob_str(text), ret);
}

static int owner_do(struct fsm_world *w, uint64_t kind, const void *body)
{
    struct cmd c = fsm_envelope(w, kind);
    c.actor_kind = blob_str(ACTOR_OWNER);
    return fsm_do_cmd(w, c, body);
}

/* Numbers of roots; other 0: none. CAs are numbered 1000 * root + authority. */
struct step {
    uint64_t seq;
    uint32_t active, other;
    enum trust_root_status other_status;
    const uint32_t *issuers; /* authorities, up to 0; NULL: none */
    bool force;
};

static int rotate(struct fsm_world *w, const struct step *s)
{
    uint8_t active[32];
    uint8_t other[32];
    struct buf list;
    uint32_t count = 0;
    root_id(s->active, active);
    root_id(s->other, other);
    buf_init(&list, CMD_BODY_MAX);
    for (const uint32_t *a = s->issuers; a != NULL && *a != 0; a++) {
        char text[32];
        struct fsm_fake k;
        fsm_fake(*a, &k);
        const struct trust_issuer item = {.node_id = k.id,
                                          .der = fsm_fake_issuer(1000 * s->active + *a, text)};
        msg_list_add(&trust_issuer_desc, &item, &list, &count);
    }
    const struct trust_rotate body = {
        .seq = s->seq,
        .record = blob_str("make-believe record"),
        .active_id = blob_of(active, 32),
        .other_id = s->other == 0 ? blob_of(NULL, 0) : blob_of(other, 32),
        .other_status = s->other == 0 ? 0 : s->other_status,
        .new_root_der = s->other_status == TRUST_ROOT_PREPARED ? blob_str("make-believe root 2")
                                                               : blob_of(NULL, 0),
        .issuers = {.raw = buf_blob(&list), .count = count},
        .force = s->force,
    };
    int rc = owner_do(w, CMD_TRUST_ROTATE, &body);
    buf_fini(&list);
    return rc;
}

static const uint32_t seed_only[] = {1, 0};
static const struct step prepare = {1, 1, 2, TRUST_ROOT_PREPARED, NULL, false};
static const struct step activate = {2, 2, 1, TRUST_ROOT_RETIRING, seed_only, false};
static const struct step retire = {3, 2, 0, 0, NULL, false};

static const char *status_of(struct fsm_world *w, uint32_t n)
{
    static char text[32];
    uint8_t id[32];
    char hex[65];
    root_id(n, id);
    struct db_stmt *st = db_prepare(fsm_db(w->fsm),
                                    "SELECT status FROM cluster_trust_roots WHERE root_id = ?");
    db_bind_text(st, fsm_hex(blob_of(id, 32), hex));
    (void)snprintf(text, sizeof text, "%s", db_step(st) == 1 ? db_col_text(st, "status") : "-");
    db_done(st);
    return text;
}

/* A new certificate for node `key` under CA number `issuer`. */
static int renew(struct fsm_world *w, uint32_t key, uint32_t issuer, uint32_t serial)
{
    struct fsm_fake k;
    fsm_fake(key, &k);
    const struct cert_renew body = {.node_id = k.id,
                                    .cert = fsm_fake_cert(&(struct fsm_fake_cert){
                                        .key = key, .issuer = issuer, .serial = serial})};
    return fsm_do(w, CMD_CERT_RENEW, &body);
}

static void world(struct fsm_world *w)
{
    fsm_world_init(w);
    fsm_world_raise_to(w, LEVEL_MEMBERS); /* make-believe records and CAs */
}

static void test_rotation_goes_through_its_phases(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    (void)fsm_make_node(&w, 2, "n2");
    assert_int_equal(rotate(&w, &prepare), 0);
    assert_string_equal(fsm_doc_text(&w, "phase"), "prepare");
    assert_string_equal(status_of(&w, 2), "prepared");
    assert_int_equal(rotate(&w, &activate), 0);
    assert_string_equal(status_of(&w, 1), "retiring");
    assert_string_equal(status_of(&w, 2), "active");
    assert_int_equal(rotate(&w, &retire), -ERR_CONFLICT); /* both nodes are under the old root */
    assert_int_equal(renew(&w, 1, 2001, 900001), 0);
    assert_int_equal(renew(&w, 2, 2001, 900002), 0);
    assert_int_equal(rotate(&w, &retire), 0);
    assert_string_equal(status_of(&w, 1), "retired");
    assert_int_equal(fsm_count(&w,
                               "SELECT count(*) FROM node_identities i JOIN cluster_trust_roots r"
                               " USING (root_id) WHERE r.status = 'retired' AND"
                               " i.identity_status IN ('active', 'rotating')"),
                     0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events WHERE high_risk = 1"
                                   " AND actor_kind = 'owner' AND event_type LIKE 'trust_root_%'"),
                     3);
    fsm_world_fini(&w);
}

static void test_rotation_rolls_back_step_by_step(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    assert_int_equal(rotate(&w, &prepare), 0);
    assert_int_equal(rotate(&w, &activate), 0);
    assert_int_equal(renew(&w, 1, 2001, 900001), 0);
    assert_int_equal(rotate(&w, &(struct step){3, 1, 2, TRUST_ROOT_PREPARED, seed_only, false}), 0);
    assert_string_equal(fsm_doc_text(&w, "phase"), "rollback");
    assert_string_equal(status_of(&w, 1), "active");
    assert_string_equal(status_of(&w, 2), "prepared");
    const struct step withdraw = {4, 1, 0, 0, NULL, false};
    assert_int_equal(rotate(&w, &withdraw), -ERR_CONFLICT); /* the seed is still under root 2 */
    assert_int_equal(renew(&w, 1, 1001, 900002), 0);
    assert_int_equal(rotate(&w, &withdraw), 0);
    assert_string_equal(status_of(&w, 2), "withdrawn");
    /* A root that was withdrawn does not come back. */
    assert_int_equal(rotate(&w, &(struct step){5, 1, 2, TRUST_ROOT_PREPARED, NULL, false}),
                     -ERR_CONFLICT);
    fsm_world_fini(&w);
}

static void test_steps_out_of_order_are_refused_and_audited(void **state)
{
    static const struct step bad[] = {
        {1, 2, 1, TRUST_ROOT_RETIRING, seed_only, false}, /* activate what is not prepared */
        {1, 1, 0, 0, NULL, false},                        /* retire nothing */
        {2, 1, 2, TRUST_ROOT_PREPARED, NULL, false},      /* a record that does not follow */
        {1, 1, 2, TRUST_ROOT_RETIRING, NULL, false},
        {1, 2, 0, 0, NULL, true},
    };
    struct fsm_world w;
    (void)state;
    world(&w);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(rotate(&w, &bad[i]), -ERR_CONFLICT);
    }
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_trust_roots"), 1);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_trust_records"), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events"
                                   " WHERE event_type = 'command_refused'"),
                     (int64_t)ARRAY_SIZE(bad));
    /* Nor may anybody but the owner. */
    uint8_t id[32];
    root_id(1, id);
    const struct trust_rotate body = {
        .seq = 1, .record = blob_str("r"), .active_id = blob_of(id, 32)};
    assert_int_equal(fsm_do(&w, CMD_TRUST_ROTATE, &body), -ERR_DENIED);
    fsm_world_fini(&w);
}

static void test_activation_needs_a_ca_for_every_authority_and_no_other(void **state)
{
    static const uint32_t lists[][4] = {{1}, {1, 1}, {1, 3}, {1, 2, 3}, {2}};
    struct fsm_world w;
    (void)state;
    world(&w);
    (void)fsm_make_authority(&w, 2, "a2");
    (void)fsm_make_node(&w, 3, "n3");
    assert_int_equal(rotate(&w, &prepare), 0);
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        struct step s = activate;
        s.issuers = lists[i];
        assert_int_equal(rotate(&w, &s), -ERR_CONFLICT);
        assert_string_equal(status_of(&w, 1), "active");
    }
    struct step s = activate;
    s.issuers = (const uint32_t[]){2, 1, 0};
    assert_int_equal(rotate(&w, &s), 0);
    /* What the CAs signed under the old root still comes in, until it is retired. */
    assert_int_equal(renew(&w, 3, 1, 900003), 0);
    assert_int_equal(renew(&w, 3, 2002, 900004), 0);
    assert_int_equal(renew(&w, 3, 77, 900005), -ERR_NOT_AUTHORITY);
    fsm_world_fini(&w);
}

static void test_force_leaves_a_node_behind_without_a_certificate(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    (void)fsm_make_node(&w, 2, "n2");
    assert_int_equal(rotate(&w, &prepare), 0);
    assert_int_equal(rotate(&w, &activate), 0);
    assert_int_equal(renew(&w, 1, 2001, 900001), 0);
    struct step s = retire;
    assert_int_equal(rotate(&w, &s), -ERR_CONFLICT);
    s.force = true;
    assert_int_equal(rotate(&w, &s), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_identities"
                                   " WHERE identity_status = 'active'"),
                     1);
    assert_int_equal(renew(&w, 2, 1, 900002), -ERR_NOT_AUTHORITY);
    fsm_world_fini(&w);
}

static int renew_ca(struct fsm_world *w, uint32_t authority, uint32_t key, uint32_t root)
{
    char text[32];
    uint8_t fingerprint[32];
    uint8_t id[32];
    struct fsm_fake k;
    fsm_fake(authority, &k);
    fsm_fake_issuer_fingerprint(key, fingerprint);
    root_id(root, id);
    const struct authority_renew body = {.node_id = k.id,
                                         .issuer_der = fsm_fake_issuer(5000 + authority, text),
                                         .issuer_fingerprint = blob_of(fingerprint, 32),
                                         .root_id = blob_of(id, 32)};
    return owner_do(w, CMD_AUTHORITY_RENEW, &body);
}

static void test_renewed_ca_overlaps_with_the_one_before(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    (void)fsm_make_authority(&w, 2, "a2");
    (void)fsm_make_node(&w, 3, "n3");
    assert_int_equal(renew_ca(&w, 2, 1, 1), -ERR_FINGERPRINT); /* another key */
    assert_int_equal(renew_ca(&w, 2, 2, 9), -ERR_BAD_CERT);    /* another root */
    assert_int_equal(renew_ca(&w, 3, 3, 1), -ERR_NOT_FOUND);   /* no authority */
    assert_int_equal(renew_ca(&w, 2, 2, 1), 0);
    assert_int_equal(renew(&w, 3, 2, 900001), 0);
    assert_int_equal(renew(&w, 3, 5002, 900002), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events"
                                   " WHERE event_type = 'issuer_renewed' AND high_risk = 1"),
                     1);
    fsm_world_fini(&w);
}

static int alarm_at(struct fsm_world *w, const char *severity)
{
    struct cmd c = fsm_envelope(w, CMD_CERT_ALARM);
    c.actor_kind = blob_str(ACTOR_SYSTEM);
    const struct cert_alarm body = {.subject_kind = blob_str("node"),
                                    .subject_id = blob_str("some-node"),
                                    .severity = blob_str(severity),
                                    .not_after_ms = w->now_ms + 1000};
    return fsm_do_cmd(w, c, &body);
}

static void test_alarm_is_audited_once_each_time_a_threshold_is_crossed(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    assert_int_equal(alarm_at(&w, "ok"), -ERR_CONFLICT);
    assert_int_equal(alarm_at(&w, "warning"), 0);
    assert_int_equal(alarm_at(&w, "warning"), -ERR_CONFLICT);
    assert_int_equal(alarm_at(&w, "critical"), 0);
    assert_int_equal(alarm_at(&w, "expired"), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM certificate_alarms"), 1);
    assert_int_equal(alarm_at(&w, "ok"), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM certificate_alarms"), 0);
    assert_int_equal(alarm_at(&w, "loud"), -ERR_INVALID);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events"
                                   " WHERE subject_id = 'some-node'"),
                     4);
    fsm_world_fini(&w);
}

static void test_leaf_life_has_bounds(void **state)
{
    struct fsm_world w;
    (void)state;
    world(&w);
    struct cert_policy p = {.leaf_life_ms = LEAF_LIFE_MIN_MS - 1};
    assert_int_equal(fsm_do(&w, CMD_CERT_POLICY, &p), -ERR_INVALID);
    p.leaf_life_ms = LEAF_LIFE_MAX_MS + 1;
    assert_int_equal(fsm_do(&w, CMD_CERT_POLICY, &p), -ERR_INVALID);
    p.leaf_life_ms = LEAF_LIFE_MIN_MS;
    assert_int_equal(fsm_do(&w, CMD_CERT_POLICY, &p), 0);
    assert_int_equal(fsm_count(&w, "SELECT leaf_life_ms FROM clusters"), LEAF_LIFE_MIN_MS);
    fsm_world_fini(&w);
}

/* CLU-02: the rows there were are there still, and complete. */
static void test_level_raise_keeps_and_completes_what_there_was(void **state)
{
    struct fsm_world w;
    (void)state;
    fsm_world_init(&w);
    (void)fsm_make_authority(&w, 2, "a2");
    assert_int_equal(renew(&w, 2, 2, 900001), 0);
    fsm_world_raise_to(&w, LEVEL_MEMBERS);
    assert_string_equal(status_of(&w, 1), "active");
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_trust_roots"), 1);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_authorities a"
                                   " JOIN cluster_trust_roots r USING (root_id)"),
                     2);
    assert_int_equal(rotate(&w, &prepare), 0);
    fsm_world_fini(&w);
}

static void test_severity_is_by_the_part_of_life_that_is_left(void **state)
{
    static const int64_t day = 86400000;
    static const struct {
        enum pki_cert_kind kind;
        int64_t life_days, left_days;
        const char *want;
    } cases[] = {
        {PKI_LEAF, 30, 11, "ok"},         {PKI_LEAF, 30, 7, "warning"},
        {PKI_LEAF, 30, 2, "critical"},    {PKI_LEAF, 30, 0, "expired"},
        {PKI_LEAF, 30, -5, "expired"},    {PKI_ISSUER, 365, 92, "ok"},
        {PKI_ISSUER, 365, 91, "warning"}, {PKI_ISSUER, 365, 30, "critical"},
        {PKI_ROOT, 3652, 366, "ok"},      {PKI_ROOT, 3652, 365, "warning"},
        {PKI_ROOT, 3652, 91, "critical"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_string_equal(expiry_severity(cases[i].kind, 0, cases[i].life_days * day,
                                            (cases[i].life_days - cases[i].left_days) * day),
                            cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rotation_goes_through_its_phases),
        cmocka_unit_test(test_rotation_rolls_back_step_by_step),
        cmocka_unit_test(test_steps_out_of_order_are_refused_and_audited),
        cmocka_unit_test(test_activation_needs_a_ca_for_every_authority_and_no_other),
        cmocka_unit_test(test_force_leaves_a_node_behind_without_a_certificate),
        cmocka_unit_test(test_renewed_ca_overlaps_with_the_one_before),
        cmocka_unit_test(test_alarm_is_audited_once_each_time_a_threshold_is_crossed),
        cmocka_unit_test(test_leaf_life_has_bounds),
        cmocka_unit_test(test_level_raise_keeps_and_completes_what_there_was),
        cmocka_unit_test(test_severity_is_by_the_part_of_life_that_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
