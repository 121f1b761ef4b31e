/* Whom the leader hears. A member that stays silent, or is heard again, for as long as
 * PARTITION_AFTER_MS becomes a command; rows of cluster_partitions follow (SPEC AUTH-06). And: a voter
 * that shows an old disk is taken out of the vote by a command (docs/decisions/0007). */
#include "authority/authority_impl.h"

#include "base/log.h"
#include "base/rng.h"

#define PARTITION_AFTER_MS 2000
/* What is seen must have been so for this long: a member that was only just added, or that is gone
 * for a moment, makes no row. */
#define PARTITION_STEADY_MS 600

struct seen {
    struct buf out_raw, in_raw;
    struct mp_list out, in;
    char members[4096]; /* JSON of out, as the state has it */
};

static void add(struct mp_list *l, struct buf *raw, const struct uuid *id)
{
    struct mp_writer w;
    mp_writer_init(&w, raw);
    mp_put_uuid(&w, id);
    l->count++;
}

static const struct core_member *find(const struct core_status *s, raft_id id)
{
    for (size_t i = 0; i < s->members_count; i++) {
        if (s->members[i].id == id) {
            return &s->members[i];
        }
    }
    return NULL;
}

static bool is_silent(const struct authority *a, raft_id id)
{
    uint64_t heard = raft_io_heard_ms(&a->io, id);
    uint64_t since = heard > a->leader_since_ms ? heard : a->leader_since_ms;
    return authority_mono_ms() - since >= PARTITION_AFTER_MS;
}

/* In the order of ids, so that equal sets are equal text. */
static void look(struct authority *a, const struct core_status *s, struct seen *ret)
{
    size_t at = 1;
    ret->members[0] = '[';
    struct db_stmt *st = db_prepare(state_db(a), "SELECT node_id FROM cluster_authorities"
                                                 " WHERE status <> 'removed' ORDER BY node_id");
    while (db_step(st) == 1) {
        struct uuid id;
        const char *text = db_col_text(st, "node_id");
        if (uuid_parse(text, &id) != 0) {
            continue;
        }
        raft_id rid = core_raft_id(&id);
        bool self = uuid_equal(&id, &a->cfg.node_id);
        if (!self && find(s, rid) == NULL) {
            continue; /* not in the Raft configuration yet */
        }
        if (!self && is_silent(a, rid)) {
            at += (size_t)snprintf(ret->members + at, sizeof ret->members - at, "%s\"%s\"",
                                   ret->out.count == 0 ? "" : ",", text);
            add(&ret->out, &ret->out_raw, &id);
        } else {
            add(&ret->in, &ret->in_raw, &id);
        }
    }
    db_done(st);
    (void)snprintf(ret->members + at, sizeof ret->members - at, "]");
    ret->out.raw = buf_blob(&ret->out_raw);
    ret->in.raw = buf_blob(&ret->in_raw);
}

static bool is_known(struct authority *a, const struct seen *seen)
{
    struct db_stmt *st = db_prepare(
        state_db(a), "SELECT members FROM cluster_partitions WHERE status = 'open' LIMIT 1");
    bool open = db_step(st) == 1;
    bool same = open ? strcmp(db_col_text(st, "members"), seen->members) == 0
                     : seen->out.count == 0;
    db_done(st);
    return same;
}

static bool is_steady(struct authority *a, const struct seen *seen)
{
    uint8_t hash[PKI_HASH_BYTES];
    uint64_t now = authority_mono_ms();
    pki_sha256(blob_str(seen->members), hash);
    if (memcmp(hash, a->seen_hash, sizeof hash) != 0) {
        memcpy(a->seen_hash, hash, sizeof hash);
        a->seen_since_ms = now;
    }
    return now - a->seen_since_ms >= PARTITION_STEADY_MS;
}

static void proposed(void *data, int rc, struct blob doc)
{
    struct authority *a = data;
    (void)doc;
    a->partition_busy = false;
    if (rc != 0 && !err_retryable(rc)) {
        log_warn(LOG_AUTHORITY, "partition not recorded", "error=%s", err_slug(rc));
    }
}

static void propose(struct authority *a, const char *method, const struct msg_desc *desc,
                    const void *body)
{
    struct buf args;
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(desc, body, &args);
    a->partition_busy = true;
    call_internal(a, method, buf_blob(&args), NULL, ACTOR_SYSTEM, "", proposed, a);
    buf_fini(&args);
}

static void look_around(struct authority *a, const struct core_status *s)
{
    struct seen seen = {.out = {.count = 0}};
    buf_init(&seen.out_raw, 512);
    buf_init(&seen.in_raw, 512);
    look(a, s, &seen);
    if (is_steady(a, &seen) && !is_known(a, &seen)) {
        struct partition_seen body = {
            .partition_id = uuid_new(), .out = seen.out, .in = seen.in, .quorum = s->quorum};
        propose(a, "partition.seen", &partition_seen_desc, &body);
    }
    buf_fini(&seen.out_raw);
    buf_fini(&seen.in_raw);
}

static bool is_voter_in_state(struct authority *a, const struct uuid *node_id)
{
    char id[UUID_TEXT_MAX];
    uuid_format(node_id, id);
    struct db_stmt *st = db_prepare(state_db(a), "SELECT 1 AS voter FROM cluster_authorities"
                                                 " WHERE node_id = ? AND status = 'voter'");
    db_bind_text(st, id);
    bool voter = db_step(st) == 1;
    db_done(st);
    return voter;
}

static void take_out(struct authority *a, const struct uuid *node_id, const struct raft_old_disk *w)
{
    struct authority_fenced body = {.node_id = *node_id,
                                    .acked_index = w->acked_index,
                                    .shown_index = w->shown_index,
                                    .acked_term = w->acked_term,
                                    .shown_term = w->shown_term};
    char id[UUID_TEXT_MAX];
    uuid_format(node_id, id);
    log_error(LOG_AUTHORITY, "authority with an old disk",
              "authority=%s acknowledged=%llu shows=%llu term=%llu shows_term=%llu "
              "next=\"out of the vote until it has caught up\"",
              id, (unsigned long long)w->acked_index, (unsigned long long)w->shown_index,
              (unsigned long long)w->acked_term, (unsigned long long)w->shown_term);
    propose(a, "authority.fenced", &authority_fenced_desc, &body);
}

/* One at a time; whoever else shows an old disk still does at the next look. */
static bool take_out_old_disk(struct authority *a, const struct core_status *s)
{
    for (size_t i = 0; i < s->members_count; i++) {
        struct raft_old_disk why;
        const struct uuid *node_id = raft_net_node(a, s->members[i].id);
        if (node_id != NULL && raft_io_has_old_disk(&a->io, s->members[i].id, &why) &&
            is_voter_in_state(a, node_id)) {
            take_out(a, node_id, &why);
            return true;
        }
    }
    return false;
}

void partitions_tick(struct authority *a)
{
    struct core_status s;
    core_status(a->core, &s);
    if (s.role != CORE_LEADER || !s.quorum || a->partition_busy || a->closing ||
        fsm_level(a->fsm) < LEVEL_RECOVERY) {
        return;
    }
    if (!take_out_old_disk(a, &s)) {
        look_around(a, &s);
    }
}
