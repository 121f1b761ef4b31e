#include "authority/fsm_impl.h"

#include "base/clock.h"

static bool ends_with(const char *s, const char *end)
{
    size_t a = strlen(s);
    size_t b = strlen(end);
    return a >= b && strcmp(s + a - b, end) == 0;
}

static bool is_one_of(const char *s, const char *const *list)
{
    for (; *list != NULL; list++) {
        if (strcmp(s, *list) == 0) {
            return true;
        }
    }
    return false;
}

/* A JSON array of words without escapes, as fsm_words and json_group_array write ours. */
static void put_words(struct mp_writer *w, const char *json)
{
    size_t at = mp_list_begin(w);
    uint32_t count = 0;
    const char *p = json;
    while ((p = strchr(p, '"')) != NULL) {
        const char *end = strchr(p + 1, '"');
        if (end == NULL) {
            break;
        }
        mp_put_strn(w, p + 1, (size_t)(end - p - 1));
        count++;
        p = end + 1;
    }
    mp_list_end(w, at, count);
}

void fsm_doc_time(struct mp_writer *w, int64_t ms)
{
    char text[32];
    clock_format(ms, text);
    mp_put_str(w, text);
}

void fsm_doc_row(struct db_stmt *st, struct mp_writer *w)
{
    static const char *const lists[] = {"roles",           "capabilities", "reported_capabilities",
                                        "requested_roles", "scope_roles",  "members",
                                        "member_names",    "reachable",    NULL};
    static const char *const flags[] = {"authority",  "high_risk", "verified", "test_telemetry",
                                        "has_quorum", "committed", "overlay",  "synthetic",
                                        "droppable",  NULL};
    static const char *const times[] = {"certificate_not_before", "certificate_not_after", NULL};
    sqlite3_stmt *raw = db_stmt_handle(st);
    int n = sqlite3_column_count(raw);
    mp_put_map(w, (uint32_t)n);
    for (int i = 0; i < n; i++) {
        const char *name = sqlite3_column_name(raw, i);
        mp_put_str(w, name);
        switch (sqlite3_column_type(raw, i)) {
            case SQLITE_INTEGER: {
                int64_t v = sqlite3_column_int64(raw, i);
                if (ends_with(name, "_at") || is_one_of(name, times)) {
                    fsm_doc_time(w, v);
                } else if (is_one_of(name, flags)) {
                    mp_put_bool(w, v != 0);
                } else {
                    mp_put_i64(w, v);
                }
                break;
            }
            case SQLITE_TEXT: {
                const char *s = (const char *)sqlite3_column_text(raw, i);
                if (is_one_of(name, lists)) {
                    put_words(w, s);
                } else {
                    mp_put_strn(w, s, (size_t)sqlite3_column_bytes(raw, i));
                }
                break;
            }
            case SQLITE_BLOB: {
                const void *p = sqlite3_column_blob(raw, i);
                mp_put_bin(w, blob_of(p, (size_t)sqlite3_column_bytes(raw, i)));
                break;
            }
            default: /* NULL; no table holds other types */
                mp_put_nil(w);
        }
    }
}

int fsm_doc_put(struct fsm_ctx *x, const char *sql, const char *id)
{
    struct db_stmt *st = db_prepare(x->db, sql);
    db_bind_text(st, id);
    int rc = db_step(st);
    if (rc == 1) {
        fsm_doc_row(st, &x->doc);
    }
    db_done(st);
    CHECK(rc != 0);
    return rc < 0 ? rc : 0;
}
