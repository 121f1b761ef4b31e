/* A fabric that shows what our own code never would. */
#ifndef RAP_TESTS_FABRIC_FORGE_H
#define RAP_TESTS_FABRIC_FORGE_H

#include "fabric/fabric.h"

/* From now on f shows this chain, whatever it is, and signs with this key, whether it fits or not. f has
 * an identity already. false: the TLS library does not take it. */
bool fabric_forge_identity(struct fabric *f, const struct blob *chain, size_t count,
                           const struct pki_key *key);
/* f shows no certificate where one is asked for. */
void fabric_forge_nobody(struct fabric *f);

#endif
