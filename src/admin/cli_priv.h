/* What the files of the command line share. One table (cli_table.c) yields parsing, help,
 * completions and the man page. */
#ifndef RAP_ADMIN_CLI_PRIV_H
#define RAP_ADMIN_CLI_PRIV_H

#include "admin/cli.h"
#include "base/buf.h"
#include "wire/mp.h"

/* DESIGN section 9. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NOT_FOUND = 3,
    CLI_DENIED = 4,
    CLI_CONFLICT = 5,
    CLI_UNREACHABLE = 6,
    CLI_TIMED_OUT = 7,
    CLI_DEGRADED = 8,
};

struct cli;

struct cli_opt {
    const char *name;
    const char *value; /* what to call the value in help; NULL: a flag */
    const char *help;
    bool required;
    bool many;
};

enum cli_flags {
    CLI_READS = 1,    /* --stale */
    CLI_MUTATES = 2,  /* --dry-run */
    CLI_LISTS = 4,    /* --limit, --cursor */
    CLI_OFFLINE = 8,  /* does not talk to the daemon */
    CLI_NO_WAIT = 16, /* --no-wait */
    CLI_ROLES = 32,   /* help lists the roles there are */
};

#define CLI_OPTS_MAX 12
#define CLI_OPERANDS_MAX 3
struct cli_cmd {
    const char *noun;
    const char *verb;     /* NULL: the noun is the whole command */
    const char *operands; /* "ID", "N ROLE", "[N]" */
    const char *summary;
    const char *details; /* for help and man; NULL ok */
    unsigned flags;
    int (*run)(struct cli *c);
    struct cli_opt opts[CLI_OPTS_MAX]; /* up to the first without a name */
};
extern const struct cli_cmd cli_commands[]; /* ends with a NULL noun */
extern const struct cli_opt cli_common[];   /* every command's; ends with a NULL name */
/* The options a command takes besides its own and cli_common, by flag; NULL when it does not. */
const struct cli_opt *cli_flag_opt(unsigned flags, size_t i);

#define CLI_GIVEN_MAX 64
struct cli {
    const struct cli_ops *ops;
    FILE *out, *err, *in;
    const struct cli_cmd *cmd;
    const char *data_dir;
    bool json, yes, no_input, stale, dry_run;
    bool colour;        /* stdout is a terminal that wants colour */
    bool timeout_given; /* by option or environment */
    uint32_t timeout_ms;
    const char *operands[CLI_OPERANDS_MAX]; /* NULL when not given */
    struct {
        const struct cli_opt *opt;
        const char *value; /* "" for flags */
    } given[CLI_GIVEN_MAX];
    size_t given_count;
};

/* cli_main on given streams. */
int cli_main_on(int argc, char **argv, const struct cli_ops *ops, FILE *in, FILE *out, FILE *err);

/* The last value given, "" for a flag, NULL when absent. */
const char *cli_get(const struct cli *c, const char *name);
/* nth value of an option that may be given many times; NULL past the end. */
const char *cli_get_nth(const struct cli *c, const char *name, size_t nth);
/* A duration option in ms: 0 and *ret unchanged when absent. CLI_USAGE with a message when bad. */
int cli_get_duration(struct cli *c, const char *name, int64_t *ret_ms);
int cli_get_count(struct cli *c, const char *name, int64_t *ret);

