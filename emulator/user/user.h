/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User mode: one program of another processor, running as a process of this kernel. Here are the process and its
 * threads; each guest thread is a thread of the host that runs translated code and does the guest's system calls.
 *
 *   space.c space_map.c   the program's memory
 *   elf.c stack.c         what execve() does: load, arguments
 *   run.c thread.c        the loop around translated code; making and ending threads and processes
 *   signal.c frame.c      the host's signals, and how the guest gets them
 *   calls.c calls_*.c     the table of system calls, and those that are not passed on as they are
 *   path.c                file names: sysroot, /proc/self
 *   trace.c               -strace
 *   options.c main.c      the command line
 */
#ifndef EMULATOR_USER_USER_H
#define EMULATOR_USER_USER_H

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include "emulator/cpu/riscv/user.h"
#include "emulator/user/space.h"

struct user_options {
    const char *sysroot; /* -L; NULL: none */
    const char *argv0;   /* -0 */
    uint64_t stack_size; /* -s; 0: the host's limit */
    bool trace;          /* -strace */
    const char *log;     /* -D */
    const char *uname;   /* -r */
    char **argv;         /* the program and its arguments, NULL-terminated */
    char **environment;  /* of the program */
    const char *self;    /* this emulator, to run the guest's children */
};

/* What the guest asked for with rt_sigaction(). */
struct user_action {
    uint64_t handler, flags, mask;
};
enum { USER_SIGNALS = 64 };
struct user_actions {
    pthread_mutex_t lock;
    struct user_action of[USER_SIGNALS + 1];
};

struct user_process {
    struct space space;
    struct machine_code *code;
    struct clock *clock;
    const struct user_options *options;
    struct user_actions *actions;
    char program[PATH_MAX]; /* what /proc/self/exe names */
    char *program_name;     /* as executed: AT_EXECFN */
    uint64_t trampoline;    /* where signal handlers return to */
    uint64_t arguments, arguments_end, environment, environment_end, auxv, auxv_end, stack_low, stack_high;
    int trace; /* descriptor for -strace */

    pthread_mutex_t lock; /* for what follows */
    struct user_thread *threads;
    unsigned thread_count;
    struct user_thread *idle; /* of threads that have ended: their memory is warm, and the next thread takes it */
    unsigned idle_count;
};

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

enum user_restart {                 /* of a system call that a signal interrupted */
                    RESTART_NOT,    /* it was not interrupted */
                    RESTART_ALWAYS, /* it had not begun */
                    RESTART_SA,     /* when the handler has SA_RESTART */
                    RESTART_NOHAND  /* unless a handler runs */
};

struct user_thread {
    struct cpu_riscv *cpu;
    struct user_process *process;
    struct user_thread *next;
    struct user_actions *actions; /* the process's; a child of vfork() has its own */
    int tid;
    bool is_first; /* runs on the host's first thread */
    jmp_buf *end;  /* where others end */

    uint64_t clear_tid; /* set_tid_address */
    uint64_t robust_list;

    /* Signals. `pending` and `info` are written by the handler on this very thread. */
    uint64_t mask, saved_mask; /* saved: a call waits with another mask */
    bool restore_mask;
    uint64_t alternate_sp, alternate_size;
    int alternate_flags;
    volatile uint64_t pending;
    volatile uint32_t stop_calls; /* system calls must not begin */
    siginfo_t info[USER_SIGNALS + 1];
    void *host_stack; /* of the handlers */

    enum user_restart restart;
    uint64_t restart_a0;
    bool is_vfork_child;
};

/* The thread whose translated code runs here, for signal handlers. */
extern _Thread_local struct user_thread *user_current __attribute__((tls_model("initial-exec")));

/* stack.c, elf.c: the program becomes the process's; fills in the first thread's registers. */
struct user_image {
    uint64_t entry, bias, low, high, header, header_count;
    bool executable_stack;
    char interpreter[PATH_MAX]; /* empty: none */
};
/* `at`: where a position-independent file goes; 0 anywhere. */
bool user_load(struct space *space, int fd, const char *name, uint64_t at, struct user_image *image, struct error *err);
bool user_start_program(struct user_thread *thread, const char *path, struct error *err);
/* Is it an executable for this guest? Looks at the header only. */
bool user_is_ours(int fd);

/* run.c */
_Noreturn void user_run(struct user_thread *thread);
_Noreturn void user_die(struct user_thread *thread, const char *why);

/* thread.c */
struct user_thread *user_thread_new(struct user_process *process, struct error *err);
bool user_thread_begin(struct user_thread *thread); /* on its host thread: the handlers' stack, the memory's base */
_Noreturn void user_thread_exit(struct user_thread *thread, int status);
_Noreturn void user_exit_group(struct user_thread *thread, int status);
int64_t user_clone(struct user_thread *thread, uint64_t flags, uint64_t stack, uint64_t parent_tid, uint64_t tls,
                   uint64_t child_tid, int exit_signal);

/* signal.c */
void user_signals_init(struct user_process *process);
/* The host's library takes signal 33, by which it changes user ids, when it makes its first thread: the guest's has it.
 */
void user_signals_take_back(struct user_thread *thread);
void user_signals_deliver(struct user_thread *thread);
void user_signals_raise(struct user_thread *thread, int number, int code, uint64_t address); /* by an instruction */
void user_signals_set_mask(struct user_thread *thread, uint64_t mask);
void user_signals_use_mask(struct user_thread *thread); /* the host's mask := the guest's */
int64_t user_signals_action(struct user_thread *thread, int number, uint64_t new_action, uint64_t old_action);
uint64_t user_signals_host_mask(uint64_t guest_mask);
void user_signals_block_all(void);
/* Does a system call of the host, unless a signal waits. -USER_EINTERRUPTED: it has not begun. */
enum { USER_EINTERRUPTED = 512 };
int64_t user_host_call(volatile uint32_t *stop, long number, const uint64_t arguments[6]);
int64_t user_host(struct user_thread *thread, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                  uint64_t f);

/* frame.c: the guest's frame of a handler. */
bool user_frame_push(struct user_thread *thread, int number, const siginfo_t *info, const struct user_action *action,
                     uint64_t old_mask);
bool user_frame_pop(struct user_thread *thread);
enum { USER_FRAME_SIZE = 1088 };

/* calls.c */
int64_t user_call(struct user_thread *thread, uint64_t number, const uint64_t a[6]);

/* path.c: the host's name of the guest's file, into `to`. Returns 0 or -errno. */
int64_t user_path(struct user_thread *thread, uint64_t guest_address, char to[PATH_MAX]);
int64_t user_path_of(struct user_process *process, const char *guest, char to[PATH_MAX]);
bool user_path_is_exe(struct user_process *process, const char *guest);

/* trace.c */
struct user_syscall;
void user_trace_call(struct user_thread *thread, const struct user_syscall *row, uint64_t number, const uint64_t a[6]);
void user_trace_result(struct user_thread *thread, const struct user_syscall *row, int64_t result);

/* options.c */
bool user_options_parse(struct user_options *options, int argc, char **argv, int *status);

#endif
