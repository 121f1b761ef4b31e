/* MessagePack (the msgpack.org specification of 2017), writing through msgpack-c's packer and
 * reading with a bounded cursor of our own: no allocation, a depth limit, and one sticky error, so
 * a caller reads everything and checks once. After an error every read returns zero or empty.
 *
 * Views returned by the reader point into its input. */
#ifndef RAP_WIRE_MP_H
#define RAP_WIRE_MP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"

#define MP_DEPTH_MAX 16

struct mp_writer {
    struct buf *out; /* not owned; its maximum is the bound */
};

void mp_writer_init(struct mp_writer *w, struct buf *out);
void mp_put_nil(struct mp_writer *w);
void mp_put_bool(struct mp_writer *w, bool v);
void mp_put_u64(struct mp_writer *w, uint64_t v);
void mp_put_i64(struct mp_writer *w, int64_t v);
void mp_put_str(struct mp_writer *w, const char *s);
void mp_put_strn(struct mp_writer *w, const char *s, size_t len);
void mp_put_bin(struct mp_writer *w, struct blob v);
void mp_put_uuid(struct mp_writer *w, const struct uuid *u);
void mp_put_array(struct mp_writer *w, uint32_t count);
void mp_put_map(struct mp_writer *w, uint32_t count);
/* Bytes that are one encoded value already. */
void mp_put_raw(struct mp_writer *w, struct blob encoded);

/* Documents for people and the API: maps with string keys. The count is written when it is known,
 * as a fixed-size header: mp_doc_begin, any number of (mp_put_str key, value), mp_doc_end. */
struct mp_doc {
    size_t at;
    uint32_t count;
};
void mp_doc_begin(struct mp_writer *w, struct mp_doc *d);
void mp_doc_key(struct mp_writer *w, struct mp_doc *d, const char *key);
void mp_doc_str(struct mp_writer *w, struct mp_doc *d, const char *key, const char *v);
void mp_doc_int(struct mp_writer *w, struct mp_doc *d, const char *key, int64_t v);
void mp_doc_bool(struct mp_writer *w, struct mp_doc *d, const char *key, bool v);
void mp_doc_uuid(struct mp_writer *w, struct mp_doc *d, const char *key, const struct uuid *u);
/* As lower-case hex. */
void mp_doc_hex(struct mp_writer *w, struct mp_doc *d, const char *key, struct blob v);
/* As RFC 3339 text; 0 is nil. */
void mp_doc_time(struct mp_writer *w, struct mp_doc *d, const char *key, int64_t wall_ms);
/* Copies every pair of an encoded document (a valid map) into the open one. */
void mp_doc_copy(struct mp_writer *w, struct mp_doc *d, struct blob doc);
void mp_doc_end(struct mp_writer *w, struct mp_doc *d);
/* The same trick for an array whose length is found on the way: count items yourself. */
size_t mp_list_begin(struct mp_writer *w);
void mp_list_end(struct mp_writer *w, size_t at, uint32_t count);

enum mp_type { MP_NIL, MP_BOOL, MP_UINT, MP_INT, MP_STR, MP_BIN, MP_ARRAY, MP_MAP, MP_BAD };

struct mp_reader {
    const uint8_t *p;
    const uint8_t *end;
    int err; /* 0, -ERR_MALFORMED or -ERR_TOO_LARGE; sticky */
};

void mp_reader_init(struct mp_reader *r, struct blob in);
/* The type of the next value; MP_BAD at the end of input or on error (floats and extensions are
 * bad: nothing of ours uses them). MP_INT is a negative integer. */
enum mp_type mp_peek(const struct mp_reader *r);
void mp_get_nil(struct mp_reader *r);
bool mp_get_bool(struct mp_reader *r);
uint64_t mp_get_u64(struct mp_reader *r);
int64_t mp_get_i64(struct mp_reader *r);
struct blob mp_get_str(struct mp_reader *r, size_t max);
struct blob mp_get_bin(struct mp_reader *r, size_t max);
struct uuid mp_get_uuid(struct mp_reader *r);
uint32_t mp_get_array(struct mp_reader *r, uint32_t max);
uint32_t mp_get_map(struct mp_reader *r, uint32_t max);
/* Skips one value of any type, nested at most MP_DEPTH_MAX deep; returns its bytes. */
struct blob mp_skip(struct mp_reader *r);
void mp_fail(struct mp_reader *r, int rc);
/* 0 when all was read without error and nothing is left, else the error. */
int mp_reader_finish(const struct mp_reader *r);

/* Finds a string key in a document (a map at the start of `in`); the value's bytes, or len 0. */
struct blob mp_find(struct blob in, const char *key);
/* Conveniences over mp_find: "" / 0 / false when absent or of another type. The string is copied
 * and truncated to out_size - 1. */
void mp_find_str(struct blob in, const char *key, char *out, size_t out_size);
int64_t mp_find_int(struct blob in, const char *key);
bool mp_find_bool(struct blob in, const char *key);

#endif
