#include "admin/cli_util.h"

#include "wire/limits.h"

#include <ctype.h>

int cli_run_request_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"ID", "id", OUT_TEXT},
        {"NAME", "node_name", OUT_TEXT},
        {"STATUS", "status", OUT_STATE},
        {"FINGERPRINT", "node_fingerprint", OUT_SHORT},
        {"SOURCE", "source_address", OUT_TEXT},
        {"ROLES ASKED", "requested_roles", OUT_TEXT},
        {"CREATED", "created_at", OUT_AGE},
    };
    struct buf path;
    util_path(&path, "/v1/requests", NULL, "");
    client_query(&path, "status", cli_get(c, "status"));
    struct out_list list = {
        buf_cstr(&path), cols, ARRAY_SIZE(cols), false,
        "no requests: a host asks with `rap join --token-file F --listen IP:PORT`"};
    int rc = out_list(c, &list);
    buf_fini(&path);
    return rc;
}

int cli_run_request_show(struct cli *c)
{
    return util_show(c, "/v1/requests/", c->operands[0]);
}

/* Lower case; false unless it is 16 or 64 hex digits. */
static bool read_fingerprint(const char *text, char out[65])
{
    size_t len = strlen(text);
    if (len != 16 && len != 64) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (!isxdigit((unsigned char)text[i])) {
            return false;
        }
        out[i] = (char)tolower((unsigned char)text[i]);
    }
    out[len] = '\0';
    return true;
}

int cli_run_request_approve(struct cli *c)
{
    char given[65], known[65], id[128];
    struct buf doc, path;
    struct util_body body;
    if (!read_fingerprint(cli_get(c, "fingerprint"), given)) {
        return cli_usage(c, NULL, "--fingerprint: 64 hex digits, or the first 16");
    }
    int rc = util_fetch(c, "/v1/requests/", c->operands[0], &doc);
    mp_find_str(buf_blob(&doc), "node_fingerprint", known, sizeof known);
    mp_find_str(buf_blob(&doc), "id", id, sizeof id);
    buf_fini(&doc);
    if (rc != CLI_OK) {
        return rc;
    }
    /* The person compared; what goes to the cluster is the whole of what they compared with. */
    if (strlen(known) != 64 || strncmp(known, given, strlen(given)) != 0) {
        return cli_fail(c, -ERR_FINGERPRINT,
                        "do not approve: compare with what `rap join` printed on that host",
                        "the request has the fingerprint %s, not %s", known, given);
    }
    util_path(&path, "/v1/requests/", id, "/approve");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "fingerprint", known);
    rc = util_mutate(c, "POST", &path, util_body_end(&body),
                     "approved; it has no roles yet: `rap role assign N ROLE`");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_request_reject(struct cli *c)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/requests/", c->operands[0], "/reject");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "reason", cli_get(c, "reason"));
    int rc = util_mutate(c, "POST", &path, util_body_end(&body), "rejected");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}
