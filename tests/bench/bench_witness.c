/* What a majority's signatures cost (docs/decisions/0008): CPU time of one change of the tree at 10,000
 * nodes, of one signature, and of a node's check of a snapshot with and without a witness; and the bytes
 * that a snapshot grows by. */
#include "lib/fake_witness.h"

#include <time.h>

#define NODES 10000

static int64_t cpu_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void say(const char *what, int64_t spent_ns, unsigned times)
{
    (void)printf("%-44s %9.2f us\n", what, (double)spent_ns / 1000 / times);
}

static void tree(void)
{
    struct merkle *t = NULL;
    struct buf path;
    uint8_t key[PKI_HASH_BYTES];
    int64_t start = 0;
    buf_init(&path, MERKLE_PATH_MAX);
    for (uint32_t i = 0; i < 2 * NODES; i++) {
        start = i == NODES ? cpu_ns() : start;
        uint32_t node = i % NODES;
        pki_sha256(blob_of(&node, sizeof node), key);
        uint8_t value[PKI_HASH_BYTES] = {(uint8_t)(i / NODES)};
        t = merkle_put(t, key, value);
    }
    say("one node's item changed, 10,000 nodes", cpu_ns() - start, NODES);
    CHECK(merkle_path(t, key, &path) == 0);
    (void)printf("%-44s %9zu bytes\n", "a path", path.len);
    merkle_unref(t);
    buf_fini(&path);
}

static void snapshot(void)
{
    struct fake_cluster c;
    struct fake_node nodes[FAKE_MEMBERS];
    const struct fake_node *members[FAKE_MEMBERS];
    struct fake_snapshot s;
    struct fake_witness w;
    struct buf plain;
    struct buf full;
    struct uuid id = uuid_new();
    uint8_t own[PKI_HASH_BYTES] = {1};
    uint8_t sig[PKI_SIG_BYTES];
    fake_cluster_init(&c, FAKE_NOW_MS);
    for (size_t i = 0; i < FAKE_MEMBERS; i++) {
        fake_node_init(&nodes[i], &c, true, FAKE_NOW_MS);
        members[i] = &nodes[i];
    }
    fake_witness_init(&w, &c, members, own, FAKE_NOW_MS);
    fake_snapshot_init(&s, &c, members[0], &id, 10, FAKE_NOW_MS);
    buf_init(&plain, CONFIG_SIGNED_MAX);
    buf_init(&full, CONFIG_SIGNED_MAX);
    fake_sign(&s, &plain);
    w.show_link = false;
    w.history_from = 40;
    fake_witness_sign(&w, &s, &full);
    struct config_expect e = {.trust = c.trust,
                              .cluster_id = c.id,
                              .node_id = id,
                              .now_ms = FAKE_NOW_MS + 1,
                              .epoch = 1,
                              .version = 5};
    memcpy(e.fingerprint, own, sizeof own);
    for (int k = 0; k < 2; k++) {
        const struct buf *bytes = k == 0 ? &plain : &full;
        if (k == 1) {
            e.set = &w.set;
            e.audit_seq = 40;
            history_root(&w.history, 40, e.history);
        }
        int64_t start = cpu_ns();
        for (unsigned i = 0; i < 1000; i++) {
            struct config *cfg = NULL;
            CHECK(config_verify(buf_blob(bytes), &e, &cfg, NULL) == 0 &&
                  cfg->witnessed == (k == 1));
            config_free(cfg);
        }
        say(k == 0 ? "a snapshot checked, one signature" : "a snapshot checked, two of three",
            cpu_ns() - start, 1000);
    }
    int64_t start = cpu_ns();
    for (unsigned i = 0; i < 1000; i++) {
        witness_sign(nodes[0].key, FAKE_NOW_MS, blob_of(own, sizeof own), sig);
    }
    say("a statement signed", cpu_ns() - start, 1000);
    /* The tree of the fake has 22 items; a path grows by 32 bytes with each doubling. */
    (void)printf("%-44s %9zu bytes, %zu without\n", "a snapshot of 22 nodes, two of three",
                 full.len, plain.len);
    buf_fini(&plain);
    buf_fini(&full);
    fake_witness_fini(&w);
    for (size_t i = 0; i < FAKE_MEMBERS; i++) {
        fake_node_fini(&nodes[i]);
    }
    fake_cluster_fini(&c);
}

int main(void)
{
    tree();
    snapshot();
    return 0;
}
