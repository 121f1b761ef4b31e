/* Signing what this authority applied, and collecting the signatures of the others (decision 0008).
 * Live, never a consensus write:
 *
 *   applied ─> a newer statement? ─> sign it, ask the other members ─> a majority ─> snapshots go out
 *                    │ one is under way: wait for it, then take the newest
 *
 * Each authority that serves nodes collects for itself. One that is asked answers when it has applied
 * that index and would have written the same bytes; until then the question waits, for the follower
 * hears of the commit a moment later than the leader. The leader also makes the authority set follow
 * the voters of the state: signatures of the set before, then one command. */
#include "authority/authority_impl.h"

#include "base/log.h"

#define ASK_MS 2000
#define AGAIN_MS 500    /* a collection that does not get on is begun anew, with the newest */
#define WAITING_MAX 64  /* questions about an index that is not applied here yet */
#define RESIGN_MS (SNAPSHOT_LIFE_MS / 4)

/* One question to one member. */
struct question {
    struct fabric_call call;
    struct authority *a;
    struct collection *of;
    uint64_t serial; /* of the collection it was asked for */
    struct uuid from;
};

struct waiting {
    struct fabric_request *rq;
    uint64_t index;
    uint64_t until_ms;
    struct buf statement;
    TAILQ_ENTRY(waiting) link;
};

void witness_init(struct authority *a)
{
    TAILQ_INIT(&a->witness.waiting);
    struct collection *all[] = {&a->witness.statement, &a->witness.set};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        buf_init(&all[i]->bytes, AUTHORITY_SET_MAX);
    }
    a->witness.set.of_set = true;
    buf_init(&a->witness.done.statement, WITNESS_STATEMENT_MAX);
    buf_init(&a->witness.done.signatures, 8192);
}

void witness_fini(struct authority *a)
{
    struct collection *all[] = {&a->witness.statement, &a->witness.set};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        buf_fini(&all[i]->bytes);
        merkle_unref(all[i]->tree);
        all[i]->tree = NULL;
    }
    buf_fini(&a->witness.done.statement);
    buf_fini(&a->witness.done.signatures);
    merkle_unref(a->witness.done.tree);
    a->witness.done.tree = NULL;
}

static void drop_waiting(struct authority *a, struct waiting *w, int rc)
{
    fabric_answer(w->rq, rc, blob_of(NULL, 0));
    TAILQ_REMOVE(&a->witness.waiting, w, link);
    a->witness.waiting_count--;
    buf_fini(&w->statement);
    free(w);
}

/* --- collecting --- */

static void finish_statement(struct authority *a, struct collection *c)
{
    struct witnessed *d = &a->witness.done;
    int64_t oldest = INT64_MAX;
    buf_clear(&d->statement);
    buf_clear(&d->signatures);
    d->count = 0;
    buf_add(&d->statement, c->bytes.data, c->bytes.len);
    for (size_t i = 0; i < c->count; i++) {
        const struct witness_signature s = {
            .node_id = c->got[i].node_id,
            .signed_at_ms = c->got[i].at_ms,
            .signature = blob_of(c->got[i].signature, PKI_SIG_BYTES),
        };
        oldest = s.signed_at_ms < oldest ? s.signed_at_ms : oldest;
        msg_list_add(&witness_signature_desc, &s, &d->signatures, &d->count);
    }
    CHECK(d->statement.err == 0 && d->signatures.err == 0);
    merkle_unref(d->tree);
    d->tree = c->tree;
    c->tree = NULL;
    d->what = c->what;
    d->signed_at_ms = oldest;
    d->have = true;
    a->push_wanted = true;
    a->joins_dirty = true;
    a->applied_dirty = true;
    a->core_env.want_flush(a);
}

static void set_proposed(void *data, int rc, struct blob doc)
{
    struct authority *a = data;
    (void)doc;
    a->witness.set_busy = false;
    if (rc == 0) {
        log_info(LOG_AUTHORITY, "authority set follows the voters", "members=%zu",
                 fsm_authority_set(a->fsm)->count);
    } else if (rc != -ERR_DECIDED && rc != -ERR_CANCELED) {
        log_warn(LOG_AUTHORITY, "authority set not committed", "error=%s next=\"tried again\"",
                 err_slug(rc));
    }
}

