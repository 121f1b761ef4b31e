/* A client that speaks our protocols and sends what it likes: for the end-to-end tests of what an
 * authority refuses (../attack_tests.py). One command a process; the answer is one line of JSON. */
#ifndef RAP_TESTS_ATTACKER_H
#define RAP_TESTS_ATTACKER_H

#include "fabric/fabric.h"
#include "wire/node_msg.h"
#include "wire/token.h"

/* --- arguments: "key=value" --- */
struct args {
    int count;
    char **v;
};
/* NULL: absent. */
const char *arg(const struct args *a, const char *key);
long arg_number(const struct args *a, const char *key, long fallback);
/* Ends the process when it is absent. */
const char *arg_must(const struct args *a, const char *key);

/* --- answers --- */
void say_begin(void);
void say_text(const char *key, const char *value);
void say_number(const char *key, double value);
void say_end(void);

_Noreturn void give_up(const char *fmt, ...) PRINTF_LIKE(1, 2);
void load_token(const char *path, struct join_token *ret);
/* Loads the key of this file, or makes one and keeps it there. NULL: makes one. */
struct pki_key *load_key(const char *path);

/* --- requests for a certificate, good and bad --- */
/* -ERR_NOT_FOUND for an unknown kind. */
int forge_csr(const char *kind, const struct pki_key *key, struct buf *out);

/* --- chains, good and bad --- */
#define FORGED_MAX 50
struct forged {
    struct buf der[FORGED_MAX];
    struct blob chain[FORGED_MAX];
    size_t count;
    struct pki_key *key;
};
/* owner: what the owner of the attacked cluster holds, to make certificates that are right but for one
 * thing. own: a chain and key that are whole, for our own side. */
struct forge {
    struct pki_key *root_key;
    struct buf root_der;
    struct uuid cluster_id;
    struct uuid server_id; /* of the attacked authority */
};
void forge_open(struct forge *g, const char *owner_dir);
/* -ERR_NOT_FOUND for an unknown kind. */
int forge_chain(const struct forge *g, const char *kind, struct forged *ret);
/* What a node of this directory shows. */
void load_member(const char *member_dir, struct forged *ret);

/* A certificate that the stolen authority's CA signs for this node id, with a key of ours. */
void load_stolen_ca(const char *member_dir, const struct uuid *node_id, struct forged *ret);

/* --- commands --- */
int attack_enroll(const struct args *a);
int attack_race(const struct args *a);
int attack_hold(const struct args *a);
int attack_hold(const struct args *a);
int attack_guess(const struct args *a);
int attack_handshake(const struct args *a);
int attack_call(const struct args *a);
int attack_serve(const struct args *a);
int attack_streams(const struct args *a);

#endif
