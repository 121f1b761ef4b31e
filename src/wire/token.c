#include "wire/token.h"

#include "base/text.h"

#include <ctype.h>

#define FIXED_BYTES (16 + 32 + 32)

void token_format(const struct join_token *t, struct buf *out)
{
    struct buf raw;
    buf_init(&raw, FIXED_BYTES + TOKEN_ADDRESSES_MAX);
    buf_add(&raw, t->cluster_id.b, 16);
    buf_add(&raw, t->root_fingerprint, 32);
    buf_add(&raw, t->secret, 32);
    buf_add_str(&raw, t->addresses);
    buf_add_str(out, TOKEN_PREFIX);
    b64url_encode(buf_blob(&raw), out);
    buf_wipe(&raw);
}

int token_parse(const char *text, size_t len, struct join_token *ret, struct errmsg *em)
{
    while (len > 0 && isspace((unsigned char)text[0])) {
        text++;
        len--;
    }
    while (len > 0 && isspace((unsigned char)text[len - 1])) {
        len--;
    }
    size_t prefix = strlen(TOKEN_PREFIX);
    if (len < prefix || memcmp(text, TOKEN_PREFIX, prefix) != 0) {
        return errmsg_set(em, -ERR_MALFORMED, "a join token begins with " TOKEN_PREFIX);
    }
    struct buf raw;
    buf_init(&raw, FIXED_BYTES + TOKEN_ADDRESSES_MAX);
    int rc = b64url_decode(text + prefix, len - prefix, &raw);
    struct blob tail = blob_of(NULL, 0);
    if (rc == 0 && raw.len > FIXED_BYTES) {
        tail = blob_of(raw.data + FIXED_BYTES, raw.len - FIXED_BYTES);
    }
    if (tail.len == 0 || !text_is_clean((const char *)tail.data, tail.len)) {
        rc = errmsg_set(em, -ERR_MALFORMED, "join token is damaged: copy it whole");
        goto out;
    }
    memcpy(ret->cluster_id.b, raw.data, 16);
    memcpy(ret->root_fingerprint, raw.data + 16, 32);
    memcpy(ret->secret, raw.data + 48, 32);
    memcpy(ret->addresses, tail.data, tail.len);
    ret->addresses[tail.len] = '\0';
out:
    buf_wipe(&raw);
    return rc;
}
