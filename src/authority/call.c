/* Calls: reads that are linearizable unless the caller accepts stale ones, mutations executed by the
 * leader and forwarded to it by everybody else. */
#include "authority/call_impl.h"

#include "base/log.h"
#include "base/rng.h"

#define CALL_TIMEOUT_MS 10000

static void begin(struct pending_call *pc);

/* --- answering --- */

/* What was prepared for one attempt says nothing about the next. */
static void forget_prepared(struct op_prepared *p)
{
    buf_fini(&p->body);
    buf_wipe(&p->extra); /* it may be a secret: a new token */
    buf_fini(&p->more);
}

static void begin_prepared(struct op_prepared *p)
{
    forget_prepared(p);
    buf_init(&p->body, CMD_BODY_MAX);
    buf_init(&p->extra, CALL_DOC_MAX);
    buf_init(&p->more, CALL_DOC_MAX);
}

static void release(struct pending_call *pc)
{
    if (!pc->answered || pc->outstanding) {
        return;
    }
    buf_wipe(&pc->args);
    forget_prepared(&pc->prep);
    free(pc);
}

void call_answer(struct pending_call *pc, int rc, struct blob doc)
{
    CHECK(!pc->answered);
    split_try_note(pc, rc, doc);
    LIST_REMOVE(pc, link); /* what is still outstanding may come back when the authority is gone */
    pc->answered = true;
    pc->state = CALL_DONE;
    pc->cb(pc->data, rc, doc);
    release(pc);
}

static void note_refused(struct pending_call *pc, int rc, const char *detail)
{
    const struct op_input in = {.args = buf_blob(&pc->args),
                                .method = pc->method,
                                .actor_kind = pc->actor_kind,
                                .actor_id = pc->actor_id};
    if (!pc->dry_run) {
        refused_call(pc->a, &in, rc, detail);
    }
}

void call_answer_text(struct pending_call *pc, int rc, const struct errmsg *em)
{
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    note_refused(pc, rc, em->text);
    buf_init(&doc, CALL_DOC_MAX);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_str(&w, &d, "detail", em->text[0] != '\0' ? em->text : err_text(rc));
    if (pc->prep.more.len > 0) {
        mp_doc_copy(&w, &d, buf_blob(&pc->prep.more));
    }
    mp_doc_end(&w, &d);
    call_answer(pc, rc, buf_blob(&doc));
    buf_fini(&doc);
}

void call_answer_made(struct pending_call *pc,
                      int (*make)(struct pending_call *pc, struct buf *out, struct errmsg *em))
{
    struct buf doc;
    struct errmsg em = ERRMSG_INIT;
    buf_init(&doc, CALL_DOC_MAX);
    int rc = make(pc, &doc, &em);
    if (rc == 0) {
        call_answer(pc, 0, buf_blob(&doc));
    } else {
        call_answer_text(pc, rc, &em);
    }
    buf_fini(&doc);
}

bool call_returned(struct pending_call *pc)
{
    pc->outstanding = false;
    if (pc->answered) {
        release(pc);
        return true;
    }
    return false;
}

void call_no_quorum_doc(const struct authority *a, const char *outcome, struct buf *out)
{
    struct core_status s;
    core_status_brief(a->core, &s);
    struct mp_writer w;
    struct mp_doc d;
    mp_writer_init(&w, out);
    mp_doc_begin(&w, &d);
    mp_doc_int(&w, &d, "epoch", (int64_t)authority_epoch(a));
    mp_doc_int(&w, &d, "term", (int64_t)s.term);
    mp_doc_int(&w, &d, "seen", s.seen);
    mp_doc_int(&w, &d, "needed", s.needed);
    mp_doc_str(&w, &d, "outcome", outcome);
    mp_doc_str(&w, &d, "detail",
               strcmp(outcome, "none") == 0
                   ? "no majority of the authority can be reached: nothing was decided and nothing "
                     "is queued; reads still work with --stale"
                   : "the majority was lost while this was being decided: repeat with the same "
                     "idempotency key to learn the outcome");
    mp_doc_end(&w, &d);
}

