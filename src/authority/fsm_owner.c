/* What only the owner may decide, checked here by the owner's signature (decision 0018). The leader has
 * checked it before it proposed; but Raft believes its leader, and a leader's host may be stolen. So every
 * replica verifies for itself, from LEVEL_SIGNED on, with what the state alone says: the active root, and
 * the entry's stamp for the time. Like the owner's signed recoveries and sets, which were always checked. */
#include "authority/fsm_impl.h"

#include "wire/node_msg.h"

static int refuse(struct fsm_ctx *x, int rc, const char *what, const struct errmsg *em)
{
    return fsm_refuse(x, rc, "%s: %s", what, em->text[0] != '\0' ? em->text : err_text(rc));
}

static int trust_of(struct fsm_ctx *x, struct blob root_der, struct pki_trust **ret,
                    struct errmsg *em)
{
    struct uuid cluster;
    CHECK(uuid_parse(x->cluster_id, &cluster) == 0);
    struct pki_trust *t = pki_trust_new(&cluster);
    int rc = pki_trust_set_root(t, root_der, em);
    if (rc != 0) {
        pki_trust_free(t);
        return rc;
    }
    *ret = t;
    return 0;
}

/* The caller frees *ret. Refused when there is no active root. */
static int active_trust(struct fsm_ctx *x, struct pki_trust **ret)
{
    struct errmsg em = ERRMSG_INIT;
    struct db_stmt *st = db_prepare(
        x->db, "SELECT certificate FROM cluster_trust_roots WHERE status = 'active'");
    int rc = db_step(st);
    bool found = rc == 1;
    if (found) {
        rc = trust_of(x, db_col_blob(st, "certificate"), ret, &em);
    }
    db_done(st);
    if (found && rc != 0) {
        return refuse(x, rc, "the root certificate", &em);
    }
    return found    ? 0
           : rc < 0 ? rc
                    : fsm_refuse(x, -ERR_NOT_FOUND, "the cluster has no active root");
}

static bool same_cert(const struct cmd_cert *said, const struct pki_cert *is)
{
    return memcmp(said->serial.data, is->serial, PKI_SERIAL_BYTES) == 0 &&
           memcmp(said->public_key.data, is->public_key, PKI_KEY_BYTES) == 0 &&
           memcmp(said->fingerprint.data, is->fingerprint, PKI_HASH_BYTES) == 0 &&
           said->not_before_ms == is->not_before_ms && said->not_after_ms == is->not_after_ms;
}

int fsm_owner_made_authority(struct fsm_ctx *x, const struct authority_add *b,
                             const struct cmd_cert *leaf)
{
    struct pki_trust *trust = NULL;
    struct errmsg em = ERRMSG_INIT;
    struct pki_identity who;
    struct pki_cert issuer;
    struct pki_cert cert;
    const struct blob chain[] = {leaf->der, b->issuer_der};
    if (x->v->level < LEVEL_SIGNED) {
        return 0;
    }
    int rc = active_trust(x, &trust);
    if (rc != 0) {
        return rc;
    }
    rc = pki_chain_verify(trust, chain, ARRAY_SIZE(chain), x->now_ms, &who, &em);
    if (rc == 0) {
        rc = pki_cert_parse(b->issuer_der, &issuer, &em);
    }
    if (rc == 0) {
        rc = pki_cert_parse(leaf->der, &cert, &em);
    }
    pki_trust_free(trust);
    if (rc != 0) {
        return refuse(x, rc, "the owner's certificate of this authority", &em);
    }
    if (!who.authority || !uuid_equal(&who.node_id, &b->node_id) || !same_cert(leaf, &cert) ||
        memcmp(b->issuer_fingerprint.data, issuer.fingerprint, PKI_HASH_BYTES) != 0) {
        return fsm_refuse(x, -ERR_BAD_CERT, "what the owner certified is another authority");
    }
    return 0;
}

