/* Help, completions and the man page, all from the command table. */
#include "admin/cli_priv.h"
#include "wire/cmd.h"

static const char exit_codes[] =
    "0 ok, 1 failed, 2 usage, 3 not found, 4 denied, 5 conflict, 6 no quorum or unreachable, "
    "7 wait timed out, 8 degraded";

static void print_opt(FILE *out, const struct cli_opt *o)
{
    char left[48];
    (void)snprintf(left, sizeof left, "--%s%s%s", o->name, o->value == NULL ? "" : " ",
                   o->value == NULL ? "" : o->value);
    fprintf(out, "  %-26s %s%s\n", left, o->help, o->required ? " (required)" : "");
}

static void print_name(FILE *out, const struct cli_cmd *cmd)
{
    fprintf(out, "rap %s%s%s%s%s", cmd->noun, cmd->verb == NULL ? "" : " ",
            cmd->verb == NULL ? "" : cmd->verb, cmd->operands[0] == '\0' ? "" : " ", cmd->operands);
}

static void print_roles(FILE *out, const char *lead, const char *between)
{
    for (size_t i = 0; role_names[i] != NULL; i++) {
        fprintf(out, "%s%s", i == 0 ? lead : between, role_names[i]);
    }
}

/* Text in lines of at most that many columns, broken at spaces. */
static void put_folded(FILE *out, const char *text, size_t columns)
{
    while (strlen(text) > columns) {
        size_t n = columns;
        while (n > 0 && text[n] != ' ') {
            n--;
        }
        n = n == 0 ? strcspn(text, " ") : n; /* a word longer than a line stays whole */
        fprintf(out, "%.*s\n", (int)n, text);
        text += n;
        text += strspn(text, " ");
    }
    fprintf(out, "%s\n", text);
}

void cli_help_command(FILE *out, const struct cli_cmd *cmd)
{
    print_name(out, cmd);
    for (size_t i = 0; i < CLI_OPTS_MAX && cmd->opts[i].name != NULL; i++) {
        if (cmd->opts[i].required) {
            fprintf(out, " --%s %s", cmd->opts[i].name, cmd->opts[i].value);
        }
    }
    fprintf(out, "\n\n  %s\n", cmd->summary);
    if (cmd->details != NULL) {
        fputc('\n', out);
        put_folded(out, cmd->details, 96);
    }
    if ((cmd->flags & CLI_ROLES) != 0) {
        print_roles(out, "\nRoles:\n  ", "\n  ");
        fputc('\n', out);
    }
    fputs("\nOptions:\n", out);
    for (size_t i = 0; i < CLI_OPTS_MAX && cmd->opts[i].name != NULL; i++) {
        print_opt(out, &cmd->opts[i]);
    }
    for (size_t i = 0; cli_flag_opt(cmd->flags, i) != NULL; i++) {
        print_opt(out, cli_flag_opt(cmd->flags, i));
    }
    for (const struct cli_opt *o = cli_common; o->name != NULL; o++) {
        print_opt(out, o);
    }
}

static bool same_noun(const struct cli_cmd *a, const struct cli_cmd *b)
{
    return a->noun != NULL && b->noun != NULL && strcmp(a->noun, b->noun) == 0;
}

/* The verbs of a noun stand together; commands alone in their noun stand with their like. */
static bool begins_paragraph(const struct cli_cmd *cmd)
{
    if (cmd == cli_commands) {
        return false;
    }
    bool many = same_noun(cmd, cmd + 1);
    bool many_before = cmd - cli_commands > 1 && same_noun(cmd - 1, cmd - 2);
    return !same_noun(cmd, cmd - 1) && (many || many_before);
}

void cli_help_all(FILE *out)
{
    fputs(
        "rap: a secure access fabric\n\n"
        "Start: rap init --cluster NAME --listen IP:PORT, then rap agent run, then rap token "
        "create.\n"
        "When something is wrong: rap doctor. One command: rap help COMMAND [VERB].\n\nCommands:\n",
        out);
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        char name[48];
        if (begins_paragraph(cmd)) {
            fputc('\n', out);
        }
        (void)snprintf(name, sizeof name, "%s%s%s %s", cmd->noun, cmd->verb == NULL ? "" : " ",
                       cmd->verb == NULL ? "" : cmd->verb, cmd->operands);
        fprintf(out, "  %-26s %s\n", name, cmd->summary);
    }
    fputs("\nEvery command takes:\n", out);
    for (const struct cli_opt *o = cli_common; o->name != NULL; o++) {
        print_opt(out, o);
    }
    fprintf(out, "\nExit codes: %s.\n", exit_codes);
}

