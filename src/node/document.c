/* What a node says about itself. */
#include "node/route_id.h"

#include "base/clock.h"
#include "wire/cmd_mesh.h"

#include <unistd.h>

static void put_roles(struct node *n, struct mp_writer *w)
{
    const struct config *cfg = agent_snapshot(n->agent);
    struct authority_state st = {.member = false};
    if (n->authority != NULL) {
        authority_state(n->authority, &st);
    }
    uint32_t count = cfg == NULL ? 0 : cfg->body.roles.count;
    bool listed = cfg != NULL && config_has_role(cfg, "authority");
    bool add = st.member && !listed;
    mp_put_array(w, count + add);
    if (add) {
        mp_put_str(w, "authority");
    }
    struct mp_reader r;
    mp_reader_init(&r, cfg == NULL ? blob_of(NULL, 0) : cfg->body.roles.raw);
    for (uint32_t i = 0; i < count; i++) {
        struct snapshot_role role;
        if (msg_decode(&snapshot_role_desc, MSG_LENIENT, mp_get_bin(&r, 4096), &role) == 0) {
            mp_put_strn(w, (const char *)role.role.data, role.role.len);
        } else {
            mp_put_nil(w);
        }
    }
}

static void put_authority(struct node *n, struct mp_writer *w, struct mp_doc *doc,
                          const struct authority_state *st)
{
    if (n->authority == NULL) {
        mp_doc_str(w, doc, "authority_state", n->heal != NULL ? "damaged" : "none");
        if (n->heal != NULL) {
            mp_doc_str(w, doc, "log_damage", heal_why(n->heal));
        }
        mp_doc_key(w, doc, "quorum");
        mp_put_nil(w);
        mp_doc_uuid(w, doc, "leader", &UUID_NIL);
        const struct config *cfg = agent_snapshot(n->agent);
        mp_doc_int(w, doc, "epoch", cfg == NULL ? 0 : (int64_t)cfg->body.epoch);
        mp_doc_key(w, doc, "term");
        mp_put_nil(w);
        mp_doc_key(w, doc, "index");
        mp_put_nil(w);
        return;
    }
    mp_doc_str(w, doc, "authority_state", st->state);
    mp_doc_bool(w, doc, "quorum", st->quorum);
    mp_doc_uuid(w, doc, "leader", &st->leader);
    mp_doc_int(w, doc, "epoch", (int64_t)st->epoch);
    mp_doc_int(w, doc, "term", (int64_t)st->term);
    mp_doc_int(w, doc, "index", (int64_t)st->index);
    mp_doc_int(w, doc, "commit_index", (int64_t)st->commit_index);
    mp_doc_str(w, doc, "raft_role", st->raft_role);
    if (st->recovery_kind != NULL) {
        mp_doc_str(w, doc, "epoch_began_by", st->recovery_kind);
        mp_doc_time(w, doc, "epoch_began_at", st->recovered_at_ms);
        mp_doc_int(w, doc, "epoch_base_index", (int64_t)st->base_index);
        mp_doc_int(w, doc, "epoch_base_term", (int64_t)st->base_term);
    }
    if (st->epoch_rival) {
        mp_doc_bool(w, doc, "epoch_rival", true);
    }
    if (st->fenced_by != 0) {
        mp_doc_int(w, doc, "fenced_by_epoch", (int64_t)st->fenced_by);
        mp_doc_int(w, doc, "divergence_rows", (int64_t)st->divergence_rows);
    }
    mp_doc_int(w, doc, "voters", st->voters);
    mp_doc_int(w, doc, "seen", st->seen);
    mp_doc_int(w, doc, "needed", st->needed);
    mp_doc_int(w, doc, "forgery_reports", (int64_t)st->forgeries);
    mp_doc_int(w, doc, "level", st->level);
    mp_doc_int(w, doc, "level_known", st->level_known);
    mp_doc_hex(w, doc, "state_digest", blob_of(st->digest, sizeof st->digest));
}

/* What of this node's own chain ends first. */
static void put_expiry(struct mp_writer *w, struct mp_doc *doc, const struct agent_status *as)
{
    const struct {
        const char *what;
        int64_t at_ms;
    } ends[] = {{"certificate", as->certificate_expires_ms},
                {"issuing CA", as->issuer_expires_ms},
                {"root", as->root_expires_ms}};
    size_t first = 0;
    for (size_t i = 1; i < ARRAY_SIZE(ends); i++) {
        if (ends[i].at_ms < ends[first].at_ms) {
            first = i;
        }
    }
    mp_doc_str(w, doc, "next_expiry_of", ends[first].what);
    mp_doc_time(w, doc, "next_expiry_at", ends[first].at_ms);
}

