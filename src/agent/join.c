/* The happy path: membership prepared (pending) -> fabric without identity -> the addresses of the
 * token raced (join_race.c) -> the first that authenticates gets the enroll_request, the others are
 * reset -> PENDING, kept open -> APPROVED -> verified, stored, done.
 *
 * Failure paths:
 *   an address does not resolve, or is no authority of ours -> the next one at once; after the
 *     last, a pause and the failed ones again; given up when all are strangers, or none answered for
 *     JOIN_GIVE_UP_MS
 *   an address does not answer -> the next one beside it
 *   the stream ends while pending -> the same request to the next address
 *   REFUSED with a retryable error -> as above; with another one -> the membership is discarded
 *   what came as APPROVED does not verify -> as a stranger; nothing is stored
 *   deadline -> -ERR_TIMEOUT, still pending
 * Whatever ends the join sets `over`, and the timer's next turn closes fabric and timers. */
#include "agent/join.h"

#include "agent/config.h"
#include "agent/host.h"
#include "agent/join_impl.h"
#include "agent/uplink.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/text.h"
#include "fabric/fabric.h"

#define RETRY_MIN_MS 200
#define RETRY_MAX_MS 5000
#define RETRY_HINT_MAX_MS 120000

struct join;

struct attempt { /* at one address */
    struct join *join;
    char *address;
    struct fabric_stream *stream; /* NULL: not under way */
};

struct join {
    const struct join_options *o;
    struct member *member;
    struct join_token token;
    struct buf request;
    struct attempt attempts[AUTHORITIES_MAX];
    size_t count;
    struct join_race race;
    struct attempt *won; /* an authority of ours: the one that was told the secret */
    bool pausing;        /* until the next round */

    uv_loop_t loop;
    uv_timer_t timer; /* the next attempt, the next round, or the end */
    uv_timer_t deadline;
    struct pki_trust *trust;
    struct fabric *fabric;
    uint64_t started_ms;
    uint32_t rounds;        /* since something worked */
    uint64_t not_before_ms; /* an authority said so (rate_limited) */
    bool acked;             /* an authority said PENDING */
    char fingerprint[2 * PKI_HASH_BYTES + 1];
    char join_id[UUID_TEXT_MAX];

    bool over, pending, discard;
    int rc;
    struct errmsg *em;
};

static uint64_t now_ms(void)
{
    return clock_mono_ms();
}

static void tell(struct join *j, enum join_event ev, const char *detail)
{
    if (j->o->progress != NULL) {
        bool known = ev != JOIN_CONNECTING;
        j->o->progress(j->o->data, ev, known ? j->fingerprint : "", known ? j->join_id : "",
                       detail);
    }
}

static void on_timer(uv_timer_t *timer);

static void wake(struct join *j, uint64_t delay_ms)
{
    CHECK(uv_timer_start(&j->timer, on_timer, delay_ms, 0) == 0);
}

static void end(struct join *j, int rc)
{
    j->over = true;
    j->rc = rc;
    wake(j, 0);
}

static void drop_stream(struct attempt *t)
{
    if (t->stream != NULL) {
        struct fabric_stream *s = t->stream;
        t->stream = NULL;
        fabric_stream_reset(s, -ERR_CANCELED);
    }
}

/* All but this one; NULL: all. */
static void drop_others(struct join *j, const struct attempt *but)
{
    for (size_t i = 0; i < j->count; i++) {
        if (&j->attempts[i] != but) {
            drop_stream(&j->attempts[i]);
        }
    }
}

/* --- attempts --- */

