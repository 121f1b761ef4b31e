/* Heartbeats. The leader keeps them in memory; only a change of health, or of what a node says about
 * itself, becomes a command (DESIGN D11). */
#include "authority/authority_impl.h"

#include "base/log.h"

#define INTERVAL_DEFAULT_MS 15000
/* Missing this many heartbeats makes a node stale. */
#define STALE_AFTER 3
#define SELF_RETRY_MS 1000

uint32_t health_interval_ms(const struct authority *a)
{
    return a->cfg.agent_heartbeat_ms == 0 ? INTERVAL_DEFAULT_MS : a->cfg.agent_heartbeat_ms;
}

static struct live_node *find(const struct authority *a, const struct uuid *id)
{
    struct live_node *n;
    HASH_FIND(hh, a->live, id, sizeof *id, n);
    return n;
}

int64_t health_last_seen(const struct authority *a, const struct uuid *node_id)
{
    const struct live_node *n = find(a, node_id);
    return n == NULL ? 0 : n->seen_ms;
}

uint64_t health_config_version(const struct authority *a, const struct uuid *node_id)
{
    const struct live_node *n = find(a, node_id);
    return n == NULL ? 0 : n->config_version;
}

static void drop(struct authority *a, struct live_node *n)
{
    HASH_DEL(a->live, n);
    free(n->mesh);
    free(n);
}

/* Nodes without an overlay have none: the table of ten thousand of them stays small. */
static void keep_mesh(struct live_node *n, const struct heartbeat *hb)
{
    if (hb->links.count == 0 && hb->routes.count == 0) {
        n->mesh_changed = n->mesh_changed || n->mesh != NULL;
        free(n->mesh);
        n->mesh = NULL;
        return;
    }
    if (n->mesh == NULL) {
        n->mesh = xcalloc(1, sizeof *n->mesh);
    }
    n->mesh_ms = n->seen_ms;
    n->mesh_changed = mesh_report_take(hb, n->mesh) || n->mesh_changed;
}

/* --- proposing what changed --- */

struct change {
    struct authority *a;
    struct uuid node_id;
};

static void committed(void *data, int rc, struct blob doc)
{
    struct change *c = data;
    struct live_node *n = find(c->a, &c->node_id);
    (void)doc;
    if (n != NULL) {
        n->proposing = false;
        if (rc == 0) {
            (void)snprintf(n->committed, sizeof n->committed, "%s", n->next_health);
            memcpy(n->report, n->next_report, sizeof n->report);
            n->report_known = n->report_known || n->next_report_known;
        } else if (rc == -ERR_REVOKED || rc == -ERR_NOT_FOUND || rc == -ERR_SUSPENDED) {
            drop(c->a, n); /* no active member any more: nothing to watch */
        } else {
            log_debug(LOG_AUTHORITY, "health change not committed",
                      "error=%s next=\"with the next heartbeat\"", err_slug(rc));
        }
    }
    free(c);
}

static void propose(struct authority *a, struct live_node *n, const struct node_health *body)
{
    struct change *c = xcalloc(1, sizeof *c);
    struct buf args;
    c->a = a;
    c->node_id = n->node_id;
    n->proposing = true;
    (void)snprintf(n->next_health, sizeof n->next_health, "%.*s", (int)body->health.len,
                   (const char *)body->health.data);
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&node_health_desc, body, &args);
    call_internal(a, "node.health", buf_blob(&args), NULL, ACTOR_SYSTEM, "", committed, c);
    buf_fini(&args);
}

/* Whether the state says the same of this node already: asked once a node and leadership. */
static bool is_recorded(struct authority *a, const struct heartbeat *hb)
{
    char id[UUID_TEXT_MAX];
    uuid_format(&hb->node_id, id);
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT 1 AS same FROM nodes WHERE id = ? AND agent_version = ?"
                                    " AND (address = ? OR ? = '') AND (facts = ? OR ? = '')");
    db_bind_text(st, id);
    const struct blob values[] = {hb->agent_version, hb->address, hb->address, hb->facts,
                                  hb->facts};
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        db_bind_textn(st, (const char *)values[i].data, values[i].len);
    }
    bool same = db_step(st) == 1;
    db_done(st);
    return same;
}

