/* What the host reports: capabilities by rule (SPEC CAP-01), facts as bounded JSON. */
#include "agent/agent.h"
#include "agent/host.h"
#include "base/text.h"
#include "wire/cmd.h"
#include "wire/mp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

static bool reports(const struct host *h, const char *name)
{
    struct buf raw;
    uint32_t count = 0;
    bool found = false;
    buf_init(&raw, 4096);
    host_capabilities(h, &raw, &count);
    struct mp_reader r;
    mp_reader_init(&r, buf_blob(&raw));
    for (uint32_t i = 0; i < count; i++) {
        struct blob s = mp_get_str(&r, 64);
        assert_true(capability_is_known(s));
        found = found || blob_equal(s, blob_str(name));
    }
    assert_int_equal(mp_reader_finish(&r), 0);
    buf_fini(&raw);
    return found;
}

static void test_bare_host_reports_nothing_full_host_reports_all_known(void **state)
{
    (void)state;
    const struct host none = {.udp = false};
    const struct host all = {.udp = true,
                             .low_ports = true,
                             .default_route = true,
                             .private_route = true,
                             .tun = true,
                             .net_admin = true,
                             .containers = true,
                             .free_bytes = HOST_CACHE_MIN_BYTES};
    for (size_t i = 0; capability_names[i] != NULL; i++) {
        assert_false(reports(&none, capability_names[i]));
        assert_true(reports(&all, capability_names[i]));
    }
}

/* CAP-01, ROLE-02: the names are a promise to whoever writes policies. */
static void test_names_are_those_that_were_promised(void **state)
{
    static const char *const capabilities[] = {
        "can_accept_client_ingress", "can_accept_node_ingress",    "can_route_mesh",
        "can_egress_internet",       "can_egress_private_network", "can_run_rdp_worker",
        "can_run_vnc_worker",        "can_run_vpn_exit",           "can_run_vpn_connector",
        "can_run_file_cache",        "can_run_update_cache",       "can_run_video_relay"};
    static const char *const roles[] = {
        "entry-node",    "relay-node",     "rdp-worker",         "vnc-worker",
        "vpn-exit",      "vpn-connector",  "file-storage-cache", "update-cache",
        "video-relay",   "authority",      "core-mesh",          "web-ingress",
        "admin-runtime", "config-storage", "version-storage",    "audit-sink"};
    size_t count = 0;
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++) {
        assert_true(capability_is_known(blob_str(capabilities[i])));
    }
    while (capability_names[count] != NULL) {
        count++;
    }
    assert_int_equal(count, ARRAY_SIZE(capabilities));
    for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
        assert_true(role_is_known(blob_str(roles[i])));
    }
    count = 0;
    while (role_names[count] != NULL) {
        count++;
    }
    assert_int_equal(count, ARRAY_SIZE(roles));
}

