/* When the mirror connects, writes, compares and stops (mirror_core.h): every move of the diagram, and
 * that a leader who is not one yet, a lost connection or a strange position never writes. */
#include "authority/mirror_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct world {
    struct mirror_core m;
    struct mirror_todo todo;
    uint64_t now_ms;
    struct mirror_settings settings;
};

static void step(struct world *w, struct mirror_input e)
{
    e.now_ms = w->now_ms;
    mirror_step(&w->m, &e, &w->todo);
}

static void expect_state(const struct world *w, enum mirror_state s)
{
    assert_string_equal(mirror_state_name(w->m.state), mirror_state_name(s));
}

static void settings(struct world *w)
{
    step(w, (struct mirror_input){.kind = MIRROR_EV_SETTINGS, .settings = w->settings});
}

static void applied(struct world *w, uint64_t index, uint64_t term)
{
    step(w, (struct mirror_input){.kind = MIRROR_EV_APPLIED, .index = index, .term = term});
}

static void tick(struct world *w, uint64_t ms)
{
    w->now_ms += ms;
    step(w, (struct mirror_input){.kind = MIRROR_EV_TICK});
}

static void simple(struct world *w, enum mirror_input_kind kind)
{
    step(w, (struct mirror_input){.kind = kind});
}

static void begin(struct world *w)
{
    *w = (struct world){.now_ms = 1000};
    mirror_core_init(&w->m);
    w->settings = (struct mirror_settings){
        .enabled = true, .max_lag_ms = 5000, .version = 1, .rebuilds = 0};
}

/* Leading in term 3 with index 100 applied, the connection being made. */
static void connecting(struct world *w)
{
    begin(w);
    settings(w);
    expect_state(w, MIRROR_STANDBY);
    applied(w, 99, 2);
    step(w, (struct mirror_input){.kind = MIRROR_EV_LEAD, .epoch = 1, .term = 3});
    expect_state(w, MIRROR_STANDBY); /* its own term's first entry is not applied yet */
    assert_false(w->todo.open);
    applied(w, 100, 3);
    expect_state(w, MIRROR_CONNECTING);
    assert_true(w->todo.open);
}

static void checking(struct world *w)
{
    connecting(w);
    simple(w, MIRROR_EV_UP);
    expect_state(w, MIRROR_CHECKING);
    assert_true(w->todo.check && !w->todo.inspect);
}

static void found(struct world *w, struct mirror_found f)
{
    step(w, (struct mirror_input){.kind = MIRROR_EV_CHECKED, .found = f});
}

static void following(struct world *w, uint64_t index)
{
    checking(w);
    found(w, (struct mirror_found){.index = index,
                                   .reached = true,
                                   .sealed = true,
                                   .digest_known = true,
                                   .digest_same = true});
    expect_state(w, MIRROR_FOLLOWING);
    assert_true(w->todo.pump);
}

static void sent(struct world *w, uint64_t index)
{
    step(w, (struct mirror_input){.kind = MIRROR_EV_SENT, .index = index});
}

static void acked(struct world *w, uint64_t index, uint64_t oldest_ms)
{
    step(w, (struct mirror_input){.kind = MIRROR_EV_ACKED, .index = index, .oldest_ms = oldest_ms});
}

static void test_nothing_happens_while_it_is_off_or_another_leads(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_LEAD, .epoch = 1, .term = 3});
    applied(&w, 5, 3);
    tick(&w, 1000);
    expect_state(&w, MIRROR_DISABLED);
    assert_false(w.todo.open);
    simple(&w, MIRROR_EV_UNLEAD);
    settings(&w);
    tick(&w, 1000);
    expect_state(&w, MIRROR_STANDBY);
    w.settings.enabled = false;
    settings(&w);
    expect_state(&w, MIRROR_DISABLED);
}

static void test_it_follows_from_where_postgresql_is(void **state)
{
    (void)state;
    struct world w;
    uint64_t limit = 0;
    following(&w, 90);
    assert_int_equal(w.m.sent, 90);
    assert_true(mirror_core_room(&w.m, &limit));
    assert_int_equal(limit, UINT64_MAX);
    for (int i = 0; i < MIRROR_INFLIGHT_MAX; i++) {
        assert_true(mirror_core_room(&w.m, &limit));
        sent(&w, 91 + (uint64_t)i);
    }
    assert_false(mirror_core_room(&w.m, &limit)); /* bounded in flight */
    acked(&w, 91, 900);
    assert_true(mirror_core_room(&w.m, &limit) && w.todo.pump);
    assert_int_equal(mirror_core_lag(&w.m), 9);
    assert_int_equal(mirror_core_lag_ms(&w.m, 1000), 100);
    for (uint64_t i = 92; i <= 94; i++) {
        acked(&w, i, 0);
    }
    assert_int_equal(mirror_core_lag_ms(&w.m, 99999), 0);
}

