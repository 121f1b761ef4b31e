/* What people ask for. Each attempt at a request carries the same request id and hash, but makes
 * another thing: were a retry applied again, there would be two (S4). */
#include "sim.h"

#include "pki/pki.h"

#define TABLE_MAX 4096

struct token {
    struct uuid id;
    uint8_t hash[32];
};
struct join {
    struct uuid id;
    uint8_t key[32];
    struct uuid decided_by;
    const struct oracle *decided_in;
};
struct member {
    struct uuid id;
    uint8_t key[32];
    bool expelled; /* somebody was told so */
};
/* Requests that were tried more than once. */
struct tried {
    enum ask ask;
    struct made made[16];
    size_t count;
};
struct things {
    struct token tokens[TABLE_MAX];
    struct join joins[TABLE_MAX];
    struct member members[TABLE_MAX];
    struct tried tried[TABLE_MAX];
    size_t tokens_count, joins_count, members_count, tried_count;
    uint64_t names;
};

struct things *things_new(void)
{
    return xcalloc(1, sizeof(struct things));
}

void things_free(struct things *t)
{
    free(t);
}

static const char *const roles[] = {"relay-node", "core-mesh", "audit-sink", "config-storage"};
static const uint8_t issuer_der[40] = {0x30, 0x26, 'c', 'a'};

/* Mostly the newest, so that several clients want the same. */
static size_t pick(struct world *w, size_t count)
{
    return chance(w, 650) ? count - 1 : (size_t)between(w, 0, count - 1);
}

static enum ask choose(struct world *w)
{
    const struct things *t = w->things;
    uint64_t r = between(w, 0, 99);
    if (t->members_count > 0 && r < 22) {
        return r < 9 ? ASK_ASSIGN : r < 14 ? ASK_UNASSIGN : r < 19 ? ASK_RENEW : ASK_EXPEL;
    }
    if (t->joins_count > 0 && r < 48) {
        return r < 41 ? ASK_APPROVE : ASK_REJECT;
    }
    if (t->tokens_count > 0 && r < 82) {
        return r < 77 ? ASK_JOIN : ASK_REVOKE;
    }
    return ASK_TOKEN;
}

void request_new(struct world *w, struct request *q)
{
    struct things *t = w->things;
    *q = (struct request){.ask = choose(w)};
    prng_bytes(&w->rng, q->id.b, sizeof q->id.b);
    prng_bytes(&w->rng, q->hash, sizeof q->hash);
    q->max_uses = (uint32_t)between(w, 1, 3);
    q->ttl_ms = chance(w, 200) ? (uint32_t)between(w, 200, 20000) : 3600000;
    q->role = (uint8_t)between(w, 0, ARRAY_SIZE(roles) - 1);
    prng_bytes(&w->rng, q->key, sizeof q->key);
    /* Sometimes a host that asked before, or one that was expelled and tries again. */
    if (t->joins_count > 0 && chance(w, 50)) {
        memcpy(q->key, t->joins[pick(w, t->joins_count)].key, sizeof q->key);
    }
    const struct member *again = t->members_count == 0
                                     ? NULL
                                     : &t->members[between(w, 0, t->members_count - 1)];
    if (again != NULL && again->expelled) {
        memcpy(q->key, again->key, sizeof q->key);
    }
    /* Sometimes a name that is taken. */
    uint64_t name = chance(w, 80) && t->names > 0 ? between(w, 1, t->names) : ++t->names;
    (void)snprintf(q->name, sizeof q->name, "n%llu", (unsigned long long)name);
    if (t->tokens_count > 0) {
        q->token = pick(w, t->tokens_count);
    }
    if (t->joins_count > 0) {
        q->join = pick(w, t->joins_count);
    }
    if (t->members_count > 0) {
        q->member = pick(w, t->members_count);
        q->remove = t->members[q->member].expelled;
    }
}

static struct made *make(struct world *w, struct request *q)
{
    struct made
        *m = &q->made[q->made_count < ARRAY_SIZE(q->made) - 1 ? q->made_count++ : q->made_count];
    prng_bytes(&w->rng, m->id.b, sizeof m->id.b);
    prng_bytes(&w->rng, m->hash, sizeof m->hash);
    return m;
}

