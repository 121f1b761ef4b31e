/* Queries with a file of their own, for query.c's table. Each appends one document. */
#ifndef RAP_AUTHORITY_QUERY_IMPL_H
#define RAP_AUTHORITY_QUERY_IMPL_H

#include "authority/fsm_impl.h"
#include "authority/query.h"

int query_trust(struct db *db, const struct query_args *args, struct mp_writer *w,
                struct errmsg *em);

/* query_mesh.c */
int query_mesh(struct db *db, const struct query_args *args, struct mp_writer *w,
               struct errmsg *em);
void query_node_mesh(struct fsm *f, const char *node_id, struct mp_writer *w, struct mp_doc *d);

/* More keys for the document of a node, and of the cluster, which the caller has begun. */
void query_node_more(struct fsm *f, const char *node_id, struct mp_writer *w, struct mp_doc *d);
void query_cluster_more(struct fsm *f, struct mp_writer *w, struct mp_doc *d);
/* "effective"; "unverified": the capability it needs is only reported; "capability_gone": not even that
 * any more; "ineffective": the membership is not active. */
const char *query_role_state(struct db *db, const char *node_id, const char *role);

#endif
