/* Reads: documents, pages, names and prefixes (query.h). */
#include "authority/query.h"
#include "lib/fsm_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct answer {
    struct buf doc;
    int rc;
    struct errmsg em;
};

static struct answer ask(struct fsm_world *w, const char *kind, struct query_args args)
{
    struct answer a = {.em = ERRMSG_INIT};
    struct mp_writer m;
    buf_init(&a.doc, RPC_FRAME_MAX);
    mp_writer_init(&m, &a.doc);
    a.rc = query_run(w->fsm, kind, &args, &m, &a.em);
    if (a.rc == 0) { /* one whole document, always */
        struct mp_reader r;
        mp_reader_init(&r, buf_blob(&a.doc));
        (void)mp_skip(&r);
        assert_int_equal(mp_reader_finish(&r), 0);
    } else {
        assert_string_not_equal(a.em.text, "");
    }
    return a;
}

static const char *text(struct blob doc, const char *key)
{
    static char ring[4][512];
    static int next;
    char *out = ring[next++ % 4];
    mp_find_str(doc, key, out, sizeof ring[0]);
    return out;
}

static uint32_t items_count(const struct answer *a)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(buf_blob(&a->doc), "items"));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    assert_int_equal(r.err, 0);
    return n;
}

static struct blob item(const struct answer *a, uint32_t i)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(buf_blob(&a->doc), "items"));
    (void)mp_get_array(&r, UINT32_MAX);
    while (i-- > 0) {
        (void)mp_skip(&r);
    }
    return mp_skip(&r);
}

static bool has_key(struct blob doc, const char *key)
{
    return mp_find(doc, key).len > 0;
}

/* Everything a page says, by name: a column that is not listed here is not shown. */
static void check_keys(struct blob doc, const char *const *want)
{
    struct mp_reader r;
    mp_reader_init(&r, doc);
    uint32_t n = mp_get_map(&r, 64);
    uint32_t wanted = 0;
    for (; want[wanted] != NULL; wanted++) {
        if (!has_key(doc, want[wanted])) {
            fail_msg("no %s", want[wanted]);
        }
    }
    assert_int_equal(n, wanted);
}

static void make_things(struct fsm_world *w)
{
    fsm_world_init(w);
    struct uuid n7 = fsm_make_node(w, 7, "n7");
    (void)fsm_make_authority(w, 8, "a8");
    (void)fsm_make_token(w, 1, 3);
    (void)fsm_make_request(w, 50, "waiting", 1);
    assert_int_equal(fsm_do(w, CMD_ROLE_ASSIGN,
                            &(struct role_assign){.assignment_id = fsm_fake_id(5, 1),
                                                  .node_id = n7,
                                                  .role = blob_str("relay-node")}),
                     0);
    w->actor_kind = ACTOR_SYSTEM;
    assert_int_equal(fsm_do(w, CMD_NODE_HEALTH,
                            &(struct node_health){.node_id = n7,
                                                  .health = blob_str("healthy"),
                                                  .last_seen_ms = w->now_ms}),
                     0);
    assert_int_equal(
        fsm_do(w, CMD_TERM_START, &(struct term_start){.term = 1, .leader_id = fsm_fake_id(1, 1)}),
        0);
    w->actor_kind = ACTOR_ADMIN;
}

