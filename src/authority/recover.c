#include "authority/recover.h"

#include "authority/core.h"
#include "authority/fsm_impl.h"
#include "authority/raft_image.h"
#include "authority/raft_log.h"
#include "base/file.h"
#include "base/log.h"
#include "pki/statement.h"
#include "wire/node_msg.h"

#include <unistd.h>

struct recovery_plan {
    struct uuid node_id;
    struct raft_store_loaded log;
    struct fsm *fsm; /* the state at the end of the log */
    struct buf image;
    uint64_t base_index, base_term;
};

/* --- the state at the end of the log --- */

static int replay(struct recovery_plan *p, struct errmsg *em)
{
    const struct raft_store_loaded *l = &p->log;
    int rc = 0;
    if (l->has_snapshot) {
        struct buf image;
        buf_init(&image, IMAGE_MAX_BYTES);
        rc = raft_image_unpack(buf_blob(&l->snapshot_image), &image);
        rc = rc == 0 ? fsm_restore(p->fsm, buf_blob(&image), em)
                     : errmsg_set(em, -ERR_CORRUPT, "the snapshot does not unpack");
        buf_fini(&image);
        p->base_index = l->snapshot_index;
        p->base_term = l->snapshot_term;
    }
    for (size_t i = 0; rc == 0 && i < l->entries_count; i++) {
        const struct raft_store_entry *e = &l->entries[i];
        struct blob entry;
        if (e->index <= l->snapshot_index) {
            continue;
        }
        p->base_index = e->index;
        p->base_term = e->term;
        if (e->type != RAFT_COMMAND) {
            continue;
        }
        rc = raft_msg_unpad(e->data, &entry);
        if (rc == 0) {
            rc = fsm_apply(p->fsm, e->index, e->term, entry, NULL, NULL, em);
        } else {
            (void)errmsg_set(em, rc, "log entry %llu does not decode",
                             (unsigned long long)e->index);
        }
    }
    return rc;
}

int recovery_plan_of(struct raft_store_loaded *loaded, const struct uuid *node_id,
                     struct recovery_plan **ret, struct errmsg *em)
{
    struct recovery_plan *p = xcalloc(1, sizeof *p);
    p->node_id = *node_id;
    p->log = *loaded;
    *loaded = (struct raft_store_loaded){0};
    buf_init(&p->image, IMAGE_MAX_BYTES);
    int rc = fsm_new(&p->fsm, em);
    if (rc == 0) {
        rc = replay(p, em);
    }
    if (rc == 0 && (p->base_index == 0 || p->fsm->vars.cluster_id[0] == '\0')) {
        rc = errmsg_set(em, -ERR_CONFLICT,
                        "the log of this authority holds no cluster: choose another one");
    }
    if (rc == 0) {
        rc = fsm_image(p->fsm, &p->image);
    }
    if (rc != 0) {
        recovery_plan_free(p);
        return errmsg_wrap(em, rc, "raft.db");
    }
    *ret = p;
    return 0;
}

int recovery_plan_open(const char *dir, const struct uuid *node_id, struct recovery_plan **ret,
                       struct errmsg *em)
{
    struct raft_store_loaded log;
    char *path = path_join(dir, "raft.db");
    int rc = raft_log_read(path, &log, em);
    if (rc == 0) {
        rc = recovery_plan_of(&log, node_id, ret, em);
    } else {
        raft_store_loaded_fini(&log);
    }
    free(path);
    return rc;
}

/* The head is signed, the image is what it says by its hash; whether they speak of one state is
 * checked here. */
