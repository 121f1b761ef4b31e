/* The parts of the agent, for its own files only.
 *
 *   agent.c      open, close, the one timer, the subscription, the uplink's todo
 *   apply.c      snapshots: verified, stored, in force
 *   heartbeat.c  the heartbeat's content and answer
 *   trust.c      the owner's record of which roots count
 *   renew.c      renewal of our certificate
 *   directory.c  addresses from the snapshot into the fabric, look-ups of names
 *   service.c    the rpc "issuer"
 *   report.c     forgeries, told to the authorities
 *   peers.c      who may hold a session with us */
#ifndef RAP_AGENT_AGENT_IMPL_H
#define RAP_AGENT_AGENT_IMPL_H

#include "agent/agent.h"
#include "agent/uplink.h"
#include "base/log.h"

#include <uthash.h>

/* One rpc of ours. The fabric owns it until its callback, which frees it. */
struct agent_rpc {
    struct fabric_call call;
    struct agent *agent;
    struct agent_rpc **slot; /* where it is current; NULL: nobody waits for it any more */
    void (*done)(struct agent *a, int rc, struct blob body);
};

/* Something shown to this node that no majority signed. */
struct agent_forgery {
    bool waiting; /* not told yet */
    int rc;
    struct uuid request_id, offender_id;
    int64_t seen_at_ms; /* 0: a free place */
    char kind[FORGERY_KIND_MAX_BYTES + 1];
    char detail[REASON_MAX_BYTES + 1];
    uint8_t offender_fingerprint[PKI_HASH_BYTES];
    uint8_t evidence[PKI_HASH_BYTES];
};
#define AGENT_FORGERIES_MAX 8

struct agent {
    struct agent_config cfg;
    struct fabric *fabric;
    struct member *member;

    struct pki_key *key;
    struct buf chain[3]; /* leaf, issuing CA, root: what the fabric shows */
    struct pki_cert leaf;
    struct pki_cert issuer, root; /* above it */

    struct config *snapshot;
    uint64_t held_epoch, held_version; /* nothing older is accepted, even without a snapshot */
    struct witness_set set;            /* who the authority is, once that was shown */
    uint64_t audit_seq;                /* the audit when we last looked; 0 never */
    uint8_t history[PKI_HASH_BYTES];
    bool revoked;
    bool disabled; /* our membership, as the snapshot in force says */
    bool was_degraded;
    int contact_rc; /* why the uplink's last try ended; 0 while it is up */

    struct uplink uplink;
    struct fabric_stream *stream;
    struct uuid stream_to;
    struct agent_rpc *heartbeat;
    int64_t heartbeat_sent_ms; /* wall clock */
    bool clock_compared;
    int64_t clock_ahead_ms, clock_within_ms;
    int64_t last_contact_ms;

    struct agent_rpc *renewal;
    int64_t renew_at_ms; /* wall clock */
    uint32_t renew_failures;

    struct agent_proved *proved; /* nodes whose key was proved */
    struct buf links_raw;
    struct mp_list links; /* authority sets seen last; a view into links_raw */

    struct agent_forgery forgeries[AGENT_FORGERIES_MAX];
    struct agent_forgery *reporting; /* the one that report_rpc tells */
    struct agent_rpc *report_rpc;

    struct buf facts, capabilities;
    uint32_t capabilities_count;
    uint64_t probed_ms; /* when the host was looked at */

    struct agent_lookup *lookups;
    size_t lookups_count;
    size_t rpcs_count; /* with the fabric */

    uv_timer_t timer;
    bool timer_open;
    bool authority_news; /* authority_installed is due */
    bool closing;
    void (*close_cb)(void *data);
    void *close_data;
};

uint64_t agent_mono_ms(void);
/* Runs the uplink with this event and does what it says. */
void agent_uplink_event(struct agent *a, enum uplink_event_kind kind, int rc, uint64_t interval_ms);
void agent_run_todo(struct agent *a, const struct uplink_todo *todo);
/* Looks at the clocks on the next turn. */
void agent_wake(struct agent *a);
/* Our identity is refused: why is for the log. */
void agent_bar(struct agent *a, const char *why);
void agent_contact(struct agent *a);
/* Reads node.crt again and shows it to the fabric. */
int agent_load_identity(struct agent *a, struct errmsg *em);
/* Ends the agent when it is closing and nothing is out any more. */
void agent_maybe_closed(struct agent *a);

/* To the authority `to`; *slot must be NULL. On an error done is not called. */
int agent_rpc_start(struct agent *a, struct agent_rpc **slot, const struct uuid *to,
                    const char *service, struct blob body, uint32_t deadline_ms,
                    void (*done)(struct agent *a, int rc, struct blob body));
/* Nobody waits for it any more. */
void agent_rpc_drop(struct agent_rpc **slot);

/* Verifies, stores, puts in force. On an error what was in force stays; after -ERR_IO (not stored) its
 * revocations count all the same. */
int apply_snapshot(struct agent *a, struct blob signed_snapshot, struct errmsg *em);
/* The stored one, at start: used even when it has expired, for a degraded node keeps what it had. One
 * that does not verify is logged and left alone. */
int apply_stored(struct agent *a, struct errmsg *em);

/* Notes a refusal if it is that of a forgery, and tells the authorities. offender may be NULL. */
void report_forgery(struct agent *a, const char *kind, int rc, const char *why,
                    const struct pki_identity *offender, struct blob evidence);
/* What was not told before this node stopped. */
void report_load(struct agent *a);
/* An authority answers: what is left to tell. */
void report_flush(struct agent *a);

/* --- peers.c --- */
void peers_load(struct agent *a);
void peers_fini(struct agent *a);
/* A snapshot goes in force, its bans do already: keeps the authority sets it showed. */
void peers_follow(struct agent *a, const struct config *cfg);

int heartbeat_send(struct agent *a, const struct uuid *to);
void renew_schedule(struct agent *a);
/* The CA above our leaf belongs to a removed authority, or its root is on the way out: renew under
 * another one, soon. */
void renew_if_outdated(struct agent *a);
void renew_tick(struct agent *a, int64_t now_ms);

/* Makes the fabric's directory that of the snapshot; old is what it was made from, or NULL. */
void directory_apply(struct agent *a, const struct config *old);
/* Asks again where a peer is: its address may have changed. */
void directory_refresh(struct agent *a, const struct uuid *id);
void directory_cancel(struct agent *a);

void service_open(struct agent *a);
/* What the cluster's policy says of an authority's own certificate; 0: the default. */
int64_t agent_leaf_life_ms(const struct agent *a);

/* Believes and keeps the record of roots that came with a snapshot, if it is newer. */
int trust_adopt(struct agent *a, struct blob signed_snapshot, struct errmsg *em);

#endif
