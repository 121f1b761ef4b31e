/* The parts of a snapshot about the overlay: one node's peers, settings, intents and pools, and what every
 * node is told of them. What is read here moves config_index where it is written (fsm_mesh.c,
 * fsm_intent.c, fsm_pool.c, fsm_resource.c, fsm_peers.c). */
#include "authority/fsm_cut.h"

#include "authority/fsm_intent.h"
#include "authority/fsm_peers.h"

/* Whoever moves, comes or goes: fsm_peers_changed is called for the same nodes. */
static int cut_peers(struct db *state, unsigned level, const char *id, struct cut *c)
{
    struct node_ids ids;
    uint32_t count = 0;
    int rc = peers_of(state, level, id, &ids);
    for (size_t i = 0; rc == 0 && i < ids.count; i++) {
        struct db_stmt *st = db_prepare(
            state, "SELECT n.address FROM nodes n JOIN cluster_memberships m ON m.node_id = n.id"
                   " WHERE n.id = ? AND m.membership_status = 'active'"
                   " AND n.identity_state = 'active' AND coalesce(n.address, '') <> ''");
        struct snapshot_peer row;
        db_bind_text(st, ids.id[i]);
        int found = db_step(st);
        if (found == 1 && uuid_parse(ids.id[i], &row.node_id) == 0) {
            row.address = blob_str(db_col_text(st, "address"));
            msg_list_add(&snapshot_peer_desc, &row, &c->buf[CUT_PEERS], &count);
        }
        db_done(st);
        rc = found < 0 ? found : 0;
    }
    node_ids_fini(&ids);
    c->body.peers = (struct mp_list){.raw = buf_blob(&c->buf[CUT_PEERS]), .count = count};
    return rc;
}

/* "inherit" and "auto" are what is absent. */
static int cut_own_mesh(struct db *state, const char *id, struct cut *c)
{
    struct db_stmt *st = db_prepare(
        state, "SELECT iif(overlay = 'inherit', '', overlay) AS overlay,"
               " iif(synthetic = 'inherit', '', synthetic) AS synthetic,"
               " iif(kind = 'auto', '', kind) AS kind, coalesce(region, '') AS region"
               " FROM node_mesh_settings WHERE node_id = ?");
    db_bind_text(st, id);
    int rc = db_step(st);
    if (rc == 1) {
        const struct snapshot_mesh row = {
            .overlay = blob_str(db_col_text(st, "overlay")),
            .synthetic = blob_str(db_col_text(st, "synthetic")),
            .kind = blob_str(db_col_text(st, "kind")),
            .region = blob_str(db_col_text(st, "region")),
        };
        msg_encode(&snapshot_mesh_desc, &row, &c->buf[CUT_MESH]);
        c->body.mesh = buf_blob(&c->buf[CUT_MESH]);
    }
    db_done(st);
    return rc < 0 ? rc : 0;
}

static int cut_mesh(struct db *state, unsigned level, struct cut *c)
{
    struct db_stmt *st = db_prepare(
        state, level >= LEVEL_CUT_OFF
                   ? "SELECT overlay, synthetic, coalesce(cut_off_after_ms, 0) AS"
                     " cut_off_after_ms FROM mesh_settings"
                   : "SELECT overlay, synthetic, 0 AS cut_off_after_ms FROM mesh_settings");
    int rc = db_step(st);
    if (rc == 1) {
        c->body.overlay = db_col_int(st, "overlay") != 0;
        c->body.synthetic = db_col_int(st, "synthetic") != 0;
        c->body.cut_off_after_ms = (uint64_t)db_col_int(st, "cut_off_after_ms");
    }
    db_done(st);
    return rc < 0 ? rc : 0;
}

/* --- intents --- */

/* The nodes that are named: those of a pool, who serves a resource, or one. */
static int cut_destinations(struct db *state, const char *kind, const char *ref, struct buf *raw,
                            struct mp_list *ret)
{
    struct mp_writer w;
    struct db_stmt *st = db_prepare(
        state, strcmp(kind, "pool") == 0
                   ? "SELECT node_id FROM egress_pool_members WHERE pool_id = ? ORDER BY node_id"
               : strcmp(kind, "resource") == 0
                   ? "SELECT node_id FROM organization_resources WHERE id = ?1 AND node_id IS NOT"
                     " NULL UNION SELECT m.node_id FROM egress_pool_members m"
                     " JOIN organization_resources r ON r.egress_pool_id = m.pool_id"
                     " WHERE r.id = ?1 ORDER BY node_id"
                   : "SELECT id AS node_id FROM nodes WHERE id = ?");
    int rc;
    mp_writer_init(&w, raw);
    *ret = (struct mp_list){.count = 0};
    db_bind_text(st, ref);
    while ((rc = db_step(st)) == 1 && ret->count < POOL_MEMBERS_MAX) {
        struct uuid id;
        if (uuid_parse(db_col_text(st, "node_id"), &id) == 0) {
            mp_put_uuid(&w, &id);
            ret->count++;
        }
    }
    db_done(st);
    ret->raw = buf_blob(raw);
    return rc < 0 ? rc : 0;
}

