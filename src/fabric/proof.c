/* A session whose peer has to prove first that its key is that of the node it names (FABRIC_ADMIT_PROVE):
 *
 *   session_up -> proof_begin -> rpc "leaf" on that very session -> on_proof -> peer_session_up
 *                                   └ no answer in time, or no proof -> closed, noted as refused
 *
 * Until then the session is no peer's: nothing of ours is sent over it, datagrams are dropped, what the
 * peer asks for waits, unread, in a few streams, and it is in no list. Each end asks
 * for itself, or not. */
#include "fabric/fabric_impl.h"

#define PROOF_TIMEOUT_MS 3000
#define HELD_STREAMS_MAX 16 /* of a session; what one can hold is its first window */

static const char service_name[] = "leaf";

struct proof {
    struct fabric_call call;
    struct session *ss; /* NULL: it has ended */
};

static void on_leaf(void *data, struct fabric_request *rq, struct blob body)
{
    struct fabric *f = data;
    struct buf out;
    (void)body;
    buf_init(&out, FABRIC_PROOF_MAX);
    int rc = f->cfg.own_proof(f->cfg.data, &out);
    rc = rc == 0 ? out.err : rc;
    fabric_answer(rq, rc, rc == 0 ? buf_blob(&out) : blob_of(NULL, 0));
    buf_fini(&out);
}

void proof_init(struct fabric *f)
{
    if (f->cfg.own_proof != NULL) {
        fabric_serve(f, &(struct fabric_service){
                            .name = service_name,
                            .flags = FABRIC_SVC_UNPROVEN,
                            .answer_max_bytes = FABRIC_PROOF_MAX + RPC_ANSWER_PREFIX,
                            .data = f,
                            .request = on_leaf,
                        });
    }
}

static size_t count_held(const struct session *ss)
{
    size_t n = 0;
    for (struct link *l = ss->streams.next; l != &ss->streams; l = l->next) {
        n += container_of(l, struct fabric_stream, link)->held;
    }
    return n;
}

bool proof_holds(struct fabric_stream *s)
{
    struct frame_reader peek = s->rx;
    struct stream_header h;
    struct blob frame;
    if (s->state != STREAM_HEADER || s->ss == NULL || !s->ss->unproven ||
        frame_reader_next(&peek, &frame) != 1 ||
        msg_decode(&stream_header_desc, MSG_LENIENT, frame, &h) != 0) {
        return false; /* no service is reached without a header */
    }
    const struct fabric_service *svc = fabric_service_find(s->f, h.service);
    if (svc != NULL && (svc->flags & FABRIC_SVC_UNPROVEN) != 0) {
        return false;
    }
    if (!s->held && count_held(s->ss) == HELD_STREAMS_MAX) {
        stream_refuse(s, -ERR_BUSY);
        return false;
    }
    s->held = true;
    return true;
}

static void admit(struct session *ss)
{
    ss->unproven = false;
    for (struct link *l = ss->streams.next; l != &ss->streams; l = l->next) {
        event_post(ss->f, &container_of(l, struct fabric_stream, link)->event);
    }
    peer_session_up(ss);
}

static void on_proof(struct fabric_call *call, int rc, struct blob body)
{
    struct proof *p = call->data;
    struct session *ss = p->ss;
    struct errmsg em = ERRMSG_INIT;
    free(p);
    if (ss == NULL) {
        return;
    }
    ss->proof = NULL;
    struct fabric *f = ss->f;
    rc = f->cfg.prove(f->cfg.data, &ss->who.identity, rc, body, &em);
    if (rc == 0) {
        admit(ss);
        return;
    }
    tls_log_refusal(ss, rc, em.text);
    if (!ss->dialled) {
        fabric_note_refusal(f, &ss->who, rc, blob_str(""));
    }
    session_close(ss, FABRIC_CLOSE_UNPROVEN, rc);
}

void proof_begin(struct session *ss)
{
    CHECK(ss->f->cfg.prove != NULL);
    ss->proof = xcalloc(1, sizeof *ss->proof);
    ss->proof->ss = ss;
    ss->proof->call.data = ss->proof;
    rpc_call_on(ss, &ss->proof->call, service_name, FABRIC_PROOF_MAX, PROOF_TIMEOUT_MS, on_proof);
}

void proof_gone(struct session *ss)
{
    if (ss->proof != NULL) {
        ss->proof->ss = NULL;
        ss->proof = NULL;
    }
}
