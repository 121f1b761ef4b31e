#include "authority/mirror_scan.h"

#include "base/text.h"

#define ROW_MAX MIRROR_ROW_MAX
#define TAIL_ROWS 2000 /* local rows written in one step when PostgreSQL has no more */

struct mirror_scan *mirror_scan_new(struct db *state, const struct mirror_tables *tables,
                                    const char *cluster_id, struct mirror_sums *sums)
{
    struct mirror_scan *s = xcalloc(1, sizeof *s);
    s->state = state;
    s->tables = tables;
    s->repair = sums != NULL;
    s->sums = sums;
    if (sums != NULL) {
        mirror_sums_clear(sums);
    }
    (void)snprintf(s->cluster_id, sizeof s->cluster_id, "%s", cluster_id);
    buf_init(&s->row, ROW_MAX);
    for (size_t i = 0; i < MIRROR_COLUMNS_MAX; i++) {
        buf_init(&s->last_key[i], ROW_MAX);
    }
    mirror_group_init(&s->group, tables);
    s->results = xcalloc(tables->count + 1, sizeof *s->results);
    return s;
}

void mirror_scan_free(struct mirror_scan *s)
{
    if (s == NULL) {
        return;
    }
    if (s->local != NULL) {
        db_done(s->local);
    }
    mirror_group_clear(&s->group);
    for (size_t i = 0; i < MIRROR_COLUMNS_MAX; i++) {
        buf_fini(&s->last_key[i]);
    }
    buf_fini(&s->row);
    db_close(s->state);
    free(s->results);
    free(s);
}

/* --- the state's rows --- */

static void put_column(struct mp_writer *w, sqlite3_stmt *st, int i)
{
    switch (sqlite3_column_type(st, i)) {
        case SQLITE_INTEGER:
            mp_put_i64(w, sqlite3_column_int64(st, i));
            return;
        case SQLITE_TEXT: {
            const unsigned char *text = sqlite3_column_text(st, i);
            mp_put_strn(w, (const char *)text, (size_t)sqlite3_column_bytes(st, i));
            return;
        }
        case SQLITE_BLOB: {
            const void *bytes = sqlite3_column_blob(st, i);
            mp_put_bin(w, blob_of(bytes, (size_t)sqlite3_column_bytes(st, i)));
            return;
        }
        default:
            mp_put_nil(w);
    }
}

void mirror_scan_row(struct db_stmt *st, const struct mirror_table *t, struct buf *out)
{
    struct mp_writer w;
    buf_clear(out);
    mp_writer_init(&w, out);
    mp_put_array(&w, (uint32_t)t->count);
    for (size_t i = 0; i < t->count; i++) {
        put_column(&w, db_stmt_handle(st), (int)i);
    }
    CHECK(out->err == 0);
}

static void step_local(struct mirror_scan *s, const struct mirror_table *t)
{
    int rc = db_step(s->local);
    CHECK(rc >= 0); /* a copy in memory */
    s->local_row = rc == 1;
    buf_clear(&s->row);
    if (s->local_row) {
        mirror_scan_row(s->local, t, &s->row);
        if (s->sums != NULL) {
            mirror_sums_add(s->sums, t, buf_blob(&s->row));
        }
    }
}

static void begin_table(struct mirror_scan *s)
{
    const struct mirror_table *t = &s->tables->list[s->table];
    s->paged = s->last_page = false;
    s->local = db_prepare(s->state, t->local);
    step_local(s, t);
}

static void end_table(struct mirror_scan *s)
{
    db_done(s->local);
    s->local = NULL;
    s->table++;
}

/* --- one row beside the other --- */

/* Values of a row in the order of the table, without cluster_id, as PostgreSQL's text. */
struct row {
    struct buf text[MIRROR_COLUMNS_MAX];
    struct mirror_value v[MIRROR_COLUMNS_MAX];
    size_t count;
};

static void row_init(struct row *r)
{
    *r = (struct row){.count = 0};
    for (size_t i = 0; i < MIRROR_COLUMNS_MAX; i++) {
        buf_init(&r->text[i], ROW_MAX);
    }
}

