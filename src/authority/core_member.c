/* Changes of the membership and of the leader. libraft leaks a buffer or leaves a dangling request
 * behind when it refuses a change half way, so what it would refuse is refused here first. */
#include "authority/core_impl.h"

static const struct raft_server *find(const struct core *c, raft_id id)
{
    for (unsigned i = 0; i < c->raft.configuration.n; i++) {
        if (c->raft.configuration.servers[i].id == id) {
            return &c->raft.configuration.servers[i];
        }
    }
    return NULL;
}

static bool is_last_voter(const struct core *c, raft_id id)
{
    unsigned others = 0;
    for (unsigned i = 0; i < c->raft.configuration.n; i++) {
        const struct raft_server *s = &c->raft.configuration.servers[i];
        others += s->role == RAFT_VOTER && s->id != id;
    }
    return others == 0;
}

/* A leader may change the configuration only after it committed an entry of its own term, or two
 * configurations can be in force at once (the single-server change bug of Raft, 2015). */
static int may_change(const struct core *c)
{
    int rc = core_check_leader(c);
    if (rc != 0) {
        return rc;
    }
    if (!c->term_started || c->change != NULL || c->raft.legacy.change != NULL ||
        c->raft.configuration_uncommitted_index != 0 || c->raft.leader_state.promotee_id != 0) {
        return -ERR_BUSY;
    }
    return 0;
}

static int from_raft(int rv)
{
    switch (rv) {
        case 0:
            return 0;
        case RAFT_NOTLEADER:
            return -ERR_NOT_LEADER;
        case RAFT_CANTCHANGE:
            return -ERR_BUSY;
        case RAFT_DUPLICATEID:
        case RAFT_DUPLICATEADDRESS:
            return -ERR_EXISTS;
        case RAFT_BADID:
        case RAFT_NOTFOUND:
            return -ERR_NOT_FOUND;
        case RAFT_BADROLE:
            return -ERR_CONFLICT;
        case RAFT_NOCONNECTION:
            return -ERR_TIMEOUT;
        default:
            return -ERR_OUTCOME_UNKNOWN;
    }
}

static void changed(struct raft_change *req, int status)
{
    struct core_change *ch = container_of(req, struct core_change, raft);
    struct core *c = req->data;
    c->change = NULL;
    ch->cb(ch, c->closing ? -ERR_CANCELED : from_raft(status));
}

/* What libraft said when it was asked to start the change. */
static int begun(struct core *c, struct core_change *ch, int rv)
{
    if (rv != 0) {
        if (c->raft.legacy.change == &ch->raft) {
            c->raft.legacy.change = NULL;
        }
        return from_raft(rv);
    }
    c->change = ch;
    core_want_flush(c);
    return 0;
}

static void prepare(struct core *c, struct core_change *ch, core_change_cb cb)
{
    ch->cb = cb;
    ch->raft = (struct raft_change){.data = c};
}

int core_add(struct core *c, struct core_change *ch, raft_id id, const char *address,
             core_change_cb cb)
{
    int rc = may_change(c);
    if (rc != 0) {
        return rc;
    }
    if (id == 0 || address[0] == '\0' || strlen(address) > ADDRESS_MAX_BYTES) {
        return -ERR_INVALID;
    }
    if (c->raft.configuration.n >= RAFT_MSG_SERVERS_MAX) {
        return -ERR_TOO_LARGE;
    }
    prepare(c, ch, cb);
    return begun(c, ch, raft_add(&c->raft, &ch->raft, id, address, changed));
}

int core_assign(struct core *c, struct core_change *ch, raft_id id, int raft_role,
                core_change_cb cb)
{
    int rc = may_change(c);
    if (rc != 0) {
        return rc;
    }
    const struct raft_server *s = find(c, id);
    if (s == NULL) {
        return -ERR_NOT_FOUND;
    }
    if (raft_role != RAFT_VOTER && is_last_voter(c, id)) {
        return -ERR_LAST_VOTER;
    }
    if (s->role == raft_role || raft_role < RAFT_STANDBY || raft_role > RAFT_SPARE) {
        return -ERR_CONFLICT;
    }
    prepare(c, ch, cb);
    return begun(c, ch, raft_assign(&c->raft, &ch->raft, id, raft_role, changed));
}

int core_remove(struct core *c, struct core_change *ch, raft_id id, core_change_cb cb)
{
    int rc = may_change(c);
    if (rc != 0) {
        return rc;
    }
    if (find(c, id) == NULL) {
        return -ERR_NOT_FOUND;
    }
    if (is_last_voter(c, id)) {
        return -ERR_LAST_VOTER;
    }
    prepare(c, ch, cb);
    return begun(c, ch, raft_remove(&c->raft, &ch->raft, id, changed));
}

static void transferred(struct raft_transfer *req)
{
    struct core *c = container_of(req, struct core, transfer);
    int rc = c->raft.state == RAFT_LEADER ? -ERR_TIMEOUT : 0;
    c->transfer_active = false;
    c->transfer_cb(c->transfer_data, c->closing ? -ERR_CANCELED : rc);
}

int core_transfer(struct core *c, raft_id id, void (*cb)(void *data, int rc), void *data)
{
    if (!c->started || c->closing || c->failed) {
        return -ERR_CLOSED;
    }
    if (c->raft.state != RAFT_LEADER) {
        return -ERR_NOT_LEADER;
    }
    if (!c->term_started || c->transfer_active || raft_transferee(&c->raft) != 0) {
        return -ERR_BUSY;
    }
    const struct raft_server *s = id == 0 ? NULL : find(c, id);
    if (id != 0 && (s == NULL || s->role != RAFT_VOTER || id == c->config.id)) {
        return -ERR_NOT_FOUND;
    }
    c->transfer = (struct raft_transfer){0};
    int rv = raft_transfer(&c->raft, &c->transfer, id, transferred);
    if (rv != 0) {
        return from_raft(rv);
    }
    c->transfer_active = true;
    c->transfer_cb = cb;
    c->transfer_data = data;
    core_want_flush(c);
    return 0;
}
