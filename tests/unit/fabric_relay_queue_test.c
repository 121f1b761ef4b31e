/* A relay's queue and guard, in virtual time. */
#include "base/rng.h"
#include "fabric/relay_guard.h"
#include "fabric/relay_queue.h"

#include <setjmp.h>
#include <cmocka.h>

#define MS 1000000ULL
#define ALL (~0u)

static uint8_t zeros[2000];
static struct relay_policy policy;

static void push(struct relay_queue *q, enum overlay_class class, uint64_t source, size_t len,
                 uint64_t now_ns)
{
    struct relay_packet *p = relay_packet_new(blob_of(zeros, len));
    p->source = source;
    relay_queue_push(q, class, p, now_ns);
}

/* Which source's packet came; 0: none. */
static uint64_t pop(struct relay_queue *q, unsigned mask, uint64_t now_ns)
{
    struct relay_packet *p = relay_queue_pop(q, mask, now_ns);
    uint64_t source = p != NULL ? p->source : 0;
    free(p);
    return source;
}

static int setup(void **state)
{
    struct relay_queue *q = xmalloc(sizeof *q);
    relay_policy_set(&policy, NULL);
    relay_queue_init(q, 0, &policy);
    *state = q;
    return 0;
}

static int teardown(void **state)
{
    relay_queue_fini(*state);
    free(*state);
    return 0;
}

static void test_packets_of_one_source_keep_their_order(void **state)
{
    struct relay_queue *q = *state;
    for (size_t i = 0; i < 10; i++) {
        push(q, OVERLAY_BULK, 7, 100 + i, 0);
    }
    for (size_t i = 0; i < 10; i++) {
        struct relay_packet *p = relay_queue_pop(q, ALL, 1);
        assert_int_equal(p->len, 100 + i);
        free(p);
    }
    assert_null(relay_queue_pop(q, ALL, 1));
    assert_int_equal(q->bytes, 0);
}

static void test_higher_class_goes_first(void **state)
{
    struct relay_queue *q = *state;
    for (unsigned c = OVERLAY_CLASSES; c-- > 0;) {
        push(q, (enum overlay_class)c, c + 1, 100, 0);
    }
    for (unsigned c = 0; c < OVERLAY_CLASSES; c++) {
        assert_int_equal(pop(q, ALL, 1), c + 1);
    }
}

static void test_mask_chooses_the_connection(void **state)
{
    struct relay_queue *q = *state;
    push(q, OVERLAY_CONTROL, 1, 100, 0);
    push(q, OVERLAY_BULK, 2, 100, 0);
    assert_true(relay_queue_waits(q, ~1u));
    assert_int_equal(pop(q, ~1u, 1), 2);
    assert_false(relay_queue_waits(q, ~1u));
    assert_int_equal(pop(q, ~1u, 1), 0);
    assert_int_equal(pop(q, 1u, 1), 1);
}

static void test_lower_class_keeps_a_floor_under_constant_higher_load(void **state)
{
    struct relay_queue *q = *state;
    unsigned got[4] = {0};
    for (int i = 0; i < 3200; i++) {
        /* Interactive never runs dry; bulk always waits. */
        push(q, OVERLAY_INTERACTIVE, 1, 1000, (uint64_t)i);
        push(q, OVERLAY_INTERACTIVE, 1, 1000, (uint64_t)i);
        push(q, OVERLAY_BULK, 2, 1000, (uint64_t)i);
        got[pop(q, ALL, (uint64_t)i)]++;
    }
    assert_in_range(got[2], 3200 / 17 - 5, 3200 / 16 + 5);
    assert_int_equal(got[1] + got[2], 3200);
}

