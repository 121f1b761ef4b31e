/* What may reach libraft. Its asserts are compiled out, so a message it does not expect corrupts
 * memory or, worse, the log: each guard below keeps one such message away, or rewrites it into one
 * that means the same and that it handles. */
#include "authority/raft_io_impl.h"
#include "authority/raft_peek.h"

#include "base/log.h"

struct raft_io_peer *raft_io_peer_of(struct raft_io_impl *im, raft_id from)
{
    size_t i = 0;
    while (i < ARRAY_SIZE(im->peers) && im->peers[i].id != from && im->peers[i].id != 0) {
        i++;
    }
    if (i == ARRAY_SIZE(im->peers)) {
        i = im->next_peer++ % ARRAY_SIZE(im->peers);
    }
    if (im->peers[i].id != from) {
        im->peers[i] = (struct raft_io_peer){.id = from};
    }
    return &im->peers[i];
}

/* --- is it the member it was? --- */

bool raft_io_votes(const struct raft_configuration *c, raft_id id)
{
    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].id == id) {
            return c->servers[i].role == RAFT_VOTER;
        }
    }
    return false;
}

/* Term and entries are on disk before a member acts on them, so what it starts with is never below
 * what it acted on before, unless its disk went back. Such a member has forgotten a vote or an entry
 * that was counted: its word may elect a second leader, or one that lacks what was acknowledged. */
/* Messages of a process that has ended may still be on their way: one that shows less is dropped at
 * once, but convicts only who keeps talking, with nobody newer talking in between. */
#define SUSPECT_MS 2500
#define SUSPECT_MESSAGES 8

/* Of the leader's own term nothing is taken back while it leads, so what counts is all it has counted, committed or
 * not, and not only what was committed when the member last spoke. */
static uint64_t acked_by(const struct raft_io_impl *im, const struct raft_io_peer *p)
{
    struct raft *r = im->io->data;
    raft_index match = 0;
    return r->state == RAFT_LEADER && raft_match_index(r, p->id, &match) == 0 && match > p->acked
               ? match
               : p->acked;
}

static void convict(const struct raft_io_impl *im, struct raft_io_peer *p,
                    const struct raft_digest *d)
{
    p->boot_before = p->boot;
    p->boot = d->boot;
    p->old_disk = true;
    p->suspect = 0;
    p->why = (struct raft_old_disk){.acked_term = p->term,
                                    .shown_term = d->boot_term,
                                    .acked_index = acked_by(im, p),
                                    .shown_index = d->boot_index};
}

static void suspect(struct raft_io_impl *im, struct raft_io_peer *p, const struct raft_digest *d)
{
    uint64_t now = im->env->mono_ms(im->env->data);
    if (p->suspect != d->boot) {
        p->suspect = d->boot;
        p->suspect_ms = now;
        p->suspect_count = 0;
    }
    if (++p->suspect_count >= SUSPECT_MESSAGES && now - p->suspect_ms >= SUSPECT_MS) {
        convict(im, p, d);
    }
}

/* What it acknowledged or voted before does not count any more, and it begins anew with what it has. */
static void forget(struct raft_io_peer *p)
{
    p->old_disk = false;
    p->suspect = 0;
    p->term = 0;
    p->acked = 0;
}

static bool is_member(const struct raft_configuration *c, raft_id id)
{
    unsigned i = 0;
    while (i < c->n && c->servers[i].id != id) {
        i++;
    }
    return i < c->n;
}

void raft_io_forget_non_voters(struct raft_io_impl *im)
{
    const struct raft *r = im->io->data;
    for (size_t i = 0; i < ARRAY_SIZE(im->peers); i++) {
        struct raft_io_peer *p = &im->peers[i];
        if (!raft_io_votes(&r->configuration, p->id)) {
            forget(p);
        }
        if (!is_member(&r->configuration, p->id)) {
            p->lost_term = 0;
        }
    }
}

void raft_io_forget_what_was_acked(struct raft_io_impl *im)
{
    for (size_t i = 0; i < ARRAY_SIZE(im->peers); i++) {
        forget(&im->peers[i]);
    }
}

