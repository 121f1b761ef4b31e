/* JSON and documents, both ways. */
#include "admin/json.h"
#include "base/text.h"
#include "wire/mp.h"

#include <setjmp.h>

#include <cmocka.h>

static int to_doc(const char *text, struct buf *out)
{
    struct errmsg em = ERRMSG_INIT;
    buf_init(out, 1 << 16);
    return json_to_doc(blob_str(text), out, &em);
}

static void test_what_goes_in_comes_out(void **state)
{
    static const char *const texts[] = {
        "{}",
        "{\"a\":1,\"b\":-1,\"c\":true,\"d\":false,\"e\":null,\"f\":\"\",\"g\":[],\"h\":{}}",
        "{\"n\":9223372036854775807,\"m\":-9223372036854775808}",
        "{\"s\":\"h\xc3\xa4 \\\" \\\\ \\n\"}",
        "{\"items\":[{\"id\":\"a\"},{\"id\":\"b\"}],\"next_cursor\":null}",
        /* Fractions live only in columns that are text: nothing is lost. */
        "{\"facts\":{\"load\":0.5,\"deep\":[[[1]]]},\"policy\":[1.5],\"details\":\"plain\"}",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct buf doc, out;
        buf_init(&out, 1 << 16);
        assert_int_equal(to_doc(texts[i], &doc), 0);
        assert_int_equal(json_from_doc(buf_blob(&doc), 0, &out), 0);
        assert_string_equal(buf_cstr(&out), texts[i]);
        buf_fini(&doc);
        buf_fini(&out);
    }
}

static void test_text_column_stays_text_in_the_document(void **state)
{
    struct buf doc;
    char text[64];
    (void)state;
    assert_int_equal(to_doc("{\"facts\":{\"os\":\"linux\"},\"other\":{\"os\":\"linux\"}}", &doc),
                     0);
    mp_find_str(buf_blob(&doc), "facts", text, sizeof text);
    assert_string_equal(text, "{\"os\":\"linux\"}");
    mp_find_str(buf_blob(&doc), "other", text, sizeof text);
    assert_string_equal(text, "");
    buf_fini(&doc);
}

static void test_bad_json_is_refused_and_leaves_nothing(void **state)
{
    static const struct {
        const char *text;
        int rc;
    } cases[] = {
        {"", -ERR_MALFORMED},
        {"{", -ERR_MALFORMED},
        {"[]", -ERR_MALFORMED},
        {"1", -ERR_MALFORMED},
        {"{\"a\":1,\"a\":2}", -ERR_MALFORMED},
        {"{\"a\":{\"b\":1,\"b\":1}}", -ERR_MALFORMED},
        {"{} {}", -ERR_MALFORMED},
        {"{\"a\":1.0}", -ERR_MALFORMED},
        {"{\"a\":1e3}", -ERR_MALFORMED},
        {"{\"a\":9223372036854775808}", -ERR_MALFORMED},
        {"{\"a\":\"\\u0000\"}", -ERR_MALFORMED},
        {"{\"\\u0000\":1}", -ERR_MALFORMED},
        {"{\"a\":\"\xff\"}", -ERR_MALFORMED},
        {"{\"a\":'b'}", -ERR_MALFORMED},
        {"{\"a\":NaN}", -ERR_MALFORMED},
        {"{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", -ERR_MALFORMED}, /* 17 levels */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct buf doc;
        int rc = to_doc(cases[i].text, &doc);
        if (rc != cases[i].rc || doc.len != 0 || doc.err != 0) {
            fail_msg("%s: %d, %zu bytes", cases[i].text, rc, doc.len);
        }
        buf_fini(&doc);
    }
}

static void test_very_deep_json_is_refused(void **state)
{
    struct buf text, doc;
    struct errmsg em = ERRMSG_INIT;
    (void)state;
    buf_init(&text, 1 << 20);
    buf_init(&doc, 1 << 20);
    buf_add_str(&text, "{\"facts\":");
    for (int i = 0; i < 500000; i++) {
        buf_add_str(&text, "[");
    }
    assert_int_equal(json_to_doc(buf_blob(&text), &doc, &em), -ERR_MALFORMED);
    buf_fini(&text);
    buf_fini(&doc);
}

