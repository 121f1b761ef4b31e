/* How the command line ends: messages on stderr, exit codes, questions. */
#include "admin/cli_priv.h"

#include "admin/json.h"
#include "base/file.h"
#include "wire/limits.h"

#include <ctype.h>
#include <termios.h>
#include <unistd.h>

int cli_exit_of(int rc)
{
    switch ((enum err)(-rc)) {
        case ERR_INVALID:
        case ERR_ROLE_UNKNOWN:
        case ERR_BAD_NAME:
            return CLI_USAGE;
        case ERR_NOT_FOUND:
        case ERR_TOKEN_UNKNOWN:
            return CLI_NOT_FOUND;
        case ERR_DENIED:
        case ERR_NOT_AUTHORITY:
        case ERR_SCOPE:
        case ERR_TOKEN_SCOPE:
        case ERR_TOKEN_EXPIRED:
        case ERR_TOKEN_REVOKED:
        case ERR_TOKEN_USED:
        case ERR_REJECTED:
        case ERR_REVOKED:
        case ERR_KEY_REVOKED:
        case ERR_CERT_EXPIRED:
        case ERR_BAD_SIGNATURE:
        case ERR_NOT_WITNESSED:
        case ERR_BAD_PROOF:
        case ERR_BAD_SET:
        case ERR_HISTORY:
        case ERR_NO_CERT:
        case ERR_SUSPENDED:
            return CLI_DENIED;
        case ERR_CONFLICT:
        case ERR_EXISTS:
        case ERR_AMBIGUOUS:
        case ERR_FENCED:
        case ERR_WRONG_CLUSTER:
        case ERR_WRONG_NODE:
        case ERR_ROLLBACK:
        case ERR_EXPIRED:
        case ERR_KEY_KNOWN:
        case ERR_NAME_TAKEN:
        case ERR_FINGERPRINT:
        case ERR_DECIDED:
        case ERR_CAPABILITY:
        case ERR_LAST_VOTER:
        case ERR_SPLIT_NOT_READY:
        case ERR_ADDRESS_TAKEN:
        case ERR_REUSED_ID:
            return CLI_CONFLICT;
        case ERR_BUSY:
        case ERR_CANCELED:
        case ERR_CLOSED:
        case ERR_UNREACHABLE:
        case ERR_NO_QUORUM:
        case ERR_NOT_LEADER:
        case ERR_OUTCOME_UNKNOWN:
        case ERR_NO_SERVICE:
        case ERR_RATE_LIMITED:
        case ERR_MIRROR_UNAVAILABLE:
            return CLI_UNREACHABLE;
        case ERR_TIMEOUT:
            return CLI_TIMED_OUT;
        case ERR_MALFORMED:
        case ERR_TOO_LARGE:
        case ERR_IO:
        case ERR_CORRUPT:
        case ERR_SCHEMA:
        case ERR_CRYPTO:
        case ERR_BAD_CERT:
        case ERR_BAD_CSR:
        case ERR_DIVERGED:
        case ERR_UNSUPPORTED:
            return CLI_FAILED;
    }
    return CLI_FAILED;
}

/* What to do now, where the command itself has nothing better to say. */
static const char *advice(int rc)
{
    switch (cli_exit_of(rc)) {
        case CLI_USAGE:
            return "correct the value; `rap help COMMAND` shows what is possible";
        case CLI_NOT_FOUND:
            return "look at the list: `rap node list`, `rap request list`, `rap token list`";
        case CLI_DENIED:
            if (rc == -ERR_NOT_AUTHORITY) {
                return "run it on an authority's host, with --data-dir of the authority there";
            }
            return "check who may do this: `rap audit list` shows what was refused and why";
        case CLI_CONFLICT:
            if (rc == -ERR_SPLIT_NOT_READY) {
                return "do what each gap says; OPERATIONS, Splitting a cluster, has the order";
            }
            if (rc == -ERR_ADDRESS_TAKEN) {
                return "choose another with --listen, or end that process: `ss -lunp` names it";
            }
            return "look at the state as it is now (list or show), then decide again";
        case CLI_TIMED_OUT:
            return "look whether it happened after all (list or show), or try again with a longer "
                   "--timeout";
        case CLI_UNREACHABLE:
            if (rc == -ERR_MIRROR_UNAVAILABLE) {
                return "`rap mirror status` tells what PostgreSQL lacks; nothing is queued for "
                       "later";
            }
            return rc == -ERR_NO_QUORUM ? "bring back a majority of the authority (`rap authority "
                                          "list --stale` shows it), or, when it "
                                          "is lost for good, see `rap help authority recover`"
                                        : "try again; `rap status` shows what this node can reach";
        default:
            return "look at the daemon's log, then try again";
    }
}

