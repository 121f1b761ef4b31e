/* Nodes, roles, certificates, health and the authority's members (S7, S8, S10; ROLE, NODE, IDN). */
#include "lib/fsm_fixture.h"

#include "base/text.h"
#include "pki/pki.h"

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

/* Refused with this error, with a text, with nothing changed but result and audit. */
static void refused(struct fsm_world *w, const char *name, uint64_t kind, const void *body,
                    int want)
{
    struct fsm_position before;
    struct fsm_position after;
    static const char rows[] = "SELECT (SELECT count(*) FROM nodes) * 1000000 +"
                               " (SELECT count(*) FROM node_role_assignments) * 10000 +"
                               " (SELECT count(*) FROM node_identities) * 100 +"
                               " (SELECT count(*) FROM banned_keys) * 10 +"
                               " (SELECT count(*) FROM cluster_authorities)";
    int64_t had = fsm_count(w, rows);
    fsm_position(w->fsm, &before);
    int rc = fsm_do(w, kind, body);
    fsm_position(w->fsm, &after);
    if (rc != want || fsm_doc_text(w, "detail")[0] == '\0') {
        fail_msg("%s: %s (%s), wanted %s", name, err_slug(rc), fsm_doc_text(w, "detail"),
                 err_slug(want));
    }
    if (after.config_index != before.config_index || fsm_count(w, rows) != had) {
        fail_msg("%s: something changed", name);
    }
    /* S16: a refused high-risk act leaves a trace. */
    if (cmd_kind_high_risk(kind) && after.audit_seq != before.audit_seq + 1) {
        fail_msg("%s: no audit row", name);
    }
}

static bool config_moved(struct fsm_world *w)
{
    struct fsm_position p;
    fsm_position(w->fsm, &p);
    return p.config_index == w->index ||
           fsm_count(w, "SELECT max(config_index) FROM nodes") == (int64_t)w->index;
}

static const struct uuid nobody = {.b = {1}};

/* --- roles --- */

static struct role_assign assign(struct uuid node, uint32_t id, const char *role)
{
    return (struct role_assign){
        .assignment_id = fsm_fake_id(5, id), .node_id = node, .role = blob_str(role)};
}

static void test_role_assign_and_unassign(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    struct role_assign a = assign(n, 1, "relay-node");
    a.policy = blob_str("{\"max\":1}");
    must(&w, fsm_do(&w, CMD_ROLE_ASSIGN, &a));
    assert_true(config_moved(&w));
    assert_string_equal(fsm_doc_text(&w, "role"), "relay-node");
    assert_string_equal(fsm_doc_text(&w, "status"), "active");
    assert_string_equal(fsm_doc_text(&w, "node_name"), "n7");
    assert_string_equal(fsm_doc_text(&w, "assigned_by_user_id"), "uid:0");
    assert_int_equal(mp_find_int(buf_blob(&w.doc), "authority_index"), w.index);

    /* The same role for an organization is another assignment. */
    struct role_assign org = assign(n, 2, "relay-node");
    org.organization_id = blob_str("acme");
    must(&w, fsm_do(&w, CMD_ROLE_ASSIGN, &org));
    refused(&w, "twice", CMD_ROLE_ASSIGN,
            &(struct role_assign){
                .assignment_id = fsm_fake_id(5, 3), .node_id = n, .role = blob_str("relay-node")},
            -ERR_EXISTS);

    struct role_unassign u = {.node_id = n, .role = blob_str("relay-node")};
    must(&w, fsm_do(&w, CMD_ROLE_UNASSIGN, &u));
    assert_string_equal(fsm_doc_text(&w, "status"), "removed");
    assert_true(config_moved(&w));
    refused(&w, "not there any more", CMD_ROLE_UNASSIGN, &u, -ERR_NOT_FOUND);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_role_assignments WHERE status ="
                                   " 'active' AND organization_id = 'acme'"),
                     1);
    a.assignment_id = fsm_fake_id(5, 4);
    must(&w, fsm_do(&w, CMD_ROLE_ASSIGN, &a));
    fsm_world_fini(&w);
}

