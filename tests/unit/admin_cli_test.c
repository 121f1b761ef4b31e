/* The command line from end to end: cli_main against the real HTTP server with canned answers. */
#include "lib/fake_admin.h"
#include "lib/run_cli.h"

#include "admin/client.h"
#include "admin/json.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "pki/pki.h"
#include "wire/token.h"

#include <setjmp.h>
#include <unistd.h>

#include <cmocka.h>

#define NODE_ID "018f0000-0000-7000-8000-00000000000a"
#define CLUSTER_ID "018f0000-0000-7000-8000-0000000000c1"
#define FP "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static struct fake_admin *fake;
static struct cli_outcome o;

static int setup(void **state)
{
    (void)state;
    fake = fake_admin_open(0);
    o = (struct cli_outcome){0};
    assert_int_equal(setenv("RAP_DATA_DIR", fake_admin_dir(fake), 1), 0);
    unsetenv("RAP_OUTPUT");
    unsetenv("RAP_TIMEOUT");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    run_cli_free(&o);
    fake_admin_close(fake);
    return 0;
}

/* Runs and keeps the outcome in o. */
static int rap(const char *words)
{
    run_cli_free(&o);
    o = run_cli(NULL, NULL, words);
    return o.code;
}

static void call_is(size_t i, const char *expected)
{
    char call[2048];
    fake_admin_call(fake, i, call, sizeof call);
    assert_string_equal(call, expected);
}

static void contains(const char *text, const char *what)
{
    if (strstr(text, what) == NULL) {
        fail_msg("\"%s\" is not in:\n%s", what, text);
    }
}

static void test_status_table_and_json(void **state)
{
    (void)state;
    fake_admin_rule(fake, "status", 0,
                    "{\"node_id\":\"n1\",\"roles\":[\"core\",\"relay\"],\"quorum\":true,"
                    "\"leader\":null,\"term\":4}",
                    0);
    assert_int_equal(rap("status"), 0);
    assert_string_equal(o.out, "node_id  n1\nroles    core,relay\nquorum   yes\n"
                               "leader   -\nterm     4\n");
    assert_string_equal(o.err, "");
    assert_int_equal(rap("status -o json"), 0);
    assert_string_equal(o.out, "{\n  \"node_id\": \"n1\",\n  \"roles\": [\n    \"core\",\n"
                               "    \"relay\"\n  ],\n  \"quorum\": true,\n  \"leader\": null,\n"
                               "  \"term\": 4\n}\n");
    assert_int_equal(rap("--data-dir /nowhere status"), CLI_UNREACHABLE);
    contains(o.err, "/nowhere holds no membership");
    contains(o.err, "rap join");
}

static void test_documents_within_documents_are_flattened(void **state)
{
    (void)state;
    fake_admin_rule(fake, "node.show", 0, "{\"id\":\"a\",\"node\":{\"b\":1,\"c\":{\"d\":2}}}", 0);
    assert_int_equal(rap("node show a"), 0);
    assert_string_equal(o.out, "id      a\nnode.b  1\nnode.c  {\"d\":2}\n");
}

static void test_status_check_says_degraded(void **state)
{
    (void)state;
    fake_admin_rule(fake, "status", 0, "{\"ready\":true}", 1);
    fake_admin_rule(fake, "status", 0, "{\"ready\":false,\"quorum\":true}", 1);
    fake_admin_rule(fake, "status", 0, "{\"quorum\":false}", 1);
    assert_int_equal(rap("status --check"), 0);
    assert_int_equal(rap("status --check"), CLI_DEGRADED);
    assert_int_equal(rap("status --check"), CLI_DEGRADED);
    assert_int_equal(rap("status --check --data-dir /nowhere"), CLI_UNREACHABLE);
}

