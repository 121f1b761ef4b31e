/* Roles (SPEC ROLE): explicit, per cluster, never above what the node reports it can do. */
#include "authority/fsm_peers.h"

static int role_checks(struct fsm_ctx *x, const struct role_assign *b, const struct fsm_node *n)
{
    int role_len = (int)b->role.len;
    const char *role = (const char *)b->role.data;
    if (!role_is_known(b->role)) {
        return fsm_refuse(x, -ERR_ROLE_UNKNOWN, "there is no role \"%.*s\"", role_len, role);
    }
    if (blob_equal(b->role, blob_str("authority"))) {
        return fsm_refuse(x, -ERR_DENIED,
                          "the role authority needs the owner's key: use `rap authority add %s`",
                          n->name);
    }
    const char *capability = role_capability(b->role);
    if (capability[0] != '\0') {
        struct db_stmt *st = db_prepare(
            x->db, "SELECT 1 FROM node_capabilities WHERE node_id = ? AND capability = ?");
        db_bind_text(st, n->id);
        db_bind_text(st, capability);
        int rc = fsm_exists(st);
        if (rc == 0) {
            return fsm_refuse(x, -ERR_CAPABILITY, "node %s does not report %s, which %.*s needs",
                              n->name, capability, role_len, role);
        }
        if (rc < 0) {
            return rc;
        }
    }
    struct db_stmt *st = db_prepare(
        x->db, "SELECT 1 FROM node_role_assignments WHERE node_id = ?1 AND role = ?2"
               " AND coalesce(organization_id, '') = ?3 AND status <> 'removed'");
    db_bind_text(st, n->id);
    db_bind_textn(st, role, b->role.len);
    db_bind_textn(st, (const char *)b->organization_id.data, b->organization_id.len);
    int rc = fsm_exists(st);
    if (rc == 1) {
        return fsm_refuse(x, -ERR_EXISTS, "node %s has the role %.*s already", n->name, role_len,
                          role);
    }
    if (rc < 0) {
        return rc;
    }
    int64_t roles = 0;
    st = db_prepare(x->db, "SELECT count(*) FROM node_role_assignments WHERE node_id = ?"
                           " AND status <> 'removed'");
    db_bind_text(st, n->id);
    rc = fsm_one_int(st, &roles);
    if (rc == 1 && roles >= ROLES_MAX) {
        return fsm_refuse(x, -ERR_TOO_LARGE, "node %s has %d roles: remove one first", n->name,
                          ROLES_MAX);
    }
    return rc < 0 ? rc : 0;
}

/* Every node is told who relays. */
static void note_relay(struct fsm_ctx *x, struct blob role)
{
    bool relays = blob_equal(role, blob_str("relay-node")) ||
                  blob_equal(role, blob_str("core-mesh"));
    x->config_changed = x->config_changed || (relays && x->v->level >= LEVEL_RELAYS);
}

static int audit_role(struct fsm_ctx *x, const char *event, const char *node_id, struct blob role,
                      struct blob organization)
{
    char org[65];
    (void)snprintf(org, sizeof org, "%.*s", (int)organization.len,
                   organization.len == 0 ? "" : (const char *)organization.data);
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_str(&j, "role", role);
    const struct fsm_audit a = {
        .event = event,
        .subject_type = "node",
        .subject_id = node_id,
        .organization_id = org[0] == '\0' ? NULL : org,
    };
    struct blob details = fsm_json_end(&j);
    int rc = PLANTED("audit_row_missing") ? 0 : fsm_audit_add(x, &a, details);
    fsm_json_fini(&j);
    return rc;
}

int fsm_role_assign(struct fsm_ctx *x, const struct role_assign *b)
{
    char id[UUID_TEXT_MAX];
    struct fsm_node n;
    int rc = fsm_node_get_active(x, &b->node_id, &n);
    if (rc == 0) {
        rc = role_checks(x, b, &n);
    }
    if (rc == 0) {
        rc = fsm_role_insert(x, fsm_id(&b->assignment_id, id), n.id, b->role, b->organization_id,
                             b->policy);
    }
    if (rc == 0) {
        rc = fsm_node_config(x, n.id);
    }
    if (rc == 0) {
        rc = fsm_peers_changed(x, n.id);
    }
    if (rc == 0) {
        note_relay(x, b->role);
        rc = audit_role(x, "role_assigned", n.id, b->role, b->organization_id);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_ROLE " WHERE a.id = ?", id);
}

int fsm_role_unassign(struct fsm_ctx *x, const struct role_unassign *b)
{
    struct fsm_node n;
    int rc = fsm_node_get(x, &b->node_id, &n);
    if (rc != 0) {
        return rc;
    }
    if (blob_equal(b->role, blob_str("authority")) && n.authority[0] != '\0' &&
        strcmp(n.authority, "removed") != 0) {
        return fsm_refuse(x, -ERR_DENIED,
                          "the role authority ends with the authority: use `rap authority remove "
                          "%s`",
                          n.name);
    }
    char id[UUID_TEXT_MAX];
    struct db_stmt *st = db_prepare(
        x->db, "SELECT id FROM node_role_assignments WHERE node_id = ?1 AND role = ?2"
               " AND coalesce(organization_id, '') = ?3 AND status <> 'removed'");
    db_bind_text(st, n.id);
    db_bind_textn(st, (const char *)b->role.data, b->role.len);
    db_bind_textn(st, (const char *)b->organization_id.data, b->organization_id.len);
    rc = db_step(st);
    (void)snprintf(id, sizeof id, "%s", rc == 1 ? db_col_text(st, "id") : "");
    db_done(st);
    if (rc == 0) {
        return fsm_refuse(x, -ERR_NOT_FOUND, "node %s has no role %.*s: see `rap role list`",
                          n.name, (int)b->role.len, (const char *)b->role.data);
    }
    rc = rc < 0 ? rc : fsm_peers_changed(x, n.id);
    if (rc != 0) {
        return rc;
    }
    st = db_prepare(x->db, "UPDATE node_role_assignments SET status = 'removed', removed_at = ?,"
                           " authority_index = ? WHERE id = ?");
    db_bind_int(st, x->now_ms);
    db_bind_int(st, (int64_t)x->index);
    db_bind_text(st, id);
    rc = db_run(st);
    if (rc == 0) {
        rc = fsm_node_config(x, n.id);
    }
    if (rc == 0) {
        note_relay(x, b->role);
        rc = audit_role(x, "role_removed", n.id, b->role, b->organization_id);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_ROLE " WHERE a.id = ?", id);
}
