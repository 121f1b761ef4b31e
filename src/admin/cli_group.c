#include "admin/cli_util.h"

int cli_run_group_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"ID", "id", OUT_TEXT},
        {"NAME", "name", OUT_TEXT},
        {"IN", "parent_name", OUT_TEXT},
        {"KIND", "kind", OUT_TEXT},
        {"NODES", "nodes_count", OUT_TEXT},
    };
    struct out_list list = {"/v1/groups", cols, ARRAY_SIZE(cols), false,
                            "no groups: make one with `rap group create NAME`"};
    return out_list(c, &list);
}

int cli_run_group_show(struct cli *c)
{
    return util_show(c, "/v1/groups/", c->operands[0]);
}

static void put_option(struct cli *c, struct util_body *b, const char *name)
{
    if (cli_get(c, name) != NULL) {
        mp_doc_str(&b->w, &b->d, name, cli_get(c, name));
    }
}

int cli_run_group_create(struct cli *c)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/groups", NULL, "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "name", c->operands[0]);
    put_option(c, &body, "parent");
    put_option(c, &body, "kind");
    int rc = util_mutate(c, "POST", &path, util_body_end(&body), "created");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_group_move(struct cli *c)
{
    struct buf path;
    struct util_body body;
    if (cli_get(c, "name") == NULL && cli_get(c, "parent") == NULL) {
        return cli_usage(c, NULL, "say where to (--parent) or what it is called (--name)");
    }
    util_path(&path, "/v1/groups/", c->operands[0], "");
    util_body_begin(&body);
    put_option(c, &body, "name");
    put_option(c, &body, "parent");
    int rc = util_mutate(c, "PATCH", &path, util_body_end(&body), "moved");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_group_delete(struct cli *c)
{
    struct buf path;
    util_path(&path, "/v1/groups/", c->operands[0], "");
    int rc = util_mutate(c, "DELETE", &path, blob_of(NULL, 0), "deleted");
    buf_fini(&path);
    return rc;
}
