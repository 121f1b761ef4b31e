/* The invariants of reliability.md section 3, checked whenever something happens that could break
 * them. The first replica that applies an entry says what is committed; everybody else must agree. */
#include "sim.h"

#include "authority/raft_msg.h"

void violate(struct world *w, const char *fmt, ...)
{
    if (w->violated) {
        return;
    }
    char text[320];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    w->violated = true;
    (void)snprintf(w->what, sizeof w->what, "%s (at %llu.%03llu s)", text,
                   (unsigned long long)(w->now_us / SEC),
                   (unsigned long long)(w->now_us % SEC / MS));
}

void check_boot(struct world *w)
{
    for (size_t i = 0; i < SIM_HISTORIES; i++) {
        struct oracle *o = &w->oracles[i];
        o->epoch = EPOCH_FIRST + i;
        o->rows_cap = 1024;
        o->rows = xcalloc(o->rows_cap, sizeof *o->rows);
        buf_init(&o->statement, SIGNED_RECOVERY_MAX);
    }
    w->newest = &w->oracles[0];
}

void check_fini(struct world *w)
{
    for (size_t i = 0; i < SIM_HISTORIES; i++) {
        free(w->oracles[i].log);
        free(w->oracles[i].rows);
        buf_fini(&w->oracles[i].statement);
    }
}

/* --- requests by id --- */

static struct request_row *slot(struct request_row *rows, size_t cap, const struct uuid *id)
{
    size_t i = (size_t)hash_bytes(id->b, sizeof id->b) & (cap - 1);
    while (!uuid_is_nil(&rows[i].id) && !uuid_equal(&rows[i].id, id)) {
        i = (i + 1) & (cap - 1);
    }
    return &rows[i];
}

static struct request_row *row_of(struct oracle *o, const struct uuid *id)
{
    if (2 * o->rows_count >= o->rows_cap) {
        size_t cap = 2 * o->rows_cap;
        struct request_row *rows = xcalloc(cap, sizeof *rows);
        for (size_t i = 0; i < o->rows_cap; i++) {
            if (!uuid_is_nil(&o->rows[i].id)) {
                *slot(rows, cap, &o->rows[i].id) = o->rows[i];
            }
        }
        free(o->rows);
        o->rows = rows;
        o->rows_cap = cap;
    }
    struct request_row *row = slot(o->rows, o->rows_cap, id);
    if (uuid_is_nil(&row->id)) {
        row->id = *id;
        o->rows_count++;
    }
    return row;
}

static struct committed *log_at(struct oracle *o, uint64_t index)
{
    if (index >= o->log_count) {
        size_t count = (size_t)index + 1 > 2 * o->log_count ? (size_t)index + 1 : 2 * o->log_count;
        o->log = xrealloc(o->log, count * sizeof *o->log);
        memset(o->log + o->log_count, 0, (count - o->log_count) * sizeof *o->log);
        o->log_count = count;
    }
    return &o->log[index];
}

/* --- S16: rows that a command must have left in the audit --- */

