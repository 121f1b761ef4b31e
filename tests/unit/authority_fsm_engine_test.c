/* The engine: equal logs, request ids, stamps, what stops a replica (S4, S6, S15; DESIGN D9, D10,
 * D14). */
#include "authority/fsm_impl.h"
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

static struct token_create token(struct fsm_world *w, uint32_t n)
{
    static uint8_t hashes[8][32];
    uint8_t *hash = hashes[n % 8];
    fsm_fake_token(n, hash);
    return (struct token_create){.token_id = fsm_fake_id(3, n),
                                 .token_hash = blob_of(hash, 32),
                                 .expires_at_ms = w->now_ms + FSM_HOUR,
                                 .max_uses = 1};
}

static void test_first_command_must_make_the_cluster(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_position p;
    fsm_world_init_empty(&w);
    struct token_create b = token(&w, 1);
    assert_int_equal(fsm_do(&w, CMD_TOKEN_CREATE, &b), -ERR_CONFLICT);
    must(&w, fsm_world_init_cluster(&w));
    assert_string_equal(fsm_doc_text(&w, "name"), "lab");
    assert_int_equal(fsm_world_init_cluster(&w), -ERR_EXISTS);
    must(&w, fsm_do(&w, CMD_TOKEN_CREATE, &b));
    fsm_position(w.fsm, &p);
    assert_int_equal(p.epoch, 1);
    assert_int_equal(p.term, 1);
    assert_int_equal(p.index, w.index);
    assert_int_equal(p.time_ms, w.now_ms);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_trust_roots"), 1);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_authorities WHERE status ="
                                   " 'voter'"),
                     1);
    fsm_world_fini(&w);
}

static void test_cluster_init_wants_the_owner_and_good_names(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_fake seed;
    fsm_world_init_empty(&w);
    fsm_fake(1, &seed);
    struct cluster_init b = {
        .cluster_id = fsm_fake_id(2, 1),
        .name = blob_str("lab"),
        .root_der = blob_str("root"),
        .root_fingerprint = blob_of(seed.fingerprint, 32),
        .node_id = seed.id,
        .node_name = blob_str("seed"),
        .address = blob_str("127.0.0.1:1"),
        .cert = fsm_fake_cert(&(struct fsm_fake_cert){.key = 1, .issuer = 1, .serial = 1}),
        .issuer_fingerprint = blob_of(seed.fingerprint, 32),
    };
    assert_int_equal(fsm_do(&w, CMD_CLUSTER_INIT, &b), -ERR_DENIED);
    w.actor_kind = ACTOR_OWNER;
    b.name = blob_str("Lab");
    assert_int_equal(fsm_do(&w, CMD_CLUSTER_INIT, &b), -ERR_INVALID);
    b.name = blob_str("lab");
    b.node_name = blob_str("a b");
    assert_int_equal(fsm_do(&w, CMD_CLUSTER_INIT, &b), -ERR_INVALID);
    b.node_name = blob_str("seed");
    b.issuer_fingerprint = blob_of(NULL, 0);
    assert_int_equal(fsm_do(&w, CMD_CLUSTER_INIT, &b), -ERR_BAD_CERT); /* make-believe DER */
    b.issuer_fingerprint = blob_of(seed.fingerprint, 32);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM clusters"), 0);
    must(&w, fsm_do(&w, CMD_CLUSTER_INIT, &b));
    fsm_world_fini(&w);
}

