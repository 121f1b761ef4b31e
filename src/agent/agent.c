/* The happy path: open, uplink says open -> stream "config" + rpc "heartbeat" -> ACKED, snapshots
 * come as frames -> verified, stored, in force.
 *
 * Failure paths:
 *   the stream ends, a heartbeat fails, a snapshot does not verify -> the uplink waits, then tries
 *     the next authority
 *   revoked, by a verified snapshot or by an authority's answer -> logged once, asked again rarely
 *   the snapshot expires, or nobody answers -> degraded; what is in force stays in force
 *   close -> stream reset, rpcs and look-ups cancelled; the agent is freed when the last one and the
 *     timer have come back */
#include "agent/agent_impl.h"

#include "base/clock.h"
#include "base/rng.h"

#define HEARTBEAT_DEFAULT_MS 15000
#define WAKE_MAX_MS 60000 /* wall-clock dates are looked at this often, for the clock may jump */
#define LAST_AUTHORITY_KEY "last_authority"

uint64_t agent_mono_ms(void)
{
    return clock_mono_ms();
}

/* --- rpc --- */

static void on_rpc(struct fabric_call *call, int rc, struct blob body)
{
    struct agent_rpc *r = container_of(call, struct agent_rpc, call);
    struct agent *a = r->agent;
    bool wanted = r->slot != NULL;
    if (wanted) {
        *r->slot = NULL;
    }
    void (*done)(struct agent *, int, struct blob) = r->done;
    free(r);
    a->rpcs_count--;
    if (wanted && !a->closing) {
        done(a, rc, body);
    }
    agent_maybe_closed(a);
}

int agent_rpc_start(struct agent *a, struct agent_rpc **slot, const struct uuid *to,
                    const char *service, struct blob body, uint32_t deadline_ms,
                    void (*done)(struct agent *a, int rc, struct blob body))
{
    CHECK(*slot == NULL);
    struct agent_rpc *r = xcalloc(1, sizeof *r);
    *r = (struct agent_rpc){.agent = a, .slot = slot, .done = done};
    int rc = fabric_call_start(a->fabric, &r->call, to, service, body, deadline_ms, on_rpc);
    if (rc != 0) {
        free(r);
        return rc;
    }
    *slot = r;
    a->rpcs_count++;
    return 0;
}

void agent_rpc_drop(struct agent_rpc **slot)
{
    struct agent_rpc *r = *slot;
    if (r != NULL) {
        r->slot = NULL;
        *slot = NULL;
        fabric_call_cancel(&r->call);
    }
}

/* --- identity --- */

static int read_chain(struct agent *a, struct buf chain[3], struct pki_cert ret[3],
                      struct errmsg *em)
{
    uint8_t public_key[PKI_KEY_BYTES];
    int rc = member_load_chain(a->member, chain, em);
    for (size_t i = 0; rc == 0 && i < 3; i++) {
        rc = pki_cert_parse(buf_blob(&chain[i]), &ret[i], em);
    }
    pki_key_public(a->key, public_key);
    if (rc == 0 && memcmp(ret[0].public_key, public_key, PKI_KEY_BYTES) != 0) {
        rc = errmsg_set(em, -ERR_CORRUPT, "node.crt is for another key than node.key");
    }
    return rc;
}

int agent_load_identity(struct agent *a, struct errmsg *em)
{
    struct buf chain[3];
    struct pki_cert certs[3];
    for (size_t i = 0; i < 3; i++) {
        buf_init(&chain[i], CERT_DER_MAX);
    }
    int rc = read_chain(a, chain, certs, em);
    const struct blob views[3] = {buf_blob(&chain[0]), buf_blob(&chain[1]), buf_blob(&chain[2])};
    if (rc == 0 && (!uuid_equal(&certs[0].node_id, &a->member->node_id) ||
                    !uuid_equal(&certs[0].cluster_id, &a->member->cluster_id))) {
        rc = errmsg_runbook(
            em,
            errmsg_set(em, -ERR_CORRUPT, "node.db and node.crt are of two nodes: one is damaged"),
            MEMBER_RUNBOOK);
    }
    if (rc == 0) {
        rc = fabric_set_identity(a->fabric, views, 3, a->key, em);
    }
    for (size_t i = 0; i < 3; i++) {
        if (rc == 0) {
            buf_fini(&a->chain[i]);
            a->chain[i] = chain[i];
        } else {
            buf_fini(&chain[i]);
        }
    }
    if (rc == 0) {
        a->leaf = certs[0];
        a->issuer = certs[1];
        a->root = certs[2];
        renew_schedule(a);
    }
    return rc;
}

