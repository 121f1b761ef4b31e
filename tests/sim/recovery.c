/* The owner, who has the root key and goes on from a survivor when a majority is out of reach (decision
 * 0007). Two ways it comes about, in about a third of the worlds, once or twice:
 *
 *   lost     a majority of the voters is gone with its disks; one of the rest goes on
 *   severed  a majority lives on elsewhere, with clients, and decides; one of the others goes on;
 *            then the cable is back
 *
 * The plan, the statement and the first entry of the epoch are the product's (recover.h). */
#include "sim.h"

#include "authority/recover.h"
#include "base/text.h"
#include "pki/statement.h"

#include <stdlib.h>
#include <unistd.h>

#define AGAIN_US (500 * MS)

enum step { STEP_BREAK, STEP_GO_ON, STEP_HEAL, STEP_FORGE };

struct recovery {
    struct uuid cluster;
    struct buf root_der;
    uint8_t root_key[PKI_KEY_BYTES];
    bool begins, severs;
    enum step next;
    int times_left;
    uint32_t minority; /* mask */
};

/* A key that is nobody's, so that a seed makes the same certificates on every machine. */
static const char root_pem[] = "-----BEGIN PRIVATE KEY-----\n"
                               "MC4CAQAwBQYDK2VwBCIEIEJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJC\n"
                               "-----END PRIVATE KEY-----\n";
static const char thief_pem[] = "-----BEGIN PRIVATE KEY-----\n"
                                "MC4CAQAwBQYDK2VwBCIEIENDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0NDQ0ND\n"
                                "-----END PRIVATE KEY-----\n";

static struct pki_key *key_of(const char *pem)
{
    struct pki_key *key = NULL;
    struct errmsg em = ERRMSG_INIT;
    char path[] = "/tmp/sim-key-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, pem, strlen(pem)) == (ssize_t)strlen(pem) && close(fd) == 0);
    CHECK(pki_key_load(path, NULL, &key, &em) == 0);
    (void)unlink(path);
    return key;
}

/* Of the process, not of a world: reading them costs more than all else here. */
static const struct pki_key *root(void)
{
    static struct pki_key *key;
    key = key == NULL ? key_of(root_pem) : key;
    return key;
}

static const struct pki_key *thief(void)
{
    static struct pki_key *key;
    key = key == NULL ? key_of(thief_pem) : key;
    return key;
}

static uint64_t first_at_us(struct world *w)
{
    return between(w, 4 * SEC, w->calm_us / 2);
}

void recovery_new(struct world *w)
{
    struct recovery *r = xcalloc(1, sizeof *r);
    struct errmsg em = ERRMSG_INIT;
    w->recovery = r;
    prng_bytes(&w->rng, r->cluster.b, sizeof r->cluster.b);
    pki_key_public(root(), r->root_key);
    buf_init(&r->root_der, CERT_DER_MAX);
    struct pki_cert spec = {.kind = PKI_ROOT,
                            .cluster_id = r->cluster,
                            .not_before_ms = node_wall_ms(&w->nodes[0]) - PKI_BACKDATE_MS,
                            .not_after_ms = node_wall_ms(&w->nodes[0]) + PKI_ROOT_LIFE_MS};
    prng_bytes(&w->rng, spec.serial, sizeof spec.serial);
    spec.serial[0] = (uint8_t)((spec.serial[0] & 0x7f) | 1);
    memcpy(spec.public_key, r->root_key, sizeof spec.public_key);
    CHECK(pki_cert_issue(&spec, root(), blob_of(NULL, 0), &r->root_der, &em) == 0);
    r->begins = w->calm_us > 20 * SEC && (chance(w, 350) || (w->has & WORLD_RECOVERS) != 0);
    if (!r->begins) {
        return;
    }
    r->severs = chance(w, 600);
    if (r->severs) {
        /* An owner is shown what both sides decided only as far as the logs go back. */
        w->snapshot_trailing = 2048;
    }
    r->times_left = chance(w, 300) ? 2 : 1;
    (void)world_schedule(w, first_at_us(w), EV_RECOVERY, -1);
    (void)world_schedule(w, 1 * SEC, EV_FENCE, -1);
}

void recovery_free(struct world *w)
{
    buf_fini(&w->recovery->root_der);
    free(w->recovery);
}

bool recovery_begins(const struct world *w)
{
    return w->recovery->begins;
}

bool recovery_severs(const struct world *w)
{
    return w->recovery->severs;
}

const uint8_t *recovery_root_key(const struct world *w)
{
    return w->recovery->root_key;
}

struct blob recovery_root_der(const struct world *w)
{
    return buf_blob(&w->recovery->root_der);
}

const struct uuid *recovery_cluster(const struct world *w)
{
    return &w->recovery->cluster;
}

/* --- a majority out of reach --- */

static int bits(uint32_t mask)
{
    int n = 0;
    for (; mask != 0; mask &= mask - 1) {
        n++;
    }
    return n;
}

