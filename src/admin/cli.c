/* argv -> command table -> exit code. Not getopt_long: it keeps global state, takes abbreviations
 * that a later option would make ambiguous, and cannot name the nearest option. */
#include "admin/cli_priv.h"

#include "base/clock.h"

#include <unistd.h>

#define DEFAULT_DATA_DIR "/var/lib/rap"
#define DEFAULT_TIMEOUT_MS 60000u

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

/* Levenshtein's distance of short words. */
static size_t edits(const char *a, const char *b)
{
    size_t row[33] = {0};
    size_t la = strlen(a), lb = strlen(b);
    if (la > 32 || lb > 32) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= lb; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t up = row[j];
            row[j] = min3(up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = up;
        }
    }
    return row[lb];
}

const char *cli_nearest(const char *word, const char *best, const char *candidate)
{
    size_t d = edits(word, candidate);
    size_t limit = strlen(word) <= 3 ? 1 : 2;
    return d <= limit && (best == NULL || d < edits(word, best)) ? candidate : best;
}

const struct cli_cmd *cli_find(const char *noun, const char *verb)
{
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        if (strcmp(cmd->noun, noun) == 0 &&
            (cmd->verb == NULL || (verb != NULL && strcmp(cmd->verb, verb) == 0))) {
            return cmd;
        }
    }
    return NULL;
}

static bool noun_exists(const char *noun)
{
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        if (strcmp(cmd->noun, noun) == 0) {
            return true;
        }
    }
    return false;
}

static int unknown_command(struct cli *c, const char *noun, const char *verb)
{
    const char *best = NULL;
    char next[160];
    if (!noun_exists(noun)) {
        for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
            best = cli_nearest(noun, best, cmd->noun);
        }
        (void)snprintf(next, sizeof next, best == NULL ? "rap help" : "did you mean `rap %s`?",
                       best);
        return cli_usage(c, next, "there is no command \"%.64s\"", noun);
    }
    char verbs[128] = "";
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        if (strcmp(cmd->noun, noun) == 0) {
            size_t n = strlen(verbs);
            best = verb == NULL ? NULL : cli_nearest(verb, best, cmd->verb);
            (void)snprintf(verbs + n, sizeof verbs - n, "%s%s", n == 0 ? "" : ", ", cmd->verb);
        }
    }
    if (best != NULL) {
        (void)snprintf(next, sizeof next, "did you mean `rap %s %s`?", noun, best);
    } else {
        (void)snprintf(next, sizeof next, "one of: %s", verbs);
    }
    return verb == NULL ? cli_usage(c, next, "rap %s: which one?", noun)
                        : cli_usage(c, next, "there is no command \"%.64s %.64s\"", noun, verb);
}

/* i-th option that a command takes, its own first; NULL past the end. */
static const struct cli_opt *opt_at(const struct cli_cmd *cmd, size_t i)
{
    size_t own = 0;
    while (cmd != NULL && own < CLI_OPTS_MAX && cmd->opts[own].name != NULL) {
        if (own == i) {
            return &cmd->opts[own];
        }
        own++;
    }
    i -= own;
    size_t extra = 0;
    while (cmd != NULL && cli_flag_opt(cmd->flags, extra) != NULL) {
        if (extra == i) {
            return cli_flag_opt(cmd->flags, extra);
        }
        extra++;
    }
    i -= extra;
    size_t common = 0;
    while (cli_common[common].name != NULL) {
        common++;
    }
    return i < common ? &cli_common[i] : NULL;
}

static const struct cli_opt *find_opt(const struct cli_cmd *cmd, const char *name, size_t len)
{
    const struct cli_opt *o;
    for (size_t i = 0; (o = opt_at(cmd, i)) != NULL; i++) {
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0) {
            return o;
        }
    }
    return NULL;
}