static int check_head(const struct recovery_plan *p, const struct backup_file *f, struct errmsg *em)
{
    struct uuid cluster_id;
    const struct backup_header *h = &f->header;
    bool same = uuid_parse(p->fsm->vars.cluster_id, &cluster_id) == 0 &&
                uuid_equal(&cluster_id, &h->cluster_id) && p->fsm->vars.epoch == h->epoch &&
                p->fsm->vars.index == h->index && p->fsm->vars.term == h->term &&
                blob_equal(h->digest, blob_of(p->fsm->digest, sizeof p->fsm->digest)) &&
                blob_equal(h->audit_head,
                           blob_of(p->fsm->vars.audit_head, sizeof p->fsm->vars.audit_head));
    return same ? 0
                : errmsg_set(em, -ERR_CORRUPT, "the backup holds another state than its head says");
}

int recovery_plan_of_backup(const struct backup_file *f, const struct uuid *node_id,
                            struct recovery_plan **ret, struct errmsg *em)
{
    struct recovery_plan *p = NULL;
    struct raft_store_loaded log = {
        .has_snapshot = true,
        .snapshot_index = f->header.index,
        .snapshot_term = f->header.term,
        .term = f->header.term,
        .epoch = f->header.epoch,
    };
    buf_init(&log.snapshot_image, f->packed.len);
    buf_add(&log.snapshot_image, f->packed.data, f->packed.len);
    int rc = recovery_plan_of(&log, node_id, &p, em);
    if (rc == 0) {
        rc = check_head(p, f, em);
    }
    if (rc != 0) {
        recovery_plan_free(p);
        return rc;
    }
    *ret = p;
    return 0;
}

int recovery_plan_find(const struct recovery_plan *p, const char *text, struct uuid *ret,
                       char ret_name[NAME_MAX_BYTES + 1])
{
    struct db_stmt *st = db_prepare(p->fsm->db,
                                    "SELECT a.node_id, n.name FROM cluster_authorities a"
                                    " JOIN nodes n ON n.id = a.node_id"
                                    " WHERE a.status <> 'removed'"
                                    " AND (n.name = ?1 OR n.id = ?1)");
    db_bind_text(st, text);
    int rc = db_step(st) == 1 ? uuid_parse(db_col_text(st, "node_id"), ret) : -ERR_NOT_FOUND;
    if (rc == 0) {
        (void)snprintf(ret_name, NAME_MAX_BYTES + 1, "%s", db_col_text(st, "name"));
    }
    db_done(st);
    return rc;
}

void recovery_plan_set_node(struct recovery_plan *p, const struct uuid *node_id)
{
    p->node_id = *node_id;
}

void recovery_plan_free(struct recovery_plan *p)
{
    if (p != NULL) {
        raft_store_loaded_fini(&p->log);
        fsm_free(p->fsm);
        buf_fini(&p->image);
        free(p);
    }
}

/* --- the statement --- */

struct runs {
    struct recovery_run list[RECOVERY_TRAIL_MAX];
    uint32_t count;
};

/* The newest runs: with all of them taken, the oldest goes. */
static void add_run(struct runs *r, uint64_t term, uint64_t index)
{
    if (r->count > 0 && r->list[r->count - 1].term == term) {
        return;
    }
    if (r->count == ARRAY_SIZE(r->list)) {
        memmove(r->list, r->list + 1, (r->count - 1) * sizeof r->list[0]);
        r->count--;
    }
    r->list[r->count++] = (struct recovery_run){.term = term, .first_index = index};
}

static void find_runs(const struct recovery_plan *p, struct runs *ret)
{
    *ret = (struct runs){.count = 0};
    if (p->log.has_snapshot &&
        (p->log.entries_count == 0 || p->log.entries[0].index > p->log.snapshot_index)) {
        add_run(ret, p->log.snapshot_term, p->log.snapshot_index);
    }
    for (size_t i = 0; i < p->log.entries_count; i++) {
        add_run(ret, p->log.entries[i].term, p->log.entries[i].index);
    }
}

static uint64_t new_epoch(const struct recovery_plan *p, const struct recovery_terms *t)
{
    return t->epoch != 0 ? t->epoch : p->log.epoch + 1;
}

/* Who signs what is decided from there on (decision 0008): the one voter. Nothing when the state has no
 * authority set, or does not know the host that goes on. */