static void test_role_assign_refusals(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    struct uuid gone = fsm_make_node(&w, 8, "n8");
    struct uuid seed = fsm_fake_id(1, 1);
    must(&w, fsm_do(&w, CMD_NODE_REVOKE,
                    &(struct node_revoke){.node_id = gone, .reason = blob_str("x")}));
    const struct {
        const char *name;
        struct uuid node;
        const char *role;
        int rc;
    } cases[] = {
        {"unknown node", nobody, "relay-node", -ERR_NOT_FOUND},
        {"revoked node", gone, "relay-node", -ERR_REVOKED},
        {"unknown role", n, "king", -ERR_ROLE_UNKNOWN},
        {"capability not reported", n, "vpn-exit", -ERR_CAPABILITY}, /* ROLE-04 */
        {"authority is not given this way", n, "authority", -ERR_DENIED},
        {"authority is not given twice", seed, "authority", -ERR_DENIED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct role_assign b = assign(cases[i].node, 10 + (uint32_t)i, cases[i].role);
        refused(&w, cases[i].name, CMD_ROLE_ASSIGN, &b, cases[i].rc);
    }
    must(&w, fsm_do(&w, CMD_ROLE_ASSIGN,
                    &(struct role_assign){.assignment_id = fsm_fake_id(5, 1),
                                          .node_id = n,
                                          .role = blob_str("audit-sink")}));
    refused(&w, "id in use", CMD_ROLE_ASSIGN,
            &(struct role_assign){
                .assignment_id = fsm_fake_id(5, 1), .node_id = n, .role = blob_str("relay-node")},
            -ERR_CONFLICT);
    refused(&w, "an authority's role", CMD_ROLE_UNASSIGN,
            &(struct role_unassign){.node_id = seed, .role = blob_str("authority")}, -ERR_DENIED);
    fsm_world_fini(&w);
}

/* --- names and ends --- */

static void test_node_rename(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    (void)fsm_make_token(&w, 1, 1);
    (void)fsm_make_request(&w, 50, "waiting", 1);
    struct node_rename b = {.node_id = n, .name = blob_str("edge-1")};
    must(&w, fsm_do(&w, CMD_NODE_RENAME, &b));
    assert_true(config_moved(&w));
    assert_string_equal(fsm_doc_text(&w, "name"), "edge-1");
    must(&w, fsm_do(&w, CMD_NODE_RENAME, &b)); /* to the name it has */
    const struct {
        const char *name;
        struct node_rename b;
        int rc;
    } cases[] = {
        {"name of a node", {.node_id = n, .name = blob_str("seed")}, -ERR_NAME_TAKEN},
        {"name of a request", {.node_id = n, .name = blob_str("waiting")}, -ERR_NAME_TAKEN},
        {"bad name", {.node_id = n, .name = blob_str("Edge")}, -ERR_INVALID},
        {"unknown node", {.node_id = nobody, .name = blob_str("x")}, -ERR_NOT_FOUND},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        refused(&w, cases[i].name, CMD_NODE_RENAME, &cases[i].b, cases[i].rc);
    }
    fsm_world_fini(&w);
}

static void test_node_revoke_bans_the_key_and_ends_everything(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    struct role_assign a = assign(n, 1, "relay-node");
    must(&w, fsm_do(&w, CMD_ROLE_ASSIGN, &a));
    struct node_revoke b = {.node_id = n, .reason = blob_str("stolen laptop")};
    refused(&w, "enrolled nodes are not removed", CMD_NODE_REMOVE,
            &(struct node_remove){.node_id = n}, -ERR_CONFLICT);
    must(&w, fsm_do(&w, CMD_NODE_REVOKE, &b));
    assert_true(config_moved(&w));
    assert_string_equal(fsm_doc_text(&w, "enrollment_status"), "revoked");
    assert_string_equal(fsm_doc_text(&w, "identity_state"), "revoked");
    assert_string_equal(fsm_doc_text(&w, "membership_status"), "revoked");
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_identities i JOIN nodes n ON"
                                   " n.id = i.node_id WHERE n.name = 'n7' AND"
                                   " i.identity_status <> 'revoked'"),
                     0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_role_assignments a JOIN nodes n ON"
                                   " n.id = a.node_id WHERE n.name = 'n7' AND"
                                   " a.status <> 'removed'"),
                     0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM banned_keys b JOIN nodes n ON"
                                   " n.fingerprint = b.fingerprint WHERE n.name = 'n7' AND"
                                   " b.not_after = 1780000000000 + 2592000000"),
                     1);
    refused(&w, "again", CMD_NODE_REVOKE, &b, -ERR_DECIDED);
    b.node_id = nobody;
    refused(&w, "unknown", CMD_NODE_REVOKE, &b, -ERR_NOT_FOUND);
    refused(&w, "an authority", CMD_NODE_REVOKE,
            &(struct node_revoke){.node_id = fsm_fake_id(1, 1), .reason = blob_str("x")},
            -ERR_CONFLICT);
    assert_non_null(strstr(fsm_doc_text(&w, "detail"), "rap authority remove"));

    must(&w, fsm_do(&w, CMD_NODE_REMOVE, &(struct node_remove){.node_id = n}));
    assert_string_equal(fsm_doc_text(&w, "name"), "n7");
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM nodes WHERE name = 'n7'"), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_memberships"), 1);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM banned_keys"), 1);
    refused(&w, "gone", CMD_NODE_REMOVE, &(struct node_remove){.node_id = n}, -ERR_NOT_FOUND);
    assert_int_equal(fsm_audit_verify(w.fsm, NULL, NULL), 0);
    fsm_world_fini(&w);
}

