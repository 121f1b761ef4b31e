/*   sim_mesh --seeds A-B [--nodes N] [--seconds S] [--jobs J]   many runs
 *   sim_mesh --seed S [--nodes N]                               one run, and its hash
 *   sim_mesh --twice S                                          one run twice: the same hash
 *   sim_mesh --bugs [K]                                         each planted bug, caught within K seeds
 * Prints its seeds first. Exit code 1 when anything failed. */
#include "sim_mesh.h"

#include "../shares.h"

#include <time.h>
#include <unistd.h>

/* What --bugs demands: the name in PLANTED(), what it would do to us, and the seed to begin with. */
static const struct {
    const char *name;
    uint64_t first;
    const char *what;
} bugs[] = {
    {"feasibility_ignored", 1, "takes any route"},
    {"seqno_not_compared", 2, "takes another number for a newer one"},
    {"distance_forgotten", 1, "forgets its feasibility distance with the route"},
    {"withdrawal_lost", 39, "tells nobody that a route is gone"},
    {"update_not_repeated", 4, "takes an update for heard"},
    {"request_not_answered", 1, "never raises its number"},
    {"start_hold_skipped", 33, "routes at once after a restart"},
    {"restart_unnoticed", 6, "keeps what a restarted neighbour has forgotten"},
    {"silence_ignored", 3, "takes a dead link for a live one"},
    {"leaf_believed", 1, "believes an ordinary node about others"},
    {"policy_ignored", 1, "routes to whom it may not"},
    {"refusal_ignored", 1, "takes a way that its owner refuses"},
};

struct options {
    uint64_t first, last, seconds, max_bug_seeds;
    int nodes, jobs;
    bool one, twice, bugs;
};

struct total {
    uint64_t seeds, failed;
    struct sim_stats stats;
};

static double seconds_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void add(struct total *to, const struct total *from)
{
    const uint64_t *f = (const uint64_t *)from;
    uint64_t *t = (uint64_t *)to;
    for (size_t i = 0; i < sizeof *to / sizeof *t; i++) {
        t[i] += f[i];
    }
}

static bool run_one(const struct options *o, uint64_t seed, struct total *t, uint64_t *ret_hash,
                    char *what, size_t what_size)
{
    struct world *w = xmalloc(sizeof *w);
    world_run(w, seed, o->nodes, o->seconds);
    bool ok = !w->violated;
    struct total one = {.seeds = 1, .failed = !ok, .stats = w->stats};
    add(t, &one);
    *ret_hash = w->hash;
    (void)snprintf(what, what_size, "%s", w->what);
    world_fini(w);
    free(w);
    return ok;
}

static void run_share(const struct options *o, int share, struct total *t)
{
    for (uint64_t s = o->first + (uint64_t)share; s <= o->last; s += (uint64_t)o->jobs) {
        uint64_t hash;
        char what[300];
        if (!run_one(o, s, t, &hash, what, sizeof what)) {
            (void)printf(
                "FAIL seed=%llu %s\n  replay: sim_mesh --seed %llu --nodes %d --seconds %llu\n",
                (unsigned long long)s, what, (unsigned long long)s, o->nodes,
                (unsigned long long)o->seconds);
            (void)fflush(stdout);
        }
    }
}

static void run_options(const void *options, int share, void *total)
{
    run_share(options, share, total);
}

static void add_total(void *sum, const void *total)
{
    add(sum, total);
}

static struct total run_all(const struct options *o)
{
    struct total sum = {0};
    if (!sim_shares(o->jobs, &sum, sizeof sum, run_options, o, add_total)) {
        sum.failed++;
    }
    return sum;
}

static int seeds(const struct options *o)
{
    (void)printf("sim_mesh: seeds %llu-%llu, %d nodes, %llu s of faults each, jobs %d\n",
                 (unsigned long long)o->first, (unsigned long long)o->last, o->nodes,
                 (unsigned long long)o->seconds, o->jobs);
    double start = seconds_now();
    struct total t = run_all(o);
    const struct sim_stats *s = &t.stats;
    (void)printf("sim_mesh: events=%llu datagrams=%llu lost=%llu faults=%llu sessions=%llu "
                 "switches=%llu paths_followed=%llu updates=%llu requests=%llu refused=%llu "
                 "ruled=%llu obeyed=%llu pairs=%llu owed=%llu reached=%llu real_s=%.1f\n",
                 (unsigned long long)s->events, (unsigned long long)s->datagrams,
                 (unsigned long long)s->lost, (unsigned long long)s->faults,
                 (unsigned long long)s->sessions, (unsigned long long)s->switches,
                 (unsigned long long)s->loops_checked, (unsigned long long)s->updates,
                 (unsigned long long)s->requests, (unsigned long long)s->refused,
                 (unsigned long long)s->ruled, (unsigned long long)s->obeyed,
                 (unsigned long long)s->pairs, (unsigned long long)s->owed,
                 (unsigned long long)s->reached, seconds_now() - start);
    (void)printf("%llu passed, %llu failed\n", (unsigned long long)(t.seeds - t.failed),
                 (unsigned long long)t.failed);
    return t.failed == 0 ? 0 : 1;
}

