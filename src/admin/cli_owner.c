#include "admin/cli_owner.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"

#include <sys/stat.h>

char *owner_dir(struct cli *c, const struct uuid *cluster_id)
{
    char id[UUID_TEXT_MAX];
    const char *given = cli_get(c, "owner-dir");
    uuid_format(cluster_id, id);
    return given != NULL ? xstrdup(given) : xasprintf("%s/owner/%s", c->data_dir, id);
}

static int load_key(struct cli *c, const char *path, struct pki_key **ret)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf passphrase;
    struct stat st;
    bool exposed = stat(path, &st) == 0 && (st.st_mode & 077) != 0;
    int rc = cli_passphrase(c, false, &passphrase);
    if (rc != CLI_OK) {
        return rc;
    }
    int err = pki_key_load(path, passphrase.len == 0 ? NULL : buf_cstr(&passphrase), ret, &em);
    if (err == -ERR_DENIED && passphrase.len == 0 && !exposed) {
        rc = cli_passphrase(c, true, &passphrase);
        if (rc != CLI_OK) {
            return rc;
        }
        err = pki_key_load(path, buf_cstr(&passphrase), ret, &em);
    }
    buf_wipe(&passphrase);
    if (err != 0) {
        return cli_fail(c, err,
                        err == -ERR_NOT_FOUND
                            ? "name the owner directory with --owner-dir, where `rap init` put it"
                            : "check the passphrase, and that the key's mode is 0600",
                        "root key: %s", em.text);
    }
    return CLI_OK;
}

int owner_read_cert(const char *path, struct buf *der, struct pki_cert *ret, struct errmsg *em)
{
    struct buf pem;
    size_t count;
    buf_init(&pem, 16384);
    int rc = file_read(path, &pem, em);
    rc = rc != 0 ? rc : pki_pem_read(buf_blob(&pem), der, 1, &count, em);
    rc = rc != 0 ? rc : pki_cert_parse(buf_blob(der), ret, em);
    buf_fini(&pem);
    return rc;
}

/* The certificate beside the key: of this key, this cluster, and the root that is wanted. */
static int check_cert(const struct owner_root *r, const struct uuid *cluster_id,
                      const char *fingerprint, struct errmsg *em)
{
    uint8_t public_key[PKI_KEY_BYTES];
    char text[2 * PKI_HASH_BYTES + 1];
    pki_key_public(r->key, public_key);
    if (!pki_equal(blob_of(public_key, sizeof public_key),
                   blob_of(r->cert.public_key, sizeof r->cert.public_key))) {
        return errmsg_set(em, -ERR_BAD_CERT,
                          "%s/root.crt is not the certificate of root.key beside it", r->dir);
    }
    if (!uuid_equal(&r->cert.cluster_id, cluster_id)) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "%s/root.crt is the root of another cluster",
                          r->dir);
    }
    hex_encode(r->cert.fingerprint, PKI_HASH_BYTES, text);
    if (fingerprint != NULL && strcmp(text, fingerprint) != 0) {
        return errmsg_set(em, -ERR_BAD_CERT, "%s/root.crt is root %.16s, not %.16s", r->dir, text,
                          fingerprint);
    }
    return 0;
}

/* Where a root is: in root-<fingerprint>, or as root.key itself when it never was in a rotation. */
static char *place_of(const char *dir, const char *fingerprint)
{
    if (fingerprint != NULL) {
        char *own = xasprintf("%s/root-%.16s", dir, fingerprint);
        char *key = path_join(own, "root.key");
        bool there = file_exists(key);
        free(key);
        if (there) {
            return own;
        }
        free(own);
    }
    return xstrdup(dir);
}

int owner_open(struct cli *c, const struct uuid *cluster_id, const char *fingerprint,
               struct owner_root *ret)
{
    struct errmsg em = ERRMSG_INIT;
    char *dir = owner_dir(c, cluster_id);
    *ret = (struct owner_root){.dir = place_of(dir, fingerprint)};
    buf_init(&ret->der, CERT_DER_MAX);
    free(dir);
    char *key_path = path_join(ret->dir, "root.key");
    char *cert_path = path_join(ret->dir, "root.crt");
    int rc = load_key(c, key_path, &ret->key);
    if (rc == CLI_OK) {
        int err = owner_read_cert(cert_path, &ret->der, &ret->cert, &em);
        err = err != 0 ? err : check_cert(ret, cluster_id, fingerprint, &em);
        rc = err == 0 ? CLI_OK
                      : cli_fail(c, err, "name this cluster's owner directory with --owner-dir",
                                 "%s", em.text);
    }
    if (rc != CLI_OK) {
        owner_close(ret);
    }
    free(key_path);
    free(cert_path);
    return rc;
}

