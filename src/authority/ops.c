/* What each mutation becomes. Everything here runs on the leader, reads only applied state and the
 * call's arguments, and decides what the command must carry: times, ids, certificates. Apply checks
 * all of it again. */
#include "authority/call_impl.h"
#include "authority/ops_impl.h"

#include "base/clock.h"
#include "base/rng.h"
#include "base/text.h"

struct uuid op_fresh_id(const struct prepare *p)
{
    uint8_t random[10];
    rng_bytes(random, sizeof random);
    return uuid_make(p->now_ms, random);
}

void op_put_body(struct prepare *p, enum cmd_kind kind, const void *body)
{
    p->out->kind = kind;
    msg_encode(cmd_body_desc(kind), body, &p->out->body);
}

struct blob op_arg_text(const struct prepare *p, const char *key)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(p->in->args, key));
    return mp_peek(&r) == MP_STR ? mp_get_str(&r, SIZE_MAX) : blob_of(NULL, 0);
}

int op_arg_id(struct prepare *p, const char *kind, struct uuid *ret)
{
    char text[128];
    mp_find_str(p->in->args, "id", text, sizeof text);
    return op_resolve(p->a, kind, text, ret, p->em);
}

int op_arg_hex(struct prepare *p, const char *key, uint8_t *out, size_t len)
{
    char text[2 * PKI_SIG_BYTES + 1];
    mp_find_str(p->in->args, key, text, sizeof text);
    return hex_decode(text, out, len) == 0
               ? 0
               : errmsg_set(p->em, -ERR_INVALID, "%s is not %zu bytes in hex", key, len);
}

bool op_arg_force(const struct prepare *p)
{
    char text[8];
    mp_find_str(p->in->args, "force", text, sizeof text); /* in a query it is text */
    return fsm_level(p->a->fsm) >= LEVEL_SPLITS &&
           (mp_find_int(p->in->args, "force") != 0 || strcmp(text, "true") == 0);
}

int op_arg_reason(struct prepare *p, struct blob *ret)
{
    *ret = op_arg_text(p, "reason");
    if (ret->len == 0) {
        return errmsg_set(p->em, -ERR_INVALID, "a reason is required: add --reason TEXT");
    }
    if (ret->len > REASON_MAX_BYTES) {
        return errmsg_set(p->em, -ERR_TOO_LARGE, "a reason has at most %d bytes", REASON_MAX_BYTES);
    }
    return 0;
}

int op_resolve(struct authority *a, const char *kind, const char *text, struct uuid *ret,
               struct errmsg *em)
{
    if (text[0] == '\0') {
        return errmsg_set(em, -ERR_INVALID, "which one? give a name, an id or a unique prefix");
    }
    struct buf doc;
    buf_init(&doc, RPC_FRAME_MAX);
    struct mp_writer w;
    mp_writer_init(&w, &doc);
    int rc = query_run(a->fsm, kind, &(struct query_args){.id = text}, &w, em);
    if (rc == 0) {
        char id[UUID_TEXT_MAX];
        mp_find_str(buf_blob(&doc), "id", id, sizeof id);
        if (id[0] == '\0') {
            mp_find_str(buf_blob(&doc), "node_id", id, sizeof id);
        }
        rc = uuid_parse(id, ret);
    }
    buf_fini(&doc);
    return rc;
}

void op_load_addresses(struct authority *a)
{
    struct buf *out = &a->voter_addresses;
    struct db_stmt *st = db_prepare(state_db(a), "SELECT address FROM cluster_authorities"
                                                 " WHERE status = 'voter' ORDER BY node_id");
    buf_clear(out);
    while (db_step(st) == 1) {
        buf_addf(out, "%s%s", out->len == 0 ? "" : ",", db_col_text(st, "address"));
    }
    db_done(st);
}

/* --- nodes --- */

