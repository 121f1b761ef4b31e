#include "authority/raft_msg.h"

#include "authority/raft_image.h"
#include "wire/recovery_msg.h"

/* One flat message for all six types: which fields count depends on `type`.
 *   index, index_term: last_log_* of a vote request and TimeoutNow, prev_log_* of AppendEntries,
 *   last_log_index of its result, last_* of InstallSnapshot. */
#define RAFT_FRAME_FIELDS(X, T)                              \
    X(T, 1, U64, type, 0, MSG_REQUIRED)                      \
    X(T, 2, U64, term, 0, MSG_REQUIRED)                      \
    X(T, 3, U64, index, 0, 0)                                \
    X(T, 4, U64, index_term, 0, 0)                           \
    X(T, 5, U64, leader_commit, 0, 0)                        \
    X(T, 6, LIST, entries, RAFT_MSG_ENTRIES_MAX, 0)          \
    X(T, 7, U64, rejected, 0, 0)                             \
    X(T, 8, U64, candidate_id, 0, 0)                         \
    X(T, 9, FLAG, disrupt_leader, 0, 0)                      \
    X(T, 10, FLAG, pre_vote, 0, 0)                           \
    X(T, 11, FLAG, vote_granted, 0, 0)                       \
    X(T, 12, BIN, conf, RAFT_MSG_CONF_MAX, 0)                \
    X(T, 13, U64, conf_index, 0, 0)                          \
    X(T, 14, BIN, image, RAFT_FRAME_MAX, 0) /* packed */     \
    X(T, 15, U64, applied_index, 0, 0)                       \
    X(T, 16, FIX, applied, 32, 0)                            \
    X(T, 17, U64, agreed_index, 0, 0)                        \
    X(T, 18, FIX, agreed, 32, 0)                             \
    X(T, 19, U64, level, 0, 0)                               \
    X(T, 24, U64, epoch, 0, 0)                               \
    X(T, 25, FIX, lineage, 32, 0)                            \
    X(T, 26, U64, boot, 0, 0)                                \
    X(T, 27, U64, boot_term, 0, 0)                           \
    X(T, 28, U64, boot_index, 0, 0)
MSG_DECLARE(raft_frame, RAFT_FRAME_FIELDS)
MSG_DEFINE(raft_frame, RAFT_FRAME_FIELDS)

/* What libraft 0.22.1 puts into and expects of the version fields. */
enum { VOTE_VERSION = 2, VOTE_RESULT_VERSION = 2, APPEND_RESULT_VERSION = 2 };

/* --- padding --- */

void raft_msg_pad(struct buf *entry)
{
    static const uint8_t zeros[8];
    if (entry->len % 8 != 0) {
        buf_add(entry, zeros, 8 - entry->len % 8);
    }
}

int raft_msg_unpad(struct blob padded, struct blob *ret)
{
    struct mp_reader r;
    mp_reader_init(&r, padded);
    struct blob value = mp_skip(&r);
    if (r.err != 0 || padded.len % 8 != 0 || padded.len - value.len >= 8) {
        return -ERR_MALFORMED;
    }
    for (size_t i = value.len; i < padded.len; i++) {
        if (padded.data[i] != 0) {
            return -ERR_MALFORMED;
        }
    }
    *ret = value;
    return 0;
}

/* --- configurations --- */

void raft_msg_conf_encode(const struct raft_configuration *c, struct buf *out)
{
    struct mp_writer w;
    mp_writer_init(&w, out);
    mp_put_array(&w, c->n);
    for (unsigned i = 0; i < c->n; i++) {
        mp_put_array(&w, 3);
        mp_put_u64(&w, c->servers[i].id);
        mp_put_u64(&w, (uint64_t)c->servers[i].role);
        mp_put_str(&w, c->servers[i].address);
    }
}

/* libraft compares ids and addresses for us; length and content are ours to check. */
static int add_server(struct raft_configuration *c, uint64_t id, uint64_t role, struct blob address)
{
    char text[ADDRESS_MAX_BYTES + 1];
    if (id == 0 || role > RAFT_SPARE || address.len == 0 || address.len > ADDRESS_MAX_BYTES ||
        memchr(address.data, '\0', address.len) != NULL) {
        return -ERR_MALFORMED;
    }
    memcpy(text, address.data, address.len);
    text[address.len] = '\0';
    return raft_configuration_add(c, id, text, (int)role) == 0 ? 0 : -ERR_MALFORMED;
}

