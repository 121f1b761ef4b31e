#include "base/text.h"

#include "base/err.h"

void hex_encode(const uint8_t *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
    out[2 * len] = '\0';
}

/* Value of a digit plus one; 0: none. */
static const uint8_t nibbles[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

int hex_decode(const char *text, uint8_t *out, size_t len)
{
    if (strlen(text) != 2 * len) {
        return -ERR_INVALID;
    }
    for (size_t i = 0; i < 2 * len; i++) {
        if (nibbles[(uint8_t)text[i]] == 0) {
            return -ERR_INVALID;
        }
    }
    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)((nibbles[(uint8_t)text[2 * i]] - 1) << 4 |
                           (nibbles[(uint8_t)text[2 * i + 1]] - 1));
    }
    return 0;
}

static const char b64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void b64url_encode(struct blob in, struct buf *out)
{
    uint32_t acc = 0;
    int bits = 0;
    for (size_t i = 0; i < in.len; i++) {
        acc = acc << 8 | in.data[i];
        bits += 8;
        while (bits >= 6) {
            bits -= 6;
            buf_add(out, &b64_digits[acc >> bits & 63], 1);
        }
    }
    if (bits > 0) {
        buf_add(out, &b64_digits[acc << (6 - bits) & 63], 1);
    }
}

static int b64_value(char c)
{
    const char *p = c == '\0' ? NULL : strchr(b64_digits, c);
    return p == NULL ? -1 : (int)(p - b64_digits);
}

int b64url_decode(const char *text, size_t len, struct buf *out)
{
    if (len % 4 == 1) {
        return -ERR_INVALID;
    }
    for (size_t i = 0; i < len; i++) {
        if (b64_value(text[i]) < 0) {
            return -ERR_INVALID;
        }
    }
    /* The unused low bits of the last digit must be zero: one spelling per value. */
    int spare = len % 4 == 2 ? 15 : len % 4 == 3 ? 3 : 0;
    if (len > 0 && (b64_value(text[len - 1]) & spare) != 0) {
        return -ERR_INVALID;
    }
    uint32_t acc = 0;
    int bits = 0;
    for (size_t i = 0; i < len; i++) {
        acc = acc << 6 | (uint32_t)b64_value(text[i]);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            uint8_t byte = (uint8_t)(acc >> bits);
            buf_add(out, &byte, 1);
        }
    }
    return out->err;
}

/* The next code point of UTF-8 (RFC 3629), which *i is moved behind; UINT32_MAX when it is none. */
static uint32_t next_code_point(const char *s, size_t len, size_t *i)
{
    uint8_t c = (uint8_t)s[*i];
    size_t extra;
    uint32_t cp;
    if (c < 0x80) {
        extra = 0;
        cp = c;
    } else if (c >= 0xc2 && c <= 0xdf) {
        extra = 1;
        cp = c & 0x1fu;
    } else if (c >= 0xe0 && c <= 0xef) {
        extra = 2;
        cp = c & 0x0fu;
    } else if (c >= 0xf0 && c <= 0xf4) {
        extra = 3;
        cp = c & 0x07u;
    } else {
        return UINT32_MAX;
    }
    if (extra >= len - *i) {
        return UINT32_MAX;
    }
    for (size_t k = 1; k <= extra; k++) {
        uint8_t d = (uint8_t)s[*i + k];
        if ((d & 0xc0) != 0x80) {
            return UINT32_MAX;
        }
        cp = cp << 6 | (d & 0x3fu);
    }
    bool overlong = (extra == 2 && cp < 0x800) || (extra == 3 && cp < 0x10000);
    if (overlong || (cp >= 0xd800 && cp <= 0xdfff) || cp > 0x10ffff) {
        return UINT32_MAX;
    }
    *i += extra + 1;
    return cp;
}

bool text_is_utf8(const char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint32_t cp = next_code_point(s, len, &i);
        if (cp == UINT32_MAX || cp == 0) {
            return false;
        }
    }
    return true;
}

bool text_is_clean(const char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint32_t cp = next_code_point(s, len, &i);
        if (cp == UINT32_MAX || cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
            return false;
        }
    }
    return true;
}

bool text_is_name(const char *s, size_t len)
{
    if (len < 1 || len > 63 || s[0] == '-' || s[len - 1] == '-') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        bool ok = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '0' && s[i] <= '9') || s[i] == '-';
        if (!ok) {
            return false;
        }
    }
    return true;
}
