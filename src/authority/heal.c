#include "authority/heal.h"

#include "authority/core.h"
#include "authority/raft_log.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "pki/statement.h"
#include "wire/recovery_msg.h"

#include <unistd.h>

#define TICK_MS 300
#define ASK_TIMEOUT_MS 2000
/* A majority that is damaged is believed when no leader spoke for so long: one that was elected meanwhile
 * proves the contrary. */
#define LOST_AFTER_MS 5000

static const char note_name[] = "heal";

struct peer {
    struct uuid node_id;
    bool voter, damaged;
};

struct heal {
    struct heal_config cfg;
    char *dir;
    struct errmsg why;
    struct buf statement;
    struct peer peers[AUTHORITIES_MAX];
    size_t peers_count;
    bool votes;       /* this one counts as a voter */
    uint64_t lost_ms; /* since when a majority is known to be damaged, and no leader speaks; 0 */
    struct fabric_call call;
    bool busy;
    size_t asked; /* index of the one that is being asked, or was last */
    uv_timer_t timer;
    bool leaving, closing, timer_closed, freed;
};

const char *heal_why(const struct heal *h)
{
    return h->why.text;
}

bool heal_majority_left(unsigned voters, unsigned damaged)
{
    return damaged <= voters && voters - damaged >= voters / 2 + 1;
}

static bool majority_left(const struct heal *h)
{
    unsigned voters = h->votes;
    unsigned damaged = voters; /* our own log is */
    for (size_t i = 0; i < h->peers_count; i++) {
        voters += h->peers[i].voter;
        damaged += h->peers[i].voter && h->peers[i].damaged;
    }
    return heal_majority_left(voters, damaged);
}

static struct peer *peer_of(struct heal *h, const struct uuid *node_id)
{
    for (size_t i = 0; i < h->peers_count; i++) {
        if (uuid_equal(&h->peers[i].node_id, node_id)) {
            return &h->peers[i];
        }
    }
    return NULL;
}

/* --- the note --- */

static int verify(const struct pki_trust *trust, const struct uuid *cluster_id,
                  struct blob statement, uint64_t epoch, struct errmsg *em)
{
    uint8_t key[PKI_KEY_BYTES];
    struct recovery_statement s;
    if (statement.len == 0) {
        return epoch == EPOCH_FIRST
                   ? 0
                   : errmsg_set(em, -ERR_BAD_SIGNATURE, "nothing proves epoch %llu",
                                (unsigned long long)epoch);
    }
    if (!pki_trust_root_key(trust, key)) {
        return errmsg_set(em, -ERR_BAD_CERT, "no root is trusted yet");
    }
    int rc = statement_verify(statement, key, cluster_id, &s, em);
    return rc == 0 && s.epoch != epoch
               ? errmsg_set(em, -ERR_BAD_SIGNATURE, "the statement is of another epoch")
               : rc;
}

static int write_note(const struct heal *h, const struct recovery_answer *m, raft_id leader,
                      struct errmsg *em)
{
    struct buf bytes;
    const struct heal_note note = {.epoch = m->epoch,
                                   .statement = m->statement,
                                   .term = m->term,
                                   .leader = leader,
                                   .index = m->commit_index,
                                   .time_ms = clock_wall_ms()};
    char *path = path_join(h->dir, note_name);
    buf_init(&bytes, HEAL_NOTE_MAX);
    msg_encode(&heal_note_desc, &note, &bytes);
    int rc = bytes.err != 0 ? bytes.err : file_write_atomic(path, buf_blob(&bytes), 0600, em);
    buf_fini(&bytes);
    free(path);
    return rc;
}

static int begin(const char *dir, const struct heal_note *note, struct errmsg *em)
{
    char *path = path_join(dir, "raft.db");
    char *aside = xasprintf("%s.damaged-%lld", path, (long long)note->time_ms);
    int rc = raft_log_begin_empty(path, aside,
                                  &(struct raft_log_empty){.term = note->term,
                                                           .vote = note->leader,
                                                           .silent_until = note->index,
                                                           .epoch = note->epoch,
                                                           .statement = note->statement},
                                  em);
    if (rc == 0) {
        log_warn(LOG_AUTHORITY, "log begun anew", "term=%llu silent_until=%llu kept=%s",
                 (unsigned long long)note->term, (unsigned long long)note->index, aside);
    }
    free(aside);
    free(path);
    return rc;
}

