#include "authority/authority_impl.h"

/* As the cluster's policy says. */
static int64_t leaf_life_ms(struct authority *a)
{
    int64_t ms = authority_leaf_life_ms(a);
    return ms == 0 ? PKI_LEAF_LIFE_MS : ms;
}

/* Builds the certificate from what the command says, never from a request (DESIGN section 4), and
 * signs it with this authority's own issuing CA. It counts only once it is committed. */
int issue_leaf(struct authority *a, const struct uuid *node_id,
               const uint8_t public_key[PKI_KEY_BYTES], struct buf *ret_cmd_cert, struct errmsg *em)
{
    int64_t now_ms = authority_now_ms(a);
    int64_t life_ms = leaf_life_ms(a);
    struct pki_cert issuer;
    int rc = pki_cert_parse(buf_blob(&a->issuer_der), &issuer, em);
    if (rc != 0) {
        return errmsg_wrap(em, rc, "own issuing CA");
    }
    struct pki_cert spec = {
        .kind = PKI_LEAF,
        .cluster_id = a->cfg.cluster_id,
        .node_id = *node_id,
        .not_before_ms = (now_ms - pki_leaf_backdate_ms(life_ms)) / 1000 * 1000,
        .not_after_ms = (now_ms + life_ms) / 1000 * 1000,
    };
    /* Nothing outlives the CA above it: so the node renews in time, under whatever CA comes next. */
    if (spec.not_after_ms > issuer.not_after_ms) {
        spec.not_after_ms = issuer.not_after_ms;
    }
    if (spec.not_after_ms <= now_ms) {
        return errmsg_set(em, -ERR_CERT_EXPIRED,
                          "the issuing CA of this authority has expired: the owner renews it with "
                          "`rap authority renew`");
    }
    memcpy(spec.public_key, public_key, PKI_KEY_BYTES);
    pki_serial_new(spec.serial);

    struct buf der;
    buf_init(&der, CERT_DER_MAX);
    rc = pki_cert_issue(&spec, a->issuer_key, buf_blob(&a->issuer_der), &der, em);
    if (rc == 0) {
        struct cmd_cert cert = {
            .der = buf_blob(&der),
            .serial = blob_of(spec.serial, sizeof spec.serial),
            .not_before_ms = spec.not_before_ms,
            .not_after_ms = spec.not_after_ms,
            .public_key = blob_of(spec.public_key, sizeof spec.public_key),
            .fingerprint = blob_of(spec.fingerprint, sizeof spec.fingerprint),
            .issuer_der = buf_blob(&a->issuer_der),
        };
        msg_encode(&cmd_cert_desc, &cert, ret_cmd_cert);
        rc = ret_cmd_cert->err;
    }
    buf_fini(&der);
    return rc;
}