static void test_a_gap_in_history_is_resynced(void **state)
{
    (void)state;
    struct world w;
    checking(&w);
    found(&w, (struct mirror_found){.index = 10});
    expect_state(&w, MIRROR_RESYNCING);
    assert_true(w.todo.copy && w.todo.resync && !w.todo.compare);
    simple(&w, MIRROR_EV_STEP);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_SCANNED, .index = 100, .differences = 7});
    expect_state(&w, MIRROR_FOLLOWING);
    assert_true(w.todo.drop_copy && w.todo.pump);
    assert_int_equal(w.m.acked, 100);
    assert_int_equal(w.m.sent, 100);
    simple(&w, MIRROR_EV_GAP);
    expect_state(&w, MIRROR_WAITING);
    assert_true(w.todo.close);
}

static void test_a_lost_connection_is_made_again_later_and_later(void **state)
{
    (void)state;
    struct world w;
    uint64_t last = 0;
    following(&w, 100);
    sent(&w, 101);
    for (int i = 0; i < 8; i++) {
        simple(&w, MIRROR_EV_LOST);
        expect_state(&w, MIRROR_WAITING);
        assert_true(w.todo.close);
        assert_int_equal(w.m.inflight, 0);
        uint64_t wait = w.m.retry_at_ms - w.now_ms;
        assert_true(wait >= last && wait <= MIRROR_RETRY_MAX_MS);
        last = wait;
        tick(&w, wait - 1);
        expect_state(&w, MIRROR_WAITING);
        tick(&w, 1);
        expect_state(&w, MIRROR_CONNECTING);
        assert_true(w.todo.open);
    }
    assert_int_equal(last, MIRROR_RETRY_MAX_MS);
    /* The checks find what came of the group that was under way. */
    simple(&w, MIRROR_EV_UP);
    found(&w, (struct mirror_found){.index = 100,
                                    .reached = true,
                                    .sealed = true,
                                    .digest_known = true,
                                    .digest_same = true});
    expect_state(&w, MIRROR_FOLLOWING);
    sent(&w, 100);
    acked(&w, 100, 0);
    assert_int_equal(w.m.retries, 0); /* only a commit counts as success */
}

static void test_silence_counts_as_loss(void **state)
{
    (void)state;
    struct world w;
    connecting(&w);
    tick(&w, MIRROR_CONNECT_MS - 1);
    expect_state(&w, MIRROR_CONNECTING);
    tick(&w, 1);
    expect_state(&w, MIRROR_WAITING);
    following(&w, 90);
    tick(&w, 10 * MIRROR_PROGRESS_MS); /* nothing is under way */
    expect_state(&w, MIRROR_FOLLOWING);
    sent(&w, 91);
    tick(&w, MIRROR_PROGRESS_MS - 1);
    expect_state(&w, MIRROR_FOLLOWING);
    tick(&w, 1);
    expect_state(&w, MIRROR_WAITING);
    checking(&w);
    simple(&w, MIRROR_EV_REFUSED);
    expect_state(&w, MIRROR_WAITING);
}

static void test_an_outranked_writer_is_fenced_and_asks_again(void **state)
{
    (void)state;
    struct world w;
    checking(&w);
    simple(&w, MIRROR_EV_OUTRANKED);
    expect_state(&w, MIRROR_FENCED);
    assert_true(w.todo.close);
    tick(&w, MIRROR_RETRY_MAX_MS);
    expect_state(&w, MIRROR_CONNECTING);
    simple(&w, MIRROR_EV_UP);
    simple(&w, MIRROR_EV_OUTRANKED);
    simple(&w, MIRROR_EV_UNLEAD);
    expect_state(&w, MIRROR_STANDBY);
}

static void test_losing_the_leadership_ends_everything(void **state)
{
    (void)state;
    struct world w;
    void (*const until[])(struct world *w) = {connecting, checking};
    for (size_t i = 0; i < ARRAY_SIZE(until); i++) {
        until[i](&w);
        simple(&w, MIRROR_EV_UNLEAD);
        expect_state(&w, MIRROR_STANDBY);
        assert_true(w.todo.close);
    }
    following(&w, 100);
    /* Lost and won again between two looks: the claim is of another term. */
    step(&w, (struct mirror_input){.kind = MIRROR_EV_LEAD, .epoch = 1, .term = 3});
    expect_state(&w, MIRROR_FOLLOWING);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_LEAD, .epoch = 1, .term = 5});
    expect_state(&w, MIRROR_STANDBY);
    assert_true(w.todo.close);
    applied(&w, 101, 5);
    expect_state(&w, MIRROR_CONNECTING);
}

