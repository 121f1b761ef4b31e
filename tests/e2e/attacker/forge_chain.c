/* Certificate chains that are right but for one thing. */
#include "attacker.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "pki/pki_internal.h"

#define HOUR_MS 3600000LL

static void read_pem(const char *folder, const char *name, struct buf *out, size_t max,
                     size_t *ret_count)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf pem;
    char *path = path_join(folder, name);
    buf_init(&pem, 65536);
    for (size_t i = 0; i < max; i++) {
        buf_init(&out[i], CERT_DER_MAX);
    }
    if (file_read(path, &pem, &em) != 0 ||
        pki_pem_read(buf_blob(&pem), out, max, ret_count, &em) != 0) {
        give_up("%s: %s", path, em.text);
    }
    buf_fini(&pem);
    free(path);
}

static struct pki_key *read_key(const char *folder, const char *name)
{
    struct errmsg em = ERRMSG_INIT;
    struct pki_key *key = NULL;
    char *path = path_join(folder, name);
    if (pki_key_load(path, NULL, &key, &em) != 0) {
        give_up("%s: %s", path, em.text);
    }
    free(path);
    return key;
}

void forge_open(struct forge *g, const char *owner_dir)
{
    size_t count;
    struct pki_cert root;
    g->root_key = read_key(owner_dir, "root.key");
    read_pem(owner_dir, "root.crt", &g->root_der, 1, &count);
    CHECK(pki_cert_parse(buf_blob(&g->root_der), &root, NULL) == 0);
    g->cluster_id = root.cluster_id;
}

static void add(struct forged *f, const struct buf *der)
{
    struct buf *b = &f->der[f->count];
    buf_init(b, CERT_DER_MAX);
    buf_add(b, der->data, der->len);
    f->chain[f->count] = buf_blob(b);
    f->count++;
}

void load_member(const char *member_dir, struct forged *ret)
{
    read_pem(member_dir, "node.crt", ret->der, 3, &ret->count);
    for (size_t i = 0; i < ret->count; i++) {
        ret->chain[i] = buf_blob(&ret->der[i]);
    }
    ret->key = read_key(member_dir, "node.key");
}

/* One certificate with its key. */
struct made {
    struct pki_cert spec;
    struct pki_key *key;
    struct buf der;
};

static void begin(struct made *m, enum pki_cert_kind kind, const struct uuid *cluster_id)
{
    int64_t now = clock_wall_ms() / 1000 * 1000;
    *m = (struct made){.spec = {.kind = kind,
                                .cluster_id = *cluster_id,
                                .not_before_ms = now - PKI_BACKDATE_MS,
                                .not_after_ms = now + HOUR_MS}};
    if (kind != PKI_ROOT) {
        m->spec.node_id = uuid_new();
    }
    m->key = pki_key_generate();
    pki_key_public(m->key, m->spec.public_key);
    pki_fingerprint(m->spec.public_key, m->spec.fingerprint);
    pki_serial_new(m->spec.serial);
    buf_init(&m->der, CERT_DER_MAX);
}

static void issue(struct made *m, const struct pki_key *signer, struct blob issuer)
{
    struct errmsg em = ERRMSG_INIT;
    if (pki_cert_issue(&m->spec, signer, issuer, &m->der, &em) != 0) {
        give_up("cannot make the certificate: %s", em.text);
    }
}

/* Signs what pki_cert_issue would refuse to. */
static void issue_anyway(struct made *m, const struct made *above)
{
    struct pki_cert_wire w = {.cert = m->spec, .issuer_id = above->spec.node_id};
    uint8_t signature[PKI_SIG_BYTES];
    struct buf tbs;
    buf_init(&tbs, CERT_DER_MAX);
    pki_key_id(above->spec.public_key, w.issuer_key_id);
    pki_cert_write_tbs(&w, &tbs);
    pki_sign_raw(above->key, buf_blob(&tbs), signature);
    pki_cert_write(buf_blob(&tbs), signature, &m->der);
    buf_fini(&tbs);
}

/* The same certificate with other bytes in it, signed again. */
static void patch(struct made *m, const struct made *above, const void *from, const void *to,
                  size_t len)
{
    struct pki_cert_wire w;
    struct buf tbs;
    uint8_t signature[PKI_SIG_BYTES];
    CHECK(pki_cert_read(buf_blob(&m->der), &w, NULL) == 0);
    buf_init(&tbs, CERT_DER_MAX);
    buf_add(&tbs, w.tbs.data, w.tbs.len);
    uint8_t *at = memmem(tbs.data, tbs.len, from, len);
    CHECK(at != NULL);
    memcpy(at, to, len);
    pki_sign_raw(above->key, buf_blob(&tbs), signature);
    buf_clear(&m->der);
    pki_cert_write(buf_blob(&tbs), signature, &m->der);
    buf_fini(&tbs);
}

static void shift(struct pki_cert *spec, int64_t by_ms)
{
    spec->not_before_ms += by_ms;
    spec->not_after_ms += by_ms;
}

