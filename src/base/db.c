#include "base/db.h"

#include "base/db_pages.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>

struct db_stmt {
    struct db *db;
    sqlite3_stmt *raw;
    const char *sql; /* sqlite's own copy */
    int bound;
    int broken; /* the error that every step returns; such a statement is not kept */
    bool in_use;
    UT_hash_handle hh;
};

/* SQL is nearly always one constant at one address: that finds its statement without reading the
 * text. The text is still what counts, so a hit is compared with it (one run over bytes that are
 * equal). */
#define BY_ADDRESS 256 /* the upper byte of a hash */

struct db {
    sqlite3 *raw;
    struct db_stmt *stmts;
    struct {
        const char *sql;
        struct db_stmt *st;
    } by_address[BY_ADDRESS];
};

static int translate(int rv)
{
    switch (rv & 0xff) {
        case SQLITE_OK:
        case SQLITE_DONE:
        case SQLITE_ROW:
            return 0;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
            return -ERR_CORRUPT;
        case SQLITE_CONSTRAINT:
            return -ERR_CONFLICT;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
            return -ERR_BUSY;
        case SQLITE_TOOBIG:
            return -ERR_TOO_LARGE;
        default: /* SQLite's list is open-ended; all the rest is the outside world failing */
            return -ERR_IO;
    }
}

static const char durable_pragmas[] = "PRAGMA locking_mode=EXCLUSIVE;"
                                      "PRAGMA journal_mode=WAL;"
                                      "PRAGMA synchronous=FULL;"
                                      "PRAGMA cell_size_check=ON;"
                                      "PRAGMA mmap_size=0;"
                                      "PRAGMA foreign_keys=ON;";
static const char memory_pragmas[] = "PRAGMA journal_mode=MEMORY;"
                                     "PRAGMA foreign_keys=ON;";

/* Before SQLite starts, for the whole process: without its count of all memory in use an
 * allocation takes no lock. Every thread but the log writer would pay for a number nobody reads. */
static void configure(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    db_pages_install();
}

int db_open(const char *path, enum db_kind kind, struct db **ret, struct errmsg *em)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int rc = 0;
    (void)pthread_once(&once, configure);
    struct db *db = xcalloc(1, sizeof *db);
    if (kind == DB_DURABLE) {
        /* Only to give a new file its mode. An existing one is left alone: closing a second
         * descriptor of it would drop the locks of a handle this process has open already. */
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno != EEXIST) {
            rc = errmsg_set(em, -ERR_IO, "create %s: %s", path, strerror(errno));
            goto out;
        }
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    int rv = sqlite3_open_v2(kind == DB_MEMORY ? ":memory:" : path, &db->raw,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                             NULL);
    if (rv != SQLITE_OK) {
        rc = errmsg_set(em, translate(rv), "%s: %s", path, sqlite3_errstr(rv));
        goto out;
    }
    (void)sqlite3_extended_result_codes(db->raw, 1);
    rc = db_exec(db, kind == DB_MEMORY ? memory_pragmas : durable_pragmas, em);
    if (rc != 0) {
        errmsg_wrap(em, rc, "%s", kind == DB_MEMORY ? "memory database" : path);
        goto out;
    }
    *ret = db;
    db = NULL;
out:
    db_close(db);
    return rc;
}

void db_close(struct db *db)
{
    if (db == NULL) {
        return;
    }
    struct db_stmt *st = db->stmts;
    HASH_CLEAR(hh, db->stmts); /* the items stay chained */
    while (st != NULL) {
        struct db_stmt *next = st->hh.next;
        (void)sqlite3_finalize(st->raw);
        free(st);
        st = next;
    }
    (void)sqlite3_close_v2(db->raw);
    free(db);
}

sqlite3 *db_handle(struct db *db)
{
    return db->raw;
}

const char *db_errmsg(struct db *db)
{
    return sqlite3_errmsg(db->raw);
}

int db_exec(struct db *db, const char *sql, struct errmsg *em)
{
    int rv = sqlite3_exec(db->raw, sql, NULL, NULL, NULL);
    if (rv != SQLITE_OK) {
        return errmsg_set(em, translate(rv), "sqlite: %s", sqlite3_errmsg(db->raw));
    }
    return 0;
}

int db_begin(struct db *db)
{
    return db_run(db_prepare(db, "BEGIN IMMEDIATE"));
}

int db_commit(struct db *db)
{
    return db_run(db_prepare(db, "COMMIT"));
}

void db_rollback(struct db *db)
{
    if (!sqlite3_get_autocommit(db->raw)) {
        (void)db_run(db_prepare(db, "ROLLBACK"));
    }
}

