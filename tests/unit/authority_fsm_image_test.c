/* Images: out and back, at any point, also damaged and foreign ones (S15, S22). */
#include "lib/fsm_fixture.h"

#include "base/text.h"
#include "pki/pki.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void take_image(struct fsm *f, struct buf *out)
{
    buf_init(out, IMAGE_MAX_BYTES);
    assert_int_equal(fsm_image(f, out), 0);
}

static struct fsm *restored(struct blob image)
{
    struct errmsg em = ERRMSG_INIT;
    struct fsm *f;
    assert_int_equal(fsm_new(&f, &em), 0);
    int rc = fsm_restore(f, image, &em);
    if (rc != 0) {
        fail_msg("restore: %s", em.text);
    }
    return f;
}

static void same_position(const struct fsm *a, const struct fsm *b)
{
    struct fsm_position p;
    struct fsm_position q;
    fsm_position(a, &p);
    fsm_position(b, &q);
    assert_int_equal(p.epoch, q.epoch);
    assert_int_equal(p.term, q.term);
    assert_int_equal(p.index, q.index);
    assert_int_equal(p.time_ms, q.time_ms);
    assert_int_equal(p.config_index, q.config_index);
    assert_int_equal(p.audit_seq, q.audit_seq);
    assert_memory_equal(p.audit_head, q.audit_head, 32);
    assert_memory_equal(p.digest, q.digest, 32);
}

static void test_image_of_a_new_state_can_be_restored(void **state)
{
    (void)state;
    struct fsm_world w;
    struct buf image;
    fsm_world_init_empty(&w);
    take_image(w.fsm, &image);
    struct fsm *f = restored(buf_blob(&image));
    same_position(w.fsm, f);
    fsm_free(f);
    buf_fini(&image);
    fsm_world_fini(&w);
}

static void test_restored_state_answers_and_goes_on_alike(void **state)
{
    (void)state;
    struct fsm_world w;
    struct buf image;
    uint8_t at[32];
    struct fsm_position p;
    fsm_world_init(&w);
    (void)fsm_make_node(&w, 7, "n7");
    (void)fsm_make_token(&w, 1, 1);
    struct cmd c = fsm_envelope(&w, CMD_JOIN_SUBMIT);
    struct join_submit b = fsm_submit(&w, 50, "waiting", 1);
    assert_int_equal(fsm_do_cmd(&w, c, &b), 0);
    take_image(w.fsm, &image);
    struct fsm *f = restored(buf_blob(&image));
    same_position(w.fsm, f);
    fsm_position(f, &p);
    assert_true(fsm_digest_at(f, p.index, at));
    assert_memory_equal(at, p.digest, 32);
    assert_false(fsm_digest_at(f, p.index - 1, at));
    assert_int_equal(fsm_audit_verify(f, NULL, NULL), 0);

    /* The request id is remembered by the image too (S4). */
    struct fsm *first = w.fsm;
    w.fsm = f;
    assert_int_equal(fsm_do_cmd(&w, c, &b), 0);
    assert_true(w.replayed);
    w.index--;
    w.fsm = first;
    assert_int_equal(fsm_do_cmd(&w, c, &b), 0);
    same_position(first, f);
    fsm_free(f);
    buf_fini(&image);
    fsm_world_fini(&w);
}

static void test_restore_replaces_everything(void **state)
{
    (void)state;
    struct fsm_world w;
    struct buf image;
    struct errmsg em;
    fsm_world_init(&w);
    (void)fsm_make_token(&w, 1, 1);
    take_image(w.fsm, &image);
    (void)fsm_make_token(&w, 2, 1);
    (void)fsm_make_node(&w, 7, "n7");
    assert_int_equal(fsm_restore(w.fsm, buf_blob(&image), &em), 0);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_join_tokens"), 1);
    assert_int_equal(fsm_count(&w, "SELECT count(*) FROM nodes"), 1);
    buf_fini(&image);
    fsm_world_fini(&w);
}

/* --- a random history: restored anywhere, it ends the same --- */

static uint32_t below(struct prng *r, uint32_t n)
{
    return (uint32_t)prng_below(r, n);
}

