/* When to renew our certificate: pure. Wall clock in ms. */
#ifndef RAP_AGENT_RENEWAL_H
#define RAP_AGENT_RENEWAL_H

#include "base/base.h"

/* At two thirds of its life, plus up to a twentieth so that nodes enrolled together do not renew
 * together. */
int64_t renewal_due_ms(int64_t not_before_ms, int64_t not_after_ms, uint64_t random);
/* After the nth failure: 10 s doubling to 1 h, never more than a tenth of what is left of the
 * certificate (but at least 10 s). */
int64_t renewal_retry_ms(int64_t now_ms, int64_t not_after_ms, uint32_t failures, uint64_t random);

#endif