bool raft_io_has_old_disk(const struct raft_io *io, raft_id id, struct raft_old_disk *ret)
{
    const struct raft_io_impl *im = raft_io_impl_of(io);
    for (size_t i = 0; i < ARRAY_SIZE(im->peers); i++) {
        if (im->peers[i].id == id && im->peers[i].old_disk) {
            *ret = im->peers[i].why;
            return true;
        }
    }
    return false;
}

bool raft_io_lost_tail(const struct raft_io *io, raft_id id)
{
    const struct raft_io_impl *im = raft_io_impl_of(io);
    const struct raft *r = io->data;
    for (size_t i = 0; i < ARRAY_SIZE(im->peers); i++) {
        if (im->peers[i].id == id && r->state == RAFT_LEADER) {
            return im->peers[i].lost_term == r->current_term;
        }
    }
    return false;
}

/* Whether to drop the message. */
static bool shows_old_disk(struct raft_io_impl *im, struct raft_io_peer *p,
                           const struct raft_digest *d)
{
    const struct raft *r = im->io->data;
    bool voter = raft_io_votes(&r->configuration, p->id);
    if (p->old_disk && !voter) {
        forget(p); /* taken out of the vote, as whoever leads has to see to */
    }
    if (d->boot == 0) {
        return false;
    }
    if (d->boot == p->boot) {
        p->suspect = 0;
        return p->old_disk;
    }
    if (d->boot == p->boot_before) {
        return true; /* a straggler of the start before: out of date, and it proves nothing */
    }
    bool less = d->boot_term < p->term || d->boot_index < acked_by(im, p);
    if (voter && p->boot != 0 && less) {
        suspect(im, p, d);
        return true;
    }
    p->boot_before = p->boot;
    p->boot = d->boot;
    p->old_disk = false;
    p->suspect = 0;
    p->lost_term = 0;
    if (!voter) {
        bool lost = r->state == RAFT_LEADER && d->boot_index < acked_by(im, p);
        p->lost_term = lost ? r->current_term : 0;
        forget(p);
    }
    return false;
}

static uint64_t term_of(const struct raft_message *m)
{
    switch (m->type) {
        case RAFT_REQUEST_VOTE:
            /* A pre-vote speaks of a term its sender has not entered. */
            return m->request_vote.pre_vote ? 0 : m->request_vote.term;
        case RAFT_REQUEST_VOTE_RESULT:
            return m->request_vote_result.pre_vote ? 0 : m->request_vote_result.term;
        case RAFT_APPEND_ENTRIES:
            return m->append_entries.term;
        case RAFT_APPEND_ENTRIES_RESULT:
            return m->append_entries_result.term;
        case RAFT_INSTALL_SNAPSHOT:
            return m->install_snapshot.term;
        case RAFT_TIMEOUT_NOW:
            return m->timeout_now.term;
    }
    return 0;
}

static void note_word(struct raft_io_impl *im, struct raft_io_peer *p, uint64_t term)
{
    struct raft *r = im->io->data;
    raft_index match = 0;
    p->heard_ms = im->env->mono_ms(im->env->data);
    if (term > p->term) {
        p->term = term;
    }
    /* Not what it says it stores: what the leader has seen to be equal, as far as it is committed. */
    if (r->state == RAFT_LEADER && raft_match_index(r, p->id, &match) == 0) {
        match = match < r->commit_index ? match : r->commit_index;
        p->acked = match > p->acked ? match : p->acked;
    }
}

uint64_t raft_io_heard_ms(const struct raft_io *io, raft_id from)
{
    const struct raft_io_impl *im = raft_io_impl_of(io);
    for (size_t i = 0; i < ARRAY_SIZE(im->peers); i++) {
        if (im->peers[i].id == from) {
            return im->peers[i].heard_ms;
        }
    }
    return 0;
}

/* Takes over what the message holds. */
static void deliver(struct raft_io_impl *im, struct raft_message *m)
{
    if (im->closing || im->failed) {
        raft_msg_release(m);
        return;
    }
    im->recv_cb(im->io, m);
}

/* --- AppendEntries --- */

