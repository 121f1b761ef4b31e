/* Every command there is. Help, completions and the man page come from here too. */
#include "admin/cli_priv.h"

#define LISTEN {"listen", "IP:PORT", "UDP address to listen on", true, false}
#define ADVERTISE \
    {"advertise", "HOST:PORT", "where others reach it (default: --listen)", false, false}
#define OWNER_DIR \
    {"owner-dir", "DIR", "where root.key and root.crt are (default: DATA-DIR/owner/CLUSTER-ID)", \
     false, false}
#define PASSPHRASE {"passphrase-file", "F", \
                    "passphrase of the root key (or RAP_OWNER_PASSPHRASE)", false, false}
#define CA_LIFETIME {"ca-lifetime", "T", "how long the CA certificate is valid (default 365d)", \
                     false, false}
#define SEED_FORCE {"force", NULL, "even the seed of an open split", false, false}
#define REASON {"reason", "TEXT", "why; kept in the audit", true, false}
#define NAME {"name", "N", "name of this node (default: host name)", false, false}
#define FROM_POSTGRES {"from-postgres", "DSN", "connection string of a role that may read the mirror", \
                       false, false}
#define WHICH_CLUSTER {"cluster-id", "ID", "which one, when several are mirrored there", false, false}

const struct cli_opt cli_common[] = {
    {"data-dir", "D", "data directory (RAP_DATA_DIR; default /var/lib/rap)", false, false},
    {"output", "table|json", "-o; json is stable, tables are for people (RAP_OUTPUT)", false,
     false},
    {"timeout", "T", "how long to wait and try again (RAP_TIMEOUT; default 60s)", false, false},
    {"yes", NULL, "do not ask", false, false},
    {"no-input", NULL, "never ask: fail instead", false, false},
    {"help", NULL, "-h; show help", false, false},
    {0},
};

const struct cli_opt *cli_flag_opt(unsigned flags, size_t i)
{
    static const struct {
        unsigned flag;
        struct cli_opt opt;
    } list[] = {
        {CLI_READS,
         {"stale", NULL, "answer from what this node knows, majority or not", false, false}},
        {CLI_MUTATES, {"dry-run", NULL, "check and describe, change nothing", false, false}},
        {CLI_LISTS, {"limit", "N", "one page of at most N (1-500)", false, false}},
        {CLI_LISTS, {"cursor", "C", "continue after an earlier page", false, false}},
        {CLI_NO_WAIT, {"no-wait", NULL, "return at once", false, false}},
    };
    for (size_t k = 0; k < ARRAY_SIZE(list); k++) {
        if ((flags & list[k].flag) != 0 && i-- == 0) {
            return &list[k].opt;
        }
    }
    return NULL;
}

