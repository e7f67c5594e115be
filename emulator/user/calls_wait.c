/* SPDX-License-Identifier: Apache-2.0 */
/* poll, select and epoll: they wait with a signal mask of their own, and epoll's events have another layout than those
 * of x86-64, where they are packed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/user/calls.h"

enum { MASK = 8, EVENTS = 1 << 16 };

static uint64_t pointer(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* The mask at `address`, when there is one; *at becomes what the host gets for it. */
static int64_t begin(struct user_thread *t, uint64_t address, uint64_t size, uint64_t *mask, uint64_t *at)
{
    *at = 0;
    if (!address)
        return 0;
    int64_t result = user_wait_mask(t, address, size, mask);
    *at = pointer(mask);
    return result;
}

static int64_t ended(struct user_thread *t, uint64_t address, int64_t result)
{
    return address ? user_waited(t, result) : result;
}

int64_t call_ppoll(struct user_thread *t, const uint64_t a[6])
{
    uint64_t mask, at;
    int64_t result = begin(t, a[3], a[4], &mask, &at);
    if (result < 0)
        return result;
    return ended(t, a[3],
                 user_host(t, SYS_ppoll, user_pointer(t, a[0]), a[1], user_pointer(t, a[2]), at, at ? MASK : 0, 0));
}

int64_t call_pselect6(struct user_thread *t, const uint64_t a[6])
{
    uint64_t mask, at;
    struct {
        uint64_t address, size;
    } guest = {0, 0}, host;
    if (a[5] && !space_read(&t->process->space, &guest, a[5], sizeof guest))
        return -EFAULT;
    int64_t result = begin(t, guest.address, guest.size, &mask, &at);
    if (result < 0)
        return result;
    host.address = at;
    host.size = MASK;
    return ended(t, guest.address,
                 user_host(t, SYS_pselect6, a[0], user_pointer(t, a[1]), user_pointer(t, a[2]), user_pointer(t, a[3]),
                           user_pointer(t, a[4]), at ? pointer(&host) : 0));
}

/* --- epoll ------------------------------------------------------------------------------------------------------- */

struct guest_event {
    uint32_t events, pad;
    uint64_t data;
};

int64_t call_epoll_ctl(struct user_thread *t, const uint64_t a[6])
{
    struct guest_event guest;
    struct epoll_event event;
    if (!a[3])
        return user_host(t, SYS_epoll_ctl, a[0], a[1], a[2], 0, 0, 0);
    if (!space_read(&t->process->space, &guest, a[3], sizeof guest))
        return -EFAULT;
    event.events = guest.events;
    event.data.u64 = guest.data;
    return user_host(t, SYS_epoll_ctl, a[0], a[1], a[2], pointer(&event), 0, 0);
}

static int64_t give_events(struct user_thread *t, uint64_t to, const struct epoll_event *events, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        struct guest_event guest = {.events = events[i].events, .data = events[i].data.u64};
        if (!space_write(&t->process->space, to + (uint64_t)i * sizeof guest, &guest, sizeof guest))
            return -EFAULT;
    }
    return count;
}

static int64_t wait_events(struct user_thread *t, const uint64_t a[6], long number, uint64_t timeout)
{
    uint64_t mask, at, count = (uint64_t)(int)a[2];
    if ((int)a[2] <= 0)
        return -EINVAL;
    count = count < EVENTS ? count : EVENTS;
    auto_free struct epoll_event *events = new_array(struct epoll_event, count);
    int64_t result = begin(t, a[4], a[5], &mask, &at);
    if (result < 0)
        return result;
    result = ended(t, a[4], user_host(t, number, a[0], pointer(events), count, timeout, at, MASK));
    return result <= 0 ? result : give_events(t, a[1], events, result);
}

int64_t call_epoll_pwait(struct user_thread *t, const uint64_t a[6])
{
    return wait_events(t, a, SYS_epoll_pwait, a[3]);
}

int64_t call_epoll_pwait2(struct user_thread *t, const uint64_t a[6])
{
    return wait_events(t, a, SYS_epoll_pwait2, user_pointer(t, a[3]));
}