static void test_list_renders_a_table(void **state)
{
    (void)state;
    fake_admin_rule(
        fake, "role.list", 0,
        "{\"items\":[{\"node_id\":\"a\",\"role\":\"relay-node\",\"organization_id\":null,"
        "\"status\":\"active\",\"assigned_by_user_id\":\"uid:0\",\"assigned_at\":null},"
        "{\"node_id\":\"bbbb\",\"role\":\"x\\u001b[31m\",\"organization_id\":\"o\","
        "\"status\":\"active\",\"assigned_by_user_id\":\"uid:0\",\"assigned_at\":null}],"
        "\"next_cursor\":null}",
        0);
    assert_int_equal(rap("role list --node n"), 0);
    assert_string_equal(o.out, "NODE  ROLE        ORGANIZATION  STATUS  STATE  BY     ASSIGNED\n"
                               "a     relay-node  -             active  -      uid:0  -\n"
                               "bbbb  x?[31m      o             active  -      uid:0  -\n");
    call_is(0, "role.list {\"node\":\"n\",\"limit\":500}");
}

static void test_list_follows_its_pages(void **state)
{
    (void)state;
    fake_admin_rule(fake, "node.list", 0, "{\"items\":[{\"id\":\"a\"}],\"next_cursor\":\"c 1\"}",
                    1);
    fake_admin_rule(fake, "node.list", 0, "{\"items\":[{\"id\":\"b\"}],\"next_cursor\":null}", 1);
    fake_admin_rule(fake, "node.list", 0, "{\"items\":[{\"id\":\"a\"}],\"next_cursor\":\"c1\"}", 1);
    assert_int_equal(rap("node list -o json"), 0);
    assert_string_equal(o.out, "{\n  \"items\": [\n    {\n      \"id\": \"a\"\n    },\n    {\n"
                               "      \"id\": \"b\"\n    }\n  ],\n  \"next_cursor\": null\n}\n");
    call_is(0, "node.list {\"limit\":500}");
    call_is(1, "node.list {\"limit\":500,\"cursor\":\"c 1\"}");
    /* One page when asked for one. */
    assert_int_equal(rap("node list --limit 1"), 0);
    contains(o.err, "--cursor c1");
    call_is(2, "node.list {\"limit\":1}");
}

static void test_list_with_a_cursor_that_stands_still_ends(void **state)
{
    (void)state;
    fake_admin_rule(fake, "node.list", 0, "{\"items\":[{\"id\":\"a\"}],\"next_cursor\":\"c\"}", 0);
    assert_int_equal(rap("node list"), CLI_FAILED);
}

static void test_empty_list_says_what_to_do(void **state)
{
    (void)state;
    fake_admin_rule(fake, "token.list", 0, "{\"items\":[],\"next_cursor\":null}", 0);
    assert_int_equal(rap("token list"), 0);
    assert_string_equal(o.out, "");
    contains(o.err, "rap token create");
}

static void test_reads_pass_stale_on(void **state)
{
    (void)state;
    fake_admin_rule(fake, "node.show", 0, "{\"id\":\"a\"}", 0);
    assert_int_equal(rap("node show web-1 --stale"), 0);
    call_is(0, "node.show {\"id\":\"web-1\"} stale");
}

/* The raw token is made here; only its hash goes to the cluster (TOK-02). */
static void test_token_create_keeps_the_secret_here(void **state)
{
    char answer[512], call[2048], hash[65];
    struct join_token t;
    uint8_t digest[32];
    struct errmsg em = ERRMSG_INIT;
    (void)state;
    (void)snprintf(answer, sizeof answer,
                   "{\"id\":\"t1\",\"cluster_id\":\"%s\",\"root_fingerprint\":\"%s\","
                   "\"addresses\":\"a:1,b:2\",\"max_uses\":5,\"authority_set_pin\":\"2.9.%s\"}",
                   CLUSTER_ID, FP, FP);
    fake_admin_rule(fake, "token.create", 0, answer, 0);
    assert_int_equal(
        rap("token create --ttl 2h --uses 5 --role relay-node --role core --print-join "
            "-o json"),
        0);
    struct buf doc;
    char text[TOKEN_TEXT_MAX];
    buf_init(&doc, 1 << 16);
    assert_int_equal(json_to_doc(blob_str(o.out), &doc, &em), 0);
    mp_find_str(buf_blob(&doc), "token", text, sizeof text);
    assert_int_equal(mp_find_int(buf_blob(&doc), "max_uses"), 5);
    buf_fini(&doc);
    assert_int_equal(token_parse(text, strlen(text), &t, &em), 0);
    assert_string_equal(t.addresses, "a:1,b:2");
    assert_int_equal(t.pin.epoch, 2);
    assert_int_equal(t.pin.seq, 9);
    pki_sha256(blob_of(t.secret, 32), digest);
    hex_encode(digest, 32, hash);
    fake_admin_call(fake, 0, call, sizeof call);
    contains(call,
             "token.create {\"ttl_ms\":7200000,\"uses\":5,\"roles\":[\"relay-node\",\"core\"],"
             "\"secret_hash\":\"");
    contains(call, hash);
    contains(o.out, "rap join --token-file -");
    assert_null(strstr(o.err, text));
}

