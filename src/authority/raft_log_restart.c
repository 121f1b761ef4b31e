/* raft.db while the authority is stopped: read it, begin it anew behind a snapshot, give it up, or begin it
 * without what was there. Raft itself knows no such step; it is the owner's word that makes it safe
 * (docs/decisions/0007), or that the member has lost its vote first (0014). */
#include "authority/raft_log.h"

#include "authority/raft_image.h"
#include "authority/raft_log_db.h"
#include "base/file.h"
#include "wire/recovery_msg.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

int raft_log_read(const char *path, struct raft_store_loaded *ret, struct errmsg *em)
{
    struct raft_log_db d = {0};
    *ret = (struct raft_store_loaded){0};
    if (!file_exists(path)) {
        return errmsg_set(em, -ERR_NOT_FOUND, "there is no %s: this host is no authority", path);
    }
    int rc = raft_log_db_open(&d, path, em);
    if (rc == 0) {
        rc = raft_log_db_load(&d, ret, em);
        raft_log_db_close(&d);
    }
    return rc;
}

static int end(struct raft_log_db *d, int rc, const char *path, struct errmsg *em)
{
    if (rc == 0) {
        rc = db_commit(d->db);
    }
    if (rc != 0) {
        (void)errmsg_set(em, rc, "%s: %s", path, db_errmsg(d->db));
        db_rollback(d->db);
    }
    raft_log_db_close(d);
    return rc;
}

/* --- beginning anew --- */

static int one_voter(const struct raft_log_restart *r, struct buf *out)
{
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    int rv = raft_configuration_add(&conf, r->id, r->address, RAFT_VOTER);
    if (rv == 0) {
        raft_msg_conf_encode(&conf, out);
    }
    raft_configuration_close(&conf);
    return rv != 0 || out->err != 0 ? -ERR_INVALID : 0;
}

static int drop_snapshots(struct raft_log_db *d)
{
    int rc = db_run(db_prepare(d->db, "DELETE FROM snapshots"));
    return rc == 0 ? db_run(db_prepare(d->db, "DELETE FROM snapshot_parts")) : rc;
}

static int put_snapshot(struct raft_log_db *d, const struct raft_log_restart *r, struct blob conf)
{
    const struct raft_store_snapshot s = {
        .index = r->index, .term = r->term, .conf_index = r->index, .conf = conf};
    struct raft_log_put put;
    struct buf packed;
    bool done = false;
    buf_init(&packed, IMAGE_PACKED_MAX);
    int rc = raft_image_pack_bytes(r->image, &packed);
    rc = rc == 0 ? raft_log_put_init(&put, &s, buf_blob(&packed)) : rc;
    while (rc == 0 && !done) {
        rc = raft_log_db_put_step(d, &put, &done);
    }
    buf_fini(&packed);
    return rc;
}

static int write_restart(struct raft_log_db *d, const struct raft_log_restart *r, struct blob conf,
                         struct blob entry)
{
    const struct raft_store_entry first = {
        .index = r->index + 1, .term = r->first_term, .type = RAFT_COMMAND, .data = entry};
    /* A snapshot of this very index may be there, with all the voters of before. */
    int rc = drop_snapshots(d);
    rc = rc == 0 ? put_snapshot(d, r, conf) : rc;
    if (rc == 0) {
        struct raft_log_state next = d->state;
        next.term = r->first_term;
        next.vote = 0;
        rc = raft_log_db_set_state(d, &next);
    }
    if (rc == 0) {
        rc = raft_log_db_append(d, &first, 1);
    }
    return rc == 0 ? raft_log_db_set_epoch(d, r->epoch, r->statement) : rc;
}

static int check_restart(const struct raft_log_db *d, const struct raft_store_loaded *have,
                         const struct raft_log_restart *r, struct errmsg *em)
{
    if (r->epoch <= have->epoch || r->first_term <= d->state.term || r->first_term <= r->term ||
        r->index == 0 || r->term == 0) {
        return errmsg_set(em, -ERR_INVALID, "the new log does not follow what is there");
    }
    return 0;
}

int raft_log_restart(const char *path, const struct raft_log_restart *r, struct errmsg *em)
{
    struct raft_log_db d = {0};
    struct raft_store_loaded have = {0};
    struct buf conf;
    struct buf entry;
    buf_init(&conf, RAFT_MSG_CONF_MAX);
    buf_init(&entry, RAFT_MSG_DATA_MAX);
    buf_add(&entry, r->first_entry.data, r->first_entry.len);
    raft_msg_pad(&entry);
    int rc = one_voter(r, &conf);
    if (rc == 0) {
        rc = raft_log_db_open(&d, path, em);
    }
    if (rc != 0) {
        goto out;
    }
    rc = raft_log_db_load(&d, &have, em);
    if (rc == 0) {
        rc = check_restart(&d, &have, r, em);
    }
    if (rc != 0) {
        raft_log_db_close(&d);
        goto out;
    }
    rc = db_begin(d.db);
    if (rc == 0) {
        rc = write_restart(&d, r, buf_blob(&conf), buf_blob(&entry));
    }
    rc = end(&d, rc, path, em);
out:
    raft_store_loaded_fini(&have);
    buf_fini(&conf);
    buf_fini(&entry);
    return rc;
}

