/* The Raft codec: what it lets through is what libraft may see. */
#include "authority/raft_image.h"
#include "authority/raft_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

static uint8_t data_a[16] = "entry a bytes..";
static uint8_t data_b[8] = "entry b";

static struct raft_digest digest(void)
{
    struct raft_digest d = {.applied_index = 9,
                            .agreed_index = 7,
                            .level = 3,
                            .epoch = 2,
                            .boot = 99,
                            .boot_term = 4,
                            .boot_index = 8};
    memset(d.lineage, 0xa3, sizeof d.lineage);
    memset(d.applied, 0xa1, sizeof d.applied);
    memset(d.agreed, 0xa2, sizeof d.agreed);
    return d;
}

static void conf_of(struct raft_configuration *c, unsigned n)
{
    raft_configuration_init(c);
    for (unsigned i = 0; i < n; i++) {
        char address[32];
        (void)snprintf(address, sizeof address, "node-%u", i);
        assert_int_equal(raft_configuration_add(c, 100 + i, address, (int)(i % 3)), 0);
    }
}

/* One of each type; entries and conf are the caller's to provide. */
static struct raft_message sample(enum raft_message_type type, struct raft_entry *entries,
                                  const struct raft_configuration *conf, struct raft_buffer image)
{
    struct raft_message m = {.type = type};
    switch (type) {
        case RAFT_REQUEST_VOTE:
            m.request_vote = (struct raft_request_vote){.version = 2,
                                                        .term = 5,
                                                        .candidate_id = 77,
                                                        .last_log_index = 12,
                                                        .last_log_term = 4,
                                                        .disrupt_leader = true,
                                                        .pre_vote = true};
            break;
        case RAFT_REQUEST_VOTE_RESULT:
            m.request_vote_result = (struct raft_request_vote_result){
                .version = 2, .term = 5, .vote_granted = true, .pre_vote = true};
            break;
        case RAFT_APPEND_ENTRIES:
            m.append_entries = (struct raft_append_entries){.term = 5,
                                                            .prev_log_index = 10,
                                                            .prev_log_term = 3,
                                                            .leader_commit = 9,
                                                            .entries = entries,
                                                            .n_entries = 3};
            break;
        case RAFT_APPEND_ENTRIES_RESULT:
            m.append_entries_result = (struct raft_append_entries_result){
                .version = 2, .term = 5, .rejected = 10, .last_log_index = 8};
            break;
        case RAFT_INSTALL_SNAPSHOT:
            m.install_snapshot = (struct raft_install_snapshot){.term = 5,
                                                                .last_index = 10,
                                                                .last_term = 3,
                                                                .conf = *conf,
                                                                .conf_index = 2,
                                                                .data = image};
            break;
        case RAFT_TIMEOUT_NOW:
            m.timeout_now = (struct raft_timeout_now){
                .term = 5, .last_log_index = 12, .last_log_term = 5};
            break;
    }
    return m;
}

static void entries_of(struct raft_entry entries[3])
{
    static uint8_t uninitialised[8] = "secret!";
    entries[0] = (struct raft_entry){
        .term = 3, .type = RAFT_COMMAND, .buf = {.base = data_a, .len = sizeof data_a}};
    entries[1] = (struct raft_entry){
        .term = 4, .type = RAFT_BARRIER, .buf = {.base = uninitialised, .len = 8}};
    entries[2] = (struct raft_entry){
        .term = 5, .type = RAFT_COMMAND, .buf = {.base = data_b, .len = sizeof data_b}};
}

static void packed_image(struct buf *out)
{
    uint8_t raw[300];
    memset(raw, 'i', sizeof raw);
    buf_init(out, 1000);
    assert_int_equal(raft_image_pack_bytes(blob_of(raw, sizeof raw), out), 0);
}

static void encode_sample(enum raft_message_type type, struct buf *out)
{
    struct raft_entry entries[3];
    struct raft_configuration conf;
    struct raft_digest d = digest();
    struct buf image;
    packed_image(&image);
    entries_of(entries);
    conf_of(&conf, 3);
    struct raft_message m = sample(type, entries, &conf,
                                   (struct raft_buffer){.base = image.data, .len = image.len});
    assert_int_equal(raft_msg_encode(&m, &d, out), 0);
    raft_configuration_close(&conf);
    buf_fini(&image);
}

