/* What the mirror is fed with and what may be in its connection string. The rest needs a PostgreSQL:
 * tests/e2e/mirror_tests.py. */
#include "authority/pg_hosts.h"
#include "authority/mirror_ring.h"
#include "authority/mirror_rows.h"
#include "authority/mirror_scan.h"
#include "lib/fsm_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* --- the ring --- */

static void push(struct mirror_ring *r, uint64_t index, const void *bytes, size_t len)
{
    mirror_ring_push(r, &(struct fsm_position){.index = index}, blob_of(bytes, len),
                     blob_of(NULL, 0), index);
}

static void test_ring_reaches_back_to_its_floor(void **state)
{
    (void)state;
    struct mirror_ring r;
    mirror_ring_init(&r, 10);
    assert_true(mirror_ring_reaches(&r, 10));
    assert_false(mirror_ring_reaches(&r, 9));
    assert_null(mirror_ring_after(&r, 10));
    push(&r, 12, "a", 1); /* 11 was no command */
    push(&r, 13, "bb", 2);
    assert_true(mirror_ring_reaches(&r, 10) && mirror_ring_reaches(&r, 12));
    assert_false(mirror_ring_reaches(&r, 11)); /* no entry of this log */
    assert_false(mirror_ring_reaches(&r, 14));
    assert_int_equal(mirror_ring_after(&r, 10)->at.index, 12);
    assert_int_equal(mirror_ring_after(&r, 12)->prev, 12);
    assert_int_equal(mirror_ring_after(&r, 5)->at.index, 12);
    assert_null(mirror_ring_find(&r, 10));
    assert_int_equal(mirror_ring_find(&r, 13)->len, 2);
    assert_int_equal(mirror_ring_end(&r), 13);
    mirror_ring_reset(&r, 40);
    assert_false(mirror_ring_reaches(&r, 13));
    assert_true(mirror_ring_reaches(&r, 40));
    mirror_ring_fini(&r);
}

static void test_ring_forgets_the_oldest_when_full(void **state)
{
    (void)state;
    struct mirror_ring r;
    mirror_ring_init(&r, 0);
    for (uint64_t i = 1; i <= MIRROR_RING_ENTRIES + 5; i++) {
        push(&r, i, "x", 1);
    }
    assert_int_equal(r.count, MIRROR_RING_ENTRIES);
    assert_int_equal(r.bytes, MIRROR_RING_ENTRIES);
    assert_false(mirror_ring_reaches(&r, 4));
    assert_true(mirror_ring_reaches(&r, 5));
    assert_int_equal(mirror_ring_after(&r, 5)->at.index, 6);
    uint8_t *large = xcalloc(1, MIRROR_RING_BYTES);
    push(&r, MIRROR_RING_ENTRIES + 6, large, MIRROR_RING_BYTES / 2);
    push(&r, MIRROR_RING_ENTRIES + 7, large, MIRROR_RING_BYTES / 2);
    assert_true(r.bytes <= MIRROR_RING_BYTES);
    assert_int_equal(r.count, 2);
    push(&r, MIRROR_RING_ENTRIES + 8, large, MIRROR_RING_BYTES + 1); /* larger than all of it */
    assert_int_equal(r.count, 0);
    assert_true(mirror_ring_reaches(&r, MIRROR_RING_ENTRIES + 8));
    free(large);
    mirror_ring_fini(&r);
}

/* --- what the state tells it --- */

struct heard {
    struct buf changes, before;
    uint64_t index;
    size_t entries;
};

static void on_entry(void *data, const struct fsm_position *at, struct blob changes,
                     struct blob before)
{
    struct heard *h = data;
    buf_clear(&h->changes);
    buf_add(&h->changes, changes.data, changes.len);
    buf_clear(&h->before);
    buf_add(&h->before, before.data, before.len);
    h->index = at->index;
    h->entries++;
}

