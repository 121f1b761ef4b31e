/* Schema levels: the state changes its shape at an index of the log, on every replica alike. */
#include "authority/fsm_peers.h"

static int audit_raise(struct fsm_ctx *x, unsigned from)
{
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_int(&j, "from", from);
    fsm_json_int(&j, "to", x->v->level);
    const struct fsm_audit a = {
        .event = "level_raised", .subject_type = "cluster", .subject_id = x->cluster_id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_level_raise(struct fsm_ctx *x, const struct level_raise *b)
{
    unsigned from = x->v->level;
    if (b->level <= from) {
        return fsm_refuse(x, -ERR_CONFLICT, "the state is at level %u already", from);
    }
    struct errmsg em = ERRMSG_INIT;
    /* Not a refusal: whoever cannot follow must stop. */
    int rc = b->level > fsm_level_known(x->f) ? -ERR_UNSUPPORTED : 0;
    for (unsigned i = from; rc == 0 && i < b->level; i++) {
        rc = db_migration_run(x->db, x->f->schema, i, &em);
    }
    if (rc != 0) {
        return rc;
    }
    fsm_track_tables(x->f);
    x->v->level = (unsigned)b->level;
    /* What every node is told grows. */
    x->config_changed = x->config_changed || (from < LEVEL_RELAYS && b->level >= LEVEL_RELAYS) ||
                        (from < LEVEL_SIGNED && b->level >= LEVEL_SIGNED);
    if (from < LEVEL_MESH && b->level >= LEVEL_MESH) {
        rc = fsm_peers_begin(x);
    }
    if (rc != 0) {
        return rc;
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "level", (int64_t)b->level);
    mp_doc_end(&x->doc, &d);
    return x->cluster_id[0] == '\0' ? 0 : audit_raise(x, from);
}
