/* The fabric beside TCP with TLS 1.3 (OpenSSL, AES-128-GCM, 16 KiB records), both in one run on
 * loopback, each side its own process:
 *
 *     bulk        one stream, MB/s (best and median of the rounds, alternating with TLS)
 *     rpc         128 bytes there and back, one at a time: idle, and beside a bulk stream
 *     handshake   mutual handshakes one after another: rate and CPU of each side
 *
 * DESIGN section 10 has the targets. */
#include "base/clock.h"
#include "fabric/fabric_impl.h"
#include "lib/fabric_pair.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 5
#define BULK_MS 1500
#define FRAME_BYTES (64u << 10)
#define PACKET_BYTES 1452 /* what an Ethernet path carries */
#define QUEUE_BYTES (1u << 20)
#define RPC_BYTES 128
#define RPC_MAX 200000
#define HANDSHAKES 500

static struct fabric_world world;
static struct fabric_node *server, *client;
static uv_loop_t *loop = &world.loop;

static double cpu_s(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) +
           (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

static double own_cpu_s(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return cpu_s(&u);
}

struct result { /* what a server process reports when it ends */
    double seconds, cpu;
    uint64_t bytes;
};

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

static bool forever(void *data)
{
    (void)data;
    return false;
}

static void must(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "bench_fabric: %s failed\n", what);
        exit(1);
    }
}

static void turn_until(bool (*cond)(void *data), void *data, uint64_t limit_ms)
{
    uint64_t end = clock_mono_ns() + limit_ms * NS_PER_MS;
    while (!cond(data) && clock_mono_ns() < end) {
        (void)uv_run(loop, UV_RUN_ONCE);
    }
}

struct child {
    pid_t pid;
    int in; /* addr first, result last */
};

static void fabric_server(int out)
{
    struct sink k = {0};
    bool quit = false;
    static uv_loop_t own; /* the world's belongs to the client */
    must(uv_loop_init(&own) == 0, "loop");
    loop = server->config.loop = &own;
    fabric_node_open(server);
    fabric_serve(server->f,
                 &(struct fabric_service){.name = "sink", .data = &k, .stream = sink_open});
    fabric_serve(server->f, &(struct fabric_service){.name = "echo", .request = serve_echo});
    fabric_serve(server->f,
                 &(struct fabric_service){.name = "quit", .data = &quit, .request = serve_quit});
    must(write(out, &server->addr, sizeof server->addr) == sizeof server->addr, "pipe");
    double cpu = own_cpu_s();
    turn_until(is_true, &quit, 120000);
    struct result r = {.seconds = (double)(k.last_ns - k.first_ns) / 1e9,
                       .cpu = own_cpu_s() - cpu,
                       .bytes = k.bytes};
    turn_until(forever, NULL, 20);
    must(write(out, &r, sizeof r) == sizeof r, "pipe");
    _exit(0);
}

static struct child start(void (*run)(int out), struct addr *ret_addr)
{
    int fd[2];
    must(pipe(fd) == 0, "pipe");
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        (void)close(fd[0]);
        run(fd[1]);
    }
    (void)close(fd[1]);
    struct child c = {.pid = pid, .in = fd[0]};
    must(read(c.in, ret_addr, sizeof *ret_addr) == sizeof *ret_addr, "server");
    return c;
}

static struct result stop(struct child *c)
{
    struct result r;
    must(read(c->in, &r, sizeof r) == sizeof r, "result");
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
    uv_stop(loop);
}

static void call(const char *service)
{
    static const uint8_t body[RPC_BYTES];
    struct caller c = {.call.data = &c};
    must(fabric_call_start(client->f, &c.call, &server->id, service, blob_of(body, sizeof body),
                           10000, on_answer) == 0,
         "call");
    turn_until(is_true, &c.done, 10000);
    must(c.done && c.rc == 0, "answer");
}

struct feeder {
    struct fabric_stream *s;
    bool stop;
};

static uint8_t frame_bytes[FRAME_BYTES];

