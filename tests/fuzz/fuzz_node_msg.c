/* One message of the catalogue, chosen by the first byte. */
#include "fuzz/fuzz.h"

#include "lib/msg_catalog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const struct msg_catalog_entry *e = &msg_catalog[data[0] % msg_catalog_count];
    struct blob in = blob_of(data + 1, size - 1);
    void *msg = xmalloc(e->desc->size);
    void *again = xmalloc(e->desc->size);
    if (msg_decode(e->desc, MSG_LENIENT, in, msg) == 0) {
        struct buf out;
        buf_init(&out, size + 16);
        msg_encode(e->desc, msg, &out);
        CHECK(out.err == 0);
        CHECK(msg_decode(e->desc, MSG_STRICT, buf_blob(&out), again) == 0);
        CHECK(msg_equal(e->desc, msg, again));
        buf_fini(&out);
    } else {
        /* Strict never takes what lenient refuses. */
        CHECK(msg_decode(e->desc, MSG_STRICT, in, again) != 0);
    }
    free(msg);
    free(again);
    return 0;
}
