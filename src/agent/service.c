/* The rpc "issuer": an authority asks this node to become one too (wire/node_msg.h). */
#include "agent/agent_impl.h"
#include "agent/issuer.h"
#include "base/clock.h"

int64_t agent_leaf_life_ms(const struct agent *a)
{
    return a->snapshot == NULL ? 0 : a->snapshot->body.leaf_life_ms;
}

static int install(struct agent *a, struct blob issuer_der, struct buf *ret_leaf, struct errmsg *em)
{
    bool changed = false;
    const struct issuer_time time = {.now_ms = clock_wall_ms(),
                                     .leaf_life_ms = agent_leaf_life_ms(a)};
    int rc = issuer_install(a->member, a->cfg.trust, issuer_der, &time, &changed, ret_leaf, em);
    return rc == 0 && changed ? agent_load_identity(a, em) : rc;
}

int agent_install_issuer(struct agent *a, struct blob issuer_der, struct errmsg *em)
{
    struct buf leaf;
    buf_init(&leaf, CERT_DER_MAX);
    int rc = a->closing ? -ERR_CANCELED : install(a, issuer_der, &leaf, em);
    buf_fini(&leaf);
    return rc;
}

static int handle(struct agent *a, struct blob body, struct buf *out, struct errmsg *em)
{
    struct issuer_request rq;
    struct issuer_answer answer = {.csr = blob_of(NULL, 0)};
    struct buf made;
    int rc = msg_decode(&issuer_request_desc, MSG_LENIENT, body, &rq);
    if (rc != 0) {
        return errmsg_set(em, rc, "issuer request does not decode");
    }
    buf_init(&made, CERT_DER_MAX);
    if (rq.step == ISSUER_PREPARE) {
        rc = issuer_prepare(a->member, &made, em);
        answer.csr = buf_blob(&made);
    } else if (rq.step == ISSUER_INSTALL) {
        struct pki_cert before = a->leaf;
        rc = install(a, rq.issuer, &made, em);
        answer.leaf = buf_blob(&made);
        if (rc == 0 && memcmp(before.serial, a->leaf.serial, sizeof before.serial) != 0) {
            a->authority_news = true;
            agent_wake(a);
        }
    } else {
        rc = errmsg_set(em, -ERR_UNSUPPORTED, "unknown issuer step %llu",
                        (unsigned long long)rq.step);
    }
    if (rc == 0) {
        msg_encode(&issuer_answer_desc, &answer, out);
        rc = out->err;
    }
    buf_fini(&made);
    return rc;
}

static void on_request(void *data, struct fabric_request *rq, struct blob body)
{
    struct agent *a = data;
    struct errmsg em = ERRMSG_INIT;
    if (a->closing) {
        fabric_answer(rq, -ERR_CANCELED, blob_of(NULL, 0));
        return;
    }
    const struct fabric_peer *peer = fabric_request_peer(rq);
    char id[UUID_TEXT_MAX];
    uuid_format(&peer->identity.node_id, id);
    struct buf out;
    buf_init(&out, RPC_FRAME_MAX);
    int rc = handle(a, body, &out, &em);
    if (rc == 0) {
        log_info(LOG_AGENT, "issuer request answered", "from=%s", id);
        fabric_answer(rq, 0, buf_blob(&out));
    } else {
        static struct log_limit limit;
        if (log_allow(&limit, 10)) {
            log_warn(LOG_AGENT, "issuer request refused", "from=%s error=%s why=\"%s\"", id,
                     err_slug(rc), em.text);
        }
        buf_clear(&out);
        struct mp_writer w;
        struct mp_doc doc;
        mp_writer_init(&w, &out);
        mp_doc_begin(&w, &doc);
        mp_doc_str(&w, &doc, "detail", em.text);
        mp_doc_end(&w, &doc);
        fabric_answer(rq, rc, buf_blob(&out));
    }
    buf_fini(&out);
}

void service_open(struct agent *a)
{
    const struct fabric_service svc = {
        .name = "issuer",
        .flags = FABRIC_SVC_AUTHORITY,
        .data = a,
        .request = on_request,
    };
    fabric_serve(a->fabric, &svc);
}