static void test_cluster_init_reads_the_issuers_fingerprint_when_not_told(void **state)
{
    (void)state;
    struct fsm_world w;
    struct buf root;
    struct buf issuer;
    buf_init(&root, CERT_DER_MAX);
    buf_init(&issuer, CERT_DER_MAX);
    fsm_world_init_empty(&w);
    w.actor_kind = ACTOR_OWNER;
    struct fsm_fake seed;
    fsm_fake(1, &seed);
    struct uuid cluster = fsm_fake_id(2, 1);
    struct pki_key *root_key = pki_key_generate();
    struct pki_key *issuer_key = pki_key_generate();
    struct pki_cert r = {.kind = PKI_ROOT,
                         .cluster_id = cluster,
                         .serial = {1, 2},
                         .not_before_ms = FSM_T0,
                         .not_after_ms = FSM_T0 + PKI_ROOT_LIFE_MS};
    struct pki_cert i = {.kind = PKI_ISSUER,
                         .cluster_id = cluster,
                         .node_id = seed.id,
                         .serial = {1, 3},
                         .not_before_ms = FSM_T0,
                         .not_after_ms = FSM_T0 + PKI_ISSUER_LIFE_MS};
    struct errmsg em = ERRMSG_INIT;
    pki_key_public(root_key, r.public_key);
    pki_key_public(issuer_key, i.public_key);
    assert_int_equal(pki_cert_issue(&r, root_key, blob_of(NULL, 0), &root, &em), 0);
    assert_int_equal(pki_cert_issue(&i, root_key, buf_blob(&root), &issuer, &em), 0);
    struct cmd_cert c;
    struct buf cert;
    buf_init(&cert, CMD_CERT_MAX);
    assert_int_equal(
        msg_decode(&cmd_cert_desc, MSG_STRICT,
                   fsm_fake_cert(&(struct fsm_fake_cert){.key = 1, .issuer = 1, .serial = 1}), &c),
        0);
    c.issuer_der = buf_blob(&issuer);
    msg_encode(&cmd_cert_desc, &c, &cert);
    must(&w, fsm_do(&w, CMD_CLUSTER_INIT,
                    &(struct cluster_init){
                        .cluster_id = cluster,
                        .name = blob_str("lab"),
                        .root_der = buf_blob(&root),
                        .root_fingerprint = blob_of(r.fingerprint, 32),
                        .node_id = seed.id,
                        .node_name = blob_str("seed"),
                        .address = blob_str("127.0.0.1:1"),
                        .cert = buf_blob(&cert),
                    }));
    char want[65];
    char sql[200];
    hex_encode(i.fingerprint, 32, want);
    (void)snprintf(sql, sizeof sql,
                   "SELECT count(*) FROM cluster_authorities WHERE issuer_fingerprint = '%s'",
                   want);
    assert_int_equal(fsm_count(&w, sql), 1);
    pki_key_free(root_key);
    pki_key_free(issuer_key);
    buf_fini(&root);
    buf_fini(&issuer);
    buf_fini(&cert);
    fsm_world_fini(&w);
}

/* --- S15 --- */

/* A story with a refusal after a write in it. */
static void tell(struct fsm_world *w)
{
    (void)fsm_make_node(w, 7, "n7");
    struct uuid a8 = fsm_make_authority(w, 8, "a8");
    (void)fsm_make_token(w, 1, 2);
    (void)fsm_make_request(w, 50, "waiting", 1);
    must(w, fsm_do(w, CMD_ROLE_ASSIGN,
                   &(struct role_assign){.assignment_id = fsm_fake_id(5, 1),
                                         .node_id = a8,
                                         .role = blob_str("relay-node")}));
    w->now_ms += 1000;
    (void)fsm_do(w, CMD_NODE_HEALTH,
                 &(struct node_health){.node_id = a8,
                                       .health = blob_str("stale"),
                                       .capabilities = FSM_LIST("Bad Word")});
    must(w, fsm_do(w, CMD_AUTHORITY_REMOVE, &(struct authority_remove){.node_id = a8}));
}

static void test_equal_logs_give_equal_digests_at_every_index(void **state)
{
    (void)state;
    struct fsm_world a;
    struct fsm_world b;
    fsm_world_init(&a);
    fsm_world_init(&b);
    tell(&a);
    tell(&b);
    assert_int_equal(a.index, b.index);
    uint8_t last[32] = {0};
    for (uint64_t i = 2; i <= a.index; i++) {
        uint8_t x[32];
        uint8_t y[32];
        assert_true(fsm_digest_at(a.fsm, i, x));
        assert_true(fsm_digest_at(b.fsm, i, y));
        assert_memory_equal(x, y, 32);
        assert_memory_not_equal(x, last, 32);
        memcpy(last, x, 32);
    }
    uint8_t x[32];
    assert_false(fsm_digest_at(a.fsm, 1, x));
    assert_false(fsm_digest_at(a.fsm, a.index + 1, x));
    fsm_world_fini(&a);
    fsm_world_fini(&b);
}

