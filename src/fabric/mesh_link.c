#include "fabric/mesh_link.h"

/* The weights of the cost. Latency counts as it is; a lost packet costs its sender a retransmission
 * (RFC 9002 section 6.2: a probe timeout is at least 3 round trips' worth of waiting), taken as 400 ms;
 * jitter counts once; a relay's load counts from half of its capacity on. A hop is never free, or two
 * of them would look as good as one. */
#define COST_LOSS_US_PER_PERMILLE 400u
#define COST_LOAD_US_PER_PERCENT 400u
#define COST_LOAD_FREE_PERCENT 50u
#define COST_HOP_US 200u
#define COST_SUSPECT_US 500000u
#define LOSS_HISTORY_MIN 16u /* a loss among the first few probes says little */
#define ANCHOR_PROBES 32u
/* An end that wakes sends its probe before it answers what waited for it. */
#define WAKING_US 10000u

void mesh_link_init(struct mesh_link *l)
{
    *l = (struct mesh_link){.state = MESH_LINK_DOWN};
}

const char *mesh_link_state_text(enum mesh_link_state s)
{
    switch (s) {
        case MESH_LINK_DOWN:
            return "down";
        case MESH_LINK_TRYING:
            return "trying";
        case MESH_LINK_UP:
            return "up";
        case MESH_LINK_SUSPECT:
            return "suspect";
    }
    return "unknown";
}

static bool alive(enum mesh_link_state s)
{
    return s == MESH_LINK_UP || s == MESH_LINK_SUSPECT;
}

static void set_state(struct mesh_link *l, enum mesh_link_state to)
{
    static const bool allowed[4][4] = {
        [MESH_LINK_DOWN] = {[MESH_LINK_TRYING] = true},
        [MESH_LINK_TRYING] = {[MESH_LINK_DOWN] = true, [MESH_LINK_UP] = true},
        [MESH_LINK_UP] =
            {[MESH_LINK_DOWN] = true, [MESH_LINK_TRYING] = true, [MESH_LINK_SUSPECT] = true},
        [MESH_LINK_SUSPECT] =
            {[MESH_LINK_DOWN] = true, [MESH_LINK_TRYING] = true, [MESH_LINK_UP] = true},
    };
    CHECK(allowed[l->state][to]);
    CHECK(!alive(to) || (l->token != 0 && l->peer_token != 0));
    l->state = to;
}

/* --- how long without an answer is too long --- */

static uint64_t grace_us(const struct mesh_link *l)
{
    return l->srtt_us < MESH_DEAD_RTT_MAX_US ? l->srtt_us : MESH_DEAD_RTT_MAX_US;
}

/* Sooner than a probe counts as lost: an answer should have come by now. */
static uint64_t patience_us(const struct mesh_link *l)
{
    uint64_t us = 50000 + (uint64_t)l->srtt_us + 4 * (uint64_t)l->jitter_us;
    return us < MESH_PROBE_US + grace_us(l) ? us : MESH_PROBE_US + grace_us(l);
}

/* The last probe should have its answer by now. */
static bool overdue(const struct mesh_link *l, uint64_t now_us)
{
    return l->last_probe_us > l->heard_us && now_us >= l->last_probe_us + patience_us(l);
}

static uint64_t reprobe_at_us(const struct mesh_link *l)
{
    uint64_t patience = patience_us(l);
    uint64_t wait = patience > MESH_REPROBE_US ? patience : MESH_REPROBE_US;
    return l->last_probe_us + (wait < MESH_PROBE_US ? wait : MESH_PROBE_US);
}

static uint64_t dead_at_us(const struct mesh_link *l)
{
    return l->heard_us + MESH_DEAD_US + grace_us(l);
}

bool mesh_link_usable(const struct mesh_link *l, uint64_t now_us)
{
    return alive(l->state) && (now_us < dead_at_us(l) || PLANTED("silence_ignored"));
}

/* --- estimators --- */

uint32_t mesh_link_loss_permille(const struct mesh_link *l)
{
    unsigned n = l->outcomes_count > LOSS_HISTORY_MIN ? l->outcomes_count : LOSS_HISTORY_MIN;
    return (uint32_t)__builtin_popcountll(l->outcomes) * 1000u / n;
}

uint32_t mesh_link_cost_us(const struct mesh_link *l, uint64_t now_us)
{
    uint32_t cost = COST_HOP_US + l->srtt_us / 2 + l->jitter_us;
    cost += mesh_link_loss_permille(l) * COST_LOSS_US_PER_PERMILLE;
    if (l->peer_load > COST_LOAD_FREE_PERCENT) {
        cost += (l->peer_load - COST_LOAD_FREE_PERCENT) * COST_LOAD_US_PER_PERCENT;
    }
    cost += l->state == MESH_LINK_SUSPECT || now_us < l->wary_until_us ? COST_SUSPECT_US : 0;
    cost += now_us < l->held_until_us ? MESH_COST_HELD_US : 0;
    return cost;
}

