#include "fabric/fabric_impl.h"

#include "base/clock.h"
#include "base/log.h"

#include <gnutls/x509.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

#define PRIORITY                                                                           \
    "NONE:+VERS-TLS1.3:+AES-128-GCM:+CHACHA20-POLY1305:+AEAD:+SIGN-EDDSA-ED25519:"         \
    "+GROUP-X25519:+CTYPE-X509:%DISABLE_TLS13_COMPAT_MODE"

static const char *const alpn[] = {
    [KIND_CONTROL] = "rap/1", [KIND_BULK] = "rap-bulk/1", [KIND_ENROLL] = "rap-enroll/1"};

static gnutls_datum_t alpn_datum(enum session_kind kind)
{
    return (gnutls_datum_t){.data = (unsigned char *)(uintptr_t)alpn[kind],
                            .size = (unsigned)strlen(alpn[kind])};
}

uint8_t tls_alert_for(int rc)
{
    switch (-rc) {
        case ERR_REVOKED:
            return GNUTLS_A_CERTIFICATE_REVOKED;
        case ERR_CERT_EXPIRED:
            return GNUTLS_A_CERTIFICATE_EXPIRED;
        case ERR_WRONG_CLUSTER:
            return GNUTLS_A_UNKNOWN_CA;
        case ERR_WRONG_NODE:
        case ERR_NOT_AUTHORITY:
        case ERR_NOT_WITNESSED:
            return GNUTLS_A_ACCESS_DENIED;
        case ERR_BAD_SIGNATURE:
            return GNUTLS_A_DECRYPT_ERROR;
        case ERR_BUSY:
            return GNUTLS_A_INTERNAL_ERROR;
        default:
            return GNUTLS_A_BAD_CERTIFICATE;
    }
}

int tls_rc_for_alert(uint8_t alert)
{
    switch (alert) {
        case GNUTLS_A_CERTIFICATE_REVOKED:
            return -ERR_REVOKED;
        case GNUTLS_A_CERTIFICATE_EXPIRED:
            return -ERR_CERT_EXPIRED;
        case GNUTLS_A_UNKNOWN_CA:
            return -ERR_WRONG_CLUSTER;
        case GNUTLS_A_ACCESS_DENIED:
            return -ERR_DENIED;
        case GNUTLS_A_DECRYPT_ERROR:
            return -ERR_BAD_SIGNATURE;
        case GNUTLS_A_INTERNAL_ERROR:
            return -ERR_BUSY;
        case GNUTLS_A_BAD_CERTIFICATE:
            return -ERR_BAD_CERT;
        case GNUTLS_A_CERTIFICATE_REQUIRED:
            return -ERR_NO_CERT;
        case GNUTLS_A_NO_APPLICATION_PROTOCOL:
            return -ERR_UNSUPPORTED;
        default:
            return -ERR_CRYPTO;
    }
}

static struct session *session_of(gnutls_session_t tls)
{
    ngtcp2_crypto_conn_ref *ref = gnutls_session_get_ptr(tls);
    return ref->user_data;
}

/* The chain's signatures are good: it is known who that was. */
static void note_refused(struct session *ss, const struct pki_identity *id, int rc)
{
    const struct fabric_peer peer = {
        .authenticated = true, .identity = *id, .address = ss->who.address};
    if (!ss->dialled) {
        fabric_note_refusal(ss->f, &peer, rc, blob_str(""));
    }
}

/* When all of the chain had begun: a CA is renewed while leaves under it go on. */
static int64_t valid_from(const struct blob *chain, size_t count)
{
    int64_t latest_ms = 0;
    for (size_t i = 0; i < count; i++) {
        struct pki_cert c;
        if (pki_cert_parse(chain[i], &c, NULL) == 0 && c.not_before_ms > latest_ms) {
            latest_ms = c.not_before_ms;
        }
    }
    return latest_ms;
}