static void test_documents_have_these_keys_and_no_other(void **state)
{
    (void)state;
    static const char *const token[] = {
        "id",       "cluster_id", "scope",      "scope_roles",        "scope_name", "expires_at",
        "max_uses", "used_count", "created_at", "created_by_user_id", "revoked_at", NULL};
    static const char *const request[] = {"id",
                                          "cluster_id",
                                          "node_name",
                                          "node_fingerprint",
                                          "status",
                                          "reported_facts",
                                          "reported_capabilities",
                                          "requested_roles",
                                          "address",
                                          "source_address",
                                          "join_token_id",
                                          "created_at",
                                          "expires_at",
                                          "reviewed_at",
                                          "reviewed_by_user_id",
                                          "approved_node_id",
                                          "rejection_reason",
                                          NULL};
    static const char *const node[] = {"id",
                                       "name",
                                       "fingerprint",
                                       "enrollment_status",
                                       "health_status",
                                       "identity_state",
                                       "membership_status",
                                       "roles",
                                       "capabilities",
                                       "address",
                                       "agent_version",
                                       "certificate_serial",
                                       "certificate_not_before",
                                       "certificate_not_after",
                                       "certificate_expires_at",
                                       "joined_at",
                                       "last_seen_at",
                                       "facts",
                                       "authority",
                                       NULL};
    static const char *const role[] = {
        "id",          "cluster_id",      "node_id",         "node_name",
        "role",        "organization_id", "status",          "assigned_by_user_id",
        "assigned_at", "policy",          "authority_index", NULL};
    static const char *const authority[] = {"node_id",  "cluster_id",         "name",
                                            "address",  "issuer_fingerprint", "status",
                                            "added_at", "removed_at",         NULL};
    static const char *const audit[] = {"seq",
                                        "id",
                                        "cluster_id",
                                        "organization_id",
                                        "event_type",
                                        "actor_kind",
                                        "actor_id",
                                        "subject_type",
                                        "subject_id",
                                        "high_risk",
                                        "details",
                                        "authority_term",
                                        "authority_index",
                                        "created_at",
                                        "prev_hash",
                                        "hash",
                                        NULL};
    static const char *const term[] = {"cluster_id",  "epoch",      "term",     "leader_node_id",
                                       "leader_name", "started_at", "ended_at", NULL};
    static const char *const membership[] = {"cluster_id",        "node_id",   "node_name",
                                             "membership_status", "joined_at", "last_seen_at",
                                             "group_id",          NULL};
    static const struct {
        const char *kind;
        const char *const *keys;
        uint32_t count;
    } cases[] = {
        {"tokens", token, 3}, {"requests", request, 3},       {"nodes", node, 3},
        {"roles", role, 3},   {"authorities", authority, 2},  {"audit", audit, 0},
        {"terms", term, 1},   {"memberships", membership, 3},
    };
    struct fsm_world w;
    make_things(&w);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct answer a = ask(&w, cases[i].kind, (struct query_args){.limit = 500});
        assert_int_equal(a.rc, 0);
        if (cases[i].count != 0) {
            assert_int_equal(items_count(&a), cases[i].count);
        }
        check_keys(item(&a, 0), cases[i].keys);
        assert_null(memmem(a.doc.data, a.doc.len, "token_hash", 10));
        assert_null(memmem(a.doc.data, a.doc.len, "public_key", 10));
        buf_fini(&a.doc);
    }
    fsm_world_fini(&w);
}

static void test_values_are_typed_for_people(void **state)
{
    (void)state;
    struct fsm_world w;
    struct mp_reader r;
    make_things(&w);
    struct answer a = ask(&w, "nodes", (struct query_args){.id = "n7"});
    assert_int_equal(a.rc, 0);
    struct blob doc = buf_blob(&a.doc);
    assert_string_equal(text(doc, "joined_at"), "2026-05-28T20:26:40.000Z");
    assert_string_equal(text(doc, "last_seen_at"), "2026-05-28T20:26:40.000Z");
    assert_string_equal(text(doc, "certificate_expires_at"), "2026-06-27T20:26:40.000Z");
    assert_string_equal(text(doc, "facts"), "{\"os\":\"debian\"}");
    assert_string_equal(text(doc, "health_status"), "healthy");
    mp_reader_init(&r, mp_find(doc, "roles"));
    assert_int_equal(mp_get_array(&r, 9), 1);
    assert_true(blob_equal(mp_get_str(&r, 99), blob_str("relay-node")));
    mp_reader_init(&r, mp_find(doc, "capabilities"));
    assert_int_equal(mp_get_array(&r, 9), 2);
    assert_true(blob_equal(mp_get_str(&r, 99), blob_str("can_accept_client_ingress")));
    mp_reader_init(&r, mp_find(doc, "authority"));
    assert_int_equal(mp_peek(&r), MP_BOOL);
    assert_false(mp_get_bool(&r));
    mp_reader_init(&r, mp_find(doc, "agent_version"));
    assert_int_equal(mp_peek(&r), MP_NIL);
    buf_fini(&a.doc);
    a = ask(&w, "nodes", (struct query_args){.id = "a8"});
    mp_reader_init(&r, mp_find(buf_blob(&a.doc), "authority"));
    assert_true(mp_get_bool(&r));
    buf_fini(&a.doc);
    a = ask(&w, "requests", (struct query_args){.id = "waiting"});
    mp_reader_init(&r, mp_find(buf_blob(&a.doc), "requested_roles"));
    assert_int_equal(mp_get_array(&r, 9), 0);
    assert_int_equal(r.err, 0);
    buf_fini(&a.doc);
    a = ask(&w, "cluster", (struct query_args){.limit = 0});
    assert_int_equal(a.rc, 0);
    assert_string_equal(text(buf_blob(&a.doc), "name"), "lab");
    assert_int_equal(mp_find_int(buf_blob(&a.doc), "nodes_count"), 3);
    assert_int_equal(mp_find_int(buf_blob(&a.doc), "pending_requests_count"), 1);
    assert_int_equal(mp_find_int(buf_blob(&a.doc), "index"), w.index);
    buf_fini(&a.doc);
    fsm_world_fini(&w);
}

