#include "lib/fabric_relays.h"

#include <setjmp.h>
#include <cmocka.h>

static struct relay_node *node_of(struct relay_world *w, const struct uuid *id)
{
    for (size_t i = 0; i < w->count; i++) {
        if (uuid_equal(&w->node[i].n->id, id)) {
            return &w->node[i];
        }
    }
    return NULL;
}

static int next_hop(void *data, const struct uuid *to, enum overlay_class class,
                    const struct uuid *avoid, struct uuid *ret)
{
    struct relay_node *n = data;
    (void)class;
    if ((avoid == NULL || !uuid_equal(to, avoid)) && fabric_is_neighbour(n->n->f, to)) {
        *ret = *to;
        return 0;
    }
    for (size_t i = 0; i < n->routes; i++) {
        const struct uuid *via = &n->route[i].via->n->id;
        if (uuid_equal(&n->route[i].to->n->id, to) && (avoid == NULL || !uuid_equal(via, avoid)) &&
            fabric_is_neighbour(n->n->f, via)) {
            *ret = *via;
            return 0;
        }
    }
    return -ERR_UNREACHABLE;
}

static bool may_relay(void *data, const struct uuid *id)
{
    struct relay_node *n = node_of(((struct relay_node *)data)->rw, id);
    return n != NULL && n->relays;
}

static bool is_cut(void *data, const struct addr *from)
{
    struct relay_node *n = data;
    for (size_t i = 0; i < n->cuts; i++) {
        if (addr_equal(&n->cut[i]->n->addr, from)) {
            return true;
        }
    }
    return false;
}

struct relay_world *relay_world_new(void)
{
    struct relay_world *w = xcalloc(1, sizeof *w);
    fabric_world_init(&w->e.w);
    return w;
}

void relay_world_free(struct relay_world *w)
{
    fabric_world_fini(&w->e.w);
    free(w);
}

struct relay_node *relay_world_add(struct relay_world *w, bool relays)
{
    assert_true(w->count < RELAY_WORLD_NODES);
    struct relay_node *n = &w->node[w->count];
    bool first = w->count++ == 0;
    n->rw = w;
    n->relays = relays;
    n->n = echo_add(&w->e, (struct fabric_node_opts){.authority = first,
                                                     .issuer = first ? NULL : w->node[0].n,
                                                     .keepalive_ms = 50,
                                                     .dead_ms = 2000});
    fabric_set_overlay(
        n->n->f, &(struct fabric_overlay){.data = n, .next_hop = next_hop, .may_relay = may_relay});
    n->n->f->cut = is_cut;
    n->n->f->cut_data = n;
    return n;
}

void relay_world_route(struct relay_node *from, struct relay_node *to, struct relay_node *via)
{
    assert_true(from->routes < RELAY_ROUTES);
    from->route[from->routes].to = to;
    from->route[from->routes++].via = via;
}

void relay_world_link(struct relay_node *a, struct relay_node *b)
{
    fabric_world_introduce(a->n, b->n);
    fabric_peer_keep(a->n->f, &b->n->id, true);
}

void relay_world_cut(struct relay_node *a, struct relay_node *b)
{
    assert_true(b->cuts < RELAY_WORLD_NODES);
    b->cut[b->cuts++] = a;
}

void relay_world_mend(struct relay_world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        w->node[i].cuts = 0;
    }
}

static bool kept_are_up(void *data)
{
    struct relay_world *w = data;
    for (size_t i = 0; i < w->count; i++) {
        struct fabric *f = w->node[i].n->f;
        for (struct peer *p = f != NULL ? f->peers : NULL; p != NULL; p = p->hh.next) {
            if (p->keep && !fabric_is_neighbour(f, &p->id)) {
                return false;
            }
        }
    }
    return true;
}

void relay_world_settle(struct relay_world *w)
{
    fabric_world_run(&w->e.w, kept_are_up, w);
}

uint64_t relay_drops(const struct relay_node *n, enum fabric_drop why)
{
    struct fabric_overlay_counters c;
    fabric_overlay_counters(n->n->f, &c);
    return c.drops[why];
}

void relay_line_init(struct relay_line *l)
{
    l->w = relay_world_new();
    l->a = relay_world_add(l->w, false);
    l->r = relay_world_add(l->w, true);
    l->b = relay_world_add(l->w, false);
    relay_world_link(l->a, l->r);
    relay_world_link(l->b, l->r);
    relay_world_route(l->a, l->b, l->r);
    relay_world_route(l->b, l->a, l->r);
    relay_world_settle(l->w);
}