/* Every address is under way or has failed. */
static void round_over(struct join *j)
{
    uint64_t at = now_ms();
    uint64_t waited_ms = at > j->started_ms ? at - j->started_ms : 0;
    int verdict = join_verdict(j->race.last_rc, j->race.count, j->acked, waited_ms);
    if (verdict == -ERR_UNREACHABLE) {
        end(j, errmsg_set(j->em, verdict, "no authority of the token answers (%s)",
                          j->token.addresses));
    } else if (verdict != 0) {
        struct errmsg why = *j->em;
        end(j, errmsg_set(j->em, verdict, "no authority of the token's cluster at %s: %s",
                          j->token.addresses, why.text[0] != '\0' ? why.text : err_text(verdict)));
    } else if (!j->pausing) {
        uint64_t delay_ms = backoff_delay_ms(j->rounds++, RETRY_MIN_MS, RETRY_MAX_MS, rng_u64());
        if (j->not_before_ms > at + delay_ms) {
            delay_ms = j->not_before_ms - at;
        }
        j->pausing = true;
        wake(j, delay_ms);
    }
}

/* em, if the attempt set it, says why. */
static void attempt_failed(struct attempt *t, int rc)
{
    struct join *j = t->join;
    size_t next;
    drop_stream(t);
    if (j->won == t) {
        j->won = NULL;
    }
    join_race_failed(&j->race, (size_t)(t - j->attempts), rc);
    if (join_race_next(&j->race, &next)) {
        wake(j, 0);
    } else {
        round_over(j);
    }
}

/* Bounded: whatever a host was told, it tries again. The wait is no silence, so giving up is put off. */
static void not_before(struct join *j, uint64_t wait_ms)
{
    char text[32];
    if (wait_ms == 0) {
        return;
    }
    wait_ms = wait_ms < RETRY_HINT_MAX_MS ? wait_ms : RETRY_HINT_MAX_MS;
    uint64_t at = now_ms() + wait_ms;
    if (at > j->not_before_ms) {
        j->not_before_ms = j->started_ms = at;
    }
    (void)snprintf(text, sizeof text, "%.1f s", (double)wait_ms / 1000);
    tell(j, JOIN_WAITING, text);
}

/* --- what the authority says --- */

static void on_pending(struct attempt *t, const struct enroll_status *st)
{
    struct join *j = t->join;
    char until[CLOCK_TEXT_MAX] = "";
    enum join_event ev = j->acked ? JOIN_STILL_PENDING : JOIN_SUBMITTED;
    if (!j->acked) {
        j->acked = true;
        (void)join_mark_acked(j->member);
    }
    j->rounds = 0;
    uuid_format(&st->join_id, j->join_id);
    if (st->expires_at_ms != 0) {
        clock_format(st->expires_at_ms, until);
    }
    tell(j, ev, until);
    if (!j->o->wait) {
        fabric_stream_close(t->stream);
        t->stream = NULL;
        j->pending = true;
        end(j, 0);
    }
}

static void on_approved(struct attempt *t, const struct enroll_status *st)
{
    struct join *j = t->join;
    struct errmsg why = ERRMSG_INIT;
    int rc = join_accept(j->member, &j->token, st, clock_wall_ms(), &why);
    if (rc == -ERR_IO || rc == -ERR_CORRUPT) { /* our disk, not their answer */
        end(j, errmsg_set(j->em, rc, "approved, but not stored: %s", why.text));
    } else if (rc != 0) {
        rc = join_is_stranger(rc) ? rc : -ERR_MALFORMED;
        attempt_failed(t, errmsg_set(j->em, rc, "approval refused: %s", why.text));
    } else {
        fabric_stream_close(t->stream);
        t->stream = NULL;
        tell(j, JOIN_APPROVED_EVENT, j->member->cluster_name);
        end(j, 0);
    }
}