static void answer_fenced(struct pending_call *pc)
{
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 4096);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_int(&w, &d, "epoch", (int64_t)pc->a->fence.epoch);
    mp_doc_str(&w, &d, "outcome", pc->maybe_done ? "unknown" : "none");
    mp_doc_str(&w, &d, "detail",
               "this authority is fenced: the owner let the cluster go on in a higher epoch "
               "without it. Ask another authority; `rap partition divergence` shows what this one "
               "decided apart");
    mp_doc_end(&w, &d);
    call_answer(pc, -ERR_FENCED, buf_blob(&doc));
    buf_fini(&doc);
}

static void answer_no_quorum(struct pending_call *pc)
{
    struct buf doc;
    if (pc->a->fence.fenced) {
        answer_fenced(pc);
        return;
    }
    buf_init(&doc, 4096);
    call_no_quorum_doc(pc->a, pc->maybe_done ? "unknown" : "none", &doc);
    call_answer(pc, -ERR_NO_QUORUM, buf_blob(&doc));
    buf_fini(&doc);
}

/* Elections take one to two timeouts: a caller who comes in the middle of one is not sent away. */
static void wait_leader(struct pending_call *pc)
{
    pc->state = CALL_WAIT_LEADER;
    pc->leader_by_ms = authority_mono_ms() + 3ull * pc->a->cfg.election_ms;
}

static void read_ready(struct core_read *r, int rc, uint64_t index)
{
    (void)index;
    struct pending_call *pc = r->data;
    if (call_returned(pc)) {
        return;
    }
    if (rc == 0) {
        call_answer_read(pc);
    } else if (rc == -ERR_CANCELED) {
        call_answer(pc, rc, blob_of(NULL, 0));
    } else {
        wait_leader(pc);
    }
}

static void read_index_answered(struct fabric_call *call, int rc, struct blob body)
{
    struct pending_call *pc = call->data;
    if (call_returned(pc)) {
        return;
    }
    if (rc != 0) {
        wait_leader(pc);
        return;
    }
    pc->state = CALL_WAIT_APPLIED;
    pc->read = (struct core_read){.data = pc};
    rc = core_wait_applied(pc->a->core, &pc->read, (uint64_t)mp_find_int(body, "index"),
                           read_ready);
    if (rc != 0) {
        answer_no_quorum(pc);
        return;
    }
    pc->outstanding = true;
}

/* --- forwarding --- */

int call_rpc(struct pending_call *pc, const struct uuid *to, const char *service, struct blob body,
             fabric_call_cb cb)
{
    uint64_t now = authority_mono_ms();
    uint64_t left = pc->deadline_ms > now ? pc->deadline_ms - now : 1;
    uint64_t most = call_is_mirror(pc->method) ? UINT32_MAX : FORWARD_TIMEOUT_MS;
    pc->rpc = (struct fabric_call){.data = pc};
    int rc = fabric_call_start(pc->a->cfg.fabric, &pc->rpc, to, service, body,
                               (uint32_t)(left < most ? left : most), cb);
    pc->outstanding = rc == 0;
    return rc;
}

static int forward(struct pending_call *pc, const char *method, struct blob args, fabric_call_cb cb)
{
    struct core_status s;
    core_status_brief(pc->a->core, &s);
    const struct uuid *leader = s.leader == 0 ? NULL : raft_net_node(pc->a, s.leader);
    if (leader == NULL || !s.quorum || uuid_equal(leader, &pc->a->cfg.node_id)) {
        return -ERR_NO_QUORUM;
    }
    struct op_request rq = {
        .method = blob_str(method),
        .request_id = pc->request_id,
        .actor_kind = blob_str(pc->actor_kind),
        .actor_id = blob_str(pc->actor_id),
        .args = args,
        .dry_run = pc->dry_run,
        .epoch = authority_epoch(pc->a) > EPOCH_FIRST ? authority_epoch(pc->a) : 0,
    };
    struct buf body;
    buf_init(&body, RPC_FRAME_MAX);
    msg_encode(&op_request_desc, &rq, &body);
    pc->state = CALL_FORWARDED;
    pc->sent_to = s.leader;
    int rc = body.err != 0 ? body.err : call_rpc(pc, leader, "op", buf_blob(&body), cb);
    buf_fini(&body);
    return rc;
}