static int cut_intent(struct db *state, struct db_stmt *row, struct buf *out, uint32_t *count)
{
    struct buf raw;
    char kind[17];
    char ref[SELECTOR_REF_MAX + 1];
    struct snapshot_intent m = {
        .name = blob_str(db_col_text(row, "name")),
        .policy = word_number(intent_policy_names, blob_str(db_col_text(row, "policy"))),
        .via = word_number(intent_via_names, blob_str(db_col_text(row, "via_kind"))),
        .qos_class = word_number(qos_class_names, blob_str(db_col_text(row, "qos_class"))),
        .service_class = blob_str(db_col_text(row, "service_class")),
    };
    int rc = uuid_parse(db_col_text(row, "id"), &m.intent_id);
    m.policy = m.service_class.len > 0 ? SNAPSHOT_INTENT_DENY_SERVICE : m.policy;
    if (strcmp(db_col_text(row, "via_kind"), "node") == 0 && rc == 0) {
        rc = uuid_parse(db_col_text(row, "via_ref"), &m.via_node_id);
    } else {
        m.via_region = blob_str(db_col_text(row, "via_ref"));
    }
    (void)snprintf(kind, sizeof kind, "%s", db_col_text(row, "destination_kind"));
    (void)snprintf(ref, sizeof ref, "%s", db_col_text(row, "destination_ref"));
    m.any_destination = strcmp(kind, "any") == 0;
    buf_init(&raw, POOL_MEMBERS_MAX * 32);
    if (rc == 0 && !m.any_destination) {
        rc = cut_destinations(state, kind, ref, &raw, &m.destinations);
    }
    if (rc == 0) {
        msg_list_add(&snapshot_intent_desc, &m, out, count);
    }
    buf_fini(&raw);
    return rc;
}

/* Takes over the statement. A grant of addresses is no matter of routes: it is in the list of peers. */
static int cut_intents(struct db *state, struct db_stmt *st, struct buf *out, struct mp_list *ret)
{
    uint32_t count = 0;
    int rc;
    while ((rc = db_step(st)) == 1) {
        rc = cut_intent(state, st, out, &count);
        if (rc != 0) {
            break;
        }
    }
    db_done(st);
    *ret = (struct mp_list){.raw = buf_blob(out), .count = count};
    return rc < 0 ? rc : 0;
}

/* --- queues, pools --- */

static int cut_qos(struct db *state, struct cut *c)
{
    struct db_stmt *st = db_prepare(
        state, "SELECT channel_class, priority, coalesce(rate, 0) AS rate, droppable,"
               " floor_permille, limit_kib, life_ms FROM qos_policies ORDER BY channel_class");
    uint32_t count = 0;
    int rc;
    while ((rc = db_step(st)) == 1) {
        const struct snapshot_qos m = {
            .channel_class = word_number(qos_class_names,
                                         blob_str(db_col_text(st, "channel_class"))),
            .priority = (uint64_t)db_col_int(st, "priority"),
            .rate_kbps = (uint64_t)db_col_int(st, "rate"),
            .droppable = db_col_int(st, "droppable") != 0,
            .floor_permille = (uint64_t)db_col_int(st, "floor_permille"),
            .limit_kib = (uint64_t)db_col_int(st, "limit_kib"),
            .life_ms = (uint64_t)db_col_int(st, "life_ms"),
        };
        msg_list_add(&snapshot_qos_desc, &m, &c->buf[CUT_QOS], &count);
    }
    db_done(st);
    c->body.qos = (struct mp_list){.raw = buf_blob(&c->buf[CUT_QOS]), .count = count};
    return rc;
}

