/* Commands into entries and results back to who proposed them.
 *
 * Whatever is pending when a turn ends becomes one entry; while two are in flight, the next grows.
 * Results belong to proposals by position in the entry. */
#include "authority/core_impl.h"

#include "base/log.h"

static void list_push(struct proposal_list *l, struct core_proposal *p)
{
    p->next = NULL;
    if (l->last == NULL) {
        l->first = p;
    } else {
        l->last->next = p;
    }
    l->last = p;
    l->count++;
    l->bytes += p->cmd.len;
}

static struct core_proposal *list_pop(struct proposal_list *l)
{
    struct core_proposal *p = l->first;
    if (p != NULL) {
        l->first = p->next;
        if (l->first == NULL) {
            l->last = NULL;
        }
        l->count--;
        l->bytes -= p->cmd.len;
        p->next = NULL;
    }
    return p;
}

static uint64_t now_us(const struct core *c)
{
    return c->env->mono_us == NULL ? 0 : c->env->mono_us(c->env->data);
}

static void finish(struct core_proposal *p, int rc, const struct fsm_result *result)
{
    free(p->impl);
    p->impl = NULL;
    p->cmd = blob_of(NULL, 0);
    p->cb(p, rc, result);
}

static void finish_all(struct proposal_list *l, int rc)
{
    struct proposal_list mine = *l;
    *l = (struct proposal_list){0};
    struct core_proposal *p;
    while ((p = list_pop(&mine)) != NULL) {
        finish(p, rc, NULL);
    }
}

static void keep_command(const struct core *c, struct core_proposal *p, struct blob cmd)
{
    uint8_t *copy = xmalloc(cmd.len);
    memcpy(copy, cmd.data, cmd.len);
    p->impl = copy;
    p->cmd = blob_of(copy, cmd.len);
    p->began_us = now_us(c);
}

int core_propose(struct core *c, struct core_proposal *p, struct blob cmd, core_proposal_cb cb)
{
    int rc = core_check_leader(c);
    if (rc != 0) {
        return rc;
    }
    if (cmd.len == 0 || cmd.len > CORE_COMMAND_MAX) {
        return -ERR_TOO_LARGE;
    }
    if (c->pending.count >= CORE_PENDING_MAX || c->pending.bytes >= CORE_PENDING_BYTES_MAX) {
        return -ERR_BUSY;
    }
    p->cb = cb;
    keep_command(c, p, cmd);
    list_push(&c->pending, p);
    core_want_flush(c);
    return 0;
}

void core_fail_pending(struct core *c, int rc)
{
    finish_all(&c->pending, rc);
}

/* --- the leader's own commands --- */

static void propose_own(struct core *c, struct core_proposal *p, uint64_t kind, const void *body,
                        core_proposal_cb cb)
{
    struct fsm_position position;
    fsm_position(c->fsm, &position);
    int64_t now = c->env->wall_ms(c->env->data);
    now = now > position.time_ms ? now : position.time_ms;
    uint8_t random[10];
    c->env->random(c->env->data, random, sizeof random);
    char actor[UUID_TEXT_MAX];
    uuid_format(&c->config.node_id, actor);
    struct cmd cmd = {
        .kind = kind,
        .request_id = uuid_make(now, random),
        .time_ms = now,
        .actor_kind = blob_str(ACTOR_SYSTEM),
        .actor_id = blob_str(actor),
    };
    struct buf bytes;
    buf_init(&bytes, CORE_COMMAND_MAX);
    cmd_encode(&cmd, body, &bytes);
    CHECK(bytes.err == 0);
    p->cb = cb;
    keep_command(c, p, buf_blob(&bytes));
    buf_fini(&bytes);
    list_push(&c->pending, p);
}

static void term_start_done(struct core_proposal *p, int rc, const struct fsm_result *result)
{
    struct core *c = container_of(p, struct core, term_start);
    (void)result;
    c->term_start_active = false;
    if (rc == 0) {
        c->term_started = c->leader_term != 0;
    } else if (c->leader_term != 0 && !c->closing && !c->failed && !c->fenced) {
        core_propose_term_start(c); /* it was an earlier term's */
    }
    core_want_flush(c);
}