/* --- certificates --- */

static struct cert_renew renewal(struct uuid node, struct fsm_fake_cert c)
{
    return (struct cert_renew){.node_id = node, .cert = fsm_fake_cert(&c)};
}

static void test_cert_renew_keeps_one_active_identity(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    for (uint32_t i = 1; i <= 5; i++) {
        w.now_ms += 20 * 24 * FSM_HOUR;
        struct cert_renew b = renewal(n, (struct fsm_fake_cert){
                                             .key = 7,
                                             .issuer = 1,
                                             .serial = 900 + i,
                                             .not_after_ms = w.now_ms + PKI_LEAF_LIFE_MS,
                                         });
        must(&w, fsm_do(&w, CMD_CERT_RENEW, &b));
        assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_identities i JOIN nodes n ON"
                                       " n.id = i.node_id WHERE n.name = 'n7' AND"
                                       " identity_status = 'active'"),
                         1); /* S8 */
        /* The one before overlaps until it ends; the ones before that are forgotten. */
        assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_identities i JOIN nodes n ON"
                                       " n.id = i.node_id WHERE n.name = 'n7' AND"
                                       " identity_status = 'rotating' AND rotated_at IS NOT NULL"),
                         1);
        assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_identities"), 3);
    }
    /* The node gets leaf and issuer from the result. */
    char issuer[32];
    struct blob want = fsm_fake_issuer(1, issuer);
    struct mp_reader r;
    mp_reader_init(&r, mp_find(buf_blob(&w.doc), "issuer_certificate"));
    struct blob got = mp_get_bin(&r, CERT_DER_MAX);
    assert_true(blob_equal(got, want));
    mp_reader_init(&r, mp_find(buf_blob(&w.doc), "certificate"));
    assert_true(mp_get_bin(&r, CERT_DER_MAX).len > 0);
    assert_false(config_moved(&w)); /* no snapshot says which certificate a node has */
    fsm_world_fini(&w);
}