static void test_every_type_comes_back_as_it_was(void **state)
{
    (void)state;
    for (enum raft_message_type t = RAFT_APPEND_ENTRIES; t <= RAFT_TIMEOUT_NOW; t++) {
        struct buf out;
        struct raft_message m;
        struct raft_digest d;
        struct raft_digest want = digest();
        struct buf image;
        buf_init(&out, RAFT_FRAME_MAX);
        encode_sample(t, &out);
        assert_int_equal(raft_msg_decode(buf_blob(&out), &m, &d), 0);
        assert_int_equal(m.type, t);
        assert_memory_equal(&d, &want, sizeof d);
        switch (t) {
            case RAFT_REQUEST_VOTE:
                assert_int_equal(m.request_vote.version, 2);
                assert_int_equal(m.request_vote.term, 5);
                assert_int_equal(m.request_vote.candidate_id, 77);
                assert_int_equal(m.request_vote.last_log_index, 12);
                assert_int_equal(m.request_vote.last_log_term, 4);
                assert_true(m.request_vote.disrupt_leader && m.request_vote.pre_vote);
                break;
            case RAFT_REQUEST_VOTE_RESULT:
                assert_int_equal(m.request_vote_result.version, 2);
                assert_int_equal(m.request_vote_result.term, 5);
                assert_true(m.request_vote_result.vote_granted);
                assert_true(m.request_vote_result.pre_vote);
                break;
            case RAFT_APPEND_ENTRIES: {
                const struct raft_append_entries *a = &m.append_entries;
                assert_int_equal(a->prev_log_index, 10);
                assert_int_equal(a->prev_log_term, 3);
                assert_int_equal(a->leader_commit, 9);
                assert_int_equal(a->n_entries, 3);
                assert_int_equal(a->entries[0].buf.len, sizeof data_a);
                assert_memory_equal(a->entries[0].buf.base, data_a, sizeof data_a);
                /* What raft_barrier left uninitialised stays at home. */
                assert_memory_equal(a->entries[1].buf.base, "\0\0\0\0\0\0\0\0", 8);
                assert_memory_equal(a->entries[2].buf.base, data_b, sizeof data_b);
                /* One batch, from its start, for all: libraft frees it by any of them. */
                assert_ptr_equal(a->entries[0].batch, a->entries[0].buf.base);
                assert_ptr_equal(a->entries[2].batch, a->entries[0].batch);
                break;
            }
            case RAFT_APPEND_ENTRIES_RESULT:
                assert_int_equal(m.append_entries_result.rejected, 10);
                assert_int_equal(m.append_entries_result.last_log_index, 8);
                assert_int_equal(m.append_entries_result.features, 0);
                break;
            case RAFT_INSTALL_SNAPSHOT:
                assert_int_equal(m.install_snapshot.last_index, 10);
                assert_int_equal(m.install_snapshot.last_term, 3);
                assert_int_equal(m.install_snapshot.conf_index, 2);
                assert_int_equal(m.install_snapshot.conf.n, 3);
                assert_string_equal(m.install_snapshot.conf.servers[2].address, "node-2");
                packed_image(&image);
                assert_true(
                    blob_equal(blob_of(m.install_snapshot.data.base, m.install_snapshot.data.len),
                               buf_blob(&image)));
                buf_fini(&image);
                break;
            case RAFT_TIMEOUT_NOW:
                assert_int_equal(m.timeout_now.last_log_index, 12);
                break;
        }
        raft_msg_release(&m);
        buf_fini(&out);
    }
}

static void test_truncated_at_any_byte_is_malformed(void **state)
{
    (void)state;
    for (enum raft_message_type t = RAFT_APPEND_ENTRIES; t <= RAFT_TIMEOUT_NOW; t++) {
        struct buf out;
        buf_init(&out, RAFT_FRAME_MAX);
        encode_sample(t, &out);
        for (size_t n = 0; n < out.len; n++) {
            struct raft_message m;
            struct raft_digest d;
            uint8_t *copy = xmalloc(n); /* so that a read past the end is seen */
            memcpy(copy, out.data, n);
            assert_int_equal(raft_msg_decode(blob_of(copy, n), &m, &d), -ERR_MALFORMED);
            free(copy);
        }
        buf_fini(&out);
    }
}

