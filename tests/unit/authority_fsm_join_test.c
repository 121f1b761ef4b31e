/* Tokens and join requests: every way in, every refusal (DESIGN section 5; S6; TOK, ENR). */
#include "lib/fsm_fixture.h"

#include "base/text.h"
#include "pki/pki.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define PENDING "SELECT count(*) FROM node_join_requests WHERE status = 'pending'"
#define REQUESTS "SELECT count(*) FROM node_join_requests"
#define USES "SELECT used_count FROM node_join_tokens WHERE token_hash IS NOT NULL LIMIT 1"
#define AUDIT "SELECT count(*) FROM cluster_audit_events"
#define DENIALS "SELECT count(*) FROM cluster_audit_events WHERE event_type = 'join_denied'"

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

/* --- tokens --- */

struct token_case {
    const char *name;
    void (*bend)(struct fsm_world *w, struct token_create *b);
    int rc;
};

static void tc_past(struct fsm_world *w, struct token_create *b)
{
    b->expires_at_ms = w->now_ms;
}
static void tc_far(struct fsm_world *w, struct token_create *b)
{
    b->expires_at_ms = w->now_ms + TOKEN_TTL_MAX_MS + 1;
}
static void tc_uses(struct fsm_world *w, struct token_create *b)
{
    (void)w;
    b->max_uses = TOKEN_USES_MAX + 1;
}
static void tc_role(struct fsm_world *w, struct token_create *b)
{
    (void)w;
    b->scope_roles = FSM_LIST("relay-node", "king");
}
static void tc_not_text(struct fsm_world *w, struct token_create *b)
{
    (void)w;
    static const uint8_t one_int[] = {7};
    b->scope_roles = (struct mp_list){.raw = blob_of(one_int, 1), .count = 1};
}
static void tc_name(struct fsm_world *w, struct token_create *b)
{
    (void)w;
    b->scope_name = blob_str("Not-A-Name");
}
static void tc_same_id(struct fsm_world *w, struct token_create *b)
{
    b->token_id = fsm_make_token(w, 9, 1);
}
static void tc_same_hash(struct fsm_world *w, struct token_create *b)
{
    (void)b;
    (void)fsm_make_token(w, 1, 1);
    b->token_id = fsm_fake_id(3, 99);
}

static void test_token_create_refusals(void **state)
{
    (void)state;
    static const struct token_case cases[] = {
        {"expired when made", tc_past, -ERR_INVALID},
        {"longer than 30 days", tc_far, -ERR_INVALID},
        {"too many uses", tc_uses, -ERR_INVALID},
        {"unknown role", tc_role, -ERR_ROLE_UNKNOWN},
        {"role that is not text", tc_not_text, -ERR_INVALID},
        {"bad name", tc_name, -ERR_INVALID},
        {"id in use", tc_same_id, -ERR_CONFLICT},
        {"hash in use", tc_same_hash, -ERR_CONFLICT},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fsm_world w;
        uint8_t hash[32];
        fsm_world_init(&w);
        fsm_fake_token(1, hash);
        struct token_create b = {
            .token_id = fsm_fake_id(3, 1),
            .token_hash = blob_of(hash, 32),
            .expires_at_ms = w.now_ms + 1,
            .max_uses = 1,
        };
        cases[i].bend(&w, &b);
        int64_t rows = fsm_count(&w, "SELECT count(*) FROM node_join_tokens");
        check_refused(&w, cases[i].name, fsm_do(&w, CMD_TOKEN_CREATE, &b), cases[i].rc);
        assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_join_tokens"), rows);
        fsm_world_fini(&w);
    }
}