/* The first answer was lost with the leader; the repeated request gets the token's row only. */
static void test_token_create_completes_a_replayed_answer(void **state)
{
    struct join_token t;
    struct errmsg em = ERRMSG_INIT;
    struct buf doc;
    char text[TOKEN_TEXT_MAX];
    (void)state;
    fake_admin_rule(fake, "token.create", -ERR_OUTCOME_UNKNOWN, "{\"detail\":\"lost\"}", 1);
    fake_admin_rule(fake, "token.create", 0, "{\"id\":\"t1\",\"cluster_id\":\"" CLUSTER_ID "\"}",
                    1);
    fake_admin_rule(fake, "cluster", 0, "{\"id\":\"" CLUSTER_ID "\",\"root_id\":\"" FP "\"}", 1);
    fake_admin_rule(fake, "trust.show", 0, "{\"authority_set_pin\":\"1.4." FP "\"}", 1);
    fake_admin_rule(fake, "authority.list", 0,
                    "{\"items\":[{\"address\":\"a:1\",\"status\":\"voter\"},"
                    "{\"address\":\"b:2\",\"status\":\"removed\"},"
                    "{\"address\":\"c:3\",\"status\":\"voter\"}]}",
                    1);
    assert_int_equal(rap("token create -o json"), 0);
    buf_init(&doc, 1 << 16);
    assert_int_equal(json_to_doc(blob_str(o.out), &doc, &em), 0);
    mp_find_str(buf_blob(&doc), "token", text, sizeof text);
    buf_fini(&doc);
    assert_int_equal(token_parse(text, strlen(text), &t, &em), 0);
    assert_string_equal(t.addresses, "a:1,c:3");
    assert_int_equal(t.pin.seq, 4);
}

static void test_approve_sends_the_whole_fingerprint(void **state)
{
    (void)state;
    fake_admin_rule(fake, "request.show", 0,
                    "{\"id\":\"r-full\",\"node_fingerprint\":\"" FP "\",\"status\":\"pending\"}",
                    0);
    fake_admin_rule(fake, "request.approve", 0, "{\"id\":\"r-full\",\"status\":\"approved\"}", 0);
    assert_int_equal(rap("request approve r --fingerprint 0011223344556677"), 0);
    call_is(0, "request.show {\"id\":\"r\"}");
    call_is(1, "request.approve {\"id\":\"r-full\",\"fingerprint\":\"" FP "\"}");
    assert_int_equal(rap("request approve r --fingerprint " FP " --dry-run"), 0);
    call_is(3, "request.approve {\"id\":\"r-full\",\"fingerprint\":\"" FP "\"} dry_run");
    contains(o.err, "nothing was changed");
}

static void test_approve_refuses_another_fingerprint(void **state)
{
    (void)state;
    fake_admin_rule(fake, "request.show", 0, "{\"id\":\"r\",\"node_fingerprint\":\"" FP "\"}", 0);
    assert_int_equal(rap("request approve r --fingerprint 0011223344556678 -o json"), CLI_CONFLICT);
    contains(o.err, "\"code\": \"fingerprint_mismatch\"");
    assert_int_equal(fake_admin_calls(fake), 1);
    assert_int_equal(rap("request approve r --fingerprint 0011"), CLI_USAGE);
    assert_int_equal(rap("request approve r"), CLI_USAGE);
    assert_int_equal(fake_admin_calls(fake), 1);
}

