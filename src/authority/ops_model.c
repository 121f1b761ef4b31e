/* Calls about memberships, groups, capabilities and the cluster's own row. Apply checks all of it. */
#include "authority/ops_impl.h"

#include "base/text.h"

static int put_or(struct prepare *p, int rc, enum cmd_kind kind, const void *body)
{
    if (rc == 0) {
        op_put_body(p, kind, body);
    }
    return rc;
}

int op_node_disable(struct prepare *p)
{
    struct membership_set body = {.disabled = true, .force = op_arg_force(p)};
    int rc = op_arg_reason(p, &body.reason);
    rc = rc != 0 ? rc : op_arg_id(p, "nodes", &body.node_id);
    return put_or(p, rc, CMD_MEMBERSHIP_SET, &body);
}

int op_node_enable(struct prepare *p)
{
    struct membership_set body = {.reason = op_arg_text(p, "reason")};
    int rc = op_arg_id(p, "nodes", &body.node_id);
    return put_or(p, rc, CMD_MEMBERSHIP_SET, &body);
}

/* An absent flag leaves things as they are. */
uint64_t op_arg_switch(const struct prepare *p, const char *key)
{
    struct blob v = mp_find(p->in->args, key);
    return v.len == 0 ? SWITCH_KEEP : mp_find_int(p->in->args, key) != 0 ? SWITCH_ON : SWITCH_OFF;
}

int op_node_update(struct prepare *p)
{
    struct node_update body = {.test_telemetry = op_arg_switch(p, "test_telemetry")};
    int rc = op_arg_id(p, "nodes", &body.node_id);
    return put_or(p, rc, CMD_NODE_UPDATE, &body);
}

/* The group an argument names; absent or empty: none. */
static int arg_group(struct prepare *p, const char *key, struct uuid *ret)
{
    char text[128];
    mp_find_str(p->in->args, key, text, sizeof text);
    *ret = UUID_NIL;
    return text[0] == '\0' ? 0 : op_resolve(p->a, "groups", text, ret, p->em);
}

int op_node_group(struct prepare *p)
{
    struct group_assign body;
    int rc = arg_group(p, "group", &body.group_id);
    rc = rc != 0 ? rc : op_arg_id(p, "nodes", &body.node_id);
    return put_or(p, rc, CMD_GROUP_ASSIGN, &body);
}

int op_node_verify(struct prepare *p)
{
    struct capability_verify body = {.capability = op_arg_text(p, "capability"),
                                     .verified = mp_find_int(p->in->args, "withdraw") == 0};
    if (!capability_is_known(body.capability)) {
        return errmsg_set(p->em, -ERR_INVALID, "no capability \"%.*s\": `rap node show` lists them",
                          (int)body.capability.len, (const char *)body.capability.data);
    }
    int rc = op_arg_id(p, "nodes", &body.node_id);
    return put_or(p, rc, CMD_CAPABILITY_VERIFY, &body);
}

int op_capability_policy(struct prepare *p)
{
    const struct capability_policy body = {.capability = op_arg_text(p, "capability"),
                                           .automatic = mp_find_int(p->in->args, "manual") == 0};
    return put_or(p, 0, CMD_CAPABILITY_POLICY, &body);
}

int op_cluster_update(struct prepare *p)
{
    const struct cluster_update body = {
        .name = op_arg_text(p, "name"),
        .region = op_arg_text(p, "region"),
        .metadata = op_arg_text(p, "metadata"),
        .test_telemetry = op_arg_switch(p, "test_telemetry"),
        .heartbeat_sample_ms = mp_find_int(p->in->args, "heartbeat_sample_ms"),
    };
    if (body.region.len > NAME_MAX_BYTES || body.metadata.len > FACTS_MAX_BYTES) {
        return errmsg_set(p->em, -ERR_TOO_LARGE, "a region has at most %d bytes, metadata %d",
                          NAME_MAX_BYTES, FACTS_MAX_BYTES);
    }
    return put_or(p, 0, CMD_CLUSTER_UPDATE, &body);
}

int op_role_require(struct prepare *p)
{
    const struct role_require body = {.role = op_arg_text(p, "role"),
                                      .required = mp_find_int(p->in->args, "not") == 0};
    return put_or(p, 0, CMD_ROLE_REQUIRE, &body);
}

static int group_name(struct prepare *p, struct blob name)
{
    return text_is_name((const char *)name.data, name.len)
               ? 0
               : errmsg_set(p->em, -ERR_INVALID,
                            "a group name is 1-63 of a-z, 0-9 and -, no - at either end");
}

int op_group_create(struct prepare *p)
{
    struct group_create body = {
        .group_id = op_fresh_id(p), .name = op_arg_text(p, "name"), .kind = op_arg_text(p, "kind")};
    int rc = group_name(p, body.name);
    rc = rc != 0 ? rc : arg_group(p, "parent", &body.parent_group_id);
    if (rc == 0 && body.kind.len > ROLE_MAX_BYTES) {
        rc = errmsg_set(p->em, -ERR_TOO_LARGE, "a kind has at most %d bytes", ROLE_MAX_BYTES);
    }
    return put_or(p, rc, CMD_GROUP_CREATE, &body);
}

/* What is not given stays: the command says all. "/" is the top. */
int op_group_move(struct prepare *p)
{
    struct group_move body = {.name = op_arg_text(p, "name")};
    char id[UUID_TEXT_MAX];
    char parent[128];
    char held[NAME_MAX_BYTES + 1] = "";
    char held_parent[UUID_TEXT_MAX] = "";
    int rc = op_arg_id(p, "groups", &body.group_id);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(state_db(p->a),
                                    "SELECT name, parent_group_id FROM node_groups WHERE id = ?");
    uuid_format(&body.group_id, id);
    db_bind_text(st, id);
    if (db_step(st) == 1) {
        (void)snprintf(held, sizeof held, "%s", db_col_text(st, "name"));
        (void)snprintf(held_parent, sizeof held_parent, "%s", db_col_text(st, "parent_group_id"));
    }
    db_done(st);
    if (body.name.len == 0) {
        body.name = blob_str(held);
    }
    mp_find_str(p->in->args, "parent", parent, sizeof parent);
    body.parent_group_id = UUID_NIL;
    if (parent[0] == '\0' && held_parent[0] != '\0') {
        rc = uuid_parse(held_parent, &body.parent_group_id);
    } else if (strcmp(parent, "/") != 0) {
        rc = arg_group(p, "parent", &body.parent_group_id);
    }
    rc = rc != 0 ? rc : group_name(p, body.name);
    return put_or(p, rc, CMD_GROUP_MOVE, &body);
}

int op_group_delete(struct prepare *p)
{
    struct group_delete body;
    int rc = op_arg_id(p, "groups", &body.group_id);
    return put_or(p, rc, CMD_GROUP_DELETE, &body);
}
