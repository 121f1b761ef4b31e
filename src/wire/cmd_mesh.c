#include "wire/cmd_mesh.h"

MSG_DEFINE(mesh_set, MESH_SET_FIELDS)
MSG_DEFINE(node_mesh_set, NODE_MESH_SET_FIELDS)
MSG_DEFINE(intent_create, INTENT_CREATE_FIELDS)
MSG_DEFINE(intent_set, INTENT_SET_FIELDS)
MSG_DEFINE(intent_delete, INTENT_DELETE_FIELDS)
MSG_DEFINE(qos_set, QOS_SET_FIELDS)
MSG_DEFINE(pool_create, POOL_CREATE_FIELDS)
MSG_DEFINE(pool_delete, POOL_DELETE_FIELDS)
MSG_DEFINE(pool_member, POOL_MEMBER_FIELDS)
MSG_DEFINE(resource_create, RESOURCE_CREATE_FIELDS)
MSG_DEFINE(resource_set, RESOURCE_SET_FIELDS)
MSG_DEFINE(resource_delete, RESOURCE_DELETE_FIELDS)
MSG_DEFINE(mesh_log, MESH_LOG_FIELDS)
MSG_DEFINE(mesh_link_seen, MESH_LINK_SEEN_FIELDS)
MSG_DEFINE(mesh_route_seen, MESH_ROUTE_SEEN_FIELDS)

const char *const intent_policy_names[] = {"prefer", "avoid", "require", "deny", "direct", NULL};
const char *const intent_via_names[] = {"any", "direct", "node", "region", NULL};
const char *const qos_class_names[] = {"control", "interactive", "reliable",
                                       "bulk",    "droppable",   NULL};
const char *const service_class_names[] = {"synthetic", "remote_workspace", "vpn_packet", NULL};

uint64_t word_number(const char *const *names, struct blob word)
{
    for (uint64_t i = 0; names[i] != NULL; i++) {
        if (blob_equal(word, blob_str(names[i]))) {
            return i + 1;
        }
    }
    return 0;
}

const char *const mesh_kind_names[] = {"auto", "thin", "normal", "core", NULL};

bool mesh_kind_is_known(struct blob kind)
{
    return word_number(mesh_kind_names, kind) != 0;
}
