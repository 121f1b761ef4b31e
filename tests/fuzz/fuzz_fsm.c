/* The replicated state against any bytes. The first byte says what the rest is:
 *   0  a log entry
 *   1  commands: kind, two bytes of length, body - in envelopes that are in order
 *   2  damage to a good image: offset (three bytes), new byte
 *   3  an image
 * Whatever is refused must leave the state as it was, and the state must go on afterwards. */
#include "fuzz/fuzz.h"

#include "authority/query.h"
#include "lib/fsm_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct buf base;

static void make_base(void)
{
    struct fsm_world w;
    fsm_world_init(&w);
    (void)fsm_make_node(&w, 7, "n7");
    (void)fsm_make_authority(&w, 8, "a8");
    (void)fsm_make_token(&w, 1, 3);
    (void)fsm_make_request(&w, 50, "waiting", 1);
    buf_init(&base, IMAGE_MAX_BYTES);
    CHECK(fsm_image(w.fsm, &base) == 0);
    fsm_world_fini(&w);
}

static void read_everything(struct fsm *f)
{
    static const char *const kinds[] = {"cluster", "tokens", "requests",    "nodes", "authorities",
                                        "roles",   "audit",  "memberships", "terms"};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct buf out;
        struct mp_writer w;
        struct query_args args = {.limit = 0};
        buf_init(&out, RPC_FRAME_MAX);
        mp_writer_init(&w, &out);
        if (query_run(f, kinds[i], &args, &w, NULL) == 0) {
            struct mp_reader r;
            mp_reader_init(&r, buf_blob(&out));
            (void)mp_skip(&r);
            CHECK(mp_reader_finish(&r) == 0);
        }
        buf_fini(&out);
    }
}

/* Applies, and checks that it was all or nothing. */
static void apply(struct fsm *f, struct blob entry)
{
    struct fsm_position before;
    struct fsm_position after;
    fsm_position(f, &before);
    int rc = fsm_apply(f, before.index + 1, before.term, entry, NULL, NULL, NULL);
    fsm_position(f, &after);
    if (rc == 0) {
        CHECK(after.index == before.index + 1 && after.time_ms >= before.time_ms);
    } else {
        CHECK(memcmp(&before, &after, sizeof before) == 0);
    }
}

static void apply_commands(struct fsm *f, struct blob in)
{
    struct fsm_entry e;
    struct fsm_position p;
    fsm_position(f, &p);
    fsm_entry_begin(&e, p.term);
    uint32_t n = 0;
    while (in.len >= 3 && n < 64) {
        size_t len = (size_t)in.data[1] << 8 | in.data[2];
        uint8_t kind = in.data[0];
        in = blob_of(in.data + 3, in.len - 3);
        len = len < in.len ? len : in.len;
        struct buf one;
        struct mp_writer w;
        buf_init(&one, ENTRY_MAX_BYTES);
        const struct cmd c = {
            .kind = kind,
            .request_id = fsm_fake_id(11, ++n),
            .time_ms = p.time_ms + n,
            .actor_kind = blob_str(kind == CMD_CLUSTER_INIT ? ACTOR_OWNER : ACTOR_ADMIN),
            .body = blob_of(in.data, len),
        };
        msg_encode(&cmd_desc, &c, &one);
        mp_writer_init(&w, &e.commands);
        mp_put_bin(&w, buf_blob(&one));
        buf_fini(&one);
        e.count++;
        in = blob_of(in.data + len, in.len - len);
    }
    apply(f, fsm_entry_end(&e));
    fsm_entry_fini(&e);
}

static void restore(struct fsm *f, struct blob image)
{
    struct fsm_position before;
    struct fsm_position after;
    fsm_position(f, &before);
    int rc = fsm_restore(f, image, NULL);
    fsm_position(f, &after);
    CHECK(rc == 0 || memcmp(&before, &after, sizeof before) == 0);
}

static void damage(struct fsm *f, struct blob in)
{
    struct buf image;
    buf_init(&image, IMAGE_MAX_BYTES);
    buf_add(&image, base.data, base.len);
    for (size_t i = 0; i + 4 <= in.len; i += 4) {
        size_t at = (size_t)in.data[i] << 16 | (size_t)in.data[i + 1] << 8 | in.data[i + 2];
        image.data[at % image.len] = in.data[i + 3];
    }
    restore(f, buf_blob(&image));
    buf_fini(&image);
}

/* One sound command still works. */
static void go_on(struct fsm *f)
{
    struct fsm_entry e;
    struct fsm_position p;
    fsm_position(f, &p);
    fsm_entry_begin(&e, p.term);
    fsm_entry_add(&e,
                  (struct cmd){.kind = CMD_JOIN_EXPIRE,
                               .request_id = fsm_fake_id(12, 1),
                               .time_ms = FSM_T0,
                               .actor_kind = blob_str(ACTOR_SYSTEM)},
                  &(struct join_expire){.before_ms = FSM_T0});
    apply(f, fsm_entry_end(&e));
    fsm_entry_fini(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fsm *f; /* holds the base image between inputs */
    struct fsm_position before;
    struct fsm_position after;
    if (f == NULL) {
        make_base();
        CHECK(fsm_new(&f, NULL) == 0 && fsm_restore(f, buf_blob(&base), NULL) == 0);
    }
    if (size == 0) {
        return 0;
    }
    struct blob in = blob_of(data + 1, size - 1);
    fsm_position(f, &before);
    switch (data[0] % 4) {
        case 0:
            apply(f, in);
            break;
        case 1:
            apply_commands(f, in);
            break;
        case 2:
            damage(f, in);
            break;
        default:
            restore(f, in);
            break;
    }
    fsm_position(f, &after);
    bool restored = data[0] % 4 >= 2; /* damage to values may be in place unnoticed */
    if (restored || memcmp(&before, &after, sizeof before) != 0) {
        read_everything(f);
        go_on(f);
        CHECK(fsm_restore(f, buf_blob(&base), NULL) == 0);
    }
    return 0;
}