static void put_cert(struct world *w, const uint8_t key[32], int64_t now, struct buf *out)
{
    uint8_t fingerprint[32];
    uint8_t serial[16];
    uint8_t der[64];
    prng_bytes(&w->rng, serial, sizeof serial);
    serial[0] &= 0x7f;
    serial[1] |= 1;
    prng_bytes(&w->rng, der, sizeof der);
    pki_fingerprint(key, fingerprint);
    struct cmd_cert c = {
        .der = blob_of(der, sizeof der),
        .serial = blob_of(serial, sizeof serial),
        .not_before_ms = now - PKI_BACKDATE_MS,
        .not_after_ms = now + PKI_LEAF_LIFE_MS,
        .public_key = blob_of(key, 32),
        .fingerprint = blob_of(fingerprint, sizeof fingerprint),
        .issuer_der = blob_of(issuer_der, sizeof issuer_der),
    };
    msg_encode(&cmd_cert_desc, &c, out);
}

static struct mp_list words(struct buf *raw, const char *a, const char *b)
{
    struct mp_writer w;
    mp_writer_init(&w, raw);
    mp_put_str(&w, a);
    mp_put_str(&w, b);
    return (struct mp_list){.raw = buf_blob(raw), .count = 2};
}

static void encode(struct cmd *c, const void *body, struct buf *out)
{
    cmd_encode(c, body, out);
    CHECK(out->err == 0);
}

void request_encode(struct node *n, struct request *q, struct buf *out)
{
    struct world *w = n->w;
    struct things *t = w->things;
    struct fsm_position at;
    uint8_t fingerprint[32];
    struct buf cert;
    struct buf raw;
    struct buf no_roles;
    char actor[UUID_TEXT_MAX] = "uid:0";
    bool by_node = q->ask == ASK_JOIN || q->ask == ASK_RENEW;
    if (q->ask == ASK_RENEW) {
        uuid_format(&t->members[q->member].id, actor);
    }
    fsm_position(n->fsm, &at);
    int64_t now = node_wall_ms(n) > at.time_ms ? node_wall_ms(n) : at.time_ms;
    buf_init(&cert, SIZE_MAX);
    buf_init(&raw, SIZE_MAX);
    buf_init(&no_roles, SIZE_MAX);
    struct cmd c = {
        .request_id = q->id,
        .time_ms = now,
        .actor_kind = blob_str(by_node ? ACTOR_NODE : ACTOR_ADMIN),
        .actor_id = blob_str(actor),
        .request_hash = blob_of(q->hash, sizeof q->hash),
    };
    switch (q->ask) {
        case ASK_TOKEN: {
            const struct made *m = make(w, q);
            struct token_create b = {.token_id = m->id,
                                     .token_hash = blob_of(m->hash, 32),
                                     .expires_at_ms = now + q->ttl_ms,
                                     .max_uses = q->max_uses};
            c.kind = CMD_TOKEN_CREATE;
            encode(&c, &b, out);
            break;
        }
        case ASK_REVOKE: {
            struct token_revoke b = {.token_id = t->tokens[q->token].id};
            c.kind = CMD_TOKEN_REVOKE;
            encode(&c, &b, out);
            break;
        }
        case ASK_JOIN: {
            const struct made *m = make(w, q);
            pki_fingerprint(q->key, fingerprint);
            struct join_submit b = {
                .join_id = m->id,
                .token_hash = blob_of(t->tokens[q->token].hash, 32),
                .node_name = blob_str(q->name),
                .public_key = blob_of(q->key, 32),
                .fingerprint = blob_of(fingerprint, 32),
                .capabilities = words(&raw, "can_route_mesh", "can_run_file_cache"),
                .expires_at_ms = now + 600000,
            };
            c.kind = CMD_JOIN_SUBMIT;
            encode(&c, &b, out);
            break;
        }
        case ASK_APPROVE: {
            const struct made *m = make(w, q);
            /* Sometimes for another key than the one that was shown: S7. */
            put_cert(w, chance(w, 50) ? q->key : t->joins[q->join].key, now, &cert);
            struct join_approve b = {
                .join_id = t->joins[q->join].id, .node_id = m->id, .cert = buf_blob(&cert)};
            c.kind = CMD_JOIN_APPROVE;
            encode(&c, &b, out);
            break;
        }
        case ASK_REJECT: {
            struct join_reject b = {.join_id = t->joins[q->join].id, .reason = blob_str("no")};
            c.kind = CMD_JOIN_REJECT;
            encode(&c, &b, out);
            break;
        }
        case ASK_ASSIGN: {
            const struct made *m = make(w, q);
            struct role_assign b = {.assignment_id = m->id,
                                    .node_id = t->members[q->member].id,
                                    .role = blob_str(roles[q->role])};
            c.kind = CMD_ROLE_ASSIGN;
            encode(&c, &b, out);
            break;
        }
        case ASK_UNASSIGN: {
            struct role_unassign b = {.node_id = t->members[q->member].id,
                                      .role = blob_str(roles[q->role])};
            c.kind = CMD_ROLE_UNASSIGN;
            encode(&c, &b, out);
            break;
        }
        case ASK_RENEW: {
            const struct member *m = &t->members[q->member];
            put_cert(w, m->key, now, &cert);
            struct cert_renew b = {.node_id = m->id, .cert = buf_blob(&cert)};
            c.kind = CMD_CERT_RENEW;
            encode(&c, &b, out);
            break;
        }
        case ASK_EXPEL: {
            const struct member *m = &t->members[q->member];
            struct node_revoke b = {.node_id = m->id, .reason = blob_str("stolen")};
            struct node_remove gone = {.node_id = m->id};
            c.kind = q->remove ? CMD_NODE_REMOVE : CMD_NODE_REVOKE;
            encode(&c, q->remove ? (const void *)&gone : &b, out);
            break;
        }
    }
    buf_fini(&no_roles);
    buf_fini(&raw);
    buf_fini(&cert);
}

