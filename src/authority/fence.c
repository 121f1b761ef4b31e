#include "authority/authority_impl.h"
#include "authority/raft_log.h"
#include "base/file.h"
#include "base/log.h"
#include "pki/statement.h"

#include <unistd.h>

#define ASK_EVERY_MS 300
#define ASK_TIMEOUT_MS 2000

static const char note_name[] = "fence";

uint64_t authority_epoch(const struct authority *a)
{
    return raft_io_epoch(&a->io);
}

void fence_init(struct authority *a)
{
    buf_init(&a->fence.believed, SIGNED_RECOVERY_MAX);
}

void fence_fini(struct authority *a)
{
    buf_fini(&a->fence.believed);
    divergence_fini(&a->fence.divergence);
}

static int verify(struct authority *a, struct blob statement, struct recovery_statement *ret,
                  struct errmsg *em)
{
    uint8_t key[PKI_KEY_BYTES];
    if (!pki_trust_root_key(a->cfg.trust, key)) {
        return errmsg_set(em, -ERR_BAD_CERT, "no root is trusted yet");
    }
    return statement_verify(statement, key, &a->cfg.cluster_id, ret, em);
}

/* --- the note --- */

static int write_note(struct authority *a, bool give_up, struct errmsg *em)
{
    struct buf bytes;
    struct fence_note note = {
        .statement = buf_blob(&a->fence.believed),
        .commit_index = a->fence.commit_index,
        .give_up = give_up,
        .time_ms = authority_now_ms(a),
    };
    char *path = path_join(a->dir, note_name);
    buf_init(&bytes, FENCE_NOTE_MAX);
    msg_encode(&fence_note_desc, &note, &bytes);
    int rc = bytes.err != 0 ? bytes.err : file_write_atomic(path, buf_blob(&bytes), 0600, em);
    buf_fini(&bytes);
    free(path);
    return rc;
}

static int drop_note(struct authority *a, struct errmsg *em)
{
    char *path = path_join(a->dir, note_name);
    int rc = unlink(path) == 0 ? file_sync_dir(a->dir, em)
                               : errmsg_set(em, -ERR_IO, "%s cannot be removed", path);
    free(path);
    return rc;
}

/* Keeps the statement when it is one of a higher epoch than `above`. */
static int believe(struct authority *a, struct blob statement, uint64_t above, struct errmsg *em)
{
    struct recovery_statement s;
    int rc = verify(a, statement, &s, em);
    if (rc == 0 && s.epoch <= above) {
        rc = -ERR_ROLLBACK;
    }
    if (rc == 0 && s.epoch > a->fence.epoch) {
        buf_clear(&a->fence.believed);
        buf_add(&a->fence.believed, statement.data, statement.len);
        a->fence.epoch = s.epoch;
    }
    return rc;
}

/* --- at start --- */

static int give_up(struct authority *a, struct blob statement, struct errmsg *em)
{
    struct recovery_statement s;
    int rc = verify(a, statement, &s, em);
    if (rc == 0) {
        char *path = path_join(a->dir, "raft.db");
        rc = raft_log_give_up(path, s.epoch, statement, em);
        free(path);
    }
    if (rc == 0) {
        log_info(LOG_AUTHORITY, "log given up", "epoch=%llu next=\"catching up from nothing\"",
                 (unsigned long long)s.epoch);
    }
    return rc;
}

/* A member that is about to join has no log and takes the cluster's epoch as its own. */
static int adopt(struct authority *a, struct blob statement, struct errmsg *em)
{
    struct raft_store_loaded have;
    struct recovery_statement s;
    char *path = path_join(a->dir, "raft.db");
    bool empty = false;
    uint64_t epoch = EPOCH_FIRST;
    int rc = raft_log_read(path, &have, em);
    if (rc == 0) {
        empty = have.entries_count == 0 && !have.has_snapshot;
        epoch = have.epoch;
    } else if (rc == -ERR_NOT_FOUND) {
        empty = true;
        rc = 0;
    } else if (rc == -ERR_CORRUPT) {
        rc = 0; /* whoever opens it finds the same */
    }
    raft_store_loaded_fini(&have);
    free(path);
    if (rc != 0 || !empty || verify(a, statement, &s, NULL) != 0 || s.epoch <= epoch) {
        return rc;
    }
    return give_up(a, statement, em);
}

