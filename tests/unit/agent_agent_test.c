/* The agent against fake authorities on the real fabric over loopback (SPEC NODE-05, HB-02, SNAP-01,
 * SNAP-04, IDN-04). */
#include "agent/agent.h"
#include "base/clock.h"
#include "lib/fake_authority.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define DAY_MS 86400000LL

struct fixture {
    uv_loop_t loop;
    char *dir;
    struct fake_cluster cluster;
    struct fake_authority a1, a2;
    struct uuid node_id;
    uint8_t fingerprint[PKI_HASH_BYTES];
    int64_t now_ms;
    /* the node: */
    struct member *member;
    struct pki_trust *trust;
    struct fabric *fabric;
    struct agent *agent;
    bool fabric_closed;
    size_t configs, renewals, installs;
    /* what a wait waits for: */
    size_t wanted;
    struct buf answer;
    int answer_rc;
    bool answered;
};

static void snapshot_of(struct fixture *f, struct fake_snapshot *s, uint64_t version)
{
    fake_snapshot_init(s, &f->cluster, &f->a1.node, &f->node_id, version, f->now_ms);
    s->address = f->a1.address;
    s->second = &f->a2.node;
    s->second_address = f->a2.address;
}

static void enrol(struct fixture *f, int64_t not_before_ms, int64_t not_after_ms, bool expired)
{
    const struct member_settings ms = {
        .node_name = "n1", .listen = "127.0.0.1:0", .cluster_id = f->cluster.id};
    struct member *m;
    struct pki_key *key;
    uint8_t public_key[PKI_KEY_BYTES];
    struct buf leaf;
    struct buf bytes;
    struct fake_snapshot s;
    assert_int_equal(member_create(f->dir, &ms, &m, NULL), 0);
    assert_int_equal(member_key(m, &key, NULL), 0);
    pki_key_public(key, public_key);
    pki_fingerprint(public_key, f->fingerprint);
    pki_key_free(key);
    buf_init(&leaf, CERT_DER_MAX);
    buf_init(&bytes, SNAPSHOT_MAX_BYTES);
    fake_issue(&f->cluster, &f->a1.node, &f->node_id, public_key, not_before_ms, not_after_ms,
               &leaf);
    snapshot_of(f, &s, 5);
    if (expired) { /* issued while the signer's certificate was valid already */
        s.issued_at_ms = f->now_ms - 200000;
        s.expires_at_ms = f->now_ms - 100000;
    }
    fake_sign(&s, &bytes);
    const struct member_approval ap = {
        .node_id = f->node_id,
        .cluster_name = "prod",
        .chain = {buf_blob(&leaf), buf_blob(&f->a1.node.issuer_der),
                  buf_blob(&f->cluster.root_der)},
        .snapshot = buf_blob(&bytes),
        .epoch = 1,
        .config_version = 5,
    };
    assert_int_equal(member_approve(m, &ap, NULL), 0);
    member_free(m);
    buf_fini(&bytes);
    buf_fini(&leaf);
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->dir = fake_tmpdir();
    f->now_ms = clock_wall_ms();
    f->node_id = uuid_new();
    fake_cluster_init(&f->cluster, f->now_ms);
    fake_authority_open(&f->a1, &f->loop, &f->cluster);
    fake_authority_open(&f->a2, &f->loop, &f->cluster);
    buf_init(&f->answer, RPC_FRAME_MAX);
    *state = f;
    return 0;
}

static void on_config(void *data, const struct config *cfg)
{
    struct fixture *f = data;
    f->configs++;
    assert_ptr_equal(cfg, agent_snapshot(f->agent));
}

static void on_renewed(void *data)
{
    ((struct fixture *)data)->renewals++;
}

static void on_installed(void *data)
{
    ((struct fixture *)data)->installs++;
}

/* As the daemon does it. */
static void start_node(struct fixture *f)
{
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(member_open(f->dir, &f->member, NULL), 0);
    f->trust = pki_trust_new(&f->cluster.id);
    assert_int_equal(pki_trust_set_root(f->trust, buf_blob(&f->cluster.root_der), NULL), 0);
    struct fabric_config fc = {.loop = &f->loop, .cluster_id = f->cluster.id, .trust = f->trust};
    assert_int_equal(addr_parse("127.0.0.1:0", &fc.listen, NULL), 0);
    if (fabric_open(&fc, &f->fabric, &em) != 0) {
        fail_msg("%s", em.text);
    }
    f->fabric_closed = false;
    const struct agent_config ac = {.loop = &f->loop,
                                    .fabric = f->fabric,
                                    .member = f->member,
                                    .trust = f->trust,
                                    .heartbeat_ms = 200,
                                    .data = f,
                                    .config_changed = on_config,
                                    .identity_renewed = on_renewed,
                                    .authority_installed = on_installed};
    if (agent_open(&ac, &f->agent, &em) != 0) {
        fail_msg("%s", em.text);
    }
}

