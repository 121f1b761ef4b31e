#include "pki/statement.h"

static const char recovery_domain[] = "rap-recovery";
static const char merge_domain[] = "rap-merge";
static const char split_terms_domain[] = "rap-split-terms";
static const char split_end_domain[] = "rap-split-end";
static const char split_report_domain[] = "rap-split-report";

int statement_sign(const struct pki_key *root, const struct recovery_statement *s, struct buf *out)
{
    uint8_t sig[PKI_SIG_BYTES];
    struct buf body;
    buf_init(&body, RECOVERY_BODY_MAX);
    msg_encode(&recovery_statement_desc, s, &body);
    int rc = body.err;
    if (rc == 0) {
        pki_sign(root, recovery_domain, buf_blob(&body), sig);
        struct signed_recovery whole = {.body = buf_blob(&body),
                                        .signature = blob_of(sig, sizeof sig)};
        msg_encode(&signed_recovery_desc, &whole, out);
        rc = out->err;
    }
    buf_fini(&body);
    return rc;
}

int statement_verify(struct blob in, const uint8_t root_key[PKI_KEY_BYTES],
                     const struct uuid *cluster_id, struct recovery_statement *ret,
                     struct errmsg *em)
{
    struct signed_recovery whole;
    struct recovery_statement s;
    int rc = msg_decode(&signed_recovery_desc, MSG_LENIENT, in, &whole);
    if (rc != 0) {
        return errmsg_set(em, rc, "the recovery statement does not decode");
    }
    /* The signature first: nothing is believed of a body that the owner did not sign. */
    rc = pki_verify(root_key, recovery_domain, whole.body, whole.signature);
    if (rc != 0 && !PLANTED("statement_of_anybody")) {
        return errmsg_set(em, rc,
                          "the recovery statement is not signed with this cluster's root key");
    }
    rc = recovery_statement_decode(whole.body, &s);
    if (rc != 0) {
        return errmsg_set(em, rc, "the recovery statement is not acceptable: %s", err_text(rc));
    }
    if (!uuid_equal(&s.cluster_id, cluster_id) && !PLANTED("statement_of_another_cluster")) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "the recovery statement is for another cluster");
    }
    *ret = s;
    return 0;
}

void statement_lineage(struct blob in, uint8_t ret[PKI_HASH_BYTES])
{
    if (in.len == 0) {
        memset(ret, 0, PKI_HASH_BYTES);
    } else {
        pki_sha256(in, ret);
    }
}

static void consent_bytes(const struct merge_consent *c, struct buf *out)
{
    buf_init(out, 256);
    msg_encode(&merge_consent_desc, c, out);
    CHECK(out->err == 0);
}

void consent_sign(const struct pki_key *root, const struct merge_consent *c,
                  uint8_t ret[PKI_SIG_BYTES])
{
    struct buf bytes;
    consent_bytes(c, &bytes);
    pki_sign(root, merge_domain, buf_blob(&bytes), ret);
    buf_fini(&bytes);
}

int consent_verify(const struct merge_consent *c, struct blob signature,
                   const uint8_t root_key[PKI_KEY_BYTES])
{
    struct buf bytes;
    consent_bytes(c, &bytes);
    int rc = pki_verify(root_key, merge_domain, buf_blob(&bytes), signature);
    buf_fini(&bytes);
    return rc;
}

/* --- splits --- */

void split_terms_sign(const struct pki_key *root, struct blob terms, uint8_t ret[PKI_SIG_BYTES])
{
    pki_sign(root, split_terms_domain, terms, ret);
}

int split_terms_verify(struct blob terms, struct blob signature,
                       const uint8_t root_key[PKI_KEY_BYTES], struct split_terms *ret)
{
    if (pki_verify(root_key, split_terms_domain, terms, signature) != 0) {
        return -ERR_DENIED;
    }
    return split_terms_decode(terms, ret);
}

static void split_end_bytes(const struct split_end *e, struct buf *out)
{
    buf_init(out, 256);
    msg_encode(&split_end_desc, e, out);
    CHECK(out->err == 0);
}

void split_end_sign(const struct pki_key *root, const struct split_end *e,
                    uint8_t ret[PKI_SIG_BYTES])
{
    struct buf bytes;
    split_end_bytes(e, &bytes);
    pki_sign(root, split_end_domain, buf_blob(&bytes), ret);
    buf_fini(&bytes);
}

int split_end_verify(const struct split_end *e, struct blob signature,
                     const uint8_t root_key[PKI_KEY_BYTES])
{
    struct buf bytes;
    split_end_bytes(e, &bytes);
    int rc = pki_verify(root_key, split_end_domain, buf_blob(&bytes), signature);
    buf_fini(&bytes);
    return rc == 0 ? 0 : -ERR_DENIED;
}

int split_report_sign(const struct pki_key *root, const struct split_report *r, struct buf *out)
{
    uint8_t sig[PKI_SIG_BYTES];
    uint8_t key[PKI_KEY_BYTES];
    struct buf body;
    buf_init(&body, SPLIT_REPORT_BODY_MAX);
    msg_encode(&split_report_desc, r, &body);
    int rc = body.err;
    if (rc == 0) {
        pki_sign(root, split_report_domain, buf_blob(&body), sig);
        pki_key_public(root, key);
        const struct signed_split_report whole = {.body = buf_blob(&body),
                                                  .root_key = blob_of(key, sizeof key),
                                                  .signature = blob_of(sig, sizeof sig)};
        msg_encode(&signed_split_report_desc, &whole, out);
        rc = out->err;
    }
    buf_fini(&body);
    return rc;
}

int split_report_verify(struct blob in, struct split_report *ret, uint8_t ret_pin[PKI_HASH_BYTES],
                        struct errmsg *em)
{
    struct signed_split_report whole;
    struct split_report r;
    int rc = msg_decode(&signed_split_report_desc, MSG_STRICT, in, &whole);
    if (rc != 0) {
        return errmsg_set(em, rc, "the report does not decode");
    }
    rc = pki_verify(whole.root_key.data, split_report_domain, whole.body, whole.signature);
    if (rc != 0) {
        return errmsg_set(em, rc, "the report is not signed with the root key it names");
    }
    rc = split_report_decode(whole.body, &r);
    if (rc != 0) {
        return errmsg_set(em, rc, "the report is not acceptable: %s", err_text(rc));
    }
    pki_fingerprint(whole.root_key.data, ret_pin);
    *ret = r;
    return 0;
}

int root_public_key(struct blob root_der, uint8_t ret[PKI_KEY_BYTES], struct errmsg *em)
{
    struct pki_cert root;
    int rc = pki_cert_parse(root_der, &root, em);
    if (rc == 0 && root.kind != PKI_ROOT) {
        rc = errmsg_set(em, -ERR_BAD_CERT, "not a root certificate");
    }
    if (rc == 0) {
        memcpy(ret, root.public_key, PKI_KEY_BYTES);
    }
    return rc;
}
