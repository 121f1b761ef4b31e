/* What organizations have behind nodes and egress pools. */
#include "admin/cli_util.h"

int cli_run_resource_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"ORGANIZATION", "organization_id", OUT_TEXT},
        {"NAME", "name", OUT_TEXT},
        {"PROTOCOL", "protocol", OUT_TEXT},
        {"NODE", "node_name", OUT_TEXT},
        {"POOL", "egress_pool_name", OUT_TEXT},
        {"TARGET", "target_ref", OUT_TEXT},
        {"CREATED", "created_at", OUT_AGE},
    };
    struct out_list list = {"/v1/resources", cols, ARRAY_SIZE(cols), false,
                            "no resources: make one with `rap resource create NAME --org O`"};
    return out_list(c, &list);
}

int cli_run_resource_show(struct cli *c)
{
    return util_show(c, "/v1/resources/", c->operands[0]);
}

/* What was said of it, under the names of the API. */
static bool put_options(struct cli *c, struct util_body *body)
{
    static const char *const options[][2] = {
        {"org", "organization_id"}, {"protocol", "protocol"}, {"target", "target_ref"},
        {"node", "node"},           {"pool", "pool"},         {"credential", "credential_ref"}};
    bool any = false;
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        if (cli_get(c, options[i][0]) != NULL) {
            mp_doc_str(&body->w, &body->d, options[i][1], cli_get(c, options[i][0]));
            any = true;
        }
    }
    return any;
}

int cli_run_resource_create(struct cli *c)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/resources", NULL, "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "name", c->operands[0]);
    (void)put_options(c, &body);
    int rc = util_mutate(c, "POST", &path, util_body_end(&body),
                         "created: the nodes that serve its organization know it with their next "
                         "configuration");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_resource_set(struct cli *c)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/resources/", c->operands[0], "");
    util_body_begin(&body);
    int rc = put_options(c, &body) ? util_mutate(c, "PATCH", &path, util_body_end(&body), "noted")
                                   : cli_usage(c, NULL, "say what to change");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_resource_delete(struct cli *c)
{
    struct buf path;
    util_path(&path, "/v1/resources/", c->operands[0], "");
    int rc = util_mutate(c, "DELETE", &path, blob_of(NULL, 0), "deleted");
    buf_fini(&path);
    return rc;
}
