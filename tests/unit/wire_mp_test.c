/* The reader must survive every byte string: each form of head, cut at each byte, counts that lie. */
#include "wire/mp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define BYTES(s) blob_of(s, sizeof(s) - 1)

static struct mp_reader reader(struct blob in)
{
    struct mp_reader r;
    mp_reader_init(&r, in);
    return r;
}

/* Each head form of the specification that we take, one value each. */
static const struct {
    const char *bytes;
    size_t len;
    enum mp_type type;
    uint64_t n;
    int64_t i;
} forms[] = {
#define FORM(s, type, n, i) {s, sizeof(s) - 1, type, n, i}
    FORM("\x00", MP_UINT, 0, 0),
    FORM("\x7f", MP_UINT, 127, 127),
    FORM("\xff", MP_INT, 0, -1),
    FORM("\xe0", MP_INT, 0, -32),
    FORM("\xcc\xff", MP_UINT, 255, 255),
    FORM("\xcd\xff\xfe", MP_UINT, 65534, 65534),
    FORM("\xce\xff\xff\xff\xff", MP_UINT, 4294967295u, 4294967295),
    FORM("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", MP_UINT, INT64_MAX, INT64_MAX),
    FORM("\xd0\x80", MP_INT, 0, -128),
    FORM("\xd0\x05", MP_UINT, 5, 5), /* a signed form of a positive number */
    FORM("\xd1\x80\x00", MP_INT, 0, -32768),
    FORM("\xd2\x80\x00\x00\x00", MP_INT, 0, INT32_MIN),
    FORM("\xd3\x80\x00\x00\x00\x00\x00\x00\x00", MP_INT, 0, INT64_MIN),
    FORM("\xd3\x00\x00\x00\x00\x00\x00\x00\x01", MP_UINT, 1, 1),
    FORM("\xc0", MP_NIL, 0, 0),
    FORM("\xc2", MP_BOOL, 0, 0),
    FORM("\xc3", MP_BOOL, 1, 0),
    FORM("\xa0", MP_STR, 0, 0),
    FORM("\xa3"
         "abc",
         MP_STR, 3, 0),
    FORM("\xd9\x02"
         "ab",
         MP_STR, 2, 0),
    FORM("\xda\x00\x02"
         "ab",
         MP_STR, 2, 0),
    FORM("\xdb\x00\x00\x00\x01"
         "a",
         MP_STR, 1, 0),
    FORM("\xc4\x02"
         "ab",
         MP_BIN, 2, 0),
    FORM("\xc5\x00\x02"
         "ab",
         MP_BIN, 2, 0),
    FORM("\xc6\x00\x00\x00\x02"
         "ab",
         MP_BIN, 2, 0),
    FORM("\x92\x01\x02", MP_ARRAY, 2, 0),
    FORM("\xdc\x00\x02\x01\x02", MP_ARRAY, 2, 0),
    FORM("\xdd\x00\x00\x00\x02\x01\x02", MP_ARRAY, 2, 0),
    FORM("\x81\x01\x02", MP_MAP, 1, 0),
    FORM("\xde\x00\x01\x01\x02", MP_MAP, 1, 0),
    FORM("\xdf\x00\x00\x00\x01\x01\x02", MP_MAP, 1, 0),
};

static void read_one(struct mp_reader *r, enum mp_type type, uint64_t n, int64_t i)
{
    switch (type) {
        case MP_NIL:
            mp_get_nil(r);
            return;
        case MP_BOOL:
            assert_int_equal(mp_get_bool(r), n != 0);
            return;
        case MP_UINT: {
            struct mp_reader again = *r;
            assert_int_equal(mp_get_i64(&again), i);
            assert_true(mp_get_u64(r) == n);
            return;
        }
        case MP_INT:
            assert_true(mp_get_i64(r) == i);
            return;
        case MP_STR:
            assert_int_equal(mp_get_str(r, 8).len, n);
            return;
        case MP_BIN:
            assert_int_equal(mp_get_bin(r, 8).len, n);
            return;
        case MP_ARRAY:
            assert_int_equal(mp_get_array(r, 8), n);
            for (uint64_t k = 0; k < n; k++) {
                (void)mp_skip(r);
            }
            return;
        case MP_MAP:
            assert_int_equal(mp_get_map(r, 8), n);
            for (uint64_t k = 0; k < 2 * n; k++) {
                (void)mp_skip(r);
            }
            return;
        case MP_BAD:
            fail();
    }
}

