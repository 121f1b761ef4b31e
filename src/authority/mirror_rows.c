#include "authority/mirror_rows.h"

#include "base/text.h"

#include <uthash.h>

#define SQL_MAX (64u << 10)
#define ARRAY_MAX (256u << 20)

/* --- the schema --- */

static const char *pg_type(const char *declared)
{
    if (strcmp(declared, "INTEGER") == 0) {
        return "bigint";
    }
    if (strcmp(declared, "BLOB") == 0) {
        return "bytea";
    }
    CHECK(strcmp(declared, "TEXT") == 0);
    return "text";
}

static void list_columns(const struct mirror_table *t, struct buf *out, const char *prefix,
                         const char *after)
{
    for (size_t i = 0; i < t->count; i++) {
        if (!mirror_is_cluster_id(&t->columns[i])) {
            buf_addf(out, "%s\"%s\"%s", prefix, t->columns[i].name, after);
        }
    }
}

static void list_keys(const struct mirror_table *t, struct buf *out)
{
    for (size_t i = 0; i < t->keys_count; i++) {
        buf_addf(out, "%s\"%s\"", i == 0 ? "" : ", ", t->columns[t->keys[i]].name);
    }
}

static void order_by_keys(const struct mirror_table *t, struct buf *out)
{
    if (t->keys_count > 0) {
        buf_add_str(out, " ORDER BY ");
        list_keys(t, out);
    }
}

static void make_upsert(const struct mirror_table *t, struct buf *sql)
{
    unsigned param = 2;
    bool any = false;
    buf_addf(sql, "INSERT INTO rap.\"%s\" AS m (\"cluster_id\"", t->name);
    list_columns(t, sql, ", ", "");
    buf_add_str(sql, ") SELECT $1::text, u.* FROM unnest(");
    for (size_t i = 0; i < t->count; i++) {
        if (!mirror_is_cluster_id(&t->columns[i])) {
            buf_addf(sql, "%s$%u::%s[]", param == 2 ? "" : ", ", param, t->columns[i].type);
            param++;
        }
    }
    buf_addf(sql, ") AS u ON CONFLICT (\"cluster_id\"%s", t->keys_count == 0 ? "" : ", ");
    list_keys(t, sql);
    buf_add_str(sql, ") DO ");
    for (size_t i = 0; i < t->count; i++) {
        const struct mirror_column *c = &t->columns[i];
        if (!c->key && !mirror_is_cluster_id(c)) {
            buf_addf(sql, "%s\"%s\" = EXCLUDED.\"%s\"", any ? ", " : "UPDATE SET ", c->name,
                     c->name);
            any = true;
        }
    }
    buf_add_str(sql, any ? "" : "NOTHING");
}

static void make_remove(const struct mirror_table *t, struct buf *sql)
{
    if (t->keys_count == 0) { /* one row a cluster */
        buf_addf(sql, "DELETE FROM rap.\"%s\" WHERE \"cluster_id\" = $1::text", t->name);
        return;
    }
    buf_addf(sql, "DELETE FROM rap.\"%s\" AS m USING unnest(", t->name);
    for (size_t i = 0; i < t->keys_count; i++) {
        buf_addf(sql, "%s$%zu::%s[]", i == 0 ? "" : ", ", i + 2, t->columns[t->keys[i]].type);
    }
    buf_add_str(sql, ") AS u(");
    list_keys(t, sql);
    buf_add_str(sql, ") WHERE m.\"cluster_id\" = $1::text");
    for (size_t i = 0; i < t->keys_count; i++) {
        const char *name = t->columns[t->keys[i]].name;
        buf_addf(sql, " AND m.\"%s\" = u.\"%s\"", name, name);
    }
}

static void make_page(const struct mirror_table *t, bool next, struct buf *sql)
{
    buf_add_str(sql, "SELECT ");
    const char *comma = "";
    for (size_t i = 0; i < t->count; i++) {
        if (!mirror_is_cluster_id(&t->columns[i])) {
            buf_addf(sql, "%s\"%s\"", comma, t->columns[i].name);
            comma = ", ";
        }
    }
    buf_addf(sql, " FROM rap.\"%s\" WHERE \"cluster_id\" = $1::text", t->name);
    if (next && t->keys_count > 0) {
        buf_add_str(sql, " AND (");
        list_keys(t, sql);
        buf_add_str(sql, ") > (");
        for (size_t i = 0; i < t->keys_count; i++) {
            buf_addf(sql, "%s$%zu::%s", i == 0 ? "" : ", ", i + 2, t->columns[t->keys[i]].type);
        }
        buf_add_str(sql, ")");
    }
    order_by_keys(t, sql);
    buf_addf(sql, " LIMIT %d", MIRROR_PAGE_ROWS);
}

