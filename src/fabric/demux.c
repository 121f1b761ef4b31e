/* Whose packet is it? Known connection id: its session's. Packets of handshakes wait until the turn has served
 * everybody else. Then an unknown id's Initial is accepted, asked to prove its address (Retry) or dropped by a limit. Another
 * version is told ours; a short header is either a reset of one of our sessions, or gets one. */
#include "fabric/fabric_impl.h"

#include "base/clock.h"

#define RESETS_PER_SECOND 100
#define TOKEN_LIFE_NS (10 * 1000 * NS_PER_MS)

/* --- connection ids and reset tokens --- */

/* A stranger chooses the ids of its first packets. */
static unsigned hash_bytes(const struct endpoint *ep, const uint8_t *p, size_t len)
{
    return siphash(&ep->hash_key, p, len);
}

static struct cid_entry *find_cid(struct endpoint *ep, const uint8_t *cid, size_t len)
{
    struct cid_entry *e = NULL;
    if (len == 0 || len > NGTCP2_MAX_CIDLEN) {
        return NULL;
    }
    HASH_FIND_BYHASHVALUE(hh, ep->cids, cid, len, hash_bytes(ep, cid, len), e);
    return e;
}

void endpoint_add_cid(struct session *ss, const ngtcp2_cid *cid)
{
    struct endpoint *ep = &ss->f->ep;
    if (cid->datalen == 0 || find_cid(ep, cid->data, cid->datalen) != NULL) {
        return;
    }
    struct cid_entry *e = xcalloc(1, sizeof *e);
    e->ss = ss;
    e->len = (uint8_t)cid->datalen;
    memcpy(e->cid, cid->data, cid->datalen);
    list_add(&ss->cids, &e->link);
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, ep->cids, e->cid, e->len, hash_bytes(ep, e->cid, e->len), e);
}

static void free_cid(struct endpoint *ep, struct cid_entry *e)
{
    CHECK(ep->cids != NULL);
    HASH_DELETE(hh, ep->cids, e);
    list_del(&e->link);
    free(e);
}

void endpoint_del_cid(struct session *ss, const ngtcp2_cid *cid)
{
    struct cid_entry *e = find_cid(&ss->f->ep, cid->data, cid->datalen);
    if (e != NULL && e->ss == ss) {
        free_cid(&ss->f->ep, e);
    }
}

static struct token_entry *find_token(struct endpoint *ep, const uint8_t *token)
{
    struct token_entry *e = NULL;
    HASH_FIND_BYHASHVALUE(hh, ep->tokens, token, NGTCP2_STATELESS_RESET_TOKENLEN,
                          hash_bytes(ep, token, NGTCP2_STATELESS_RESET_TOKENLEN), e);
    return e;
}

void endpoint_add_token(struct session *ss, uint64_t seq, const uint8_t *token)
{
    struct endpoint *ep = &ss->f->ep;
    if (find_token(ep, token) != NULL) {
        return;
    }
    struct token_entry *e = xcalloc(1, sizeof *e);
    e->ss = ss;
    e->seq = seq;
    memcpy(e->token, token, sizeof e->token);
    list_add(&ss->tokens, &e->link);
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, ep->tokens, e->token, sizeof e->token,
                                hash_bytes(ep, e->token, sizeof e->token), e);
}

static void free_token(struct endpoint *ep, struct token_entry *e)
{
    CHECK(ep->tokens != NULL);
    HASH_DELETE(hh, ep->tokens, e);
    list_del(&e->link);
    free(e);
}

void endpoint_del_token(struct session *ss, uint64_t seq)
{
    for (struct link *l = ss->tokens.next; l != &ss->tokens; l = l->next) {
        struct token_entry *e = container_of(l, struct token_entry, link);
        if (e->seq == seq) {
            free_token(&ss->f->ep, e);
            return;
        }
    }
}

void endpoint_forget(struct session *ss)
{
    while (!list_empty(&ss->cids)) {
        free_cid(&ss->f->ep, container_of(ss->cids.next, struct cid_entry, link));
    }
    while (!list_empty(&ss->tokens)) {
        free_token(&ss->f->ep, container_of(ss->tokens.next, struct token_entry, link));
    }
}