static uint64_t audit_rows(uint64_t kind, int rc)
{
    switch ((enum cmd_kind)kind) {
        case CMD_MIRROR_SET:
        case CMD_MIRROR_REBUILD:
            return 1;
        case CMD_CLUSTER_INIT:
            return rc == 0 ? 3 : 0;
        case CMD_JOIN_APPROVE:
        case CMD_NODE_REVOKE:
            return rc == 0 ? 2 : 1;
        case CMD_JOIN_SUBMIT:
        case CMD_ROLE_ASSIGN:
        case CMD_ROLE_UNASSIGN:
        case CMD_CERT_RENEW:
        case CMD_NODE_REMOVE:
            return 1;
        case CMD_EPOCH_START:
        case CMD_PARTITION_MERGE:
        case CMD_AUTHORITY_FENCED:
        case CMD_AUTHORITY_DAMAGED:
        case CMD_TERM_START:
        case CMD_LEVEL_RAISE:
        case CMD_MIRROR_EVENT:
        case CMD_TOKEN_CREATE:
        case CMD_TOKEN_REVOKE:
        case CMD_JOIN_REJECT:
            return rc == 0 ? 1 : 0;
        case CMD_PARTITION_SEEN:
        case CMD_DIVERGENCE_REPORTED:
        case CMD_JOIN_EXPIRE:
        case CMD_NODE_RENAME:
        case CMD_AUTHORITY_ADD:
        case CMD_AUTHORITY_STATUS:
        case CMD_AUTHORITY_REMOVE:
        case CMD_AUTHORITY_VOTE:
        case CMD_AUTHORITY_EXPIRE:
        case CMD_NODE_HEALTH:
        case CMD_JOIN_DENIED:
        case CMD_AUTHORITY_SET_NEXT:
        case CMD_FORGERY_REPORTED:
        case CMD_REFUSAL_NOTED:
        case CMD_AUTHORITY_RENEW:
        case CMD_TRUST_ROTATE:
        case CMD_CERT_ALARM:
        case CMD_CERT_POLICY:
        case CMD_MEMBERSHIP_SET:
        case CMD_CLUSTER_UPDATE:
        case CMD_NODE_UPDATE:
        case CMD_ROLE_REQUIRE:
        case CMD_GROUP_CREATE:
        case CMD_GROUP_MOVE:
        case CMD_GROUP_DELETE:
        case CMD_GROUP_ASSIGN:
        case CMD_MESH_SET:
        case CMD_NODE_MESH_SET:
        case CMD_INTENT_CREATE:
        case CMD_INTENT_SET:
        case CMD_INTENT_DELETE:
        case CMD_QOS_SET:
        case CMD_POOL_CREATE:
        case CMD_POOL_DELETE:
        case CMD_POOL_MEMBER:
        case CMD_RESOURCE_CREATE:
        case CMD_RESOURCE_SET:
        case CMD_RESOURCE_DELETE:
        case CMD_MESH_LOG:
        case CMD_CAPABILITY_VERIFY:
        case CMD_CAPABILITY_POLICY:
        case CMD_SPLIT_BEGIN:
        case CMD_SPLIT_FINISH:
        case CMD_SPLIT_CANCEL:
        case CMD_HEARTBEAT_LOG:
            return 0;
    }
    return 0;
}

/* A host that asks again while its request waits is told of that one, and nothing happened (ENR-04). */
static bool joins_again(const struct cmd *c, int rc, const struct buf *doc)
{
    struct join_submit b;
    struct uuid id;
    char text[UUID_TEXT_MAX];
    if (c->kind != CMD_JOIN_SUBMIT || rc != 0) {
        return false;
    }
    mp_find_str(buf_blob(doc), "id", text, sizeof text);
    return msg_decode(&join_submit_desc, MSG_STRICT, c->body, &b) == 0 &&
           uuid_parse(text, &id) == 0 && !uuid_equal(&id, &b.join_id);
}

static void first_applied(struct node *n, uint64_t index, const struct rec *rec)
{
    struct world *w = n->w;
    struct blob entry;
    struct cmd_entry e;
    struct buf doc;
    w->stats.commits++;
    if (raft_msg_unpad(blob_of(rec->data, rec->len), &entry) != 0 ||
        msg_decode(&cmd_entry_desc, MSG_STRICT, entry, &e) != 0) {
        violate(w, "S2: entry %llu does not decode", (unsigned long long)index);
        return;
    }
    buf_init(&doc, SIZE_MAX);
    struct mp_reader r;
    mp_reader_init(&r, e.commands.raw);
    for (uint32_t i = 0; i < e.commands.count; i++) {
        struct cmd c;
        int rc = 0;
        CHECK(msg_decode(&cmd_desc, MSG_STRICT, mp_get_bin(&r, SIZE_MAX), &c) == 0);
        struct request_row *row = row_of(n->oracle, &c.request_id);
        if (row->index != 0) {
            continue;
        }
        row->index = index;
        buf_clear(&doc);
        if (fsm_find_result(n->fsm, &c.request_id, c.request_hash, &rc, &doc)) {
            n->oracle->audit_expected += joins_again(&c, rc, &doc) ? 0 : audit_rows(c.kind, rc);
        }
    }
    buf_fini(&doc);
}

