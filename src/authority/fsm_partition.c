/* Whom the leader hears: rows of cluster_partitions (SPEC AUTH-06). */
#include "authority/fsm_impl.h"

static int ids_json(struct fsm_ctx *x, const struct mp_list *list, char out[JSON_LIST_MAX])
{
    struct mp_reader r;
    size_t at = 1;
    char id[UUID_TEXT_MAX];
    mp_reader_init(&r, list->raw);
    (void)snprintf(out, JSON_LIST_MAX, "[");
    for (uint32_t i = 0; i < list->count; i++) {
        struct uuid u = mp_get_uuid(&r);
        if (r.err != 0) {
            return fsm_refuse(x, -ERR_MALFORMED, "an id of an authority does not decode");
        }
        at += (size_t)snprintf(out + at, JSON_LIST_MAX - at, "%s\"%s\"", i == 0 ? "" : ",",
                               fsm_id(&u, id));
    }
    (void)snprintf(out + at, JSON_LIST_MAX - at, "]");
    return 0;
}

static int audit_partition(struct fsm_ctx *x, const char *event, const char *id,
                           const char *members)
{
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_raw(&j, "members", members);
    const struct fsm_audit a = {.event = event, .subject_type = "partition", .subject_id = id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

/* Those who were out and are no authorities any more did not come back: they were removed. */
static int resolution_seen(struct fsm_ctx *x, const char *members, const char **ret)
{
    int64_t present = 0;
    struct db_stmt *st = db_prepare(x->db, "SELECT count(*) FROM cluster_authorities a"
                                           " WHERE a.status <> 'removed' AND EXISTS (SELECT 1 FROM"
                                           " json_each(?) j WHERE j.value = a.node_id)");
    db_bind_text(st, members);
    int rc = fsm_one_int(st, &present);
    *ret = present > 0 ? "healed" : "removed";
    return rc < 0 ? rc : 0;
}

static int partition_open(struct fsm_ctx *x, const struct partition_seen *b, const char *out,
                          const char *in)
{
    char id[UUID_TEXT_MAX];
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO cluster_partitions (id, cluster_id, members, reachable, has_quorum,"
               " status, detected_at) VALUES (?, ?, ?, ?, ?, 'open', ?)");
    db_bind_text(st, fsm_id(&b->partition_id, id));
    db_bind_text(st, x->cluster_id);
    db_bind_text(st, out);
    db_bind_text(st, in);
    db_bind_int(st, b->quorum);
    db_bind_int(st, x->now_ms);
    int rc = db_run(st);
    return rc != 0 ? rc : audit_partition(x, "partition_detected", id, out);
}

static int partition_move(struct fsm_ctx *x, const char *id, const struct partition_seen *b,
                          const char *out, const char *in)
{
    struct db_stmt *st = db_prepare(x->db, "UPDATE cluster_partitions SET members = ?,"
                                           " reachable = ?, has_quorum = ? WHERE id = ?");
    db_bind_text(st, out);
    db_bind_text(st, in);
    db_bind_int(st, b->quorum);
    db_bind_text(st, id);
    int rc = db_run(st);
    return rc != 0 ? rc : audit_partition(x, "partition_changed", id, out);
}

static int partition_close(struct fsm_ctx *x, const char *id, const char *members)
{
    const char *resolution;
    int rc = resolution_seen(x, members, &resolution);
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "UPDATE cluster_partitions SET status = 'resolved',"
               " resolved_at = ?, resolution = ?, resolved_by = ? WHERE id = ?");
    db_bind_int(st, x->now_ms);
    db_bind_text(st, resolution);
    db_bind_text(st, "system");
    db_bind_text(st, id);
    rc = db_run(st);
    return rc != 0 ? rc : audit_partition(x, "partition_resolved", id, members);
}

int fsm_partition_seen(struct fsm_ctx *x, const struct partition_seen *b)
{
    char out[JSON_LIST_MAX];
    char in[JSON_LIST_MAX];
    char id[UUID_TEXT_MAX] = "";
    char members[JSON_LIST_MAX] = "";
    int rc = ids_json(x, &b->out, out);
    if (rc == 0) {
        rc = ids_json(x, &b->in, in);
    }
    if (rc != 0) {
        return rc;
    }
    struct db_stmt *st = db_prepare(
        x->db, "SELECT id, members FROM cluster_partitions WHERE status = 'open' LIMIT 1");
    int open = db_step(st);
    if (open == 1) {
        (void)snprintf(id, sizeof id, "%s", db_col_text(st, "id"));
        (void)snprintf(members, sizeof members, "%s", db_col_text(st, "members"));
    }
    db_done(st);
    if (open < 0) {
        return open;
    }
    if (open == 0 && b->out.count > 0) {
        rc = partition_open(x, b, out, in);
    } else if (open == 1 && b->out.count == 0) {
        rc = partition_close(x, id, members);
    } else if (open == 1 && strcmp(members, out) != 0) {
        rc = partition_move(x, id, b, out, in);
    }
    struct mp_doc d;
    mp_doc_begin(&x->doc, &d);
    mp_doc_int(&x->doc, &d, "out", b->out.count);
    mp_doc_end(&x->doc, &d);
    return rc;
}