int raft_msg_conf_decode(struct blob in, struct raft_configuration *ret)
{
    struct raft_configuration c;
    raft_configuration_init(&c);
    struct mp_reader r;
    mp_reader_init(&r, in);
    uint32_t n = mp_get_array(&r, RAFT_MSG_SERVERS_MAX);
    int rc = n == 0 ? -ERR_MALFORMED : 0;
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        if (mp_get_array(&r, 3) != 3) {
            rc = -ERR_MALFORMED;
            break;
        }
        uint64_t id = mp_get_u64(&r);
        uint64_t role = mp_get_u64(&r);
        struct blob address = mp_get_str(&r, ADDRESS_MAX_BYTES);
        rc = r.err != 0 ? -ERR_MALFORMED : add_server(&c, id, role, address);
    }
    if (rc == 0 && mp_reader_finish(&r) != 0) {
        rc = -ERR_MALFORMED;
    }
    if (rc != 0) {
        raft_configuration_close(&c);
        return rc;
    }
    *ret = c;
    return 0;
}

static uint64_t little_endian(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) {
        v = v << 8 | p[i];
    }
    return v;
}

/* Version 1, number of servers, then for each its id, address with NUL, role. */
int raft_msg_change_decode(struct blob data, struct raft_configuration *ret)
{
    const uint8_t *p = data.data;
    const uint8_t *end = data.data + data.len;
    if (data.len < 9 || *p != 1) {
        return -ERR_MALFORMED;
    }
    uint64_t n = little_endian(p + 1);
    p += 9;
    if (n == 0 || n > RAFT_MSG_SERVERS_MAX) {
        return -ERR_MALFORMED;
    }
    struct raft_configuration c;
    raft_configuration_init(&c);
    int rc = 0;
    for (uint64_t i = 0; i < n && rc == 0; i++) {
        const uint8_t *nul = end - p < 8 ? NULL : memchr(p + 8, '\0', (size_t)(end - p) - 8);
        if (nul == NULL || end - nul < 2) {
            rc = -ERR_MALFORMED;
            break;
        }
        rc = add_server(&c, little_endian(p), nul[1], blob_of(p + 8, (size_t)(nul - (p + 8))));
        p = nul + 2;
    }
    if (rc != 0) {
        raft_configuration_close(&c);
        return rc;
    }
    *ret = c;
    return 0;
}

int raft_msg_change_check(struct blob data)
{
    struct raft_configuration c;
    int rc = raft_msg_change_decode(data, &c);
    if (rc == 0) {
        raft_configuration_close(&c);
    }
    return rc;
}

int raft_msg_entry_check(unsigned type, struct blob data)
{
    if (data.len == 0 || data.len % 8 != 0 || data.len > RAFT_MSG_DATA_MAX) {
        return -ERR_MALFORMED;
    }
    switch (type) {
        case RAFT_COMMAND:
            return 0;
        case RAFT_BARRIER:
            return data.len == 8 ? 0 : -ERR_MALFORMED;
        case RAFT_CHANGE:
            return raft_msg_change_check(data);
        default:
            return -ERR_MALFORMED;
    }
}

/* --- encoding --- */

static void put_entries(const struct raft_append_entries *a, struct buf *raw)
{
    struct mp_writer w;
    mp_writer_init(&w, raw);
    for (unsigned i = 0; i < a->n_entries; i++) {
        const struct raft_entry *e = &a->entries[i];
        mp_put_array(&w, 3);
        mp_put_u64(&w, (uint64_t)e->type);
        mp_put_u64(&w, e->term);
        /* raft_barrier leaves its 8 bytes uninitialised: they are not worth sending. */
        bool barrier = e->type == RAFT_BARRIER;
        mp_put_bin(&w, barrier ? blob_of("", 0) : blob_of(e->buf.base, e->buf.len));
    }
}

