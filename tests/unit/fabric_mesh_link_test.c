/* One link, both ends, on a wire that can lose and delay. */
#include "fabric/mesh_link.h"

#include "base/rng.h"

#include <setjmp.h>
#include <cmocka.h>

#define WIRE_MAX 256

struct end {
    struct mesh_link link;
    unsigned ups, downs, suspected;
    uint64_t up_us, down_us, suspect_us;
};

struct wire {
    struct end end[2];
    uint64_t now_us;
    uint64_t delay_us;
    bool cut[2];        /* cut[i]: what end i sends is lost */
    bool frozen[2];     /* frozen[i]: end i does nothing; what comes waits in its socket */
    unsigned lose_each; /* one in n messages of end 0 is lost; 0: none */
    struct prng rng;
    struct {
        uint64_t at_us;
        int to;
        struct mesh_probe p;
    } queue[WIRE_MAX];
    size_t count;
};

static void step(struct wire *w, int i, struct mesh_link_event ev)
{
    struct mesh_link_todo todo;
    struct end *e = &w->end[i];
    ev.now_us = w->now_us;
    ev.random = w->now_us * 2654435761u + (uint64_t)i + 1;
    mesh_link_step(&e->link, &ev, &todo);
    if (todo.change == MESH_LINK_CAME_UP) {
        e->ups++;
        e->up_us = w->now_us;
    } else if (todo.change == MESH_LINK_WENT_DOWN) {
        e->downs++;
        e->down_us = w->now_us;
    }
    if (todo.suspected) {
        e->suspected++;
        e->suspect_us = w->now_us;
    }
    for (unsigned k = 0; k < todo.send_count; k++) {
        bool lost = w->cut[i] ||
                    (i == 0 && w->lose_each != 0 && prng_below(&w->rng, w->lose_each) == 0);
        if (!lost) {
            assert_true(w->count < WIRE_MAX);
            w->queue[w->count].at_us = w->now_us + w->delay_us;
            w->queue[w->count].to = 1 - i;
            w->queue[w->count++].p = todo.send[k];
        }
    }
}

/* In steps of a millisecond. */
static void run(struct wire *w, uint64_t us)
{
    for (uint64_t end = w->now_us + us; w->now_us < end; w->now_us += 1000) {
        for (size_t i = 0; i < w->count;) {
            if (w->queue[i].at_us > w->now_us || w->frozen[w->queue[i].to]) {
                i++;
                continue;
            }
            struct mesh_probe p = w->queue[i].p;
            int to = w->queue[i].to;
            memmove(&w->queue[i], &w->queue[i + 1], (w->count - i - 1) * sizeof w->queue[0]);
            w->count--;
            step(w, to, (struct mesh_link_event){.kind = MESH_LINK_PROBE, .probe = &p});
        }
        for (int i = 0; i < 2; i++) {
            if (!w->frozen[i] && w->now_us >= mesh_link_next_us(&w->end[i].link)) {
                step(w, i, (struct mesh_link_event){.kind = MESH_LINK_TICK});
            }
        }
    }
}

/* End 0 is active, end 1 only answers. */
static void start(struct wire *w, uint64_t delay_us)
{
    *w = (struct wire){.now_us = 1000000, .delay_us = delay_us};
    for (int i = 0; i < 2; i++) {
        mesh_link_init(&w->end[i].link);
    }
    step(w, 0, (struct mesh_link_event){.kind = MESH_LINK_ACTIVE, .active = true});
    step(w, 0, (struct mesh_link_event){.kind = MESH_LINK_SESSION_UP});
    step(w, 1, (struct mesh_link_event){.kind = MESH_LINK_SESSION_UP});
}