void cli_note(struct cli *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("rap: ", c->err);
    (void)vfprintf(c->err, fmt, ap);
    fputc('\n', c->err);
    va_end(ap);
}

static void say(struct cli *c, const char *code, const char *detail, const char *next)
{
    if (!c->json) {
        fprintf(c->err, "rap: %s\n  next: %s\n", detail, next);
        return;
    }
    struct buf doc, text;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&doc, 8192);
    buf_init(&text, 32768);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_str(&w, &d, "code", code);
    mp_doc_str(&w, &d, "detail", detail);
    mp_doc_str(&w, &d, "next", next);
    mp_doc_end(&w, &d);
    (void)json_from_doc(buf_blob(&doc), JSON_NICE, &text);
    fprintf(c->err, "%s\n", buf_cstr(&text));
    buf_fini(&doc);
    buf_fini(&text);
}

int cli_usage(struct cli *c, const char *next, const char *fmt, ...)
{
    char detail[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    char help[128];
    (void)snprintf(help, sizeof help, "rap help%s%s%s%s", c->cmd == NULL ? "" : " ",
                   c->cmd == NULL ? "" : c->cmd->noun,
                   c->cmd == NULL || c->cmd->verb == NULL ? "" : " ",
                   c->cmd == NULL || c->cmd->verb == NULL ? "" : c->cmd->verb);
    say(c, "usage", detail, next == NULL ? help : next);
    return CLI_USAGE;
}

int cli_fail(struct cli *c, int rc, const char *next, const char *fmt, ...)
{
    char detail[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    /* The runbook that a lower layer named is what comes next. */
    char *runbook = strstr(detail, ERRMSG_RUNBOOK);
    if (runbook != NULL) {
        *runbook = '\0';
        next = next == NULL ? runbook + strlen(ERRMSG_RUNBOOK) : next;
    }
    say(c, err_slug(rc), detail, next == NULL ? advice(rc) : next);
    return cli_exit_of(rc);
}

int cli_fail_here(struct cli *c, int rc, const char *next, const char *what,
                  const struct errmsg *em)
{
    /* The lock of the data directory, not a busy server: waiting does not help. */
    if (rc == -ERR_BUSY) {
        (void)cli_fail(c, rc, "stop the daemon that runs there, or name another --data-dir",
                       "%s: %s", what, em->text);
        return CLI_CONFLICT;
    }
    return cli_fail(c, rc, next, "%s: %s", what, em->text[0] == '\0' ? err_text(rc) : em->text);
}

static void print_members(struct cli *c, struct blob doc)
{
    static const char *const keys[] = {"seen", "needed", "epoch", "term", "outcome"};
    bool any = false;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        char text[64];
        if (mp_find(doc, keys[i]).len == 0) {
            continue;
        }
        mp_find_str(doc, keys[i], text, sizeof text);
        if (text[0] == '\0') {
            (void)snprintf(text, sizeof text, "%lld", (long long)mp_find_int(doc, keys[i]));
        }
        fprintf(c->err, "%s%s %s", any ? ", " : "  ", keys[i], text);
        any = true;
    }
    fputs(any ? "\n" : "", c->err);
}

/* What is missing, one a line. */
static void print_gaps(struct cli *c, struct blob doc)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(doc, "gaps"));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        char gap[32], subject[64], detail[400];
        mp_find_str(item, "gap", gap, sizeof gap);
        mp_find_str(item, "subject", subject, sizeof subject);
        mp_find_str(item, "detail", detail, sizeof detail);
        fprintf(c->err, "  %s%s%s: %s\n", gap, subject[0] == '\0' ? "" : " ", subject, detail);
    }
}

