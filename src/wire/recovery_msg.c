#include "wire/recovery_msg.h"

MSG_DEFINE(recovery_statement, RECOVERY_STATEMENT_FIELDS)
MSG_DEFINE(recovery_run, RECOVERY_RUN_FIELDS)
MSG_DEFINE(signed_recovery, SIGNED_RECOVERY_FIELDS)
MSG_DEFINE(merge_consent, MERGE_CONSENT_FIELDS)
MSG_DEFINE(recovery_ask, RECOVERY_ASK_FIELDS)
MSG_DEFINE(recovery_answer, RECOVERY_ANSWER_FIELDS)
MSG_DEFINE(divergence_row, DIVERGENCE_ROW_FIELDS)
MSG_DEFINE(divergence_report, DIVERGENCE_REPORT_FIELDS)
MSG_DEFINE(fence_note, FENCE_NOTE_FIELDS)
MSG_DEFINE(heal_note, HEAL_NOTE_FIELDS)
MSG_DEFINE(backup_header, BACKUP_HEADER_FIELDS)
MSG_DEFINE(signed_backup, SIGNED_BACKUP_FIELDS)

const char *recovery_kind_name(uint64_t kind)
{
    static const char *const names[] = {NULL, "recover", "promote", "restore"};
    return kind < ARRAY_SIZE(names) ? names[kind] : NULL;
}

static bool next_run(struct mp_reader *r, uint32_t *left, struct recovery_run *ret)
{
    if (*left == 0) {
        return false;
    }
    (*left)--;
    return msg_decode(&recovery_run_desc, MSG_LENIENT, mp_get_bin(r, 64), ret) == 0;
}

static bool trail_ok(const struct recovery_statement *s)
{
    struct mp_reader r;
    struct recovery_run run;
    struct recovery_run last = {0};
    uint32_t left = s->trail.count;
    mp_reader_init(&r, s->trail.raw);
    while (left > 0) {
        if (!next_run(&r, &left, &run) || run.term <= last.term ||
            run.first_index <= last.first_index || run.first_index > s->base_index) {
            return false;
        }
        last = run;
    }
    return s->trail.count == 0 || last.term == s->base_term;
}

static bool voters_ok(const struct recovery_statement *s)
{
    struct uuid id;
    if (s->voters.count == 0) {
        return false;
    }
    for (uint32_t i = 0; i < s->voters.count; i++) {
        if (!recovery_voter(s, i, &id) || uuid_is_nil(&id)) {
            return false;
        }
    }
    return true;
}

int recovery_statement_decode(struct blob body, struct recovery_statement *ret)
{
    struct recovery_statement s;
    int rc = msg_decode(&recovery_statement_desc, MSG_LENIENT, body, &s);
    if (rc != 0) {
        return rc;
    }
    if (s.version > RECOVERY_STATEMENT_VERSION) {
        return -ERR_SCHEMA;
    }
    if (recovery_kind_name(s.kind) == NULL || s.epoch <= EPOCH_FIRST || s.epoch > EPOCH_MAX ||
        s.base_index == 0 || s.base_index > EPOCH_MAX || s.base_term == 0 ||
        s.base_term > EPOCH_MAX || s.time_ms < 0 || !voters_ok(&s) || !trail_ok(&s)) {
        return -ERR_MALFORMED;
    }
    *ret = s;
    return 0;
}

bool recovery_voter(const struct recovery_statement *s, uint32_t nth, struct uuid *ret)
{
    struct mp_reader r;
    mp_reader_init(&r, s->voters.raw);
    for (uint32_t i = 0; i < nth && i < s->voters.count; i++) {
        (void)mp_skip(&r);
    }
    if (nth >= s->voters.count) {
        return false;
    }
    *ret = mp_get_uuid(&r);
    return r.err == 0;
}

uint64_t recovery_trail_term(const struct recovery_statement *s, uint64_t index)
{
    struct mp_reader r;
    struct recovery_run run;
    uint32_t left = s->trail.count;
    uint64_t term = index == s->base_index ? s->base_term : 0;
    mp_reader_init(&r, s->trail.raw);
    while (index <= s->base_index && next_run(&r, &left, &run) && run.first_index <= index) {
        term = run.term;
    }
    return term;
}
