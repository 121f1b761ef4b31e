/* What the Raft log says. One log entry is a batch: a header and commands, applied as one
 * transaction of the replicated state (DESIGN D10). A command carries everything that was decided
 * when it was proposed - times, ids, serials, certificates (D9) - so that applying it needs no
 * clock, no randomness and no key.
 *
 * Decoded strictly: a command or key that this binary does not know stops the node, for skipping
 * it would make the replicas differ. */
#ifndef RAP_WIRE_CMD_H
#define RAP_WIRE_CMD_H

#include "wire/cmd_mesh.h"
#include "wire/cmd_model.h"
#include "wire/cmd_split.h"
#include "wire/cmd_trust.h"
#include "wire/limits.h"
#include "wire/msg.h"
#include "wire/recovery_msg.h"

/* Who may ask for a command, whatever it is about (who else may not is decided by its handler). */
#define CMD_BY_OWNER 1u
#define CMD_BY_ADMIN 2u
#define CMD_BY_NODE 4u
#define CMD_BY_SYSTEM 8u
#define CMD_BY_PEOPLE (CMD_BY_OWNER | CMD_BY_ADMIN)
#define CMD_BY_LEADER (CMD_BY_PEOPLE | CMD_BY_SYSTEM)
#define CMD_BY_ANY (CMD_BY_LEADER | CMD_BY_NODE)

/* Levels by what they brought (migrations/state). */
#define LEVEL_WITNESS 2
#define LEVEL_RECOVERY 3
#define LEVEL_RELAYS 4
#define LEVEL_MIRROR 5
#define LEVEL_MODEL 6
#define LEVEL_MEMBERS 7
#define LEVEL_SIGNED 8
#define LEVEL_MESH 9
#define LEVEL_INTENTS 10
#define LEVEL_VOTES 11
#define LEVEL_MESH_LOG 12
#define LEVEL_HEAL 14
#define LEVEL_SPLITS 15
#define LEVEL_RESOURCES 16
#define LEVEL_CUT_OFF 17

/*   X(NAME, number, lower-case name, high risk, level, who) : numbers are never reused.
 * The struct of the body is called name, its handler fsm_name. level: the state's schema level
 * (migrations/state) from which on the command exists: a cluster whose authorities run two versions
 * stays at the lower one's level, so that nobody meets a command it does not know. A new *field* of
 * an older command waits for its level just so: whoever fills it asks for fsm_level first. */