static void test_both_ends_come_up_when_one_is_active(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 20000);
    run(&w, 3000000);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(w.end[i].link.state, MESH_LINK_UP);
        assert_int_equal(w.end[i].ups, 1);
        assert_true(w.end[i].up_us <= 1000000 + 100000);
        assert_in_range(w.end[i].link.srtt_us, 40000, 42000);
        assert_int_equal(mesh_link_loss_permille(&w.end[i].link), 0);
        assert_true(mesh_link_usable(&w.end[i].link, w.now_us));
    }
    assert_int_equal(w.end[0].link.peer_token, w.end[1].link.token);
    assert_int_equal(w.end[1].link.peer_token, w.end[0].link.token);
    assert_int_not_equal(w.end[0].link.token, w.end[1].link.token);
}

static void test_nobody_probes_when_nobody_is_active(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 1000);
    step(&w, 0, (struct mesh_link_event){.kind = MESH_LINK_ACTIVE, .active = false});
    run(&w, 5000000);
    assert_int_equal(w.end[0].link.state, MESH_LINK_TRYING);
    assert_int_equal(w.end[1].link.state, MESH_LINK_TRYING);
}

static void test_silent_link_is_suspect_then_dead_within_its_bound(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 5000);
    run(&w, 2000000);
    w.cut[0] = w.cut[1] = true;
    uint64_t cut_us = w.now_us;
    run(&w, 3000000);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(w.end[i].downs, 1);
        assert_true(w.end[i].down_us > cut_us + 500000);
        assert_true(w.end[i].down_us <= cut_us + MESH_DEAD_US + MESH_DEAD_RTT_MAX_US);
        assert_false(w.end[i].link.one_way);
        assert_false(mesh_link_usable(&w.end[i].link, w.now_us));
    }
    assert_int_equal(w.end[0].suspected, 1);
    assert_true(w.end[0].suspect_us < w.end[0].down_us);
    w.cut[0] = w.cut[1] = false;
    run(&w, 1000000);
    assert_int_equal(w.end[0].ups, 2);
    assert_int_equal(w.end[1].ups, 2);
}

static void test_usable_ends_on_time_without_a_tick(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 5000);
    run(&w, 2000000);
    struct mesh_link *l = &w.end[0].link;
    uint64_t dead = l->heard_us + MESH_DEAD_US + l->srtt_us;
    assert_true(mesh_link_usable(l, dead - 1));
    assert_false(mesh_link_usable(l, dead));
    assert_int_equal(l->state, MESH_LINK_UP); /* nobody has told it the time */
}

static void test_one_way_loss_takes_both_ends_down_and_is_named(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 5000);
    run(&w, 2000000);
    w.cut[0] = true; /* the active end is heard no more; it still hears */
    run(&w, 1600000);
    assert_int_equal(w.end[0].downs, 1);
    assert_int_equal(w.end[1].downs, 1);
    assert_false(w.end[1].link.one_way); /* it has heard nothing */
    w.cut[0] = false;
    run(&w, 2000000);
    assert_int_equal(w.end[0].link.state, MESH_LINK_UP);
    w.cut[1] = true; /* now the active end is heard, and hears nothing */
    run(&w, 1600000);
    assert_int_equal(w.end[1].downs, 2);
    assert_true(w.end[1].link.one_way);
}

/* RTE-07: an end that still hears the other learns sooner that it is not heard: it, and not the one that
 * hears nothing, goes on sending what gets lost. The bounds are those of docs/decisions/0020. */
