/* The servers that a connection string names, and the order in which libpq tries them. Libpq goes on to the next
 * one when a connection fails, but it waits without end for one that neither fails nor comes up (a host that lost
 * power, a frozen server): its connect_timeout counts in blocking calls only. So each new attempt after a silent
 * one begins one place further on (pg_hosts_join).
 *
 * A string has lists: host, hostaddr, port, of one length; a single port is for all (libpq, section "Specifying
 * Multiple Hosts"). A host that is looked up becomes a place for each of its addresses. Pure; owns its text. */
#ifndef RAP_AUTHORITY_PG_HOSTS_H
#define RAP_AUTHORITY_PG_HOSTS_H

#include "base/buf.h"
#include "base/err.h"

#define PG_HOSTS_MAX 16     /* that a string may name */
#define PG_ADDRESSES_MAX 8  /* of one name */
#define PG_PLACES_TEXT 4096 /* room for a joined list */

struct pg_place {
    char host[256];   /* a name, an address, the directory of a socket, or empty: see address */
    char address[64]; /* empty: not known, or a socket's */
    char port[8];
};

struct pg_hosts {
    struct pg_place list[PG_HOSTS_MAX * PG_ADDRESSES_MAX];
    size_t count;
};

/* The lists of a string; NULL: it has none. 0, or -ERR_INVALID with words in em when their lengths differ or
 * something in them is too long. ret has at most PG_HOSTS_MAX places then. */
int pg_hosts_split(const char *host, const char *hostaddr, const char *port, struct pg_hosts *ret,
                   struct errmsg *em);
/* Whether libpq would have to look the name up, which blocks. */
bool pg_place_is_name(const struct pg_place *p);
/* One more place: like p, at this address (NULL: p's own). What does not fit is left out. */
void pg_hosts_add(struct pg_hosts *h, const struct pg_place *p, const char *address);

struct pg_lists {
    struct buf hosts, addresses, ports;
    bool has_addresses, has_ports; /* libpq wants no list rather than one of nothing */
};
/* libpq's lists, round from the place `first` (counted modulo their number). */
void pg_hosts_join(const struct pg_hosts *h, size_t first, struct pg_lists *ret);
void pg_lists_fini(struct pg_lists *l);

#endif