/* S4: a repeated mutation carries the same id, so it counts once. */
static void test_retry_uses_the_same_key(void **state)
{
    (void)state;
    fake_admin_rule(fake, "role.assign", -ERR_NOT_LEADER, "{\"detail\":\"election\"}", 1);
    fake_admin_rule(fake, "role.assign", -ERR_OUTCOME_UNKNOWN, "{\"detail\":\"lost\"}", 1);
    fake_admin_rule(fake, "role.assign", -ERR_BUSY, NULL, 1);
    fake_admin_rule(fake, "role.assign", 0, "{\"id\":\"x\"}", 1);
    assert_int_equal(rap("role assign n relay-node"), 0);
    assert_int_equal(fake_admin_calls(fake), 4);
    call_is(3, "role.assign {\"id\":\"n\",\"role\":\"relay-node\"}");
    struct uuid first = fake_admin_request_id(fake, 0);
    assert_false(uuid_is_nil(&first));
    for (size_t i = 1; i < 4; i++) {
        struct uuid again = fake_admin_request_id(fake, i);
        assert_true(uuid_equal(&first, &again));
    }
    contains(o.err, "trying again");
}

static void test_refusals_are_not_repeated(void **state)
{
    static const struct {
        int rc;
        int code;
    } cases[] = {
        {-ERR_NOT_FOUND, CLI_NOT_FOUND}, {-ERR_DENIED, CLI_DENIED},
        {-ERR_NAME_TAKEN, CLI_CONFLICT}, {-ERR_INVALID, CLI_USAGE},
        {-ERR_FENCED, CLI_CONFLICT},     {-ERR_CORRUPT, CLI_FAILED},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        fake_admin_rule(fake, "node.rename", cases[i].rc, "{\"detail\":\"because\"}", 1);
        assert_int_equal(rap("node rename a b"), cases[i].code);
        assert_int_equal(fake_admin_calls(fake), i + 1);
        contains(o.err, "because");
        contains(o.err, err_slug(cases[i].rc));
        contains(o.err, "next: ");
    }
}

static void test_no_quorum_is_reported_soon(void **state)
{
    (void)state;
    fake_admin_rule(fake, "node.rename", -ERR_NO_QUORUM,
                    "{\"detail\":\"no majority\",\"outcome\":\"none\",\"seen\":1,\"needed\":2,"
                    "\"epoch\":1,\"term\":8}",
                    0);
    uint64_t start = clock_mono_ns();
    assert_int_equal(rap("node rename a b"), CLI_UNREACHABLE);
    assert_true(clock_mono_ns() - start < 10000000000u); /* not the 60 s of --timeout */
    contains(o.err, "seen 1, needed 2, epoch 1, term 8");
    assert_int_equal(rap("node rename a b -o json --timeout 1ms"), CLI_UNREACHABLE);
    contains(o.err, "\"needed\": 2");
}

