#include "lib/fake_authority.h"

#include "base/clock.h"

/* --- enrolment --- */

static void send_status(struct fabric_stream *s, const struct enroll_status *st)
{
    struct buf b;
    buf_init(&b, RPC_FRAME_MAX);
    msg_encode(&enroll_status_desc, st, &b);
    CHECK(b.err == 0);
    (void)fabric_stream_send(s, buf_blob(&b));
    buf_fini(&b);
}

static void send_approved(struct fake_authority *a, struct fabric_stream *s,
                          const uint8_t public_key[PKI_KEY_BYTES], bool forge_snapshot)
{
    int64_t now = clock_wall_ms();
    struct fake_snapshot snap;
    struct buf leaf;
    struct buf bytes;
    struct enroll_status st = {
        .state = ENROLL_APPROVED,
        .join_id = uuid_new(),
        .node_id = uuid_new(),
        .issuer = buf_blob(&a->node.issuer_der),
        .root = buf_blob(&a->cluster->root_der),
        .cluster_name = blob_str("prod"),
    };
    buf_init(&leaf, CERT_DER_MAX);
    buf_init(&bytes, SNAPSHOT_MAX_BYTES);
    fake_issue(a->cluster, &a->node, &st.node_id, public_key, now - PKI_BACKDATE_MS,
               now + PKI_LEAF_LIFE_MS, &leaf);
    fake_snapshot_init(&snap, a->cluster, forge_snapshot ? &a->plain : &a->node, &st.node_id, 5,
                       now);
    snap.address = a->address;
    fake_sign(&snap, &bytes);
    st.leaf = buf_blob(&leaf);
    st.snapshot = buf_blob(&bytes);
    send_status(s, &st);
    buf_fini(&bytes);
    buf_fini(&leaf);
}

static void enroll_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct fake_authority *a = data;
    struct enroll_request rq;
    uint8_t key[PKI_KEY_BYTES] = {0};
    CHECK(msg_decode(&enroll_request_desc, MSG_STRICT, frame, &rq) == 0);
    CHECK(pki_csr_parse(rq.csr, key, NULL) == 0);
    size_t n = a->enrolled++;
    if (n < FAKE_MAX) {
        a->request_ids[n] = rq.request_id;
        memcpy(a->keys[n], key, sizeof key);
    }
    enum fake_enroll what = a->script[n < a->script_len ? n : a->script_len - 1];
    if (what == FAKE_ENROLL_REFUSE) {
        const struct enroll_status st = {.state = ENROLL_REFUSED,
                                         .error = (uint64_t)-a->refuse_rc,
                                         .detail = blob_str(a->refuse_detail),
                                         .retry_after_ms = a->refuse_retry_ms};
        send_status(s, &st);
        return;
    }
    if (what == FAKE_ENROLL_SILENT) {
        return;
    }
    if (what == FAKE_ENROLL_NONSENSE) {
        (void)fabric_stream_send(s, blob_str("nonsense"));
        return;
    }
    const struct enroll_status pending = {
        .state = ENROLL_PENDING, .join_id = uuid_new(), .expires_at_ms = clock_wall_ms() + 1000000};
    send_status(s, &pending);
    switch (what) {
        case FAKE_ENROLL_APPROVE:
        case FAKE_ENROLL_FORGED_SNAPSHOT:
            send_approved(a, s, key, what == FAKE_ENROLL_FORGED_SNAPSHOT);
            break;
        case FAKE_ENROLL_FOREIGN_KEY:
            pki_key_public(a->plain.key, key);
            send_approved(a, s, key, false);
            break;
        case FAKE_ENROLL_HANG_UP:
            fabric_stream_close(s);
            break;
        case FAKE_ENROLL_WAIT:
        case FAKE_ENROLL_REFUSE:
        case FAKE_ENROLL_NONSENSE:
        case FAKE_ENROLL_SILENT:
            break;
    }
}

static void enroll_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    (void)data;
    (void)rc;
}

