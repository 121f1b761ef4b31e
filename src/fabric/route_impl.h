/* The insides of the route table, for its own files and its tests.
 *
 *   route.c         events, upkeep, look-ups
 *   route_select.c  feasibility, choice of the next hop, what we advertise
 *   route_recv.c    what neighbours say
 *   route_send.c    updates until they are acknowledged, requests */
#ifndef RAP_FABRIC_ROUTE_IMPL_H
#define RAP_FABRIC_ROUTE_IMPL_H

#include "fabric/route.h"

#include <uthash.h>

#define BITMAP_BYTES (ROUTE_DESTINATIONS_MAX / 8)
#define ROUTE_UPKEEP_MS 1000
#define NO_TIME UINT64_MAX
/* Above it a way is none; also the highest cost of a link, so that the sum never wraps. */
#define ROUTE_METRIC_MAX 0x7fffffffu

/* A seqno and a metric, ordered by route_pair_better. */
struct route_pair {
    uint32_t seqno, metric;
};

struct route_flight { /* a message that is not acknowledged yet */
    uint32_t number;
    uint64_t sent_ms;
    uint32_t count; /* 0: free */
    uint16_t slot[MESH_ROUTES_ENTRIES_MAX];
};

struct route_neighbour {
    UT_hash_handle hh;
    struct uuid id;
    bool relay;
    bool leaving; /* we are: it is not told about ourselves any more */
    uint64_t token, peer_token;
    uint32_t cost;
    uint32_t last_in, last_out; /* message numbers */
    struct route_flight flight[ROUTE_FLIGHT_MAX];
    uint8_t dirty[BITMAP_BYTES];       /* by slot: to be told */
    uint8_t told[BITMAP_BYTES];        /* has been told a finite metric */
    uint8_t interest[2][BITMAP_BYTES]; /* a leaf's; [0] the present period */
    size_t dirty_count;
    uint64_t next_send_ms;
    struct mesh_request_entry request[MESH_REQUESTS_ENTRIES_MAX];
    uint32_t request_count;
    uint64_t refused; /* its messages with routes that its role does not allow */
};

struct route {
    struct route_neighbour *via;
    struct route_pair best; /* the best it has advertised in this life of the link */
    struct route_pair last; /* the latest */
    uint8_t hops;
    uint64_t heard_ms;
};

struct route_destination {
    UT_hash_handle hh;
    struct uuid id;
    uint16_t slot;
    struct route *route;
    uint32_t count, cap;
    struct route_neighbour *next; /* of the selected route; NULL: none */
    bool has_fd;
    struct route_pair fd;  /* feasibility distance */
    struct route_pair adv; /* what we advertise; metric infinite: withdrawn */
    uint8_t adv_hops;
    uint64_t lost_ms;       /* since when there is no route */
    uint64_t want_until_ms; /* somebody here wants it; 0: nobody */
    bool requesting;        /* for a newer seqno */
    uint32_t request_seqno;
    uint64_t request_next_ms;
    unsigned request_tries;
    uint32_t passed_seqno; /* the last request passed on for others */
    uint64_t passed_until_ms;
};

struct route_table {
    struct route_config cfg;
    struct route_neighbour *neighbours;
    size_t neighbour_count;
    struct route_destination *destinations;
    struct route_destination *slot[ROUTE_DESTINATIONS_MAX];
    size_t slot_count; /* slots used once; free ones below are NULL */
    size_t destination_count;
    struct route_destination *self;
    uint64_t now_ms;
    uint64_t hold_until_ms;      /* 0: over */
    uint64_t unsettled_until_ms; /* a link was lost with news under way */
    uint64_t role_ms;            /* when our role changed */
    uint64_t upkeep_ms, refresh_ms, interest_ms;
    uint64_t request_next_ms; /* the earliest of all destinations */
    uint64_t generation;
    struct route_counters counters;
};

static inline bool bit_get(const uint8_t *map, uint16_t i)
{
    return (map[i / 8] >> (i % 8) & 1) != 0;
}

static inline void bit_set(uint8_t *map, uint16_t i, bool on)
{
    map[i / 8] = (uint8_t)(on ? map[i / 8] | 1u << (i % 8) : map[i / 8] & ~(1u << (i % 8)));
}

/* --- route_select.c --- */
bool route_pair_better(struct route_pair a, struct route_pair b);
uint32_t route_total(const struct route *r);
bool route_direct(const struct route_destination *d, const struct route *r);
/* NONE when packets may go this way now. */
enum route_refusal route_judge(const struct route_table *t, const struct route_destination *d,
                               const struct route *r);
bool route_feasible(const struct route_destination *d, const struct route *r);
uint32_t route_dislike(const struct route_table *t, const struct route_destination *d,
                       const struct route *r);
struct route *route_selected(const struct route_destination *d);
/* r is about to say that: when we go that way and it is another one behind the next hop, as its metric
 * tells, the generation rises. */
void route_note_move(struct route_table *t, const struct route_destination *d,
                     const struct route *r, struct route_pair said, uint8_t hops);
/* Chooses again, sets what is advertised, and asks for a newer seqno where that would help. */
void route_select(struct route_table *t, struct route_destination *d);
void route_select_all(struct route_table *t);

/* --- route.c --- */
struct route_neighbour *route_neighbour_find(const struct route_table *t, const struct uuid *id);
struct route_destination *route_destination_find(const struct route_table *t,
                                                 const struct uuid *id);
/* NULL: the table is full (counted). */
struct route_destination *route_destination_get(struct route_table *t, const struct uuid *id);
struct route *route_find(struct route_destination *d, const struct route_neighbour *via);
/* Forgets it; selects again. */
void route_remove(struct route_table *t, struct route_destination *d, struct route *r);

/* --- route_recv.c --- */
void route_receive(struct route_table *t, struct route_neighbour *n, struct blob message,
                   struct route_todo *todo);

/* --- route_send.c --- */
void route_mark(struct route_table *t, struct route_neighbour *n, struct route_destination *d);
void route_unmark(struct route_neighbour *n, const struct route_destination *d);
void route_mark_all(struct route_table *t, struct route_destination *d);
void route_ack(struct route_neighbour *n, uint32_t number);
void route_request(struct route_table *t, struct route_destination *d, uint32_t seqno);
/* A leaf asks its relays again for what it wants. */
void route_ask_soon(struct route_table *t, struct route_destination *d);
void route_request_to(struct route_neighbour *n, const struct mesh_request_entry *e);
bool route_neighbour_settled(const struct route_neighbour *n);
/* True when nobody has yet to learn the last word about it. */
bool route_settled(const struct route_table *t, const struct route_destination *d);
/* Room for one message, or NULL. */
struct route_send *route_send_slot(struct route_todo *todo, const struct route_neighbour *to);
/* Writes what is due; returns when more is. */
uint64_t route_flush(struct route_table *t, struct route_todo *todo);

#endif