static void make_first_page(const struct mirror_table *t, struct buf *sql)
{
    make_page(t, false, sql);
}

static void make_next_page(const struct mirror_table *t, struct buf *sql)
{
    make_page(t, true, sql);
}

static void make_local(const struct mirror_table *t, struct buf *sql)
{
    buf_add_str(sql, "SELECT ");
    for (size_t i = 0; i < t->count; i++) {
        buf_addf(sql, "%s\"%s\"", i == 0 ? "" : ", ", t->columns[i].name);
    }
    buf_addf(sql, " FROM \"%s\"", t->name);
    order_by_keys(t, sql);
}

static char *made(void (*make)(const struct mirror_table *t, struct buf *sql),
                  const struct mirror_table *t)
{
    struct buf sql;
    buf_init(&sql, SQL_MAX);
    make(t, &sql);
    CHECK(sql.err == 0);
    char *text = xstrdup(buf_cstr(&sql));
    buf_fini(&sql);
    return text;
}

static void finish_table(struct mirror_table *t)
{
    t->upsert = made(make_upsert, t);
    t->remove = made(make_remove, t);
    t->first_page = made(make_first_page, t);
    t->next_page = made(make_next_page, t);
    t->local = made(make_local, t);
}

static void add_column(struct mirror_table *t, struct db_stmt *st)
{
    CHECK(t->count < MIRROR_COLUMNS_MAX);
    t->columns = xrealloc(t->columns, (t->count + 1) * sizeof *t->columns);
    struct mirror_column *c = &t->columns[t->count];
    int64_t place = db_col_int(st, "pk");
    *c = (struct mirror_column){
        .name = xstrdup(db_col_text(st, "col")),
        .type = pg_type(db_col_text(st, "type")),
        .key = place > 0,
    };
    t->count++;
}

/* Columns come in the table's order, keys have an order of their own. */
static void load_keys(struct mirror_table *t, struct db *state)
{
    struct db_stmt *st = db_prepare(state, "SELECT cid FROM pragma_table_info(?) WHERE pk > 0"
                                           " ORDER BY pk");
    db_bind_text(st, t->name);
    while (db_step(st) == 1) {
        size_t i = (size_t)db_col_int(st, "cid");
        if (!mirror_is_cluster_id(&t->columns[i])) {
            t->keys[t->keys_count++] = i;
        }
    }
    db_done(st);
}

void mirror_tables_load(struct mirror_tables *t, struct db *state)
{
    *t = (struct mirror_tables){0};
    struct db_stmt *st = db_prepare(
        state, "SELECT m.name AS tbl, p.name AS col, p.type AS type, p.pk AS pk"
               " FROM sqlite_schema m JOIN pragma_table_info(m.name) p"
               " WHERE m.type = 'table' AND m.name NOT IN ('authority_applied', 'fsm_state')"
               " AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, p.cid");
    while (db_step(st) == 1) {
        const char *name = db_col_text(st, "tbl");
        struct mirror_table *last = t->count == 0 ? NULL : &t->list[t->count - 1];
        if (last == NULL || strcmp(last->name, name) != 0) {
            t->list = xrealloc(t->list, (t->count + 1) * sizeof *t->list);
            last = &t->list[t->count++];
            *last = (struct mirror_table){.name = xstrdup(name)};
        }
        add_column(last, st);
    }
    db_done(st);
    for (size_t i = 0; i < t->count; i++) {
        load_keys(&t->list[i], state);
        finish_table(&t->list[i]);
    }
}

void mirror_tables_fini(struct mirror_tables *t)
{
    for (size_t i = 0; i < t->count; i++) {
        struct mirror_table *m = &t->list[i];
        for (size_t k = 0; k < m->count; k++) {
            free(m->columns[k].name);
        }
        free(m->columns);
        free(m->name);
        free(m->upsert);
        free(m->remove);
        free(m->first_page);
        free(m->next_page);
        free(m->local);
    }
    free(t->list);
    *t = (struct mirror_tables){0};
}

const struct mirror_table *mirror_tables_find(const struct mirror_tables *t, struct blob name)
{
    for (size_t i = 0; i < t->count; i++) {
        if (blob_equal(blob_str(t->list[i].name), name)) {
            return &t->list[i];
        }
    }
    return NULL;
}

