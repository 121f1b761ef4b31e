#include "node/route_id.h"

#include "base/clock.h"

/* How good a candidate is: what is reachable by its cost, then what may become so. */
#define COST_UNKNOWN (1ULL << 40)
#define POOL_PREFIX "pool:"
#define RESOURCE_PREFIX "resource:"

static struct route_id *find(struct node *n, const struct uuid *route)
{
    int64_t now_ms = clock_wall_ms();
    for (size_t i = 0; i < ROUTE_IDS_MAX; i++) {
        struct route_id *r = &n->routes[i];
        if (r->expires_ms > now_ms && uuid_equal(&r->id, route)) {
            return r;
        }
    }
    return NULL;
}

/* --- what a selector names --- */

static bool find_pool(const struct config *cfg, struct blob text, struct snapshot_pool *ret)
{
    const struct mp_list lists[] = {cfg->body.all_pools, cfg->body.pools};
    struct uuid id = UUID_NIL;
    char name[SELECTOR_MAX];
    (void)snprintf(name, sizeof name, "%.*s", (int)text.len, (const char *)text.data);
    (void)uuid_parse(name, &id);
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        struct config_iter it;
        config_iter_init(&it, lists[i]);
        while (config_next_pool(&it, ret) == 1) {
            if (blob_equal(ret->name, text) || uuid_equal(&ret->pool_id, &id)) {
                return true;
            }
        }
    }
    return false;
}

/* organization empty: any at all. */
static bool serves(const struct config *cfg, struct blob organization)
{
    struct config_iter it;
    struct snapshot_role role;
    config_iter_init(&it, cfg->body.roles);
    while (config_next_role(&it, &role) == 1) {
        if (role.organization_id.len > 0 &&
            (organization.len == 0 || blob_equal(role.organization_id, organization))) {
            return true;
        }
    }
    return false;
}

/* text: NAME, ORG/NAME or an id. What another organization has this node does not know, and so it cannot
 * tell whether it is there. */
static int find_resource(const struct config *cfg, const char *text, struct snapshot_resource *ret,
                         struct errmsg *em)
{
    const char *slash = strrchr(text, '/');
    struct blob organization = blob_of(text, slash == NULL ? 0 : (size_t)(slash - text));
    struct blob name = blob_str(slash == NULL ? text : slash + 1);
    struct uuid id = UUID_NIL;
    struct config_iter it;
    struct snapshot_resource r;
    unsigned found = 0;
    (void)uuid_parse(text, &id);
    if (slash != NULL && !serves(cfg, organization)) {
        return errmsg_set(em, -ERR_SCOPE, "this node does not serve organization %.*s",
                          (int)organization.len, (const char *)organization.data);
    }
    if (!serves(cfg, blob_of(NULL, 0))) {
        return errmsg_set(em, -ERR_SCOPE,
                          "this node serves no organization, and resources are an organization's: "
                          "`rap role assign N ROLE --org O`");
    }
    config_iter_init(&it, cfg->body.resources);
    while (config_next_resource(&it, &r) == 1) {
        bool same = slash == NULL || blob_equal(r.organization_id, organization);
        if ((same && blob_equal(r.name, name)) || uuid_equal(&r.resource_id, &id)) {
            *ret = r;
            found++;
        }
    }
    if (found == 0) {
        return errmsg_set(em, -ERR_NOT_FOUND,
                          "no organization of this node has a resource %s: `rap config show` lists "
                          "those there are",
                          text);
    }
    return found == 1 ? 0
                      : errmsg_set(em, -ERR_AMBIGUOUS,
                                   "%u organizations of this node have a resource %s: say "
                                   "resource:ORG/%s",
                                   found, text, text);
}

/* --- candidates --- */

/* -ERR_DENIED: no way is allowed, or not for this service. Asks the mesh for ways that it does not know. */
static int cost_to(struct node *n, const struct uuid *node_id, const char *service,
                   uint64_t *ret_us)
{
    if (n->overlay != NULL && overlay_denies(n->overlay, node_id, service)) {
        return -ERR_DENIED;
    }
    int rc = n->overlay == NULL ? -ERR_UNREACHABLE : overlay_cost(n->overlay, node_id, ret_us);
    if (rc == -ERR_UNREACHABLE) {
        *ret_us = fabric_peer_connected(n->fabric, node_id) ? COST_UNKNOWN / 2 : COST_UNKNOWN;
        rc = 0;
    }
    return rc;
}

