/* An approval, checked before anything of it is kept (DESIGN section 5, step 6): the root is the one
 * the token pins, the chain leads to it and names our key, cluster and node, and the snapshot is
 * signed by an authority under the same root. */
#include "agent/config.h"
#include "agent/join_impl.h"

static int check_root(const struct join_token *token, struct blob der, struct errmsg *em)
{
    struct pki_cert root;
    int rc = pki_cert_parse(der, &root, em);
    if (rc == 0 && (root.kind != PKI_ROOT ||
                    !pki_equal(blob_of(root.fingerprint, sizeof root.fingerprint),
                               blob_of(token->root_fingerprint, sizeof token->root_fingerprint)))) {
        rc = errmsg_set(
            em, -ERR_BAD_CERT,
            "the root is not the one the token names: the owner may have rotated it since; "
            "ask for a new token");
    }
    return rc;
}

static int check_leaf(const struct member *m, const struct enroll_status *st,
                      const struct pki_identity *id, struct errmsg *em)
{
    struct pki_key *key;
    uint8_t public_key[PKI_KEY_BYTES];
    int rc = member_key(m, &key, em);
    if (rc != 0) {
        return rc;
    }
    pki_key_public(key, public_key);
    pki_key_free(key);
    if (memcmp(id->public_key, public_key, PKI_KEY_BYTES) != 0) {
        return errmsg_set(em, -ERR_BAD_CERT, "the certificate is for another key than ours");
    }
    if (!uuid_equal(&id->node_id, &st->node_id)) {
        return errmsg_set(em, -ERR_WRONG_NODE, "the certificate names another node");
    }
    if (id->authority) {
        return errmsg_set(em, -ERR_BAD_CERT, "a new node's certificate must not name an authority");
    }
    return 0;
}

static int verify(const struct member *m, const struct join_token *token,
                  const struct enroll_status *st, int64_t now_ms, struct pki_trust *trust,
                  struct config **ret, struct errmsg *em)
{
    const struct blob chain[3] = {st->leaf, st->issuer, st->root};
    struct blob record = config_trust(st->snapshot);
    struct pki_identity id;
    int rc = check_root(token, st->root, em);
    if (rc == 0) {
        rc = pki_trust_set_root(trust, st->root, em);
    }
    if (rc == 0 && record.len > 0) {
        rc = pki_trust_adopt(trust, record, em);
    }
    if (rc == 0) {
        rc = pki_chain_verify(trust, chain, 3, now_ms, &id, em);
    }
    if (rc == 0) {
        rc = check_leaf(m, st, &id, em);
    }
    if (rc != 0) {
        return rc;
    }
    struct config_expect expect = {
        .trust = trust,
        .cluster_id = token->cluster_id,
        .node_id = st->node_id,
        .now_ms = now_ms,
        .pin = token->pin.seq != 0 ? &token->pin : NULL,
    };
    memcpy(expect.fingerprint, id.fingerprint, sizeof expect.fingerprint);
    return config_verify(st->snapshot, &expect, ret, em);
}

int join_accept(struct member *m, const struct join_token *token, const struct enroll_status *st,
                int64_t now_ms, struct errmsg *em)
{
    char cluster_name[NAME_MAX_BYTES + 1];
    struct config *cfg = NULL;
    struct pki_trust *trust = pki_trust_new(&token->cluster_id);
    int rc = verify(m, token, st, now_ms, trust, &cfg, em);
    if (rc != 0) {
        goto out;
    }
    /* What was signed goes before what was only said. */
    struct blob name = cfg->body.cluster_name.len > 0 ? cfg->body.cluster_name : st->cluster_name;
    (void)snprintf(cluster_name, sizeof cluster_name, "%.*s", (int)name.len,
                   name.len > 0 ? (const char *)name.data : "");
    const struct member_approval approval = {
        .node_id = st->node_id,
        .cluster_name = cluster_name,
        .chain = {st->leaf, st->issuer, st->root},
        .snapshot = st->snapshot,
        .epoch = cfg->body.epoch,
        .config_version = cfg->body.config_version,
        .now_ms = now_ms,
        .authority_set = cfg->set_statement,
    };
    rc = member_approve(m, &approval, em);
out:
    config_free(cfg);
    pki_trust_free(trust);
    return rc;
}
