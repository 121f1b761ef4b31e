/* What a preparation of ops*.c works on: the leader reads the applied state and the call's arguments,
 * and decides all that the command carries. */
#ifndef RAP_AUTHORITY_OPS_IMPL_H
#define RAP_AUTHORITY_OPS_IMPL_H

#include "authority/authority_impl.h"

struct prepare {
    struct authority *a;
    const struct op_input *in;
    int64_t now_ms;
    struct op_prepared *out;
    struct errmsg *em;
};

/* ops_mirror.c */
int prepare_mirror_enable(struct prepare *p);
int prepare_mirror_disable(struct prepare *p);
int prepare_mirror_rebuild(struct prepare *p);
int prepare_mirror_event(struct prepare *p);
/* -ERR_MIRROR_UNAVAILABLE: what was prepared is high-risk, and PostgreSQL, which is required, is too far
 * behind to record it. */
int mirror_allows(struct prepare *p);
struct uuid op_fresh_id(const struct prepare *p);
void op_put_body(struct prepare *p, enum cmd_kind kind, const void *body);
/* A text argument as a view into the arguments; empty when absent. */
struct blob op_arg_text(const struct prepare *p, const char *key);
/* The thing that the argument "id" names. */
int op_arg_id(struct prepare *p, const char *kind, struct uuid *ret);
int op_arg_reason(struct prepare *p, struct blob *ret);
/* Exactly len bytes, at most a signature's, in hex. */
int op_arg_hex(struct prepare *p, const char *key, uint8_t *out, size_t len);
/* The argument "force"; false as long as no command has a place for it. */
bool op_arg_force(const struct prepare *p);

/* --- ops_enroll.c --- */
int op_token_create(struct prepare *p);
int op_token_revoke(struct prepare *p);
int op_join_submit(struct prepare *p);
int op_join_approve(struct prepare *p);
int op_join_reject(struct prepare *p);
int op_join_expire(struct prepare *p);

/* --- ops_split.c --- */
int op_split_begin(struct prepare *p);
int op_split_finish(struct prepare *p);
int op_split_cancel(struct prepare *p);

/* --- ops_mesh.c --- */
int op_mesh_set(struct prepare *p);
int op_node_mesh(struct prepare *p);
int op_intent_create(struct prepare *p);
int op_intent_enable(struct prepare *p);
int op_intent_disable(struct prepare *p);
int op_intent_delete(struct prepare *p);
int op_qos_set(struct prepare *p);
int op_qos_reset(struct prepare *p);
int op_pool_create(struct prepare *p);
int op_pool_delete(struct prepare *p);
int op_pool_add(struct prepare *p);
int op_pool_remove(struct prepare *p);
int op_resource_create(struct prepare *p);
int op_resource_set(struct prepare *p);
int op_resource_delete(struct prepare *p);

/* --- ops_model.c --- */
/* enum cmd_switch of a flag: absent is SWITCH_KEEP. */
uint64_t op_arg_switch(const struct prepare *p, const char *key);
int op_node_disable(struct prepare *p);
int op_node_enable(struct prepare *p);
int op_node_update(struct prepare *p);
int op_node_group(struct prepare *p);
int op_node_verify(struct prepare *p);
int op_capability_policy(struct prepare *p);
int op_cluster_update(struct prepare *p);
int op_role_require(struct prepare *p);
int op_group_create(struct prepare *p);
int op_group_move(struct prepare *p);
int op_group_delete(struct prepare *p);

#endif