/* Version, address, facts and capabilities: what a heartbeat says beside health. */
static bool report_changed(struct authority *a, struct live_node *n, const struct heartbeat *hb)
{
    if (hb->agent_version.len == 0) {
        return false; /* seen through Raft: it says nothing */
    }
    const struct blob parts[] = {hb->agent_version, hb->address, hb->facts, hb->capabilities.raw};
    pki_sha256_parts(parts, ARRAY_SIZE(parts), n->next_report);
    n->next_report_known = true;
    if (!n->report_known && is_recorded(a, hb)) {
        memcpy(n->report, n->next_report, sizeof n->report);
        n->report_known = true;
    }
    return !n->report_known || memcmp(n->report, n->next_report, sizeof n->report) != 0;
}

static struct live_node *add(struct authority *a, const struct uuid *id)
{
    struct live_node *n = xcalloc(1, sizeof *n);
    n->node_id = *id;
    HASH_ADD(hh, a->live, node_id, sizeof n->node_id, n);
    return n;
}

static bool is_member(struct authority *a, const struct uuid *node_id)
{
    char id[UUID_TEXT_MAX];
    uuid_format(node_id, id);
    struct db_stmt *st = db_prepare(state_db(a), "SELECT 1 AS member FROM cluster_memberships"
                                                 " WHERE node_id = ? AND"
                                                 " membership_status = 'active'");
    db_bind_text(st, id);
    bool member = db_step(st) == 1;
    db_done(st);
    return member;
}

void health_seen(struct authority *a, const struct heartbeat *hb)
{
    struct live_node *n = find(a, &hb->node_id);
    if (n == NULL && is_member(a, &hb->node_id)) {
        n = add(a, &hb->node_id);
    }
    if (n == NULL) {
        return; /* what an authority passes on grows this table for members only */
    }
    n->seen_ms = authority_now_ms(a);
    n->seen_mono_ms = authority_mono_ms();
    if (hb->agent_version.len > 0) { /* else it was seen through Raft, and said nothing */
        n->heard = true;
        keep_mesh(n, hb);
        n->observed_ms = hb->sent_at_ms;
        (void)snprintf(n->version, sizeof n->version, "%.*s", (int)hb->agent_version.len,
                       (const char *)hb->agent_version.data);
    }
    if (hb->config_version > n->config_version) {
        n->config_version = hb->config_version;
    }
    if (n->proposing) {
        return;
    }
    bool health = !blob_equal(hb->health, blob_str(n->committed));
    if (report_changed(a, n, hb) || health) {
        propose(a, n,
                &(struct node_health){.node_id = hb->node_id,
                                      .health = hb->health,
                                      .agent_version = hb->agent_version,
                                      .last_seen_ms = n->seen_ms,
                                      .address = hb->address,
                                      .facts = hb->facts,
                                      .capabilities = hb->capabilities});
    }
}

/* --- observations for the log: each node now and then (DESIGN D11) --- */

#define SAMPLE_DEFAULT_MS (15LL * 60 * 1000)

static int64_t sample_every_ms(struct authority *a)
{
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT heartbeat_sample_ms FROM clusters LIMIT 1");
    int64_t ms = db_step(st) == 1 ? db_col_int(st, "heartbeat_sample_ms") : 0;
    db_done(st);
    return ms == 0 ? SAMPLE_DEFAULT_MS : ms;
}

static void sampled(void *data, int rc, struct blob doc)
{
    struct authority *a = data;
    (void)rc; /* one observation less */
    (void)doc;
    a->sampling = false;
}