int fence_prepare(struct authority *a, struct blob statement, struct errmsg *em)
{
    struct fence_note note;
    struct buf bytes;
    char *path = path_join(a->dir, note_name);
    buf_init(&bytes, FENCE_NOTE_MAX);
    int rc = file_read(path, &bytes, em);
    bool noted = rc == 0;
    if (noted && msg_decode(&fence_note_desc, MSG_LENIENT, buf_blob(&bytes), &note) != 0) {
        rc = errmsg_set(em, -ERR_CORRUPT, "%s is damaged", path);
    } else if (rc == -ERR_NOT_FOUND) {
        rc = 0;
    }
    if (rc == 0 && noted && note.give_up) {
        rc = give_up(a, note.statement, em);
        rc = rc == 0 ? drop_note(a, em) : rc;
    } else if (rc == 0 && noted) {
        a->fence.commit_index = note.commit_index;
        rc = believe(a, note.statement, EPOCH_FIRST, em);
    } else if (rc == 0 && statement.len > 0) {
        rc = adopt(a, statement, em);
    }
    buf_fini(&bytes);
    free(path);
    return rc;
}

/* --- becoming fenced --- */

static int find_divergence(struct authority *a, struct errmsg *em)
{
    struct raft_store_loaded log = {0};
    struct recovery_statement s;
    int rc = verify(a, buf_blob(&a->fence.believed), &s, em);
    if (rc == 0) {
        rc = a->store->ops->load(a->store, &log, em);
    }
    if (rc == 0) {
        divergence_fini(&a->fence.divergence);
        divergence_find(&log, &s, a->fence.commit_index, &a->fence.divergence);
        raft_store_loaded_fini(&log);
    }
    return rc;
}

static void fence(struct authority *a)
{
    a->fence.fenced = true;
    core_fence(a->core);
    a->self_changed = true; /* the next turn tells the daemon */
    a->applied_dirty = true;
    a->core_env.want_flush(a);
    log_error(LOG_AUTHORITY, "FENCED",
              "own_epoch=%llu epoch=%llu commands_apart=%llu "
              "next=\"reporting them; then `rap partition merge`\"",
              (unsigned long long)authority_epoch(a), (unsigned long long)a->fence.epoch,
              (unsigned long long)a->fence.divergence.rows_total);
}

int fence_resume(struct authority *a, struct errmsg *em)
{
    if (a->fence.believed.len == 0) {
        return 0;
    }
    if (a->fence.epoch <= authority_epoch(a)) {
        buf_clear(&a->fence.believed); /* the owner went on from here after all */
        a->fence.epoch = 0;
        return drop_note(a, em);
    }
    int rc = find_divergence(a, em);
    if (rc == 0) {
        fence(a);
    }
    return rc;
}

static void leave(struct authority *a)
{
    struct errmsg em = ERRMSG_INIT;
    if (write_note(a, true, &em) != 0) {
        fatal("fence: %s", em.text);
    }
    a->fence.restart_at_ms = authority_mono_ms();
}

static void fence_now(struct authority *a)
{
    struct core_status s;
    struct errmsg em = ERRMSG_INIT;
    core_status_brief(a->core, &s);
    a->fence.commit_index = s.commit_index;
    int rc = write_note(a, false, &em);
    if (rc == 0) {
        rc = find_divergence(a, &em);
    }
    if (rc != 0) {
        fatal("fence: %s", em.text);
    }
    fence(a);
    if (a->fence.divergence.last_index == 0) {
        leave(a); /* nothing was ever here */
    }
}

/* --- what peers ask --- */

/* Two recoveries that began one epoch on two sides: both are the owner's word, so neither is fenced. */
static void check_rival(struct authority *a, uint64_t epoch, struct blob statement)
{
    if (epoch != authority_epoch(a) || a->fence.rival ||
        blob_equal(statement, raft_io_statement(&a->io))) {
        return;
    }
    a->fence.rival = true;
    log_error(LOG_AUTHORITY, "ANOTHER RECOVERY BEGAN THIS EPOCH",
              "epoch=%llu next=\"`rap authority recover` once more on the side to keep\"",
              (unsigned long long)epoch);
}

static bool is_voter(const struct core_status *s, raft_id id)
{
    for (size_t i = 0; i < s->members_count; i++) {
        if (s->members[i].id == id) {
            return s->members[i].raft_role == RAFT_VOTER;
        }
    }
    return false;
}