void owner_close(struct owner_root *root)
{
    pki_key_free(root->key);
    buf_fini(&root->der);
    free(root->dir);
    *root = (struct owner_root){.key = NULL};
}

/* Bytes as they are: a key keeps its passphrase. */
static int copy(const char *from, const char *to, const char *name, int mode, struct errmsg *em)
{
    struct buf bytes;
    char *a = path_join(from, name);
    char *b = path_join(to, name);
    buf_init(&bytes, 65536);
    int rc = file_read(a, &bytes, em);
    if (rc == 0) {
        rc = file_write_atomic(b, buf_blob(&bytes), mode, em);
    }
    buf_wipe(&bytes);
    free(a);
    free(b);
    return rc;
}

static char *own_dir(const char *dir, const struct pki_cert *cert)
{
    char text[2 * PKI_HASH_BYTES + 1];
    hex_encode(cert->fingerprint, PKI_HASH_BYTES, text);
    return xasprintf("%s/root-%.16s", dir, text);
}

static int copy_root(const char *from, const char *to, struct errmsg *em)
{
    int rc = file_mkdirs(to, em);
    rc = rc != 0 ? rc : copy(from, to, "root.key", 0600, em);
    return rc != 0 ? rc : copy(from, to, "root.crt", 0644, em);
}

static int make_root(const struct uuid *cluster_id, struct owner_root *r, struct errmsg *em)
{
    int64_t now_ms = clock_wall_ms();
    r->key = pki_key_generate();
    r->cert = (struct pki_cert){.kind = PKI_ROOT,
                                .cluster_id = *cluster_id,
                                .not_before_ms = now_ms - PKI_BACKDATE_MS,
                                .not_after_ms = now_ms + PKI_ROOT_LIFE_MS};
    pki_serial_new(r->cert.serial);
    pki_key_public(r->key, r->cert.public_key);
    return pki_cert_issue(&r->cert, r->key, blob_of(NULL, 0), &r->der, em);
}

static int save_root(struct cli *c, const struct owner_root *r, struct errmsg *em)
{
    struct buf passphrase;
    struct buf pem;
    int rc = cli_passphrase(c, false, &passphrase);
    if (rc != CLI_OK) {
        return errmsg_set(em, -ERR_DENIED, "no passphrase");
    }
    char *key_path = path_join(r->dir, "root.key");
    char *cert_path = path_join(r->dir, "root.crt");
    buf_init(&pem, 4 * CERT_DER_MAX);
    rc = file_mkdirs(r->dir, em);
    if (rc == 0) {
        rc = pki_key_save(r->key, key_path, passphrase.len == 0 ? NULL : buf_cstr(&passphrase), em);
    }
    if (rc == 0) {
        rc = pki_pem_add(buf_blob(&r->der), &pem);
    }
    if (rc == 0) {
        rc = file_write_atomic(cert_path, buf_blob(&pem), 0644, em);
    }
    buf_wipe(&passphrase);
    buf_fini(&pem);
    free(key_path);
    free(cert_path);
    return rc;
}

int owner_create(struct cli *c, const struct uuid *cluster_id, struct owner_root *ret)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf der;
    struct pki_cert active;
    char *dir = owner_dir(c, cluster_id);
    char *cert_path = path_join(dir, "root.crt");
    *ret = (struct owner_root){.key = NULL};
    buf_init(&ret->der, CERT_DER_MAX);
    buf_init(&der, CERT_DER_MAX);
    int rc = owner_read_cert(cert_path, &der, &active, &em);
    if (rc == 0) {
        char *kept = own_dir(dir, &active);
        rc = copy_root(dir, kept, &em);
        free(kept);
    }
    if (rc == 0) {
        rc = make_root(cluster_id, ret, &em);
    }
    if (rc == 0) {
        ret->dir = own_dir(dir, &ret->cert);
        rc = save_root(c, ret, &em);
    }
    buf_fini(&der);
    free(cert_path);
    free(dir);
    return rc == 0 ? CLI_OK
                   : cli_fail(c, rc, "name this cluster's owner directory with --owner-dir",
                              "new root: %s", em.text);
}