static int prepare_node_rename(struct prepare *p)
{
    struct node_rename body = {.name = op_arg_text(p, "name")};
    if (!text_is_name((const char *)body.name.data, body.name.len)) {
        return errmsg_set(p->em, -ERR_BAD_NAME,
                          "a node name is 1-63 of a-z, 0-9 and -, no - at either end");
    }
    int rc = op_arg_id(p, "nodes", &body.node_id);
    if (rc == 0) {
        op_put_body(p, CMD_NODE_RENAME, &body);
    }
    return rc;
}

static int prepare_node_revoke(struct prepare *p)
{
    struct node_revoke body = {.force = op_arg_force(p)};
    int rc = op_arg_reason(p, &body.reason);
    if (rc == 0) {
        rc = op_arg_id(p, "nodes", &body.node_id);
    }
    if (rc == 0) {
        op_put_body(p, CMD_NODE_REVOKE, &body);
    }
    return rc;
}

static int prepare_node_remove(struct prepare *p)
{
    struct node_remove body;
    int rc = op_arg_id(p, "nodes", &body.node_id);
    if (rc == 0) {
        op_put_body(p, CMD_NODE_REMOVE, &body);
    }
    return rc;
}

static int prepare_node_renew(struct prepare *p)
{
    struct renew_request rq;
    uint8_t key[PKI_KEY_BYTES];
    int rc = msg_decode(&renew_request_desc, MSG_LENIENT, p->in->args, &rq);
    if (rc == 0) {
        rc = pki_csr_parse(rq.csr, key, p->em);
    }
    if (rc != 0) {
        return rc;
    }
    struct buf cert;
    buf_init(&cert, CMD_CERT_MAX);
    rc = issue_leaf(p->a, &rq.node_id, key, &cert, p->em);
    if (rc == 0) {
        struct cert_renew body = {.node_id = rq.node_id, .cert = buf_blob(&cert)};
        op_put_body(p, CMD_CERT_RENEW, &body);
    }
    buf_fini(&cert);
    return rc;
}

/* --- roles --- */

static int role_args(struct prepare *p, struct uuid *ret_node, struct blob *ret_role,
                     struct blob *ret_org)
{
    *ret_role = op_arg_text(p, "role");
    *ret_org = op_arg_text(p, "organization_id");
    if (!role_is_known(*ret_role)) {
        return errmsg_set(p->em, -ERR_ROLE_UNKNOWN,
                          "no role \"%.*s\"; roles are listed in "
                          "`rap role assign --help`",
                          (int)ret_role->len, (const char *)ret_role->data);
    }
    return op_arg_id(p, "nodes", ret_node);
}

static int prepare_role_assign(struct prepare *p)
{
    struct role_assign body = {.assignment_id = op_fresh_id(p)};
    int rc = role_args(p, &body.node_id, &body.role, &body.organization_id);
    if (rc == 0) {
        op_put_body(p, CMD_ROLE_ASSIGN, &body);
    }
    return rc;
}

static int prepare_role_unassign(struct prepare *p)
{
    struct role_unassign body;
    int rc = role_args(p, &body.node_id, &body.role, &body.organization_id);
    if (rc == 0) {
        op_put_body(p, CMD_ROLE_UNASSIGN, &body);
    }
    return rc;
}

/* --- authorities --- */

static int prepare_authority_remove(struct prepare *p)
{
    struct authority_remove body = {.reason = op_arg_text(p, "reason"), .force = op_arg_force(p)};
    int rc = op_arg_id(p, "authorities", &body.node_id);
    if (rc == 0) {
        op_put_body(p, CMD_AUTHORITY_REMOVE, &body);
    }
    return rc;
}

static int prepare_authority_vote(struct prepare *p)
{
    struct authority_vote body = {.votes = strcmp(p->in->method, "authority.promote") == 0,
                                  .reason = op_arg_text(p, "reason")};
    int rc = op_arg_id(p, "authorities", &body.node_id);
    if (rc == 0) {
        op_put_body(p, CMD_AUTHORITY_VOTE, &body);
    }
    return rc;
}

/* --- recovery --- */