static void test_sources_share_a_class_equally_by_bytes(void **state)
{
    struct relay_queue *q = *state;
    size_t bytes[3] = {0};
    /* Source 1 floods with large packets, source 2 sends small ones. Different buckets. */
    for (int i = 0; i < 400; i++) {
        push(q, OVERLAY_RELIABLE, 1, 1400, 0);
        push(q, OVERLAY_RELIABLE, 1, 1400, 0);
        push(q, OVERLAY_RELIABLE, 2, 350, 0);
        push(q, OVERLAY_RELIABLE, 2, 350, 0);
        push(q, OVERLAY_RELIABLE, 2, 350, 0);
        push(q, OVERLAY_RELIABLE, 2, 350, 0);
    }
    for (int i = 0; i < 500; i++) {
        struct relay_packet *p = relay_queue_pop(q, ALL, 1);
        bytes[p->source] += p->len;
        free(p);
    }
    assert_in_range(bytes[1], bytes[2] - 3000, bytes[2] + 3000);
}

static void test_full_class_drops_from_the_one_who_filled_it(void **state)
{
    struct relay_queue *q = *state;
    push(q, OVERLAY_BULK, 2, 1000, 0);
    for (int i = 0; i < 10000; i++) {
        push(q, OVERLAY_BULK, 1, 1000, 0);
    }
    assert_true(q->dropped_full > 0);
    assert_true(q->bytes <= 4u << 20);
    bool found = false;
    for (int i = 0; i < 5 && !found; i++) {
        found = pop(q, ALL, 1) == 2;
    }
    assert_true(found);
}

static void test_a_full_class_takes_nothing_from_another(void **state)
{
    struct relay_queue *q = *state;
    push(q, OVERLAY_CONTROL, 1, 1000, 0);
    for (int i = 0; i < 10000; i++) {
        push(q, OVERLAY_DROPPABLE, 1, 1000, 0);
    }
    assert_false(relay_queue_has_room(q, OVERLAY_DROPPABLE));
    assert_true(relay_queue_has_room(q, OVERLAY_CONTROL));
    assert_int_equal(pop(q, 1u, 1), 1);
}

static void test_old_packets_expire(void **state)
{
    struct relay_queue *q = *state;
    push(q, OVERLAY_DROPPABLE, 1, 100, 0);
    push(q, OVERLAY_CONTROL, 2, 100, 0);
    assert_int_equal(pop(q, ALL, 101 * MS), 2);
    assert_int_equal(pop(q, ALL, 101 * MS), 0);
    assert_int_equal(q->dropped_expired, 1);
    push(q, OVERLAY_CONTROL, 2, 100, 0);
    assert_int_equal(pop(q, ALL, 1001 * MS), 0);
    assert_int_equal(q->dropped_expired, 2);
}

/* RFC 8289: a hop slower than what comes is answered with early drops, and the queue stays short. A
 * short burst is not. */
static void test_standing_queue_is_thinned_and_a_burst_is_not(void **state)
{
    struct relay_queue *q = *state;
    uint64_t now = 0;
    for (int i = 0; i < 50; i++) {
        push(q, OVERLAY_BULK, 1, 1000, now);
    }
    for (int i = 0; i < 50; i++, now += MS) {
        assert_int_equal(pop(q, ALL, now), 1);
    }
    assert_int_equal(q->dropped_early, 0);
    /* One comes each millisecond, one goes every second millisecond. */
    for (int i = 0; i < 1500; i++, now += MS) {
        push(q, OVERLAY_BULK, 1, 1000, now);
        if (i % 2 == 0) {
            (void)pop(q, ALL, now);
        }
    }
    assert_in_range(q->dropped_early, 30, 750);
    assert_int_equal(q->dropped_expired, 0);
}

