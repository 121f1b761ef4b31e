/* Adding, removing and handing over to authorities. The root key never comes here: the owner signs
 * the new authority's issuing CA on the command line, from the request its node made (DESIGN D7). */
#include "authority/call_impl.h"

#include "authority/split.h"
#include "base/log.h"
#include "base/text.h"

#include <netdb.h>

/* --- authority.prepare: the node makes its issuing key and asks for a CA certificate --- */

static void node_doc(struct authority *a, const struct uuid *id, const char *key, char *out,
                     size_t size)
{
    char text[UUID_TEXT_MAX];
    struct buf doc;
    struct mp_writer w;
    uuid_format(id, text);
    buf_init(&doc, RPC_FRAME_MAX);
    mp_writer_init(&w, &doc);
    out[0] = '\0';
    if (query_run(a->fsm, "nodes", &(struct query_args){.id = text}, &w, NULL) == 0) {
        mp_find_str(buf_blob(&doc), key, out, size);
    }
    buf_fini(&doc);
}

static void prepared(struct fabric_call *call, int rc, struct blob body)
{
    struct pending_call *pc = call->data;
    struct issuer_answer answer;
    struct errmsg em = ERRMSG_INIT;
    if (call_returned(pc)) {
        return;
    }
    if (rc == 0) {
        rc = msg_decode(&issuer_answer_desc, MSG_LENIENT, body, &answer);
    }
    if (rc != 0) {
        (void)errmsg_set(&em, rc, "the node did not answer: is `rap agent run` running there? (%s)",
                         err_text(rc));
        call_answer_text(pc, rc, &em);
        return;
    }
    char name[NAME_MAX_BYTES + 1];
    char address[ADDRESS_MAX_BYTES + 1];
    node_doc(pc->a, &pc->node_id, "name", name, sizeof name);
    node_doc(pc->a, &pc->node_id, "address", address, sizeof address);
    struct core_status status;
    core_status_brief(pc->a->core, &status);
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 8192);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_uuid(&w, &d, "node_id", &pc->node_id);
    mp_doc_uuid(&w, &d, "cluster_id", &pc->a->cfg.cluster_id);
    mp_doc_str(&w, &d, "name", name);
    mp_doc_str(&w, &d, "address", address);
    mp_doc_hex(&w, &d, "csr", answer.csr);
    mp_doc_int(&w, &d, "voters", status.voters);
    mp_doc_int(&w, &d, "tolerates", status.voters == 0 ? 0 : (status.voters - 1) / 2);
    mp_doc_end(&w, &d);
    call_answer(pc, 0, buf_blob(&doc));
    buf_fini(&doc);
}

/* A question to the node, which may first need its address looked up:
 *
 *   ask_node ── connected or numeric ──────────────────────> call_rpc
 *      └ a name ─> uv_getaddrinfo (pool) ─> on_looked_up ─> call_rpc, or the call ends with the error
 *
 * The look-up is the call's outstanding operation; one that was answered meanwhile is left alone. */
struct question {
    uv_getaddrinfo_t req;
    struct pending_call *pc;
    struct buf body;
    fabric_call_cb cb;
};

static void question_free(struct question *q)
{
    buf_fini(&q->body);
    free(q);
}

static int put_question(struct question *q, struct errmsg *em)
{
    int rc = call_rpc(q->pc, &q->pc->node_id, "issuer", buf_blob(&q->body), q->cb);
    return rc == 0 ? 0 : errmsg_set(em, rc, "cannot ask the node: %s", err_text(rc));
}

static void on_looked_up(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct question *q = container_of(req, struct question, req);
    struct pending_call *pc = q->pc;
    struct errmsg em = ERRMSG_INIT;
    if (!call_returned(pc)) {
        int rc = -ERR_UNREACHABLE;
        struct addr addr;
        if (status == 0 && list->ai_addrlen <= sizeof addr.ss) {
            addr = (struct addr){.len = list->ai_addrlen};
            memcpy(&addr.ss, list->ai_addr, list->ai_addrlen);
            fabric_peer_set(pc->a->cfg.fabric, &pc->node_id, &addr, 1);
            rc = put_question(q, &em);
        } else {
            (void)errmsg_set(&em, rc, "the node's address does not resolve: %s",
                             uv_strerror(status));
        }
        if (rc != 0) {
            call_answer_text(pc, rc, &em);
        }
    }
    uv_freeaddrinfo(list);
    question_free(q);
}

