#include "pki/pki_internal.h"

#include <uthash.h>

struct ban {
    uint8_t fingerprint[PKI_HASH_BYTES];
    bool retired_ca; /* not banned: it only makes no authority any more */
    bool suspended;  /* not banned: it may be told what it is, and nothing else */
    UT_hash_handle hh;
};

/* Issuing CAs whose signature was verified: there are few, they are in every chain, and verifying one
 * again costs a seventh of a handshake. */
#define VERIFIED_MAX 16
struct verified {
    uint8_t hash[VERIFIED_MAX][PKI_HASH_BYTES]; /* of the root's key and the CA's certificate */
    size_t next;
};

struct pki_trust {
    struct uuid cluster_id;
    struct trust_roots roots; /* none: the pin counts, until a root itself is known */
    bool has_pin;
    uint8_t pin[PKI_HASH_BYTES];
    struct ban *bans;
    struct verified *verified;
};

struct pki_trust *pki_trust_new(const struct uuid *cluster_id)
{
    struct pki_trust *t = xcalloc(1, sizeof *t);
    t->cluster_id = *cluster_id;
    t->verified = xcalloc(1, sizeof *t->verified);
    return t;
}

void pki_trust_free(struct pki_trust *t)
{
    if (t != NULL) {
        pki_trust_clear_bans(t);
        trust_roots_clear(&t->roots);
        free(t->verified);
        free(t);
    }
}

int pki_root_read(const struct uuid *cluster_id, struct blob der, struct pki_cert *ret,
                  struct errmsg *em)
{
    struct pki_cert_wire root;
    int rc = pki_cert_read(der, &root, em);
    if (rc != 0) {
        return errmsg_wrap(em, rc, "root");
    }
    if (root.cert.kind != PKI_ROOT) {
        return errmsg_set(em, -ERR_BAD_CERT, "not a root certificate");
    }
    if (!uuid_equal(&root.cert.cluster_id, cluster_id)) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "root of another cluster");
    }
    if (!pki_verify_raw(root.cert.public_key, root.tbs, root.signature)) {
        return errmsg_set(em, -ERR_BAD_SIGNATURE, "root did not sign itself");
    }
    *ret = root.cert;
    return 0;
}

int pki_trust_set_root(struct pki_trust *t, struct blob root_der, struct errmsg *em)
{
    struct pki_cert root;
    int rc = pki_root_read(&t->cluster_id, root_der, &root, em);
    if (rc == 0) {
        trust_roots_clear(&t->roots);
        trust_roots_add(&t->roots, &root, root_der, TRUST_ROOT_ACTIVE);
    }
    return rc;
}

bool pki_trust_root_key(const struct pki_trust *t, uint8_t ret[PKI_KEY_BYTES])
{
    for (size_t i = 0; i < t->roots.count; i++) {
        if (t->roots.list[i].status == TRUST_ROOT_ACTIVE) {
            memcpy(ret, t->roots.list[i].cert.public_key, PKI_KEY_BYTES);
            return true;
        }
    }
    return false;
}

int pki_trust_adopt(struct pki_trust *t, struct blob signed_trust, struct errmsg *em)
{
    struct trust_roots next;
    int rc = trust_record_read(&t->cluster_id, &t->roots, signed_trust, &next, em);
    if (rc == 0) {
        trust_roots_clear(&t->roots);
        t->roots = next;
    }
    return rc;
}

int pki_trust_check(const struct pki_trust *t, struct blob signed_trust, struct pki_trust_view *ret,
                    struct errmsg *em)
{
    struct trust_roots listed;
    int rc = trust_record_read(&t->cluster_id, &t->roots, signed_trust, &listed, em);
    if (rc == 0) {
        trust_record_view(&listed, signed_trust, ret);
        trust_roots_clear(&listed);
    }
    return rc;
}

uint64_t pki_trust_seq(const struct pki_trust *t)
{
    return t->roots.seq;
}

uint64_t pki_trust_epoch(const struct pki_trust *t)
{
    return t->roots.epoch;
}

