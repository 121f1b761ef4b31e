/* Which root certificates a cluster trusts, as its owner signed it (SPEC IDN-05, PSB). A cluster that
 * never rotated its root has no record. A rotation takes three records, and each says all there is:
 *
 *              old root   new root     signed by    who accepts leaves
 *   prepare    active     prepared     old, new     both roots
 *   activate   retiring   active       old, new     both roots; new leaves are under the new one
 *   retire        -       active       new          the new root only
 *
 * and back: after prepare {old active} signed by old; after activate the record of prepare again.
 * seq rises by one with each; fields may be added. A record travels beside every signed snapshot, and is believed for its
 * own signatures (pki_trust_adopt), whoever brings it. */
#ifndef RAP_WIRE_TRUST_MSG_H
#define RAP_WIRE_TRUST_MSG_H

#include "wire/limits.h"
#include "wire/msg.h"

#define TRUST_ROOTS_MAX 2
#define TRUST_RECORD_MAX (TRUST_ROOTS_MAX * (CERT_DER_MAX + 64) + 64)
#define TRUST_SIGNED_MAX (TRUST_RECORD_MAX + TRUST_ROOTS_MAX * 128 + 16)
#define TRUST_SIGN_DOMAIN "rap-trust-roots"

enum trust_root_status { TRUST_ROOT_ACTIVE = 1, TRUST_ROOT_PREPARED = 2, TRUST_ROOT_RETIRING = 3 };

#define TRUST_ROOT_FIELDS(X, T)                \
    X(T, 1, BIN, der, CERT_DER_MAX, MSG_REQUIRED) \
    X(T, 2, U64, status, 0, MSG_REQUIRED)
MSG_DECLARE(trust_root, TRUST_ROOT_FIELDS)

#define TRUST_RECORD_FIELDS(X, T)                                              \
    X(T, 1, U64, seq, 0, MSG_REQUIRED)                                         \
    X(T, 2, ID, cluster_id, 0, MSG_REQUIRED)                                   \
    X(T, 3, LIST, roots, TRUST_ROOTS_MAX, MSG_REQUIRED) /* of bin: trust_root */ \
    X(T, 4, I64, issued_at_ms, 0, MSG_REQUIRED)                                \
    X(T, 5, U64, epoch, 0, 0) /* the cluster was in: what proves it may be signed by a root that is \
                                 gone (wire/recovery_msg.h) */
MSG_DECLARE(trust_record, TRUST_RECORD_FIELDS)

#define TRUST_SIGNATURE_FIELDS(X, T)                  \
    X(T, 1, FIX, root_fingerprint, 32, MSG_REQUIRED)  \
    X(T, 2, FIX, signature, 64, MSG_REQUIRED)
MSG_DECLARE(trust_signature, TRUST_SIGNATURE_FIELDS)

#define SIGNED_TRUST_FIELDS(X, T)                          \
    X(T, 1, BIN, record, TRUST_RECORD_MAX, MSG_REQUIRED)   \
    X(T, 2, LIST, signatures, TRUST_ROOTS_MAX, MSG_REQUIRED) /* of bin: trust_signature */
MSG_DECLARE(signed_trust, SIGNED_TRUST_FIELDS)

#endif
