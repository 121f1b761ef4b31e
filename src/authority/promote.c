/* Promotion of the side of a partition that is left, while this authority runs (DESIGN section 7):
 *
 *   partition.probe    asks every voter what it sees; without a quorum anywhere: what promotion would
 *                      do, and the statement to sign
 *   partition.promote  the same again, then the signed statement waits beside raft.db, and the restart
 *                      that follows goes on as it says (recover.h)
 *
 *   begin ─> one rpc a voter ─> (all back, each by its deadline) ─> decide ─> answer */
#include "authority/call_impl.h"
#include "authority/recover.h"
#include "base/text.h"
#include "pki/statement.h"

#define PROBE_TIMEOUT_MS 1500
#define RESTART_AFTER_MS 200 /* the answer goes out first */

struct probe;
struct probed {
    struct fabric_call call;
    struct probe *probe;
    struct uuid node_id;
    bool answered, quorum;
    uint64_t epoch, last_index, last_term;
};
struct probe {
    struct pending_call *pc;
    struct probed peers[AUTHORITIES_MAX];
    size_t count, left;
};

static void name_of(struct authority *a, const struct uuid *id, char out[NAME_MAX_BYTES + 1])
{
    char text[UUID_TEXT_MAX];
    uuid_format(id, text);
    (void)fsm_node_name(state_db(a), text, out);
    if (out[0] == '\0') {
        (void)snprintf(out, NAME_MAX_BYTES + 1, "%s", text);
    }
}

/* Why there is nothing to promote, or 0. */
static int check_probe(const struct probe *p, struct errmsg *em)
{
    struct authority *a = p->pc->a;
    struct core_status s;
    unsigned reachable = 1;
    char name[NAME_MAX_BYTES + 1];
    core_status(a->core, &s);
    if (s.quorum) {
        return errmsg_set(em, -ERR_CONFLICT, "this authority has a majority: nothing to promote");
    }
    for (size_t i = 0; i < p->count; i++) {
        const struct probed *one = &p->peers[i];
        name_of(a, &one->node_id, name);
        if (!one->answered) {
            continue;
        }
        reachable++;
        if (one->quorum) {
            return errmsg_set(em, -ERR_CONFLICT,
                              "%s sees a majority of the authority: nothing to promote", name);
        }
        if (one->epoch > authority_epoch(a)) {
            return errmsg_set(em, -ERR_FENCED, "%s is in epoch %llu already", name,
                              (unsigned long long)one->epoch);
        }
        if (one->last_term > s.last_term ||
            (one->last_term == s.last_term && one->last_index > s.last_index)) {
            return errmsg_set(em, -ERR_CONFLICT,
                              "%s holds entries that this authority lacks: promote there", name);
        }
    }
    if (reachable >= s.needed) {
        return errmsg_set(em, -ERR_CONFLICT,
                          "%u of %u authorities can be reached: they elect a leader by themselves",
                          reachable, s.voters);
    }
    return 0;
}

static int make_plan(struct authority *a, struct recovery_plan **ret, struct errmsg *em)
{
    struct raft_store_loaded log = {0};
    int rc = a->store->ops->load(a->store, &log, em);
    return rc != 0 ? rc : recovery_plan_of(&log, &a->cfg.node_id, ret, em);
}

static void put_reachable(const struct probe *p, struct mp_writer *w, struct mp_doc *d)
{
    uint32_t n = 0;
    mp_doc_key(w, d, "reachable");
    size_t at = mp_list_begin(w);
    for (size_t i = 0; i < p->count; i++) {
        if (p->peers[i].answered) {
            char id[UUID_TEXT_MAX];
            uuid_format(&p->peers[i].node_id, id);
            mp_put_str(w, id);
            n++;
        }
    }
    mp_list_end(w, at, n);
}

static void answer_plan(const struct probe *p, const struct recovery_plan *plan)
{
    struct pending_call *pc = p->pc;
    struct buf inner;
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    const struct recovery_terms terms = {.kind = RECOVERY_PROMOTE,
                                         .now_ms = authority_now_ms(pc->a)};
    buf_init(&inner, CALL_DOC_MAX);
    buf_init(&doc, CALL_DOC_MAX);
    mp_writer_init(&w, &inner);
    int rc = recovery_plan_doc(plan, &terms, &w);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_copy(&w, &d, buf_blob(&inner));
    put_reachable(p, &w, &d);
    mp_doc_end(&w, &d);
    call_answer(pc, rc, buf_blob(&doc));
    buf_fini(&inner);
    buf_fini(&doc);
}

