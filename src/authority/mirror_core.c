#include "authority/mirror_core.h"

#include "base/log.h"

const char *mirror_state_name(enum mirror_state s)
{
    switch (s) {
        case MIRROR_DISABLED:
            return "disabled";
        case MIRROR_STANDBY:
            return "standby";
        case MIRROR_WAITING:
            return "waiting";
        case MIRROR_CONNECTING:
            return "connecting";
        case MIRROR_CHECKING:
            return "checking";
        case MIRROR_FOLLOWING:
            return "following";
        case MIRROR_RESYNCING:
            return "resyncing";
        case MIRROR_VERIFYING:
            return "verifying";
        case MIRROR_FENCED:
            return "fenced";
        case MIRROR_FAILED:
            return "failed";
    }
    return "?";
}

const char *mirror_alarm_name(enum mirror_alarm a)
{
    switch (a) {
        case MIRROR_ALARM_NONE:
            return "none";
        case MIRROR_ALARM_AHEAD:
            return "ahead";
        case MIRROR_ALARM_DIVERGED:
            return "diverged";
        case MIRROR_ALARM_EDITED:
            return "edited";
        case MIRROR_ALARM_UNFIT:
            return "unfit";
    }
    return "?";
}

#define TO(s) (1u << MIRROR_##s)
/* Losing the leadership or being switched off ends every state. */
#define ALWAYS (TO(DISABLED) | TO(STANDBY))

static const unsigned allowed[] = {
    [MIRROR_DISABLED] = TO(STANDBY),
    [MIRROR_STANDBY] = TO(DISABLED) | TO(CONNECTING) | TO(FAILED),
    [MIRROR_WAITING] = ALWAYS | TO(CONNECTING) | TO(FAILED),
    [MIRROR_CONNECTING] = ALWAYS | TO(CHECKING) | TO(WAITING) | TO(FAILED) | TO(CONNECTING),
    [MIRROR_CHECKING] = ALWAYS | TO(FOLLOWING) | TO(RESYNCING) | TO(VERIFYING) | TO(FENCED) |
                        TO(WAITING) | TO(FAILED) | TO(CONNECTING),
    [MIRROR_FOLLOWING] = ALWAYS | TO(RESYNCING) | TO(VERIFYING) | TO(WAITING) | TO(FAILED) |
                         TO(CONNECTING),
    [MIRROR_RESYNCING] = ALWAYS | TO(FOLLOWING) | TO(WAITING) | TO(FAILED) | TO(CONNECTING),
    [MIRROR_VERIFYING] = ALWAYS | TO(FOLLOWING) | TO(WAITING) | TO(FAILED) | TO(CONNECTING),
    [MIRROR_FENCED] = ALWAYS | TO(CONNECTING) | TO(FAILED),
    [MIRROR_FAILED] = ALWAYS | TO(CONNECTING),
};

void mirror_core_init(struct mirror_core *m)
{
    *m = (struct mirror_core){.state = MIRROR_DISABLED};
}

static void set_state(struct mirror_core *m, enum mirror_state to, uint64_t now_ms)
{
    CHECK((allowed[m->state] & (1u << to)) != 0);
    log_info(LOG_AUTHORITY, "mirror", "state=%s was=%s applied=%llu mirrored=%llu",
             mirror_state_name(to), mirror_state_name(m->state), (unsigned long long)m->applied,
             (unsigned long long)m->acked);
    m->state = to;
    m->state_since_ms = now_ms;
    m->progress_ms = now_ms;
}

static bool has_connection(const struct mirror_core *m)
{
    switch (m->state) {
        case MIRROR_DISABLED:
        case MIRROR_STANDBY:
        case MIRROR_WAITING:
        case MIRROR_FENCED:
        case MIRROR_FAILED:
            return false;
        case MIRROR_CONNECTING:
        case MIRROR_CHECKING:
        case MIRROR_FOLLOWING:
        case MIRROR_RESYNCING:
        case MIRROR_VERIFYING:
            return true;
    }
    return false;
}

/* Ends whatever the connection was doing. */
static void disconnect(struct mirror_core *m, struct mirror_todo *t)
{
    t->close = has_connection(m);
    t->drop_copy = true;
    t->unverified = m->verify_wanted;
    m->verify_wanted = m->inspecting = false;
    m->inflight = 0;
    m->sent = m->acked;
}

static void connect(struct mirror_core *m, uint64_t now_ms, struct mirror_todo *t)
{
    set_state(m, MIRROR_CONNECTING, now_ms);
    t->open = true;
}

static bool ready(const struct mirror_core *m)
{
    /* With the first entry of its own term a leader has all that was ever committed (Raft section
     * 5.4.2); before that a mirror may be ahead of it for good reason. */
    return m->leading && (m->applied_term == m->term || PLANTED("mirror_before_own_term"));
}

