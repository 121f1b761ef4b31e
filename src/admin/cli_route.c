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