struct blob pki_trust_root_above(const struct pki_trust *t, struct blob issuer_der)
{
    struct pki_cert_wire issuer;
    const struct trust_root_held *r = NULL;
    if (pki_cert_read(issuer_der, &issuer, NULL) == 0) {
        r = trust_roots_above(&t->roots, issuer.issuer_key_id);
    }
    return r == NULL ? blob_of(NULL, 0) : buf_blob(&r->der);
}

bool pki_trust_has_root(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    return trust_roots_find(&t->roots, fingerprint) != NULL;
}

bool pki_trust_root_is_active(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    const struct trust_root_held *r = trust_roots_find(&t->roots, fingerprint);
    return r != NULL && r->status == TRUST_ROOT_ACTIVE;
}

void pki_trust_set_pin(struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    memcpy(t->pin, fingerprint, PKI_HASH_BYTES);
    t->has_pin = true;
}

static struct ban *find_ban(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    struct ban *b;
    HASH_FIND(hh, t->bans, fingerprint, PKI_HASH_BYTES, b);
    return b;
}

static struct ban *add_ban(struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    struct ban *b = find_ban(t, fingerprint);
    if (b == NULL) {
        b = xcalloc(1, sizeof *b);
        memcpy(b->fingerprint, fingerprint, PKI_HASH_BYTES);
        HASH_ADD(hh, t->bans, fingerprint, PKI_HASH_BYTES, b);
        b->retired_ca = true;
    }
    return b;
}

void pki_trust_ban(struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    struct ban *b = add_ban(t, fingerprint);
    b->retired_ca = false;
    b->suspended = false;
}

void pki_trust_suspend(struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    if (find_ban(t, fingerprint) == NULL) {
        struct ban *b = add_ban(t, fingerprint);
        b->retired_ca = false;
        b->suspended = true;
    }
}

bool pki_trust_is_suspended(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    const struct ban *b = find_ban(t, fingerprint);
    return b != NULL && b->suspended;
}

void pki_trust_retire(struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    (void)add_ban(t, fingerprint);
}

bool pki_trust_is_retired(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    const struct ban *b = find_ban(t, fingerprint);
    return b != NULL && b->retired_ca;
}

void pki_trust_clear_bans(struct pki_trust *t)
{
    struct ban *b = t->bans;
    HASH_CLEAR(hh, t->bans); /* the items stay chained */
    while (b != NULL) {
        struct ban *next = b->hh.next;
        free(b);
        b = next;
    }
}

bool pki_trust_is_banned(const struct pki_trust *t, const uint8_t fingerprint[PKI_HASH_BYTES])
{
    const struct ban *b = find_ban(t, fingerprint);
    return b != NULL && !b->retired_ca && !b->suspended;
}

/* Of the roots we hold, the one above this issuing CA; a chain that shows its root must show one of
 * them. */
static int find_held_root(const struct pki_trust *t, const struct pki_cert *shown,
                          const struct pki_cert_wire *issuer, struct pki_cert *ret,
                          struct errmsg *em)
{
    const struct trust_root_held *r;
    if (shown != NULL) {
        r = trust_roots_find(&t->roots, shown->fingerprint);
        if (r == NULL) {
            return errmsg_set(em, -ERR_BAD_CERT, "chain ends in another root");
        }
    } else {
        r = trust_roots_above(&t->roots, issuer->issuer_key_id);
        r = r != NULL ? r : &t->roots.list[0]; /* which did not sign it, and so it is refused */
    }
    *ret = r->cert;
    return 0;
}

