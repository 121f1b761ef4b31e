/* Facts about a path as checks. Pure. */
#include "node/doctor_path.h"

#define CLOCK_POOR_MS 10000

const unsigned doctor_sizes[DOCTOR_SIZES] = {64, 1200, 1280, 1452};

void doctor_check_set(struct cli_check *c, const char *check, enum cli_check_result result,
                      const char *code, const char *fmt, ...)
{
    va_list ap;
    c->check = check;
    c->result = result;
    c->code = code;
    c->next[0] = '\0';
    va_start(ap, fmt);
    (void)vsnprintf(c->text, sizeof c->text, fmt, ap);
    va_end(ap);
}

static void next(struct cli_check *c, const char *fmt, const char *what)
{
    (void)snprintf(c->next, sizeof c->next, "%s%s", fmt, what);
}

static bool reached(const struct doctor_path *p)
{
    return p->passed[0] || p->handshake_rc != -ERR_TIMEOUT;
}

/* Not one packet came back. */
static void judge_silence(const struct doctor_path *p, const char *at, struct cli_check *c)
{
    if (p->denied) {
        doctor_check_set(c, "path", CLI_CHECK_FAIL, "udp_blocked",
                         "this host's own firewall does not let UDP out to %s", at);
        next(c, "allow outgoing UDP: nft list ruleset, or iptables -S OUTPUT", "");
    } else if (p->no_route) {
        doctor_check_set(c, "path", CLI_CHECK_FAIL, "unreachable_authority",
                         "this host has no route to %s", at);
        next(c, "ip route get, with the address of ", at);
    } else if (p->refused) {
        doctor_check_set(c, "path", CLI_CHECK_FAIL, "unreachable_authority",
                         "the host at %s is there, but nothing listens on that UDP port", at);
        next(c, "start the authority there, or correct its --advertise", "");
    } else if (p->tcp_answered) {
        doctor_check_set(c, "path", CLI_CHECK_FAIL, "udp_blocked",
                         "the host at %s answers TCP, but no UDP packet comes back", at);
        next(c, "open that UDP port, both ways, in every firewall between here and ", at);
    } else {
        doctor_check_set(c, "path", CLI_CHECK_FAIL, "unreachable_authority",
                         "nothing at %s answers, neither UDP nor TCP", at);
        next(c, "is that host up, and the address right? `rap authority list` on another one", "");
    }
}

static size_t judge_mtu(const struct doctor_path *p, const char *at, struct cli_check *c)
{
    bool known = p->passed[0] || p->handshake_rc == 0;
    if (!known) {
        return 0;
    }
    if (p->passed[0] && !p->passed[1] && p->handshake_rc != 0) {
        doctor_check_set(
            c, "mtu", CLI_CHECK_FAIL, "mtu_black_hole",
            "UDP packets of %u bytes reach %s, of %u bytes they vanish without a word: "
            "QUIC needs %u",
            doctor_sizes[0], at, doctor_sizes[1], doctor_sizes[1]);
        next(
            c,
            "find the link: tracepath -n; let ICMP \"fragmentation needed\" pass, or raise its MTU",
            "");
    } else if (p->passed[1] && p->handshake_rc == -ERR_TIMEOUT) {
        doctor_check_set(c, "mtu", CLI_CHECK_FAIL, "mtu_black_hole",
                         "small answers come back from %s, those of %u bytes do not", at,
                         doctor_sizes[1]);
        next(c, "look at the MTU of the links on the way back: tracepath -n, on the host of ", at);
    } else if (!p->passed[0]) {
        doctor_check_set(c, "mtu", CLI_CHECK_PASS, "ok", "packets of %u bytes pass both ways",
                         doctor_sizes[1]);
    } else if (!p->passed[2]) {
        doctor_check_set(c, "mtu", CLI_CHECK_WARN, "mtu_small",
                         "packets of %u bytes do not reach %s: enough for itself, not for relayed "
                         "paths",
                         doctor_sizes[2], at);
        next(c, "raise the MTU on the way: tracepath -n", "");
    } else {
        doctor_check_set(c, "mtu", CLI_CHECK_PASS, "ok", "packets of %u bytes pass",
                         p->passed[3] ? doctor_sizes[3] : doctor_sizes[2]);
    }
    return 1;
}

static bool is_wrong_pin(int rc)
{
    return rc == -ERR_BAD_CERT || rc == -ERR_WRONG_CLUSTER || rc == -ERR_BAD_SIGNATURE ||
           rc == -ERR_NOT_AUTHORITY;
}

