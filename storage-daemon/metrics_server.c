/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP server for one page. Clients are not trusted with anything: there are at most CLIENTS_MAX at a time (others
 * wait in the kernel's queue), each has DEADLINE_NS from its first byte to the last of the answer, a request head is at
 * most HEAD_MAX bytes, and each connection serves one request. The text is made when it is asked for and goes with the
 * connection; so a client that reads slowly, or not at all, costs its own text for ten seconds.
 */
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/loop.h"
#include "base/stream.h"
#include "base/strbuf.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/metrics.h"

enum { CLIENTS_MAX = 16, WAITING_MAX = 128, HEAD_MAX = 8192 };
#define DEADLINE_NS UINT64_C(10000000000)

struct metrics_server {
    struct daemon *daemon;
    struct listener *listener;
    struct co_group acceptor, clients;
    struct co_semaphore places;
};

struct client {
    struct metrics_server *server;
    struct stream *stream;
};

/* The head of a request, up to the empty line; 0, or the status to answer with; -1: no answer. */
static int receive_head(struct stream *stream, char *head, size_t *length)
{
    *length = 0;
    while (*length < HEAD_MAX) {
        ssize_t got = stream_recv(stream, head + *length, HEAD_MAX - *length);
        if (got <= 0)
            return -1;
        size_t from = *length > 3 ? *length - 3 : 0;
        *length += (size_t)got;
        if (memmem(head + from, *length - from, "\r\n\r\n", 4) || memmem(head + from, *length - from, "\n\n", 2))
            return 0;
    }
    return 431;
}

static const char *reason(int status)
{
    switch (status) {
    case 200: return "OK";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 431: return "Request Header Fields Too Large";
    case 505: return "HTTP Version Not Supported";
    default: return "Bad Request";
    }
}

static void answer(struct client *client, struct metrics_request request)
{
    auto_strbuf body = {0}, head = {0};
    if (request.status == 200)
        metrics_write(client->server->daemon, &body);
    else
        strbuf_printf(&body, "%d %s: GET /metrics is what there is\n", request.status, reason(request.status));
    strbuf_printf(&head,
                  "HTTP/1.1 %d %s\r\nContent-Type: text/plain; %scharset=utf-8\r\nContent-Length: %zu\r\n%s"
                  "Connection: close\r\n\r\n",
                  request.status, reason(request.status), request.status == 200 ? "version=0.0.4; " : "", body.length,
                  request.status == 405 ? "Allow: GET, HEAD\r\n" : "");
    struct iovec iov[] = {{head.text, head.length}, {body.text, body.length}};
    (void)stream_sendv(client->stream, iov, request.only_head ? 1 : 2);
}

static void too_slow(void *arg)
{
    stream_shutdown(arg);
}

static void client_run(void *arg)
{
    struct client *client = arg;
    struct loop *loop = client->server->daemon->loop;
    struct loop_timer deadline = {.fn = too_slow, .arg = client->stream};
    loop_timer_arm(loop, &deadline, loop_now_ns(loop) + DEADLINE_NS);
    auto_free char *head = xmalloc(HEAD_MAX);
    size_t length;
    int status = receive_head(client->stream, head, &length);
    if (status >= 0)
        answer(client, status ? (struct metrics_request){status, false} : metrics_request_parse(head, length));
    loop_timer_cancel(&deadline);
    stream_close(client->stream);
    co_semaphore_release(&client->server->places);
    free(client);
}

static void accept_run(void *arg)
{
    struct metrics_server *server = arg;
    for (;;) {
        co_semaphore_acquire(&server->places);
        struct stream *stream = listener_accept_next(server->listener, "metrics");
        if (!stream)
            return;
        struct client *client = new (struct client);
        *client = (struct client){server, stream};
        co_spawn(server->daemon->loop, &server->clients, client_run, client);
    }
}

struct metrics_server *metrics_server_new(struct daemon *daemon, const struct stream_address *address,
                                          struct error *err)
{
    struct listener *listener = listener_new(daemon->loop, address, WAITING_MAX, err);
    if (!listener)
        return NULL;
    struct metrics_server *server = new (struct metrics_server);
    server->daemon = daemon;
    server->listener = listener;
    co_group_init(&server->acceptor);
    co_group_init(&server->clients);
    co_semaphore_init(&server->places, CLIENTS_MAX);
    co_spawn(daemon->loop, &server->acceptor, accept_run, server);
    return server;
}

void metrics_server_free(struct metrics_server *server)
{
    if (!server)
        return;
    co_group_cancel(&server->acceptor);
    co_group_cancel(&server->clients);
    co_group_wait(&server->clients); /* their places let the acceptor see that it is cancelled */
    co_group_wait(&server->acceptor);
    listener_close(server->listener);
    free(server);
}
