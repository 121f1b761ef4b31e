/* When to renew our certificate: pure. Wall clock in ms. */
#ifndef RAP_AGENT_RENEWAL_H
#define RAP_AGENT_RENEWAL_H

#include "base/base.h"

/* At two thirds of its life, plus up to a twentieth so that nodes enrolled together do not renew
 * together. */
int64_t renewal_due_ms(int64_t not_before_ms, int64_t not_after_ms, uint64_t random);
/* The soonest time to ask again after a certificate was issued at now_ms: half of what is left of it
 * later, at least 10 s. A leaf ends with its CA, so near that end a new one is no longer valid than
 * the one before, and two thirds of its back-dated life are over when it comes. */
int64_t renewal_soonest_ms(int64_t now_ms, int64_t not_after_ms);
/* After the nth failure: 10 s doubling to 1 h, never more than a tenth of what is left of the
 * certificate (but at least 10 s). */
int64_t renewal_retry_ms(int64_t now_ms, int64_t not_after_ms, uint32_t failures, uint64_t random);

#endif