static size_t judge_identity(const struct doctor_target *t, const struct doctor_path *p,
                             const char *at, struct cli_check *c)
{
    int rc = p->handshake_rc;
    if (rc == -ERR_TIMEOUT) {
        return 0; /* said already */
    }
    if (rc == 0 && !uuid_is_nil(&t->authority.node_id) &&
        !uuid_equal(&p->found, &t->authority.node_id)) {
        doctor_check_set(c, "identity", CLI_CHECK_WARN, "wrong_node",
                         "another authority of this cluster answers at %s", at);
        next(c, "correct the address: `rap authority list`", "");
    } else if (rc == 0 && p->not_after_ms < p->now_ms - p->clock_ahead_ms) {
        doctor_check_set(c, "identity", CLI_CHECK_FAIL, "certificate_expired",
                         "the certificate of the authority at %s has expired", at);
        next(c, "rap doctor on that host; docs/OPERATIONS.md, certificate expiry", "");
    } else if (rc == 0) {
        doctor_check_set(c, "identity", CLI_CHECK_PASS, "ok",
                         "an authority under the root that this host trusts answers");
    } else if (is_wrong_pin(rc) && t->connected) {
        doctor_check_set(c, "identity", CLI_CHECK_WARN, "other_root",
                         "the authority at %s shows a root that node.crt does not have: a rotation "
                         "is under way",
                         at);
        next(c, "rap trust show, until no node is listed as waiting", "");
    } else if (is_wrong_pin(rc)) {
        doctor_check_set(c, "identity", CLI_CHECK_FAIL, "wrong_pin",
                         "who answers at %s is no authority under the root this host pins (%s)", at,
                         err_text(rc));
        next(c,
             "is the address still that of this cluster? If the root was replaced while this host "
             "was away, join anew",
             "");
    } else if (rc == -ERR_RATE_LIMITED || rc == -ERR_BUSY) {
        doctor_check_set(c, "identity", CLI_CHECK_WARN, "rate_limited",
                         "the authority at %s takes no more attempts from this address now", at);
        next(c, "wait a minute, then run rap doctor again", "");
    } else {
        doctor_check_set(c, "identity", CLI_CHECK_FAIL, "handshake_failed",
                         "the QUIC handshake with %s fails: %s", at, err_text(rc));
        next(c, "compare `rap version` here and there; look at the daemon's log there", "");
    }
    return 1;
}

static size_t judge_clock(const struct doctor_path *p, struct cli_check *c)
{
    if (p->handshake_rc != 0 || !p->clock_known) {
        return 0;
    }
    int64_t off = p->clock_ahead_ms < 0 ? -p->clock_ahead_ms : p->clock_ahead_ms;
    int64_t at_most = off + p->clock_within_ms;
    bool bad = off - p->clock_within_ms > CLOCK_AHEAD_WARN_MS;
    bool poor = off - p->clock_within_ms > CLOCK_POOR_MS;
    if (!bad && !poor) {
        doctor_check_set(c, "clock", CLI_CHECK_PASS, "ok",
                         "this clock is within %lld ms of the authority's", (long long)at_most);
        return 1;
    }
    doctor_check_set(c, "clock", bad ? CLI_CHECK_FAIL : CLI_CHECK_WARN, "clock_skew",
                     "this clock is %lld.%lld s %s the authority's", (long long)(off / 1000),
                     (long long)(off % 1000 / 100), p->clock_ahead_ms > 0 ? "ahead of" : "behind");
    next(c, "timedatectl, here and there: one of them does not keep time", "");
    return 1;
}

size_t doctor_judge(const struct doctor_target *t, const struct doctor_path *p,
                    struct cli_check ret[DOCTOR_PATH_CHECKS])
{
    const char *at = t->authority.address;
    size_t n = 0;
    for (size_t i = 0; i < DOCTOR_PATH_CHECKS; i++) {
        ret[i] = (struct cli_check){.check = NULL};
        (void)snprintf(ret[i].subject, sizeof ret[i].subject, "%s%s%s%s", t->authority.name,
                       t->authority.name[0] == '\0' ? "" : " (", at,
                       t->authority.name[0] == '\0' ? "" : ")");
    }
    if (p->resolve_rc != 0) {
        doctor_check_set(&ret[0], "path", CLI_CHECK_FAIL, "unreachable_authority",
                         "the name in %s does not resolve", at);
        next(&ret[0], "getent hosts, with that name; is DNS up?", "");
        return 1;
    }
    if (!reached(p)) {
        judge_silence(p, at, &ret[0]);
        return 1;
    }
    doctor_check_set(&ret[n++], "path", CLI_CHECK_PASS, "ok", "UDP to and from %s passes", at);
    n += judge_mtu(p, at, &ret[n]);
    n += judge_identity(t, p, at, &ret[n]);
    n += judge_clock(p, &ret[n]);
    return n;
}