static int help_noun(FILE *out, const char *noun)
{
    int found = 0;
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        if (strcmp(cmd->noun, noun) == 0) {
            char name[48];
            (void)snprintf(name, sizeof name, "%s %s", cmd->verb == NULL ? "" : cmd->verb,
                           cmd->operands);
            fprintf(out, "  rap %s %-20s %s\n", noun, name, cmd->summary);
            found++;
        }
    }
    return found;
}

int cli_run_help(struct cli *c)
{
    const char *noun = c->operands[0], *verb = c->operands[1];
    if (noun == NULL) {
        cli_help_all(c->out);
        return CLI_OK;
    }
    const struct cli_cmd *cmd = cli_find(noun, verb);
    if (cmd != NULL) {
        cli_help_command(c->out, cmd);
        return CLI_OK;
    }
    if (verb != NULL || help_noun(c->out, noun) == 0) {
        return cli_usage(c, "rap help", "there is no command \"%.64s%s%.64s\"", noun,
                         verb == NULL ? "" : " ", verb == NULL ? "" : verb);
    }
    return CLI_OK;
}

/* --- every option of a command, for the generators --- */

static const struct cli_opt *any_opt(const struct cli_cmd *cmd, size_t i)
{
    for (size_t k = 0; k < CLI_OPTS_MAX && cmd->opts[k].name != NULL; k++) {
        if (i-- == 0) {
            return &cmd->opts[k];
        }
    }
    for (size_t k = 0; cli_flag_opt(cmd->flags, k) != NULL; k++) {
        if (i-- == 0) {
            return cli_flag_opt(cmd->flags, k);
        }
    }
    for (const struct cli_opt *o = cli_common; o->name != NULL; o++) {
        if (i-- == 0) {
            return o;
        }
    }
    return NULL;
}

static bool first_of_noun(const struct cli_cmd *cmd)
{
    return cmd == cli_commands || strcmp(cmd[-1].noun, cmd->noun) != 0;
}

static void bash_words(FILE *out)
{
    fputs("    case \"$cmd\" in\n", out);
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        fprintf(out, "    '%s%s%s') opts='", cmd->noun, cmd->verb == NULL ? "" : " ",
                cmd->verb == NULL ? "" : cmd->verb);
        const struct cli_opt *o;
        for (size_t i = 0; (o = any_opt(cmd, i)) != NULL; i++) {
            fprintf(out, "%s--%s", i == 0 ? "" : " ", o->name);
        }
        fputs("' ;;\n", out);
    }
    fputs("    esac\n", out);
}

static void bash_verbs(FILE *out)
{
    fputs("    case \"$noun\" in\n", out);
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        if (cmd->verb == NULL) {
            continue;
        }
        if (first_of_noun(cmd)) {
            fprintf(out, "    %s) verbs='", cmd->noun);
        }
        fprintf(out, "%s%s", first_of_noun(cmd) ? "" : " ", cmd->verb);
        if (cmd[1].noun == NULL || strcmp(cmd[1].noun, cmd->noun) != 0) {
            fputs("' ;;\n", out);
        }
    }
    fputs("    esac\n", out);
}

static void bash_nouns(FILE *out)
{
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        if (first_of_noun(cmd)) {
            fprintf(out, "%s%s", cmd == cli_commands ? "" : " ", cmd->noun);
        }
    }
}

