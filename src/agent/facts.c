#include "agent/agent.h"
#include "agent/host.h"
#include "base/file.h"
#include "base/text.h"
#include "wire/limits.h"

#include <sys/utsname.h>
#include <unistd.h>

/* os-release(5): NAME=value, the value maybe in double quotes. */
static void read_os(char *out, size_t size)
{
    struct buf text;
    buf_init(&text, 64 * 1024);
    (void)snprintf(out, size, "unknown");
    if (file_read("/etc/os-release", &text, NULL) == 0) {
        static const char key[] = "PRETTY_NAME=";
        const char *p = buf_cstr(&text);
        const char *line = strncmp(p, key, sizeof key - 1) == 0 ? p : strstr(p, "\nPRETTY_NAME=");
        if (line != NULL) {
            line += (*line == '\n') + sizeof key - 1;
            line += *line == '"';
            (void)snprintf(out, size, "%.*s", (int)strcspn(line, "\"\n"), line);
        }
    }
    buf_fini(&text);
}

void host_facts_probe(struct host_facts *ret)
{
    *ret = (struct host_facts){.cpus = 0};
    read_os(ret->os, sizeof ret->os);
    struct utsname u;
    if (uname(&u) == 0) {
        (void)snprintf(ret->kernel, sizeof ret->kernel, "%s %s", u.sysname, u.release);
        (void)snprintf(ret->arch, sizeof ret->arch, "%s", u.machine);
        (void)snprintf(ret->hostname, sizeof ret->hostname, "%s", u.nodename);
    }
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    long pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    ret->cpus = cpus > 0 ? (uint64_t)cpus : 0;
    ret->memory_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

/* The length of the clean UTF-8 character at s (RFC 3629), 0 when there is none. */
static size_t clean_char(const char *s, size_t len)
{
    for (size_t n = 1; n <= 4 && n <= len; n++) {
        if (text_is_clean(s, n)) {
            return n;
        }
    }
    return 0;
}

static void add_string(struct buf *out, const char *key, const char *value)
{
    size_t len = strlen(value);
    buf_addf(out, "\"%s\":\"", key);
    for (size_t i = 0; i < len;) {
        size_t n = clean_char(value + i, len - i);
        if (n == 0) {
            buf_add_str(out, "?");
            n = 1;
        } else if (value[i] == '"' || value[i] == '\\') {
            buf_addf(out, "\\%c", value[i]);
        } else {
            buf_add(out, value + i, n);
        }
        i += n;
    }
    buf_add_str(out, "\"");
}

void host_facts_json(const struct host_facts *f, struct buf *out)
{
    buf_add_str(out, "{");
    add_string(out, "os", f->os);
    buf_add_str(out, ",");
    add_string(out, "kernel", f->kernel);
    buf_add_str(out, ",");
    add_string(out, "arch", f->arch);
    buf_addf(out, ",\"cpus\":%llu,\"memory_bytes\":%llu,", (unsigned long long)f->cpus,
             (unsigned long long)f->memory_bytes);
    add_string(out, "hostname", f->hostname);
    buf_add_str(out, "}");
}

/* Every byte may come out as two: the fixed sizes keep the whole under the bound. */
_Static_assert(2 * sizeof(struct host_facts) + 256 <= FACTS_MAX_BYTES, "facts fit");

void agent_facts(struct buf *out)
{
    struct host_facts f;
    host_facts_probe(&f);
    host_facts_json(&f, out);
}

void host_node_name(const char *hostname, char *out)
{
    size_t n = 0;
    for (const char *p = hostname; *p != '\0' && *p != '.' && n < NAME_MAX_BYTES; p++) {
        char c = *p;
        if (c >= 'A' && c <= 'Z') {
            c = (char)(c - 'A' + 'a');
        }
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (plain || n > 0) {
            out[n++] = plain ? c : '-';
        }
    }
    while (n > 0 && out[n - 1] == '-') {
        n--;
    }
    out[n] = '\0';
    if (n == 0) {
        (void)snprintf(out, NAME_MAX_BYTES + 1, "node");
    }
}
