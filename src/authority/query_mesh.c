/* What the owner configured of the overlay. */
#include "authority/query_impl.h"

int query_mesh(struct db *db, const struct query_args *args, struct mp_writer *w, struct errmsg *em)
{
    (void)args;
    struct db_stmt *st = db_prepare(db, FSM_SQL_MESH " LIMIT 1");
    int rc = db_step(st);
    if (rc == 1) {
        fsm_doc_row(st, w);
    }
    db_done(st);
    return rc == 1 ? 0 : errmsg_set(em, -ERR_NOT_FOUND, "there is no cluster yet");
}

void query_node_mesh(struct fsm *f, const char *node_id, struct mp_writer *w, struct mp_doc *d)
{
    if (fsm_level(f) < LEVEL_MESH) {
        return;
    }
    struct db_stmt *st = db_prepare(fsm_db(f), FSM_SQL_NODE_MESH " WHERE m.node_id = ?");
    db_bind_text(st, node_id);
    mp_doc_key(w, d, "mesh");
    if (db_step(st) == 1) {
        fsm_doc_row(st, w);
    } else {
        mp_put_nil(w); /* as the cluster says */
    }
    db_done(st);
}