static void put_membership(struct mp_writer *w, struct mp_doc *doc, const struct config *cfg)
{
    mp_doc_key(w, doc, "membership_status");
    if (cfg == NULL) {
        mp_put_nil(w);
    } else {
        mp_put_strn(w, (const char *)cfg->body.membership_status.data,
                    cfg->body.membership_status.len);
    }
}

static void status_doc(struct node *n, struct mp_writer *w)
{
    struct agent_status as;
    struct authority_state st = {.state = "none"};
    struct mp_doc doc;
    const struct config *cfg = agent_snapshot(n->agent);
    agent_status(n->agent, &as);
    if (n->authority != NULL) {
        authority_state(n->authority, &st);
    }
    bool ready = st.member ? st.quorum
                           : as.connected && cfg != NULL && !as.degraded && !as.disabled;
    mp_doc_begin(w, &doc);
    mp_doc_uuid(w, &doc, "node_id", &n->member->node_id);
    mp_doc_str(w, &doc, "node_name", n->member->node_name);
    mp_doc_uuid(w, &doc, "cluster_id", &n->member->cluster_id);
    mp_doc_str(w, &doc, "cluster_name", n->member->cluster_name);
    mp_doc_key(w, &doc, "roles");
    put_roles(n, w);
    put_authority(n, w, &doc, &st);
    put_membership(w, &doc, cfg);
    mp_doc_bool(w, &doc, "ready", ready);
    mp_doc_str(w, &doc, "health", st.member && st.quorum ? "healthy" : as.health);
    mp_doc_bool(w, &doc, "degraded", !ready);
    mp_doc_bool(w, &doc, "connected", st.member ? st.quorum : as.connected);
    mp_doc_uuid(w, &doc, "connected_to", st.member ? &st.leader : &as.authority);
    mp_doc_str(w, &doc, "contact_error",
               st.member || as.contact_rc == 0 ? NULL : err_slug(as.contact_rc));
    mp_doc_time(w, &doc, "last_contact_at", as.last_contact_ms);
    mp_doc_bool(w, &doc, "cut_off", n->cut_off.is);
    mp_doc_int(w, &doc, "clock_ahead_ms", st.member ? st.clock_ahead_ms : as.clock_ahead_ms);
    mp_doc_int(w, &doc, "config_version", cfg == NULL ? 0 : (int64_t)cfg->body.config_version);
    mp_doc_time(w, &doc, "config_expires_at", cfg == NULL ? 0 : cfg->body.expires_at_ms);
    mp_doc_time(w, &doc, "certificate_expires_at", as.certificate_expires_ms);
    put_expiry(w, &doc, &as);
    mp_doc_int(w, &doc, "certificate_alarms", st.alarms);
    mp_doc_str(w, &doc, "listen", n->member->listen);
    mp_doc_str(w, &doc, "advertise", n->member->advertise);
    mp_doc_str(w, &doc, "version", RAP_VERSION);
    mp_doc_int(w, &doc, "pid", (int64_t)getpid());
    mp_doc_end(w, &doc);
}

static void put_snapshot_rows(struct mp_writer *w, struct mp_doc *doc,
                              const struct snapshot_body *b)
{
    struct mp_reader r;
    mp_doc_key(w, doc, "authorities");
    mp_put_array(w, b->authorities.count);
    mp_reader_init(&r, b->authorities.raw);
    for (uint32_t i = 0; i < b->authorities.count; i++) {
        struct snapshot_authority row;
        struct mp_doc item;
        char name[NAME_MAX_BYTES + 1];
        char address[ADDRESS_MAX_BYTES + 1];
        (void)msg_decode(&snapshot_authority_desc, MSG_LENIENT, mp_get_bin(&r, 4096), &row);
        (void)snprintf(name, sizeof name, "%.*s", (int)row.name.len, (const char *)row.name.data);
        (void)snprintf(address, sizeof address, "%.*s", (int)row.address.len,
                       (const char *)row.address.data);
        mp_doc_begin(w, &item);
        mp_doc_uuid(w, &item, "node_id", &row.node_id);
        mp_doc_str(w, &item, "name", name);
        mp_doc_str(w, &item, "address", address);
        mp_doc_hex(w, &item, "issuer_fingerprint", row.issuer_fingerprint);
        mp_doc_end(w, &item);
    }
    mp_doc_key(w, doc, "revocations");
    mp_put_u64(w, b->revocations.count);
}

