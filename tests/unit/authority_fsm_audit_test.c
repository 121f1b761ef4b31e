/* What an entry leaves behind it: the audit chain and the feed of row changes (S16, AUD-01; DESIGN
 * D10, D12). */
#include "lib/fsm_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void must(struct fsm_world *w, int rc)
{
    if (rc != 0) {
        fail_msg("%s: %s", err_text(rc), fsm_doc_text(w, "detail"));
    }
}

/* --- the audit chain (S16) --- */

static void test_audit_chain_notices_an_edited_or_missing_row(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        const char *says;
    } cases[] = {
        {"UPDATE cluster_audit_events SET actor_id = 'uid:1' WHERE seq = 5", "row 5"},
        {"UPDATE cluster_audit_events SET details = '{}' WHERE seq = 5", "row 5"},
        {"UPDATE cluster_audit_events SET created_at = created_at + 1 WHERE seq = 5", "row 5"},
        {"UPDATE cluster_audit_events SET high_risk = 1 - high_risk WHERE seq = 5", "row 5"},
        {"UPDATE cluster_audit_events SET authority_term = 2 WHERE seq = 5", "row 5"},
        {"UPDATE cluster_audit_events SET id = 'x' WHERE seq = 5", "row 5"},
        {"UPDATE cluster_audit_events SET hash = prev_hash WHERE seq = 5", "row 5"},
        {"UPDATE cluster_audit_events SET organization_id = 'o' WHERE seq = 5", "row 5"},
        {"DELETE FROM cluster_audit_events WHERE seq = 5", "row 5"},
        {"DELETE FROM cluster_audit_events WHERE seq = 1", "row 1"},
        {"DELETE FROM cluster_audit_events"
         " WHERE seq = (SELECT max(seq) FROM cluster_audit_events)",
         "row 8"},
        {"DELETE FROM cluster_audit_events", "row 1"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fsm_world w;
        struct errmsg em = ERRMSG_INIT;
        struct buf doc;
        struct mp_writer m;
        fsm_world_init(&w);
        (void)fsm_make_node(&w, 7, "n7");
        (void)fsm_make_token(&w, 1, 1);
        assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events"), 8);
        buf_init(&doc, 4096);
        mp_writer_init(&m, &doc);
        assert_int_equal(fsm_audit_verify(w.fsm, &m, &em), 0);
        assert_int_equal(mp_find_int(buf_blob(&doc), "rows"), 8);
        struct mp_reader r;
        mp_reader_init(&r, mp_find(buf_blob(&doc), "ok"));
        assert_true(mp_get_bool(&r));
        assert_int_equal(db_exec(fsm_db(w.fsm), cases[i].sql, &em), 0);
        buf_clear(&doc);
        assert_int_equal(fsm_audit_verify(w.fsm, &m, &em), -ERR_CORRUPT);
        if (strstr(em.text, cases[i].says) == NULL) {
            fail_msg("%s: %s", cases[i].sql, em.text);
        }
        mp_reader_init(&r, mp_find(buf_blob(&doc), "ok"));
        assert_false(mp_get_bool(&r));
        assert_int_equal(r.err, 0);
        buf_fini(&doc);
        fsm_world_fini(&w);
    }
}

static void test_audit_rows_say_who_what_when_and_where_in_the_log(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    w.actor_id = "uid:1000";
    w.now_ms += 77;
    must(&w, fsm_do(&w, CMD_NODE_REVOKE,
                    &(struct node_revoke){.node_id = n, .reason = blob_str("a \"b\" \\c")}));
    char id[UUID_TEXT_MAX];
    char sql[600];
    uuid_format(&n, id);
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM cluster_audit_events WHERE event_type = 'node_revoked'"
                   " AND actor_kind = 'admin' AND actor_id = 'uid:1000' AND subject_type = 'node'"
                   " AND subject_id = '%s' AND high_risk = 1 AND authority_term = 1"
                   " AND authority_index = %llu AND created_at = %lld"
                   " AND json_extract(details, '$.reason') = 'a \"b\" \\c'",
                   id, (unsigned long long)w.index, (long long)w.now_ms);
    assert_int_equal(fsm_count(&w, sql), 1);
    fsm_world_fini(&w);
}

/* --- the change feed --- */

struct feed {
    char log[4096];
    size_t len;
    size_t count;
    char name[64];   /* of the last row of nodes */
    int64_t columns; /* of that row */
};

static void on_change(void *data, char op, const char *table, struct blob row)
{
    struct feed *f = data;
    if (strcmp(table, "nodes") == 0) {
        struct mp_reader columns;
        mp_find_str(row, "name", f->name, sizeof f->name);
        mp_reader_init(&columns, row);
        f->columns = mp_get_map(&columns, 64);
    }
    f->count++;
    f->len += (size_t)snprintf(f->log + f->len, sizeof f->log - f->len, "%c %s\n", op, table);
    assert_true(f->len < sizeof f->log);
    struct mp_reader r;
    mp_reader_init(&r, row);
    (void)mp_skip(&r);
    assert_int_equal(mp_reader_finish(&r), 0);
}

static void on_touch(void *data, char op, const char *table)
{
    struct feed *f = data;
    f->len += (size_t)snprintf(f->log + f->len, sizeof f->log - f->len, "%c %s\n", op, table);
    assert_true(f->len < sizeof f->log);
}

