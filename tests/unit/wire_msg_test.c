/* Every message of the catalogue: round trips, golden bytes, and what decoding refuses. */
#include "wire/msg.h"

#include "base/file.h"
#include "base/text.h"
#include "lib/msg_catalog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ENCODED_MAX (8u << 20)

static void encode(const struct msg_desc *d, const void *msg, struct buf *out)
{
    buf_init(out, ENCODED_MAX);
    msg_encode(d, msg, out);
    assert_int_equal(out->err, 0);
}

static void assert_decodes(const struct msg_desc *d, enum msg_mode mode, struct blob in,
                           const void *want)
{
    void *got = xmalloc(d->size);
    int rc = msg_decode(d, mode, in, got);
    if (rc != 0 || !msg_equal(d, got, want)) {
        fail_msg("%s: rc %d, or not what was encoded", d->name, rc);
    }
    free(got);
}

static void assert_refused(const struct msg_desc *d, enum msg_mode mode, struct blob in, int want)
{
    uint8_t *got = xmalloc(d->size);
    memset(got, 0x5a, d->size);
    int rc = msg_decode(d, mode, in, got);
    if (rc != want) {
        fail_msg("%s: rc %d, not %d", d->name, rc, want);
    }
    for (size_t i = 0; i < d->size; i++) {
        assert_int_equal(got[i], 0);
    }
    free(got);
}

static void test_random_values_round_trip(void **state)
{
    (void)state;
    struct prng p;
    prng_seed(&p, 20261123);
    for (size_t k = 0; k < msg_catalog_count; k++) {
        const struct msg_desc *d = msg_catalog[k].desc;
        for (int i = 0; i < 40; i++) {
            struct msg_arena arena = {.count = 0};
            struct buf bytes;
            void *msg = xmalloc(d->size);
            msg_sample_random(d, &p, &arena, msg);
            encode(d, msg, &bytes);
            assert_decodes(d, MSG_STRICT, buf_blob(&bytes), msg);
            assert_decodes(d, MSG_LENIENT, buf_blob(&bytes), msg);
            free(msg);
            buf_fini(&bytes);
            msg_arena_free(&arena);
        }
    }
}

/* Bytes of earlier releases stay readable: the files change only on purpose (RAP_GOLDEN_WRITE=1). */
static void test_bytes_are_golden(void **state)
{
    (void)state;
    for (size_t k = 0; k < msg_catalog_count; k++) {
        const struct msg_desc *d = msg_catalog[k].desc;
        struct msg_arena arena = {.count = 0};
        struct buf bytes;
        struct buf text;
        struct buf kept;
        void *msg = xmalloc(d->size);
        msg_sample_fixed(d, &arena, msg);
        encode(d, msg, &bytes);
        buf_init(&text, 65536);
        buf_init(&kept, 65536);
        for (size_t i = 0; i < bytes.len; i += 32) {
            char line[65];
            size_t n = bytes.len - i < 32 ? bytes.len - i : 32;
            hex_encode(bytes.data + i, n, line);
            buf_addf(&text, "%s\n", line);
        }
        char *path = xasprintf("%s/tests/golden/%s.hex", RAP_SOURCE_DIR, d->name);
        if (getenv("RAP_GOLDEN_WRITE") != NULL) {
            assert_int_equal(file_write_atomic(path, buf_blob(&text), 0644, NULL), 0);
        }
        if (file_read(path, &kept, NULL) != 0) {
            fail_msg("no golden file %s", path);
        }
        if (!blob_equal(buf_blob(&kept), buf_blob(&text))) {
            fail_msg("%s is encoded differently now:\n%sbut %s says\n%s", d->name, buf_cstr(&text),
                     path, buf_cstr(&kept));
        }
        assert_decodes(d, MSG_STRICT, buf_blob(&bytes), msg);
        free(path);
        free(msg);
        buf_fini(&bytes);
        buf_fini(&text);
        buf_fini(&kept);
        msg_arena_free(&arena);
    }
}

