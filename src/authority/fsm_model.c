/* Memberships switched off and on, groups, verified capabilities, observations, the cluster's own row
 * (SPEC MEM-05, GRP, CAP-02, HB, CLU). */
#include "authority/fsm_peers.h"

#include <inttypes.h>

/* --- memberships --- */

int fsm_membership_write(struct fsm_ctx *x, const struct fsm_node *n, bool disabled,
                         struct blob reason)
{
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE cluster_memberships SET membership_status = ?, disabled_at = ?,"
               " disabled_reason = ? WHERE node_id = ?");
    db_bind_text(st, disabled ? "disabled" : "active");
    if (disabled) {
        db_bind_int(st, x->now_ms);
    } else {
        db_bind_null(st);
    }
    db_bind_opt(st, disabled ? reason : blob_of(NULL, 0));
    db_bind_text(st, n->id);
    int rc = db_run(st);
    if (rc == 0) {
        rc = fsm_node_config(x, n->id);
    }
    if (rc == 0) {
        rc = fsm_peers_changed(x, n->id);
    }
    if (rc == 0) {
        x->config_changed = true; /* everybody is told whom not to serve */
        rc = fsm_audit_simple(x, disabled ? "membership_disabled" : "membership_enabled", "node",
                              n->id, "reason", reason);
    }
    return rc;
}

int fsm_membership_set(struct fsm_ctx *x, const struct membership_set *b)
{
    struct fsm_node n;
    int rc = fsm_node_get(x, &b->node_id, &n);
    if (rc != 0) {
        return rc;
    }
    bool disabled = strcmp(n.membership, "disabled") == 0;
    if (!n.enrolled) {
        return fsm_refuse(x, -ERR_REVOKED, "node %s is revoked: it can only join anew", n.name);
    }
    if (b->disabled == disabled) {
        return fsm_refuse(x, -ERR_DECIDED, "the membership of %s is %s already", n.name,
                          disabled ? "disabled" : "active");
    }
    if (b->disabled && n.authority[0] != '\0' && strcmp(n.authority, "removed") != 0) {
        return fsm_refuse(x, -ERR_CONFLICT,
                          "node %s is an authority: use `rap authority remove %s` first", n.name,
                          n.name);
    }
    if (b->disabled) {
        rc = fsm_split_holds(x, &n, b->force);
    }
    rc = rc != 0 ? rc : fsm_membership_write(x, &n, b->disabled, b->reason);
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_NODE " WHERE n.id = ?", n.id);
}

/* --- the cluster's row --- */

static int switch_of(struct fsm_ctx *x, uint64_t v)
{
    return v <= SWITCH_ON ? 0 : fsm_refuse(x, -ERR_INVALID, "a switch is on or off");
}

int fsm_cluster_update(struct fsm_ctx *x, const struct cluster_update *b)
{
    int rc = switch_of(x, b->test_telemetry);
    if (rc == 0 && b->name.len > 0 && !text_is_name((const char *)b->name.data, b->name.len)) {
        rc = fsm_refuse(x, -ERR_INVALID,
                        "a cluster name is 1 to 63 of a-z, 0-9 and -, with no - at either end");
    }
    if (rc == 0 && b->heartbeat_sample_ms != 0 &&
        (b->heartbeat_sample_ms < HEARTBEAT_SAMPLE_MIN_MS ||
         b->heartbeat_sample_ms > HEARTBEAT_SAMPLE_MAX_MS)) {
        rc = fsm_refuse(x, -ERR_INVALID, "heartbeats are sampled every 1s to 24h");
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE clusters SET name = coalesce(?, name), region = coalesce(?, region),"
               " metadata = coalesce(?, metadata), test_telemetry = coalesce(?, test_telemetry),"
               " heartbeat_sample_ms = coalesce(?, heartbeat_sample_ms), updated_at = ?"
               " WHERE id = ?");
    db_bind_opt(st, b->name);
    db_bind_opt(st, b->region);
    db_bind_opt(st, b->metadata);
    if (b->test_telemetry == SWITCH_KEEP) {
        db_bind_null(st);
    } else {
        db_bind_int(st, b->test_telemetry == SWITCH_ON);
    }
    if (b->heartbeat_sample_ms == 0) {
        db_bind_null(st);
    } else {
        db_bind_int(st, b->heartbeat_sample_ms);
    }
    db_bind_int(st, x->now_ms);
    db_bind_text(st, x->cluster_id);
    rc = db_run(st);
    if (rc == 0) {
        x->config_changed = true; /* the name is in every snapshot, updated_at in what it says */
        struct fsm_json j;
        fsm_json_begin(&j);
        fsm_json_str(&j, "name", b->name);
        fsm_json_str(&j, "region", b->region);
        fsm_json_int(&j, "test_telemetry", (int64_t)b->test_telemetry);
        fsm_json_int(&j, "heartbeat_sample_ms", b->heartbeat_sample_ms);
        const struct fsm_audit a = {
            .event = "cluster_updated", .subject_type = "cluster", .subject_id = x->cluster_id};
        rc = fsm_audit_add(x, &a, fsm_json_end(&j));
        fsm_json_fini(&j);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_CLUSTER " WHERE c.id = ?", x->cluster_id);
}

