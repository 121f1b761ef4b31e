/* The state as bytes and back: the pages of its database, as a file would hold them. A foreign image is
 * looked at as a file of an attacker would be: read-only in a database of its own, structure
 * checked, then copied, and its schema compared with ours before it replaces anything. */
#include "authority/fsm_impl.h"

static const char state_pragmas[] = "PRAGMA secure_delete=OFF;"
                                    "PRAGMA trusted_schema=OFF;"
                                    "PRAGMA cell_size_check=ON;";

int fsm_db_open(struct db **ret, struct errmsg *em)
{
    struct db *db;
    int rc = db_open(NULL, DB_MEMORY, &db, em);
    if (rc != 0) {
        return rc;
    }
    rc = db_exec(db, state_pragmas, em);
    if (rc != 0) {
        db_close(db);
        return rc;
    }
    *ret = db;
    return 0;
}

static int write_position(struct fsm *f)
{
    struct db_stmt *st = db_prepare(
        f->db,
        "INSERT INTO fsm_state (id, term, \"index\", time_ms, digest) VALUES (1, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET term = excluded.term, \"index\" = excluded.\"index\","
        " time_ms = excluded.time_ms, digest = excluded.digest");
    db_bind_int(st, (int64_t)f->vars.term);
    db_bind_int(st, (int64_t)f->vars.index);
    db_bind_int(st, f->vars.time_ms);
    db_bind_blob(st, blob_of(f->digest, sizeof f->digest));
    int rc = db_run(st);
    if (rc == 0 && PLANTED("snapshot_drops_a_table")) {
        rc = db_run(db_prepare(f->db, "DELETE FROM node_role_assignments"));
    }
    if (rc == 0 && PLANTED("results_not_in_image")) {
        rc = db_run(db_prepare(f->db, "DELETE FROM request_results"));
    }
    return rc;
}

int fsm_freeze(struct fsm *f, struct db_image **ret)
{
    struct db_image *im = NULL;
    int rc = write_position(f);
    if (rc == 0) {
        rc = db_freeze(f->db, &im);
    }
    if (rc == 0 && db_image_bytes(im) > IMAGE_MAX_BYTES) {
        db_image_free(im);
        rc = -ERR_TOO_LARGE;
    }
    if (rc == 0) {
        *ret = im;
    }
    return rc;
}

int fsm_image(struct fsm *f, struct buf *out)
{
    struct db_image *im;
    int rc = fsm_freeze(f, &im);
    if (rc != 0) {
        return rc;
    }
    for (uint32_t i = 0; rc == 0 && i < db_image_pages(im); i++) {
        uint8_t *page = buf_grow(out, db_image_page_bytes(im));
        if (page == NULL) {
            rc = out->err;
        } else {
            db_image_read(im, i, page);
        }
    }
    db_image_free(im);
    return rc;
}

/* One row of text that must read `want`. */
static int expect_text(struct db *db, const char *sql, const char *want, struct errmsg *em)
{
    sqlite3_stmt *raw = NULL;
    int rc = 0;
    if (sqlite3_prepare_v2(db_handle(db), sql, -1, &raw, NULL) != SQLITE_OK ||
        sqlite3_step(raw) != SQLITE_ROW) {
        rc = errmsg_set(em, -ERR_CORRUPT, "image: %s", db_errmsg(db));
    } else {
        const char *got = (const char *)sqlite3_column_text(raw, 0);
        if (got == NULL || strcmp(got, want) != 0) {
            rc = errmsg_set(em, -ERR_CORRUPT, "image: %s", got == NULL ? "no answer" : got);
        }
    }
    (void)sqlite3_finalize(raw);
    return rc;
}

static int copy_pages(struct db *from, struct db *to, struct errmsg *em)
{
    sqlite3_backup *b = sqlite3_backup_init(db_handle(to), "main", db_handle(from), "main");
    if (b == NULL) {
        return errmsg_set(em, -ERR_CORRUPT, "image: %s", db_errmsg(to));
    }
    int rv = sqlite3_backup_step(b, -1);
    int rv2 = sqlite3_backup_finish(b);
    if (rv != SQLITE_DONE || rv2 != SQLITE_OK) {
        return errmsg_set(em, -ERR_CORRUPT, "image: %s", sqlite3_errstr(rv));
    }
    return 0;
}

