/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulated streams: two pipes, one each way. What is sent is cut into pieces at random; each piece arrives after a
 * random delay, never before the one sent earlier. A sender waits while too much is under way. Listeners are names in
 * the loop; connecting to a name makes a pair.
 *
 *      sender --> | piece, due 1.2 ms | piece, due 1.3 ms | --> receiver
 *
 * The pieces of a pipe outlive the end that sent them: what was sent before a close still arrives, as with sockets.
 * Descriptors travel with the first piece of what is sent with them, as duplicates, and are closed when whoever
 * receives that piece has not asked for them.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/sim_private.h"
#include "base/socket_private.h"

struct piece {
    struct list link;
    uint64_t due_ns;
    size_t size, taken;
    int *fds, n_fds; /* belong to the piece */
    unsigned char data[];
};

struct pipe {
    struct loop *loop;
    struct list pieces;
    size_t under_way;
    uint64_t last_due_ns;
    bool ended;  /* the sender closed or shut down: end of stream behind the last piece */
    bool broken; /* the receiver is gone, or the line is cut */
    struct co *receiver, *sender;
    struct loop_timer timer; /* wakes the receiver when the first piece is due */
    int ends;                /* streams that still refer to us */
};

struct sim_stream {
    struct stream stream;
    struct pipe *in, *out;
    bool is_down;
};

static struct sim_stream *sim_of(struct stream *stream)
{
    return container_of(stream, struct sim_stream, stream);
}

/* --- pipes --- */

static void wake(struct co *co)
{
    if (co)
        co_wake(co);
}

static void piece_due(void *arg)
{
    wake(((struct pipe *)arg)->receiver);
}

static struct pipe *pipe_new(struct loop *loop)
{
    struct pipe *pipe = new (struct pipe);
    *pipe = (struct pipe){.loop = loop, .ends = 2, .timer = {.fn = piece_due, .arg = pipe}};
    list_init(&pipe->pieces);
    return pipe;
}

static void piece_free(struct piece *piece)
{
    for (int i = 0; i < piece->n_fds; i++)
        close(piece->fds[i]);
    free(piece->fds);
    list_remove(&piece->link);
    free(piece);
}

static void pipe_drop(struct pipe *pipe)
{
    struct piece *piece;
    while ((piece = list_first(&pipe->pieces, struct piece, link)))
        piece_free(piece);
    pipe->under_way = 0;
}

static void pipe_release(struct pipe *pipe)
{
    if (--pipe->ends)
        return;
    loop_timer_cancel(&pipe->timer);
    pipe_drop(pipe);
    free(pipe);
}

/* The sender will send no more. The end travels as the data does. */
static void pipe_end(struct pipe *pipe)
{
    if (pipe->ended)
        return;
    pipe->ended = true;
    struct sim *sim = pipe->loop->sim;
    uint64_t due = sim->now_ns + sim_draw(sim, sim->config.stream_low_ns, sim->config.stream_high_ns);
    pipe->last_due_ns = MAX(pipe->last_due_ns, due);
    if (list_empty(&pipe->pieces))
        loop_timer_arm(pipe->loop, &pipe->timer, pipe->last_due_ns);
    wake(pipe->sender);
}

static void pipe_break(struct pipe *pipe)
{
    pipe->broken = true;
    wake(pipe->sender);
    wake(pipe->receiver);
}

static struct piece *pipe_put(struct pipe *pipe, const void *data, size_t size)
{
    struct sim *sim = pipe->loop->sim;
    struct piece *piece = xmalloc(sizeof *piece + size);
    uint64_t due = sim->now_ns + sim_draw(sim, sim->config.stream_low_ns, sim->config.stream_high_ns);
    due += sim_stall(sim, sim->config.stream_stall_one_in);
    *piece = (struct piece){.due_ns = MAX(due, pipe->last_due_ns), .size = size};
    memcpy(piece->data, data, size);
    pipe->last_due_ns = piece->due_ns;
    if (list_empty(&pipe->pieces))
        loop_timer_arm(pipe->loop, &pipe->timer, piece->due_ns);
    list_append(&pipe->pieces, &piece->link);
    pipe->under_way += size;
    return piece;
}

/* Takes from the first piece, which is due. */
static size_t pipe_take(struct pipe *pipe, void *buffer, size_t size)
{
    struct piece *piece = list_first(&pipe->pieces, struct piece, link);
    size_t n = MIN(size, piece->size - piece->taken);
    memcpy(buffer, piece->data + piece->taken, n);
    piece->taken += n;
    pipe->under_way -= n;
    if (piece->taken == piece->size) {
        piece_free(piece);
        struct piece *next = list_first(&pipe->pieces, struct piece, link);
        if (next || pipe->ended)
            loop_timer_arm(pipe->loop, &pipe->timer, next ? next->due_ns : pipe->last_due_ns);
    }
    wake(pipe->sender);
    return n;
}

