/* What only the owner may decide is refused by the state itself without the owner's signature, whatever
 * leader proposed it (decision 0018). Certificates and records here are real. */
#include "lib/fsm_fixture.h"
#include "lib/pki_fixture.h"
#include "wire/node_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

#define SEED 2 /* test_uuid numbers */
#define SECOND 7

struct owned {
    struct fsm_world w;
    struct test_ca ca;     /* the cluster's root, and the first authority's CA */
    struct test_ca second; /* the CA of the second authority, by the same root */
    struct test_ca thief;  /* another root that calls itself the same cluster's */
    struct pki_key *key;   /* of the node that is to be an authority */
    struct buf cert, leaf, list, record;
};

static void fingerprint_of(const struct pki_key *key, uint8_t public_key[32], uint8_t ret[32])
{
    pki_key_public(key, public_key);
    pki_fingerprint(public_key, ret);
}

/* A cmd_cert that says what the certificate says. */
static struct blob put_cert(struct owned *o, struct blob der, struct blob issuer_der)
{
    struct pki_cert c;
    assert_int_equal(pki_cert_parse(der, &c, NULL), 0);
    const struct cmd_cert cert = {
        .der = der,
        .serial = blob_of(c.serial, sizeof c.serial),
        .not_before_ms = c.not_before_ms,
        .not_after_ms = c.not_after_ms,
        .public_key = blob_of(c.public_key, sizeof c.public_key),
        .fingerprint = blob_of(c.fingerprint, sizeof c.fingerprint),
        .issuer_der = issuer_der,
    };
    buf_clear(&o->cert);
    msg_encode(&cmd_cert_desc, &cert, &o->cert);
    return buf_blob(&o->cert);
}

static void issue(const struct test_ca *ca, uint8_t node, const struct pki_key *key, bool authority,
                  struct buf *out)
{
    struct pki_cert spec = test_leaf_spec(ca, node, key);
    spec.authority = authority;
    buf_fini(out);
    test_issue(ca, &spec, out);
}

static void join(struct owned *o)
{
    uint8_t public_key[32];
    uint8_t fingerprint[32];
    fingerprint_of(o->key, public_key, fingerprint);
    (void)fsm_make_token(&o->w, 1, 1);
    struct join_submit body = fsm_submit(&o->w, 2, "second", 1);
    body.public_key = blob_of(public_key, 32);
    body.fingerprint = blob_of(fingerprint, 32);
    assert_int_equal(fsm_do(&o->w, CMD_JOIN_SUBMIT, &body), 0);
    issue(&o->ca, SECOND, o->key, false, &o->leaf);
    assert_int_equal(
        fsm_do(&o->w, CMD_JOIN_APPROVE,
               &(struct join_approve){
                   .join_id = body.join_id,
                   .node_id = test_uuid(SECOND),
                   .cert = put_cert(o, buf_blob(&o->leaf), buf_blob(&o->ca.issuer_der)),
               }),
        0);
}

static int as_owner(struct owned *o, uint64_t kind, const void *body)
{
    struct cmd c = fsm_envelope(&o->w, kind);
    c.actor_kind = blob_str(ACTOR_OWNER);
    return fsm_do_cmd(&o->w, c, body);
}