/* --- giving up --- */

/* SQLite makes the copy whole or, killed in between, not under this name. */
static int keep_copy(struct raft_log_db *d, const char *path, uint64_t epoch, struct errmsg *em)
{
    char *to = xasprintf("%s.%llu", path, (unsigned long long)epoch);
    char *part = xasprintf("%s.part", to);
    int rc = 0;
    if (!file_exists(to)) {
        (void)unlink(part);
        char *sql = sqlite3_mprintf("VACUUM INTO %Q", part);
        CHECK(sql != NULL);
        mode_t old = umask(077);
        rc = db_exec(d->db, sql, em);
        (void)umask(old);
        sqlite3_free(sql);
        if (rc == 0 && rename(part, to) != 0) {
            rc = errmsg_set(em, -ERR_IO, "%s: %s", to, strerror(errno));
        }
    }
    free(part);
    free(to);
    return rc;
}

int raft_log_give_up(const char *path, uint64_t epoch, struct blob statement, struct errmsg *em)
{
    struct raft_log_db d = {0};
    struct raft_store_loaded have = {0};
    int rc = raft_log_db_open(&d, path, em);
    if (rc != 0) {
        return rc;
    }
    /* A log that is damaged is given up too: nothing of it is needed. */
    if (raft_log_db_load(&d, &have, em) == 0 && have.term != 0) {
        rc = keep_copy(&d, path, have.epoch, em);
    }
    raft_store_loaded_fini(&have);
    if (rc != 0) {
        raft_log_db_close(&d);
        return rc;
    }
    const struct raft_log_state empty = {.first = 1};
    rc = db_begin(d.db);
    if (rc == 0) {
        rc = db_run(db_prepare(d.db, "DELETE FROM log_entries"));
    }
    if (rc == 0) {
        rc = drop_snapshots(&d);
    }
    if (rc == 0) {
        rc = raft_log_db_set_state(&d, &empty);
    }
    if (rc == 0 && epoch > EPOCH_FIRST) {
        rc = raft_log_db_set_epoch(&d, epoch, statement);
    }
    return end(&d, rc, path, em);
}

/* --- beginning without a log --- */

static int write_empty(const char *path, const struct raft_log_empty *e, struct errmsg *em)
{
    struct raft_log_db d = {0};
    const struct raft_log_state state = {.term = e->term, .vote = e->vote, .first = 1};
    int rc = raft_log_db_open(&d, path, em);
    if (rc != 0) {
        return rc;
    }
    rc = db_begin(d.db);
    if (rc == 0) {
        rc = raft_log_db_set_state(&d, &state);
    }
    if (rc == 0) {
        rc = raft_log_db_set_silence(&d, e->silent_until);
    }
    if (rc == 0 && e->epoch > EPOCH_FIRST) {
        rc = raft_log_db_set_epoch(&d, e->epoch, e->statement);
    }
    return end(&d, rc, path, em);
}

static int move_with_wal(const char *from, const char *to, struct errmsg *em)
{
    static const char *const suffixes[] = {"-wal", "-shm", ""};
    int rc = 0;
    /* The file itself last: until it is gone, all of it is still to be moved. */
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(suffixes); i++) {
        char *a = xasprintf("%s%s", from, suffixes[i]);
        char *b = xasprintf("%s%s", to, suffixes[i]);
        if (rename(a, b) != 0 && errno != ENOENT) {
            rc = errmsg_set(em, -ERR_IO, "%s: %s", b, strerror(errno));
        }
        free(a);
        free(b);
    }
    return rc;
}

static void remove_with_wal(const char *path)
{
    char *wal = xasprintf("%s-wal", path);
    char *shm = xasprintf("%s-shm", path);
    (void)unlink(path);
    (void)unlink(wal);
    (void)unlink(shm);
    free(wal);
    free(shm);
}

int raft_log_begin_empty(const char *path, const char *aside, const struct raft_log_empty *e,
                         struct errmsg *em)
{
    char *part = xasprintf("%s.part", path);
    remove_with_wal(part);
    int rc = write_empty(part, e, em);
    if (rc == 0 && !file_exists(aside)) {
        rc = move_with_wal(path, aside, em);
    }
    if (rc == 0) {
        rc = move_with_wal(part, path, em);
    }
    free(part);
    return rc;
}
