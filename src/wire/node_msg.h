/* Conversations between an ordinary node and the authority: enrolment, heartbeat, renewal, signed
 * configuration, and the making of an authority. Decoded leniently (MSG_LENIENT), so that versions
 * can differ.
 *
 *   service "enroll"   stream, ALPN rap-enroll/1: enroll_request ->, enroll_status <- (one or more)
 *   service "clock"    stream, ALPN rap-enroll/1: clock_request ->, clock_answer <- (one of each)
 *   service "heartbeat" rpc: heartbeat -> heartbeat_ack
 *   service "renew"     rpc: renew_request -> renew_answer
 *   service "config"    stream: config_subscribe ->, signed_snapshot <- (each change)
 *   service "issuer"    rpc, authority -> node: issuer_request -> issuer_answer
 *   service "op"        rpc, authority -> leader: op_request -> op document
 *   service "recovery" rpc, authority -> authority: wire/recovery_msg.h
 *   service "raft"      stream, authority -> authority: raft_msg frames
 *   service "synthetic.echo" rpc, node -> node: synthetic -> the same
 *   service "synthetic.bulk" stream, node -> node: synthetic ->, synthetic_ack <- (each)
 */
#ifndef RAP_WIRE_NODE_MSG_H
#define RAP_WIRE_NODE_MSG_H

#include "wire/limits.h"
#include "wire/msg.h"
#include "wire/recovery_msg.h"
#include "wire/trust_msg.h"

#define ENROLL_REQUEST_FIELDS(X, T)                                                   \
    X(T, 1, FIX, token_secret, 32, MSG_REQUIRED)                                      \
    X(T, 2, BIN, csr, CSR_DER_MAX, MSG_REQUIRED)                                      \
    X(T, 3, STR, node_name, NAME_MAX_BYTES, MSG_REQUIRED)                             \
    X(T, 4, STR, facts, FACTS_MAX_BYTES, 0)                                           \
    X(T, 5, LIST, capabilities, CAPABILITIES_MAX, 0) /* of str */                     \
    X(T, 6, LIST, requested_roles, ROLES_MAX, 0)     /* of str */                     \
    X(T, 7, STR, address, ADDRESS_MAX_BYTES, 0) /* where it listens, as advertised */ \
    X(T, 8, STR, agent_version, 32, 0)                                                \
    X(T, 9, ID, request_id, 0, MSG_REQUIRED)    /* same key, same id: the same request */
MSG_DECLARE(enroll_request, ENROLL_REQUEST_FIELDS)

enum enroll_state { ENROLL_PENDING = 1, ENROLL_APPROVED = 2, ENROLL_REFUSED = 3 };
#define ENROLL_STATUS_FIELDS(X, T)                                                          \
    X(T, 1, U64, state, 0, MSG_REQUIRED)                                                    \
    X(T, 2, ID, join_id, 0, 0)                                                              \
    X(T, 3, U64, error, 0, 0)                     /* REFUSED: enum err */                   \
    X(T, 4, STR, detail, REASON_MAX_BYTES, 0)     /* REFUSED: why, e.g. the admin's reason */ \
    X(T, 5, BIN, leaf, CERT_DER_MAX, 0)           /* APPROVED from here on */               \
    X(T, 6, BIN, issuer, CERT_DER_MAX, 0)                                                   \
    X(T, 7, BIN, root, CERT_DER_MAX, 0)                                                     \
    X(T, 8, BIN, snapshot, SNAPSHOT_MAX_BYTES, 0) /* signed_snapshot */                     \
    X(T, 9, ID, node_id, 0, 0)                                                              \
    X(T, 10, STR, cluster_name, NAME_MAX_BYTES, 0)                                          \
    X(T, 11, I64, expires_at_ms, 0, 0)            /* PENDING: abandoned after this */       \
    X(T, 12, U64, retry_after_ms, 0, 0)           /* REFUSED, rate_limited: not before */
