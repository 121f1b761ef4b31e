/* Life of a Raft member, and the turn of its loop.
 *
 * libraft calls us from inside its steps (apply, snapshot, step_cb); nothing there calls upward:
 * it takes notes and asks for core_flush, which on the same turn
 *     fires finished requests -> sees what role we have -> completes reads -> submits a batch. */
#include "authority/core_impl.h"

#include "base/log.h"
#include "pki/pki.h"

/* Of entries sent and not yet acknowledged. libraft's 32 would make a catching-up member wait for
 * an answer every 32 entries; a message is bounded by bytes anyway. */
#define MAX_INFLIGHT_ENTRIES 4096
/* After which a snapshot is sent again to a member that answers but did not install it, because it
 * was busy with its own (G4). One still on its way is not sent twice (G7). */
#define INSTALL_SNAPSHOT_TIMEOUT_MS 10000

raft_id core_raft_id(const struct uuid *node_id)
{
    uint8_t hash[PKI_HASH_BYTES];
    pki_sha256(blob_of(node_id->b, sizeof node_id->b), hash);
    raft_id id = 0;
    for (int i = 0; i < 8; i++) {
        id = id << 8 | hash[i];
    }
    id &= ~(1ull << 63);
    return id == 0 ? 1 : id;
}

void core_want_flush(struct core *c)
{
    if (!c->flush_wanted && !c->closing) {
        c->flush_wanted = true;
        c->env->want_flush(c->env->data);
    }
}

void core_fail(struct core *c, const char *fmt, ...)
{
    if (c->failed) {
        return;
    }
    char why[320];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    c->failed = true;
    c->env->fatal(c->env->data, why);
}

/* --- called by libraft --- */

struct applying {
    struct core *core;
    uint64_t index;
};

static void on_results(void *data, size_t n, const struct fsm_result *results)
{
    struct applying *a = data;
    for (size_t i = 0; i < n; i++) {
        enum core_outcome outcome = results[i].replayed  ? CORE_REPLAYED
                                    : results[i].rc != 0 ? CORE_REFUSED
                                                         : CORE_OK;
        CHECK(results[i].kind <= CMD_KIND_MAX);
        a->core->stats.commands[results[i].kind][outcome]++;
    }
    core_keep_results(a->core, a->index, n, results);
}

static int apply(struct raft_fsm *rf, const struct raft_buffer *buf, void **result)
{
    struct core *c = rf->data;
    struct applying a = {.core = c, .index = raft_last_applied(&c->raft) + 1};
    struct errmsg em = ERRMSG_INIT;
    struct blob entry;
    *result = NULL;
    if (c->failed) {
        return RAFT_SHUTDOWN;
    }
    uint64_t term = raft_peek_term(&c->raft, a.index);
    int rc = raft_msg_unpad(blob_of(buf->base, buf->len), &entry);
    if (rc == 0) {
        rc = fsm_apply(c->fsm, a.index, term, entry, on_results, &a, &em);
    }
    if (rc != 0) {
        core_fail(c, "entry %llu does not apply here: %s: %s", (unsigned long long)a.index,
                  err_text(rc), em.text);
        return RAFT_SHUTDOWN;
    }
    if (c->env->applied != NULL) {
        c->env->applied(c->env->data, a.index);
    }
    core_snapshot_grow(c, a.index, buf->len);
    core_want_flush(c);
    return 0;
}

static void on_step(struct raft *r)
{
    core_want_flush(r->data);
}

/* --- start and end --- */