static void test_truncated_or_longer_is_malformed(void **state)
{
    (void)state;
    for (size_t k = 0; k < msg_catalog_count; k++) {
        const struct msg_desc *d = msg_catalog[k].desc;
        struct msg_arena arena = {.count = 0};
        struct buf bytes;
        void *msg = xmalloc(d->size);
        msg_sample_fixed(d, &arena, msg);
        encode(d, msg, &bytes);
        for (size_t n = 0; n < bytes.len; n++) {
            uint8_t *copy = xmalloc(n);
            if (n > 0) {
                memcpy(copy, bytes.data, n);
            }
            assert_refused(d, MSG_LENIENT, blob_of(copy, n), -ERR_MALFORMED);
            free(copy);
        }
        buf_add(&bytes, "\0", 1);
        assert_refused(d, MSG_LENIENT, buf_blob(&bytes), -ERR_MALFORMED);
        free(msg);
        buf_fini(&bytes);
        msg_arena_free(&arena);
    }
}

static void test_each_required_field_is_missed(void **state)
{
    (void)state;
    unsigned checked = 0;
    for (size_t k = 0; k < msg_catalog_count; k++) {
        const struct msg_desc *d = msg_catalog[k].desc;
        for (size_t i = 0; i < d->count; i++) {
            const struct msg_field *f = &d->fields[i];
            if ((f->flags & MSG_REQUIRED) == 0) {
                continue;
            }
            struct msg_arena arena = {.count = 0};
            struct buf bytes;
            uint8_t *msg = xmalloc(d->size);
            msg_sample_fixed(d, &arena, msg);
            size_t end = i + 1 < d->count ? d->fields[i + 1].offset : d->size;
            memset(msg + f->offset, 0, end - f->offset);
            encode(d, msg, &bytes);
            assert_refused(d, MSG_LENIENT, buf_blob(&bytes), -ERR_MALFORMED);
            free(msg);
            buf_fini(&bytes);
            msg_arena_free(&arena);
            checked++;
        }
    }
    assert_true(checked > 60);
}

/* One byte or item over each bound. */
static void test_each_bound_is_kept(void **state)
{
    (void)state;
    for (size_t k = 0; k < msg_catalog_count; k++) {
        const struct msg_desc *d = msg_catalog[k].desc;
        for (size_t i = 0; i < d->count; i++) {
            const struct msg_field *f = &d->fields[i];
            if (f->max > ENCODED_MAX / 2) {
                continue; /* an image: as many megabytes as this would test nothing else */
            }
            struct msg_arena arena = {.count = 0};
            struct buf bytes;
            struct buf large;
            uint8_t *msg = xmalloc(d->size);
            msg_sample_fixed(d, &arena, msg);
            buf_init(&large, f->max + 1);
            uint8_t *p = buf_grow(&large, f->max + 1);
            memset(p, 'a', f->max + 1); /* as a list: so many small integers */
            switch ((enum msg_type)f->type) {
                case MSG_STR:
                case MSG_BIN:
                case MSG_FIX:
                    *(struct blob *)(void *)(msg + f->offset) = buf_blob(&large);
                    break;
                case MSG_LIST:
                    *(struct mp_list *)(void *)(msg + f->offset) = (struct mp_list){
                        .raw = buf_blob(&large), .count = (uint32_t)f->max + 1};
                    break;
                case MSG_U64:
                case MSG_I64:
                case MSG_FLAG:
                case MSG_ID:
                    goto next;
            }
            encode(d, msg, &bytes);
            assert_refused(d, MSG_LENIENT, buf_blob(&bytes), -ERR_TOO_LARGE);
            buf_fini(&bytes);
        next:
            free(msg);
            buf_fini(&large);
            msg_arena_free(&arena);
        }
    }
}

/* --- a message of our own, for what depends on exact bytes --- */

#define PROBE_FIELDS(X, T)                \
    X(T, 2, U64, number, 0, MSG_REQUIRED) \
    X(T, 4, STR, text, 4, 0)              \
    X(T, 6, FIX, fixed, 2, 0)             \
    X(T, 8, LIST, list, 3, 0)             \
    X(T, 9, FLAG, flag, 0, 0)             \
    X(T, 10, ID, id, 0, 0)                \
    X(T, 11, I64, signed_number, 0, 0)
