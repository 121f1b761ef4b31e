/* raft.db after kill -9 and after damage: what was acknowledged is there, and what does not verify is
 * named, never dropped (S2, S22). */
#include "authority/raft_log.h"

#include "base/file.h"
#include "lib/raft_log_fixture.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Opens and loads; the error, or 0. */
static int try_load(struct rlog_world *w, struct raft_store_loaded *l, struct errmsg *em)
{
    *l = (struct raft_store_loaded){0};
    int rc = raft_log_open(&w->loop, w->path, &w->s, em);
    if (rc == 0) {
        w->closed = false;
        rc = w->s->ops->load(w->s, l, em);
        rlog_close(w);
    }
    return rc;
}

/* S22: a changed or missing row is found and named, wherever it is. */
static void test_damaged_row_is_named(void **state)
{
    static const struct {
        const char *sql;
        const char *table;
        int index;
    } cases[] = {
        {"UPDATE hard_state SET term = term + 1", "hard_state", 1},
        {"UPDATE hard_state SET vote = 2", "hard_state", 1},
        {"UPDATE hard_state SET first_index = 71", "hard_state", 1},
        {"UPDATE hard_state SET last_index = 99", "hard_state", 1},
        {"UPDATE hard_state SET crc = crc + 1", "hard_state", 1},
        {"DELETE FROM hard_state", "hard_state", 1},
        {"UPDATE log_entries SET term = 0 WHERE log_index = 80", "log_entries", 80},
        {"UPDATE log_entries SET type = 2 WHERE log_index = 81", "log_entries", 81},
        {"UPDATE log_entries SET type = type + 65536 WHERE log_index = 81", "log_entries", 81},
        {"UPDATE log_entries SET data = x'00' WHERE log_index = 82", "log_entries", 82},
        {"UPDATE log_entries SET data = CAST(data || x'00' AS BLOB) WHERE log_index = 82",
         "log_entries", 82},
        {"UPDATE log_entries SET crc = crc + 4294967296 WHERE log_index = 83", "log_entries", 83},
        {"DELETE FROM log_entries WHERE log_index = 70", "log_entries", 70},
        {"DELETE FROM log_entries WHERE log_index = 85", "log_entries", 85},
        {"DELETE FROM log_entries WHERE log_index = 100", "log_entries", 100},
        {"DELETE FROM log_entries", "log_entries", 70},
        {"UPDATE log_entries SET log_index = 101 WHERE log_index = 100", "log_entries", 100},
        {"INSERT INTO log_entries SELECT 101, term, type, data, crc FROM log_entries"
         " WHERE log_index = 100",
         "log_entries", 101},
        {"UPDATE snapshots SET image = x'00'", "snapshots", 90},
        {"UPDATE snapshots SET conf = x'00'", "snapshots", 90},
        {"UPDATE snapshots SET term = 2", "snapshots", 90},
        {"UPDATE snapshots SET conf_index = 2", "snapshots", 90},
        {"UPDATE snapshots SET image_size = 1 << 40", "snapshots", 90},
        {"UPDATE snapshots SET log_index = 91", "snapshots", 91},
        {"UPDATE snapshots SET sha256 = x''", "snapshots", 90},
        {"UPDATE snapshots SET image = x'00'", "snapshots", 90},
        {"UPDATE snapshot_parts SET data = x'00'", "snapshots", 90},
        {"UPDATE snapshot_parts SET part = 1", "snapshot_parts", 90},
        {"INSERT INTO snapshot_parts VALUES (90, 1, x'00')", "snapshots", 90},
        {"DELETE FROM snapshot_parts", "snapshots", 90},
        {"DELETE FROM snapshots", "snapshots", 0},
    };
    struct rlog_world *w = *state;
    sync_gate_skip();
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        rlog_make(w, 100);
        rlog_open(w);
        rlog_put_snapshot(w, 90, 20, "image");
        rlog_close(w);
        rlog_raw_sql(w, cases[i].sql);
        struct errmsg em = ERRMSG_INIT;
        struct raft_store_loaded l;
        int rc = try_load(w, &l, &em);
        if (rc != -ERR_CORRUPT) {
            fail_msg("%s: rc %d", cases[i].sql, rc);
        }
        char want[64];
        (void)snprintf(want, sizeof want, "table %s, index %d:", cases[i].table, cases[i].index);
        if (strstr(em.text, want) == NULL) {
            fail_msg("%s: \"%s\" does not name %s", cases[i].sql, em.text, want);
        }
        rlog_remove_files(w);
    }
}

