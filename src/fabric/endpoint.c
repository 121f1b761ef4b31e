/* The UDP socket.
 *
 * In: uv_poll -> endpoint_read: recvmmsg with GRO -> endpoint_receive (demux.c) for each datagram.
 * Out: sessions reserve and commit packets; equal-sized ones to one place become one GSO message;
 * endpoint_flush sends them with sendmmsg. Socket full: keep the batch, wait for UV_WRITABLE. */
#include "fabric/fabric_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <unistd.h>

#define SOCKET_BUFFER_BYTES (8 << 20)
#define GSO_SEGMENTS_MAX 64
#define GSO_BYTES_MAX 64000
#define READ_BYTES (256u << 10) /* enough for one turn: timers and writes wait meanwhile */
#define READ_ROUNDS 64
#define CONTROL_BYTES 128

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

static void set_buffers(struct endpoint *ep, size_t window_max)
{
    if (set_option(ep->fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES) != 0) {
        (void)set_option(ep->fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER_BYTES);
    }
    if (set_option(ep->fd, SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER_BYTES) != 0) {
        (void)set_option(ep->fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BUFFER_BYTES);
    }
    /* Without loss nothing else bounds a burst: a window beyond the socket's buffer means drops. */
    int got = 0;
    socklen_t len = sizeof got;
    ep->stream_window = STREAM_WINDOW_START;
    if (getsockopt(ep->fd, SOL_SOCKET, SO_RCVBUF, &got, &len) == 0 &&
        got / 2 > (int)STREAM_WINDOW_START) {
        ep->stream_window = (size_t)got / 2 < window_max ? (size_t)got / 2 : window_max;
    }
}

/* The two that people meet are said in their words. */
static int bind_refused(const struct addr *want, int os_error, struct errmsg *em)
{
    char text[ADDR_TEXT_MAX];
    addr_format(want, text);
    if (os_error == EADDRINUSE) {
        return errmsg_set(em, -ERR_ADDRESS_TAKEN,
                          "UDP %s is in use by another process of this host", text);
    }
    if (os_error == EADDRNOTAVAIL) {
        return errmsg_set(em, -ERR_INVALID,
                          "%s is no address of this host: `ip address` lists them", text);
    }
    return errmsg_set(em, -ERR_IO, "bind %s: %s", text, strerror(os_error));
}

