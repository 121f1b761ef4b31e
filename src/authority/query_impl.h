/* Queries with a file of their own, for query.c's table. Each appends one document. */
#ifndef RAP_AUTHORITY_QUERY_IMPL_H
#define RAP_AUTHORITY_QUERY_IMPL_H

#include "authority/fsm_impl.h"
#include "authority/query.h"

int query_trust(struct db *db, const struct query_args *args, struct mp_writer *w,
                struct errmsg *em);

#endif
