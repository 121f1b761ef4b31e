/* The issuing CA of a node that becomes an authority (DESIGN section 4): its key is made here and
 * never leaves. What the owner signed is believed because the root signed it, not because of who
 * brought it. */
#ifndef RAP_AGENT_ISSUER_H
#define RAP_AGENT_ISSUER_H

#include "agent/member.h"

/* PREPARE: makes issuer.key, or keeps the one there is; appends a CSR for it. */
int issuer_prepare(struct member *m, struct buf *ret_csr, struct errmsg *em);
/* INSTALL: checks the CA certificate (root's signature, our cluster, our node id, our issuer key),
 * then stores it and a leaf of our own under it, with the authority name, as node.crt. Appends the
 * leaf. Asked again with the same certificate it answers the same leaf and *ret_changed is false.
 * -ERR_CONFLICT (nothing was prepared), -ERR_BAD_CERT, or as pki_chain_verify. */
struct issuer_time {
    int64_t now_ms;
    int64_t leaf_life_ms; /* of the leaf made; 0: PKI_LEAF_LIFE_MS */
};
int issuer_install(struct member *m, const struct pki_trust *t, struct blob issuer_der,
                   const struct issuer_time *time, bool *ret_changed, struct buf *ret_leaf,
                   struct errmsg *em);
/* An authority's own renewal: a fresh leaf under its own CA, stored as node.crt. */
int issuer_renew_leaf(struct member *m, const struct pki_trust *t, const struct issuer_time *time,
                      struct errmsg *em);

#endif