static void on_refused(struct attempt *t, const struct enroll_status *st)
{
    struct join *j = t->join;
    int rc = st->error <= INT32_MAX ? -(int)st->error : -ERR_REJECTED;
    if (rc == 0 || strcmp(err_slug(rc), "unknown") == 0) {
        rc = -ERR_REJECTED;
    }
    int len = st->detail.len > REASON_MAX_BYTES ? REASON_MAX_BYTES : (int)st->detail.len;
    errmsg_set(j->em, rc, "%s%s%.*s", err_text(rc), len > 0 ? ": " : "", len,
               len > 0 ? (const char *)st->detail.data : "");
    if (err_retryable(rc)) {
        not_before(j, st->retry_after_ms);
        attempt_failed(t, rc);
    } else {
        j->discard = true;
        end(j, rc);
    }
}

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct attempt *t = data;
    struct join *j = t->join;
    struct enroll_status st;
    if (j->over || s != t->stream || t != j->won) {
        return;
    }
    int rc = msg_decode(&enroll_status_desc, MSG_LENIENT, frame, &st);
    if (rc != 0) {
        attempt_failed(t, errmsg_set(j->em, -ERR_MALFORMED, "the answer does not decode"));
    } else if (st.state == ENROLL_PENDING) {
        on_pending(t, &st);
    } else if (st.state == ENROLL_APPROVED) {
        on_approved(t, &st);
    } else if (st.state == ENROLL_REFUSED) {
        on_refused(t, &st);
    } else {
        attempt_failed(t, errmsg_set(j->em, -ERR_MALFORMED, "the answer has an unknown state"));
    }
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    struct attempt *t = data;
    struct join *j = t->join;
    if (s != t->stream) {
        return;
    }
    t->stream = NULL;
    if (!j->over) {
        j->em->text[0] = '\0';
        not_before(j, fabric_stream_retry_ms(s));
        attempt_failed(t, rc == 0 ? -ERR_CLOSED : rc);
    }
}

/* TLS has verified an authority under the token's root. Only now, and only here, the secret is
 * sent. */
static void on_opened(struct fabric_stream *s, void *data)
{
    struct attempt *t = data;
    struct join *j = t->join;
    if (j->over || s != t->stream) {
        return;
    }
    CHECK(j->won == NULL);
    j->won = t;
    j->pausing = false;
    CHECK(uv_timer_stop(&j->timer) == 0);
    join_race_won(&j->race, (size_t)(t - j->attempts));
    drop_others(j, t);
    int rc = fabric_stream_send(s, buf_blob(&j->request));
    if (rc != 0) {
        attempt_failed(t, rc);
    }
}

static const struct fabric_stream_vtab vtab = {
    .frame = on_frame, .closed = on_closed, .opened = on_opened};

static void start(struct join *j, size_t i)
{
    struct attempt *t = &j->attempts[i];
    struct fabric_stream_to to = {.node_id = UUID_NIL, .service = "enroll"};
    size_t next;
    join_race_start(&j->race, i);
    tell(j, JOIN_CONNECTING, t->address);
    if (join_race_next(&j->race, &next)) {
        wake(j, join_race_delay_ms(rng_u64()));
    }
    int rc = addr_resolve(t->address, &to.enroll_addr, j->em);
    if (rc == 0) {
        rc = fabric_stream_open(j->fabric, &to, &vtab, t, &t->stream);
    }
    if (rc != 0) {
        attempt_failed(t, rc);
    }
}

static void start_next(struct join *j)
{
    size_t next;
    if (j->pausing) {
        j->pausing = false;
        join_race_again(&j->race);
    }
    if (j->won == NULL && join_race_next(&j->race, &next)) {
        start(j, next);
    }
}

/* --- the loop --- */

static void on_fabric_closed(void *data)
{
    struct join *j = data;
    j->fabric = NULL;
}

static void on_timer(uv_timer_t *timer)
{
    struct join *j = container_of(timer, struct join, timer);
    if (!j->over) {
        start_next(j);
        return;
    }
    drop_others(j, NULL);
    fabric_close(j->fabric, on_fabric_closed, j);
    uv_close((uv_handle_t *)&j->deadline, NULL);
    uv_close((uv_handle_t *)&j->timer, NULL);
}

static void on_deadline(uv_timer_t *timer)
{
    struct join *j = container_of(timer, struct join, deadline);
    if (!j->over) {
        end(j,
            errmsg_set(j->em, -ERR_TIMEOUT,
                       j->acked ? "not decided yet: the request stays pending, run rap join again"
                                : "no authority answered in time"));
    }
}

