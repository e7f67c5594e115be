/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: timers fire early or out of order, posts from threads are lost, watches or stop misbehave. */
#include "tests/unit/base/loops.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/rng.h"

/* --- timers --- */

#define TIMERS 500

struct timed {
    struct loop_timer timer;
    uint64_t wanted_ns;
    int id;
    bool cancelled, fired;
};

struct timing {
    struct timed all[TIMERS];
    struct timed *last;
    int fired;
};

static struct timing *timing_of(struct timed *t)
{
    return container_of(t - t->id, struct timing, all[0]);
}

static void fire(void *arg)
{
    struct timed *t = arg;
    struct timing *timing = timing_of(t);
    assert_false(t->cancelled || t->fired);
    assert_int_equal(t->timer.heap_index, 0);
    assert_true(loop_now_ns(t->timer.loop) >= t->wanted_ns);
    struct timed *last = timing->last;
    assert_true(!last || last->wanted_ns < t->wanted_ns ||
                (last->wanted_ns == t->wanted_ns && last->timer.order < t->timer.order));
    t->fired = true;
    timing->last = t;
    timing->fired++;
}

static void timers_fire_in_order(void **state)
{
    struct loop *loop = new_loop(state);
    static struct timing timing;
    timing = (struct timing){0};
    struct rng rng;
    rng_seed(&rng, 9);
    uint64_t now = loop_now_ns(loop);
    for (int i = 0; i < TIMERS; i++) {
        struct timed *t = &timing.all[i];
        *t = (struct timed){.timer = {.fn = fire, .arg = t}, .id = i};
        t->wanted_ns = now + rng_below(&rng, 20) * 1000000; /* many share a deadline */
        loop_timer_arm(loop, &t->timer, t->wanted_ns);
    }
    int left = TIMERS;
    for (int i = 0; i < TIMERS; i += 3) { /* cancel some, move others */
        struct timed *t = &timing.all[i];
        if (rng_coin(&rng)) {
            loop_timer_cancel(&t->timer);
            loop_timer_cancel(&t->timer); /* twice does nothing */
            t->cancelled = true;
            left--;
        } else {
            t->wanted_ns = now + rng_below(&rng, 30) * 1000000;
            loop_timer_arm(loop, &t->timer, t->wanted_ns);
        }
    }
    loop_run_until_idle(loop);
    assert_int_equal(timing.fired, left);
    loop_free(loop);
}

static void rearm(void *arg)
{
    struct timed *t = arg;
    if (++t->id < 5)
        loop_timer_arm(t->timer.loop, &t->timer, 0);
}

static void timer_may_rearm_itself(void **state)
{
    struct loop *loop = new_loop(state);
    struct timed t = {.timer = {.fn = rearm, .arg = &t}};
    loop_timer_arm(loop, &t.timer, 0);
    loop_run_until_idle(loop);
    assert_int_equal(t.id, 5);
    loop_free(loop);
}

/* --- posts --- */

struct posting {
    struct loop *loop;
    int next[4], received;
};
struct post {
    struct posting *posting;
    int thread, number;
};

static void receive_post(void *arg)
{
    struct post *post = arg;
    assert_ptr_equal(loop_current(), post->posting->loop);
    assert_int_equal(post->posting->next[post->thread]++, post->number); /* in order of each thread */
    if (++post->posting->received == 4 * 2000)
        loop_stop(post->posting->loop);
    free(post);
}

struct poster {
    struct posting *posting;
    int thread;
};

static void *post_many(void *arg)
{
    struct poster *poster = arg;
    for (int i = 0; i < 2000; i++) {
        struct post *post = malloc(sizeof *post);
        *post = (struct post){poster->posting, poster->thread, i};
        loop_post(poster->posting->loop, receive_post, post);
        if (i % 100 == 0)
            usleep(100); /* lets the loop fall asleep now and then */
    }
    return NULL;
}

static void posts_arrive_from_threads(void **state)
{
    struct posting posting = {.loop = new_loop(state)};
    pthread_t threads[4];
    struct poster posters[4];
    for (int i = 0; i < 4; i++) {
        posters[i] = (struct poster){&posting, i};
        pthread_create(&threads[i], NULL, post_many, &posters[i]);
    }
    loop_run(posting.loop);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(posting.received, 4 * 2000);
    loop_free(posting.loop);
}

static void *stop_later(void *arg)
{
    usleep(20000);
    loop_stop(arg);
    return NULL;
}

static void stop_from_a_thread(void **state)
{
    struct loop *loop = new_loop(state);
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, stop_later, loop);
        loop_run(loop);
        pthread_join(thread, NULL);
    }
    loop_stop(loop); /* before the run: it ends at once */
    loop_run(loop);
    loop_free(loop);
}

/* --- watches --- */

struct watching {
    struct loop_watch watch, other;
    int fds[2], calls, other_calls;
    bool leave_data;
};

