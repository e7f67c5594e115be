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
    const struct chardev_ops *ops;
    const char *name;
} kinds[] = {
    [CHARDEV_NULL] = {&chardev_null_ops, "null"}, [CHARDEV_STDIO] = {&chardev_stdio_ops, "stdio"},
    [CHARDEV_FILE] = {&chardev_file_ops, "file"}, [CHARDEV_SOCKET] = {&chardev_socket_ops, "socket"},
    [CHARDEV_PTY] = {&chardev_pty_ops, "pty"},
};

static void watch_input(struct chardev *chardev);
static void flush_output(void *arg);

/* --- output ------------------------------------------------------------------------------------------------------ */

size_t chardev_write(struct chardev_front *front, const void *data, size_t size)
{
    struct chardev *chardev = front->chardev;
    if (!chardev)
        return size;
    pthread_mutex_lock(&chardev->lock);
    if (!chardev->is_open || chardev->out_fd < 0) {
        pthread_mutex_unlock(&chardev->lock);
        return size; /* nobody is there */
    }
    size_t taken = MIN(size, CHARDEV_OUTPUT_BYTES - chardev->out_count);
    for (size_t i = 0; i < taken; i++)
        chardev->output[(chardev->out_start + chardev->out_count++) % CHARDEV_OUTPUT_BYTES] =
            ((const uint8_t *)data)[i];
    if (taken < size)
        front->write_refused = true;
    bool post = chardev->out_count && !chardev->flush_posted;
    if (post)
        chardev->flush_posted = true;
    pthread_mutex_unlock(&chardev->lock);
    if (post)
        loop_post(chardev->loop, flush_output, chardev);
    return taken;
}

/* One write of what lies in one piece. Lock held. False: the descriptor takes no more now. */
static bool write_piece(struct chardev *chardev)
{
    size_t piece = MIN(chardev->out_count, CHARDEV_OUTPUT_BYTES - chardev->out_start);
    ssize_t done = write(chardev->out_fd, chardev->output + chardev->out_start, piece);
    if (done < 0 && errno == EINTR)
        return true;
    if (done < 0 && errno == EAGAIN && !chardev->drop_when_full)
        return false;
    if (done < 0)
        done = (ssize_t)chardev->out_count; /* the other end is gone: its input side will tell */
    chardev->out_start = (chardev->out_start + (size_t)done) % CHARDEV_OUTPUT_BYTES;
    chardev->out_count -= (size_t)done;
    return true;
}

static void output_ready(void *arg, uint32_t events)
{
    struct chardev *chardev = arg;
    loop_unwatch(&chardev->out_watch);
    chardev->out_watched = false;
    flush_output(chardev);
}

static void flush_output(void *arg)
{
    struct chardev *chardev = arg;
    struct chardev_front *refused[CHARDEV_FRONTS];
    unsigned refused_count = 0;
    bool more = true;
    pthread_mutex_lock(&chardev->lock);
    chardev->flush_posted = false;
    while (more && chardev->out_count && chardev->out_fd >= 0)
        more = write_piece(chardev);
    if (chardev->out_fd < 0)
        chardev->out_count = 0;
    if (chardev->out_count && !chardev->out_watched) {
        chardev->flush_posted = chardev->out_watched = true; /* until output_ready() */
        loop_watch(chardev->loop, &chardev->out_watch, chardev->out_fd, EPOLLOUT, output_ready, chardev);
    }
    for (unsigned i = 0; i < chardev->front_count && chardev->out_count < CHARDEV_OUTPUT_BYTES; i++) {
        if (chardev->fronts[i]->write_refused)
            refused[refused_count++] = chardev->fronts[i];
        chardev->fronts[i]->write_refused = false;
    }
    pthread_mutex_unlock(&chardev->lock);
    for (unsigned i = 0; i < refused_count; i++) {
        if (refused[i]->ops->writable)
            refused[i]->ops->writable(refused[i]->owner);
    }
}

/* Before the program ends: what the guest said last must be seen. Gives a stuck reader a second. */
static void drain_output(struct chardev *chardev)
{
    pthread_mutex_lock(&chardev->lock);
    while (chardev->out_count && chardev->out_fd >= 0) {
        struct pollfd out = {.fd = chardev->out_fd, .events = POLLOUT};
        if (!write_piece(chardev) && poll(&out, 1, 1000) <= 0)
            break;
    }
    pthread_mutex_unlock(&chardev->lock);
}

/* --- input ------------------------------------------------------------------------------------------------------- */

static void deliver(struct chardev_front *front)
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

