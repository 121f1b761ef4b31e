/* heap_keep: what a burst has freed stays, and the next one faults nothing in. ASan has a heap of its own. */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

enum { PIECES = 256, PIECE_BYTES = 8192 }; /* 2 MiB: above glibc's own threshold, below ours */

static long faults(void)
{
    struct rusage use;
    assert_int_equal(getrusage(RUSAGE_SELF, &use), 0);
    return use.ru_minflt;
}

/* Page faults of one burst. */
static long burst(void)
{
    static void *pieces[PIECES];
    long before = faults();
    for (size_t i = 0; i < PIECES; i++) {
        pieces[i] = xmalloc(PIECE_BYTES);
        memset(pieces[i], 1, PIECE_BYTES);
    }
    for (size_t i = 0; i < PIECES; i++) {
        free(pieces[i]);
    }
    return faults() - before;
}

static void test_the_next_burst_finds_its_pages(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip();
#endif
    assert_true(burst() > 100); /* the first takes its 512 pages from the kernel, */
    assert_true(burst() > 100); /* and so does each, as glibc comes */
    heap_keep();
    (void)burst();
    assert_true(burst() < 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_next_burst_finds_its_pages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
