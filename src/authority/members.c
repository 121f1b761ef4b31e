#include "authority/authority_impl.h"

#include "base/log.h"

/* A member this close to the leader's log may vote: the few entries left cost less than an election
 * timeout (raft paper, section 4.2.1 of Ongaro's thesis: catch up before counting). */
#define CATCH_UP_ENTRIES 64

static const struct core_member *member_of(const struct core_status *s, raft_id id)
{
    for (size_t i = 0; i < s->members_count; i++) {
        if (s->members[i].id == id) {
            return &s->members[i];
        }
    }
    return NULL;
}

static void changed(struct core_change *ch, int rc)
{
    struct authority *a = ch->data;
    a->change_busy = false;
    if (rc != 0) {
        log_warn(LOG_AUTHORITY, "membership change failed", "error=%s next=\"will be tried again\"",
                 err_slug(rc));
    }
}

static void status_done(void *data, int rc, struct blob doc)
{
    struct authority *a = data;
    (void)rc;
    (void)doc;
    a->change_busy = false;
}

static void propose_status(struct authority *a, const struct uuid *id, const char *status)
{
    struct authority_status body = {.node_id = *id, .status = blob_str(status)};
    struct buf args;
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&authority_status_desc, &body, &args);
    a->change_busy = true;
    call_internal(a, "authority.status", buf_blob(&args), NULL, ACTOR_SYSTEM, "", status_done, a);
    buf_fini(&args);
}

static struct quorum_member *counted(struct quorum_member *list, size_t n, raft_id id)
{
    size_t i = 0;
    while (i < n && list[i].id != id) {
        i++;
    }
    return i < n ? &list[i] : NULL;
}

/* Those that vote; with the list of authorities, those that are to. One that was removed and still votes has
 * nobody who would listen to it. */
enum quorum_verdict members_judge(struct authority *a, raft_id leaves, struct quorum_step *ret)
{
    struct quorum_member list[ARRAY_SIZE(((struct core_status *)NULL)->members) + AUTHORITIES_MAX];
    size_t n = 0;
    struct core_status s;
    core_status(a->core, &s);
    for (size_t i = 0; i < s.members_count; i++) {
        const struct core_member *m = &s.members[i];
        if (m->raft_role == RAFT_VOTER) {
            list[n++] = (struct quorum_member){.id = m->id, .votes = true, .live = m->in_contact};
        }
    }
    struct db_stmt *st = db_prepare(
        state_db(a), fsm_level(a->fsm) >= LEVEL_VOTES
                         ? "SELECT node_id, status = 'removed' AS removed, votes <> 0 AS votes"
                           " FROM cluster_authorities ORDER BY node_id"
                         : "SELECT node_id, status = 'removed' AS removed, 1 AS votes"
                           " FROM cluster_authorities ORDER BY node_id");
    while (db_step(st) == 1) {
        struct uuid id = UUID_NIL;
        (void)uuid_parse(db_col_text(st, "node_id"), &id);
        struct quorum_member *m = counted(list, n, core_raft_id(&id));
        bool removed = db_col_int(st, "removed") != 0;
        if (m != NULL) {
            m->live = m->live && !removed;
        } else if (!removed && db_col_int(st, "votes") != 0 && n < ARRAY_SIZE(list)) {
            list[n++] = (struct quorum_member){.id = core_raft_id(&id)};
        }
    }
    db_done(st);
    return quorum_judge(list, n, leaves, ret);
}

/* What was decided when more could be reached waits until they can be again: the change could not be committed,
 * and a leader cannot take it back. */
static bool leaves_a_majority(struct authority *a, raft_id id, const char *address)
{
    struct quorum_step q;
    if (members_judge(a, id, &q) != QUORUM_LOST) {
        return true;
    }
    static struct log_limit limit;
    if (log_allow(&limit, 1)) {
        log_warn(LOG_AUTHORITY, "membership change waits",
                 "authority=%s voters_left=%u reached=%u next=\"bring the others back\"", address,
                 q.after.voters, q.after.live);
    }
    return false;
}

