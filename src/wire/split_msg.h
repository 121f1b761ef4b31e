/* A split (docs/decisions/0022): selected nodes seed a new cluster with a root of its own. What the owner
 * of the old cluster signs, and what the owner of the new one reports of it. Signed and checked by
 * pki/statement.h. Decoded strictly: replicas decide by it. */
#ifndef RAP_WIRE_SPLIT_MSG_H
#define RAP_WIRE_SPLIT_MSG_H

#include "wire/limits.h"
#include "wire/msg.h"

/* Who goes where. */
#define SPLIT_TERMS_FIELDS(X, T)                                                            \
    X(T, 1, ID, cluster_id, 0, MSG_REQUIRED) /* the one that is split */                    \
    X(T, 2, ID, split_id, 0, MSG_REQUIRED)                                                  \
    X(T, 3, STR, name, NAME_MAX_BYTES, MSG_REQUIRED) /* of the new cluster */               \
    X(T, 4, ID, new_cluster_id, 0, MSG_REQUIRED)                                            \
    X(T, 5, FIX, root_pin, 32, MSG_REQUIRED) /* fingerprint of its root's key */            \
    X(T, 6, ID, seed_id, 0, MSG_REQUIRED)    /* one of the nodes */                         \
    X(T, 7, LIST, nodes, SPLIT_NODES_MAX, MSG_REQUIRED) /* of id, rising */
MSG_DECLARE(split_terms, SPLIT_TERMS_FIELDS)
#define SPLIT_TERMS_MAX 6144

enum split_outcome { SPLIT_FINISHED = 1, SPLIT_CANCELLED = 2 };

/* How it ends. */
#define SPLIT_END_FIELDS(X, T)                                                              \
    X(T, 1, ID, cluster_id, 0, MSG_REQUIRED)                                                \
    X(T, 2, ID, split_id, 0, MSG_REQUIRED)                                                  \
    X(T, 3, U64, outcome, 0, MSG_REQUIRED)  /* enum split_outcome */                        \
    X(T, 4, FIX, report_hash, 32, 0)        /* finished: SHA-256 of the signed_split_report */
MSG_DECLARE(split_end, SPLIT_END_FIELDS)

/* What the new cluster has, as its leader saw it. */
#define SPLIT_REPORT_VERSION 1
#define SPLIT_REPORT_FIELDS(X, T)                                                           \
    X(T, 1, U64, version, 0, MSG_REQUIRED)                                                  \
    X(T, 2, ID, cluster_id, 0, MSG_REQUIRED)                                                \
    X(T, 3, STR, cluster_name, NAME_MAX_BYTES, 0)                                           \
    X(T, 4, I64, time_ms, 0, MSG_REQUIRED)                                                  \
    X(T, 5, U64, epoch, 0, 0)                                                               \
    X(T, 6, U64, config_version, 0, 0) /* of the configuration in force for every node */   \
    X(T, 7, U64, voters, 0, 0)                                                              \
    X(T, 8, U64, voters_in_contact, 0, 0)                                                   \
    X(T, 9, STR, admin_name, NAME_MAX_BYTES, 0) /* the authority whose admin API answered */ \
    X(T, 10, LIST, nodes, SPLIT_NODES_MAX, 0)   /* of bin: split_report_node */             \
    X(T, 11, LIST, roles, ROLES_MAX, 0)         /* of bin: split_report_role */
MSG_DECLARE(split_report, SPLIT_REPORT_FIELDS)

#define SPLIT_REPORT_NODE_FIELDS(X, T)                                                      \
    X(T, 1, STR, name, NAME_MAX_BYTES, MSG_REQUIRED)                                        \
    X(T, 2, FLAG, healthy, 0, 0)                                                            \
    X(T, 3, FLAG, votes, 0, 0)    /* a voter of the authority */                            \
    X(T, 4, FLAG, current, 0, 0)  /* it holds the signed snapshot that is in force for it */ \
    X(T, 5, U64, held_version, 0, 0)
MSG_DECLARE(split_report_node, SPLIT_REPORT_NODE_FIELDS)

/* Nodes that have the role, are well and can do what it needs. */
#define SPLIT_REPORT_ROLE_FIELDS(X, T)                                                      \
    X(T, 1, STR, role, ROLE_MAX_BYTES, MSG_REQUIRED)                                        \
    X(T, 2, U64, holders, 0, 0)
MSG_DECLARE(split_report_role, SPLIT_REPORT_ROLE_FIELDS)
#define SPLIT_REPORT_ITEM_MAX 128

#define SPLIT_REPORT_BODY_MAX 16384
#define SIGNED_SPLIT_REPORT_MAX (SPLIT_REPORT_BODY_MAX + 256)
#define SIGNED_SPLIT_REPORT_FIELDS(X, T)                                                    \
    X(T, 1, BIN, body, SPLIT_REPORT_BODY_MAX, MSG_REQUIRED)                                 \
    X(T, 2, FIX, root_key, 32, MSG_REQUIRED) /* public; its fingerprint is the pin */       \
    X(T, 3, FIX, signature, 64, MSG_REQUIRED)
MSG_DECLARE(signed_split_report, SIGNED_SPLIT_REPORT_FIELDS)

/* As a line of text, to be carried from one cluster to the other: this, then base64url. */
#define SPLIT_REPORT_PREFIX "rapr1_"
#define SPLIT_REPORT_TEXT_MAX (SIGNED_SPLIT_REPORT_MAX * 4 / 3 + 16)

/* Decodes and checks what can be checked of the terms alone: a name, ids that rise, the seed among them.
 * -ERR_MALFORMED, -ERR_UNSUPPORTED. */
int split_terms_decode(struct blob in, struct split_terms *ret);
/* Decodes a body: version, names, roles, numbers. -ERR_MALFORMED, -ERR_SCHEMA (a newer version). */
int split_report_decode(struct blob body, struct split_report *ret);
/* The nodes of a decoded report; returns how many. */
uint32_t split_report_nodes(const struct split_report *r,
                            struct split_report_node out[SPLIT_NODES_MAX]);
/* Holders of a role by a decoded report. */
uint64_t split_report_holders(const struct split_report *r, struct blob role);

void split_report_format(struct blob signed_report, struct buf *out);
/* Surrounding white space is ignored. -ERR_MALFORMED, -ERR_TOO_LARGE. */
int split_report_parse(struct blob text, struct buf *out);

#endif