static int one(const struct options *o)
{
    struct total t = {0};
    uint64_t hash[2] = {0};
    char what[300];
    (void)printf("sim_mesh: seed %llu\n", (unsigned long long)o->first);
    bool ok = run_one(o, o->first, &t, &hash[0], what, sizeof what);
    (void)printf("hash=%016llx %s\n", (unsigned long long)hash[0], ok ? "ok" : what);
    if (o->twice) {
        ok = run_one(o, o->first, &t, &hash[1], what, sizeof what) && hash[0] == hash[1] && ok;
        (void)printf("hash=%016llx %s\n", (unsigned long long)hash[1],
                     hash[0] == hash[1] ? "the same" : "NOT THE SAME");
    }
    (void)printf("%d passed, %d failed\n", ok, !ok);
    return ok ? 0 : 1;
}

static int planted(const struct options *o)
{
    unsigned caught = 0;
    (void)printf("sim_mesh: %zu planted bugs, %llu seeds each\n", ARRAY_SIZE(bugs),
                 (unsigned long long)o->max_bug_seeds);
    for (size_t i = 0; i < ARRAY_SIZE(bugs); i++) {
        struct total t = {0};
        uint64_t hash;
        char what[300] = "";
        bool found = false;
        uint64_t n = 0;
        planted_bug = bugs[i].name;
        while (!found && n < o->max_bug_seeds) {
            found = !run_one(o, bugs[i].first + n, &t, &hash, what, sizeof what);
            n++;
        }
        planted_bug = NULL;
        caught += found;
        (void)printf("%-8s %-22s seeds=%llu  %s -> %s\n", found ? "caught" : "MISSED", bugs[i].name,
                     (unsigned long long)n, bugs[i].what, found ? what : "nobody noticed");
        (void)fflush(stdout);
    }
    (void)printf("%u passed, %zu failed\n", caught, ARRAY_SIZE(bugs) - caught);
    return caught == ARRAY_SIZE(bugs) ? 0 : 1;
}

static uint64_t number(const char *text, const char **ret_end)
{
    char *end;
    uint64_t v = strtoull(text, &end, 10);
    if (ret_end != NULL) {
        *ret_end = end;
    }
    return v;
}

int main(int argc, char **argv)
{
    struct options o = {.first = 1, .last = 1000, .seconds = 12, .nodes = 30, .max_bug_seeds = 200};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    o.jobs = cores < 1 ? 1 : cores > 64 ? 64 : (int)cores;
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--seeds") == 0) {
            const char *end;
            o.first = number(v, &end);
            o.last = *end == '-' ? number(end + 1, NULL) : o.first;
        } else if (strcmp(argv[i], "--seconds") == 0) {
            o.seconds = number(v, NULL);
        } else if (strcmp(argv[i], "--nodes") == 0) {
            o.nodes = (int)number(v, NULL);
        } else if (strcmp(argv[i], "--jobs") == 0) {
            o.jobs = (int)number(v, NULL);
        } else if (strcmp(argv[i], "--seed") == 0 || strcmp(argv[i], "--twice") == 0) {
            o.one = true;
            o.twice = strcmp(argv[i], "--twice") == 0;
            o.first = number(v, NULL);
        } else if (strcmp(argv[i], "--bugs") == 0) {
            o.bugs = true;
            if (v[0] >= '0' && v[0] <= '9') {
                o.max_bug_seeds = number(v, NULL);
            } else {
                continue;
            }
        } else {
            (void)fprintf(stderr, "sim_mesh: what is %s?\n", argv[i]);
            return 2;
        }
        i++;
    }
    if (o.nodes < 6 || o.nodes > MESH_NODES_MAX || o.jobs < 1 || o.jobs > 64) {
        (void)fprintf(stderr, "sim_mesh: 6 to %d nodes, at most 64 jobs\n", MESH_NODES_MAX);
        return 2;
    }
    if (o.bugs) {
        return planted(&o);
    }
    return o.one ? one(&o) : seeds(&o);
}
