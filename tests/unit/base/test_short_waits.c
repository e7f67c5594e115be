/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: a loop whose client answers at once misses what comes while it looks instead of sleeping, goes
 * on looking when the client is silent, or sleeps through a timer or a post. */
#include "tests/unit/base/loops.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/stream.h"

enum { ROUND_TRIPS = 3000, BURSTS = 3, SILENCE_MS = 400 };

static void pause_ms(long ms)
{
    struct timespec time = {0, ms * 1000000};
    nanosleep(&time, NULL);
}

/* The client: numbers, each sent as soon as the last one has come back; silence between the bursts. */
static void *client(void *arg)
{
    int fd = *(int *)arg;
    uint32_t number = 0;
    for (int burst = 0; burst < BURSTS; burst++) {
        for (int i = 0; i < ROUND_TRIPS; i++) {
            uint32_t back = 0;
            number++;
            assert_int_equal(write(fd, &number, sizeof number), sizeof number);
            assert_int_equal(recv(fd, &back, sizeof back, MSG_WAITALL), sizeof back);
            assert_int_equal(back, number);
        }
        pause_ms(SILENCE_MS);
    }
    close(fd);
    return NULL;
}

static double processor_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

struct server {
    int fds[2];
    pthread_t thread;
    double most_while_silent; /* processor seconds */
    int timers_fired;
};

static void count_timer(void *arg)
{
    (*(int *)arg)++;
}

static int serve(void *arg)
{
    struct server *server = arg;
    struct loop *loop = loop_current();
    struct stream *stream = stream_from_fd(loop, server->fds[0]);
    pthread_create(&server->thread, NULL, client, &server->fds[1]);
    uint32_t number, served = 0;
    while (!stream_recv_all(stream, &number, sizeof number)) {
        assert_int_equal(stream_send_all(stream, &number, sizeof number), 0);
        if (++served % ROUND_TRIPS)
            continue;
        /* The last of a burst: a timer, then nothing until the client goes on. */
        struct loop_timer timer = {.fn = count_timer, .arg = &server->timers_fired};
        loop_timer_arm(loop, &timer, loop_now_ns(loop) + 20000000);
        double before = processor_seconds();
        assert_int_equal(co_sleep_ns((SILENCE_MS - 100) * 1000000ull), 0);
        double spent = processor_seconds() - before;
        server->most_while_silent = MAX(server->most_while_silent, spent);
        loop_timer_cancel(&timer);
    }
    stream_close(stream);
    assert_int_equal(served, BURSTS * ROUND_TRIPS);
    return 0;
}

static void lockstep_and_silence(void **state)
{
    struct server server = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, server.fds), 0);
    run_on_loop(state, serve, &server);
    pthread_join(server.thread, NULL);
    assert_int_equal(server.timers_fired, BURSTS);
    assert_true(server.most_while_silent < (SILENCE_MS - 100) / 1000.0 / 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {ON_REAL_LOOPS(lockstep_and_silence)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
