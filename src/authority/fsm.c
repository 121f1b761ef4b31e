/* The engine: an entry is decoded whole before anything changes, its commands run in order inside
 * one transaction, and the first result of each request id is kept.
 *
 *   entry ── decode strictly ──> commands ──┬─ seen id: the first result again (S4)
 *                                           └─ new: handler
 *                                                ok       -> changes stay
 *                                                refusal  -> changes undone, result and audit stay
 *                                                failure  -> the whole entry undone, replica stops
 *
 * Undoing one command needs a savepoint, which copies every page the command touches. Handlers
 * check before they write, so almost no refusal has anything to undo: an entry runs without
 * savepoints first, and once more with them when it turns out that one was needed. */
#include "authority/fsm_impl.h"
#include "base/clock.h"

#define DOCS_MAX ((size_t)256 << 20)
#define PRUNE_PER_COMMAND 2

struct command {
    struct cmd cmd;
    union {
#define MEMBER_(NAME, num, name, ...) struct name name;
        CMD_KINDS(MEMBER_)
#undef MEMBER_
    } body;
    size_t doc_at;
    size_t doc_len;
};

int fsm_new_of(const struct db_migration *schema, struct fsm **ret, struct errmsg *em)
{
    struct fsm *f = xcalloc(1, sizeof *f);
    f->schema = schema;
    f->vars.level = FSM_LEVEL_FIRST;
    fsm_witness_reset(f);
    int rc = fsm_db_open(&f->db, em);
    if (rc == 0) {
        rc = db_migrate_to(f->db, schema, FSM_LEVEL_FIRST, em);
    }
    if (rc != 0) {
        fsm_free(f);
        return rc;
    }
    fsm_track_attach(f);
    *ret = f;
    return 0;
}

int fsm_new(struct fsm **ret, struct errmsg *em)
{
    return fsm_new_of(migrations_state, ret, em);
}

unsigned fsm_level(const struct fsm *f)
{
    return f->vars.level;
}

unsigned fsm_level_known(const struct fsm *f)
{
    return (unsigned)db_migrations_count(f->schema);
}

void fsm_free(struct fsm *f)
{
    if (f == NULL) {
        return;
    }
    fsm_track_free(f);
    fsm_witness_reset(f);
    history_fini(&f->history);
    db_close(f->db);
    free(f);
}

void fsm_position(const struct fsm *f, struct fsm_position *ret)
{
    *ret = (struct fsm_position){
        .epoch = f->vars.epoch,
        .term = f->vars.term,
        .index = f->vars.index,
        .time_ms = f->vars.time_ms,
        .config_index = f->vars.config_index,
        .audit_seq = f->vars.audit_seq,
    };
    memcpy(ret->digest, f->digest, sizeof ret->digest);
    memcpy(ret->audit_head, f->vars.audit_head, sizeof ret->audit_head);
}

struct db *fsm_db(struct fsm *f)
{
    return f->db;
}

struct fsm_ctx *fsm_refuse_text(struct fsm_ctx *x, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(x->detail, sizeof x->detail, fmt, ap);
    va_end(ap);
    x->refused = true;
    return x;
}

/* --- decoding --- */

static int decode_command(struct blob in, struct command *c, struct errmsg *em)
{
    int rc = msg_decode(&cmd_desc, MSG_STRICT, in, &c->cmd);
    if (rc != 0) {
        return errmsg_set(em, rc, "a command does not decode: %s", err_text(rc));
    }
    const struct msg_desc *desc = cmd_body_desc(c->cmd.kind);
    if (desc == NULL) {
        return errmsg_set(em, -ERR_UNSUPPORTED, "command kind %llu is unknown to this version",
                          (unsigned long long)c->cmd.kind);
    }
    CHECK(desc->size <= sizeof c->body);
    rc = msg_decode(desc, MSG_STRICT, c->cmd.body, &c->body);
    if (rc != 0) {
        return errmsg_set(em, rc, "the body of a %s does not decode: %s",
                          cmd_kind_name(c->cmd.kind), err_text(rc));
    }
    return 0;
}