static void note_outcome(struct mesh_link *l, bool missed)
{
    l->outcomes = l->outcomes << 1 | missed;
    l->outcomes_count += l->outcomes_count < 64;
}

static void note_rtt(struct mesh_link *l, uint64_t rtt_us)
{
    uint32_t rtt = rtt_us > 10000000 ? 10000000 : (uint32_t)rtt_us;
    bool young = l->rtt_samples < MESH_RTT_YOUNG;
    l->rtt_samples += young;
    if (l->rtt_samples == 1 || (young && rtt < l->srtt_us)) {
        l->srtt_us = rtt > 0 ? rtt : 1;
        l->jitter_us = rtt / 2;
        return;
    }
    uint32_t deviation = l->srtt_us > rtt ? l->srtt_us - rtt : rtt - l->srtt_us;
    l->jitter_us += (uint32_t)(((int64_t)deviation - (int64_t)l->jitter_us) / 4);
    l->srtt_us += (uint32_t)(((int64_t)rtt - (int64_t)l->srtt_us) / 8);
    l->srtt_us += l->srtt_us == 0;
}

/* The other end had `received` of our probes when it answered `seq`. */
static void note_arrivals(struct mesh_link *l, uint32_t seq, uint32_t received)
{
    uint32_t sent = seq - l->anchor[0].seq;
    uint32_t came = received - l->anchor[0].received;
    if (came > sent) { /* not what an honest end says; or it has begun to count anew */
        l->anchor[0].seq = l->anchor[1].seq = seq;
        l->anchor[0].received = l->anchor[1].received = received;
        l->out_loss_permille = 0;
        return;
    }
    l->out_loss_permille = sent == 0 ? 0 : (sent - came) * 1000u / sent;
    if (seq - l->anchor[1].seq >= ANCHOR_PROBES) {
        l->anchor[0] = l->anchor[1];
        l->anchor[1].seq = seq;
        l->anchor[1].received = received;
    }
}

/* --- up and down --- */

static void forget_flaps(struct mesh_link *l, uint64_t now_us)
{
    while (l->flaps > 0 && now_us - l->flap_us >= MESH_FLAP_FORGET_US) {
        l->flaps--;
        l->flap_us += MESH_FLAP_FORGET_US;
    }
}

static void count_flap(struct mesh_link *l, uint64_t now_us)
{
    forget_flaps(l, now_us);
    uint64_t hold = l->flaps < 5 ? MESH_HOLD_MIN_US << l->flaps : MESH_HOLD_MAX_US;
    l->flaps += l->flaps < 16;
    l->flap_us = now_us;
    l->held_until_us = now_us + hold;
}

/* A new life of the link, as the other end will see from the token: nothing sent or heard before counts. */
static void begin(struct mesh_link *l, uint64_t now_us)
{
    uint64_t old = l->token;
    while (l->token == 0 || l->token == old) {
        l->random_state += 0x9e3779b97f4a7c15ULL; /* odd: passes through every value */
        l->token = l->random_state;
    }
    l->peer_token = 0;
    l->received = 0;
    l->rtt_samples = 0;
    l->anchor[0].seq = l->anchor[1].seq = l->next_seq;
    l->anchor[0].received = l->anchor[1].received = 0;
    l->next_probe_us = now_us;
    l->look_us = UINT64_MAX;
    memset(l->sent, 0, sizeof l->sent);
}

static void go_down(struct mesh_link *l, const struct mesh_link_event *ev, enum mesh_link_state to,
                    struct mesh_link_todo *todo)
{
    if (alive(l->state)) {
        todo->change = MESH_LINK_WENT_DOWN;
        l->one_way = ev->now_us - l->probed_us < 2 * MESH_PROBE_US;
        count_flap(l, ev->now_us);
        /* held_until_us is the price of an outage; the probes that it swallowed would count twice. */
        while ((l->outcomes & 1) != 0) {
            l->outcomes >>= 1;
            l->outcomes_count--;
        }
    }
    if (l->state != to) {
        set_state(l, to);
    }
}

static void come_up(struct mesh_link *l, struct mesh_link_todo *todo)
{
    l->one_way = false;
    set_state(l, MESH_LINK_UP);
    todo->change = MESH_LINK_CAME_UP;
}

/* --- probes --- */