static struct db_stmt *find(struct db *db, const char *sql)
{
    size_t slot = ((uintptr_t)sql * 0x9e3779b97f4a7c15u) >> 56;
    struct db_stmt *st = db->by_address[slot].st;
    if (st == NULL || db->by_address[slot].sql != sql || strcmp(st->sql, sql) != 0) {
        HASH_FIND_STR(db->stmts, sql, st);
        db->by_address[slot].sql = sql;
        db->by_address[slot].st = st;
    }
    return st;
}

struct db_stmt *db_prepare(struct db *db, const char *sql)
{
    struct db_stmt *st = find(db, sql);
    if (st == NULL) {
        st = xcalloc(1, sizeof *st);
        st->db = db;
        int rv = sqlite3_prepare_v3(db->raw, sql, -1, SQLITE_PREPARE_PERSISTENT, &st->raw, NULL);
        if (rv == SQLITE_ERROR) {
            fatal("statement does not prepare: %s: %s", sqlite3_errmsg(db->raw), sql);
        }
        if (rv != SQLITE_OK) {
            /* Preparing reads the schema from the disk: that is not our bug. */
            st->broken = translate(rv);
            st->in_use = true;
            return st;
        }
        st->sql = sqlite3_sql(st->raw);
        HASH_ADD_KEYPTR(hh, db->stmts, st->sql, strlen(st->sql), st);
    }
    CHECK(!st->in_use);
    st->in_use = true;
    st->bound = 0;
    return st;
}

static int next_param(struct db_stmt *st)
{
    st->bound++;
    if (st->broken != 0) {
        return 0;
    }
    CHECK(st->bound <= sqlite3_bind_parameter_count(st->raw));
    return st->bound;
}

void db_bind_int(struct db_stmt *st, int64_t v)
{
    int i = next_param(st);
    CHECK(i == 0 || sqlite3_bind_int64(st->raw, i, v) == SQLITE_OK);
}

void db_bind_text(struct db_stmt *st, const char *v)
{
    if (v == NULL) {
        db_bind_null(st);
    } else {
        db_bind_textn(st, v, strlen(v));
    }
}

void db_bind_textn(struct db_stmt *st, const char *v, size_t len)
{
    int i = next_param(st);
    CHECK(i == 0 || sqlite3_bind_text64(st->raw, i, len == 0 ? "" : v, len, SQLITE_STATIC,
                                        SQLITE_UTF8) == SQLITE_OK);
}

void db_bind_blob(struct db_stmt *st, struct blob v)
{
    int i = next_param(st);
    CHECK(i == 0 || sqlite3_bind_blob64(st->raw, i, v.len == 0 ? (const void *)"" : v.data, v.len,
                                        SQLITE_STATIC) == SQLITE_OK);
}

void db_bind_null(struct db_stmt *st)
{
    int i = next_param(st);
    CHECK(i == 0 || sqlite3_bind_null(st->raw, i) == SQLITE_OK);
}

int db_step(struct db_stmt *st)
{
    CHECK(st->in_use);
    if (st->broken != 0) {
        return st->broken;
    }
    CHECK(st->bound == sqlite3_bind_parameter_count(st->raw));
    int rv = sqlite3_step(st->raw);
    if (rv == SQLITE_ROW) {
        return 1;
    }
    return rv == SQLITE_DONE ? 0 : translate(rv);
}

void db_done(struct db_stmt *st)
{
    if (st->broken != 0) {
        free(st);
        return;
    }
    /* What was bound stays and is never looked at: a step needs every parameter bound again. */
    (void)sqlite3_reset(st->raw);
    st->in_use = false;
}

int db_run(struct db_stmt *st)
{
    int rc;
    do {
        rc = db_step(st);
    } while (rc == 1);
    db_done(st);
    return rc;
}

int64_t db_changes(struct db *db)
{
    return sqlite3_changes64(db->raw);
}

static int column(struct db_stmt *st, const char *name)
{
    int n = sqlite3_column_count(st->raw);
    for (int i = 0; i < n; i++) {
        if (strcmp(sqlite3_column_name(st->raw, i), name) == 0) {
            return i;
        }
    }
    fatal("no column %s in: %s", name, st->sql);
}

int64_t db_col_int(struct db_stmt *st, const char *name)
{
    return sqlite3_column_int64(st->raw, column(st, name));
}

const char *db_col_text(struct db_stmt *st, const char *name)
{
    const unsigned char *s = sqlite3_column_text(st->raw, column(st, name));
    return s == NULL ? "" : (const char *)s;
}