#define CMD_KINDS(X)                                                     \
    X(CLUSTER_INIT, 1, cluster_init, 1, 1, CMD_BY_OWNER)                 \
    X(TERM_START, 2, term_start, 0, 1, CMD_BY_LEADER)                    \
    X(TOKEN_CREATE, 3, token_create, 0, 1, CMD_BY_PEOPLE)                \
    X(TOKEN_REVOKE, 4, token_revoke, 0, 1, CMD_BY_PEOPLE)                \
    X(JOIN_SUBMIT, 5, join_submit, 0, 1, CMD_BY_ANY)                     \
    X(JOIN_APPROVE, 6, join_approve, 1, 1, CMD_BY_PEOPLE)                \
    X(JOIN_REJECT, 7, join_reject, 0, 1, CMD_BY_PEOPLE)                  \
    X(JOIN_EXPIRE, 8, join_expire, 0, 1, CMD_BY_LEADER)                  \
    X(ROLE_ASSIGN, 9, role_assign, 1, 1, CMD_BY_PEOPLE)                  \
    X(ROLE_UNASSIGN, 10, role_unassign, 1, 1, CMD_BY_PEOPLE)             \
    X(NODE_RENAME, 11, node_rename, 0, 1, CMD_BY_PEOPLE)                 \
    X(NODE_REVOKE, 12, node_revoke, 1, 1, CMD_BY_PEOPLE)                 \
    X(NODE_REMOVE, 13, node_remove, 1, 1, CMD_BY_PEOPLE)                 \
    X(CERT_RENEW, 14, cert_renew, 1, 1, CMD_BY_ANY)                      \
    X(AUTHORITY_ADD, 15, authority_add, 1, 1, CMD_BY_PEOPLE)             \
    X(AUTHORITY_STATUS, 16, authority_status, 1, 1, CMD_BY_LEADER)       \
    X(AUTHORITY_REMOVE, 17, authority_remove, 1, 1, CMD_BY_PEOPLE)       \
    X(NODE_HEALTH, 18, node_health, 0, 1, CMD_BY_ANY)                    \
    X(JOIN_DENIED, 19, join_denied, 0, 1, CMD_BY_ANY)                    \
    X(REFUSAL_NOTED, 20, refusal_noted, 0, LEVEL_WITNESS, CMD_BY_SYSTEM) \
    X(LEVEL_RAISE, 23, level_raise, 0, 1, CMD_BY_SYSTEM)                 \
    X(MIRROR_SET, 25, mirror_set, 1, LEVEL_MIRROR, CMD_BY_PEOPLE)        \
    X(MIRROR_REBUILD, 26, mirror_rebuild, 1, LEVEL_MIRROR, CMD_BY_PEOPLE) \
    X(MIRROR_EVENT, 27, mirror_event, 0, LEVEL_MIRROR, CMD_BY_SYSTEM) \
    X(EPOCH_START, 30, epoch_start, 1, LEVEL_RECOVERY, CMD_BY_OWNER)     \
    X(PARTITION_SEEN, 31, partition_seen, 0, LEVEL_RECOVERY, CMD_BY_SYSTEM) \
    X(DIVERGENCE_REPORTED, 32, divergence_reported, 1, LEVEL_RECOVERY, CMD_BY_NODE) \
    X(PARTITION_MERGE, 33, partition_merge, 1, LEVEL_RECOVERY, CMD_BY_PEOPLE) \
    X(AUTHORITY_FENCED, 34, authority_fenced, 1, LEVEL_RECOVERY, CMD_BY_SYSTEM) \
    X(AUTHORITY_SET_NEXT, 38, authority_set_next, 1, LEVEL_WITNESS, CMD_BY_LEADER) \
    X(FORGERY_REPORTED, 39, forgery_reported, 1, LEVEL_WITNESS, CMD_BY_ANY) \
    X(AUTHORITY_RENEW, 46, authority_renew, 1, LEVEL_MODEL, CMD_BY_OWNER) \
    X(TRUST_ROTATE, 47, trust_rotate, 1, LEVEL_MODEL, CMD_BY_OWNER)      \
    X(CERT_ALARM, 48, cert_alarm, 0, LEVEL_MODEL, CMD_BY_SYSTEM)         \
    X(CERT_POLICY, 49, cert_policy, 1, LEVEL_MODEL, CMD_BY_PEOPLE)       \
    X(MEMBERSHIP_SET, 50, membership_set, 1, LEVEL_MEMBERS, CMD_BY_PEOPLE) \
    X(CLUSTER_UPDATE, 51, cluster_update, 0, LEVEL_MEMBERS, CMD_BY_PEOPLE) \
    X(NODE_UPDATE, 52, node_update, 0, LEVEL_MEMBERS, CMD_BY_PEOPLE)     \
    X(ROLE_REQUIRE, 53, role_require, 0, LEVEL_MEMBERS, CMD_BY_PEOPLE)   \
    X(GROUP_CREATE, 54, group_create, 0, LEVEL_MEMBERS, CMD_BY_PEOPLE)   \
    X(GROUP_MOVE, 55, group_move, 0, LEVEL_MEMBERS, CMD_BY_PEOPLE)       \
    X(GROUP_DELETE, 56, group_delete, 0, LEVEL_MEMBERS, CMD_BY_PEOPLE)   \
    X(GROUP_ASSIGN, 57, group_assign, 0, LEVEL_MEMBERS, CMD_BY_PEOPLE)   \
    X(CAPABILITY_VERIFY, 58, capability_verify, 1, LEVEL_MEMBERS, CMD_BY_PEOPLE) \
    X(CAPABILITY_POLICY, 59, capability_policy, 1, LEVEL_MEMBERS, CMD_BY_PEOPLE) \
    X(HEARTBEAT_LOG, 60, heartbeat_log, 0, LEVEL_MEMBERS, CMD_BY_SYSTEM) \
    X(MESH_SET, 70, mesh_set, 1, LEVEL_MESH, CMD_BY_PEOPLE)              \
    X(NODE_MESH_SET, 71, node_mesh_set, 1, LEVEL_MESH, CMD_BY_PEOPLE)    \
    X(INTENT_CREATE, 72, intent_create, 1, LEVEL_INTENTS, CMD_BY_PEOPLE) \
    X(INTENT_SET, 73, intent_set, 1, LEVEL_INTENTS, CMD_BY_PEOPLE)       \
    X(INTENT_DELETE, 74, intent_delete, 1, LEVEL_INTENTS, CMD_BY_PEOPLE) \
    X(QOS_SET, 75, qos_set, 1, LEVEL_INTENTS, CMD_BY_PEOPLE)             \
    X(POOL_CREATE, 76, pool_create, 1, LEVEL_INTENTS, CMD_BY_PEOPLE)     \
    X(POOL_DELETE, 77, pool_delete, 1, LEVEL_INTENTS, CMD_BY_PEOPLE)     \
    X(POOL_MEMBER, 78, pool_member, 1, LEVEL_INTENTS, CMD_BY_PEOPLE)     \
    X(MESH_LOG, 79, mesh_log, 0, LEVEL_MESH_LOG, CMD_BY_SYSTEM)      \
    X(AUTHORITY_VOTE, 80, authority_vote, 1, LEVEL_VOTES, CMD_BY_PEOPLE) \
    X(AUTHORITY_EXPIRE, 81, authority_expire, 1, LEVEL_VOTES, CMD_BY_LEADER) \
    X(AUTHORITY_DAMAGED, 85, authority_damaged, 1, LEVEL_HEAL, CMD_BY_SYSTEM) \
    X(SPLIT_BEGIN, 95, split_begin, 1, LEVEL_SPLITS, CMD_BY_PEOPLE)      \
    X(SPLIT_FINISH, 96, split_finish, 1, LEVEL_SPLITS, CMD_BY_PEOPLE)    \
    X(SPLIT_CANCEL, 97, split_cancel, 1, LEVEL_SPLITS, CMD_BY_PEOPLE)    \
    X(RESOURCE_CREATE, 90, resource_create, 1, LEVEL_RESOURCES, CMD_BY_PEOPLE) \
    X(RESOURCE_SET, 91, resource_set, 1, LEVEL_RESOURCES, CMD_BY_PEOPLE) \
    X(RESOURCE_DELETE, 92, resource_delete, 1, LEVEL_RESOURCES, CMD_BY_PEOPLE)

