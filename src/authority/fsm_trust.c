/* What certificates stand on: the roots in rotation, the CAs of the authorities, what runs out.
 *
 *     (new) --prepare--> prepared --activate--> active
 *     active --activate--> retiring --retire--> retired
 *     prepared --rollback--> withdrawn;  retiring --rollback--> active, and active --> prepared
 *
 * Which phase a command is follows from the roots it names and those there are. That the owner signed
 * it is checked by the leader, here (fsm_owner.c), and by every node for itself (pki_trust_adopt). */
#include "authority/fsm_impl.h"

#include <inttypes.h>

/* The roots that count: the active one, and the one on its way in or out. */
struct roots {
    char active[HEX32];
    char other[HEX32]; /* "": none */
    enum trust_root_status other_status;
};

static int read_roots(struct fsm_ctx *x, struct roots *ret)
{
    *ret = (struct roots){.active = ""};
    struct db_stmt *st = db_prepare(x->db, "SELECT root_id, status FROM cluster_trust_roots"
                                           " WHERE status IN ('active', 'prepared', 'retiring')");
    int rc;
    while ((rc = db_step(st)) == 1) {
        const char *status = db_col_text(st, "status");
        bool active = strcmp(status, "active") == 0;
        (void)snprintf(active ? ret->active : ret->other, HEX32, "%s", db_col_text(st, "root_id"));
        if (!active) {
            ret->other_status = strcmp(status, "prepared") == 0 ? TRUST_ROOT_PREPARED
                                                                : TRUST_ROOT_RETIRING;
        }
    }
    db_done(st);
    return rc;
}

static int set_status(struct fsm_ctx *x, const char *root_id, const char *status)
{
    struct db_stmt *st = db_prepare(x->db,
                                    "UPDATE cluster_trust_roots SET status = ?1, retired_at ="
                                    " CASE WHEN ?1 IN ('retired', 'withdrawn') THEN ?2 END"
                                    " WHERE root_id = ?3");
    db_bind_text(st, status);
    db_bind_int(st, x->now_ms);
    db_bind_text(st, root_id);
    return db_run(st);
}

/* --- the issuing CAs --- */

static int put_issuer(struct fsm_ctx *x, const char *node_id, struct blob der, const char *root_id)
{
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE cluster_authorities SET previous_issuer = issuer_certificate,"
               " previous_root_id = root_id, issuer_certificate = ?1, root_id = ?2,"
               " issuer_renewed_at = ?3 WHERE node_id = ?4 AND status <> 'removed'");
    db_bind_blob(st, der);
    db_bind_text(st, root_id);
    db_bind_int(st, x->now_ms);
    db_bind_text(st, node_id);
    int rc = db_run(st);
    return rc != 0 ? rc : db_changes(x->db) == 1 ? 0 : -ERR_NOT_FOUND;
}

int fsm_authority_renew(struct fsm_ctx *x, const struct authority_renew *b)
{
    struct fsm_node n;
    struct roots roots;
    char issuer[HEX32];
    char root_id[HEX32];
    int rc = fsm_authority_get(x, &b->node_id, &n);
    if (rc == 0) {
        rc = read_roots(x, &roots);
    }
    if (rc != 0) {
        return rc;
    }
    if (strcmp(fsm_hex(b->root_id, root_id), roots.active) != 0) {
        return fsm_refuse(x, -ERR_BAD_CERT,
                          "the CA is certified by another root than the active one: see `rap trust "
                          "show`");
    }
    struct db_stmt *st = db_prepare(x->db, "SELECT 1 FROM cluster_authorities WHERE node_id = ?"
                                           " AND issuer_fingerprint = ?");
    db_bind_text(st, n.id);
    db_bind_text(st, fsm_hex(b->issuer_fingerprint, issuer));
    rc = fsm_exists(st);
    if (rc == 0) {
        return fsm_refuse(x, -ERR_FINGERPRINT,
                          "the certificate is for another CA key than that of authority %s: for a "
                          "new key remove the authority and add it again",
                          n.name);
    }
    rc = rc < 0 ? rc : fsm_owner_renewed_issuer(x, b);
    if (rc == 0) {
        rc = put_issuer(x, n.id, b->issuer_der, root_id);
    }
    if (rc == 0) {
        x->config_changed = true;
        rc = fsm_audit_simple(x, "issuer_renewed", "node", n.id, "issuer_fingerprint",
                              blob_str(issuer));
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_AUTHORITY " WHERE a.node_id = ?", n.id);
}

