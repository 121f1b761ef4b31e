/* Commands about PostgreSQL, and which others wait for it. */
#include "authority/mirror.h"
#include "authority/ops_impl.h"
#include "authority/pg_link.h"

static void put(struct prepare *p, enum cmd_kind kind, const void *body)
{
    p->out->kind = kind;
    msg_encode(cmd_body_desc(kind), body, &p->out->body);
}

int prepare_mirror_enable(struct prepare *p)
{
    char given[MIRROR_DSN_MAX + 1];
    char mode[16];
    struct buf dsn;
    mp_find_str(p->in->args, "dsn", given, sizeof given);
    mp_find_str(p->in->args, "mode", mode, sizeof mode);
    if (strlen(given) == MIRROR_DSN_MAX) {
        return errmsg_set(p->em, -ERR_TOO_LARGE, "a connection string has less than %d bytes",
                          MIRROR_DSN_MAX);
    }
    int64_t lag_ms = mp_find_int(p->in->args, "max_lag_ms");
    struct mirror_set body = {
        .mode = blob_str(mode[0] == '\0' ? "async" : mode),
        .max_lag_ms = lag_ms == 0 ? MIRROR_LAG_MS_DEFAULT : (uint64_t)lag_ms,
    };
    if (strcmp((const char *)body.mode.data, "async") != 0 &&
        strcmp((const char *)body.mode.data, "required") != 0) {
        return errmsg_set(p->em, -ERR_INVALID, "--mode is async or required");
    }
    if (body.max_lag_ms < MIRROR_LAG_MS_MIN || body.max_lag_ms > MIRROR_LAG_MS_MAX) {
        return errmsg_set(p->em, -ERR_INVALID, "--max-lag is between 1s and 1h");
    }
    buf_init(&dsn, 2 * MIRROR_DSN_MAX);
    int rc = pg_dsn_check(given, mp_find_int(p->in->args, "allow_insecure") != 0, &dsn, p->em);
    if (rc == 0) {
        body.dsn = buf_blob(&dsn);
        put(p, CMD_MIRROR_SET, &body);
    }
    buf_fini(&dsn);
    return rc;
}

int prepare_mirror_disable(struct prepare *p)
{
    put(p, CMD_MIRROR_SET, &(struct mirror_set){.mode = blob_str("disabled")});
    return 0;
}

int prepare_mirror_rebuild(struct prepare *p)
{
    char reason[REASON_MAX_BYTES + 1];
    mp_find_str(p->in->args, "reason", reason, sizeof reason);
    put(p, CMD_MIRROR_REBUILD, &(struct mirror_rebuild){.reason = blob_str(reason)});
    return 0;
}

int prepare_mirror_event(struct prepare *p)
{
    struct mirror_event body;
    int rc = msg_decode(&mirror_event_desc, MSG_STRICT, p->in->args, &body);
    if (rc == 0) {
        put(p, CMD_MIRROR_EVENT, &body);
    }
    return rc;
}

/* Whether a command can only take rights away: revoke, disable, unassign, remove. */
static bool takes_away(const struct prepare *p)
{
    struct membership_set membership;
    struct capability_verify capability;
    struct blob body = buf_blob(&p->out->body);
    switch (p->out->kind) {
        case CMD_NODE_REVOKE:
        case CMD_NODE_REMOVE:
        case CMD_ROLE_UNASSIGN:
        case CMD_AUTHORITY_REMOVE:
            return true;
        case CMD_MEMBERSHIP_SET:
            return msg_decode(&membership_set_desc, MSG_STRICT, body, &membership) == 0 &&
                   membership.disabled;
        case CMD_CAPABILITY_VERIFY:
            return msg_decode(&capability_verify_desc, MSG_STRICT, body, &capability) == 0 &&
                   !capability.verified;
        default:
            return false;
    }
}

int mirror_allows(struct prepare *p)
{
    uint64_t kind = p->out->kind;
    /* The way out must stay open; and what the leader does by itself finishes what was decided. */
    bool exempt = kind == CMD_MIRROR_SET || kind == CMD_MIRROR_REBUILD ||
                  strcmp(p->in->actor_kind, ACTOR_SYSTEM) == 0;
    return exempt || !cmd_kind_high_risk(kind)
               ? 0
               : mirror_check_available(p->a->mirror, takes_away(p), p->em);
}
