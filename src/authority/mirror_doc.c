/* What an owner is told about the mirror. */
#include "authority/mirror_impl.h"

int mirror_check_available(struct mirror *m, bool takes_away, struct errmsg *em)
{
    uint64_t now = mirror_now_ms(m);
    if (mirror_core_available(&m->core, now) || (takes_away && mirror_core_reserve(&m->core))) {
        return 0;
    }
    if (m->core.state == MIRROR_FAILED) {
        return errmsg_set(em, -ERR_MIRROR_UNAVAILABLE,
                          "the mirror is required and not to be believed (%s: %s): look at it with "
                          "`rap mirror verify`, write it anew with `rap mirror rebuild`",
                          m->alarm[0] != '\0' ? m->alarm : mirror_alarm_name(m->core.alarm),
                          m->alarm_detail);
    }
    return errmsg_set(em, -ERR_MIRROR_UNAVAILABLE,
                      "the mirror is required and %llu entries, %llu s behind (%s: %s): nothing "
                      "was decided; bring PostgreSQL back, or `rap mirror enable --mode async`",
                      (unsigned long long)mirror_core_lag(&m->core),
                      (unsigned long long)(mirror_core_lag_ms(&m->core, now) / 1000),
                      mirror_state_name(m->core.state),
                      m->last_error[0] != '\0' ? m->last_error : "no error");
}

void mirror_stats(struct mirror *m, struct mirror_stats *ret)
{
    uint64_t now = mirror_now_ms(m);
    const struct mirror_core *c = &m->core;
    *ret = (struct mirror_stats){
        .enabled = c->settings.enabled,
        .required = c->settings.required,
        .alarmed = c->state == MIRROR_FAILED || m->alarm[0] != '\0',
        .available = mirror_core_available(c, now),
        .position_known = c->position_known,
        .state = c->state,
        .acked = c->position_known ? c->acked : 0,
        .lag_entries = c->position_known ? mirror_core_lag(c) : 0,
        .lag_ms = mirror_core_lag_ms(c, now),
        .rows = m->rows,
    };
}

void mirror_status_doc(struct mirror *m, struct mp_writer *w, struct mp_doc *d)
{
    uint64_t now = mirror_now_ms(m);
    bool known = m->core.position_known;
    mp_doc_str(w, d, "mode", m->mode[0] == '\0' ? "disabled" : m->mode);
    mp_doc_str(w, d, "state", mirror_state_name(m->core.state));
    mp_doc_str(w, d, "dsn", m->dsn);
    mp_doc_bool(w, d, "available", mirror_core_available(&m->core, now));
    mp_doc_int(w, d, "reserve_used", (int64_t)m->core.reserve_used);
    mp_doc_int(w, d, "max_lag_ms", m->core.settings.max_lag_ms);
    mp_doc_int(w, d, "applied_index", (int64_t)m->core.applied);
    mp_doc_int(w, d, "mirror_index", known ? (int64_t)m->core.acked : 0);
    mp_doc_int(w, d, "lag_entries", known ? (int64_t)mirror_core_lag(&m->core) : -1);
    mp_doc_int(w, d, "lag_ms", (int64_t)mirror_core_lag_ms(&m->core, now));
    mp_doc_int(w, d, "rows_per_second", (int64_t)m->rows_per_s);
    mp_doc_int(w, d, "rows", (int64_t)m->rows);
    mp_doc_int(w, d, "transactions", (int64_t)m->groups);
    mp_doc_int(w, d, "resyncs", (int64_t)m->resyncs);
    mp_doc_int(w, d, "rebuilds", (int64_t)m->core.settings.rebuilds);
    char version[32] = "";
    if (m->server_version > 0) {
        (void)snprintf(version, sizeof version, "%d.%d", m->server_version / 10000,
                       m->server_version % 10000);
    }
    mp_doc_str(w, d, "server_version", version);
    mp_doc_str(w, d, "last_error", m->last_error);
    mp_doc_time(w, d, "last_error_at", m->last_error[0] == '\0' ? 0 : m->last_error_at_ms);
    bool failed = m->core.state == MIRROR_FAILED || m->alarm[0] != '\0';
    mp_doc_str(w, d, "alarm",
               m->alarm[0] != '\0' ? m->alarm
               : failed            ? mirror_alarm_name(m->core.alarm)
                                   : "");
    mp_doc_str(w, d, "alarm_detail", failed ? m->alarm_detail : "");
    mp_doc_time(w, d, "alarm_at", m->alarm[0] != '\0' ? m->alarm_at_ms : 0);
    mp_doc_time(w, d, "verified_at", m->verified_at_ms);
    mp_doc_int(w, d, "verified_differences", mp_find_int(buf_blob(&m->verified), "differences"));
    mp_doc_str(w, d, "leader_node_id", m->node_id_text);
}