static void test_entry_feed_has_position_and_every_change(void **state)
{
    (void)state;
    struct fsm_world w;
    struct heard h = {.entries = 0};
    struct fsm_change c;
    fsm_world_init(&w);
    buf_init(&h.changes, 1u << 20);
    buf_init(&h.before, 1u << 20);
    fsm_on_entry(w.fsm, on_entry, &h);
    (void)fsm_make_token(&w, 1, 1);
    assert_int_equal(h.entries, 1);
    assert_int_equal(h.index, w.index);
    struct blob rest = buf_blob(&h.changes);
    const char *const want[] = {"Inode_join_tokens", "Icluster_audit_events", "Irequest_results",
                                "Uauthority_applied"};
    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        assert_true(fsm_change_next(&rest, &c));
        assert_int_equal(c.op, want[i][0]);
        assert_true(blob_equal(c.table, blob_str(want[i] + 1)));
    }
    assert_false(fsm_change_next(&rest, &c));
    fsm_on_entry(w.fsm, NULL, NULL);
    buf_fini(&h.changes);
    buf_fini(&h.before);
    fsm_world_fini(&w);
}

static void test_generation_moves_with_restore_and_level_only(void **state)
{
    (void)state;
    struct fsm_world w;
    struct buf image;
    fsm_world_init(&w);
    uint64_t before = fsm_generation(w.fsm);
    (void)fsm_make_token(&w, 1, 1);
    assert_int_equal(fsm_generation(w.fsm), before);
    buf_init(&image, IMAGE_MAX_BYTES);
    assert_int_equal(fsm_image(w.fsm, &image), 0);
    assert_int_equal(fsm_restore(w.fsm, buf_blob(&image), NULL), 0);
    assert_true(fsm_generation(w.fsm) > before);
    buf_fini(&image);
    fsm_world_fini(&w);
}

static void test_copy_stays_as_it_was(void **state)
{
    (void)state;
    struct fsm_world w;
    struct db *copy;
    fsm_world_init(&w);
    struct db_image *frozen;
    assert_int_equal(fsm_freeze(w.fsm, &frozen), 0);
    uint8_t *bytes = fsm_copy_bytes(frozen);
    size_t len = db_image_bytes(frozen);
    db_image_free(frozen);
    assert_int_equal(fsm_copy_open(bytes, len, &copy, NULL), 0);
    (void)fsm_make_token(&w, 1, 1);
    struct db_stmt *st = db_prepare(copy, "SELECT count(*) AS n FROM node_join_tokens");
    assert_int_equal(db_step(st), 1);
    assert_int_equal(db_col_int(st, "n"), 0);
    db_done(st);
    db_close(copy);
    fsm_world_fini(&w);
}

/* --- rows as SQL --- */

static void test_sql_is_made_from_the_schema(void **state)
{
    (void)state;
    struct fsm_world w;
    struct mirror_tables t;
    fsm_world_init(&w);
    mirror_tables_load(&t, fsm_db(w.fsm));
    const struct mirror_table *c = mirror_tables_find(&t, blob_str("node_capabilities"));
    assert_non_null(c);
    assert_string_equal(
        c->upsert,
        "INSERT INTO rap.\"node_capabilities\" AS m (\"cluster_id\", \"node_id\", \"capability\","
        " \"verified\", \"reported_at\", \"verified_at\") SELECT $1::text, u.* FROM"
        " unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[]) AS u"
        " ON CONFLICT (\"cluster_id\", \"node_id\", \"capability\") DO UPDATE SET"
        " \"verified\" = EXCLUDED.\"verified\", \"reported_at\" = EXCLUDED.\"reported_at\","
        " \"verified_at\" = EXCLUDED.\"verified_at\"");
    assert_string_equal(c->remove,
                        "DELETE FROM rap.\"node_capabilities\" AS m USING unnest($2::text[],"
                        " $3::text[]) AS u(\"node_id\", \"capability\") WHERE m.\"cluster_id\" ="
                        " $1::text AND m.\"node_id\" = u.\"node_id\" AND m.\"capability\" ="
                        " u.\"capability\"");
    /* The position and the engine's own row are kept in another way. */
    assert_null(mirror_tables_find(&t, blob_str("authority_applied")));
    assert_null(mirror_tables_find(&t, blob_str("fsm_state")));
    mirror_tables_fini(&t);
    fsm_world_fini(&w);
}

