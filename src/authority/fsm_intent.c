/* Route intents: created, switched, deleted (SPEC RTE-09). Each change is audited and moves the
 * configuration of the nodes that obey it, and of no others. */
#include "authority/fsm_intent.h"

#include "authority/fsm_peers.h"

/* --- whom it concerns --- */

int fsm_selector_config(struct fsm_ctx *x, const char *kind, const char *ref)
{
    static const struct {
        const char *kind, *sql;
    } selectors[] = {
        {"node", "SELECT id AS node_id FROM nodes WHERE id = ?"},
        {"role", "SELECT DISTINCT node_id FROM node_role_assignments WHERE role = ?"
                 " AND status = 'active'"},
        {"region", "SELECT node_id FROM node_mesh_settings WHERE region = ?"},
        {"organization", "SELECT DISTINCT node_id FROM node_role_assignments"
                         " WHERE organization_id = ? AND status = 'active'"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(selectors); i++) {
        if (strcmp(selectors[i].kind, kind) == 0) {
            struct db_stmt *st = db_prepare(x->db, selectors[i].sql);
            db_bind_text(st, ref);
            return fsm_nodes_config(x, st);
        }
    }
    x->config_changed = true;
    return 0;
}

/* The sources of intents that a statement yields; it is read to its end first, for their configuration
 * is a row of what it may be reading. Takes over the statement. */
static int config_of_sources(struct fsm_ctx *x, struct db_stmt *st)
{
    struct source {
        char kind[17], ref[SELECTOR_REF_MAX + 1];
    } *all = NULL;
    size_t count = 0;
    int rc;
    while ((rc = db_step(st)) == 1) {
        all = xrealloc(all, (count + 1) * sizeof *all);
        (void)snprintf(all[count].kind, sizeof all[count].kind, "%s",
                       db_col_text(st, "source_kind"));
        (void)snprintf(all[count].ref, sizeof all[count].ref, "%s", db_col_text(st, "source_ref"));
        count++;
    }
    db_done(st);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = fsm_selector_config(x, all[i].kind, all[i].ref);
    }
    free(all);
    return rc;
}

/* Who is told of a resource at all is told by its organization; of its pool, by the pool's. */
#define RESOURCE_OF_POOL                                                                      \
    " UNION ALL SELECT i.source_kind, i.source_ref FROM cluster_route_intents i"               \
    " WHERE i.status = 'active' AND i.destination_kind = 'resource' AND i.destination_ref IN"  \
    " (SELECT id FROM organization_resources WHERE egress_pool_id = ?1)"

int fsm_intents_pool(struct fsm_ctx *x, const char *pool_id)
{
#define INTENTS_OF_POOL                                                                        \
    "SELECT i.source_kind, i.source_ref FROM cluster_route_intents i"                          \
    " WHERE i.status = 'active' AND i.destination_kind = 'pool'"                               \
    " AND i.destination_ref = ?1 UNION ALL SELECT CASE WHEN p.organization_id IS NULL"         \
    " THEN 'any' ELSE 'organization' END, p.organization_id FROM egress_pools p"               \
    " WHERE p.id = ?1"
    struct db_stmt *st = db_prepare(x->db, x->v->level >= LEVEL_RESOURCES
                                               ? INTENTS_OF_POOL RESOURCE_OF_POOL " ORDER BY 1, 2"
                                               : INTENTS_OF_POOL " ORDER BY 1, 2");
    db_bind_text(st, pool_id);
    return config_of_sources(x, st);
}

int fsm_intents_resource(struct fsm_ctx *x, const char *resource_id)
{
    struct db_stmt *st = db_prepare(
        x->db, "SELECT i.source_kind, i.source_ref FROM cluster_route_intents i"
               " WHERE i.status = 'active' AND i.destination_kind = 'resource'"
               " AND i.destination_ref = ?1 UNION ALL SELECT 'organization', r.organization_id"
               " FROM organization_resources r WHERE r.id = ?1 ORDER BY 1, 2");
    db_bind_text(st, resource_id);
    return config_of_sources(x, st);
}

