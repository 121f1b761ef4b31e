#include "sim_mesh.h"

#define WANTED_MAX 40 /* destinations that a node of a large mesh asks for */

void violated(struct world *w, const char *fmt, ...)
{
    va_list ap;
    if (w->violated) {
        return;
    }
    w->violated = true;
    int n = snprintf(w->what, sizeof w->what, "t=%.3f ", (double)w->now_us / 1e6);
    va_start(ap, fmt);
    (void)vsnprintf(w->what + n, sizeof w->what - (size_t)n, fmt, ap);
    va_end(ap);
}

static int next_of(const struct world *w, int i, int dst)
{
    struct uuid next;
    const struct sim_node *x = &w->node[i];
    if (x->mesh == NULL ||
        mesh_next_hop(x->mesh, &w->node[dst].id, NULL, w->now_us, &next) != ROUTE_NONE) {
        return NO_NODE;
    }
    return world_index(w, &next);
}

/* --- intents: judged here anew, by what they mean (SPEC RTE-02, RTE-09) --- */

/* The rule of i is about dst: not about relays, which are reached as they can be. */
static bool is_ruled(const struct world *w, int i, int dst)
{
    const struct sim_node *x = &w->node[i];
    return x->mesh != NULL && x->rule.exists && dst % RULE_SHARE == x->rule.about &&
           !mesh_peers_is_relay(mesh_peers(x->mesh), &w->node[dst].id);
}

static bool is_refused(const struct world *w, int i, int dst, int next)
{
    const struct sim_rule *r = &w->node[i].rule;
    bool direct = next == dst;
    bool match = r->via == MESH_VIA_ANY || (r->via == MESH_VIA_DIRECT && direct) ||
                 (r->via == MESH_VIA_NODE && !direct && next == r->node) ||
                 (r->via == MESH_VIA_REGION && !direct && world_region(next) == r->region);
    return is_ruled(w, i, dst) && match == (r->kind == MESH_INTENT_DENY);
}

static void check_rule(struct world *w, int i, int dst, int next)
{
    if (!is_ruled(w, i, dst)) {
        return;
    }
    w->stats.ruled++;
    w->stats.obeyed += next != NO_NODE;
    if (next != NO_NODE && is_refused(w, i, dst, next)) {
        violated(w, "node %d sends packets for %d through %d, which its owner refuses", i, dst,
                 next);
    }
}

/* --- paths --- */

/* Follows the tables as they are at this moment. A loop that is new must lead through i. */
static void check_path(struct world *w, int i, int dst)
{
    int at = i;
    w->stats.loops_checked++;
    for (int hops = 0; at != dst && at != NO_NODE; hops++) {
        int next = next_of(w, at, dst);
        if (next == i || hops > w->n) {
            violated(w, "loop: packets of node %d for %d come back after %d hops", i, dst,
                     hops + 1);
            return;
        }
        if (next != NO_NODE && next != dst &&
            !mesh_peers_is_relay(mesh_peers(w->node[at].mesh), &w->node[next].id)) {
            violated(w, "node %d sends packets for %d through %d, which is no relay", at, dst,
                     next);
            return;
        }
        at = next;
    }
}

static void check_bounds(struct world *w, int i)
{
    const struct sim_node *x = &w->node[i];
    const struct mesh_peers *p = mesh_peers(x->mesh);
    unsigned min = mesh_peers_range(p->kind).min;
    unsigned max = mesh_peers_range(p->kind).max;
    unsigned up = mesh_peers_active(p);
    unsigned kept = mesh_peers_kept(p);
    if (up > max || kept > (up < min ? max + MESH_RACE : max)) {
        violated(w, "node %d has %u active peers and tries %u, more than %u", i, up, kept, max);
    }
    if (route_destination_count(mesh_routes(x->mesh)) > (size_t)w->n ||
        route_neighbour_count(mesh_routes(x->mesh)) > (size_t)w->n) {
        violated(w, "node %d knows more nodes than there are", i);
    }
}

void check_node(struct world *w, int i)
{
    struct sim_node *x = &w->node[i];
    if (x->mesh == NULL || w->violated) {
        return;
    }
    check_bounds(w, i);
    uint64_t generation = route_generation(mesh_routes(x->mesh));
    if (generation == x->generation) {
        return;
    }
    x->generation = generation;
    for (int dst = 0; dst < w->n && !w->violated; dst++) {
        int next = dst == i ? NO_NODE : next_of(w, i, dst);
        const struct mesh_peer *known = mesh_peers_find(mesh_peers(x->mesh), &w->node[dst].id);
        if (next != NO_NODE && known != NULL && known->entry.revoked) {
            violated(w, "node %d has a route to %d, which it knows is revoked", i, dst);
        }
        check_rule(w, i, dst, next);
        if (next != x->next[dst]) {
            x->next[dst] = (uint16_t)next;
            w->stats.switches++;
            if (next != NO_NODE) {
                check_path(w, i, dst);
            }
        }
    }
}

/* --- the end --- */