static void test_every_head_form_is_read(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(forms); k++) {
        struct blob in = blob_of(forms[k].bytes, forms[k].len);
        struct mp_reader r = reader(in);
        assert_int_equal(mp_peek(&r), forms[k].type);
        read_one(&r, forms[k].type, forms[k].n, forms[k].i);
        assert_int_equal(mp_reader_finish(&r), 0);
        r = reader(in);
        assert_true(blob_equal(mp_skip(&r), in));
        assert_int_equal(mp_reader_finish(&r), 0);
    }
}

static void test_every_form_cut_short_is_malformed(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(forms); k++) {
        for (size_t n = 0; n < forms[k].len; n++) {
            uint8_t *copy = xmalloc(n);
            if (n > 0) {
                memcpy(copy, forms[k].bytes, n);
            }
            struct mp_reader r = reader(blob_of(copy, n));
            assert_int_equal(mp_skip(&r).len, 0);
            assert_int_equal(mp_reader_finish(&r), -ERR_MALFORMED);
            r = reader(blob_of(copy, n));
            (void)mp_get_u64(&r);
            (void)mp_get_i64(&r);
            (void)mp_get_str(&r, 8);
            (void)mp_get_bin(&r, 8);
            (void)mp_get_array(&r, 8);
            (void)mp_get_map(&r, 8);
            (void)mp_get_uuid(&r);
            assert_int_equal(mp_reader_finish(&r), -ERR_MALFORMED);
            free(copy);
        }
    }
}

static void test_each_getter_refuses_every_other_type(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(forms); k++) {
        struct blob in = blob_of(forms[k].bytes, forms[k].len);
        enum mp_type t = forms[k].type;
        struct mp_reader r;
#define REFUSES(unless, call)                                  \
    r = reader(in);                                            \
    (void)call;                                                \
    assert_int_equal(r.err == -ERR_MALFORMED, !(unless))
        REFUSES(t == MP_BOOL, mp_get_bool(&r));
        REFUSES(t == MP_UINT, mp_get_u64(&r));
        REFUSES(t == MP_UINT || t == MP_INT, mp_get_i64(&r));
        REFUSES(t == MP_STR, mp_get_str(&r, 8));
        REFUSES(t == MP_BIN, mp_get_bin(&r, 8));
        REFUSES(t == MP_ARRAY, mp_get_array(&r, 8));
        REFUSES(t == MP_MAP, mp_get_map(&r, 8));
        REFUSES(false, mp_get_uuid(&r));
        r = reader(in);
        mp_get_nil(&r);
        assert_int_equal(r.err == -ERR_MALFORMED, t != MP_NIL);
    }
}

static void test_floats_extensions_and_unused_are_bad(void **state)
{
    (void)state;
    static const uint8_t tags[] = {0xc1, 0xc7, 0xc8, 0xc9, 0xca, 0xcb,
                                   0xd4, 0xd5, 0xd6, 0xd7, 0xd8};
    for (size_t k = 0; k < sizeof tags; k++) {
        uint8_t in[32] = {tags[k]};
        struct mp_reader r = reader(blob_of(in, sizeof in));
        assert_int_equal(mp_peek(&r), MP_BAD);
        (void)mp_skip(&r);
        assert_int_equal(r.err, -ERR_MALFORMED);
    }
}