/* One random command over few ids, so that most meet something. */
static void add_random(struct fsm_entry *e, struct fsm_world *w, struct prng *r)
{
    uint32_t key = 2 + below(r, 12);
    uint32_t token = below(r, 6);
    struct fsm_fake k;
    uint8_t hash[32];
    char name[16];
    fsm_fake(key, &k);
    fsm_fake_token(token, hash);
    (void)snprintf(name, sizeof name, "h%u", below(r, 12));
    struct cmd c = fsm_envelope(w, 0);
    if (below(r, 10) == 0) { /* a retry, or an id used for something else */
        c.request_id = fsm_fake_id(9, 1 + below(r, w->next_request));
    }
    c.time_ms += (int64_t)below(r, 2000) - 1000;
    struct blob cert = fsm_fake_cert(&(struct fsm_fake_cert){
        .key = key,
        .issuer = 1 + below(r, 2) * (key - 1),
        .serial = 1000 + below(r, 100000),
        .not_after_ms = w->now_ms + PKI_LEAF_LIFE_MS,
    });
    switch (below(r, 16)) {
        case 0:
        case 1:
            c.kind = CMD_TOKEN_CREATE;
            fsm_entry_add(e, c,
                          &(struct token_create){.token_id = fsm_fake_id(3, token),
                                                 .token_hash = blob_of(hash, 32),
                                                 .expires_at_ms = w->now_ms + 20 * FSM_HOUR,
                                                 .max_uses = 1 + below(r, 9)});
            return;
        case 2:
            c.kind = CMD_TOKEN_REVOKE;
            if (below(r, 8) == 0) {
                fsm_entry_add(e, c, &(struct token_revoke){.token_id = fsm_fake_id(3, token)});
                return;
            }
            /* fallthrough */
        case 3:
        case 4:
        case 5: {
            struct join_submit b = fsm_submit(w, key, name, token);
            b.join_id = fsm_fake_id(4, key * 16 + below(r, 4));
            b.expires_at_ms += (int64_t)below(r, 100) * 100000;
            c.kind = CMD_JOIN_SUBMIT;
            fsm_entry_add(e, c, &b);
            return;
        }
        case 6:
        case 7:
        case 8:
            c.kind = CMD_JOIN_APPROVE;
            fsm_entry_add(e, c,
                          &(struct join_approve){.join_id = fsm_fake_id(4, key * 16 + below(r, 4)),
                                                 .node_id = k.id,
                                                 .cert = cert});
            return;
        case 9:
            c.kind = CMD_JOIN_REJECT;
            fsm_entry_add(e, c,
                          &(struct join_reject){.join_id = fsm_fake_id(4, key * 16 + below(r, 4)),
                                                .reason = blob_str("no")});
            return;
        case 10:
            c.kind = CMD_ROLE_ASSIGN;
            fsm_entry_add(e, c,
                          &(struct role_assign){.assignment_id = fsm_fake_id(5, below(r, 100000)),
                                                .node_id = k.id,
                                                .role = blob_str(role_names[below(r, 12)])});
            return;
        case 11:
            c.kind = CMD_ROLE_UNASSIGN;
            fsm_entry_add(e, c,
                          &(struct role_unassign){.node_id = k.id,
                                                  .role = blob_str(role_names[below(r, 12)])});
            return;
        case 12: {
            char issuer[32];
            uint8_t fingerprint[32];
            fsm_fake_issuer_fingerprint(key, fingerprint);
            static const char *const statuses[] = {"standby", "voter", "voter"};
            if (below(r, 3) == 0) {
                c.kind = CMD_AUTHORITY_ADD;
                fsm_entry_add(e, c,
                              &(struct authority_add){
                                  .node_id = k.id,
                                  .address = blob_str("192.0.2.7:7400"),
                                  .issuer_der = fsm_fake_issuer(key, issuer),
                                  .issuer_fingerprint = blob_of(fingerprint, 32),
                                  .cert = fsm_fake_cert(&(struct fsm_fake_cert){
                                      .key = key,
                                      .issuer = key,
                                      .serial = 1000 + below(r, 100000),
                                      .not_after_ms = w->now_ms + PKI_LEAF_LIFE_MS}),
                              });
            } else if (below(r, 6) == 0) {
                c.kind = CMD_AUTHORITY_REMOVE;
                fsm_entry_add(e, c, &(struct authority_remove){.node_id = k.id});
            } else {
                c.kind = CMD_AUTHORITY_STATUS;
                fsm_entry_add(e, c,
                              &(struct authority_status){
                                  .node_id = k.id, .status = blob_str(statuses[below(r, 3)])});
            }
            return;
        }
        case 13: {
            static const char *const healths[] = {"healthy", "stale", "degraded", "splendid"};
            static const char *const words[] = {"can_route_mesh", "can_run_vpn_exit", "No Word"};
            c.kind = CMD_NODE_HEALTH;
            fsm_entry_add(e, c,
                          &(struct node_health){.node_id = k.id,
                                                .health = blob_str(healths[below(r, 4)]),
                                                .last_seen_ms = w->now_ms,
                                                .capabilities = FSM_LIST(words[below(r, 3)])});
            return;
        }
        case 14:
            if (below(r, 4) == 0) {
                c.kind = CMD_NODE_REVOKE;
                fsm_entry_add(e, c,
                              &(struct node_revoke){.node_id = k.id, .reason = blob_str("x")});
            } else {
                c.kind = CMD_CERT_RENEW;
                fsm_entry_add(e, c, &(struct cert_renew){.node_id = k.id, .cert = cert});
            }
            return;
        default:
            if (below(r, 3) == 0) {
                c.kind = CMD_NODE_REMOVE;
                fsm_entry_add(e, c, &(struct node_remove){.node_id = k.id});
            } else if (below(r, 2) == 0) {
                c.kind = CMD_NODE_RENAME;
                fsm_entry_add(e, c, &(struct node_rename){.node_id = k.id, .name = blob_str(name)});
            } else {
                c.kind = CMD_JOIN_EXPIRE;
                fsm_entry_add(e, c, &(struct join_expire){.before_ms = w->now_ms});
            }
            return;
    }
}

