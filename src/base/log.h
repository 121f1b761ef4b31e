/* Structured log on stderr, one line an event: a module, a fixed phrase, then key=value pairs.
 *
 *     log_info(LOG_FABRIC, "peer up", "peer=%s rtt_ms=%u", name, rtt);
 *
 * The phrase never varies, so lines can be counted. Values with spaces are quoted by the caller.
 * Never a token, a private key or a message body. Thread-safe: each line is one write(2). */
#ifndef RAP_BASE_LOG_H
#define RAP_BASE_LOG_H

#include "base/base.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_LOGFMT, LOG_JSON };
enum log_module {
    LOG_BASE,
    LOG_WIRE,
    LOG_PKI,
    LOG_FABRIC,
    LOG_AUTHORITY,
    LOG_AGENT,
    LOG_ADMIN,
    LOG_MODULES
};

void log_set_level(enum log_level level);
void log_set_format(enum log_format format);
bool log_enabled(enum log_level level);
/* A short name put on every following line of the process ("node=a1"); copied. */
void log_set_node(const char *name);

void log_write(enum log_level level, enum log_module module, const char *phrase, const char *fmt,
               ...) PRINTF_LIKE(4, 5);

/* fmt may be "" when there is nothing to add. */
#define log_error(module, phrase, ...) log_write(LOG_ERROR, module, phrase, __VA_ARGS__)
#define log_warn(module, phrase, ...) log_write(LOG_WARN, module, phrase, __VA_ARGS__)
#define log_info(module, phrase, ...) log_write(LOG_INFO, module, phrase, __VA_ARGS__)
#define log_debug(module, phrase, ...)                           \
    do {                                                         \
        if (log_enabled(LOG_DEBUG)) {                            \
            log_write(LOG_DEBUG, module, phrase, __VA_ARGS__);   \
        }                                                        \
    } while (0)

/* For what a peer can trigger: lets through `burst` events a minute, counts the rest.
 * Usage: static struct log_limit limit; if (log_allow(&limit, 10)) log_warn(...);
 * One loop thread per limit. */
struct log_limit {
    int64_t window_start_ms;
    uint32_t count;
    uint32_t suppressed;
};
bool log_allow(struct log_limit *limit, uint32_t burst);

#endif
