/* What an authority says of itself: looks, changes nothing but what it remembers of the scans. */
#include "authority/authority_impl.h"

#include "authority/mirror.h"
#include "base/file.h"

#include <sys/stat.h>

#define COUNT_EVERY_MS 5000

static uint64_t file_bytes(const char *dir, const char *name)
{
    struct stat st;
    char *path = path_join(dir, name);
    uint64_t bytes = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
    free(path);
    return bytes;
}

static uint64_t pragma(struct authority *a, const char *sql, const char *column)
{
    struct db_stmt *st = db_prepare(state_db(a), sql);
    uint64_t n = db_step(st) == 1 ? (uint64_t)db_col_int(st, column) : 0;
    db_done(st);
    return n;
}

static void count_joins(struct authority *a)
{
    struct db_stmt *st = db_prepare(state_db(a), "SELECT status, count(*) AS n"
                                                 " FROM node_join_requests GROUP BY status");
    while (db_step(st) == 1) {
        const char *status = db_col_text(st, "status");
        uint64_t n = (uint64_t)db_col_int(st, "n");
#define TAKE_(name) a->counts.joins.name = strcmp(status, #name) == 0 ? n : a->counts.joins.name;
        AUTHORITY_JOINS(TAKE_)
#undef TAKE_
    }
    db_done(st);
}

static void count_nodes(struct authority *a)
{
    struct db_stmt *st = db_prepare(state_db(a), "SELECT health_status, count(*) AS n FROM nodes"
                                                 " WHERE enrollment_status = 'enrolled'"
                                                 " GROUP BY health_status");
    while (db_step(st) == 1) {
        const char *health = db_col_text(st, "health_status");
        uint64_t n = (uint64_t)db_col_int(st, "n");
#define TAKE_(name) a->counts.nodes.name = strcmp(health, #name) == 0 ? n : a->counts.nodes.name;
        AUTHORITY_HEALTHS(TAKE_)
#undef TAKE_
    }
    db_done(st);
}

static void count(struct authority *a)
{
    uint64_t now = authority_mono_ms();
    if (a->counted_ms == 0 || now - a->counted_ms >= COUNT_EVERY_MS) {
        a->counted_ms = now;
        a->counts = (struct authority_counts){0};
        count_joins(a);
        count_nodes(a);
    }
}

static void put_members(const struct authority *a, const struct core_status *s,
                        struct authority_stats *ret)
{
    for (size_t i = 0; i < s->members_count && i < ARRAY_SIZE(ret->members); i++) {
        ret->members[i].node_id = s->members[i].node_id;
        ret->members[i].self = uuid_equal(&s->members[i].node_id, &a->cfg.node_id);
        ret->members[i].voter = s->members[i].raft_role == RAFT_VOTER;
        ret->members[i].in_contact = s->members[i].in_contact;
        ret->members[i].match_index = s->members[i].match_index;
        ret->members_count++;
    }
}

static void put_mirror(struct authority *a, struct authority_stats *ret)
{
    struct mirror_stats m;
    mirror_stats(a->mirror, &m);
    ret->mirror_enabled = m.enabled;
    ret->mirror_required = m.required;
    ret->mirror_following = m.state == MIRROR_FOLLOWING || m.state == MIRROR_VERIFYING;
    ret->mirror_alarm = m.alarmed;
    ret->mirror_available = m.available;
    ret->mirror_position_known = m.position_known;
    ret->mirror_state = mirror_state_name(m.state);
    ret->mirror_index = m.acked;
    ret->mirror_lag_entries = m.lag_entries;
    ret->mirror_lag_ms = m.lag_ms;
    ret->mirror_rows = m.rows;
}

void authority_stats(struct authority *a, struct authority_stats *ret)
{
    struct core_status s;
    struct fsm_position pos;
    core_status(a->core, &s);
    fsm_position(a->fsm, &pos);
    const struct core_stats *cs = core_stats(a->core);
    count(a);
    *ret = (struct authority_stats){
        .leads = s.role == CORE_LEADER,
        .last_index = s.last_index,
        .snapshot_index = core_snapshot_index(a->core),
        .commands = cs->commands,
        .commit = &cs->commit,
        .lost_proposals = cs->lost_proposals,
        .state_bytes = pragma(a, "PRAGMA page_count", "page_count") *
                       pragma(a, "PRAGMA page_size", "page_size"),
        .log_bytes = file_bytes(a->dir, "raft.db") + file_bytes(a->dir, "raft.db-wal"),
        .audit_seq = pos.audit_seq,
        .refused = a->refused,
        .counts = a->counts,
    };
    struct subscriber *sub;
    LIST_FOREACH(sub, &a->subscribers, link)
    {
        ret->subscribers++;
    }
    struct enrolling *e;
    LIST_FOREACH(e, &a->enrolling, link)
    {
        ret->enrolling++;
    }
    put_members(a, &s, ret);
    put_mirror(a, ret);
}

void authority_state(const struct authority *a, struct authority_state *ret)
{
    struct core_status s;
    struct fsm_position pos;
    core_status(a->core, &s);
    fsm_position(a->fsm, &pos);
    *ret = (struct authority_state){
        .raft_role = s.role == CORE_LEADER     ? "leader"
                     : s.role == CORE_FOLLOWER ? "follower"
                                               : "candidate",
        .quorum = s.quorum,
        .epoch = authority_epoch(a),
        .term = s.term,
        .index = s.applied_index,
        .commit_index = s.commit_index,
        .voters = s.voters,
        .seen = s.seen,
        .needed = s.needed,
        .leader_contact_ms = s.leader_contact_ms,
        .clock_ahead_ms = a->clock_ahead_ms,
    };
    ret->alarms = expiry_alarms(a);
    ret->level = fsm_level(a->fsm);
    ret->level_known = fsm_level_known(a->fsm);
    ret->forgeries = forgery_count(a);
    memcpy(ret->digest, pos.digest, sizeof ret->digest);
    struct signed_recovery whole;
    struct recovery_statement statement;
    if (msg_decode(&signed_recovery_desc, MSG_LENIENT, raft_io_statement(&a->io), &whole) == 0 &&
        recovery_statement_decode(whole.body, &statement) == 0) {
        ret->recovery_kind = recovery_kind_name(statement.kind);
        ret->base_index = statement.base_index;
        ret->base_term = statement.base_term;
        ret->recovered_at_ms = statement.time_ms;
    }
    const struct uuid *leader = s.leader == 0 ? NULL : raft_net_node(a, s.leader);
    if (leader != NULL) {
        ret->leader = *leader;
    }
    char id[UUID_TEXT_MAX];
    uuid_format(&a->cfg.node_id, id);
    struct db_stmt *st = db_prepare(state_db(a), "SELECT status FROM cluster_authorities"
                                                 " WHERE node_id = ? AND status <> 'removed'");
    db_bind_text(st, id);
    ret->member = db_step(st) == 1;
    db_done(st);
    ret->state = !ret->member ? "recovering" : s.quorum ? "healthy" : "no_quorum";
    ret->epoch_rival = a->fence.rival;
    if (a->fence.fenced) {
        ret->state = "fenced";
        ret->fenced_by = a->fence.epoch;
        ret->divergence_rows = a->fence.divergence.rows_total;
    }
}
