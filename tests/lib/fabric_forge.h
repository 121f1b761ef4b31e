/* A fabric that shows what our own code never would. */
#ifndef RAP_TESTS_FABRIC_FORGE_H
#define RAP_TESTS_FABRIC_FORGE_H

#include "fabric/fabric.h"

/* From now on f shows this chain, whatever it is, and signs with this key, whether it fits or not. f has
 * an identity already. false: the TLS library does not take it. */
bool fabric_forge_identity(struct fabric *f, const struct blob *chain, size_t count,
                           const struct pki_key *key);
/* The same for a chain of any length, once in a process, with a key that fits. */
void fabric_forge_long_chain(struct fabric *f, const struct blob *chain, size_t count,
                             const struct pki_key *key);
/* A session that was just dialled offers this protocol instead (NULL: none), and takes the tickets for
 * resumption that our own does not ask for. */
struct session;
bool fabric_forge_alpn(struct session *ss, const char *alpn);
/* One more stream on the session that s, a stream to enrol, is on. */
struct fabric_stream *fabric_forge_stream(struct fabric_stream *s, const char *service,
                                          const struct fabric_stream_vtab *vtab, void *data);
/* f shows no certificate where one is asked for. */
void fabric_forge_nobody(struct fabric *f);

#endif