static void owned_init(struct owned *o)
{
    uint8_t public_key[32];
    uint8_t root[32];
    uint8_t issuer[32];
    struct pki_key *seed = pki_key_generate();
    test_ca_init(&o->ca, 1, SEED);
    test_ca_init_second(&o->second, &o->ca, SECOND);
    test_ca_init(&o->thief, 1, SECOND);
    o->key = pki_key_generate();
    buf_init(&o->cert, CMD_CERT_MAX);
    buf_init(&o->leaf, CERT_DER_MAX);
    buf_init(&o->list, CMD_BODY_MAX);
    buf_init(&o->record, TRUST_SIGNED_MAX);
    fsm_world_init_empty(&o->w);
    o->w.now_ms = TEST_NOW_MS;
    issue(&o->ca, SEED, seed, true, &o->leaf);
    fingerprint_of(o->ca.issuer_key, public_key, issuer);
    fingerprint_of(o->ca.root_key, public_key, root);
    const struct cluster_init body = {
        .cluster_id = o->ca.cluster_id,
        .name = blob_str("lab"),
        .root_der = buf_blob(&o->ca.root_der),
        .root_fingerprint = blob_of(root, 32),
        .node_id = test_uuid(SEED),
        .node_name = blob_str("seed"),
        .address = blob_str("127.0.0.1:7401"),
        .cert = put_cert(o, buf_blob(&o->leaf), buf_blob(&o->ca.issuer_der)),
        .issuer_fingerprint = blob_of(issuer, 32),
    };
    assert_int_equal(as_owner(o, CMD_CLUSTER_INIT, &body), 0);
    pki_key_free(seed);
    join(o);
}

static void owned_fini(struct owned *o)
{
    fsm_world_fini(&o->w);
    test_ca_fini(&o->ca);
    test_ca_fini(&o->second);
    test_ca_fini(&o->thief);
    pki_key_free(o->key);
    buf_fini(&o->cert);
    buf_fini(&o->leaf);
    buf_fini(&o->list);
    buf_fini(&o->record);
}

/* The second node an authority, under this CA; node: whom its leaf names. The body is good until the
 * next call. */
static struct authority_add addition(struct owned *o, const struct test_ca *ca, uint8_t node)
{
    static uint8_t fingerprint[32];
    uint8_t public_key[32];
    fingerprint_of(ca->issuer_key, public_key, fingerprint);
    issue(ca, node, o->key, node == SECOND, &o->leaf);
    return (struct authority_add){
        .node_id = test_uuid(SECOND),
        .address = blob_str("192.0.2.7:7400"),
        .issuer_der = buf_blob(&ca->issuer_der),
        .issuer_fingerprint = blob_of(fingerprint, 32),
        .cert = put_cert(o, buf_blob(&o->leaf), buf_blob(&ca->issuer_der)),
    };
}

static void test_authority_that_the_owner_did_not_certify_is_refused(void **state)
{
    struct owned o;
    (void)state;
    owned_init(&o);
    fsm_world_raise(&o.w);
    struct authority_add b = addition(&o, &o.thief, SECOND);
    assert_int_equal(as_owner(&o, CMD_AUTHORITY_ADD, &b), -ERR_BAD_SIGNATURE);
    b = addition(&o, &o.second, 9);
    assert_int_equal(as_owner(&o, CMD_AUTHORITY_ADD, &b), -ERR_BAD_CERT);
    /* The CA of the first authority makes no second one. */
    b = addition(&o, &o.ca, 9);
    assert_int_not_equal(as_owner(&o, CMD_AUTHORITY_ADD, &b), 0);
    /* An honest certificate beside a row that lies about its end. */
    b = addition(&o, &o.second, SECOND);
    struct cmd_cert lie;
    struct buf bytes;
    buf_init(&bytes, CMD_CERT_MAX);
    assert_int_equal(msg_decode(&cmd_cert_desc, MSG_STRICT, b.cert, &lie), 0);
    lie.not_after_ms += 1000;
    msg_encode(&cmd_cert_desc, &lie, &bytes);
    b.cert = buf_blob(&bytes);
    assert_int_equal(as_owner(&o, CMD_AUTHORITY_ADD, &b), -ERR_BAD_CERT);
    buf_fini(&bytes);
    assert_int_equal(fsm_count(&o.w, "SELECT count(*) FROM cluster_authorities"), 1);
    assert_int_equal(fsm_count(&o.w, "SELECT count(*) FROM cluster_audit_events WHERE"
                                     " event_type = 'command_refused' AND high_risk = 1"),
                     4);

    b = addition(&o, &o.second, SECOND);
    assert_int_equal(as_owner(&o, CMD_AUTHORITY_ADD, &b), 0);
    owned_fini(&o);
}