static void put_set(const struct recovery_plan *p, const struct recovery_terms *t, uint64_t epoch,
                    const struct uuid *cluster_id, struct buf *out)
{
    struct witness_member voter = {.node_id = p->node_id};
    char id[UUID_TEXT_MAX];
    uuid_format(&p->node_id, id);
    struct db_stmt *st = db_prepare(p->fsm->db,
                                    "SELECT public_key FROM node_identities"
                                    " WHERE node_id = ? AND identity_status = 'active'");
    db_bind_text(st, id);
    bool known = db_step(st) == 1 && db_col_blob(st, "public_key").len == PKI_KEY_BYTES;
    if (known) {
        memcpy(voter.public_key, db_col_blob(st, "public_key").data, PKI_KEY_BYTES);
    }
    db_done(st);
    if (t->node_key.len == PKI_KEY_BYTES) {
        memcpy(voter.public_key, t->node_key.data, PKI_KEY_BYTES);
        known = true;
    }
    if (known && p->fsm->set.known) {
        witness_set_build(&p->fsm->set, cluster_id, epoch, &voter, 1, out);
    }
}

static void encode_statement(const struct recovery_plan *p, const struct recovery_terms *t,
                             struct buf *out)
{
    struct runs runs;
    struct buf trail;
    struct buf voters;
    struct buf set;
    struct mp_writer w;
    buf_init(&trail, RECOVERY_BODY_MAX);
    buf_init(&voters, 256);
    buf_init(&set, RECOVERY_SET_MAX);
    find_runs(p, &runs);
    uint32_t count = 0;
    for (uint32_t i = 0; i < runs.count; i++) {
        msg_list_add(&recovery_run_desc, &runs.list[i], &trail, &count);
    }
    mp_writer_init(&w, &voters);
    mp_put_uuid(&w, &p->node_id);
    struct recovery_statement s = {
        .version = RECOVERY_STATEMENT_VERSION,
        .epoch = new_epoch(p, t),
        .kind = (uint64_t)t->kind,
        .base_index = p->base_index,
        .base_term = p->base_term,
        .base_digest = blob_of(p->fsm->digest, sizeof p->fsm->digest),
        .voters = {.raw = buf_blob(&voters), .count = 1},
        .time_ms = t->now_ms,
        .trail = {.raw = buf_blob(&trail), .count = count},
        .reason = t->reason,
    };
    CHECK(uuid_parse(p->fsm->vars.cluster_id, &s.cluster_id) == 0);
    put_set(p, t, s.epoch, &s.cluster_id, &set);
    s.authority_set = buf_blob(&set);
    msg_encode(&recovery_statement_desc, &s, out);
    buf_fini(&trail);
    buf_fini(&voters);
    buf_fini(&set);
}

static void put_authorities(const struct recovery_plan *p, struct mp_writer *w, struct mp_doc *doc)
{
    struct db_stmt *st = db_prepare(p->fsm->db,
                                    "SELECT a.node_id, n.name, a.address, a.status"
                                    " FROM cluster_authorities a JOIN nodes n ON n.id = a.node_id"
                                    " WHERE a.status <> 'removed' ORDER BY a.node_id");
    uint32_t count = 0;
    mp_doc_key(w, doc, "authorities");
    size_t at = mp_list_begin(w);
    while (db_step(st) == 1) {
        struct mp_doc d;
        mp_doc_begin(w, &d);
        mp_doc_str(w, &d, "node_id", db_col_text(st, "node_id"));
        mp_doc_str(w, &d, "name", db_col_text(st, "name"));
        mp_doc_str(w, &d, "address", db_col_text(st, "address"));
        mp_doc_str(w, &d, "status", db_col_text(st, "status"));
        mp_doc_end(w, &d);
        count++;
    }
    db_done(st);
    mp_list_end(w, at, count);
}

