/* Join requests decided: approved, rejected, expired, denied (DESIGN section 5; S5, S7; ENR). */
#include "lib/fsm_fixture.h"

#include "base/text.h"
#include "pki/pki.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define PENDING "SELECT count(*) FROM node_join_requests WHERE status = 'pending'"
#define AUDIT "SELECT count(*) FROM cluster_audit_events"

static void must(struct fsm_world *w, int rc)
{
    if (rc != 0) {
        fail_msg("%s: %s", err_text(rc), fsm_doc_text(w, "detail"));
    }
}

static void check_refused(struct fsm_world *w, const char *name, int rc, int want)
{
    if (rc != want) {
        fail_msg("%s: %s (%s), wanted %s", name, err_slug(rc), fsm_doc_text(w, "detail"),
                 err_slug(want));
    }
    if (fsm_doc_text(w, "detail")[0] == '\0') {
        fail_msg("%s: a refusal says why", name);
    }
}

static struct join_approve approval(struct fsm_world *w, uint32_t key)
{
    (void)w;
    struct fsm_fake k;
    fsm_fake(key, &k);
    return (struct join_approve){
        .join_id = fsm_fake_id(4, key),
        .node_id = k.id,
        .cert = fsm_fake_cert(
            &(struct fsm_fake_cert){.key = key, .issuer = 1, .serial = 500 + key}),
    };
}

static void test_join_approve_makes_node_identity_and_membership(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_position before;
    struct fsm_position after;
    fsm_world_init(&w);
    (void)fsm_make_token(&w, 1, 1);
    (void)fsm_make_request(&w, 50, "new", 1);
    fsm_position(w.fsm, &before);
    struct join_approve b = approval(&w, 50);
    must(&w, fsm_do(&w, CMD_JOIN_APPROVE, &b));
    assert_string_equal(fsm_doc_text(&w, "status"), "approved");
    char node[1024];
    struct blob doc = mp_find(buf_blob(&w.doc), "node");
    assert_true(doc.len > 0);
    mp_find_str(doc, "name", node, sizeof node);
    assert_string_equal(node, "new");
    struct mp_reader r;
    mp_reader_init(&r, mp_find(doc, "roles")); /* ENR-04: approval grants no role */
    assert_int_equal(mp_get_array(&r, 9), 0);
    assert_int_equal(r.err, 0);
    mp_reader_init(&r, mp_find(doc, "capabilities"));
    assert_int_equal(mp_get_array(&r, 9), 2);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_identities WHERE identity_status ="
                                   " 'active' AND length(certificate) > 0"),
                     2);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_memberships WHERE"
                                   " membership_status = 'active'"),
                     2);
    assert_int_equal(fsm_count(&w, "SELECT sum(verified) FROM node_capabilities"), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events WHERE event_type IN"
                                   " ('join_approved', 'certificate_issued') AND authority_index ="
                                   " (SELECT max(authority_index) FROM cluster_audit_events)"),
                     2);
    fsm_position(w.fsm, &after);
    /* Nobody else's snapshot says anything new. */
    assert_int_equal(after.config_index, before.config_index);
    assert_int_equal(fsm_count(&w, "SELECT max(config_index) FROM nodes"), w.index);
    fsm_world_fini(&w);
}

struct approve_case {
    const char *name;
    void (*bend)(struct fsm_world *w, struct join_approve *b);
    int rc;
};
static void ac_unknown(struct fsm_world *w, struct join_approve *b)
{
    (void)w;
    b->join_id = fsm_fake_id(4, 1234);
}
static void ac_approved(struct fsm_world *w, struct join_approve *b)
{
    must(w, fsm_do(w, CMD_JOIN_APPROVE, b));
    b->node_id = fsm_fake_id(1, 1234);
}
static void ac_rejected(struct fsm_world *w, struct join_approve *b)
{
    must(w, fsm_do(w, CMD_JOIN_REJECT,
                   &(struct join_reject){.join_id = b->join_id, .reason = blob_str("no")}));
}
static void ac_expired(struct fsm_world *w, struct join_approve *b)
{
    (void)b;
    w->now_ms += FSM_HOUR;
}
static void ac_marked_expired(struct fsm_world *w, struct join_approve *b)
{
    ac_expired(w, b);
    must(w, fsm_do(w, CMD_JOIN_EXPIRE, &(struct join_expire){.before_ms = w->now_ms}));
}
/* S7: the key swapped between submit and approve. */
static void ac_other_key(struct fsm_world *w, struct join_approve *b)
{
    (void)w;
    b->cert = fsm_fake_cert(&(struct fsm_fake_cert){.key = 51, .issuer = 1, .serial = 500});
}
static void ac_serial(struct fsm_world *w, struct join_approve *b)
{
    (void)w;
    b->cert = fsm_fake_cert(&(struct fsm_fake_cert){.key = 50, .issuer = 1, .serial = 1});
}
static void ac_issuer(struct fsm_world *w, struct join_approve *b)
{
    (void)w;
    b->cert = fsm_fake_cert(&(struct fsm_fake_cert){.key = 50, .issuer = 66, .serial = 500});
}
static void ac_over(struct fsm_world *w, struct join_approve *b)
{
    b->cert = fsm_fake_cert(
        &(struct fsm_fake_cert){.key = 50, .issuer = 1, .serial = 500, .not_after_ms = w->now_ms});
}
static void ac_node_id(struct fsm_world *w, struct join_approve *b)
{
    (void)w;
    struct fsm_fake seed;
    fsm_fake(1, &seed);
    b->node_id = seed.id;
}
static void ac_renamed_into(struct fsm_world *w, struct join_approve *b)
{
    /* Names are checked when a node is renamed, so this cannot come about by commands. */
    struct errmsg em;
    (void)b;
    assert_int_equal(db_exec(fsm_db(w->fsm), "UPDATE nodes SET name = 'new'", &em), 0);
}

