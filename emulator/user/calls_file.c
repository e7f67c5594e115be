/* SPDX-License-Identifier: Apache-2.0 */
/* System calls about files whose structures or pointers differ between the guest and the host, or that name files which
 * are the guest's own (/proc/self). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/user/calls.h"
#include "emulator/user/proc.h"

static uint64_t pointer(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* --- vectors ----------------------------------------------------------------------------------------------------- */

int64_t user_vectors(struct user_thread *t, uint64_t address, uint64_t count, bool written, struct iovec *to)
{
    struct space *space = &t->process->space;
    struct {
        uint64_t base, length;
    } vector;
    if (count > USER_VECTORS)
        return -EINVAL;
    for (uint64_t i = 0; i < count; i++) {
        if (!space_read(space, &vector, address + i * sizeof vector, sizeof vector))
            return -EFAULT;
        if (written)
            space_will_write(space, vector.base, vector.length);
        to[i] = (struct iovec){space_host(space, vector.base), vector.length};
    }
    return 0;
}

static int64_t vectored(struct user_thread *t, const uint64_t a[6], long number, bool written)
{
    auto_free struct iovec *vectors = new_array(struct iovec, USER_VECTORS);
    int64_t result = user_vectors(t, a[1], a[2], written, vectors);
    return result < 0 ? result : user_host(t, number, a[0], pointer(vectors), a[2], a[3], a[4], a[5]);
}

int64_t call_readv(struct user_thread *t, const uint64_t a[6])
{
    return vectored(t, a, SYS_readv, true);
}

int64_t call_writev(struct user_thread *t, const uint64_t a[6])
{
    return vectored(t, a, SYS_writev, false);
}

int64_t call_preadv(struct user_thread *t, const uint64_t a[6])
{
    return vectored(t, a, SYS_preadv, true);
}

int64_t call_pwritev(struct user_thread *t, const uint64_t a[6])
{
    return vectored(t, a, SYS_pwritev, false);
}

int64_t call_preadv2(struct user_thread *t, const uint64_t a[6])
{
    return vectored(t, a, SYS_preadv2, true);
}

int64_t call_pwritev2(struct user_thread *t, const uint64_t a[6])
{
    return vectored(t, a, SYS_pwritev2, false);
}

int64_t call_vmsplice(struct user_thread *t, const uint64_t a[6])
{
    return vectored(t, a, SYS_vmsplice, true);
}

/* --- fcntl, ioctl ------------------------------------------------------------------------------------------------ */

int64_t call_fcntl(struct user_thread *t, const uint64_t a[6])
{
    uint64_t argument = a[2];
    enum { RW_HINT = 1035, LAST_RW_HINT = 1038 };
    int command = (int)a[1];
    bool is_pointer = (command >= F_GETLK && command <= F_SETLKW) ||
                      (command >= F_OFD_GETLK && command <= F_OFD_SETLKW) || command == F_SETOWN_EX ||
                      command == F_GETOWN_EX || (command >= RW_HINT && command <= LAST_RW_HINT);
    if (is_pointer) {
        space_will_write(&t->process->space, argument, 64);
        argument = user_pointer(t, argument);
    }
    return user_host(t, SYS_fcntl, a[0], a[1], argument, 0, 0, 0);
}

/* Terminals: requests whose argument is a number, or none. */
static bool terminal_takes_number(uint32_t request)
{
    static const uint8_t numbers[] = {0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x22, 0x25,
                                      0x27, 0x28, 0x37, 0x41, 0x50, 0x51, 0x5c};
    return memchr(numbers, (int)(request & 0xff), sizeof numbers);
}

static bool disk_takes_number(uint32_t request)
{
    return request == 0x125f || request == 0x1261 || request == 0x1262 ||
           request == 0x1264; /* BLKRRPART, BLKRASET ... */
}

/* SIOCGIFCONF: a structure with a pointer in it. */
static int64_t interface_list(struct user_thread *t, const uint64_t a[6])
{
    struct {
        int32_t length, unused;
        uint64_t buffer;
    } guest, host;
    struct space *space = &t->process->space;
    if (!space_read(space, &guest, a[2], sizeof guest))
        return -EFAULT;
    host = guest;
    host.buffer = user_pointer(t, guest.buffer);
    int64_t result = user_host(t, SYS_ioctl, a[0], a[1], pointer(&host), 0, 0, 0);
    guest.length = host.length;
    return result < 0 || space_write(space, a[2], &guest, sizeof guest) ? result : -EFAULT;
}

/* Only families whose structures hold no further pointers; a driver that takes addresses (KVM, GPUs) would be told the
 * emulator's. */