static int decode_entry(struct blob in, uint64_t term, struct command **ret, size_t *ret_n,
                        struct errmsg *em)
{
    struct cmd_entry entry;
    int rc = msg_decode(&cmd_entry_desc, MSG_STRICT, in, &entry);
    if (rc != 0) {
        return errmsg_set(em, rc, "the entry does not decode: %s", err_text(rc));
    }
    if (entry.version != CMD_VERSION) {
        return errmsg_set(em, -ERR_UNSUPPORTED, "entry version %llu is unknown",
                          (unsigned long long)entry.version);
    }
    if (entry.term != term) {
        return errmsg_set(em, -ERR_CORRUPT, "the entry says term %llu, the log %llu",
                          (unsigned long long)entry.term, (unsigned long long)term);
    }
    struct command *list = xcalloc(entry.commands.count, sizeof *list);
    struct mp_reader r;
    mp_reader_init(&r, entry.commands.raw);
    for (uint32_t i = 0; rc == 0 && i < entry.commands.count; i++) {
        struct blob one = mp_get_bin(&r, CMD_BODY_MAX + 1024);
        rc = r.err != 0 ? errmsg_set(em, r.err, "command %u of the entry is not bytes", i)
                        : decode_command(one, &list[i], em);
    }
    if (rc != 0) {
        free(list);
        return rc;
    }
    *ret = list;
    *ret_n = entry.commands.count;
    return 0;
}

/* --- who may ask what --- */

static bool actor_may(const struct fsm_ctx *x)
{
    static const struct {
        const char *kind;
        unsigned bit;
    } actors[] = {
        {ACTOR_OWNER, CMD_BY_OWNER},
        {ACTOR_ADMIN, CMD_BY_ADMIN},
        {ACTOR_NODE, CMD_BY_NODE},
        {ACTOR_SYSTEM, CMD_BY_SYSTEM},
    };
    for (size_t i = 0; i < ARRAY_SIZE(actors); i++) {
        if (blob_equal(x->actor_kind, blob_str(actors[i].kind))) {
            return (cmd_kind_who(x->cmd->kind) & actors[i].bit) != 0;
        }
    }
    return false;
}

static int dispatch(struct fsm_ctx *x, const struct command *c)
{
    if (!actor_may(x)) {
        return fsm_refuse(x, -ERR_DENIED, "a %.*s may not ask for %s", (int)x->actor_kind.len,
                          (const char *)x->actor_kind.data, cmd_kind_name(x->cmd->kind));
    }
    bool needs_cluster = x->cmd->kind != CMD_CLUSTER_INIT && x->cmd->kind != CMD_LEVEL_RAISE;
    if (needs_cluster && x->v->cluster_id[0] == '\0') {
        return fsm_refuse(x, -ERR_CONFLICT, "there is no cluster yet: `rap init` makes one");
    }
    if (cmd_kind_level(x->cmd->kind) > x->v->level) {
        return fsm_refuse(x, -ERR_UNSUPPORTED, FSM_LEVEL_TEXT, x->v->level,
                          cmd_kind_name(x->cmd->kind), cmd_kind_level(x->cmd->kind));
    }
    switch ((enum cmd_kind)c->cmd.kind) {
#define CASE_(NAME, num, name, ...) \
    case CMD_##NAME:                \
        return fsm_##name(x, &c->body.name);
        CMD_KINDS(CASE_)
#undef CASE_
    }
    CHECK(false);
    return -ERR_UNSUPPORTED;
}

/* --- results --- */

static void put_detail(struct mp_writer *w, const char *text)
{
    struct mp_doc d;
    mp_doc_begin(w, &d);
    mp_doc_str(w, &d, "detail", text);
    mp_doc_end(w, &d);
}

static const char reused_detail[] =
    "this request id was used for another request: send a new request with a new id";

/* 1: there is a first result (or the id was used for something else), 0: there is none. kind 0:
 * any. */
static int find_result(struct db *db, const struct uuid *id, uint64_t kind, struct blob hash,
                       int *ret_rc, struct buf *doc)
{
    char text[UUID_TEXT_MAX];
    char hex[HEX32];
    struct db_stmt *st = db_prepare(db, "SELECT request_hash, kind, rc, doc FROM request_results"
                                        " WHERE request_id = ?");
    db_bind_text(st, fsm_id(id, text));
    int rc = db_step(st);
    if (rc == 1) {
        bool same = strcmp(db_col_text(st, "request_hash"), fsm_hex(hash, hex)) == 0 &&
                    (kind == 0 || (uint64_t)db_col_int(st, "kind") == kind);
        if (same) {
            struct blob b = db_col_blob(st, "doc");
            buf_add(doc, b.data, b.len);
            *ret_rc = (int)db_col_int(st, "rc");
        } else {
            struct mp_writer w;
            mp_writer_init(&w, doc);
            put_detail(&w, reused_detail);
            *ret_rc = -ERR_REUSED_ID;
        }
    }
    db_done(st);
    return rc;
}

