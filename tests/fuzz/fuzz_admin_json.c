/* JSON bodies and documents. First byte even: JSON in; what is accepted must come out as JSON that
 * reads back to the same document. Odd: a document in, to JSON. */
#include "admin/json.h"
#include "wire/mp.h"

#include "fuzz/fuzz.h"

static void from_json(struct blob in)
{
    struct buf doc, text, again;
    struct errmsg em;
    buf_init(&doc, 1u << 20);
    buf_init(&text, 8u << 20);
    buf_init(&again, 1u << 20);
    if (json_to_doc(in, &doc, &em) == 0) {
        struct mp_reader r;
        mp_reader_init(&r, buf_blob(&doc));
        (void)mp_skip(&r);
        CHECK(mp_reader_finish(&r) == 0);
        CHECK(json_from_doc(buf_blob(&doc), 0, &text) == 0);
        CHECK(json_to_doc(buf_blob(&text), &again, &em) == 0);
        CHECK(blob_equal(buf_blob(&doc), buf_blob(&again)));
    } else {
        CHECK(doc.len == 0 && doc.err == 0);
    }
    buf_fini(&doc);
    buf_fini(&text);
    buf_fini(&again);
}

static void from_doc(struct blob in)
{
    struct buf text;
    buf_init(&text, 1u << 20);
    (void)json_from_doc(in, JSON_HIDE | JSON_NICE, &text);
    buf_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0) {
        struct blob in = blob_of(data + 1, size - 1);
        if (data[0] % 2 == 0) {
            from_json(in);
        } else {
            from_doc(in);
        }
    }
    return 0;
}
