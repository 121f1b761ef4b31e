/* Just enough DER (X.690) to write our own certificates and requests, and to walk through one that
 * somebody shows us. Strictness does not live here: a reader takes out what varies, writes the whole
 * thing anew from that, and compares the bytes. */
#ifndef RAP_PKI_DER_H
#define RAP_PKI_DER_H

#include "base/buf.h"

#define DER_BOOLEAN 0x01
#define DER_INTEGER 0x02
#define DER_BIT_STRING 0x03
#define DER_OCTET_STRING 0x04
#define DER_OID 0x06
#define DER_UTF8 0x0c
#define DER_UTC_TIME 0x17
#define DER_GENERALIZED_TIME 0x18
#define DER_SEQUENCE 0x30
#define DER_SET 0x31
#define DER_CONTEXT(n) (0x80 | (n))             /* primitive */
#define DER_CONTEXT_CONSTRUCTED(n) (0xa0 | (n))

/* A value whose length is found on the way: begin, write the content, end. */
size_t der_begin(struct buf *out, uint8_t tag);
void der_end(struct buf *out, size_t at);
void der_put(struct buf *out, uint8_t tag, struct blob content);
/* Bytes that are DER already. */
void der_put_raw(struct buf *out, struct blob encoded);

struct der_reader {
    const uint8_t *p;
    const uint8_t *end;
    bool bad; /* sticky; every later read is empty */
};

void der_reader_init(struct der_reader *r, struct blob in);
bool der_at_end(const struct der_reader *r);
/* The tag of the next value; 0 at the end. */
uint8_t der_peek(const struct der_reader *r);
/* The content of the next value, which must have this tag and a definite, shortest length. */
struct blob der_take(struct der_reader *r, uint8_t tag);
/* The next value with its head, whatever its tag. */
struct blob der_take_any(struct der_reader *r);
/* A reader over the content of the next value. */
struct der_reader der_enter(struct der_reader *r, uint8_t tag);

#endif
