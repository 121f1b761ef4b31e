/* Do all replicas compute the same? (S15)
 *
 * Each message says where its sender is: (applied index, digest). The digest is a chain, so equal
 * digests at one index mean equal histories up to it. The leader notes how far each voter agreed
 * with it; the highest index a majority shares becomes the agreed pair that its messages carry, and
 * a member that holds another digest there stops. A leader that a majority contradicts stops
 * itself: it is the odd one. */
#include "authority/core_impl.h"

static bool is_voter(const struct core *c, raft_id id)
{
    for (unsigned i = 0; i < c->raft.configuration.n; i++) {
        if (c->raft.configuration.servers[i].id == id) {
            return c->raft.configuration.servers[i].role == RAFT_VOTER;
        }
    }
    return false;
}

void core_digest_reset(struct core *c)
{
    c->peers_count = 0;
    c->agreed_index = 0;
}

static struct core_peer *peer_of(struct core *c, raft_id id)
{
    for (size_t i = 0; i < c->peers_count; i++) {
        if (c->peers[i].id == id) {
            return &c->peers[i];
        }
    }
    if (c->peers_count == ARRAY_SIZE(c->peers)) {
        return NULL;
    }
    struct core_peer *p = &c->peers[c->peers_count++];
    *p = (struct core_peer){.id = id};
    return p;
}

static bool is_member(const struct core *c, raft_id id)
{
    for (unsigned i = 0; i < c->raft.configuration.n; i++) {
        if (c->raft.configuration.servers[i].id == id) {
            return true;
        }
    }
    return false;
}

unsigned core_level_of_all(const struct core *c)
{
    unsigned level = fsm_level_known(c->fsm);
    for (unsigned i = 0; i < c->raft.configuration.n; i++) {
        raft_id id = c->raft.configuration.servers[i].id;
        unsigned its = id == c->config.id ? level : 0;
        for (size_t k = 0; k < c->peers_count; k++) {
            if (c->peers[k].id == id) {
                its = c->peers[k].level;
            }
        }
        level = its < level && !PLANTED("level_not_asked") ? its : level;
    }
    return level;
}

static void note_level(struct core *c, raft_id from, unsigned level)
{
    struct core_peer *p = is_member(c, from) ? peer_of(c, from) : NULL;
    if (p != NULL && p->level != level) {
        p->level = level;
        core_want_flush(c);
    }
}

static void out(void *data, struct raft_digest *ret)
{
    struct core *c = data;
    struct fsm_position at;
    fsm_position(c->fsm, &at);
    ret->applied_index = at.index;
    memcpy(ret->applied, at.digest, sizeof ret->applied);
    ret->level = fsm_level_known(c->fsm);
    if (c->raft.state == RAFT_LEADER && c->agreed_index != 0) {
        ret->agreed_index = c->agreed_index;
        memcpy(ret->agreed, c->agreed, sizeof ret->agreed);
    }
}

static void check_agreed(struct core *c, raft_id from, const struct raft_digest *d)
{
    uint8_t ours[32];
    /* Only the leader's word counts: it alone has compared a majority. */
    if (d->agreed_index == 0 || c->raft.state != RAFT_FOLLOWER ||
        c->raft.follower_state.current_leader.id != from ||
        !fsm_digest_at(c->fsm, d->agreed_index, ours) ||
        memcmp(ours, d->agreed, sizeof ours) == 0) {
        return;
    }
    core_fail(
        c,
        "THIS REPLICA DIFFERS from the majority at index %llu: its state is not to be trusted. "
        "Remove this authority and add it again.",
        (unsigned long long)d->agreed_index);
}

/* The highest index that a majority of voters, this one among them, agreed on. */
static void publish(struct core *c)
{
    uint64_t at[RAFT_MSG_SERVERS_MAX] = {0};
    unsigned voters = 0;
    unsigned against = 0;
    struct fsm_position own;
    fsm_position(c->fsm, &own);
    for (unsigned i = 0; i < c->raft.configuration.n && voters < ARRAY_SIZE(at); i++) {
        const struct raft_server *s = &c->raft.configuration.servers[i];
        if (s->role != RAFT_VOTER) {
            continue;
        }
        uint64_t index = s->id == c->config.id ? own.index : 0;
        for (size_t k = 0; k < c->peers_count; k++) {
            if (c->peers[k].id == s->id) {
                index = c->peers[k].agreed_index;
                against += c->peers[k].contradicts;
            }
        }
        unsigned k = voters++;
        for (; k > 0 && at[k - 1] < index; k--) {
            at[k] = at[k - 1];
        }
        at[k] = index;
    }
    unsigned needed = voters / 2 + 1;
    if (voters > 0 && against >= needed) {
        core_fail(c, "THIS LEADER'S STATE DIFFERS from that of %u of %u voters: it stops", against,
                  voters);
        return;
    }
    if (voters == 0 || at[needed - 1] <= c->agreed_index) {
        return;
    }
    uint8_t digest[32];
    if (fsm_digest_at(c->fsm, at[needed - 1], digest)) {
        c->agreed_index = at[needed - 1];
        memcpy(c->agreed, digest, sizeof digest);
    }
}

static void in(void *data, raft_id from, const struct raft_digest *d)
{
    struct core *c = data;
    if (c->failed || c->closing || !c->started) {
        return;
    }
    check_agreed(c, from, d);
    if (c->raft.state == RAFT_LEADER) {
        note_level(c, from, (unsigned)d->level);
    }
    uint8_t ours[32];
    if (c->raft.state != RAFT_LEADER || d->applied_index == 0 || !is_voter(c, from) ||
        !fsm_digest_at(c->fsm, d->applied_index, ours)) {
        return;
    }
    struct core_peer *p = peer_of(c, from);
    if (p == NULL) {
        return;
    }
    if (memcmp(ours, d->applied, sizeof ours) == 0) {
        p->contradicts = false; /* it took a good state meanwhile */
        if (d->applied_index > p->agreed_index) {
            p->agreed_index = d->applied_index;
            publish(c);
        }
    } else if (!p->contradicts) {
        p->contradicts = true;
        publish(c);
    }
}

const struct raft_io_digest_ops core_digest_ops = {.out = out, .in = in};
