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

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

/* Stands before an authority and keeps its answers until the other relay has one too. */
struct relay {
    struct relay *other;
    uv_udp_t front, back;
    struct sockaddr_in authority, client;
    bool let_go;
    struct {
        uint8_t data[2048];
        size_t len;
    } kept[16];
    size_t kept_count;
    char address[ADDR_TEXT_MAX];
    char buf[65536];
};

struct fixture {
    char *dir;
    struct fake_cluster cluster;
    struct fake_authority authority;
    struct fake_authority second; /* when has_second */
    struct relay relays[2];       /* before each, when has_relays */
    bool has_second, has_relays;
    uv_loop_t loop;
    uv_async_t stop;
    uv_thread_t thread;
    bool running;
    struct join_token token;
    struct buf text;
    struct join_options o;
    enum join_event events[32];
    size_t events_count;
    size_t connects;
    char fingerprint[65];
    struct errmsg em;
    struct uuid node_id;
    bool pending;
};

static void on_stop(uv_async_t *async)
{
    struct fixture *f = container_of(async, struct fixture, stop);
    fake_authority_close(&f->authority);
    if (f->has_second) {
        fake_authority_close(&f->second);
    }
    for (size_t i = 0; f->has_relays && i < 2; i++) {
        uv_close((uv_handle_t *)&f->relays[i].front, NULL);
        uv_close((uv_handle_t *)&f->relays[i].back, NULL);
    }
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
    if (ev == JOIN_CONNECTING) {
        f->connects++;
    } else {
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
    if (f->has_second) {
        fake_authority_fini(&f->second);
    }
    fake_cluster_fini(&f->cluster);
    buf_wipe(&f->text);
    fake_rmdir(f->dir);
    free(f);
    return 0;
}

/* --- more than one address --- */

static void add_second(struct fixture *f, const enum fake_enroll what)
{
    fake_authority_open(&f->second, &f->loop, &f->cluster);
    f->second.script[0] = what;
    f->has_second = true;
}

static void relay_alloc(uv_handle_t *h, size_t size, uv_buf_t *ret)
{
    struct relay *r = h->data;
    (void)size;
    *ret = uv_buf_init(r->buf, sizeof r->buf);
}

static void relay_send(uv_udp_t *from, void *data, size_t len, const struct sockaddr_in *to)
{
    uv_buf_t b = uv_buf_init(data, (unsigned)len);
    (void)uv_udp_try_send(from, &b, 1, (const struct sockaddr *)to);
}

static void relay_from_client(uv_udp_t *h, ssize_t n, const uv_buf_t *b,
                              const struct sockaddr *from, unsigned flags)
{
    struct relay *r = h->data;
    (void)flags;
    if (n > 0 && from != NULL) {
        memcpy(&r->client, from, sizeof r->client);
        relay_send(&r->back, b->base, (size_t)n, &r->authority);
    }
}

static void relay_let_go(struct relay *r)
{
    r->let_go = true;
    for (size_t i = 0; i < r->kept_count; i++) {
        relay_send(&r->front, r->kept[i].data, r->kept[i].len, &r->client);
    }
}

static void relay_from_authority(uv_udp_t *h, ssize_t n, const uv_buf_t *b,
                                 const struct sockaddr *from, unsigned flags)
{
    struct relay *r = h->data;
    (void)flags;
    if (n <= 0 || from == NULL) {
        return;
    }
    if (r->let_go) {
        relay_send(&r->front, b->base, (size_t)n, &r->client);
    } else if (r->kept_count < ARRAY_SIZE(r->kept) && (size_t)n <= sizeof r->kept[0].data) {
        memcpy(r->kept[r->kept_count].data, b->base, (size_t)n);
        r->kept[r->kept_count++].len = (size_t)n;
    }
    if (!r->let_go && r->other->kept_count > 0) {
        relay_let_go(r->other);
        relay_let_go(r);
    }
}

static void relay_open(struct relay *r, uv_loop_t *loop, const char *authority, struct relay *other)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct addr to;
    struct addr own = {.len = sizeof own.ss};
    int len = sizeof own.ss;
    assert_int_equal(addr_parse(authority, &to, NULL), 0);
    memcpy(&r->authority, &to.ss, sizeof r->authority);
    r->other = other;
    r->front.data = r->back.data = r;
    assert_int_equal(uv_udp_init(loop, &r->front), 0);
    assert_int_equal(uv_udp_init(loop, &r->back), 0);
    assert_int_equal(uv_udp_bind(&r->front, (const struct sockaddr *)&any, 0), 0);
    assert_int_equal(uv_udp_bind(&r->back, (const struct sockaddr *)&any, 0), 0);
    assert_int_equal(uv_udp_recv_start(&r->front, relay_alloc, relay_from_client), 0);
    assert_int_equal(uv_udp_recv_start(&r->back, relay_alloc, relay_from_authority), 0);
    assert_int_equal(uv_udp_getsockname(&r->front, (struct sockaddr *)&own.ss, &len), 0);
    own.len = (socklen_t)len;
    addr_format(&own, r->address);
}

/* The answers of the two authorities reach the join together. */
static void add_relays(struct fixture *f)
{
    relay_open(&f->relays[0], &f->loop, f->authority.address, &f->relays[1]);
    relay_open(&f->relays[1], &f->loop, f->second.address, &f->relays[0]);
    f->has_relays = true;
}

/* A socket that takes everything and never answers. */
static int silent_open(char address[ADDR_TEXT_MAX])
{
    struct addr own = {.len = sizeof own.ss};
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&any, sizeof any), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&own.ss, &own.len), 0);
    addr_format(&own, address);
    return fd;
}

