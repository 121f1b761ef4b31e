/* Addresses out of the snapshot. Numeric ones go straight to the fabric, names through a look-up:
 *
 *   directory_apply / directory_refresh -> lookup_start -> (pool) -> on_lookup -> fabric_peer_set
 *   closing: directory_cancel -> on_lookup with UV_ECANCELED -> agent_maybe_closed
 *   failing: logged, the directory keeps what it had; the uplink's next attempt asks again */
#include "agent/agent_impl.h"

#include <netinet/in.h>

#define LOOKUPS_MAX 32
#define ADDRS_PER_PEER 4

struct agent_lookup {
    uv_getaddrinfo_t req;
    struct agent *agent;
    struct uuid id;
    struct agent_lookup *next;
};

static void lookup_free(struct agent_lookup *l)
{
    struct agent *a = l->agent;
    struct agent_lookup **p = &a->lookups;
    while (*p != l) {
        p = &(*p)->next;
    }
    *p = l->next;
    a->lookups_count--;
    free(l);
}

static void on_lookup(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct agent_lookup *l = container_of(req, struct agent_lookup, req);
    struct agent *a = l->agent;
    static struct log_limit limit;
    if (!a->closing && status == 0) {
        struct addr addrs[ADDRS_PER_PEER];
        size_t n = 0;
        for (struct addrinfo *i = list; i != NULL && n < ADDRS_PER_PEER; i = i->ai_next) {
            if (i->ai_addrlen <= sizeof addrs[n].ss) {
                addrs[n] = (struct addr){.len = i->ai_addrlen};
                memcpy(&addrs[n].ss, i->ai_addr, i->ai_addrlen);
                n++;
            }
        }
        fabric_peer_set(a->fabric, &l->id, addrs, n);
    } else if (!a->closing && log_allow(&limit, 5)) {
        char id[UUID_TEXT_MAX];
        uuid_format(&l->id, id);
        log_warn(LOG_AGENT, "peer address does not resolve", "peer=%s error=\"%s\"", id,
                 uv_strerror(status));
    }
    uv_freeaddrinfo(list);
    lookup_free(l);
    agent_maybe_closed(a);
}

static bool lookup_running(const struct agent *a, const struct uuid *id)
{
    for (const struct agent_lookup *l = a->lookups; l != NULL; l = l->next) {
        if (uuid_equal(&l->id, id)) {
            return true;
        }
    }
    return false;
}

static void lookup_start(struct agent *a, const struct uuid *id, const char *text)
{
    char host[HOSTPORT_MAX + 1];
    char *port;
    (void)snprintf(host, sizeof host, "%s", text);
    port = strrchr(host, ':');
    if (port == NULL || a->lookups_count >= LOOKUPS_MAX || lookup_running(a, id)) {
        return;
    }
    *port++ = '\0';
    struct agent_lookup *l = xcalloc(1, sizeof *l);
    l->agent = a;
    l->id = *id;
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV};
    if (uv_getaddrinfo(a->cfg.loop, &l->req, on_lookup, host, port, &hints) != 0) {
        free(l);
        return;
    }
    l->next = a->lookups;
    a->lookups = l;
    a->lookups_count++;
}

static void set_peer(struct agent *a, const struct uuid *id, struct blob address)
{
    char text[HOSTPORT_MAX + 1];
    struct addr addr;
    if (uuid_equal(id, &a->member->node_id)) {
        return;
    }
    (void)snprintf(text, sizeof text, "%.*s", (int)address.len, (const char *)address.data);
    if (addr_parse(text, &addr, NULL) == 0) {
        fabric_peer_set(a->fabric, id, &addr, 1);
    } else {
        lookup_start(a, id, text);
    }
}

static bool lists_peer(const struct config *cfg, const struct uuid *id, struct blob *ret_address)
{
    struct config_iter it;
    struct snapshot_authority authority;
    struct snapshot_peer peer;
    struct snapshot_relay relay;
    config_iter_init(&it, cfg->body.authorities);
    while (config_next_authority(&it, &authority) == 1) {
        if (uuid_equal(&authority.node_id, id)) {
            *ret_address = authority.address;
            return true;
        }
    }
    config_iter_init(&it, cfg->body.peers);
    while (config_next_peer(&it, &peer) == 1) {
        if (uuid_equal(&peer.node_id, id)) {
            *ret_address = peer.address;
            return true;
        }
    }
    config_iter_init(&it, cfg->body.relays);
    while (config_next_relay(&it, &relay) == 1) {
        if (uuid_equal(&relay.node_id, id)) {
            *ret_address = relay.address;
            return true;
        }
    }
    return false;
}

/* An authority's Raft member keeps a directory of its own, which is ahead of its snapshot. */
static void forget_peer(struct agent *a, const struct uuid *id)
{
    struct blob unused;
    if (!a->uplink.local && !uuid_equal(id, &a->member->node_id) &&
        !lists_peer(a->snapshot, id, &unused)) {
        fabric_peer_forget(a->fabric, id);
    }
}

void directory_apply(struct agent *a, const struct config *old)
{
    struct config_iter it;
    struct snapshot_authority authority;
    struct snapshot_peer peer;
    struct snapshot_relay relay;
    config_iter_init(&it, a->snapshot->body.authorities);
    while (config_next_authority(&it, &authority) == 1) {
        set_peer(a, &authority.node_id, authority.address);
    }
    config_iter_init(&it, a->snapshot->body.peers);
    while (config_next_peer(&it, &peer) == 1) {
        set_peer(a, &peer.node_id, peer.address);
    }
    config_iter_init(&it, a->snapshot->body.relays);
    while (config_next_relay(&it, &relay) == 1) {
        set_peer(a, &relay.node_id, relay.address);
    }
    if (old == NULL) {
        return;
    }
    config_iter_init(&it, old->body.authorities);
    while (config_next_authority(&it, &authority) == 1) {
        forget_peer(a, &authority.node_id);
    }
    config_iter_init(&it, old->body.peers);
    while (config_next_peer(&it, &peer) == 1) {
        forget_peer(a, &peer.node_id);
    }
    config_iter_init(&it, old->body.relays);
    while (config_next_relay(&it, &relay) == 1) {
        forget_peer(a, &relay.node_id);
    }
}

void directory_refresh(struct agent *a, const struct uuid *id)
{
    struct blob address;
    if (a->snapshot != NULL && lists_peer(a->snapshot, id, &address)) {
        set_peer(a, id, address);
    }
}

void directory_cancel(struct agent *a)
{
    for (struct agent_lookup *l = a->lookups; l != NULL; l = l->next) {
        (void)uv_cancel((uv_req_t *)&l->req);
    }
}
