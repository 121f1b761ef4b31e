#include "authority/fsm_cut.h"

#include "base/text.h"
#include "wire/cmd.h"

void cut_init(struct cut *c)
{
    *c = (struct cut){.body = {.schema = SNAPSHOT_SCHEMA}};
    for (size_t i = 0; i < CUT_BUF_COUNT; i++) {
        buf_init(&c->buf[i], SNAPSHOT_MAX_BYTES);
    }
}

void cut_fini(struct cut *c)
{
    for (size_t i = 0; i < CUT_BUF_COUNT; i++) {
        buf_fini(&c->buf[i]);
    }
}

static int finish(const struct cut *c, int rc)
{
    for (size_t i = 0; rc == 0 && i < CUT_BUF_COUNT; i++) {
        rc = c->buf[i].err;
    }
    return rc;
}

/* --- one node's part --- */

static int cut_names(struct db *state, const char *id, struct cut *c)
{
    struct db_stmt *st = db_prepare(state, "SELECT n.name, n.fingerprint, n.config_index,"
                                           " m.membership_status, m.cluster_id FROM nodes n"
                                           " JOIN cluster_memberships m ON m.node_id = n.id"
                                           " WHERE n.id = ?");
    db_bind_text(st, id);
    int rc = db_step(st);
    if (rc == 1) {
        (void)snprintf(c->node_name, sizeof c->node_name, "%s", db_col_text(st, "name"));
        (void)snprintf(c->membership, sizeof c->membership, "%s",
                       db_col_text(st, "membership_status"));
        c->config_index = (uint64_t)db_col_int(st, "config_index");
        if (hex_decode(db_col_text(st, "fingerprint"), c->fingerprint, sizeof c->fingerprint) !=
                0 ||
            uuid_parse(db_col_text(st, "cluster_id"), &c->body.cluster_id) != 0) {
            rc = -ERR_CORRUPT;
        }
    }
    db_done(st);
    return rc == 1 ? 0 : rc == 0 ? -ERR_NOT_FOUND : rc;
}

static void cut_roles(struct db *state, const char *id, struct cut *c)
{
    struct db_stmt *st = db_prepare(state,
                                    "SELECT role, coalesce(organization_id, '') AS organization_id"
                                    " FROM node_role_assignments"
                                    " WHERE node_id = ? AND status = 'active' ORDER BY id");
    db_bind_text(st, id);
    uint32_t count = 0;
    while (db_step(st) == 1) {
        struct snapshot_role row = {
            .role = blob_str(db_col_text(st, "role")),
            .organization_id = blob_str(db_col_text(st, "organization_id")),
        };
        msg_list_add(&snapshot_role_desc, &row, &c->buf[CUT_ROLES], &count);
    }
    db_done(st);
    c->body.roles = (struct mp_list){.raw = buf_blob(&c->buf[CUT_ROLES]), .count = count};
}

int cut_node(struct db *state, unsigned level, const struct uuid *node_id, struct cut *c)
{
    char id[UUID_TEXT_MAX];
    uuid_format(node_id, id);
    int rc = cut_names(state, id, c);
    if (rc != 0) {
        return rc;
    }
    if (strcmp(c->membership, "active") == 0) { /* a disabled one authorizes nothing */
        cut_roles(state, id, c);
        rc = cut_node_mesh(state, level, id, c);
    }
    if (rc != 0) {
        return rc;
    }
    struct mp_writer w;
    mp_writer_init(&w, &c->buf[CUT_SCOPES]);
    mp_put_str(&w, "node");
    c->body.node_id = *node_id;
    c->body.scopes = (struct mp_list){.raw = buf_blob(&c->buf[CUT_SCOPES]), .count = 1};
    c->body.node_name = blob_str(c->node_name);
    c->body.membership_status = blob_str(c->membership);
    return finish(c, 0);
}

/* --- every node's part --- */