static bool alarmed(const struct mirror_core *m)
{
    return m->settings.alarmed || m->alarm != MIRROR_ALARM_NONE;
}

/* From where nothing is under way to where it should be. */
static void settle(struct mirror_core *m, uint64_t now_ms, struct mirror_todo *t)
{
    if (!m->settings.enabled) {
        if (m->state != MIRROR_DISABLED) {
            disconnect(m, t);
            set_state(m, MIRROR_DISABLED, now_ms);
        }
        return;
    }
    if (m->state == MIRROR_DISABLED) {
        set_state(m, MIRROR_STANDBY, now_ms);
    }
    if (!m->leading) {
        if (m->state != MIRROR_STANDBY) {
            disconnect(m, t);
            set_state(m, MIRROR_STANDBY, now_ms);
        }
        return;
    }
    if (alarmed(m)) {
        if (m->state != MIRROR_FAILED && !m->inspecting) {
            disconnect(m, t);
            set_state(m, MIRROR_FAILED, now_ms);
        }
        return;
    }
    bool starts = m->state == MIRROR_STANDBY || m->state == MIRROR_FAILED;
    bool again = (m->state == MIRROR_WAITING || m->state == MIRROR_FENCED) &&
                 now_ms >= m->retry_at_ms;
    if (ready(m) && (starts || again)) {
        connect(m, now_ms, t);
    }
}

static void retry_later(struct mirror_core *m, enum mirror_state state, uint64_t now_ms,
                        struct mirror_todo *t)
{
    bool inspecting = m->inspecting;
    disconnect(m, t);
    if (inspecting) {
        set_state(m, MIRROR_FAILED, now_ms);
        return;
    }
    uint64_t wait = (uint64_t)MIRROR_RETRY_MIN_MS << (m->retries < 8 ? m->retries : 8);
    m->retries++;
    m->retry_at_ms = now_ms + (wait < MIRROR_RETRY_MAX_MS ? wait : MIRROR_RETRY_MAX_MS);
    set_state(m, state, now_ms);
}

static void raise_alarm(struct mirror_core *m, enum mirror_alarm alarm, uint64_t now_ms,
                        struct mirror_todo *t)
{
    m->alarm = alarm;
    m->alarm_rebuilds = m->settings.rebuilds;
    m->alarm_at_ms = now_ms;
    t->alarm = alarm;
    settle(m, now_ms, t);
}

static void on_settings(struct mirror_core *m, const struct mirror_input *e, struct mirror_todo *t)
{
    struct mirror_settings before = m->settings;
    m->settings = e->settings;
    if (m->alarm != MIRROR_ALARM_NONE &&
        (e->settings.alarmed || !e->settings.enabled || e->settings.rebuilds > m->alarm_rebuilds)) {
        m->alarm = MIRROR_ALARM_NONE; /* the settings have it, or an owner decided */
    }
    bool other = before.version != e->settings.version;
    if (other) {
        m->acked_highest = 0;
        m->retries = 0;
        m->retry_at_ms = 0;
    }
    bool anew = other || before.rebuilds != e->settings.rebuilds;
    if (anew && has_connection(m) && e->settings.enabled && m->leading && !alarmed(m)) {
        disconnect(m, t);
        m->position_known = false;
        connect(m, e->now_ms, t);
        return;
    }
    if (anew) {
        m->retry_at_ms = 0;
    }
    settle(m, e->now_ms, t);
}

static void on_lead(struct mirror_core *m, const struct mirror_input *e, struct mirror_todo *t)
{
    if (m->leading && m->term == e->term && m->epoch == e->epoch) {
        return;
    }
    if (m->leading) {
        m->leading = false; /* lost and won again: the claim is of another term */
        settle(m, e->now_ms, t);
    }
    m->leading = true;
    m->epoch = e->epoch;
    m->term = e->term;
    m->position_known = false;
    m->behind_since_ms = e->now_ms;
    m->retries = 0;
    m->retry_at_ms = 0;
    m->alarm = MIRROR_ALARM_NONE;
    settle(m, e->now_ms, t);
}

static void on_applied(struct mirror_core *m, const struct mirror_input *e, struct mirror_todo *t)
{
    m->applied = e->index;
    m->applied_term = e->term;
    if (m->behind_since_ms == 0 && m->applied > m->acked) {
        m->behind_since_ms = e->now_ms;
    }
    settle(m, e->now_ms, t);
    t->pump = m->state == MIRROR_FOLLOWING;
}

