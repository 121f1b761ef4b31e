/* The reader by itself: walks a value item by item beside mp_skip, which must agree. */
#include "fuzz/fuzz.h"

#include "wire/mp.h"

static void walk(struct mp_reader *r, int depth)
{
    uint32_t n = 0;
    enum mp_type type = mp_peek(r);
    if (depth == MP_DEPTH_MAX && (type == MP_ARRAY || type == MP_MAP)) {
        mp_fail(r, -ERR_MALFORMED);
        return;
    }
    switch (type) {
        case MP_NIL:
            mp_get_nil(r);
            return;
        case MP_BOOL:
            (void)mp_get_bool(r);
            return;
        case MP_UINT:
            (void)mp_get_u64(r);
            return;
        case MP_INT:
            CHECK(mp_get_i64(r) < 0);
            return;
        case MP_STR:
            (void)mp_get_str(r, SIZE_MAX);
            return;
        case MP_BIN:
            (void)mp_get_bin(r, SIZE_MAX);
            return;
        case MP_ARRAY:
            n = mp_get_array(r, UINT32_MAX);
            break;
        case MP_MAP:
            n = 2 * mp_get_map(r, UINT32_MAX / 2);
            break;
        case MP_BAD:
            mp_fail(r, -ERR_MALFORMED);
            return;
    }
    for (uint32_t i = 0; i < n && r->err == 0; i++) {
        walk(r, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct blob in = blob_of(data, size);
    struct mp_reader skipping;
    struct mp_reader walking;
    mp_reader_init(&skipping, in);
    mp_reader_init(&walking, in);
    struct blob value = mp_skip(&skipping);
    walk(&walking, 0);
    CHECK((skipping.err == 0) == (walking.err == 0));
    CHECK(skipping.err != 0 || skipping.p == walking.p);
    CHECK(value.len <= size);
    (void)mp_reader_finish(&skipping);

    char text[16];
    (void)mp_find(in, "id");
    (void)mp_find_int(in, "count");
    mp_find_str(in, "name", text, sizeof text);
    CHECK(strnlen(text, sizeof text) < sizeof text);
    return 0;
}
