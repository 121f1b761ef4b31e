#include "base/err.h"

static const struct {
    int number;
    bool retryable;
    const char *slug;
    const char *text;
} table[] = {
#define ERR_ROW_(name, num, slug, text, retry) {num, retry, slug, text},
    ERR_TABLE(ERR_ROW_)
#undef ERR_ROW_
};

static int find(int rc)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (-table[i].number == rc) { /* -rc would overflow for INT_MIN, which a peer may send */
            return (int)i;
        }
    }
    return -1;
}

const char *err_text(int rc)
{
    int i = find(rc);
    return rc == 0 ? "ok" : i < 0 ? "unknown error" : table[i].text;
}

const char *err_slug(int rc)
{
    int i = find(rc);
    return rc == 0 ? "ok" : i < 0 ? "unknown" : table[i].slug;
}

bool err_retryable(int rc)
{
    int i = find(rc);
    return i >= 0 && table[i].retryable;
}

int err_from_slug(const char *slug)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (strcmp(table[i].slug, slug) == 0) {
            return -table[i].number;
        }
    }
    return -ERR_INVALID;
}

struct errmsg *errmsg_set_text(struct errmsg *em, const char *fmt, ...)
{
    if (em != NULL) {
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(em->text, sizeof em->text, fmt, ap);
        va_end(ap);
    }
    return em;
}

struct errmsg *errmsg_wrap_text(struct errmsg *em, const char *fmt, ...)
{
    if (em != NULL) {
        struct errmsg old = *em;
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(em->text, sizeof em->text, fmt, ap);
        va_end(ap);
        size_t used = strlen(em->text);
        if (n >= 0 && old.text[0] != '\0' && used + 3 < sizeof em->text) {
            size_t room = sizeof em->text - used - 3;
            size_t len = strnlen(old.text, room);
            memcpy(em->text + used, ": ", 2);
            memcpy(em->text + used + 2, old.text, len);
            em->text[used + 2 + len] = '\0';
        }
    }
    return em;
}

int errmsg_runbook(struct errmsg *em, int rc, const char *place)
{
    if (em != NULL && (rc == -ERR_IO || rc == -ERR_CORRUPT)) {
        struct errmsg why = *em;
        size_t room = sizeof em->text - strlen(place) - sizeof ERRMSG_RUNBOOK;
        (void)snprintf(em->text, sizeof em->text, "%.*s" ERRMSG_RUNBOOK "%s", (int)room, why.text,
                       place);
    }
    return rc;
}
