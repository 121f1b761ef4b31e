/* Attempts to enrol: one of any shape, many at the same instant, and guessing. */
#include "attacker.h"

#include "base/clock.h"
#include "base/rng.h"
#include "base/text.h"
#include "fabric/fabric_impl.h"
#include "lib/fabric_forge.h"

#define LIMIT_MS 60000
#define SOURCES_MAX 250

/* What came of attempts, by the slug of their error; "pending" for one that was taken. */
struct tally {
    struct {
        char what[32];
        unsigned long n;
    } row[32];
    size_t count;
};

static void tally(struct tally *t, const char *what)
{
    size_t i = 0;
    while (i < t->count && strcmp(t->row[i].what, what) != 0) {
        i++;
    }
    CHECK(i < ARRAY_SIZE(t->row));
    if (i == t->count) {
        (void)snprintf(t->row[t->count++].what, sizeof t->row[i].what, "%s", what);
    }
    t->row[i].n++;
}

struct raid {
    const struct args *args;
    uv_loop_t loop;
    uv_timer_t limit;
    struct pki_trust *trust;
    struct fabric *fabric[SOURCES_MAX];
    size_t fabrics;
    struct join_token token;
    struct addr to;
    struct buf csr; /* guess: one proof serves every guess */
    struct attempt *attempts;
    size_t count, dialled, open, over;
    unsigned long left; /* guesses not begun yet */
    struct tally tally;
    bool closing;
};

struct attempt {
    struct raid *raid;
    struct fabric *fabric;
    struct fabric_stream *s;
    struct buf request;
    bool connected, done;
    int rc;
    uint64_t state;
    struct uuid join_id;
    char detail[REASON_MAX_BYTES + 1];
    uint32_t retry_ms;
};

/* --- one request --- */

static void build(const struct raid *r, struct attempt *t, size_t n, struct blob csr)
{
    const struct args *a = r->args;
    const char *id = arg(a, "id");
    const char *role = arg(a, "role");
    const char *hex = arg(a, "name_hex");
    char name[256] = "";
    uint8_t random[32];
    struct buf facts;
    struct buf roles;
    struct mp_writer w;
    struct enroll_request rq = {.token_secret = blob_of(r->token.secret, 32),
                                .csr = csr,
                                .request_id = uuid_new(),
                                .address = blob_str("127.0.0.1:9")};
    if (arg(a, "name") != NULL) {
        (void)snprintf(name, sizeof name, "%s", arg(a, "name"));
    } else {
        (void)snprintf(name, sizeof name, "x%zu-%08x", n, (unsigned)rng_u64());
    }
    rq.node_name = blob_str(name);
    if (hex != NULL) {
        CHECK(strlen(hex) / 2 < sizeof name &&
              hex_decode(hex, (uint8_t *)name, strlen(hex) / 2) == 0);
        rq.node_name = blob_of(name, strlen(hex) / 2);
    }
    if (id != NULL && uuid_parse(id, &rq.request_id) != 0) {
        give_up("id=%s", id);
    }
    rng_bytes(random, sizeof random);
    if (arg(a, "secret") != NULL) {
        rq.token_secret = blob_of(random, sizeof random);
    }
    if (arg(a, "address") != NULL) {
        rq.address = blob_str(arg(a, "address"));
    }
    buf_init(&facts, 1u << 20);
    long facts_bytes = arg_number(a, "facts_bytes", 0);
    if (facts_bytes > 0) {
        memset(buf_grow(&facts, (size_t)facts_bytes), 'x', (size_t)facts_bytes);
        rq.facts = buf_blob(&facts);
    }
    buf_init(&roles, 4096);
    mp_writer_init(&w, &roles);
    if (role != NULL) {
        mp_put_strn(&w, role, strlen(role));
        rq.requested_roles = (struct mp_list){.raw = buf_blob(&roles), .count = 1};
    }
    buf_init(&t->request, 4u << 20);
    const char *frame = arg(a, "frame_hex");
    if (frame != NULL) {
        size_t len = strlen(frame) / 2;
        CHECK(hex_decode(frame, buf_grow(&t->request, len), len) == 0);
    } else {
        msg_encode(&enroll_request_desc, &rq, &t->request);
    }
    buf_fini(&facts);
    buf_fini(&roles);
}

static void begin_end(struct raid *r);
static void race_dial(struct raid *r);