bool fsm_find_result(struct fsm *f, const struct uuid *request_id, struct blob request_hash,
                     int *ret_rc, struct buf *out)
{
    if (request_hash.len != 0 && request_hash.len != 32) {
        return false;
    }
    return find_result(f->db, request_id, 0, request_hash, ret_rc, out) == 1;
}

static int keep_result(struct fsm_ctx *x, int rc, struct blob doc)
{
    if (PLANTED("request_id_forgotten")) {
        return 0;
    }
    char id[UUID_TEXT_MAX];
    char hash[HEX32];
    struct db_stmt *st = db_prepare(x->db, "INSERT INTO request_results (request_id, request_hash,"
                                           " kind, rc, doc, \"index\", created_at)"
                                           " VALUES (?, ?, ?, ?, ?, ?, ?)");
    db_bind_text(st, fsm_id(&x->cmd->request_id, id));
    db_bind_text(st, fsm_hex(x->cmd->request_hash, hash));
    db_bind_int(st, (int64_t)x->cmd->kind);
    db_bind_int(st, rc);
    db_bind_blob(st, doc);
    db_bind_int(st, (int64_t)x->index);
    db_bind_int(st, x->now_ms);
    return db_run(st);
}

/* Forgets results older than a day, a few at a time: seq rises with created_at, so the oldest row
 * tells whether there is anything to do. */
