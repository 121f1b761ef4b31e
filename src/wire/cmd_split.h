/* Log commands about splits. Part of wire/cmd.h. */
#ifndef RAP_WIRE_CMD_SPLIT_H
#define RAP_WIRE_CMD_SPLIT_H

#include "wire/split_msg.h"

#define SPLIT_BEGIN_FIELDS(X, T)                                              \
    X(T, 1, BIN, terms, SPLIT_TERMS_MAX, MSG_REQUIRED) /* split_terms */      \
    X(T, 2, FIX, signature, 64, MSG_REQUIRED) /* of them, with the root key */
MSG_DECLARE(split_begin, SPLIT_BEGIN_FIELDS)

/* The memberships of all its nodes are disabled, the seed's last. */
#define SPLIT_FINISH_FIELDS(X, T)                                                             \
    X(T, 1, ID, split_id, 0, MSG_REQUIRED)                                                    \
    X(T, 2, BIN, report, SIGNED_SPLIT_REPORT_MAX, MSG_REQUIRED) /* signed_split_report */      \
    X(T, 3, FIX, signature, 64, MSG_REQUIRED) /* of split_end, with the root key */
MSG_DECLARE(split_finish, SPLIT_FINISH_FIELDS)

#define SPLIT_CANCEL_FIELDS(X, T)                                                             \
    X(T, 1, ID, split_id, 0, MSG_REQUIRED)                                                    \
    X(T, 2, STR, reason, REASON_MAX_BYTES, 0)                                                 \
    X(T, 3, FIX, signature, 64, MSG_REQUIRED) /* of split_end, with the root key */
MSG_DECLARE(split_cancel, SPLIT_CANCEL_FIELDS)

#endif
