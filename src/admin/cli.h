/* The command line: a client of the API, plus a few commands that work on the data directory
 * itself and are given in by main. It sees base, wire and pki only. */
#ifndef RAP_ADMIN_CLI_H
#define RAP_ADMIN_CLI_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "wire/token.h"

struct cli_init {
    const char *data_dir, *cluster, *name, *listen, *advertise, *owner_dir,
        *passphrase; /* NULL ok */
};
struct cli_init_result {
    struct uuid cluster_id, node_id;
    char root_fingerprint[65];
    char owner_dir[4096];
};
struct cli_migrate {
    const char *dsn, *role, *cluster_id; /* cluster_id may be NULL */
    bool dry_run;
};
struct cli_migrated {
    int from, to; /* schema versions */
    bool role_made;
};
struct cli_run {
    const char *data_dir;
    uint32_t heartbeat_ms, election_ms; /* Raft; 0 = default */
    uint32_t agent_heartbeat_ms;        /* 0 = default */
    uint32_t mirror_check_ms;           /* 0 = default */
    bool synthetic;                     /* answer test traffic */
    uint32_t enroll_per_second;         /* from one source address; 0 = default */
    const char *metrics;                /* loopback address for GET /metrics; NULL: off */
    bool overlay;                       /* relayed paths, off by default (SPEC RTE-04) */
    const char *listen, *advertise;     /* from now on; NULL: as before */
};
enum cli_join_event { /* as enum join_event */
                      CLI_JOIN_CONNECTING,
                      CLI_JOIN_SUBMITTED, /* the fingerprint and the join id are known */
                      CLI_JOIN_PENDING,
                      CLI_JOIN_APPROVED,
                      CLI_JOIN_WAITING,
};
struct cli_join {
    const char *data_dir, *token, *listen, *advertise, *name;
    size_t token_len;
    const char *const *roles;
    bool wait;
    uint32_t timeout_ms;
    void (*progress)(void *data, int event, const char *fingerprint_hex, const char *join_id,
                     const char *detail); /* event: enum cli_join_event */
    void *data;
};
/* What the owner adds to a recovery, made with the root key. */
struct cli_consent {
    struct buf statement; /* signed_recovery */
    struct buf issuer;    /* when doc has "issuer_key": the CA certificate for it, DER */
};
/* Called once with what a recovery would do: 0 and the owner's part (initialised by the caller), or
 * an error that ends it with nothing changed. */
typedef int (*cli_consent_cb)(void *data, struct blob doc, struct cli_consent *ret);

struct cli_recover {
    const char *data_dir, *reason; /* reason may be NULL */
    cli_consent_cb consent;
    void *data;
};
struct backup_file; /* pki/backup.h */
/* A cluster as PostgreSQL has it, believed by its seal (authority/mirror_read.h). */
struct cli_mirror_read {
    const char *dsn, *cluster_id; /* NULL: the only one there */
    struct blob root_der;         /* of the owner; may be empty */
    /* Called once with what was read, as a backup; its result is the result. */
    int (*use)(void *data, const struct backup_file *f, uint64_t rows, struct errmsg *em);
    void *data;
};
struct cli_restore {
    const char *data_dir, *listen, *advertise, *name, *as, *reason; /* the last four may be NULL */
    uint64_t epoch;                   /* to begin; 0: the one after the backup's */
    const struct backup_file *backup; /* opened, its signature and hash checked */
    cli_consent_cb consent;
    void *data;
};
/* --- rap doctor --- */
enum cli_check_result { CLI_CHECK_PASS, CLI_CHECK_WARN, CLI_CHECK_FAIL };
struct cli_check {
    const char *check; /* what was looked at: "disk", "path", ... */
    const char *code;  /* stable: "ok", "udp_blocked", ... */
    enum cli_check_result result;
    char subject[NAME_MAX_BYTES + ADDRESS_MAX_BYTES + 8]; /* an authority; "" this host */
    char text[512];                                       /* one sentence */
    char next[512];                                       /* what to do or run now; "" nothing */
};
struct cli_doctor_authority {
    struct uuid node_id; /* nil: not known */
    char name[NAME_MAX_BYTES + 1];
    char address[ADDRESS_MAX_BYTES + 1];
};
/* What the daemon said, when one runs; else the stored configuration is read, or with neither a
 * membership nor a daemon the token. */
struct cli_doctor {
    const char *data_dir;
    bool running;
    struct cli_doctor_authority authority[AUTHORITIES_MAX];
    size_t authorities;
    struct uuid node_id, connected_to; /* running: this node, and the authority it hears; nil */
    int64_t config_issued_ms, config_expires_ms; /* running: 0 none is held */
    struct blob trust_record;       /* running: the owner's signed_trust in force; empty: none */
    const struct join_token *token; /* NULL: none */
    void *data;
    void (*found)(void *data, const struct cli_check *check); /* once for each check */
};

struct cli_ops {
    int (*init)(const struct cli_init *o, struct cli_init_result *ret, struct errmsg *em);
    int (*migrate)(const struct cli_migrate *o, struct cli_migrated *ret, struct errmsg *em);
    /* Returns when the daemon has stopped cleanly (0) or could not start. */
    int (*run)(const struct cli_run *o, struct errmsg *em);
    int (*join)(const struct cli_join *o, bool *ret_pending, struct uuid *ret_node_id,
                struct errmsg *em);
    int (*recover)(const struct cli_recover *o, struct errmsg *em);
    int (*restore)(const struct cli_restore *o, struct errmsg *em);
    int (*read_mirror)(const struct cli_mirror_read *o, struct errmsg *em);
    /* Looks at this host and the ways to its authorities. Blocks for some seconds. */
    void (*doctor)(const struct cli_doctor *o);
    /* Whether what is in it is a state, and the one its head speaks of. */
    int (*check_backup)(const struct backup_file *f, struct errmsg *em);
};

/* Returns the exit code (DESIGN section 9). */
int cli_main(int argc, char **argv, const struct cli_ops *ops);

#endif