static void test_token_create_shows_scope_but_never_the_hash(void **state)
{
    (void)state;
    struct fsm_world w;
    uint8_t hash[32];
    char hex[65];
    fsm_world_init(&w);
    fsm_fake_token(1, hash);
    hex_encode(hash, 32, hex);
    must(&w, fsm_do(&w, CMD_TOKEN_CREATE,
                    &(struct token_create){
                        .token_id = fsm_fake_id(3, 1),
                        .token_hash = blob_of(hash, 32),
                        .expires_at_ms = w.now_ms + TOKEN_TTL_MAX_MS,
                        .max_uses = TOKEN_USES_MAX,
                        .scope_roles = FSM_LIST("relay-node", "web-ingress", "relay-node"),
                        .scope_name = blob_str("edge-1"),
                    }));
    assert_string_equal(fsm_doc_text(&w, "scope_name"), "edge-1");
    assert_string_equal(fsm_doc_text(&w, "created_by_user_id"), "uid:0");
    assert_string_equal(fsm_doc_text(&w, "scope"),
                        "{\"name\":\"edge-1\",\"roles\":[\"relay-node\",\"web-ingress\"]}");
    assert_int_equal(mp_find_int(buf_blob(&w.doc), "max_uses"), TOKEN_USES_MAX);
    struct mp_reader r;
    mp_reader_init(&r, mp_find(buf_blob(&w.doc), "scope_roles"));
    assert_int_equal(mp_get_array(&r, 9), 2);
    /* TOK-02: nothing a client ever sees. */
    assert_null(memmem(w.doc.data, w.doc.len, hex, 64));
    assert_null(memmem(w.doc.data, w.doc.len, hash, 32));
    fsm_world_fini(&w);
}

static void test_token_revoke(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct token_revoke b = {.token_id = fsm_make_token(&w, 1, 1)};
    w.now_ms += 5;
    must(&w, fsm_do(&w, CMD_TOKEN_REVOKE, &b));
    assert_string_equal(fsm_doc_text(&w, "revoked_at"), "2026-05-28T20:26:40.005Z");
    check_refused(&w, "again", fsm_do(&w, CMD_TOKEN_REVOKE, &b), -ERR_DECIDED);
    b.token_id = fsm_fake_id(3, 77);
    check_refused(&w, "unknown", fsm_do(&w, CMD_TOKEN_REVOKE, &b), -ERR_NOT_FOUND);
    fsm_world_fini(&w);
}

/* --- join_submit --- */

struct submit_case {
    const char *name;
    void (*bend)(struct fsm_world *w, struct join_submit *b);
    int rc;
};

