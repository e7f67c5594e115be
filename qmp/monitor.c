/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A monitor: one QMP session after another on a character device.
 *
 * Two coroutines. The reader accepts a client, greets it, and then reads requests and executes them one by one. The
 * writer sends what has been queued: answers, and events, which may come from anywhere at any time and must not wait.
 *
 *     client --> reader: recv, json_stream, dispatch --> output --> writer: send --> client
 *                                             events ----^
 *
 * A client that sends but does not read does not make us grow: above OUTPUT_PAUSE the reader stops reading. Events
 * cannot be stopped like that, and to leave one out would let the client believe what is no longer so; at OUTPUT_MAX
 * the client is disconnected instead. A request is at most REQUEST_MAX long.
 */
#include "qmp/internal.h"

#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/co.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "base/stream.h"
#include "qmp/chardev.h"

#define FDS_MAX 16
#define REQUEST_MAX (1u << 20)
#define OUTPUT_PAUSE (64u << 10)
#define OUTPUT_MAX (16u << 20)
#define DRAIN_NS UINT64_C(1000000000) /* for the last answers when a session ends */

struct qmp_monitor {
    struct list link; /* server->monitors */
    struct qmp_server *server;
    struct chardev *chardev;
    char *id;
    bool is_pretty;
    struct co_group reader;
    int fds[FDS_MAX]; /* that came with what was received last and that no command has taken */
    int fd_count;

    /* The session; `stream` is NULL between two. */
    struct stream *stream;
    bool is_negotiating;
    bool is_ending;        /* the writer ends when the output is empty */
    struct strbuf output;  /* queued, not yet in the writer's hands */
    bool is_sending;       /* the writer has something in its hands */
    struct co_queue wrote; /* output has become less */
    struct co_queue filled;
    struct co_group writer;
};

struct qmp_monitor *monitor_from_link(struct list *link)
{
    return list_entry(link, struct qmp_monitor, link);
}

bool monitor_uses(const struct qmp_monitor *monitor, const struct chardev *chardev)
{
    return monitor->chardev == chardev;
}

const char *monitor_id(const struct qmp_monitor *monitor)
{
    return monitor->id;
}

bool monitor_is_negotiating(const struct qmp_monitor *monitor)
{
    return monitor->is_negotiating;
}

void monitor_end_negotiation(struct qmp_monitor *monitor)
{
    monitor->is_negotiating = false;
}

/* Lines end with CR LF, as the protocol has it. */
static void queue(struct qmp_monitor *monitor, const struct json *json)
{
    auto_free char *text = monitor->is_pretty ? json_to_pretty_text(json) : json_to_text(json);
    for (const char *c = text; *c; c++) {
        if (*c == '\n')
            strbuf_append_char(&monitor->output, '\r');
        strbuf_append_char(&monitor->output, *c);
    }
    strbuf_append(&monitor->output, "\r\n");
    co_queue_wake_all(&monitor->filled);
}

void monitor_send_event(struct qmp_monitor *monitor, const struct json *event)
{
    if (!monitor->stream || monitor->is_negotiating || monitor->is_ending)
        return;
    if (monitor->output.length > OUTPUT_MAX) {
        log_warning("monitor '%s': the client does not read its events, disconnecting it", monitor->id);
        monitor->is_ending = true;
        strbuf_clear(&monitor->output);
        stream_shutdown(monitor->stream);
        return;
    }
    queue(monitor, event);
}

static void write_output(void *arg)
{
    struct qmp_monitor *monitor = (struct qmp_monitor *)arg;
    for (;;) {
        while (!monitor->output.length && !monitor->is_ending)
            co_queue_wait_uncancellable(&monitor->filled);
        if (!monitor->output.length)
            break;
        auto_strbuf sending = monitor->output;
        monitor->output = (struct strbuf){0};
        monitor->is_sending = true;
        int status = stream_send_all(monitor->stream, sending.text, sending.length);
        monitor->is_sending = false;
        if (status) {
            monitor->is_ending = true; /* the client is gone */
            strbuf_clear(&monitor->output);
            stream_shutdown(monitor->stream);
        }
        co_queue_wake_all(&monitor->wrote);
    }
    co_queue_wake_all(&monitor->wrote);
}

static struct json *make_greeting(void)
{
    struct version_info *version = qmp_version();
    struct json *content = json_new_object();
    json_set(content, "version", version_info_to_json(version));
    json_set(content, "capabilities", json_new_array());
    version_info_free(version);
    struct json *greeting = json_new_object();
    json_set(greeting, "QMP", content);
    return greeting;
}

