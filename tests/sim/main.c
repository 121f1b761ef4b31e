/*   sim --seeds A-B --seconds 300 [--nodes N] [--jobs J]    many runs
 *   sim --seed S [--nodes N]                                one run, and its hash
 *   sim --twice S                                           one run twice: the same hash
 *   sim --bugs [K] [--bug NAME]                             each planted bug, or one, caught within K seeds
 * Prints its seeds first. Exit code 1 when anything failed. */
#include "sim.h"

#include "shares.h"

#include "base/log.h"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What --bugs demands: the name in PLANTED() and what it would do to us. */
static const struct {
    const char *name;
    const char *what;
    unsigned has; /* no other world can show it */
} bugs[] = {
    {"ack_before_commit", "answers before a majority has it", 0},
    {"lost_leadership_acked", "calls an unknown outcome a success", 0},
    {"batch_result_off_by_one", "gives a request its neighbour's answer", 0},
    {"read_without_barrier", "a deposed leader reads", 0},
    {"vote_not_saved", "votes twice after a crash", 0},
    {"ack_before_fsync", "calls written what is not", 0},
    {"ack_after_store_error", "goes on after a failed append", 0},
    {"checksum_not_checked", "starts from a damaged log", 0},
    {"token_overused", "admits more than max_uses", 0},
    {"decided_twice", "approves what was decided", 0},
    {"request_id_forgotten", "applies a retry again", 0},
    {"fsm_uses_clock", "asks the clock while applying", 0},
    {"audit_row_missing", "leaves a role change out of the audit", 0},
    {"snapshot_drops_a_table", "forgets roles in an image", 0},
    {"results_not_in_image", "forgets in an image what was answered", 0},
    {"stamp_goes_back", "takes each leader's clock as it is", 0},
    {"expired_token_used", "admits by a token that has expired", 0},
    {"revoked_token_used", "admits by a token that was revoked", 0},
    {"key_not_compared", "approves a certificate for another key than the one that was shown", 0},
    {"banned_key_joins", "lets a key in again that was revoked", 0},
    {"roles_outlive_the_member", "leaves its roles to who was expelled", 0},
    {"vote_forgotten", "writes a term again and with it forgets the vote", 0},
    {"configuration_of_the_past", "snapshots with members that are no more", 0},
    {"level_not_asked", "raises the schema before every member knows it", 0},
    {"lone_voter_keeps_term", "leads again, alone, in the term it stopped in", WORLD_RECOVERS},
    {"vote_kept_from_the_first", "refuses its vote to the one that just made it a voter",
     WORLD_RECOVERS},
    {"epoch_not_compared", "listens to members of another epoch", WORLD_RECOVERS},
    {"fenced_goes_on", "decides in an epoch it knows to be over", WORLD_RECOVERS},
    {"statement_of_anybody", "believes a recovery that the owner did not sign", WORLD_RECOVERS},
    {"statement_of_another_cluster", "believes a recovery of another cluster", WORLD_RECOVERS},
    {"divergence_row_missing", "keeps from the owner what the other side decided", WORLD_RECOVERS},
    {"demotion_sent_to_the_demoted", "silences a voter by a change that may not come about", 0},
    {"quorum_not_asked", "takes a vote although the others are no majority without the damaged", 0},
    {"healed_before_it_left", "begins an empty log while its vote still counts", 0},
    {"mirror_claim_ignored", "PostgreSQL lets an outranked leader write", WORLD_MIRRORS},
    {"mirror_previous_ignored", "PostgreSQL takes entries that do not follow", WORLD_MIRRORS},
    {"mirror_position_remembered", "goes on from where it was, not where PostgreSQL is",
     WORLD_MIRRORS},
    {"mirror_before_own_term", "judges PostgreSQL before it has all that is committed",
     WORLD_MIRRORS},
    {"mirror_history_not_compared", "takes the rows of another history for its own",
     WORLD_RECOVERS | WORLD_MIRRORS},
    {"mirror_hole_ignored", "writes on although entries in between are gone", WORLD_MIRRORS},
};

struct options {
    uint64_t first, last, seconds, max_bug_seeds;
    int nodes, jobs;
    unsigned has;
    bool one, twice, bugs;
    const char *bug; /* NULL: all */
};

struct total {
    uint64_t seeds, failed, virtual_s, commits, elections, crashes, acks, reads, unknown;
    uint64_t messages, taken, installed, disk_errors, corruptions, refusals, changes;
    uint64_t recoveries, reported, forged, pg_commits, pg_resyncs, pg_refused, pg_restores;
    uint64_t healed;
};