/* Raised, and kept until the settings have it; then only a rebuild or switching off ends it. */
static void expect_alarm(struct world *w, enum mirror_alarm alarm)
{
    expect_state(w, MIRROR_FAILED);
    assert_int_equal(w->todo.alarm, alarm);
    assert_true(w->todo.close);
    settings(w); /* something else changed: the alarm is not in the state yet */
    expect_state(w, MIRROR_FAILED);
    tick(w, MIRROR_REPORT_MS);
    assert_int_equal(w->todo.alarm, alarm);
    w->settings.alarmed = true;
    settings(w);
    tick(w, 10 * MIRROR_REPORT_MS);
    assert_int_equal(w->todo.alarm, MIRROR_ALARM_NONE);
    expect_state(w, MIRROR_FAILED);
    w->settings.alarmed = false;
    w->settings.rebuilds++;
    settings(w);
    expect_state(w, MIRROR_CONNECTING);
    simple(w, MIRROR_EV_UP);
    found(w, (struct mirror_found){.index = 120, .rebuilds = w->settings.rebuilds - 1});
    expect_state(w, MIRROR_RESYNCING); /* whatever its index is */
    assert_true(w->todo.resync);
    step(w, (struct mirror_input){.kind = MIRROR_EV_SCANNED, .index = w->m.applied});
    expect_state(w, MIRROR_FOLLOWING);
    assert_true(w->todo.rebuilt);
}

static void test_a_mirror_ahead_of_the_log_is_not_believed(void **state)
{
    (void)state;
    struct world w;
    checking(&w);
    found(&w, (struct mirror_found){.index = 101});
    expect_alarm(&w, MIRROR_ALARM_AHEAD);
    checking(&w);
    found(&w, (struct mirror_found){.index = 50, .rebuilds = 1, .reached = true, .sealed = true});
    expect_state(&w, MIRROR_FAILED); /* rebuilt by somebody else */
}

static void test_another_history_is_not_believed(void **state)
{
    (void)state;
    struct world w;
    checking(&w);
    found(&w, (struct mirror_found){
                  .index = 90, .reached = true, .sealed = true, .digest_known = true});
    expect_alarm(&w, MIRROR_ALARM_DIVERGED);
}

static void test_edited_rows_are_not_believed(void **state)
{
    (void)state;
    struct world w;
    following(&w, 100);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_VERIFY, .index = 100});
    expect_state(&w, MIRROR_VERIFYING);
    assert_true(w.todo.copy && w.todo.compare);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_SCANNED, .index = 100, .differences = 1});
    assert_true(w.todo.verified);
    expect_alarm(&w, MIRROR_ALARM_EDITED);
}

static void test_a_row_that_cannot_be_written_raises_an_alarm(void **state)
{
    (void)state;
    struct world w;
    following(&w, 90);
    simple(&w, MIRROR_EV_UNFIT);
    expect_alarm(&w, MIRROR_ALARM_UNFIT);
}

static void test_a_leader_that_inherits_an_alarm_stays_off(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.settings.alarmed = true;
    settings(&w);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_LEAD, .epoch = 1, .term = 3});
    applied(&w, 100, 3);
    expect_state(&w, MIRROR_FAILED);
    assert_false(w.todo.open);
    w.settings.enabled = false;
    settings(&w);
    expect_state(&w, MIRROR_DISABLED);
}

static void test_verification_waits_for_one_index(void **state)
{
    (void)state;
    struct world w;
    uint64_t limit;
    following(&w, 98);
    sent(&w, 99);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_VERIFY, .index = 100});
    expect_state(&w, MIRROR_FOLLOWING);
    assert_true(w.todo.copy && !w.todo.compare && w.todo.pump);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_VERIFY, .index = 100});
    assert_true(w.todo.unverified); /* one at a time */
    applied(&w, 105, 3);
    assert_true(mirror_core_room(&w.m, &limit));
    assert_int_equal(limit, 100); /* not beyond */
    sent(&w, 100);
    assert_false(mirror_core_room(&w.m, &limit));
    acked(&w, 99, 1);
    assert_false(w.todo.compare);
    acked(&w, 100, 1);
    assert_true(w.todo.compare);
    expect_state(&w, MIRROR_VERIFYING);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_SCANNED, .index = 100});
    expect_state(&w, MIRROR_FOLLOWING);
    assert_true(w.todo.verified && w.todo.pump);
    /* The connection is lost in the middle: whoever waits is told. */
    sent(&w, 105);
    acked(&w, 105, 0);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_VERIFY, .index = 105});
    simple(&w, MIRROR_EV_LOST);
    assert_true(w.todo.unverified);
}