int64_t call_ioctl(struct user_thread *t, const uint64_t a[6])
{
    enum { TERMINAL = 0x54, SOCKET = 0x89, DISK = 0x12, GET_INTERFACES = 0x8912, LARGEST = 1 << 14 };
    uint32_t request = (uint32_t)a[1], family = request >> 8 & 0xff;
    uint64_t argument = a[2];
    bool number = false;
    switch (family) {
    case TERMINAL: number = !(request >> 30) && terminal_takes_number(request); break;
    case SOCKET: break;
    case DISK: number = disk_takes_number(request); break;
    case 'f':
    case 'X':
    case 'v': break;                                  /* file systems */
    case 0x94: number = request == 0x40049409; break; /* FICLONE */
    default: return -ENOTTY;
    }
    if (request == GET_INTERFACES)
        return interface_list(t, a);
    if (!number && argument) {
        space_will_write(&t->process->space, argument, LARGEST);
        argument = user_pointer(t, argument);
    }
    return user_host(t, SYS_ioctl, a[0], a[1], argument, 0, 0, 0);
}

/* --- stat -------------------------------------------------------------------------------------------------------- */

struct guest_stat { /* asm-generic/stat.h */
    uint64_t dev, ino;
    uint32_t mode, nlink, uid, gid;
    uint64_t rdev, pad1;
    int64_t size;
    int32_t blksize, pad2;
    int64_t blocks;
    struct {
        int64_t seconds;
        uint64_t nanoseconds;
    } atime, mtime, ctime;
    uint32_t unused[2];
};
_Static_assert(sizeof(struct guest_stat) == 128, "the ABI's size");

static int64_t give_stat(struct user_thread *t, uint64_t to, const struct stat *st)
{
    struct guest_stat guest = {
        .dev = st->st_dev,
        .ino = st->st_ino,
        .mode = st->st_mode,
        .nlink = (uint32_t)st->st_nlink,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .rdev = st->st_rdev,
        .size = st->st_size,
        .blksize = (int32_t)st->st_blksize,
        .blocks = st->st_blocks,
        .atime = {st->st_atim.tv_sec, (uint64_t)st->st_atim.tv_nsec},
        .mtime = {st->st_mtim.tv_sec, (uint64_t)st->st_mtim.tv_nsec},
        .ctime = {st->st_ctim.tv_sec, (uint64_t)st->st_ctim.tv_nsec},
    };
    return space_write(&t->process->space, to, &guest, sizeof guest) ? 0 : -EFAULT;
}

int64_t call_fstat(struct user_thread *t, const uint64_t a[6])
{
    struct stat st;
    int64_t result = user_host(t, SYS_fstat, a[0], pointer(&st), 0, 0, 0, 0);
    return result < 0 ? result : give_stat(t, a[1], &st);
}

int64_t call_newfstatat(struct user_thread *t, const uint64_t a[6])
{
    struct stat st;
    char path[PATH_MAX];
    int64_t result = user_path(t, a[1], path);
    if (result < 0)
        return result;
    result = user_host(t, SYS_newfstatat, a[0], pointer(path), pointer(&st), a[3], 0, 0);
    return result < 0 ? result : give_stat(t, a[2], &st);
}

/* --- names ------------------------------------------------------------------------------------------------------- */

int64_t call_openat(struct user_thread *t, const uint64_t a[6])
{
    char guest[PATH_MAX], path[PATH_MAX];
    int64_t result = space_string(&t->process->space, guest, sizeof guest, a[1]);
    if (result < 0)
        return result;
    if (proc_open(t->process, guest, (int)a[2], &result))
        return result;
    result = user_path_of(t->process, guest, path);
    return result < 0 ? result : user_host(t, SYS_openat, a[0], pointer(path), a[2], a[3], 0, 0);
}

int64_t call_openat2(struct user_thread *t, const uint64_t a[6])
{
    char guest[PATH_MAX], path[PATH_MAX];
    int64_t result = space_string(&t->process->space, guest, sizeof guest, a[1]);
    if (result < 0)
        return result;
    if (proc_open(t->process, guest, O_RDONLY, &result))
        return result;
    result = user_path_of(t->process, guest, path);
    return result < 0 ? result : user_host(t, SYS_openat2, a[0], pointer(path), user_pointer(t, a[2]), a[3], 0, 0);
}

int64_t call_readlinkat(struct user_thread *t, const uint64_t a[6])
{
    char guest[PATH_MAX], path[PATH_MAX];
    struct user_process *process = t->process;
    int64_t result = space_string(&process->space, guest, sizeof guest, a[1]);
    if (result < 0)
        return result;
    if (user_path_is_exe(process, guest)) {
        size_t length = strlen(process->program);
        length = length < a[3] ? length : a[3];
        return !length                                                        ? -EINVAL
               : space_write(&process->space, a[2], process->program, length) ? (int64_t)length
                                                                              : -EFAULT;
    }
    result = user_path_of(process, guest, path);
    space_will_write(&process->space, a[2], a[3]);
    return result < 0 ? result : user_host(t, SYS_readlinkat, a[0], pointer(path), user_pointer(t, a[2]), a[3], 0, 0);
}

int64_t call_getdents64(struct user_thread *t, const uint64_t a[6])
{
    space_will_write(&t->process->space, a[1], a[2]);
    return user_host(t, SYS_getdents64, a[0], user_pointer(t, a[1]), a[2], 0, 0, 0);
}