struct tally {
    int ok[32], refused[32];
};

static void count_results(void *data, size_t n, const struct fsm_result *results)
{
    struct tally *t = data;
    for (size_t i = 0; i < n; i++) {
        (results[i].rc == 0 ? t->ok : t->refused)[results[i].kind]++;
    }
}

static void check_rules(struct fsm_world *w)
{
    /* S5, S6, S8, S10 and the counters the engine keeps beside the rows. */
    static const char *const never[] = {
        "SELECT count(*) FROM node_join_tokens t WHERE used_count > max_uses OR used_count <>"
        " (SELECT count(*) FROM node_join_requests r WHERE r.join_token_id = t.id)",
        "SELECT count(*) FROM (SELECT node_id FROM node_identities WHERE identity_status = 'active'"
        " GROUP BY node_id HAVING count(*) > 1)",
        "SELECT count(*) FROM nodes n JOIN banned_keys b ON b.fingerprint = n.fingerprint"
        " WHERE n.enrollment_status = 'enrolled'",
        "SELECT count(*) FROM node_role_assignments a JOIN cluster_memberships m"
        " ON m.node_id = a.node_id WHERE a.status = 'active' AND m.membership_status <> 'active'",
        "SELECT count(*) FROM cluster_authorities a JOIN nodes n ON n.id = a.node_id"
        " WHERE a.status <> 'removed' AND n.enrollment_status <> 'enrolled'",
        "SELECT count(*) FROM node_join_requests WHERE status = 'approved' AND"
        " approved_node_id IS NULL",
        "SELECT max(seq) - count(*) FROM cluster_audit_events",
        "SELECT NOT EXISTS (SELECT 1 FROM cluster_authorities WHERE status = 'voter')",
    };
    for (size_t i = 0; i < ARRAY_SIZE(never); i++) {
        if (fsm_count(w, never[i]) != 0) {
            fail_msg("broken: %s", never[i]);
        }
    }
}

static void swap_for_restored(struct fsm_world *w)
{
    struct buf image;
    take_image(w->fsm, &image);
    struct fsm *f = restored(buf_blob(&image));
    same_position(w->fsm, f);
    fsm_free(w->fsm);
    w->fsm = f;
    buf_fini(&image);
}

static void run_history(uint64_t seed, struct tally *tally)
{
    struct fsm_world a;
    struct fsm_world b;
    struct prng r;
    prng_seed(&r, seed);
    fsm_world_init(&a);
    fsm_world_init(&b);
    for (int i = 0; i < 120; i++) {
        struct fsm_entry e;
        fsm_entry_begin(&e, a.term);
        uint32_t n = 1 + below(&r, 8);
        for (uint32_t k = 0; k < n; k++) {
            add_random(&e, &a, &r);
        }
        struct errmsg em = ERRMSG_INIT;
        fsm_world_apply(&a, &e, count_results, tally);
        struct blob bytes = fsm_entry_end(&e);
        if (fsm_apply(b.fsm, ++b.index, b.term, bytes, NULL, NULL, &em) != 0) {
            fail_msg("seed %llu entry %d: %s", (unsigned long long)seed, i, em.text);
        }
        fsm_entry_fini(&e);
        if (below(&r, 10) == 0) {
            swap_for_restored(&b);
        }
        same_position(a.fsm, b.fsm);
        a.now_ms += below(&r, 400000);
        if (below(&r, 12) == 0) {
            a.term++;
            b.term++;
        }
    }
    check_rules(&a);
    assert_int_equal(fsm_audit_verify(b.fsm, NULL, NULL), 0);
    fsm_world_fini(&a);
    fsm_world_fini(&b);
}

