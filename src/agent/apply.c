/* Putting a snapshot in force, once it is verified (agent/config.h): store it, ban and retire what it
 * says, tell the fabric where authorities and peers are. */
#include "agent/agent_impl.h"

#include "base/clock.h"
#include "base/rng.h"

static void ban_revoked(struct agent *a, const struct config *cfg)
{
    struct config_iter it;
    const uint8_t *fingerprint;
    config_iter_init(&it, cfg->body.revocations);
    while (config_next_fingerprint(&it, &fingerprint) == 1) {
        pki_trust_ban(a->cfg.trust, fingerprint);
    }
    config_iter_init(&it, cfg->body.retired_issuers);
    while (config_next_fingerprint(&it, &fingerprint) == 1) {
        pki_trust_retire(a->cfg.trust, fingerprint);
    }
    /* An authority goes on telling a disabled member what it is; nobody else speaks with it. */
    bool tells = config_lists_authority(cfg, &a->member->node_id);
    config_iter_init(&it, cfg->body.disabled_keys);
    while (config_next_fingerprint(&it, &fingerprint) == 1) {
        if (tells) {
            pki_trust_suspend(a->cfg.trust, fingerprint);
        } else if (memcmp(fingerprint, a->leaf.fingerprint, PKI_HASH_BYTES) != 0) {
            pki_trust_ban(a->cfg.trust, fingerprint);
        }
    }
}

static void set_authorities(struct agent *a)
{
    struct uuid ids[AUTHORITIES_MAX];
    size_t n = 0;
    struct config_iter it;
    struct snapshot_authority authority;
    config_iter_init(&it, a->snapshot->body.authorities);
    while (n < AUTHORITIES_MAX && config_next_authority(&it, &authority) == 1) {
        if (!uuid_equal(&authority.node_id, &a->member->node_id)) {
            ids[n++] = authority.node_id;
        }
    }
    struct uplink_todo todo;
    uplink_set_authorities(&a->uplink, ids, n, agent_mono_ms(), rng_u64(), &todo);
    agent_run_todo(a, &todo);
}

/* Takes cfg over. */
static void put_in_force(struct agent *a, struct config *cfg)
{
    struct config *old = a->snapshot;
    a->snapshot = cfg;
    a->held_epoch = cfg->body.epoch;
    a->held_version = cfg->body.config_version;
    a->set = cfg->set;
    if (cfg->witnessed) {
        a->audit_seq = cfg->witness.statement.audit_seq;
        memcpy(a->history, cfg->witness.statement.history.data, sizeof a->history);
    }
    pki_trust_clear_bans(a->cfg.trust);
    ban_revoked(a, cfg);
    peers_follow(a, cfg);
    (void)fabric_recheck(a->fabric);
    directory_apply(a, old);
    set_authorities(a);
    config_free(old);
    renew_if_outdated(a);
    if (config_revokes(cfg, a->leaf.fingerprint)) {
        agent_bar(a, "the signed configuration revokes our key");
        agent_uplink_event(a, UPLINK_EV_BARRED, 0, 0);
    }
    if (config_is_disabled(cfg) != a->disabled) {
        a->disabled = config_is_disabled(cfg);
        if (a->disabled) {
            log_warn(LOG_AGENT, "membership disabled",
                     "next=\"doing nothing until an administrator enables this node\"%s", "");
        } else {
            log_info(LOG_AGENT, "membership enabled", "%s", "");
        }
    }
    agent_wake(a);
}

void agent_expect(const struct agent *a, struct config_expect *ret)
{
    *ret = (struct config_expect){
        .trust = a->cfg.trust,
        .cluster_id = a->member->cluster_id,
        .node_id = a->member->node_id,
        .epoch = a->held_epoch,
        .version = a->held_version,
        .now_ms = clock_wall_ms(),
        .set = &a->set,
        .audit_seq = a->audit_seq,
    };
    memcpy(ret->fingerprint, a->leaf.fingerprint, sizeof ret->fingerprint);
    memcpy(ret->history, a->history, sizeof ret->history);
}

int apply_snapshot(struct agent *a, struct blob signed_snapshot, struct errmsg *em)
{
    struct config *cfg;
    struct config_expect expect;
    agent_expect(a, &expect);
    expect.held = a->snapshot;
    expect.again = a->snapshot == NULL; /* the stored one was damaged: the same is welcome */
    int rc = trust_adopt(a, signed_snapshot, em);
    if (rc == 0) {
        rc = config_verify(signed_snapshot, &expect, &cfg, em);
    }
    if (rc != 0) {
        return rc;
    }
    rc = member_save_witnessed(a->member, signed_snapshot, cfg->body.epoch,
                               cfg->body.config_version, cfg->set_statement, expect.now_ms, em);
    if (rc != 0) {
        /* A full disk must not keep a revoked node's sessions alive (S9). */
        ban_revoked(a, cfg);
        (void)fabric_recheck(a->fabric);
        config_free(cfg);
        return errmsg_wrap(em, -ERR_IO, "snapshot not stored");
    }
    log_info(LOG_AGENT, "configuration in force", "epoch=%llu version=%llu",
             (unsigned long long)cfg->body.epoch, (unsigned long long)cfg->body.config_version);
    put_in_force(a, cfg);
    if (a->cfg.config_changed != NULL) {
        a->cfg.config_changed(a->cfg.data, a->snapshot);
    }
    return 0;
}

int agent_load_set(struct member *m, struct witness_set *ret, struct errmsg *em)
{
    struct buf statement;
    buf_init(&statement, AUTHORITY_SET_MAX);
    int rc = member_get(m, MEMBER_AUTHORITY_SET, &statement);
    if (rc == 0) {
        rc = witness_set_read(buf_blob(&statement), ret, em);
        rc = rc == 0 ? 0 : errmsg_wrap(em, -ERR_CORRUPT, "node.db");
    } else if (rc == -ERR_NOT_FOUND) {
        rc = 0;
    } else {
        rc = errmsg_set(em, rc, "node.db: %s", err_text(rc));
    }
    buf_fini(&statement);
    return rc;
}

int apply_stored(struct agent *a, struct errmsg *em)
{
    struct buf bytes;
    int rc = agent_load_set(a->member, &a->set, em);
    if (rc != 0) {
        return rc;
    }
    buf_init(&bytes, CONFIG_SIGNED_MAX);
    rc = member_load_snapshot(a->member, &bytes, &a->held_epoch, &a->held_version);
    if (rc == -ERR_NOT_FOUND) {
        log_info(LOG_AGENT, "no stored configuration", "%s", "");
        buf_fini(&bytes);
        return 0;
    }
    if (rc != 0) {
        buf_fini(&bytes);
        return errmsg_set(em, rc, "stored snapshot: %s", err_text(rc));
    }
    struct errmsg why = ERRMSG_INIT;
    struct config *cfg;
    struct config_expect expect;
    agent_expect(a, &expect);
    expect.again = true;
    expect.allow_expired = true;
    rc = trust_adopt(a, buf_blob(&bytes), &why);
    if (rc == 0) {
        rc = config_verify(buf_blob(&bytes), &expect, &cfg, &why);
    }
    if (rc == 0) {
        put_in_force(a, cfg);
    } else {
        log_error(LOG_AGENT, "stored configuration not usable",
                  "error=%s why=\"%s\" next=\"waiting for one from an authority\"", err_slug(rc),
                  why.text);
    }
    buf_fini(&bytes);
    return 0;
}