static void test_a_group_has_each_row_once(void **state)
{
    (void)state;
    struct fsm_world w;
    struct heard h = {.entries = 0};
    struct mirror_tables t;
    struct mirror_group g;
    fsm_world_init(&w);
    mirror_tables_load(&t, fsm_db(w.fsm));
    mirror_group_init(&g, &t);
    buf_init(&h.changes, 1u << 20);
    buf_init(&h.before, 1u << 20);
    fsm_on_entry(w.fsm, on_entry, &h);
    (void)fsm_make_token(&w, 1, 1);
    mirror_group_add(&g, buf_blob(&h.changes));
    assert_int_equal(g.count, 3); /* token, audit, result; not the position */
    mirror_group_add(&g, buf_blob(&h.changes));
    assert_int_equal(g.count, 3);
    assert_int_equal(g.err, 0);
    mirror_group_clear(&g);
    assert_int_equal(g.count, 0);
    fsm_on_entry(w.fsm, NULL, NULL);
    buf_fini(&h.changes);
    buf_fini(&h.before);
    mirror_tables_fini(&t);
    fsm_world_fini(&w);
}

/* --- what the rows add up to --- */

static void sums_of_state(struct mirror_sums *s, const struct mirror_tables *t, struct db *db)
{
    struct buf row;
    buf_init(&row, MIRROR_ROW_MAX);
    mirror_sums_init(s, t);
    for (size_t i = 0; i < t->count; i++) {
        struct db_stmt *st = db_prepare(db, t->list[i].local);
        while (db_step(st) == 1) {
            mirror_scan_row(st, &t->list[i], &row);
            mirror_sums_add(s, &t->list[i], buf_blob(&row));
        }
        db_done(st);
    }
    buf_fini(&row);
}

static bool same_sums(const struct mirror_sums *a, const struct mirror_sums *b)
{
    for (size_t i = 0; i < a->tables->count; i++) {
        if (!mirror_sums_equal(&a->list[i], &b->list[i])) {
            print_message("differs: %s\n", a->tables->list[i].name);
            return false;
        }
    }
    return true;
}

struct summed {
    struct mirror_sums sums;
    size_t entries;
};

static void on_summed_entry(void *data, const struct fsm_position *at, struct blob changes,
                            struct blob before)
{
    struct summed *s = data;
    (void)at;
    assert_int_equal(mirror_sums_entry(&s->sums, changes, before), 0);
    s->entries++;
}

