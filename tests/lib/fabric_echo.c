#include "lib/fabric_echo.h"

#include <setjmp.h>
#include <cmocka.h>

static void on_frame(struct fabric_stream *s, void *data, struct blob frame)
{
    struct echo_end *e = data;
    e->got++;
    const struct fabric_peer *peer = fabric_stream_peer(s);
    if (peer != NULL) { /* else its session has ended meanwhile */
        e->peer = *peer;
    }
    (void)frame;
}

static void on_frame_echo(struct fabric_stream *s, void *data, struct blob frame)
{
    on_frame(s, data, frame);
    (void)fabric_stream_send(s, frame);
}

static void on_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    struct echo_end *e = data;
    assert_false(e->closed);
    e->closed = true;
    e->rc = rc;
}

const struct fabric_stream_vtab echo_client_vtab = {.frame = on_frame, .closed = on_closed};
static const struct fabric_stream_vtab server_vtab = {.frame = on_frame_echo, .closed = on_closed};

static void on_frame_only_echo(struct fabric_stream *s, void *data, struct blob frame)
{
    (void)data;
    (void)fabric_stream_send(s, frame);
}

static void ignore_closed(struct fabric_stream *s, void *data, int rc)
{
    (void)s;
    (void)data;
    (void)rc;
}

static const struct fabric_stream_vtab late_vtab = {.frame = on_frame_only_echo,
                                                    .closed = ignore_closed};

static void accept_echo(void *data, struct fabric_stream *s)
{
    struct echo_world *w = data;
    if (w->accepted_count == ARRAY_SIZE(w->accepted)) {
        fabric_stream_accept(s, &late_vtab, NULL);
        return;
    }
    struct echo_end *e = &w->accepted[w->accepted_count++];
    *e = (struct echo_end){.s = s};
    fabric_stream_accept(s, &server_vtab, e);
}

void echo_serve(struct echo_world *w, struct fabric_node *n)
{
    fabric_serve(n->f, &(struct fabric_service){.name = "echo", .data = w, .stream = accept_echo});
    if (n->serve_enroll) {
        fabric_serve(n->f, &(struct fabric_service){.name = "enroll",
                                                    .flags = FABRIC_SVC_ENROLL,
                                                    .data = w,
                                                    .stream = accept_echo});
    }
}

struct fabric_node *echo_add(struct echo_world *w, struct fabric_node_opts o)
{
    struct fabric_node *n = fabric_world_node(&w->w, &o);
    if (n->f != NULL) {
        echo_serve(w, n);
    }
    return n;
}

int echo_setup(void **state)
{
    struct echo_world *w = xcalloc(1, sizeof *w);
    *state = w;
    fabric_world_init(&w->w);
    w->a = echo_add(
        w, (struct fabric_node_opts){
               .authority = true, .serve_enroll = true, .keepalive_ms = 50, .dead_ms = 400});
    w->b = echo_add(w,
                    (struct fabric_node_opts){.issuer = w->a, .keepalive_ms = 50, .dead_ms = 400});
    fabric_world_introduce(w->a, w->b);
    return 0;
}

int echo_teardown(void **state)
{
    struct echo_world *w = *state;
    fabric_world_fini(&w->w);
    free(w);
    return 0;
}

void echo_open(struct echo_end *e, struct fabric_node *from, struct fabric_node *to)
{
    *e = (struct echo_end){.s = NULL};
    struct fabric_stream_to t = {.node_id = to->id, .service = "echo"};
    assert_int_equal(fabric_stream_open(from->f, &t, &echo_client_vtab, e, &e->s), 0);
    assert_int_equal(fabric_stream_send(e->s, blob_str("x")), 0);
}

bool echo_ended(void *data)
{
    struct echo_end *e = data;
    return e->closed || e->got > 0;
}

bool echo_closed(void *data)
{
    return ((struct echo_end *)data)->closed;
}

int echo_try(struct fabric_node *from, struct fabric_node *to)
{
    struct echo_end e;
    echo_open(&e, from, to);
    fabric_world_run(from->w, echo_ended, &e);
    if (!e.closed) {
        fabric_stream_close(e.s);
        return 0;
    }
    return e.rc;
}

bool echo_connected(void *data)
{
    struct echo_world *w = data;
    return fabric_peer_connected(w->a->f, &w->b->id) && fabric_peer_connected(w->b->f, &w->a->id);
}

static void count_session(void *data, const struct fabric_session_info *info)
{
    (void)info;
    ++*(unsigned *)data;
}

unsigned echo_sessions(struct fabric_node *n)
{
    unsigned count = 0;
    fabric_sessions(n->f, count_session, &count);
    return count;
}

bool echo_no_sessions(void *data)
{
    return echo_sessions(data) == 0;
}