/* Every present authority gets its CA under the root that becomes the active one, and no other. */
static int put_issuers(struct fsm_ctx *x, const struct trust_rotate *b, const char *root_id)
{
    struct mp_reader r;
    int64_t present = 0;
    int rc = fsm_one_int(
        db_prepare(x->db, "SELECT count(*) FROM cluster_authorities WHERE status <> 'removed'"),
        &present);
    if (rc < 0) {
        return rc;
    }
    rc = 0;
    mp_reader_init(&r, b->issuers.raw);
    bool fits = present == (int64_t)b->issuers.count;
    for (uint32_t i = 0; rc == 0 && fits && i < b->issuers.count; i++) {
        struct trust_issuer item;
        char node_id[UUID_TEXT_MAX];
        if (msg_decode(&trust_issuer_desc, MSG_STRICT, mp_get_bin(&r, SIZE_MAX), &item) != 0) {
            return fsm_refuse(x, -ERR_MALFORMED, "a CA of the list does not decode");
        }
        if (rc == 0) {
            rc = put_issuer(x, fsm_id(&item.node_id, node_id), item.der, root_id);
        }
        if (rc == -ERR_NOT_FOUND) {
            fits = false;
            rc = 0;
        }
    }
    /* One listed twice leaves another with its old CA. */
    int64_t done = 0;
    if (rc == 0 && fits) {
        struct db_stmt *st = db_prepare(x->db, "SELECT count(*) FROM cluster_authorities"
                                               " WHERE status <> 'removed' AND root_id = ?");
        db_bind_text(st, root_id);
        rc = fsm_one_int(st, &done);
        rc = rc < 0 ? rc : 0;
    }
    if (rc == 0 && (!fits || done != present)) {
        return fsm_refuse(x, -ERR_CONFLICT,
                          "the list of authorities has changed meanwhile: run it again");
    }
    return rc;
}

/* --- the phases --- */

/* Nodes that would have no certificate that counts once the root is gone. */
static int left_behind(struct fsm_ctx *x, const struct trust_rotate *b, const char *gone)
{
    int64_t n = 0;
    if (b->force) {
        return 0;
    }
    struct db_stmt *st = db_prepare(
        x->db, "SELECT count(*) FROM node_identities i JOIN cluster_memberships m"
               " ON m.node_id = i.node_id WHERE i.identity_status = 'active'"
               " AND m.membership_status = 'active' AND i.root_id = ?");
    db_bind_text(st, gone);
    int rc = fsm_one_int(st, &n);
    if (rc < 0) {
        return rc;
    }
    return n == 0 ? 0
                  : fsm_refuse(x, -ERR_CONFLICT,
                               "%" PRId64 " active nodes hold a certificate under this root only: "
                               "`rap trust show` lists them; wait, revoke or disable them, or "
                               "--force, and they must join again",
                               n);
}

/* What was issued under it counts no more. */
static int end_root(struct fsm_ctx *x, const char *root_id, const char *status)
{
    int rc = set_status(x, root_id, status);
    static const char *const sql[] = {
        "UPDATE node_identities SET identity_status = 'expired' WHERE root_id = ?"
        " AND identity_status IN ('active', 'rotating')",
        "UPDATE cluster_authorities SET previous_issuer = NULL, previous_root_id = NULL"
        " WHERE previous_root_id = ?",
        "DELETE FROM certificate_alarms WHERE subject_kind = 'root' AND subject_id = ?",
    };
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(sql); i++) {
        struct db_stmt *st = db_prepare(x->db, sql[i]);
        db_bind_text(st, root_id);
        rc = db_run(st);
    }
    return rc;
}

static int prepare(struct fsm_ctx *x, const struct trust_rotate *b, const char *other)
{
    struct db_stmt *st = db_prepare(x->db, "SELECT 1 FROM cluster_trust_roots WHERE root_id = ?");
    db_bind_text(st, other);
    int rc = fsm_exists(st);
    if (rc == 1 || b->new_root_der.len == 0) {
        return fsm_refuse(x, -ERR_CONFLICT, "a rotation needs a root key that was never used");
    }
    if (rc < 0) {
        return rc;
    }
    st = db_prepare(x->db, "INSERT INTO cluster_trust_roots (cluster_id, root_id, certificate,"
                           " status, created_at) VALUES (?, ?, ?, 'prepared', ?)");
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, other);
    db_bind_blob(st, b->new_root_der);
    db_bind_int(st, x->now_ms);
    return db_run(st);
}

/* The active root changes, forth or back. The one that goes leaves its status first: only one may be
 * active. */
static int switch_active(struct fsm_ctx *x, const struct trust_rotate *b, const char *to,
                         const char *from, const char *from_status)
{
    int rc = set_status(x, from, from_status);
    if (rc == 0) {
        rc = set_status(x, to, "active");
    }
    return rc != 0 ? rc : put_issuers(x, b, to);
}

struct step {
    const char *phase; /* NULL: no such step from here */
    const char *event;
    int rc;
};

