/* A session over one and two relays beside the same session on the direct path, in one run on loopback;
 * client, each relay and server are processes of their own.
 *
 *     bulk   one stream, 1452-byte packets: MB/s, and CPU seconds a GB of all processes together and of
 *            the busiest. Where there are fewer cores than processes (3 and 4) the rate is what is left
 *            of them; the busiest process says what a machine with enough cores would do.
 *     rpc    128 bytes there and back, one at a time: with nothing else going on, and beside the bulk
 *            stream
 *
 * DESIGN section 10 has the targets. */
#include "bench/fabric_load.h"

#include "base/clock.h"

#include <unistd.h>

#define ROUNDS 3
#define BULK_MS 1500
#define RPC_MS 1500
#define RELAYS 2
#define MODES (RELAYS + 1) /* direct, one relay, two */

static struct fabric_node *relay[RELAYS];
static size_t hops;
static bool quit;
static struct fabric_node *me;

static bool may_relay(void *data, const struct uuid *id)
{
    (void)data;
    for (size_t i = 0; i < hops; i++) {
        if (uuid_equal(id, &relay[i]->id)) {
            return true;
        }
    }
    return false;
}

/* client - relay 0 - ... - relay hops-1 - server */
static struct fabric_node *in_line(size_t i)
{
    return i == 0 ? bench_client : i <= hops ? relay[i - 1] : bench_server;
}

static size_t place_of(const struct uuid *id)
{
    size_t i = 0;
    while (i <= hops && !uuid_equal(&in_line(i)->id, id)) {
        i++;
    }
    return i;
}

static int next_hop(void *data, const struct uuid *to, enum overlay_class class,
                    const struct uuid *avoid, struct uuid *ret)
{
    (void)data;
    (void)class;
    size_t at = place_of(&me->id);
    size_t next = place_of(to) > at ? at + 1 : at - 1;
    *ret = in_line(next)->id;
    return avoid != NULL && uuid_equal(ret, avoid) ? -ERR_UNREACHABLE : 0;
}

static void set_overlay(struct fabric_node *n)
{
    me = n;
    fabric_set_overlay(n->f,
                       &(struct fabric_overlay){.next_hop = next_hop, .may_relay = may_relay});
}

/* Connects a node that has just opened to the relay before it in the line. */
static void join_line(struct fabric_node *n, size_t place)
{
    set_overlay(n);
    if (place > 1) { /* the client dials its relay itself */
        struct fabric_node *before = in_line(place - 1);
        fabric_peer_set(n->f, &before->id, &before->addr, 1);
        fabric_peer_keep(n->f, &before->id, true);
    }
}

static void server_ready(void)
{
    join_line(bench_server, hops + 1);
}

static size_t starting;

static void on_quit(void *data, struct fabric_request *rq, struct blob body)
{
    (void)data;
    fabric_answer(rq, 0, body);
    quit = true;
}

static bool has_quit(void *data)
{
    (void)data;
    return quit;
}

static void relay_process(int out)
{
    static uv_loop_t own;
    struct fabric_node *n = relay[starting];
    bench_must(uv_loop_init(&own) == 0, "loop");
    bench_loop = n->config.loop = &own;
    fabric_node_open(n);
    fabric_serve(n->f, &(struct fabric_service){.name = "quit", .request = on_quit});
    join_line(n, starting + 1);
    bench_must(write(out, &n->addr, sizeof n->addr) == sizeof n->addr, "pipe");
    double cpu = bench_cpu_s();
    bench_turn_until(has_quit, NULL, 120000);
    struct result r = {.cpu = bench_cpu_s() - cpu};
    bench_turn_until(bench_forever, NULL, 20);
    bench_must(write(out, &r, sizeof r) == sizeof r, "pipe");
    _exit(0);
}

struct run {
    struct child relay[RELAYS], server;
};

static void run_start(struct run *r, size_t relays)
{
    hops = relays;
    bench_server_ready = server_ready;
    for (starting = 0; starting < hops; starting++) {
        r->relay[starting] = bench_start(relay_process, &relay[starting]->addr);
    }
    bench_client->closed = false;
    fabric_node_open(bench_client);
    set_overlay(bench_client);
    if (hops > 0) {
        struct addr unused;
        r->server = bench_start(bench_serve, &unused);
        fabric_peer_set(bench_client->f, &relay[0]->id, &relay[0]->addr, 1);
        fabric_peer_keep(bench_client->f, &relay[0]->id, true);
        uint64_t end = clock_mono_ns() + 5000 * NS_PER_MS;
        while (!fabric_is_neighbour(bench_client->f, &relay[0]->id) && clock_mono_ns() < end) {
            (void)uv_run(bench_loop, UV_RUN_ONCE);
        }
        bench_call("echo");
    } else {
        bench_connect(&r->server);
    }
}

/* Ends a process that serves "quit". */
static double end(struct fabric_node *n, struct child *c, struct result *ret)
{
    struct fabric_node *server = bench_server;
    bench_server = n;
    bench_call("quit");
    bench_server = server;
    *ret = bench_stop(c);
    return ret->cpu;
}

