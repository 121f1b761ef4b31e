/* Splits (docs/decisions/0022):
 *
 *     split_begin --> open --split_finish--> finished   memberships disabled, the seed's last
 *                       \--split_cancel--> cancelled
 *
 * The owner signs each; every replica checks that, and what the new cluster's owner signed. */
#include "authority/fsm_impl.h"

#include "authority/split.h"
#include "pki/statement.h"

/* What follows was decided by whoever has the root key, whoever typed it. */
static void by_owner(struct fsm_ctx *x)
{
    x->actor_kind = blob_str(ACTOR_OWNER);
}

static int not_the_owner(struct fsm_ctx *x)
{
    return fsm_refuse(x, -ERR_DENIED,
                      "only the platform owner splits a cluster: this is not signed with its root "
                      "key");
}

static int insert_split(struct fsm_ctx *x, const struct split_terms *t, const char *id)
{
    char new_id[UUID_TEXT_MAX];
    char seed[UUID_TEXT_MAX];
    char pin[HEX32];
    struct db_stmt *st = db_prepare(
        x->db, "INSERT INTO cluster_splits (id, cluster_id, name, new_cluster_id, root_pin,"
               " seed_node_id, status, begun_at) VALUES (?, ?, ?, ?, ?, ?, 'open', ?)");
    db_bind_text(st, id);
    db_bind_text(st, x->cluster_id);
    db_bind_textn(st, (const char *)t->name.data, t->name.len);
    db_bind_text(st, fsm_id(&t->new_cluster_id, new_id));
    db_bind_text(st, fsm_hex(t->root_pin, pin));
    db_bind_text(st, fsm_id(&t->seed_id, seed));
    db_bind_int(st, x->now_ms);
    int rc = db_run(st);
    struct mp_reader r;
    mp_reader_init(&r, t->nodes.raw);
    for (uint32_t i = 0; rc == 0 && i < t->nodes.count; i++) {
        char node[UUID_TEXT_MAX];
        struct uuid u = mp_get_uuid(&r);
        st = db_prepare(x->db, "INSERT INTO cluster_split_nodes (split_id, node_id, cluster_id)"
                               " VALUES (?, ?, ?)");
        db_bind_text(st, id);
        db_bind_text(st, fsm_id(&u, node));
        db_bind_text(st, x->cluster_id);
        rc = db_run(st);
    }
    return rc;
}

static int audit_begin(struct fsm_ctx *x, const struct split_terms *t, const char *id)
{
    char new_id[UUID_TEXT_MAX];
    char seed[UUID_TEXT_MAX];
    char pin[HEX32];
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_str(&j, "name", t->name);
    fsm_json_text(&j, "new_cluster_id", fsm_id(&t->new_cluster_id, new_id));
    fsm_json_text(&j, "root_pin", fsm_hex(t->root_pin, pin));
    fsm_json_text(&j, "seed", fsm_id(&t->seed_id, seed));
    fsm_json_int(&j, "nodes", t->nodes.count);
    const struct fsm_audit a = {.event = "split_begun", .subject_type = "split", .subject_id = id};
    int rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc;
}

int fsm_split_begin(struct fsm_ctx *x, const struct split_begin *b)
{
    uint8_t key[PKI_KEY_BYTES];
    char id[UUID_TEXT_MAX];
    struct split_terms t;
    struct errmsg em = ERRMSG_INIT;
    int refused = 0;
    int rc = fsm_root_key(x, key);
    if (rc != 0) {
        return rc;
    }
    rc = split_terms_verify(b->terms, b->signature, key, &t);
    if (rc != 0) {
        return rc == -ERR_DENIED
                   ? not_the_owner(x)
                   : fsm_refuse(x, rc, "the terms of the split are not acceptable: %s",
                                err_text(rc));
    }
    rc = split_begin_refusal(x->db, x->cluster_id, &t, &refused, &em);
    if (rc != 0 || refused != 0) {
        return rc != 0 ? rc : fsm_refuse(x, refused, "%s", em.text);
    }
    by_owner(x);
    (void)fsm_id(&t.split_id, id);
    rc = insert_split(x, &t, id);
    rc = rc != 0 ? rc : audit_begin(x, &t, id);
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_SPLIT " WHERE s.id = ?", id);
}

/* --- the end --- */

/* The open split, which the owner ends this way. Refused when it is not there, not open, or another
 * signed. */
static int get_open(struct fsm_ctx *x, const struct split_end *end, struct blob signature,
                    struct split *ret)
{
    uint8_t key[PKI_KEY_BYTES];
    struct split_end e = *end;
    CHECK(uuid_parse(x->cluster_id, &e.cluster_id) == 0);
    int rc = fsm_root_key(x, key);
    if (rc == 0 && split_end_verify(&e, signature, key) != 0) {
        rc = not_the_owner(x);
    }
    if (rc != 0) {
        return rc;
    }
    by_owner(x);
    rc = split_get(x->db, &e.split_id, ret);
    if (rc == 0) {
        return fsm_refuse(x, -ERR_NOT_FOUND, "there is no such split: see `rap split list`");
    }
    if (rc == 1 && strcmp(ret->status, "open") != 0) {
        return fsm_refuse(x, -ERR_DECIDED, "split %s is %s already", ret->name, ret->status);
    }
    return rc < 0 ? rc : 0;
}

