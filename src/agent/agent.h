/* The agent of a node: keeps its identity fresh, reports, and consumes signed configuration. It
 * knows authorities only as peers on the fabric. Runs on the fabric's loop. */
#ifndef RAP_AGENT_AGENT_H
#define RAP_AGENT_AGENT_H

#include "agent/config.h"
#include "agent/member.h"
#include "fabric/fabric.h"

struct agent;

struct agent_config {
    uv_loop_t *loop;
    struct fabric *fabric;  /* identity already set */
    struct member *member;
    struct pki_trust *trust; /* the agent bans what snapshots revoke, then fabric_recheck */
    uint32_t heartbeat_ms;   /* 0 = 15000 until the authority says otherwise */
    void *data;
    /* A newer snapshot was verified, stored and is in force. */
    void (*config_changed)(void *data, const struct config *cfg);
    /* Our certificate was renewed and stored; the fabric has it already. */
    void (*identity_renewed)(void *data);
};

/* Loads the stored snapshot (used even when no authority can be reached), sets the fabric's
 * directory from it, connects, subscribes, heartbeats. */
int agent_open(const struct agent_config *config, struct agent **ret, struct errmsg *em);
/* cb on a later turn; the agent is freed when it returns. */
void agent_close(struct agent *a, void (*cb)(void *data), void *data);

/* The snapshot in force; NULL when none was ever received. */
const struct config *agent_snapshot(const struct agent *a);
/* For an authority that is its own node: hands over a signed snapshot without the network. */
int agent_offer_snapshot(struct agent *a, struct blob signed_snapshot, struct errmsg *em);

struct agent_status {
    bool connected;          /* a config subscription to some authority is live */
    struct uuid authority;   /* which */
    int64_t last_contact_ms; /* wall clock; 0 never */
    bool degraded;           /* snapshot expired, or no authority for 3 heartbeats */
    const char *health;
    int64_t certificate_expires_ms;
};
void agent_status(const struct agent *a, struct agent_status *ret);

/* What this host can do (SPEC CAP-01), detected now: appends encoded strings, raises count. */
void agent_capabilities(struct buf *raw, uint32_t *count);
/* Facts about this host as a JSON object (os, kernel, arch, cpus, memory_bytes, hostname). */
void agent_facts(struct buf *out);

#endif