static void notify(struct chardev_front *front, enum chardev_event event)
{
    if (front->ops->event)
        front->ops->event(front->owner, event);
}

static void print_help(struct chardev *chardev)
{
    static const char help[] = "\r\n"
                               "Ctrl-A H    this help\r\n"
                               "Ctrl-A X    end the emulator\r\n"
                               "Ctrl-A B    send a break\r\n"
                               "Ctrl-A C    switch between the guest's console and the monitor\r\n"
                               "Ctrl-A Ctrl-A  send Ctrl-A\r\n";
    chardev_write(chardev->fronts[chardev->focus], help, sizeof help - 1);
}

static void switch_focus(struct chardev *chardev)
{
    notify(chardev->fronts[chardev->focus], CHARDEV_FOCUS_OUT);
    chardev->focus = (chardev->focus + 1) % chardev->front_count;
    notify(chardev->fronts[chardev->focus], CHARDEV_FOCUS_IN);
}

static void escape_key(struct chardev *chardev, uint8_t key)
{
    switch (key) {
    case 'h':
    case 'H':
    case '?': print_help(chardev); break;
    case 'x':
    case 'X':
        if (chardev->quit)
            chardev->quit(chardev->quit_arg);
        break;
    case 'b':
    case 'B': notify(chardev->fronts[chardev->focus], CHARDEV_BREAK); break;
    case 'c':
    case 'C': switch_focus(chardev); break;
    default: break;
    }
}

static void type_ahead(struct chardev *chardev, uint8_t byte)
{
    struct chardev_front *front = chardev->fronts[chardev->focus];
    if (front->input_count == CHARDEV_INPUT_BYTES)
        deliver(front);
    if (front->input_count < CHARDEV_INPUT_BYTES)
        front->input[front->input_count++] = byte;
}

static void take_input(struct chardev *chardev, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        bool was_escape = chardev->escape;
        chardev->escape = chardev->mux && !was_escape && data[i] == CTRL_A;
        if (chardev->escape)
            continue;
        if (was_escape && data[i] != CTRL_A)
            escape_key(chardev, data[i]);
        else
            type_ahead(chardev, data[i]);
    }
    deliver(chardev->fronts[chardev->focus]);
}

static size_t input_room(const struct chardev *chardev)
{
    if (!chardev->front_count)
        return 0;
    return chardev->mux ? CHARDEV_INPUT_BYTES : CHARDEV_INPUT_BYTES - chardev->fronts[0]->input_count;
}

static void unwatch_input(struct chardev *chardev)
{
    if (chardev->in_watched)
        loop_unwatch(&chardev->in_watch);
    chardev->in_watched = false;
}

static void input_ready(void *arg, uint32_t events)
{
    struct chardev *chardev = arg;
    uint8_t data[CHARDEV_INPUT_BYTES];
    size_t room = input_room(chardev);
    if (!room) {
        unwatch_input(chardev);
        return;
    }
    ssize_t count = read(chardev->in_fd, data, room);
    if (count > 0) {
        take_input(chardev, data, (size_t)count);
        watch_input(chardev);
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        unwatch_input(chardev);
        if (chardev->ops->ended)
            chardev->ops->ended(chardev);
        else
            chardev->in_fd = -1;
    }
}

/* Keeps reading as long as somebody has room for what comes. */
static void watch_input(struct chardev *chardev)
{
    if (chardev->in_fd < 0 || !input_room(chardev)) {
        unwatch_input(chardev);
    } else if (!chardev->in_watched) {
        chardev->in_watched = true;
        loop_watch(chardev->loop, &chardev->in_watch, chardev->in_fd, EPOLLIN, input_ready, chardev);
    }
}

static void accept_input(void *arg)
{
    struct chardev *chardev = arg;
    pthread_mutex_lock(&chardev->lock);
    chardev->accept_posted = false;
    pthread_mutex_unlock(&chardev->lock);
    for (unsigned i = 0; i < chardev->front_count; i++)
        deliver(chardev->fronts[i]);
    watch_input(chardev);
}

void chardev_accept_input(struct chardev_front *front)
{
    struct chardev *chardev = front->chardev;
    if (!chardev)
        return;
    pthread_mutex_lock(&chardev->lock);
    bool post = !chardev->accept_posted;
    chardev->accept_posted = true;
    pthread_mutex_unlock(&chardev->lock);
    if (post)
        loop_post(chardev->loop, accept_input, chardev);
}

/* --- connections ------------------------------------------------------------------------------------------------- */

