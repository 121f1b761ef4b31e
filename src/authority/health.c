/* Heartbeats. The leader keeps them in memory; only a change of health, or of what a node says about
 * itself, becomes a command (DESIGN D11). */
#include "authority/authority_impl.h"

#include "base/log.h"

#define INTERVAL_DEFAULT_MS 15000
/* Missing this many heartbeats makes a node stale. */
#define STALE_AFTER 3

static uint32_t interval_ms(const struct authority *a)
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

static void committed(void *data, int rc, struct blob doc)
{
    (void)data;
    (void)doc;
    if (rc != 0 && rc != -ERR_CANCELED) {
        log_debug(LOG_AUTHORITY, "health change not committed", "error=%s", err_slug(rc));
    }
}

static void propose(struct authority *a, struct node_health *body)
{
    struct buf args;
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&node_health_desc, body, &args);
    call_internal(a, "node.health", buf_blob(&args), NULL, ACTOR_SYSTEM, "", committed, NULL);
    buf_fini(&args);
}

void health_seen(struct authority *a, const struct heartbeat *hb)
{
    struct live_node *n = find(a, &hb->node_id);
    if (n == NULL) {
        n = xcalloc(1, sizeof *n);
        n->node_id = hb->node_id;
        HASH_ADD(hh, a->live, node_id, sizeof n->node_id, n);
    }
    n->seen_ms = authority_now_ms(a);
    char health[16];
    (void)snprintf(health, sizeof health, "%.*s", (int)hb->health.len,
                   (const char *)hb->health.data);
    if (strcmp(n->committed, health) == 0) {
        return;
    }
    (void)snprintf(n->committed, sizeof n->committed, "%s", health);
    propose(a, &(struct node_health){.node_id = hb->node_id,
                                     .health = hb->health,
                                     .agent_version = hb->agent_version,
                                     .last_seen_ms = n->seen_ms,
                                     .address = hb->address,
                                     .facts = hb->facts,
                                     .capabilities = hb->capabilities});
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
        struct live_node *n = xcalloc(1, sizeof *n);
        n->node_id = id;
        n->seen_ms = now_ms;
        (void)snprintf(n->committed, sizeof n->committed, "%s", db_col_text(st, "health_status"));
        HASH_ADD(hh, a->live, node_id, sizeof n->node_id, n);
    }
    db_done(st);
}

/* Authorities are seen through Raft: they send no heartbeats to each other. */
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

void health_tick(struct authority *a)
{
    int64_t now_ms = authority_now_ms(a);
    int64_t limit_ms = (int64_t)interval_ms(a) * STALE_AFTER;
    see_members(a);
    struct live_node *n;
    struct live_node *tmp;
    HASH_ITER(hh, a->live, n, tmp)
    {
        if (now_ms - n->seen_ms <= limit_ms || strcmp(n->committed, "stale") == 0) {
            continue;
        }
        (void)snprintf(n->committed, sizeof n->committed, "stale");
        propose(a, &(struct node_health){.node_id = n->node_id,
                                         .health = blob_str("stale"),
                                         .last_seen_ms = n->seen_ms});
    }
}

void health_fini(struct authority *a)
{
    struct live_node *n;
    struct live_node *tmp;
    HASH_ITER(hh, a->live, n, tmp)
    {
        HASH_DEL(a->live, n);
        free(n);
    }
}

/* --- the service --- */

static void answer_ack(struct authority *a, struct fabric_request *rq)
{
    struct heartbeat_ack ack = {.interval_ms = interval_ms(a),
                                .received_at_ms = authority_now_ms(a)};
    struct buf body;
    buf_init(&body, 256);
    msg_encode(&heartbeat_ack_desc, &ack, &body);
    fabric_answer(rq, 0, buf_blob(&body));
    buf_fini(&body);
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
    if (a->closing) {
        fabric_answer(rq, -ERR_CLOSED, blob_of(NULL, 0));
        return;
    }
    int rc = msg_decode(&heartbeat_desc, MSG_LENIENT, body, &hb);
    bool forwarded = rc == 0 && !uuid_is_nil(&hb.node_id) && peer->identity.authority;
    if (rc == 0 && !forwarded) {
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
    fabric_answer(rq, rc, blob_of(NULL, 0));
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
    int rc = a->closing ? -ERR_CLOSED : msg_decode(&renew_request_desc, MSG_LENIENT, body, &renew);
    if (rc == 0 && !authority_knows(a, fabric_request_peer(rq))) {
        rc = -ERR_DENIED;
    }
    if (rc != 0) {
        fabric_answer(rq, rc, blob_of(NULL, 0));
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