static int look_up(struct question *q, const char *address, struct errmsg *em)
{
    char host[ADDRESS_MAX_BYTES + 1];
    const struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
    (void)snprintf(host, sizeof host, "%s", address);
    char *port = strrchr(host, ':');
    if (port == NULL) {
        return errmsg_set(em, -ERR_INVALID, "the node's address \"%s\" has no port", address);
    }
    *port++ = '\0';
    int rv = uv_getaddrinfo(q->pc->a->cfg.loop, &q->req, on_looked_up, host, port, &hints);
    if (rv != 0) {
        return errmsg_set(em, -ERR_UNREACHABLE, "the node's address: %s", uv_strerror(rv));
    }
    q->pc->outstanding = true;
    return 0;
}

static int ask_node(struct pending_call *pc, const struct issuer_request *rq, fabric_call_cb cb,
                    struct errmsg *em)
{
    char text[ADDRESS_MAX_BYTES + 1];
    struct addr addr;
    struct fabric *f = pc->a->cfg.fabric;
    struct question *q = xcalloc(1, sizeof *q);
    q->pc = pc;
    q->cb = cb;
    buf_init(&q->body, RPC_FRAME_MAX);
    msg_encode(&issuer_request_desc, rq, &q->body);
    pc->state = CALL_ASK_NODE;
    node_doc(pc->a, &pc->node_id, "address", text, sizeof text);
    bool numeric = addr_parse(text, &addr, NULL) == 0;
    if (!numeric && !fabric_peer_connected(f, &pc->node_id)) {
        int rc = look_up(q, text, em);
        if (rc != 0) {
            question_free(q);
        }
        return rc;
    }
    if (numeric) {
        fabric_peer_set(f, &pc->node_id, &addr, 1);
    }
    int rc = put_question(q, em);
    question_free(q);
    return rc;
}

/* --- authority.add: the owner has signed; the node installs, and the group decides --- */

static void issuer_arg(const struct pending_call *pc, struct buf *out)
{
    char hex[2 * CERT_DER_MAX + 1];
    uint8_t der[CERT_DER_MAX];
    mp_find_str(buf_blob(&pc->args), "issuer", hex, sizeof hex);
    size_t n = strlen(hex) / 2;
    if (hex_decode(hex, der, n) == 0) {
        buf_add(out, der, n);
    }
}

static int check_chain(struct authority *a, const struct uuid *node_id, struct blob leaf,
                       struct blob issuer, struct cmd_cert *ret_cert, struct pki_cert *ret_leaf,
                       struct pki_cert *ret_issuer, struct errmsg *em)
{
    struct blob chain[] = {leaf, issuer};
    struct pki_identity id;
    int rc = pki_chain_verify(a->cfg.trust, chain, 2, authority_now_ms(a), &id, em);
    if (rc == 0 && (!id.authority || !uuid_equal(&id.node_id, node_id))) {
        rc = errmsg_set(em, -ERR_BAD_CERT, "the certificate does not make this node an authority");
    }
    if (rc == 0) {
        rc = pki_cert_parse(leaf, ret_leaf, em);
    }
    if (rc == 0) {
        rc = pki_cert_parse(issuer, ret_issuer, em);
    }
    if (rc == 0) {
        *ret_cert = (struct cmd_cert){
            .der = leaf,
            .serial = blob_of(ret_leaf->serial, PKI_SERIAL_BYTES),
            .not_before_ms = ret_leaf->not_before_ms,
            .not_after_ms = ret_leaf->not_after_ms,
            .public_key = blob_of(ret_leaf->public_key, PKI_KEY_BYTES),
            .fingerprint = blob_of(ret_leaf->fingerprint, PKI_HASH_BYTES),
            .issuer_der = issuer,
        };
    }
    return rc;
}

static void installed(struct fabric_call *call, int rc, struct blob body)
{
    struct pending_call *pc = call->data;
    struct authority *a = pc->a;
    struct issuer_answer answer;
    struct errmsg em = ERRMSG_INIT;
    if (call_returned(pc)) {
        return;
    }
    if (rc == 0) {
        rc = msg_decode(&issuer_answer_desc, MSG_LENIENT, body, &answer);
    }
    if (rc != 0) {
        (void)errmsg_set(&em, rc, "the node did not install the certificate: %s", err_text(rc));
        call_answer_text(pc, rc, &em);
        return;
    }
    struct buf issuer;
    struct buf cert_bytes;
    struct buf args;
    struct cmd_cert cert;
    struct pki_cert leaf_info;
    struct pki_cert issuer_info;
    buf_init(&issuer, CERT_DER_MAX);
    buf_init(&cert_bytes, CMD_CERT_MAX);
    buf_init(&args, CMD_BODY_MAX);
    issuer_arg(pc, &issuer);
    rc = check_chain(a, &pc->node_id, answer.leaf, buf_blob(&issuer), &cert, &leaf_info,
                     &issuer_info, &em);
    if (rc != 0) {
        call_answer_text(pc, rc, &em);
        goto out;
    }
    char address[ADDRESS_MAX_BYTES + 1];
    node_doc(a, &pc->node_id, "address", address, sizeof address);
    msg_encode(&cmd_cert_desc, &cert, &cert_bytes);
    struct authority_add add = {
        .node_id = pc->node_id,
        .address = blob_str(address),
        .issuer_der = buf_blob(&issuer),
        .issuer_fingerprint = blob_of(issuer_info.fingerprint, PKI_HASH_BYTES),
        .cert = buf_blob(&cert_bytes),
    };
    msg_encode(&authority_add_desc, &add, &args);
    /* The owner's key signed this, whoever typed the command. */
    (void)snprintf(pc->actor_kind, sizeof pc->actor_kind, "%s", ACTOR_OWNER);
    struct blob view = buf_blob(&args);
    call_execute(pc, "authority.commit", &view);
out:
    buf_fini(&issuer);
    buf_fini(&cert_bytes);
    buf_fini(&args);
}