static void test_again_rules(void **state)
{
    struct buf none, unknown;
    struct errmsg em = ERRMSG_INIT;
    (void)state;
    buf_init(&none, 100);
    buf_init(&unknown, 100);
    assert_int_equal(json_to_doc(blob_str("{\"outcome\":\"none\"}"), &none, &em), 0);
    assert_int_equal(json_to_doc(blob_str("{\"outcome\":\"unknown\"}"), &unknown, &em), 0);

    const struct {
        int rc;
        struct blob problem;
        bool contacted;
        int64_t since, timeout;
        bool again;
    } cases[] = {
        {-ERR_NO_QUORUM, buf_blob(&none), true, 2900, 60000, true},
        {-ERR_NO_QUORUM, buf_blob(&none), true, 3000, 60000, false},
        {-ERR_NO_QUORUM, buf_blob(&unknown), true, 3000, 60000, true},
        {-ERR_NOT_LEADER, buf_blob(&none), true, 59999, 60000, true},
        {-ERR_NOT_LEADER, buf_blob(&none), true, 60000, 60000, false},
        {-ERR_UNREACHABLE, blob_of(NULL, 0), false, 0, 60000, false},
        {-ERR_UNREACHABLE, blob_of(NULL, 0), true, 0, 60000, true},
        {-ERR_CLOSED, blob_of(NULL, 0), false, 0, 60000, true},
        {-ERR_NOT_FOUND, buf_blob(&none), true, 0, 60000, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (client_again(cases[i].rc, cases[i].problem, cases[i].contacted, cases[i].since,
                         cases[i].timeout) != cases[i].again) {
            fail_msg("case %zu", i);
        }
    }
    buf_fini(&none);
    buf_fini(&unknown);
}

static void test_dangerous_acts_show_their_effect_and_ask(void **state)
{
    (void)state;
    fake_admin_rule(fake, "node.show", 0,
                    "{\"id\":\"" NODE_ID "\",\"name\":\"web-1\",\"fingerprint\":\"" FP "\","
                    "\"identity_state\":\"active\",\"roles\":[\"relay-node\"]}",
                    0);
    fake_admin_rule(fake, "node.revoke", 0, "{\"id\":\"" NODE_ID "\"}", 0);
    fake_admin_rule(fake, "node.remove", 0, "{\"id\":\"" NODE_ID "\"}", 0);
    /* Nobody can be asked here: a usage error, and nothing was sent. */
    assert_int_equal(rap("node revoke web-1 --reason lost"), CLI_USAGE);
    contains(o.err, "web-1");
    contains(o.err, "relay-node");
    contains(o.err, "--yes");
    assert_int_equal(fake_admin_calls(fake), 1);
    assert_int_equal(rap("node revoke web-1 --reason lost --yes"), 0);
    call_is(2, "node.revoke {\"id\":\"" NODE_ID "\",\"reason\":\"lost\"}");
    assert_int_equal(rap("node remove web-1 --yes"), 0);
    call_is(4, "node.remove {\"id\":\"" NODE_ID "\"}");
    assert_int_equal(rap("authority transfer"), CLI_USAGE);
    assert_int_equal(rap("authority transfer --dry-run"), 0);
    assert_int_equal(fake_admin_calls(fake), 5);
}

static void test_merge_signs_nothing_for_a_cluster_it_does_not_know(void **state)
{
    (void)state;
    fake_admin_rule(fake, "divergence.list", 0,
                    "{\"items\":[{\"node_id\":\"" NODE_ID "\",\"node_name\":\"auth-2\","
                    "\"epoch\":2,\"rows_total\":1}],\"next_cursor\":null}",
                    0);
    fake_admin_rule(fake, "status", 0, "{\"cluster_id\":\"\"}", 0);
    assert_int_not_equal(rap("partition merge auth-2 --yes"), CLI_OK);
    contains(o.err, "the status has no cluster");
    assert_int_equal(fake_admin_calls(fake), 2); /* the two questions, no mutation */
}

static void test_authority_remove_counts_voters(void **state)
{
    (void)state;
    fake_admin_rule(fake, "authority.list", 0,
                    "{\"items\":[{\"node_id\":\"" NODE_ID
                    "\",\"name\":\"a1\",\"status\":\"voter\"},"
                    "{\"node_id\":\"x2\",\"name\":\"a2\",\"status\":\"voter\"},"
                    "{\"node_id\":\"x3\",\"name\":\"a3\",\"status\":\"voter\"}]}",
                    0);
    fake_admin_rule(fake, "authority.remove", 0, "{}", 0);
    assert_int_equal(rap("authority remove a1 --reason old\x1fhost --yes"), 0);
    contains(o.err, "voters 3 -> 2, failures survived 1 -> 0");
    call_is(1, "authority.remove {\"id\":\"a1\",\"reason\":\"old host\"}");
}

/* --- authority add, with a real root key --- */

static char owner[96];

static struct pki_key *make_owner(const struct uuid *cluster_id, const char *passphrase)
{
    struct errmsg em = ERRMSG_INIT;
    struct pki_key *root = pki_key_generate();
    struct pki_cert spec = {.kind = PKI_ROOT, .cluster_id = *cluster_id, .serial = {0x42}};
    struct buf der, pem;
    char path[160];
    (void)snprintf(owner, sizeof owner, "%s/owner", fake_admin_dir(fake));
    assert_int_equal(file_mkdirs(owner, &em), 0);
    (void)snprintf(path, sizeof path, "%s/root.key", owner);
    assert_int_equal(pki_key_save(root, path, passphrase, &em), 0);
    buf_init(&der, CERT_DER_MAX);
    buf_init(&pem, 8192);
    spec.not_before_ms = clock_wall_ms() / 1000 * 1000 - PKI_BACKDATE_MS;
    spec.not_after_ms = spec.not_before_ms + PKI_ROOT_LIFE_MS;
    pki_key_public(root, spec.public_key);
    assert_int_equal(pki_cert_issue(&spec, root, blob_of(NULL, 0), &der, &em), 0);
    assert_int_equal(pki_pem_add(buf_blob(&der), &pem), 0);
    (void)snprintf(path, sizeof path, "%s/root.crt", owner);
    assert_int_equal(file_write_atomic(path, buf_blob(&pem), 0644, &em), 0);
    buf_fini(&der);
    buf_fini(&pem);
    return root;
}

static void remove_owner(void)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/root.key", owner);
    (void)unlink(path);
    (void)snprintf(path, sizeof path, "%s/root.crt", owner);
    (void)unlink(path);
    (void)rmdir(owner);
}