static void fill(struct fabric_stream *s, void *data)
{
    struct feeder *src = data;
    while (!src->stop && fabric_stream_send(s, blob_of(frame_bytes, sizeof frame_bytes)) == 0) {
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

static void start_bulk(struct feeder *src)
{
    static const struct fabric_stream_vtab vtab = {
        .frame = nothing_frame, .closed = nothing_closed, .drained = fill};
    *src = (struct feeder){0};
    struct fabric_stream_to to = {.node_id = server->id, .service = "sink", .bulk = true};
    must(fabric_stream_open(client->f, &to, &vtab, src, &src->s) == 0, "stream");
    fill(src->s, src);
}

static void connect_client(struct child *c)
{
    struct addr addr;
    *c = start(fabric_server, &addr);
    fabric_peer_set(client->f, &server->id, &addr, 1);
    call("echo");
}

static struct result disconnect_client(struct child *c)
{
    call("quit");
    struct result r = stop(c);
    fabric_peer_forget(client->f, &server->id);
    turn_until(forever, NULL, 5);
    return r;
}

static struct result fabric_bulk(uint16_t packet, double *ret_cpu)
{
    struct child c;
    client->f->cfg.limits.udp_payload_max = packet;
    connect_client(&c);
    struct feeder src;
    double cpu = own_cpu_s();
    start_bulk(&src);
    turn_until(forever, NULL, BULK_MS);
    src.stop = true;
    *ret_cpu = own_cpu_s() - cpu;
    struct result r = disconnect_client(&c);
    fabric_stream_reset(src.s, -ERR_CANCELED);
    turn_until(forever, NULL, 5);
    client->f->cfg.limits.udp_payload_max = PACKET_BYTES;
    return r;
}

/* --- TCP with TLS 1.3 --- */

static SSL_CTX *tls_server_ctx, *tls_client_ctx;

static void tls_init_both(void)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    X509 *crt = X509_new();
    must(key != NULL && crt != NULL, "key");
    ASN1_INTEGER_set(X509_get_serialNumber(crt), 1);
    X509_gmtime_adj(X509_getm_notBefore(crt), -60);
    X509_gmtime_adj(X509_getm_notAfter(crt), 3600);
    X509_set_pubkey(crt, key);
    must(X509_sign(crt, key, NULL) > 0, "sign");
    tls_server_ctx = SSL_CTX_new(TLS_server_method());
    tls_client_ctx = SSL_CTX_new(TLS_client_method());
    must(SSL_CTX_use_certificate(tls_server_ctx, crt) == 1 &&
             SSL_CTX_use_PrivateKey(tls_server_ctx, key) == 1 &&
             SSL_CTX_set_ciphersuites(tls_server_ctx, "TLS_AES_128_GCM_SHA256") == 1 &&
             SSL_CTX_set_ciphersuites(tls_client_ctx, "TLS_AES_128_GCM_SHA256") == 1,
         "TLS");
    X509_free(crt);
    EVP_PKEY_free(key);
}

static void tls_server(int out)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct addr addr;
    must(addr_parse("127.0.0.1:0", &addr, NULL) == 0 &&
             bind(fd, (struct sockaddr *)&addr.ss, addr.len) == 0 && listen(fd, 1) == 0 &&
             getsockname(fd, (struct sockaddr *)&addr.ss, &addr.len) == 0,
         "listen");
    must(write(out, &addr, sizeof addr) == sizeof addr, "pipe");
    int conn = accept(fd, NULL, NULL);
    SSL *ssl = SSL_new(tls_server_ctx);
    SSL_set_fd(ssl, conn);
    must(SSL_accept(ssl) == 1, "TLS accept");
    double cpu = own_cpu_s();
    static uint8_t buf[16384];
    struct result r = {0};
    uint64_t first = 0;
    uint64_t last = 0;
    int n;
    while ((n = SSL_read(ssl, buf, sizeof buf)) > 0) {
        if (first == 0) {
            first = clock_mono_ns();
        } else {
            r.bytes += (uint64_t)n;
        }
    }
    last = clock_mono_ns();
    r.seconds = (double)(last - first) / 1e9;
    r.cpu = own_cpu_s() - cpu;
    must(write(out, &r, sizeof r) == sizeof r, "pipe");
    _exit(0);
}

static struct result tls_bulk(double *ret_cpu)
{
    struct addr addr;
    struct child c = start(tls_server, &addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(fd, (struct sockaddr *)&addr.ss, addr.len) == 0, "connect");
    SSL *ssl = SSL_new(tls_client_ctx);
    SSL_set_fd(ssl, fd);
    must(SSL_connect(ssl) == 1, "TLS connect");
    double cpu = own_cpu_s();
    uint64_t end = clock_mono_ns() + BULK_MS * NS_PER_MS;
    while (clock_mono_ns() < end) {
        must(SSL_write(ssl, frame_bytes, 16384) == 16384, "TLS write");
    }
    *ret_cpu = own_cpu_s() - cpu;
    SSL_shutdown(ssl);
    (void)close(fd);
    SSL_free(ssl);
    return stop(&c);
}

/* --- figures --- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double at(const double *sorted, size_t n, double q)
{
    return sorted[(size_t)((double)(n - 1) * q)];
}

struct series {
    double mb_s[ROUNDS];
    double cost; /* CPU s/GB, both sides, best */
};

static void note(struct series *s, int round, const struct result *r, double sender_cpu)
{
    s->mb_s[round] = (double)r->bytes / r->seconds / 1e6;
    double cost = (sender_cpu + r->cpu) / ((double)r->bytes / 1e9);
    s->cost = round == 0 || cost < s->cost ? cost : s->cost;
}

static void show(const char *name, struct series *s)
{
    qsort(s->mb_s, ROUNDS, sizeof s->mb_s[0], by_value);
    printf("bulk %s MB/s best %.0f median %.0f, CPU s/GB (both sides, best) %.2f\n", name,
           s->mb_s[ROUNDS - 1], s->mb_s[ROUNDS / 2], s->cost);
}

