/* A membership: what this host holds to be one node of one cluster. Each has a directory of its own
 * and shares nothing with another (DESIGN D1).
 *
 *   <data-dir>/lock                     one process a data directory
 *   <data-dir>/rap.sock                 the local API
 *   <data-dir>/owner/<cluster-id>/      root.key root.crt (only on the seed, until moved offline)
 *   <data-dir>/member/
 *       node.key                        0600, never leaves
 *       node.crt                        PEM: leaf, issuing CA, root
 *       node.db                         settings, signed snapshot (SPEC LST-01)
 *       issuer.key issuer.crt raft.db   authorities only
 *       join.token                      0600; while a join is pending, removed after
 *
 * A data directory is in one of three states, whatever moment the process was killed at:
 *
 *   none ──member_create──> pending ──member_approve / member_set_ids──> complete
 *     ^                        │
 *     └────member_discard──────┘
 *
 *   none      no settings in node.db; files that an interrupted create left count for nothing
 *   pending   settings are there, the node id is nil or node.crt is missing
 *   complete  settings with a node id, and node.crt
 */
#ifndef RAP_AGENT_MEMBER_H
#define RAP_AGENT_MEMBER_H

#include "base/db.h"
#include "base/id.h"
#include "pki/pki.h"

struct member {
    char *data_dir;
    char *dir;     /* <data-dir>/member */
    int lock_fd;   /* <data-dir>/lock, held while the member is open */
    struct db *db; /* node.db, open while the member is */
    /* From settings in node.db: */
    struct uuid cluster_id;
    struct uuid node_id; /* nil while a join is pending */
    char cluster_name[NAME_MAX_BYTES + 1];
    char node_name[NAME_MAX_BYTES + 1];
    char listen[ADDRESS_MAX_BYTES + 1];    /* numeric ip:port */
    char advertise[ADDRESS_MAX_BYTES + 1]; /* host:port others dial */
    uint8_t reset_secret[32];
};

/* Makes the directory, the key pair and node.db with these settings (ids may be nil). -ERR_EXISTS
 * when the data directory has a membership already, pending ones included: nothing is touched.
 * -ERR_BUSY when another process uses the data directory and it holds no complete membership.
 * -ERR_INVALID: a name or address. */
struct member_settings {
    const char *cluster_name, *node_name, *listen, *advertise; /* advertise NULL = listen */
    struct uuid cluster_id, node_id;
};
int member_create(const char *data_dir, const struct member_settings *s, struct member **ret,
                  struct errmsg *em);
#define MEMBER_RUNBOOK "docs/OPERATIONS.md#a-node-whose-store-is-damaged"
/* -ERR_NOT_FOUND: this data directory has no membership (em says what to run). -ERR_BUSY as above.
 * -ERR_CORRUPT: settings or the key are damaged or missing, or the store is, beside a certificate; em names
 * the runbook. So does member_create then, which makes no other member of this one. */
int member_open(const char *data_dir, struct member **ret, struct errmsg *em);
/* Unlocks the data directory. NULL-safe. */
void member_free(struct member *m);
bool member_is_pending(const struct member *m);
/* Turns a pending membership into none and frees m, on errors too. -ERR_CONFLICT when complete. */
int member_discard(struct member *m, struct errmsg *em);

/* <member dir>/<name>; caller frees. */
char *member_path(const struct member *m, const char *name);
int member_key(const struct member *m, struct pki_key **ret, struct errmsg *em);
/* What an approved join brought, already verified by the caller: chain and database change so that a
 * kill in between leaves the join pending. Removes join.token. */
struct member_approval {
    struct uuid node_id;
    const char *cluster_name;
    struct blob chain[3];
    struct blob snapshot; /* signed */
    uint64_t epoch, config_version;
    int64_t now_ms;
    struct blob authority_set; /* statement; empty: none was shown */
};
int member_approve(struct member *m, const struct member_approval *ap, struct errmsg *em);
/* Where it listens and what it advertises (NULL = listen) from now on. */
int member_set_addresses(struct member *m, const char *listen, const char *advertise,
                         struct errmsg *em);
int member_set_node_name(struct member *m, const char *node_name, struct errmsg *em);
/* Ids and names. With a chain in place this completes the membership. */
int member_set_ids(struct member *m, const struct uuid *node_id, const char *cluster_name,
                   struct errmsg *em);
/* node.crt: chain[0] leaf, [1] issuing CA, [2] root. Atomic. */
int member_save_chain(struct member *m, const struct blob chain[3], struct errmsg *em);
/* Each buffer initialised by the caller with max CERT_DER_MAX. */
int member_load_chain(const struct member *m, struct buf ret_chain[3], struct errmsg *em);

/* Small values in node.db: 0, -ERR_NOT_FOUND. The buffer is appended to. */
int member_get(struct member *m, const char *key, struct buf *ret);
int member_put(struct member *m, const char *key, struct blob value, struct errmsg *em);
int member_drop(struct member *m, const char *key, struct errmsg *em);

/* The last accepted snapshot, replaced as one; within the caller's transaction if there is one. The
 * buffer is appended to. -ERR_NOT_FOUND. */
int member_save_snapshot(struct member *m, struct blob signed_snapshot, uint64_t epoch,
                         uint64_t config_version, int64_t now_ms, struct errmsg *em);
/* The same, and the authority set that was believed with it (empty: as before), in one transaction. */
int member_save_witnessed(struct member *m, struct blob signed_snapshot, uint64_t epoch,
                          uint64_t config_version, struct blob set_statement, int64_t now_ms,
                          struct errmsg *em);
#define MEMBER_AUTHORITY_SET "authority_set" /* key of the statement in settings */
#define MEMBER_SET_LINKS "authority_set_links" /* the links seen last (agent/leaf_proof.h) */
int member_load_snapshot(struct member *m, struct buf *ret_signed, uint64_t *ret_epoch,
                         uint64_t *ret_config_version);

#define MEMBER_FAULT_POINTS 9
/* For tests: called with 1..MEMBER_FAULT_POINTS before each step that changes the disk, which it may
 * end the process at. NULL in the product. */
extern void (*member_fault)(int step);

#endif
