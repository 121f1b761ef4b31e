/* What organizations have behind a node or an egress pool (SPEC RTE-03, section c): made, changed, deleted.
 * Each change is audited under its organization and moves the configuration of the nodes that serve it, of
 * those that obey an intent about it, and of no others. */
#include "authority/fsm_intent.h"
#include "authority/fsm_peers.h"

struct resource_row {
    char id[UUID_TEXT_MAX];
    char name[NAME_MAX_BYTES + 1];
    char organization[ORGANIZATION_MAX_BYTES + 1];
};

static int get_resource(struct fsm_ctx *x, const struct uuid *resource_id, struct resource_row *ret)
{
    struct db_stmt *st = db_prepare(
        x->db, "SELECT name, organization_id FROM organization_resources WHERE id = ?");
    db_bind_text(st, fsm_id(resource_id, ret->id));
    int rc = db_step(st);
    if (rc == 1) {
        (void)snprintf(ret->name, sizeof ret->name, "%s", db_col_text(st, "name"));
        (void)snprintf(ret->organization, sizeof ret->organization, "%s",
                       db_col_text(st, "organization_id"));
    }
    db_done(st);
    return rc == 0  ? fsm_refuse(x, -ERR_NOT_FOUND,
                                 "there is no resource %s: see `rap resource list`", ret->id)
           : rc < 0 ? rc
                    : 0;
}

/* --- checks --- */

/* Who is told of the resource must be told of the pool too, or it could not be reached. */
static int check_pool(struct fsm_ctx *x, const struct uuid *pool_id, const char *organization)
{
    char id[UUID_TEXT_MAX];
    char owner[ORGANIZATION_MAX_BYTES + 1] = "";
    struct db_stmt *st = db_prepare(x->db, "SELECT coalesce(organization_id, '') AS organization_id"
                                           " FROM egress_pools WHERE id = ?");
    db_bind_text(st, fsm_id(pool_id, id));
    int rc = db_step(st);
    if (rc == 1) {
        (void)snprintf(owner, sizeof owner, "%s", db_col_text(st, "organization_id"));
    }
    db_done(st);
    if (rc == 0) {
        return fsm_refuse(x, -ERR_NOT_FOUND, "there is no pool %s: see `rap pool list`", id);
    }
    if (rc == 1 && owner[0] != '\0' && strcmp(owner, organization) != 0) {
        return fsm_refuse(x, -ERR_SCOPE, "that pool is of organization %s, not of %s", owner,
                          organization);
    }
    return rc < 0 ? rc : 0;
}

static int check_server(struct fsm_ctx *x, const struct uuid *node_id, const struct uuid *pool_id,
                        const char *organization)
{
    struct fsm_node n;
    bool by_node = !uuid_is_nil(node_id);
    bool by_pool = !uuid_is_nil(pool_id);
    if (by_node == by_pool) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a resource is served by a node or by a pool: give --node or --pool");
    }
    return by_node ? fsm_node_get_active(x, node_id, &n) : check_pool(x, pool_id, organization);
}

static int check_protocol(struct fsm_ctx *x, struct blob protocol)
{
    return text_is_name((const char *)protocol.data, protocol.len)
               ? 0
               : fsm_refuse(x, -ERR_INVALID,
                            "a protocol is 1 to %d of a-z, 0-9 and -, such as rdp, vnc or ssh",
                            PROTOCOL_MAX_BYTES);
}

static int check_new(struct fsm_ctx *x, const struct resource_create *b)
{
    int64_t count = 0;
    if (!text_is_name((const char *)b->name.data, b->name.len)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a resource name is 1 to 63 of a-z, 0-9 and -, with no - at either end");
    }
    if (b->organization_id.len == 0) {
        return fsm_refuse(x, -ERR_INVALID, "whose resource is it? give --org");
    }
    struct db_stmt *st = db_prepare(x->db, "SELECT 1 FROM organization_resources"
                                           " WHERE organization_id = ? AND name = ?");
    db_bind_textn(st, (const char *)b->organization_id.data, b->organization_id.len);
    db_bind_textn(st, (const char *)b->name.data, b->name.len);
    int rc = fsm_exists(st);
    if (rc == 1) {
        return fsm_refuse(x, -ERR_NAME_TAKEN, "organization %.*s has a resource %.*s already",
                          (int)b->organization_id.len, (const char *)b->organization_id.data,
                          (int)b->name.len, (const char *)b->name.data);
    }
    rc = rc < 0 ? rc
                : fsm_one_int(db_prepare(x->db, "SELECT count(*) FROM organization_resources"),
                              &count);
    if (rc >= 0 && count >= RESOURCES_MAX) {
        return fsm_refuse(x, -ERR_TOO_LARGE, "there are %d resources: delete one first",
                          RESOURCES_MAX);
    }
    return rc < 0 ? rc : 0;
}

/* --- the commands --- */

/* text outlives the statement. */
static void bind_id(struct db_stmt *st, const struct uuid *id, char text[UUID_TEXT_MAX])
{
    db_bind_text(st, uuid_is_nil(id) ? NULL : fsm_id(id, text));
}

