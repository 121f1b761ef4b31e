/* The exposition format, byte by byte, and the classes of a histogram. */
#include "base/prom.h"

#include "base/err.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char golden[] = "# HELP rap_x_total Things.\n"
                             "# TYPE rap_x_total counter\n"
                             "rap_x_total 18446744073709551615\n"
                             "rap_x_total{kind=\"a\\\\b\\\"c\\nd\",peer=\"\xc3\xa9\"} 0\n"
                             "rap_x_total{kind=\"?\"} 1\n"
                             "# HELP rap_y_seconds A time.\n"
                             "# TYPE rap_y_seconds gauge\n"
                             "rap_y_seconds 0.000001\n"
                             "rap_y_seconds 1.5\n"
                             "rap_y_seconds -0.25\n"
                             "rap_y_seconds 1700000000.001\n"
                             "rap_y_seconds 0\n"
                             "rap_y_seconds 0.1\n"
                             "rap_y_seconds NaN\n"
                             "rap_y_seconds +Inf\n"
                             "rap_y_seconds -Inf\n"
                             "# HELP rap_z_seconds A latency.\n"
                             "# TYPE rap_z_seconds histogram\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.0001\"} 1\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.00025\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.0005\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.001\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.0025\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.005\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.01\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.025\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.05\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.1\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.25\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"0.5\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"1\"} 2\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"2.5\"} 3\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"5\"} 3\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"10\"} 3\n"
                             "rap_z_seconds_bucket{side=\"in\",le=\"+Inf\"} 4\n"
                             "rap_z_seconds_sum{side=\"in\"} 12.000202\n"
                             "rap_z_seconds_count{side=\"in\"} 4\n";

static void write_all(struct buf *out)
{
    struct prom p;
    struct histogram h = {.sum_us = 0};
    prom_init(&p, out);
    prom_one(&p, PROM_COUNTER, "rap_x_total", "Things.", UINT64_MAX);
    prom_label(&p, "kind", "a\\b\"c\nd");
    prom_label(&p, "peer", "\xc3\xa9");
    prom_uint(&p, 0);
    prom_label(&p, "kind", "\xff");
    prom_uint(&p, 1);
    prom_family(&p, PROM_GAUGE, "rap_y_seconds", "A time.");
    prom_us(&p, 1);
    prom_us(&p, 1500000);
    prom_ms(&p, -250);
    prom_ms(&p, 1700000000001);
    prom_us(&p, 0);
    prom_real(&p, 0.1);
    prom_real(&p, NAN);
    prom_real(&p, INFINITY);
    prom_real(&p, -INFINITY);
    histogram_add(&h, 100); /* bounds are inclusive */
    histogram_add(&h, 101);
    histogram_add(&h, 2000000);
    histogram_add(&h, 10000001);
    prom_family(&p, PROM_HISTOGRAM, "rap_z_seconds", "A latency.");
    prom_label(&p, "side", "in");
    prom_histogram(&p, &h);
}

static void test_text_is_the_golden_one(void **state)
{
    struct buf out;
    (void)state;
    buf_init(&out, 1 << 16);
    write_all(&out);
    assert_int_equal(out.err, 0);
    assert_string_equal(buf_cstr(&out), golden);
    buf_fini(&out);
}

static void test_a_long_label_is_cut_between_characters(void **state)
{
    struct buf out;
    struct prom p;
    char value[PROM_VALUE_MAX + 64];
    (void)state;
    buf_init(&out, 1 << 16);
    prom_init(&p, &out);
    prom_family(&p, PROM_GAUGE, "rap_x", "X.");
    memset(value, 'a', PROM_VALUE_MAX - 1);
    (void)snprintf(value + PROM_VALUE_MAX - 1, 32, "\xe2\x82\xac\xe2\x82\xac");
    prom_label(&p, "v", value);
    prom_uint(&p, 1);
    value[PROM_VALUE_MAX - 1] = '\0';
    char *want = xasprintf("# HELP rap_x X.\n# TYPE rap_x gauge\nrap_x{v=\"%s\"} 1\n", value);
    assert_string_equal(buf_cstr(&out), want);
    free(want);
    buf_fini(&out);
}

static void test_what_does_not_fit_is_an_error(void **state)
{
    (void)state;
    for (size_t max = 1; max < sizeof golden - 1; max += 97) {
        struct buf out;
        buf_init(&out, max);
        write_all(&out);
        assert_int_equal(out.err, -ERR_TOO_LARGE);
        buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_is_the_golden_one),
        cmocka_unit_test(test_a_long_label_is_cut_between_characters),
        cmocka_unit_test(test_what_does_not_fit_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
