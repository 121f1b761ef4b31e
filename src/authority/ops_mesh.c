/* Calls about the overlay's configuration. Apply checks all of it. */
#include "authority/ops_impl.h"
#include "fabric/overlay.h"

int op_mesh_set(struct prepare *p)
{
    struct mesh_set body = {.overlay = op_arg_switch(p, "overlay"),
                            .synthetic = op_arg_switch(p, "synthetic")};
    if (mp_find(p->in->args, "cut_off_after_ms").len > 0) {
        int64_t ms = mp_find_int(p->in->args, "cut_off_after_ms");
        if (fsm_level(p->a->fsm) < LEVEL_CUT_OFF) {
            return errmsg_set(p->em, -ERR_UNSUPPORTED, FSM_LEVEL_TEXT, fsm_level(p->a->fsm),
                              "--cut-off-after", LEVEL_CUT_OFF);
        }
        /* 1 is "never" in the log, 0 in a call. What is below a second is refused by apply. */
        body.cut_off_after_ms = ms == 0 ? CUT_OFF_NEVER : ms == 1 ? 2 : (uint64_t)ms;
    }
    op_put_body(p, CMD_MESH_SET, &body);
    return 0;
}

/* A node's row as it is; the command says all of it. */
struct node_mesh_row {
    char overlay[16], synthetic[16], kind[16], region[NAME_MAX_BYTES + 1];
    uint64_t bandwidth_mbps, trust;
};

static void read_node_mesh(struct prepare *p, const struct uuid *node_id, struct node_mesh_row *ret)
{
    char id[UUID_TEXT_MAX];
    uuid_format(node_id, id);
    *ret = (struct node_mesh_row){
        .overlay = "inherit", .synthetic = "inherit", .kind = "auto", .trust = TRUST_LEVEL_MAX};
    struct db_stmt *st = db_prepare(
        state_db(p->a), "SELECT overlay, synthetic, kind, coalesce(region, '') AS region,"
                        " coalesce(bandwidth_mbps, 0) AS bandwidth_mbps, trust"
                        " FROM node_mesh_settings WHERE node_id = ?");
    db_bind_text(st, id);
    if (db_step(st) == 1) {
        (void)snprintf(ret->overlay, sizeof ret->overlay, "%s", db_col_text(st, "overlay"));
        (void)snprintf(ret->synthetic, sizeof ret->synthetic, "%s", db_col_text(st, "synthetic"));
        (void)snprintf(ret->kind, sizeof ret->kind, "%s", db_col_text(st, "kind"));
        (void)snprintf(ret->region, sizeof ret->region, "%s", db_col_text(st, "region"));
        ret->bandwidth_mbps = (uint64_t)db_col_int(st, "bandwidth_mbps");
        ret->trust = (uint64_t)db_col_int(st, "trust");
    }
    db_done(st);
}

static struct blob text_or(struct prepare *p, const char *key, const char *held)
{
    struct blob v = op_arg_text(p, key);
    return v.len > 0 ? v : blob_str(held);
}

static uint64_t uint_or(struct prepare *p, const char *key, uint64_t held)
{
    return mp_find(p->in->args, key).len > 0 ? (uint64_t)mp_find_int(p->in->args, key) : held;
}

int op_node_mesh(struct prepare *p)
{
    struct node_mesh_row row;
    struct node_mesh_set body;
    int rc = op_arg_id(p, "nodes", &body.node_id);
    if (rc != 0) {
        return rc;
    }
    read_node_mesh(p, &body.node_id, &row);
    body.overlay = text_or(p, "overlay", row.overlay);
    body.synthetic = text_or(p, "synthetic", row.synthetic);
    body.kind = text_or(p, "kind", row.kind);
    body.region = text_or(p, "region", row.region);
    body.bandwidth_mbps = uint_or(p, "bandwidth_mbps", row.bandwidth_mbps);
    body.trust = uint_or(p, "trust", row.trust);
    if (blob_equal(body.region, blob_str("none"))) {
        body.region = blob_of(NULL, 0);
    }
    op_put_body(p, CMD_NODE_MESH_SET, &body);
    return p->out->body.err == 0
               ? 0
               : errmsg_set(p->em, -ERR_TOO_LARGE, "a value is longer than it may be");
}

/* --- route intents --- */