/* Logs from before are applied as they were. */
static void test_below_its_level_nothing_is_asked_for(void **state)
{
    struct owned o;
    (void)state;
    owned_init(&o);
    fsm_world_raise_to(&o.w, LEVEL_SIGNED - 1);
    struct authority_add b = addition(&o, &o.thief, SECOND);
    assert_int_equal(as_owner(&o, CMD_AUTHORITY_ADD, &b), 0);
    owned_fini(&o);
}

static void test_ca_that_the_owner_did_not_renew_is_refused(void **state)
{
    struct owned o;
    uint8_t public_key[32];
    uint8_t issuer[32];
    uint8_t root[32];
    struct buf forged;
    struct buf renewed;
    (void)state;
    owned_init(&o);
    fsm_world_raise(&o.w);
    fingerprint_of(o.ca.issuer_key, public_key, issuer);
    fingerprint_of(o.ca.root_key, (uint8_t[32]){0}, root);
    /* The same CA key, certified by the thief's root, and then by the owner. */
    struct pki_cert spec = {.kind = PKI_ISSUER,
                            .cluster_id = o.ca.cluster_id,
                            .node_id = test_uuid(SEED),
                            .not_before_ms = TEST_NOW_MS - PKI_BACKDATE_MS,
                            .not_after_ms = TEST_NOW_MS + PKI_ISSUER_LIFE_MS};
    buf_init(&forged, CERT_DER_MAX);
    buf_init(&renewed, CERT_DER_MAX);
    memcpy(spec.public_key, public_key, 32);
    test_serial(spec.serial);
    assert_int_equal(
        pki_cert_issue(&spec, o.thief.root_key, buf_blob(&o.thief.root_der), &forged, NULL), 0);
    test_serial(spec.serial);
    assert_int_equal(pki_cert_issue(&spec, o.ca.root_key, buf_blob(&o.ca.root_der), &renewed, NULL),
                     0);
    struct authority_renew b = {
        .node_id = test_uuid(SEED),
        .issuer_der = buf_blob(&forged),
        .issuer_fingerprint = blob_of(issuer, 32),
        .root_id = blob_of(root, 32),
    };
    assert_int_equal(as_owner(&o, CMD_AUTHORITY_RENEW, &b), -ERR_BAD_SIGNATURE);
    b.issuer_der = buf_blob(&o.second.issuer_der); /* the owner's, of another authority */
    assert_int_equal(as_owner(&o, CMD_AUTHORITY_RENEW, &b), -ERR_BAD_CERT);
    b.issuer_der = buf_blob(&renewed);
    assert_int_equal(as_owner(&o, CMD_AUTHORITY_RENEW, &b), 0);
    buf_fini(&forged);
    buf_fini(&renewed);
    owned_fini(&o);
}

/* Record 1: the first root active, `other` prepared; signed by these. */
static void sign_record(struct owned *o, const struct test_ca *other,
                        const struct pki_key *const *keys, size_t count)
{
    struct buf list;
    uint32_t n = 0;
    buf_init(&list, TRUST_RECORD_MAX);
    msg_list_add(
        &trust_root_desc,
        &(struct trust_root){.der = buf_blob(&o->ca.root_der), .status = TRUST_ROOT_ACTIVE}, &list,
        &n);
    msg_list_add(
        &trust_root_desc,
        &(struct trust_root){.der = buf_blob(&other->root_der), .status = TRUST_ROOT_PREPARED},
        &list, &n);
    const struct trust_record record = {
        .seq = 1,
        .cluster_id = o->ca.cluster_id,
        .epoch = 1,
        .roots = {.raw = buf_blob(&list), .count = n},
        .issued_at_ms = TEST_NOW_MS,
    };
    buf_clear(&o->record);
    assert_int_equal(pki_trust_record_sign(&record, keys, count, &o->record, NULL), 0);
    buf_fini(&list);
}