static void on_checked(struct mirror_core *m, const struct mirror_input *e, struct mirror_todo *t)
{
    const struct mirror_found *f = &e->found;
    if (m->inspecting) {
        t->copy = t->compare = true;
        set_state(m, MIRROR_VERIFYING, e->now_ms);
        return;
    }
    bool rebuild = f->rebuilds < m->settings.rebuilds;
    if (!rebuild && (f->index > m->applied || f->rebuilds > m->settings.rebuilds)) {
        raise_alarm(m, MIRROR_ALARM_AHEAD, e->now_ms, t);
        return;
    }
    if (!rebuild && f->digest_known && !f->digest_same && !PLANTED("mirror_history_not_compared")) {
        raise_alarm(m, MIRROR_ALARM_DIVERGED, e->now_ms, t);
        return;
    }
    if (!rebuild && f->forged) {
        raise_alarm(m, MIRROR_ALARM_EDITED, e->now_ms, t);
        return;
    }
    t->rewound = !rebuild && f->index < m->acked_highest;
    m->position_known = true;
    m->acked = m->sent = PLANTED("mirror_position_remembered") ? m->sent : f->index;
    m->inflight = 0;
    m->behind_since_ms = f->index == m->applied && !rebuild ? 0
                         : m->behind_since_ms == 0          ? e->now_ms
                                                            : m->behind_since_ms;
    if ((f->reached || PLANTED("mirror_hole_ignored")) && f->sealed && !rebuild) {
        m->acked_highest = f->index;
        set_state(m, MIRROR_FOLLOWING, e->now_ms);
        t->pump = true;
    } else {
        t->copy = t->resync = true;
        set_state(m, MIRROR_RESYNCING, e->now_ms);
    }
}

static void note_acked(struct mirror_core *m, const struct mirror_input *e)
{
    m->acked = e->index;
    m->acked_highest = e->index > m->acked_highest ? e->index : m->acked_highest;
    m->behind_since_ms = e->oldest_ms;
    m->progress_ms = e->now_ms;
    m->retries = 0;
}

/* Everything up to the copy is in PostgreSQL, and nothing beyond: they can be compared. */
static void compare_when_equal(struct mirror_core *m, uint64_t now_ms, struct mirror_todo *t)
{
    if (m->state == MIRROR_FOLLOWING && m->verify_wanted && m->inflight == 0 &&
        m->acked == m->verify_index) {
        t->compare = true;
        set_state(m, MIRROR_VERIFYING, now_ms);
    }
}

static void on_acked(struct mirror_core *m, const struct mirror_input *e, struct mirror_todo *t)
{
    if (m->state != MIRROR_FOLLOWING) {
        return;
    }
    CHECK(m->inflight > 0);
    m->inflight--;
    note_acked(m, e);
    compare_when_equal(m, e->now_ms, t);
    t->pump = m->state == MIRROR_FOLLOWING;
}

static void on_scanned(struct mirror_core *m, const struct mirror_input *e, struct mirror_todo *t)
{
    t->drop_copy = true;
    if (m->state == MIRROR_RESYNCING) {
        note_acked(m, e);
        m->sent = e->index;
        t->rebuilt = m->settings.rebuilds > 0;
        set_state(m, MIRROR_FOLLOWING, e->now_ms);
        t->pump = true;
        return;
    }
    if (m->state != MIRROR_VERIFYING) {
        return;
    }
    t->verified = m->verify_wanted;
    m->verify_wanted = false;
    if (m->inspecting) {
        disconnect(m, t);
        set_state(m, MIRROR_FAILED, e->now_ms);
    } else if (e->differences > 0 && !m->preview) {
        raise_alarm(m, MIRROR_ALARM_EDITED, e->now_ms, t);
    } else {
        m->behind_since_ms = m->behind_since_ms == 0 ? 0 : e->now_ms;
        set_state(m, MIRROR_FOLLOWING, e->now_ms);
        t->pump = true;
    }
}

static void on_verify(struct mirror_core *m, const struct mirror_input *e, struct mirror_todo *t)
{
    if (m->verify_wanted || (m->state != MIRROR_FOLLOWING && m->state != MIRROR_FAILED)) {
        t->unverified = true;
        return;
    }
    m->verify_wanted = true;
    m->preview = e->preview;
    m->verify_index = e->index;
    if (m->state == MIRROR_FAILED) {
        m->inspecting = true;
        connect(m, e->now_ms, t);
        return;
    }
    t->copy = true;
    compare_when_equal(m, e->now_ms, t);
    t->pump = m->state == MIRROR_FOLLOWING;
}

