#include "agent/agent_impl.h"
#include "agent/host.h"
#include "base/clock.h"

#define HEARTBEAT_DEADLINE_MS 5000
#define PROBE_EVERY_MS 600000u

static void probe_host(struct agent *a)
{
    uint64_t now = agent_mono_ms();
    if (a->probed_ms != 0 && now - a->probed_ms < PROBE_EVERY_MS) {
        return;
    }
    a->probed_ms = now;
    buf_clear(&a->facts);
    agent_facts(&a->facts);
    buf_clear(&a->capabilities);
    a->capabilities_count = 0;
    host_report_capabilities(a->member->data_dir, &a->capabilities, &a->capabilities_count);
}

/* It stamped the heartbeat somewhere between our sending it and now (Cristian's algorithm). */
static void compare_clocks(struct agent *a, int64_t received_at_ms)
{
    int64_t now = clock_wall_ms();
    int64_t took = now - a->heartbeat_sent_ms;
    if (received_at_ms <= 0 || took < 0 || took > HEARTBEAT_DEADLINE_MS) {
        return; /* our own clock was moved meanwhile */
    }
    a->clock_compared = true;
    a->clock_ahead_ms = now - took / 2 - received_at_ms;
    a->clock_within_ms = took / 2 + 1;
    static struct log_limit limit;
    if (llabs(a->clock_ahead_ms) >= CLOCK_AHEAD_WARN_MS && log_allow(&limit, 1)) {
        log_warn(LOG_AGENT, "clock differs from the authority's",
                 "ahead_s=%lld next=\"set the clocks; OPERATIONS, A clock that is wrong\"",
                 (long long)(a->clock_ahead_ms / 1000));
    }
}

static void on_answer(struct agent *a, int rc, struct blob body)
{
    struct heartbeat_ack ack = {.interval_ms = 0};
    if (rc == 0) {
        rc = msg_decode(&heartbeat_ack_desc, MSG_LENIENT, body, &ack);
    }
    if (rc == 0) {
        compare_clocks(a, ack.received_at_ms);
        agent_contact(a);
        agent_uplink_event(a, UPLINK_EV_ACKED, 0, ack.interval_ms);
        report_flush(a);
        agent_wake(a);
        return;
    }
    if (rc == -ERR_SUSPENDED) {
        /* It does not count, but the authority is there and will tell when that changes. */
        agent_contact(a);
        agent_uplink_event(a, UPLINK_EV_ACKED, 0, a->uplink.interval_ms);
        agent_wake(a);
        return;
    }
    if (rc == -ERR_REVOKED || rc == -ERR_KEY_REVOKED) {
        agent_bar(a, "an authority refuses our heartbeat");
    }
    static struct log_limit limit;
    if (rc == -ERR_DENIED && log_allow(&limit, 2)) {
        log_warn(LOG_AGENT, "authority does not know this node",
                 "next=\"asking the others; if none does, the node was removed or revoked\"%s", "");
    }
    log_debug(LOG_AGENT, "heartbeat failed", "error=%s", err_slug(rc));
    agent_uplink_event(a, UPLINK_EV_FAILED, rc, 0);
}

int heartbeat_send(struct agent *a, const struct uuid *to)
{
    struct agent_status status;
    probe_host(a);
    agent_status(a, &status);
    a->heartbeat_sent_ms = clock_wall_ms();
    struct heartbeat hb = {
        .epoch = a->held_epoch,
        .config_version = a->held_version,
        .health = blob_str(status.health),
        .agent_version = blob_str(RAP_VERSION),
        .facts = buf_blob(&a->facts),
        .capabilities = {.raw = buf_blob(&a->capabilities), .count = a->capabilities_count},
        .address = blob_str(a->member->advertise),
        .sent_at_ms = a->heartbeat_sent_ms,
    };
    if (a->snapshot != NULL) {
        hb.audit_seq = a->snapshot->body.audit_seq;
        hb.audit_head = a->snapshot->body.audit_head;
    }
    struct buf body;
    struct buf links;
    struct buf routes;
    buf_init(&body, RPC_FRAME_MAX);
    buf_init(&links, LINKS_MAX * SAMPLE_BYTES_MAX);
    buf_init(&routes, ROUTE_SAMPLES_MAX * SAMPLE_BYTES_MAX);
    if (a->cfg.mesh_report != NULL) {
        a->cfg.mesh_report(a->cfg.data, &hb, &links, &routes);
    }
    msg_encode(&heartbeat_desc, &hb, &body);
    int rc = body.err != 0 ? body.err : links.err != 0 ? links.err : routes.err;
    if (rc == 0) {
        rc = agent_rpc_start(a, &a->heartbeat, to, "heartbeat", buf_blob(&body),
                             HEARTBEAT_DEADLINE_MS, on_answer);
    }
    buf_fini(&body);
    buf_fini(&links);
    buf_fini(&routes);
    return rc;
}
