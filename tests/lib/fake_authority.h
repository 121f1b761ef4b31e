/* An authority's side of the node conversations, on the real fabric over loopback, that does what the
 * test says and remembers what it was asked. */
#ifndef RAP_TESTS_FAKE_AUTHORITY_H
#define RAP_TESTS_FAKE_AUTHORITY_H

#include "fabric/fabric.h"
#include "lib/fake_cluster.h"

/* What it does with one enrolment; PENDING first where nothing else is said. */
enum fake_enroll {
    FAKE_ENROLL_APPROVE,
    FAKE_ENROLL_WAIT,            /* stays pending */
    FAKE_ENROLL_HANG_UP,         /* ends the stream while pending */
    FAKE_ENROLL_REFUSE,          /* with refuse_rc */
    FAKE_ENROLL_FORGED_SNAPSHOT, /* approved, but the snapshot is signed by an ordinary node */
    FAKE_ENROLL_FOREIGN_KEY,     /* approved, but the certificate is for another key */
    FAKE_ENROLL_NONSENSE,        /* bytes that do not decode */
    FAKE_ENROLL_SILENT,          /* takes the request and says nothing, not even PENDING */
};

#define FAKE_MAX 16

struct fake_authority {
    struct fake_cluster *cluster;
    struct fake_node node;
    struct fake_node plain; /* for forgeries */
    struct fabric *fabric;
    char address[ADDR_TEXT_MAX];
    bool closed;

    enum fake_enroll script[FAKE_MAX]; /* one an enrolment; the last repeats */
    size_t script_len;
    int refuse_rc;
    uint32_t refuse_retry_ms;
    const char *refuse_detail;
    size_t enrolled; /* enrolments seen */
    struct uuid request_ids[FAKE_MAX];
    uint8_t keys[FAKE_MAX][PKI_KEY_BYTES];

    struct buf snapshot; /* sent to every new subscriber; empty: nothing */
    size_t subscribed;
    uint64_t subscribed_version; /* of the last one */
    struct fabric_stream *streams[FAKE_MAX];

    int heartbeat_rc;
    uint32_t heartbeat_interval_ms;
    size_t heartbeats;
    uint64_t heartbeat_version;
    char heartbeat_health[16];
    uint32_t heartbeat_capabilities;

    int renew_rc;
    size_t renewals;
    struct uuid renew_ids[FAKE_MAX];
};

/* c's clock must be the real one. */
void fake_authority_open(struct fake_authority *a, uv_loop_t *loop, struct fake_cluster *c);
/* Run the loop until a->closed, then fini. */
void fake_authority_close(struct fake_authority *a);
void fake_authority_fini(struct fake_authority *a);
/* Keeps the bytes for new subscribers and sends them to those there are. */
void fake_authority_publish(struct fake_authority *a, struct blob signed_snapshot);
/* Ends every subscription. */
void fake_authority_drop(struct fake_authority *a);

/* Turns the loop until *done or 20 s have passed; false then. */
bool fake_run_until(uv_loop_t *loop, bool (*done)(void *data), void *data);

#endif