static void test_touch_feed_names_the_tables_without_their_rows(void **state)
{
    (void)state;
    struct fsm_world w;
    struct feed f = {.len = 0};
    fsm_world_init(&w);
    fsm_on_touch(w.fsm, on_touch, &f);
    (void)fsm_make_token(&w, 1, 1);
    assert_string_equal(f.log, "I node_join_tokens\n"
                               "I cluster_audit_events\n"
                               "I request_results\n"
                               "U authority_applied\n");
    assert_int_equal(f.count, 0);
    fsm_world_fini(&w);
}

static void test_change_feed_has_every_row_once_and_nothing_undone(void **state)
{
    (void)state;
    struct fsm_world w;
    struct feed f = {.len = 0};
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    fsm_on_change(w.fsm, on_change, &f);
    struct fsm_entry e;
    fsm_entry_begin(&e, 1);
    fsm_entry_add(&e, fsm_envelope(&w, CMD_NODE_RENAME),
                  &(struct node_rename){.node_id = n, .name = blob_str("edge")});
    /* Refused after it wrote. */
    fsm_entry_add(&e, fsm_envelope(&w, CMD_NODE_HEALTH),
                  &(struct node_health){.node_id = n,
                                        .health = blob_str("stale"),
                                        .capabilities = FSM_LIST("Bad Word")});
    fsm_world_apply(&w, &e, NULL, NULL);
    fsm_entry_fini(&e);
    assert_string_equal(f.log, "U nodes\n"
                               "I cluster_audit_events\n"
                               "I request_results\n"
                               "I request_results\n"
                               "U authority_applied\n");
    /* Whole rows by name, as they are after the change. */
    assert_string_equal(f.name, "edge");
    assert_int_equal(f.columns, fsm_count(&w, "SELECT count(*) FROM pragma_table_info('nodes')"));
    must(&w,
         fsm_do(&w, CMD_NODE_REVOKE, &(struct node_revoke){.node_id = n, .reason = blob_str("x")}));
    f = (struct feed){.len = 0};
    must(&w, fsm_do(&w, CMD_NODE_REMOVE, &(struct node_remove){.node_id = n}));
    assert_string_equal(f.log, "D node_capabilities\n"
                               "D node_capabilities\n"
                               "D node_identities\n"
                               "D cluster_memberships\n"
                               "D nodes\n"
                               "I cluster_audit_events\n"
                               "I request_results\n"
                               "U authority_applied\n");
    assert_string_equal(f.name, "edge"); /* of a deleted row: what it was */
    fsm_on_change(w.fsm, NULL, NULL);
    size_t count = f.count;
    (void)fsm_make_token(&w, 1, 1);
    assert_int_equal(f.count, count);
    fsm_world_fini(&w);
}

/* AUTH-01, AUTH-02, SEC-02: a list of its own, so that no row of CMD_KINDS changes it by accident. With a required
 * mirror these wait for PostgreSQL. */
static void test_what_changes_trust_rights_or_members_is_high_risk(void **state)
{
    (void)state;
    static const uint64_t high[] = {
        CMD_CLUSTER_INIT,     CMD_JOIN_APPROVE,    CMD_ROLE_ASSIGN,       CMD_ROLE_UNASSIGN,
        CMD_NODE_REVOKE,      CMD_NODE_REMOVE,     CMD_CERT_RENEW,        CMD_AUTHORITY_ADD,
        CMD_AUTHORITY_REMOVE, CMD_AUTHORITY_VOTE,  CMD_AUTHORITY_RENEW,   CMD_TRUST_ROTATE,
        CMD_CERT_POLICY,      CMD_MEMBERSHIP_SET,  CMD_CAPABILITY_VERIFY, CMD_CAPABILITY_POLICY,
        CMD_EPOCH_START,      CMD_PARTITION_MERGE, CMD_MIRROR_SET,        CMD_MIRROR_REBUILD,
        CMD_SPLIT_BEGIN,      CMD_SPLIT_FINISH,    CMD_MESH_SET,          CMD_INTENT_CREATE,
    };
    static const uint64_t low[] = {CMD_TOKEN_CREATE, CMD_TOKEN_REVOKE, CMD_JOIN_SUBMIT,
                                   CMD_JOIN_REJECT,  CMD_NODE_RENAME,  CMD_NODE_HEALTH,
                                   CMD_GROUP_CREATE, CMD_HEARTBEAT_LOG};
    for (size_t i = 0; i < ARRAY_SIZE(high); i++) {
        if (!cmd_kind_high_risk(high[i])) {
            fail_msg("%s is not high-risk", cmd_kind_name(high[i]));
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(low); i++) {
        assert_false(cmd_kind_high_risk(low[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_audit_chain_notices_an_edited_or_missing_row),
        cmocka_unit_test(test_audit_rows_say_who_what_when_and_where_in_the_log),
        cmocka_unit_test(test_what_changes_trust_rights_or_members_is_high_risk),
        cmocka_unit_test(test_touch_feed_names_the_tables_without_their_rows),
        cmocka_unit_test(test_change_feed_has_every_row_once_and_nothing_undone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