/* Identity comes from the leaf of the chain TLS is about to prove possession for, nothing else. */
static int verify(struct session *ss, gnutls_session_t tls, struct errmsg *em)
{
    unsigned count = 0;
    const gnutls_datum_t *certs = gnutls_certificate_get_peers(tls, &count);
    if (certs == NULL || count == 0 || count > CHAIN_MAX ||
        gnutls_certificate_type_get2(tls, GNUTLS_CTYPE_PEERS) != GNUTLS_CRT_X509) {
        return errmsg_set(em, -ERR_BAD_CERT, "no certificate chain");
    }
    struct blob chain[CHAIN_MAX];
    for (unsigned i = 0; i < count; i++) {
        if (certs[i].size > CERT_DER_MAX) {
            return errmsg_set(em, -ERR_BAD_CERT, "certificate too large");
        }
        chain[i] = blob_of(certs[i].data, certs[i].size);
    }
    struct pki_identity id;
    int64_t at_ms = ss->f->cfg.any_time ? valid_from(chain, count) : clock_wall_ms();
    int rc = pki_chain_verify(ss->f->cfg.trust, chain, count, at_ms, &id, em);
    if (rc == -ERR_REVOKED || rc == -ERR_CERT_EXPIRED) {
        note_refused(ss, &id, rc);
    }
    if (rc != 0) {
        return rc;
    }
    if (ss->kind == KIND_ENROLL) {
        if (!id.authority) {
            return errmsg_set(em, -ERR_NOT_AUTHORITY, "not an authority");
        }
    } else if (ss->dialled && !uuid_equal(&id.node_id, &ss->peer->id)) {
        return errmsg_set(em, -ERR_WRONG_NODE, "another node answers there");
    } else if (ss->f->has_identity && uuid_equal(&id.node_id, &ss->f->node_id)) {
        note_refused(ss, &id, -ERR_WRONG_NODE);
        return errmsg_set(em, -ERR_WRONG_NODE, "it says it is this node");
    } else if (ss->path.relayed && !uuid_equal(&id.node_id, &ss->path.remote)) {
        return errmsg_set(em, -ERR_WRONG_NODE, "its packets name another node as their source");
    }
    if (ss->kind != KIND_ENROLL && ss->f->cfg.admit != NULL) {
        rc = ss->f->cfg.admit(ss->f->cfg.data, &id, em);
        if (rc < 0) {
            return rc;
        }
        ss->unproven = rc == FABRIC_ADMIT_PROVE;
    }
    ss->who.identity = id;
    ss->who.authenticated = true;
    return 0;
}

void tls_log_refusal(struct session *ss, int rc, const char *detail)
{
    static struct log_limit limit;
    ss->f->counters.auth_refused++;
    if (log_allow(&limit, 20)) {
        char addr[ADDR_TEXT_MAX];
        addr_format(&ss->who.address, addr);
        log_warn(LOG_FABRIC, "peer refused", "addr=%s error=%s detail=\"%s\"", addr, err_slug(rc),
                 detail);
    }
}

/* Runs behind CertificateVerify: the peer holds the key of the leaf it showed. */
static int verify_cb(gnutls_session_t tls)
{
    struct session *ss = session_of(tls);
    struct errmsg em = ERRMSG_INIT;
    int rc = verify(ss, tls, &em);
    if (rc == 0) {
        return 0;
    }
    ss->verify_rc = rc;
    tls_log_refusal(ss, rc, em.text);
    return GNUTLS_E_CERTIFICATE_ERROR;
}

/* Runs when the ClientHello has been read: what was agreed decides whether a certificate is asked
 * for. GnuTLS alone would let a client without ALPN through. */
