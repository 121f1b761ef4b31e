/* Signed snapshots: what each node may know, cut from applied state, signed by this authority, and
 * pushed to those who subscribed (DESIGN section 6).
 *
 * The content is a function of the state alone, so a snapshot is sent only when the cluster's or the
 * node's own config_index has moved past what the node holds, or at half of its life: a role given to
 * one node costs one snapshot, not one for each. */
#include "authority/authority_impl.h"

#include "authority/fsm_cut.h"
#include "base/log.h"

#define REFRESH_MS (SNAPSHOT_LIFE_MS / 2)
/* Signing costs some tens of microseconds: a change that touches 10,000 nodes is spread over loop
 * turns instead of holding up Raft. */
#define PUSHES_PER_TURN 64
/* Well past an election (DESIGN section 3: 500 ms, up to twice that). */
#define CUT_OFF_MS 2500
#define SEND_AWAY_AGAIN_MS 15000

/* Why a node should believe an epoch after the first: the owner says so. */
static void cut_recovery(struct authority *a, uint64_t epoch, struct buf *out)
{
    if (epoch == EPOCH_FIRST || fsm_level(a->fsm) < LEVEL_RECOVERY) {
        return;
    }
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT statement FROM cluster_recoveries WHERE epoch = ?");
    db_bind_int(st, (int64_t)epoch);
    if (db_step(st) == 1) {
        struct blob statement = db_col_blob(st, "statement");
        buf_add(out, statement.data, statement.len);
    }
    db_done(st);
}

static int sign(struct authority *a, const struct cut *c, struct blob witness, struct buf *out)
{
    const struct snapshot_body *body = &c->body;
    uint8_t sig[PKI_SIG_BYTES];
    struct buf bytes;
    struct buf list;
    struct buf trust;
    uint32_t count = 0;
    buf_init(&bytes, SNAPSHOT_MAX_BYTES);
    buf_init(&list, 8192);
    buf_init(&trust, TRUST_SIGNED_MAX);
    msg_encode(&snapshot_body_desc, body, &bytes);
    bool decided = bytes.err != 0 || witness.len == 0 ||
                   push_is_decided(a, body, c->fingerprint, buf_blob(&bytes));
    if (bytes.err == 0 && decided) {
        pki_sign(a->cfg.node_key, SNAPSHOT_SIGN_DOMAIN, buf_blob(&bytes), sig);
        struct snapshot_signature one = {.signature = blob_of(sig, sizeof sig),
                                         .leaf = buf_blob(&a->leaf_der),
                                         .issuer = buf_blob(&a->leaf_issuer_der)};
        msg_list_add(&snapshot_signature_desc, &one, &list, &count);
        trust_record_now(a, &trust);
        struct signed_snapshot all = {
            .body = buf_blob(&bytes),
            .trust = buf_blob(&trust),
            .signatures = {.raw = buf_blob(&list), .count = count},
            .witness = witness,
        };
        msg_encode(&signed_snapshot_desc, &all, out);
    }
    int rc = bytes.err != 0  ? bytes.err
             : !decided      ? -ERR_DIVERGED
             : list.err != 0 ? list.err
                             : out->err;
    buf_fini(&bytes);
    buf_fini(&list);
    buf_fini(&trust);
    return rc;
}

/* Where in the log it stands and how long it lives. Without an authority set that is this replica's
 * own position; with one, what the majority signed. */
static void set_position(struct authority *a, const struct fsm_position *pos,
                         struct snapshot_body *b)
{
    const struct witnessed *d = &a->witness.done;
    b->issued_at_ms = authority_now_ms(a);
    b->expires_at_ms = b->issued_at_ms + SNAPSHOT_LIFE_MS;
    b->epoch = pos->epoch;
    if (!fsm_authority_set(a->fsm)->known) {
        b->config_version = pos->index;
        b->audit_seq = pos->audit_seq;
        b->audit_head = blob_of(pos->audit_head, sizeof pos->audit_head);
        return;
    }
    b->epoch = d->what.epoch;
    b->config_version = d->what.index;
    b->audit_seq = d->what.audit_seq;
    b->audit_head = blob_of(d->what.audit_head, sizeof d->what.audit_head);
    if (b->expires_at_ms > d->signed_at_ms + SNAPSHOT_LIFE_MS) {
        b->expires_at_ms = d->signed_at_ms + SNAPSHOT_LIFE_MS;
    }
}

