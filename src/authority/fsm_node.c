/* Nodes after they joined: name, certificate, health, end.
 *
 *     enrolled/active --node_revoke, authority_remove--> revoked (key banned for ever)
 *     revoked --node_remove--> gone from every list (key still banned) */
#include "authority/fsm_peers.h"

int fsm_node_insert(struct fsm_ctx *x, const struct fsm_new_node *n)
{
    char fingerprint[HEX32];
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO nodes (id, name, fingerprint, enrollment_status, health_status,"
               " identity_state, facts, address)"
               " VALUES (?, ?, ?, 'enrolled', 'unknown', 'active', ?, ?)");
    db_bind_text(st, n->id);
    db_bind_textn(st, (const char *)n->name.data, n->name.len);
    db_bind_text(st, fsm_hex(n->fingerprint, fingerprint));
    db_bind_opt(st, n->facts);
    db_bind_opt(st, n->address);
    int rc = db_run(st);
    if (rc != 0) {
        return rc;
    }
    st = db_prepare(x->db, "INSERT INTO cluster_memberships (cluster_id, node_id,"
                           " membership_status, joined_at) VALUES (?, ?, 'active', ?)");
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, n->id);
    db_bind_int(st, x->now_ms);
    return db_run(st);
}

int fsm_node_config(struct fsm_ctx *x, const char *node_id)
{
    struct db_stmt *st = db_prepare(x->db, "UPDATE nodes SET config_index = ? WHERE id = ?");
    db_bind_int(st, (int64_t)x->index);
    db_bind_text(st, node_id);
    return db_run(st);
}

int fsm_node_rename(struct fsm_ctx *x, const struct node_rename *b)
{
    struct fsm_node n;
    int rc = fsm_node_get_active(x, &b->node_id, &n);
    if (rc == 0) {
        rc = fsm_name_free(x, b->name, n.id, NULL);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(x->db,
                                    "UPDATE nodes SET name = ?, config_index = ? WHERE id = ?");
    db_bind_textn(st, (const char *)b->name.data, b->name.len);
    db_bind_int(st, (int64_t)x->index);
    db_bind_text(st, n.id);
    rc = db_run(st);
    if (rc == 0) {
        /* Everybody is told the names of the authorities. */
        x->config_changed = x->config_changed || n.authority[0] != '\0';
        struct fsm_json j;
        fsm_json_begin(&j);
        fsm_json_text(&j, "old_name", n.name);
        fsm_json_str(&j, "name", b->name);
        const struct fsm_audit a = {
            .event = "node_renamed", .subject_type = "node", .subject_id = n.id};
        rc = fsm_audit_add(x, &a, fsm_json_end(&j));
        fsm_json_fini(&j);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_NODE " WHERE n.id = ?", n.id);
}

int fsm_node_revoke(struct fsm_ctx *x, const struct node_revoke *b)
{
    struct fsm_node n;
    int rc = fsm_node_get(x, &b->node_id, &n);
    if (rc != 0) {
        return rc;
    }
    if (!n.enrolled) {
        return fsm_refuse(x, -ERR_DECIDED, "node %s is revoked already", n.name);
    }
    if (n.authority[0] != '\0' && strcmp(n.authority, "removed") != 0) {
        return fsm_refuse(
            x, -ERR_CONFLICT,
            "node %s is an authority: use `rap authority remove %s`, which revokes it", n.name,
            n.name);
    }
    rc = fsm_split_holds(x, &n, b->force);
    rc = rc != 0 ? rc : fsm_node_shut_out(x, &n, b->reason);
    if (rc == 0) {
        x->config_changed = true;
        rc = fsm_audit_simple(x, "node_revoked", "node", n.id, "reason", b->reason);
    }
    if (rc == 0) {
        rc = fsm_audit_simple(x, "certificate_revoked", "node", n.id, "fingerprint",
                              blob_str(n.fingerprint));
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_NODE " WHERE n.id = ?", n.id);
}

int fsm_node_remove(struct fsm_ctx *x, const struct node_remove *b)
{
    struct fsm_node n;
    int rc = fsm_node_get(x, &b->node_id, &n);
    if (rc != 0) {
        return rc;
    }
    if (n.enrolled) {
        return fsm_refuse(x, -ERR_CONFLICT,
                          "node %s is enrolled: use `rap node revoke %s --reason TEXT` first",
                          n.name, n.name);
    }
    /* The document shows what was removed. */
    rc = fsm_doc_put(x, FSM_SQL_NODE " WHERE n.id = ?", n.id);
    static const char *const sql[] = {
        "DELETE FROM node_role_assignments WHERE node_id = ?",
        "DELETE FROM node_capabilities WHERE node_id = ?",
        "DELETE FROM node_latest_state WHERE node_id = ?",
        "DELETE FROM node_identities WHERE node_id = ?",
        "DELETE FROM cluster_memberships WHERE node_id = ?",
        "DELETE FROM nodes WHERE id = ?",
    };
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(sql); i++) {
        struct db_stmt *st = db_prepare(x->db, sql[i]);
        db_bind_text(st, n.id);
        rc = db_run(st);
    }
    if (rc == 0 && x->v->level >= LEVEL_MESH) {
        struct db_stmt *st = db_prepare(x->db, "DELETE FROM node_mesh_settings WHERE node_id = ?");
        db_bind_text(st, n.id);
        rc = db_run(st);
    }
    if (rc == 0) {
        rc = fsm_audit_simple(x, "node_removed", "node", n.id, "name", blob_str(n.name));
    }
    return rc;
}

