#include "fuzz/fuzz.h"

#include "pki/pki.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t public_key[PKI_KEY_BYTES];
    struct errmsg em = ERRMSG_INIT;
    int rc = pki_csr_parse(blob_of(data, size), public_key, &em);
    CHECK(rc == 0 || rc == -ERR_BAD_CSR);
    CHECK((rc == 0) == (em.text[0] == '\0'));
    return 0;
}
