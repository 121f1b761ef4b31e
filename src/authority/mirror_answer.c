/* The connection, and what PostgreSQL answers on it. */
#include "authority/mirror_impl.h"

/* --- what PostgreSQL answers --- */

static void server_failed(struct mirror *m, const struct pg_answer *a)
{
    const char *advice = mirror_sql_advice(a->sqlstate);
    mirror_note_error(m, "%s (%s)%s%s", a->message, a->sqlstate, advice == NULL ? "" : "; ",
                      advice == NULL ? "" : advice);
    m->failed_round = true;
}

static void on_position(struct mirror *m, const struct pg_answer *a, int first)
{
    struct mirror_found *f = &m->found;
    uint8_t ours[PKI_HASH_BYTES];
    char hex[2 * PKI_HASH_BYTES + 1] = "";
    *f = (struct mirror_found){
        .index = (uint64_t)pg_int(a, 0, first),
        .rebuilds = (uint64_t)pg_int(a, 0, first + 2),
    };
    const char *digest = pg_value(a, 0, first + 1, NULL);
    const struct mirror_entry *e = mirror_ring_find(&m->ring, f->index);
    bool known = e != NULL || fsm_digest_at(m->fsm, f->index, ours);
    f->reached = mirror_ring_reaches(&m->ring, f->index);
    f->digest_known = known && f->index > 0;
    if (f->digest_known) {
        hex_encode(e != NULL ? e->at.digest : ours, sizeof ours, hex);
        f->digest_same = digest != NULL && strcmp(digest, hex) == 0;
    }
    (void)snprintf(m->found_digest, sizeof m->found_digest, "%s", digest == NULL ? "" : digest);
}

static void checked(struct mirror *m)
{
    if (m->outranked) {
        mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_OUTRANKED});
        return;
    }
    uint64_t acked = m->core.acked_highest;
    if (m->found.index > m->core.applied) {
        (void)snprintf(m->alarm_detail, sizeof m->alarm_detail,
                       "PostgreSQL is at index %llu, the log at %llu",
                       (unsigned long long)m->found.index, (unsigned long long)m->core.applied);
    } else {
        (void)snprintf(m->alarm_detail, sizeof m->alarm_detail,
                       "PostgreSQL is at index %llu, it was at %llu before",
                       (unsigned long long)m->found.index, (unsigned long long)acked);
    }
    if (!m->core.inspecting) {
        mirror_seal_check(m);
    }
    mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_CHECKED, .found = m->found});
}

static void on_synced(struct mirror *m, unsigned tag)
{
    bool failed = m->failed_round;
    m->failed_round = false;
    if (failed) {
        mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_REFUSED});
        return;
    }
    switch ((enum mirror_tag)tag) {
        case MIRROR_TAG_SCHEMA:
            if (m->core.inspecting) {
                mirror_sql_look(m);
            } else {
                m->outranked = false;
                mirror_sql_claim(m);
            }
            return;
        case MIRROR_TAG_READY:
            if (m->scan != NULL && !m->core.inspecting && m->mirror_index != m->copy_at.index) {
                mirror_note_error(m, "somebody else moved the mirror's position");
                mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_LOST});
            } else if (m->scan != NULL) { /* of a comparison */
                mirror_scan_step(m);
            } else {
                checked(m);
            }
            return;
        case MIRROR_TAG_GROUP:
            mirror_write_done(m);
            return;
        case MIRROR_TAG_STEP:
            mirror_scan_step(m);
            return;
        case MIRROR_TAG_ENDED:
            mirror_scan_done(m);
            return;
        case MIRROR_TAG_NONE:
        case MIRROR_TAG_SETUP:
        case MIRROR_TAG_LACKS:
        case MIRROR_TAG_CLAIM:
        case MIRROR_TAG_HOLDER:
        case MIRROR_TAG_SEAL:
        case MIRROR_TAG_SUMS:
        case MIRROR_TAG_FENCE:
        case MIRROR_TAG_ROWS:
        case MIRROR_TAG_BEGIN:
        case MIRROR_TAG_PAGE:
        case MIRROR_TAG_END:
            CHECK(false); /* not syncs */
    }
}

