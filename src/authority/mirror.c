/* The driver: events to mirror_step, and what it says to libpq.
 *
 * Happy path: settings say where PostgreSQL is -> leading -> open -> up -> two rounds of checks
 * (mirror_sql.c) -> groups of entries, some in flight, each a fence and its rows up to one sync.
 * Failure paths: connection lost or refused -> closed and opened again after a pause, where the claim
 * reads the position anew, so an unknown outcome is known then; claim refused -> fenced; a position that
 * cannot be ours, or rows that differ -> alarm, reported until the log has it. */
#include "authority/mirror_impl.h"

#include "base/clock.h"
#include "base/log.h"

static void act(struct mirror *m, const struct mirror_todo *t);

uint64_t mirror_now_ms(struct mirror *m)
{
    return m->env.mono_ms(m->env.data);
}

void mirror_happened(struct mirror *m, struct mirror_input e)
{
    struct mirror_todo todo;
    e.now_ms = mirror_now_ms(m);
    mirror_step(&m->core, &e, &todo);
    act(m, &todo);
}

void mirror_note_error(struct mirror *m, const char *fmt, ...)
{
    static struct log_limit limit;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(m->last_error, sizeof m->last_error, fmt, ap);
    va_end(ap);
    m->last_error_at_ms = clock_wall_ms();
    if (log_allow(&limit, 20)) {
        log_warn(LOG_AUTHORITY, "mirror error", "error=\"%s\" next=\"tried again\"", m->last_error);
    }
}

#define RATE_MS 1000

/* --- what the state says --- */

static void set_feeding(struct mirror *m, bool feeding)
{
    m->feeding = feeding;
    fsm_keep_before(m->fsm, feeding);
}

static void load_settings(struct mirror *m)
{
    struct mirror_settings s = m->core.settings;
    char dsn[sizeof m->dsn] = "";
    m->settings_dirty = false;
    s.enabled = s.required = s.alarmed = false;
    m->mode[0] = m->alarm[0] = m->alarm_detail[0] = '\0';
    if (fsm_level(m->fsm) >= LEVEL_MIRROR) {
        struct db_stmt *st = db_prepare(fsm_db(m->fsm),
                                        "SELECT cluster_id, mode, dsn, max_lag_ms, rebuilds, alarm,"
                                        " alarm_detail, alarm_at FROM mirror_settings");
        if (db_step(st) == 1) {
            (void)snprintf(m->cluster_id, sizeof m->cluster_id, "%s",
                           db_col_text(st, "cluster_id"));
            (void)snprintf(m->mode, sizeof m->mode, "%s", db_col_text(st, "mode"));
            (void)snprintf(dsn, sizeof dsn, "%s", db_col_text(st, "dsn"));
            (void)snprintf(m->alarm, sizeof m->alarm, "%s", db_col_text(st, "alarm"));
            (void)snprintf(m->alarm_detail, sizeof m->alarm_detail, "%s",
                           db_col_text(st, "alarm_detail"));
            m->alarm_at_ms = db_col_int(st, "alarm_at");
            s.enabled = strcmp(m->mode, "disabled") != 0;
            s.required = strcmp(m->mode, "required") == 0;
            s.alarmed = !db_col_is_null(st, "alarm");
            s.max_lag_ms = (uint32_t)db_col_int(st, "max_lag_ms");
            s.rebuilds = (uint64_t)db_col_int(st, "rebuilds");
        }
        db_done(st);
    }
    if (strcmp(dsn, m->dsn) != 0) {
        memcpy(m->dsn, dsn, sizeof dsn);
        s.version++;
    }
    if (!s.enabled) {
        m->last_error[0] = '\0';
    }
    set_feeding(m, s.enabled);
    mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_SETTINGS, .settings = s});
}