static void row_fini(struct row *r)
{
    for (size_t i = 0; i < MIRROR_COLUMNS_MAX; i++) {
        buf_fini(&r->text[i]);
    }
}

static void local_values(struct mirror_scan *s, const struct mirror_table *t, struct row *out)
{
    struct mp_reader r;
    mp_reader_init(&r, buf_blob(&s->row));
    (void)mp_get_array(&r, MIRROR_COLUMNS_MAX);
    out->count = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (mirror_is_cluster_id(&t->columns[i])) {
            (void)mp_skip(&r);
            continue;
        }
        /* Text that PostgreSQL cannot hold differs from whatever it has. */
        (void)mirror_value(&r, &out->text[out->count], &out->v[out->count]);
        out->count++;
    }
}

static void page_values(const struct pg_answer *a, int row, size_t count, struct row *out)
{
    out->count = count;
    for (size_t i = 0; i < count; i++) {
        out->v[i] = (struct mirror_value){.text = NULL};
        out->v[i].text = pg_value(a, row, (int)i, &out->v[i].len);
    }
}

/* The place of a table's column among a row's values. */
static size_t place(const struct mirror_table *t, size_t column)
{
    size_t at = 0;
    for (size_t i = 0; i < column; i++) {
        at += !mirror_is_cluster_id(&t->columns[i]);
    }
    return at;
}

static int compare_value(const char *type, const struct mirror_value *a,
                         const struct mirror_value *b)
{
    if (a->text == NULL || b->text == NULL) {
        return (a->text != NULL) - (b->text != NULL);
    }
    if (strcmp(type, "bigint") == 0) {
        long long x = strtoll(a->text, NULL, 10);
        long long y = strtoll(b->text, NULL, 10);
        return (x > y) - (x < y);
    }
    size_t n = a->len < b->len ? a->len : b->len;
    int c = n == 0 ? 0 : memcmp(a->text, b->text, n);
    return c != 0 ? c : (a->len > b->len) - (a->len < b->len);
}

/* SQLite's BINARY order and PostgreSQL's COLLATE "C" are the order of the bytes. */
static int compare_keys(const struct mirror_table *t, const struct row *a, const struct row *b)
{
    for (size_t i = 0; i < t->keys_count; i++) {
        size_t at = place(t, t->keys[i]);
        int c = compare_value(t->columns[t->keys[i]].type, &a->v[at], &b->v[at]);
        if (c != 0) {
            return c;
        }
    }
    return 0;
}

static void add_to_digest(uint8_t digest[PKI_HASH_BYTES], const struct row *r)
{
    struct buf bytes;
    struct mp_writer w;
    buf_init(&bytes, 2 * ROW_MAX);
    mp_writer_init(&w, &bytes);
    buf_add(&bytes, digest, PKI_HASH_BYTES);
    for (size_t i = 0; i < r->count; i++) {
        if (r->v[i].text == NULL) {
            mp_put_nil(&w);
        } else {
            mp_put_bin(&w, blob_of(r->v[i].text, r->v[i].len));
        }
    }
    pki_sha256(buf_blob(&bytes), digest);
    buf_fini(&bytes);
}

static void note(struct mirror_scan *s, const struct mirror_table *t, const char *what,
                 const struct row *row, const struct row *other)
{
    s->changed++;
    s->results[s->table].differences++;
    if (s->list_count == MIRROR_DIFFERENCES_MAX) {
        return;
    }
    struct mirror_difference *d = &s->list[s->list_count++];
    *d = (struct mirror_difference){.table = t->name, .what = what};
    size_t len = 0;
    for (size_t i = 0; i < t->keys_count && len < sizeof d->key - 1; i++) {
        const struct mirror_value *v = &row->v[place(t, t->keys[i])];
        len += (size_t)snprintf(d->key + len, sizeof d->key - len, "%s%.*s", i == 0 ? "" : "/",
                                (int)(v->len < 100 ? v->len : 100), v->text == NULL ? "" : v->text);
    }
    len = 0;
    for (size_t i = 0; other != NULL && i < t->count && len < sizeof d->columns - 1; i++) {
        size_t at = place(t, i);
        if (!mirror_is_cluster_id(&t->columns[i]) &&
            compare_value("text", &row->v[at], &other->v[at]) != 0) {
            len += (size_t)snprintf(d->columns + len, sizeof d->columns - len, "%s%s",
                                    len == 0 ? "" : ",", t->columns[i].name);
        }
    }
}

