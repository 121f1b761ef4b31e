/* Route intents in the state: whom each concerns. */
#ifndef RAP_AUTHORITY_FSM_INTENT_H
#define RAP_AUTHORITY_FSM_INTENT_H

#include "authority/fsm_impl.h"

#define INTENT_COLUMNS                                                                        \
    "SELECT i.id, i.name, i.policy, i.source_kind, coalesce(i.source_ref, '') AS source_ref,"  \
    " i.destination_kind, coalesce(i.destination_ref, '') AS destination_ref, i.via_kind,"     \
    " coalesce(i.via_ref, '') AS via_ref, coalesce(i.qos_class, '') AS qos_class,"              \
    " coalesce(i.organization_id, '') AS organization_id,"                                     \
    " coalesce(i.service_class, '') AS service_class"

/* Of the intents i, those whose source is the node ?1 by more than being a node - "any" is told to all of
 * them at once - and whose organization, if they have one, it serves. */
#define INTENT_CONCERNS                                                                       \
    "((i.organization_id IS NULL OR i.organization_id IN (SELECT organization_id FROM"          \
    " node_role_assignments WHERE node_id = ?1 AND status = 'active')) AND ("                   \
    "(i.source_kind = 'node' AND i.source_ref = ?1) OR (i.source_kind = 'role' AND"          \
    " i.source_ref IN (SELECT role FROM node_role_assignments WHERE node_id = ?1"             \
    "  AND status = 'active')) OR (i.source_kind = 'organization' AND i.source_ref IN"        \
    " (SELECT organization_id FROM node_role_assignments WHERE node_id = ?1"                  \
    "  AND status = 'active')) OR (i.source_kind = 'region' AND i.source_ref ="               \
    " (SELECT region FROM node_mesh_settings WHERE node_id = ?1))))"

/* Refuses when an intent is about this pool or resource. */
int fsm_intents_none_about(struct fsm_ctx *x, const char *kind, const char *id, const char *name);
/* Whoever obeys an intent on the way to this pool, or may use it, gets a new configuration. */
int fsm_intents_pool(struct fsm_ctx *x, const char *pool_id);
/* Likewise for a resource: whoever obeys an intent on the way to it, or may use it. */
int fsm_intents_resource(struct fsm_ctx *x, const char *resource_id);
/* Whoever is told this node's address by an intent. */
int fsm_intents_grant(struct fsm_ctx *x, const char *node_id);
/* The nodes that a selector of sources means get a new configuration; "any": all of them. */
int fsm_selector_config(struct fsm_ctx *x, const char *kind, const char *ref);

#endif
