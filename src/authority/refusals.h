/* What was refused, on its way to the audit (pure: time comes from the caller). Refusals cost a stranger
 * nothing and an audit row costs the whole group a commit for ever, so the two are decoupled: refusals
 * of one kind from one party are counted together, and rows leave at a bounded rate.
 *
 *     note() -> a slot per party and reason -> due() -> one row "error, who, count, since"
 *
 * The first of its kind leaves at once, later ones of the same kind together after REFUSALS_QUIET_MS, then
 * after twice that, and so on up to REFUSALS_QUIET_MAX_MS, for as long as they keep coming: a revoked node
 * that knocks for weeks is a row an hour. At most REFUSALS_BURST rows at a time and REFUSALS_PER_MINUTE in the long run. When all slots are taken,
 * what comes is only counted, and the count leaves as one row too: nothing is lost without a trace. */
#ifndef RAP_AUTHORITY_REFUSALS_H
#define RAP_AUTHORITY_REFUSALS_H

#include "base/addr.h"
#include "pki/pki.h"
#include "wire/cmd.h"

#define REFUSALS_SLOTS 128
#define REFUSALS_QUIET_MS 60000
#define REFUSALS_QUIET_MAX_MS 3600000
#define REFUSALS_BURST 60
#define REFUSALS_PER_MINUTE 60

struct refusal {
    enum refusal_what what;
    int rc; /* negative */
    /* Who: of these, those that are known. A join's source counts without its port. */
    char source[ADDR_TEXT_MAX];
    struct uuid node_id;
    char actor_kind[16], actor_id[128];
    /* What: the service, the method, or for a join the node name (of the first). */
    char subject[64];
    bool has_token; /* of a token that exists */
    uint8_t token_hash[PKI_HASH_BYTES];
    bool has_key;
    uint8_t fingerprint[PKI_HASH_BYTES];
    char detail[256];
    /* Filled by due(). */
    uint32_t count;
    int64_t since_ms;
};

struct refusal_slot {
    struct refusal r;      /* count 0: nothing is waiting */
    int64_t written_ms;    /* 0: never */
    int64_t quiet_ms;      /* until the next row may leave */
    uint64_t noted_number; /* order of the last note */
};

struct refusals {
    struct refusal_slot slot[REFUSALS_SLOTS];
    struct refusal unlisted; /* count and since */
    uint64_t notes;
    int64_t budget_milli; /* thousandths of a row */
    int64_t budget_at_ms; /* 0: never used */
};

/* r->count 0 is one. A larger count gives back what could not be written. */
void refusals_note(struct refusals *t, const struct refusal *r, int64_t now_ms);
/* The next row to write, if one is due; then it counts as written. */
bool refusals_due(struct refusals *t, int64_t now_ms, struct refusal *ret);

#endif