static void cut_authorities(struct db *state, struct cut *c)
{
    struct db_stmt *st = db_prepare(
        state, "SELECT a.node_id, a.address, a.issuer_fingerprint, a.status, n.name"
               " FROM cluster_authorities a JOIN nodes n ON n.id = a.node_id"
               " WHERE a.status <> 'removed' ORDER BY a.node_id");
    uint32_t count = 0;
    while (db_step(st) == 1) {
        uint8_t fingerprint[PKI_HASH_BYTES];
        struct snapshot_authority row = {
            .name = blob_str(db_col_text(st, "name")),
            .address = blob_str(db_col_text(st, "address")),
            .issuer_fingerprint = blob_of(fingerprint, sizeof fingerprint),
            .status = blob_str(db_col_text(st, "status")),
        };
        if (uuid_parse(db_col_text(st, "node_id"), &row.node_id) == 0 &&
            hex_decode(db_col_text(st, "issuer_fingerprint"), fingerprint, sizeof fingerprint) ==
                0) {
            msg_list_add(&snapshot_authority_desc, &row, &c->buf[CUT_AUTHORITIES], &count);
        }
    }
    db_done(st);
    c->body.authorities = (struct mp_list){.raw = buf_blob(&c->buf[CUT_AUTHORITIES]),
                                           .count = count};
}

static struct mp_list fingerprints(struct db_stmt *st, struct buf *out)
{
    struct mp_writer w;
    uint32_t count = 0;
    mp_writer_init(&w, out);
    while (db_step(st) == 1) {
        uint8_t fingerprint[PKI_HASH_BYTES];
        if (hex_decode(db_col_text(st, "fingerprint"), fingerprint, sizeof fingerprint) == 0) {
            mp_put_bin(&w, blob_of(fingerprint, sizeof fingerprint));
            count++;
        }
    }
    db_done(st);
    return (struct mp_list){.raw = buf_blob(out), .count = count};
}

/* Banned keys whose certificates could still be valid (older ones are refused by their expiry), and
 * apart from them the CAs of removed authorities. */
static void cut_revocations(struct db *state, int64_t at_ms, struct cut *c)
{
    struct db_stmt *st = db_prepare(
        state, "SELECT fingerprint FROM banned_keys"
               " WHERE (not_after IS NULL OR not_after >= ?) AND fingerprint NOT IN"
               " (SELECT issuer_fingerprint FROM cluster_authorities)"
               " ORDER BY fingerprint");
    db_bind_int(st, at_ms);
    c->body.revocations = fingerprints(st, &c->buf[CUT_REVOCATIONS]);
    st = db_prepare(state, "SELECT issuer_fingerprint AS fingerprint FROM"
                           " cluster_authorities WHERE status = 'removed'"
                           " ORDER BY issuer_fingerprint");
    c->body.retired_issuers = fingerprints(st, &c->buf[CUT_RETIRED]);
    st = db_prepare(state, "SELECT n.fingerprint FROM nodes n JOIN cluster_memberships m"
                           " ON m.node_id = n.id WHERE m.membership_status = 'disabled'"
                           " ORDER BY n.fingerprint");
    c->body.disabled_keys = fingerprints(st, &c->buf[CUT_DISABLED]);
}

/* The rows of one node come one after the other; its roles become one entry. A node that relays for
 * everybody does not lose that by an assignment for one organization beside it. */
#define RELAYS_FROM_                                                                       \
    " FROM node_role_assignments r JOIN nodes n ON n.id = r.node_id"                       \
    " JOIN cluster_memberships m ON m.node_id = n.id"
#define RELAYS_COLUMNS_                                                                    \
    "SELECT n.id, n.address, max(r.role = 'relay-node') AS relay,"                         \
    " max(r.role = 'core-mesh') AS core,"                                                  \
    " CASE WHEN max(r.organization_id IS NULL) THEN '' ELSE min(r.organization_id) END"    \
    " AS organization_id"