/* Takes over the statement. */
static int cut_pools(struct db *state, struct db_stmt *st, struct buf *out, struct mp_list *ret)
{
    uint32_t count = 0;
    int rc;
    while ((rc = db_step(st)) == 1) {
        struct buf raw;
        struct snapshot_pool m = {.name = blob_str(db_col_text(st, "name"))};
        buf_init(&raw, POOL_MEMBERS_MAX * 32);
        rc = uuid_parse(db_col_text(st, "id"), &m.pool_id);
        if (rc == 0) {
            rc = cut_destinations(state, "pool", db_col_text(st, "id"), &raw, &m.members);
        }
        if (rc == 0) {
            msg_list_add(&snapshot_pool_desc, &m, out, &count);
        }
        buf_fini(&raw);
        if (rc != 0) {
            break;
        }
    }
    db_done(st);
    *ret = (struct mp_list){.raw = buf_blob(out), .count = count};
    return rc < 0 ? rc : 0;
}

/* Of the organizations that the node serves: nobody else hears of them. */
static int cut_resources(struct db *state, const char *id, struct cut *c)
{
    uint32_t count = 0;
    int rc;
    struct db_stmt *st = db_prepare(
        state, "SELECT r.id, r.organization_id, r.name, r.protocol,"
               " coalesce(r.node_id, '') AS node_id, coalesce(r.egress_pool_id, '') AS pool_id"
               " FROM organization_resources r WHERE r.organization_id IN"
               " (SELECT organization_id FROM node_role_assignments WHERE node_id = ?"
               "  AND status = 'active') ORDER BY r.id");
    db_bind_text(st, id);
    while ((rc = db_step(st)) == 1) {
        struct snapshot_resource m = {
            .organization_id = blob_str(db_col_text(st, "organization_id")),
            .name = blob_str(db_col_text(st, "name")),
            .protocol = blob_str(db_col_text(st, "protocol")),
        };
        if (uuid_parse(db_col_text(st, "id"), &m.resource_id) != 0) {
            rc = -ERR_CORRUPT;
            break;
        }
        (void)uuid_parse(db_col_text(st, "node_id"), &m.node_id);
        (void)uuid_parse(db_col_text(st, "pool_id"), &m.pool_id);
        msg_list_add(&snapshot_resource_desc, &m, &c->buf[CUT_RESOURCES], &count);
    }
    db_done(st);
    c->body.resources = (struct mp_list){.raw = buf_blob(&c->buf[CUT_RESOURCES]), .count = count};
    return rc;
}

int cut_node_mesh(struct db *state, unsigned level, const char *id, struct cut *c)
{
    if (level < LEVEL_MESH) {
        return 0;
    }
    int rc = cut_peers(state, level, id, c);
    rc = rc != 0 ? rc : cut_own_mesh(state, id, c);
    if (rc != 0 || level < LEVEL_INTENTS) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        state, INTENT_COLUMNS " FROM cluster_route_intents i WHERE i.status = 'active'"
                              " AND i.policy <> 'direct' AND " INTENT_CONCERNS " ORDER BY i.id");
    db_bind_text(st, id);
    rc = cut_intents(state, st, &c->buf[CUT_INTENTS], &c->body.intents);
    if (rc == 0) {
        st = db_prepare(state,
                        "SELECT p.id, p.name FROM egress_pools p WHERE p.organization_id IN"
                        " (SELECT organization_id FROM node_role_assignments WHERE node_id = ?"
                        "  AND status = 'active') ORDER BY p.id");
        db_bind_text(st, id);
        rc = cut_pools(state, st, &c->buf[CUT_POOLS], &c->body.pools);
    }
    return rc != 0 || level < LEVEL_RESOURCES ? rc : cut_resources(state, id, c);
}

int cut_cluster_mesh(struct db *state, unsigned level, struct cut *c)
{
    int rc = level >= LEVEL_MESH ? cut_mesh(state, level, c) : 0;
    if (rc != 0 || level < LEVEL_INTENTS) {
        return rc;
    }
    struct db_stmt *st = db_prepare(state, INTENT_COLUMNS
                                    " FROM cluster_route_intents i WHERE i.status = 'active'"
                                    " AND i.source_kind = 'any' ORDER BY i.id");
    rc = cut_intents(state, st, &c->buf[CUT_ALL_INTENTS], &c->body.all_intents);
    rc = rc != 0 ? rc : cut_qos(state, c);
    if (rc == 0) {
        st = db_prepare(state, "SELECT id, name FROM egress_pools WHERE organization_id IS NULL"
                               " ORDER BY id");
        rc = cut_pools(state, st, &c->buf[CUT_ALL_POOLS], &c->body.all_pools);
    }
    return rc;
}
