/* `rap join` against a fake authority on the real fabric over loopback (SPEC ENR-02, DESIGN section
 * 5). The join runs its own loop, so the authority has a thread. */
#include "agent/join.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "lib/fake_authority.h"
#include "wire/token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct fixture {
    char *dir;
    struct fake_cluster cluster;
    struct fake_authority authority;
    uv_loop_t loop;
    uv_async_t stop;
    uv_thread_t thread;
    bool running;
    struct join_token token;
    struct buf text;
    struct join_options o;
    enum join_event events[32];
    size_t events_count;
    char fingerprint[65];
    struct errmsg em;
    struct uuid node_id;
    bool pending;
};

static void on_stop(uv_async_t *async)
{
    struct fixture *f = container_of(async, struct fixture, stop);
    fake_authority_close(&f->authority);
    uv_close((uv_handle_t *)async, NULL);
}

static void serve(void *data)
{
    struct fixture *f = data;
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
}

static void progress(void *data, enum join_event ev, const char *fingerprint_hex,
                     const char *join_id, const char *detail)
{
    struct fixture *f = data;
    (void)join_id;
    (void)detail;
    if (f->events_count < ARRAY_SIZE(f->events)) {
        f->events[f->events_count++] = ev;
    }
    if (ev != JOIN_CONNECTING) {
        (void)snprintf(f->fingerprint, sizeof f->fingerprint, "%s", fingerprint_hex);
    }
}

static void set_token(struct fixture *f, const char *addresses)
{
    (void)snprintf(f->token.addresses, sizeof f->token.addresses, "%s", addresses);
    buf_clear(&f->text);
    token_format(&f->token, &f->text);
    f->o.token = (const char *)f->text.data;
    f->o.token_len = f->text.len;
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    f->dir = fake_tmpdir();
    fake_cluster_init(&f->cluster, clock_wall_ms());
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(uv_async_init(&f->loop, &f->stop, on_stop), 0);
    fake_authority_open(&f->authority, &f->loop, &f->cluster);
    f->token.cluster_id = f->cluster.id;
    memcpy(f->token.root_fingerprint, f->cluster.root_fingerprint, 32);
    rng_bytes(f->token.secret, sizeof f->token.secret);
    buf_init(&f->text, TOKEN_TEXT_MAX);
    f->o = (struct join_options){.data_dir = f->dir,
                                 .listen = "127.0.0.1:0",
                                 .advertise = "127.0.0.1:7401",
                                 .name = "n1",
                                 .wait = true,
                                 .timeout_ms = 15000,
                                 .data = f,
                                 .progress = progress};
    set_token(f, f->authority.address);
    *state = f;
    return 0;
}

static void start(struct fixture *f)
{
    assert_int_equal(uv_thread_create(&f->thread, serve, f), 0);
    f->running = true;
}

/* After this the authority's records may be read. */
static void stop(struct fixture *f)
{
    if (!f->running) {
        assert_int_equal(uv_thread_create(&f->thread, serve, f), 0);
    }
    f->running = false;
    assert_int_equal(uv_async_send(&f->stop), 0);
    assert_int_equal(uv_thread_join(&f->thread), 0);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (!f->authority.closed) {
        stop(f);
    }
    assert_int_equal(uv_loop_close(&f->loop), 0);
    fake_authority_fini(&f->authority);
    fake_cluster_fini(&f->cluster);
    buf_wipe(&f->text);
    fake_rmdir(f->dir);
    free(f);
    return 0;
}

static void play(struct fixture *f, const enum fake_enroll *script, size_t len)
{
    memcpy(f->authority.script, script, len * sizeof *script);
    f->authority.script_len = len;
}

static int join(struct fixture *f)
{
    f->em.text[0] = '\0';
    return join_run(&f->o, &f->pending, &f->node_id, &f->em);
}

static bool is_pending(struct fixture *f)
{
    struct member *m;
    assert_int_equal(member_open(f->dir, &m, NULL), 0);
    bool pending = member_is_pending(m);
    member_free(m);
    return pending;
}

static bool has_nothing(struct fixture *f)
{
    struct member *m = NULL;
    char *dir = path_join(f->dir, "member");
    char *key = path_join(dir, "node.key");
    bool none = member_open(f->dir, &m, NULL) == -ERR_NOT_FOUND && !file_exists(key);
    free(key);
    free(dir);
    return none;
}

static void test_approved_join_stores_a_complete_membership(void **state)
{
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_APPROVE}, 1);
    start(f);
    int rc = join(f);
    if (rc != 0) {
        fail_msg("%s: %s", err_slug(rc), f->em.text);
    }
    stop(f);
    assert_false(f->pending);
    struct member *m;
    assert_int_equal(member_open(f->dir, &m, NULL), 0);
    assert_false(member_is_pending(m));
    assert_true(uuid_equal(&m->node_id, &f->node_id));
    assert_string_equal(m->cluster_name, "prod");
    member_free(m);
    assert_int_equal(f->events_count, 3);
    assert_int_equal(f->events[0], JOIN_CONNECTING);
    assert_int_equal(f->events[1], JOIN_SUBMITTED);
    assert_int_equal(f->events[2], JOIN_APPROVED_EVENT);
    assert_int_equal(strlen(f->fingerprint), 64);
    assert_int_equal(join(f), -ERR_EXISTS);
}

static void test_rejected_join_leaves_nothing_and_says_why(void **state)
{
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_REFUSE}, 1);
    f->authority.refuse_rc = -ERR_REJECTED;
    f->authority.refuse_detail = "not on this network";
    start(f);
    assert_int_equal(join(f), -ERR_REJECTED);
    assert_non_null(strstr(f->em.text, "not on this network"));
    assert_true(has_nothing(f));
}

