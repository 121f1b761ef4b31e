/* Enrolment, the authority's side (DESIGN section 5). Any authority takes the request and passes it
 * to the leader; the host waits on the stream for what *committed* state says. */
#include "authority/authority_impl.h"

#include "base/log.h"
#include "base/text.h"

/* For the one request of a stream to arrive whole: a sender of a byte a second holds nothing for long. */
#define REQUEST_WITHIN_MS 10000

static void forget(struct enrolling *e)
{
    if (e->submitting) {
        e->gone = true; /* the call's callback frees it */
        return;
    }
    LIST_REMOVE(e, link);
    free(e);
}

static void send_status(struct enrolling *e, const struct enroll_status *msg)
{
    struct buf body;
    buf_init(&body, SNAPSHOT_MAX_BYTES + 16384);
    msg_encode(&enroll_status_desc, msg, &body);
    if (body.err == 0) {
        (void)fabric_stream_send(e->stream, buf_blob(&body));
    }
    buf_fini(&body);
}

static void finish(struct enrolling *e, const struct enroll_status *msg)
{
    send_status(e, msg);
    fabric_stream_close(e->stream);
    e->stream = NULL;
    forget(e);
}

static void refuse(struct enrolling *e, int rc, const char *detail)
{
    finish(e, &(struct enroll_status){
                  .state = ENROLL_REFUSED,
                  .join_id = e->join_id,
                  .error = (uint64_t)-rc,
                  .detail = blob_of(detail, strnlen(detail, REASON_MAX_BYTES)),
              });
}

static void refuse_for_now(struct enrolling *e, uint32_t wait_ms)
{
    char detail[REASON_MAX_BYTES + 1];
    (void)snprintf(detail, sizeof detail,
                   "too many attempts from your address: this host tries again in %.1f s",
                   (double)wait_ms / 1000);
    finish(e, &(struct enroll_status){
                  .state = ENROLL_REFUSED,
                  .error = ERR_RATE_LIMITED,
                  .detail = blob_str(detail),
                  .retry_after_ms = wait_ms,
              });
}

/* --- refusals of this authority, before the leader is asked --- */

static void note(struct enrolling *e, int rc, const char *detail)
{
    struct refusal r = {.rc = rc, .has_token = e->has_token};
    const struct fabric_peer *peer = fabric_stream_peer(e->stream);
    if (peer != NULL) {
        addr_format(&peer->address, r.source);
    }
    (void)snprintf(r.subject, sizeof r.subject, "%s", e->node_name);
    (void)snprintf(r.detail, sizeof r.detail, "%s", detail);
    memcpy(r.token_hash, e->token_hash, sizeof r.token_hash);
    refused_join(e->a, &r);
}

static void charge(struct enrolling *e, int rc)
{
    const struct fabric_peer *peer = fabric_stream_peer(e->stream);
    if (!err_retryable(rc) && peer != NULL) {
        fabric_enroll_failed(e->a->cfg.fabric, &peer->address);
    }
}

static void turn_away(struct enrolling *e, int rc, const char *detail)
{
    charge(e, rc);
    note(e, rc, detail);
    refuse(e, rc, detail);
}

/* --- what committed state says about a request --- */

static void approved(struct enrolling *e, const char *node_text)
{
    struct authority *a = e->a;
    struct enroll_status msg = {.state = ENROLL_APPROVED, .join_id = e->join_id};
    struct buf leaf;
    struct buf issuer;
    struct buf snapshot;
    struct errmsg em = ERRMSG_INIT;
    buf_init(&leaf, CERT_DER_MAX);
    buf_init(&issuer, CERT_DER_MAX);
    buf_init(&snapshot, SNAPSHOT_MAX_BYTES);
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT certificate, issuer_certificate FROM node_identities"
                                    " WHERE node_id = ? AND identity_status = 'active'"
                                    " ORDER BY certificate_not_before DESC LIMIT 1");
    db_bind_text(st, node_text);
    if (db_step(st) == 1) {
        struct blob l = db_col_blob(st, "certificate");
        struct blob i = db_col_blob(st, "issuer_certificate");
        buf_add(&leaf, l.data, l.len);
        buf_add(&issuer, i.data, i.len);
    }
    db_done(st);
    char cluster_name[NAME_MAX_BYTES + 1] = "";
    st = db_prepare(state_db(a), "SELECT name FROM clusters");
    if (db_step(st) == 1) {
        (void)snprintf(cluster_name, sizeof cluster_name, "%s", db_col_text(st, "name"));
    }
    db_done(st);
    int rc = uuid_parse(node_text, &msg.node_id);
    if (rc == 0) {
        rc = authority_snapshot(a, &msg.node_id, &(struct snapshot_held){0}, &snapshot, &em);
    }
    if (rc == -ERR_BUSY) {
        /* Told when a majority has signed: enroll_applied comes again then. */
    } else if (rc != 0 || leaf.len == 0) {
        /* Revoked between approval and delivery. */
        refuse(e, -ERR_REVOKED, "this identity is no longer valid: ask for a new join token");
    } else {
        msg.leaf = buf_blob(&leaf);
        msg.issuer = buf_blob(&issuer);
        msg.root = buf_blob(&a->root_der);
        msg.snapshot = buf_blob(&snapshot);
        msg.cluster_name = blob_str(cluster_name);
        finish(e, &msg);
    }
    buf_fini(&leaf);
    buf_fini(&issuer);
    buf_fini(&snapshot);
}

