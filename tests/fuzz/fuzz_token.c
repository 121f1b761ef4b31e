#include "fuzz/fuzz.h"

#include "wire/token.h"

#include <ctype.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct join_token t;
    if (token_parse((const char *)data, size, &t, NULL) != 0) {
        return 0;
    }
    /* There is one spelling, but for white space around it. */
    struct buf again;
    buf_init(&again, TOKEN_TEXT_MAX);
    token_format(&t, &again);
    CHECK(again.err == 0);
    while (size > 0 && isspace(data[0])) {
        data++;
        size--;
    }
    while (size > 0 && isspace(data[size - 1])) {
        size--;
    }
    CHECK(blob_equal(buf_blob(&again), blob_of(data, size)));
    buf_fini(&again);
    return 0;
}