static int open_socket(struct fabric *f, struct errmsg *em)
{
    struct endpoint *ep = &f->ep;
    const struct addr *want = &f->cfg.listen;
    int family = want->ss.ss_family;
    if (family != AF_INET && family != AF_INET6) {
        return errmsg_set(em, -ERR_INVALID, "listen address is neither IPv4 nor IPv6");
    }
    ep->fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (ep->fd < 0) {
        return errmsg_set(em, -ERR_IO, "socket: %s", strerror(errno));
    }
    if (family == AF_INET6) {
        ep->wildcard = memcmp(&((const struct sockaddr_in6 *)&want->ss)->sin6_addr, &in6addr_any,
                              16) == 0;
        (void)set_option(ep->fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
        (void)set_option(ep->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO);
        (void)set_option(ep->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    } else {
        ep->wildcard = ((const struct sockaddr_in *)&want->ss)->sin_addr.s_addr ==
                       htonl(INADDR_ANY);
    }
    if (family == AF_INET || ep->wildcard) {
        (void)set_option(ep->fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
    }
    if (family == AF_INET) {
        (void)set_option(ep->fd, IPPROTO_IP, IP_PKTINFO, 1);
    }
    set_buffers(ep, f->cfg.limits.stream_window_max);
    ep->gso = set_option(ep->fd, SOL_UDP, UDP_SEGMENT, 0) == 0;
    (void)set_option(ep->fd, SOL_UDP, UDP_GRO, 1);
    if (bind(ep->fd, (const struct sockaddr *)&want->ss, want->len) != 0) {
        return bind_refused(want, errno, em);
    }
    ep->local.len = sizeof ep->local.ss;
    if (getsockname(ep->fd, (struct sockaddr *)&ep->local.ss, &ep->local.len) != 0) {
        return errmsg_set(em, -ERR_IO, "getsockname: %s", strerror(errno));
    }
    return 0;
}

int endpoint_open(struct fabric *f, struct errmsg *em)
{
    struct endpoint *ep = &f->ep;
    ep->fd = -1;
    rng_bytes(&ep->hash_key, sizeof ep->hash_key);
    int rc = open_socket(f, em);
    if (rc != 0) {
        if (ep->fd >= 0) {
            (void)close(ep->fd);
            ep->fd = -1;
        }
        return rc;
    }
    ep->rx = xmalloc((size_t)RX_SLOTS * RX_SLOT_BYTES);
    ep->tx = xmalloc(TX_BYTES);
    return 0;
}

void endpoint_fini(struct fabric *f)
{
    struct endpoint *ep = &f->ep;
    if (ep->fd >= 0) {
        (void)close(ep->fd);
        ep->fd = -1;
    }
    free(ep->rx);
    free(ep->tx);
    ep->rx = ep->tx = NULL;
}

int endpoint_map(struct fabric *f, const struct addr *to, struct addr *ret)
{
    int family = f->ep.local.ss.ss_family;
    if (to->ss.ss_family == family || path_is_virtual(&to->ss)) {
        *ret = *to;
        return 0;
    }
    if (family != AF_INET6 || to->ss.ss_family != AF_INET) {
        return -ERR_UNREACHABLE;
    }
    const struct sockaddr_in *in = (const struct sockaddr_in *)&to->ss;
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = in->sin_port};
    in6.sin6_addr.s6_addr[10] = in6.sin6_addr.s6_addr[11] = 0xff;
    memcpy(in6.sin6_addr.s6_addr + 12, &in->sin_addr, 4);
    *ret = (struct addr){.len = sizeof in6};
    memcpy(&ret->ss, &in6, sizeof in6);
    return 0;
}

void endpoint_unmap(struct addr *a)
{
    if (a->ss.ss_family != AF_INET6) {
        return;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, &a->ss, sizeof in6);
    if (!IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
        return;
    }
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = in6.sin6_port};
    memcpy(&in.sin_addr, in6.sin6_addr.s6_addr + 12, 4);
    *a = (struct addr){.len = sizeof in};
    memcpy(&a->ss, &in, sizeof in);
}

/* --- sending --- */

static bool same_source(const struct source *a, const struct source *b)
{
    return a->family == b->family && a->ifindex == b->ifindex && memcmp(a->ip, b->ip, 16) == 0;
}

uint8_t *endpoint_reserve(struct fabric *f, size_t len)
{
    struct endpoint *ep = &f->ep;
    if (ep->blocked) {
        return NULL;
    }
    if (TX_BYTES - ep->tx_used < len || ep->group_count >= TX_GROUPS) {
        endpoint_flush(f);
        if (ep->blocked) {
            return NULL;
        }
    }
    return ep->tx + ep->tx_used;
}

void endpoint_commit(struct fabric *f, const struct addr *to, const struct source *src, size_t len,
                     bool alone)
{
    struct endpoint *ep = &f->ep;
    if (path_is_virtual(&to->ss)) {
        relay_send(f, NULL, to, blob_of(ep->tx + ep->tx_used, len));
        return;
    }
    f->counters.packets_out++;
    f->counters.bytes_out += len;
    struct tx_group *g = ep->group_count > 0 ? &ep->group[ep->group_count - 1] : NULL;
    if (!alone && g != NULL && !g->full && len <= g->segment && g->count < GSO_SEGMENTS_MAX &&
        g->len + len <= GSO_BYTES_MAX && addr_equal(&g->to, to) && same_source(&g->src, src)) {
        g->len += len;
        g->count++;
        g->full = len < g->segment;
    } else {
        CHECK(ep->group_count < TX_GROUPS);
        ep->group[ep->group_count++] = (struct tx_group){.to = *to,
                                                         .src = *src,
                                                         .off = ep->tx_used,
                                                         .len = len,
                                                         .segment = len,
                                                         .count = 1,
                                                         .full = alone};
    }
    ep->tx_used += len;
}

struct tx_message {
    struct iovec iov;
    struct addr to;
    _Alignas(struct cmsghdr) uint8_t control[CONTROL_BYTES];
};

static void put_control(struct msghdr *h, int level, int type, const void *data, size_t len)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)((uint8_t *)h->msg_control + h->msg_controllen);
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(c), data, len);
    h->msg_controllen += CMSG_SPACE(len);
}