int fsm_node_update(struct fsm_ctx *x, const struct node_update *b)
{
    struct fsm_node n;
    int rc = fsm_node_get(x, &b->node_id, &n);
    if (rc == 0) {
        rc = switch_of(x, b->test_telemetry);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(x->db, "UPDATE nodes SET test_telemetry = ? WHERE id = ?");
    db_bind_int(st, b->test_telemetry == SWITCH_ON);
    db_bind_text(st, n.id);
    rc = db_run(st);
    if (rc == 0) {
        rc = fsm_audit_simple(x, "node_updated", "node", n.id, "test_telemetry",
                              blob_str(b->test_telemetry == SWITCH_ON ? "on" : "off"));
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_NODE " WHERE n.id = ?", n.id);
}

/* A word in or out of a one-column table. Refused when it is so already. */
struct membership_of_set {
    const char *have, *put, *drop; /* SQL; ?1 the word, put: ?2 cluster, ?3 time */
    const char *word_in, *word_out;
};

static int set_member(struct fsm_ctx *x, const struct membership_of_set *s, struct blob word,
                      bool in)
{
    struct db_stmt *st = db_prepare(x->db, s->have);
    db_bind_textn(st, (const char *)word.data, word.len);
    int rc = fsm_exists(st);
    if (rc < 0) {
        return rc;
    }
    if ((rc == 1) == in) {
        return fsm_refuse(x, -ERR_DECIDED, "%.*s is %s already", (int)word.len,
                          (const char *)word.data, in ? s->word_in : s->word_out);
    }
    st = db_prepare(x->db, in ? s->put : s->drop);
    db_bind_textn(st, (const char *)word.data, word.len);
    if (in) {
        db_bind_text(st, x->cluster_id);
        db_bind_int(st, x->now_ms);
    }
    return db_run(st);
}

static void doc_of_word(struct fsm_ctx *x, const char *key, struct blob word, const char *flag,
                        bool on)
{
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_key(&x->doc, &d, key);
    mp_put_strn(&x->doc, (const char *)word.data, word.len);
    mp_doc_bool(&x->doc, &d, flag, on);
    mp_doc_end(&x->doc, &d);
}

int fsm_role_require(struct fsm_ctx *x, const struct role_require *b)
{
    static const struct membership_of_set roles = {
        "SELECT 1 FROM required_roles WHERE role = ?",
        "INSERT INTO required_roles (role, cluster_id, created_at) VALUES (?, ?, ?)",
        "DELETE FROM required_roles WHERE role = ?", "required", "not required"};
    if (!role_is_known(b->role)) {
        return fsm_refuse(x, -ERR_ROLE_UNKNOWN, "there is no role \"%.*s\"", (int)b->role.len,
                          (const char *)b->role.data);
    }
    int rc = set_member(x, &roles, b->role, b->required);
    if (rc == 0) {
        rc = fsm_audit_simple(x, b->required ? "role_required" : "role_not_required", "cluster",
                              x->cluster_id, "role", b->role);
    }
    if (rc == 0) {
        doc_of_word(x, "role", b->role, "required", b->required);
    }
    return rc;
}

/* --- capabilities --- */

int fsm_capability_verify(struct fsm_ctx *x, const struct capability_verify *b)
{
    struct fsm_node n;
    int rc = fsm_node_get_active(x, &b->node_id, &n);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE node_capabilities SET verified = ?1,"
               " verified_at = CASE WHEN ?1 THEN ?2 END WHERE node_id = ?3 AND capability = ?4");
    db_bind_int(st, b->verified);
    db_bind_int(st, x->now_ms);
    db_bind_text(st, n.id);
    db_bind_textn(st, (const char *)b->capability.data, b->capability.len);
    rc = db_run(st);
    if (rc == 0 && db_changes(x->db) == 0) {
        return fsm_refuse(x, -ERR_CAPABILITY,
                          "node %s does not report %.*s: what it reports is the upper bound",
                          n.name, (int)b->capability.len, (const char *)b->capability.data);
    }
    if (rc == 0) {
        rc = fsm_audit_simple(x, b->verified ? "capability_verified" : "capability_unverified",
                              "node", n.id, "capability", b->capability);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_NODE " WHERE n.id = ?", n.id);
}