uint8_t *fsm_copy_bytes(struct db_image *frozen)
{
    size_t page = db_image_page_bytes(frozen);
    uint8_t *bytes = sqlite3_malloc64(db_image_bytes(frozen));
    for (uint32_t i = 0; bytes != NULL && i < db_image_pages(frozen); i++) {
        db_image_read(frozen, i, bytes + i * page);
    }
    return bytes;
}

int fsm_copy_open(uint8_t *bytes, size_t len, struct db **ret, struct errmsg *em)
{
    struct db *db;
    int rc = fsm_db_open(&db, em);
    if (rc != 0) {
        sqlite3_free(bytes);
        return rc;
    }
    int rv = sqlite3_deserialize(db_handle(db), "main", bytes, (sqlite3_int64)len,
                                 (sqlite3_int64)len,
                                 SQLITE_DESERIALIZE_READONLY | SQLITE_DESERIALIZE_FREEONCLOSE);
    if (rv != SQLITE_OK) { /* which has freed them */
        db_close(db);
        return errmsg_set(em, -ERR_IO, "the copy of the state: %s", sqlite3_errstr(rv));
    }
    *ret = db;
    return 0;
}

static int hex32(const char *text, uint8_t ret[32])
{
    return text[0] == '\0' ? -ERR_CORRUPT : hex_decode(text, ret, 32);
}

/* Columns of one row into vars; more or fewer rows than expected, or values out of range, are
 * damage. */
static int load_position(struct db *db, struct fsm_vars *v, uint8_t digest[32])
{
    struct db_stmt *st = db_prepare(
        db, "SELECT term, \"index\", time_ms, digest FROM fsm_state WHERE id = 1");
    int rc = db_step(st);
    if (rc == 1) {
        struct blob d = db_col_blob(st, "digest");
        int64_t term = db_col_int(st, "term");
        int64_t index = db_col_int(st, "index");
        v->time_ms = db_col_int(st, "time_ms");
        if (d.len != 32 || term < 0 || index < 0) {
            rc = -ERR_CORRUPT;
        } else {
            memcpy(digest, d.data, 32);
            v->term = (uint64_t)term;
            v->index = (uint64_t)index;
        }
    } else if (rc == 0) {
        rc = -ERR_CORRUPT;
    }
    db_done(st);
    return rc < 0 ? rc : 0;
}

static int load_cluster(struct db *db, struct fsm_vars *v)
{
    struct db_stmt *st = db_prepare(
        db, "SELECT c.id, c.config_version, p.epoch, p.term, p.\"index\""
            " FROM clusters c LEFT JOIN authority_applied p ON p.cluster_id = c.id");
    int rc = db_step(st);
    if (rc == 1) {
        struct uuid id;
        const char *text = db_col_text(st, "id");
        int64_t epoch = db_col_int(st, "epoch");
        bool ok = uuid_parse(text, &id) == 0 && epoch >= 1 &&
                  (uint64_t)db_col_int(st, "index") == v->index &&
                  (uint64_t)db_col_int(st, "term") == v->term;
        if (ok) {
            (void)snprintf(v->cluster_id, sizeof v->cluster_id, "%s", text);
            v->epoch = (uint64_t)epoch;
            v->config_index = (uint64_t)db_col_int(st, "config_version");
            rc = db_step(st) == 0 ? 0 : -ERR_CORRUPT;
        } else {
            rc = -ERR_CORRUPT;
        }
    }
    db_done(st);
    return rc;
}

static int load_audit(struct db *db, struct fsm_vars *v)
{
    struct db_stmt *st = db_prepare(
        db, "SELECT seq, hash, (SELECT count(*) FROM cluster_audit_events) AS rows_count"
            " FROM cluster_audit_events ORDER BY seq DESC LIMIT 1");
    int rc = db_step(st);
    if (rc == 1) {
        int64_t seq = db_col_int(st, "seq");
        rc = hex32(db_col_text(st, "hash"), v->audit_head);
        if (seq < 1 || db_col_int(st, "rows_count") != seq) {
            rc = -ERR_CORRUPT;
        }
        v->audit_seq = (uint64_t)seq;
    }
    db_done(st);
    return rc;
}

