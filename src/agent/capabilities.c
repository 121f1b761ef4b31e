/* What this host can do (SPEC CAP-01). A capability is an upper bound, never a permission:
 *
 *   can_accept_node_ingress     a UDP socket can be bound
 *   can_route_mesh              the same: relaying needs nothing else
 *   can_accept_client_ingress   ports below 1024 may be bound (CAP_NET_BIND_SERVICE, or the kernel's
 *                               ip_unprivileged_port_start is 80 or lower)
 *   can_egress_internet         a default route that is up, IPv4 or IPv6, not over loopback
 *   can_egress_private_network  a route into 10/8, 172.16/12, 192.168/16 or fc00::/7, the same way
 *   can_run_vpn_exit,
 *   can_run_vpn_connector       /dev/net/tun exists and CAP_NET_ADMIN is effective
 *   can_run_rdp_worker          podman or docker, or xfreerdp, xfreerdp3 or wlfreerdp in PATH
 *   can_run_vnc_worker          podman or docker, or vncviewer in PATH
 *   can_run_video_relay         podman or docker, or ffmpeg or gst-launch-1.0 in PATH
 *   can_run_file_cache,
 *   can_run_update_cache        1 GiB free (for us) on the data directory's file system */
#include "agent/agent.h"
#include "agent/host.h"
#include "base/file.h"
#include "wire/mp.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CAP_BIT_NET_BIND_SERVICE 10 /* capabilities(7), linux/capability.h */
#define CAP_BIT_NET_ADMIN 12
#define RTF_UP_BIT 0x1u /* route(8), net/route.h */
#define RTF_REJECT_BIT 0x200u

/* --- routes --- */

static bool usable(const char *iface, unsigned flags)
{
    return strcmp(iface, "lo") != 0 && (flags & RTF_UP_BIT) != 0 && (flags & RTF_REJECT_BIT) == 0;
}

static const char *next_line(const char *p)
{
    p = strchr(p, '\n');
    return p == NULL ? NULL : p + 1;
}

/* The nth word (from 0) of the line at p; false when there is none or it does not fit. */
static bool word(const char *p, unsigned n, char *out, size_t size)
{
    static const char blank[] = " \t";
    p += strspn(p, blank);
    while (n-- > 0) {
        p += strcspn(p, " \t\n");
        p += strspn(p, blank);
    }
    size_t len = strcspn(p, " \t\n");
    if (len == 0 || len >= size) {
        return false;
    }
    memcpy(out, p, len);
    out[len] = '\0';
    return true;
}

/* The nth word as a number of this base. */
static bool number(const char *p, unsigned n, int base, unsigned long long *ret)
{
    char text[32];
    char *end;
    if (!word(p, n, text, sizeof text)) {
        return false;
    }
    *ret = strtoull(text, &end, base);
    return *end == '\0';
}

void host_scan_routes(const char *text, struct host *h)
{
    for (const char *p = next_line(text); p != NULL && *p != '\0'; p = next_line(p)) {
        char iface[32];
        unsigned long long dest_raw;
        unsigned long long mask_raw;
        unsigned long long flags;
        if (!word(p, 0, iface, sizeof iface) || !number(p, 1, 16, &dest_raw) ||
            !number(p, 3, 16, &flags) || !number(p, 7, 16, &mask_raw) ||
            !usable(iface, (unsigned)flags)) {
            continue;
        }
        /* The kernel prints addresses as it holds them, in network order. */
        uint32_t dest = ntohl((uint32_t)dest_raw);
        uint32_t mask = ntohl((uint32_t)mask_raw);
        if (dest == 0 && mask == 0) {
            h->default_route = true;
        } else if (((dest & 0xff000000u) == 0x0a000000u && mask >= 0xff000000u) ||
                   ((dest & 0xfff00000u) == 0xac100000u && mask >= 0xfff00000u) ||
                   ((dest & 0xffff0000u) == 0xc0a80000u && mask >= 0xffff0000u)) {
            h->private_route = true;
        }
    }
}

void host_scan_routes6(const char *text, struct host *h)
{
    for (const char *p = text; p != NULL && *p != '\0'; p = next_line(p)) {
        char iface[32];
        char dest[33];
        unsigned long long prefix;
        unsigned long long flags;
        if (!word(p, 0, dest, sizeof dest) || !number(p, 1, 16, &prefix) ||
            !number(p, 8, 16, &flags) || !word(p, 9, iface, sizeof iface) ||
            !usable(iface, (unsigned)flags)) {
            continue;
        }
        if (prefix == 0 && strspn(dest, "0") == 32) {
            h->default_route = true;
        } else if (prefix >= 7 && dest[0] == 'f' && (dest[1] == 'c' || dest[1] == 'd')) {
            h->private_route = true;
        }
    }
}

