/* What a majority of the authority signs (DESIGN D16, docs/decisions/0008): statements about what was
 * decided, and the chain of statements about who the authority is. What is signed is the bytes as
 * sent, which are decoded after the signature was checked; signing domains keep the kinds apart. */
#ifndef RAP_WIRE_WITNESS_MSG_H
#define RAP_WIRE_WITNESS_MSG_H

#include "wire/limits.h"
#include "wire/msg.h"

#define WITNESS_VERSION 1
#define WITNESS_SIGN_DOMAIN "rap-witness"
#define AUTHORITY_SET_SIGN_DOMAIN "rap-authority-set"
#define WITNESS_STATEMENT_MAX 256
#define AUTHORITY_SET_MAX 1024        /* bytes of one statement */
#define AUTHORITY_SET_LINKS_MAX 64    /* sent at once */
#define MERKLE_PATH_WIRE_MAX 8192     /* 256 steps */
#define NODE_LEAF_MAX 256             /* bytes of one node_leaf */
#define LEAF_PROOF_LINKS_MAX 8
#define HISTORY_PROOF_WIRE_MAX 4096

/* Everything decided up to an index that changed configuration. */
#define WITNESS_STATEMENT_FIELDS(X, T)                                                  \
    X(T, 1, U64, version, 0, MSG_REQUIRED) /* WITNESS_VERSION */                        \
    X(T, 2, ID, cluster_id, 0, MSG_REQUIRED)                                            \
    X(T, 3, U64, epoch, 0, MSG_REQUIRED)                                                \
    X(T, 4, U64, index, 0, MSG_REQUIRED)                                                \
    X(T, 5, FIX, root, 32, MSG_REQUIRED)      /* pki/merkle.h, over all that is decided */ \
    X(T, 6, U64, audit_seq, 0, MSG_REQUIRED)                                            \
    X(T, 7, FIX, audit_head, 32, MSG_REQUIRED)                                          \
    X(T, 8, FIX, history, 32, MSG_REQUIRED)   /* pki/history.h, over the audit chain */ \
    X(T, 9, U64, set_seq, 0, MSG_REQUIRED)    /* of the authority set that signs it */
MSG_DECLARE(witness_statement, WITNESS_STATEMENT_FIELDS)

/* Signed: the eight bytes of signed_at_ms, most significant first, then the statement. A signature
 * counts for SNAPSHOT_LIFE_MS from signed_at_ms on. */
#define WITNESS_SIGNATURE_FIELDS(X, T)                                       \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                                    \
    X(T, 2, I64, signed_at_ms, 0, MSG_REQUIRED)                              \
    X(T, 3, FIX, signature, 64, MSG_REQUIRED)
MSG_DECLARE(witness_signature, WITNESS_SIGNATURE_FIELDS)

/* Who the authority is, from here on. Members rise by node id. */
#define AUTHORITY_SET_FIELDS(X, T)                                                        \
    X(T, 1, U64, version, 0, MSG_REQUIRED) /* WITNESS_VERSION */                          \
    X(T, 2, ID, cluster_id, 0, MSG_REQUIRED)                                              \
    X(T, 3, U64, epoch, 0, MSG_REQUIRED)                                                  \
    X(T, 4, U64, seq, 0, MSG_REQUIRED)    /* from 1 */                                    \
    X(T, 5, FIX, previous, 32, 0)         /* SHA-256 of the statement before; the root may \
                                             sign one without */                          \
    X(T, 6, LIST, members, AUTHORITIES_MAX, MSG_REQUIRED) /* of bin: authority_set_member */
MSG_DECLARE(authority_set, AUTHORITY_SET_FIELDS)

#define AUTHORITY_SET_MEMBER_FIELDS(X, T)       \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)       \
    X(T, 2, FIX, public_key, 32, MSG_REQUIRED)
MSG_DECLARE(authority_set_member, AUTHORITY_SET_MEMBER_FIELDS)

/* One link of the chain. */
#define SIGNED_SET_FIELDS(X, T)                                                  \
    X(T, 1, BIN, statement, AUTHORITY_SET_MAX, MSG_REQUIRED)                     \
    X(T, 2, LIST, signatures, AUTHORITIES_MAX + 1, MSG_REQUIRED) /* of bin: set_signature */
MSG_DECLARE(signed_set, SIGNED_SET_FIELDS)

#define SET_SIGNATURE_FIELDS(X, T)                                    \
    X(T, 1, ID, node_id, 0, 0)           /* absent: the cluster's root */ \
    X(T, 2, FIX, signature, 64, MSG_REQUIRED)
