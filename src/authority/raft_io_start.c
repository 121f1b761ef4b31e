/* What a log is asked before libraft gets it. */
#include "authority/raft_io_impl.h"

/* The disk is no more to be trusted than a peer: libraft takes all this on faith. */
int raft_io_check_loaded(const struct raft_store_loaded *l, struct errmsg *em)
{
    uint64_t last_term = 1;
    if (l->has_snapshot) {
        if (l->snapshot_index == 0 || l->snapshot_term == 0 || l->snapshot_term > l->term ||
            l->snapshot_conf_index == 0 || l->snapshot_conf_index > l->snapshot_index) {
            return errmsg_set(em, -ERR_CORRUPT, "snapshot at %llu is not plausible",
                              (unsigned long long)l->snapshot_index);
        }
    }
    for (size_t i = 0; i < l->entries_count; i++) {
        const struct raft_store_entry *e = &l->entries[i];
        bool follows = i == 0 || e->index == l->entries[i - 1].index + 1;
        if (!follows || e->term < last_term || e->term > l->term ||
            (e->index == l->snapshot_index && l->has_snapshot && e->term != l->snapshot_term) ||
            raft_msg_entry_check(e->type, e->data) != 0) {
            return errmsg_set(em, -ERR_CORRUPT, "log entry %llu is not plausible",
                              (unsigned long long)e->index);
        }
        last_term = e->term;
    }
    if (l->entries_count > 0) {
        uint64_t first = l->entries[0].index;
        uint64_t oldest = l->has_snapshot ? l->snapshot_index + 1 : 1;
        if (first == 0 || first > oldest ||
            (!l->has_snapshot && l->entries[0].type != RAFT_CHANGE)) {
            return errmsg_set(em, -ERR_CORRUPT, "log starts at %llu", (unsigned long long)first);
        }
    }
    return 0;
}

/* The configuration that libraft will go by: the last one in the log, committed or not. */
static int last_configuration(const struct raft_store_loaded *l, struct raft_configuration *ret)
{
    for (size_t i = l->entries_count; i > 0; i--) {
        const struct raft_store_entry *e = &l->entries[i - 1];
        if (e->type == RAFT_CHANGE && (!l->has_snapshot || e->index > l->snapshot_index)) {
            return raft_msg_change_decode(e->data, ret);
        }
    }
    return raft_msg_conf_decode(buf_blob(&l->snapshot_conf), ret);
}

static bool is_lone_voter(raft_id id, const struct raft_store_loaded *l)
{
    struct raft_configuration c;
    unsigned others = 0;
    bool votes = false;
    if (last_configuration(l, &c) != 0) {
        return false; /* there is none yet */
    }
    for (unsigned i = 0; i < c.n; i++) {
        if (c.servers[i].role == RAFT_VOTER) {
            votes = votes || c.servers[i].id == id;
            others += c.servers[i].id != id;
        }
    }
    raft_configuration_close(&c);
    return votes && others == 0;
}

/* G20: libraft lets a lone voter lead at once, in the term it stopped in. What it had sent to members that
 * do not vote yet, and lost before it was on its own disk, would come again with other bytes under the
 * same index and term, and they would keep the old ones (Raft section 5.3 rests on one leader a term). */
int raft_io_begin_lone_term(struct raft_io_impl *im, struct raft_store_loaded *l, struct errmsg *em)
{
    const struct raft *r = im->io->data;
    if (l->term == 0 || !is_lone_voter(r->id, l) || PLANTED("lone_voter_keeps_term")) {
        return 0;
    }
    int rc = im->store->ops->set_term(im->store, l->term + 1, em);
    if (rc == 0) {
        l->term++;
        l->vote = 0;
    }
    return rc;
}