static void test_u64_over_int64_is_no_signed_number(void **state)
{
    (void)state;
    struct mp_reader r = reader(BYTES("\xcf\x80\x00\x00\x00\x00\x00\x00\x00"));
    struct mp_reader again = r;
    assert_true(mp_get_u64(&r) == (uint64_t)INT64_MAX + 1);
    assert_int_equal(mp_get_i64(&again), 0);
    assert_int_equal(again.err, -ERR_MALFORMED);
}

/* Counts and lengths larger than the input are refused before anybody loops or allocates. */
static void test_counts_larger_than_the_input_are_refused(void **state)
{
    (void)state;
    struct mp_reader r = reader(BYTES("\xdd\xff\xff\xff\xff\x01"));
    assert_int_equal(mp_get_array(&r, UINT32_MAX), 0);
    assert_int_equal(r.err, -ERR_MALFORMED);
    r = reader(BYTES("\xdf\x00\x00\x00\x02\x01\x02\x03")); /* one and a half pairs */
    assert_int_equal(mp_get_map(&r, UINT32_MAX), 0);
    assert_int_equal(r.err, -ERR_MALFORMED);
    r = reader(BYTES("\xc6\xff\xff\xff\xff"
                     "ab"));
    assert_int_equal(mp_get_bin(&r, SIZE_MAX).len, 0);
    assert_int_equal(r.err, -ERR_MALFORMED);
    r = reader(BYTES("\xdb\x00\x00\x00\x03"
                     "ab"));
    assert_int_equal(mp_get_str(&r, SIZE_MAX).len, 0);
    assert_int_equal(r.err, -ERR_MALFORMED);
    r = reader(BYTES("\xdf\xff\xff\xff\xff\x01\x02"));
    assert_int_equal(mp_skip(&r).len, 0);
    assert_int_equal(r.err, -ERR_MALFORMED);
}

static void test_bounds_of_the_caller_are_kept(void **state)
{
    (void)state;
    struct mp_reader r = reader(BYTES("\xa3"
                                      "abc"));
    (void)mp_get_str(&r, 2);
    assert_int_equal(r.err, -ERR_TOO_LARGE);
    r = reader(BYTES("\xc4\x03"
                     "abc"));
    (void)mp_get_bin(&r, 2);
    assert_int_equal(r.err, -ERR_TOO_LARGE);
    r = reader(BYTES("\x93\x01\x02\x03"));
    (void)mp_get_array(&r, 2);
    assert_int_equal(r.err, -ERR_TOO_LARGE);
    r = reader(BYTES("\x82\x01\x02\x03\x04"));
    (void)mp_get_map(&r, 1);
    assert_int_equal(r.err, -ERR_TOO_LARGE);
}

static void test_nesting_is_bounded(void **state)
{
    (void)state;
    static uint8_t in[100001];
    for (size_t depth = 1; depth <= 40; depth++) {
        memset(in, 0x91, depth);
        in[depth] = 0x01;
        struct mp_reader r = reader(blob_of(in, depth + 1));
        (void)mp_skip(&r);
        assert_int_equal(mp_reader_finish(&r), depth <= MP_DEPTH_MAX ? 0 : -ERR_MALFORMED);
    }
    memset(in, 0x91, sizeof in);
    struct mp_reader r = reader(blob_of(in, sizeof in));
    (void)mp_skip(&r);
    assert_int_equal(r.err, -ERR_MALFORMED);
    memset(in, 0x81, sizeof in);
    r = reader(blob_of(in, sizeof in));
    (void)mp_skip(&r);
    assert_int_equal(r.err, -ERR_MALFORMED);
}

static void test_first_error_sticks(void **state)
{
    (void)state;
    struct mp_reader r = reader(BYTES("\xa3"
                                      "abc\x05\x06"));
    (void)mp_get_str(&r, 1);
    assert_int_equal(r.err, -ERR_TOO_LARGE);
    assert_int_equal(mp_peek(&r), MP_BAD);
    assert_int_equal(mp_get_u64(&r), 0);
    assert_int_equal(mp_get_str(&r, 10).len, 0);
    assert_int_equal(mp_skip(&r).len, 0);
    mp_fail(&r, -ERR_UNSUPPORTED);
    assert_int_equal(mp_reader_finish(&r), -ERR_TOO_LARGE);
}

