#include "lib/fake_cluster.h"

#include "base/rng.h"

#include <ftw.h>
#include <unistd.h>

static void new_serial(uint8_t serial[PKI_SERIAL_BYTES])
{
    rng_bytes(serial, PKI_SERIAL_BYTES);
    serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40);
}

static void issue(struct pki_cert *spec, const struct pki_key *key, struct blob issuer_der,
                  struct buf *out)
{
    struct errmsg em = ERRMSG_INIT;
    new_serial(spec->serial);
    if (pki_cert_issue(spec, key, issuer_der, out, &em) != 0) {
        fatal("fake certificate: %s", em.text);
    }
}

void fake_cluster_init(struct fake_cluster *c, int64_t now_ms)
{
    const struct uuid id = uuid_new();
    fake_cluster_init_as(c, &id, now_ms);
}

void fake_cluster_init_as(struct fake_cluster *c, const struct uuid *id, int64_t now_ms)
{
    *c = (struct fake_cluster){.id = *id, .root_key = pki_key_generate()};
    struct pki_cert spec = {
        .kind = PKI_ROOT,
        .cluster_id = c->id,
        .not_before_ms = now_ms - PKI_BACKDATE_MS,
        .not_after_ms = now_ms + PKI_ROOT_LIFE_MS,
    };
    pki_key_public(c->root_key, spec.public_key);
    buf_init(&c->root_der, CERT_DER_MAX);
    issue(&spec, c->root_key, blob_of(NULL, 0), &c->root_der);
    memcpy(c->root_fingerprint, spec.fingerprint, PKI_HASH_BYTES);
    c->trust = pki_trust_new(&c->id);
    CHECK(pki_trust_set_root(c->trust, buf_blob(&c->root_der), NULL) == 0);
}

void fake_cluster_fini(struct fake_cluster *c)
{
    pki_trust_free(c->trust);
    buf_fini(&c->root_der);
    pki_key_free(c->root_key);
}

void fake_issue_ca(const struct fake_cluster *c, const struct uuid *node_id,
                   const uint8_t public_key[PKI_KEY_BYTES], int64_t now_ms, struct buf *ret_der)
{
    struct pki_cert spec = {
        .kind = PKI_ISSUER,
        .cluster_id = c->id,
        .node_id = *node_id,
        .not_before_ms = now_ms - PKI_BACKDATE_MS,
        .not_after_ms = now_ms + PKI_ISSUER_LIFE_MS,
    };
    memcpy(spec.public_key, public_key, PKI_KEY_BYTES);
    issue(&spec, c->root_key, buf_blob(&c->root_der), ret_der);
}

static void leaf(const struct fake_cluster *c, const struct fake_node *issuer,
                 const struct pki_cert *partial, struct buf *ret_der)
{
    struct pki_cert spec = *partial;
    spec.kind = PKI_LEAF;
    spec.cluster_id = c->id;
    issue(&spec, issuer->issuer_key, buf_blob(&issuer->issuer_der), ret_der);
}

void fake_issue(const struct fake_cluster *c, const struct fake_node *issuer,
                const struct uuid *node_id, const uint8_t public_key[PKI_KEY_BYTES],
                int64_t not_before_ms, int64_t not_after_ms, struct buf *ret_der)
{
    struct pki_cert spec = {
        .node_id = *node_id, .not_before_ms = not_before_ms, .not_after_ms = not_after_ms};
    memcpy(spec.public_key, public_key, PKI_KEY_BYTES);
    leaf(c, issuer, &spec, ret_der);
}

void fake_node_init(struct fake_node *n, const struct fake_cluster *c, bool authority,
                    int64_t now_ms)
{
    const struct uuid id = uuid_new();
    fake_node_init_as(n, c, &id, authority, now_ms);
}

void fake_node_init_as(struct fake_node *n, const struct fake_cluster *c, const struct uuid *id,
                       bool authority, int64_t now_ms)
{
    uint8_t public_key[PKI_KEY_BYTES];
    *n = (struct fake_node){.id = *id, .key = pki_key_generate(), .issuer_key = pki_key_generate()};
    buf_init(&n->issuer_der, CERT_DER_MAX);
    buf_init(&n->leaf_der, CERT_DER_MAX);
    pki_key_public(n->issuer_key, public_key);
    pki_fingerprint(public_key, n->issuer_fingerprint);
    fake_issue_ca(c, &n->id, public_key, now_ms, &n->issuer_der);

    struct pki_cert spec = {
        .node_id = n->id,
        .authority = authority,
        .not_before_ms = now_ms - PKI_BACKDATE_MS,
        .not_after_ms = now_ms + PKI_LEAF_LIFE_MS,
    };
    pki_key_public(n->key, spec.public_key);
    pki_fingerprint(spec.public_key, n->fingerprint);
    leaf(c, n, &spec, &n->leaf_der);
}

void fake_node_fini(struct fake_node *n)
{
    buf_fini(&n->leaf_der);
    buf_fini(&n->issuer_der);
    pki_key_free(n->key);
    pki_key_free(n->issuer_key);
}

void fake_snapshot_init(struct fake_snapshot *s, const struct fake_cluster *c,
                        const struct fake_node *signer, const struct uuid *node_id,
                        uint64_t version, int64_t now_ms)
{
    *s = (struct fake_snapshot){
        .signer = signer,
        .address = "127.0.0.1:7400",
        .cluster_id = c->id,
        .node_id = *node_id,
        .schema = SNAPSHOT_SCHEMA,
        .epoch = 1,
        .version = version,
        .issued_at_ms = now_ms,
        .expires_at_ms = now_ms + SNAPSHOT_LIFE_MS,
        .scopes = {"node"},
    };
}

