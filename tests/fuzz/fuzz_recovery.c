/* What authorities and files say of recoveries: statements, questions, reports, notes, the head of a
 * backup. What decodes must encode again to the same. */
#include "fuzz/fuzz.h"

#include "pki/backup.h"
#include "pki/statement.h"

static const struct msg_desc *const descs[] = {
    &recovery_statement_desc, &signed_recovery_desc, &merge_consent_desc,     &recovery_ask_desc,
    &recovery_answer_desc,    &divergence_row_desc,  &divergence_report_desc, &fence_note_desc,
    &backup_header_desc,      &signed_backup_desc,   &heal_note_desc,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[PKI_KEY_BYTES] = {1};
    struct uuid cluster = {.b = {1}};
    struct recovery_statement s;
    struct backup_file file;
    if (size == 0) {
        return 0;
    }
    struct blob in = blob_of(data + 1, size - 1);
    fuzz_round_trip(descs[data[0] % ARRAY_SIZE(descs)], MSG_LENIENT, in);
    if (recovery_statement_decode(in, &s) == 0) {
        struct uuid voter;
        CHECK(recovery_voter(&s, 0, &voter));
        CHECK(recovery_trail_term(&s, s.base_index) == s.base_term);
        (void)recovery_trail_term(&s, s.base_index / 2);
        CHECK(recovery_trail_term(&s, s.base_index + 1) == 0);
    }
    CHECK(statement_verify(in, key, &cluster, &s, NULL) != 0);
    (void)backup_open(in, blob_of(NULL, 0), &file, NULL);
    (void)seal_open(in, blob_of(NULL, 0), &file, NULL);
    return 0;
}
