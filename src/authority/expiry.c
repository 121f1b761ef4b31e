/* What runs out. Once in a while the leader looks at roots, CAs and the certificates of active nodes;
 * a threshold that was crossed becomes a command, and so an audit row, once (SPEC IDN, "certificate
 * expiry" in docs/OPERATIONS.md). */
#include "authority/expiry.h"

#include "authority/authority_impl.h"

#define LOOK_EVERY_MS 10000
/* The rest with the next look. */
#define ALARMS_AT_ONCE 64

const char *expiry_severity(enum pki_cert_kind kind, int64_t not_before_ms, int64_t not_after_ms,
                            int64_t now_ms)
{
    /* Parts of the whole life that are left. A root's is long: a year and a quarter of one. A CA
     * is renewed by hand: three months and one. A leaf renews itself when a third is left: who is
     * below a quarter has failed at it. */
    static const struct {
        int64_t warning, critical;
    } parts[] = {[PKI_ROOT] = {10, 40}, [PKI_ISSUER] = {4, 12}, [PKI_LEAF] = {4, 10}};
    int64_t life = not_after_ms - not_before_ms;
    int64_t left = not_after_ms - now_ms;
    if (left <= 0) {
        return "expired";
    }
    return left < life / parts[kind].critical  ? "critical"
           : left < life / parts[kind].warning ? "warning"
                                               : "ok";
}

struct look {
    struct authority *a;
    int64_t now_ms;
    unsigned proposed;
};

static void done(void *data, int rc, struct blob doc)
{
    (void)data;
    (void)rc; /* looked at again anyhow */
    (void)doc;
}

static void tell(struct look *l, const char *kind, const char *id, const char *severity,
                 const char *standing, int64_t not_after_ms)
{
    const struct cert_alarm body = {
        .subject_kind = blob_str(kind),
        .subject_id = blob_str(id),
        .severity = blob_str(severity),
        .not_after_ms = not_after_ms,
    };
    struct buf args;
    if (strcmp(severity, standing[0] == '\0' ? "ok" : standing) == 0 ||
        l->proposed == ALARMS_AT_ONCE) {
        return;
    }
    l->proposed++;
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&cert_alarm_desc, &body, &args);
    call_internal(l->a, "certificate.alarm", buf_blob(&args), NULL, ACTOR_SYSTEM, "", done, NULL);
    buf_fini(&args);
}

static void look_at_ders(struct look *l, const char *kind, const char *sql)
{
    struct db_stmt *st = db_prepare(state_db(l->a), sql);
    while (db_step(st) == 1) {
        struct pki_cert c;
        if (pki_cert_parse(db_col_blob(st, "der"), &c, NULL) == 0) {
            tell(l, kind, db_col_text(st, "id"),
                 expiry_severity(c.kind, c.not_before_ms, c.not_after_ms, l->now_ms),
                 db_col_text(st, "severity"), c.not_after_ms);
        }
    }
    db_done(st);
}

/* Those with little left, and those with an alarm that may be over. */
static void look_at_nodes(struct look *l)
{
    struct db_stmt *st = db_prepare(
        state_db(l->a),
        "SELECT i.node_id AS id, i.certificate_not_before, i.certificate_not_after, a.severity"
        " FROM node_identities i JOIN cluster_memberships m ON m.node_id = i.node_id"
        " LEFT JOIN certificate_alarms a ON a.subject_kind = 'node' AND a.subject_id = i.node_id"
        " WHERE i.identity_status = 'active' AND m.membership_status = 'active'"
        " AND (a.severity IS NOT NULL OR i.certificate_not_after - ?"
        "   < (i.certificate_not_after - i.certificate_not_before) / 4)");
    db_bind_int(st, l->now_ms);
    while (db_step(st) == 1) {
        int64_t not_after = db_col_int(st, "certificate_not_after");
        tell(l, "node", db_col_text(st, "id"),
             expiry_severity(PKI_LEAF, db_col_int(st, "certificate_not_before"), not_after,
                             l->now_ms),
             db_col_text(st, "severity"), not_after);
    }
    db_done(st);
}

/* Alarms about what is gone: a revoked node, a removed authority. */
static void look_at_the_gone(struct look *l)
{
    struct db_stmt *st = db_prepare(
        state_db(l->a),
        "SELECT a.subject_kind, a.subject_id, a.severity, a.not_after FROM certificate_alarms a"
        " WHERE (a.subject_kind = 'node' AND a.subject_id NOT IN (SELECT i.node_id"
        "     FROM node_identities i JOIN cluster_memberships m ON m.node_id = i.node_id"
        "     WHERE i.identity_status = 'active' AND m.membership_status = 'active'))"
        " OR (a.subject_kind = 'issuer' AND a.subject_id NOT IN"
        "     (SELECT node_id FROM cluster_authorities WHERE status <> 'removed'))");
    while (db_step(st) == 1) {
        tell(l, db_col_text(st, "subject_kind"), db_col_text(st, "subject_id"), "ok",
             db_col_text(st, "severity"), db_col_int(st, "not_after"));
    }
    db_done(st);
}

void expiry_tick(struct authority *a)
{
    uint64_t now = authority_mono_ms();
    if (fsm_level(a->fsm) < LEVEL_MODEL ||
        (a->last_expiry_look_ms != 0 && now - a->last_expiry_look_ms < LOOK_EVERY_MS)) {
        return;
    }
    a->last_expiry_look_ms = now;
    struct look l = {.a = a, .now_ms = authority_now_ms(a)};
    look_at_ders(&l, "root",
                 "SELECT r.root_id AS id, r.certificate AS der, a.severity"
                 " FROM cluster_trust_roots r LEFT JOIN certificate_alarms a"
                 " ON a.subject_kind = 'root' AND a.subject_id = r.root_id"
                 " WHERE r.status IN ('active', 'prepared', 'retiring')");
    look_at_ders(&l, "issuer",
                 "SELECT c.node_id AS id, c.issuer_certificate AS der, a.severity"
                 " FROM cluster_authorities c LEFT JOIN certificate_alarms a"
                 " ON a.subject_kind = 'issuer' AND a.subject_id = c.node_id"
                 " WHERE c.status <> 'removed'");
    look_at_nodes(&l);
    look_at_the_gone(&l);
}

unsigned expiry_alarms(const struct authority *a)
{
    if (fsm_level(a->fsm) < LEVEL_MODEL) {
        return 0;
    }
    struct db_stmt *st = db_prepare(state_db(a), "SELECT count(*) AS n FROM certificate_alarms");
    unsigned n = db_step(st) == 1 ? (unsigned)db_col_int(st, "n") : 0;
    db_done(st);
    return n;
}