static void test_things_are_found_by_id_name_and_unique_prefix(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_fake n7;
    struct fsm_fake n9;
    make_things(&w);
    fsm_fake(7, &n7);
    fsm_fake(9, &n9);
    (void)fsm_make_node(&w, 9, "n9");
    char common[64];
    char unique[64];
    (void)snprintf(common, sizeof common, "%.8s", n7.id_text);
    (void)snprintf(unique, sizeof unique, "%.13s", n7.id_text); /* the stamps differ there */
    const struct {
        const char *kind, *id;
        int rc;
    } cases[] = {
        {"nodes", n7.id_text, 0},
        {"nodes", "n7", 0},
        {"nodes", unique, 0},
        {"nodes", common, -ERR_AMBIGUOUS},
        {"nodes", "n", -ERR_NOT_FOUND},
        {"nodes", "n77", -ERR_NOT_FOUND},
        {"nodes", "019", -ERR_NOT_FOUND}, /* shorter than a prefix may be */
        {"nodes", "", -ERR_NOT_FOUND},
        {"nodes", "n7' OR '1'='1", -ERR_NOT_FOUND},
        {"nodes", "%", -ERR_NOT_FOUND},
        {"nodes", "ffffffff-ffff-7fff-bfff-ffffffffffff", -ERR_NOT_FOUND},
        {"authorities", "seed", 0},
        {"authorities", "a8", 0},
        {"authorities", "n7", -ERR_NOT_FOUND},
        {"requests", "waiting", 0},
        {"requests", "n9", 0}, /* decided, and the only one of that name */
        {"requests", "nobody", -ERR_NOT_FOUND},
        {"tokens", "n7", -ERR_NOT_FOUND},
        {"roles", NULL, 0},
        {"dragons", NULL, -ERR_NOT_FOUND},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct answer a = ask(&w, cases[i].kind, (struct query_args){.id = cases[i].id});
        if (a.rc != cases[i].rc) {
            fail_msg("%s %s: %s (%s)", cases[i].kind, cases[i].id, err_text(a.rc), a.em.text);
        }
        if (a.rc == 0 && cases[i].id != NULL && strcmp(cases[i].kind, "nodes") == 0) {
            assert_string_equal(text(buf_blob(&a.doc), "id"), n7.id_text);
        }
        buf_fini(&a.doc);
    }
    fsm_world_fini(&w);
}

static void test_name_means_the_enrolled_node_when_a_revoked_one_had_it(void **state)
{
    (void)state;
    struct fsm_world w;
    make_things(&w);
    struct uuid old = fsm_make_node(&w, 20, "edge");
    assert_int_equal(
        fsm_do(&w, CMD_NODE_REVOKE, &(struct node_revoke){.node_id = old, .reason = blob_str("x")}),
        0);
    struct answer a = ask(&w, "nodes", (struct query_args){.id = "edge"});
    assert_string_equal(text(buf_blob(&a.doc), "enrollment_status"), "revoked");
    buf_fini(&a.doc);
    (void)fsm_make_node(&w, 21, "edge");
    a = ask(&w, "nodes", (struct query_args){.id = "edge"});
    assert_string_equal(text(buf_blob(&a.doc), "enrollment_status"), "enrolled");
    buf_fini(&a.doc);
    fsm_world_fini(&w);
}