MSG_DECLARE(probe, PROBE_FIELDS)
MSG_DEFINE(probe, PROBE_FIELDS)

#define BYTES(s) blob_of(s, sizeof(s) - 1)

static void test_zero_fields_are_left_out(void **state)
{
    (void)state;
    const struct probe m = {.number = 1};
    struct buf out;
    encode(&probe_desc, &m, &out);
    assert_true(blob_equal(buf_blob(&out), BYTES("\x81\x02\x01")));
    buf_fini(&out);
    const struct probe n = {
        .number = 300, .text = blob_str("hi"), .flag = true, .signed_number = -1};
    encode(&probe_desc, &n, &out);
    assert_true(
        blob_equal(buf_blob(&out), BYTES("\x84\x02\xcd\x01\x2c\x04\xa2hi\x09\xc3\x0b\xff")));
    buf_fini(&out);
}

static void test_unknown_key_is_skipped_or_refused(void **state)
{
    (void)state;
    const struct probe want = {.number = 1, .text = blob_str("t")};
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
#define CASE(s) {s, sizeof(s) - 1}
        CASE("\x83\x01\x05\x02\x01\x04\xa1t"),                  /* before */
        CASE("\x83\x02\x01\x03\xa1x\x04\xa1t"),                 /* between */
        CASE("\x83\x02\x01\x04\xa1t\xcc\xff\x81\xa1k\x91\xc0"), /* behind, nested */
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct blob in = blob_of(cases[i].bytes, cases[i].len);
        assert_decodes(&probe_desc, MSG_LENIENT, in, &want);
        assert_refused(&probe_desc, MSG_STRICT, in, -ERR_UNSUPPORTED);
    }
}

static void test_bad_shapes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        int rc;
    } cases[] = {
#define BAD(s) {s, sizeof(s) - 1, -ERR_MALFORMED}
        BAD(""),
        BAD("\x80"),         /* required field missing */
        BAD("\x81\x02\x00"), /* required field zero */
        BAD("\x91\x02"),     /* no map */
        BAD("\xc0"),
        BAD("\x82\x02\x01\x02\x01"),         /* key twice */
        BAD("\x82\x04\xa1t\x02\x01"),        /* keys fall */
        BAD("\x82\x02\x01\xcd\x01\x00\x01"), /* key 256 */
        BAD("\x82\x02\x01\xff\x01"),         /* key -1 */
        BAD("\x82\xa1"
            "2\x01\x04\xa1t"), /* a string for a key */
        BAD("\x81\x02\xff"),   /* negative for unsigned */
        BAD("\x81\x02\xa1"
            "1"),                            /* a string for a number */
        BAD("\x81\x02\xca\x3f\x80\x00\x00"), /* a float */
        BAD("\x82\x02\x01\x04\xc4\x01t"),    /* bin for str */
        BAD("\x82\x02\x01\x04\xa1\x1f"),     /* control character */
        BAD("\x82\x02\x01\x04\xa2\xc3("),    /* not UTF-8 */
        BAD("\x82\x02\x01\x06\xc4\x01x"),    /* fixed, but shorter */
        BAD("\x82\x02\x01\x06\xa2xy"),       /* str for bin */
        BAD("\x82\x02\x01\x08\x81\x01\x02"), /* map for list */
        BAD("\x82\x02\x01\x08\x92\x01"),     /* list ends early */
        BAD("\x82\x02\x01\x09\x01"),         /* number for flag */
        BAD("\x82\x02\x01\x0a\xc4\x04"
            "abcd"),                                                 /* short id */
        BAD("\x82\x02\x01\x0b\xcf\x80\x00\x00\x00\x00\x00\x00\x00"), /* over INT64_MAX */
        BAD("\xdf\xff\xff\xff\xff\x02\x01"),                         /* more pairs than bytes */
        BAD("\x82\x02\x01\x08\xdd\xff\xff\xff\xff\x01"),
        {"\x82\x02\x01\x04\xa5hello", 10, -ERR_TOO_LARGE},
        {"\x82\x02\x01\x06\xc4\x03xyz", 9, -ERR_TOO_LARGE},
        {"\x82\x02\x01\x08\x94\x01\x01\x01\x01", 9, -ERR_TOO_LARGE},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct probe m;
        int rc = msg_decode(&probe_desc, MSG_LENIENT, blob_of(cases[i].bytes, cases[i].len), &m);
        if (rc != cases[i].rc) {
            fail_msg("case %zu: rc %d", i, rc);
        }
    }
}