/* Executes all requests in a piece of input. */
static void handle_input(struct qmp_monitor *monitor, struct json_stream *input, const char *data, size_t length)
{
    while (!monitor->is_ending) {
        auto_error err = {0};
        struct json *value = NULL;
        enum json_stream_result result = json_stream_read(input, &data, &length, &value, &err);
        if (result == JSON_STREAM_MORE)
            return;
        auto_json *request = value;
        auto_json *answer = result == JSON_STREAM_VALUE ? qmp_dispatch(monitor->server, monitor, request)
                                                        : qmp_error_answer(&err, NULL);
        if (monitor->is_ending)
            return;
        queue(monitor, answer);
        while (monitor->output.length > OUTPUT_PAUSE && !monitor->is_ending && !co_cancelled())
            co_queue_wait(&monitor->wrote);
    }
}

/* Descriptors are for the commands they came with. Those that nobody took are closed when others come. */
static void keep_fds(struct qmp_monitor *monitor, const int *fds, int count)
{
    for (int i = 0; i < monitor->fd_count; i++)
        close(monitor->fds[i]);
    monitor->fd_count = count;
    for (int i = 0; i < count; i++)
        monitor->fds[i] = fds[i];
}

int qmp_monitor_take_fd(struct qmp_monitor *monitor)
{
    if (!monitor->fd_count)
        return -1;
    int fd = monitor->fds[0];
    monitor->fd_count--;
    memmove(monitor->fds, monitor->fds + 1, (size_t)monitor->fd_count * sizeof *monitor->fds);
    return fd;
}

static void read_requests(struct qmp_monitor *monitor)
{
    struct json_stream *input = json_stream_new(REQUEST_MAX);
    char buffer[4096];
    while (!monitor->is_ending) {
        int fds[FDS_MAX], fd_count;
        ssize_t length = stream_recv_fds(monitor->stream, buffer, sizeof buffer, fds, FDS_MAX, &fd_count);
        if (length <= 0)
            break;
        if (fd_count)
            keep_fds(monitor, fds, fd_count);
        handle_input(monitor, input, buffer, (size_t)length);
    }
    json_stream_free(input);
}

/* A client that has closed its side, or a server that ends, still owes or is owed the last answers. */
static void end_session(struct qmp_monitor *monitor)
{
    co_set_cancellable(false);
    monitor->is_ending = true;
    co_queue_wake_all(&monitor->filled);
    while (monitor->output.length || monitor->is_sending)
        if (co_queue_wait_ns(&monitor->wrote, DRAIN_NS))
            break;
    stream_shutdown(monitor->stream);
    co_queue_wake_all(&monitor->filled);
    co_group_wait(&monitor->writer);
    stream_close(monitor->stream);
    monitor->stream = NULL;
    keep_fds(monitor, NULL, 0);
    strbuf_clear(&monitor->output);
    co_set_cancellable(true);
}

static void run_session(struct qmp_monitor *monitor, struct stream *stream)
{
    monitor->stream = stream;
    monitor->is_negotiating = true;
    monitor->is_ending = false;
    co_group_init(&monitor->writer);
    co_spawn(monitor->server->loop, &monitor->writer, write_output, monitor);
    auto_json *greeting = make_greeting();
    queue(monitor, greeting);
    read_requests(monitor);
    end_session(monitor);
}

static void read_sessions(void *arg)
{
    struct qmp_monitor *monitor = (struct qmp_monitor *)arg;
    struct stream *stream;
    while (!co_cancelled() && (stream = chardev_accept(monitor->chardev)))
        run_session(monitor, stream);
}

struct qmp_monitor *monitor_new(struct qmp_server *server, const char *id, struct chardev *chardev, bool is_pretty)
{
    struct qmp_monitor *monitor = xcalloc(1, sizeof *monitor);
    monitor->server = server;
    monitor->id = xstrdup(id);
    monitor->chardev = chardev;
    monitor->is_pretty = is_pretty;
    co_group_init(&monitor->reader);
    co_queue_init(&monitor->wrote);
    co_queue_init(&monitor->filled);
    list_append(&server->monitors, &monitor->link);
    co_spawn(server->loop, &monitor->reader, read_sessions, monitor);
    return monitor;
}

void monitor_close(struct qmp_monitor *monitor)
{
    co_group_cancel(&monitor->reader);
    co_group_wait(&monitor->reader);
    list_remove(&monitor->link);
    strbuf_free(&monitor->output);
    free(monitor->id);
    free(monitor);
}
