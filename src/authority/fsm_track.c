/* Row changes of an entry, in the order they happened, from SQLite's preupdate hook: bytes that the
 * digest is made of and the mirror is fed from. A record is
 *     op, name length, table name, four bytes of row length, row (msgpack array in column order)
 * with the new row for 'I' and 'U' and the old one for 'D'. */
#include "authority/fsm_impl.h"

#define RECORD_HEAD 2

static void put_value(struct mp_writer *w, sqlite3_value *v)
{
    switch (sqlite3_value_type(v)) {
        case SQLITE_INTEGER:
            mp_put_i64(w, sqlite3_value_int64(v));
            return;
        case SQLITE_TEXT: {
            /* As a blob: sqlite3_value_text copies it for the NUL at its end. */
            const void *s = sqlite3_value_blob(v);
            mp_put_strn(w, s == NULL ? "" : s, (size_t)sqlite3_value_bytes(v));
            return;
        }
        case SQLITE_BLOB: {
            const void *p = sqlite3_value_blob(v);
            mp_put_bin(w, blob_of(p, (size_t)sqlite3_value_bytes(v)));
            return;
        }
        case SQLITE_NULL:
            mp_put_nil(w);
            return;
        default: /* SQLITE_FLOAT: no table has such a column, and all are STRICT */
            CHECK(false);
    }
}

static void put_row(struct mp_writer *w, sqlite3 *db, bool old)
{
    int n = sqlite3_preupdate_count(db);
    mp_put_array(w, (uint32_t)n);
    for (int i = 0; i < n; i++) {
        sqlite3_value *v = NULL;
        int rv = old ? sqlite3_preupdate_old(db, i, &v) : sqlite3_preupdate_new(db, i, &v);
        CHECK(rv == SQLITE_OK && v != NULL);
        put_value(w, v);
    }
}

static void on_preupdate(void *data, sqlite3 *db, int op, const char *db_name, const char *table,
                         sqlite3_int64 old_rowid, sqlite3_int64 new_rowid)
{
    (void)db_name;
    (void)old_rowid;
    (void)new_rowid;
    struct fsm *f = data;
    if (!f->recording) {
        return;
    }
    size_t name_len = strlen(table);
    CHECK(name_len < 256);
    uint8_t head[RECORD_HEAD] = {
        op == SQLITE_INSERT   ? 'I'
        : op == SQLITE_UPDATE ? 'U'
                              : 'D',
        (uint8_t)name_len,
    };
    buf_add(&f->changes, head, sizeof head);
    buf_add(&f->changes, table, name_len);
    size_t len_at = f->changes.len;
    uint8_t len_bytes[4] = {0};
    buf_add(&f->changes, len_bytes, sizeof len_bytes);

    struct mp_writer w;
    mp_writer_init(&w, &f->changes);
    put_row(&w, db, op == SQLITE_DELETE);
    if (op == SQLITE_UPDATE && f->keep_before) {
        struct mp_writer old;
        mp_writer_init(&old, &f->before);
        put_row(&old, db, true);
    }
    if (f->changes.err == 0) {
        size_t len = f->changes.len - len_at - sizeof len_bytes;
        for (int i = 0; i < 4; i++) {
            f->changes.data[len_at + (size_t)i] = (uint8_t)(len >> (24 - 8 * i));
        }
    }
}

static void load_tables(struct fsm *f)
{
    f->generation++;
    struct db_stmt *st = db_prepare(f->db, "SELECT m.name AS tbl, p.name AS col"
                                           " FROM sqlite_schema m"
                                           " JOIN pragma_table_info(m.name) p"
                                           " WHERE m.type = 'table' ORDER BY m.name, p.cid");
    while (db_step(st) == 1) {
        const char *name = db_col_text(st, "tbl");
        struct fsm_table *t = f->tables_count == 0 ? NULL : &f->tables[f->tables_count - 1];
        if (t == NULL || strcmp(t->name, name) != 0) {
            f->tables = xrealloc(f->tables, (f->tables_count + 1) * sizeof *f->tables);
            t = &f->tables[f->tables_count++];
            *t = (struct fsm_table){.name = xstrdup(name)};
        }
        t->columns = xrealloc(t->columns, (size_t)(t->columns_count + 1) * sizeof *t->columns);
        t->columns[t->columns_count++] = xstrdup(db_col_text(st, "col"));
    }
    db_done(st);
}

static void free_tables(struct fsm *f)
{
    for (size_t i = 0; i < f->tables_count; i++) {
        for (int k = 0; k < f->tables[i].columns_count; k++) {
            free(f->tables[i].columns[k]);
        }
        free(f->tables[i].columns);
        free(f->tables[i].name);
    }
    free(f->tables);
    f->tables = NULL;
    f->tables_count = 0;
}

void fsm_track_tables(struct fsm *f)
{
    free_tables(f);
    load_tables(f);
}

void fsm_track_attach(struct fsm *f)
{
    fsm_track_free(f);
    buf_init(&f->changes, FSM_CHANGES_MAX);
    buf_init(&f->before, FSM_CHANGES_MAX);
    load_tables(f);
    (void)sqlite3_preupdate_hook(db_handle(f->db), on_preupdate, f);
}

