#include "authority/raft_log_db.h"

#include "authority/raft_image.h"
#include "authority/raft_log_wal.h"
#include "base/crc32c.h"
#include "pki/pki.h"
#include "wire/recovery_msg.h"

extern const struct db_migration migrations_raft[];

/* Small enough that a batch of the log which waits for one does not feel it. */
#define PART_BYTES ((size_t)256 << 10)
#define CLEAN_PARTS 4
#define CLEAN_ENTRIES 64
/* The configuration of AUTHORITIES_MAX members is far below this. */
#define CONF_MAX_BYTES (64u << 10)

static void put_u64(uint8_t *out, uint64_t v)
{
    for (int i = 0; i < 8; i++) {
        out[i] = (uint8_t)(v >> (8 * i));
    }
}

static uint32_t state_crc(const struct raft_log_state *s)
{
    uint8_t b[32];
    put_u64(b, s->term);
    put_u64(b + 8, s->vote);
    put_u64(b + 16, s->first);
    put_u64(b + 24, s->last);
    return crc32c(0, b, sizeof b);
}

static uint32_t entry_crc(const struct raft_store_entry *e)
{
    uint8_t b[24];
    put_u64(b, e->index);
    put_u64(b + 8, e->term);
    put_u64(b + 16, e->type);
    return crc32c(crc32c(0, b, sizeof b), e->data.data, e->data.len);
}

static void snapshot_hash(uint64_t index, uint64_t term, uint64_t conf_index, struct blob conf,
                          uint64_t image_size, struct blob packed, uint8_t out[PKI_HASH_BYTES])
{
    uint8_t b[48];
    put_u64(b, index);
    put_u64(b + 8, term);
    put_u64(b + 16, conf_index);
    put_u64(b + 24, conf.len);
    put_u64(b + 32, image_size);
    put_u64(b + 40, packed.len);
    const struct blob parts[] = {blob_of(b, sizeof b), conf, packed};
    pki_sha256_parts(parts, ARRAY_SIZE(parts), out);
}

/* --- writing --- */

/* SQLite's integers are signed. */
static void bind_u64(struct db_stmt *st, uint64_t v)
{
    CHECK(v <= INT64_MAX);
    db_bind_int(st, (int64_t)v);
}

int raft_log_db_set_state(struct raft_log_db *d, const struct raft_log_state *state)
{
    struct db_stmt *st = db_prepare(d->db, "UPDATE hard_state SET term = ?, vote = ?,"
                                           " first_index = ?, last_index = ?, crc = ?"
                                           " WHERE id = 1");
    bind_u64(st, state->term);
    bind_u64(st, state->vote);
    bind_u64(st, state->first);
    bind_u64(st, state->last);
    db_bind_int(st, state_crc(state));
    int rc = db_run(st);
    if (rc == 0 && db_changes(d->db) != 1) {
        rc = -ERR_CORRUPT;
    }
    if (rc == 0) {
        d->state = *state;
    }
    return rc;
}

int raft_log_db_append(struct raft_log_db *d, const struct raft_store_entry *e, size_t n)
{
    struct raft_log_state next = d->state;
    for (size_t i = 0; i < n; i++) {
        if (e[i].index != next.last + 1) {
            return -ERR_INVALID;
        }
        next.last = e[i].index;
        struct db_stmt *st = db_prepare(d->db, "INSERT INTO log_entries"
                                               " (log_index, term, type, data, crc)"
                                               " VALUES (?, ?, ?, ?, ?)");
        bind_u64(st, e[i].index);
        bind_u64(st, e[i].term);
        db_bind_int(st, e[i].type);
        db_bind_blob(st, e[i].data);
        db_bind_int(st, entry_crc(&e[i]));
        int rc = db_run(st);
        if (rc != 0) {
            return rc;
        }
    }
    return raft_log_db_set_state(d, &next);
}

static int delete_range(struct raft_log_db *d, uint64_t from, uint64_t below)
{
    struct db_stmt *st = db_prepare(
        d->db, "DELETE FROM log_entries WHERE log_index >= ? AND log_index < ?");
    bind_u64(st, from);
    bind_u64(st, below);
    return db_run(st);
}

int raft_log_db_truncate(struct raft_log_db *d, uint64_t index)
{
    struct raft_log_state next = d->state;
    if (index > next.last) {
        return 0;
    }
    if (index < next.first) {
        return -ERR_INVALID;
    }
    next.last = index - 1;
    int rc = delete_range(d, index, INT64_MAX);
    return rc == 0 ? raft_log_db_set_state(d, &next) : rc;
}

