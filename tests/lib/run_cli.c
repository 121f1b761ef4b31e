#include "lib/run_cli.h"

#include <unistd.h>

static char *content(FILE *f)
{
    struct buf b;
    char chunk[4096];
    size_t n;
    buf_init(&b, 64u << 20);
    CHECK(fseek(f, 0, SEEK_SET) == 0);
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0) {
        buf_add(&b, chunk, n);
    }
    char *text = xstrdup(buf_cstr(&b));
    buf_fini(&b);
    fclose(f);
    return text;
}

struct cli_outcome run_cli_argv(const struct cli_ops *ops, const char *input, int argc, char **argv)
{
    struct cli_outcome o;
    FILE *in = tmpfile(), *out = tmpfile(), *err = tmpfile();
    CHECK(in != NULL && out != NULL && err != NULL);
    fputs(input == NULL ? "" : input, in);
    CHECK(fseek(in, 0, SEEK_SET) == 0);
    o.code = cli_main_on(argc, argv, ops, in, out, err);
    fclose(in);
    o.out = content(out);
    o.err = content(err);
    return o;
}

struct cli_outcome run_cli(const struct cli_ops *ops, const char *input, const char *words)
{
    char *argv[40] = {(char *)(uintptr_t)"rap"};
    int argc = 1;
    char *copy = xstrdup(words);
    char *p = copy;
    while (*p != '\0') {
        CHECK(argc < (int)ARRAY_SIZE(argv));
        argv[argc++] = p;
        p += strcspn(p, " ");
        if (*p == ' ') {
            *p++ = '\0';
        }
    }
    for (int i = 1; i < argc; i++) {
        for (char *c = argv[i]; *c != '\0'; c++) {
            *c = *c == '\x1f' ? ' ' : *c;
        }
    }
    struct cli_outcome o = run_cli_argv(ops, input, argc, argv);
    free(copy);
    return o;
}

void run_cli_free(struct cli_outcome *o)
{
    free(o->out);
    free(o->err);
}