static void test_each_capability_needs_just_its_own_evidence(void **state)
{
    (void)state;
    const struct {
        struct host h;
        const char *yes, *no;
    } table[] = {
        {{.udp = true}, "can_accept_node_ingress", "can_accept_client_ingress"},
        {{.udp = true}, "can_route_mesh", "can_egress_internet"},
        {{.low_ports = true}, "can_accept_client_ingress", "can_accept_node_ingress"},
        {{.default_route = true}, "can_egress_internet", "can_egress_private_network"},
        {{.private_route = true}, "can_egress_private_network", "can_egress_internet"},
        {{.rdp_client = true}, "can_run_rdp_worker", "can_run_vnc_worker"},
        {{.vnc_client = true}, "can_run_vnc_worker", "can_run_rdp_worker"},
        {{.video_tools = true}, "can_run_video_relay", "can_run_rdp_worker"},
        {{.containers = true}, "can_run_rdp_worker", "can_run_vpn_exit"},
        {{.tun = true, .net_admin = true}, "can_run_vpn_exit", "can_run_file_cache"},
        {{.free_bytes = HOST_CACHE_MIN_BYTES}, "can_run_update_cache", "can_run_vpn_connector"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        assert_true(reports(&table[i].h, table[i].yes));
        assert_false(reports(&table[i].h, table[i].no));
    }
    const struct host tun_only = {.tun = true};
    const struct host admin_only = {.net_admin = true};
    const struct host little_disk = {.free_bytes = HOST_CACHE_MIN_BYTES - 1};
    assert_false(reports(&tun_only, "can_run_vpn_exit"));
    assert_false(reports(&admin_only, "can_run_vpn_connector"));
    assert_false(reports(&little_disk, "can_run_file_cache"));
}

#define HEAD "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"

static void test_ipv4_routes_of_procfs(void **state)
{
    (void)state;
    const struct {
        const char *text;
        bool is_default, is_private;
    } table[] = {
        {"", false, false},
        {HEAD, false, false},
        {HEAD "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", true, false},
        {HEAD "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n", false, true},
        {HEAD "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n", false, true},
        {HEAD "eth0\t000010AC\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0\n", false, true},
        {HEAD "eth0\t000020AC\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0\n", false, false},
        {HEAD "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FE\t0\t0\t0\n", false, false},
        {HEAD "eth0\t00000008\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n", false, false},
        {HEAD "eth0\t00000000\t00000000\t0002\t0\t0\t0\t00000000\t0\t0\t0\n", false, false},
        {HEAD "*\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n", false, false},
        {HEAD "lo\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n", false, false},
        {HEAD "torn\t0000", false, false},
        {HEAD "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"
              "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0",
         true, true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        struct host h = {.udp = false};
        host_scan_routes(table[i].text, &h);
        assert_int_equal(h.default_route, table[i].is_default);
        assert_int_equal(h.private_route, table[i].is_private);
    }
}

#define Z32 "00000000000000000000000000000000"
#define REST " 00000400 00000001 00000000 "

static void test_ipv6_routes_of_procfs(void **state)
{
    (void)state;
    const struct {
        const char *text;
        bool is_default, is_private;
    } table[] = {
        {"", false, false},
        {Z32 " 00 " Z32 " 00 fe800000000000000000000000000001" REST "00000003     eth0\n", true,
         false},
        {Z32 " 00 " Z32 " 00 " Z32 " ffffffff 00000001 00000000 00200200       lo\n", false, false},
        {"fd000000000000000000000000000000 08 " Z32 " 00 " Z32 REST "00000001     eth0\n", false,
         true},
        {"fc000000000000000000000000000000 06 " Z32 " 00 " Z32 REST "00000001     eth0\n", false,
         false},
        {"fe800000000000000000000000000000 40 " Z32 " 00 " Z32 REST "00000001     eth0\n", false,
         false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        struct host h = {.udp = false};
        host_scan_routes6(table[i].text, &h);
        assert_int_equal(h.default_route, table[i].is_default);
        assert_int_equal(h.private_route, table[i].is_private);
    }
}

static void test_effective_capability_bits_read(void **state)
{
    (void)state;
    static const char text[] = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000001400\n";
    assert_true(host_has_cap(text, 12));
    assert_true(host_has_cap(text, 10));
    assert_false(host_has_cap(text, 11));
    assert_false(host_has_cap(text, 64));
    assert_false(host_has_cap("Name:\tx\n", 12));
}

static void test_this_hosts_capabilities_are_known_names_without_repeats(void **state)
{
    (void)state;
    struct buf raw;
    uint32_t count = 0;
    struct blob seen[CAPABILITIES_MAX];
    buf_init(&raw, 4096);
    agent_capabilities(&raw, &count);
    assert_in_range(count, 1, CAPABILITIES_MAX); /* a test host can bind UDP */
    struct mp_reader r;
    mp_reader_init(&r, buf_blob(&raw));
    for (uint32_t i = 0; i < count; i++) {
        seen[i] = mp_get_str(&r, 64);
        assert_true(capability_is_known(seen[i]));
        for (uint32_t j = 0; j < i; j++) {
            assert_false(blob_equal(seen[i], seen[j]));
        }
    }
    assert_int_equal(mp_reader_finish(&r), 0);
    buf_fini(&raw);
}

static json_t *parse(struct buf *b)
{
    assert_int_equal(b->err, 0);
    assert_true(text_is_clean((const char *)b->data, b->len));
    json_error_t err;
    json_t *j = json_loadb((const char *)b->data, b->len, JSON_REJECT_DUPLICATES, &err);
    if (j == NULL) {
        fail_msg("%s in %s", err.text, buf_cstr(b));
    }
    return j;
}

static void test_this_hosts_facts_are_json_with_all_keys(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, FACTS_MAX_BYTES);
    agent_facts(&b);
    json_t *j = parse(&b);
    static const char *const keys[] = {"os", "kernel", "arch", "hostname"};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        assert_true(json_string_length(json_object_get(j, keys[i])) > 0);
    }
    assert_true(json_integer_value(json_object_get(j, "cpus")) >= 1);
    assert_true(json_integer_value(json_object_get(j, "memory_bytes")) > 1 << 20);
    assert_int_equal(json_object_size(j), 6);
    json_decref(j);
    buf_fini(&b);
}

static void test_hostile_facts_are_escaped_and_bounded(void **state)
{
    (void)state;
    struct host_facts f = {.cpus = UINT64_MAX >> 1, .memory_bytes = UINT64_MAX >> 1};
    memset(f.kernel, '"', sizeof f.kernel - 1);
    memset(f.os, '\\', sizeof f.os - 1);
    memset(f.arch, 0x01, sizeof f.arch - 1);
    memset(f.hostname, 0xff, sizeof f.hostname - 1);
    memcpy(f.hostname, "\xc3\xa9\n", 3); /* one good character, one control, then no UTF-8 */
    struct buf b;
    buf_init(&b, FACTS_MAX_BYTES);
    host_facts_json(&f, &b);
    json_t *j = parse(&b);
    assert_int_equal(json_string_length(json_object_get(j, "kernel")), sizeof f.kernel - 1);
    assert_int_equal(json_string_length(json_object_get(j, "os")), sizeof f.os - 1);
    assert_true(strncmp(json_string_value(json_object_get(j, "hostname")), "\xc3\xa9???", 5) == 0);
    assert_true(json_string_value(json_object_get(j, "arch"))[0] == '?');
    json_decref(j);
    buf_fini(&b);
}

static void test_host_name_becomes_a_node_name(void **state)
{
    (void)state;
    const struct {
        const char *from, *to;
    } table[] = {
        {"web1", "web1"},   {"Web1.example.org", "web1"}, {"", "node"},  {"...", "node"},
        {"--a_b--", "a-b"}, {"\xff\xff", "node"},         {"a..b", "a"},
    };
    char out[NAME_MAX_BYTES + 1];
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        host_node_name(table[i].from, out);
        assert_string_equal(out, table[i].to);
        assert_true(text_is_name(out, strlen(out)));
    }
    char longest[200];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    longest[62] = '-';
    host_node_name(longest, out);
    assert_int_equal(strlen(out), 62);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bare_host_reports_nothing_full_host_reports_all_known),
        cmocka_unit_test(test_names_are_those_that_were_promised),
        cmocka_unit_test(test_each_capability_needs_just_its_own_evidence),
        cmocka_unit_test(test_ipv4_routes_of_procfs),
        cmocka_unit_test(test_ipv6_routes_of_procfs),
        cmocka_unit_test(test_effective_capability_bits_read),
        cmocka_unit_test(test_this_hosts_capabilities_are_known_names_without_repeats),
        cmocka_unit_test(test_this_hosts_facts_are_json_with_all_keys),
        cmocka_unit_test(test_hostile_facts_are_escaped_and_bounded),
        cmocka_unit_test(test_host_name_becomes_a_node_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