static void on_fabric_closed(void *data)
{
    ((struct fixture *)data)->fabric_closed = true;
}

static void on_agent_closed(void *data)
{
    struct fixture *f = data;
    f->agent = NULL;
    fabric_close(f->fabric, on_fabric_closed, f);
}

static bool node_is_down(void *data)
{
    return ((struct fixture *)data)->fabric_closed;
}

static void stop_node(struct fixture *f)
{
    agent_close(f->agent, on_agent_closed, f);
    assert_true(fake_run_until(&f->loop, node_is_down, f));
    f->fabric = NULL;
    member_free(f->member);
    pki_trust_free(f->trust);
}

static bool authorities_are_down(void *data)
{
    struct fixture *f = data;
    return f->a1.closed && f->a2.closed;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->agent != NULL) {
        stop_node(f);
    }
    if (f->a1.fabric != NULL) {
        fake_authority_close(&f->a1);
    }
    if (f->a2.fabric != NULL) {
        fake_authority_close(&f->a2);
    }
    assert_true(fake_run_until(&f->loop, authorities_are_down, f));
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    fake_authority_fini(&f->a1);
    fake_authority_fini(&f->a2);
    fake_cluster_fini(&f->cluster);
    buf_fini(&f->answer);
    fake_rmdir(f->dir);
    free(f);
    return 0;
}

static void start_fresh(struct fixture *f)
{
    enrol(f, f->now_ms - PKI_BACKDATE_MS, f->now_ms + PKI_LEAF_LIFE_MS, false);
    start_node(f);
}

static void publish(struct fixture *f, const struct fake_snapshot *s)
{
    struct buf b;
    buf_init(&b, SNAPSHOT_MAX_BYTES);
    fake_sign(s, &b);
    fake_authority_publish(&f->a1, buf_blob(&b));
    fake_authority_publish(&f->a2, buf_blob(&b));
    buf_fini(&b);
}

static bool has_heartbeats(void *data)
{
    struct fixture *f = data;
    return f->a1.heartbeats + f->a2.heartbeats >= f->wanted;
}

static void wait_heartbeats(struct fixture *f, size_t more)
{
    f->wanted = f->a1.heartbeats + f->a2.heartbeats + more;
    assert_true(fake_run_until(&f->loop, has_heartbeats, f));
}

static bool has_configs(void *data)
{
    struct fixture *f = data;
    return f->configs >= f->wanted;
}

static void wait_config(struct fixture *f)
{
    f->wanted = f->configs + 1;
    assert_true(fake_run_until(&f->loop, has_configs, f));
}

static bool is_healthy(void *data)
{
    struct fixture *f = data;
    struct agent_status s;
    agent_status(f->agent, &s);
    return s.connected && !s.degraded && s.last_contact_ms != 0;
}

static void test_agent_connects_and_reports(void **state)
{
    struct fixture *f = *state;
    start_fresh(f);
    assert_non_null(agent_snapshot(f->agent)); /* before any authority answered */
    wait_heartbeats(f, 2);
    assert_true(fake_run_until(&f->loop, is_healthy, f));
    struct agent_status s;
    agent_status(f->agent, &s);
    assert_string_equal(s.health, "healthy");
    const struct fake_authority *a = uuid_equal(&s.authority, &f->a1.node.id) ? &f->a1 : &f->a2;
    assert_true(uuid_equal(&s.authority, &a->node.id));
    assert_true(a->heartbeats >= 2);
    assert_int_equal(a->heartbeat_version, 5);
    assert_string_equal(a->heartbeat_health, "healthy");
    assert_true(a->heartbeat_capabilities >= 1);
    assert_int_equal(a->subscribed_version, 5);
}

