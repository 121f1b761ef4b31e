#include "admin/out.h"

#include "admin/client.h"
#include "admin/json.h"
#include "base/clock.h"

#define CELL_MAX 4096
#define ROWS_MAX_BYTES (256u << 20)

/* Text from elsewhere must not drive the terminal: control characters, C1 ones too, become '?'. */
static void add_clean(struct buf *out, struct blob s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t b = s.data[i];
        bool c1 = b == 0xc2 && i + 1 < s.len && s.data[i + 1] >= 0x80 && s.data[i + 1] < 0xa0;
        if (c1) {
            i++;
        }
        if (c1 || b < 0x20 || b == 0x7f) {
            b = '?';
        }
        buf_add(out, &b, 1);
    }
}

static void add_age(struct buf *out, int64_t ms)
{
    static const struct {
        int64_t ms;
        const char *unit;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}};
    int64_t size = ms < 0 ? -ms : ms;
    if (size < 1000) {
        buf_add_str(out, "now");
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (size >= units[i].ms) {
            buf_addf(out, ms < 0 ? "in %lld%s" : "%lld%s ago", (long long)(size / units[i].ms),
                     units[i].unit);
            return;
        }
    }
}

/* "[\"a\",\"b\"]" as "a,b": lists that are kept as JSON text. */
static bool add_json_list(struct buf *out, struct blob s)
{
    if (s.len < 2 || s.data[0] != '[' || s.data[s.len - 1] != ']' ||
        memchr(s.data, '{', s.len) != NULL || memchr(s.data, '\\', s.len) != NULL) {
        return false;
    }
    for (size_t i = 1; i + 1 < s.len; i++) {
        if (s.data[i] != '"') {
            add_clean(out, blob_of(s.data + i, 1));
        }
    }
    return true;
}

static void add_text(struct blob s, enum out_format format, int64_t now_ms, struct buf *out)
{
    char text[64];
    int64_t at;
    if (format == OUT_AGE && s.len < sizeof text) {
        memcpy(text, s.data, s.len);
        text[s.len] = '\0';
        if (clock_parse(text, &at) == 0) {
            add_age(out, now_ms - at);
            return;
        }
    }
    if (format == OUT_SHORT && s.len > 16) {
        s.len = 16;
    }
    if (!add_json_list(out, s)) {
        add_clean(out, s);
    }
}

static void add_array(struct blob value, struct buf *out)
{
    struct mp_reader r;
    mp_reader_init(&r, value);
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        buf_add_str(out, i == 0 ? "" : ",");
        out_cell(item, OUT_TEXT, 0, out);
    }
}

void out_cell(struct blob value, enum out_format format, int64_t now_ms, struct buf *out)
{
    struct mp_reader r;
    size_t start = out->len;
    mp_reader_init(&r, value);
    switch (mp_peek(&r)) {
        case MP_STR:
            add_text(mp_get_str(&r, SIZE_MAX), format, now_ms, out);
            break;
        case MP_BOOL:
            buf_add_str(out, mp_get_bool(&r) ? "yes" : "no");
            break;
        case MP_UINT:
            buf_addf(out, "%llu", (unsigned long long)mp_get_u64(&r));
            break;
        case MP_INT:
            buf_addf(out, "%lld", (long long)mp_get_i64(&r));
            break;
        case MP_ARRAY:
            add_array(value, out);
            break;
        case MP_MAP:
        case MP_BIN:
            (void)json_from_doc(value, 0, out);
            break;
        case MP_NIL:
        case MP_BAD:
            break;
    }
    if (out->err != 0) { /* over the cell's maximum: what fits is enough */
        out->err = 0;
    }
    if (out->len == start) {
        buf_add_str(out, "-");
    }
}

/* Columns a terminal gives to it: code points, which is right for what names are made of. */
static size_t width(const struct buf *b)
{
    size_t n = 0;
    for (size_t i = 0; i < b->len; i++) {
        n += (b->data[i] & 0xc0) != 0x80;
    }
    return n;
}