static const char *statement(const struct mirror_table *t, char op, char out[MIRROR_STMT_MAX])
{
    (void)snprintf(out, MIRROR_STMT_MAX, "%c_%s", op, t->name);
    return out;
}

void mirror_tables_prepare(const struct mirror_tables *t, struct pg_link *l, unsigned tag)
{
    char name[MIRROR_STMT_MAX];
    for (size_t i = 0; i < t->count; i++) {
        const struct mirror_table *m = &t->list[i];
        pg_prepare(l, tag, statement(m, 'U', name), m->upsert);
        pg_prepare(l, tag, statement(m, 'D', name), m->remove);
    }
}

/* --- values --- */

int mirror_value(struct mp_reader *r, struct buf *out, struct mirror_value *ret)
{
    buf_clear(out);
    *ret = (struct mirror_value){.text = NULL};
    switch (mp_peek(r)) {
        case MP_NIL:
            mp_get_nil(r);
            return 0;
        case MP_UINT:
        case MP_INT:
            buf_addf(out, "%lld", (long long)mp_get_i64(r));
            break;
        case MP_STR: {
            struct blob text = mp_get_str(r, SIZE_MAX);
            if (!text_is_utf8((const char *)text.data, text.len)) {
                return -ERR_UNSUPPORTED;
            }
            buf_add(out, text.data, text.len);
            break;
        }
        case MP_BIN: {
            struct blob bytes = mp_get_bin(r, SIZE_MAX);
            buf_add_str(out, "\\x");
            char *hex = (char *)buf_grow(out, 2 * bytes.len + 1);
            CHECK(hex != NULL);
            hex_encode(bytes.data, bytes.len, hex);
            out->len--;
            break;
        }
        case MP_BOOL:
        case MP_ARRAY:
        case MP_MAP:
        case MP_BAD:
            CHECK(false); /* rows are made by fsm_track.c, of STRICT tables */
    }
    CHECK(r->err == 0 && out->err == 0);
    *ret = (struct mirror_value){.text = buf_cstr(out), .len = out->len};
    return 0;
}

/* --- groups --- */

struct mirror_row {
    const struct mirror_table *table;
    char op; /* what happened last */
    struct blob row;
    uint8_t *copy; /* of row, when it is ours */
    UT_hash_handle hh;
    size_t key_len;
    uint8_t key[]; /* number of the table, then its key columns as msgpack */
};

void mirror_group_init(struct mirror_group *g, const struct mirror_tables *tables)
{
    *g = (struct mirror_group){.tables = tables};
}

void mirror_group_clear(struct mirror_group *g)
{
    struct mirror_row *row = g->rows;
    HASH_CLEAR(hh, g->rows); /* the items stay chained */
    while (row != NULL) {
        struct mirror_row *next = row->hh.next;
        free(row->copy);
        free(row);
        row = next;
    }
    mirror_group_init(g, g->tables);
}

/* Spans of the columns in a row. */
static bool split(const struct mirror_table *t, struct blob row, struct blob *columns)
{
    struct mp_reader r;
    mp_reader_init(&r, row);
    uint32_t n = mp_get_array(&r, MIRROR_COLUMNS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        columns[i] = mp_skip(&r);
    }
    return mp_reader_finish(&r) == 0 && n == t->count;
}

static struct mirror_row *put(struct mirror_group *g, const struct mirror_table *t, char op,
                              struct blob row)
{
    struct blob columns[MIRROR_COLUMNS_MAX];
    size_t len = sizeof(uint32_t);
    if (!split(t, row, columns)) {
        g->err = errmsg_set(&g->em, -ERR_UNSUPPORTED, "a row of %s has other columns", t->name);
        return NULL;
    }
    for (size_t i = 0; i < t->keys_count; i++) {
        len += columns[t->keys[i]].len;
    }
    struct mirror_row *item = xcalloc(1, sizeof *item + len);
    uint32_t number = (uint32_t)(t - g->tables->list);
    memcpy(item->key, &number, sizeof number);
    item->key_len = sizeof number;
    for (size_t i = 0; i < t->keys_count; i++) {
        struct blob k = columns[t->keys[i]];
        memcpy(item->key + item->key_len, k.data, k.len);
        item->key_len += k.len;
    }
    struct mirror_row *known;
    HASH_FIND(hh, g->rows, item->key, item->key_len, known);
    if (known != NULL) {
        free(item);
        free(known->copy);
        known->copy = NULL;
        item = known;
    } else {
        HASH_ADD_KEYPTR(hh, g->rows, item->key, item->key_len, item);
        g->count++;
    }
    item->table = t;
    item->op = op;
    item->row = row;
    g->bytes += row.len;
    return item;
}

