/* Messages: one field list makes the struct, its encoder, decoder and comparison.
 *
 *     #define PING_FIELDS(X, T)                 T, key, type, name, max (bytes or items), flags
 *         X(T, 1, U64, seq, 0, MSG_REQUIRED)
 *         X(T, 2, STR, note, 64, 0)
 *     MSG_DECLARE(ping, PING_FIELDS)               in the header: struct ping, ping_desc
 *     MSG_DEFINE(ping, PING_FIELDS)                in one .c file
 *
 *     msg_encode(&ping_desc, &p, &buf);            rc = msg_decode(&ping_desc, MSG_LENIENT, in, &p);
 *
 * On the wire a message is a map with integer keys. A field that is zero, empty or nil is left out;
 * absent reads as zero. Keys rise. A retired key is never used again. */
#ifndef RAP_WIRE_MSG_H
#define RAP_WIRE_MSG_H

#include "wire/mp.h"

/* Encoded array: `count` values in `raw` (each a value mp_skip accepts). The reader loops:
 *     struct mp_reader r; mp_reader_init(&r, list.raw); for (i < list.count) ... */
struct mp_list {
    struct blob raw;
    uint32_t count;
};

enum msg_type {
    MSG_U64,  /* uint64_t */
    MSG_I64,  /* int64_t */
    MSG_FLAG, /* bool */
    MSG_STR,  /* struct blob, clean UTF-8 (text_is_clean), at most max bytes */
    MSG_BIN,  /* struct blob, at most max bytes */
    MSG_FIX,  /* struct blob, exactly max bytes or absent */
    MSG_ID,   /* struct uuid */
    MSG_LIST, /* struct mp_list, at most max items */
};
#define MSG_CTYPE_U64 uint64_t
#define MSG_CTYPE_I64 int64_t
#define MSG_CTYPE_FLAG bool
#define MSG_CTYPE_STR struct blob
#define MSG_CTYPE_BIN struct blob
#define MSG_CTYPE_FIX struct blob
#define MSG_CTYPE_ID struct uuid
#define MSG_CTYPE_LIST struct mp_list

enum msg_flags { MSG_REQUIRED = 1 };

struct msg_field {
    uint8_t key;
    uint8_t type;
    uint8_t flags;
    uint16_t offset;
    size_t max;
    const char *name;
};

struct msg_desc {
    const char *name;
    const struct msg_field *fields; /* keys rise */
    size_t count;
    size_t size; /* of the struct */
};

#define MSG_MEMBER_(T, key, type, name, max, flags) MSG_CTYPE_##type name;
#define MSG_DECLARE(T, FIELDS)   \
    struct T {                   \
        FIELDS(MSG_MEMBER_, T)   \
    };                           \
    extern const struct msg_desc T##_desc;

#define MSG_ROW_(T, key_, type_, name_, max_, flags_) \
    {key_, MSG_##type_, flags_, offsetof(struct T, name_), max_, #name_},
#define MSG_DEFINE(T, FIELDS)                                            \
    static const struct msg_field T##_fields[] = {FIELDS(MSG_ROW_, T)};  \
    const struct msg_desc T##_desc = {#T, T##_fields, ARRAY_SIZE(T##_fields), sizeof(struct T)};

enum msg_mode {
    MSG_LENIENT, /* unknown keys are skipped: conversations between versions */
    MSG_STRICT, /* an unknown key is -ERR_UNSUPPORTED: log commands, where skipping would diverge */
};

/* Appends to out (check out->err). */
void msg_encode(const struct msg_desc *d, const void *msg, struct buf *out);
/* The whole of `in` is one message. Views point into `in`. On error *msg is zeroed.
 * -ERR_MALFORMED (shape, duplicate or falling key, missing required field), -ERR_TOO_LARGE,
 * -ERR_UNSUPPORTED. */
int msg_decode(const struct msg_desc *d, enum msg_mode mode, struct blob in, void *msg);
bool msg_equal(const struct msg_desc *d, const void *a, const void *b);

#endif
