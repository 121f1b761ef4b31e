/* What the schema of a level is, to hold an image's against it. */
#include "authority/fsm_impl.h"
#include "pki/pki.h"

#include <pthread.h>

/* Levels are looked at once a process: running the migrations takes longer than a small image does. */
enum { LEVELS_KEPT = 64 };

static struct {
    pthread_mutex_t lock; /* images are prepared in the pool, too */
    struct {
        const struct db_migration *schema; /* NULL: not looked at */
        uint8_t sum[PKI_HASH_BYTES];
    } levels[LEVELS_KEPT];
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Every table, index and nothing else, word for word: no trigger, no view, no table of another
 * shape comes in with an image. */
static int schema_sum(struct db *db, uint8_t ret[PKI_HASH_BYTES], struct errmsg *em)
{
    struct buf text;
    buf_init(&text, 1u << 20);
    sqlite3_stmt *raw = NULL;
    int rv = sqlite3_prepare_v2(db_handle(db),
                                "SELECT type, name, tbl_name, sql FROM sqlite_schema"
                                " ORDER BY type, name",
                                -1, &raw, NULL);
    while (rv == SQLITE_OK || rv == SQLITE_ROW) {
        rv = sqlite3_step(raw);
        for (int i = 0; rv == SQLITE_ROW && i < 4; i++) {
            const void *column = sqlite3_column_text(raw, i);
            buf_add(&text, column, (size_t)sqlite3_column_bytes(raw, i));
            buf_add(&text, "", 1);
        }
        if (rv != SQLITE_ROW) {
            break;
        }
    }
    (void)sqlite3_finalize(raw);
    int rc = 0;
    if (rv != SQLITE_DONE || text.err != 0) {
        rc = errmsg_set(em, -ERR_CORRUPT, "image: schema unreadable: %s", db_errmsg(db));
    } else {
        pki_sha256(buf_blob(&text), ret);
    }
    buf_fini(&text);
    return rc;
}

static int model_sum(const struct db_migration *schema, int64_t level, uint8_t ret[PKI_HASH_BYTES],
                     struct errmsg *em)
{
    struct db *model = NULL;
    int rc = fsm_db_open(&model, em);
    if (rc == 0) {
        rc = db_migrate_to(model, schema, level, em);
    }
    if (rc == 0) {
        rc = schema_sum(model, ret, em);
    }
    db_close(model);
    return rc;
}

static int expected_sum(const struct db_migration *schema, int64_t level,
                        uint8_t ret[PKI_HASH_BYTES], struct errmsg *em)
{
    bool may_keep = level < LEVELS_KEPT;
    bool known = false;
    if (may_keep) {
        pthread_mutex_lock(&kept.lock);
        known = kept.levels[level].schema == schema;
        memcpy(ret, kept.levels[level].sum, PKI_HASH_BYTES);
        pthread_mutex_unlock(&kept.lock);
    }
    if (known) {
        return 0;
    }
    int rc = model_sum(schema, level, ret, em);
    if (rc == 0 && may_keep) {
        pthread_mutex_lock(&kept.lock);
        kept.levels[level].schema = schema;
        memcpy(kept.levels[level].sum, ret, PKI_HASH_BYTES);
        pthread_mutex_unlock(&kept.lock);
    }
    return rc;
}

int fsm_schema_check(struct db *db, const struct db_migration *schema, unsigned *ret_level,
                     struct errmsg *em)
{
    int64_t level = 0;
    int64_t known = db_migrations_count(schema);
    int rc = db_version(db, &level);
    if (rc != 0 || level < FSM_LEVEL_FIRST) {
        return errmsg_set(em, -ERR_CORRUPT, "image: it has no schema level");
    }
    if (level > known) {
        return errmsg_set(
            em, -ERR_SCHEMA,
            "image: the state is of level %lld, this binary knows up to %lld: install "
            "the version that wrote it",
            (long long)level, (long long)known);
    }
    uint8_t expected[PKI_HASH_BYTES];
    uint8_t seen[PKI_HASH_BYTES];
    rc = expected_sum(schema, level, expected, em);
    if (rc == 0) {
        rc = schema_sum(db, seen, em);
    }
    if (rc == 0 && memcmp(expected, seen, sizeof seen) != 0) {
        rc = errmsg_set(em, -ERR_CORRUPT, "image: its schema is not ours");
    }
    *ret_level = (unsigned)level;
    return rc;
}
