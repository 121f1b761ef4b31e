#include "node/route_id.h"

#include "base/clock.h"

/* How good a candidate is: what is reachable by its cost, then what may become so. */
#define COST_UNKNOWN (1ULL << 40)

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

/* --- candidates --- */

static bool find_pool(const struct config *cfg, struct blob text, struct snapshot_pool *ret)
{
    const struct mp_list lists[] = {cfg->body.all_pools, cfg->body.pools};
    struct uuid id = UUID_NIL;
    char name[NAME_MAX_BYTES + 1];
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

/* -ERR_DENIED: no way is allowed. Asks the mesh for ways that it does not know. */
static int cost_to(struct node *n, const struct uuid *node_id, uint64_t *ret_us)
{
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
static int choose(struct node *n, const struct snapshot_pool *pool, struct uuid *now,
                  struct errmsg *em)
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
        int rc = cost_to(n, &id, &us);
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

/* Fills in the node that a route leads to now. */
static int aim(struct node *n, struct route_id *r, struct errmsg *em)
{
    const struct config *cfg = agent_snapshot(n->agent);
    struct snapshot_pool pool;
    uint64_t us;
    if (r->pool[0] == '\0') {
        return cost_to(n, &r->node, &us) == 0
                   ? 0
                   : errmsg_set(em, -ERR_DENIED, "an intent of the owner allows no way to it");
    }
    if (cfg == NULL || !find_pool(cfg, blob_str(r->pool), &pool)) {
        return errmsg_set(
            em, -ERR_NOT_FOUND,
            "there is no pool %s that this node may use: `rap config show` lists those", r->pool);
    }
    return choose(n, &pool, &r->node, em);
}

/* --- public --- */

static int parse(const char *selector, struct route_id *ret, struct errmsg *em)
{
    if (strncmp(selector, "pool:", 5) == 0 && selector[5] != '\0') {
        (void)snprintf(ret->pool, sizeof ret->pool, "%s", selector + 5);
        return 0;
    }
    if (strncmp(selector, "node:", 5) == 0 && uuid_parse(selector + 5, &ret->node) == 0) {
        return 0;
    }
    return errmsg_set(em, -ERR_INVALID,
                      "a route leads to node:ID (a whole node id) or to pool:NAME");
}

int route_id_open(struct node *n, const char *selector, struct uuid *ret_route,
                  int64_t *ret_expires_ms, struct errmsg *em)
{
    int64_t now_ms = clock_wall_ms();
    struct route_id made = {.id = uuid_new(), .expires_ms = now_ms + ROUTE_ID_LIFE_MS};
    int rc = parse(selector, &made, em);
    rc = rc != 0 ? rc : aim(n, &made, em);
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

int route_id_resolve(struct node *n, const struct uuid *route, struct uuid *ret_node,
                     struct errmsg *em)
{
    struct route_id *r = find(n, route);
    if (r == NULL) {
        return errmsg_set(em, -ERR_NOT_FOUND,
                          "no such route here, or it has expired: `rap route open` makes one");
    }
    int rc = aim(n, r, em);
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
