/* `rap trust show`: the roots, the CAs, where a rotation stands, who still waits, what runs out. */
#include "authority/query_impl.h"

#include "authority/expiry.h"
#include "base/text.h"
#include "wire/token.h"

#define NODES_SHOWN 100

static void put_certificate(struct mp_writer *w, struct mp_doc *d, struct blob der, int64_t now_ms)
{
    struct pki_cert c;
    if (pki_cert_parse(der, &c, NULL) == 0) {
        mp_doc_time(w, d, "not_before", c.not_before_ms);
        mp_doc_time(w, d, "expires_at", c.not_after_ms);
        mp_doc_str(w, d, "severity",
                   expiry_severity(c.kind, c.not_before_ms, c.not_after_ms, now_ms));
    }
}

static void put_roots(struct db *db, int64_t now_ms, struct mp_writer *w)
{
    struct db_stmt *st = db_prepare(
        db, "SELECT r.root_id, r.certificate, r.status, r.created_at, r.retired_at,"
            " (SELECT count(*) FROM node_identities i JOIN cluster_memberships m"
            "   ON m.node_id = i.node_id WHERE i.root_id = r.root_id"
            "   AND i.identity_status = 'active' AND m.membership_status = 'active')"
            "   AS nodes_count"
            " FROM cluster_trust_roots r ORDER BY r.created_at, r.root_id");
    size_t at = mp_list_begin(w);
    uint32_t n = 0;
    while (db_step(st) == 1) {
        struct mp_doc d;
        mp_doc_begin(w, &d);
        mp_doc_str(w, &d, "root_id", db_col_text(st, "root_id"));
        mp_doc_str(w, &d, "status", db_col_text(st, "status"));
        put_certificate(w, &d, db_col_blob(st, "certificate"), now_ms);
        mp_doc_int(w, &d, "nodes_count", db_col_int(st, "nodes_count"));
        mp_doc_time(w, &d, "created_at", db_col_int(st, "created_at"));
        mp_doc_time(w, &d, "retired_at", db_col_int(st, "retired_at"));
        mp_doc_end(w, &d);
        n++;
    }
    db_done(st);
    mp_list_end(w, at, n);
}

static void put_issuers(struct db *db, int64_t now_ms, struct mp_writer *w)
{
    struct db_stmt *st = db_prepare(
        db, "SELECT a.node_id, n.name, a.issuer_certificate, a.issuer_fingerprint, a.root_id"
            " FROM cluster_authorities a JOIN nodes n ON n.id = a.node_id"
            " WHERE a.status <> 'removed' ORDER BY a.node_id");
    size_t at = mp_list_begin(w);
    uint32_t n = 0;
    while (db_step(st) == 1) {
        struct mp_doc d;
        struct blob der = db_col_blob(st, "issuer_certificate");
        mp_doc_begin(w, &d);
        mp_doc_str(w, &d, "node_id", db_col_text(st, "node_id"));
        mp_doc_str(w, &d, "name", db_col_text(st, "name"));
        mp_doc_str(w, &d, "root_id", db_col_text(st, "root_id"));
        mp_doc_str(w, &d, "issuer_fingerprint", db_col_text(st, "issuer_fingerprint"));
        put_certificate(w, &d, der, now_ms);
        mp_doc_hex(w, &d, "certificate", der);
        mp_doc_end(w, &d);
        n++;
    }
    db_done(st);
    mp_list_end(w, at, n);
}

/* The CAs of removed authorities, and how many nodes have not renewed under another one yet: a CA may be in
 * a thief's hands. */
static void put_retired_issuers(struct db *db, struct mp_writer *w)
{
    struct db_stmt *st = db_prepare(
        db, "SELECT a.node_id, n.name, a.issuer_fingerprint, a.removed_at, (SELECT count(*)"
            "   FROM node_identities i JOIN cluster_memberships m ON m.node_id = i.node_id"
            "   WHERE i.issuer_certificate IN (a.issuer_certificate, a.previous_issuer)"
            "   AND i.identity_status = 'active' AND m.membership_status = 'active')"
            "   AS nodes_count"
            " FROM cluster_authorities a LEFT JOIN nodes n ON n.id = a.node_id"
            " WHERE a.status = 'removed' ORDER BY a.removed_at DESC, a.node_id LIMIT 100");
    size_t at = mp_list_begin(w);
    uint32_t n = 0;
    while (db_step(st) == 1) {
        struct mp_doc d;
        mp_doc_begin(w, &d);
        mp_doc_str(w, &d, "node_id", db_col_text(st, "node_id"));
        mp_doc_str(w, &d, "name", db_col_text(st, "name"));
        mp_doc_str(w, &d, "issuer_fingerprint", db_col_text(st, "issuer_fingerprint"));
        mp_doc_int(w, &d, "nodes_count", db_col_int(st, "nodes_count"));
        mp_doc_time(w, &d, "removed_at", db_col_int(st, "removed_at"));
        mp_doc_end(w, &d);
        n++;
    }
    db_done(st);
    mp_list_end(w, at, n);
}

/* Active nodes without a certificate under the active root; at most NODES_SHOWN, then "...". */
static uint32_t put_nodes(struct db *db, struct mp_writer *w)
{
    struct db_stmt *st = db_prepare(
        db, "SELECT n.name FROM nodes n JOIN cluster_memberships m ON m.node_id = n.id"
            " WHERE m.membership_status = 'active' AND NOT EXISTS (SELECT 1 FROM node_identities i"
            "   JOIN cluster_trust_roots r ON r.root_id = i.root_id AND r.status = 'active'"
            "   WHERE i.node_id = n.id AND i.identity_status = 'active') ORDER BY n.name");
    size_t at = mp_list_begin(w);
    uint32_t n = 0;
    while (db_step(st) == 1) {
        if (n++ < NODES_SHOWN) {
            mp_put_str(w, db_col_text(st, "name"));
        }
    }
    db_done(st);
    mp_list_end(w, at, n < NODES_SHOWN ? n : NODES_SHOWN);
    return n;
}