static void test_one_changed_byte_changes_the_digest(void **state)
{
    (void)state;
    char digests[2][65];
    for (int i = 0; i < 2; i++) {
        struct fsm_world w;
        fsm_world_init(&w);
        struct uuid n = fsm_make_node(&w, 7, "n7");
        must(&w, fsm_do(&w, CMD_NODE_REVOKE,
                        &(struct node_revoke){.node_id = n,
                                              .reason = blob_str(i == 0 ? "lost" : "list")}));
        fsm_digest_hex(w.fsm, digests[i]);
        fsm_world_fini(&w);
    }
    assert_string_not_equal(digests[0], digests[1]);
}

static void test_digest_ring_forgets_after_4096_entries(void **state)
{
    (void)state;
    struct fsm_world w;
    uint8_t x[32];
    fsm_world_init(&w);
    uint64_t first = w.index;
    w.actor_kind = ACTOR_SYSTEM;
    for (int i = 0; i < 4096; i++) {
        assert_true(fsm_digest_at(w.fsm, first, x));
        must(&w, fsm_do(&w, CMD_JOIN_EXPIRE, &(struct join_expire){.before_ms = 1}));
    }
    assert_false(fsm_digest_at(w.fsm, first, x));
    assert_true(fsm_digest_at(w.fsm, first + 1, x));
    assert_true(fsm_digest_at(w.fsm, w.index, x));
    fsm_world_fini(&w);
}

/* --- request ids (S4, D14) --- */

static void test_retry_gets_the_first_answer_and_changes_nothing(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_position p;
    struct fsm_position q;
    uint8_t hash[32] = {1};
    fsm_world_init(&w);
    struct token_create b = token(&w, 1);
    struct cmd c = fsm_envelope(&w, CMD_TOKEN_CREATE);
    c.request_hash = blob_of(hash, 32);
    must(&w, fsm_do_cmd(&w, c, &b));
    struct buf first;
    buf_init(&first, 1u << 16);
    buf_add(&first, w.doc.data, w.doc.len);
    fsm_position(w.fsm, &p);
    /* The leader that retries decided other ids and times. */
    struct token_create again = token(&w, 2);
    c.time_ms += 60000;
    must(&w, fsm_do_cmd(&w, c, &again));
    fsm_position(w.fsm, &q);
    assert_true(w.replayed);
    assert_true(blob_equal(buf_blob(&first), buf_blob(&w.doc)));
    assert_int_equal(p.audit_seq, q.audit_seq);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_join_tokens"), 1);

    struct buf found;
    int rc = -1;
    buf_init(&found, 1u << 16);
    assert_true(fsm_find_result(w.fsm, &c.request_id, c.request_hash, &rc, &found));
    assert_int_equal(rc, 0);
    assert_true(blob_equal(buf_blob(&first), buf_blob(&found)));
    struct uuid unknown = fsm_fake_id(9, 987654);
    assert_false(fsm_find_result(w.fsm, &unknown, c.request_hash, &rc, &found));
    buf_fini(&first);
    buf_fini(&found);
    fsm_world_fini(&w);
}

