/* raft.db as the durable half of Raft (S2): what was acknowledged is there again, in order, and nothing
 * is acknowledged early. Damage and crashes: authority_raft_log_damage_test.c. */
#include "authority/raft_log.h"

#include "authority/raft_image.h"
#include "authority/raft_log_db.h"
#include "base/rng.h"
#include "lib/raft_log_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void test_new_log_is_empty(void **state)
{
    struct rlog_world *w = *state;
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    assert_int_equal(l.term, 0);
    assert_int_equal(l.vote, 0);
    assert_false(l.has_snapshot);
    assert_int_equal(l.entries_count, 0);
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

static void test_entries_are_there_after_reopen(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 100);
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    assert_int_equal(l.term, 1);
    rlog_assert_entries(&l, 1, 100, 1);
    raft_store_loaded_fini(&l);
    rlog_append_range(w, 101, 110);
    rlog_close(w);
    rlog_open(w);
    l = rlog_load(w);
    rlog_assert_entries(&l, 1, 110, 1);
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

static void test_appends_queued_during_a_sync_share_the_next_one(void **state)
{
    struct rlog_world *w = *state;
    rlog_open(w);
    rlog_set_term(w, 1);
    rlog_append_range(w, 1, 1); /* the WAL has its header now: a commit is one sync from here on */
    unsigned before = sync_gate_count();
    rlog_append_range(w, 2, 2);
    assert_int_equal(sync_gate_count() - before, 1);
    w->done = 0;

    before = sync_gate_count();
    sync_gate_set(true, false);
    rlog_append(w, 3, 1);
    sync_gate_wait_until_held();
    for (uint64_t i = 4; i <= 303; i++) {
        rlog_append(w, i, 1);
    }
    assert_int_equal(w->done, 0);
    sync_gate_set(false, false);
    rlog_run_until_done(w, 301);
    assert_int_equal(sync_gate_count() - before, 2);
    assert_int_equal(w->failed, 0);
    rlog_close(w);
}

static void test_nothing_is_acknowledged_before_its_sync_returns(void **state)
{
    struct rlog_world *w = *state;
    rlog_open(w);
    rlog_set_term(w, 1);
    sync_gate_set(true, false);
    rlog_append(w, 1, 1);
    sync_gate_wait_until_held();
    for (int turn = 0; turn < 10; turn++) {
        (void)uv_run(&w->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(w->done, 0);
    sync_gate_set(false, false);
    rlog_run_until_done(w, 1);
    rlog_close(w);
}

static void test_truncate_then_append_replaces_the_tail(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 10);
    rlog_open(w);
    rlog_set_term(w, 2);
    w->s->ops->truncate(w->s, 6);
    struct raft_store_entry e[2] = {
        {.index = 6, .term = 2, .type = RAFT_BARRIER, .data = blob_of(NULL, 0)},
        {.index = 7, .term = 2, .type = RAFT_CHANGE, .data = blob_str("new seven")},
    };
    unsigned before = w->done;
    w->s->ops->append(w->s, e, 2, rlog_on_done, w);
    rlog_run_until_done(w, before + 1);
    assert_int_equal(w->last_rc, 0);
    rlog_close(w);
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    assert_int_equal(l.entries_count, 7);
    assert_int_equal(l.entries[4].term, 1);
    assert_int_equal(l.entries[5].type, RAFT_BARRIER);
    assert_int_equal(l.entries[5].data.len, 0);
    assert_int_equal(l.entries[6].type, RAFT_CHANGE);
    assert_true(blob_equal(l.entries[6].data, blob_str("new seven")));
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

static void test_append_that_leaves_a_gap_is_refused(void **state)
{
    struct rlog_world *w = *state;
    rlog_open(w);
    rlog_set_term(w, 1);
    rlog_append_range(w, 1, 3);
    rlog_append(w, 5, 1);
    rlog_run_until_done(w, 4);
    assert_int_equal(w->last_rc, -ERR_INVALID);
    rlog_close(w);
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    rlog_assert_entries(&l, 1, 3, 1);
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

static void test_own_snapshot_keeps_the_trailing_entries(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 100);
    rlog_open(w);
    rlog_put_snapshot(w, 90, 20, "image at ninety");
    rlog_append_range(w, 101, 105);
    rlog_close(w);
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    assert_true(l.has_snapshot);
    assert_int_equal(l.snapshot_index, 90);
    assert_int_equal(l.snapshot_term, 1);
    assert_int_equal(l.snapshot_conf_index, 1);
    assert_true(blob_equal(buf_blob(&l.snapshot_conf), blob_str("conf")));
    rlog_assert_image(&l, blob_str("image at ninety"));
    rlog_assert_entries(&l, 70, 105, 1);
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

static void test_received_snapshot_replaces_the_log(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 100);
    rlog_open(w);
    rlog_put_snapshot(w, 500, 0, "image at five hundred");
    rlog_append_range(w, 501, 502);
    rlog_close(w);
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    assert_int_equal(l.snapshot_index, 500);
    rlog_assert_entries(&l, 501, 502, 1);
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

static void test_received_snapshot_drops_entries_beyond_it(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 100);
    rlog_open(w);
    rlog_put_snapshot(w, 50, 0, "image");
    rlog_append_range(w, 51, 51);
    struct raft_store_loaded l = rlog_load(w);
    rlog_assert_entries(&l, 51, 51, 1);
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

static void test_newer_snapshot_takes_the_place_of_the_older(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 100);
    rlog_open(w);
    rlog_put_snapshot(w, 40, 10, "old");
    rlog_put_snapshot(w, 80, 10, "new");
    struct raft_store_loaded l;
    unsigned before = w->done;
    w->s->ops->get_snapshot(w->s, &l, rlog_on_done, w);
    rlog_run_until_done(w, before + 1);
    assert_int_equal(w->last_rc, 0);
    assert_int_equal(l.snapshot_index, 80);
    rlog_assert_image(&l, blob_str("new"));
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

/* Bytes that do not compress: a dozen parts. */
struct large {
    struct blob raw;
    struct buf packed;
    struct raft_store_snapshot snap;
};

static struct large large_new(uint64_t index, unsigned trailing)
{
    struct large b;
    size_t len = 3u << 20;
    uint8_t *raw = xmalloc(len);
    rng_bytes(raw, len);
    b.raw = blob_of(raw, len);
    buf_init(&b.packed, SIZE_MAX);
    assert_int_equal(raft_image_pack_bytes(b.raw, &b.packed), 0);
    b.snap = (struct raft_store_snapshot){.index = index,
                                          .term = 1,
                                          .conf_index = 1,
                                          .conf = blob_str("c"),
                                          .packed = buf_blob(&b.packed),
                                          .trailing = trailing};
    return b;
}

static void large_free(struct large *b)
{
    free((void *)(uintptr_t)b->raw.data);
    buf_fini(&b->packed);
}

static void put_large(struct rlog_world *w, const struct large *b)
{
    w->s->ops->put_snapshot(w->s, &b->snap, rlog_on_done, w);
}

static void test_large_image_comes_back_unchanged(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 10);
    rlog_open(w);
    struct large big = large_new(10, 5);
    put_large(w, &big);
    rlog_run_until_done(w, w->done + 1);
    assert_int_equal(w->last_rc, 0);
    struct raft_store_loaded l = rlog_load(w);
    rlog_assert_image(&l, big.raw);
    raft_store_loaded_fini(&l);
    large_free(&big);
    rlog_close(w);
}

struct order {
    struct rlog_world *w;
    char seen[8];
    size_t count;
};

static void on_put(void *data, int rc)
{
    struct order *o = data;
    o->seen[o->count++] = 'p';
    rlog_on_done(o->w, rc);
}

static void on_append(void *data, int rc)
{
    struct order *o = data;
    o->seen[o->count++] = 'a';
    rlog_on_done(o->w, rc);
}

/* Whatever the size of an image, a batch of the log waits for one part of it only. */
static void test_appends_are_durable_before_a_large_image_that_came_first(void **state)
{
    struct rlog_world *w = *state;
    struct order o = {.w = w};
    struct raft_store_entry e = {
        .index = 101, .term = 1, .type = RAFT_COMMAND, .data = rlog_entry_data(101, 1)};
    rlog_make(w, 100);
    rlog_open(w);
    struct large big = large_new(90, 20);
    unsigned before = w->done;
    sync_gate_set(true, false);
    w->s->ops->put_snapshot(w->s, &big.snap, on_put, &o);
    sync_gate_wait_until_held(); /* it is writing now */
    w->s->ops->append(w->s, &e, 1, on_append, &o);
    sync_gate_set(false, false);
    rlog_run_until_done(w, before + 2);
    assert_int_equal(w->failed, 0);
    assert_memory_equal(o.seen, "ap", 2);
    rlog_close(w);
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    rlog_assert_entries(&l, 70, 101, 1);
    rlog_assert_image(&l, big.raw);
    raft_store_loaded_fini(&l);
    large_free(&big);
    rlog_close(w);
}

/* libraft asks for a snapshot again when the first answer takes long. */
static void test_snapshots_asked_for_in_a_row_all_come(void **state)
{
    struct rlog_world *w = *state;
    struct raft_store_loaded l[3];
    rlog_make(w, 100);
    rlog_open(w);
    rlog_put_snapshot(w, 90, 20, "image at ninety");
    unsigned before = w->done;
    sync_gate_set(true, false);
    rlog_append(w, 101, 1);
    sync_gate_wait_until_held(); /* so that they wait in one queue */
    for (size_t i = 0; i < ARRAY_SIZE(l); i++) {
        w->s->ops->get_snapshot(w->s, &l[i], rlog_on_done, w);
    }
    sync_gate_set(false, false);
    rlog_run_until_done(w, before + 4);
    assert_int_equal(w->failed, 0);
    for (size_t i = 0; i < ARRAY_SIZE(l); i++) {
        assert_true(l[i].has_snapshot);
        rlog_assert_image(&l[i], blob_str("image at ninety"));
        raft_store_loaded_fini(&l[i]);
    }
    rlog_close(w);
}

/* A term is voted in while the image is written: the loop waits for it. */
static void test_term_is_set_while_a_large_image_is_stored(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 100);
    rlog_open(w);
    struct large big = large_new(90, 20);
    unsigned before = w->done;
    put_large(w, &big);
    rlog_set_term(w, 2);
    assert_int_equal(w->done, before); /* callbacks only ever run from the loop */
    rlog_run_until_done(w, before + 1);
    struct raft_store_loaded l = rlog_load(w);
    assert_int_equal(l.term, 2);
    rlog_assert_image(&l, big.raw);
    raft_store_loaded_fini(&l);
    large_free(&big);
    rlog_close(w);
}

static void test_frozen_state_is_stored_as_it_was(void **state)
{
    struct rlog_world *w = *state;
    struct db *db;
    struct db_image *im;
    struct buf want;
    rlog_make(w, 10);
    rlog_open(w);
    assert_int_equal(db_open(NULL, DB_MEMORY, &db, NULL), 0);
    assert_int_equal(
        db_exec(db, "CREATE TABLE t (a BLOB); INSERT INTO t VALUES (randomblob(99999))", NULL), 0);
    sqlite3_int64 len;
    void *bytes = sqlite3_serialize(db_handle(db), "main", &len, 0);
    buf_init(&want, SIZE_MAX);
    buf_add(&want, bytes, (size_t)len);
    sqlite3_free(bytes);
    assert_int_equal(db_freeze(db, &im), 0);
    const struct raft_store_snapshot snap = {
        .index = 9, .term = 1, .conf_index = 1, .conf = blob_str("c"), .frozen = im, .trailing = 4};
    unsigned before = w->done;
    w->s->ops->put_snapshot(w->s, &snap, rlog_on_done, w);
    assert_int_equal(db_exec(db, "UPDATE t SET a = randomblob(99999)", NULL), 0);
    rlog_run_until_done(w, before + 1);
    db_image_free(im);
    db_close(db);
    struct raft_store_loaded l = rlog_load(w);
    rlog_assert_image(&l, buf_blob(&want));
    raft_store_loaded_fini(&l);
    buf_fini(&want);
    rlog_close(w);
}

static int64_t count_rows(struct raft_log_db *d, const char *table)
{
    char *sql = xasprintf("SELECT count(*) AS n FROM %s", table);
    struct db_stmt *st = db_prepare(d->db, sql);
    assert_int_equal(db_step(st), 1);
    int64_t n = db_col_int(st, "n");
    db_done(st);
    free(sql);
    return n;
}

/* What is left of a put that a crash ended, of the snapshot before, and of the log before its
 * beginning goes a little at a time; none of it is seen before. */
static void test_leftovers_are_deleted_in_steps(void **state)
{
    struct rlog_world *w = *state;
    struct raft_log_db d;
    rlog_make(w, 3000);
    rlog_open(w);
    rlog_put_snapshot(w, 1000, 1000, "old");
    rlog_close(w);
    rlog_raw_sql(w, "INSERT INTO snapshot_parts VALUES (1500, 0, x'aa'), (1500, 1, x'bb'),"
                    " (2900, 0, x'cc')");
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    rlog_assert_image(&l, blob_str("old"));
    raft_store_loaded_fini(&l);
    rlog_put_snapshot(w, 2900, 100, "new");
    rlog_close(w);
    rlog_open(w);
    l = rlog_load(w);
    rlog_assert_image(&l, blob_str("new"));
    rlog_assert_entries(&l, 2800, 3000, 1);
    raft_store_loaded_fini(&l);
    rlog_close(w);

    assert_int_equal(raft_log_db_open(&d, w->path, NULL), 0);
    bool more = true;
    int64_t rows = count_rows(&d, "log_entries");
    unsigned steps = 0;
    while (more) {
        assert_int_equal(db_begin(d.db), 0);
        assert_int_equal(raft_log_db_clean(&d, &more), 0);
        assert_int_equal(db_commit(d.db), 0);
        assert_in_range(rows - count_rows(&d, "log_entries"), 0, 64);
        rows = count_rows(&d, "log_entries");
        assert_true(++steps < 100);
    }
    assert_int_equal(rows, 201);
    assert_int_equal(count_rows(&d, "snapshot_parts"), 1);
    raft_log_db_close(&d);
}

/* A file of schema 1: the image in one column, and no table of parts. */
static void test_snapshot_of_schema_1_is_read(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 100);
    rlog_open(w);
    rlog_put_snapshot(w, 90, 20, "image of schema 1");
    rlog_close(w);
    rlog_raw_sql(w, "UPDATE snapshots SET image = (SELECT data FROM snapshot_parts"
                    "  WHERE snapshot_index = 90);"
                    "DROP TABLE snapshot_parts; DROP TABLE recovery;"
                    "DROP TABLE silence; PRAGMA user_version = 1");
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    rlog_assert_image(&l, blob_str("image of schema 1"));
    rlog_assert_entries(&l, 70, 100, 1);
    raft_store_loaded_fini(&l);
    rlog_put_snapshot(w, 95, 20, "image of schema 2");
    l = rlog_load(w);
    rlog_assert_image(&l, blob_str("image of schema 2"));
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

static void test_term_and_vote_survive(void **state)
{
    struct rlog_world *w = *state;
    struct errmsg em = ERRMSG_INIT;
    rlog_open(w);
    rlog_set_term(w, 7);
    assert_int_equal(w->s->ops->set_vote(w->s, 3, &em), 0);
    rlog_close(w);
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    assert_int_equal(l.term, 7);
    assert_int_equal(l.vote, 3);
    raft_store_loaded_fini(&l);
    rlog_set_term(w, 7); /* G6: the same term again must not forget the vote */
    l = rlog_load(w);
    assert_int_equal(l.vote, 3);
    raft_store_loaded_fini(&l);
    rlog_set_term(w, 8);
    rlog_close(w);
    rlog_open(w);
    l = rlog_load(w);
    assert_int_equal(l.term, 8);
    assert_int_equal(l.vote, 0);
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

static void test_term_that_falls_is_refused(void **state)
{
    struct rlog_world *w = *state;
    struct errmsg em = ERRMSG_INIT;
    rlog_open(w);
    rlog_set_term(w, 7);
    assert_int_equal(w->s->ops->set_term(w->s, 6, &em), -ERR_INVALID);
    rlog_close(w);
}

static void test_set_term_waits_for_appends_before_it(void **state)
{
    struct rlog_world *w = *state;
    rlog_open(w);
    rlog_set_term(w, 1);
    for (uint64_t i = 1; i <= 50; i++) {
        rlog_append(w, i, 1);
    }
    rlog_set_term(w, 2);
    struct raft_store_loaded l = rlog_load(w);
    rlog_assert_entries(&l, 1, 50, 1);
    raft_store_loaded_fini(&l);
    assert_int_equal(w->done, 0); /* callbacks only ever run from the loop */
    rlog_run_until_done(w, 50);
    rlog_close(w);
}

static void test_second_process_is_refused(void **state)
{
    struct rlog_world *w = *state;
    rlog_open(w);
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
    rlog_close(w);
}

static void test_newer_schema_is_refused(void **state)
{
    struct rlog_world *w = *state;
    rlog_make(w, 3);
    rlog_raw_sql(w, "PRAGMA user_version = 5");
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(raft_log_open(&w->loop, w->path, &w->s, &em), -ERR_SCHEMA);
}

/* S22: after a failed sync nothing is acknowledged any more, and nothing is tried. */
static void test_failed_sync_fails_everything_after_it(void **state)
{
    struct rlog_world *w = *state;
    rlog_open(w);
    rlog_set_term(w, 1);
    rlog_append_range(w, 1, 5);
    sync_gate_set(false, true);
    rlog_append(w, 6, 1);
    rlog_run_until_done(w, 6);
    assert_int_equal(w->last_rc, -ERR_IO);
    sync_gate_set(false, false);
    unsigned before = sync_gate_count();
    rlog_append(w, 7, 1);
    rlog_run_until_done(w, 7);
    assert_int_equal(w->last_rc, -ERR_IO);
    struct errmsg em = ERRMSG_INIT;
    assert_int_equal(w->s->ops->set_term(w->s, 2, &em), -ERR_IO);
    assert_int_equal(w->s->ops->set_vote(w->s, 1, &em), -ERR_IO);
    assert_int_equal(sync_gate_count(), before);
    rlog_close(w);
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    assert_int_equal(l.term, 1);
    assert_true(l.entries_count == 5 || l.entries_count == 6);
    rlog_assert_entries(&l, 1, l.entries_count, 1);
    raft_store_loaded_fini(&l);
    rlog_close(w);
}

static void test_close_completes_pending_jobs_first(void **state)
{
    struct rlog_world *w = *state;
    rlog_open(w);
    rlog_set_term(w, 1);
    sync_gate_set(true, false);
    for (uint64_t i = 1; i <= 200; i++) {
        rlog_append(w, i, 1);
    }
    struct large big = large_new(150, 100);
    put_large(w, &big);
    w->s->ops->close(w->s, rlog_on_closed, w);
    rlog_append(w, 201, 1); /* too late: canceled */
    sync_gate_set(false, false);
    rlog_run_until_closed(w);
    assert_int_equal(w->done, 202);
    assert_int_equal(w->failed, 1);
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
    rlog_assert_entries(&l, 50, 200, 1);
    assert_int_equal(l.snapshot_index, 150);
    raft_store_loaded_fini(&l);
    large_free(&big);
    rlog_close(w);
}

static void test_calls_during_close_are_canceled(void **state)
{
    struct rlog_world *w = *state;
    rlog_open(w);
    struct errmsg em = ERRMSG_INIT;
    struct raft_store_loaded l;
    w->s->ops->close(w->s, rlog_on_closed, w);
    assert_int_equal(w->s->ops->set_term(w->s, 1, &em), -ERR_CANCELED);
    rlog_append(w, 1, 1);
    w->s->ops->get_snapshot(w->s, &l, rlog_on_done, w);
    rlog_run_until_closed(w);
    assert_int_equal(w->done, 2);
    assert_int_equal(w->last_rc, -ERR_CANCELED);
}

static void test_bootstrap_writes_what_libraft_can_read(void **state)
{
    struct rlog_world *w = *state;
    struct errmsg em = ERRMSG_INIT;
    const struct raft_log_bootstrap b = {
        .id = 1, .address = "10.0.0.1:7400", .command = blob_str("first command")};
    assert_int_equal(raft_log_bootstrap(w->path, &b, &em), 0);
    rlog_open(w);
    struct raft_store_loaded l = rlog_load(w);
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
    rlog_close(w);
    assert_int_equal(raft_log_bootstrap(w->path, &b, &em), -ERR_EXISTS);
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, rlog_set_up, rlog_tear_down)

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
        LOG_TEST(test_appends_are_durable_before_a_large_image_that_came_first),
        LOG_TEST(test_term_is_set_while_a_large_image_is_stored),
        LOG_TEST(test_snapshots_asked_for_in_a_row_all_come),
        LOG_TEST(test_frozen_state_is_stored_as_it_was),
        LOG_TEST(test_leftovers_are_deleted_in_steps),
        LOG_TEST(test_snapshot_of_schema_1_is_read),
        LOG_TEST(test_term_and_vote_survive),
        LOG_TEST(test_term_that_falls_is_refused),
        LOG_TEST(test_set_term_waits_for_appends_before_it),
        LOG_TEST(test_second_process_is_refused),
        LOG_TEST(test_newer_schema_is_refused),
        LOG_TEST(test_failed_sync_fails_everything_after_it),
        LOG_TEST(test_close_completes_pending_jobs_first),
        LOG_TEST(test_calls_during_close_are_canceled),
        LOG_TEST(test_bootstrap_writes_what_libraft_can_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