struct blob db_col_blob(struct db_stmt *st, const char *name)
{
    int i = column(st, name);
    const void *p = sqlite3_column_blob(st->raw, i);
    return blob_of(p, (size_t)sqlite3_column_bytes(st->raw, i));
}

bool db_col_is_null(struct db_stmt *st, const char *name)
{
    return sqlite3_column_type(st->raw, column(st, name)) == SQLITE_NULL;
}

sqlite3_stmt *db_stmt_handle(struct db_stmt *st)
{
    return st->raw;
}

int db_version(struct db *db, int64_t *ret)
{
    struct db_stmt *st = db_prepare(db, "PRAGMA user_version");
    int rc = db_step(st);
    if (rc == 1) {
        *ret = db_col_int(st, "user_version");
    }
    db_done(st);
    return rc < 0 ? rc : 0;
}

int64_t db_migrations_count(const struct db_migration *list)
{
    int64_t n = 0;
    while (list[n].name != NULL) {
        n++;
    }
    return n;
}

int db_migration_run(struct db *db, const struct db_migration *list, int64_t i, struct errmsg *em)
{
    char set_version[64];
    (void)snprintf(set_version, sizeof set_version, "PRAGMA user_version=%lld", (long long)i + 1);
    int rc = db_exec(db, list[i].sql, em);
    if (rc == 0) {
        rc = db_exec(db, set_version, em);
    }
    return rc == 0 ? 0 : errmsg_wrap(em, rc, "migration %s", list[i].name);
}

static int run_migrations(struct db *db, const struct db_migration *list, int64_t from, int64_t to,
                          struct errmsg *em)
{
    int rc = 0;
    for (int64_t i = from; rc == 0 && i < to; i++) {
        rc = db_begin(db);
        if (rc == 0) {
            rc = db_migration_run(db, list, i, em);
        }
        if (rc == 0) {
            rc = db_commit(db);
        }
        if (rc != 0) {
            db_rollback(db);
        }
    }
    return rc;
}

/* What a statement of ours may rely on is there, as the migrations made it: a damaged schema is
 * found here and not by a statement that does not prepare. */
static int check_schema(struct db *db, const struct db_migration *list, int64_t version,
                        struct errmsg *em)
{
    struct db *model = NULL;
    int rc = db_open(NULL, DB_MEMORY, &model, em);
    if (rc != 0) {
        return rc;
    }
    CHECK(model != NULL);
    rc = run_migrations(model, list, 0, version, em);
    if (rc != 0) {
        db_close(model);
        return rc;
    }
    struct db_stmt *want = db_prepare(model, "SELECT type, name, sql FROM sqlite_schema"
                                             " WHERE sql IS NOT NULL");
    while (rc == 0 && db_step(want) == 1) {
        struct db_stmt *have = db_prepare(db, "SELECT sql FROM sqlite_schema"
                                              " WHERE type = ? AND name = ?");
        db_bind_text(have, db_col_text(want, "type"));
        db_bind_text(have, db_col_text(want, "name"));
        int found = db_step(have);
        if (found < 0) {
            rc = errmsg_set(em, found, "cannot read the schema: %s", db_errmsg(db));
        } else if (found == 0 || strcmp(db_col_text(have, "sql"), db_col_text(want, "sql")) != 0) {
            rc = errmsg_set(em, -ERR_CORRUPT, "%s %s is not what its migrations made",
                            db_col_text(want, "type"), db_col_text(want, "name"));
        }
        db_done(have);
    }
    db_done(want);
    db_close(model);
    return rc;
}

int db_migrate(struct db *db, const struct db_migration *list, struct errmsg *em)
{
    return db_migrate_to(db, list, db_migrations_count(list), em);
}

int db_migrate_to(struct db *db, const struct db_migration *list, int64_t version,
                  struct errmsg *em)
{
    int64_t have = 0;
    int rc = db_version(db, &have);
    if (rc != 0) {
        return errmsg_set(em, rc, "cannot read the schema version: %s", db_errmsg(db));
    }
    if (have < 0) {
        return errmsg_set(em, -ERR_CORRUPT, "database has schema %lld", (long long)have);
    }
    if (have > version) {
        return errmsg_set(em, -ERR_SCHEMA,
                          "database has schema %lld, this binary knows up to %lld: use the newer "
                          "binary that wrote it",
                          (long long)have, (long long)version);
    }
    rc = run_migrations(db, list, have, version, em);
    return rc == 0 && have > 0 ? check_schema(db, list, version, em) : rc;
}