static void test_request_id_of_another_request_is_refused(void **state)
{
    (void)state;
    struct fsm_world w;
    uint8_t hash[32] = {1};
    uint8_t other[32] = {2};
    fsm_world_init(&w);
    struct token_create b = token(&w, 1);
    struct cmd c = fsm_envelope(&w, CMD_TOKEN_CREATE);
    c.request_hash = blob_of(hash, 32);
    must(&w, fsm_do_cmd(&w, c, &b));
    struct cmd d = c;
    d.request_hash = blob_of(other, 32);
    assert_int_equal(fsm_do_cmd(&w, d, &b), -ERR_REUSED_ID);
    assert_false(w.replayed);
    assert_string_not_equal(fsm_doc_text(&w, "detail"), "");
    d = c;
    d.kind = CMD_TOKEN_REVOKE;
    assert_int_equal(fsm_do_cmd(&w, d, &(struct token_revoke){.token_id = b.token_id}),
                     -ERR_REUSED_ID);
    d = c;
    d.request_hash = blob_of(NULL, 0);
    assert_int_equal(fsm_do_cmd(&w, d, &b), -ERR_REUSED_ID);
    int rc = 0;
    struct buf found;
    buf_init(&found, 1u << 16);
    assert_true(fsm_find_result(w.fsm, &c.request_id, blob_of(other, 32), &rc, &found));
    assert_int_equal(rc, -ERR_REUSED_ID);
    assert_false(fsm_find_result(w.fsm, &c.request_id, blob_of(other, 5), &rc, &found));
    buf_fini(&found);
    must(&w, fsm_do_cmd(&w, c, &b));
    assert_true(w.replayed);
    fsm_world_fini(&w);
}

static void test_refusal_is_remembered_too(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    struct cmd c = fsm_envelope(&w, CMD_TOKEN_REVOKE);
    struct token_revoke b = {.token_id = fsm_fake_id(3, 1)};
    assert_int_equal(fsm_do_cmd(&w, c, &b), -ERR_NOT_FOUND);
    (void)fsm_make_token(&w, 1, 1);
    assert_int_equal(fsm_do_cmd(&w, c, &b), -ERR_NOT_FOUND);
    assert_true(w.replayed);
    must(&w, fsm_do(&w, CMD_TOKEN_REVOKE, &b));
    fsm_world_fini(&w);
}

static void test_results_are_forgotten_after_a_day_a_few_at_a_time(void **state)
{
    (void)state;
    struct fsm_world w;
    static const char old[] = "SELECT count(*) FROM request_results WHERE created_at ="
                              " 1780000000000";
    fsm_world_init(&w);
    for (uint32_t i = 0; i < 9; i++) {
        (void)fsm_make_token(&w, i, 1);
    }
    assert_int_equal(fsm_count(&w, old), 10);
    w.now_ms += 24 * FSM_HOUR;
    (void)fsm_make_token(&w, 20, 1);
    assert_int_equal(fsm_count(&w, old), 10); /* a day, not less */
    w.now_ms += 1;
    for (uint32_t i = 0; i < 5; i++) {
        (void)fsm_make_token(&w, 30 + i, 1);
        assert_int_equal(fsm_count(&w, old), 8 - 2 * (int64_t)i);
    }
    (void)fsm_make_token(&w, 40, 1);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM request_results"), 7);
    fsm_world_fini(&w);
}

static void note_results(void *data, size_t n, const struct fsm_result *results)
{
    struct fsm_result *out = data;
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++) {
        out[i] = results[i];
        assert_true(results[i].doc.len > 0);
    }
}

static void test_batch_gives_results_in_order_and_sees_its_own_changes(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_result results[3];
    fsm_world_init(&w);
    struct fsm_entry e;
    struct token_create b = token(&w, 1);
    struct cmd create = fsm_envelope(&w, CMD_TOKEN_CREATE);
    fsm_entry_begin(&e, w.term);
    fsm_entry_add(&e, create, &b);
    fsm_entry_add(&e, create, &b); /* the same request twice in one batch */
    fsm_entry_add(&e, fsm_envelope(&w, CMD_TOKEN_REVOKE),
                  &(struct token_revoke){.token_id = b.token_id});
    fsm_world_apply(&w, &e, note_results, results);
    fsm_entry_fini(&e);
    assert_int_equal(results[0].rc, 0);
    assert_false(results[0].replayed);
    assert_int_equal(results[1].rc, 0);
    assert_true(results[1].replayed);
    assert_int_equal(results[2].rc, 0);
    assert_int_equal(results[2].kind, CMD_TOKEN_REVOKE);
    assert_true(uuid_equal(&results[0].request_id, &create.request_id));
    fsm_world_fini(&w);
}