static void prepare_message(struct endpoint *ep, const struct tx_group *g, size_t len,
                            struct tx_message *m, struct mmsghdr *mm)
{
    *mm = (struct mmsghdr){0};
    m->iov = (struct iovec){.iov_base = ep->tx + g->off, .iov_len = len};
    m->to = g->to;
    memset(m->control, 0, sizeof m->control);
    struct msghdr *h = &mm->msg_hdr;
    h->msg_name = &m->to.ss;
    h->msg_namelen = m->to.len;
    h->msg_iov = &m->iov;
    h->msg_iovlen = 1;
    h->msg_control = m->control;
    if (len > g->segment) {
        uint16_t segment = (uint16_t)g->segment;
        put_control(h, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
    }
    if (g->src.family == AF_INET) {
        struct in_pktinfo info = {0};
        memcpy(&info.ipi_spec_dst, g->src.ip, 4);
        put_control(h, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else if (g->src.family == AF_INET6) {
        struct in6_pktinfo info = {.ipi6_ifindex = g->src.ifindex};
        memcpy(&info.ipi6_addr, g->src.ip, 16);
        put_control(h, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
    if (h->msg_controllen == 0) {
        h->msg_control = NULL;
    }
}

/* What one message of a group carries: all of it, or one packet when the kernel cannot cut. */
static size_t message_len(const struct endpoint *ep, const struct tx_group *g)
{
    return ep->gso || g->len < g->segment ? g->len : g->segment;
}

static void advance(struct endpoint *ep, size_t len)
{
    struct tx_group *g = &ep->group[ep->group_first];
    g->off += len;
    g->len -= len;
    if (g->len == 0) {
        ep->group_first++;
    }
}

/* false: the socket is full. */
static bool send_some(struct endpoint *ep)
{
    struct tx_message message[32];
    struct mmsghdr mm[32];
    unsigned n = 0;
    for (size_t i = ep->group_first; i < ep->group_count && n < ARRAY_SIZE(mm); i++) {
        /* Without GSO a group's other packets come with the next calls. */
        prepare_message(ep, &ep->group[i], message_len(ep, &ep->group[i]), &message[n], &mm[n]);
        n++;
    }
    int sent = sendmmsg(ep->fd, mm, n, 0);
    if (sent < 0) {
        if (errno == EINTR) {
            return true;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return false;
        }
        struct tx_group *g = &ep->group[ep->group_first];
        if ((errno == EIO || errno == EINVAL || errno == EOPNOTSUPP) && ep->gso &&
            g->len > g->segment) {
            ep->gso = false;
            return true;
        }
        /* Too large for the path (a probe), no route, refused: to QUIC it is a lost packet. */
        advance(ep, message_len(ep, g));
        return true;
    }
    if (ep->gso) {
        for (int i = 0; i < sent; i++) {
            advance(ep, ep->group[ep->group_first].len);
        }
        return true;
    }
    size_t at = ep->group_first;
    for (int i = 0; i < sent; i++, at++) {
        size_t len = message_len(ep, &ep->group[at]);
        ep->group[at].off += len;
        ep->group[at].len -= len;
    }
    size_t kept = 0;
    for (size_t i = ep->group_first; i < ep->group_count; i++) {
        if (ep->group[i].len > 0) {
            ep->group[kept++] = ep->group[i];
        }
    }
    ep->group_first = 0;
    ep->group_count = kept;
    return true;
}

void endpoint_flush(struct fabric *f)
{
    struct endpoint *ep = &f->ep;
    if (f->mute) {
        ep->group_first = ep->group_count;
    }
    ep->blocked = false;
    while (ep->group_first < ep->group_count) {
        if (!send_some(ep)) {
            ep->blocked = true;
            return;
        }
    }
    ep->group_first = ep->group_count = 0;
    ep->tx_used = 0;
}

void endpoint_send_copy(struct fabric *f, const struct addr *to, const struct source *src,
                        const uint8_t *data, size_t len)
{
    uint8_t *p = endpoint_reserve(f, len);
    if (p != NULL) {
        memcpy(p, data, len);
        endpoint_commit(f, to, src, len, false);
    }
}

/* --- receiving --- */

static void read_control(struct msghdr *h, bool wildcard, struct source *src, size_t *segment)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c != NULL; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int size = 0;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            if (size > 0) {
                *segment = (size_t)size;
            }
        } else if (wildcard && c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            src->family = AF_INET;
            memcpy(src->ip, &info.ipi_addr, 4);
        } else if (wildcard && c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            src->family = AF_INET6;
            memcpy(src->ip, &info.ipi6_addr, 16);
            if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) {
                src->ifindex = info.ipi6_ifindex;
            }
        }
    }
}

/* Bytes read, or 0: nothing (more) to read. */
static size_t read_batch(struct fabric *f)
{
    struct endpoint *ep = &f->ep;
    struct mmsghdr mm[RX_SLOTS];
    struct iovec iov[RX_SLOTS];
    struct addr from[RX_SLOTS];
    _Alignas(struct cmsghdr) uint8_t control[RX_SLOTS][CONTROL_BYTES];
    for (size_t i = 0; i < RX_SLOTS; i++) {
        iov[i] = (struct iovec){.iov_base = ep->rx + i * RX_SLOT_BYTES, .iov_len = RX_SLOT_BYTES};
        mm[i] = (struct mmsghdr){.msg_hdr = {.msg_name = &(from + i)->ss,
                                             .msg_namelen = sizeof(struct sockaddr_storage),
                                             .msg_iov = &iov[i],
                                             .msg_iovlen = 1,
                                             .msg_control = control[i],
                                             .msg_controllen = CONTROL_BYTES}};
    }
    int n = recvmmsg(ep->fd, mm, RX_SLOTS, MSG_DONTWAIT, NULL);
    if (n <= 0) {
        /* An error belongs to one earlier packet (ICMP); the next read goes on. */
        return n < 0 && errno != EAGAIN && errno != EWOULDBLOCK ? 1 : 0;
    }
    fabric_tick(f);
    size_t bytes = 0;
    for (int i = 0; i < n && !f->closing; i++) {
        from[i].len = mm[i].msg_hdr.msg_namelen;
        bytes += mm[i].msg_len;
        struct source src = {0};
        size_t segment = mm[i].msg_len;
        read_control(&mm[i].msg_hdr, ep->wildcard, &src, &segment);
        const uint8_t *p = iov[i].iov_base;
        for (size_t left = mm[i].msg_len; left > 0;) {
            size_t len = left < segment ? left : segment;
            if ((f->drop_permille == 0 || prng_below(&f->drop_prng, 1000) >= f->drop_permille) &&
                (f->cut == NULL || !f->cut(f->cut_data, &from[i]))) {
                endpoint_receive(f, &from[i], &src, blob_of(p, len));
            }
            p += len;
            left -= len;
        }
    }
    relay_deliver(f);
    return n == RX_SLOTS ? bytes + 1 : 0;
}

void endpoint_read(struct fabric *f)
{
    size_t total = 0;
    for (int i = 0; i < READ_ROUNDS && total < READ_BYTES && !f->closing; i++) {
        size_t n = read_batch(f);
        if (n == 0) {
            break;
        }
        total += n;
    }
}
