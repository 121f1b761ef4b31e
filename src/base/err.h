/* The one table of errors. Functions return 0 or -ERR_X. Numbers travel between nodes and never
 * change; slugs are the `code` of API problems and never change either. Retryable means: the same
 * request, with the same request id, may succeed later without anybody changing it. */
#ifndef RAP_BASE_ERR_H
#define RAP_BASE_ERR_H

#include "base/base.h"

/*   X(NAME, number, slug, text, retryable) */
#define ERR_TABLE(X)                                                                               \
    X(INVALID, 1, "invalid", "invalid argument", 0)                                                \
    X(MALFORMED, 2, "malformed", "malformed message", 0)                                           \
    X(TOO_LARGE, 3, "too_large", "over the size limit", 0)                                         \
    X(NOT_FOUND, 4, "not_found", "no such thing", 0)                                               \
    X(DENIED, 5, "denied", "not allowed", 0)                                                       \
    X(CONFLICT, 6, "conflict", "state does not allow this", 0)                                     \
    X(EXISTS, 7, "exists", "already exists", 0)                                                    \
    X(AMBIGUOUS, 8, "ambiguous", "more than one match", 0)                                         \
    X(IO, 9, "io", "input/output error", 0)                                                        \
    X(CORRUPT, 10, "corrupt", "stored data is damaged", 0)                                         \
    X(SCHEMA, 11, "schema", "written by a newer version", 0)                                       \
    X(BUSY, 12, "busy", "too much work queued", 1)                                                 \
    X(TIMEOUT, 13, "timeout", "deadline passed", 1)                                                \
    X(CANCELED, 14, "canceled", "canceled", 1)                                                     \
    X(CLOSED, 15, "closed", "connection closed", 1)                                                \
    X(UNREACHABLE, 16, "unreachable", "cannot be reached", 1)                                      \
    X(NO_QUORUM, 17, "no_quorum", "no majority of the authority is reachable", 1)                  \
    X(NOT_LEADER, 18, "not_leader", "not the leader", 1)                                           \
    X(OUTCOME_UNKNOWN, 19, "outcome_unknown", "leadership changed, outcome unknown", 1)            \
    X(FENCED, 20, "fenced", "a newer epoch exists", 0)                                             \
    X(CRYPTO, 21, "crypto", "cryptographic failure", 0)                                            \
    X(BAD_SIGNATURE, 22, "bad_signature", "signature does not verify", 0)                          \
    X(BAD_CERT, 23, "bad_certificate", "certificate not acceptable", 0)                            \
    X(CERT_EXPIRED, 24, "certificate_expired", "certificate outside its validity", 0)              \
    X(REVOKED, 25, "revoked", "identity is revoked", 0)                                            \
    X(WRONG_CLUSTER, 26, "wrong_cluster", "belongs to another cluster", 0)                         \
    X(WRONG_NODE, 27, "wrong_node", "belongs to another node", 0)                                  \
    X(NOT_AUTHORITY, 28, "not_authority", "peer is not an authority", 0)                           \
    X(ROLLBACK, 29, "rollback", "older than what is held", 0)                                      \
    X(EXPIRED, 30, "expired", "expired", 0)                                                        \
    X(TOKEN_UNKNOWN, 31, "token_unknown", "no such join token", 0)                                 \
    X(TOKEN_EXPIRED, 32, "token_expired", "join token expired", 0)                                 \
    X(TOKEN_REVOKED, 33, "token_revoked", "join token revoked", 0)                                 \
    X(TOKEN_USED, 34, "token_used", "join token used up", 0)                                       \
    X(TOKEN_SCOPE, 35, "token_scope", "join token does not allow this", 0)                         \
    X(BAD_CSR, 36, "bad_csr", "certificate request not acceptable", 0)                             \
    X(KEY_KNOWN, 37, "key_known", "key is already enrolled", 0)                                    \
    X(KEY_REVOKED, 38, "key_revoked", "key was revoked and stays revoked", 0)                      \
    X(NAME_TAKEN, 39, "name_taken", "name is in use", 0)                                           \
    X(FINGERPRINT, 40, "fingerprint_mismatch", "fingerprint does not match", 0)                    \
    X(DECIDED, 41, "already_decided", "request was already decided", 0)                            \
    X(REJECTED, 42, "rejected", "join request was rejected", 0)                                    \
    X(CAPABILITY, 43, "no_capability", "node does not report the capability", 0)                   \
    X(ROLE_UNKNOWN, 44, "role_unknown", "no such role", 0)                                         \
    X(LAST_VOTER, 45, "quorum_at_risk", "the authority could not survive this", 0)                 \
    X(REUSED_ID, 46, "idempotency_key_reused", "request id was used for another request", 0)       \
    X(NO_SERVICE, 47, "no_service", "peer offers no such service", 0)                              \
    X(DIVERGED, 48, "diverged", "state differs from the majority", 0)                              \
    X(UNSUPPORTED, 49, "unsupported", "not supported", 0)                                          \
    X(SCOPE, 50, "out_of_scope", "outside the scope granted", 0)                                   \
    X(RATE_LIMITED, 51, "rate_limited", "too many attempts from this address", 1)                  \
    X(BAD_NAME, 52, "bad_name", "name not acceptable", 0)                                          \
    X(NO_CERT, 53, "certificate_required", "a certificate is required", 0)                             \
    X(NOT_WITNESSED, 60, "not_witnessed", "no majority of the authority signed this", 0)           \
    X(BAD_PROOF, 61, "bad_proof", "not what the majority signed", 0)                               \
    X(BAD_SET, 62, "bad_authority_set", "does not follow from the authority set held", 0)          \
    X(HISTORY, 63, "history_rewritten", "does not continue the history seen before", 0)          \
    X(MIRROR_UNAVAILABLE, 70, "mirror_unavailable", "PostgreSQL is required and too far behind", 1)  \
    X(SUSPENDED, 80, "membership_disabled", "membership is disabled", 0)                            \
    X(SPLIT_NOT_READY, 90, "split_not_ready", "the new cluster cannot stand alone yet", 0)          \
    X(ADDRESS_TAKEN, 91, "address_taken", "another process of this host has this address", 0)

