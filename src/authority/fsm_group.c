/* Groups of nodes: nested folders, at most GROUP_DEPTH_MAX deep, a node in at most one (SPEC GRP). They
 * are for people: nothing that decides reads them, and no snapshot carries them. */
#include "authority/fsm_impl.h"

struct group {
    char id[UUID_TEXT_MAX];
    char name[NAME_MAX_BYTES + 1];
    char parent[UUID_TEXT_MAX]; /* "": at the top */
};

/* Refused with -ERR_NOT_FOUND. */
static int get_group(struct fsm_ctx *x, const char *id, struct group *ret)
{
    struct db_stmt *st = db_prepare(x->db,
                                    "SELECT name, parent_group_id FROM node_groups WHERE id = ?");
    db_bind_text(st, id);
    int rc = db_step(st);
    if (rc == 1) {
        (void)snprintf(ret->id, sizeof ret->id, "%s", id);
        (void)snprintf(ret->name, sizeof ret->name, "%s", db_col_text(st, "name"));
        (void)snprintf(ret->parent, sizeof ret->parent, "%s", db_col_text(st, "parent_group_id"));
    }
    db_done(st);
    if (rc == 0) {
        return fsm_refuse(x, -ERR_NOT_FOUND, "there is no group %s: see `rap group list`", id);
    }
    return rc < 0 ? rc : 0;
}

/* How many levels hang below a group, itself included. Levels are few: one query each. */
static int height(struct fsm_ctx *x, const char *id, int *ret)
{
    struct db_stmt *st = db_prepare(
        x->db, "WITH RECURSIVE below (id, depth) AS (SELECT ?1, 1 UNION ALL"
               " SELECT g.id, b.depth + 1 FROM node_groups g JOIN below b ON g.parent_group_id ="
               " b.id WHERE b.depth <= ?2) SELECT max(depth) AS n FROM below");
    db_bind_text(st, id);
    db_bind_int(st, GROUP_DEPTH_MAX);
    int rc = db_step(st);
    *ret = rc == 1 ? (int)db_col_int(st, "n") : 1;
    db_done(st);
    return rc < 0 ? rc : 0;
}

/* The way up from parent: not through `moving` itself, and no deeper than allowed. */
static int check_place(struct fsm_ctx *x, const char *moving, const char *parent, int below)
{
    struct group g;
    char at[UUID_TEXT_MAX];
    int depth = below;
    (void)snprintf(at, sizeof at, "%s", parent);
    for (; at[0] != '\0'; depth++) {
        if (strcmp(at, moving) == 0) {
            return fsm_refuse(x, -ERR_CONFLICT, "a group cannot be inside itself");
        }
        int rc = get_group(x, at, &g);
        if (rc != 0) {
            return rc;
        }
        (void)snprintf(at, sizeof at, "%s", g.parent);
    }
    return depth <= GROUP_DEPTH_MAX
               ? 0
               : fsm_refuse(x, -ERR_TOO_LARGE, "groups nest at most %d deep", GROUP_DEPTH_MAX);
}

static int check_name(struct fsm_ctx *x, struct blob name, const char *parent, const char *own)
{
    if (!text_is_name((const char *)name.data, name.len)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a group name is 1 to 63 of a-z, 0-9 and -, with no - at either end");
    }
    struct db_stmt *st = db_prepare(x->db,
                                    "SELECT 1 FROM node_groups WHERE coalesce(parent_group_id, '')"
                                    " = ? AND name = ? AND id <> ?");
    db_bind_text(st, parent);
    db_bind_textn(st, (const char *)name.data, name.len);
    db_bind_text(st, own);
    int rc = fsm_exists(st);
    return rc == 1 ? fsm_refuse(x, -ERR_NAME_TAKEN, "there is a group %.*s there already",
                                (int)name.len, (const char *)name.data)
                   : rc;
}

static const char *id_or_none(const struct uuid *id, char out[UUID_TEXT_MAX])
{
    out[0] = '\0';
    return uuid_is_nil(id) ? out : fsm_id(id, out);
}

static void bind_parent(struct db_stmt *st, const char *parent)
{
    if (parent[0] == '\0') {
        db_bind_null(st);
    } else {
        db_bind_text(st, parent);
    }
}

