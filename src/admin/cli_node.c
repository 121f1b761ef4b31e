#include "admin/cli_util.h"

int cli_run_node_list(struct cli *c)
{
    static const struct out_col cols[] = {
        {"ID", "id", OUT_TEXT},
        {"NAME", "name", OUT_TEXT},
        {"IDENTITY", "identity_state", OUT_STATE},
        {"MEMBER", "membership_status", OUT_STATE},
        {"HEALTH", "health_status", OUT_STATE},
        {"ROLES", "roles", OUT_TEXT},
        {"ADDRESS", "address", OUT_TEXT},
        {"VERSION", "agent_version", OUT_TEXT},
        {"SEEN", "last_heartbeat_at", OUT_AGE},
    };
    struct out_list list = {"/v1/nodes", cols, ARRAY_SIZE(cols), false, "no nodes"};
    return out_list(c, &list);
}

int cli_run_node_show(struct cli *c)
{
    return util_show(c, "/v1/nodes/", c->operands[0]);
}

int cli_run_node_rename(struct cli *c)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/nodes/", c->operands[0], "");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "name", c->operands[1]);
    int rc = util_mutate(c, "PATCH", &path, util_body_end(&body), "renamed");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

/* Finds the node, says what would happen to it and asks. Puts its full id in ret_id. */
static int announce(struct cli *c, const char *effect, const char *question, char ret_id[128])
{
    char name[128], fingerprint[65], state[32];
    struct buf doc, roles;
    int rc = util_fetch(c, "/v1/nodes/", c->operands[0], &doc);
    if (rc == CLI_OK) {
        mp_find_str(buf_blob(&doc), "id", ret_id, 128);
        mp_find_str(buf_blob(&doc), "name", name, sizeof name);
        mp_find_str(buf_blob(&doc), "fingerprint", fingerprint, sizeof fingerprint);
        mp_find_str(buf_blob(&doc), "identity_state", state, sizeof state);
        buf_init(&roles, 1024);
        out_cell(mp_find(buf_blob(&doc), "roles"), OUT_TEXT, 0, &roles);
        cli_note(c, "node %s (%s), identity %s, key %.16s, roles %s", name, ret_id, state,
                 fingerprint, buf_cstr(&roles));
        buf_fini(&roles);
        cli_note(c, "effect: %s", effect);
        rc = cli_confirm(c, question);
    }
    buf_fini(&doc);
    return rc;
}

