/* Raft messages between authorities: one stream each way, opened by the sender, on the control
 * connection, and one for images on the data connection, where they delay no heartbeat. A message that cannot go now is dropped: Raft sends again, and replaying an old one
 * over a new connection would be wrong (reference raft.md, G6). */
#include "authority/authority_impl.h"

#include "base/log.h"

/* Entries of one message and what is around them; as much may wait to be sent. */
#define ENTRIES_FRAME_MAX ((size_t)2 * RAFT_MSG_APPEND_BYTES)
/* Until an image can have arrived, no second one is sent (G7). */
#define IMAGE_MS 2000
#define IMAGE_BYTES_PER_MS 4096u

static void out_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    (void)s;
    (void)data;
    (void)frame; /* nothing comes back on a stream we opened to send */
}

static void out_closed(struct fabric_stream *s, void *data, int rc)
{
    struct raft_peer *p = data;
    (void)rc;
    if (p->streams[true] == s) {
        p->streams[true] = NULL;
        p->image_until_ms = 0;
    } else {
        p->streams[false] = NULL;
    }
}

static const struct fabric_stream_vtab out_vtab = {.frame = out_frame, .closed = out_closed};

static struct raft_peer *find(const struct raft_net_fabric *n, raft_id id)
{
    struct raft_peer *p;
    HASH_FIND(hh, n->peers, &id, sizeof id, p);
    return p;
}

static struct raft_peer *add(struct raft_net_fabric *n, const struct uuid *node_id)
{
    raft_id id = core_raft_id(node_id);
    struct raft_peer *p = find(n, id);
    if (p == NULL) {
        p = xcalloc(1, sizeof *p);
        p->a = n->a;
        p->id = id;
        p->node_id = *node_id;
        HASH_ADD(hh, n->peers, id, sizeof p->id, p);
    }
    return p;
}

static void reset(struct fabric_stream **s)
{
    if (*s != NULL) {
        fabric_stream_reset(*s, -ERR_CLOSED);
        *s = NULL;
    }
}

static void drop(struct raft_net_fabric *n, struct raft_peer *p)
{
    CHECK(n->peers != NULL); /* p is there */
    for (size_t i = 0; i < ARRAY_SIZE(p->streams); i++) {
        reset(&p->streams[i]);
        reset(&p->in[i]);
    }
    if (n->image_from == p) {
        n->image_from = NULL;
    }
    HASH_DEL(n->peers, p);
    free(p);
}

const struct uuid *raft_net_node(const struct authority *a, raft_id id)
{
    struct raft_peer *p = find(&a->net, id);
    if (p != NULL) {
        return &p->node_id;
    }
    return id == core_raft_id(&a->cfg.node_id) ? &a->cfg.node_id : NULL;
}

static int send_frame(struct raft_peer *p, bool image, struct blob bytes)
{
    struct fabric *f = p->a->cfg.fabric;
    struct fabric_stream **s = &p->streams[image];
    if (!fabric_peer_connected(f, &p->node_id)) {
        return -ERR_UNREACHABLE;
    }
    if (*s == NULL) {
        struct fabric_stream_to dst = {.node_id = p->node_id,
                                       .service = "raft",
                                       .frame_max_bytes = image ? RAFT_FRAME_MAX
                                                                : ENTRIES_FRAME_MAX,
                                       .bulk = image};
        int rc = fabric_stream_open(f, &dst, &out_vtab, p, s);
        if (rc != 0) {
            *s = NULL;
            return rc;
        }
    }
    return fabric_stream_send(*s, bytes);
}

static bool net_send(struct raft_net *base, raft_id to, struct blob bytes)
{
    struct raft_peer *p = find(container_of(base, struct raft_net_fabric, base), to);
    return p != NULL && send_frame(p, false, bytes) == 0;
}

static bool net_send_image(struct raft_net *base, raft_id to, struct blob bytes)
{
    struct raft_peer *p = find(container_of(base, struct raft_net_fabric, base), to);
    if (p == NULL || send_frame(p, true, bytes) != 0) {
        return false;
    }
    p->image_until_ms = authority_mono_ms() + IMAGE_MS + bytes.len / IMAGE_BYTES_PER_MS;
    return true;
}

static bool net_snapshot_in_flight(struct raft_net *base, raft_id to)
{
    struct raft_net_fabric *n = container_of(base, struct raft_net_fabric, base);
    struct raft_peer *p = find(n, to);
    return p != NULL && p->streams[true] != NULL && authority_mono_ms() < p->image_until_ms;
}

static const struct raft_net_ops net_ops = {
    .send = net_send, .send_image = net_send_image, .snapshot_in_flight = net_snapshot_in_flight};

void raft_net_fabric_init(struct raft_net_fabric *n, struct authority *a)
{
    *n = (struct raft_net_fabric){.base = {.ops = &net_ops}, .a = a};
}

void raft_net_fabric_fini(struct raft_net_fabric *n)
{
    struct raft_peer *p;
    struct raft_peer *tmp;
    raft_net_image_fini(n);
    HASH_ITER(hh, n->peers, p, tmp)
    {
        drop(n, p);
    }
}

/* --- receiving --- */

static void in_closed(struct fabric_stream *s, void *data, int rc)
{
    struct authority *a = data;
    struct raft_peer *p;
    struct raft_peer *next;
    (void)rc;
    HASH_ITER(hh, a->net.peers, p, next)
    {
        for (size_t i = 0; i < ARRAY_SIZE(p->in); i++) {
            if (p->in[i] == s) {
                p->in[i] = NULL;
            }
        }
        if (a->net.image_from == p && p->in[true] == NULL) {
            a->net.image_from = NULL;
        }
    }
}

