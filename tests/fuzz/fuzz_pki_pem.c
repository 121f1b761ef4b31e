#include "fuzz/fuzz.h"

#include "pki/pki.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf der[CHAIN_MAX];
    size_t count = 0;
    for (size_t i = 0; i < CHAIN_MAX; i++) {
        buf_init(&der[i], CERT_DER_MAX);
    }
    if (pki_pem_read(blob_of(data, size), der, CHAIN_MAX, &count, NULL) == 0) {
        /* There is one spelling. */
        struct buf again;
        buf_init(&again, size);
        for (size_t i = 0; i < count; i++) {
            CHECK(pki_pem_add(buf_blob(&der[i]), &again) == 0);
        }
        CHECK(blob_equal(buf_blob(&again), blob_of(data, size)));
        buf_fini(&again);
    }
    for (size_t i = 0; i < CHAIN_MAX; i++) {
        buf_fini(&der[i]);
    }
    return 0;
}