static struct mesh_probe *add_probe(struct mesh_link *l, const struct mesh_link_event *ev,
                                    struct mesh_link_todo *todo)
{
    CHECK(todo->send_count < ARRAY_SIZE(todo->send));
    struct mesh_probe *p = &todo->send[todo->send_count++];
    *p = (struct mesh_probe){
        .token = l->token,
        .peer_token = l->peer_token,
        .received = l->received,
        .load = ev->own_load > 100 ? 100 : ev->own_load,
        .flags = ev->own_full ? MESH_PROBE_FULL : 0,
    };
    return p;
}

static void send_probe(struct mesh_link *l, const struct mesh_link_event *ev,
                       struct mesh_link_todo *todo)
{
    struct mesh_link_sent *s = &l->sent[l->next_seq % ARRAY_SIZE(l->sent)];
    *s = (struct mesh_link_sent){.at_us = ev->now_us, .seq = l->next_seq, .open = true};
    struct mesh_probe *p = add_probe(l, ev, todo);
    p->type = MESH_PROBE;
    p->seq = l->next_seq++;
    l->last_probe_us = ev->now_us;
    l->look_us = ev->now_us + patience_us(l);
    l->next_probe_us = ev->now_us + MESH_PROBE_US;
}

/* Every probe says who sends it now. A token that we did not know means that the other end has begun
 * anew, and forgotten all that we told it; or it is a late probe of a life before, and the other end goes on. We
 * cannot tell, and forget what it told us: so we begin anew as well, or it would not tell us again. Its
 * answer to the new token carries its own newest, so this ends there. */
static void meet(struct mesh_link *l, const struct mesh_link_event *ev, struct mesh_link_todo *todo)
{
    if (alive(l->state) && l->peer_token != ev->probe->token && !PLANTED("restart_unnoticed")) {
        go_down(l, ev, MESH_LINK_TRYING, todo);
        begin(l, ev->now_us);
    }
    l->peer_token = ev->probe->token;
    l->peer_load = ev->probe->load;
    l->peer_full = (ev->probe->flags & MESH_PROBE_FULL) != 0;
}

static void on_probe(struct mesh_link *l, const struct mesh_link_event *ev,
                     struct mesh_link_todo *todo)
{
    meet(l, ev, todo);
    l->received++;
    l->probed_us = ev->now_us;
    struct mesh_probe *answer = add_probe(l, ev, todo);
    answer->type = MESH_PROBE_ANSWER;
    answer->seq = ev->probe->seq;
    bool late = alive(l->state) && overdue(l, ev->now_us);
    uint64_t due_us = late ? reprobe_at_us(l) : l->last_probe_us + MESH_PROBE_US;
    if (ev->now_us + 10000 >= due_us || l->last_probe_us == 0) {
        send_probe(l, ev, todo); /* the other end is active: so are we */
    } else if (late && ev->now_us + WAKING_US < l->look_us) {
        l->look_us = ev->now_us + WAKING_US;
    }
}

static void on_answer(struct mesh_link *l, const struct mesh_link_event *ev,
                      struct mesh_link_todo *todo)
{
    const struct mesh_probe *a = ev->probe;
    struct mesh_link_sent *s = &l->sent[a->seq % ARRAY_SIZE(l->sent)];
    if (a->peer_token != l->token || s->seq != a->seq || s->at_us == 0) {
        return; /* of an earlier life, or made up */
    }
    meet(l, ev, todo);
    if (todo->change == MESH_LINK_WENT_DOWN) {
        return; /* up again with the next answer: one step, one change */
    }
    if (s->open) {
        note_outcome(l, false);
        note_rtt(l, ev->now_us - s->at_us);
        note_arrivals(l, a->seq, a->received);
    }
    s->open = false;
    l->heard_us = s->at_us > l->heard_us ? s->at_us : l->heard_us;
    if (l->state == MESH_LINK_TRYING && ev->now_us < dead_at_us(l)) {
        come_up(l, todo);
    } else if (l->state == MESH_LINK_SUSPECT) {
        set_state(l, MESH_LINK_UP);
        l->wary_until_us = ev->now_us + MESH_WARY_US;
    }
}

static void count_lost(struct mesh_link *l, uint64_t now_us)
{
    for (uint32_t k = 0; k < ARRAY_SIZE(l->sent); k++) {
        struct mesh_link_sent *s = &l->sent[(l->next_seq + k) % ARRAY_SIZE(l->sent)];
        if (s->open && now_us >= s->at_us + MESH_PROBE_US + grace_us(l)) {
            s->open = false;
            if (alive(l->state)) {
                note_outcome(l, true);
            }
        }
    }
}