/* --- answers --- */

static const struct made *made_by(const struct request *q, struct blob doc)
{
    char text[UUID_TEXT_MAX];
    struct uuid id;
    mp_find_str(doc, "id", text, sizeof text);
    if (uuid_parse(text, &id) != 0) {
        return NULL;
    }
    for (size_t i = 0; i < q->made_count; i++) {
        if (uuid_equal(&q->made[i].id, &id)) {
            return &q->made[i];
        }
    }
    return NULL;
}

/* A host whose request waits already is told of that one (ENR-04). */
static bool asked_before(struct node *n, const struct request *q, struct blob doc)
{
    char id[UUID_TEXT_MAX];
    mp_find_str(doc, "id", id, sizeof id);
    struct db_stmt *st = db_prepare(
        fsm_db(n->fsm), "SELECT 1 FROM node_join_requests WHERE id = ? AND public_key = ?");
    db_bind_text(st, id);
    db_bind_blob(st, blob_of(q->key, sizeof q->key));
    bool found = db_step(st) == 1;
    db_done(st);
    return found;
}

/* S6 as soon as a use is counted. */
static void check_token(struct world *w, struct node *n, const struct token *t)
{
    char id[UUID_TEXT_MAX];
    uuid_format(&t->id, id);
    struct db_stmt *st = db_prepare(
        fsm_db(n->fsm), "SELECT used_count, max_uses, (SELECT count(*) FROM node_join_requests"
                        " WHERE join_token_id = t.id) AS requests"
                        " FROM node_join_tokens t WHERE id = ?");
    db_bind_text(st, id);
    if (db_step(st) == 1 && (db_col_int(st, "requests") > db_col_int(st, "max_uses") ||
                             db_col_int(st, "requests") != db_col_int(st, "used_count"))) {
        violate(w, "S6: a token of %lld uses has %lld requests",
                (long long)db_col_int(st, "max_uses"), (long long)db_col_int(st, "requests"));
    }
    db_done(st);
}

static void decided(struct world *w, const struct node *n, const struct request *q)
{
    struct join *j = &w->things->joins[q->join];
    if (j->decided_in == n->oracle && !uuid_equal(&j->decided_by, &q->id)) {
        violate(w, "S5: a join request was decided twice");
    }
    j->decided_by = q->id;
    j->decided_in = n->oracle;
}

static void keep_tried(struct things *t, const struct request *q)
{
    if (q->made_count > 1 && t->tried_count < TABLE_MAX) {
        struct tried *k = &t->tried[t->tried_count++];
        *k = (struct tried){.ask = q->ask, .count = q->made_count};
        memcpy(k->made, q->made, sizeof k->made);
    }
}