static void test_equal_looks_at_every_field(void **state)
{
    (void)state;
    const struct probe base = {.number = 1,
                               .text = blob_str("t"),
                               .fixed = blob_str("fx"),
                               .list = {.raw = blob_str("\x01"), .count = 1},
                               .flag = true,
                               .id = {.b = {1}},
                               .signed_number = -4};
    struct probe other = base;
    assert_true(msg_equal(&probe_desc, &base, &other));
#define DIFFERS(change)                                       \
    other = base;                                             \
    change;                                                   \
    assert_false(msg_equal(&probe_desc, &base, &other))
    DIFFERS(other.number = 2);
    DIFFERS(other.text = blob_str("u"));
    DIFFERS(other.text = blob_str(""));
    DIFFERS(other.fixed = blob_str("fy"));
    DIFFERS(other.list.raw = blob_str("\x02"));
    DIFFERS(other.list.count = 2);
    DIFFERS(other.flag = false);
    DIFFERS(other.id.b[15] = 1);
    DIFFERS(other.signed_number = 4);
}

static void test_encoding_stops_at_the_maximum(void **state)
{
    (void)state;
    const struct probe m = {.number = 1, .text = blob_str("text")};
    struct buf out;
    buf_init(&out, 5);
    msg_encode(&probe_desc, &m, &out);
    assert_int_equal(out.err, -ERR_TOO_LARGE);
    assert_true(out.len <= 5);
    buf_fini(&out);
}

/* --- the tables around the messages --- */

static void test_command_kinds_are_complete(void **state)
{
    (void)state;
    for (uint64_t a = 0; a < 64; a++) {
        assert_int_equal(cmd_kind_name(a) == NULL, cmd_body_desc(a) == NULL);
        for (uint64_t b = 0; b < a; b++) {
            if (cmd_kind_name(a) != NULL && cmd_kind_name(b) != NULL) {
                assert_string_not_equal(cmd_kind_name(a), cmd_kind_name(b));
                assert_ptr_not_equal(cmd_body_desc(a), cmd_body_desc(b));
            }
        }
    }
    assert_string_equal(cmd_kind_name(CMD_JOIN_APPROVE), "join_approve");
    assert_ptr_equal(cmd_body_desc(CMD_JOIN_APPROVE), &join_approve_desc);
    assert_true(cmd_kind_high_risk(CMD_JOIN_APPROVE));
    assert_false(cmd_kind_high_risk(CMD_TOKEN_CREATE));
    assert_null(cmd_kind_name(0));
    assert_null(cmd_kind_name(UINT64_MAX));
    assert_false(cmd_kind_high_risk(UINT64_MAX));
}

static void test_command_carries_its_body(void **state)
{
    (void)state;
    const struct node_rename body = {.node_id = {.b = {7}}, .name = blob_str("relay-7")};
    struct cmd c = {.kind = CMD_NODE_RENAME,
                    .request_id = {.b = {9}},
                    .time_ms = 5,
                    .actor_kind = blob_str(ACTOR_ADMIN),
                    .actor_id = blob_str("uid:0")};
    struct buf out;
    struct cmd got;
    struct node_rename got_body;
    buf_init(&out, ENCODED_MAX);
    cmd_encode(&c, &body, &out);
    assert_int_equal(out.err, 0);
    assert_int_equal(msg_decode(&cmd_desc, MSG_STRICT, buf_blob(&out), &got), 0);
    assert_int_equal(got.kind, CMD_NODE_RENAME);
    assert_int_equal(msg_decode(cmd_body_desc(got.kind), MSG_STRICT, got.body, &got_body), 0);
    assert_true(msg_equal(&node_rename_desc, &body, &got_body));
    buf_fini(&out);
}

