/* What goes to PostgreSQL: groups of entries, and scans of the whole (mirror_scan.h). */
#include "authority/mirror_impl.h"

#include "base/clock.h"
#include "base/log.h"

#define GROUP_ROWS 8192 /* of one transaction, and */
#define GROUP_BYTES (2u << 20)
#define GROUP_ENTRIES 512 /* at most, but always one entry */

/* --- groups of entries --- */

static uint64_t oldest_ms(struct mirror *m, uint64_t index)
{
    const struct mirror_entry *e = mirror_ring_after(&m->ring, index);
    return e == NULL ? 0 : e->applied_ms;
}

/* With a group on its way the next one grows: a commit of PostgreSQL costs the same for one row and for
 * a thousand. Only what did not fit goes out behind it at once, several groups in flight. */
static bool worth_sending(const struct mirror *m)
{
    return m->core.inflight == 0 || m->group_was_full;
}

/* One group from the entries after what was sent; false when there is none. */
static bool send_group(struct mirror *m, uint64_t limit)
{
    const struct mirror_entry *e = mirror_ring_after(&m->ring, m->core.sent);
    if (e == NULL || e->at.index > limit) {
        return false;
    }
    if (e->prev != m->core.sent) {
        mirror_note_error(
            m, "entries were applied faster than PostgreSQL took them: the difference is "
               "written as a whole");
        mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_GAP});
        return false;
    }
    struct fsm_position to = e->at;
    int bad = 0;
    for (size_t n = 0; n < GROUP_ENTRIES && e != NULL && e->at.index <= limit &&
                       m->group.count < GROUP_ROWS && m->group.bytes < GROUP_BYTES;
         n++) {
        mirror_group_add(&m->group, blob_of(e->changes, e->len));
        bad = bad != 0 ? bad
                       : mirror_sums_entry(&m->sums, blob_of(e->changes, e->len),
                                           blob_of(e->changes + e->len, e->before_len));
        to = e->at;
        e = mirror_ring_after(&m->ring, to.index);
    }
    m->group_was_full = e != NULL && e->at.index <= limit;
    uint64_t rows = m->group.count;
    mirror_sql_fence(m, &to, fsm_level(m->fsm), m->core.sent, m->core.settings.rebuilds);
    mirror_group_send(&m->group, m->link, MIRROR_TAG_ROWS, m->cluster_id);
    CHECK(bad == 0); /* the ring has every old row */
    int err = m->group.err;
    struct errmsg em = m->group.em;
    if (err == 0) {
        err = mirror_seal_send(m, &to, fsm_level(m->fsm), &em);
    }
    mirror_group_clear(&m->group);
    if (err != 0) {
        mirror_note_error(m, "%s", em.text); /* without a sync nothing of it counts */
        mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_UNFIT});
        return false;
    }
    m->sent[(m->sent_first + m->sent_count++) % MIRROR_INFLIGHT_MAX] = (struct mirror_sent){
        .to = to.index, .rows = rows};
    mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_SENT, .index = to.index});
    pg_sync(m->link, MIRROR_TAG_GROUP);
    return true;
}

void mirror_write_groups(struct mirror *m)
{
    uint64_t limit;
    while (m->link != NULL && mirror_core_room(&m->core, &limit) && worth_sending(m) &&
           send_group(m, limit)) {
    }
}

void mirror_write_done(struct mirror *m)
{
    CHECK(m->sent_count > 0);
    struct mirror_sent s = m->sent[m->sent_first];
    m->sent_first = (m->sent_first + 1) % MIRROR_INFLIGHT_MAX;
    m->sent_count--;
    m->rows += s.rows;
    m->groups++;
    m->last_error[0] = '\0';
    mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_ACKED,
                                             .index = s.to,
                                             .oldest_ms = oldest_ms(m, s.to)});
}

/* --- scans --- */

/* Of a state that goes on changing: frozen in a moment, its bytes read in libuv's pool, for those of a
 * hundred thousand nodes take longer than an election. */
struct copying {
    uv_work_t req;
    struct mirror *m;
    struct db_image *image;
    uint8_t *bytes;
    size_t len;
};

static void copy_bytes(uv_work_t *req)
{
    struct copying *c = container_of(req, struct copying, req);
    c->bytes = fsm_copy_bytes(c->image);
}

static void copy_done(uv_work_t *req, int status)
{
    struct copying *c = container_of(req, struct copying, req);
    struct mirror *m = c->m;
    struct errmsg em = ERRMSG_INIT;
    bool wanted = m->copying == c && !m->closing;
    (void)status; /* nobody cancels it */
    db_image_free(c->image);
    m->copying = m->copying == c ? NULL : m->copying;
    if (!wanted) {
        sqlite3_free(c->bytes);
    } else if (c->bytes == NULL || fsm_copy_open(c->bytes, c->len, &m->copy, &em) != 0) {
        mirror_note_error(m, "%s",
                          c->bytes == NULL ? "no memory for a copy of the state" : em.text);
        mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_LOST});
    } else if (m->scan_wanted != SCAN_NONE) {
        mirror_start_scan(m, m->scan_wanted == SCAN_REPAIR);
    }
    free(c);
    mirror_link_closed(m); /* counted like a connection: m outlives it */
}

