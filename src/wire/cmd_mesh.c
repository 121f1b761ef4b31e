#include "wire/cmd_mesh.h"

MSG_DEFINE(mesh_set, MESH_SET_FIELDS)
MSG_DEFINE(node_mesh_set, NODE_MESH_SET_FIELDS)

const char *const mesh_kind_names[] = {"auto", "thin", "normal", "core", NULL};

bool mesh_kind_is_known(struct blob kind)
{
    for (const char *const *k = mesh_kind_names; *k != NULL; k++) {
        if (blob_equal(kind, blob_str(*k))) {
            return true;
        }
    }
    return false;
}
