/* Who may hold a session with us, beside a good chain: authorities by the set, everybody else by a proof of
 * the key (leaf_proof.h). A node's key never changes (a renewal keeps it, a new key is a new node), so a key
 * that was proved once is this node's until it is banned: no proof is asked for again while it is
 * remembered. */
#include "agent/agent_impl.h"

#include "agent/leaf_proof.h"
#include "base/clock.h"

#define PROVED_MAX 8192 /* the oldest is forgotten, and asked again at its next handshake */

struct agent_proved {
    UT_hash_handle hh; /* in order of age */
    struct uuid node_id;
    uint8_t fingerprint[PKI_HASH_BYTES];
};

static struct agent_proved *find(const struct agent *a, const struct uuid *id)
{
    struct agent_proved *p = NULL;
    HASH_FIND(hh, a->proved, id->b, sizeof id->b, p);
    return p;
}

static void forget(struct agent *a, struct agent_proved *p)
{
    HASH_DELETE(hh, a->proved, p);
    free(p);
}

static void remember(struct agent *a, const struct pki_identity *who)
{
    struct agent_proved *p = find(a, &who->node_id);
    if (p == NULL) {
        if (HASH_COUNT(a->proved) >= PROVED_MAX) {
            forget(a, a->proved);
        }
        p = xcalloc(1, sizeof *p);
        p->node_id = who->node_id;
        HASH_ADD(hh, a->proved, node_id.b, sizeof p->node_id.b, p);
    }
    memcpy(p->fingerprint, who->fingerprint, sizeof p->fingerprint);
}

void peers_fini(struct agent *a)
{
    struct agent_proved *p;
    struct agent_proved *next;
    HASH_ITER(hh, a->proved, p, next)
    {
        forget(a, p);
    }
    buf_fini(&a->links_raw);
}

/* --- the authority sets seen last --- */

void peers_load(struct agent *a)
{
    buf_init(&a->links_raw, (size_t)LEAF_PROOF_LINKS_MAX * (SIGNED_SET_MAX + 8));
    if (member_get(a->member, MEMBER_SET_LINKS, &a->links_raw) != 0) {
        buf_clear(&a->links_raw);
    }
    a->links = leaf_proof_links_of(buf_blob(&a->links_raw));
}

/* A ban is dropped from the configuration when the last certificate for its key has expired; whoever
 * makes another one must not find the key still remembered. */
static void forget_banned(struct agent *a)
{
    struct agent_proved *p;
    struct agent_proved *next;
    HASH_ITER(hh, a->proved, p, next)
    {
        if (pki_trust_is_banned(a->cfg.trust, p->fingerprint)) {
            forget(a, p);
        }
    }
}

void peers_follow(struct agent *a, const struct config *cfg)
{
    struct errmsg em = ERRMSG_INIT;
    forget_banned(a);
    if (cfg->witnessed && leaf_proof_links(buf_blob(&cfg->bytes), &a->links, &a->links_raw) &&
        member_put(a->member, MEMBER_SET_LINKS, buf_blob(&a->links_raw), &em) != 0) {
        log_warn(LOG_AGENT, "authority sets not stored",
                 "error=\"%s\" next=\"peers that are behind are refused after a restart\"",
                 em.text);
    }
}

/* --- who is who --- */

/* Not the one whose id is on it, but the authority whose CA signed it. */
static void report_signer(struct agent *a, const struct pki_identity *who, int rc, const char *text)
{
    struct pki_identity signer = *who;
    char id[UUID_TEXT_MAX];
    char why[REASON_MAX_BYTES];
    signer.node_id = who->issuer_id;
    memcpy(signer.fingerprint, who->issuer_fingerprint, sizeof signer.fingerprint);
    uuid_format(&who->node_id, id);
    (void)snprintf(why, sizeof why, "a certificate for %s: %.150s", id, text);
    report_forgery(a, "certificate", rc, why, &signer, blob_of(who->public_key, PKI_KEY_BYTES));
}

