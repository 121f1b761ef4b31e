#include "agent/issuer.h"

#include "base/file.h"

static int load_issuer_key(const struct member *m, struct pki_key **ret, struct errmsg *em)
{
    char *path = member_path(m, "issuer.key");
    int rc = pki_key_load(path, NULL, ret, em);
    free(path);
    return rc;
}

int issuer_prepare(struct member *m, struct buf *ret_csr, struct errmsg *em)
{
    struct pki_key *key = NULL;
    int rc = load_issuer_key(m, &key, em);
    if (rc == -ERR_NOT_FOUND) {
        char *path = member_path(m, "issuer.key");
        key = pki_key_generate();
        rc = pki_key_save(key, path, NULL, em);
        free(path);
    }
    if (rc == 0) {
        rc = pki_csr_build(key, ret_csr);
    }
    pki_key_free(key);
    return rc == 0 ? 0 : errmsg_wrap(em, rc, "issuer key");
}

static void chain_init(struct buf chain[3])
{
    for (size_t i = 0; i < 3; i++) {
        buf_init(&chain[i], CERT_DER_MAX);
    }
}

static void chain_fini(struct buf chain[3])
{
    for (size_t i = 0; i < 3; i++) {
        buf_fini(&chain[i]);
    }
}

/* Our own leaf under our own CA; the issuer must name us, or issuing refuses. */
static int make_leaf(struct member *m, const struct pki_key *issuer_key, struct blob issuer_der,
                     const struct pki_cert *issuer, const struct issuer_time *time, struct buf *ret,
                     struct errmsg *em)
{
    struct pki_key *key = NULL;
    int rc = member_key(m, &key, em);
    if (rc != 0) {
        return rc;
    }
    int64_t life_ms = time->leaf_life_ms == 0 ? PKI_LEAF_LIFE_MS : time->leaf_life_ms;
    struct pki_cert spec = {
        .kind = PKI_LEAF,
        .cluster_id = m->cluster_id,
        .node_id = m->node_id,
        .authority = true,
        .not_before_ms = time->now_ms - pki_leaf_backdate_ms(life_ms),
        .not_after_ms = time->now_ms + life_ms,
    };
    if (spec.not_before_ms < issuer->not_before_ms) {
        spec.not_before_ms = issuer->not_before_ms;
    }
    if (spec.not_after_ms > issuer->not_after_ms) {
        spec.not_after_ms = issuer->not_after_ms;
    }
    pki_serial_new(spec.serial);
    pki_key_public(key, spec.public_key);
    rc = pki_cert_issue(&spec, issuer_key, issuer_der, ret, em);
    pki_key_free(key);
    return rc;
}

static int verify_own(const struct member *m, const struct pki_trust *t, const struct blob chain[3],
                      int64_t now_ms, struct errmsg *em)
{
    struct pki_identity id;
    int rc = pki_chain_verify(t, chain, 3, now_ms, &id, em);
    if (rc == 0 && (!id.authority || !uuid_equal(&id.node_id, &m->node_id))) {
        rc = errmsg_set(em, -ERR_BAD_CERT, "certificate does not make this node an authority");
    }
    return rc;
}

static int check_issuer(const struct member *m, struct blob der, const struct pki_key *key,
                        struct pki_cert *ret, struct errmsg *em)
{
    uint8_t public_key[PKI_KEY_BYTES];
    int rc = pki_cert_parse(der, ret, em);
    if (rc != 0) {
        return rc;
    }
    pki_key_public(key, public_key);
    if (ret->kind != PKI_ISSUER) {
        return errmsg_set(em, -ERR_BAD_CERT, "not the certificate of an issuing CA");
    }
    if (!uuid_equal(&ret->cluster_id, &m->cluster_id)) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "CA certificate belongs to another cluster");
    }
    if (!uuid_equal(&ret->node_id, &m->node_id)) {
        return errmsg_set(em, -ERR_WRONG_NODE, "CA certificate belongs to another node");
    }
    if (memcmp(ret->public_key, public_key, PKI_KEY_BYTES) != 0) {
        return errmsg_set(em, -ERR_BAD_CERT, "CA certificate is for another key than ours");
    }
    return 0;
}

