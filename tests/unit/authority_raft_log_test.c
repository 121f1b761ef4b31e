/* raft.db as the durable half of Raft: what was acknowledged is there again, whatever happened in
 * between, and what is damaged is named instead of dropped (S2, S22). */
#include "authority/raft_log.h"

#include "base/file.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

/* --- the disk, seen from SQLite: its syncs are counted, held up or failed here --- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count;
    bool hold;    /* syncs wait */
    bool waiting; /* one does */
    bool fail;
    bool skip;    /* pretend: for tests that never crash and open thousands of files */
} sync_gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int on_sync(int fd)
{
    (void)pthread_mutex_lock(&sync_gate.lock);
    sync_gate.count++;
    sync_gate.waiting = true;
    (void)pthread_cond_broadcast(&sync_gate.changed);
    while (sync_gate.hold) {
        (void)pthread_cond_wait(&sync_gate.changed, &sync_gate.lock);
    }
    sync_gate.waiting = false;
    bool fail = sync_gate.fail;
    bool skip = sync_gate.skip;
    (void)pthread_mutex_unlock(&sync_gate.lock);
    if (fail) {
        errno = EIO;
        return -1;
    }
    return skip ? 0 : (int)syscall(SYS_fdatasync, fd);
}

/* These take the place of libc's for everything in this process, libsqlite3 included. */
int fdatasync(int fd)
{
    return on_sync(fd);
}

int fsync(int fd)
{
    return on_sync(fd);
}

static void gate_set(bool hold, bool fail)
{
    (void)pthread_mutex_lock(&sync_gate.lock);
    sync_gate.hold = hold;
    sync_gate.fail = fail;
    (void)pthread_cond_broadcast(&sync_gate.changed);
    (void)pthread_mutex_unlock(&sync_gate.lock);
}

static void gate_wait_until_held(void)
{
    (void)pthread_mutex_lock(&sync_gate.lock);
    while (!sync_gate.waiting) {
        (void)pthread_cond_wait(&sync_gate.changed, &sync_gate.lock);
    }
    (void)pthread_mutex_unlock(&sync_gate.lock);
}

static unsigned gate_count(void)
{
    (void)pthread_mutex_lock(&sync_gate.lock);
    unsigned n = sync_gate.count;
    (void)pthread_mutex_unlock(&sync_gate.lock);
    return n;
}

/* --- fixture --- */

struct world {
    char dir[64];
    char path[80];
    uv_loop_t loop;
    struct raft_store *s;
    bool closed;
    unsigned done;    /* callbacks that ran */
    int last_rc;      /* of the last one */
    unsigned failed;
};

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/rap-raft-log-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    (void)snprintf(w->path, sizeof w->path, "%s/raft.db", w->dir);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    gate_set(false, false);
    *state = w;
    return 0;
}

static void remove_db(const struct world *w)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        char *p = xasprintf("%s%s", w->path, suffixes[i]);
        (void)unlink(p);
        free(p);
    }
}