static void test_random_histories_end_alike_wherever_they_are_restored(void **state)
{
    (void)state;
    const char *given = getenv("RAP_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : rng_u64() >> 16;
    struct tally tally = {.ok = {0}};
    print_message("RAP_SEED=%llu\n", (unsigned long long)seed);
    for (uint64_t i = 0; i < 12; i++) {
        run_history(seed + i, &tally);
    }
    /* Otherwise the histories would prove nothing. */
    static const uint64_t kinds[] = {CMD_TOKEN_CREATE, CMD_JOIN_SUBMIT,  CMD_JOIN_APPROVE,
                                     CMD_ROLE_ASSIGN,  CMD_NODE_REVOKE,  CMD_NODE_HEALTH,
                                     CMD_CERT_RENEW,   CMD_AUTHORITY_ADD};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (tally.ok[kinds[i]] == 0 || tally.refused[kinds[i]] == 0) {
            fail_msg("%s: %d done, %d refused", cmd_kind_name(kinds[i]), tally.ok[kinds[i]],
                     tally.refused[kinds[i]]);
        }
    }
}

/* --- what is not an image of ours --- */

static void test_damaged_images_are_refused_and_the_state_stays(void **state)
{
    (void)state;
    struct fsm_world w;
    struct buf image;
    struct errmsg em = ERRMSG_INIT;
    char before[65];
    char after[65];
    fsm_world_init(&w);
    for (uint32_t i = 0; i < 20; i++) {
        (void)fsm_make_token(&w, i, 1);
    }
    take_image(w.fsm, &image);
    fsm_digest_hex(w.fsm, before);
    const struct {
        const char *name;
        struct blob bytes;
    } cases[] = {
        {"nothing", blob_of("", 0)},
        {"text", blob_str("this is no database, however long the sentence that says so may be")},
        {"header only", blob_of(image.data, 100)},
        {"one page", blob_of(image.data, 4096)},
        {"half", blob_of(image.data, image.len / 8192 * 4096)},
        {"a byte short", blob_of(image.data, image.len - 1)},
        {"a page short", blob_of(image.data, image.len - 4096)},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (fsm_restore(w.fsm, cases[i].bytes, &em) == 0) {
            fail_msg("restored from %s", cases[i].name);
        }
    }
    /* Bytes of the structure, not of a value: page headers and cell pointers. */
    for (size_t page = 1; page < image.len / 4096; page++) {
        struct buf bad;
        buf_init(&bad, IMAGE_MAX_BYTES);
        buf_add(&bad, image.data, image.len);
        bad.data[page * 4096] ^= 0x1f; /* the kind of page */
        if (fsm_restore(w.fsm, buf_blob(&bad), &em) == 0) {
            fail_msg("restored with page %zu damaged", page);
        }
        buf_fini(&bad);
    }
    fsm_digest_hex(w.fsm, after);
    assert_string_equal(before, after);
    (void)fsm_make_token(&w, 30, 1);
    buf_fini(&image);
    fsm_world_fini(&w);
}