int fsm_group_create(struct fsm_ctx *x, const struct group_create *b)
{
    char id[UUID_TEXT_MAX];
    char parent[UUID_TEXT_MAX];
    int64_t count = 0;
    (void)fsm_id(&b->group_id, id);
    (void)id_or_none(&b->parent_group_id, parent);
    int rc = fsm_one_int(db_prepare(x->db, "SELECT count(*) FROM node_groups"), &count);
    if (rc < 0) {
        return rc;
    }
    if (count >= GROUPS_MAX) {
        return fsm_refuse(x, -ERR_TOO_LARGE, "there are %d groups: delete one first", GROUPS_MAX);
    }
    rc = check_place(x, id, parent, 1);
    if (rc == 0) {
        rc = check_name(x, b->name, parent, id);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(x->db, "INSERT INTO node_groups (id, cluster_id,"
                                           " parent_group_id, name, kind, created_at)"
                                           " VALUES (?, ?, ?, ?, ?, ?)");
    db_bind_text(st, id);
    db_bind_text(st, x->cluster_id);
    bind_parent(st, parent);
    db_bind_textn(st, (const char *)b->name.data, b->name.len);
    db_bind_opt(st, b->kind);
    db_bind_int(st, x->now_ms);
    rc = db_run(st);
    if (rc == 0) {
        rc = fsm_audit_simple(x, "group_created", "group", id, "name", b->name);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_GROUP " WHERE g.id = ?", id);
}

int fsm_group_move(struct fsm_ctx *x, const struct group_move *b)
{
    struct group g;
    char id[UUID_TEXT_MAX];
    char parent[UUID_TEXT_MAX];
    int below = 1;
    int rc = get_group(x, fsm_id(&b->group_id, id), &g);
    (void)id_or_none(&b->parent_group_id, parent);
    if (rc == 0) {
        rc = height(x, id, &below);
    }
    if (rc == 0) {
        rc = check_place(x, id, parent, below);
    }
    if (rc == 0) {
        rc = check_name(x, b->name, parent, id);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(x->db, "UPDATE node_groups SET parent_group_id = ?, name = ?"
                                           " WHERE id = ?");
    bind_parent(st, parent);
    db_bind_textn(st, (const char *)b->name.data, b->name.len);
    db_bind_text(st, id);
    rc = db_run(st);
    if (rc == 0) {
        struct fsm_json j;
        fsm_json_begin(&j);
        fsm_json_text(&j, "old_name", g.name);
        fsm_json_text(&j, "old_parent", g.parent);
        fsm_json_str(&j, "name", b->name);
        fsm_json_text(&j, "parent", parent);
        const struct fsm_audit a = {
            .event = "group_moved", .subject_type = "group", .subject_id = id};
        rc = fsm_audit_add(x, &a, fsm_json_end(&j));
        fsm_json_fini(&j);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_GROUP " WHERE g.id = ?", id);
}

int fsm_group_delete(struct fsm_ctx *x, const struct group_delete *b)
{
    struct group g;
    char id[UUID_TEXT_MAX];
    int64_t inside = 0;
    int rc = get_group(x, fsm_id(&b->group_id, id), &g);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "SELECT (SELECT count(*) FROM node_groups WHERE parent_group_id = ?1)"
               " + (SELECT count(*) FROM cluster_memberships WHERE group_id = ?1)");
    db_bind_text(st, id);
    rc = fsm_one_int(st, &inside);
    if (rc < 0) {
        return rc;
    }
    if (inside > 0) {
        return fsm_refuse(x, -ERR_CONFLICT,
                          "group %s is not empty: move its groups and nodes elsewhere first",
                          g.name);
    }
    rc = fsm_doc_put(x, FSM_SQL_GROUP " WHERE g.id = ?", id);
    if (rc == 0) {
        st = db_prepare(x->db, "DELETE FROM node_groups WHERE id = ?");
        db_bind_text(st, id);
        rc = db_run(st);
    }
    return rc != 0 ? rc
                   : fsm_audit_simple(x, "group_deleted", "group", id, "name", blob_str(g.name));
}

int fsm_group_assign(struct fsm_ctx *x, const struct group_assign *b)
{
    struct fsm_node n;
    struct group g = {.name = ""};
    char group[UUID_TEXT_MAX];
    int rc = fsm_node_get(x, &b->node_id, &n);
    (void)id_or_none(&b->group_id, group);
    if (rc == 0 && group[0] != '\0') {
        rc = get_group(x, group, &g);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE cluster_memberships SET group_id = ? WHERE node_id = ?");
    bind_parent(st, group);
    db_bind_text(st, n.id);
    rc = db_run(st);
    if (rc == 0) {
        rc = fsm_audit_simple(x, "node_grouped", "node", n.id, "group", blob_str(g.name));
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_MEMBERSHIP " WHERE m.node_id = ?", n.id);
}