static void bench_bulk(void)
{
    struct series fabric;
    struct series jumbo;
    struct series tls;
    for (int i = 0; i < ROUNDS; i++) {
        double cpu;
        struct result r = fabric_bulk(PACKET_BYTES, &cpu);
        note(&fabric, i, &r, cpu);
        r = tls_bulk(&cpu);
        note(&tls, i, &r, cpu);
        r = fabric_bulk(8952, &cpu);
        note(&jumbo, i, &r, cpu);
    }
    show("fabric, 1452-byte packets", &fabric);
    show("fabric, 8952-byte packets", &jumbo);
    show("TLS 1.3 over TCP", &tls);
    printf("ratio bulk_vs_tls_best %.2f target 0.80\n",
           fabric.mb_s[ROUNDS - 1] / tls.mb_s[ROUNDS - 1]);
    printf("ratio bulk_vs_tls_median %.2f target 0.80\n",
           fabric.mb_s[ROUNDS / 2] / tls.mb_s[ROUNDS / 2]);
    printf("ratio bulk_jumbo_vs_tls_median %.2f target 0.80\n",
           jumbo.mb_s[ROUNDS / 2] / tls.mb_s[ROUNDS / 2]);
}

static size_t measure_rpc(double *us, uint64_t for_ms)
{
    size_t n = 0;
    uint64_t end = clock_mono_ns() + for_ms * NS_PER_MS;
    for (uint64_t t0 = clock_mono_ns(); t0 < end && n < RPC_MAX;) {
        call("echo");
        uint64_t t1 = clock_mono_ns();
        us[n++] = (double)(t1 - t0) / 1e3;
        t0 = t1;
    }
    qsort(us, n, sizeof us[0], by_value);
    return n;
}

static void bench_rpc(void)
{
    static double us[RPC_MAX];
    struct child c;
    connect_client(&c);
    (void)measure_rpc(us, 300);
    size_t n = measure_rpc(us, 2000);
    double p50 = at(us, n, 0.5);
    double p99 = at(us, n, 0.99);
    printf("rpc idle n %zu p50 %.0f us p99 %.0f us\n", n, p50, p99);
    struct feeder src;
    start_bulk(&src);
    (void)measure_rpc(us, 500);
    n = measure_rpc(us, 2000);
    src.stop = true;
    printf("rpc beside bulk n %zu p50 %.0f us p99 %.0f us\n", n, at(us, n, 0.5), at(us, n, 0.99));
    printf("ratio rpc_p99_beside_bulk_vs_idle %.2f target 3.00\n", at(us, n, 0.99) / p99);
    (void)disconnect_client(&c);
    fabric_stream_reset(src.s, -ERR_CANCELED);
    turn_until(forever, NULL, 5);
}

static bool is_connected(void *data)
{
    (void)data;
    return fabric_peer_connected(client->f, &server->id);
}

static void bench_handshake(void)
{
    struct child c;
    struct addr addr;
    c = start(fabric_server, &addr);
    double cpu = own_cpu_s();
    uint64_t t0 = clock_mono_ns();
    for (int i = 0; i < HANDSHAKES; i++) {
        fabric_peer_set(client->f, &server->id, &addr, 1);
        fabric_peer_keep(client->f, &server->id, true);
        turn_until(is_connected, NULL, 10000);
        must(is_connected(NULL), "handshake");
        if (i + 1 < HANDSHAKES) {
            fabric_peer_forget(client->f, &server->id);
        }
    }
    double s = (double)(clock_mono_ns() - t0) / 1e9;
    double ours = own_cpu_s() - cpu;
    struct result r = disconnect_client(&c);
    double client_ms = ours / HANDSHAKES * 1e3;
    double server_ms = r.cpu / HANDSHAKES * 1e3;
    printf("handshake %.0f/s one at a time, CPU ms client %.2f server %.2f\n", HANDSHAKES / s,
           client_ms, server_ms);
    printf("ratio handshake_cpu_ms_client_vs_0.7 %.2f target 1.00\n", client_ms / 0.7);
    printf("ratio handshake_cpu_ms_server_vs_0.7 %.2f target 1.00\n", server_ms / 0.7);
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : "";
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    tls_init_both();
    fabric_world_init(&world);
    server = fabric_world_node(&world,
                               &(struct fabric_node_opts){.authority = true, .manual = true});
    client = fabric_world_node(
        &world, &(struct fabric_node_opts){
                    .issuer = server,
                    .manual = true,
                    .limits = {.queue_bytes_max = QUEUE_BYTES, .udp_payload_max = PACKET_BYTES}});
    fabric_node_open(client);
    bool all = only[0] == '\0';
    if (all || strcmp(only, "bulk") == 0) {
        bench_bulk();
    }
    if (all || strcmp(only, "rpc") == 0) {
        bench_rpc();
    }
    if (all || strcmp(only, "handshake") == 0) {
        bench_handshake();
    }
    fabric_world_fini(&world);
    SSL_CTX_free(tls_server_ctx);
    SSL_CTX_free(tls_client_ctx);
    return 0;
}