/* In a rolling upgrade a leader of the version before has never heard of the method, which is known
 * here or it would not have been passed on: that is not "not found" for whoever asks. */
static bool is_unknown_to_leader(int rc, struct blob refusal)
{
    static const char unknown[] = NO_METHOD_TEXT;
    char detail[64];
    mp_find_str(refusal, "detail", detail, sizeof detail);
    return rc == -ERR_NOT_FOUND && strncmp(detail, unknown, sizeof unknown - 1) == 0;
}

static void forwarded(struct fabric_call *call, int rc, struct blob body)
{
    struct pending_call *pc = call->data;
    if (call_returned(pc)) {
        return;
    }
    if (is_unknown_to_leader(rc, body)) {
        struct errmsg em = ERRMSG_INIT;
        (void)errmsg_set(
            &em, -ERR_UNSUPPORTED,
            "the leader runs an older version, which has no %s: upgrade every authority, "
            "then try again",
            pc->method);
        call_answer_text(pc, -ERR_UNSUPPORTED, &em);
        return;
    }
    switch (-rc) {
        case ERR_TIMEOUT:
        case ERR_CLOSED:
        case ERR_UNREACHABLE:
        case ERR_CANCELED:
        case ERR_OUTCOME_UNKNOWN:
            pc->maybe_done = true;
            wait_leader(pc);
            return;
        case ERR_NOT_LEADER:
            wait_leader(pc);
            return;
        default:
            call_answer(pc, rc, body);
            return;
    }
}

/* --- executing on the leader --- */

static void proposed(struct core_proposal *p, int rc, const struct fsm_result *result)
{
    struct pending_call *pc = p->data;
    if (call_returned(pc)) {
        return;
    }
    if (rc == -ERR_OUTCOME_UNKNOWN || rc == -ERR_NOT_LEADER) {
        pc->maybe_done = pc->maybe_done || rc == -ERR_OUTCOME_UNKNOWN;
        forget_prepared(&pc->prep);
        wait_leader(pc);
        return;
    }
    if (rc != 0 || result->rc != 0 || pc->prep.extra.len == 0 || result->replayed) {
        call_answer(pc, rc != 0 ? rc : result->rc, rc != 0 ? blob_of(NULL, 0) : result->doc);
        return;
    }
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, CALL_DOC_MAX);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_copy(&w, &d, result->doc);
    mp_doc_copy(&w, &d, buf_blob(&pc->prep.extra));
    mp_doc_end(&w, &d);
    call_answer(pc, 0, buf_blob(&doc));
    buf_wipe(&doc);
}

static void confirmed(struct core_read *r, int rc, uint64_t index)
{
    (void)index;
    struct pending_call *pc = r->data;
    if (call_returned(pc)) {
        return;
    }
    if (rc == 0) {
        pc->confirmed = true;
        begin(pc);
    } else if (rc == -ERR_CANCELED) {
        call_answer(pc, rc, blob_of(NULL, 0));
    } else {
        wait_leader(pc); /* the next leader is asked: nothing was proposed */
    }
}

void call_refuse(struct pending_call *pc, int rc, const struct errmsg *em)
{
    if (!pc->confirmed) {
        pc->read = (struct core_read){.data = pc};
        int rv = core_read_index(pc->a->core, &pc->read, confirmed);
        if (rv == 0) {
            pc->state = CALL_CONFIRM;
            pc->outstanding = true;
            return;
        }
        answer_no_quorum(pc);
        return;
    }
    call_answer_text(pc, rc, em);
}

