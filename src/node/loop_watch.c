#include "node/loop_watch.h"

/* A turn ends where the loop is about to wait: all since the last such point, less what it waited. */
static void on_prepare(uv_prepare_t *h)
{
    struct loop_watch *w = h->data;
    uint64_t now = uv_hrtime();
    uint64_t idle = uv_metrics_idle_time(h->loop);
    uint64_t gone = now - w->at_ns;
    uint64_t waited = idle - w->idle_ns;
    uint64_t us = gone > waited ? (gone - waited) / 1000 : 0;
    w->at_ns = now;
    w->idle_ns = idle;
    histogram_add(&w->turns, us);
    w->longest_us = us > w->longest_us ? us : w->longest_us;
}

void loop_watch_open(struct loop_watch *w, uv_loop_t *loop)
{
    *w = (struct loop_watch){.at_ns = uv_hrtime()};
    CHECK(uv_loop_configure(loop, UV_METRICS_IDLE_TIME) == 0);
    CHECK(uv_prepare_init(loop, &w->prepare) == 0);
    w->prepare.data = w;
    CHECK(uv_prepare_start(&w->prepare, on_prepare) == 0);
    uv_unref((uv_handle_t *)&w->prepare);
}

void loop_watch_close(struct loop_watch *w)
{
    uv_close((uv_handle_t *)&w->prepare, NULL);
}

uint64_t loop_watch_longest_us(struct loop_watch *w)
{
    uint64_t us = w->longest_us;
    w->longest_us = 0;
    return us;
}
