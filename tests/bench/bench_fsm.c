/* What one committed command costs the replicated state: CPU time of fsm_apply a token.create, in
 * entries of one and of many commands (bench_fsm [COMMANDS [A_ENTRY]]; with A_ENTRY, of an image too). Prints the state digest too: two builds that print the same
 * digest computed the same. */
#include "authority/raft_image.h"
#include "lib/fsm_fixture.h"

#include <time.h>

static int64_t cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void count_refused(void *data, size_t n, const struct fsm_result *results)
{
    size_t *refused = data;
    for (size_t i = 0; i < n; i++) {
        *refused += results[i].rc != 0;
    }
}

/* What an image of the state costs: the copy that the loop waits for, packing, and what a member does that
 * receives it. */
static void image(struct fsm_world *w)
{
    struct errmsg em = ERRMSG_INIT;
    struct db_image *frozen;
    struct buf packed;
    struct buf raw;
    buf_init(&packed, IMAGE_PACKED_MAX);
    buf_init(&raw, IMAGE_MAX_BYTES);
    int64_t t0 = cpu_ns();
    CHECK(fsm_freeze(w->fsm, &frozen) == 0);
    int64_t t1 = cpu_ns();
    CHECK(raft_image_pack(frozen, &packed) == 0);
    int64_t t2 = cpu_ns();
    db_image_free(frozen);
    CHECK(raft_image_check(buf_blob(&packed)) == 0);
    int64_t t3 = cpu_ns();
    CHECK(raft_image_unpack(buf_blob(&packed), &raw) == 0);
    int64_t t4 = cpu_ns();
    struct fsm_prepared *state;
    if (fsm_prepare(fsm_schema(w->fsm), buf_blob(&raw), &state, &em) != 0) {
        fatal("restore: %s", em.text);
    }
    int64_t t5 = cpu_ns();
    fsm_adopt(w->fsm, state);
    int64_t t6 = cpu_ns();
    (void)printf(
        "image %.1f MB packed %.1f MB, CPU ms: freeze %.2f pack %.0f check %.0f unpack %.0f"
        " prepare %.0f adopt %.0f\n",
        (double)raw.len / 1e6, (double)packed.len / 1e6, (double)(t1 - t0) / 1e6,
        (double)(t2 - t1) / 1e6, (double)(t3 - t2) / 1e6, (double)(t4 - t3) / 1e6,
        (double)(t5 - t4) / 1e6, (double)(t6 - t5) / 1e6);
    buf_fini(&packed);
    buf_fini(&raw);
}

static void run(uint32_t batch, uint32_t total, bool with_image)
{
    struct fsm_world w;
    struct errmsg em = ERRMSG_INIT;
    char digest[65];
    size_t refused = 0;
    int64_t spent_ns = 0;
    fsm_world_init(&w);
    for (uint32_t n = 0; n < total; n += batch) {
        struct fsm_entry e;
        fsm_entry_begin(&e, w.term);
        for (uint32_t i = 0; i < batch; i++) {
            uint8_t hash[32];
            fsm_fake_token(n + i, hash);
            const struct token_create body = {
                .token_id = fsm_fake_id(3, n + i),
                .token_hash = blob_of(hash, sizeof hash),
                .expires_at_ms = w.now_ms + FSM_HOUR,
                .max_uses = 1,
            };
            struct cmd c = fsm_envelope(&w, CMD_TOKEN_CREATE);
            c.request_hash = blob_of(hash, sizeof hash);
            fsm_entry_add(&e, c, &body);
        }
        struct blob entry = fsm_entry_end(&e);
        int64_t start_ns = cpu_ns();
        int rc = fsm_apply(w.fsm, ++w.index, w.term, entry, count_refused, &refused, &em);
        spent_ns += cpu_ns() - start_ns;
        if (rc != 0) {
            fatal("entry %llu: %s", (unsigned long long)w.index, em.text);
        }
        fsm_entry_fini(&e);
    }
    fsm_digest_hex(w.fsm, digest);
    (void)printf("%6u a entry %8.2f us a command  refused %zu  digest %.16s\n", batch,
                 (double)spent_ns / 1000 / total, refused, digest);
    if (with_image) {
        image(&w);
    }
    fsm_world_fini(&w);
}

int main(int argc, char **argv)
{
    uint32_t total = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 40000;
    if (argc > 2) {
        run((uint32_t)strtoul(argv[2], NULL, 10), total, true);
    } else {
        run(1, total, false);
        run(16, total, false);
        run(100, total, false);
    }
    return 0;
}