static void finished(struct attempt *t, int rc)
{
    struct raid *r = t->raid;
    if (t->done) {
        return;
    }
    t->done = true;
    t->rc = rc;
    r->over++;
    tally(&r->tally, rc == 0 ? "pending" : err_slug(rc));
    if (t->s != NULL) {
        fabric_stream_close(t->s);
        t->s = NULL;
    }
    if (!t->connected) {
        race_dial(r);
    }
    if (r->over == r->count && r->left == 0) {
        begin_end(r);
    }
}

static void on_status(struct attempt *t, struct blob frame)
{
    struct enroll_status st;
    if (msg_decode(&enroll_status_desc, MSG_LENIENT, frame, &st) != 0) {
        finished(t, -ERR_MALFORMED);
        return;
    }
    t->state = st.state;
    t->join_id = st.join_id;
    t->retry_ms = (uint32_t)st.retry_after_ms;
    (void)snprintf(t->detail, sizeof t->detail, "%.*s", (int)st.detail.len,
                   (const char *)st.detail.data);
    finished(t, st.state == ENROLL_REFUSED ? -(int)st.error : 0);
}

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    (void)s;
    on_status(data, frame);
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    struct attempt *t = data;
    t->s = NULL;
    t->retry_ms = fabric_stream_retry_ms(s);
    finished(t, rc == 0 ? -ERR_CLOSED : rc);
}

/* --- the raid's loop --- */

static void begin_end(struct raid *r)
{
    if (r->closing) {
        return;
    }
    r->closing = true;
    uv_close((uv_handle_t *)&r->limit, NULL);
    for (size_t i = 0; i < r->fabrics; i++) {
        fabric_close(r->fabric[i], NULL, NULL);
    }
}

static void on_limit(uv_timer_t *timer)
{
    struct raid *r = timer->data;
    for (size_t i = 0; i < r->count && !r->closing; i++) {
        r->left = 0;
        if (r->attempts[i].raid != NULL) {
            finished(&r->attempts[i], -ERR_TIMEOUT);
        }
    }
}

static void open_fabrics(struct raid *r, size_t count)
{
    struct errmsg em = ERRMSG_INIT;
    CHECK(count >= 1 && count <= SOURCES_MAX);
    for (size_t i = 0; i < count; i++) {
        char listen[32];
        struct fabric_config fc = {
            .loop = &r->loop, .cluster_id = r->token.cluster_id, .trust = r->trust};
        const char *from = arg(r->args, "from");
        (void)snprintf(listen, sizeof listen, "127.0.0.%zu:0", i + 1);
        if (from != NULL) {
            (void)snprintf(listen, sizeof listen, "%.24s:0", from);
        }
        rng_bytes(fc.reset_secret, sizeof fc.reset_secret);
        if (addr_parse(listen, &fc.listen, &em) != 0 || fabric_open(&fc, &r->fabric[i], &em) != 0) {
            give_up("%s: %s", listen, em.text);
        }
        r->fabrics++;
    }
}

static void raid_init(struct raid *r, const struct args *a, size_t sources, uint64_t limit_ms)
{
    struct errmsg em = ERRMSG_INIT;
    *r = (struct raid){.args = a};
    CHECK(uv_loop_init(&r->loop) == 0);
    load_token(arg_must(a, "token"), &r->token);
    const char *to = arg(a, "to");
    char first[ADDRESS_MAX_BYTES + 1];
    (void)snprintf(first, sizeof first, "%.*s", (int)strcspn(r->token.addresses, ","),
                   r->token.addresses);
    if (addr_parse(to != NULL ? to : first, &r->to, &em) != 0) {
        give_up("to: %s", em.text);
    }
    r->trust = pki_trust_new(&r->token.cluster_id);
    pki_trust_set_pin(r->trust, r->token.root_fingerprint);
    open_fabrics(r, sources);
    r->limit.data = r;
    CHECK(uv_timer_init(&r->loop, &r->limit) == 0);
    CHECK(uv_timer_start(&r->limit, on_limit, limit_ms, 0) == 0);
}

static void raid_run(struct raid *r)
{
    (void)uv_run(&r->loop, UV_RUN_DEFAULT);
    pki_trust_free(r->trust);
}

static int dial(struct attempt *t, const struct fabric_stream_vtab *vtab)
{
    const struct fabric_stream_to to = {
        .enroll_addr = t->raid->to, .service = "enroll", .frame_max_bytes = 4u << 20};
    return fabric_stream_open(t->fabric, &to, vtab, t, &t->s);
}