enum cmd_kind {
#define CMD_ENUM_(NAME, num, ...) CMD_##NAME = num,
    CMD_KINDS(CMD_ENUM_)
#undef CMD_ENUM_
};
#define CMD_KIND_MAX 127 /* no kind has a higher number */
/* "join_approve"; NULL for an unknown kind. */
const char *cmd_kind_name(uint64_t kind);
bool cmd_kind_high_risk(uint64_t kind);
/* CMD_BY_*; 0 for an unknown kind. */
unsigned cmd_kind_who(uint64_t kind);
/* Schema level; 0 for an unknown kind. */
unsigned cmd_kind_level(uint64_t kind);
/* The body's description; NULL for an unknown kind. */
const struct msg_desc *cmd_body_desc(uint64_t kind);
/* 0 when a replica can decode this body. What is proposed must: an entry that does not decode stops every
 * authority. */
int cmd_body_check(uint64_t kind, struct blob body);

/* Who asked. */
#define ACTOR_OWNER "owner"   /* the platform owner, shown by the root key */
#define ACTOR_ADMIN "admin"   /* a user of the admin API; id "uid:0" on the local socket */
#define ACTOR_NODE "node"     /* a node, by its certificate; id is the node id */
#define ACTOR_SYSTEM "system" /* the leader itself: terms, expiries, health */

/* The log entry. */
#define CMD_ENTRY_FIELDS(X, T)                                                         \
    X(T, 1, U64, version, 0, MSG_REQUIRED) /* CMD_VERSION */                           \
    X(T, 2, U64, term, 0, MSG_REQUIRED)    /* the proposing leader's term */           \
    X(T, 3, LIST, commands, CMD_BATCH_MAX, MSG_REQUIRED) /* of bin: encoded struct cmd */