static const struct fabric_stream_vtab enroll_vtab = {.frame = enroll_frame,
                                                      .closed = enroll_closed};

static void enroll_open(void *data, struct fabric_stream *s)
{
    fabric_stream_accept(s, &enroll_vtab, data);
}

/* --- subscriptions --- */

static void config_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct fake_authority *a = data;
    struct config_subscribe sub;
    CHECK(msg_decode(&config_subscribe_desc, MSG_STRICT, frame, &sub) == 0);
    a->subscribed++;
    a->subscribed_version = sub.config_version;
    if (a->snapshot.len > 0) {
        (void)fabric_stream_send(s, buf_blob(&a->snapshot));
    }
}

static void config_closed(struct fabric_stream *s, void *data, int rc)
{
    struct fake_authority *a = data;
    (void)rc;
    for (size_t i = 0; i < FAKE_MAX; i++) {
        if (a->streams[i] == s) {
            a->streams[i] = NULL;
        }
    }
}

static const struct fabric_stream_vtab config_vtab = {.frame = config_frame,
                                                      .closed = config_closed};

static void config_open(void *data, struct fabric_stream *s)
{
    struct fake_authority *a = data;
    for (size_t i = 0; i < FAKE_MAX; i++) {
        if (a->streams[i] == NULL) {
            a->streams[i] = s;
            fabric_stream_accept(s, &config_vtab, a);
            return;
        }
    }
    fatal("too many subscriptions");
}

void fake_authority_publish(struct fake_authority *a, struct blob signed_snapshot)
{
    buf_clear(&a->snapshot);
    buf_add(&a->snapshot, signed_snapshot.data, signed_snapshot.len);
    for (size_t i = 0; i < FAKE_MAX; i++) {
        if (a->streams[i] != NULL) {
            (void)fabric_stream_send(a->streams[i], signed_snapshot);
        }
    }
}

void fake_authority_drop(struct fake_authority *a)
{
    for (size_t i = 0; i < FAKE_MAX; i++) {
        if (a->streams[i] != NULL) {
            fabric_stream_reset(a->streams[i], -ERR_CLOSED);
            a->streams[i] = NULL;
        }
    }
}

/* --- rpc --- */

static void on_heartbeat(void *data, struct fabric_request *rq, struct blob body)
{
    struct fake_authority *a = data;
    struct heartbeat hb;
    CHECK(msg_decode(&heartbeat_desc, MSG_STRICT, body, &hb) == 0);
    a->heartbeats++;
    a->heartbeat_version = hb.config_version;
    a->heartbeat_capabilities = hb.capabilities.count;
    (void)snprintf(a->heartbeat_health, sizeof a->heartbeat_health, "%.*s", (int)hb.health.len,
                   (const char *)hb.health.data);
    if (a->heartbeat_rc != 0) {
        fabric_answer(rq, a->heartbeat_rc, blob_of(NULL, 0));
        return;
    }
    const struct heartbeat_ack ack = {.interval_ms = a->heartbeat_interval_ms,
                                      .received_at_ms = clock_wall_ms()};
    struct buf b;
    buf_init(&b, 256);
    msg_encode(&heartbeat_ack_desc, &ack, &b);
    fabric_answer(rq, 0, buf_blob(&b));
    buf_fini(&b);
}

