/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conversation with the kernel: /dev/fuse is a queue of messages, one read() a message, one writev() an answer, in
 * any order. A watch on the loop reads what is there; each message gets a coroutine, in which libfuse takes it apart
 * and calls the handlers, and they wait as they need to. So as many requests are in flight as clients have, up to
 * MAX_IN_FLIGHT.
 *
 * With an iothread, messages are read and answers written there, the handlers run where the node is; libfuse's answer
 * is kept with its message until that comes back (keep_answer()). So a request costs one trip to the other loop.
 *
 * One descriptor, not several clones of it (FUSE_DEV_IOC_CLONE): clones let several threads wait and answer without
 * getting into each other's way, and a node has one thread.
 *
 * Two things of the protocol are younger than the libfuse that distributions ship: that direct files may be mapped
 * shared, and that writes to them may overlap in time. They are bits in two answers, which we set on the way out
 * (complete()); a libfuse that sets them itself sees no difference. Protocol: include/uapi/linux/fuse.h.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "fuse-export/internal.h"

enum {
    PAGE = 4096,
    WRITE_HEAD = sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in), /* in front of the data */
    AREA = PAGE + MAX_TRANSFER,
    MESSAGES_KEPT = 16, /* with the pages that they have touched */
};

/* Newer than the headers of some hosts. */
#define INIT_EXTENDED (1u << 30)                      /* FUSE_INIT_EXT */
#define INIT_DIRECT_IO_ALLOW_MMAP (UINT64_C(1) << 36) /* FUSE_DIRECT_IO_ALLOW_MMAP */
#define OPEN_PARALLEL_DIRECT_WRITES (1u << 6)         /* FOPEN_PARALLEL_DIRECT_WRITES */

/* Messages ------------------------------------------------------------------------------------------------------- */

static struct message *message_take(struct served_file *file)
{
    if (!list_empty(&file->free_messages)) {
        struct message *message = list_entry(file->free_messages.next, struct message, link);
        list_remove(&message->link);
        file->kept--;
        return message;
    }
    uint8_t *area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED)
        return NULL;
    struct message *message = new (struct message);
    *message = (struct message){.file = file, .area = area, .start = area + PAGE - WRITE_HEAD, .data = area + PAGE};
    return message;
}

static void message_free(struct message *message)
{
    munmap(message->area, AREA);
    free(message);
}

static void message_give_back(struct message *message)
{
    struct served_file *file = message->file;
    if (file->kept >= MESSAGES_KEPT) {
        message_free(message);
        return;
    }
    file->kept++;
    list_prepend(&file->free_messages, &message->link);
}

static void forget_messages(struct served_file *file)
{
    struct message *message;
    list_for_each_safe (message, &file->free_messages, link) {
        list_remove(&message->link);
        message_free(message);
    }
}

/* Answers -------------------------------------------------------------------------------------------------------- */

static void complete_init(struct served_file *file, struct fuse_init_out *answer)
{
    if (file->mmap_needs_cache)
        return;
    answer->flags |= INIT_EXTENDED;
    answer->flags2 |= (uint32_t)(INIT_DIRECT_IO_ALLOW_MMAP >> 32);
}

static void complete(struct served_file *file, struct iovec *iov, int count)
{
    const struct fuse_out_header *head = iov[0].iov_base;
    if (file->completion == AS_IT_IS || head->error || count < 2)
        return;
    if (file->completion == COMPLETE_INIT && iov[1].iov_len >= offsetof(struct fuse_init_out, unused))
        complete_init(file, iov[1].iov_base);
    if (file->completion == COMPLETE_OPEN && iov[1].iov_len >= sizeof(struct fuse_open_out))
        ((struct fuse_open_out *)iov[1].iov_base)->open_flags |= OPEN_PARALLEL_DIRECT_WRITES;
}

static struct message *find_handled(const struct served_file *file, uint64_t unique)
{
    struct message *message;
    list_for_each (message, &file->handled, link)
        if (((const struct fuse_in_header *)message->start)->unique == unique)
            return message;
    return NULL;
}

