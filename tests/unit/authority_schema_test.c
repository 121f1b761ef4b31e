/* The tables that people and programs rely on, in the replicated state of the newest level, with their columns
 * (SPEC section c; CLU-01, MEM-01, NODE-01, IDN-01, TOK-01, ENR-01, ROLE-01, HB-01, GRP-01, AUD-01, AUTH-06,
 * AUTH-07). PostgreSQL has what the state has: tests/tools checks that. */
#include "lib/fsm_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct {
    const char *table, *columns;
} promised[] = {
    {"clusters",
     "id name slug status region metadata created_at updated_at config_version test_telemetry"},
    {"cluster_memberships",
     "cluster_id node_id membership_status joined_at last_seen_at metadata group_id"},
    {"nodes",
     "id name fingerprint enrollment_status health_status identity_state owner_kind organization_id"
     " agent_version update_state facts test_telemetry"},
    {"node_identities", "cluster_id node_id public_key certificate_serial certificate_not_before"
                        " certificate_not_after identity_status rotated_at revoked_at root_id"},
    {"cluster_trust_roots", "cluster_id root_id certificate status created_at retired_at"},
    {"node_join_tokens",
     "id cluster_id token_hash scope expires_at max_uses used_count created_by_user_id"
     " revoked_at"},
    {"node_join_requests",
     "id cluster_id node_name node_fingerprint public_key reported_capabilities reported_facts"
     " requested_roles status reviewed_by_user_id reviewed_at approved_node_id rejection_reason"
     " join_token_id"},
    {"node_capabilities", "node_id capability verified reported_at verified_at"},
    {"node_role_assignments",
     "id cluster_id node_id role organization_id status assigned_by_user_id"
     " assigned_at policy authority_index"},
    {"node_heartbeats", "cluster_id node_id observed_at received_at health version partition_state"
                        " config_version telemetry"},
    {"node_groups", "id cluster_id parent_group_id name kind"},
    {"cluster_audit_events", "id cluster_id organization_id actor_kind actor_id event_type "
                             "subject_type subject_id high_risk"
                             " details authority_term authority_index created_at"},
    {"cluster_partitions",
     "id cluster_id members has_quorum status detected_at resolved_at resolution"
     " resolved_by"},
    {"cluster_authority_terms", "cluster_id epoch term leader_node_id started_at ended_at"},
    {"authority_applied", "cluster_id epoch term index"},
};

static bool has_column(struct db *db, const char *table, const char *column, size_t len)
{
    struct db_stmt *st = db_prepare(
        db, "SELECT count(*) AS n FROM pragma_table_info(?) WHERE name = ?");
    db_bind_text(st, table);
    db_bind_textn(st, column, len);
    assert_int_equal(db_step(st), 1);
    bool has = db_col_int(st, "n") == 1;
    db_done(st);
    return has;
}

static void test_tables_have_the_columns_that_were_promised(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    fsm_world_raise(&w);
    for (size_t i = 0; i < ARRAY_SIZE(promised); i++) {
        size_t len;
        for (const char *c = promised[i].columns; *c != '\0'; c += len + (c[len] == ' ')) {
            len = strcspn(c, " ");
            if (!has_column(fsm_db(w.fsm), promised[i].table, c, len)) {
                fail_msg("%s lacks %.*s", promised[i].table, (int)len, c);
            }
        }
    }
    assert_false(has_column(fsm_db(w.fsm), "nodes", "no_such_column", 14));
    fsm_world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_have_the_columns_that_were_promised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