static void test_any_flipped_bit_is_an_error_or_a_valid_message(void **state)
{
    (void)state;
    for (enum raft_message_type t = RAFT_APPEND_ENTRIES; t <= RAFT_TIMEOUT_NOW; t++) {
        struct buf out;
        buf_init(&out, RAFT_FRAME_MAX);
        encode_sample(t, &out);
        for (size_t bit = 0; bit < 8 * out.len; bit++) {
            struct raft_message m;
            struct raft_digest d;
            out.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (raft_msg_decode(buf_blob(&out), &m, &d) == 0) {
                raft_msg_release(&m);
            }
            out.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        buf_fini(&out);
    }
}

/* A frame by hand: pairs of key and number, in order. */
struct pair {
    uint64_t key, value;
};
static int decode_pairs(const struct pair *pairs, size_t n)
{
    struct buf out;
    struct mp_writer w;
    struct raft_message m;
    struct raft_digest d;
    buf_init(&out, RAFT_FRAME_MAX);
    mp_writer_init(&w, &out);
    mp_put_map(&w, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        mp_put_u64(&w, pairs[i].key);
        mp_put_u64(&w, pairs[i].value);
    }
    int rc = raft_msg_decode(buf_blob(&out), &m, &d);
    if (rc == 0) {
        raft_msg_release(&m);
    }
    buf_fini(&out);
    return rc;
}
#define DECODE(...) \
    decode_pairs((const struct pair[]){__VA_ARGS__}, \
                 sizeof((const struct pair[]){__VA_ARGS__}) / sizeof(struct pair))

enum {
    TYPE = 1,
    TERM,
    INDEX,
    INDEX_TERM,
    COMMIT,
    REJECTED = 7,
    CANDIDATE,
    CONF_INDEX = 13,
    APPLIED = 15,
    AGREED = 17,
    LEVEL = 19
};
#define BIG (RAFT_MSG_NUMBER_MAX + 1)

static void test_every_number_is_checked_at_zero_and_at_its_end(void **state)
{
    (void)state;
    /* term */
    assert_int_equal(DECODE({TYPE, RAFT_APPEND_ENTRIES}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, RAFT_APPEND_ENTRIES}, {TERM, 1}), 0);
    assert_int_equal(DECODE({TYPE, RAFT_APPEND_ENTRIES}, {TERM, RAFT_MSG_NUMBER_MAX}), 0);
    assert_int_equal(DECODE({TYPE, RAFT_APPEND_ENTRIES}, {TERM, BIG}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, RAFT_APPEND_ENTRIES}, {TERM, UINT64_MAX}), -ERR_MALFORMED);
    /* type */
    assert_int_equal(DECODE({TERM, 1}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, RAFT_TIMEOUT_NOW + 1}, {TERM, 1}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, UINT64_MAX}, {TERM, 1}), -ERR_MALFORMED);
    /* the position before: both or neither, term within the message's */
    assert_int_equal(DECODE({TYPE, 1}, {TERM, 5}, {INDEX, 3}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, 1}, {TERM, 5}, {INDEX_TERM, 3}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, 1}, {TERM, 5}, {INDEX, 3}, {INDEX_TERM, 5}), 0);
    assert_int_equal(DECODE({TYPE, 1}, {TERM, 5}, {INDEX, 3}, {INDEX_TERM, 6}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, 1}, {TERM, 5}, {INDEX, BIG}, {INDEX_TERM, 5}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, 1}, {TERM, 5}, {COMMIT, BIG}), -ERR_MALFORMED);
    /* results */
    assert_int_equal(DECODE({TYPE, 2}, {TERM, 5}, {INDEX, RAFT_MSG_NUMBER_MAX}), 0);
    assert_int_equal(DECODE({TYPE, 2}, {TERM, 5}, {INDEX, BIG}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, 2}, {TERM, 5}, {REJECTED, UINT64_MAX}), -ERR_MALFORMED);
    /* votes */
    assert_int_equal(DECODE({TYPE, 3}, {TERM, 5}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, 3}, {TERM, 5}, {CANDIDATE, 1}), 0);
    assert_int_equal(DECODE({TYPE, 3}, {TERM, 5}, {INDEX, 1}, {CANDIDATE, 1}), -ERR_MALFORMED);
    /* a snapshot needs a place, a configuration and an image */
    assert_int_equal(DECODE({TYPE, 5}, {TERM, 5}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, 5}, {TERM, 5}, {INDEX, 2}, {INDEX_TERM, 1}, {CONF_INDEX, 1}),
                     -ERR_MALFORMED);
    /* a digest has an index and an index a digest */
    assert_int_equal(DECODE({TYPE, 1}, {TERM, 5}, {APPLIED, 4}), -ERR_MALFORMED);
    assert_int_equal(DECODE({TYPE, 1}, {TERM, 5}, {AGREED, 4}), -ERR_MALFORMED);
    /* a schema level */
    assert_int_equal(DECODE({TYPE, 1}, {TERM, 5}, {LEVEL, RAFT_MSG_LEVEL_MAX}), 0);
    assert_int_equal(DECODE({TYPE, 1}, {TERM, 5}, {LEVEL, RAFT_MSG_LEVEL_MAX + 1}), -ERR_MALFORMED);
}