static void test_a_preview_compares_without_alarm_under_alarm_too(void **state)
{
    (void)state;
    struct world w;
    following(&w, 100);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_VERIFY, .index = 100, .preview = true});
    step(&w, (struct mirror_input){.kind = MIRROR_EV_SCANNED, .index = 100, .differences = 3});
    assert_int_equal(w.todo.alarm, MIRROR_ALARM_NONE);
    expect_state(&w, MIRROR_FOLLOWING);
    w.settings.alarmed = true;
    settings(&w);
    expect_state(&w, MIRROR_FAILED);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_VERIFY, .index = 100, .preview = true});
    expect_state(&w, MIRROR_CONNECTING);
    assert_true(w.todo.open);
    simple(&w, MIRROR_EV_UP);
    assert_true(w.todo.inspect); /* no claim */
    tick(&w, 10);
    found(&w, (struct mirror_found){.index = 500});
    expect_state(&w, MIRROR_VERIFYING);
    assert_true(w.todo.compare);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_SCANNED, .index = 100, .differences = 3});
    assert_true(w.todo.verified && w.todo.close);
    expect_state(&w, MIRROR_FAILED);
}

static void test_verification_needs_a_mirror_that_follows(void **state)
{
    (void)state;
    struct world w;
    checking(&w);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_VERIFY, .index = 100});
    assert_true(w.todo.unverified);
}

static void test_a_restored_mirror_is_noticed_and_caught_up(void **state)
{
    (void)state;
    struct world w;
    following(&w, 90);
    sent(&w, 100);
    acked(&w, 100, 0);
    simple(&w, MIRROR_EV_LOST);
    tick(&w, MIRROR_RETRY_MAX_MS);
    simple(&w, MIRROR_EV_UP);
    found(&w, (struct mirror_found){.index = 95,
                                    .reached = true,
                                    .sealed = true,
                                    .digest_known = true,
                                    .digest_same = true});
    assert_true(w.todo.rewound);
    expect_state(&w, MIRROR_FOLLOWING);
    assert_int_equal(w.m.sent, 95);
    assert_true(mirror_core_lag_ms(&w.m, w.now_ms + 7) >= 7);
}

static void test_required_mode_refuses_when_too_far_behind_and_recovers(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.settings.required = true;
    settings(&w);
    applied(&w, 99, 2);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_LEAD, .epoch = 1, .term = 3});
    applied(&w, 100, 3);
    assert_true(mirror_core_available(&w.m, w.now_ms));
    assert_true(mirror_core_available(&w.m, w.now_ms + 5000));
    assert_false(mirror_core_available(&w.m, w.now_ms + 5001)); /* its position is not even known */
    simple(&w, MIRROR_EV_UP);
    found(&w, (struct mirror_found){.index = 100,
                                    .reached = true,
                                    .sealed = true,
                                    .digest_known = true,
                                    .digest_same = true});
    assert_true(mirror_core_available(&w.m, w.now_ms + 60000));
    applied(&w, 101 + MIRROR_LAG_ENTRIES_MAX, 3);
    assert_false(mirror_core_available(&w.m, w.now_ms)); /* too many entries */
    sent(&w, 101);
    acked(&w, 101, w.now_ms);
    assert_true(mirror_core_available(&w.m, w.now_ms));
    assert_false(mirror_core_available(&w.m, w.now_ms + 5001)); /* too old */
    /* A comparison is no reason to refuse, however long it takes. */
    step(&w, (struct mirror_input){.kind = MIRROR_EV_VERIFY, .index = 101});
    expect_state(&w, MIRROR_VERIFYING);
    assert_true(mirror_core_available(&w.m, w.now_ms + 5001));
    w.now_ms += 20000;
    step(&w, (struct mirror_input){.kind = MIRROR_EV_SCANNED, .index = 101});
    assert_true(mirror_core_available(&w.m, w.now_ms + 5000));
    assert_false(mirror_core_available(&w.m, w.now_ms + 5001));
    w.settings.required = false;
    settings(&w);
    assert_true(mirror_core_available(&w.m, w.now_ms + 5001));
    w.settings.required = w.settings.alarmed = true;
    settings(&w);
    assert_false(mirror_core_available(&w.m, w.now_ms));
    w.settings.enabled = false;
    settings(&w);
    assert_true(mirror_core_available(&w.m, w.now_ms));
}

