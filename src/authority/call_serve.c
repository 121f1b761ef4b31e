/* What other authorities ask of the leader: the service "op". The other end of call.c's forwarding, and of
 * its question for an index to read at. */
#include "authority/authority_impl.h"

static void op_answered(void *data, int rc, struct blob doc)
{
    fabric_answer(data, rc, doc);
}

static void read_index_done(struct core_read *r, int rc, uint64_t index)
{
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 64);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_int(&w, &d, "index", (int64_t)index);
    mp_doc_end(&w, &d);
    fabric_answer(r->data, rc, buf_blob(&doc));
    buf_fini(&doc);
    free(r);
}

static void on_op(void *data, struct fabric_request *rq, struct blob body)
{
    struct authority *a = data;
    const struct fabric_peer *peer = fabric_request_peer(rq);
    struct op_request op;
    struct core_status s;
    if (a->closing) {
        fabric_answer(rq, -ERR_CLOSED, blob_of(NULL, 0));
        return;
    }
    int rc = msg_decode(&op_request_desc, MSG_LENIENT, body, &op);
    core_status_brief(a->core, &s);
    if (rc == 0 && s.role != CORE_LEADER) {
        rc = -ERR_NOT_LEADER; /* one hop only: no loops */
    }
    if (rc == 0 && (op.epoch == 0 ? EPOCH_FIRST : op.epoch) != authority_epoch(a)) {
        rc = -ERR_FENCED; /* an index of this history means nothing in another */
    }
    if (rc == 0 && !authority_knows(a, peer)) {
        rc = -ERR_DENIED; /* removed, or with a key that the state does not list */
        refused_peer(a, REFUSAL_SERVICE, peer, "op", rc);
    }
    if (rc != 0) {
        fabric_answer(rq, rc, blob_of(NULL, 0));
        return;
    }
    if (blob_equal(op.method, blob_str("read.index"))) {
        struct core_read *r = xcalloc(1, sizeof *r);
        r->data = rq;
        rc = core_read_index(a->core, r, read_index_done);
        if (rc != 0) {
            free(r);
            fabric_answer(rq, rc, blob_of(NULL, 0));
        }
        return;
    }
    char method[48];
    char kind[16];
    char id[128];
    (void)snprintf(method, sizeof method, "%.*s", (int)op.method.len, (const char *)op.method.data);
    (void)snprintf(kind, sizeof kind, "%.*s", (int)op.actor_kind.len,
                   (const char *)op.actor_kind.data);
    (void)snprintf(id, sizeof id, "%.*s", (int)op.actor_id.len, (const char *)op.actor_id.data);
    authority_call(a, &(struct authority_call){
                          .method = method,
                          .args = op.args,
                          .request_id = op.request_id,
                          .actor_kind = kind,
                          .actor_id = id,
                          .via = peer,
                          .dry_run = op.dry_run,
                          .timeout_ms = fabric_request_left_ms(rq),
                          .cb = op_answered,
                          .data = rq,
                      });
}

void call_serve(struct authority *a)
{
    fabric_serve(a->cfg.fabric,
                 &(struct fabric_service){
                     .name = "op", .flags = FABRIC_SVC_AUTHORITY, .data = a, .request = on_op});
}