static void generate_bash(FILE *out)
{
    fputs("# bash completion for rap\n_rap() {\n"
          "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
          "    local noun=\"${COMP_WORDS[1]}\" verbs='' opts='' cmd\n"
          "    case \"$prev\" in\n"
          "    --*-file|--*-dir) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
          "    -o|--output) COMPREPLY=($(compgen -W 'table json' -- \"$cur\")); return ;;\n"
          "    completion) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$cur\")); return ;;\n"
          "    esac\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        COMPREPLY=($(compgen -W '",
          out);
    bash_nouns(out);
    fputs("' -- \"$cur\")); return\n    fi\n", out);
    bash_verbs(out);
    fputs("    if [ -n \"$verbs\" ] && [ \"$COMP_CWORD\" -eq 2 ]; then\n"
          "        COMPREPLY=($(compgen -W \"$verbs\" -- \"$cur\")); return\n    fi\n"
          "    cmd=\"$noun\"; [ -n \"$verbs\" ] && cmd=\"$noun ${COMP_WORDS[2]}\"\n",
          out);
    bash_words(out);
    fputs("    [ \"$noun\" = role ] && opts=\"$opts", out);
    print_roles(out, " ", " ");
    fputs("\"\n    [ \"$prev\" = --role ] && opts='", out);
    print_roles(out, "", " ");
    fputs("'\n", out);
    fputs("    COMPREPLY=($(compgen -W \"$opts\" -- \"$cur\"))\n}\ncomplete -F _rap rap\n", out);
}

static void generate_zsh(FILE *out)
{
    fputs("#compdef rap\n_rap() {\n    local -a nouns verbs\n    local cmd\n    nouns=(", out);
    bash_nouns(out);
    fputs(")\n    if (( CURRENT == 2 )); then compadd -a nouns; return; fi\n"
          "    cmd=\"$words[2]\"\n    case \"$words[2]\" in\n",
          out);
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        if (cmd->verb == NULL) {
            continue;
        }
        if (first_of_noun(cmd)) {
            fprintf(out, "    %s) verbs=(", cmd->noun);
        }
        fprintf(out, "%s%s", first_of_noun(cmd) ? "" : " ", cmd->verb);
        if (cmd[1].noun == NULL || strcmp(cmd[1].noun, cmd->noun) != 0) {
            fputs(") ;;\n", out);
        }
    }
    fputs("    esac\n    if (( $#verbs )); then\n"
          "        if (( CURRENT == 3 )); then compadd -a verbs; return; fi\n"
          "        cmd=\"$words[2] $words[3]\"\n    fi\n    case \"$cmd\" in\n",
          out);
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        fprintf(out, "    '%s%s%s') compadd --", cmd->noun, cmd->verb == NULL ? "" : " ",
                cmd->verb == NULL ? "" : cmd->verb);
        const struct cli_opt *o;
        for (size_t i = 0; (o = any_opt(cmd, i)) != NULL; i++) {
            fprintf(out, " --%s", o->name);
        }
        fputs(" ;;\n", out);
    }
    fputs("    esac\n    _files\n}\n"
          "if [ \"$funcstack[1]\" = _rap ]; then _rap \"$@\"; else compdef _rap rap; fi\n",
          out);
}

/* 'text' with quotes made safe for fish. */
static void fish_text(FILE *out, const char *s)
{
    fputc('\'', out);
    for (; *s != '\0'; s++) {
        fputs(*s == '\'' || *s == '\\' ? "\\" : "", out);
        fputc(*s, out);
    }
    fputc('\'', out);
}

static void generate_fish(FILE *out)
{
    fputs("complete -c rap -f\n", out);
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        if (first_of_noun(cmd)) {
            fprintf(out, "complete -c rap -n __fish_use_subcommand -a %s", cmd->noun);
            if (cmd->verb == NULL) {
                fputs(" -d ", out);
                fish_text(out, cmd->summary);
            }
            fputc('\n', out);
        }
        if (cmd->verb != NULL) {
            fprintf(out,
                    "complete -c rap -n '__fish_seen_subcommand_from %s; and test "
                    "(count (commandline -opc)) -eq 2' -a %s -d ",
                    cmd->noun, cmd->verb);
            fish_text(out, cmd->summary);
            fputc('\n', out);
        }
        const struct cli_opt *o;
        for (size_t i = 0; (o = any_opt(cmd, i)) != NULL; i++) {
            fprintf(out, "complete -c rap -n '__fish_seen_subcommand_from %s", cmd->noun);
            if (cmd->verb != NULL) {
                fprintf(out, "; and __fish_seen_subcommand_from %s", cmd->verb);
            }
            fprintf(out, "' -l %s%s -d ", o->name, o->value == NULL ? "" : " -r -F");
            fish_text(out, o->help);
            fputc('\n', out);
        }
    }
}

