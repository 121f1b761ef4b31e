/* When the mirror connects, writes, compares and stops: decisions only (DESIGN D8). mirror.c gives it
 * events with the time in them and does what it says.
 *
 *                   enabled, leading, own term applied
 *   DISABLED <──> STANDBY ───────────────────────────> CONNECTING <──── timer ──── WAITING
 *                    ^                                     │ up                       ^
 *                    └── leadership lost, from anywhere    v                          │ lost,
 *                                                       CHECKING ── refused ──────────┤ from any
 *                    claim refused: FENCED <──────────────┤│├── not believable ─> FAILED
 *                    (tries again like WAITING)           │││                         ^
 *            history reaches back that far: FOLLOWING <───┘│└───> RESYNCING           │
 *                     │        ^        ^                  │      the state as a whole│
 *        verify wanted│        │ same   └─── done ─────────┼──────────┘               │
 *                     v        │                           │                          │
 *                  VERIFYING ──┴───────────── differs ─────┼──────────────────────────┘
 *                     ^                                    │
 *                     └────── FAILED: compare only ────────┘
 *
 * FAILED is left by an owner's rebuild or by switching the mirror off. It is part of the replicated
 * state (mirror_settings.alarm), so every later leader is in it too. */
#ifndef RAP_AUTHORITY_MIRROR_CORE_H
#define RAP_AUTHORITY_MIRROR_CORE_H

#include "base/err.h"
#include "wire/limits.h"

#define MIRROR_CONNECT_MS 5000   /* for up and for the checks, each */
#define MIRROR_PROGRESS_MS 15000 /* without an answer: the connection counts as lost */
#define MIRROR_RETRY_MIN_MS 100
#define MIRROR_RETRY_MAX_MS 2000
#define MIRROR_REPORT_MS 2000 /* an alarm is proposed again after this */
#define MIRROR_INFLIGHT_MAX 4 /* groups sent and not answered */

enum mirror_state {
    MIRROR_DISABLED,
    MIRROR_STANDBY,
    MIRROR_WAITING,
    MIRROR_CONNECTING,
    MIRROR_CHECKING,
    MIRROR_FOLLOWING,
    MIRROR_RESYNCING,
    MIRROR_VERIFYING,
    MIRROR_FENCED,
    MIRROR_FAILED,
};
const char *mirror_state_name(enum mirror_state s);

enum mirror_alarm {
    MIRROR_ALARM_NONE,
    MIRROR_ALARM_AHEAD,    /* PostgreSQL has entries that the log does not */
    MIRROR_ALARM_DIVERGED, /* it has another history of the same index */
    MIRROR_ALARM_EDITED,   /* rows differ at one index */
    MIRROR_ALARM_UNFIT,    /* a row that PostgreSQL cannot hold */
};
const char *mirror_alarm_name(enum mirror_alarm a);

enum mirror_input_kind {
    MIRROR_EV_SETTINGS, /* settings */
    MIRROR_EV_LEAD,     /* epoch, term */
    MIRROR_EV_UNLEAD,
    MIRROR_EV_APPLIED, /* index, term: of the entry */
    MIRROR_EV_TICK,
    MIRROR_EV_UP,
    MIRROR_EV_CHECKED,   /* found */
    MIRROR_EV_REFUSED,   /* the checks say no: schema, rights */
    MIRROR_EV_OUTRANKED, /* the claim was refused: somebody leads in a later (epoch, term) */
    MIRROR_EV_LOST,
    MIRROR_EV_SENT,    /* index: a group up to it */
    MIRROR_EV_ACKED,   /* index; oldest_ms */
    MIRROR_EV_STEP,    /* a scan got on */
    MIRROR_EV_SCANNED, /* index; differences */
    MIRROR_EV_GAP,     /* the ring lost an entry that was not sent */
    MIRROR_EV_UNFIT,
    MIRROR_EV_FORGED, /* rows are not what was signed */
    MIRROR_EV_VERIFY, /* index: what is applied here; preview */
};

struct mirror_settings {
    bool enabled, required;
    bool alarmed;
    uint32_t max_lag_ms;
    uint64_t rebuilds;
    uint64_t version; /* another one: connect anew */
};

/* What PostgreSQL has, as the checks found it. */
struct mirror_found {
    uint64_t index, rebuilds;
    bool reached; /* history here goes on from that index */
    bool sealed;  /* its rows add up to what an authority signed for that index */
    bool forged;  /* a seal is there, and it is not true */
    bool digest_known, digest_same;
};

struct mirror_input {
    enum mirror_input_kind kind;
    uint64_t now_ms; /* monotonic */
    struct mirror_settings settings;
    uint64_t epoch, term, index;
    uint64_t
        oldest_ms; /* when the first entry that PostgreSQL lacks was applied; 0: it lacks none */
    struct mirror_found found;
    uint64_t differences;
    bool preview; /* compare, but raise no alarm */
};

/* What to do now, in this order. */
struct mirror_todo {
    bool close; /* the connection */
    bool open;  /* a new one */
    bool check; /* schema, claim, position; with inspect without a claim */
    bool inspect;
    bool copy;    /* take a copy of the state for the scan to come */
    bool resync;  /* scan and write, position = the copy's; sets rebuilds */
    bool compare; /* scan and report */
    bool drop_copy;
    bool pump;       /* groups may be sent: mirror_core_room */
    bool verified;   /* the verification asked for is done: answer it */
    bool unverified; /* it will not be: answer with the error */
    bool rewound;    /* PostgreSQL lost what it had acknowledged (a restore, a promoted standby) */
    bool rebuilt;    /* a rebuild is complete */
    enum mirror_alarm alarm; /* propose it */
};

struct mirror_core {
    enum mirror_state state;
    struct mirror_settings settings;
    bool leading;
    uint64_t epoch, term;
    uint64_t applied, applied_term;

    bool position_known;    /* of PostgreSQL, in this leadership */
    uint64_t acked, sent;   /* indexes */
    uint64_t acked_highest; /* in this process, for this database */
    unsigned inflight;
    uint64_t behind_since_ms; /* 0: not behind */
    uint64_t reserve_used;    /* since it was last available */
    uint64_t state_since_ms, progress_ms, retry_at_ms;
    unsigned retries;

    bool verify_wanted, inspecting, preview;
    uint64_t verify_index;
    enum mirror_alarm alarm; /* ours, until the settings have it */
    uint64_t alarm_rebuilds; /* the rebuilds when it was raised */
    uint64_t alarm_at_ms;
};

void mirror_core_init(struct mirror_core *m);
void mirror_step(struct mirror_core *m, const struct mirror_input *e, struct mirror_todo *ret);
/* Whether a group may be sent, and up to which index. */
bool mirror_core_room(const struct mirror_core *m, uint64_t *ret_limit);
/* Whether a high-risk request may be decided: always, unless the mirror is required and is not to be
 * believed or too far behind. */
bool mirror_core_available(const struct mirror_core *m, uint64_t now_ms);
/* Whether one more request may be decided while it is not available, because it only takes rights away
 * (decision 0013): a stolen host must not stay in because a database is down. Bounded, for what is not
 * in PostgreSQL is forgotten by a restore from it. */
bool mirror_core_reserve(struct mirror_core *m);
uint64_t mirror_core_lag_ms(const struct mirror_core *m, uint64_t now_ms);
/* Entries of the log, by index. */
uint64_t mirror_core_lag(const struct mirror_core *m);

#endif