static uint64_t col_u64(struct db_stmt *st, const char *name)
{
    return (uint64_t)db_col_int(st, name);
}

/* --- snapshots --- */

int raft_log_put_init(struct raft_log_put *p, const struct raft_store_snapshot *s,
                      struct blob packed)
{
    size_t size = 0;
    if (s->conf.len > CONF_MAX_BYTES) {
        return -ERR_TOO_LARGE;
    }
    int rc = raft_image_size(packed, &size);
    if (rc != 0) {
        return rc;
    }
    *p = (struct raft_log_put){.index = s->index,
                               .term = s->term,
                               .conf_index = s->conf_index,
                               .trailing = s->trailing,
                               .conf = s->conf,
                               .packed = packed,
                               .image_size = size};
    snapshot_hash(p->index, p->term, p->conf_index, p->conf, p->image_size, packed, p->sha256);
    return 0;
}

/* The index of the stored snapshot; 0 without one. */
static int stored_index(struct raft_log_db *d, uint64_t *ret)
{
    struct db_stmt *st = db_prepare(d->db, "SELECT log_index FROM snapshots");
    int rc = db_step(st);
    *ret = rc == 1 ? col_u64(st, "log_index") : 0;
    db_done(st);
    return rc < 0 ? rc : 0;
}

static int clean_parts(struct raft_log_db *d, bool *ret_more)
{
    uint64_t keep = 0;
    int rc = stored_index(d, &keep);
    int64_t deleted = 0;
    for (int i = 0; rc == 0 && i < CLEAN_PARTS; i++) {
        struct db_stmt *st = db_prepare(d->db,
                                        "DELETE FROM snapshot_parts WHERE (snapshot_index, part) ="
                                        " (SELECT snapshot_index, part FROM snapshot_parts"
                                        "  WHERE snapshot_index <> ? LIMIT 1)");
        bind_u64(st, keep);
        rc = db_run(st);
        deleted = rc == 0 ? db_changes(d->db) : 0;
        if (deleted == 0) {
            break;
        }
    }
    *ret_more = deleted > 0;
    return rc;
}

static int clean_entries(struct raft_log_db *d, bool *ret_more)
{
    struct db_stmt *st = db_prepare(d->db, "SELECT log_index FROM log_entries"
                                           " ORDER BY log_index LIMIT 1");
    int rc = db_step(st);
    uint64_t oldest = rc == 1 ? col_u64(st, "log_index") : d->state.first;
    db_done(st);
    *ret_more = oldest < d->state.first;
    if (rc < 0 || !*ret_more) {
        return rc < 0 ? rc : 0;
    }
    uint64_t below = oldest + CLEAN_ENTRIES;
    return delete_range(d, 0, below < d->state.first ? below : d->state.first);
}

int raft_log_db_clean(struct raft_log_db *d, bool *ret_more)
{
    int rc = clean_parts(d, ret_more);
    return rc != 0 || *ret_more ? rc : clean_entries(d, ret_more);
}

static int insert_part(struct raft_log_db *d, struct raft_log_put *p)
{
    size_t at = p->next_part * PART_BYTES;
    size_t left = p->packed.len - at;
    struct db_stmt *st = db_prepare(d->db, "INSERT INTO snapshot_parts"
                                           " (snapshot_index, part, data) VALUES (?, ?, ?)");
    bind_u64(st, p->index);
    bind_u64(st, p->next_part);
    db_bind_blob(st, blob_of(p->packed.data + at, left < PART_BYTES ? left : PART_BYTES));
    p->next_part++;
    return db_run(st);
}

static int insert_snapshot(struct raft_log_db *d, const struct raft_log_put *p)
{
    int rc = db_run(db_prepare(d->db, "DELETE FROM snapshots"));
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(d->db, "INSERT INTO snapshots (log_index, term, conf_index,"
                                           " conf, image_size, image, sha256)"
                                           " VALUES (?, ?, ?, ?, ?, x'', ?)");
    bind_u64(st, p->index);
    bind_u64(st, p->term);
    bind_u64(st, p->conf_index);
    db_bind_blob(st, p->conf);
    bind_u64(st, p->image_size);
    db_bind_blob(st, blob_of(p->sha256, sizeof p->sha256));
    return db_run(st);
}

/* Where the log begins from now on. The entries before that go later, a few at a time. */
static int move_log(struct raft_log_db *d, const struct raft_log_put *p)
{
    struct raft_log_state next = d->state;
    int rc = 0;
    if (p->trailing == 0 || next.last < p->index) {
        next.first = p->index + 1;
        next.last = p->index;
        rc = delete_range(d, next.first, INT64_MAX);
    } else {
        uint64_t keep_from = p->index > p->trailing ? p->index - p->trailing : 1;
        if (keep_from > next.first) {
            next.first = keep_from;
        }
    }
    return rc == 0 ? raft_log_db_set_state(d, &next) : rc;
}

