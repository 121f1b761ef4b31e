/* Who is in the group, and an owner who changes it: adds hosts, takes members out, makes voters
 * standbys and back, hands leadership over. One step at a time through whoever leads, as the
 * product's members.c does, while everything else goes wrong. */
#include "sim.h"

#include "authority/core_impl.h"
#include "authority/quorum.h"

#define STEP_US (250 * MS)
#define CATCH_UP_ENTRIES 64
/* Who is down for so long is missed by every leader. */
#define NOTICED_US (1 * SEC)

enum wanted { WANTED_OUT, WANTED_STANDBY, WANTED_VOTER };

struct members {
    enum wanted wanted[SIM_NODES_MAX];
    int first; /* voters at first */
    bool damaged[SIM_NODES_MAX];
    bool gone[SIM_NODES_MAX]; /* was taken out: its key is banned, it does not come back */
    /* One for each history: the leader of an older one may still be at it. */
    struct pending {
        struct core_change change;
        bool busy; /* with change, which belongs to: */
        int at;
        uint32_t generation;
    } pending[SIM_HISTORIES];
};

static struct pending *pending_of(struct world *w)
{
    return &w->members->pending[w->newest - w->oracles];
}

static int node_of(const struct world *w, raft_id id)
{
    for (int i = 0; i < w->n; i++) {
        if (w->nodes[i].raft_id == id) {
            return i;
        }
    }
    return -1;
}

static uint32_t voters_of(const struct world *w, const struct raft_configuration *conf)
{
    uint32_t mask = 0;
    for (unsigned i = 0; i < conf->n; i++) {
        int k = node_of(w, conf->servers[i].id);
        if (k >= 0 && conf->servers[i].role == RAFT_VOTER) {
            mask |= 1u << k;
        }
    }
    return mask;
}

uint32_t members_voters(const struct node *n)
{
    return voters_of(n->w, &n->core->raft.configuration);
}

uint64_t members_committed_conf(const struct node *n)
{
    return n->core->raft.configuration_committed_index;
}

uint64_t members_latest_conf(const struct node *n)
{
    const struct raft *r = &n->core->raft;
    return r->configuration_uncommitted_index != 0 ? r->configuration_uncommitted_index
                                                   : r->configuration_committed_index;
}

bool members_replicates(const struct node *leader, int i)
{
    const struct raft_configuration *conf = &leader->core->raft.configuration;
    for (unsigned k = 0; k < conf->n; k++) {
        if (conf->servers[k].id == leader->w->nodes[i].raft_id) {
            return conf->servers[k].role != RAFT_SPARE;
        }
    }
    return false;
}

/* By an entry, or by what a snapshot holds; 0: it does not decode. */
static uint32_t voters_by(const struct world *w, const struct rec *r, const struct snap *s)
{
    struct raft_configuration conf;
    uint32_t mask = 0;
    if ((r != NULL ? raft_msg_change_decode(blob_of(r->data, r->len), &conf)
                   : raft_msg_conf_decode(buf_blob(&s->conf), &conf)) == 0) {
        mask = voters_of(w, &conf);
        raft_configuration_close(&conf);
    }
    return mask;
}

/* The last one before `index`, in this list or in the snapshot of this disk. */
static uint32_t voters_in(const struct node *n, const struct rec_list *l, uint64_t index,
                          uint64_t *ret_at)
{
    for (size_t i = l->count; i > 0; i--) {
        const struct rec *r = l->items[i - 1];
        if (r->type == RAFT_CHANGE && r->index < index) {
            *ret_at = r->index;
            return voters_by(n->w, r, NULL);
        }
    }
    *ret_at = n->disk.snap == NULL ? 0 : n->disk.snap->conf_index;
    return n->disk.snap == NULL ? 0 : voters_by(n->w, NULL, n->disk.snap);
}

static uint32_t voters_stored(const struct node *n, uint64_t index, uint64_t *ret_at)
{
    return voters_in(n, &n->disk.durable, index, ret_at);
}

bool members_majority_without(const struct world *w, uint32_t lost)
{
    bool left = true;
    for (int i = 0; i < w->n; i++) {
        uint64_t at;
        uint32_t voters = voters_stored(&w->nodes[i], UINT64_MAX, &at);
        if (at >= w->newest->conf_index && voters != 0) {
            left = left && 2 * __builtin_popcount(voters & lost) < __builtin_popcount(voters);
        }
    }
    return left;
}

/* Such a change, uncommitted, makes libraft neither vote nor stand, with a log that may be the longest: of two
 * voters the other could never lead. */
void members_check_stored(struct node *n, const struct rec *r)
{
    uint64_t at;
    uint32_t self = 1u << n->i;
    if (r->index > n->oracle->conf_index && (voters_by(n->w, r, NULL) & self) == 0 &&
        (voters_stored(n, r->index, &at) & self) != 0) {
        violate(n->w, "L1: node %d stores %llu, which takes its vote and is not committed", n->i,
                (unsigned long long)r->index);
    }
}

