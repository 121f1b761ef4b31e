/* A network: in order per pair unless told otherwise; cuts are one-way. */
#include "sim.h"

#define LARGE 16384

static struct net_port *of(struct raft_net *n)
{
    return container_of(n, struct net_port, net);
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

static void deliver_later(struct net_port *p, int to, struct blob bytes)
{
    struct world *w = p->w;
    struct net *net = &w->net;
    uint64_t delay = between(w, 150, 1500) + net->delay_us + bytes.len / 100;
    uint64_t at = w->now_us + delay;
    if (chance(w, net->reorder)) {
        at += between(w, 0, 60 * MS);
    } else {
        uint64_t *last = &net->last_us[p->node][to];
        at = at > *last ? at : *last;
        *last = at;
    }
    struct event *e = world_schedule(w, at - w->now_us, EV_MSG, to);
    e->from = (int8_t)p->node;
    e->len = (uint32_t)bytes.len;
    e->bytes = xmalloc(bytes.len);
    memcpy(e->bytes, bytes.data, bytes.len);
    if (bytes.len >= LARGE) {
        p->large_until_us[to] = at;
    }
}

static uint64_t last_stored(const struct disk *d)
{
    const struct rec_list *l = &d->durable;
    return l->count > 0 ? l->first + l->count - 1 : d->snap != NULL ? d->snap->index : 0;
}

/* S1, S2: a vote or an acknowledged index is durable before anybody hears of it. Only these two
 * types are decoded; the type is the third byte of every message. */
static void check_promise(struct net_port *p, raft_id to, struct blob bytes)
{
    const struct disk *d = &p->w->nodes[p->node].disk;
    struct raft_message m;
    struct raft_digest digest;
    if (bytes.len < 3 ||
        (bytes.data[2] != RAFT_REQUEST_VOTE_RESULT &&
         bytes.data[2] != RAFT_APPEND_ENTRIES_RESULT) ||
        raft_msg_decode(bytes, &m, &digest) != 0) {
        return;
    }
    if (m.type == RAFT_REQUEST_VOTE_RESULT) {
        const struct raft_request_vote_result *v = &m.request_vote_result;
        if (v->vote_granted && last_stored(d) < d->silent_until) {
            violate(p->w, "S1: node %d gives a vote before it holds what took it out of the vote",
                    p->node);
        }
        if (v->vote_granted && !v->pre_vote && (d->term != v->term || d->vote != to)) {
            violate(p->w, "S1: node %d sends a vote in term %llu that its disk does not hold",
                    p->node, v->term);
        }
    } else if (m.append_entries_result.rejected == 0) {
        uint64_t last = last_stored(d);
        if (m.append_entries_result.last_log_index > last) {
            violate(p->w, "S2: node %d says it stored %llu and stored %llu", p->node,
                    m.append_entries_result.last_log_index, (unsigned long long)last);
        }
    }
    raft_msg_release(&m);
}

static bool op_send(struct raft_net *n, raft_id id, struct blob bytes)
{
    struct net_port *p = of(n);
    struct world *w = p->w;
    int to = node_of(w, id);
    if (w->nodes[p->node].disk.failed) {
        violate(w, "S22: node %d speaks after its disk failed", p->node);
    }
    check_promise(p, id, bytes);
    if (to < 0 || w->net.cut[p->node][to] || w->net.severed[p->node][to] ||
        chance(w, w->net.loss)) {
        return true; /* nobody is told */
    }
    deliver_later(p, to, bytes);
    if (chance(w, w->net.dup)) {
        deliver_later(p, to, bytes);
    }
    return true;
}

static bool op_in_flight(struct raft_net *n, raft_id id)
{
    struct net_port *p = of(n);
    int to = node_of(p->w, id);
    return to >= 0 && !p->w->net.cut[p->node][to] && p->large_until_us[to] > p->w->now_us;
}

bool net_reaches(const struct world *w, int a, int b)
{
    const struct net *n = &w->net;
    return !n->cut[a][b] && !n->cut[b][a] && !n->severed[a][b] && !n->severed[b][a];
}

static const struct raft_net_ops ops = {
    .send = op_send, .send_image = op_send, .snapshot_in_flight = op_in_flight};

void net_port_init(struct net_port *p, struct world *w, int node)
{
    *p = (struct net_port){.net = {.ops = &ops}, .w = w, .node = node};
}