/* --- enroll --- */

static void say_attempt(const struct attempt *t)
{
    char id[UUID_TEXT_MAX];
    say_begin();
    say_text("error", err_slug(t->rc));
    say_text("detail", t->detail);
    say_number("retry_ms", t->retry_ms);
    uuid_format(&t->join_id, id);
    say_text("join_id", uuid_is_nil(&t->join_id) ? "" : id);
    say_end();
}

int attack_enroll(const struct args *a)
{
    static const struct fabric_stream_vtab vtab = {.frame = on_frame, .closed = on_closed};
    struct raid r;
    struct attempt t = {.raid = &r};
    struct buf csr;
    const char *kind = arg(a, "csr");
    const char *alpn = arg(a, "alpn");
    raid_init(&r, a, 1, LIMIT_MS);
    buf_init(&csr, 1u << 20);
    if (forge_csr(kind == NULL ? "good" : kind, load_key(arg(a, "key")), &csr) != 0) {
        give_up("csr=%s: no such kind", kind);
    }
    build(&r, &t, 0, buf_blob(&csr));
    r.attempts = &t;
    r.count = 1;
    t.fabric = r.fabric[0];
    int rc = dial(&t, &vtab);
    if (rc == 0 && alpn != NULL &&
        !fabric_forge_alpn(t.s->ss, strcmp(alpn, "none") == 0 ? NULL : alpn)) {
        give_up("alpn=%s", alpn);
    }
    rc = rc != 0 ? rc : fabric_stream_send(t.s, buf_blob(&t.request));
    if (rc != 0) {
        give_up("cannot send: %s", err_slug(rc));
    }
    raid_run(&r);
    say_attempt(&t);
    return 0;
}

/* --- race: everybody is connected, then all ask in one turn of the loop (spread: each as soon as it is
 * connected) --- */

#define HANDSHAKES_AT_ONCE 48 /* what comes in one blow is dropped by any endpoint */

static const struct fabric_stream_vtab race_vtab;

static void race_dial(struct raid *r)
{
    if (r->dialled > 0 && r->dialled < r->count) {
        CHECK(dial(&r->attempts[r->dialled++], &race_vtab) == 0);
    }
}

static void race_opened(struct fabric_stream *s, void *data)
{
    struct attempt *t = data;
    struct raid *r = t->raid;
    t->connected = true;
    race_dial(r);
    if (arg(r->args, "spread") != NULL) {
        CHECK(fabric_stream_send(s, buf_blob(&t->request)) == 0);
        return;
    }
    if (++r->open + r->over < r->count) {
        return;
    }
    for (size_t i = 0; i < r->count; i++) {
        struct attempt *each = &r->attempts[i];
        if (!each->done) {
            int rc = fabric_stream_send(each->s, buf_blob(&each->request));
            CHECK(rc == 0);
        }
    }
}

static const struct fabric_stream_vtab race_vtab = {
    .frame = on_frame, .closed = on_closed, .opened = race_opened};

static void say_tally(const struct raid *r, double seconds)
{
    say_begin();
    for (size_t i = 0; i < r->tally.count; i++) {
        say_number(r->tally.row[i].what, (double)r->tally.row[i].n);
    }
    say_number("seconds", seconds);
    say_end();
}

int attack_race(const struct args *a)
{
    struct raid r;
    raid_init(&r, a, 1, LIMIT_MS);
    r.count = (size_t)arg_number(a, "n", 1000);
    r.attempts = xcalloc(r.count, sizeof *r.attempts);
    uint64_t began = clock_mono_ns();
    for (size_t i = 0; i < r.count; i++) {
        struct attempt *t = &r.attempts[i];
        struct buf csr;
        struct pki_key *key = pki_key_generate();
        *t = (struct attempt){.raid = &r, .fabric = r.fabric[0]};
        buf_init(&csr, CSR_DER_MAX);
        CHECK(forge_csr("good", key, &csr) == 0);
        build(&r, t, i, buf_blob(&csr));
        buf_fini(&csr);
        pki_key_free(key);
    }
    CHECK(dial(&r.attempts[r.dialled++], &race_vtab) == 0);
    for (size_t i = 1; i < HANDSHAKES_AT_ONCE; i++) {
        race_dial(&r);
    }
    raid_run(&r);
    say_tally(&r, (double)(clock_mono_ns() - began) / 1e9);
    return 0;
}

/* --- hold: connections that ask for nothing --- */