/* S15 at one index, S6: stamps never go back. */
static void check_position(struct node *n, struct committed *c, uint64_t index)
{
    struct world *w = n->w;
    struct fsm_position at;
    fsm_position(n->fsm, &at);
    if (at.index != index) {
        violate(w, "S2: node %d applied %llu and stands at %llu", n->i, (unsigned long long)index,
                (unsigned long long)at.index);
    }
    if (!c->has_digest) {
        c->has_digest = true;
        memcpy(c->digest, at.digest, sizeof c->digest);
    } else if (memcmp(c->digest, at.digest, sizeof c->digest) != 0) {
        violate(w, "S15: node %d holds another state at %llu", n->i, (unsigned long long)index);
    }
    if (at.time_ms < n->last_time_ms) {
        violate(w, "S6: time goes back at %llu", (unsigned long long)index);
    }
    n->last_time_ms = at.time_ms;
}

void check_applied(struct node *n, uint64_t index)
{
    struct world *w = n->w;
    const struct rec *rec = rec_list_at(&n->disk.view, index);
    /* A lone voter commits what is in its log by itself. */
    if (n->fence.is && index > n->fence.log_end) {
        violate(w, "S12: node %d applies %llu of an epoch it knows to be over", n->i,
                (unsigned long long)index);
        return;
    }
    if (rec == NULL) {
        violate(w, "S2: node %d applied %llu, which is not in its log", n->i,
                (unsigned long long)index);
        return;
    }
    struct committed *c = log_at(n->oracle, index);
    world_trace(w, rec->sum);
    if (c->sum == 0) {
        c->sum = rec->sum;
        c->term = rec->term;
        first_applied(n, index, rec);
        c = log_at(n->oracle, index);
        c->audit = n->oracle->audit_expected;
        struct fsm_position at;
        fsm_position(n->fsm, &at);
        if (at.audit_seq < c->audit) {
            violate(w, "S16: entry %llu left no audit row", (unsigned long long)index);
        }
    } else if (c->sum != rec->sum) {
        violate(w, "S2: node %d applied another entry at %llu", n->i, (unsigned long long)index);
    }
    check_position(n, c, index);
}

/* After a start from a snapshot. */
void check_restored(struct node *n)
{
    struct fsm_position at;
    fsm_position(n->fsm, &at);
    if (at.index != 0) {
        check_position(n, log_at(n->oracle, at.index), at.index);
    }
}

/* S14, S15: what PostgreSQL is told of an entry is the same whoever tells it. */
void check_changes(struct node *n, const struct fsm_position *at, struct blob changes)
{
    struct committed *c = log_at(n->oracle, at->index);
    uint64_t sum = hash_bytes(changes.data, changes.len) | 1;
    if (c->changes == 0) {
        c->changes = sum;
    } else if (c->changes != sum) {
        violate(n->w, "S14: node %d has other row changes at %llu", n->i,
                (unsigned long long)at->index);
    }
}

/* The last entry that both have: behind it the survivor may hold what the majority never committed. */
static uint64_t shared_with(const struct oracle *from, const struct rec_list *old, uint64_t end)
{
    for (uint64_t i = 1; i <= end && i < from->log_count; i++) {
        const struct rec *rec = rec_list_at(old, i);
        if (from->log[i].sum != 0 && rec != NULL && from->log[i].sum != rec->sum) {
            return i - 1;
        }
    }
    return end;
}

