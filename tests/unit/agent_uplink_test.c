/* Which authority, when: pure decisions with time as an argument. */
#include "agent/renewal.h"
#include "agent/uplink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct uuid ids[3] = {{.b = {1}}, {.b = {2}}, {.b = {3}}};

struct fixture {
    struct uplink u;
    struct uplink_todo todo;
    uint64_t now;
};

static void step(struct fixture *f, enum uplink_event_kind kind, int rc)
{
    const struct uplink_event ev = {
        .kind = kind, .now_ms = f->now, .random = 7, .rc = rc, .interval_ms = 1000};
    uplink_step(&f->u, &ev, &f->todo);
}

static void set(struct fixture *f, size_t count)
{
    uplink_set_authorities(&f->u, ids, count, f->now, 0, &f->todo);
}

/* Waits out the pause and lets it try. */
static void try_next(struct fixture *f)
{
    assert_int_equal(f->u.state, UPLINK_WAIT);
    f->now = f->u.retry_ms;
    step(f, UPLINK_EV_TICK, 0);
    assert_true(f->todo.open);
    assert_true(f->todo.heartbeat);
    assert_int_equal(f->u.state, UPLINK_TRYING);
}

static void up(struct fixture *f)
{
    *f = (struct fixture){.now = 1000};
    uplink_init(&f->u, 15000, &UUID_NIL, f->now);
    set(f, 3);
    try_next(f);
    step(f, UPLINK_EV_ACKED, 0);
    assert_int_equal(f->u.state, UPLINK_UP);
}

static void test_no_authority_known_nothing_to_do(void **state)
{
    (void)state;
    struct fixture f = {.now = 5};
    uplink_init(&f.u, 15000, &UUID_NIL, f.now);
    step(&f, UPLINK_EV_TICK, 0);
    assert_int_equal(f.u.state, UPLINK_IDLE);
    assert_false(f.todo.open);
    assert_int_equal(f.todo.wake_ms, 0);
}

static void test_last_good_authority_tried_first(void **state)
{
    (void)state;
    struct fixture f = {.now = 5};
    uplink_init(&f.u, 15000, &ids[2], f.now);
    set(&f, 3);
    try_next(&f);
    assert_true(uuid_equal(&f.todo.to, &ids[2]));
}

static void test_tick_before_its_time_does_nothing(void **state)
{
    (void)state;
    struct fixture f;
    up(&f);
    step(&f, UPLINK_EV_CLOSED, -ERR_CLOSED);
    f.now = f.u.retry_ms - 1;
    step(&f, UPLINK_EV_TICK, 0);
    assert_false(f.todo.open);
    assert_int_equal(f.todo.wake_ms, f.u.retry_ms);
}

static void test_each_failure_moves_to_the_next_with_a_growing_pause(void **state)
{
    (void)state;
    struct fixture f = {.now = 5};
    uplink_init(&f.u, 15000, &ids[0], f.now);
    set(&f, 3);
    uint64_t before = 0;
    for (size_t i = 0; i < 12; i++) {
        try_next(&f);
        assert_true(uuid_equal(&f.todo.to, &ids[i % 3]));
        step(&f, UPLINK_EV_FAILED, -ERR_TIMEOUT);
        assert_true(f.todo.close);
        uint64_t pause = f.u.retry_ms - f.now;
        assert_true(pause >= before && pause <= UPLINK_RETRY_MAX_MS * 3 / 2);
        before = pause;
    }
    assert_true(before >= UPLINK_RETRY_MAX_MS / 2);
    try_next(&f);
    step(&f, UPLINK_EV_ACKED, 0);
    step(&f, UPLINK_EV_CLOSED, -ERR_CLOSED);
    assert_true(f.u.retry_ms - f.now <= UPLINK_RETRY_MIN_MS * 3 / 2); /* success forgets */
}

static void test_heartbeat_interval_is_the_authoritys_with_a_tenth_of_jitter(void **state)
{
    (void)state;
    for (uint64_t r = 0; r < 500; r++) {
        struct fixture f;
        up(&f);
        const struct uplink_event ev = {
            .kind = UPLINK_EV_ACKED, .now_ms = f.now, .random = r * 977, .interval_ms = 20000};
        uplink_step(&f.u, &ev, &f.todo);
        uint64_t wait = f.u.heartbeat_ms - f.now;
        assert_true(wait >= 18000 && wait <= 22000);
        assert_int_equal(f.todo.wake_ms, f.u.heartbeat_ms);
    }
}

static void test_absurd_interval_is_bounded(void **state)
{
    (void)state;
    struct fixture f;
    up(&f);
    struct uplink_event ev = {.kind = UPLINK_EV_ACKED, .now_ms = f.now, .interval_ms = UINT64_MAX};
    uplink_step(&f.u, &ev, &f.todo);
    assert_int_equal(f.u.interval_ms, UPLINK_HEARTBEAT_MAX_MS);
    ev.interval_ms = 0;
    uplink_step(&f.u, &ev, &f.todo);
    assert_int_equal(f.u.interval_ms, UPLINK_HEARTBEAT_MIN_MS);
}

