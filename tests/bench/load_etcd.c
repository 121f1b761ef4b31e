/* etcd's Put over gRPC, as its own clients speak it: one HTTP/2 connection, K calls under way.
 * usage: load_etcd URL CLIENTS SECONDS */
#include "load.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/rng.h"

#include <curl/curl.h>

#define VALUE_BYTES 256
#define KEYS 10000

struct client {
    struct load *load;
    CURL *easy;
    struct buf body;
    uint64_t began_ns;
    bool grpc_ok;
    unsigned serial;
};

/* Protobuf (proto3): field number and wire type 2, length, bytes. All lengths here fit two bytes. */
static void put_bytes(struct buf *out, unsigned field, const void *data, size_t len)
{
    uint8_t head[3] = {(uint8_t)(field << 3 | 2), (uint8_t)(len & 0x7f), (uint8_t)(len >> 7)};
    if (len < 128) {
        buf_add(out, head, 2);
    } else {
        head[1] |= 0x80;
        buf_add(out, head, 3);
    }
    buf_add(out, data, len);
}

static void begin(CURLM *multi, struct client *c)
{
    uint8_t value[VALUE_BYTES];
    char key[32];
    struct buf message;
    rng_bytes(value, sizeof value);
    int n = snprintf(key, sizeof key, "bench/%llu", (unsigned long long)(rng_u64() % KEYS));
    buf_init(&message, 4096);
    put_bytes(&message, 1, key, (size_t)n);
    put_bytes(&message, 2, value, sizeof value);
    uint8_t head[5] = {0, 0, 0, (uint8_t)(message.len >> 8), (uint8_t)message.len};
    buf_clear(&c->body);
    buf_add(&c->body, head, sizeof head);
    buf_add(&c->body, message.data, message.len);
    buf_fini(&message);
    c->grpc_ok = false;
    c->began_ns = clock_mono_ns();
    curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE, (long)c->body.len);
    curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, c->body.data);
    CHECK(curl_multi_add_handle(multi, c->easy) == CURLM_OK);
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    struct client *c = arg;
    size_t len = size * count;
    static const char ok[] = "grpc-status: 0";
    if (len >= sizeof ok - 1 && memcmp(data, ok, sizeof ok - 1) == 0) {
        c->grpc_ok = true;
    }
    return len;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    (void)data;
    (void)arg;
    return size * count;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: load_etcd URL CLIENTS SECONDS\n");
        return 2;
    }
    unsigned clients = (unsigned)strtoul(argv[2], NULL, 10);
    struct load load;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    CURLM *multi = curl_multi_init();
    curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, 1L);
    curl_multi_setopt(multi, CURLMOPT_MAX_CONCURRENT_STREAMS, 1000L);
    struct curl_slist *headers = NULL;
    headers = curl_slist_append(headers, "content-type: application/grpc");
    headers = curl_slist_append(headers, "te: trailers");
    char *url = xasprintf("%s/etcdserverpb.KV/Put", argv[1]);
    struct client *all = xcalloc(clients, sizeof *all);
    load_init(&load, clients, 1.0, strtod(argv[3], NULL));
    for (unsigned i = 0; i < clients; i++) {
        struct client *c = &all[i];
        c->load = &load;
        c->easy = curl_easy_init();
        buf_init(&c->body, 4096);
        curl_easy_setopt(c->easy, CURLOPT_URL, url);
        curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
        curl_easy_setopt(c->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(c->easy, CURLOPT_PIPEWAIT, 1L);
        curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(c->easy, CURLOPT_HEADERFUNCTION, on_header);
        curl_easy_setopt(c->easy, CURLOPT_HEADERDATA, c);
        curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_body);
        curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
        begin(multi, c);
    }
    while (!load_over(&load)) {
        int running;
        int left;
        CURLMsg *msg;
        curl_multi_perform(multi, &running);
        while ((msg = curl_multi_info_read(multi, &left)) != NULL) {
            struct client *c;
            curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&c);
            load_note(&load, c->began_ns, msg->data.result == CURLE_OK && c->grpc_ok);
            curl_multi_remove_handle(multi, c->easy);
            begin(multi, c);
        }
        curl_multi_poll(multi, NULL, 0, 100, NULL);
    }
    load_print(&load, "etcd");
    for (unsigned i = 0; i < clients; i++) {
        curl_multi_remove_handle(multi, all[i].easy);
        curl_easy_cleanup(all[i].easy);
        buf_fini(&all[i].body);
    }
    bool ok = load.done > 0;
    free(all);
    free(url);
    curl_slist_free_all(headers);
    curl_multi_cleanup(multi);
    curl_global_cleanup();
    load_fini(&load);
    return ok ? 0 : 1;
}
