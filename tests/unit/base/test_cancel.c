/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: a wait does not end when its coroutine is cancelled, or one that must be waited out does. */
#include "tests/unit/base/loops.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/io_file.h"
#include "base/stream.h"

struct patient {
    int result;
    bool done;
    void *thing;
    int fd;
};

static void sleeper(void *arg)
{
    struct patient *p = arg;
    p->result = co_sleep_ns(3600000000000);
    p->done = true;
}

static void queue_waiter(void *arg)
{
    struct patient *p = arg;
    p->result = co_queue_wait(p->thing);
    p->done = true;
}

static void queue_waiter_ns(void *arg)
{
    struct patient *p = arg;
    p->result = co_queue_wait_ns(p->thing, 3600000000000);
    p->done = true;
}

static void receiver(void *arg)
{
    struct patient *p = arg;
    char byte;
    p->result = (int)stream_recv(p->thing, &byte, 1);
    p->done = true;
}

static void sender(void *arg)
{
    struct patient *p = arg;
    static const char block[65536];
    do
        p->result = stream_send_all(p->thing, block, sizeof block);
    while (!p->result);
    p->done = true;
}

static void fd_waiter(void *arg)
{
    struct patient *p = arg;
    p->result = loop_wait_fd(loop_current(), p->fd, EPOLLIN);
    p->done = true;
}

static void acceptor(void *arg)
{
    struct patient *p = arg;
    struct stream *stream = listener_accept(p->thing, &p->result);
    assert_null(stream);
    p->done = true;
}

/* Lets it get into its wait, cancels it, and expects it gone at once. `early`: cancel before it has run at all. */
static void cancel_one(void (*fn)(void *), struct patient *patient, bool early)
{
    struct co_group group;
    co_group_init(&group);
    patient->done = false;
    co_spawn(loop_current(), &group, fn, patient);
    if (!early)
        co_sleep_ns(3000000);
    assert_false(patient->done);
    uint64_t before = loop_now_ns(loop_current());
    co_group_cancel(&group);
    co_group_wait(&group);
    assert_true(patient->done);
    assert_int_equal(patient->result, -ECANCELED);
    assert_true(loop_now_ns(loop_current()) - before < 1000000000);
}

static void cancel_both_ways(void (*fn)(void *), struct patient *patient)
{
    cancel_one(fn, patient, false);
    cancel_one(fn, patient, true);
}

static int every_wait_main(void *arg)
{
    struct loop *loop = loop_current();
    struct patient patient = {0};
    cancel_both_ways(sleeper, &patient);

    struct co_queue queue;
    co_queue_init(&queue);
    patient.thing = &queue;
    cancel_both_ways(queue_waiter, &patient);
    cancel_both_ways(queue_waiter_ns, &patient);
    assert_true(list_empty(&queue.waiters));

    struct stream *pair[2];
    struct error err = {0};
    assert_true(stream_pair(loop, pair, &err));
    patient.thing = pair[0];
    cancel_both_ways(receiver, &patient);
    /* What a cancelled receive did not take is still there. */
    assert_int_equal(stream_send_all(pair[1], "x", 1), 0);
    char byte;
    assert_int_equal(stream_recv(pair[0], &byte, 1), 1);
    assert_int_equal(byte, 'x');
    cancel_both_ways(sender, &patient);
    stream_close(pair[0]);
    stream_close(pair[1]);

    struct stream_address address = {.kind = SOCKET_INET, .host = "127.0.0.1", .port = "0"};
    patient.thing = listener_new(loop, &address, 1, &err);
    assert_non_null(patient.thing);
    cancel_both_ways(acceptor, &patient);
    listener_close(patient.thing);
    return 0;
}

static void every_wait_can_be_cancelled(void **state)
{
    run_on_loop(state, every_wait_main, NULL);
}

static int fd_main(void *arg)
{
    struct patient patient = {0};
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    patient.fd = fds[0];
    cancel_both_ways(fd_waiter, &patient);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(loop_wait_fd(loop_current(), fds[0], EPOLLIN), EPOLLIN);
    close(fds[0]);
    close(fds[1]);
    return 0;
}

static void descriptor_wait_can_be_cancelled(void **state)
{
    run_on_loop(state, fd_main, NULL);
}

struct steadfast {
    struct co_mutex mutex;
    bool has_lock, done;
    struct io_file *file;
};

static void wait_for_lock(void *arg)
{
    struct steadfast *s = arg;
    co_mutex_lock(&s->mutex);
    s->has_lock = true;
    assert_true(co_cancelled());
    co_mutex_unlock(&s->mutex);
    /* File I/O is waited out too: what was begun is finished. */
    char buffer[512] = "data";
    struct iovec iov = {buffer, sizeof buffer};
    assert_int_equal(io_file_writev(s->file, &iov, 1, 0, false), sizeof buffer);
    assert_int_equal(io_file_readv(s->file, &iov, 1, 0), sizeof buffer);
    assert_int_equal(io_file_datasync(s->file), 0);
    /* A shielded section can wait; afterwards the cancellation is felt again. */
    co_set_cancellable(false);
    assert_false(co_cancelled());
    assert_int_equal(co_sleep_ns(1000000), 0);
    co_set_cancellable(true);
    assert_true(co_cancelled());
    assert_int_equal(co_sleep_ns(1000000), -ECANCELED);
    s->done = true;
}

static int steadfast_main(void *arg)
{
    struct loop *loop = loop_current();
    struct steadfast s = {0};
    struct error err = {0};
    char path[] = "/tmp/spindle-cancel-XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    s.file = loop_backend(loop) == LOOP_SIMULATED
                 ? io_file_open(loop, "file", O_RDWR | O_CREAT, 0600, IO_ENGINE_AUTO, &err)
                 : io_file_from_fd(loop, dup(fd), IO_ENGINE_AUTO, &err);
    close(fd);
    assert_non_null(s.file);
    co_mutex_init(&s.mutex);
    co_mutex_lock(&s.mutex);
    struct co_group group;
    co_group_init(&group);
    co_spawn(loop, &group, wait_for_lock, &s);
    co_sleep_ns(100000);
    co_group_cancel(&group);
    co_sleep_ns(100000);
    assert_false(s.has_lock);
    co_mutex_unlock(&s.mutex);
    co_group_wait(&group);
    assert_true(s.done);
    io_file_close(s.file);
    return 0;
}

static void mutexes_files_and_shields_are_waited_out(void **state)
{
    run_on_loop(state, steadfast_main, NULL);
}

/* A wake and a cancellation that meet: the wake must not be lost. */
static int granted_main(void *arg)
{
    struct co_queue queue;
    co_queue_init(&queue);
    struct patient patient = {.thing = &queue};
    struct co_group group;
    co_group_init(&group);
    co_spawn(loop_current(), &group, queue_waiter, &patient);
    co_sleep_ns(100000);
    co_queue_wake_one(&queue);
    co_group_cancel(&group);
    co_group_wait(&group);
    assert_int_equal(patient.result, 0);
    return 0;
}

static void wake_wins_over_later_cancel(void **state)
{
    run_on_loop(state, granted_main, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(every_wait_can_be_cancelled),
        ON_REAL_LOOPS(descriptor_wait_can_be_cancelled),
        ON_EVERY_LOOP(mutexes_files_and_shields_are_waited_out),
        ON_EVERY_LOOP(wake_wins_over_later_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