static void rule_prepare(struct pki_key *node_key)
{
    struct buf csr;
    char hex[2 * CSR_DER_MAX + 1];
    buf_init(&csr, CSR_DER_MAX);
    assert_int_equal(pki_csr_build(node_key, &csr), 0);
    hex_encode(csr.data, csr.len, hex);
    char *json = xasprintf("{\"node_id\":\"" NODE_ID "\",\"cluster_id\":\"" CLUSTER_ID "\","
                           "\"csr\":\"%s\",\"name\":\"a2\",\"address\":\"h:1\",\"voters\":2,"
                           "\"tolerates\":0}",
                           hex);
    fake_admin_rule(fake, "authority.prepare", 0, json, 0);
    free(json);
    buf_fini(&csr);
}

static void test_authority_add_certifies_with_the_root(void **state)
{
    struct uuid cluster_id;
    struct errmsg em = ERRMSG_INIT;
    char words[256];
    static char call[8192];
    (void)state;
    assert_int_equal(uuid_parse(CLUSTER_ID, &cluster_id), 0);
    struct pki_key *root = make_owner(&cluster_id, NULL);
    struct pki_key *node = pki_key_generate();
    rule_prepare(node);
    fake_admin_rule(fake, "authority.add", 0, "{\"node_id\":\"" NODE_ID "\"}", 0);
    fake_admin_rule(fake, "authority.list", 0,
                    "{\"items\":[{\"node_id\":\"" NODE_ID "\",\"status\":\"joining\"}]}", 1);
    fake_admin_rule(fake, "authority.list", 0,
                    "{\"items\":[{\"node_id\":\"" NODE_ID "\",\"status\":\"voter\"}]}", 0);
    (void)snprintf(words, sizeof words, "authority add a2 --owner-dir %s --yes", owner);
    assert_int_equal(rap(words), 0);
    contains(o.err, "voters 2 -> 3, failures survived 0 -> 1");
    contains(o.err, "joining");
    contains(o.out, "voter");
    /* What was sent is an issuing CA for that node's key, under the root. */
    fake_admin_call(fake, 1, call, sizeof call);
    char *hex = strstr(call, "\"issuer\":\"");
    assert_non_null(hex);
    hex += strlen("\"issuer\":\"");
    hex[strcspn(hex, "\"")] = '\0';
    uint8_t der[CERT_DER_MAX], public_key[PKI_KEY_BYTES];
    struct pki_cert cert;
    assert_int_equal(hex_decode(hex, der, strlen(hex) / 2), 0);
    assert_int_equal(pki_cert_parse(blob_of(der, strlen(hex) / 2), &cert, &em), 0);
    assert_int_equal(cert.kind, PKI_ISSUER);
    pki_key_public(node, public_key);
    assert_memory_equal(cert.public_key, public_key, sizeof public_key);
    assert_true(cert.not_before_ms < clock_wall_ms());
    pki_key_free(root);
    pki_key_free(node);
    remove_owner();
}

static void test_authority_add_dry_run_only_prepares(void **state)
{
    struct uuid cluster_id;
    char words[256];
    (void)state;
    assert_int_equal(uuid_parse(CLUSTER_ID, &cluster_id), 0);
    struct pki_key *root = make_owner(&cluster_id, NULL);
    struct pki_key *node = pki_key_generate();
    rule_prepare(node);
    (void)snprintf(words, sizeof words, "authority add a2 --owner-dir %s --dry-run", owner);
    assert_int_equal(rap(words), 0);
    contains(o.err, "voters 2 -> 3");
    assert_int_equal(fake_admin_calls(fake), 1);
    pki_key_free(root);
    pki_key_free(node);
    remove_owner();
}

