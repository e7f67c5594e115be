/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running another program. A RISC-V executable needs no binfmt_misc registration: this emulator is run again with the
 * same options. A script is resolved here, because its interpreter may be a guest program, and may lie in the sysroot.
 * Programs of the host run directly.
 */
#include "emulator/user/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"

enum { LARGEST = 8 << 20 /* bytes of arguments or environment */, DEEPEST = 5, HEADER = 256, OPTIONS = 16 };

/* The guest's NULL-terminated array of strings, with `room` free places in front; one piece of memory each. */
struct strings {
    char **list; /* room + count + NULL */
    size_t count, room, capacity;
};

static void strings_free(struct strings *s)
{
    for (size_t i = 0; s->list && i < s->count; i++)
        free(s->list[s->room + i]);
    free(s->list);
}
#define auto_strings __attribute__((cleanup(strings_free))) struct strings

static int64_t read_strings(struct user_thread *t, uint64_t address, size_t room, struct strings *s)
{
    struct space *space = &t->process->space;
    auto_free char *text = xmalloc(LARGEST / 64);
    size_t total = 0;
    s->room = room;
    s->capacity = room + 64;
    s->list = new_array(char *, s->capacity);
    for (uint64_t at = address; at; at += 8) {
        uint64_t string;
        if (!space_read(space, &string, at, sizeof string))
            return -EFAULT;
        if (!string)
            break;
        int64_t length = space_string(space, text, LARGEST / 64, string);
        total += length > 0 ? (size_t)length + 9 : 9;
        if (length < 0 || total > LARGEST)
            return length == -EFAULT ? -EFAULT : -E2BIG;
        if (room + s->count + 2 > s->capacity) {
            s->capacity *= 2;
            s->list = xrealloc_array(s->list, s->capacity, sizeof *s->list);
        }
        s->list[room + s->count++] = xstrdup(text);
    }
    s->list[room + s->count] = NULL;
    return 0;
}

/* --- what kind of file ------------------------------------------------------------------------------------------- */

/* "#! interpreter argument": true when it is such a script. */
static bool script_line(int fd, char line[HEADER], char **interpreter, char **argument)
{
    ssize_t size = pread(fd, line, HEADER - 1, 0);
    if (size < 3 || line[0] != '#' || line[1] != '!')
        return false;
    line[size] = 0;
    line[strcspn(line, "\n")] = 0;
    char *at = line + 2 + strspn(line + 2, " \t"), *end = at + strcspn(at, " \t");
    *interpreter = at;
    *argument = NULL;
    if (*end) {
        *end++ = 0;
        end += strspn(end, " \t");
        for (size_t n = strlen(end); n && (end[n - 1] == ' ' || end[n - 1] == '\t'); n--)
            end[n - 1] = 0;
        *argument = *end ? end : NULL;
    }
    return *at;
}

/* --- the emulator's command line --------------------------------------------------------------------------------- */

struct command {
    char **arguments; /* grows to the front */
    size_t free;
};

static void push(struct command *c, const char *text)
{
    c->arguments[--c->free] = (char *)text;
}

static void push_option(struct command *c, const char *option, const char *value)
{
    if (!value)
        return;
    push(c, value);
    push(c, option);
}

/* argv[0] at c->free is the program's own name. */
static void wrap(struct user_thread *t, struct command *c, const char *path, char size[32])
{
    const struct user_options *o = t->process->options;
    const char *argv0 = c->arguments[c->free];
    c->arguments[c->free] = (char *)path;
    push_option(c, "-0", argv0);
    push_option(c, "-L", o->sysroot);
    push_option(c, "-r", o->uname);
    push_option(c, "-D", o->log);
    if (o->stack_size) {
        snprintf(size, 32, "%llu", (unsigned long long)o->stack_size);
        push_option(c, "-s", size);
    }
    if (o->trace)
        push(c, "-strace");
    push(c, "spindle-riscv64");
}

static int64_t run(struct user_thread *t, const char *path, struct command *c, char **environment)
{
    int64_t result = user_host(t, SYS_execve, (uint64_t)(uintptr_t)path, (uint64_t)(uintptr_t)(c->arguments + c->free),
                               (uint64_t)(uintptr_t)environment, 0, 0, 0);
    return result;
}

static int64_t open_program(const char *path)
{
    struct stat st;
    if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS))
        return -errno;
    if (stat(path, &st) || !S_ISREG(st.st_mode))
        return -EACCES;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 && errno != EACCES ? -errno : fd;
}

/* `path` is the host's name; c the arguments with argv[0] first. */
static int64_t exec_file(struct user_thread *t, const char *path, const char *name, struct command *c,
                         char **environment, unsigned depth)
{
    char line[HEADER], size[32], resolved[PATH_MAX], *interpreter, *argument;
    if (depth == DEEPEST)
        return -ELOOP;
    int64_t opened = open_program(path);
    if (opened < 0 && opened != -EACCES)
        return opened;
    auto_close int fd = (int)opened;
    if (fd < 0)
        return run(t, path, c, environment);
    if (user_is_ours(fd)) {
        wrap(t, c, path, size);
        return run(t, t->process->options->self, c, environment);
    }
    if (!script_line(fd, line, &interpreter, &argument))
        return run(t, path, c, environment);
    c->arguments[c->free] = (char *)name;
    if (argument)
        push(c, argument);
    push(c, interpreter);
    int64_t result = user_path_of(t->process, interpreter, resolved);
    return result < 0 ? result : exec_file(t, resolved, interpreter, c, environment, depth + 1);
}

/* execveat(): the file's name in /proc when it is meant by its descriptor. */
static int64_t name_of(struct user_thread *t, int dirfd, uint64_t path, int flags, char guest[PATH_MAX],
                       char host[PATH_MAX])
{
    int64_t length = space_string(&t->process->space, guest, PATH_MAX, path);
    if (length < 0)
        return length;
    if (length == 0 && (flags & AT_EMPTY_PATH) && dirfd != AT_FDCWD) {
        snprintf(host, PATH_MAX, "/proc/self/fd/%d", dirfd);
        snprintf(guest, PATH_MAX, "/dev/fd/%d", dirfd);
        return 0;
    }
    if (length && guest[0] != '/' && dirfd != AT_FDCWD)
        return snprintf(host, PATH_MAX, "/proc/self/fd/%d/%s", dirfd, guest) < PATH_MAX ? 0 : -ENAMETOOLONG;
    if (user_path_is_exe(t->process, guest)) {
        snprintf(host, PATH_MAX, "%s", t->process->program);
        return 0;
    }
    return user_path_of(t->process, guest, host);
}

int64_t exec_program(struct user_thread *t, int dirfd, uint64_t path, uint64_t argv, uint64_t envp, int flags)
{
    char guest[PATH_MAX], host[PATH_MAX];
    auto_strings arguments = {0};
    auto_strings environment = {0};
    int64_t result = name_of(t, dirfd, path, flags, guest, host);
    if (result >= 0)
        result = read_strings(t, argv, OPTIONS + 2 * DEEPEST, &arguments);
    if (result >= 0)
        result = read_strings(t, envp, 0, &environment);
    if (result < 0)
        return result;
    if (!arguments.count) { /* a program always has a name */
        arguments.list[arguments.room] = xstrdup("");
        arguments.list[arguments.room + 1] = NULL;
        arguments.count = 1;
    }
    struct command c = {arguments.list, arguments.room};
    char *own = arguments.list[arguments.room];
    result = exec_file(t, host, guest, &c, environment.list, 0);
    arguments.list[arguments.room] = own;
    return result;
}
