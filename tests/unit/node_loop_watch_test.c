/* Work of the loop is counted, waiting is not. */
#include "node/loop_watch.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void work(uint64_t us)
{
    uint64_t until = clock_mono_ns() + us * 1000;
    while (clock_mono_ns() < until) {
    }
}

static void on_timer(uv_timer_t *t)
{
    work(30000);
    uv_close((uv_handle_t *)t, NULL);
}

static uint64_t from_class(const struct histogram *h, uint32_t bound_us)
{
    uint64_t n = 0;
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++) {
        n += i == HISTOGRAM_BOUNDS || histogram_bounds_us[i] >= bound_us ? h->count[i] : 0;
    }
    return n;
}

static void test_work_is_counted_and_waiting_is_not(void **state)
{
    struct loop_watch w;
    uv_loop_t loop;
    uv_timer_t timer;
    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    loop_watch_open(&w, &loop);
    assert_int_equal(uv_timer_init(&loop, &timer), 0);
    assert_int_equal(uv_timer_start(&timer, on_timer, 300, 0), 0);
    uint64_t began = clock_mono_ns();
    /* The watch alone does not keep the loop alive. */
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    uint64_t took_us = (clock_mono_ns() - began) / 1000;
    loop_watch_close(&w);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_true(took_us >= 300000);
    assert_int_equal(from_class(&w.turns, 50000),
                     1); /* of 25 to 50 ms, or more on a busy machine */
    uint64_t longest = loop_watch_longest_us(&w);
    assert_in_range(longest, 29000, took_us - 250000); /* without what it waited */
    assert_true(w.turns.sum_us < took_us - 250000);
    assert_int_equal(loop_watch_longest_us(&w), 0); /* since it was last asked */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_work_is_counted_and_waiting_is_not)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
