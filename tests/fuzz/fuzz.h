/* What every fuzz target defines. */
#ifndef RAP_TESTS_FUZZ_H
#define RAP_TESTS_FUZZ_H

#include "wire/msg.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* What decodes must encode again to the same. */
static inline void fuzz_round_trip(const struct msg_desc *d, enum msg_mode mode, struct blob in)
{
    void *msg = xcalloc(1, d->size);
    void *again = xcalloc(1, d->size);
    if (msg_decode(d, mode, in, msg) == 0) {
        struct buf out;
        buf_init(&out, in.len + 16);
        msg_encode(d, msg, &out);
        CHECK(out.err == 0); /* never longer than what it was decoded from */
        CHECK(msg_decode(d, MSG_STRICT, buf_blob(&out), again) == 0);
        CHECK(msg_equal(d, msg, again));
        buf_fini(&out);
    } else {
        /* Strict never takes what lenient refuses. */
        CHECK(msg_decode(d, MSG_STRICT, in, again) != 0);
    }
    free(msg);
    free(again);
}

#endif
