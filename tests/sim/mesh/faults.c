#include "sim_mesh.h"

static void set_cut(struct world *w, int a, int b, bool cut)
{
    w->cut[a * w->n + b] = w->cut[b * w->n + a] = cut;
}

static int any_node(struct world *w)
{
    return (int)world_below(w, (uint64_t)w->n);
}

/* Relays are a third of a small mesh and a tenth of a large one; of what could be a link, some cannot
 * (firewalls): so hardly two nodes see the same. */
void faults_build(struct world *w)
{
    int x[MESH_NODES_MAX];
    int y[MESH_NODES_MAX];
    w->relays = w->n < 100 ? w->n / 3 : w->n / 10;
    for (int i = 0; i < w->n; i++) {
        w->node[i].relay = i < w->relays;
        x[i] = (int)world_below(w, 300);
        y[i] = (int)world_below(w, 300);
    }
    w->node[w->n - 1].liar = true;
    for (int a = 0; a < w->n; a++) {
        for (int b = a + 1; b < w->n; b++) {
            int away = (abs(x[a] - x[b]) + abs(y[a] - y[b])) / 2 + 5;
            w->latency_100us[a * w->n + b] = w->latency_100us[b * w->n + a] = (uint16_t)away;
            set_cut(w, a, b, world_below(w, 100) < 35);
        }
    }
}

static void partition(struct world *w)
{
    uint64_t side = prng_u64(&w->rng);
    for (int a = 0; a < w->n; a++) {
        for (int b = a + 1; b < w->n; b++) {
            if ((side >> (a % 64) & 1) != (side >> (b % 64) & 1)) {
                set_cut(w, a, b, true);
            }
        }
    }
}

static void heal(struct world *w)
{
    for (int a = 0; a < w->n; a++) {
        for (int b = a + 1; b < w->n; b++) {
            set_cut(w, a, b, world_below(w, 100) < 35);
        }
    }
}

static int count(const struct world *w, bool relay)
{
    int n = 0;
    for (int i = 0; i < w->n; i++) {
        n += relay ? w->node[i].relay && !w->node[i].revoked : w->node[i].revoked;
    }
    return n;
}

static void wake(struct world *w, int i)
{
    world_push(w, w->now_us, SIM_WAKE, i, 0);
}

static void crash_or_start(struct world *w, int i)
{
    if (w->node[i].mesh == NULL) {
        world_start(w, i);
    } else {
        world_crash(w, i);
        if (world_below(w, 3) == 0) { /* back before anybody has noticed */
            world_start(w, i);
        }
    }
}

static void change_directory(struct world *w, int i)
{
    struct sim_node *x = &w->node[i];
    if (world_below(w, 3) == 0 && count(w, false) < w->n / 8 && !x->liar) {
        x->revoked = true; /* for ever */
    } else if (!x->relay && !x->liar) {
        x->relay = true;
    } else if (count(w, true) > w->relays / 2) {
        x->relay = false;
    }
    world_push_directory(w);
}

void fault_next(struct world *w)
{
    if (w->calm) {
        return;
    }
    w->stats.faults++;
    int a = any_node(w);
    int b = any_node(w);
    int relay = (int)world_below(w, (uint64_t)w->relays);
    switch (world_below(w, 14)) {
        case 0:
        case 1:
            set_cut(w, relay, b, true);
            break;
        case 2:
            w->cut[relay * w->n + b] = true; /* one way only */
            break;
        case 3:
            w->cut[b * w->n + relay] = true;
            break;
        case 4:
        case 5:
            set_cut(w, relay, b, false);
            break;
        case 6:
            w->loss_percent[relay * w->n + b] = (uint8_t)world_below(w, 60);
            break;
        case 7:
            w->latency_100us[relay * w->n + b] = (uint16_t)(5 + world_below(w, 1500));
            break;
        case 8:
        case 9:
            crash_or_start(w, world_below(w, 2) == 0 ? relay : a);
            break;
        case 10:
            if (w->node[relay].mesh != NULL && !w->node[relay].frozen) {
                w->node[relay].frozen = true;
                world_push(w, w->now_us + 300 * MS + world_below(w, 4 * SEC), SIM_WAKE, relay, 0);
            }
            break;
        case 11:
            if (world_below(w, 2) == 0) {
                partition(w);
            } else {
                heal(w);
            }
            break;
        case 12:
            change_directory(w, world_below(w, 2) == 0 ? relay : a);
            break;
        default:
            if (w->node[a].mesh != NULL && !w->node[a].frozen && a != b) {
                world_want(w, a, b);
            }
            break;
    }
    world_push(w, w->now_us + 50 * MS + world_below(w, 500 * MS), SIM_FAULT, 0, 0);
}

/* The faults stop; what is cut stays cut, what is dead stays dead, mostly. */
void faults_end(struct world *w)
{
    if (w->violated) {
        return;
    }
    w->calm = true;
    memset(w->loss_percent, 0, (size_t)w->n * (size_t)w->n);
    if (world_below(w, 3) == 0) {
        heal(w);
    }
    for (int i = 0; i < w->n; i++) {
        if (w->node[i].frozen) {
            wake(w, i);
        }
        if (w->node[i].mesh == NULL && world_below(w, 2) == 0) {
            world_start(w, i);
        }
    }
    for (int a = 0; a < w->n; a++) { /* a link works or does not */
        for (int b = a + 1; b < w->n; b++) {
            set_cut(w, a, b, !world_usable(w, a, b));
        }
    }
    world_push_directory(w);
    w->last_change_us = w->now_us + 1500 * MS; /* when the last node has it */
}
