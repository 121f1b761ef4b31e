/* The picture. Three rings - authorities inside, relays, the other nodes outside - and a sector for each
 * region, as wide as it has nodes; within it nodes stand in the order of their names. So a node stays where
 * it is while links come and go, and the same mesh gives the same bytes. Kinds differ by shape, states by
 * dashes, and both by a word in the tooltip: never by colour alone. */
#include "admin/cli_map.h"

#include <math.h>

#define RINGS 3
#define SPACE 70.0   /* between neighbours on a ring */
#define RING_GAP 110.0
#define MARGIN 130.0
#define TAU 6.283185307179586
#define LABELS_MAX 80 /* links: more of them, and figures only hide the picture */

static void put_escaped(struct buf *out, const char *s)
{
    for (; *s != '\0'; s++) {
        switch (*s) {
            case '&':
                buf_add_str(out, "&amp;");
                break;
            case '<':
                buf_add_str(out, "&lt;");
                break;
            case '>':
                buf_add_str(out, "&gt;");
                break;
            case '"':
                buf_add_str(out, "&quot;");
                break;
            default:
                buf_add(out, s, 1);
                break;
        }
    }
}

/* --- where nodes stand --- */

struct sector {
    size_t first, end;  /* nodes */
    double from, width; /* radians */
};

static size_t in_ring(const struct map *m, const struct sector *s, enum map_kind ring)
{
    size_t n = 0;
    for (size_t i = s->first; i < s->end; i++) {
        n += m->node[i].kind == ring;
    }
    return n;
}

static size_t make_sectors(const struct map *m, struct sector *s)
{
    size_t n = 0;
    double at = -TAU / 4; /* begins at the top */
    for (size_t i = 0; i < m->nodes; i++) {
        if (i == 0 || strcmp(m->node[i].region, m->node[i - 1].region) != 0) {
            s[n++] = (struct sector){.first = i};
        }
        s[n - 1].end = i + 1;
    }
    for (size_t i = 0; i < n; i++) {
        s[i].from = at;
        s[i].width = TAU * (double)(s[i].end - s[i].first) / (double)m->nodes;
        at += s[i].width;
    }
    return n;
}

/* As small as all rings fit, the densest sector of each included. */
static void make_radii(const struct map *m, const struct sector *s, size_t sectors,
                       double radius[RINGS])
{
    double before = 0;
    for (unsigned ring = 0; ring < RINGS; ring++) {
        double need = before + (ring == 0 ? 40 : RING_GAP);
        for (size_t i = 0; i < sectors; i++) {
            double r = SPACE * (double)in_ring(m, &s[i], (enum map_kind)ring) / s[i].width;
            need = r > need ? r : need;
        }
        radius[ring] = before = need;
    }
}

static double place(struct map *m, struct sector *s, size_t *ret_sectors)
{
    double radius[RINGS] = {0};
    size_t sectors = make_sectors(m, s);
    make_radii(m, s, sectors, radius);
    double centre = radius[RINGS - 1] + MARGIN;
    for (size_t i = 0; i < sectors; i++) {
        size_t seen[RINGS] = {0};
        for (size_t k = s[i].first; k < s[i].end; k++) {
            struct map_node *n = &m->node[k];
            double share = ((double)seen[n->kind]++ + 0.5) / (double)in_ring(m, &s[i], n->kind);
            double angle = s[i].from + share * s[i].width;
            n->x = centre + radius[n->kind] * cos(angle);
            n->y = centre + radius[n->kind] * sin(angle);
        }
    }
    *ret_sectors = sectors;
    return centre;
}

/* --- drawing --- */

static void put_head(const char *title, double size, struct buf *out)
{
    buf_addf(out,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
             "font-family=\"sans-serif\" font-size=\"12\">\n<title>",
             size, size + 40);
    put_escaped(out, title);
    buf_add_str(
        out, "</title>\n"
             "<style>\n"
             "svg{background:#fff}\n"
             "line{stroke-width:1.5;fill:none}\n"
             ".up{stroke:#2e7d32}\n"
             ".trying{stroke:#b26a00;stroke-dasharray:2 4}\n"
             ".suspect{stroke:#c62828;stroke-dasharray:7 4}\n"
             ".shape{fill:#e3eefb;stroke:#1b4b82;stroke-width:1.5}\n"
             ".unwell{fill:#fde7c7;stroke:#a03b00;stroke-width:2.5}\n"
             ".relayed{stroke:#6a3fa0;stroke-width:1;stroke-dasharray:1 3;opacity:.6}\n"
             "text{fill:#222;text-anchor:middle;paint-order:stroke;stroke:#fff;stroke-width:3px}\n"
             ".figure{font-size:9px;fill:#555}\n"
             ".region{font-size:15px;fill:#777}\n"
             ".edge{stroke:#ddd}\n"
             "</style>\n");
}