int authority_snapshot(struct authority *a, const struct uuid *node_id,
                       const struct snapshot_held *held, struct buf *out, struct errmsg *em)
{
    char id[UUID_TEXT_MAX];
    struct cut c;
    struct buf witness;
    struct buf recovery;
    uuid_format(node_id, id);
    buf_init(&recovery, SIGNED_RECOVERY_MAX);
    cut_init(&c);
    buf_init(&witness, SNAPSHOT_WITNESS_MAX);
    int rc = cut_node(state_db(a), fsm_level(a->fsm), node_id, &c);
    if (rc == 0) {
        rc = cut_cluster(state_db(a), fsm_level(a->fsm), &c);
    }
    if (rc != 0) {
        (void)errmsg_set(em, rc, "node %s is not in the state applied here", id);
    } else if (!push_is_ready(a, node_id)) {
        rc = errmsg_set(em, -ERR_BUSY, "no majority of the authority has signed this yet");
    } else if (fsm_authority_set(a->fsm)->known) {
        rc = push_put_witness(a, node_id, held, &witness, em);
    }
    if (rc == 0) {
        struct fsm_position pos;
        fsm_position(a->fsm, &pos);
        set_position(a, &pos, &c.body);
        cut_recovery(a, c.body.epoch, &recovery);
        c.body.recovery = buf_blob(&recovery);
        rc = sign(a, &c, buf_blob(&witness), out);
        if (rc != 0) {
            (void)errmsg_set(em, rc, "cannot sign a snapshot for %s: %s", id, err_text(rc));
        }
    }
    buf_fini(&witness);
    cut_fini(&c);
    buf_fini(&recovery);
    return rc;
}

/* --- subscriptions --- */

static void forget(struct subscriber *s)
{
    LIST_REMOVE(s, link);
    free(s);
}

/* The version a snapshot made now would have; 0 when none can be made. */
static uint64_t version_now(const struct authority *a)
{
    struct fsm_position pos;
    const struct witness_set *set = fsm_authority_set(a->fsm);
    const struct witnessed *d = &a->witness.done;
    fsm_position(a->fsm, &pos);
    if (!set->known) {
        return pos.index;
    }
    return d->have && d->what.set_seq == set->seq && pos.config_index <= d->what.index
               ? d->what.index
               : 0;
}

static bool is_due(const struct authority *a, const struct subscriber *s, uint64_t config_index,
                   uint64_t version)
{
    if (version < s->held_version || version < s->node_config) {
        return false; /* it is ahead of us, or no majority has signed that far */
    }
    bool changed = config_index > s->held_version || s->node_config > s->held_version;
    return (changed && version > s->held_version) ||
           authority_now_ms(a) - s->sent_at_ms >= REFRESH_MS;
}

static void push(struct authority *a, struct subscriber *s, uint64_t version)
{
    static struct log_limit limit;
    struct buf bytes;
    struct errmsg em = ERRMSG_INIT;
    buf_init(&bytes, SNAPSHOT_MAX_BYTES);
    int rc = authority_snapshot(a, &s->node_id, &s->held, &bytes, &em);
    if (rc == 0) {
        rc = fabric_stream_send(s->stream, buf_blob(&bytes));
        (void)errmsg_set(&em, rc, "%s", err_text(rc));
    }
    if (rc == 0) {
        s->held_version = version;
        s->sent_at_ms = authority_now_ms(a);
        if (fsm_authority_set(a->fsm)->known) {
            s->held = (struct snapshot_held){
                .audit_seq = a->witness.done.what.audit_seq,
                .set_epoch = a->witness.done.what.epoch,
                .set_seq = a->witness.done.what.set_seq,
            };
        }
    } else if (rc != -ERR_BUSY && log_allow(&limit, 10)) {
        log_warn(LOG_AUTHORITY, "snapshot not sent", "why=\"%s\"", em.text);
    }
    buf_fini(&bytes);
}

void push_note(struct authority *a)
{
    struct db_stmt *st = db_prepare(state_db(a),
                                    "SELECT id, config_index FROM nodes WHERE config_index > ?"
                                    " ORDER BY config_index");
    db_bind_int(st, (int64_t)a->node_config_seen);
    while (db_step(st) == 1) {
        struct uuid id;
        struct subscriber *s;
        a->node_config_seen = (uint64_t)db_col_int(st, "config_index");
        if (uuid_parse(db_col_text(st, "id"), &id) != 0) {
            continue;
        }
        a->push_wanted = true;
        a->self_changed = a->self_changed || uuid_equal(&id, &a->cfg.node_id);
        LIST_FOREACH(s, &a->subscribers, link)
        {
            if (uuid_equal(&s->node_id, &id)) {
                s->node_config = a->node_config_seen;
            }
        }
    }
    db_done(st);
}

void push_changed(struct authority *a)
{
    struct fsm_position pos;
    struct subscriber *s;
    unsigned sent = 0;
    push_note(a);
    if (!a->push_wanted) {
        return;
    }
    a->push_wanted = false;
    fsm_position(a->fsm, &pos);
    uint64_t version = version_now(a);
    if (version == 0) {
        return; /* the signatures that are missing will want it again */
    }
    LIST_FOREACH(s, &a->subscribers, link)
    {
        if (!is_due(a, s, pos.config_index, version)) {
            continue;
        }
        if (sent++ == PUSHES_PER_TURN) {
            a->push_wanted = true; /* the rest on the next turn */
            a->applied_dirty = true;
            a->core_env.want_flush(a);
            return;
        }
        push(a, s, version);
    }
}