/* --- privileges --- */

bool host_has_cap(const char *status_text, unsigned bit)
{
    static const char key[] = "\nCapEff:";
    const char *p = strstr(status_text, key);
    unsigned long long effective;
    return p != NULL && bit < 64 && number(p + sizeof key - 1, 0, 16, &effective) &&
           (effective >> bit & 1) != 0;
}

/* Files of /proc are small, but routes can be many: what does not fit is not looked at. */
static void read_text(const char *path, struct buf *out)
{
    buf_clear(out);
    (void)file_read(path, out, NULL);
}

static bool low_ports_free(struct buf *text)
{
    unsigned long long first;
    read_text("/proc/sys/net/ipv4/ip_unprivileged_port_start", text);
    return number(buf_cstr(text), 0, 10, &first) && first <= 80;
}

static bool can_bind_udp(int family)
{
    struct sockaddr_storage any = {.ss_family = (sa_family_t)family};
    socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    bool ok = bind(fd, (const struct sockaddr *)&any, len) == 0;
    (void)close(fd);
    return ok;
}

/* --- programs --- */

static bool in_path(const char *program)
{
    const char *path = getenv("PATH");
    while (path != NULL && *path != '\0') {
        size_t n = strcspn(path, ":");
        char full[4096];
        struct stat st;
        int len = snprintf(full, sizeof full, "%.*s/%s", (int)(n < 4000 ? n : 0), path, program);
        if (n > 0 && len > 0 && (size_t)len < sizeof full && stat(full, &st) == 0 &&
            S_ISREG(st.st_mode) && access(full, X_OK) == 0) {
            return true;
        }
        path += n;
        path += *path == ':';
    }
    return false;
}

static bool any_in_path(const char *const *programs)
{
    for (; *programs != NULL; programs++) {
        if (in_path(*programs)) {
            return true;
        }
    }
    return false;
}

void host_probe(const char *data_dir, struct host *ret)
{
    static const char *const runtimes[] = {"podman", "docker", NULL};
    static const char *const rdp[] = {"xfreerdp", "xfreerdp3", "wlfreerdp", NULL};
    static const char *const vnc[] = {"vncviewer", NULL};
    static const char *const video[] = {"ffmpeg", "gst-launch-1.0", NULL};
    struct buf text;
    buf_init(&text, 1 << 20);
    *ret = (struct host){.udp = can_bind_udp(AF_INET) || can_bind_udp(AF_INET6)};

    read_text("/proc/net/route", &text);
    host_scan_routes(buf_cstr(&text), ret);
    read_text("/proc/net/ipv6_route", &text);
    host_scan_routes6(buf_cstr(&text), ret);

    read_text("/proc/self/status", &text);
    ret->net_admin = host_has_cap(buf_cstr(&text), CAP_BIT_NET_ADMIN);
    ret->low_ports = host_has_cap(buf_cstr(&text), CAP_BIT_NET_BIND_SERVICE) ||
                     low_ports_free(&text);
    ret->tun = file_exists("/dev/net/tun");
    ret->containers = any_in_path(runtimes);
    ret->rdp_client = any_in_path(rdp);
    ret->vnc_client = any_in_path(vnc);
    ret->video_tools = any_in_path(video);

    struct statvfs fs;
    if (statvfs(data_dir, &fs) == 0) {
        ret->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    }
    buf_fini(&text);
}

void host_capabilities(const struct host *h, struct buf *raw, uint32_t *count)
{
    bool vpn = h->tun && h->net_admin;
    bool cache = h->free_bytes >= HOST_CACHE_MIN_BYTES;
    const struct {
        const char *name;
        bool has;
    } all[] = {
        {"can_accept_client_ingress", h->low_ports},
        {"can_accept_node_ingress", h->udp},
        {"can_route_mesh", h->udp},
        {"can_egress_internet", h->default_route},
        {"can_egress_private_network", h->private_route},
        {"can_run_rdp_worker", h->containers || h->rdp_client},
        {"can_run_vnc_worker", h->containers || h->vnc_client},
        {"can_run_vpn_exit", vpn},
        {"can_run_vpn_connector", vpn},
        {"can_run_file_cache", cache},
        {"can_run_update_cache", cache},
        {"can_run_video_relay", h->containers || h->video_tools},
    };
    struct mp_writer w;
    mp_writer_init(&w, raw);
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        if (all[i].has) {
            mp_put_str(&w, all[i].name);
            (*count)++;
        }
    }
}

void host_report_capabilities(const char *data_dir, struct buf *raw, uint32_t *count)
{
    struct host h;
    host_probe(data_dir, &h);
    host_capabilities(&h, raw, count);
}

void agent_capabilities(struct buf *raw, uint32_t *count)
{
    host_report_capabilities("/", raw, count);
}
