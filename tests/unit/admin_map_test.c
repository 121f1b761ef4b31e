/* The picture of the mesh: from rows of the API to text and SVG. */
#include "admin/cli_map.h"

#include "admin/json.h"
#include "wire/mp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ID(n) "018f0000-0000-7000-8000-00000000000" #n

/* The members of a JSON array, as rows. */
static void rows_of(const char *json, struct buf *out, uint32_t *count)
{
    struct buf doc;
    struct errmsg em = ERRMSG_INIT;
    struct mp_reader r;
    char *text = xasprintf("{\"items\":%s}", json);
    buf_init(&doc, 1 << 20);
    buf_init(out, 1 << 20);
    assert_int_equal(json_to_doc(blob_str(text), &doc, &em), 0);
    mp_reader_init(&r, mp_find(buf_blob(&doc), "items"));
    *count = mp_get_array(&r, 10000);
    for (uint32_t i = 0; i < *count; i++) {
        struct blob item = mp_skip(&r);
        buf_add(out, item.data, item.len);
    }
    assert_int_equal(r.err, 0);
    buf_fini(&doc);
    free(text);
}

static struct buf buffers[3];

static struct map_rows rows(const char *nodes, const char *links, const char *routes)
{
    struct map_rows r = {.nodes_count = 0};
    rows_of(nodes, &buffers[0], &r.nodes_count);
    rows_of(links, &buffers[1], &r.links_count);
    rows_of(routes, &buffers[2], &r.routes_count);
    r.nodes = buf_blob(&buffers[0]);
    r.links = buf_blob(&buffers[1]);
    r.routes = buf_blob(&buffers[2]);
    return r;
}

static void rows_end(void)
{
    for (size_t i = 0; i < 3; i++) {
        buf_fini(&buffers[i]);
    }
}

#define NODES                                                                                     \
    "[{\"id\":\"" ID(3) "\",\"name\":\"n1\",\"health_status\":\"stale\",\"roles\":[],"            \
    "\"membership_status\":\"active\",\"mesh\":{\"region\":\"eu <west>\"}},"                      \
    "{\"id\":\"" ID(1) "\",\"name\":\"a1\",\"health_status\":\"healthy\",\"roles\":[\"authority\"]," \
    "\"mesh\":null},"                                                                             \
    "{\"id\":\"" ID(2) "\",\"name\":\"r1\",\"health_status\":\"healthy\",\"roles\":[\"relay-node\"]}," \
    "{\"id\":\"" ID(4) "\",\"name\":\"n2\",\"health_status\":\"healthy\",\"roles\":[],"           \
    "\"membership_status\":\"disabled\"}]"
#define LINK(from, to, status, rtt, loss)                                         \
    "{\"from_node_id\":\"" ID(from) "\",\"to_node_id\":\"" ID(to) "\",\"status\":\"" status \
    "\",\"rtt_us\":" rtt ",\"loss_permille\":" loss "}"
#define LINKS                                                                                 \
    "[" LINK(3, 2, "up", "1500", "0") "," LINK(2, 3, "suspect", "1700", "31") ","              \
    LINK(2, 1, "up", "200", "0") "," LINK(9, 1, "up", "1", "0") "," LINK(4, 4, "up", "1", "0") "]"
#define ROUTE(from, to, via, status)                                                             \
    "{\"from_node_id\":\"" ID(from) "\",\"to_node_id\":\"" ID(to) "\",\"next_hop_id\":\"" ID(via) \
    "\",\"status\":\"" status "\"}"
#define ROUTES                                                                           \
    "[" ROUTE(3, 1, 2, "usable") "," ROUTE(3, 2, 2, "usable") "," ROUTE(2, 1, 1, "no_route") "]"

static void test_both_ends_make_one_link(void **state)
{
    struct map m;
    struct errmsg em = ERRMSG_INIT;
    struct map_rows r = rows(NODES, LINKS, ROUTES);
    (void)state;
    assert_int_equal(map_build(&r, &m, &em), 0);
    assert_int_equal(m.nodes, 4);
    assert_string_equal(m.node[0].name, "a1");
    assert_int_equal(m.node[0].kind, MAP_AUTHORITY);
    assert_string_equal(m.node[1].name, "r1");
    assert_int_equal(m.node[1].kind, MAP_RELAY);
    assert_string_equal(m.node[2].name, "n2");
    assert_string_equal(m.node[2].health, "disabled"); /* says more than how it feels */
    assert_string_equal(m.node[3].region, "eu <west>");
    assert_int_equal(m.links, 2); /* without those to nobody and to itself */
    assert_int_equal(m.link[0].a, 0);
    assert_int_equal(m.link[0].b, 1);
    assert_false(m.link[0].a_says);
    assert_int_equal(m.link[1].state, MAP_SUSPECT); /* the worse word counts */
    assert_int_equal(m.link[1].rtt_us, 1700);
    assert_int_equal(m.link[1].loss_permille, 31);
    assert_int_equal(m.link[1].routes, 2);
    assert_true(m.link[1].a_says && m.link[1].b_says);
    assert_int_equal(m.routes, 1); /* in use, and over another node */
    map_fini(&m);
    rows_end();
}

