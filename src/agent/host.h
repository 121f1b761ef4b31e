/* What the host is and can do: probing is apart from deciding, so that the rules can be tested. */
#ifndef RAP_AGENT_HOST_H
#define RAP_AGENT_HOST_H

#include "base/buf.h"

struct host {
    bool udp;           /* a UDP socket can be bound */
    bool low_ports;     /* ports below 1024 may be bound */
    bool default_route; /* some usable route to everywhere */
    bool private_route; /* some usable route to a private network */
    bool tun;           /* /dev/net/tun is there */
    bool net_admin;     /* CAP_NET_ADMIN is effective */
    bool containers;    /* podman or docker */
    bool rdp_client, vnc_client, video_tools;
    uint64_t free_bytes; /* of the data directory's file system */
};

#define HOST_CACHE_MIN_BYTES (1ULL << 30)

void host_probe(const char *data_dir, struct host *ret);
/* Appends the encoded capability names (SPEC CAP-01) to raw, raises count. Pure. */
void host_capabilities(const struct host *h, struct buf *raw, uint32_t *count);

/* The text of /proc/net/route and /proc/net/ipv6_route: sets what it finds, clears nothing. Pure. */
void host_scan_routes(const char *text, struct host *h);
void host_scan_routes6(const char *text, struct host *h);
/* Whether the text of /proc/self/status has this bit among the effective capabilities. Pure. */
bool host_has_cap(const char *status_text, unsigned bit);

struct host_facts {
    char os[128], kernel[136], arch[72], hostname[72];
    uint64_t cpus, memory_bytes;
};
void host_facts_probe(struct host_facts *ret);
/* A JSON object of at most FACTS_MAX_BYTES. Bytes that are no UTF-8 come out as '?'. Pure. */
void host_facts_json(const struct host_facts *f, struct buf *out);
/* The host's name as a node name: lower case, the first label, anything else as dashes; "node" when
 * nothing is left. out holds NAME_MAX_BYTES + 1. */
void host_node_name(const char *hostname, char *out);

/* agent_capabilities for a data directory. */
void host_report_capabilities(const char *data_dir, struct buf *raw, uint32_t *count);

#endif
