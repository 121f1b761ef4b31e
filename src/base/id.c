#include "base/id.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include "base/text.h"

struct uuid uuid_make(int64_t wall_ms, const uint8_t random[10])
{
    struct uuid u;
    uint64_t ms = (uint64_t)wall_ms;
    for (int i = 0; i < 6; i++) {
        u.b[i] = (uint8_t)(ms >> (40 - 8 * i));
    }
    memcpy(u.b + 6, random, 10);
    u.b[6] = (uint8_t)(0x70 | (u.b[6] & 0x0f));
    u.b[8] = (uint8_t)(0x80 | (u.b[8] & 0x3f));
    return u;
}

struct uuid uuid_new(void)
{
    uint8_t random[10];
    rng_bytes(random, sizeof random);
    return uuid_make(clock_wall_ms(), random);
}

void uuid_format(const struct uuid *u, char out[UUID_TEXT_MAX])
{
    static const uint8_t group_bytes[] = {4, 2, 2, 2, 6};
    size_t from = 0;
    for (size_t i = 0; i < sizeof group_bytes; i++) {
        if (i > 0) {
            *out++ = '-';
        }
        hex_encode(u->b + from, group_bytes[i], out);
        out += 2 * (size_t)group_bytes[i];
        from += group_bytes[i];
    }
}

int uuid_parse(const char *text, struct uuid *ret)
{
    char hex[33];
    size_t n = 0;
    if (strlen(text) != 36) {
        return -ERR_INVALID;
    }
    for (size_t i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash != (text[i] == '-') || (text[i] >= 'A' && text[i] <= 'F')) {
            return -ERR_INVALID;
        }
        if (!dash) {
            hex[n++] = text[i];
        }
    }
    hex[32] = '\0';
    return hex_decode(hex, ret->b, 16);
}