static void on_rows(struct mirror *m, const struct pg_answer *a)
{
    char why[sizeof m->last_error];
    switch ((enum mirror_tag)a->tag) {
        case MIRROR_TAG_SCHEMA:
            if (mirror_sql_unfit_version(a, why, sizeof why)) {
                mirror_note_error(m, "%s", why);
                m->failed_round = true;
            }
            return;
        case MIRROR_TAG_LACKS:
            if (a->rows > 0) {
                mirror_note_error(m, "the database's schema lacks %s: run `rap mirror migrate`",
                                  pg_value(a, 0, 0, NULL));
                m->failed_round = true;
            }
            return;
        case MIRROR_TAG_CLAIM:
            m->outranked = a->rows == 0;
            if (a->rows == 1) {
                m->claim = (uint64_t)pg_int(a, 0, 0);
                on_position(m, a, 1);
            }
            return;
        case MIRROR_TAG_HOLDER:
            m->mirror_index = a->rows == 1 ? (uint64_t)pg_int(a, 0, 3) : 0;
            if (m->outranked && a->rows == 1) {
                mirror_note_error(m, "node %s has the mirror in epoch %lld, term %lld",
                                  pg_value(a, 0, 0, NULL), (long long)pg_int(a, 0, 1),
                                  (long long)pg_int(a, 0, 2));
            }
            return;
        case MIRROR_TAG_SEAL: {
            size_t len = 0;
            const char *text = a->rows == 1 ? pg_value(a, 0, 0, &len) : NULL;
            buf_clear(&m->seal);
            buf_add(&m->seal, text, text == NULL ? 0 : len);
            return;
        }
        case MIRROR_TAG_SUMS:
            mirror_sums_clear(&m->sums);
            m->sums_damaged = false;
            for (int i = 0; i < a->rows; i++) {
                m->sums_damaged |= !mirror_sums_read(&m->sums, pg_value(a, i, 0, NULL),
                                                     pg_int(a, i, 1), pg_value(a, i, 2, NULL));
            }
            return;
        case MIRROR_TAG_PAGE:
            if (m->scan != NULL) {
                mirror_scan_page(m->scan, a);
            }
            return;
        case MIRROR_TAG_NONE:
        case MIRROR_TAG_SETUP:
        case MIRROR_TAG_READY:
        case MIRROR_TAG_FENCE:
        case MIRROR_TAG_ROWS:
        case MIRROR_TAG_GROUP:
        case MIRROR_TAG_BEGIN:
        case MIRROR_TAG_STEP:
        case MIRROR_TAG_END:
        case MIRROR_TAG_ENDED:
            return;
    }
}

static void on_answer(void *data, const struct pg_answer *a)
{
    struct mirror *m = data;
    switch (a->status) {
        case PG_ROWS:
            on_rows(m, a);
            return;
        case PG_FAILED:
            if (!m->failed_round) {
                server_failed(m, a);
            }
            return;
        case PG_SYNCED:
            on_synced(m, a->tag);
            return;
        case PG_DONE:
        case PG_SKIPPED:
            return;
    }
}

static void on_up(void *data)
{
    struct mirror *m = data;
    m->server_version = pg_server_version(m->link);
    m->came_up = true;
    mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_UP});
}

static void on_lost(void *data, const char *why)
{
    struct mirror *m = data;
    if (!m->failed_round) {
        mirror_note_error(m, "%s", why);
    }
    mirror_happened(m, (struct mirror_input){.kind = MIRROR_EV_LOST});
}

/* --- opening and closing --- */

void mirror_link_closed(void *data)
{
    struct mirror *m = data;
    m->links_closing--;
    if (m->closing && m->links_closing == 0 && m->close_cb != NULL) {
        m->close_cb(m->close_data);
    }
}

void mirror_close_link(struct mirror *m)
{
    if (m->link != NULL) {
        m->links_closing++;
        pg_link_close(m->link, mirror_link_closed, m);
        m->link = NULL;
        m->first_host += !m->came_up;
    }
    m->sent_count = 0;
    m->failed_round = false;
    m->outranked = false;
}

void mirror_open_link(struct mirror *m)
{
    char name[MIRROR_NAME_MAX];
    m->came_up = false;
    (void)snprintf(name, sizeof name, "%s-%s", m->core.inspecting ? "rap-inspect" : "rap-mirror",
                   m->cluster_id);
    m->link = pg_link_open(&(struct pg_link_config){.loop = m->env.loop,
                                                    .dsn = m->dsn,
                                                    .application_name = name,
                                                    .first = m->first_host,
                                                    .data = m,
                                                    .up = on_up,
                                                    .lost = on_lost,
                                                    .answer = on_answer});
}