static void test_sums_follow_every_change_of_the_state(void **state)
{
    (void)state;
    struct fsm_world w;
    struct mirror_tables t;
    struct summed moved = {.entries = 0};
    struct mirror_sums fresh;
    uint8_t a[PKI_HASH_BYTES];
    uint8_t b[PKI_HASH_BYTES];
    fsm_world_init(&w);
    fsm_world_raise(&w);
    mirror_tables_load(&t, fsm_db(w.fsm));
    sums_of_state(&moved.sums, &t, fsm_db(w.fsm));
    fsm_keep_before(w.fsm, true);
    fsm_on_entry(w.fsm, on_summed_entry, &moved);
    /* Inserts, updates, deletes, and a refusal in the middle of an entry (savepoints). */
    struct uuid id = fsm_make_node(&w, 7, "one");
    (void)fsm_make_node(&w, 8, "two");
    struct token_revoke none = {.token_id = fsm_fake_id(9, 9)};
    struct node_rename same = {.node_id = id, .name = blob_str("two")};
    struct node_rename other = {.node_id = id, .name = blob_str("three")};
    struct fsm_entry e;
    fsm_entry_begin(&e, w.term);
    fsm_entry_add(&e, fsm_envelope(&w, CMD_NODE_RENAME), &other);
    fsm_entry_add(&e, fsm_envelope(&w, CMD_NODE_RENAME), &same);
    fsm_entry_add(&e, fsm_envelope(&w, CMD_TOKEN_REVOKE), &none);
    fsm_world_apply(&w, &e, NULL, NULL);
    fsm_entry_fini(&e);
    /* One that has updated a row by the time it is refused: an id that is in use. */
    (void)fsm_make_token(&w, 77, 1);
    const struct join_approve twice = {
        .join_id = fsm_make_request(&w, 11, "four", 77),
        .node_id = id,
        .cert = fsm_fake_cert(&(struct fsm_fake_cert){
            .key = 11, .issuer = 1, .serial = 4711, .not_after_ms = w.now_ms + PKI_LEAF_LIFE_MS}),
    };
    assert_int_not_equal(fsm_do(&w, CMD_JOIN_APPROVE, &twice), 0);
    struct node_revoke gone = {.node_id = id, .reason = blob_str("lost")};
    assert_int_equal(fsm_do(&w, CMD_NODE_REVOKE, &gone), 0);
    assert_true(moved.entries >= 5);
    sums_of_state(&fresh, &t, fsm_db(w.fsm));
    assert_true(same_sums(&moved.sums, &fresh));
    mirror_sums_hash(&moved.sums, a);
    mirror_sums_hash(&fresh, b);
    assert_memory_equal(a, b, sizeof a);
    /* One column of one row. */
    assert_int_equal(
        db_exec(fsm_db(w.fsm), "UPDATE nodes SET name = 'mallory' WHERE name = 'two'", NULL), 0);
    struct mirror_sums edited;
    sums_of_state(&edited, &t, fsm_db(w.fsm));
    mirror_sums_hash(&edited, b);
    assert_memory_not_equal(a, b, sizeof a);
    const struct mirror_table *nodes = mirror_tables_find(&t, blob_str("nodes"));
    for (size_t i = 0; i < t.count; i++) {
        assert_int_equal(mirror_sums_equal(&edited.list[i], &fresh.list[i]), &t.list[i] != nodes);
    }
    fsm_on_entry(w.fsm, NULL, NULL);
    mirror_sums_fini(&moved.sums);
    mirror_sums_fini(&fresh);
    mirror_sums_fini(&edited);
    mirror_tables_fini(&t);
    fsm_world_fini(&w);
}

static void test_values_are_postgresqls_text(void **state)
{
    (void)state;
    struct buf in;
    struct buf out;
    struct mp_writer w;
    struct mp_reader r;
    struct mirror_value v;
    buf_init(&in, 1024);
    buf_init(&out, 1024);
    mp_writer_init(&w, &in);
    mp_put_i64(&w, INT64_MIN);
    mp_put_str(&w, "a\"b\\\xc3\xa9\n");
    mp_put_bin(&w, blob_of("\x00\xff", 2));
    mp_put_nil(&w);
    mp_put_strn(&w, "a\0b", 3);
    mp_put_str(&w, "\xff");
    mp_reader_init(&r, buf_blob(&in));
    assert_int_equal(mirror_value(&r, &out, &v), 0);
    assert_string_equal(v.text, "-9223372036854775808");
    assert_int_equal(mirror_value(&r, &out, &v), 0);
    assert_string_equal(v.text, "a\"b\\\xc3\xa9\n");
    assert_int_equal(mirror_value(&r, &out, &v), 0);
    assert_string_equal(v.text, "\\x00ff");
    assert_int_equal(v.len, 6);
    assert_int_equal(mirror_value(&r, &out, &v), 0);
    assert_null(v.text);
    assert_int_equal(mirror_value(&r, &out, &v), -ERR_UNSUPPORTED);
    assert_int_equal(mirror_value(&r, &out, &v), -ERR_UNSUPPORTED);
    buf_fini(&in);
    buf_fini(&out);
}

/* --- connection strings --- */

