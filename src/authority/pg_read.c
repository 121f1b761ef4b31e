/* Reading a mirror back. The rows come in the order of their keys, a page at a time, in one snapshot
 * (REPEATABLE READ), while writers go on. What PostgreSQL says of itself counts for nothing: the seal does. */
#include "authority/fsm_impl.h"
#include "authority/mirror_read.h"
#include "authority/mirror_sums.h"
#include "authority/pg_ask.h"
#include "authority/raft_image.h"

#include <libpq-fe.h>
#include <uv.h>

#define CLUSTERS_MAX 8 /* named when one has to be chosen */

struct reading {
    const struct mirror_read *o;
    struct errmsg *em;
    struct pg_ask pg;
    char cluster_id[UUID_TEXT_MAX];
    struct buf seal;
    struct backup_file head;
    struct db *db; /* with the schema of the seal's level */
    struct mirror_tables tables;
    struct mirror_sums found;  /* of the rows read */
    struct mirror_sums stored; /* of rap.mirror_sums */
    bool build;                /* rows go into db too */
    uint64_t rows;
};

/* --- asking --- */

static int run(struct reading *r, const char *sql)
{
    PGresult *res = NULL;
    int rc = pg_ask(&r->pg, sql, 0, NULL, &res);
    PQclear(res);
    return rc;
}

