/* Schema levels: two versions in one group agree at every index, and the state changes its shape on
 * all of them at once (S15). */
#include "lib/core_asked.h"
#include "lib/fsm_fixture.h"

#include "authority/fsm_impl.h"
#include "base/file.h"

/* Versions of the program: the product, at its highest level, and one that knows a level more. */
static struct db_migration knows_one[32];
static struct db_migration knows_two[32];
static unsigned one, two;

static int set_up(void **state)
{
    (void)state;
    one = (unsigned)db_migrations_count(migrations_state);
    two = one + 1;
    for (unsigned i = 0; i < one; i++) {
        knows_one[i] = knows_two[i] = migrations_state[i];
    }
    knows_two[one] = (struct db_migration){
        "more", "ALTER TABLE nodes ADD COLUMN note TEXT;"
                "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL) STRICT;"
                "INSERT INTO notes (id, n) SELECT id, 1 FROM nodes ORDER BY id;"
                "UPDATE nodes SET note = 'older' WHERE name = 'seed';"};
    return 0;
}

static struct cmd raise_envelope(struct fsm_world *w)
{
    struct cmd c = fsm_envelope(w, CMD_LEVEL_RAISE);
    c.actor_kind = blob_str(ACTOR_SYSTEM);
    return c;
}

static int raise_to(struct fsm_world *w, uint64_t level)
{
    return fsm_do_cmd(w, raise_envelope(w), &(struct level_raise){.level = level});
}

static void world_of(struct fsm_world *w, const struct db_migration *schema)
{
    struct errmsg em = ERRMSG_INIT;
    fsm_world_init_empty(w);
    fsm_free(w->fsm);
    assert_int_equal(fsm_new_of(schema, &w->fsm, &em), 0);
    assert_int_equal(fsm_world_init_cluster(w), 0);
    if (one > 1) {
        assert_int_equal(raise_to(w, one), 0);
    }
}

static void same_digest(const struct fsm *a, const struct fsm *b)
{
    char x[65];
    char y[65];
    fsm_digest_hex(a, x);
    fsm_digest_hex(b, y);
    assert_string_equal(x, y);
}

static void test_version_with_more_levels_computes_the_same_until_the_raise(void **state)
{
    (void)state;
    struct fsm_world old;
    struct fsm_world new;
    world_of(&old, knows_one);
    world_of(&new, knows_two);
    (void)fsm_make_node(&old, 5, "n5");
    (void)fsm_make_node(&new, 5, "n5");
    same_digest(old.fsm, new.fsm);
    assert_int_equal(fsm_level(new.fsm), one);
    assert_int_equal(fsm_level_known(new.fsm), two);
    fsm_world_fini(&old);
    fsm_world_fini(&new);
}

static void test_raise_runs_the_migrations_and_is_audited_once(void **state)
{
    (void)state;
    struct fsm_world w;
    world_of(&w, knows_two);
    (void)fsm_make_node(&w, 5, "n5");
    assert_int_equal(raise_to(&w, two), 0);
    assert_int_equal(fsm_level(w.fsm), two);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM notes"), 2);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM nodes WHERE note = 'older'"), 1);
    assert_int_equal(raise_to(&w, two), -ERR_CONFLICT);
    assert_int_equal(raise_to(&w, one), -ERR_CONFLICT);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_audit_events"
                                   " WHERE event_type = 'level_raised'"),
                     one > 1 ? 2 : 1);
    (void)fsm_make_node(&w, 6, "n6"); /* into a table that grew */
    fsm_world_fini(&w);
}

static void test_only_the_leader_itself_raises(void **state)
{
    (void)state;
    struct fsm_world w;
    world_of(&w, knows_two);
    assert_int_equal(fsm_do(&w, CMD_LEVEL_RAISE, &(struct level_raise){.level = two}), -ERR_DENIED);
    assert_int_equal(fsm_level(w.fsm), one);
    fsm_world_fini(&w);
}

static void test_replica_that_does_not_know_the_level_stops_unchanged(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_entry e;
    struct errmsg em = ERRMSG_INIT;
    char before[65];
    char after[65];
    world_of(&w, knows_one);
    fsm_digest_hex(w.fsm, before);
    fsm_entry_begin(&e, w.term);
    fsm_entry_add(&e, raise_envelope(&w), &(struct level_raise){.level = two});
    assert_int_equal(fsm_apply(w.fsm, w.index + 1, w.term, fsm_entry_end(&e), NULL, NULL, &em),
                     -ERR_UNSUPPORTED);
    fsm_digest_hex(w.fsm, after);
    assert_string_equal(before, after);
    assert_int_equal(fsm_level(w.fsm), one);
    fsm_entry_fini(&e);
    fsm_world_fini(&w);
}

/* A change, the raise and a change of the grown table, in one entry: the change feed names the
 * columns of each row as they were. */