static int load_pending(struct db *db, struct fsm_vars *v)
{
    int64_t n = 0;
    int rc = fsm_one_int(
        db_prepare(db, "SELECT count(*) FROM node_join_requests WHERE status = 'pending'"), &n);
    v->pending_requests = (uint64_t)n;
    return rc < 0 ? rc : 0;
}

int fsm_state_load(struct db *db, struct fsm_vars *ret_vars, uint8_t ret_digest[32],
                   struct errmsg *em)
{
    struct fsm_vars v = {0};
    int rc = load_position(db, &v, ret_digest);
    if (rc == 0) {
        rc = load_cluster(db, &v);
    }
    if (rc == 0) {
        rc = load_audit(db, &v);
    }
    if (rc == 0) {
        rc = load_pending(db, &v);
    }
    if (rc != 0) {
        return errmsg_set(em, -ERR_CORRUPT, "image: position or audit head do not fit its rows");
    }
    *ret_vars = v;
    return 0;
}

/* Reads the image in place, read-only. */
static int open_image(struct blob image, struct db **ret, struct errmsg *em)
{
    struct db *db;
    int rc = fsm_db_open(&db, em);
    if (rc != 0) {
        return rc;
    }
    unsigned char *bytes = (unsigned char *)(uintptr_t)image.data;
    int rv = sqlite3_deserialize(db_handle(db), "main", bytes, (sqlite3_int64)image.len,
                                 (sqlite3_int64)image.len, SQLITE_DESERIALIZE_READONLY);
    if (rv != SQLITE_OK) {
        rc = errmsg_set(em, -ERR_CORRUPT, "image: %s", sqlite3_errstr(rv));
    }
    if (rc == 0) {
        rc = expect_text(db, "PRAGMA integrity_check(1)", "ok", em);
    }
    if (rc != 0) {
        db_close(db);
        return rc;
    }
    *ret = db;
    return 0;
}

struct fsm_prepared {
    struct db *db;
    struct fsm_vars vars;
    uint8_t digest[32];
};

void fsm_prepared_free(struct fsm_prepared *p)
{
    if (p != NULL) {
        db_close(p->db);
        free(p);
    }
}

const struct db_migration *fsm_schema(const struct fsm *f)
{
    return f->schema;
}

int fsm_prepare(const struct db_migration *schema, struct blob image, struct fsm_prepared **ret,
                struct errmsg *em)
{
    if (image.len > IMAGE_MAX_BYTES) {
        return errmsg_set(em, -ERR_TOO_LARGE, "image of %zu bytes", image.len);
    }
    struct db *from = NULL;
    struct db *db = NULL;
    struct fsm_vars vars = {0};
    uint8_t digest[32];
    int rc = open_image(image, &from, em);
    if (rc == 0) {
        rc = fsm_db_open(&db, em);
    }
    if (rc == 0) {
        rc = copy_pages(from, db, em);
    }
    unsigned level = 0;
    if (rc == 0) {
        rc = fsm_schema_check(db, schema, &level, em);
    }
    if (rc == 0) {
        rc = fsm_state_load(db, &vars, digest, em);
        vars.level = level;
    }
    db_close(from);
    if (rc != 0) {
        db_close(db);
        return rc;
    }
    struct fsm_prepared *p = xmalloc(sizeof *p);
    *p = (struct fsm_prepared){.db = db, .vars = vars};
    memcpy(p->digest, digest, sizeof digest);
    *ret = p;
    return 0;
}

void fsm_adopt(struct fsm *f, struct fsm_prepared *p)
{
    struct db *old = f->db;
    f->db = p->db;
    p->db = old;
    f->vars = p->vars;
    memcpy(f->digest, p->digest, sizeof f->digest);
    f->ring_count = 0;
    f->ring_next = 0;
    if (f->vars.index > 0) {
        fsm_ring_push(f, f->vars.index, f->digest);
    }
    fsm_track_attach(f);
    fsm_witness_load(f);
    fsm_prepared_free(p);
}

int fsm_restore(struct fsm *f, struct blob image, struct errmsg *em)
{
    struct fsm_prepared *p;
    int rc = fsm_prepare(f->schema, image, &p, em);
    if (rc == 0) {
        fsm_adopt(f, p);
    }
    return rc;
}
