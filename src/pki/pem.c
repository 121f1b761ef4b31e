/* Certificates as text (RFC 7468, strict: 64 columns, nothing between the blocks). */
#include "pki/pki.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#define BEGIN "-----BEGIN CERTIFICATE-----\n"
#define END "-----END CERTIFICATE-----\n"
#define LINE_BYTES 48 /* in 64 characters */
#define LINE_CHARS 64

int pki_pem_add(struct blob der, struct buf *out_pem)
{
    buf_add_str(out_pem, BEGIN);
    for (size_t i = 0; i < der.len; i += LINE_BYTES) {
        size_t n = der.len - i < LINE_BYTES ? der.len - i : LINE_BYTES;
        uint8_t line[LINE_CHARS + 1];
        int chars = EVP_EncodeBlock(line, der.data + i, (int)n);
        buf_add(out_pem, line, (size_t)chars);
        buf_add_str(out_pem, "\n");
    }
    buf_add_str(out_pem, END);
    return out_pem->err;
}

static bool starts_with(struct blob text, const char *what)
{
    size_t n = strlen(what);
    return text.len >= n && memcmp(text.data, what, n) == 0;
}

static void advance(struct blob *text, size_t n)
{
    text->data += n;
    text->len -= n;
}

/* One line of base64 without its newline, appended as bytes. */
static bool read_line(struct blob line, struct buf *out)
{
    uint8_t bytes[LINE_BYTES];
    uint8_t again[LINE_CHARS + 1];
    if (line.len < 4 || line.len > LINE_CHARS || line.len % 4 != 0) {
        return false;
    }
    int n = EVP_DecodeBlock(bytes, line.data, (int)line.len);
    if (n < 0) {
        ERR_clear_error();
        return false;
    }
    /* EVP_DecodeBlock counts padding as bytes. */
    n -= line.data[line.len - 1] == '=';
    n -= line.data[line.len - 2] == '=';
    /* One spelling per value. */
    if (EVP_EncodeBlock(again, bytes, n) != (int)line.len ||
        memcmp(again, line.data, line.len) != 0) {
        return false;
    }
    buf_add(out, bytes, (size_t)n);
    return out->err == 0;
}

static bool read_block(struct blob *text, struct buf *out)
{
    if (!starts_with(*text, BEGIN)) {
        return false;
    }
    advance(text, strlen(BEGIN));
    bool last = false; /* a short line can only be the last */
    while (!starts_with(*text, END)) {
        const uint8_t *eol = text->len == 0 ? NULL : memchr(text->data, '\n', text->len);
        size_t n = eol == NULL ? 0 : (size_t)(eol - text->data);
        if (last || n == 0 || !read_line(blob_of(text->data, n), out)) {
            return false;
        }
        last = n < LINE_CHARS || text->data[n - 1] == '=';
        advance(text, n + 1);
    }
    advance(text, strlen(END));
    return out->len > 0;
}

int pki_pem_read(struct blob pem, struct buf *out_der, size_t max_count, size_t *ret_count,
                 struct errmsg *em)
{
    size_t count = 0;
    if (pem.len == 0) {
        return errmsg_set(em, -ERR_MALFORMED, "no certificate in an empty text");
    }
    while (pem.len > 0) {
        if (count == max_count) {
            return errmsg_set(em, -ERR_TOO_LARGE, "more than %zu certificates", max_count);
        }
        if (!read_block(&pem, &out_der[count])) {
            return out_der[count].err != 0
                       ? errmsg_set(em, -ERR_TOO_LARGE, "certificate %zu is too large", count + 1)
                       : errmsg_set(em, -ERR_MALFORMED, "certificate %zu is not clean PEM",
                                    count + 1);
        }
        count++;
    }
    *ret_count = count;
    return 0;
}