/* Pages add up to the whole, whatever the size, in one order, even when rows come in between. */
static void walk(struct fsm_world *w, const char *kind, uint32_t limit, uint32_t want,
                 struct query_args args)
{
    char cursor[128] = "";
    char last[128] = "";
    uint32_t seen = 0;
    const char *key = strcmp(kind, "authorities") == 0 || strcmp(kind, "memberships") == 0
                          ? "node_id"
                          : "id";
    for (int guard = 0; guard < 1000; guard++) {
        args.limit = limit;
        args.cursor = cursor[0] == '\0' ? NULL : cursor;
        struct answer a = ask(w, kind, args);
        if (a.rc != 0) {
            fail_msg("%s: %s", kind, a.em.text);
        }
        uint32_t n = items_count(&a);
        assert_true(n <= limit);
        for (uint32_t i = 0; i < n; i++) {
            const char *id = text(item(&a, i), key);
            if (strcmp(kind, "audit") != 0 && strcmp(kind, "terms") != 0) {
                assert_true(strcmp(last, id) < 0);
                (void)snprintf(last, sizeof last, "%s", id);
            } else if (strcmp(kind, "audit") == 0) {
                assert_true(mp_find_int(item(&a, i), "seq") > seen);
            }
        }
        seen += n;
        (void)snprintf(cursor, sizeof cursor, "%s", text(buf_blob(&a.doc), "next_cursor"));
        buf_fini(&a.doc);
        if (cursor[0] == '\0') {
            assert_int_equal(seen, want);
            return;
        }
        assert_int_equal(n, limit);
    }
    fail_msg("%s: pages without end", kind);
}

static void test_pages_add_up_to_the_whole(void **state)
{
    (void)state;
    struct fsm_world w;
    make_things(&w);
    for (uint32_t i = 0; i < 7; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "m%u", i);
        (void)fsm_make_node(&w, 100 + i, name);
    }
    for (uint64_t t = 2; t < 9; t++) {
        w.term = t;
        assert_int_equal(fsm_do(&w, CMD_TERM_START,
                                &(struct term_start){.term = t, .leader_id = fsm_fake_id(1, 1)}),
                         0);
    }
    uint32_t audit = (uint32_t)fsm_count(&w, "SELECT count(*) FROM cluster_audit_events");
    static const uint32_t limits[] = {1, 2, 3, 10, 500};
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        walk(&w, "nodes", limits[i], 10, (struct query_args){.limit = 0});
        walk(&w, "tokens", limits[i], 10, (struct query_args){.limit = 0});
        walk(&w, "requests", limits[i], 10, (struct query_args){.limit = 0});
        walk(&w, "requests", limits[i], 9, (struct query_args){.status = "approved"});
        walk(&w, "requests", limits[i], 1, (struct query_args){.status = "pending"});
        walk(&w, "requests", limits[i], 0, (struct query_args){.status = "nonsense"});
        walk(&w, "authorities", limits[i], 2, (struct query_args){.limit = 0});
        walk(&w, "memberships", limits[i], 10, (struct query_args){.limit = 0});
        walk(&w, "roles", limits[i], 3, (struct query_args){.limit = 0});
        walk(&w, "roles", limits[i], 1, (struct query_args){.node = "n7"});
        walk(&w, "roles", limits[i], 0, (struct query_args){.node = "m0"});
        walk(&w, "terms", limits[i], 8, (struct query_args){.limit = 0});
        walk(&w, "audit", limits[i], audit, (struct query_args){.limit = 0});
        walk(&w, "audit", limits[i], 9, (struct query_args){.event_type = "join_approved"});
    }
    struct fsm_fake n7;
    fsm_fake(7, &n7);
    walk(&w, "audit", 2, 3, (struct query_args){.subject_id = n7.id_text});
    walk(&w, "audit", 2, 1,
         (struct query_args){.subject_id = n7.id_text, .event_type = "role_assigned"});
    /* AUD-03: a node's timeline begins with the request it joined by, and goes on after its end. */
    walk(&w, "audit", 2, 5, (struct query_args){.node = "n7"});
    walk(&w, "audit", 2, 1, (struct query_args){.node = "n7", .category = "roles"});
    walk(&w, "audit", 2, 2, (struct query_args){.node = n7.id_text, .category = "membership"});
    walk(&w, "audit", 3,
         (uint32_t)fsm_count(&w, "SELECT count(*) FROM cluster_audit_events"
                                 " WHERE event_type LIKE 'certificate%'"),
         (struct query_args){.category = "certificates"});
    const struct uuid id = n7.id;
    assert_int_equal(fsm_do(&w, CMD_NODE_REVOKE,
                            &(struct node_revoke){.node_id = id, .reason = blob_str("lost")}),
                     0);
    assert_int_equal(fsm_do(&w, CMD_NODE_REMOVE, &(struct node_remove){.node_id = id}), 0);
    walk(&w, "audit", 2, 8, (struct query_args){.node = n7.id_text});
    walk(&w, "audit", 2, 2, (struct query_args){.node = n7.id_text, .category = "security"});
    fsm_world_fini(&w);
}