static void test_text_and_svg_say_the_same(void **state)
{
    struct map m;
    struct errmsg em = ERRMSG_INIT;
    struct map_rows r = rows(NODES, LINKS, ROUTES);
    struct buf text, svg;
    (void)state;
    buf_init(&text, 1 << 20);
    buf_init(&svg, 1 << 20);
    assert_int_equal(map_build(&r, &m, &em), 0);
    map_text(&m, &text);
    assert_non_null(strstr(buf_cstr(&text),
                           "1 authorities, 1 relays, 2 other nodes; 1 of 2 links up; "
                           "1 relayed routes"));
    assert_non_null(strstr(buf_cstr(&text), "suspect      1.70 ms   3.1 % lost  2 routes\n"));
    assert_non_null(strstr(buf_cstr(&text), "n1 -> a1 via r1"));
    assert_non_null(strstr(buf_cstr(&text), "(one end reports it)"));
    map_svg(&m, "a \"mesh\" & more", &svg);
    static const char *const wanted[] = {
        "<title>a &quot;mesh&quot; &amp; more</title>",
        "<title>n1: node, stale</title>",
        "class=\"suspect\"",
        "<title>r1 - n1: suspect, 1.70 ms, 3.1 % lost, 2 routes</title>",
        "eu &lt;west&gt;",
        "n1 to a1 via r1",
    };
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        if (strstr(buf_cstr(&svg), wanted[i]) == NULL) {
            fail_msg("%s is not in %s", wanted[i], buf_cstr(&svg));
        }
    }
    assert_null(strstr(buf_cstr(&svg), "<west"));
    assert_null(strstr(buf_cstr(&svg), "script"));
    assert_null(strstr(buf_cstr(&svg), "href"));
    map_fini(&m);
    buf_fini(&text);
    buf_fini(&svg);
    rows_end();
}

/* Whatever the order of the rows: the same picture, so that two of them can be compared. */
static void test_the_order_of_rows_does_not_matter(void **state)
{
    static const char *const nodes[] = {
        "[{\"id\":\"" ID(1) "\",\"name\":\"a\"},{\"id\":\"" ID(2) "\",\"name\":\"b\"}]",
        "[{\"id\":\"" ID(2) "\",\"name\":\"b\"},{\"id\":\"" ID(1) "\",\"name\":\"a\"}]"};
    static const char *const links[] = {
        "[" LINK(1, 2, "up", "10", "0") "," LINK(2, 1, "up", "30", "0") "]",
        "[" LINK(2, 1, "up", "30", "0") "," LINK(1, 2, "up", "10", "0") "]"};
    struct buf svg[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct map m;
        struct errmsg em = ERRMSG_INIT;
        struct map_rows r = rows(nodes[i], links[i], "[]");
        buf_init(&svg[i], 1 << 20);
        assert_int_equal(map_build(&r, &m, &em), 0);
        map_svg(&m, "t", &svg[i]);
        map_fini(&m);
        rows_end();
    }
    assert_string_equal(buf_cstr(&svg[0]), buf_cstr(&svg[1]));
    buf_fini(&svg[0]);
    buf_fini(&svg[1]);
}

static void test_what_is_strange_does_no_harm(void **state)
{
    static const char controls[] = "[{\"id\":\"" ID(
        1) "\",\"name\":\"a\\u0007\\u001b[2J\",\"mesh\":{\"region\":\"\\n\"}}]";
    const char *const nodes[] = {"[]", "[{}]", "[{\"id\":1,\"name\":[],\"roles\":{},\"mesh\":7}]",
                                 controls,
                                 "[{\"id\":\"x\",\"name\":\"a\"},{\"id\":\"x\",\"name\":\"a\"}]"};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
        struct map m;
        struct errmsg em = ERRMSG_INIT;
        struct map_rows r = rows(nodes[i], "[{},{\"rtt_us\":-1}]", "[{}]");
        struct buf out;
        buf_init(&out, 1 << 20);
        assert_int_equal(map_build(&r, &m, &em), 0);
        map_text(&m, &out);
        map_svg(&m, "t", &out);
        assert_null(memchr(out.data, 0x1b, out.len));
        assert_null(memchr(out.data, 0x07, out.len));
        map_fini(&m);
        buf_fini(&out);
        rows_end();
    }
}

static void test_too_many_nodes_are_refused(void **state)
{
    struct map m;
    struct errmsg em = ERRMSG_INIT;
    const struct map_rows r = {.nodes_count = MAP_NODES_MAX + 1};
    (void)state;
    assert_int_equal(map_build(&r, &m, &em), -ERR_TOO_LARGE);
    map_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ends_make_one_link),
        cmocka_unit_test(test_text_and_svg_say_the_same),
        cmocka_unit_test(test_the_order_of_rows_does_not_matter),
        cmocka_unit_test(test_what_is_strange_does_no_harm),
        cmocka_unit_test(test_too_many_nodes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