static void sc_none(struct fsm_world *w, struct join_submit *b)
{
    (void)w;
    (void)b;
}
static void sc_unknown_token(struct fsm_world *w, struct join_submit *b)
{
    (void)w;
    static uint8_t hash[32];
    fsm_fake_token(55, hash);
    b->token_hash = blob_of(hash, 32);
}
/* S6: the stamp decides, to the millisecond. */
static void sc_last_moment(struct fsm_world *w, struct join_submit *b)
{
    w->now_ms += FSM_HOUR - 1;
    b->expires_at_ms = w->now_ms + 1;
}
static void sc_expired_token(struct fsm_world *w, struct join_submit *b)
{
    w->now_ms += FSM_HOUR;
    b->expires_at_ms = w->now_ms + FSM_HOUR;
}
static void sc_revoked_token(struct fsm_world *w, struct join_submit *b)
{
    (void)b;
    must(w, fsm_do(w, CMD_TOKEN_REVOKE, &(struct token_revoke){.token_id = fsm_fake_id(3, 1)}));
}
static void sc_used_token(struct fsm_world *w, struct join_submit *b)
{
    (void)b;
    (void)fsm_make_request(w, 70, "other-a", 1);
    (void)fsm_make_request(w, 71, "other-b", 1);
}
static void sc_one_use_left(struct fsm_world *w, struct join_submit *b)
{
    (void)b;
    (void)fsm_make_request(w, 70, "other-a", 1);
}
static uint8_t scoped_hash[32];
static void make_scoped(struct fsm_world *w, struct join_submit *b)
{
    fsm_fake_token(2, scoped_hash);
    must(w, fsm_do(w, CMD_TOKEN_CREATE,
                   &(struct token_create){
                       .token_id = fsm_fake_id(3, 2),
                       .token_hash = blob_of(scoped_hash, 32),
                       .expires_at_ms = w->now_ms + FSM_HOUR,
                       .max_uses = 1,
                       .scope_roles = FSM_LIST("relay-node"),
                       .scope_name = blob_str("edge"),
                   }));
    b->token_hash = blob_of(scoped_hash, 32);
    b->node_name = blob_str("edge");
}
static void sc_scope_name(struct fsm_world *w, struct join_submit *b)
{
    make_scoped(w, b);
    b->node_name = blob_str("edge-2");
}
static void sc_scope_role(struct fsm_world *w, struct join_submit *b)
{
    make_scoped(w, b);
    b->requested_roles = FSM_LIST("relay-node", "web-ingress");
}
static void sc_in_scope(struct fsm_world *w, struct join_submit *b)
{
    make_scoped(w, b);
    b->requested_roles = FSM_LIST("relay-node");
}
static void use_key(struct join_submit *b, uint32_t key)
{
    static struct fsm_fake k;
    fsm_fake(key, &k);
    b->public_key = blob_of(k.public_key, 32);
    b->fingerprint = blob_of(k.fingerprint, 32);
}
static void sc_key_known(struct fsm_world *w, struct join_submit *b)
{
    (void)fsm_make_node(w, 60, "older");
    use_key(b, 60);
}
static void sc_key_revoked(struct fsm_world *w, struct join_submit *b)
{
    struct uuid id = fsm_make_node(w, 60, "older");
    must(w, fsm_do(w, CMD_NODE_REVOKE,
                   &(struct node_revoke){.node_id = id, .reason = blob_str("stolen")}));
    use_key(b, 60);
}
/* S8: also after the node is out of every list. */
static void sc_key_removed(struct fsm_world *w, struct join_submit *b)
{
    sc_key_revoked(w, b);
    struct fsm_fake k;
    fsm_fake(60, &k);
    must(w, fsm_do(w, CMD_NODE_REMOVE, &(struct node_remove){.node_id = k.id}));
}
static void sc_key_pending_elsewhere(struct fsm_world *w, struct join_submit *b)
{
    (void)b;
    (void)fsm_make_token(w, 3, 1);
    (void)fsm_make_request(w, 50, "first-try", 3);
    b->join_id = fsm_fake_id(4, 999);
}
static void sc_name_of_node(struct fsm_world *w, struct join_submit *b)
{
    (void)w;
    b->node_name = blob_str("seed");
}
static void sc_name_of_request(struct fsm_world *w, struct join_submit *b)
{
    (void)b;
    (void)fsm_make_request(w, 70, "new", 1);
}
static void sc_name_of_revoked_node(struct fsm_world *w, struct join_submit *b)
{
    sc_key_revoked(w, b);
    use_key(b, 50);
    b->node_name = blob_str("older");
}
static void sc_name_bad(struct fsm_world *w, struct join_submit *b)
{
    (void)w;
    b->node_name = blob_str("-new");
}
static void sc_fingerprint(struct fsm_world *w, struct join_submit *b)
{
    (void)w;
    static struct fsm_fake k;
    fsm_fake(51, &k);
    b->fingerprint = blob_of(k.fingerprint, 32);
}
static void sc_over(struct fsm_world *w, struct join_submit *b)
{
    b->expires_at_ms = w->now_ms;
}
static void sc_role_unknown(struct fsm_world *w, struct join_submit *b)
{
    (void)w;
    b->requested_roles = FSM_LIST("king");
}
static void sc_capability_shape(struct fsm_world *w, struct join_submit *b)
{
    (void)w;
    b->capabilities = FSM_LIST("can\"quote");
}
/* An agent of a newer version may know more than we do. */
static void sc_capability_new(struct fsm_world *w, struct join_submit *b)
{
    (void)w;
    b->capabilities = FSM_LIST("can_do_what_comes_next");
}

