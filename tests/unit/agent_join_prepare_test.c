/* A join's parts that need no network: the pending membership, the request, the approval. */
#include "agent/join_impl.h"
#include "base/file.h"
#include "base/rng.h"
#include "lib/fake_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

struct fixture {
    char *dir;
    struct fake_cluster cluster, other;
    struct fake_node authority, imposter;
    struct join_token token;
    struct buf text;
    struct join_options o;
};

static void make_token(struct fixture *f)
{
    rng_bytes(f->token.secret, sizeof f->token.secret);
    buf_clear(&f->text);
    token_format(&f->token, &f->text);
    f->o.token = (const char *)f->text.data;
    f->o.token_len = f->text.len;
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    f->dir = fake_tmpdir();
    fake_cluster_init(&f->cluster, FAKE_NOW_MS);
    fake_cluster_init(&f->other, FAKE_NOW_MS);
    fake_node_init(&f->authority, &f->cluster, true, FAKE_NOW_MS);
    fake_node_init(&f->imposter, &f->other, true, FAKE_NOW_MS);
    f->token.cluster_id = f->cluster.id;
    memcpy(f->token.root_fingerprint, f->cluster.root_fingerprint, 32);
    (void)snprintf(f->token.addresses, sizeof f->token.addresses, "127.0.0.1:7400");
    buf_init(&f->text, TOKEN_TEXT_MAX);
    f->o = (struct join_options){.data_dir = f->dir, .listen = "127.0.0.1:7401", .name = "n1"};
    make_token(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    buf_fini(&f->text);
    fake_node_fini(&f->imposter);
    fake_node_fini(&f->authority);
    fake_cluster_fini(&f->other);
    fake_cluster_fini(&f->cluster);
    fake_rmdir(f->dir);
    free(f);
    return 0;
}

static struct member *prepare(struct fixture *f)
{
    struct member *m = NULL;
    struct join_token t;
    struct errmsg em = ERRMSG_INIT;
    if (join_prepare(&f->o, &m, &t, &em) != 0) {
        fail_msg("%s", em.text);
    }
    assert_memory_equal(t.secret, f->token.secret, sizeof t.secret);
    return m;
}

static int prepare_rc(struct fixture *f)
{
    struct member *m = NULL;
    struct join_token t;
    int rc = join_prepare(&f->o, &m, &t, NULL);
    member_free(m);
    return rc;
}

static void public_key_of(const struct member *m, uint8_t out[PKI_KEY_BYTES])
{
    struct pki_key *key;
    assert_int_equal(member_key(m, &key, NULL), 0);
    pki_key_public(key, out);
    pki_key_free(key);
}

static void request_of(struct fixture *f, struct member *m, struct buf *bytes,
                       struct enroll_request *rq)
{
    buf_init(bytes, RPC_FRAME_MAX);
    assert_int_equal(join_request(&f->o, m, &f->token, bytes, NULL), 0);
    assert_int_equal(msg_decode(&enroll_request_desc, MSG_STRICT, buf_blob(bytes), rq), 0);
}

static void test_resumed_join_is_the_same_request_with_the_same_key(void **state)
{
    struct fixture *f = *state;
    struct buf a;
    struct buf b;
    struct enroll_request rq;
    struct enroll_request again;
    uint8_t key[PKI_KEY_BYTES];
    uint8_t csr_key[PKI_KEY_BYTES];
    struct member *m = prepare(f);
    request_of(f, m, &a, &rq);
    public_key_of(m, key);
    assert_int_equal(pki_csr_parse(rq.csr, csr_key, NULL), 0);
    assert_memory_equal(key, csr_key, sizeof key);
    assert_memory_equal(rq.token_secret.data, f->token.secret, 32);
    assert_true(blob_equal(rq.node_name, blob_str("n1")));
    assert_true(blob_equal(rq.address, blob_str("127.0.0.1:7401")));
    member_free(m);

    f->o.token = NULL; /* as after a restart without the token at hand */
    m = prepare(f);
    request_of(f, m, &b, &again);
    assert_true(blob_equal(buf_blob(&a), buf_blob(&b)));
    member_free(m);
    buf_wipe(&a);
    buf_wipe(&b);
}

/* S20: the raw token is in join.token (0600) and nowhere else. */
static void test_secret_is_only_in_the_token_file(void **state)
{
    struct fixture *f = *state;
    struct buf b;
    struct buf db;
    struct enroll_request rq;
    struct stat st;
    static const char *const files[] = {"node.db", "node.db-wal", "node.key"};
    struct member *m = prepare(f);
    request_of(f, m, &b, &rq);
    assert_int_equal(join_mark_acked(m), 0);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        char *path = member_path(m, files[i]);
        buf_init(&db, 1 << 24);
        if (file_read(path, &db, NULL) == 0) {
            assert_null(memmem(db.data, db.len, f->token.secret, 32));
        }
        buf_fini(&db);
        free(path);
    }
    char *path = member_path(m, "join.token");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    free(path);
    member_free(m);
    buf_wipe(&b);
}