/* Flips bytes of the file itself: either all is as it was, or the log says it is damaged. */
static void test_flipped_byte_in_the_file_never_changes_the_log(void **state)
{
    struct rlog_world *w = *state;
    sync_gate_skip();
    rlog_make(w, 60);
    rlog_open(w);
    rlog_put_snapshot(w, 50, 20, "image");
    rlog_close(w);
    struct buf whole;
    buf_init(&whole, 1u << 20);
    assert_int_equal(file_read(w->path, &whole, NULL), 0);
    unsigned found = 0;
    unsigned harmless = 0;
    for (size_t at = 0; at < whole.len; at += at < 256 ? 1 : 31) {
        whole.data[at] ^= 0x11;
        rlog_remove_files(w);
        assert_int_equal(file_write_atomic(w->path, buf_blob(&whole), 0600, NULL), 0);
        whole.data[at] ^= 0x11;
        struct errmsg em = ERRMSG_INIT;
        struct raft_store_loaded l;
        int rc = try_load(w, &l, &em);
        if (rc == 0) {
            assert_int_equal(l.term, 1);
            assert_int_equal(l.snapshot_index, 50);
            rlog_assert_image(&l, blob_str("image"));
            rlog_assert_entries(&l, 30, 60, 1);
            raft_store_loaded_fini(&l);
            harmless++;
        } else {
            if (rc != -ERR_CORRUPT && rc != -ERR_SCHEMA && rc != -ERR_IO) {
                fail_msg("offset %zu: rc %d, %s", at, rc, em.text);
            }
            found++;
        }
    }
    buf_fini(&whole);
    assert_true(found > 50);
    assert_true(harmless > 50); /* free space of pages: the test does reach both sides */
}

static void test_file_that_is_no_database_is_refused(void **state)
{
    struct rlog_world *w = *state;
    char text[8192];
    memset(text, 'x', sizeof text);
    assert_int_equal(file_write_atomic(w->path, blob_of(text, sizeof text), 0600, NULL), 0);
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(raft_log_open(&w->loop, w->path, &w->s, &em), -ERR_CORRUPT);
    w->s = NULL;
}

/* --- kill -9 --- */

struct killed {
    struct rlog_world *w;
    int pipe_fd;
    uint64_t next;
};

static struct killed killed;

static void killed_append(void);

static void killed_acked(void *data, int rc)
{
    uint64_t index = (uint64_t)(uintptr_t)data;
    if (rc != 0 || write(killed.pipe_fd, &index, sizeof index) != sizeof index) {
        _exit(2);
    }
    killed_append();
}

static void killed_append(void)
{
    uint64_t index = killed.next++;
    struct raft_store_entry e = {
        .index = index, .term = 1, .type = RAFT_COMMAND, .data = rlog_entry_data(index % 4000, 1)};
    killed.w->s->ops->append(killed.w->s, &e, 1, killed_acked, (void *)(uintptr_t)index);
}

/* Appends until it is killed, reporting every acknowledged index; never returns. */
static void killed_child(struct rlog_world *w, int pipe_fd, uint64_t first)
{
    killed = (struct killed){.w = w, .pipe_fd = pipe_fd, .next = first};
    (void)uv_loop_fork(&w->loop);
    rlog_open(w);
    for (int i = 0; i < 8; i++) {
        killed_append();
    }
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    _exit(3);
}

/* S2 on one machine: what was acknowledged is there after kill -9, again and again. */
static void test_acknowledged_entries_survive_kill_9(void **state)
{
    struct rlog_world *w = *state;
    uint64_t acked = 0;
    rlog_open(w);
    rlog_set_term(w, 1);
    rlog_close(w);
    for (unsigned round = 0; round < 25; round++) {
        rlog_open(w);
        struct raft_store_loaded l = rlog_load(w);
        rlog_close(w);
        uint64_t last = l.entries_count;
        assert_true(last >= acked);
        for (size_t i = 0; i < l.entries_count; i++) {
            assert_int_equal(l.entries[i].index, i + 1);
            assert_true(blob_equal(l.entries[i].data, rlog_entry_data((i + 1) % 4000, 1)));
        }
        raft_store_loaded_fini(&l);

        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0) {
            (void)close(fds[0]);
            killed_child(w, fds[1], last + 1);
        }
        (void)close(fds[1]);
        /* A different number of acknowledgements each round, then the axe; what is still in the
         * pipe was acknowledged too. */
        uint64_t index;
        for (unsigned n = 0; n < 5 + 13 * (round % 7); n++) {
            assert_int_equal(read(fds[0], &index, sizeof index), sizeof index);
            acked = index;
        }
        assert_int_equal(kill(pid, SIGKILL), 0);
        while (read(fds[0], &index, sizeof index) == sizeof index) {
            acked = index;
        }
        (void)close(fds[0]);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
    }
    assert_true(acked > 25 * 5);
}