static double seconds_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Of this process and those it waited for: what a busy machine does not change. */
static double cpu_seconds(void)
{
    double sum = 0;
    static const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    for (size_t i = 0; i < ARRAY_SIZE(whose); i++) {
        struct rusage u;
        (void)getrusage(whose[i], &u);
        sum += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    }
    return sum;
}

static bool run_one(const struct options *o, uint64_t seed, struct total *t, uint64_t *ret_hash,
                    char *what, size_t what_size)
{
    struct world *w = xmalloc(sizeof *w);
    world_run(w, seed,
              &(struct world_options){.nodes = o->nodes, .seconds = o->seconds, .has = o->has});
    bool ok = !w->violated;
    t->seeds++;
    t->failed += !ok;
    t->virtual_s += w->now_us / SEC;
    t->commits += w->stats.commits;
    t->elections += w->stats.elections;
    t->crashes += w->stats.crashes;
    t->acks += w->stats.acks;
    t->refusals += w->stats.refusals;
    t->reads += w->stats.reads;
    t->unknown += w->stats.unknown;
    t->messages += w->stats.messages;
    t->taken += w->stats.snapshots_taken;
    t->installed += w->stats.snapshots_installed;
    t->disk_errors += w->stats.disk_errors;
    t->corruptions += w->stats.corruptions;
    t->changes += w->stats.changes;
    t->recoveries += w->stats.recoveries;
    t->reported += w->stats.reported;
    t->forged += w->stats.forged;
    t->pg_commits += w->stats.pg_commits;
    t->pg_resyncs += w->stats.pg_resyncs;
    t->pg_refused += w->stats.pg_refused;
    t->pg_restores += w->stats.pg_restores;
    t->healed += w->stats.healed;
    *ret_hash = w->hash;
    (void)snprintf(what, what_size, "%s", w->what);
    world_fini(w);
    free(w);
    return ok;
}

static void add(struct total *to, const struct total *from)
{
    const uint64_t *f = (const uint64_t *)from;
    uint64_t *t = (uint64_t *)to;
    for (size_t i = 0; i < sizeof *to / sizeof *t; i++) {
        t[i] += f[i];
    }
}