#define RELAYS_WHERE_                                                                      \
    " WHERE m.membership_status = 'active' AND r.role IN ('relay-node', 'core-mesh')"      \
    " AND r.status = 'active' AND n.identity_state = 'active'"                             \
    " AND coalesce(n.address, '') <> ''"
#define RELAYS_ORDER_ " GROUP BY n.id ORDER BY n.id LIMIT ?"

static void cut_relays(struct db *state, unsigned level, struct cut *c)
{
    bool placed = level >= LEVEL_MESH;
    /* A thin node relays for nobody, whatever its roles. */
    struct db_stmt *st = db_prepare(
        state, placed ? RELAYS_COLUMNS_
                   ", coalesce(s.region, '') AS region,"
                   " coalesce(s.bandwidth_mbps, 0) AS bandwidth_mbps,"
                   " coalesce(s.trust, 100) AS trust" RELAYS_FROM_
                   " LEFT JOIN node_mesh_settings s ON s.node_id = n.id" RELAYS_WHERE_
                   " AND coalesce(s.kind, 'auto') <> 'thin'" RELAYS_ORDER_
                      : RELAYS_COLUMNS_ RELAYS_FROM_ RELAYS_WHERE_ RELAYS_ORDER_);
    db_bind_int(st, RELAYS_MAX);
    uint32_t count = 0;
    while (db_step(st) == 1) {
        struct snapshot_relay row = {
            .address = blob_str(db_col_text(st, "address")),
            .organization_id = blob_str(db_col_text(st, "organization_id")),
        };
        row.roles |= db_col_int(st, "relay") != 0 ? SNAPSHOT_RELAY_NODE : 0;
        row.roles |= db_col_int(st, "core") != 0 ? SNAPSHOT_CORE_MESH : 0;
        if (placed) {
            row.region = blob_str(db_col_text(st, "region"));
            row.bandwidth_mbps = (uint64_t)db_col_int(st, "bandwidth_mbps");
            row.distrust = TRUST_LEVEL_MAX - (uint64_t)db_col_int(st, "trust");
        }
        if (uuid_parse(db_col_text(st, "id"), &row.node_id) == 0) {
            msg_list_add(&snapshot_relay_desc, &row, &c->buf[CUT_RELAYS], &count);
        }
    }
    db_done(st);
    c->body.relays = (struct mp_list){.raw = buf_blob(&c->buf[CUT_RELAYS]), .count = count};
}

static int cut_policy(struct db *state, struct cut *c)
{
    struct db_stmt *st = db_prepare(state, "SELECT leaf_life_ms FROM clusters");
    int rc = db_step(st);
    c->body.leaf_life_ms = rc == 1 ? db_col_int(st, "leaf_life_ms") : 0;
    db_done(st);
    return rc < 0 ? rc : 0;
}

int cut_cluster(struct db *state, unsigned level, struct cut *c)
{
    /* updated_at moves with config_version: the time by which old bans are left out must not move
     * without it. */
    int64_t at_ms = 0;
    struct db_stmt *st = db_prepare(state, "SELECT name, updated_at FROM clusters");
    int rc = db_step(st);
    if (rc == 1) {
        (void)snprintf(c->cluster_name, sizeof c->cluster_name, "%s", db_col_text(st, "name"));
        at_ms = db_col_int(st, "updated_at");
    }
    db_done(st);
    if (rc != 1) {
        return rc == 0 ? -ERR_NOT_FOUND : rc;
    }
    rc = level >= LEVEL_MODEL ? cut_policy(state, c) : 0;
    if (rc != 0) {
        return rc;
    }
    cut_authorities(state, c);
    cut_revocations(state, at_ms, c);
    if (level >= LEVEL_RELAYS) {
        cut_relays(state, level, c);
    }
    rc = cut_cluster_mesh(state, level, c);
    if (rc != 0) {
        return rc;
    }
    c->body.peers_prove = level >= LEVEL_SIGNED;
    c->body.cluster_name = blob_str(c->cluster_name);
    return finish(c, 0);
}
