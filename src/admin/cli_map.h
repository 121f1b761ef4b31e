/* The mesh as one picture, made of what the nodes reported (mesh.links, mesh.routes). The model and both
 * drawings are pure: the same rows give the same bytes. */
#ifndef RAP_ADMIN_CLI_MAP_H
#define RAP_ADMIN_CLI_MAP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "wire/limits.h"

#define MAP_NODES_MAX 1000
#define MAP_REGION_MAX 63

enum map_kind { MAP_AUTHORITY, MAP_RELAY, MAP_NODE };
enum map_state { MAP_UP, MAP_TRYING, MAP_SUSPECT };

struct map_node {
    char id[UUID_TEXT_MAX];
    char name[NAME_MAX_BYTES + 1];
    char region[MAP_REGION_MAX + 1]; /* "" not known */
    char health[17];
    enum map_kind kind;
    double x, y; /* of the drawing */
};
/* Both ends' reports of one link as one: the worse of each. a before b. */
struct map_link {
    size_t a, b; /* nodes */
    enum map_state state;
    uint32_t rtt_us, loss_permille;
    uint32_t routes; /* that go this way first, from either end */
    bool a_says, b_says;
};
struct map_route {
    size_t from, to, next_hop;
};
struct map {
    struct map_node *node; /* by region, kind, name */
    size_t nodes;
    struct map_link *link; /* by a, b */
    size_t links;
    struct map_route *relayed; /* those in use, by from, to */
    size_t routes;
};

/* Rows as the API lists them, one encoded document behind the other. Reports about nodes that are not in
 * the list count for nothing. -ERR_TOO_LARGE: more than MAP_NODES_MAX nodes. End it with map_fini, on
 * errors too. */
struct map_rows {
    struct blob nodes, links, routes;
    uint32_t nodes_count, links_count, routes_count;
};
int map_build(const struct map_rows *rows, struct map *ret, struct errmsg *em);
void map_fini(struct map *m);

const char *map_kind_text(enum map_kind k);
const char *map_state_text(enum map_state s);

void map_text(const struct map *m, struct buf *out);
/* A whole SVG 1.1 document, without scripts or references. title: any text. */
void map_svg(struct map *m, const char *title, struct buf *out);

#endif