static size_t rows_seen;
static void on_change(void *data, char op, const char *table, struct blob row)
{
    (void)data;
    (void)op;
    rows_seen += strcmp(table, "nodes") == 0 && mp_find(row, "name").len > 0;
}

static void test_raise_amid_other_commands_of_an_entry(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_entry e;
    world_of(&w, knows_two);
    struct uuid n5 = fsm_make_node(&w, 5, "n5");
    fsm_on_change(w.fsm, on_change, NULL);
    fsm_entry_begin(&e, w.term);
    fsm_entry_add(&e, fsm_envelope(&w, CMD_NODE_RENAME),
                  &(struct node_rename){.node_id = n5, .name = blob_str("one")});
    fsm_entry_add(&e, raise_envelope(&w), &(struct level_raise){.level = two});
    fsm_entry_add(&e, fsm_envelope(&w, CMD_NODE_RENAME),
                  &(struct node_rename){.node_id = n5, .name = blob_str("two")});
    rows_seen = 0;
    fsm_world_apply(&w, &e, NULL, NULL);
    assert_int_equal(rows_seen, 3); /* the migration's own UPDATE among them */
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM nodes WHERE name = 'two'"), 1);
    fsm_entry_fini(&e);
    fsm_world_fini(&w);
}

static void test_image_keeps_its_level_and_is_raised_by_the_log(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_world other;
    struct buf image;
    struct errmsg em = ERRMSG_INIT;
    world_of(&w, knows_two);
    world_of(&other, knows_two);
    (void)fsm_make_node(&w, 5, "n5");
    buf_init(&image, IMAGE_MAX_BYTES);
    assert_int_equal(fsm_image(w.fsm, &image), 0);
    assert_int_equal(fsm_restore(other.fsm, buf_blob(&image), &em), 0);
    assert_int_equal(fsm_level(other.fsm), one);
    other.index = w.index;
    other.now_ms = w.now_ms;
    other.next_request = w.next_request;
    assert_int_equal(raise_to(&w, two), 0);
    assert_int_equal(raise_to(&other, two), 0);
    same_digest(w.fsm, other.fsm);
    buf_clear(&image);
    assert_int_equal(fsm_image(w.fsm, &image), 0);
    assert_int_equal(fsm_restore(other.fsm, buf_blob(&image), &em), 0);
    assert_int_equal(fsm_level(other.fsm), two);
    buf_fini(&image);
    fsm_world_fini(&w);
    fsm_world_fini(&other);
}

/* Rows of a table as text, one a line. */
static void dump(struct db *db, const char *sql, struct buf *out)
{
    struct db_stmt *st = db_prepare(db, sql);
    while (db_step(st) == 1) {
        buf_addf(out, "%s\n", db_col_text(st, "line"));
    }
    db_done(st);
}

static void test_legacy_nodes_become_members_of_the_one_cluster(void **state)
{
    (void)state;
    static const char sql_nodes[] =
        "SELECT id || name || fingerprint || enrollment_status || health_status || identity_state"
        " || coalesce(facts, '-') || config_index AS line FROM nodes ORDER BY id";
    static struct db_migration before[32];
    struct fsm_world w;
    struct buf fixture, image, was, is;
    unsigned level = 0;
    while (strstr(migrations_state[level].name, "default_cluster") == NULL) {
        before[level] = migrations_state[level];
        level++;
    }
    buf_init(&fixture, 1u << 16);
    buf_init(&image, IMAGE_MAX_BYTES);
    buf_init(&was, 1u << 16);
    buf_init(&is, 1u << 16);
    fsm_world_init_empty(&w);
    fsm_free(w.fsm);
    assert_int_equal(fsm_new_of(before, &w.fsm, NULL), 0);
    assert_int_equal(fsm_world_init_cluster(&w), 0);
    assert_int_equal(raise_to(&w, level), 0);
    assert_int_equal(file_read(RAP_SOURCE_DIR "/tests/golden/legacy_nodes.sql", &fixture, NULL), 0);
    assert_int_equal(db_exec(fsm_db(w.fsm), buf_cstr(&fixture), NULL), 0);
    dump(fsm_db(w.fsm), sql_nodes, &was);
    /* The new version opens it as it is, and the log raises it. */
    assert_int_equal(fsm_image(w.fsm, &image), 0);
    fsm_free(w.fsm);
    assert_int_equal(fsm_new(&w.fsm, NULL), 0);
    assert_int_equal(fsm_restore(w.fsm, buf_blob(&image), NULL), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_memberships"), 1);
    assert_int_equal(raise_to(&w, level + 1), 0);
    dump(fsm_db(w.fsm), sql_nodes, &is);
    assert_string_equal(buf_cstr(&is), buf_cstr(&was));
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_memberships m JOIN clusters c"
                                   " ON c.id = m.cluster_id JOIN nodes n ON n.id = m.node_id"),
                     4);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_memberships m JOIN nodes n ON"
                                   " n.id = m.node_id WHERE n.name LIKE 'legacy-%' AND"
                                   " m.membership_status = 'active' AND m.joined_at > 0"),
                     2);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM cluster_memberships m JOIN nodes n ON"
                                   " n.id = m.node_id WHERE n.name = 'legacy-gone' AND"
                                   " m.membership_status = 'revoked'"),
                     1);
    /* They are nodes like any other now. */
    struct uuid id;
    assert_int_equal(uuid_parse("018f0000-0000-7000-8000-000000000002", &id), 0);
    assert_int_equal(fsm_do(&w, CMD_NODE_RENAME,
                            &(struct node_rename){.node_id = id, .name = blob_str("adopted")}),
                     0);
    buf_fini(&fixture);
    buf_fini(&image);
    buf_fini(&was);
    buf_fini(&is);
    fsm_world_fini(&w);
}

