#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static char *path;

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/rap-file-XXXXXX");
    assert_non_null(mkdtemp(dir));
    path = path_join(dir, "file");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlink(path);
    free(path);
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

static void assert_content(const char *want)
{
    struct buf b;
    buf_init(&b, 100);
    assert_int_equal(file_read(path, &b, NULL), 0);
    assert_string_equal(buf_cstr(&b), want);
    buf_fini(&b);
}

static void test_write_replaces_and_leaves_no_temporary_file(void **state)
{
    (void)state;
    char *tmp = xasprintf("%s.tmp", path);
    assert_false(file_exists(path));
    assert_int_equal(file_write_atomic(path, blob_str("one"), 0600, NULL), 0);
    assert_content("one");
    assert_int_equal(file_write_atomic(path, blob_str("two"), 0600, NULL), 0);
    assert_content("two");
    assert_int_equal(file_write_atomic(path, blob_of(NULL, 0), 0600, NULL), 0);
    assert_content("");
    assert_true(file_exists(path));
    assert_false(file_exists(tmp));
    free(tmp);
}

static void test_mode_is_exact_whatever_the_umask(void **state)
{
    (void)state;
    static const mode_t modes[] = {0600, 0644, 0400};
    static const mode_t masks[] = {0, 0022, 0777};
    for (size_t m = 0; m < ARRAY_SIZE(masks); m++) {
        for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
            struct stat st;
            mode_t old = umask(masks[m]);
            assert_int_equal(file_write_atomic(path, blob_str("x"), (int)modes[i], NULL), 0);
            (void)umask(old);
            assert_int_equal(stat(path, &st), 0);
            assert_int_equal(st.st_mode & 07777, modes[i]);
        }
    }
}

/* A temporary file left by a crash, or put there by somebody, is not written through. */
static void test_stale_temporary_file_is_replaced(void **state)
{
    (void)state;
    char *tmp = xasprintf("%s.tmp", path);
    char *target = path_join(dir, "target");
    struct stat st;
    assert_int_equal(symlink(target, tmp), 0);
    assert_int_equal(file_write_atomic(path, blob_str("x"), 0600, NULL), 0);
    assert_content("x");
    assert_false(file_exists(target));
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    free(target);
    free(tmp);
}

static void test_failed_write_keeps_the_old_content(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    char *below = path_join(path, "child");
    assert_int_equal(file_write_atomic(path, blob_str("old"), 0600, NULL), 0);
    assert_int_equal(file_write_atomic(below, blob_str("x"), 0600, &em), -ERR_IO);
    assert_non_null(strstr(em.text, below));
    /* A directory in its place: the rename fails at the very end. */
    char *sub = path_join(dir, "sub");
    char *sub_tmp = path_join(dir, "sub.tmp");
    assert_int_equal(mkdir(sub, 0700), 0);
    assert_int_equal(file_write_atomic(sub, blob_str("x"), 0600, &em), -ERR_IO);
    assert_false(file_exists(sub_tmp));
    assert_int_equal(rmdir(sub), 0);
    assert_content("old");
    free(sub_tmp);
    free(sub);
    free(below);
}

static void test_read_tells_absent_from_large(void **state)
{
    (void)state;
    struct buf b;
    struct errmsg em = ERRMSG_INIT;
    buf_init(&b, 5);
    assert_int_equal(file_read(path, &b, &em), -ERR_NOT_FOUND);
    assert_int_equal(file_write_atomic(path, blob_str("12345"), 0600, NULL), 0);
    assert_int_equal(file_read(path, &b, &em), 0);
    buf_fini(&b);
    assert_int_equal(file_write_atomic(path, blob_str("123456"), 0600, NULL), 0);
    assert_int_equal(file_read(path, &b, &em), -ERR_TOO_LARGE);
    assert_non_null(strstr(em.text, "larger than 5 bytes"));
    buf_fini(&b);
    assert_int_equal(file_read(dir, &b, &em), -ERR_IO);
    buf_fini(&b);
}

static void test_large_file_is_read_whole(void **state)
{
    (void)state;
    size_t len = 100000;
    uint8_t *data = xmalloc(len);
    struct buf b;
    for (size_t i = 0; i < len; i++) {
        data[i] = (uint8_t)(i >> 3);
    }
    buf_init(&b, len);
    assert_int_equal(file_write_atomic(path, blob_of(data, len), 0600, NULL), 0);
    assert_int_equal(file_read(path, &b, NULL), 0);
    assert_true(blob_equal(buf_blob(&b), blob_of(data, len)));
    buf_fini(&b);
    free(data);
}

static void test_mkdirs(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    struct stat st;
    char *a = path_join(dir, "a");
    char *ab = path_join(dir, "a/b");
    char *abc = path_join(dir, "a//b/c/");
    char *clean = path_join(dir, "a/b/c");
    assert_int_equal(file_mkdirs(abc, &em), 0);
    assert_int_equal(stat(ab, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(file_mkdirs(abc, &em), 0);
    assert_int_equal(file_mkdirs("/", &em), 0);
    assert_int_equal(file_mkdirs("", &em), -ERR_INVALID);
    assert_int_equal(rmdir(clean), 0);
    assert_int_equal(rmdir(ab), 0);
    assert_int_equal(rmdir(a), 0);
    /* A file is no directory, at the end or on the way. */
    assert_int_equal(file_write_atomic(path, blob_str("x"), 0600, NULL), 0);
    char *below = path_join(path, "d");
    assert_int_equal(file_mkdirs(path, &em), -ERR_IO);
    assert_int_equal(file_mkdirs(below, &em), -ERR_IO);
    free(below);
    free(clean);
    free(abc);
    free(ab);
    free(a);
}

static void test_lock_holds_until_closed(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    int fd = -1;
    int other = -1;
    assert_int_equal(file_lock(path, &fd, &em), 0);
    assert_int_equal(file_lock(path, &other, &em), -ERR_BUSY);
    assert_int_equal(other, -1);
    assert_non_null(strstr(em.text, path));
    /* Another process is refused, and its coming and going changes nothing. */
    pid_t pid = fork();
    if (pid == 0) {
        int mine = -1;
        _exit(file_lock(path, &mine, NULL) == -ERR_BUSY ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(file_lock(path, &other, &em), -ERR_BUSY);
    assert_int_equal(close(fd), 0);
    assert_int_equal(file_lock(path, &other, &em), 0);
    assert_int_equal(close(other), 0);
}

#define FILE_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(test_write_replaces_and_leaves_no_temporary_file),
        FILE_TEST(test_mode_is_exact_whatever_the_umask),
        FILE_TEST(test_stale_temporary_file_is_replaced),
        FILE_TEST(test_failed_write_keeps_the_old_content),
        FILE_TEST(test_read_tells_absent_from_large),
        FILE_TEST(test_large_file_is_read_whole),
        FILE_TEST(test_mkdirs),
        FILE_TEST(test_lock_holds_until_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