static struct step run_step(struct fsm_ctx *x, const struct trust_rotate *b,
                            const struct roots *now, const char *active, const char *other)
{
    bool same = strcmp(active, now->active) == 0;
    bool swapped = strcmp(active, now->other) == 0 && strcmp(other, now->active) == 0;
    bool has_other = other[0] != '\0';
    bool prepared = now->other[0] != '\0' && now->other_status == TRUST_ROOT_PREPARED;
    bool retiring = now->other[0] != '\0' && now->other_status == TRUST_ROOT_RETIRING;
    int rc;
    if (same && now->other[0] == '\0' && has_other && b->other_status == TRUST_ROOT_PREPARED) {
        return (struct step){"prepare", "trust_root_prepared", prepare(x, b, other)};
    }
    if (swapped && prepared && b->other_status == TRUST_ROOT_RETIRING) {
        rc = switch_active(x, b, active, other, "retiring");
        return (struct step){"activate", "trust_root_activated", rc};
    }
    if (same && retiring && !has_other) {
        rc = left_behind(x, b, now->other);
        rc = rc != 0 ? rc : end_root(x, now->other, "retired");
        return (struct step){"retire", "trust_root_retired", rc};
    }
    if (swapped && retiring && b->other_status == TRUST_ROOT_PREPARED) {
        rc = switch_active(x, b, active, other, "prepared");
        return (struct step){"rollback", "trust_root_rolled_back", rc};
    }
    if (same && prepared && !has_other) {
        rc = left_behind(x, b, now->other);
        rc = rc != 0 ? rc : end_root(x, now->other, "withdrawn");
        return (struct step){"rollback", "trust_root_rolled_back", rc};
    }
    return (struct step){NULL, NULL, 0};
}

static int put_record(struct fsm_ctx *x, const struct trust_rotate *b, const char *phase)
{
    struct db_stmt *st = db_prepare(x->db, "INSERT INTO cluster_trust_records (cluster_id, seq,"
                                           " phase, record, authority_index, created_at)"
                                           " VALUES (?, ?, ?, ?, ?, ?)");
    db_bind_text(st, x->cluster_id);
    db_bind_int(st, (int64_t)b->seq);
    db_bind_text(st, phase);
    db_bind_blob(st, b->record);
    db_bind_int(st, (int64_t)x->index);
    db_bind_int(st, x->now_ms);
    return db_run(st);
}

