#include "base/db.h"

#include "base/file.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static char path[96];

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/rap-db-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/test.db", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        char *p = xasprintf("%s%s", path, suffixes[i]);
        (void)unlink(p);
        free(p);
    }
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

static struct db *must_open(enum db_kind kind)
{
    struct db *db = NULL;
    struct errmsg em = ERRMSG_INIT;
    if (db_open(path, kind, &db, &em) != 0) {
        fail_msg("open: %s", em.text);
    }
    return db;
}

static void must_exec(struct db *db, const char *sql)
{
    struct errmsg em = ERRMSG_INIT;
    if (db_exec(db, sql, &em) != 0) {
        fail_msg("%s: %s", sql, em.text);
    }
}

static int64_t number(struct db *db, const char *sql)
{
    struct db_stmt *st = db_prepare(db, sql);
    assert_int_equal(db_step(st), 1);
    int64_t v = db_col_int(st, "v");
    db_done(st);
    return v;
}

static void test_values_of_every_type_round_trip(void **state)
{
    (void)state;
    struct db *db = must_open(DB_MEMORY);
    must_exec(db,
              "CREATE TABLE t (id INTEGER PRIMARY KEY, i INTEGER, s TEXT, b BLOB, n TEXT) STRICT");
    struct db_stmt *st = db_prepare(db, "INSERT INTO t (i, s, b, n) VALUES (?, ?, ?, ?)");
    db_bind_int(st, INT64_MIN);
    db_bind_text(st, "text");
    db_bind_blob(st, blob_of("\0\1", 2));
    db_bind_null(st);
    assert_int_equal(db_run(st), 0);
    assert_int_equal(db_changes(db), 1);
    st = db_prepare(db, "INSERT INTO t (i, s, b, n) VALUES (?, ?, ?, ?)");
    db_bind_int(st, 7);
    db_bind_textn(st, NULL, 0);
    db_bind_blob(st, blob_of(NULL, 0));
    db_bind_text(st, NULL);
    assert_int_equal(db_run(st), 0);
    st = db_prepare(db, "SELECT i, s, b, n FROM t ORDER BY id");
    assert_int_equal(db_step(st), 1);
    assert_true(db_col_int(st, "i") == INT64_MIN);
    assert_string_equal(db_col_text(st, "s"), "text");
    assert_true(blob_equal(db_col_blob(st, "b"), blob_of("\0\1", 2)));
    assert_true(db_col_is_null(st, "n"));
    assert_string_equal(db_col_text(st, "n"), "");
    assert_int_equal(db_col_int(st, "n"), 0);
    assert_int_equal(db_step(st), 1);
    /* Empty is not NULL. */
    assert_false(db_col_is_null(st, "s"));
    assert_false(db_col_is_null(st, "b"));
    assert_int_equal(db_col_blob(st, "b").len, 0);
    assert_true(db_col_is_null(st, "n"));
    assert_int_equal(db_step(st), 0);
    db_done(st);
    db_close(db);
    db_close(NULL);
}

static void test_statement_is_kept_by_its_text(void **state)
{
    (void)state;
    struct db *db = must_open(DB_MEMORY);
    must_exec(db, "CREATE TABLE t (i INTEGER) STRICT");
    char copy[64];
    (void)snprintf(copy, sizeof copy, "%s", "SELECT 1 AS v");
    struct db_stmt *a = db_prepare(db, "SELECT 1 AS v");
    sqlite3_stmt *raw = db_stmt_handle(a);
    db_done(a);
    struct db_stmt *b = db_prepare(db, copy);
    assert_ptr_equal(a, b);
    assert_ptr_equal(db_stmt_handle(b), raw);
    struct db_stmt *other = db_prepare(db, "SELECT 2 AS v");
    assert_ptr_not_equal(other, b);
    db_done(other);
    db_done(b);
    /* Bindings do not stay for the next user. */
    struct db_stmt *st = db_prepare(db, "INSERT INTO t VALUES (?)");
    db_bind_int(st, 5);
    assert_int_equal(db_run(st), 0);
    st = db_prepare(db, "INSERT INTO t VALUES (?)");
    db_bind_null(st);
    assert_int_equal(db_run(st), 0);
    assert_int_equal(number(db, "SELECT count(*) AS v FROM t WHERE i IS NULL"), 1);
    db_close(db);
}