static void answer_dry_run(struct pending_call *pc, const char *method)
{
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 4096);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_bool(&w, &d, "dry_run", true);
    mp_doc_str(&w, &d, "method", method);
    mp_doc_str(&w, &d, "command", cmd_kind_name(pc->prep.kind));
    mp_doc_end(&w, &d);
    call_answer(pc, 0, buf_blob(&doc));
    buf_fini(&doc);
}

bool call_answer_again(struct pending_call *pc)
{
    struct buf first;
    buf_init(&first, CALL_DOC_MAX);
    int rc;
    bool found = !pc->dry_run &&
                 fsm_find_result(pc->a->fsm, &pc->request_id,
                                 blob_of(pc->request_hash, sizeof pc->request_hash), &rc, &first);
    if (found && rc == -ERR_REUSED_ID) {
        note_refused(pc, rc, "the request id was used for another request");
    }
    if (found) {
        call_answer(pc, rc, buf_blob(&first));
    }
    buf_fini(&first);
    return found;
}

static void propose_prepared(struct pending_call *pc, const char *method);

void call_propose(struct pending_call *pc, uint64_t kind, const void *body)
{
    begin_prepared(&pc->prep);
    pc->prep.kind = kind;
    msg_encode(cmd_body_desc(kind), body, &pc->prep.body);
    if (pc->prep.body.err != 0) {
        call_answer(pc, pc->prep.body.err, blob_of(NULL, 0));
        return;
    }
    propose_prepared(pc, pc->method);
}

void call_execute(struct pending_call *pc, const char *method, const struct blob *args)
{
    struct authority *a = pc->a;
    struct errmsg em = ERRMSG_INIT;
    if (call_answer_again(pc)) {
        return;
    }
    struct op_input in = {
        .args = args != NULL ? *args : buf_blob(&pc->args),
        .method = method,
        .actor_kind = pc->actor_kind,
        .actor_id = pc->actor_id,
    };
    begin_prepared(&pc->prep);
    int rc = op_prepare(a, &in, &pc->prep, &em);
    if (rc != 0) {
        call_refuse(pc, rc, &em);
        return;
    }
    propose_prepared(pc, method);
}

static void propose_prepared(struct pending_call *pc, const char *method)
{
    struct authority *a = pc->a;
    int rc = cmd_body_check(pc->prep.kind, buf_blob(&pc->prep.body));
    if (rc != 0) {
        struct errmsg em = ERRMSG_INIT;
        rc = errmsg_set(&em, -ERR_INVALID, "a value that %s needs is missing, or one is malformed",
                        method);
        call_refuse(pc, rc, &em);
        return;
    }
    if (pc->dry_run) {
        answer_dry_run(pc, method);
        return;
    }
    struct fsm_position pos;
    fsm_position(a->fsm, &pos);
    int64_t now_ms = authority_now_ms(a);
    struct cmd cmd = {
        .kind = pc->prep.kind,
        .request_id = pc->request_id,
        .time_ms = now_ms > pos.time_ms ? now_ms : pos.time_ms,
        .actor_kind = blob_str(pc->actor_kind),
        .actor_id = blob_str(pc->actor_id),
        .body = buf_blob(&pc->prep.body),
        .request_hash = blob_of(pc->request_hash, sizeof pc->request_hash),
        .via = fsm_level(a->fsm) >= LEVEL_SIGNED ? pc->via.identity.node_id : UUID_NIL,
    };
    struct buf bytes;
    buf_init(&bytes, CMD_BODY_MAX + 1024);
    msg_encode(&cmd_desc, &cmd, &bytes);
    pc->proposal = (struct core_proposal){.data = pc};
    rc = bytes.err != 0 ? bytes.err
                        : core_propose(a->core, &pc->proposal, buf_blob(&bytes), proposed);
    buf_fini(&bytes);
    if (rc == -ERR_NO_QUORUM || rc == -ERR_FENCED) {
        answer_no_quorum(pc);
    } else if (rc != 0) {
        call_answer(pc, rc, blob_of(NULL, 0));
    } else {
        pc->state = CALL_PROPOSED;
        pc->outstanding = true;
    }
}