/* --- certificate renewal --- */

static int rotate_identities(struct fsm_ctx *x, const char *node_id)
{
    struct db_stmt *st = db_prepare(x->db, "DELETE FROM node_identities WHERE node_id = ?"
                                           " AND certificate_not_after <= ?");
    db_bind_text(st, node_id);
    db_bind_int(st, x->now_ms);
    int rc = db_run(st);
    if (rc == 0) {
        st = db_prepare(x->db, "UPDATE node_identities SET identity_status = 'rotating',"
                               " rotated_at = ? WHERE node_id = ? AND identity_status = 'active'");
        db_bind_int(st, x->now_ms);
        db_bind_text(st, node_id);
        rc = db_run(st);
    }
    return rc;
}

int fsm_cert_rotate(struct fsm_ctx *x, const struct fsm_node *n, const struct cmd_cert *cert)
{
    char fingerprint[HEX32];
    if (strcmp(fsm_hex(cert->fingerprint, fingerprint), n->fingerprint) != 0) {
        return fsm_refuse(x, -ERR_FINGERPRINT,
                          "the certificate is for another key than that of node %s", n->name);
    }
    int rc = fsm_is_banned(x, n->fingerprint);
    if (rc == 1) {
        return fsm_refuse(x, -ERR_KEY_REVOKED, "the key of node %s was revoked", n->name);
    }
    if (rc == 0) {
        rc = rotate_identities(x, n->id);
    }
    if (rc == 0) {
        rc = fsm_identity_insert(x, n->id, cert);
    }
    return rc != 0 ? rc : fsm_audit_cert(x, "certificate_rotated", n->id, cert);
}

int fsm_cert_renew(struct fsm_ctx *x, const struct cert_renew *b)
{
    struct fsm_node n;
    struct cmd_cert cert;
    int rc = fsm_node_get_active(x, &b->node_id, &n);
    if (rc == 0) {
        rc = fsm_node_is_actor(x, &n);
    }
    if (rc == 0) {
        rc = fsm_cert_decode(x, b->cert, &cert);
    }
    if (rc == 0) {
        rc = fsm_cert_issuer_known(x, &cert);
    }
    if (rc == 0) {
        rc = fsm_cert_rotate(x, &n, &cert);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_RENEWED " WHERE n.id = ?", n.id);
}

/* --- health --- */

static bool health_is_known(struct blob h)
{
    static const char *const known[] = {"healthy", "degraded", "unhealthy", "stale"};
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (blob_equal(h, blob_str(known[i]))) {
            return true;
        }
    }
    return false;
}

struct reported {
    char health[16];
    char address[ADDRESS_MAX_BYTES + 1];
};

static int read_reported(struct fsm_ctx *x, const char *node_id, struct reported *ret)
{
    struct db_stmt *st = db_prepare(x->db, "SELECT health_status, address FROM nodes WHERE id = ?");
    db_bind_text(st, node_id);
    int rc = db_step(st);
    if (rc == 1) {
        (void)snprintf(ret->health, sizeof ret->health, "%s", db_col_text(st, "health_status"));
        (void)snprintf(ret->address, sizeof ret->address, "%s", db_col_text(st, "address"));
    }
    db_done(st);
    return rc < 0 ? rc : 0;
}

static int write_node(struct fsm_ctx *x, const struct node_health *b, const char *node_id)
{
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE nodes SET health_status = ?, agent_version = coalesce(?, agent_version),"
               " address = coalesce(?, address), facts = coalesce(?, facts) WHERE id = ?");
    db_bind_textn(st, (const char *)b->health.data, b->health.len);
    db_bind_opt(st, b->agent_version);
    db_bind_opt(st, b->address);
    db_bind_opt(st, b->facts);
    db_bind_text(st, node_id);
    return db_run(st);
}