static void bind_too_many(struct db *db)
{
    struct db_stmt *st = db_prepare(db, "SELECT ?");
    db_bind_int(st, 1);
    db_bind_int(st, 2);
}

static void bind_too_few(struct db *db)
{
    (void)db_step(db_prepare(db, "SELECT ?"));
}

static void use_twice(struct db *db)
{
    (void)db_prepare(db, "SELECT 1");
    (void)db_prepare(db, "SELECT 1");
}

static void wrong_sql(struct db *db)
{
    (void)db_prepare(db, "SELEKT 1");
}

static void no_column(struct db *db)
{
    struct db_stmt *st = db_prepare(db, "SELECT 1 AS v");
    (void)db_step(st);
    (void)db_col_int(st, "w");
}

/* Our own bugs end the process. */
static void test_misuse_ends_the_process(void **state)
{
    (void)state;
    void (*const misuses[])(struct db *) = {bind_too_many, bind_too_few, use_twice, wrong_sql,
                                            no_column};
    for (size_t i = 0; i < ARRAY_SIZE(misuses); i++) {
        pid_t pid = fork();
        if (pid == 0) {
            (void)signal(SIGABRT, SIG_DFL);
            if (freopen("/dev/null", "w", stderr) == NULL) {
                _exit(0); /* fails the test */
            }
            misuses[i](must_open(DB_MEMORY));
            _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_not_equal(status, 0);
    }
}

static void test_errors_of_the_engine_are_returned(void **state)
{
    (void)state;
    struct db *db = must_open(DB_MEMORY);
    struct errmsg em = ERRMSG_INIT;
    must_exec(db, "CREATE TABLE t (i INTEGER PRIMARY KEY, s TEXT NOT NULL) STRICT;"
                  "INSERT INTO t VALUES (1, 'a')");
    for (int i = 0; i < 2; i++) {
        struct db_stmt *st = db_prepare(db, "INSERT INTO t VALUES (1, 'b')");
        assert_int_equal(db_run(st), -ERR_CONFLICT);
        assert_non_null(strstr(db_errmsg(db), "UNIQUE"));
    }
    assert_int_equal(db_exec(db, "INSERT INTO t VALUES (2, NULL)", &em), -ERR_CONFLICT);
    assert_non_null(strstr(em.text, "NOT NULL"));
    db_close(db);
}

static void test_transactions(void **state)
{
    (void)state;
    struct db *db = must_open(DB_MEMORY);
    must_exec(db, "CREATE TABLE t (i INTEGER) STRICT");
    assert_int_equal(db_begin(db), 0);
    must_exec(db, "INSERT INTO t VALUES (1)");
    db_rollback(db);
    assert_int_equal(number(db, "SELECT count(*) AS v FROM t"), 0);
    db_rollback(db); /* nothing to roll back */
    assert_int_equal(db_begin(db), 0);
    must_exec(db, "INSERT INTO t VALUES (1)");
    assert_int_equal(db_commit(db), 0);
    assert_int_equal(number(db, "SELECT count(*) AS v FROM t"), 1);
    db_close(db);
}

static void test_durable_file_is_private_and_has_one_user(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    struct stat st;
    struct db *other = NULL;
    mode_t old = umask(0);
    struct db *db = must_open(DB_DURABLE);
    (void)umask(old);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    must_exec(db, "CREATE TABLE t (i INTEGER) STRICT");
    struct db_stmt *mode = db_prepare(db, "PRAGMA journal_mode");
    assert_int_equal(db_step(mode), 1);
    assert_string_equal(db_col_text(mode, "journal_mode"), "wal");
    db_done(mode);
    struct db_stmt *sync = db_prepare(db, "PRAGMA synchronous");
    assert_int_equal(db_step(sync), 1);
    assert_int_equal(db_col_int(sync, "synchronous"), 2);
    db_done(sync);
    /* In this process and in another; and after each attempt it is still ours. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(db_open(path, DB_DURABLE, &other, &em), -ERR_BUSY);
        pid_t pid = fork();
        if (pid == 0) {
            struct db *mine = NULL;
            _exit(db_open(path, DB_DURABLE, &mine, NULL) == -ERR_BUSY ? 0 : 1);
        }
        int status = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    db_close(db);
    db = must_open(DB_DURABLE);
    assert_int_equal(number(db, "SELECT count(*) AS v FROM t"), 0);
    db_close(db);
}

static void test_what_is_no_database_is_refused(void **state)
{
    (void)state;
    struct db *db = NULL;
    struct errmsg em = ERRMSG_INIT;
    char text[4096];
    memset(text, 'x', sizeof text);
    assert_int_equal(file_write_atomic(path, blob_of(text, sizeof text), 0600, NULL), 0);
    assert_int_equal(db_open(path, DB_DURABLE, &db, &em), -ERR_CORRUPT);
    assert_non_null(strstr(em.text, path));
    assert_int_equal(db_open("/nonexistent/x.db", DB_DURABLE, &db, &em), -ERR_IO);
    assert_null(db);
}

static const struct db_migration v1[] = {
    {"0001_first", "CREATE TABLE a (i INTEGER) STRICT; INSERT INTO a VALUES (1)"},
    {NULL, NULL},
};
static const struct db_migration v2[] = {
    {"0001_first", "CREATE TABLE a (i INTEGER) STRICT; INSERT INTO a VALUES (1)"},
    {"0002_second", "ALTER TABLE a ADD COLUMN j INTEGER; CREATE INDEX a_j ON a (j);"
                    "UPDATE a SET j = i + 1"},
    {NULL, NULL},
};
static const struct db_migration v3_broken[] = {
    {"0001_first", "CREATE TABLE a (i INTEGER) STRICT; INSERT INTO a VALUES (1)"},
    {"0002_second", "ALTER TABLE a ADD COLUMN j INTEGER; CREATE INDEX a_j ON a (j);"
                    "UPDATE a SET j = i + 1"},
    {"0003_third", "CREATE TABLE c (i INTEGER) STRICT; INSERT INTO nowhere VALUES (1)"},
    {NULL, NULL},
};

static void test_migrations_run_once_and_in_order(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    struct db *db = must_open(DB_DURABLE);
    assert_int_equal(db_migrate(db, v1, &em), 0);
    assert_int_equal(db_migrate(db, v1, &em), 0);
    assert_int_equal(number(db, "SELECT count(*) AS v FROM a"), 1);
    db_close(db);
    db = must_open(DB_DURABLE);
    assert_int_equal(db_migrate(db, v2, &em), 0);
    assert_int_equal(number(db, "SELECT j AS v FROM a"), 2);
    assert_int_equal(db_migrate(db, v2, &em), 0);
    db_close(db);
}

static void test_newer_schema_is_refused(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    struct db *db = must_open(DB_DURABLE);
    assert_int_equal(db_migrate(db, v2, &em), 0);
    assert_int_equal(db_migrate(db, v1, &em), -ERR_SCHEMA);
    assert_non_null(strstr(em.text, "schema 2"));
    db_close(db);
}

static void test_failed_migration_leaves_the_version_before_it(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    struct db *db = must_open(DB_DURABLE);
    assert_int_equal(db_migrate(db, v3_broken, &em), -ERR_IO);
    assert_non_null(strstr(em.text, "0003_third"));
    assert_int_equal(number(db, "SELECT count(*) AS v FROM sqlite_schema WHERE name = 'c'"), 0);
    assert_int_equal(db_migrate(db, v2, &em), 0);
    assert_int_equal(number(db, "SELECT j AS v FROM a"), 2);
    db_close(db);
}

static void test_schema_that_lost_something_is_corrupt(void **state)
{
    (void)state;
    static const char *const losses[] = {"DROP TABLE a", "DROP INDEX a_j",
                                         "ALTER TABLE a RENAME TO b",
                                         "ALTER TABLE a ADD COLUMN k INTEGER"};
    for (size_t i = 0; i < ARRAY_SIZE(losses); i++) {
        struct errmsg em = ERRMSG_INIT;
        struct db *db = must_open(DB_MEMORY);
        assert_int_equal(db_migrate(db, v2, &em), 0);
        must_exec(db, losses[i]);
        assert_int_equal(db_migrate(db, v2, &em), -ERR_CORRUPT);
        assert_true(em.text[0] != '\0');
        db_close(db);
    }
    /* What is there besides is none of our business. */
    struct errmsg em = ERRMSG_INIT;
    struct db *db = must_open(DB_MEMORY);
    assert_int_equal(db_migrate(db, v2, &em), 0);
    must_exec(db, "CREATE TABLE extra (i INTEGER) STRICT");
    assert_int_equal(db_migrate(db, v2, &em), 0);
    db_close(db);
}

/* A page that does not read is an error of the statement that needs it, even while preparing. */
static void test_damaged_schema_page_is_an_error(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    struct buf file;
    struct db *db = must_open(DB_DURABLE);
    assert_int_equal(db_migrate(db, v2, &em), 0);
    db_close(db);
    buf_init(&file, 1u << 20);
    assert_int_equal(file_read(path, &file, NULL), 0);
    file.data[100] ^= 0xff; /* type of the schema's b-tree page */
    assert_int_equal(file_write_atomic(path, buf_blob(&file), 0600, NULL), 0);
    buf_fini(&file);
    db = NULL;
    int rc = db_open(path, DB_DURABLE, &db, &em);
    if (rc == 0) {
        rc = db_migrate(db, v2, &em);
    }
    assert_int_equal(rc, -ERR_CORRUPT);
    if (db != NULL) {
        struct db_stmt *st = db_prepare(db, "SELECT i FROM a WHERE j = ?");
        db_bind_int(st, 1);
        assert_int_equal(db_step(st), -ERR_CORRUPT);
        db_done(st);
        st = db_prepare(db, "SELECT i FROM a WHERE j = ?");
        db_bind_text(st, "x");
        assert_int_equal(db_run(st), -ERR_CORRUPT);
    }
    db_close(db);
}

#define DB_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* Random keys make b-trees sort their pages, which is what db_pages.c is about; pages that a
 * rollback takes away must not come back with what they held. */
static void test_growth_that_is_rolled_back_leaves_no_pages_behind(void **state)
{
    (void)state;
    static const enum db_kind kinds[] = {DB_MEMORY, DB_DURABLE};
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        struct db *db = must_open(kinds[k]);
        must_exec(db, "CREATE TABLE t (a BLOB PRIMARY KEY NOT NULL, b INTEGER NOT NULL)");
        for (int64_t round = 0; round < 6; round++) {
            assert_int_equal(db_begin(db), 0);
            for (int64_t i = 0; i < 400; i++) {
                struct db_stmt *st = db_prepare(db, "INSERT INTO t VALUES (randomblob(90), ?)");
                db_bind_int(st, round);
                assert_int_equal(db_run(st), 0);
            }
            if (round % 2 == 0) {
                assert_int_equal(db_commit(db), 0);
            } else {
                db_rollback(db);
            }
            assert_int_equal(number(db, "SELECT count(*) AS v FROM t WHERE b % 2 = 1"), 0);
            assert_int_equal(number(db, "SELECT count(*) AS v FROM t"), 400 * (round / 2 + 1));
            assert_int_equal(number(db, "SELECT integrity_check = 'ok' AS v"
                                        " FROM pragma_integrity_check"),
                             1);
        }
        must_exec(db, "DELETE FROM t WHERE b <> 0; VACUUM;");
        assert_int_equal(number(db, "SELECT count(*) AS v FROM t"), 400);
        assert_int_equal(number(db, "SELECT freelist_count AS v FROM pragma_freelist_count"), 0);
        assert_int_equal(number(db, "SELECT integrity_check = 'ok' AS v"
                                    " FROM pragma_integrity_check"),
                         1);
        db_close(db);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DB_TEST(test_values_of_every_type_round_trip),
        DB_TEST(test_statement_is_kept_by_its_text),
        DB_TEST(test_misuse_ends_the_process),
        DB_TEST(test_errors_of_the_engine_are_returned),
        DB_TEST(test_transactions),
        DB_TEST(test_durable_file_is_private_and_has_one_user),
        DB_TEST(test_what_is_no_database_is_refused),
        DB_TEST(test_migrations_run_once_and_in_order),
        DB_TEST(test_newer_schema_is_refused),
        DB_TEST(test_failed_migration_leaves_the_version_before_it),
        DB_TEST(test_schema_that_lost_something_is_corrupt),
        DB_TEST(test_damaged_schema_page_is_an_error),
        DB_TEST(test_growth_that_is_rolled_back_leaves_no_pages_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