int fsm_intents_grant(struct fsm_ctx *x, const char *node_id)
{
#define INTENTS_GRANT                                                                          \
    "SELECT i.id, i.source_kind, i.source_ref FROM cluster_route_intents i"                    \
    " WHERE i.status = 'active' AND i.policy = 'direct' AND"                                   \
    " ((i.destination_kind = 'node' AND i.destination_ref = ?1) OR"                            \
    "  (i.destination_kind = 'pool' AND i.destination_ref IN"                                  \
    "   (SELECT pool_id FROM egress_pool_members WHERE node_id = ?1)))"
#define INTENTS_GRANT_RESOURCE                                                                 \
    " UNION ALL SELECT i.id, i.source_kind, i.source_ref FROM cluster_route_intents i"         \
    " WHERE i.status = 'active' AND i.policy = 'direct' AND i.destination_kind = 'resource'"   \
    " AND i.destination_ref IN (SELECT r.id FROM organization_resources r WHERE r.node_id = ?1" \
    " OR r.egress_pool_id IN (SELECT pool_id FROM egress_pool_members WHERE node_id = ?1))"
    struct db_stmt *st = db_prepare(x->db, x->v->level >= LEVEL_RESOURCES
                                               ? INTENTS_GRANT INTENTS_GRANT_RESOURCE " ORDER BY 1"
                                               : INTENTS_GRANT " ORDER BY 1");
    db_bind_text(st, node_id);
    return config_of_sources(x, st);
}

/* --- checks --- */

static bool is_one_of(struct blob word, const char *const *words)
{
    return word_number(words, word) != 0;
}

static int count_rows(struct fsm_ctx *x, const char *sql, struct blob arg)
{
    struct db_stmt *st = db_prepare(x->db, sql);
    db_bind_textn(st, (const char *)arg.data, arg.len);
    return fsm_exists(st);
}

/* A selector's ref is there exactly when its kind needs one, and names something. */
static int check_selector(struct fsm_ctx *x, const char *what, struct blob kind, struct blob ref)
{
    bool bare = blob_equal(kind, blob_str("any")) || blob_equal(kind, blob_str("direct"));
    if (bare != (ref.len == 0)) {
        return fsm_refuse(x, -ERR_INVALID, "%s: %.*s %s", what, (int)kind.len,
                          (const char *)kind.data,
                          bare ? "stands alone" : "needs what it is about, as in kind:NAME");
    }
    int rc = 1;
    if (blob_equal(kind, blob_str("node"))) {
        rc = count_rows(x, "SELECT 1 FROM nodes WHERE id = ?", ref);
    } else if (blob_equal(kind, blob_str("pool"))) {
        rc = count_rows(x, "SELECT 1 FROM egress_pools WHERE id = ?", ref);
    } else if (blob_equal(kind, blob_str("resource")) && x->v->level >= LEVEL_RESOURCES) {
        rc = count_rows(x, "SELECT 1 FROM organization_resources WHERE id = ?", ref);
    } else if (blob_equal(kind, blob_str("role"))) {
        rc = role_is_known(ref);
    }
    return rc == 0 ? fsm_refuse(x, -ERR_NOT_FOUND, "%s: there is no %.*s %.*s", what, (int)kind.len,
                                (const char *)kind.data, (int)ref.len, (const char *)ref.data)
           : rc < 0 ? rc
                    : 0;
}

static int check_meaning(struct fsm_ctx *x, const struct intent_create *b)
{
    bool via_any = blob_equal(b->via_kind, blob_str("any"));
    bool to_any = blob_equal(b->destination_kind, blob_str("any"));
    bool from_any = blob_equal(b->source_kind, blob_str("any"));
    if (blob_equal(b->policy, blob_str("direct"))) {
        return to_any || from_any || !via_any || b->qos_class.len > 0
                   ? fsm_refuse(x, -ERR_INVALID,
                                "direct tells some nodes the addresses of others: it needs --from "
                                "and --to narrower than any, and neither --via nor --qos")
                   : 0;
    }
    if (via_any && !blob_equal(b->policy, blob_str("deny")) && b->qos_class.len == 0) {
        return fsm_refuse(x, -ERR_INVALID,
                          "%.*s needs --via direct, node:N or region:R (or --qos, to say only how "
                          "the traffic is treated)",
                          (int)b->policy.len, (const char *)b->policy.data);
    }
    if (b->qos_class.len > 0 && (!is_one_of(b->qos_class, qos_class_names) ||
                                 blob_equal(b->qos_class, blob_str("control")))) {
        return fsm_refuse(x, -ERR_INVALID, "a class is interactive, reliable, bulk or droppable");
    }
    return 0;
}

