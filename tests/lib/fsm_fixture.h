/* A replicated state to play with: entries from struct literals, make-believe certificates, time
 * that moves only when told to. Everything comes from the seed, so two worlds of one seed that are
 * told the same hold the same.
 *
 *     struct fsm_world w;
 *     fsm_world_init(&w);                     // a state and a cluster with one authority
 *     rc = fsm_do(&w, CMD_TOKEN_CREATE, &(struct token_create){ ... });   // its result
 *     ... w.doc holds the result document
 *     fsm_world_fini(&w);
 *
 * A fixture failure (an entry that does not apply) fails the test at once. */
#ifndef TESTS_LIB_FSM_FIXTURE_H
#define TESTS_LIB_FSM_FIXTURE_H

#include "authority/fsm.h"
#include "base/rng.h"
#include "lib/pki_fixture.h"

#define FSM_T0 1780000000000LL /* 2026-05-28 */
#define FSM_HOUR (3600LL * 1000)

/* --- entries --- */
struct fsm_entry {
    uint64_t term;
    uint32_t count;
    struct buf commands;
    struct buf bytes;
};
void fsm_entry_begin(struct fsm_entry *e, uint64_t term);
/* c: everything but the body. */
void fsm_entry_add(struct fsm_entry *e, struct cmd c, const void *body);
/* Valid until fini. */
struct blob fsm_entry_end(struct fsm_entry *e);
void fsm_entry_fini(struct fsm_entry *e);

/* --- identities out of nothing: a number makes a key, an id, a certificate --- */
struct fsm_fake {
    struct uuid id;
    uint8_t public_key[32];
    uint8_t fingerprint[32]; /* that of the key */
    char fingerprint_hex[65];
    char id_text[UUID_TEXT_MAX];
};
void fsm_fake(uint32_t n, struct fsm_fake *ret);
struct uuid fsm_fake_id(uint32_t kind, uint32_t n);
/* The CA of authority n: bytes that stand for its certificate, and its key's fingerprint. */
struct blob fsm_fake_issuer(uint32_t n, char out[32]);
void fsm_fake_issuer_fingerprint(uint32_t n, uint8_t ret[32]);
struct fsm_fake_cert {
    uint32_t key;         /* fsm_fake number */
    uint32_t issuer;      /* fsm_fake_issuer number */
    uint32_t serial;      /* > 0 */
    int64_t not_after_ms; /* 0: 30 days after FSM_T0 */
};
/* Encoded cmd_cert; valid until the next call but seven. */
struct blob fsm_fake_cert(const struct fsm_fake_cert *c);
/* SHA-256 of token number n. Valid for ever. */
void fsm_fake_token(uint32_t n, uint8_t ret[32]);
/* "a", "b" as a list. Valid until the next call but seven. */
struct mp_list fsm_list(const char *const *words);
#define FSM_LIST(...) fsm_list((const char *const[]){__VA_ARGS__, NULL})

/* --- a world --- */
struct fsm_world {
    struct fsm *fsm;
    uint64_t index, term;
    int64_t now_ms;
    uint32_t next_request;
    const char *actor_kind, *actor_id; /* admin, uid:0 */
    struct buf doc;                    /* the last command's document */
    int rc;                            /* and its result */
    bool replayed;
};

/* Authority 1 ("seed", key 1, issuer 1) of cluster "lab". */
void fsm_world_init(struct fsm_world *w);
/* The state moves to the highest schema level, as a leader would have it do. */
void fsm_world_raise(struct fsm_world *w);
/* To this level: make-believe certificates of authorities and records of roots are taken below
 * LEVEL_SIGNED only. */
void fsm_world_raise_to(struct fsm_world *w, unsigned level);
/* No cluster yet. */
void fsm_world_init_empty(struct fsm_world *w);
void fsm_world_fini(struct fsm_world *w);
int fsm_world_init_cluster(struct fsm_world *w);
/* The same under a root that can sign. */
void fsm_world_init_owned(struct fsm_world *w, const struct test_ca *ca);

/* One command in an entry of its own; returns its result. */
int fsm_do(struct fsm_world *w, uint64_t kind, const void *body);
/* The same with the envelope given; zero members are filled in. */
int fsm_do_cmd(struct fsm_world *w, struct cmd c, const void *body);
struct cmd fsm_envelope(struct fsm_world *w, uint64_t kind);
/* A finished entry. */
void fsm_world_apply(struct fsm_world *w, struct fsm_entry *e, fsm_result_cb cb, void *data);

/* Steps most tests need. They must succeed. */
struct uuid fsm_make_token(struct fsm_world *w, uint32_t n, uint64_t max_uses);
struct join_submit fsm_submit(struct fsm_world *w, uint32_t key, const char *name, uint32_t token);
struct uuid fsm_make_request(struct fsm_world *w, uint32_t key, const char *name, uint32_t token);
/* Token, request, approval: an enrolled node whose id is that of fsm_fake(key). */
struct uuid fsm_make_node(struct fsm_world *w, uint32_t key, const char *name);
/* ... that is an authority and voter with issuer number key. */
struct uuid fsm_make_authority(struct fsm_world *w, uint32_t key, const char *name);

/* What a query or an SQL count says. */
int64_t fsm_count(struct fsm_world *w, const char *sql);
/* Text of a key of the last document. Valid until the next call. */
const char *fsm_doc_text(struct fsm_world *w, const char *key);
void fsm_digest_hex(const struct fsm *f, char out[65]);

#endif