void fsm_track_free(struct fsm *f)
{
    free_tables(f);
    buf_fini(&f->changes);
    buf_fini(&f->before);
}

/* S15. The index is part of it, so an entry without row changes moves the chain too. */
void fsm_track_digest(struct fsm *f, uint64_t index, uint8_t ret[32])
{
    uint8_t at[8];
    for (int i = 0; i < 8; i++) {
        at[i] = (uint8_t)(index >> (56 - 8 * i));
    }
    const struct blob parts[] = {
        blob_of(f->digest, sizeof f->digest),
        blob_of(at, sizeof at),
        buf_blob(&f->changes),
    };
    pki_sha256_parts(parts, ARRAY_SIZE(parts), ret);
}

bool fsm_track_has(const struct fsm *f, const char *table)
{
    for (size_t i = 0; i < f->tables_count; i++) {
        if (strcmp(f->tables[i].name, table) == 0) {
            return true;
        }
    }
    return false;
}

const struct fsm_table *fsm_track_table(const struct fsm *f, struct blob name)
{
    for (size_t i = 0; i < f->tables_count; i++) {
        if (blob_equal(blob_str(f->tables[i].name), name)) {
            return &f->tables[i];
        }
    }
    CHECK(false);
    return NULL;
}

/* The row of a record as a map with the names of the columns. A row from before its table grew, in
 * the entry that grew it, has fewer. */
static void name_columns(const struct fsm_table *t, struct blob record, struct buf *row)
{
    struct mp_reader r;
    struct mp_writer w;
    mp_reader_init(&r, record);
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    CHECK(n <= (uint32_t)t->columns_count);
    buf_clear(row);
    mp_writer_init(&w, row);
    mp_put_map(&w, n);
    for (uint32_t i = 0; i < n; i++) {
        mp_put_str(&w, t->columns[i]);
        mp_put_raw(&w, mp_skip(&r));
    }
    CHECK(mp_reader_finish(&r) == 0 && row->err == 0);
}

bool fsm_change_next(struct blob *changes, struct fsm_change *ret)
{
    const uint8_t *p = changes->data;
    if (changes->len == 0) {
        return false;
    }
    size_t name_len = p[1];
    const uint8_t *row = p + RECORD_HEAD + name_len + 4;
    size_t len = (size_t)row[-4] << 24 | (size_t)row[-3] << 16 | (size_t)row[-2] << 8 | row[-1];
    *ret = (struct fsm_change){
        .op = (char)p[0],
        .table = blob_of(p + RECORD_HEAD, name_len),
        .row = blob_of(row, len),
    };
    size_t used = (size_t)(row - p) + len;
    CHECK(used <= changes->len);
    *changes = blob_of(p + used, changes->len - used);
    return true;
}

void fsm_track_emit(struct fsm *f)
{
    if (f->change_cb == NULL && f->touch_cb == NULL) {
        return;
    }
    struct buf row;
    buf_init(&row, FSM_CHANGES_MAX);
    struct blob changes = buf_blob(&f->changes);
    struct fsm_change c;
    while (fsm_change_next(&changes, &c)) {
        const struct fsm_table *t = fsm_track_table(f, c.table);
        if (f->touch_cb != NULL) {
            f->touch_cb(f->touch_data, c.op, t->name);
        }
        if (f->change_cb != NULL) {
            name_columns(t, c.row, &row);
            f->change_cb(f->change_data, c.op, t->name, buf_blob(&row));
        }
    }
    buf_fini(&row);
}

void fsm_on_entry(struct fsm *f, fsm_entry_cb cb, void *data)
{
    f->entry_cb = cb;
    f->entry_data = data;
}

void fsm_keep_before(struct fsm *f, bool keep)
{
    f->keep_before = keep;
}

uint64_t fsm_generation(const struct fsm *f)
{
    return f->generation;
}

void fsm_ring_push(struct fsm *f, uint64_t index, const uint8_t digest[32])
{
    f->ring[f->ring_next].index = index;
    memcpy(f->ring[f->ring_next].digest, digest, 32);
    f->ring_next = (f->ring_next + 1) % FSM_RING;
    f->ring_count += f->ring_count < FSM_RING;
}

bool fsm_digest_at(const struct fsm *f, uint64_t index, uint8_t ret[32])
{
    /* Indexes rise around the ring: binary search from the oldest. */
    size_t low = 0;
    size_t high = f->ring_count;
    size_t oldest = (f->ring_next + FSM_RING - f->ring_count) % FSM_RING;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        size_t at = (oldest + mid) % FSM_RING;
        if (f->ring[at].index == index) {
            memcpy(ret, f->ring[at].digest, 32);
            return true;
        }
        if (f->ring[at].index < index) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return false;
}

void fsm_on_change(struct fsm *f, fsm_change_cb cb, void *data)
{
    f->change_cb = cb;
    f->change_data = data;
}

void fsm_on_touch(struct fsm *f, fsm_touch_cb cb, void *data)
{
    f->touch_cb = cb;
    f->touch_data = data;
}