MSG_DECLARE(enroll_status, ENROLL_STATUS_FIELDS)

/* What an authority tells anybody, for `rap doctor`: the time. */
#define CLOCK_REQUEST_FIELDS(X, T)             \
    X(T, 1, I64, sent_at_ms, 0, 0) /* comes back */
MSG_DECLARE(clock_request, CLOCK_REQUEST_FIELDS)
#define CLOCK_ANSWER_FIELDS(X, T)              \
    X(T, 1, I64, sent_at_ms, 0, 0)             \
    X(T, 2, I64, wall_ms, 0, MSG_REQUIRED) /* the authority's clock */
MSG_DECLARE(clock_answer, CLOCK_ANSWER_FIELDS)

#define HEARTBEAT_FIELDS(X, T)                                     \
    X(T, 1, U64, epoch, 0, 0)          /* of the snapshot held */  \
    X(T, 2, U64, config_version, 0, 0)                             \
    X(T, 3, STR, health, 16, MSG_REQUIRED) /* healthy, degraded */ \
    X(T, 4, STR, agent_version, 32, 0)                             \
    X(T, 5, STR, facts, FACTS_MAX_BYTES, 0)                        \
    X(T, 6, LIST, capabilities, CAPABILITIES_MAX, 0)               \
    X(T, 7, STR, address, ADDRESS_MAX_BYTES, 0)                    \
    X(T, 8, I64, sent_at_ms, 0, 0)                                 \
    X(T, 9, ID, node_id, 0, 0) /* set by the authority that forwards it, from the session */ \
    X(T, 10, U64, audit_seq, 0, 0)                                 \
    X(T, 11, FIX, audit_head, 32, 0)                               \
    X(T, 12, LIST, links, LINKS_MAX, 0) /* of bin: link_sample; the overlay's, when it is on */ \
    X(T, 13, LIST, routes, ROUTE_SAMPLES_MAX, 0) /* of bin: route_sample */
MSG_DECLARE(heartbeat, HEARTBEAT_FIELDS)

/* How a node sees one of its links (DESIGN D11: live state, never committed). */
#define LINK_SAMPLE_FIELDS(X, T)                                      \
    X(T, 1, ID, peer_id, 0, MSG_REQUIRED)                             \
    X(T, 2, STR, state, 16, MSG_REQUIRED) /* trying, up, suspect */   \
    X(T, 3, U64, rtt_us, 0, 0)                                        \
    X(T, 4, U64, jitter_us, 0, 0)                                     \
    X(T, 5, U64, loss_permille, 0, 0)                                 \
    X(T, 6, U64, cost_us, 0, 0)                                       \
    X(T, 7, FLAG, relay, 0, 0)                                        \
    X(T, 8, U64, refused_routes, 0, 0) /* messages that advertised others without the role */
MSG_DECLARE(link_sample, LINK_SAMPLE_FIELDS)

/* Where a node sends what is for another one. */
#define ROUTE_SAMPLE_FIELDS(X, T)                                     \
    X(T, 1, ID, destination_id, 0, MSG_REQUIRED)                      \
    X(T, 2, STR, state, 16, MSG_REQUIRED) /* usable, or why not: route_refusal_text */ \
    X(T, 3, ID, next_hop_id, 0, 0)                                    \
    X(T, 4, U64, metric_us, 0, 0)                                     \
    X(T, 5, U64, hops, 0, 0)                                          \
    X(T, 6, ID, intent_id, 0, 0) /* that decided */
MSG_DECLARE(route_sample, ROUTE_SAMPLE_FIELDS)

#define HEARTBEAT_ACK_FIELDS(X, T)             \
    X(T, 1, U64, interval_ms, 0, MSG_REQUIRED) \
    X(T, 2, I64, received_at_ms, 0, 0)
MSG_DECLARE(heartbeat_ack, HEARTBEAT_ACK_FIELDS)