static int unknown_option(struct cli *c, const char *arg)
{
    const char *best = NULL;
    char name[33];
    char next[96];
    const struct cli_opt *o;
    (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
    for (size_t i = 0; (o = opt_at(c->cmd, i)) != NULL; i++) {
        best = cli_nearest(name, best, o->name);
    }
    if (best == NULL) {
        return cli_usage(c, NULL, "unknown option %.64s", arg);
    }
    (void)snprintf(next, sizeof next, "did you mean --%s?", best);
    return cli_usage(c, next, "unknown option %.64s", arg);
}

/* Takes the option at argv[*i] and, where it has one, its value. */
static int take_option(struct cli *c, int argc, char **argv, int *i)
{
    const char *arg = argv[*i];
    const char *value = NULL;
    const struct cli_opt *o;
    if (strcmp(arg, "-h") == 0) {
        arg = "--help";
    } else if (strcmp(arg, "-o") == 0) {
        arg = "--output";
    } else if (strncmp(arg, "--", 2) != 0) {
        return cli_usage(c, NULL, "unknown option %.64s", arg);
    }
    size_t len = strcspn(arg + 2, "=");
    o = find_opt(c->cmd, arg + 2, len);
    if (o == NULL) {
        return unknown_option(c, arg);
    }
    if (arg[2 + len] == '=') {
        value = arg + 2 + len + 1;
    }
    if (o->value == NULL && value != NULL) {
        return cli_usage(c, NULL, "--%s takes no value", o->name);
    }
    if (o->value != NULL && value == NULL) {
        if (*i + 1 >= argc) {
            return cli_usage(c, NULL, "--%s needs a value: %s", o->name, o->value);
        }
        value = argv[++*i];
    }
    if (c->given_count == CLI_GIVEN_MAX) {
        return cli_usage(c, NULL, "more than %d options", CLI_GIVEN_MAX);
    }
    if (o->value != NULL && !o->many && cli_get(c, o->name) != NULL) {
        return cli_usage(c, NULL, "--%s twice", o->name);
    }
    c->given[c->given_count].opt = o;
    c->given[c->given_count].value = value == NULL ? "" : value;
    c->given_count++;
    return CLI_OK;
}

const char *cli_get_nth(const struct cli *c, const char *name, size_t nth)
{
    for (size_t i = 0; i < c->given_count; i++) {
        if (strcmp(c->given[i].opt->name, name) == 0 && nth-- == 0) {
            return c->given[i].value;
        }
    }
    return NULL;
}

const char *cli_get(const struct cli *c, const char *name)
{
    return cli_get_nth(c, name, 0);
}

int cli_get_duration(struct cli *c, const char *name, int64_t *ret_ms)
{
    const char *text = cli_get(c, name);
    if (text != NULL && clock_parse_duration(text, ret_ms) != 0) {
        return cli_usage(c, NULL, "--%s %.32s: not a duration such as 250ms, 30s, 15m, 1h, 7d",
                         name, text);
    }
    return CLI_OK;
}

int cli_get_count(struct cli *c, const char *name, int64_t *ret)
{
    const char *text = cli_get(c, name);
    if (text == NULL) {
        return CLI_OK;
    }
    size_t len = strlen(text);
    if (len == 0 || len > 12 || strspn(text, "0123456789") != len || strtoll(text, NULL, 10) == 0) {
        return cli_usage(c, NULL, "--%s %.32s: not a whole number from 1", name, text);
    }
    *ret = strtoll(text, NULL, 10);
    return CLI_OK;
}

/* Operands as the command's own text counts them: "N ROLE", "[N]". */
static void count_operands(const struct cli_cmd *cmd, size_t *ret_min, size_t *ret_max)
{
    *ret_min = *ret_max = 0;
    const char *p = cmd->operands;
    while (*p != '\0') {
        p += strspn(p, " ");
        size_t len = strcspn(p, " ");
        *ret_max += len > 0;
        *ret_min += len > 0 && *p != '[';
        p += len;
    }
}

static int take_common(struct cli *c)
{
    const char *output = cli_get(c, "output");
    const char *data_dir = cli_get(c, "data-dir");
    const char *timeout = cli_get(c, "timeout");
    int64_t ms = DEFAULT_TIMEOUT_MS;
    output = output != NULL ? output : getenv("RAP_OUTPUT");
    data_dir = data_dir != NULL ? data_dir : getenv("RAP_DATA_DIR");
    timeout = timeout != NULL ? timeout : getenv("RAP_TIMEOUT");
    if (output != NULL && strcmp(output, "json") != 0 && strcmp(output, "table") != 0) {
        return cli_usage(c, "-o table, -o json", "unknown output format \"%.32s\"", output);
    }
    c->json = output != NULL && strcmp(output, "json") == 0;
    c->data_dir = data_dir != NULL && data_dir[0] != '\0' ? data_dir : DEFAULT_DATA_DIR;
    if (timeout != NULL && (clock_parse_duration(timeout, &ms) != 0 || ms < 1 || ms > INT32_MAX)) {
        return cli_usage(c, "for example --timeout 30s", "\"%.32s\" is not a timeout", timeout);
    }
    c->timeout_given = timeout != NULL;
    c->timeout_ms = (uint32_t)ms;
    c->yes = cli_get(c, "yes") != NULL;
    c->no_input = cli_get(c, "no-input") != NULL;
    c->stale = cli_get(c, "stale") != NULL;
    c->dry_run = cli_get(c, "dry-run") != NULL;
    return CLI_OK;
}

static int check_given(struct cli *c, size_t operand_count)
{
    size_t min, max;
    count_operands(c->cmd, &min, &max);
    if (operand_count < min) {
        return cli_usage(c, NULL, "missing: %s", c->cmd->operands);
    }
    if (operand_count > max) {
        return cli_usage(c, NULL,
                         max == 0 ? "this takes no operands" : "too many operands: takes %s",
                         c->cmd->operands);
    }
    for (size_t i = 0; i < CLI_OPTS_MAX && c->cmd->opts[i].name != NULL; i++) {
        if (c->cmd->opts[i].required && cli_get(c, c->cmd->opts[i].name) == NULL) {
            return cli_usage(c, NULL, "missing: --%s %s", c->cmd->opts[i].name,
                             c->cmd->opts[i].value);
        }
    }
    return CLI_OK;
}

/* Common options may stand before the command. Leaves the index of what follows the command. */
static int find_command(struct cli *c, int argc, char **argv, int *ret_next)
{
    int i = 1;
    const char *words[2] = {NULL, NULL};
    for (; i < argc && argv[i][0] == '-' && argv[i][1] != '\0'; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            words[0] = "version";
            break;
        }
        int rc = take_option(c, argc, argv, &i);
        if (rc != CLI_OK) {
            return rc;
        }
    }
    if (i < argc && words[0] == NULL) {
        words[0] = argv[i];
        words[1] = i + 1 < argc && argv[i + 1][0] != '-' ? argv[i + 1] : NULL;
    }
    if (words[0] == NULL) {
        *ret_next = argc;
        return CLI_OK;
    }
    c->cmd = cli_find(words[0], words[1]);
    if (c->cmd == NULL) {
        if (noun_exists(words[0]) && words[1] == NULL && i + 1 < argc &&
            (strcmp(argv[i + 1], "--help") == 0 || strcmp(argv[i + 1], "-h") == 0)) {
            c->cmd = cli_find("help", NULL);
            c->operands[0] = words[0];
            *ret_next = argc;
            return CLI_OK;
        }
        (void)take_common(c); /* for the shape of the message */
        return unknown_command(c, words[0], words[1]);
    }
    *ret_next = i + (c->cmd->verb == NULL ? 1 : 2);
    return CLI_OK;
}