static void test_bytes_left_over_are_malformed(void **state)
{
    (void)state;
    struct mp_reader r = reader(BYTES("\x05\x06"));
    assert_int_equal(mp_get_u64(&r), 5);
    assert_int_equal(r.err, 0);
    assert_int_equal(mp_reader_finish(&r), -ERR_MALFORMED);
    r = reader(blob_of(NULL, 0));
    assert_int_equal(mp_reader_finish(&r), 0);
    assert_int_equal(mp_peek(&r), MP_BAD);
}

static void test_numbers_are_written_as_short_as_they_go(void **state)
{
    (void)state;
    static const struct {
        int64_t v;
        size_t len;
    } cases[] = {{0, 1},      {127, 1},    {128, 2},        {255, 2},        {256, 3},
                 {65535, 3},  {65536, 5},  {4294967295, 5}, {4294967296, 9}, {INT64_MAX, 9},
                 {-1, 1},     {-32, 1},    {-33, 2},        {-128, 2},       {-129, 3},
                 {-32768, 3}, {-32769, 5}, {INT32_MIN, 5},  {INT64_MIN, 9}};
    for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
        struct buf out;
        struct mp_writer w;
        buf_init(&out, 16);
        mp_writer_init(&w, &out);
        mp_put_i64(&w, cases[k].v);
        assert_int_equal(out.len, cases[k].len);
        struct mp_reader r = reader(buf_blob(&out));
        assert_true(mp_get_i64(&r) == cases[k].v);
        buf_fini(&out);
    }
}

static void test_document_round_trip(void **state)
{
    (void)state;
    struct buf out;
    struct mp_writer w;
    struct mp_doc d;
    char text[64];
    const struct uuid id = {.b = {1, 2, 3}};
    buf_init(&out, 1024);
    mp_writer_init(&w, &out);
    mp_doc_begin(&w, &d);
    mp_doc_str(&w, &d, "name", "relay-1");
    mp_doc_str(&w, &d, "none", NULL);
    mp_doc_int(&w, &d, "count", -5);
    mp_doc_bool(&w, &d, "yes", true);
    mp_doc_bool(&w, &d, "no", false);
    mp_doc_bool(&w, &d, "flag", true);
    mp_doc_uuid(&w, &d, "id", &id);
    mp_doc_uuid(&w, &d, "nil_id", &UUID_NIL);
    mp_doc_hex(&w, &d, "hash", BYTES("\x00\xab"));
    mp_doc_time(&w, &d, "at", 1000);
    mp_doc_time(&w, &d, "never", 0);
    mp_doc_key(&w, &d, "list");
    size_t at = mp_list_begin(&w);
    mp_put_u64(&w, 7);
    mp_list_end(&w, at, 1);
    mp_doc_end(&w, &d);
    assert_int_equal(out.err, 0);
    struct blob doc = buf_blob(&out);
    struct mp_reader r = reader(doc);
    assert_int_equal(mp_skip(&r).len, doc.len);
    assert_int_equal(mp_reader_finish(&r), 0);
    mp_find_str(doc, "name", text, sizeof text);
    assert_string_equal(text, "relay-1");
    mp_find_str(doc, "name", text, 4);
    assert_string_equal(text, "rel");
    mp_find_str(doc, "hash", text, sizeof text);
    assert_string_equal(text, "00ab");
    mp_find_str(doc, "id", text, sizeof text);
    assert_string_equal(text, "01020300-0000-0000-0000-000000000000");
    mp_find_str(doc, "at", text, sizeof text);
    assert_string_equal(text, "1970-01-01T00:00:01.000Z");
    static const char *const empty[] = {"none", "nil_id", "never", "count", "absent"};
    for (size_t k = 0; k < ARRAY_SIZE(empty); k++) {
        mp_find_str(doc, empty[k], text, sizeof text);
        assert_string_equal(text, "");
    }
    assert_int_equal(mp_find_int(doc, "count"), -5);
    assert_int_equal(mp_find_int(doc, "name"), 0);
    assert_int_equal(mp_find_int(doc, "absent"), 0);
    assert_true(mp_find_bool(doc, "yes"));
    assert_false(mp_find_bool(doc, "no"));
    assert_false(mp_find_bool(doc, "count"));
    assert_false(mp_find_bool(doc, "absent"));
    r = reader(mp_find(doc, "list"));
    assert_int_equal(mp_get_array(&r, 5), 1);
    assert_int_equal(mp_get_u64(&r), 7);
    buf_fini(&out);
}

