#include "base/err.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct {
    int number;
    const char *slug;
    const char *text;
    int retryable;
} rows[] = {
#define ROW(name, num, slug, text, retry) {num, slug, text, retry},
    ERR_TABLE(ROW)};

static void test_numbers_and_slugs_are_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_true(rows[i].number > 0);
        for (size_t k = 0; k < i; k++) {
            assert_int_not_equal(rows[i].number, rows[k].number);
            assert_string_not_equal(rows[i].slug, rows[k].slug);
        }
        for (const char *p = rows[i].slug; *p != '\0'; p++) {
            assert_true(islower((unsigned char)*p) || *p == '_');
        }
        assert_string_not_equal(rows[i].slug, "ok");
        assert_string_not_equal(rows[i].slug, "unknown");
    }
}

static void test_lookups_agree_with_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_string_equal(err_slug(-rows[i].number), rows[i].slug);
        assert_string_equal(err_text(-rows[i].number), rows[i].text);
        assert_int_equal(err_retryable(-rows[i].number), rows[i].retryable);
        assert_int_equal(err_from_slug(rows[i].slug), -rows[i].number);
    }
}

/* Numbers travel: these are what released peers say. */
static void test_numbers_did_not_move(void **state)
{
    (void)state;
    assert_int_equal(ERR_INVALID, 1);
    assert_int_equal(ERR_CORRUPT, 10);
    assert_int_equal(ERR_NO_QUORUM, 17);
    assert_int_equal(ERR_BAD_CERT, 23);
    assert_int_equal(ERR_TOKEN_USED, 34);
    assert_int_equal(ERR_SCOPE, 50);
    assert_int_equal(ERR_NOT_WITNESSED, 60);
    assert_int_equal(ERR_HISTORY, 63);
}

static void test_unknown_codes_are_survived(void **state)
{
    (void)state;
    static const int codes[] = {-9999, INT32_MIN + 1, 1, 50};
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        assert_string_equal(err_slug(codes[i]), "unknown");
        assert_string_equal(err_text(codes[i]), "unknown error");
        assert_false(err_retryable(codes[i]));
    }
    assert_string_equal(err_slug(INT32_MIN), "unknown");
    assert_string_equal(err_slug(0), "ok");
    assert_string_equal(err_text(0), "ok");
    assert_false(err_retryable(0));
    assert_int_equal(err_from_slug("no such slug"), -ERR_INVALID);
    assert_int_equal(err_from_slug(""), -ERR_INVALID);
}

static void test_messages_are_set_and_wrapped(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(errmsg_set(&em, -ERR_IO, "cannot %s", "read"), -ERR_IO);
    assert_int_equal(errmsg_wrap(&em, -ERR_IO, "file %d", 7), -ERR_IO);
    assert_string_equal(em.text, "file 7: cannot read");
    em = ERRMSG_INIT;
    (void)errmsg_wrap(&em, -ERR_IO, "alone");
    assert_string_equal(em.text, "alone");
    assert_int_equal(errmsg_set(NULL, -ERR_IO, "x"), -ERR_IO);
    assert_int_equal(errmsg_wrap(NULL, -ERR_IO, "x"), -ERR_IO);
}

static void test_long_messages_are_cut(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    char large[1000];
    memset(large, 'a', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    (void)errmsg_set(&em, -ERR_IO, "%s", large);
    assert_int_equal(strlen(em.text), sizeof em.text - 1);
    for (int i = 0; i < 100; i++) {
        (void)errmsg_wrap(&em, -ERR_IO, "layer %d", i);
        assert_true(strlen(em.text) < sizeof em.text);
    }
    assert_memory_equal(em.text, "layer 99: layer 98: ", 20);
    (void)errmsg_wrap(&em, -ERR_IO, "%s", large);
    assert_int_equal(strlen(em.text), sizeof em.text - 1);
}

/* However long the reason is, where to read on is there whole. */
static void test_runbook_is_named_for_disks_and_damage_only(void **state)
{
    (void)state;
    static const char place[] = "docs/OPERATIONS.md#a";
    struct errmsg em = ERRMSG_INIT;
    char large[1000];
    memset(large, 'a', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    (void)errmsg_set(&em, -ERR_IO, "short");
    assert_int_equal(errmsg_runbook(&em, -ERR_IO, place), -ERR_IO);
    assert_string_equal(em.text, "short; what to do: docs/OPERATIONS.md#a");
    (void)errmsg_set(&em, -ERR_CORRUPT, "%s", large);
    (void)errmsg_runbook(&em, -ERR_CORRUPT, place);
    assert_int_equal(strlen(em.text), sizeof em.text - 1);
    assert_string_equal(em.text + strlen(em.text) - strlen(place), place);
    (void)errmsg_set(&em, -ERR_SCHEMA, "newer");
    (void)errmsg_runbook(&em, -ERR_SCHEMA, place);
    assert_string_equal(em.text, "newer");
    assert_int_equal(errmsg_runbook(NULL, -ERR_IO, place), -ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_and_slugs_are_unique),
        cmocka_unit_test(test_lookups_agree_with_the_table),
        cmocka_unit_test(test_numbers_did_not_move),
        cmocka_unit_test(test_unknown_codes_are_survived),
        cmocka_unit_test(test_messages_are_set_and_wrapped),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_runbook_is_named_for_disks_and_damage_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
