/* What a snapshot says, cut from the state alone (DESIGN section 6): the part of one node and the part
 * that every node is told. Both are items of the tree that a majority signs (decision 0008), so they
 * must be functions of rows that change together with nodes.config_index or clusters.config_version,
 * and of nothing else: no clock, no position. */
#ifndef RAP_AUTHORITY_FSM_CUT_H
#define RAP_AUTHORITY_FSM_CUT_H

#include "base/db.h"
#include "pki/pki.h"
#include "wire/node_msg.h"

struct cut {
    struct snapshot_body body; /* views into this struct */
    struct buf authorities, roles, revocations, retired, relays, disabled, scopes, peers, mesh;
    char cluster_name[NAME_MAX_BYTES + 1];
    char node_name[NAME_MAX_BYTES + 1];
    char membership[16];
    uint8_t fingerprint[PKI_HASH_BYTES]; /* of the node's key */
    uint64_t config_index;               /* nodes.config_index */
};

void cut_init(struct cut *c);
void cut_fini(struct cut *c);
/* level: of the state. -ERR_NOT_FOUND: no such node. */
int cut_node(struct db *state, unsigned level, const struct uuid *node_id, struct cut *c);
int cut_cluster(struct db *state, unsigned level, struct cut *c);

#endif