int core_new(const struct core_config *config, struct core **ret, struct errmsg *em)
{
    uint32_t trailing = config->snapshot_trailing == 0 ? 4096 : config->snapshot_trailing;
    if (config->heartbeat_ms == 0 || config->election_ms <= config->heartbeat_ms ||
        config->election_ms > 60000) {
        return errmsg_set(em, -ERR_INVALID, "raft timeouts out of range");
    }
    if (trailing < 2048 && !config->short_trailing) {
        return errmsg_set(em, -ERR_INVALID, "fewer than 2048 trailing entries");
    }
    struct core *c = xcalloc(1, sizeof *c);
    c->config = *config;
    c->env = config->env;
    c->fsm = config->fsm;
    c->role = RAFT_FOLLOWER;
    c->raft_fsm = (struct raft_fsm){
        .version = 2,
        .data = c,
        .apply = apply,
        .snapshot = core_take_snapshot,
        .restore = core_restore,
        .snapshot_finalize = core_finish_snapshot,
    };
    char address[UUID_TEXT_MAX];
    uuid_format(&config->node_id, address);
    int rv = raft_init(&c->raft, config->io, &c->raft_fsm, config->id, address);
    if (rv != 0) {
        int rc = errmsg_set(em, -ERR_IO, "raft: %s", raft_errmsg(&c->raft));
        free(c);
        return rc;
    }
    c->raft.data = c;
    c->raft.tracer = NULL; /* it formats each line before it drops it */
    c->raft.legacy.step_cb = on_step;
    raft_set_heartbeat_timeout(&c->raft, config->heartbeat_ms);
    raft_set_election_timeout(&c->raft, config->election_ms);
    raft_set_pre_vote(&c->raft, true);
    raft_set_max_inflight_entries(&c->raft, MAX_INFLIGHT_ENTRIES);
    raft_set_install_snapshot_timeout(&c->raft, INSTALL_SNAPSHOT_TIMEOUT_MS);
    raft_set_capacity_threshold(&c->raft, 0);
    raft_set_snapshot_trailing(&c->raft, trailing);
    core_snapshot_init(c);
    raft_io_on_digest(config->io, &core_digest_ops, c);
    *ret = c;
    return 0;
}

int core_start(struct core *c, struct errmsg *em)
{
    CHECK(!c->started);
    int rv = raft_start(&c->raft);
    if (rv != 0 || c->failed) {
        return errmsg_set(em, rv == RAFT_CORRUPT ? -ERR_CORRUPT : -ERR_IO, "raft: %s",
                          rv == 0 ? "replica is broken" : raft_errmsg(&c->raft));
    }
    c->started = true;
    core_want_flush(c);
    return 0;
}

static void raft_closed(struct raft *r)
{
    struct core *c = r->data;
    c->closed = true;
    c->close_cb(c->close_data);
}

void core_close(struct core *c, void (*cb)(void *data), void *data)
{
    CHECK(!c->closing);
    c->closing = true;
    c->close_cb = cb;
    c->close_data = data;
    raft_io_on_digest(c->config.io, NULL, NULL);
    core_fail_pending(c, -ERR_CANCELED);
    core_reads_fail(c, -ERR_CANCELED);
    core_waiters_fail(c, -ERR_CANCELED);
    /* Fires what libraft holds, as lost leadership; the callbacks see `closing`. */
    raft_close(&c->raft, raft_closed);
}

void core_free(struct core *c)
{
    if (c != NULL) {
        CHECK(c->closed);
        core_propose_fini(c);
        core_prepared(c, NULL, NULL);
        free(c);
    }
}

/* --- the turn --- */

static void lost_leadership(struct core *c)
{
    c->leader_term = 0;
    c->term_started = false;
    c->level_refused = false;
    core_fail_pending(c, -ERR_NOT_LEADER);
    core_reads_fail(c, -ERR_NOT_LEADER);
}

/* A role lost and won again between two turns is two changes: the term tells. */
static void update_role(struct core *c)
{
    unsigned role = (unsigned)raft_state(&c->raft);
    uint64_t term = raft_current_term(&c->raft);
    raft_id leader = 0;
    const char *address = NULL;
    raft_leader(&c->raft, &leader, &address);
    bool leads = role == RAFT_LEADER;
    bool changed = role != c->role || leader != c->leader;
    if (c->leader_term != 0 && (!leads || c->leader_term != term)) {
        lost_leadership(c);
        changed = true;
    }
    if (leads && c->leader_term == 0) {
        c->leader_term = term;
        core_digest_reset(c);
        core_propose_term_start(c);
        changed = true;
    }
    c->role = role;
    c->leader = leader;
    if (changed && c->env->role_changed != NULL) {
        c->env->role_changed(c->env->data);
    }
}

void core_flush(struct core *c)
{
    c->flush_wanted = false;
    if (!c->started || c->flushing) {
        return;
    }
    c->flushing = true;
    if (!c->closing && !c->failed) {
        raft_peek_fire(&c->raft);
    }
    if (!c->closing && !c->failed) {
        update_role(c);
    }
    if (!c->closing && !c->failed) {
        core_reads_finish(c);
    }
    if (!c->closing && !c->failed) {
        core_propose_level(c);
        core_submit(c);
        core_reads_start(c);
    }
    c->flushing = false;
}

void core_tick(struct core *c)
{
    if (c->started && !c->closing && !c->failed) {
        raft_io_tick(c->config.io);
    }
}

/* --- who can be reached --- */

uint64_t core_contact_window_ms(const struct core *c)
{
    uint64_t half = c->config.election_ms / 2;
    uint64_t least = 3ull * c->config.heartbeat_ms;
    return half > least ? half : least;
}

