/* Queries with a file of their own, for query.c's table. Each appends one document. */
#ifndef RAP_AUTHORITY_QUERY_IMPL_H
#define RAP_AUTHORITY_QUERY_IMPL_H

#include "authority/fsm_impl.h"
#include "authority/query.h"

int query_trust(struct db *db, const struct query_args *args, struct mp_writer *w,
                struct errmsg *em);

/* --- query.c: pages and names --- */
struct query_page {
    uint32_t limit;
    const char *cursor_column; /* of the row's last document */
    const char *second_column; /* NULL, or the rest of a two-part cursor */
};
int query_page_limit(const struct query_args *args, uint32_t *ret, struct errmsg *em);
/* Pages in the order of one text key; the statement has ?1 the cursor, ?2 the limit, and then what the
 * caller binds. */
struct db_stmt *query_begin_page(struct db *db, const char *sql, const struct query_args *args,
                                 uint32_t limit);
/* Takes over the statement, which asks for one row more than the page holds. */
int query_put_page(const struct query_page *p, struct db_stmt *st, struct mp_writer *w,
                   struct errmsg *em);

/* Statements give the column id; each NULL when the kind has no such thing. */
struct query_finder {
    const char *noun;
    const char *list;     /* the command that shows them */
    const char *by_id;    /* ?1 id */
    const char *by_name;  /* ?1 name, the preferred ones */
    const char *by_name2; /* ?1 name, when there is no preferred one */
    const char *by_range; /* ?1 <= id < ?2, two rows */
};
/* The one document that a text names; sql has the id as ?1. */
int query_one(struct db *db, const struct query_finder *f, const char *sql, const char *text,
              struct mp_writer *w, struct errmsg *em);

/* One of them, or a page in the order of ids. by_id, after_id as query_one, query_begin_page. */
int query_list_or_one(struct db *db, const struct query_finder *f, const char *by_id,
                      const char *after_id, const struct query_args *args, struct mp_writer *w,
                      struct errmsg *em);

/* query_model.c */
int query_splits(struct db *db, const struct query_args *args, struct mp_writer *w,
                 struct errmsg *em);
/* query_mesh.c */
int query_intents(struct db *db, const struct query_args *args, struct mp_writer *w,
                  struct errmsg *em);
/* As long as there are no resources. */
int query_intents_bare(struct db *db, const struct query_args *args, struct mp_writer *w,
                       struct errmsg *em);
int query_pools(struct db *db, const struct query_args *args, struct mp_writer *w,
                struct errmsg *em);
int query_resources(struct db *db, const struct query_args *args, struct mp_writer *w,
                    struct errmsg *em);
int query_qos(struct db *db, const struct query_args *args, struct mp_writer *w, struct errmsg *em);
int query_mesh_before(struct db *db, const struct query_args *args, struct mp_writer *w,
                      struct errmsg *em);
int query_mesh(struct db *db, const struct query_args *args, struct mp_writer *w,
               struct errmsg *em);
void query_node_mesh(struct fsm *f, const char *node_id, struct mp_writer *w, struct mp_doc *d);

/* More keys for the document of a node, and of the cluster, which the caller has begun. */
void query_node_more(struct fsm *f, const char *node_id, struct mp_writer *w, struct mp_doc *d);
void query_cluster_more(struct fsm *f, struct mp_writer *w, struct mp_doc *d);
/* Who has the role, and who of them is well and can do it now (SPEC CLU-04). */
void query_role_holders(struct db *db, const char *role, int64_t *ret_assigned,
                        int64_t *ret_effective);
/* "effective"; "unverified": the capability it needs is only reported; "capability_gone": not even that
 * any more; "ineffective": the membership is not active. */
const char *query_role_state(struct db *db, const char *node_id, const char *role);

#endif