static void test_cert_renew_refusals(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    struct uuid gone = fsm_make_node(&w, 8, "n8");
    must(&w, fsm_do(&w, CMD_NODE_REVOKE,
                    &(struct node_revoke){.node_id = gone, .reason = blob_str("x")}));
    const struct {
        const char *name;
        struct uuid node;
        struct fsm_fake_cert cert;
        int rc;
    } cases[] = {
        {"unknown node", nobody, {.key = 7, .issuer = 1, .serial = 900}, -ERR_NOT_FOUND},
        {"revoked node", gone, {.key = 8, .issuer = 1, .serial = 900}, -ERR_REVOKED},
        {"another key", n, {.key = 9, .issuer = 1, .serial = 900}, -ERR_FINGERPRINT},
        {"unknown issuer", n, {.key = 7, .issuer = 2, .serial = 900}, -ERR_NOT_AUTHORITY},
        {"serial in use", n, {.key = 7, .issuer = 1, .serial = 1}, -ERR_EXISTS},
        {"over", n, {.key = 7, .issuer = 1, .serial = 900, .not_after_ms = FSM_T0}, -ERR_BAD_CERT},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct cert_renew b = renewal(cases[i].node, cases[i].cert);
        refused(&w, cases[i].name, CMD_CERT_RENEW, &b, cases[i].rc);
    }
    struct cert_renew b = renewal(n, (struct fsm_fake_cert){.key = 7, .issuer = 1, .serial = 900});
    w.actor_kind = ACTOR_NODE;
    w.actor_id = "somebody-else";
    refused(&w, "for another node", CMD_CERT_RENEW, &b, -ERR_WRONG_NODE);
    struct fsm_fake self;
    fsm_fake(7, &self);
    w.actor_id = self.id_text;
    must(&w, fsm_do(&w, CMD_CERT_RENEW, &b));
    fsm_world_fini(&w);
}

static void test_cert_whose_fingerprint_is_not_its_keys_is_refused(void **state)
{
    (void)state;
    struct fsm_world w;
    struct cmd_cert c;
    struct fsm_fake other;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    fsm_fake(9, &other);
    struct blob good = fsm_fake_cert(&(struct fsm_fake_cert){.key = 7, .issuer = 1, .serial = 900});
    assert_int_equal(msg_decode(&cmd_cert_desc, MSG_STRICT, good, &c), 0);
    c.public_key = blob_of(other.public_key, 32);
    struct buf bad;
    buf_init(&bad, CMD_CERT_MAX);
    msg_encode(&cmd_cert_desc, &c, &bad);
    refused(&w, "swapped key", CMD_CERT_RENEW,
            &(struct cert_renew){.node_id = n, .cert = buf_blob(&bad)}, -ERR_FINGERPRINT);
    buf_fini(&bad);
    fsm_world_fini(&w);
}

/* --- health --- */

static void test_node_health_audits_changes_only(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_position p;
    struct fsm_position q;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    w.actor_kind = ACTOR_SYSTEM;
    struct node_health b = {.node_id = n,
                            .health = blob_str("healthy"),
                            .agent_version = blob_str("0.1.0"),
                            .last_seen_ms = w.now_ms,
                            .address = blob_str("192.0.2.7:7400")};
    must(&w, fsm_do(&w, CMD_NODE_HEALTH, &b));
    assert_false(config_moved(&w));
    assert_string_equal(fsm_doc_text(&w, "health_status"), "healthy");
    fsm_position(w.fsm, &p);
    must(&w, fsm_do(&w, CMD_NODE_HEALTH, &b));
    fsm_position(w.fsm, &q);
    assert_int_equal(p.audit_seq, q.audit_seq);
    b.health = blob_str("stale");
    b.agent_version = b.address = blob_of(NULL, 0);
    must(&w, fsm_do(&w, CMD_NODE_HEALTH, &b));
    fsm_position(w.fsm, &p);
    assert_int_equal(p.audit_seq, q.audit_seq + 1);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM nodes n JOIN node_latest_state s ON"
                                   " s.node_id = n.id WHERE n.name = 'n7' AND health_status ="
                                   " 'stale' AND health = 'stale' AND agent_version = '0.1.0' AND"
                                   " version = '0.1.0' AND address = '192.0.2.7:7400'"),
                     1);
    b.address = blob_str("198.51.100.9:7400");
    b.facts = blob_str("{}");
    b.capabilities = FSM_LIST("can_run_vpn_exit", "can_route_mesh");
    must(&w, fsm_do(&w, CMD_NODE_HEALTH, &b));
    assert_false(config_moved(&w)); /* no snapshot says where an ordinary node listens */
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_capabilities c JOIN nodes n ON"
                                   " n.id = c.node_id WHERE n.name = 'n7' AND capability IN"
                                   " ('can_run_vpn_exit', 'can_route_mesh')"),
                     2);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_capabilities c JOIN nodes n ON"
                                   " n.id = c.node_id WHERE n.name = 'n7'"),
                     2);
    fsm_world_fini(&w);
}