void mirror_group_put(struct mirror_group *g, const struct mirror_table *t, char op,
                      struct blob row)
{
    struct mirror_row *item = put(g, t, op, row);
    if (item != NULL) {
        item->copy = xmalloc(row.len);
        memcpy(item->copy, row.data, row.len);
        item->row = blob_of(item->copy, row.len);
    }
}

void mirror_group_add(struct mirror_group *g, struct blob changes)
{
    struct fsm_change c;
    while (g->err == 0 && fsm_change_next(&changes, &c)) {
        const struct mirror_table *t = mirror_tables_find(g->tables, c.table);
        if (t != NULL) {
            (void)put(g, t, c.op, c.row);
        }
    }
}

/* An array literal under construction, one a column. */
static void put_element(struct buf *out, const struct mirror_value *v)
{
    buf_add(out, out->len == 0 ? "{" : ",", 1);
    if (v->text == NULL) {
        buf_add_str(out, "NULL");
        return;
    }
    buf_add(out, "\"", 1);
    const char *p = v->text;
    const char *end = p + v->len;
    while (p < end) {
        size_t plain = strcspn(p, "\"\\");
        buf_add(out, p, plain);
        p += plain;
        if (p < end) {
            buf_add(out, "\\", 1);
            buf_add(out, p, 1);
            p++;
        }
    }
    buf_add(out, "\"", 1);
}

struct arrays {
    struct buf columns[MIRROR_COLUMNS_MAX];
    size_t rows;
};

static void add_row(struct mirror_group *g, struct arrays *a, const struct mirror_row *row)
{
    struct blob columns[MIRROR_COLUMNS_MAX];
    struct buf text;
    const struct mirror_table *t = row->table;
    CHECK(split(t, row->row, columns));
    buf_init(&text, ARRAY_MAX);
    size_t n = row->op == 'D' ? t->keys_count : t->count;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t column = row->op == 'D' ? t->keys[i] : i;
        if (row->op != 'D' && mirror_is_cluster_id(&t->columns[column])) {
            continue;
        }
        struct mp_reader r;
        struct mirror_value v;
        mp_reader_init(&r, columns[column]);
        if (mirror_value(&r, &text, &v) != 0) {
            g->err = errmsg_set(&g->em, -ERR_UNSUPPORTED,
                                "%s.%s holds text that PostgreSQL cannot hold", t->name,
                                t->columns[column].name);
        }
        put_element(&a->columns[at++], &v);
    }
    a->rows++;
    buf_fini(&text);
}

static void send_arrays(struct arrays *a, const struct mirror_table *t, char op, struct pg_link *l,
                        unsigned tag, const char *cluster_id)
{
    const char *params[MIRROR_COLUMNS_MAX + 1] = {cluster_id};
    char name[MIRROR_STMT_MAX];
    int n = 1;
    for (size_t i = 0; i < MIRROR_COLUMNS_MAX && a->columns[i].len > 0; i++) {
        buf_add(&a->columns[i], "}", 1);
        CHECK(a->columns[i].err == 0);
        params[n++] = buf_cstr(&a->columns[i]);
    }
    pg_run(l, tag, statement(t, op, name), n, params);
}

void mirror_group_send(struct mirror_group *g, struct pg_link *l, unsigned tag,
                       const char *cluster_id)
{
    for (size_t i = 0; g->rows != NULL && i < g->tables->count; i++) {
        const struct mirror_table *t = &g->tables->list[i];
        struct arrays sets[2] = {{.rows = 0}, {.rows = 0}};
        for (size_t k = 0; k < MIRROR_COLUMNS_MAX; k++) {
            buf_init(&sets[0].columns[k], ARRAY_MAX);
            buf_init(&sets[1].columns[k], ARRAY_MAX);
        }
        for (struct mirror_row *r = g->rows; r != NULL; r = r->hh.next) {
            if (r->table == t) {
                add_row(g, &sets[r->op == 'D'], r);
            }
        }
        for (int k = 0; k < 2 && g->err == 0; k++) {
            if (sets[k].rows > 0) {
                send_arrays(&sets[k], t, k == 0 ? 'U' : 'D', l, tag, cluster_id);
            }
        }
        for (size_t k = 0; k < MIRROR_COLUMNS_MAX; k++) {
            buf_fini(&sets[0].columns[k]);
            buf_fini(&sets[1].columns[k]);
        }
    }
}