static void test_one_heartbeat_in_flight_at_a_time(void **state)
{
    (void)state;
    struct fixture f;
    up(&f);
    f.now = f.u.heartbeat_ms;
    step(&f, UPLINK_EV_TICK, 0);
    assert_true(f.todo.heartbeat);
    assert_false(f.todo.open);
    f.now += 100000;
    step(&f, UPLINK_EV_TICK, 0);
    assert_false(f.todo.heartbeat);
}

static void test_one_refused_heartbeat_forgiven_two_move_on(void **state)
{
    (void)state;
    struct fixture f;
    up(&f);
    f.now = f.u.heartbeat_ms;
    step(&f, UPLINK_EV_TICK, 0);
    step(&f, UPLINK_EV_FAILED, -ERR_NO_QUORUM);
    assert_int_equal(f.u.state, UPLINK_UP);
    assert_false(f.todo.close);
    assert_true(f.u.heartbeat_ms - f.now <= 1500);
    f.now = f.u.heartbeat_ms;
    step(&f, UPLINK_EV_TICK, 0);
    step(&f, UPLINK_EV_FAILED, -ERR_NO_QUORUM);
    assert_int_equal(f.u.state, UPLINK_WAIT);
    assert_true(f.todo.close);
    try_next(&f);
    assert_true(uuid_equal(&f.todo.to, &ids[1]));
}

static void test_bad_configuration_moves_on(void **state)
{
    (void)state;
    struct fixture f;
    up(&f);
    step(&f, UPLINK_EV_BAD_CONFIG, 0);
    assert_true(f.todo.close);
    try_next(&f);
    assert_true(uuid_equal(&f.todo.to, &ids[1]));
}

static void test_revoked_node_asks_rarely_until_accepted(void **state)
{
    (void)state;
    struct fixture f;
    up(&f);
    step(&f, UPLINK_EV_CLOSED, -ERR_REVOKED);
    assert_true(f.u.retry_ms - f.now >= UPLINK_BARRED_RETRY_MS / 2);
    try_next(&f);
    step(&f, UPLINK_EV_FAILED, -ERR_CLOSED); /* still barred, whatever the reason this time */
    assert_true(f.u.retry_ms - f.now >= UPLINK_BARRED_RETRY_MS / 2);
    try_next(&f);
    step(&f, UPLINK_EV_ACKED, 0);
    step(&f, UPLINK_EV_CLOSED, -ERR_CLOSED);
    assert_true(f.u.retry_ms - f.now <= UPLINK_RETRY_MIN_MS * 3 / 2);
}

static void test_authority_dropped_from_the_list_is_left(void **state)
{
    (void)state;
    struct fixture f;
    up(&f);
    uplink_set_authorities(&f.u, &ids[1], 2, f.now, 0, &f.todo);
    assert_true(f.todo.close);
    try_next(&f);
    assert_true(uuid_equal(&f.todo.to, &ids[1]));
}

static void test_authority_still_listed_is_kept(void **state)
{
    (void)state;
    struct fixture f;
    up(&f);
    const struct uuid reordered[3] = {ids[2], ids[1], ids[0]};
    uplink_set_authorities(&f.u, reordered, 3, f.now, 5, &f.todo);
    assert_false(f.todo.close);
    assert_int_equal(f.u.state, UPLINK_UP);
    assert_int_equal(f.u.current, 2);
}

static void test_local_authority_needs_no_network(void **state)
{
    (void)state;
    struct fixture f;
    up(&f);
    step(&f, UPLINK_EV_LOCAL, 0);
    assert_true(f.todo.close);
    assert_int_equal(f.u.state, UPLINK_IDLE);
    set(&f, 2);
    assert_int_equal(f.u.state, UPLINK_IDLE);
    f.now += 10000000;
    assert_false(uplink_is_cut_off(&f.u, f.now));
    step(&f, UPLINK_EV_REMOTE, 0);
    assert_false(uplink_is_cut_off(&f.u, f.now));
    try_next(&f);
}

static void test_cut_off_after_three_heartbeats_without_answer(void **state)
{
    (void)state;
    struct fixture f;
    up(&f); /* the authority said 1000 ms */
    assert_false(uplink_is_cut_off(&f.u, f.now + 3000));
    assert_true(uplink_is_cut_off(&f.u, f.now + 3001));
}

