/* Every metric there is, by name: docs/OPERATIONS.md "Watching it" says what to make of them. The numbers
 * live where they arise (*_counters, *_stats); this file only gives them names and units. Labels have few
 * values: kinds, reasons, states, and the at most ten members of the Raft group. */
#include "node/node_impl.h"

#include "base/clock.h"
#include "base/prom.h"
#include "fabric/mesh.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define METRICS_MAX_BYTES (1u << 20)

static void labelled(struct prom *p, const char *name, const char *value, uint64_t v)
{
    prom_label(p, name, value);
    prom_uint(p, v);
}

static void gauge(struct prom *p, const char *name, const char *help, uint64_t v)
{
    prom_one(p, PROM_GAUGE, name, help, v);
}

static void counter(struct prom *p, const char *name, const char *help, uint64_t v)
{
    prom_one(p, PROM_COUNTER, name, help, v);
}

static void moment(struct prom *p, const char *name, const char *help, int64_t wall_ms)
{
    prom_family(p, PROM_GAUGE, name, help);
    prom_ms(p, wall_ms);
}

/* --- the process: names as every Prometheus client has them --- */

static uint64_t resident_bytes(void)
{
    unsigned long pages = 0;
    char line[128]; /* "size resident ...", in pages */
    FILE *f = fopen("/proc/self/statm", "re");
    if (f != NULL) {
        const char *resident = fgets(line, sizeof line, f) == NULL ? NULL : strchr(line, ' ');
        pages = resident == NULL ? 0 : strtoul(resident, NULL, 10);
        (void)fclose(f);
    }
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_fds(void)
{
    uint64_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (d == NULL) {
        return 0;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        n += e->d_name[0] != '.';
    }
    (void)closedir(d);
    return n - 1; /* d itself */
}

static uint64_t cpu_us(const struct timeval *t)
{
    return (uint64_t)t->tv_sec * 1000000 + (uint64_t)t->tv_usec;
}

static void put_process(struct node *n, struct prom *p)
{
    struct rusage use;
    struct rlimit fds;
    CHECK(getrusage(RUSAGE_SELF, &use) == 0 && getrlimit(RLIMIT_NOFILE, &fds) == 0);
    prom_family(p, PROM_COUNTER, "process_cpu_seconds_total", "User and system CPU time spent.");
    prom_us(p, cpu_us(&use.ru_utime) + cpu_us(&use.ru_stime));
    gauge(p, "process_resident_memory_bytes", "Resident memory size.", resident_bytes());
    gauge(p, "process_open_fds", "Open file descriptors.", open_fds());
    gauge(p, "process_max_fds", "Most file descriptors that may be open.", fds.rlim_cur);
    moment(p, "process_start_time_seconds", "When this process started, in Unix time.",
           n->started_ms);
    prom_family(p, PROM_HISTOGRAM, "rap_loop_turn_seconds",
                "Work of the core loop between two waits; what arrives waits as long at most.");
    prom_histogram(p, &n->loop_watch.turns);
    prom_family(p, PROM_GAUGE, "rap_loop_turn_longest_seconds",
                "The longest such turn since the last scrape.");
    prom_us(p, loop_watch_longest_us(&n->loop_watch));
}

static void put_node(struct node *n, struct prom *p)
{
    char id[UUID_TEXT_MAX];
    char cluster[UUID_TEXT_MAX];
    uuid_format(&n->member->node_id, id);
    uuid_format(&n->member->cluster_id, cluster);
    prom_family(p, PROM_GAUGE, "rap_build_info", "Always 1; the version is in the label.");
    labelled(p, "version", RAP_VERSION, 1);
    prom_family(p, PROM_GAUGE, "rap_node_info", "Always 1; who this is, is in the labels.");
    prom_label(p, "cluster_id", cluster);
    prom_label(p, "cluster", n->member->cluster_name);
    prom_label(p, "node_id", id);
    prom_label(p, "node", n->member->node_name);
    prom_uint(p, 1);
}

/* --- the agent --- */

static uint64_t file_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void put_certificates(struct prom *p, const struct agent_status *as)
{
    prom_family(p, PROM_GAUGE, "rap_certificate_expires_timestamp_seconds",
                "When a certificate of this node's own chain ends, in Unix time.");
    prom_label(p, "certificate", "leaf");
    prom_ms(p, as->certificate_expires_ms);
    prom_label(p, "certificate", "issuer");
    prom_ms(p, as->issuer_expires_ms);
    prom_label(p, "certificate", "root");
    prom_ms(p, as->root_expires_ms);
}

static void put_agent(struct node *n, struct prom *p)
{
    struct agent_status as;
    const struct config *cfg = agent_snapshot(n->agent);
    agent_status(n->agent, &as);
    put_certificates(p, &as);
    gauge(p, "rap_agent_connected", "1 while this node hears an authority, or is one.",
          as.connected);
    gauge(p, "rap_agent_degraded", "1 while its configuration has expired or no authority answers.",
          as.degraded);
    gauge(p, "rap_agent_disabled", "1 while its membership is disabled.", as.disabled);
    moment(p, "rap_agent_last_contact_timestamp_seconds",
           "When an authority was last heard, in Unix time; 0 never.", as.last_contact_ms);
    gauge(p, "rap_agent_config_version",
          "Index of the log that its signed configuration was cut at.",
          cfg == NULL ? 0 : cfg->body.config_version);
    moment(p, "rap_agent_config_issued_timestamp_seconds",
           "When its signed configuration was issued, in Unix time; 0: it has none.",
           cfg == NULL ? 0 : cfg->body.issued_at_ms);
    moment(p, "rap_agent_config_expires_timestamp_seconds",
           "When its signed configuration ends, in Unix time; 0: it has none.",
           cfg == NULL ? 0 : cfg->body.expires_at_ms);
    if (as.clock_compared) {
        moment(p, "rap_agent_clock_ahead_seconds",
               "How far this clock is ahead of the authority's; negative: behind.",
               as.clock_ahead_ms);
        moment(p, "rap_agent_clock_within_seconds", "How exactly that is known.",
               as.clock_within_ms);
    }
    char *store = member_path(n->member, "node.db");
    gauge(p, "rap_agent_store_bytes", "Size of node.db.", file_bytes(store));
    free(store);
}

/* --- the fabric --- */

struct session_sums {
    uint64_t sessions, relayed, bulk, lost, rtt_us, rtt_longest_us;
};

static void add_session(void *data, const struct fabric_session_info *info)
{
    struct session_sums *s = data;
    s->sessions++;
    s->relayed += info->relayed;
    s->bulk += info->bulk;
    s->lost += info->packets_lost;
    s->rtt_us += info->rtt_us;
    s->rtt_longest_us = info->rtt_us > s->rtt_longest_us ? info->rtt_us : s->rtt_longest_us;
}

static void put_sessions(struct node *n, struct prom *p, const struct fabric_counters *c)
{
    struct session_sums s = {0};
    fabric_sessions(n->fabric, add_session, &s);
    prom_family(p, PROM_GAUGE, "rap_fabric_sessions", "Live QUIC connections, by the path taken.");
    labelled(p, "path", "direct", s.sessions - s.relayed);
    labelled(p, "path", "relayed", s.relayed);
    gauge(p, "rap_fabric_bulk_sessions", "Those of them that carry bulk data.", s.bulk);
    gauge(p, "rap_fabric_half_open", "Handshakes that are not finished.", c->half_open);
    prom_family(p, PROM_GAUGE, "rap_fabric_rtt_mean_seconds",
                "Mean of the smoothed round trip times of all live sessions.");
    prom_us(p, s.sessions == 0 ? 0 : s.rtt_us / s.sessions);
    prom_family(p, PROM_GAUGE, "rap_fabric_rtt_longest_seconds", "The longest of them.");
    prom_us(p, s.rtt_longest_us);
    counter(p, "rap_fabric_packets_lost_total",
            "Packets with data of streams that had to be sent again.", c->packets_lost + s.lost);
}

static void put_fabric(struct node *n, struct prom *p)
{
    struct fabric_counters c;
    fabric_counters(n->fabric, &c);
    put_sessions(n, p, &c);
    counter(p, "rap_fabric_sessions_opened_total", "QUIC handshakes that succeeded.",
            c.sessions_opened);
    counter(p, "rap_fabric_handshakes_failed_total", "QUIC handshakes that did not.",
            c.handshakes_failed);
    counter(p, "rap_fabric_retries_total", "Strangers asked to prove their address (Retry).",
            c.retries_sent);
    counter(p, "rap_fabric_resets_total", "Stateless resets sent.", c.resets_sent);
    counter(p, "rap_fabric_auth_refused_total", "Peers whose certificate was refused.",
            c.auth_refused);
    counter(p, "rap_fabric_rate_limited_total", "Attempts to enrol refused by the source's limit.",
            c.rate_limited);
    counter(p, "rap_fabric_sessions_denied_total",
            "Sessions that others opened and the owner's intents do not allow.", c.sessions_denied);
    counter(p, "rap_fabric_streams_denied_total",
            "Streams that others opened, of services that the owner's intents deny.",
            c.streams_denied);
    counter(p, "rap_fabric_limited_total", "What was dropped because another bound was reached.",
            c.dropped_limit);
    prom_family(p, PROM_COUNTER, "rap_fabric_packets_total", "UDP datagrams.");
    labelled(p, "direction", "in", c.packets_in);
    labelled(p, "direction", "out", c.packets_out);
    prom_family(p, PROM_COUNTER, "rap_fabric_bytes_total", "Their payload.");
    labelled(p, "direction", "in", c.bytes_in);
    labelled(p, "direction", "out", c.bytes_out);
    prom_family(p, PROM_COUNTER, "rap_fabric_rpcs_total", "Calls between nodes.");
    labelled(p, "side", "served", c.rpcs_served);
    labelled(p, "side", "made", c.rpcs_made);
}

/* --- relays, links, routes --- */

static void put_relay(struct node *n, struct prom *p)
{
    struct fabric_overlay_counters c;
    fabric_overlay_counters(n->fabric, &c);
    prom_family(p, PROM_COUNTER, "rap_relay_packets_total", "Overlay packets, by what was done.");
    labelled(p, "action", "sent", c.sent);
    labelled(p, "action", "forwarded", c.forwarded);
    labelled(p, "action", "delivered", c.delivered);
    prom_family(p, PROM_COUNTER, "rap_relay_dropped_total", "Overlay packets dropped, by reason.");
    for (size_t i = 0; i < FABRIC_DROP_COUNT; i++) {
        labelled(p, "reason", fabric_drop_slugs[i], c.drops[i]);
    }
    gauge(p, "rap_relay_queued_bytes", "Overlay packets that wait for a next hop.", c.queued_bytes);
    prom_family(p, PROM_COUNTER, "rap_fabric_path_switches_total",
                "Sessions moved to another path, by where to.");
    labelled(p, "to", "direct", c.moved_to_direct);
    labelled(p, "to", "relay", c.moved_to_relay);
}

#define LINK_STATES (MESH_LINK_SUSPECT + 1)

static void count_link(void *data, const struct mesh_link_info *info)
{
    uint64_t *states = data;
    states[info->link->state]++;
}

static void put_mesh(struct node *n, struct prom *p)
{
    gauge(p, "rap_mesh_enabled", "1 when this node takes part in the overlay.", n->overlay != NULL);
    if (n->overlay == NULL) {
        return;
    }
    const struct mesh *mesh = overlay_mesh(n->overlay);
    uint64_t states[LINK_STATES] = {0};
    struct route_counters rc;
    struct mesh_counters mc;
    mesh_links(mesh, clock_mono_ns() / 1000, count_link, states);
    mesh_counters(mesh, &mc);
    route_counters(mesh_routes(mesh), &rc);
    gauge(p, "rap_mesh_relay", "1 when this node may forward for others.",
          overlay_is_relay(n->overlay));
    prom_family(p, PROM_GAUGE, "rap_mesh_links", "Links to neighbours, by state.");
    for (unsigned i = 0; i < LINK_STATES; i++) {
        labelled(p, "state", mesh_link_state_text((enum mesh_link_state)i), states[i]);
    }
    gauge(p, "rap_mesh_active_peers", "Peers that are kept connected.",
          mesh_peers_active(mesh_peers(mesh)));
    gauge(p, "rap_mesh_routes", "Destinations in the table of routes.",
          route_destination_count(mesh_routes(mesh)));
    prom_family(p, PROM_COUNTER, "rap_mesh_link_events_total", "What happened to links.");
    labelled(p, "event", "up", mc.links_up);
    labelled(p, "event", "down", mc.links_down);
    labelled(p, "event", "suspect", mc.links_suspect);
    labelled(p, "event", "one_way", mc.links_one_way);
    labelled(p, "event", "leaf_refused", mc.leaves_refused);
    prom_family(p, PROM_COUNTER, "rap_mesh_probes_total", "Probes of links.");
    labelled(p, "direction", "in", mc.probes_in);
    labelled(p, "direction", "out", mc.probes_out);
    prom_family(p, PROM_COUNTER, "rap_route_events_total",
                "What came about routes, what was not believed (drop_), and what changed.");
#define PUT_(name) labelled(p, "event", #name, rc.name);
    ROUTE_COUNTERS(PUT_)
#undef PUT_
    labelled(p, "event", "drop_unknown_peer", mc.drop_unknown_peer);
    labelled(p, "event", "drop_malformed_probe", mc.drop_malformed);
}

/* --- the authority --- */

static void one_of(struct prom *p, const char *label, const char *const *names, size_t count,
                   const char *now)
{
    for (size_t i = 0; i < count; i++) {
        labelled(p, label, names[i], strcmp(names[i], now) == 0);
    }
}

static void put_raft_state(struct node *n, struct prom *p, const struct authority_state *st)
{
    static const char *const roles[] = {"leader", "follower", "candidate"};
    static const char *const states[] = {"healthy", "no_quorum", "recovering", "fenced"};
    char leader[UUID_TEXT_MAX];
    (void)n;
    prom_family(p, PROM_GAUGE, "rap_raft_role", "1 for the role this authority has.");
    one_of(p, "role", roles, ARRAY_SIZE(roles), st->raft_role);
    prom_family(p, PROM_GAUGE, "rap_authority_state", "1 for the state this authority is in.");
    one_of(p, "state", states, ARRAY_SIZE(states), st->state);
    gauge(p, "rap_raft_quorum", "1 while a majority is in reach.", st->quorum);
    gauge(p, "rap_raft_term", "Term.", st->term);
    gauge(p, "rap_raft_epoch", "Epoch: how often the owner recovered the cluster, from 1.",
          st->epoch);
    gauge(p, "rap_raft_commit_index", "Last entry that is known to be committed.",
          st->commit_index);
    gauge(p, "rap_raft_applied_index", "Last entry that is applied here.", st->index);
    gauge(p, "rap_raft_voters", "Voters of the configuration in force.", st->voters);
    gauge(p, "rap_raft_voters_in_contact", "Those of them that are in contact, this one included.",
          st->seen);
    prom_family(p, PROM_GAUGE, "rap_raft_leader_contact_seconds",
                "Since the leader was heard; 0 on the leader.");
    prom_ms(p, (int64_t)st->leader_contact_ms);
    prom_family(p, PROM_GAUGE, "rap_raft_clock_ahead_seconds",
                "How far this clock is ahead of the leader's; 0 on the leader.");
    prom_ms(p, st->clock_ahead_ms);
    uuid_format(&st->leader, leader);
    prom_family(p, PROM_GAUGE, "rap_raft_leader_info", "1, with the leader's node id; 0: unknown.");
    labelled(p, "node_id", uuid_is_nil(&st->leader) ? "" : leader, !uuid_is_nil(&st->leader));
    gauge(p, "rap_state_level", "Schema level of the replicated state.", st->level);
    gauge(p, "rap_state_level_known", "Highest level that this version knows.", st->level_known);
    gauge(p, "rap_certificate_alarms", "Certificates of the cluster that run out, or have.",
          st->alarms);
    gauge(p, "rap_forgeries_reported", "Forgeries reported in the last 24 hours.", st->forgeries);
}

static void put_members(struct prom *p, const struct authority_stats *s)
{
    char id[UUID_TEXT_MAX];
    prom_family(p, PROM_GAUGE, "rap_raft_peer_in_contact", "1 for a member that is in contact.");
    for (size_t i = 0; i < s->members_count; i++) {
        if (!s->members[i].self) {
            uuid_format(&s->members[i].node_id, id);
            labelled(p, "peer", id, s->members[i].in_contact);
        }
    }
    if (!s->leads) {
        return;
    }
    prom_family(p, PROM_GAUGE, "rap_raft_peer_lag_entries",
                "On the leader: entries a member does not have yet.");
    for (size_t i = 0; i < s->members_count; i++) {
        uint64_t match = s->members[i].match_index;
        if (!s->members[i].self) {
            uuid_format(&s->members[i].node_id, id);
            labelled(p, "peer", id, s->last_index > match ? s->last_index - match : 0);
        }
    }
}

static void put_commands(struct prom *p, const struct authority_stats *s)
{
    static const char *const outcomes[] = {"ok", "refused", "replayed"};
    prom_family(p, PROM_COUNTER, "rap_commands_total",
                "Commands of the log applied here since start, by kind and outcome.");
    for (uint64_t kind = 0; kind <= CMD_KIND_MAX; kind++) {
        for (size_t i = 0; i < ARRAY_SIZE(outcomes) && cmd_kind_name(kind) != NULL; i++) {
            if (s->commands[kind][i] != 0) {
                prom_label(p, "kind", cmd_kind_name(kind));
                labelled(p, "outcome", outcomes[i], s->commands[kind][i]);
            }
        }
    }
    prom_family(p, PROM_HISTOGRAM, "rap_command_commit_seconds",
                "From the proposal of a command on this leader until it was applied.");
    prom_histogram(p, s->commit);
    counter(p, "rap_commands_lost_total",
            "Commands whose outcome was not known when leadership was lost.", s->lost_proposals);
}

static void put_state(struct prom *p, const struct authority_stats *s)
{
    static const char *const refusals[] = {"join", "handshake", "service", "command"};
    gauge(p, "rap_raft_last_index", "Last entry in this log.", s->last_index);
    gauge(p, "rap_raft_snapshot_index", "Entry of the last snapshot; 0: none.", s->snapshot_index);
    gauge(p, "rap_raft_log_bytes", "Size of raft.db and its write-ahead log.", s->log_bytes);
    gauge(p, "rap_state_bytes", "Size of the replicated state in memory.", s->state_bytes);
    gauge(p, "rap_audit_head", "Number of the last audit event.", s->audit_seq);
    gauge(p, "rap_config_subscribers", "Nodes that take their configuration from here.",
          s->subscribers);
    gauge(p, "rap_enrolling", "Hosts that wait here for a decision.", s->enrolling);
    prom_family(p, PROM_GAUGE, "rap_join_requests",
                "Requests to join, by status; counted every 5 s at most.");
#define PUT_(name) labelled(p, "status", #name, s->counts.joins.name);
    AUTHORITY_JOINS(PUT_)
#undef PUT_
    prom_family(p, PROM_GAUGE, "rap_nodes", "Nodes, by health; counted every 5 s at most.");
#define PUT_(name) labelled(p, "health", #name, s->counts.nodes.name);
    AUTHORITY_HEALTHS(PUT_)
#undef PUT_
    prom_family(p, PROM_COUNTER, "rap_refusals_total", "What this authority refused, by kind.");
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        labelled(p, "what", refusals[i], s->refused[i]);
    }
}