/* Commits what earlier leaders left behind (Raft section 5.4.2), and tells the state who leads. */
void core_propose_term_start(struct core *c)
{
    if (c->term_start_active) {
        return; /* the last one's callback is on its way, and asks for a flush */
    }
    c->term_start_active = true;
    struct term_start body = {.term = c->leader_term, .leader_id = c->config.node_id};
    propose_own(c, &c->term_start, CMD_TERM_START, &body, term_start_done);
}

static void level_raise_done(struct core_proposal *p, int rc, const struct fsm_result *result)
{
    struct core *c = container_of(p, struct core, level_raise);
    c->level_raise_active = false;
    if (rc == 0 && result->rc == 0) {
        log_info(LOG_AUTHORITY, "schema level raised", "level=%u", fsm_level(c->fsm));
    }
    c->level_refused = rc == 0 && result->rc != 0; /* not again in this term */
    core_want_flush(c);                            /* and on to the next, or again */
}

void core_propose_level(struct core *c)
{
    if (c->level_raise_active || c->level_refused || !c->term_started ||
        core_check_leader(c) != 0) {
        return; /* while leadership is handed over, say: refused at once, and asked again for ever */
    }
    struct level_raise body = {.level = core_level_of_all(c)};
    if (body.level > fsm_level(c->fsm)) {
        c->level_raise_active = true;
        propose_own(c, &c->level_raise, CMD_LEVEL_RAISE, &body, level_raise_done);
    }
}

/* --- in flight --- */

static void batch_clear(struct core_batch *b)
{
    free(b->results);
    free(b->docs);
    *b = (struct core_batch){0};
}

void core_propose_fini(struct core *c)
{
    for (size_t i = 0; i < CORE_INFLIGHT_MAX; i++) {
        batch_clear(&c->batches[i]);
    }
}

void core_keep_results(struct core *c, uint64_t index, size_t n, const struct fsm_result *results)
{
    struct core_batch *b = NULL;
    for (size_t i = 0; i < CORE_INFLIGHT_MAX; i++) {
        if (c->batches[i].used && c->batches[i].req.index == index) {
            b = &c->batches[i];
        }
    }
    /* Another leader's entry may have taken the place of ours; libraft has then ended our request,
     * and what is kept here is not looked at. */
    if (b == NULL || b->results != NULL) {
        return;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += results[i].doc.len;
    }
    b->results = xcalloc(n, sizeof b->results[0]);
    b->results_count = n;
    b->docs = xmalloc(bytes);
    uint8_t *at = b->docs;
    for (size_t i = 0; i < n; i++) {
        b->results[i] = results[i];
        if (results[i].doc.len > 0) {
            memcpy(at, results[i].doc.data, results[i].doc.len);
        }
        b->results[i].doc = blob_of(at, results[i].doc.len);
        at += results[i].doc.len;
    }
}

static void finish_batch(struct core *c, struct core_batch *b, int rc)
{
    size_t i = 0;
    struct core_proposal *p;
    uint64_t now = now_us(c);
    while ((p = list_pop(&b->proposals)) != NULL) {
        const struct fsm_result *result = NULL;
        if (rc == 0) {
            size_t k = PLANTED("batch_result_off_by_one") ? (i + 1) % b->results_count : i;
            result = &b->results[k];
            histogram_add(&c->stats.commit, now - p->began_us);
        } else {
            c->stats.lost_proposals += rc == -ERR_OUTCOME_UNKNOWN;
        }
        finish(p, rc, result);
        i++;
    }
}