int owner_set_active(struct cli *c, const struct owner_root *root)
{
    struct errmsg em = ERRMSG_INIT;
    char *dir = owner_dir(c, &root->cert.cluster_id);
    char *own = own_dir(dir, &root->cert);
    int rc = copy_root(own, dir, &em);
    free(own);
    free(dir);
    return rc == 0 ? CLI_OK
                   : cli_fail(c, rc,
                              "the cluster has changed over; copy root.key and root.crt of the "
                              "active root there yourself",
                              "owner directory: %s", em.text);
}

int owner_certify(struct cli *c, const struct owner_root *root, struct pki_cert *spec,
                  struct buf *out)
{
    struct errmsg em = ERRMSG_INIT;
    int64_t life_ms = PKI_ISSUER_LIFE_MS;
    int rc = cli_get_duration(c, "ca-lifetime", &life_ms);
    if (rc != CLI_OK) {
        return rc;
    }
    if (life_ms < LEAF_LIFE_MIN_MS || life_ms > PKI_ROOT_LIFE_MS) {
        return cli_usage(c, NULL, "--ca-lifetime: 1m to 3652d");
    }
    int64_t now_s = clock_wall_ms() / 1000;
    spec->kind = PKI_ISSUER;
    spec->not_before_ms = now_s * 1000 - PKI_BACKDATE_MS;
    spec->not_after_ms = now_s * 1000 + life_ms;
    if (spec->not_after_ms > root->cert.not_after_ms) {
        spec->not_after_ms = root->cert.not_after_ms;
    }
    pki_serial_new(spec->serial);
    int err = pki_cert_issue(spec, root->key, buf_blob(&root->der), out, &em);
    return err == 0 ? CLI_OK : cli_fail(c, err, NULL, "certifying the authority: %s", em.text);
}

/* --- trust documents --- */

int owner_read_trust(struct cli *c, struct blob trust, struct uuid *ret_cluster_id,
                     char ret_active[2 * PKI_HASH_BYTES + 1])
{
    struct mp_reader r;
    char id[UUID_TEXT_MAX];
    mp_find_str(trust, "cluster_id", id, sizeof id);
    bool named = uuid_parse(id, ret_cluster_id) == 0;
    mp_reader_init(&r, mp_find(trust, "roots"));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; named && i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        char status[16];
        mp_find_str(item, "status", status, sizeof status);
        if (strcmp(status, "active") == 0) {
            mp_find_str(item, "root_id", ret_active, 2 * PKI_HASH_BYTES + 1);
            return CLI_OK;
        }
    }
    return cli_fail(c, -ERR_MALFORMED, NULL, "the answer names no active root");
}

int owner_parse_hex(struct blob hex, struct pki_cert *ret)
{
    char text[2 * CERT_DER_MAX + 1];
    uint8_t der[CERT_DER_MAX];
    struct mp_reader r;
    mp_reader_init(&r, hex);
    struct blob s = mp_get_str(&r, sizeof text - 1);
    (void)snprintf(text, sizeof text, "%.*s", (int)s.len, s.len > 0 ? (const char *)s.data : "");
    if (s.len == 0 || hex_decode(text, der, s.len / 2) != 0) {
        return -ERR_BAD_CERT;
    }
    return pki_cert_parse(blob_of(der, s.len / 2), ret, NULL);
}

int owner_find_issuer(struct cli *c, struct blob trust, const char *authority, struct pki_cert *ret)
{
    struct mp_reader r;
    struct blob found = blob_of(NULL, 0);
    unsigned matches = 0;
    mp_reader_init(&r, mp_find(trust, "issuers"));
    uint32_t n = mp_get_array(&r, UINT32_MAX);
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        struct blob item = mp_skip(&r);
        char id[64], name[64];
        mp_find_str(item, "node_id", id, sizeof id);
        mp_find_str(item, "name", name, sizeof name);
        if (strcmp(name, authority) == 0 ||
            (strlen(authority) >= 4 && strncmp(id, authority, strlen(authority)) == 0)) {
            found = mp_find(item, "certificate");
            matches++;
        }
    }
    if (matches != 1) {
        return cli_fail(c, matches == 0 ? -ERR_NOT_FOUND : -ERR_AMBIGUOUS,
                        "`rap authority list` shows them", "%s authority is called \"%.64s\"",
                        matches == 0 ? "no" : "more than one", authority);
    }
    int err = owner_parse_hex(found, ret);
    return err == 0 ? CLI_OK
                    : cli_fail(c, err, NULL, "the authority's CA certificate does not read");
}