int raft_msg_encode(const struct raft_message *m, const struct raft_digest *d, struct buf *out)
{
    struct raft_frame f = {.type = (uint64_t)m->type};
    struct buf entries;
    struct buf conf;
    buf_init(&entries, RAFT_FRAME_MAX);
    buf_init(&conf, RAFT_MSG_CONF_MAX);
    int rc = 0;
    switch (m->type) {
        case RAFT_REQUEST_VOTE:
            f.term = m->request_vote.term;
            f.candidate_id = m->request_vote.candidate_id;
            f.index = m->request_vote.last_log_index;
            f.index_term = m->request_vote.last_log_term;
            f.disrupt_leader = m->request_vote.disrupt_leader;
            f.pre_vote = m->request_vote.pre_vote;
            break;
        case RAFT_REQUEST_VOTE_RESULT:
            f.term = m->request_vote_result.term;
            f.vote_granted = m->request_vote_result.vote_granted;
            f.pre_vote = m->request_vote_result.pre_vote;
            break;
        case RAFT_APPEND_ENTRIES:
            f.term = m->append_entries.term;
            f.index = m->append_entries.prev_log_index;
            f.index_term = m->append_entries.prev_log_term;
            f.leader_commit = m->append_entries.leader_commit;
            put_entries(&m->append_entries, &entries);
            f.entries = (struct mp_list){buf_blob(&entries), m->append_entries.n_entries};
            break;
        case RAFT_APPEND_ENTRIES_RESULT:
            f.term = m->append_entries_result.term;
            f.rejected = m->append_entries_result.rejected;
            f.index = m->append_entries_result.last_log_index;
            break;
        case RAFT_INSTALL_SNAPSHOT:
            f.term = m->install_snapshot.term;
            f.index = m->install_snapshot.last_index;
            f.index_term = m->install_snapshot.last_term;
            f.conf_index = m->install_snapshot.conf_index;
            raft_msg_conf_encode(&m->install_snapshot.conf, &conf);
            f.conf = buf_blob(&conf);
            f.image = blob_of(m->install_snapshot.data.base, m->install_snapshot.data.len);
            rc = f.image.len > RAFT_FRAME_MAX ? -ERR_TOO_LARGE : 0;
            break;
        case RAFT_TIMEOUT_NOW:
            f.term = m->timeout_now.term;
            f.index = m->timeout_now.last_log_index;
            f.index_term = m->timeout_now.last_log_term;
            break;
        default: /* a type of a newer library */
            rc = -ERR_UNSUPPORTED;
            break;
    }
    if (d != NULL) {
        f.level = d->level;
        f.boot = d->boot;
        f.boot_term = d->boot_term;
        f.boot_index = d->boot_index;
        if (d->epoch > EPOCH_FIRST) {
            f.epoch = d->epoch;
            f.lineage = blob_of(d->lineage, sizeof d->lineage);
        }
    }
    if (d != NULL && d->applied_index != 0) {
        f.applied_index = d->applied_index;
        f.applied = blob_of(d->applied, sizeof d->applied);
    }
    if (d != NULL && d->agreed_index != 0) {
        f.agreed_index = d->agreed_index;
        f.agreed = blob_of(d->agreed, sizeof d->agreed);
    }
    if (rc == 0) {
        rc = entries.err != 0 ? entries.err : conf.err;
    }
    if (rc == 0) {
        msg_encode(&raft_frame_desc, &f, out);
        rc = out->err;
    }
    buf_fini(&conf);
    buf_fini(&entries);
    return rc;
}

/* --- decoding --- */

static bool number_ok(uint64_t v)
{
    return v <= RAFT_MSG_NUMBER_MAX;
}

/* (index, term) of one log position: both or neither. */
static bool position_ok(uint64_t index, uint64_t term, uint64_t max_term)
{
    return number_ok(index) && term <= max_term && (index == 0) == (term == 0);
}

struct entry_view {
    uint64_t type, term;
    struct blob data;
};

static const uint8_t barrier_data[8];

static int next_entry(struct mp_reader *r, struct entry_view *ret)
{
    if (mp_get_array(r, 3) != 3) {
        return -ERR_MALFORMED;
    }
    ret->type = mp_get_u64(r);
    ret->term = mp_get_u64(r);
    ret->data = mp_get_bin(r, RAFT_MSG_DATA_MAX);
    if (r->err != 0 || ret->type > RAFT_CHANGE) {
        return -ERR_MALFORMED;
    }
    if (ret->type == RAFT_BARRIER) {
        if (ret->data.len != 0) {
            return -ERR_MALFORMED;
        }
        ret->data = blob_of(barrier_data, sizeof barrier_data);
    }
    return raft_msg_entry_check((unsigned)ret->type, ret->data);
}