static void test_changed_name_makes_another_request_until_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct buf b;
    struct enroll_request rq;
    struct member *m = prepare(f);
    request_of(f, m, &b, &rq);
    struct uuid first = rq.request_id;
    buf_wipe(&b);
    member_free(m);

    f->o.name = "n2";
    m = prepare(f);
    request_of(f, m, &b, &rq);
    assert_true(blob_equal(rq.node_name, blob_str("n2")));
    assert_false(uuid_equal(&first, &rq.request_id)); /* another request, so another id */
    assert_int_equal(join_mark_acked(m), 0);
    buf_wipe(&b);
    member_free(m);

    f->o.name = "n3";
    f->o.listen = "127.0.0.1:7999"; /* it may well listen elsewhere, but the request stays */
    first = rq.request_id;
    m = prepare(f);
    assert_string_equal(m->listen, "127.0.0.1:7999");
    request_of(f, m, &b, &rq);
    assert_true(uuid_equal(&first, &rq.request_id));
    assert_true(blob_equal(rq.address, blob_str("127.0.0.1:7401")));
    assert_true(blob_equal(rq.node_name, blob_str("n2")));
    buf_wipe(&b);
    member_free(m);
}

static void test_other_token_replaces_an_unacknowledged_join_only(void **state)
{
    struct fixture *f = *state;
    uint8_t first[PKI_KEY_BYTES];
    uint8_t second[PKI_KEY_BYTES];
    struct member *m = prepare(f);
    public_key_of(m, first);
    member_free(m);

    make_token(f);
    m = prepare(f);
    public_key_of(m, second);
    assert_memory_not_equal(first, second, sizeof first);
    assert_int_equal(join_mark_acked(m), 0);
    member_free(m);

    make_token(f);
    assert_int_equal(prepare_rc(f), -ERR_CONFLICT);
}

static void test_same_token_with_newer_addresses_resumes(void **state)
{
    struct fixture *f = *state;
    struct member *m = prepare(f);
    struct join_token t;
    member_free(m);
    (void)snprintf(f->token.addresses, sizeof f->token.addresses, "10.0.0.1:1,10.0.0.2:1");
    buf_clear(&f->text);
    token_format(&f->token, &f->text);
    f->o.token = (const char *)f->text.data;
    f->o.token_len = f->text.len;
    m = prepare(f);
    member_free(m);
    f->o.token = NULL;
    assert_int_equal(join_prepare(&f->o, &m, &t, NULL), 0);
    assert_string_equal(t.addresses, "10.0.0.1:1,10.0.0.2:1");
    member_free(m);
}

static void test_two_joins_at_once_refused(void **state)
{
    struct fixture *f = *state;
    struct member *m = prepare(f);
    assert_int_equal(prepare_rc(f), -ERR_BUSY);
    member_free(m);
}

