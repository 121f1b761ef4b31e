/* The membership directory: its three states, and that a kill between any two steps leaves one of
 * them (SPEC LST-02, IDN-02). */
#include "agent/member.h"
#include "base/file.h"
#include "lib/fake_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const struct uuid cluster_id = {.b = {1, 2, 3}};
static const struct uuid node_id = {.b = {9, 8, 7}};

static struct member_settings settings(void)
{
    return (struct member_settings){
        .cluster_name = "prod",
        .node_name = "n1",
        .listen = "127.0.0.1:7400",
        .advertise = "n1.example:7400",
        .cluster_id = cluster_id,
    };
}

static int setup(void **state)
{
    *state = fake_tmpdir();
    return 0;
}

static int teardown(void **state)
{
    member_fault = NULL;
    fake_rmdir(*state);
    return 0;
}

static int mode_of(const struct member *m, const char *name)
{
    struct stat st;
    char *path = member_path(m, name);
    int mode = stat(path, &st) == 0 ? (int)(st.st_mode & 07777) : -1;
    free(path);
    return mode;
}

static struct member *create(const char *dir)
{
    struct member *m = NULL;
    struct member_settings s = settings();
    struct errmsg em = ERRMSG_INIT;
    if (member_create(dir, &s, &m, &em) != 0) {
        fail_msg("%s", em.text);
    }
    return m;
}

static void test_created_member_reopens_with_same_settings_and_private_key_0600(void **state)
{
    struct member *m = create(*state);
    uint8_t secret[32];
    memcpy(secret, m->reset_secret, sizeof secret);
    assert_true(member_is_pending(m));
    assert_int_equal(mode_of(m, "node.key"), 0600);
    assert_int_equal(mode_of(m, "node.db"), 0600);
    member_free(m);

    assert_int_equal(member_open(*state, &m, NULL), 0);
    assert_true(uuid_equal(&m->cluster_id, &cluster_id));
    assert_true(uuid_is_nil(&m->node_id));
    assert_string_equal(m->cluster_name, "prod");
    assert_string_equal(m->node_name, "n1");
    assert_string_equal(m->listen, "127.0.0.1:7400");
    assert_string_equal(m->advertise, "n1.example:7400");
    assert_memory_equal(m->reset_secret, secret, sizeof secret);
    member_free(m);
}

static void test_open_without_membership_says_so_and_makes_nothing(void **state)
{
    struct member *m = NULL;
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(member_open(*state, &m, &em), -ERR_NOT_FOUND);
    assert_non_null(strstr(em.text, "rap join"));
    assert_int_equal(rmdir(*state), 0); /* still empty */
    assert_int_equal(mkdir(*state, 0700), 0);
}

static void test_second_create_refused_and_key_untouched(void **state)
{
    struct member *m = create(*state);
    struct pki_key *key;
    uint8_t before[PKI_KEY_BYTES];
    uint8_t after[PKI_KEY_BYTES];
    assert_int_equal(member_key(m, &key, NULL), 0);
    pki_key_public(key, before);
    pki_key_free(key);
    member_free(m);

    struct member_settings s = settings();
    struct member *other = NULL;
    assert_int_equal(member_create(*state, &s, &other, NULL), -ERR_EXISTS);

    assert_int_equal(member_open(*state, &m, NULL), 0);
    assert_int_equal(member_key(m, &key, NULL), 0);
    pki_key_public(key, after);
    pki_key_free(key);
    assert_memory_equal(before, after, sizeof before);
    member_free(m);
}

static void test_data_directory_in_use_refused(void **state)
{
    struct member *m = create(*state);
    struct member_settings s = settings();
    struct member *other = NULL;
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(member_open(*state, &other, &em), -ERR_BUSY);
    assert_non_null(strstr(em.text, "in use by another rap process"));
    assert_int_equal(member_create(*state, &s, &other, NULL), -ERR_BUSY);
    member_free(m);
    assert_int_equal(member_open(*state, &other, NULL), 0);
    member_free(other);
}