static int open_snapshot(struct reading *r)
{
    int rc = pg_ask_open(&r->pg, r->o->dsn, "rap-read");
    rc = rc != 0 ? rc : run(r, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    return rc != 0 ? rc
                   : run(r, "SELECT set_config('search_path', 'pg_catalog', true),"
                            " set_config('bytea_output', 'hex', true),"
                            " set_config('enable_sort', 'off', true)");
}

static int choose_cluster(struct reading *r)
{
    PGresult *res = NULL;
    if (r->o->cluster_id != NULL) {
        (void)snprintf(r->cluster_id, sizeof r->cluster_id, "%s", r->o->cluster_id);
        return 0;
    }
    int rc = pg_ask(&r->pg, "SELECT cluster_id FROM rap.mirror_seals ORDER BY 1 LIMIT 9", 0, NULL,
                    &res);
    if (rc != 0) {
        return rc;
    }
    int n = PQntuples(res);
    if (n == 1) {
        (void)snprintf(r->cluster_id, sizeof r->cluster_id, "%s", PQgetvalue(res, 0, 0));
    } else if (n == 0) {
        rc = errmsg_set(r->em, -ERR_NOT_FOUND, "no cluster is mirrored there");
    } else {
        char list[CLUSTERS_MAX * UUID_TEXT_MAX + 8] = "";
        for (int i = 0; i < n && i < CLUSTERS_MAX; i++) {
            size_t at = strlen(list);
            (void)snprintf(list + at, sizeof list - at, " %.36s", PQgetvalue(res, i, 0));
        }
        rc = errmsg_set(r->em, -ERR_NOT_FOUND,
                        "several clusters are mirrored there, choose one "
                        "with --cluster-id:%s",
                        list);
    }
    PQclear(res);
    return rc;
}

/* --- the seal and the position --- */

static int unhex(const char *text, size_t max, struct buf *out)
{
    size_t len = strlen(text);
    if (len < 2 || len % 2 != 0 || memcmp(text, "\\x", 2) != 0 || (len - 2) / 2 > max) {
        return -ERR_CORRUPT;
    }
    uint8_t *to = buf_grow(out, (len - 2) / 2);
    return to == NULL ? out->err : hex_decode(text + 2, to, (len - 2) / 2);
}

static int check_position(struct reading *r, PGresult *res)
{
    const struct backup_header *h = &r->head.header;
    char id[UUID_TEXT_MAX];
    char digest[2 * PKI_HASH_BYTES + 1];
    uuid_format(&h->cluster_id, id);
    hex_encode(h->digest.data, PKI_HASH_BYTES, digest);
    if (strcmp(id, r->cluster_id) != 0) {
        return errmsg_set(r->em, -ERR_CORRUPT, "rap.mirror_seals: the seal is of cluster %s", id);
    }
    unsigned long long at = strtoull(PQgetvalue(res, 0, 1), NULL, 10);
    if (at > h->index) {
        return errmsg_set(
            r->em, -ERR_SCHEMA,
            "the rows are of index %llu, the seal is of %llu: an older version of rap "
            "wrote last. Start an authority of this version, or restore from a backup",
            at, (unsigned long long)h->index);
    }
    bool same = at == h->index && strtoull(PQgetvalue(res, 0, 2), NULL, 10) == h->epoch &&
                strtoull(PQgetvalue(res, 0, 3), NULL, 10) == h->term &&
                strtoull(PQgetvalue(res, 0, 4), NULL, 10) == h->level &&
                strtoll(PQgetvalue(res, 0, 5), NULL, 10) == h->time_ms &&
                strcmp(PQgetvalue(res, 0, 6), digest) == 0;
    return same
               ? 0
               : errmsg_set(r->em, -ERR_CORRUPT,
                            "rap.authority_applied is not what the authority signed at index %llu: "
                            "it was edited",
                            (unsigned long long)h->index);
}

static int read_seal(struct reading *r)
{
    PGresult *res = NULL;
    const char *params[] = {r->cluster_id};
    int rc = pg_ask(&r->pg,
                    "SELECT s.seal, a.\"index\", a.epoch, a.term, a.level, a.time_ms, a.digest"
                    " FROM rap.authority_applied a JOIN rap.mirror_seals s USING (cluster_id)"
                    " WHERE a.cluster_id = $1",
                    1, params, &res);
    if (rc != 0) {
        return rc;
    }
    if (PQntuples(res) != 1) {
        rc = errmsg_set(r->em, -ERR_NOT_FOUND,
                        "cluster %s is not mirrored there, or was never "
                        "sealed",
                        r->cluster_id);
    } else if (unhex(PQgetvalue(res, 0, 0), SIGNED_BACKUP_MAX, &r->seal) != 0) {
        rc = errmsg_set(r->em, -ERR_CORRUPT, "rap.mirror_seals: the seal does not read");
    }
    if (rc == 0) {
        rc = seal_open(buf_blob(&r->seal), r->o->root_der, &r->head, r->em);
        rc = rc == 0 ? 0 : errmsg_wrap(r->em, rc, "rap.mirror_seals");
    }
    rc = rc != 0 ? rc : check_position(r, res);
    PQclear(res);
    return rc;
}

static int make_schema(struct reading *r)
{
    const int64_t known = db_migrations_count(migrations_state);
    const struct backup_header *h = &r->head.header;
    if (h->level < FSM_LEVEL_FIRST || (int64_t)h->level > known) {
        return errmsg_set(r->em, -ERR_SCHEMA,
                          "the state is of level %llu, this binary knows up to %lld: install the "
                          "version that wrote it",
                          (unsigned long long)h->level, (long long)known);
    }
    int rc = fsm_db_open(&r->db, r->em);
    rc = rc != 0 ? rc : db_migrate_to(r->db, migrations_state, (int64_t)h->level, r->em);
    /* Rows come table by table. */
    rc = rc != 0 ? rc : db_exec(r->db, "PRAGMA foreign_keys=OFF", r->em);
    if (rc == 0) {
        mirror_tables_load(&r->tables, r->db);
        mirror_sums_init(&r->found, &r->tables);
        mirror_sums_init(&r->stored, &r->tables);
    }
    return rc;
}

/* --- rows --- */

static int put_value(struct mp_writer *w, const struct mirror_column *c, const char *text,
                     size_t len)
{
    if (strcmp(c->type, "bigint") == 0) {
        mp_put_i64(w, strtoll(text, NULL, 10));
        return 0;
    }
    if (strcmp(c->type, "text") == 0) {
        mp_put_strn(w, text, len);
        return 0;
    }
    struct buf raw;
    buf_init(&raw, MIRROR_ROW_MAX);
    int rc = unhex(text, MIRROR_ROW_MAX, &raw);
    mp_put_bin(w, buf_blob(&raw));
    buf_fini(&raw);
    return rc;
}

/* Row i of a page as fsm_track.c would have written it. */
static int encode_row(struct reading *r, const struct mirror_table *t, PGresult *page, int i,
                      struct buf *out)
{
    struct mp_writer w;
    int rc = 0;
    int at = 0;
    buf_clear(out);
    mp_writer_init(&w, out);
    mp_put_array(&w, (uint32_t)t->count);
    for (size_t k = 0; rc == 0 && k < t->count; k++) {
        if (mirror_is_cluster_id(&t->columns[k])) {
            mp_put_str(&w, r->cluster_id);
        } else if (PQgetisnull(page, i, at)) {
            mp_put_nil(&w);
            at++;
        } else {
            rc = put_value(&w, &t->columns[k], PQgetvalue(page, i, at),
                           (size_t)PQgetlength(page, i, at));
            at++;
        }
    }
    return rc != 0 ? rc : out->err;
}

static int insert_row(struct reading *r, const char *sql, const struct mirror_table *t,
                      struct blob row)
{
    struct mp_reader in;
    struct db_stmt *st = db_prepare(r->db, sql);
    mp_reader_init(&in, row);
    (void)mp_get_array(&in, MIRROR_COLUMNS_MAX);
    for (size_t i = 0; i < t->count; i++) {
        switch (mp_peek(&in)) {
            case MP_UINT:
            case MP_INT:
                db_bind_int(st, mp_get_i64(&in));
                break;
            case MP_STR: {
                struct blob text = mp_get_str(&in, SIZE_MAX);
                db_bind_textn(st, (const char *)text.data, text.len);
                break;
            }
            case MP_BIN:
                db_bind_blob(st, mp_get_bin(&in, SIZE_MAX));
                break;
            case MP_NIL:
            case MP_BOOL:
            case MP_ARRAY:
            case MP_MAP:
            case MP_BAD:
                (void)mp_skip(&in);
                db_bind_null(st);
                break;
        }
    }
    int rc = db_run(st);
    return rc == 0 ? 0
                   : errmsg_set(r->em, -ERR_CORRUPT, "rap.%s has a row that no state has: %s",
                                t->name, db_errmsg(r->db));
}

static void insert_sql(const struct mirror_table *t, struct buf *out)
{
    buf_addf(out, "INSERT INTO \"%s\" VALUES (", t->name);
    for (size_t i = 0; i < t->count; i++) {
        buf_add_str(out, i == 0 ? "?" : ", ?");
    }
    buf_add_str(out, ")");
}

static int take_page(struct reading *r, const struct mirror_table *t, const char *sql,
                     PGresult *page)
{
    struct buf row;
    int rc = 0;
    buf_init(&row, MIRROR_ROW_MAX);
    for (int i = 0; rc == 0 && i < PQntuples(page); i++) {
        rc = encode_row(r, t, page, i, &row);
        if (rc != 0) {
            rc = errmsg_set(r->em, -ERR_CORRUPT, "rap.%s has a row that does not read", t->name);
            break;
        }
        mirror_sums_add(&r->found, t, buf_blob(&row));
        r->rows++;
        rc = r->build ? insert_row(r, sql, t, buf_blob(&row)) : 0;
    }
    buf_fini(&row);
    return rc;
}

/* The key of the last row of a page: where the next one goes on. */
static void key_of_last(const struct mirror_table *t, PGresult *page, char **keys)
{
    for (size_t i = 0; i < t->keys_count; i++) {
        int at = 0;
        for (size_t k = 0; k < t->keys[i]; k++) {
            at += !mirror_is_cluster_id(&t->columns[k]);
        }
        free(keys[i]);
        keys[i] = xstrdup(PQgetvalue(page, PQntuples(page) - 1, at));
    }
}

static int read_table(struct reading *r, const struct mirror_table *t)
{
    char *keys[MIRROR_COLUMNS_MAX] = {NULL};
    struct buf sql;
    buf_init(&sql, 64u << 10);
    insert_sql(t, &sql);
    int rc = 0;
    for (bool first = true, more = true; rc == 0 && more; first = false) {
        const char *params[MIRROR_COLUMNS_MAX + 1] = {r->cluster_id};
        PGresult *page;
        for (size_t i = 0; i < t->keys_count; i++) {
            params[i + 1] = keys[i];
        }
        rc = pg_ask(&r->pg, first ? t->first_page : t->next_page,
                    first ? 1 : (int)t->keys_count + 1, params, &page);
        if (rc != 0) {
            break;
        }
        rc = take_page(r, t, buf_cstr(&sql), page);
        more = PQntuples(page) == MIRROR_PAGE_ROWS && t->keys_count > 0;
        if (more) {
            key_of_last(t, page, keys);
        }
        PQclear(page);
        uv_sleep(r->o->pause_ms);
        if (rc == 0 && r->o->go_on != NULL && !r->o->go_on(r->o->data)) {
            rc = errmsg_set(r->em, -ERR_CANCELED, "ended");
        }
    }
    for (size_t i = 0; i < t->keys_count; i++) {
        free(keys[i]);
    }
    buf_fini(&sql);
    return rc;
}

/* --- whether they are what was signed --- */

static int read_sums(struct reading *r)
{
    PGresult *res = NULL;
    const char *params[] = {r->cluster_id};
    int rc = pg_ask(&r->pg, MIRROR_SUMS_SELECT, 1, params, &res);
    for (int i = 0; rc == 0 && i < PQntuples(res); i++) {
        if (!mirror_sums_read(&r->stored, PQgetvalue(res, i, 0),
                              strtoll(PQgetvalue(res, i, 1), NULL, 10), PQgetvalue(res, i, 2))) {
            rc = errmsg_set(r->em, -ERR_CORRUPT, "rap.mirror_sums: the sum of %.64s does not read",
                            PQgetvalue(res, i, 0));
        }
    }
    PQclear(res);
    return rc;
}

static int check_sums(struct reading *r)
{
    uint8_t hash[PKI_HASH_BYTES];
    mirror_sums_hash(&r->found, hash);
    if (blob_equal(r->head.header.packed_sha256, blob_of(hash, sizeof hash))) {
        return 0;
    }
    for (size_t i = 0; i < r->tables.count; i++) {
        if (!mirror_sums_equal(&r->found.list[i], &r->stored.list[i])) {
            return errmsg_set(
                r->em, -ERR_CORRUPT,
                "rap.%s was edited: its %llu rows are not the %llu that the authority "
                "signed at index %llu",
                r->tables.list[i].name, (unsigned long long)r->found.list[i].rows,
                (unsigned long long)r->stored.list[i].rows,
                (unsigned long long)r->head.header.index);
        }
    }
    return errmsg_set(
        r->em, -ERR_CORRUPT,
        "rows and rap.mirror_sums were edited: they are not what the authority signed "
        "at index %llu",
        (unsigned long long)r->head.header.index);
}

static int read_all(struct reading *r)
{
    int rc = open_snapshot(r);
    rc = rc != 0 ? rc : choose_cluster(r);
    rc = rc != 0 ? rc : read_seal(r);
    rc = rc != 0 ? rc : make_schema(r);
    rc = rc != 0 ? rc : read_sums(r);
    if (rc == 0 && r->build) {
        rc = db_begin(r->db);
    }
    int bad = 0; /* a row that no state has: the sums say which table it is in, too */
    for (size_t i = 0; rc == 0 && i < r->tables.count; i++) {
        rc = read_table(r, &r->tables.list[i]);
        if (rc == -ERR_CORRUPT) {
            bad = rc;
            rc = 0;
            r->build = false;
        }
    }
    int differs = rc == 0 ? check_sums(r) : rc;
    return differs != 0 ? differs : bad;
}

static void reading_init(struct reading *r, const struct mirror_read *o, bool build,
                         struct errmsg *em)
{
    *r = (struct reading){
        .o = o, .pg = {.go_on = o->go_on, .data = o->data, .em = em}, .em = em, .build = build};
    buf_init(&r->seal, SIGNED_BACKUP_MAX);
}

static void reading_fini(struct reading *r)
{
    pg_ask_close(&r->pg);
    mirror_sums_fini(&r->found);
    mirror_sums_fini(&r->stored);
    mirror_tables_fini(&r->tables);
    db_close(r->db);
    buf_fini(&r->seal);
}

int mirror_read_check(const struct mirror_read *o, uint64_t *ret_index, uint64_t *ret_rows,
                      struct buf *root, struct errmsg *em)
{
    struct reading r;
    reading_init(&r, o, false, em);
    int rc = read_all(&r);
    if (rc == 0) {
        *ret_index = r.head.header.index;
        *ret_rows = r.rows;
        buf_add(root, r.head.root_der.data, r.head.root_der.len);
        rc = root->err;
    }
    reading_fini(&r);
    return rc;
}

/* --- the state --- */

/* What the mirror keeps in another way (migrations/postgres/0001_mirror.sql). */
static int put_position(struct reading *r)
{
    const struct backup_header *h = &r->head.header;
    struct db_stmt *st = db_prepare(r->db, "INSERT INTO authority_applied (cluster_id, epoch, term,"
                                           " \"index\") VALUES (?, ?, ?, ?)");
    db_bind_text(st, r->cluster_id);
    db_bind_int(st, (int64_t)h->epoch);
    db_bind_int(st, (int64_t)h->term);
    db_bind_int(st, (int64_t)h->index);
    int rc = db_run(st);
    if (rc == 0) {
        st = db_prepare(r->db, "INSERT INTO fsm_state (id, term, \"index\", time_ms, digest)"
                               " VALUES (1, ?, ?, ?, ?)");
        db_bind_int(st, (int64_t)h->term);
        db_bind_int(st, (int64_t)h->index);
        db_bind_int(st, h->time_ms);
        db_bind_blob(st, h->digest);
        rc = db_run(st);
    }
    rc = rc != 0 ? rc : db_commit(r->db);
    return rc == 0
               ? 0
               : errmsg_set(r->em, -ERR_CORRUPT, "the state cannot be built: %s", db_errmsg(r->db));
}

static int check_references(struct reading *r)
{
    char table[64] = "";
    struct db_stmt *st = db_prepare(r->db,
                                    "SELECT \"table\" AS name FROM pragma_foreign_key_check");
    bool broken = db_step(st) == 1;
    if (broken) {
        (void)snprintf(table, sizeof table, "%s", db_col_text(st, "name"));
    }
    db_done(st);
    return broken ? errmsg_set(r->em, -ERR_CORRUPT, "rap.%s: a row refers to none", table) : 0;
}

static int pack(struct reading *r, struct mirror_copy *c)
{
    struct db_image *im = NULL;
    int rc = db_freeze(r->db, &im);
    if (rc == 0) {
        c->backup.header.image_bytes = db_image_bytes(im);
        rc = db_image_bytes(im) > IMAGE_MAX_BYTES ? -ERR_TOO_LARGE
                                                  : raft_image_pack(im, &c->packed);
    }
    db_image_free(im);
    return rc == 0 ? 0 : errmsg_set(r->em, rc, "the state cannot be packed: %s", err_text(rc));
}

/* A state of its own, from the image: what a restore would begin with. */
static int check_state(struct reading *r, struct mirror_copy *c)
{
    struct fsm *f = NULL;
    struct buf image;
    buf_init(&image, IMAGE_MAX_BYTES);
    int rc = fsm_new(&f, r->em);
    if (rc == 0) {
        rc = raft_image_unpack(buf_blob(&c->packed), &image);
        rc = rc == 0 ? fsm_restore(f, buf_blob(&image), r->em) : rc;
    }
    rc = rc != 0 ? rc : fsm_audit_verify(f, NULL, r->em);
    if (rc == 0) {
        rc = fsm_cluster_name(fsm_db(f), c->cluster_name);
    }
    fsm_free(f);
    buf_fini(&image);
    return rc;
}

static int build(struct reading *r, struct mirror_copy *c)
{
    int rc = put_position(r);
    rc = rc != 0 ? rc : check_references(r);
    if (rc == 0) {
        c->seal = r->seal;
        buf_init(&r->seal, 1);
        c->backup = r->head;
        c->rows = r->rows;
        rc = pack(r, c);
    }
    rc = rc != 0 ? rc : check_state(r, c);
    if (rc == 0) {
        struct backup_header *h = &c->backup.header;
        c->backup.packed = buf_blob(&c->packed);
        pki_sha256(c->backup.packed, c->packed_sha256);
        h->packed_bytes = c->packed.len;
        h->packed_sha256 = blob_of(c->packed_sha256, sizeof c->packed_sha256);
        h->cluster_name = blob_str(c->cluster_name);
    }
    return rc;
}

int mirror_read(const struct mirror_read *o, struct mirror_copy **ret, struct errmsg *em)
{
    struct reading r;
    struct mirror_copy *c = xcalloc(1, sizeof *c);
    reading_init(&r, o, true, em);
    buf_init(&c->packed, IMAGE_PACKED_MAX);
    int rc = read_all(&r);
    rc = rc != 0 ? rc : build(&r, c);
    reading_fini(&r);
    if (rc != 0) {
        mirror_copy_free(c);
        return rc;
    }
    *ret = c;
    return 0;
}

void mirror_copy_free(struct mirror_copy *c)
{
    if (c != NULL) {
        buf_fini(&c->seal);
        buf_fini(&c->packed);
        free(c);
    }
}