int heal_prepare(const char *dir, const struct pki_trust *trust, const struct uuid *cluster_id,
                 struct errmsg *em)
{
    struct heal_note note;
    struct buf bytes;
    char *path = path_join(dir, note_name);
    buf_init(&bytes, HEAL_NOTE_MAX);
    int rc = file_read(path, &bytes, em);
    if (rc == -ERR_NOT_FOUND) {
        rc = 0;
        goto out;
    }
    if (rc == 0 && (msg_decode(&heal_note_desc, MSG_LENIENT, buf_blob(&bytes), &note) != 0 ||
                    note.term == 0 || note.index == 0 || note.term > INT64_MAX ||
                    note.leader > INT64_MAX || note.index > INT64_MAX)) {
        rc = errmsg_set(em, -ERR_MALFORMED, "%s is damaged: remove it, and start again", path);
    }
    if (rc == 0) {
        rc = verify(trust, cluster_id, note.statement, note.epoch, em);
    }
    if (rc == 0) {
        rc = begin(dir, &note, em);
    }
    if (rc == 0) {
        rc = file_sync_dir(dir, em); /* the new log is there before the note is gone */
    }
    if (rc == 0) {
        rc = unlink(path) == 0 ? file_sync_dir(dir, em)
                               : errmsg_set(em, -ERR_IO, "%s cannot be removed", path);
    }
out:
    buf_fini(&bytes);
    free(path);
    return rc;
}

/* --- asking --- */

static void come(struct heal *h, const struct recovery_answer *m, const struct uuid *leader)
{
    struct errmsg em = ERRMSG_INIT;
    int rc = m->term == 0 || m->commit_index == 0 || m->epoch < h->cfg.epoch ? -ERR_ROLLBACK : 0;
    if (rc == 0) {
        rc = verify(h->cfg.trust, &h->cfg.cluster_id, m->statement, m->epoch, &em);
    }
    if (rc == 0) {
        rc = write_note(h, m, core_raft_id(leader), &em);
    }
    if (rc != 0) {
        log_warn(LOG_AUTHORITY, "an answer does not heal", "error=%s why=\"%s\"", err_slug(rc),
                 em.text);
        return;
    }
    log_warn(LOG_AUTHORITY, "healing", "term=%llu index=%llu next=\"a new log, from nothing\"",
             (unsigned long long)m->term, (unsigned long long)m->commit_index);
    h->leaving = true;
    h->cfg.restart(h->cfg.data);
}

static void answered(struct fabric_call *call, int rc, struct blob body)
{
    struct heal *h = call->data;
    struct recovery_answer m;
    struct peer *p = &h->peers[h->asked];
    h->busy = false;
    if (h->closing || h->leaving || rc != 0 ||
        msg_decode(&recovery_answer_desc, MSG_LENIENT, body, &m) != 0) {
        return;
    }
    p->damaged = m.damaged;
    if (m.verdict == RECOVERY_SAYS_WAIT || m.verdict == RECOVERY_SAYS_COME) {
        h->lost_ms = 0;
    }
    if (m.verdict == RECOVERY_SAYS_COME) {
        come(h, &m, &p->node_id);
    }
}

static void ask_next(struct heal *h)
{
    struct buf bytes;
    const struct recovery_ask m = {.step = RECOVERY_HEAL,
                                   .epoch = h->cfg.epoch,
                                   .statement = buf_blob(&h->statement),
                                   .why = blob_str(h->why.text)};
    h->asked = (h->asked + 1) % h->peers_count;
    buf_init(&bytes, RPC_FRAME_MAX);
    msg_encode(&recovery_ask_desc, &m, &bytes);
    h->call = (struct fabric_call){.data = h};
    h->busy = bytes.err == 0 &&
              fabric_call_start(h->cfg.fabric, &h->call, &h->peers[h->asked].node_id, "recovery",
                                buf_blob(&bytes), ASK_TIMEOUT_MS, answered) == 0;
    buf_fini(&bytes);
}