static void on_tick(struct mirror_core *m, const struct mirror_input *e, struct mirror_todo *t)
{
    uint64_t limit = m->state == MIRROR_CONNECTING || m->state == MIRROR_CHECKING
                         ? MIRROR_CONNECT_MS
                         : MIRROR_PROGRESS_MS;
    bool busy = m->state == MIRROR_FOLLOWING ? m->inflight > 0 : has_connection(m);
    if (!busy) {
        m->progress_ms = e->now_ms;
    } else if (e->now_ms - m->progress_ms >= limit) {
        retry_later(m, MIRROR_WAITING, e->now_ms, t);
        return;
    }
    if (mirror_core_available(m, e->now_ms)) {
        m->reserve_used = 0;
    }
    if (m->alarm != MIRROR_ALARM_NONE && e->now_ms - m->alarm_at_ms >= MIRROR_REPORT_MS) {
        m->alarm_at_ms = e->now_ms;
        t->alarm = m->alarm;
    }
    settle(m, e->now_ms, t);
}

void mirror_step(struct mirror_core *m, const struct mirror_input *e, struct mirror_todo *ret)
{
    struct mirror_todo *t = ret;
    *t = (struct mirror_todo){.alarm = MIRROR_ALARM_NONE};
    switch (e->kind) {
        case MIRROR_EV_SETTINGS:
            on_settings(m, e, t);
            return;
        case MIRROR_EV_LEAD:
            on_lead(m, e, t);
            return;
        case MIRROR_EV_UNLEAD:
            m->leading = false;
            m->position_known = false;
            m->alarm = MIRROR_ALARM_NONE;
            settle(m, e->now_ms, t);
            return;
        case MIRROR_EV_APPLIED:
            on_applied(m, e, t);
            return;
        case MIRROR_EV_TICK:
            on_tick(m, e, t);
            return;
        case MIRROR_EV_UP:
            if (m->state == MIRROR_CONNECTING) {
                set_state(m, MIRROR_CHECKING, e->now_ms);
                t->check = true;
                t->inspect = m->inspecting;
            }
            return;
        case MIRROR_EV_CHECKED:
            if (m->state == MIRROR_CHECKING) {
                on_checked(m, e, t);
            }
            return;
        case MIRROR_EV_REFUSED:
        case MIRROR_EV_LOST:
            if (has_connection(m)) {
                retry_later(m, MIRROR_WAITING, e->now_ms, t);
            }
            return;
        case MIRROR_EV_OUTRANKED:
            if (m->state == MIRROR_CHECKING) {
                retry_later(m, MIRROR_FENCED, e->now_ms, t);
            }
            return;
        case MIRROR_EV_SENT:
            m->sent = e->index;
            m->progress_ms = m->inflight == 0 ? e->now_ms : m->progress_ms;
            m->inflight++;
            return;
        case MIRROR_EV_ACKED:
            on_acked(m, e, t);
            return;
        case MIRROR_EV_STEP:
            m->progress_ms = e->now_ms;
            return;
        case MIRROR_EV_SCANNED:
            on_scanned(m, e, t);
            return;
        case MIRROR_EV_GAP:
            if (m->state == MIRROR_FOLLOWING) {
                retry_later(m, MIRROR_WAITING, e->now_ms, t); /* the checks find a resync */
            }
            return;
        case MIRROR_EV_UNFIT:
            if (has_connection(m)) {
                raise_alarm(m, MIRROR_ALARM_UNFIT, e->now_ms, t);
            }
            return;
        case MIRROR_EV_FORGED:
            if (has_connection(m)) {
                raise_alarm(m, MIRROR_ALARM_EDITED, e->now_ms, t);
            }
            return;
        case MIRROR_EV_VERIFY:
            on_verify(m, e, t);
            return;
    }
}

bool mirror_core_room(const struct mirror_core *m, uint64_t *ret_limit)
{
    if (m->state != MIRROR_FOLLOWING || m->inflight >= MIRROR_INFLIGHT_MAX) {
        return false;
    }
    *ret_limit = m->verify_wanted ? m->verify_index : UINT64_MAX;
    return m->sent < *ret_limit;
}

uint64_t mirror_core_lag(const struct mirror_core *m)
{
    return m->applied > m->acked ? m->applied - m->acked : 0;
}

uint64_t mirror_core_lag_ms(const struct mirror_core *m, uint64_t now_ms)
{
    return m->behind_since_ms == 0 || now_ms < m->behind_since_ms ? 0 : now_ms - m->behind_since_ms;
}

bool mirror_core_available(const struct mirror_core *m, uint64_t now_ms)
{
    if (!m->settings.enabled || !m->settings.required) {
        return true;
    }
    if (alarmed(m)) {
        return false;
    }
    /* While it is compared PostgreSQL is there and answers; that it is not written to is our doing. */
    bool late = m->state != MIRROR_VERIFYING &&
                mirror_core_lag_ms(m, now_ms) > m->settings.max_lag_ms;
    return !late && (!m->position_known || mirror_core_lag(m) <= MIRROR_LAG_ENTRIES_MAX);
}

bool mirror_core_reserve(struct mirror_core *m)
{
    bool left = m->reserve_used < MIRROR_RESERVE;
    m->reserve_used += left;
    return left;
}