static int arg_statement(const struct pending_call *pc, struct buf *out, struct errmsg *em)
{
    char hex[2 * SIGNED_RECOVERY_MAX + 1];
    mp_find_str(buf_blob(&pc->args), "statement", hex, sizeof hex);
    size_t n = strlen(hex) / 2;
    uint8_t *p = buf_grow(out, n);
    if (n == 0 || p == NULL || hex_decode(hex, p, n) != 0) {
        return errmsg_set(em, -ERR_INVALID, "statement is not a signed recovery statement in hex");
    }
    return 0;
}

/* Whatever could be wrong with it is found now, while somebody waits for the answer. */
static int promote(struct pending_call *pc, const struct recovery_plan *plan, struct errmsg *em)
{
    struct authority *a = pc->a;
    struct buf statement;
    buf_init(&statement, SIGNED_RECOVERY_MAX);
    int rc = arg_statement(pc, &statement, em);
    if (rc == 0) {
        rc = recovery_plan_check(plan, buf_blob(&statement), em);
    }
    if (rc == 0) {
        rc = recovery_set_pending(a->dir, buf_blob(&statement), em);
    }
    if (rc == 0) {
        a->fence.restart_at_ms = authority_mono_ms() + RESTART_AFTER_MS;
    }
    buf_fini(&statement);
    return rc;
}

static void answer_promoted(struct pending_call *pc)
{
    struct buf doc;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 256);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_int(&w, &d, "epoch", (int64_t)authority_epoch(pc->a) + 1);
    mp_doc_uuid(&w, &d, "node_id", &pc->a->cfg.node_id);
    mp_doc_end(&w, &d);
    call_answer(pc, 0, buf_blob(&doc));
    buf_fini(&doc);
}

static void finished(struct probe *p)
{
    struct pending_call *pc = p->pc;
    struct errmsg em = ERRMSG_INIT;
    struct recovery_plan *plan = NULL;
    if (call_returned(pc)) {
        free(p);
        return;
    }
    int rc = check_probe(p, &em);
    if (rc == 0) {
        rc = make_plan(pc->a, &plan, &em);
    }
    bool doing = strcmp(pc->method, "partition.promote") == 0;
    if (rc == 0 && doing) {
        rc = promote(pc, plan, &em);
    }
    if (rc != 0) {
        call_answer_text(pc, rc, &em);
    } else if (doing) {
        answer_promoted(pc);
    } else {
        answer_plan(p, plan);
    }
    recovery_plan_free(plan);
    free(p);
}

static void probed(struct fabric_call *call, int rc, struct blob body)
{
    struct probed *one = call->data;
    struct probe *p = one->probe;
    struct recovery_answer m;
    if (rc == 0 && msg_decode(&recovery_answer_desc, MSG_LENIENT, body, &m) == 0) {
        one->answered = true;
        one->quorum = m.quorum;
        one->epoch = m.epoch;
        one->last_index = m.last_index;
        one->last_term = m.last_term;
    }
    if (--p->left == 0) {
        finished(p);
    }
}

static void all_silent(void *arg)
{
    finished(arg);
}

static void begin_probe(struct pending_call *pc)
{
    struct authority *a = pc->a;
    struct core_status s;
    struct buf bytes;
    struct probe *p = xcalloc(1, sizeof *p);
    struct recovery_ask ask = {
        .step = RECOVERY_HELLO,
        .epoch = authority_epoch(a),
        .statement = raft_io_statement(&a->io),
    };
    p->pc = pc;
    core_status(a->core, &s);
    buf_init(&bytes, RPC_FRAME_MAX);
    msg_encode(&recovery_ask_desc, &ask, &bytes);
    for (size_t i = 0; i < s.members_count && p->count < ARRAY_SIZE(p->peers); i++) {
        if (s.members[i].raft_role != RAFT_VOTER ||
            uuid_equal(&s.members[i].node_id, &a->cfg.node_id)) {
            continue;
        }
        struct probed *one = &p->peers[p->count++];
        *one = (struct probed){.call = {.data = one}, .probe = p, .node_id = s.members[i].node_id};
        p->left += fabric_call_start(a->cfg.fabric, &one->call, &one->node_id, "recovery",
                                     buf_blob(&bytes), PROBE_TIMEOUT_MS, probed) == 0;
    }
    buf_fini(&bytes);
    pc->state = CALL_ASK_NODE;
    pc->outstanding = true;
    if (p->left == 0) {
        a->io_env.defer(a->io_env.data, all_silent, p);
    }
}

