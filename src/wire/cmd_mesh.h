/* Log commands about the overlay: what the owner configures of it. Part of wire/cmd.h. */
#ifndef RAP_WIRE_CMD_MESH_H
#define RAP_WIRE_CMD_MESH_H

#include "wire/limits.h"
#include "wire/msg.h"

/* For every node whose own row says nothing else. enum cmd_switch. */
#define MESH_SET_FIELDS(X, T)        \
    X(T, 1, U64, overlay, 0, 0)      \
    X(T, 2, U64, synthetic, 0, 0)    \
    /* From LEVEL_CUT_OFF on: */     \
    X(T, 3, U64, cut_off_after_ms, 0, 0) /* 0: stays as it is; CUT_OFF_NEVER */
MSG_DECLARE(mesh_set, MESH_SET_FIELDS)
/* How long services of a node go on that no authority answers, or of an authority without a majority (AUTH-04). */
#define CUT_OFF_NEVER 1
#define CUT_OFF_MS_MIN 1000
#define CUT_OFF_MS_MAX (7ULL * 24 * 3600 * 1000)

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

/* --- route intents (SPEC RTE-09): which ways certain nodes take to certain others --- */
#define INTENT_CREATE_FIELDS(X, T)                                       \
    X(T, 1, ID, intent_id, 0, MSG_REQUIRED)                              \
    X(T, 2, STR, name, NAME_MAX_BYTES, MSG_REQUIRED)                     \
    X(T, 3, STR, policy, 16, MSG_REQUIRED)           /* intent_policy_names */ \
    X(T, 4, STR, source_kind, 16, MSG_REQUIRED)      /* any, node, role, region, organization */ \
    X(T, 5, STR, source_ref, SELECTOR_REF_MAX, 0)    \
    X(T, 6, STR, destination_kind, 16, MSG_REQUIRED) /* any, node, pool, resource */ \
    X(T, 7, STR, destination_ref, SELECTOR_REF_MAX, 0) \
    X(T, 8, STR, via_kind, 16, MSG_REQUIRED)         /* any, direct, node, region */ \
    X(T, 9, STR, via_ref, SELECTOR_REF_MAX, 0)       \
    X(T, 10, STR, qos_class, 16, 0)                  /* qos_class_names, but control */ \
    /* From LEVEL_RESOURCES on: */                                       \
    X(T, 11, STR, organization_id, ORGANIZATION_MAX_BYTES, 0)            \
    X(T, 12, STR, service_class, SERVICE_CLASS_MAX_BYTES, 0)
MSG_DECLARE(intent_create, INTENT_CREATE_FIELDS)

#define INTENT_SET_FIELDS(X, T)             \
    X(T, 1, ID, intent_id, 0, MSG_REQUIRED) \
    X(T, 2, FLAG, disabled, 0, 0)
MSG_DECLARE(intent_set, INTENT_SET_FIELDS)

#define INTENT_DELETE_FIELDS(X, T) X(T, 1, ID, intent_id, 0, MSG_REQUIRED)
MSG_DECLARE(intent_delete, INTENT_DELETE_FIELDS)

/* --- queues of relays (SPEC QOS-01): one class's whole row, or as the program has it again --- */
#define QOS_SET_FIELDS(X, T)                                              \
    X(T, 1, STR, channel_class, 16, MSG_REQUIRED) /* qos_class_names */    \
    X(T, 2, FLAG, reset, 0, 0)                                            \
    X(T, 3, U64, priority, 0, 0)                                          \
    X(T, 4, U64, rate_kbps, 0, 0)      /* 0: as much as there is */        \
    X(T, 5, FLAG, droppable, 0, 0)                                        \
    X(T, 6, U64, floor_permille, 0, 0)                                    \
    X(T, 7, U64, limit_kib, 0, 0)                                         \
    X(T, 8, U64, life_ms, 0, 0)
MSG_DECLARE(qos_set, QOS_SET_FIELDS)

/* --- egress pools (SPEC RTE-03) --- */
#define POOL_CREATE_FIELDS(X, T)                     \
    X(T, 1, ID, pool_id, 0, MSG_REQUIRED)            \
    X(T, 2, STR, name, NAME_MAX_BYTES, MSG_REQUIRED) \
    X(T, 3, STR, organization_id, 64, 0)
MSG_DECLARE(pool_create, POOL_CREATE_FIELDS)

#define POOL_DELETE_FIELDS(X, T) X(T, 1, ID, pool_id, 0, MSG_REQUIRED)
MSG_DECLARE(pool_delete, POOL_DELETE_FIELDS)

#define POOL_MEMBER_FIELDS(X, T)          \
    X(T, 1, ID, pool_id, 0, MSG_REQUIRED) \
    X(T, 2, ID, node_id, 0, MSG_REQUIRED) \
    X(T, 3, FLAG, removed, 0, 0)