/* SNAP-04: applied, reported, and still in force after a restart without an authority. */
static void test_newer_snapshot_is_in_force_and_survives_restart_offline(void **state)
{
    struct fixture *f = *state;
    struct fake_snapshot s;
    start_fresh(f);
    wait_heartbeats(f, 1);
    snapshot_of(f, &s, 9);
    s.roles[0] = "relay-node";
    s.revoked[0] = f->a1.plain.fingerprint;
    publish(f, &s);
    wait_config(f);
    assert_int_equal(agent_snapshot(f->agent)->body.config_version, 9);
    assert_true(config_has_role(agent_snapshot(f->agent), "relay-node"));
    assert_true(pki_trust_is_banned(f->trust, f->a1.plain.fingerprint));
    wait_heartbeats(f, 2);
    assert_true(f->a1.heartbeat_version == 9 || f->a2.heartbeat_version == 9);

    stop_node(f);
    fake_authority_close(&f->a1);
    fake_authority_close(&f->a2);
    assert_true(fake_run_until(&f->loop, authorities_are_down, f));
    start_node(f);
    assert_int_equal(agent_snapshot(f->agent)->body.config_version, 9);
    assert_true(pki_trust_is_banned(f->trust, f->a1.plain.fingerprint));
}

static bool both_subscribed(void *data)
{
    struct fixture *f = data;
    return f->a1.subscribed > 0 && f->a2.subscribed > 0;
}

/* S17: refused, the old one stays, and another authority is asked. */
static void test_forged_snapshot_changes_nothing_and_the_agent_turns_away(void **state)
{
    struct fixture *f = *state;
    struct fake_snapshot s;
    start_fresh(f);
    wait_heartbeats(f, 1);
    snapshot_of(f, &s, 100);
    s.signer = &f->a1.plain;
    s.second = &f->a1.node;
    s.second_address = f->a1.address;
    publish(f, &s);
    assert_true(fake_run_until(&f->loop, both_subscribed, f));
    assert_int_equal(f->configs, 0);
    assert_int_equal(agent_snapshot(f->agent)->body.config_version, 5);
}

static void test_older_snapshot_is_ignored_and_the_session_kept(void **state)
{
    struct fixture *f = *state;
    struct fake_snapshot s;
    start_fresh(f);
    wait_heartbeats(f, 1);
    snapshot_of(f, &s, 4);
    publish(f, &s);
    wait_heartbeats(f, 3);
    assert_int_equal(f->configs, 0);
    assert_int_equal(agent_snapshot(f->agent)->body.config_version, 5);
    assert_int_equal(f->a1.subscribed + f->a2.subscribed, 1);
}

static void test_lost_authority_is_replaced_by_the_other(void **state)
{
    struct fixture *f = *state;
    start_fresh(f);
    assert_true(fake_run_until(&f->loop, is_healthy, f));
    struct agent_status s;
    agent_status(f->agent, &s);
    bool first = uuid_equal(&s.authority, &f->a1.node.id);
    struct fake_authority *other = first ? &f->a2 : &f->a1;
    fake_authority_close(first ? &f->a1 : &f->a2);
    size_t before = other->heartbeats;
    assert_int_equal(before, 0);
    wait_heartbeats(f, 2);
    assert_true(other->heartbeats > 0);
    assert_true(fake_run_until(&f->loop, is_healthy, f));
}

static bool is_revoked(void *data)
{
    struct fixture *f = data;
    struct agent_status s;
    agent_status(f->agent, &s);
    return strcmp(s.health, "revoked") == 0;
}

/* S9: a node that learns of its own revocation says so and stops dialling. */
static void test_own_revocation_ends_in_a_clear_state(void **state)
{
    struct fixture *f = *state;
    struct fake_snapshot s;
    start_fresh(f);
    wait_heartbeats(f, 1);
    snapshot_of(f, &s, 6);
    s.revoked[0] = f->fingerprint;
    publish(f, &s);
    assert_true(fake_run_until(&f->loop, is_revoked, f));
    struct agent_status st;
    agent_status(f->agent, &st);
    assert_false(st.connected);
    stop_node(f);
    start_node(f); /* it knows from the stored snapshot */
    assert_true(is_revoked(f));
}

/* S9, seen from the node: the authority closes the session as revoked. */
static void test_session_closed_as_revoked_ends_in_a_clear_state(void **state)
{
    struct fixture *f = *state;
    start_fresh(f);
    wait_heartbeats(f, 1);
    pki_trust_ban(f->cluster.trust, f->fingerprint);
    assert_int_equal(fabric_recheck(f->a1.fabric) + fabric_recheck(f->a2.fabric), 1);
    assert_true(fake_run_until(&f->loop, is_revoked, f));
}