void agent_bar(struct agent *a, const char *why)
{
    if (a->revoked) {
        return;
    }
    a->revoked = true;
    log_error(LOG_AGENT, "identity revoked",
              "why=\"%s\" next=\"this key is never accepted again: ask an administrator; to enrol "
              "this host anew, stop rap, remove the member directory and run rap join with a new "
              "token\"",
              why);
}

void agent_contact(struct agent *a)
{
    a->last_contact_ms = clock_wall_ms();
    if (a->revoked && (a->snapshot == NULL || !config_revokes(a->snapshot, a->leaf.fingerprint))) {
        a->revoked = false;
        log_info(LOG_AGENT, "identity accepted again", "%s", "");
    }
}

const struct config *agent_snapshot(const struct agent *a)
{
    return a->snapshot;
}

void agent_held(const struct agent *a, uint64_t *ret_audit_seq, uint64_t *ret_set_epoch,
                uint64_t *ret_set_seq)
{
    *ret_audit_seq = a->audit_seq;
    *ret_set_epoch = a->set.epoch;
    *ret_set_seq = a->set.seq;
}

int agent_offer_snapshot(struct agent *a, struct blob signed_snapshot, struct errmsg *em)
{
    return a->closing ? errmsg_set(em, -ERR_CANCELED, "the agent is closing")
                      : apply_snapshot(a, signed_snapshot, em);
}

/* --- the subscription --- */

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct agent *a = data;
    struct errmsg em = ERRMSG_INIT;
    if (a->closing || s != a->stream) {
        return;
    }
    int rc = apply_snapshot(a, frame, &em);
    if (rc == 0) {
        a->last_contact_ms = clock_wall_ms();
    } else if (rc == -ERR_ROLLBACK) {
        /* An authority that lags behind, or one that repeats itself: no reason to leave it. */
        log_debug(LOG_AGENT, "snapshot not newer", "why=\"%s\"", em.text);
    } else {
        static struct log_limit limit;
        if (log_allow(&limit, 5)) {
            char id[UUID_TEXT_MAX];
            uuid_format(&a->stream_to, id);
            log_warn(LOG_AGENT, "snapshot refused", "from=%s error=%s why=\"%s\" next=\"%s\"", id,
                     err_slug(rc), em.text, "keeping the one in force");
        }
        const struct fabric_peer *peer = fabric_stream_peer(s);
        const struct pki_identity who = peer != NULL ? peer->identity : (struct pki_identity){0};
        agent_uplink_event(a, UPLINK_EV_BAD_CONFIG, 0, 0);
        report_forgery(a, "snapshot", rc, em.text, &who, frame);
    }
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    struct agent *a = data;
    if (s != a->stream) {
        return;
    }
    a->stream = NULL;
    if (a->closing) {
        return;
    }
    log_debug(LOG_AGENT, "subscription ended", "error=%s", err_slug(rc));
    if (rc == -ERR_REVOKED || rc == -ERR_KEY_REVOKED) {
        agent_bar(a, "an authority closed our session as revoked");
    }
    agent_uplink_event(a, UPLINK_EV_CLOSED, rc, 0);
}

static const struct fabric_stream_vtab stream_vtab = {.frame = on_frame, .closed = on_closed};

/* Without a usable snapshot, or with one past half of its life, the current one is wanted whatever
 * its version: reconnecting must not put a refresh off for ever. */
static bool wants_any(const struct agent *a)
{
    if (a->snapshot == NULL) {
        return true;
    }
    const struct snapshot_body *b = &a->snapshot->body;
    return clock_wall_ms() >= b->issued_at_ms + (b->expires_at_ms - b->issued_at_ms) / 2;
}

static int subscribe(struct agent *a, const struct uuid *to)
{
    const struct config_subscribe msg = {
        .epoch = a->held_epoch,
        .config_version = wants_any(a) ? 0 : a->held_version,
        .audit_seq = a->audit_seq,
        .set_seq = a->set.seq,
        .set_epoch = a->set.epoch,
    };
    const struct fabric_stream_to target = {.node_id = *to, .service = "config"};
    struct buf frame;
    buf_init(&frame, 256);
    msg_encode(&config_subscribe_desc, &msg, &frame);
    int rc = fabric_stream_open(a->fabric, &target, &stream_vtab, a, &a->stream);
    if (rc == 0) {
        a->stream_to = *to;
        rc = fabric_stream_send(a->stream, buf_blob(&frame));
    }
    buf_fini(&frame);
    return rc;
}

static void close_stream(struct agent *a)
{
    if (a->stream != NULL) {
        struct fabric_stream *s = a->stream;
        a->stream = NULL;
        fabric_stream_reset(s, -ERR_CANCELED);
    }
    agent_rpc_drop(&a->heartbeat);
    agent_rpc_drop(&a->renewal);
    agent_rpc_drop(&a->report_rpc);
    a->reporting = NULL;
}

/* --- the uplink --- */

