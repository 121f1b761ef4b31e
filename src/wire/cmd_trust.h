/* Log commands about what certificates stand on: roots, issuing CAs, lifetimes. Part of wire/cmd.h. */
#ifndef RAP_WIRE_CMD_TRUST_H
#define RAP_WIRE_CMD_TRUST_H

#include "wire/trust_msg.h"

/* A new certificate for the issuing CA key that an authority has, by the root root_id. The one before
 * counts until the next, for what it signed. */
#define AUTHORITY_RENEW_FIELDS(X, T)                     \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED)                \
    X(T, 2, BIN, issuer_der, CERT_DER_MAX, MSG_REQUIRED) \
    X(T, 3, FIX, issuer_fingerprint, 32, MSG_REQUIRED)   \
    X(T, 4, FIX, root_id, 32, MSG_REQUIRED)
MSG_DECLARE(authority_renew, AUTHORITY_RENEW_FIELDS)

/* One phase of a rotation of the root (wire/trust_msg.h). record is what the owner signed, and what
 * nodes believe; the rest says the same in rows. */
#define TRUST_ROTATE_FIELDS(X, T)                                                               \
    X(T, 1, U64, seq, 0, MSG_REQUIRED)                                                          \
    X(T, 2, BIN, record, TRUST_SIGNED_MAX, MSG_REQUIRED) /* signed_trust */                     \
    X(T, 3, FIX, active_id, 32, MSG_REQUIRED) /* fingerprint of the root active from now on */  \
    X(T, 4, FIX, other_id, 32, 0)             /* of the one prepared or retiring */             \
    X(T, 5, U64, other_status, 0, 0)          /* enum trust_root_status */                      \
    X(T, 6, BIN, new_root_der, CERT_DER_MAX, 0) /* prepare: the root that comes in */           \
    X(T, 7, LIST, issuers, AUTHORITIES_MAX, 0) /* of bin: trust_issuer; when active_id changes */ \
    X(T, 8, FLAG, force, 0, 0)                /* nodes without a certificate under it are left */ \
    X(T, 9, BIN, signed_set, SIGNED_SET_MAX, 0) /* when active_id changes: the authority set, signed by \
                                                 the root that becomes active, for who joins later */
MSG_DECLARE(trust_rotate, TRUST_ROTATE_FIELDS)

#define TRUST_ISSUER_FIELDS(X, T)         \
    X(T, 1, ID, node_id, 0, MSG_REQUIRED) \
    X(T, 2, BIN, der, CERT_DER_MAX, MSG_REQUIRED)
MSG_DECLARE(trust_issuer, TRUST_ISSUER_FIELDS)

/* A certificate's remaining life crossed a threshold, either way: audited once each time. */
#define CERT_ALARM_FIELDS(X, T)                                                      \
    X(T, 1, STR, subject_kind, 16, MSG_REQUIRED) /* root, issuer, node */            \
    X(T, 2, STR, subject_id, 64, MSG_REQUIRED)   /* root id, node id */              \
    X(T, 3, STR, severity, 16, MSG_REQUIRED)     /* ok, warning, critical, expired */ \
    X(T, 4, I64, not_after_ms, 0, MSG_REQUIRED)
MSG_DECLARE(cert_alarm, CERT_ALARM_FIELDS)

/* How long node certificates live that are made from now on. */
#define CERT_POLICY_FIELDS(X, T) X(T, 1, I64, leaf_life_ms, 0, MSG_REQUIRED)
MSG_DECLARE(cert_policy, CERT_POLICY_FIELDS)

#endif