static void test_authority_known_by_name_is_looked_up(void **state)
{
    struct fixture *f = *state;
    struct fake_snapshot s;
    char a1[ADDR_TEXT_MAX];
    char a2[ADDR_TEXT_MAX];
    struct addr unused;
    if (addr_resolve("localhost:1", &unused, NULL) != 0) {
        print_message("skipped: this host has no name for itself (/etc/hosts)\n");
        skip();
    }
    start_fresh(f);
    (void)snprintf(a1, sizeof a1, "localhost%s", strrchr(f->a1.address, ':'));
    (void)snprintf(a2, sizeof a2, "localhost%s", strrchr(f->a2.address, ':'));
    snapshot_of(f, &s, 6);
    s.address = a1;
    s.second_address = a2;
    publish(f, &s);
    wait_config(f);
    stop_node(f);
    start_node(f); /* now names are all it has */
    wait_heartbeats(f, 2);
}

static void test_expired_snapshot_kept_but_degraded_until_a_new_one(void **state)
{
    struct fixture *f = *state;
    struct fake_snapshot s;
    enrol(f, f->now_ms - PKI_BACKDATE_MS, f->now_ms + PKI_LEAF_LIFE_MS, true);
    start_node(f);
    struct agent_status st;
    agent_status(f->agent, &st);
    assert_true(st.degraded);
    assert_string_equal(st.health, "degraded");
    assert_int_equal(agent_snapshot(f->agent)->body.config_version, 5);
    wait_heartbeats(f, 1);
    /* Past half life it asks for the current one, whatever its version. */
    assert_int_equal(f->a1.subscribed_version + f->a2.subscribed_version, 0);
    snapshot_of(f, &s, 5); /* a refresh: the same, issued later */
    publish(f, &s);
    wait_config(f);
    assert_true(fake_run_until(&f->loop, is_healthy, f));
}

static void test_damaged_store_still_refuses_older_snapshots(void **state)
{
    struct fixture *f = *state;
    struct fake_snapshot s;
    enrol(f, f->now_ms - PKI_BACKDATE_MS, f->now_ms + PKI_LEAF_LIFE_MS, false);
    struct buf good;
    buf_init(&good, SNAPSHOT_MAX_BYTES);
    assert_int_equal(member_open(f->dir, &f->member, NULL), 0);
    assert_int_equal(member_save_snapshot(f->member, blob_str("damaged"), 1, 7, 0, NULL), 0);
    member_free(f->member);
    start_node(f);
    assert_null(agent_snapshot(f->agent));
    snapshot_of(f, &s, 6);
    fake_sign(&s, &good);
    assert_int_equal(agent_offer_snapshot(f->agent, buf_blob(&good), NULL), -ERR_ROLLBACK);
    snapshot_of(f, &s, 7); /* the very one that was damaged is welcome */
    buf_clear(&good);
    fake_sign(&s, &good);
    assert_int_equal(agent_offer_snapshot(f->agent, buf_blob(&good), NULL), 0);
    assert_int_equal(agent_snapshot(f->agent)->body.config_version, 7);
    buf_fini(&good);
}

static bool has_renewals(void *data)
{
    struct fixture *f = data;
    return f->renewals >= f->wanted;
}

static bool was_asked_to_renew(void *data)
{
    struct fixture *f = data;
    return f->a1.renewals + f->a2.renewals >= f->wanted;
}

/* DESIGN section 4: at two thirds of its life, over the live session; D14: with one request id. */
static void test_due_certificate_is_renewed_with_one_request_id(void **state)
{
    struct fixture *f = *state;
    struct agent_status s;
    enrol(f, f->now_ms - 25 * DAY_MS, f->now_ms + 5 * DAY_MS, false);
    fake_authority_close(&f->a2); /* one authority, so one list of ids */
    f->a1.renew_rc = -ERR_NO_QUORUM;
    start_node(f);
    f->wanted = 1;
    assert_true(fake_run_until(&f->loop, was_asked_to_renew, f));
    stop_node(f);
    f->a1.renew_rc = 0;
    start_node(f);
    assert_true(fake_run_until(&f->loop, has_renewals, f));
    assert_true(f->a1.renewals >= 2);
    assert_true(uuid_equal(&f->a1.renew_ids[0], &f->a1.renew_ids[1]));
    agent_status(f->agent, &s);
    assert_true(s.certificate_expires_ms > f->now_ms + 29 * DAY_MS);
    wait_heartbeats(f, 2); /* the session outlives it */

    size_t asked = f->a1.renewals;
    stop_node(f);
    start_node(f); /* from disk */
    agent_status(f->agent, &s);
    assert_true(s.certificate_expires_ms > f->now_ms + 29 * DAY_MS);
    wait_heartbeats(f, 3);
    assert_int_equal(f->a1.renewals, asked);
}