MSG_DECLARE(cmd_entry, CMD_ENTRY_FIELDS)
#define CMD_VERSION 1

#define CMD_FIELDS(X, T)                                                                \
    X(T, 1, U64, kind, 0, MSG_REQUIRED)                                                 \
    X(T, 2, ID, request_id, 0, MSG_REQUIRED) /* first result kept; a retry gets it (D14) */ \
    X(T, 3, I64, time_ms, 0, MSG_REQUIRED)   /* the proposer's wall clock */            \
    X(T, 4, STR, actor_kind, 16, MSG_REQUIRED)                                          \
    X(T, 5, STR, actor_id, 128, 0)                                                      \
    X(T, 6, BIN, body, CMD_BODY_MAX, MSG_REQUIRED)                                      \
    X(T, 7, FIX, request_hash, 32, 0) /* SHA-256 of what was asked: a reused id with another \
                                         request is refused, not answered */ \
    X(T, 8, ID, via, 0, 0)            /* the authority that vouches for the actor, when it was not \
                                         the leader; from LEVEL_SIGNED on */
MSG_DECLARE(cmd, CMD_FIELDS)

/* One node certificate, decided: everything a row needs without parsing DER at apply. */
#define CMD_CERT_FIELDS(X, T)                                      \
    X(T, 1, BIN, der, CERT_DER_MAX, MSG_REQUIRED)                  \
    X(T, 2, FIX, serial, 16, MSG_REQUIRED)                         \
    X(T, 3, I64, not_before_ms, 0, MSG_REQUIRED)                   \
    X(T, 4, I64, not_after_ms, 0, MSG_REQUIRED)                    \
    X(T, 5, FIX, public_key, 32, MSG_REQUIRED)                     \
    X(T, 6, FIX, fingerprint, 32, MSG_REQUIRED)                    \
    X(T, 7, BIN, issuer_der, CERT_DER_MAX, MSG_REQUIRED)
MSG_DECLARE(cmd_cert, CMD_CERT_FIELDS)

/* Entry 2 of every log, written by `rap init`: the cluster, its root, the first authority. */
#define CLUSTER_INIT_FIELDS(X, T)                                  \
    X(T, 1, ID, cluster_id, 0, MSG_REQUIRED)                       \
    X(T, 2, STR, name, NAME_MAX_BYTES, MSG_REQUIRED)               \
    X(T, 3, BIN, root_der, CERT_DER_MAX, MSG_REQUIRED)             \
    X(T, 4, FIX, root_fingerprint, 32, MSG_REQUIRED)               \
    X(T, 5, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 6, STR, node_name, NAME_MAX_BYTES, MSG_REQUIRED)          \
    X(T, 7, STR, address, ADDRESS_MAX_BYTES, MSG_REQUIRED)         \
    X(T, 8, BIN, cert, CMD_CERT_MAX, MSG_REQUIRED) /* cmd_cert */  \
    X(T, 9, LIST, capabilities, CAPABILITIES_MAX, 0) /* of str */  \
    X(T, 10, FIX, issuer_fingerprint, 32, 0) /* of the key of cert's issuer; absent: read from it */
MSG_DECLARE(cluster_init, CLUSTER_INIT_FIELDS)

#define TERM_START_FIELDS(X, T)                                    \
    X(T, 1, U64, term, 0, MSG_REQUIRED)                            \
    X(T, 2, ID, leader_id, 0, MSG_REQUIRED)
MSG_DECLARE(term_start, TERM_START_FIELDS)

#define TOKEN_CREATE_FIELDS(X, T)                                  \
    X(T, 1, ID, token_id, 0, MSG_REQUIRED)                         \
    X(T, 2, FIX, token_hash, 32, MSG_REQUIRED)                     \
    X(T, 3, I64, expires_at_ms, 0, MSG_REQUIRED)                   \
    X(T, 4, U64, max_uses, 0, MSG_REQUIRED)                        \
    X(T, 5, LIST, scope_roles, ROLES_MAX, 0) /* of str: roles a joiner may ask for; none = any */ \
    X(T, 6, STR, scope_name, NAME_MAX_BYTES, 0) /* only this node name may join */
