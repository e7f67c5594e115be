/* SPDX-License-Identifier: Apache-2.0 */
/* A loop in a thread of its own; see the header. The thread makes and frees its loop itself, since an io_uring belongs
 * to the thread that uses it. Signals are blocked in it: they belong to the program's main loop. Those that an
 * instruction of the thread itself causes are not: a handler may stand ready for them (vhost-user/memory.c). */
#include "base/loop_thread.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop_private.h"

struct loop_thread {
    pthread_t thread;
    bool is_thread; /* else a part of a simulated world */
    struct loop *loop;
    pid_t id;
    struct error *err; /* while it starts */
    sem_t ready, left; /* left: nobody looks at the loop any more, also not whoever stopped it */
};

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore))
        ;
}

static void *thread_main(void *arg)
{
    struct loop_thread *self = arg;
    struct loop *loop = loop_new(LOOP_AUTO, 0, self->err);
    self->loop = loop;
    self->id = gettid();
    sem_post(&self->ready);
    if (loop) {
        loop_run(loop);
        wait_for(&self->left);
        loop_free(loop);
    }
    return NULL;
}

static int create(struct loop_thread *thread)
{
    sigset_t others, before;
    sigfillset(&others);
    sigdelset(&others, SIGBUS);
    sigdelset(&others, SIGSEGV);
    sigdelset(&others, SIGILL);
    sigdelset(&others, SIGFPE);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    int code = pthread_create(&thread->thread, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

/* The new thread posts once, soon, whatever becomes of its loop. */
static bool start(struct loop_thread *thread, const char *name, struct error *err)
{
    sem_init(&thread->ready, 0, 0);
    sem_init(&thread->left, 0, 0);
    thread->err = err;
    int code = create(thread);
    if (!code) {
        wait_for(&thread->ready);
        char short_name[16] = "";
        strncpy(short_name, name, sizeof short_name - 1);
        pthread_setname_np(thread->thread, short_name);
        if (!thread->loop)
            pthread_join(thread->thread, NULL);
    } else {
        fail_errno(err, code, "cannot start a thread");
    }
    return thread->loop;
}

struct loop_thread *loop_thread_new(struct loop *beside, const char *name, struct error *err)
{
    auto_free struct loop_thread *thread = new (struct loop_thread);
    thread->id = getpid();
    if (beside->sim) {
        thread->loop = beside;
        return TAKE(thread);
    }
    bool good = start(thread, name, err);
    if (!good) {
        sem_destroy(&thread->ready);
        sem_destroy(&thread->left);
        return NULL;
    }
    thread->is_thread = true;
    return TAKE(thread);
}

struct loop *loop_thread_loop(const struct loop_thread *thread)
{
    return thread->loop;
}

pid_t loop_thread_id(const struct loop_thread *thread)
{
    return thread->id;
}

static void stop(void *loop)
{
    loop_stop(loop);
}

void loop_thread_free(struct loop_thread *thread)
{
    if (thread && thread->is_thread) {
        loop_post(thread->loop, stop, thread->loop); /* behind what was posted before */
        sem_post(&thread->left);
        pthread_join(thread->thread, NULL);
        sem_destroy(&thread->ready);
        sem_destroy(&thread->left);
    }
    free(thread);
}
