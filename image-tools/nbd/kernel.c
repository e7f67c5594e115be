/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ways lead to the kernel's NBD client.
 *
 * The good one is generic netlink (linux/nbd-netlink.h): one message connects, and the device exists on its own until
 * another message, or the end of its socket, ends it. The old one is a row of ioctls (linux/nbd.h), of which one
 * (NBD_DO_IT) has to be waited in for as long as the device lives, by a child of ours. It is for where the kernel's
 * netlink family cannot be seen: in network name spaces, that is, in containers that were given the device.
 *
 * Either way the device is told apart by its number, which need not be its minor number's: partitions lie between.
 */
#include "image-tools/nbd/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <linux/fs.h>
#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"

enum { START_TRIES = 200, START_PAUSE_US = 10000 };

/* Which device ---------------------------------------------------------------------------------------------------- */

bool kernel_device_find(const char *path, struct kernel_device *device, struct error *err)
{
    struct stat st;
    char target[256] = "", rest;
    if (stat(path, &st) < 0) {
        fail_errno(err, errno, "Cannot open '%s'", path);
        return fail_hint(err, "/dev/nbd0 and its like are there when the kernel's module is: modprobe nbd");
    }
    auto_free char *link = xasprintf("/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
    ssize_t length = S_ISBLK(st.st_mode) ? readlink(link, target, sizeof target - 1) : -1;
    *device = (struct kernel_device){.path = path};
    if (length <= 0 || sscanf(basename(target), "nbd%u%c", &device->index, &rest) != 1)
        return fail(err, ENOTBLK, "'%s' is not a device of the kernel's NBD client, such as /dev/nbd0", path);
    return true;
}

/* The kernel shows who serves a device while somebody does. */
bool kernel_device_is_connected(const struct kernel_device *device)
{
    auto_free char *path = xasprintf("/sys/block/nbd%u/pid", device->index);
    return access(path, F_OK) == 0;
}

/* Netlink --------------------------------------------------------------------------------------------------------- */

static bool fail_netlink(struct error *err, const struct kernel_device *device, const char *what, int code)
{
    fail(err, EIO, "Cannot %s '%s': %s", what, device->path, nl_geterror(code));
    return code != -NLE_PERM || fail_hint(err, "this needs the capability CAP_SYS_ADMIN");
}

/* -1: the family is not there, or not for us. */
static int open_family(struct nl_sock **sock)
{
    int family = -1;
    *sock = nl_socket_alloc();
    if (*sock && genl_connect(*sock) == 0)
        family = genl_ctrl_resolve(*sock, NBD_GENL_FAMILY_NAME);
    if (family >= 0)
        return family;
    if (*sock)
        nl_socket_free(*sock);
    return -1;
}

static struct nl_msg *new_order(int family, uint8_t command, const struct kernel_device *device)
{
    struct nl_msg *order = nlmsg_alloc();
    if (!order || !genlmsg_put(order, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, command, NBD_GENL_VERSION) ||
        nla_put_u32(order, NBD_ATTR_INDEX, device->index) < 0)
        abort(); /* out of memory for a hundred bytes */
    return order;
}

static void put_socket(struct nl_msg *order, int socket)
{
    struct nlattr *all = nla_nest_start(order, NBD_ATTR_SOCKETS), *item = nla_nest_start(order, NBD_SOCK_ITEM);
    nla_put_u32(order, NBD_SOCK_FD, (uint32_t)socket);
    nla_nest_end(order, item);
    nla_nest_end(order, all);
}

static bool connect_by_netlink(int family, struct nl_sock *sock, const struct kernel_device *device,
                               const struct kernel_disk *disk, int socket, struct error *err)
{
    struct nl_msg *order = new_order(family, NBD_CMD_CONNECT, device);
    nla_put_u64(order, NBD_ATTR_SIZE_BYTES, disk->size);
    nla_put_u64(order, NBD_ATTR_BLOCK_SIZE_BYTES, disk->block_size);
    nla_put_u64(order, NBD_ATTR_SERVER_FLAGS, disk->flags);
    put_socket(order, socket);
    int code = nl_send_sync(sock, order); /* frees it, waits for the answer */
    return code >= 0 || fail_netlink(err, device, "connect", code);
}

static bool disconnect_by_netlink(int family, struct nl_sock *sock, const struct kernel_device *device,
                                  struct error *err)
{
    int code = nl_send_sync(sock, new_order(family, NBD_CMD_DISCONNECT, device));
    /* Not connected, or never used. */
    return code >= 0 || code == -NLE_INVAL || code == -NLE_OBJ_NOTFOUND ||
           fail_netlink(err, device, "disconnect", code);
}

/* ioctl ----------------------------------------------------------------------------------------------------------- */

static int open_device(const struct kernel_device *device, struct error *err)
{
    int fd = open(device->path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fail_errno(err, errno, "Cannot open '%s'", device->path);
    return fd;
}

static bool set_up(int fd, const struct kernel_device *device, const struct kernel_disk *disk, int socket,
                   struct error *err)
{
    int read_only = disk->flags & NBD_FLAG_READ_ONLY ? 1 : 0;
    const struct {
        unsigned long request, argument;
        const char *name;
    } steps[] = {
        {NBD_SET_SOCK, (unsigned long)socket, "NBD_SET_SOCK"},
        {NBD_SET_BLKSIZE, disk->block_size, "NBD_SET_BLKSIZE"},
        {NBD_SET_SIZE_BLOCKS, disk->size / disk->block_size, "NBD_SET_SIZE_BLOCKS"},
        {NBD_SET_FLAGS, disk->flags, "NBD_SET_FLAGS"},
        {BLKROSET, (unsigned long)&read_only, "BLKROSET"},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (ioctl(fd, steps[i].request, steps[i].argument) < 0) {
            fail_errno(err, errno, "Cannot connect '%s': %s", device->path, steps[i].name);
            ioctl(fd, NBD_CLEAR_SOCK);
            return false;
        }
    }
    return true;
}

/* Until the device is disconnected, or its socket has ended. */
static void wait_in_kernel(int fd)
{
    ioctl(fd, NBD_DO_IT);
    ioctl(fd, NBD_CLEAR_QUE);
    ioctl(fd, NBD_CLEAR_SOCK);
    _exit(0);
}

static bool connect_by_ioctl(struct kernel_device *device, const struct kernel_disk *disk, int socket,
                             struct error *err)
{
    auto_close int fd = open_device(device, err);
    if (fd < 0 || !set_up(fd, device, disk, socket, err))
        return false;
    device->waiter = fork();
    if (device->waiter == 0)
        wait_in_kernel(fd);
    if (device->waiter < 0) {
        device->waiter = 0;
        return fail_errno(err, errno, "Cannot connect '%s': fork", device->path);
    }
    for (int i = 0; i < START_TRIES && !kernel_device_is_connected(device); i++)
        usleep(START_PAUSE_US);
    return kernel_device_is_connected(device) || fail(err, EIO, "Cannot connect '%s': NBD_DO_IT", device->path);
}

static bool disconnect_by_ioctl(const struct kernel_device *device, struct error *err)
{
    auto_close int fd = open_device(device, err);
    if (fd < 0)
        return false;
    ioctl(fd, NBD_CLEAR_QUE);
    if (ioctl(fd, NBD_DISCONNECT) < 0 && errno != EINVAL) /* EINVAL: it is not connected */
        return fail_errno(err, errno, "Cannot disconnect '%s'", device->path);
    ioctl(fd, NBD_CLEAR_SOCK);
    return true;
}

/* Whichever there is ---------------------------------------------------------------------------------------------- */

bool kernel_device_connect(struct kernel_device *device, const struct kernel_disk *disk, int socket, struct error *err)
{
    struct nl_sock *sock;
    int family = open_family(&sock);
    if (family < 0)
        return connect_by_ioctl(device, disk, socket, err);
    bool ok = connect_by_netlink(family, sock, device, disk, socket, err);
    nl_socket_free(sock);
    return ok;
}

bool kernel_device_disconnect(struct kernel_device *device, struct error *err)
{
    struct nl_sock *sock;
    int family = device->waiter ? -1 : open_family(&sock);
    bool ok = family < 0 ? disconnect_by_ioctl(device, err) : disconnect_by_netlink(family, sock, device, err);
    if (family >= 0)
        nl_socket_free(sock);
    if (device->waiter && waitpid(device->waiter, NULL, 0) > 0)
        device->waiter = 0;
    return ok;
}
