/* Forgeries that nodes were shown and refused (decision 0008), as they report them: each becomes an
 * audited command, at a bounded rate. */
#include "authority/authority_impl.h"

#define REPORTS_PER_MINUTE 60
#define RECENT_MS (24LL * 3600 * 1000)

static bool may_report(struct authority *a)
{
    int64_t now_ms = authority_now_ms(a);
    if (now_ms - a->forgery_window_ms >= 60000 || now_ms < a->forgery_window_ms) {
        a->forgery_window_ms = now_ms;
        a->forgery_budget = REPORTS_PER_MINUTE;
    }
    if (a->forgery_budget == 0) {
        return false;
    }
    a->forgery_budget--;
    return true;
}

static int propose(struct authority *a, const struct forgery_report *r, authority_call_cb cb,
                   void *data)
{
    char actor[UUID_TEXT_MAX];
    struct buf args;
    if (!may_report(a)) {
        return -ERR_BUSY;
    }
    uuid_format(&r->node_id, actor);
    const struct forgery_reported body = {
        .node_id = r->node_id,
        .kind = r->kind,
        .error = r->error,
        .detail = r->detail,
        .offender_id = r->offender_id,
        .offender_fingerprint = r->offender_fingerprint,
        .evidence = r->evidence,
        .seen_at_ms = r->seen_at_ms,
    };
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&forgery_reported_desc, &body, &args);
    int rc = args.err;
    if (rc == 0) {
        call_internal(a, "node.forgery", buf_blob(&args), &r->request_id, ACTOR_NODE, actor, cb,
                      data);
    }
    buf_fini(&args);
    return rc;
}

static void told(void *data, int rc, struct blob doc)
{
    (void)doc;
    fabric_answer(data, rc, blob_of(NULL, 0));
}

static void on_report(void *data, struct fabric_request *rq, struct blob body)
{
    struct authority *a = data;
    struct forgery_report r;
    int rc = a->closing ? -ERR_CLOSED : msg_decode(&forgery_report_desc, MSG_LENIENT, body, &r);
    if (rc == 0 && !authority_knows(a, fabric_request_peer(rq))) {
        rc = -ERR_DENIED;
    }
    if (rc == 0) {
        r.node_id = fabric_request_peer(rq)->identity.node_id;
        rc = propose(a, &r, told, rq);
    }
    if (rc != 0) {
        fabric_answer(rq, rc, blob_of(NULL, 0));
    }
}

static void noted(void *data, int rc, struct blob doc)
{
    (void)data;
    (void)rc; /* it is in this node's log */
    (void)doc;
}

void authority_forgery(struct authority *a, struct blob report)
{
    struct forgery_report r;
    if (!a->closing && msg_decode(&forgery_report_desc, MSG_LENIENT, report, &r) == 0) {
        (void)propose(a, &r, noted, NULL);
    }
}

uint64_t forgery_count(const struct authority *a)
{
    if (fsm_level(a->fsm) < LEVEL_WITNESS) {
        return 0;
    }
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT count(*) AS n FROM cluster_audit_events"
                                    " WHERE event_type = 'forgery_reported' AND created_at > ?");
    db_bind_int(st, authority_now_ms(a) - RECENT_MS);
    uint64_t n = db_step(st) == 1 ? (uint64_t)db_col_int(st, "n") : 0;
    db_done(st);
    return n;
}

void forgery_serve(struct authority *a)
{
    fabric_serve(a->cfg.fabric,
                 &(struct fabric_service){.name = "report", .data = a, .request = on_report});
}
