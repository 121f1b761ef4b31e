#include "base/log.h"

#include "base/clock.h"
#include "base/text.h"

#include <unistd.h>

static enum log_level max_level = LOG_INFO;
static enum log_format out_format = LOG_LOGFMT;
static char node_name[64];

static const char *const level_name[] = {"error", "warn", "info", "debug"};
static const char *const module_name[LOG_MODULES] = {"base",      "wire",  "pki",  "fabric",
                                                     "authority", "agent", "admin"};

void log_set_level(enum log_level level)
{
    max_level = level;
}

void log_set_format(enum log_format format)
{
    out_format = format;
}

bool log_enabled(enum log_level level)
{
    return level <= max_level;
}

void log_set_node(const char *name)
{
    (void)snprintf(node_name, sizeof node_name, "%s", name);
}

/* Room for PAIRS_MAX bytes that JSON all escapes, in the shortest pairs there are: a line is never cut
 * in the middle of its JSON. */
#define PAIRS_MAX 1536
struct line {
    char text[8192];
    size_t len;
};

static void put(struct line *l, const char *s, size_t n)
{
    size_t room = sizeof l->text - 2 - l->len; /* one byte stays for the newline */
    if (n > room) {
        n = room;
    }
    memcpy(l->text + l->len, s, n);
    l->len += n;
}

static void put_str(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

static void put_json(struct line *l, const char *s, size_t n)
{
    put(l, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        char esc[8];
        if (c == '"' || c == '\\') {
            (void)snprintf(esc, sizeof esc, "\\%c", c);
            put_str(l, esc);
        } else if (c < 0x20 || c == 0x7f) {
            (void)snprintf(esc, sizeof esc, "\\u%04x", c);
            put_str(l, esc);
        } else {
            put(l, (const char *)&s[i], 1);
        }
    }
    put(l, "\"", 1);
}

/* Turns `a=1 b="x y"` into `,"a":"1","b":"x y"`. */
static void put_pairs_json(struct line *l, const char *p)
{
    while (*p != '\0') {
        while (*p == ' ') {
            p++;
        }
        const char *key = p;
        while (*p != '\0' && *p != '=' && *p != ' ') {
            p++;
        }
        if (*p != '=') {
            continue;
        }
        size_t key_len = (size_t)(p - key);
        p++;
        const char *value = p;
        size_t value_len;
        if (*p == '"') {
            value = ++p;
            while (*p != '\0' && *p != '"') {
                p++;
            }
            value_len = (size_t)(p - value);
            if (*p == '"') {
                p++;
            }
        } else {
            while (*p != '\0' && *p != ' ') {
                p++;
            }
            value_len = (size_t)(p - value);
        }
        put(l, ",", 1);
        put_json(l, key, key_len);
        put(l, ":", 1);
        put_json(l, value, value_len);
    }
}

/* A peer's bytes may be among the values: no control character reaches a terminal, and JSON is UTF-8.
 * What is neither, or was cut in the middle, becomes question marks. */
static void scrub(char *s)
{
    size_t left = strlen(s);
    while (left > 0) {
        size_t n = 1;
        while (n < 4 && n < left && !text_is_clean(s, n)) {
            n++;
        }
        if (!text_is_clean(s, n)) {
            *s = '?';
            n = 1;
        }
        s += n;
        left -= n;
    }
}

void log_write(enum log_level level, enum log_module module, const char *phrase, const char *fmt,
               ...)
{
    if (!log_enabled(level)) {
        return;
    }
    char pairs[PAIRS_MAX];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(pairs, sizeof pairs, fmt, ap);
    va_end(ap);
    scrub(pairs);
    char time_text[CLOCK_TEXT_MAX];
    clock_format(clock_wall_ms(), time_text);

    struct line l = {.len = 0};
    if (out_format == LOG_JSON) {
        put_str(&l, "{\"time\":");
        put_json(&l, time_text, strlen(time_text));
        put_str(&l, ",\"level\":\"");
        put_str(&l, level_name[level]);
        put_str(&l, "\",\"module\":\"");
        put_str(&l, module_name[module]);
        put_str(&l, "\",\"msg\":");
        put_json(&l, phrase, strlen(phrase));
        if (node_name[0] != '\0') {
            put_str(&l, ",\"node\":");
            put_json(&l, node_name, strlen(node_name));
        }
        put_pairs_json(&l, pairs);
        put_str(&l, "}");
    } else {
        put_str(&l, "time=");
        put_str(&l, time_text);
        put_str(&l, " level=");
        put_str(&l, level_name[level]);
        put_str(&l, " module=");
        put_str(&l, module_name[module]);
        if (node_name[0] != '\0') {
            put_str(&l, " node=");
            put_str(&l, node_name);
        }
        put_str(&l, " msg=\"");
        put_str(&l, phrase);
        put_str(&l, "\"");
        if (pairs[0] != '\0') {
            put_str(&l, " ");
            put_str(&l, pairs);
        }
    }
    l.text[l.len++] = '\n';
    ssize_t n = write(STDERR_FILENO, l.text, l.len);
    (void)n; /* a log that cannot be written must not stop the node */
}

bool log_allow(struct log_limit *limit, uint32_t burst)
{
    int64_t now = (int64_t)clock_mono_ms();
    if (limit->window_start_ms == 0 || now - limit->window_start_ms >= 60000) {
        limit->window_start_ms = now;
        limit->count = 0;
    }
    if (limit->count++ < burst) {
        return true;
    }
    limit->suppressed++;
    return false;
}
