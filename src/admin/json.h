/* JSON text to documents (msgpack, wire/mp.h) and back. The only user of jansson.
 *
 * Some columns hold JSON as text (facts, policy, ...: json_is_text_column). In JSON they are shown
 * as what they hold; in a document they stay text. So JSON -> document -> JSON loses nothing,
 * although documents have no fractions. */
#ifndef RAP_ADMIN_JSON_H
#define RAP_ADMIN_JSON_H

#include "base/buf.h"
#include "base/err.h"

#define JSON_TEXT_MAX (1u << 20)

/* One object, nothing after it; no duplicate keys, no fractions outside text columns, no NUL, at
 * most MP_DEPTH_MAX - 1 levels. Appends the document to out, whose maximum is the bound. On error
 * out is as it was. -ERR_MALFORMED (em says where), -ERR_TOO_LARGE. */
int json_to_doc(struct blob text, struct buf *out, struct errmsg *em);

enum json_flags {
    JSON_HIDE = 1, /* leave out top-level keys that begin with '_' */
    JSON_NICE = 2, /* indented, for people */
};
/* One value of any type. Bytes become hex; text that is not UTF-8 becomes hex too. -ERR_MALFORMED,
 * -ERR_TOO_LARGE (out's maximum). */
int json_from_doc(struct blob doc, unsigned flags, struct buf *out);

bool json_is_text_column(struct blob key);

#endif