/* The member of the newest history with the highest term among those that say they lead; NULL: nobody
 * does. */
struct node *members_leader(struct world *w)
{
    struct node *best = NULL;
    for (int i = 0; i < w->n; i++) {
        struct node *n = &w->nodes[i];
        if (n->up && !n->failed && n->oracle == w->newest && !n->fence.is &&
            n->core->raft.state == RAFT_LEADER &&
            (best == NULL || n->core->raft.current_term > best->core->raft.current_term)) {
            best = n;
        }
    }
    return best;
}

/* --- what the owner wants --- */

static int count_wanted(const struct world *w)
{
    int voters = 0;
    for (int i = 0; i < w->n; i++) {
        voters += w->members->wanted[i] == WANTED_VOTER;
    }
    return voters;
}

static void change_of_mind(struct world *w)
{
    struct members *m = w->members;
    int i = (int)between(w, 0, (uint64_t)w->n - 1);
    bool fewer = count_wanted(w) > (chance(w, 300) ? 2 : 3); /* with --force */
    switch (m->wanted[i]) {
        case WANTED_OUT:
            if (!m->gone[i] && count_wanted(w) < 5) {
                m->wanted[i] = WANTED_VOTER;
            }
            break;
        case WANTED_STANDBY:
            m->wanted[i] = chance(w, 700) ? WANTED_VOTER : WANTED_OUT;
            break;
        case WANTED_VOTER:
            if (fewer) {
                m->wanted[i] = chance(w, 500) ? WANTED_STANDBY : WANTED_OUT;
            }
            break;
    }
}

/* --- how it comes about --- */

static void changed(struct core_change *ch, int rc)
{
    container_of(ch, struct pending, change)->busy = false;
    world_trace(ch->data, (uint64_t)rc + 2000);
}