/* Sessions between two nodes share one way, whatever goes over them: a service has none of its own to
 * prefer. It can be refused. */
static int check_service(struct fsm_ctx *x, const struct intent_create *b)
{
    if (b->service_class.len == 0) {
        return 0;
    }
    if (!is_one_of(b->service_class, service_class_names)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a service is synthetic, remote_workspace or vpn_packet");
    }
    if (!blob_equal(b->policy, blob_str("deny")) || !blob_equal(b->via_kind, blob_str("any")) ||
        b->qos_class.len > 0) {
        return fsm_refuse(x, -ERR_INVALID,
                          "an intent about a service denies it, without --via and --qos: what goes "
                          "between two nodes shares one way");
    }
    return 0;
}

/* The organization that owns the destination; "": everybody may use it. */
static int organization_of(struct fsm_ctx *x, const struct intent_create *b,
                           char ret[ORGANIZATION_MAX_BYTES + 1])
{
    ret[0] = '\0';
    bool pool = blob_equal(b->destination_kind, blob_str("pool"));
    if (!pool && !blob_equal(b->destination_kind, blob_str("resource"))) {
        return 0;
    }
    struct db_stmt *st = db_prepare(
        x->db, pool ? "SELECT organization_id FROM egress_pools WHERE id = ?"
                    : "SELECT organization_id FROM organization_resources WHERE id = ?");
    db_bind_textn(st, (const char *)b->destination_ref.data, b->destination_ref.len);
    int rc = db_step(st);
    if (rc == 1) {
        (void)snprintf(ret, ORGANIZATION_MAX_BYTES + 1, "%s", db_col_text(st, "organization_id"));
    }
    db_done(st);
    return rc < 0 ? rc : 0;
}

/* An intent about an organization's resource is that organization's. */
static int check_organization(struct fsm_ctx *x, const struct intent_create *b,
                              char ret[ORGANIZATION_MAX_BYTES + 1])
{
    char owner[ORGANIZATION_MAX_BYTES + 1];
    int rc = organization_of(x, b, owner);
    (void)snprintf(ret, ORGANIZATION_MAX_BYTES + 1, "%.*s", (int)b->organization_id.len,
                   b->organization_id.len == 0 ? "" : (const char *)b->organization_id.data);
    if (rc == 0 && ret[0] != '\0' && owner[0] != '\0' && strcmp(ret, owner) != 0) {
        return fsm_refuse(x, -ERR_SCOPE, "what --to names is of organization %s, not of %s", owner,
                          ret);
    }
    if (blob_equal(b->destination_kind, blob_str("resource"))) {
        (void)snprintf(ret, ORGANIZATION_MAX_BYTES + 1, "%s", owner);
    }
    return rc;
}

static int check_kinds(struct fsm_ctx *x, const struct intent_create *b)
{
    static const char *const sources[] = {"any", "node", "role", "region", "organization", NULL};
    static const char *const destinations[] = {"any", "node", "pool", "resource", NULL};
    bool newer = b->organization_id.len > 0 || b->service_class.len > 0 ||
                 blob_equal(b->destination_kind, blob_str("resource"));
    if (!text_is_name((const char *)b->name.data, b->name.len)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a name is 1 to 63 of a-z, 0-9 and -, with no - at either end");
    }
    if (newer && x->v->level < LEVEL_RESOURCES) {
        return fsm_refuse(x, -ERR_UNSUPPORTED, FSM_LEVEL_TEXT, x->v->level,
                          "an intent about a resource, an organization or a service",
                          LEVEL_RESOURCES);
    }
    if (!is_one_of(b->policy, intent_policy_names) || !is_one_of(b->source_kind, sources) ||
        !is_one_of(b->destination_kind, destinations) ||
        !is_one_of(b->via_kind, intent_via_names)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "policies: prefer, avoid, require, deny, direct; from: any, node:N, "
                          "role:R, region:R, organization:O; to: any, node:N, pool:P, resource:R; "
                          "via: any, direct, node:N, region:R");
    }
    return 0;
}

