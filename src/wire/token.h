/* The join token a person carries to a new host:
 *   rapj1_ base64url( cluster id 16 | root key fingerprint 32 | secret 32 | address, ... )
 * addresses are comma-separated host:port text (DESIGN section 4). */
#ifndef RAP_WIRE_TOKEN_H
#define RAP_WIRE_TOKEN_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "wire/limits.h"

#define TOKEN_PREFIX "rapj1_"
#define TOKEN_ADDRESSES_MAX (AUTHORITIES_MAX * ADDRESS_MAX_BYTES)
#define TOKEN_TEXT_MAX 4096

struct join_token {
    struct uuid cluster_id;
    uint8_t root_fingerprint[32];
    uint8_t secret[32];
    char addresses[TOKEN_ADDRESSES_MAX + 1];
};

void token_format(const struct join_token *t, struct buf *out);
/* Surrounding white space is ignored. -ERR_MALFORMED. Never logs the text. */
int token_parse(const char *text, size_t len, struct join_token *ret, struct errmsg *em);

#endif