void check_branched(struct node *n, const struct oracle *from, const struct rec_list *old,
                    uint64_t end)
{
    struct oracle *o = n->oracle;
    o->base = shared_with(from, old, end);
    o->conf_index = end;
    for (size_t i = 0; i < from->rows_cap; i++) {
        const struct request_row *r = &from->rows[i];
        if (!uuid_is_nil(&r->id) && r->index != 0 && r->index <= o->base) {
            *row_of(o, &r->id) = *r;
        }
    }
    for (uint64_t i = 1; i <= end; i++) {
        if (i <= o->base && i < from->log_count && from->log[i].sum != 0) {
            *log_at(o, i) = from->log[i];
            o->audit_expected = from->log[i].audit;
            continue;
        }
        /* What nobody had applied yet is decided by the owner's going on from here. */
        const struct rec *rec = rec_list_at(old, i);
        if (rec != NULL && rec->type == RAFT_COMMAND) {
            struct committed *c = log_at(o, i);
            c->sum = rec->sum;
            c->term = rec->term;
            first_applied(n, i, rec);
            log_at(o, i)->audit = o->audit_expected;
        }
    }
    if (from->max_acked_index <= o->base) {
        o->max_acked_index = from->max_acked_index;
        o->last_acked_id = from->last_acked_id;
        memcpy(o->last_acked_hash, from->last_acked_hash, sizeof o->last_acked_hash);
    }
}

void check_started(struct node *n, int rc, const struct errmsg *em)
{
    bool damaged = n->disk.corrupted != NULL;
    if (rc == 0 && damaged) {
        violate(n->w, "S22: node %d starts from a damaged log", n->i);
    } else if (rc != 0 && !damaged) {
        violate(n->w, "node %d does not start: %s", n->i, em->text);
    }
}

/* --- S1, S2: leaders --- */

void check_role(struct node *n)
{
    struct world *w = n->w;
    struct core_status s;
    core_status(n->core, &s);
    if (s.role != CORE_LEADER) {
        return;
    }
    if (s.term >= ARRAY_SIZE(n->oracle->leader_of)) {
        violate(w, "L4: term %llu", (unsigned long long)s.term);
        return;
    }
    struct oracle *o = n->oracle;
    int *leader = &o->leader_of[s.term];
    if (*leader == n->i + 1) {
        return;
    }
    if (*leader != 0) {
        violate(w, "S1: nodes %d and %d both lead term %llu", *leader - 1, n->i,
                (unsigned long long)s.term);
        return;
    }
    if (members_latest_conf(n) < o->conf_index) {
        violate(
            w,
            "S2: node %d leads term %llu by the configuration of %llu, that of %llu is committed",
            n->i, (unsigned long long)s.term, (unsigned long long)members_latest_conf(n),
            (unsigned long long)o->conf_index);
        return;
    }
    *leader = n->i + 1;
    w->stats.elections++;
    world_trace(w, s.term << 8 | (uint64_t)n->i);
    const struct rec_list *view = &n->disk.view;
    for (uint64_t i = view->count == 0 ? s.last_index + 1 : view->first; i < o->log_count; i++) {
        const struct committed *c = &o->log[i];
        const struct rec *rec = rec_list_at(view, i);
        if (c->sum != 0 && (rec == NULL || rec->sum != c->sum)) {
            violate(w, "S2: node %d leads term %llu without committed entry %llu", n->i,
                    (unsigned long long)s.term, (unsigned long long)i);
            return;
        }
    }
}

/* --- S2, S3, S4, S22: answers --- */

static int bits(uint32_t mask)
{
    int n = 0;
    for (; mask != 0; mask &= mask - 1) {
        n++;
    }
    return n;
}

/* Nodes of the mask, and of this one's history, that hold the entry durably. */
static int copies(const struct node *n, uint32_t mask, uint64_t index, uint64_t sum)
{
    const struct world *w = n->w;
    int count = 0;
    for (int i = 0; i < w->n; i++) {
        if ((mask >> i & 1) == 0 || w->nodes[i].oracle != n->oracle) {
            continue;
        }
        const struct disk *d = &w->nodes[i].disk;
        const struct rec *rec = rec_list_at(&d->durable, index);
        count += (d->snap != NULL && d->snap->index >= index) || (rec != NULL && rec->sum == sum);
    }
    return count;
}