void mirror_drop_copy(struct mirror *m)
{
    if (m->scan != NULL) {
        mirror_scan_free(m->scan);
        m->scan = NULL;
    } else {
        db_close(m->copy);
    }
    m->copy = NULL;
    m->copying = NULL;
    m->scan_wanted = SCAN_NONE;
}

void mirror_take_copy(struct mirror *m)
{
    struct db_image *image;
    mirror_drop_copy(m);
    fsm_position(m->fsm, &m->copy_at);
    m->copy_level = fsm_level(m->fsm);
    int rc = fsm_freeze(m->fsm, &image);
    if (rc != 0) {
        mirror_note_error(m, rc == -ERR_BUSY ? "a snapshot of the state is being made: tried again"
                                             : "the state cannot be copied");
        mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_LOST});
        return;
    }
    struct copying *c = xcalloc(1, sizeof *c);
    *c = (struct copying){.m = m, .image = image, .len = db_image_bytes(image)};
    m->copying = c;
    m->links_closing++;
    CHECK(uv_queue_work(m->env.loop, &c->req, copy_bytes, copy_done) == 0);
}

void mirror_start_scan(struct mirror *m, bool repair)
{
    if (m->copying != NULL) {
        m->scan_wanted = repair ? SCAN_REPAIR : SCAN_COMPARE;
        return;
    }
    if (m->copy == NULL || m->link == NULL) {
        return;
    }
    m->scan_wanted = SCAN_NONE;
    m->scan = mirror_scan_new(m->copy, &m->tables, m->cluster_id, repair ? &m->sums : NULL);
    m->copy = NULL;
    m->failed_round = false;
    if (repair) {
        /* The position first: it holds off every other writer, and the rows may change with it. */
        pg_query(m->link, MIRROR_TAG_BEGIN, "BEGIN", 0, NULL);
        mirror_sql_fence(m, &m->copy_at, m->copy_level, m->found.index, m->core.settings.rebuilds);
        pg_sync(m->link, MIRROR_TAG_STEP);
        m->resyncs++;
    } else {
        pg_query(m->link, MIRROR_TAG_BEGIN, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 0,
                 NULL);
        mirror_sql_look(m);
    }
}

static void keep_comparison(struct mirror *m)
{
    struct mp_writer w;
    struct mp_doc d;
    buf_clear(&m->verified);
    mp_writer_init(&w, &m->verified);
    mp_doc_begin(&w, &d);
    mp_doc_int(&w, &d, "index", (int64_t)m->copy_at.index);
    mp_doc_int(&w, &d, "mirror_index", (int64_t)m->mirror_index);
    mp_doc_bool(&w, &d, "preview", m->core.preview);
    mirror_scan_doc(m->scan, &w, &d);
    mp_doc_end(&w, &d);
    m->verified_at_ms = clock_wall_ms();
}

static void describe_differences(struct mirror *m)
{
    const struct mirror_scan *s = m->scan;
    if (s->list_count > 0) {
        const struct mirror_difference *d = &s->list[0];
        (void)snprintf(m->alarm_detail, sizeof m->alarm_detail,
                       "%llu rows differ at index %llu; first: %s of %s %.100s",
                       (unsigned long long)s->changed, (unsigned long long)m->copy_at.index,
                       d->what, d->table, d->key);
    }
}

void mirror_scan_done(struct mirror *m)
{
    bool repair = m->scan->repair;
    uint64_t changed = m->scan->changed;
    if (repair) {
        m->rows += changed;
        m->last_error[0] = '\0';
        log_info(LOG_AUTHORITY, "mirror resynced", "index=%llu rows=%llu",
                 (unsigned long long)m->copy_at.index, (unsigned long long)changed);
    } else {
        keep_comparison(m);
        describe_differences(m);
    }
    mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_SCANNED,
                                             .index = m->copy_at.index,
                                             .differences = changed,
                                             .oldest_ms = oldest_ms(m, m->copy_at.index)});
}

void mirror_scan_step(struct mirror *m)
{
    mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_STEP});
    if (m->scan == NULL) {
        return;
    }
    if (mirror_scan_next(m->scan, m->link)) {
        if (m->scan->err != 0) {
            mirror_note_error(m, "%s", m->scan->em.text);
            mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_UNFIT});
        }
        return;
    }
    struct errmsg em = ERRMSG_INIT;
    if (m->scan->repair && mirror_seal_send(m, &m->copy_at, m->copy_level, &em) != 0) {
        mirror_note_error(m, "%s", em.text);
        mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_LOST});
        return;
    }
    pg_query(m->link, MIRROR_TAG_END, "COMMIT", 0, NULL);
    pg_sync(m->link, MIRROR_TAG_ENDED);
}
