#include "agent/uplink.h"

uint64_t backoff_delay_ms(uint32_t failures, uint64_t min_ms, uint64_t max_ms, uint64_t random)
{
    uint64_t delay = min_ms;
    for (uint32_t i = 0; i < failures && delay < max_ms; i++) {
        delay *= 2;
    }
    delay = delay < max_ms ? delay : max_ms;
    return delay / 2 + random % (delay + 1);
}

void uplink_init(struct uplink *u, uint32_t interval_ms, const struct uuid *last_good,
                 uint64_t now_ms)
{
    *u = (struct uplink){
        .state = UPLINK_IDLE,
        .interval_ms = interval_ms,
        .last_good = *last_good,
        .contact_ms = now_ms,
    };
}

/* Plus or minus a tenth, so that heartbeats of many nodes spread out. */
static uint64_t next_heartbeat(const struct uplink *u, uint64_t now_ms, uint64_t random)
{
    uint64_t tenth = u->interval_ms / 10;
    return now_ms + u->interval_ms - tenth + random % (2 * tenth + 1);
}

static bool has_stream(const struct uplink *u)
{
    return u->state == UPLINK_TRYING || u->state == UPLINK_UP;
}

static void drop_stream(struct uplink *u, struct uplink_todo *todo)
{
    todo->close = todo->close || has_stream(u);
    u->in_flight = false;
    u->misses = 0;
}

static void rest(struct uplink *u, const struct uplink_event *ev)
{
    u->state = UPLINK_WAIT;
    if (u->barred) {
        u->retry_ms = ev->now_ms + UPLINK_BARRED_RETRY_MS / 2 + ev->random % UPLINK_BARRED_RETRY_MS;
    } else {
        u->retry_ms = ev->now_ms + backoff_delay_ms(u->failures, UPLINK_RETRY_MIN_MS,
                                                    UPLINK_RETRY_MAX_MS, ev->random);
    }
}

/* Leaves this authority for the next one in the list, after a pause. */
static void fail_over(struct uplink *u, const struct uplink_event *ev, struct uplink_todo *todo)
{
    drop_stream(u, todo);
    if (ev->rc == -ERR_REVOKED || ev->rc == -ERR_KEY_REVOKED) {
        u->barred = true;
    }
    u->current = u->count == 0 ? 0 : (u->current + 1) % u->count;
    rest(u, ev);
    u->failures++;
}

static void open_stream(struct uplink *u, struct uplink_todo *todo)
{
    u->state = UPLINK_TRYING;
    u->in_flight = true;
    u->misses = 0;
    todo->open = true;
    todo->heartbeat = true;
    todo->to = u->authorities[u->current];
}

static void on_tick(struct uplink *u, const struct uplink_event *ev, struct uplink_todo *todo)
{
    if (u->state == UPLINK_WAIT && ev->now_ms >= u->retry_ms) {
        open_stream(u, todo);
    } else if (u->state == UPLINK_UP && !u->in_flight && ev->now_ms >= u->heartbeat_ms) {
        u->in_flight = true;
        todo->heartbeat = true;
        todo->to = u->authorities[u->current];
    }
}

static void on_acked(struct uplink *u, const struct uplink_event *ev)
{
    uint64_t wish = ev->interval_ms;
    if (wish > UPLINK_HEARTBEAT_MAX_MS) {
        wish = UPLINK_HEARTBEAT_MAX_MS;
    }
    u->interval_ms = (uint32_t)(wish < UPLINK_HEARTBEAT_MIN_MS ? UPLINK_HEARTBEAT_MIN_MS : wish);
    u->state = UPLINK_UP;
    u->in_flight = false;
    u->barred = false;
    u->failures = 0;
    u->misses = 0;
    u->last_good = u->authorities[u->current];
    u->contact_ms = ev->now_ms;
    u->heartbeat_ms = next_heartbeat(u, ev->now_ms, ev->random);
}