static void test_bad_starts_refused(void **state)
{
    struct fixture *f = *state;
    f->o.token = NULL;
    assert_int_equal(prepare_rc(f), -ERR_NOT_FOUND); /* nothing to resume */
    f->o.token = "rapj1_short";
    f->o.token_len = strlen(f->o.token);
    assert_int_equal(prepare_rc(f), -ERR_MALFORMED);
    make_token(f);
    f->o.listen = "localhost:1";
    assert_int_equal(prepare_rc(f), -ERR_INVALID);
    f->o.listen = NULL;
    assert_int_equal(prepare_rc(f), -ERR_INVALID);
    f->o.listen = "127.0.0.1:7401";
    static const char *const roles[] = {"no-such-role", NULL};
    struct member *m = prepare(f);
    struct buf b;
    buf_init(&b, RPC_FRAME_MAX);
    f->o.roles = roles;
    assert_int_equal(join_request(&f->o, m, &f->token, &b, NULL), -ERR_ROLE_UNKNOWN);
    buf_fini(&b);
    member_free(m);
}

/* --- approval --- */

struct approval {
    struct enroll_status st;
    struct buf leaf, snapshot;
};

static void approve(struct fixture *f, const struct member *m, struct approval *a)
{
    uint8_t key[PKI_KEY_BYTES];
    struct fake_snapshot s;
    public_key_of(m, key);
    *a = (struct approval){.st = {.state = ENROLL_APPROVED,
                                  .node_id = uuid_new(),
                                  .issuer = buf_blob(&f->authority.issuer_der),
                                  .root = buf_blob(&f->cluster.root_der),
                                  .cluster_name = blob_str("prod")}};
    buf_init(&a->leaf, CERT_DER_MAX);
    buf_init(&a->snapshot, SNAPSHOT_MAX_BYTES);
    fake_issue(&f->cluster, &f->authority, &a->st.node_id, key, FAKE_NOW_MS - PKI_BACKDATE_MS,
               FAKE_NOW_MS + PKI_LEAF_LIFE_MS, &a->leaf);
    fake_snapshot_init(&s, &f->cluster, &f->authority, &a->st.node_id, 5, FAKE_NOW_MS);
    fake_sign(&s, &a->snapshot);
    a->st.leaf = buf_blob(&a->leaf);
    a->st.snapshot = buf_blob(&a->snapshot);
}

static void approval_fini(struct approval *a)
{
    buf_fini(&a->leaf);
    buf_fini(&a->snapshot);
}

static int accept(struct fixture *f, struct member *m, const struct approval *a)
{
    struct errmsg em = ERRMSG_INIT;
    int rc = join_accept(m, &f->token, &a->st, FAKE_NOW_MS, &em);
    assert_true((rc == 0) == (em.text[0] == '\0'));
    return rc;
}

static void test_good_approval_completes_the_membership(void **state)
{
    struct fixture *f = *state;
    struct approval a;
    struct member *m = prepare(f);
    approve(f, m, &a);
    assert_int_equal(accept(f, m, &a), 0);
    member_free(m);
    assert_int_equal(member_open(f->dir, &m, NULL), 0);
    assert_false(member_is_pending(m));
    assert_true(uuid_equal(&m->node_id, &a.st.node_id));
    assert_string_equal(m->cluster_name, "prod");
    char *path = member_path(m, "join.token");
    assert_false(file_exists(path));
    free(path);
    assert_false(join_is_acked(m));
    assert_int_equal(prepare_rc(f), -ERR_EXISTS); /* also while it runs */
    member_free(m);
    assert_int_equal(prepare_rc(f), -ERR_EXISTS);
    approval_fini(&a);
}

