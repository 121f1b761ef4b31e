/* Route intents, queues of relays, egress pools. */
#include "admin/cli_util.h"

static int verb(struct cli *c, const char *method, const char *prefix, const char *suffix,
                const char *done)
{
    struct buf path;
    util_path(&path, prefix, c->operands[0], suffix);
    int rc = util_mutate(c, method, &path, blob_of(NULL, 0), done);
    buf_fini(&path);
    return rc;
}

/* --- intents --- */

int cli_run_intent_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"NAME", "name", OUT_TEXT},
        {"POLICY", "policy", OUT_TEXT},
        {"FROM", "from", OUT_TEXT},
        {"TO", "to", OUT_TEXT},
        {"VIA", "via", OUT_TEXT},
        {"CLASS", "qos_class", OUT_TEXT},
        {"ORGANIZATION", "organization_id", OUT_TEXT},
        {"SERVICE", "service_class", OUT_TEXT},
        {"STATUS", "status", OUT_STATE},
        {"CREATED", "created_at", OUT_AGE},
    };
    struct out_list list = {"/v1/route-intents", cols, ARRAY_SIZE(cols), false,
                            "no intents: routes follow cost alone (`rap intent create`)"};
    return out_list(c, &list);
}

int cli_run_intent_show(struct cli *c)
{
    return util_show(c, "/v1/route-intents/", c->operands[0]);
}

int cli_run_intent_create(struct cli *c)
{
    static const char *const options[][2] = {{"policy", "policy"},
                                             {"from", "from"},
                                             {"to", "to"},
                                             {"via", "via"},
                                             {"qos", "qos_class"},
                                             {"org", "organization_id"},
                                             {"service", "service_class"}};
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/route-intents", NULL, "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "name", c->operands[0]);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        if (cli_get(c, options[i][0]) != NULL) {
            mp_doc_str(&body.w, &body.d, options[i][1], cli_get(c, options[i][0]));
        }
    }
    int rc = util_mutate(c, "POST", &path, util_body_end(&body),
                         "created: the nodes concerned obey with their next configuration");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_intent_enable(struct cli *c)
{
    return verb(c, "POST", "/v1/route-intents/", "/enable", "enabled");
}

int cli_run_intent_disable(struct cli *c)
{
    return verb(c, "POST", "/v1/route-intents/", "/disable", "disabled");
}

int cli_run_intent_delete(struct cli *c)
{
    return verb(c, "DELETE", "/v1/route-intents/", "", "deleted");
}

/* --- queues --- */

int cli_run_qos_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"CLASS", "channel_class", OUT_TEXT}, {"CONFIGURED", "configured", OUT_TEXT},
        {"PRIORITY", "priority", OUT_TEXT},   {"FLOOR_PERMILLE", "floor_permille", OUT_TEXT},
        {"RATE_KBPS", "rate", OUT_TEXT},      {"LIMIT_KIB", "limit_kib", OUT_TEXT},
        {"LIFE_MS", "life_ms", OUT_TEXT},     {"DROPPABLE", "droppable", OUT_TEXT},
    };
    struct out_list list = {"/v1/qos", cols, ARRAY_SIZE(cols), true, "no classes"};
    return out_list(c, &list);
}

int cli_run_qos_set(struct cli *c)
{
    static const char *const numbers[][2] = {{"priority", "priority"},
                                             {"floor", "floor_permille"},
                                             {"rate", "rate"},
                                             {"limit", "limit_kib"}};
    struct buf path;
    struct util_body body;
    const char *droppable = cli_get(c, "droppable");
    bool any = droppable != NULL || cli_get(c, "life") != NULL;
    int rc = 0;
    if (droppable != NULL && strcmp(droppable, "on") != 0 && strcmp(droppable, "off") != 0) {
        return cli_usage(c, NULL, "--droppable is on or off");
    }
    util_path(&path, "/v1/qos/", c->operands[0], "");
    util_body_begin(&body);
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(numbers); i++) {
        int64_t v = 0;
        if (cli_get(c, numbers[i][0]) != NULL) {
            rc = util_get_number(c, numbers[i][0], &v);
            mp_doc_int(&body.w, &body.d, numbers[i][1], v);
            any = true;
        }
    }
    if (droppable != NULL) {
        mp_doc_bool(&body.w, &body.d, "droppable", strcmp(droppable, "on") == 0);
    }
    if (cli_get(c, "life") != NULL) {
        mp_doc_str(&body.w, &body.d, "life", cli_get(c, "life"));
    }
    if (rc == 0) {
        rc = any ? util_mutate(c, "PATCH", &path, util_body_end(&body), "noted")
                 : cli_usage(c, NULL, "say what to change");
    }
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_qos_reset(struct cli *c)
{
    return verb(c, "DELETE", "/v1/qos/", "", "as the program has it");
}

/* --- pools --- */

int cli_run_pool_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"ID", "id", OUT_TEXT},
        {"NAME", "name", OUT_TEXT},
        {"ORGANIZATION", "organization_id", OUT_TEXT},
        {"NODES", "members", OUT_TEXT},
        {"CREATED", "created_at", OUT_AGE},
    };
    struct out_list list = {"/v1/egress-pools", cols, ARRAY_SIZE(cols), false,
                            "no pools: make one with `rap pool create NAME`"};
    return out_list(c, &list);
}

int cli_run_pool_show(struct cli *c)
{
    return util_show(c, "/v1/egress-pools/", c->operands[0]);
}

int cli_run_pool_create(struct cli *c)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/egress-pools", NULL, "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "name", c->operands[0]);
    if (cli_get(c, "org") != NULL) {
        mp_doc_str(&body.w, &body.d, "organization_id", cli_get(c, "org"));
    }
    int rc = util_mutate(c, "POST", &path, util_body_end(&body), "created");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_pool_delete(struct cli *c)
{
    return verb(c, "DELETE", "/v1/egress-pools/", "", "deleted");
}

static int pool_member(struct cli *c, const char *suffix, const char *done)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/egress-pools/", c->operands[0], suffix);
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "node", c->operands[1]);
    int rc = util_mutate(c, "POST", &path, util_body_end(&body), done);
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_pool_add(struct cli *c)
{
    return pool_member(c, "/members", "added");
}

int cli_run_pool_remove(struct cli *c)
{
    return pool_member(c, "/members/remove", "removed");
}
