/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a program: its file and its interpreter, the stack with arguments, environment and auxiliary vector as the
 * RISC-V ABI of Linux has them, the page that signal handlers return through.
 */
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "emulator/user/user.h"

enum { REGISTER_SP = 2, DEFAULT_STACK = 8 << 20, LARGEST_STACK = 1 << 30, HWCAP_IMAFDCV = 0x20112d };
#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

struct stack {
    struct user_process *process;
    uint64_t sp;
    bool failed;
};

static uint64_t push_bytes(struct stack *s, const void *bytes, size_t size)
{
    s->sp -= size;
    s->failed = s->failed || s->sp < s->process->stack_low || !space_write(&s->process->space, s->sp, bytes, size);
    return s->sp;
}

static uint64_t push_string(struct stack *s, const char *text)
{
    return push_bytes(s, text, strlen(text) + 1);
}

static size_t count(char *const *strings)
{
    size_t n = 0;
    while (strings[n])
        n++;
    return n;
}

/* The strings so that the first one lies lowest, as ps and programs that overwrite their arguments expect. */
static void push_strings(struct stack *s, char *const *strings, size_t n, uint64_t *addresses)
{
    while (n-- > 0)
        addresses[n] = push_string(s, strings[n]);
}

static uint64_t stack_size(const struct user_process *process)
{
    struct rlimit limit;
    uint64_t size = process->options->stack_size;
    if (!size && !getrlimit(RLIMIT_STACK, &limit))
        size = limit.rlim_cur == RLIM_INFINITY ? DEFAULT_STACK : limit.rlim_cur;
    size = size > LARGEST_STACK ? LARGEST_STACK : size < 128 << 10 ? 128 << 10 : size;
    return (size + SPACE_PAGE - 1) & ~(uint64_t)(SPACE_PAGE - 1);
}

static bool map_stack(struct user_process *process, bool executable, struct error *err)
{
    struct space *space = &process->space;
    uint64_t size = stack_size(process);
    int prot = PROT_READ | PROT_WRITE | (executable ? PROT_EXEC : 0);
    process->stack_high = space->ceiling;
    process->stack_low = space->ceiling - size;
    int64_t at = space_map(space, process->stack_low, size, prot,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (at < 0)
        return fail_errno(err, (int)-at, "no room for a stack of %llu bytes", (unsigned long long)size);
    space->ceiling = space->top = process->stack_low - (1 << 20); /* a gap: nothing is mapped right below */
    return true;
}

/* li a7, 139 (rt_sigreturn); ecall. Unwinders know handlers' frames by these two instructions. */
static bool map_trampoline(struct user_process *process, struct error *err)
{
    static const uint32_t code[] = {0x08b00893, 0x00000073};
    struct space *space = &process->space;
    int64_t at = space_map(space, 0, SPACE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at < 0 || !space_write(space, (uint64_t)at, code, sizeof code) ||
        space_protect(space, (uint64_t)at, SPACE_PAGE, PROT_READ | PROT_EXEC) < 0)
        return fail(err, ENOMEM, "no room for the page of the signal trampoline");
    process->trampoline = (uint64_t)at;
    return true;
}

/* --- the vector -------------------------------------------------------------------------------------------------- */

static bool push_all(struct stack *s, const struct user_image *program, const struct user_image *interpreter,
                     struct error *err)
{
    struct user_process *process = s->process;
    const struct user_options *options = process->options;
    size_t argc = count(options->argv), envc = count(options->environment);
    auto_free uint64_t *words = new_array(uint64_t, argc + envc + 3);
    uint64_t random[2];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return fail(err, EIO, "no random numbers for the program");

    uint64_t name = push_string(s, process->program_name);
    process->environment_end = s->sp;
    push_strings(s, options->environment, envc, words + 1 + argc + 1);
    process->environment = process->arguments_end = s->sp;
    push_strings(s, options->argv + 1, argc - 1, words + 2);
    words[1] = push_string(s, options->argv0 ? options->argv0 : options->argv[0]);
    process->arguments = s->sp;
    words[0] = argc;
    s->sp &= ~15ull;
    uint64_t random_at = push_bytes(s, random, sizeof random);

    const uint64_t vector[][2] = {
        {AT_HWCAP, HWCAP_IMAFDCV},
        {AT_PAGESZ, SPACE_PAGE},
        {AT_CLKTCK, (uint64_t)sysconf(_SC_CLK_TCK)},
        {AT_PHDR, program->header},
        {AT_PHENT, sizeof(Elf64_Phdr)},
        {AT_PHNUM, program->header_count},
        {AT_BASE, interpreter->bias},
        {AT_FLAGS, 0},
        {AT_ENTRY, program->entry},
        {AT_UID, getuid()},
        {AT_EUID, geteuid()},
        {AT_GID, getgid()},
        {AT_EGID, getegid()},
        {AT_SECURE, 0},
        {AT_RANDOM, random_at},
        {AT_EXECFN, name},
        {AT_MINSIGSTKSZ, 2048},
        {AT_NULL, 0},
    };
    size_t word_count = 1 + argc + 1 + envc + 1;
    size_t size = word_count * 8 + sizeof vector;
    s->sp = (s->sp - size) & ~15ull;
    uint64_t sp = s->sp;
    s->sp += size;
    process->auxv_end = s->sp;
    process->auxv = push_bytes(s, vector, sizeof vector);
    push_bytes(s, words, word_count * 8);
    if (s->failed || s->sp != sp)
        return fail(err, E2BIG, "the arguments and the environment do not fit onto the stack");
    return true;
}

/* --- a program --------------------------------------------------------------------------------------------------- */

static bool load_interpreter(struct user_process *process, const char *name, struct user_image *image,
                             struct error *err)
{
    char path[PATH_MAX];
    struct user_image unused = {0};
    if (user_path_of(process, name, path) < 0)
        return fail(err, ENAMETOOLONG, "the name of the interpreter '%s' is too long", name);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fail_errno(err, errno, "cannot open the program's interpreter '%s'", path);
        return process->options->sysroot
                   ? false
                   : fail_hint(err, "-L names a directory with the libraries of the program's system");
    }
    *image = unused;
    return user_load(&process->space, fd, path, 0, image, err);
}

bool user_start_program(struct user_thread *thread, const char *path, struct error *err)
{
    struct user_process *process = thread->process;
    struct space *space = &process->space;
    struct user_image *program = new (struct user_image), *interpreter = new (struct user_image);
    struct stack stack = {.process = process};
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 || fail_errno(err, errno, "cannot open '%s'", path);
    ok = ok && user_load(space, fd, path, (space->size / 3 * 2) & ~(uint64_t)(SPACE_PAGE - 1), program, err);
    ok = ok && map_stack(process, program->executable_stack, err);
    ok = ok && (!program->interpreter[0] || load_interpreter(process, program->interpreter, interpreter, err));
    ok = ok && map_trampoline(process, err);
    stack.sp = process->stack_high;
    ok = ok && push_all(&stack, program, interpreter, err);
    if (ok) {
        space->break_start = space->break_end = (program->high + SPACE_PAGE - 1) & ~(uint64_t)(SPACE_PAGE - 1);
        thread->cpu->x[REGISTER_SP] = stack.sp;
        thread->cpu->tc.pc = program->interpreter[0] ? interpreter->entry : program->entry;
    }
    free(program);
    free(interpreter);
    return ok;
}