MSG_DECLARE(token_create, TOKEN_CREATE_FIELDS)

#define TOKEN_REVOKE_FIELDS(X, T)                                  \
    X(T, 1, ID, token_id, 0, MSG_REQUIRED)
MSG_DECLARE(token_revoke, TOKEN_REVOKE_FIELDS)

#define JOIN_SUBMIT_FIELDS(X, T)                                                    \
    X(T, 1, ID, join_id, 0, MSG_REQUIRED)                                           \
    X(T, 2, FIX, token_hash, 32, MSG_REQUIRED)                                      \
    X(T, 3, STR, node_name, NAME_MAX_BYTES, MSG_REQUIRED)                           \
    X(T, 4, FIX, public_key, 32, MSG_REQUIRED)                                      \
    X(T, 5, FIX, fingerprint, 32, MSG_REQUIRED)                                     \
    X(T, 6, STR, facts, FACTS_MAX_BYTES, 0)          /* JSON object, as text */      \
    X(T, 7, LIST, capabilities, CAPABILITIES_MAX, 0) /* of str */                    \
    X(T, 8, LIST, requested_roles, ROLES_MAX, 0)     /* of str */                    \
    X(T, 9, STR, source_address, ADDRESS_MAX_BYTES, 0)                              \
    X(T, 10, STR, address, ADDRESS_MAX_BYTES, 0)     /* where it will listen */      \
    X(T, 11, I64, expires_at_ms, 0, MSG_REQUIRED)    /* abandoned after this */
MSG_DECLARE(join_submit, JOIN_SUBMIT_FIELDS)

#define JOIN_APPROVE_FIELDS(X, T)                                  \
    X(T, 1, ID, join_id, 0, MSG_REQUIRED)                          \
    X(T, 2, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 3, BIN, cert, CMD_CERT_MAX, MSG_REQUIRED) /* cmd_cert */
MSG_DECLARE(join_approve, JOIN_APPROVE_FIELDS)

#define JOIN_REJECT_FIELDS(X, T)                                   \
    X(T, 1, ID, join_id, 0, MSG_REQUIRED)                          \
    X(T, 2, STR, reason, REASON_MAX_BYTES, MSG_REQUIRED)
MSG_DECLARE(join_reject, JOIN_REJECT_FIELDS)

/* Every pending request whose time is over at time_ms. */
#define JOIN_EXPIRE_FIELDS(X, T)                                   \
    X(T, 1, I64, before_ms, 0, MSG_REQUIRED)
MSG_DECLARE(join_expire, JOIN_EXPIRE_FIELDS)

/* What refusal_noted took the place of. Not proposed any more; logs, and leaders of an older version,
 * have it. */
#define JOIN_DENIED_FIELDS(X, T)                                   \
    X(T, 1, U64, error, 0, MSG_REQUIRED) /* enum err */            \
    X(T, 2, STR, source_address, ADDRESS_MAX_BYTES, 0)             \
    X(T, 3, STR, node_name, NAME_MAX_BYTES, 0)                     \
    X(T, 4, FIX, fingerprint, 32, 0)                               \
    X(T, 5, FIX, token_hash, 32, 0)
MSG_DECLARE(join_denied, JOIN_DENIED_FIELDS)