static void put_text(struct mp_writer *w, struct mp_doc *doc, const char *key, struct blob v)
{
    mp_doc_key(w, doc, key);
    if (v.len == 0) {
        mp_put_nil(w);
    } else {
        mp_put_strn(w, (const char *)v.data, v.len);
    }
}

static void put_intents(struct mp_writer *w, struct mp_doc *doc, const struct snapshot_body *b)
{
    const struct mp_list lists[] = {b->all_intents, b->intents};
    struct config_iter it;
    struct snapshot_intent m;
    struct mp_doc item;
    mp_doc_key(w, doc, "intents");
    mp_put_array(w, b->all_intents.count + b->intents.count);
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        config_iter_init(&it, lists[i]);
        while (config_next_intent(&it, &m) == 1) {
            bool known = m.policy >= 1 && m.policy <= 5;
            mp_doc_begin(w, &item);
            mp_doc_uuid(w, &item, "id", &m.intent_id);
            put_text(w, &item, "name", m.name);
            mp_doc_str(w, &item, "policy",
                       known ? intent_policy_names[m.policy - 1]
                       : m.policy == SNAPSHOT_INTENT_DENY_SERVICE ? "deny"
                                                                  : NULL);
            put_text(w, &item, "service_class", m.service_class);
            mp_doc_end(w, &item);
        }
    }
}

static void put_pools(struct mp_writer *w, struct mp_doc *doc, const struct snapshot_body *b)
{
    const struct mp_list lists[] = {b->all_pools, b->pools};
    struct config_iter it;
    struct snapshot_pool m;
    struct mp_doc item;
    mp_doc_key(w, doc, "pools");
    mp_put_array(w, b->all_pools.count + b->pools.count);
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        config_iter_init(&it, lists[i]);
        while (config_next_pool(&it, &m) == 1) {
            mp_doc_begin(w, &item);
            mp_doc_uuid(w, &item, "id", &m.pool_id);
            put_text(w, &item, "name", m.name);
            mp_doc_int(w, &item, "members", m.members.count);
            mp_doc_end(w, &item);
        }
    }
}

static void put_resources(struct mp_writer *w, struct mp_doc *doc, const struct snapshot_body *b)
{
    struct config_iter it;
    struct snapshot_resource m;
    struct mp_doc item;
    mp_doc_key(w, doc, "resources");
    mp_put_array(w, b->resources.count);
    config_iter_init(&it, b->resources);
    while (config_next_resource(&it, &m) == 1) {
        mp_doc_begin(w, &item);
        mp_doc_uuid(w, &item, "id", &m.resource_id);
        put_text(w, &item, "organization_id", m.organization_id);
        put_text(w, &item, "name", m.name);
        put_text(w, &item, "protocol", m.protocol);
        mp_doc_str(w, &item, "served_by",
                   !uuid_is_nil(&m.pool_id)   ? "pool"
                   : !uuid_is_nil(&m.node_id) ? "node"
                                              : NULL);
        mp_doc_end(w, &item);
    }
}