enum err {
#define ERR_ENUM_(name, num, slug, text, retry) ERR_##name = num,
    ERR_TABLE(ERR_ENUM_)
#undef ERR_ENUM_
};

/* All take a return code (0 or negative). An unknown number from a newer peer gets "unknown". */
const char *err_text(int rc);
const char *err_slug(int rc);
bool err_retryable(int rc);
/* The code for a slug, as a negative number; -ERR_INVALID when unknown. */
int err_from_slug(const char *slug);

/* A fixed buffer for what happened, which each layer may prefix: "mirror: connect: refused". */
struct errmsg {
    char text[384];
};

#define ERRMSG_INIT ((struct errmsg){.text = ""})

/* Sets the text and returns rc, so that `return errmsg_set(em, -ERR_IO, ...)` reads well. em may
 * be NULL. The two are macros so that whoever reads or analyzes one file alone sees that what comes
 * back is the rc that went in: a function of another file could return 0 for all the caller knows. */
#define errmsg_set(em, rc, ...) errmsg_rc_((rc), errmsg_set_text((em), __VA_ARGS__))
/* Puts "prefix: " in front. Returns rc. */
#define errmsg_wrap(em, rc, ...) errmsg_rc_((rc), errmsg_wrap_text((em), __VA_ARGS__))

/* Both return em. */
struct errmsg *errmsg_set_text(struct errmsg *em, const char *fmt, ...) PRINTF_LIKE(2, 3);
struct errmsg *errmsg_wrap_text(struct errmsg *em, const char *fmt, ...) PRINTF_LIKE(2, 3);

static inline int errmsg_rc_(int rc, const void *told)
{
    (void)told;
    return rc;
}

/* When rc is a failing disk or damaged data (-ERR_IO, -ERR_CORRUPT), adds where to read what to do:
 * a place in the runbooks, "docs/OPERATIONS.md#...". Returns rc. */
int errmsg_runbook(struct errmsg *em, int rc, const char *place);
#define ERRMSG_RUNBOOK "; what to do: " /* before the place */

#endif