/* clang-format off */
const struct cli_cmd cli_commands[] = {
    {"init", NULL, "", "make a new cluster with this host as its first authority",
     "Creates the root key in the owner directory and this node's own keys. Move the owner "
     "directory offline afterwards: it is needed only to add authorities and to recover.",
     CLI_OFFLINE, cli_run_init,
     {{"cluster", "NAME", "name of the cluster", true, false}, LISTEN, ADVERTISE, NAME, OWNER_DIR,
      PASSPHRASE}},
    {"agent", "run", "", "run the node in the foreground; logs on stderr",
     "Ready when `rap status --check` exits 0. SIGTERM ends it cleanly.",
     CLI_OFFLINE, cli_run_agent,
     {{"heartbeat", "T", "Raft heartbeat (default 50ms)", false, false},
      {"election", "T", "Raft election timeout (default 500ms)", false, false},
      {"agent-heartbeat", "T", "report to the authority this often (default 15s)", false, false},
      {"listen", "IP:PORT", "UDP address to listen on from now on", false, false},
      {"advertise", "HOST:PORT", "where others reach it from now on", false, false},
      {"overlay", NULL, "take part in the overlay, whatever the configuration says", false, false},
      {"metrics", "IP:PORT", "serve GET /metrics on this loopback address (off by default)", false,
       false},
      {"mirror-check", "T", "as leader, read the whole mirror this often (default 1h)", false, false},
      {"enroll-rate", "N", "attempts to join a second from one address (default 64)", false, false},
      {"synthetic", NULL, "answer test traffic, whatever the configuration says", false, false},
      {"log-format", "logfmt|json", "default logfmt", false, false},
      {"log-level", "L", "error, warn, info or debug (default info)", false, false}}},
    {"status", NULL, "", "this node: identity, roles, authority, quorum",
     "With --check: exits 0 when ready, 8 when degraded, 6 when no daemon answers.", CLI_READS,
     cli_run_status, {{"check", NULL, "exit code says whether the node is ready", false, false}}},

    {"doctor", NULL, "", "what is wrong with this host, and what to do about it",
     "Looks at disk, files, certificates and configuration, and sends real packets to each authority: "
     "by size, a QUIC handshake, its clock. Works with the daemon and without. Exits 8 when a check "
     "fails. Codes: udp_blocked, unreachable_authority, mtu_black_hole, wrong_pin, clock_skew, "
     "certificate_expired, no_quorum, config_expired, disk_full, file_permissions and others.",
     CLI_OFFLINE, cli_run_doctor,
     {{"token-file", "F|-", "on a host without membership: look at the token's authorities", false,
       false}}},

    {"token", "create", "", "make a join token; it is shown once",
     "The secret is made here and never leaves: the cluster stores its SHA-256.",
     CLI_MUTATES | CLI_ROLES,
     cli_run_token_create,
     {{"ttl", "T", "how long it is valid (default 1h)", false, false},
      {"uses", "N", "how many hosts may use it (default 1)", false, false},
      {"role", "R", "a role the host may ask for (repeat; default any)", false, true},
      {"name", "N", "only a host of this name may use it", false, false},
      {"print-join", NULL, "also print the command for the new host", false, false}}},
    {"token", "list", "", "join tokens (never their secrets)", NULL, CLI_READS | CLI_LISTS,
     cli_run_token_list, {{0}}},
    {"token", "revoke", "ID", "make a join token useless", NULL, CLI_MUTATES, cli_run_token_revoke,
     {{0}}},
    {"join", NULL, "", "make this host a node of a cluster, with a token",
     "Prints this host's key fingerprint for the person who approves it, then waits for the "
     "decision (with --timeout: that long). Run again to resume.",
     CLI_OFFLINE | CLI_NO_WAIT | CLI_ROLES, cli_run_join,
     {{"token-file", "F|-", "file with the token, - for stdin", true, false}, LISTEN, ADVERTISE,
      NAME, {"role", "R", "a role to ask for (repeat)", false, true}}},

    {"request", "list", "", "hosts that asked to join", NULL, CLI_READS | CLI_LISTS,
     cli_run_request_list,
     {{"status", "S", "pending, approved, rejected or expired", false, false}}},
    {"request", "show", "ID", "one request: facts, capabilities, source, fingerprint", NULL,
     CLI_READS, cli_run_request_show, {{0}}},
    {"request", "approve", "ID", "admit a host whose fingerprint you compared",
     "Compare with what `rap join` printed on that host: the whole fingerprint or its first 16 "
     "digits.",
     CLI_MUTATES, cli_run_request_approve,
     {{"fingerprint", "FP", "64 hex digits, or the first 16", true, false}}},
    {"request", "reject", "ID", "turn a host away", NULL, CLI_MUTATES, cli_run_request_reject,
     {REASON}},

    {"node", "list", "", "nodes of the cluster", NULL, CLI_READS | CLI_LISTS, cli_run_node_list,
     {{0}}},
    {"node", "show", "N", "one node, by name, id or unique prefix", NULL, CLI_READS,
     cli_run_node_show, {{0}}},
    {"node", "rename", "N NAME", "give a node another name", NULL, CLI_MUTATES, cli_run_node_rename,
     {{0}}},
    {"node", "revoke", "N", "ban a node's key for ever and cut its sessions", NULL, CLI_MUTATES,
     cli_run_node_revoke, {REASON, SEED_FORCE}},
    {"node", "remove", "N", "take a revoked node out of the lists", NULL, CLI_MUTATES,
     cli_run_node_remove, {{0}}},
    {"node", "ping", "N", "test the way from this node to another, and how long it takes",
     "N answers when test traffic is on (`rap mesh set --synthetic on`). Names are known to authorities; "
     "elsewhere give the id, pool:NAME, resource:NAME, or route:ID of `rap route open`. --bytes sends that much after the pings and tells the rate and the longest gap.",
     0, cli_run_node_ping,
     {{"via", "RELAY", "go through this relay, whatever other way there is", false, false},
      {"count", "N", "pings (default 1, at most 1000)", false, false},
      {"size", "N", "bytes in each (default 64, at most 65536)", false, false},
      {"bytes", "N", "then a transfer of N bytes (at most 1 GiB)", false, false}}},

    {"node", "disable", "N", "suspend a node's membership: it authorizes nothing until enabled",
     "Its sessions are cut, its roles stop counting, its heartbeats are refused; its key stays good. "
     "Authorities go on telling it that it is disabled.",
     CLI_MUTATES, cli_run_node_disable, {REASON, SEED_FORCE}},
    {"node", "enable", "N", "give a disabled node its membership back", NULL, CLI_MUTATES,
     cli_run_node_enable, {{"reason", "TEXT", "why; kept in the audit", false, false}}},
    {"node", "group", "N [GROUP]", "put a node into a group, or into none", NULL, CLI_MUTATES,
     cli_run_node_group, {{0}}},
    {"node", "verify", "N CAPABILITY", "vouch for a capability that a node reports",
     "What a node reports is the upper bound of what it may be asked to do; verifying says that "
     "somebody checked.",
     CLI_MUTATES, cli_run_node_verify,
     {{"withdraw", NULL, "it is only reported again", false, false}}},
    {"node", "telemetry", "N on|off", "mark a node's telemetry as a test's", NULL, CLI_MUTATES,
     cli_run_node_telemetry, {{0}}},
    {"node", "mesh", "N", "what one node's overlay is like: on or off, size, place, trust",
     "What is not given stays. Kinds: auto (by its roles), thin (1-3 peers, relays for nobody), normal "
     "(3-5), core (8-20). Region, bandwidth and trust are inputs of the choice among relays.",
     CLI_MUTATES, cli_run_node_mesh,
     {{"overlay", "on|off|inherit", "inherit: as the cluster", false, false},
      {"synthetic", "on|off|inherit", "inherit: as the cluster", false, false},
      {"kind", "K", "auto, thin, normal or core", false, false},
      {"region", "R", "where it is; none: not known", false, false},
      {"bandwidth", "MBPS", "of its line, in Mbit/s; 0: not known", false, false},
      {"trust", "N", "0 to 100 (first 100)", false, false}}},
    {"node", "heartbeats", "N", "a node's last observations", NULL, CLI_READS,
     cli_run_node_heartbeats, {{0}}},

    {"group", "list", "", "folders of nodes: sites, regions, owners, rings", NULL,
     CLI_READS | CLI_LISTS, cli_run_group_list, {{0}}},
    {"group", "show", "G", "one group", NULL, CLI_READS, cli_run_group_show, {{0}}},
    {"group", "create", "NAME", "make a group",
     "Groups are for people: nothing that is decided looks at them.", CLI_MUTATES,
     cli_run_group_create,
     {{"parent", "G", "inside this group", false, false},
      {"kind", "K", "what it stands for: site, region, owner, ring ...", false, false}}},
    {"group", "move", "G", "rename a group, or put it elsewhere", NULL, CLI_MUTATES,
     cli_run_group_move,
     {{"parent", "G", "inside this group; / is the top", false, false},
      {"name", "N", "its new name", false, false}}},
    {"group", "delete", "G", "delete an empty group", NULL, CLI_MUTATES, cli_run_group_delete,
     {{0}}},

    {"cluster", "show", "", "the cluster: health, roles without a holder, alarms", NULL, CLI_READS,
     cli_run_cluster_show, {{0}}},
    {"cluster", "update", "", "name, region, metadata, sampling of heartbeats", NULL, CLI_MUTATES,
     cli_run_cluster_update,
     {{"name", "N", "what it is called", false, false},
      {"region", "R", "where it is", false, false},
      {"metadata", "JSON", "an object of yours", false, false},
      {"test-telemetry", "on|off", "mark its telemetry as a test's", false, false},
      {"heartbeat-sample", "T", "keep an observation of each node this often (first 15m)", false,
       false}}},
    {"cluster", "require", "ROLE", "have a gap shown while nobody can do this role", NULL,
     CLI_MUTATES | CLI_ROLES, cli_run_cluster_require,
     {{"not", NULL, "not any more", false, false}}},
    {"cluster", "auto-verify", "CAPABILITY", "verify this capability whoever reports it", NULL,
     CLI_MUTATES, cli_run_cluster_verify_auto,
     {{"manual", NULL, "not any more: `rap node verify` each", false, false}}},
    {"cluster", "memberships", "[DIR]", "the clusters this host is a member of",
     "Each membership is a data directory of its own. Looks at DIR/*, first at /var/lib/rap/*, and "
     "at --data-dir.",
     CLI_OFFLINE, cli_run_cluster_memberships, {{0}}},

    {"authority", "list", "", "the nodes that decide", NULL, CLI_READS, cli_run_authority_list,
     {{0}}},
    {"authority", "add", "N", "make a node an authority; needs the owner's root key",
     "Asks the node for a key of its own, certifies it with the root key here, and waits until the "
     "node votes.",
     CLI_MUTATES | CLI_NO_WAIT, cli_run_authority_add, {OWNER_DIR, PASSPHRASE, CA_LIFETIME}},
    {"authority", "renew", "N", "certify an authority's CA anew; needs the owner's root key",
     "A CA lives a year. Renew it before: its key stays, so what it signed stays valid.",
     CLI_MUTATES, cli_run_authority_renew, {OWNER_DIR, PASSPHRASE, CA_LIFETIME}},
    {"authority", "anchor", "", "vouch for the authorities as they are; needs the owner's root key",
     "Once, in a cluster that was made before nodes asked for a majority's signatures: from then on they "
     "do. Later it shortens what a node that was away for long has to be told.",
     CLI_MUTATES, cli_run_authority_anchor, {OWNER_DIR, PASSPHRASE}},
    {"authority", "remove", "N", "take an authority out; it can neither vote nor read afterwards",
     "Refused when the group could then survive less than now: add another one first. --force does it "
     "nevertheless, but never a step that loses the majority.",
     CLI_MUTATES, cli_run_authority_remove,
     {{"reason", "TEXT", "why; kept in the audit", false, false},
      {"force", NULL, "also when fewer losses are survived afterwards", false, false}}},
    {"authority", "demote", "N", "keep an authority without a vote",
     "It follows and serves nodes, counts for no majority, and can be promoted again: for a host far away, or "
     "before work on it. Refused as a removal is when the group could then survive less than now.",
     CLI_MUTATES, cli_run_authority_demote,
     {{"reason", "TEXT", "why; kept in the audit", false, false},
      {"force", NULL, "also when fewer losses are survived afterwards", false, false}}},
    {"authority", "promote", "N", "let a demoted authority vote again, once it has caught up", NULL,
     CLI_MUTATES | CLI_NO_WAIT, cli_run_authority_promote,
     {{"reason", "TEXT", "why; kept in the audit", false, false}}},
    {"authority", "transfer", "[N]", "hand leadership over, to N or to whoever is fit", NULL,
     CLI_MUTATES, cli_run_authority_transfer, {{0}}},

    {"authority", "recover", "", "go on with this authority alone when a quorum is lost for good",
     "Offline: stop the daemon first. Shows what it will do, needs the owner's root key, and begins "
     "a new epoch in which this host is the only voter; the others are fenced, and re-join if they "
     "come back.",
     CLI_OFFLINE | CLI_MUTATES, cli_run_authority_recover,
     {OWNER_DIR, PASSPHRASE, {"reason", "TEXT", "why; kept in the audit", false, false}}},

    {"authority", "backup", "FILE", "the state of the cluster as a signed file, mode 0600",
     "Consistent: everything acknowledged before is in it. It holds no private key.",
     0, cli_run_authority_backup, {OWNER_DIR}},
    {"authority", "verify", "FILE", "check a backup: signature, hash, and what is in it", NULL,
     CLI_OFFLINE, cli_run_authority_verify, {OWNER_DIR}},
    {"authority", "restore", "[FILE]", "go on from a backup or from PostgreSQL, on a host without a "
     "membership",
     "Offline. Begins a new epoch in which this host is the only voter. With --as it takes the place "
     "of a lost authority, whose nodes then find it without being told; otherwise it is a new node. "
     "With --from-postgres the cluster is rebuilt from its mirror, if its rows are what an authority "
     "signed.",
     CLI_OFFLINE | CLI_MUTATES, cli_run_authority_restore,
     {LISTEN, ADVERTISE, OWNER_DIR, PASSPHRASE, FROM_POSTGRES, WHICH_CLUSTER,
      {"name", "N", "name of this host, when it takes nobody's place", false, false},
      {"as", "N", "the lost authority whose place it takes", false, false},
      {"epoch", "E", "the epoch to begin; above any the cluster ever had (default: one more than "
                     "the backup's)", false, false},
      {"reason", "TEXT", "why; kept in the audit", false, false}}},
    {"authority", "terms", "", "who led, when, in which epoch", NULL, CLI_READS | CLI_LISTS,
     cli_run_authority_terms, {{0}}},

    {"partition", "list", "", "authorities that lost contact, now and before", NULL,
     CLI_READS | CLI_LISTS, cli_run_partition_list, {{0}}},
    {"partition", "show", "ID", "one partition: who was out, since when, how it ended", NULL,
     CLI_READS, cli_run_partition_show, {{0}}},
    {"partition", "promote", "", "go on with this side of a partition; needs the owner's root key",
     "Refused while any authority in reach sees a majority. Begins a new epoch with this authority "
     "as its only voter; the others are fenced as soon as they hear of it.",
     CLI_MUTATES, cli_run_partition_promote, {OWNER_DIR, PASSPHRASE}},
    {"partition", "reports", "", "what fenced authorities handed over", NULL,
     CLI_READS | CLI_LISTS, cli_run_partition_reports, {{0}}},
    {"partition", "divergence", "[N]", "what fenced authority N decided apart, entry by entry",
     "Without N: what this very authority decided apart.", CLI_READS | CLI_LISTS,
     cli_run_partition_divergence, {{0}}},
    {"partition", "merge", "N", "let fenced authority N give that up and come back",
     "Needs the owner's root key, for what N decided apart is discarded.",
     CLI_MUTATES, cli_run_partition_merge, {OWNER_DIR, PASSPHRASE}},
    {"split", "begin", "", "nodes are to leave for a cluster of their own; needs the owner's root key",
     "Make the new cluster first (`rap init` on the seed's host, in a data directory of its own). The nodes "
     "stay members here until `rap split finish`; until then the seed cannot be removed. OPERATIONS, "
     "Splitting a cluster, has every step.",
     CLI_MUTATES, cli_run_split_begin,
     {{"name", "NAME", "name of the new cluster", true, false},
      {"new-root", "F", "root.crt of the new cluster's owner directory", false, false},
      {"cluster-id", "ID", "instead of --new-root: the new cluster's id", false, false},
      {"root-pin", "HEX", "with --cluster-id: the fingerprint of its root", false, false},
      {"seed", "NODE", "the node on whose host the new cluster was made", true, false},
      {"node", "N[,N...]", "who leaves besides; may be repeated", false, true}, OWNER_DIR,
      PASSPHRASE}},
    {"split", "list", "", "splits, open and ended", NULL, CLI_READS | CLI_LISTS, cli_run_split_list,
     {{0}}},
    {"split", "show", "NAME", "one split and who is in it", NULL, CLI_READS, cli_run_split_show, {{0}}},
    {"split", "report", "", "in the new cluster: what it has, signed with its root key",
     "For `rap split finish` in the old one. Ask another authority than the seed's: that it answers shows "
     "that the cluster can be administered without the seed. Nodes go by the names they have in both.",
     0, cli_run_split_report,
     {{"out", "F", "where to write it; - for stdout", true, false},
      {"node", "N[,N...]", "only these nodes (default: all)", false, true}, OWNER_DIR, PASSPHRASE}},
    {"split", "finish", "NAME", "the nodes leave; needs the owner's root key",
     "Refused, with every gap listed, until the new cluster has healthy nodes that hold their signed "
     "snapshots, the roles that leave, an authority besides the seed, and an admin API there. With "
     "--dry-run the gaps are listed and nothing changes.",
     CLI_MUTATES, cli_run_split_finish,
     {{"report", "F", "the report of the new cluster; - for stdin", true, false}, OWNER_DIR,
      PASSPHRASE}},
    {"split", "cancel", "NAME", "give a split up: its nodes stay; needs the owner's root key", NULL,
     CLI_MUTATES, cli_run_split_cancel,
     {{"reason", "TEXT", "why; kept in the audit", false, false}, OWNER_DIR, PASSPHRASE}},
    {"trust", "show", "", "roots, issuing CAs, what runs out, where a rotation stands", NULL,
     CLI_READS, cli_run_trust_show, {{0}}},
    {"trust", "policy", "", "how long node certificates live", NULL, CLI_MUTATES,
     cli_run_trust_policy,
     {{"leaf-lifetime", "T", "from now on, 1m to 90d (first 30d)", true, false}}},
    {"trust", "rotate", "PHASE", "replace the root certificate; needs the owner's root key",
     "prepare makes a new root key in the owner directory and has every node trust both; activate "
     "moves all certificates under the new root; retire ends the trust in the old one. rollback "
     "goes one step back, until retire.",
     CLI_MUTATES, cli_run_trust_rotate,
     {OWNER_DIR, PASSPHRASE, CA_LIFETIME,
      {"force", NULL, "leave behind nodes that are not ready: they must join again", false,
       false}}},

    {"role", "assign", "N ROLE", "let a node do something", NULL, CLI_MUTATES | CLI_ROLES,
     cli_run_role_assign,
     {{"org", "O", "only for this organization", false, false}}},
    {"role", "unassign", "N ROLE", "take a role away", NULL, CLI_MUTATES | CLI_ROLES,
     cli_run_role_unassign,
     {{"org", "O", "only for this organization", false, false}}},
    {"role", "list", "", "role assignments", NULL, CLI_READS | CLI_LISTS, cli_run_role_list,
     {{"node", "N", "of one node", false, false}}},

    {"mirror", "migrate", "", "make or upgrade the schema in PostgreSQL, as its administrator",
     "Works on the database alone, from any host. The authorities' role is made when it is missing "
     "and gets its rights; it cannot change the schema.",
     CLI_OFFLINE | CLI_MUTATES, cli_run_mirror_migrate,
     {{"dsn", "S", "connection string of an administrator, as psql takes it", true, false},
      {"role", "R", "role of the authorities (default rap_mirror)", false, false},
      {"cluster-id", "ID", "bind the role to this cluster's rows", false, false}}},
    {"mirror", "enable", "", "let PostgreSQL follow the log, as the system of record",
     "Every authority must reach PostgreSQL with this connection string, which holds no secret: use "
     "passfile=, sslcert= or peer authentication. With --mode required, high-risk requests are "
     "refused (mirror_unavailable) while PostgreSQL is farther behind than --max-lag.",
     CLI_MUTATES | CLI_NO_WAIT, cli_run_mirror_enable,
     {{"dsn", "S", "connection string of the authorities' role", true, false},
      {"mode", "M", "async (default) or required", false, false},
      {"max-lag", "T", "how far behind it may be when required (default 10s)", false, false},
      {"allow-insecure", NULL, "another host without sslmode=verify-full", false, false}}},
    {"mirror", "disable", "", "PostgreSQL no longer follows", NULL, CLI_MUTATES,
     cli_run_mirror_disable, {{0}}},
    {"mirror", "status", "", "state, lag, last error, speed",
     "Exits 8 when the mirror is enabled and does not follow.", CLI_READS, cli_run_mirror_status,
     {{0}}},
    {"mirror", "verify", "", "compare every row with the state at one index",
     "Exits 8 and raises an alarm when rows differ, which are named.", 0, cli_run_mirror_verify,
     {{0}}},
    {"mirror", "rebuild", "", "write what PostgreSQL has anew from the state; ends an alarm",
     "Shows first what differs; --dry-run stops there.", CLI_MUTATES | CLI_NO_WAIT,
     cli_run_mirror_rebuild, {{"reason", "TEXT", "why; kept in the audit", false, false}}},

    {"audit", "list", "", "what happened and who did it", NULL, CLI_READS | CLI_LISTS,
     cli_run_audit_list,
     {{"event-type", "T", "only this kind of event", false, false},
      {"subject", "ID", "only about this thing", false, false},
      {"node", "N", "the timeline of one node", false, false},
      {"category", "C", "membership, roles, certificates, authority, health or security", false,
       false}}},
    {"audit", "verify", "", "recompute the hash chain",
     "With --file the events of an export are checked, with --from-postgres the mirror: all of its "
     "rows, against what an authority signed. Both without a daemon; what was changed, left out or "
     "moved is named. Compare the head with that of `rap audit verify` on an authority.",
     CLI_READS, cli_run_audit_verify,
     {{"file", "F", "an export (`rap audit export`); - for stdin", false, false}, FROM_POSTGRES,
      WHICH_CLUSTER, OWNER_DIR}},
    {"audit", "export", "", "every event as JSON lines on stdout", NULL, CLI_READS,
     cli_run_audit_export, {{"event-type", "T", "only this kind of event", false, false}}},

    {"config", "show", "", "the signed configuration this node holds", NULL, 0, cli_run_config_show,
     {{0}}},
    {"config", "verify", "", "check its signature, chain, scope and age", NULL, 0,
     cli_run_config_verify, {{0}}},
    {"fabric", "sessions", "", "this node's QUIC sessions", NULL, 0, cli_run_sessions, {{0}}},
    {"route", "list", "", "where this node's overlay leads, and over whom", NULL, 0,
     cli_run_route_list, {{0}}},
    {"route", "explain", "DST", "the paths to a node: their costs, the one chosen, or why none",
     "DST is a node id, or the beginning of one that this node has heard of; pool:NAME or resource:NAME is "
     "the node that a route there would lead to now. A refusal is one of no_role, no_route, policy, "
     "hop_limit, revoked, udp_blocked.",
     0, cli_run_route_explain, {{0}}},
    {"route", "open", "SELECTOR", "a route to a node, a resource, or whichever of an egress pool is best",
     "SELECTOR is node:ID, pool:NAME, or resource:NAME (resource:ORG/NAME where two organizations of this "
     "node have one of that name). The answer is an opaque id: which node it leads to, and over which "
     "relays, is chosen at each use (`rap node ping route:ID`) and may change. It expires when it was not used "
     "for 10 minutes.",
     0, cli_run_route_open, {{0}}},
    {"route", "close", "ID", "give a route up", NULL, 0, cli_run_route_close, {{0}}},

    {"mesh", "show", "", "whether the cluster's nodes have an overlay", NULL, CLI_READS,
     cli_run_mesh_show, {{0}}},
    {"mesh", "set", "", "turn the overlay and its test traffic on or off, for the whole cluster",
     "Nodes obey with their next signed configuration. `rap node mesh` says otherwise for one node. Which "
     "nodes forward is a matter of roles: relay-node, core-mesh. A node that no authority has answered for "
     "--cut-off-after, or an authority without a majority for so long, serves nobody any more until it is in "
     "contact again; it goes on to relay, for that is the way back.",
     CLI_MUTATES, cli_run_mesh_set,
     {{"overlay", "on|off", "probe links, keep routes and use relays", false, false},
      {"synthetic", "on|off", "answer the test traffic of `rap node ping`", false, false},
      {"cut-off-after", "T|never", "how long services go on without the authority", false, false}}},
    {"intent", "list", "", "what the owner wants of routes", NULL, CLI_READS | CLI_LISTS,
     cli_run_intent_list, {{0}}},
    {"intent", "show", "I", "one intent", NULL, CLI_READS, cli_run_intent_show, {{0}}},
    {"intent", "create", "NAME", "say which ways certain nodes take to certain others",
     "Policies: prefer, avoid and require are about the ways that --via names; deny forbids them, or the "
     "destination without --via; direct tells the nodes of --from the addresses of those of --to. A way is "
     "known by its first relay. Authorities and relays are reached whatever intents say. With --org only "
     "nodes that serve the organization obey; with --service a deny is about that service alone. `rap route "
     "explain` names the intent that decided.",
     CLI_MUTATES, cli_run_intent_create,
     {{"policy", "P", "prefer, avoid, require, deny or direct", true, false},
      {"from", "S", "any (default), node:N, role:R, region:R or org:O", false, false},
      {"to", "S", "any (default), node:N, pool:P or resource:R", false, false},
      {"via", "S", "any (default), direct, node:N or region:R", false, false},
      {"qos", "C", "class of the traffic: interactive, reliable, bulk, droppable", false, false},
      {"org", "O", "of this organization; that of a resource in --to by itself", false, false},
      {"service", "S", "synthetic, remote_workspace or vpn_packet", false, false}}},
    {"intent", "enable", "I", "have an intent obeyed again", NULL, CLI_MUTATES,
     cli_run_intent_enable, {{0}}},
    {"intent", "disable", "I", "keep an intent, but have nobody obey it", NULL, CLI_MUTATES,
     cli_run_intent_disable, {{0}}},
    {"intent", "delete", "I", "delete an intent", NULL, CLI_MUTATES, cli_run_intent_delete, {{0}}},

    {"qos", "list", "", "how relays treat each class of traffic", NULL, CLI_READS, cli_run_qos_list,
     {{0}}},
    {"qos", "set", "CLASS", "change how relays treat a class",
     "Classes: control, interactive, reliable, bulk, droppable. What is not given stays.",
     CLI_MUTATES, cli_run_qos_set,
     {{"priority", "N", "0 to 9; smaller first", false, false},
      {"floor", "N", "permille of what better classes get: so much comes first (0 to 500)", false,
       false},
      {"rate", "KBPS", "at most so much for each next hop; 0: as much as there is", false, false},
      {"limit", "KIB", "waiting at once for each next hop (16 to 16384)", false, false},
      {"life", "T", "what waited longer is dropped (20ms to 10s)", false, false},
      {"droppable", "on|off", "dropped early when it stands too long", false, false}}},
    {"qos", "reset", "CLASS", "treat a class as the program does by itself", NULL, CLI_MUTATES,
     cli_run_qos_reset, {{0}}},

    {"pool", "list", "", "egress pools: nodes of which any will do", NULL, CLI_READS | CLI_LISTS,
     cli_run_pool_list, {{0}}},
    {"pool", "show", "P", "one pool", NULL, CLI_READS, cli_run_pool_show, {{0}}},
    {"pool", "create", "NAME", "make an egress pool", NULL, CLI_MUTATES, cli_run_pool_create,
     {{"org", "O", "only nodes that serve this organization may use it", false, false}}},
    {"pool", "delete", "P", "delete a pool", NULL, CLI_MUTATES, cli_run_pool_delete, {{0}}},
    {"pool", "add", "P N", "put a node into a pool", NULL, CLI_MUTATES, cli_run_pool_add, {{0}}},
    {"pool", "remove", "P N", "take a node out of a pool", NULL, CLI_MUTATES, cli_run_pool_remove,
     {{0}}},

    {"resource", "list", "", "what organizations have behind nodes and pools", NULL,
     CLI_READS | CLI_LISTS, cli_run_resource_list, {{0}}},
    {"resource", "show", "R", "one resource", NULL, CLI_READS, cli_run_resource_show, {{0}}},
    {"resource", "create", "NAME", "say which node, or pool of nodes, serves something",
     "Only nodes that serve the organization are told of it: there `rap route open resource:NAME` leads to "
     "whoever serves it. What it is behind that node (--target, --credential) is told to nobody.",
     CLI_MUTATES, cli_run_resource_create,
     {{"org", "O", "whose it is", true, false},
      {"protocol", "P", "such as rdp, vnc, ssh", true, false},
      {"node", "N", "who serves it: this node, or", false, false},
      {"pool", "P", "any node of this egress pool", false, false},
      {"target", "T", "what it is there, such as HOST:PORT", false, false},
      {"credential", "REF", "where its secret is kept; never the secret", false, false}}},
    {"resource", "set", "R", "change who serves it, or what it is there",
     "What is not given stays. --node ends --pool, and the other way round.", CLI_MUTATES,
     cli_run_resource_set,
     {{"protocol", "P", "such as rdp, vnc, ssh", false, false},
      {"node", "N", "who serves it: this node, or", false, false},
      {"pool", "P", "any node of this egress pool", false, false},
      {"target", "T", "what it is there, such as HOST:PORT", false, false},
      {"credential", "REF", "where its secret is kept; never the secret", false, false}}},
    {"resource", "delete", "R", "delete a resource", NULL, CLI_MUTATES, cli_run_resource_delete,
     {{0}}},

    {"mesh", "map", "", "a picture of the mesh: nodes by kind and region, their links and routes",
     "What the nodes reported with their last heartbeats, for whoever owns an authority's socket. --svg "
     "draws it into a file of its own, which needs nothing else to be looked at.",
     CLI_READS, cli_run_mesh_map,
     {{"svg", "F|-", "draw it into this file", false, false}}},
    {"mesh", "links", "", "links of the overlay, as the nodes at both ends report them",
     "Samples that come with heartbeats; the leader has them all. Needs an authority.",
     CLI_READS | CLI_LISTS, cli_run_mesh_links,
     {{"node", "N", "from or to this node", false, false}}},
    {"mesh", "routes", "", "where nodes send what is for others, as they report it",
     "A relay reports its ways to other relays, an ordinary node what it has asked for.",
     CLI_READS | CLI_LISTS, cli_run_mesh_routes,
     {{"node", "N", "from or to this node", false, false}}},

    {"version", NULL, "", "version of this binary", NULL, CLI_OFFLINE, cli_run_version, {{0}}},
    {"completion", NULL, "SHELL", "completions for bash, zsh or fish",
     "For bash: rap completion bash > /etc/bash_completion.d/rap", CLI_OFFLINE, cli_run_completion,
     {{0}}},
    {"help", NULL, "[COMMAND] [VERB]", "help on everything or one command", NULL, CLI_OFFLINE,
     cli_run_help, {{0}}},
    {0},
};
/* clang-format on */
