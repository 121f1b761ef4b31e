/* The owner directory: the one place where root keys are, and only commands of the owner read it.
 *
 *   root.key root.crt            the active root
 *   root-<16 hex digits>/        each root of a rotation under its fingerprint, the active one too:
 *       root.key root.crt        nothing is moved, so a rotation may be cut off anywhere */
#ifndef RAP_ADMIN_CLI_OWNER_H
#define RAP_ADMIN_CLI_OWNER_H

#include "admin/cli_util.h"
#include "pki/pki.h"

struct owner_root {
    char *dir; /* of this root */
    struct pki_key *key;
    struct pki_cert cert;
    struct buf der;
};

/* The owner directory of this cluster: --owner-dir, or where `rap init` put it. Caller frees. */
char *owner_dir(struct cli *c, const struct uuid *cluster_id);
/* The root with this fingerprint (hex); NULL: that of root.key. Asks for its passphrase if it must.
 * Exit code; on an error ret is
 * closed already, and closing it again is harmless. */
int owner_open(struct cli *c, const struct uuid *cluster_id, const char *fingerprint,
               struct owner_root *ret);
/* A new root key and certificate in a directory of its own, under the passphrase given; the active
 * root is copied into one too. */
int owner_create(struct cli *c, const struct uuid *cluster_id, struct owner_root *ret);
/* root.key and root.crt become those of this root, which has a directory of its own. */
int owner_set_active(struct cli *c, const struct owner_root *root);
void owner_close(struct owner_root *root);
/* Issues the CA certificate that spec describes (node, cluster, key), valid from now for
 * --ca-lifetime. */
int owner_certify(struct cli *c, const struct owner_root *root, struct pki_cert *spec,
                  struct buf *out);

/* Of a trust document (GET /v1/trust). */
int owner_read_trust(struct cli *c, struct blob trust, struct uuid *ret_cluster_id,
                     char ret_active[2 * PKI_HASH_BYTES + 1]);
/* What the CA certificate of this authority (name, id, prefix of an id) says now. */
int owner_find_issuer(struct cli *c, struct blob trust, const char *authority,
                      struct pki_cert *ret);
/* A PEM file with one certificate. der is initialised by the caller. */
int owner_read_cert(const char *path, struct buf *der, struct pki_cert *ret, struct errmsg *em);
/* A certificate in hex, as documents have them. -ERR_BAD_CERT. */
int owner_parse_hex(struct blob hex, struct pki_cert *ret);

/* cli_backup.c: root.crt of --owner-dir, DER; nothing without that option. out is initialised here. */
int cli_read_root(struct cli *c, struct buf *out, struct errmsg *em);

/* cli_recover.c: shows what a recovery would do, asks, signs. Exit code. */
int cli_consent(struct cli *c, struct blob doc, struct cli_consent *ret);
/* An act of the owner's while the agent is stopped: what was planned, and the exit code of who was
 * asked about it. */
struct cli_offline {
    struct cli *c;
    int exit;
    struct buf doc;
};
/* A cli_consent_cb for it: asks as cli_consent does; -ERR_CANCELED when the answer is no, or nothing
 * is to be done (--dry-run). */
int cli_on_plan(void *data, struct blob doc, struct cli_consent *ret);

#endif
