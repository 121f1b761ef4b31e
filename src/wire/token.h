/* The join token a person carries to a new host:
 *   rapj1_ base64url( cluster id 16 | root key fingerprint 32 | secret 32 | address, ... )
 * addresses are comma-separated host:port text (DESIGN section 4). The last one may be a pin instead,
 * "#epoch.seq.hash" of the authority set there was when the token was made; a host of a version that knows
 * no pins takes it for an address that does not resolve, and goes on. */
#ifndef RAP_WIRE_TOKEN_H
#define RAP_WIRE_TOKEN_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "wire/limits.h"

#define TOKEN_PREFIX "rapj1_"
#define TOKEN_ADDRESSES_MAX (AUTHORITIES_MAX * ADDRESS_MAX_BYTES)
#define TOKEN_TEXT_MAX 4096

/* A host that joins knows no authority set: it is to believe this one or a later one (decision 0018). */
struct set_pin {
    uint64_t epoch, seq; /* 0: none */
    uint8_t hash[32];    /* of its statement */
};
#define SET_PIN_TEXT_MAX 128
void set_pin_format(const struct set_pin *p, char out[SET_PIN_TEXT_MAX]);
/* -ERR_MALFORMED. */
int set_pin_parse(const char *text, struct set_pin *ret);

struct join_token {
    struct uuid cluster_id;
    uint8_t root_fingerprint[32];
    uint8_t secret[32];
    char addresses[TOKEN_ADDRESSES_MAX + SET_PIN_TEXT_MAX +
                   2]; /* room for the pin while it is read */
    struct set_pin pin;
};

void token_format(const struct join_token *t, struct buf *out);
/* Surrounding white space is ignored. -ERR_MALFORMED. Never logs the text. */
int token_parse(const char *text, size_t len, struct join_token *ret, struct errmsg *em);

#endif