void request_answered(struct world *w, struct node *n, struct request *q,
                      const struct fsm_result *r)
{
    struct things *t = w->things;
    keep_tried(t, q);
    if (q->ask == ASK_JOIN) {
        check_token(w, n, &t->tokens[q->token]);
    }
    if (r->rc != 0) {
        return;
    }
    const struct made *m = NULL;
    if (q->ask == ASK_TOKEN || q->ask == ASK_JOIN || q->ask == ASK_ASSIGN) {
        m = made_by(q, r->doc);
    } else if (q->ask == ASK_APPROVE) {
        m = made_by(q, mp_find(r->doc, "node"));
    }
    if (q->ask == ASK_JOIN && m == NULL && asked_before(n, q, r->doc)) {
        return;
    }
    bool makes = q->made_count > 0;
    if (makes && m == NULL) {
        violate(w, "S4: the answer names something that no attempt would have made");
        return;
    }
    switch (q->ask) {
        case ASK_TOKEN:
            if (t->tokens_count < TABLE_MAX) {
                struct token *k = &t->tokens[t->tokens_count++];
                k->id = m->id;
                memcpy(k->hash, m->hash, sizeof k->hash);
            }
            break;
        case ASK_JOIN:
            if (t->joins_count < TABLE_MAX) {
                struct join *j = &t->joins[t->joins_count++];
                *j = (struct join){.id = m->id};
                memcpy(j->key, q->key, sizeof j->key);
            }
            break;
        case ASK_APPROVE:
            decided(w, n, q);
            if (t->members_count < TABLE_MAX) {
                struct member *k = &t->members[t->members_count++];
                k->id = m->id;
                memcpy(k->key, t->joins[q->join].key, sizeof k->key);
            }
            break;
        case ASK_REJECT:
            decided(w, n, q);
            break;
        case ASK_REVOKE:
        case ASK_ASSIGN:
        case ASK_UNASSIGN:
        case ASK_RENEW:
            break;
        case ASK_EXPEL:
            t->members[q->member].expelled = true;
            break;
    }
}

static int exists(struct node *n, enum ask ask, const struct uuid *id)
{
    const char *sql = ask == ASK_TOKEN     ? "SELECT 1 FROM node_join_tokens WHERE id = ?"
                      : ask == ASK_JOIN    ? "SELECT 1 FROM node_join_requests WHERE id = ?"
                      : ask == ASK_APPROVE ? "SELECT 1 FROM nodes WHERE id = ?"
                                           : "SELECT 1 FROM node_role_assignments WHERE id = ?";
    char text[UUID_TEXT_MAX];
    uuid_format(id, text);
    struct db_stmt *st = db_prepare(fsm_db(n->fsm), sql);
    db_bind_text(st, text);
    int found = db_step(st) == 1;
    db_done(st);
    return found;
}

void requests_check(struct world *w, struct node *n)
{
    const struct things *t = w->things;
    for (size_t i = 0; i < t->tried_count; i++) {
        int found = 0;
        for (size_t k = 0; k < t->tried[i].count; k++) {
            found += exists(n, t->tried[i].ask, &t->tried[i].made[k].id);
        }
        if (found > 1) {
            violate(w, "S4: one request made %d things", found);
            return;
        }
    }
}

/* --- the first entry of every log --- */

struct first {
    struct world *w;
    struct mp_writer list;
    uint32_t count;
    int64_t now_ms;
};

static void add(struct first *f, enum cmd_kind kind, const char *actor, const void *body)
{
    struct buf one;
    buf_init(&one, SIZE_MAX);
    struct cmd c = {
        .kind = kind,
        .time_ms = f->now_ms,
        .actor_kind = blob_str(actor),
        .actor_id = blob_str(strcmp(actor, ACTOR_OWNER) == 0 ? "owner" : "uid:0"),
    };
    prng_bytes(&f->w->rng, c.request_id.b, sizeof c.request_id.b);
    encode(&c, body, &one);
    mp_put_bin(&f->list, buf_blob(&one));
    f->count++;
    buf_fini(&one);
}