void check_ack(struct node *n, const struct uuid *id, const uint8_t hash[32], uint64_t floor,
               const struct fsm_result *r)
{
    struct world *w = n->w;
    struct oracle *o = n->oracle;
    struct request_row *row = row_of(o, id);
    uint64_t doc_sum = hash_bytes(r->doc.data, r->doc.len);
    world_trace(w, doc_sum);
    if (row->index == 0) {
        violate(w, "S2: node %d acknowledged what is not committed", n->i);
        return;
    }
    if (n->fence.is) {
        violate(w, "S12: node %d acknowledges in an epoch it knows to be over", n->i);
        return;
    }
    if (n->disk.failed) {
        violate(w, "S22: node %d acknowledged after its disk failed", n->i);
        return;
    }
    /* A change of one member may have begun since the entry was committed: either majority will do,
     * for each overlaps the other (Raft section 6). */
    uint64_t sum = o->log[row->index].sum;
    int have = copies(n, n->voters, row->index, sum);
    if (2 * have <= bits(n->voters) &&
        2 * copies(n, n->voters_before, row->index, sum) <= bits(n->voters_before)) {
        violate(w, "S2: entry %llu acknowledged with %d durable copies of %d",
                (unsigned long long)row->index, have, bits(n->voters));
        return;
    }
    if (row->index <= floor) {
        violate(w, "S3: asked after %llu was acknowledged, ordered at %llu",
                (unsigned long long)floor, (unsigned long long)row->index);
        return;
    }
    if (!uuid_is_nil(&r->request_id) && !uuid_equal(&r->request_id, id)) {
        violate(w, "S4: node %d gave one request the answer of another", n->i);
        return;
    }
    if (err_retryable(r->rc)) {
        return; /* not kept: a retry may get another */
    }
    if (row->answered && (row->rc != r->rc || row->doc_sum != doc_sum)) {
        violate(w, "S4: a retry got another answer: %s, then %s", err_text(row->rc),
                err_text(r->rc));
        return;
    }
    row->answered = true;
    row->rc = r->rc;
    row->doc_sum = doc_sum;
    w->stats.acks++;
    w->stats.refusals += r->rc != 0;
    if (row->index > o->max_acked_index) {
        o->max_acked_index = row->index;
        o->last_acked_id = *id;
        memcpy(o->last_acked_hash, hash, 32);
    }
}

void check_read(struct node *n, uint64_t floor, const struct uuid *acked_id,
                const uint8_t acked_hash[32], uint64_t index)
{
    struct world *w = n->w;
    struct core_status s;
    int rc = 0;
    struct buf doc;
    core_status(n->core, &s);
    w->stats.reads++;
    if (index < floor || s.applied_index < floor) {
        violate(w, "S3: a read at %llu does not see %llu", (unsigned long long)index,
                (unsigned long long)floor);
        return;
    }
    buf_init(&doc, SIZE_MAX);
    if (!uuid_is_nil(acked_id) &&
        !fsm_find_result(n->fsm, acked_id, blob_of(acked_hash, 32), &rc, &doc)) {
        violate(w, "S3: a read does not find what was acknowledged before it began");
    }
    buf_fini(&doc);
}

/* --- the end --- */

static int64_t number(struct node *n, const char *sql)
{
    struct db_stmt *st = db_prepare(fsm_db(n->fsm), sql);
    int64_t v = db_step(st) == 1 ? db_col_int(st, "n") : -1;
    db_done(st);
    return v;
}

/* Who may be here, with which key, and with which roles; no row may be found. That serial numbers and active identities
 * are unique is for the state's own indexes. */