static const struct submit_case submit_cases[] = {
    {"plain", sc_none, 0},
    {"unknown token", sc_unknown_token, -ERR_TOKEN_UNKNOWN},
    {"a millisecond before expiry", sc_last_moment, 0},
    {"expired token", sc_expired_token, -ERR_TOKEN_EXPIRED},
    {"revoked token", sc_revoked_token, -ERR_TOKEN_REVOKED},
    {"used token", sc_used_token, -ERR_TOKEN_USED},
    {"last use", sc_one_use_left, 0},
    {"name outside scope", sc_scope_name, -ERR_TOKEN_SCOPE},
    {"role outside scope", sc_scope_role, -ERR_TOKEN_SCOPE},
    {"inside scope", sc_in_scope, 0},
    {"key of a node", sc_key_known, -ERR_KEY_KNOWN},
    {"revoked key", sc_key_revoked, -ERR_KEY_REVOKED},
    {"revoked key of a removed node", sc_key_removed, -ERR_KEY_REVOKED},
    {"key pending under another token", sc_key_pending_elsewhere, -ERR_EXISTS},
    {"name of a node", sc_name_of_node, -ERR_NAME_TAKEN},
    {"name of a request", sc_name_of_request, -ERR_NAME_TAKEN},
    {"name of a revoked node", sc_name_of_revoked_node, 0},
    {"bad name", sc_name_bad, -ERR_INVALID},
    {"fingerprint of another key", sc_fingerprint, -ERR_FINGERPRINT},
    {"over before it began", sc_over, -ERR_EXPIRED},
    {"unknown role", sc_role_unknown, -ERR_ROLE_UNKNOWN},
    {"capability that is no word", sc_capability_shape, -ERR_INVALID},
    {"capability of a newer agent", sc_capability_new, 0},
};

static void test_join_submit_refusals_are_distinct_and_audited(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(submit_cases); i++) {
        const struct submit_case *c = &submit_cases[i];
        struct fsm_world w;
        fsm_world_init(&w);
        (void)fsm_make_token(&w, 1, 2);
        struct join_submit b = fsm_submit(&w, 50, "new", 1);
        c->bend(&w, &b);
        int64_t requests = fsm_count(&w, REQUESTS);
        int64_t uses = fsm_count(&w, "SELECT sum(used_count) FROM node_join_tokens");
        int64_t denials = fsm_count(&w, DENIALS);
        /* The leader, which asks first, hears the same, and nothing changes. */
        struct errmsg em = ERRMSG_INIT;
        assert_int_equal(fsm_check_join(w.fsm, &b, w.now_ms, &em), c->rc);
        assert_int_equal(em.text[0] != '\0', c->rc != 0);
        int rc = fsm_do(&w, CMD_JOIN_SUBMIT, &b);
        if (c->rc == 0) {
            must(&w, rc);
            assert_string_equal(fsm_doc_text(&w, "status"), "pending");
        } else {
            check_refused(&w, c->name, rc, c->rc);
        }
        int64_t made = c->rc == 0;
        if (fsm_count(&w, REQUESTS) != requests + made ||
            fsm_count(&w, "SELECT sum(used_count) FROM node_join_tokens") != uses + made ||
            fsm_count(&w, DENIALS) != denials + !made) {
            fail_msg("%s: requests, uses or audit rows are wrong", c->name);
        }
        /* S6: uses = requests that cite the token. */
        assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_join_tokens t WHERE used_count <>"
                                       " (SELECT count(*) FROM node_join_requests r"
                                       "  WHERE r.join_token_id = t.id)"),
                         0);
        assert_int_equal(fsm_audit_verify(w.fsm, NULL, NULL), 0);
        fsm_world_fini(&w);
    }
}

static void test_join_submitted_again_is_the_same_request(void **state)
{
    (void)state;
    struct fsm_world w;
    char first[64];
    fsm_world_init(&w);
    (void)fsm_make_token(&w, 1, 1);
    (void)fsm_make_request(&w, 50, "new", 1);
    (void)snprintf(first, sizeof first, "%s", fsm_doc_text(&w, "id"));
    int64_t audit = fsm_count(&w, AUDIT);
    struct join_submit b = fsm_submit(&w, 50, "new", 1);
    b.join_id = fsm_fake_id(4, 9999);
    must(&w, fsm_do(&w, CMD_JOIN_SUBMIT, &b));
    assert_string_equal(fsm_doc_text(&w, "id"), first);
    assert_int_equal(fsm_count(&w, REQUESTS), 1);
    assert_int_equal(fsm_count(&w, USES), 1);
    assert_int_equal(fsm_count(&w, AUDIT), audit);
    fsm_world_fini(&w);
}

