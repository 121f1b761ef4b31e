#include "admin/cli_owner.h"

#include "base/clock.h"
#include "base/file.h"

#include <sys/stat.h>

static int load_root_key(struct cli *c, const char *path, struct pki_key **ret)
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

static int load_root_cert(struct cli *c, const char *path, const struct uuid *cluster_id,
                          const struct pki_key *key, struct buf *der)
{
    struct errmsg em = ERRMSG_INIT;
    struct pki_cert root;
    struct buf pem;
    size_t count;
    uint8_t public_key[PKI_KEY_BYTES];
    buf_init(&pem, 16384);
    int rc = file_read(path, &pem, &em);
    rc = rc != 0 ? rc : pki_pem_read(buf_blob(&pem), der, 1, &count, &em);
    rc = rc != 0 ? rc : pki_cert_parse(buf_blob(der), &root, &em);
    if (rc == 0) {
        pki_key_public(key, public_key);
        if (!pki_equal(blob_of(public_key, sizeof public_key),
                       blob_of(root.public_key, sizeof root.public_key))) {
            rc = errmsg_set(&em, -ERR_BAD_CERT, "%s is not the certificate of root.key beside it",
                            path);
        } else if (!uuid_equal(&root.cluster_id, cluster_id)) {
            rc = errmsg_set(&em, -ERR_WRONG_CLUSTER, "%s is the root of another cluster", path);
        }
    }
    buf_fini(&pem);
    return rc == 0 ? CLI_OK
                   : cli_fail(c, rc, "name this cluster's owner directory with --owner-dir", "%s",
                              em.text);
}

int cli_owner_open(struct cli *c, const struct uuid *cluster_id, struct cli_owner *ret)
{
    char id[UUID_TEXT_MAX];
    struct cli_owner o = {.key = NULL};
    uuid_format(cluster_id, id);
    const char *given = cli_get(c, "owner-dir");
    char *dir = given != NULL ? xstrdup(given) : xasprintf("%s/owner/%s", c->data_dir, id);
    char *key_path = path_join(dir, "root.key");
    char *cert_path = path_join(dir, "root.crt");
    buf_init(&o.root_der, CERT_DER_MAX);
    int rc = load_root_key(c, key_path, &o.key);
    if (rc == CLI_OK) {
        rc = load_root_cert(c, cert_path, cluster_id, o.key, &o.root_der);
    }
    if (rc == CLI_OK) {
        *ret = o;
    } else {
        cli_owner_close(&o);
    }
    free(dir);
    free(key_path);
    free(cert_path);
    return rc;
}

void cli_owner_close(struct cli_owner *o)
{
    pki_key_free(o->key);
    o->key = NULL;
    buf_fini(&o->root_der);
}

int cli_owner_certify(struct cli *c, const struct cli_owner *o, struct pki_cert *spec,
                      struct buf *ret_der)
{
    struct errmsg em = ERRMSG_INIT;
    spec->kind = PKI_ISSUER;
    pki_serial_new(spec->serial);
    int64_t now_s = clock_wall_ms() / 1000;
    spec->not_before_ms = now_s * 1000 - PKI_BACKDATE_MS;
    spec->not_after_ms = now_s * 1000 + PKI_ISSUER_LIFE_MS;
    int rc = pki_cert_issue(spec, o->key, buf_blob(&o->root_der), ret_der, &em);
    return rc == 0 ? CLI_OK : cli_fail(c, rc, NULL, "certifying the authority: %s", em.text);
}
