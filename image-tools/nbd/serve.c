/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spindle-nbd as a server: opens the image, exports it, and goes on until its last client is gone (or, with -t, until
 * a signal says so).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "base/background.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/size.h"
#include "block/request.h"
#include "image-tools/nbd/nbd.h"
#include "image-tools/snapshot.h"
#include "nbd/servers.h"
#include "qmp/schema/types.h"

#define FIRST_PASSED_FD 3 /* sd_listen_fds(3) */
#define HANDSHAKE_SECONDS 10

struct serving {
    struct tool *tool;
    struct nbd_options *options;
    struct edge *edge;
    struct nbd_servers *servers;
    struct nbd_export *export;
    struct loop_watch watch;
    int signals;
    bool ending;
    struct co_queue end;
};

/* Options --------------------------------------------------------------------------------------------------------- */

static bool read_number(const char *what, const char *text, uint64_t most, uint64_t standard, uint32_t *number,
                        struct error *err)
{
    uint64_t value = standard;
    char *end = "";
    errno = 0;
    if (text)
        value = strtoull(text, &end, 10);
    if ((text && (!*text || *end || *text == '-' || errno)) || value > most)
        return fail(err, EINVAL, "Invalid %s '%s' (0 to %" PRIu64 ")", what, text, most);
    *number = (uint32_t)value;
    return true;
}

static bool read_mode(const struct nbd_options *options, struct open_mode *mode, bool *writethrough, struct error *err)
{
    enum blockdev_aio_options aio = BLOCKDEV_AIO_OPTIONS_THREADS;
    enum blockdev_detect_zeroes_options zeroes = BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF;
    const char *cache = options->cache ? options->cache : options->no_cache ? "none" : "writeback";
    const char *discard = options->discard ? options->discard : "unmap";
    mode->read_only = options->read_only || options->snapshot || options->temporary;
    mode->unmap = !strcmp(discard, "unmap") || !strcmp(discard, "on");
    if (options->cache && options->no_cache)
        return fail(err, EINVAL, "-n and --cache exclude each other");
    if (!tool_cache_mode(cache, mode, writethrough, err))
        return fail_prefix(err, "Invalid cache mode: ");
    if (!mode->unmap && strcmp(discard, "ignore") && strcmp(discard, "off"))
        return fail(err, EINVAL, "Invalid discard mode '%s' (ignore or unmap)", discard);
    if (options->aio && !blockdev_aio_options_parse(options->aio, &aio))
        return fail(err, EINVAL, "invalid aio mode '%s' (threads, native or io_uring)", options->aio);
    mode->aio = options->aio ? (int)aio + 1 : 0;
    if (options->detect_zeroes && !blockdev_detect_zeroes_options_parse(options->detect_zeroes, &zeroes))
        return fail(err, EINVAL, "Invalid detect-zeroes mode '%s' (off, on or unmap)", options->detect_zeroes);
    mode->detect_zeroes = (enum block_detect_zeroes)zeroes;
    if (mode->detect_zeroes == BLOCK_DETECT_ZEROES_UNMAP && !mode->unmap)
        return fail(err, EINVAL, "detect-zeroes=unmap is not allowed without --discard=unmap");
    return true;
}

/* The image ------------------------------------------------------------------------------------------------------- */

static struct edge *open_window(struct serving *serving, struct edge *image, uint32_t perm, struct error *err)
{
    uint64_t offset;
    if (!parse_size(serving->options->offset, &offset, err)) {
        tool_close(image);
        return fail_prefix(err, "Invalid offset '%s': ", serving->options->offset), NULL;
    }
    auto_free char *text = xasprintf("driver=raw,offset=%" PRIu64 ",file=%s%s", offset, image->child->name,
                                     image->child->read_only ? ",read-only=on" : "");
    const struct open_mode mode = {.unmap = true, .read_only = image->child->read_only};
    struct edge *window = NULL;
    if (offset >= image->child->size)
        fail(err, EINVAL, "Offset (%" PRIu64 ") has to be smaller than the image size (%" PRIu64 ")", offset,
             image->child->size);
    else if (edge_set_perm(image, 0, BLOCK_PERM_ALL, err)) /* the window takes its place */
        window = tool_open(serving->tool, text, true, NULL, &mode, perm, err);
    tool_close(image);
    return window;
}