static void test_foreign_databases_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *sql;
        int rc;
    } cases[] = {
        {"as it is", "SELECT 1", 0},
        {"newer schema", "PRAGMA user_version = 300000", -ERR_SCHEMA},
        {"schema of no version", "PRAGMA user_version = 0", -ERR_CORRUPT},
        {"schema before the first", "PRAGMA user_version = -300000", -ERR_CORRUPT},
        {"a trigger", "CREATE TRIGGER t AFTER INSERT ON nodes BEGIN DELETE FROM nodes; END",
         -ERR_CORRUPT},
        {"a view", "CREATE VIEW v AS SELECT 1", -ERR_CORRUPT},
        {"a table more", "CREATE TABLE t (x)", -ERR_CORRUPT},
        {"a table less", "DROP TABLE banned_keys", -ERR_CORRUPT},
        {"an index less", "DROP INDEX node_identities_active", -ERR_CORRUPT},
        {"no position", "DELETE FROM fsm_state", -ERR_CORRUPT},
        {"half a digest", "UPDATE fsm_state SET digest = x'00'", -ERR_CORRUPT},
        {"negative index", "UPDATE fsm_state SET \"index\" = -1", -ERR_CORRUPT},
        {"another index", "UPDATE fsm_state SET \"index\" = 1", -ERR_CORRUPT},
        {"another term", "UPDATE authority_applied SET term = 77", -ERR_CORRUPT},
        {"no epoch", "UPDATE authority_applied SET epoch = 0", -ERR_CORRUPT},
        {"a bad cluster id", "UPDATE clusters SET id = 'x'", -ERR_CORRUPT},
        {"two clusters",
         "INSERT INTO clusters (id, name, slug, status, created_at, updated_at, config_version)"
         " VALUES ('zz', 'b', 'b', 'active', 0, 0, 0)",
         -ERR_CORRUPT},
        {"an audit row less", "DELETE FROM cluster_audit_events WHERE seq = 2", -ERR_CORRUPT},
        {"a bad audit head", "UPDATE cluster_audit_events SET hash = 'x'", -ERR_CORRUPT},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fsm_world w;
        struct fsm_world other;
        struct errmsg em = ERRMSG_INIT;
        fsm_world_init(&w);
        fsm_world_init(&other);
        (void)fsm_make_token(&other, 1, 1);
        struct buf image;
        take_image(other.fsm, &image);
        assert_int_equal(db_exec(fsm_db(other.fsm), cases[i].sql, &em), 0);
        /* Past fsm_image, which would write the position anew. */
        sqlite3_int64 size;
        unsigned char *bytes = sqlite3_serialize(db_handle(fsm_db(other.fsm)), "main", &size, 0);
        int rc = fsm_restore(w.fsm, blob_of(bytes, (size_t)size), &em);
        if (rc != cases[i].rc) {
            fail_msg("%s: %s (%s)", cases[i].name, err_text(rc), em.text);
        }
        assert_int_equal(fsm_count(&w, "SELECT count(*) FROM node_join_tokens"), rc == 0);
        sqlite3_free(bytes);
        buf_fini(&image);
        fsm_world_fini(&w);
        fsm_world_fini(&other);
    }
}

struct elsewhere {
    const struct db_migration *schema;
    struct blob image;
    struct fsm_prepared *state;
    int rc;
};

static void *prepare_elsewhere(void *arg)
{
    struct elsewhere *e = arg;
    e->rc = fsm_prepare(e->schema, e->image, &e->state, NULL);
    return NULL;
}

/* As a member does that is given an image: made on another thread while this one goes on, then adopted; the
 * next entry gives the same digest everywhere. */
static void test_state_made_on_another_thread_is_adopted(void **state)
{
    (void)state;
    struct fsm_world w;
    struct fsm_world other;
    struct buf image;
    pthread_t thread;
    struct elsewhere e = {.rc = -1};
    fsm_world_init(&w);
    for (uint32_t i = 0; i < 500; i++) {
        (void)fsm_make_token(&w, i, 1);
    }
    take_image(w.fsm, &image);
    fsm_world_init(&other);
    e.schema = fsm_schema(other.fsm);
    e.image = buf_blob(&image);
    assert_int_equal(pthread_create(&thread, NULL, prepare_elsewhere, &e), 0);
    for (uint32_t i = 0; i < 50; i++) {
        (void)fsm_make_token(&other, 9000 + i, 1); /* what is there goes on until then */
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(e.rc, 0);
    fsm_adopt(other.fsm, e.state);
    same_position(w.fsm, other.fsm);
    other.index = w.index;
    other.next_request = w.next_request;
    other.now_ms = w.now_ms;
    (void)fsm_make_token(&w, 7000, 1);
    (void)fsm_make_token(&other, 7000, 1);
    same_position(w.fsm, other.fsm);
    /* One that is damaged is no state at all, and one that nobody wants is only freed. */
    image.data[image.len / 2] ^= 0xff;
    memset(image.data + 5000, 0xff, 5000);
    e.state = NULL;
    (void)prepare_elsewhere(&e);
    assert_true(e.rc != 0 && e.state == NULL);
    fsm_prepared_free(NULL);
    buf_fini(&image);
    fsm_world_fini(&other);
    fsm_world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_image_of_a_new_state_can_be_restored),
        cmocka_unit_test(test_restored_state_answers_and_goes_on_alike),
        cmocka_unit_test(test_restore_replaces_everything),
        cmocka_unit_test(test_random_histories_end_alike_wherever_they_are_restored),
        cmocka_unit_test(test_damaged_images_are_refused_and_the_state_stays),
        cmocka_unit_test(test_foreign_databases_are_refused),
        cmocka_unit_test(test_state_made_on_another_thread_is_adopted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