static struct uuid last_authority(struct agent *a)
{
    struct uuid id = UUID_NIL;
    struct buf b;
    buf_init(&b, sizeof id.b);
    if (member_get(a->member, LAST_AUTHORITY_KEY, &b) == 0 && b.len == sizeof id.b) {
        memcpy(id.b, b.data, b.len);
    }
    buf_fini(&b);
    return id;
}

static void note_good_authority(struct agent *a)
{
    struct uuid stored = last_authority(a);
    if (!uuid_equal(&stored, &a->uplink.last_good)) {
        (void)member_put(a->member, LAST_AUTHORITY_KEY, blob_of(a->uplink.last_good.b, 16), NULL);
    }
}

void agent_run_todo(struct agent *a, const struct uplink_todo *todo)
{
    int rc = 0;
    if (todo->close) {
        close_stream(a);
    }
    if (todo->open) {
        directory_refresh(a, &todo->to);
        rc = subscribe(a, &todo->to);
    }
    if (rc == 0 && todo->heartbeat) {
        rc = heartbeat_send(a, &todo->to);
    }
    if (rc != 0) {
        agent_uplink_event(a, UPLINK_EV_CLOSED, rc, 0);
    }
}

static void log_health(struct agent *a)
{
    struct agent_status s;
    agent_status(a, &s);
    if (s.degraded != a->was_degraded) {
        a->was_degraded = s.degraded;
        if (s.degraded) {
            log_warn(LOG_AGENT, "degraded", "why=\"%s\"",
                     uplink_is_cut_off(&a->uplink, agent_mono_ms())
                         ? "no authority answers"
                         : "no configuration that is still valid");
        } else {
            log_info(LOG_AGENT, "healthy again", "%s", "");
        }
    }
}

void agent_uplink_event(struct agent *a, enum uplink_event_kind kind, int rc, uint64_t interval_ms)
{
    enum uplink_state before = a->uplink.state;
    const struct uplink_event ev = {
        .kind = kind,
        .now_ms = agent_mono_ms(),
        .random = rng_u64(),
        .rc = rc,
        .interval_ms = interval_ms,
    };
    struct uplink_todo todo;
    uplink_step(&a->uplink, &ev, &todo);
    if (a->uplink.state == UPLINK_UP) {
        a->contact_rc = 0;
    } else if (rc != 0 && rc != -ERR_CANCELED) {
        a->contact_rc = rc;
    }
    if (before != UPLINK_UP && a->uplink.state == UPLINK_UP) {
        char id[UUID_TEXT_MAX];
        uuid_format(&a->stream_to, id);
        log_info(LOG_AGENT, "authority connected", "authority=%s", id);
        note_good_authority(a);
    } else if (before == UPLINK_UP && a->uplink.state == UPLINK_WAIT) {
        log_info(LOG_AGENT, "authority lost", "error=%s", err_slug(rc));
    }
    agent_run_todo(a, &todo);
    log_health(a);
    agent_wake(a);
}

/* --- time --- */

static void arm(struct agent *a);

