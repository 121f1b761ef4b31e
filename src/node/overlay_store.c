/* The peer cache in node.db: a start without an authority finds the peers that were good before. */
#include "node/overlay_impl.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/log.h"

void overlay_store_load(struct overlay *o)
{
    struct mesh_peer_fact facts[OVERLAY_FACTS_MAX];
    struct mesh_event ev = {.kind = MESH_FACTS, .facts = facts};
    struct db_stmt *st = db_prepare(o->cfg.member->db,
                                    "SELECT node_id, latency_us, loss_permille, tries, failed"
                                    " FROM peer_facts ORDER BY node_id LIMIT ?");
    db_bind_int(st, OVERLAY_FACTS_MAX);
    int rc;
    while ((rc = db_step(st)) == 1) {
        struct mesh_peer_fact f = {
            .latency_us = (uint32_t)db_col_int(st, "latency_us"),
            .loss_permille = (uint32_t)db_col_int(st, "loss_permille"),
            .tries = (uint32_t)db_col_int(st, "tries"),
            .failed = (uint32_t)db_col_int(st, "failed"),
        };
        if (uuid_parse(db_col_text(st, "node_id"), &f.id) == 0) {
            facts[ev.fact_count++] = f;
        }
    }
    db_done(st);
    if (rc < 0) {
        log_warn(LOG_FABRIC, "peer cache not readable", "error=%s next=\"peers are measured anew\"",
                 err_slug(rc));
    }
    overlay_step(o, &ev);
}

static int insert(struct db *db, const struct mesh_peer *p, int64_t now_ms)
{
    char id[UUID_TEXT_MAX];
    uuid_format(&p->entry.id, id);
    struct db_stmt *st = db_prepare(db, "INSERT INTO peer_facts (node_id, latency_us,"
                                        " loss_permille, tries, failed, saved_at)"
                                        " VALUES (?, ?, ?, ?, ?, ?)");
    db_bind_text(st, id);
    db_bind_int(st, p->latency_us);
    db_bind_int(st, p->loss_permille);
    db_bind_int(st, p->tries);
    db_bind_int(st, p->failed);
    db_bind_int(st, now_ms);
    return db_run(st);
}

void overlay_store_save(struct overlay *o)
{
    struct db *db = o->cfg.member->db;
    const struct mesh_peers *p = mesh_peers(o->mesh);
    size_t saved = 0;
    int rc = db_begin(db);
    if (rc == 0) {
        rc = db_run(db_prepare(db, "DELETE FROM peer_facts"));
    }
    for (size_t i = 0; rc == 0 && i < p->count && saved < OVERLAY_FACTS_MAX; i++) {
        if (p->peer[i].measured_ms != 0 || p->peer[i].cached) {
            rc = insert(db, &p->peer[i], clock_wall_ms());
            saved++;
        }
    }
    if (rc == 0) {
        rc = db_commit(db);
    } else {
        db_rollback(db);
    }
    if (rc != 0) {
        static struct log_limit limit;
        if (log_allow(&limit, 1)) {
            log_warn(LOG_FABRIC, "peer cache not saved",
                     "error=%s next=\"tried again in a minute\"", err_slug(rc));
        }
    }
}
