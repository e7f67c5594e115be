/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core of character devices: buffered output, input with flow control, and the mux with its Ctrl-A keys.
 *
 * Output. Devices write a byte at a time from vCPU threads; bytes gather in a ring and one function posted to the loop
 * writes them out together. When the ring is full a write is cut short and the front hears `writable` later: the
 * guest's UART then shows a busy transmitter, as a real one would.
 *
 * Input. Bytes wait in the front's own buffer until the front takes them. Without a mux the descriptor is not read
 * while the buffer is full, so a pipe pushes back. With a mux it is always read, for Ctrl-A X must work even when the
 * guest does not listen any more; what does not fit is lost, as on a real serial line.
 */
#include "emulator/char/char.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/math.h"
#include "emulator/char/char_private.h"

#define CTRL_A 1

static const struct {
    const struct char_line_ops *ops;
    const char *name;
} kinds[] = {
    [CHAR_LINE_NULL] = {&char_line_null_ops, "null"}, [CHAR_LINE_STDIO] = {&char_line_stdio_ops, "stdio"},
    [CHAR_LINE_FILE] = {&char_line_file_ops, "file"}, [CHAR_LINE_SOCKET] = {&char_line_socket_ops, "socket"},
    [CHAR_LINE_PTY] = {&char_line_pty_ops, "pty"},
};

static void watch_input(struct char_line *line);
static void flush_output(void *arg);
static void flush_posted(void *arg);

/* --- output ------------------------------------------------------------------------------------------------------ */

size_t char_line_write(struct char_front *front, const void *data, size_t size)
{
    struct char_line *line = front->line;
    if (!line)
        return size;
    pthread_mutex_lock(&line->lock);
    if (!line->is_open || line->out_fd < 0) {
        pthread_mutex_unlock(&line->lock);
        return size; /* nobody is there */
    }
    size_t taken = MIN(size, CHAR_LINE_OUTPUT_BYTES - line->out_count);
    for (size_t i = 0; i < taken; i++)
        line->output[(line->out_start + line->out_count++) % CHAR_LINE_OUTPUT_BYTES] = ((const uint8_t *)data)[i];
    if (taken < size)
        front->write_refused = true;
    bool post = line->out_count && !line->flush_posted && !line->out_watched;
    if (post)
        line->flush_posted = true;
    pthread_mutex_unlock(&line->lock);
    if (post)
        loop_post(line->loop, flush_posted, line);
    return taken;
}

/* One write of what lies in one piece. Lock held. False: the descriptor takes no more now. */
static bool write_piece(struct char_line *line)
{
    size_t piece = MIN(line->out_count, CHAR_LINE_OUTPUT_BYTES - line->out_start);
    ssize_t done = write(line->out_fd, line->output + line->out_start, piece);
    if (done < 0 && errno == EINTR)
        return true;
    if (done < 0 && errno == EAGAIN && !line->drop_when_full)
        return false;
    if (done < 0)
        done = (ssize_t)line->out_count; /* the other end is gone: its input side will tell */
    line->out_start = (line->out_start + (size_t)done) % CHAR_LINE_OUTPUT_BYTES;
    line->out_count -= (size_t)done;
    return true;
}

static void output_ready(void *arg, uint32_t events)
{
    struct char_line *line = arg;
    loop_unwatch(&line->out_watch);
    line->out_watched = false;
    flush_output(line);
}

static void flush_posted(void *arg)
{
    struct char_line *line = arg;
    pthread_mutex_lock(&line->lock);
    line->flush_posted = false;
    bool release = line->dead && !line->accept_posted;
    pthread_mutex_unlock(&line->lock);
    if (release)
        free(line);
    else
        flush_output(line);
}

static void flush_output(void *arg)
{
    struct char_line *line = arg;
    struct char_front *refused[CHAR_FRONTS];
    unsigned refused_count = 0;
    bool more = true;
    pthread_mutex_lock(&line->lock);
    while (more && line->out_count && line->out_fd >= 0)
        more = write_piece(line);
    if (line->out_fd < 0)
        line->out_count = 0;
    if (line->out_count && !line->out_watched) {
        line->out_watched = true;
        loop_watch(line->loop, &line->out_watch, line->out_fd, EPOLLOUT, output_ready, line);
    }
    for (unsigned i = 0; i < line->front_count && line->out_count < CHAR_LINE_OUTPUT_BYTES; i++) {
        if (line->fronts[i]->write_refused)
            refused[refused_count++] = line->fronts[i];
        line->fronts[i]->write_refused = false;
    }
    pthread_mutex_unlock(&line->lock);
    for (unsigned i = 0; i < refused_count; i++) {
        if (refused[i]->ops->writable)
            refused[i]->ops->writable(refused[i]->owner);
    }
}