int fsm_owner_renewed_issuer(struct fsm_ctx *x, const struct authority_renew *b)
{
    struct pki_trust *trust = NULL;
    struct errmsg em = ERRMSG_INIT;
    struct pki_cert issuer;
    uint8_t root[PKI_HASH_BYTES];
    if (x->v->level < LEVEL_SIGNED) {
        return 0;
    }
    int rc = active_trust(x, &trust);
    if (rc != 0) {
        return rc;
    }
    rc = pki_issuer_verify(trust, b->issuer_der, x->now_ms, &issuer, root, &em);
    pki_trust_free(trust);
    if (rc != 0) {
        return refuse(x, rc, "the owner's certificate of this CA", &em);
    }
    if (!uuid_equal(&issuer.node_id, &b->node_id) ||
        memcmp(issuer.fingerprint, b->issuer_fingerprint.data, PKI_HASH_BYTES) != 0) {
        return fsm_refuse(x, -ERR_BAD_CERT, "what the owner certified is another CA");
    }
    return 0;
}

/* What the command says of the roots is what the record says. */
static bool same_roots(const struct trust_rotate *b, const struct pki_trust_view *v)
{
    size_t active = v->roots[0].status == TRUST_ROOT_ACTIVE ? 0 : 1;
    size_t other = 1 - active;
    if (b->seq != v->seq || b->active_id.len != PKI_HASH_BYTES ||
        memcmp(b->active_id.data, v->roots[active].cert.fingerprint, PKI_HASH_BYTES) != 0 ||
        (b->other_id.len != 0) != (v->count == 2)) {
        return false;
    }
    return v->count == 1 ||
           (memcmp(b->other_id.data, v->roots[other].cert.fingerprint, PKI_HASH_BYTES) == 0 &&
            b->other_status == (uint64_t)v->roots[other].status &&
            (b->new_root_der.len == 0 || blob_equal(b->new_root_der, v->roots[other].der)));
}

/* Every CA of the list is under the root that is the active one from here on. */
static int check_issuers(struct fsm_ctx *x, const struct trust_rotate *b, struct blob root_der)
{
    struct pki_trust *under = NULL;
    struct errmsg em = ERRMSG_INIT;
    struct mp_reader r;
    int rc = trust_of(x, root_der, &under, &em);
    mp_reader_init(&r, b->issuers.raw);
    for (uint32_t i = 0; rc == 0 && i < b->issuers.count; i++) {
        struct trust_issuer item;
        struct pki_cert issuer;
        uint8_t root[PKI_HASH_BYTES];
        rc = msg_decode(&trust_issuer_desc, MSG_STRICT, mp_get_bin(&r, SIZE_MAX), &item);
        if (rc == 0) {
            rc = pki_issuer_verify(under, item.der, x->now_ms, &issuer, root, &em);
        }
        if (rc == 0 && !uuid_equal(&issuer.node_id, &item.node_id)) {
            rc = errmsg_set(&em, -ERR_BAD_CERT, "it is another authority's");
        }
    }
    pki_trust_free(under);
    return rc == 0 ? 0 : refuse(x, rc, "a CA under the new root", &em);
}

int fsm_owner_rotated(struct fsm_ctx *x, const struct trust_rotate *b)
{
    struct pki_trust *trust = NULL;
    struct errmsg em = ERRMSG_INIT;
    struct pki_trust_view view;
    if (x->v->level < LEVEL_SIGNED) {
        return 0;
    }
    int rc = active_trust(x, &trust);
    if (rc != 0) {
        return rc;
    }
    rc = pki_trust_check(trust, b->record, &view, &em);
    pki_trust_free(trust);
    if (rc != 0) {
        return refuse(x, rc, "the owner's record of roots", &em);
    }
    if (!same_roots(b, &view)) {
        return fsm_refuse(x, -ERR_BAD_CERT, "the owner's record lists other roots");
    }
    return check_issuers(x, b, view.roots[view.roots[0].status == TRUST_ROOT_ACTIVE ? 0 : 1].der);
}
