/* Whether a split may end: what the state knows of it, beside what the new cluster reported of itself
 * (SPEC SEED-02, docs/decisions/0022). Reads rows alone, so every replica finds the same. */
#ifndef RAP_AUTHORITY_SPLIT_H
#define RAP_AUTHORITY_SPLIT_H

#include "base/db.h"
#include "pki/pki.h"
#include "wire/cmd.h"
#include "wire/mp.h"

#define SPLIT_GAPS_MAX_BYTES 524288 /* their documents: at most three a node, one a role, a few more */

struct split {
    char id[UUID_TEXT_MAX];
    char name[NAME_MAX_BYTES + 1]; /* of the new cluster */
    char new_cluster_id[UUID_TEXT_MAX];
    char root_pin[2 * PKI_HASH_BYTES + 1];
    char seed_id[UUID_TEXT_MAX];
    char status[16];
};
/* 1 there is one, 0 none, <0. */
int split_get(struct db *db, const struct uuid *id, struct split *ret);
/* The open one whose seed this node is: 1, 0, <0. */
int split_of_seed(struct db *db, const char *node_id, struct split *ret);

/* The open one that this node is in: 1, 0, <0. */
int split_of_node(struct db *db, const char *node_id, struct split *ret);

/* The next of its nodes that has not left, the seed after all others: 1, 0 none, <0. */
int split_next_to_leave(struct db *db, const struct split *s, struct uuid *ret);

/* Writes the names of its nodes that have not left, as an array. <0: the rows cannot be read. */
int split_put_staying(struct db *db, const char *split_id, struct mp_writer *w);

/* What keeps the nodes from leaving. */
struct split_gaps {
    struct buf items; /* documents {gap, subject, detail}, count of them */
    uint32_t count;
    char brief[160]; /* "no_report; not_joined n1; ..." as far as it fits */
};
void split_gaps_init(struct split_gaps *g);
void split_gaps_fini(struct split_gaps *g);
/* signed_report: empty when there is none. now_ms: of the entry, or of the leader's clock. Appends. <0: the
 * rows cannot be read, or -ERR_BAD_SIGNATURE, -ERR_MALFORMED, -ERR_SCHEMA, -ERR_UNSUPPORTED of the report
 * with its text in em: then it says nothing. */
int split_gaps_find(struct db *db, const struct split *s, struct blob signed_report, int64_t now_ms,
                    struct split_gaps *g, struct errmsg *em);

/* A reason why these terms cannot begin a split now; 0 when there is none. *ret_rc is the refusal with its
 * text in em; <0: the rows cannot be read. */
int split_begin_refusal(struct db *db, const char *cluster_id, const struct split_terms *t,
                        int *ret_rc, struct errmsg *em);

/* Whether the names of these nodes fit into one report: -ERR_TOO_LARGE with its text, or <0 as above. For
 * the leader, who refuses to begin what could never be finished; apply does not ask. */
#define SPLIT_REPORT_REST 1024 /* of a report's room: its head, the roles, authorities besides */
int split_names_fit(struct db *db, const struct split_terms *t, struct errmsg *em);

#endif