static int check_intent(struct fsm_ctx *x, const struct intent_create *b)
{
    int64_t count = 0;
    int rc = check_kinds(x, b);
    rc = rc != 0 ? rc : check_selector(x, "from", b->source_kind, b->source_ref);
    rc = rc != 0 ? rc : check_selector(x, "to", b->destination_kind, b->destination_ref);
    rc = rc != 0 ? rc : check_selector(x, "via", b->via_kind, b->via_ref);
    rc = rc != 0 ? rc : check_service(x, b);
    rc = rc != 0 ? rc : check_meaning(x, b);
    if (rc == 0) {
        rc = count_rows(x, "SELECT 1 FROM cluster_route_intents WHERE name = ?", b->name);
        rc = rc == 1 ? fsm_refuse(x, -ERR_NAME_TAKEN, "there is an intent %.*s already",
                                  (int)b->name.len, (const char *)b->name.data)
                     : rc;
    }
    if (rc == 0) {
        rc = fsm_one_int(db_prepare(x->db, "SELECT count(*) FROM cluster_route_intents"), &count);
        rc = rc < 0 ? rc : 0;
    }
    if (rc == 0 && count >= INTENTS_MAX) {
        rc = fsm_refuse(x, -ERR_TOO_LARGE, "there are %d intents: delete one first", INTENTS_MAX);
    }
    return rc;
}

/* --- the commands --- */

struct intent_row {
    char id[UUID_TEXT_MAX];
    char name[NAME_MAX_BYTES + 1];
    char policy[17], status[17];
    char source_kind[17], source_ref[SELECTOR_REF_MAX + 1];
};

static int get_intent(struct fsm_ctx *x, const struct uuid *intent_id, struct intent_row *ret)
{
    struct db_stmt *st = db_prepare(x->db, INTENT_COLUMNS
                                    ", i.status FROM cluster_route_intents i WHERE i.id = ?");
    db_bind_text(st, fsm_id(intent_id, ret->id));
    int rc = db_step(st);
    if (rc == 1) {
        (void)snprintf(ret->name, sizeof ret->name, "%s", db_col_text(st, "name"));
        (void)snprintf(ret->policy, sizeof ret->policy, "%s", db_col_text(st, "policy"));
        (void)snprintf(ret->status, sizeof ret->status, "%s", db_col_text(st, "status"));
        (void)snprintf(ret->source_kind, sizeof ret->source_kind, "%s",
                       db_col_text(st, "source_kind"));
        (void)snprintf(ret->source_ref, sizeof ret->source_ref, "%s",
                       db_col_text(st, "source_ref"));
    }
    db_done(st);
    return rc == 0  ? fsm_refuse(x, -ERR_NOT_FOUND, "there is no intent %s: see `rap intent list`",
                                 ret->id)
           : rc < 0 ? rc
                    : 0;
}