static bool is_listed_authority(const struct agent *a, const struct pki_identity *who,
                                bool *ret_same_ca)
{
    struct config_iter it;
    struct snapshot_authority row;
    if (a->snapshot == NULL) {
        return false;
    }
    config_iter_init(&it, a->snapshot->body.authorities);
    while (config_next_authority(&it, &row) == 1) {
        if (uuid_equal(&row.node_id, &who->node_id)) {
            *ret_same_ca = memcmp(row.issuer_fingerprint.data, who->issuer_fingerprint,
                                  PKI_HASH_BYTES) == 0;
            return true;
        }
    }
    return false;
}

static int admit_authority(struct agent *a, const struct pki_identity *who, struct errmsg *em)
{
    const struct witness_member *m = witness_set_find(&a->set, &who->node_id);
    bool same_ca = true;
    bool listed = is_listed_authority(a, who, &same_ca);
    /* A new CA of this authority's own name: the root key alone makes one, so this is an authority
     * that the owner restored on another host. What it says has to prove itself as ever. */
    bool restored = listed && !same_ca && who->authority;
    if (m != NULL && !restored && memcmp(m->fingerprint, who->fingerprint, PKI_HASH_BYTES) != 0) {
        return errmsg_set(em, -ERR_NOT_WITNESSED,
                          "its key is not the one that the authority set has for this authority");
    }
    if (m == NULL && a->set.known && listed && !same_ca) {
        /* One that is still joining: any CA can write its id into an ordinary certificate. */
        return errmsg_set(em, -ERR_NOT_WITNESSED, "its certificate is not under its own CA");
    }
    return 0;
}

/* Proofs are asked for once every authority's program knows of them. */
static bool peers_prove(const struct agent *a)
{
    return a->set.known && a->snapshot != NULL && a->snapshot->body.peers_prove;
}

int agent_admit(struct agent *a, const struct pki_identity *who, struct errmsg *em)
{
    int rc = admit_authority(a, who, em);
    if (rc == 0 && !who->authority && peers_prove(a) &&
        (a->cfg.lists == NULL || !a->cfg.lists(a->cfg.data, who))) {
        const struct agent_proved *p = find(a, &who->node_id);
        if (p == NULL) {
            return FABRIC_ADMIT_PROVE;
        }
        if (memcmp(p->fingerprint, who->fingerprint, PKI_HASH_BYTES) != 0) {
            rc = errmsg_set(em, -ERR_NOT_WITNESSED, "that node has proved another key");
        }
    }
    if (rc != 0) {
        report_signer(a, who, rc, em->text);
    }
    return rc;
}

int agent_own_proof(struct agent *a, struct buf *out)
{
    return a->snapshot == NULL
               ? -ERR_NOT_FOUND
               : leaf_proof_make(buf_blob(&a->snapshot->bytes), a->leaf.fingerprint, a->links, out);
}

int agent_prove(struct agent *a, const struct pki_identity *who, int rc, struct blob proof,
                struct errmsg *em)
{
    uint8_t root_key[PKI_KEY_BYTES];
    struct leaf_expect e = {
        .cluster_id = a->member->cluster_id,
        .node_id = who->node_id,
        .set = &a->set,
        .links = a->links,
        .root_key = pki_trust_root_key(a->cfg.trust, root_key) ? root_key : NULL,
        .now_ms = clock_wall_ms(),
    };
    memcpy(e.fingerprint, who->fingerprint, sizeof e.fingerprint);
    if (rc == -ERR_CLOSED || rc == -ERR_CANCELED) {
        return errmsg_set(em, rc, "the session ended before it proved its key");
    }
    if (rc != 0) {
        rc = errmsg_set(em, -ERR_NOT_WITNESSED,
                        "it showed no proof that its key is that of the node it names (%s)",
                        err_text(rc));
    } else {
        rc = leaf_proof_check(proof, &e, em);
    }
    if (rc == 0) {
        remember(a, who);
        return 0;
    }
    if (rc != -ERR_EXPIRED && rc != -ERR_REVOKED) { /* out of date is no forgery */
        report_signer(a, who, -ERR_NOT_WITNESSED, em->text);
    }
    return -ERR_NOT_WITNESSED;
}