void endpoint_new_cid(ngtcp2_cid *cid)
{
    uint8_t bytes[OWN_CID_BYTES];
    rng_bytes(bytes, sizeof bytes);
    ngtcp2_cid_init(cid, bytes, sizeof bytes);
}

/* --- packets of nobody we know --- */

static void send_version_negotiation(struct fabric *f, const struct addr *from,
                                     const struct source *src, const ngtcp2_version_cid *vc,
                                     size_t trigger_len)
{
    static const uint32_t versions[] = {NGTCP2_PROTO_VER_V1};
    if (trigger_len < NGTCP2_MAX_UDP_PAYLOAD_SIZE) {
        return;
    }
    uint8_t out[256];
    ngtcp2_ssize n = ngtcp2_pkt_write_version_negotiation(
        out, sizeof out, (uint8_t)rng_u64(), vc->scid, vc->scidlen, vc->dcid, vc->dcidlen, versions,
        ARRAY_SIZE(versions));
    if (n > 0) {
        endpoint_send_copy(f, from, src, out, (size_t)n);
    }
}

static bool reset_allowed(struct fabric *f)
{
    struct endpoint *ep = &f->ep;
    if (f->now_ns - ep->resets_window_ns >= 1000 * NS_PER_MS) {
        ep->resets_window_ns = f->now_ns;
        ep->resets_in_window = 0;
    }
    return ep->resets_in_window++ < RESETS_PER_SECOND;
}

/* RFC 9000 section 10.3. Shorter than its trigger, so that two endpoints never keep it up. A probe
 * of an idle session has 30 bytes: answered with less noise, or it would wait for its timeout. */
static void send_reset(struct fabric *f, const struct addr *from, const struct source *src,
                       const ngtcp2_version_cid *vc, size_t trigger_len)
{
    if (trigger_len <= NGTCP2_MIN_STATELESS_RESET_RANDLEN + NGTCP2_STATELESS_RESET_TOKENLEN ||
        !reset_allowed(f)) {
        return;
    }
    ngtcp2_cid cid;
    ngtcp2_cid_init(&cid, vc->dcid, vc->dcidlen);
    uint8_t token[NGTCP2_STATELESS_RESET_TOKENLEN];
    if (ngtcp2_crypto_generate_stateless_reset_token(token, f->cfg.reset_secret,
                                                     sizeof f->cfg.reset_secret, &cid) != 0) {
        return;
    }
    uint8_t noise[24];
    size_t room = trigger_len - 1 - NGTCP2_STATELESS_RESET_TOKENLEN;
    size_t noise_len = room < sizeof noise ? room : sizeof noise;
    rng_bytes(noise, noise_len);
    uint8_t out[64];
    ngtcp2_ssize n = ngtcp2_pkt_write_stateless_reset(out, sizeof out, token, noise, noise_len);
    if (n > 0 && (size_t)n < trigger_len) {
        f->counters.resets_sent++;
        endpoint_send_copy(f, from, src, out, (size_t)n);
    }
}

static void send_retry(struct fabric *f, const struct addr *from, const struct source *src,
                       const ngtcp2_pkt_hd *hd)
{
    ngtcp2_cid scid;
    endpoint_new_cid(&scid);
    uint8_t token[NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN2];
    ngtcp2_ssize n = ngtcp2_crypto_generate_retry_token2(
        token, f->cfg.reset_secret, sizeof f->cfg.reset_secret, hd->version,
        (const ngtcp2_sockaddr *)&from->ss, from->len, &scid, &hd->dcid,
        (ngtcp2_tstamp)clock_wall_ms() * NS_PER_MS);
    if (n < 0) {
        return;
    }
    uint8_t out[512];
    n = ngtcp2_crypto_write_retry(out, sizeof out, hd->version, &hd->scid, &scid, &hd->dcid, token,
                                  (size_t)n);
    if (n > 0) {
        f->counters.retries_sent++;
        endpoint_send_copy(f, from, src, out, (size_t)n);
    }
}

/* Token stamps are wall-clock time: they must mean the same after a restart. */
static bool retry_token_ok(struct fabric *f, const struct addr *from, const ngtcp2_pkt_hd *hd,
                           ngtcp2_cid *odcid)
{
    return hd->tokenlen > 0 && hd->token[0] == NGTCP2_CRYPTO_TOKEN_MAGIC_RETRY2 &&
           ngtcp2_crypto_verify_retry_token2(
               odcid, hd->token, hd->tokenlen, f->cfg.reset_secret, sizeof f->cfg.reset_secret,
               hd->version, (const ngtcp2_sockaddr *)&from->ss, from->len, &hd->dcid, TOKEN_LIFE_NS,
               (ngtcp2_tstamp)clock_wall_ms() * NS_PER_MS) == 0;
}

