#include "node/cut_off.h"

#include "node/node_impl.h"

#include "base/clock.h"
#include "base/log.h"

#define LOOK_MS 250

bool cut_off_step(struct cut_off *c, uint64_t contact_ms, uint64_t now_ms)
{
    bool before = c->is;
    c->contact_ms = contact_ms > c->contact_ms ? contact_ms : c->contact_ms;
    c->is = c->limit_ms != 0 && now_ms > c->contact_ms && now_ms - c->contact_ms >= c->limit_ms;
    return c->is != before;
}

static uint64_t now_ms(void)
{
    return clock_mono_ns() / 1000000;
}

/* An authority has contact while it sees a majority; a node, when its heartbeat was answered. */
static uint64_t last_contact_ms(const struct node *n, uint64_t now)
{
    struct agent_status as;
    struct authority_state st = {.quorum = false};
    if (n->authority != NULL) {
        authority_state(n->authority, &st);
    }
    if (st.member) {
        return st.quorum ? now : 0;
    }
    agent_status(n->agent, &as);
    return now > as.contact_age_ms ? now - as.contact_age_ms : 0;
}

static void look(struct node *n)
{
    uint64_t now = now_ms();
    if (n->agent == NULL || !cut_off_step(&n->cut_off, last_contact_ms(n, now), now)) {
        return;
    }
    if (n->cut_off.is) {
        log_warn(LOG_BASE, "cut off: services end", "after_ms=%llu next=\"an authority answers\"",
                 (unsigned long long)n->cut_off.limit_ms);
    } else {
        log_info(LOG_BASE, "services go on", "%s", "");
    }
}

static void on_timer(uv_timer_t *t)
{
    look(t->data);
}

void cut_off_open(struct node *n)
{
    n->cut_off.contact_ms = now_ms();
    CHECK(uv_timer_init(&n->loop, &n->cut_off.timer) == 0);
    n->cut_off.timer.data = n;
}

/* Looks only while there is a limit: an idle node has few timers. */
void cut_off_limit(struct node *n, uint64_t limit_ms)
{
    n->cut_off.limit_ms = limit_ms;
    if (limit_ms == 0) {
        (void)uv_timer_stop(&n->cut_off.timer);
    } else if (!uv_is_active((uv_handle_t *)&n->cut_off.timer)) {
        CHECK(uv_timer_start(&n->cut_off.timer, on_timer, LOOK_MS, LOOK_MS) == 0);
    }
    look(n);
}

void cut_off_close(struct node *n)
{
    uv_close((uv_handle_t *)&n->cut_off.timer, NULL);
}