static int audit_resource(struct fsm_ctx *x, const char *event, const char *id)
{
    static const char *const columns[] = {"name",    "protocol",       "target_ref",
                                          "node_id", "egress_pool_id", "credential_ref"};
    char organization[ORGANIZATION_MAX_BYTES + 1] = "";
    struct fsm_json j;
    fsm_json_begin(&j);
    struct db_stmt *st = db_prepare(x->db, FSM_SQL_RESOURCE " WHERE r.id = ?");
    db_bind_text(st, id);
    int rc = db_step(st);
    for (size_t i = 0; rc == 1 && i < ARRAY_SIZE(columns); i++) {
        fsm_json_text(&j, columns[i], db_col_text(st, columns[i]));
    }
    if (rc == 1) {
        (void)snprintf(organization, sizeof organization, "%s", db_col_text(st, "organization_id"));
    }
    db_done(st);
    const struct fsm_audit a = {.event = event,
                                .subject_type = "resource",
                                .subject_id = id,
                                .organization_id = organization};
    rc = rc < 0 ? rc : fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_resource_create(struct fsm_ctx *x, const struct resource_create *b)
{
    char id[UUID_TEXT_MAX];
    char node[UUID_TEXT_MAX];
    char pool[UUID_TEXT_MAX];
    char organization[ORGANIZATION_MAX_BYTES + 1];
    int rc = check_new(x, b);
    rc = rc != 0 ? rc : check_protocol(x, b->protocol);
    if (rc != 0) {
        return rc;
    }
    (void)snprintf(organization, sizeof organization, "%.*s", (int)b->organization_id.len,
                   (const char *)b->organization_id.data);
    rc = check_server(x, &b->node_id, &b->egress_pool_id, organization);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO organization_resources (id, organization_id, cluster_id, name,"
               " protocol, target_ref, node_id, egress_pool_id, credential_ref, created_at,"
               " updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)");
    db_bind_text(st, fsm_id(&b->resource_id, id));
    db_bind_text(st, organization);
    db_bind_text(st, x->cluster_id);
    db_bind_textn(st, (const char *)b->name.data, b->name.len);
    db_bind_textn(st, (const char *)b->protocol.data, b->protocol.len);
    db_bind_opt(st, b->target_ref);
    bind_id(st, &b->node_id, node);
    bind_id(st, &b->egress_pool_id, pool);
    db_bind_opt(st, b->credential_ref);
    db_bind_int(st, x->now_ms);
    rc = db_run(st);
    rc = rc != 0 ? rc : fsm_intents_resource(x, id);
    rc = rc != 0 ? rc : audit_resource(x, "resource_created", id);
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_RESOURCE " WHERE r.id = ?", id);
}

int fsm_resource_set(struct fsm_ctx *x, const struct resource_set *b)
{
    struct resource_row row;
    char node[UUID_TEXT_MAX];
    char pool[UUID_TEXT_MAX];
    int rc = get_resource(x, &b->resource_id, &row);
    rc = rc != 0 ? rc : check_protocol(x, b->protocol);
    rc = rc != 0 ? rc : check_server(x, &b->node_id, &b->egress_pool_id, row.organization);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE organization_resources SET protocol = ?, target_ref = ?, node_id = ?,"
               " egress_pool_id = ?, credential_ref = ?, updated_at = ? WHERE id = ?");
    db_bind_textn(st, (const char *)b->protocol.data, b->protocol.len);
    db_bind_opt(st, b->target_ref);
    bind_id(st, &b->node_id, node);
    bind_id(st, &b->egress_pool_id, pool);
    db_bind_opt(st, b->credential_ref);
    db_bind_int(st, x->now_ms);
    db_bind_text(st, row.id);
    rc = db_run(st);
    rc = rc != 0 ? rc : fsm_intents_resource(x, row.id);
    rc = rc != 0 ? rc : audit_resource(x, "resource_changed", row.id);
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_RESOURCE " WHERE r.id = ?", row.id);
}

int fsm_resource_delete(struct fsm_ctx *x, const struct resource_delete *b)
{
    struct resource_row row;
    int rc = get_resource(x, &b->resource_id, &row);
    if (rc != 0) {
        return rc;
    }
    rc = fsm_intents_none_about(x, "resource", row.id, row.name);
    rc = rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_RESOURCE " WHERE r.id = ?", row.id);
    rc = rc != 0 ? rc : fsm_intents_resource(x, row.id);
    rc = rc != 0 ? rc : audit_resource(x, "resource_deleted", row.id);
    if (rc == 0) {
        struct db_stmt *st = db_prepare(x->db, "DELETE FROM organization_resources WHERE id = ?");
        db_bind_text(st, row.id);
        rc = db_run(st);
    }
    return rc;
}

int fsm_resource_forget_node(struct fsm_ctx *x, const char *node_id)
{
    struct node_ids resources = {0};
    struct db_stmt *st = db_prepare(x->db, "SELECT id FROM organization_resources"
                                           " WHERE node_id = ? ORDER BY id");
    db_bind_text(st, node_id);
    int rc = node_ids_read(st, "id", &resources);
    for (size_t i = 0; rc == 0 && i < resources.count; i++) {
        st = db_prepare(x->db, "UPDATE organization_resources SET node_id = NULL, updated_at = ?"
                               " WHERE id = ?");
        db_bind_int(st, x->now_ms);
        db_bind_text(st, resources.id[i]);
        rc = db_run(st);
        rc = rc != 0 ? rc : fsm_intents_resource(x, resources.id[i]);
    }
    node_ids_fini(&resources);
    return rc;
}