/* --- the stream --- */

static bool has_arrived(const struct pipe *pipe)
{
    const struct piece *piece = list_first(&pipe->pieces, struct piece, link);
    uint64_t now = pipe->loop->sim->now_ns;
    return piece ? piece->due_ns <= now : pipe->ended && pipe->last_due_ns <= now;
}

/* 0 when something has arrived, be it the end. */
static int wait_arrival(struct sim_stream *stream)
{
    struct pipe *pipe = stream->in;
    struct co *co = co_self();
    assert(co && !pipe->receiver);
    pipe->receiver = co;
    while (!has_arrived(pipe) && !pipe->broken && !stream->is_down && !co_interrupted(co))
        co_suspend();
    pipe->receiver = NULL;
    if (pipe->broken || stream->is_down)
        return -ECONNRESET;
    return has_arrived(pipe) ? 0 : -ECANCELED;
}

static ssize_t sim_recv_fds(struct stream *base, void *buffer, size_t size, int *fds, int max_fds, int *n_fds)
{
    struct pipe *pipe = sim_of(base)->in;
    int code = wait_arrival(sim_of(base));
    struct piece *piece = list_first(&pipe->pieces, struct piece, link);
    if (code || !piece)
        return code;
    *n_fds = MIN(piece->n_fds, max_fds);
    for (int i = 0; i < *n_fds; i++)
        fds[i] = piece->fds[i];
    for (int i = *n_fds; i < piece->n_fds; i++)
        close(piece->fds[i]);
    piece->n_fds = 0;
    return (ssize_t)pipe_take(pipe, buffer, size);
}

static ssize_t sim_recv(struct stream *base, void *buffer, size_t size)
{
    int none, n_fds;
    return sim_recv_fds(base, buffer, size, &none, 0, &n_fds);
}

/* 0 when a piece may be sent. */
static int wait_window(struct sim_stream *stream)
{
    struct pipe *pipe = stream->out;
    struct co *co = co_self();
    assert(co && !pipe->sender);
    pipe->sender = co;
    const struct sim_config *config = &pipe->loop->sim->config;
    while (pipe->under_way >= config->stream_window && !pipe->broken && !stream->is_down && !co_interrupted(co))
        co_suspend();
    pipe->sender = NULL;
    if (co_interrupted(co))
        return -ECANCELED;
    return pipe->broken || stream->is_down ? -EPIPE : 0;
}

static void attach(struct piece *piece, const int *fds, int n_fds)
{
    piece->fds = new_array(int, (size_t)n_fds);
    for (int i = 0; i < n_fds; i++) {
        int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (copy >= 0)
            piece->fds[piece->n_fds++] = copy;
    }
}

static int send_pieces(struct stream *base, struct iovec *iov, int count, const int *fds, int n_fds)
{
    struct sim_stream *stream = sim_of(base);
    struct sim *sim = base->loop->sim;
    for (iov_advance(&iov, &count, 0); count;) {
        int code = wait_window(stream);
        if (code)
            return code;
        size_t room = sim->config.stream_window - stream->out->under_way;
        size_t limit = MIN(MIN(iov->iov_len, room), MAX(sim->config.stream_chunk, (size_t)1));
        size_t n = (size_t)sim_draw(sim, 1, limit);
        struct piece *piece = pipe_put(stream->out, iov->iov_base, n);
        if (n_fds)
            attach(piece, fds, n_fds);
        n_fds = 0;
        iov_advance(&iov, &count, n);
    }
    return 0;
}

static int sim_sendv(struct stream *base, struct iovec *iov, int count)
{
    return send_pieces(base, iov, count, NULL, 0);
}

static int sim_send_fds(struct stream *base, const void *buffer, size_t size, const int *fds, int n_fds)
{
    struct iovec iov = {(void *)buffer, size};
    return send_pieces(base, &iov, 1, fds, n_fds);
}

static void sim_shutdown(struct stream *base)
{
    struct sim_stream *stream = sim_of(base);
    stream->is_down = true;
    pipe_end(stream->out);
    pipe_break(stream->in); /* what the peer sends from now on goes nowhere */
    wake(stream->out->sender);
}

static void sim_close(struct stream *base)
{
    struct sim_stream *stream = sim_of(base);
    assert(!stream->in->receiver && !stream->out->sender);
    pipe_end(stream->out);
    pipe_break(stream->in);
    pipe_release(stream->in);
    pipe_release(stream->out);
    free(base->peer);
    free(stream);
}

