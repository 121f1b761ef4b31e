/* Inside the replicated state: what fsm.c (the engine) and the command families fsm_*.c share.
 *
 *   fsm.c         entry -> commands -> one transaction; results by request id
 *   fsm_track.c   row changes -> digest, mirror callback (preupdate hook)
 *   fsm_audit.c   the audit chain
 *   fsm_image.c   image and restore; fsm_schema.c what its schema must be
 *   fsm_doc.c     rows -> documents; also what query.c answers with
 *   fsm_util.c    what handlers need: refusal, bans, nodes, lists, certificates
 *   fsm_level.c   schema levels
 *   fsm_cut.c     what a snapshot says, from the rows alone
 *   fsm_witness.c what a majority signs: tree, history, authority sets
 *   fsm_recovery.c fsm_divergence.c fsm_partition.c   epochs, fenced authorities, partitions
 *   fsm_trust.c   roots in rotation, issuing CAs, certificates that run out
 *   fsm_split.c   nodes that leave for a cluster of their own; split.c what they wait for
 *   fsm_model.c   memberships, capabilities, observations; fsm_group.c groups
 *   fsm_cluster.c fsm_token.c fsm_join.c fsm_node.c fsm_role.c fsm_authority.c   the commands */
#ifndef RAP_AUTHORITY_FSM_IMPL_H
#define RAP_AUTHORITY_FSM_IMPL_H

#include "authority/fsm.h"
#include "base/text.h"
#include "pki/pki.h"

#define HEX32 65 /* text of 32 bytes */
#define HEX16 33
#define JSON_LIST_MAX 4096
#define FSM_RING 4096
#define FSM_WITNESS_RING 256
#define FSM_RESULT_LIFE_MS (24LL * 3600 * 1000)
#define FSM_EXPIRE_STEP 256
#define FSM_LEVEL_FIRST 1 /* of an empty state; the log raises it */
#define FSM_CHANGES_MAX ((size_t)1 << 30)

/* What a command moves besides rows. Copied before each command and put back when it is refused. */
struct fsm_vars {
    uint64_t epoch, term, index;
    int64_t time_ms;
    uint64_t config_index;
    uint64_t audit_seq;
    uint8_t audit_head[32];
    uint64_t pending_requests;
    unsigned level;                 /* of the schema: migrations that ran */
    char cluster_id[UUID_TEXT_MAX]; /* "" before cluster_init */
};

struct fsm_table {
    char *name;
    char **columns;
    int columns_count;
};

struct fsm {
    const struct db_migration *schema; /* all levels this binary knows */
    struct db *db;
    struct fsm_vars vars;
    uint8_t digest[32];
    struct {
        uint64_t index;
        uint8_t digest[32];
    } ring[FSM_RING];
    size_t ring_count;
    size_t ring_next;

    /* fsm_witness.c; empty while no authority set is known. */
    struct witness_set set; /* the newest */
    struct merkle *tree;
    struct history history;
    struct buf audit_new; /* hashes of audit rows of the entry being applied */
    struct fsm_witness witnesses[FSM_WITNESS_RING];
    size_t witness_count;
    size_t witness_next;

    bool recording; /* inside fsm_apply's transaction */
    struct buf changes;
    bool keep_before;
    struct buf before; /* old rows of updates */
    struct fsm_table *tables;
    size_t tables_count;
    fsm_change_cb change_cb;
    void *change_data;
    fsm_touch_cb touch_cb;
    void *touch_data;
    fsm_entry_cb entry_cb;
    void *entry_data;
    uint64_t generation;
};

/* One command on its way. */
struct fsm_ctx {
    struct fsm *f;
    struct db *db;
    struct fsm_vars *v;
    const struct cmd *cmd;
    int64_t now_ms; /* the effective stamp: never below an earlier one */
    uint64_t index, term;
    const char *cluster_id;
    struct blob actor_kind, actor_id;
    struct mp_writer doc; /* the result document */
    bool savepoints;
    bool refused;
    char detail[256];
    bool config_changed; /* for every node; see fsm_node_config */
};

