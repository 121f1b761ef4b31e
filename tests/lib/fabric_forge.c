#include "lib/fabric_forge.h"

#include "fabric/fabric_impl.h"

#include <gnutls/x509.h>

bool fabric_forge_identity(struct fabric *f, const struct blob *chain, size_t count,
                           const struct pki_key *key)
{
    gnutls_certificate_credentials_t cred = f->gen->cred;
    gnutls_x509_crt_t *crt = xcalloc(count, sizeof *crt);
    gnutls_x509_privkey_t priv = NULL;
    struct buf der;
    buf_init(&der, 256);
    bool ok = pki_key_der(key, &der) == 0;
    for (size_t i = 0; i < count && ok; i++) {
        const gnutls_datum_t d = {.data = (unsigned char *)(uintptr_t)chain[i].data,
                                  .size = (unsigned)chain[i].len};
        ok = gnutls_x509_crt_init(&crt[i]) == 0 &&
             gnutls_x509_crt_import(crt[i], &d, GNUTLS_X509_FMT_DER) == 0;
    }
    const gnutls_datum_t d = {.data = der.data, .size = (unsigned)der.len};
    ok = ok && gnutls_x509_privkey_init(&priv) == 0 &&
         gnutls_x509_privkey_import_pkcs8(priv, &d, GNUTLS_X509_FMT_DER, NULL, GNUTLS_PKCS_PLAIN) ==
             0;
    if (ok) {
        gnutls_certificate_free_keys(cred);
        gnutls_certificate_set_flags(cred, GNUTLS_CERTIFICATE_SKIP_KEY_CERT_MATCH);
        ok = gnutls_certificate_set_x509_key(cred, crt, (int)count, priv) >= 0;
    }
    if (priv != NULL) {
        gnutls_x509_privkey_deinit(priv);
    }
    for (size_t i = 0; i < count; i++) {
        if (crt[i] != NULL) {
            gnutls_x509_crt_deinit(crt[i]);
        }
    }
    free(crt);
    buf_wipe(&der);
    return ok;
}

void fabric_forge_nobody(struct fabric *f)
{
    gnutls_certificate_free_keys(f->gen->cred);
}