static void on_mute(uv_timer_t *timer)
{
    struct raid *r = timer->data;
    fabric_kill(r->fabric[0]); /* whatever is answered from now on, nothing comes back */
    CHECK(uv_timer_start(timer, on_limit, (uint64_t)arg_number(r->args, "seconds", 3) * 1000, 0) ==
          0);
}

int attack_hold(const struct args *a)
{
    static const struct fabric_stream_vtab vtab = {.frame = on_frame, .closed = on_closed};
    struct raid r;
    raid_init(&r, a, 1, LIMIT_MS);
    r.count = (size_t)arg_number(a, "n", 100);
    r.attempts = xcalloc(r.count, sizeof *r.attempts);
    uint64_t began = clock_mono_ns();
    for (size_t i = 0; i < r.count; i++) {
        struct attempt *t = &r.attempts[i];
        *t = (struct attempt){.raid = &r, .fabric = r.fabric[0]};
        CHECK(dial(t, &vtab) == 0);
    }
    if (arg(a, "hello_only") != NULL) {
        CHECK(uv_timer_start(&r.limit, on_mute, 100, 0) == 0);
    }
    raid_run(&r);
    say_tally(&r, (double)(clock_mono_ns() - began) / 1e9);
    return 0;
}

/* --- guess: one secret after another, on as few handshakes as the authority allows --- */

static void next_guess(struct attempt *t);

static void guess_done(struct attempt *t, int rc)
{
    struct raid *r = t->raid;
    tally(&r->tally, rc == 0 ? "pending" : err_slug(rc));
    next_guess(t);
}

static void guess_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct attempt *t = data;
    struct enroll_status st;
    if (s == t->s) {
        int rc = msg_decode(&enroll_status_desc, MSG_LENIENT, frame, &st);
        guess_done(t, rc != 0 ? rc : st.state == ENROLL_REFUSED ? -(int)st.error : 0);
    }
}

static void guess_closed(struct fabric_stream *s, void *data, int rc)
{
    struct attempt *t = data;
    if (s == t->s) {
        t->s = NULL;
        guess_done(t, rc == 0 ? -ERR_CLOSED : rc);
    }
}

static const struct fabric_stream_vtab guess_vtab = {.frame = guess_frame, .closed = guess_closed};

static void next_guess(struct attempt *t)
{
    struct raid *r = t->raid;
    struct fabric_stream *old = t->s;
    if (r->left == 0) {
        t->s = NULL;
        if (old != NULL) {
            fabric_stream_close(old);
        }
        if (!t->done) {
            t->done = true;
            r->over++;
        }
        if (r->over == r->count) {
            begin_end(r);
        }
        return;
    }
    r->left--;
    t->s = old != NULL ? fabric_forge_stream(old, "enroll", &guess_vtab, t) : NULL;
    if (old != NULL) {
        fabric_stream_close(old);
    }
    if (t->s == NULL && dial(t, &guess_vtab) != 0) {
        give_up("cannot dial");
    }
    buf_fini(&t->request);
    build(r, t, r->left, buf_blob(&r->csr));
    (void)fabric_stream_send(t->s, buf_blob(&t->request));
}

int attack_guess(const struct args *a)
{
    struct raid r;
    char *forced[] = {"secret=random"};
    struct args more = {.count = a->count + 1, .v = xcalloc((size_t)a->count + 1, sizeof *more.v)};
    memcpy(more.v, a->v, (size_t)a->count * sizeof *more.v);
    more.v[a->count] = forced[0];
    size_t sources = (size_t)arg_number(a, "sources", 1);
    raid_init(&r, &more, sources, (uint64_t)arg_number(a, "limit_s", 3600) * 1000);
    buf_init(&r.csr, CSR_DER_MAX);
    struct pki_key *key = pki_key_generate();
    CHECK(forge_csr("good", key, &r.csr) == 0);
    r.left = (unsigned long)arg_number(a, "n", 1000);
    r.count = (size_t)arg_number(a, "parallel", 32);
    r.attempts = xcalloc(r.count, sizeof *r.attempts);
    uint64_t began = clock_mono_ns();
    for (size_t i = 0; i < r.count; i++) {
        r.attempts[i] = (struct attempt){.raid = &r, .fabric = r.fabric[i % r.fabrics]};
        next_guess(&r.attempts[i]);
    }
    raid_run(&r);
    say_tally(&r, (double)(clock_mono_ns() - began) / 1e9);
    pki_key_free(key);
    return 0;
}