/* An authority that is cut off, or was removed without hearing of it, has no news to give: its nodes
 * try another. Again from time to time, for those who found nothing better and came back. */
static void send_away(struct authority *a)
{
    struct core_status s;
    uint64_t now = authority_mono_ms();
    core_status(a->core, &s);
    if (s.quorum && !a->fence.fenced) {
        a->quorum_seen_ms = now;
        a->sent_away_ms = 0;
        return;
    }
    bool first = a->sent_away_ms == 0 && now - a->quorum_seen_ms >= CUT_OFF_MS;
    bool again = a->sent_away_ms != 0 && now - a->sent_away_ms >= SEND_AWAY_AGAIN_MS;
    if (!first && !again) {
        return;
    }
    a->sent_away_ms = now;
    while (!LIST_EMPTY(&a->subscribers)) {
        struct subscriber *sub = LIST_FIRST(&a->subscribers);
        fabric_stream_reset(sub->stream, -ERR_NO_QUORUM);
        forget(sub);
    }
}

/* Refreshes, and whoever was ahead of us when we last looked. */
void push_tick(struct authority *a)
{
    send_away(a);
    if (authority_now_ms(a) - a->self_told_ms >= REFRESH_MS) {
        a->self_changed = true;
        a->applied_dirty = true;
        a->core_env.want_flush(a);
    }
    a->push_wanted = true;
    push_changed(a);
}

static uint64_t node_config(struct authority *a, const struct uuid *node_id)
{
    char id[UUID_TEXT_MAX];
    uuid_format(node_id, id);
    struct db_stmt *st = db_prepare(state_db(a), "SELECT config_index FROM nodes WHERE id = ?");
    db_bind_text(st, id);
    uint64_t index = db_step(st) == 1 ? (uint64_t)db_col_int(st, "config_index") : 0;
    db_done(st);
    return index;
}

/* To one of an earlier epoch, or from nowhere, everything is news; to one of a later epoch nothing of
 * ours is. */
static uint64_t held_of(struct authority *a, const struct config_subscribe *msg)
{
    struct fsm_position pos;
    fsm_position(a->fsm, &pos);
    return msg->epoch == pos.epoch ? msg->config_version : msg->epoch > pos.epoch ? UINT64_MAX : 0;
}

static void sub_frame(struct fabric_stream *stream, void *data, struct blob frame)
{
    struct subscriber *s = data;
    struct config_subscribe msg;
    if (msg_decode(&config_subscribe_desc, MSG_LENIENT, frame, &msg) != 0) {
        fabric_stream_reset(stream, -ERR_MALFORMED);
        forget(s);
        return;
    }
    s->held_version = held_of(s->a, &msg);
    s->held = (struct snapshot_held){
        .audit_seq = msg.audit_seq, .set_epoch = msg.set_epoch, .set_seq = msg.set_seq};
    s->sent_at_ms = authority_now_ms(s->a);
    s->node_config = node_config(s->a, &s->node_id);
    s->a->push_wanted = true;
    s->a->applied_dirty = true;
    s->a->core_env.want_flush(s->a);
}

static void sub_closed(struct fabric_stream *stream, void *data, int rc)
{
    (void)stream;
    (void)rc;
    forget(data);
}

static const struct fabric_stream_vtab sub_vtab = {.frame = sub_frame, .closed = sub_closed};

static void on_config_stream(void *data, struct fabric_stream *stream)
{
    struct authority *a = data;
    const struct fabric_peer *peer = fabric_stream_peer(stream);
    if (a->closing || a->fence.fenced || peer == NULL) {
        fabric_stream_reset(stream, a->fence.fenced ? -ERR_FENCED : -ERR_CLOSED);
        return;
    }
    if (!authority_tells(a, peer)) {
        refused_peer(a, REFUSAL_SERVICE, peer, "config", -ERR_DENIED);
        fabric_stream_reset(stream, -ERR_DENIED);
        return;
    }
    struct subscriber *s = xcalloc(1, sizeof *s);
    s->a = a;
    s->stream = stream;
    s->node_id = peer->identity.node_id;
    s->held_version = UINT64_MAX; /* until it says what it holds */
    LIST_INSERT_HEAD(&a->subscribers, s, link);
    fabric_stream_accept(stream, &sub_vtab, s);
}

void push_serve(struct authority *a)
{
    fabric_serve(a->cfg.fabric, &(struct fabric_service){.name = "config",
                                                         .flags = FABRIC_SVC_SUSPENDED,
                                                         .frame_max_bytes = 4096,
                                                         .answer_max_bytes = RPC_FRAME_MAX,
                                                         .data = a,
                                                         .stream = on_config_stream});
}

void push_close(struct authority *a)
{
    while (!LIST_EMPTY(&a->subscribers)) {
        struct subscriber *s = LIST_FIRST(&a->subscribers);
        fabric_stream_close(s->stream);
        forget(s);
    }
}
