#include "authority/mirror_sums.h"

#include "base/text.h"

void mirror_sums_init(struct mirror_sums *s, const struct mirror_tables *tables)
{
    *s = (struct mirror_sums){.tables = tables};
    s->list = xcalloc(tables->count + 1, sizeof *s->list);
    mirror_sums_clear(s);
}

void mirror_sums_fini(struct mirror_sums *s)
{
    free(s->list);
    *s = (struct mirror_sums){.tables = NULL};
}

void mirror_sums_clear(struct mirror_sums *s)
{
    for (size_t i = 0; i < s->tables->count; i++) {
        s->list[i] = (struct mirror_sum){.touched = true};
    }
}

static void count_row(struct mirror_sums *s, const struct mirror_table *t, struct blob row,
                      bool add)
{
    struct mirror_sum *sum = &s->list[t - s->tables->list];
    const struct blob parts[] = {blob_of(t->name, strlen(t->name) + 1), row};
    sum->touched = true;
    if (add) {
        set_hash_add(&sum->hash, parts, ARRAY_SIZE(parts));
        sum->rows++;
    } else {
        set_hash_remove(&sum->hash, parts, ARRAY_SIZE(parts));
        sum->rows--;
    }
}

void mirror_sums_add(struct mirror_sums *s, const struct mirror_table *t, struct blob row)
{
    count_row(s, t, row, true);
}

int mirror_sums_entry(struct mirror_sums *s, struct blob changes, struct blob before)
{
    struct mp_reader old;
    struct fsm_change c;
    mp_reader_init(&old, before);
    while (fsm_change_next(&changes, &c)) {
        const struct mirror_table *t = mirror_tables_find(s->tables, c.table);
        struct blob was = c.op == 'U' ? mp_skip(&old) : blob_of(NULL, 0);
        if (t == NULL) {
            continue;
        }
        if (c.op == 'U') {
            count_row(s, t, was, false);
        }
        count_row(s, t, c.row, c.op != 'D');
    }
    return mp_reader_finish(&old) == 0 ? 0 : -ERR_CORRUPT;
}

static void digest_of(struct mirror_sum *sum)
{
    uint8_t bytes[SET_HASH_BYTES];
    set_hash_encode(&sum->hash, bytes);
    pki_sha256(blob_of(bytes, sizeof bytes), sum->digest);
}

void mirror_sums_hash(struct mirror_sums *s, uint8_t ret[PKI_HASH_BYTES])
{
    struct buf all;
    buf_init(&all, 64u << 10);
    for (size_t i = 0; i < s->tables->count; i++) {
        struct mirror_sum *sum = &s->list[i];
        if (sum->touched) {
            digest_of(sum);
        }
        if (sum->rows > 0) {
            buf_addf(&all, "%s %llu ", s->tables->list[i].name, (unsigned long long)sum->rows);
            buf_add(&all, sum->digest, sizeof sum->digest);
        }
    }
    CHECK(all.err == 0);
    pki_sha256(buf_blob(&all), ret);
    buf_fini(&all);
}

bool mirror_sums_equal(const struct mirror_sum *a, const struct mirror_sum *b)
{
    return a->rows == b->rows && memcmp(&a->hash, &b->hash, sizeof a->hash) == 0;
}

bool mirror_sums_read(struct mirror_sums *s, const char *table, int64_t rows, const char *hex)
{
    uint8_t bytes[SET_HASH_BYTES];
    const struct mirror_table *t = table == NULL ? NULL
                                                 : mirror_tables_find(s->tables, blob_str(table));
    if (t == NULL) {
        return true;
    }
    if (rows < 0 || hex == NULL || strlen(hex) != 2 + 2 * sizeof bytes ||
        hex_decode(hex + 2, bytes, sizeof bytes) != 0) {
        return false;
    }
    struct mirror_sum *sum = &s->list[t - s->tables->list];
    sum->rows = (uint64_t)rows;
    set_hash_decode(bytes, &sum->hash);
    digest_of(sum);
    sum->touched = false;
    return true;
}

static const char sql_put[] =
    "INSERT INTO rap.mirror_sums (\"cluster_id\", \"table_name\", \"rows\", \"sum\")"
    " SELECT $1, u.* FROM unnest($2::text[], $3::bigint[], $4::bytea[]) AS u"
    " ON CONFLICT (\"cluster_id\", \"table_name\") DO UPDATE SET \"rows\" = EXCLUDED.\"rows\","
    " \"sum\" = EXCLUDED.\"sum\"";

void mirror_sums_send(struct mirror_sums *s, struct pg_link *l, unsigned tag,
                      const char *cluster_id)
{
    struct buf names;
    struct buf rows;
    struct buf sums;
    buf_init(&names, 64u << 10);
    buf_init(&rows, 64u << 10);
    buf_init(&sums, 1u << 20);
    for (size_t i = 0; i < s->tables->count; i++) {
        struct mirror_sum *sum = &s->list[i];
        uint8_t bytes[SET_HASH_BYTES];
        char hex[2 * SET_HASH_BYTES + 1];
        if (!sum->touched) {
            continue;
        }
        const char *comma = names.len == 0 ? "{" : ",";
        digest_of(sum);
        set_hash_encode(&sum->hash, bytes);
        hex_encode(bytes, sizeof bytes, hex);
        buf_addf(&names, "%s%s", comma, s->tables->list[i].name);
        buf_addf(&rows, "%s%llu", comma, (unsigned long long)sum->rows);
        buf_addf(&sums, "%s\"\\\\x", comma);
        buf_add_str(&sums, hex);
        buf_add_str(&sums, "\"");
        sum->touched = false;
    }
    if (names.len > 0) {
        buf_add_str(&names, "}");
        buf_add_str(&rows, "}");
        buf_add_str(&sums, "}");
        const char *params[] = {cluster_id, buf_cstr(&names), buf_cstr(&rows), buf_cstr(&sums)};
        CHECK(names.err == 0 && rows.err == 0 && sums.err == 0);
        pg_query(l, tag, sql_put, 4, params);
    }
    buf_fini(&names);
    buf_fini(&rows);
    buf_fini(&sums);
}