static uint32_t some_minority(struct world *w, uint32_t voters)
{
    int n = bits(voters);
    int want = (int)between(w, 1, (uint64_t)(n - 1) / 2);
    uint32_t mask = 0;
    while (bits(mask) < want) {
        mask |= voters & 1u << between(w, 0, SIM_NODES_MAX - 1);
    }
    return mask;
}

static void lose(struct world *w, int i)
{
    struct node *n = &w->nodes[i];
    node_crash(n);
    n->lost = true;
    n->in_play = false;
    members_lost(w, i);
}

/* false: not now. */
static bool break_apart(struct world *w)
{
    struct recovery *r = w->recovery;
    struct node *leader = members_leader(w);
    uint32_t voters = leader == NULL ? 0 : members_voters(leader);
    if (bits(voters) < 3) {
        return false;
    }
    r->minority = some_minority(w, voters);
    for (int i = 0; i < w->n; i++) {
        bool in = (r->minority >> i & 1) != 0;
        if (!r->severs && !in && (voters >> i & 1) != 0) {
            lose(w, i);
        }
        for (int k = 0; r->severs && k < w->n; k++) {
            w->net.severed[i][k] = in != ((r->minority >> k & 1) != 0);
        }
    }
    w->stats.faults++;
    return true;
}

/* --- going on --- */

static void last_of(const struct node *n, uint64_t *ret_term, uint64_t *ret_index)
{
    const struct disk *d = &n->disk;
    const struct rec *last = d->durable.count == 0 ? NULL : d->durable.items[d->durable.count - 1];
    *ret_term = last != NULL ? last->term : d->snap != NULL ? d->snap->term : 0;
    *ret_index = last != NULL ? last->index : d->snap != NULL ? d->snap->index : 0;
}

/* The one with the longest log, as `authority recover --dry-run` would show it. */
static struct node *survivor(struct world *w)
{
    struct node *best = NULL;
    uint64_t best_term = 0;
    uint64_t best_index = 0;
    for (int i = 0; i < w->n; i++) {
        struct node *n = &w->nodes[i];
        uint64_t term;
        uint64_t index;
        if ((w->recovery->minority >> i & 1) == 0) {
            continue;
        }
        last_of(n, &term, &index);
        if (best == NULL || term > best_term || (term == best_term && index > best_index)) {
            best = n;
            best_term = term;
            best_index = index;
        }
    }
    return best;
}

static void sign(struct recovery_plan *p, int64_t now_ms, struct buf *out)
{
    struct recovery_terms terms = {
        .kind = RECOVERY_RECOVER, .now_ms = now_ms, .reason = blob_str("simulated")};
    struct buf doc;
    struct buf body;
    struct mp_writer mw;
    struct recovery_statement s;
    buf_init(&doc, SIZE_MAX);
    buf_init(&body, RECOVERY_BODY_MAX);
    mp_writer_init(&mw, &doc);
    CHECK(recovery_plan_doc(p, &terms, &mw) == 0);
    char *hex = xmalloc(2 * RECOVERY_BODY_MAX + 1);
    mp_find_str(buf_blob(&doc), "statement", hex, 2 * RECOVERY_BODY_MAX + 1);
    uint8_t *bytes = xmalloc(strlen(hex) / 2 + 1);
    CHECK(hex_decode(hex, bytes, strlen(hex) / 2) == 0);
    buf_add(&body, bytes, strlen(hex) / 2);
    CHECK(recovery_statement_decode(buf_blob(&body), &s) == 0);
    CHECK(statement_sign(root(), &s, out) == 0);
    free(bytes);
    free(hex);
    buf_fini(&doc);
    buf_fini(&body);
}

static void begin_history(struct node *n, struct blob statement, uint64_t end,
                          const struct rec_list *old)
{
    struct world *w = n->w;
    const struct oracle *from = n->oracle;
    n->oracle = w->newest + 1;
    w->newest = n->oracle;
    buf_add(&n->oracle->statement, statement.data, statement.len);
    w->stats.recoveries++;
    members_survivor(w, n->i);
    if (chance(w, 500)) { /* the others come in over a bad line */
        w->net.loss = (uint32_t)between(w, 100, 400);
        w->faults.noisy_until_us = w->now_us + between(w, 2 * SEC, 10 * SEC);
    }
    node_start(n);
    if (!w->violated) {
        check_branched(n, from, old, end);
    }
}