/* --- being asked, by others that are damaged and by those that look for an epoch --- */

static void on_ask(void *data, struct fabric_request *rq, struct blob body)
{
    struct heal *h = data;
    struct recovery_ask ask;
    struct buf bytes;
    const struct recovery_answer m = {
        .epoch = h->cfg.epoch, .statement = buf_blob(&h->statement), .damaged = true};
    int rc = msg_decode(&recovery_ask_desc, MSG_LENIENT, body, &ask);
    struct peer *p = peer_of(h, &fabric_request_peer(rq)->identity.node_id);
    if (rc == 0 && p != NULL) {
        p->damaged = ask.step == RECOVERY_HEAL;
    }
    buf_init(&bytes, RPC_FRAME_MAX);
    if (rc == 0) {
        msg_encode(&recovery_answer_desc, &m, &bytes);
    }
    fabric_answer(rq, rc != 0 ? rc : bytes.err, buf_blob(&bytes));
    buf_fini(&bytes);
}

/* --- the course of things --- */

static void look_around(struct heal *h)
{
    if (majority_left(h)) {
        h->lost_ms = 0;
        return;
    }
    if (h->lost_ms == 0) {
        h->lost_ms = clock_mono_ms();
    } else if (clock_mono_ms() - h->lost_ms >= LOST_AFTER_MS) {
        char text[sizeof h->why.text + 128];
        (void)snprintf(
            text, sizeof text,
            "%s; and so are the logs of others: a majority is lost, and nothing was changed",
            h->why.text);
        h->cfg.fatal(h->cfg.data, text);
    }
}

static void on_tick(uv_timer_t *t)
{
    struct heal *h = t->data;
    if (h->leaving) {
        return;
    }
    look_around(h);
    if (!h->busy) {
        ask_next(h);
    }
}

int heal_open(const struct heal_config *config, struct heal **ret, struct errmsg *em)
{
    struct heal *h = xcalloc(1, sizeof *h);
    h->cfg = *config;
    h->dir = xstrdup(config->dir);
    h->why = *em;
    buf_init(&h->statement, SIGNED_RECOVERY_MAX);
    buf_add(&h->statement, config->statement.data, config->statement.len);
    for (size_t i = 0; i < config->members_count; i++) {
        const struct heal_member *m = &config->members[i];
        if (uuid_equal(&m->node_id, &config->node_id)) {
            h->votes = m->voter;
        } else if (h->peers_count < ARRAY_SIZE(h->peers)) {
            h->peers[h->peers_count++] = (struct peer){.node_id = m->node_id, .voter = m->voter};
        }
    }
    if (h->peers_count == 0 || !majority_left(h)) {
        buf_fini(&h->statement);
        free(h->dir);
        free(h);
        return -ERR_CORRUPT;
    }
    CHECK(uv_timer_init(config->loop, &h->timer) == 0);
    h->timer.data = h;
    CHECK(uv_timer_start(&h->timer, on_tick, TICK_MS, TICK_MS) == 0);
    fabric_serve(config->fabric, &(struct fabric_service){.name = "recovery",
                                                          .flags = FABRIC_SVC_AUTHORITY,
                                                          .data = h,
                                                          .request = on_ask});
    log_error(LOG_AUTHORITY, "DAMAGED LOG",
              "why=\"%s\" next=\"asking the leader to be taken out of the vote, and in again\"",
              h->why.text);
    *ret = h;
    return 0;
}

static void maybe_free(struct heal *h)
{
    if (h->timer_closed && h->freed) {
        buf_fini(&h->statement);
        free(h->dir);
        free(h);
    }
}

static void on_timer_closed(uv_handle_t *t)
{
    struct heal *h = t->data;
    h->timer_closed = true;
    maybe_free(h);
}

void heal_close(struct heal *h)
{
    h->closing = true;
    uv_close((uv_handle_t *)&h->timer, on_timer_closed);
}

void heal_free(struct heal *h)
{
    if (h != NULL) {
        h->freed = true;
        maybe_free(h);
    }
}
