/* The leader's side of heal.h: a member without a log leaves the vote by a command, and with it the Raft
 * configuration (members.c). Only when that is committed may it begin anew (docs/decisions/0014). */
#include "authority/authority_impl.h"

#include "base/log.h"

static void recorded(void *data, int rc, struct blob doc)
{
    struct authority *a = data;
    (void)doc;
    a->damaged_busy = false;
    if (rc != 0 && rc != -ERR_CANCELED && rc != -ERR_CONFLICT) {
        log_warn(LOG_AUTHORITY, "damaged log of a member not recorded", "error=%s", err_slug(rc));
    }
}

static void take_out(struct authority *a, const struct uuid *from, struct blob why)
{
    const struct authority_damaged body = {.node_id = *from, .why = why};
    struct buf args;
    buf_init(&args, CMD_BODY_MAX);
    msg_encode(&authority_damaged_desc, &body, &args);
    a->damaged_busy = true;
    call_internal(a, "authority.damaged", buf_blob(&args), NULL, ACTOR_SYSTEM, "", recorded, a);
    buf_fini(&args);
}

/* Of the state: "" when it is no authority. */
static void status_of(struct authority *a, const struct uuid *node_id, char *out, size_t size)
{
    char id[UUID_TEXT_MAX];
    uuid_format(node_id, id);
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT status FROM cluster_authorities WHERE node_id = ?");
    db_bind_text(st, id);
    (void)snprintf(out, size, "%s", db_step(st) == 1 ? db_col_text(st, "status") : "");
    db_done(st);
}

uint64_t heal_verdict(struct authority *a, const struct core_status *s, const struct uuid *from,
                      struct blob why)
{
    char status[16];
    if (s->role != CORE_LEADER || !s->quorum || a->fence.fenced || fsm_level(a->fsm) < LEVEL_HEAL) {
        return RECOVERY_SAYS_NOTHING;
    }
    status_of(a, from, status, sizeof status);
    if (status[0] == '\0' || strcmp(status, "removed") == 0) {
        return RECOVERY_SAYS_NOTHING;
    }
    if (strcmp(status, "voter") == 0) {
        if (!a->damaged_busy) {
            take_out(a, from, why);
        }
        return RECOVERY_SAYS_WAIT;
    }
    /* A configuration that is not committed yet may be taken back. */
    bool votes = !s->configuration_committed;
    for (size_t i = 0; i < s->members_count; i++) {
        votes = votes ||
                (s->members[i].id == core_raft_id(from) && s->members[i].raft_role == RAFT_VOTER);
    }
    return votes ? RECOVERY_SAYS_WAIT : RECOVERY_SAYS_COME;
}