static void finish_set(struct authority *a, struct collection *c)
{
    struct buf list;
    struct buf link;
    struct buf args;
    uint32_t count = 0;
    buf_init(&list, SIGNED_SET_MAX);
    buf_init(&link, SIGNED_SET_MAX);
    buf_init(&args, CMD_BODY_MAX);
    for (size_t i = 0; i < c->count; i++) {
        msg_list_add(&set_signature_desc,
                     &(struct set_signature){
                         .node_id = c->got[i].node_id,
                         .signature = blob_of(c->got[i].signature, PKI_SIG_BYTES),
                     },
                     &list, &count);
    }
    msg_encode(&signed_set_desc,
               &(struct signed_set){.statement = buf_blob(&c->bytes),
                                    .signatures = {.raw = buf_blob(&list), .count = count}},
               &link);
    msg_encode(&authority_set_next_desc,
               &(struct authority_set_next){.signed_set = buf_blob(&link)}, &args);
    CHECK(args.err == 0 && link.err == 0);
    a->witness.set_busy = true;
    call_internal(a, "authority.set_next", buf_blob(&args), NULL, ACTOR_SYSTEM, "", set_proposed,
                  a);
    buf_fini(&list);
    buf_fini(&link);
    buf_fini(&args);
}

/* The signature was verified. */
static void add_signature(struct authority *a, struct collection *c, const struct uuid *from,
                          int64_t at_ms, const uint8_t signature[PKI_SIG_BYTES])
{
    for (size_t i = 0; i < c->count; i++) {
        if (uuid_equal(&c->got[i].node_id, from)) {
            return;
        }
    }
    CHECK(c->count < AUTHORITIES_MAX);
    c->got[c->count].node_id = *from;
    c->got[c->count].at_ms = at_ms;
    memcpy(c->got[c->count].signature, signature, PKI_SIG_BYTES);
    c->count++;
    if (c->count < c->needed) {
        return;
    }
    c->active = false;
    if (c->of_set) {
        finish_set(a, c);
    } else {
        finish_statement(a, c);
    }
}

static bool is_signed(const struct collection *c, const uint8_t key[PKI_KEY_BYTES], int64_t at_ms,
                      struct blob signature)
{
    struct blob bytes = buf_blob(&c->bytes);
    return c->of_set ? pki_verify(key, AUTHORITY_SET_SIGN_DOMAIN, bytes, signature) == 0
                     : witness_signed_by(key, at_ms, bytes, signature);
}

static void answered(struct fabric_call *call, int rc, struct blob body)
{
    struct question *q = container_of(call, struct question, call);
    struct authority *a = q->a;
    struct collection *c = q->of;
    struct witness_answer answer;
    if (!a->closing && c->active && c->serial == q->serial) {
        const struct witness_member *m = witness_set_find(fsm_authority_set(a->fsm), &q->from);
        if (rc == 0) {
            rc = msg_decode(&witness_answer_desc, MSG_LENIENT, body, &answer);
        }
        if (rc == 0 && m != NULL &&
            is_signed(c, m->public_key, answer.signed_at_ms, answer.signature)) {
            add_signature(a, c, &q->from, answer.signed_at_ms, answer.signature.data);
        } else {
            log_debug(LOG_AUTHORITY, "no signature from a member", "error=%s",
                      err_slug(rc == 0 ? -ERR_BAD_SIGNATURE : rc));
        }
    }
    free(q);
}

static void ask(struct authority *a, struct collection *c, const struct uuid *member,
                struct blob request)
{
    struct question *q = xcalloc(1, sizeof *q);
    *q = (struct question){.a = a, .of = c, .serial = c->serial, .from = *member};
    if (fabric_call_start(a->cfg.fabric, &q->call, member, "witness", request, ASK_MS, answered) !=
        0) {
        free(q);
    }
}