/* Section 6 of the reliability page: nothing of a forged approval is stored. */
static void test_forged_approvals_refused_and_join_stays_pending(void **state)
{
    struct fixture *f = *state;
    struct approval good;
    struct member *m = prepare(f);
    approve(f, m, &good);
    struct buf other;
    uint8_t key[PKI_KEY_BYTES];
    public_key_of(m, key);
    buf_init(&other, CERT_DER_MAX);

    struct approval a = good; /* another root than the one pinned */
    a.st.root = buf_blob(&f->other.root_der);
    assert_int_equal(accept(f, m, &a), -ERR_BAD_CERT);

    a = good; /* no root at all */
    a.st.root = blob_of(NULL, 0);
    assert_int_equal(accept(f, m, &a), -ERR_BAD_CERT);

    a = good; /* a CA of another cluster */
    a.st.issuer = buf_blob(&f->imposter.issuer_der);
    assert_int_not_equal(accept(f, m, &a), 0);

    a = good; /* a certificate for another key */
    a.st.leaf = buf_blob(&f->authority.leaf_der);
    a.st.node_id = f->authority.id;
    assert_int_equal(accept(f, m, &a), -ERR_BAD_CERT);

    a = good; /* another node than the certificate says */
    a.st.node_id = uuid_new();
    assert_int_equal(accept(f, m, &a), -ERR_WRONG_NODE);

    a = good; /* expired already */
    fake_issue(&f->cluster, &f->authority, &good.st.node_id, key,
               FAKE_NOW_MS - PKI_LEAF_LIFE_MS - 1000, FAKE_NOW_MS - 1000, &other);
    a.st.leaf = buf_blob(&other);
    assert_int_equal(accept(f, m, &a), -ERR_CERT_EXPIRED);

    a = good; /* no snapshot */
    a.st.snapshot = blob_of(NULL, 0);
    assert_int_equal(accept(f, m, &a), -ERR_MALFORMED);

    struct fake_snapshot s; /* a snapshot by an authority of another cluster */
    struct buf forged;
    buf_init(&forged, SNAPSHOT_MAX_BYTES);
    fake_snapshot_init(&s, &f->cluster, &f->imposter, &good.st.node_id, 5, FAKE_NOW_MS);
    fake_sign(&s, &forged);
    a = good;
    a.st.snapshot = buf_blob(&forged);
    assert_int_equal(accept(f, m, &a), -ERR_WRONG_CLUSTER);

    buf_clear(&forged); /* a snapshot of another node */
    const struct uuid somebody = uuid_new();
    fake_snapshot_init(&s, &f->cluster, &f->authority, &somebody, 5, FAKE_NOW_MS);
    fake_sign(&s, &forged);
    a.st.snapshot = buf_blob(&forged);
    assert_int_equal(accept(f, m, &a), -ERR_WRONG_NODE);

    assert_true(member_is_pending(m));
    char *path = member_path(m, "node.crt");
    assert_false(file_exists(path));
    free(path);
    assert_int_equal(accept(f, m, &good), 0);
    buf_fini(&forged);
    buf_fini(&other);
    approval_fini(&good);
    member_free(m);
}

static void test_join_given_up_when_all_are_strangers_or_nobody_answers(void **state)
{
    (void)state;
    const struct {
        int rc[2];
        bool acked;
        uint64_t waited_ms;
        int verdict;
    } table[] = {
        {{-ERR_CLOSED, -ERR_TIMEOUT}, false, 0, 0},
        {{-ERR_CLOSED, -ERR_TIMEOUT}, false, JOIN_GIVE_UP_MS, -ERR_UNREACHABLE},
        {{-ERR_CLOSED, -ERR_TIMEOUT}, true, JOIN_GIVE_UP_MS * 1000ULL, 0},
        {{-ERR_BAD_CERT, -ERR_TIMEOUT}, false, 0, 0},
        {{-ERR_BAD_CERT, -ERR_TIMEOUT}, false, JOIN_GIVE_UP_MS, -ERR_BAD_CERT},
        {{-ERR_BAD_CERT, -ERR_NOT_AUTHORITY}, false, 0, -ERR_NOT_AUTHORITY},
        {{-ERR_BAD_CERT, -ERR_BAD_CERT}, true, 0, -ERR_BAD_CERT},
        {{-ERR_NO_QUORUM, -ERR_BUSY}, false, 0, 0},
        {{-ERR_BAD_CERT, 0}, false, 0, 0}, /* the other one may still answer */
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        assert_int_equal(join_verdict(table[i].rc, 2, table[i].acked, table[i].waited_ms),
                         table[i].verdict);
    }
}