static uint64_t verdict_for(struct authority *a, const struct uuid *node_id, uint64_t *ret_rows)
{
    char id[UUID_TEXT_MAX];
    struct fsm_position pos;
    uint64_t verdict = RECOVERY_SAYS_REPORT;
    uuid_format(node_id, id);
    fsm_position(a->fsm, &pos);
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT status, rows_total, rows_stored FROM divergence_reports"
                                    " WHERE node_id = ? AND epoch = ?");
    db_bind_text(st, id);
    db_bind_int(st, (int64_t)pos.epoch);
    if (db_step(st) == 1) {
        const char *status = db_col_text(st, "status");
        *ret_rows = (uint64_t)db_col_int(st, "rows_stored");
        if (strcmp(status, "merged") == 0 ||
            (strcmp(status, "reported") == 0 && db_col_int(st, "rows_total") == 0)) {
            verdict = RECOVERY_SAYS_COME;
        } else if (strcmp(status, "reported") == 0) {
            verdict = RECOVERY_SAYS_WAIT;
        }
    }
    db_done(st);
    return verdict;
}

static void report_stored(void *data, int rc, struct blob doc)
{
    (void)data;
    (void)doc;
    if (rc != 0 && rc != -ERR_CANCELED && rc != -ERR_CONFLICT) {
        log_warn(LOG_AUTHORITY, "divergence report not stored", "error=%s", err_slug(rc));
    }
}

/* The same part sent twice is one request. */
static void store_report(struct authority *a, const struct uuid *from, struct blob report)
{
    uint8_t hash[PKI_HASH_BYTES];
    char actor[UUID_TEXT_MAX];
    struct buf args;
    struct divergence_reported body = {.report = report};
    pki_sha256(report, hash);
    uuid_format(from, actor);
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&divergence_reported_desc, &body, &args);
    struct uuid request_id = uuid_make(0, hash);
    if (args.err == 0) {
        call_internal(a, "divergence.report", buf_blob(&args), &request_id, ACTOR_NODE, actor,
                      report_stored, NULL);
    }
    buf_fini(&args);
}

static void answer(struct fabric_request *rq, struct authority *a, struct recovery_answer *m)
{
    struct core_status s;
    struct fsm_position pos;
    struct buf bytes;
    core_status_brief(a->core, &s);
    fsm_position(a->fsm, &pos);
    m->epoch = a->fence.fenced ? a->fence.epoch : authority_epoch(a);
    m->statement = a->fence.fenced ? buf_blob(&a->fence.believed) : raft_io_statement(&a->io);
    m->term = s.term;
    m->last_index = s.last_index;
    m->last_term = s.last_term;
    m->quorum = s.quorum;
    buf_init(&bytes, RPC_FRAME_MAX);
    msg_encode(&recovery_answer_desc, m, &bytes);
    fabric_answer(rq, bytes.err, buf_blob(&bytes));
    buf_fini(&bytes);
}

static void on_ask(void *data, struct fabric_request *rq, struct blob body)
{
    struct authority *a = data;
    struct recovery_ask ask;
    struct recovery_answer m = {0};
    struct core_status s;
    int rc = msg_decode(&recovery_ask_desc, MSG_LENIENT, body, &ask);
    if (rc != 0 || a->closing) {
        fabric_answer(rq, rc != 0 ? rc : -ERR_CLOSED, blob_of(NULL, 0));
        return;
    }
    const struct uuid from = fabric_request_peer(rq)->identity.node_id;
    if (ask.epoch > authority_epoch(a) && ask.statement.len > 0) {
        (void)believe(a, ask.statement, authority_epoch(a), NULL);
    }
    check_rival(a, ask.epoch, ask.statement);
    core_status(a->core, &s);
    bool decides = s.role == CORE_LEADER && s.quorum && !a->fence.fenced &&
                   ask.epoch < authority_epoch(a) && fsm_level(a->fsm) >= LEVEL_RECOVERY;
    if (decides && ask.step == RECOVERY_RETURN) {
        m.verdict = is_voter(&s, core_raft_id(&from)) ? (uint64_t)RECOVERY_SAYS_WAIT
                                                      : verdict_for(a, &from, &m.rows);
    } else if (ask.step == RECOVERY_HEAL) {
        m.verdict = heal_verdict(a, &s, &from, ask.why);
        m.commit_index = s.commit_index;
    } else if (decides && ask.step == RECOVERY_REPORT) {
        store_report(a, &from, ask.report);
    }
    answer(rq, a, &m);
}

void fence_serve(struct authority *a)
{
    fabric_serve(a->cfg.fabric, &(struct fabric_service){.name = "recovery",
                                                         .flags = FABRIC_SVC_AUTHORITY,
                                                         .data = a,
                                                         .request = on_ask});
}

/* --- what we ask --- */

static void answered(struct fabric_call *call, int rc, struct blob body);