static void test_one_way_loss_is_suspected_sooner_than_silence(void **state)
{
    struct wire w;
    uint64_t took_us[2];
    (void)state;
    for (int both = 0; both < 2; both++) {
        start(&w, 5000);
        run(&w, 6000000);
        w.cut[1] = true; /* what the passive end sends */
        w.cut[0] = both != 0;
        uint64_t cut_us = w.now_us;
        run(&w, 990000);
        assert_int_equal(w.end[1].suspected, 1 - both); /* in silence it has nothing to send */
        took_us[both] = (both == 0 ? w.end[1].suspect_us : w.end[0].suspect_us) - cut_us;
    }
    assert_true(took_us[0] < took_us[1]);
    assert_true(took_us[0] <= MESH_PROBE_US + 2 * MESH_REPROBE_US); /* the other end speaks then */
    assert_true(took_us[1] <= MESH_PROBE_US + 3 * MESH_REPROBE_US);
    /* Where packets are lost now and then, two in a row mean nothing. */
    start(&w, 5000);
    step(&w, 1, (struct mesh_link_event){.kind = MESH_LINK_ACTIVE, .active = true});
    prng_seed(&w.rng, 7);
    w.lose_each = 4;
    run(&w, 6000000);
    w.lose_each = 0;
    run(&w, 500000);
    assert_true(mesh_link_loss_permille(&w.end[0].link) > 0);
    run(&w, w.end[0].link.next_probe_us - w.now_us);
    unsigned before = w.end[0].suspected;
    w.cut[0] = true;
    run(&w, 2 * MESH_REPROBE_US); /* two are missed, the third is not sent yet */
    assert_int_equal(w.end[0].suspected, before);
    run(&w, MESH_PROBE_US); /* it is missed, too */
    assert_int_equal(w.end[0].suspected, before + 1);
}

/* Whenever in the pause between two probes the cut comes, and whichever end is cut off. */
static void test_every_cut_is_suspected_within_its_bound(void **state)
{
    (void)state;
    for (uint64_t at_us = 0; at_us < MESH_PROBE_US; at_us += 7000) {
        for (unsigned cut = 1; cut < 4;
             cut++) { /* 1: what end 0 sends is lost, 2: end 1, 3: both */
            struct wire w;
            start(&w, 5000);
            step(&w, 1, (struct mesh_link_event){.kind = MESH_LINK_ACTIVE, .active = true});
            run(&w, 6000000 + at_us);
            w.cut[0] = (cut & 1) != 0;
            w.cut[1] = (cut & 2) != 0;
            uint64_t cut_us = w.now_us;
            run(&w, 990000);
            for (int i = 0; i < 2; i++) {
                assert_int_equal(w.end[i].suspected, 1);
                assert_true(w.end[i].suspect_us - cut_us <= MESH_PROBE_US + 3 * MESH_REPROBE_US);
            }
            if (cut != 3) { /* the end that speaks in vain */
                assert_true(w.end[cut - 1].suspect_us - cut_us <=
                            MESH_PROBE_US + 2 * MESH_REPROBE_US);
            }
        }
    }
}

/* Not run for a quarter of a second, which is twice as long as a probe may wait: no sign of a dead link,
 * neither to the end that did not run nor to the other, and one packet lost is none. */
static void test_short_pause_of_an_end_is_no_suspicion(void **state)
{
    (void)state;
    for (uint64_t at_us = 0; at_us < MESH_PROBE_US; at_us += 7000) {
        struct wire w;
        start(&w, 1000);
        step(&w, 1, (struct mesh_link_event){.kind = MESH_LINK_ACTIVE, .active = true});
        run(&w, 6000000 + at_us);
        w.frozen[0] = true;
        run(&w, 240000);
        w.frozen[0] = false;
        run(&w, 1000000);
        w.cut[1] = true; /* for one probe and one answer */
        run(&w, MESH_REPROBE_US);
        w.cut[1] = false;
        run(&w, 1000000);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(w.end[i].suspected, 0);
            assert_int_equal(w.end[i].downs, 0);
        }
    }
}

/* A suspicion that was wrong moves the routes once, not there and back at each lost packet. */
static void test_link_that_was_suspect_stays_dear_for_a_while(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 1000);
    run(&w, 6000000);
    w.cut[0] = w.cut[1] = true;
    run(&w, 600000);
    struct mesh_link *l = &w.end[0].link;
    assert_int_equal(l->state, MESH_LINK_SUSPECT);
    uint32_t dear = mesh_link_cost_us(l, w.now_us);
    w.cut[0] = w.cut[1] = false;
    run(&w, 200000);
    assert_int_equal(l->state, MESH_LINK_UP);
    assert_true(mesh_link_cost_us(l, w.now_us) >= dear);
    run(&w, MESH_WARY_US);
    assert_true(mesh_link_cost_us(l, w.now_us) < dear / 2);
    assert_int_equal(w.end[0].downs, 0);
}