static void put_mirror(struct prom *p, const struct authority_stats *s)
{
    gauge(p, "rap_mirror_enabled", "1 when PostgreSQL is to follow the log.", s->mirror_enabled);
    if (!s->mirror_enabled) {
        return;
    }
    gauge(p, "rap_mirror_required", "1 when high-risk changes are refused without it.",
          s->mirror_required);
    gauge(p, "rap_mirror_alarm", "1 when PostgreSQL is not to be believed.", s->mirror_alarm);
    if (!s->leads) {
        return; /* the leader writes, and knows */
    }
    gauge(p, "rap_mirror_following", "On the leader: 1 while PostgreSQL follows.",
          s->mirror_following);
    gauge(p, "rap_mirror_available",
          "On the leader: 1 while it is near enough for what requires it.", s->mirror_available);
    prom_family(p, PROM_GAUGE, "rap_mirror_lag_seconds",
                "On the leader: how long the oldest entry waits that PostgreSQL lacks.");
    prom_ms(p, (int64_t)s->mirror_lag_ms);
    if (s->mirror_position_known) {
        gauge(p, "rap_mirror_lag_entries", "On the leader: entries that PostgreSQL lacks.",
              s->mirror_lag_entries);
        gauge(p, "rap_mirror_index", "On the leader: last entry PostgreSQL has.", s->mirror_index);
    }
    counter(p, "rap_mirror_rows_total", "Rows written to PostgreSQL from here.", s->mirror_rows);
}

static void put_authority(struct node *n, struct prom *p)
{
    gauge(p, "rap_authority", "1 when this node is an authority.", n->authority != NULL);
    if (n->authority == NULL) {
        return;
    }
    struct authority_state st;
    struct authority_stats s;
    authority_state(n->authority, &st);
    authority_stats(n->authority, &s);
    put_raft_state(n, p, &st);
    put_members(p, &s);
    put_commands(p, &s);
    put_state(p, &s);
    put_mirror(p, &s);
}

int node_metrics_doc(struct node *n, struct mp_writer *w)
{
    struct buf text;
    struct prom p;
    struct mp_doc doc;
    buf_init(&text, METRICS_MAX_BYTES);
    prom_init(&p, &text);
    put_node(n, &p);
    put_process(n, &p);
    put_agent(n, &p);
    put_fabric(n, &p);
    put_relay(n, &p);
    put_mesh(n, &p);
    put_authority(n, &p);
    mp_doc_begin(w, &doc);
    mp_doc_key(w, &doc, "text");
    mp_put_bin(w, buf_blob(&text));
    mp_doc_end(w, &doc);
    int rc = text.err;
    buf_fini(&text);
    return rc;
}