static int prepare_partition_merge(struct prepare *p)
{
    uint8_t signature[PKI_SIG_BYTES];
    struct partition_merge body = {
        .epoch = (uint64_t)mp_find_int(p->in->args, "epoch"),
        .rows = (uint64_t)mp_find_int(p->in->args, "rows"),
        .signature = blob_of(signature, sizeof signature),
    };
    int rc = op_arg_hex(p, "signature", signature, sizeof signature);
    rc = rc != 0 ? rc : op_arg_id(p, "authorities", &body.node_id);
    if (rc == 0) {
        op_put_body(p, CMD_PARTITION_MERGE, &body);
    }
    return rc;
}

/* --- what certificates stand on --- */

static int prepare_trust_policy(struct prepare *p)
{
    const struct cert_policy body = {.leaf_life_ms = mp_find_int(p->in->args, "leaf_life_ms")};
    if (body.leaf_life_ms < LEAF_LIFE_MIN_MS || body.leaf_life_ms > LEAF_LIFE_MAX_MS) {
        return errmsg_set(p->em, -ERR_INVALID, "a node certificate lives between 1m and 90d");
    }
    op_put_body(p, CMD_CERT_POLICY, &body);
    return 0;
}

/* Who may ask for a method, and with it what an authority that passes a call on may say of its caller.
 * The leader cannot see who sat at another authority's socket, so it takes the word of the one that
 * passes the call on, within these bounds; what only the leader itself decides is nobody else's to ask
 * for. The numbers start above those of a bool. */
enum op_caller {
    OP_BY_LEADER = 2, /* the leader, who has decided all of it */
    OP_BY_PERSON,     /* an administrator at the socket of any authority */
    OP_BY_NODE,       /* a node that any authority serves */
    OP_BY_SELF,       /* any authority, about itself */
    OP_BY_MEMBER,     /* any authority, about what it saw */
};

