/* The tables of node.db (migrations/node). */
#include "agent/member.h"

static int db_error(struct member *m, int rc, struct errmsg *em)
{
    return rc == 0 ? 0 : errmsg_set(em, rc, "%s/node.db: %s", m->dir, db_errmsg(m->db));
}

int member_get(struct member *m, const char *key, struct buf *ret)
{
    struct db_stmt *st = db_prepare(m->db, "SELECT value FROM settings WHERE key = ?");
    db_bind_text(st, key);
    int rc = db_step(st);
    if (rc == 1) {
        struct blob v = db_col_blob(st, "value");
        buf_add(ret, v.data, v.len);
        rc = ret->err;
    } else if (rc == 0) {
        rc = -ERR_NOT_FOUND;
    }
    db_done(st);
    return rc;
}

int member_put(struct member *m, const char *key, struct blob value, struct errmsg *em)
{
    struct db_stmt *st = db_prepare(m->db,
                                    "INSERT INTO settings (key, value) VALUES (?, ?) "
                                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value");
    db_bind_text(st, key);
    db_bind_blob(st, value);
    return db_error(m, db_run(st), em);
}

int member_drop(struct member *m, const char *key, struct errmsg *em)
{
    struct db_stmt *st = db_prepare(m->db, "DELETE FROM settings WHERE key = ?");
    db_bind_text(st, key);
    return db_error(m, db_run(st), em);
}

int member_save_snapshot(struct member *m, struct blob signed_snapshot, uint64_t epoch,
                         uint64_t config_version, int64_t now_ms, struct errmsg *em)
{
    struct db_stmt *st = db_prepare(
        m->db, "INSERT INTO snapshot (id, epoch, config_version, received_at, signed) "
               "VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
               "epoch = excluded.epoch, config_version = excluded.config_version, "
               "received_at = excluded.received_at, signed = excluded.signed");
    db_bind_int(st, (int64_t)epoch);
    db_bind_int(st, (int64_t)config_version);
    db_bind_int(st, now_ms);
    db_bind_blob(st, signed_snapshot);
    return db_error(m, db_run(st), em);
}

int member_save_witnessed(struct member *m, struct blob signed_snapshot, uint64_t epoch,
                          uint64_t config_version, struct blob set_statement, int64_t now_ms,
                          struct errmsg *em)
{
    int rc = db_error(m, db_begin(m->db), em);
    if (rc != 0) {
        return rc;
    }
    rc = member_save_snapshot(m, signed_snapshot, epoch, config_version, now_ms, em);
    if (rc == 0 && set_statement.len > 0) {
        rc = member_put(m, MEMBER_AUTHORITY_SET, set_statement, em);
    }
    if (rc == 0) {
        rc = db_error(m, db_commit(m->db), em);
    }
    if (rc != 0) {
        db_rollback(m->db);
    }
    return rc;
}

int member_load_snapshot(struct member *m, struct buf *ret_signed, uint64_t *ret_epoch,
                         uint64_t *ret_config_version)
{
    struct db_stmt *st = db_prepare(
        m->db, "SELECT epoch, config_version, signed FROM snapshot WHERE id = 1");
    int rc = db_step(st);
    if (rc == 1) {
        struct blob v = db_col_blob(st, "signed");
        *ret_epoch = (uint64_t)db_col_int(st, "epoch");
        *ret_config_version = (uint64_t)db_col_int(st, "config_version");
        buf_add(ret_signed, v.data, v.len);
        rc = ret_signed->err;
    } else if (rc == 0) {
        rc = -ERR_NOT_FOUND;
    }
    db_done(st);
    return rc;
}