/* c->bytes (and c->tree of a statement) are what is to be signed. */
static void collect(struct authority *a, struct collection *c)
{
    const struct witness_set *set = fsm_authority_set(a->fsm);
    struct blob bytes = buf_blob(&c->bytes);
    struct buf request;
    c->active = true;
    c->serial++;
    c->count = 0;
    c->needed = witness_majority(set);
    c->began_ms = authority_mono_ms();
    buf_init(&request, 2 * AUTHORITY_SET_MAX);
    struct witness_request msg = {.statement = c->of_set ? blob_of(NULL, 0) : bytes,
                                  .set = c->of_set ? bytes : blob_of(NULL, 0)};
    msg_encode(&witness_request_desc, &msg, &request);
    CHECK(request.err == 0);
    for (size_t i = 0; i < set->count && set->count > 1; i++) {
        if (!uuid_equal(&set->members[i].node_id, &a->cfg.node_id)) {
            ask(a, c, &set->members[i].node_id, buf_blob(&request));
        }
    }
    buf_fini(&request);
    if (witness_set_find(set, &a->cfg.node_id) != NULL) {
        uint8_t signature[PKI_SIG_BYTES];
        int64_t at_ms = authority_now_ms(a);
        if (c->of_set) {
            pki_sign(a->cfg.node_key, AUTHORITY_SET_SIGN_DOMAIN, bytes, signature);
        } else {
            witness_sign(a->cfg.node_key, at_ms, bytes, signature);
        }
        add_signature(a, c, &a->cfg.node_id, at_ms, signature);
    }
}

static void collect_statement(struct authority *a)
{
    struct collection *c = &a->witness.statement;
    const struct witnessed *d = &a->witness.done;
    struct fsm_witness last;
    uint64_t now = authority_mono_ms();
    if (!fsm_witness_last(a->fsm, &last) || last.set_seq != fsm_authority_set(a->fsm)->seq) {
        return;
    }
    if (c->active && c->what.set_seq == last.set_seq && now - c->began_ms < AGAIN_MS) {
        return;
    }
    if (d->have && d->what.index == last.index && d->what.set_seq == last.set_seq &&
        authority_now_ms(a) - d->signed_at_ms < RESIGN_MS) {
        c->active = false;
        return;
    }
    merkle_unref(c->tree);
    c->tree = merkle_ref(fsm_tree(a->fsm));
    c->what = last;
    buf_clear(&c->bytes);
    fsm_witness_statement(a->fsm, &last, &c->bytes);
    collect(a, c);
}

/* --- the authority set --- */

/* The statement that makes the voters of the applied state the next set. False when they are the set
 * already. */
static bool next_set(struct authority *a, struct buf *out)
{
    const struct witness_set *held = fsm_authority_set(a->fsm);
    struct witness_member members[AUTHORITIES_MAX];
    bool same = true;
    struct fsm_position pos;
    size_t count = fsm_voters(state_db(a), members);
    for (size_t i = 0; i < count; i++) {
        const struct witness_member *was = witness_set_find(held, &members[i].node_id);
        same = same && was != NULL &&
               memcmp(was->public_key, members[i].public_key, PKI_KEY_BYTES) == 0;
    }
    fsm_position(a->fsm, &pos);
    if (!held->known || count == 0 || (same && count == held->count)) {
        return false;
    }
    witness_set_build(held, &a->cfg.cluster_id, pos.epoch, members, count, out);
    return out->err == 0;
}

void witness_tick(struct authority *a)
{
    struct collection *c = &a->witness.set;
    struct core_status s;
    struct waiting *w;
    struct waiting *next;
    uint64_t now = authority_mono_ms();
    for (w = TAILQ_FIRST(&a->witness.waiting); w != NULL; w = next) {
        next = TAILQ_NEXT(w, link);
        if (now >= w->until_ms) {
            drop_waiting(a, w, -ERR_TIMEOUT);
        }
    }
    collect_statement(a);
    core_status_brief(a->core, &s);
    if (s.role != CORE_LEADER || !s.quorum || a->witness.set_busy ||
        (c->active && now - c->began_ms < AGAIN_MS)) {
        return;
    }
    buf_clear(&c->bytes);
    c->active = false;
    if (next_set(a, &c->bytes)) {
        collect(a, c);
    }
}

/* --- being asked --- */

static void answer_signed(struct fabric_request *rq, const uint8_t signature[PKI_SIG_BYTES],
                          int64_t at_ms)
{
    struct buf body;
    buf_init(&body, 256);
    msg_encode(&witness_answer_desc,
               &(struct witness_answer){.signature = blob_of(signature, PKI_SIG_BYTES),
                                        .signed_at_ms = at_ms},
               &body);
    fabric_answer(rq, 0, buf_blob(&body));
    buf_fini(&body);
}

