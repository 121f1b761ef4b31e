/* What fence.c of the authority does around the pure parts, in virtual time: a node that hears of another
 * epoch asks for the statement, checks it, stops, finds what its side decided alone, hands that over, and
 * comes back empty once the owner consents. */
#include "sim.h"

#include "authority/core_impl.h"
#include "pki/statement.h"

#define ASK_EVERY_US (300 * MS)
#define ANSWER_US (2 * SEC)

/* The note beside the log outlives the process. */
void fence_boot(struct node *n)
{
    n->fence = (struct fenced){
        .heard = -1, .commit_index = n->fence.commit_index, .by = n->fence.by};
}

void fence_gone(struct node *n)
{
    if (n->fence.has_divergence) {
        divergence_fini(&n->fence.divergence);
        n->fence.has_divergence = false;
    }
}

static struct oracle *history_of(struct world *w, struct blob statement)
{
    for (size_t i = 1; i < SIM_HISTORIES; i++) {
        if (blob_equal(statement, buf_blob(&w->oracles[i].statement))) {
            return &w->oracles[i];
        }
    }
    return w->newest;
}

static void find_divergence(struct node *n, const struct recovery_statement *s)
{
    struct raft_store_loaded log = {0};
    struct errmsg em = ERRMSG_INIT;
    buf_init(&log.snapshot_conf, SIZE_MAX);
    buf_init(&log.snapshot_image, SIZE_MAX);
    /* What is on its way to the disk belongs to the log too. */
    disk_wait(&n->disk);
    if (n->disk.store.ops->load(&n->disk.store, &log, &em) == 0) {
        divergence_find(&log, s, n->fence.commit_index, &n->fence.divergence);
        n->fence.has_divergence = true;
    }
    raft_store_loaded_fini(&log);
}

static void fence(struct node *n, struct blob statement)
{
    struct recovery_statement s;
    if (statement_verify(statement, recovery_root_key(n->w), recovery_cluster(n->w), &s, NULL) ==
        0) {
        const struct rec_list *log = &n->disk.view;
        n->fence.is = true;
        n->fence.log_end = log->count > 0 ? log->first + log->count - 1 : 0;
        core_fence(n->core);
        find_divergence(n, &s);
    }
}

void fence_resume(struct node *n)
{
    if (n->fence.by != NULL) {
        fence(n, buf_blob(&n->fence.by->statement));
    }
}

void fence_shown(struct node *n, struct blob statement)
{
    struct recovery_statement s;
    struct core_status status;
    if (statement_verify(statement, recovery_root_key(n->w), recovery_cluster(n->w), &s, NULL) !=
            0 ||
        s.epoch <= (n->fence.is ? n->fence.by->epoch : raft_io_epoch(&n->io))) {
        return;
    }
    fence_gone(n);
    core_status_brief(n->core, &status);
    if (!n->fence.is) {
        n->fence.commit_index = status.commit_index;
    }
    n->fence.by = history_of(n->w, statement);
    fence(n, statement);
}

/* --- coming back --- */

struct unheard {
    struct core_proposal p;
};

static void heard(struct core_proposal *p, int rc, const struct fsm_result *result)
{
    (void)rc;
    (void)result; /* the state says what came of it */
    free(container_of(p, struct unheard, p));
}

void world_propose(struct node *leader, const struct cmd *cmd, const void *body)
{
    struct unheard *u = xcalloc(1, sizeof *u);
    struct buf bytes;
    struct fsm_position at;
    struct cmd c = *cmd;
    fsm_position(leader->fsm, &at);
    c.time_ms = c.time_ms > at.time_ms ? c.time_ms : at.time_ms;
    buf_init(&bytes, SIZE_MAX);
    cmd_encode(&c, body, &bytes);
    CHECK(bytes.err == 0);
    if (core_propose(leader->core, &u->p, buf_blob(&bytes), heard) != 0) {
        free(u);
    }
    buf_fini(&bytes);
}

static void report(struct node *n, struct node *leader, uint64_t first)
{
    struct buf rows;
    struct buf bytes;
    uint8_t hash[PKI_HASH_BYTES];
    char actor[UUID_TEXT_MAX];
    buf_init(&rows, CMD_BODY_MAX);
    buf_init(&bytes, CMD_BODY_MAX);
    struct divergence_report r = {
        .node_id = n->id,
        .epoch = n->fence.by->epoch,
        .from_epoch = raft_io_epoch(&n->io),
        .first_row = first,
    };
    divergence_put(&n->fence.divergence, &r, &rows, &bytes);
    CHECK(bytes.err == 0);
    pki_sha256(buf_blob(&bytes), hash);
    uuid_format(&n->id, actor);
    struct divergence_reported body = {.report = buf_blob(&bytes)};
    struct cmd cmd = {.kind = CMD_DIVERGENCE_REPORTED,
                      .request_id = uuid_make(0, hash),
                      .time_ms = node_wall_ms(leader),
                      .actor_kind = blob_str(ACTOR_NODE),
                      .actor_id = blob_str(actor)};
    world_propose(leader, &cmd, &body);
    n->w->stats.reported++;
    buf_fini(&rows);
    buf_fini(&bytes);
}