bool core_in_contact(const struct core *c, raft_id id, uint64_t window_ms)
{
    if (id == c->config.id) {
        return true;
    }
    uint64_t heard = raft_io_heard_ms(c->config.io, id);
    return heard != 0 && c->env->mono_ms(c->env->data) - heard <= window_ms;
}

static void count_voters(const struct core *c, uint64_t window_ms, unsigned *ret_voters,
                         unsigned *ret_seen)
{
    unsigned voters = 0;
    unsigned seen = 0;
    const struct raft_configuration *conf = &c->raft.configuration;
    for (unsigned i = 0; i < conf->n; i++) {
        if (conf->servers[i].role == RAFT_VOTER) {
            voters++;
            seen += core_in_contact(c, conf->servers[i].id, window_ms);
        }
    }
    *ret_voters = voters;
    *ret_seen = seen;
}

int core_check_leader(const struct core *c)
{
    if (!c->started || c->closing || c->failed) {
        return -ERR_CLOSED;
    }
    if (c->fenced) {
        return -ERR_FENCED;
    }
    if (c->raft.state != RAFT_LEADER || raft_transferee(&c->raft) != 0) {
        return -ERR_NOT_LEADER;
    }
    unsigned voters;
    unsigned seen;
    count_voters(c, core_contact_window_ms(c), &voters, &seen);
    return seen > voters / 2 ? 0 : -ERR_NO_QUORUM;
}

void core_fence(struct core *c)
{
    if (PLANTED("fenced_goes_on")) {
        return;
    }
    c->fenced = true;
    raft_io_fence(c->config.io);
    core_fail_pending(c, -ERR_FENCED);
    core_reads_fail(c, -ERR_FENCED);
    core_want_flush(c);
}

const struct core_stats *core_stats(const struct core *c)
{
    return &c->stats;
}

uint64_t core_snapshot_index(const struct core *c)
{
    return c->raft.trail.snapshot.index;
}

static uint64_t contact_window_ms(const struct core *c, bool leads)
{
    return leads ? core_contact_window_ms(c) : 2ull * c->config.election_ms;
}

void core_status_brief(const struct core *c, struct core_status *ret)
{
    struct core_status s = {.role = CORE_FOLLOWER};
    /* The getters take a non-const struct but change nothing. */
    struct raft *r = (struct raft *)(uintptr_t)&c->raft;
    const char *address = NULL;
    raft_leader(r, &s.leader, &address);
    s.term = raft_current_term(r);
    s.commit_index = raft_commit_index(r);
    s.applied_index = raft_last_applied(r);
    s.last_index = raft_last_index(r);
    s.last_term = raft_peek_term(r, s.last_index);
    bool leads = r->state == RAFT_LEADER;
    uint64_t window = contact_window_ms(c, leads);
    if (leads) {
        s.role = CORE_LEADER;
    } else if (r->state == RAFT_CANDIDATE) {
        s.role = CORE_CANDIDATE;
    }
    count_voters(c, window, &s.voters, &s.seen);
    s.needed = s.voters / 2 + 1;
    s.configuration_committed = r->configuration_uncommitted_index == 0;
    if (leads) {
        s.quorum = s.seen >= s.needed;
    } else if (s.leader != 0) {
        s.leader_contact_ms = c->env->mono_ms(c->env->data) -
                              raft_io_heard_ms(c->config.io, s.leader);
        s.quorum = core_in_contact(c, s.leader, c->config.election_ms);
    }
    if (c->fenced) {
        s.quorum = false;
        s.leader = 0;
    }
    *ret = s;
}

void core_status(const struct core *c, struct core_status *ret)
{
    struct core_status s;
    core_status_brief(c, &s);
    struct raft *r = (struct raft *)(uintptr_t)&c->raft;
    bool leads = s.role == CORE_LEADER;
    uint64_t window = contact_window_ms(c, leads);
    for (unsigned i = 0; i < r->configuration.n && s.members_count < ARRAY_SIZE(s.members); i++) {
        const struct raft_server *server = &r->configuration.servers[i];
        struct core_member *m = &s.members[s.members_count++];
        raft_index match = 0;
        if (leads) {
            (void)raft_match_index(r, server->id, &match);
        }
        *m = (struct core_member){
            .id = server->id,
            .raft_role = server->role,
            .in_contact = core_in_contact(c, server->id, window),
            .match_index = match,
        };
        (void)uuid_parse(server->address, &m->node_id); /* nil when a peer wrote something else */
    }
    *ret = s;
}