/* Those heard since they were last observed; the rest with the next tick. */
static void sample(struct authority *a)
{
    struct buf list;
    struct buf args;
    uint32_t count = 0;
    if (a->sampling || fsm_level(a->fsm) < LEVEL_MEMBERS) {
        return;
    }
    int64_t now_ms = authority_now_ms(a);
    int64_t every_ms = sample_every_ms(a);
    buf_init(&list, CMD_BODY_MAX);
    for (struct live_node *n = a->live; n != NULL && count < HEARTBEAT_SAMPLES_MAX;
         n = n->hh.next) {
        if (!n->heard || n->committed[0] == '\0' || n->seen_ms <= n->sampled_ms ||
            now_ms - n->sampled_ms < every_ms) {
            continue;
        }
        const struct heartbeat_sample s = {
            .node_id = n->node_id,
            .observed_at_ms = n->observed_ms,
            .received_at_ms = n->seen_ms,
            .health = blob_str(n->committed),
            .version = blob_str(n->version),
            .config_version = n->config_version,
        };
        n->sampled_ms = now_ms;
        msg_list_add(&heartbeat_sample_desc, &s, &list, &count);
    }
    if (count > 0) {
        const struct heartbeat_log body = {.samples = {.raw = buf_blob(&list), .count = count}};
        buf_init(&args, CMD_BODY_MAX);
        msg_encode(&heartbeat_log_desc, &body, &args);
        a->sampling = true;
        call_internal(a, "heartbeat.log", buf_blob(&args), NULL, ACTOR_SYSTEM, "", sampled, a);
        buf_fini(&args);
    }
    buf_fini(&list);
}

/* A new leader knows nothing yet: every active node gets a full period before it is called stale,
 * and what is committed already is not committed again. */
void health_became_leader(struct authority *a)
{
    health_fini(a);
    int64_t now_ms = authority_now_ms(a);
    struct db_stmt *st = db_prepare(state_db(a), "SELECT n.id, n.health_status FROM nodes n"
                                                 " JOIN cluster_memberships m ON m.node_id = n.id"
                                                 " WHERE m.membership_status = 'active'");
    while (db_step(st) == 1) {
        struct uuid id;
        if (uuid_parse(db_col_text(st, "id"), &id) != 0 || find(a, &id) != NULL) {
            continue;
        }
        struct live_node *n = add(a, &id);
        n->seen_ms = now_ms;
        n->seen_mono_ms = authority_mono_ms();
        (void)snprintf(n->committed, sizeof n->committed, "%s", db_col_text(st, "health_status"));
    }
    db_done(st);
}

/* Authorities are seen through Raft too, between their heartbeats. */
static void see_members(struct authority *a)
{
    struct core_status s;
    core_status(a->core, &s);
    for (size_t i = 0; i < s.members_count; i++) {
        const struct uuid *id = raft_net_node(a, s.members[i].id);
        if (id == NULL || !s.members[i].in_contact) {
            continue;
        }
        health_seen(a, &(struct heartbeat){.node_id = *id, .health = blob_str("healthy")});
    }
}

/* As the agent of an ordinary node does (agent/heartbeat.c): the leader read its clock half way. */
static void note_clock(struct authority *a, int64_t leader_ms)
{
    static struct log_limit limit;
    int64_t now_ms = authority_now_ms(a);
    a->clock_ahead_ms = a->self_asked_ms + (now_ms - a->self_asked_ms) / 2 - leader_ms;
    if (llabs(a->clock_ahead_ms) >= CLOCK_AHEAD_WARN_MS && log_allow(&limit, 1)) {
        log_warn(LOG_AUTHORITY, "clock differs from the leader's",
                 "ahead_s=%lld next=\"set the clocks; OPERATIONS, A clock that is wrong\"",
                 (long long)(a->clock_ahead_ms / 1000));
    }
}

static void self_answered(struct fabric_call *call, int rc, struct blob body)
{
    struct authority *a = call->data;
    struct heartbeat_ack ack;
    a->self_busy = false;
    if (rc != 0) {
        a->self_report_at_ms = authority_mono_ms() + SELF_RETRY_MS;
    } else if (msg_decode(&heartbeat_ack_desc, MSG_LENIENT, body, &ack) == 0) {
        note_clock(a, ack.received_at_ms);
    }
}