int raft_log_db_put_step(struct raft_log_db *d, struct raft_log_put *p, bool *ret_done)
{
    uint64_t have = 0;
    bool more = false;
    int rc = stored_index(d, &have);
    *ret_done = false;
    if (rc == 0 && have == p->index) {
        /* Equal index, equal state: only the log may be another. */
        rc = move_log(d, p);
        *ret_done = rc == 0;
        return rc;
    }
    if (rc == 0 && p->next_part == 0) {
        rc = clean_parts(d, &more);
    }
    if (rc != 0 || more) {
        return rc;
    }
    if (p->next_part * PART_BYTES < p->packed.len) {
        return insert_part(d, p);
    }
    rc = insert_snapshot(d, p);
    rc = rc == 0 ? move_log(d, p) : rc;
    *ret_done = rc == 0;
    return rc;
}

static uint32_t epoch_crc(uint64_t epoch, struct blob statement)
{
    uint8_t b[8];
    put_u64(b, epoch);
    return crc32c(crc32c(0, b, sizeof b), statement.data, statement.len);
}

int raft_log_db_set_epoch(struct raft_log_db *d, uint64_t epoch, struct blob statement)
{
    struct db_stmt *st = db_prepare(d->db, "INSERT INTO recovery (id, epoch, statement, crc)"
                                           " VALUES (1, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                                           " epoch = excluded.epoch,"
                                           " statement = excluded.statement, crc = excluded.crc");
    bind_u64(st, epoch);
    db_bind_blob(st, statement);
    db_bind_int(st, epoch_crc(epoch, statement));
    return db_run(st);
}

static uint32_t silence_crc(uint64_t until_index)
{
    uint8_t b[8];
    put_u64(b, until_index);
    return crc32c(0, b, sizeof b);
}

int raft_log_db_set_silence(struct raft_log_db *d, uint64_t until_index)
{
    struct db_stmt *st = db_prepare(d->db, "INSERT INTO silence (id, until_index, crc)"
                                           " VALUES (1, ?, ?)");
    bind_u64(st, until_index);
    db_bind_int(st, silence_crc(until_index));
    return db_run(st);
}

/* --- reading --- */

static int corrupt(struct errmsg *em, const char *table, uint64_t index, const char *what)
{
    return errmsg_set(em, -ERR_CORRUPT, "raft log: table %s, index %llu: %s", table,
                      (unsigned long long)index, what);
}

static int read_failed(struct raft_log_db *d, int rc, const char *table, struct errmsg *em)
{
    return errmsg_set(em, rc, "raft log: table %s cannot be read: %s", table, db_errmsg(d->db));
}

static int read_state(struct raft_log_db *d, struct errmsg *em)
{
    struct db_stmt *st = db_prepare(d->db, "SELECT term, vote, first_index, last_index, crc"
                                           " FROM hard_state WHERE id = 1");
    int rc = db_step(st);
    if (rc == 0) {
        rc = corrupt(em, "hard_state", 1, "row is missing");
    } else if (rc < 0) {
        rc = read_failed(d, rc, "hard_state", em);
    } else {
        d->state = (struct raft_log_state){.term = col_u64(st, "term"),
                                           .vote = col_u64(st, "vote"),
                                           .first = col_u64(st, "first_index"),
                                           .last = col_u64(st, "last_index")};
        bool good = db_col_int(st, "crc") == state_crc(&d->state) && d->state.first >= 1 &&
                    d->state.last < INT64_MAX && d->state.first <= d->state.last + 1;
        rc = good ? 0 : corrupt(em, "hard_state", 1, "checksum does not match");
    }
    db_done(st);
    return rc;
}

/* Copies a view of the statement into an empty buffer. */
static void keep(struct buf *out, struct blob view)
{
    buf_init(out, view.len);
    buf_add(out, view.data, view.len);
}

/* The parts of the image behind what is in out already. Bounded: a damaged row may be anything. */
static int read_parts(struct raft_log_db *d, uint64_t index, struct buf *out)
{
    struct db_stmt *st = db_prepare(d->db, "SELECT part, data FROM snapshot_parts"
                                           " WHERE snapshot_index = ? ORDER BY part");
    bind_u64(st, index);
    int rc;
    uint64_t next = 0;
    while ((rc = db_step(st)) == 1) {
        struct blob part = db_col_blob(st, "data");
        if (col_u64(st, "part") != next++) {
            rc = -ERR_CORRUPT;
            break;
        }
        buf_add(out, part.data, part.len);
    }
    db_done(st);
    return rc == 0 && out->err != 0 ? -ERR_CORRUPT : rc;
}

