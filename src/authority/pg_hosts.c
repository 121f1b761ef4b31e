#include "authority/pg_hosts.h"

#include <uv.h>

static size_t elements(const char *list)
{
    size_t n = 1;
    for (; *list != '\0'; list++) {
        n += *list == ',';
    }
    return n;
}

/* Takes the first element off a list; false: it does not fit. */
static bool take(const char **list, char *out, size_t size)
{
    size_t len = strcspn(*list, ",");
    if (len >= size) {
        return false;
    }
    memcpy(out, *list, len);
    out[len] = '\0';
    *list += len + ((*list)[len] == ',');
    return true;
}

int pg_hosts_split(const char *host, const char *hostaddr, const char *port, struct pg_hosts *ret,
                   struct errmsg *em)
{
    const char *names = host == NULL ? "" : host;
    const char *addresses = hostaddr == NULL ? "" : hostaddr;
    const char *ports = port == NULL ? "" : port;
    size_t count = elements(addresses[0] != '\0' ? addresses : names);
    bool one_port = elements(ports) == 1;
    if (count > PG_HOSTS_MAX) {
        return errmsg_set(em, -ERR_INVALID, "a connection string may name at most %d hosts",
                          PG_HOSTS_MAX);
    }
    if (names[0] != '\0' && elements(names) != count) {
        return errmsg_set(em, -ERR_INVALID, "%zu names for %zu addresses: give each host both",
                          elements(names), count);
    }
    if (!one_port && elements(ports) != count) {
        return errmsg_set(em, -ERR_INVALID,
                          "%zu ports for %zu hosts: give one for all, or one for each",
                          elements(ports), count);
    }
    for (size_t i = 0; i < count; i++) {
        struct pg_place p = {.host = ""};
        const char *all = port == NULL ? "" : port;
        if (!take(&names, p.host, sizeof p.host) ||
            !take(&addresses, p.address, sizeof p.address) ||
            !take(one_port ? &all : &ports, p.port, sizeof p.port)) {
            return errmsg_set(em, -ERR_INVALID,
                              "a host, an address or a port is too long for what it is");
        }
        ret->list[i] = p;
    }
    ret->count = count;
    return 0;
}

bool pg_place_is_name(const struct pg_place *p)
{
    struct in6_addr a;
    return p->address[0] == '\0' && p->host[0] != '/' && p->host[0] != '@' && p->host[0] != '\0' &&
           uv_inet_pton(AF_INET, p->host, &a) != 0 && uv_inet_pton(AF_INET6, p->host, &a) != 0;
}

void pg_hosts_add(struct pg_hosts *h, const struct pg_place *p, const char *address)
{
    if (h->count < ARRAY_SIZE(h->list)) {
        struct pg_place *to = &h->list[h->count++];
        *to = *p;
        if (address != NULL) {
            (void)snprintf(to->address, sizeof to->address, "%s", address);
        }
    }
}

void pg_hosts_join(const struct pg_hosts *h, size_t first, struct pg_lists *ret)
{
    buf_init(&ret->hosts, PG_PLACES_TEXT * 8);
    buf_init(&ret->addresses, PG_PLACES_TEXT * 2);
    buf_init(&ret->ports, PG_PLACES_TEXT);
    ret->has_addresses = ret->has_ports = false;
    for (size_t i = 0; i < h->count; i++) {
        const struct pg_place *p = &h->list[(first + i) % h->count];
        const char *comma = i == 0 ? "" : ",";
        buf_addf(&ret->hosts, "%s%s", comma, p->host);
        buf_addf(&ret->addresses, "%s%s", comma, p->address);
        buf_addf(&ret->ports, "%s%s", comma, p->port);
        ret->has_addresses |= p->address[0] != '\0';
        ret->has_ports |= p->port[0] != '\0';
    }
}

void pg_lists_fini(struct pg_lists *l)
{
    buf_fini(&l->hosts);
    buf_fini(&l->addresses);
    buf_fini(&l->ports);
}