static void put_names(const struct recovery_plan *p, struct mp_writer *w, struct mp_doc *doc)
{
    char id[UUID_TEXT_MAX];
    uuid_format(&p->node_id, id);
    struct db_stmt *st = db_prepare(p->fsm->db,
                                    "SELECT (SELECT name FROM clusters) AS cluster_name,"
                                    " (SELECT name FROM nodes WHERE id = ?) AS node_name");
    db_bind_text(st, id);
    if (db_step(st) == 1) {
        mp_doc_str(w, doc, "cluster_name", db_col_text(st, "cluster_name"));
        mp_doc_str(w, doc, "node_name", db_col_text(st, "node_name"));
    }
    db_done(st);
}

int recovery_plan_doc(const struct recovery_plan *p, const struct recovery_terms *t,
                      struct mp_writer *w)
{
    struct buf body;
    struct mp_doc d;
    buf_init(&body, RECOVERY_BODY_MAX);
    encode_statement(p, t, &body);
    mp_doc_begin(w, &d);
    mp_doc_str(w, &d, "cluster_id", p->fsm->vars.cluster_id);
    put_names(p, w, &d);
    mp_doc_uuid(w, &d, "node_id", &p->node_id);
    mp_doc_str(w, &d, "kind", recovery_kind_name((uint64_t)t->kind));
    mp_doc_int(w, &d, "epoch", (int64_t)p->log.epoch);
    mp_doc_int(w, &d, "new_epoch", (int64_t)new_epoch(p, t));
    mp_doc_int(w, &d, "base_index", (int64_t)p->base_index);
    mp_doc_int(w, &d, "base_term", (int64_t)p->base_term);
    mp_doc_int(w, &d, "log_term", (int64_t)p->log.term);
    mp_doc_time(w, &d, "last_stamp_at", p->fsm->vars.time_ms);
    put_authorities(p, w, &d);
    if (t->address != NULL) {
        mp_doc_str(w, &d, "address", t->address);
        mp_doc_hex(w, &d, "issuer_key", t->issuer_key);
    }
    mp_doc_hex(w, &d, "statement", buf_blob(&body));
    mp_doc_end(w, &d);
    int rc = body.err != 0 ? body.err : w->out->err;
    buf_fini(&body);
    return rc;
}

/* --- going on --- */

static int check_fits(const struct recovery_plan *p, const struct recovery_statement *s,
                      struct errmsg *em)
{
    struct uuid voter;
    bool follows = s->kind == RECOVERY_RESTORE ? s->epoch > p->log.epoch
                                               : s->epoch == p->log.epoch + 1;
    if (!follows) {
        return errmsg_set(em, -ERR_CONFLICT, "the log is of epoch %llu, the statement begins %llu",
                          (unsigned long long)p->log.epoch, (unsigned long long)s->epoch);
    }
    if (s->base_index != p->base_index || s->base_term != p->base_term ||
        !blob_equal(s->base_digest, blob_of(p->fsm->digest, sizeof p->fsm->digest))) {
        return errmsg_set(em, -ERR_CONFLICT,
                          "the log ends at %llu of term %llu and not where the statement says: it "
                          "has changed meanwhile",
                          (unsigned long long)p->base_index, (unsigned long long)p->base_term);
    }
    if (s->voters.count != 1 || !recovery_voter(s, 0, &voter) || !uuid_equal(&voter, &p->node_id)) {
        return errmsg_set(em, -ERR_WRONG_NODE, "the statement names another authority");
    }
    return 0;
}

static int verify(const struct recovery_plan *p, struct blob statement,
                  struct recovery_statement *ret, struct errmsg *em)
{
    uint8_t key[PKI_KEY_BYTES];
    struct uuid cluster_id;
    struct db_stmt *st = db_prepare(p->fsm->db,
                                    "SELECT certificate FROM cluster_trust_roots"
                                    " WHERE status = 'active' ORDER BY root_id LIMIT 1");
    int rc = db_step(st) == 1 ? root_public_key(db_col_blob(st, "certificate"), key, em)
                              : errmsg_set(em, -ERR_NOT_FOUND, "the state has no trust root");
    db_done(st);
    CHECK(uuid_parse(p->fsm->vars.cluster_id, &cluster_id) == 0);
    return rc != 0 ? rc : statement_verify(statement, key, &cluster_id, ret, em);
}

