/* The part of config.h that asks for a majority (DESIGN D16, docs/decisions/0008). */
#ifndef RAP_AGENT_CONFIG_WITNESS_H
#define RAP_AGENT_CONFIG_WITNESS_H

#include "agent/config.h"

/* Checks msg->witness against what is held; in the order of decision 0008. Fills c->set, c->set_statement
 * and c->witness. body_bytes: those of c->body. */
int config_witness_check(const struct signed_snapshot *msg, const struct config_expect *e,
                         struct config *c, struct errmsg *em);

#endif