/* --- stamps (S6) --- */

static void test_stamps_never_go_back(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_position p;
    fsm_world_init(&w);
    (void)fsm_make_token(&w, 1, 5);
    w.now_ms += 2 * FSM_HOUR;
    (void)fsm_make_token(&w, 2, 1);
    int64_t high = w.now_ms;
    /* A new leader whose clock is two hours behind cannot revive the expired token. */
    w.now_ms -= 2 * FSM_HOUR;
    struct join_submit b = fsm_submit(&w, 50, "late", 1);
    assert_int_equal(fsm_do(&w, CMD_JOIN_SUBMIT, &b), -ERR_TOKEN_EXPIRED);
    fsm_position(w.fsm, &p);
    assert_int_equal(p.time_ms, high);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events a JOIN"
                                   " cluster_audit_events b ON b.seq = a.seq + 1"
                                   " WHERE b.created_at < a.created_at"),
                     0);
    fsm_world_fini(&w);
}

/* --- what stops a replica --- */

static int apply_raw(struct fsm_world *w, uint64_t index, uint64_t term, struct blob entry)
{
    struct errmsg em = ERRMSG_INIT;
    int rc = fsm_apply(w->fsm, index, term, entry, NULL, NULL, &em);
    if (rc != 0 && em.text[0] == '\0') {
        fail_msg("an entry that does not apply says why");
    }
    return rc;
}

static void put_command(struct mp_writer *w, uint64_t kind, struct blob body, int extra_key)
{
    struct buf one;
    struct mp_writer c;
    struct uuid id = fsm_fake_id(9, 4711);
    buf_init(&one, CMD_BODY_MAX);
    mp_writer_init(&c, &one);
    mp_put_map(&c, extra_key != 0 ? 6 : 5);
    mp_put_u64(&c, 1);
    mp_put_u64(&c, kind);
    mp_put_u64(&c, 2);
    mp_put_uuid(&c, &id);
    mp_put_u64(&c, 3);
    mp_put_i64(&c, FSM_T0);
    mp_put_u64(&c, 4);
    mp_put_str(&c, ACTOR_ADMIN);
    mp_put_u64(&c, 6);
    mp_put_bin(&c, body);
    if (extra_key != 0) {
        mp_put_u64(&c, (uint64_t)extra_key);
        mp_put_bool(&c, true);
    }
    mp_put_bin(w, buf_blob(&one));
    buf_fini(&one);
}

struct bad_entry {
    const char *name;
    uint64_t version, kind;
    int envelope_key; /* one that no command has */
    int body_key;     /* the same for the body */
    int rc;
};