static void remove_row(struct mirror_scan *s, const struct mirror_table *t, const struct row *r)
{
    struct buf bytes;
    struct mp_writer w;
    buf_init(&bytes, ROW_MAX);
    mp_writer_init(&w, &bytes);
    mp_put_array(&w, (uint32_t)t->count);
    for (size_t i = 0; i < t->count; i++) {
        const struct mirror_value *v = &r->v[place(t, i)];
        if (!t->columns[i].key || mirror_is_cluster_id(&t->columns[i]) || v->text == NULL) {
            mp_put_nil(&w);
        } else if (strcmp(t->columns[i].type, "bigint") == 0) {
            mp_put_i64(&w, strtoll(v->text, NULL, 10));
        } else if (strcmp(t->columns[i].type, "bytea") == 0) {
            struct buf raw;
            size_t len = v->len < 2 ? 0 : (v->len - 2) / 2;
            buf_init(&raw, ROW_MAX);
            uint8_t *to = buf_grow(&raw, len);
            bool ok = to != NULL && hex_decode(v->text + 2, to, len) == 0;
            mp_put_bin(&w, ok ? buf_blob(&raw) : blob_of(NULL, 0));
            buf_fini(&raw);
        } else {
            mp_put_strn(&w, v->text, v->len);
        }
    }
    mirror_group_put(&s->group, t, 'D', buf_blob(&bytes));
    buf_fini(&bytes);
}

static void local_only(struct mirror_scan *s, const struct mirror_table *t, const struct row *mine)
{
    struct mirror_table_result *res = &s->results[s->table];
    res->state_rows++;
    add_to_digest(res->state_digest, mine);
    note(s, t, "missing", mine, NULL);
    if (s->repair) {
        mirror_group_put(&s->group, t, 'U', buf_blob(&s->row));
    }
    step_local(s, t);
}

static void remember_key(struct mirror_scan *s, const struct mirror_table *t, const struct row *r)
{
    for (size_t i = 0; i < t->keys_count; i++) {
        const struct mirror_value *v = &r->v[place(t, t->keys[i])];
        buf_clear(&s->last_key[i]);
        buf_add(&s->last_key[i], v->text, v->text == NULL ? 0 : v->len);
    }
}

void mirror_scan_page(struct mirror_scan *s, const struct pg_answer *a)
{
    const struct mirror_table *t = &s->tables->list[s->table];
    struct mirror_table_result *res = &s->results[s->table];
    size_t count = place(t, t->count);
    struct row mine;
    struct row theirs;
    row_init(&mine);
    row_init(&theirs);
    for (int i = 0; i < a->rows; i++) {
        page_values(a, i, count, &theirs);
        res->mirror_rows++;
        add_to_digest(res->mirror_digest, &theirs);
        int c = 1;
        while (s->local_row) {
            local_values(s, t, &mine);
            c = compare_keys(t, &mine, &theirs);
            if (c >= 0) {
                break;
            }
            local_only(s, t, &mine);
        }
        if (!s->local_row || c > 0) {
            note(s, t, "extra", &theirs, NULL);
            if (s->repair) {
                remove_row(s, t, &theirs);
            }
            continue;
        }
        bool same = true;
        for (size_t k = 0; k < count && same; k++) {
            same = compare_value("text", &mine.v[k], &theirs.v[k]) == 0;
        }
        res->state_rows++;
        add_to_digest(res->state_digest, &mine);
        if (!same) {
            note(s, t, "differs", &mine, &theirs);
            if (s->repair) {
                mirror_group_put(&s->group, t, 'U', buf_blob(&s->row));
            }
        }
        step_local(s, t);
    }
    if (a->rows > 0) {
        remember_key(s, t, &theirs);
    }
    s->last_page = a->rows < MIRROR_PAGE_ROWS || t->keys_count == 0;
    row_fini(&mine);
    row_fini(&theirs);
}

