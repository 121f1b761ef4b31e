#include "admin/cli_util.h"

static int list(struct cli *c, const char *path_text, const struct out_col *cols, size_t count,
                const char *empty)
{
    struct buf path;
    util_path(&path, path_text, NULL, "");
    client_query(&path, "node", cli_get(c, "node"));
    struct out_list l = {buf_cstr(&path), cols, count, false, empty};
    int rc = out_list(c, &l);
    buf_fini(&path);
    return rc;
}

int cli_run_mesh_links(struct cli *c)
{
    static const struct out_col cols[] = {
        {"FROM", "from_node_name", OUT_TEXT}, {"TO", "to_node_name", OUT_TEXT},
        {"STATUS", "status", OUT_STATE},      {"TO_RELAY", "relay", OUT_TEXT},
        {"RTT_US", "rtt_us", OUT_TEXT},       {"LOSS_PERMILLE", "loss_permille", OUT_TEXT},
        {"COST_US", "cost_us", OUT_TEXT},     {"REPORTED", "reported_at", OUT_AGE},
    };
    return list(c, "/v1/mesh/links", cols, ARRAY_SIZE(cols),
                "no links reported: nodes report those of their overlay with each heartbeat");
}

int cli_run_mesh_routes(struct cli *c)
{
    static const struct out_col cols[] = {
        {"FROM", "from_node_name", OUT_TEXT},
        {"TO", "to_node_name", OUT_TEXT},
        {"STATUS", "status", OUT_STATE},
        {"PATH", "path_kind", OUT_TEXT},
        {"NEXT_HOP", "next_hop_name", OUT_TEXT},
        {"METRIC_US", "metric_us", OUT_TEXT},
        {"HOPS", "hops", OUT_TEXT},
        {"REPORTED", "reported_at", OUT_AGE},
    };
    return list(c, "/v1/mesh/routes", cols, ARRAY_SIZE(cols),
                "no routes reported: nodes report those of their overlay with each heartbeat");
}