static int client_hello(gnutls_session_t tls, unsigned type, unsigned when, unsigned incoming,
                        const gnutls_datum_t *msg)
{
    (void)type;
    (void)when;
    (void)incoming;
    (void)msg;
    struct session *ss = session_of(tls);
    gnutls_datum_t got;
    if (gnutls_alpn_get_selected_protocol(tls, &got) != 0) {
        return GNUTLS_E_NO_APPLICATION_PROTOCOL;
    }
    for (size_t i = 0; i < ARRAY_SIZE(alpn); i++) {
        if (blob_equal(blob_of(got.data, got.size), blob_str(alpn[i]))) {
            ss->kind = (enum session_kind)i;
            if (ss->kind == KIND_ENROLL && ss->path.relayed) {
                return GNUTLS_E_NO_APPLICATION_PROTOCOL; /* a source has an identity */
            }
            if (ss->kind == KIND_ENROLL) {
                ss->retry_ms = fabric_enroll_wait_ms(ss->f, &ss->who.address);
                if (ss->retry_ms > 0) { /* before the signature, which costs most */
                    ss->f->counters.rate_limited++;
                    fabric_note_refusal(ss->f, &ss->who, -ERR_RATE_LIMITED, blob_str("enroll"));
                    ss->verify_rc = -ERR_RATE_LIMITED;
                    return GNUTLS_E_INTERNAL_ERROR;
                }
                if (ss->f->enroll_count >= ss->f->cfg.limits.enroll_sessions_max) {
                    ss->f->counters.dropped_limit++;
                    ss->verify_rc = -ERR_BUSY;
                    return GNUTLS_E_INTERNAL_ERROR;
                }
                gnutls_certificate_server_set_request(tls, GNUTLS_CERT_IGNORE);
            }
            return 0;
        }
    }
    return GNUTLS_E_NO_APPLICATION_PROTOCOL;
}

static struct tls_gen *gen_new(void)
{
    struct tls_gen *g = xcalloc(1, sizeof *g);
    g->refs = 1;
    if (gnutls_certificate_allocate_credentials(&g->cred) != 0) {
        free(g);
        return NULL;
    }
    gnutls_certificate_set_verify_function(g->cred, verify_cb);
    return g;
}

static void gen_unref(struct tls_gen *g)
{
    if (g != NULL && --g->refs == 0) {
        gnutls_certificate_free_credentials(g->cred);
        free(g);
    }
}

int tls_init(struct fabric *f, struct errmsg *em)
{
    int rv = gnutls_priority_init(&f->priority, PRIORITY, NULL);
    if (rv != 0) {
        f->priority = NULL;
        return errmsg_set(em, -ERR_CRYPTO, "TLS: %s", gnutls_strerror(rv));
    }
    f->anon = gen_new();
    return f->anon != NULL ? 0 : errmsg_set(em, -ERR_CRYPTO, "TLS: no credentials");
}

void tls_fini(struct fabric *f)
{
    gen_unref(f->gen);
    gen_unref(f->anon);
    if (f->priority != NULL) {
        gnutls_priority_deinit(f->priority);
    }
}

int tls_set_identity(struct fabric *f, const struct blob *chain, size_t count,
                     const struct pki_key *key, struct errmsg *em)
{
    if (count == 0 || count > CHAIN_MAX) {
        return errmsg_set(em, -ERR_INVALID, "a chain has 1 to %d certificates", CHAIN_MAX);
    }
    struct pki_cert leaf;
    int rc = pki_cert_parse(chain[0], &leaf, em);
    if (rc != 0) {
        return errmsg_wrap(em, rc, "own certificate");
    }
    if (leaf.kind != PKI_LEAF) {
        return errmsg_set(em, -ERR_BAD_CERT, "own certificate is not a node's");
    }
    gnutls_x509_crt_t crt[CHAIN_MAX] = {NULL};
    gnutls_x509_privkey_t priv = NULL;
    struct tls_gen *g = gen_new();
    struct buf der;
    buf_init(&der, 256);
    int rv = g != NULL ? 0 : GNUTLS_E_MEMORY_ERROR;
    for (size_t i = 0; i < count && rv == 0; i++) {
        rv = gnutls_x509_crt_init(&crt[i]);
        if (rv == 0) {
            gnutls_datum_t d = {.data = (unsigned char *)(uintptr_t)chain[i].data,
                                .size = (unsigned)chain[i].len};
            rv = gnutls_x509_crt_import(crt[i], &d, GNUTLS_X509_FMT_DER);
        }
    }
    if (rv == 0) {
        rv = gnutls_x509_privkey_init(&priv);
    }
    if (rv == 0 && pki_key_der(key, &der) == 0) {
        gnutls_datum_t d = {.data = der.data, .size = (unsigned)der.len};
        rv = gnutls_x509_privkey_import_pkcs8(priv, &d, GNUTLS_X509_FMT_DER, NULL,
                                              GNUTLS_PKCS_PLAIN);
    } else if (rv == 0) {
        rv = GNUTLS_E_INVALID_REQUEST;
    }
    if (rv == 0) {
        rv = gnutls_certificate_set_x509_key(g->cred, crt, (int)count, priv);
    }
    buf_wipe(&der);
    if (priv != NULL) {
        gnutls_x509_privkey_deinit(priv);
    }
    for (size_t i = 0; i < count; i++) {
        if (crt[i] != NULL) {
            gnutls_x509_crt_deinit(crt[i]);
        }
    }
    if (rv < 0) {
        gen_unref(g);
        return errmsg_set(em, -ERR_CRYPTO, "own identity: %s", gnutls_strerror(rv));
    }
    gen_unref(f->gen);
    f->gen = g;
    f->node_id = leaf.node_id;
    f->has_identity = true;
    return 0;
}