static void test_connection_strings(void **state)
{
    (void)state;
    static const struct {
        const char *dsn;
        bool allow_insecure;
        int rc;
        const char *out; /* or a part of the message */
    } cases[] = {
        {"host=/run/pg dbname=rap user=r", false, 0, "user='r' dbname='rap' host='/run/pg'"},
        {"postgresql://r@localhost:5433/rap?passfile=/p", false, 0,
         "user='r' passfile='/p' dbname='rap' host='localhost' port='5433'"},
        {"host=127.0.0.1,::1 dbname=rap user=r", false, 0,
         "user='r' dbname='rap' host='127.0.0.1,::1'"},
        {"host=db.example dbname=rap user=r sslmode=verify-full", false, 0,
         "user='r' dbname='rap' host='db.example' sslmode='verify-full'"},
        {"host=db.example dbname=rap user=r", false, -ERR_DENIED, "sslmode=verify-full"},
        {"host=db.example dbname=rap user=r sslmode=require", false, -ERR_DENIED, "verify-full"},
        {"host=localhost,db.example dbname=rap user=r", false, -ERR_DENIED, "verify-full"},
        {"hostaddr=10.0.0.1 dbname=rap user=r", false, -ERR_DENIED, "verify-full"},
        {"host=localhost hostaddr=10.0.0.1 dbname=rap user=r", false, -ERR_DENIED, "verify-full"},
        {"host=db.example dbname=rap user=r", true, 0, "user='r' dbname='rap' host='db.example'"},
        {"host=/x dbname='a''b' user=r", false, -ERR_INVALID, "connection string"},
        {"host=/x dbname=a\\'b user=r", false, 0, "user='r' dbname='a\\'b' host='/x'"},
        {"host=/x dbname=rap user=r password=hunter2", false, -ERR_DENIED, "passfile="},
        {"postgresql://r:hunter2@localhost/rap", false, -ERR_DENIED, "passfile="},
        {"host=/x dbname=rap user=r sslpassword=hunter2", false, -ERR_DENIED, "sslpassword"},
        {"host=/x dbname=rap user=r service=x", false, -ERR_INVALID, "service"},
        {"host=/x dbname=rap user=r options=-csynchronous_commit=off", false, -ERR_INVALID,
         "options"},
        {"host=/x dbname=rap", false, -ERR_INVALID, "user="},
        {"host=/x user=r", false, -ERR_INVALID, "dbname="},
        {"dbname=rap user=r", false, -ERR_INVALID, "host="},
        {"host=127.0.0.1,::1 port=1,2 dbname=rap user=r", false, 0,
         "user='r' dbname='rap' host='127.0.0.1,::1' port='1,2'"},
        {"host=127.0.0.1,::1,localhost port=1,2 dbname=rap user=r", false, -ERR_INVALID,
         "2 ports for 3 hosts"},
        {"host=localhost port=1,2 dbname=rap user=r", false, -ERR_INVALID, "2 ports for 1 hosts"},
        {"host=localhost hostaddr=127.0.0.1,::1 dbname=rap user=r", false, -ERR_INVALID,
         "1 names for 2 addresses"},
        {"host=127.0.0.1,,,,,,,,,,,,,,,, dbname=rap user=r", false, -ERR_INVALID, "at most 16"},
        {"host=127.0.0.1 port=123456789 dbname=rap user=r", false, -ERR_INVALID, "too long"},
        {"nonsense", false, -ERR_INVALID, "connection string"},
        {"", false, -ERR_INVALID, "host="},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct errmsg em = ERRMSG_INIT;
        struct buf out;
        buf_init(&out, 4096);
        int rc = pg_dsn_check(cases[i].dsn, cases[i].allow_insecure, &out, &em);
        const char *got = rc == 0 ? buf_cstr(&out) : em.text;
        if (rc != cases[i].rc ||
            (rc == 0 ? strcmp(got, cases[i].out) != 0 : strstr(got, cases[i].out) == NULL)) {
            fail_msg("\"%s\": %d, \"%s\"", cases[i].dsn, rc, got);
        }
        assert_null(strstr(got, "hunter2"));
        buf_fini(&out);
    }
}