/* A frozen end answers, when it wakes, what has waited for seconds; that says nothing about the way. */
static void test_answers_that_waited_do_not_spoil_the_round_trip(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 1000);
    run(&w, 3000000);
    w.frozen[1] = true;
    run(&w, 4000000);
    assert_int_equal(w.end[0].downs, 1);
    w.frozen[1] = false;
    run(&w, 1500000);
    assert_int_equal(w.end[0].link.state, MESH_LINK_UP);
    assert_in_range(w.end[0].link.srtt_us, 1000, 10000);
    assert_in_range(w.end[1].link.srtt_us, 1000, 10000);
    /* Nor do the probes that it missed: the link is held for what it did, and then as good as before. */
    run(&w, MESH_HOLD_MIN_US + 1000000);
    assert_int_equal(mesh_link_loss_permille(&w.end[0].link), 0);
    assert_true(mesh_link_cost_us(&w.end[0].link, w.now_us) < 5000);
}

static void test_restarted_peer_voids_what_was_heard(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 5000);
    run(&w, 2000000);
    uint64_t old = w.end[0].link.peer_token;
    mesh_link_init(&w.end[1].link); /* a new process; end 0's session lived on */
    step(&w, 1, (struct mesh_link_event){.kind = MESH_LINK_SESSION_UP});
    run(&w, 1000000);
    assert_int_equal(w.end[0].downs, 1);
    assert_int_equal(w.end[0].ups, 2);
    assert_int_not_equal(w.end[0].link.peer_token, old);
    assert_int_equal(w.end[0].link.peer_token, w.end[1].link.token);
}

/* Who hears it forgets what it was told, although the other end goes on: so that one has to tell it again. */
static void test_late_probe_of_a_life_before_voids_what_both_were_told(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 5000);
    run(&w, 2000000);
    struct mesh_probe late = {
        .type = MESH_PROBE, .token = w.end[1].link.token, .peer_token = w.end[0].link.token};
    mesh_link_init(&w.end[1].link);
    step(&w, 1, (struct mesh_link_event){.kind = MESH_LINK_SESSION_UP});
    run(&w, 1000000);
    unsigned downs[] = {w.end[0].downs, w.end[1].downs};
    step(&w, 0, (struct mesh_link_event){.kind = MESH_LINK_PROBE, .probe = &late});
    assert_int_equal(w.end[0].downs, downs[0] + 1);
    run(&w, 2000000);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(w.end[i].downs, downs[i] + 1);
        assert_int_equal(w.end[i].link.state, MESH_LINK_UP);
        assert_int_equal(w.end[i].link.peer_token, w.end[1 - i].link.token);
    }
}

static void test_loss_is_estimated_and_its_direction(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 1000);
    w.lose_each = 5; /* of end 0: its probes and its answers */
    run(&w, 60000000);
    struct mesh_link *l = &w.end[0].link;
    assert_in_range(mesh_link_loss_permille(l), 50, 350); /* of 64 probes: 3 sigma are 150 */
    assert_in_range(l->out_loss_permille, 50, 350);
    assert_in_range(w.end[1].link.out_loss_permille, 0, 20); /* its own probes all arrive */
}

static void test_cost_grows_with_loss_latency_and_load(void **state)
{
    struct wire fast;
    struct wire slow;
    struct wire lossy;
    (void)state;
    start(&fast, 1000);
    start(&slow, 30000);
    start(&lossy, 1000);
    lossy.lose_each = 5;
    run(&fast, 20000000);
    run(&slow, 20000000);
    run(&lossy, 20000000);
    uint32_t base = mesh_link_cost_us(&fast.end[0].link, fast.now_us);
    assert_true(mesh_link_cost_us(&slow.end[0].link, slow.now_us) > base + 20000);
    assert_true(mesh_link_cost_us(&lossy.end[0].link, lossy.now_us) > base + 20000);
    fast.end[0].link.peer_load = 100;
    assert_int_equal(mesh_link_cost_us(&fast.end[0].link, fast.now_us), base + 20000);
    assert_true(base >= 1);
}