/* An authority reports as every node does, to the leader. */
static void report_self(struct authority *a, const struct core_status *s)
{
    uint64_t now = authority_mono_ms();
    const struct uuid *leader = s->leader == 0 ? NULL : raft_net_node(a, s->leader);
    if (a->self_busy || now < a->self_report_at_ms || leader == NULL || !s->quorum) {
        return;
    }
    struct heartbeat hb = a->cfg.self;
    struct buf links;
    struct buf routes;
    hb.health = blob_str("healthy");
    hb.sent_at_ms = a->self_asked_ms = authority_now_ms(a);
    a->self_report_at_ms = now + health_interval_ms(a);
    buf_init(&links, LINKS_MAX * SAMPLE_BYTES_MAX);
    buf_init(&routes, ROUTE_SAMPLES_MAX * SAMPLE_BYTES_MAX);
    if (a->cfg.mesh_report != NULL) {
        a->cfg.mesh_report(a->cfg.data, &hb, &links, &routes);
    }
    if (s->role == CORE_LEADER) {
        a->clock_ahead_ms = 0;
        hb.node_id = a->cfg.node_id;
        health_seen(a, &hb);
    } else {
        struct buf body;
        buf_init(&body, RPC_FRAME_MAX);
        msg_encode(&heartbeat_desc, &hb, &body);
        a->self_call = (struct fabric_call){.data = a};
        a->self_busy = fabric_call_start(a->cfg.fabric, &a->self_call, leader, "heartbeat",
                                         buf_blob(&body), FORWARD_TIMEOUT_MS, self_answered) == 0;
        buf_fini(&body);
    }
    buf_fini(&links);
    buf_fini(&routes);
}

static void find_stale(struct authority *a)
{
    uint64_t now_ms = authority_mono_ms();
    uint64_t limit_ms = (uint64_t)health_interval_ms(a) * STALE_AFTER;
    struct live_node *n;
    struct live_node *tmp;
    HASH_ITER(hh, a->live, n, tmp)
    {
        if (now_ms - n->seen_mono_ms > limit_ms && strcmp(n->committed, "stale") != 0 &&
            !n->proposing) {
            n->next_report_known = false;
            propose(a, n,
                    &(struct node_health){.node_id = n->node_id,
                                          .health = blob_str("stale"),
                                          .last_seen_ms = n->seen_ms});
        }
    }
}

void health_tick(struct authority *a)
{
    struct core_status s;
    core_status(a->core, &s);
    report_self(a, &s);
    if (s.role == CORE_LEADER && s.quorum) {
        see_members(a);
        find_stale(a);
        sample(a);
        mesh_log_tick(a);
    }
}

void health_fini(struct authority *a)
{
    struct live_node *n;
    struct live_node *tmp;
    HASH_ITER(hh, a->live, n, tmp)
    {
        drop(a, n);
    }
}

/* --- the service --- */

static void answer_ack(struct authority *a, struct fabric_request *rq)
{
    struct heartbeat_ack ack = {.interval_ms = health_interval_ms(a),
                                .received_at_ms = authority_now_ms(a)};
    struct buf body;
    buf_init(&body, 256);
    msg_encode(&heartbeat_ack_desc, &ack, &body);
    fabric_answer(rq, 0, buf_blob(&body));
    buf_fini(&body);
}

/* What a peer may not have is noted; what it may have later is not. */
static void refuse(struct authority *a, struct fabric_request *rq, const char *service, int rc)
{
    if (rc == -ERR_DENIED || rc == -ERR_WRONG_NODE) {
        refused_peer(a, REFUSAL_SERVICE, fabric_request_peer(rq), service, rc);
    }
    fabric_answer(rq, rc, blob_of(NULL, 0));
}

struct relay {
    struct fabric_call call;
    struct fabric_request *rq;
};

static void relayed(struct fabric_call *call, int rc, struct blob body)
{
    struct relay *r = container_of(call, struct relay, call);
    fabric_answer(r->rq, rc, body);
    free(r);
}

/* Passes a heartbeat on to the leader, in the sender's name: only an authority may say whose it
 * is. */
static int relay(struct authority *a, struct fabric_request *rq, const struct heartbeat *hb)
{
    struct core_status s;
    core_status(a->core, &s);
    const struct uuid *leader = s.leader == 0 ? NULL : raft_net_node(a, s.leader);
    if (leader == NULL) {
        return -ERR_NO_QUORUM;
    }
    struct buf body;
    buf_init(&body, RPC_FRAME_MAX);
    msg_encode(&heartbeat_desc, hb, &body);
    struct relay *r = xcalloc(1, sizeof *r);
    r->rq = rq;
    int rc = fabric_call_start(a->cfg.fabric, &r->call, leader, "heartbeat", buf_blob(&body),
                               FORWARD_TIMEOUT_MS, relayed);
    buf_fini(&body);
    if (rc != 0) {
        free(r);
    }
    return rc;
}

