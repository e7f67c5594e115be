/* SPDX-License-Identifier: Apache-2.0 */
/* spindle-riscv64: runs a Linux program made for 64-bit RISC-V; see user.h. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "emulator/clock/clock.h"
#include "emulator/user/user.h"

static bool open_trace(struct user_process *process, struct error *err)
{
    enum { HIGH = 100 /* out of the way of the program's descriptors */ };
    const char *log = process->options->log;
    process->trace = STDERR_FILENO;
    if (!process->options->trace)
        return true;
    int fd = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : STDERR_FILENO;
    if (fd < 0)
        return fail_errno(err, errno, "cannot open the log '%s'", log);
    process->trace = fcntl(fd, F_DUPFD_CLOEXEC, HIGH);
    if (log)
        close(fd);
    return process->trace >= 0 || fail_errno(err, errno, "no descriptor for the log");
}

static bool prepare(struct user_process *process, struct error *err)
{
    const struct user_options *options = process->options;
    struct space *space = &process->space;
    pthread_mutex_init(&process->lock, NULL);
    if (!realpath(options->argv[0], process->program))
        return fail_errno(err, errno, "cannot find '%s'", options->argv[0]);
    process->program_name = options->argv[0];
    if (!open_trace(process, err) || !space_init(space, err))
        return false;
    struct translate_direct direct = {space->base, space->size, space_protect_code, space};
    process->code = machine_code_new_direct(&riscv_user_guest, &direct, translate_native_host(), err);
    space->code = process->code;
    process->clock = clock_new(NULL);
    clock_start(process->clock);
    return process->code;
}

static struct user_thread *start(struct user_process *process, struct error *err)
{
    uint64_t mask = 0;
    sigset_t set;
    struct user_thread *t = prepare(process, err) ? user_thread_new(process, err) : NULL;
    if (!t)
        return NULL;
    t->is_first = true;
    if (!user_thread_begin(t)) {
        fail_errno(err, errno, "cannot prepare the first thread");
        return NULL;
    }
    user_signals_init(process);
    t->actions = process->actions;
    sigprocmask(SIG_SETMASK, NULL, &set);
    memcpy(&mask, &set, sizeof mask); /* is inherited */
    t->mask = mask;
    if (!user_start_program(t, process->program, err))
        return NULL;
    user_signals_use_mask(t);
    return t;
}

/* As programs end, too: the kernel takes the process apart. */
static _Noreturn void leave(int status)
{
    fflush(NULL);
    _exit(status);
}

int main(int argc, char **argv)
{
    enum { CANNOT_RUN = 126, NOT_FOUND = 127 };
    struct user_options options = {.self = "/proc/self/exe"};
    struct user_process *process = new (struct user_process);
    struct error err = {0};
    int status = 1;
    if (!user_options_parse(&options, argc, argv, &status))
        leave(status);
    process->options = &options;
    struct user_thread *t = start(process, &err);
    if (t)
        user_run(t);
    fprintf(stderr, "spindle-riscv64: %s\n", err.message);
    if (err.hint)
        fprintf(stderr, "%s\n", err.hint);
    leave(err.code == ENOENT ? NOT_FOUND : err.code == ENOEXEC || err.code == EACCES ? CANNOT_RUN : 1);
}