static int prune_results(struct fsm *f, int64_t now_ms, size_t max)
{
    for (size_t i = 0; i < max; i++) {
        struct db_stmt *st = db_prepare(
            f->db, "SELECT seq, created_at FROM request_results ORDER BY seq LIMIT 1");
        int rc = db_step(st);
        int64_t seq = rc == 1 ? db_col_int(st, "seq") : 0;
        bool old = rc == 1 && db_col_int(st, "created_at") < now_ms - FSM_RESULT_LIFE_MS;
        db_done(st);
        if (rc < 0 || !old) {
            return rc < 0 ? rc : 0;
        }
        st = db_prepare(f->db, "DELETE FROM request_results WHERE seq = ?");
        db_bind_int(st, seq);
        rc = db_run(st);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* --- one command --- */

/* Refusals that somebody should be able to find later: an enrolling host's, and every refused
 * high-risk act. Not what may succeed on a retry. */
static bool refusal_is_audited(const struct fsm_ctx *x, int rc)
{
    if (err_retryable(rc) || x->v->cluster_id[0] == '\0') {
        return false;
    }
    return x->cmd->kind == CMD_JOIN_SUBMIT || cmd_kind_high_risk(x->cmd->kind) || rc == -ERR_DENIED;
}

static int audit_refusal(struct fsm_ctx *x, int rc, const struct command *c)
{
    char fingerprint[HEX32];
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_text(&j, "command", cmd_kind_name(x->cmd->kind));
    fsm_json_text(&j, "error", err_slug(rc));
    fsm_json_text(&j, "detail", x->detail);
    bool join = x->cmd->kind == CMD_JOIN_SUBMIT;
    if (join) {
        const struct join_submit *b = &c->body.join_submit;
        fsm_json_str(&j, "node_name", b->node_name);
        fsm_json_text(&j, "node_fingerprint", fsm_hex(b->fingerprint, fingerprint));
        fsm_json_str(&j, "source_address", b->source_address);
    }
    const struct fsm_audit a = {
        .event = join ? "join_denied" : "command_refused",
        .subject_type = join ? "join_request" : "command",
    };
    int rv = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rv;
}

/* Not an error of anybody's: run the entry again with savepoints. */
#define NEED_SAVEPOINTS 1

static int savepoint(struct fsm_ctx *x, const char *sql)
{
    return x->savepoints ? db_run(db_prepare(x->db, sql)) : 0;
}

/* What stood before a command. */
struct mark {
    struct fsm_vars vars;
    size_t changes_len, before_len, doc_at;
};

static int undo(struct fsm_ctx *x, const struct mark *m)
{
    if (!x->savepoints && x->f->changes.len != m->changes_len) {
        return NEED_SAVEPOINTS;
    }
    int rc = savepoint(x, "ROLLBACK TO command");
    *x->v = m->vars;
    x->f->changes.len = m->changes_len;
    x->f->before.len = m->before_len;
    x->doc.out->len = m->doc_at;
    x->config_changed = false;
    return rc;
}

/* Runs the handler and leaves its document in x->doc. 0 and *ret_rc, NEED_SAVEPOINTS, or a
 * failure. */
static int run_new(struct fsm_ctx *x, const struct command *c, int *ret_rc)
{
    const struct mark at = {.vars = *x->v,
                            .changes_len = x->f->changes.len,
                            .before_len = x->f->before.len,
                            .doc_at = x->doc.out->len};
    int rc = savepoint(x, "SAVEPOINT command");
    if (rc != 0) {
        return rc;
    }
    x->v->time_ms = x->now_ms;
    int result = dispatch(x, c);
    if (result == -ERR_CONFLICT && !x->refused) {
        /* A constraint stands behind every check: an id used twice, for one. All replicas see the
         * same rows, so all refuse. */
        (void)fsm_refuse(x, result, "an id of this %s is in use", cmd_kind_name(c->cmd.kind));
    }
    if (result != 0 && !x->refused) {
        return result;
    }
    if (result != 0) {
        rc = undo(x, &at);
        x->v->time_ms = x->now_ms;
        if (rc == 0 && refusal_is_audited(x, result)) {
            rc = audit_refusal(x, result, c);
        }
        put_detail(&x->doc, x->detail);
    }
    if (rc == 0) {
        rc = savepoint(x, "RELEASE command");
    }
    struct blob doc = blob_of(x->doc.out->data + at.doc_at, x->doc.out->len - at.doc_at);
    if (rc == 0 && x->doc.out->err == 0 && !err_retryable(result)) {
        rc = keep_result(x, result, doc);
    }
    if (rc == 0) {
        *ret_rc = result;
    }
    return rc;
}

/* What is made of an entry while it is applied. */
struct run {
    struct command *list;
    size_t n;
    struct fsm_result *results;
    struct buf docs;
    bool savepoints;
    bool config_changed;
};

/* S6: stamps never go back, whatever the clock of a new leader says. */
static int64_t effective_time(const struct fsm *f, const struct cmd *cmd)
{
    if (PLANTED("stamp_goes_back")) {
        return cmd->time_ms;
    }
    return cmd->time_ms > f->vars.time_ms ? cmd->time_ms : f->vars.time_ms;
}

static int run_command(struct fsm *f, struct run *run, size_t i)
{
    struct command *c = &run->list[i];
    struct fsm_result *ret = &run->results[i];
    struct buf *docs = &run->docs;
    const struct cmd *cmd = &c->cmd;
    struct fsm_ctx x = {
        .f = f,
        .db = f->db,
        .v = &f->vars,
        .cmd = cmd,
        .now_ms = effective_time(f, cmd),
        .index = f->vars.index,
        .term = f->vars.term,
        .cluster_id = f->vars.cluster_id,
        .actor_kind = cmd->actor_kind,
        .actor_id = cmd->actor_id,
        .savepoints = run->savepoints,
    };
    if (PLANTED("fsm_uses_clock")) {
        x.now_ms = x.now_ms + clock_wall_ms() % 1000;
    }
    mp_writer_init(&x.doc, docs);
    *ret = (struct fsm_result){.request_id = cmd->request_id, .kind = cmd->kind};
    c->doc_at = docs->len;
    int rc = find_result(f->db, &cmd->request_id, cmd->kind, cmd->request_hash, &ret->rc, docs);
    if (rc == 1) {
        ret->replayed = ret->rc != -ERR_REUSED_ID;
        rc = 0;
    } else if (rc == 0) {
        rc = run_new(&x, c, &ret->rc);
        run->config_changed = run->config_changed || x.config_changed;
    }
    c->doc_len = docs->len - c->doc_at;
    return rc != 0 ? rc : docs->err;
}

/* --- the entry --- */

static int write_position(struct fsm *f, bool config_changed)
{
    if (f->vars.cluster_id[0] == '\0') {
        return 0;
    }
    int rc = 0;
    if (config_changed) {
        f->vars.config_index = f->vars.index;
        struct db_stmt *st = db_prepare(
            f->db, "UPDATE clusters SET config_version = ?, updated_at = ? WHERE id = ?");
        db_bind_int(st, (int64_t)f->vars.index);
        db_bind_int(st, f->vars.time_ms);
        db_bind_text(st, f->vars.cluster_id);
        rc = db_run(st);
    }
    if (rc == 0) {
        struct db_stmt *st = db_prepare(
            f->db,
            "UPDATE authority_applied SET epoch = ?, term = ?, \"index\" = ? WHERE cluster_id = ?");
        db_bind_int(st, (int64_t)f->vars.epoch);
        db_bind_int(st, (int64_t)f->vars.term);
        db_bind_int(st, (int64_t)f->vars.index);
        db_bind_text(st, f->vars.cluster_id);
        rc = db_run(st);
    }
    return rc;
}

static int apply_commands(struct fsm *f, struct run *run, struct errmsg *em)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < run->n; i++) {
        rc = run_command(f, run, i);
        if (rc < 0) {
            (void)errmsg_set(em, rc, "%s (command %zu) cannot be applied: %s: %s",
                             cmd_kind_name(run->list[i].cmd.kind), i, err_text(rc),
                             db_errmsg(f->db));
        }
    }
    if (rc == 0) {
        rc = prune_results(f, f->vars.time_ms, run->n * PRUNE_PER_COMMAND);
    }
    if (rc == 0) {
        rc = write_position(f, run->config_changed);
    }
    if (rc == 0) {
        rc = f->changes.err != 0 ? f->changes.err : f->before.err;
    }
    return rc;
}