static int check_ready(struct fsm_ctx *x, const struct split *s, struct blob report)
{
    struct split_gaps gaps;
    struct errmsg em = ERRMSG_INIT;
    split_gaps_init(&gaps);
    int rc = split_gaps_find(x->db, s, report, x->now_ms, &gaps, &em);
    if (rc != 0 && em.text[0] != '\0') {
        rc = fsm_refuse(x, rc, "%s", em.text);
    } else if (rc == 0 && gaps.count > 0) {
        rc = fsm_refuse(x, -ERR_SPLIT_NOT_READY, "%u gaps: %s", gaps.count, gaps.brief);
    }
    split_gaps_fini(&gaps);
    return rc;
}

static int nodes_leave(struct fsm_ctx *x, const struct split *s, uint32_t *ret_count)
{
    char reason[REASON_MAX_BYTES];
    struct fsm_node n;
    struct uuid id;
    int rc;
    (void)snprintf(reason, sizeof reason, "moved to cluster %s (%s)", s->name, s->new_cluster_id);
    *ret_count = 0;
    while ((rc = split_next_to_leave(x->db, s, &id)) == 1) {
        rc = fsm_node_get(x, &id, &n);
        rc = rc != 0 ? rc : fsm_membership_write(x, &n, true, blob_str(reason));
        if (rc != 0) {
            return rc;
        }
        (*ret_count)++;
    }
    return rc;
}

static int close_split(struct fsm_ctx *x, const struct split *s, const char *status,
                       struct blob reason, struct blob report)
{
    struct db_stmt *st = db_prepare(x->db, "UPDATE cluster_splits SET status = ?, ended_at = ?,"
                                           " reason = ?, report = ? WHERE id = ?");
    db_bind_text(st, status);
    db_bind_int(st, x->now_ms);
    db_bind_opt(st, reason);
    if (report.len == 0) {
        db_bind_null(st);
    } else {
        db_bind_blob(st, report);
    }
    db_bind_text(st, s->id);
    return db_run(st);
}

int fsm_split_finish(struct fsm_ctx *x, const struct split_finish *b)
{
    uint8_t hash[PKI_HASH_BYTES];
    struct split s;
    uint32_t left = 0;
    pki_sha256(b->report, hash);
    const struct split_end end = {.split_id = b->split_id,
                                  .outcome = SPLIT_FINISHED,
                                  .report_hash = blob_of(hash, sizeof hash)};
    int rc = get_open(x, &end, b->signature, &s);
    rc = rc != 0 ? rc : check_ready(x, &s, b->report);
    /* Closed first: the seed of an open split does not leave. */
    rc = rc != 0 ? rc : close_split(x, &s, "finished", blob_of(NULL, 0), b->report);
    rc = rc != 0 ? rc : nodes_leave(x, &s, &left);
    if (rc != 0) {
        return rc;
    }
    char report[HEX32];
    struct fsm_json j;
    fsm_json_begin(&j);
    fsm_json_text(&j, "name", s.name);
    fsm_json_text(&j, "new_cluster_id", s.new_cluster_id);
    fsm_json_int(&j, "nodes_left", left);
    fsm_json_text(&j, "report_sha256", fsm_hex(end.report_hash, report));
    const struct fsm_audit a = {
        .event = "split_finished", .subject_type = "split", .subject_id = s.id};
    rc = fsm_audit_add(x, &a, fsm_json_end(&j));
    fsm_json_fini(&j);
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_SPLIT " WHERE s.id = ?", s.id);
}

int fsm_split_cancel(struct fsm_ctx *x, const struct split_cancel *b)
{
    struct split s;
    const struct split_end end = {.split_id = b->split_id, .outcome = SPLIT_CANCELLED};
    int rc = get_open(x, &end, b->signature, &s);
    rc = rc != 0 ? rc : close_split(x, &s, "cancelled", b->reason, blob_of(NULL, 0));
    rc = rc != 0 ? rc : fsm_audit_simple(x, "split_cancelled", "split", s.id, "reason", b->reason);
    return rc != 0 ? rc : fsm_doc_put(x, FSM_SQL_SPLIT " WHERE s.id = ?", s.id);
}

/* --- what an open split holds back --- */

int fsm_split_holds(struct fsm_ctx *x, const struct fsm_node *n, bool force)
{
    struct split s;
    if (force || x->v->level < LEVEL_SPLITS) {
        return 0;
    }
    int rc = split_of_seed(x->db, n->id, &s);
    if (rc <= 0) {
        return rc;
    }
    return fsm_refuse(x, -ERR_SPLIT_NOT_READY,
                      "node %s is the seed of the open split %s: `rap split finish %s --report F` "
                      "lists what is missing there, `rap split cancel %s` gives it up; --force "
                      "does not wait",
                      n->name, s.name, s.name, s.name);
}
