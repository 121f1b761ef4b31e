#include "wire/cmd.h"

MSG_DEFINE(cmd_entry, CMD_ENTRY_FIELDS)
MSG_DEFINE(cmd, CMD_FIELDS)
MSG_DEFINE(cmd_cert, CMD_CERT_FIELDS)
MSG_DEFINE(cluster_init, CLUSTER_INIT_FIELDS)
MSG_DEFINE(term_start, TERM_START_FIELDS)
MSG_DEFINE(token_create, TOKEN_CREATE_FIELDS)
MSG_DEFINE(token_revoke, TOKEN_REVOKE_FIELDS)
MSG_DEFINE(join_submit, JOIN_SUBMIT_FIELDS)
MSG_DEFINE(join_approve, JOIN_APPROVE_FIELDS)
MSG_DEFINE(join_reject, JOIN_REJECT_FIELDS)
MSG_DEFINE(join_expire, JOIN_EXPIRE_FIELDS)
MSG_DEFINE(join_denied, JOIN_DENIED_FIELDS)
MSG_DEFINE(refusal_noted, REFUSAL_NOTED_FIELDS)
MSG_DEFINE(mirror_set, MIRROR_SET_FIELDS)
MSG_DEFINE(mirror_rebuild, MIRROR_REBUILD_FIELDS)
MSG_DEFINE(mirror_event, MIRROR_EVENT_FIELDS)
MSG_DEFINE(role_assign, ROLE_ASSIGN_FIELDS)
MSG_DEFINE(role_unassign, ROLE_UNASSIGN_FIELDS)
MSG_DEFINE(node_rename, NODE_RENAME_FIELDS)
MSG_DEFINE(node_revoke, NODE_REVOKE_FIELDS)
MSG_DEFINE(node_remove, NODE_REMOVE_FIELDS)
MSG_DEFINE(cert_renew, CERT_RENEW_FIELDS)
MSG_DEFINE(authority_add, AUTHORITY_ADD_FIELDS)
MSG_DEFINE(authority_status, AUTHORITY_STATUS_FIELDS)
MSG_DEFINE(authority_remove, AUTHORITY_REMOVE_FIELDS)
MSG_DEFINE(authority_vote, AUTHORITY_VOTE_FIELDS)
MSG_DEFINE(authority_expire, AUTHORITY_EXPIRE_FIELDS)
MSG_DEFINE(node_health, NODE_HEALTH_FIELDS)
MSG_DEFINE(level_raise, LEVEL_RAISE_FIELDS)
MSG_DEFINE(authority_set_next, AUTHORITY_SET_NEXT_FIELDS)
MSG_DEFINE(forgery_reported, FORGERY_REPORTED_FIELDS)
MSG_DEFINE(epoch_start, EPOCH_START_FIELDS)
MSG_DEFINE(partition_seen, PARTITION_SEEN_FIELDS)
MSG_DEFINE(divergence_reported, DIVERGENCE_REPORTED_FIELDS)
MSG_DEFINE(partition_merge, PARTITION_MERGE_FIELDS)
MSG_DEFINE(authority_fenced, AUTHORITY_FENCED_FIELDS)
MSG_DEFINE(authority_damaged, AUTHORITY_DAMAGED_FIELDS)

static const struct {
    uint64_t kind;
    bool high_risk;
    unsigned level, who;
    const char *name;
    const struct msg_desc *desc;
} kinds[] = {
#define CMD_ROW_(NAME, num, name, risk, level, who) {num, risk, level, who, #name, &name##_desc},
    CMD_KINDS(CMD_ROW_)
#undef CMD_ROW_
};

static int find(uint64_t kind)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (kinds[i].kind == kind) {
            return (int)i;
        }
    }
    return -1;
}

#define KIND_FITS_(NAME, num, ...) _Static_assert((num) <= CMD_KIND_MAX, #NAME);
CMD_KINDS(KIND_FITS_)
#undef KIND_FITS_

const char *cmd_kind_name(uint64_t kind)
{
    int i = find(kind);
    return i < 0 ? NULL : kinds[i].name;
}

bool cmd_kind_high_risk(uint64_t kind)
{
    int i = find(kind);
    return i >= 0 && kinds[i].high_risk;
}

unsigned cmd_kind_who(uint64_t kind)
{
    int i = find(kind);
    return i < 0 ? 0 : kinds[i].who;
}

unsigned cmd_kind_level(uint64_t kind)
{
    int i = find(kind);
    return i < 0 ? 0 : kinds[i].level;
}

const struct msg_desc *cmd_body_desc(uint64_t kind)
{
    int i = find(kind);
    return i < 0 ? NULL : kinds[i].desc;
}

int cmd_body_check(uint64_t kind, struct blob body)
{
    union {
#define MEMBER_(NAME, num, name, ...) struct name name;
        CMD_KINDS(MEMBER_)
#undef MEMBER_
    } any;
    const struct msg_desc *desc = cmd_body_desc(kind);
    return desc == NULL ? -ERR_UNSUPPORTED : msg_decode(desc, MSG_STRICT, body, &any);
}

void cmd_encode(struct cmd *c, const void *body, struct buf *out)
{
    struct buf b;
    buf_init(&b, CMD_BODY_MAX);
    msg_encode(cmd_body_desc(c->kind), body, &b);
    if (b.err != 0) {
        out->err = b.err;
    } else {
        c->body = buf_blob(&b);
        msg_encode(&cmd_desc, c, out);
    }
    c->body = blob_of(NULL, 0);
    buf_fini(&b);
}

/* X(role, capability it needs) */
#define ROLES(X)                              \
    X("entry-node", "can_accept_client_ingress") \
    X("relay-node", "can_route_mesh")         \
    X("rdp-worker", "can_run_rdp_worker")     \
    X("vnc-worker", "can_run_vnc_worker")     \
    X("vpn-exit", "can_run_vpn_exit")         \
    X("vpn-connector", "can_run_vpn_connector") \
    X("file-storage-cache", "can_run_file_cache") \
    X("update-cache", "can_run_update_cache") \
    X("video-relay", "can_run_video_relay")   \
    X("core-mesh", "can_route_mesh")          \
    X("web-ingress", "can_accept_client_ingress") \
    X("admin-runtime", "")                    \
    X("config-storage", "can_run_file_cache") \
    X("version-storage", "can_run_update_cache") \
    X("audit-sink", "")                       \
    X("authority", "")

#define ROLE_NAME_(role, cap) role,
#define ROLE_CAP_(role, cap) cap,
const char *const role_names[] = {ROLES(ROLE_NAME_) NULL};
static const char *const role_caps[] = {ROLES(ROLE_CAP_) NULL};

const char *const capability_names[] = {
    "can_accept_client_ingress",
    "can_accept_node_ingress",
    "can_route_mesh",
    "can_egress_internet",
    "can_egress_private_network",
    "can_run_rdp_worker",
    "can_run_vnc_worker",
    "can_run_vpn_exit",
    "can_run_vpn_connector",
    "can_run_file_cache",
    "can_run_update_cache",
    "can_run_video_relay",
    NULL,
};

static int index_of(const char *const *list, struct blob name)
{
    for (int i = 0; list[i] != NULL; i++) {
        if (blob_equal(blob_str(list[i]), name)) {
            return i;
        }
    }
    return -1;
}

bool role_is_known(struct blob role)
{
    return index_of(role_names, role) >= 0;
}

bool capability_is_known(struct blob capability)
{
    return index_of(capability_names, capability) >= 0;
}

const char *role_capability(struct blob role)
{
    int i = index_of(role_names, role);
    return i < 0 ? "" : role_caps[i];
}
