/* Hex and unpadded base64url (RFC 4648 section 5). Decoders are strict: no white space, no
 * padding, one spelling per value. Outputs are untouched on error. */
#ifndef RAP_BASE_TEXT_H
#define RAP_BASE_TEXT_H

#include "base/buf.h"

/* out holds 2 * len + 1 bytes. */
void hex_encode(const uint8_t *data, size_t len, char *out);
/* Exactly len bytes from 2 * len digits, either case. -ERR_INVALID. */
int hex_decode(const char *text, uint8_t *out, size_t len);

void b64url_encode(struct blob in, struct buf *out);
int b64url_decode(const char *text, size_t len, struct buf *out);

/* Valid UTF-8 (RFC 3629) without NUL. */
bool text_is_utf8(const char *s, size_t len);
/* Valid UTF-8 without control characters. */
bool text_is_clean(const char *s, size_t len);
/* 1-63 of [a-z0-9-], no dash at either end (RFC 1123 label): names of clusters and nodes. One
 * case only, so no two names look alike. */
bool text_is_name(const char *s, size_t len);

#endif