static void test_node_health_refusals_undo_what_was_written(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    struct node_health b = {.node_id = nobody, .health = blob_str("healthy")};
    refused(&w, "unknown", CMD_NODE_HEALTH, &b, -ERR_NOT_FOUND);
    b = (struct node_health){.node_id = n, .health = blob_str("splendid")};
    refused(&w, "no such health", CMD_NODE_HEALTH, &b, -ERR_INVALID);
    /* The row is written before the list is looked at. */
    b = (struct node_health){
        .node_id = n, .health = blob_str("stale"), .capabilities = FSM_LIST("No Word")};
    refused(&w, "bad capability", CMD_NODE_HEALTH, &b, -ERR_INVALID);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM nodes WHERE health_status = 'stale'"), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_latest_state"), 0);
    w.actor_kind = ACTOR_NODE;
    w.actor_id = "another";
    b = (struct node_health){.node_id = n, .health = blob_str("stale")};
    refused(&w, "of another node", CMD_NODE_HEALTH, &b, -ERR_WRONG_NODE);
    fsm_world_fini(&w);
}

/* --- the authority --- */

struct adding {
    char issuer[32];
    uint8_t fingerprint[32];
    struct authority_add body;
};

static const struct authority_add *adding(struct adding *a, uint32_t key, uint32_t issuer)
{
    struct fsm_fake k;
    fsm_fake(key, &k);
    fsm_fake_issuer_fingerprint(issuer, a->fingerprint);
    a->body = (struct authority_add){
        .node_id = k.id,
        .address = blob_str("192.0.2.8:7400"),
        .issuer_der = fsm_fake_issuer(issuer, a->issuer),
        .issuer_fingerprint = blob_of(a->fingerprint, 32),
        .cert = fsm_fake_cert(
            &(struct fsm_fake_cert){.key = key, .issuer = issuer, .serial = 700 + key}),
    };
    return &a->body;
}

static int move(struct fsm_world *w, struct uuid node, const char *status)
{
    return fsm_do(w, CMD_AUTHORITY_STATUS,
                  &(struct authority_status){.node_id = node, .status = blob_str(status)});
}

static void test_authority_joins_stands_by_and_votes(void **state)
{
    (void)state;
    struct fsm_world w;
    struct adding a;
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 8, "a8");
    must(&w, fsm_do(&w, CMD_AUTHORITY_ADD, adding(&a, 8, 8)));
    assert_true(config_moved(&w));
    assert_string_equal(fsm_doc_text(&w, "status"), "joining");
    assert_string_equal(fsm_doc_text(&w, "name"), "a8");
    assert_int_equal(move(&w, n, "voter"), -ERR_CONFLICT); /* not before it stood by */
    assert_int_equal(move(&w, n, "joining"), -ERR_CONFLICT);
    assert_int_equal(move(&w, n, "removed"), -ERR_CONFLICT);
    must(&w, move(&w, n, "standby"));
    assert_true(config_moved(&w));
    must(&w, move(&w, n, "voter"));
    must(&w, move(&w, n, "standby"));
    must(&w, move(&w, n, "voter"));
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_role_assignments WHERE role ="
                                   " 'authority' AND status = 'active'"),
                     2);
    /* Its own leaf is under its own CA now, and it may issue. */
    struct uuid m = fsm_make_node(&w, 9, "n9");
    struct cert_renew b = renewal(m, (struct fsm_fake_cert){.key = 9, .issuer = 8, .serial = 900});
    must(&w, fsm_do(&w, CMD_CERT_RENEW, &b));
    fsm_world_fini(&w);
}