static int open_fabric(struct join *j)
{
    struct fabric_config fc = {
        .loop = &j->loop,
        .cluster_id = j->token.cluster_id,
        .trust = j->trust,
    };
    memcpy(fc.reset_secret, j->member->reset_secret, sizeof fc.reset_secret);
    int rc = addr_parse(j->member->listen, &fc.listen, j->em);
    if (rc == 0) {
        rc = fabric_open(&fc, &j->fabric, j->em);
    }
    explicit_bzero(fc.reset_secret, sizeof fc.reset_secret);
    return rc;
}

static int run(struct join *j)
{
    CHECK(uv_loop_init(&j->loop) == 0);
    j->trust = pki_trust_new(&j->token.cluster_id);
    pki_trust_set_pin(j->trust, j->token.root_fingerprint);
    int rc = open_fabric(j);
    if (rc == 0) {
        CHECK(uv_timer_init(&j->loop, &j->timer) == 0);
        CHECK(uv_timer_init(&j->loop, &j->deadline) == 0);
        j->started_ms = now_ms();
        wake(j, 0);
        if (j->o->timeout_ms != 0) {
            CHECK(uv_timer_start(&j->deadline, on_deadline, j->o->timeout_ms, 0) == 0);
        }
        (void)uv_run(&j->loop, UV_RUN_DEFAULT);
        CHECK(j->over && j->fabric == NULL);
        rc = j->rc;
    }
    CHECK(uv_loop_close(&j->loop) == 0);
    pki_trust_free(j->trust);
    return rc;
}

static int split_addresses(struct join *j)
{
    const char *p = j->token.addresses;
    while (*p != '\0') {
        size_t n = strcspn(p, ",");
        if (n > 0 && j->count < AUTHORITIES_MAX) {
            j->attempts[j->count++] = (struct attempt){.join = j,
                                                       .address = xasprintf("%.*s", (int)n, p)};
        }
        p += n;
        p += *p == ',';
    }
    join_race_init(&j->race, j->count);
    return j->count > 0 ? 0 : errmsg_set(j->em, -ERR_MALFORMED, "the token has no address");
}

static int show_fingerprint(struct join *j)
{
    struct pki_key *key;
    uint8_t public_key[PKI_KEY_BYTES];
    uint8_t fingerprint[PKI_HASH_BYTES];
    int rc = member_key(j->member, &key, j->em);
    if (rc != 0) {
        return rc;
    }
    pki_key_public(key, public_key);
    pki_fingerprint(public_key, fingerprint);
    hex_encode(fingerprint, sizeof fingerprint, j->fingerprint);
    pki_key_free(key);
    return 0;
}

int join_run(const struct join_options *o, bool *ret_pending, struct uuid *ret_node_id,
             struct errmsg *em)
{
    struct errmsg unused = ERRMSG_INIT;
    struct join *j = xcalloc(1, sizeof *j);
    *j = (struct join){.o = o, .em = em != NULL ? em : &unused};
    j->em->text[0] = '\0';
    buf_init(&j->request, RPC_FRAME_MAX);
    int rc = join_prepare(o, &j->member, &j->token, j->em);
    if (rc == 0) {
        j->acked = join_is_acked(j->member);
        rc = split_addresses(j);
    }
    if (rc == 0) {
        rc = show_fingerprint(j);
    }
    if (rc == 0) {
        rc = join_request(o, j->member, &j->token, &j->request, j->em);
    }
    if (rc == 0) {
        rc = run(j);
    }
    if (rc == 0) {
        *ret_pending = j->pending;
        *ret_node_id = j->member->node_id;
    }
    if (j->discard) {
        (void)member_discard(j->member, NULL);
        j->member = NULL;
    }
    for (size_t i = 0; i < j->count; i++) {
        free(j->attempts[i].address);
    }
    buf_wipe(&j->request);
    member_free(j->member);
    explicit_bzero(&j->token, sizeof j->token);
    free(j);
    return rc;
}
