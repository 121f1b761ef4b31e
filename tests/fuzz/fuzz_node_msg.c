/* One message of the catalogue, chosen by the first byte. */
#include "fuzz/fuzz.h"

#include "lib/msg_catalog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const struct msg_catalog_entry *e = &msg_catalog[data[0] % msg_catalog_count];
    fuzz_round_trip(e->desc, MSG_LENIENT, blob_of(data + 1, size - 1));
    return 0;
}