static void test_roots_that_the_owner_did_not_list_are_refused(void **state)
{
    struct owned o;
    uint8_t public_key[32];
    uint8_t active[32];
    uint8_t other[32];
    struct test_ca next;
    (void)state;
    owned_init(&o);
    fsm_world_raise(&o.w);
    test_ca_init(&next, 1, SEED);
    fingerprint_of(o.ca.root_key, public_key, active);
    fingerprint_of(o.thief.root_key, public_key, other);
    struct trust_rotate b = {
        .seq = 1,
        .active_id = blob_of(active, 32),
        .other_id = blob_of(other, 32),
        .other_status = TRUST_ROOT_PREPARED,
        .new_root_der = buf_blob(&o.thief.root_der),
    };
    /* The thief can sign with its own root only. */
    sign_record(&o, &o.thief, (const struct pki_key *const[]){o.thief.root_key}, 1);
    b.record = buf_blob(&o.record);
    assert_int_equal(as_owner(&o, CMD_TRUST_ROTATE, &b), -ERR_BAD_SIGNATURE);
    /* The owner's record of another root. */
    sign_record(&o, &next, (const struct pki_key *const[]){o.ca.root_key, next.root_key}, 2);
    b.record = buf_blob(&o.record);
    assert_int_equal(as_owner(&o, CMD_TRUST_ROTATE, &b), -ERR_BAD_CERT);
    fingerprint_of(next.root_key, public_key, other);
    b.new_root_der = buf_blob(&o.thief.root_der);
    assert_int_equal(as_owner(&o, CMD_TRUST_ROTATE, &b), -ERR_BAD_CERT);
    /* A CA beside it that no root signed that will be active. */
    struct buf list;
    buf_init(&list, CMD_BODY_MAX);
    b.new_root_der = buf_blob(&next.root_der);
    msg_list_add(
        &trust_issuer_desc,
        &(struct trust_issuer){.node_id = test_uuid(SECOND), .der = buf_blob(&o.thief.issuer_der)},
        &list, &b.issuers.count);
    b.issuers.raw = buf_blob(&list);
    assert_int_equal(as_owner(&o, CMD_TRUST_ROTATE, &b), -ERR_BAD_SIGNATURE);
    b.issuers = (struct mp_list){.count = 0};
    assert_int_equal(as_owner(&o, CMD_TRUST_ROTATE, &b), 0);
    buf_fini(&list);
    test_ca_fini(&next);
    owned_fini(&o);
}

static void test_audit_names_the_authority_that_passed_it_on(void **state)
{
    struct fsm_world w;
    (void)state;
    fsm_world_init(&w);
    fsm_world_raise(&w);
    uint8_t hash[32] = {1};
    struct cmd c = fsm_envelope(&w, CMD_TOKEN_CREATE);
    c.via = test_uuid(SECOND);
    assert_int_equal(fsm_do_cmd(&w, c,
                                &(struct token_create){.token_id = fsm_fake_id(3, 5),
                                                       .token_hash = blob_of(hash, 32),
                                                       .expires_at_ms = w.now_ms + FSM_HOUR,
                                                       .max_uses = 1}),
                     0);
    char id[UUID_TEXT_MAX];
    char sql[256];
    uuid_format(&c.via, id);
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM cluster_audit_events WHERE event_type = 'token_created'"
                   " AND json_extract(details, '$.via') = '%s'",
                   id);
    assert_int_equal(fsm_count(&w, sql), 1);
    fsm_world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_authority_that_the_owner_did_not_certify_is_refused),
        cmocka_unit_test(test_below_its_level_nothing_is_asked_for),
        cmocka_unit_test(test_ca_that_the_owner_did_not_renew_is_refused),
        cmocka_unit_test(test_roots_that_the_owner_did_not_list_are_refused),
        cmocka_unit_test(test_audit_names_the_authority_that_passed_it_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