static void transferred(void *data, int rc)
{
    world_trace(data, (uint64_t)rc + 3000);
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

static int take_out(struct world *w, struct node *leader, int i)
{
    struct members *m = w->members;
    if (i == leader->i) {
        (void)core_transfer(leader->core, 0, transferred, w);
        return -ERR_BUSY;
    }
    m->gone[i] = true;
    return core_remove(leader->core, &pending_of(w)->change, w->nodes[i].raft_id, changed);
}

void members_check_snapshot(struct node *n, const struct snap *s)
{
    uint64_t at;
    uint32_t voters = voters_in(n, &n->disk.view, s->index + 1, &at);
    if (voters != 0 && voters != voters_by(n->w, NULL, s)) {
        violate(n->w, "S15: node %d has a snapshot of %llu with other voters than those of %llu",
                n->i, (unsigned long long)s->index, (unsigned long long)at);
    }
}

void members_check_emptied(struct node *n)
{
    if ((n->oracle->conf_voters >> n->i & 1) != 0) {
        violate(n->w, "S1: node %d begins an empty log and votes by the configuration of %llu",
                n->i, (unsigned long long)n->oracle->conf_index);
    }
}

uint32_t members_committed_voters(const struct node *n)
{
    return voters_of(n->w, &n->core->raft.configuration_committed);
}

static bool somebody_heals(const struct world *w)
{
    bool heals = false;
    for (int i = 0; i < w->n; i++) {
        heals = heals || w->nodes[i].heals;
    }
    return heals;
}

/* With --force, by what the leader knows. */
static bool may_lose_vote(const struct world *w, const struct core_status *s, int i)
{
    struct quorum_member list[SIM_NODES_MAX + ARRAY_SIZE(s->members)];
    struct quorum_step step;
    size_t n = 0;
    for (size_t k = 0; k < s->members_count; k++) {
        int of = node_of(w, s->members[k].id);
        bool votes = s->members[k].raft_role == RAFT_VOTER;
        if (votes || (of >= 0 && w->members->wanted[of] == WANTED_VOTER)) {
            list[n++] = (struct quorum_member){
                .id = s->members[k].id, .votes = votes, .live = s->members[k].in_contact};
        }
    }
    return quorum_judge(list, n, w->nodes[i].raft_id, &step) != QUORUM_LOST;
}

/* The leader cannot take such a change back, nor commit it: whoever is damaged needs it to come in again, and it
 * needs them. Who is down may turn out to be damaged. */
static void check_vote_taken(struct world *w, const struct node *leader, int i)
{
    uint32_t left = members_voters(leader) & ~(1u << i);
    int lost = 0;
    for (int k = 0; k < w->n; k++) {
        const struct node *n = &w->nodes[k];
        lost += (left >> k & 1) != 0 && !n->up && w->now_us - n->down_since_us > NOTICED_US;
    }
    if (lost > 0 && 2 * lost >= __builtin_popcount(left)) {
        violate(w, "L1: node %d takes the vote of %d: of %d that are left %d are down", leader->i,
                i, __builtin_popcount(left), lost);
    }
}

/* 0: a step was begun. 1: nothing to do for this node. */
static int one_step(struct world *w, struct node *leader, const struct core_status *s, int i)
{
    struct members *m = w->members;
    struct node *n = &w->nodes[i];
    const struct core_member *member = find(s, n->raft_id);
    struct core *c = leader->core;
    struct core_change *ch = &pending_of(w)->change;
    bool votes = member != NULL && member->raft_role == RAFT_VOTER;
    if (votes && (m->damaged[i] || m->wanted[i] != WANTED_VOTER)) {
        if (!may_lose_vote(w, s, i)) {
            return 1;
        }
        if (i != leader->i) {
            check_vote_taken(w, leader, i);
        }
    }
    if (m->damaged[i] && votes) {
        return i == leader->i ? 1 : core_remove(c, ch, n->raft_id, changed);
    }
    m->damaged[i] = false;
    if (m->wanted[i] == WANTED_OUT) {
        return member == NULL ? 1 : take_out(w, leader, i);
    }
    if (member == NULL) {
        char address[UUID_TEXT_MAX];
        uuid_format(&n->id, address);
        if (!n->in_play) {
            n->in_play = true;
            node_start(n);
        }
        return core_add(c, ch, n->raft_id, address, changed);
    }
    switch (member->raft_role) {
        case RAFT_SPARE:
            return core_assign(c, ch, n->raft_id, RAFT_STANDBY, changed);
        case RAFT_STANDBY:
            if (m->wanted[i] == WANTED_STANDBY || !member->in_contact ||
                member->match_index + CATCH_UP_ENTRIES < s->commit_index) {
                return 1;
            }
            return core_assign(c, ch, n->raft_id, RAFT_VOTER, changed);
        default:
            if (m->wanted[i] == WANTED_VOTER) {
                return 1;
            }
            if (i == leader->i) {
                (void)core_transfer(c, 0, transferred, w);
                return -ERR_BUSY;
            }
            return core_assign(c, ch, n->raft_id, RAFT_STANDBY, changed);
    }
}

static void step(struct world *w)
{
    struct node *leader = members_leader(w);
    struct pending *p = pending_of(w);
    if (p->busy) {
        const struct node *at = &w->nodes[p->at];
        if (at->up && at->generation == p->generation) {
            return;
        }
        p->busy = false; /* its node is gone, the outcome unknown */
    }
    if (leader == NULL || leader->paused_until_us > w->now_us) {
        return;
    }
    struct core_status s;
    core_status(leader->core, &s);
    p->change = (struct core_change){.data = w};
    for (int i = 0; i < w->n; i++) {
        int rc = one_step(w, leader, &s, i);
        if (rc == 0) {
            p->busy = true;
            p->at = leader->i;
            p->generation = leader->generation;
            w->stats.changes++;
        }
        if (rc <= 0) {
            return;
        }
    }
    if (w->now_us < w->calm_us && chance(w, 20)) {
        (void)core_transfer(leader->core, 0, transferred, w);
    }
}

void members_event(struct world *w)
{
    bool calm = w->now_us >= w->calm_us;
    if (calm && w->newest == w->oracles && w->stats.healed == 0 && !somebody_heals(w)) {
        return;
    }
    if (!calm && w->n > w->members->first && chance(w, 200)) {
        change_of_mind(w);
    }
    step(w);
    struct node *leader = members_leader(w);
    if (!calm && leader != NULL && members_voters(leader) == 1u << leader->i &&
        leader->core->raft.configuration.n > 1 && chance(w, 300)) {
        /* A lone voter stops while others catch up, or has only just been joined by a second one. */
        world_schedule(w, between(w, 0, STEP_US), EV_KILL, leader->i)
            ->generation = leader->generation;
    }
    (void)world_schedule(w, STEP_US, EV_OWNER, -1);
}

bool members_gone(const struct world *w, int i)
{
    return w->members->gone[i] || w->members->wanted[i] == WANTED_OUT;
}

void members_damaged(struct world *w, int i)
{
    w->members->damaged[i] = true;
}

void members_survivor(struct world *w, int i)
{
    w->members->wanted[i] = WANTED_VOTER;
    w->members->gone[i] = false;
}

void members_lost(struct world *w, int i)
{
    w->members->wanted[i] = WANTED_OUT;
    w->members->gone[i] = true;
}

void members_new(struct world *w, int voters)
{
    w->members = xcalloc(1, sizeof *w->members);
    for (int i = 0; i < voters; i++) {
        w->members->wanted[i] = WANTED_VOTER;
        w->nodes[i].in_play = true;
    }
    w->members->first = voters;
    (void)world_schedule(w, 2 * SEC, EV_OWNER, -1);
}

void members_free(struct world *w)
{
    free(w->members);
}