static void add_command(struct mp_writer *w, uint32_t *count, struct cmd *cmd, const void *body)
{
    struct buf one;
    buf_init(&one, CMD_BODY_MAX + 1024);
    cmd_encode(cmd, body, &one);
    CHECK(one.err == 0);
    mp_put_bin(w, buf_blob(&one));
    (*count)++;
    buf_fini(&one);
}

/* The ids of its commands come from the statement: nothing here is random, so that a second try
 * writes the same entry. */
static void first_entry(const struct recovery_plan *p, const struct recovery_statement *s,
                        const struct epoch_start *start, uint64_t term, struct buf *out)
{
    uint8_t seed[PKI_HASH_BYTES];
    struct buf list;
    struct mp_writer w;
    uint32_t count = 0;
    buf_init(&list, ENTRY_MAX_BYTES);
    mp_writer_init(&w, &list);
    pki_sha256(start->statement, seed);
    int64_t now_ms = s->time_ms > p->fsm->vars.time_ms ? s->time_ms : p->fsm->vars.time_ms;
    if (fsm_level(p->fsm) < LEVEL_RECOVERY) {
        struct level_raise raise = {.level = LEVEL_RECOVERY};
        struct cmd cmd = {.kind = CMD_LEVEL_RAISE,
                          .request_id = uuid_make(now_ms, seed),
                          .time_ms = now_ms,
                          .actor_kind = blob_str(ACTOR_SYSTEM)};
        add_command(&w, &count, &cmd, &raise);
    }
    struct cmd cmd = {.kind = CMD_EPOCH_START,
                      .request_id = uuid_make(now_ms, seed + 10),
                      .time_ms = now_ms,
                      .actor_kind = blob_str(ACTOR_OWNER),
                      .actor_id = blob_str("root")};
    add_command(&w, &count, &cmd, start);
    struct cmd_entry entry = {
        .version = CMD_VERSION, .term = term, .commands = {.raw = buf_blob(&list), .count = count}};
    msg_encode(&cmd_entry_desc, &entry, out);
    CHECK(list.err == 0 && out->err == 0);
    buf_fini(&list);
}

struct outcome {
    int rc;
    char detail[256];
};

static void note_outcome(void *data, size_t n, const struct fsm_result *results)
{
    struct outcome *o = data;
    for (size_t i = 0; i < n; i++) {
        if (results[i].rc != 0 && o->rc == 0) {
            o->rc = results[i].rc;
            mp_find_str(results[i].doc, "detail", o->detail, sizeof o->detail);
        }
    }
}

/* What the state would refuse must not get into the log: it is applied here first. */
static int rehearse(const struct recovery_plan *p, uint64_t term, struct blob entry,
                    struct errmsg *em)
{
    struct fsm *f = NULL;
    struct outcome o = {.rc = 0};
    int rc = fsm_new(&f, em);
    if (rc == 0) {
        rc = fsm_restore(f, buf_blob(&p->image), em);
    }
    if (rc == 0) {
        rc = fsm_apply(f, p->base_index + 1, term, entry, note_outcome, &o, em);
    }
    if (rc == 0 && o.rc != 0) {
        rc = errmsg_set(em, o.rc, "%s", o.detail);
    }
    fsm_free(f);
    return rc;
}