/* Callers that know nothing of their ways spread over a pool instead of meeting at its first node. */
static uint64_t spread(const struct uuid *own, const struct uuid *other)
{
    uint64_t h = 14695981039346656037ULL; /* FNV-1a */
    for (size_t i = 0; i < sizeof own->b; i++) {
        h = (h ^ own->b[i]) * 1099511628211ULL;
        h = (h ^ other->b[i]) * 1099511628211ULL;
    }
    return h;
}

/* The best of a pool. `now`: the one in use, which stays while it is within a quarter of the best. */
static int choose(struct node *n, const struct snapshot_pool *pool, const char *service,
                  struct uuid *now, struct errmsg *em)
{
    struct mp_reader r;
    struct uuid best = UUID_NIL;
    uint64_t best_us = UINT64_MAX;
    uint64_t now_us = UINT64_MAX;
    bool denied = false;
    mp_reader_init(&r, pool->members.raw);
    for (uint32_t i = 0; i < pool->members.count; i++) {
        struct uuid id = mp_get_uuid(&r);
        uint64_t us = COST_UNKNOWN;
        if (uuid_equal(&id, &n->member->node_id)) {
            continue;
        }
        int rc = cost_to(n, &id, service, &us);
        denied = denied || rc == -ERR_DENIED;
        if (rc != 0) {
            continue;
        }
        now_us = uuid_equal(&id, now) ? us : now_us;
        bool nearer = us < best_us || (us == best_us && spread(&n->member->node_id, &id) <
                                                            spread(&n->member->node_id, &best));
        if (nearer) {
            best = id;
            best_us = us;
        }
    }
    if (uuid_is_nil(&best)) {
        return denied ? errmsg_set(em, -ERR_DENIED, "an intent of the owner allows no way to it")
                      : errmsg_set(em, -ERR_NOT_FOUND, "there is nobody else in that pool");
    }
    if (now_us == UINT64_MAX || now_us > best_us + best_us / 4) {
        *now = best;
    }
    return 0;
}

static int one_node(struct node *n, const struct uuid *node, const char *service, struct errmsg *em)
{
    uint64_t us;
    return cost_to(n, node, service, &us) == 0
               ? 0
               : errmsg_set(em, -ERR_DENIED, "an intent of the owner allows no way to it");
}

static int to_pool(struct node *n, const struct config *cfg, struct blob pool_name,
                   const char *service, struct uuid *now, struct errmsg *em)
{
    struct snapshot_pool pool;
    if (!find_pool(cfg, pool_name, &pool)) {
        return errmsg_set(
            em, -ERR_NOT_FOUND,
            "there is no pool %.*s that this node may use: `rap config show` lists those",
            (int)pool_name.len, (const char *)pool_name.data);
    }
    return choose(n, &pool, service, now, em);
}

static int to_resource(struct node *n, const struct config *cfg, const char *name,
                       const char *service, struct uuid *now, struct errmsg *em)
{
    struct snapshot_resource r;
    char pool[UUID_TEXT_MAX];
    int rc = find_resource(cfg, name, &r, em);
    if (rc != 0) {
        return rc;
    }
    if (!uuid_is_nil(&r.pool_id)) {
        uuid_format(&r.pool_id, pool);
        return to_pool(n, cfg, blob_str(pool), service, now, em);
    }
    if (uuid_is_nil(&r.node_id)) {
        return errmsg_set(
            em, -ERR_NOT_FOUND,
            "nobody serves resource %s any more: `rap resource set` names another node", name);
    }
    if (uuid_equal(&r.node_id, &n->member->node_id)) {
        return errmsg_set(em, -ERR_CONFLICT, "this node serves resource %s itself", name);
    }
    *now = r.node_id;
    return one_node(n, now, service, em);
}

/* --- public --- */

bool route_is_selector(const char *text)
{
    return strncmp(text, POOL_PREFIX, strlen(POOL_PREFIX)) == 0 ||
           strncmp(text, RESOURCE_PREFIX, strlen(RESOURCE_PREFIX)) == 0;
}