static void test_authority_add_refusals(void **state)
{
    (void)state;
    struct fsm_world w;
    struct adding a;
    fsm_world_init(&w);
    (void)fsm_make_node(&w, 7, "n7");
    (void)fsm_make_authority(&w, 8, "a8");
    struct uuid gone = fsm_make_authority(&w, 9, "a9");
    must(&w, fsm_do(&w, CMD_AUTHORITY_REMOVE, &(struct authority_remove){.node_id = gone}));
    refused(&w, "unknown node", CMD_AUTHORITY_ADD, adding(&a, 77, 77), -ERR_NOT_FOUND);
    refused(&w, "already one", CMD_AUTHORITY_ADD, adding(&a, 8, 8), -ERR_EXISTS);
    refused(&w, "removed before", CMD_AUTHORITY_ADD, adding(&a, 9, 10), -ERR_REVOKED);
    refused(&w, "another's CA key", CMD_AUTHORITY_ADD, adding(&a, 7, 8), -ERR_KEY_KNOWN);
    refused(&w, "revoked CA key", CMD_AUTHORITY_ADD, adding(&a, 7, 9), -ERR_KEY_REVOKED);
    struct authority_add b = *adding(&a, 7, 7);
    b.cert = fsm_fake_cert(&(struct fsm_fake_cert){.key = 7, .issuer = 1, .serial = 707});
    refused(&w, "leaf under another CA", CMD_AUTHORITY_ADD, &b, -ERR_BAD_CERT);
    b = *adding(&a, 7, 7);
    b.cert = fsm_fake_cert(&(struct fsm_fake_cert){.key = 6, .issuer = 7, .serial = 707});
    refused(&w, "leaf for another key", CMD_AUTHORITY_ADD, &b, -ERR_FINGERPRINT);
    w.actor_kind = ACTOR_SYSTEM;
    refused(&w, "the leader on its own", CMD_AUTHORITY_ADD, adding(&a, 7, 7), -ERR_DENIED);
    w.actor_kind = ACTOR_ADMIN;
    must(&w, fsm_do(&w, CMD_AUTHORITY_ADD, adding(&a, 7, 7)));
    for (uint32_t i = 0; i < AUTHORITIES_MAX - 3; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "more-%u", i);
        (void)fsm_make_authority(&w, 20 + i, name);
    }
    (void)fsm_make_node(&w, 40, "one-too-many");
    refused(&w, "more than fit", CMD_AUTHORITY_ADD, adding(&a, 40, 40), -ERR_TOO_LARGE);
    fsm_world_fini(&w);
}

static void test_demoted_authority_votes_again_only_when_promoted(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid seed = fsm_fake_id(1, 1);
    struct uuid a8 = fsm_make_authority(&w, 8, "a8");
    fsm_world_raise(&w);
    const struct authority_vote demote = {.node_id = a8, .reason = blob_str("far away")};
    const struct authority_vote promote = {.node_id = a8, .votes = true};
    refused(&w, "votes already", CMD_AUTHORITY_VOTE, &promote, -ERR_DECIDED);
    must(&w, fsm_do(&w, CMD_AUTHORITY_VOTE, &demote));
    refused(&w, "demoted already", CMD_AUTHORITY_VOTE, &demote, -ERR_DECIDED);
    assert_int_equal(move(&w, a8, "standby"), 0);
    assert_int_equal(move(&w, a8, "voter"), -ERR_CONFLICT);
    refused(&w, "the last voter", CMD_AUTHORITY_VOTE, &(struct authority_vote){.node_id = seed},
            -ERR_LAST_VOTER);
    must(&w, fsm_do(&w, CMD_AUTHORITY_VOTE, &promote));
    assert_int_equal(move(&w, a8, "voter"), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events WHERE event_type IN"
                                   " ('authority_promoted', 'authority_demoted')"),
                     2);
    fsm_world_fini(&w);
}

static void test_authority_that_never_catches_up_expires(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid a8 = fsm_make_authority(&w, 8, "a8");
    struct uuid n = fsm_make_node(&w, 9, "n9");
    struct adding a;
    must(&w, fsm_do(&w, CMD_AUTHORITY_ADD, adding(&a, 9, 9)));
    fsm_world_raise(&w);
    /* It waits since before this level: nobody knows how long. */
    w.now_ms += 2 * AUTHORITY_WAIT_MAX_MS;
    refused(&w, "nobody knows", CMD_AUTHORITY_EXPIRE, &(struct authority_expire){.node_id = n},
            -ERR_CONFLICT);
    must(&w, fsm_do(&w, CMD_AUTHORITY_VOTE, &(struct authority_vote){.node_id = n}));
    must(&w, fsm_do(&w, CMD_AUTHORITY_VOTE, &(struct authority_vote){.node_id = n, .votes = true}));
    const struct authority_expire expire = {.node_id = n};
    refused(&w, "it has time", CMD_AUTHORITY_EXPIRE, &expire, -ERR_CONFLICT);
    w.now_ms += AUTHORITY_WAIT_MAX_MS - 60000;
    refused(&w, "it has a minute", CMD_AUTHORITY_EXPIRE, &expire, -ERR_CONFLICT);
    w.now_ms += 60001;
    must(&w, fsm_do(&w, CMD_AUTHORITY_EXPIRE, &expire));
    assert_string_equal(fsm_doc_text(&w, "status"), "removed");
    /* One that votes does not expire, however long it took. */
    w.now_ms += 2 * AUTHORITY_WAIT_MAX_MS;
    refused(&w, "it votes", CMD_AUTHORITY_EXPIRE, &(struct authority_expire){.node_id = a8},
            -ERR_CONFLICT);
    fsm_world_fini(&w);
}