/* A selector as people write it, "kind" or "kind:what", with names made ids. */
#define SELECTOR_TEXT_MAX (ORGANIZATION_MAX_BYTES + 1 + NAME_MAX_BYTES) /* ORG/NAME */
struct selector {
    struct blob kind, ref;
    char id[UUID_TEXT_MAX]; /* what ref points to, when it was a name */
};

static int arg_selector(struct prepare *p, const char *key, struct selector *ret)
{
    struct blob text = op_arg_text(p, key);
    const uint8_t *colon = text.len == 0 ? NULL : memchr(text.data, ':', text.len);
    size_t len = colon == NULL ? text.len : (size_t)(colon - text.data);
    *ret = (struct selector){.kind = len == 0 ? blob_str("any") : blob_of(text.data, len)};
    if (colon != NULL) {
        ret->ref = blob_of(colon + 1, text.len - len - 1);
    }
    if (blob_equal(ret->kind, blob_str("org"))) {
        ret->kind = blob_str("organization");
    }
    bool resource = blob_equal(ret->kind, blob_str("resource"));
    if (ret->kind.len > 16 || ret->ref.len > (resource ? SELECTOR_TEXT_MAX : SELECTOR_REF_MAX)) {
        return errmsg_set(p->em, -ERR_TOO_LARGE, "%s: what is named is too long", key);
    }
    static const char *const named[][2] = {
        {"node", "nodes"}, {"pool", "pools"}, {"resource", "resources"}};
    const char *table = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(named); i++) {
        table = blob_equal(ret->kind, blob_str(named[i][0])) ? named[i][1] : table;
    }
    if (table == NULL || ret->ref.len == 0) {
        return 0;
    }
    char name[SELECTOR_TEXT_MAX + 1];
    struct uuid id;
    (void)snprintf(name, sizeof name, "%.*s", (int)ret->ref.len, (const char *)ret->ref.data);
    int rc = op_resolve(p->a, table, name, &id, p->em);
    if (rc == 0) {
        uuid_format(&id, ret->id);
        ret->ref = blob_str(ret->id);
    }
    return rc;
}

int op_intent_create(struct prepare *p)
{
    struct selector from;
    struct selector to;
    struct selector via;
    int rc = arg_selector(p, "from", &from);
    rc = rc != 0 ? rc : arg_selector(p, "to", &to);
    rc = rc != 0 ? rc : arg_selector(p, "via", &via);
    if (rc != 0) {
        return rc;
    }
    const struct intent_create body = {
        .intent_id = op_fresh_id(p),
        .name = op_arg_text(p, "name"),
        .policy = op_arg_text(p, "policy"),
        .source_kind = from.kind,
        .source_ref = from.ref,
        .destination_kind = to.kind,
        .destination_ref = to.ref,
        .via_kind = via.kind,
        .via_ref = via.ref,
        .qos_class = op_arg_text(p, "qos_class"),
        .organization_id = op_arg_text(p, "organization_id"),
        .service_class = op_arg_text(p, "service_class"),
    };
    bool newer = body.organization_id.len > 0 || body.service_class.len > 0;
    if (newer && fsm_level(p->a->fsm) < LEVEL_RESOURCES) {
        return errmsg_set(p->em, -ERR_UNSUPPORTED, FSM_LEVEL_TEXT, fsm_level(p->a->fsm),
                          "an intent of an organization or about a service", LEVEL_RESOURCES);
    }
    if (body.name.len > NAME_MAX_BYTES || body.policy.len > 16 || body.qos_class.len > 16 ||
        body.organization_id.len > ORGANIZATION_MAX_BYTES ||
        body.service_class.len > SERVICE_CLASS_MAX_BYTES) {
        return errmsg_set(p->em, -ERR_TOO_LARGE, "a value is longer than it may be");
    }
    op_put_body(p, CMD_INTENT_CREATE, &body);
    return 0;
}

static int intent_switch(struct prepare *p, bool disabled)
{
    struct intent_set body = {.disabled = disabled};
    int rc = op_arg_id(p, "intents", &body.intent_id);
    if (rc == 0) {
        op_put_body(p, CMD_INTENT_SET, &body);
    }
    return rc;
}

int op_intent_enable(struct prepare *p)
{
    return intent_switch(p, false);
}

int op_intent_disable(struct prepare *p)
{
    return intent_switch(p, true);
}