static const struct {
    const char *what, *sql;
} keys[] = {
    {"S7: a certificate is for another key than the one that was shown",
     "SELECT count(*) AS n FROM node_join_requests r JOIN node_identities i"
     " ON i.node_id = r.approved_node_id WHERE i.public_key <> r.public_key"
     " OR i.fingerprint <> r.node_fingerprint"},
    {"S7: a node has another key than its request",
     "SELECT count(*) AS n FROM node_join_requests r JOIN nodes o ON o.id = r.approved_node_id"
     " WHERE o.fingerprint <> r.node_fingerprint"},
    {"S8: a key that was revoked is active",
     "SELECT count(*) AS n FROM node_identities i JOIN banned_keys b ON b.fingerprint ="
     " i.fingerprint WHERE i.identity_status IN ('active', 'rotating')"},
    {"S8: a key that was revoked is a member's",
     "SELECT count(*) AS n FROM nodes o JOIN banned_keys b ON b.fingerprint = o.fingerprint"
     " JOIN cluster_memberships m ON m.node_id = o.id WHERE m.membership_status = 'active'"},
    {"S10: who is no member has a role",
     "SELECT count(*) AS n FROM node_role_assignments a WHERE a.status = 'active' AND NOT EXISTS"
     " (SELECT 1 FROM cluster_memberships m WHERE m.node_id = a.node_id"
     "  AND m.membership_status = 'active')"},
};

static void check_keys(struct node *n)
{
    for (size_t i = 0; i < ARRAY_SIZE(keys) && !n->w->violated; i++) {
        if (number(n, keys[i].sql) != 0) {
            violate(n->w, "%s, on node %d", keys[i].what, n->i);
        }
    }
}

static void check_tables(struct node *n)
{
    struct world *w = n->w;
    check_keys(n);
    struct errmsg em = ERRMSG_INIT;
    if (fsm_audit_verify(n->fsm, NULL, &em) != 0) {
        violate(w, "S16: node %d: %s", n->i, em.text);
    }
    if (number(n, "SELECT count(*) AS n FROM node_join_tokens t WHERE used_count > max_uses"
                  " OR used_count <> (SELECT count(*) FROM node_join_requests"
                  " WHERE join_token_id = t.id)") != 0) {
        violate(w, "S6: uses of a token are not its requests");
    }
    if (number(n, "SELECT count(*) AS n FROM node_join_requests r"
                  " JOIN node_join_tokens t ON t.id = r.join_token_id"
                  " WHERE r.created_at >= t.expires_at OR r.created_at > t.revoked_at") != 0) {
        violate(w, "S6: a request by a token that was expired or revoked at its stamp");
    }
    if (number(n, "SELECT count(*) AS n FROM node_join_requests WHERE status = 'approved'"
                  " AND (SELECT count(*) FROM nodes WHERE id = approved_node_id) <> 1"
                  " AND node_fingerprint NOT IN (SELECT fingerprint FROM banned_keys)") != 0 ||
        number(n, "SELECT count(*) AS n FROM node_join_requests WHERE status <> 'approved'"
                  " AND approved_node_id IS NOT NULL") != 0) {
        violate(w, "S5: a request and its node do not match");
    }
}

void check_end(struct world *w)
{
    struct fsm_position first = {0};
    const struct node *leader = members_leader(w);
    int first_node = -1;
    if (leader == NULL) {
        violate(w, "L1: nobody leads at the end");
        return;
    }
    for (int i = 0; i < w->n && !w->violated; i++) {
        struct node *n = &w->nodes[i];
        if (n->up && !members_gone(w, i) && (n->oracle != w->newest || n->fence.is)) {
            violate(w, "S12: node %d still holds the history of epoch %llu at the end", i,
                    (unsigned long long)n->oracle->epoch);
            return;
        }
        if (!members_replicates(leader, i)) {
            continue;
        }
        if (!n->up) {
            violate(w, "L1: node %d is not up at the end", i);
            return;
        }
        struct fsm_position at;
        fsm_position(n->fsm, &at);
        if (first_node < 0) {
            first_node = i;
            first = at;
        } else if (at.index != first.index || memcmp(at.digest, first.digest, 32) != 0) {
            violate(w, "L2: nodes %d and %d end at %llu and %llu", first_node, i,
                    (unsigned long long)first.index, (unsigned long long)at.index);
            return;
        }
        check_tables(n);
        requests_check(w, n);
        world_trace(w, hash_bytes(at.digest, sizeof at.digest));
    }
    fence_check_end(w);
    if (w->pg != NULL && !w->violated) {
        pg_check_end(w, &first);
    }
}