static bool lies_in(const struct message *message, const struct iovec *piece)
{
    const uint8_t *start = piece->iov_base;
    return start >= message->area && start + piece->iov_len <= message->area + AREA;
}

/* Data lies in the message already, the rest is short and goes to `small`. false: this one does not. */
static bool keep_answer(struct message *message, const struct iovec *iov, int count)
{
    size_t used = 0;
    if (!message || count > ANSWER_PIECES)
        return false;
    for (int i = 0; i < count; i++) {
        message->answer[i] = iov[i];
        if (lies_in(message, &iov[i]))
            continue;
        if (iov[i].iov_len > ANSWER_SMALL - used)
            return false;
        message->answer[i].iov_base = memcpy(message->small + used, iov[i].iov_base, iov[i].iov_len);
        used += iov[i].iov_len;
    }
    message->answer_count = count;
    return true;
}

static ssize_t answer(int fd, struct iovec *iov, int count, void *user)
{
    struct served_file *file = user;
    const struct fuse_out_header *head = iov[0].iov_base;
    complete(file, iov, count);
    if (likely(file->front == file->loop) || !keep_answer(find_handled(file, head->unique), iov, count))
        return writev(fd, iov, count);
    return head->len;
}

/* On `front`. Whoever asked for an open may not wait any more, and will not release it. */
static void write_answer(struct message *message)
{
    const struct fuse_in_header *question = (const void *)message->start;
    const struct fuse_out_header *head = message->answer[0].iov_base;
    int count = message->answer_count;
    message->answer_count = 0;
    if (!count)
        return;
    bool opens = question->opcode == FUSE_OPEN && !head->error;
    if (writev(message->file->fd, message->answer, count) < 0 && opens)
        message->file->opened--;
}

static ssize_t receive(int fd, void *buffer, size_t size, void *user)
{
    (void)user;
    return read(fd, buffer, size);
}

/* Messages of the kernel ----------------------------------------------------------------------------------------- */

static void look_again(struct served_file *file);

/* What this kernel can do, before libfuse (which asks served_init) answers. */
static void note_init(struct served_file *file, const struct message *message)
{
    const struct fuse_init_in *init = (const void *)(message->start + sizeof(struct fuse_in_header));
    size_t size = message->length - sizeof(struct fuse_in_header);
    uint64_t flags = 0;
    if (size >= offsetof(struct fuse_init_in, flags) + sizeof init->flags)
        flags = init->flags;
    if (flags & INIT_EXTENDED && size >= offsetof(struct fuse_init_in, flags2) + sizeof init->flags2)
        flags |= (uint64_t)init->flags2 << 32;
    file->mmap_needs_cache = !(flags & INIT_DIRECT_IO_ALLOW_MMAP);
    file->completion = COMPLETE_INIT;
}

/* At the node's loop. */
static void handle(void *arg)
{
    struct message *message = arg;
    struct served_file *file = message->file;
    const struct fuse_in_header *head = (const void *)message->start;
    if (head->opcode == FUSE_INIT)
        note_init(file, message);
    file->current = message;
    bool is_away = file->front != file->loop;
    if (is_away)
        list_append(&file->handled, &message->link);
    fuse_session_process_buf(file->session, &(struct fuse_buf){.mem = message->start, .size = message->length});
    if (is_away)
        list_remove(&message->link);
    if (file->completion == COMPLETE_INIT)
        file->completion = AS_IT_IS;
}

static void run_message(void *arg)
{
    struct message *message = arg;
    struct served_file *file = message->file;
    if (likely(file->front == file->loop)) {
        handle(message);
    } else {
        co_call_on(file->loop, handle, message);
        write_answer(message);
    }
    message_give_back(message);
    look_again(file);
}

static void stop_watching(struct served_file *file)
{
    if (file->watching)
        loop_unwatch(&file->watch);
    file->watching = false;
}