/* What was refused before there was a command that would say so: audited, nothing else changes. */
enum refusal_what {
    REFUSAL_JOIN = 1,      /* an attempt to enrol */
    REFUSAL_HANDSHAKE = 2, /* a peer that proved who it is */
    REFUSAL_SERVICE = 3,   /* a peer asked for what it may not have */
    REFUSAL_COMMAND = 4,   /* somebody asked for a high-risk change */
    REFUSAL_UNLISTED = 5,  /* any of them, too many to tell apart */
};
#define REFUSAL_NOTED_FIELDS(X, T)                                                        \
    X(T, 1, U64, what, 0, MSG_REQUIRED)                                                   \
    X(T, 2, U64, error, 0, 0)            /* enum err; absent: UNLISTED */                 \
    X(T, 3, U64, count, 0, MSG_REQUIRED) /* alike, since: */                              \
    X(T, 4, I64, since_ms, 0, MSG_REQUIRED)                                               \
    X(T, 5, STR, subject, NAME_MAX_BYTES, 0) /* the joiner's name, the service, the command */ \
    X(T, 6, ID, node_id, 0, 0)                                                            \
    X(T, 7, STR, source_address, ADDRESS_MAX_BYTES, 0)                                    \
    X(T, 8, FIX, fingerprint, 32, 0)     /* of the joiner's key */                        \
    X(T, 9, FIX, token_hash, 32, 0)      /* of a token there is */                        \
    X(T, 10, STR, detail, REASON_MAX_BYTES, 0)                                            \
    X(T, 11, STR, actor_kind, 16, 0)     /* who was refused, when that is known: the row's actor */ \
    X(T, 12, STR, actor_id, 128, 0)
MSG_DECLARE(refusal_noted, REFUSAL_NOTED_FIELDS)

/* Where PostgreSQL is (DESIGN D2). mode: disabled, async, required. The connection string has no
 * secret in it: what is in the log stays there. */
#define MIRROR_SET_FIELDS(X, T)                                    \
    X(T, 1, STR, mode, 16, MSG_REQUIRED)                           \
    X(T, 2, STR, dsn, MIRROR_DSN_MAX, 0)                           \
    X(T, 3, U64, max_lag_ms, 0, 0)
MSG_DECLARE(mirror_set, MIRROR_SET_FIELDS)

/* The mirror is written anew from the state; an alarm is over. why: kept in the audit. */
#define MIRROR_REBUILD_FIELDS(X, T) X(T, 1, STR, reason, REASON_MAX_BYTES, 0)
MSG_DECLARE(mirror_rebuild, MIRROR_REBUILD_FIELDS)

/* The leader found that PostgreSQL is not to be believed (mirror_alarm, with its kind), or that it went
 * back to an earlier state and was caught up (mirror_rewound). */
#define MIRROR_EVENT_FIELDS(X, T)                                  \
    X(T, 1, STR, event, 32, MSG_REQUIRED)                          \
    X(T, 2, STR, kind, 32, 0)                                      \
    X(T, 3, STR, detail, MIRROR_DETAIL_MAX, 0)
MSG_DECLARE(mirror_event, MIRROR_EVENT_FIELDS)

#define ROLE_ASSIGN_FIELDS(X, T)                                   \
    X(T, 1, ID, assignment_id, 0, MSG_REQUIRED)                    \
    X(T, 2, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 3, STR, role, ROLE_MAX_BYTES, MSG_REQUIRED)               \
    X(T, 4, STR, organization_id, 64, 0)                           \
    X(T, 5, STR, policy, POLICY_MAX_BYTES, 0)
MSG_DECLARE(role_assign, ROLE_ASSIGN_FIELDS)

#define ROLE_UNASSIGN_FIELDS(X, T)                                 \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 2, STR, role, ROLE_MAX_BYTES, MSG_REQUIRED)               \
    X(T, 3, STR, organization_id, 64, 0)
MSG_DECLARE(role_unassign, ROLE_UNASSIGN_FIELDS)

#define NODE_RENAME_FIELDS(X, T)                                   \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 2, STR, name, NAME_MAX_BYTES, MSG_REQUIRED)
MSG_DECLARE(node_rename, NODE_RENAME_FIELDS)

/* The key is banned for ever; the node stays listed as revoked. */
#define NODE_REVOKE_FIELDS(X, T)                                   \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 2, STR, reason, REASON_MAX_BYTES, MSG_REQUIRED)             \
    X(T, 3, FLAG, force, 0, 0) /* even the seed of an open split; from LEVEL_SPLITS on */
MSG_DECLARE(node_revoke, NODE_REVOKE_FIELDS)

/* Takes a revoked node out of every list; its key stays banned. */
#define NODE_REMOVE_FIELDS(X, T)                                   \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)
MSG_DECLARE(node_remove, NODE_REMOVE_FIELDS)