/* Late answers of a stream that was given up must not confuse the state. */
static void test_events_after_closing_change_nothing(void **state)
{
    (void)state;
    struct fixture f;
    up(&f);
    step(&f, UPLINK_EV_CLOSED, -ERR_CLOSED);
    uint64_t retry = f.u.retry_ms;
    step(&f, UPLINK_EV_CLOSED, -ERR_CLOSED);
    step(&f, UPLINK_EV_FAILED, -ERR_CLOSED);
    step(&f, UPLINK_EV_ACKED, 0);
    step(&f, UPLINK_EV_BAD_CONFIG, 0);
    assert_int_equal(f.u.state, UPLINK_WAIT);
    assert_int_equal(f.u.retry_ms, retry);
    assert_false(f.todo.close || f.todo.open || f.todo.heartbeat);
}

static void test_backoff_doubles_is_bounded_and_spread(void **state)
{
    (void)state;
    assert_int_equal(backoff_delay_ms(0, 100, 5000, 50), 100);
    assert_int_equal(backoff_delay_ms(1, 100, 5000, 100), 200);
    assert_int_equal(backoff_delay_ms(1000, 100, 5000, 0), 2500);
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;
    for (uint64_t r = 0; r < 1000; r++) {
        uint64_t d = backoff_delay_ms(3, 100, 5000, r * 2654435761u);
        low = d < low ? d : low;
        high = d > high ? d : high;
    }
    assert_in_range(low, 400, 420);
    assert_in_range(high, 1180, 1200);
}

#define DAY_MS 86400000LL

/* DESIGN section 4: at two thirds of its life. */
static void test_renewal_due_at_two_thirds_spread_over_a_twentieth(void **state)
{
    (void)state;
    for (uint64_t r = 0; r < 1000; r++) {
        int64_t due = renewal_due_ms(1000, 1000 + 30 * DAY_MS, r * 2654435761u);
        assert_true(due >= 1000 + 20 * DAY_MS);
        assert_true(due <= 1000 + 20 * DAY_MS + 30 * DAY_MS / 20);
    }
    assert_int_equal(renewal_due_ms(5000, 4000, 99), 5000); /* nonsense: at once */
}

static void test_renewal_retry_never_waits_past_a_tenth_of_what_is_left(void **state)
{
    (void)state;
    int64_t now = 1000;
    assert_in_range(renewal_retry_ms(now, now + DAY_MS, 0, 12345) - now, 10000, 15000);
    assert_true(renewal_retry_ms(now, now + 10 * DAY_MS, 30, 3600000) - now <= 5400 * 1000);
    assert_int_equal(renewal_retry_ms(now, now + 600000, 30, 0) - now, 60000);
    assert_int_equal(renewal_retry_ms(now, now - 1, 30, 0) - now, 10000);
}

/* Near the end of its CA a leaf comes with two thirds of its back-dated life behind it. */
static void test_new_certificate_is_kept_for_half_of_what_is_left(void **state)
{
    (void)state;
    int64_t now = 1000000;
    int64_t end = now + 90000;
    assert_true(renewal_due_ms(now - 300000, end, 0) < now);
    assert_int_equal(renewal_soonest_ms(now, end), now + 45000);
    assert_int_equal(renewal_soonest_ms(now, now + 15000), now + 10000);
    assert_int_equal(renewal_soonest_ms(now, now - 1), now + 10000);
    /* A usual one is renewed at two thirds, which is later. */
    assert_true(renewal_soonest_ms(now, now + 30 * DAY_MS) <
                renewal_due_ms(now - 300000, now + 30 * DAY_MS, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_authority_known_nothing_to_do),
        cmocka_unit_test(test_new_certificate_is_kept_for_half_of_what_is_left),
        cmocka_unit_test(test_last_good_authority_tried_first),
        cmocka_unit_test(test_tick_before_its_time_does_nothing),
        cmocka_unit_test(test_each_failure_moves_to_the_next_with_a_growing_pause),
        cmocka_unit_test(test_heartbeat_interval_is_the_authoritys_with_a_tenth_of_jitter),
        cmocka_unit_test(test_absurd_interval_is_bounded),
        cmocka_unit_test(test_one_heartbeat_in_flight_at_a_time),
        cmocka_unit_test(test_one_refused_heartbeat_forgiven_two_move_on),
        cmocka_unit_test(test_bad_configuration_moves_on),
        cmocka_unit_test(test_revoked_node_asks_rarely_until_accepted),
        cmocka_unit_test(test_authority_dropped_from_the_list_is_left),
        cmocka_unit_test(test_authority_still_listed_is_kept),
        cmocka_unit_test(test_local_authority_needs_no_network),
        cmocka_unit_test(test_cut_off_after_three_heartbeats_without_answer),
        cmocka_unit_test(test_events_after_closing_change_nothing),
        cmocka_unit_test(test_backoff_doubles_is_bounded_and_spread),
        cmocka_unit_test(test_renewal_due_at_two_thirds_spread_over_a_twentieth),
        cmocka_unit_test(test_renewal_retry_never_waits_past_a_tenth_of_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