static int read_snapshot_row(struct raft_log_db *d, struct db_stmt *st,
                             struct raft_store_loaded *ret, struct errmsg *em)
{
    uint64_t index = col_u64(st, "log_index");
    uint64_t term = col_u64(st, "term");
    uint64_t conf_index = col_u64(st, "conf_index");
    uint64_t image_size = col_u64(st, "image_size");
    struct blob conf = db_col_blob(st, "conf");
    struct blob whole = db_col_blob(st, "image"); /* of version 1 */
    struct buf *packed = &ret->snapshot_image;
    uint8_t hash[PKI_HASH_BYTES];
    size_t size = 0;
    if (index < 1 || index >= INT64_MAX) {
        return corrupt(em, "snapshots", index, "index is out of range");
    }
    buf_init(packed, IMAGE_PACKED_MAX);
    buf_add(packed, whole.data, whole.len);
    int rc = read_parts(d, index, packed);
    if (rc != 0) {
        return rc == -ERR_CORRUPT ? corrupt(em, "snapshot_parts", index, "a part is missing")
                                  : read_failed(d, rc, "snapshot_parts", em);
    }
    snapshot_hash(index, term, conf_index, conf, image_size, buf_blob(packed), hash);
    if (!blob_equal(db_col_blob(st, "sha256"), blob_of(hash, sizeof hash))) {
        return corrupt(em, "snapshots", index, "checksum does not match");
    }
    if (raft_image_size(buf_blob(packed), &size) != 0 || size != image_size) {
        return corrupt(em, "snapshots", index, "is no image");
    }
    keep(&ret->snapshot_conf, conf);
    ret->has_snapshot = true;
    ret->snapshot_index = index;
    ret->snapshot_term = term;
    ret->snapshot_conf_index = conf_index;
    return 0;
}

int raft_log_db_get_snapshot(struct raft_log_db *d, struct raft_store_loaded *ret,
                             struct errmsg *em)
{
    struct db_stmt *st = db_prepare(d->db, "SELECT log_index, term, conf_index, conf, image_size,"
                                           " image, sha256 FROM snapshots ORDER BY log_index");
    int rc = db_step(st);
    if (rc == 1) {
        rc = read_snapshot_row(d, st, ret, em);
        if (rc == 0 && db_step(st) != 0) {
            rc = corrupt(em, "snapshots", ret->snapshot_index, "is not the only row");
        }
    } else if (rc < 0) {
        rc = read_failed(d, rc, "snapshots", em);
    }
    db_done(st);
    return rc;
}

static int read_epoch(struct raft_log_db *d, struct raft_store_loaded *ret, struct errmsg *em)
{
    struct db_stmt *st = db_prepare(d->db,
                                    "SELECT epoch, statement, crc FROM recovery WHERE id = 1");
    int rc = db_step(st);
    ret->epoch = EPOCH_FIRST;
    if (rc == 1) {
        uint64_t epoch = col_u64(st, "epoch");
        struct blob statement = db_col_blob(st, "statement");
        if (db_col_int(st, "crc") != epoch_crc(epoch, statement) || epoch <= EPOCH_FIRST ||
            epoch > EPOCH_MAX || statement.len == 0 || statement.len > SIGNED_RECOVERY_MAX) {
            rc = corrupt(em, "recovery", 1, "checksum does not match");
        } else {
            ret->epoch = epoch;
            keep(&ret->statement, statement);
            rc = 0;
        }
    } else if (rc < 0) {
        rc = read_failed(d, rc, "recovery", em);
    }
    db_done(st);
    return rc;
}

static int read_silence(struct raft_log_db *d, struct raft_store_loaded *ret, struct errmsg *em)
{
    struct db_stmt *st = db_prepare(d->db, "SELECT until_index, crc FROM silence WHERE id = 1");
    int rc = db_step(st);
    if (rc == 1) {
        ret->silent_until = col_u64(st, "until_index");
        rc = db_col_int(st, "crc") == silence_crc(ret->silent_until)
                 ? 0
                 : corrupt(em, "silence", 1, "checksum does not match");
    } else if (rc < 0) {
        rc = read_failed(d, rc, "silence", em);
    }
    db_done(st);
    return rc;
}

