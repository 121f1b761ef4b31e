#ifndef RAP_AUTHORITY_FSM_PEERS_H
#define RAP_AUTHORITY_FSM_PEERS_H

#include "authority/fsm_impl.h"

struct node_ids {
    char (*id)[UUID_TEXT_MAX]; /* rising */
    size_t count, cap;
};
/* The rows of one text column. Takes over the statement. */
int node_ids_read(struct db_stmt *st, const char *column, struct node_ids *ret);
void node_ids_fini(struct node_ids *ids);

/* Whose addresses a node is told, PEERS_MAX at most. Some of them may have none, or be no active member.
 * ret: the caller's to end, on errors too. */
int peers_of(struct db *state, unsigned level, const char *node_id, struct node_ids *ret);

/* Every node that a statement names in the column node_id gets a new configuration. Takes over the
 * statement. */
int fsm_nodes_config(struct fsm_ctx *x, struct db_stmt *ids);
/* Whoever is told of this node gets a new configuration. Its roles must be those that count: call it
 * before they end and after they begin. */
int fsm_peers_changed(struct fsm_ctx *x, const char *node_id);
/* At the level that brings peers, everybody who has some. */
int fsm_peers_begin(struct fsm_ctx *x);

#endif
