/* Many seeds on several cores: shares of them in processes of their own. */
#ifndef RAP_TESTS_SIM_SHARES_H
#define RAP_TESTS_SIM_SHARES_H

#include "base/base.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIM_JOBS_MAX 64

/* run fills a zeroed total of a share (0 to jobs - 1); here or, with more than one job, in a child that
 * sends it back. add collects them into sum. False: a child died, and its share counts for nothing. */
static inline bool sim_shares(int jobs, void *sum, size_t size,
                              void (*run)(const void *options, int share, void *total),
                              const void *options, void (*add)(void *sum, const void *total))
{
    int pipes[SIM_JOBS_MAX][2];
    bool whole = true;
    void *total = xcalloc(1, size);
    CHECK(jobs >= 1 && jobs <= SIM_JOBS_MAX);
    (void)fflush(stdout);
    for (int j = 0; jobs > 1 && j < jobs; j++) {
        CHECK(pipe(pipes[j]) == 0);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            run(options, j, total);
            CHECK(write(pipes[j][1], total, size) == (ssize_t)size);
            _exit(0);
        }
        (void)close(pipes[j][1]);
    }
    for (int j = 0; j < jobs; j++) {
        bool good = true;
        memset(total, 0, size);
        if (jobs == 1) {
            run(options, 0, total);
        } else {
            good = read(pipes[j][0], total, size) == (ssize_t)size;
            (void)close(pipes[j][0]);
        }
        if (good) {
            add(sum, total);
        } else {
            (void)printf("FAIL a process of seeds died\n");
            whole = false;
        }
    }
    while (wait(NULL) > 0) {
    }
    free(total);
    return whole;
}

#endif