/* The row at `index`, which must be the next one. */
static int read_entry(struct db_stmt *st, uint64_t index, struct raft_store_entry *ret,
                      struct errmsg *em)
{
    struct raft_store_entry e = {.index = col_u64(st, "log_index"),
                                 .term = col_u64(st, "term"),
                                 .type = (uint16_t)db_col_int(st, "type"),
                                 .data = db_col_blob(st, "data")};
    if (e.index != index) {
        return corrupt(em, "log_entries", index, "row is missing");
    }
    if (db_col_int(st, "crc") != entry_crc(&e) || db_col_int(st, "type") != e.type) {
        return corrupt(em, "log_entries", index, "checksum does not match");
    }
    uint8_t *copy = xmalloc(e.data.len);
    if (e.data.len > 0) {
        memcpy(copy, e.data.data, e.data.len);
    }
    e.data.data = copy;
    *ret = e;
    return 0;
}

static int read_entries(struct raft_log_db *d, struct raft_store_loaded *ret, struct errmsg *em)
{
    uint64_t index = d->state.first;
    uint64_t last_term = 0;
    size_t cap = 0;
    int rc;
    /* What is before the beginning only waits to be deleted. */
    struct db_stmt *st = db_prepare(d->db, "SELECT log_index, term, type, data, crc"
                                           " FROM log_entries WHERE log_index >= ?"
                                           " ORDER BY log_index");
    bind_u64(st, index);
    while ((rc = db_step(st)) == 1) {
        /* Grown as rows come: the count of a damaged state row is no reason to allocate. */
        if (ret->entries_count == cap) {
            cap = cap == 0 ? 1024 : 2 * cap;
            ret->entries = xrealloc(ret->entries, cap * sizeof *ret->entries);
        }
        struct raft_store_entry *e = &ret->entries[ret->entries_count];
        if (index > d->state.last) {
            rc = corrupt(em, "log_entries", index, "row is beyond the end of the log");
            break;
        }
        rc = read_entry(st, index, e, em);
        if (rc != 0) {
            break;
        }
        ret->entries_count++;
        if (e->term < last_term || e->term > d->state.term) {
            rc = corrupt(em, "log_entries", index, "term is out of order");
            break;
        }
        last_term = e->term;
        index++;
    }
    if (rc == 0 && index != d->state.last + 1) {
        rc = corrupt(em, "log_entries", index, "row is missing");
    } else if (rc < 0 && rc != -ERR_CORRUPT) {
        rc = read_failed(d, rc, "log_entries", em);
    }
    if (rc == -ERR_CORRUPT && em != NULL && em->text[0] == '\0') {
        rc = corrupt(em, "log_entries", index, db_errmsg(d->db));
    }
    db_done(st);
    return rc;
}

int raft_log_db_load(struct raft_log_db *d, struct raft_store_loaded *ret, struct errmsg *em)
{
    int rc = read_state(d, em);
    if (rc == 0) {
        rc = read_epoch(d, ret, em);
    }
    if (rc == 0) {
        rc = read_silence(d, ret, em);
    }
    if (rc == 0) {
        rc = raft_log_db_get_snapshot(d, ret, em);
    }
    if (rc == 0) {
        uint64_t base = ret->snapshot_index; /* 0 without one */
        if (d->state.first > base + 1 || d->state.last < base) {
            rc = corrupt(em, "snapshots", base, "snapshot and log do not meet");
        }
    }
    if (rc == 0) {
        rc = read_entries(d, ret, em);
    }
    if (rc == 0) {
        ret->term = d->state.term;
        ret->vote = d->state.vote;
    }
    return rc;
}

/* --- opening --- */

int raft_log_db_open(struct raft_log_db *d, const char *path, struct errmsg *em)
{
    *d = (struct raft_log_db){0};
    int rc = db_open(path, DB_DURABLE, &d->db, em);
    if (rc == 0) {
        rc = raft_log_wal_check(path, em);
        if (rc != 0) {
            /* Closing would copy what is left of the log and delete the rest: the next start would
             * find nothing wrong. */
            (void)sqlite3_db_config(db_handle(d->db), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        }
    }
    if (rc == 0) {
        rc = db_migrate(d->db, migrations_raft, em);
    }
    if (rc == 0) {
        /* An empty log to start with: frames a crash left unfinished are not mistaken for damage by
         * the check of a later start. */
        rc = db_exec(d->db, "PRAGMA wal_checkpoint(TRUNCATE)", em);
    }
    if (rc == 0) {
        rc = read_state(d, em);
    }
    if (rc != 0) {
        errmsg_wrap(em, rc, "%s", path);
        raft_log_db_close(d);
    }
    return rc;
}

void raft_log_db_close(struct raft_log_db *d)
{
    db_close(d->db);
    d->db = NULL;
}
