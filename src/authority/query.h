/* Reads of the replicated state, as documents whose keys are the columns of SPEC section (c), ids
 * and fingerprints as text, *_at columns as RFC 3339. No secret is ever selected: no token hash. */
#ifndef RAP_AUTHORITY_QUERY_H
#define RAP_AUTHORITY_QUERY_H

#include "authority/fsm.h"

/*   kind            args                      result
 *   cluster         -                         one document
 *   tokens          limit, cursor, id         {"items": [...], "next_cursor": text or nil}
 *   requests        limit, cursor, id, status
 *   nodes           limit, cursor, id
 *   authorities     limit, cursor, id
 *   roles           limit, cursor, node
 *   audit           limit, cursor, event_type, subject_id, node (its timeline), category
 *   memberships     limit, cursor
 *   terms           limit, cursor
 *   trust           -                         one document: roots, CAs, rotation, alarms
 *   mesh            -                         one document: whether the overlay is on
 *   intents         limit, cursor, id
 *   pools           limit, cursor, id
 *   resources       limit, cursor, id
 *   qos             -                         {"items": a row for each class}
 *   splits          limit, cursor, id
 * With id (tokens, requests, nodes, authorities): a full id, a unique id prefix of at least 4
 * characters, or a name, and the result is that one document: -ERR_NOT_FOUND, -ERR_AMBIGUOUS.
 * node documents carry "roles", "capabilities" and "address". */
struct query_args {
    const char *id;
    const char *node;
    const char *status;
    const char *event_type;
    const char *subject_id;
    const char *category; /* membership, roles, certificates, authority, health, security */
    const char *cursor;
    int64_t now_ms; /* of the reader's clock: how soon certificates end */
    uint32_t limit; /* 0 = PAGE_DEFAULT; above PAGE_MAX is -ERR_TOO_LARGE */
};
int query_run(struct fsm *f, const char *kind, const struct query_args *args, struct mp_writer *out,
              struct errmsg *em);

#endif