static void put_regions(const struct map *m, const struct sector *s, size_t sectors, double centre,
                        struct buf *out)
{
    double r = centre - 45;
    for (size_t i = 0; i < sectors; i++) {
        double middle = s[i].from + s[i].width / 2;
        const char *region = m->node[s[i].first].region;
        if (sectors > 1) {
            buf_addf(out,
                     "<line class=\"edge\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
                     centre, centre, centre + r * cos(s[i].from), centre + r * sin(s[i].from));
        }
        if (region[0] != '\0') {
            buf_addf(out, "<text class=\"region\" x=\"%.1f\" y=\"%.1f\">", centre + r * cos(middle),
                     centre + r * sin(middle));
            put_escaped(out, region);
            buf_add_str(out, "</text>\n");
        }
    }
}

static void put_line(const char *class, const struct map_node *a, const struct map_node *b,
                     double width, struct buf *out)
{
    buf_addf(out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"", class, a->x,
             a->y, b->x, b->y);
    if (width > 0) {
        buf_addf(out, " style=\"stroke-width:%.1f\"", width);
    }
    buf_add_str(out, "><title>");
}

static void put_link(const struct map *m, const struct map_link *l, struct buf *out)
{
    const struct map_node *a = &m->node[l->a];
    const struct map_node *b = &m->node[l->b];
    double width = 1.5 + (l->routes > 16 ? 4 : (double)l->routes / 4);
    put_line(map_state_text(l->state), a, b, width, out);
    put_escaped(out, a->name);
    buf_add_str(out, " - ");
    put_escaped(out, b->name);
    buf_addf(out, ": %s, %.2f ms, %.1f %% lost, %u routes%s</title></line>\n",
             map_state_text(l->state), (double)l->rtt_us / 1000, (double)l->loss_permille / 10,
             l->routes, l->a_says && l->b_says ? "" : ", one end reports it");
    if (m->links <= LABELS_MAX && l->rtt_us > 0) {
        buf_addf(out, "<text class=\"figure\" x=\"%.1f\" y=\"%.1f\">%.2f ms</text>\n",
                 (a->x + b->x) / 2, (a->y + b->y) / 2 - 3, (double)l->rtt_us / 1000);
    }
}

static void put_route(const struct map *m, const struct map_route *r, struct buf *out)
{
    put_line("relayed", &m->node[r->from], &m->node[r->to], 0, out);
    put_escaped(out, m->node[r->from].name);
    buf_add_str(out, " to ");
    put_escaped(out, m->node[r->to].name);
    buf_add_str(out, " via ");
    put_escaped(out, m->node[r->next_hop].name);
    buf_add_str(out, "</title></line>\n");
}

static void put_node(const struct map_node *n, struct buf *out)
{
    const char *class = strcmp(n->health, "healthy") == 0 ? "shape" : "unwell";
    buf_add_str(out, "<g><title>");
    put_escaped(out, n->name);
    buf_addf(out, ": %s, ", map_kind_text(n->kind));
    put_escaped(out, n->health);
    buf_add_str(out, "</title>");
    switch (n->kind) {
        case MAP_AUTHORITY:
            buf_addf(out, "<path class=\"%s\" d=\"M%.1f %.1fl13 13l-13 13l-13 -13z\"/>", class,
                     n->x, n->y - 13);
            break;
        case MAP_RELAY:
            buf_addf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"18\" height=\"18\"/>",
                     class, n->x - 9, n->y - 9);
            break;
        case MAP_NODE:
            buf_addf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"8\"/>", class, n->x,
                     n->y);
            break;
    }
    buf_addf(out, "<text x=\"%.1f\" y=\"%.1f\">", n->x, n->y + 26);
    put_escaped(out, n->name);
    buf_add_str(out, "</text></g>\n");
}

static void put_legend(const struct map *m, double size, struct buf *out)
{
    buf_addf(out,
             "<text x=\"%.1f\" y=\"%.1f\">diamond: authority, square: relay, circle: node; bold "
             "outline: not healthy</text>\n",
             size / 2, size + 6);
    buf_addf(
        out,
        "<text x=\"%.1f\" y=\"%.1f\">line: link (broken: not up, thick: many routes), fine dots: "
        "relayed route; %zu nodes, %zu links</text>\n</svg>\n",
        size / 2, size + 24, m->nodes, m->links);
}

void map_svg(struct map *m, const char *title, struct buf *out)
{
    struct sector *s = xcalloc(m->nodes + 1, sizeof *s);
    size_t sectors = 0;
    double centre = m->nodes == 0 ? 400 : place(m, s, &sectors);
    double size = 2 * centre;
    put_head(title, size, out);
    put_regions(m, s, sectors, centre, out);
    for (size_t i = 0; i < m->routes; i++) {
        put_route(m, &m->relayed[i], out);
    }
    for (size_t i = 0; i < m->links; i++) {
        put_link(m, &m->link[i], out);
    }
    for (size_t i = 0; i < m->nodes; i++) {
        put_node(&m->node[i], out);
    }
    put_legend(m, size, out);
    free(s);
}