static void go_on(struct world *w)
{
    struct node *n = survivor(w);
    struct errmsg em = ERRMSG_INIT;
    struct raft_store_loaded loaded = {0};
    struct recovery_plan *plan = NULL;
    struct rec_list old = {0};
    struct buf statement;
    uint64_t term;
    uint64_t end;
    buf_init(&statement, SIGNED_RECOVERY_MAX);
    buf_init(&loaded.snapshot_conf, SIZE_MAX);
    buf_init(&loaded.snapshot_image, SIZE_MAX);
    node_crash(n);
    disk_repair(&n->disk);
    last_of(n, &term, &end);
    for (size_t i = 0; i < n->disk.durable.count; i++) {
        rec_list_push(&old, n->disk.durable.items[i]);
    }
    int rc = n->disk.store.ops->load(&n->disk.store, &loaded, &em);
    rc = rc == 0 ? recovery_plan_of(&loaded, &n->id, &plan, &em) : rc;
    if (rc == 0) {
        sign(plan, node_wall_ms(n), &statement);
        rc = recovery_plan_write(plan, &(struct epoch_start){.statement = buf_blob(&statement)},
                                 disk_restart, &n->disk, &em);
    }
    if (rc != 0) {
        violate(w, "the owner cannot go on from node %d: %s", n->i, em.text);
    } else {
        begin_history(n, buf_blob(&statement), end, &old);
    }
    recovery_plan_free(plan);
    rec_list_clear(&old);
    free(old.items);
    buf_fini(&statement);
}

void recovery_consent(struct world *w, struct node *leader, struct node *n, uint64_t rows)
{
    uint8_t signature[PKI_SIG_BYTES];
    struct merge_consent c = {.cluster_id = w->recovery->cluster,
                              .node_id = n->id,
                              .epoch = leader->oracle->epoch,
                              .rows = rows};
    consent_sign(root(), &c, signature);
    struct partition_merge body = {.node_id = n->id,
                                   .epoch = c.epoch,
                                   .rows = rows,
                                   .signature = blob_of(signature, sizeof signature)};
    struct cmd cmd = {.kind = CMD_PARTITION_MERGE,
                      .time_ms = node_wall_ms(leader),
                      .actor_kind = blob_str(ACTOR_OWNER),
                      .actor_id = blob_str("root")};
    prng_bytes(&w->rng, cmd.request_id.b, sizeof cmd.request_id.b);
    world_propose(leader, &cmd, &body);
}

/* --- statements that the owner did not make --- */

static void forge(struct world *w)
{
    struct node *n = &w->nodes[between(w, 0, (uint64_t)w->n - 1)];
    struct buf voters;
    struct buf statement;
    struct mp_writer mw;
    uint8_t digest[32];
    if (!n->up || n->fence.is) {
        return;
    }
    bool foreign = chance(w, 500);
    prng_bytes(&w->rng, digest, sizeof digest);
    buf_init(&voters, 64);
    buf_init(&statement, SIGNED_RECOVERY_MAX);
    mp_writer_init(&mw, &voters);
    mp_put_uuid(&mw, &n->id);
    struct recovery_statement s = {.version = RECOVERY_STATEMENT_VERSION,
                                   .cluster_id = w->recovery->cluster,
                                   .epoch = n->oracle->epoch + between(w, 1, 3),
                                   .kind = RECOVERY_RECOVER,
                                   .base_index = 1,
                                   .base_term = 1,
                                   .base_digest = blob_of(digest, sizeof digest),
                                   .voters = {.raw = buf_blob(&voters), .count = 1},
                                   .time_ms = node_wall_ms(n)};
    s.cluster_id.b[0] ^= foreign; /* signed with this root all the same */
    CHECK(statement_sign(foreign ? root() : thief(), &s, &statement) == 0);
    w->stats.forged++;
    fence_shown(n, buf_blob(&statement));
    if (n->fence.is) {
        violate(w, "S21: node %d believes a recovery %s", n->i,
                foreign ? "of another cluster" : "that the owner did not sign");
    }
    buf_fini(&voters);
    buf_fini(&statement);
}

/* --- one after the other --- */

void recovery_event(struct world *w)
{
    struct recovery *r = w->recovery;
    uint64_t next_us = AGAIN_US;
    if (w->now_us >= w->calm_us * 2 / 3 && r->next == STEP_BREAK) {
        r->next = STEP_FORGE; /* too late to begin */
    }
    switch (r->next) {
        case STEP_BREAK:
            if (break_apart(w)) {
                r->next = STEP_GO_ON;
                next_us = between(w, 500 * MS, 4 * SEC);
            }
            break;
        case STEP_GO_ON:
            go_on(w);
            r->next = STEP_HEAL;
            next_us = r->severs ? between(w, 500 * MS, 6 * SEC) : 1;
            break;
        case STEP_HEAL:
            memset(w->net.severed, 0, sizeof w->net.severed);
            r->next = STEP_FORGE;
            break;
        case STEP_FORGE:
            forge(w);
            next_us = 3 * SEC;
            /* Again, when the group has its voters back. */
            if (r->times_left > 1 && w->now_us < w->calm_us * 2 / 3 && chance(w, 150)) {
                r->times_left--;
                r->next = STEP_BREAK;
            }
            break;
    }
    if (!w->violated && w->now_us < w->calm_us + CALM_US / 2) {
        (void)world_schedule(w, next_us, EV_RECOVERY, -1);
    }
}