int route_choose(struct node *n, const char *selector, const char *service, struct uuid *now,
                 struct errmsg *em)
{
    const struct config *cfg = agent_snapshot(n->agent);
    size_t pool = strlen(POOL_PREFIX);
    size_t resource = strlen(RESOURCE_PREFIX);
    bool to_a_pool = strncmp(selector, POOL_PREFIX, pool) == 0 && selector[pool] != '\0';
    bool to_a_resource = strncmp(selector, RESOURCE_PREFIX, resource) == 0 &&
                         selector[resource] != '\0';
    if (strlen(selector) >= SELECTOR_MAX || (!to_a_pool && !to_a_resource)) {
        return errmsg_set(em, -ERR_INVALID,
                          "a route leads to node:ID (a whole node id), pool:NAME or resource:NAME");
    }
    if (cfg == NULL) {
        return errmsg_set(em, -ERR_NOT_FOUND, "this node has no configuration yet");
    }
    return to_a_pool ? to_pool(n, cfg, blob_str(selector + pool), service, now, em)
                     : to_resource(n, cfg, selector + resource, service, now, em);
}

/* Fills in the node that a route leads to now. */
static int aim(struct node *n, struct route_id *r, const char *service, struct errmsg *em)
{
    return r->selector[0] == '\0' ? one_node(n, &r->node, service, em)
                                  : route_choose(n, r->selector, service, &r->node, em);
}

/* An open route is to the resource that its name meant then, whatever else comes to be called so. */
static void hold_resource(struct node *n, const char *selector, char ret[SELECTOR_MAX])
{
    struct snapshot_resource r;
    char id[UUID_TEXT_MAX];
    const struct config *cfg = agent_snapshot(n->agent);
    size_t prefix = strlen(RESOURCE_PREFIX);
    if (cfg != NULL && strncmp(selector, RESOURCE_PREFIX, prefix) == 0 &&
        find_resource(cfg, selector + prefix, &r, NULL) == 0) {
        uuid_format(&r.resource_id, id);
        (void)snprintf(ret, SELECTOR_MAX, RESOURCE_PREFIX "%s", id);
    }
}

int route_id_open(struct node *n, const char *selector, struct uuid *ret_route,
                  int64_t *ret_expires_ms, struct errmsg *em)
{
    int64_t now_ms = clock_wall_ms();
    struct route_id made = {.id = uuid_new(), .expires_ms = now_ms + ROUTE_ID_LIFE_MS};
    if (strncmp(selector, "node:", 5) != 0 || uuid_parse(selector + 5, &made.node) != 0) {
        (void)snprintf(made.selector, sizeof made.selector, "%s", selector);
        hold_resource(n, selector, made.selector);
    }
    int rc = made.selector[0] == '\0' ? one_node(n, &made.node, "", em)
                                      : route_choose(n, selector, "", &made.node, em);
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < ROUTE_IDS_MAX; i++) {
        if (n->routes[i].expires_ms <= now_ms) {
            n->routes[i] = made;
            *ret_route = made.id;
            *ret_expires_ms = made.expires_ms;
            return 0;
        }
    }
    return errmsg_set(em, -ERR_BUSY, "%d routes are open: close one, or wait for one to expire",
                      ROUTE_IDS_MAX);
}

int route_id_resolve(struct node *n, const struct uuid *route, const char *service,
                     struct uuid *ret_node, struct errmsg *em)
{
    struct route_id *r = find(n, route);
    if (r == NULL) {
        return errmsg_set(em, -ERR_NOT_FOUND,
                          "no such route here, or it has expired: `rap route open` makes one");
    }
    int rc = aim(n, r, service, em);
    if (rc == 0) {
        r->expires_ms = clock_wall_ms() + ROUTE_ID_LIFE_MS;
        *ret_node = r->node;
    }
    return rc;
}

int route_id_close(struct node *n, const struct uuid *route, struct errmsg *em)
{
    struct route_id *r = find(n, route);
    if (r == NULL) {
        return errmsg_set(em, -ERR_NOT_FOUND, "no such route here, or it has expired");
    }
    *r = (struct route_id){.expires_ms = 0};
    return 0;
}
