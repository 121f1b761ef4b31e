/* What the owner configures of the overlay (SPEC RTE-04, PEER-02, PEER-03, SYN-01). */
#include "authority/fsm_impl.h"

#include "authority/fsm_peers.h"

static int mesh_doc(struct fsm_ctx *x)
{
    struct db_stmt *st = db_prepare(x->db, x->v->level >= LEVEL_CUT_OFF ? FSM_SQL_MESH
                                                                        : FSM_SQL_MESH_BEFORE);
    int rc = db_step(st);
    if (rc == 1) {
        fsm_doc_row(st, &x->doc);
    }
    db_done(st);
    CHECK(rc != 0);
    return rc < 0 ? rc : 0;
}

static const char *switch_text(uint64_t v)
{
    return v == SWITCH_ON ? "on" : v == SWITCH_OFF ? "off" : "";
}

static int check_cut_off(struct fsm_ctx *x, uint64_t ms)
{
    if (ms == 0 || ms == CUT_OFF_NEVER) {
        return 0;
    }
    return ms >= CUT_OFF_MS_MIN && ms <= CUT_OFF_MS_MAX
               ? 0
               : fsm_refuse(x, -ERR_INVALID, "--cut-off-after is 1s to 168h, or never");
}

/* After the row is there. 0: as it was. */
static int set_cut_off(struct fsm_ctx *x, uint64_t ms)
{
    if (ms == 0) {
        return 0;
    }
    struct db_stmt *st = db_prepare(x->db,
                                    "UPDATE mesh_settings SET cut_off_after_ms = nullif(?, 0)");
    db_bind_int(st, ms == CUT_OFF_NEVER ? 0 : (int64_t)ms);
    return db_run(st);
}

int fsm_mesh_set(struct fsm_ctx *x, const struct mesh_set *b)
{
    if (b->overlay > SWITCH_ON || b->synthetic > SWITCH_ON) {
        return fsm_refuse(x, -ERR_INVALID, "a switch is on or off");
    }
    if (b->overlay == SWITCH_KEEP && b->synthetic == SWITCH_KEEP && b->cut_off_after_ms == 0) {
        return fsm_refuse(x, -ERR_INVALID,
                          "nothing to set: give --overlay, --synthetic or --cut-off-after");
    }
    if (b->cut_off_after_ms != 0 && x->v->level < LEVEL_CUT_OFF) {
        return fsm_refuse(x, -ERR_UNSUPPORTED, FSM_LEVEL_TEXT, x->v->level, "--cut-off-after",
                          LEVEL_CUT_OFF);
    }
    int unfit = check_cut_off(x, b->cut_off_after_ms);
    if (unfit != 0) {
        return unfit;
    }
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO mesh_settings (cluster_id, overlay, synthetic, updated_at)"
               " VALUES (?1, coalesce(?2, 0), coalesce(?3, 0), ?4) ON CONFLICT DO UPDATE SET"
               " overlay = coalesce(?2, overlay), synthetic = coalesce(?3, synthetic),"
               " updated_at = ?4");
    db_bind_text(st, x->cluster_id);
    const uint64_t switches[] = {b->overlay, b->synthetic};
    for (size_t i = 0; i < ARRAY_SIZE(switches); i++) {
        if (switches[i] == SWITCH_KEEP) {
            db_bind_null(st);
        } else {
            db_bind_int(st, switches[i] == SWITCH_ON);
        }
    }
    db_bind_int(st, x->now_ms);
    int rc = db_run(st);
    rc = rc == 0 ? set_cut_off(x, b->cut_off_after_ms) : rc;
    if (rc == 0) {
        struct fsm_json j;
        x->config_changed = true;
        fsm_json_begin(&j);
        fsm_json_text(&j, "overlay", switch_text(b->overlay));
        fsm_json_text(&j, "synthetic", switch_text(b->synthetic));
        if (b->cut_off_after_ms != 0) {
            fsm_json_int(&j, "cut_off_after_ms",
                         b->cut_off_after_ms == CUT_OFF_NEVER ? 0 : (int64_t)b->cut_off_after_ms);
        }
        const struct fsm_audit a = {
            .event = "mesh_configured", .subject_type = "cluster", .subject_id = x->cluster_id};
        rc = fsm_audit_add(x, &a, fsm_json_end(&j));
        fsm_json_fini(&j);
    }
    return rc != 0 ? rc : mesh_doc(x);
}