/* What the state has beyond PostgreSQL's last row, some at a time. */
static void tail(struct mirror_scan *s, const struct mirror_table *t)
{
    struct row mine;
    row_init(&mine);
    for (int i = 0; i < TAIL_ROWS && s->local_row; i++) {
        local_values(s, t, &mine);
        local_only(s, t, &mine);
    }
    row_fini(&mine);
}

static void ask_page(struct mirror_scan *s, struct pg_link *l, const struct mirror_table *t)
{
    const char *params[MIRROR_COLUMNS_MAX + 1] = {s->cluster_id};
    for (size_t i = 0; i < t->keys_count; i++) {
        params[i + 1] = buf_cstr(&s->last_key[i]);
    }
    pg_query(l, MIRROR_TAG_PAGE, s->paged ? t->next_page : t->first_page,
             s->paged ? (int)t->keys_count + 1 : 1, params);
    s->paged = true;
}

bool mirror_scan_next(struct mirror_scan *s, struct pg_link *l)
{
    bool asked = false;
    while (!asked && s->table < s->tables->count) {
        const struct mirror_table *t = &s->tables->list[s->table];
        if (s->local == NULL) {
            begin_table(s);
        }
        if (!s->last_page) {
            ask_page(s, l, t);
            asked = true;
        } else if (s->local_row) {
            tail(s, t);
            asked = s->group.count > 0;
        } else {
            end_table(s);
        }
    }
    bool writes = s->group.count > 0;
    if (writes) {
        mirror_group_send(&s->group, l, MIRROR_TAG_ROWS, s->cluster_id);
        s->err = s->err == 0 ? s->group.err : s->err;
        s->em = s->group.err == 0 ? s->em : s->group.em;
        mirror_group_clear(&s->group);
    }
    if (asked || writes) {
        pg_sync(l, MIRROR_TAG_STEP);
    }
    return asked || writes;
}

void mirror_scan_doc(const struct mirror_scan *s, struct mp_writer *w, struct mp_doc *d)
{
    mp_doc_int(w, d, "differences", (int64_t)s->changed);
    mp_doc_key(w, d, "tables");
    mp_put_array(w, (uint32_t)s->tables->count);
    for (size_t i = 0; i < s->tables->count; i++) {
        const struct mirror_table_result *r = &s->results[i];
        struct mp_doc t;
        mp_doc_begin(w, &t);
        mp_doc_str(w, &t, "table", s->tables->list[i].name);
        mp_doc_int(w, &t, "state_rows", (int64_t)r->state_rows);
        mp_doc_int(w, &t, "mirror_rows", (int64_t)r->mirror_rows);
        mp_doc_int(w, &t, "differences", (int64_t)r->differences);
        mp_doc_hex(w, &t, "state_digest", blob_of(r->state_digest, PKI_HASH_BYTES));
        mp_doc_hex(w, &t, "mirror_digest", blob_of(r->mirror_digest, PKI_HASH_BYTES));
        mp_doc_end(w, &t);
    }
    mp_doc_key(w, d, "rows");
    mp_put_array(w, (uint32_t)s->list_count);
    for (size_t i = 0; i < s->list_count; i++) {
        struct mp_doc row;
        mp_doc_begin(w, &row);
        mp_doc_str(w, &row, "table", s->list[i].table);
        mp_doc_str(w, &row, "key", s->list[i].key);
        mp_doc_str(w, &row, "what", s->list[i].what);
        mp_doc_str(w, &row, "columns", s->list[i].columns);
        mp_doc_end(w, &row);
    }
}
