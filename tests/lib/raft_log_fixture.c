#include "lib/raft_log_fixture.h"

#include "authority/raft_image.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/syscall.h>
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
    bool skip; /* pretend: for tests that never crash and open thousands of files */
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
int fdatasync(int fildes)
{
    return on_sync(fildes);
}

int fsync(int fd)
{
    return on_sync(fd);
}

void sync_gate_set(bool hold, bool fail)
{
    (void)pthread_mutex_lock(&sync_gate.lock);
    sync_gate.hold = hold;
    sync_gate.fail = fail;
    (void)pthread_cond_broadcast(&sync_gate.changed);
    (void)pthread_mutex_unlock(&sync_gate.lock);
}

void sync_gate_wait_until_held(void)
{
    (void)pthread_mutex_lock(&sync_gate.lock);
    while (!sync_gate.waiting) {
        (void)pthread_cond_wait(&sync_gate.changed, &sync_gate.lock);
    }
    (void)pthread_mutex_unlock(&sync_gate.lock);
}

void sync_gate_skip(void)
{
    (void)pthread_mutex_lock(&sync_gate.lock);
    sync_gate.skip = true;
    (void)pthread_mutex_unlock(&sync_gate.lock);
}

unsigned sync_gate_count(void)
{
    (void)pthread_mutex_lock(&sync_gate.lock);
    unsigned n = sync_gate.count;
    (void)pthread_mutex_unlock(&sync_gate.lock);
    return n;
}

/* --- fixture --- */

int rlog_set_up(void **state)
{
    struct rlog_world *w = xcalloc(1, sizeof *w);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/rap-raft-log-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    (void)snprintf(w->path, sizeof w->path, "%s/raft.db", w->dir);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    sync_gate_set(false, false);
    *state = w;
    return 0;
}

void rlog_remove_files(const struct rlog_world *w)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        char *p = xasprintf("%s%s", w->path, suffixes[i]);
        (void)unlink(p);
        free(p);
    }
}

int rlog_tear_down(void **state)
{
    struct rlog_world *w = *state;
    sync_gate_set(false, false);
    sync_gate.skip = false;
    assert_null(w->s);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    rlog_remove_files(w);
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

void rlog_open(struct rlog_world *w)
{
    struct errmsg em = ERRMSG_INIT;
    int rc = raft_log_open(&w->loop, w->path, &w->s, &em);
    if (rc != 0) {
        fail_msg("open: %s", em.text);
    }
    w->closed = false;
}

void rlog_on_closed(void *data)
{
    struct rlog_world *w = data;
    w->closed = true;
}

void rlog_run_until_closed(struct rlog_world *w)
{
    while (!w->closed) {
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    }
    w->s = NULL;
}

void rlog_close(struct rlog_world *w)
{
    w->s->ops->close(w->s, rlog_on_closed, w);
    rlog_run_until_closed(w);
}

void rlog_on_done(void *data, int rc)
{
    struct rlog_world *w = data;
    w->done++;
    w->last_rc = rc;
    w->failed += rc != 0;
}

void rlog_run_until_done(struct rlog_world *w, unsigned count)
{
    while (w->done < count) {
        (void)uv_run(&w->loop, UV_RUN_ONCE);
    }
}

/* The data of every entry tells its index. */
struct blob rlog_entry_data(uint64_t index, uint64_t term)
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

void rlog_append(struct rlog_world *w, uint64_t index, uint64_t term)
{
    struct raft_store_entry e = {
        .index = index, .term = term, .type = RAFT_COMMAND, .data = rlog_entry_data(index, term)};
    w->s->ops->append(w->s, &e, 1, rlog_on_done, w);
}

void rlog_append_range(struct rlog_world *w, uint64_t first, uint64_t last)
{
    unsigned before = w->done;
    for (uint64_t i = first; i <= last; i++) {
        rlog_append(w, i, 1);
    }
    rlog_run_until_done(w, before + (unsigned)(last - first + 1));
    assert_int_equal(w->failed, 0);
}

void rlog_set_term(struct rlog_world *w, uint64_t term)
{
    struct errmsg em = ERRMSG_INIT;
    if (w->s->ops->set_term(w->s, term, &em) != 0) {
        fail_msg("set_term: %s", em.text);
    }
}

struct raft_store_loaded rlog_load(struct rlog_world *w)
{
    struct errmsg em = ERRMSG_INIT;
    struct raft_store_loaded l;
    if (w->s->ops->load(w->s, &l, &em) != 0) {
        fail_msg("load: %s", em.text);
    }
    return l;
}

void rlog_assert_entries(const struct raft_store_loaded *l, uint64_t first, uint64_t last,
                         uint64_t term)
{
    assert_int_equal(l->entries_count, last + 1 - first);
    for (size_t i = 0; i < l->entries_count; i++) {
        const struct raft_store_entry *e = &l->entries[i];
        assert_int_equal(e->index, first + i);
        assert_int_equal(e->term, term);
        assert_int_equal(e->type, RAFT_COMMAND);
        assert_true(blob_equal(e->data, rlog_entry_data(first + i, term)));
    }
}

/* A log of term 1 with entries 1..last, closed. */
void rlog_make(struct rlog_world *w, uint64_t last)
{
    rlog_open(w);
    rlog_set_term(w, 1);
    rlog_append_range(w, 1, last);
    rlog_close(w);
}

void rlog_put_snapshot(struct rlog_world *w, uint64_t index, unsigned trailing, const char *image)
{
    unsigned before = w->done;
    struct buf packed;
    buf_init(&packed, SIZE_MAX);
    assert_int_equal(raft_image_pack_bytes(blob_str(image), &packed), 0);
    const struct raft_store_snapshot snap = {.index = index,
                                             .term = 1,
                                             .conf_index = 1,
                                             .conf = blob_str("conf"),
                                             .packed = buf_blob(&packed),
                                             .trailing = trailing};
    w->s->ops->put_snapshot(w->s, &snap, rlog_on_done, w);
    rlog_run_until_done(w, before + 1);
    assert_int_equal(w->last_rc, 0);
    buf_fini(&packed);
}

void rlog_assert_image(const struct raft_store_loaded *l, struct blob want)
{
    struct buf image;
    buf_init(&image, SIZE_MAX);
    assert_int_equal(raft_image_unpack(buf_blob(&l->snapshot_image), &image), 0);
    assert_int_equal(image.len, want.len);
    assert_memory_equal(image.data, want.data, want.len);
    buf_fini(&image);
}

/* SQL behind the back of the log, while it is closed. */
void rlog_raw_sql(struct rlog_world *w, const char *sql)
{
    sqlite3 *db;
    char *why = NULL;
    assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK) {
        fail_msg("%s: %s", sql, why);
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}