/* --- the start of a call --- */

static void begin_read(struct pending_call *pc, bool leader)
{
    pc->read = (struct core_read){.data = pc};
    int rc;
    if (leader) {
        pc->state = CALL_READ_INDEX;
        rc = core_read_index(pc->a->core, &pc->read, read_ready);
        pc->outstanding = rc == 0;
    } else {
        rc = forward(pc, "read.index", blob_of(NULL, 0), read_index_answered);
    }
    if (rc != 0) {
        wait_leader(pc);
    }
}

static void begin(struct pending_call *pc)
{
    struct authority *a = pc->a;
    struct core_status s;
    core_status_brief(a->core, &s);
    bool leader = s.role == CORE_LEADER;
    struct errmsg em = ERRMSG_INIT;

    const struct op_input in = {
        .method = pc->method, .actor_kind = pc->actor_kind, .actor_id = pc->actor_id};
    const struct uuid *via = pc->via.authenticated ? &pc->via.identity.node_id : NULL;
    int admitted = op_admits(&in, via, &em);
    if (admitted != 0) {
        if (via != NULL && admitted == -ERR_DENIED) {
            refused_forward(a, &pc->via, pc->method);
        }
        call_answer_text(pc, admitted, &em);
        return;
    }
    if (call_is_local(pc->method)) {
        call_local(pc);
        return;
    }
    if (a->fence.fenced) {
        answer_fenced(pc);
        return;
    }
    if (call_is_read(pc->method)) {
        if (pc->stale) {
            call_answer_read(pc);
        } else {
            begin_read(pc, leader);
        }
        return;
    }
    bool authority_call = strcmp(pc->method, "authority.prepare") == 0 ||
                          strcmp(pc->method, "authority.add") == 0 ||
                          strcmp(pc->method, "authority.remove") == 0 ||
                          strcmp(pc->method, "authority.demote") == 0 ||
                          strcmp(pc->method, "authority.transfer") == 0;
    bool mirror_call = call_is_mirror(pc->method);
    bool mesh_call = call_is_mesh(pc->method);
    bool split_report = call_is_split_report(pc->method);
    if ((mirror_call || mesh_call) && (leader || pc->stale)) {
        (mirror_call ? call_answer_mirror : call_answer_mesh)(pc);
        return;
    }
    if (split_report && leader) { /* what a leader without a majority sees is no report */
        (s.quorum ? call_answer_split_report : wait_leader)(pc);
        return;
    }
    if (!authority_call && !mirror_call && !mesh_call && !split_report &&
        trust_op_kind(pc->method) == 0 && !op_is_mutation(pc->method)) {
        (void)errmsg_set(&em, -ERR_NOT_FOUND, NO_METHOD_TEXT "%s", pc->method);
        call_answer_text(pc, -ERR_NOT_FOUND, &em);
        return;
    }
    if (!leader && op_is_for_leader(pc->method)) {
        /* We led when we asked for it; the next leader decides for itself. */
        call_answer(pc, -ERR_NOT_LEADER, blob_of(NULL, 0));
        return;
    }
    if (!leader) {
        if (forward(pc, pc->method, buf_blob(&pc->args), forwarded) != 0) {
            wait_leader(pc);
        }
        return;
    }
    if (trust_op_kind(pc->method) != 0) {
        int rc = trust_op_prepare(a, pc, &em);
        if (rc != 0) {
            call_refuse(pc, rc, &em);
        }
        return;
    }
    if (authority_call) {
        int rc = authority_op_prepare(a, pc, &em);
        if (rc != 0) {
            call_answer_text(pc, rc, &em);
        }
        return;
    }
    call_execute(pc, pc->method, NULL);
}

