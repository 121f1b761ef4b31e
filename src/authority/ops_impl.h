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

#endif