/* Ends the wait when the request is decided; says "pending" once when asked to. */
static void look(struct enrolling *e, bool say_pending)
{
    char id[UUID_TEXT_MAX];
    char status[16] = "";
    char node[UUID_TEXT_MAX] = "";
    char reason[REASON_MAX_BYTES + 1] = "";
    int64_t expires_at_ms = 0;
    uuid_format(&e->join_id, id);
    struct db_stmt *st = db_prepare(state_db(e->a),
                                    "SELECT status, approved_node_id, rejection_reason, expires_at"
                                    " FROM node_join_requests WHERE id = ?");
    db_bind_text(st, id);
    if (db_step(st) == 1) {
        (void)snprintf(status, sizeof status, "%s", db_col_text(st, "status"));
        (void)snprintf(node, sizeof node, "%s", db_col_text(st, "approved_node_id"));
        (void)snprintf(reason, sizeof reason, "%s", db_col_text(st, "rejection_reason"));
        expires_at_ms = db_col_int(st, "expires_at");
    }
    db_done(st);
    if (strcmp(status, "approved") == 0) {
        approved(e, node);
    } else if (strcmp(status, "rejected") == 0) {
        refuse(e, -ERR_REJECTED, reason);
    } else if (strcmp(status, "expired") == 0) {
        refuse(e, -ERR_EXPIRED, "nobody decided in time: join again with a new token");
    } else if (say_pending) {
        /* Not applied here yet, or pending: the same to the host. */
        send_status(e, &(struct enroll_status){.state = ENROLL_PENDING,
                                               .join_id = e->join_id,
                                               .expires_at_ms = expires_at_ms});
    }
}

void enroll_applied(struct authority *a)
{
    struct enrolling *e;
    struct enrolling *next;
    for (e = LIST_FIRST(&a->enrolling); e != NULL; e = next) {
        next = LIST_NEXT(e, link);
        if (!e->submitting && !uuid_is_nil(&e->join_id)) {
            look(e, false);
        }
    }
}

static void submitted(void *data, int rc, struct blob doc)
{
    struct enrolling *e = data;
    char id[UUID_TEXT_MAX];
    char detail[REASON_MAX_BYTES + 1];
    e->submitting = false;
    if (e->gone || e->stream == NULL) {
        e->gone = false;
        forget(e);
        return;
    }
    if (rc != 0) {
        charge(e, rc); /* the leader has noted it */
        mp_find_str(doc, "detail", detail, sizeof detail);
        refuse(e, rc, detail[0] == '\0' ? err_text(rc) : detail);
        return;
    }
    mp_find_str(doc, "id", id, sizeof id);
    if (uuid_parse(id, &e->join_id) != 0) {
        refuse(e, -ERR_MALFORMED, "the authority's answer names no request");
        return;
    }
    look(e, true);
}