/* Terms never fall along a log, and no entry is newer than its sender's term. */
static int measure_entries(const struct raft_frame *f, size_t *ret_bytes)
{
    struct mp_reader r;
    mp_reader_init(&r, f->entries.raw);
    uint64_t last_term = f->index_term == 0 ? 1 : f->index_term;
    size_t bytes = 0;
    for (uint32_t i = 0; i < f->entries.count; i++) {
        struct entry_view e;
        int rc = next_entry(&r, &e);
        if (rc != 0) {
            return rc;
        }
        if (e.term < last_term || e.term > f->term) {
            return -ERR_MALFORMED;
        }
        last_term = e.term;
        bytes += e.data.len;
    }
    *ret_bytes = bytes;
    return 0;
}

static int get_append_entries(const struct raft_frame *f, struct raft_append_entries *ret)
{
    size_t bytes = 0;
    if (!position_ok(f->index, f->index_term, f->term) || !number_ok(f->leader_commit)) {
        return -ERR_MALFORMED;
    }
    int rc = measure_entries(f, &bytes);
    if (rc != 0) {
        return rc;
    }
    *ret = (struct raft_append_entries){
        .term = f->term,
        .prev_log_index = f->index,
        .prev_log_term = f->index_term,
        .leader_commit = f->leader_commit,
    };
    if (f->entries.count == 0) {
        return 0;
    }
    struct raft_entry *entries = raft_malloc(f->entries.count * sizeof *entries);
    uint8_t *batch = raft_malloc(bytes);
    CHECK(entries != NULL && batch != NULL);
    struct mp_reader r;
    mp_reader_init(&r, f->entries.raw);
    uint8_t *at = batch;
    for (uint32_t i = 0; i < f->entries.count; i++) {
        struct entry_view e;
        CHECK(next_entry(&r, &e) == 0);
        memcpy(at, e.data.data, e.data.len);
        entries[i] = (struct raft_entry){
            .term = e.term,
            .type = (enum raft_entry_type)e.type,
            .buf = {.base = at, .len = e.data.len},
            .batch = batch,
        };
        at += e.data.len;
    }
    ret->entries = entries;
    ret->n_entries = f->entries.count;
    return 0;
}

static int get_install_snapshot(const struct raft_frame *f, bool unpacked,
                                struct raft_install_snapshot *ret)
{
    if (f->index == 0 || !position_ok(f->index, f->index_term, f->term) || f->conf_index == 0 ||
        f->conf_index > f->index || f->image.len == 0) {
        return -ERR_MALFORMED;
    }
    *ret = (struct raft_install_snapshot){
        .term = f->term,
        .last_index = f->index,
        .last_term = f->index_term,
        .conf_index = f->conf_index,
    };
    int rc = raft_msg_conf_decode(f->conf, &ret->conf);
    if (rc != 0) {
        return rc;
    }
    rc = unpacked ? 0 : raft_image_check(f->image);
    if (rc != 0) {
        raft_configuration_close(&ret->conf);
        return rc;
    }
    ret->data = (struct raft_buffer){.base = raft_malloc(f->image.len), .len = f->image.len};
    CHECK(ret->data.base != NULL);
    memcpy(ret->data.base, f->image.data, f->image.len);
    return 0;
}

static int get_message(const struct raft_frame *f, bool unpacked, struct raft_message *m)
{
    if (!number_ok(f->term)) {
        return -ERR_MALFORMED;
    }
    switch (f->type) {
        case RAFT_REQUEST_VOTE:
            if (f->candidate_id == 0 || !position_ok(f->index, f->index_term, f->term)) {
                return -ERR_MALFORMED;
            }
            m->request_vote = (struct raft_request_vote){
                .version = VOTE_VERSION,
                .term = f->term,
                .candidate_id = f->candidate_id,
                .last_log_index = f->index,
                .last_log_term = f->index_term,
                .disrupt_leader = f->disrupt_leader,
                .pre_vote = f->pre_vote,
            };
            return 0;
        case RAFT_REQUEST_VOTE_RESULT:
            m->request_vote_result = (struct raft_request_vote_result){
                .version = VOTE_RESULT_VERSION,
                .term = f->term,
                .vote_granted = f->vote_granted,
                .pre_vote = f->pre_vote,
            };
            return 0;
        case RAFT_APPEND_ENTRIES:
            return get_append_entries(f, &m->append_entries);
        case RAFT_APPEND_ENTRIES_RESULT:
            if (!number_ok(f->rejected) || !number_ok(f->index)) {
                return -ERR_MALFORMED;
            }
            m->append_entries_result = (struct raft_append_entries_result){
                .version = APPEND_RESULT_VERSION,
                .term = f->term,
                .rejected = f->rejected,
                .last_log_index = f->index,
            };
            return 0;
        case RAFT_INSTALL_SNAPSHOT:
            return get_install_snapshot(f, unpacked, &m->install_snapshot);
        case RAFT_TIMEOUT_NOW:
            if (!position_ok(f->index, f->index_term, f->term)) {
                return -ERR_MALFORMED;
            }
            m->timeout_now = (struct raft_timeout_now){
                .term = f->term,
                .last_log_index = f->index,
                .last_log_term = f->index_term,
            };
            return 0;
        default:
            return -ERR_MALFORMED;
    }
}