/* One AppendEntries whose only entry has this type, term and data. */
static int decode_entry(uint64_t type, uint64_t term, size_t len, uint32_t claimed_entries)
{
    struct buf out;
    struct mp_writer w;
    struct raft_message m;
    struct raft_digest d;
    uint8_t *data = xcalloc(1, len + 1);
    buf_init(&out, RAFT_FRAME_MAX);
    mp_writer_init(&w, &out);
    mp_put_map(&w, 5);
    mp_put_u64(&w, TYPE);
    mp_put_u64(&w, RAFT_APPEND_ENTRIES);
    mp_put_u64(&w, TERM);
    mp_put_u64(&w, 5);
    mp_put_u64(&w, INDEX);
    mp_put_u64(&w, 3);
    mp_put_u64(&w, INDEX_TERM);
    mp_put_u64(&w, 3);
    mp_put_u64(&w, 6);
    mp_put_array(&w, claimed_entries);
    mp_put_array(&w, 3);
    mp_put_u64(&w, type);
    mp_put_u64(&w, term);
    mp_put_bin(&w, blob_of(data, len));
    int rc = raft_msg_decode(buf_blob(&out), &m, &d);
    if (rc == 0) {
        raft_msg_release(&m);
    }
    buf_fini(&out);
    free(data);
    return rc;
}

static void test_entries_libraft_would_choke_on_are_refused(void **state)
{
    (void)state;
    assert_int_equal(decode_entry(RAFT_COMMAND, 4, 8, 1), 0);
    assert_int_equal(decode_entry(RAFT_COMMAND, 4, 9, 1), -ERR_MALFORMED); /* G2 */
    assert_int_equal(decode_entry(RAFT_COMMAND, 4, 301, 1), -ERR_MALFORMED);
    assert_int_equal(decode_entry(RAFT_COMMAND, 4, 0, 1), -ERR_MALFORMED);
    assert_int_equal(decode_entry(RAFT_BARRIER, 4, 0, 1), 0);
    assert_int_equal(decode_entry(RAFT_BARRIER, 4, 8, 1), -ERR_MALFORMED);
    assert_int_equal(decode_entry(0, 4, 8, 1), -ERR_MALFORMED);
    assert_int_equal(decode_entry(4, 4, 8, 1), -ERR_MALFORMED);
    assert_int_equal(decode_entry(UINT64_MAX, 4, 8, 1), -ERR_MALFORMED);
    assert_int_equal(decode_entry(RAFT_COMMAND, 0, 8, 1), -ERR_MALFORMED);
    assert_int_equal(decode_entry(RAFT_COMMAND, 2, 8, 1), -ERR_MALFORMED); /* falls */
    assert_int_equal(decode_entry(RAFT_COMMAND, 6, 8, 1), -ERR_MALFORMED); /* above the sender's */
    assert_int_equal(decode_entry(RAFT_CHANGE, 4, 8, 1), -ERR_MALFORMED);
    assert_int_equal(decode_entry(RAFT_COMMAND, 4, 8, UINT32_MAX), -ERR_MALFORMED);
    assert_int_equal(decode_entry(RAFT_COMMAND, 4, 8, 2), -ERR_MALFORMED);
    assert_int_equal(decode_entry(RAFT_COMMAND, 4, RAFT_MSG_DATA_MAX, 1), 0);
    assert_int_not_equal(decode_entry(RAFT_COMMAND, 4, RAFT_MSG_DATA_MAX + 8, 1), 0);
}

