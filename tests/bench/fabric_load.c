#include "bench/fabric_load.h"

#include "base/clock.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define RPC_BYTES 128

struct fabric_world bench_world;
struct fabric_node *bench_server, *bench_client;
uv_loop_t *bench_loop = &bench_world.loop;
void (*bench_server_ready)(void);

static double cpu_s(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) +
           (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

double bench_cpu_s(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return cpu_s(&u);
}

/* --- the fabric's server --- */

struct sink {
    uint64_t bytes, first_ns, last_ns;
    bool done;
};

static void sink_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    (void)s;
    struct sink *k = data;
    k->last_ns = clock_mono_ns();
    if (k->first_ns == 0) {
        k->first_ns = k->last_ns;
    } else {
        k->bytes += frame.len;
    }
}

static void sink_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    (void)rc;
    ((struct sink *)data)->done = true;
}

static void sink_open(void *data, struct fabric_stream *s)
{
    static const struct fabric_stream_vtab vtab = {.frame = sink_frame, .closed = sink_closed};
    struct sink *k = data;
    *k = (struct sink){0};
    fabric_stream_accept(s, &vtab, k);
}

static void serve_echo(void *data, struct fabric_request *rq, struct blob body)
{
    (void)data;
    fabric_answer(rq, 0, body);
}

static void serve_quit(void *data, struct fabric_request *rq, struct blob body)
{
    fabric_answer(rq, 0, body);
    *(bool *)data = true;
}

static bool is_true(void *data)
{
    return *(bool *)data;
}

bool bench_forever(void *data)
{
    (void)data;
    return false;
}

void bench_must(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "bench_fabric: %s failed\n", what);
        exit(1);
    }
}

void bench_turn_until(bool (*cond)(void *data), void *data, uint64_t limit_ms)
{
    uint64_t end = clock_mono_ns() + limit_ms * NS_PER_MS;
    while (!cond(data) && clock_mono_ns() < end) {
        (void)uv_run(bench_loop, UV_RUN_ONCE);
    }
}

void bench_serve(int out)
{
    struct sink k = {0};
    bool quit = false;
    static uv_loop_t own; /* the world's belongs to the client */
    bench_must(uv_loop_init(&own) == 0, "loop");
    bench_loop = bench_server->config.loop = &own;
    fabric_node_open(bench_server);
    fabric_serve(bench_server->f,
                 &(struct fabric_service){.name = "sink", .data = &k, .stream = sink_open});
    fabric_serve(bench_server->f, &(struct fabric_service){.name = "echo", .request = serve_echo});
    fabric_serve(bench_server->f,
                 &(struct fabric_service){.name = "quit", .data = &quit, .request = serve_quit});
    if (bench_server_ready != NULL) {
        bench_server_ready();
    }
    bench_must(write(out, &bench_server->addr, sizeof bench_server->addr) ==
                   sizeof bench_server->addr,
               "pipe");
    double cpu = bench_cpu_s();
    bench_turn_until(is_true, &quit, 120000);
    struct result r = {.seconds = (double)(k.last_ns - k.first_ns) / 1e9,
                       .cpu = bench_cpu_s() - cpu,
                       .bytes = k.bytes};
    bench_turn_until(bench_forever, NULL, 20);
    bench_must(write(out, &r, sizeof r) == sizeof r, "pipe");
    _exit(0);
}

struct child bench_start(void (*run)(int out), struct addr *ret_addr)
{
    int fd[2];
    bench_must(pipe(fd) == 0, "pipe");
    pid_t pid = fork();
    bench_must(pid >= 0, "fork");
    if (pid == 0) {
        (void)close(fd[0]);
        run(fd[1]);
    }
    (void)close(fd[1]);
    struct child c = {.pid = pid, .in = fd[0]};
    bench_must(read(c.in, ret_addr, sizeof *ret_addr) == sizeof *ret_addr, "server");
    return c;
}

struct result bench_stop(struct child *c)
{
    struct result r;
    bench_must(read(c->in, &r, sizeof r) == sizeof r, "result");
    (void)close(c->in);
    (void)waitpid(c->pid, NULL, 0);
    return r;
}

/* --- the fabric's client --- */

struct caller {
    struct fabric_call call;
    bool done;
    int rc;
};

static void on_answer(struct fabric_call *call, int rc, struct blob body)
{
    (void)body;
    struct caller *c = call->data;
    c->done = true;
    c->rc = rc;
    /* Answers come before the loop polls: without this the turn would still wait for a timer, and
     * the wait would be measured. */
    uv_stop(bench_loop);
}

void bench_call(const char *service)
{
    static const uint8_t body[RPC_BYTES];
    struct caller c = {.call.data = &c};
    bench_must(fabric_call_start(bench_client->f, &c.call, &bench_server->id, service,
                                 blob_of(body, sizeof body), 10000, on_answer) == 0,
               "call");
    bench_turn_until(is_true, &c.done, 10000);
    bench_must(c.done && c.rc == 0, "answer");
}

uint8_t bench_frame[FRAME_BYTES];

static void fill(struct fabric_stream *s, void *data)
{
    struct feeder *src = data;
    while (!src->stop && fabric_stream_send(s, blob_of(bench_frame, sizeof bench_frame)) == 0) {
    }
}

static void nothing_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    (void)s;
    (void)data;
    (void)frame;
}

static void nothing_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    (void)data;
    (void)rc;
}

void bench_bulk_start(struct feeder *src)
{
    static const struct fabric_stream_vtab vtab = {
        .frame = nothing_frame, .closed = nothing_closed, .drained = fill};
    *src = (struct feeder){0};
    struct fabric_stream_to to = {.node_id = bench_server->id, .service = "sink", .bulk = true};
    bench_must(fabric_stream_open(bench_client->f, &to, &vtab, src, &src->s) == 0, "stream");
    fill(src->s, src);
}

void bench_connect(struct child *c)
{
    struct addr addr;
    *c = bench_start(bench_serve, &addr);
    fabric_peer_set(bench_client->f, &bench_server->id, &addr, 1);
    bench_call("echo");
}

struct result bench_disconnect(struct child *c)
{
    bench_call("quit");
    struct result r = bench_stop(c);
    fabric_peer_forget(bench_client->f, &bench_server->id);
    bench_turn_until(bench_forever, NULL, 5);
    return r;
}

int bench_by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double bench_at(const double *sorted, size_t n, double q)
{
    return sorted[(size_t)((double)(n - 1) * q)];
}

size_t bench_measure_rpc(double *us, uint64_t for_ms)
{
    size_t n = 0;
    uint64_t end = clock_mono_ns() + for_ms * NS_PER_MS;
    for (uint64_t t0 = clock_mono_ns(); t0 < end && n < RPC_MAX;) {
        bench_call("echo");
        uint64_t t1 = clock_mono_ns();
        us[n++] = (double)(t1 - t0) / 1e3;
        t0 = t1;
    }
    qsort(us, n, sizeof us[0], bench_by_value);
    return n;
}
