/* The authority node: puts the Raft member (core), the replicated state (fsm), the durable log and
 * the fabric together, and turns the crank.
 *
 * One loop turn: callbacks (fabric, log writer, timers) -> prepare handle: deferred calls, core_flush
 * (one log entry for all that was proposed), then what follows from newly applied state (subscribers,
 * waiting hosts, the directory) -> the fabric writes what all this queued -> poll. */
#include "authority/authority_impl.h"

#include "authority/heal.h"
#include "authority/mirror.h"
#include "authority/raft_log.h"
#include "authority/recover.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/text.h"

#define HEARTBEAT_DEFAULT_MS 50
#define ELECTION_DEFAULT_MS 500
#define EXPIRE_EVERY_MS 60000

int64_t authority_now_ms(const struct authority *a)
{
    (void)a;
    return clock_wall_ms();
}

uint64_t authority_mono_ms(void)
{
    return clock_mono_ms();
}

/* --- what raft_io and core ask of the outside --- */

static uint64_t env_mono_ms(void *data)
{
    (void)data;
    return authority_mono_ms();
}

static uint64_t env_mono_us(void *data)
{
    (void)data;
    return clock_mono_ns() / 1000;
}

static int64_t env_wall_ms(void *data)
{
    (void)data;
    return clock_wall_ms();
}

static uint64_t env_random_u64(void *data)
{
    (void)data;
    return rng_u64();
}

static void env_random(void *data, void *out, size_t len)
{
    (void)data;
    rng_bytes(out, len);
}

static void env_fatal(void *data, const char *why)
{
    (void)data;
    fatal("%s" ERRMSG_RUNBOOK AUTHORITY_RUNBOOK, why);
}

static void on_spin(uv_idle_t *h)
{
    (void)h; /* exists to keep the loop from sleeping until the next flush */
}

static void env_want_flush(void *data)
{
    struct authority *a = data;
    a->flush_wanted = true;
    if (!uv_is_closing((uv_handle_t *)&a->spin)) {
        (void)uv_idle_start(&a->spin, on_spin);
    }
}

static void env_defer(void *data, void (*cb)(void *arg), void *arg)
{
    struct authority *a = data;
    struct deferred *d = xcalloc(1, sizeof *d);
    d->cb = cb;
    d->arg = arg;
    STAILQ_INSERT_TAIL(&a->deferred, d, link);
    env_want_flush(a);
}

static void env_other_epoch(void *data, raft_id from, uint64_t epoch)
{
    fence_other_epoch(data, from, epoch);
}

static void env_applied(void *data, uint64_t index)
{
    struct authority *a = data;
    (void)index;
    a->applied_dirty = true;
    env_want_flush(a);
}

static void env_role_changed(void *data)
{
    struct authority *a = data;
    struct core_status s;
    core_status_brief(a->core, &s);
    if (s.role == CORE_LEADER && a->leader_since_ms == 0) {
        a->leader_since_ms = authority_mono_ms();
        log_info(LOG_AUTHORITY, "leader", "term=%llu", (unsigned long long)s.term);
        health_became_leader(a);
        if (fsm_level(a->fsm) >= LEVEL_WITNESS && !fsm_authority_set(a->fsm)->known) {
            log_warn(LOG_AUTHORITY, "nodes believe one authority's signature", "%s",
                     "why=\"this cluster is older than authority sets\""
                     " next=\"rap authority anchor, with the owner's key\"");
        }
    } else if (s.role != CORE_LEADER && a->leader_since_ms != 0) {
        a->leader_since_ms = 0;
        a->change_busy = false;
        log_info(LOG_AUTHORITY, "no longer leader", "term=%llu", (unsigned long long)s.term);
        health_fini(a);
    }
}

/* --- following applied state --- */