static void add_authority(const struct fake_node *n, const char *address, struct buf *raw,
                          uint32_t *count)
{
    const struct snapshot_authority a = {
        .node_id = n->id,
        .name = blob_str("a1"),
        .address = blob_str(address),
        .issuer_fingerprint = blob_of(n->issuer_fingerprint, PKI_HASH_BYTES),
        .status = blob_str("voter"),
    };
    msg_list_add(&snapshot_authority_desc, &a, raw, count);
}

void fake_body(const struct fake_snapshot *s, struct buf *out)
{
    struct buf authorities;
    struct buf roles;
    struct buf scopes;
    struct buf revoked;
    struct buf retired;
    struct mp_writer w;
    struct snapshot_body body = {
        .schema = s->schema,
        .cluster_id = s->cluster_id,
        .node_id = s->node_id,
        .epoch = s->epoch,
        .recovery = s->recovery,
        .config_version = s->version,
        .issued_at_ms = s->issued_at_ms,
        .expires_at_ms = s->expires_at_ms,
        .cluster_name = blob_str("prod"),
        .node_name = blob_str("n1"),
        .membership_status = blob_str("active"),
        .audit_seq = s->audit_seq,
        .audit_head = blob_of(s->audit_head, s->audit_seq == 0 ? 0 : sizeof s->audit_head),
    };
    buf_init(&authorities, SNAPSHOT_MAX_BYTES);
    buf_init(&roles, SNAPSHOT_MAX_BYTES);
    buf_init(&scopes, SNAPSHOT_MAX_BYTES);
    buf_init(&revoked, SNAPSHOT_MAX_BYTES);
    buf_init(&retired, SNAPSHOT_MAX_BYTES);
    if (!s->unlisted) {
        add_authority(s->signer, s->address, &authorities, &body.authorities.count);
    }
    if (s->second != NULL) {
        add_authority(s->second, s->second_address != NULL ? s->second_address : s->address,
                      &authorities, &body.authorities.count);
    }
    for (size_t i = 0; i < ARRAY_SIZE(s->roles) && s->roles[i] != NULL; i++) {
        const struct snapshot_role role = {.role = blob_str(s->roles[i])};
        msg_list_add(&snapshot_role_desc, &role, &roles, &body.roles.count);
    }
    mp_writer_init(&w, &scopes);
    for (size_t i = 0; i < ARRAY_SIZE(s->scopes) && s->scopes[i] != NULL; i++) {
        mp_put_str(&w, s->scopes[i]);
        body.scopes.count++;
    }
    mp_writer_init(&w, &revoked);
    for (size_t i = 0; i < ARRAY_SIZE(s->revoked) && s->revoked[i] != NULL; i++) {
        mp_put_bin(&w, blob_of(s->revoked[i], PKI_HASH_BYTES));
        body.revocations.count++;
    }
    mp_writer_init(&w, &retired);
    for (size_t i = 0; i < ARRAY_SIZE(s->retired) && s->retired[i] != NULL; i++) {
        mp_put_bin(&w, blob_of(s->retired[i], PKI_HASH_BYTES));
        body.retired_issuers.count++;
    }
    body.authorities.raw = buf_blob(&authorities);
    body.roles.raw = buf_blob(&roles);
    body.scopes.raw = buf_blob(&scopes);
    body.revocations.raw = buf_blob(&revoked);
    body.retired_issuers.raw = buf_blob(&retired);
    msg_encode(&snapshot_body_desc, &body, out);
    CHECK(out->err == 0);
    buf_fini(&authorities);
    buf_fini(&roles);
    buf_fini(&scopes);
    buf_fini(&revoked);
    buf_fini(&retired);
}

void fake_signature(const struct fake_node *signer, const char *domain, struct blob body,
                    struct buf *raw, uint32_t *count)
{
    uint8_t sig[PKI_SIG_BYTES];
    pki_sign(signer->key, domain, body, sig);
    const struct snapshot_signature s = {
        .signature = blob_of(sig, sizeof sig),
        .leaf = buf_blob(&signer->leaf_der),
        .issuer = buf_blob(&signer->issuer_der),
    };
    msg_list_add(&snapshot_signature_desc, &s, raw, count);
}

void fake_signed(struct blob body, struct blob signatures, uint32_t count, struct buf *out)
{
    const struct signed_snapshot msg = {
        .body = body,
        .signatures = {.raw = signatures, .count = count},
    };
    msg_encode(&signed_snapshot_desc, &msg, out);
    CHECK(out->err == 0);
}

void fake_sign(const struct fake_snapshot *s, struct buf *out)
{
    struct buf body;
    struct buf sigs;
    uint32_t count = 0;
    buf_init(&body, SNAPSHOT_MAX_BYTES);
    buf_init(&sigs, SNAPSHOT_MAX_BYTES);
    fake_body(s, &body);
    fake_signature(s->signer, SNAPSHOT_SIGN_DOMAIN, buf_blob(&body), &sigs, &count);
    fake_signed(buf_blob(&body), buf_blob(&sigs), count, out);
    buf_fini(&body);
    buf_fini(&sigs);
}

char *fake_tmpdir(void)
{
    char *path = xstrdup("/tmp/rap-test-XXXXXX");
    CHECK(mkdtemp(path) != NULL);
    return path;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

void fake_rmdir(char *path)
{
    CHECK(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0);
    free(path);
}