/* Before the program ends: what the guest said last must be seen. Gives a stuck reader a second. */
static void drain_output(struct char_line *line)
{
    pthread_mutex_lock(&line->lock);
    while (line->out_count && line->out_fd >= 0) {
        struct pollfd out = {.fd = line->out_fd, .events = POLLOUT};
        if (!write_piece(line) && poll(&out, 1, 1000) <= 0)
            break;
    }
    pthread_mutex_unlock(&line->lock);
}

/* --- input ------------------------------------------------------------------------------------------------------- */

static void deliver(struct char_front *front)
{
    while (front->input_count) {
        size_t room = front->ops->can_receive ? front->ops->can_receive(front->owner) : 0;
        size_t count = MIN(room, front->input_count);
        uint8_t data[256];
        if (!count)
            return;
        count = MIN(count, sizeof data);
        memcpy(data, front->input, count);
        front->input_count -= count;
        memmove(front->input, front->input + count, front->input_count);
        front->ops->receive(front->owner, data, count);
    }
}

static void notify(struct char_front *front, enum char_line_event event)
{
    if (front->ops->event)
        front->ops->event(front->owner, event);
}

static void print_help(struct char_line *line)
{
    static const char help[] = "\r\n"
                               "Ctrl-A H    this help\r\n"
                               "Ctrl-A X    end the emulator\r\n"
                               "Ctrl-A B    send a break\r\n"
                               "Ctrl-A C    switch between the guest's console and the monitor\r\n"
                               "Ctrl-A Ctrl-A  send Ctrl-A\r\n";
    char_line_write(line->fronts[line->focus], help, sizeof help - 1);
}

static void switch_focus(struct char_line *line)
{
    deliver(line->fronts[line->focus]);
    notify(line->fronts[line->focus], CHAR_LINE_FOCUS_OUT);
    line->focus = (line->focus + 1) % line->front_count;
    notify(line->fronts[line->focus], CHAR_LINE_FOCUS_IN);
}

static void escape_key(struct char_line *line, uint8_t key)
{
    switch (key) {
    case 'h':
    case 'H':
    case '?': print_help(line); break;
    case 'x':
    case 'X':
        if (line->quit)
            line->quit(line->quit_arg);
        break;
    case 'b':
    case 'B': notify(line->fronts[line->focus], CHAR_LINE_BREAK); break;
    case 'c':
    case 'C': switch_focus(line); break;
    default: break;
    }
}

static void type_ahead(struct char_line *line, uint8_t byte)
{
    struct char_front *front = line->fronts[line->focus];
    if (front->input_count == CHAR_LINE_INPUT_BYTES)
        deliver(front);
    if (front->input_count < CHAR_LINE_INPUT_BYTES)
        front->input[front->input_count++] = byte;
}

static void take_input(struct char_line *line, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        bool was_escape = line->escape;
        line->escape = line->mux && !was_escape && data[i] == CTRL_A;
        if (line->escape)
            continue;
        if (was_escape && data[i] != CTRL_A)
            escape_key(line, data[i]);
        else
            type_ahead(line, data[i]);
    }
    deliver(line->fronts[line->focus]);
}

static size_t input_room(const struct char_line *line)
{
    if (!line->front_count)
        return 0;
    return line->mux ? CHAR_LINE_INPUT_BYTES : CHAR_LINE_INPUT_BYTES - line->fronts[0]->input_count;
}

static void unwatch_input(struct char_line *line)
{
    if (line->in_watched)
        loop_unwatch(&line->in_watch);
    line->in_watched = false;
}

static void input_ready(void *arg, uint32_t events)
{
    struct char_line *line = arg;
    uint8_t data[CHAR_LINE_INPUT_BYTES];
    size_t room = input_room(line);
    if (!room) {
        unwatch_input(line);
        return;
    }
    ssize_t count = read(line->in_fd, data, room);
    if (count > 0) {
        take_input(line, data, (size_t)count);
        watch_input(line);
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        unwatch_input(line);
        if (line->ops->ended)
            line->ops->ended(line);
        else
            line->in_fd = -1;
    }
}

/* Keeps reading as long as somebody has room for what comes. */
static void watch_input(struct char_line *line)
{
    if (line->in_fd < 0 || !input_room(line)) {
        unwatch_input(line);
    } else if (!line->in_watched) {
        line->in_watched = true;
        loop_watch(line->loop, &line->in_watch, line->in_fd, EPOLLIN, input_ready, line);
    }
}