static void on_timer(uv_timer_t *timer)
{
    struct agent *a = container_of(timer, struct agent, timer);
    if (a->closing) {
        return;
    }
    uint64_t wake = 0;
    if (a->uplink.state == UPLINK_WAIT) {
        wake = a->uplink.retry_ms;
    } else if (a->uplink.state == UPLINK_UP && !a->uplink.in_flight) {
        wake = a->uplink.heartbeat_ms;
    }
    if (wake != 0 && agent_mono_ms() >= wake) {
        agent_uplink_event(a, UPLINK_EV_TICK, 0, 0);
    }
    renew_tick(a, clock_wall_ms());
    log_health(a);
    if (a->authority_news) {
        a->authority_news = false;
        if (a->cfg.authority_installed != NULL) {
            a->cfg.authority_installed(a->cfg.data);
        }
    }
    if (!a->closing) {
        arm(a);
    }
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t until(int64_t at_ms, int64_t now_ms)
{
    return at_ms > now_ms ? (uint64_t)(at_ms - now_ms) : 0;
}

/* One timer for everything: the uplink, the renewal, the expiry of the snapshot. */
static void arm(struct agent *a)
{
    uint64_t wait = WAKE_MAX_MS;
    int64_t mono = (int64_t)agent_mono_ms();
    int64_t wall = clock_wall_ms();
    if (a->authority_news) {
        wait = 0;
    }
    if (a->uplink.state == UPLINK_WAIT) {
        wait = sooner(wait, until((int64_t)a->uplink.retry_ms, mono));
    } else if (a->uplink.state == UPLINK_UP && !a->uplink.in_flight) {
        wait = sooner(wait, until((int64_t)a->uplink.heartbeat_ms, mono));
    }
    /* What needs a live authority is looked at again when there is one. */
    if (a->renewal == NULL && (a->leaf.authority || a->uplink.state == UPLINK_UP)) {
        wait = sooner(wait, until(a->renew_at_ms, wall));
    }
    if (a->snapshot != NULL && a->snapshot->body.expires_at_ms > wall) {
        wait = sooner(wait, until(a->snapshot->body.expires_at_ms, wall));
    }
    CHECK(uv_timer_start(&a->timer, on_timer, wait, 0) == 0);
}

void agent_wake(struct agent *a)
{
    if (a->timer_open && !a->closing) {
        arm(a);
    }
}

/* --- status --- */

void agent_set_local(struct agent *a, bool local_authority)
{
    if (!a->closing && a->uplink.local != local_authority) {
        agent_uplink_event(a, local_authority ? UPLINK_EV_LOCAL : UPLINK_EV_REMOTE, 0, 0);
    }
}

void agent_status(const struct agent *a, struct agent_status *ret)
{
    bool expired = a->snapshot == NULL || clock_wall_ms() >= a->snapshot->body.expires_at_ms;
    bool live = a->stream != NULL && fabric_stream_peer(a->stream) != NULL;
    *ret = (struct agent_status){
        .connected = a->uplink.local || live,
        .authority = a->uplink.local ? a->member->node_id : (live ? a->stream_to : UUID_NIL),
        .last_contact_ms = a->last_contact_ms,
        .contact_age_ms = a->uplink.local ? 0 : agent_mono_ms() - a->uplink.contact_ms,
        .degraded = expired || uplink_is_cut_off(&a->uplink, agent_mono_ms()),
        .certificate_expires_ms = a->leaf.not_after_ms,
        .issuer_expires_ms = a->issuer.not_after_ms,
        .root_expires_ms = a->root.not_after_ms,
    };
    ret->clock_compared = a->clock_compared;
    ret->clock_ahead_ms = a->clock_ahead_ms;
    ret->clock_within_ms = a->clock_within_ms;
    ret->contact_rc = ret->connected ? 0 : a->contact_rc;
    ret->disabled = a->disabled;
    ret->health = a->revoked    ? "revoked"
                  : a->disabled ? "disabled"
                                : (ret->degraded ? "degraded" : "healthy");
}

/* --- open and close --- */

static void agent_free(struct agent *a)
{
    config_free(a->snapshot);
    peers_fini(a);
    pki_key_free(a->key);
    for (size_t i = 0; i < 3; i++) {
        buf_fini(&a->chain[i]);
    }
    buf_fini(&a->facts);
    buf_fini(&a->capabilities);
    free(a);
}

int agent_open(const struct agent_config *config, struct agent **ret, struct errmsg *em)
{
    struct agent *a = xcalloc(1, sizeof *a);
    *a = (struct agent){.cfg = *config, .fabric = config->fabric, .member = config->member};
    for (size_t i = 0; i < 3; i++) {
        buf_init(&a->chain[i], CERT_DER_MAX);
    }
    buf_init(&a->facts, FACTS_MAX_BYTES);
    buf_init(&a->capabilities, FACTS_MAX_BYTES);
    int rc = member_is_pending(a->member)
                 ? errmsg_set(em, -ERR_CONFLICT, "this node's join is still pending: run rap join")
                 : member_key(a->member, &a->key, em);
    if (rc == 0) {
        rc = agent_load_identity(a, em);
    }
    if (rc == 0) {
        struct uuid good = last_authority(a);
        uplink_init(&a->uplink,
                    config->heartbeat_ms != 0 ? config->heartbeat_ms : HEARTBEAT_DEFAULT_MS, &good,
                    agent_mono_ms());
        report_load(a);
        peers_load(a);
        rc = apply_stored(a, em);
    }
    if (rc != 0) {
        agent_free(a);
        return rc;
    }
    CHECK(uv_timer_init(config->loop, &a->timer) == 0);
    a->timer_open = true;
    service_open(a);
    arm(a);
    *ret = a;
    return 0;
}

void agent_maybe_closed(struct agent *a)
{
    if (!a->closing || a->timer_open || a->rpcs_count > 0 || a->lookups_count > 0) {
        return;
    }
    void (*cb)(void *data) = a->close_cb;
    void *data = a->close_data;
    if (cb != NULL) {
        cb(data);
    }
    agent_free(a);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct agent *a = container_of(handle, struct agent, timer);
    a->timer_open = false;
    agent_maybe_closed(a);
}

void agent_close(struct agent *a, void (*cb)(void *data), void *data)
{
    CHECK(!a->closing);
    a->closing = true;
    a->close_cb = cb;
    a->close_data = data;
    close_stream(a);
    directory_cancel(a);
    uv_close((uv_handle_t *)&a->timer, on_timer_closed);
}