/* Of a removed authority's CA: its leaves still count, but only until they are renewed elsewhere. */
static void test_leaf_of_a_retired_ca_is_renewed_elsewhere(void **state)
{
    struct fixture *f = *state;
    struct fake_snapshot s;
    start_fresh(f); /* under the CA of a1 */
    wait_heartbeats(f, 1);
    fake_snapshot_init(&s, &f->cluster, &f->a2.node, &f->node_id, 6, f->now_ms);
    s.address = f->a2.address;
    s.retired[0] = f->a1.node.issuer_fingerprint;
    publish(f, &s);
    f->wanted = 1;
    assert_true(fake_run_until(&f->loop, has_renewals, f));
    assert_true(pki_trust_is_retired(f->trust, f->a1.node.issuer_fingerprint));
    assert_int_equal(f->a1.renewals, 0);
    assert_int_equal(f->a2.renewals, 1);
    wait_heartbeats(f, 2);
    assert_int_equal(f->a2.renewals, 1);
}

/* S9, S17: a full disk must not keep a revoked peer alive, nor let an unstored version count. */
static void test_snapshot_that_cannot_be_stored_only_revokes(void **state)
{
    struct fixture *f = *state;
    struct fake_snapshot s;
    struct buf b;
    start_fresh(f);
    buf_init(&b, SNAPSHOT_MAX_BYTES);
    snapshot_of(f, &s, 6);
    s.revoked[0] = f->a1.plain.fingerprint;
    fake_sign(&s, &b);
    assert_int_equal(db_exec(f->member->db, "PRAGMA query_only = 1", NULL), 0);
    assert_int_equal(agent_offer_snapshot(f->agent, buf_blob(&b), NULL), -ERR_IO);
    assert_int_equal(agent_snapshot(f->agent)->body.config_version, 5);
    assert_true(pki_trust_is_banned(f->trust, f->a1.plain.fingerprint));
    assert_int_equal(f->configs, 0);
    assert_int_equal(db_exec(f->member->db, "PRAGMA query_only = 0", NULL), 0);
    assert_int_equal(agent_offer_snapshot(f->agent, buf_blob(&b), NULL), 0);
    assert_int_equal(f->configs, 1);
    buf_fini(&b);
}

static void on_answer(struct fabric_call *call, int rc, struct blob body)
{
    struct fixture *f = call->data;
    f->answered = true;
    f->answer_rc = rc;
    buf_clear(&f->answer);
    buf_add(&f->answer, body.data, body.len);
}

static bool has_answer(void *data)
{
    return ((struct fixture *)data)->answered;
}

static int ask_issuer(struct fixture *f, struct fake_authority *from,
                      const struct issuer_request *rq, struct issuer_answer *ret)
{
    struct fabric_call call = {.data = f};
    struct addr addr;
    struct buf b;
    buf_init(&b, RPC_FRAME_MAX);
    fabric_local_addr(f->fabric, &addr);
    fabric_peer_set(from->fabric, &f->node_id, &addr, 1);
    msg_encode(&issuer_request_desc, rq, &b);
    f->answered = false;
    assert_int_equal(fabric_call_start(from->fabric, &call, &f->node_id, "issuer", buf_blob(&b),
                                       10000, on_answer),
                     0);
    assert_true(fake_run_until(&f->loop, has_answer, f));
    buf_fini(&b);
    int rc = f->answer_rc;
    if (rc == 0) {
        rc = msg_decode(&issuer_answer_desc, MSG_STRICT, buf_blob(&f->answer), ret);
    }
    return rc;
}

static bool has_installs(void *data)
{
    return ((struct fixture *)data)->installs > 0;
}