#define RENEW_REQUEST_FIELDS(X, T)                    \
    X(T, 1, ID, request_id, 0, MSG_REQUIRED)          \
    X(T, 2, BIN, csr, CSR_DER_MAX, MSG_REQUIRED)      \
    X(T, 3, ID, node_id, 0, 0) /* set by a forwarding authority */
MSG_DECLARE(renew_request, RENEW_REQUEST_FIELDS)
#define RENEW_ANSWER_FIELDS(X, T)                     \
    X(T, 1, BIN, leaf, CERT_DER_MAX, MSG_REQUIRED)    \
    X(T, 2, BIN, issuer, CERT_DER_MAX, MSG_REQUIRED)
MSG_DECLARE(renew_answer, RENEW_ANSWER_FIELDS)

#define CONFIG_SUBSCRIBE_FIELDS(X, T)                                       \
    X(T, 1, U64, epoch, 0, 0)                                               \
    X(T, 2, U64, config_version, 0, 0)                                      \
    X(T, 3, U64, audit_seq, 0, 0) /* of the statement held */               \
    X(T, 4, U64, set_seq, 0, 0)   /* of the authority set believed */       \
    X(T, 5, U64, set_epoch, 0, 0)
MSG_DECLARE(config_subscribe, CONFIG_SUBSCRIBE_FIELDS)

/* --- making an authority: the leader asks the node --- */
enum issuer_step { ISSUER_PREPARE = 1, ISSUER_INSTALL = 2 };
#define ISSUER_REQUEST_FIELDS(X, T)       \
    X(T, 1, U64, step, 0, MSG_REQUIRED)   \
    X(T, 2, BIN, issuer, CERT_DER_MAX, 0) /* INSTALL: the CA certificate the owner signed */
MSG_DECLARE(issuer_request, ISSUER_REQUEST_FIELDS)
#define ISSUER_ANSWER_FIELDS(X, T)          \
    X(T, 1, BIN, csr, CSR_DER_MAX, 0)       /* PREPARE: for the new issuing CA key */ \
    X(T, 2, BIN, leaf, CERT_DER_MAX, 0)     /* INSTALL: its own leaf with the authority name */
MSG_DECLARE(issuer_answer, ISSUER_ANSWER_FIELDS)

/* --- an authority passes a call on to the leader --- */
#define OP_REQUEST_FIELDS(X, T)                                              \
    X(T, 1, STR, method, 48, MSG_REQUIRED) /* "token.create"; admin.h lists them */ \
    X(T, 2, ID, request_id, 0, 0)                                            \
    X(T, 3, STR, actor_kind, 16, 0)                                          \
    X(T, 4, STR, actor_id, 128, 0)                                           \
    X(T, 5, BIN, args, CMD_BODY_MAX, 0) /* msgpack document */               \
    X(T, 6, FLAG, dry_run, 0, 0)                                             \
    X(T, 7, U64, epoch, 0, 0) /* of the sender's log; absent: the first */
MSG_DECLARE(op_request, OP_REQUEST_FIELDS)

/* --- signed configuration (DESIGN section 6, SPEC SNAP) --- */
#define SNAPSHOT_SCHEMA 1
#define SNAPSHOT_LIFE_MS (24LL * 3600 * 1000)
#define SNAPSHOT_SIGN_DOMAIN "rap-snapshot"

