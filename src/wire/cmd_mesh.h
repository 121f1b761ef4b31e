/* Log commands about the overlay: what the owner configures of it. Part of wire/cmd.h. */
#ifndef RAP_WIRE_CMD_MESH_H
#define RAP_WIRE_CMD_MESH_H

#include "wire/limits.h"
#include "wire/msg.h"

/* For every node whose own row says nothing else. enum cmd_switch. */
#define MESH_SET_FIELDS(X, T)        \
    X(T, 1, U64, overlay, 0, 0)      \
    X(T, 2, U64, synthetic, 0, 0)
MSG_DECLARE(mesh_set, MESH_SET_FIELDS)

/* One node's whole row: who prepares it fills in what stays. */
#define NODE_MESH_SET_FIELDS(X, T)                                       \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                                \
    X(T, 2, STR, overlay, 16, MSG_REQUIRED)   /* inherit, off, on */      \
    X(T, 3, STR, synthetic, 16, MSG_REQUIRED) /* inherit, off, on */      \
    X(T, 4, STR, kind, 16, MSG_REQUIRED)      /* mesh_kind_names */       \
    X(T, 5, STR, region, NAME_MAX_BYTES, 0)   /* empty: not known */      \
    X(T, 6, U64, bandwidth_mbps, 0, 0)        /* 0: not known */          \
    X(T, 7, U64, trust, 0, 0)                 /* 0 to 100 */
MSG_DECLARE(node_mesh_set, NODE_MESH_SET_FIELDS)

/* How many peers a node keeps (SPEC PEER-02): auto follows its roles, thin 1-3, normal 3-5, core 8-20. */
extern const char *const mesh_kind_names[]; /* NULL-terminated */
bool mesh_kind_is_known(struct blob kind);

#endif