static int write_seen(struct fsm_ctx *x, const struct node_health *b, const char *node_id)
{
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO node_latest_state (cluster_id, node_id, observed_at, received_at,"
               " health, version) VALUES (?, ?, ?, ?, ?, ?)"
               " ON CONFLICT (node_id) DO UPDATE SET"
               " observed_at = coalesce(excluded.observed_at, observed_at),"
               " received_at = excluded.received_at, health = excluded.health,"
               " version = coalesce(excluded.version, version)");
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, node_id);
    if (b->last_seen_ms == 0) {
        db_bind_null(st);
    } else {
        db_bind_int(st, b->last_seen_ms);
    }
    db_bind_int(st, x->now_ms);
    db_bind_textn(st, (const char *)b->health.data, b->health.len);
    db_bind_opt(st, b->agent_version);
    int rc = db_run(st);
    if (rc == 0 && b->last_seen_ms != 0) {
        st = db_prepare(x->db, "UPDATE cluster_memberships SET last_seen_at = ?1"
                               " WHERE node_id = ?2 AND coalesce(last_seen_at, 0) < ?1");
        db_bind_int(st, b->last_seen_ms);
        db_bind_text(st, node_id);
        rc = db_run(st);
    }
    return rc;
}

int fsm_note_relay(struct fsm_ctx *x, const char *node_id)
{
    if (x->v->level < LEVEL_RELAYS) {
        return 0;
    }
    struct db_stmt *st = db_prepare(
        x->db, "SELECT 1 FROM node_role_assignments WHERE node_id = ? AND status = 'active'"
               " AND role IN ('relay-node', 'core-mesh')");
    db_bind_text(st, node_id);
    int rc = fsm_exists(st);
    x->config_changed = x->config_changed || rc == 1;
    return rc < 0 ? rc : 0;
}

static int write_address(struct fsm_ctx *x, const struct node_health *b, const struct fsm_node *n)
{
    int rc = fsm_note_relay(x, n->id);
    if (rc == 0) {
        rc = fsm_peers_changed(x, n->id);
    }
    if (rc != 0) {
        return rc;
    }
    if (n->authority[0] == '\0') {
        return 0;
    }
    x->config_changed = true;
    struct db_stmt *st = db_prepare(x->db,
                                    "UPDATE cluster_authorities SET address = ? WHERE node_id = ?"
                                    " AND status <> 'removed'");
    db_bind_textn(st, (const char *)b->address.data, b->address.len);
    db_bind_text(st, n->id);
    return db_run(st);
}

static int audit_health(struct fsm_ctx *x, const struct node_health *b, const char *node_id,
                        const char *old)
{
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_text(&j, "from", old);
    fsm_json_str(&j, "to", b->health);
    const struct fsm_audit a = {
        .event = "health_changed", .subject_type = "node", .subject_id = node_id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_node_health(struct fsm_ctx *x, const struct node_health *b)
{
    struct fsm_node n;
    struct reported old = {.health = ""};
    if (!health_is_known(b->health)) {
        return fsm_refuse(x, -ERR_INVALID, "health is healthy, degraded, unhealthy or stale");
    }
    int rc = fsm_node_get_active(x, &b->node_id, &n);
    if (rc == 0) {
        rc = fsm_node_is_actor(x, &n);
    }
    if (rc == 0) {
        rc = read_reported(x, n.id, &old);
    }
    if (rc == 0) {
        rc = write_node(x, b, n.id);
    }
    if (rc == 0) {
        rc = write_seen(x, b, n.id);
    }
    bool changed = false;
    if (rc == 0 && b->capabilities.count > 0) {
        rc = fsm_capabilities_set(x, n.id, &b->capabilities, &changed);
    }
    if (rc == 0 && b->address.len > 0 && !blob_equal(b->address, blob_str(old.address))) {
        rc = write_address(x, b, &n);
    }
    if (rc == 0 && !blob_equal(b->health, blob_str(old.health))) {
        rc = audit_health(x, b, n.id, old.health);
    }
    if (rc != 0) {
        return rc;
    }
    /* Short: a thousand of these may come a minute, and results are kept for a day. */
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_str(&x->doc, &d, "id", n.id);
    mp_doc_key(&x->doc, &d, "health_status");
    mp_put_strn(&x->doc, (const char *)b->health.data, b->health.len);
    mp_doc_end(&x->doc, &d);
    return 0;
}