static void test_join_approve_refusals_leave_everything_as_it_was(void **state)
{
    (void)state;
    static const struct approve_case cases[] = {
        {"unknown request", ac_unknown, -ERR_NOT_FOUND},
        {"approved already", ac_approved, -ERR_DECIDED},
        {"rejected already", ac_rejected, -ERR_DECIDED},
        {"over", ac_expired, -ERR_EXPIRED},
        {"marked as expired", ac_marked_expired, -ERR_DECIDED},
        {"certificate for another key", ac_other_key, -ERR_FINGERPRINT},
        {"serial in use", ac_serial, -ERR_EXISTS},
        {"issuer that is no authority", ac_issuer, -ERR_NOT_AUTHORITY},
        {"certificate that is over", ac_over, -ERR_BAD_CERT},
        {"node id in use", ac_node_id, -ERR_CONFLICT},
        {"name in use", ac_renamed_into, -ERR_NAME_TAKEN},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fsm_world w;
        fsm_world_init(&w);
        (void)fsm_make_token(&w, 1, 1);
        (void)fsm_make_request(&w, 50, "new", 1);
        struct join_approve b = approval(&w, 50);
        cases[i].bend(&w, &b);
        int64_t nodes = fsm_count(&w, "SELECT count(*) FROM nodes");
        int64_t pending = fsm_count(&w, PENDING);
        int64_t audit = fsm_count(&w, AUDIT);
        check_refused(&w, cases[i].name, fsm_do(&w, CMD_JOIN_APPROVE, &b), cases[i].rc);
        assert_int_equal(fsm_count(&w, "SELECT count(*) FROM nodes"), nodes);
        assert_int_equal(fsm_count(&w, PENDING), pending);
        assert_int_equal(fsm_count(&w, AUDIT), audit + 1); /* the refusal itself */
        assert_int_equal(fsm_audit_verify(w.fsm, NULL, NULL), 0);
        fsm_world_fini(&w);
    }
}

static void test_join_reject_keeps_the_reason_and_decides_once(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    (void)fsm_make_token(&w, 1, 1);
    struct join_reject b = {.join_id = fsm_make_request(&w, 50, "new", 1),
                            .reason = blob_str("who is \"this\"?")};
    struct cmd c = fsm_envelope(&w, CMD_JOIN_REJECT);
    must(&w, fsm_do_cmd(&w, c, &b));
    assert_string_equal(fsm_doc_text(&w, "rejection_reason"), "who is \"this\"?");
    assert_string_equal(fsm_doc_text(&w, "reviewed_by_user_id"), "uid:0");
    /* ENR-04: repeats of the same call are idempotent, another decision is not. */
    must(&w, fsm_do_cmd(&w, c, &b));
    assert_true(w.replayed);
    check_refused(&w, "again", fsm_do(&w, CMD_JOIN_REJECT, &b), -ERR_DECIDED);
    b.join_id = fsm_fake_id(4, 777);
    check_refused(&w, "unknown", fsm_do(&w, CMD_JOIN_REJECT, &b), -ERR_NOT_FOUND);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events WHERE event_type ="
                                   " 'join_rejected' AND json_extract(details, '$.reason') ="
                                   " 'who is \"this\"?'"),
                     1);
    fsm_world_fini(&w);
}