static int begin_add(struct pending_call *pc, struct errmsg *em)
{
    struct buf issuer;
    struct pki_cert info;
    buf_init(&issuer, CERT_DER_MAX);
    issuer_arg(pc, &issuer);
    int rc = pki_cert_parse(buf_blob(&issuer), &info, em);
    if (rc == 0 && (info.kind != PKI_ISSUER || !uuid_equal(&info.node_id, &pc->node_id) ||
                    !uuid_equal(&info.cluster_id, &pc->a->cfg.cluster_id))) {
        rc = errmsg_set(em, -ERR_BAD_CERT, "the CA certificate is not for this node and cluster");
    }
    if (rc == 0) {
        struct issuer_request rq = {.step = ISSUER_INSTALL, .issuer = buf_blob(&issuer)};
        rc = ask_node(pc, &rq, installed, em);
    } else {
        (void)errmsg_wrap(em, rc, "issuer");
    }
    buf_fini(&issuer);
    return rc;
}

/* --- authority.remove, authority.transfer --- */

static void transferred(void *data, int rc)
{
    (void)data;
    if (rc != 0) {
        log_warn(LOG_AUTHORITY, "leadership transfer failed", "error=%s", err_slug(rc));
    } else {
        log_info(LOG_AUTHORITY, "leadership transferred",
                 "why=\"this authority is to vote no more\"");
    }
}

/* A step back that nobody asked for in so many words: three that survive one loss become two that survive none.
 * Taking out one that is dead costs nothing. */
static int check_quorum(const struct pending_call *pc, struct errmsg *em)
{
    struct quorum_step q;
    char force[8];
    enum quorum_verdict verdict = members_judge(pc->a, core_raft_id(&pc->node_id), &q);
    if (q.after.voters == 0) {
        return errmsg_set(em, -ERR_LAST_VOTER,
                          "this is the last voter: add another authority first");
    }
    if (verdict == QUORUM_LOST) {
        return errmsg_set(em, -ERR_LAST_VOTER,
                          "only %u of the %u voters that would be left can be reached: bring one "
                          "back first",
                          q.after.live, q.after.voters);
    }
    mp_find_str(buf_blob(&pc->args), "force", force, sizeof force);
    if (verdict == QUORUM_SAFE || strcmp(force, "true") == 0) {
        return 0;
    }
    if (q.after.slack < q.now.slack) {
        return errmsg_set(
            em, -ERR_LAST_VOTER,
            "%u authorities would be left, of which %d more may be lost instead of %d: add "
            "another one first, or give --force",
            q.after.voters, q.after.slack, q.now.slack);
    }
    return errmsg_set(
        em, -ERR_LAST_VOTER,
        "%u more %s to vote and %s not there yet (joining, healing or promoted): if it "
        "does not come, only %u of %u would be left: wait until `rap authority list` "
        "shows all of them as voters, or give --force",
        q.coming, q.coming == 1 ? "authority is" : "authorities are", q.coming == 1 ? "is" : "are",
        q.expected_after.live, q.expected_after.voters);
}

static int begin_remove(struct pending_call *pc, struct errmsg *em)
{
    struct authority *a = pc->a;
    int rc = check_quorum(pc, em);
    if (rc != 0) {
        return rc;
    }
    /* The authority set shrinks by the signatures of more than half of it, which whoever is removed does
     * not give any more (decision 0008): of two, one is not enough. */
    const struct witness_set *set = fsm_authority_set(a->fsm);
    if (witness_set_find(set, &pc->node_id) != NULL && set->count - 1 < witness_majority(set)) {
        return errmsg_set(em, -ERR_LAST_VOTER,
                          "%zu authorities vouch for each other and one of them cannot shrink the "
                          "set: add another first, then remove this one; if its host is lost, use "
                          "`rap authority recover`",
                          set->count);
    }
    if (uuid_equal(&pc->node_id, &a->cfg.node_id) && !pc->dry_run) {
        /* The group keeps a leader throughout: hand over, and let the caller's retry find it. */
        rc = core_transfer(a->core, 0, transferred, NULL);
        return errmsg_set(em, rc == 0 ? -ERR_NOT_LEADER : rc,
                          "handing leadership over before this authority is removed");
    }
    call_execute(pc, "authority.remove", NULL);
    return 0;
}

