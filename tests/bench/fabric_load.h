/* What benchmarks of the fabric share: a server process, a client's loads, figures. The nodes are made
 * before the processes part, so that they know each other's certificates. */
#ifndef RAP_BENCH_FABRIC_LOAD_H
#define RAP_BENCH_FABRIC_LOAD_H

#include "fabric/fabric_impl.h"
#include "lib/fabric_pair.h"

#include <sys/types.h>

#define FRAME_BYTES (64u << 10)
#define PACKET_BYTES 1452 /* what an Ethernet path carries */
#define QUEUE_BYTES (1u << 20)
#define RPC_MAX 200000

extern struct fabric_world bench_world;
extern struct fabric_node *bench_server, *bench_client;
extern uv_loop_t *bench_loop; /* of this process */
extern uint8_t bench_frame[FRAME_BYTES];
/* In the server's process, when it is open; may be NULL. */
extern void (*bench_server_ready)(void);

struct result { /* what a server process reports when it ends */
    double seconds, cpu;
    uint64_t bytes;
};

struct child {
    pid_t pid;
    int in; /* addr first, result last */
};

struct feeder {
    struct fabric_stream *s;
    bool stop;
};

/* Ends the process when something failed. */
void bench_must(bool ok, const char *what);
double bench_cpu_s(void);
bool bench_forever(void *data);
void bench_turn_until(bool (*cond)(void *data), void *data, uint64_t limit_ms);
/* A process that runs `run`, which writes its address into the pipe first and a result last. */
struct child bench_start(void (*run)(int out), struct addr *ret_addr);
struct result bench_stop(struct child *c);
/* Services sink, echo and quit of bench_server. */
void bench_serve(int out);
void bench_connect(struct child *c);
struct result bench_disconnect(struct child *c);
/* One rpc, to its end. */
void bench_call(const char *service);
/* One stream that never runs dry. */
void bench_bulk_start(struct feeder *src);

int bench_by_value(const void *a, const void *b); /* of doubles */
double bench_at(const double *sorted, size_t n, double q);
/* Sorted latencies of rpcs one after another; their number. */
size_t bench_measure_rpc(double *us, uint64_t for_ms);

#endif