static void test_random_load_stays_within_bounds_and_loses_nothing_uncounted(void **state)
{
    struct relay_queue *q = *state;
    struct prng r;
    prng_seed(&r, 4711);
    uint64_t in = 0;
    uint64_t out = 0;
    uint64_t now = 0;
    for (int i = 0; i < 50000; i++) {
        now += prng_below(&r, MS);
        if (prng_below(&r, 3) > 0) {
            push(q, (enum overlay_class)prng_below(&r, OVERLAY_CLASSES), 1 + prng_below(&r, 50),
                 1 + prng_below(&r, sizeof zeros), now);
            in++;
        } else {
            out += pop(q, ALL, now) != 0;
        }
        assert_true(q->bytes < 8u << 20);
    }
    uint64_t left = 0;
    while (pop(q, ALL, now) != 0) {
        left++;
    }
    assert_int_equal(in, out + left + q->dropped_full + q->dropped_early + q->dropped_expired);
    assert_int_equal(q->bytes, 0);
}

/* --- the guard --- */

static const struct uuid neighbour_1 = {.b = {1}};
static const struct uuid neighbour_2 = {.b = {2}};

static bool passes(struct relay_guard *g, const struct uuid *neighbour, uint8_t from,
                   enum overlay_class class, uint64_t sequence)
{
    struct overlay_packet p = {.class = class, .sequence = sequence, .from = {.b = {from}}};
    return relay_guard_pass(g, neighbour, &p, 1) != NULL;
}

static void test_duplicates_and_the_too_old_are_stopped(void **state)
{
    (void)state;
    struct relay_guard g = {0};
    const enum overlay_class c = OVERLAY_BULK;
    assert_true(passes(&g, &neighbour_1, 9, c, 1000));
    assert_false(passes(&g, &neighbour_1, 9, c, 1000));
    assert_true(passes(&g, &neighbour_1, 9, c, 1002));
    assert_true(passes(&g, &neighbour_1, 9, c, 1001)); /* late, within the window */
    assert_false(passes(&g, &neighbour_1, 9, c, 1001));
    assert_true(passes(&g, &neighbour_1, 9, c, 1002 + RELAY_WINDOW));
    assert_false(passes(&g, &neighbour_1, 9, c, 1002)); /* just out of the window */
    assert_true(passes(&g, &neighbour_1, 9, c, 1003));
    assert_true(passes(&g, &neighbour_1, 9, c, UINT64_MAX));
    assert_false(passes(&g, &neighbour_1, 9, c, 1002 + RELAY_WINDOW));
    relay_guard_fini(&g);
}

/* The window moves to the last number there is, and a step at a time: no neighbour makes the loop endless. */
static void test_the_last_sequence_of_all_ends_the_window(void **state)
{
    (void)state;
    struct relay_guard g = {0};
    const enum overlay_class c = OVERLAY_BULK;
    assert_true(passes(&g, &neighbour_1, 9, c, UINT64_MAX - 2));
    assert_true(passes(&g, &neighbour_1, 9, c, UINT64_MAX));
    assert_true(passes(&g, &neighbour_1, 9, c, UINT64_MAX - 1));
    assert_false(passes(&g, &neighbour_1, 9, c, UINT64_MAX));
    assert_false(passes(&g, &neighbour_1, 9, c, 0));
    relay_guard_fini(&g);
}

/* What one neighbour claims about a source must not stop what another brings of it. */
static void test_flows_are_apart_by_neighbour_source_and_class(void **state)
{
    (void)state;
    struct relay_guard g = {0};
    assert_true(passes(&g, &neighbour_1, 9, OVERLAY_BULK, UINT64_MAX));
    assert_true(passes(&g, &neighbour_2, 9, OVERLAY_BULK, 5));
    assert_true(passes(&g, &neighbour_1, 8, OVERLAY_BULK, 5));
    assert_true(passes(&g, &neighbour_1, 9, OVERLAY_CONTROL, 5));
    relay_guard_forget(&g, &neighbour_1);
    assert_true(passes(&g, &neighbour_1, 9, OVERLAY_BULK, 5));
    assert_false(passes(&g, &neighbour_2, 9, OVERLAY_BULK, 5));
    relay_guard_fini(&g);
}