bool chardev_set_nonblocking(int fd, struct error *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return fail_errno(err, errno, "descriptor %d", fd);
    return true;
}

void chardev_connected(struct chardev *chardev, int in_fd, int out_fd)
{
    pthread_mutex_lock(&chardev->lock);
    chardev->in_fd = in_fd;
    chardev->out_fd = out_fd;
    chardev->is_open = true;
    pthread_mutex_unlock(&chardev->lock);
    for (unsigned i = 0; i < chardev->front_count; i++)
        notify(chardev->fronts[i], CHARDEV_OPENED);
    watch_input(chardev);
}

void chardev_disconnected(struct chardev *chardev)
{
    bool was_open = chardev->is_open;
    unwatch_input(chardev);
    pthread_mutex_lock(&chardev->lock);
    if (chardev->out_watched) {
        loop_unwatch(&chardev->out_watch);
        chardev->out_watched = chardev->flush_posted = false;
    }
    if (!chardev->keep_fds) {
        if (chardev->in_fd >= 0)
            close(chardev->in_fd);
        if (chardev->out_fd >= 0 && chardev->out_fd != chardev->in_fd)
            close(chardev->out_fd);
    }
    chardev->in_fd = chardev->out_fd = -1;
    chardev->out_count = 0;
    chardev->is_open = false;
    pthread_mutex_unlock(&chardev->lock);
    for (unsigned i = 0; was_open && i < chardev->front_count; i++)
        notify(chardev->fronts[i], CHARDEV_CLOSED);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct chardev *chardev_new(struct loop *loop, const struct chardev_options *options, struct error *err)
{
    struct chardev *chardev = new (struct chardev);
    chardev->loop = loop;
    chardev->id = xstrdup(options->id);
    chardev->description = xstrdup(kinds[options->kind].name);
    chardev->mux = options->mux;
    chardev->in_fd = chardev->out_fd = -1;
    chardev->ops = kinds[options->kind].ops;
    pthread_mutex_init(&chardev->lock, NULL);
    if (!chardev->ops->open(chardev, options, err)) {
        fail_prefix(err, "chardev '%s': ", options->id);
        chardev_free(chardev);
        return NULL;
    }
    return chardev;
}

void chardev_free(struct chardev *chardev)
{
    if (!chardev)
        return;
    while (chardev->front_count)
        chardev_detach(chardev->fronts[0]);
    drain_output(chardev);
    chardev_disconnected(chardev);
    if (chardev->ops->close)
        chardev->ops->close(chardev);
    pthread_mutex_destroy(&chardev->lock);
    free(chardev->id);
    free(chardev->description);
    free(chardev);
}

const char *chardev_id(const struct chardev *chardev)
{
    return chardev->id;
}

const char *chardev_description(const struct chardev *chardev)
{
    return chardev->description;
}

bool chardev_is_mux(const struct chardev *chardev)
{
    return chardev->mux;
}

bool chardev_is_open(const struct chardev *chardev)
{
    return chardev->is_open;
}

void chardev_set_quit(struct chardev *chardev, void (*quit)(void *arg), void *arg)
{
    chardev->quit = quit;
    chardev->quit_arg = arg;
}

bool chardev_attach(struct chardev *chardev, struct chardev_front *front, struct error *err)
{
    unsigned limit = chardev->mux ? CHARDEV_FRONTS : 1;
    if (chardev->front_count == limit)
        return fail(err, EBUSY, "chardev '%s' is in use%s", chardev->id,
                    chardev->mux ? "" : "; with mux=on it can serve several users");
    pthread_mutex_lock(&chardev->lock);
    front->chardev = chardev;
    front->write_refused = false;
    front->input_count = 0;
    chardev->fronts[chardev->front_count++] = front;
    pthread_mutex_unlock(&chardev->lock);
    if (chardev->is_open)
        notify(front, CHARDEV_OPENED);
    watch_input(chardev);
    return true;
}

void chardev_detach(struct chardev_front *front)
{
    struct chardev *chardev = front->chardev;
    if (!chardev)
        return;
    pthread_mutex_lock(&chardev->lock);
    for (unsigned i = 0; i < chardev->front_count; i++) {
        if (chardev->fronts[i] != front)
            continue;
        memmove(&chardev->fronts[i], &chardev->fronts[i + 1], (chardev->front_count - i - 1) * sizeof(void *));
        chardev->front_count--;
    }
    chardev->focus = 0;
    front->chardev = NULL;
    pthread_mutex_unlock(&chardev->lock);
    watch_input(chardev);
}