static void ask(struct authority *a, const struct raft_peer *to, enum recovery_step step,
                uint64_t first_row)
{
    struct buf rows;
    struct buf report;
    struct buf bytes;
    buf_init(&rows, CMD_BODY_MAX);
    buf_init(&report, CMD_BODY_MAX - 64);
    buf_init(&bytes, RPC_FRAME_MAX);
    struct recovery_ask m = {
        .step = (uint64_t)step,
        .epoch = authority_epoch(a),
        .statement = raft_io_statement(&a->io),
    };
    if (step == RECOVERY_REPORT) {
        struct divergence_report r = {.node_id = a->cfg.node_id,
                                      .epoch = a->fence.epoch,
                                      .from_epoch = authority_epoch(a),
                                      .first_row = first_row};
        divergence_put(&a->fence.divergence, &r, &rows, &report);
        m.report = buf_blob(&report);
    }
    msg_encode(&recovery_ask_desc, &m, &bytes);
    a->fence.call = (struct fabric_call){.data = a};
    a->fence.asked = to->id;
    if (bytes.err == 0 && report.err == 0 &&
        fabric_call_start(a->cfg.fabric, &a->fence.call, &to->node_id, "recovery", buf_blob(&bytes),
                          ASK_TIMEOUT_MS, answered) == 0) {
        a->fence.busy = true;
    }
    buf_fini(&rows);
    buf_fini(&report);
    buf_fini(&bytes);
}

static void on_verdict(struct authority *a, const struct recovery_answer *m)
{
    struct raft_peer *p;
    raft_id id = a->fence.asked;
    HASH_FIND(hh, a->net.peers, &id, sizeof id, p);
    if (m->epoch < a->fence.epoch || p == NULL) {
        return; /* it has not heard of the epoch itself */
    }
    if (m->verdict == RECOVERY_SAYS_REPORT) {
        ask(a, p, RECOVERY_REPORT, m->rows);
    } else if (m->verdict == RECOVERY_SAYS_COME && a->fence.restart_at_ms == 0) {
        leave(a);
    }
}

static void answered(struct fabric_call *call, int rc, struct blob body)
{
    struct authority *a = call->data;
    struct recovery_answer m;
    a->fence.busy = false;
    if (a->closing || rc != 0 || msg_decode(&recovery_answer_desc, MSG_LENIENT, body, &m) != 0) {
        return;
    }
    check_rival(a, m.epoch, m.statement);
    if (m.epoch > authority_epoch(a) && m.statement.len > 0) {
        (void)believe(a, m.statement, authority_epoch(a), NULL);
    }
    if (a->fence.fenced && m.verdict != RECOVERY_SAYS_NOTHING) {
        on_verdict(a, &m);
    }
}

void fence_other_epoch(struct authority *a, raft_id from, uint64_t epoch)
{
    struct raft_peer *p;
    (void)epoch; /* a number is no proof */
    HASH_FIND(hh, a->net.peers, &from, sizeof from, p);
    if (p != NULL) {
        p->other_epoch = true;
    }
}

/* In turn, so that one that does not answer keeps nobody waiting. Fenced: everybody; else those that
 * speak of another epoch. */
static struct raft_peer *next_to_ask(struct authority *a)
{
    struct raft_peer *p;
    struct raft_peer *tmp;
    struct raft_peer *first = NULL;
    struct raft_peer *next = NULL;
    HASH_ITER(hh, a->net.peers, p, tmp)
    {
        if (!a->fence.fenced && !p->other_epoch) {
            continue;
        }
        if (first == NULL || p->id < first->id) {
            first = p;
        }
        if (p->id > a->fence.asked && (next == NULL || p->id < next->id)) {
            next = p;
        }
    }
    return next != NULL ? next : first;
}

void fence_tick(struct authority *a, uint64_t now_ms)
{
    if (a->fence.restart_at_ms != 0 && now_ms >= a->fence.restart_at_ms && !a->fence.leaving) {
        a->fence.leaving = true;
        a->cfg.restart(a->cfg.data);
        return;
    }
    if (a->fence.believed.len > 0 && !a->fence.fenced) {
        fence_now(a);
    }
    if (a->fence.busy || a->fence.leaving || now_ms < a->fence.next_ms) {
        return;
    }
    struct raft_peer *p = next_to_ask(a);
    if (p == NULL) {
        return;
    }
    a->fence.next_ms = now_ms + ASK_EVERY_MS;
    p->other_epoch = false;
    ask(a, p, a->fence.fenced ? RECOVERY_RETURN : RECOVERY_HELLO, 0);
}