static bool is_inheritable(struct blob v)
{
    return blob_equal(v, blob_str("inherit")) || blob_equal(v, blob_str("on")) ||
           blob_equal(v, blob_str("off"));
}

static int check_node_mesh(struct fsm_ctx *x, const struct node_mesh_set *b)
{
    if (!is_inheritable(b->overlay) || !is_inheritable(b->synthetic)) {
        return fsm_refuse(x, -ERR_INVALID, "overlay and synthetic are on, off or inherit");
    }
    if (!mesh_kind_is_known(b->kind)) {
        return fsm_refuse(x, -ERR_INVALID, "kind is auto, thin, normal or core");
    }
    if (b->region.len > 0 && !text_is_name((const char *)b->region.data, b->region.len)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a region is 1 to 63 of a-z, 0-9 and -, with no - at either end");
    }
    if (b->bandwidth_mbps > BANDWIDTH_MBPS_MAX || b->trust > TRUST_LEVEL_MAX) {
        return fsm_refuse(x, -ERR_INVALID, "bandwidth is at most %u Mbit/s, trust 0 to %u",
                          BANDWIDTH_MBPS_MAX, TRUST_LEVEL_MAX);
    }
    return 0;
}

static int audit_node_mesh(struct fsm_ctx *x, const struct node_mesh_set *b, const char *node_id)
{
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_str(&j, "overlay", b->overlay);
    fsm_json_str(&j, "synthetic", b->synthetic);
    fsm_json_str(&j, "kind", b->kind);
    fsm_json_str(&j, "region", b->region);
    fsm_json_int(&j, "bandwidth_mbps", (int64_t)b->bandwidth_mbps);
    fsm_json_int(&j, "trust", (int64_t)b->trust);
    const struct fsm_audit a = {
        .event = "node_mesh_configured", .subject_type = "node", .subject_id = node_id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_node_mesh_set(struct fsm_ctx *x, const struct node_mesh_set *b)
{
    struct fsm_node n;
    int rc = fsm_node_get(x, &b->node_id, &n);
    if (rc == 0) {
        rc = check_node_mesh(x, b);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO node_mesh_settings (node_id, cluster_id, overlay, synthetic, kind,"
               " region, bandwidth_mbps, trust, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
               " ON CONFLICT DO UPDATE SET overlay = excluded.overlay,"
               " synthetic = excluded.synthetic, kind = excluded.kind, region = excluded.region,"
               " bandwidth_mbps = excluded.bandwidth_mbps, trust = excluded.trust,"
               " updated_at = excluded.updated_at");
    db_bind_text(st, n.id);
    db_bind_text(st, x->cluster_id);
    db_bind_textn(st, (const char *)b->overlay.data, b->overlay.len);
    db_bind_textn(st, (const char *)b->synthetic.data, b->synthetic.len);
    db_bind_textn(st, (const char *)b->kind.data, b->kind.len);
    db_bind_opt(st, b->region);
    if (b->bandwidth_mbps == 0) {
        db_bind_null(st);
    } else {
        db_bind_int(st, (int64_t)b->bandwidth_mbps);
    }
    db_bind_int(st, (int64_t)b->trust);
    db_bind_int(st, x->now_ms);
    rc = db_run(st);
    if (rc == 0) {
        rc = fsm_node_config(x, n.id);
    }
    if (rc == 0) {
        rc = fsm_note_relay(x, n.id); /* its region, bandwidth and trust are in everybody's list */
    }
    if (rc == 0) {
        rc = audit_node_mesh(x, b, n.id);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_NODE_MESH " WHERE m.node_id = ?", n.id);
}