static void test_authority_add_needs_the_right_root(void **state)
{
    struct uuid other;
    char words[256];
    (void)state;
    struct pki_key *node = pki_key_generate();
    rule_prepare(node);
    /* No owner directory. */
    assert_int_equal(rap("authority add a2 --yes"), CLI_NOT_FOUND);
    contains(o.err, "--owner-dir");
    /* Another cluster's root. */
    assert_int_equal(uuid_parse(NODE_ID, &other), 0);
    struct pki_key *root = make_owner(&other, "secret");
    (void)snprintf(words, sizeof words, "authority add a2 --owner-dir %s --yes", owner);
    assert_int_equal(setenv("RAP_OWNER_PASSPHRASE", "wrong", 1), 0);
    assert_int_equal(rap(words), CLI_DENIED);
    assert_int_equal(setenv("RAP_OWNER_PASSPHRASE", "secret", 1), 0);
    assert_int_equal(rap(words), CLI_CONFLICT);
    contains(o.err, "root.crt is the root of another cluster");
    unsetenv("RAP_OWNER_PASSPHRASE");
    assert_int_equal(rap(words), CLI_USAGE); /* encrypted, and no terminal to ask on */
    pki_key_free(root);
    remove_owner();
    pki_key_free(node);
    /* Nothing but the question to the node was ever sent. */
    char call[64];
    for (size_t i = 0; i < fake_admin_calls(fake); i++) {
        fake_admin_call(fake, i, call, sizeof call);
        assert_string_equal(call, "authority.prepare {\"id\":\"a2\"}");
    }
}

/* root.key and root.crt of two clusters in one directory. */
static void test_authority_add_needs_a_matching_pair(void **state)
{
    struct uuid cluster_id;
    struct errmsg em = ERRMSG_INIT;
    char words[256], path[160];
    (void)state;
    assert_int_equal(uuid_parse(CLUSTER_ID, &cluster_id), 0);
    struct pki_key *root = make_owner(&cluster_id, NULL);
    struct pki_key *other = pki_key_generate();
    struct pki_key *node = pki_key_generate();
    (void)snprintf(path, sizeof path, "%s/root.key", owner);
    assert_int_equal(pki_key_save(other, path, NULL, &em), 0);
    rule_prepare(node);
    (void)snprintf(words, sizeof words, "authority add a2 --owner-dir %s --yes", owner);
    assert_int_equal(rap(words), CLI_FAILED);
    contains(o.err, "not the certificate of root.key");
    assert_int_equal(fake_admin_calls(fake), 1);
    pki_key_free(root);
    pki_key_free(other);
    pki_key_free(node);
    remove_owner();
}

static void test_authority_add_refuses_a_bad_request(void **state)
{
    (void)state;
    fake_admin_rule(fake, "authority.prepare", 0,
                    "{\"node_id\":\"" NODE_ID "\",\"cluster_id\":\"" CLUSTER_ID
                    "\",\"csr\":\"3000\",\"voters\":1}",
                    0);
    assert_int_equal(rap("authority add a2 --yes"), CLI_FAILED);
    contains(o.err, "certificate request");
}

static void test_audit_export_writes_every_page_as_lines(void **state)
{
    (void)state;
    fake_admin_rule(fake, "audit.list", 0,
                    "{\"items\":[{\"seq\":1,\"details\":{\"a\":1.5}},{\"seq\":2}],"
                    "\"next_cursor\":\"2\"}",
                    1);
    fake_admin_rule(fake, "audit.list", 0, "{\"items\":[{\"seq\":3}],\"next_cursor\":null}", 1);
    assert_int_equal(rap("audit export"), 0);
    assert_string_equal(o.out, "{\"seq\":1,\"details\":{\"a\":1.5}}\n{\"seq\":2}\n{\"seq\":3}\n");
    call_is(1, "audit.list {\"limit\":500,\"cursor\":\"2\"}");
}