static void put_alarms(struct db *db, struct mp_writer *w)
{
    struct db_stmt *st = db_prepare(
        db, "SELECT a.subject_kind, a.subject_id, n.name, a.severity, a.not_after, a.raised_at"
            " FROM certificate_alarms a LEFT JOIN nodes n ON n.id = a.subject_id"
            " ORDER BY a.not_after, a.subject_id LIMIT 100");
    size_t at = mp_list_begin(w);
    uint32_t n = 0;
    while (db_step(st) == 1) {
        struct mp_doc d;
        const char *name = db_col_text(st, "name");
        mp_doc_begin(w, &d);
        mp_doc_str(w, &d, "certificate_of", db_col_text(st, "subject_kind"));
        mp_doc_str(w, &d, "subject_id", db_col_text(st, "subject_id"));
        mp_doc_str(w, &d, "name", name[0] == '\0' ? NULL : name);
        mp_doc_str(w, &d, "severity", db_col_text(st, "severity"));
        mp_doc_time(w, &d, "expires_at", db_col_int(st, "not_after"));
        mp_doc_time(w, &d, "raised_at", db_col_int(st, "raised_at"));
        mp_doc_end(w, &d);
        n++;
    }
    db_done(st);
    mp_list_end(w, at, n);
}

/* What the root signs to begin the chain of authority sets, or to go on in one step: the voters as they
 * are. */
static void put_next_set(struct db *db, const char *cluster_id, uint64_t epoch, struct mp_writer *w,
                         struct mp_doc *d)
{
    struct witness_member members[AUTHORITIES_MAX];
    struct witness_set held = {.known = false};
    struct uuid cluster;
    struct buf statement;
    struct db_stmt *st = db_prepare(
        db, "SELECT statement FROM authority_sets ORDER BY seq DESC LIMIT 1");
    bool sound = db_step(st) != 1 ||
                 witness_set_read(db_col_blob(st, "statement"), &held, NULL) == 0;
    db_done(st);
    if (sound && held.known) {
        char text[SET_PIN_TEXT_MAX];
        struct set_pin pin = {.epoch = held.epoch, .seq = held.seq};
        memcpy(pin.hash, held.hash, sizeof pin.hash);
        set_pin_format(&pin, text);
        mp_doc_str(w, d, "authority_set_pin", text);
    }
    size_t count = fsm_voters(db, members);
    buf_init(&statement, AUTHORITY_SET_MAX);
    if (sound && count > 0 && uuid_parse(cluster_id, &cluster) == 0) {
        witness_set_build(&held, &cluster, epoch, members, count, &statement);
        mp_doc_hex(w, d, "authority_set_next", buf_blob(&statement));
    }
    buf_fini(&statement);
}

int query_trust(struct db *db, const struct query_args *args, struct mp_writer *w,
                struct errmsg *em)
{
    struct mp_doc d;
    char cluster_id[64] = "";
    char phase[16] = "none";
    int64_t seq = 0;
    int64_t life = 0;
    (void)em;
    int64_t epoch = 0;
    struct db_stmt *st = db_prepare(db, "SELECT c.id, c.leaf_life_ms, p.epoch FROM clusters c"
                                        " JOIN authority_applied p ON p.cluster_id = c.id");
    if (db_step(st) == 1) {
        epoch = db_col_int(st, "epoch");
        (void)snprintf(cluster_id, sizeof cluster_id, "%s", db_col_text(st, "id"));
        life = db_col_int(st, "leaf_life_ms");
    }
    db_done(st);
    st = db_prepare(db, "SELECT seq, phase FROM cluster_trust_records ORDER BY seq DESC LIMIT 1");
    if (db_step(st) == 1) {
        seq = db_col_int(st, "seq");
        (void)snprintf(phase, sizeof phase, "%s", db_col_text(st, "phase"));
    }
    db_done(st);
    mp_doc_begin(w, &d);
    mp_doc_str(w, &d, "cluster_id", cluster_id);
    mp_doc_int(w, &d, "epoch", epoch);
    mp_doc_int(w, &d, "seq", seq);
    mp_doc_str(w, &d, "last_phase", phase);
    mp_doc_int(w, &d, "leaf_life_ms", life == 0 ? PKI_LEAF_LIFE_MS : life);
    st = db_prepare(db, "SELECT statement FROM authority_sets ORDER BY seq DESC LIMIT 1");
    if (db_step(st) == 1) {
        mp_doc_hex(w, &d, "authority_set", db_col_blob(st, "statement"));
    }
    db_done(st);
    put_next_set(db, cluster_id, (uint64_t)epoch, w, &d);
    mp_doc_key(w, &d, "roots");
    put_roots(db, args->now_ms, w);
    mp_doc_key(w, &d, "issuers");
    put_issuers(db, args->now_ms, w);
    mp_doc_key(w, &d, "retired_issuers");
    put_retired_issuers(db, w);
    mp_doc_key(w, &d, "nodes_not_under_active_root");
    uint32_t n = put_nodes(db, w);
    mp_doc_int(w, &d, "nodes_not_under_active_root_count", n);
    mp_doc_key(w, &d, "alarms");
    put_alarms(db, w);
    mp_doc_end(w, &d);
    return 0;
}