static void applied(struct raft_apply *req, int status, void *unused)
{
    struct core_batch *b = container_of(req, struct core_batch, req);
    struct core *c = b->core;
    (void)unused;
    struct core_batch mine = *b;
    *b = (struct core_batch){0};
    int rc = 0;
    if (c->closing) {
        rc = -ERR_CANCELED;
    } else if (status != 0 || c->fenced) {
        rc = -ERR_OUTCOME_UNKNOWN; /* fenced: what a lone voter still stores is for the report */
    } else if (mine.results_count != mine.proposals.count && !PLANTED("ack_before_commit")) {
        core_fail(c, "entry %llu: %zu results for %zu commands", (unsigned long long)req->index,
                  mine.results_count, mine.proposals.count);
        rc = -ERR_OUTCOME_UNKNOWN;
    }
    if (PLANTED("lost_leadership_acked") && rc == -ERR_OUTCOME_UNKNOWN) {
        static const struct fsm_result fine;
        struct core_proposal *p;
        while ((p = list_pop(&mine.proposals)) != NULL) {
            finish(p, 0, &fine);
        }
    }
    finish_batch(c, &mine, rc);
    batch_clear(&mine);
    core_want_flush(c);
}

/* As many of the pending commands as fit; they move into the batch. */
static void build_entry(struct core *c, struct core_batch *b, struct buf *out)
{
    struct buf raw;
    struct mp_writer w;
    buf_init(&raw, ENTRY_MAX_BYTES);
    mp_writer_init(&w, &raw);
    size_t room = ENTRY_MAX_BYTES - 64;
    while (c->pending.first != NULL && b->proposals.count < CMD_BATCH_MAX) {
        struct core_proposal *p = c->pending.first;
        if (p->cmd.len + 8 > room) {
            break;
        }
        room -= p->cmd.len + 8;
        (void)list_pop(&c->pending);
        mp_put_bin(&w, p->cmd);
        list_push(&b->proposals, p);
    }
    struct cmd_entry entry = {
        .version = CMD_VERSION,
        .term = b->term,
        .commands = {.raw = buf_blob(&raw), .count = (uint32_t)b->proposals.count},
    };
    msg_encode(&cmd_entry_desc, &entry, out);
    raft_msg_pad(out);
    CHECK(raw.err == 0 && out->err == 0);
    buf_fini(&raw);
}

static void submit_batch(struct core *c, struct core_batch *b)
{
    *b = (struct core_batch){.core = c, .used = true, .term = raft_current_term(&c->raft)};
    struct buf entry;
    buf_init(&entry, RAFT_MSG_DATA_MAX);
    build_entry(c, b, &entry);
    struct raft_buffer data = {.len = entry.len, .base = raft_malloc(entry.len)};
    CHECK(data.base != NULL);
    memcpy(data.base, entry.data, entry.len);
    buf_fini(&entry);
    int rv = raft_apply(&c->raft, &b->req, &data, 1, applied);
    if (rv == 0) {
        if (PLANTED("ack_before_commit")) {
            static const struct fsm_result fine;
            struct proposal_list early = b->proposals;
            b->proposals = (struct proposal_list){0};
            struct core_proposal *p;
            while ((p = list_pop(&early)) != NULL) {
                finish(p, 0, &fine);
            }
        }
        return;
    }
    struct proposal_list refused = b->proposals;
    batch_clear(b);
    if (rv == RAFT_NOTLEADER || rv == RAFT_NOSPACE) {
        raft_free(data.base);
        finish_all(&refused, -ERR_NOT_LEADER);
        return;
    }
    /* The buffer may or may not be freed, the entry may or may not be in the log. */
    core_fail(c, "raft_apply: %s", raft_strerror(rv));
    finish_all(&refused, -ERR_OUTCOME_UNKNOWN);
}

void core_submit(struct core *c)
{
    for (size_t i = 0; i < CORE_INFLIGHT_MAX; i++) {
        if (c->pending.first == NULL || c->failed || c->closing) {
            return;
        }
        if (c->fenced) {
            core_fail_pending(c, -ERR_FENCED);
            return;
        }
        if (c->raft.state != RAFT_LEADER || raft_transferee(&c->raft) != 0) {
            core_fail_pending(c, -ERR_NOT_LEADER);
            return;
        }
        if (!c->batches[i].used) {
            submit_batch(c, &c->batches[i]);
        }
    }
}