/* roff text: a leading dot or quote would be a request, a bare '-' a hyphen. */
static void roff(FILE *out, const char *s)
{
    fputs(*s == '.' || *s == '\'' ? "\\&" : "", out);
    for (; *s != '\0'; s++) {
        if (*s == '-' || *s == '\\') {
            fputs(*s == '-' ? "\\-" : "\\e", out);
        } else {
            fputc(*s, out);
        }
    }
}

static void roff_opt(FILE *out, const struct cli_opt *o)
{
    fputs(".TP\n\\fB\\-\\-", out);
    roff(out, o->name);
    fputs("\\fR", out);
    if (o->value != NULL) {
        fputs(" \\fI", out);
        roff(out, o->value);
        fputs("\\fR", out);
    }
    fputc('\n', out);
    roff(out, o->help);
    fputs(o->required ? " (required)\n" : "\n", out);
}

static void generate_man(FILE *out)
{
    fprintf(out, ".TH RAP 1 \"\" \"rap %s\" \"User Commands\"\n", RAP_VERSION);
    fputs(".SH NAME\nrap \\- a secure access fabric: cluster, nodes and overlay\n"
          ".SH SYNOPSIS\n\\fBrap\\fR \\fINOUN\\fR [\\fIVERB\\fR] [\\fIOPERANDS\\fR] "
          "[\\fIOPTIONS\\fR]\n"
          ".SH COMMANDS\n",
          out);
    for (const struct cli_cmd *cmd = cli_commands; cmd->noun != NULL; cmd++) {
        fprintf(out, ".SS rap %s%s%s ", cmd->noun, cmd->verb == NULL ? "" : " ",
                cmd->verb == NULL ? "" : cmd->verb);
        roff(out, cmd->operands);
        fputc('\n', out);
        roff(out, cmd->summary);
        fputs(".\n", out);
        if (cmd->details != NULL) {
            fputs(".PP\n", out);
            roff(out, cmd->details);
            fputc('\n', out);
        }
        if ((cmd->flags & CLI_ROLES) != 0) {
            print_roles(out, ".PP\nRoles: ", ", ");
            fputs(".\n", out);
        }
        for (size_t i = 0; i < CLI_OPTS_MAX && cmd->opts[i].name != NULL; i++) {
            roff_opt(out, &cmd->opts[i]);
        }
        for (size_t i = 0; cli_flag_opt(cmd->flags, i) != NULL; i++) {
            roff_opt(out, cli_flag_opt(cmd->flags, i));
        }
    }
    fputs(".SH OPTIONS OF EVERY COMMAND\n", out);
    for (const struct cli_opt *o = cli_common; o->name != NULL; o++) {
        roff_opt(out, o);
    }
    fputs(".SH EXIT STATUS\n", out);
    roff(out, exit_codes);
    fputs(
        ".\n.SH ENVIRONMENT\nRAP_DATA_DIR, RAP_OUTPUT, RAP_TIMEOUT: as the options, which win.\n"
        "RAP_OWNER_PASSPHRASE: passphrase of the root key.\nNO_COLOR: no colours.\n"
        ".SH FILES\n.TP\n\\fI/var/lib/rap\\fR\ndata directory\n.TP\n\\fI/var/lib/rap/rap.sock\\fR\n"
        "the local API\n",
        out);
}

bool cli_generate(const char *name, FILE *out)
{
    static const struct {
        const char *name;
        void (*run)(FILE *out);
    } list[] = {{"bash", generate_bash},
                {"zsh", generate_zsh},
                {"fish", generate_fish},
                {"man", generate_man}};
    for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
        if (strcmp(name, list[i].name) == 0) {
            list[i].run(out);
            return true;
        }
    }
    return false;
}

int cli_run_completion(struct cli *c)
{
    if (!cli_generate(c->operands[0], c->out)) {
        return cli_usage(c, "rap completion bash, zsh or fish", "no completions for \"%.32s\"",
                         c->operands[0]);
    }
    return CLI_OK;
}