/* What one node's own snapshot says changed: its roles, its name. */
int fsm_node_config(struct fsm_ctx *x, const char *node_id);
/* Something that every node is told of relays has changed about this node, if it is one. */
int fsm_note_relay(struct fsm_ctx *x, const char *node_id);

/* A refusal: the command's result is rc with this text, its changes are undone. Returns rc. Any
 * other negative rc of a handler means that the entry cannot be applied at all. */
#define fsm_refuse(x, rc, ...) errmsg_rc_((rc), fsm_refuse_text((x), __VA_ARGS__))
struct fsm_ctx *fsm_refuse_text(struct fsm_ctx *x, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* --- fsm_track.c --- */
void fsm_track_attach(struct fsm *f); /* after f->db is set */
/* The tables are others now, or those of before again. */
void fsm_track_tables(struct fsm *f);
void fsm_track_free(struct fsm *f);
void fsm_track_digest(struct fsm *f, uint64_t index, uint8_t ret[32]);
void fsm_track_emit(struct fsm *f);
bool fsm_track_has(const struct fsm *f, const char *table);
/* There must be one. */
const struct fsm_table *fsm_track_table(const struct fsm *f, struct blob name);
void fsm_ring_push(struct fsm *f, uint64_t index, const uint8_t digest[32]);

/* --- fsm_witness.c --- */
void fsm_witness_reset(struct fsm *f);
/* Everything anew from the rows: after a restore. */
void fsm_witness_load(struct fsm *f);
/* An audit row was added by the entry being applied. */
void fsm_witness_audit(struct fsm *f, uint64_t seq, const uint8_t hash[PKI_HASH_BYTES]);
/* The owner's recovery says who signs from there on; x->v->epoch is the new one already. */
int fsm_authority_set_recovered(struct fsm_ctx *x, struct blob signed_recovery);
/* After the commit, while the entry's row changes are still there. */
void fsm_witness_follow(struct fsm *f, uint64_t index);

/* --- fsm_image.c --- */
int fsm_state_load(struct db *db, struct fsm_vars *ret_vars, uint8_t ret_digest[32],
                   struct errmsg *em);
int fsm_db_open(struct db **ret, struct errmsg *em);
extern const struct db_migration migrations_state[];
/* fsm_new with levels of the caller's, static: for tests of two versions side by side. */
int fsm_new_of(const struct db_migration *schema, struct fsm **ret, struct errmsg *em);

/* --- fsm_schema.c --- any thread */
/* Whether db has, word for word, the tables and indexes of the level it says it is of: -ERR_CORRUPT if
 * not, -ERR_SCHEMA when this binary does not know the level. */
int fsm_schema_check(struct db *db, const struct db_migration *schema, unsigned *ret_level,
                     struct errmsg *em);

/* --- fsm_audit.c --- */
struct fsm_audit {
    const char *event;
    const char *subject_type;
    const char *subject_id;
    const char *organization_id; /* NULL: none */
};
/* details: a finished JSON object. */
int fsm_audit_add(struct fsm_ctx *x, const struct fsm_audit *a, struct blob details);
/* JSON objects of strings and numbers for details; fixed size, one at a time. */
struct fsm_json {
    struct buf out;
    bool any;
};
void fsm_json_begin(struct fsm_json *j);
void fsm_json_str(struct fsm_json *j, const char *key, struct blob v);
void fsm_json_text(struct fsm_json *j, const char *key, const char *v);
void fsm_json_int(struct fsm_json *j, const char *key, int64_t v);
/* v is JSON already. */
void fsm_json_raw(struct fsm_json *j, const char *key, const char *v);
struct blob fsm_json_end(struct fsm_json *j);
void fsm_json_fini(struct fsm_json *j);
/* begin, the event with one detail (key NULL: none), end, fini. */
int fsm_audit_simple(struct fsm_ctx *x, const char *event, const char *subject_type,
                     const char *subject_id, const char *key, struct blob value);
/* event about a node's certificate: serial, fingerprint, end. */
int fsm_audit_cert(struct fsm_ctx *x, const char *event, const char *node_id,
                   const struct cmd_cert *c);

/* --- fsm_doc.c --- */
/* The SELECT ... FROM of a kind, to which a caller adds WHERE and ORDER BY at compile time. */
#define FSM_SQL_TOKEN                                                                          \
    "SELECT t.id, t.cluster_id, t.scope,"                                                      \
    " CASE t.scope WHEN '{}' THEN NULL ELSE json_extract(t.scope, '$.roles') END"              \
    "   AS scope_roles,"                                                                       \
    " CASE t.scope WHEN '{}' THEN NULL ELSE json_extract(t.scope, '$.name') END"               \
    "   AS scope_name, t.expires_at, t.max_uses, t.used_count,"                                \
    " t.created_by_user_id, t.created_at, t.revoked_at FROM node_join_tokens t"
#define FSM_SQL_REQUEST                                                                        \
    "SELECT r.id, r.cluster_id, r.node_name, r.node_fingerprint, r.status,"                    \
    " r.reported_capabilities, r.reported_facts, r.requested_roles, r.source_address,"         \
    " r.address, r.join_token_id, r.created_at, r.expires_at, r.reviewed_at,"                  \
    " r.reviewed_by_user_id, r.approved_node_id, r.rejection_reason"                           \
    " FROM node_join_requests r"
#define FSM_SQL_NODE                                                                           \
    "SELECT n.id, n.name, n.fingerprint, n.enrollment_status, n.health_status,"                \
    " n.identity_state, m.membership_status,"                                                  \
    " (SELECT json_group_array(role) FROM (SELECT DISTINCT role FROM node_role_assignments"    \
    "   WHERE node_id = n.id AND status = 'active' ORDER BY role)) AS roles,"                  \
    " (SELECT json_group_array(capability) FROM (SELECT capability FROM node_capabilities"     \
    "   WHERE node_id = n.id ORDER BY capability)) AS capabilities,"                           \
    " n.address, n.agent_version, i.certificate_serial, i.certificate_not_before,"             \
    " i.certificate_not_after, i.certificate_not_after AS certificate_expires_at,"              \
    " m.joined_at, m.last_seen_at, n.facts,"                                                   \
    " EXISTS (SELECT 1 FROM cluster_authorities a"                                             \
    "   WHERE a.node_id = n.id AND a.status <> 'removed') AS authority"                        \
    " FROM nodes n JOIN cluster_memberships m ON m.node_id = n.id"                             \
    " LEFT JOIN node_identities i ON i.node_id = n.id AND i.identity_status = 'active'"
/* What a node needs of its renewal. */
#define FSM_SQL_RENEWED                                                                        \
    "SELECT n.id, n.name, n.fingerprint, i.certificate_serial, i.certificate_not_before,"      \
    " i.certificate_not_after, i.certificate, i.issuer_certificate FROM nodes n"               \
    " JOIN node_identities i ON i.node_id = n.id AND i.identity_status = 'active'"
#define FSM_SQL_ROLE                                                                           \
    "SELECT a.id, a.cluster_id, a.node_id, n.name AS node_name, a.role, a.organization_id,"    \
    " a.status, a.assigned_by_user_id, a.assigned_at, a.policy, a.authority_index"             \
    " FROM node_role_assignments a LEFT JOIN nodes n ON n.id = a.node_id"
#define FSM_SQL_AUTHORITY                                                                      \
    "SELECT a.node_id, a.cluster_id, n.name, a.address, a.issuer_fingerprint,"                 \
    " a.status, a.added_at, a.removed_at"                                                      \
    " FROM cluster_authorities a LEFT JOIN nodes n ON n.id = a.node_id"
#define FSM_SQL_CLUSTER                                                                        \
    "SELECT c.id, c.name, c.slug, c.status, c.region, c.created_at, c.updated_at,"             \
    " c.config_version, c.test_telemetry,"                                                     \
    " (SELECT root_id FROM cluster_trust_roots WHERE status = 'active') AS root_id,"           \
    " p.epoch, p.term, p.\"index\","                                                           \
    " (SELECT count(*) FROM nodes WHERE enrollment_status = 'enrolled') AS nodes_count,"       \
    " (SELECT count(*) FROM cluster_authorities WHERE status <> 'removed')"                    \
    "   AS authorities_count,"                                                                 \
    " (SELECT count(*) FROM node_join_requests WHERE status = 'pending')"                      \
    "   AS pending_requests_count"                                                             \
    " FROM clusters c LEFT JOIN authority_applied p ON p.cluster_id = c.id"
#define FSM_SQL_MEMBERSHIP                                                                     \
    "SELECT m.cluster_id, m.node_id, n.name AS node_name, m.membership_status, m.joined_at,"   \
    " m.last_seen_at, m.group_id"                                                              \
    " FROM cluster_memberships m LEFT JOIN nodes n ON n.id = m.node_id"
#define FSM_SQL_GROUP                                                                          \
    "SELECT g.id, g.cluster_id, g.parent_group_id, p.name AS parent_name, g.name, g.kind,"     \
    " (SELECT count(*) FROM cluster_memberships m WHERE m.group_id = g.id) AS nodes_count,"    \
    " g.created_at FROM node_groups g LEFT JOIN node_groups p ON p.id = g.parent_group_id"
#define FSM_SQL_HEARTBEAT                                                                      \
    "SELECT h.node_id, h.observed_at, h.received_at, h.health, h.version, h.config_version"    \
    " FROM node_heartbeats h"
#define FSM_SQL_MESH_(more)                                                                   \
    "SELECT c.id AS cluster_id, coalesce(s.overlay, 0) AS overlay,"                            \
    " coalesce(s.synthetic, 0) AS synthetic, " more "s.updated_at FROM clusters c"             \
    " LEFT JOIN mesh_settings s ON s.cluster_id = c.id"
#define FSM_SQL_MESH FSM_SQL_MESH_("s.cut_off_after_ms, ")
#define FSM_SQL_MESH_BEFORE FSM_SQL_MESH_("NULL AS cut_off_after_ms, ")
#define FSM_SQL_NODE_MESH                                                                     \
    "SELECT m.node_id, n.name AS node_name, m.overlay, m.synthetic, m.kind, m.region,"         \
    " m.bandwidth_mbps, m.trust, m.updated_at FROM node_mesh_settings m"                       \
    " LEFT JOIN nodes n ON n.id = m.node_id"
/* more: names of destinations that the state has tables of only from some level on. */
#define FSM_SQL_INTENT_OF_(more_names, more_tables)                                           \
    "SELECT i.id, i.cluster_id, i.name, i.organization_id, i.service_class, i.policy,"         \
    " i.source_kind || coalesce(':' || coalesce(s.name, i.source_ref), '') AS \"from\","     \
    " i.destination_kind || coalesce(':' || coalesce(d.name, p.name, " more_names              \
    "i.destination_ref), '')"                                                                  \
    " AS \"to\", i.via_kind || coalesce(':' || coalesce(v.name, i.via_ref), '') AS via,"     \
    " i.source_kind, i.source_ref, i.destination_kind, i.destination_ref, i.via_kind,"         \
    " i.via_ref, i.qos_class, i.status, i.created_at, i.updated_at"                            \
    " FROM cluster_route_intents i LEFT JOIN nodes s ON i.source_kind = 'node' AND"            \
    " s.id = i.source_ref LEFT JOIN nodes d ON i.destination_kind = 'node' AND"                \
    " d.id = i.destination_ref LEFT JOIN egress_pools p ON i.destination_kind = 'pool' AND"    \
    " p.id = i.destination_ref LEFT JOIN nodes v ON i.via_kind = 'node' AND v.id = i.via_ref" \
    more_tables
#define FSM_SQL_INTENT_BARE FSM_SQL_INTENT_OF_("", "")
#define FSM_SQL_INTENT                                                                        \
    FSM_SQL_INTENT_OF_("r.organization_id || '/' || r.name, ",                                 \
                       " LEFT JOIN organization_resources r ON i.destination_kind = 'resource'" \
                       " AND r.id = i.destination_ref")
#define FSM_SQL_RESOURCE                                                                      \
    "SELECT r.id, r.cluster_id, r.organization_id, r.name, r.protocol, r.target_ref,"          \
    " r.node_id, n.name AS node_name, r.egress_pool_id, p.name AS egress_pool_name,"           \
    " r.credential_ref, r.created_at, r.updated_at FROM organization_resources r"              \
    " LEFT JOIN nodes n ON n.id = r.node_id LEFT JOIN egress_pools p"                          \
    " ON p.id = r.egress_pool_id"
#define FSM_SQL_POOL                                                                          \
    "SELECT p.id, p.cluster_id, p.name, p.organization_id,"                                    \
    " (SELECT json_group_array(node_id) FROM (SELECT node_id FROM egress_pool_members"         \
    "  WHERE pool_id = p.id ORDER BY node_id)) AS members, p.created_at FROM egress_pools p"
#define FSM_SQL_QOS                                                                           \
    "SELECT q.cluster_id, q.channel_class, q.priority, q.rate, q.droppable,"                   \
    " q.floor_permille, q.limit_kib, q.life_ms, q.updated_at FROM qos_policies q"
#define FSM_SQL_MESH_LINK                                                                     \
    "SELECT l.from_node_id, f.name AS from_node_name, l.to_node_id, t.name AS to_node_name,"   \
    " l.status, l.latency AS rtt_us, l.loss AS loss_permille, l.reported_at FROM mesh_links l" \
    " LEFT JOIN nodes f ON f.id = l.from_node_id LEFT JOIN nodes t ON t.id = l.to_node_id"
#define FSM_SQL_MESH_ROUTE                                                                    \
    "SELECT r.from_node_id, f.name AS from_node_name, r.to_node_id, t.name AS to_node_name,"   \
    " r.health AS status, r.path_kind, r.path AS next_hop_id, h.name AS next_hop_name,"        \
    " r.score AS metric_us, r.intent_id, r.reported_at, r.expires_at FROM mesh_routes r"       \
    " LEFT JOIN nodes f ON f.id = r.from_node_id LEFT JOIN nodes t ON t.id = r.to_node_id"     \
    " LEFT JOIN nodes h ON h.id = r.path"
#define FSM_SQL_AUDIT                                                                          \
    "SELECT e.seq, e.id, e.cluster_id, e.organization_id, e.event_type, e.actor_kind,"         \
    " e.actor_id, e.subject_type, e.subject_id, e.high_risk, e.details, e.authority_term,"     \
    " e.authority_index, e.created_at, e.prev_hash, e.hash FROM cluster_audit_events e"
#define FSM_SQL_TERM                                                                           \
    "SELECT t.cluster_id, t.epoch, t.term, t.leader_node_id, n.name AS leader_name,"           \
    " t.started_at, t.ended_at"                                                                \
    " FROM cluster_authority_terms t LEFT JOIN nodes n ON n.id = t.leader_node_id"
#define FSM_SQL_PARTITION                                                                      \
    "SELECT p.id, p.cluster_id, p.members, p.reachable, p.has_quorum, p.status,"               \
    " p.detected_at, p.resolved_at, p.resolution, p.resolved_by FROM cluster_partitions p"
#define FSM_SQL_DIVERGENCE                                                                     \
    "SELECT r.node_id, n.name AS node_name, r.epoch, r.from_epoch, r.common_index,"            \
    " r.last_index, r.last_term, r.commit_index, r.rows_total, r.rows_stored, r.status,"       \
    " r.reported_at, r.merged_at FROM divergence_reports r"                                    \
    " LEFT JOIN nodes n ON n.id = r.node_id"
#define FSM_SQL_DIVERGENCE_ENTRY                                                               \
    "SELECT e.node_id, e.epoch, e.seq, e.log_index, e.log_term, e.committed, e.kind,"          \
    " e.request_id, e.actor_kind, e.actor_id, e.subject_id, e.created_at"                      \
    " FROM divergence_entries e"
#define FSM_SQL_SPLIT                                                                         \
    "SELECT s.id, s.cluster_id, s.name, s.new_cluster_id, s.root_pin, s.seed_node_id,"         \
    " n.name AS seed_name, (SELECT json_group_array(name) FROM (SELECT coalesce(m.name,"       \
    "  p.node_id) AS name FROM cluster_split_nodes p LEFT JOIN nodes m ON m.id = p.node_id"    \
    "  WHERE p.split_id = s.id ORDER BY 1)) AS members, s.status, s.begun_at, s.ended_at,"     \
    " s.reason FROM cluster_splits s LEFT JOIN nodes n ON n.id = s.seed_node_id"
/* The row a statement stands on, as a document: *_at and certificate_not_* columns as RFC 3339,
 * lists as arrays, yes/no columns as booleans. */
void fsm_doc_row(struct db_stmt *st, struct mp_writer *w);
/* A time as documents hold it. */
void fsm_doc_time(struct mp_writer *w, int64_t ms);
/* The document of one thing as a command's result. */
int fsm_doc_put(struct fsm_ctx *x, const char *sql, const char *id);

/* --- fsm_util.c --- */
const char *fsm_id(const struct uuid *u, char out[UUID_TEXT_MAX]);
const char *fsm_hex(struct blob b, char *out);          /* out: 2 * len + 1; "" for an empty blob */
void db_bind_opt(struct db_stmt *st, struct blob text); /* empty binds NULL */
/* One row with one integer: 1 and *ret, 0 none, <0 error. Takes over the statement. */
int fsm_one_int(struct db_stmt *st, int64_t *ret);
/* 1 there is a row, 0 none, <0. Takes over the statement. */
int fsm_exists(struct db_stmt *st);

enum fsm_words { FSM_ROLES, FSM_CAPABILITIES };
/* A list of words as a JSON array without repetitions. Refused: -ERR_INVALID, -ERR_ROLE_UNKNOWN. */
int fsm_words(struct fsm_ctx *x, const struct mp_list *list, enum fsm_words kind,
              char out[JSON_LIST_MAX]);
/* Whether JSON array `list` (as fsm_words wrote it) holds the word. */
bool fsm_words_have(const char *list, struct blob word);

struct fsm_node {
    char id[UUID_TEXT_MAX];
    char name[NAME_MAX_BYTES + 1];
    char fingerprint[HEX32];
    bool enrolled;
    char membership[16];
    char authority[16]; /* status; "" when it is none */
};
/* Refused with -ERR_NOT_FOUND when there is no such node. */
int fsm_node_get(struct fsm_ctx *x, const struct uuid *id, struct fsm_node *ret);
/* Refused with -ERR_REVOKED unless enrolled and its membership active. */
int fsm_node_get_active(struct fsm_ctx *x, const struct uuid *id, struct fsm_node *ret);
/* Refused with -ERR_WRONG_NODE when another node asks. */
int fsm_node_is_actor(struct fsm_ctx *x, const struct fsm_node *n);
/* 1 banned, 0 not. */
int fsm_is_banned(struct fsm_ctx *x, const char *fingerprint);
int fsm_ban(struct fsm_ctx *x, const char *fingerprint, struct blob reason, int64_t not_after_ms);
/* -ERR_NAME_TAKEN by an enrolled node or a pending request, -ERR_INVALID. Both ids may be NULL;
 * they are the node and the request that may have it. */
int fsm_name_free(struct fsm_ctx *x, struct blob name, const char *own_node,
                  const char *own_request);
/* -ERR_MALFORMED, -ERR_UNSUPPORTED: the entry is bad. Refused: times, public key against its
 * fingerprint, serial in use (S8). */
int fsm_cert_decode(struct fsm_ctx *x, struct blob in, struct cmd_cert *ret);
/* Refused with -ERR_NOT_AUTHORITY unless a present authority's CA is above it. */
int fsm_cert_issuer_known(struct fsm_ctx *x, const struct cmd_cert *c);
int fsm_identity_insert(struct fsm_ctx *x, const char *node_id, const struct cmd_cert *c);
int fsm_capabilities_set(struct fsm_ctx *x, const char *node_id, const struct mp_list *list,
                         bool *ret_changed);
/* What policy verifies by itself is verified. */
int fsm_capabilities_by_policy(struct fsm_ctx *x, const char *node_id);
struct fsm_new_node {
    const char *id;
    struct blob name;
    struct blob fingerprint; /* 32 bytes */
    struct blob address;
    struct blob facts;
};
/* The node and its active membership. */
int fsm_node_insert(struct fsm_ctx *x, const struct fsm_new_node *n);
struct fsm_new_authority {
    const char *node_id;
    struct blob address;
    struct blob issuer_der;
    struct blob issuer_fingerprint;
    const char *status;
};
/* From now on it is on its way to a vote, or not any more. Level LEVEL_VOTES. */
int fsm_authority_waits(struct fsm_ctx *x, const char *node_id, bool waits);
/* The authority and its role. */
int fsm_authority_insert(struct fsm_ctx *x, const struct fsm_new_authority *a);
int fsm_role_insert(struct fsm_ctx *x, const char *id, const char *node_id, struct blob role,
                    struct blob organization, struct blob policy);
/* The key of the active root, which signs what only the owner may decide. Refused when there is none.
 */
int fsm_root_key(struct fsm_ctx *x, uint8_t ret[PKI_KEY_BYTES]);
/* The authority set moves along a link, as witness_set_advance checks it by the active root. */
int fsm_take_link(struct fsm_ctx *x, struct blob link, struct witness_set *ret);
/* Refused with -ERR_NOT_FOUND unless the node is a present authority. */
int fsm_authority_get(struct fsm_ctx *x, const struct uuid *id, struct fsm_node *ret);
/* The last not_after of any certificate of a node; 0 none. */
int fsm_node_last_expiry(struct fsm_ctx *x, const char *node_id, int64_t *ret);
/* What was observed of its links and routes goes. */
int fsm_mesh_forget_node(struct fsm_ctx *x, const char *node_id);
/* It leaves every egress pool. */
int fsm_pool_forget_node(struct fsm_ctx *x, const char *node_id);
/* It serves no resource any more. */
int fsm_resource_forget_node(struct fsm_ctx *x, const char *node_id);
/* Membership, identities and roles of a node end; its key is banned for ever. */
int fsm_node_shut_out(struct fsm_ctx *x, const struct fsm_node *n, struct blob reason);

/* The new certificate becomes the active one, the one before it overlaps until it expires (S8).
 * Refused: another key, a banned key. */
int fsm_cert_rotate(struct fsm_ctx *x, const struct fsm_node *n, const struct cmd_cert *cert);

/* --- fsm_model.c --- */
/* Its membership ends, or goes on, and everybody is told; audited. */
int fsm_membership_write(struct fsm_ctx *x, const struct fsm_node *n, bool disabled,
                         struct blob reason);
/* --- fsm_split.c --- */
/* Refused with -ERR_SPLIT_NOT_READY when the node is the seed of an open split. */
int fsm_split_holds(struct fsm_ctx *x, const struct fsm_node *n, bool force);

/* --- fsm_owner.c: refused unless the owner's key signed what the command says; 0 below LEVEL_SIGNED --- */
int fsm_owner_made_authority(struct fsm_ctx *x, const struct authority_add *b,
                             const struct cmd_cert *leaf);
int fsm_owner_renewed_issuer(struct fsm_ctx *x, const struct authority_renew *b);
int fsm_owner_rotated(struct fsm_ctx *x, const struct trust_rotate *b);

/* --- the commands --- */
#define FSM_HANDLER_(NAME, num, name, ...) int fsm_##name(struct fsm_ctx *x, const struct name *b);
CMD_KINDS(FSM_HANDLER_)
#undef FSM_HANDLER_

#endif