MSG_DECLARE(set_signature, SET_SIGNATURE_FIELDS)

/* service "witness", rpc, authority -> authority: sign this, if you have applied the same. Exactly
 * one of the two is there. */
#define WITNESS_REQUEST_FIELDS(X, T)                                   \
    X(T, 1, BIN, statement, WITNESS_STATEMENT_MAX, 0)                  \
    X(T, 2, BIN, set, AUTHORITY_SET_MAX, 0)
MSG_DECLARE(witness_request, WITNESS_REQUEST_FIELDS)
#define WITNESS_ANSWER_FIELDS(X, T)                                    \
    X(T, 1, FIX, signature, 64, MSG_REQUIRED)                          \
    X(T, 2, I64, signed_at_ms, 0, 0) /* of a statement */
MSG_DECLARE(witness_answer, WITNESS_ANSWER_FIELDS)

/* The leaf of one node in the tree: which key is this node's. config is the hash of its own part of
 * its snapshot, so that showing the leaf to a peer shows no role. */
#define NODE_LEAF_FIELDS(X, T)                                         \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                              \
    X(T, 2, FIX, fingerprint, 32, MSG_REQUIRED)                        \
    X(T, 3, STR, membership_status, 16, MSG_REQUIRED)                  \
    X(T, 4, FIX, config, 32, MSG_REQUIRED)
MSG_DECLARE(node_leaf, NODE_LEAF_FIELDS)

/* service "leaf", rpc, node -> node, an empty request: which key is this node's, as a majority signed it
 * with the newest configuration the node holds. links: the authority sets it saw last, for a peer that has
 * not seen them. */
#define LEAF_PROOF_FIELDS(X, T)                                                           \
    X(T, 1, BIN, statement, WITNESS_STATEMENT_MAX, MSG_REQUIRED)                          \
    X(T, 2, LIST, signatures, AUTHORITIES_MAX, MSG_REQUIRED) /* of bin: witness_signature */ \
    X(T, 3, BIN, leaf, NODE_LEAF_MAX, MSG_REQUIRED)          /* node_leaf */              \
    X(T, 4, BIN, path, MERKLE_PATH_WIRE_MAX, 0)                                           \
    X(T, 5, LIST, links, LEAF_PROOF_LINKS_MAX, 0)            /* of bin: signed_set */
MSG_DECLARE(leaf_proof, LEAF_PROOF_FIELDS)

/* What shows that a snapshot is what was decided. In a signed_snapshot. */
#define SNAPSHOT_WITNESS_FIELDS(X, T)                                                         \
    X(T, 1, BIN, statement, WITNESS_STATEMENT_MAX, MSG_REQUIRED)                              \
    X(T, 2, LIST, signatures, AUTHORITIES_MAX, MSG_REQUIRED) /* of bin: witness_signature */  \
    X(T, 3, BIN, cluster_path, MERKLE_PATH_WIRE_MAX, 0)                                       \
    X(T, 4, BIN, node_path, MERKLE_PATH_WIRE_MAX, 0)                                          \
    X(T, 5, LIST, links, AUTHORITY_SET_LINKS_MAX, 0) /* of bin: signed_set, after the one held */ \
    X(T, 6, U64, history_from, 0, 0)         /* the audit_seq that the node said it holds */  \
    X(T, 7, BIN, history_proof, HISTORY_PROOF_WIRE_MAX, 0)
MSG_DECLARE(snapshot_witness, SNAPSHOT_WITNESS_FIELDS)

/* service "report", rpc, node -> authority: somebody showed us what no majority signed. */
#define FORGERY_REPORT_FIELDS(X, T)                                                   \
    X(T, 1, ID, request_id, 0, MSG_REQUIRED)                                          \
    X(T, 2, STR, kind, FORGERY_KIND_MAX_BYTES, MSG_REQUIRED) /* "snapshot", "certificate" */ \
    X(T, 3, STR, error, 32, MSG_REQUIRED)       /* err_slug of the refusal */         \
    X(T, 4, STR, detail, REASON_MAX_BYTES, 0)                                         \
    X(T, 5, ID, offender_id, 0, 0)              /* who showed it, or whose CA signed it */ \
    X(T, 6, FIX, offender_fingerprint, 32, 0)                                         \
    X(T, 7, FIX, evidence, 32, 0)               /* SHA-256 of what was shown */       \
    X(T, 8, I64, seen_at_ms, 0, 0)                                                    \
    X(T, 9, ID, node_id, 0, 0)                  /* set by a forwarding authority */
MSG_DECLARE(forgery_report, FORGERY_REPORT_FIELDS)

#endif