/* --- saying things (stderr) and ending --- */
int cli_exit_of(int rc);
/* Each prints and returns the exit code. next: what to do now; NULL: a text by code. */
int cli_usage(struct cli *c, const char *next, const char *fmt, ...) PRINTF_LIKE(3, 4);
int cli_fail(struct cli *c, int rc, const char *next, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* As cli_fail, for what went wrong on this host (cli_ops). */
int cli_fail_here(struct cli *c, int rc, const char *next, const char *what,
                  const struct errmsg *em);
/* An answer of the API that is not a success: doc is the problem (or empty). */
int cli_problem(struct cli *c, int rc, struct blob doc);
void cli_note(struct cli *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Asks on the terminal: 0 to go on. With --yes or --dry-run no question; CLI_USAGE when there is
 * nobody to ask; CLI_FAILED when the answer is no. */
int cli_confirm(struct cli *c, const char *question);
/* From --passphrase-file, RAP_OWNER_PASSPHRASE or, when ask, the terminal without echo. Empty when
 * there is none. Exit code; the caller wipes out. */
int cli_passphrase(struct cli *c, bool ask, struct buf *out);
/* First line or whole content of a file ("-": stdin), trimmed. */
int cli_read_secret(struct cli *c, const char *path, size_t max, struct buf *out);

/* --- the commands, a file a noun --- */
int cli_run_init(struct cli *c);
int cli_run_agent(struct cli *c);
int cli_run_join(struct cli *c);
int cli_run_status(struct cli *c);
int cli_run_doctor(struct cli *c);
int cli_run_sessions(struct cli *c);
int cli_run_route_list(struct cli *c);
int cli_run_route_explain(struct cli *c);
int cli_run_route_open(struct cli *c);
int cli_run_route_close(struct cli *c);
int cli_run_intent_list(struct cli *c);
int cli_run_intent_show(struct cli *c);
int cli_run_intent_create(struct cli *c);
int cli_run_intent_enable(struct cli *c);
int cli_run_intent_disable(struct cli *c);
int cli_run_intent_delete(struct cli *c);
int cli_run_qos_list(struct cli *c);
int cli_run_qos_set(struct cli *c);
int cli_run_qos_reset(struct cli *c);
int cli_run_pool_list(struct cli *c);
int cli_run_pool_show(struct cli *c);
int cli_run_pool_create(struct cli *c);
int cli_run_pool_delete(struct cli *c);
int cli_run_pool_add(struct cli *c);
int cli_run_pool_remove(struct cli *c);
int cli_run_resource_list(struct cli *c);
int cli_run_resource_show(struct cli *c);
int cli_run_resource_create(struct cli *c);
int cli_run_resource_set(struct cli *c);
int cli_run_resource_delete(struct cli *c);
int cli_run_mesh_show(struct cli *c);
int cli_run_mesh_map(struct cli *c);
int cli_run_mesh_set(struct cli *c);
int cli_run_mesh_links(struct cli *c);
int cli_run_mesh_routes(struct cli *c);
int cli_run_token_create(struct cli *c);
int cli_run_token_list(struct cli *c);
int cli_run_token_revoke(struct cli *c);
int cli_run_request_list(struct cli *c);
int cli_run_request_show(struct cli *c);
int cli_run_request_approve(struct cli *c);
int cli_run_request_reject(struct cli *c);
int cli_run_node_list(struct cli *c);
int cli_run_node_show(struct cli *c);
int cli_run_node_rename(struct cli *c);
int cli_run_node_revoke(struct cli *c);
int cli_run_node_remove(struct cli *c);
int cli_run_node_ping(struct cli *c);
int cli_run_authority_list(struct cli *c);
int cli_run_authority_add(struct cli *c);
int cli_run_authority_renew(struct cli *c);
int cli_run_authority_anchor(struct cli *c);
int cli_run_authority_remove(struct cli *c);
int cli_run_authority_demote(struct cli *c);
int cli_run_authority_promote(struct cli *c);
int cli_run_authority_transfer(struct cli *c);
int cli_run_authority_recover(struct cli *c);
int cli_run_authority_backup(struct cli *c);
int cli_run_authority_verify(struct cli *c);
int cli_run_authority_restore(struct cli *c);
int cli_run_authority_terms(struct cli *c);
int cli_run_partition_list(struct cli *c);
int cli_run_partition_show(struct cli *c);
int cli_run_partition_promote(struct cli *c);
int cli_run_partition_reports(struct cli *c);
int cli_run_partition_divergence(struct cli *c);
int cli_run_partition_merge(struct cli *c);
int cli_run_split_begin(struct cli *c);
int cli_run_split_list(struct cli *c);
int cli_run_split_show(struct cli *c);
int cli_run_split_report(struct cli *c);
int cli_run_split_finish(struct cli *c);
int cli_run_split_cancel(struct cli *c);
int cli_run_cluster_show(struct cli *c);
int cli_run_cluster_update(struct cli *c);
int cli_run_cluster_verify_auto(struct cli *c);
int cli_run_cluster_require(struct cli *c);
int cli_run_cluster_memberships(struct cli *c);
int cli_run_group_list(struct cli *c);
int cli_run_group_show(struct cli *c);
int cli_run_group_create(struct cli *c);
int cli_run_group_move(struct cli *c);
int cli_run_group_delete(struct cli *c);
int cli_run_node_disable(struct cli *c);
int cli_run_node_enable(struct cli *c);
int cli_run_node_group(struct cli *c);
int cli_run_node_verify(struct cli *c);
int cli_run_node_telemetry(struct cli *c);
int cli_run_node_mesh(struct cli *c);
int cli_run_node_heartbeats(struct cli *c);
int cli_run_trust_show(struct cli *c);
int cli_run_trust_policy(struct cli *c);
int cli_run_trust_rotate(struct cli *c);
int cli_run_role_assign(struct cli *c);
int cli_run_role_unassign(struct cli *c);
int cli_run_role_list(struct cli *c);
int cli_run_mirror_enable(struct cli *c);
int cli_run_mirror_disable(struct cli *c);
int cli_run_mirror_status(struct cli *c);
int cli_run_mirror_verify(struct cli *c);
int cli_run_mirror_rebuild(struct cli *c);
int cli_run_mirror_migrate(struct cli *c);
int cli_run_audit_list(struct cli *c);
int cli_run_audit_verify(struct cli *c);
int cli_run_audit_export(struct cli *c);
int cli_run_config_show(struct cli *c);
int cli_run_config_verify(struct cli *c);
int cli_run_version(struct cli *c);
int cli_run_completion(struct cli *c);
int cli_run_help(struct cli *c);

/* Writes one of them to out. name: bash, zsh, fish, man; false: no such thing. */
bool cli_generate(const char *name, FILE *out);
void cli_help_all(FILE *out);
void cli_help_command(FILE *out, const struct cli_cmd *cmd);
/* NULL when unknown. verb may be NULL. */
const struct cli_cmd *cli_find(const char *noun, const char *verb);
/* The candidate nearest to word by edits, if near enough; else NULL. */
const char *cli_nearest(const char *word, const char *best, const char *candidate);

#endif