/* --- the race --- */

static size_t race_start(struct join_race *r)
{
    size_t i;
    assert_true(join_race_next(r, &i));
    join_race_start(r, i);
    return i;
}

static void test_race_starts_each_address_once_in_order(void **state)
{
    (void)state;
    struct join_race r;
    size_t i;
    join_race_init(&r, 3);
    for (size_t n = 0; n < 3; n++) {
        assert_int_equal(race_start(&r), n);
    }
    assert_false(join_race_next(&r, &i));
}

static void test_race_address_that_failed_waits_for_the_next_round(void **state)
{
    (void)state;
    struct join_race r;
    size_t i;
    join_race_init(&r, 2);
    (void)race_start(&r);
    (void)race_start(&r);
    join_race_failed(&r, 0, -ERR_CLOSED);
    assert_false(join_race_next(&r, &i));
    assert_int_equal(r.last_rc[0], -ERR_CLOSED);
    assert_int_equal(r.last_rc[1], 0);
    join_race_again(&r);
    assert_int_equal(race_start(&r), 0); /* the other one is under way still */
    assert_int_equal(r.last_rc[0], 0);
    assert_false(join_race_next(&r, &i));
}

static void test_race_after_a_winner_failed_goes_on_behind_it_with_those_it_beat(void **state)
{
    (void)state;
    struct join_race r;
    size_t i;
    join_race_init(&r, 4);
    for (size_t n = 0; n < 3; n++) {
        (void)race_start(&r);
    }
    join_race_failed(&r, 0, -ERR_BAD_CERT);
    join_race_won(&r, 1);
    join_race_failed(&r, 1, -ERR_CLOSED);
    assert_int_equal(race_start(&r), 2);
    assert_int_equal(race_start(&r), 3);
    assert_false(join_race_next(&r, &i));
}

static void test_race_delay_is_jittered_by_a_quarter(void **state)
{
    (void)state;
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;
    for (uint64_t random = 0; random < 1000; random++) {
        uint64_t ms = join_race_delay_ms(random);
        low = ms < low ? ms : low;
        high = ms > high ? ms : high;
    }
    assert_int_equal(low, JOIN_RACE_MS * 3 / 4);
    assert_int_equal(high, JOIN_RACE_MS * 3 / 4 + JOIN_RACE_MS / 2);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_resumed_join_is_the_same_request_with_the_same_key),
        T(test_secret_is_only_in_the_token_file),
        T(test_changed_name_makes_another_request_until_acknowledged),
        T(test_other_token_replaces_an_unacknowledged_join_only),
        T(test_same_token_with_newer_addresses_resumes),
        T(test_two_joins_at_once_refused),
        T(test_bad_starts_refused),
        T(test_good_approval_completes_the_membership),
        T(test_forged_approvals_refused_and_join_stays_pending),
        T(test_join_given_up_when_all_are_strangers_or_nobody_answers),
        cmocka_unit_test(test_race_starts_each_address_once_in_order),
        cmocka_unit_test(test_race_address_that_failed_waits_for_the_next_round),
        cmocka_unit_test(test_race_after_a_winner_failed_goes_on_behind_it_with_those_it_beat),
        cmocka_unit_test(test_race_delay_is_jittered_by_a_quarter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
