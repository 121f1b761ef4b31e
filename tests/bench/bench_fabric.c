/* The fabric beside TCP with TLS 1.3 (OpenSSL, AES-128-GCM, 16 KiB records), both in one run on
 * loopback, each side its own process:
 *
 *     bulk        one stream, MB/s (best and median of the rounds, alternating with TLS)
 *     rpc         128 bytes there and back, one at a time: idle, and beside a bulk stream
 *     handshake   mutual handshakes one after another: rate and CPU of each side
 *
 * DESIGN section 10 has the targets. */
#include "bench/fabric_load.h"

#include "base/clock.h"

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 5
#define BULK_MS 1500
#define HANDSHAKES 500

static struct result fabric_bulk(uint16_t packet, double *ret_cpu)
{
    struct child c;
    bench_client->f->cfg.limits.udp_payload_max = packet;
    bench_connect(&c);
    struct feeder src;
    double cpu = bench_cpu_s();
    bench_bulk_start(&src);
    bench_turn_until(bench_forever, NULL, BULK_MS);
    src.stop = true;
    *ret_cpu = bench_cpu_s() - cpu;
    struct result r = bench_disconnect(&c);
    fabric_stream_reset(src.s, -ERR_CANCELED);
    bench_turn_until(bench_forever, NULL, 5);
    bench_client->f->cfg.limits.udp_payload_max = PACKET_BYTES;
    return r;
}

/* --- TCP with TLS 1.3 --- */

static SSL_CTX *tls_server_ctx, *tls_client_ctx;

static void tls_init_both(void)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    X509 *crt = X509_new();
    bench_must(key != NULL && crt != NULL, "key");
    ASN1_INTEGER_set(X509_get_serialNumber(crt), 1);
    X509_gmtime_adj(X509_getm_notBefore(crt), -60);
    X509_gmtime_adj(X509_getm_notAfter(crt), 3600);
    X509_set_pubkey(crt, key);
    bench_must(X509_sign(crt, key, NULL) > 0, "sign");
    tls_server_ctx = SSL_CTX_new(TLS_server_method());
    tls_client_ctx = SSL_CTX_new(TLS_client_method());
    bench_must(SSL_CTX_use_certificate(tls_server_ctx, crt) == 1 &&
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
    bench_must(addr_parse("127.0.0.1:0", &addr, NULL) == 0 &&
                   bind(fd, (struct sockaddr *)&addr.ss, addr.len) == 0 && listen(fd, 1) == 0 &&
                   getsockname(fd, (struct sockaddr *)&addr.ss, &addr.len) == 0,
               "listen");
    bench_must(write(out, &addr, sizeof addr) == sizeof addr, "pipe");
    int conn = accept(fd, NULL, NULL);
    SSL *ssl = SSL_new(tls_server_ctx);
    SSL_set_fd(ssl, conn);
    bench_must(SSL_accept(ssl) == 1, "TLS accept");
    double cpu = bench_cpu_s();
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
    r.cpu = bench_cpu_s() - cpu;
    bench_must(write(out, &r, sizeof r) == sizeof r, "pipe");
    _exit(0);
}

static struct result tls_bulk(double *ret_cpu)
{
    struct addr addr;
    struct child c = bench_start(tls_server, &addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bench_must(connect(fd, (struct sockaddr *)&addr.ss, addr.len) == 0, "connect");
    SSL *ssl = SSL_new(tls_client_ctx);
    SSL_set_fd(ssl, fd);
    bench_must(SSL_connect(ssl) == 1, "TLS connect");
    double cpu = bench_cpu_s();
    uint64_t end = clock_mono_ns() + BULK_MS * NS_PER_MS;
    while (clock_mono_ns() < end) {
        bench_must(SSL_write(ssl, bench_frame, 16384) == 16384, "TLS write");
    }
    *ret_cpu = bench_cpu_s() - cpu;
    SSL_shutdown(ssl);
    (void)close(fd);
    SSL_free(ssl);
    return bench_stop(&c);
}

/* --- figures --- */

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
    qsort(s->mb_s, ROUNDS, sizeof s->mb_s[0], bench_by_value);
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

static void bench_rpc(void)
{
    static double us[RPC_MAX];
    struct child c;
    bench_connect(&c);
    (void)bench_measure_rpc(us, 300);
    size_t n = bench_measure_rpc(us, 2000);
    double p50 = bench_at(us, n, 0.5);
    double p99 = bench_at(us, n, 0.99);
    printf("rpc idle n %zu p50 %.0f us p99 %.0f us\n", n, p50, p99);
    struct feeder src;
    bench_bulk_start(&src);
    (void)bench_measure_rpc(us, 500);
    n = bench_measure_rpc(us, 2000);
    src.stop = true;
    printf("rpc beside bulk n %zu p50 %.0f us p99 %.0f us\n", n, bench_at(us, n, 0.5),
           bench_at(us, n, 0.99));
    printf("ratio rpc_p99_beside_bulk_vs_idle %.2f target 3.00\n", bench_at(us, n, 0.99) / p99);
    (void)bench_disconnect(&c);
    fabric_stream_reset(src.s, -ERR_CANCELED);
    bench_turn_until(bench_forever, NULL, 5);
}

static bool is_connected(void *data)
{
    (void)data;
    return fabric_peer_connected(bench_client->f, &bench_server->id);
}

static void bench_handshake(void)
{
    struct child c;
    struct addr addr;
    c = bench_start(bench_serve, &addr);
    double cpu = bench_cpu_s();
    uint64_t t0 = clock_mono_ns();
    for (int i = 0; i < HANDSHAKES; i++) {
        fabric_peer_set(bench_client->f, &bench_server->id, &addr, 1);
        fabric_peer_keep(bench_client->f, &bench_server->id, true);
        bench_turn_until(is_connected, NULL, 10000);
        bench_must(is_connected(NULL), "handshake");
        if (i + 1 < HANDSHAKES) {
            fabric_peer_forget(bench_client->f, &bench_server->id);
        }
    }
    double s = (double)(clock_mono_ns() - t0) / 1e9;
    double ours = bench_cpu_s() - cpu;
    struct result r = bench_disconnect(&c);
    double client_ms = ours / HANDSHAKES * 1e3;
    double server_ms = r.cpu / HANDSHAKES * 1e3;
    printf("handshake %.0f/s one at a time, CPU ms client %.2f server %.2f\n", HANDSHAKES / s,
           client_ms, server_ms);
    printf("ratio handshake_cpu_ms_client_vs_0.7 %.2f target 1.00\n", client_ms / 0.7);
    printf("ratio handshake_cpu_ms_server_vs_0.7 %.2f target 1.00\n", server_ms / 0.7);
}

/* --- memory of idle sessions --- */

#define SESSIONS_MAX 5000
#define SESSIONS_AT_ONCE 32

static size_t held;

static void hold_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    (void)data;
    held++;
    if (s->local) {
        return;
    }
    (void)fabric_stream_send(s, frame);
}