static const char *state_colour(const char *state)
{
    static const char *const good[] = {"healthy", "active", "voter", "approved", "ready", "yes"};
    static const char *const bad[] = {"revoked", "unhealthy", "rejected", "expired", "no"};
    static const char *const wait[] = {"pending", "joining", "standby", "degraded", "stale"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        if (strcmp(state, good[i]) == 0) {
            return "\033[32m";
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (strcmp(state, bad[i]) == 0) {
            return "\033[31m";
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(wait); i++) {
        if (strcmp(state, wait[i]) == 0) {
            return "\033[33m";
        }
    }
    return NULL;
}

static void print_cell(struct cli *c, struct buf *cell, enum out_format format, size_t pad)
{
    const char *text = buf_cstr(cell);
    const char *colour = c->colour && format == OUT_STATE ? state_colour(text) : NULL;
    fprintf(c->out, "%s%s%s%*s", colour == NULL ? "" : colour, text,
            colour == NULL ? "" : "\033[0m", (int)pad, "");
}

void out_table(struct cli *c, const struct out_col *cols, size_t cols_count, struct blob rows,
               uint32_t rows_count, const char *empty)
{
    size_t *widths = xcalloc(cols_count, sizeof *widths);
    int64_t now = clock_wall_ms();
    struct buf cell;
    buf_init(&cell, CELL_MAX);
    if (rows_count == 0) {
        cli_note(c, "%s", empty);
        goto out;
    }
    for (size_t i = 0; i < cols_count; i++) {
        widths[i] = strlen(cols[i].title);
    }
    for (int pass = 0; pass < 2; pass++) {
        struct mp_reader r;
        mp_reader_init(&r, rows);
        for (size_t i = 0; pass == 1 && i < cols_count; i++) {
            int pad = i + 1 == cols_count ? 0 : (int)(widths[i] + 2);
            fprintf(c->out, "%s%-*s%s", c->colour ? "\033[1m" : "", pad, cols[i].title,
                    c->colour ? "\033[0m" : "");
        }
        fputs(pass == 1 ? "\n" : "", c->out);
        for (uint32_t row = 0; row < rows_count; row++) {
            struct blob doc = mp_skip(&r);
            for (size_t i = 0; i < cols_count; i++) {
                buf_clear(&cell);
                out_cell(mp_find(doc, cols[i].key), cols[i].format, now, &cell);
                size_t w = width(&cell);
                if (pass == 0) {
                    widths[i] = w > widths[i] ? w : widths[i];
                } else {
                    print_cell(c, &cell, cols[i].format,
                               i + 1 == cols_count ? 0 : widths[i] + 2 - w);
                }
            }
            fputs(pass == 1 ? "\n" : "", c->out);
        }
    }
out:
    buf_fini(&cell);
    free(widths);
}

/* Rows of "key value"; a document inside a document gives rows "key.inner value". */
struct fields {
    struct cli *c;
    int64_t now;
    size_t widest;
    bool print; /* the first pass only measures */
    struct buf cell;
};

static void field_row(struct fields *f, const char *name, struct blob value)
{
    size_t len = strlen(name);
    if (!f->print) {
        f->widest = len > f->widest ? len : f->widest;
        return;
    }
    fprintf(f->c->out, "%-*s  ", (int)f->widest, name);
    buf_clear(&f->cell);
    out_cell(value, OUT_TEXT, f->now, &f->cell);
    print_cell(f->c, &f->cell, OUT_STATE, 0);
    if (len > 3 && strcmp(name + len - 3, "_at") == 0 && f->cell.len > 1) {
        buf_clear(&f->cell);
        out_cell(value, OUT_AGE, f->now, &f->cell);
        fprintf(f->c->out, " (%s)", buf_cstr(&f->cell));
    }
    fputc('\n', f->c->out);
}

static void field_rows(struct fields *f, const char *prefix, struct blob doc)
{
    struct mp_reader r;
    struct buf name;
    buf_init(&name, CELL_MAX);
    mp_reader_init(&r, doc);
    uint32_t n = mp_get_map(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        buf_clear(&name);
        buf_add_str(&name, prefix);
        add_clean(&name, mp_get_str(&r, SIZE_MAX));
        enum mp_type type = mp_peek(&r);
        struct blob value = mp_skip(&r);
        if (type == MP_MAP && prefix[0] == '\0') {
            buf_add_str(&name, ".");
            field_rows(f, buf_cstr(&name), value);
        } else {
            field_row(f, buf_cstr(&name), value);
        }
    }
    buf_fini(&name);
}

void out_fields(struct cli *c, struct blob doc)
{
    struct fields f = {.c = c, .now = clock_wall_ms()};
    buf_init(&f.cell, CELL_MAX);
    field_rows(&f, "", doc);
    f.print = true;
    field_rows(&f, "", doc);
    buf_fini(&f.cell);
}

void out_json(struct cli *c, struct blob doc)
{
    struct buf text;
    buf_init(&text, (size_t)2 * ROWS_MAX_BYTES);
    if (json_from_doc(doc, JSON_NICE, &text) == 0) {
        fprintf(c->out, "%s\n", buf_cstr(&text));
    }
    buf_wipe(&text);
}

void out_doc(struct cli *c, struct blob doc)
{
    if (c->json) {
        out_json(c, doc);
    } else {
        out_fields(c, doc);
    }
}

/* Adds a page's items to all. */
static int take_page(struct blob doc, struct buf *all, uint32_t *count, char *cursor, size_t size)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(doc, "items"));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        buf_add(all, item.data, item.len);
        ++*count;
    }
    char before[256];
    (void)snprintf(before, sizeof before, "%s", cursor);
    mp_find_str(doc, "next_cursor", cursor, size);
    bool stuck = cursor[0] != '\0' && (n == 0 || strcmp(before, cursor) == 0);
    return r.err != 0 || stuck ? -ERR_MALFORMED : all->err;
}

