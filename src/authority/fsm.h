/* The replicated state: committed commands in, rows out. An in-memory SQLite database that every
 * authority computes alike (DESIGN D3, D9, D10, D12).
 *
 * Pure: no clock, no randomness, no file. Equal logs give equal digests. A command can be refused
 * (its result is the error, kept under its request id); an *entry* cannot fail to apply: when it
 * does, this replica is broken and the caller must stop. */
#ifndef RAP_AUTHORITY_FSM_H
#define RAP_AUTHORITY_FSM_H

#include "base/db_pages.h"
#include "pki/history.h"
#include "pki/witness.h"
#include "wire/cmd.h"

struct fsm;

int fsm_new(struct fsm **ret, struct errmsg *em);
void fsm_free(struct fsm *f);

/* One command's outcome, in order of the entry. doc: a msgpack document (mp.h) - the thing made or
 * changed, or {"detail": text} of a refusal; valid during the callback. replayed: the request id
 * was seen before and this is its first result. */
struct fsm_result {
    struct uuid request_id;
    uint64_t kind;
    int rc;
    struct blob doc;
    bool replayed;
};
typedef void (*fsm_result_cb)(void *data, size_t n, const struct fsm_result *result);

/* The schema level of the state, and the highest this binary knows. A state starts at level 1 and
 * moves when the log says so (CMD_LEVEL_RAISE), for two versions with different tables would compute
 * different digests. SQL on a table of a later migration needs fsm_level to be there: a statement
 * that does not prepare is a failed CHECK. */
unsigned fsm_level(const struct fsm *f);
unsigned fsm_level_known(const struct fsm *f);
#define FSM_LEVEL_TEXT                                                                      \
    "the cluster is at level %u, %s needs %u: it moves there by itself once every authority " \
    "runs a version that knows it"

/* Applies one entry as one transaction. index must be above the last applied one, term is the
 * log's and must equal the entry's own. cb may be NULL; it runs after the transaction committed and
 * may read, but not apply. Error: the entry could not be applied and nothing changed; the replica
 * must stop (-ERR_UNSUPPORTED, -ERR_MALFORMED, -ERR_CORRUPT, ...). */
int fsm_apply(struct fsm *f, uint64_t index, uint64_t term, struct blob entry, fsm_result_cb cb,
              void *data, struct errmsg *em);

struct fsm_position {
    uint64_t epoch, term, index;
    int64_t time_ms;       /* highest stamp applied; a proposer uses max(this, its clock) */
    uint8_t digest[32];    /* chain over all row changes: equal at equal index on every authority */
    uint64_t config_index; /* last index that changed what every node's snapshot says (who decides,
                              who is banned); nodes.config_index is the same for one node's own */
    uint64_t audit_seq;
    uint8_t audit_head[32];
};
void fsm_position(const struct fsm *f, struct fsm_position *ret);
/* The digest at an earlier index, if it is among the last 4096 applied since start or restore. */
bool fsm_digest_at(const struct fsm *f, uint64_t index, uint8_t ret[32]);

/* The name of a node, of the cluster; "" when there is none, and with an error: <0 of the database. */
int fsm_node_name(struct db *db, const char *node_id, char out[NAME_MAX_BYTES + 1]);
int fsm_cluster_name(struct db *db, char out[NAME_MAX_BYTES + 1]);

/* The whole state as bytes (a serialized database), and back. Restore replaces everything, fsm_db
 * included; on error the old state stays: -ERR_CORRUPT, -ERR_SCHEMA (of a newer version),
 * -ERR_TOO_LARGE. The image is untrusted: structure, schema and position are checked. */
int fsm_image(struct fsm *f, struct buf *out);
/* The image as it is now, to be read while commands go on being applied; also when the state is replaced
 * or freed. -ERR_TOO_LARGE, -ERR_BUSY (an earlier one is not freed yet), -ERR_IO. */
int fsm_freeze(struct fsm *f, struct db_image **ret);
int fsm_restore(struct fsm *f, struct blob image, struct errmsg *em);

/* The same in two steps. fsm_prepare has the work, touches no state, and runs on any thread; what it made
 * is adopted on the state's. */
struct fsm_prepared;
struct db_migration;
const struct db_migration *fsm_schema(const struct fsm *f);
int fsm_prepare(const struct db_migration *schema, struct blob image, struct fsm_prepared **ret,
                struct errmsg *em);
/* Takes p over. */
void fsm_adopt(struct fsm *f, struct fsm_prepared *p);
void fsm_prepared_free(struct fsm_prepared *p);