static void accept_input(void *arg)
{
    struct char_line *line = arg;
    pthread_mutex_lock(&line->lock);
    line->accept_posted = false;
    bool release = line->dead && !line->flush_posted;
    pthread_mutex_unlock(&line->lock);
    if (release) {
        free(line);
        return;
    }
    for (unsigned i = 0; i < line->front_count; i++)
        deliver(line->fronts[i]);
    watch_input(line);
}

void char_line_accept_input(struct char_front *front)
{
    struct char_line *line = front->line;
    if (!line)
        return;
    pthread_mutex_lock(&line->lock);
    bool post = !line->accept_posted;
    line->accept_posted = true;
    pthread_mutex_unlock(&line->lock);
    if (post)
        loop_post(line->loop, accept_input, line);
}

/* --- connections ------------------------------------------------------------------------------------------------- */

bool char_line_set_nonblocking(int fd, struct error *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return fail_errno(err, errno, "descriptor %d", fd);
    return true;
}

void char_line_connected(struct char_line *line, int in_fd, int out_fd)
{
    pthread_mutex_lock(&line->lock);
    line->in_fd = in_fd;
    line->out_fd = out_fd;
    line->is_open = true;
    pthread_mutex_unlock(&line->lock);
    for (unsigned i = 0; i < line->front_count; i++)
        notify(line->fronts[i], CHAR_LINE_OPENED);
    watch_input(line);
}

void char_line_disconnected(struct char_line *line)
{
    bool was_open = line->is_open;
    unwatch_input(line);
    pthread_mutex_lock(&line->lock);
    if (line->out_watched) {
        loop_unwatch(&line->out_watch);
        line->out_watched = false;
    }
    if (!line->keep_fds) {
        if (line->in_fd >= 0)
            close(line->in_fd);
        if (line->out_fd >= 0 && line->out_fd != line->in_fd)
            close(line->out_fd);
    }
    line->in_fd = line->out_fd = -1;
    line->out_count = 0;
    line->is_open = false;
    pthread_mutex_unlock(&line->lock);
    for (unsigned i = 0; was_open && i < line->front_count; i++)
        notify(line->fronts[i], CHAR_LINE_CLOSED);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct char_line *char_line_new(struct loop *loop, const struct char_line_options *options, struct error *err)
{
    struct char_line *line = new (struct char_line);
    line->loop = loop;
    line->id = xstrdup(options->id);
    line->description = xstrdup(kinds[options->kind].name);
    line->mux = options->mux;
    line->in_fd = line->out_fd = -1;
    line->ops = kinds[options->kind].ops;
    pthread_mutex_init(&line->lock, NULL);
    if (!line->ops->open(line, options, err)) {
        fail_prefix(err, "chardev '%s': ", options->id);
        char_line_free(line);
        return NULL;
    }
    return line;
}

void char_line_free(struct char_line *line)
{
    if (!line)
        return;
    while (line->front_count)
        char_line_detach(line->fronts[0]);
    drain_output(line);
    char_line_disconnected(line);
    if (line->ops->close)
        line->ops->close(line);
    free(line->id);
    free(line->description);
    /* Nobody writes any more, but a function that the loop has yet to call may hold the line. */
    line->dead = true;
    if (!line->flush_posted && !line->accept_posted)
        free(line);
}

bool char_line_is_mux(const struct char_line *line)
{
    return line->mux;
}

bool char_line_is_open(const struct char_line *line)
{
    return line->is_open;
}

void char_line_set_quit(struct char_line *line, void (*quit)(void *arg), void *arg)
{
    line->quit = quit;
    line->quit_arg = arg;
}

bool char_line_attach(struct char_line *line, struct char_front *front, struct error *err)
{
    unsigned limit = line->mux ? CHAR_FRONTS : 1;
    if (line->front_count == limit)
        return fail(err, EBUSY, "chardev '%s' is in use%s", line->id,
                    line->mux ? "" : "; with mux=on it can serve several users");
    pthread_mutex_lock(&line->lock);
    front->line = line;
    front->write_refused = false;
    front->input_count = 0;
    line->fronts[line->front_count++] = front;
    pthread_mutex_unlock(&line->lock);
    if (line->is_open)
        notify(front, CHAR_LINE_OPENED);
    watch_input(line);
    return true;
}

void char_line_detach(struct char_front *front)
{
    struct char_line *line = front->line;
    if (!line)
        return;
    pthread_mutex_lock(&line->lock);
    for (unsigned i = 0; i < line->front_count; i++) {
        if (line->fronts[i] != front)
            continue;
        memmove(&line->fronts[i], &line->fronts[i + 1], (line->front_count - i - 1) * sizeof(void *));
        line->front_count--;
    }
    line->focus = 0;
    front->line = NULL;
    pthread_mutex_unlock(&line->lock);
    watch_input(line);
}