static void hold_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    (void)data;
    (void)rc;
    bench_must(bench_client->f == NULL || bench_client->f->closing, "an idle session");
}

static const struct fabric_stream_vtab hold_vtab = {.frame = hold_frame, .closed = hold_closed};

static void hold_stream(void *data, struct fabric_stream *s)
{
    (void)data;
    fabric_stream_accept(s, &hold_vtab, NULL);
}

/* Sessions of hosts without a certificate: there may be as many from one node as it likes. */
static void hold_ready(void)
{
    fabric_serve(bench_server->f, &(struct fabric_service){.name = "hold",
                                                           .flags = FABRIC_SVC_ENROLL,
                                                           .stream = hold_stream});
}

static double rss_kib(pid_t pid)
{
    char path[64];
    char line[128]; /* "size resident ...", in pages */
    (void)snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *f = fopen(path, "r");
    bench_must(f != NULL && fgets(line, sizeof line, f) != NULL, "statm");
    (void)fclose(f);
    const char *resident = strchr(line, ' ');
    long pages = resident == NULL ? 0 : strtol(resident, NULL, 10);
    bench_must(pages > 0, "statm");
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1024;
}

static bool all_held(void *data)
{
    return held >= *(size_t *)data;
}

static void bench_sessions(void)
{
    static const size_t steps[] = {1000, SESSIONS_MAX};
    struct addr addr;
    size_t count = 0;
    bench_server->config.limits.enroll_per_second = 1000000;
    bench_server->config.limits.enroll_sessions_max = 2 * SESSIONS_MAX;
    bench_server_ready = hold_ready;
    struct child c = bench_start(bench_serve, &addr);
    fabric_peer_set(bench_client->f, &bench_server->id, &addr, 1);
    double server_kib = rss_kib(c.pid);
    double client_kib = rss_kib(getpid());
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        while (count < steps[i]) {
            struct fabric_stream *s;
            struct fabric_stream_to to = {.enroll_addr = addr, .service = "hold"};
            count++;
            bench_must(fabric_stream_open(bench_client->f, &to, &hold_vtab, NULL, &s) == 0 &&
                           fabric_stream_send(s, blob_str("x")) == 0,
                       "open");
            size_t before = count > SESSIONS_AT_ONCE ? count - SESSIONS_AT_ONCE : 0;
            bench_turn_until(all_held, &before, 10000);
        }
        bench_turn_until(all_held, &count, 10000);
        bench_must(held == count, "handshake");
        bench_turn_until(bench_forever, NULL, 3000); /* idle */
        double server = (rss_kib(c.pid) - server_kib) / (double)count;
        double client = (rss_kib(getpid()) - client_kib) / (double)count;
        printf("%zu idle sessions: KiB each server %.1f client %.1f\n", count, server, client);
        printf("ratio idle_session_kib_at_%zu_vs_40 %.2f target 1.00\n", count,
               (server > client ? server : client) / 40);
    }
    (void)bench_disconnect(&c);
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : "";
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    heap_keep(); /* as the daemon */
    tls_init_both();
    fabric_world_init(&bench_world);
    bench_server = fabric_world_node(&bench_world,
                                     &(struct fabric_node_opts){.authority = true, .manual = true});
    bench_client = fabric_world_node(
        &bench_world, &(struct fabric_node_opts){.issuer = bench_server,
                                                 .manual = true,
                                                 .limits = {.queue_bytes_max = QUEUE_BYTES,
                                                            .udp_payload_max = PACKET_BYTES}});
    fabric_node_open(bench_client);
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
    if (all || strcmp(only, "sessions") == 0) {
        bench_sessions();
    }
    fabric_world_fini(&bench_world);
    SSL_CTX_free(tls_server_ctx);
    SSL_CTX_free(tls_client_ctx);
    return 0;
}