/* One step for one authority; true when a step was begun. */
static bool step(struct authority *a, const struct core_status *s, const struct uuid *id,
                 const char *status, bool votes)
{
    raft_id rid = core_raft_id(id);
    const struct core_member *m = member_of(s, rid);
    bool removed = strcmp(status, "removed") == 0;
    char address[UUID_TEXT_MAX];
    uuid_format(id, address);
    a->change = (struct core_change){.data = a};
    int rc;
    /* Its log went back (authority_fenced), or a standby's did: out, and in again as one that catches up. */
    bool anew = m != NULL && ((m->raft_role == RAFT_VOTER && strcmp(status, "joining") == 0) ||
                              (m->raft_role == RAFT_STANDBY && raft_io_lost_tail(&a->io, rid)));
    bool stays = !removed && strcmp(status, "joining") != 0 && votes;
    if (m != NULL && m->raft_role == RAFT_VOTER && !stays && !leaves_a_majority(a, rid, address)) {
        return false;
    }
    if (removed) {
        if (m == NULL || rid == core_raft_id(&a->cfg.node_id)) {
            return false;
        }
        rc = core_remove(a->core, &a->change, rid, changed);
    } else if (m == NULL) {
        rc = core_add(a->core, &a->change, rid, address, changed);
    } else if (m->raft_role == RAFT_SPARE) {
        rc = core_assign(a->core, &a->change, rid, RAFT_STANDBY, changed);
    } else if (anew) {
        rc = core_remove(a->core, &a->change, rid, changed);
    } else if (!votes && m->raft_role == RAFT_VOTER) {
        if (rid == core_raft_id(&a->cfg.node_id)) {
            return false; /* the next leader does it */
        }
        rc = core_assign(a->core, &a->change, rid, RAFT_STANDBY, changed);
    } else if (m->raft_role == RAFT_STANDBY) {
        if (strcmp(status, "joining") == 0 || (!votes && strcmp(status, "voter") == 0)) {
            propose_status(a, id, "standby");
            return true;
        }
        if (!votes) {
            return false;
        }
        if (!m->in_contact || m->match_index + CATCH_UP_ENTRIES < s->commit_index) {
            return false;
        }
        rc = core_assign(a->core, &a->change, rid, RAFT_VOTER, changed);
    } else if (strcmp(status, "voter") != 0) {
        propose_status(a, id, "voter");
        return true;
    } else {
        return false;
    }
    if (rc == 0) {
        a->change_busy = true;
        log_info(LOG_AUTHORITY, "membership change", "authority=%s status=%s", address, status);
    }
    return rc == 0;
}

/* One that was added and never caught up must not stay a ghost that holds a place, and a key, for ever. */
static bool expire_one(struct authority *a)
{
    struct authority_expire body;
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT node_id FROM cluster_authorities"
                                    " WHERE status IN ('joining', 'standby') AND waiting_since <= ?"
                                    " ORDER BY node_id LIMIT 1");
    db_bind_int(st, authority_now_ms(a) - AUTHORITY_WAIT_MAX_MS);
    bool found = db_step(st) == 1 && uuid_parse(db_col_text(st, "node_id"), &body.node_id) == 0;
    db_done(st);
    if (found) {
        struct buf args;
        buf_init(&args, CMD_BODY_MAX);
        msg_encode(&authority_expire_desc, &body, &args);
        a->change_busy = true;
        call_internal(a, "authority.expire", buf_blob(&args), NULL, ACTOR_SYSTEM, "", status_done,
                      a);
        buf_fini(&args);
    }
    return found;
}

void members_reconcile(struct authority *a)
{
    struct core_status s;
    core_status(a->core, &s);
    if (s.role != CORE_LEADER || !s.quorum || a->change_busy || a->closing) {
        return;
    }
    bool has_votes = fsm_level(a->fsm) >= LEVEL_VOTES;
    if (has_votes && expire_one(a)) {
        return;
    }
    struct db_stmt *st = db_prepare(
        state_db(a), has_votes
                         ? "SELECT node_id, status, votes FROM cluster_authorities"
                           " ORDER BY node_id"
                         : "SELECT node_id, status FROM cluster_authorities ORDER BY node_id");
    bool begun = false;
    while (!begun && db_step(st) == 1) {
        struct uuid id;
        if (uuid_parse(db_col_text(st, "node_id"), &id) == 0) {
            begun = step(a, &s, &id, db_col_text(st, "status"),
                         !has_votes || db_col_int(st, "votes") != 0);
        }
    }
    db_done(st);
}