static bool present(const struct world *w, int i)
{
    return w->node[i].mesh != NULL && !w->node[i].revoked;
}

static bool is_relay(const struct world *w, int i)
{
    return present(w, i) && w->node[i].relay;
}

static bool could_link(const struct world *w, int a, int b)
{
    return a != b && present(w, a) && present(w, b) && world_usable(w, a, b);
}

/* Which part of the relays' graph each relay is in. */
static void parts(const struct world *w, int *part)
{
    for (int i = 0; i < w->n; i++) {
        part[i] = is_relay(w, i) ? i : -1;
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (int a = 0; a < w->n; a++) {
            for (int b = 0; b < w->n; b++) {
                if (part[a] >= 0 && part[b] >= 0 && part[b] < part[a] && could_link(w, a, b)) {
                    part[a] = part[b];
                    moved = true;
                }
            }
        }
    }
}

/* The part that a node reaches; -1: none; -2: several, and which it joins is its choice. */
static int joins(const struct world *w, const int *part, int i)
{
    int in = -1;
    if (is_relay(w, i)) {
        return part[i];
    }
    for (int r = 0; r < w->n; r++) {
        if (part[r] >= 0 && could_link(w, i, r)) {
            if (in >= 0 && in != part[r]) {
                return -2;
            }
            in = part[r];
        }
    }
    return in;
}

/* Where the packets of a for b end. */
static int end_of(struct world *w, int a, int b)
{
    int at = a;
    for (int hops = 0; at != b && hops <= w->n; hops++) {
        int next = next_of(w, at, b);
        if (next == NO_NODE) {
            break;
        }
        at = next;
    }
    return at;
}

/* Nobody but the end of the path may lack a way to b because of an owner's rule. */
static bool is_restricted(const struct world *w, int a, int b)
{
    bool is = is_ruled(w, a, b);
    for (int r = 0; r < w->n && !is; r++) {
        is = w->node[r].relay && is_ruled(w, r, b);
    }
    return is;
}

static const char *why_not(const struct world *w, int i, int dst)
{
    struct uuid next;
    return w->node[i].mesh == NULL
               ? "dead"
               : route_refusal_text(
                     mesh_next_hop(w->node[i].mesh, &w->node[dst].id, NULL, w->now_us, &next));
}

static void check_peers(struct world *w, int i)
{
    const struct mesh_peers *p = mesh_peers(w->node[i].mesh);
    struct mesh_peers_range range = mesh_peers_range(p->kind);
    unsigned could = 0;
    for (int r = 0; r < w->n; r++) {
        could += is_relay(w, r) && could_link(w, i, r);
    }
    unsigned least = could < range.min ? could : range.min;
    unsigned up = mesh_peers_active(p);
    if (up < least || up > range.max) {
        violated(w, "node %d has %u active peers; of %u possible it should have %u-%u", i, up,
                 could, least, range.max);
    }
}

static int wanted(const struct world *w, int i, int k)
{
    return w->n <= WANTED_MAX ? k : (i * 31 + k * 17 + 1) % w->n;
}

/* Node i asks for what check_end will look at. */
static void want_all(struct world *w, int i)
{
    int many = w->n < WANTED_MAX ? w->n : WANTED_MAX;
    for (int k = 0; k < many; k++) {
        int dst = wanted(w, i, k);
        if (dst != i && w->node[i].mesh != NULL) {
            world_want(w, i, dst);
        }
    }
}

void check_wants(struct world *w)
{
    for (int i = 0; i < w->n; i++) {
        want_all(w, i);
    }
}

void check_end(struct world *w)
{
    static int part[MESH_NODES_MAX];
    int many = w->n < WANTED_MAX ? w->n : WANTED_MAX;
    parts(w, part);
    for (int a = 0; a < w->n && !w->violated; a++) {
        if (!present(w, a)) {
            continue;
        }
        check_peers(w, a);
        struct route_counters c;
        route_counters(mesh_routes(w->node[a].mesh), &c);
        w->stats.refused += c.drop_role;
        w->stats.updates += c.updates_out;
        w->stats.requests += c.requests_out;
        int mine = joins(w, part, a);
        for (int k = 0; k < many && !w->violated; k++) {
            int b = wanted(w, a, k);
            if (b == a || !present(w, b)) {
                continue;
            }
            int theirs = joins(w, part, b);
            w->stats.pairs++;
            bool owed = mine >= 0 && mine == theirs && !is_restricted(w, a, b);
            w->stats.owed += owed;
            int end = end_of(w, a, b);
            if (end == b) {
                w->stats.reached++;
            } else if (owed) {
                violated(w, "node %d cannot reach %d %.1f s after the last change: %s at node %d",
                         a, b, (double)SETTLE_US / 1e6, why_not(w, end, b), end);
            }
        }
        for (int b = 0; b < w->n && !w->violated; b++) {
            if (w->node[b].revoked && next_of(w, a, b) != NO_NODE) {
                violated(w, "node %d still has a route to %d, which is revoked", a, b);
            }
        }
    }
}