/* The root this chain must end in: one we hold, or the one shown when its key is the pinned one. */
static int find_root(const struct pki_trust *t, const struct blob *chain, size_t count,
                     const struct pki_cert_wire *issuer, struct pki_cert *ret, struct errmsg *em)
{
    struct pki_cert shown = {.kind = PKI_ROOT};
    for (size_t i = 0; count == 3 && i < t->roots.count; i++) {
        /* Nearly every chain: ours, word for word, whose signature on itself was seen when it came. */
        if (blob_equal(buf_blob(&t->roots.list[i].der), chain[2])) {
            *ret = t->roots.list[i].cert;
            return 0;
        }
    }
    if (count == 3) {
        int rc = pki_root_read(&t->cluster_id, chain[2], &shown, em);
        if (rc != 0) {
            return rc;
        }
    }
    if (t->roots.count > 0) {
        return find_held_root(t, count == 3 ? &shown : NULL, issuer, ret, em);
    }
    if (!t->has_pin) {
        return errmsg_set(em, -ERR_BAD_CERT, "no root is trusted yet");
    }
    if (count != 3) {
        return errmsg_set(em, -ERR_BAD_CERT, "chain does not show its root");
    }
    if (memcmp(shown.fingerprint, t->pin, PKI_HASH_BYTES) != 0) {
        return errmsg_set(
            em, -ERR_BAD_CERT,
            "root is not the pinned one: if the owner rotated it, ask for a new token");
    }
    *ret = shown;
    return 0;
}

static int check_signed_by(const struct pki_cert_wire *c, const struct pki_cert *above,
                           const char *what, struct errmsg *em)
{
    uint8_t id[PKI_KEY_ID_BYTES];
    pki_key_id(above->public_key, id);
    if (memcmp(id, c->issuer_key_id, sizeof id) != 0 ||
        !pki_verify_raw(above->public_key, c->tbs, c->signature)) {
        return errmsg_set(em, -ERR_BAD_SIGNATURE, "%s is not signed by the certificate above it",
                          what);
    }
    return 0;
}

static int check_issuer(struct verified *v, const struct pki_cert_wire *issuer, struct blob der,
                        const struct pki_cert *root, struct errmsg *em)
{
    uint8_t hash[PKI_HASH_BYTES];
    const struct blob parts[] = {blob_of(root->public_key, PKI_KEY_BYTES), der};
    pki_sha256_parts(parts, ARRAY_SIZE(parts), hash);
    for (size_t i = 0; i < VERIFIED_MAX; i++) {
        if (memcmp(v->hash[i], hash, sizeof hash) == 0) {
            return 0;
        }
    }
    int rc = check_signed_by(issuer, root, "issuer", em);
    if (rc == 0) {
        memcpy(v->hash[v->next], hash, sizeof hash);
        v->next = (v->next + 1) % VERIFIED_MAX;
    }
    return rc;
}

static int check_usable(const struct pki_trust *t, const struct pki_cert *c, int64_t now_ms,
                        const char *what, struct errmsg *em)
{
    if (pki_trust_is_banned(t, c->fingerprint)) {
        return errmsg_set(em, -ERR_REVOKED, "%s is revoked", what);
    }
    if (now_ms < c->not_before_ms) {
        return errmsg_set(em, -ERR_CERT_EXPIRED, "%s is not valid yet: check the clocks", what);
    }
    if (now_ms > c->not_after_ms) {
        return errmsg_set(em, -ERR_CERT_EXPIRED, "%s has expired", what);
    }
    return 0;
}