static void test_authority_makes_this_node_an_authority(void **state)
{
    struct fixture *f = *state;
    struct issuer_answer answer;
    uint8_t key[PKI_KEY_BYTES];
    struct pki_cert leaf;
    struct buf ca;
    start_fresh(f);
    wait_heartbeats(f, 1);
    const struct issuer_request prepare = {.step = ISSUER_PREPARE};
    assert_int_equal(ask_issuer(f, &f->a1, &prepare, &answer), 0);
    assert_int_equal(pki_csr_parse(answer.csr, key, NULL), 0);

    buf_init(&ca, CERT_DER_MAX);
    fake_issue_ca(&f->cluster, &f->a1.node.id, key, f->now_ms, &ca); /* for another node */
    struct issuer_request install = {.step = ISSUER_INSTALL, .issuer = buf_blob(&ca)};
    assert_int_equal(ask_issuer(f, &f->a1, &install, &answer), -ERR_WRONG_NODE);
    assert_int_equal(f->installs, 0);

    buf_clear(&ca);
    fake_issue_ca(&f->cluster, &f->node_id, key, f->now_ms, &ca);
    install.issuer = buf_blob(&ca);
    assert_int_equal(ask_issuer(f, &f->a1, &install, &answer), 0);
    assert_int_equal(pki_cert_parse(answer.leaf, &leaf, NULL), 0);
    assert_true(leaf.authority);
    assert_true(uuid_equal(&leaf.node_id, &f->node_id));
    assert_true(fake_run_until(&f->loop, has_installs, f));
    assert_int_equal(f->installs, 1);
    buf_fini(&ca);
}

static void test_ordinary_node_may_not_ask_for_an_issuer(void **state)
{
    struct fixture *f = *state;
    struct issuer_answer answer;
    const struct issuer_request prepare = {.step = ISSUER_PREPARE};
    start_fresh(f);
    const struct blob chain[3] = {buf_blob(&f->a2.plain.leaf_der),
                                  buf_blob(&f->a2.plain.issuer_der),
                                  buf_blob(&f->cluster.root_der)};
    assert_int_equal(fabric_set_identity(f->a2.fabric, chain, 3, f->a2.plain.key, NULL), 0);
    assert_int_equal(ask_issuer(f, &f->a2, &prepare, &answer), -ERR_NOT_AUTHORITY);
}

static void test_local_authority_takes_offered_snapshots_and_leaves_the_network(void **state)
{
    struct fixture *f = *state;
    struct fake_snapshot s;
    struct agent_status st;
    struct buf b;
    start_fresh(f);
    wait_heartbeats(f, 1);
    agent_set_local(f->agent, true);
    agent_status(f->agent, &st);
    assert_true(st.connected);
    assert_true(uuid_equal(&st.authority, &f->node_id));
    buf_init(&b, SNAPSHOT_MAX_BYTES);
    snapshot_of(f, &s, 12);
    fake_sign(&s, &b);
    assert_int_equal(agent_offer_snapshot(f->agent, buf_blob(&b), NULL), 0);
    assert_int_equal(f->configs, 1);
    assert_int_equal(agent_offer_snapshot(f->agent, buf_blob(&b), NULL), -ERR_ROLLBACK);
    assert_int_equal(agent_offer_snapshot(f->agent, blob_str("x"), NULL), -ERR_MALFORMED);
    size_t asked = f->a1.subscribed + f->a2.subscribed;
    agent_set_local(f->agent, false);
    wait_heartbeats(f, 1);
    assert_int_equal(f->a1.subscribed + f->a2.subscribed, asked + 1);
    buf_fini(&b);
}

static bool never(void *data)
{
    return (*(int *)data)-- <= 0;
}

/* Closing is safe whatever is under way. */
static void test_close_after_any_number_of_turns(void **state)
{
    struct fixture *f = *state;
    enrol(f, f->now_ms - 25 * DAY_MS, f->now_ms + 5 * DAY_MS, false);
    for (int turns = 0; turns < 24; turns++) {
        int left = turns;
        start_node(f);
        assert_true(fake_run_until(&f->loop, never, &left));
        stop_node(f);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_agent_connects_and_reports),
        T(test_newer_snapshot_is_in_force_and_survives_restart_offline),
        T(test_forged_snapshot_changes_nothing_and_the_agent_turns_away),
        T(test_older_snapshot_is_ignored_and_the_session_kept),
        T(test_lost_authority_is_replaced_by_the_other),
        T(test_own_revocation_ends_in_a_clear_state),
        T(test_session_closed_as_revoked_ends_in_a_clear_state),
        T(test_authority_known_by_name_is_looked_up),
        T(test_expired_snapshot_kept_but_degraded_until_a_new_one),
        T(test_damaged_store_still_refuses_older_snapshots),
        T(test_due_certificate_is_renewed_with_one_request_id),
        T(test_leaf_of_a_retired_ca_is_renewed_elsewhere),
        T(test_snapshot_that_cannot_be_stored_only_revokes),
        T(test_authority_makes_this_node_an_authority),
        T(test_ordinary_node_may_not_ask_for_an_issuer),
        T(test_local_authority_takes_offered_snapshots_and_leaves_the_network),
        T(test_close_after_any_number_of_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
