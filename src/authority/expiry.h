/* How bad it is that a certificate ends at not_after: "ok", "warning", "critical" or "expired". Pure;
 * by the part of its whole life that is left. */
#ifndef RAP_AUTHORITY_EXPIRY_H
#define RAP_AUTHORITY_EXPIRY_H

#include "pki/pki.h"

const char *expiry_severity(enum pki_cert_kind kind, int64_t not_before_ms, int64_t not_after_ms,
                            int64_t now_ms);

#endif
