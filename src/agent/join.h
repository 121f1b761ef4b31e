/* `rap join`: the enrolling host's side (DESIGN section 5). Runs its own loop until it ends. */
#ifndef RAP_AGENT_JOIN_H
#define RAP_AGENT_JOIN_H

#include "agent/member.h"

enum join_event {
    JOIN_CONNECTING,
    JOIN_SUBMITTED,
    JOIN_STILL_PENDING,
    JOIN_APPROVED_EVENT,
    JOIN_WAITING /* an authority asked to come again later */
};

struct join_options {
    const char *data_dir;
    const char *token; /* text; wiped by the caller. NULL: resume with the one kept on disk */
    size_t token_len;
    const char *listen, *advertise, *name; /* advertise, name may be NULL (name: host name) */
    const char *const *roles;              /* requested; NULL-terminated or NULL */
    bool wait;                             /* false: return once the request is pending */
    uint32_t timeout_ms;                   /* 0 = until decided */
    void *data;
    /* Progress for people: the fingerprint and the join id are known from JOIN_SUBMITTED on. */
    void (*progress)(void *data, enum join_event ev, const char *fingerprint_hex,
                     const char *join_id, const char *detail);
};

/* 0: approved, everything verified against the token's root and stored (or, without wait, pending:
 * *ret_pending true). A second call in the same data directory with the same token resumes the same
 * request with the same key. Errors:
 *   the authority's      TOKEN_*, REJECTED, NAME_TAKEN, KEY_*, EXPIRED ...: final, the pending key and
 *                        files are removed
 *   -ERR_EXISTS          already a member;  -ERR_CONFLICT  a join with another token is pending
 *   -ERR_MALFORMED       the token
 *   -ERR_UNREACHABLE     no address of the token answered for JOIN_GIVE_UP_MS
 *   -ERR_BAD_CERT ...    every address answered, none as an authority of the token's cluster
 *   -ERR_TIMEOUT         not decided in time
 * After the last three the request stays pending and can be resumed. */
#define JOIN_GIVE_UP_MS 30000
int join_run(const struct join_options *o, bool *ret_pending, struct uuid *ret_node_id,
             struct errmsg *em);

#endif