static void test_join_expire_takes_only_what_is_over_and_goes_in_steps(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    (void)fsm_make_token(&w, 1, 1000);
    for (uint32_t i = 0; i < 260; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "h%u", i);
        (void)fsm_make_request(&w, 300 + i, name, 1);
    }
    w.now_ms += FSM_HOUR / 2;
    (void)fsm_make_request(&w, 50, "younger", 1);
    must(&w, fsm_do(&w, CMD_JOIN_EXPIRE, &(struct join_expire){.before_ms = w.now_ms}));
    assert_int_equal(mp_find_int(buf_blob(&w.doc), "expired"), 0);
    /* The stamp bounds it: a leader cannot expire what is not over. */
    must(&w, fsm_do(&w, CMD_JOIN_EXPIRE, &(struct join_expire){.before_ms = w.now_ms + FSM_HOUR}));
    assert_int_equal(mp_find_int(buf_blob(&w.doc), "expired"), 0);
    w.now_ms += FSM_HOUR / 2;
    struct join_expire b = {.before_ms = w.now_ms};
    must(&w, fsm_do(&w, CMD_JOIN_EXPIRE, &b));
    assert_int_equal(mp_find_int(buf_blob(&w.doc), "expired"), 256);
    assert_int_equal(fsm_count(&w, PENDING), 5);
    must(&w, fsm_do(&w, CMD_JOIN_EXPIRE, &b));
    assert_int_equal(mp_find_int(buf_blob(&w.doc), "expired"), 4);
    assert_int_equal(fsm_count(&w, PENDING), 1);
    /* The name and the key are free again. */
    (void)fsm_make_token(&w, 2, 1);
    struct join_submit again = fsm_submit(&w, 300, "h0", 2);
    again.join_id = fsm_fake_id(4, 9999);
    must(&w, fsm_do(&w, CMD_JOIN_SUBMIT, &again));
    fsm_world_fini(&w);
}

/* What an older leader proposes still becomes the row it became then. */
static void test_join_denied_is_audit_and_nothing_else(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_position a;
    struct fsm_position b;
    fsm_world_init(&w);
    fsm_position(w.fsm, &a);
    w.actor_kind = ACTOR_SYSTEM;
    must(&w, fsm_do(&w, CMD_JOIN_DENIED,
                    &(struct join_denied){.error = ERR_BAD_CSR,
                                          .source_address = blob_str("192.0.2.1:1"),
                                          .node_name = blob_str("x")}));
    fsm_position(w.fsm, &b);
    assert_int_equal(b.audit_seq, a.audit_seq + 1);
    assert_int_equal(b.config_index, a.config_index);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events WHERE event_type ="
                                   " 'join_denied' AND details = '{\"error\":\"bad_csr\","
                                   "\"source_address\":\"192.0.2.1:1\",\"node_name\":\"x\","
                                   "\"node_fingerprint\":\"\"}'"),
                     1);
    fsm_world_fini(&w);
}

static void test_a_refusal_is_audit_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        enum refusal_what what;
        const char *event, *key;
    } rows[] = {
        {REFUSAL_JOIN, "join_denied", "$.node_name"},
        {REFUSAL_HANDSHAKE, "handshake_refused", "$.service"},
        {REFUSAL_SERVICE, "service_refused", "$.service"},
        {REFUSAL_COMMAND, "command_refused", "$.command"},
        {REFUSAL_UNLISTED, "refusals_unlisted", "$.service"},
    };
    struct fsm_world w;
    fsm_world_init(&w);
    fsm_world_raise(&w);
    w.actor_kind = ACTOR_SYSTEM;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fsm_position a;
        struct fsm_position b;
        char sql[512];
        fsm_position(w.fsm, &a);
        must(&w, fsm_do(&w, CMD_REFUSAL_NOTED,
                        &(struct refusal_noted){.what = rows[i].what,
                                                .error = ERR_BAD_CSR,
                                                .count = 7,
                                                .since_ms = w.now_ms,
                                                .subject = blob_str("x"),
                                                .source_address = blob_str("192.0.2.1:1"),
                                                .actor_kind = blob_str("admin"),
                                                .actor_id = blob_str("uid:7")}));
        fsm_position(w.fsm, &b);
        assert_int_equal(b.audit_seq, a.audit_seq + 1);
        assert_int_equal(b.config_index, a.config_index);
        (void)snprintf(sql, sizeof sql,
                       "SELECT count(*) FROM cluster_audit_events WHERE event_type = '%s'"
                       " AND json_extract(details, '$.error') = 'bad_csr'"
                       " AND json_extract(details, '$.count') = 7"
                       " AND json_extract(details, '%s') = 'x'"
                       " AND actor_kind = 'admin' AND actor_id = 'uid:7'",
                       rows[i].event, rows[i].key);
        assert_int_equal(fsm_count(&w, sql), 1);
    }
    /* The leader alone notes them, and knows what it notes. */
    struct refusal_noted odd = {.what = 99, .error = ERR_BAD_CSR, .count = 1, .since_ms = 1};
    assert_int_equal(fsm_do(&w, CMD_REFUSAL_NOTED, &odd), -ERR_INVALID);
    w.actor_kind = ACTOR_NODE;
    odd.what = REFUSAL_JOIN;
    assert_int_equal(fsm_do(&w, CMD_REFUSAL_NOTED, &odd), -ERR_DENIED);
    fsm_world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_join_approve_makes_node_identity_and_membership),
        cmocka_unit_test(test_join_approve_refusals_leave_everything_as_it_was),
        cmocka_unit_test(test_join_reject_keeps_the_reason_and_decides_once),
        cmocka_unit_test(test_join_expire_takes_only_what_is_over_and_goes_in_steps),
        cmocka_unit_test(test_join_denied_is_audit_and_nothing_else),
        cmocka_unit_test(test_a_refusal_is_audit_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