#define SNAPSHOT_BODY_FIELDS(X, T)                                                  \
    X(T, 1, U64, schema, 0, MSG_REQUIRED)                                           \
    X(T, 2, ID, cluster_id, 0, MSG_REQUIRED)                                        \
    X(T, 3, ID, node_id, 0, MSG_REQUIRED)                                           \
    X(T, 4, U64, epoch, 0, MSG_REQUIRED)                                            \
    X(T, 5, U64, config_version, 0, MSG_REQUIRED) /* the Raft index it was cut at */ \
    X(T, 6, I64, issued_at_ms, 0, MSG_REQUIRED)                                     \
    X(T, 7, I64, expires_at_ms, 0, MSG_REQUIRED)                                    \
    X(T, 8, LIST, scopes, 16, 0)               /* of str: "node", "authority", ... */ \
    X(T, 9, LIST, authorities, AUTHORITIES_MAX, MSG_REQUIRED) /* of bin: snapshot_authority */ \
    X(T, 10, LIST, roles, ROLES_MAX, 0)        /* of bin: snapshot_role */          \
    X(T, 11, LIST, peers, PEERS_MAX, 0)               /* of bin: snapshot_peer */          \
    X(T, 12, LIST, revocations, 20000, 0)      /* of bin 32: banned key fingerprints */ \
    X(T, 13, U64, audit_seq, 0, 0)                                                  \
    X(T, 14, FIX, audit_head, 32, 0)                                                \
    X(T, 15, STR, cluster_name, NAME_MAX_BYTES, 0)                                  \
    X(T, 16, STR, node_name, NAME_MAX_BYTES, 0)                                     \
    X(T, 17, STR, membership_status, 16, 0)                                         \
    X(T, 18, LIST, retired_issuers, 1024, 0)   /* of bin 32: CAs of removed authorities */ \
    X(T, 30, BIN, recovery, SIGNED_RECOVERY_MAX, 0) /* signed_recovery: after the first epoch */ \
    X(T, 40, BIN, mesh, 256, 0)                /* snapshot_mesh */ \
    X(T, 41, LIST, intents, INTENTS_MAX, 0)    /* of bin: snapshot_intent, for nodes like this one */ \
    X(T, 42, LIST, pools, POOLS_MAX, 0)        /* of bin: snapshot_pool, that it may use */ \
    X(T, 43, LIST, resources, RESOURCES_MAX, 0) /* of bin: snapshot_resource, that it may use */ \
    X(T, 64, LIST, relays, RELAYS_MAX, 0)      /* of bin: snapshot_relay */ \
    X(T, 72, I64, leaf_life_ms, 0, 0)          /* of an authority's own certificate; 0: the default */ \
    X(T, 73, LIST, disabled_keys, 20000, 0)    /* of bin 32: members that are disabled */ \
    X(T, 80, FLAG, overlay, 0, 0)              /* of nodes whose own row says nothing else */ \
    X(T, 81, FLAG, synthetic, 0, 0)            /* likewise */ \
    X(T, 82, FLAG, peers_prove, 0, 0)          /* nodes ask each other for a leaf_proof */ \
    X(T, 83, LIST, qos, 8, 0)                  /* of bin: snapshot_qos */ \
    X(T, 84, LIST, all_intents, INTENTS_MAX, 0) /* of bin: snapshot_intent, for every node */ \
    X(T, 85, LIST, all_pools, POOLS_MAX, 0)    /* of bin: snapshot_pool, that every node may use */ \
    X(T, 86, U64, cut_off_after_ms, 0, 0)      /* services end then, without an authority; 0: never */
MSG_DECLARE(snapshot_body, SNAPSHOT_BODY_FIELDS)

#define SNAPSHOT_AUTHORITY_FIELDS(X, T)                    \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                  \
    X(T, 2, STR, name, NAME_MAX_BYTES, 0)                  \
    X(T, 3, STR, address, ADDRESS_MAX_BYTES, MSG_REQUIRED) \
    X(T, 4, FIX, issuer_fingerprint, 32, MSG_REQUIRED)     \
    X(T, 5, STR, status, 16, 0)
MSG_DECLARE(snapshot_authority, SNAPSHOT_AUTHORITY_FIELDS)

#define SNAPSHOT_ROLE_FIELDS(X, T)                  \
    X(T, 1, STR, role, ROLE_MAX_BYTES, MSG_REQUIRED) \
    X(T, 2, STR, organization_id, 64, 0)            \
    X(T, 3, STR, policy, POLICY_MAX_BYTES, 0)