static const struct {
    const char *method;
    enum op_caller by;
    int (*prepare)(struct prepare *p); /* NULL: the arguments are the encoded body */
    enum cmd_kind kind;                /* what it becomes */
    unsigned level;                    /* schema level it needs; 0: there from the first */
} ops[] = {
    {"token.create", OP_BY_PERSON, op_token_create, CMD_TOKEN_CREATE, 0},
    {"token.revoke", OP_BY_PERSON, op_token_revoke, CMD_TOKEN_REVOKE, 0},
    {"request.approve", OP_BY_PERSON, op_join_approve, CMD_JOIN_APPROVE, 0},
    {"request.reject", OP_BY_PERSON, op_join_reject, CMD_JOIN_REJECT, 0},
    {"node.rename", OP_BY_PERSON, prepare_node_rename, CMD_NODE_RENAME, 0},
    {"node.revoke", OP_BY_PERSON, prepare_node_revoke, CMD_NODE_REVOKE, 0},
    {"node.remove", OP_BY_PERSON, prepare_node_remove, CMD_NODE_REMOVE, 0},
    {"role.assign", OP_BY_PERSON, prepare_role_assign, CMD_ROLE_ASSIGN, 0},
    {"role.unassign", OP_BY_PERSON, prepare_role_unassign, CMD_ROLE_UNASSIGN, 0},
    {"authority.remove", OP_BY_PERSON, prepare_authority_remove, CMD_AUTHORITY_REMOVE, 0},
    {"authority.promote", OP_BY_PERSON, prepare_authority_vote, CMD_AUTHORITY_VOTE, LEVEL_VOTES},
    {"authority.demote", OP_BY_PERSON, prepare_authority_vote, CMD_AUTHORITY_VOTE, LEVEL_VOTES},
    {"authority.expire", OP_BY_LEADER, NULL, CMD_AUTHORITY_EXPIRE, LEVEL_VOTES},
    {"mirror.enable", OP_BY_PERSON, prepare_mirror_enable, CMD_MIRROR_SET, LEVEL_MIRROR},
    {"mirror.disable", OP_BY_PERSON, prepare_mirror_disable, CMD_MIRROR_SET, LEVEL_MIRROR},
    {"mirror.rebuild", OP_BY_PERSON, prepare_mirror_rebuild, CMD_MIRROR_REBUILD, LEVEL_MIRROR},
    {"mirror.event", OP_BY_LEADER, prepare_mirror_event, CMD_MIRROR_EVENT, LEVEL_MIRROR},
    {"join.submit", OP_BY_NODE, op_join_submit, CMD_JOIN_SUBMIT, 0},
    {"refusal.noted", OP_BY_MEMBER, NULL, CMD_REFUSAL_NOTED, LEVEL_WITNESS},
    {"join.expire", OP_BY_LEADER, op_join_expire, CMD_JOIN_EXPIRE, 0},
    {"node.renew", OP_BY_NODE, prepare_node_renew, CMD_CERT_RENEW, 0},
    {"node.health", OP_BY_LEADER, NULL, CMD_NODE_HEALTH, 0},
    {"authority.renewed", OP_BY_SELF, NULL, CMD_CERT_RENEW, 0},
    {"authority.commit", OP_BY_LEADER, NULL, CMD_AUTHORITY_ADD, 0},
    {"authority.status", OP_BY_LEADER, NULL, CMD_AUTHORITY_STATUS, 0},
    {"authority.fenced", OP_BY_LEADER, NULL, CMD_AUTHORITY_FENCED, LEVEL_RECOVERY},
    {"authority.damaged", OP_BY_LEADER, NULL, CMD_AUTHORITY_DAMAGED, LEVEL_HEAL},
    {"divergence.report", OP_BY_SELF, NULL, CMD_DIVERGENCE_REPORTED, LEVEL_RECOVERY},
    {"partition.seen", OP_BY_LEADER, NULL, CMD_PARTITION_SEEN, LEVEL_RECOVERY},
    {"partition.merge", OP_BY_PERSON, prepare_partition_merge, CMD_PARTITION_MERGE, LEVEL_RECOVERY},
    {"authority.set_next", OP_BY_LEADER, NULL, CMD_AUTHORITY_SET_NEXT, LEVEL_WITNESS},
    {"node.forgery", OP_BY_NODE, NULL, CMD_FORGERY_REPORTED, LEVEL_WITNESS},
    {"trust.policy", OP_BY_PERSON, prepare_trust_policy, CMD_CERT_POLICY, LEVEL_MODEL},
    {"certificate.alarm", OP_BY_LEADER, NULL, CMD_CERT_ALARM, LEVEL_MODEL},
    {"node.disable", OP_BY_PERSON, op_node_disable, CMD_MEMBERSHIP_SET, LEVEL_MEMBERS},
    {"node.enable", OP_BY_PERSON, op_node_enable, CMD_MEMBERSHIP_SET, LEVEL_MEMBERS},
    {"node.update", OP_BY_PERSON, op_node_update, CMD_NODE_UPDATE, LEVEL_MEMBERS},
    {"node.group", OP_BY_PERSON, op_node_group, CMD_GROUP_ASSIGN, LEVEL_MEMBERS},
    {"node.verify", OP_BY_PERSON, op_node_verify, CMD_CAPABILITY_VERIFY, LEVEL_MEMBERS},
    {"capability.policy", OP_BY_PERSON, op_capability_policy, CMD_CAPABILITY_POLICY, LEVEL_MEMBERS},
    {"cluster.update", OP_BY_PERSON, op_cluster_update, CMD_CLUSTER_UPDATE, LEVEL_MEMBERS},
    {"role.require", OP_BY_PERSON, op_role_require, CMD_ROLE_REQUIRE, LEVEL_MEMBERS},
    {"group.create", OP_BY_PERSON, op_group_create, CMD_GROUP_CREATE, LEVEL_MEMBERS},
    {"group.move", OP_BY_PERSON, op_group_move, CMD_GROUP_MOVE, LEVEL_MEMBERS},
    {"group.delete", OP_BY_PERSON, op_group_delete, CMD_GROUP_DELETE, LEVEL_MEMBERS},
    {"mesh.set", OP_BY_PERSON, op_mesh_set, CMD_MESH_SET, LEVEL_MESH},
    {"node.mesh", OP_BY_PERSON, op_node_mesh, CMD_NODE_MESH_SET, LEVEL_MESH},
    {"intent.create", OP_BY_PERSON, op_intent_create, CMD_INTENT_CREATE, LEVEL_INTENTS},
    {"intent.enable", OP_BY_PERSON, op_intent_enable, CMD_INTENT_SET, LEVEL_INTENTS},
    {"intent.disable", OP_BY_PERSON, op_intent_disable, CMD_INTENT_SET, LEVEL_INTENTS},
    {"intent.delete", OP_BY_PERSON, op_intent_delete, CMD_INTENT_DELETE, LEVEL_INTENTS},
    {"qos.set", OP_BY_PERSON, op_qos_set, CMD_QOS_SET, LEVEL_INTENTS},
    {"qos.reset", OP_BY_PERSON, op_qos_reset, CMD_QOS_SET, LEVEL_INTENTS},
    {"pool.create", OP_BY_PERSON, op_pool_create, CMD_POOL_CREATE, LEVEL_INTENTS},
    {"pool.delete", OP_BY_PERSON, op_pool_delete, CMD_POOL_DELETE, LEVEL_INTENTS},
    {"pool.add", OP_BY_PERSON, op_pool_add, CMD_POOL_MEMBER, LEVEL_INTENTS},
    {"pool.remove", OP_BY_PERSON, op_pool_remove, CMD_POOL_MEMBER, LEVEL_INTENTS},
    {"split.begin", OP_BY_PERSON, op_split_begin, CMD_SPLIT_BEGIN, LEVEL_SPLITS},
    {"split.finish", OP_BY_PERSON, op_split_finish, CMD_SPLIT_FINISH, LEVEL_SPLITS},
    {"split.cancel", OP_BY_PERSON, op_split_cancel, CMD_SPLIT_CANCEL, LEVEL_SPLITS},
    {"resource.create", OP_BY_PERSON, op_resource_create, CMD_RESOURCE_CREATE, LEVEL_RESOURCES},
    {"resource.set", OP_BY_PERSON, op_resource_set, CMD_RESOURCE_SET, LEVEL_RESOURCES},
    {"resource.delete", OP_BY_PERSON, op_resource_delete, CMD_RESOURCE_DELETE, LEVEL_RESOURCES},
    {"mesh.log", OP_BY_LEADER, NULL, CMD_MESH_LOG, LEVEL_MESH_LOG},
    {"heartbeat.log", OP_BY_LEADER, NULL, CMD_HEARTBEAT_LOG, LEVEL_MEMBERS},
};