/* Rows of before mean something else now: nothing under way may go on. */
static void follow_generation(struct mirror *m, uint64_t index)
{
    if (m->generation == fsm_generation(m->fsm)) {
        return;
    }
    m->generation = fsm_generation(m->fsm);
    m->settings_dirty = true;
    mirror_ring_reset(&m->ring, index);
    if (m->link != NULL) {
        mirror_note_error(m, "the state was replaced");
        mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_LOST});
    }
    mirror_group_clear(&m->group);
    mirror_sums_fini(&m->sums);
    mirror_tables_fini(&m->tables);
    m->tables_loaded = false;
}

static void on_entry(void *data, const struct fsm_position *at, struct blob changes,
                     struct blob before)
{
    struct mirror *m = data;
    if (m->generation != fsm_generation(m->fsm)) {
        follow_generation(m, at->index);
    } else if (m->feeding) {
        mirror_ring_push(&m->ring, at, changes, before, mirror_now_ms(m));
    } else {
        mirror_ring_reset(&m->ring, at->index);
    }
    struct blob rest = changes;
    struct fsm_change c;
    while (!m->settings_dirty && fsm_change_next(&rest, &c)) {
        m->settings_dirty = blob_equal(c.table, blob_str("mirror_settings"));
    }
    if (m->settings_dirty) {
        set_feeding(m, true); /* until they are read: better too much than a hole */
    }
}

void mirror_applied(struct mirror *m)
{
    struct fsm_position pos;
    if (m->closing) {
        return;
    }
    fsm_position(m->fsm, &pos);
    follow_generation(m, pos.index);
    if (m->settings_dirty) {
        load_settings(m);
    }
    if (pos.index != m->applied_told) {
        m->applied_told = pos.index;
        mirror_happened(m, (struct mirror_input){
                               .kind = MIRROR_EV_APPLIED, .index = pos.index, .term = pos.term});
    }
}

/* --- doing what the core says --- */

static void answer_verify(struct mirror *m, int rc, struct blob doc)
{
    mirror_verify_cb cb = m->verify_cb;
    m->verify_cb = NULL;
    if (cb != NULL) {
        cb(m->verify_data, rc, doc);
    }
}

static void answer_verify_text(struct mirror *m, int rc, const char *text)
{
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 1024);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_str(&w, &d, "detail", text);
    mp_doc_end(&w, &d);
    answer_verify(m, rc, buf_blob(&doc));
    buf_fini(&doc);
}

static void report(struct mirror *m, const struct mirror_todo *t)
{
    if (t->alarm != MIRROR_ALARM_NONE) {
        log_error(LOG_AUTHORITY, "mirror alarm",
                  "kind=%s detail=\"%s\" next=\"rap mirror rebuild\"", mirror_alarm_name(t->alarm),
                  m->alarm_detail);
        m->env.report(m->env.data, "mirror_alarm", mirror_alarm_name(t->alarm), m->alarm_detail);
    }
    if (t->rewound) {
        m->env.report(m->env.data, "mirror_rewound", "", m->alarm_detail);
    }
}

static void act(struct mirror *m, const struct mirror_todo *t)
{
    if (t->close) {
        mirror_close_link(m);
    }
    if (t->drop_copy) {
        mirror_drop_copy(m);
    }
    if (t->verified) {
        answer_verify(m, 0, buf_blob(&m->verified));
    }
    if (t->unverified) {
        answer_verify_text(m, -ERR_MIRROR_UNAVAILABLE,
                           m->last_error[0] != '\0' ? m->last_error
                                                    : "the mirror is not connected now: "
                                                      "`rap mirror status` tells why");
    }
    report(m, t);
    if (t->open) {
        mirror_open_link(m);
    }
    if (t->check) {
        if (!m->tables_loaded) {
            mirror_tables_load(&m->tables, fsm_db(m->fsm));
            mirror_group_init(&m->group, &m->tables);
            mirror_sums_init(&m->sums, &m->tables);
            m->tables_loaded = true;
        }
        mirror_sql_schema(m);
    }
    if (t->copy) {
        mirror_take_copy(m);
    }
    if (t->resync || t->compare) {
        mirror_start_scan(m, t->resync);
    }
    if (t->pump) {
        mirror_write_groups(m);
    }
}

/* --- for the authority --- */