static void test_configuration_in_an_entry_is_checked_before_libraft_reads_it(void **state)
{
    (void)state;
    struct raft_configuration c;
    struct raft_buffer b;
    conf_of(&c, 3);
    assert_int_equal(raft_configuration_encode(&c, &b), 0);
    uint8_t *bytes = b.base;
    assert_int_equal(raft_msg_change_check(blob_of(bytes, b.len)), 0);
    /* Cut anywhere: never read past the end (ASan), accepted only when just padding is missing. */
    for (size_t n = 0; n < b.len; n++) {
        uint8_t *copy = xmalloc(n);
        memcpy(copy, bytes, n);
        int rc = raft_msg_change_check(blob_of(copy, n));
        assert_true(rc == -ERR_MALFORMED || b.len - n < 8);
        free(copy);
    }
    bytes[0] = 2; /* version */
    assert_int_equal(raft_msg_change_check(blob_of(bytes, b.len)), -ERR_MALFORMED);
    bytes[0] = 1;
    memset(bytes + 1, 0xff, 8); /* servers */
    assert_int_equal(raft_msg_change_check(blob_of(bytes, b.len)), -ERR_MALFORMED);
    memset(bytes + 1, 0, 8);
    assert_int_equal(raft_msg_change_check(blob_of(bytes, b.len)), -ERR_MALFORMED);
    bytes[1] = 3;
    bytes[9 + 8 + 7] = 9; /* role of the first */
    assert_int_equal(raft_msg_change_check(blob_of(bytes, b.len)), -ERR_MALFORMED);
    raft_free(b.base);
    raft_configuration_close(&c);
}

static void test_configuration_for_the_store_round_trips_and_is_strict(void **state)
{
    (void)state;
    struct raft_configuration c;
    struct raft_configuration back;
    struct buf out;
    conf_of(&c, RAFT_MSG_SERVERS_MAX);
    buf_init(&out, RAFT_MSG_CONF_MAX);
    raft_msg_conf_encode(&c, &out);
    assert_int_equal(raft_msg_conf_decode(buf_blob(&out), &back), 0);
    assert_int_equal(back.n, c.n);
    for (unsigned i = 0; i < c.n; i++) {
        assert_int_equal(back.servers[i].id, c.servers[i].id);
        assert_int_equal(back.servers[i].role, c.servers[i].role);
        assert_string_equal(back.servers[i].address, c.servers[i].address);
    }
    raft_configuration_close(&back);
    for (size_t n = 0; n < out.len; n++) {
        assert_int_equal(raft_msg_conf_decode(blob_of(out.data, n), &back), -ERR_MALFORMED);
    }
    /* Twice the same id; an empty address; nobody. */
    struct mp_writer w;
    buf_clear(&out);
    mp_writer_init(&w, &out);
    mp_put_array(&w, 2);
    for (int i = 0; i < 2; i++) {
        mp_put_array(&w, 3);
        mp_put_u64(&w, 7);
        mp_put_u64(&w, RAFT_VOTER);
        mp_put_str(&w, i == 0 ? "a" : "b");
    }
    assert_int_equal(raft_msg_conf_decode(buf_blob(&out), &back), -ERR_MALFORMED);
    buf_clear(&out);
    mp_put_array(&w, 1);
    mp_put_array(&w, 3);
    mp_put_u64(&w, 7);
    mp_put_u64(&w, RAFT_VOTER);
    mp_put_str(&w, "");
    assert_int_equal(raft_msg_conf_decode(buf_blob(&out), &back), -ERR_MALFORMED);
    buf_clear(&out);
    mp_put_array(&w, 0);
    assert_int_equal(raft_msg_conf_decode(buf_blob(&out), &back), -ERR_MALFORMED);
    buf_fini(&out);
    raft_configuration_close(&c);
}

static void test_padding_is_zeros_up_to_eight_bytes(void **state)
{
    (void)state;
    for (size_t n = 0; n < 20; n++) {
        struct buf b;
        struct mp_writer w;
        struct blob value;
        uint8_t body[20] = {1, 2, 3};
        buf_init(&b, 1000);
        mp_writer_init(&w, &b);
        mp_put_bin(&w, blob_of(body, n));
        size_t len = b.len;
        raft_msg_pad(&b);
        assert_int_equal(b.len % 8, 0);
        assert_int_equal(raft_msg_unpad(buf_blob(&b), &value), 0);
        assert_int_equal(value.len, len);
        if (b.len > len) {
            b.data[b.len - 1] = 1;
            assert_int_equal(raft_msg_unpad(buf_blob(&b), &value), -ERR_MALFORMED);
            b.data[b.len - 1] = 0;
        }
        buf_add(&b, "\0\0\0\0\0\0\0", 8); /* eight too many */
        assert_int_equal(raft_msg_unpad(buf_blob(&b), &value), -ERR_MALFORMED);
        buf_fini(&b);
    }
}