/* Who else it is told of, and what its overlay should be like. */
static void put_mesh(struct mp_writer *w, struct mp_doc *doc, const struct config *cfg)
{
    struct config_mesh mesh;
    struct config_iter it;
    struct snapshot_relay relay;
    struct snapshot_peer peer;
    struct mp_doc item;
    config_mesh(cfg, &mesh);
    mp_doc_key(w, doc, "mesh");
    mp_doc_begin(w, &item);
    mp_doc_bool(w, &item, "overlay", mesh.overlay);
    mp_doc_bool(w, &item, "synthetic", mesh.synthetic);
    put_text(w, &item, "kind", mesh.own.kind.len == 0 ? blob_str("auto") : mesh.own.kind);
    put_text(w, &item, "region", mesh.own.region);
    mp_doc_end(w, &item);
    mp_doc_key(w, doc, "relays");
    mp_put_array(w, cfg->body.relays.count);
    config_iter_init(&it, cfg->body.relays);
    while (config_next_relay(&it, &relay) == 1) {
        mp_doc_begin(w, &item);
        mp_doc_uuid(w, &item, "node_id", &relay.node_id);
        put_text(w, &item, "address", relay.address);
        put_text(w, &item, "organization_id", relay.organization_id);
        put_text(w, &item, "region", relay.region);
        mp_doc_int(w, &item, "bandwidth_mbps", (int64_t)relay.bandwidth_mbps);
        mp_doc_int(w, &item, "trust", (int64_t)(TRUST_LEVEL_MAX - relay.distrust));
        mp_doc_end(w, &item);
    }
    mp_doc_key(w, doc, "peers");
    mp_put_array(w, cfg->body.peers.count);
    config_iter_init(&it, cfg->body.peers);
    while (config_next_peer(&it, &peer) == 1) {
        mp_doc_begin(w, &item);
        mp_doc_uuid(w, &item, "node_id", &peer.node_id);
        put_text(w, &item, "address", peer.address);
        mp_doc_end(w, &item);
    }
}

/* As the owner signed it: whoever knows an older root can tell the new one by it. */
static void put_trust_record(struct node *n, struct mp_writer *w, struct mp_doc *doc)
{
    struct buf record;
    buf_init(&record, TRUST_SIGNED_MAX);
    agent_put_roots(n->agent, &record);
    if (record.len > 0) {
        mp_doc_hex(w, doc, "trust_record", buf_blob(&record));
    }
    buf_fini(&record);
}

static int config_doc(struct node *n, struct mp_writer *w, struct errmsg *em)
{
    const struct config *cfg = agent_snapshot(n->agent);
    if (cfg == NULL) {
        return errmsg_set(em, -ERR_NOT_FOUND, "no signed configuration has been received yet");
    }
    const struct snapshot_body *b = &cfg->body;
    struct mp_doc doc;
    mp_doc_begin(w, &doc);
    mp_doc_uuid(w, &doc, "cluster_id", &b->cluster_id);
    mp_doc_uuid(w, &doc, "node_id", &b->node_id);
    mp_doc_int(w, &doc, "epoch", (int64_t)b->epoch);
    mp_doc_int(w, &doc, "config_version", (int64_t)b->config_version);
    mp_doc_time(w, &doc, "issued_at", b->issued_at_ms);
    mp_doc_time(w, &doc, "expires_at", b->expires_at_ms);
    mp_doc_uuid(w, &doc, "signed_by", &cfg->signer.node_id);
    mp_doc_int(w, &doc, "audit_seq", (int64_t)b->audit_seq);
    mp_doc_hex(w, &doc, "audit_head", b->audit_head);
    mp_doc_key(w, &doc, "roles");
    put_roles(n, w);
    put_snapshot_rows(w, &doc, b);
    put_mesh(w, &doc, cfg);
    put_intents(w, &doc, b);
    put_pools(w, &doc, b);
    put_trust_record(n, w, &doc);
    put_resources(w, &doc, b);
    mp_doc_end(w, &doc);
    return 0;
}

/* Reads the stored bytes again and checks them as if they had just arrived. */
static int config_verify_doc(struct node *n, struct mp_writer *w, struct errmsg *em)
{
    struct buf bytes;
    uint64_t epoch;
    uint64_t version;
    struct config *cfg = NULL;
    buf_init(&bytes, 2 * SNAPSHOT_MAX_BYTES);
    int rc = member_load_snapshot(n->member, &bytes, &epoch, &version);
    if (rc != 0) {
        (void)errmsg_set(em, rc, "no signed configuration is stored");
        goto out;
    }
    struct config_expect expect;
    agent_expect(n->agent, &expect);
    expect.epoch = epoch;
    expect.version = version;
    expect.again = true;
    rc = config_verify(buf_blob(&bytes), &expect, &cfg, em);
    if (rc == 0) {
        struct mp_doc doc;
        mp_doc_begin(w, &doc);
        mp_doc_bool(w, &doc, "ok", true);
        mp_doc_int(w, &doc, "epoch", (int64_t)cfg->body.epoch);
        mp_doc_int(w, &doc, "config_version", (int64_t)cfg->body.config_version);
        mp_doc_uuid(w, &doc, "signed_by", &cfg->signer.node_id);
        mp_doc_time(w, &doc, "expires_at", cfg->body.expires_at_ms);
        mp_doc_bool(w, &doc, "witnessed", cfg->witnessed);
        mp_doc_int(w, &doc, "authority_set", (int64_t)cfg->set.seq);
        mp_doc_int(w, &doc, "authority_set_members", (int64_t)cfg->set.count);
        mp_doc_end(w, &doc);
    }
    config_free(cfg);
out:
    buf_fini(&bytes);
    return rc;
}