static int forge_leaf(const char *kind, const struct forge *g, struct made *leaf,
                      const struct made *ca)
{
    /* The extended key usages of a leaf, clientAuth and serverAuth, become codeSigning. */
    static const uint8_t client_auth[] = {0x2b, 6, 1, 5, 5, 7, 3, 2};
    static const uint8_t code_signing[] = {0x2b, 6, 1, 5, 5, 7, 3, 3};
    if (strcmp(kind, "expired") == 0) {
        shift(&leaf->spec, -2 * HOUR_MS);
    } else if (strcmp(kind, "not_yet_valid") == 0) {
        shift(&leaf->spec, 2 * HOUR_MS);
    } else if (strcmp(kind, "own_id") == 0) {
        leaf->spec.node_id = g->server_id;
    } else if (strcmp(kind, "authority_name") == 0) {
        leaf->spec.authority = true; /* under the CA of another authority */
        issue_anyway(leaf, ca);
        return 0;
    }
    issue(leaf, ca->key, buf_blob(&ca->der));
    if (strcmp(kind, "wrong_eku") == 0) {
        patch(leaf, ca, client_auth, code_signing, sizeof client_auth);
    }
    return 0;
}

/* A leaf under a CA under this root. */
static void three(const char *kind, const struct forge *g, const struct pki_key *root_key,
                  const struct buf *root_der, const struct uuid *cluster_id, struct forged *ret)
{
    struct made ca;
    struct made leaf;
    begin(&ca, PKI_ISSUER, cluster_id);
    begin(&leaf, PKI_LEAF, cluster_id);
    if (strcmp(kind, "expired_ca") == 0) {
        shift(&ca.spec, -2 * HOUR_MS);
        shift(&leaf.spec, -2 * HOUR_MS);
    }
    issue(&ca, root_key, buf_blob(root_der));
    if (strcmp(kind, "expired_ca") == 0) {
        /* Whole again, under a CA whose time is over. */
        shift(&leaf.spec, 2 * HOUR_MS);
        issue_anyway(&leaf, &ca);
    } else {
        (void)forge_leaf(kind, g, &leaf, &ca);
    }
    add(ret, &leaf.der);
    add(ret, &ca.der);
    ret->key = leaf.key;
}

static void another_root(const struct uuid *cluster_id, bool show_it, const struct forge *g,
                         struct forged *ret)
{
    struct made root;
    begin(&root, PKI_ROOT, cluster_id);
    issue(&root, root.key, blob_of(NULL, 0));
    three("good", g, root.key, &root.der, cluster_id, ret);
    if (show_it) {
        add(ret, &root.der);
    }
}

static void self_signed(const struct forge *g, struct forged *ret)
{
    struct made leaf;
    begin(&leaf, PKI_LEAF, &g->cluster_id);
    issue_anyway(&leaf, &leaf);
    add(ret, &leaf.der);
    ret->key = leaf.key;
}

/* A node signs a certificate for another node. */
static void node_as_ca(const struct forge *g, struct forged *ret)
{
    struct made ca;
    struct made node;
    struct made leaf;
    begin(&ca, PKI_ISSUER, &g->cluster_id);
    begin(&node, PKI_LEAF, &g->cluster_id);
    begin(&leaf, PKI_LEAF, &g->cluster_id);
    issue(&ca, g->root_key, buf_blob(&g->root_der));
    issue(&node, ca.key, buf_blob(&ca.der));
    issue_anyway(&leaf, &node);
    add(ret, &leaf.der);
    add(ret, &node.der);
    add(ret, &ca.der);
    ret->key = leaf.key;
}

int forge_chain(const struct forge *g, const char *kind, struct forged *ret)
{
    static const char *const single[] = {"good",       "expired",   "not_yet_valid", "own_id",
                                         "expired_ca", "wrong_eku", "authority_name"};
    struct uuid elsewhere = uuid_new();
    *ret = (struct forged){.count = 0};
    for (size_t i = 0; i < ARRAY_SIZE(single); i++) {
        if (strcmp(kind, single[i]) == 0) {
            three(kind, g, g->root_key, &g->root_der, &g->cluster_id, ret);
            return 0;
        }
    }
    if (strcmp(kind, "self_signed") == 0) {
        self_signed(g, ret);
    } else if (strcmp(kind, "wrong_root") == 0) {
        another_root(&g->cluster_id, false, g, ret);
    } else if (strcmp(kind, "wrong_root_shown") == 0) {
        another_root(&g->cluster_id, true, g, ret);
    } else if (strcmp(kind, "other_cluster") == 0) {
        another_root(&elsewhere, true, g, ret);
    } else if (strcmp(kind, "node_as_ca") == 0) {
        node_as_ca(g, ret);
    } else if (strcmp(kind, "chain_of_50") == 0) {
        three("good", g, g->root_key, &g->root_der, &g->cluster_id, ret);
        while (ret->count < FORGED_MAX) {
            add(ret, &ret->der[1]);
        }
    } else {
        return -ERR_NOT_FOUND;
    }
    return 0;
}