struct mirror *mirror_new(struct fsm *fsm, const struct uuid *node_id, const struct mirror_env *env)
{
    struct mirror *m = xcalloc(1, sizeof *m);
    m->fsm = fsm;
    m->node_id = *node_id;
    uuid_format(node_id, m->node_id_text);
    m->env = *env;
    m->settings_dirty = true;
    m->generation = fsm_generation(fsm);
    mirror_core_init(&m->core);
    mirror_ring_init(&m->ring, 0);
    mirror_group_init(&m->group, &m->tables);
    buf_init(&m->verified, 256u << 10);
    buf_init(&m->seal, 2 * SIGNED_BACKUP_MAX + 2);
    fsm_on_entry(fsm, on_entry, m);
    return m;
}

void mirror_free(struct mirror *m)
{
    if (m == NULL) {
        return;
    }
    fsm_on_entry(m->fsm, NULL, NULL);
    mirror_drop_copy(m);
    mirror_group_clear(&m->group);
    mirror_sums_fini(&m->sums);
    mirror_tables_fini(&m->tables);
    buf_fini(&m->seal);
    mirror_ring_fini(&m->ring);
    buf_fini(&m->verified);
    free(m);
}

static void on_nothing_to_close(uv_handle_t *h)
{
    struct mirror *m = h->data;
    free(h);
    mirror_link_closed(m);
}

void mirror_close(struct mirror *m, void (*cb)(void *data), void *data)
{
    CHECK(!m->closing);
    m->closing = true;
    m->close_cb = cb;
    m->close_data = data;
    answer_verify_text(m, -ERR_CANCELED, "the node is stopping");
    mirror_close_link(m);
    /* A handle of its own makes "on a later turn" true without a connection too. */
    uv_idle_t *h = xcalloc(1, sizeof *h);
    CHECK(uv_idle_init(m->env.loop, h) == 0);
    h->data = m;
    m->links_closing++;
    uv_close((uv_handle_t *)h, on_nothing_to_close);
}

void mirror_lead(struct mirror *m, uint64_t epoch, uint64_t term)
{
    if (!m->closing) {
        mirror_happened(
            m, (struct mirror_input){.kind = MIRROR_EV_LEAD, .epoch = epoch, .term = term});
    }
}

void mirror_unlead(struct mirror *m)
{
    if (!m->closing) {
        mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_UNLEAD});
    }
}

void mirror_tick(struct mirror *m)
{
    if (m->closing) {
        return;
    }
    uint64_t now = mirror_now_ms(m);
    if (now - m->rate_at_ms >= RATE_MS) {
        m->rows_per_s = (m->rows - m->rate_rows) * 1000 / (now - m->rate_at_ms);
        m->rate_rows = m->rows;
        m->rate_at_ms = now;
    }
    mirror_applied(m);
    enum mirror_state before = m->core.state;
    mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_TICK});
    if (m->core.state == MIRROR_WAITING && before != MIRROR_WAITING) {
        mirror_note_error(m, "%s",
                          m->came_up ? "PostgreSQL fell silent"
                                     : "the server of PostgreSQL does not answer: host down, "
                                       "frozen, or a firewall");
    }
}

void mirror_verify(struct mirror *m, bool preview, mirror_verify_cb cb, void *data)
{
    if (m->verify_cb != NULL || m->closing) {
        struct mp_writer w;
        struct mp_doc d;
        struct buf doc;
        buf_init(&doc, 256);
        mp_writer_init(&w, &doc);
        mp_doc_begin(&w, &d);
        mp_doc_str(&w, &d, "detail", "a verification is under way: wait for it");
        mp_doc_end(&w, &d);
        cb(data, -ERR_BUSY, buf_blob(&doc));
        buf_fini(&doc);
        return;
    }
    struct fsm_position pos;
    mirror_applied(m);
    fsm_position(m->fsm, &pos);
    m->verify_cb = cb;
    m->verify_data = data;
    mirror_happened(
        m, (struct mirror_input){.kind = MIRROR_EV_VERIFY, .index = pos.index, .preview = preview});
}