static void test_copied_pairs_join_the_open_document(void **state)
{
    (void)state;
    struct buf out;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&out, 1024);
    mp_writer_init(&w, &out);
    mp_doc_begin(&w, &d);
    mp_doc_int(&w, &d, "a", 1);
    mp_doc_copy(&w, &d,
                BYTES("\x82\xa1"
                      "b\x02\xa1"
                      "c\x03"));
    mp_doc_copy(&w, &d, blob_of(NULL, 0));
    mp_doc_copy(&w, &d,
                BYTES("\x82\xa1"
                      "e\x05\xa1")); /* damaged: up to the damage */
    mp_doc_int(&w, &d, "d", 4);
    mp_doc_end(&w, &d);
    struct mp_reader r = reader(buf_blob(&out));
    (void)mp_skip(&r);
    assert_int_equal(mp_reader_finish(&r), 0);
    static const char *const keys[] = {"a", "b", "c", "d", "e"};
    for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
        assert_int_equal(mp_find_int(buf_blob(&out), keys[k]), k + 1);
    }
    buf_fini(&out);
}

static void test_find_survives_what_is_no_document(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
#define CASE(s) {s, sizeof(s) - 1}
        CASE(""),          CASE("\x91\x01"),      CASE("\x81\x01\x02"),
        CASE("\x81\xa1k"), CASE("\x82\xa1k\x01"), CASE("\xdf\xff\xff\xff\xff\xa1k\x01"),
    };
    for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
        struct blob in = blob_of(cases[k].bytes, cases[k].len);
        assert_int_equal(mp_find(in, "absent").len, 0);
        assert_int_equal(mp_find_int(in, "absent"), 0);
    }
}

static void test_writer_stops_at_the_maximum(void **state)
{
    (void)state;
    struct buf out;
    struct mp_writer w;
    struct mp_doc d;
    buf_init(&out, 12);
    mp_writer_init(&w, &out);
    mp_doc_begin(&w, &d);
    mp_doc_str(&w, &d, "a long key", "and a long value");
    mp_doc_end(&w, &d);
    assert_int_equal(out.err, -ERR_TOO_LARGE);
    buf_fini(&out);
    buf_init(&out, 2); /* not even the head */
    mp_doc_begin(&w, &d);
    mp_doc_end(&w, &d);
    assert_int_equal(out.err, -ERR_TOO_LARGE);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_head_form_is_read),
        cmocka_unit_test(test_every_form_cut_short_is_malformed),
        cmocka_unit_test(test_each_getter_refuses_every_other_type),
        cmocka_unit_test(test_floats_extensions_and_unused_are_bad),
        cmocka_unit_test(test_u64_over_int64_is_no_signed_number),
        cmocka_unit_test(test_counts_larger_than_the_input_are_refused),
        cmocka_unit_test(test_bounds_of_the_caller_are_kept),
        cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_first_error_sticks),
        cmocka_unit_test(test_bytes_left_over_are_malformed),
        cmocka_unit_test(test_numbers_are_written_as_short_as_they_go),
        cmocka_unit_test(test_document_round_trip),
        cmocka_unit_test(test_copied_pairs_join_the_open_document),
        cmocka_unit_test(test_find_survives_what_is_no_document),
        cmocka_unit_test(test_writer_stops_at_the_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