static ngtcp2_conn *conn_of(ngtcp2_crypto_conn_ref *ref)
{
    return ((struct session *)ref->user_data)->conn;
}

int tls_session_open(struct session *ss)
{
    struct fabric *f = ss->f;
    unsigned flags = GNUTLS_NO_END_OF_EARLY_DATA | GNUTLS_NO_TICKETS |
                     (ss->dialled ? GNUTLS_CLIENT : GNUTLS_SERVER | GNUTLS_NO_AUTO_SEND_TICKET);
    if (gnutls_init(&ss->tls, flags) != 0) {
        ss->tls = NULL;
        return -ERR_CRYPTO;
    }
    ss->ref = (ngtcp2_crypto_conn_ref){.get_conn = conn_of, .user_data = ss};
    gnutls_session_set_ptr(ss->tls, &ss->ref);
    ss->gen = ss->dialled && ss->kind == KIND_ENROLL ? f->anon : f->gen;
    CHECK(ss->gen != NULL);
    ss->gen->refs++;
    gnutls_datum_t protocols[ARRAY_SIZE(alpn)];
    unsigned count = 0;
    if (ss->dialled) {
        protocols[count++] = alpn_datum(ss->kind);
    } else {
        protocols[count++] = alpn_datum(KIND_CONTROL);
        protocols[count++] = alpn_datum(KIND_BULK);
        if (f->enroll_served) {
            protocols[count++] = alpn_datum(KIND_ENROLL);
        }
        gnutls_certificate_server_set_request(ss->tls, GNUTLS_CERT_REQUIRE);
        gnutls_handshake_set_hook_function(ss->tls, GNUTLS_HANDSHAKE_CLIENT_HELLO, GNUTLS_HOOK_POST,
                                           client_hello);
    }
    bool ok = gnutls_priority_set(ss->tls, f->priority) == 0 &&
              (ss->dialled ? ngtcp2_crypto_gnutls_configure_client_session(ss->tls)
                           : ngtcp2_crypto_gnutls_configure_server_session(ss->tls)) == 0 &&
              gnutls_credentials_set(ss->tls, GNUTLS_CRD_CERTIFICATE, ss->gen->cred) == 0 &&
              gnutls_alpn_set_protocols(ss->tls, protocols, count, GNUTLS_ALPN_MANDATORY) == 0;
    if (!ok) {
        return -ERR_CRYPTO;
    }
    ngtcp2_conn_set_tls_native_handle(ss->conn, ss->tls);
    return 0;
}

void tls_session_close(struct session *ss)
{
    if (ss->tls != NULL) {
        gnutls_deinit(ss->tls);
        ss->tls = NULL;
    }
    gen_unref(ss->gen);
    ss->gen = NULL;
}
