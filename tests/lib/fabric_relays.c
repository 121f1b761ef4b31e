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
    if (n->denied != NULL && uuid_equal(&n->denied->n->id, to)) {
        return -ERR_DENIED;
    }
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
    return n != NULL && n->relays && !(n == data && n->lost_role);
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

static bool may_talk(void *data, const struct uuid *peer)
{
    const struct relay_node *n = data;
    return n->denied == NULL || !uuid_equal(&n->denied->n->id, peer);
}

static bool may_use(void *data, const struct uuid *peer, struct blob service)
{
    const struct relay_node *n = data;
    (void)peer;
    return n->denied_service == NULL || !blob_equal(service, blob_str(n->denied_service));
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
                                                     .dead_ms = 10000});
    fabric_set_overlay(n->n->f, &(struct fabric_overlay){.data = n,
                                                         .next_hop = next_hop,
                                                         .may_relay = may_relay,
                                                         .may_talk = may_talk,
                                                         .may_use = may_use});
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

void relay_world_be_patient(struct relay_world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        w->node[i].n->f->suspect_margin_ns = 10000 * NS_PER_MS;
    }
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

int relay_line_setup(void **state)
{
    struct relay_line *l = xcalloc(1, sizeof *l);
    relay_line_init(l);
    *state = l;
    return 0;
}

int relay_line_teardown(void **state)
{
    struct relay_line *l = *state;
    relay_world_free(l->w);
    free(l);
    return 0;
}

static void find_session(void *data, const struct fabric_session_info *info)
{
    struct relay_found *f = data;
    if (uuid_equal(&info->peer.identity.node_id, f->id)) {
        f->info = *info;
        f->count++;
    }
}

struct relay_found relay_session_to(struct relay_node *n, struct relay_node *peer)
{
    struct relay_found f = {.id = &peer->n->id};
    fabric_sessions(n->n->f, find_session, &f);
    return f;
}

struct fabric_overlay_counters relay_counters(struct relay_node *n)
{
    struct fabric_overlay_counters c;
    fabric_overlay_counters(n->n->f, &c);
    return c;
}

/* --- talk --- */

static void talk_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct talk *t = data;
    (void)frame;
    t->got++;
    t->sent++;
    assert_int_equal(fabric_stream_send(s, blob_str("ping")), 0);
}

static void talk_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    ((struct talk *)data)->closed = true;
    ((struct talk *)data)->rc = rc;
}

void talk_open(struct talk *t, struct relay_node *from, struct relay_node *to)
{
    static const struct fabric_stream_vtab vtab = {.frame = talk_frame, .closed = talk_closed};
    struct fabric_stream_to sto = {.node_id = to->n->id, .service = "echo"};
    t->sent = 1;
    assert_int_equal(fabric_stream_open(from->n->f, &sto, &vtab, t, &t->s), 0);
    assert_int_equal(fabric_stream_send(t->s, blob_str("ping")), 0);
}

static bool is_on_wanted_way(void *data)
{
    struct talk *t = data;
    assert_false(t->closed);
    struct relay_found f = relay_session_to(t->l->a, t->l->b);
    return f.count == 1 && f.info.relayed == t->relayed;
}

void talk_run_until_on(struct talk *t, bool relayed)
{
    t->relayed = relayed;
    fabric_world_run(&t->l->w->e.w, is_on_wanted_way, t);
}

struct more {
    struct talk *t;
    unsigned target;
};

static bool got_more(void *data)
{
    struct more *m = data;
    assert_false(m->t->closed);
    return m->t->got >= m->target;
}

void talk_run_for_more(struct talk *t)
{
    struct more m = {.t = t, .target = t->got + 20};
    fabric_world_run(&t->l->w->e.w, got_more, &m);
}