static void load_root(struct authority *a)
{
    struct db_stmt *st = db_prepare(state_db(a), "SELECT certificate FROM cluster_trust_roots"
                                                 " WHERE status = 'active' LIMIT 1");
    if (db_step(st) == 1) {
        struct blob der = db_col_blob(st, "certificate");
        struct pki_cert root;
        buf_clear(&a->root_der);
        buf_add(&a->root_der, der.data, der.len);
        if (pki_cert_parse(der, &root, NULL) == 0) {
            memcpy(a->root_fingerprint, root.fingerprint, sizeof a->root_fingerprint);
        }
    }
    db_done(st);
}

static void follow_state(struct authority *a)
{
    struct fsm_position pos;
    fsm_position(a->fsm, &pos);
    bool everybody = pos.config_index != a->config_seen;
    if (everybody) {
        a->config_seen = pos.config_index;
        a->push_wanted = true;
        load_root(a);
        op_load_addresses(a);
        raft_net_refresh(a);
    }
    a->self_changed = a->self_changed || everybody;
    witness_applied(a);
    if (everybody) {
        trust_follow(a);
    }
    push_changed(a);
    if (a->self_changed && a->cfg.config_changed != NULL && push_is_ready(a, &a->cfg.node_id)) {
        a->self_changed = false;
        a->self_told_ms = authority_now_ms(a);
        a->cfg.config_changed(a->cfg.data);
    }
    if (a->joins_dirty) {
        a->joins_dirty = false;
        enroll_applied(a);
    }
}

/* Row changes of the entry being applied: only what saves a look at all who wait. */
static void on_touch(void *data, char op, const char *table)
{
    struct authority *a = data;
    if (op == 'U' && strcmp(table, "node_join_requests") == 0) {
        a->joins_dirty = true;
    }
}

static void run_deferred(struct authority *a)
{
    /* Only those queued before this turn: one that queues another waits for the next. */
    struct deferred_list now = STAILQ_HEAD_INITIALIZER(now);
    STAILQ_CONCAT(&now, &a->deferred);
    while (!STAILQ_EMPTY(&now)) {
        struct deferred *d = STAILQ_FIRST(&now);
        STAILQ_REMOVE_HEAD(&now, link);
        d->cb(d->arg);
        free(d);
    }
}

static void on_prepare(uv_prepare_t *h)
{
    struct authority *a = h->data;
    if (!a->flush_wanted) {
        return;
    }
    a->flush_wanted = false;
    run_deferred(a);
    if (!a->closing) {
        core_flush(a->core);
        if (a->applied_dirty) {
            a->applied_dirty = false;
            follow_state(a);
            mirror_applied(a->mirror);
        }
    }
    if (!a->flush_wanted && !uv_is_closing((uv_handle_t *)&a->spin)) {
        (void)uv_idle_stop(&a->spin);
    }
}

static void ignore_answer(void *data, int rc, struct blob doc)
{
    (void)data;
    (void)rc;
    (void)doc;
}

/* Abandoned joins; and once an hour a small entry, so that snapshots of an idle cluster can be
 * refreshed with a version of their own. */
static void expire_joins(struct authority *a)
{
    int64_t now_ms = authority_now_ms(a);
    if (now_ms - a->last_expire_ms < EXPIRE_EVERY_MS) {
        return;
    }
    struct db_stmt *st = db_prepare(state_db(a), "SELECT count(*) AS n FROM node_join_requests"
                                                 " WHERE status = 'pending' AND expires_at <= ?");
    db_bind_int(st, now_ms);
    bool due = db_step(st) == 1 && db_col_int(st, "n") > 0;
    db_done(st);
    if (due || now_ms - a->last_expire_ms >= 60 * (int64_t)EXPIRE_EVERY_MS) {
        a->last_expire_ms = now_ms;
        call_internal(a, "join.expire", blob_of(NULL, 0), NULL, ACTOR_SYSTEM, "", ignore_answer,
                      NULL);
    }
}

static void close_now(void *arg);