static void test_authority_remove_bans_its_keys_but_never_the_last_voter(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct uuid seed = fsm_fake_id(1, 1);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    refused(&w, "last voter", CMD_AUTHORITY_REMOVE, &(struct authority_remove){.node_id = seed},
            -ERR_LAST_VOTER);
    refused(&w, "no authority", CMD_AUTHORITY_REMOVE, &(struct authority_remove){.node_id = n},
            -ERR_NOT_FOUND);
    assert_int_equal(move(&w, seed, "standby"), -ERR_LAST_VOTER);
    struct uuid a8 = fsm_make_authority(&w, 8, "a8");
    must(&w, fsm_do(&w, CMD_AUTHORITY_REMOVE,
                    &(struct authority_remove){.node_id = seed, .reason = blob_str("sold")}));
    assert_true(config_moved(&w));
    assert_string_equal(fsm_doc_text(&w, "status"), "removed");
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM banned_keys"), 2); /* its key, its CA's */
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM banned_keys b JOIN cluster_authorities a"
                                   " ON a.issuer_fingerprint = b.fingerprint"
                                   " WHERE a.status = 'removed' AND b.not_after IS NULL"),
                     1);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_memberships m JOIN nodes n ON"
                                   " n.id = m.node_id WHERE n.name = 'seed' AND"
                                   " membership_status = 'revoked'"),
                     1);
    refused(&w, "again", CMD_AUTHORITY_REMOVE, &(struct authority_remove){.node_id = seed},
            -ERR_NOT_FOUND);
    refused(&w, "now it is the last", CMD_AUTHORITY_REMOVE,
            &(struct authority_remove){.node_id = a8}, -ERR_LAST_VOTER);
    /* What it would issue now is refused. */
    struct cert_renew b = renewal(n, (struct fsm_fake_cert){.key = 7, .issuer = 1, .serial = 900});
    refused(&w, "its certificates", CMD_CERT_RENEW, &b, -ERR_NOT_AUTHORITY);
    must(&w, fsm_do(&w, CMD_NODE_REMOVE, &(struct node_remove){.node_id = seed}));
    assert_int_equal(fsm_audit_verify(w.fsm, NULL, NULL), 0);
    fsm_world_fini(&w);
}

static void test_authority_address_follows_the_node(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    must(&w, fsm_do(&w, CMD_NODE_HEALTH,
                    &(struct node_health){
                        .node_id = fsm_fake_id(1, 1),
                        .health = blob_str("healthy"),
                        .address = blob_str("203.0.113.5:7400"),
                    }));
    assert_true(config_moved(&w));
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_authorities WHERE address ="
                                   " '203.0.113.5:7400'"),
                     1);
    fsm_world_fini(&w);
}

/* --- terms --- */

