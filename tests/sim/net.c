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

static void op_send(struct raft_net *n, raft_id id, struct blob bytes)
{
    struct net_port *p = of(n);
    struct world *w = p->w;
    int to = node_of(w, id);
    if (w->nodes[p->node].disk.failed) {
        violate(w, "S22: node %d speaks after its disk failed", p->node);
    }
    if (to < 0 || w->net.cut[p->node][to] || chance(w, w->net.loss)) {
        return;
    }
    deliver_later(p, to, bytes);
    if (chance(w, w->net.dup)) {
        deliver_later(p, to, bytes);
    }
}

static bool op_in_flight(struct raft_net *n, raft_id id)
{
    struct net_port *p = of(n);
    int to = node_of(p->w, id);
    return to >= 0 && !p->w->net.cut[p->node][to] && p->large_until_us[to] > p->w->now_us;
}

static const struct raft_net_ops ops = {.send = op_send, .snapshot_in_flight = op_in_flight};

void net_port_init(struct net_port *p, struct world *w, int node)
{
    *p = (struct net_port){.net = {.ops = &ops}, .w = w, .node = node};
}