/* Entries [first, first + n) of a message as one of their own, with memory of their own. */
static struct raft_message part_of(const struct raft_message *m, unsigned first, unsigned n)
{
    const struct raft_append_entries *a = &m->append_entries;
    struct raft_message part = *m;
    struct raft_append_entries *p = &part.append_entries;
    if (first > 0) {
        p->prev_log_index = a->prev_log_index + first;
        p->prev_log_term = a->entries[first - 1].term;
    }
    p->n_entries = n;
    p->entries = NULL;
    if (n == 0) {
        return part;
    }
    size_t bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        bytes += a->entries[first + i].buf.len;
    }
    p->entries = raft_malloc(n * sizeof *p->entries);
    uint8_t *batch = raft_malloc(bytes);
    CHECK(p->entries != NULL && batch != NULL);
    uint8_t *at = batch;
    for (unsigned i = 0; i < n; i++) {
        const struct raft_entry *e = &a->entries[first + i];
        memcpy(at, e->buf.base, e->buf.len);
        p->entries[i] = *e;
        p->entries[i].buf.base = at;
        p->entries[i].batch = batch;
        at += e->buf.len;
    }
    return part;
}

/* G14: what we no longer hold is in our snapshot, so it is committed and the leader has the same.
 * libraft would reject it, and its leader then walks back to a snapshot nobody needs. */
static void skip_compacted(const struct raft *r, struct raft_message *m)
{
    struct raft_append_entries *a = &m->append_entries;
    uint64_t base = r->trail.snapshot.index;
    if (a->prev_log_index > raft_peek_offset(r) || a->prev_log_index >= base ||
        raft_peek_term(r, a->prev_log_index) != 0) {
        return;
    }
    uint64_t skip = base - a->prev_log_index;
    struct raft_message rest;
    if (skip >= a->n_entries) {
        rest = part_of(m, 0, 0);
    } else {
        rest = part_of(m, (unsigned)skip, a->n_entries - (unsigned)skip);
    }
    rest.append_entries.prev_log_index = base;
    rest.append_entries.prev_log_term = r->trail.snapshot.term;
    raft_msg_release(m);
    *m = rest;
}

/* G12: a leader that contradicts what is committed here is no leader of this log. libraft would
 * stop, after freeing the entries twice. */
static bool contradicts(const struct raft *r, const struct raft_append_entries *a)
{
    uint64_t have = raft_peek_term(r, a->prev_log_index);
    if (a->prev_log_index <= r->commit_index && have != 0 && have != a->prev_log_term) {
        return true;
    }
    for (unsigned i = 0; i < a->n_entries; i++) {
        uint64_t index = a->prev_log_index + 1 + i;
        if (index > r->commit_index) {
            break;
        }
        have = raft_peek_term(r, index);
        if (have != 0 && have != a->entries[i].term) {
            return true;
        }
    }
    return false;
}

/* A leader appends a configuration only when the one before is committed. libraft does not draw
 * that conclusion: were the new one taken back, it would fall back to the one before both. */
static void settle_configuration(struct raft *r, const struct raft_append_entries *a)
{
    uint64_t pending = r->configuration_uncommitted_index;
    uint64_t index = a->prev_log_index + 1;
    if (a->n_entries == 0 || a->entries[0].type != RAFT_CHANGE || pending == 0 ||
        pending >= index || raft_peek_term(r, a->prev_log_index) != a->prev_log_term ||
        raft_peek_term(r, index) == a->entries[0].term) {
        return;
    }
    struct raft_configuration copy;
    raft_configuration_init(&copy);
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        CHECK(raft_configuration_add(&copy, s->id, s->address, s->role) == 0);
    }
    raft_configuration_close(&r->configuration_committed);
    r->configuration_committed = copy;
    r->configuration_committed_index = pending;
    r->configuration_uncommitted_index = 0;
}

static void deliver_entries(struct raft_io_impl *im, struct raft_message *m)
{
    struct raft *r = im->io->data;
    if (m->append_entries.term >= r->current_term && r->state == RAFT_FOLLOWER) {
        settle_configuration(r, &m->append_entries);
    }
    deliver(im, m);
}

/* G9: libraft takes the index of the first new entry for that of a configuration among them. So
 * each configuration starts a message. */