static void come_back(struct node *n)
{
    struct oracle *by = n->fence.by;
    node_crash(n);
    disk_give_up(&n->disk, by->epoch, buf_blob(&by->statement));
    n->oracle = by;
    n->fence.commit_index = 0;
    n->fence.by = NULL;
    n->voters = n->voters_before = 0;
    (void)world_schedule(n->w, between(n->w, 1 * MS, 300 * MS), EV_START, n->i);
}

static void ask_to_return(struct node *n, struct node *leader)
{
    struct fenced *f = &n->fence;
    char id[UUID_TEXT_MAX];
    char status[16] = "";
    uint64_t stored = 0;
    if (f->divergence.last_index == 0) {
        come_back(n); /* nothing was ever here */
        return;
    }
    uuid_format(&n->id, id);
    struct db_stmt *st = db_prepare(fsm_db(leader->fsm),
                                    "SELECT status, rows_stored FROM divergence_reports"
                                    " WHERE node_id = ? AND epoch = ?");
    db_bind_text(st, id);
    db_bind_int(st, (int64_t)f->by->epoch);
    if (db_step(st) == 1) {
        (void)snprintf(status, sizeof status, "%s", db_col_text(st, "status"));
        stored = (uint64_t)db_col_int(st, "rows_stored");
    }
    db_done(st);
    f->busy_until_us = n->w->now_us + ANSWER_US;
    if (strcmp(status, "merged") == 0 ||
        (strcmp(status, "reported") == 0 && f->divergence.rows_total == 0)) {
        /* As a voter here it would be one that has forgotten. */
        if ((members_voters(leader) >> n->i & 1) == 0) {
            come_back(n);
        }
    } else if (strcmp(status, "reported") == 0) {
        recovery_consent(n->w, leader, n, f->divergence.rows_total);
    } else {
        report(n, leader, stored);
    }
}

static void step(struct node *n)
{
    struct world *w = n->w;
    if (!n->fence.is && n->fence.heard >= 0) {
        struct node *p = &w->nodes[n->fence.heard];
        n->fence.heard = -1;
        if (p->up && !p->failed && p->paused_until_us <= w->now_us && net_reaches(w, n->i, p->i)) {
            fence_shown(n, raft_io_statement(&p->io));
            fence_shown(p, raft_io_statement(&n->io));
        }
    }
    struct node *leader = members_leader(w);
    if (n->fence.is && leader != NULL && leader->oracle != n->fence.by &&
        net_reaches(w, n->i, leader->i)) {
        fence_shown(n, raft_io_statement(&leader->io)); /* the owner recovered once more */
    }
    if (n->fence.is && n->fence.has_divergence && leader != NULL &&
        fsm_level(leader->fsm) >= LEVEL_RECOVERY && leader != n && leader->oracle == n->fence.by &&
        leader->paused_until_us <= w->now_us && net_reaches(w, n->i, leader->i) &&
        w->now_us >= n->fence.busy_until_us && core_check_leader(leader->core) == 0) {
        ask_to_return(n, leader);
    }
}

void fence_event(struct world *w)
{
    for (int i = 0; i < w->n && !w->violated; i++) {
        struct node *n = &w->nodes[i];
        if (n->up && !n->failed && n->paused_until_us <= w->now_us) {
            step(n);
        }
    }
    (void)world_schedule(w, ASK_EVERY_US, EV_FENCE, -1);
}

/* --- at the end --- */

static bool is_reported(struct node *n, const struct uuid *request)
{
    char id[UUID_TEXT_MAX];
    uuid_format(request, id);
    struct db_stmt *st = db_prepare(fsm_db(n->fsm),
                                    "SELECT 1 FROM divergence_entries WHERE request_id = ?");
    db_bind_text(st, id);
    bool found = db_step(st) == 1;
    db_done(st);
    return found;
}

/* What the other side acknowledged after the histories parted is shown to the owner, each command of it. */
void fence_check_end(struct world *w)
{
    struct node *leader = members_leader(w);
    if (w->newest == w->oracles || !recovery_severs(w)) {
        return;
    }
    const struct oracle *o = w->newest - 1;
    for (size_t i = 0; i < o->rows_cap && !w->violated; i++) {
        const struct request_row *r = &o->rows[i];
        if (r->answered && r->index > w->newest->base && !is_reported(leader, &r->id)) {
            violate(w,
                    "S12: what was acknowledged at %llu of epoch %llu is neither here nor reported",
                    (unsigned long long)r->index, (unsigned long long)o->epoch);
        }
    }
}