static int audit_step(struct fsm_ctx *x, const struct trust_rotate *b, const char *event,
                      const char *active, const char *other)
{
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_int(&j, "seq", (int64_t)b->seq);
    fsm_json_text(&j, "active", active);
    fsm_json_text(&j, "other", other);
    fsm_json_text(&j, "force", b->force ? "yes" : "no");
    const struct fsm_audit a = {.event = event, .subject_type = "root", .subject_id = active};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_trust_rotate(struct fsm_ctx *x, const struct trust_rotate *b)
{
    struct roots now;
    char active[HEX32];
    char other[HEX32];
    int64_t seq = 0;
    (void)fsm_hex(b->active_id, active);
    (void)fsm_hex(b->other_id, other);
    int rc = fsm_one_int(
        db_prepare(x->db, "SELECT coalesce(max(seq), 0) FROM cluster_trust_records"), &seq);
    rc = rc < 0 ? rc : read_roots(x, &now);
    if (rc < 0) {
        return rc;
    }
    if (b->seq != (uint64_t)seq + 1) {
        return fsm_refuse(x, -ERR_CONFLICT,
                          "record %" PRIu64 " does not follow record %" PRId64
                          ": another rotation came first, see `rap trust show`",
                          b->seq, seq);
    }
    rc = fsm_owner_rotated(x, b);
    if (rc != 0) {
        return rc;
    }
    struct step step = run_step(x, b, &now, active, other);
    if (step.phase == NULL) {
        return fsm_refuse(x, -ERR_CONFLICT,
                          "this is no step from where the rotation is: see `rap trust show`");
    }
    rc = step.rc;
    if (rc == 0 && b->signed_set.len > 0) {
        struct witness_set set;
        rc = fsm_take_link(x, b->signed_set, &set);
    }
    if (rc == 0) {
        rc = put_record(x, b, step.phase);
    }
    if (rc == 0) {
        x->config_changed = true;
        rc = audit_step(x, b, step.event, active, other);
    }
    if (rc != 0) {
        return rc;
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "seq", (int64_t)b->seq);
    mp_doc_str(&x->doc, &d, "phase", step.phase);
    mp_doc_str(&x->doc, &d, "active_root_id", active);
    mp_doc_str(&x->doc, &d, "other_root_id", other[0] == '\0' ? NULL : other);
    mp_doc_end(&x->doc, &d);
    return 0;
}

/* --- what runs out --- */

static int read_severity(struct fsm_ctx *x, const struct cert_alarm *b, char ret[16])
{
    struct db_stmt *st = db_prepare(x->db, "SELECT severity FROM certificate_alarms"
                                           " WHERE subject_kind = ? AND subject_id = ?");
    db_bind_textn(st, (const char *)b->subject_kind.data, b->subject_kind.len);
    db_bind_textn(st, (const char *)b->subject_id.data, b->subject_id.len);
    int rc = db_step(st);
    (void)snprintf(ret, 16, "%s", rc == 1 ? db_col_text(st, "severity") : "ok");
    db_done(st);
    return rc < 0 ? rc : 0;
}

static int write_alarm(struct fsm_ctx *x, const struct cert_alarm *b)
{
    bool over = blob_equal(b->severity, blob_str("ok"));
    struct db_stmt *st = db_prepare(
        x->db, over ? "DELETE FROM certificate_alarms WHERE subject_kind = ?1 AND subject_id = ?2"
                    : "INSERT INTO certificate_alarms (cluster_id, subject_kind, subject_id,"
                      " severity, not_after, raised_at) VALUES (?3, ?1, ?2, ?4, ?5, ?6)"
                      " ON CONFLICT (subject_kind, subject_id) DO UPDATE SET"
                      " severity = excluded.severity, not_after = excluded.not_after,"
                      " raised_at = excluded.raised_at");
    db_bind_textn(st, (const char *)b->subject_kind.data, b->subject_kind.len);
    db_bind_textn(st, (const char *)b->subject_id.data, b->subject_id.len);
    if (!over) {
        db_bind_text(st, x->cluster_id);
        db_bind_textn(st, (const char *)b->severity.data, b->severity.len);
        db_bind_int(st, b->not_after_ms);
        db_bind_int(st, x->now_ms);
    }
    return db_run(st);
}

int fsm_cert_alarm(struct fsm_ctx *x, const struct cert_alarm *b)
{
    static const struct {
        const char *severity, *event;
    } events[] = {
        {"ok", "certificate_alarm_over"},
        {"warning", "certificate_expires_soon"},
        {"critical", "certificate_expiry_critical"},
        {"expired", "certificate_expired"},
    };
    const char *event = NULL;
    char before[16];
    char subject[65];
    for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
        event = blob_equal(b->severity, blob_str(events[i].severity)) ? events[i].event : event;
    }
    bool kind = blob_equal(b->subject_kind, blob_str("root")) ||
                blob_equal(b->subject_kind, blob_str("issuer")) ||
                blob_equal(b->subject_kind, blob_str("node"));
    if (event == NULL || !kind) {
        return fsm_refuse(x, -ERR_INVALID, "no such alarm");
    }
    int rc = read_severity(x, b, before);
    if (rc == 0 && blob_equal(b->severity, blob_str(before))) {
        return fsm_refuse(x, -ERR_CONFLICT, "the alarm stands at %s already", before);
    }
    if (rc == 0) {
        rc = write_alarm(x, b);
    }
    if (rc != 0) {
        return rc;
    }
    (void)snprintf(subject, sizeof subject, "%.*s", (int)b->subject_id.len,
                   (const char *)b->subject_id.data);
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_str(&j, "certificate_of", b->subject_kind);
    fsm_json_int(&j, "not_after", b->not_after_ms);
    fsm_json_text(&j, "before", before);
    const struct fsm_audit a = {
        .event = event,
        .subject_type = blob_equal(b->subject_kind, blob_str("root")) ? "root" : "node",
        .subject_id = subject,
    };
    rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    if (rc == 0) {
        struct mp_doc d;
        mp_doc_begin(&x->doc, &d);
        mp_doc_str(&x->doc, &d, "subject_id", subject);
        mp_doc_end(&x->doc, &d);
    }
    return rc;
}

int fsm_cert_policy(struct fsm_ctx *x, const struct cert_policy *b)
{
    if (b->leaf_life_ms < LEAF_LIFE_MIN_MS || b->leaf_life_ms > LEAF_LIFE_MAX_MS) {
        return fsm_refuse(x, -ERR_INVALID, "a node certificate lives between 1m and 90d");
    }
    struct db_stmt *st = db_prepare(x->db, "UPDATE clusters SET leaf_life_ms = ? WHERE id = ?");
    db_bind_int(st, b->leaf_life_ms);
    db_bind_text(st, x->cluster_id);
    int rc = db_run(st);
    if (rc == 0) {
        x->config_changed = true;
        struct fsm_json j;
        fsm_json_begin(&j);
        fsm_json_int(&j, "leaf_life_ms", b->leaf_life_ms);
        const struct fsm_audit a = {.event = "certificate_policy_changed",
                                    .subject_type = "cluster",
                                    .subject_id = x->cluster_id};
        rc = fsm_audit_add(x, &a, fsm_json_end(&j));
        fsm_json_fini(&j);
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_CLUSTER " WHERE c.id = ?", x->cluster_id);
}
