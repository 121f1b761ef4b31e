/* An image of a memory database is what the database was when it was taken, whatever happens to it while the
 * image is read. */
#include "base/db_pages.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the three above */
#include <cmocka.h>

static struct db *must_open(void)
{
    struct db *db;
    assert_int_equal(db_open(NULL, DB_MEMORY, &db, NULL), 0);
    return db;
}

static void must_exec(struct db *db, const char *sql)
{
    struct errmsg em = ERRMSG_INIT;
    if (db_exec(db, sql, &em) != 0) {
        fail_msg("%s: %s", sql, em.text);
    }
}

/* Rows under random keys: they touch pages everywhere, and b-trees move theirs about. */
static void add_rows(struct db *db, int64_t n)
{
    assert_int_equal(db_begin(db), 0);
    for (int64_t i = 0; i < n; i++) {
        struct db_stmt *st = db_prepare(db, "INSERT INTO t VALUES (randomblob(60), ?)");
        db_bind_int(st, i);
        assert_int_equal(db_run(st), 0);
    }
    assert_int_equal(db_commit(db), 0);
}

static struct db *make(int64_t rows)
{
    struct db *db = must_open();
    must_exec(db, "CREATE TABLE t (a BLOB PRIMARY KEY NOT NULL, b INTEGER NOT NULL) WITHOUT ROWID");
    add_rows(db, rows);
    return db;
}

static struct blob serialized(struct db *db)
{
    sqlite3_int64 len;
    const void *p = sqlite3_serialize(db_handle(db), "main", &len, 0);
    assert_non_null(p);
    return blob_of(p, (size_t)len);
}

static uint8_t *read_all(struct db_image *im)
{
    uint8_t *out = xmalloc(db_image_bytes(im));
    for (uint32_t i = 0; i < db_image_pages(im); i++) {
        db_image_read(im, i, out + i * db_image_page_bytes(im));
    }
    return out;
}

static void assert_same(struct blob want, struct db_image *im, const uint8_t *got)
{
    assert_int_equal(db_image_bytes(im), want.len);
    assert_memory_equal(got, want.data, want.len);
}

static void free_serialized(struct blob b)
{
    sqlite3_free((void *)(uintptr_t)b.data);
}

static void test_image_is_the_database(void **state)
{
    (void)state;
    struct db *db = make(2000);
    struct blob want = serialized(db);
    struct db_image *im;
    assert_int_equal(db_freeze(db, &im), 0);
    uint8_t *got = read_all(im);
    assert_same(want, im, got);
    free(got);
    db_image_free(im);
    free_serialized(want);
    db_close(db);
}

static void test_image_keeps_what_the_database_changes_after_it(void **state)
{
    (void)state;
    struct db *db = make(3000);
    for (int round = 0; round < 5; round++) {
        struct blob want = serialized(db);
        struct db_image *im;
        assert_int_equal(db_freeze(db, &im), 0);
        add_rows(db, 1500);
        must_exec(db, "BEGIN; DELETE FROM t; ROLLBACK;");
        must_exec(db, "DELETE FROM t WHERE b % 3 = 0; UPDATE t SET b = b + 7;");
        if (round % 2 == 1) {
            must_exec(db, "VACUUM");
        }
        add_rows(db, 500);
        uint8_t *got = read_all(im);
        assert_same(want, im, got);
        free(got);
        db_image_free(im);
        free_serialized(want);
        struct db_stmt *st = db_prepare(db, "PRAGMA integrity_check");
        assert_int_equal(db_step(st), 1);
        assert_string_equal(db_col_text(st, "integrity_check"), "ok");
        db_done(st);
    }
    db_close(db);
}

static void *reader_main(void *arg)
{
    return read_all(arg);
}

static void test_image_is_read_by_a_thread_while_the_database_changes(void **state)
{
    (void)state;
    struct db *db = make(20000);
    for (int round = 0; round < 8; round++) {
        struct blob want = serialized(db);
        struct db_image *im;
        pthread_t reader;
        void *got;
        assert_int_equal(db_freeze(db, &im), 0);
        assert_int_equal(pthread_create(&reader, NULL, reader_main, im), 0);
        add_rows(db, 3000);
        must_exec(db, "DELETE FROM t WHERE b % 5 = 0");
        assert_int_equal(pthread_join(reader, &got), 0);
        assert_same(want, im, got);
        free(got);
        db_image_free(im);
        free_serialized(want);
    }
    db_close(db);
}

static void test_image_outlives_its_database(void **state)
{
    (void)state;
    struct db *db = make(2000);
    struct blob want = serialized(db);
    struct db_image *im;
    assert_int_equal(db_freeze(db, &im), 0);
    add_rows(db, 300);
    db_close(db);
    uint8_t *got = read_all(im);
    assert_same(want, im, got);
    free(got);
    db_image_free(im);
    free_serialized(want);
}

static void test_one_image_at_a_time_and_of_the_right_database(void **state)
{
    (void)state;
    struct db *small = make(10);
    struct db *large = make(2000);
    struct db_image *a;
    struct db_image *b;
    assert_int_equal(db_freeze(large, &a), 0);
    assert_int_equal(db_freeze(large, &b), -ERR_BUSY);
    assert_int_equal(db_freeze(small, &b), 0);
    assert_true(db_image_pages(a) > 10 * db_image_pages(b));
    db_image_free(a);
    assert_int_equal(db_freeze(large, &a), 0);
    db_image_free(a);
    db_image_free(b);
    db_close(small);
    db_close(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_image_is_the_database),
        cmocka_unit_test(test_image_keeps_what_the_database_changes_after_it),
        cmocka_unit_test(test_image_is_read_by_a_thread_while_the_database_changes),
        cmocka_unit_test(test_image_outlives_its_database),
        cmocka_unit_test(test_one_image_at_a_time_and_of_the_right_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