/* A host of the owner's: a node, and an authority with a CA of its own. */
static void add_authority(struct first *f, const struct node *n, const uint8_t token_hash[32])
{
    uint8_t key[32];
    uint8_t fingerprint[32];
    uint8_t issuer_fingerprint[32];
    struct uuid join;
    struct buf cert;
    struct buf raw;
    char name[24];
    prng_bytes(&f->w->rng, key, sizeof key);
    prng_bytes(&f->w->rng, issuer_fingerprint, sizeof issuer_fingerprint);
    prng_bytes(&f->w->rng, join.b, sizeof join.b);
    pki_fingerprint(key, fingerprint);
    (void)snprintf(name, sizeof name, "a%d", n->i);
    buf_init(&cert, SIZE_MAX);
    buf_init(&raw, SIZE_MAX);
    add(f, CMD_JOIN_SUBMIT, ACTOR_ADMIN,
        &(struct join_submit){.join_id = join,
                              .token_hash = blob_of(token_hash, 32),
                              .node_name = blob_str(name),
                              .public_key = blob_of(key, 32),
                              .fingerprint = blob_of(fingerprint, 32),
                              .capabilities = words(&raw, "can_route_mesh", "can_run_file_cache"),
                              .expires_at_ms = f->now_ms + 600000});
    put_cert(f->w, key, f->now_ms, &cert);
    add(f, CMD_JOIN_APPROVE, ACTOR_ADMIN,
        &(struct join_approve){.join_id = join, .node_id = n->id, .cert = buf_blob(&cert)});
    buf_clear(&cert);
    put_cert(f->w, key, f->now_ms, &cert);
    add(f, CMD_AUTHORITY_ADD, ACTOR_OWNER,
        &(struct authority_add){.node_id = n->id,
                                .address = blob_str("127.0.0.1:1"),
                                .issuer_der = blob_of(issuer_der, sizeof issuer_der),
                                .issuer_fingerprint = blob_of(issuer_fingerprint, 32),
                                .cert = buf_blob(&cert)});
    buf_fini(&raw);
    buf_fini(&cert);
}

void cluster_init_encode(struct world *w, struct buf *out)
{
    uint8_t key[32];
    uint8_t token_hash[32];
    uint8_t root_fingerprint[32];
    uint8_t issuer_fingerprint[32];
    struct uuid token;
    struct buf cert;
    struct buf raw;
    struct buf list;
    struct node *n = &w->nodes[0];
    struct first f = {.w = w, .now_ms = node_wall_ms(n)};
    prng_bytes(&w->rng, key, sizeof key);
    prng_bytes(&w->rng, token.b, sizeof token.b);
    prng_bytes(&w->rng, token_hash, sizeof token_hash);
    prng_bytes(&w->rng, issuer_fingerprint, sizeof issuer_fingerprint);
    pki_fingerprint(recovery_root_key(w), root_fingerprint);
    buf_init(&cert, SIZE_MAX);
    buf_init(&raw, SIZE_MAX);
    buf_init(&list, SIZE_MAX);
    mp_writer_init(&f.list, &list);
    put_cert(w, key, f.now_ms, &cert);
    add(&f, CMD_CLUSTER_INIT, ACTOR_OWNER,
        &(struct cluster_init){
            .cluster_id = *recovery_cluster(w),
            .name = blob_str("sim"),
            .root_der = recovery_root_der(w),
            .root_fingerprint = blob_of(root_fingerprint, sizeof root_fingerprint),
            .node_id = n->id,
            .node_name = blob_str("a0"),
            .address = blob_str("127.0.0.1:1"),
            .cert = buf_blob(&cert),
            .capabilities = words(&raw, "can_route_mesh", "can_run_file_cache"),
            .issuer_fingerprint = blob_of(issuer_fingerprint, sizeof issuer_fingerprint),
        });
    add(&f, CMD_TOKEN_CREATE, ACTOR_ADMIN,
        &(struct token_create){.token_id = token,
                               .token_hash = blob_of(token_hash, 32),
                               .expires_at_ms = f.now_ms + 600000,
                               .max_uses = SIM_NODES_MAX});
    for (int i = 1; i < w->n; i++) {
        add_authority(&f, &w->nodes[i], token_hash);
    }
    struct cmd_entry e = {
        .version = CMD_VERSION, .term = 1, .commands = {.raw = buf_blob(&list), .count = f.count}};
    msg_encode(&cmd_entry_desc, &e, out);
    raft_msg_pad(out);
    buf_fini(&list);
    buf_fini(&raw);
    buf_fini(&cert);
}