MSG_DECLARE(pool_member, POOL_MEMBER_FIELDS)

/* --- an organization's resources (SPEC RTE-03): one's whole row; who prepares it fills in what stays.
 * Served by a node, or by any of a pool; by nobody for now when both are nil. --- */
#define RESOURCE_CREATE_FIELDS(X, T)                                          \
    X(T, 1, ID, resource_id, 0, MSG_REQUIRED)                                 \
    X(T, 2, STR, organization_id, ORGANIZATION_MAX_BYTES, 0)                  \
    X(T, 3, STR, name, NAME_MAX_BYTES, MSG_REQUIRED)                          \
    X(T, 4, STR, protocol, PROTOCOL_MAX_BYTES, MSG_REQUIRED) /* rdp, ssh ... */ \
    X(T, 5, STR, target_ref, RESOURCE_REF_MAX_BYTES, 0)                       \
    X(T, 6, ID, node_id, 0, 0)                                                \
    X(T, 7, ID, egress_pool_id, 0, 0)                                         \
    X(T, 8, STR, credential_ref, RESOURCE_REF_MAX_BYTES, 0)
MSG_DECLARE(resource_create, RESOURCE_CREATE_FIELDS)

#define RESOURCE_SET_FIELDS(X, T)                                             \
    X(T, 1, ID, resource_id, 0, MSG_REQUIRED)                                 \
    X(T, 4, STR, protocol, PROTOCOL_MAX_BYTES, MSG_REQUIRED)                  \
    X(T, 5, STR, target_ref, RESOURCE_REF_MAX_BYTES, 0)                       \
    X(T, 6, ID, node_id, 0, 0)                                                \
    X(T, 7, ID, egress_pool_id, 0, 0)                                         \
    X(T, 8, STR, credential_ref, RESOURCE_REF_MAX_BYTES, 0)
MSG_DECLARE(resource_set, RESOURCE_SET_FIELDS)

#define RESOURCE_DELETE_FIELDS(X, T) X(T, 1, ID, resource_id, 0, MSG_REQUIRED)
MSG_DECLARE(resource_delete, RESOURCE_DELETE_FIELDS)

/* --- observations: what changed of links and of ways that intents decided (DESIGN D11) --- */
#define MESH_LOG_FIELDS(X, T)                                                          \
    X(T, 1, LIST, links, MESH_CHANGES_MAX, 0)  /* of bin: mesh_link_seen */           \
    X(T, 2, LIST, routes, MESH_CHANGES_MAX, 0) /* of bin: mesh_route_seen */
MSG_DECLARE(mesh_log, MESH_LOG_FIELDS)

#define MESH_LINK_SEEN_FIELDS(X, T)                                     \
    X(T, 1, ID, from_node_id, 0, MSG_REQUIRED)                            \
    X(T, 2, ID, to_node_id, 0, MSG_REQUIRED)                              \
    X(T, 3, STR, status, 16, MSG_REQUIRED) /* up, suspect, trying, down */ \
    X(T, 4, U64, rtt_us, 0, 0)                                            \
    X(T, 5, U64, loss_permille, 0, 0)                                     \
    X(T, 6, I64, reported_at_ms, 0, MSG_REQUIRED)
MSG_DECLARE(mesh_link_seen, MESH_LINK_SEEN_FIELDS)

#define MESH_ROUTE_SEEN_FIELDS(X, T)                                    \
    X(T, 1, ID, from_node_id, 0, MSG_REQUIRED)                            \
    X(T, 2, ID, to_node_id, 0, MSG_REQUIRED)                              \
    X(T, 3, ID, intent_id, 0, 0)   /* nil: none decides any more */       \
    X(T, 4, ID, next_hop_id, 0, 0) /* nil: there is no way */             \
    X(T, 5, U64, metric_us, 0, 0)                                         \
    X(T, 6, STR, health, 16, MSG_REQUIRED)                                \
    X(T, 7, I64, reported_at_ms, 0, MSG_REQUIRED)
MSG_DECLARE(mesh_route_seen, MESH_ROUTE_SEEN_FIELDS)

/* NULL-terminated; the place of a name is its number in a snapshot, counted from 1. */
extern const char *const intent_policy_names[]; /* prefer, avoid, require, deny, direct */
extern const char *const intent_via_names[];    /* any, direct, node, region */
extern const char *const qos_class_names[];     /* control ... droppable */
/* What nodes do for each other beside running the cluster. A service belongs to the class that it is
 * called after: synthetic.echo to synthetic. */
extern const char *const service_class_names[];
/* 0: none of them. */
uint64_t word_number(const char *const *names, struct blob word);

/* How many peers a node keeps (SPEC PEER-02): auto follows its roles, thin 1-3, normal 3-5, core 8-20. */
extern const char *const mesh_kind_names[]; /* NULL-terminated */
bool mesh_kind_is_known(struct blob kind);

#endif
