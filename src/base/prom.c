#include "base/prom.h"

#include "base/text.h"

#include <math.h>

static const char *const type_names[] = {
    [PROM_COUNTER] = "counter", [PROM_GAUGE] = "gauge", [PROM_HISTOGRAM] = "histogram"};

/* [a-zA-Z_][a-zA-Z0-9_]*: ours have no colons, which are for recording rules. */
static bool is_name(const char *s)
{
    size_t len = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
    return len > 0 && s[len] == '\0' && (s[0] < '0' || s[0] > '9');
}

static bool ends_in(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && memcmp(s + n - m, end, m) == 0;
}

void prom_init(struct prom *p, struct buf *out)
{
    *p = (struct prom){.out = out};
}

void prom_family(struct prom *p, enum prom_type type, const char *name, const char *help)
{
    CHECK(is_name(name) && p->labels == 0 && strpbrk(help, "\n\\") == NULL);
    CHECK(ends_in(name, "_total") == (type == PROM_COUNTER));
    p->name = name;
    p->type = type;
    buf_addf(p->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type_names[type]);
}

/* Cut between characters, so that what was valid stays valid. */
static size_t cut(const char *s, size_t max)
{
    size_t len = strnlen(s, max + 1);
    if (len <= max) {
        return len;
    }
    len = max;
    while (len > 0 && ((unsigned char)s[len] & 0xc0) == 0x80) {
        len--;
    }
    return len;
}

void prom_label(struct prom *p, const char *name, const char *value)
{
    CHECK(is_name(name) && p->labels < PROM_LABELS_MAX);
    size_t len = cut(value, PROM_VALUE_MAX);
    if (!text_is_utf8(value, len)) {
        value = "?";
        len = 1;
    }
    p->label[p->labels].name = name;
    memcpy(p->label[p->labels].value, value, len);
    p->label[p->labels].value[len] = '\0';
    p->labels++;
}

static void put_value(struct buf *out, const char *value)
{
    for (const char *c = value; *c != '\0'; c++) {
        switch (*c) {
            case '\\':
                buf_add_str(out, "\\\\");
                break;
            case '"':
                buf_add_str(out, "\\\"");
                break;
            case '\n':
                buf_add_str(out, "\\n");
                break;
            default:
                buf_add(out, c, 1);
                break;
        }
    }
}

/* The name and the labels, `le` (or NULL) as the last of them, up to the value. */
static void begin_sample(struct prom *p, const char *suffix, const char *le)
{
    struct buf *out = p->out;
    buf_addf(out, "%s%s", p->name, suffix);
    for (size_t i = 0; i < p->labels; i++) {
        buf_addf(out, "%s%s=\"", i == 0 ? "{" : ",", p->label[i].name);
        put_value(out, p->label[i].value);
        buf_add_str(out, "\"");
    }
    if (le != NULL) {
        buf_addf(out, "%sle=\"%s\"", p->labels == 0 ? "{" : ",", le);
    }
    buf_add_str(out, p->labels == 0 && le == NULL ? " " : "} ");
}

void prom_uint(struct prom *p, uint64_t v)
{
    CHECK(p->name != NULL && p->type != PROM_HISTOGRAM);
    begin_sample(p, "", NULL);
    buf_addf(p->out, "%llu\n", (unsigned long long)v);
    p->labels = 0;
}

void prom_real(struct prom *p, double v)
{
    CHECK(p->name != NULL && p->type != PROM_HISTOGRAM);
    begin_sample(p, "", NULL);
    if (isfinite(v)) {
        buf_addf(p->out, "%.9g\n", v);
    } else {
        buf_add_str(p->out, isnan(v) ? "NaN\n" : v > 0 ? "+Inf\n" : "-Inf\n");
    }
    p->labels = 0;
}

static void put_seconds(struct buf *out, uint64_t us)
{
    char text[48];
    int n = snprintf(text, sizeof text, "%llu.%06llu", (unsigned long long)(us / 1000000),
                     (unsigned long long)(us % 1000000));
    while (text[n - 1] == '0') {
        n--;
    }
    n -= text[n - 1] == '.';
    buf_add(out, text, (size_t)n);
}

void prom_us(struct prom *p, uint64_t us)
{
    CHECK(p->name != NULL && p->type != PROM_HISTOGRAM);
    begin_sample(p, "", NULL);
    put_seconds(p->out, us);
    buf_add_str(p->out, "\n");
    p->labels = 0;
}

void prom_ms(struct prom *p, int64_t ms)
{
    CHECK(p->name != NULL && p->type != PROM_HISTOGRAM);
    begin_sample(p, "", NULL);
    buf_add_str(p->out, ms < 0 ? "-" : "");
    put_seconds(p->out, (ms < 0 ? 0 - (uint64_t)ms : (uint64_t)ms) * 1000);
    buf_add_str(p->out, "\n");
    p->labels = 0;
}

void prom_histogram(struct prom *p, const struct histogram *h)
{
    CHECK(p->name != NULL && p->type == PROM_HISTOGRAM);
    uint64_t sum = 0;
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++) {
        struct buf le;
        buf_init(&le, 32);
        sum += h->count[i];
        if (i < HISTOGRAM_BOUNDS) {
            put_seconds(&le, histogram_bounds_us[i]);
        } else {
            buf_add_str(&le, "+Inf");
        }
        begin_sample(p, "_bucket", buf_cstr(&le));
        buf_addf(p->out, "%llu\n", (unsigned long long)sum);
        buf_fini(&le);
    }
    begin_sample(p, "_sum", NULL);
    put_seconds(p->out, h->sum_us);
    buf_add_str(p->out, "\n");
    begin_sample(p, "_count", NULL);
    buf_addf(p->out, "%llu\n", (unsigned long long)sum);
    p->labels = 0;
}

void prom_one(struct prom *p, enum prom_type type, const char *name, const char *help, uint64_t v)
{
    prom_family(p, type, name, help);
    prom_uint(p, v);
}
