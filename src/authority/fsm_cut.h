/* What a snapshot says, cut from the state alone (DESIGN section 6): the part of one node and the part
 * that every node is told. Both are items of the tree that a majority signs (decision 0008), so they
 * must be functions of rows that change together with nodes.config_index or clusters.config_version,
 * and of nothing else: no clock, no position. */
#ifndef RAP_AUTHORITY_FSM_CUT_H
#define RAP_AUTHORITY_FSM_CUT_H

#include "base/db.h"
#include "pki/pki.h"
#include "wire/node_msg.h"

/* Where each list of the body is built. */
enum cut_buf {
    CUT_AUTHORITIES,
    CUT_ROLES,
    CUT_REVOCATIONS,
    CUT_RETIRED,
    CUT_RELAYS,
    CUT_DISABLED,
    CUT_SCOPES,
    CUT_PEERS,
    CUT_MESH,
    CUT_INTENTS,
    CUT_ALL_INTENTS,
    CUT_QOS,
    CUT_POOLS,
    CUT_ALL_POOLS,
    CUT_RESOURCES,
    CUT_BUF_COUNT
};

struct cut {
    struct snapshot_body body; /* views into this struct */
    struct buf buf[CUT_BUF_COUNT];
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

/* fsm_cut_mesh.c: what of either is about the overlay. */
int cut_node_mesh(struct db *state, unsigned level, const char *id, struct cut *c);
int cut_cluster_mesh(struct db *state, unsigned level, struct cut *c);

#endif