static void count_admitted(void *data, size_t n, const struct fsm_result *results)
{
    int *counts = data;
    for (size_t i = 0; i < n; i++) {
        counts[results[i].rc == 0 ? 0 : results[i].rc == -ERR_TOKEN_USED ? 1 : 2]++;
    }
}

/* TOK-03. */
static void test_race_for_a_token_in_one_batch_admits_exactly_max_uses(void **state)
{
    (void)state;
    struct fsm_world w;
    int counts[3] = {0};
    fsm_world_init(&w);
    (void)fsm_make_token(&w, 1, 3);
    struct fsm_entry e;
    fsm_entry_begin(&e, w.term);
    for (uint32_t i = 0; i < 20; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "racer-%u", i);
        struct join_submit b = fsm_submit(&w, 300 + i, name, 1);
        fsm_entry_add(&e, fsm_envelope(&w, CMD_JOIN_SUBMIT), &b);
    }
    fsm_world_apply(&w, &e, count_admitted, counts);
    fsm_entry_fini(&e);
    assert_int_equal(counts[0], 3);
    assert_int_equal(counts[1], 17);
    assert_int_equal(counts[2], 0);
    assert_int_equal(fsm_count(&w, PENDING), 3);
    assert_int_equal(fsm_count(&w, USES), 3);
    fsm_world_fini(&w);
}

static void test_waiting_requests_are_bounded_and_busy_may_be_retried(void **state)
{
    (void)state;
    struct fsm_world w;
    struct errmsg em;
    fsm_world_init(&w);
    (void)fsm_make_token(&w, 1, TOKEN_USES_MAX);
    /* Filling it by joins would take a minute: rows are put there, and the count is taken when the
     * image is read. */
    assert_int_equal(
        db_exec(fsm_db(w.fsm),
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 19999)"
                " INSERT INTO node_join_requests (id, cluster_id, node_name, node_fingerprint,"
                " public_key, reported_capabilities, requested_roles, status, join_token_id,"
                " created_at, expires_at) SELECT 'r' || i, 'c', 'r' || i, 'f' || i, x'00', '[]',"
                " '[]', 'pending', 't', 0, 9000000000000 FROM n",
                &em),
        0);
    struct buf image;
    buf_init(&image, IMAGE_MAX_BYTES);
    assert_int_equal(fsm_image(w.fsm, &image), 0);
    assert_int_equal(fsm_restore(w.fsm, buf_blob(&image), &em), 0);
    buf_fini(&image);
    (void)fsm_make_request(&w, 50, "the-last", 1);
    struct join_submit b = fsm_submit(&w, 51, "one-too-many", 1);
    struct cmd c = fsm_envelope(&w, CMD_JOIN_SUBMIT);
    int64_t audit = fsm_count(&w, AUDIT);
    check_refused(&w, "full", fsm_do_cmd(&w, c, &b), -ERR_BUSY);
    assert_int_equal(fsm_count(&w, AUDIT), audit);
    must(&w,
         fsm_do(&w, CMD_JOIN_REJECT,
                &(struct join_reject){.join_id = fsm_fake_id(4, 50), .reason = blob_str("no")}));
    must(&w, fsm_do_cmd(&w, c, &b));
    assert_false(w.replayed);
    fsm_world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token_create_refusals),
        cmocka_unit_test(test_token_create_shows_scope_but_never_the_hash),
        cmocka_unit_test(test_token_revoke),
        cmocka_unit_test(test_join_submit_refusals_are_distinct_and_audited),
        cmocka_unit_test(test_join_submitted_again_is_the_same_request),
        cmocka_unit_test(test_race_for_a_token_in_one_batch_admits_exactly_max_uses),
        cmocka_unit_test(test_waiting_requests_are_bounded_and_busy_may_be_retried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