static int audit_intent(struct fsm_ctx *x, const char *event, const char *id)
{
    struct db_stmt *st = db_prepare(x->db,
                                    INTENT_COLUMNS " FROM cluster_route_intents i WHERE i.id = ?");
    static const char *const columns[] = {"name",       "policy",           "source_kind",
                                          "source_ref", "destination_kind", "destination_ref",
                                          "via_kind",   "via_ref",          "qos_class"};
    char organization[ORGANIZATION_MAX_BYTES + 1];
    struct fsm_json j;
    fsm_json_begin(&j);
    db_bind_text(st, id);
    int rc = db_step(st);
    for (size_t i = 0; rc == 1 && i < ARRAY_SIZE(columns); i++) {
        fsm_json_text(&j, columns[i], db_col_text(st, columns[i]));
    }
    if (rc == 1 && db_col_text(st, "service_class")[0] != '\0') { /* from LEVEL_RESOURCES on */
        fsm_json_text(&j, "service_class", db_col_text(st, "service_class"));
    }
    (void)snprintf(organization, sizeof organization, "%s",
                   rc == 1 ? db_col_text(st, "organization_id") : "");
    db_done(st);
    const struct fsm_audit a = {.event = event,
                                .subject_type = "intent",
                                .subject_id = id,
                                .organization_id = organization[0] == '\0' ? NULL : organization};
    rc = rc < 0 ? rc : fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

static int put_intent(struct fsm_ctx *x, const char *id)
{
    return fsm_doc_put(x,
                       x->v->level >= LEVEL_RESOURCES ? FSM_SQL_INTENT " WHERE i.id = ?"
                                                      : FSM_SQL_INTENT_BARE " WHERE i.id = ?",
                       id);
}

int fsm_intent_create(struct fsm_ctx *x, const struct intent_create *b)
{
    char id[UUID_TEXT_MAX];
    char organization[ORGANIZATION_MAX_BYTES + 1];
    struct intent_row row;
    int rc = check_intent(x, b);
    rc = rc != 0 ? rc : check_organization(x, b, organization);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO cluster_route_intents (id, cluster_id, name, source_kind, source_ref,"
               " destination_kind, destination_ref, policy, via_kind, via_ref, qos_class,"
               " service_class, organization_id, status, created_at, updated_at)"
               " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 'active', ?14,"
               " ?14)");
    db_bind_text(st, fsm_id(&b->intent_id, id));
    db_bind_text(st, x->cluster_id);
    /* Of all nodes those that serve its organization obey: to them alone it is told. */
    bool narrowed = organization[0] != '\0' && blob_equal(b->source_kind, blob_str("any"));
    const struct blob values[] = {
        b->name,
        narrowed ? blob_str("organization") : b->source_kind,
        narrowed ? blob_str(organization) : b->source_ref,
        b->destination_kind,
        b->destination_ref,
        b->policy,
        b->via_kind,
        b->via_ref,
        b->qos_class,
        b->service_class,
        blob_str(organization),
    };
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        db_bind_opt(st, values[i]);
    }
    db_bind_int(st, x->now_ms);
    rc = db_run(st);
    rc = rc != 0 ? rc : get_intent(x, &b->intent_id, &row);
    rc = rc != 0 ? rc : fsm_selector_config(x, row.source_kind, row.source_ref);
    rc = rc != 0 ? rc : audit_intent(x, "route_intent_created", id);
    return rc != 0 ? rc : put_intent(x, id);
}

int fsm_intents_none_about(struct fsm_ctx *x, const char *kind, const char *id, const char *name)
{
    struct db_stmt *st = db_prepare(x->db, "SELECT 1 FROM cluster_route_intents"
                                           " WHERE destination_kind = ? AND destination_ref = ?");
    db_bind_text(st, kind);
    db_bind_text(st, id);
    int rc = fsm_exists(st);
    return rc == 1
               ? fsm_refuse(x, -ERR_CONFLICT,
                            "an intent is about %s %s: `rap intent delete` it first", kind, name)
               : rc;
}

int fsm_intent_set(struct fsm_ctx *x, const struct intent_set *b)
{
    struct intent_row row;
    int rc = get_intent(x, &b->intent_id, &row);
    if (rc == 0 && (strcmp(row.status, "disabled") == 0) == b->disabled) {
        rc = fsm_refuse(x, -ERR_DECIDED, "intent %s is %s already", row.name, row.status);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(x->db, "UPDATE cluster_route_intents SET status = ?,"
                                           " updated_at = ? WHERE id = ?");
    db_bind_text(st, b->disabled ? "disabled" : "active");
    db_bind_int(st, x->now_ms);
    db_bind_text(st, row.id);
    rc = db_run(st);
    rc = rc != 0 ? rc : fsm_selector_config(x, row.source_kind, row.source_ref);
    rc = rc != 0 ? rc
                 : audit_intent(x, b->disabled ? "route_intent_disabled" : "route_intent_enabled",
                                row.id);
    return rc != 0 ? rc : put_intent(x, row.id);
}

int fsm_intent_delete(struct fsm_ctx *x, const struct intent_delete *b)
{
    struct intent_row row;
    int rc = get_intent(x, &b->intent_id, &row);
    rc = rc != 0 ? rc : put_intent(x, row.id);
    rc = rc != 0 ? rc : fsm_selector_config(x, row.source_kind, row.source_ref);
    rc = rc != 0 ? rc : audit_intent(x, "route_intent_deleted", row.id);
    if (rc == 0) {
        struct db_stmt *st = db_prepare(x->db, "DELETE FROM cluster_route_intents WHERE id = ?");
        db_bind_text(st, row.id);
        rc = db_run(st);
    }
    return rc;
}
