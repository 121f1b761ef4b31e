#include "load.h"

#include "base/clock.h"

#define LATENCIES_MAX (4u << 20)

void load_init(struct load *l, unsigned clients, double warm_up_s, double measure_s)
{
    *l = (struct load){.clients = clients, .latency_cap = LATENCIES_MAX};
    l->latency_ns = xcalloc(l->latency_cap, sizeof *l->latency_ns);
    l->start_ns = clock_mono_ns();
    l->measure_ns = l->start_ns + (uint64_t)(warm_up_s * 1e9);
    l->end_ns = l->measure_ns + (uint64_t)(measure_s * 1e9);
}

void load_fini(struct load *l)
{
    free(l->latency_ns);
}

bool load_over(const struct load *l)
{
    return clock_mono_ns() >= l->end_ns;
}

void load_note(struct load *l, uint64_t began_ns, bool ok)
{
    uint64_t now = clock_mono_ns();
    if (!ok) {
        l->failed++;
        return;
    }
    if (now < l->measure_ns || now > l->end_ns) {
        return;
    }
    l->done++;
    if (l->last_ns != 0 && now - l->last_ns > l->gap_ns) {
        l->gap_ns = now - l->last_ns;
    }
    l->last_ns = now;
    if (l->latency_count < l->latency_cap) {
        l->latency_ns[l->latency_count++] = now - began_ns;
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double at(const struct load *l, double quantile)
{
    if (l->latency_count == 0) {
        return 0;
    }
    size_t i = (size_t)((double)(l->latency_count - 1) * quantile);
    return (double)l->latency_ns[i] / 1e6;
}

void load_print(struct load *l, const char *system)
{
    qsort(l->latency_ns, l->latency_count, sizeof *l->latency_ns, compare);
    double seconds = (double)(l->end_ns - l->measure_ns) / 1e9;
    printf("{\"system\":\"%s\",\"clients\":%u,\"ops_per_s\":%.1f,\"p50_ms\":%.3f,"
           "\"p99_ms\":%.3f,\"gap_ms\":%.3f,\"failed\":%llu}\n",
           system, l->clients, (double)l->done / seconds, at(l, 0.5), at(l, 0.99),
           (double)l->gap_ns / 1e6, (unsigned long long)l->failed);
}
