/* Where PostgreSQL is and whether it is to be believed (DESIGN D2). The connection string was checked by
 * the leader that proposed it: parsing it is libpq's business, which is not part of the state. */
#include "authority/fsm_impl.h"

#define SQL_MIRROR                                                                            \
    "SELECT cluster_id, mode, dsn, max_lag_ms, rebuilds, alarm, alarm_detail, alarm_at,"      \
    " updated_at FROM mirror_settings WHERE cluster_id = ?"

struct settings {
    bool there, enabled, alarmed;
    char mode[16];
    char dsn[MIRROR_DSN_MAX + 1];
};

static int load(struct fsm_ctx *x, struct settings *ret)
{
    struct db_stmt *st = db_prepare(x->db, SQL_MIRROR);
    db_bind_text(st, x->cluster_id);
    int rc = db_step(st);
    *ret = (struct settings){.there = rc == 1};
    if (rc == 1) {
        (void)snprintf(ret->mode, sizeof ret->mode, "%s", db_col_text(st, "mode"));
        (void)snprintf(ret->dsn, sizeof ret->dsn, "%s", db_col_text(st, "dsn"));
        ret->enabled = strcmp(ret->mode, "disabled") != 0;
        ret->alarmed = !db_col_is_null(st, "alarm");
    }
    db_done(st);
    return rc < 0 ? rc : 0;
}

static bool is_word(struct blob b, const char *word)
{
    return blob_equal(b, blob_str(word));
}

static int audit_set(struct fsm_ctx *x, const struct mirror_set *b, bool disable)
{
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_str(&j, "mode", b->mode);
    if (!disable) {
        fsm_json_str(&j, "dsn", b->dsn);
        fsm_json_int(&j, "max_lag_ms", (int64_t)b->max_lag_ms);
    }
    const struct fsm_audit a = {.event = disable ? "mirror_disabled" : "mirror_enabled",
                                .subject_type = "mirror",
                                .subject_id = x->cluster_id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_mirror_set(struct fsm_ctx *x, const struct mirror_set *b)
{
    struct settings now;
    bool disable = is_word(b->mode, "disabled");
    if (!disable && !is_word(b->mode, "async") && !is_word(b->mode, "required")) {
        return fsm_refuse(x, -ERR_INVALID, "a mirror's mode is async or required");
    }
    if (!disable && (b->dsn.len == 0 || b->max_lag_ms < MIRROR_LAG_MS_MIN ||
                     b->max_lag_ms > MIRROR_LAG_MS_MAX)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a mirror needs a connection string and a lag between 1s and 1h");
    }
    int rc = load(x, &now);
    if (rc != 0) {
        return rc;
    }
    if (disable && !now.enabled) {
        return fsm_refuse(x, -ERR_NOT_FOUND, "no mirror is enabled");
    }
    /* An alarm is about one database: it goes when another one is named, or by a rebuild. */
    struct db_stmt *st = db_prepare(
        x->db,
        "INSERT INTO mirror_settings (cluster_id, mode, dsn, max_lag_ms, rebuilds, updated_at)"
        " VALUES (?1, ?2, ?3, ?4, 0, ?5) ON CONFLICT (cluster_id) DO UPDATE SET mode = ?2,"
        " dsn = iif(?2 = 'disabled', dsn, ?3),"
        " max_lag_ms = iif(?2 = 'disabled', max_lag_ms, ?4),"
        " alarm = iif(?2 = 'disabled' OR dsn = ?3, alarm, NULL),"
        " alarm_detail = iif(?2 = 'disabled' OR dsn = ?3, alarm_detail, NULL),"
        " alarm_at = iif(?2 = 'disabled' OR dsn = ?3, alarm_at, NULL), updated_at = ?5");
    db_bind_text(st, x->cluster_id);
    db_bind_textn(st, (const char *)b->mode.data, b->mode.len);
    db_bind_textn(st, b->dsn.len == 0 ? "" : (const char *)b->dsn.data, b->dsn.len);
    db_bind_int(st, (int64_t)b->max_lag_ms);
    db_bind_int(st, x->now_ms);
    rc = db_run(st);
    if (rc == 0) {
        rc = audit_set(x, b, disable);
    }
    return rc != 0 ? rc : fsm_doc_put(x, SQL_MIRROR, x->cluster_id);
}

int fsm_mirror_rebuild(struct fsm_ctx *x, const struct mirror_rebuild *b)
{
    struct settings now;
    int rc = load(x, &now);
    if (rc != 0) {
        return rc;
    }
    if (!now.enabled) {
        return fsm_refuse(x, -ERR_CONFLICT, "no mirror is enabled: `rap mirror enable --dsn S`");
    }
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE mirror_settings SET rebuilds = rebuilds + 1, alarm = NULL,"
               " alarm_detail = NULL, alarm_at = NULL, updated_at = ?2 WHERE cluster_id = ?1");
    db_bind_text(st, x->cluster_id);
    db_bind_int(st, x->now_ms);
    rc = db_run(st);
    if (rc == 0) {
        rc = fsm_audit_simple(x, "mirror_rebuild", "mirror", x->cluster_id,
                              b->reason.len == 0 ? NULL : "reason", b->reason);
    }
    return rc != 0 ? rc : fsm_doc_put(x, SQL_MIRROR, x->cluster_id);
}

/* What the leader found out about PostgreSQL. */
int fsm_mirror_event(struct fsm_ctx *x, const struct mirror_event *b)
{
    struct settings now;
    bool alarm = is_word(b->event, "mirror_alarm");
    if (!alarm && !is_word(b->event, "mirror_rewound")) {
        return fsm_refuse(x, -ERR_INVALID, "no such event of a mirror");
    }
    int rc = load(x, &now);
    if (rc != 0) {
        return rc;
    }
    if (!now.enabled || (alarm && now.alarmed)) {
        return fsm_refuse(x, -ERR_CONFLICT, "the mirror is off, or under alarm already");
    }
    if (alarm) {
        struct db_stmt *st = db_prepare(
            x->db, "UPDATE mirror_settings SET alarm = ?2, alarm_detail = ?3, alarm_at = ?4,"
                   " updated_at = ?4 WHERE cluster_id = ?1");
        db_bind_text(st, x->cluster_id);
        db_bind_textn(st, (const char *)b->kind.data, b->kind.len);
        db_bind_textn(st, b->detail.len == 0 ? "" : (const char *)b->detail.data, b->detail.len);
        db_bind_int(st, x->now_ms);
        rc = db_run(st);
    }
    if (rc != 0) {
        return rc;
    }
    struct fsm_json j;
    fsm_json_begin(&j);
    if (b->kind.len > 0) {
        fsm_json_str(&j, "alarm", b->kind);
    }
    fsm_json_str(&j, "detail", b->detail);
    const struct fsm_audit a = {.event = alarm ? "mirror_alarm" : "mirror_rewound",
                                .subject_type = "mirror",
                                .subject_id = x->cluster_id};
    rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc != 0 ? rc : fsm_doc_put(x, SQL_MIRROR, x->cluster_id);
}