/* It is told who leads here and not when the role changes, for a recovery changes the epoch alone. */
static void on_tick(uv_timer_t *t)
{
    struct authority *a = t->data;
    core_tick(a->core);
    call_tick(a);
    authority_mirror_tick(a);
    uint64_t now = authority_mono_ms();
    if (a->leaving && now >= a->leave_by_ms) {
        close_now(a);
        return;
    }
    if (now - a->last_reconcile_ms < RECONCILE_MS) {
        return;
    }
    a->last_reconcile_ms = now;
    raft_net_members(a);
    members_reconcile(a);
    partitions_tick(a);
    backup_tick(a, now);
    witness_tick(a);
    push_tick(a);
    enroll_tick(a);
    refused_tick(a);
    health_tick(a);
    if (a->leader_since_ms != 0) {
        expire_joins(a);
        expiry_tick(a);
    }
    fence_tick(a, now); /* last: it may end this authority */
}

void authority_set_leaf(struct authority *a, struct blob leaf, struct blob issuer)
{
    buf_clear(&a->leaf_der);
    buf_add(&a->leaf_der, leaf.data, leaf.len);
    buf_clear(&a->leaf_issuer_der);
    buf_add(&a->leaf_issuer_der, issuer.data, issuer.len);
}

static void recorded(void *data, int rc, struct blob doc)
{
    (void)data;
    (void)doc;
    if (rc != 0 && rc != -ERR_CANCELED) {
        log_warn(LOG_AUTHORITY, "renewed certificate not recorded", "error=%s", err_slug(rc));
    }
}

void authority_leaf_renewed(struct authority *a, struct blob leaf, struct blob issuer)
{
    struct pki_cert info;
    authority_set_leaf(a, leaf, issuer);
    if (pki_cert_parse(leaf, &info, NULL) != 0) {
        return;
    }
    struct cmd_cert cert = {
        .der = leaf,
        .serial = blob_of(info.serial, PKI_SERIAL_BYTES),
        .not_before_ms = info.not_before_ms,
        .not_after_ms = info.not_after_ms,
        .public_key = blob_of(info.public_key, PKI_KEY_BYTES),
        .fingerprint = blob_of(info.fingerprint, PKI_HASH_BYTES),
        .issuer_der = issuer,
    };
    char actor[UUID_TEXT_MAX];
    struct buf bytes;
    struct buf args;
    buf_init(&bytes, CMD_CERT_MAX);
    buf_init(&args, CMD_BODY_MAX);
    uuid_format(&a->cfg.node_id, actor);
    msg_encode(&cmd_cert_desc, &cert, &bytes);
    struct cert_renew body = {.node_id = a->cfg.node_id, .cert = buf_blob(&bytes)};
    msg_encode(&cert_renew_desc, &body, &args);
    call_internal(a, "authority.renewed", buf_blob(&args), NULL, ACTOR_NODE, actor, recorded, NULL);
    buf_fini(&bytes);
    buf_fini(&args);
}

/* --- opening and closing --- */

static int load_issuer(struct authority *a, struct pki_key **ret_key, struct buf *ret_der,
                       struct errmsg *em)
{
    char *key_path = path_join(a->dir, "issuer.key");
    char *crt_path = path_join(a->dir, "issuer.crt");
    struct buf pem;
    size_t count = 0;
    buf_init(&pem, 4 * CERT_DER_MAX);
    int rc = pki_key_load(key_path, NULL, ret_key, em);
    if (rc == 0) {
        rc = file_read(crt_path, &pem, em);
    }
    if (rc == 0) {
        rc = pki_pem_read(buf_blob(&pem), ret_der, 1, &count, em);
    }
    buf_fini(&pem);
    free(key_path);
    free(crt_path);
    return rc;
}

int authority_issuer_installed(struct authority *a, struct blob leaf, struct blob issuer,
                               struct errmsg *em)
{
    struct pki_key *key = NULL;
    struct buf der;
    buf_init(&der, CERT_DER_MAX);
    int rc = load_issuer(a, &key, &der, em);
    if (rc != 0) {
        buf_fini(&der);
        return rc;
    }
    pki_key_free(a->issuer_key);
    buf_fini(&a->issuer_der);
    a->issuer_key = key;
    a->issuer_der = der;
    authority_leaf_renewed(a, leaf, issuer);
    return 0;
}

