/* The owner directory: root.key and root.crt, which only commands that a person gives read (DESIGN
 * D7). */
#ifndef RAP_ADMIN_CLI_OWNER_H
#define RAP_ADMIN_CLI_OWNER_H

#include "admin/cli_priv.h"
#include "pki/pki.h"

struct cli_owner {
    struct pki_key *key;
    struct buf root_der;
};

/* --owner-dir, or DATA-DIR/owner/CLUSTER-ID; asks for the passphrase when there is one. Exit code,
 * with what is wrong said; on CLI_OK the caller closes it. */
int cli_owner_open(struct cli *c, const struct uuid *cluster_id, struct cli_owner *ret);
void cli_owner_close(struct cli_owner *o);

/* Signs the issuing CA that spec describes (kind, serial and times are set here). Exit code. */
int cli_owner_certify(struct cli *c, const struct cli_owner *o, struct pki_cert *spec,
                      struct buf *ret_der);

/* cli_recover.c: shows what a recovery would do, asks, signs. Exit code. */
int cli_consent(struct cli *c, struct blob doc, struct cli_consent *ret);

#endif
