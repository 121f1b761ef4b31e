/* What goes wrong, every half second or so, until the calm at the end. */
#include "sim.h"

#define EVERY_US (500 * MS)

static int some_node(struct world *w)
{
    struct node *leader = members_leader(w);
    if (leader != NULL && chance(w, 400)) {
        return leader->i;
    }
    int i;
    do {
        i = (int)between(w, 0, (uint64_t)w->n - 1);
    } while (!w->nodes[i].in_play);
    return i;
}

static void clock_fault(struct world *w, struct node *n)
{
    switch (between(w, 0, 2)) {
        case 0:
            n->wall_offset_ms = (int64_t)between(w, 0, 576000) - 288000;
            break;
        case 1:
            n->wall_strobe_until_us = w->now_us + between(w, 1 * SEC, 5 * SEC);
            break;
        default: /* up to twice as fast, or standing still */
            n->wall_drift_since_us = w->now_us;
            n->wall_drift_ppm = (int32_t)between(w, 0, 2000000) - 1000000;
            break;
    }
}

static void heal_cuts(struct world *w)
{
    memset(w->net.cut, 0, sizeof w->net.cut);
}

static void cut(struct world *w)
{
    int victim = some_node(w);
    uint64_t way = between(w, 0, 3);
    uint64_t side = between(w, 1, (1u << w->n) - 2);
    heal_cuts(w);
    for (int i = 0; i < w->n; i++) {
        for (int k = 0; k < w->n; k++) {
            switch (way) {
                case 0: /* halves */
                    w->net.cut[i][k] = (side >> i & 1) != (side >> k & 1);
                    break;
                case 1: /* one alone */
                    w->net.cut[i][k] = i == victim || k == victim;
                    break;
                case 2: /* one deaf */
                    w->net.cut[i][k] = k == victim;
                    break;
                default: /* one mute */
                    w->net.cut[i][k] = i == victim;
                    break;
            }
        }
    }
    w->faults.cut_until_us = w->now_us + between(w, 300 * MS, 12 * SEC);
}

static void noise(struct world *w)
{
    w->net.loss = (uint32_t)between(w, 0, 300);
    w->net.dup = (uint32_t)between(w, 0, 200);
    w->net.reorder = (uint32_t)between(w, 0, 300);
    w->net.delay_us = chance(w, 300) ? between(w, 0, 200 * MS) : 0;
    w->faults.noisy_until_us = w->now_us + between(w, 500 * MS, 10 * SEC);
}

static void quiet(struct world *w)
{
    w->net.loss = w->net.dup = w->net.reorder = 0;
    w->net.delay_us = 0;
}

static void crash(struct world *w, int i)
{
    struct node *n = &w->nodes[i];
    if (!n->up) {
        return;
    }
    node_crash(n);
    if (chance(w, 60) && disk_corrupt(&n->disk)) {
        w->stats.corruptions++;
    }
    (void)world_schedule(w, between(w, 50 * MS, 6 * SEC), EV_START, i);
}

static void one_fault(struct world *w)
{
    int i = some_node(w);
    struct node *n = &w->nodes[i];
    w->stats.faults++;
    if (w->pg != NULL && chance(w, 150)) {
        pg_fault(w);
        return;
    }
    switch (between(w, 0, 9)) {
        case 0:
            crash(w, i);
            break;
        case 1:
        case 2:
        case 3:
            cut(w);
            break;
        case 4:
            noise(w);
            break;
        case 5:
            n->paused_until_us = w->now_us + between(w, 100 * MS, 5 * SEC);
            break;
        case 6:
            clock_fault(w, n);
            break;
        case 7:
            n->disk.slow = true;
            w->faults.slow_until_us[i] = w->now_us + between(w, 500 * MS, 6 * SEC);
            break;
        case 8:
            if (chance(w, 500)) {
                n->disk.fail_next = n->up;
            } else {
                crash(w, i);
            }
            break;
        default:
            if (chance(w, 400)) {
                for (int k = 0; k < w->n; k++) {
                    crash(w, k); /* power */
                }
            } else {
                for (int k = 0; k < w->n / 2; k++) {
                    crash(w, (i + k) % w->n);
                }
            }
            break;
    }
}

void faults_durable(struct node *n, uint32_t per_mille)
{
    struct world *w = n->w;
    if (w->now_us < w->calm_us && n->up && chance(w, per_mille)) {
        w->stats.faults++;
        world_schedule(w, between(w, 0, 3 * MS), EV_KILL, n->i)->generation = n->generation;
    }
}

static void calm_down(struct world *w)
{
    w->faults.calm = true;
    w->faults.calm_acks = w->stats.acks;
    heal_cuts(w);
    quiet(w);
    if (w->pg != NULL) {
        pg_calm(w);
    }
    for (int i = 0; i < w->n; i++) {
        struct node *n = &w->nodes[i];
        n->disk.slow = false;
        n->disk.fail_next = false;
        n->paused_until_us = 0;
        if (n->in_play && !n->up && !n->heals) {
            disk_repair(&n->disk);
            n->broken = false;
            node_start(n);
        }
    }
}

static void expire(struct world *w)
{
    if (w->faults.cut_until_us <= w->now_us) {
        heal_cuts(w);
    }
    if (w->faults.noisy_until_us <= w->now_us) {
        quiet(w);
    }
    for (int i = 0; i < w->n; i++) {
        if (w->faults.slow_until_us[i] <= w->now_us) {
            w->nodes[i].disk.slow = false;
        }
    }
}

void faults_event(struct world *w)
{
    struct faults *f = &w->faults;
    if (w->now_us >= w->calm_us) {
        if (!f->calm) {
            calm_down(w);
        } else if (!f->first_ack_checked && w->now_us >= w->calm_us + FIRST_ACK_US) {
            f->first_ack_checked = true;
            if (w->stats.acks == f->calm_acks) {
                violate(w, "L1: nothing acknowledged within 5 s after the last fault");
            }
        }
    } else {
        expire(w);
        if (w->now_us > 2 * SEC && chance(w, 160)) {
            one_fault(w);
        }
    }
    faults_schedule(w);
}

void faults_schedule(struct world *w)
{
    (void)world_schedule(w, EVERY_US, EV_FAULT, -1);
}