static void test_bad_settings_refused_before_anything_is_made(void **state)
{
    static char long_listen[400];
    memset(long_listen, '1', sizeof long_listen - 1);
    struct {
        const char *name, *cluster, *listen, *advertise;
    } table[] = {
        {"", "c", "127.0.0.1:1", NULL},        {"UPPER", "c", "127.0.0.1:1", NULL},
        {"a b", "c", "127.0.0.1:1", NULL},     {"../x", "c", "127.0.0.1:1", NULL},
        {"n", "-c", "127.0.0.1:1", NULL},      {"n", "c", "localhost:1", NULL},
        {"n", "c", "127.0.0.1", NULL},         {"n", "c", "", NULL},
        {"n", "c", long_listen, NULL},         {"n", "c", "127.0.0.1:1", "nohost"},
        {"n", "c", "127.0.0.1:1", ":1"},       {"n", "c", "127.0.0.1:1", "host:"},
        {"n", "c", "127.0.0.1:1", "ho\nst:1"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        const struct member_settings s = {.node_name = table[i].name,
                                          .cluster_name = table[i].cluster,
                                          .listen = table[i].listen,
                                          .advertise = table[i].advertise,
                                          .cluster_id = cluster_id};
        struct member *m = NULL;
        struct errmsg em = ERRMSG_INIT;
        assert_int_equal(member_create(*state, &s, &m, &em), -ERR_INVALID);
        assert_true(em.text[0] != '\0');
    }
    assert_int_equal(rmdir(*state), 0);
    assert_int_equal(mkdir(*state, 0700), 0);
}

static int kill_at;

static void die(int step)
{
    if (step == kill_at) {
        _exit(99); /* as kill -9: nothing is flushed or closed */
    }
}

/* Runs fn in a child that dies before the given step; true if it did die there. */
static bool killed(const char *dir, int step, void (*fn)(const char *dir))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        kill_at = step;
        member_fault = die;
        fn(dir);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status) == 99;
}

static void do_create(const char *dir)
{
    member_free(create(dir));
}

static void test_kill_at_each_step_of_create_leaves_none_or_pending(void **state)
{
    (void)state;
    int deaths = 0;
    for (int step = 1; step <= MEMBER_FAULT_POINTS; step++) {
        char *dir = fake_tmpdir();
        bool died = killed(dir, step, do_create);
        deaths += died;
        struct member *m = NULL;
        int rc = member_open(dir, &m, NULL);
        if (rc == -ERR_NOT_FOUND) {
            m = create(dir); /* none: as if nothing had happened */
        } else {
            assert_int_equal(rc, 0);
        }
        assert_true(died ? (rc == 0) == (step == 5) : rc == 0);
        struct pki_key *key;
        assert_true(member_is_pending(m));
        assert_int_equal(member_key(m, &key, NULL), 0);
        pki_key_free(key);
        member_free(m);
        fake_rmdir(dir);
    }
    assert_int_equal(deaths, 5);
}

static struct fake_cluster cluster;
static struct fake_node authority;

static void do_approve(const char *dir)
{
    struct member *m;
    if (member_open(dir, &m, NULL) != 0) {
        _exit(1);
    }
    struct member_approval ap = {
        .node_id = node_id,
        .cluster_name = "prod",
        .chain = {buf_blob(&authority.leaf_der), buf_blob(&authority.issuer_der),
                  buf_blob(&cluster.root_der)},
        .snapshot = blob_str("signed"),
        .epoch = 1,
        .config_version = 7,
        .now_ms = FAKE_NOW_MS,
    };
    if (member_approve(m, &ap, NULL) != 0) {
        _exit(2);
    }
    member_free(m);
}

static void put_token(const struct member *m)
{
    char *path = member_path(m, "join.token");
    assert_int_equal(file_write_atomic(path, blob_str("rapj1_x"), 0600, NULL), 0);
    free(path);
}

