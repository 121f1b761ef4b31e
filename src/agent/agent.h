/* The agent of a node: keeps its identity fresh, reports, and consumes signed configuration. It
 * knows authorities only as peers on the fabric. Runs on the fabric's loop.
 *
 * What it does with a snapshot, from the network or offered: verify (agent/config.h), store, then
 * put in force: ban what it revokes, fabric_recheck, fabric directory, config_changed. A snapshot
 * that does not verify changes nothing, and the agent turns to another authority.
 *
 * It serves the rpc "issuer" to authorities: the making of an authority (agent/issuer.h). */
#ifndef RAP_AGENT_AGENT_H
#define RAP_AGENT_AGENT_H

#include "agent/config.h"
#include "agent/member.h"
#include "fabric/fabric.h"

struct agent;

struct agent_config {
    uv_loop_t *loop;
    struct fabric *fabric; /* identity already set */
    struct member *member;
    struct pki_trust *trust; /* the agent bans what snapshots revoke, then fabric_recheck */
    uint32_t heartbeat_ms;   /* 0 = 15000 until the authority says otherwise */
    void *data;
    /* A newer snapshot was verified, stored and is in force. */
    void (*config_changed)(void *data, const struct config *cfg);
    /* Our certificate was renewed and stored; the fabric has it already. An authority renews its
     * own leaf under its own CA, which the cluster's state does not know yet: the daemon proposes
     * it. May be NULL, like config_changed. */
    void (*identity_renewed)(void *data);
    /* This node was made an authority: issuer.key, issuer.crt and a leaf with the authority name are
     * stored and in use. Runs on a later turn than the request that brought them. May be NULL. */
    void (*authority_installed)(void *data);
    /* The overlay's links and routes for a heartbeat that is about to go: fills them in with what it
     * appends to the two buffers. May be NULL. */
    void (*mesh_report)(void *data, struct heartbeat *hb, struct buf *links, struct buf *routes);
    /* This node is an authority, and its state lists this key as that node's: no proof is asked for. May
     * be NULL. */
    bool (*lists)(void *data, const struct pki_identity *who);
    /* This node is an authority and was shown a forgery: an encoded forgery_report for it. May be
     * NULL. */
    void (*forgery_seen)(void *data, struct blob report);
};

/* Loads the stored snapshot (used even when no authority can be reached or it has expired), sets the
 * fabric's directory from it, connects, subscribes, heartbeats. A stored snapshot that does not verify
 * is not used, but nothing older than it is accepted either. config_changed is not called for it. */
int agent_open(const struct agent_config *config, struct agent **ret, struct errmsg *em);
/* cb on a later turn; the agent is freed when it returns. The fabric must still be open here, and be
 * closed in cb at the latest: it still names the agent as a service. */
void agent_close(struct agent *a, void (*cb)(void *data), void *data);

/* The snapshot in force; NULL when none was ever received. */
const struct config *agent_snapshot(const struct agent *a);
/* What a snapshot is checked against now: everything but held, again and allow_expired. Valid as long
 * as nothing newer is in force. */
void agent_expect(const struct agent *a, struct config_expect *ret);
/* What we hold of the audit and of the chain of authority sets; 0 nothing. */
void agent_held(const struct agent *a, uint64_t *ret_audit_seq, uint64_t *ret_set_epoch,
                uint64_t *ret_set_seq);
/* This member has no relay role by our configuration and goes on advertising routes to others: the
 * authorities are told, once in ten minutes, and it is audited. */
void agent_report_routes(struct agent *a, const struct pki_identity *offender);
/* For an authority that is its own node: hands over a signed snapshot without the network. Errors as
 * config_verify's, or -ERR_IO when it could not be stored: then only its revocations count. */
int agent_offer_snapshot(struct agent *a, struct blob signed_snapshot, struct errmsg *em);

/* The owner's record of roots, without a snapshot around it: believed and kept if it is newer. 0 also
 * when it is not. Errors as pki_trust_adopt's. */
int agent_adopt_roots(struct agent *a, struct blob record, struct errmsg *em);

/* The owner certified our issuing CA anew: stores it and a leaf of our own under it, and shows it to
 * the fabric. Errors as issuer_install's; then nothing changed. */
int agent_install_issuer(struct agent *a, struct blob issuer_der, struct errmsg *em);

/* At start, before anything is verified: trust has the root of node.crt; adds what the owner's last
 * record of roots says. */
void agent_restore_trust(struct member *m, struct pki_trust *trust);
/* Appends that record, as it is in force; nothing when the root was never rotated. */
void agent_put_roots(const struct agent *a, struct buf *out);
/* The set that was believed when this node stopped: a majority of it is asked for, whatever an
 * authority says. *ret stays as it is when there was none. */
int agent_load_set(struct member *m, struct witness_set *ret, struct errmsg *em);

/* This node is an authority: no subscription and no heartbeats over the network, snapshots are
 * offered. Undone when it stops being one. */
void agent_set_local(struct agent *a, bool local_authority);

/* For fabric_config.admit: refuses who shows the id of an authority with a key that is not the one a
 * majority signed, whatever CA of the cluster is above it (-ERR_NOT_WITNESSED), and asks every other node
 * for a proof that it is not known by yet (FABRIC_ADMIT_PROVE). */
int agent_admit(struct agent *a, const struct pki_identity *who, struct errmsg *em);
/* For fabric_config.own_proof and prove. A proof that does not hold is reported as a forgery of the
 * authority whose CA is above the certificate. */
int agent_own_proof(struct agent *a, struct buf *out);
int agent_prove(struct agent *a, const struct pki_identity *who, int rc, struct blob proof,
                struct errmsg *em);

struct agent_status {
    bool connected;          /* a config subscription to some authority is live, or we are one */
    struct uuid authority;   /* which */
    int64_t last_contact_ms; /* wall clock; 0 never */
    int contact_rc;          /* not connected: why the last try came to nothing; 0 not known */
    /* Monotonic: since an authority answered, or since the start; 0: we are one. */
    uint64_t contact_age_ms;
    bool disabled;      /* our membership is: peers refuse us, authorities only tell us */
    bool degraded;      /* snapshot expired, or no authority for 3 heartbeats */
    const char *health; /* "healthy", "degraded", or "revoked": our key is banned, or an
                                authority refused it; it asks again about once a minute */
    int64_t certificate_expires_ms;
    int64_t issuer_expires_ms, root_expires_ms; /* above it */
    bool clock_compared;     /* with that of an authority, by the last heartbeat it answered: */
    int64_t clock_ahead_ms;  /* ours is so much ahead of its own, */
    int64_t clock_within_ms; /* give or take this much */
};
void agent_status(const struct agent *a, struct agent_status *ret);

/* What this host can do (SPEC CAP-01; the rules are in capabilities.c), detected now: appends encoded
 * strings, raises count. Disk space is that of the root file system. */
void agent_capabilities(struct buf *raw, uint32_t *count);
/* Facts about this host as a JSON object (os, kernel, arch, cpus, memory_bytes, hostname). */
void agent_facts(struct buf *out);

#endif