void authority_free(struct authority *a)
{
    if (a == NULL) {
        return;
    }
    raft_io_fini(&a->io);
    core_free(a->core);
    mirror_free(a->mirror);
    fsm_free(a->fsm);
    pki_key_free(a->issuer_key);
    buf_fini(&a->issuer_der);
    buf_fini(&a->leaf_der);
    buf_fini(&a->leaf_issuer_der);
    buf_fini(&a->root_der);
    buf_fini(&a->voter_addresses);
    health_fini(a);
    fence_fini(a);
    buf_fini(&a->backup.file);
    witness_fini(a);
    free(a->dir);
    free(a);
}

int authority_open(const struct authority_config *config, struct authority **ret, struct errmsg *em)
{
    struct authority *a = xcalloc(1, sizeof *a);
    a->cfg = *config;
    a->cfg.heartbeat_ms = config->heartbeat_ms == 0 ? HEARTBEAT_DEFAULT_MS : config->heartbeat_ms;
    a->cfg.election_ms = config->election_ms == 0 ? ELECTION_DEFAULT_MS : config->election_ms;
    a->dir = xstrdup(config->dir);
    buf_init(&a->issuer_der, CERT_DER_MAX);
    buf_init(&a->leaf_der, CERT_DER_MAX);
    buf_init(&a->leaf_issuer_der, CERT_DER_MAX);
    buf_init(&a->root_der, CERT_DER_MAX);
    buf_init(&a->voter_addresses, AUTHORITIES_MAX * (ADDRESS_MAX_BYTES + 1));
    a->last_expire_ms = clock_wall_ms();
    STAILQ_INIT(&a->deferred);
    fence_init(a);
    witness_init(a);
    raft_net_fabric_init(&a->net, a);
    a->io_env = (struct raft_io_env){.data = a,
                                     .mono_ms = env_mono_ms,
                                     .random = env_random_u64,
                                     .fatal = env_fatal,
                                     .defer = env_defer,
                                     .other_epoch = env_other_epoch};
    a->core_env = (struct core_env){.data = a,
                                    .wall_ms = env_wall_ms,
                                    .mono_ms = env_mono_ms,
                                    .mono_us = env_mono_us,
                                    .random = env_random,
                                    .want_flush = env_want_flush,
                                    .role_changed = env_role_changed,
                                    .applied = env_applied,
                                    .fatal = env_fatal};
    char *log_path = path_join(a->dir, "raft.db");
    int rc = load_issuer(a, &a->issuer_key, &a->issuer_der, em);
    if (rc == 0) {
        rc = heal_prepare(a->dir, a->cfg.trust, &a->cfg.cluster_id, em);
    }
    if (rc == 0) {
        rc = recovery_finish_pending(a->dir, &a->cfg.node_id, em);
    }
    if (rc == 0) {
        rc = fence_prepare(a, config->statement, em);
        a->cfg.statement = blob_of(NULL, 0); /* a view for this call */
    }
    if (rc == 0) {
        rc = fsm_new(&a->fsm, em);
    }
    if (rc == 0) {
        fsm_on_touch(a->fsm, on_touch, a);
        authority_mirror_open(a);
        rc = raft_log_open(config->loop, log_path, &a->store, em);
        *config->log_damaged = rc == -ERR_CORRUPT;
    }
    free(log_path);
    if (rc != 0) {
        authority_free(a);
        (void)errmsg_wrap(em, rc, "authority");
        return *config->log_damaged ? rc : errmsg_runbook(em, rc, AUTHORITY_RUNBOOK);
    }
    /* From here on only authority_close ends it: handles and the writer thread are live. */
    CHECK(uv_timer_init(config->loop, &a->tick) == 0);
    CHECK(uv_prepare_init(config->loop, &a->flush) == 0);
    CHECK(uv_idle_init(config->loop, &a->spin) == 0);
    a->tick.data = a->flush.data = a->spin.data = a;
    a->open_handles = 3;
    rc = raft_io_init(&a->io, a->store, &a->net.base, &a->io_env);
    if (rc == 0) {
        rc = core_new(&(struct core_config){.id = core_raft_id(&config->node_id),
                                            .node_id = config->node_id,
                                            .io = &a->io,
                                            .fsm = a->fsm,
                                            .env = &a->core_env,
                                            .heartbeat_ms = a->cfg.heartbeat_ms,
                                            .election_ms = a->cfg.election_ms},
                      &a->core, em);
    }
    if (rc == 0) {
        rc = core_start(a->core, em);
    }
    if (rc == 0) {
        rc = fence_resume(a, em);
    }
    if (rc != 0) {
        /* A log that does not load or a state that does not apply needs a person (DESIGN D13). */
        struct errmsg none = ERRMSG_INIT;
        struct errmsg *why = em == NULL ? &none : em;
        (void)errmsg_runbook(why, rc, AUTHORITY_RUNBOOK);
        fatal("authority: %s: %s", err_text(rc), why->text);
    }
    raft_net_serve(a);
    fence_serve(a);
    call_serve(a);
    health_serve(a);
    push_serve(a);
    witness_serve(a);
    forgery_serve(a);
    enroll_serve(a);
    CHECK(uv_prepare_start(&a->flush, on_prepare) == 0);
    CHECK(uv_timer_start(&a->tick, on_tick, a->cfg.heartbeat_ms, a->cfg.heartbeat_ms) == 0);
    a->applied_dirty = true;
    env_want_flush(a);
    *ret = a;
    return 0;
}

