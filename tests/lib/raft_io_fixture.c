#include "lib/raft_io_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the four above */
#include <cmocka.h>

static struct fixture *of_store(struct raft_store *s)
{
    return container_of(s, struct fixture, store);
}

static struct fixture *of_net(struct raft_net *n)
{
    return container_of(n, struct fixture, net);
}

struct raft_store_loaded fx_to_load;

static int op_load(struct raft_store *s, struct raft_store_loaded *ret, struct errmsg *em)
{
    (void)s;
    (void)em;
    buf_fini(&ret->snapshot_conf);
    buf_fini(&ret->snapshot_image);
    *ret = fx_to_load;
    return 0;
}

static int op_set_term(struct raft_store *s, uint64_t term, struct errmsg *em)
{
    (void)em;
    of_store(s)->term_writes++;
    of_store(s)->term = term;
    of_store(s)->vote = 0;
    return of_store(s)->store_rc;
}

static int op_set_vote(struct raft_store *s, uint64_t vote, struct errmsg *em)
{
    (void)em;
    of_store(s)->vote_writes++;
    of_store(s)->vote = vote;
    return of_store(s)->store_rc;
}

static void op_append(struct raft_store *s, const struct raft_store_entry *e, size_t n,
                      raft_store_cb cb, void *data)
{
    assert_true(n > 0);
    of_store(s)->appended = e[0];
    of_store(s)->pending_cb = cb;
    of_store(s)->pending_data = data;
}

static void op_truncate(struct raft_store *s, uint64_t index)
{
    (void)index;
    of_store(s)->truncates++;
}

static void op_put(struct raft_store *s, const struct raft_store_snapshot *snap, raft_store_cb cb,
                   void *data)
{
    (void)snap;
    of_store(s)->pending_cb = cb;
    of_store(s)->pending_data = data;
}

static void op_get(struct raft_store *s, struct raft_store_loaded *ret, raft_store_cb cb,
                   void *data)
{
    of_store(s)->get = ret;
    of_store(s)->pending_cb = cb;
    of_store(s)->pending_data = data;
}

static const struct raft_store_ops store_ops = {
    .load = op_load,
    .set_term = op_set_term,
    .set_vote = op_set_vote,
    .append = op_append,
    .truncate = op_truncate,
    .put_snapshot = op_put,
    .get_snapshot = op_get,
};

static bool op_send(struct raft_net *n, raft_id to, struct blob bytes)
{
    struct fixture *f = of_net(n);
    assert_int_equal(to, PEER);
    assert_true(f->sent_count < RECORDS_MAX);
    buf_init(&f->sent[f->sent_count], SIZE_MAX);
    buf_add(&f->sent[f->sent_count++], bytes.data, bytes.len);
    return !f->unreachable;
}

static bool op_in_flight(struct raft_net *n, raft_id to)
{
    (void)to;
    return of_net(n)->in_flight;
}

static const struct raft_net_ops net_ops = {
    .send = op_send, .send_image = op_send, .snapshot_in_flight = op_in_flight};

static uint64_t mono_ms(void *data)
{
    return ((struct fixture *)data)->now_ms;
}

static uint64_t random_u64(void *data)
{
    (void)data;
    return UINT64_MAX;
}

static void on_fatal(void *data, const char *why)
{
    struct fixture *f = data;
    f->fatals++;
    (void)snprintf(f->why, sizeof f->why, "%s", why);
}

static void defer(void *data, void (*cb)(void *arg), void *arg)
{
    struct fixture *f = data;
    f->deferred = cb;
    f->deferred_arg = arg;
}

void fx_on_tick(struct raft_io *io)
{
    (void)io;
}

static void on_recv(struct raft_io *io, struct raft_message *m)
{
    struct fixture *f = container_of(io, struct fixture, io);
    assert_true(f->seen_count < RECORDS_MAX);
    struct seen *s = &f->seen[f->seen_count++];
    *s = (struct seen){.m = *m};
    for (unsigned i = 0; i < f->raft.configuration.n; i++) {
        const struct raft_server *server = &f->raft.configuration.servers[i];
        s->own_role = server->id == SELF ? server->role : s->own_role;
    }
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
        s->first_type = m->append_entries.entries[0].type;
        s->first_byte = *(uint8_t *)m->append_entries.entries[0].buf.base;
        for (unsigned i = 0; i < m->append_entries.n_entries; i++) {
            assert_ptr_equal(m->append_entries.entries[i].batch,
                             m->append_entries.entries[0].buf.base);
        }
    }
    raft_msg_release(m);
}