/* Methods that become a command elsewhere, or none. */
static const struct {
    const char *method;
    enum op_caller by;
} other_ops[] = {
    {"authority.prepare", OP_BY_PERSON},  {"authority.add", OP_BY_PERSON},
    {"authority.transfer", OP_BY_PERSON}, {"authority.renew", OP_BY_PERSON},
    {"trust.rotate", OP_BY_PERSON},       {"authority.anchor", OP_BY_PERSON},
    {"mirror.status", OP_BY_PERSON},      {"mirror.verify", OP_BY_PERSON},
    {"mesh.links", OP_BY_PERSON},         {"mesh.routes", OP_BY_PERSON},
    {"split.report", OP_BY_PERSON},
};

/* An encoded body from a node, an authority or the leader itself, who decided all of it. */
static int pass_on(struct prepare *p, uint64_t kind)
{
    union {
#define MEMBER_(NAME, num, name, ...) struct name name;
        CMD_KINDS(MEMBER_)
#undef MEMBER_
    } body;
    int rc = msg_decode(cmd_body_desc(kind), MSG_STRICT, p->in->args, &body);
    if (rc == 0) {
        op_put_body(p, (enum cmd_kind)kind, &body);
    }
    return rc;
}

static int find(const char *method)
{
    for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
        if (strcmp(ops[i].method, method) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* 0: no method that is passed on. */
static int caller_of(const char *method)
{
    int i = find(method);
    if (i >= 0) {
        return (int)ops[i].by;
    }
    for (size_t k = 0; k < ARRAY_SIZE(other_ops); k++) {
        if (strcmp(other_ops[k].method, method) == 0) {
            return (int)other_ops[k].by;
        }
    }
    return 0;
}

const char *op_method_at(size_t i)
{
    size_t n = ARRAY_SIZE(ops);
    return i < n ? ops[i].method : i - n < ARRAY_SIZE(other_ops) ? other_ops[i - n].method : NULL;
}

bool op_is_for_leader(const char *method)
{
    return caller_of(method) == OP_BY_LEADER;
}

int op_admits(const struct op_input *in, const struct uuid *via, struct errmsg *em)
{
    int by = caller_of(in->method);
    bool person = strcmp(in->actor_kind, ACTOR_ADMIN) == 0;
    bool ok = false;
    if (via == NULL) { /* our own socket, our own services and this authority itself */
        ok = by == 0 || by == OP_BY_PERSON || !person;
        return ok ? 0 : errmsg_set(em, -ERR_DENIED, "%s is not for callers", in->method);
    }
    if (by == 0 && !call_is_read(in->method) && !call_is_local(in->method)) {
        return errmsg_set(em, -ERR_NOT_FOUND, NO_METHOD_TEXT "%s", in->method);
    }
    char self[UUID_TEXT_MAX];
    uuid_format(via, self);
    bool node = strcmp(in->actor_kind, ACTOR_NODE) == 0;
    switch (by) {
        case OP_BY_PERSON:
            ok = person && strncmp(in->actor_id, "uid:", 4) == 0;
            break;
        case OP_BY_NODE:
            ok = node && in->actor_id[0] != '\0';
            break;
        case OP_BY_SELF:
            ok = node && strcmp(in->actor_id, self) == 0;
            break;
        case OP_BY_MEMBER:
            ok = strcmp(in->actor_kind, ACTOR_SYSTEM) == 0 && in->actor_id[0] == '\0';
            break;
        default: /* the leader's own, a read, an act on one member alone */
            break;
    }
    return ok ? 0
              : errmsg_set(em, -ERR_DENIED, "an authority may not pass on %s as %s", in->method,
                           in->actor_kind);
}

bool op_is_mutation(const char *method)
{
    return find(method) >= 0;
}

uint64_t op_kind(const char *method)
{
    int i = find(method);
    if (i < 0) {
        /* Asks the node first, then commits (authority_ops.c). */
        return strcmp(method, "authority.add") == 0 ? CMD_AUTHORITY_ADD : trust_op_kind(method);
    }
    return ops[i].kind;
}

int op_prepare(struct authority *a, const struct op_input *in, struct op_prepared *ret,
               struct errmsg *em)
{
    int i = find(in->method);
    if (i < 0) {
        return errmsg_set(em, -ERR_NOT_FOUND, NO_METHOD_TEXT "%s", in->method);
    }
    if (ops[i].level > fsm_level(a->fsm)) {
        return errmsg_set(em, -ERR_UNSUPPORTED, FSM_LEVEL_TEXT, fsm_level(a->fsm), in->method,
                          ops[i].level);
    }
    struct fsm_position pos;
    fsm_position(a->fsm, &pos);
    int64_t now_ms = authority_now_ms(a);
    struct prepare p = {
        .a = a,
        .in = in,
        .now_ms = now_ms > pos.time_ms ? now_ms : pos.time_ms,
        .out = ret,
        .em = em,
    };
    int rc = ops[i].prepare != NULL ? ops[i].prepare(&p) : pass_on(&p, ops[i].kind);
    return rc != 0 ? rc : ret->body.err != 0 ? ret->body.err : mirror_allows(&p);
}