static void test_image_of_a_newer_version_is_refused_with_what_to_do(void **state)
{
    (void)state;
    struct fsm_world old;
    struct fsm_world new;
    struct buf image;
    struct errmsg em = ERRMSG_INIT;
    world_of(&old, knows_one);
    world_of(&new, knows_two);
    assert_int_equal(raise_to(&new, two), 0);
    buf_init(&image, IMAGE_MAX_BYTES);
    assert_int_equal(fsm_image(new.fsm, &image), 0);
    assert_int_equal(fsm_restore(old.fsm, buf_blob(&image), &em), -ERR_SCHEMA);
    assert_non_null(strstr(em.text, "install the version that wrote it"));
    buf_fini(&image);
    fsm_world_fini(&old);
    fsm_world_fini(&new);
}

/* --- a group of two versions --- */

static void commit(struct core_cluster *c, int leader, uint32_t number)
{
    struct asked a;
    assert_int_equal(propose(c, leader, &a, number), 0);
    core_cluster_run(c, 300);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.rc, 0);
}

static void test_rolling_upgrade_raises_when_the_last_member_is_new(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    core_cluster_init(&c, 3, 3);
    for (int i = 0; i < 3; i++) {
        core_cluster_stop(&c, i);
        c.nodes[i].schema = knows_one;
        core_cluster_start(&c, i);
    }
    int leader = core_cluster_elect(&c);
    commit(&c, leader, 1);
    for (int i = 0; i < 3; i++) {
        core_cluster_stop(&c, i);
        c.nodes[i].schema = knows_two;
        core_cluster_start(&c, i);
        leader = core_cluster_elect(&c);
        commit(&c, leader, 2 + (uint32_t)i); /* whoever leads, old or new: it goes on */
        core_cluster_run(&c, 1000);
        for (int k = 0; k < 3; k++) {
            assert_int_equal(fsm_level(c.nodes[k].fsm), i < 2 ? one : two);
            assert_int_equal(c.nodes[k].fatals, 0);
        }
    }
    same_digest(c.nodes[0].fsm, c.nodes[1].fsm);
    same_digest(c.nodes[0].fsm, c.nodes[2].fsm);
    core_cluster_fini(&c);
}

static void test_level_waits_for_a_member_that_is_away(void **state)
{
    (void)state;
    struct core_cluster c = {0};
    core_cluster_init(&c, 3, 3);
    for (int i = 0; i < 3; i++) {
        core_cluster_stop(&c, i);
        c.nodes[i].schema = knows_two;
    }
    core_cluster_start(&c, 0);
    core_cluster_start(&c, 1);
    int leader = core_cluster_elect(&c);
    commit(&c, leader, 1);
    core_cluster_run(&c, 2000);
    assert_int_equal(fsm_level(c.nodes[leader].fsm), 1);
    core_cluster_start(&c, 2);
    core_cluster_run(&c, 2000);
    assert_int_equal(fsm_level(c.nodes[leader].fsm), two);
    core_cluster_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_with_more_levels_computes_the_same_until_the_raise),
        cmocka_unit_test(test_raise_runs_the_migrations_and_is_audited_once),
        cmocka_unit_test(test_only_the_leader_itself_raises),
        cmocka_unit_test(test_replica_that_does_not_know_the_level_stops_unchanged),
        cmocka_unit_test(test_raise_amid_other_commands_of_an_entry),
        cmocka_unit_test(test_image_keeps_its_level_and_is_raised_by_the_log),
        cmocka_unit_test(test_legacy_nodes_become_members_of_the_one_cluster),
        cmocka_unit_test(test_image_of_a_newer_version_is_refused_with_what_to_do),
        cmocka_unit_test(test_rolling_upgrade_raises_when_the_last_member_is_new),
        cmocka_unit_test(test_level_waits_for_a_member_that_is_away),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
