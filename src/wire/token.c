#include "wire/token.h"

#include "base/text.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>

#define FIXED_BYTES (16 + 32 + 32)
#define RAW_MAX (FIXED_BYTES + TOKEN_ADDRESSES_MAX + SET_PIN_TEXT_MAX + 2)

void set_pin_format(const struct set_pin *p, char out[SET_PIN_TEXT_MAX])
{
    char hex[65];
    hex_encode(p->hash, sizeof p->hash, hex);
    (void)snprintf(out, SET_PIN_TEXT_MAX, "%" PRIu64 ".%" PRIu64 ".%s", p->epoch, p->seq, hex);
}

static bool read_number(const char **at, uint64_t *ret)
{
    char *end;
    if (!isdigit((unsigned char)**at)) {
        return false;
    }
    *ret = strtoull(*at, &end, 10); /* too large: UINT64_MAX, above the limit below */
    if (*end != '.') {
        return false;
    }
    *at = end + 1;
    return *ret > 0 && *ret <= INT64_MAX;
}

int set_pin_parse(const char *text, struct set_pin *ret)
{
    struct set_pin p;
    if (!read_number(&text, &p.epoch) || !read_number(&text, &p.seq) || strlen(text) != 64 ||
        hex_decode(text, p.hash, sizeof p.hash) != 0) {
        return -ERR_MALFORMED;
    }
    *ret = p;
    return 0;
}

/* Takes the pin off the addresses. */
static int split_pin(struct join_token *t)
{
    char *at = strrchr(t->addresses, ',');
    t->pin = (struct set_pin){.epoch = 0};
    if (at == NULL || at[1] != '#') {
        return 0;
    }
    *at = '\0';
    return set_pin_parse(at + 2, &t->pin);
}

void token_format(const struct join_token *t, struct buf *out)
{
    struct buf raw;
    buf_init(&raw, RAW_MAX);
    buf_add(&raw, t->cluster_id.b, 16);
    buf_add(&raw, t->root_fingerprint, 32);
    buf_add(&raw, t->secret, 32);
    buf_add_str(&raw, t->addresses);
    if (t->pin.seq != 0) {
        char pin[SET_PIN_TEXT_MAX];
        set_pin_format(&t->pin, pin);
        buf_addf(&raw, ",#%s", pin);
    }
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
    buf_init(&raw, RAW_MAX);
    int rc = b64url_decode(text + prefix, len - prefix, &raw);
    struct blob tail = blob_of(NULL, 0);
    if (rc == 0 && raw.len > FIXED_BYTES) {
        tail = blob_of(raw.data + FIXED_BYTES, raw.len - FIXED_BYTES);
    }
    if (tail.len == 0 || tail.len > sizeof ret->addresses - 1 ||
        !text_is_clean((const char *)tail.data, tail.len)) {
        rc = errmsg_set(em, -ERR_MALFORMED, "join token is damaged: copy it whole");
        goto out;
    }
    memcpy(ret->cluster_id.b, raw.data, 16);
    memcpy(ret->root_fingerprint, raw.data + 16, 32);
    memcpy(ret->secret, raw.data + 48, 32);
    memcpy(ret->addresses, tail.data, tail.len);
    ret->addresses[tail.len] = '\0';
    if (split_pin(ret) != 0 || strlen(ret->addresses) > TOKEN_ADDRESSES_MAX) {
        rc = errmsg_set(em, -ERR_MALFORMED, "join token is damaged: copy it whole");
    }
out:
    buf_wipe(&raw);
    return rc;
}