int fsm_capability_policy(struct fsm_ctx *x, const struct capability_policy *b)
{
    static const struct membership_of_set policies = {
        "SELECT 1 FROM capability_policies WHERE capability = ?",
        "INSERT INTO capability_policies (capability, cluster_id, created_at) VALUES (?, ?, ?)",
        "DELETE FROM capability_policies WHERE capability = ?", "verified automatically",
        "verified by hand"};
    if (!capability_is_known(b->capability)) {
        return fsm_refuse(x, -ERR_INVALID, "there is no capability \"%.*s\"",
                          (int)b->capability.len, (const char *)b->capability.data);
    }
    int rc = set_member(x, &policies, b->capability, b->automatic);
    if (rc == 0 && b->automatic) {
        struct db_stmt *st = db_prepare(
            x->db, "UPDATE node_capabilities SET verified = 1, verified_at = ?1"
                   " WHERE capability = ?2 AND verified = 0");
        db_bind_int(st, x->now_ms);
        db_bind_textn(st, (const char *)b->capability.data, b->capability.len);
        rc = db_run(st);
    }
    if (rc == 0) {
        rc = fsm_audit_simple(
            x, b->automatic ? "capability_policy_automatic" : "capability_policy_manual", "cluster",
            x->cluster_id, "capability", b->capability);
    }
    if (rc == 0) {
        doc_of_word(x, "capability", b->capability, "automatic", b->automatic);
    }
    return rc;
}

int fsm_capabilities_by_policy(struct fsm_ctx *x, const char *node_id)
{
    if (x->v->level < LEVEL_MEMBERS) {
        return 0;
    }
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE node_capabilities SET verified = 1, verified_at = ?1 WHERE node_id = ?2"
               " AND verified = 0 AND capability IN (SELECT capability FROM capability_policies)");
    db_bind_int(st, x->now_ms);
    db_bind_text(st, node_id);
    return db_run(st);
}

/* --- observations --- */

static int put_sample(struct fsm_ctx *x, const struct heartbeat_sample *s, const char *node_id)
{
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO node_heartbeats (cluster_id, node_id, observed_at, received_at, health,"
               " version, config_version) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING");
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, node_id);
    db_bind_int(st, s->observed_at_ms);
    db_bind_int(st, s->received_at_ms);
    db_bind_textn(st, (const char *)s->health.data, s->health.len);
    db_bind_opt(st, s->version);
    db_bind_int(st, (int64_t)s->config_version);
    int rc = db_run(st);
    if (rc == 0) {
        st = db_prepare(x->db, "DELETE FROM node_heartbeats WHERE node_id = ?1 AND received_at <="
                               " (SELECT received_at FROM node_heartbeats WHERE node_id = ?1"
                               "  ORDER BY received_at DESC LIMIT 1 OFFSET ?2)");
        db_bind_text(st, node_id);
        db_bind_int(st, HEARTBEATS_KEPT);
        rc = db_run(st);
    }
    if (rc == 0) {
        st = db_prepare(x->db, "UPDATE cluster_memberships SET last_seen_at = ?1 WHERE node_id = ?2"
                               " AND coalesce(last_seen_at, 0) < ?1");
        db_bind_int(st, s->received_at_ms);
        db_bind_text(st, node_id);
        rc = db_run(st);
    }
    if (rc == 0) {
        st = db_prepare(x->db, "UPDATE node_latest_state SET observed_at = ?1, received_at = ?2,"
                               " config_version = ?3 WHERE node_id = ?4");
        db_bind_int(st, s->observed_at_ms);
        db_bind_int(st, s->received_at_ms);
        db_bind_int(st, (int64_t)s->config_version);
        db_bind_text(st, node_id);
        rc = db_run(st);
    }
    return rc;
}

/* Not audited: nothing was decided. Whoever is no active member any more is left out. */
int fsm_heartbeat_log(struct fsm_ctx *x, const struct heartbeat_log *b)
{
    struct mp_reader r;
    int64_t kept = 0;
    int rc = 0;
    mp_reader_init(&r, b->samples.raw);
    for (uint32_t i = 0; rc == 0 && i < b->samples.count; i++) {
        struct heartbeat_sample s;
        char node_id[UUID_TEXT_MAX];
        rc = msg_decode(&heartbeat_sample_desc, MSG_STRICT, mp_get_bin(&r, SIZE_MAX), &s);
        if (rc != 0) {
            /* Not a reason to stop: whoever leads could then stop everybody. */
            return fsm_refuse(x, -ERR_MALFORMED, "an observation does not decode");
        }
        struct db_stmt *st = db_prepare(x->db, "SELECT 1 FROM cluster_memberships WHERE node_id = ?"
                                               " AND membership_status = 'active'");
        db_bind_text(st, fsm_id(&s.node_id, node_id));
        rc = fsm_exists(st);
        if (rc == 1) {
            kept++;
            rc = put_sample(x, &s, node_id);
        }
    }
    if (rc == 0) {
        struct mp_doc d;
        mp_doc_begin(&x->doc, &d);
        mp_doc_int(&x->doc, &d, "samples", kept);
        mp_doc_end(&x->doc, &d);
    }
    return rc;
}