/* Everything up to the commit. On anything but 0 the transaction is rolled back and f as before. */
static int attempt(struct fsm *f, struct run *run, uint64_t index, uint64_t term, struct errmsg *em)
{
    struct fsm_vars before = f->vars;
    int rc = db_begin(f->db);
    if (rc != 0) {
        return errmsg_set(em, rc, "cannot begin: %s", db_errmsg(f->db));
    }
    f->recording = true;
    f->vars.index = index;
    f->vars.term = term;
    rc = apply_commands(f, run, em);
    f->recording = false;
    if (rc != 0) {
        db_rollback(f->db);
        if (f->vars.level != before.level) {
            fsm_track_tables(f);
        }
        f->vars = before;
        run->config_changed = false;
        buf_clear(&run->docs);
        buf_clear(&f->changes);
        buf_clear(&f->before);
    }
    return rc;
}

static int finish(struct fsm *f, const struct fsm_vars *before, uint64_t index, struct errmsg *em)
{
    uint8_t digest[32];
    fsm_track_digest(f, index, digest);
    fsm_track_emit(f);
    int rc = db_commit(f->db);
    if (rc != 0) {
        (void)errmsg_set(em, rc, "cannot commit: %s", db_errmsg(f->db));
        db_rollback(f->db);
        fsm_track_tables(f);
        f->vars = *before;
        return rc;
    }
    memcpy(f->digest, digest, sizeof f->digest);
    fsm_ring_push(f, index, digest);
    fsm_witness_follow(f, index);
    return 0;
}

static int check_position(const struct fsm *f, uint64_t index, uint64_t term, struct errmsg *em)
{
    if (index <= f->vars.index || index > INT64_MAX) {
        return errmsg_set(em, -ERR_CORRUPT, "entry %llu after %llu", (unsigned long long)index,
                          (unsigned long long)f->vars.index);
    }
    if (term < f->vars.term || term > INT64_MAX) {
        return errmsg_set(em, -ERR_CORRUPT, "term %llu after %llu", (unsigned long long)term,
                          (unsigned long long)f->vars.term);
    }
    return 0;
}

int fsm_apply(struct fsm *f, uint64_t index, uint64_t term, struct blob entry, fsm_result_cb cb,
              void *data, struct errmsg *em)
{
    struct run run = {.savepoints = false};
    struct fsm_vars before = f->vars;
    int rc = check_position(f, index, term, em);
    if (rc == 0) {
        rc = decode_entry(entry, term, &run.list, &run.n, em);
    }
    if (rc != 0) {
        return rc;
    }
    run.results = xcalloc(run.n, sizeof *run.results);
    buf_init(&run.docs, DOCS_MAX);
    rc = attempt(f, &run, index, term, em);
    if (rc == NEED_SAVEPOINTS) {
        run.savepoints = true;
        rc = attempt(f, &run, index, term, em);
        CHECK(rc != NEED_SAVEPOINTS);
    }
    if (rc == 0) {
        rc = finish(f, &before, index, em);
    }
    if (rc == 0 && f->entry_cb != NULL) {
        struct fsm_position at;
        fsm_position(f, &at);
        f->entry_cb(f->entry_data, &at, buf_blob(&f->changes), buf_blob(&f->before));
    }
    if (rc == 0 && cb != NULL) {
        for (size_t i = 0; i < run.n; i++) {
            run.results[i].doc = blob_of(run.docs.data + run.list[i].doc_at, run.list[i].doc_len);
        }
        cb(data, run.n, run.results);
    }
    buf_clear(&f->changes);
    buf_clear(&f->before);
    buf_fini(&run.docs);
    free(run.results);
    free(run.list);
    return rc;
}