int cli_run_node_revoke(struct cli *c)
{
    char id[128];
    struct buf path;
    struct util_body body;
    int rc = announce(c,
                      "its key is banned for ever, its sessions are cut within seconds, its roles "
                      "stop counting; to come back the host needs a new key and a new join",
                      "Revoke it?", id);
    if (rc != CLI_OK) {
        return rc;
    }
    util_path(&path, "/v1/nodes/", id, "/revoke");
    util_body_begin(&body);
    mp_doc_str(&body.w, &body.d, "reason", cli_get(c, "reason"));
    util_put_force(c, &body);
    rc = util_mutate(c, "POST", &path, util_body_end(&body), "revoked");
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

int cli_run_node_ping(struct cli *c)
{
    static const char *const numbers[] = {"count", "size", "bytes"};
    struct buf path;
    struct buf doc;
    struct util_body body;
    int rc = CLI_OK;
    util_path(&path, "/v1/nodes/", c->operands[0], "/ping");
    buf_init(&doc, CLIENT_DOC_MAX);
    util_body_begin(&body);
    if (cli_get(c, "via") != NULL) {
        mp_doc_str(&body.w, &body.d, "via", cli_get(c, "via"));
    }
    for (size_t i = 0; i < ARRAY_SIZE(numbers) && rc == CLI_OK; i++) {
        int64_t v = 0;
        rc = cli_get_count(c, numbers[i], &v);
        if (rc == CLI_OK && cli_get(c, numbers[i]) != NULL) {
            mp_doc_int(&body.w, &body.d, numbers[i], v);
        }
    }
    if (rc == CLI_OK) {
        rc = client_act(c, "POST", &path, util_body_end(&body), &doc);
    }
    if (rc == CLI_OK) {
        out_doc(c, buf_blob(&doc));
    }
    util_body_fini(&body);
    buf_fini(&path);
    buf_fini(&doc);
    return rc;
}

int cli_run_node_remove(struct cli *c)
{
    char id[128];
    struct buf path;
    int rc = announce(c, "it leaves every list; its key stays banned and the audit keeps it",
                      "Remove it?", id);
    if (rc != CLI_OK) {
        return rc;
    }
    util_path(&path, "/v1/nodes/", id, "");
    rc = util_mutate(c, "DELETE", &path, blob_of(NULL, 0), "removed");
    buf_fini(&path);
    return rc;
}

/* POST to a node's own verb, with what put (NULL: nothing) writes. */
static int node_verb(struct cli *c, const char *node, const char *verb,
                     void (*put)(struct cli *c, struct util_body *b), const char *done)
{
    struct buf path;
    struct util_body body;
    util_path(&path, "/v1/nodes/", node, verb);
    util_body_begin(&body);
    if (put != NULL) {
        put(c, &body);
    }
    int rc = util_mutate(c, "POST", &path, util_body_end(&body), done);
    util_body_fini(&body);
    buf_fini(&path);
    return rc;
}

static void put_reason(struct cli *c, struct util_body *b)
{
    if (cli_get(c, "reason") != NULL) {
        mp_doc_str(&b->w, &b->d, "reason", cli_get(c, "reason"));
    }
}

static void put_reason_and_force(struct cli *c, struct util_body *b)
{
    put_reason(c, b);
    util_put_force(c, b);
}

int cli_run_node_disable(struct cli *c)
{
    char id[128];
    int rc = announce(c,
                      "its sessions are cut, its roles stop counting, its heartbeats are refused, "
                      "until `rap node enable`",
                      "Disable it?", id);
    return rc != CLI_OK ? rc : node_verb(c, id, "/disable", put_reason_and_force, "disabled");
}

int cli_run_node_enable(struct cli *c)
{
    return node_verb(c, c->operands[0], "/enable", put_reason, "enabled");
}

static void put_group(struct cli *c, struct util_body *b)
{
    if (c->operands[1] != NULL) {
        mp_doc_str(&b->w, &b->d, "group", c->operands[1]);
    }
}

int cli_run_node_group(struct cli *c)
{
    return node_verb(c, c->operands[0], "/group", put_group, "moved");
}

static void put_capability(struct cli *c, struct util_body *b)
{
    mp_doc_str(&b->w, &b->d, "capability", c->operands[1]);
    if (cli_get(c, "withdraw") != NULL) {
        mp_doc_bool(&b->w, &b->d, "withdraw", true);
    }
}

int cli_run_node_verify(struct cli *c)
{
    return node_verb(c, c->operands[0], "/verify", put_capability, "noted");
}

static void put_telemetry(struct cli *c, struct util_body *b)
{
    mp_doc_bool(&b->w, &b->d, "test_telemetry", strcmp(c->operands[1], "on") == 0);
}

int cli_run_node_telemetry(struct cli *c)
{
    if (strcmp(c->operands[1], "on") != 0 && strcmp(c->operands[1], "off") != 0) {
        return cli_usage(c, NULL, "test telemetry is on or off");
    }
    return node_verb(c, c->operands[0], "/telemetry", put_telemetry, "noted");
}

int cli_run_node_heartbeats(struct cli *c)
{
    static const struct out_col cols[] = {
        {"RECEIVED", "received_at", OUT_AGE}, {"HEALTH", "health", OUT_STATE},
        {"VERSION", "version", OUT_TEXT},     {"CONFIG", "config_version", OUT_TEXT},
        {"SENT", "observed_at", OUT_AGE},
    };
    struct buf path;
    util_path(&path, "/v1/nodes/", c->operands[0], "/heartbeats");
    struct out_list list = {buf_cstr(&path), cols, ARRAY_SIZE(cols), true, "no observations yet"};
    int rc = out_list(c, &list);
    buf_fini(&path);
    return rc;
}
