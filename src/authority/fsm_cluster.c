/* The cluster itself and its terms. */
#include "authority/fsm_impl.h"

static int insert_cluster(struct fsm_ctx *x, const struct cluster_init *b)
{
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO clusters (id, name, slug, status, created_at, updated_at,"
               " config_version) VALUES (?1, ?2, ?2, 'active', ?3, ?3, ?4)");
    db_bind_text(st, x->cluster_id);
    db_bind_textn(st, (const char *)b->name.data, b->name.len);
    db_bind_int(st, x->now_ms);
    db_bind_int(st, (int64_t)x->index);
    int rc = db_run(st);
    if (rc != 0) {
        return rc;
    }
    char root_id[HEX32];
    st = db_prepare(x->db, "INSERT INTO cluster_trust_roots (cluster_id, root_id, certificate,"
                           " status, created_at) VALUES (?, ?, ?, 'active', ?)");
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, fsm_hex(b->root_fingerprint, root_id));
    db_bind_blob(st, b->root_der);
    db_bind_int(st, x->now_ms);
    rc = db_run(st);
    if (rc != 0) {
        return rc;
    }
    st = db_prepare(x->db, "INSERT INTO authority_applied (cluster_id, epoch, term, \"index\")"
                           " VALUES (?, ?, ?, ?)");
    db_bind_text(st, x->cluster_id);
    db_bind_int(st, (int64_t)x->v->epoch);
    db_bind_int(st, (int64_t)x->term);
    db_bind_int(st, (int64_t)x->index);
    return db_run(st);
}

/* The fingerprint of the CA above the first leaf. A command that leaves it out has a certificate of
 * ours in it. */
static int first_issuer(struct fsm_ctx *x, const struct cluster_init *b,
                        const struct cmd_cert *cert, uint8_t ret[PKI_HASH_BYTES])
{
    struct pki_cert issuer;
    if (b->issuer_fingerprint.len == PKI_HASH_BYTES) {
        memcpy(ret, b->issuer_fingerprint.data, PKI_HASH_BYTES);
        return 0;
    }
    struct errmsg em = ERRMSG_INIT;
    if (pki_cert_parse(cert->issuer_der, &issuer, &em) != 0) {
        return fsm_refuse(x, -ERR_BAD_CERT, "the issuing CA certificate is not readable: %s",
                          em.text);
    }
    memcpy(ret, issuer.fingerprint, PKI_HASH_BYTES);
    return 0;
}

static int insert_first_authority(struct fsm_ctx *x, const struct cluster_init *b,
                                  const struct cmd_cert *cert, const char *node_id)
{
    uint8_t issuer[PKI_HASH_BYTES];
    int rc = first_issuer(x, b, cert, issuer);
    if (rc != 0) {
        return rc;
    }
    rc = fsm_node_insert(x, &(struct fsm_new_node){
                                .id = node_id,
                                .name = b->node_name,
                                .fingerprint = cert->fingerprint,
                                .address = b->address,
                            });
    if (rc == 0) {
        rc = fsm_identity_insert(x, node_id, cert);
    }
    bool changed;
    if (rc == 0) {
        rc = fsm_capabilities_set(x, node_id, &b->capabilities, &changed);
    }
    if (rc == 0) {
        rc = fsm_authority_insert(x, &(struct fsm_new_authority){
                                         .node_id = node_id,
                                         .address = b->address,
                                         .issuer_der = cert->issuer_der,
                                         .issuer_fingerprint = blob_of(issuer, sizeof issuer),
                                         .status = "voter",
                                     });
    }
    return rc;
}

int fsm_cluster_init(struct fsm_ctx *x, const struct cluster_init *b)
{
    if (x->v->cluster_id[0] != '\0') {
        return fsm_refuse(x, -ERR_EXISTS, "this log holds cluster %s already", x->v->cluster_id);
    }
    if (!text_is_name((const char *)b->name.data, b->name.len)) {
        return fsm_refuse(x, -ERR_INVALID,
                          "a cluster name is 1 to 63 of a-z, 0-9 and -, with no - at either end");
    }
    struct cmd_cert cert;
    int rc = fsm_cert_decode(x, b->cert, &cert);
    if (rc != 0) {
        return rc;
    }
    char node_id[UUID_TEXT_MAX];
    (void)fsm_id(&b->node_id, node_id);
    (void)fsm_id(&b->cluster_id, x->v->cluster_id);
    x->v->epoch = 1;
    x->config_changed = true;
    rc = fsm_name_free(x, b->node_name, NULL, NULL);
    if (rc == 0) {
        rc = insert_cluster(x, b);
    }
    if (rc == 0) {
        rc = insert_first_authority(x, b, &cert, node_id);
    }
    if (rc == 0) {
        rc = fsm_audit_simple(x, "cluster_created", "cluster", x->cluster_id, "name", b->name);
    }
    if (rc == 0) {
        rc = fsm_audit_cert(x, "certificate_issued", node_id, &cert);
    }
    if (rc == 0) {
        rc = fsm_audit_simple(x, "authority_added", "node", node_id, "status", blob_str("voter"));
    }
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_CLUSTER " WHERE c.id = ?", x->cluster_id);
}

int fsm_term_start(struct fsm_ctx *x, const struct term_start *b)
{
    int64_t last = 0;
    struct db_stmt *st = db_prepare(
        x->db, "SELECT coalesce(max(term), 0) FROM cluster_authority_terms WHERE epoch = ?");
    db_bind_int(st, (int64_t)x->v->epoch);
    int rc = fsm_one_int(st, &last);
    if (rc < 0) {
        return rc;
    }
    if (b->term != x->term || b->term <= (uint64_t)last) {
        return fsm_refuse(x, -ERR_CONFLICT, "term %llu cannot start after term %lld",
                          (unsigned long long)b->term, (long long)last);
    }
    char leader[UUID_TEXT_MAX];
    (void)fsm_id(&b->leader_id, leader);
    st = db_prepare(x->db, "UPDATE cluster_authority_terms SET ended_at = ?"
                           " WHERE epoch = ? AND term = ? AND ended_at IS NULL");
    db_bind_int(st, x->now_ms);
    db_bind_int(st, (int64_t)x->v->epoch);
    db_bind_int(st, last);
    rc = db_run(st);
    if (rc == 0) {
        st = db_prepare(x->db, "INSERT INTO cluster_authority_terms (cluster_id, epoch, term,"
                               " leader_node_id, started_at) VALUES (?, ?, ?, ?, ?)");
        db_bind_text(st, x->cluster_id);
        db_bind_int(st, (int64_t)x->v->epoch);
        db_bind_int(st, (int64_t)b->term);
        db_bind_text(st, leader);
        db_bind_int(st, x->now_ms);
        rc = db_run(st);
    }
    if (rc == 0) {
        struct fsm_json j;
        fsm_json_begin(&j);
        fsm_json_int(&j, "epoch", (int64_t)x->v->epoch);
        fsm_json_int(&j, "term", (int64_t)b->term);
        const struct fsm_audit a = {
            .event = "term_started", .subject_type = "node", .subject_id = leader};
        rc = fsm_audit_add(x, &a, fsm_json_end(&j));
        fsm_json_fini(&j);
    }
    if (rc != 0) {
        return rc;
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "epoch", (int64_t)x->v->epoch);
    mp_doc_int(&x->doc, &d, "term", (int64_t)b->term);
    mp_doc_str(&x->doc, &d, "leader_node_id", leader);
    mp_doc_end(&x->doc, &d);
    return 0;
}