static void deliver_split(struct raft_io_impl *im, struct raft_message *m)
{
    struct raft_append_entries *a = &m->append_entries;
    unsigned first = 0;
    for (unsigned i = 1; i < a->n_entries; i++) {
        if (a->entries[i].type == RAFT_CHANGE) {
            struct raft_message part = part_of(m, first, i - first);
            deliver_entries(im, &part);
            first = i;
        }
    }
    if (first == 0) {
        deliver_entries(im, m);
        return;
    }
    struct raft_message part = part_of(m, first, a->n_entries - first);
    raft_msg_release(m);
    deliver_entries(im, &part);
}

static int receive_append_entries(struct raft_io_impl *im, struct raft_message *m)
{
    const struct raft *r = im->io->data;
    if (m->append_entries.term >= r->current_term) {
        if (r->state == RAFT_LEADER && m->append_entries.term == r->current_term) {
            return -ERR_MALFORMED; /* G12: we are the only leader of this term */
        }
        if (!r->snapshot.installing) {
            skip_compacted(r, m);
        }
        if (contradicts(r, &m->append_entries)) {
            return -ERR_DIVERGED;
        }
    }
    im->handling_term = m->append_entries.term;
    deliver_split(im, m);
    im->handling_term = 0;
    return 0;
}

/* --- the others --- */

static int receive_install_snapshot(struct raft_io_impl *im, struct raft_message *m)
{
    const struct raft *r = im->io->data;
    const struct raft_install_snapshot *s = &m->install_snapshot;
    if (r->state == RAFT_LEADER && s->term == r->current_term) {
        return -ERR_MALFORMED; /* G12 */
    }
    uint64_t have = raft_peek_term(r, s->last_index);
    if (s->term >= r->current_term && s->last_index <= r->commit_index && have != 0 &&
        have != s->last_term) {
        return -ERR_DIVERGED; /* G12: it would take back what is committed */
    }
    /* G4: libraft crashes when one comes while our own is stored. G15: and leaks one that comes
     * while another is. The leader sends it again. */
    if (im->taking || im->installing || r->snapshot.installing) {
        raft_msg_release(m);
        return 0;
    }
    im->handling_term = s->term;
    deliver(im, m);
    im->handling_term = 0;
    return 0;
}

static void receive_append_result(struct raft_io_impl *im, struct raft_message *m)
{
    struct raft *r = im->io->data;
    struct raft_append_entries_result *a = &m->append_entries_result;
    raft_index match = 0;
    if (a->term == r->current_term && a->rejected > 0 &&
        raft_match_index(r, m->server_id, &match) == 0) {
        /* G13: messages overtake each other. libraft would set next_index below match_index and
         * send that member nothing any more. */
        if (a->rejected <= match) {
            return;
        }
        if (a->last_log_index < match) {
            a->last_log_index = match;
        }
    }
    deliver(im, m);
}

/* G18: who heard its leader within the minimum election timeout gives nobody else its vote (Ongaro,
 * "Consensus: Bridging Theory and Practice", 4.2.3). libraft refuses until its own randomised timer, of
 * one to two timeouts, has run out: an election had to wait for the slowest of a majority instead of the
 * fastest. One heartbeat less, for the leader's last may have come to us later than to the candidate. */
static void forget_silent_leader(struct raft_io_impl *im)
{
    struct raft *r = im->io->data;
    if (r->state != RAFT_FOLLOWER || r->follower_state.current_leader.id == 0 ||
        r->snapshot.installing) {
        return;
    }
    uint64_t heard = raft_io_heard_ms(im->io, r->follower_state.current_leader.id);
    uint64_t silent = im->env->mono_ms(im->env->data) - heard;
    if (silent + r->heartbeat_timeout >= r->election_timeout) {
        raft_peek_forget_leader(r);
    }
}

/* G21: libraft refuses its vote while its own configuration does not make it a voter. But the candidate's may:
 * a lone voter that stopped just after it made this member the second one cannot lead again without it. A
 * vote is given by the logs alone, whatever the configuration (Ongaro, 4.1); who asks decides whether it
 * counts. */
static struct raft_server *own_server(struct raft *r)
{
    for (unsigned i = 0; i < r->configuration.n; i++) {
        if (r->configuration.servers[i].id == r->id) {
            return &r->configuration.servers[i];
        }
    }
    return NULL;
}

