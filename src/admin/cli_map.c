/* `rap mesh map`: rows of the API -> the model (cli_map.h) -> text, SVG or JSON. */
#include "admin/cli_map.h"

#include "admin/cli_util.h"
#include "base/file.h"
#include "base/text.h"

#define ROWS_BYTES_MAX (64u << 20)
#define SVG_BYTES_MAX (64u << 20)

const char *map_kind_text(enum map_kind k)
{
    switch (k) {
        case MAP_AUTHORITY:
            return "authority";
        case MAP_RELAY:
            return "relay";
        case MAP_NODE:
            return "node";
    }
    return "node";
}

const char *map_state_text(enum map_state s)
{
    switch (s) {
        case MAP_UP:
            return "up";
        case MAP_TRYING:
            return "trying";
        case MAP_SUSPECT:
            return "suspect";
    }
    return "suspect";
}

/* --- the model --- */

static bool has_role(struct blob node, const char *role)
{
    struct mp_reader r;
    mp_reader_init(&r, mp_find(node, "roles"));
    uint32_t n = mp_get_array(&r, ROLES_MAX);
    bool found = false;
    for (uint32_t i = 0; i < n && r.err == 0; i++) {
        found = blob_equal(mp_get_str(&r, 64), blob_str(role)) || found;
    }
    return found && r.err == 0;
}

/* What came from elsewhere must drive neither a terminal nor a browser. */
static void find_clean(struct blob row, const char *key, char *out, size_t size)
{
    mp_find_str(row, key, out, size);
    if (!text_is_clean(out, strlen(out))) {
        (void)snprintf(out, size, "?");
    }
}

static void take_node(struct blob row, struct map_node *n)
{
    char status[32];
    mp_find_str(row, "id", n->id, sizeof n->id);
    find_clean(row, "name", n->name, sizeof n->name);
    find_clean(row, "health_status", n->health, sizeof n->health);
    find_clean(row, "membership_status", status, sizeof status);
    find_clean(mp_find(row, "mesh"), "region", n->region, sizeof n->region);
    if (strcmp(status, "active") != 0 && status[0] != '\0') {
        (void)snprintf(n->health, sizeof n->health, "%.16s", status);
    }
    n->kind = has_role(row, "authority")                                  ? MAP_AUTHORITY
              : has_role(row, "relay-node") || has_role(row, "core-mesh") ? MAP_RELAY
                                                                          : MAP_NODE;
}

static int by_place(const void *x, const void *y)
{
    const struct map_node *a = x;
    const struct map_node *b = y;
    int d = strcmp(a->region, b->region);
    d = d != 0 ? d : (int)a->kind - (int)b->kind;
    d = d != 0 ? d : strcmp(a->name, b->name);
    return d != 0 ? d : strcmp(a->id, b->id);
}

static int by_ends(const void *x, const void *y)
{
    const struct map_link *a = x;
    const struct map_link *b = y;
    if (a->a != b->a) {
        return a->a < b->a ? -1 : 1;
    }
    return a->b == b->b ? 0 : a->b < b->b ? -1 : 1;
}

static int by_from(const void *x, const void *y)
{
    const struct map_route *a = x;
    const struct map_route *b = y;
    if (a->from != b->from) {
        return a->from < b->from ? -1 : 1;
    }
    return a->to == b->to ? 0 : a->to < b->to ? -1 : 1;
}

/* The node of this id; m->nodes when there is none. Ids are sorted in `order`. */
struct by_id {
    const struct map *m;
    size_t *order;
};

static int compare_ids(const void *x, const void *y, void *data)
{
    const struct map *m = data;
    return strcmp(m->node[*(const size_t *)x].id, m->node[*(const size_t *)y].id);
}

