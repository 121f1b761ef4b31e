/* The command line in this process, its streams caught. */
#ifndef RAP_TESTS_RUN_CLI_H
#define RAP_TESTS_RUN_CLI_H

#include "admin/cli_priv.h"

struct cli_outcome {
    int code;
    char *out, *err; /* text; run_cli_free */
};

/* words: separated by single spaces; a word of ' ' stands for itself when written as "\x1f". input
 * may be NULL. */
struct cli_outcome run_cli(const struct cli_ops *ops, const char *input, const char *words);
struct cli_outcome run_cli_argv(const struct cli_ops *ops, const char *input, int argc,
                                char **argv);
void run_cli_free(struct cli_outcome *o);

#endif
