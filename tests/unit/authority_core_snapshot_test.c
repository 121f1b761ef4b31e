/* When a member writes its state down. */
#include "authority/core_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the three above */
#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static void test_a_snapshot_is_due_when_the_log_has_grown_by_what_it_is_worth(void **state)
{
    (void)state;
    static const struct {
        uint64_t entries, log_bytes, image_bytes;
        bool due;
    } cases[] = {
        {8191, 3 * MIB, 1 * MIB, false},
        {8192, 3 * MIB, 1 * MIB, true}, /* small state: by entries alone */
        {8192, 0, 8 * MIB, true},
        {8192, 3 * MIB, 100 * MIB, false}, /* 25 MiB of log are worth 100 MiB of image */
        {8192, 25 * MIB, 100 * MIB, true},
        {8191, 25 * MIB, 100 * MIB, false},
        {16 * 8192 - 1, 3 * MIB, 100 * MIB, false}, /* but not for ever */
        {16 * 8192, 3 * MIB, 100 * MIB, true},
        {100, 64 * MIB - 1, 1 * MIB, false}, /* large entries */
        {100, 64 * MIB, 1 * MIB, true},
        {100, 64 * MIB, 400 * MIB, false},
        {100, 200 * MIB, 400 * MIB, true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct core_growth g = {.entries = cases[i].entries,
                                      .log_bytes = cases[i].log_bytes,
                                      .image_bytes = cases[i].image_bytes,
                                      .threshold = 8192};
        if (core_snapshot_due(&g) != cases[i].due) {
            fail_msg("case %zu", i);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_snapshot_is_due_when_the_log_has_grown_by_what_it_is_worth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
