/* SQLite, the way we use it: one handle on one thread, statements prepared once and kept, values
 * bound in order, columns read by name. SQL is a constant beside the function that runs it.
 *
 *     struct db_stmt *st = db_prepare(db, "SELECT name FROM nodes WHERE id = ?");
 *     db_bind_text(st, id);
 *     if (db_step(st) == 1) {
 *         use(db_col_text(st, "name"));      // valid until the next db_step or db_done
 *     }
 *     db_done(st);
 *
 * SQL that is wrong, a bind past the last parameter or a column that is not there is our own bug and
 * fails a CHECK. Errors of the engine come back from db_step as -ERR_IO (disk), -ERR_CORRUPT,
 * -ERR_CONFLICT (a constraint) or -ERR_BUSY. */
#ifndef RAP_BASE_DB_H
#define RAP_BASE_DB_H

#include "base/err.h"

#include <sqlite3.h>

struct db;
struct db_stmt;

enum db_kind {
    DB_MEMORY,  /* journal in memory; for the replicated state */
    DB_DURABLE, /* WAL, synchronous=FULL, cell_size_check, exclusive locking: one writer */
};

/* path is ignored for DB_MEMORY. The file is created 0600. */
int db_open(const char *path, enum db_kind kind, struct db **ret, struct errmsg *em);
/* Finalizes every statement. NULL-safe. */
void db_close(struct db *db);
sqlite3 *db_handle(struct db *db);
const char *db_errmsg(struct db *db);

/* Several statements without parameters or results. */
int db_exec(struct db *db, const char *sql, struct errmsg *em);
int db_begin(struct db *db);
int db_commit(struct db *db);
/* Never fails: a transaction that cannot be rolled back is gone already. */
void db_rollback(struct db *db);

/* The statement for this text, kept by the db (looked up by content). It must not be in use: one
 * db_prepare, then db_done before the next db_prepare of the same text. */
struct db_stmt *db_prepare(struct db *db, const char *sql);
void db_bind_int(struct db_stmt *st, int64_t v);
void db_bind_text(struct db_stmt *st,
                  const char *v); /* NULL binds NULL; not copied, keep until db_done */
void db_bind_textn(struct db_stmt *st, const char *v, size_t len);
void db_bind_blob(struct db_stmt *st, struct blob v);
void db_bind_null(struct db_stmt *st);
/* 1 a row, 0 the end, <0 an error. */
int db_step(struct db_stmt *st);
/* Resets. Always call it. */
void db_done(struct db_stmt *st);
/* Step to the end and done: for statements without rows. 0 or an error. */
int db_run(struct db_stmt *st);
/* Rows changed by the last db_run. */
int64_t db_changes(struct db *db);

int64_t db_col_int(struct db_stmt *st, const char *name);      /* NULL reads as 0 */
const char *db_col_text(struct db_stmt *st, const char *name); /* NULL reads as "" */
struct blob db_col_blob(struct db_stmt *st, const char *name);
bool db_col_is_null(struct db_stmt *st, const char *name);
/* For generic readers: the row as it is. */
sqlite3_stmt *db_stmt_handle(struct db_stmt *st);

/* Migrations: a NULL-terminated array of {name, sql} in order. Each runs in its own transaction
 * with PRAGMA user_version; a database of a higher version is refused with -ERR_SCHEMA, one that
 * lacks something the migrations made with -ERR_CORRUPT. */
struct db_migration {
    const char *name;
    const char *sql;
};
int db_migrate(struct db *db, const struct db_migration *list, struct errmsg *em);
/* Only up to a version: 1 is the first of the list, at most db_migrations_count. */
int db_migrate_to(struct db *db, const struct db_migration *list, int64_t version,
                  struct errmsg *em);
/* One migration and its version, inside the caller's transaction. i: place in the list, from 0. */
int db_migration_run(struct db *db, const struct db_migration *list, int64_t i, struct errmsg *em);
int64_t db_migrations_count(const struct db_migration *list);
/* PRAGMA user_version. */
int db_version(struct db *db, int64_t *ret);

#endif
