#include "base/addr.h"

#include <netdb.h>
#include <netinet/in.h>

static int lookup(const char *text, int flags, struct addr *ret, struct errmsg *em)
{
    char host[HOSTPORT_MAX];
    if (strlen(text) >= sizeof host) {
        return errmsg_set(em, -ERR_INVALID, "address is too long");
    }
    (void)snprintf(host, sizeof host, "%s", text);
    char *colon = strrchr(host, ':');
    if (colon == NULL || colon == host || colon[1] == '\0') {
        return errmsg_set(em, -ERR_INVALID, "\"%s\" is not HOST:PORT", text);
    }
    *colon = '\0';
    const char *port = colon + 1;
    char *name = host;
    if (host[0] == '[' && colon[-1] == ']') {
        colon[-1] = '\0';
        name = host + 1;
    } else if (strchr(host, ':') != NULL) {
        return errmsg_set(em, -ERR_INVALID, "\"%s\": write IPv6 as [ADDR]:PORT", text);
    }
    for (const char *p = port; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || p - port > 4) {
            return errmsg_set(em, -ERR_INVALID, "\"%s\": bad port", text);
        }
    }
    if (strtol(port, NULL, 10) > 65535) {
        return errmsg_set(em, -ERR_INVALID, "\"%s\": bad port", text);
    }
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int rv = getaddrinfo(name, port, &hints, &list);
    if (rv != 0) {
        return errmsg_set(em, (flags & AI_NUMERICHOST) != 0 ? -ERR_INVALID : -ERR_UNREACHABLE,
                          "\"%s\": %s", text, gai_strerror(rv));
    }
    *ret = (struct addr){.len = list->ai_addrlen};
    memcpy(&ret->ss, list->ai_addr, list->ai_addrlen);
    freeaddrinfo(list);
    return 0;
}

int addr_parse(const char *text, struct addr *ret, struct errmsg *em)
{
    return lookup(text, AI_NUMERICHOST, ret, em);
}

int addr_resolve(const char *text, struct addr *ret, struct errmsg *em)
{
    return lookup(text, 0, ret, em);
}

void addr_format(const struct addr *a, char out[ADDR_TEXT_MAX])
{
    char host[48];
    char port[8];
    int rv = getnameinfo((const struct sockaddr *)&a->ss, a->len, host, sizeof host, port,
                         sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    if (rv != 0) {
        (void)snprintf(out, ADDR_TEXT_MAX, "?");
    } else if (a->ss.ss_family == AF_INET6) {
        (void)snprintf(out, ADDR_TEXT_MAX, "[%s]:%s", host, port);
    } else {
        (void)snprintf(out, ADDR_TEXT_MAX, "%s:%s", host, port);
    }
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
    if (a->ss.ss_family != b->ss.ss_family) {
        return false;
    }
    if (a->ss.ss_family == AF_INET) {
        const struct sockaddr_in *x = (const struct sockaddr_in *)&a->ss;
        const struct sockaddr_in *y = (const struct sockaddr_in *)&b->ss;
        return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    if (a->ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *x = (const struct sockaddr_in6 *)&a->ss;
        const struct sockaddr_in6 *y = (const struct sockaddr_in6 *)&b->ss;
        return x->sin6_port == y->sin6_port &&
               memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr) == 0;
    }
    return false;
}