static void show_list(struct cli *c, const struct out_list *list, const struct buf *all,
                      uint32_t count, const char *cursor)
{
    if (!c->json) {
        out_table(c, list->cols, list->cols_count, buf_blob(all), count, list->empty);
        if (cursor[0] != '\0') {
            cli_note(c, "there is more: add --cursor %s", cursor);
        }
        return;
    }
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, ROWS_MAX_BYTES + 1024);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_key(&w, &d, "items");
    size_t at = mp_list_begin(&w);
    mp_put_raw(&w, buf_blob(all));
    mp_list_end(&w, at, count);
    mp_doc_str(&w, &d, "next_cursor", cursor[0] == '\0' ? NULL : cursor);
    mp_doc_end(&w, &d);
    out_json(c, buf_blob(&doc));
    buf_fini(&doc);
}

int out_list(struct cli *c, const struct out_list *list)
{
    const char *limit = cli_get(c, "limit");
    bool one_page = list->one_page || limit != NULL;
    char cursor[256];
    (void)snprintf(cursor, sizeof cursor, "%s",
                   cli_get(c, "cursor") == NULL ? "" : cli_get(c, "cursor"));
    struct buf all, doc, path;
    uint32_t count = 0;
    size_t pages = 0;
    int rc;
    buf_init(&all, ROWS_MAX_BYTES);
    buf_init(&doc, CLIENT_DOC_MAX);
    buf_init(&path, 8192);
    bool paged = (c->cmd->flags & CLI_LISTS) != 0;
    do {
        buf_clear(&path);
        buf_add_str(&path, list->path);
        if (paged) {
            client_query(&path, "limit", limit != NULL ? limit : one_page ? NULL : "500");
            client_query(&path, "cursor", cursor[0] == '\0' ? NULL : cursor);
        }
        rc = client_get(c, &path, &doc);
        if (rc != CLI_OK) {
            goto out;
        }
        if (take_page(buf_blob(&doc), &all, &count, cursor, sizeof cursor) != 0) {
            rc = cli_fail(c, -ERR_MALFORMED, NULL, "the daemon's list does not make sense");
            goto out;
        }
        pages++;
    } while (!one_page && cursor[0] != '\0');
    if (c->json && pages == 1) {
        out_json(c, buf_blob(&doc)); /* as it is: it may say more than its items */
    } else {
        show_list(c, list, &all, count, cursor);
    }
out:
    buf_fini(&all);
    buf_fini(&doc);
    buf_fini(&path);
    return rc;
}

int out_fetch(struct cli *c, const char *path_text, struct buf *rows, uint32_t *ret_count)
{
    struct buf doc, path;
    char cursor[256] = "";
    uint32_t count = 0;
    int rc;
    buf_init(&doc, CLIENT_DOC_MAX);
    buf_init(&path, 8192);
    do {
        buf_clear(&path);
        buf_add_str(&path, path_text);
        client_query(&path, "limit", "500");
        client_query(&path, "cursor", cursor[0] == '\0' ? NULL : cursor);
        rc = client_get(c, &path, &doc);
        if (rc == CLI_OK && take_page(buf_blob(&doc), rows, &count, cursor, sizeof cursor) != 0) {
            rc = cli_fail(c, -ERR_MALFORMED, NULL, "the daemon's list does not make sense");
        }
    } while (rc == CLI_OK && cursor[0] != '\0');
    buf_fini(&doc);
    buf_fini(&path);
    *ret_count = count;
    return rc;
}
