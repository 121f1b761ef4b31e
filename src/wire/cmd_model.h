/* Log commands about memberships, groups, capabilities, observations, and the cluster's own row. Part of
 * wire/cmd.h. */
#ifndef RAP_WIRE_CMD_MODEL_H
#define RAP_WIRE_CMD_MODEL_H

#include "wire/limits.h"
#include "wire/msg.h"

/* A disabled membership authorizes nothing; its key stays good for the day it is enabled again. */
#define MEMBERSHIP_SET_FIELDS(X, T)       \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED) \
    X(T, 2, FLAG, disabled, 0, 0)         \
    X(T, 3, STR, reason, REASON_MAX_BYTES, 0) \
    X(T, 4, FLAG, force, 0, 0) /* even the seed of an open split; from LEVEL_SPLITS on */
MSG_DECLARE(membership_set, MEMBERSHIP_SET_FIELDS)

/* A switch that may be left as it is. */
enum cmd_switch { SWITCH_KEEP = 0, SWITCH_OFF = 1, SWITCH_ON = 2 };

/* What is absent stays as it is. */
#define CLUSTER_UPDATE_FIELDS(X, T)                                    \
    X(T, 1, STR, name, NAME_MAX_BYTES, 0)                              \
    X(T, 2, STR, region, NAME_MAX_BYTES, 0)                            \
    X(T, 3, STR, metadata, FACTS_MAX_BYTES, 0) /* JSON object, as text */ \
    X(T, 4, U64, test_telemetry, 0, 0)         /* enum cmd_switch */   \
    X(T, 5, I64, heartbeat_sample_ms, 0, 0)
MSG_DECLARE(cluster_update, CLUSTER_UPDATE_FIELDS)

#define NODE_UPDATE_FIELDS(X, T)          \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED) \
    X(T, 2, U64, test_telemetry, 0, MSG_REQUIRED) /* enum cmd_switch */
MSG_DECLARE(node_update, NODE_UPDATE_FIELDS)

/* The cluster needs somebody with this role: without, there is a gap. */
#define ROLE_REQUIRE_FIELDS(X, T)                    \
    X(T, 1, STR, role, ROLE_MAX_BYTES, MSG_REQUIRED) \
    X(T, 2, FLAG, required, 0, 0)
MSG_DECLARE(role_require, ROLE_REQUIRE_FIELDS)

/* --- groups: folders for people; no decision looks at them (SPEC GRP-02) --- */
#define GROUP_CREATE_FIELDS(X, T)                    \
    X(T, 1, ID, group_id, 0, MSG_REQUIRED)           \
    X(T, 2, ID, parent_group_id, 0, 0) /* nil: at the top */ \
    X(T, 3, STR, name, NAME_MAX_BYTES, MSG_REQUIRED) \
    X(T, 4, STR, kind, ROLE_MAX_BYTES, 0)
MSG_DECLARE(group_create, GROUP_CREATE_FIELDS)

#define GROUP_MOVE_FIELDS(X, T)            \
    X(T, 1, ID, group_id, 0, MSG_REQUIRED) \
    X(T, 2, ID, parent_group_id, 0, 0)     \
    X(T, 3, STR, name, NAME_MAX_BYTES, MSG_REQUIRED)
MSG_DECLARE(group_move, GROUP_MOVE_FIELDS)

#define GROUP_DELETE_FIELDS(X, T) X(T, 1, ID, group_id, 0, MSG_REQUIRED)
MSG_DECLARE(group_delete, GROUP_DELETE_FIELDS)

#define GROUP_ASSIGN_FIELDS(X, T)         \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED) \
    X(T, 2, ID, group_id, 0, 0) /* nil: in none */
MSG_DECLARE(group_assign, GROUP_ASSIGN_FIELDS)

/* --- capabilities: what a node reports is the upper bound, policy says what of it is verified --- */
#define CAPABILITY_VERIFY_FIELDS(X, T)                     \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                  \
    X(T, 2, STR, capability, ROLE_MAX_BYTES, MSG_REQUIRED) \
    X(T, 3, FLAG, verified, 0, 0)
MSG_DECLARE(capability_verify, CAPABILITY_VERIFY_FIELDS)

/* Reports of this capability are verified as they come, and those there are. */
#define CAPABILITY_POLICY_FIELDS(X, T)                     \
    X(T, 1, STR, capability, ROLE_MAX_BYTES, MSG_REQUIRED) \
    X(T, 2, FLAG, automatic, 0, 0)
MSG_DECLARE(capability_policy, CAPABILITY_POLICY_FIELDS)

/* --- observations: heartbeats as they were, now and then one of each node (DESIGN D11) --- */
#define HEARTBEAT_LOG_FIELDS(X, T) \
    X(T, 1, LIST, samples, HEARTBEAT_SAMPLES_MAX, MSG_REQUIRED) /* of bin: heartbeat_sample */
MSG_DECLARE(heartbeat_log, HEARTBEAT_LOG_FIELDS)

#define HEARTBEAT_SAMPLE_FIELDS(X, T)              \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)          \
    X(T, 2, I64, observed_at_ms, 0, 0)             \
    X(T, 3, I64, received_at_ms, 0, MSG_REQUIRED)  \
    X(T, 4, STR, health, 16, MSG_REQUIRED)         \
    X(T, 5, STR, version, 32, 0)                   \
    X(T, 6, U64, config_version, 0, 0)
MSG_DECLARE(heartbeat_sample, HEARTBEAT_SAMPLE_FIELDS)

#endif