static int save_issuer(struct member *m, struct blob der, struct errmsg *em)
{
    struct buf pem;
    buf_init(&pem, (size_t)2 * CERT_DER_MAX);
    int rc = pki_pem_add(der, &pem);
    if (rc == 0) {
        char *path = member_path(m, "issuer.crt");
        rc = file_write_atomic(path, buf_blob(&pem), 0644, em);
        free(path);
    }
    buf_fini(&pem);
    return rc;
}

/* issuer.crt goes first: a node.crt with an authority name always has its CA beside it. */
static int install(struct member *m, const struct pki_trust *t, const struct pki_key *issuer_key,
                   struct blob issuer_der, const struct issuer_time *time, struct buf *ret_leaf,
                   struct errmsg *em)
{
    struct pki_cert issuer;
    int rc = check_issuer(m, issuer_der, issuer_key, &issuer, em);
    if (rc == 0) {
        rc = make_leaf(m, issuer_key, issuer_der, &issuer, time, ret_leaf, em);
    }
    if (rc != 0) {
        return rc;
    }
    const struct blob chain[3] = {buf_blob(ret_leaf), issuer_der,
                                  pki_trust_root_above(t, issuer_der)};
    if (chain[2].len == 0) {
        return errmsg_set(em, -ERR_BAD_CERT, "CA certificate is under a root that is not trusted");
    }
    rc = verify_own(m, t, chain, time->now_ms, em);
    if (rc == 0) {
        rc = save_issuer(m, issuer_der, em);
    }
    if (rc == 0) {
        rc = member_save_chain(m, chain, em);
    }
    return rc;
}

int issuer_install(struct member *m, const struct pki_trust *t, struct blob issuer_der,
                   const struct issuer_time *time, bool *ret_changed, struct buf *ret_leaf,
                   struct errmsg *em)
{
    struct pki_key *key = NULL;
    struct buf held[3];
    struct buf leaf;
    chain_init(held);
    buf_init(&leaf, CERT_DER_MAX);
    bool changed = false;
    int rc = load_issuer_key(m, &key, em);
    if (rc == -ERR_NOT_FOUND) {
        rc = errmsg_set(em, -ERR_CONFLICT, "no issuer key was prepared on this node");
    }
    if (rc == 0) {
        rc = member_load_chain(m, held, em);
    }
    if (rc != 0) {
        goto out;
    }
    const struct blob chain[3] = {buf_blob(&held[0]), buf_blob(&held[1]), buf_blob(&held[2])};
    if (blob_equal(chain[1], issuer_der) && verify_own(m, t, chain, time->now_ms, NULL) == 0) {
        buf_add(&leaf, chain[0].data, chain[0].len);
    } else {
        rc = install(m, t, key, issuer_der, time, &leaf, em);
        changed = rc == 0;
    }
    if (rc == 0) {
        buf_add(ret_leaf, leaf.data, leaf.len);
        *ret_changed = changed;
    }
out:
    buf_fini(&leaf);
    chain_fini(held);
    pki_key_free(key);
    return rc;
}

int issuer_renew_leaf(struct member *m, const struct pki_trust *t, const struct issuer_time *time,
                      struct errmsg *em)
{
    struct pki_key *key = NULL;
    struct buf held[3];
    struct buf leaf;
    chain_init(held);
    buf_init(&leaf, CERT_DER_MAX);
    int rc = load_issuer_key(m, &key, em);
    if (rc == 0) {
        rc = member_load_chain(m, held, em);
    }
    if (rc == 0) {
        rc = install(m, t, key, buf_blob(&held[1]), time, &leaf, em);
    }
    buf_fini(&leaf);
    chain_fini(held);
    pki_key_free(key);
    return rc;
}