int op_intent_delete(struct prepare *p)
{
    struct intent_delete body;
    int rc = op_arg_id(p, "intents", &body.intent_id);
    if (rc == 0) {
        op_put_body(p, CMD_INTENT_DELETE, &body);
    }
    return rc;
}

/* --- queues --- */

/* What a class has by default is the fabric's to say (fabric/overlay.h); the command says all of it. */
int op_qos_set(struct prepare *p)
{
    struct blob name = op_arg_text(p, "id");
    uint64_t number = word_number(qos_class_names, name);
    if (number == 0) {
        return errmsg_set(p->em, -ERR_INVALID,
                          "classes: control, interactive, reliable, bulk, droppable");
    }
    struct overlay_qos d[OVERLAY_CLASSES];
    overlay_qos_default(d);
    const struct overlay_qos *q = &d[number - 1];
    struct qos_set body = {.channel_class = name,
                           .priority = q->priority,
                           .rate_kbps = q->rate_kbps,
                           .droppable = q->early,
                           .floor_permille = q->floor_permille,
                           .limit_kib = q->limit_bytes >> 10,
                           .life_ms = q->life_ms};
    struct db_stmt *st = db_prepare(
        state_db(p->a), "SELECT priority, coalesce(rate, 0) AS rate, droppable, floor_permille,"
                        " limit_kib, life_ms FROM qos_policies WHERE channel_class = ?");
    db_bind_text(st, qos_class_names[number - 1]);
    if (db_step(st) == 1) {
        body.priority = (uint64_t)db_col_int(st, "priority");
        body.rate_kbps = (uint64_t)db_col_int(st, "rate");
        body.droppable = db_col_int(st, "droppable") != 0;
        body.floor_permille = (uint64_t)db_col_int(st, "floor_permille");
        body.limit_kib = (uint64_t)db_col_int(st, "limit_kib");
        body.life_ms = (uint64_t)db_col_int(st, "life_ms");
    }
    db_done(st);
    body.priority = uint_or(p, "priority", body.priority);
    body.rate_kbps = uint_or(p, "rate_kbps", body.rate_kbps);
    body.droppable = uint_or(p, "droppable", body.droppable) != 0;
    body.floor_permille = uint_or(p, "floor_permille", body.floor_permille);
    body.limit_kib = uint_or(p, "limit_kib", body.limit_kib);
    body.life_ms = uint_or(p, "life_ms", body.life_ms);
    op_put_body(p, CMD_QOS_SET, &body);
    return 0;
}

int op_qos_reset(struct prepare *p)
{
    const struct qos_set body = {.channel_class = op_arg_text(p, "id"), .reset = true};
    if (word_number(qos_class_names, body.channel_class) == 0) {
        return errmsg_set(p->em, -ERR_INVALID,
                          "classes: control, interactive, reliable, bulk, droppable");
    }
    op_put_body(p, CMD_QOS_SET, &body);
    return 0;
}

/* --- egress pools --- */

int op_pool_create(struct prepare *p)
{
    const struct pool_create body = {.pool_id = op_fresh_id(p),
                                     .name = op_arg_text(p, "name"),
                                     .organization_id = op_arg_text(p, "organization_id")};
    if (body.name.len > NAME_MAX_BYTES || body.organization_id.len > 64) {
        return errmsg_set(p->em, -ERR_TOO_LARGE, "a value is longer than it may be");
    }
    op_put_body(p, CMD_POOL_CREATE, &body);
    return 0;
}

int op_pool_delete(struct prepare *p)
{
    struct pool_delete body;
    int rc = op_arg_id(p, "pools", &body.pool_id);
    if (rc == 0) {
        op_put_body(p, CMD_POOL_DELETE, &body);
    }
    return rc;
}

static int pool_member(struct prepare *p, bool removed)
{
    char node[128];
    struct pool_member body = {.removed = removed};
    mp_find_str(p->in->args, "node", node, sizeof node);
    int rc = op_arg_id(p, "pools", &body.pool_id);
    rc = rc != 0 ? rc : op_resolve(p->a, "nodes", node, &body.node_id, p->em);
    if (rc == 0) {
        op_put_body(p, CMD_POOL_MEMBER, &body);
    }
    return rc;
}

int op_pool_add(struct prepare *p)
{
    return pool_member(p, false);
}

int op_pool_remove(struct prepare *p)
{
    return pool_member(p, true);
}

/* --- resources --- */