static void refuse_token(struct fabric *f, const struct addr *from, const struct source *src,
                         const ngtcp2_pkt_hd *hd)
{
    uint8_t out[256];
    ngtcp2_ssize n = ngtcp2_crypto_write_connection_close(out, sizeof out, hd->version, &hd->scid,
                                                          &hd->dcid, NGTCP2_INVALID_TOKEN, NULL, 0);
    if (n > 0) {
        endpoint_send_copy(f, from, src, out, (size_t)n);
    }
}

static void refuse_source(struct fabric *f, const struct addr *from, const struct source *src,
                          const ngtcp2_pkt_hd *hd, uint32_t wait_ms)
{
    uint8_t out[256];
    char reason[LIMIT_REASON_MAX];
    size_t len = session_limit_reason(wait_ms, reason);
    ngtcp2_ssize n = ngtcp2_crypto_write_connection_close(out, sizeof out, hd->version, &hd->scid,
                                                          &hd->dcid, NGTCP2_CONNECTION_REFUSED,
                                                          (const uint8_t *)reason, len);
    if (n > 0) {
        const struct fabric_peer who = {.address = *from};
        f->counters.rate_limited++;
        fabric_note_refusal(f, &who, -ERR_RATE_LIMITED, blob_str("enroll"));
        endpoint_send_copy(f, from, src, out, (size_t)n);
    }
}

/* --- handshakes wait, as in the backlog of listen(2): a step of one costs a signature or its verification, which
 * is a hundred times what a packet of a live session does, so those are read, run and answered first --- */

#define WAITING_MAX 512 /* packets of each kind; with their Ethernet sizes 3/4 MiB */

struct waiting {
    struct link link;
    struct addr from;
    struct source src;
    struct relay_arrival bringing; /* relayed: the neighbour it came by */
    size_t len;
    uint8_t data[];
};

static void wait_turn(struct fabric *f, struct waiting_list *list, const struct addr *from,
                      const struct source *src, struct blob packet)
{
    if (list->count >= WAITING_MAX || packet.len > NGTCP2_MAX_PMTUD_UDP_PAYLOAD_SIZE) {
        f->counters.dropped_limit++;
        return;
    }
    struct waiting *w = xmalloc(sizeof *w + packet.len);
    w->from = *from;
    w->src = *src;
    w->bringing = f->relay.bringing;
    w->len = packet.len;
    memcpy(w->data, packet.data, packet.len);
    list_add(&list->head, &w->link);
    list->count++;
}

static void route(struct fabric *f, const struct addr *from, const struct source *src,
                  struct blob packet, bool waited);

static struct waiting *next_waiting(struct waiting_list *list)
{
    struct waiting *w = container_of(list->head.next, struct waiting, link);
    list_del(&w->link);
    list->count--;
    return w;
}

bool endpoint_has_waiting(const struct endpoint *ep)
{
    return ep->begun.count > 0 || ep->backlog.count > 0;
}

void endpoint_serve_waiting(struct fabric *f)
{
    struct endpoint *ep = &f->ep;
    uint64_t end_ns = f->now_ns + STRANGERS_NS;
    bool begun = true;
    ep->accepted_this_turn = 0;
    do {
        /* In turn: neither new handshakes nor packets for those that have begun keep the others out. */
        struct waiting_list *list = ep->backlog.count == 0 || (begun && ep->begun.count > 0)
                                        ? &ep->begun
                                        : &ep->backlog;
        if (list->count == 0) {
            break;
        }
        begun = !begun;
        struct waiting *w = next_waiting(list);
        f->relay.bringing = w->bringing;
        /* It may have a session by now: a client sends again what is not answered. */
        route(f, &w->from, &w->src, blob_of(w->data, w->len), true);
        free(w);
        fabric_tick(f);
    } while (f->now_ns < end_ns && ep->accepted_this_turn < f->cfg.limits.handshakes_per_turn);
}