static void on_renew(void *data, struct fabric_request *rq, struct blob body)
{
    struct fake_authority *a = data;
    struct renew_request req;
    uint8_t key[PKI_KEY_BYTES];
    CHECK(msg_decode(&renew_request_desc, MSG_STRICT, body, &req) == 0);
    CHECK(pki_csr_parse(req.csr, key, NULL) == 0);
    if (a->renewals < FAKE_MAX) {
        a->renew_ids[a->renewals] = req.request_id;
    }
    a->renewals++;
    if (a->renew_rc != 0) {
        fabric_answer(rq, a->renew_rc, blob_of(NULL, 0));
        return;
    }
    int64_t now = clock_wall_ms();
    const struct uuid id = fabric_request_peer(rq)->identity.node_id;
    struct buf leaf;
    struct buf b;
    buf_init(&leaf, CERT_DER_MAX);
    buf_init(&b, RPC_FRAME_MAX);
    fake_issue(a->cluster, &a->node, &id, key, now - PKI_BACKDATE_MS, now + PKI_LEAF_LIFE_MS,
               &leaf);
    const struct renew_answer answer = {.leaf = buf_blob(&leaf),
                                        .issuer = buf_blob(&a->node.issuer_der)};
    msg_encode(&renew_answer_desc, &answer, &b);
    fabric_answer(rq, 0, buf_blob(&b));
    buf_fini(&b);
    buf_fini(&leaf);
}

/* --- life --- */

void fake_authority_open(struct fake_authority *a, uv_loop_t *loop, struct fake_cluster *c)
{
    struct errmsg em = ERRMSG_INIT;
    *a = (struct fake_authority){.cluster = c,
                                 .script_len = 1,
                                 .refuse_rc = -ERR_REJECTED,
                                 .refuse_detail = "no",
                                 .heartbeat_interval_ms = 200};
    buf_init(&a->snapshot, SNAPSHOT_MAX_BYTES);
    fake_node_init(&a->node, c, true, clock_wall_ms());
    fake_node_init(&a->plain, c, false, clock_wall_ms());
    struct fabric_config fc = {
        .loop = loop,
        .cluster_id = c->id,
        .trust = c->trust,
    };
    CHECK(addr_parse("127.0.0.1:0", &fc.listen, NULL) == 0);
    if (fabric_open(&fc, &a->fabric, &em) != 0) {
        fatal("fake authority: %s", em.text);
    }
    const struct blob chain[3] = {buf_blob(&a->node.leaf_der), buf_blob(&a->node.issuer_der),
                                  buf_blob(&c->root_der)};
    if (fabric_set_identity(a->fabric, chain, 3, a->node.key, &em) != 0) {
        fatal("fake authority: %s", em.text);
    }
    const struct fabric_service services[] = {
        {.name = "enroll", .flags = FABRIC_SVC_ENROLL, .data = a, .stream = enroll_open},
        {.name = "config", .data = a, .stream = config_open},
        {.name = "heartbeat", .data = a, .request = on_heartbeat},
        {.name = "renew", .data = a, .request = on_renew},
    };
    for (size_t i = 0; i < ARRAY_SIZE(services); i++) {
        fabric_serve(a->fabric, &services[i]);
    }
    struct addr local;
    fabric_local_addr(a->fabric, &local);
    addr_format(&local, a->address);
}

static void on_closed(void *data)
{
    struct fake_authority *a = data;
    a->fabric = NULL;
    a->closed = true;
}

void fake_authority_close(struct fake_authority *a)
{
    fabric_close(a->fabric, on_closed, a);
}

void fake_authority_fini(struct fake_authority *a)
{
    CHECK(a->closed);
    buf_fini(&a->snapshot);
    fake_node_fini(&a->node);
    fake_node_fini(&a->plain);
}

static void on_limit(uv_timer_t *t)
{
    *(bool *)t->data = true;
}

static void free_handle(uv_handle_t *h)
{
    free(h);
}

bool fake_run_until(uv_loop_t *loop, bool (*done)(void *data), void *data)
{
    bool late = false;
    uv_timer_t *limit = xcalloc(1, sizeof *limit);
    CHECK(uv_timer_init(loop, limit) == 0);
    limit->data = &late;
    CHECK(uv_timer_start(limit, on_limit, 20000, 0) == 0);
    while (!late && !done(data)) {
        (void)uv_run(loop, UV_RUN_ONCE);
    }
    CHECK(uv_timer_stop(limit) == 0);
    uv_close((uv_handle_t *)limit, free_handle);
    return !late;
}