static int too_long(struct prepare *p)
{
    return errmsg_set(p->em, -ERR_TOO_LARGE, "a value is longer than it may be");
}

/* Who serves it: the node or the pool that the arguments name; one of them ends the other. */
static int arg_server(struct prepare *p, struct uuid *node_id, struct uuid *pool_id)
{
    char node[128];
    char pool[128];
    mp_find_str(p->in->args, "node", node, sizeof node);
    mp_find_str(p->in->args, "pool", pool, sizeof pool);
    if (node[0] != '\0' && pool[0] != '\0') {
        return errmsg_set(p->em, -ERR_INVALID,
                          "a resource is served by a node or by a pool, not by both");
    }
    if (node[0] != '\0') {
        *pool_id = UUID_NIL;
        return op_resolve(p->a, "nodes", node, node_id, p->em);
    }
    if (pool[0] != '\0') {
        *node_id = UUID_NIL;
        return op_resolve(p->a, "pools", pool, pool_id, p->em);
    }
    return 0;
}

int op_resource_create(struct prepare *p)
{
    struct resource_create body = {.resource_id = op_fresh_id(p),
                                   .organization_id = op_arg_text(p, "organization_id"),
                                   .name = op_arg_text(p, "name"),
                                   .protocol = op_arg_text(p, "protocol"),
                                   .target_ref = op_arg_text(p, "target_ref"),
                                   .credential_ref = op_arg_text(p, "credential_ref")};
    if (body.organization_id.len > ORGANIZATION_MAX_BYTES || body.name.len > NAME_MAX_BYTES ||
        body.protocol.len > PROTOCOL_MAX_BYTES || body.target_ref.len > RESOURCE_REF_MAX_BYTES ||
        body.credential_ref.len > RESOURCE_REF_MAX_BYTES) {
        return too_long(p);
    }
    int rc = arg_server(p, &body.node_id, &body.egress_pool_id);
    if (rc == 0) {
        op_put_body(p, CMD_RESOURCE_CREATE, &body);
    }
    return rc;
}

int op_resource_set(struct prepare *p)
{
    struct resource_set body = {.protocol = {0}};
    char id[UUID_TEXT_MAX];
    char protocol[PROTOCOL_MAX_BYTES + 1];
    char target[RESOURCE_REF_MAX_BYTES + 1];
    char credential[RESOURCE_REF_MAX_BYTES + 1];
    int rc = op_arg_id(p, "resources", &body.resource_id);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(state_db(p->a),
                                    "SELECT protocol, coalesce(target_ref, '') AS target_ref,"
                                    " coalesce(node_id, '') AS node_id,"
                                    " coalesce(egress_pool_id, '') AS egress_pool_id,"
                                    " coalesce(credential_ref, '') AS credential_ref"
                                    " FROM organization_resources WHERE id = ?");
    uuid_format(&body.resource_id, id);
    db_bind_text(st, id);
    CHECK(db_step(st) == 1); /* it was found a moment ago */
    (void)snprintf(protocol, sizeof protocol, "%s", db_col_text(st, "protocol"));
    (void)snprintf(target, sizeof target, "%s", db_col_text(st, "target_ref"));
    (void)snprintf(credential, sizeof credential, "%s", db_col_text(st, "credential_ref"));
    (void)uuid_parse(db_col_text(st, "node_id"), &body.node_id);
    (void)uuid_parse(db_col_text(st, "egress_pool_id"), &body.egress_pool_id);
    db_done(st);
    body.protocol = text_or(p, "protocol", protocol);
    body.target_ref = text_or(p, "target_ref", target);
    body.credential_ref = text_or(p, "credential_ref", credential);
    if (body.protocol.len > PROTOCOL_MAX_BYTES || body.target_ref.len > RESOURCE_REF_MAX_BYTES ||
        body.credential_ref.len > RESOURCE_REF_MAX_BYTES) {
        return too_long(p);
    }
    rc = arg_server(p, &body.node_id, &body.egress_pool_id);
    if (rc == 0) {
        op_put_body(p, CMD_RESOURCE_SET, &body);
    }
    return rc;
}

int op_resource_delete(struct prepare *p)
{
    struct resource_delete body;
    int rc = op_arg_id(p, "resources", &body.resource_id);
    if (rc == 0) {
        op_put_body(p, CMD_RESOURCE_DELETE, &body);
    }
    return rc;
}
