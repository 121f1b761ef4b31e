/* Towards the network: what libraft wants sent, as far as others may have it (the guards of raft_io.h). */
#include "authority/raft_io_impl.h"

#include "base/log.h"

/* Of entries that are sent to a silent member again. */
#define REPEAT_BYTES ((size_t)64 << 10)

/* Others remember what this member acknowledged before it lost its log; by now it holds that again, or what
 * took its place. It says so as if it had started with it, or it would be called one with an old disk. */
static void speak_again(struct raft_io_impl *im)
{
    if (im->was_silent && !raft_io_is_silent(im)) {
        im->was_silent = false;
        im->boot = im->env->random(im->env->data) | 1;
        im->boot_term = im->term;
        im->boot_index = im->silent_until;
    }
}

/* false: it will not arrive. */
static bool transmit(struct raft_io_impl *im, const struct raft_message *m)
{
    struct raft_digest digest = {0};
    speak_again(im);
    if (im->digest_ops != NULL) {
        im->digest_ops->out(im->digest_data, &digest);
    }
    digest.epoch = im->epoch;
    memcpy(digest.lineage, im->lineage, sizeof digest.lineage);
    digest.boot = im->boot;
    digest.boot_term = im->boot_term;
    digest.boot_index = im->boot_index;
    buf_clear(&im->out);
    int rc = raft_msg_encode(m, &digest, &im->out);
    if (rc != 0) {
        static struct log_limit limit;
        if (log_allow(&limit, 10)) {
            log_error(LOG_AUTHORITY, "raft message not sent", "type=%d why=\"%s\"", (int)m->type,
                      err_text(rc));
        }
        return false;
    }
    bool image = m->type == RAFT_INSTALL_SNAPSHOT;
    bool sent = (image ? im->net->ops->send_image : im->net->ops->send)(im->net, m->server_id,
                                                                        buf_blob(&im->out));
    if (im->out.cap > RAFT_MSG_APPEND_BYTES) {
        buf_fini(&im->out); /* an image is rare and large */
    }
    return sent;
}

/* G19: until a member answers, libraft sends it everything from the same place on at each heartbeat: up to
 * MAX_INFLIGHT_ENTRIES of some kilobytes each, twenty times a second, for as long as it is away. The
 * first few tell as much. libraft draws no conclusion from entries it has sent in this state. */
static size_t send_bound(struct raft_io_impl *im, const struct raft_message *m)
{
    const struct raft_append_entries *a = &m->append_entries;
    if (a->n_entries == 0) {
        return RAFT_MSG_APPEND_BYTES;
    }
    struct raft_io_peer *p = raft_io_peer_of(im, m->server_id);
    bool again = p->sent_ms != 0 && p->sent_prev == a->prev_log_index && p->heard_ms < p->sent_ms;
    p->sent_prev = a->prev_log_index;
    if (!again) {
        p->sent_ms = im->env->mono_ms(im->env->data);
    }
    return again ? REPEAT_BYTES : RAFT_MSG_APPEND_BYTES;
}

/* G23: a change that takes its vote from a member is for that member when it is committed, not before. libraft
 * lets who stored such a change neither vote nor stand, committed or not; it is needed for both as long as
 * whoever leads next may hold less (Ongaro's thesis, section 4.2.2). Of two voters the one would hold the
 * longer log and be silent, the other would wait for its vote for ever. It is not needed for the change: the
 * majority that commits it is one without it.
 * Returns how many of the entries it may have now. libraft takes the others for lost, and sends them again. */
static unsigned may_have(const struct raft *r, raft_id to, const struct raft_append_entries *a)
{
    if (!raft_io_votes(&r->configuration_committed, to) ||
        PLANTED("demotion_sent_to_the_demoted")) {
        return a->n_entries;
    }
    for (unsigned i = 0; i < a->n_entries; i++) {
        const struct raft_entry *e = &a->entries[i];
        struct raft_configuration conf;
        if (e->type != RAFT_CHANGE || a->prev_log_index + 1 + i <= a->leader_commit ||
            raft_msg_change_decode(blob_of(e->buf.base, e->buf.len), &conf) != 0) {
            continue;
        }
        bool votes = raft_io_votes(&conf, to);
        raft_configuration_close(&conf);
        if (!votes) {
            return i;
        }
    }
    return a->n_entries;
}

/* libraft bounds a message by entries, not bytes: large ones go as several, which a follower cannot
 * tell from several sent in a row. */
static void send_append_entries(struct raft_io_impl *im, const struct raft_message *message)
{
    struct raft_message part = *message;
    struct raft_append_entries *a = &part.append_entries;
    a->n_entries = may_have(im->io->data, message->server_id, a);
    unsigned left = a->n_entries;
    size_t bound = send_bound(im, &part);
    bool more;
    do {
        unsigned n = 0;
        size_t bytes = 0;
        while (n < left && n < RAFT_MSG_ENTRIES_MAX &&
               (n == 0 || bytes + a->entries[n].buf.len <= bound)) {
            bytes += a->entries[n].buf.len;
            n++;
        }
        a->n_entries = n;
        more = transmit(im, &part) && bound == RAFT_MSG_APPEND_BYTES;
        if (n > 0) {
            a->prev_log_index += n;
            a->prev_log_term = a->entries[n - 1].term;
            a->entries += n;
        }
        left -= n;
    } while (left > 0 && more);
}

static void send_message(struct raft_io_impl *im, const struct raft_message *message)
{
    struct raft_message m = *message;
    switch (m.type) {
        case RAFT_APPEND_ENTRIES:
            send_append_entries(im, &m);
            return;
        case RAFT_APPEND_ENTRIES_RESULT: {
            struct raft_append_entries_result *a = &m.append_entries_result;
            /* G10: a leader of the new term that gets such a number late would take it for what
             * we store, and commit what nobody holds. */
            if (im->handling_term != 0 && im->handling_term < a->term) {
                a->last_log_index = a->rejected > 0 ? a->rejected - 1 : 0;
            }
            break;
        }
        case RAFT_INSTALL_SNAPSHOT:
            /* G7: no answer yet is not a reason to send it all again. */
            if (m.install_snapshot.data.len == 0 ||
                im->net->ops->snapshot_in_flight(im->net, m.server_id)) {
                return;
            }
            if (m.install_snapshot.last_index == im->got_index) {
                m.install_snapshot.last_term = im->got_term;
            }
            break;
        case RAFT_REQUEST_VOTE:
            if (raft_io_is_silent(im)) {
                return;
            }
            break;
        case RAFT_REQUEST_VOTE_RESULT:
        case RAFT_TIMEOUT_NOW:
            break;
    }
    (void)transmit(im, &m);
}

/* G1: always 0. An error would make raft_apply fail after its entry is in the log. */
int raft_io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
                 raft_io_send_cb cb)
{
    struct raft_io_impl *im = raft_io_impl_of(io);
    if (!im->closing && !im->failed && !im->fenced) {
        send_message(im, message);
    }
    cb(req, im->closing ? RAFT_CANCELED : 0);
    return 0;
}