static bool open_image(struct serving *serving, bool *writethrough, struct error *err)
{
    const struct nbd_options *options = serving->options;
    struct open_mode mode = {0};
    if (!read_mode(options, &mode, writethrough, err))
        return false;
    if (options->temporary && (options->image_opts || options->snapshot))
        return fail(err, EINVAL, "-s needs a plain file name, and no -l");
    bool writable = !mode.read_only || options->temporary;
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ | (writable ? BLOCK_PERM_WRITE : 0);
    struct edge *edge =
        options->temporary
            ? tool_open_overlay(serving->tool, options->image, options->format, &mode, err)
            : tool_open(serving->tool, options->image, options->image_opts, options->format, &mode, perm, err);
    if (edge && options->snapshot && !snapshot_load(edge, options->snapshot, err)) {
        tool_close(edge);
        return false;
    }
    if (edge && options->offset)
        edge = open_window(serving, edge, perm, err);
    serving->edge = edge;
    return edge != NULL;
}

/* The server ------------------------------------------------------------------------------------------------------ */

/* Sockets that are made from now on have this label. Empty: the standard one again. */
static bool label_sockets(const char *label, struct error *err)
{
    auto_close int fd = open("/proc/thread-self/attr/sockcreate", O_WRONLY | O_CLOEXEC);
    ssize_t size = (ssize_t)strlen(label);
    return (fd >= 0 && write(fd, label, (size_t)size) == size) ||
           fail_errno(err, errno, "Cannot set SELinux socket create context to '%s'", label);
}

/* A socket that systemd passes (LISTEN_PID, LISTEN_FDS). */
static bool has_passed_socket(struct error *err, bool *passed)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    *passed = pid && count && strtoul(pid, NULL, 10) == (unsigned long)getpid() && strtoul(count, NULL, 10) > 0;
    if (*passed && strcmp(count, "1"))
        return fail(err, EINVAL, "Cannot use socket activation with %s sockets: there must be one", count);
    if (*passed)
        fcntl(FIRST_PASSED_FD, F_SETFD, FD_CLOEXEC);
    return true;
}

static bool find_address(const struct nbd_options *options, struct stream_address *address, struct error *err)
{
    bool passed;
    if (!has_passed_socket(err, &passed))
        return false;
    if (passed && (options->socket || options->port || options->bind || options->selinux_label))
        return fail(err, EINVAL, "%s can't be used with socket activation",
                    options->socket ? "-k"
                    : options->port ? "-p"
                    : options->bind ? "-b"
                                    : "--selinux-label");
    if (options->socket && (options->port || options->bind))
        return fail(err, EINVAL, "-k and -p or -b exclude each other");
    if (passed)
        *address = (struct stream_address){.kind = SOCKET_FD, .fd = FIRST_PASSED_FD};
    else if (options->socket)
        *address = (struct stream_address){.kind = SOCKET_UNIX, .path = options->socket};
    else
        *address = (struct stream_address){.kind = SOCKET_INET,
                                           .host = options->bind ? options->bind : "0.0.0.0",
                                           .port = options->port ? options->port : "10809"};
    return true;
}

/* Then nobody else need find us. */
static bool is_for_kernel_alone(const struct nbd_options *options)
{
    return options->device && !options->socket && !options->port && !options->bind;
}