static int parse(struct cli *c, int argc, char **argv)
{
    int i = argc;
    int rc = find_command(c, argc, argv, &i);
    if (rc != CLI_OK) {
        return rc;
    }
    size_t operand_count = c->operands[0] != NULL;
    bool only_operands = false;
    if (c->cmd == NULL) {
        if (cli_get(c, "help") == NULL) {
            cli_help_all(c->err);
            return CLI_USAGE;
        }
        c->cmd = cli_find("help", NULL);
        return CLI_OK;
    }
    for (; i < argc; i++) {
        const char *arg = argv[i];
        if (!only_operands && strcmp(arg, "--") == 0) {
            only_operands = true;
        } else if (!only_operands && arg[0] == '-' && arg[1] != '\0') {
            rc = take_option(c, argc, argv, &i);
            if (rc != CLI_OK) {
                return rc;
            }
        } else if (operand_count == CLI_OPERANDS_MAX) {
            return cli_usage(c, NULL, "too many operands");
        } else {
            c->operands[operand_count++] = arg;
        }
    }
    rc = take_common(c);
    if (rc == CLI_OK && cli_get(c, "help") == NULL) {
        rc = check_given(c, operand_count);
    }
    return rc;
}

static bool wants_colour(FILE *out)
{
    const char *term = getenv("TERM");
    const char *no_colour = getenv("NO_COLOR");
    return isatty(fileno(out)) && (no_colour == NULL || no_colour[0] == '\0') &&
           (term == NULL || strcmp(term, "dumb") != 0);
}

int cli_main_on(int argc, char **argv, const struct cli_ops *ops, FILE *in, FILE *out, FILE *err)
{
    struct cli c = {.ops = ops, .in = in, .out = out, .err = err};
    c.colour = wants_colour(out);
    int rc = parse(&c, argc, argv);
    if (rc == CLI_OK) {
        if (cli_get(&c, "help") != NULL && c.cmd->run != cli_run_help) {
            cli_help_command(out, c.cmd);
        } else {
            rc = c.cmd->run(&c);
        }
    }
    if (fflush(out) != 0 || ferror(out)) {
        rc = rc != CLI_OK ? rc
                          : cli_fail(&c, -ERR_IO, "check where the output goes",
                                     "the output cannot be written");
    }
    fflush(err);
    return rc;
}

int cli_main(int argc, char **argv, const struct cli_ops *ops)
{
    return cli_main_on(argc, argv, ops, stdin, stdout, stderr);
}
