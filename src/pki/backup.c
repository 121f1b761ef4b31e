#include "pki/backup.h"

/* Appends a signed_backup. */
static int sign_head(const char *domain, const struct pki_key *signer, const struct blob chain[3],
                     const struct backup_header *h, struct buf *out)
{
    uint8_t sig[PKI_SIG_BYTES];
    struct buf header;
    buf_init(&header, BACKUP_HEADER_MAX);
    msg_encode(&backup_header_desc, h, &header);
    int rc = header.err;
    if (rc == 0) {
        pki_sign(signer, domain, buf_blob(&header), sig);
        struct signed_backup s = {.header = buf_blob(&header),
                                  .signature = blob_of(sig, sizeof sig),
                                  .leaf = chain[0],
                                  .issuer = chain[1],
                                  .root = chain[2]};
        msg_encode(&signed_backup_desc, &s, out);
        rc = out->err;
    }
    buf_fini(&header);
    return rc;
}

int backup_head(const struct pki_key *signer, const struct blob chain[3],
                const struct backup_header *h, struct buf *out)
{
    struct buf whole;
    buf_init(&whole, SIGNED_BACKUP_MAX);
    int rc = sign_head(BACKUP_SIGN_DOMAIN, signer, chain, h, &whole);
    if (rc == 0) {
        const uint8_t len[4] = {(uint8_t)(whole.len >> 24), (uint8_t)(whole.len >> 16),
                                (uint8_t)(whole.len >> 8), (uint8_t)whole.len};
        buf_add(out, BACKUP_MAGIC, BACKUP_MAGIC_BYTES);
        buf_add(out, len, sizeof len);
        buf_add(out, whole.data, whole.len);
        rc = out->err;
    }
    buf_fini(&whole);
    return rc;
}

int seal_make(const struct pki_key *signer, const struct blob chain[3],
              const struct backup_header *h, struct buf *out)
{
    return sign_head(SEAL_SIGN_DOMAIN, signer, chain, h, out);
}

static int read_shape(struct blob in, struct signed_backup *ret, struct blob *ret_packed,
                      struct errmsg *em)
{
    if (in.len < BACKUP_PREFIX_BYTES || memcmp(in.data, BACKUP_MAGIC, BACKUP_MAGIC_BYTES) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "this is no backup of an authority");
    }
    const uint8_t *p = in.data + BACKUP_MAGIC_BYTES;
    size_t len = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    if (len > SIGNED_BACKUP_MAX) {
        return errmsg_set(em, -ERR_MALFORMED, "the head of the backup is damaged");
    }
    if (len > in.len - BACKUP_PREFIX_BYTES) {
        return errmsg_set(em, -ERR_CORRUPT, "the backup is truncated");
    }
    if (msg_decode(&signed_backup_desc, MSG_LENIENT, blob_of(p + 4, len), ret) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "the head of the backup is damaged");
    }
    *ret_packed = blob_of(p + 4 + len, in.len - BACKUP_PREFIX_BYTES - len);
    return 0;
}

static int check_signer(const char *domain, const struct signed_backup *s,
                        const struct backup_header *h, struct errmsg *em)
{
    struct pki_identity id;
    struct pki_cert leaf;
    const struct blob chain[] = {s->leaf, s->issuer, s->root};
    struct pki_trust *trust = pki_trust_new(&h->cluster_id);
    int rc = pki_trust_set_root(trust, s->root, em);
    if (rc == 0) {
        rc = pki_cert_parse(s->leaf, &leaf, em);
    }
    if (rc == 0) {
        /* The stamp of a seal is the log's, which a leader with a wrong clock may have set far ahead:
         * its signer is checked as of the end of its certificate. */
        bool seal = strcmp(domain, SEAL_SIGN_DOMAIN) == 0;
        rc = pki_chain_verify(trust, chain, 3, seal ? leaf.not_after_ms : h->time_ms, &id, em);
    }
    if (rc == 0 && (!id.authority || !uuid_equal(&id.node_id, &h->node_id))) {
        rc = errmsg_set(em, -ERR_NOT_AUTHORITY, "it is not signed by an authority");
    }
    if (rc == 0) {
        rc = pki_verify(id.public_key, domain, s->header, s->signature);
        rc = rc == 0 ? 0 : errmsg_set(em, rc, "its signature does not verify");
    }
    pki_trust_free(trust);
    return rc;
}

