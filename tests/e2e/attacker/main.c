#include "attacker.h"

#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"

static const struct {
    const char *name;
    int (*run)(const struct args *a);
    const char *usage;
} commands[] = {
    {"enroll", attack_enroll,
     "token=FILE [to=ADDR] [csr=KIND] [key=FILE] [name=N] [name_hex=HEX] [secret=random] [id=UUID]"
     " [facts_bytes=N] [role=R] [frame_hex=HEX] [alpn=NAME|none] [from=IP]"},
    {"race", attack_race, "token=FILE [to=ADDR] n=N [spread=1] [from=IP]"},
    {"hold", attack_hold, "token=FILE [to=ADDR] n=N [hello_only=1] [seconds=N] [from=IP]"},
    {"hold", attack_hold, "token=FILE [to=ADDR] n=N [hello_only=1] [seconds=N] [from=IP]"},
    {"guess", attack_guess, "token=FILE [to=ADDR] n=N [parallel=N] [sources=N]"},
    {"handshake", attack_handshake,
     "owner=DIR to=ADDR server=NODE_ID chain=KIND|nobody | member=DIR [key=other] [service=S] "
     "[from=IP]"},
    {"call", attack_call,
     "member=DIR | stolen=DIR id=NODE_ID|new to=ADDR server=NODE_ID service=S [body=KIND] "
     "[stream=1]"
     " [as=NODE_ID] [from=IP]"},
    {"serve", attack_serve, "stolen=DIR listen=ADDR victim=NODE_ID lie=bare|own|reuse|set|old"},
    {"streams", attack_streams,
     "member=DIR to=ADDR server=NODE_ID service=S [n=100] [frame=BYTES] [bulk=1] [from=IP]"},
};

const char *arg(const struct args *a, const char *key)
{
    size_t len = strlen(key);
    for (int i = 0; i < a->count; i++) {
        if (strncmp(a->v[i], key, len) == 0 && a->v[i][len] == '=') {
            return a->v[i] + len + 1;
        }
    }
    return NULL;
}

long arg_number(const struct args *a, const char *key, long fallback)
{
    const char *text = arg(a, key);
    return text == NULL ? fallback : strtol(text, NULL, 10);
}

const char *arg_must(const struct args *a, const char *key)
{
    const char *text = arg(a, key);
    if (text == NULL) {
        give_up("%s= is missing", key);
    }
    return text;
}

static bool said;

void say_begin(void)
{
    said = false;
    (void)putchar('{');
}

static void say_key(const char *key)
{
    printf("%s\"%s\": ", said ? ", " : "", key);
    said = true;
}

void say_text(const char *key, const char *value)
{
    say_key(key);
    (void)putchar('"');
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            (void)putchar('\\');
        }
        (void)putchar(*p);
    }
    (void)putchar('"');
}

void say_number(const char *key, double value)
{
    say_key(key);
    printf("%.15g", value);
}

void say_end(void)
{
    printf("}\n");
    (void)fflush(stdout);
}

_Noreturn void give_up(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)fprintf(stderr, "attacker: ");
    (void)vfprintf(stderr, fmt, ap);
    (void)fprintf(stderr, "\n");
    va_end(ap);
    exit(2);
}

void load_token(const char *path, struct join_token *ret)
{
    struct errmsg em = ERRMSG_INIT;
    struct buf text;
    buf_init(&text, TOKEN_TEXT_MAX);
    if (file_read(path, &text, &em) != 0 ||
        token_parse((const char *)text.data, text.len, ret, &em) != 0) {
        give_up("%s: %s", path, em.text);
    }
    buf_fini(&text);
}

struct pki_key *load_key(const char *path)
{
    struct errmsg em = ERRMSG_INIT;
    struct pki_key *key = NULL;
    int rc = path == NULL ? -ERR_NOT_FOUND : pki_key_load(path, NULL, &key, &em);
    if (rc == -ERR_NOT_FOUND) {
        key = pki_key_generate();
        rc = path == NULL ? 0 : pki_key_save(key, path, NULL, &em);
    }
    if (rc != 0) {
        give_up("%s: %s", path == NULL ? "" : path, em.text);
    }
    return key;
}

int main(int argc, char **argv)
{
    log_set_level(LOG_ERROR);
    const struct args a = {.count = argc - 2, .v = argv + 2};
    for (size_t i = 0; argc >= 2 && i < ARRAY_SIZE(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(&a);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        (void)fprintf(stderr, "usage: attacker %s %s\n", commands[i].name, commands[i].usage);
    }
    return 2;
}