static void test_each_final_refusal_comes_through_as_itself(void **state)
{
    static const int finals[] = {-ERR_TOKEN_UNKNOWN, -ERR_TOKEN_EXPIRED, -ERR_TOKEN_REVOKED,
                                 -ERR_TOKEN_USED,    -ERR_TOKEN_SCOPE,   -ERR_NAME_TAKEN,
                                 -ERR_KEY_KNOWN,     -ERR_KEY_REVOKED,   -ERR_EXPIRED};
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_REFUSE}, 1);
    start(f);
    for (size_t i = 0; i < ARRAY_SIZE(finals); i++) {
        f->authority.refuse_rc = finals[i]; /* nobody is connected now */
        assert_int_equal(join(f), finals[i]);
        assert_true(has_nothing(f));
    }
}

static void test_retryable_refusal_is_asked_again(void **state)
{
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_REFUSE, FAKE_ENROLL_REFUSE, FAKE_ENROLL_APPROVE}, 3);
    f->authority.refuse_rc = -ERR_NO_QUORUM;
    start(f);
    assert_int_equal(join(f), 0);
    stop(f);
    assert_int_equal(f->authority.enrolled, 3);
    assert_true(uuid_equal(&f->authority.request_ids[0], &f->authority.request_ids[2]));
}

static void test_lost_connection_resumes_the_same_request(void **state)
{
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_HANG_UP, FAKE_ENROLL_HANG_UP, FAKE_ENROLL_APPROVE}, 3);
    start(f);
    assert_int_equal(join(f), 0);
    stop(f);
    assert_int_equal(f->authority.enrolled, 3);
    for (size_t i = 1; i < 3; i++) {
        assert_true(uuid_equal(&f->authority.request_ids[0], &f->authority.request_ids[i]));
        assert_memory_equal(f->authority.keys[0], f->authority.keys[i], PKI_KEY_BYTES);
    }
}

static void test_timeout_leaves_it_pending_and_a_second_run_resumes(void **state)
{
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_WAIT, FAKE_ENROLL_APPROVE}, 2);
    start(f);
    f->o.timeout_ms = 1500;
    assert_int_equal(join(f), -ERR_TIMEOUT);
    assert_true(is_pending(f));
    f->o.timeout_ms = 15000;
    f->o.token = NULL;
    assert_int_equal(join(f), 0);
    stop(f);
    assert_int_equal(f->authority.enrolled, 2);
    assert_true(uuid_equal(&f->authority.request_ids[0], &f->authority.request_ids[1]));
    assert_memory_equal(f->authority.keys[0], f->authority.keys[1], PKI_KEY_BYTES);
}

static void test_without_wait_it_ends_once_pending(void **state)
{
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_WAIT}, 1);
    start(f);
    f->o.wait = false;
    assert_int_equal(join(f), 0);
    assert_true(f->pending);
    assert_true(uuid_is_nil(&f->node_id));
    assert_true(is_pending(f));
}

static void test_forged_approval_refused_and_nothing_stored(void **state)
{
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_FORGED_SNAPSHOT}, 1);
    start(f);
    assert_int_equal(join(f), -ERR_NOT_AUTHORITY);
    assert_true(is_pending(f));
}

static void test_certificate_for_another_key_refused(void **state)
{
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_FOREIGN_KEY}, 1);
    start(f);
    assert_int_equal(join(f), -ERR_BAD_CERT);
    assert_true(is_pending(f));
}

static void test_answer_that_does_not_decode_refused(void **state)
{
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_NONSENSE}, 1);
    start(f);
    assert_int_equal(join(f), -ERR_MALFORMED);
    assert_true(is_pending(f));
}

/* DESIGN section 4: the secret is not sent before the authority's chain leads to the pinned root. */
static void test_wrong_root_pin_refused_and_secret_not_sent(void **state)
{
    struct fixture *f = *state;
    f->token.root_fingerprint[0] ^= 1;
    set_token(f, f->authority.address);
    play(f, (enum fake_enroll[]){FAKE_ENROLL_APPROVE}, 1);
    start(f);
    int rc = join(f);
    stop(f);
    assert_int_equal(f->authority.enrolled, 0);
    if (rc != -ERR_BAD_CERT && rc != -ERR_BAD_SIGNATURE) {
        fail_msg("got %s: %s", err_slug(rc), f->em.text);
    }
    assert_true(is_pending(f));
}

static void test_dead_address_is_passed_over(void **state)
{
    struct fixture *f = *state;
    char addresses[256];
    (void)snprintf(addresses, sizeof addresses, "no-such-host.invalid:1,%s", f->authority.address);
    set_token(f, addresses);
    play(f, (enum fake_enroll[]){FAKE_ENROLL_APPROVE}, 1);
    start(f);
    assert_int_equal(join(f), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_approved_join_stores_a_complete_membership),
        T(test_rejected_join_leaves_nothing_and_says_why),
        T(test_each_final_refusal_comes_through_as_itself),
        T(test_retryable_refusal_is_asked_again),
        T(test_lost_connection_resumes_the_same_request),
        T(test_timeout_leaves_it_pending_and_a_second_run_resumes),
        T(test_without_wait_it_ends_once_pending),
        T(test_forged_approval_refused_and_nothing_stored),
        T(test_certificate_for_another_key_refused),
        T(test_answer_that_does_not_decode_refused),
        T(test_wrong_root_pin_refused_and_secret_not_sent),
        T(test_dead_address_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
