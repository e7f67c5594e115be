/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of sockets: a header with pointers to name, vectors and control data. The layouts are the same otherwise. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/user/calls.h"

struct guest_message {
    uint64_t name;
    uint32_t name_length, pad1;
    uint64_t vectors, vector_count, control, control_length;
    uint32_t flags, pad2;
};
_Static_assert(sizeof(struct guest_message) == sizeof(struct msghdr), "the same but for the pointers");
enum { MESSAGE_STRIDE = 64 /* struct mmsghdr: a message, and the length of what came */, CONTROL_ROOM = 64 << 10 };

static int64_t read_message(struct user_thread *t, uint64_t address, bool receives, struct guest_message *guest,
                            struct msghdr *host, struct iovec *vectors)
{
    struct space *space = &t->process->space;
    if (!space_read(space, guest, address, sizeof *guest))
        return -EFAULT;
    if (guest->vector_count > USER_VECTORS)
        return -EMSGSIZE;
    int64_t result = user_vectors(t, guest->vectors, guest->vector_count, receives, vectors);
    if (receives) {
        space_will_write(space, guest->name, guest->name_length);
        space_will_write(space, guest->control, guest->control_length);
    }
    *host = (struct msghdr){.msg_name = (void *)(uintptr_t)user_pointer(t, guest->name),
                            .msg_namelen = guest->name_length,
                            .msg_iov = vectors,
                            .msg_iovlen = guest->vector_count,
                            .msg_control = (void *)(uintptr_t)user_pointer(t, guest->control),
                            .msg_controllen = guest->control_length,
                            .msg_flags = (int)guest->flags};
    return result;
}

static int64_t give_message(struct user_thread *t, uint64_t address, struct guest_message *guest,
                            const struct msghdr *host)
{
    guest->name_length = host->msg_namelen;
    guest->control_length = host->msg_controllen;
    guest->flags = (uint32_t)host->msg_flags;
    return space_write(&t->process->space, address, guest, sizeof *guest) ? 0 : -EFAULT;
}

static int64_t one(struct user_thread *t, uint64_t fd, uint64_t address, uint64_t flags, bool receives)
{
    struct guest_message guest;
    struct msghdr host;
    auto_free struct iovec *vectors = new_array(struct iovec, USER_VECTORS);
    int64_t result = read_message(t, address, receives, &guest, &host, vectors);
    if (result < 0)
        return result;
    result = user_host(t, receives ? SYS_recvmsg : SYS_sendmsg, fd, (uint64_t)(uintptr_t)&host, flags, 0, 0, 0);
    if (result < 0 || !receives)
        return result;
    int64_t given = give_message(t, address, &guest, &host);
    return given < 0 ? given : result;
}

int64_t call_sendmsg(struct user_thread *t, const uint64_t a[6])
{
    return one(t, a[0], a[1], a[2], false);
}

int64_t call_recvmsg(struct user_thread *t, const uint64_t a[6])
{
    return one(t, a[0], a[1], a[2], true);
}

/* One by one: the first waits, the others take what is there. An error after the first is told by the next call. */
static int64_t several(struct user_thread *t, const uint64_t a[6], bool receives)
{
    uint64_t count = (uint32_t)a[2], flags = a[3] & ~(uint64_t)MSG_WAITFORONE, done = 0;
    count = count < USER_VECTORS ? count : USER_VECTORS;
    while (done < count) {
        uint64_t address = a[1] + done * MESSAGE_STRIDE;
        int64_t result = one(t, a[0], address, flags, receives);
        uint32_t length = (uint32_t)result;
        if (result < 0)
            return done ? (int64_t)done : result;
        if (!space_write(&t->process->space, address + sizeof(struct guest_message), &length, sizeof length))
            return -EFAULT;
        done++;
        if (receives && (a[3] & MSG_WAITFORONE))
            flags |= MSG_DONTWAIT;
    }
    return (int64_t)done;
}

int64_t call_sendmmsg(struct user_thread *t, const uint64_t a[6])
{
    return several(t, a, false);
}

int64_t call_recvmmsg(struct user_thread *t, const uint64_t a[6])
{
    if (!a[4])
        return several(t, a, true);
    const uint64_t at_once[6] = {a[0], a[1], a[2], a[3] | MSG_WAITFORONE, 0, 0};
    return several(t, at_once, true);
}

/* A filter is a structure with a pointer in it. */
int64_t call_setsockopt(struct user_thread *t, const uint64_t a[6])
{
    enum { ATTACH_FILTER = 26, ATTACH_REUSEPORT_FILTER = 51 };
    struct {
        uint64_t length, filter;
    } program;
    bool is_filter = a[1] == SOL_SOCKET && (a[2] == ATTACH_FILTER || a[2] == ATTACH_REUSEPORT_FILTER);
    if (!is_filter)
        return user_host(t, SYS_setsockopt, a[0], a[1], a[2], user_pointer(t, a[3]), a[4], 0);
    if (a[4] < sizeof program)
        return -EINVAL;
    if (!space_read(&t->process->space, &program, a[3], sizeof program))
        return -EFAULT;
    program.filter = user_pointer(t, program.filter);
    return user_host(t, SYS_setsockopt, a[0], a[1], a[2], (uint64_t)(uintptr_t)&program, sizeof program, 0);
}