void endpoint_forget_waiting(struct fabric *f)
{
    struct waiting_list *lists[] = {&f->ep.begun, &f->ep.backlog};
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        while (lists[i]->count > 0) {
            free(next_waiting(lists[i]));
        }
    }
}

static void accept_packet(struct fabric *f, const struct addr *from, const struct source *src,
                          struct blob packet, bool waited)
{
    ngtcp2_pkt_hd hd;
    if (ngtcp2_accept(&hd, packet.data, packet.len) != 0 || hd.type != NGTCP2_PKT_INITIAL) {
        return;
    }
    if (f->closing || !f->has_identity) {
        return;
    }
    const struct fabric_limits *lim = &f->cfg.limits;
    if (f->half_open >= lim->half_open_max || f->session_count >= lim->sessions_max) {
        f->counters.dropped_limit++;
        return;
    }
    if (!waited) {
        wait_turn(f, &f->ep.backlog, from, src, packet);
        return;
    }
    struct uuid id;
    if (path_is_virtual(&from->ss)) {
        path_virtual_id(&from->ss, &id);
        if (!relay_may_accept(f, &id)) {
            f->counters.dropped_limit++;
            return;
        }
    }
    /* A source with too many failures behind it proves its address, which costs us no state, and is
     * sent away; but where members are, one of them may be asking. */
    uint64_t now_ms = fabric_now_ms(f);
    uint32_t wait_ms = source_limit_wait_ms(f->sources, from, now_ms);
    ngtcp2_cid odcid;
    const ngtcp2_cid *retried = NULL;
    bool opening = false;
    if (hd.tokenlen > 0) {
        if (!retry_token_ok(f, from, &hd, &odcid)) {
            refuse_token(f, from, src, &hd);
            return;
        }
        if (source_limit_in_debt(f->sources, from, now_ms) &&
            !source_limit_has_members(f->sources, from, now_ms)) {
            refuse_source(f, from, src, &hd, wait_ms);
            return;
        }
        if (!path_is_virtual(&from->ss)) {
            opening = source_limit_open(f->sources, from, now_ms);
            if (!opening) {
                f->counters.dropped_limit++;
                return;
            }
        }
        retried = &odcid;
    } else if (f->half_open >= lim->retry_above || wait_ms > 0) {
        send_retry(f, from, src, &hd);
        return;
    }
    f->ep.accepted_this_turn++;
    struct session *ss = session_accept(f, &hd, retried, from, src);
    if (ss == NULL && opening) {
        source_limit_opened(f->sources, from, now_ms);
    }
    if (ss != NULL) {
        ss->opening = opening;
        session_read(ss, from, src, packet);
    }
}

void endpoint_receive(struct fabric *f, const struct addr *from, const struct source *src,
                      struct blob packet)
{
    f->counters.packets_in++;
    f->counters.bytes_in += packet.len;
    route(f, from, src, packet, false);
}

static void route(struct fabric *f, const struct addr *from, const struct source *src,
                  struct blob packet, bool waited)
{
    struct endpoint *ep = &f->ep;
    ngtcp2_version_cid vc;
    int rv = ngtcp2_pkt_decode_version_cid(&vc, packet.data, packet.len, OWN_CID_BYTES);
    if (rv == NGTCP2_ERR_VERSION_NEGOTIATION) {
        send_version_negotiation(f, from, src, &vc, packet.len);
        return;
    }
    if (rv != 0) {
        return;
    }
    struct cid_entry *e = find_cid(ep, vc.dcid, vc.dcidlen);
    if (e != NULL && !waited && e->ss->state == SESSION_HANDSHAKE && !e->ss->dialled) {
        wait_turn(f, &ep->begun, from, src, packet);
        return;
    }
    if (e != NULL) {
        session_read(e->ss, from, src, packet);
        return;
    }
    bool long_header = (packet.data[0] & 0x80) != 0;
    if (long_header) {
        accept_packet(f, from, src, packet, waited);
        return;
    }
    if (packet.len >= 21) {
        struct token_entry *t = find_token(ep, packet.data + packet.len -
                                                   NGTCP2_STATELESS_RESET_TOKENLEN);
        if (t != NULL) {
            session_drop(t->ss, -ERR_CLOSED);
            return;
        }
    }
    send_reset(f, from, src, &vc, packet.len);
}