static void test_unknown_kind_key_or_version_stops_and_changes_nothing(void **state)
{
    (void)state;
    static const struct bad_entry cases[] = {
        {"a sound one", 1, CMD_TOKEN_REVOKE, 0, 0, 0},
        {"newer entry", 2, CMD_TOKEN_REVOKE, 0, 0, -ERR_UNSUPPORTED},
        {"unknown command", 1, 99, 0, 0, -ERR_UNSUPPORTED},
        {"command 0", 1, 0, 0, 0, -ERR_MALFORMED},
        {"unknown key of the envelope", 1, CMD_TOKEN_REVOKE, 9, 0, -ERR_UNSUPPORTED},
        {"unknown key of the body", 1, CMD_TOKEN_REVOKE, 0, 9, -ERR_UNSUPPORTED},
        {"body of another command", 1, CMD_NODE_REVOKE, 0, 0, -ERR_MALFORMED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fsm_world w;
        char before[65];
        char after[65];
        fsm_world_init(&w);
        (void)fsm_make_token(&w, 1, 1);
        struct uuid token_id = fsm_make_token(&w, 2, 1);
        fsm_digest_hex(w.fsm, before);

        struct buf body;
        struct buf list;
        struct buf entry;
        struct mp_writer m;
        buf_init(&body, 1024);
        buf_init(&list, 4096);
        buf_init(&entry, 4096);
        mp_writer_init(&m, &body);
        mp_put_map(&m, cases[i].body_key != 0 ? 2 : 1);
        mp_put_u64(&m, 1);
        mp_put_uuid(&m, &token_id);
        if (cases[i].body_key != 0) {
            mp_put_u64(&m, (uint64_t)cases[i].body_key);
            mp_put_bool(&m, true);
        }
        mp_writer_init(&m, &list);
        /* A good command first: it must not stay either. */
        struct buf good;
        struct mp_writer g;
        struct uuid first = fsm_fake_id(3, 1);
        buf_init(&good, 256);
        mp_writer_init(&g, &good);
        mp_put_map(&g, 1);
        mp_put_u64(&g, 1);
        mp_put_uuid(&g, &first);
        put_command(&m, CMD_TOKEN_REVOKE, buf_blob(&good), 0);
        put_command(&m, cases[i].kind, buf_blob(&body), cases[i].envelope_key);
        const struct cmd_entry en = {.version = cases[i].version,
                                     .term = 1,
                                     .commands = {.raw = buf_blob(&list), .count = 2}};
        msg_encode(&cmd_entry_desc, &en, &entry);
        int rc = apply_raw(&w, w.index + 1, 1, buf_blob(&entry));
        fsm_digest_hex(w.fsm, after);
        if (rc != cases[i].rc || (rc != 0) != (strcmp(before, after) == 0)) {
            fail_msg("%s: %s, digest %s", cases[i].name, err_text(rc), after);
        }
        if (rc != 0) {
            assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_join_tokens WHERE revoked_at"
                                           " IS NOT NULL"),
                             0);
            (void)fsm_make_token(&w, 3, 1); /* and it goes on, if the caller wishes */
        }
        buf_fini(&body);
        buf_fini(&good);
        buf_fini(&list);
        buf_fini(&entry);
        fsm_world_fini(&w);
    }
}

/* A certificate inside a body is part of the command: found out only when it is applied. */
static void test_unknown_key_of_a_certificate_stops_and_undoes_the_batch(void **state)
{
    (void)state;
    struct fsm_world w;
    char before[65];
    char after[65];
    fsm_world_init(&w);
    struct uuid n = fsm_make_node(&w, 7, "n7");
    struct blob cert = fsm_fake_cert(&(struct fsm_fake_cert){.key = 7, .issuer = 1, .serial = 900});
    struct buf odd;
    buf_init(&odd, CMD_CERT_MAX);
    buf_add(&odd, cert.data, cert.len);
    odd.data[0]++; /* one more pair */
    static const uint8_t pair[] = {0x63, 0xc3};
    buf_add(&odd, pair, sizeof pair);
    fsm_digest_hex(w.fsm, before);
    struct fsm_entry e;
    fsm_entry_begin(&e, 1);
    struct token_create t = token(&w, 1);
    fsm_entry_add(&e, fsm_envelope(&w, CMD_TOKEN_CREATE), &t);
    fsm_entry_add(&e, fsm_envelope(&w, CMD_CERT_RENEW),
                  &(struct cert_renew){.node_id = n, .cert = buf_blob(&odd)});
    assert_int_equal(apply_raw(&w, w.index + 1, 1, fsm_entry_end(&e)), -ERR_UNSUPPORTED);
    fsm_entry_fini(&e);
    fsm_digest_hex(w.fsm, after);
    assert_string_equal(before, after);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_join_tokens WHERE max_uses = 1"), 1);
    assert_int_equal(fsm_audit_verify(w.fsm, NULL, NULL), 0);
    buf_fini(&odd);
    fsm_world_fini(&w);
}