static void readable(void *arg, uint32_t events)
{
    struct watching *w = arg;
    char byte;
    assert_true(events & EPOLLIN);
    w->calls++;
    if (w->leave_data && w->calls < 3)
        return; /* level-triggered: we are called again */
    assert_int_equal(read(w->fds[0], &byte, 1), 1);
    if (byte == 'q')
        loop_stop(w->watch.loop);
}

static void watches_are_level_triggered(void **state)
{
    struct loop *loop = new_loop(state);
    struct watching w = {.leave_data = true};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, w.fds), 0);
    loop_watch(loop, &w.watch, w.fds[0], EPOLLIN, readable, &w);
    assert_int_equal(write(w.fds[1], "aq", 2), 2);
    loop_run(loop);
    assert_int_equal(w.calls, 4); /* twice without reading, then one for each byte */
    loop_unwatch(&w.watch);
    loop_unwatch(&w.watch); /* twice does nothing */
    assert_int_equal(write(w.fds[1], "x", 1), 1);
    loop_run_until_idle(loop);
    assert_int_equal(w.calls, 4);
    close(w.fds[0]);
    close(w.fds[1]);
    loop_free(loop);
}

static void unwatch_both(void *arg, uint32_t events)
{
    struct watching *w = arg;
    w->calls++;
    loop_unwatch(&w->watch);
    loop_unwatch(&w->other);
    loop_stop(w->watch.loop ? w->watch.loop : loop_current());
}

/* Two watches of one descriptor for the same event; whichever is called first removes both. */
static void callback_may_remove_any_watch(void **state)
{
    struct loop *loop = new_loop(state);
    struct watching w = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, w.fds), 0);
    loop_watch(loop, &w.watch, w.fds[0], EPOLLIN, unwatch_both, &w);
    loop_watch(loop, &w.other, w.fds[0], EPOLLIN | EPOLLOUT, unwatch_both, &w);
    assert_int_equal(write(w.fds[1], "x", 1), 1);
    loop_run(loop);
    assert_int_equal(w.calls, 1);
    loop_run_until_idle(loop);
    assert_int_equal(w.calls, 1);
    close(w.fds[0]);
    close(w.fds[1]);
    loop_free(loop);
}

/* Standard input may be a regular file. */
static void regular_files_are_always_ready(void **state)
{
    struct loop *loop = new_loop(state);
    char path[] = "/tmp/spindle-watch-XXXXXX";
    struct watching w = {.fds = {mkstemp(path), -1}};
    unlink(path);
    assert_int_equal(write(w.fds[0], "aq", 2), 2);
    lseek(w.fds[0], 0, SEEK_SET);
    loop_watch(loop, &w.watch, w.fds[0], EPOLLIN, readable, &w);
    loop_run(loop);
    assert_int_equal(w.calls, 2);
    loop_unwatch(&w.watch);
    loop_run_until_idle(loop);
    close(w.fds[0]);
    loop_free(loop);
}

/* --- choice of the back end --- */

static void environment_chooses(void **state)
{
    struct error err = {0};
    setenv("SPINDLE_LOOP", "epoll", 1);
    struct loop *loop = loop_new(LOOP_AUTO, 0, &err);
    assert_int_equal(loop_backend(loop), LOOP_EPOLL);
    loop_free(loop);
    setenv("SPINDLE_LOOP", "select", 1);
    assert_null(loop_new(LOOP_AUTO, 0, &err));
    assert_non_null(strstr(err.message, "'select'"));
    error_clear(&err);
    unsetenv("SPINDLE_LOOP");
    loop = loop_new(LOOP_AUTO, 0, &err);
    assert_non_null(loop);
    assert_true(loop_backend(loop) == LOOP_URING || loop_backend(loop) == LOOP_EPOLL);
    loop_free(loop);
}

/* A sandbox that answers EPERM or ENOSYS to io_uring_setup(2), as containers' filters do. In a child: a filter is for
 * ever. The child's exit status says what it found. */
static int choose_in_sandbox(int code)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)code),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {ARRAY_SIZE(program), program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
        return 77;
    struct error err = {0};
    if (loop_new(LOOP_URING, 0, &err) || !strstr(err.message, "io_uring") || !strstr(err.message, strerror(code)))
        return 1;
    struct loop *loop = loop_new(LOOP_AUTO, 0, NULL);
    return loop && loop_backend(loop) == LOOP_EPOLL ? 0 : 2;
}

static void sandboxes_get_epoll(void **state)
{
    const int codes[] = {EPERM, ENOSYS};
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        pid_t child = fork();
        if (!child)
            _exit(choose_in_sandbox(codes[i]));
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77)
            skip(); /* no filter can be set here */
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(timers_fire_in_order),           ON_EVERY_LOOP(timer_may_rearm_itself),
        ON_EVERY_LOOP(posts_arrive_from_threads),      ON_EVERY_LOOP(stop_from_a_thread),
        ON_REAL_LOOPS(watches_are_level_triggered),    ON_REAL_LOOPS(callback_may_remove_any_watch),
        ON_REAL_LOOPS(regular_files_are_always_ready), cmocka_unit_test(environment_chooses),
        cmocka_unit_test(sandboxes_get_epoll),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