static size_t find(const struct by_id *index, struct blob row, const char *key)
{
    char id[UUID_TEXT_MAX];
    size_t lo = 0, hi = index->m->nodes;
    mp_find_str(row, key, id, sizeof id);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int d = strcmp(index->m->node[index->order[mid]].id, id);
        if (d == 0) {
            return index->order[mid];
        }
        if (d < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return index->m->nodes;
}

static uint32_t number(struct blob row, const char *key)
{
    int64_t v = mp_find_int(row, key);
    return v < 0 ? 0 : v > INT32_MAX ? INT32_MAX : (uint32_t)v;
}

static void take_link(const struct by_id *index, struct blob row, struct map *m)
{
    size_t from = find(index, row, "from_node_id");
    size_t to = find(index, row, "to_node_id");
    char status[32];
    if (from == m->nodes || to == m->nodes || from == to) {
        return;
    }
    mp_find_str(row, "status", status, sizeof status);
    bool forth = from < to;
    m->link[m->links++] = (struct map_link){
        .a = forth ? from : to,
        .b = forth ? to : from,
        .a_says = forth,
        .b_says = !forth,
        .state = strcmp(status, "up") == 0       ? MAP_UP
                 : strcmp(status, "trying") == 0 ? MAP_TRYING
                                                 : MAP_SUSPECT,
        .rtt_us = number(row, "rtt_us"),
        .loss_permille = number(row, "loss_permille"),
    };
}

static void merge_links(struct map *m)
{
    size_t n = 0;
    qsort(m->link, m->links, sizeof m->link[0], by_ends);
    for (size_t i = 0; i < m->links; i++) {
        struct map_link *l = &m->link[i];
        struct map_link *last = n == 0 ? NULL : &m->link[n - 1];
        if (last == NULL || last->a != l->a || last->b != l->b) {
            m->link[n++] = *l;
            continue;
        }
        last->state = l->state > last->state ? l->state : last->state;
        last->rtt_us = l->rtt_us > last->rtt_us ? l->rtt_us : last->rtt_us;
        last->loss_permille = l->loss_permille > last->loss_permille ? l->loss_permille
                                                                     : last->loss_permille;
        last->a_says = last->a_says || l->a_says;
        last->b_says = last->b_says || l->b_says;
    }
    m->links = n;
}

static void take_route(const struct by_id *index, struct blob row, struct map *m)
{
    char status[32];
    size_t from = find(index, row, "from_node_id");
    size_t to = find(index, row, "to_node_id");
    size_t next = find(index, row, "next_hop_id");
    mp_find_str(row, "status", status, sizeof status);
    if (strcmp(status, "usable") != 0 || from == m->nodes || to == m->nodes || next == m->nodes ||
        from == next) {
        return;
    }
    const struct map_link key = {.a = from < next ? from : next, .b = from < next ? next : from};
    struct map_link *l = m->links == 0 ? NULL
                                       : bsearch(&key, m->link, m->links, sizeof key, by_ends);
    if (l != NULL) {
        l->routes++;
    }
    if (next != to) {
        m->relayed[m->routes++] = (struct map_route){.from = from, .to = to, .next_hop = next};
    }
}

int map_build(const struct map_rows *rows, struct map *ret, struct errmsg *em)
{
    struct mp_reader r;
    *ret = (struct map){.nodes = 0};
    if (rows->nodes_count > MAP_NODES_MAX) {
        return errmsg_set(em, -ERR_TOO_LARGE, "%u nodes are too many for one picture (at most %d)",
                          rows->nodes_count, MAP_NODES_MAX);
    }
    ret->node = xcalloc(rows->nodes_count + 1, sizeof ret->node[0]);
    ret->link = xcalloc(rows->links_count + 1, sizeof ret->link[0]);
    ret->relayed = xcalloc(rows->routes_count + 1, sizeof ret->relayed[0]);
    size_t *order = xcalloc(rows->nodes_count + 1, sizeof *order);
    mp_reader_init(&r, rows->nodes);
    for (uint32_t i = 0; i < rows->nodes_count; i++) {
        take_node(mp_skip(&r), &ret->node[ret->nodes++]);
        order[i] = i;
    }
    qsort(ret->node, ret->nodes, sizeof ret->node[0], by_place);
    qsort_r(order, ret->nodes, sizeof order[0], compare_ids, ret);
    const struct by_id index = {.m = ret, .order = order};
    mp_reader_init(&r, rows->links);
    for (uint32_t i = 0; i < rows->links_count; i++) {
        take_link(&index, mp_skip(&r), ret);
    }
    merge_links(ret);
    mp_reader_init(&r, rows->routes);
    for (uint32_t i = 0; i < rows->routes_count; i++) {
        take_route(&index, mp_skip(&r), ret);
    }
    qsort(ret->relayed, ret->routes, sizeof ret->relayed[0], by_from);
    free(order);
    return 0;
}

void map_fini(struct map *m)
{
    free(m->node);
    free(m->link);
    free(m->relayed);
    *m = (struct map){.nodes = 0};
}

/* --- text --- */

static void text_links(const struct map *m, size_t node, struct buf *out)
{
    for (size_t i = 0; i < m->links; i++) {
        const struct map_link *l = &m->link[i];
        if (l->a != node && l->b != node) {
            continue;
        }
        const struct map_node *other = &m->node[l->a == node ? l->b : l->a];
        bool both = l->a_says && l->b_says;
        buf_addf(out, "    -- %-20s %-8s %8.2f ms %5.1f %% lost", other->name,
                 map_state_text(l->state), (double)l->rtt_us / 1000, (double)l->loss_permille / 10);
        if (l->routes > 0) {
            buf_addf(out, "  %u routes", l->routes);
        }
        buf_add_str(out, both ? "\n" : "  (one end reports it)\n");
    }
}

void map_text(const struct map *m, struct buf *out)
{
    size_t kinds[MAP_NODE + 1] = {0};
    size_t up = 0;
    for (size_t i = 0; i < m->nodes; i++) {
        kinds[m->node[i].kind]++;
    }
    for (size_t i = 0; i < m->links; i++) {
        up += m->link[i].state == MAP_UP;
    }
    buf_addf(
        out,
        "%zu authorities, %zu relays, %zu other nodes; %zu of %zu links up; %zu relayed routes\n",
        kinds[MAP_AUTHORITY], kinds[MAP_RELAY], kinds[MAP_NODE], up, m->links, m->routes);
    for (size_t i = 0; i < m->nodes; i++) {
        const struct map_node *n = &m->node[i];
        if (i == 0 || strcmp(n->region, m->node[i - 1].region) != 0) {
            buf_addf(out, "\n%s\n", n->region[0] == '\0' ? "(no region)" : n->region);
        }
        buf_addf(out, "  %-22s %-10s %s\n", n->name, map_kind_text(n->kind), n->health);
        text_links(m, i, out);
    }
    if (m->routes > 0) {
        buf_add_str(out, "\nrelayed routes in use\n");
    }
    for (size_t i = 0; i < m->routes; i++) {
        const struct map_route *r = &m->relayed[i];
        buf_addf(out, "  %s -> %s via %s\n", m->node[r->from].name, m->node[r->to].name,
                 m->node[r->next_hop].name);
    }
}

/* --- the command --- */

static void put_rows(struct util_body *b, const char *key, struct blob rows, uint32_t count)
{
    mp_doc_key(&b->w, &b->d, key);
    mp_put_array(&b->w, count);
    mp_put_raw(&b->w, rows);
}

static void show_json(struct cli *c, const struct map_rows *rows)
{
    struct util_body b;
    util_body_begin(&b);
    b.bytes.max = (size_t)4 * ROWS_BYTES_MAX;
    put_rows(&b, "nodes", rows->nodes, rows->nodes_count);
    put_rows(&b, "links", rows->links, rows->links_count);
    put_rows(&b, "routes", rows->routes, rows->routes_count);
    out_json(c, util_body_end(&b));
    util_body_fini(&b);
}

static int write_svg(struct cli *c, struct map *m, const char *path)
{
    struct buf svg;
    struct errmsg em = ERRMSG_INIT;
    int rc = CLI_OK;
    buf_init(&svg, SVG_BYTES_MAX);
    map_svg(m, "RAP mesh", &svg);
    int err = svg.err;
    if (err == 0 && strcmp(path, "-") == 0) {
        (void)fwrite(svg.data, 1, svg.len, c->out);
    } else if (err == 0) {
        err = file_write_atomic(path, buf_blob(&svg), 0600, &em);
    }
    if (err != 0) {
        rc = cli_fail(c, err, "choose another file: --svg F", "%s",
                      em.text[0] != '\0' ? em.text : err_text(err));
    } else if (strcmp(path, "-") != 0) {
        cli_note(c, "drawn into %s: open it with a browser", path);
    }
    buf_fini(&svg);
    return rc;
}

static int show(struct cli *c, const struct map_rows *rows)
{
    struct map m;
    struct buf text;
    struct errmsg em = ERRMSG_INIT;
    const char *svg = cli_get(c, "svg");
    int rc = CLI_OK;
    int err = map_build(rows, &m, &em);
    if (err != 0) {
        rc = cli_fail(c, err, "rap mesh links --node N shows one node's", "%s", em.text);
    } else if (svg != NULL) {
        rc = write_svg(c, &m, svg);
    } else {
        buf_init(&text, SVG_BYTES_MAX);
        map_text(&m, &text);
        (void)fwrite(text.data, 1, text.len, c->out);
        buf_fini(&text);
    }
    if (err == 0 && m.links == 0) {
        cli_note(c, "no links are reported: is the overlay on? `rap mesh set --overlay on`");
    }
    map_fini(&m);
    return rc;
}

int cli_run_mesh_map(struct cli *c)
{
    struct map_rows rows = {.nodes_count = 0};
    struct buf nodes, links, routes;
    buf_init(&nodes, ROWS_BYTES_MAX);
    buf_init(&links, ROWS_BYTES_MAX);
    buf_init(&routes, ROWS_BYTES_MAX);
    int rc = out_fetch(c, "/v1/nodes", &nodes, &rows.nodes_count);
    if (rc == CLI_OK) {
        rc = out_fetch(c, "/v1/mesh/links", &links, &rows.links_count);
    }
    if (rc == CLI_OK) {
        rc = out_fetch(c, "/v1/mesh/routes", &routes, &rows.routes_count);
    }
    rows.nodes = buf_blob(&nodes);
    rows.links = buf_blob(&links);
    rows.routes = buf_blob(&routes);
    if (rc == CLI_OK && c->json && cli_get(c, "svg") == NULL) {
        show_json(c, &rows);
    } else if (rc == CLI_OK) {
        rc = show(c, &rows);
    }
    buf_fini(&nodes);
    buf_fini(&links);
    buf_fini(&routes);
    return rc;
}
