/* A majority's signatures over a fake snapshot (lib/fake_cluster.h), with each part to be spoilt. */
#ifndef RAP_TESTS_FAKE_WITNESS_H
#define RAP_TESTS_FAKE_WITNESS_H

#include "lib/fake_cluster.h"
#include "pki/history.h"
#include "pki/witness.h"

#define FAKE_MEMBERS 3

struct fake_witness {
    const struct fake_cluster *cluster;
    const struct fake_node *members[FAKE_MEMBERS];
    struct witness_set set;              /* these three, by the root */
    struct buf link;                     /* the same, as nodes are sent it */
    struct history history;              /* 100 events */
    uint8_t fingerprint[PKI_HASH_BYTES]; /* of the node the snapshot is for */

    unsigned who; /* bit i: member i signs */
    int64_t signed_at_ms;
    bool show_link;
    uint64_t history_from; /* 0: no proof */
    /* To be spoilt: what the statement says differently, and what the tree was made from. */
    uint64_t index, epoch, set_seq, audit_seq; /* 0: the snapshot's, the set's */
    const struct fake_snapshot *decided;       /* NULL: what is sent */
    bool other_root, no_cluster_path, no_node_path, garbage;
};

void fake_witness_init(struct fake_witness *w, const struct fake_cluster *c,
                       const struct fake_node *const members[FAKE_MEMBERS],
                       const uint8_t fingerprint[PKI_HASH_BYTES], int64_t now_ms);
void fake_witness_fini(struct fake_witness *w);
/* Fills s->audit_seq and audit_head, and appends the whole signed message. */
void fake_witness_sign(struct fake_witness *w, struct fake_snapshot *s, struct buf *out);

#endif