/* For queries (SELECT only). Valid until the next fsm_restore. */
struct db *fsm_db(struct fsm *f);

/* Whether a join_submit would be refused if it were applied now, and why. Changes nothing. The leader
 * asks before it proposes: a refusal needs no log entry that a stranger could multiply. */
int fsm_check_join(struct fsm *f, const struct join_submit *b, int64_t now_ms, struct errmsg *em);

/* The first result of a request id: true when there is one. doc is appended to out. With another
 * hash than the first time the answer is -ERR_REUSED_ID. Kept for 24 h of stamp time; refusals that
 * a retry may overcome (err_retryable) are not kept. */
bool fsm_find_result(struct fsm *f, const struct uuid *request_id, struct blob request_hash,
                     int *ret_rc, struct buf *out);

/* Recomputes the audit chain from its first row. 0, or -ERR_CORRUPT with the first bad row in em.
 * doc gets {"rows", "head", "ok"}. */
int fsm_audit_verify(struct fsm *f, struct mp_writer *doc, struct errmsg *em);

/* --- what a majority signs (decision 0008); nothing while the cluster has no authority set --- */
/* What the statement of one index says. Indexes are those that changed configuration. */
struct fsm_witness {
    uint64_t epoch, index;
    uint8_t root[32];
    uint64_t audit_seq;
    uint8_t audit_head[32];
    uint8_t history[32];
    uint64_t set_seq;
};
/* The newest, and one of the last 256 since start or restore. */
bool fsm_witness_last(const struct fsm *f, struct fsm_witness *ret);
bool fsm_witness_at(const struct fsm *f, uint64_t index, struct fsm_witness *ret);
/* The bytes that are signed: the same on every replica that applied the same. */
void fsm_witness_statement(const struct fsm *f, const struct fsm_witness *w, struct buf *out);
/* The newest set; not known when there is none. */
const struct witness_set *fsm_authority_set(const struct fsm *f);
/* The voters with their keys, as the set that follows would have them; how many. */
size_t fsm_voters(struct db *db, struct witness_member ret[AUTHORITIES_MAX]);
/* The tree of fsm_witness_last, borrowed until the next entry: merkle_ref to keep it. */
struct merkle *fsm_tree(const struct fsm *f);
const struct history *fsm_history(const struct fsm *f);
/* The root as made from the rows alone, for checks: that of fsm_tree. */
void fsm_witness_rebuilt(struct fsm *f, uint8_t ret_root[32]);

/* The row changes of each applied entry, for the mirror: after its transaction committed, so cb may
 * read, but not apply. `changes` is valid during the call and may be kept as a copy. May be NULL. */
typedef void (*fsm_entry_cb)(void *data, const struct fsm_position *at, struct blob changes,
                             struct blob before);
void fsm_on_entry(struct fsm *f, fsm_entry_cb cb, void *data);
/* Whether `before` is to be filled from the next entry on: the old row of each 'U', in their order,
 * msgpack arrays one after the other. No part of the digest. */
void fsm_keep_before(struct fsm *f, bool keep);
/* op 'I', 'U' (the new row) or 'D' (the old one). row: a msgpack array in the order of the table's
 * columns. */
struct fsm_change {
    char op;
    struct blob table, row;
};
/* Takes the next change off `changes`; false at the end. No command changes a primary key. */
bool fsm_change_next(struct blob *changes, struct fsm_change *ret);
/* Another number when changes of before no longer lead to the state of now, or have other columns: a
 * restore, another level. */
uint64_t fsm_generation(const struct fsm *f);
/* A frozen state as a database of its own, for a reader who takes more than one turn: first its bytes, on
 * any thread, for a large one takes longer than an election; then the database, which has them from then
 * on. NULL: no memory. */
uint8_t *fsm_copy_bytes(struct db_image *frozen);
int fsm_copy_open(uint8_t *bytes, size_t len, struct db **ret, struct errmsg *em);

/* The same changes one by one for the watch feed: in order, before fsm_apply's transaction commits,
 * rows as maps with the columns' names. May be NULL. */
typedef void (*fsm_change_cb)(void *data, char op, const char *table, struct blob row_msgpack);
void fsm_on_change(struct fsm *f, fsm_change_cb cb, void *data);
/* The same for who only wants to know which table: no row is put together for it. */
typedef void (*fsm_touch_cb)(void *data, char op, const char *table);
void fsm_on_touch(struct fsm *f, fsm_touch_cb cb, void *data);

#endif