struct session_rows {
    struct mp_writer *w;
    uint32_t count;
};

static void put_session(void *data, const struct fabric_session_info *info)
{
    struct session_rows *rows = data;
    char address[ADDR_TEXT_MAX];
    struct mp_doc doc;
    char path[UUID_TEXT_MAX + 8] = "direct";
    addr_format(&info->peer.address, address);
    if (info->relayed) {
        char via[UUID_TEXT_MAX];
        uuid_format(&info->via, via);
        (void)snprintf(path, sizeof path, "via %s", via);
    }
    mp_doc_begin(rows->w, &doc);
    mp_doc_uuid(rows->w, &doc, "node_id", &info->peer.identity.node_id);
    mp_doc_str(rows->w, &doc, "path", path);
    mp_doc_str(rows->w, &doc, "address", info->relayed ? NULL : address);
    mp_doc_bool(rows->w, &doc, "authenticated", info->peer.authenticated);
    mp_doc_bool(rows->w, &doc, "authority", info->peer.identity.authority);
    mp_doc_bool(rows->w, &doc, "dialled", info->dialled);
    mp_doc_bool(rows->w, &doc, "bulk", info->bulk);
    mp_doc_int(rows->w, &doc, "rtt_us", info->rtt_us);
    mp_doc_int(rows->w, &doc, "bytes_in", (int64_t)info->bytes_in);
    mp_doc_int(rows->w, &doc, "bytes_out", (int64_t)info->bytes_out);
    mp_doc_int(rows->w, &doc, "packets_lost", (int64_t)info->packets_lost);
    mp_doc_time(rows->w, &doc, "up_since_at", info->up_since_ms);
    mp_doc_end(rows->w, &doc);
    rows->count++;
}

static void put_overlay(struct node *n, struct mp_writer *w, struct mp_doc *doc)
{
    struct fabric_overlay_counters c;
    struct mp_doc inner;
    fabric_overlay_counters(n->fabric, &c);
    mp_doc_key(w, doc, "overlay");
    mp_doc_begin(w, &inner);
    mp_doc_bool(w, &inner, "on", n->overlay != NULL);
    mp_doc_int(w, &inner, "sent", (int64_t)c.sent);
    mp_doc_int(w, &inner, "forwarded", (int64_t)c.forwarded);
    mp_doc_int(w, &inner, "delivered", (int64_t)c.delivered);
    mp_doc_int(w, &inner, "moved_to_direct", (int64_t)c.moved_to_direct);
    mp_doc_int(w, &inner, "moved_to_relay", (int64_t)c.moved_to_relay);
    mp_doc_int(w, &inner, "queued_bytes", (int64_t)c.queued_bytes);
    for (size_t i = 0; i < FABRIC_DROP_COUNT; i++) {
        char key[40];
        (void)snprintf(key, sizeof key, "dropped_%s", fabric_drop_slugs[i]);
        mp_doc_int(w, &inner, key, (int64_t)c.drops[i]);
    }
    mp_doc_end(w, &inner);
}