static void test_audit_verify_fails_on_a_broken_chain(void **state)
{
    (void)state;
    fake_admin_rule(fake, "audit.verify", 0, "{\"rows\":3,\"ok\":false}", 1);
    fake_admin_rule(fake, "audit.verify", 0, "{\"rows\":3,\"ok\":true}", 1);
    assert_int_equal(rap("audit verify"), CLI_FAILED);
    assert_int_equal(rap("audit verify"), 0);
}

static void test_every_other_command_reaches_its_method(void **state)
{
    static const struct {
        const char *words, *method, *call;
    } cases[] = {
        {"token revoke t", "token.revoke", "token.revoke {\"id\":\"t\"}"},
        {"request list --status pending", "request.list",
         "request.list {\"status\":\"pending\",\"limit\":500}"},
        {"request show r/1", "request.show", "request.show {\"id\":\"r/1\"}"},
        {"request reject r --reason no", "request.reject",
         "request.reject {\"id\":\"r\",\"reason\":\"no\"}"},
        {"node rename a b", "node.rename", "node.rename {\"id\":\"a\",\"name\":\"b\"}"},
        {"authority list", "authority.list", "authority.list {}"},
        {"authority transfer b --yes", "authority.transfer", "authority.transfer {\"id\":\"b\"}"},
        {"role unassign n r --org o", "role.unassign",
         "role.unassign {\"id\":\"n\",\"role\":\"r\",\"organization_id\":\"o\"}"},
        {"audit list --event-type t --subject s --limit 5", "audit.list",
         "audit.list {\"event_type\":\"t\",\"subject_id\":\"s\",\"limit\":5}"},
        {"config show", "config.show", "config.show {}"},
        {"config verify", "config.verify", "config.verify {}"},
        {"fabric sessions", "fabric.sessions", "fabric.sessions {}"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        fake_admin_rule(fake, cases[i].method, 0, "{\"items\":[]}", 1);
        assert_int_equal(rap(cases[i].words), 0);
        call_is(i, cases[i].call);
    }
}

static void test_output_that_cannot_be_written_is_a_failure(void **state)
{
    char *argv[] = {(char *)(uintptr_t)"rap", (char *)(uintptr_t)"version", NULL};
    FILE *full = fopen("/dev/full", "w");
    FILE *null = fopen("/dev/null", "r+");
    (void)state;
    assert_non_null(full);
    assert_int_equal(cli_main_on(2, argv, NULL, null, full, null), CLI_FAILED);
    fclose(full);
    fclose(null);
}

#define END_TO_END(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        END_TO_END(test_status_table_and_json),
        END_TO_END(test_documents_within_documents_are_flattened),
        END_TO_END(test_status_check_says_degraded),
        END_TO_END(test_list_renders_a_table),
        END_TO_END(test_list_follows_its_pages),
        END_TO_END(test_list_with_a_cursor_that_stands_still_ends),
        END_TO_END(test_empty_list_says_what_to_do),
        END_TO_END(test_reads_pass_stale_on),
        END_TO_END(test_token_create_keeps_the_secret_here),
        END_TO_END(test_token_create_completes_a_replayed_answer),
        END_TO_END(test_approve_sends_the_whole_fingerprint),
        END_TO_END(test_approve_refuses_another_fingerprint),
        END_TO_END(test_retry_uses_the_same_key),
        END_TO_END(test_refusals_are_not_repeated),
        END_TO_END(test_no_quorum_is_reported_soon),
        cmocka_unit_test(test_again_rules),
        END_TO_END(test_dangerous_acts_show_their_effect_and_ask),
        END_TO_END(test_merge_signs_nothing_for_a_cluster_it_does_not_know),
        END_TO_END(test_authority_remove_counts_voters),
        END_TO_END(test_authority_add_certifies_with_the_root),
        END_TO_END(test_authority_add_dry_run_only_prepares),
        END_TO_END(test_authority_add_needs_the_right_root),
        END_TO_END(test_authority_add_needs_a_matching_pair),
        END_TO_END(test_authority_add_refuses_a_bad_request),
        END_TO_END(test_audit_export_writes_every_page_as_lines),
        END_TO_END(test_audit_verify_fails_on_a_broken_chain),
        END_TO_END(test_every_other_command_reaches_its_method),
        cmocka_unit_test(test_output_that_cannot_be_written_is_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