MSG_DECLARE(snapshot_role, SNAPSHOT_ROLE_FIELDS)

/* A node that may forward for others. */
enum snapshot_relay_roles { SNAPSHOT_RELAY_NODE = 1, SNAPSHOT_CORE_MESH = 2 };
#define SNAPSHOT_RELAY_FIELDS(X, T)                        \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                  \
    X(T, 2, STR, address, ADDRESS_MAX_BYTES, MSG_REQUIRED) \
    X(T, 3, U64, roles, 0, MSG_REQUIRED)                   \
    X(T, 4, STR, organization_id, 64, 0) /* it relays for this one only */ \
    X(T, 5, STR, region, NAME_MAX_BYTES, 0)                \
    X(T, 6, U64, bandwidth_mbps, 0, 0)   /* 0: not known */ \
    X(T, 7, U64, distrust, 0, 0)         /* 0 to 100; absent: trusted */
MSG_DECLARE(snapshot_relay, SNAPSHOT_RELAY_FIELDS)

#define SNAPSHOT_PEER_FIELDS(X, T)                         \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                  \
    X(T, 2, STR, address, ADDRESS_MAX_BYTES, MSG_REQUIRED)
MSG_DECLARE(snapshot_peer, SNAPSHOT_PEER_FIELDS)

/* What the owner configured of one node's overlay. */
#define SNAPSHOT_MESH_FIELDS(X, T)                                        \
    X(T, 1, STR, overlay, 16, 0)   /* on, off; absent: as the cluster says */ \
    X(T, 2, STR, synthetic, 16, 0) /* likewise */                         \
    X(T, 3, STR, kind, 16, 0)      /* mesh_kind_names; absent: auto */    \
    X(T, 4, STR, region, NAME_MAX_BYTES, 0)
MSG_DECLARE(snapshot_mesh, SNAPSHOT_MESH_FIELDS)

/* What the owner wants of ways from this node. About a service only: a policy that nodes of before there was
 * such a thing do not know, so that they leave it out instead of obeying it for every service. */
#define SNAPSHOT_INTENT_DENY_SERVICE 6
#define SNAPSHOT_INTENT_FIELDS(X, T)                                          \
    X(T, 1, ID, intent_id, 0, MSG_REQUIRED)                                   \
    X(T, 2, STR, name, NAME_MAX_BYTES, 0)                                     \
    X(T, 3, U64, policy, 0, MSG_REQUIRED)  /* place in intent_policy_names */ \
    X(T, 4, FLAG, any_destination, 0, 0)   /* but authorities and relays */   \
    X(T, 5, LIST, destinations, POOL_MEMBERS_MAX, 0) /* of id */              \
    X(T, 6, U64, via, 0, MSG_REQUIRED)     /* place in intent_via_names */    \
    X(T, 7, ID, via_node_id, 0, 0)                                            \
    X(T, 8, STR, via_region, NAME_MAX_BYTES, 0)                               \
    X(T, 9, U64, qos_class, 0, 0)          /* place in qos_class_names */     \
    X(T, 10, STR, service_class, SERVICE_CLASS_MAX_BYTES, 0) /* only streams of it */
MSG_DECLARE(snapshot_intent, SNAPSHOT_INTENT_FIELDS)

#define SNAPSHOT_QOS_FIELDS(X, T)                                             \
    X(T, 1, U64, channel_class, 0, MSG_REQUIRED) /* place in qos_class_names */ \
    X(T, 2, U64, priority, 0, 0)                                              \
    X(T, 3, U64, rate_kbps, 0, 0)                                             \
    X(T, 4, FLAG, droppable, 0, 0)                                            \
    X(T, 5, U64, floor_permille, 0, 0)                                        \
    X(T, 6, U64, limit_kib, 0, 0)                                             \
    X(T, 7, U64, life_ms, 0, 0)
