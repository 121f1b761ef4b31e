/* The way to one authority: what probes find, and what to make of it.
 *
 *   doctor_probe   small UDP packet -> larger ones -> QUIC handshake -> its clock    (I/O, blocks)
 *   doctor_judge   facts -> checks with a code and a next step                       (pure)
 *
 * The UDP probes are packets with a short header for a connection that does not exist: whatever speaks
 * QUIC answers with a stateless reset (RFC 9000 section 10.3), small whatever the probe's size. So
 * their size tests the way there, and the handshake, whose packets have 1200 bytes both ways (section
 * 14.1), the way back. */
#ifndef RAP_NODE_DOCTOR_PATH_H
#define RAP_NODE_DOCTOR_PATH_H

#include "admin/cli.h"
#include "pki/pki.h"

/* 64: small. 1200: QUIC's minimum. 1280: what relays need. 1452: Ethernet's, less IPv6 and UDP. */
#define DOCTOR_SIZES 4
extern const unsigned doctor_sizes[DOCTOR_SIZES];

struct doctor_path {
    int resolve_rc; /* the name does not resolve, or is none */
    bool denied;    /* this host's own firewall refuses to send */
    bool no_route;
    bool refused;              /* ICMP: nobody listens there */
    bool passed[DOCTOR_SIZES]; /* answered */
    bool tcp_answered; /* the host answers TCP, if only with a refusal; asked when UDP is silent */
    int handshake_rc;  /* 0, or why it came to nothing; -ERR_TIMEOUT: silence */
    struct uuid found; /* whose certificate it was */
    int64_t not_after_ms;
    bool clock_known;
    int64_t clock_ahead_ms, clock_within_ms; /* of this host, against the authority */
    int64_t now_ms;                          /* this host's */
};

struct doctor_target {
    struct cli_doctor_authority authority;
    struct uuid cluster_id;
    const struct pki_trust *trust;
    bool connected; /* the daemon hears this very authority */
};

void doctor_probe(const struct doctor_target *t, struct doctor_path *ret);

#define DOCTOR_PATH_CHECKS 4
/* Fills at most DOCTOR_PATH_CHECKS of ret; how many. */
size_t doctor_judge(const struct doctor_target *t, const struct doctor_path *p,
                    struct cli_check ret[DOCTOR_PATH_CHECKS]);

void doctor_check_set(struct cli_check *c, const char *check, enum cli_check_result result,
                      const char *code, const char *fmt, ...) PRINTF_LIKE(5, 6);

#endif
