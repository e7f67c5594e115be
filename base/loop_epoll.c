/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The epoll back end, for kernels and sandboxes without io_uring. It waits and watches; file I/O goes through the
 * worker pool or libaio, sockets are read and written directly when they are ready.
 *
 * epoll knows a descriptor once, while we allow several watches of it (a reader's and a writer's): a table by
 * descriptor holds the list of watches, and the kernel is told the union of their events. Descriptors that epoll does
 * not take (regular files, as standard input may be) count as always ready, as poll(2) has it.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/loop_private.h"

#define EVENTS_A_TURN 256

struct slot {
    struct list watches; /* of struct loop_watch */
    uint32_t registered; /* events that the kernel was told; 0: not registered */
    bool always_ready;
};

struct epoller {
    int fd;
    bool lacks_pwait2;
    size_t always_ready;        /* how many slots */
    vec(struct slot *) slots;   /* by descriptor; NULL where nothing was ever watched */
    struct loop_watch **cursor; /* the next watch that a dispatch in progress will call; see watch_remove */
};

static struct epoller *epoller_of(struct loop *loop)
{
    return loop->backend_state;
}

static bool epoll_init(struct loop *loop, struct error *err)
{
    auto_close int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0)
        return fail_errno(err, errno, "event loop: epoll_create1");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = loop->wake_fd};
    if (epoll_ctl(fd, EPOLL_CTL_ADD, loop->wake_fd, &event))
        return fail_errno(err, errno, "event loop: epoll_ctl");
    struct epoller *epoller = new (struct epoller);
    epoller->fd = TAKE_FD(fd);
    loop->backend_state = epoller;
    return true;
}

static void epoll_fini(struct loop *loop)
{
    struct epoller *epoller = epoller_of(loop);
    for (size_t i = 0; i < epoller->slots.count; i++)
        free(epoller->slots.items[i]);
    vec_free(&epoller->slots);
    close(epoller->fd);
    free(epoller);
}

static struct slot *slot_of(struct epoller *epoller, int fd)
{
    while (epoller->slots.count <= (size_t)fd)
        vec_push(&epoller->slots, NULL);
    struct slot **slot = &epoller->slots.items[fd];
    if (!*slot) {
        *slot = new (struct slot);
        list_init(&(*slot)->watches);
    }
    return *slot;
}

/* Tells the kernel the union of what is watched on a descriptor. */
static void slot_update(struct loop *loop, int fd, struct slot *slot)
{
    struct epoller *epoller = epoller_of(loop);
    uint32_t wanted = 0;
    struct loop_watch *watch;
    list_for_each (watch, &slot->watches, link)
        wanted |= watch->events;
    if (slot->always_ready && list_empty(&slot->watches)) {
        slot->always_ready = false;
        epoller->always_ready--;
    }
    if (wanted == slot->registered || slot->always_ready)
        return;
    struct epoll_event event = {.events = wanted, .data.fd = fd};
    int op = !wanted ? EPOLL_CTL_DEL : slot->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    loop->stats.system_calls++;
    int code = epoll_ctl(epoller->fd, op, fd, &event) ? errno : 0;
    /* The descriptor may have been closed, and even opened anew, since we registered it. */
    if (code == ENOENT && op == EPOLL_CTL_MOD)
        code = epoll_ctl(epoller->fd, EPOLL_CTL_ADD, fd, &event) ? errno : 0;
    if (code == EPERM) {
        slot->always_ready = true;
        epoller->always_ready++;
        return;
    }
    slot->registered = wanted;
}

static void epoll_watch_add(struct loop *loop, struct loop_watch *watch)
{
    struct slot *slot = slot_of(epoller_of(loop), watch->fd);
    list_append(&slot->watches, &watch->link);
    slot_update(loop, watch->fd, slot);
}

static void epoll_watch_remove(struct loop *loop, struct loop_watch *watch)
{
    struct epoller *epoller = epoller_of(loop);
    struct slot *slot = slot_of(epoller, watch->fd);
    if (epoller->cursor && *epoller->cursor == watch)
        *epoller->cursor = list_entry(watch->link.next, struct loop_watch, link);
    list_remove(&watch->link);
    slot_update(loop, watch->fd, slot);
}

/* Callbacks may remove any watch, also the one that would be next. Errors and hang-ups go to every watch. */
static void dispatch(struct epoller *epoller, int fd, uint32_t events)
{
    struct slot *slot = slot_of(epoller, fd);
    struct loop_watch *next = list_entry(slot->watches.next, struct loop_watch, link);
    epoller->cursor = &next;
    while (&next->link != &slot->watches) {
        struct loop_watch *watch = next;
        next = list_entry(watch->link.next, struct loop_watch, link);
        uint32_t hit = events & (watch->events | EPOLLERR | EPOLLHUP);
        if (hit)
            watch->fn(watch->arg, hit);
    }
    epoller->cursor = NULL;
}

static void dispatch_always_ready(struct epoller *epoller)
{
    for (size_t fd = 0; epoller->always_ready && fd < epoller->slots.count; fd++) {
        struct slot *slot = epoller->slots.items[fd];
        if (slot && slot->always_ready)
            dispatch(epoller, (int)fd, EPOLLIN | EPOLLOUT);
    }
}

static int wait_events(struct epoller *epoller, struct epoll_event *events, int64_t timeout_ns)
{
    if (!epoller->lacks_pwait2) {
        struct timespec time = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        int n = epoll_pwait2(epoller->fd, events, EVENTS_A_TURN, timeout_ns < 0 ? NULL : &time, NULL);
        if (n >= 0 || errno != ENOSYS)
            return n;
        epoller->lacks_pwait2 = true; /* before Linux 5.11: milliseconds, rounded up */
    }
    int64_t timeout_ms = timeout_ns < 0 ? -1 : MIN((timeout_ns + 999999) / 1000000, (int64_t)INT32_MAX);
    return epoll_wait(epoller->fd, events, EVENTS_A_TURN, (int)timeout_ms);
}

static void epoll_poll(struct loop *loop, int64_t timeout_ns)
{
    struct epoller *epoller = epoller_of(loop);
    struct epoll_event events[EVENTS_A_TURN];
    loop->stats.system_calls++;
    int n = wait_events(epoller, events, epoller->always_ready ? 0 : timeout_ns);
    for (int i = 0; i < n; i++) {
        if (events[i].data.fd == loop->wake_fd) {
            uint64_t value;
            loop->stats.system_calls++;
            if (read(loop->wake_fd, &value, sizeof value) < 0)
                assert(errno == EINTR || errno == EAGAIN);
        } else {
            dispatch(epoller, events[i].data.fd, events[i].events);
        }
    }
    dispatch_always_ready(epoller);
}

const struct loop_ops loop_epoll_ops = {
    .name = "epoll",
    .init = epoll_init,
    .fini = epoll_fini,
    .poll = epoll_poll,
    .watch_add = epoll_watch_add,
    .watch_remove = epoll_watch_remove,
};