/* --- what this authority itself decided apart --- */

static void put_row(struct mp_writer *w, const struct divergence_row *row, uint64_t seq)
{
    struct mp_doc d;
    mp_doc_begin(w, &d);
    mp_doc_int(w, &d, "seq", (int64_t)seq);
    mp_doc_int(w, &d, "log_index", (int64_t)row->log_index);
    mp_doc_int(w, &d, "log_term", (int64_t)row->log_term);
    mp_doc_bool(w, &d, "committed", row->committed);
    mp_doc_key(w, &d, "kind");
    mp_put_strn(w, (const char *)row->kind.data, row->kind.len);
    mp_doc_uuid(w, &d, "request_id", &row->request_id);
    mp_doc_key(w, &d, "actor_kind");
    mp_put_strn(w, (const char *)row->actor_kind.data, row->actor_kind.len);
    mp_doc_key(w, &d, "actor_id");
    mp_put_strn(w, (const char *)row->actor_id.data, row->actor_id.len);
    mp_doc_uuid(w, &d, "subject_id", &row->subject_id);
    mp_doc_time(w, &d, "created_at", row->time_ms);
    mp_doc_end(w, &d);
}

static void answer_own_divergence(struct pending_call *pc)
{
    const struct divergence *v = &pc->a->fence.divergence;
    struct buf rows;
    struct buf doc;
    struct mp_writer w;
    struct mp_reader r;
    struct mp_doc d;
    buf_init(&rows, CALL_DOC_MAX);
    buf_init(&doc, CALL_DOC_MAX);
    uint32_t n = pc->a->fence.fenced ? divergence_part(v, 0, PAGE_MAX, &rows) : 0;
    mp_reader_init(&r, buf_blob(&rows));
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_bool(&w, &d, "fenced", pc->a->fence.fenced);
    mp_doc_int(&w, &d, "epoch", (int64_t)pc->a->fence.epoch);
    mp_doc_int(&w, &d, "from_epoch", (int64_t)authority_epoch(pc->a));
    mp_doc_int(&w, &d, "common_index", (int64_t)v->common_index);
    mp_doc_int(&w, &d, "last_index", (int64_t)v->last_index);
    mp_doc_int(&w, &d, "rows_total", (int64_t)v->rows_total);
    mp_doc_key(&w, &d, "items");
    mp_put_array(&w, n);
    for (uint32_t i = 0; i < n; i++) {
        struct divergence_row row = {0};
        (void)msg_decode(&divergence_row_desc, MSG_LENIENT, mp_get_bin(&r, CMD_BODY_MAX), &row);
        put_row(&w, &row, i);
    }
    mp_doc_str(&w, &d, "next_cursor", NULL);
    mp_doc_end(&w, &d);
    call_answer(pc, doc.err, buf_blob(&doc));
    buf_fini(&rows);
    buf_fini(&doc);
}

bool call_is_local(const char *method)
{
    return strcmp(method, "partition.probe") == 0 || strcmp(method, "partition.promote") == 0 ||
           strcmp(method, "divergence.own") == 0 || strcmp(method, "backup.read") == 0;
}

void call_local(struct pending_call *pc)
{
    struct errmsg em = ERRMSG_INIT;
    if (strcmp(pc->method, "divergence.own") == 0) {
        answer_own_divergence(pc);
    } else if (strcmp(pc->method, "backup.read") == 0) {
        backup_read(pc);
    } else if (pc->a->fence.fenced) {
        (void)errmsg_set(&em, -ERR_FENCED,
                         "this authority is fenced by epoch %llu: promote a side of that epoch",
                         (unsigned long long)pc->a->fence.epoch);
        call_answer_text(pc, -ERR_FENCED, &em);
    } else {
        begin_probe(pc);
    }
}