static void run_share(const struct options *o, int share, struct total *t)
{
    for (uint64_t s = o->first + (uint64_t)share; s <= o->last; s += (uint64_t)o->jobs) {
        uint64_t hash;
        char what[400];
        if (!run_one(o, s, t, &hash, what, sizeof what)) {
            (void)printf("FAIL seed=%llu %s\n  replay: sim --seed %llu --seconds %llu%s%d\n",
                         (unsigned long long)s, what, (unsigned long long)s,
                         (unsigned long long)o->seconds, o->nodes != 0 ? " --nodes " : " # nodes ",
                         o->nodes);
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
    (void)printf("sim: seeds %llu-%llu, %llu s each, voters at first %d (0: 3 or 5), jobs %d\n",
                 (unsigned long long)o->first, (unsigned long long)o->last,
                 (unsigned long long)o->seconds, o->nodes, o->jobs);
    double start = seconds_now();
    struct total t = run_all(o);
    double real = seconds_now() - start;
    double cpu = cpu_seconds();
    (void)printf(
        "sim: acks=%llu refusals=%llu reads=%llu unknown=%llu messages=%llu taken=%llu "
        "installed=%llu changes=%llu disk_errors=%llu corruptions=%llu cpu_s=%.1f per_core=%.0fx\n",
        (unsigned long long)t.acks, (unsigned long long)t.refusals, (unsigned long long)t.reads,
        (unsigned long long)t.unknown, (unsigned long long)t.messages, (unsigned long long)t.taken,
        (unsigned long long)t.installed, (unsigned long long)t.changes,
        (unsigned long long)t.disk_errors, (unsigned long long)t.corruptions, cpu,
        (double)t.virtual_s / cpu);
    (void)printf("sim: recoveries=%llu reports=%llu forged=%llu pg_commits=%llu pg_resyncs=%llu "
                 "pg_refused=%llu pg_restores=%llu healed=%llu\n",
                 (unsigned long long)t.recoveries, (unsigned long long)t.reported,
                 (unsigned long long)t.forged, (unsigned long long)t.pg_commits,
                 (unsigned long long)t.pg_resyncs, (unsigned long long)t.pg_refused,
                 (unsigned long long)t.pg_restores, (unsigned long long)t.healed);
    (void)printf("sim: seeds=%llu virtual_s=%llu real_s=%.1f speed=%.0fx commits=%llu "
                 "elections=%llu crashes=%llu\n",
                 (unsigned long long)t.seeds, (unsigned long long)t.virtual_s, real,
                 (double)t.virtual_s / real, (unsigned long long)t.commits,
                 (unsigned long long)t.elections, (unsigned long long)t.crashes);
    (void)printf("%llu passed, %llu failed\n", (unsigned long long)(t.seeds - t.failed),
                 (unsigned long long)t.failed);
    return t.failed == 0 ? 0 : 1;
}

static int one(const struct options *o)
{
    struct total t = {0};
    uint64_t hash[2] = {0};
    char what[400];
    (void)printf("sim: seed %llu\n", (unsigned long long)o->first);
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

/* In a process of its own: a bug that lets anything reach libraft may end it, which is noticing too. */
static bool noticed(const struct options *o, uint64_t seed, char *what, size_t size)
{
    int fds[2];
    int status = 0;
    (void)fflush(stdout);
    CHECK(pipe(fds) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct total t = {0};
        uint64_t hash;
        bool ok = run_one(o, seed, &t, &hash, what, size);
        CHECK(write(fds[1], what, strlen(what)) == (ssize_t)strlen(what));
        _exit(ok ? 0 : 1);
    }
    (void)close(fds[1]);
    ssize_t n = read(fds[0], what, size - 1);
    what[n < 0 ? 0 : n] = '\0';
    (void)close(fds[0]);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status)) {
        (void)snprintf(what, size, "the process died");
    }
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static int planted(const struct options *o)
{
    unsigned caught = 0;
    (void)printf("sim: %zu planted bugs, seeds %llu-%llu each\n", ARRAY_SIZE(bugs),
                 (unsigned long long)o->first,
                 (unsigned long long)(o->first + o->max_bug_seeds - 1));
    unsigned tried = 0;
    for (size_t i = 0; i < ARRAY_SIZE(bugs); i++) {
        if (o->bug != NULL && strcmp(o->bug, bugs[i].name) != 0) {
            continue;
        }
        tried++;
        char what[400] = "";
        bool found = false;
        uint64_t n = 0;
        double start = seconds_now();
        struct options with = *o;
        with.has = bugs[i].has;
        if ((with.has & WORLD_RECOVERS) != 0) {
            /* The owner recovers once or twice in a world: as much time, in more of them. */
            with.max_bug_seeds *= o->seconds / 60;
            with.seconds = 60;
        }
        planted_bug = bugs[i].name;
        while (!found && n < with.max_bug_seeds) {
            found = noticed(&with, o->first + n, what, sizeof what);
            n++;
        }
        planted_bug = NULL;
        caught += found;
        (void)printf("%-8s %-24s seeds=%llu real_s=%.1f  %s -> %s\n", found ? "caught" : "MISSED",
                     bugs[i].name, (unsigned long long)n, seconds_now() - start, bugs[i].what,
                     found ? what : "nobody noticed");
        (void)fflush(stdout);
    }
    (void)printf("%u passed, %u failed\n", caught, tried - caught);
    return tried > 0 && caught == tried ? 0 : 1;
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
    struct options o = {.first = 1, .last = 1000, .seconds = 300, .max_bug_seeds = 200};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    o.jobs = cores < 1 ? 1 : cores > 64 ? 64 : (int)cores;
    log_set_level(LOG_ERROR);
    /* Images come and go all the time: not each one from the kernel. */
    (void)mallopt(M_MMAP_THRESHOLD, 64 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
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
        } else if (strcmp(argv[i], "--bug") == 0) {
            o.bug = v;
        } else if (strcmp(argv[i], "--bugs") == 0) {
            o.bugs = true;
            if (v[0] >= '0' && v[0] <= '9') {
                o.max_bug_seeds = number(v, NULL);
            } else {
                continue;
            }
        } else {
            (void)fprintf(stderr, "sim: what is %s?\n", argv[i]);
            return 2;
        }
        i++;
    }
    if (o.seconds < 60 || o.nodes > SIM_NODES_MAX || o.jobs < 1 || o.jobs > 64) {
        (void)fprintf(stderr, "sim: at least 60 seconds, at most %d nodes and 64 jobs\n",
                      SIM_NODES_MAX);
        return 2;
    }
    if (o.bugs) {
        return planted(&o);
    }
    return o.one ? one(&o) : seeds(&o);
}