static int tear_down(void **state)
{
    struct world *w = *state;
    gate_set(false, false);
    sync_gate.skip = false;
    assert_null(w->s);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    remove_db(w);
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

static void open_log(struct world *w)
{
    struct errmsg em = ERRMSG_INIT;
    int rc = raft_log_open(&w->loop, w->path, &w->s, &em);
    if (rc != 0) {
        fail_msg("open: %s", em.text);
    }
    w->closed = false;
}

static void on_closed(void *data)
{
    struct world *w = data;
    w->closed = true;
}

static void run_until_closed(struct world *w)
{
    while (!w->closed) {
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    }
    w->s = NULL;
}

static void close_log(struct world *w)
{
    w->s->ops->close(w->s, on_closed, w);
    run_until_closed(w);
}

static void on_done(void *data, int rc)
{
    struct world *w = data;
    w->done++;
    w->last_rc = rc;
    w->failed += rc != 0;
}

static void run_until_done(struct world *w, unsigned count)
{
    while (w->done < count) {
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    }
}

/* The data of every entry tells its index. */
static struct blob entry_data(uint64_t index, uint64_t term)
{
    static char text[64];
    static struct blob kept[4096];
    if (index < ARRAY_SIZE(kept) && term == 1) {
        if (kept[index].data == NULL) {
            char *p = xasprintf("entry %llu of term 1", (unsigned long long)index);
            kept[index] = blob_str(p);
        }
        return kept[index];
    }
    (void)snprintf(text, sizeof text, "entry %llu of term %llu", (unsigned long long)index,
                   (unsigned long long)term);
    return blob_str(text);
}

static void append(struct world *w, uint64_t index, uint64_t term)
{
    struct raft_store_entry e = {.index = index, .term = term, .type = RAFT_COMMAND,
                                 .data = entry_data(index, term)};
    w->s->ops->append(w->s, &e, 1, on_done, w);
}

static void append_range(struct world *w, uint64_t first, uint64_t last)
{
    unsigned before = w->done;
    for (uint64_t i = first; i <= last; i++) {
        append(w, i, 1);
    }
    run_until_done(w, before + (unsigned)(last - first + 1));
    assert_int_equal(w->failed, 0);
}

static void set_term(struct world *w, uint64_t term)
{
    struct errmsg em = ERRMSG_INIT;
    if (w->s->ops->set_term(w->s, term, &em) != 0) {
        fail_msg("set_term: %s", em.text);
    }
}

static struct raft_store_loaded load(struct world *w)
{
    struct errmsg em = ERRMSG_INIT;
    struct raft_store_loaded l;
    if (w->s->ops->load(w->s, &l, &em) != 0) {
        fail_msg("load: %s", em.text);
    }
    return l;
}

static void assert_entries(const struct raft_store_loaded *l, uint64_t first, uint64_t last,
                           uint64_t term)
{
    assert_int_equal(l->entries_count, last + 1 - first);
    for (size_t i = 0; i < l->entries_count; i++) {
        const struct raft_store_entry *e = &l->entries[i];
        assert_int_equal(e->index, first + i);
        assert_int_equal(e->term, term);
        assert_int_equal(e->type, RAFT_COMMAND);
        assert_true(blob_equal(e->data, entry_data(first + i, term)));
    }
}

/* A log of term 1 with entries 1..last, closed. */
static void make_log(struct world *w, uint64_t last)
{
    open_log(w);
    set_term(w, 1);
    append_range(w, 1, last);
    close_log(w);
}

static void put_snapshot(struct world *w, uint64_t index, unsigned trailing, const char *image)
{
    unsigned before = w->done;
    w->s->ops->put_snapshot(w->s, index, 1, 1, blob_str("conf"), blob_str(image), trailing, on_done,
                            w);
    run_until_done(w, before + 1);
    assert_int_equal(w->last_rc, 0);
}

/* SQL behind the back of the log, while it is closed. */
static void raw_sql(struct world *w, const char *sql)
{
    sqlite3 *db;
    char *why = NULL;
    assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK) {
        fail_msg("%s: %s", sql, why);
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* --- tests --- */

static void test_new_log_is_empty(void **state)
{
    struct world *w = *state;
    open_log(w);
    struct raft_store_loaded l = load(w);
    assert_int_equal(l.term, 0);
    assert_int_equal(l.vote, 0);
    assert_false(l.has_snapshot);
    assert_int_equal(l.entries_count, 0);
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_entries_are_there_after_reopen(void **state)
{
    struct world *w = *state;
    make_log(w, 100);
    open_log(w);
    struct raft_store_loaded l = load(w);
    assert_int_equal(l.term, 1);
    assert_entries(&l, 1, 100, 1);
    raft_store_loaded_fini(&l);
    append_range(w, 101, 110);
    close_log(w);
    open_log(w);
    l = load(w);
    assert_entries(&l, 1, 110, 1);
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_appends_queued_during_a_sync_share_the_next_one(void **state)
{
    struct world *w = *state;
    open_log(w);
    set_term(w, 1);
    append_range(w, 1, 1); /* the WAL has its header now: a commit is one sync from here on */
    unsigned before = gate_count();
    append_range(w, 2, 2);
    assert_int_equal(gate_count() - before, 1);
    w->done = 0;

    before = gate_count();
    gate_set(true, false);
    append(w, 3, 1);
    gate_wait_until_held();
    for (uint64_t i = 4; i <= 303; i++) {
        append(w, i, 1);
    }
    assert_int_equal(w->done, 0);
    gate_set(false, false);
    run_until_done(w, 301);
    assert_int_equal(gate_count() - before, 2);
    assert_int_equal(w->failed, 0);
    close_log(w);
}

static void test_nothing_is_acknowledged_before_its_sync_returns(void **state)
{
    struct world *w = *state;
    open_log(w);
    set_term(w, 1);
    gate_set(true, false);
    append(w, 1, 1);
    gate_wait_until_held();
    for (int turn = 0; turn < 10; turn++) {
        (void)uv_run(&w->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(w->done, 0);
    gate_set(false, false);
    run_until_done(w, 1);
    close_log(w);
}

static void test_truncate_then_append_replaces_the_tail(void **state)
{
    struct world *w = *state;
    make_log(w, 10);
    open_log(w);
    set_term(w, 2);
    w->s->ops->truncate(w->s, 6);
    struct raft_store_entry e[2] = {
        {.index = 6, .term = 2, .type = RAFT_BARRIER, .data = blob_of(NULL, 0)},
        {.index = 7, .term = 2, .type = RAFT_CHANGE, .data = blob_str("new seven")},
    };
    unsigned before = w->done;
    w->s->ops->append(w->s, e, 2, on_done, w);
    run_until_done(w, before + 1);
    assert_int_equal(w->last_rc, 0);
    close_log(w);
    open_log(w);
    struct raft_store_loaded l = load(w);
    assert_int_equal(l.entries_count, 7);
    assert_int_equal(l.entries[4].term, 1);
    assert_int_equal(l.entries[5].type, RAFT_BARRIER);
    assert_int_equal(l.entries[5].data.len, 0);
    assert_int_equal(l.entries[6].type, RAFT_CHANGE);
    assert_true(blob_equal(l.entries[6].data, blob_str("new seven")));
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_append_that_leaves_a_gap_is_refused(void **state)
{
    struct world *w = *state;
    open_log(w);
    set_term(w, 1);
    append_range(w, 1, 3);
    append(w, 5, 1);
    run_until_done(w, 4);
    assert_int_equal(w->last_rc, -ERR_INVALID);
    close_log(w);
    open_log(w);
    struct raft_store_loaded l = load(w);
    assert_entries(&l, 1, 3, 1);
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_own_snapshot_keeps_the_trailing_entries(void **state)
{
    struct world *w = *state;
    make_log(w, 100);
    open_log(w);
    put_snapshot(w, 90, 20, "image at ninety");
    append_range(w, 101, 105);
    close_log(w);
    open_log(w);
    struct raft_store_loaded l = load(w);
    assert_true(l.has_snapshot);
    assert_int_equal(l.snapshot_index, 90);
    assert_int_equal(l.snapshot_term, 1);
    assert_int_equal(l.snapshot_conf_index, 1);
    assert_true(blob_equal(buf_blob(&l.snapshot_conf), blob_str("conf")));
    assert_true(blob_equal(buf_blob(&l.snapshot_image), blob_str("image at ninety")));
    assert_entries(&l, 70, 105, 1);
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_received_snapshot_replaces_the_log(void **state)
{
    struct world *w = *state;
    make_log(w, 100);
    open_log(w);
    put_snapshot(w, 500, 0, "image at five hundred");
    append_range(w, 501, 502);
    close_log(w);
    open_log(w);
    struct raft_store_loaded l = load(w);
    assert_int_equal(l.snapshot_index, 500);
    assert_entries(&l, 501, 502, 1);
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_received_snapshot_drops_entries_beyond_it(void **state)
{
    struct world *w = *state;
    make_log(w, 100);
    open_log(w);
    put_snapshot(w, 50, 0, "image");
    append_range(w, 51, 51);
    struct raft_store_loaded l = load(w);
    assert_entries(&l, 51, 51, 1);
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_newer_snapshot_takes_the_place_of_the_older(void **state)
{
    struct world *w = *state;
    make_log(w, 100);
    open_log(w);
    put_snapshot(w, 40, 10, "old");
    put_snapshot(w, 80, 10, "new");
    struct raft_store_loaded l;
    unsigned before = w->done;
    w->s->ops->get_snapshot(w->s, &l, on_done, w);
    run_until_done(w, before + 1);
    assert_int_equal(w->last_rc, 0);
    assert_int_equal(l.snapshot_index, 80);
    assert_true(blob_equal(buf_blob(&l.snapshot_image), blob_str("new")));
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_large_image_comes_back_unchanged(void **state)
{
    struct world *w = *state;
    make_log(w, 10);
    open_log(w);
    size_t len = 3u << 20;
    uint8_t *image = xmalloc(len);
    for (size_t i = 0; i < len; i++) {
        image[i] = (uint8_t)(i * i >> 7);
    }
    unsigned before = w->done;
    w->s->ops->put_snapshot(w->s, 10, 1, 1, blob_str("c"), blob_of(image, len), 5, on_done, w);
    run_until_done(w, before + 1);
    assert_int_equal(w->last_rc, 0);
    struct raft_store_loaded l = load(w);
    assert_true(blob_equal(buf_blob(&l.snapshot_image), blob_of(image, len)));
    raft_store_loaded_fini(&l);
    free(image);
    close_log(w);
}

static void test_term_and_vote_survive(void **state)
{
    struct world *w = *state;
    struct errmsg em = ERRMSG_INIT;
    open_log(w);
    set_term(w, 7);
    assert_int_equal(w->s->ops->set_vote(w->s, 3, &em), 0);
    close_log(w);
    open_log(w);
    struct raft_store_loaded l = load(w);
    assert_int_equal(l.term, 7);
    assert_int_equal(l.vote, 3);
    raft_store_loaded_fini(&l);
    set_term(w, 7); /* G6: the same term again must not forget the vote */
    l = load(w);
    assert_int_equal(l.vote, 3);
    raft_store_loaded_fini(&l);
    set_term(w, 8);
    close_log(w);
    open_log(w);
    l = load(w);
    assert_int_equal(l.term, 8);
    assert_int_equal(l.vote, 0);
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_term_that_falls_is_refused(void **state)
{
    struct world *w = *state;
    struct errmsg em = ERRMSG_INIT;
    open_log(w);
    set_term(w, 7);
    assert_int_equal(w->s->ops->set_term(w->s, 6, &em), -ERR_INVALID);
    close_log(w);
}

static void test_set_term_waits_for_appends_before_it(void **state)
{
    struct world *w = *state;
    open_log(w);
    set_term(w, 1);
    for (uint64_t i = 1; i <= 50; i++) {
        append(w, i, 1);
    }
    set_term(w, 2);
    struct raft_store_loaded l = load(w);
    assert_entries(&l, 1, 50, 1);
    raft_store_loaded_fini(&l);
    assert_int_equal(w->done, 0); /* callbacks only ever run from the loop */
    run_until_done(w, 50);
    close_log(w);
}

static void test_second_process_is_refused(void **state)
{
    struct world *w = *state;
    open_log(w);
    pid_t pid = fork();
    if (pid == 0) {
        uv_loop_t loop;
        struct raft_store *s;
        (void)uv_loop_init(&loop);
        _exit(raft_log_open(&loop, w->path, &s, NULL) == -ERR_BUSY ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close_log(w);
}

static void test_newer_schema_is_refused(void **state)
{
    struct world *w = *state;
    make_log(w, 3);
    raw_sql(w, "PRAGMA user_version = 2");
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(raft_log_open(&w->loop, w->path, &w->s, &em), -ERR_SCHEMA);
}

/* Opens and loads; the error, or 0. */
static int try_load(struct world *w, struct raft_store_loaded *l, struct errmsg *em)
{
    *l = (struct raft_store_loaded){0};
    int rc = raft_log_open(&w->loop, w->path, &w->s, em);
    if (rc == 0) {
        w->closed = false;
        rc = w->s->ops->load(w->s, l, em);
        close_log(w);
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
        {"UPDATE log_entries SET data = CAST(data || x'00' AS BLOB) WHERE log_index = 82", "log_entries", 82},
        {"UPDATE log_entries SET crc = crc + 4294967296 WHERE log_index = 83", "log_entries", 83},
        {"DELETE FROM log_entries WHERE log_index = 70", "log_entries", 70},
        {"DELETE FROM log_entries WHERE log_index = 85", "log_entries", 85},
        {"DELETE FROM log_entries WHERE log_index = 100", "log_entries", 100},
        {"DELETE FROM log_entries", "log_entries", 70},
        {"UPDATE log_entries SET log_index = 101 WHERE log_index = 100", "log_entries", 100},
        {"INSERT INTO log_entries SELECT 101, term, type, data, crc FROM log_entries"
         " WHERE log_index = 100", "log_entries", 101},
        {"UPDATE snapshots SET image = x'00'", "snapshots", 90},
        {"UPDATE snapshots SET conf = x'00'", "snapshots", 90},
        {"UPDATE snapshots SET term = 2", "snapshots", 90},
        {"UPDATE snapshots SET conf_index = 2", "snapshots", 90},
        {"UPDATE snapshots SET image_size = 1 << 40", "snapshots", 90},
        {"UPDATE snapshots SET log_index = 91", "snapshots", 91},
        {"UPDATE snapshots SET sha256 = x''", "snapshots", 90},
        {"DELETE FROM snapshots", "snapshots", 0},
    };
    struct world *w = *state;
    sync_gate.skip = true;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        make_log(w, 100);
        open_log(w);
        put_snapshot(w, 90, 20, "image");
        close_log(w);
        raw_sql(w, cases[i].sql);
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
        remove_db(w);
    }
}

/* Flips bytes of the file itself: either all is as it was, or the log says it is damaged. */
static void test_flipped_byte_in_the_file_never_changes_the_log(void **state)
{
    struct world *w = *state;
    sync_gate.skip = true;
    make_log(w, 60);
    open_log(w);
    put_snapshot(w, 50, 20, "image");
    close_log(w);
    struct buf whole;
    buf_init(&whole, 1u << 20);
    assert_int_equal(file_read(w->path, &whole, NULL), 0);
    unsigned found = 0;
    unsigned harmless = 0;
    for (size_t at = 0; at < whole.len; at += at < 256 ? 1 : 31) {
        whole.data[at] ^= 0x11;
        remove_db(w);
        assert_int_equal(file_write_atomic(w->path, buf_blob(&whole), 0600, NULL), 0);
        whole.data[at] ^= 0x11;
        struct errmsg em = ERRMSG_INIT;
        struct raft_store_loaded l;
        int rc = try_load(w, &l, &em);
        if (rc == 0) {
            assert_int_equal(l.term, 1);
            assert_int_equal(l.snapshot_index, 50);
            assert_true(blob_equal(buf_blob(&l.snapshot_image), blob_str("image")));
            assert_entries(&l, 30, 60, 1);
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
    struct world *w = *state;
    char text[8192];
    memset(text, 'x', sizeof text);
    assert_int_equal(file_write_atomic(w->path, blob_of(text, sizeof text), 0600, NULL), 0);
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(raft_log_open(&w->loop, w->path, &w->s, &em), -ERR_CORRUPT);
    w->s = NULL;
}

/* S22: after a failed sync nothing is acknowledged any more, and nothing is tried. */
static void test_failed_sync_fails_everything_after_it(void **state)
{
    struct world *w = *state;
    open_log(w);
    set_term(w, 1);
    append_range(w, 1, 5);
    gate_set(false, true);
    append(w, 6, 1);
    run_until_done(w, 6);
    assert_int_equal(w->last_rc, -ERR_IO);
    gate_set(false, false);
    unsigned before = gate_count();
    append(w, 7, 1);
    run_until_done(w, 7);
    assert_int_equal(w->last_rc, -ERR_IO);
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(w->s->ops->set_term(w->s, 2, &em), -ERR_IO);
    assert_int_equal(w->s->ops->set_vote(w->s, 1, &em), -ERR_IO);
    assert_int_equal(gate_count(), before);
    close_log(w);
    open_log(w);
    struct raft_store_loaded l = load(w);
    assert_int_equal(l.term, 1);
    assert_true(l.entries_count == 5 || l.entries_count == 6);
    assert_entries(&l, 1, l.entries_count, 1);
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_close_completes_pending_jobs_first(void **state)
{
    struct world *w = *state;
    open_log(w);
    set_term(w, 1);
    gate_set(true, false);
    for (uint64_t i = 1; i <= 200; i++) {
        append(w, i, 1);
    }
    w->s->ops->put_snapshot(w->s, 150, 1, 1, blob_str("c"), blob_str("i"), 100, on_done, w);
    w->s->ops->close(w->s, on_closed, w);
    append(w, 201, 1); /* too late: canceled */
    gate_set(false, false);
    run_until_closed(w);
    assert_int_equal(w->done, 202);
    assert_int_equal(w->failed, 1);
    open_log(w);
    struct raft_store_loaded l = load(w);
    assert_entries(&l, 50, 200, 1);
    assert_int_equal(l.snapshot_index, 150);
    raft_store_loaded_fini(&l);
    close_log(w);
}

static void test_calls_during_close_are_canceled(void **state)
{
    struct world *w = *state;
    open_log(w);
    struct errmsg em = ERRMSG_INIT;
    struct raft_store_loaded l;
    w->s->ops->close(w->s, on_closed, w);
    assert_int_equal(w->s->ops->set_term(w->s, 1, &em), -ERR_CANCELED);
    append(w, 1, 1);
    w->s->ops->get_snapshot(w->s, &l, on_done, w);
    run_until_closed(w);
    assert_int_equal(w->done, 2);
    assert_int_equal(w->last_rc, -ERR_CANCELED);
}

static void test_bootstrap_writes_what_libraft_can_read(void **state)
{
    struct world *w = *state;
    struct errmsg em = ERRMSG_INIT;
    const struct raft_log_bootstrap b = {
        .id = 1, .address = "10.0.0.1:7400", .command = blob_str("first command")};
    assert_int_equal(raft_log_bootstrap(w->path, &b, &em), 0);
    open_log(w);
    struct raft_store_loaded l = load(w);
    assert_int_equal(l.term, 1);
    assert_int_equal(l.vote, 0);
    assert_int_equal(l.entries_count, 2);
    assert_int_equal(l.entries[0].type, RAFT_CHANGE);
    assert_int_equal(l.entries[0].term, 1);
    assert_int_equal(l.entries[0].data.len % 8, 0);
    struct raft_configuration conf;
    struct raft_buffer raw = {.base = (void *)(uintptr_t)l.entries[0].data.data,
                              .len = l.entries[0].data.len};
    raft_configuration_init(&conf);
    assert_int_equal(raft_configuration_decode(&raw, &conf), 0);
    assert_int_equal(conf.n, 1);
    assert_int_equal(conf.servers[0].id, 1);
    assert_int_equal(conf.servers[0].role, RAFT_VOTER);
    assert_string_equal(conf.servers[0].address, "10.0.0.1:7400");
    raft_configuration_close(&conf);
    assert_int_equal(l.entries[1].type, RAFT_COMMAND);
    assert_int_equal(l.entries[1].term, 1);
    assert_true(blob_equal(l.entries[1].data, blob_of("first command\0\0\0", 16)));
    raft_store_loaded_fini(&l);
    close_log(w);
    assert_int_equal(raft_log_bootstrap(w->path, &b, &em), -ERR_EXISTS);
}

/* --- kill -9 --- */

struct killed {
    struct world *w;
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
    struct raft_store_entry e = {.index = index, .term = 1, .type = RAFT_COMMAND,
                                 .data = entry_data(index % 4000, 1)};
    killed.w->s->ops->append(killed.w->s, &e, 1, killed_acked, (void *)(uintptr_t)index);
}

/* Appends until it is killed, reporting every acknowledged index; never returns. */
static void killed_child(struct world *w, int pipe_fd, uint64_t first)
{
    killed = (struct killed){.w = w, .pipe_fd = pipe_fd, .next = first};
    (void)uv_loop_fork(&w->loop);
    open_log(w);
    for (int i = 0; i < 8; i++) {
        killed_append();
    }
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
    _exit(3);
}

/* S2 on one machine: what was acknowledged is there after kill -9, again and again. */
static void test_acknowledged_entries_survive_kill_9(void **state)
{
    struct world *w = *state;
    uint64_t acked = 0;
    open_log(w);
    set_term(w, 1);
    close_log(w);
    for (unsigned round = 0; round < 25; round++) {
        open_log(w);
        struct raft_store_loaded l = load(w);
        close_log(w);
        uint64_t last = l.entries_count;
        assert_true(last >= acked);
        for (size_t i = 0; i < l.entries_count; i++) {
            assert_int_equal(l.entries[i].index, i + 1);
            assert_true(blob_equal(l.entries[i].data, entry_data((i + 1) % 4000, 1)));
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
static void make_log_and_kill(struct world *w, uint64_t count)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)uv_loop_fork(&w->loop);
        open_log(w);
        set_term(w, 1);
        for (uint64_t i = 1; i <= count; i++) {
            append_range(w, i, i);
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
    struct world *w = *state;
    sync_gate.skip = true;
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
        remove_db(w);
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
                assert_entries(&l, 1, l.entries_count, 1);
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
    struct world *w = *state;
    sync_gate.skip = true;
    make_log_and_kill(w, 12);
    char *wal_path = xasprintf("%s-wal", w->path);
    struct buf db;
    struct buf wal;
    buf_init(&db, 4u << 20);
    buf_init(&wal, 4u << 20);
    assert_int_equal(file_read(w->path, &db, NULL), 0);
    assert_int_equal(file_read(wal_path, &wal, NULL), 0);
    for (size_t cut = wal.len; cut > wal.len - 5000 && cut > 0; cut -= 97) {
        remove_db(w);
        assert_int_equal(file_write_atomic(w->path, buf_blob(&db), 0600, NULL), 0);
        assert_int_equal(file_write_atomic(wal_path, blob_of(wal.data, cut), 0600, NULL), 0);
        struct errmsg em = ERRMSG_INIT;
        struct raft_store_loaded l;
        if (try_load(w, &l, &em) != 0) {
            fail_msg("cut at %zu: %s", cut, em.text);
        }
        assert_true(l.entries_count >= 11);
        assert_entries(&l, 1, l.entries_count, 1);
        raft_store_loaded_fini(&l);
    }
    buf_fini(&db);
    buf_fini(&wal);
    free(wal_path);
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_new_log_is_empty),
        LOG_TEST(test_entries_are_there_after_reopen),
        LOG_TEST(test_appends_queued_during_a_sync_share_the_next_one),
        LOG_TEST(test_nothing_is_acknowledged_before_its_sync_returns),
        LOG_TEST(test_truncate_then_append_replaces_the_tail),
        LOG_TEST(test_append_that_leaves_a_gap_is_refused),
        LOG_TEST(test_own_snapshot_keeps_the_trailing_entries),
        LOG_TEST(test_received_snapshot_replaces_the_log),
        LOG_TEST(test_received_snapshot_drops_entries_beyond_it),
        LOG_TEST(test_newer_snapshot_takes_the_place_of_the_older),
        LOG_TEST(test_large_image_comes_back_unchanged),
        LOG_TEST(test_term_and_vote_survive),
        LOG_TEST(test_term_that_falls_is_refused),
        LOG_TEST(test_set_term_waits_for_appends_before_it),
        LOG_TEST(test_second_process_is_refused),
        LOG_TEST(test_newer_schema_is_refused),
        LOG_TEST(test_damaged_row_is_named),
        LOG_TEST(test_flipped_byte_in_the_file_never_changes_the_log),
        LOG_TEST(test_file_that_is_no_database_is_refused),
        LOG_TEST(test_failed_sync_fails_everything_after_it),
        LOG_TEST(test_close_completes_pending_jobs_first),
        LOG_TEST(test_calls_during_close_are_canceled),
        LOG_TEST(test_bootstrap_writes_what_libraft_can_read),
        LOG_TEST(test_acknowledged_entries_survive_kill_9),
        LOG_TEST(test_flipped_byte_in_the_wal_is_never_a_shorter_log),
        LOG_TEST(test_torn_tail_of_the_wal_is_no_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
