#include "admin/cli_util.h"

#include "wire/token.h"

struct join_say {
    struct cli *c;
    char fingerprint[65];
    char join_id[UUID_TEXT_MAX];
    bool told;
};

static void on_progress(void *data, int event, const char *fingerprint, const char *join_id,
                        const char *detail)
{
    struct join_say *s = data;
    struct cli *c = s->c;
    if (fingerprint != NULL && fingerprint[0] != '\0') {
        (void)snprintf(s->fingerprint, sizeof s->fingerprint, "%s", fingerprint);
    }
    if (join_id != NULL && join_id[0] != '\0') {
        (void)snprintf(s->join_id, sizeof s->join_id, "%s", join_id);
    }
    switch ((enum cli_join_event)event) {
        case CLI_JOIN_CONNECTING:
            cli_note(c, "connecting%s%s", detail == NULL || detail[0] == '\0' ? "" : " to ",
                     detail == NULL ? "" : detail);
            break;
        case CLI_JOIN_SUBMITTED:
            cli_note(c, "request %s submitted", s->join_id);
            cli_note(c, "fingerprint of this host: %s", s->fingerprint);
            cli_note(c, "an administrator approves it with:");
            cli_note(c, "  rap request approve %s --fingerprint %.16s", s->join_id, s->fingerprint);
            break;
        case CLI_JOIN_PENDING:
            if (!s->told) {
                cli_note(c, "waiting for the decision");
            }
            s->told = true;
            break;
        case CLI_JOIN_APPROVED:
            cli_note(c, "approved");
            break;
        case CLI_JOIN_WAITING:
            cli_note(c, "too many attempts from this address: trying again in %s", detail);
            break;
    }
    fflush(c->err);
}

static const char *after_failure(int err)
{
    switch ((enum err)(-err)) {
        case ERR_TOKEN_UNKNOWN:
        case ERR_TOKEN_EXPIRED:
        case ERR_TOKEN_REVOKED:
        case ERR_TOKEN_USED:
        case ERR_TOKEN_SCOPE:
            return "ask for a new token: `rap token create --print-join` on an authority";
        case ERR_NAME_TAKEN:
            return "choose another name: --name N";
        case ERR_EXISTS:
            return "this data directory has a membership already: start it with `rap agent run`";
        case ERR_REJECTED:
            return "ask the administrator; a new attempt needs a new request";
        case ERR_TIMEOUT:
            return "the request stays: run the same command again to go on waiting";
        case ERR_UNREACHABLE:
            return "check that UDP to the addresses in the token is open, then run it again";
        default:
            return NULL;
    }
}

static void show(struct cli *c, const struct join_say *s, const struct join_token *t, bool pending,
                 const struct uuid *node_id)
{
    struct util_body b;
    util_body_begin(&b);
    mp_doc_uuid(&b.w, &b.d, "node_id", node_id);
    mp_doc_uuid(&b.w, &b.d, "cluster_id", &t->cluster_id);
    mp_doc_str(&b.w, &b.d, "state", pending ? "pending" : "approved");
    mp_doc_str(&b.w, &b.d, "join_id", s->join_id[0] == '\0' ? NULL : s->join_id);
    mp_doc_str(&b.w, &b.d, "fingerprint", s->fingerprint[0] == '\0' ? NULL : s->fingerprint);
    out_doc(c, util_body_end(&b));
    util_body_fini(&b);
    cli_note(c,
             pending ? "next: run the same command again to wait for the decision"
                     : "next: rap agent run --data-dir %s",
             c->data_dir);
}

int cli_run_join(struct cli *c)
{
    struct join_say say = {.c = c};
    struct errmsg em = ERRMSG_INIT;
    struct uuid node_id = UUID_NIL;
    struct join_token parsed;
    struct buf token;
    const char *roles[CLI_GIVEN_MAX + 1];
    size_t n = 0;
    bool pending = false;

    int rc = cli_read_secret(c, cli_get(c, "token-file"), TOKEN_TEXT_MAX, &token);
    if (rc != CLI_OK) {
        return rc;
    }
    int err = token_parse((const char *)token.data, token.len, &parsed, &em);
    if (err != 0) {
        rc = cli_fail(c, err, "copy the token whole, as `rap token create` printed it", "%s",
                      em.text);
        goto out;
    }
    while (cli_get_nth(c, "role", n) != NULL) {
        roles[n] = cli_get_nth(c, "role", n);
        n++;
    }
    roles[n] = NULL;
    struct cli_join o = {
        .data_dir = c->data_dir,
        .token = (const char *)token.data,
        .token_len = token.len,
        .listen = cli_get(c, "listen"),
        .advertise = cli_get(c, "advertise"),
        .name = cli_get(c, "name"),
        .roles = n == 0 ? NULL : roles,
        .wait = cli_get(c, "no-wait") == NULL,
        .timeout_ms = c->timeout_given ? c->timeout_ms : 0,
        .progress = on_progress,
        .data = &say,
    };
    err = c->ops->join(&o, &pending, &node_id, &em);
    if (err != 0) {
        rc = cli_fail_here(c, err, after_failure(err), "join", &em);
        goto out;
    }
    show(c, &say, &parsed, pending, &node_id);
out:
    buf_wipe(&token);
    explicit_bzero(&parsed, sizeof parsed);
    return rc;
}