static void test_entries_out_of_order_are_refused(void **state)
{
    (void)state;
    struct fsm_world w;
    fsm_world_init(&w);
    w.term = 5;
    (void)fsm_make_token(&w, 1, 1);
    struct fsm_entry e;
    struct token_create b = token(&w, 2);
    fsm_entry_begin(&e, 5);
    fsm_entry_add(&e, fsm_envelope(&w, CMD_TOKEN_CREATE), &b);
    struct blob bytes = fsm_entry_end(&e);
    assert_int_equal(apply_raw(&w, w.index, 5, bytes), -ERR_CORRUPT);     /* the same index */
    assert_int_equal(apply_raw(&w, w.index - 1, 5, bytes), -ERR_CORRUPT); /* an older one */
    assert_int_equal(apply_raw(&w, w.index + 1, 4, bytes), -ERR_CORRUPT); /* an older term */
    assert_int_equal(apply_raw(&w, w.index + 1, 6, bytes), -ERR_CORRUPT); /* not the entry's */
    assert_int_equal(apply_raw(&w, UINT64_MAX, 5, bytes), -ERR_CORRUPT);
    assert_int_equal(apply_raw(&w, w.index + 7, 5, bytes), 0); /* gaps: Raft's own entries */
    for (size_t cut = 0; cut < bytes.len; cut++) {
        assert_int_not_equal(apply_raw(&w, w.index + 8, 5, blob_of(bytes.data, cut)), 0);
    }
    fsm_entry_fini(&e);
    fsm_world_fini(&w);
}

/* It is put together without a look at the row; whoever lists tokens must see the same. */
static void test_document_of_a_new_token_is_that_of_its_row(void **state)
{
    (void)state;
    struct fsm_world w;
    struct mp_writer m;
    struct buf want;
    fsm_world_init(&w);
    buf_init(&want, 10000);
    for (uint32_t n = 1; n <= 3; n++) {
        char id[UUID_TEXT_MAX];
        struct token_create b = token(&w, n);
        b.max_uses = n * 200;
        if (n == 2) {
            b.scope_name = blob_str("printer");
            b.scope_roles = FSM_LIST("relay-node");
        }
        w.actor_id = n == 3 ? "" : "uid:0";
        assert_int_equal(fsm_do(&w, CMD_TOKEN_CREATE, &b), 0);
        uuid_format(&b.token_id, id);
        struct db_stmt *st = db_prepare(fsm_db(w.fsm), FSM_SQL_TOKEN " WHERE t.id = ?");
        db_bind_text(st, id);
        assert_int_equal(db_step(st), 1);
        buf_clear(&want);
        mp_writer_init(&m, &want);
        fsm_doc_row(st, &m);
        db_done(st);
        assert_true(blob_equal(buf_blob(&want), buf_blob(&w.doc)));
    }
    buf_fini(&want);
    fsm_world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_document_of_a_new_token_is_that_of_its_row),
        cmocka_unit_test(test_first_command_must_make_the_cluster),
        cmocka_unit_test(test_cluster_init_wants_the_owner_and_good_names),
        cmocka_unit_test(test_cluster_init_reads_the_issuers_fingerprint_when_not_told),
        cmocka_unit_test(test_equal_logs_give_equal_digests_at_every_index),
        cmocka_unit_test(test_one_changed_byte_changes_the_digest),
        cmocka_unit_test(test_digest_ring_forgets_after_4096_entries),
        cmocka_unit_test(test_retry_gets_the_first_answer_and_changes_nothing),
        cmocka_unit_test(test_request_id_of_another_request_is_refused),
        cmocka_unit_test(test_refusal_is_remembered_too),
        cmocka_unit_test(test_results_are_forgotten_after_a_day_a_few_at_a_time),
        cmocka_unit_test(test_batch_gives_results_in_order_and_sees_its_own_changes),
        cmocka_unit_test(test_stamps_never_go_back),
        cmocka_unit_test(test_unknown_kind_key_or_version_stops_and_changes_nothing),
        cmocka_unit_test(test_unknown_key_of_a_certificate_stops_and_undoes_the_batch),
        cmocka_unit_test(test_entries_out_of_order_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