/* Probes without an answer since the last that had one, and when the first of them was due. */
static unsigned missed(const struct mesh_link *l, uint64_t now_us, uint64_t *ret_due_us)
{
    unsigned count = 0;
    uint64_t first_us = UINT64_MAX;
    for (uint32_t k = 0; k < ARRAY_SIZE(l->sent); k++) {
        const struct mesh_link_sent *s = &l->sent[k];
        if (s->at_us > l->heard_us && now_us >= s->at_us + patience_us(l)) {
            count++;
            first_us = s->at_us < first_us ? s->at_us : first_us;
        }
    }
    *ret_due_us = count > 0 ? first_us + patience_us(l) : UINT64_MAX;
    return count;
}

/* Too many probes without an answer; fewer are too many when the other end, which heard everything before,
 * has spoken since it should have answered. */
static bool is_doubtful(const struct mesh_link *l, uint64_t now_us)
{
    uint64_t due_us;
    unsigned count = missed(l, now_us, &due_us);
    uint64_t before = l->outcomes >> MESH_MISSED_ONE_WAY;
    bool clean = l->outcomes_count >= LOSS_HISTORY_MIN &&
                 (before & ((1u << LOSS_HISTORY_MIN) - 1)) == 0;
    return count >= MESH_MISSED_SUSPECT ||
           (count >= MESH_MISSED_ONE_WAY && clean && l->probed_us >= due_us &&
            now_us >= l->probed_us + WAKING_US);
}

static void judge(struct mesh_link *l, const struct mesh_link_event *ev,
                  struct mesh_link_todo *todo)
{
    if (alive(l->state) && ev->now_us >= dead_at_us(l) && !PLANTED("silence_ignored")) {
        go_down(l, ev, MESH_LINK_TRYING, todo);
        begin(l, ev->now_us);
    } else if (l->state == MESH_LINK_UP && is_doubtful(l, ev->now_us)) {
        set_state(l, MESH_LINK_SUSPECT);
        todo->suspected = true;
    }
}

static void check_cost(struct mesh_link *l, const struct mesh_link_event *ev,
                       struct mesh_link_todo *todo)
{
    uint32_t cost = mesh_link_cost_us(l, ev->now_us);
    uint32_t moved = cost > l->cost_told ? cost - l->cost_told : l->cost_told - cost;
    if (todo->change == MESH_LINK_CAME_UP || (alive(l->state) && moved > l->cost_told / 8 + 500)) {
        todo->cost_moved = true;
        l->cost_told = cost;
    }
}

void mesh_link_step(struct mesh_link *l, const struct mesh_link_event *ev,
                    struct mesh_link_todo *todo)
{
    *todo = (struct mesh_link_todo){.change = MESH_LINK_SAME};
    l->random_state ^= ev->random;
    l->look_us = ev->now_us >= l->look_us ? UINT64_MAX : l->look_us;
    /* Time first: a link that was silent too long is down, whatever comes now. */
    count_lost(l, ev->now_us);
    judge(l, ev, todo);
    switch (ev->kind) {
        case MESH_LINK_SESSION_UP:
            if (l->state != MESH_LINK_DOWN) {
                break; /* a second connection; should it be of another life, its token will say so */
            }
            set_state(l, MESH_LINK_TRYING);
            begin(l, ev->now_us);
            if (l->active) {
                send_probe(l, ev, todo);
            }
            break;
        case MESH_LINK_SESSION_DOWN:
            go_down(l, ev, MESH_LINK_DOWN, todo);
            break;
        case MESH_LINK_PROBE:
            if (l->state == MESH_LINK_DOWN) {
                break; /* its session has ended */
            }
            if (ev->probe->type == MESH_PROBE) {
                on_probe(l, ev, todo);
            } else {
                on_answer(l, ev, todo);
            }
            break;
        case MESH_LINK_ACTIVE:
            l->active = ev->active;
            break;
        case MESH_LINK_TICK:
            break;
    }
    if (l->active && alive(l->state) && overdue(l, ev->now_us)) {
        uint64_t at = reprobe_at_us(l);
        l->next_probe_us = at < l->next_probe_us ? at : l->next_probe_us;
    }
    if (ev->kind != MESH_LINK_PROBE && l->active && l->state != MESH_LINK_DOWN &&
        ev->now_us >= l->next_probe_us) {
        send_probe(l, ev, todo);
    }
    check_cost(l, ev, todo);
}

uint64_t mesh_link_next_us(const struct mesh_link *l)
{
    uint64_t next = UINT64_MAX;
    if (l->state == MESH_LINK_DOWN) {
        return next;
    }
    if (l->active) {
        next = l->next_probe_us;
    }
    if (alive(l->state)) {
        uint64_t dead = dead_at_us(l);
        next = dead < next ? dead : next;
        next = l->look_us < next ? l->look_us : next;
    }
    return next;
}
