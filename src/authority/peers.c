/* What the applied state knows of a peer: a certificate alone, whoever signed it, is not enough. */
#include "authority/authority_impl.h"

#include "base/text.h"

static bool knows(struct authority *a, const struct fabric_peer *peer, const char *sql)
{
    char id[UUID_TEXT_MAX];
    char fingerprint[2 * PKI_HASH_BYTES + 1];
    uuid_format(&peer->identity.node_id, id);
    hex_encode(peer->identity.fingerprint, PKI_HASH_BYTES, fingerprint);
    struct db_stmt *st = db_prepare(state_db(a), sql);
    db_bind_text(st, id);
    db_bind_text(st, fingerprint);
    bool known = peer->authenticated && db_step(st) == 1;
    db_done(st);
    return known;
}

bool authority_knows(struct authority *a, const struct fabric_peer *peer)
{
    return knows(a, peer,
                 "SELECT 1 AS known FROM nodes n JOIN cluster_memberships m ON m.node_id = n.id"
                 " WHERE n.id = ? AND n.fingerprint = ? AND m.membership_status = 'active'");
}

bool authority_tells(struct authority *a, const struct fabric_peer *peer)
{
    return knows(a, peer,
                 "SELECT 1 AS known FROM nodes n JOIN cluster_memberships m ON m.node_id = n.id"
                 " WHERE n.id = ? AND n.fingerprint = ?"
                 " AND m.membership_status IN ('active', 'disabled')");
}

bool authority_lists(struct authority *a, const struct pki_identity *who)
{
    const struct fabric_peer peer = {.authenticated = true, .identity = *who};
    return authority_tells(a, &peer);
}