int pki_chain_verify(const struct pki_trust *t, const struct blob *chain, size_t count,
                     int64_t now_ms, struct pki_identity *ret, struct errmsg *em)
{
    struct pki_cert_wire leaf;
    struct pki_cert_wire issuer;
    struct pki_cert root = {.kind = PKI_ROOT};
    if (count < 2 || count > 3) {
        return errmsg_set(em, -ERR_BAD_CERT, "a chain has 2 or 3 certificates, not %zu", count);
    }
    int rc = pki_cert_read(chain[0], &leaf, em);
    if (rc != 0) {
        return errmsg_wrap(em, rc, "leaf");
    }
    rc = pki_cert_read(chain[1], &issuer, em);
    if (rc != 0) {
        return errmsg_wrap(em, rc, "issuer");
    }
    if (leaf.cert.kind != PKI_LEAF || issuer.cert.kind != PKI_ISSUER) {
        return errmsg_set(em, -ERR_BAD_CERT, "a chain is leaf, issuer, root");
    }
    if (!uuid_equal(&leaf.cert.cluster_id, &t->cluster_id) ||
        !uuid_equal(&issuer.cert.cluster_id, &t->cluster_id)) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "certificate is of another cluster");
    }
    rc = find_root(t, chain, count, &issuer, &root, em);
    if (rc != 0) {
        return rc;
    }
    /* With this the authority rule holds: pki_cert_read accepts an authority name only together
     * with the same id in the issuer's name, and the root signed the name of the issuer. */
    if (!uuid_equal(&leaf.issuer_id, &issuer.cert.node_id)) {
        return errmsg_set(em, -ERR_BAD_CERT, "leaf names another issuer");
    }
    rc = check_issuer(t->verified, &issuer, chain[1], &root, em);
    if (rc == 0) {
        rc = check_signed_by(&leaf, &issuer.cert, "leaf", em);
    }
    if (rc != 0) {
        return rc;
    }
    /* Authentic from here on, whether it is good for anything or not. */
    *ret = (struct pki_identity){.cluster_id = leaf.cert.cluster_id,
                                 .node_id = leaf.cert.node_id,
                                 .issuer_id = issuer.cert.node_id,
                                 .authority = leaf.cert.authority,
                                 .not_after_ms = leaf.cert.not_after_ms};
    memcpy(ret->serial, leaf.cert.serial, PKI_SERIAL_BYTES);
    memcpy(ret->public_key, leaf.cert.public_key, PKI_KEY_BYTES);
    memcpy(ret->fingerprint, leaf.cert.fingerprint, PKI_HASH_BYTES);
    memcpy(ret->issuer_fingerprint, issuer.cert.fingerprint, PKI_HASH_BYTES);
    memcpy(ret->root_fingerprint, root.fingerprint, PKI_HASH_BYTES);
    rc = check_usable(t, &leaf.cert, now_ms, "certificate", em);
    if (rc == 0) {
        rc = check_usable(t, &issuer.cert, now_ms, "issuing CA", em);
    }
    if (rc == 0) {
        rc = check_usable(t, &root, now_ms, "root", em);
    }
    if (rc == 0 && leaf.cert.authority && pki_trust_is_retired(t, issuer.cert.fingerprint)) {
        rc = errmsg_set(em, -ERR_REVOKED, "this node was removed as an authority");
    }
    return rc;
}

int pki_issuer_verify(const struct pki_trust *t, struct blob issuer_der, int64_t now_ms,
                      struct pki_cert *ret, uint8_t ret_root[PKI_HASH_BYTES], struct errmsg *em)
{
    struct pki_cert_wire issuer;
    struct pki_cert root = {.kind = PKI_ROOT};
    int rc = pki_cert_read(issuer_der, &issuer, em);
    if (rc != 0) {
        return errmsg_wrap(em, rc, "issuer");
    }
    if (issuer.cert.kind != PKI_ISSUER) {
        return errmsg_set(em, -ERR_BAD_CERT, "not the certificate of an issuing CA");
    }
    if (!uuid_equal(&issuer.cert.cluster_id, &t->cluster_id)) {
        return errmsg_set(em, -ERR_WRONG_CLUSTER, "certificate is of another cluster");
    }
    rc = find_root(t, &issuer_der, 1, &issuer, &root, em);
    if (rc == 0) {
        rc = check_issuer(t->verified, &issuer, issuer_der, &root, em);
    }
    if (rc == 0) {
        rc = check_usable(t, &issuer.cert, now_ms, "issuing CA", em);
    }
    if (rc == 0) {
        rc = check_usable(t, &root, now_ms, "root", em);
    }
    if (rc == 0) {
        *ret = issuer.cert;
        memcpy(ret_root, root.fingerprint, PKI_HASH_BYTES);
    }
    return rc;
}