/* A digest comes with its index or not at all. */
static bool digest_ok(uint64_t index, struct blob digest)
{
    return number_ok(index) && (index == 0) == (digest.len == 0);
}

/* An epoch after the first comes with the lineage that began it. */
static bool epoch_ok(const struct raft_frame *f)
{
    return (f->epoch == 0 || (f->epoch > EPOCH_FIRST && f->epoch <= EPOCH_MAX)) &&
           (f->epoch == 0) == (f->lineage.len == 0) && number_ok(f->boot_term) &&
           number_ok(f->boot_index);
}

struct blob raft_msg_image(struct blob in)
{
    struct raft_frame f;
    return in.len <= RAFT_FRAME_MAX && msg_decode(&raft_frame_desc, MSG_LENIENT, in, &f) == 0 &&
                   f.type == RAFT_INSTALL_SNAPSHOT
               ? f.image
               : blob_of(NULL, 0);
}

static int decode(struct blob in, bool unpacked, struct raft_message *ret,
                  struct raft_digest *ret_digest)
{
    struct raft_frame f;
    if (in.len > RAFT_FRAME_MAX) {
        return -ERR_TOO_LARGE;
    }
    int rc = msg_decode(&raft_frame_desc, MSG_LENIENT, in, &f);
    if (rc != 0) {
        return rc;
    }
    if (f.type > RAFT_TIMEOUT_NOW || !digest_ok(f.applied_index, f.applied) ||
        !digest_ok(f.agreed_index, f.agreed) || f.level > RAFT_MSG_LEVEL_MAX || !epoch_ok(&f)) {
        return -ERR_MALFORMED;
    }
    struct raft_message m = {.type = (enum raft_message_type)f.type};
    rc = get_message(&f, unpacked, &m);
    if (rc != 0) {
        return rc;
    }
    *ret = m;
    *ret_digest = (struct raft_digest){
        .applied_index = f.applied_index,
        .agreed_index = f.agreed_index,
        .level = f.level,
        .epoch = f.epoch == 0 ? EPOCH_FIRST : f.epoch,
        .boot = f.boot,
        .boot_term = f.boot_term,
        .boot_index = f.boot_index,
    };
    if (f.applied_index != 0) {
        memcpy(ret_digest->applied, f.applied.data, f.applied.len);
    }
    if (f.lineage.len != 0) {
        memcpy(ret_digest->lineage, f.lineage.data, f.lineage.len);
    }
    if (f.agreed_index != 0) {
        memcpy(ret_digest->agreed, f.agreed.data, f.agreed.len);
    }
    return 0;
}

int raft_msg_decode(struct blob in, struct raft_message *ret, struct raft_digest *ret_digest)
{
    return decode(in, false, ret, ret_digest);
}

int raft_msg_decode_unpacked(struct blob in, struct raft_message *ret,
                             struct raft_digest *ret_digest)
{
    return decode(in, true, ret, ret_digest);
}

void raft_msg_release(struct raft_message *m)
{
    switch (m->type) {
        case RAFT_APPEND_ENTRIES:
            if (m->append_entries.n_entries > 0) {
                raft_free(m->append_entries.entries[0].batch);
                raft_free(m->append_entries.entries);
            }
            break;
        case RAFT_INSTALL_SNAPSHOT:
            raft_configuration_close(&m->install_snapshot.conf);
            raft_free(m->install_snapshot.data.base);
            break;
        case RAFT_REQUEST_VOTE:
        case RAFT_REQUEST_VOTE_RESULT:
        case RAFT_APPEND_ENTRIES_RESULT:
        case RAFT_TIMEOUT_NOW:
            break;
    }
}