static void sessions_doc(struct node *n, struct mp_writer *w)
{
    struct mp_doc doc;
    struct fabric_counters c;
    fabric_counters(n->fabric, &c);
    mp_doc_begin(w, &doc);
    mp_doc_key(w, &doc, "items");
    size_t at = mp_list_begin(w);
    struct session_rows rows = {.w = w};
    fabric_sessions(n->fabric, put_session, &rows);
    mp_list_end(w, at, rows.count);
    mp_doc_str(w, &doc, "next_cursor", NULL);
    mp_doc_key(w, &doc, "counters");
    struct mp_doc inner;
    mp_doc_begin(w, &inner);
    mp_doc_int(w, &inner, "sessions", (int64_t)c.sessions);
    mp_doc_int(w, &inner, "sessions_opened", (int64_t)c.sessions_opened);
    mp_doc_int(w, &inner, "handshakes_failed", (int64_t)c.handshakes_failed);
    mp_doc_int(w, &inner, "half_open", (int64_t)c.half_open);
    mp_doc_int(w, &inner, "retries_sent", (int64_t)c.retries_sent);
    mp_doc_int(w, &inner, "resets_sent", (int64_t)c.resets_sent);
    mp_doc_int(w, &inner, "auth_refused", (int64_t)c.auth_refused);
    mp_doc_int(w, &inner, "rate_limited", (int64_t)c.rate_limited);
    mp_doc_int(w, &inner, "sessions_denied", (int64_t)c.sessions_denied);
    mp_doc_int(w, &inner, "streams_denied", (int64_t)c.streams_denied);
    mp_doc_int(w, &inner, "dropped_limit", (int64_t)c.dropped_limit);
    mp_doc_int(w, &inner, "packets_in", (int64_t)c.packets_in);
    mp_doc_int(w, &inner, "packets_out", (int64_t)c.packets_out);
    mp_doc_int(w, &inner, "bytes_in", (int64_t)c.bytes_in);
    mp_doc_int(w, &inner, "bytes_out", (int64_t)c.bytes_out);
    mp_doc_int(w, &inner, "rpcs_served", (int64_t)c.rpcs_served);
    mp_doc_int(w, &inner, "rpcs_made", (int64_t)c.rpcs_made);
    mp_doc_end(w, &inner);
    put_overlay(n, w, &doc);
    mp_doc_end(w, &doc);
}

static int route_doc(struct node *n, bool explain, struct blob args, struct mp_writer *w,
                     struct errmsg *em)
{
    if (n->overlay == NULL) {
        return errmsg_set(
            em, -ERR_DENIED,
            "the overlay is off on this node: `rap mesh set --overlay on` turns it on everywhere, "
            "`rap node mesh N --overlay on` for one node");
    }
    if (explain) {
        char text[SELECTOR_MAX];
        struct uuid chosen = UUID_NIL;
        mp_find_str(args, "dst", text, sizeof text);
        if (route_is_selector(text)) {
            int rc = route_choose(n, text, "", &chosen, em);
            if (rc != 0) {
                return rc;
            }
            uuid_format(&chosen, text);
        }
        return overlay_explain_doc(n->overlay, text, w, em);
    }
    overlay_list_doc(n->overlay, w);
    return 0;
}

static int route_id_doc(struct node *n, bool open, struct blob args, struct mp_writer *w,
                        struct errmsg *em)
{
    char text[SELECTOR_MAX + 1]; /* one more than fits: too long is not cut to what fits */
    struct uuid route;
    int64_t expires_ms = 0;
    struct mp_doc doc;
    mp_find_str(args, open ? "to" : "id", text, sizeof text);
    int rc = open                            ? route_id_open(n, text, &route, &expires_ms, em)
             : uuid_parse(text, &route) != 0 ? errmsg_set(em, -ERR_INVALID, "not the id of a route")
                                             : route_id_close(n, &route, em);
    if (rc == 0) {
        mp_doc_begin(w, &doc);
        mp_doc_uuid(w, &doc, "route_id", &route);
        mp_doc_time(w, &doc, "expires_at", expires_ms);
        mp_doc_end(w, &doc);
    }
    return rc;
}

bool node_document(struct node *n, const char *method, struct blob args, struct mp_writer *w,
                   int *ret_rc, struct errmsg *em)
{
    *ret_rc = 0;
    if (strcmp(method, "status") == 0) {
        status_doc(n, w);
    } else if (strcmp(method, "config.show") == 0) {
        *ret_rc = config_doc(n, w, em);
    } else if (strcmp(method, "config.verify") == 0) {
        *ret_rc = config_verify_doc(n, w, em);
    } else if (strcmp(method, "fabric.sessions") == 0) {
        sessions_doc(n, w);
    } else if (strcmp(method, "metrics") == 0) {
        *ret_rc = node_metrics_doc(n, w);
    } else if (strcmp(method, "route.list") == 0) {
        *ret_rc = route_doc(n, false, args, w, em);
    } else if (strcmp(method, "route.explain") == 0) {
        *ret_rc = route_doc(n, true, args, w, em);
    } else if (strcmp(method, "route.open") == 0) {
        *ret_rc = route_id_doc(n, true, args, w, em);
    } else if (strcmp(method, "route.close") == 0) {
        *ret_rc = route_id_doc(n, false, args, w, em);
    } else {
        return false;
    }
    return true;
}