static void submit(struct enrolling *e, const struct enroll_request *rq)
{
    struct authority *a = e->a;
    struct errmsg em = ERRMSG_INIT;
    uint8_t hash[PKI_HASH_BYTES];
    uint8_t key[PKI_KEY_BYTES];
    uint8_t fingerprint[PKI_HASH_BYTES];
    char source[ADDR_TEXT_MAX] = "";
    addr_format(&fabric_stream_peer(e->stream)->address, source);
    pki_sha256(rq->token_secret, hash);
    memcpy(e->token_hash, hash, sizeof e->token_hash);
    e->has_token = true;
    int rc = pki_csr_parse(rq->csr, key, &em);
    if (rc == 0 && !text_is_name((const char *)rq->node_name.data, rq->node_name.len)) {
        rc = errmsg_set(&em, -ERR_BAD_NAME,
                        "a node name is 1-63 of a-z, 0-9 and -, no - at either end");
    }
    (void)snprintf(e->node_name, sizeof e->node_name, "%.*s", (int)rq->node_name.len,
                   (const char *)rq->node_name.data);
    if (rc != 0) {
        turn_away(e, rc, em.text);
        return;
    }
    pki_fingerprint(key, fingerprint);
    struct join_submit body = {
        .join_id = rq->request_id, /* replaced by the leader */
        .token_hash = blob_of(hash, sizeof hash),
        .node_name = rq->node_name,
        .public_key = blob_of(key, sizeof key),
        .fingerprint = blob_of(fingerprint, sizeof fingerprint),
        .facts = rq->facts,
        .capabilities = rq->capabilities,
        .requested_roles = rq->requested_roles,
        .source_address = blob_str(source),
        .address = rq->address,
        .expires_at_ms = 1, /* replaced by the leader */
    };
    char actor[2 * PKI_HASH_BYTES + 1];
    hex_encode(fingerprint, sizeof fingerprint, actor);
    struct buf args;
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&join_submit_desc, &body, &args);
    e->submitting = true;
    call_internal(a, "join.submit", buf_blob(&args), &rq->request_id, ACTOR_NODE, actor, submitted,
                  e);
    buf_fini(&args);
}

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct enrolling *e = data;
    struct enroll_request rq;
    const struct fabric_peer *peer = fabric_stream_peer(s);
    if (e->submitting || !uuid_is_nil(&e->join_id) || peer == NULL) {
        return; /* one request a stream */
    }
    uint32_t wait_ms = fabric_enroll_wait_ms(e->a->cfg.fabric, &peer->address);
    if (wait_ms > 0) {
        note(e, -ERR_RATE_LIMITED, "too many attempts from this address");
        refuse_for_now(e, wait_ms);
        return;
    }
    int rc = msg_decode(&enroll_request_desc, MSG_LENIENT, frame, &rq);
    if (rc != 0) {
        turn_away(e, rc, err_text(rc));
        return;
    }
    submit(e, &rq);
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    struct enrolling *e = data;
    (void)s;
    (void)rc;
    e->stream = NULL;
    forget(e);
}

static const struct fabric_stream_vtab vtab = {.frame = on_frame, .closed = on_closed};

static void on_stream(void *data, struct fabric_stream *s)
{
    struct authority *a = data;
    struct authority_state st;
    if (a->closing) {
        fabric_stream_reset(s, -ERR_CLOSED);
        return;
    }
    authority_state(a, &st);
    if (!st.member || a->root_der.len == 0 || a->fence.fenced) {
        fabric_stream_reset(s, -ERR_NO_QUORUM); /* it has no state yet */
        return;
    }
    struct enrolling *e = xcalloc(1, sizeof *e);
    e->a = a;
    e->stream = s;
    e->began_ms = authority_mono_ms();
    LIST_INSERT_HEAD(&a->enrolling, e, link);
    fabric_stream_accept(s, &vtab, e);
}

void enroll_tick(struct authority *a)
{
    struct enrolling *e;
    struct enrolling *next;
    uint64_t now = authority_mono_ms();
    for (e = LIST_FIRST(&a->enrolling); e != NULL; e = next) {
        next = LIST_NEXT(e, link);
        if (!e->submitting && uuid_is_nil(&e->join_id) && e->stream != NULL &&
            now - e->began_ms > REQUEST_WITHIN_MS) {
            fabric_stream_reset(e->stream, -ERR_TIMEOUT);
            e->stream = NULL;
            forget(e);
        }
    }
}

void enroll_serve(struct authority *a)
{
    clock_serve(a);
    fabric_serve(a->cfg.fabric, &(struct fabric_service){.name = "enroll",
                                                         .flags = FABRIC_SVC_ENROLL,
                                                         .frame_max_bytes = 32768,
                                                         .data = a,
                                                         .stream = on_stream});
}

/* Calls were cancelled before, so nothing is submitting. */
void enroll_close(struct authority *a)
{
    while (!LIST_EMPTY(&a->enrolling)) {
        struct enrolling *e = LIST_FIRST(&a->enrolling);
        if (e->stream != NULL) {
            fabric_stream_close(e->stream);
        }
        e->submitting = false;
        forget(e);
    }
}