/* At the node's loop, before the export can be closed: closing it waits for an answer of ours, which comes behind. */
static void close_soon(void *export)
{
    export_close_soon(export);
}

/* It was unmounted, or the connection was ended through /sys/fs/fuse. Nobody can reach the file any more. */
static void channel_ended(struct served_file *file)
{
    stop_watching(file);
    file->gone = true;
    if (file->front == file->loop)
        export_close_soon(file->export);
    else
        loop_post(file->loop, close_soon, file->export);
}

/* Counted as soon as it is seen: the message is there before close() returns, its coroutine runs later. */
static void count_release(struct served_file *file, const struct message *message)
{
    const struct fuse_in_header *head = (const void *)message->start;
    if (head->opcode == FUSE_RELEASE && file->opened)
        file->opened--;
}

static bool receive_one(struct served_file *file)
{
    struct message *message = message_take(file);
    if (!message)
        return false; /* no memory: the watch comes back to it */
    ssize_t got;
    do { /* ENOENT: that one was taken back by who asked */
        got = read(file->fd, message->start, WRITE_HEAD + MAX_TRANSFER);
    } while (got < 0 && (errno == EINTR || errno == ENOENT));
    if (got >= (ssize_t)sizeof(struct fuse_in_header)) {
        message->length = (size_t)got;
        count_release(file, message);
        co_spawn(file->front, &file->requests, run_message, message);
        return true;
    }
    int code = errno;
    message_give_back(message);
    if (got >= 0 || code != EAGAIN)
        channel_ended(file);
    return false;
}

static void on_readable(void *arg, uint32_t events)
{
    struct served_file *file = arg;
    (void)events;
    while (file->requests.running < MAX_IN_FLIGHT) {
        if (!receive_one(file))
            return;
    }
    stop_watching(file); /* until some are done: look_again() */
}

static void look_again(struct served_file *file)
{
    if (file->watching || file->gone || file->fd < 0)
        return;
    file->watching = true;
    loop_watch(file->front, &file->watch, file->fd, EPOLLIN, on_readable, file);
}

static void look_now(void *arg)
{
    struct served_file *file = arg;
    if (file->watching)
        on_readable(file, EPOLLIN);
}

void channel_look(struct served_file *file)
{
    co_call_on(file->front, look_now, file);
}

/* Life ----------------------------------------------------------------------------------------------------------- */

static const struct fuse_lowlevel_ops handlers = {
    .init = served_init,
    .getattr = served_getattr,
    .setattr = served_setattr,
    .open = served_open,
    .release = served_release,
    .statfs = served_statfs,
    .read = served_read,
    .write = served_write,
    .flush = served_flush,
    .fsync = served_fsync,
    .fallocate = served_fallocate,
    .lseek = served_lseek,
};

static const struct fuse_custom_io transport = {.writev = answer, .read = receive};

static void begin(void *arg)
{
    look_again(arg);
}

bool channel_open(struct served_file *file, int fd, struct error *err)
{
    char name[] = "spindle", *argv[] = {name, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    file->session = fuse_session_new(&args, &handlers, sizeof handlers, file);
    fuse_opt_free_args(&args);
    if (!file->session || fuse_session_custom_io(file->session, &transport, fd) != 0) {
        close(fd);
        return fail(err, ENOMEM, "libfuse does not take the connection");
    }
    file->fd = fd;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return fail_errno(err, errno, "/dev/fuse does not work without waiting");
    co_call_on(file->front, begin, file);
    return true;
}

static void end(void *arg)
{
    struct served_file *file = arg;
    stop_watching(file);
    file->gone = true;
    co_group_wait(&file->requests);
}

void channel_close(struct served_file *file)
{
    if (!file->session)
        return;
    co_call_on(file->front, end, file);
    fuse_session_destroy(TAKE(file->session)); /* closes the descriptor */
    file->fd = -1;
    forget_messages(file);
}