static const struct stream_ops sim_stream_ops = {
    .recv = sim_recv,
    .sendv = sim_sendv,
    .recv_fds = sim_recv_fds,
    .send_fds = sim_send_fds,
    .shutdown = sim_shutdown,
    .close = sim_close,
};

static struct stream *stream_new(struct loop *loop, struct pipe *in, struct pipe *out, const char *peer)
{
    struct sim_stream *stream = new (struct sim_stream);
    *stream = (struct sim_stream){
        .stream = {.ops = &sim_stream_ops, .loop = loop, .peer = xstrdup(peer)}, .in = in, .out = out};
    return &stream->stream;
}

static void make_pair(struct loop *loop, struct stream *pair[2], const char *peer)
{
    struct pipe *there = pipe_new(loop), *back = pipe_new(loop);
    pair[0] = stream_new(loop, back, there, peer);
    pair[1] = stream_new(loop, there, back, peer);
}

bool sim_stream_pair(struct loop *loop, struct stream *pair[2])
{
    make_pair(loop, pair, "simulated pair");
    return true;
}

void sim_stream_break(struct stream *base)
{
    assert(base->ops == &sim_stream_ops);
    pipe_break(sim_of(base)->in);
    pipe_break(sim_of(base)->out);
}

/* --- names --- */

struct sim_listener {
    struct listener listener;
    struct list link;
    vec(struct stream *) backlog;
    struct co_queue acceptors;
    bool closed;
    int accepting; /* coroutines inside accept; the last one frees a closed listener */
};

static char *name_of(const struct stream_address *address)
{
    if (address->kind == SOCKET_UNIX)
        return xasprintf("unix:%s", address->path);
    return xasprintf("%s:%s", address->host ? address->host : "", address->port);
}

static struct sim_listener *find(struct loop *loop, const char *name)
{
    struct sim_listener *listener;
    list_for_each (listener, &loop->sim->listeners, link)
        if (!strcmp(listener->listener.name, name))
            return listener;
    return NULL;
}

struct stream *sim_stream_connect(struct loop *loop, const struct stream_address *address, struct error *err)
{
    if (address->kind == SOCKET_FD)
        return fail_null(err, EOPNOTSUPP, "a simulated loop cannot use file descriptor %d", address->fd);
    auto_free char *name = name_of(address);
    sim_delay(loop);
    struct sim_listener *listener = find(loop, name);
    if (!listener)
        return fail_errno_null(err, ECONNREFUSED, "cannot connect to '%s'", name);
    struct stream *pair[2];
    make_pair(loop, pair, name);
    vec_push(&listener->backlog, pair[1]);
    co_queue_wake_one(&listener->acceptors);
    return pair[0];
}

static void release(struct sim_listener *listener)
{
    if (!listener->closed || listener->accepting)
        return;
    free(listener->listener.name);
    free(listener);
}

static struct stream *sim_accept(struct listener *base, int *error)
{
    struct sim_listener *listener = container_of(base, struct sim_listener, listener);
    struct stream *stream = NULL;
    *error = 0;
    listener->accepting++;
    while (!listener->closed && !listener->backlog.count && !*error)
        *error = co_queue_wait(&listener->acceptors);
    listener->accepting--;
    if (listener->closed)
        *error = -ECANCELED;
    if (!*error) {
        stream = listener->backlog.items[0];
        vec_remove(&listener->backlog, 0);
    }
    release(listener);
    return stream;
}

static void sim_listener_close(struct listener *base)
{
    struct sim_listener *listener = container_of(base, struct sim_listener, listener);
    list_remove(&listener->link);
    for (size_t i = 0; i < listener->backlog.count; i++)
        stream_close(listener->backlog.items[i]);
    vec_free(&listener->backlog);
    listener->closed = true;
    co_queue_wake_all(&listener->acceptors);
    release(listener);
}

static const struct listener_ops sim_listener_ops = {
    .accept = sim_accept,
    .close = sim_listener_close,
};

struct listener *sim_listener_new(struct loop *loop, const struct stream_address *address, struct error *err)
{
    if (address->kind == SOCKET_FD)
        return fail_null(err, EOPNOTSUPP, "a simulated loop cannot use file descriptor %d", address->fd);
    auto_free char *name = name_of(address);
    if (find(loop, name))
        return fail_errno_null(err, EADDRINUSE, "cannot listen on '%s'", name);
    struct sim_listener *listener = new (struct sim_listener);
    listener->listener = (struct listener){.ops = &sim_listener_ops, .loop = loop, .name = TAKE(name)};
    co_queue_init(&listener->acceptors);
    list_append(&loop->sim->listeners, &listener->link);
    return &listener->listener;
}