static int check_header(const struct backup_header *h, struct errmsg *em)
{
    if (h->version > BACKUP_VERSION) {
        return errmsg_set(em, -ERR_SCHEMA,
                          "the backup is of format %llu, this binary knows %d: install the version "
                          "that wrote it",
                          (unsigned long long)h->version, BACKUP_VERSION);
    }
    if (h->epoch > EPOCH_MAX || h->index == 0 || h->index > EPOCH_MAX || h->term == 0 ||
        h->term > EPOCH_MAX || h->time_ms < 0 || h->image_bytes > IMAGE_MAX_BYTES) {
        return errmsg_set(em, -ERR_MALFORMED, "the head of the backup is not plausible");
    }
    return 0;
}

static int check_image(const struct backup_header *h, struct blob packed, struct errmsg *em)
{
    uint8_t hash[PKI_HASH_BYTES];
    if (packed.len != h->packed_bytes) {
        return errmsg_set(em, -ERR_CORRUPT, "the backup is %s: %zu bytes of %llu",
                          packed.len < h->packed_bytes ? "truncated" : "too long", packed.len,
                          (unsigned long long)h->packed_bytes);
    }
    pki_sha256(packed, hash);
    if (!blob_equal(h->packed_sha256, blob_of(hash, sizeof hash))) {
        return errmsg_set(em, -ERR_CORRUPT, "the image in the backup is damaged");
    }
    return 0;
}

/* The signed head of either kind. packed: what it must be the head of. */
static int open_head(const char *domain, const struct signed_backup *s, struct blob packed,
                     struct blob root_der, struct backup_file *ret, struct errmsg *em)
{
    bool image = strcmp(domain, BACKUP_SIGN_DOMAIN) == 0;
    struct pki_cert root;
    struct backup_file f = {.packed = packed, .root_der = s->root};
    if (msg_decode(&backup_header_desc, MSG_LENIENT, s->header, &f.header) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "the head of the backup is damaged");
    }
    int rc = check_header(&f.header, em);
    rc = rc != 0 || !image ? rc : check_image(&f.header, packed, em);
    if (rc == 0) {
        rc = pki_cert_parse(s->root, &root, em);
    }
    if (rc == 0 && root_der.len > 0 && !blob_equal(root_der, s->root)) {
        rc = errmsg_set(em, -ERR_WRONG_CLUSTER, "the %s is of another cluster than this root",
                        image ? "backup" : "seal");
    }
    if (rc == 0) {
        rc = check_signer(domain, s, &f.header, em);
    }
    if (rc == 0) {
        memcpy(f.root_fingerprint, root.fingerprint, sizeof f.root_fingerprint);
        *ret = f;
    }
    return rc;
}

int backup_open(struct blob bytes, struct blob root_der, struct backup_file *ret, struct errmsg *em)
{
    struct signed_backup s;
    struct blob packed;
    int rc = read_shape(bytes, &s, &packed, em);
    return rc != 0 ? rc : open_head(BACKUP_SIGN_DOMAIN, &s, packed, root_der, ret, em);
}

int seal_open(struct blob bytes, struct blob root_der, struct backup_file *ret, struct errmsg *em)
{
    struct signed_backup s;
    if (bytes.len > SIGNED_BACKUP_MAX ||
        msg_decode(&signed_backup_desc, MSG_LENIENT, bytes, &s) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "the seal is damaged");
    }
    return open_head(SEAL_SIGN_DOMAIN, &s, blob_of(NULL, 0), root_der, ret, em);
}