static void test_term_start_closes_the_term_before(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    w.actor_kind = ACTOR_SYSTEM;
    struct term_start b = {.term = 1, .leader_id = fsm_fake_id(1, 1)};
    must(&w, fsm_do(&w, CMD_TERM_START, &b));
    assert_false(config_moved(&w));
    refused(&w, "twice", CMD_TERM_START, &b, -ERR_CONFLICT);
    w.term = 4;
    refused(&w, "of another term", CMD_TERM_START, &b, -ERR_CONFLICT);
    w.now_ms += 1000;
    b.term = 4;
    must(&w, fsm_do(&w, CMD_TERM_START, &b));
    assert_int_equal(fsm_count(&w,
                               "SELECT count(*) FROM cluster_authority_terms"
                               " WHERE epoch = 1 AND term = 1 AND ended_at = started_at + 1000"),
                     1);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_authority_terms"
                                   " WHERE ended_at IS NULL AND term = 4"),
                     1);
    assert_int_equal(fsm_count(&w, "SELECT term * 1000 + \"index\" FROM authority_applied"),
                     4000 + (int64_t)w.index);
    fsm_world_fini(&w);
}

/* --- who may ask --- */

static void test_nodes_and_the_leader_may_not_decide_like_an_admin(void **state)
{
    (void)state;
    static const uint64_t admins_only[] = {
        CMD_TOKEN_CREATE, CMD_TOKEN_REVOKE,  CMD_JOIN_APPROVE,    CMD_JOIN_REJECT,
        CMD_ROLE_ASSIGN,  CMD_ROLE_UNASSIGN, CMD_NODE_RENAME,     CMD_NODE_REVOKE,
        CMD_NODE_REMOVE,  CMD_AUTHORITY_ADD, CMD_AUTHORITY_REMOVE};
    struct fsm_world w;
    struct adding a;
    uint8_t hash[32];
    fsm_world_init(&w);
    fsm_fake_token(1, hash);
    const union {
        struct token_create token_create;
        struct token_revoke token_revoke;
    } token = {.token_create = {.token_id = fsm_fake_id(3, 1),
                                .token_hash = blob_of(hash, 32),
                                .expires_at_ms = w.now_ms + 1,
                                .max_uses = 1}};
    struct join_approve approve = {.join_id = nobody, .node_id = nobody, .cert = blob_str("x")};
    struct join_reject reject = {.join_id = nobody, .reason = blob_str("x")};
    struct role_assign role = assign(nobody, 1, "relay-node");
    struct role_unassign unrole = {.node_id = nobody, .role = blob_str("relay-node")};
    struct node_rename rename = {.node_id = nobody, .name = blob_str("x")};
    struct node_revoke revoke = {.node_id = nobody, .reason = blob_str("x")};
    struct node_remove gone = {.node_id = nobody};
    struct authority_remove out = {.node_id = nobody};
    struct token_revoke unmake = {.token_id = nobody};
    const void *bodies[] = {&token,  &unmake, &approve, &reject,          &role, &unrole,
                            &rename, &revoke, &gone,    adding(&a, 7, 7), &out};
    static const char *const actors[] = {ACTOR_NODE, ACTOR_SYSTEM, "emperor"};
    for (size_t i = 0; i < ARRAY_SIZE(admins_only); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(actors); k++) {
            w.actor_kind = actors[k];
            refused(&w, cmd_kind_name(admins_only[i]), admins_only[i], bodies[i], -ERR_DENIED);
        }
    }
    fsm_world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_role_assign_and_unassign),
        cmocka_unit_test(test_role_assign_refusals),
        cmocka_unit_test(test_node_rename),
        cmocka_unit_test(test_node_revoke_bans_the_key_and_ends_everything),
        cmocka_unit_test(test_cert_renew_keeps_one_active_identity),
        cmocka_unit_test(test_cert_renew_refusals),
        cmocka_unit_test(test_cert_whose_fingerprint_is_not_its_keys_is_refused),
        cmocka_unit_test(test_node_health_audits_changes_only),
        cmocka_unit_test(test_node_health_refusals_undo_what_was_written),
        cmocka_unit_test(test_authority_joins_stands_by_and_votes),
        cmocka_unit_test(test_authority_add_refusals),
        cmocka_unit_test(test_demoted_authority_votes_again_only_when_promoted),
        cmocka_unit_test(test_authority_that_never_catches_up_expires),
        cmocka_unit_test(test_authority_remove_bans_its_keys_but_never_the_last_voter),
        cmocka_unit_test(test_authority_address_follows_the_node),
        cmocka_unit_test(test_term_start_closes_the_term_before),
        cmocka_unit_test(test_nodes_and_the_leader_may_not_decide_like_an_admin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