/* A small frame that claims to be a huge image must not be believed. */
static int decode_image(struct blob image)
{
    struct raft_configuration conf;
    struct raft_message m = {0};
    struct raft_digest d;
    struct buf out;
    conf_of(&conf, 1);
    buf_init(&out, RAFT_FRAME_MAX);
    m.type = RAFT_INSTALL_SNAPSHOT;
    m.install_snapshot = (struct raft_install_snapshot){
        .term = 5, .last_index = 4, .last_term = 2, .conf = conf, .conf_index = 1};
    m.install_snapshot.data = (struct raft_buffer){.base = (void *)(uintptr_t)image.data,
                                                   .len = image.len};
    assert_int_equal(raft_msg_encode(&m, NULL, &out), 0);
    int rc = raft_msg_decode(buf_blob(&out), &m, &d);
    if (rc == 0) {
        raft_msg_release(&m);
    }
    buf_fini(&out);
    raft_configuration_close(&conf);
    return rc;
}

/* libraft would store it, and then there is no way back. */
static void test_image_that_does_not_unpack_is_refused(void **state)
{
    (void)state;
    struct buf image;
    packed_image(&image);
    assert_int_equal(decode_image(buf_blob(&image)), 0);
    for (size_t len = 1; len < image.len; len++) {
        assert_int_equal(decode_image(blob_of(image.data, len)), -ERR_MALFORMED);
    }
    buf_add(&image, "x", 1);
    assert_int_equal(decode_image(buf_blob(&image)), -ERR_MALFORMED);
    image.data[5]++; /* another size than what comes out */
    assert_int_equal(decode_image(blob_of(image.data, image.len - 1)), -ERR_MALFORMED);
    buf_fini(&image);
}

static void test_snapshot_bomb_is_refused_before_memory_is_taken(void **state)
{
    (void)state;
    static const uint8_t bomb[] = {0x28, 0xb5, 0x2f, 0xfd, 0xe0, /* 8-byte content size */
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0x00,
                                   0x00, 0x00, 0x01, 0x00, 0x00};
    struct raft_configuration conf;
    struct buf conf_bytes;
    struct buf out;
    struct mp_writer w;
    struct raft_message m;
    struct raft_digest d;
    conf_of(&conf, 1);
    buf_init(&conf_bytes, RAFT_MSG_CONF_MAX);
    raft_msg_conf_encode(&conf, &conf_bytes);
    buf_init(&out, RAFT_FRAME_MAX);
    mp_writer_init(&w, &out);
    mp_put_map(&w, 7);
    const struct pair numbers[] = {
        {TYPE, RAFT_INSTALL_SNAPSHOT}, {TERM, 5}, {INDEX, 4}, {INDEX_TERM, 2}};
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        mp_put_u64(&w, numbers[i].key);
        mp_put_u64(&w, numbers[i].value);
    }
    mp_put_u64(&w, 12);
    mp_put_bin(&w, buf_blob(&conf_bytes));
    mp_put_u64(&w, CONF_INDEX);
    mp_put_u64(&w, 1);
    mp_put_u64(&w, 14);
    mp_put_bin(&w, blob_of(bomb, sizeof bomb));
    assert_int_equal(raft_msg_decode(buf_blob(&out), &m, &d), -ERR_TOO_LARGE);
    buf_fini(&out);
    buf_fini(&conf_bytes);
    raft_configuration_close(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_comes_back_as_it_was),
        cmocka_unit_test(test_truncated_at_any_byte_is_malformed),
        cmocka_unit_test(test_any_flipped_bit_is_an_error_or_a_valid_message),
        cmocka_unit_test(test_every_number_is_checked_at_zero_and_at_its_end),
        cmocka_unit_test(test_entries_libraft_would_choke_on_are_refused),
        cmocka_unit_test(test_configuration_in_an_entry_is_checked_before_libraft_reads_it),
        cmocka_unit_test(test_configuration_for_the_store_round_trips_and_is_strict),
        cmocka_unit_test(test_padding_is_zeros_up_to_eight_bytes),
        cmocka_unit_test(test_image_that_does_not_unpack_is_refused),
        cmocka_unit_test(test_snapshot_bomb_is_refused_before_memory_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