/* A log of entries 1..count, one transaction each, as kill -9 leaves it: all in the WAL. */
static void make_log_and_kill(struct rlog_world *w, uint64_t count)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)uv_loop_fork(&w->loop);
        rlog_open(w);
        rlog_set_term(w, 1);
        for (uint64_t i = 1; i <= count; i++) {
            rlog_append_range(w, i, i);
        }
        (void)kill(getpid(), SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

/* S22 for what SQLite itself would drop: a flipped bit in the WAL ends it there, and acknowledged
 * entries with it. Only the last transaction can pass for a torn write. */
static void test_flipped_byte_in_the_wal_is_never_a_shorter_log(void **state)
{
    struct rlog_world *w = *state;
    sync_gate_skip();
    make_log_and_kill(w, 12);
    char *wal_path = xasprintf("%s-wal", w->path);
    struct buf db;
    struct buf wal;
    buf_init(&db, 4u << 20);
    buf_init(&wal, 4u << 20);
    assert_int_equal(file_read(w->path, &db, NULL), 0);
    assert_int_equal(file_read(wal_path, &wal, NULL), 0);
    unsigned found = 0;
    unsigned shorter = 0;
    for (size_t at = 0; at < wal.len; at += at < 120 ? 1 : 173) {
        wal.data[at] ^= 0x20;
        rlog_remove_files(w);
        assert_int_equal(file_write_atomic(w->path, buf_blob(&db), 0600, NULL), 0);
        assert_int_equal(file_write_atomic(wal_path, buf_blob(&wal), 0600, NULL), 0);
        wal.data[at] ^= 0x20;
        /* Twice: refusing must not repair. */
        int rc[2];
        for (int i = 0; i < 2; i++) {
            struct errmsg em = ERRMSG_INIT;
            struct raft_store_loaded l;
            rc[i] = try_load(w, &l, &em);
            if (rc[i] == 0) {
                if (l.entries_count < 11) {
                    fail_msg("offset %zu: %zu entries are left", at, l.entries_count);
                }
                shorter += i == 0 && l.entries_count == 11;
                rlog_assert_entries(&l, 1, l.entries_count, 1);
                raft_store_loaded_fini(&l);
            } else {
                assert_int_equal(rc[i], -ERR_CORRUPT);
                found += i == 0;
            }
        }
        assert_int_equal(rc[0], rc[1]);
    }
    assert_true(found > 100);
    assert_in_range(shorter, 1, found / 5);
    buf_fini(&db);
    buf_fini(&wal);
    free(wal_path);
}

/* A power cut while the last transaction is written: no entry that was acknowledged is missing, and
 * the log opens. */
static void test_torn_tail_of_the_wal_is_no_damage(void **state)
{
    struct rlog_world *w = *state;
    sync_gate_skip();
    make_log_and_kill(w, 12);
    char *wal_path = xasprintf("%s-wal", w->path);
    struct buf db;
    struct buf wal;
    buf_init(&db, 4u << 20);
    buf_init(&wal, 4u << 20);
    assert_int_equal(file_read(w->path, &db, NULL), 0);
    assert_int_equal(file_read(wal_path, &wal, NULL), 0);
    for (size_t cut = wal.len; cut > wal.len - 5000 && cut > 0; cut -= 97) {
        rlog_remove_files(w);
        assert_int_equal(file_write_atomic(w->path, buf_blob(&db), 0600, NULL), 0);
        assert_int_equal(file_write_atomic(wal_path, blob_of(wal.data, cut), 0600, NULL), 0);
        struct errmsg em = ERRMSG_INIT;
        struct raft_store_loaded l;
        if (try_load(w, &l, &em) != 0) {
            fail_msg("cut at %zu: %s", cut, em.text);
        }
        assert_true(l.entries_count >= 11);
        rlog_assert_entries(&l, 1, l.entries_count, 1);
        raft_store_loaded_fini(&l);
    }
    buf_fini(&db);
    buf_fini(&wal);
    free(wal_path);
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, rlog_set_up, rlog_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_damaged_row_is_named),
        LOG_TEST(test_flipped_byte_in_the_file_never_changes_the_log),
        LOG_TEST(test_file_that_is_no_database_is_refused),
        LOG_TEST(test_acknowledged_entries_survive_kill_9),
        LOG_TEST(test_flipped_byte_in_the_wal_is_never_a_shorter_log),
        LOG_TEST(test_torn_tail_of_the_wal_is_no_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