static void test_the_table_of_flows_is_bounded_and_keeps_the_busy(void **state)
{
    (void)state;
    struct relay_guard g = {0};
    for (unsigned i = 0; i < 3 * RELAY_FLOWS_MAX; i++) {
        struct overlay_packet p = {.sequence = 1,
                                   .from = {.b = {1, (uint8_t)(i >> 8), (uint8_t)i}}};
        p.from.b[3] = (uint8_t)(i >> 16);
        (void)relay_guard_pass(&g, &neighbour_1, &p, i);
        (void)passes(&g, &neighbour_2, 9, OVERLAY_BULK, i + 1);
        assert_true(HASH_COUNT(g.flows) <= RELAY_FLOWS_MAX);
    }
    assert_false(passes(&g, &neighbour_2, 9, OVERLAY_BULK, 3 * RELAY_FLOWS_MAX));
    relay_guard_fini(&g);
}

static void test_control_is_held_to_its_rate(void **state)
{
    (void)state;
    struct relay_guard g = {0};
    struct overlay_packet p = {.class = OVERLAY_CONTROL, .sequence = 1, .from = {.b = {9}}};
    struct relay_flow *f = relay_guard_pass(&g, &neighbour_1, &p, 1);
    size_t burst = 0;
    while (relay_guard_is_control(&g, f, 1000, 1)) {
        burst += 1000;
    }
    assert_in_range(burst, 60000, 70000);
    size_t later = 0;
    while (relay_guard_is_control(&g, f, 1000, 100 * MS)) {
        later += 1000;
    }
    assert_in_range(later, 20000, 30000); /* 256 KiB/s */
    relay_guard_fini(&g);
}

/* It can name any number of them. */
static void test_control_of_a_neighbour_is_held_to_a_rate_for_all_its_sources(void **state)
{
    (void)state;
    struct relay_guard g = {0};
    size_t passed = 0;
    for (unsigned i = 0; i < 3000; i++) {
        struct overlay_packet p = {.class = OVERLAY_CONTROL,
                                   .sequence = 1,
                                   .from = {.b = {9, (uint8_t)(i >> 8), (uint8_t)i}}};
        struct relay_flow *f = relay_guard_pass(&g, &neighbour_1, &p, 1);
        passed += relay_guard_is_control(&g, f, 1000, 1) ? 1000 : 0;
    }
    assert_in_range(passed, 900000, 1100000);
    struct overlay_packet p = {.class = OVERLAY_CONTROL, .sequence = 1, .from = {.b = {8}}};
    assert_true(relay_guard_is_control(&g, relay_guard_pass(&g, &neighbour_2, &p, 1), 1000, 1));
    relay_guard_fini(&g);
}

/* --- what the owner sets (SPEC QOS-01) --- */

