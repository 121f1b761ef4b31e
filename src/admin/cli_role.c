#include "admin/cli_util.h"

static int change(struct cli *c, const char *target, const char *done)
{
    struct buf path;
    struct util_body body;
    util_path(&path, target, NULL, "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "node", c->operands[0]);
    mp_doc_str(&body.w, &body.d, "role", c->operands[1]);
    if (cli_get(c, "org") != NULL) {
        mp_doc_str(&body.w, &body.d, "organization_id", cli_get(c, "org"));
    }
    int rc = util_mutate(c, "POST", &path, util_body_end(&body), done);
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_role_assign(struct cli *c)
{
    return change(c, "/v1/roles", "assigned; the node gets it with its next configuration");
}

int cli_run_role_unassign(struct cli *c)
{
    return change(c, "/v1/roles/unassign", "unassigned");
}

int cli_run_role_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"NODE", "node_id", OUT_TEXT},
        {"ROLE", "role", OUT_TEXT},
        {"ORGANIZATION", "organization_id", OUT_TEXT},
        {"STATUS", "status", OUT_STATE},
        {"STATE", "state", OUT_STATE},
        {"BY", "assigned_by_user_id", OUT_TEXT},
        {"ASSIGNED", "assigned_at", OUT_AGE},
    };
    struct buf path;
    util_path(&path, "/v1/roles", NULL, "");
    client_query(&path, "node", cli_get(c, "node"));
    struct out_list list = {buf_cstr(&path), cols, ARRAY_SIZE(cols), false,
                            "no roles: give one with `rap role assign N ROLE`"};
    int rc = out_list(c, &list);
    buf_fini(&path);
    return rc;
}