static void on_failed(struct uplink *u, const struct uplink_event *ev, struct uplink_todo *todo)
{
    u->in_flight = false;
    u->misses++;
    if (u->state == UPLINK_TRYING || u->misses >= 2 || ev->rc == -ERR_REVOKED) {
        fail_over(u, ev, todo);
        return;
    }
    /* One refusal may be a leader change: ask once more, soon. */
    uint64_t soon = u->interval_ms < 1000 ? u->interval_ms : 1000;
    u->heartbeat_ms = ev->now_ms + soon / 2 + ev->random % (soon + 1);
}

static void set_wake(const struct uplink *u, struct uplink_todo *todo)
{
    switch (u->state) {
        case UPLINK_IDLE:
        case UPLINK_TRYING:
            todo->wake_ms = 0;
            return;
        case UPLINK_WAIT:
            todo->wake_ms = u->retry_ms;
            return;
        case UPLINK_UP:
            todo->wake_ms = u->in_flight ? 0 : u->heartbeat_ms;
            return;
    }
}

void uplink_step(struct uplink *u, const struct uplink_event *ev, struct uplink_todo *todo)
{
    *todo = (struct uplink_todo){.to = UUID_NIL};
    switch (ev->kind) {
        case UPLINK_EV_TICK:
            on_tick(u, ev, todo);
            break;
        case UPLINK_EV_CLOSED:
            if (has_stream(u)) {
                fail_over(u, ev, todo);
            }
            break;
        case UPLINK_EV_ACKED:
            if (has_stream(u)) {
                on_acked(u, ev);
            }
            break;
        case UPLINK_EV_FAILED:
            if (has_stream(u)) {
                on_failed(u, ev, todo);
            }
            break;
        case UPLINK_EV_BAD_CONFIG:
            if (has_stream(u)) {
                fail_over(u, ev, todo);
            }
            break;
        case UPLINK_EV_BARRED:
            u->barred = true;
            if (u->state != UPLINK_IDLE) {
                drop_stream(u, todo);
                rest(u, ev);
            }
            break;
        case UPLINK_EV_LOCAL:
            u->local = true;
            drop_stream(u, todo);
            u->state = UPLINK_IDLE;
            break;
        case UPLINK_EV_REMOTE:
            u->local = false;
            u->contact_ms = ev->now_ms;
            if (u->state == UPLINK_IDLE && u->count > 0) {
                u->state = UPLINK_WAIT;
                u->retry_ms = ev->now_ms;
            }
            break;
    }
    set_wake(u, todo);
}

static size_t index_of(const struct uplink *u, const struct uuid *id)
{
    for (size_t i = 0; i < u->count; i++) {
        if (uuid_equal(&u->authorities[i], id)) {
            return i;
        }
    }
    return u->count;
}

void uplink_set_authorities(struct uplink *u, const struct uuid *ids, size_t count, uint64_t now_ms,
                            uint64_t random, struct uplink_todo *todo)
{
    CHECK(count <= AUTHORITIES_MAX);
    *todo = (struct uplink_todo){.to = UUID_NIL};
    struct uuid was = u->count == 0 ? UUID_NIL : u->authorities[u->current];
    memcpy(u->authorities, ids, count * sizeof *ids);
    u->count = count;
    size_t same = index_of(u, &was);
    if (has_stream(u) && same < count) {
        u->current = same;
        set_wake(u, todo);
        return;
    }
    drop_stream(u, todo);
    size_t good = index_of(u, &u->last_good);
    u->current = good < count ? good : (count == 0 ? 0 : (size_t)(random % count));
    if (count == 0 || u->local) {
        u->state = UPLINK_IDLE;
    } else if (u->state != UPLINK_WAIT) {
        u->state = UPLINK_WAIT;
        u->retry_ms = now_ms;
    }
    set_wake(u, todo);
}

bool uplink_is_cut_off(const struct uplink *u, uint64_t now_ms)
{
    return !u->local && now_ms - u->contact_ms > (uint64_t)UPLINK_MISSES_DEGRADED * u->interval_ms;
}

void uplink_report_by(struct uplink *u, uint64_t at_ms)
{
    if (u->heartbeat_ms > at_ms) {
        u->heartbeat_ms = at_ms;
    }
}