static void done(struct authority *a)
{
    if (--a->open_handles > 0) {
        return;
    }
    if (a->close_cb != NULL) {
        a->close_cb(a->close_data);
    }
}

void authority_hold(struct authority *a)
{
    a->open_handles++;
}

void authority_release(struct authority *a)
{
    done(a);
}

static void on_handle_closed(uv_handle_t *h)
{
    done(h->data);
}

static void on_store_closed(void *data)
{
    struct authority *a = data;
    run_deferred(a); /* calls that were answered before they began */
    raft_net_fabric_fini(&a->net);
    uv_close((uv_handle_t *)&a->tick, on_handle_closed);
    uv_close((uv_handle_t *)&a->flush, on_handle_closed);
    uv_close((uv_handle_t *)&a->spin, on_handle_closed);
}

static void on_core_closed(void *data)
{
    struct authority *a = data;
    a->store->ops->close(a->store, on_store_closed, a);
}

static void on_mirror_closed(void *data)
{
    struct authority *a = data;
    core_close(a->core, on_core_closed, a);
}

static void close_now(void *arg)
{
    struct authority *a = arg;
    if (a->closing) {
        return;
    }
    (void)uv_timer_stop(&a->tick);
    call_cancel_all(a);
    push_close(a);
    witness_close(a);
    enroll_close(a);
    a->closing = true;
    authority_mirror_stop(a);
    mirror_close(a->mirror, on_mirror_closed, a);
}

static void on_handed_over(void *data, int rc)
{
    struct authority *a = data;
    log_info(LOG_AUTHORITY, "handed leadership over", "error=%s", rc == 0 ? "none" : err_slug(rc));
    if (!a->closing) {
        a->io_env.defer(a->io_env.data, close_now, a);
    }
}

/* The others would notice a leader that is gone an election timeout later: it asks one of them to take
 * over, which takes some messages. libraft says nothing when leadership is lost in another way
 * meanwhile: on_tick waits no longer than an election timeout. */
void authority_close(struct authority *a, void (*cb)(void *data), void *data)
{
    CHECK(!a->closing && !a->leaving);
    a->leaving = true;
    a->leave_by_ms = authority_mono_ms() + a->cfg.election_ms;
    a->close_cb = cb;
    a->close_data = data;
    struct core_status s;
    core_status_brief(a->core, &s);
    if (!s.quorum || core_transfer(a->core, 0, on_handed_over, a) != 0) {
        close_now(a);
    }
}
