/* One row of the audit and its hash (DESIGN D12, S16): SHA-256 over the hash before it and every column.
 * Here, so that an exported file can be checked without a state. */
#ifndef RAP_PKI_AUDIT_ROW_H
#define RAP_PKI_AUDIT_ROW_H

#include "pki/pki.h"

/* Empty text: the column is NULL. */
struct audit_row {
    uint64_t seq;
    struct blob cluster_id, organization_id, actor_kind, actor_id;
    struct blob event_type, subject_type, subject_id;
    bool high_risk;
    struct blob details; /* JSON, as text */
    uint64_t term, index;
    int64_t created_at;
};

void audit_row_hash(const uint8_t prev[PKI_HASH_BYTES], const struct audit_row *row,
                    uint8_t ret[PKI_HASH_BYTES]);

#endif