static void test_document_over_its_bound_is_refused(void **state)
{
    struct buf doc, out;
    struct errmsg em = ERRMSG_INIT;
    (void)state;
    buf_init(&doc, 16);
    buf_add(&doc, "xy", 2);
    assert_int_equal(json_to_doc(blob_str("{\"a\":\"0123456789abcdef\"}"), &doc, &em),
                     -ERR_TOO_LARGE);
    assert_int_equal(doc.len, 2); /* what was there stays */
    buf_fini(&doc);

    buf_init(&out, 8);
    assert_int_equal(to_doc("{\"a\":\"0123456789\"}", &doc), 0);
    assert_int_equal(json_from_doc(buf_blob(&doc), 0, &out), -ERR_TOO_LARGE);
    buf_fini(&doc);
    buf_fini(&out);
}

static void test_hidden_keys_are_hidden_at_the_top_only(void **state)
{
    struct buf doc, out;
    (void)state;
    buf_init(&out, 4096);
    assert_int_equal(to_doc("{\"_index\":1,\"a\":{\"_b\":2}}", &doc), 0);
    assert_int_equal(json_from_doc(buf_blob(&doc), JSON_HIDE, &out), 0);
    assert_string_equal(buf_cstr(&out), "{\"a\":{\"_b\":2}}");
    buf_fini(&doc);
    buf_fini(&out);
}

static void test_odd_documents_still_become_json(void **state)
{
    struct buf doc, out;
    struct mp_writer w;
    struct mp_doc d;
    (void)state;
    buf_init(&doc, 4096);
    buf_init(&out, 4096);
    mp_writer_init(&w, &doc);
    mp_doc_begin(&w, &d);
    mp_doc_key(&w, &d, "bytes");
    mp_put_bin(&w, blob_of("\x01\xff", 2));
    mp_doc_key(&w, &d, "not_utf8");
    mp_put_strn(&w, "\xff\xfe\xfd\xfc\xfb", 5);
    mp_doc_key(&w, &d, "nul");
    mp_put_strn(&w, "a\0b", 3);
    mp_doc_key(&w, &d, "cut"); /* a two-byte character lost its second half */
    mp_put_strn(&w, "abc\xc3", 4);
    mp_doc_str(&w, &d, "policy", "{broken");
    mp_doc_end(&w, &d);
    assert_int_equal(json_from_doc(buf_blob(&doc), 0, &out), 0);
    assert_string_equal(buf_cstr(&out),
                        "{\"bytes\":\"01ff\",\"not_utf8\":\"fffefdfcfb\","
                        "\"nul\":\"610062\",\"cut\":\"abc\",\"policy\":\"{broken\"}");
    buf_fini(&doc);
    buf_fini(&out);
}

static void test_damaged_documents_are_refused(void **state)
{
    static const char *const hex[] = {
        "",
        "81",
        "81a161",
        "81a16191",
        "8101c0",
        "c1",
        "dfffffffff",
        "ddffffffff",
        "80c0",
        "81a161cb3ff0000000000000", /* a float */
        "81a161cfffffffffffffffff", /* over int64 */
        "8191c0c0",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(hex); i++) {
        uint8_t bytes[32];
        struct buf out;
        size_t len = strlen(hex[i]) / 2;
        buf_init(&out, 4096);
        assert_int_equal(hex_decode(hex[i], bytes, len), 0);
        if (json_from_doc(blob_of(bytes, len), 0, &out) != -ERR_MALFORMED) {
            fail_msg("%s", hex[i]);
        }
        buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_goes_in_comes_out),
        cmocka_unit_test(test_text_column_stays_text_in_the_document),
        cmocka_unit_test(test_bad_json_is_refused_and_leaves_nothing),
        cmocka_unit_test(test_very_deep_json_is_refused),
        cmocka_unit_test(test_document_over_its_bound_is_refused),
        cmocka_unit_test(test_hidden_keys_are_hidden_at_the_top_only),
        cmocka_unit_test(test_odd_documents_still_become_json),
        cmocka_unit_test(test_damaged_documents_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