static void on_heartbeat(void *data, struct fabric_request *rq, struct blob body)
{
    struct authority *a = data;
    const struct fabric_peer *peer = fabric_request_peer(rq);
    struct heartbeat hb;
    if (a->closing || a->fence.fenced) {
        fabric_answer(rq, a->closing ? -ERR_CLOSED : -ERR_FENCED, blob_of(NULL, 0));
        return;
    }
    int rc = msg_decode(&heartbeat_desc, MSG_LENIENT, body, &hb);
    bool other = rc == 0 && !uuid_is_nil(&hb.node_id) &&
                 !uuid_equal(&hb.node_id, &peer->identity.node_id);
    bool forwarded = other && peer->identity.authority;
    if (other && !forwarded) {
        rc = -ERR_WRONG_NODE; /* only an authority may say whose heartbeat it passes on */
    } else if (rc == 0 && !forwarded) {
        hb.node_id = peer->identity.node_id;
    }
    struct core_status s;
    core_status(a->core, &s);
    if (rc == 0 && !forwarded && !authority_knows(a, peer)) {
        rc = -ERR_DENIED;
    } else if (rc == 0 && s.role == CORE_LEADER) {
        health_seen(a, &hb);
        answer_ack(a, rq);
        return;
    } else if (rc == 0) {
        rc = forwarded ? -ERR_NOT_LEADER : relay(a, rq, &hb);
        if (rc == 0) {
            return;
        }
    }
    refuse(a, rq, "heartbeat", rc);
}

/* --- renewal of certificates, over the same session --- */

static void renewed(void *data, int rc, struct blob doc)
{
    struct fabric_request *rq = data;
    struct mp_reader r;
    struct buf body;
    buf_init(&body, RPC_FRAME_MAX);
    if (rc == 0) {
        struct renew_answer answer = {.leaf = {0}};
        mp_reader_init(&r, mp_find(doc, "certificate"));
        answer.leaf = mp_get_bin(&r, CERT_DER_MAX);
        mp_reader_init(&r, mp_find(doc, "issuer_certificate"));
        answer.issuer = mp_get_bin(&r, CERT_DER_MAX);
        msg_encode(&renew_answer_desc, &answer, &body);
    }
    fabric_answer(rq, rc, buf_blob(&body));
    buf_fini(&body);
}

static void on_renew(void *data, struct fabric_request *rq, struct blob body)
{
    struct authority *a = data;
    struct renew_request renew;
    int rc = a->closing        ? -ERR_CLOSED
             : a->fence.fenced ? -ERR_FENCED
                               : msg_decode(&renew_request_desc, MSG_LENIENT, body, &renew);
    const struct uuid *own = &fabric_request_peer(rq)->identity.node_id;
    if (rc == 0 && !uuid_is_nil(&renew.node_id) && !uuid_equal(&renew.node_id, own)) {
        rc = -ERR_WRONG_NODE;
    } else if (rc == 0 && !authority_knows(a, fabric_request_peer(rq))) {
        rc = -ERR_DENIED;
    }
    if (rc != 0) {
        refuse(a, rq, "renew", rc);
        return;
    }
    char actor[UUID_TEXT_MAX];
    renew.node_id = fabric_request_peer(rq)->identity.node_id;
    uuid_format(&renew.node_id, actor);
    struct buf args;
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&renew_request_desc, &renew, &args);
    call_internal(a, "node.renew", buf_blob(&args), &renew.request_id, ACTOR_NODE, actor, renewed,
                  rq);
    buf_fini(&args);
}

void health_serve(struct authority *a)
{
    fabric_serve(a->cfg.fabric,
                 &(struct fabric_service){.name = "heartbeat", .data = a, .request = on_heartbeat});
    fabric_serve(a->cfg.fabric,
                 &(struct fabric_service){.name = "renew", .data = a, .request = on_renew});
}
