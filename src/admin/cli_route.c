#include "admin/cli_util.h"

int cli_run_route_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"DESTINATION", "destination", OUT_TEXT},
        {"NEXT_HOP", "next_hop", OUT_TEXT},
        {"DIRECT", "direct", OUT_TEXT},
        {"METRIC_US", "metric_us", OUT_TEXT},
        {"HOPS", "hops", OUT_TEXT},
        {"REFUSAL", "refusal", OUT_TEXT},
    };
    struct out_list list = {"/v1/routes", cols, ARRAY_SIZE(cols), true, "no routes"};
    return out_list(c, &list);
}

int cli_run_route_explain(struct cli *c)
{
    return util_show(c, "/v1/routes/", c->operands[0]);
}

int cli_run_route_open(struct cli *c)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/routes", NULL, "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "to", c->operands[0]);
    int rc = util_mutate(c, "POST", &path, util_body_end(&body), NULL);
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_route_close(struct cli *c)
{
    struct buf path;
    util_path(&path, "/v1/routes/", c->operands[0], "/close");
    int rc = util_mutate(c, "POST", &path, blob_of(NULL, 0), "closed");
    buf_fini(&path);
    return rc;
}