void raft_net_received(struct authority *a, const struct fabric_peer *peer, struct blob frame,
                       bool unpacked, int *ret_rc)
{
    raft_id from = core_raft_id(&peer->identity.node_id);
    int rc = unpacked ? raft_io_receive_unpacked(&a->io, from, frame)
                      : raft_io_receive(&a->io, from, frame);
    if (rc != 0) {
        log_warn(LOG_AUTHORITY, "raft message refused", "error=%s", err_slug(rc));
        refused_peer(a, REFUSAL_SERVICE, peer, "raft", rc);
    }
    *ret_rc = rc;
}

static void in_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct authority *a = data;
    const struct fabric_peer *peer = fabric_stream_peer(s);
    if (a->closing || peer == NULL) {
        return;
    }
    int rc = 0;
    if (!raft_net_image(a, peer, frame)) {
        raft_net_received(a, peer, frame, false, &rc);
    }
    if (rc != 0) {
        in_closed(s, a, rc);
        fabric_stream_reset(s, rc);
    }
}

static const struct fabric_stream_vtab in_vtab = {.frame = in_frame, .closed = in_closed};

/* An authority that was removed may not speak, even before its key's ban has reached everybody. */
static bool is_removed(struct authority *a, const struct uuid *node_id)
{
    char id[UUID_TEXT_MAX];
    uuid_format(node_id, id);
    struct db_stmt *st = db_prepare(state_db(a), "SELECT 1 AS removed FROM cluster_authorities"
                                                 " WHERE node_id = ? AND status = 'removed'");
    db_bind_text(st, id);
    bool removed = db_step(st) == 1;
    db_done(st);
    return removed;
}

/* Only a leader sends images: while one of the leader's is on its way, nobody else may bring half a
 * gigabyte too. */
static bool may_bring_image(const struct authority *a, const struct raft_peer *p)
{
    struct core_status s;
    const struct raft_peer *now = a->net.image_from;
    core_status_brief(a->core, &s);
    return now == NULL || now == p || now->id != s.leader;
}

/* One stream of each kind from each peer, so that it can make us hold one message of each at most. A new one
 * takes the place of the old, whose end may not have been noticed yet. */
static int take_stream(struct authority *a, struct raft_peer *p, struct fabric_stream *s)
{
    bool image = fabric_stream_is_bulk(s);
    if (!image) {
        /* A leader of a version before sends images here too. */
        if (fsm_level(a->fsm) >= LEVEL_SIGNED) {
            fabric_stream_limit(s, ENTRIES_FRAME_MAX);
        }
    } else if (!may_bring_image(a, p)) {
        return -ERR_BUSY;
    } else {
        if (a->net.image_from != NULL) {
            reset(&a->net.image_from->in[true]);
        }
        a->net.image_from = p;
    }
    reset(&p->in[image]);
    p->in[image] = s;
    return 0;
}

static void on_raft_stream(void *data, struct fabric_stream *s)
{
    struct authority *a = data;
    const struct fabric_peer *peer = fabric_stream_peer(s);
    if (a->closing || peer == NULL) {
        fabric_stream_reset(s, -ERR_CLOSED);
        return;
    }
    if (is_removed(a, &peer->identity.node_id)) {
        refused_peer(a, REFUSAL_SERVICE, peer, "raft", -ERR_NOT_AUTHORITY);
        fabric_stream_reset(s, -ERR_NOT_AUTHORITY);
        return;
    }
    /* A new authority learns its peers from those who call it: it has no state yet. */
    int rc = take_stream(a, add(&a->net, &peer->identity.node_id), s);
    if (rc != 0) {
        fabric_stream_reset(s, rc);
        return;
    }
    fabric_stream_accept(s, &in_vtab, a);
}

void raft_net_serve(struct authority *a)
{
    fabric_serve(a->cfg.fabric, &(struct fabric_service){.name = "raft",
                                                         .flags = FABRIC_SVC_AUTHORITY,
                                                         .frame_max_bytes = RAFT_FRAME_MAX,
                                                         .data = a,
                                                         .stream = on_raft_stream});
}

/* At start nothing is applied yet and nothing can be before a majority meets: the members of the Raft
 * configuration come from the log, their addresses from the agent's stored snapshot. */
void raft_net_members(struct authority *a)
{
    struct core_status s;
    core_status(a->core, &s);
    for (size_t i = 0; i < s.members_count; i++) {
        const struct core_member *m = &s.members[i];
        if (m->id == core_raft_id(&m->node_id) && !uuid_equal(&m->node_id, &a->cfg.node_id) &&
            find(&a->net, m->id) == NULL) {
            (void)add(&a->net, &m->node_id);
            fabric_peer_keep(a->cfg.fabric, &m->node_id, true);
        }
    }
}

/* Sessions and the id map follow the committed list. Addresses are the agent's business: it gets the
 * snapshot that says the same. */
void raft_net_refresh(struct authority *a)
{
    struct db_stmt *st = db_prepare(state_db(a), "SELECT node_id, status FROM cluster_authorities");
    while (db_step(st) == 1) {
        struct uuid id;
        if (uuid_parse(db_col_text(st, "node_id"), &id) != 0 || uuid_equal(&id, &a->cfg.node_id)) {
            continue;
        }
        struct raft_peer *known = find(&a->net, core_raft_id(&id));
        if (strcmp(db_col_text(st, "status"), "removed") == 0) {
            if (known != NULL) {
                drop(&a->net, known);
            }
            fabric_peer_keep(a->cfg.fabric, &id, false);
        } else if (known == NULL) {
            /* It has a new name since it became an authority: meet it again under that name. */
            fabric_peer_forget(a->cfg.fabric, &id);
            (void)add(&a->net, &id);
            fabric_peer_keep(a->cfg.fabric, &id, true);
        }
    }
    db_done(st);
}