/* In libpq's lists, so that a silent server costs the others one attempt. */
static void test_servers_are_tried_round_from_any_of_them(void **state)
{
    (void)state;
    static const struct {
        const char *dsn;
        size_t first;
        const char *hosts, *addresses, *ports; /* NULL: libpq is given none */
    } cases[] = {
        {"host=b,c port=1,2", 0, "b,c", NULL, "1,2"},
        {"host=b,c port=1,2", 1, "c,b", NULL, "2,1"},
        {"host=b,c port=1,2", 4, "b,c", NULL, "1,2"},
        {"host=b,c port=7", 1, "c,b", NULL, "7,7"},
        {"host=b,c", 1, "c,b", NULL, NULL},
        {"host=/run/pg,127.0.0.1 port=1,2", 1, "127.0.0.1,/run/pg", NULL, "2,1"},
        {"host=b,c hostaddr=10.0.0.1,10.0.0.2", 1, "c,b", "10.0.0.2,10.0.0.1", NULL},
        {"hostaddr=10.0.0.1,10.0.0.2 port=1,2", 1, ",", "10.0.0.2,10.0.0.1", "2,1"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct errmsg em = ERRMSG_INIT;
        struct pg_hosts given;
        struct pg_lists l;
        assert_int_equal(pg_dsn_hosts(cases[i].dsn, &given, &em), 0);
        pg_hosts_join(&given, cases[i].first, &l);
        assert_string_equal(buf_cstr(&l.hosts), cases[i].hosts);
        assert_int_equal(l.has_addresses, cases[i].addresses != NULL);
        if (l.has_addresses) {
            assert_string_equal(buf_cstr(&l.addresses), cases[i].addresses);
        }
        assert_int_equal(l.has_ports, cases[i].ports != NULL);
        if (l.has_ports) {
            assert_string_equal(buf_cstr(&l.ports), cases[i].ports);
        }
        pg_lists_fini(&l);
    }
}

static void test_each_address_of_a_name_is_a_server_of_its_own(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    struct pg_hosts given;
    struct pg_hosts found = {.count = 0};
    struct pg_lists l;
    assert_int_equal(pg_dsn_hosts("host=db,/run/pg,::1 port=1,2,3", &given, &em), 0);
    assert_true(pg_place_is_name(&given.list[0]));
    assert_false(pg_place_is_name(&given.list[1]));
    assert_false(pg_place_is_name(&given.list[2]));
    pg_hosts_add(&found, &given.list[0], "10.0.0.1");
    pg_hosts_add(&found, &given.list[0], "fd00::1");
    pg_hosts_add(&found, &given.list[1], NULL);
    pg_hosts_join(&found, 1, &l);
    assert_string_equal(buf_cstr(&l.hosts), "db,/run/pg,db");
    assert_string_equal(buf_cstr(&l.addresses), "fd00::1,,10.0.0.1");
    assert_string_equal(buf_cstr(&l.ports), "1,2,1");
    pg_lists_fini(&l);
    for (size_t i = 0; i < 1000; i++) {
        pg_hosts_add(&found, &given.list[0], "10.0.0.1");
    }
    assert_int_equal(found.count, ARRAY_SIZE(found.list));
}

static void test_a_long_connection_string_is_refused(void **state)
{
    (void)state;
    struct errmsg em = ERRMSG_INIT;
    struct buf dsn;
    struct buf out;
    buf_init(&dsn, 8192);
    buf_init(&out, 8192);
    buf_add_str(&dsn, "host=/x user=r dbname=");
    while (dsn.len < MIRROR_DSN_MAX) {
        buf_add_str(&dsn, "abcdefgh");
    }
    assert_int_equal(pg_dsn_check(buf_cstr(&dsn), false, &out, &em), -ERR_TOO_LARGE);
    buf_fini(&dsn);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_reaches_back_to_its_floor),
        cmocka_unit_test(test_ring_forgets_the_oldest_when_full),
        cmocka_unit_test(test_entry_feed_has_position_and_every_change),
        cmocka_unit_test(test_generation_moves_with_restore_and_level_only),
        cmocka_unit_test(test_copy_stays_as_it_was),
        cmocka_unit_test(test_sql_is_made_from_the_schema),
        cmocka_unit_test(test_a_group_has_each_row_once),
        cmocka_unit_test(test_sums_follow_every_change_of_the_state),
        cmocka_unit_test(test_values_are_postgresqls_text),
        cmocka_unit_test(test_connection_strings),
        cmocka_unit_test(test_servers_are_tried_round_from_any_of_them),
        cmocka_unit_test(test_each_address_of_a_name_is_a_server_of_its_own),
        cmocka_unit_test(test_a_long_connection_string_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
