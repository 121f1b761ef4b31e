/* The edge of a node: HTTP on <data-dir>/rap.sock. It runs on a thread and loop of its own and
 * hands each request to the core loop as a call with a msgpack document; answers come back the same
 * way. JSON exists only on this side of that line.
 *
 * Methods (args in braces, * = mutation with a request id; documents' keys are the SPEC's columns):
 *   status {}                       cluster {}              memberships {limit, cursor}
 *   token.list {limit, cursor}      token.show {id}
 *   token.create* {ttl_ms, uses, roles[], name, secret_hash}   secret_hash (hex SHA-256): the
 *                                   caller made the secret itself and it never crosses the API;
 *                                   without it the answer has "token" once
 *   token.revoke* {id}
 *   request.list {status, limit, cursor}   request.show {id}
 *   request.approve* {id, fingerprint}     request.reject* {id, reason}
 *   node.list {limit, cursor}  node.show {id}  node.rename* {id, name}  node.revoke* {id, reason}
 *   node.remove* {id}
 *   node.ping {id, via, count, size, bytes} -> {node_id, path, via, sent, received, rtt_*_us,
 *                              bytes, bytes_per_second, longest_gap_ms}
 *   authority.list {}
 *   authority.prepare {id} -> {node_id, cluster_id, csr (hex DER), name, address, voters,
 *                              tolerates}
 *   authority.add* {id, issuer (hex DER)}  authority.remove* {id, reason, force ("true")}  authority.transfer {id}
 *   backup.create {}  backup.read {id, offset}
 *   terms {limit, cursor}
 *   partition.list {limit, cursor}  partition.show {id}  partition.probe {}  partition.promote {statement}
 *   partition.merge* {id, epoch, rows, signature}
 *   split.list {limit, cursor}  split.show {id}  split.report {nodes}
 *   split.begin* {id, name, new_cluster_id, root_pin, seed, nodes[], signature}
 *   split.finish* {id, report[], signature}  split.cancel* {id, reason, signature}
 *   divergence.list {limit, cursor}  divergence.show {id, limit, cursor}  divergence.own {}
 *   role.list {node, limit, cursor}  role.assign* {id, role, organization_id}
 *   role.unassign* {id, role, organization_id}
 *   audit.list {limit, cursor, event_type, subject_id}   audit.verify {}
 *   config.show {}  config.verify {}       fabric.sessions {}
 *   metrics {} -> {text}: of PROM_CONTENT_TYPE, as a bin
 */
#ifndef RAP_ADMIN_ADMIN_H
#define RAP_ADMIN_ADMIN_H

#include "base/err.h"
#include "base/id.h"
#include "wire/limits.h"
#include "wire/mp.h"

#include <uv.h>

struct admin;

/* A request on its way through the node. Lives until admin_answer. */
struct admin_call {
    char method[48];
    struct blob args;       /* document; valid until the answer */
    struct uuid request_id; /* nil on reads */
    char actor_kind[16];    /* "admin"; "metrics" on that listener */
    char actor_id[128];     /* "uid:0" */
    bool stale;             /* a read may be answered from local state */
    bool dry_run;           /* a mutation is checked and described, not made */
    uint32_t timeout_ms;    /* after this (and 2 s) the client is told "timeout"; answer anyway */
    void *data;             /* the handler's own */
};

struct admin_config {
    uv_loop_t *core_loop;
    const char *socket_path; /* replaced when stale; mode 0600 */
    /* "127.0.0.1:9464": GET /metrics there, for anybody on this host; NULL: not. */
    const char *metrics;
    uint32_t request_deadline_ms; /* to send a whole request, or take a whole answer; 0 = 15000 */
    void *data;
    /* On the core loop. Must lead to exactly one admin_answer, now or later. */
    void (*call)(void *data, struct admin_call *c);
};

int admin_open(const struct admin_config *config, struct admin **ret, struct errmsg *em);
/* Stops listening, answers every client with -ERR_CANCELED, joins the thread, then cb on the core
 * loop, when a is gone. Calls that the handler still holds stay valid and must be answered: cb
 * waits for the last one. No call reaches the handler any more. */
void admin_close(struct admin *a, void (*cb)(void *data), void *data);

/* On the core loop. rc 0: doc is the body. Otherwise a problem: its code is err_slug(rc), and doc,
 * if any, is a document whose "detail" is the text and whose other keys become members of the
 * problem (epoch, term, seen, needed for no_quorum). read_index / last_contact_ms may be keys
 * "_index", "_last_contact_ms" of doc: they become headers, not members. */
void admin_answer(struct admin_call *c, int rc, struct blob doc);

#endif