MSG_DECLARE(snapshot_qos, SNAPSHOT_QOS_FIELDS)

/* Nodes of which any will do. */
#define SNAPSHOT_POOL_FIELDS(X, T)               \
    X(T, 1, ID, pool_id, 0, MSG_REQUIRED)        \
    X(T, 2, STR, name, NAME_MAX_BYTES, 0)        \
    X(T, 3, LIST, members, POOL_MEMBERS_MAX, 0) /* of id */
MSG_DECLARE(snapshot_pool, SNAPSHOT_POOL_FIELDS)

/* What is behind a node, or behind any of a pool of the same snapshot. What it is there, and by whose
 * leave, is not told to those who only want to reach it (SPEC SNAP-03). */
#define SNAPSHOT_RESOURCE_FIELDS(X, T)                                  \
    X(T, 1, ID, resource_id, 0, MSG_REQUIRED)                           \
    X(T, 2, STR, organization_id, ORGANIZATION_MAX_BYTES, MSG_REQUIRED) \
    X(T, 3, STR, name, NAME_MAX_BYTES, MSG_REQUIRED)                    \
    X(T, 4, STR, protocol, PROTOCOL_MAX_BYTES, 0)                       \
    X(T, 5, ID, node_id, 0, 0)                                          \
    X(T, 6, ID, pool_id, 0, 0)
MSG_DECLARE(snapshot_resource, SNAPSHOT_RESOURCE_FIELDS)

/* --- test traffic between nodes (SPEC SYN-01, SYN-02): off by default, and nothing else --- */
#define SYNTHETIC_KIND "synthetic"
#define SYNTHETIC_BODY_MAX (64u << 10)
#define SYNTHETIC_FIELDS(X, T)                     \
    X(T, 1, STR, kind, 32, MSG_REQUIRED)           \
    X(T, 2, U64, sequence, 0, 0)                   \
    X(T, 3, BIN, body, SYNTHETIC_BODY_MAX, 0)
MSG_DECLARE(synthetic, SYNTHETIC_FIELDS)
#define SYNTHETIC_ACK_FIELDS(X, T)                 \
    X(T, 1, U64, sequence, 0, 0)                   \
    X(T, 2, U64, bytes, 0, 0) /* of bodies, so far */
MSG_DECLARE(synthetic_ack, SYNTHETIC_ACK_FIELDS)

/* Signed by the authority that sends it; and, in a cluster that has an authority set, with what shows
 * that a majority decided it (DESIGN D16, docs/decisions/0008). */
#define SIGNED_SNAPSHOT_FIELDS(X, T)                                                          \
    X(T, 1, BIN, body, SNAPSHOT_MAX_BYTES, MSG_REQUIRED)        \
    X(T, 2, LIST, signatures, AUTHORITIES_MAX, MSG_REQUIRED) /* of bin: snapshot_signature */ \
    X(T, 3, BIN, witness, SNAPSHOT_WITNESS_MAX, 0) /* snapshot_witness (wire/witness_msg.h) */ \
    X(T, 10, BIN, trust, TRUST_SIGNED_MAX, 0) /* signed_trust: believed for its own signatures, before \
                                                 those of the snapshot are checked by it */
MSG_DECLARE(signed_snapshot, SIGNED_SNAPSHOT_FIELDS)

#define SNAPSHOT_SIGNATURE_FIELDS(X, T)                 \
    X(T, 1, FIX, signature, 64, MSG_REQUIRED)           \
    X(T, 2, BIN, leaf, CERT_DER_MAX, MSG_REQUIRED)      \
    X(T, 3, BIN, issuer, CERT_DER_MAX, MSG_REQUIRED)
MSG_DECLARE(snapshot_signature, SNAPSHOT_SIGNATURE_FIELDS)

/* Appends one encoded message as a bin to a list under construction: raw grows, count rises. */
void msg_list_add(const struct msg_desc *d, const void *msg, struct buf *raw, uint32_t *count);

#endif