static void assert_complete(struct member *m)
{
    struct buf chain[3];
    struct buf snapshot;
    uint64_t epoch = 0;
    uint64_t version = 0;
    for (int i = 0; i < 3; i++) {
        buf_init(&chain[i], CERT_DER_MAX);
    }
    buf_init(&snapshot, 100);
    assert_true(uuid_equal(&m->node_id, &node_id));
    assert_int_equal(member_load_chain(m, chain, NULL), 0);
    assert_true(blob_equal(buf_blob(&chain[0]), buf_blob(&authority.leaf_der)));
    assert_true(blob_equal(buf_blob(&chain[2]), buf_blob(&cluster.root_der)));
    assert_int_equal(member_load_snapshot(m, &snapshot, &epoch, &version), 0);
    assert_true(blob_equal(buf_blob(&snapshot), blob_str("signed")));
    assert_int_equal(epoch, 1);
    assert_int_equal(version, 7);
    assert_int_equal(mode_of(m, "join.token"), -1);
    buf_fini(&snapshot);
    for (int i = 0; i < 3; i++) {
        buf_fini(&chain[i]);
    }
}

static void test_kill_at_each_step_of_approval_leaves_pending_or_complete(void **state)
{
    (void)state;
    int deaths = 0;
    fake_cluster_init(&cluster, FAKE_NOW_MS);
    fake_node_init(&authority, &cluster, true, FAKE_NOW_MS);
    for (int step = 6; step <= MEMBER_FAULT_POINTS; step++) {
        char *dir = fake_tmpdir();
        struct member *m = create(dir);
        put_token(m);
        member_free(m);
        deaths += killed(dir, step, do_approve);
        assert_int_equal(member_open(dir, &m, NULL), 0);
        if (member_is_pending(m)) {
            assert_true(step < 9);
            assert_int_equal(mode_of(m, "join.token"), 0600); /* still needed */
            member_free(m);
            do_approve(dir);
            assert_int_equal(member_open(dir, &m, NULL), 0);
        }
        assert_false(member_is_pending(m));
        assert_complete(m);
        member_free(m);
        fake_rmdir(dir);
    }
    assert_int_equal(deaths, 4);
    fake_node_fini(&authority);
    fake_cluster_fini(&cluster);
}

static void test_discard_leaves_no_membership_key_or_token(void **state)
{
    struct member *m = create(*state);
    put_token(m);
    char *dir = xstrdup(m->dir);
    assert_int_equal(member_discard(m, NULL), 0);
    assert_int_equal(rmdir(dir), 0); /* nothing left in it */
    free(dir);
    assert_int_equal(member_open(*state, &m, NULL), -ERR_NOT_FOUND);
    member_free(create(*state));
}

static void test_complete_membership_cannot_be_discarded(void **state)
{
    fake_cluster_init(&cluster, FAKE_NOW_MS);
    fake_node_init(&authority, &cluster, true, FAKE_NOW_MS);
    struct member *m = create(*state);
    member_free(m);
    do_approve(*state);
    assert_int_equal(member_open(*state, &m, NULL), 0);
    struct member_settings s = settings();
    struct member *other = NULL;
    assert_int_equal(member_create(*state, &s, &other, NULL), -ERR_EXISTS); /* though locked */
    assert_int_equal(member_discard(m, NULL), -ERR_CONFLICT);
    assert_int_equal(member_open(*state, &m, NULL), 0);
    assert_complete(m);
    member_free(m);
    fake_node_fini(&authority);
    fake_cluster_fini(&cluster);
}

static void test_missing_key_or_damaged_setting_is_corrupt(void **state)
{
    struct member *m = create(*state);
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(member_put(m, "listen", blob_str("a\nb"), NULL), 0);
    member_free(m);
    assert_int_equal(member_open(*state, &m, &em), -ERR_CORRUPT);
    assert_non_null(strstr(em.text, "listen"));
    assert_int_equal(member_open(*state, &m, NULL), -ERR_CORRUPT); /* the lock was given back */
}