static void test_reserve_is_bounded_and_comes_back_when_available(void **state)
{
    (void)state;
    struct world w;
    following(&w, 100);
    for (int i = 0; i < MIRROR_RESERVE; i++) {
        assert_true(mirror_core_reserve(&w.m));
    }
    assert_false(mirror_core_reserve(&w.m));
    w.settings.required = w.settings.alarmed = true;
    settings(&w);
    simple(&w, MIRROR_EV_TICK);
    assert_false(mirror_core_reserve(&w.m));
    w.settings.required = false;
    settings(&w);
    simple(&w, MIRROR_EV_TICK);
    assert_true(mirror_core_reserve(&w.m));
}

static void test_another_database_is_another_connection(void **state)
{
    (void)state;
    struct world w;
    following(&w, 100);
    w.settings.version++;
    settings(&w);
    expect_state(&w, MIRROR_CONNECTING);
    assert_true(w.todo.close && w.todo.open);
    simple(&w, MIRROR_EV_UP);
    found(&w, (struct mirror_found){.index = 0});
    assert_false(w.todo.rewound); /* an empty one is not a restored one */
    expect_state(&w, MIRROR_RESYNCING);
}

static void test_rows_without_a_seal_are_written_as_a_whole(void **state)
{
    (void)state;
    struct world w;
    checking(&w);
    found(&w, (struct mirror_found){
                  .index = 100, .reached = true, .digest_known = true, .digest_same = true});
    expect_state(&w, MIRROR_RESYNCING);
    assert_true(w.todo.copy && w.todo.resync);
}

static void test_forged_seal_raises_an_alarm(void **state)
{
    (void)state;
    struct world w;
    checking(&w);
    found(&w, (struct mirror_found){.index = 100,
                                    .reached = true,
                                    .forged = true,
                                    .digest_known = true,
                                    .digest_same = true});
    expect_state(&w, MIRROR_FAILED);
    assert_int_equal(w.todo.alarm, MIRROR_ALARM_EDITED);
}

static void test_late_answers_change_nothing(void **state)
{
    (void)state;
    struct world w;
    following(&w, 100);
    simple(&w, MIRROR_EV_UNLEAD);
    acked(&w, 101, 0);
    step(&w, (struct mirror_input){.kind = MIRROR_EV_SCANNED, .index = 101});
    simple(&w, MIRROR_EV_UP);
    found(&w, (struct mirror_found){.index = 7});
    simple(&w, MIRROR_EV_LOST);
    simple(&w, MIRROR_EV_OUTRANKED);
    expect_state(&w, MIRROR_STANDBY);
    assert_int_equal(w.m.acked, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_happens_while_it_is_off_or_another_leads),
        cmocka_unit_test(test_it_follows_from_where_postgresql_is),
        cmocka_unit_test(test_a_gap_in_history_is_resynced),
        cmocka_unit_test(test_a_lost_connection_is_made_again_later_and_later),
        cmocka_unit_test(test_silence_counts_as_loss),
        cmocka_unit_test(test_an_outranked_writer_is_fenced_and_asks_again),
        cmocka_unit_test(test_losing_the_leadership_ends_everything),
        cmocka_unit_test(test_a_mirror_ahead_of_the_log_is_not_believed),
        cmocka_unit_test(test_another_history_is_not_believed),
        cmocka_unit_test(test_edited_rows_are_not_believed),
        cmocka_unit_test(test_a_row_that_cannot_be_written_raises_an_alarm),
        cmocka_unit_test(test_a_leader_that_inherits_an_alarm_stays_off),
        cmocka_unit_test(test_verification_waits_for_one_index),
        cmocka_unit_test(test_a_preview_compares_without_alarm_under_alarm_too),
        cmocka_unit_test(test_verification_needs_a_mirror_that_follows),
        cmocka_unit_test(test_a_restored_mirror_is_noticed_and_caught_up),
        cmocka_unit_test(test_required_mode_refuses_when_too_far_behind_and_recovers),
        cmocka_unit_test(test_reserve_is_bounded_and_comes_back_when_available),
        cmocka_unit_test(test_another_database_is_another_connection),
        cmocka_unit_test(test_rows_without_a_seal_are_written_as_a_whole),
        cmocka_unit_test(test_forged_seal_raises_an_alarm),
        cmocka_unit_test(test_late_answers_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
