/* Runs a fuzz target once over each file of a corpus: what was ever found stays found. */
#include "fuzz/fuzz.h"

#include "base/file.h"

#include <dirent.h>

#define INPUT_MAX (16u << 20)

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the files in dir, sorted; NULL when it cannot be read. */
static char **list_files(const char *dir, size_t *ret_count)
{
    DIR *d = opendir(dir);
    if (d == NULL) {
        return NULL;
    }
    char **names = NULL;
    size_t count = 0;
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.') {
            names = xrealloc(names, (count + 1) * sizeof *names);
            names[count++] = xstrdup(e->d_name);
        }
    }
    (void)closedir(d);
    if (count > 0) {
        qsort(names, count, sizeof *names, by_name);
    }
    *ret_count = count;
    return names;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s CORPUS-DIRECTORY\n", argv[0]);
        return 2;
    }
    size_t count = 0;
    size_t failed = 0;
    char **names = list_files(argv[1], &count);
    if (count == 0) {
        (void)fprintf(stderr, "no corpus in %s\n", argv[1]);
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        struct buf in;
        struct errmsg em = ERRMSG_INIT;
        char *path = path_join(argv[1], names[i]);
        buf_init(&in, INPUT_MAX);
        if (file_read(path, &in, &em) != 0) {
            (void)fprintf(stderr, "%s\n", em.text);
            failed++;
        } else {
            /* Exactly as long as the input, so that a read past it is noticed. */
            uint8_t *copy = xmalloc(in.len);
            if (in.len > 0) {
                memcpy(copy, in.data, in.len);
            }
            (void)LLVMFuzzerTestOneInput(copy, in.len);
            free(copy);
        }
        buf_fini(&in);
        free(path);
        free(names[i]);
    }
    free(names);
    printf("%zu passed, %zu failed\n", count - failed, failed);
    return failed == 0 ? 0 : 1;
}