#define CERT_RENEW_FIELDS(X, T)                                    \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 2, BIN, cert, CMD_CERT_MAX, MSG_REQUIRED) /* cmd_cert; same public key */
MSG_DECLARE(cert_renew, CERT_RENEW_FIELDS)

/* Its raft id is core_raft_id of its node id, so no id is ever reused. */
#define AUTHORITY_ADD_FIELDS(X, T)                                                       \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                                                \
    X(T, 2, STR, address, ADDRESS_MAX_BYTES, MSG_REQUIRED)                               \
    X(T, 3, BIN, issuer_der, CERT_DER_MAX, MSG_REQUIRED) /* its CA, signed by the root */ \
    X(T, 4, FIX, issuer_fingerprint, 32, MSG_REQUIRED)                                   \
    X(T, 5, BIN, cert, CMD_CERT_MAX, MSG_REQUIRED) /* its leaf, under that CA */
MSG_DECLARE(authority_add, AUTHORITY_ADD_FIELDS)

/* joining -> standby -> voter, as the Raft configuration follows. */
#define AUTHORITY_STATUS_FIELDS(X, T)                              \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 2, STR, status, 16, MSG_REQUIRED)
MSG_DECLARE(authority_status, AUTHORITY_STATUS_FIELDS)

/* Its key is banned and its CA retired: nothing under that CA is an authority any more. Ordinary
 * leaves the CA signed are renewed elsewhere at once, and count at an authority only for the key the
 * state lists for that node (see docs/SECURITY.md). */
#define AUTHORITY_REMOVE_FIELDS(X, T)                              \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 2, STR, reason, REASON_MAX_BYTES, 0)                      \
    X(T, 3, FLAG, force, 0, 0) /* even the seed of an open split; from LEVEL_SPLITS on */
MSG_DECLARE(authority_remove, AUTHORITY_REMOVE_FIELDS)

/* Whether an authority is meant to vote. One that is not follows, serves nodes, and can be promoted. */
#define AUTHORITY_VOTE_FIELDS(X, T)                                \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 2, FLAG, votes, 0, 0)                                     \
    X(T, 3, STR, reason, REASON_MAX_BYTES, 0)
MSG_DECLARE(authority_vote, AUTHORITY_VOTE_FIELDS)

/* It was to vote and has not caught up for AUTHORITY_WAIT_MAX_MS: removed. */
#define AUTHORITY_EXPIRE_FIELDS(X, T)                              \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)
MSG_DECLARE(authority_expire, AUTHORITY_EXPIRE_FIELDS)

/* The first entry of an epoch, written into the log by whoever the owner's statement names, not
 * proposed. From node_name on only in a restore; without a name the host takes the place of the authority
 * whose id it has. */
#define EPOCH_START_FIELDS(X, T)                                   \
    X(T, 1, BIN, statement, SIGNED_RECOVERY_MAX, MSG_REQUIRED)     \
    X(T, 2, STR, node_name, NAME_MAX_BYTES, 0)                     \
    X(T, 3, STR, address, ADDRESS_MAX_BYTES, 0)                    \
    X(T, 4, BIN, cert, CMD_CERT_MAX, 0) /* cmd_cert, under its own CA */ \
    X(T, 5, FIX, issuer_fingerprint, 32, 0)
MSG_DECLARE(epoch_start, EPOCH_START_FIELDS)

/* Which authorities the leader hears and which it does not: opens, changes or closes the row of
 * cluster_partitions. */
#define PARTITION_SEEN_FIELDS(X, T)                                \
    X(T, 1, ID, partition_id, 0, MSG_REQUIRED) /* of a row that it opens */ \
    X(T, 2, LIST, out, AUTHORITIES_MAX, 0)     /* of id */         \
    X(T, 3, LIST, in, AUTHORITIES_MAX, 0)      /* of id */         \
    X(T, 4, FLAG, quorum, 0, 0)
MSG_DECLARE(partition_seen, PARTITION_SEEN_FIELDS)

/* A part of what an authority of an older epoch hands over; a report without rows is one part. */
#define DIVERGENCE_REPORTED_FIELDS(X, T)                           \
    X(T, 1, BIN, report, CMD_BODY_MAX, MSG_REQUIRED) /* divergence_report */