static int go_on(const struct recovery_plan *p, const struct recovery_statement *s,
                 const struct epoch_start *start, recovery_write_fn write, void *data,
                 struct errmsg *em)
{
    char address[UUID_TEXT_MAX];
    struct buf entry;
    uint64_t term = (p->log.term > p->base_term ? p->log.term : p->base_term) + 1;
    uuid_format(&p->node_id, address);
    buf_init(&entry, ENTRY_MAX_BYTES);
    first_entry(p, s, start, term, &entry);
    int rc = rehearse(p, term, buf_blob(&entry), em);
    if (rc == 0) {
        rc = write(data,
                   &(struct raft_log_restart){.index = p->base_index,
                                              .term = p->base_term,
                                              .image = buf_blob(&p->image),
                                              .id = core_raft_id(&p->node_id),
                                              .address = address,
                                              .epoch = s->epoch,
                                              .statement = start->statement,
                                              .first_term = term,
                                              .first_entry = buf_blob(&entry)},
                   em);
    }
    buf_fini(&entry);
    return rc;
}

int recovery_plan_check(const struct recovery_plan *p, struct blob statement, struct errmsg *em)
{
    struct recovery_statement s;
    int rc = verify(p, statement, &s, em);
    return rc != 0 ? rc : check_fits(p, &s, em);
}

int recovery_plan_write(const struct recovery_plan *p, const struct epoch_start *start,
                        recovery_write_fn write, void *data, struct errmsg *em)
{
    struct recovery_statement s;
    int rc = verify(p, start->statement, &s, em);
    if (rc == 0) {
        rc = check_fits(p, &s, em);
    }
    return rc != 0 ? rc : go_on(p, &s, start, write, data, em);
}

static int write_file(void *path, const struct raft_log_restart *r, struct errmsg *em)
{
    return raft_log_restart(path, r, em);
}

int recovery_plan_apply(const struct recovery_plan *p, const char *dir,
                        const struct epoch_start *start, struct errmsg *em)
{
    char *path = path_join(dir, "raft.db");
    int rc = recovery_plan_write(p, start, write_file, path, em);
    free(path);
    return rc;
}

/* --- a statement that waits for the next start --- */

static const char pending_name[] = "recovery";

int recovery_set_pending(const char *dir, struct blob statement, struct errmsg *em)
{
    char *path = path_join(dir, pending_name);
    int rc = file_write_atomic(path, statement, 0600, em);
    free(path);
    return rc;
}

static int apply_pending(const char *dir, const struct uuid *node_id, struct blob statement,
                         struct errmsg *em)
{
    struct recovery_plan *p = NULL;
    int rc = recovery_plan_open(dir, node_id, &p, em);
    /* Killed between the change of the log and the removal of the file: it is done. */
    bool done = rc == 0 && blob_equal(buf_blob(&p->log.statement), statement);
    if (rc == 0 && !done) {
        rc = recovery_plan_apply(p, dir, &(struct epoch_start){.statement = statement}, em);
    }
    recovery_plan_free(p);
    return rc;
}

int recovery_finish_pending(const char *dir, const struct uuid *node_id, struct errmsg *em)
{
    char *path = path_join(dir, pending_name);
    struct buf statement;
    buf_init(&statement, SIGNED_RECOVERY_MAX);
    int rc = file_read(path, &statement, em);
    if (rc == -ERR_NOT_FOUND) {
        rc = 0;
        goto out;
    }
    if (rc == 0) {
        rc = apply_pending(dir, node_id, buf_blob(&statement), em);
    }
    switch (-rc) {
        case 0:
            log_info(LOG_AUTHORITY, "recovery done", "%s", "");
            break;
        case ERR_IO:
        case ERR_CORRUPT:
        case ERR_SCHEMA:
        case ERR_BUSY:
            goto out; /* nothing can start on this log */
        default:
            log_error(LOG_AUTHORITY, "recovery dropped",
                      "why=\"%s\" next=\"give the command again\"", em->text);
            rc = 0;
            break;
    }
    if (unlink(path) != 0 || file_sync_dir(dir, em) != 0) {
        rc = errmsg_set(em, -ERR_IO, "%s cannot be removed", path);
    }
out:
    buf_fini(&statement);
    free(path);
    return rc;
}