static int begin_demote(struct pending_call *pc, struct errmsg *em)
{
    struct authority *a = pc->a;
    int rc = check_quorum(pc, em);
    if (rc == 0 && uuid_equal(&pc->node_id, &a->cfg.node_id) && !pc->dry_run) {
        rc = core_transfer(a->core, 0, transferred, NULL);
        return errmsg_set(em, rc == 0 ? -ERR_NOT_LEADER : rc,
                          "handing leadership over before this authority is demoted");
    }
    if (rc == 0) {
        call_execute(pc, "authority.demote", NULL);
    }
    return rc;
}

static void answer_leader(struct pending_call *pc)
{
    struct core_status s;
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    core_status(pc->a->core, &s);
    const struct uuid *leader = s.leader == 0 ? NULL : raft_net_node(pc->a, s.leader);
    buf_init(&doc, 512);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_uuid(&w, &d, "leader", leader == NULL ? &UUID_NIL : leader);
    mp_doc_int(&w, &d, "term", (int64_t)s.term);
    mp_doc_end(&w, &d);
    call_answer(pc, 0, buf_blob(&doc));
    buf_fini(&doc);
}

static void transfer_done(void *data, int rc)
{
    struct pending_call *pc = data;
    struct errmsg em = ERRMSG_INIT;
    if (call_returned(pc)) {
        return;
    }
    if (rc == 0) {
        answer_leader(pc);
    } else {
        (void)errmsg_set(&em, rc, "leadership was not handed over: %s", err_text(rc));
        call_answer_text(pc, rc, &em);
    }
}

static int begin_transfer(struct pending_call *pc, struct errmsg *em)
{
    raft_id to = uuid_is_nil(&pc->node_id) ? 0 : core_raft_id(&pc->node_id);
    if (to == core_raft_id(&pc->a->cfg.node_id)) {
        answer_leader(pc); /* it leads already: what was asked for holds */
        return 0;
    }
    pc->state = CALL_ASK_NODE;
    pc->outstanding = true;
    int rc = core_transfer(pc->a->core, to, transfer_done, pc);
    if (rc != 0) {
        pc->outstanding = false;
        return errmsg_set(em, rc, "cannot hand leadership over: %s", err_text(rc));
    }
    return 0;
}

/* Who is about to leave does not begin to decide here: it could not leave then. */
static int refuse_leaving(struct authority *a, const struct uuid *node_id, struct errmsg *em)
{
    char id[UUID_TEXT_MAX], name[NAME_MAX_BYTES + 1];
    struct split s;
    if (fsm_level(a->fsm) < LEVEL_SPLITS) {
        return 0;
    }
    uuid_format(node_id, id);
    int rc = split_of_node(state_db(a), id, &s);
    if (rc <= 0) {
        return rc;
    }
    (void)fsm_node_name(state_db(a), id, name);
    return errmsg_set(
        em, -ERR_CONFLICT,
        "node %s is to leave for %s: choose another, or give that up with `rap split cancel %s`",
        name, s.name, s.name);
}

int authority_op_prepare(struct authority *a, struct pending_call *pc, struct errmsg *em)
{
    char id[128];
    mp_find_str(buf_blob(&pc->args), "id", id, sizeof id);
    bool transfer = strcmp(pc->method, "authority.transfer") == 0;
    bool remove = strcmp(pc->method, "authority.remove") == 0;
    bool demote = strcmp(pc->method, "authority.demote") == 0;
    int rc = 0;
    pc->node_id = UUID_NIL;
    if (!transfer || id[0] != '\0') {
        rc = op_resolve(a, transfer || remove || demote ? "authorities" : "nodes", id, &pc->node_id,
                        em);
    }
    if (rc != 0) {
        return rc;
    }
    if (transfer) {
        return begin_transfer(pc, em);
    }
    if (remove) {
        return begin_remove(pc, em);
    }
    if (demote) {
        return begin_demote(pc, em);
    }
    rc = refuse_leaving(a, &pc->node_id, em);
    if (rc != 0) {
        return rc;
    }
    if (strcmp(pc->method, "authority.prepare") == 0) {
        return ask_node(pc, &(struct issuer_request){.step = ISSUER_PREPARE}, prepared, em);
    }
    return begin_add(pc, em);
}