MSG_DECLARE(divergence_reported, DIVERGENCE_REPORTED_FIELDS)

#define PARTITION_MERGE_FIELDS(X, T)                               \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 2, U64, epoch, 0, MSG_REQUIRED)                           \
    X(T, 3, U64, rows, 0, 0)                                       \
    X(T, 4, FIX, signature, 64, MSG_REQUIRED) /* of merge_consent, with the root key */
MSG_DECLARE(partition_merge, PARTITION_MERGE_FIELDS)

/* An authority came back with a log behind what it had acknowledged: it votes no more until it has
 * caught up from nothing. */
#define AUTHORITY_FENCED_FIELDS(X, T)                              \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 2, U64, acked_index, 0, 0)                                \
    X(T, 3, U64, shown_index, 0, 0)                                \
    X(T, 4, U64, acked_term, 0, 0)                                 \
    X(T, 5, U64, shown_term, 0, 0)
MSG_DECLARE(authority_fenced, AUTHORITY_FENCED_FIELDS)

/* The log of an authority does not verify: it votes no more until it has caught up from nothing. */
#define AUTHORITY_DAMAGED_FIELDS(X, T)    \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED) \
    X(T, 2, STR, why, LOG_DAMAGE_MAX, 0)
MSG_DECLARE(authority_damaged, AUTHORITY_DAMAGED_FIELDS)

#define NODE_HEALTH_FIELDS(X, T)                                   \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                          \
    X(T, 2, STR, health, 16, MSG_REQUIRED) /* healthy, unhealthy, stale */ \
    X(T, 3, STR, agent_version, 32, 0)                             \
    X(T, 4, I64, last_seen_ms, 0, 0)                               \
    X(T, 5, STR, address, ADDRESS_MAX_BYTES, 0)                    \
    X(T, 6, STR, facts, FACTS_MAX_BYTES, 0)                        \
    X(T, 7, LIST, capabilities, CAPABILITIES_MAX, 0)
MSG_DECLARE(node_health, NODE_HEALTH_FIELDS)

/* The state's schema moves to this level: the migrations up to it run inside the entry. Proposed by
 * the leader once every member of the Raft configuration has said that it knows the level. */
#define LEVEL_RAISE_FIELDS(X, T) X(T, 1, U64, level, 0, MSG_REQUIRED)
MSG_DECLARE(level_raise, LEVEL_RAISE_FIELDS)

/* The next link of the chain of authority sets (wire/witness_msg.h). */
#define AUTHORITY_SET_NEXT_FIELDS(X, T)                            \
    X(T, 1, BIN, signed_set, SIGNED_SET_MAX, MSG_REQUIRED)
MSG_DECLARE(authority_set_next, AUTHORITY_SET_NEXT_FIELDS)

/* A node was shown what no majority signed: audited, nothing else changes. */
#define FORGERY_REPORTED_FIELDS(X, T)                              \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED) /* who reports it */     \
    X(T, 2, STR, kind, FORGERY_KIND_MAX_BYTES, MSG_REQUIRED)       \
    X(T, 3, STR, error, 32, MSG_REQUIRED)                          \
    X(T, 4, STR, detail, REASON_MAX_BYTES, 0)                      \
    X(T, 5, ID, offender_id, 0, 0)                                 \
    X(T, 6, FIX, offender_fingerprint, 32, 0)                      \
    X(T, 7, FIX, evidence, 32, 0)                                  \
    X(T, 8, I64, seen_at_ms, 0, 0)
MSG_DECLARE(forgery_reported, FORGERY_REPORTED_FIELDS)
/* Builds the bytes of one command: encodes body with the kind's description, then the envelope. */
void cmd_encode(struct cmd *c, const void *body, struct buf *out);

/* SPEC ROLE-02 and CAP-01, and which capability a role needs ("" = none; ROLE-04). */
bool role_is_known(struct blob role);
bool capability_is_known(struct blob capability);
const char *role_capability(struct blob role);
extern const char *const role_names[];       /* NULL-terminated */
extern const char *const capability_names[]; /* NULL-terminated */

#endif
