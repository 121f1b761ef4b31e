#include "admin/cli_util.h"

int cli_run_mesh_show(struct cli *c)
{
    return util_show(c, "/v1/mesh", NULL);
}

/* 0, or CLI_USAGE with a message. */
static int put_switch(struct cli *c, struct util_body *b, const char *name)
{
    const char *v = cli_get(c, name);
    if (v != NULL && strcmp(v, "on") != 0 && strcmp(v, "off") != 0) {
        return cli_usage(c, NULL, "--%s is on or off", name);
    }
    if (v != NULL) {
        mp_doc_bool(&b->w, &b->d, name, strcmp(v, "on") == 0);
    }
    return 0;
}

static int put_cut_off(struct cli *c, struct util_body *b)
{
    const char *v = cli_get(c, "cut-off-after");
    int64_t ms = 1;
    if (v == NULL) {
        return 0;
    }
    if (strcmp(v, "never") != 0 && (cli_get_duration(c, "cut-off-after", &ms) != 0 || ms == 0)) {
        return cli_usage(c, NULL, "--cut-off-after is a duration, or never");
    }
    mp_doc_str(&b->w, &b->d, "cut_off_after", strcmp(v, "never") == 0 ? "0s" : v);
    return 0;
}

int cli_run_mesh_set(struct cli *c)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/mesh", NULL, "");
    util_body_begin(&body);
    int rc = put_switch(c, &body, "overlay");
    if (rc == 0) {
        rc = put_switch(c, &body, "synthetic");
    }
    if (rc == 0) {
        rc = put_cut_off(c, &body);
    }
    if (rc == 0) {
        rc = util_mutate(c, "PATCH", &path, util_body_end(&body),
                         "noted: nodes obey with their next configuration");
    }
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_node_mesh(struct cli *c)
{
    static const char *const texts[] = {"overlay", "synthetic", "kind", "region"};
    static const char *const numbers[][2] = {{"bandwidth", "bandwidth_mbps"}, {"trust", "trust"}};
    struct buf path;
    struct util_body body;
    bool any = false;
    int rc = 0;
    util_path(&path, "/v1/nodes/", c->operands[0], "/mesh");
    util_body_begin(&body);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (cli_get(c, texts[i]) != NULL) {
            mp_doc_str(&body.w, &body.d, texts[i], cli_get(c, texts[i]));
            any = true;
        }
    }
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(numbers); i++) {
        int64_t v = 0;
        if (cli_get(c, numbers[i][0]) != NULL) {
            rc = util_get_number(c, numbers[i][0], &v);
            any = true;
            mp_doc_int(&body.w, &body.d, numbers[i][1], v);
        }
    }
    if (rc == 0) {
        rc = any ? util_mutate(c, "POST", &path, util_body_end(&body), "noted")
                 : cli_usage(c, NULL, "say what to change");
    }
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

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