/* cpu: of all but the client. */
static struct result run_stop(struct run *r, double *ret_busiest)
{
    struct result all;
    struct result one;
    *ret_busiest = end(bench_server, &r->server, &all);
    for (size_t i = hops; i-- > 0;) { /* the far ones first: the way to them goes over the near */
        double cpu = end(relay[i], &r->relay[i], &one);
        all.cpu += cpu;
        *ret_busiest = cpu > *ret_busiest ? cpu : *ret_busiest;
    }
    fabric_node_close(bench_client, true);
    return all;
}

static double rate[MODES][ROUNDS], cost[MODES], busiest[MODES], latency[MODES][ROUNDS];
static double tail[MODES][ROUNDS], beside[MODES][ROUNDS]; /* p99 */

static void bulk(size_t mode, int round)
{
    struct run r;
    struct feeder src;
    run_start(&r, mode);
    double cpu = bench_cpu_s();
    bench_bulk_start(&src);
    bench_turn_until(bench_forever, NULL, BULK_MS);
    src.stop = true;
    cpu = bench_cpu_s() - cpu;
    double most;
    struct result res = run_stop(&r, &most);
    rate[mode][round] = (double)res.bytes / res.seconds / 1e6;
    double per_gb = (cpu + res.cpu) / ((double)res.bytes / 1e9);
    cost[mode] = round == 0 || per_gb < cost[mode] ? per_gb : cost[mode];
    most = (cpu > most ? cpu : most) / ((double)res.bytes / 1e9);
    busiest[mode] = round == 0 || most < busiest[mode] ? most : busiest[mode];
}

static void rpc(size_t mode, int round)
{
    static double us[RPC_MAX];
    struct run r;
    run_start(&r, mode);
    (void)bench_measure_rpc(us, 200);
    size_t n = bench_measure_rpc(us, RPC_MS);
    latency[mode][round] = bench_at(us, n, 0.5);
    tail[mode][round] = bench_at(us, n, 0.99);
    struct feeder src;
    bench_bulk_start(&src);
    (void)bench_measure_rpc(us, 300);
    n = bench_measure_rpc(us, RPC_MS);
    src.stop = true;
    beside[mode][round] = bench_at(us, n, 0.99);
    double unused;
    (void)run_stop(&r, &unused);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof v[0], bench_by_value);
    return v[ROUNDS / 2];
}

int main(void)
{
    static const char *const names[MODES] = {"direct", "1 relay", "2 relays"};
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    heap_keep(); /* as the daemon */
    fabric_world_init(&bench_world);
    const struct fabric_limits limits = {.queue_bytes_max = QUEUE_BYTES,
                                         .udp_payload_max = PACKET_BYTES};
    bench_server = fabric_world_node(
        &bench_world,
        &(struct fabric_node_opts){.authority = true, .manual = true, .limits = limits});
    const struct fabric_node_opts o = {.issuer = bench_server, .manual = true, .limits = limits};
    bench_client = fabric_world_node(&bench_world, &o);
    for (size_t i = 0; i < RELAYS; i++) {
        relay[i] = fabric_world_node(&bench_world, &o);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t mode = 0; mode < MODES; mode++) {
            bulk(mode, round);
            rpc(mode, round);
        }
    }
    double direct_us = median(latency[0]);
    double direct_rate = median(rate[0]);
    for (size_t mode = 0; mode < MODES; mode++) {
        double middle = median(rate[mode]); /* sorts */
        printf("%s: bulk MB/s median %.0f best %.0f, CPU s/GB (best) all processes %.2f "
               "busiest %.2f, rpc p50 %.0f us\n",
               names[mode], middle, rate[mode][ROUNDS - 1], cost[mode], busiest[mode],
               median(latency[mode]));
    }
    for (size_t mode = 0; mode < MODES; mode++) {
        double idle_us = median(tail[mode]);
        double beside_us = median(beside[mode]);
        printf("%s: rpc p99 idle %.0f us, beside bulk %.0f us\n", names[mode], idle_us, beside_us);
        printf("ratio rpc_p99_beside_bulk_vs_idle_%zu_relays %.2f target 3.00\n", mode,
               beside_us / idle_us);
    }
    for (size_t mode = 1; mode < MODES; mode++) {
        printf("ratio bulk_%zu_relays_vs_direct %.2f target %s\n", mode,
               median(rate[mode]) / direct_rate, mode == 1 ? "0.50" : "-");
        printf("ratio bulk_%zu_relays_vs_direct_by_busiest_process %.2f target %s\n", mode,
               busiest[0] / busiest[mode], mode == 1 ? "0.50" : "-");
        printf("ratio bulk_cpu_%zu_relays_vs_direct %.2f target -\n", mode, cost[mode] / cost[0]);
        printf("ratio rpc_us_added_%zu_relays_vs_150 %.2f target 1.00\n", mode,
               (median(latency[mode]) - direct_us) / 150 / (double)mode);
    }
    fabric_world_fini(&bench_world);
    return 0;
}