static int no_daemon(struct cli *c, int rc)
{
    if (rc == -ERR_DENIED) {
        return cli_fail(c, rc, "run this as the user that runs the daemon, or as root",
                        "%s/rap.sock: permission denied", c->data_dir);
    }
    if (rc == -ERR_TIMEOUT) {
        return cli_fail(c, rc, NULL, "no answer from the daemon within %us", c->timeout_ms / 1000);
    }
    if (rc == -ERR_UNREACHABLE) {
        char next[512];
        char *member = path_join(c->data_dir, "member");
        (void)snprintf(
            next, sizeof next,
            file_exists(member)
                ? "start it with `rap agent run --data-dir %s`, or name the right --data-dir"
                : "%s holds no membership: name the right --data-dir, or make one with `rap init` "
                  "or `rap join`",
            c->data_dir);
        free(member);
        return cli_fail(c, rc, next, "no daemon answers on %s/rap.sock", c->data_dir);
    }
    return cli_fail(c, rc, NULL, "the exchange with the daemon failed: %s", err_text(rc));
}

int cli_problem(struct cli *c, int rc, struct blob doc)
{
    char detail[512];
    mp_find_str(doc, "detail", detail, sizeof detail);
    if (doc.len == 0 || detail[0] == '\0') {
        return no_daemon(c, rc);
    }
    if (c->json) {
        struct buf text;
        buf_init(&text, 1u << 20);
        (void)json_from_doc(doc, JSON_NICE, &text);
        fprintf(c->err, "%s\n", buf_cstr(&text));
        buf_fini(&text);
        return cli_exit_of(rc);
    }
    fprintf(c->err, "rap: %s (%s)\n", detail, err_slug(rc));
    print_members(c, doc);
    print_gaps(c, doc);
    fprintf(c->err, "  next: %s\n", advice(rc));
    return cli_exit_of(rc);
}

int cli_confirm(struct cli *c, const char *question)
{
    char line[64];
    if (c->yes || c->dry_run) {
        return CLI_OK;
    }
    if (c->no_input || !isatty(fileno(c->in))) {
        return cli_usage(c, "read the effect above, then add --yes", "this needs a yes");
    }
    fprintf(c->err, "%s [y/N] ", question);
    fflush(c->err);
    if (fgets(line, sizeof line, c->in) == NULL ||
        (strcmp(line, "y\n") != 0 && strcmp(line, "yes\n") != 0)) {
        cli_note(c, "nothing was changed");
        return CLI_FAILED;
    }
    return CLI_OK;
}

static void trim(struct buf *b)
{
    while (b->len > 0 && isspace(b->data[b->len - 1])) {
        b->len--;
    }
}

int cli_read_secret(struct cli *c, const char *path, size_t max, struct buf *out)
{
    struct errmsg em = ERRMSG_INIT;
    int rc = 0;
    buf_init(out, max);
    if (strcmp(path, "-") == 0) {
        int ch;
        while ((ch = fgetc(c->in)) != EOF && out->err == 0) {
            uint8_t byte = (uint8_t)ch;
            buf_add(out, &byte, 1);
        }
        rc = out->err == 0 ? 0 : errmsg_set(&em, out->err, "stdin has more than %zu bytes", max);
    } else {
        rc = file_read(path, out, &em);
    }
    if (rc != 0) {
        buf_wipe(out);
        return cli_fail(c, rc, "name a file that this user can read, or - for stdin", "%s",
                        em.text);
    }
    trim(out);
    return CLI_OK;
}

static int ask_passphrase(struct cli *c, struct buf *out)
{
    struct termios old, quiet;
    int fd = fileno(c->in);
    if (c->no_input || tcgetattr(fd, &old) != 0) {
        return cli_usage(c, "give --passphrase-file F or RAP_OWNER_PASSPHRASE",
                         "the owner key has a passphrase and there is no terminal to ask on");
    }
    quiet = old;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    fputs("Passphrase of the owner key: ", c->err);
    fflush(c->err);
    (void)tcsetattr(fd, TCSAFLUSH, &quiet);
    int ch;
    while ((ch = fgetc(c->in)) != EOF && ch != '\n' && out->err == 0) {
        uint8_t byte = (uint8_t)ch;
        buf_add(out, &byte, 1);
    }
    (void)tcsetattr(fd, TCSAFLUSH, &old);
    fputc('\n', c->err);
    return CLI_OK;
}

int cli_passphrase(struct cli *c, bool ask, struct buf *out)
{
    const char *file = cli_get(c, "passphrase-file");
    const char *env = getenv("RAP_OWNER_PASSPHRASE");
    buf_init(out, 1024);
    if (file != NULL) {
        return cli_read_secret(c, file, 1024, out);
    }
    if (env != NULL) {
        buf_add_str(out, env);
        return CLI_OK;
    }
    return ask ? ask_passphrase(c, out) : CLI_OK;
}
