/* The node as a whole: puts together what the modules do not know of each other - membership, fabric,
 * agent, the authority when this node is one, and the local API. */
#ifndef RAP_NODE_NODE_H
#define RAP_NODE_NODE_H

#include "admin/cli.h"

/* `rap agent run`. Returns when the node has stopped cleanly after SIGINT or SIGTERM (0), or could not start. */
int node_run(const struct cli_run *o, struct errmsg *em);

/* `rap init`: root key, first authority, the first two log entries. Offline. */
int node_init(const struct cli_init *o, struct cli_init_result *ret, struct errmsg *em);

/* `rap authority recover`: the log of this stopped authority goes on with it alone. Offline. */
int node_recover(const struct cli_recover *o, struct errmsg *em);

/* `rap authority restore`: a cluster goes on from a backup on a host without a membership. Offline. */
int node_restore(const struct cli_restore *o, struct errmsg *em);
int node_check_backup(const struct backup_file *f, struct errmsg *em);

/* `rap doctor`: what this host has, and real probes of the ways to its authorities. Changes nothing. */
void node_doctor(const struct cli_doctor *o);

#endif