/* As the store is after it was deleted, or emptied. */
static void test_store_that_is_gone_beside_a_certificate_is_never_replaced(void **state)
{
    fake_cluster_init(&cluster, FAKE_NOW_MS);
    fake_node_init(&authority, &cluster, true, FAKE_NOW_MS);
    for (int emptied = 0; emptied < 2; emptied++) {
        struct member *m = create(*state);
        struct member_settings s = settings();
        struct errmsg em = ERRMSG_INIT;
        struct buf key, after;
        char *db = member_path(m, "node.db");
        char *key_path = member_path(m, "node.key");
        char *crt = member_path(m, "node.crt");
        member_free(m);
        do_approve(*state);
        buf_init(&key, 4096);
        buf_init(&after, 4096);
        assert_int_equal(file_read(key_path, &key, NULL), 0);
        assert_int_equal(emptied ? truncate(db, 0) : unlink(db), 0);
        assert_int_equal(member_open(*state, &m, &em), -ERR_CORRUPT);
        assert_non_null(strstr(em.text, "node.db"));
        assert_non_null(strstr(em.text, MEMBER_RUNBOOK));
        assert_int_equal(member_create(*state, &s, &m, &em), -ERR_CORRUPT);
        assert_non_null(strstr(em.text, MEMBER_RUNBOOK));
        assert_int_equal(file_read(key_path, &after, NULL), 0);
        assert_true(blob_equal(buf_blob(&key), buf_blob(&after)));
        /* Once the owner of the host has taken the rest away, there is none. */
        assert_int_equal(unlink(crt), 0);
        assert_int_equal(member_open(*state, &m, NULL), -ERR_NOT_FOUND);
        (void)unlink(db);
        buf_fini(&key);
        buf_fini(&after);
        free(crt);
        free(key_path);
        free(db);
    }
    fake_node_fini(&authority);
    fake_cluster_fini(&cluster);
}

static void test_missing_key_refused_at_open(void **state)
{
    struct member *m = create(*state);
    char *path = member_path(m, "node.key");
    assert_int_equal(unlink(path), 0);
    free(path);
    member_free(m);
    assert_int_equal(member_open(*state, &m, NULL), -ERR_CORRUPT);
}

static void test_small_values_survive_reopen_and_can_be_dropped(void **state)
{
    struct member *m = create(*state);
    struct buf b;
    buf_init(&b, 16);
    assert_int_equal(member_get(m, "k", &b), -ERR_NOT_FOUND);
    assert_int_equal(member_put(m, "k", blob_str("one"), NULL), 0);
    assert_int_equal(member_put(m, "k", blob_str("two"), NULL), 0);
    member_free(m);
    assert_int_equal(member_open(*state, &m, NULL), 0);
    assert_int_equal(member_get(m, "k", &b), 0);
    assert_true(blob_equal(buf_blob(&b), blob_str("two")));
    assert_int_equal(member_drop(m, "k", NULL), 0);
    assert_int_equal(member_get(m, "k", &b), -ERR_NOT_FOUND);
    buf_fini(&b);
    member_free(m);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_created_member_reopens_with_same_settings_and_private_key_0600),
        T(test_open_without_membership_says_so_and_makes_nothing),
        T(test_second_create_refused_and_key_untouched),
        T(test_data_directory_in_use_refused),
        T(test_bad_settings_refused_before_anything_is_made),
        T(test_kill_at_each_step_of_create_leaves_none_or_pending),
        T(test_kill_at_each_step_of_approval_leaves_pending_or_complete),
        T(test_discard_leaves_no_membership_key_or_token),
        T(test_complete_membership_cannot_be_discarded),
        T(test_missing_key_or_damaged_setting_is_corrupt),
        T(test_store_that_is_gone_beside_a_certificate_is_never_replaced),
        T(test_missing_key_refused_at_open),
        T(test_small_values_survive_reopen_and_can_be_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