/* Only what this authority would have written itself gets its signature. */
static int sign_statement(struct authority *a, uint64_t index, struct blob statement,
                          struct fabric_request *rq)
{
    struct fsm_witness mine;
    struct buf bytes;
    if (!fsm_witness_at(a->fsm, index, &mine)) {
        return -ERR_NOT_FOUND;
    }
    buf_init(&bytes, WITNESS_STATEMENT_MAX);
    fsm_witness_statement(a->fsm, &mine, &bytes);
    bool same = blob_equal(buf_blob(&bytes), statement);
    buf_fini(&bytes);
    if (!same) {
        return -ERR_CONFLICT;
    }
    uint8_t signature[PKI_SIG_BYTES];
    int64_t at_ms = authority_now_ms(a);
    witness_sign(a->cfg.node_key, at_ms, statement, signature);
    answer_signed(rq, signature, at_ms);
    return 0;
}

static int sign_set(struct authority *a, struct blob statement, struct fabric_request *rq)
{
    struct buf bytes;
    buf_init(&bytes, AUTHORITY_SET_MAX);
    bool same = next_set(a, &bytes) && blob_equal(buf_blob(&bytes), statement);
    buf_fini(&bytes);
    if (!same) {
        return -ERR_CONFLICT; /* not applied here yet, or never decided */
    }
    uint8_t signature[PKI_SIG_BYTES];
    pki_sign(a->cfg.node_key, AUTHORITY_SET_SIGN_DOMAIN, statement, signature);
    answer_signed(rq, signature, 0);
    return 0;
}

static uint64_t applied_index(const struct authority *a)
{
    struct fsm_position pos;
    fsm_position(a->fsm, &pos);
    return pos.index;
}

static int wait_for(struct authority *a, uint64_t index, struct blob statement,
                    struct fabric_request *rq)
{
    if (a->witness.waiting_count >= WAITING_MAX) {
        return -ERR_BUSY;
    }
    struct waiting *w = xcalloc(1, sizeof *w);
    *w = (struct waiting){.rq = rq, .index = index, .until_ms = authority_mono_ms() + ASK_MS};
    buf_init(&w->statement, WITNESS_STATEMENT_MAX);
    buf_add(&w->statement, statement.data, statement.len);
    TAILQ_INSERT_TAIL(&a->witness.waiting, w, link);
    a->witness.waiting_count++;
    return 0;
}

static void on_request(void *data, struct fabric_request *rq, struct blob body)
{
    struct authority *a = data;
    struct witness_request msg;
    struct witness_statement st;
    int rc = a->closing ? -ERR_CLOSED : msg_decode(&witness_request_desc, MSG_LENIENT, body, &msg);
    if (rc == 0 && !authority_knows(a, fabric_request_peer(rq))) {
        rc = -ERR_DENIED;
    }
    if (rc == 0 && msg.set.len > 0) {
        rc = sign_set(a, msg.set, rq);
    } else if (rc == 0) {
        rc = msg_decode(&witness_statement_desc, MSG_LENIENT, msg.statement, &st);
        if (rc == 0 && st.index > applied_index(a)) {
            rc = wait_for(a, st.index, msg.statement, rq);
        } else if (rc == 0) {
            rc = sign_statement(a, st.index, msg.statement, rq);
        }
    }
    if (rc != 0) {
        fabric_answer(rq, rc, blob_of(NULL, 0));
    }
}

void witness_applied(struct authority *a)
{
    struct waiting *w;
    struct waiting *next;
    uint64_t index = applied_index(a);
    for (w = TAILQ_FIRST(&a->witness.waiting); w != NULL; w = next) {
        next = TAILQ_NEXT(w, link);
        if (w->index <= index) {
            int rc = sign_statement(a, w->index, buf_blob(&w->statement), w->rq);
            if (rc != 0) {
                drop_waiting(a, w, rc);
                continue;
            }
            TAILQ_REMOVE(&a->witness.waiting, w, link);
            a->witness.waiting_count--;
            buf_fini(&w->statement);
            free(w);
        }
    }
    collect_statement(a);
}

void witness_serve(struct authority *a)
{
    fabric_serve(a->cfg.fabric, &(struct fabric_service){.name = "witness",
                                                         .flags = FABRIC_SVC_AUTHORITY,
                                                         .data = a,
                                                         .request = on_request});
}

void witness_close(struct authority *a)
{
    while (!TAILQ_EMPTY(&a->witness.waiting)) {
        drop_waiting(a, TAILQ_FIRST(&a->witness.waiting), -ERR_CLOSED);
    }
}