static void test_priorities_order_the_classes(void **state)
{
    struct relay_queue *q = *state;
    struct overlay_qos qos[OVERLAY_CLASSES];
    overlay_qos_default(qos);
    qos[OVERLAY_BULK].priority = 1; /* with interactive, which comes first by its place */
    qos[OVERLAY_RELIABLE].priority = 9;
    relay_policy_set(&policy, qos);
    static const enum overlay_class want[] = {OVERLAY_CONTROL, OVERLAY_INTERACTIVE, OVERLAY_BULK,
                                              OVERLAY_DROPPABLE, OVERLAY_RELIABLE};
    for (int c = OVERLAY_CLASSES - 1; c >= 0; c--) {
        push(q, (enum overlay_class)c, (uint64_t)c + 1, 100, 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        assert_int_equal(pop(q, ALL, 1), want[i] + 1);
    }
}

/* How many of 1000 packets go to bulk while interactive never ends. */
static unsigned bulk_of_thousand(struct relay_queue *q, uint16_t floor_permille)
{
    struct overlay_qos qos[OVERLAY_CLASSES];
    unsigned bulk = 0;
    overlay_qos_default(qos);
    qos[OVERLAY_BULK].floor_permille = floor_permille;
    relay_policy_set(&policy, qos);
    for (int i = 0; i < 1000; i++) {
        push(q, OVERLAY_INTERACTIVE, 1, 1000, 0);
        push(q, OVERLAY_BULK, 2, 1000, 0);
        bulk += pop(q, ALL, 0) == 2;
    }
    return bulk;
}

static void test_the_floor_is_what_was_set(void **state)
{
    struct relay_queue *q = *state;
    assert_int_equal(bulk_of_thousand(q, 0), 0);
    unsigned half = bulk_of_thousand(q, 500);
    assert_in_range(half, 310, 345); /* half of what the better class gets: a third of all */
}

static void test_a_rate_is_kept_and_what_is_above_is_counted(void **state)
{
    struct relay_queue *q = *state;
    struct overlay_qos qos[OVERLAY_CLASSES];
    overlay_qos_default(qos);
    qos[OVERLAY_BULK].rate_kbps = 8000; /* 1000 bytes a millisecond */
    relay_policy_set(&policy, qos);
    unsigned passed = 0;
    for (uint64_t ms = 1; ms <= 2000; ms++) {
        for (int k = 0; k < 3; k++) { /* three times as much is offered */
            push(q, OVERLAY_BULK, 1, 1000, (1000 + ms) * MS);
        }
        while (pop(q, ALL, (1000 + ms) * MS) != 0) {
            passed++;
        }
    }
    assert_in_range(passed, 1999, 2000 + 102); /* and a burst of 100 ms */
    assert_int_equal(q->dropped_early, 6000 - passed);
    for (int k = 0; k < 500; k++) { /* nobody else is concerned */
        push(q, OVERLAY_INTERACTIVE, 1, 1000, 4000 * MS);
    }
    assert_int_equal(q->dropped_early, 6000 - passed);
}

static void test_limit_and_life_are_what_was_set(void **state)
{
    struct relay_queue *q = *state;
    struct overlay_qos qos[OVERLAY_CLASSES];
    overlay_qos_default(qos);
    qos[OVERLAY_BULK].limit_bytes = 16u << 10;
    qos[OVERLAY_BULK].life_ms = 20;
    relay_policy_set(&policy, qos);
    for (int k = 0; k < 100; k++) {
        push(q, OVERLAY_BULK, 1, 1000, 0);
    }
    assert_int_equal(q->bytes, 16000);
    assert_int_equal(q->dropped_full, 84);
    assert_int_equal(pop(q, ALL, 19 * MS), 1);
    assert_int_equal(pop(q, ALL, 21 * MS), 0);
    assert_int_equal(q->dropped_expired, 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define Q(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
        Q(test_packets_of_one_source_keep_their_order),
        Q(test_higher_class_goes_first),
        Q(test_mask_chooses_the_connection),
        Q(test_lower_class_keeps_a_floor_under_constant_higher_load),
        Q(test_sources_share_a_class_equally_by_bytes),
        Q(test_full_class_drops_from_the_one_who_filled_it),
        Q(test_a_full_class_takes_nothing_from_another),
        Q(test_old_packets_expire),
        Q(test_standing_queue_is_thinned_and_a_burst_is_not),
        Q(test_random_load_stays_within_bounds_and_loses_nothing_uncounted),
        Q(test_priorities_order_the_classes),
        Q(test_the_floor_is_what_was_set),
        Q(test_a_rate_is_kept_and_what_is_above_is_counted),
        Q(test_limit_and_life_are_what_was_set),
        cmocka_unit_test(test_duplicates_and_the_too_old_are_stopped),
        cmocka_unit_test(test_the_last_sequence_of_all_ends_the_window),
        cmocka_unit_test(test_flows_are_apart_by_neighbour_source_and_class),
        cmocka_unit_test(test_the_table_of_flows_is_bounded_and_keeps_the_busy),
        cmocka_unit_test(test_control_is_held_to_its_rate),
        cmocka_unit_test(test_control_of_a_neighbour_is_held_to_a_rate_for_all_its_sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