static void begin_deferred(void *arg)
{
    struct pending_call *pc = arg;
    if (!call_returned(pc)) {
        begin(pc);
    }
}

void authority_call(struct authority *a, const struct authority_call *call)
{
    struct pending_call *pc = xcalloc(1, sizeof *pc);
    pc->a = a;
    (void)snprintf(pc->method, sizeof pc->method, "%s", call->method);
    (void)snprintf(pc->actor_kind, sizeof pc->actor_kind, "%s", call->actor_kind);
    (void)snprintf(pc->actor_id, sizeof pc->actor_id, "%s", call->actor_id);
    buf_init(&pc->args, RPC_FRAME_MAX);
    buf_add(&pc->args, call->args.data, call->args.len);
    begin_prepared(&pc->prep);
    pc->request_id = uuid_is_nil(&call->request_id) ? uuid_new() : call->request_id;
    struct blob parts[] = {blob_str(pc->method), buf_blob(&pc->args)};
    pki_sha256_parts(parts, ARRAY_SIZE(parts), pc->request_hash);
    if (call->via != NULL) {
        pc->via = *call->via;
    }
    pc->stale = call->stale;
    pc->dry_run = call->dry_run;
    uint32_t timeout_ms = call->timeout_ms == 0 ? CALL_TIMEOUT_MS : call->timeout_ms;
    pc->deadline_ms = authority_mono_ms() + timeout_ms;
    pc->cb = call->cb;
    pc->data = call->data;
    pc->outstanding = true;
    LIST_INSERT_HEAD(&a->calls, pc, link);
    a->io_env.defer(a->io_env.data, begin_deferred, pc);
}

void call_internal(struct authority *a, const char *method, struct blob args,
                   const struct uuid *request_id, const char *actor_kind, const char *actor_id,
                   authority_call_cb cb, void *data)
{
    authority_call(a, &(struct authority_call){
                          .method = method,
                          .args = args,
                          .request_id = request_id == NULL ? UUID_NIL : *request_id,
                          .actor_kind = actor_kind,
                          .actor_id = actor_id,
                          .cb = cb,
                          .data = data,
                      });
}

void call_cancel_all(struct authority *a)
{
    struct pending_call *pc;
    struct pending_call *next;
    for (pc = LIST_FIRST(&a->calls); pc != NULL; pc = next) {
        next = LIST_NEXT(pc, link);
        if (!pc->answered) {
            call_answer(pc, -ERR_CANCELED, blob_of(NULL, 0));
        }
    }
}

/* What a change of leader, or time, means for one call. It may be gone afterwards. */
static void tick(struct pending_call *pc, const struct core_status *s, uint64_t now)
{
    bool fenced = pc->a->fence.fenced &&
                  !call_is_local(pc->method); /* which says what we decided apart */
    if (now >= pc->deadline_ms || fenced) {
        pc->maybe_done = pc->maybe_done || pc->state == CALL_PROPOSED ||
                         pc->state == CALL_FORWARDED;
        answer_no_quorum(pc);
    } else if (pc->state == CALL_WAIT_LEADER && s->leader != 0 && s->quorum) {
        begin(pc);
    } else if (pc->state == CALL_WAIT_LEADER && now >= pc->leader_by_ms) {
        answer_no_quorum(pc);
    } else if (pc->state == CALL_FORWARDED && (s->leader != pc->sent_to || !s->quorum)) {
        /* Raft knows before the connection does: ask the next leader instead of waiting. */
        fabric_call_cancel(&pc->rpc);
    }
}

void call_tick(struct authority *a)
{
    struct core_status s;
    struct pending_call *pc;
    struct pending_call *next;
    uint64_t now = authority_mono_ms();
    core_status_brief(a->core, &s);
    for (pc = LIST_FIRST(&a->calls); pc != NULL; pc = next) {
        next = LIST_NEXT(pc, link);
        if (!pc->answered) {
            tick(pc, &s, now);
        }
    }
}