static bool silent_was_asked(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 1;
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

/* It comes back when it was told to, not with its own back-off of some 200 ms. */
static void test_rate_limited_host_waits_as_long_as_it_is_told(void **state)
{
    struct fixture *f = *state;
    play(f, (enum fake_enroll[]){FAKE_ENROLL_REFUSE, FAKE_ENROLL_APPROVE}, 2);
    f->authority.refuse_rc = -ERR_RATE_LIMITED;
    f->authority.refuse_retry_ms = 1200;
    start(f);
    uint64_t began = clock_mono_ns();
    assert_int_equal(join(f), 0);
    stop(f);
    assert_int_equal(f->authority.enrolled, 2);
    assert_true(clock_mono_ns() - began >= 1200 * 1000000ULL);
    bool told = false;
    for (size_t i = 0; i < f->events_count; i++) {
        told = told || f->events[i] == JOIN_WAITING;
    }
    assert_true(told);
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

/* D7: who stole an ordinary node's key and certificate, and serves enrolment with them. */
static void test_stolen_node_is_no_authority_and_secret_not_sent(void **state)
{
    struct fixture *f = *state;
    const struct fake_node *n = &f->authority.plain;
    const struct blob chain[3] = {buf_blob(&n->leaf_der), buf_blob(&n->issuer_der),
                                  buf_blob(&f->cluster.root_der)};
    assert_int_equal(fabric_set_identity(f->authority.fabric, chain, 3, n->key, &f->em), 0);
    play(f, (enum fake_enroll[]){FAKE_ENROLL_APPROVE}, 1);
    start(f);
    int rc = join(f);
    stop(f);
    assert_int_equal(f->authority.enrolled, 0);
    assert_int_equal(rc, -ERR_NOT_AUTHORITY);
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

/* RFC 8305. One after another they would take their dial's 10 s each, more than the join has. */
static void test_silent_addresses_first_do_not_hold_the_join_up(void **state)
{
    struct fixture *f = *state;
    int fd[3];
    char silent[3][ADDR_TEXT_MAX];
    char addresses[512];
    for (size_t i = 0; i < ARRAY_SIZE(fd); i++) {
        fd[i] = silent_open(silent[i]);
    }
    (void)snprintf(addresses, sizeof addresses, "%s,%s,%s,%s", silent[0], silent[1], silent[2],
                   f->authority.address);
    set_token(f, addresses);
    play(f, (enum fake_enroll[]){FAKE_ENROLL_APPROVE}, 1);
    start(f);
    assert_int_equal(join(f), 0);
    /* Each was tried once: nothing had to time out before the last one's turn. */
    assert_int_equal(f->connects, 4);
    assert_int_equal(f->events_count, 6);
    assert_int_equal(f->events[4], JOIN_SUBMITTED);
    assert_int_equal(f->events[5], JOIN_APPROVED_EVENT);
    for (size_t i = 0; i < ARRAY_SIZE(fd); i++) {
        assert_true(silent_was_asked(fd[i]));
        assert_int_equal(close(fd[i]), 0);
    }
}

static void test_secret_goes_to_one_of_two_authorities_that_answer_together(void **state)
{
    struct fixture *f = *state;
    char addresses[256];
    add_second(f, FAKE_ENROLL_SILENT);
    add_relays(f);
    (void)snprintf(addresses, sizeof addresses, "%s,%s", f->relays[0].address,
                   f->relays[1].address);
    set_token(f, addresses);
    play(f, (enum fake_enroll[]){FAKE_ENROLL_SILENT}, 1);
    start(f);
    f->o.timeout_ms = 1500;
    assert_int_equal(join(f), -ERR_TIMEOUT);
    stop(f);
    assert_true(f->relays[0].let_go && f->relays[1].let_go);
    assert_int_equal(f->connects, 2);
    assert_int_equal(f->authority.enrolled + f->second.enrolled, 1);
    assert_true(is_pending(f));
}

static void test_authority_that_lost_the_race_takes_over_when_the_winner_hangs_up(void **state)
{
    struct fixture *f = *state;
    char silent[ADDR_TEXT_MAX];
    char addresses[256];
    int fd = silent_open(silent);
    add_second(f, FAKE_ENROLL_APPROVE);
    (void)snprintf(addresses, sizeof addresses, "%s,%s,%s", silent, f->authority.address,
                   f->second.address);
    set_token(f, addresses);
    play(f, (enum fake_enroll[]){FAKE_ENROLL_HANG_UP}, 1);
    start(f);
    assert_int_equal(join(f), 0);
    stop(f);
    assert_int_equal(f->authority.enrolled, 1);
    assert_int_equal(f->second.enrolled, 1);
    assert_true(uuid_equal(&f->authority.request_ids[0], &f->second.request_ids[0]));
    assert_int_equal(close(fd), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_approved_join_stores_a_complete_membership),
        T(test_rejected_join_leaves_nothing_and_says_why),
        T(test_each_final_refusal_comes_through_as_itself),
        T(test_retryable_refusal_is_asked_again),
        T(test_rate_limited_host_waits_as_long_as_it_is_told),
        T(test_lost_connection_resumes_the_same_request),
        T(test_timeout_leaves_it_pending_and_a_second_run_resumes),
        T(test_without_wait_it_ends_once_pending),
        T(test_forged_approval_refused_and_nothing_stored),
        T(test_certificate_for_another_key_refused),
        T(test_answer_that_does_not_decode_refused),
        T(test_wrong_root_pin_refused_and_secret_not_sent),
        T(test_stolen_node_is_no_authority_and_secret_not_sent),
        T(test_dead_address_is_passed_over),
        T(test_silent_addresses_first_do_not_hold_the_join_up),
        T(test_secret_goes_to_one_of_two_authorities_that_answer_together),
        T(test_authority_that_lost_the_race_takes_over_when_the_winner_hangs_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
