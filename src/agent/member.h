/* A membership: what this host holds to be one node of one cluster. Each has a directory of its own
 * and shares nothing with another (DESIGN D1).
 *
 *   <data-dir>/lock                     one process a data directory
 *   <data-dir>/rap.sock                 the local API
 *   <data-dir>/owner/<cluster-id>/      root.key root.crt (only on the seed, until moved offline)
 *   <data-dir>/member/
 *       node.key                        0600, never leaves
 *       node.crt                        PEM: leaf, issuing CA, root
 *       node.db                         settings, signed snapshot, caches (SPEC LST-01)
 *       issuer.key issuer.crt raft.db   authorities only
 *       join.token                      0600; while a join is pending, removed after
 */
#ifndef RAP_AGENT_MEMBER_H
#define RAP_AGENT_MEMBER_H

#include "base/db.h"
#include "base/id.h"
#include "pki/pki.h"

struct member {
    char *data_dir;
    char *dir; /* <data-dir>/member */
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
 * when the data directory has a membership already: nothing is touched. */
struct member_settings {
    const char *cluster_name, *node_name, *listen, *advertise; /* advertise NULL = listen */
    struct uuid cluster_id, node_id;
};
int member_create(const char *data_dir, const struct member_settings *s, struct member **ret,
                  struct errmsg *em);
/* -ERR_NOT_FOUND: this data directory has no membership (em says what to run). */
int member_open(const char *data_dir, struct member **ret, struct errmsg *em);
void member_free(struct member *m);

/* <member dir>/<name>; caller frees. */
char *member_path(const struct member *m, const char *name);
int member_key(const struct member *m, struct pki_key **ret, struct errmsg *em);
/* Ids and names, after a join was approved. */
int member_set_ids(struct member *m, const struct uuid *node_id, const char *cluster_name,
                   struct errmsg *em);
/* node.crt: chain[0] leaf, [1] issuing CA, [2] root. Atomic. */
int member_save_chain(struct member *m, const struct blob chain[3], struct errmsg *em);
/* Each buffer initialised by the caller with max CERT_DER_MAX. */
int member_load_chain(const struct member *m, struct buf ret_chain[3], struct errmsg *em);

/* Small values in node.db: 0, -ERR_NOT_FOUND. The buffer is appended to. */
int member_get(struct member *m, const char *key, struct buf *ret);
int member_put(struct member *m, const char *key, struct blob value, struct errmsg *em);

#endif
