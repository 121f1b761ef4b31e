/* The tables of the replicated state as PostgreSQL has them, and groups of row changes as statements
 * (DESIGN D10). The SQL is made from the state's own schema, so a new table needs none here.
 *
 * A group goes over as one upsert and one delete a table, with its rows as arrays: each row once,
 * with what happened to it last. Rows of different keys never depend on one another in PostgreSQL. */
#ifndef RAP_AUTHORITY_MIRROR_ROWS_H
#define RAP_AUTHORITY_MIRROR_ROWS_H

#include "authority/fsm.h"
#include "authority/pg_link.h"

#define MIRROR_COLUMNS_MAX 40
#define MIRROR_STMT_MAX 96    /* name of a prepared statement */
#define MIRROR_PAGE_ROWS 1000 /* of a scan */
#define MIRROR_ROW_MAX (32u << 20)

struct mirror_column {
    char *name;
    const char *type; /* PostgreSQL's */
    bool key;
};
struct mirror_table {
    char *name;
    struct mirror_column *columns; /* in the state's order; cluster_id too, if it has one */
    size_t count;
    size_t
        keys[MIRROR_COLUMNS_MAX]; /* columns of the primary key in its order, without cluster_id: */
    size_t keys_count;            /* none when there is one row a cluster */
    /* SQL. Pages read the cluster's rows in PostgreSQL by key, local those of the state; the columns
     * but cluster_id come in the same order. */
    char *upsert, *remove, *first_page, *next_page, *local;
};
struct mirror_tables {
    struct mirror_table *list; /* by name */
    size_t count;
};
/* Reads the schema of a state. Text that would need a column type PostgreSQL is not given is our own
 * bug. */
void mirror_tables_load(struct mirror_tables *t, struct db *state);
void mirror_tables_fini(struct mirror_tables *t);
const struct mirror_table *mirror_tables_find(const struct mirror_tables *t, struct blob name);
static inline bool mirror_is_cluster_id(const struct mirror_column *c)
{
    return strcmp(c->name, "cluster_id") == 0;
}

/* One value as PostgreSQL's text has it: bytes of "\x..." for bytea. NULL text is SQL's NULL. */
struct mirror_value {
    const char *text;
    size_t len;
};

/* --- a group of changes --- */
struct mirror_row;
struct mirror_group {
    const struct mirror_tables *tables;
    struct mirror_row *rows; /* uthash, in order of first change */
    size_t count, bytes;
    int err; /* sticky: -ERR_UNSUPPORTED, text in em */
    struct errmsg em;
};
void mirror_group_init(struct mirror_group *g, const struct mirror_tables *tables);
void mirror_group_clear(struct mirror_group *g);
/* All changes of one entry; `changes` must stay until the group is sent or cleared. */
void mirror_group_add(struct mirror_group *g, struct blob changes);
/* One row, copied: msgpack array in the order of the columns. */
void mirror_group_put(struct mirror_group *g, const struct mirror_table *t, char op,
                      struct blob row);
/* Sends it: for each table mirror_stmt_upsert and mirror_stmt_remove with tag. No pg_sync. */
void mirror_group_send(struct mirror_group *g, struct pg_link *l, unsigned tag,
                       const char *cluster_id);

/* Prepares two statements a table. */
void mirror_tables_prepare(const struct mirror_tables *t, struct pg_link *l, unsigned tag);

/* The value of a msgpack item as PostgreSQL's text in out (cleared first). -ERR_UNSUPPORTED: text that
 * PostgreSQL cannot hold (not UTF-8, or with a NUL). */
int mirror_value(struct mp_reader *r, struct buf *out, struct mirror_value *ret);

#endif