static void test_next_page_does_not_move_when_rows_come_and_go(void **state)
{
    (void)state;
    struct fsm_world w;
    make_things(&w);
    for (uint32_t i = 0; i < 4; i++) {
        (void)fsm_make_token(&w, 10 + 2 * i, 1);
    }
    struct answer a = ask(&w, "tokens", (struct query_args){.limit = 3});
    char cursor[128];
    (void)snprintf(cursor, sizeof cursor, "%s", text(buf_blob(&a.doc), "next_cursor"));
    buf_fini(&a.doc);
    a = ask(&w, "tokens", (struct query_args){.limit = 1, .cursor = cursor});
    char next[64];
    (void)snprintf(next, sizeof next, "%s", text(item(&a, 0), "id"));
    buf_fini(&a.doc);
    (void)fsm_make_token(&w, 3, 1); /* sorts before the cursor */
    a = ask(&w, "tokens", (struct query_args){.limit = 1, .cursor = cursor});
    assert_string_equal(text(item(&a, 0), "id"), next);
    buf_fini(&a.doc);
    fsm_world_fini(&w);
}

static void test_bad_arguments_are_refused(void **state)
{
    (void)state;
    struct fsm_world w;
    make_things(&w);
    const struct {
        const char *kind;
        struct query_args args;
        int rc;
    } cases[] = {
        {"nodes", {.limit = PAGE_MAX + 1}, -ERR_TOO_LARGE},
        {"audit", {.limit = UINT32_MAX}, -ERR_TOO_LARGE},
        {"terms", {.limit = UINT32_MAX}, -ERR_TOO_LARGE},
        {"audit", {.cursor = "x"}, -ERR_INVALID},
        {"audit", {.category = "gossip"}, -ERR_INVALID},
        {"audit", {.node = "nobody"}, -ERR_NOT_FOUND},
        {"audit", {.cursor = "-1"}, -ERR_INVALID},
        {"audit", {.cursor = "99999999999999999999999"}, -ERR_INVALID},
        {"terms", {.cursor = "1"}, -ERR_INVALID},
        {"terms", {.cursor = "1.x"}, -ERR_INVALID},
        {"terms", {.cursor = ".1"}, -ERR_INVALID},
        {"roles", {.node = "nobody"}, -ERR_NOT_FOUND},
        {"nodes", {.cursor = "'; DROP TABLE nodes"}, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct answer a = ask(&w, cases[i].kind, cases[i].args);
        if (a.rc != cases[i].rc) {
            fail_msg("case %zu: %s (%s)", i, err_text(a.rc), a.em.text);
        }
        buf_fini(&a.doc);
    }
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM nodes"), 3);
    fsm_world_fini(&w);
}

static void test_no_cluster_is_not_found_and_lists_are_empty(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init_empty(&w);
    struct answer a = ask(&w, "cluster", (struct query_args){.limit = 0});
    assert_int_equal(a.rc, -ERR_NOT_FOUND);
    buf_fini(&a.doc);
    a = ask(&w, "nodes", (struct query_args){.limit = 0});
    assert_int_equal(a.rc, 0);
    assert_int_equal(items_count(&a), 0);
    buf_fini(&a.doc);
    fsm_world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents_have_these_keys_and_no_other),
        cmocka_unit_test(test_values_are_typed_for_people),
        cmocka_unit_test(test_things_are_found_by_id_name_and_unique_prefix),
        cmocka_unit_test(test_name_means_the_enrolled_node_when_a_revoked_one_had_it),
        cmocka_unit_test(test_pages_add_up_to_the_whole),
        cmocka_unit_test(test_next_page_does_not_move_when_rows_come_and_go),
        cmocka_unit_test(test_bad_arguments_are_refused),
        cmocka_unit_test(test_no_cluster_is_not_found_and_lists_are_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