static void test_flapping_link_is_held_longer_each_time(void **state)
{
    struct wire w;
    uint64_t before = 0;
    (void)state;
    start(&w, 1000);
    run(&w, 1000000);
    assert_true(mesh_link_cost_us(&w.end[0].link, w.now_us) < MESH_COST_HELD_US);
    for (int i = 0; i < 4; i++) {
        w.cut[0] = w.cut[1] = true;
        run(&w, 2000000);
        w.cut[0] = w.cut[1] = false;
        run(&w, 600000);
        struct mesh_link *l = &w.end[0].link;
        assert_int_equal(l->state, MESH_LINK_UP); /* usable at once, at a price */
        assert_true(mesh_link_cost_us(l, l->held_until_us - 1) >= MESH_COST_HELD_US);
        assert_true(mesh_link_cost_us(l, l->held_until_us) < MESH_COST_HELD_US);
        uint64_t hold = l->held_until_us - w.end[0].down_us;
        assert_true(i == 0 ? hold == MESH_HOLD_MIN_US : hold == 2 * before);
        before = hold;
    }
    run(&w, 5 * MESH_FLAP_FORGET_US);
    w.cut[0] = w.cut[1] = true;
    run(&w, 2000000);
    assert_int_equal(w.end[0].link.held_until_us - w.end[0].down_us, MESH_HOLD_MIN_US);
}

static void test_strange_answers_change_nothing(void **state)
{
    struct wire w;
    (void)state;
    start(&w, 1000);
    run(&w, 1000000);
    struct mesh_link before = w.end[0].link;
    struct mesh_probe p = {.type = MESH_PROBE_ANSWER,
                           .token = before.peer_token,
                           .peer_token = before.token + 1, /* not us */
                           .seq = before.next_seq - 1,
                           .load = 99};
    step(&w, 0, (struct mesh_link_event){.kind = MESH_LINK_PROBE, .probe = &p});
    assert_int_equal(w.end[0].link.peer_load, before.peer_load);
    p.peer_token = before.token;
    p.seq = before.next_seq + 5; /* never sent */
    step(&w, 0, (struct mesh_link_event){.kind = MESH_LINK_PROBE, .probe = &p});
    assert_int_equal(w.end[0].link.peer_load, before.peer_load);
    assert_int_equal(w.end[0].link.heard_us, before.heard_us);
    assert_int_equal(w.end[0].link.outcomes_count, before.outcomes_count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ends_come_up_when_one_is_active),
        cmocka_unit_test(test_nobody_probes_when_nobody_is_active),
        cmocka_unit_test(test_silent_link_is_suspect_then_dead_within_its_bound),
        cmocka_unit_test(test_usable_ends_on_time_without_a_tick),
        cmocka_unit_test(test_one_way_loss_takes_both_ends_down_and_is_named),
        cmocka_unit_test(test_one_way_loss_is_suspected_sooner_than_silence),
        cmocka_unit_test(test_every_cut_is_suspected_within_its_bound),
        cmocka_unit_test(test_short_pause_of_an_end_is_no_suspicion),
        cmocka_unit_test(test_link_that_was_suspect_stays_dear_for_a_while),
        cmocka_unit_test(test_answers_that_waited_do_not_spoil_the_round_trip),
        cmocka_unit_test(test_restarted_peer_voids_what_was_heard),
        cmocka_unit_test(test_late_probe_of_a_life_before_voids_what_both_were_told),
        cmocka_unit_test(test_loss_is_estimated_and_its_direction),
        cmocka_unit_test(test_cost_grows_with_loss_latency_and_load),
        cmocka_unit_test(test_flapping_link_is_held_longer_each_time),
        cmocka_unit_test(test_strange_answers_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
