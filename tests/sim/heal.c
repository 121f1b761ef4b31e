/* A member whose log is damaged comes in again by itself, as heal.c and heal_grant.c of the authority do it
 * (docs/decisions/0014): it asks whoever leads, which takes it out of the configuration (members.c); only
 * when that is committed does it begin an empty log. */
#include "sim.h"

#include "authority/core_impl.h"

/* Whom it asks is one after the other, and who is away costs it seconds. */
#define ASK_US between(w, 300 * MS, 3 * SEC)

struct come {
    uint64_t term, leader, index;
};

/* By what is on the disks: of those that are away as well, and a change that is not committed yet may be. */
static bool majority_left(const struct node *n)
{
    uint32_t lost = 1u << n->i;
    for (int i = 0; i < n->w->n; i++) {
        lost |= n->w->nodes[i].heals ? 1u << i : 0;
    }
    return members_majority_without(n->w, lost);
}

/* Where the owner recovers as well, who is lost would be one question more. The version before cannot do it.
 * Without a majority the owner restores what is damaged (faults.c). */
bool heal_begins(struct node *n)
{
    struct world *w = n->w;
    if (n->old || recovery_begins(w) || w->now_us >= w->calm_us || !chance(w, 700) ||
        !majority_left(n)) {
        return false;
    }
    n->heals = true;
    (void)world_schedule(w, ASK_US, EV_HEAL, n->i);
    return true;
}

/* Whoever says it leads, and hears a majority: perhaps one that was deposed a moment ago. */
static struct node *some_leader(struct world *w, const struct node *asks)
{
    struct node *found = NULL;
    for (int i = 0; i < w->n; i++) {
        struct node *n = &w->nodes[i];
        if (n != asks && n->up && !n->failed && n->paused_until_us <= w->now_us &&
            net_reaches(w, asks->i, i) && core_check_leader(n->core) == 0 &&
            (found == NULL || chance(w, 500))) {
            found = n;
        }
    }
    return found;
}

static bool may_come(struct node *n, const struct core_status *s)
{
    bool votes = !s->configuration_committed;
    for (size_t i = 0; i < s->members_count; i++) {
        votes = votes || (s->members[i].id == n->raft_id && s->members[i].raft_role == RAFT_VOTER);
    }
    return !votes || PLANTED("healed_before_it_left");
}

/* Asks, or has the answer. */
void heal_event(struct node *n, const struct event *e)
{
    struct world *w = n->w;
    if (!n->heals) {
        return;
    }
    if (e->len > 0) {
        struct come c;
        memcpy(&c, e->bytes, sizeof c);
        members_check_emptied(n);
        disk_begin_empty(&n->disk, c.term, c.leader, c.index);
        n->heals = false;
        n->broken = false;
        n->voters = n->voters_before = 0;
        w->stats.healed++;
        world_trace(w, c.index);
        node_start(n);
        return;
    }
    struct node *leader = some_leader(w, n);
    if (leader != NULL) {
        struct core_status s;
        core_status(leader->core, &s);
        if (may_come(n, &s)) {
            const struct come c = {
                .term = s.term, .leader = leader->raft_id, .index = s.commit_index};
            (void)world_send(w, between(w, 1 * MS, 2 * SEC), EV_HEAL, n->i, &c, sizeof c);
            return;
        }
        members_damaged(w, n->i);
    }
    (void)world_schedule(w, ASK_US, EV_HEAL, n->i);
}
