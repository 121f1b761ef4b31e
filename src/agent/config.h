/* A signed snapshot, checked (SPEC SNAP-01). Pure: the time is an argument. */
#ifndef RAP_AGENT_CONFIG_H
#define RAP_AGENT_CONFIG_H

#include "pki/pki.h"
#include "wire/node_msg.h"

struct config {
    struct buf bytes;          /* the signed message, owned */
    struct snapshot_body body; /* views into bytes */
    struct pki_identity signer;
};

struct config_expect {
    const struct pki_trust *trust;
    struct uuid cluster_id, node_id;
    /* What is held; 0 when nothing is. An equal (epoch, version) is accepted only when `again`. */
    uint64_t epoch, version;
    bool again; /* re-reading the stored one at start */
    bool allow_expired; /* at offline start: kept, but the node is degraded */
    int64_t now_ms;
};

/* Verifies and decodes. On success *ret owns everything (config_free). Refusals, each distinct:
 * -ERR_MALFORMED, -ERR_BAD_SIGNATURE, -ERR_BAD_CERT, -ERR_NOT_AUTHORITY, -ERR_REVOKED,
 * -ERR_WRONG_CLUSTER, -ERR_WRONG_NODE, -ERR_ROLLBACK, -ERR_EXPIRED, -ERR_SCHEMA, -ERR_SCOPE. */
int config_verify(struct blob signed_snapshot, const struct config_expect *expect,
                  struct config **ret, struct errmsg *em);
void config_free(struct config *c);
bool config_has_role(const struct config *c, const char *role);

#endif