static bool start_server(struct serving *serving, struct error *err)
{
    const struct nbd_options *options = serving->options;
    struct stream_address address;
    struct nbd_server_description description = {
        .address = &address, .tls_creds = options->tls_creds, .tls_authz = options->tls_authz};
    if (!read_number("shared device number", options->shared, INT32_MAX, 1, &description.limits.max_connections, err) ||
        !read_number("handshake limit", options->handshake_limit, UINT32_MAX, HANDSHAKE_SECONDS,
                     &description.limits.handshake_seconds, err) ||
        !find_address(options, &address, err))
        return false;
    if (is_for_kernel_alone(options))
        description.address = NULL;
    if (options->selinux_label && !label_sockets(options->selinux_label, err))
        return false;
    serving->servers = nbd_servers_new(serving->tool->loop, serving->tool->objects);
    bool ok = nbd_servers_start(serving->servers, &description, err);
    return ok && (!options->selinux_label || label_sockets("", err));
}

static void end(struct serving *serving)
{
    serving->ending = true;
    co_queue_wake_all(&serving->end);
}

static void on_left(void *user)
{
    end(user);
}

static bool make_export(struct serving *serving, bool writethrough, struct error *err)
{
    const struct nbd_options *options = serving->options;
    size_t count = options->bitmaps.count;
    auto_free struct nbd_bitmap_option *bitmaps = new_array(struct nbd_bitmap_option, count + 1);
    for (size_t i = 0; i < count; i++)
        bitmaps[i].name = options->bitmaps.items[i];
    const struct nbd_export_options export = {
        .name = options->name ? options->name : "",
        .description = options->description,
        .writable = serving->edge->perm & BLOCK_PERM_WRITE,
        .writethrough = writethrough,
        .allocation_depth = options->allocation_depth,
        .bitmaps = bitmaps,
        .n_bitmaps = count,
        .left = options->persistent ? NULL : on_left,
        .user = serving,
    };
    serving->export = nbd_export_new(nbd_servers_find(serving->servers, NULL), &export, serving->edge, err);
    return serving->export != NULL;
}

/* Life ------------------------------------------------------------------------------------------------------------ */

static void on_signal(void *arg, uint32_t events)
{
    struct serving *serving = arg;
    struct signalfd_siginfo info;
    (void)events;
    if (read(serving->signals, &info, sizeof info) == sizeof info)
        end(serving);
}

static void watch_signals(struct serving *serving)
{
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGHUP);
    serving->signals = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
    loop_watch(serving->tool->loop, &serving->watch, serving->signals, EPOLLIN, on_signal, serving);
}

static bool serve(struct serving *serving, struct error *err)
{
    struct nbd_options *options = serving->options;
    bool writethrough;
    /* The export is there before the first client can ask for it: accepting begins when this coroutine waits. */
    if (!open_image(serving, &writethrough, err) || !start_server(serving, err) ||
        !make_export(serving, writethrough, err))
        return false;
    if (options->device && !device_connect(options->device, serving->export, serving->edge, on_left, serving, err))
        return false;
    if (options->device && options->verbose)
        fprintf(stderr, "NBD device %s is now connected to %s\n", options->connect, options->image);
    auto_free char *pidfile = NULL;
    if (options->pidfile && !(pidfile = background_write_pidfile(options->pidfile, err)))
        return false;
    if (options->ready_fd >= 0)
        background_ready(TAKE_FD(options->ready_fd));
    while (!serving->ending)
        co_queue_wait_uncancellable(&serving->end);
    if (pidfile)
        unlink(pidfile);
    return true;
}

int nbd_serve(struct tool *tool, struct nbd_options *options)
{
    struct serving serving = {.tool = tool, .options = options, .signals = -1};
    auto_error err = {0};
    co_queue_init(&serving.end);
    watch_signals(&serving);
    bool ok = serve(&serving, &err);
    if (!ok)
        log_failure(&err);
    device_end(options->device);
    graph_give_up(tool->graph);
    if (serving.export)
        nbd_export_free(serving.export);
    if (serving.servers) {
        nbd_servers_stop_all(serving.servers, NULL);
        nbd_servers_free(serving.servers);
    }
    int result = serving.edge && ok ? block_flush(serving.edge) : 0;
    if (result < 0)
        log_error("'%s' could not be flushed: %s", options->image, strerror(-result));
    tool_close(serving.edge);
    loop_unwatch(&serving.watch);
    close(serving.signals);
    return ok && result >= 0 ? 0 : 1;
}