static void test_list_of_messages(void **state)
{
    (void)state;
    struct buf raw;
    uint32_t count = 0;
    buf_init(&raw, 4096);
    for (uint8_t i = 1; i <= 3; i++) {
        const struct snapshot_peer peer = {.node_id = {.b = {i}}, .address = blob_str("h:1")};
        msg_list_add(&snapshot_peer_desc, &peer, &raw, &count);
    }
    assert_int_equal(count, 3);
    assert_int_equal(raw.err, 0);
    struct mp_reader r;
    mp_reader_init(&r, buf_blob(&raw));
    for (uint8_t i = 1; i <= 3; i++) {
        struct snapshot_peer peer;
        struct blob one = mp_get_bin(&r, 4096);
        assert_int_equal(msg_decode(&snapshot_peer_desc, MSG_LENIENT, one, &peer), 0);
        assert_int_equal(peer.node_id.b[0], i);
    }
    assert_int_equal(mp_reader_finish(&r), 0);
    buf_fini(&raw);
    buf_init(&raw, 3);
    const struct snapshot_peer peer = {.node_id = {.b = {1}}, .address = blob_str("h:1")};
    msg_list_add(&snapshot_peer_desc, &peer, &raw, &count);
    assert_int_equal(raw.err, -ERR_TOO_LARGE);
    assert_int_equal(count, 3);
    buf_fini(&raw);
}

static void test_roles_and_capabilities(void **state)
{
    (void)state;
    for (size_t i = 0; role_names[i] != NULL; i++) {
        struct blob role = blob_str(role_names[i]);
        assert_true(role_is_known(role));
        assert_true(role.len <= ROLE_MAX_BYTES);
        const char *needs = role_capability(role);
        assert_true(*needs == '\0' || capability_is_known(blob_str(needs)));
        assert_false(capability_is_known(role));
    }
    assert_string_equal(role_capability(blob_str("relay-node")), "can_route_mesh");
    assert_false(role_is_known(blob_str("relay-nod")));
    assert_false(role_is_known(blob_str("relay-node ")));
    assert_false(role_is_known(blob_of(NULL, 0)));
    assert_string_equal(role_capability(blob_str("king")), "");
}

/* What stops a replica is not proposed. */
static void test_body_that_no_replica_could_decode_is_told_apart(void **state)
{
    (void)state;
    struct pool_create pool = {.pool_id = {{1}}, .name = blob_str("exits")};
    static const struct {
        const char *name;
        int rc;
    } rows[] = {{"exits", 0}, {"", -ERR_MALFORMED}, {"a\tb", -ERR_MALFORMED}};
    struct buf body;
    buf_init(&body, CMD_BODY_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        pool.name = blob_str(rows[i].name);
        buf_clear(&body);
        msg_encode(&pool_create_desc, &pool, &body);
        assert_int_equal(cmd_body_check(CMD_POOL_CREATE, buf_blob(&body)), rows[i].rc);
    }
    assert_int_equal(cmd_body_check(CMD_KIND_MAX, buf_blob(&body)), -ERR_UNSUPPORTED);
    buf_fini(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_values_round_trip),
        cmocka_unit_test(test_bytes_are_golden),
        cmocka_unit_test(test_truncated_or_longer_is_malformed),
        cmocka_unit_test(test_each_required_field_is_missed),
        cmocka_unit_test(test_each_bound_is_kept),
        cmocka_unit_test(test_zero_fields_are_left_out),
        cmocka_unit_test(test_unknown_key_is_skipped_or_refused),
        cmocka_unit_test(test_bad_shapes_are_refused),
        cmocka_unit_test(test_equal_looks_at_every_field),
        cmocka_unit_test(test_encoding_stops_at_the_maximum),
        cmocka_unit_test(test_command_kinds_are_complete),
        cmocka_unit_test(test_command_carries_its_body),
        cmocka_unit_test(test_list_of_messages),
        cmocka_unit_test(test_roles_and_capabilities),
        cmocka_unit_test(test_body_that_no_replica_could_decode_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