void fx_set_log(struct fixture *f, uint64_t first, const uint64_t *terms, size_t n)
{
    struct raft_trail *t = &f->raft.trail;
    assert_true(n <= RECORDS_MAX);
    for (size_t i = 0; i < n; i++) {
        f->records[i].index = first + i;
        f->records[i].term = terms[i];
    }
    t->records = (void *)f->records;
    t->size = RECORDS_MAX + 1;
    t->front = 0;
    t->back = (unsigned)n;
    t->offset = first - 1;
}

void fx_setup(struct fixture *f)
{
    *f = (struct fixture){.store = {.ops = &store_ops}, .net = {.ops = &net_ops}};
    f->env = (struct raft_io_env){
        .data = f, .mono_ms = mono_ms, .random = random_u64, .fatal = on_fatal, .defer = defer};
    assert_int_equal(raft_io_init(&f->io, &f->store, &f->net, &f->env), 0);
    f->raft.id = SELF;
    f->raft.state = RAFT_FOLLOWER;
    f->raft.current_term = 5;
    f->raft.election_timeout = 500;
    f->raft.heartbeat_timeout = 50;
    f->now_ms = 5000;
    f->io.data = &f->raft;
    assert_int_equal(f->io.start(&f->io, 50, fx_on_tick, on_recv), 0);
}

void fx_teardown(struct fixture *f)
{
    for (size_t i = 0; i < f->sent_count; i++) {
        buf_fini(&f->sent[i]);
    }
    raft_io_fini(&f->io);
}

int fx_receive(struct fixture *f, const struct raft_message *m)
{
    struct buf out;
    buf_init(&out, RAFT_FRAME_MAX);
    assert_int_equal(raft_msg_encode(m, NULL, &out), 0);
    int rc = raft_io_receive(&f->io, PEER, buf_blob(&out));
    buf_fini(&out);
    return rc;
}

static void sent(struct raft_io_send *req, int status)
{
    (void)status;
    ((struct fixture *)req->data)->sends_done++;
}

void fx_send(struct fixture *f, struct raft_message *m)
{
    struct raft_io_send req = {.data = f};
    m->server_id = PEER;
    assert_int_equal(f->io.send(&f->io, &req, m, sent), 0);
}

struct raft_message fx_decode_sent(struct fixture *f, size_t i)
{
    struct raft_message m;
    struct raft_digest d;
    assert_true(i < f->sent_count);
    assert_int_equal(raft_msg_decode(buf_blob(&f->sent[i]), &m, &d), 0);
    return m;
}

void fx_complete(struct fixture *f, int rc)
{
    raft_store_cb cb = f->pending_cb;
    f->pending_cb = NULL;
    assert_non_null(cb);
    cb(f->pending_data, rc);
}

/* --- messages --- */

uint8_t fx_bytes[64];
/* A zstd frame (RFC 8878) of one raw block. */
uint8_t fx_image[16] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 7,   0x39, 0,
                        0,    'a',  ' ',  's',  't',  'a', 't',  'e'};

struct raft_message fx_heartbeat(uint64_t term, uint64_t prev, uint64_t prev_term)
{
    return (struct raft_message){
        .type = RAFT_APPEND_ENTRIES,
        .append_entries = {.term = term, .prev_log_index = prev, .prev_log_term = prev_term}};
}

struct raft_message fx_install(uint64_t term, uint64_t index, uint64_t index_term,
                               struct raft_configuration *conf)
{
    raft_configuration_init(conf);
    assert_int_equal(raft_configuration_add(conf, SELF, "a", RAFT_VOTER), 0);
    return (struct raft_message){
        .type = RAFT_INSTALL_SNAPSHOT,
        .install_snapshot = {.term = term,
                             .last_index = index,
                             .last_term = index_term,
                             .conf = *conf,
                             .conf_index = 1,
                             .data = {.base = fx_image, .len = sizeof fx_image}}};
}

void fx_entry(struct raft_entry *e, unsigned type, uint64_t term, struct raft_buffer conf,
              uint8_t *data)
{
    *e = (struct raft_entry){.term = term, .type = (enum raft_entry_type)type};
    e->buf = type == RAFT_CHANGE ? conf : (struct raft_buffer){.base = data, .len = 8};
}
