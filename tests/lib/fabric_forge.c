#include "lib/fabric_forge.h"

#include "fabric/fabric_impl.h"

#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

/* gnutls_certificate_set_x509_key takes short chains only. */
static gnutls_pcert_st *forged_chain;
static unsigned forged_count;
static gnutls_privkey_t forged_key;

static int show_forged(gnutls_session_t tls, const gnutls_datum_t *names, int count,
                       const gnutls_pk_algorithm_t *algs, int algs_len, gnutls_pcert_st **pcert,
                       unsigned *pcert_len, gnutls_privkey_t *key)
{
    (void)tls;
    (void)names;
    (void)count;
    (void)algs;
    (void)algs_len;
    *pcert = forged_chain;
    *pcert_len = forged_count;
    *key = forged_key;
    return 0;
}

void fabric_forge_long_chain(struct fabric *f, const struct blob *chain, size_t count,
                             const struct pki_key *key)
{
    struct buf der;
    buf_init(&der, 256);
    CHECK(forged_chain == NULL && pki_key_der(key, &der) == 0);
    forged_chain = xcalloc(count, sizeof *forged_chain);
    forged_count = (unsigned)count;
    for (size_t i = 0; i < count; i++) {
        const gnutls_datum_t d = {.data = (unsigned char *)(uintptr_t)chain[i].data,
                                  .size = (unsigned)chain[i].len};
        CHECK(gnutls_pcert_import_x509_raw(&forged_chain[i], &d, GNUTLS_X509_FMT_DER, 0) == 0);
    }
    const gnutls_datum_t d = {.data = der.data, .size = (unsigned)der.len};
    CHECK(gnutls_privkey_init(&forged_key) == 0);
    CHECK(gnutls_privkey_import_x509_raw(forged_key, &d, GNUTLS_X509_FMT_DER, NULL, 0) == 0);
    gnutls_certificate_free_keys(f->gen->cred);
    gnutls_certificate_set_retrieve_function2(f->gen->cred, show_forged);
    buf_wipe(&der);
}

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

/* As tls_session_open does, but for the ALPN, and it would take tickets. */
bool fabric_forge_alpn(struct session *ss, const char *alpn)
{
    gnutls_deinit(ss->tls);
    bool ok = gnutls_init(&ss->tls, GNUTLS_CLIENT | GNUTLS_NO_END_OF_EARLY_DATA) == 0;
    if (!ok) {
        ss->tls = NULL;
        return false;
    }
    gnutls_session_set_ptr(ss->tls, &ss->ref);
    ok = gnutls_priority_set(ss->tls, ss->f->priority) == 0 &&
         ngtcp2_crypto_gnutls_configure_client_session(ss->tls) == 0 &&
         gnutls_credentials_set(ss->tls, GNUTLS_CRD_CERTIFICATE, ss->gen->cred) == 0;
    if (ok && alpn != NULL) {
        gnutls_datum_t d = {.data = (unsigned char *)(uintptr_t)alpn,
                            .size = (unsigned)strlen(alpn)};
        ok = gnutls_alpn_set_protocols(ss->tls, &d, 1, 0) == 0;
    }
    ngtcp2_conn_set_tls_native_handle(ss->conn, ss->tls);
    return ok;
}

struct fabric_stream *fabric_forge_stream(struct fabric_stream *s, const char *service,
                                          const struct fabric_stream_vtab *vtab, void *data)
{
    if (s->ss == NULL || s->ss->state != SESSION_UP) {
        return NULL;
    }
    struct fabric_stream *more = stream_new(s->f, true, false);
    more->vtab = *vtab;
    more->data = data;
    stream_put_header(more, service, 0, 0);
    stream_bind(more, s->ss);
    return more;
}