static void receive_request_vote(struct raft_io_impl *im, struct raft_message *m)
{
    struct raft *r = im->io->data;
    struct raft_server *self = own_server(r);
    int role = self == NULL ? RAFT_VOTER : self->role;
    if (self != NULL && !PLANTED("vote_kept_from_the_first")) {
        self->role = RAFT_VOTER;
    }
    forget_silent_leader(im);
    deliver(im, m);
    self = own_server(r);
    if (self != NULL && role != RAFT_VOTER) {
        self->role = role; /* for the question only */
    }
}

static int receive(struct raft_io_impl *im, struct raft_message *m)
{
    const struct raft *r = im->io->data;
    switch (m->type) {
        case RAFT_REQUEST_VOTE:
            if (m->request_vote.candidate_id != m->server_id) {
                return -ERR_MALFORMED; /* it asks for somebody else */
            }
            /* G22: it forgot whom it gave its vote, and what it stored: a candidate that has not heard of
             * its leaving the vote would count it. */
            if (raft_io_is_silent(im)) {
                raft_msg_release(m);
                return 0;
            }
            receive_request_vote(im, m);
            return 0;
        case RAFT_REQUEST_VOTE_RESULT:
            /* G11: otherwise it looks into what is another state's memory. */
            if (r->state == RAFT_CANDIDATE) {
                deliver(im, m);
            }
            return 0;
        case RAFT_APPEND_ENTRIES:
            return receive_append_entries(im, m);
        case RAFT_APPEND_ENTRIES_RESULT:
            receive_append_result(im, m);
            return 0;
        case RAFT_INSTALL_SNAPSHOT:
            return receive_install_snapshot(im, m);
        case RAFT_TIMEOUT_NOW:
            if (raft_io_is_silent(im)) {
                raft_msg_release(m);
            } else {
                deliver(im, m);
            }
            return 0;
    }
    return -ERR_MALFORMED;
}

static void sender_address(const struct raft *r, raft_id from, char *out, size_t size)
{
    (void)snprintf(out, size, "%llu", from); /* not in our configuration, or not yet */
    for (unsigned i = 0; i < r->configuration.n; i++) {
        if (r->configuration.servers[i].id == from) {
            (void)snprintf(out, size, "%s", r->configuration.servers[i].address);
        }
    }
}

static int receive_bytes(struct raft_io *io, raft_id from, struct blob bytes, bool unpacked)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    if (im->recv_cb == NULL || im->closing || im->failed) {
        return -ERR_CLOSED;
    }
    struct raft_message m;
    struct raft_digest digest;
    int rc = unpacked ? raft_msg_decode_unpacked(bytes, &m, &digest)
                      : raft_msg_decode(bytes, &m, &digest);
    if (rc != 0) {
        return rc;
    }
    bool other = digest.epoch != im->epoch ||
                 memcmp(digest.lineage, im->lineage, sizeof im->lineage) != 0;
    if (im->fenced || (other && !PLANTED("epoch_not_compared"))) {
        raft_msg_release(&m);
        if (im->env->other_epoch != NULL && !im->fenced) {
            im->env->other_epoch(im->env->data, from, digest.epoch);
        }
        return 0;
    }
    struct raft_io_peer *peer = raft_io_peer_of(im, from);
    if (shows_old_disk(im, peer, &digest)) {
        raft_msg_release(&m);
        return 0;
    }
    uint64_t term = term_of(&m);
    m.server_id = from;
    /* A copy: libraft may replace its configuration while it handles the message. */
    char address[ADDRESS_MAX_BYTES + 1];
    sender_address(io->data, from, address, sizeof address);
    m.server_address = address;
    rc = receive(im, &m);
    if (rc != 0) {
        raft_msg_release(&m);
        return rc;
    }
    note_word(im, peer, term);
    if (im->digest_ops != NULL && !im->failed && !im->closing) {
        im->digest_ops->in(im->digest_data, from, &digest);
    }
    return 0;
}

int raft_io_receive(struct raft_io *io, raft_id from, struct blob bytes)
{
    return receive_bytes(io, from, bytes, false);
}

int raft_io_receive_unpacked(struct raft_io *io, raft_id from, struct blob bytes)
{
    return receive_bytes(io, from, bytes, true);
}
